"""When nuclei were born: they are seen once they pass the detection limit, and dated back by how they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from seg.metrics.birth_series import BirthSeries
from seg.metrics.history import HalfCycle

# What may grow in proportion to time, as a power of the diameter.
_POWERS = {"diameter": 1, "area": 2, "volume": 3}
# A track is extrapolated over as many of its first frames; shorter ones than the second take the median of the others.
_FIRST_FRAMES, _LEAST_FRAMES = 5, 4
# Births stay as seen where the best law leaves more than this share of the growth, or too few tracks tell.
_MOST_LEFT, _LEAST_TRACKS = 0.05, 5


def dated_births(series: BirthSeries, tracks: pd.DataFrame, platings: Sequence[HalfCycle] = ()) -> BirthSeries:
    """Births at the time at which their growth began, in place of the frame in which they are first seen.

    Parameters
    ----------
    series : BirthSeries
    tracks : DataFrame
        As in `seg.tracking.Tracking`.
    platings : sequence of HalfCycle
        No birth is dated back beyond the half-cycle it is seen in.

    Returns
    -------
    BirthSeries
        With the flag ``extrapolated`` where births were dated back, else ``low-confidence``; `dated` says how, or why
        not.

    Notes
    -----
    The diameter, its square or its cube grows in proportion to time: the power is the one that leaves the least of the
    growth over the first five frames of the tracks, the same for all of them. The straight line through these frames
    says when the size was zero. Nothing is dated to before the first frame.
    """
    born = tracks[tracks["origin"] == "birth"]
    name = next(column for column in tracks.columns if column.startswith("equivalent_diameter_"))
    clock = pd.Series(series.clock, index=series.frames)
    ages, seen = {power: [] for power in _POWERS.values()}, []
    left = {power: [] for power in _POWERS.values()}
    for _, track in born.groupby("track_id"):
        times = clock.reindex(track["frame"].iloc[:_FIRST_FRAMES]).to_numpy(float)
        diameters = track[name].to_numpy(float)[:_FIRST_FRAMES]
        seen.append(int(track["frame"].iloc[0]))
        for power in _POWERS.values():
            age = np.nan
            if len(times) >= _LEAST_FRAMES:
                size = (diameters / diameters[-1]) ** power
                slope, start = np.polyfit(times - times[0], size, 1)
                residual = size - slope * (times - times[0]) - start
                left[power].append(float(np.sum(residual**2) / max(np.sum((size - size.mean()) ** 2), 1e-300)))
                age = start / slope if slope > 0 else np.nan
            ages[power].append(age)
    best = min(_POWERS, key=lambda law: float(np.mean(left[_POWERS[law]] or [np.inf])))
    of_best, remains = np.array(ages[_POWERS[best]], float), left[_POWERS[best]]
    if np.count_nonzero(np.isfinite(of_best)) < _LEAST_TRACKS or float(np.mean(remains)) > _MOST_LEFT:
        # Asked for because nuclei are seen late: what follows from the late births is to be doubted.
        flags = tuple(dict.fromkeys((*series.flags, "low-confidence")))
        return replace(series, flags=flags, dated="births as first seen: too few of them grow by one law")
    usual = float(np.nanmedian(of_best))
    index = np.searchsorted(series.frames, seen)
    times = series.clock[index] - np.maximum(np.where(np.isfinite(of_best), of_best, usual), 0)
    earliest = np.ones(len(series.frames), int)
    for cycle in platings:
        inside = np.isin(series.frames, cycle.frames)
        earliest[inside] = max(int(np.argmax(inside)), 1)
    # In the first frame that is not before it, but not later than it was seen.
    at = np.minimum(np.searchsorted(series.clock, times * (1 - 1e-12)), index)
    births = np.maximum(series.births - np.bincount(index, minlength=len(series.births)), 0)
    births += np.bincount(np.maximum(at, earliest[index]), minlength=len(births))
    unit = "s" if series.timed else "frames"
    how = f"births dated back by growth ({best} in proportion to time), by {usual:.3g} {unit} in the median"
    flags = tuple(dict.fromkeys((*series.flags, "extrapolated")))
    return replace(series, births=births, flags=flags, dated=how, dated_back=True)
