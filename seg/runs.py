"""Stretches of one value along the last axis: objects are summed over runs, not over pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Pixels looked at together: small enough to stay in the cache, and to add little to the memory of a volume.
_BLOCK_PX = 2**17


@dataclass(frozen=True)
class Runs:
    """Runs of equal, non-zero values along the last axis, in raster order.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    start : ndarray of int, shape (R,)
        Flat index of the first pixel of each run.
    length : ndarray of int, shape (R,)
    value : ndarray of int, shape (R,)
        What the array holds there.

    Notes
    -----
    An object of area A has about the square root of A runs, so sums over runs cost a fraction of sums over pixels.
    """

    shape: tuple[int, ...]
    start: np.ndarray
    length: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray) -> Runs:
        """Find the runs of an array of int, shape ([..., ]X)."""
        width = array.shape[-1]
        rows = array.reshape(-1, width)
        per_block = max(1, _BLOCK_PX // max(width, 1))
        starts, lengths, values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, array.dtype)]
        for first in range(0, len(rows), per_block):
            # A zero before every row ends the run of the row before.
            block = rows[first : first + per_block]
            padded = np.zeros((len(block) + 1, width + 1), array.dtype)
            padded[:-1, 1:] = block
            flat = padded.ravel()[: len(block) * (width + 1) + 1]
            change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
            value = flat[change[:-1]]
            held = value != 0
            start = change[:-1][held]
            starts.append(start - start // (width + 1) - 1 + first * width)
            lengths.append(np.diff(change)[held])
            values.append(value[held])
        return cls(array.shape, np.concatenate(starts), np.concatenate(lengths), np.concatenate(values))

    def __len__(self) -> int:
        return len(self.start)

    @cached_property
    def flat(self) -> np.ndarray:
        """Flat index of every pixel, in raster order."""
        before = np.cumsum(self.length) - self.length
        return np.repeat(self.start - before, self.length) + np.arange(int(self.length.sum()))

    def position(self, axis: int) -> np.ndarray:
        """Index of the first pixel of each run along an axis."""
        return np.asarray((self.start // math.prod(self.shape[axis + 1 :])) % self.shape[axis])
