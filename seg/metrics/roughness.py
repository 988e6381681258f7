"""Roughness of a surface given as heights over a regular grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seg.metrics.interface import DIGITISATION_PX


@dataclass(frozen=True)
class Roughness:
    """Deviations of a surface from its mean plane (line, for a profile).

    Parameters
    ----------
    sa, sq : float
        Mean absolute and root mean square deviation, what whole pixels of height alone would cause removed.
    sq_error : float
        Half width of the 95 % interval of `sq`: the surface repeats itself over its correlation length, so that only
        so many independent patches were seen.
    n : int
        Points.
    """

    sa: float
    sq: float
    sq_error: float
    n: int


def roughness(heights: np.ndarray, *, spacing: Sequence[float], height_step: float = 0.0) -> Roughness:
    """Sa and Sq after removing the mean plane.

    Parameters
    ----------
    heights : ndarray of float, shape (Y, X) or (X,)
        NaN where unknown.
    spacing : sequence of float
        Distance of neighbours along each axis.
    height_step : float
        Step of the height where it is counted in whole pixels; the 1/12 step^2 that this adds to the variance is
        taken off, which scales Sa by the same factor as Sq.

    Notes
    -----
    ISO 25178-2: ``Sa = mean |z|``, ``Sq = sqrt(mean z**2)``. Without the plane a tilt of 5 % adds two thirds.
    """
    known = np.isfinite(heights)
    n = int(np.count_nonzero(known))
    if n < heights.ndim + 2:
        return Roughness(math.nan, math.nan, math.nan, n)
    design = np.column_stack([np.ones(n), *(index[known] * s for index, s in zip(np.indices(heights.shape), spacing,
                                                                                   strict=True))])  # fmt: skip
    z = heights[known]
    deviation = z - design @ np.linalg.lstsq(design, z, rcond=None)[0]
    variance = float(np.mean(deviation**2))
    sq = math.sqrt(max(variance - (DIGITISATION_PX * height_step) ** 2, 0.0))
    sa = float(np.mean(np.abs(deviation))) * (sq / math.sqrt(variance) if variance > 0 else 0.0)
    plane = np.zeros(heights.shape)
    plane[known] = deviation
    patches = math.prod(
        max(size / _correlation_px(plane, axis), 1.0) for axis, size in enumerate(heights.shape)
    )  # fmt: skip
    # A standard deviation from m independent values is known to 1 / sqrt(2 m).
    error = math.hypot(1.96 * sq / math.sqrt(2 * max(patches, 2)), 0.5 * DIGITISATION_PX * height_step)
    return Roughness(sa, sq, error, n)


def _correlation_px(deviation: np.ndarray, axis: int) -> float:
    """Length over which the autocorrelation along an axis falls to 1/e; twice it is taken for one patch."""
    z = np.moveaxis(deviation, axis, -1)
    n = z.shape[-1]
    power = np.abs(np.fft.rfft(z, 2 * n, axis=-1)) ** 2
    correlation = np.fft.irfft(power.reshape(-1, power.shape[-1]).mean(axis=0))[:n]
    if correlation[0] <= 0:
        return float(n)
    below = np.flatnonzero(correlation < correlation[0] / math.e)
    return 2.0 * float(below[0]) if len(below) else float(n)
