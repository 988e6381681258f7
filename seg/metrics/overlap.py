"""How many grains lie in a mask in which they overlap: Miles' inversion of area, outline and Euler number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from seg.bits import count_bits_of_each, moved_bits, packed
from seg.crofton import shared_boundaries_of_bits
from seg.uncertainty import bootstrap_of_means, combine_intervals

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
    sums = _block_sums(mask & valid, valid, spacing)
    sums = sums[sums[:, 1] > 0]
    if not len(sums) or not 0 < sums[:, 0].sum() < sums[:, 1].sum():
        covered = float(sums[:, 0].sum() / sums[:, 1].sum()) if len(sums) else math.nan
        return GrainDensity(math.nan, math.nan, math.nan, covered)
    value = float(_density(sums.sum(axis=0)))
    covered = float(sums[:, 0].sum() / sums[:, 1].sum())
    digital = _DIGITAL * covered * value
    sampled = bootstrap_of_means(sums, _density, rng=np.random.default_rng(0))
    low, high = combine_intervals(value, sampled, (value - digital, value + digital))
    return GrainDensity(value, max(low, 0.0), high, covered)


def _block_sums(mask: np.ndarray, valid: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Covered and valid area, outline, Euler number and area it refers to, of every block of a frame, shape (N, 5)."""
    grains, seen, own = packed(_blocks(mask)), packed(_blocks(valid)), _own_pixels(mask.shape)
    a, b, c, d = _squares(grains)
    inside = np.bitwise_and.reduce(_squares(seen))
    odd = a ^ b ^ c ^ d
    three = odd & ((a & b & (c | d)) | (c & d & (a | b)))
    diagonal = (a ^ b) & (c ^ d) & (a ^ c)
    ones, threes, twos = (count_bits_of_each(inside & what) for what in (odd & ~three, three, diagonal))
    covered, known, squares = (count_bits_of_each(part) for part in (grains & own, seen & own, inside))
    outline = shared_boundaries_of_bits(grains, seen & ~grains, spacing=spacing)
    pixel = math.prod(spacing)
    return np.stack(
        [covered * pixel, known * pixel, outline, (ones - threes + 2 * twos) / 4, squares * pixel], axis=1
    )  # fmt: skip


@lru_cache(maxsize=4)
def _own_pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Of every block what is not the row and column more."""
    return packed(_blocks(np.ones(shape, bool), ahead=0))


def _blocks(mask: np.ndarray, *, ahead: int = 1) -> np.ndarray:
    """The blocks of a mask, all in arrays of one size, and 0 beyond their ends.

    With one row and column more (`ahead`): pairs of pixels across the border of two blocks belong to the first.
    """
    bounds = [np.linspace(0, n, _BLOCKS + 1).astype(int) for n in mask.shape]
    size = [int(np.diff(edges).max()) + 1 for edges in bounds]
    blocks = np.zeros((_BLOCKS, _BLOCKS, *size), bool)
    for i, j in np.ndindex(_BLOCKS, _BLOCKS):
        part = mask[bounds[0][i] : bounds[0][i + 1] + ahead, bounds[1][j] : bounds[1][j + 1] + ahead]
        blocks[i, j, : part.shape[0], : part.shape[1]] = part
    return blocks.reshape(-1, *size)


def _squares(bits: np.ndarray) -> tuple[np.ndarray, ...]:
    """The four pixels of every 2 x 2 square of packed masks; beyond the last column there are none."""
    right = moved_bits(bits, -1)
    return bits[:, :-1], right[:, :-1], bits[:, 1:], right[:, 1:]


def _density(sums: np.ndarray) -> np.ndarray:
    """Miles' estimate from sums (or means) over blocks, shape (..., 5)."""
    covered, valid, outline, euler, known = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        bare = 1 - covered / valid
        return np.asarray(euler / known / bare + (outline / known / bare) ** 2 / (4 * math.pi))
