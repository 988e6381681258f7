"""The images to be labelled, one after the other, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_plugin.journal import Journal
from napari_plugin.labelling import LabellingSession, journal_path, labels_path, open_session
from seg.errors import AxesError, SegError, UsageError
from seg.io import find_inputs, open_stack
from seg.labels import LabelSchema
from seg.stack import Stack

NEW, STARTED, LABELLED, FAILED = "new", "not saved", "labelled", "failed"


@dataclass(frozen=True)
class QueueItem:
    """One image: its file, its status, and what went wrong where something did."""

    image: Path
    status: str
    note: str = ""


class FilesQueue:
    """Goes through images; an image is left only when its labels are saved.

    Parameters
    ----------
    patterns : sequence of Path or str
        Files, folders and globs. Label files and what is no image are left out.
    schema : LabelSchema
    axes : str or None
        Of all images, whatever they say; it may be changed between two images, as may `unnamed_axes`, which is of
        those that do not say.
    user : str or None
    """

    def __init__(
        self, patterns: Sequence[Path | str], schema: LabelSchema, *, axes: str | None = None, user: str | None = None
    ) -> None:
        self.schema, self.axes, self.user = schema, axes, user
        self.unnamed_axes: str | None = None
        self.images = [path for path in find_inputs(patterns) if path.parent.name != "labels"]
        if not self.images:
            raise UsageError("There is no image among the files given, only labels.")
        self.position: int | None = None
        self.session: LabellingSession | None = None
        self._failed: dict[Path, str] = {}

    def items(self) -> list[QueueItem]:
        """Every image with its status, as the files on disk say."""
        return [self._item(path) for path in self.images]

    def _item(self, image: Path) -> QueueItem:
        if image in self._failed:
            return QueueItem(image, FAILED, self._failed[image])
        path = labels_path(image)
        journal = Journal(journal_path(path))
        if journal.exists() and journal.read()[1]:
            return QueueItem(image, STARTED, "edits wait in the journal")
        return QueueItem(image, LABELLED if path.exists() else NEW)

    def go_to(self, position: int) -> LabellingSession:
        """Save the image at hand and open another one.

        Raises
        ------
        SegError
            Where saving or opening fails. After a failed save the old image stays open; a file that cannot be opened
            is marked as failed, and the old image stays open as well.
        """
        if not 0 <= position < len(self.images):
            raise UsageError(f"There are {len(self.images)} images; there is no number {position + 1}.")
        if self.session is not None and self.session.unsaved:
            self.session.save()
        image = self.images[position]
        try:
            session = open_session(image, self.schema, stack=self._stack(image), user=self.user)
        except AxesError as error:
            text = f"{error} In this widget: choose `axes`, then open the image again from the list."
            self._failed[image] = text
            raise AxesError(text) from error
        except SegError as error:
            self._failed[image] = str(error)
            raise
        self._failed.pop(image, None)
        self.position, self.session = position, session
        return session

    def open_image(self, position: int) -> Stack:
        """An image of the list, to look at; what is being labelled stays."""
        return self._stack(self.images[position])

    def _stack(self, image: Path) -> Stack:
        if self.axes:
            return open_stack(image, axes=self.axes)
        try:
            return open_stack(image)
        except AxesError:
            if self.unnamed_axes is None:
                raise
            return open_stack(image, axes=self.unnamed_axes)

    def next_open(self) -> int | None:
        """Position of the next image without saved labels, after this one, then from the start; None: all are done."""
        start = -1 if self.position is None else self.position
        order = [(start + 1 + i) % len(self.images) for i in range(len(self.images))]
        return next((i for i in order if self._item(self.images[i]).status in (NEW, STARTED) and i != start), None)
