"""Finished parts of a segmentation on disk, each whole or absent, so that a killed run continues where it was.

Two kinds with one interface: `SlabFolder`, a compressed file per part, joined in the end; and `SlabStore`, an OME-Zarr
into which processes write their planes side by side, for what is too large to be joined in memory and for clusters.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from seg.io.results import write_json

logger = logging.getLogger(__name__)

LABELS = "labels.ome.zarr"
_MEMBERS = {"labels.npy", "sums.npy"}
SURE = "sure.zarr"
HELD = "held.ome.zarr"
Frame = tuple[np.ndarray, np.ndarray | None]
"""Labels, and where they are certain (bool), if that is kept."""
CLEAN = "clean.ome.zarr"
# Turned together.
TURNED_VOXELS = 2**26
# Summed together: counting takes 16 bytes for each.
_SUMMED_PX = 2**20
# The disk, the quota or the size allowed to a file is used up: every other part would fail as well.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LabelSlab(Protocol):
    """What is saved of one part: ``seg.inference.Slab``."""

    frame: int
    z_start: int
    labels: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class SlabFolder:
    """The parts of one segmentation, one file each.

    Parameters
    ----------
    path : Path
        Named after the key of what they were made from.
    peaks : tuple of float or None
        Per label value the probability from which a pixel is certain; where given, certain pixels are kept as well.
    """

    path: Path
    peaks: tuple[float, ...] | None = None

    def save(self, slab: LabelSlab) -> None:
        """Save one part: written beside and flushed, then renamed."""
        target = self.path / f"{_name(slab.frame, slab.z_start)}.npz"
        part = target.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            sure = {} if self.peaks is None else {"sure": np.packbits(_sure(slab, self.peaks))}
            np.savez_compressed(file, labels=slab.labels, sums=_sums(slab), **sure)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)

    def finished(self) -> frozenset[tuple[int, int]]:
        """The ``(frame, z_start)`` of all saved parts; damaged ones are deleted, to be made again."""
        damaged = "A finished part (%s) is damaged; it is made again."
        members = _MEMBERS if self.peaks is None else _MEMBERS | {"sure.npy"}
        return _finished(self.path.glob("*.npz"), lambda file: _archive_is_whole(file, members), damaged)

    def forget(self) -> None:
        """Delete all parts."""
        for file in self.path.glob("*.npz"):
            file.unlink()

    def frames(self, n_frames: int) -> Iterator[np.ndarray]:
        """Labels frame by frame, shape ([Z,] Y, X); one frame in memory at a time."""
        parts = self._by_frame()
        for frame in range(n_frames):
            yield _joined(parts[frame])

    def frame(self, frame: int) -> Frame:
        """Labels of one frame, shape ([Z,] Y, X), and where they are certain (bool), if that is kept."""
        files = sorted(self.path.glob(f"{frame:07d}_*.npz"))
        labels = _joined(files)
        if self.peaks is None:
            return labels, None
        sure = np.empty(labels.shape, bool)
        for file, part in _places(files, labels.shape):
            with np.load(file, allow_pickle=False) as saved:
                sure[part] = np.unpackbits(saved["sure"], count=sure[part].size).reshape(sure[part].shape)
        return labels, sure

    def sums(self, n_frames: int) -> dict[int, np.ndarray]:
        """Pixels and summed probabilities of the label values that occur, shape (n_frames, 2) each."""
        sums: dict[int, np.ndarray] = {}
        for file in self.path.glob("*.npz"):
            with np.load(file, allow_pickle=False) as saved:
                of_part = saved["sums"]
            for value in np.flatnonzero(of_part[:, 0]).tolist():
                sums.setdefault(value, np.zeros((n_frames, 2)))[_place(file)[0]] += of_part[value]
        return sums

    def remove(self) -> None:
        """Delete the parts: they are in the result now."""
        shutil.rmtree(self.path)

    def _by_frame(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}
        for file in sorted(self.path.glob("*.npz")):
            found.setdefault(_place(file)[0], []).append(file)
        return found


@dataclass(frozen=True)
class SlabStore:
    """The parts of one segmentation, written into the planes of an OME-Zarr that becomes the result.

    Parameters
    ----------
    path : Path
        Named after the key of what they were made from; holds the OME-Zarr and a mark for each finished part.
    axes : str
        Of the result.
    peaks : tuple of float or None
        As of `SlabFolder`.
    """

    path: Path
    axes: str
    peaks: tuple[float, ...] | None = None

    def create(self, make: Callable[[Path], None]) -> None:
        """Make the empty OME-Zarr with `make`, unless an earlier run did."""
        if not (self.path / LABELS).exists():
            # Marks without the planes they speak of: a run was killed right after these had become its result.
            shutil.rmtree(self.path / "done", ignore_errors=True)
            part = self.path / f".part.{LABELS}"
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            if self.peaks is not None:
                self._make_sure(part)
            part.replace(self.path / LABELS)
        (self.path / "done").mkdir(exist_ok=True)

    def save(self, slab: LabelSlab) -> None:
        """Write one part and flush it, then leave a mark; a part without its mark counts as absent."""
        import zarr

        volume = slab.labels.ndim == 3
        planes = slice(slab.z_start, slab.z_start + len(slab.labels)) if volume else slice(None)
        key = {"t": slab.frame, "z": planes}
        place = tuple(key.get(axis, slice(None)) for axis in self.axes)
        written = {self.path / LABELS / "0": slab.labels}
        if self.peaks is not None:
            written[self.path / SURE] = _sure(slab, self.peaks)
        for store, values in written.items():
            zarr.open_array(str(store), mode="r+")[place] = values
            self._flush(store, slab.frame, range(slab.z_start, planes.stop) if volume else range(1))
        sums = _sums(slab)
        mark = {str(value): sums[value].tolist() for value in np.flatnonzero(sums[:, 0])}
        write_json(mark, self.path / "done" / f"{_name(slab.frame, slab.z_start)}.json")

    def _flush(self, store: Path, frame: int, depths: range) -> None:
        for z in depths:
            chunk = store.joinpath("c", *(str({"t": frame, "z": z}[axis]) for axis in self.axes if axis in "tz"))
            for file in chunk.rglob("*"):
                if file.is_file():
                    with file.open("rb") as opened:
                        os.fsync(opened.fileno())

    def finished(self) -> frozenset[tuple[int, int]]:
        """The ``(frame, z_start)`` of all saved parts."""
        damaged = "The mark of a finished part (%s) is damaged; the part is made again."
        return _finished((self.path / "done").glob("[!.]*.json"), _mark_is_whole, damaged)

    def forget(self) -> None:
        """Take all parts for absent."""
        for file in (self.path / "done").glob("[!.]*.json"):
            file.unlink()

    def has(self, frame: int, z_start: int) -> bool:
        """Whether one part is saved."""
        return (self.path / "done" / f"{_name(frame, z_start)}.json").exists()

    def sums(self, n_frames: int) -> dict[int, np.ndarray]:
        """Pixels and summed probabilities of the label values that occur, shape (n_frames, 2) each."""
        sums: dict[int, np.ndarray] = {}
        for file in (self.path / "done").glob("[!.]*.json"):
            for value, of_part in json.loads(file.read_text(encoding="utf-8")).items():
                sums.setdefault(int(value), np.zeros((n_frames, 2)))[_place(file)[0]] += of_part
        return sums

    def read(self, frame: int, where: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """Slices of one frame along its first spatial axis, and where they are certain (bool), if that is kept."""
        import zarr

        place = self._slices(frame, where)
        labels = np.asarray(zarr.open_array(str(self._made / "0"), mode="r")[place])
        if self.peaks is None:
            return labels, None
        return labels, np.asarray(zarr.open_array(str(self.path / SURE), mode="r")[place]).astype(bool)

    def take_turned(self, other: SlabStore, n_frames: int) -> None:
        """Write what another store holds with the axes y and z exchanged; a few planes are in memory."""
        import zarr

        stores = [(self.path / LABELS / "0", other.path / LABELS / "0")]
        if self.peaks is not None:
            stores.append((self.path / SURE, other.path / SURE))
        for own, theirs in stores:
            target, source = zarr.open_array(str(own), mode="r+"), zarr.open_array(str(theirs), mode="r")
            depth, height, width = target.shape[-3:]
            # Chunks of the source reach across many planes of the target and are read again for each piece.
            thick = max(TURNED_VOXELS // (height * width), 1)
            for frame in range(n_frames):
                place = (frame,) if "t" in self.axes else ()
                for start in range(0, depth, thick):
                    planes = slice(start, min(start + thick, depth))
                    target[(*place, planes)] = np.swapaxes(np.asarray(source[(*place, slice(None), planes)]), 0, 1)
                    self._flush(own, frame, range(planes.start, planes.stop))

    @property
    def _made(self) -> Path:
        """What is read: the labels as they were computed, or held against the first frames once all of them were."""
        return self.path / (HELD if (self.path / HELD).exists() else LABELS)

    def hold(
        self, make: Callable[[Path], None], rule: Callable[[Callable[[int], Frame]], Callable[[int], Frame]],
        n_frames: int,
    ) -> None:  # fmt: skip
        """Take the labels that `rule` makes of whole frames for those that were computed, which stay until all are."""
        import zarr

        shutil.rmtree(self.path / HELD, ignore_errors=True)
        read = rule(lambda frame: self.read(frame, slice(None)))
        part = self.path / f".part.{HELD}"
        shutil.rmtree(part, ignore_errors=True)
        make(part)
        array = zarr.open_array(str(part / "0"), mode="r+")
        for frame in range(n_frames):
            array[self._slices(frame, slice(None))] = read(frame)[0]
        part.replace(self.path / HELD)

    def begin_clean(self, make: Callable[[Path], None]) -> None:
        """Make the empty OME-Zarr of the cleaned labels with `make`; it becomes the result."""
        shutil.rmtree(self.path / CLEAN, ignore_errors=True)
        make(self.path / CLEAN)

    def write_clean(self, frame: int, where: slice, labels: np.ndarray) -> None:
        """Write the cleaned labels of some slices of one frame, and flush them."""
        import zarr

        zarr.open_array(str(self.path / CLEAN / "0"), mode="r+")[self._slices(frame, where)] = labels
        self._flush(self.path / CLEAN / "0", frame, range(where.start, where.stop) if labels.ndim == 3 else range(1))

    def finish(self, target: Path) -> None:
        """Put the finished OME-Zarr in its place."""
        made = self.path / CLEAN
        (made if made.exists() else self._made).replace(target)

    def resolved(self) -> SlabStore:
        """The same under its absolute path, for a process that runs elsewhere."""
        return SlabStore(self.path.resolve(), self.axes, self.peaks)

    def remove(self) -> None:
        """Delete the marks; the parts are the result now."""
        shutil.rmtree(self.path)

    def _slices(self, frame: int, where: slice) -> tuple[int | slice, ...]:
        spatial = self.axes.replace("t", "")
        key: dict[str, int | slice] = {"t": frame, spatial[0]: where}
        return tuple(key.get(axis, slice(None)) for axis in self.axes)

    def _make_sure(self, labels: Path) -> None:
        """Make an empty array beside the labels, in the same chunks."""
        import zarr

        like = zarr.open_array(str(labels / "0"), mode="r")
        shutil.rmtree(self.path / SURE, ignore_errors=True)
        zarr.create_array(str(self.path / SURE), shape=like.shape, chunks=like.chunks, dtype="uint8", fill_value=0)


def slab_path(work: Path, key: str) -> Path:
    """The folder for the parts made under `key`, made where it is missing; parts of other keys are deleted."""
    path = work / f"slabs-{key[:16]}"
    for other in work.glob("slabs-*"):
        if other != path:
            shutil.rmtree(other)
    path.mkdir(exist_ok=True)
    return path


def open_slabs(work: Path, key: str) -> SlabFolder:
    """The folder of the parts made under `key`; parts made under another key are deleted."""
    return SlabFolder(slab_path(work, key))


def _sums(slab: LabelSlab) -> np.ndarray:
    """Pixels and summed probabilities of every label value, shape (256, 2)."""
    labels, confidence, sums = slab.labels.ravel(), slab.confidence.ravel(), np.zeros((256, 2))
    for first in range(0, labels.size, _SUMMED_PX):
        part = slice(first, first + _SUMMED_PX)
        sums[:, 0] += np.bincount(labels[part], minlength=256)
        sums[:, 1] += np.bincount(labels[part], confidence[part], minlength=256)
    return sums


def _sure(slab: LabelSlab, peaks: tuple[float, ...]) -> np.ndarray:
    """Where the class chosen has the probability that makes it certain; bool."""
    return np.asarray(slab.confidence >= np.asarray(peaks, np.float32)[slab.labels])


def _name(frame: int, z_start: int) -> str:
    return f"{frame:07d}_{z_start:07d}"


def _finished(
    files: Iterable[Path], is_whole: Callable[[Path], bool], damaged: str
) -> frozenset[tuple[int, int]]:  # fmt: skip
    """Places of the whole files; the others are deleted, with a warning."""
    found = set()
    for file in files:
        if is_whole(file):
            found.add(_place(file))
        else:
            logger.warning(damaged, file.name)
            file.unlink()
    return frozenset(found)


def _archive_is_whole(file: Path, expected: set[str]) -> bool:
    try:
        with zipfile.ZipFile(file) as members:
            return members.testzip() is None and set(members.namelist()) >= expected
    except Exception:  # of a damaged archive zipfile raises whatever its parsing runs into
        return False


def _mark_is_whole(file: Path) -> bool:
    try:
        mark = json.loads(file.read_text(encoding="utf-8"))
        # Sums of millions of probabilities of 1 are off by less than that.
        return bool(mark) and all(0 <= total <= 1.001 * pixels for pixels, total in mark.values())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _place(file: Path) -> tuple[int, int]:
    frame, z_start = file.stem.split("_")
    return int(frame), int(z_start)


def _joined(files: Sequence[Path]) -> np.ndarray:
    """The labels of a frame; of several parts only one is in memory beside them."""
    labels = _load(files[-1])
    if len(files) == 1:
        return labels
    whole = np.empty((_place(files[-1])[1] + len(labels), *labels.shape[1:]), labels.dtype)
    for file, part in _places(files, whole.shape):
        whole[part] = _load(file)
    return whole


def _places(files: Sequence[Path], shape: tuple[int, ...]) -> Iterator[tuple[Path, slice]]:
    """The parts of a frame of `shape` with the slices that they hold."""
    starts = [_place(file)[1] for file in files]
    return zip(files, map(slice, starts, [*starts[1:], shape[0]]), strict=True)


def _load(file: Path) -> np.ndarray:
    with np.load(file, allow_pickle=False) as saved:
        return np.asarray(saved["labels"])
