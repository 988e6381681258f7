"""How many grains lie in a mask in which they overlap: Miles' inversion of area, outline and Euler number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seg.crofton import shared_boundary
from seg.uncertainty import bootstrap_interval, combine_intervals

# The frame is cut into this many blocks along each axis, which are resampled for the interval.
_BLOCKS = 5
# Relative error per covered share: discs of 9 px radius read -1, -8 and -17 % at 0.15, 0.40 and 0.64 on average, and
# single fields scatter about that.
_DIGITAL = 0.4


@dataclass(frozen=True)
class GrainDensity:
    """Grains per area of a mask of overlapping convex grains, with its 95 % interval.

    Parameters
    ----------
    value, low, high : float
        Per unit of area of the spacing. The interval joins a bootstrap over blocks of the frame and the error of the
        method on pixels (4 % at a tenth of the area covered, in proportion to it).
    covered : float
        Share of the valid area that the grains cover.
    """

    value: float
    low: float
    high: float
    covered: float


def miles_density(mask: np.ndarray, valid: np.ndarray, *, spacing: tuple[float, float]) -> GrainDensity:
    """Density of convex grains that fell at random on the plane and overlap.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        Where any grain is.
    valid : ndarray of bool, shape (Y, X)
    spacing : tuple of float

    Returns
    -------
    GrainDensity
        NaN for a mask that is empty or covers all.

    Notes
    -----
    ``chi/(1-p) + (P/(1-p))^2 / (4 pi)`` with the covered share p, the outline P and the Euler number chi per area. The
    Euler number counts the foreground with 4 neighbours: with 8, digitisation joins neighbours that do not touch. All
    three are counted within the valid area, so there is no edge effect. Grains that avoid each other (exclusion
    zones) are fewer than it says.

    References
    ----------
    Miles, R. E. (1976). Estimating aggregate and overall characteristics from thick sections by transmission
    microscopy. J. Microsc. 107, 227.
    """
    mask = mask & valid
    bounds = [np.linspace(0, n, _BLOCKS + 1).astype(int) for n in mask.shape]
    blocks = []
    for y0, y1 in zip(bounds[0][:-1], bounds[0][1:], strict=True):
        for x0, x1 in zip(bounds[1][:-1], bounds[1][1:], strict=True):
            # One row and column more: pairs of pixels across the border of two blocks belong to the first.
            box = (slice(y0, y1 + 1), slice(x0, x1 + 1))
            blocks.append(_block(mask[box], valid[box], mask[y0:y1, x0:x1], valid[y0:y1, x0:x1], spacing))
    sums = np.array([block for block in blocks if block[1] > 0])
    if not len(sums) or not 0 < sums[:, 0].sum() < sums[:, 1].sum():
        covered = float(sums[:, 0].sum() / sums[:, 1].sum()) if len(sums) else math.nan
        return GrainDensity(math.nan, math.nan, math.nan, covered)
    value = float(_density(sums[np.newaxis])[0])
    covered = float(sums[:, 0].sum() / sums[:, 1].sum())
    digital = _DIGITAL * covered * value
    sampled = bootstrap_interval(sums, _density, rng=np.random.default_rng(0))
    low, high = combine_intervals(value, sampled, (value - digital, value + digital))
    return GrainDensity(value, max(low, 0.0), high, covered)


def _block(
    wide: np.ndarray, wide_valid: np.ndarray, mask: np.ndarray, valid: np.ndarray, spacing: tuple[float, float]
) -> tuple[float, ...]:
    """Covered and valid area, outline, Euler number and area it refers to."""
    pixel = math.prod(spacing)
    square = [wide[:-1, :-1], wide[:-1, 1:], wide[1:, :-1], wide[1:, 1:]]
    known = wide_valid[:-1, :-1] & wide_valid[:-1, 1:] & wide_valid[1:, :-1] & wide_valid[1:, 1:]
    number = sum(part.astype(np.int8) for part in square)
    diagonal = (number == 2) & (square[0] == square[3])
    ones, threes, twos = (int(np.count_nonzero(known & what)) for what in (number == 1, number == 3, diagonal))
    euler = (ones - threes + 2 * twos) / 4
    outline = shared_boundary(wide, wide_valid & ~wide, spacing=spacing)
    return (
        float(np.count_nonzero(mask)) * pixel, float(np.count_nonzero(valid)) * pixel, outline, euler,
        float(np.count_nonzero(known)) * pixel,
    )  # fmt: skip


def _density(sums: np.ndarray) -> np.ndarray:
    """Miles' estimate from sums over blocks, shape (B, N, 5)."""
    covered, valid, outline, euler, known = np.moveaxis(sums.sum(axis=1), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        bare = 1 - covered / valid
        return np.asarray(euler / known / bare + (outline / known / bare) ** 2 / (4 * math.pi))
