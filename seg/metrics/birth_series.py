"""Births over the frames of a series, and on the clock that starts at onset."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.metrics.nucleation_laws import Births
from seg.metrics.table import UM2_PER_CM2

_BURST_SHARE = 0.05
# A birth shows that there was some bare substrate, whatever the mask says.
LEAST_BARE = 1e-6


@dataclass(frozen=True)
class BirthSeries:
    """Births over the frames of a series.

    Parameters
    ----------
    frames : ndarray of int, shape (T,)
    clock : ndarray of float, shape (T,)
        Seconds where every frame has a time, else frame numbers.
    timed : bool
        Which of the two.
    births : ndarray of int, shape (T,)
        New objects of each frame; of the first frame those already there.
    bare : ndarray of float, shape (T,)
        Share of the valid area that is free of deposit.
    area, birth_area : ndarray of float, shape (T,)
        Valid area, and its part in which a newborn object is seen whole.
    class_name : str
    flags : tuple of str
        Of all rows.
    calibrated : bool
    dated : str
        How births were dated, where that is not by when they are first seen.
    dated_back : bool
        Whether they were dated back to when their growth began.
    early_s, late_s : float
        By how much all of them together may be dated too early, too late.
    scatter_s : float
        Standard error of the date of a single one.
    """

    frames: np.ndarray
    clock: np.ndarray
    timed: bool
    births: np.ndarray
    bare: np.ndarray
    area: np.ndarray
    birth_area: np.ndarray
    class_name: str
    flags: tuple[str, ...]
    calibrated: bool
    dated: str = ""
    dated_back: bool = False
    early_s: float = 0.0
    late_s: float = 0.0
    scatter_s: float = 0.0

    @property
    def per_area(self) -> str:
        """Unit of a density."""
        return "1/cm2" if self.calibrated else "1/px2"

    @property
    def factor(self) -> float:
        """From 1/um2 (1/px2) to the unit of a density."""
        return UM2_PER_CM2 if self.calibrated else 1.0

    def between(self, first: int, last: int) -> BirthSeries:
        """The frames from one position in the series to another, both included."""
        part = {
            name: getattr(self, name)[first : last + 1].copy()
            for name in ("frames", "clock", "births", "bare", "area", "birth_area")
        }
        return replace(self, **part)

    def time_s(self, index: int) -> float | None:
        """Time of a frame, where known."""
        return float(self.clock[index]) if self.timed else None


def birth_series(table: pd.DataFrame) -> BirthSeries:
    """Collect the rows of the frames; UsageError names the group that is missing."""
    of_frames = table[table["frame"].notna() & table["object_id"].isna()]

    def column(metric: str, class_name: str | None = None) -> pd.DataFrame:
        rows = of_frames[of_frames["metric"] == metric]
        if class_name is not None and (rows["class"] == class_name).any():
            rows = rows[rows["class"] == class_name]
        return rows.drop_duplicates("frame").set_index("frame").sort_index()

    counts, areas = column("object_count"), column("valid_area")
    if counts.empty or areas.empty:
        raise UsageError("Metric group 'nucleation' needs the rows of 'counting'; add `counting: {}` to metrics.")
    births = column("birth_count")
    if births.empty and len(counts) > 1:
        raise UsageError("Metric group 'nucleation' needs tracked objects; add `events: {}` to metrics.")
    class_name = str(counts["class"].iloc[0] or "")
    frames = counts.index.to_numpy(int)
    new = births["value"].reindex(frames).fillna(0).to_numpy(float, copy=True)
    new[0] = np.nan_to_num(counts["value"].iloc[0])
    covered = column("covered_fraction", class_name)
    bare = 1 - covered["value"].reindex(frames).interpolate().bfill().fillna(0).to_numpy(float)
    area = areas["value"].reindex(frames).to_numpy(float)
    limit = column("detection_limit_diameter")
    diameter = limit["value"].reindex(frames).ffill().bfill().to_numpy(float) if len(limit) else np.zeros(len(frames))
    times_s = counts["time_s"].to_numpy(float)
    timed = bool(np.isfinite(times_s).all() and (np.diff(times_s) > 0).all())
    calibrated = str(areas["unit"].iloc[0]) == "um2"
    return BirthSeries(
        frames, times_s if timed else frames.astype(float), timed, np.rint(new).astype(int),
        np.clip(bare, LEAST_BARE, 1), area,
        np.maximum(np.sqrt(area) - diameter, 0) ** 2, class_name,
        () if calibrated and timed else ("uncalibrated",), calibrated,
    )  # fmt: skip


@dataclass(frozen=True)
class SinceOnset:
    """Births per interval since onset, how that was found, and births that only set the clock.

    ``blurred``: first seen too late, by too much, to tell births at once from a fast rate.
    """

    births: Births
    how: str
    set_aside: int = 0
    onset: float = 0.0
    blurred: bool = False


def since_onset(series: BirthSeries, onset_s: float | None, burst_s: float | None) -> SinceOnset | None:
    """Births on the clock that starts at onset; None for fewer than three."""
    clock, counts, set_aside = series.clock, series.births, 0
    unit = " s" if series.timed else " frames"
    if onset_s is not None:
        if not series.timed:
            raise UsageError("nucleation: onset_s needs frame times; give the frame interval.")
        after = np.flatnonzero(clock > onset_s)
        if not len(after):
            raise UsageError(f"nucleation: onset_s = {onset_s:g} is not before the last frame ({clock[-1]:g} s).")
        first, onset, how = int(after[0]), float(onset_s), f"onset given, {onset_s:g} s"
        new = counts[first:].copy()
        new[0] += counts[:first].sum()
    elif counts[0]:
        first, onset = 0, float(clock[0] - (clock[1] - clock[0]))
        new, how = counts.copy(), "onset before the first frame, taken one interval earlier"
    else:
        born = np.flatnonzero(counts)
        if not len(born):
            return None
        first, onset, set_aside = int(born[0]), float(clock[born[0] - 1]), 1
        new = counts[first:].copy()
        new[0] -= set_aside
        how = f"onset with the first birth, {onset:.4g}{unit}"
    if new.sum() < 3:  # AICc of a single parameter takes three
        return None
    edges = np.concatenate([[0.0], clock[first:] - onset])
    before = series.bare[first - 1 : -1] if first else np.concatenate([[1.0], series.bare[:-1]])
    burst = _BURST_SHARE * edges[-1] if burst_s is None else burst_s
    # Onset lies anywhere between two frames; where it is given, nuclei are seen later, once they pass the detection
    # limit, by a time that is not known and may well be a frame, unless they were dated back.
    doubt_s = float(edges[1])
    # Seen late by different times, births at once look like a rate.
    blurred = burst_s is None and not series.dated_back and series.late_s > max(burst, doubt_s)
    if onset_s is not None:
        # Dates that are too late by some time are those of an onset that much later; too early ones, of an earlier one.
        edges[1:] += series.early_s
        doubt_s = series.early_s + series.late_s if series.dated_back else max(doubt_s, series.late_s)
    burst = max(burst, 2 * series.scatter_s, doubt_s if onset_s is not None else 0.0, series.late_s)
    births = Births(edges, new, (before + series.bare[first:]) / 2, doubt_s).from_burst(burst)
    if series.scatter_s > 0:
        # Twice the standard error: dates of nuclei that soon meet a neighbour scatter by more than the others.
        over = (births.edges_s[1] - series.early_s - series.late_s) / (2 * series.scatter_s)
        births = replace(births, late_share=0.5 * math.erfc(max(over, 0.0) / math.sqrt(2)))
    return SinceOnset(births, f"{how}, at once means within {births.edges_s[1]:.4g}{unit}", set_aside, onset, blurred)
