"""Robust slopes of noisy series."""

from __future__ import annotations

import math

import numpy as np

_MAX_POINTS = 2000
_NORMAL_95 = 1.959963984540054


def robust_slope(clock: np.ndarray, values: np.ndarray, *, max_points: int = _MAX_POINTS) -> tuple[float, float, float]:
    """Theil-Sen slope and its 95 % interval; NaN without two different times, interval NaN under four points.

    Notes
    -----
    All pairs of points vote; of a series longer than `max_points`, blocks of consecutive points are averaged first.

    References
    ----------
    Sen, P. K. (1968). Estimates of the regression coefficient based on Kendall's tau. J. Am. Stat. Assoc. 63, 1379.
    """
    if len(values) > max_points:
        starts = np.array([block[0] for block in np.array_split(np.arange(len(values)), max_points)])
        sizes = np.diff(starts, append=len(values))
        clock, values = (np.add.reduceat(np.asarray(series, float), starts) / sizes for series in (clock, values))
    apart = clock[:, None] - clock
    later = apart > 0
    if not later.any() or not (np.isfinite(clock).all() and np.isfinite(values).all()):
        return math.nan, math.nan, math.nan
    slopes = np.sort((values[:, None] - values)[later] / apart[later])
    n, pairs = len(values), len(slopes)
    slope = float(slopes[(pairs - 1) // 2] + slopes[pairs // 2]) / 2
    if n < 4:  # the rank test behind the interval has no 95 % level with fewer
        return slope, math.nan, math.nan
    # Kendall's variance (equation 2.6 of Sen), less what ties take from it.
    spread = n * (n - 1) * (2 * n + 5) - sum(_tied(series) for series in (clock, values))
    reach = _NORMAL_95 * math.sqrt(spread / 18)
    low, high = max(round((pairs - reach) / 2) - 1, 0), min(round((pairs + reach) / 2), pairs - 1)
    return slope, float(slopes[low]), float(slopes[high])


def _tied(series: np.ndarray) -> int:
    """Sum of ``k (k - 1) (2 k + 5)`` over values that occur k times."""
    times = np.unique(series, return_counts=True)[1]
    return int((times * (times - 1) * (2 * times + 5)).sum())
