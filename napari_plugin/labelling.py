"""A labelling session on one image: its labels, every change journalled, saved with calibration, schema and log."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_plugin import edits
from napari_plugin.edits import Edit
from napari_plugin.journal import Journal, edit_of
from napari_plugin.places import check_place, journal_path, labels_path
from seg import __version__
from seg.errors import DataError, LabelError, UsageError
from seg.io import fingerprint, open_stack, read_labels, write_labels
from seg.labels import UNLABELLED, LabelSchema
from seg.metrics.table import Scale
from seg.progress import Progress, silent
from seg.segmentation import Provenance
from seg.stack import Stack

logger = logging.getLogger(__name__)

# Kinds of edits that fill frames nobody has looked at; all others make a frame a key frame.
DERIVED = ("interpolate", "copy", "undo")
HAND = "stroke"


@dataclass(frozen=True)
class Saved:
    """What `LabellingSession.save` wrote and read back."""

    path: Path
    n_labelled_px: int
    n_frames: int


class LabellingSession:
    """The labels of one image and everything that is done to them.

    The array `labels` is shared with whoever shows it. Changes made elsewhere (brush, undo) are picked up by
    `note_changes`; changes made here go through `apply`, with a setter that the owner of the array gives.

    Parameters
    ----------
    stack : Stack
    schema : LabelSchema
    path : Path
        Label file (``.ome.tif``); it need not exist. What it holds is the start; its journal is played on top.
    source : Path or None
        File of the image, for the fingerprint kept with the labels.
    user : str or None
        Who labels; None: the login name.
    """

    def __init__(
        self, stack: Stack, schema: LabelSchema, path: Path, *, source: Path | None = None, user: str | None = None
    ) -> None:
        self.stack, self.path, self.source = stack, Path(path), source
        self.user = user or _login()
        self.axes = stack.axes.replace("c", "")
        self.shape = tuple(stack.size(axis) for axis in self.axes)
        self.spacing = Scale.of(stack).spacing[-len(self.frame_axes) :]
        self.log: list[dict[str, Any]] = []
        self.recovered = 0
        self.schema = schema
        self.labels = self._load()
        self.journal = Journal(journal_path(self.path))
        self._recover()
        # What the journal knows; the difference to `labels` is what is new.
        self._known = self.labels.copy() if self.labels.any() else np.zeros_like(self.labels)
        self._unsaved = self.recovered

    # --- frames -----------------------------------------------------------------------------------------------------

    @property
    def leading(self) -> str | None:
        """The axis frames are counted along: ``t`` of a series, ``z`` of a volume, None for a single image."""
        return self.axes[0] if len(self.axes) > 2 else None

    @property
    def frame_axes(self) -> str:
        """Axes of one frame: ``yx``, or ``zyx`` in a series of volumes."""
        return self.axes[1:] if len(self.axes) > 2 else self.axes

    @property
    def n_frames(self) -> int:
        """Frames of a series, planes of a volume, or 1."""
        return self.shape[0] if self.leading else 1

    def frame(self, index: int) -> np.ndarray:
        """Labels of one frame; a view."""
        if not 0 <= index < self.n_frames:
            raise UsageError(f"{self.stack.name!r} has {self.n_frames} frame(s); frame {index} does not exist.")
        return self.labels[index] if self.leading else self.labels

    def labelled_frames(self) -> list[int]:
        """Frames that hold a label."""
        return [i for i in range(self.n_frames) if self.frame(i).any()]

    def key_frames(self) -> list[int]:
        """Labelled frames on which somebody worked; interpolation and copies alone make none.

        A file that does not say who did what to which frame has only key frames.
        """
        return worked_on(self.log, self.labelled_frames())

    # --- changes ----------------------------------------------------------------------------------------------------

    def apply(self, edit: Edit, setter: Callable[[tuple[np.ndarray, ...], np.ndarray], None] | None = None) -> int:
        """Make an edit of the whole array and journal it; returns the number of pixels that changed.

        Parameters
        ----------
        edit : Edit
        setter : callable or None
            Gets (indices, values) and writes them into `labels` in a way that can be undone; None: written directly.
        """
        self.schema.check(np.unique(edit.values), where="The edit")
        if not edit.n_pixels:
            return 0
        self.note_changes(self.frames_of(edit))
        if setter is None:
            self.labels[edit.indices] = edit.values
        else:
            setter(edit.indices, edit.values)
        self._record(edit)
        return edit.n_pixels

    def edit_frame(self, index: int, make: Callable[[np.ndarray], Edit]) -> Edit:
        """An edit of one frame, made by a function of its labels, as an edit of the whole array."""
        return make(self.frame(index)).at(index if self.leading else None)

    def note_changes(self, frames: Iterable[int] | None = None, *, kind: str = HAND) -> int:
        """Journal what was changed in `labels` from outside; returns the number of pixels.

        Parameters
        ----------
        frames : iterable of int or None
            Where to look; None: everywhere.
        kind : str
            ``stroke``, or ``undo`` when the owner of the array went back.
        """
        found = []
        for index in range(self.n_frames) if frames is None else sorted(set(frames)):
            known = self._known[index] if self.leading else self._known
            edit = edits.changes(kind, known, self.frame(index))
            if edit.n_pixels:
                found.append(edit.at(index if self.leading else None))
        if not found:
            return 0
        edit = edits.joined(found)
        self._record(edit)
        return edit.n_pixels

    def interpolate(self, index: int, *, progress: Progress = silent) -> Edit:
        """Labels for all frames between the key frames around `index`.

        Raises
        ------
        UsageError
            Without a key frame on both sides.
        """
        keys = self.key_frames()
        before, after = [k for k in keys if k <= index], [k for k in keys if k > index]
        if index in keys and not after:
            before, after = [k for k in keys if k < index], [index]
        if not before or not after:
            raise UsageError(
                f"Interpolation needs a labelled frame before and after; {self.stack.name!r} has key frames "
                f"{', '.join(map(str, keys)) or 'nowhere'}."
            )
        low, high = before[-1], after[0]
        parts = []
        for i in progress(range(low + 1, high), total=high - low - 1, desc="interpolating"):
            share = self._share(low, i, high)
            made = edits.between(self.frame(low), self.frame(high), share, spacing=self.spacing)
            parts.append(edits.changes("interpolate", self.frame(i), made).at(i))
        return edits.joined(parts) if parts else Edit("interpolate", tuple([np.zeros(0, int)] * len(self.shape)),
                                                      np.zeros(0, self.labels.dtype))  # fmt: skip

    def _share(self, low: int, i: int, high: int) -> float:
        """How far frame `i` is on the way, by time where it is known."""
        times = self.stack.frame_times_s if self.leading == "t" else None
        if times is None or times[high] == times[low]:
            return (i - low) / (high - low)
        return (times[i] - times[low]) / (times[high] - times[low])

    def copy_to_next(self, index: int, *, overwrite: bool = False) -> Edit:
        """The labels of a frame for the next one; what is labelled there stays unless `overwrite`."""
        if index + 1 >= self.n_frames:
            raise UsageError("This is the last frame; there is no next one to copy to.")
        here, there = self.frame(index), self.frame(index + 1)
        taken = here != UNLABELLED
        if not overwrite:
            taken &= there == UNLABELLED
        return edits.changes("copy", there, np.where(taken, here, there)).at(index + 1)

    def _record(self, edit: Edit) -> None:
        frames = self.frames_of(edit)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        classes = [self.schema.class_name(int(v)) for v in np.unique(edit.values)]
        said = {"who": self.user, "when": when, "frames": frames, "classes": classes}
        if not self.journal.exists():
            self.journal.start(self._about())
        self.journal.add(edit, self.shape, **said)
        self._known[edit.indices] = edit.values
        self._note(edit.kind, edit.model, edit.n_pixels, **said)
        self._unsaved += 1

    def _note(
        self, kind: str, model: str, n: int, *, who: str, when: str, frames: list[int], classes: list[str]
    ) -> None:
        """Add to the log; strokes by one person in a row on the same frames make one entry."""
        last = self.log[-1] if self.log else None
        same = {"kind": kind, "who": who, "model": model, "frames": frames}
        if last is not None and all(last[key] == value for key, value in same.items()):
            last |= {"until": when, "n": last["n"] + n, "edits": last["edits"] + 1,
                     "classes": sorted({*last["classes"], *classes})}  # fmt: skip
            return
        self.log.append({**same, "since": when, "until": when, "n": n, "edits": 1, "classes": sorted(classes)})

    def frames_of(self, edit: Edit) -> list[int]:
        """Frames an edit touches."""
        return np.flatnonzero(np.bincount(edit.indices[0])).tolist() if self.leading else [0]

    # --- on disk ----------------------------------------------------------------------------------------------------

    @property
    def unsaved(self) -> int:
        """Edits that are in the journal but not yet in the label file."""
        return self._unsaved

    def save(self) -> Saved:
        """Write the label file, read it back, and only then let go of the journal.

        Raises
        ------
        DataError
            Where what was read back is not what was written; the journal stays.
        """
        self.note_changes()
        settings: dict[str, Any] = {"log": self.log}
        models = ", ".join(sorted({entry["model"] for entry in self.log if entry["model"]}))
        provenance = Provenance(
            software=f"operandoseg {__version__}", model=models,
            input_fingerprint=self._fingerprint(), settings=settings,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        frames = (self.labels[t] for t in range(self.shape[0])) if "t" in self.axes else iter([self.labels])
        write_labels(
            self.path, frames, shape=self.shape, axes=self.axes, calibration=self.stack.calibration,
            schema=self.schema, provenance=provenance,
        )  # fmt: skip
        self._read_back()
        self.journal.remove()
        self._unsaved = 0
        return Saved(self.path, int(np.count_nonzero(self.labels)), len(self.labelled_frames()))

    def _fingerprint(self) -> str:
        """Of the image file; empty where there is none any more: its labels are saved all the same."""
        if self.source is None:
            return ""
        try:
            return fingerprint(self.source)
        except (DataError, OSError) as error:
            logger.warning("the labels of %s are saved without its fingerprint: %s", self.stack.name, error)
            return ""

    def _read_back(self) -> None:
        found = read_labels(self.path)
        stack = found.stack
        same = stack.shape == self.shape and dict(stack.calibration.pixel_size_um) == dict(
            self.stack.calibration.pixel_size_um
        )
        if not same or any(
            not np.array_equal(stack.frame(t), self.labels[t] if "t" in self.axes else self.labels)
            for t in range(stack.n_frames)
        ):
            raise DataError(
                f"{self.path.name!r} does not hold what was written to it; the disk may be full or failing. "
                "Nothing is lost: the journal beside it is kept. Save to another place."
            )

    def _load(self) -> np.ndarray:
        _check_memory(self.shape, self.stack.name)
        if not self.path.exists():
            return np.zeros(self.shape, np.uint8)
        found = read_labels(self.path, default_schema=self.schema)
        if found.stack.axes != self.axes or found.stack.shape != self.shape:
            raise LabelError(
                f"{self.path.name!r} has axes {found.stack.axes!r} and shape {found.stack.shape}, but "
                f"{self.stack.name!r} has {self.axes!r} and {self.shape}; they are not of the same image. "
                "Move the label file away."
            )
        self.schema = found.schema
        log = found.provenance.settings.get("log", []) if found.provenance.settings else []
        self.log = [dict(entry) for entry in log]
        return np.array(found.stack.data[...])

    def _recover(self) -> None:
        """Play the journal of a session that did not end; one that belongs to other labels is put aside."""
        about, entries = self.journal.read()
        if about is None or not entries:
            return
        if about != self._about():
            aside = self.journal.path.with_name(self.journal.path.name + ".other")
            self.journal.path.replace(aside)
            logger.warning("%s belongs to another state of the labels; kept as %s", self.journal.path.name, aside.name)
            return
        for entry in entries:
            edit = edit_of(entry, self.shape, self.labels.dtype)
            self.labels[edit.indices] = edit.values
            self._note(entry["kind"], entry["model"], entry["n"], who=entry["who"], when=entry["when"],
                       frames=entry["frames"], classes=entry["classes"])  # fmt: skip
        self.recovered = len(entries)
        # Written anew: a line that the crash cut off must not swallow the next one.
        self.journal.start(about, entries)

    def _about(self) -> dict[str, Any]:
        """What a journal applies to: this grid, these classes, and the label file as it is."""
        base = ""
        if self.path.exists():
            base = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"axes": self.axes, "shape": list(self.shape), "schema": self.schema.to_dict(), "base": base}


def open_session(
    image: Path | str, schema: LabelSchema, *, path: Path | None = None, stack: Stack | None = None,
    user: str | None = None,
) -> LabellingSession:  # fmt: skip
    """Label an image file; its labels are in `path`, by default ``labels/NAME.ome.tif`` beside it.

    Raises
    ------
    DataError
        Where nothing can be written there.
    """
    image = Path(image)
    path = path or labels_path(image)
    check_place(path)
    stack = stack if stack is not None else open_stack(image)
    return LabellingSession(stack, schema, path, source=image, user=user)


def worked_on(log: Sequence[Mapping[str, Any]], frames: Iterable[int]) -> list[int]:
    """Those of the labelled frames that the log does not say were only interpolated or copied."""
    worked = {f for entry in log if entry["kind"] not in DERIVED for f in entry["frames"]}
    derived = {f for entry in log if entry["kind"] in DERIVED for f in entry["frames"]} - worked
    return [i for i in frames if i not in derived]


def accepted(
    session: LabellingSession, index: int, prediction: np.ndarray, *, model: str,
    classes: Collection[int] | None = None, seed: Sequence[int] | None = None, overwrite: bool = False,
) -> Edit:  # fmt: skip
    """Take over a prediction of one frame: all of it, some classes, or the region at `seed`."""
    where = None
    if seed is not None:
        where = edits.region_at(prediction, seed)
        if not where.any():
            raise UsageError("Nothing is predicted under the cursor.")
    return session.edit_frame(
        index,
        lambda labels: edits.accept(labels, prediction, model=model, classes=classes, where=where, overwrite=overwrite),
    )


def _check_memory(shape: tuple[int, ...], name: str) -> None:
    """Refuse labels that do not fit, before they are asked for: twice one byte per pixel."""
    needed = 2 * int(np.prod([float(n) for n in shape]))
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > 0.7 * total:
            raise DataError(
                f"Labels of {name!r} {shape} need {needed / 2**30:.1f} GiB, and this computer has {total / 2**30:.1f}; "
                "label a crop, or every n-th frame."
            )


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no login name in some containers
        return "unknown"
