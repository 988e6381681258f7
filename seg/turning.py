"""Volumes turned so that a 2-D network sees the slices that it knows.

A network that has learned cells from slices across their layers does not know slices along them, where a single layer
fills the image. Volumes whose layers are stacked along z, whose planes are such slices, are given to it turned: with y
and z exchanged. Its masks are turned back, so that nothing else needs to know.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seg.stack import Stack

ACROSS = "across"
# Of a copy on disk, read and written at a time.
COPIED_BYTES = 2**26


def thickness_axis(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The axis along which layers are stacked: what the options of the metrics say first, else z."""
    named = (options["thickness_axis"] for options in metrics.values() if options.get("thickness_axis"))
    return str(next(named, "z"))


def is_turned(stack: Stack, spec: Any, thickness: str) -> bool:
    """Whether the planes of a stack are not the slices that a network knows, and those with y and z exchanged are.

    Parameters
    ----------
    stack : Stack
    spec : ModelSpec
    thickness : str
        The axis along which layers are stacked.
    """
    return bool(spec.dims == 2 and spec.slices == ACROSS and "z" in stack.axes and thickness == "z")


def turned(stack: Stack) -> Stack:
    """The stack with y and z exchanged, pixel sizes too; of a lazy one a frame at a time is held."""
    sizes = dict(stack.calibration.pixel_size_um)
    for axis, other in (("y", "z"), ("z", "y")):
        sizes.pop(axis, None)
        if other in stack.calibration.pixel_size_um:
            sizes[axis] = stack.calibration.pixel_size_um[other]
    data = TurnedVolumes(stack.data, stack.axes)
    return replace(stack, data=data, calibration=replace(stack.calibration, pixel_size_um=sizes))


def turned_on_disk(stack: Stack, path: Path) -> Stack:
    """The same from a copy on disk, made a few planes at a time unless it is there; nothing is held.

    Parameters
    ----------
    stack : Stack
    path : Path
        ``NAME.npy``; takes as much of the disk as the pixels of the stack.

    Raises
    ------
    OSError
        The disk has no room for it.
    """
    seen = turned(stack)
    if not path.exists():
        part = path.with_name(f".part.{path.name}")
        copy = np.lib.format.open_memmap(part, mode="w+", dtype=stack.dtype, shape=seen.shape)
        if hasattr(os, "posix_fallocate"):  # a page without room would end the process
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        depth = stack.size("z")
        thick = max(COPIED_BYTES // max(seen.data.held_bytes // depth, 1), 1)
        for start in range(0, depth, thick):
            planes = slice(start, start + thick)
            for index in range(stack.n_frames):
                place = (index,) if stack.axes.startswith("t") else ()
                copy[(*place, ..., planes, slice(None))] = np.swapaxes(
                    np.asarray(stack.data[(*place, *_all_channels(stack), planes)]), -3, -2
                )
        copy.flush()
        del copy
        part.replace(path)
    return from_disk(stack, path)


class _Pieces:
    """What `read_grey` needs of an array, read piece by piece."""

    def __init__(self, data: TurnedVolumes) -> None:
        self.shape, self.ndim, self.dtype, self._data = data.shape, data.ndim, data.dtype, data

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._data.piece(key)


def in_pieces(stack: Stack) -> Stack:
    """A stack that is `turned`, for looking at some rows of it without reading a frame whole; others as they are."""
    return replace(stack, data=_Pieces(stack.data)) if isinstance(stack.data, TurnedVolumes) else stack


def from_disk(stack: Stack, path: Path) -> Stack:
    """The turned stack from the copy that `turned_on_disk` made."""
    return replace(turned(stack), data=np.load(path, mmap_mode="r", allow_pickle=False))


def _all_channels(stack: Stack) -> tuple[slice, ...]:
    return (slice(None),) * ("c" in stack.axes)


def turn_frame(frame: np.ndarray) -> np.ndarray:
    """One frame, shape (..., Z, Y, X), with y and z exchanged; turned twice it is what it was."""
    return np.ascontiguousarray(np.swapaxes(frame, -3, -2))


class TurnedVolumes:
    """An array of volumes with axes y and z exchanged.

    A slice across the planes of a file touches all of them, so that a frame is read once and held.
    """

    def __init__(self, data: Any, axes: str) -> None:
        self._data, self._has_time = data, axes.startswith("t")
        self.shape = (*data.shape[:-3], data.shape[-2], data.shape[-3], data.shape[-1])
        self.dtype = data.dtype
        self._lock = threading.Lock()
        self._held: tuple[int, np.ndarray] | None = None

    @property
    def held_bytes(self) -> int:
        """Memory of the frame that is held."""
        return math.prod(self.shape[-3:]) * int(np.dtype(self.dtype).itemsize)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def piece(self, key: tuple[int | slice, ...]) -> np.ndarray:
        """A few planes or rows, read from the file as they are asked for; nothing is held. One index for each axis."""
        *lead, z, y, x = (slice(k, k + 1) if isinstance(k, int) else k for k in key)
        found = np.swapaxes(np.asarray(self._data[(*lead, y, z, x)]), -3, -2)
        return found[tuple(0 if isinstance(k, int) else slice(None) for k in key)]

    def __getitem__(self, key: Any) -> np.ndarray:
        if not self._has_time:
            return self._frame(0)[key]
        index, *rest = key if isinstance(key, tuple) else (key,)
        if not isinstance(index, int):
            raise TypeError(f"volumes that are turned are read frame by frame; got the index {index!r}")
        return self._frame(index)[tuple(rest)]

    def _frame(self, index: int) -> np.ndarray:
        with self._lock:
            if self._held is None or self._held[0] != index:
                self._held = None  # before the next is read
                self._held = index, np.swapaxes(np.asarray(self._data[index if self._has_time else ...]), -3, -2)
            return self._held[1]
