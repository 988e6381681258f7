"""When nuclei were born: they are seen once they pass the detection limit, and dated back by how they grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
# A law is excluded where it leaves more than the best one by so many standard errors of the mean over the tracks.
_SURE = 3.0
# Of grey values at a site: steps of the grid of dates, frames that a fit of three numbers takes, the largest share of
# the change that it may leave at one site, the exponents of growth that are tried, and samples of the bootstrap.
_STEPS, _LEAST_POINTS, _MOST_LEFT_OF_ONE = 200, 5, 0.3
_EXPONENTS, _RESAMPLED = np.linspace(0.4, 3.2, 29), 200


def dated_births(
    series: BirthSeries, tracks: pd.DataFrame, platings: Sequence[HalfCycle] = (),
    signals: pd.DataFrame | None = None, *, pixel: float = 0.0,
) -> BirthSeries:  # fmt: skip
    """Births at the time at which their growth began, in place of the frame in which they are first seen.

    Parameters
    ----------
    series : BirthSeries
    tracks : DataFrame
        As in `seg.tracking.Tracking`.
    platings : sequence of HalfCycle
        No birth is dated back beyond the half-cycle it is seen in.
    signals : DataFrame or None
        Grey values at the sites (`seg.metrics.site_signals`), where there are images.
    pixel : float
        Side of a pixel, in the unit of the diameters: outlines may all lie half of it too far in or out.

    Returns
    -------
    BirthSeries
        With the flag ``extrapolated`` where births were dated back, else ``low-confidence``; `dated` says how, or why
        not, and `early_s`, `late_s` and `scatter_s` how well.

    Notes
    -----
    The diameter, its square or its cube grows in proportion to time: the power is the one that leaves the least of the
    growth, the same for all tracks. With `signals` the sum of the grey values at a site is constant until birth and
    then follows the projected area of the nucleus (its volume, in 3-D): the date is the one with the least squares.
    Without, or where no such law fits, the straight line through the sizes of the first five frames says when the size
    was zero; masks that leave two powers open are off by themselves then, and births stay as seen, later than they were
    by up to the longest of the median ages. Nothing is dated to before the first frame.
    """
    born = tracks[tracks["origin"] == "birth"]
    first = born.groupby("track_id")["frame"].min()
    seen = first.to_numpy(int)
    index = np.searchsorted(series.frames, seen)
    ndim = 3 if any(name.startswith("z_") for name in tracks.columns) else 2
    dates = _by_signals(series, first, signals, ndim) if signals is not None else None
    if dates is None:
        dates = _by_sizes(series, born, index, pixel)
    if not dates.found:
        # Asked for because nuclei are seen late: what follows from the late births is to be doubted.
        flags = tuple(dict.fromkeys((*series.flags, "low-confidence")))
        return replace(series, flags=flags, dated=f"births as first seen: {dates.how}", late_s=dates.late_s)
    usual = float(np.nanmedian(dates.ages))
    times = series.clock[index] - np.maximum(np.where(np.isfinite(dates.ages), dates.ages, usual), 0)
    earliest = np.ones(len(series.frames), int)
    for cycle in platings:
        inside = np.isin(series.frames, cycle.frames)
        earliest[inside] = max(int(np.argmax(inside)), 1)
    # In the first frame that is not before it, but not later than it was seen.
    at = np.minimum(np.searchsorted(series.clock, times * (1 - 1e-12)), index)
    births = np.maximum(series.births - np.bincount(index, minlength=len(series.births)), 0)
    births += np.bincount(np.maximum(at, earliest[index]), minlength=len(births))
    unit = "s" if series.timed else "frames"
    how = f"births dated back by {dates.how}, by {usual:.3g} {unit} in the median"
    flags = tuple(dict.fromkeys((*series.flags, "extrapolated")))
    return replace(
        series, births=births, flags=flags, dated=how, dated_back=True, early_s=dates.early_s, late_s=dates.late_s,
        scatter_s=dates.scatter_s,
    )  # fmt: skip


@dataclass(frozen=True)
class _Dates:
    """Ages at which nuclei are first seen, by track, NaN where it does not say; the rest as in `BirthSeries`."""

    found: bool
    how: str
    ages: np.ndarray
    early_s: float = 0.0
    late_s: float = 0.0
    scatter_s: float = 0.0


def _by_sizes(series: BirthSeries, born: pd.DataFrame, index: np.ndarray, pixel: float) -> _Dates:
    """Ages by the straight lines through the first sizes."""
    name = next(column for column in born.columns if column.startswith("equivalent_diameter_"))
    clock = pd.Series(series.clock, index=series.frames)
    ages = np.full((3, len(_POWERS), len(index)), np.nan)  # outlines as they are, half a pixel further in, and out
    left = np.full(ages.shape[1:], np.nan)
    for column, (_, track) in enumerate(born.groupby("track_id")):
        times = clock.reindex(track["frame"].iloc[:_FIRST_FRAMES]).to_numpy(float)
        diameters = track[name].to_numpy(float)[:_FIRST_FRAMES]
        if len(times) < _LEAST_FRAMES:
            continue
        for row, power in enumerate(_POWERS.values()):
            for side, offset in enumerate((0.0, -pixel, pixel)):
                age, remains = _line(times, np.maximum(diameters + offset, diameters / 10), power)
                ages[side, row, column] = age
                left[row, column] = remains if side == 0 else left[row, column]
    best, rivals = _law(left)
    told = [float(np.nanmedian(of)) for of in ages[0] if np.isfinite(of).any()]
    late_s = max(max(told, default=0.0), 0.0)
    if np.count_nonzero(np.isfinite(ages[0, best])) < _LEAST_TRACKS or np.nanmean(left[best]) > _MOST_LEFT:
        return _Dates(False, "too few of them grow by one law", ages[0, best], late_s=late_s)
    names = list(_POWERS)
    if rivals:
        both = " and ".join(names[law] for law in sorted((best, *rivals)))
        return _Dates(False, f"{both} grow in proportion to time alike", ages[0, best], late_s=late_s)
    inner, outer = (float(np.nanmedian(of[best] - ages[0, best])) for of in ages[1:])
    return _Dates(
        True, f"growth ({names[best]} in proportion to time)", ages[0, best], early_s=max(-inner, 0.0),
        late_s=max(outer, 0.0),
    )  # fmt: skip


def _line(times: np.ndarray, diameters: np.ndarray, power: int) -> tuple[float, float]:
    """Time from size zero to the first frame by the straight line through the sizes, and the share that it leaves."""
    size = (diameters / diameters[-1]) ** power
    slope, start = np.polyfit(times - times[0], size, 1)
    residual = size - slope * (times - times[0]) - start
    remains = float(np.sum(residual**2) / max(np.sum((size - size.mean()) ** 2), 1e-300))
    return (start / slope if slope > 0 else np.nan), remains


def _by_signals(series: BirthSeries, first: pd.Series, signals: pd.DataFrame, ndim: int) -> _Dates | None:
    """Ages by the grey values of the sites, which change by area (volume, in 3-D); None where they do not tell."""
    clock = pd.Series(series.clock, index=series.frames)
    sites = {
        track: (clock.reindex(site["frame"]).to_numpy(float), site["signal"].to_numpy(float), clock[first[track]])
        for track, site in signals.groupby("track_id") if track in first.index and len(site) >= _LEAST_POINTS
    }  # fmt: skip
    if len(sites) < _LEAST_TRACKS:
        return None
    left = np.array([[_kink(*site, power).left for power in _EXPONENTS] for site in sites.values()])
    low, high = _exponents(left)
    law = min(_POWERS, key=lambda name: np.interp(ndim / _POWERS[name], _EXPONENTS, left.mean(axis=0)))
    at = {power: [_kink(*site, power) for site in sites.values()] for power in (ndim / _POWERS[law], low, high)}
    of_law, *of_rivals = at.values()
    # Nuclei are all darker than what was there, or all brighter. Who grows already when its site is first looked at
    # was born before, unless the recording begins there.
    sign = np.sign(np.median([one.slope for one in of_law]))
    good = np.array([
        np.sign(one.slope) == sign and one.left < _MOST_LEFT_OF_ONE and (one.inside or site[0][0] <= series.clock[0])
        for one, site in zip(of_law, sites.values(), strict=True)
    ])  # fmt: skip
    ages, remains, errors = (
        np.array([getattr(one, name) for one in of_law])[good] for name in ("age", "left", "error")
    )
    if len(ages) < max(_LEAST_TRACKS, len(first) / 2) or remains.mean() > _MOST_LEFT:
        return None
    scatter = float(np.median(errors))
    older = [float((np.array([one.age for one in rival])[good] - ages).mean()) for rival in of_rivals]
    # What single dates scatter by leaves their mean open by so much.
    common = 2 * scatter / np.sqrt(len(ages))
    told = pd.Series(ages, index=np.array(list(sites))[good]).reindex(first.index).to_numpy(float)
    return _Dates(
        True, f"the grey values at their sites ({law} in proportion to time)", told,
        early_s=common - min([0.0, *older]), late_s=common + max([0.0, *older]), scatter_s=scatter,
    )  # fmt: skip


def _exponents(left: np.ndarray) -> tuple[float, float]:
    """95 % interval of the exponent that leaves the least of the change over all sites (bootstrap over sites).

    ``left`` has shape (sites, exponents).
    """
    n = len(left)
    curves = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLED) @ left
    least = np.clip(curves.argmin(axis=1), 1, len(_EXPONENTS) - 2)
    row = np.arange(len(curves))
    below, at, above = (curves[row, least + step] for step in (-1, 0, 1))
    bend = np.maximum(below - 2 * at + above, 1e-300)  # a parabola through the least and its neighbours
    found = _EXPONENTS[least] + np.clip(0.5 * (below - above) / bend, -1, 1) * (_EXPONENTS[1] - _EXPONENTS[0])
    low, high = np.percentile(found, (2.5, 97.5))
    return float(low), float(high)


def _law(left: np.ndarray) -> tuple[int, list[int]]:
    """The power that leaves the least, and those that are not excluded; `left` has shape (powers, tracks)."""
    told = left[:, np.isfinite(left).all(axis=0)]
    if told.shape[1] < 2:
        return 0, []
    best = int(np.argmin(told.mean(axis=1)))
    more = np.delete(told - told[best], best, axis=0)
    sure = more.mean(axis=1) > _SURE * more.std(axis=1, ddof=1) / np.sqrt(told.shape[1])
    return best, np.delete(np.arange(len(left)), best)[~sure].tolist()


@dataclass(frozen=True)
class _Kink:
    """Least squares of a site: age when seen, slope, share of the change that is left, standard error of the age."""

    age: float
    slope: float
    left: float
    error: float
    inside: bool


def _kink(times: np.ndarray, values: np.ndarray, seen: float, exponent: float) -> _Kink:
    """Least squares of ``base + slope (t - born)^exponent`` after `born`, which lies before `seen`."""
    start = np.linspace(times[0], seen, _STEPS, endpoint=False)
    shape = np.maximum(times - start[:, None], 0) ** exponent
    shape -= shape.mean(axis=1, keepdims=True)
    change = values - values.mean()
    total = max(float(change @ change), 1e-300)
    slopes = shape @ change / np.maximum((shape**2).sum(axis=1), 1e-300)
    rest = total - slopes * (shape @ change)
    best = int(np.argmin(rest))
    near = np.flatnonzero(rest <= rest[best] * (1 + 4 / max(len(times) - 3, 1)))
    step = float(start[1] - start[0])
    return _Kink(
        seen - float(start[best]), float(slopes[best]), float(rest[best] / total), step * (near[-1] - near[0] + 1) / 4,
        best > 0,
    )  # fmt: skip
