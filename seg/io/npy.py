"""NPY: a bare array, memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seg.io.content import head
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Stack

SUFFIXES = (".npy",)
NAME = "NPY"


def can_open(path: Path) -> bool:
    """Whether the file starts like an NPY file."""
    return head(path, 6) == b"\x93NUMPY"


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open an NPY file. The format has no axes and no calibration: two dimensions are y and x, more are ambiguous.

    Nothing is unpickled; an array of Python objects is refused.
    """

    def load() -> Stack:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
        axes = "?" * (data.ndim - 2) + "yx" if data.ndim >= 2 else "?" * data.ndim
        return assemble(path, Raw(data, axes), given)

    return guarded(path, load)
