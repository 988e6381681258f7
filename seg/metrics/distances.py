"""Distances at a few pixels of a frame, where a distance transform would give them at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

# Rows tried one by one; pixels that are further away wait for the transform of the whole frame.
_ROWS = 24


def distance_to(
    mask: np.ndarray, at: Sequence[np.ndarray], *, spacing: Sequence[float], within: float = math.inf
) -> np.ndarray:
    """Distance of some pixels from the nearest pixel of a mask, centre to centre.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
    at : sequence of ndarray of int, shape (N,)
        Indices of the pixels, one array per axis.
    spacing : sequence of float
    within : float
        Distances that are larger need not be known.

    Returns
    -------
    ndarray of float, shape (N,)
        Infinite where the mask is empty, or further away than `within`.

    Notes
    -----
    The nearest pixel in the same row is known for all pixels after one pass each way; the rows around are tried in
    the order of their distance until they are further than what was found. Exact, and several times as fast as
    ``distance_transform_edt`` where distances are short.
    """
    *lead, width = mask.shape
    column = np.arange(width, dtype=np.int32)
    never = np.int32(4 * width)
    before = np.maximum.accumulate(np.where(mask, column, -never), axis=-1)
    after = np.minimum.accumulate(np.where(mask, column, never)[..., ::-1], axis=-1)[..., ::-1]
    gap = np.minimum(column - before, after - column)
    best = np.full(len(at[-1]), np.inf)
    left = np.arange(len(best))
    reach = min(within, _ROWS * min(spacing[:-1]))
    around = [range(-int(reach / step), int(reach / step) + 1) for step in spacing[:-1]]
    lengths = {offset: math.hypot(*np.multiply(offset, spacing[:-1])) for offset in product(*around)}
    for offset in sorted(lengths, key=lambda offset: lengths[offset]):
        length = lengths[offset]
        left = left[best[left] > length]
        if not len(left) or length > reach:
            break
        row = [a[left] + o for a, o in zip(at, offset, strict=False)]
        inside = np.logical_and.reduce([(r >= 0) & (r < n) for r, n in zip(row, lead, strict=True)])
        here = left[inside]
        along = gap[(*(r[inside] for r in row), at[-1][here])]
        found = np.where(along < width, np.hypot(along * spacing[-1], length), np.inf)
        best[here] = np.minimum(best[here], found)
    far = best > reach
    if within > reach and far.any() and mask.any():
        from scipy.ndimage import distance_transform_edt

        best[far] = distance_transform_edt(~mask, sampling=spacing)[tuple(a[far] for a in at)]
    best[best > within] = np.inf
    return best
