"""How fast single objects grow: rates along tracks, which never run across a merge or a split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from seg.metrics.history import History
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement, rate_unit
from seg.objects import equivalent_diameter
from seg.uncertainty import bootstrap_interval

# Points of a track that vote on its slope; longer ones are averaged in blocks first.
_MAX_POINTS = 100
# What blurs an image before its outlines are drawn, standard deviation: at most that in 95 of 100 recordings (a
# resolution of three and a half pixels).
_BLUR_PX = 1.5
_ALL = ""


def track_rates(history: History, *, min_frames: int = 3) -> list[Measurement]:
    """Rates of every track, their median, and the mean radial velocity of each frame.

    Parameters
    ----------
    history : History
        With tracks and objects.
    min_frames : int
        Tracks (their part in one kind of half-cycle) with fewer frames have no rate.

    Returns
    -------
    list of Measurement
        ``radial_velocity`` of the series (median over tracks, bootstrap over tracks, and what blur does to outlines; of
        a single track its own) and
        of each frame (mean over the objects that were there before, Student's interval); ``area_rate`` or
        ``volume_rate`` and ``radial_velocity`` of each track, with ``object_id`` the number of the track. Where
        half-cycles are known, ``side`` is plating or stripping. Objects that the frame cuts are flagged
        ``touches-border`` and are in no median or mean.
    """
    scale = history.scale
    points = _points(history)
    times_s = points["time_s"].to_numpy(float)
    timed = bool(np.isfinite(times_s).all())
    ndim = len(scale.spacing)
    metric, size_unit = ("area_rate", "um2") if ndim == 2 else ("volume_rate", "um3")
    flags = scale.flags if timed else ("uncalibrated",)
    points["clock"] = times_s if timed else points["frame"].to_numpy(float)
    points["radius"] = equivalent_diameter(points["size"].to_numpy(float), ndim) / 2
    row = partial(Measurement, class_name="+".join(history.object_classes))
    size_unit, length_unit = (rate_unit(scale.unit(unit), timed=timed) for unit in (size_unit, "um"))

    of_tracks: list[Measurement] = []
    slopes: dict[str, list[tuple[float, float, float]]] = {}
    clocks, sizes, radii = (points[name].to_numpy(float) for name in ("clock", "size", "radius"))
    cuts = points["cut"].to_numpy(bool)
    for track, side, part in _parts(points, min_frames):
        cut = bool(cuts[part].any())
        rated = partial(
            row, n=part.stop - part.start, object_id=track, side=side, method=f"Theil-Sen slope along track {track}",
            flags=(*flags, *(("touches-border",) if cut else ())),
        )  # fmt: skip
        slope, low, high = robust_slope(clocks[part], sizes[part], max_points=_MAX_POINTS)
        of_tracks.append(rated(metric, slope, size_unit, low=low, high=high))
        slope, low, high = robust_slope(clocks[part], radii[part], max_points=_MAX_POINTS)
        blur = blur_error(clocks[part], radii[part], scale.pixel ** (1 / ndim), ndim)
        low, high = _slower(slope, low, high, blur)
        of_tracks.append(rated("radial_velocity", slope, length_unit, low=low, high=high))
        if not cut and math.isfinite(slope):
            slopes.setdefault(side, []).append((slope, low, high, blur))
    whole = []
    for side, found in slopes.items():
        values, blurs = np.array(found)[:, 0], np.array(found)[:, 3]
        middle, blur = float(np.median(values)), float(np.median(blurs))  # one blur for all of them
        low, high = bootstrap_interval(values, lambda v: np.median(v, axis=1), rng=np.random.default_rng(0))
        low, high = _slower(middle, low, high, blur)
        if len(found) == 1:  # nothing to resample: what is known of the one
            low, high = found[0][1:3]
        method = f"median over {len(found)} tracks of the Theil-Sen slope of the equivalent radius"
        whole.append(
            row("radial_velocity", middle, length_unit, low=low, high=high, side=side, n=len(found),
                method=method, flags=flags)
        )  # fmt: skip
    if not whole:
        single = history.tracking is not None and history.tracking.n_frames < 2
        why = "single-frame" if single else "regime-not-reached"
        method = f"no track of {min_frames} frames that the frame does not cut"
        whole.append(row("radial_velocity", math.nan, length_unit, method=method, n=0, flags=(*flags, why)))
    steps = partial(row, "radial_velocity", unit=length_unit, flags=flags)
    return [*whole, *_frame_rows(points, steps, timed=timed), *of_tracks]


def _slower(slope: float, low: float, high: float, blur: float) -> tuple[float, float]:
    """The interval of a velocity with the end towards 0 moved by what blur may have added: it makes none slower."""
    return (low - blur, high) if slope > 0 else (low, high + blur)


def blur_error(clock: np.ndarray, radius: np.ndarray, pixel: float, ndim: int) -> float:
    """How much too fast the velocity of a radius may be because blur moves the outlines of small objects further in.

    Blurred by s and cut half-way, a disc of radius R shrinks by ``s**2 / 2 R`` (a ball by twice that), so that one that
    grows seems to grow faster.
    """
    inward = (ndim - 1) * (_BLUR_PX * pixel) ** 2 / 2 / np.maximum(radius[[0, -1]], _BLUR_PX * pixel)
    return float(abs(inward[0] - inward[1]) / (clock[-1] - clock[0])) if clock[-1] > clock[0] else 0.0


def _points(history: History) -> pd.DataFrame:
    """One row per track and frame: size, whether the frame cuts it, half-cycle."""
    assert history.tracking is not None
    size = next(name for name in history.objects.columns if name.startswith(("area_", "volume_")))
    tracks = history.tracking.tracks[["track_id", "frame", "time_s", "object_id"]]
    objects = history.objects[["frame", "object_id", size, "touches_border"]]
    joined = tracks.merge(objects, on=["frame", "object_id"], how="inner", validate="many_to_one")
    # The parts of an object that a mask broke for a moment share its track.
    points = joined.groupby(["track_id", "frame"], as_index=False).agg(
        time_s=("time_s", "first"), size=(size, "sum"), cut=("touches_border", "any")
    )
    kinds = history.kinds
    points["side"] = [kinds.get(int(frame), _ALL) for frame in points["frame"]] if kinds else _ALL
    return points


def _parts(points: pd.DataFrame, min_frames: int) -> Iterator[tuple[int, str, slice]]:
    """Rows of each track, cut by kind of half-cycle; a kind that comes back counts once, with its longest run."""
    tracks, sides = points["track_id"].to_numpy(int), points["side"].to_numpy(str)
    starts = np.flatnonzero(np.diff(tracks, prepend=-1).astype(bool) | (sides != np.roll(sides, 1)))
    edges = [*starts.tolist(), len(tracks)]
    longest: dict[tuple[int, str], slice] = {}
    for start, stop in pairwise(edges):
        key = int(tracks[start]), str(sides[start])
        known = longest.get(key, slice(0, 0))
        if key[1] != "rest" and stop - start >= max(min_frames, known.stop - known.start + 1):
            longest[key] = slice(start, stop)
    yield from ((track, side, part) for (track, side), part in longest.items())


def _frame_rows(points: pd.DataFrame, row: partial[Measurement], *, timed: bool) -> list[Measurement]:
    """Mean change of radius of the objects from one frame to the next."""
    from scipy.special import stdtrit

    before = points.groupby("track_id").shift()
    step = points["clock"] - before["clock"]
    whole = ~points["cut"] & ~before["cut"].fillna(True).astype(bool) & (step > 0)
    velocity = ((points["radius"] - before["radius"]) / step)[whole]
    rows = []
    for frame, values in velocity.groupby(points.loc[whole, "frame"]):
        n, mean = len(values), float(values.mean())
        half = float(stdtrit(n - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        time_s = float(points.loc[values.index[0], "time_s"]) if timed else None
        rows.append(
            row(
                value=mean, low=mean - half, high=mean + half, frame=int(frame), time_s=time_s, n=n,
                method="mean over objects of the change of the equivalent radius since the frame before",
            )
        )  # fmt: skip
    return rows
