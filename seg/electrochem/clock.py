"""The offset between the clock of the cycler and that of the images, found from how coverage follows the current."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.errors import DataError

# Chance that the best of all offsets fits this well although coverage does not follow the current.
MAX_CHANCE = 0.01
_MIN_INTERVALS = 6
# Intervals that must lie within the cycler's record, of all.
_MIN_OVERLAP = 0.6
_MAX_OFFSETS = 4000
_LEVEL = 3.841  # 95 % point of chi2 with one degree of freedom


@dataclass(frozen=True)
class ClockOffset:
    """When the clock of the images shows 0 at the cycler's zero: frame time = cycler time + offset.

    Parameters
    ----------
    offset_s, low_s, high_s : float
        With its 95 % interval, never narrower than a tenth of the frame interval.
    score : float
        Share of the changes of the coverage rate that the current accounts for (R2 beyond a straight line).
    chance : float
        Probability of such a score where coverage does not follow the current, all offsets tried taken together.
    n_intervals : int
    """

    offset_s: float
    low_s: float
    high_s: float
    score: float
    chance: float
    n_intervals: int


def find_clock_offset(times_s: Sequence[float], coverage: Sequence[float], cycler: pd.DataFrame) -> ClockOffset:
    """Find the offset at which the rate of coverage follows the current best.

    Parameters
    ----------
    times_s : sequence of float, shape (N,)
        Of the frames, on the clock of the images.
    coverage : sequence of float, shape (N,)
        Covered area or fraction, or volume; NaN where not known.
    cycler : DataFrame
        As from `seg.electrochem.read_cycler`.

    Returns
    -------
    ClockOffset

    Raises
    ------
    DataError
        Where the offset cannot be told: too few frames, a current that does not change while the images run, no
        correlation beyond chance, or several offsets that fit alike.

    Notes
    -----
    Between two frames the coverage changes by ``(a + b t) dQ``, dQ the charge plated less stripped, plus a constant
    drift of the segmentation; how much area a charge covers may change over the experiment. Offsets are compared by
    the likelihood of this against a straight line on the same frames. Deposits are seen some time after the current
    starts (incubation, detection limit): the offset is late by that much.
    """
    times, covered = np.asarray(times_s, float), np.asarray(coverage, float)
    known = np.isfinite(times) & np.isfinite(covered)
    times, covered = times[known], covered[known]
    if len(times) < _MIN_INTERVALS + 1 or (np.diff(times) <= 0).any():
        raise DataError(
            f"The offset of the cycler's clock needs {_MIN_INTERVALS + 1} frames with a coverage and growing times; "
            f"there are {len(times)}. Give it with --echem-offset, such as 12s."
        )
    records, charge = cycler["time_s"].to_numpy(float), cycler["capacity_mAh"].to_numpy(float)
    good = np.isfinite(records) & np.isfinite(charge)
    records, charge = records[good], charge[good]
    if len(records) < 2 or np.ptp(charge) == 0:
        raise DataError("The cycler file has no charge that changes, so its clock cannot be matched to the images.")
    step = float(np.median(np.diff(times)))
    coarse = _candidates(times, records, step)
    profile = _Profile(times, covered, records, charge)
    gain = np.array([profile.gain(offset) for offset in coarse])
    if (np.nan_to_num(gain) > 0).any():
        profile.correlation = profile.at(coarse[int(np.nanargmax(gain))])[2]
        gain = np.array([profile.gain(offset) for offset in coarse])
    if not (np.nan_to_num(gain) > 0).any():
        raise DataError(
            "The current does not change while the images run, so the offset of the cycler's clock cannot be told "
            "from the coverage; give it with --echem-offset, such as 12s."
        )
    around = coarse[int(np.nanargmax(gain))] + np.linspace(-2, 2, 401) * (coarse[1] - coarse[0])
    offsets = np.concatenate([coarse, around])
    gain = np.concatenate([gain, [profile.gain(offset) for offset in around]])
    order = np.argsort(offsets)
    offsets, gain = offsets[order], gain[order]
    best = int(np.nanargmax(gain))
    n, score, _ = profile.at(offsets[best])
    # Offsets closer than a frame interval are not independent trials.
    chance = min(1.0, max(1.0, np.ptp(coarse) / step) * _chance(score, n))
    if chance > MAX_CHANCE:
        raise DataError(
            f"Coverage does not follow the current beyond chance (p = {chance:.2g} at the best offset, "
            f"{offsets[best]:.4g} s); give the offset of the cycler's clock with --echem-offset, such as 12s."
        )
    inside = np.flatnonzero(gain > gain[best] - _LEVEL)
    low, high = offsets[inside[0]], offsets[inside[-1]]
    if high - low > max(2 * step, 0.25 * np.ptp(times)):
        raise DataError(
            f"Offsets of the cycler's clock from {low:.4g} to {high:.4g} s fit the coverage alike; "
            "give it with --echem-offset, such as 12s."
        )
    margin = step / 10
    value = float(offsets[best])
    low, high = min(float(low), value - margin), max(float(high), value + margin)
    return ClockOffset(value, low, high, score, float(chance), n)


def _candidates(times: np.ndarray, records: np.ndarray, step: float) -> np.ndarray:
    """Offsets at which enough frames lie within the record."""
    slack = (1 - _MIN_OVERLAP) * (times[-1] - times[0])
    low, high = sorted((times[-1] - records[-1], times[0] - records[0]))
    n = int(min(_MAX_OFFSETS, max(50, math.ceil((high - low + 2 * slack) / (step / 10)))))
    return np.linspace(low - slack, high + slack, n)


class _Profile:
    """How well the current explains the coverage rate at an offset."""

    def __init__(self, times: np.ndarray, covered: np.ndarray, records: np.ndarray, charge: np.ndarray) -> None:
        self.times, self.records, self.charge = times, records, charge
        self.duration = np.diff(times)
        self.rate = np.diff(covered) / self.duration
        middle = (times[1:] + times[:-1]) / 2
        self.when = (middle - middle.mean()) / np.ptp(times)
        self.correlation = 0.0

    def gain(self, offset: float) -> float:
        """Twice the gain in log-likelihood over a straight line; 0 for a constant current, NaN off the record."""
        fit = self._fit(offset)
        if fit is None:
            return math.nan
        null, full = fit
        return len(null) * math.log(_sum2(null) / _sum2(full)) if len(null) else 0.0

    def at(self, offset: float) -> tuple[int, float, float]:
        """Intervals, share of the variance explained, and correlation of the errors of neighbouring intervals."""
        fit = self._fit(offset)
        assert fit is not None
        null, full = fit
        lagged = float(full[1:] @ full[:-1]) / _sum2(full)
        return len(null), 1 - _sum2(full) / _sum2(null), lagged

    def _fit(self, offset: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Residuals without and with the current; both empty where they cannot differ."""
        charge = np.interp(self.times - offset, self.records, self.charge, left=np.nan, right=np.nan)
        current = np.diff(charge) / self.duration
        use = np.isfinite(current)
        if use.sum() < max(_MIN_INTERVALS, _MIN_OVERLAP * len(use)):
            return None
        y, c, t = self.rate[use], current[use], self.when[use]
        if np.ptp(c) < 0.2 * np.abs(c).max():
            return np.zeros(0), np.zeros(0)
        line = np.stack([np.ones(len(y)), t], axis=1)
        whole = np.column_stack([y, line, c, c * t])
        y, line, c, by_time = np.split(_whitened(whole, self.correlation), [1, 3, 4], axis=1)
        y = y[:, 0]
        slope = np.linalg.lstsq(np.column_stack([line, c]), y, rcond=None)[0][2]
        if slope <= 0:  # more charge, less coverage: not this one
            return np.zeros(0), np.zeros(0)
        return _residuals(line, y), _residuals(np.column_stack([line, c, by_time]), y)


def _whitened(columns: np.ndarray, correlation: float) -> np.ndarray:
    """Free the errors of neighbouring intervals of their correlation.

    An error of one frame enters the rates before and after it with opposite signs, which makes a moving average; what
    the model cannot follow goes on for some intervals, which makes an autoregression.
    """
    from scipy.signal import lfilter

    if correlation >= 0:
        return np.asarray(lfilter([1.0, -min(correlation, 0.95)], [1.0], columns, axis=0))
    rho = max(correlation, -0.49)
    theta = (1 - math.sqrt(1 - 4 * rho**2)) / (2 * rho)
    return np.asarray(lfilter([1.0], [1.0, theta], columns, axis=0))


def _residuals(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(y - design @ np.linalg.lstsq(design, y, rcond=None)[0])


def _sum2(values: np.ndarray) -> float:
    return float(values @ values) + 1e-300


def _chance(score: float, n: float) -> float:
    """Chance of this share with two more parameters (F test)."""
    from scipy.special import fdtrc

    free = n - 4
    if free < 1:
        return 1.0
    return float(fdtrc(2, free, score / max(1 - score, 1e-12) * free / 2))
