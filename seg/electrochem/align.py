"""The cycler's table on the clock of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from seg.electrochem.table import COVARIATES
from seg.errors import DataError


def align_to_frames(
    cycler: pd.DataFrame,
    frame_times_s: Sequence[float],
    *,
    offset_s: float = 0.0,
    drift_s_per_h: float = 0.0,
    electrode_area_cm2: float | None = None,
) -> pd.DataFrame:
    """Voltage, current, capacity and half-cycle at each frame.

    Parameters
    ----------
    cycler : DataFrame
        As from `seg.electrochem.read_cycler`.
    frame_times_s : sequence of float
        Time of each frame on the clock of the images, s.
    offset_s : float
        What the image clock shows at the cycler's zero.
    drift_s_per_h : float
        How much the image clock gains on the cycler's: frame time = cycler time (1 + drift / 3600) + `offset_s`.
    electrode_area_cm2 : float or None
        On which the current flows.

    Returns
    -------
    DataFrame
        One row per frame: ``frame``, ``time_s`` (image clock), ``voltage_V``, ``current_mA``, ``capacity_mAh``,
        ``temperature_C`` and ``pressure_MPa`` where the cycler has them, ``cycle``, ``half_cycle``; with an area
        ``current_density_mA_per_cm2`` and ``areal_capacity_mAh_per_cm2``.
        Values are interpolated linearly between records; cycle and half-cycle are those of the last record at or
        before the frame. Frames before the first or after the last record are NaN (``<NA>`` and ``""`` for the
        labels): nothing is extrapolated.
    """
    if not math.isfinite(offset_s):
        raise DataError(f"The clock offset is {offset_s!r}; give a finite number of seconds.")
    if not (math.isfinite(drift_s_per_h) and abs(drift_s_per_h) < 360):
        raise DataError(f"The clock drift is {drift_s_per_h!r} s per hour; expected less than a tenth of the time.")
    if electrode_area_cm2 is not None and not (math.isfinite(electrode_area_cm2) and electrode_area_cm2 > 0):
        raise DataError(f"The electrode area is {electrode_area_cm2!r} cm2; expected a positive number.")
    if len(cycler) == 0:
        raise DataError("The cycler table is empty.")
    records_s = cycler["time_s"].to_numpy(float)
    if not np.isfinite(records_s).all() or (np.diff(records_s) < 0).any():
        raise DataError(
            "The cycler times are not finite and non-decreasing; sort the records, drop those without time."
        )
    frames_s = np.asarray(frame_times_s, float)
    wanted = (frames_s - offset_s) / (1 + drift_s_per_h / 3600)
    inside = np.isfinite(wanted) & (wanted >= records_s[0]) & (wanted <= records_s[-1])
    last = np.searchsorted(records_s, np.where(inside, wanted, records_s[0]), side="right") - 1

    table = pd.DataFrame({"frame": np.arange(len(frames_s)), "time_s": frames_s})
    given = [column for column in COVARIATES.values() if column in cycler]
    for column in ("voltage_V", "current_mA", "capacity_mAh", *given):
        table[column] = np.where(inside, _interpolate(wanted, records_s, cycler[column].to_numpy(float)), np.nan)
    table["cycle"] = cycler["cycle"].astype("Int64").iloc[last].reset_index(drop=True).where(inside, pd.NA)
    table["half_cycle"] = np.where(inside, cycler["half_cycle"].to_numpy(object)[last], "")
    if electrode_area_cm2 is not None:
        table["current_density_mA_per_cm2"] = table["current_mA"] / electrode_area_cm2
        table["areal_capacity_mAh_per_cm2"] = table["capacity_mAh"] / electrode_area_cm2
    return table


def _interpolate(at: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation that stays NaN beyond the finite values."""
    good = np.isfinite(values)
    if not good.any():
        return np.full(len(at), np.nan)
    return np.interp(at, times[good], values[good], left=np.nan, right=np.nan)
