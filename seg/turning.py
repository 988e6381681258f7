"""Volumes turned so that a 2-D network sees the slices that it knows.

A network that has learned cells from slices across their layers does not know slices along them, where a single layer
fills the image. Volumes whose layers are stacked along z, whose planes are such slices, are given to it turned: with y
and z exchanged. Its masks are turned back, so that nothing else needs to know.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seg.stack import Stack

ACROSS = "across"


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
