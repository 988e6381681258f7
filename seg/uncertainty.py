"""Intervals: counting, sampling and boundary uncertainty, and how they combine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from seg.bits import count_bits, moved_bits, overlapping, packed

BOOTSTRAP_RESAMPLES = 1000
# The outline of a mask may lie off as a whole: within half a pixel in 95 of 100 masks (standard deviation).
OUTLINE_OFFSET_PX = 0.25
# Blur (standard deviation) that an image may have: instruments are sampled with 2 to 3.5 pixels for each width of a
# point. An outline cut from a blurred image lies inwards by half the square of that, times its curvature.
BLUR_PX = 1.5
_BLOCK = 2**16  # resampled values held at a time: few enough to stay in the cache


def lost_to_blur_px(sizes_px: np.ndarray, ndim: int) -> np.ndarray:
    """Pixels that bodies of these sizes have lost at most where the image was blurred before it was cut (`BLUR_PX`).

    A surface moves inwards by ``s**2 / 2`` times the sum of its curvatures: balls lose ``4 pi R s**2``, and whatever is
    simply connected in a plane loses ``pi s**2``.
    """
    sizes_px = np.asarray(sizes_px, float)
    if ndim == 2:
        return np.full(sizes_px.shape, math.pi * BLUR_PX**2)
    return np.asarray(4 * math.pi * np.cbrt(3 * sizes_px / (4 * math.pi)) * BLUR_PX**2)


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval (Garwood) of the mean of a Poisson variable of which `count` was seen.

    Parameters
    ----------
    count : int
    level : float

    Returns
    -------
    (float, float)
        Both ends in counts; the lower one of a zero count is 0.

    References
    ----------
    Garwood, F. (1936). Fiducial limits for the Poisson distribution. Biometrika 28, 437.
    """
    if count < 0 or not 0 < level < 1:
        raise ValueError(f"poisson_interval needs a count >= 0 and a level in (0, 1); got {count} and {level}.")
    from scipy.special import chdtri

    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(chdtri(2 * count, 1 - tail)) / 2
    return low, float(chdtri(2 * count + 2, tail)) / 2


def overdispersed_interval(
    count: int, excess: float, freedom: float = math.inf, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of a count whose variance is `excess` times that of a Poisson variable.

    Parameters
    ----------
    count : int
    excess : float
        1 gives `poisson_interval`.
    freedom : float
        Degrees of freedom that the excess was found with.
    level : float

    Returns
    -------
    (float, float)

    Notes
    -----
    `excess` objects count as one: the exact interval of ``count / excess``, times the excess. That the excess itself
    is an estimate widens it by the ratio of the quantiles of Student and Gauss.
    """
    if excess <= 1:
        return poisson_interval(count, level)
    from scipy.special import gammaincinv, ndtri, stdtrit

    tail = (1 - level) / 2
    wider = float(stdtrit(freedom, tail) / ndtri(tail)) if math.isfinite(freedom) else 1.0
    low = float(gammaincinv(count / excess, tail)) * excess if count else 0.0
    high = float(gammaincinv(count / excess + 1, 1 - tail)) * excess
    return max(count - wider * (count - low), 0.0), count + wider * (high - count)


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    n_resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[float, float]:
    """Percentile bootstrap over independent units (objects, fields of view; never pixels).

    Parameters
    ----------
    values : ndarray, shape (N,) or (N, K)
        One row per unit; columns stay together.
    statistic : callable or None
        Maps resampled values of shape (B, N) or (B, N, K) to (B,). None: the mean of shape (N,).
    rng : Generator
    level : float
    n_resamples : int

    Returns
    -------
    (float, float)
        NaN, NaN for fewer than two units.

    Notes
    -----
    Plain percentiles are too narrow for few units; the tails are widened so that the interval of a mean has the
    width of Student's interval (expanded percentiles).

    References
    ----------
    Hesterberg, T. (2015). What teachers should know about the bootstrap. The American Statistician 69, 371.
    """
    values = np.asarray(values)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    if statistic is None:
        found = resampled_means(values, rng=rng, n_resamples=n_resamples)
    else:
        per_block = max(1, _BLOCK // values.size)
        parts = []
        for start in range(0, n_resamples, per_block):
            rows = rng.integers(0, n, (min(per_block, n_resamples - start), n))
            parts.append(np.asarray(statistic(values[rows]), float))
        found = np.concatenate(parts)
    tail = expanded_tail(n, level)
    low, high = np.nanquantile(found, [tail, 1 - tail])
    return float(low), float(high)


def weighted_median(values: np.ndarray, weights: np.ndarray, *, level: float = 0.95) -> tuple[float, float, float]:
    """Median of weighted units with the interval that order statistics give, whatever the law of the values.

    Parameters
    ----------
    values, weights : ndarray of float, shape (N,)
    level : float

    Returns
    -------
    value, low, high : float
        NaN without values; the bounds are NaN where too few units determine none (under six, at 95 %).

    Notes
    -----
    The ranks are those of the binomial law of one half for as many equal units as the weighted ones inform like (Kish).
    """
    values, weights = np.asarray(values, float), np.asarray(weights, float)
    if not len(values):
        return math.nan, math.nan, math.nan
    from scipy.special import bdtr

    order = np.argsort(values)
    values, share = values[order], np.cumsum(weights[order]) / weights.sum()
    middle = float(np.interp(0.5, share - 0.5 * weights[order] / weights.sum(), values))
    n = weights.sum() ** 2 / np.sum(weights**2)
    ranks = np.arange(int(n) + 1)
    below = ranks[bdtr(ranks, int(n), 0.5) <= (1 - level) / 2]
    if not len(below):
        return middle, math.nan, math.nan
    tail = (below[-1] + 0.5) / int(n)  # half of the outermost unit that is inside, and all beyond it, on either side
    low, high = (float(values[np.searchsorted(share, t)]) for t in (tail, 1 - tail))
    return middle, min(low, middle), max(high, middle)


def bootstrap_ratio_interval(
    above: np.ndarray, below: np.ndarray, *, rng: np.random.Generator, level: float = 0.95,
    n_resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[float, float]:  # fmt: skip
    """`bootstrap_interval` of the ratio of two sums over the same units, such as a weighted mean.

    Parameters
    ----------
    above, below : ndarray of float, shape (N,)
    rng, level, n_resamples
        As in `bootstrap_interval`.
    """
    units = np.stack([above, below], axis=1)
    return bootstrap_of_means(
        units, lambda means: means[:, 0] / means[:, 1], rng=rng, level=level, n_resamples=n_resamples
    )


def bootstrap_of_means(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, rng: np.random.Generator,
    level: float = 0.95, n_resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[float, float]:  # fmt: skip
    """`bootstrap_interval` of what follows from the means of the columns alone, in a fraction of its time.

    Parameters
    ----------
    values : ndarray of float, shape (N, K)
    statistic : callable
        Maps means of resamples, shape (B, K), to (B,).
    rng, level, n_resamples
        As in `bootstrap_interval`.
    """
    if len(values) < 2:
        return math.nan, math.nan
    found = statistic(resampled_means(values, rng=rng, n_resamples=n_resamples))
    tail = expanded_tail(len(values), level)
    low, high = np.nanquantile(found, [tail, 1 - tail])
    return float(low), float(high)


def resampled_means(values: np.ndarray, *, rng: np.random.Generator, n_resamples: int) -> np.ndarray:
    """Means of resamples of units, shape (n_resamples,) or (n_resamples, K), from how often each unit was drawn."""
    n = len(values)
    per_block = max(1, _BLOCK // n)
    parts = []
    for start in range(0, n_resamples, per_block):
        size = min(per_block, n_resamples - start)
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        parts.append(np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n) @ values / n)
    return np.concatenate(parts)


def expanded_tail(n: int, level: float) -> float:
    """Quantile of a bootstrap over `n` units at which an interval of `level` ends; see `bootstrap_interval`."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))


def combine_intervals(value: float, *intervals: tuple[float, float]) -> tuple[float, float]:
    """Join independent intervals about one value: half widths add in quadrature, each side for itself.

    Parts that are NaN are left out; all of them NaN gives NaN.
    """
    known = [(low, high) for low, high in intervals if math.isfinite(low) and math.isfinite(high)]
    if not known:
        return math.nan, math.nan
    below = math.hypot(*(max(value - low, 0.0) for low, _ in known))
    above = math.hypot(*(max(high - value, 0.0) for _, high in known))
    return value - below, value + above


def boundary_shift(mask: np.ndarray, shift_px: float) -> np.ndarray:
    """Coverage of each pixel after the outline of a mask has moved outwards by `shift_px` (inwards when negative).

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
    shift_px : float
        Up to 3 px either way, counted in pixels along every axis: the outline of a mask is known to a fraction of a
        pixel in each direction, however large the pixel is there.

    Returns
    -------
    ndarray of float32, shape of `mask`
        0 outside, 1 inside, in between where the moved outline cuts the pixel: sums are sub-pixel sizes. The outline
        does not move where the frame cuts the object.

    Notes
    -----
    The outline runs half-way between unlike neighbours, so the signed distance of a pixel is that to the nearest
    pixel of the other kind less one half, and its coverage is ``clip(1/2 + shift - distance, 0, 1)``. A straight edge
    along the grid gains exactly `shift_px`; one at 45 degrees 17 % less.
    """
    if abs(shift_px) > 3:
        raise ValueError(f"boundary_shift moves outlines by 3 px at most; got {shift_px}.")
    grows = shift_px >= 0
    inside = np.asarray(mask, bool) if grows else ~np.asarray(mask, bool)
    moved = inside.astype(np.float32)
    if shift_px:
        for offset, distance in _offsets(inside.ndim, abs(shift_px) + 1):
            covered = np.float32(min(1.0, abs(shift_px) + 1 - distance))
            here, there = overlapping(offset)
            np.maximum(moved[here], covered * inside[there], out=moved[here])
    return moved if grows else 1 - moved


def shifted_sizes(mask: np.ndarray, valid: np.ndarray | None = None, *, shift_px: float = 0.5) -> tuple[float, float]:
    """Pixels in a mask after its outline moved in and out by `shift_px`, counted within `valid`.

    The sums of `boundary_shift`, without the array of coverages.
    """
    return sizes_of(shifted_counts(mask, valid, shift_px=shift_px), mask.ndim, shift_px=shift_px)


def shifted_counts(mask: np.ndarray, valid: np.ndarray | None = None, *, shift_px: float = 0.5) -> np.ndarray:
    """What `shifted_sizes` counts: pixels of the mask, then those in each ring inside and outside of its outline.

    Whole numbers that may be added up over the parts of a volume: `valid` says which pixels belong to a part, and
    `mask` holds those around it as far as the outline moves.
    """
    rings = _rings(mask.ndim, shift_px)
    if not mask.any():
        return np.zeros(1 + 2 * len(rings), np.int64)
    box = _box(mask, margin=math.ceil(shift_px) + 1)
    inside = mask[box]
    within = np.ones(inside.shape, bool) if valid is None else valid[box]
    lost, won = (_ring_counts(side, within, rings) for side in (~inside, inside))
    return np.array([np.count_nonzero(inside & within), *lost, *won], np.int64)


def sizes_of(counts: np.ndarray, ndim: int, *, shift_px: float = 0.5) -> tuple[float, float]:
    """Pixels after the outline moved in and out, from `shifted_counts`."""
    covered = [min(1.0, shift_px + 1 - distance) for distance, _ in _rings(ndim, shift_px)]
    size, (lost, won) = float(counts[0]), np.split(counts[1:], 2)
    return size - float(np.dot(covered, lost)), size + float(np.dot(covered, won))


def _rings(ndim: int, shift_px: float) -> list[tuple[float, list[tuple[int, ...]]]]:
    """Steps that the outline may reach, by their length, the shortest first."""
    rings: dict[float, list[tuple[int, ...]]] = {}
    for offset, distance in _offsets(ndim, shift_px + 1):
        rings.setdefault(distance, []).append(offset)
    return sorted(rings.items())


def _ring_counts(inside: np.ndarray, within: np.ndarray, rings: list[tuple[float, list[tuple[int, ...]]]]) -> list[int]:
    """Pixels within a region that are nearest to a mask by each of the steps."""
    mask, seen = packed(inside), packed(within)
    along = {offset[-1] for _, offsets in rings for offset in offsets}
    moved = {step: moved_bits(mask, -step) for step in along}  # once per step along the words, not per offset
    reached, counts = mask.copy(), []
    # Nearest first: a pixel is covered as much as the nearest pixel of the mask makes it.
    for _, offsets in rings:
        near = np.zeros_like(mask)
        for offset in offsets:
            here, there = overlapping(offset[:-1])
            near[here] |= moved[offset[-1]][there]
        near &= ~reached
        counts.append(count_bits(near & seen))
        reached |= near
    return counts


def _offsets(ndim: int, reach: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield the steps on the grid shorter than `reach`, and their lengths, without the zero step."""
    around = range(-math.ceil(reach), math.ceil(reach) + 1)
    for offset in product(around, repeat=ndim):
        length = math.hypot(*offset)
        if 0 < length < reach:
            yield offset, length


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """Bounding box of a mask that is not empty, with a margin, cut at the array."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return tuple(box)
