"""The Run widget: images to masks, numbers and a report, by the engine of the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QHeaderView,
    QLineEdit,
    QPlainTextEdit,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_plugin import layers, qt, run_job, viewing
from napari_plugin.run_job import Job, make_job
from napari_plugin.work import ProgressLine, Work, duration
from seg.batch import RunResult
from seg.errors import UsageError
from seg.resources import config_names

if TYPE_CHECKING:
    import napari

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
NAME_PX, STATUS_PX = 140, 64  # widths of the columns beside the result
OF_ANALYSIS = "as the analysis says"


class RunWidget(QWidget):
    """Run an analysis on the selected layer, or on files and folders."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.job: Job | None = None
        self.results: list[RunResult] = []
        self._patterns: list[str] = []
        self._layer: Any = None
        self.analysis = QComboBox()
        self.analysis.addItems([*config_names("analysis"), "other file ..."])
        self.analysis.setCurrentText("optical-plan")
        self.analysis.activated.connect(self._analysis_chosen)
        self.model = QComboBox()
        self.model.addItems([OF_ANALYSIS, *_models(), "other folder ..."])
        self.model.activated.connect(self._model_chosen)
        self.echem = qt.PathField("file", "cycler file (optional)")
        self.offset = QLineEdit()
        self.offset.setPlaceholderText("image time of its zero: 12s, files, coverage")
        self.out = qt.PathField("folder", "results/ beside the first input")
        fields = qt.form()
        fields.addRow("analysis", self.analysis)
        fields.addRow("model", self.model)
        self.axes = qt.axes_list()
        fields.addRow("axes", self.axes)
        fields.addRow("cycler", self.echem)
        fields.addRow("clock", self.offset)
        fields.addRow("results in", self.out)
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["input", "status", "result"])
        self.table.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.cellDoubleClicked.connect(lambda row, _: qt.told(self.show_result)(row))
        self.line = ProgressLine()
        self.shown_command = QPlainTextEdit()
        self.shown_command.setReadOnly(True)
        self.shown_command.setMaximumHeight(74)
        self.shown_command.setPlaceholderText("The same as a command line appears here.")
        column = QVBoxLayout(self)
        column.addLayout(fields)
        column.addLayout(qt.row(
            qt.button("Run selected layer", self.run_layer, "The image layer that is selected"),
            qt.button("Files ...", self._ask_files), qt.button("Folder ...", self._ask_folder),
        ))  # fmt: skip
        column.addWidget(self.table, 1)
        column.addWidget(qt.note("Double-click a finished input to see its layers."))
        column.addWidget(self.line)
        column.addWidget(self.shown_command)
        column.addLayout(qt.row(
            qt.button("Copy command", lambda: QApplication.clipboard().setText(self.shown_command.toPlainText())),
        ))  # fmt: skip
        self.setMinimumWidth(360)
        self._warming = Work(lambda _: viewing.warm_up(), self).start()

    # --- what to run ------------------------------------------------------------------------------------------------

    def _analysis_chosen(self, index: int) -> None:
        self._choose_other(self.analysis, index, "other file ...", file=True)

    def _model_chosen(self, index: int) -> None:
        self._choose_other(self.model, index, "other folder ...", file=False)

    def _choose_other(self, box: QComboBox, index: int, text: str, *, file: bool) -> None:
        if box.itemText(index) != text:
            return
        if file:
            found, _ = QFileDialog.getOpenFileName(self, "An analysis", "", "YAML (*.yaml *.yml)")
        else:
            found = QFileDialog.getExistingDirectory(self, "Folder of a model")
        if found:
            box.insertItem(index, found)
        box.setCurrentIndex(index if found else 0)

    def run_layer(self) -> None:
        """Run on the selected image layer; one that is no file is written beside the results first."""
        self._layer = viewing.selected_image(self.viewer)
        stack = viewing.stack_of(self._layer, axes=qt.chosen_axes(self.axes))
        path = viewing.path_of(self._layer)
        if path is None:
            path = run_job.write_layer_image(stack, self._out(Path.cwd() / "napari") / "inputs")
        self._run([str(path)], stack=stack)

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Images to run")
        if names:
            self.run_files(names)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of images")
        if folder:
            self.run_files([folder])

    def run_files(self, patterns: list[str]) -> None:
        """Run on files, folders and globs."""
        self._layer = None
        self._run(patterns)

    def _out(self, first: Path) -> Path:
        return self.out.path or first.parent / "results"

    def _run(self, patterns: list[str], *, stack: Any = None) -> None:
        if self.job is not None:
            raise UsageError("A run is going on; wait for it or cancel it.")
        model = self.model.currentText()
        self.job = make_job(
            "run", patterns, analysis=self.analysis.currentText(), out=self._out(Path(patterns[0]).resolve()),
            model="" if model == OF_ANALYSIS else model, echem=self.echem.path, echem_offset=self.offset.text().strip(),
            stack=stack, axes=qt.chosen_axes(self.axes),
        )  # fmt: skip
        self.shown_command.setPlainText(self.job.command)
        self.table.setRowCount(0)
        for path in self.job.inputs:
            self._add_row(path.name, WAITING)
        job = self.job
        self._began = time.monotonic()
        work = Work(lambda w: w.compute(run_job.execute, job), self)
        work.progressed.connect(self._mark)
        work.returned.connect(self._finished)
        work.failed.connect(qt.show_error)
        work.cancelled.connect(self._cancelled)
        work.ended.connect(self._ended)
        self.line.follow(work)
        work.start()

    # --- how far it is ----------------------------------------------------------------------------------------------

    def _add_row(self, *texts: str) -> None:
        row = self.table.rowCount()
        self.table.insertRow(row)
        for column, text in enumerate(texts):
            self._set(row, column, text)
        self.table.resizeColumnToContents(0)
        self.table.setColumnWidth(0, min(self.table.columnWidth(0), NAME_PX))
        self.table.setColumnWidth(1, STATUS_PX)

    def _set(self, row: int, column: int, text: str) -> None:
        item = QTableWidgetItem(text)
        item.setToolTip(text)
        item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
        self.table.setItem(row, column, item)
        if column == 2:
            self.table.resizeRowToContents(row)

    def _mark(self, what: str, done: int, total: int) -> None:
        """Stages are called ``segment NAME`` and ``measure NAME``: the input that runs, and that earlier ones ended."""
        names = [path.name for path in self.job.inputs] if self.job else []
        verb, _, name = what.partition(" ")
        if name not in names:
            return
        if len(names) > 1:
            self.line.of_all = self._of_all(names.index(name), len(names))
        for row in range(len(names)):
            if row == names.index(name):
                self._set(row, 1, verb)
            elif row < names.index(name):
                self._set(row, 1, "ended")

    def _of_all(self, ended: int, total: int) -> str:
        """Which input it is, and the time to go for all of them at the pace so far."""
        left = ""
        if ended:
            left = f", {duration((time.monotonic() - self._began) / ended * (total - ended))} left"
        return f"input {ended + 1} of {total}{left}; "

    def _finished(self, results: list[RunResult]) -> None:
        self.results = results
        for row, result in enumerate(results):
            self._set(row, 1, FAILED if result.error else DONE)
            self._set(row, 2, run_job.result_text(result))
        failed = sum(bool(result.error) for result in results)
        if failed:
            qt.show_error(f"{failed} of {len(results)} inputs failed; failures.csv in the results says why.")
        if len(results) == 1 and not failed:
            self.show_result(0)

    def _cancelled(self) -> None:
        for row in range(self.table.rowCount()):
            if self.table.item(row, 1).text() not in (DONE, "ended"):
                self._set(row, 1, STOPPED)
        qt.say("Stopped; what is finished is kept, and the same run continues where it was.")

    def _ended(self) -> None:
        self.job = None

    def show_result(self, row: int) -> None:
        """Put the masks, objects, tracks and events of an input into the viewer, over its image."""
        if row >= len(self.results) or self.results[row].error:
            raise UsageError("This input has no result to show.")
        result = self.results[row]
        if not any(viewing.path_of(layer) == result.source for layer in self.viewer.layers):
            from seg.io import open_stack

            viewing.add_layers(self.viewer, [layers.image_layer(open_stack(result.source))])
        viewing.add_layers(self.viewer, layers.result_layers(result.folder))


def _models() -> list[str]:
    from seg.models.bundle import SHIPPED

    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())
