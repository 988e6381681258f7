"""How fast the covered area, the volume and the radius of the objects change.

The rates come from the rows of every frame (groups `cover` and `size`), so a series is never in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.metrics.table import Measurement, rate_unit
from seg.uncertainty import combine_intervals

FARADAY_C_PER_MOL = 96485.33212
LITHIUM_MOLAR_VOLUME_CM3 = 13.00
_MAX_POINTS = 2000
# Metal whose surface velocity is a current density.
_METAL = {"deposit", "dendrite", "dead_lithium"}


@dataclass(frozen=True)
class Curve:
    """A quantity over the frames of a series.

    Parameters
    ----------
    frames : ndarray of int, shape (N,)
    clock : ndarray of float, shape (N,)
        Seconds where every frame has a time, else frame numbers.
    timed : bool
        Which of the two.
    values, lows, highs : ndarray of float, shape (N,)
    unit : str
    class_name : str
    flags : tuple of str
        Of the whole curve: ``uncalibrated`` where lengths or times are not known.
    n_frames : int
        Frames of the series, with those left out.
    """

    frames: np.ndarray
    clock: np.ndarray
    timed: bool
    values: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    unit: str
    class_name: str
    flags: tuple[str, ...]
    n_frames: int

    @property
    def seconds(self) -> np.ndarray:
        """Time of each frame; NaN where unknown."""
        return self.clock if self.timed else np.full(len(self.clock), math.nan)

    def scaled(self, factor: float) -> Curve:
        """Multiply every value by `factor`."""
        return Curve(
            self.frames, self.clock, self.timed, self.values * factor, self.lows * factor, self.highs * factor,
            self.unit, self.class_name, self.flags, self.n_frames,
        )  # fmt: skip


def local_current_density(
    velocity_um_per_s: float, *, molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3, charge_number: int = 1
) -> float:
    """Convert the velocity of a metal surface to a current density in mA/cm2, by Faraday's law.

    Notes
    -----
    j = z F v / V_m; 1 nm/s of lithium is 0.742 mA/cm2. It is the current of the metal volume: pores, SEI and side
    reactions are not in it.
    """
    cm_per_s = velocity_um_per_s * 1e-4
    return charge_number * FARADAY_C_PER_MOL * cm_per_s / molar_volume_cm3 * 1e3


def robust_slope(clock: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Theil-Sen slope and its 95 % interval; NaN without two different times, interval NaN under four points.

    Notes
    -----
    All pairs of points vote; of a series longer than 2000, blocks of consecutive points are averaged first.

    References
    ----------
    Sen, P. K. (1968). Estimates of the regression coefficient based on Kendall's tau. J. Am. Stat. Assoc. 63, 1379.
    """
    if len(np.unique(clock)) < 2:
        return math.nan, math.nan, math.nan
    from scipy.stats import theilslopes

    if len(values) > _MAX_POINTS:
        blocks = np.array_split(np.arange(len(values)), _MAX_POINTS)
        clock, values = (np.array([series[block].mean() for block in blocks]) for series in (clock, values))
    fit = theilslopes(values, clock, alpha=0.95)
    if len(values) < 4:  # the rank test behind the interval has no 95 % level with fewer
        return float(fit.slope), math.nan, math.nan
    return float(fit.slope), float(fit.low_slope), float(fit.high_slope)


def measure_series(
    table: pd.DataFrame, *, molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3, charge_number: int = 1
) -> list[Measurement]:
    """Rates over a series and from frame to frame.

    Parameters
    ----------
    table : DataFrame
        Rows of all frames, with those of the group `cover`; radial velocity needs those of `size`.
    molar_volume_cm3 : float
        Of the metal, per mol.
    charge_number : int
        Electrons per atom.

    Returns
    -------
    list of Measurement
        ``area_rate``, ``volume_rate``, ``radial_velocity`` and, for calibrated velocities of metal,
        ``local_current_density``. Each is given over the whole series (robust slope, no frame) and for every pair of
        consecutive frames (at the later one). A single frame gives NaN with the flag ``single-frame``. Without frame
        times a rate is per frame and flagged ``uncalibrated``.

    Notes
    -----
    Frames without a value, and frames that are mostly artefact, are left out. A change from one frame to the next
    that is smaller than its uncertainty at the boundary is flagged ``few-pixels``. `radial_velocity` follows the mean
    object: new objects pull it down, and it is no velocity of any single one.
    """
    curves = {name: _curves(table, name) for name in ("covered_area", "volume", "mean_equivalent_diameter")}
    if not curves["covered_area"] and not curves["volume"]:
        raise UsageError("Metric group 'growth' needs the rows of 'cover'; add `cover: {}` to metrics.")
    rows: list[Measurement] = []
    for curve in curves["covered_area"]:
        rows += _rates(curve, "area_rate", "covered_area")
    for curve in curves["volume"]:
        rows += _rates(curve, "volume_rate", "volume")
    for diameter in curves["mean_equivalent_diameter"]:
        radius = diameter.scaled(0.5)
        velocities = _rates(radius, "radial_velocity", "half the mean equivalent diameter", boundary=False)
        rows += velocities
        if diameter.timed and diameter.unit == "um" and _is_metal(diameter.class_name):
            density = partial(local_current_density, molar_volume_cm3=molar_volume_cm3, charge_number=charge_number)
            rows += [_as_current(row, density) for row in velocities]
    return rows


def _curves(table: pd.DataFrame, metric: str) -> list[Curve]:
    """One curve per class of a metric that is given per frame."""
    rows = table[(table["metric"] == metric) & table["frame"].notna() & table["object_id"].isna()]
    classes = _text(rows["class"])
    return [_curve(group.sort_values("frame"), str(name)) for name, group in rows.groupby(classes)]


def _text(column: pd.Series) -> pd.Series:
    """Text of a column that may come from a file, where an empty text is NaN."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _curve(rows: pd.DataFrame, class_name: str) -> Curve:
    times = rows["time_s"].to_numpy(float, na_value=math.nan)
    timed = bool(np.isfinite(times).all())
    flags = _text(rows["flags"])
    uncalibrated = not timed or flags.str.contains("uncalibrated").any()
    usable = rows["value"].notna().to_numpy() & ~flags.str.contains("artifact-frame").to_numpy()
    frames = rows["frame"].to_numpy(int)
    clock = times if timed else frames.astype(float)
    values, lows, highs = (rows[name].to_numpy(float, na_value=math.nan)[usable] for name in ("value", "low", "high"))
    return Curve(
        frames[usable], clock[usable], timed, values, lows, highs, str(rows["unit"].iloc[0]), class_name,
        ("uncalibrated",) if uncalibrated else (), len(rows),
    )  # fmt: skip


def _rates(curve: Curve, metric: str, source: str, *, boundary: bool = True) -> list[Measurement]:
    """Give the rate of a curve over the whole series, then from frame to frame.

    `boundary` says that the interval of the values is that of the outline, not of the sampling.
    """
    unit = rate_unit(curve.unit, timed=curve.timed)
    row = partial(Measurement, metric, unit=unit, class_name=curve.class_name)
    slope, low, high = robust_slope(curve.clock, curve.values)
    left_out = curve.n_frames - len(curve.frames)
    method = f"Theil-Sen slope of {source}" + (f", {left_out} frame(s) left out" if left_out else "")
    flags = (*curve.flags, *(("single-frame",) if math.isnan(slope) else ()))
    rows = [row(value=slope, low=low, high=high, n=len(curve.frames), method=method, flags=flags)]
    seconds = curve.seconds
    for i in range(1, len(curve.frames)):
        step = curve.clock[i] - curve.clock[i - 1]
        if step <= 0:  # two frames at the same time have no rate
            continue
        change = float(curve.values[i] - curve.values[i - 1])
        before = (change - (curve.highs[i - 1] - curve.values[i - 1]), change + curve.values[i - 1] - curve.lows[i - 1])
        after = (change - (curve.values[i] - curve.lows[i]), change + curve.highs[i] - curve.values[i])
        low, high = combine_intervals(change, before, after)
        unsure = boundary and math.isfinite(low) and low <= 0 <= high and change != 0
        rows.append(
            row(
                value=change / step, low=low / step, high=high / step, frame=int(curve.frames[i]),
                time_s=float(seconds[i]) if curve.timed else None, n=2, method=f"difference of {source}",
                flags=(*curve.flags, *(("few-pixels",) if unsure else ())),
            )
        )  # fmt: skip
    return rows


def _is_metal(class_name: str) -> bool:
    names: Sequence[str] = class_name.split("+")
    return all(name in _METAL for name in names)


def _as_current(row: Measurement, density: partial[float]) -> Measurement:
    """Turn a velocity into a current density; frame, interval and flags stay."""
    return Measurement(
        "local_current_density", density(row.value), "mA/cm2", density(row.low), density(row.high), row.class_name,
        row.frame, row.time_s, n=row.n, method=f"Faraday's law on radial_velocity ({row.method})", flags=row.flags,
    )  # fmt: skip
