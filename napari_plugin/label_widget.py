"""The Label widget: strokes, prediction, acceptance, proof-reading; all logic is in `labelling` and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QListWidget,
    QListWidgetItem,
    QScrollArea,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_plugin import edits, layers, qt
from napari_plugin.edits import Edit
from napari_plugin.files_queue import FAILED, LABELLED, NEW, STARTED, FilesQueue
from napari_plugin.labelling import LabellingSession, Saved, accepted, open_session
from napari_plugin.prediction import ForestPredictor, NetworkPredictor, Plane, Planes, Prediction, strokes_of
from seg.analysis import load_analysis
from seg.errors import UsageError
from seg.labels import load_schema
from seg.modality import MODALITIES
from seg.resources import config_names
from seg.segmentation import Segmentation
from seg.stack import Stack

if TYPE_CHECKING:
    import napari

FOREST = "forest from my strokes"
MARKS = {NEW: "○", STARTED: "◐", LABELLED: "●", FAILED: "✕"}
CLASS_STYLE = """
QToolButton { border: 1px solid transparent; border-radius: 3px; padding: 3px; text-align: left; }
QToolButton:hover { background: #414851; }
QToolButton:checked { background: #4a5563; border: 1px solid #e6e6e6; font-weight: bold; }
"""
# Shift and a letter: free in napari's Labels layer.
KEYS = {"Shift-P": "predict", "Shift-A": "accept_frame", "Shift-C": "accept_class", "Shift-R": "accept_here"}


class LabelWidget(QWidget):
    """Label an image: choose a class, draw, look at the prediction, accept what is right."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: LabellingSession | None = None
        self.queue: FilesQueue | None = None
        self.layer: Any = None
        self.shown: Any = None
        self.planes: Planes | None = None
        self.forest: ForestPredictor | None = None
        self.prediction: Prediction | None = None
        self._models: dict[Plane, str] = {}
        self._work: qt.Work | None = None
        self._again = False
        self._tool_state: tuple[str, tuple[int, ...] | None] = ("", None)
        self._touched: set[int] = set()
        self._build()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self._note_undo)
        self.viewer.dims.events.current_step.connect(self._frame_changed)
        self.viewer.mouse_drag_callbacks.append(self._clicked)
        self.viewer.layers.events.removed.connect(self._removed)
        self._warm_up()

    # --- what it looks like -----------------------------------------------------------------------------------------

    def _build(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setSpacing(2)
        for part in (self._build_image(), self._build_classes(), self._build_predict(), self._build_edit(),
                     self._build_next()):  # fmt: skip
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(inside)
        self.status = qt.note("Open an image, or label the one that is selected.")
        self.line = qt.ProgressLine()
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 4)
        outer.addWidget(scroll, 1)
        outer.addWidget(self.line)
        outer.addWidget(self.status)
        self.setMinimumWidth(330)

    def _build_image(self) -> QWidget:
        part, layout = qt.section("Image")
        self.axes = QComboBox()
        self.axes.addItems(["as the layer says", "tyx: first axis is time", "zyx: first axis is depth"])
        self.schema_name, self.modality = QComboBox(), QComboBox()
        self.schema_name.addItems(config_names("labels"))
        self.modality.addItems(list(MODALITIES))
        fields = qt.form()
        fields.addRow("classes", self.schema_name)
        fields.addRow("instrument", self.modality)
        fields.addRow("axes", self.axes)
        self.files = QListWidget()
        self.files.setMaximumHeight(86)
        self.files.itemActivated.connect(lambda item: qt.told(self.go_to)(self.files.row(item)))
        self.files.hide()
        layout.addLayout(fields)
        layout.addLayout(qt.row(
            qt.button("Label selected layer", self.label_selected, "Label the image layer that is selected"),
            qt.button("Open files ...", self._ask_files, "Label many files, one after the other"),
        ))  # fmt: skip
        layout.addWidget(self.files)
        layout.addLayout(qt.row(
            qt.button("Save", self.save, "Write the label file and read it back"),
            qt.button("Save, next image", self.next_image, "Go to the next image without saved labels"),
        ))  # fmt: skip
        return part

    def _build_classes(self) -> QWidget:
        part, self._classes_layout = qt.section("Class")
        self._class_buttons: dict[int, QToolButton] = {}
        self._class_grid = QWidget()
        self._classes_layout.addWidget(self._class_grid)
        return part

    def _build_predict(self) -> QWidget:
        part, layout = qt.section("Predict and accept")
        self.model = QComboBox()
        self.model.addItems([FOREST, "auto: shipped network", "other network ..."])
        self.model.activated.connect(self._model_chosen)
        self.live = QCheckBox("after every stroke")
        self.live.setChecked(True)
        self.overwrite = QCheckBox("replace what is labelled")
        layout.addLayout(qt.row(self.model, qt.button("Predict", self.predict, "Shift-P"), stretch=0))
        layout.addWidget(self.live)
        layout.addLayout(qt.row(
            "accept",
            qt.button("frame", self.accept_frame, "Everything predicted in this frame (Shift-A)"),
            qt.button("class", self.accept_class, "The chosen class in this frame (Shift-C)"),
            qt.button("region", partial(self._use_tool, "accept"), "Click a predicted region (Shift-R: under cursor)"),
        ))  # fmt: skip
        layout.addWidget(self.overwrite)
        return part

    def _build_edit(self) -> QWidget:
        part, layout = qt.section("Correct the chosen class")
        self.size_px = QSpinBox()
        self.size_px.setRange(1, 1_000_000)
        self.size_px.setValue(20)
        self.size_px.setSuffix(" px")
        self.size_px.setToolTip("Largest hole to fill, largest speck to remove")
        layout.addLayout(qt.row(
            qt.button("Fill holes", self.fill_holes), qt.button("Remove specks", self.remove_specks), "up to",
            self.size_px, stretch=3,
        ))  # fmt: skip
        layout.addLayout(qt.row(
            qt.button("Smooth", self.smooth), qt.button("Split", partial(self._use_tool, "split"), "Click a region"),
            qt.button("Merge", partial(self._use_tool, "merge"), "Click one region, then another"),
        ))  # fmt: skip
        layout.addLayout(qt.row(
            qt.button("Copy to next", self.copy_to_next, "These labels for the next frame"),
            qt.button("Interpolate", self.interpolate, "Fill the frames between the labelled ones around this one"),
        ))  # fmt: skip
        return part

    def _build_next(self) -> QWidget:
        part, layout = qt.section("Label this next")
        self.analysis, self.metric = QComboBox(), QComboBox()
        self.analysis.addItems(config_names("analysis"))
        self.analysis.setCurrentText("optical-plan")
        self.analysis.currentTextChanged.connect(lambda _: self._fill_metrics())
        fields = qt.form()
        fields.addRow("analysis", self.analysis)
        fields.addRow("number wanted", self.metric)
        layout.addLayout(fields)
        layout.addWidget(qt.button("Which frame?", self.suggest, "By doubt, novelty and effect on that number"))
        self.advice = qt.note("")
        layout.addWidget(self.advice)
        self._fill_metrics()
        return part

    def _fill_metrics(self) -> None:
        from napari_plugin.suggest import metrics_of_frames

        self.metric.clear()
        self.metric.addItems(metrics_of_frames(load_analysis(self.analysis.currentText())))
        for preferred in ("covered_fraction", "contact_angle", "void_fraction"):
            if self.metric.findText(preferred) >= 0:
                self.metric.setCurrentText(preferred)
                return

    def _fill_classes(self) -> None:
        assert self.session is not None
        fresh = QWidget()
        fresh.setStyleSheet(CLASS_STYLE)
        grid = QGridLayout(fresh)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        self._class_buttons = {}
        for n, each in enumerate(self.session.schema.classes):
            made = QToolButton()
            made.setCheckable(True)
            made.setAutoExclusive(True)
            made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            picture = QPixmap(14, 14)
            picture.fill(QColor(each.color))
            made.setIcon(QIcon(picture))
            made.setIconSize(QSize(14, 14))
            key = f"{each.index % 10}  " if each.index <= 10 else ""
            made.setText(f"{key}{each.name}")
            made.setToolTip(each.description)
            made.setMinimumWidth(150)
            made.clicked.connect(partial(self.choose, each.index))
            grid.addWidget(made, n // 2, n % 2)
            self._class_buttons[each.index] = made
        self._classes_layout.replaceWidget(self._class_grid, fresh)
        self._class_grid.deleteLater()
        self._class_grid = fresh

    # --- opening ----------------------------------------------------------------------------------------------------

    def label_selected(self) -> None:
        """Begin to label the selected image layer; where it was not read from a file, it is saved first."""
        selected = [one for one in self.viewer.layers.selection if type(one).__name__ == "Image"]
        images = selected or [one for one in self.viewer.layers if type(one).__name__ == "Image"]
        if not images:
            raise UsageError("There is no image; open one with File > Open, or try File > Open Sample > OperandoSeg.")
        layer = images[0]
        chosen = self.axes.currentText().split(":")[0]
        stack = qt.stack_of(layer, axes=None if chosen.startswith("as") else chosen)
        path = qt.path_of(layer)
        if path is None:
            name, _ = QFileDialog.getSaveFileName(
                self, "Where to keep this image and its labels", f"{layer.name}.ome.tif"
            )
            if not name:
                return
            from napari_plugin.readers import write_image_layer

            (written,) = write_image_layer(
                name, layer.data, {**qt.layer_state(layer), "axis_labels": tuple(stack.axes)}
            )
            path = Path(written)
        schema = load_schema(self.schema_name.currentText())
        self.queue = None
        self.files.hide()
        self.begin(open_session(path, schema, stack=stack), layer)

    def open_files(self, patterns: Sequence[Path | str]) -> None:
        """Begin with the first open image of files, folders or globs."""
        self.queue = FilesQueue(patterns, load_schema(self.schema_name.currentText()))
        self._show_files()
        first = self.queue.next_open()
        self.go_to(first if first is not None else 0)

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Images to label")
        if names:
            self.open_files(names)

    def go_to(self, position: int) -> None:
        """Save, then open an image of the queue; both in a thread."""
        queue = self._need_queue()
        if self.session is not None:
            self.session.note_changes()
        work = qt.Work(lambda _: queue.go_to(position), self)
        work.returned.connect(self.begin)
        work.failed.connect(self._queue_failed)
        self._busy(work, "Opening")

    def _queue_failed(self, reason: str) -> None:
        qt.show_error(reason)
        self._show_files()

    def next_image(self) -> None:
        """Save and go to the next image without labels."""
        queue = self._need_queue()
        where = queue.next_open()
        if where is None:
            self.save()
            qt.say("Every image of the list is labelled.")
            return
        self.go_to(where)

    def _need_queue(self) -> FilesQueue:
        if self.queue is None:
            raise UsageError("There is no list of images; choose some with `Open files ...`.")
        return self.queue

    def _show_files(self) -> None:
        if self.queue is None:
            return
        self.files.clear()
        for item in self.queue.items():
            shown = QListWidgetItem(f"{MARKS[item.status]}  {item.image.name}   {item.status}")
            shown.setToolTip(f"{item.image}\n{item.note}")
            self.files.addItem(shown)
        if self.queue.position is not None:
            self.files.setCurrentRow(self.queue.position)
        self.files.show()

    def begin(self, session: LabellingSession, image: Any = None) -> None:
        """Show an image with its labels and be ready for strokes."""
        self._forget_layers(keep=image)
        stack = session.stack
        if image is None:
            image = qt.add_layers(self.viewer, [layers.image_layer(stack)])[0]
        self.image = image
        blank = np.zeros(session.shape, np.uint8)
        grid = Stack(blank, session.axes, stack.calibration, stack.name)
        predicted = layers.labels_layer(Segmentation(grid, session.schema), name="prediction", opacity=0.3)
        drawn = Stack(session.labels, session.axes, stack.calibration, stack.name)
        labelled = layers.labels_layer(Segmentation(drawn, session.schema), name="labels", opacity=0.75)
        self.shown, self.layer = qt.add_layers(self.viewer, [predicted, labelled])
        if self.layer.data is not session.labels:  # the session and the layer must share one array
            raise RuntimeError("napari copied the label array; the session cannot follow it")
        self.session = session  # from here on events of the viewer are about these layers
        self.shown.editable = False
        qt.name_axes(self.viewer, session.axes)
        self.viewer.layers.selection.active = self.layer
        self.planes = Planes(stack, modality_name=self.modality.currentText())
        self.forest = ForestPredictor(self.planes, session.schema)
        self.prediction, self._models = None, {}
        self._touched = set(session.labelled_frames())
        self._fill_classes()
        self._bind()
        self.choose(3 if 3 in self._class_buttons else session.schema.classes[0].index)
        self.layer.mode = "paint"
        self.layer.brush_size = max(4, round(min(session.shape[-2:]) / 60))
        self._show_files()
        recovered = f"{session.recovered} edit(s) recovered from the last session. " if session.recovered else ""
        self._tell(recovered + "Draw a stroke in at least two classes.")

    def _forget_layers(self, keep: Any = None) -> None:
        old = [getattr(self, name, None) for name in ("image", "shown", "layer")]
        self.session = self.layer = self.shown = self.forest = None
        for layer in old:
            if layer is not None and layer is not keep and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        """The user deleted the label layer: its edits are in the journal; labelling ends."""
        if isalive(self) and self.layer is not None and event.value is self.layer:
            self.session = self.layer = None
            self._tell("The label layer was removed; its edits are kept. Label the image again to go on.")

    def _bind(self) -> None:
        assert self.session is not None
        for each in self.session.schema.classes:
            if each.index <= 10:
                self.layer.bind_key(str(each.index % 10), partial(self._key_class, each.index), overwrite=True)
        for key, name in KEYS.items():
            self.layer.bind_key(key, partial(self._key, name), overwrite=True)
        self.layer.events.paint.connect(self._painted)
        self.layer.events.set_data.connect(lambda _: self._later.start())

    def _key_class(self, index: int, layer: Any) -> None:
        self.choose(index)

    def _key(self, name: str, layer: Any) -> None:
        qt.told(getattr(self, name))()

    # --- strokes ----------------------------------------------------------------------------------------------------

    @property
    def plane(self) -> Plane:
        """The plane on show."""
        session = self._need()
        return tuple(int(n) for n in self.viewer.dims.current_step[-len(session.axes) : -2])

    @property
    def frame(self) -> int:
        """The frame on show."""
        plane = self.plane
        return plane[0] if plane else 0

    def choose(self, index: int) -> None:
        """Draw with a class from now on."""
        if self.layer is None:
            return
        self.layer.selected_label = index
        self._class_buttons[index].setChecked(True)

    def _need(self) -> LabellingSession:
        if self.session is None or self.layer is None:
            raise UsageError("No image is being labelled; press `Label selected layer` first.")
        return self.session

    def _painted(self, event: Any = None) -> None:
        # After the stroke, outside of napari's own handling of it.
        QTimer.singleShot(0, self._note_stroke)

    def _note_stroke(self) -> None:
        if self.session is None:
            return
        deep = self.session.leading is not None and self.layer.n_edit_dimensions > len(self.session.frame_axes)
        frames = None if deep else [self.frame]
        if self.session.note_changes(frames):
            self._touched.add(self.frame)
            self._after_edit()

    def _note_undo(self) -> None:
        if self.session is not None and self.session.note_changes(self._touched | {self.frame}, kind="undo"):
            self._after_edit()

    def _after_edit(self) -> None:
        if self.session is None or self.layer is None:  # the layer was removed meanwhile
            return
        self._tell()
        if self.live.isChecked() and self.model.currentText() == FOREST:
            self._predict(quiet=True)

    def _apply(self, edit: Edit) -> None:
        """Make an edit that Ctrl-Z takes back."""
        session = self._need()
        n = session.apply(edit, lambda indices, values: self.layer.data_setitem(indices, values))
        self._touched |= set(np.unique(edit.indices[0]).tolist()) if session.leading else {0}
        self._after_edit()
        self._tell(f"{edit.kind}: {n} pixels. ")

    def _edit_frame(self, make: Callable[[np.ndarray], Edit]) -> None:
        self._apply(self._need().edit_frame(self.frame, make))

    def _frame_changed(self, event: Any = None) -> None:
        # While layers come and go the viewer has fewer axes than the image; and the widget may have been closed.
        ready = isalive(self) and self.session is not None and self.viewer.dims.ndim >= len(self.session.axes)
        if ready and self.forest is not None and self.forest.forest is not None:
            self._after_edit()

    # --- prediction -------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Compile the forest while the user looks for an image, so that the first stroke does not wait."""

        def load(_: qt.Work) -> None:
            from seg.forest import warm_up

            warm_up()

        self._warming = qt.Work(load, self).start()

    def _model_chosen(self, index: int) -> None:
        if self.model.itemText(index) == "other network ...":
            folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
            if folder:
                self.model.insertItem(index, folder)
            self.model.setCurrentIndex(index if folder else 0)

    def predict(self) -> None:
        """Predict the plane on show."""
        self._need()
        self._predict(quiet=False)

    def _predict(self, *, quiet: bool) -> None:
        session, plane = self._need(), self.plane
        if self._work is not None:
            self._again = True
            return
        if self.model.currentText() == FOREST:
            labels = session.labels
            frames = session.labelled_frames() if session.n_frames <= 64 else sorted(self._touched)
            strokes = {p: s.copy() for p, s in strokes_of(labels, session.axes, frames).items()}
            forest = self.forest
            if quiet and len({int(v) for s in strokes.values() for v in np.unique(s)} - {0}) < 2:
                return
            work = qt.Work(lambda _: forest.update(strokes, plane), self)
        else:
            network = self._chosen_network(session)
            work = qt.Work(lambda w: network(w.compute).predict(plane), self)
        work.returned.connect(self._show_prediction)
        work.failed.connect(qt.show_error)
        work.ended.connect(self._predicted)
        self._work = work
        work.start()

    def _chosen_network(self, session: LabellingSession) -> Callable[..., NetworkPredictor]:
        name = self.model.currentText()
        return partial(
            _network, self.planes, session.schema, "auto" if name.startswith("auto") else name,
            self.modality.currentText(),
        )  # fmt: skip

    def _show_prediction(self, found: Prediction) -> None:
        if self.shown is None:
            return
        self.shown.data[found.plane] = found.labels
        self.shown.refresh()
        self.prediction = found
        self._models[found.plane] = found.model
        self._tell(
            f"Predicted by {found.model} in {found.seconds:.2f} s, mean confidence {found.confidence.mean():.0%}. "
        )

    def _predicted(self) -> None:
        self._work = None
        if self._again:
            self._again = False
            self._after_edit()

    def _prediction(self) -> tuple[np.ndarray, str]:
        session = self._need()
        found = self.shown.data[self.frame] if session.leading else self.shown.data
        if not found.any():
            raise UsageError("Nothing is predicted in this frame yet; press Predict.")
        return found, self._models.get(self.plane, "forest")

    def accept_frame(self) -> None:
        """Take over everything predicted in this frame."""
        found, model = self._prediction()
        self._apply(accepted(self._need(), self.frame, found, model=model, overwrite=self.overwrite.isChecked()))

    def accept_class(self) -> None:
        """Take over the chosen class in this frame."""
        found, model = self._prediction()
        self._apply(accepted(
            self._need(), self.frame, found, model=model, classes=[self.layer.selected_label],
            overwrite=self.overwrite.isChecked(),
        ))  # fmt: skip

    def accept_here(self) -> None:
        """Take over the predicted region under the cursor."""
        self._accept_region(self._pixel(self.viewer.cursor.position))

    def _accept_region(self, seed: tuple[int, ...]) -> None:
        found, model = self._prediction()
        self._apply(accepted(
            self._need(), self.frame, found, model=model, seed=seed, overwrite=self.overwrite.isChecked()
        ))  # fmt: skip

    # --- proof-reading ----------------------------------------------------------------------------------------------

    def fill_holes(self) -> None:
        """Fill holes of the chosen class."""
        value = self._need() and self.layer.selected_label
        self._edit_frame(lambda frame: edits.fill_holes(frame, value, max_px=self.size_px.value()))

    def remove_specks(self) -> None:
        """Remove specks of the chosen class."""
        session = self._need()
        value, most = self.layer.selected_label, self.size_px.value()
        self._edit_frame(lambda frame: edits.remove_specks(frame, value, max_px=most, spacing=session.spacing))

    def smooth(self) -> None:
        """Smooth the outline of the chosen class."""
        session = self._need()
        value = self.layer.selected_label
        self._edit_frame(lambda frame: edits.smooth(frame, value, sigma_px=1.5, spacing=session.spacing))

    def copy_to_next(self) -> None:
        """Copy the labels of this frame to the next one and go there."""
        session, here = self._need(), self.frame
        self._apply(session.copy_to_next(here))
        self.viewer.dims.set_current_step(self.viewer.dims.ndim - len(session.axes), here + 1)

    def interpolate(self) -> None:
        """Fill the frames between two labelled ones."""
        self._apply(self._need().interpolate(self.frame))

    def _use_tool(self, name: str) -> None:
        """The next click in the image is for this tool."""
        self._need()
        self._tool_state = (name, None)
        self._mode_before = self.layer.mode
        self.layer.mode = "pan_zoom"
        self._tell(f"{name.capitalize()}: click a region. ")

    def _clicked(self, viewer: Any, event: Any) -> None:
        name, first = self._tool_state
        if not name or self.session is None or not isalive(self):
            return
        seed = self._pixel(event.position)
        if name == "merge" and first is None:
            self._tool_state = (name, seed)
            self._tell("Merge: now click the other region. ")
            return
        self._tool_state = ("", None)
        self.layer.mode = self._mode_before
        qt.told(self.use_tool_at)(name, seed, first)

    def use_tool_at(self, name: str, seed: tuple[int, ...], other: tuple[int, ...] | None = None) -> None:
        """What a click with a tool does."""
        spacing = self._need().spacing
        if name == "accept":
            self._accept_region(seed)
        elif name == "split":
            self._edit_frame(lambda frame: edits.split(frame, seed, spacing=spacing))
        else:
            self._edit_frame(lambda frame: edits.merge(frame, other, seed, spacing=spacing))

    def _pixel(self, position: Sequence[float]) -> tuple[int, ...]:
        """The pixel of the frame at a place of the viewer."""
        session = self._need()
        at = [round(float(n)) for n in self.layer.world_to_data(position)][-len(session.frame_axes) :]
        size = session.shape[-len(session.frame_axes) :]
        if not all(0 <= n < limit for n, limit in zip(at, size, strict=True)):
            raise UsageError("The cursor is outside of the image.")
        return tuple(at)

    # --- what next --------------------------------------------------------------------------------------------------

    def suggest(self) -> None:
        """Look for the frame whose labels would help most, and go there."""
        from napari_plugin.suggest import advise

        session, forest = self._need(), self.forest
        labelled = list(strokes_of(session.labels, session.axes, session.labelled_frames()))
        config, metric = load_analysis(self.analysis.currentText()), self.metric.currentText()
        work = qt.Work(lambda w: advise(forest, labelled, config, metric, progress=w.progress), self)
        work.returned.connect(self._show_advice)
        work.failed.connect(qt.show_error)
        self._busy(work, "Looking at frames")

    def _show_advice(self, advice: Any) -> None:
        self.advice.setText(advice.text)
        if not advice.stop and advice.candidates:
            start = self.viewer.dims.ndim - len(self._need().axes)
            for axis, step in enumerate(advice.candidates[0].plane):
                self.viewer.dims.set_current_step(start + axis, step)

    # --- saving -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the label file in a thread; nothing can be drawn meanwhile."""
        session = self._need()
        session.note_changes()
        work = qt.Work(lambda _: session.save(), self)
        work.returned.connect(self._saved)
        work.failed.connect(qt.show_error)
        self._busy(work, "Saving")

    def _saved(self, saved: Saved) -> None:
        self._tell(f"Saved and read back: {saved.path} ({saved.n_frames} frame(s) labelled). ")
        self._show_files()

    def _busy(self, work: qt.Work, what: str) -> None:
        """Show progress; labels cannot change while they are written."""
        layer = self.layer

        def release() -> None:
            if layer is not None and layer in self.viewer.layers:
                layer.editable = True

        if layer is not None:
            layer.editable = False
        self.line.follow(work)
        self.line.text.setText(f"{what} ...")
        work.ended.connect(release)
        work.start()

    def _tell(self, text: str = "") -> None:
        if self.session is None:
            self.status.setText(text)
            return
        waiting = f"{self.session.unsaved} edit(s) in the journal" if self.session.unsaved else "All saved"
        self.status.setText(f"{text}{waiting}.")


def _network(planes: Planes, schema: Any, model: str, modality_name: str, call: Callable[..., Any]) -> NetworkPredictor:
    return NetworkPredictor(planes, schema, model, modality_name=modality_name, call=call)
