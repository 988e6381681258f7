"""The Label widget: files to label, proof-reading, what to label next, saving; drawing is in `drawing_widget`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog

from napari_plugin import edits, qt, viewing
from napari_plugin.drawing_widget import DrawingWidget
from napari_plugin.files_queue import FAILED, LABELLED, FilesQueue
from napari_plugin.labelling import LabellingSession, Saved, open_session
from napari_plugin.prediction import Planes, strokes_of
from napari_plugin.work import Work
from seg.analysis import load_analysis
from seg.errors import AxesError, UsageError
from seg.labels import load_schema

if TYPE_CHECKING:
    import napari


CLICK_PX = 4  # a mouse that moved further between press and release was dragged


class LabelWidget(DrawingWidget):
    """Label images one after the other, correct what is drawn, and save it."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._tool_state: tuple[str, tuple[int, ...] | None] = ("", None)
        self.file_pressed.connect(lambda position: qt.told(self.go_to)(position))
        self._autosave = QTimer(self)
        self._autosave.timeout.connect(self._save_unasked)
        if self.settings.autosave_min:
            self._autosave.start(60_000 * self.settings.autosave_min)
        self.viewer.mouse_drag_callbacks.append(self._clicked)

    # --- opening ----------------------------------------------------------------------------------------------------

    def label_selected(self) -> None:
        """Begin to label the selected image layer; where it was not read from a file, it is saved first."""
        layer = viewing.selected_image(self.viewer)
        stack = viewing.stack_of(layer, axes=self._axes())
        path = viewing.path_of(layer)
        if path is None:
            name, _ = QFileDialog.getSaveFileName(
                self, "Where to keep this image and its labels", f"{layer.name}.ome.tif"
            )
            if not name:
                return
            from napari_plugin.readers import write_image_layer

            (written,) = write_image_layer(
                name, layer.data, {**viewing.layer_state(layer), "axis_labels": tuple(stack.axes)}
            )
            path = Path(written)
        schema = load_schema(self.schema_name.currentText())
        self.queue = None
        self.begin(open_session(path, schema, stack=stack), layer)

    def _axes(self) -> str | None:
        return qt.chosen_axes(self.axes)

    def choose_axes(self, axes: str) -> None:
        """Choose the axes of images that do not say, which need not be in the list."""
        where = self.axes.findText(axes, Qt.MatchFlag.MatchStartsWith)
        if where < 0:
            self.axes.addItem(axes)
            where = self.axes.count() - 1
        self.axes.setCurrentIndex(where)

    def open_files(self, patterns: Sequence[Path | str]) -> None:
        """Begin with the first open image of files, folders or globs."""
        self.queue = FilesQueue(patterns, load_schema(self.schema_name.currentText()))
        self.show_files(self.queue)
        first = self.queue.next_open()
        self.go_to(first if first is not None else 0)

    def ask_files(self) -> None:
        """Choose images to label."""
        names, _ = QFileDialog.getOpenFileNames(self, "Images to label")
        if names:
            self.open_files(names)

    def go_to(self, position: int) -> None:
        """Save, then open an image of the queue; both in a thread."""
        queue = self._need_queue()
        queue.axes = self._axes()
        if self.session is not None:
            self.session.note_changes()

        def open_one(_: Work) -> LabellingSession | AxesError:
            try:
                return queue.go_to(position)
            except AxesError as error:  # no failure yet: there is somebody to ask
                return error

        work = Work(open_one, self)
        work.returned.connect(partial(self._opened, position))
        work.failed.connect(lambda _: self.show_files(self.queue))
        self._busy(work, "Opening")

    def _opened(self, position: int, found: LabellingSession | AxesError) -> None:
        if not isinstance(found, AxesError):
            self.begin(found)
            return
        queue = self._need_queue()
        image = queue.images[position]
        self.show_files(self.queue)
        axes = qt.ask_axes(image.name, image)
        if axes is None:
            qt.show_error(str(found))
            return
        queue.unnamed_axes = axes
        # Not before the work that brought the question has ended: it holds the layers until then.
        QTimer.singleShot(0, lambda: qt.told(self.go_to)(position))

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

    # --- proof-reading ----------------------------------------------------------------------------------------------

    def fill_holes(self) -> None:
        """Fill holes of the chosen class."""
        value = self._need() and self.layer.selected_label
        self._edit_frame(lambda frame: edits.fill_holes(frame, value, max_px=self.size_px.value()))

    def remove_specks(self) -> None:
        """Remove specks of the chosen class."""
        spacing = self._need().spacing
        value, most = self.layer.selected_label, self.size_px.value()
        self._edit_frame(lambda frame: edits.remove_specks(frame, value, max_px=most, spacing=spacing))

    def smooth(self) -> None:
        """Smooth the outline of the chosen class."""
        spacing, value = self._need().spacing, self.layer.selected_label
        self._edit_frame(lambda frame: edits.smooth(frame, value, sigma_px=1.5, spacing=spacing))

    def copy_to_next(self) -> None:
        """Copy the labels of this frame to the next one and go there."""
        session, here = self._need(), self.frame
        self._apply(session.copy_to_next(here))
        self.show_plane((here + 1, *self.plane[1:]))

    def interpolate(self) -> None:
        """Fill the frames between two labelled ones."""
        session, frame = self._need(), self.frame
        self._edit_in_thread("Interpolating", lambda work: session.interpolate(frame, progress=work.progress))

    def click_accept(self) -> None:
        """The next click takes over the predicted region there."""
        self._use_tool("accept")

    def click_split(self) -> None:
        """The next click splits the region there."""
        self._use_tool("split")

    def click_merge(self) -> None:
        """The next two clicks merge the regions there."""
        self._use_tool("merge")

    def _use_tool(self, name: str) -> None:
        self._need()
        if not self._tool_state[0]:
            self._mode_before = self.layer.mode
        self._tool_state = (name, None)
        self.layer.mode = "pan_zoom"
        self._tell(f"{name.capitalize()}: click a region. ")

    def _clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """A press of the mouse: with a tool in hand a click, done as the button is let go; a drag moves the image.

        Not before: the layer gets the press after this, and would draw a dab with the brush that it has again.
        """
        name, first = self._tool_state
        if not name or self.session is None or not isalive(self):
            return
        pressed_at = tuple(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if math.dist(event.pos, pressed_at) > CLICK_PX or self.session is None:
            return
        try:
            seed = self._pixel(event.position)
        except UsageError as error:
            qt.show_error(str(error))
            return
        if name == "merge" and first is None:
            self._tool_state = (name, seed)
            self._tell("Merge: now click the other region. ")
            return
        self._tool_state = ("", None)
        self.layer.mode = self._mode_before
        qt.told(self.use_tool_at)(name, seed, first)

    def use_tool_at(self, name: str, seed: tuple[int, ...], other: tuple[int, ...] | None = None) -> None:
        """What a click with a tool does."""
        session, frame = self._need(), self.frame
        spacing = session.spacing
        if name == "accept":
            self._accept(seed=seed)
        elif name == "split":
            cut = partial(edits.split, seed=seed, spacing=spacing)
            self._edit_in_thread("Splitting", lambda _: session.edit_frame(frame, cut))
        else:
            join = partial(edits.merge, seed=other, other=seed, spacing=spacing)
            self._edit_in_thread("Merging", lambda _: session.edit_frame(frame, join))

    # --- what next --------------------------------------------------------------------------------------------------

    def suggest(self) -> None:
        """Look for the frame whose labels would help most, and go there."""
        from napari_plugin.suggest import advise

        session, forest, listed = self._need(), self.forest, self._listed_images()
        labelled = list(strokes_of(session.labels, session.axes, session.labelled_frames()))
        config, metric = load_analysis(self.analysis.currentText()), self.metric.currentText()
        work = Work(lambda w: advise(forest, labelled, config, metric, listed=listed, progress=w.progress), self)
        work.returned.connect(self._show_advice)
        self._busy(work, "Looking at frames")

    def _show_advice(self, advice: Any) -> None:
        self.advice.setText(advice.text)
        if advice.stop or not advice.candidates:
            return
        first = advice.candidates[0]
        if first.image is None:
            self.show_plane(first.plane)
        else:  # not opened unasked: that would save what is drawn
            self.files.setCurrentRow(first.image.number)
            self.advice.setText(f"{advice.text} Double-click it in the list.")

    def _listed_images(self) -> list[Any]:
        """The other images of the list, for `napari_plugin.suggest.advise`."""
        from napari_plugin.suggest import ListedImage

        queue, name = self.queue, self.modality.currentText()
        if queue is None:
            return []

        def planes(position: int) -> Planes:
            return Planes(queue.open_image(position), modality_name=name)

        return [
            ListedImage(n, item.image.name, item.status == LABELLED, partial(planes, n))
            for n, item in enumerate(queue.items())
            if n != queue.position and item.status != FAILED
        ]

    # --- saving -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the label file in a thread; nothing can be drawn meanwhile."""
        session = self._need()
        session.note_changes()
        work = Work(lambda _: session.save(), self)
        work.returned.connect(self._saved)
        self._busy(work, "Saving")

    def _save_unasked(self) -> None:
        if self.session is not None and self.session.unsaved and self.line.isHidden():
            qt.told(self.save)()

    def _saved(self, saved: Saved) -> None:
        self._tell(f"Saved and read back: {saved.path} ({saved.n_frames} frame(s) labelled). ")
        self.show_files(self.queue)
