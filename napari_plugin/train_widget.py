"""The Train widget: ``operandoseg train`` in a process of its own, its loss while it runs, old against new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QPlainTextEdit,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

from napari_plugin import layers, qt, viewing
from napari_plugin.curve_plot import COLORS, GROUND, INK, dress
from napari_plugin.labelling import labels_path
from napari_plugin.metric_choice import MetricChoice
from napari_plugin.settings import load_settings
from napari_plugin.training_job import (
    FEWEST_IMAGES,
    Comparison,
    TrainingJob,
    compare_models,
    labelled_beside,
    most_different,
    picture,
    prepare_job,
    read_state,
)
from napari_plugin.work import Work, duration
from seg.analysis import load_analysis
from seg.errors import UsageError
from seg.io import find_inputs, open_stack, read_labels
from seg.modality import MODALITIES
from seg.models.bundle import find_model
from seg.segmentation import Segmentation
from seg.stack import Stack

if TYPE_CHECKING:
    import napari

SCRATCH = "nothing: from scratch"
INTERRUPTED = 75
CURVE_PX, PICTURES_PX = 150, 280  # height of the loss alone, and with old and new model under it


class TrainWidget(QWidget):
    """Train on the labels drawn so far and see whether the new model is better than the old one."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: TrainingJob | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.further: list[str] = []
        self._log: Any = None
        self._build()
        self._timer = QTimer(self)
        self._timer.setInterval(500)
        self._timer.timeout.connect(self._look)

    def _build(self) -> None:
        self.images = qt.PathField("folder", "folder; empty: those in the viewer and beside them")
        self.name = QLineEdit("mine")
        self.start_from, self.modality = QComboBox(), QComboBox()
        choice = MetricChoice()
        self.analysis, self.metric = choice.analysis, choice.metric
        settings = load_settings()
        self.start_from.addItems(["auto", SCRATCH, "other folder ..."])
        qt.choose_text(self.start_from, settings.network)
        self.start_from.activated.connect(self._start_chosen)
        self.modality.addItems(list(MODALITIES))
        self.modality.setCurrentText(settings.instrument)
        choice.follow(settings.instrument)
        self.modality.currentTextChanged.connect(lambda name: choice.follow(name))
        self.minutes = QDoubleSpinBox()
        self.minutes.setDecimals(1)
        self.minutes.setRange(0.1, 10_000)
        self.minutes.setValue(settings.training_min)
        self.minutes.setSuffix(" min")
        fields = qt.form()
        fields.addRow("images", self.images)
        fields.addRow("name of the model", self.name)
        fields.addRow("start from", self.start_from)
        fields.addRow("instrument", self.modality)
        fields.addRow("time", self.minutes)
        fields.addRow("analysis", self.analysis)
        fields.addRow("judge by", self.metric)
        self.figure = Figure(figsize=(4, 2), layout="constrained", facecolor=GROUND)
        self.canvas = FigureCanvasQTAgg(self.figure)
        self.canvas.setMinimumHeight(CURVE_PX)
        self.preview = qt.Picture()
        self.preview.setToolTip("What the network says of some of the labelled images, while it trains")
        self.status = qt.note(
            "Labels that are saved are trained on; the last fifth of the labelled frames is held out."
        )
        self.table = QTableWidget()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().hide()
        self.table.hide()
        self.shown_command = QPlainTextEdit()
        self.shown_command.setReadOnly(True)
        self.shown_command.setMaximumHeight(84)
        self.shown_command.setPlaceholderText("The same as a command line appears here.")
        self.train_button = qt.button("Train", self.train)
        self.cancel_button = qt.button("Stop", self.cancel, "The same training continues later")
        self.cancel_button.setEnabled(False)
        column = QVBoxLayout(self)
        column.addLayout(fields)
        column.addLayout(qt.row(self.train_button, self.cancel_button))
        column.addWidget(self.status)
        column.addWidget(self.canvas, 1)
        column.addWidget(self.preview, 2)
        column.addWidget(self.table, 1)
        column.addWidget(self.shown_command)
        column.addLayout(qt.row(
            qt.button("Copy command", lambda: QApplication.clipboard().setText(self.shown_command.toPlainText()))
        ))  # fmt: skip
        self.setMinimumWidth(360)
        self._draw(np.zeros(0), np.zeros(0))

    def _start_chosen(self, index: int) -> None:
        if self.start_from.itemText(index) == "other folder ...":
            folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
            if folder:
                self.start_from.insertItem(index, folder)
            self.start_from.setCurrentIndex(index if folder else 0)

    def labelled_images(self) -> list[Path]:
        """Images with saved labels: of the folder given, else those in the viewer and in their folders."""
        if self.images.path is not None:
            return [p for p in find_inputs([self.images.path]) if labels_path(p).is_file()]
        shown = [viewing.path_of(layer) for layer in self.viewer.layers if type(layer).__name__ == "Image"]
        return list(dict.fromkeys(p for path in shown if path is not None for p in labelled_beside(path)))

    # --- the run ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Start the training in a process of its own."""
        if self.process is not None:
            raise UsageError("A training is going on; stop it first.")
        images = self.labelled_images()
        if not images:
            raise UsageError("There are no saved labels; draw some with the Label widget and press Save.")
        start = self.start_from.currentText()
        modality_name = self.modality.currentText()
        init = None if start == SCRATCH else str(find_model(start, modality=modality_name))
        self.job = prepare_job(
            images, name=self.name.text().strip() or "mine", runs=images[0].parent / "runs", init=init,
            modality_name=modality_name, minutes=None if self.further else self.minutes.value(), further=self.further,
        )  # fmt: skip
        self.shown_command.setPlainText(self.job.command)
        held = sum(len(frames) for frames in self.job.held_out.values())
        self._said = f"{self.job.n_trained} labelled frame(s) to train on, {held} held out. "
        self.status.setText(self._said + "Starting ...")
        self.table.setRowCount(0)
        self.table.hide()
        self.preview.clear()
        self.canvas.setMinimumHeight(CURVE_PX)
        self.job.run_dir.mkdir(parents=True, exist_ok=True)
        self._log = (self.job.run_dir / "train.log").open("wb")
        flags = {"start_new_session": True} if os.name == "posix" else {}
        self.process = subprocess.Popen(
            self.job.process, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **flags
        )
        self.train_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self._n_drawn = 0
        self._timer.start()

    def cancel(self) -> None:
        """Ask the process to save and stop."""
        if self.process is None:
            raise UsageError("No training is going on.")
        self.status.setText("Stopping after this step; the same training continues later.")
        if sys.platform == "win32":
            self.process.terminate()
        else:
            os.kill(self.process.pid, signal.SIGTERM)

    def _look(self) -> None:
        """Twice a second: loss and time to go; and whether the process has ended."""
        if self.job is None or self.process is None:
            return
        state = read_state(self.job.run_dir)
        self.preview.show_file(self.job.run_dir / "preview.png")
        if len(state.steps):
            if len(state.steps) != self._n_drawn:  # drawing costs a third of a core that the training could use
                self._draw(state.steps, state.losses)
            below = "" if self.preview.isHidden() else " Below: image, labels, and what the network says by now."
            self.status.setText(
                f"{self._said}Step {state.steps[-1]}, loss {state.losses[-1]:.3f}, {state.share:.0%} done, "
                f"{duration(state.remaining_s)} left.{below}"
            )
        code = self.process.poll()
        if code is None:
            return
        self._timer.stop()
        self.process = None
        self._log.close()
        self.train_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        if code == 0:
            self._compare()
        elif code in (INTERRUPTED, -signal.SIGTERM, 130):
            self.status.setText(self._said + "Stopped; press Train to continue where it was.")
        else:
            lines = (self.job.run_dir / "train.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
            self.status.setText(f"The training failed: {reason}")
            qt.show_error(reason)

    def _draw(self, steps: np.ndarray, losses: np.ndarray) -> None:
        self._n_drawn = len(steps)
        self.figure.clear()
        self._plot(self.figure.add_subplot(), steps, losses)
        self.canvas.draw_idle()

    @staticmethod
    def _plot(axes: Any, steps: np.ndarray, losses: np.ndarray) -> None:
        axes.plot(steps, losses, "-o" if len(steps) < 20 else "-", color=COLORS[0], linewidth=1.4, markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, max(10, 1.05 * steps[-1] if len(steps) else 0))
        axes.set_ylim(0, 1.1 * losses.max() if len(losses) else 1)
        dress(axes, x="step", y="loss")

    # --- old against new --------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        job = self.job
        assert job is not None
        if not job.held_out:
            self.status.setText(
                f"Done: {job.model_dir}. Label a second frame, or {FEWEST_IMAGES} images, to see old and new model "
                "side by side."
            )
            return
        start, modality_name = self.start_from.currentText(), self.modality.currentText()
        models = {"old": "auto" if start == SCRATCH else start, "new": job.model_dir}
        config, metric = load_analysis(self.analysis.currentText()), self.metric.currentText()
        self.status.setText("Comparing the old and the new model on the frames held out ...")
        work = Work(lambda w: w.compute(compare_models, job, models, config, metric, modality_name), self)
        work.returned.connect(self._show_comparison)
        work.failed.connect(lambda reason: (self.status.setText(reason), qt.show_error(reason)))
        work.start()

    def _show_comparison(self, result: tuple[list[Comparison], Any]) -> None:
        """Masks of both models as layers on the held-out frames, and their scores in the table."""
        items, table = result
        self.preview.clear()
        self.table.show()
        self.canvas.setMinimumHeight(PICTURES_PX)
        if table["image"].nunique() == 1:
            table = table.drop(columns="image")
        qt.fill_table(self.table, table.map(_cell))
        stretched = list(table.columns).index("quantity")
        self.table.horizontalHeader().setSectionResizeMode(stretched, QHeaderView.ResizeMode.Stretch)
        shown = max(items, key=lambda item: float(np.mean(np.not_equal(*item.masks.values())))).image
        self._show_masks([item for item in items if item.image == shown])
        assert self.job is not None
        self.status.setText(
            "Done. Pictures: where old and new model differ most on a frame held out; layers: all those frames of "
            f"{shown.name}. "
            f"The new model is {'/'.join(self.job.model_dir.parts[-3:])} beside the images."
        )

    def _show_pictures(self, item: Comparison, schema: Any, aspect: float) -> None:
        """Labels, old and new model side by side under the loss, where the models differ most."""
        loss = self.figure.axes[0].lines[0].get_data()
        self.figure.clear()
        upper, lower = self.figure.subfigures(2, 1, height_ratios=[1, 1.2])
        upper.set_facecolor(GROUND)
        lower.set_facecolor(GROUND)
        self._plot(upper.add_subplot(), *loss)
        shown, box = {"labels": item.truth, **item.masks}, most_different(list(item.masks.values()))
        for axes, (name, labels) in zip(lower.subplots(1, len(shown)), shown.items(), strict=True):
            axes.imshow(picture(item.grey, labels, schema)[box], aspect=aspect)
            axes.set_title(name if name == "labels" else f"{name} model", color=INK, fontsize=9)
            axes.set_axis_off()
        self.canvas.draw_idle()

    def _show_masks(self, items: list[Comparison]) -> None:
        stack, labels = open_stack(items[0].image), read_labels(labels_path(items[0].image))
        grid = labels.stack
        if not any(viewing.path_of(layer) == items[0].image for layer in self.viewer.layers):
            for layer in self.viewer.layers:  # another image of the queue, perhaps of another size
                layer.visible = False
            viewing.add_layers(self.viewer, [layers.image_layer(stack)])
        for name in items[0].masks:
            data = np.zeros(grid.shape, np.uint8)
            for item in items:
                data[item.frame if grid.shape != item.truth.shape else ...] = item.masks[name]
            shown = Segmentation(Stack(data, grid.axes, grid.calibration, stack.name), labels.schema)
            title = f"{name} model"
            for old in [one for one in self.viewer.layers if one.name == title]:
                self.viewer.layers.remove(old)
            viewing.add_layers(self.viewer, [layers.labels_layer(shown, name=title, opacity=0.5)])
        for layer in self.viewer.layers:
            if layer.name in ("labels", "prediction", "old model"):
                layer.visible = False
        sizes = grid.calibration.pixel_size_um
        self._show_pictures(items[0], labels.schema, sizes.get("y", 1.0) / sizes.get("x", 1.0))
        if len(grid.axes) > 2:
            axis = self.viewer.dims.ndim - len(grid.axes)
            self.viewer.dims.set_current_step(axis, items[0].frame)

    def closeEvent(self, event: Any) -> None:
        """Closing the viewer stops the training; it continues when it is started again."""
        if self.process is not None:
            self.process.terminate()
        super().closeEvent(event)


def _cell(value: Any) -> str:
    """Text of a cell; a number that a column does not have for this row is empty."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
