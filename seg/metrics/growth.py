"""How fast the covered area, the volume and the radius of the objects change, and the current that this takes.

The rates come from the rows of every frame (groups `cover` and `size`, `seg.metrics.front`) and from tracks, so a
series is never in memory. Where the half-cycle of each frame is known, plating and stripping have rates of their own:
one slope over both would mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.metrics.front import CHARGE_NUMBER, LITHIUM_MOLAR_VOLUME_CM3, as_current, is_metal, local_current_density
from seg.metrics.history import HalfCycle, History
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement, rate_unit
from seg.metrics.track_growth import track_rates
from seg.uncertainty import bootstrap_interval, combine_intervals

__all__ = ["local_current_density", "measure_series", "measure_whole", "robust_slope"]

_HALF_CYCLES = ("plating", "stripping")


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


def measure_series(
    table: pd.DataFrame, *, molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3, charge_number: int = CHARGE_NUMBER
) -> list[Measurement]:
    """Rates over a series and from frame to frame, from the rows of its frames alone.

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
        ``area_rate``, ``volume_rate``, ``radial_velocity``, ``front_velocity`` and, for calibrated velocities of
        metal, ``local_current_density`` (from the velocity of the front, else that of the radius). Each is given over
        the whole series (robust slope, no frame) and for every pair of consecutive frames (at the later one). A
        single frame gives NaN with the flag ``single-frame``. Without frame times a rate is per frame and flagged
        ``uncalibrated``.

    Notes
    -----
    Frames without a value, and frames that are mostly artefact, are left out. A change from one frame to the next
    that is smaller than its uncertainty at the boundary is flagged ``few-pixels``. `radial_velocity` follows the mean
    object: new objects pull it down, and it is no velocity of any single one; tracks give that (`measure_whole`).
    """
    return _measure(table, [], None, molar_volume_cm3, charge_number)


def measure_whole(
    history: History, *, molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3, charge_number: int = CHARGE_NUMBER,
    min_track_frames: int = 3,
) -> list[Measurement]:  # fmt: skip
    """Rates over a series, its half-cycles and its tracks, and from frame to frame.

    Parameters
    ----------
    history : History
        As for `measure_series`, with tracks and half-cycles where they are known.
    molar_volume_cm3 : float
        Of the metal, per mol.
    charge_number : int
        Electrons per atom.
    min_track_frames : int
        Shorter tracks have no rate.

    Returns
    -------
    list of Measurement
        The rows of `measure_series`. With half-cycles a rate of the series is given for plating and for stripping
        (``side``), the median over the half-cycles of that kind, and for each of them at its last frame. With tracks
        ``radial_velocity`` is the median over the tracks, and each track has its ``area_rate`` (``volume_rate``) and
        ``radial_velocity`` (no frame, ``object_id`` is the track). A track ends at an event, so no rate runs across.
    """
    tracks = None if history.tracking is None else track_rates(history, min_frames=min_track_frames)
    half_cycles = [cycle for cycle in history.half_cycles() if cycle.kind in _HALF_CYCLES]
    return _measure(history.table, half_cycles, tracks, molar_volume_cm3, charge_number)


def _measure(
    table: pd.DataFrame, half_cycles: Sequence[HalfCycle], tracks: list[Measurement] | None, molar_volume_cm3: float,
    charge_number: int,
) -> list[Measurement]:  # fmt: skip
    curves = {name: _curves(table, name) for name in ("covered_area", "volume", "mean_equivalent_diameter")}
    if not curves["covered_area"] and not curves["volume"]:
        raise UsageError("Metric group 'growth' needs the rows of 'cover'; add `cover: {}` to metrics.")
    rows: list[Measurement] = []
    for curve in curves["covered_area"]:
        rows += _rates(curve, "area_rate", "covered_area", half_cycles)
    for curve in curves["volume"]:
        rows += _rates(curve, "volume_rate", "volume", half_cycles)
    if tracks is None:
        for diameter in curves["mean_equivalent_diameter"]:
            source = "half the mean equivalent diameter"
            rows += _rates(diameter.scaled(0.5), "radial_velocity", source, half_cycles, boundary=False)
    else:
        rows += tracks
    fronts = [row for curve in _curves(table, "front_velocity") for row in _mean_velocity(curve, half_cycles)]
    rows += fronts
    # The front is the surface that takes up the metal; the radius of the objects stands in for it.
    velocities = fronts or [row for row in rows if row.metric == "radial_velocity" and row.object_id is None]
    rows += [
        as_current(row, molar_volume_cm3=molar_volume_cm3, charge_number=charge_number)
        for row in velocities
        if row.unit == "um/s" and is_metal(row.class_name)
    ]
    return rows


def _curves(table: pd.DataFrame, metric: str) -> list[Curve]:
    """One curve per class of a metric that is given per frame."""
    rows = table[(table["metric"] == metric) & table["frame"].notna() & table["object_id"].isna()]
    rows = rows[_text(rows["side"]) == ""]
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


def _rates(
    curve: Curve, metric: str, source: str, half_cycles: Sequence[HalfCycle], *, boundary: bool = True
) -> list[Measurement]:
    """Give the rate of a curve over the whole series or its half-cycles, then from frame to frame.

    `boundary` says that the interval of the values is that of the outline, not of the sampling.
    """
    unit = rate_unit(curve.unit, timed=curve.timed)
    row = partial(Measurement, metric, unit=unit, class_name=curve.class_name)
    rows = _slopes(curve, source, half_cycles, row, boundary=boundary)
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


def _slopes(
    curve: Curve, source: str, half_cycles: Sequence[HalfCycle], row: partial[Measurement], *, boundary: bool
) -> list[Measurement]:
    """Robust slope of a curve: over all frames, or for each kind of half-cycle and each half-cycle."""
    left_out = curve.n_frames - len(curve.frames)
    method = f"Theil-Sen slope of {source}" + (f", {left_out} frame(s) left out" if left_out else "")
    rows = []
    for kind in _HALF_CYCLES:
        found = []
        for cycle in half_cycles:
            inside = np.isin(curve.frames, cycle.frames)
            if cycle.kind != kind or inside.sum() < 2:
                continue
            slope, low, high = _slope(curve, inside, boundary=boundary)
            if math.isnan(slope):
                continue
            last = np.flatnonzero(inside)[-1]
            of = f"{kind} of cycle {cycle.cycle}, frames {cycle.frames[0]} to {cycle.frames[-1]}"
            found.append(
                row(
                    value=slope, low=low, high=high, n=int(inside.sum()), side=kind, frame=int(curve.frames[last]),
                    time_s=float(curve.seconds[last]) if curve.timed else None, method=f"{method}: {of}",
                    flags=curve.flags,
                )
            )  # fmt: skip
        if len(found) == 1:
            rows.append(replace(found[0], frame=None, time_s=None))
        elif found:
            rows += [_median(found, f"median over {len(found)} half-cycles of {kind}: {method}"), *found]
    if rows:
        return rows
    slope, low, high = _slope(curve, np.ones(len(curve.frames), bool), boundary=boundary)
    flags = (*curve.flags, *(("single-frame",) if math.isnan(slope) else ()))
    return [row(value=slope, low=low, high=high, n=len(curve.frames), method=method, flags=flags)]


def _slope(curve: Curve, inside: np.ndarray, *, boundary: bool) -> tuple[float, float, float]:
    """Robust slope of some frames; its interval joins the scatter and, at a `boundary`, outlines that are off.

    An outline that is off by the same distance in all frames makes a deposit that grows around grow faster: the slopes
    of the bounds of the values say by how much.
    """
    slope, low, high = robust_slope(curve.clock[inside], curve.values[inside])
    if not boundary or math.isnan(low):
        return slope, low, high
    ends = [robust_slope(curve.clock[inside], bound[inside])[0] for bound in (curve.lows, curve.highs)]
    if not np.isfinite(ends).all():
        return slope, low, high
    return slope, *combine_intervals(slope, (low, high), (min(*ends, slope), max(*ends, slope)))


def _median(rows: Sequence[Measurement], method: str) -> Measurement:
    """Median of several rows with its bootstrap interval."""
    values = np.array([row.value for row in rows])
    low, high = bootstrap_interval(values, lambda v: np.median(v, axis=1), rng=np.random.default_rng(0))
    return replace(
        rows[0], value=float(np.median(values)), low=low, high=high, n=len(rows), frame=None, time_s=None,
        method=method,
    )  # fmt: skip


def _mean_velocity(curve: Curve, half_cycles: Sequence[HalfCycle]) -> list[Measurement]:
    """Mean velocity of the front over time: of the series, or of each kind of half-cycle.

    The interval is that of a mean over the intervals between frames; errors of the outline cancel from one to the
    next, which makes it wide rather than narrow.
    """
    kinds: list[tuple[str, np.ndarray]] = []
    for kind in _HALF_CYCLES:
        # The interval before the first frame of a half-cycle belongs partly to the one before.
        frames = [cycle.frames[1:] for cycle in half_cycles if cycle.kind == kind]
        if frames:
            kinds.append((kind, np.isin(curve.frames, np.concatenate(frames))))
    rows = []
    for side, inside in kinds or [("", np.ones(len(curve.frames), bool))]:
        values = curve.values[inside]
        low, high = bootstrap_interval(values, rng=np.random.default_rng(0))
        rows.append(
            Measurement(
                "front_velocity", float(values.mean()) if len(values) else math.nan, curve.unit, low, high,
                curve.class_name, side=side, n=len(values), method="mean over the intervals between frames",
                flags=(*curve.flags, *(() if len(values) else ("regime-not-reached",))),
            )
        )  # fmt: skip
    return rows
