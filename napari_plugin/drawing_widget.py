"""Drawing labels on an image: strokes, prediction, acceptance; all logic is in `labelling` and its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from napari_plugin import layers, qt, viewing
from napari_plugin.edits import Edit
from napari_plugin.files_queue import FilesQueue
from napari_plugin.forest_predictor import ForestPredictor
from napari_plugin.label_panel import FOREST, LabelPanel
from napari_plugin.labelling import HAND, LabellingSession, accepted
from napari_plugin.live_prediction import LivePrediction, Request, forest_parts
from napari_plugin.prediction import NetworkPredictor, Plane, Planes, Prediction, strokes_near
from napari_plugin.settings import load_settings
from napari_plugin.work import Work
from seg.errors import UsageError

if TYPE_CHECKING:
    import napari

# Shift and a letter: free in napari's Labels layer.
KEYS = {"Shift-P": "predict", "Shift-A": "accept_frame", "Shift-C": "accept_class", "Shift-R": "accept_here"}


class DrawingWidget(LabelPanel):
    """An image with its labels: choose a class, draw, look at the prediction, accept what is right."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        self.settings = load_settings()
        super().__init__(self.settings)
        self.viewer = napari_viewer
        self.session: LabellingSession | None = None
        self.queue: FilesQueue | None = None
        self.image: Any = None
        self.layer: Any = None
        self.shown: Any = None
        self.planes: Planes | None = None
        self.forest: ForestPredictor | None = None
        self.prediction: Prediction | None = None
        self.predictions = LivePrediction(self)
        self.predictions.arrived.connect(self._show_prediction)
        self.predictions.failed.connect(qt.show_error)
        self._complete: dict[Plane, str] = {}
        self._then: tuple[Plane, Callable[[], None]] | None = None
        self._touched: set[int] = set()
        self._refused = ""  # why the journal could not be written
        self.pressed.connect(self._do)
        self.class_pressed.connect(self.choose)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self._note_undo)
        self.viewer.dims.events.current_step.connect(self._frame_changed)
        self.viewer.layers.events.removed.connect(self._removed)
        if reason := qt.broken_qt():
            qt.warn(reason)
        self._warm_up()

    def _do(self, name: str) -> None:
        qt.told(getattr(self, name))()

    # --- the image ----------------------------------------------------------------------------------------------------

    def begin(self, session: LabellingSession, image: Any = None) -> None:
        """Show an image with its labels and be ready for strokes."""
        before, stack = self.image, session.stack
        self._forget_layers(keep=(before, image))
        new = image is None
        if new:
            image = viewing.add_layers(self.viewer, [layers.image_layer(stack)])[0]
        # Only now: into a viewer without any layer, a new one has crashed napari 0.9.2 in OpenGL after a brush that was
        # larger than the canvas.
        self._remove([before] if before is not image else [])
        if new:
            image.name = stack.name  # without the number it got where the one before had the same
        self.image = image
        predicted, labelled = layers.labelling_layers(stack, session.labels, session.schema)
        self.shown, self.layer = viewing.add_layers(self.viewer, [predicted, labelled])
        if self.layer.data is not session.labels:  # the session and the layer must share one array
            raise RuntimeError("napari copied the label array; the session cannot follow it")
        self.session = session  # from here on events of the viewer are about these layers
        self.shown.editable = False
        viewing.name_axes(self.viewer, session.axes)
        self.viewer.layers.selection.active = self.layer
        set_to = self.settings
        self.planes = Planes(stack, modality_name=self.modality.currentText())
        self.forest = ForestPredictor(
            self.planes, session.schema, cache_bytes=set_to.memory_mib << 20, n_trees=set_to.trees, depth=set_to.depth,
            max_pixels=set_to.pixels,
        )  # fmt: skip
        self.prediction, self._then, self._complete, self._refused = None, None, {}, ""
        self._touched = set(session.labelled_frames())
        self.advice.setText("")
        self.fill_classes(session.schema)
        self._bind()
        self.choose(3 if 3 in self._class_buttons else session.schema.classes[0].index)
        self.layer.mode = "paint"
        self.layer.brush_size = set_to.brush_px or max(4, round(min(session.shape[-2:]) / 60))
        self.show_files(self.queue)
        self.predictions.prepare(self.forest, self.plane)
        begin = "" if self._touched else "Draw a stroke in at least two classes. "
        if session.recovered:
            begin = f"{session.recovered} edit(s) recovered from the last session. "
        self._tell(begin)

    def _forget_layers(self, keep: Sequence[Any] = ()) -> None:
        self.predictions.stop()
        old = [self.image, self.shown, self.layer]
        self.session = self.layer = self.shown = self.forest = None
        self._remove([layer for layer in old if not any(layer is one for one in keep)])

    def _remove(self, old: Iterable[Any]) -> None:
        for layer in old:
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        """The user deleted a layer of ours: without labels labelling ends, without predictions it goes on."""
        if not isalive(self) or self.session is None:
            return
        if event.value is self.layer:
            self.predictions.stop()
            self.session = self.layer = None
            self._tell("The label layer was removed; its edits are kept. Label the image again to go on.")
        elif event.value is self.shown:
            self.shown = None
            self.live.setChecked(False)
            self._tell("The layer of predictions was removed; Predict brings it back. ")

    def _bind(self) -> None:
        assert self.session is not None
        for each in self.session.schema.classes:
            if each.index <= 10:
                self._bind_key(str(each.index % 10), partial(self.choose, each.index))
        for key, name in KEYS.items():
            self._bind_key(key, partial(self._do, name))
        self.layer.events.paint.connect(self._painted)
        self.layer.events.set_data.connect(self._changed)

    def _bind_key(self, key: str, do: Callable[[], None]) -> None:
        def pressed(layer: Any) -> None:  # napari asks what is bound for its __name__: a partial has none
            if isalive(self):
                do()

        self.layer.bind_key(key, pressed, overwrite=True)

    # --- strokes ----------------------------------------------------------------------------------------------------

    @property
    def plane(self) -> Plane:
        """The plane on show."""
        session = self._need()
        # Not the steps of the sliders: another layer with other steps or a longer axis changes those.
        at = self.layer.world_to_data(self.viewer.dims.point)[-len(session.axes) : -2]
        return tuple(min(max(round(float(n)), 0), size - 1) for n, size in zip(at, session.shape, strict=False))

    def show_plane(self, plane: Plane) -> None:
        """Move the sliders to a plane."""
        session = self._need()
        world = self.layer.data_to_world((*plane, 0, 0))[-len(session.axes) :]
        first = self.viewer.dims.ndim - len(session.axes)
        for axis in range(len(plane)):
            self.viewer.dims.set_point(first + axis, world[axis])

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
        if isalive(self):  # after the stroke, outside of napari's own handling of it
            QTimer.singleShot(0, self._note_stroke)

    def _changed(self, event: Any = None) -> None:
        if isalive(self):
            self._later.start()

    def _note_stroke(self) -> None:
        if not isalive(self) or self.session is None:
            return
        deep = self.session.leading is not None and self.layer.n_edit_dimensions > len(self.session.frame_axes)
        if self._note(None if deep else [self.frame], HAND):
            self._touched.add(self.frame)
            self._after_edit()

    def _note_undo(self) -> None:
        if self.session is not None and self._note(self._touched | {self.frame}, "undo"):
            self._after_edit()

    def _note(self, frames: Iterable[int] | None, kind: str) -> int:
        """Journal what was drawn; where the disk refuses, say so until it takes it: the next edit tries again."""
        assert self.session is not None
        try:
            n = self.session.note_changes(frames, kind=kind)
        except OSError as error:
            self._refused = str(error)
            qt.show_error(f"What was drawn is not on disk: {error}. Make room, then draw on or press Save.")
            self._tell()
            return 0
        self._refused = ""
        if n and self.session.unsaved == 1:
            self.show_files(self.queue)
        return n

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
        self._touched |= set(session.frames_of(edit))
        self._after_edit()
        self._tell(f"{edit.kind}: {n} pixels. ")

    def _edit_frame(self, make: Callable[[np.ndarray], Edit]) -> None:
        self._apply(self._need().edit_frame(self.frame, make))

    def _edit_in_thread(self, what: str, make: Callable[[Work], Edit]) -> None:
        """An edit that takes a while: made in a thread while nothing can be drawn, applied here."""
        work = Work(make, self)
        work.returned.connect(self._apply)
        self._busy(work, what)

    def _frame_changed(self, event: Any = None) -> None:
        # While layers come and go the viewer has fewer axes than the image; and the widget may have been closed.
        ready = isalive(self) and self.session is not None and self.viewer.dims.ndim >= len(self.session.axes)
        if not ready or self.forest is None:
            return
        if self.forest.forest is None:
            self.predictions.prepare(self.forest, self.plane)
        else:
            self._after_edit()

    # --- prediction -------------------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Compile colours and forest while the user looks for an image, so that nothing waits for them."""

        def load(_: Work) -> None:
            from seg.forest import warm_up

            viewing.warm_up()
            warm_up()

        self._warming = Work(load, self).start()

    def predict(self) -> None:
        """Predict the plane on show."""
        session = self._need()
        if self.shown is None:
            predicted, _ = layers.labelling_layers(session.stack, session.labels, session.schema)
            (self.shown,) = viewing.add_layers(self.viewer, [predicted])
            self.viewer.layers.move(self.viewer.layers.index(self.shown), self.viewer.layers.index(self.layer))
            self.viewer.layers.selection.active = self.layer
        self._predict(quiet=False)

    def _predict(self, *, quiet: bool) -> None:
        session, plane, forest = self._need(), self.plane, self.forest
        self._complete.pop(plane, None)
        if self.model.currentText() == FOREST:
            strokes = strokes_near(session.labels, session.axes, self._touched, plane)
            request = forest_parts(
                forest, strokes, plane, viewing.view_of(self.viewer, self.layer), quiet=quiet,
                whole=forest.fits or not quiet,
            )  # fmt: skip
        else:
            name = self.model.currentText()
            network = partial(
                NetworkPredictor, self.planes, session.schema, "auto" if name.startswith("auto") else name,
                modality_name=self.modality.currentText(),
            )  # fmt: skip

            def parts(work: Work) -> Iterator[Prediction]:
                yield network(call=work.compute).predict(plane)

            request = Request(plane, parts)
        self.predictions.ask(request)

    def _show_prediction(self, parts: list[Prediction]) -> None:
        if self.shown is None or self.session is None:
            return
        for part in parts:
            where = part.plane if part.box is None else (*part.plane, *part.box)
            self.shown.data[where] = part.labels
        self.shown.refresh()
        last = self.prediction = parts[-1]
        if last.complete:
            self._complete[last.plane] = last.model
            sure = f", confidence {last.confidence.mean():.0%}" if last.box is None else ""
            self._tell(f"Predicted by {last.model} in {last.seconds:.2f} s{sure}. ")
            if self._then is not None and self._then[0] == last.plane:
                then, self._then = self._then[1], None
                qt.told(then)()

    def _with_prediction(self, take: Callable[[np.ndarray, str], Edit]) -> None:
        """Apply an edit made of the prediction of this frame, as soon as all of it is there."""
        session, plane = self._need(), self.plane
        if self.shown is None or not (self.shown.data[plane]).any():
            raise UsageError("Nothing is predicted in this frame yet; press Predict.")
        if self.predictions.busy or plane not in self._complete:
            self._then = (plane, lambda: self._with_prediction(take))
            if not self.predictions.busy:
                self._predict(quiet=False)
            return
        found = self.shown.data[self.frame] if session.leading else self.shown.data
        self._apply(take(found, self._complete[plane]))

    def accept_frame(self) -> None:
        """Take over everything predicted in this frame."""
        self._accept()

    def accept_class(self) -> None:
        """Take over the chosen class in this frame."""
        self._need()
        self._accept(classes=[self.layer.selected_label])

    def accept_here(self) -> None:
        """Take over the predicted region under the cursor."""
        self._accept(seed=self._pixel(self.viewer.cursor.position))

    def _accept(self, *, classes: list[int] | None = None, seed: tuple[int, ...] | None = None) -> None:
        session, frame, overwrite = self._need(), self.frame, self.overwrite.isChecked()
        self._with_prediction(
            lambda found, model: accepted(
                session, frame, found, model=model, classes=classes, seed=seed, overwrite=overwrite
            )
        )

    def _pixel(self, position: Sequence[float]) -> tuple[int, ...]:
        """The pixel of the frame at a place of the viewer."""
        session = self._need()
        at = [round(float(n)) for n in self.layer.world_to_data(position)][-len(session.frame_axes) :]
        size = session.shape[-len(session.frame_axes) :]
        if not all(0 <= n < limit for n, limit in zip(at, size, strict=True)):
            raise UsageError("The cursor is outside of the image.")
        return tuple(at)

    def _busy(self, work: Work, what: str) -> None:
        """Show progress; labels cannot change while they are written or read."""
        layer = self.layer
        work.failed.connect(qt.show_error)
        work.ended.connect(viewing.lock(self.viewer, layer) if layer is not None else lambda: None)
        self.line.follow(work)
        self.line.text.setText(f"{what} ...")
        work.start()

    def _tell(self, text: str = "") -> None:
        if self.session is None:
            self.status.setText(text)
            return
        waiting = f"{self.session.unsaved} edit(s) in the journal" if self.session.unsaved else "All saved"
        if self._refused:
            waiting = f"The last edits are NOT on disk: {self._refused}"
        self.status.setText(f"{text}{waiting}.")
