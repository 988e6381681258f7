"""Separate objects that touch, without cutting elongated or branched ones into pieces."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

NECK_RATIO = 0.75
MAX_FILL = 3.0


def split_component(
    mask: np.ndarray, *, spacing: tuple[float, ...], min_diameter: float, neck_ratio: float = NECK_RATIO
) -> np.ndarray:
    """Cut one connected region at its necks.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
        One connected region; outside of the array counts as background.
    spacing : tuple of float
        Pixel size along each axis.
    min_diameter : float
        A part whose inscribed disc is smaller is no part of its own; unit of `spacing`.
    neck_ratio : float
        Two parts are two objects where the neck between them is narrower than this share of the smaller one.

    Returns
    -------
    ndarray of int32, shape of `mask`
        Parts 1..n, 0 outside; a region that stays whole is all 1.

    Notes
    -----
    1. The distance to the background is flooded from its maxima; two basins are joined, highest saddle first, unless
       half the width of the neck (saddle) is less than `neck_ratio` times the inscribed radius (peak) of the smaller
       one. Equal discs are told apart from a distance of about 1.4 radii between their centres (1.32 in theory; pixels
       blur it to 1.3-1.6).
    2. A part is compact when it is at most 3 times as large as its inscribed disc (ball): an ellipse up to 3:1, a
       rectangle up to 2.4:1. Where most of the region lies in parts that are not compact, the region is elongated or
       branched, and it stays whole.
    """
    from scipy import ndimage
    from skimage.morphology import local_maxima
    from skimage.segmentation import watershed

    whole = mask.astype(np.int32)
    # Pixel centres to pixel centres reads half a pixel more than the distance to the outline.
    half = min(spacing) / 2
    distance = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    distance = np.round(np.maximum(distance - half, 0), 6)
    everywhere = np.ones((3,) * mask.ndim, bool)
    peaks, n_peaks = ndimage.label(local_maxima(distance) & (distance > 0), everywhere)
    if n_peaks < 2:
        return whole
    basins = watershed(-distance, peaks, connectivity=everywhere, mask=distance > 0)
    heights = np.zeros(n_peaks + 1)
    heights[1:] = ndimage.maximum(distance, basins, np.arange(1, n_peaks + 1))

    parent = _join(heights, _saddles(basins, distance, n_peaks), neck_ratio, min_diameter / 2)
    roots, parts = np.unique(parent, return_inverse=True)
    parts = parts.astype(np.int32)[basins][(slice(1, -1),) * mask.ndim]
    if len(roots) == 2:  # background and one part
        return whole
    sizes = np.bincount(parts.ravel(), minlength=len(roots))[1:] * math.prod(spacing)
    balls = _ball(mask.ndim) * heights[roots[1:]] ** mask.ndim
    compact = sizes <= MAX_FILL * balls
    return parts if sizes[compact].sum() > sizes.sum() / 2 else whole


def _saddles(basins: np.ndarray, distance: np.ndarray, n: int) -> list[tuple[float, int, int]]:
    """Highest pass between every two basins that touch, highest first."""
    keys, passes = [], []
    for offset in product((-1, 0, 1), repeat=basins.ndim):
        if offset <= (0,) * basins.ndim:
            continue
        here = tuple(slice(max(0, -o), None if o <= 0 else -o) for o in offset)
        there = tuple(slice(max(0, o), None if o >= 0 else o) for o in offset)
        a, b = basins[here], basins[there]
        meet = (a != b) & (a > 0) & (b > 0)
        low, high = np.minimum(a[meet], b[meet]), np.maximum(a[meet], b[meet])
        keys.append(low.astype(np.int64) * (n + 1) + high)
        passes.append(np.minimum(distance[here][meet], distance[there][meet]))
    key, height = np.concatenate(keys), np.concatenate(passes)
    order = np.lexsort((-height, key))
    key, height = key[order], height[order]
    first = np.concatenate([[True], key[1:] != key[:-1]]) if key.size else np.zeros(0, bool)
    pairs = sorted(zip(height[first].tolist(), key[first].tolist(), strict=True), reverse=True)
    return [(h, k // (n + 1), k % (n + 1)) for h, k in pairs]


def _join(
    heights: np.ndarray, saddles: list[tuple[float, int, int]], neck_ratio: float, min_radius: float
) -> np.ndarray:
    """Basin -> the basin it is joined to; `heights` of the kept ones become those of the joined part."""
    parent = list(range(len(heights)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for saddle, a, b in saddles:
        a, b = root(a), root(b)
        if a == b:
            continue
        high, low = (a, b) if heights[a] >= heights[b] else (b, a)
        if saddle >= neck_ratio * heights[low] or heights[low] < min_radius:
            parent[low] = high
    return np.array([root(i) for i in range(len(heights))])


def _ball(ndim: int) -> float:
    """Size of the unit disc or ball."""
    return math.pi if ndim == 2 else 4 / 3 * math.pi
