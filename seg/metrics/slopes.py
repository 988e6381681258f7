"""Robust slopes of noisy series."""

from __future__ import annotations

import math

import numpy as np

_MAX_POINTS = 2000


def robust_slope(clock: np.ndarray, values: np.ndarray, *, max_points: int = _MAX_POINTS) -> tuple[float, float, float]:
    """Theil-Sen slope and its 95 % interval; NaN without two different times, interval NaN under four points.

    Notes
    -----
    All pairs of points vote; of a series longer than `max_points`, blocks of consecutive points are averaged first.

    References
    ----------
    Sen, P. K. (1968). Estimates of the regression coefficient based on Kendall's tau. J. Am. Stat. Assoc. 63, 1379.
    """
    if len(np.unique(clock)) < 2:
        return math.nan, math.nan, math.nan
    from scipy.stats import theilslopes

    if len(values) > max_points:
        blocks = np.array_split(np.arange(len(values)), max_points)
        clock, values = (np.array([series[block].mean() for block in blocks]) for series in (clock, values))
    fit = theilslopes(values, clock, alpha=0.95)
    if len(values) < 4:  # the rank test behind the interval has no 95 % level with fewer
        return float(fit.slope), math.nan, math.nan
    return float(fit.slope), float(fit.low_slope), float(fit.high_slope)
