"""How pits grow along their axes and by direction, what later nuclei prefer, and which sites are used again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from seg.metrics.followed import followed_objects
from seg.metrics.history import History
from seg.metrics.pits_memory import Memory, site_memory
from seg.metrics.point_pattern import Window
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement, rate_unit
from seg.uncertainty import BLUR_PX, bootstrap_interval

MIN_FRAMES = 3
# Share of its greatest area up to which a pit is taken to grow, where the current is not known.
NEARLY_WIDEST = 0.95


def measure_whole(
    history: History,
    *,
    memory_radius_um: float | None = None,
    max_shift_um: float | None = None,
    seed: int = 0,
) -> list[Measurement]:
    """Growth rates of the pits, their preference for rims over the cycles, and the memory of their sites.

    Parameters
    ----------
    history : History
        Whose objects are the pits (``objects: {classes: [pit]}``), with the rows of the group `pits`.
    memory_radius_um : float or None
        How near a later pit is the same site; None: half the mean radius of the pits.
    max_shift_um : float or None
        How far the frames of two cycles may lie apart: the pits of one are registered on those of the other. None: the
        mean diameter of the pits; 0: the frames are registered already.
    seed : int

    Returns
    -------
    list of Measurement
        ``pit_rate_major`` and ``pit_rate_minor``: growth of the half axes (those of the ellipse with the same second
        moments) along each track while metal is stripped (`object_id` is the track), and their medians;
        ``pit_anisotropy``: the ratio of both. ``radial_velocity`` by direction (`side`). ``rim_enrichment`` over the
        cycles, each with its frame of most nuclei. ``memory_fraction`` over every two cycles in a row, and for all.
        Quantities without enough pits are NaN with ``regime-not-reached``.
    """
    table = history.objects
    if table.empty or "pit" not in set(table["class"]):
        return []
    pits = table[(table["class"] == "pit") & ~table["below_detection_limit"]]
    row = partial(Measurement, class_name="pit")
    growing = _growing(pits, history)
    rows = _axis_rates(pits, growing, history, row)
    rows += _sector_rates(growing, history, row)
    rows += _pooled_enrichment(history, row)
    return rows + _memories(pits, history, row, memory_radius_um, max_shift_um, np.random.default_rng(seed))


def _growing(pits: pd.DataFrame, history: History) -> pd.DataFrame:
    """Frames in which each whole pit grows: columns ``frame, object_id, track_id, part``; a part has three or more.

    Half-cycles of stripping; where the current is not known, from where a pit shows until it is nearly at its widest.
    A site that is used again at once keeps its track over two cycles, and would seem to have grown slowly: each cycle
    is a part of its own.
    """
    area = next(name for name in pits.columns if name.startswith(("area_", "volume_")))
    points = pits.merge(followed_objects(history)[["frame", "object_id", "track_id"]], on=["frame", "object_id"])
    stripped = [cycle.frames for cycle in history.half_cycles() if cycle.kind == "stripping"]
    found = []
    for number, frames in enumerate(stripped or _cycles(points["frame"].to_numpy(int), history, "stripping")):
        for track, part in points[points["frame"].isin(frames)].groupby("track_id"):
            part = part.sort_values("frame")
            if not stripped:
                widest = int(np.argmax(part[area].to_numpy(float) >= NEARLY_WIDEST * part[area].max()))
                part = part.iloc[: widest + 1]
            if part["frame"].nunique() >= MIN_FRAMES and not part["touches_border"].any():
                found.append(part[["frame", "object_id", "track_id"]].assign(part=f"{track}.{number}"))
    return pd.concat(found) if found else pd.DataFrame(columns=["frame", "object_id", "track_id", "part"])


def _clock(part: pd.DataFrame) -> tuple[np.ndarray, bool]:
    times = part["time_s"].to_numpy(float, na_value=math.nan)
    timed = bool(np.isfinite(times).all())
    return (times if timed else part["frame"].to_numpy(float)), timed


def _axis_rates(
    pits: pd.DataFrame, growing: pd.DataFrame, history: History, row: partial[Measurement]
) -> list[Measurement]:
    """Growth of the half axes of every track, and the medians."""
    area = next(name for name in pits.columns if name.startswith(("area_", "volume_")))
    length = history.scale.unit("um")
    timed = bool(np.isfinite(pits["time_s"].to_numpy(float, na_value=math.nan)).all())
    unit, flags = rate_unit(length, timed=timed), history.scale.flags if timed else ("uncalibrated",)
    if area.startswith("volume_"):
        return []
    rates, of_tracks, pixel = [], [], math.prod(history.scale.spacing) ** 0.5
    for _, part in pits.merge(growing, on=["frame", "object_id"]).groupby("part"):
        clock, track = _clock(part)[0], int(part["track_id"].iloc[0])
        size, aspect = part[area].to_numpy(float), part["aspect_ratio"].to_numpy(float)
        known = np.isfinite(aspect)
        if known.sum() < MIN_FRAMES:
            continue
        axes = {"pit_rate_major": np.sqrt(size * aspect / math.pi), "pit_rate_minor": np.sqrt(size / aspect / math.pi)}
        slopes = {name: robust_slope(clock[known], values[known]) for name, values in axes.items()}
        sharp = {name: robust_slope(clock[known], values[known])[0] for name, values in _sharp(axes, pixel).items()}
        of_tracks += [
            row(name, slope, unit, low=low + min(sharp[name] - slope, 0), high=high + max(sharp[name] - slope, 0),
                object_id=track, n=int(known.sum()), flags=flags,
                method=f"Theil-Sen slope of the half axis along track {track}; interval: fit, blur")
            for name, (slope, low, high) in slopes.items()
        ]  # fmt: skip
        rates.append([slope[0] for slope in slopes.values()] + list(sharp.values()))
    names = ("pit_rate_major", "pit_rate_minor")
    if not rates:
        why = f"no pit of {MIN_FRAMES} frames that the frame does not cut"
        nothing = partial(row, value=math.nan, n=0, method=why, flags=(*flags, "regime-not-reached"))
        return [*(nothing(name, unit=unit) for name in names), nothing("pit_anisotropy", unit="1")]
    found, sharp_found = np.split(np.array(rates), 2, axis=1)
    rows = []
    for name, values, sharper in zip(names, found.T, sharp_found.T, strict=True):
        one = _median(row(name, math.nan, unit, flags=flags), values, "median over the pits; interval: pits, blur")
        rows.append(_widened(one, float(np.median(sharper)) - one.value))
    grow = (found > 0).all(axis=1) & (sharp_found > 0).all(axis=1)
    grows, sharper = found[grow], sharp_found[grow]
    method = "median over the pits of the rate of the long over that of the short half axis; interval: pits, blur"
    ratio = row("pit_anisotropy", math.nan, "1", flags=flags if len(grows) else (*flags, "regime-not-reached"))
    ratio = _median(ratio, grows[:, 0] / grows[:, 1], method)
    if len(grows):
        ratio = _widened(ratio, float(np.median(sharper[:, 0] / sharper[:, 1])) - ratio.value)
    return [*rows, ratio, *of_tracks]


def _sharp(axes: dict[str, np.ndarray], pixel: float) -> dict[str, np.ndarray]:
    """Half axes (of the ellipse with the same second moments) before a blur of `BLUR_PX`.

    Blur of s moves an outline inwards by ``s**2 / 2`` times its curvature. That takes ``(3 a - b) / (b (a + b))`` times
    ``s**2 / 2`` from a, and from b the same with a and b exchanged; less from large pits, so that blur makes them fast.
    At the sharp ends the second order counts too: half of the square of that, times their curvature a / b**2. On drawn
    ellipses of 2.8 to 7 px, up to 1.7 times as long as wide, a is within 0.07 px then and b within 0.03 px.
    """
    a, b = axes.values()
    move = (BLUR_PX * pixel) ** 2 / 2
    ahead, beside = (move * (3 * p - q) / (q * (p + q)) for p, q in ((a, b), (b, a)))
    return dict(zip(axes, (a + ahead + ahead**2 * a / b**2 / 2, b + beside), strict=True))


def _widened(row: Measurement, by: float) -> Measurement:
    """The row with one end of its interval moved by `by`, the other one as it is."""
    return replace(row, low=row.low + min(by, 0.0), high=row.high + max(by, 0.0))


def _median(row: Measurement, values: np.ndarray, method: str) -> Measurement:
    low, high = bootstrap_interval(values, lambda v: np.median(v, axis=1), rng=np.random.default_rng(0))
    value = float(np.median(values)) if len(values) else math.nan
    return Measurement(row.metric, value, row.unit, low, high, row.class_name, side=row.side, n=len(values),
                       method=method, flags=row.flags)  # fmt: skip


def _sector_rates(growing: pd.DataFrame, history: History, row: partial[Measurement]) -> list[Measurement]:
    """Growth of the radius in every direction, median over the pits."""
    table = history.table
    sides = table["side"].astype(object).where(table["side"].notna(), "").astype(str)
    found = table[(table["metric"] == "pit_diameter") & sides.str.startswith("towards ") & table["object_id"].notna()]
    if found.empty:
        return []
    points = found[["frame", "object_id", "time_s", "side", "value"]].merge(growing, on=["frame", "object_id"])
    rates: dict[str, list[float]] = {}
    for (_, side), part in points.groupby(["part", "side"]):
        slope = robust_slope(_clock(part)[0], part["value"].to_numpy(float) / 2)[0]
        rates.setdefault(str(side), []).append(slope)
    timed = _clock(points)[1] if len(points) else True
    flags = history.scale.flags if timed else ("uncalibrated",)
    unit = rate_unit(str(found["unit"].iloc[0]), timed=timed)
    ordered = sorted(rates, key=lambda side: float(side.split()[1]))
    medians = {side: float(np.median(rates[side])) for side in ordered}
    fastest, slowest = max(medians.values(), default=math.nan), min(medians.values(), default=math.nan)
    ratio = f"; fastest over slowest direction {fastest / slowest:.3g}" if slowest > 0 else ""
    return [
        _median(row("radial_velocity", math.nan, unit, side=side, flags=flags), np.array(rates[side]),
                f"median over the pits of the growth of the radius in this direction{ratio}")
        for side in ordered
    ]  # fmt: skip


def _pooled_enrichment(history: History, row: partial[Measurement]) -> list[Measurement]:
    """Enrichment at the rims over the cycles: geometric mean of the frames with the most nuclei of each cycle."""
    table = history.table
    found = table[(table["metric"] == "rim_enrichment") & table["frame"].notna() & (table["value"] > 0)]
    found = found[np.isfinite(found["value"]) & np.isfinite(found["high"]) & (found["low"] > 0)]
    if found.empty:
        return []
    groups = _cycles(found["frame"].to_numpy(int), history, "plating")
    best = [found[found["frame"].isin(frames)].sort_values("n").iloc[-1] for frames in groups]
    if not best:
        return []
    logs = np.log([[float(one[end]) for end in ("value", "low", "high")] for one in best])
    errors = (logs[:, 2] - logs[:, 1]) / (2 * 1.96)
    weights = 1 / errors**2
    mean, error = float(np.average(logs[:, 0], weights=weights)), 1 / math.sqrt(float(weights.sum()))
    low, high = (math.exp(mean + sign * 1.96 * error) for sign in (-1, 1))
    of = ", ".join(str(int(one["frame"])) for one in best)
    method = f"weighted geometric mean over the frame(s) of most nuclei of {len(best)} cycle(s): {of}"
    return [row("rim_enrichment", math.exp(mean), "1", low, high, n=int(sum(one["n"] for one in best)), method=method)]


def _cycles(frames: np.ndarray, history: History, kind: str) -> list[np.ndarray]:
    """Split frames into cycles: half-cycles of a kind, or runs without a gap where the current is not known."""
    frames = np.unique(frames)
    cycles = [cycle.frames for cycle in history.half_cycles() if cycle.kind == kind]
    if not cycles:
        cycles = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    found = [frames[np.isin(frames, cycle)] for cycle in cycles]
    return [cycle for cycle in found if len(cycle)]


def _memories(
    pits: pd.DataFrame, history: History, row: partial[Measurement], radius: float | None, max_shift: float | None,
    rng: np.random.Generator,
) -> list[Measurement]:  # fmt: skip
    """Sites of every cycle that the next one uses again."""
    scale, um = history.scale, history.scale.unit("um")
    cycles = _cycles(pits["frame"].to_numpy(int), history, "stripping")
    if len(scale.spacing) != 2 or len(cycles) < 2:
        return []
    # The frame of each cycle in which the pits are widest: the last of the stripping.
    last = [pits[pits["frame"] == cycle[-1]] for cycle in cycles]
    diameters = np.concatenate([part[f"equivalent_diameter_{um}"].to_numpy(float) for part in last])
    near = float(np.mean(diameters)) / 4 if radius is None else radius
    reach = float(np.mean(diameters)) if max_shift is None else max_shift
    # The frame is not at hand any more: the box around all pits stands for it.
    edges = np.array([[pits[f"bbox_{axis}_{end}_px"].agg(end) for end in ("min", "max")] for axis in "yx"])
    window = Window(np.ones(tuple(int(high - low) for low, high in edges), bool), scale.spacing)
    origin = edges[:, 0] * np.asarray(scale.spacing)
    rows, found = [], []
    for number, (before, after) in enumerate(pairwise(last), start=1):
        places = [part[[f"y_{um}", f"x_{um}"]].to_numpy(float) - origin for part in (before, after)]
        memory = site_memory(
            *places, window=window, radius=near, diameters=after[f"equivalent_diameter_{um}"].to_numpy(float),
            max_shift=reach, rng=rng,
        )  # fmt: skip
        found.append(memory)
        side = f"cycle {number} to {number + 1}"
        rows.append(_memory_row(row, memory, side, near, um, scale.flags))
    known = [memory for memory in found if math.isfinite(memory.fraction)]
    if not known:
        return [row("memory_fraction", math.nan, "1", n=0, method="too few pits in every cycle",
                    flags=(*scale.flags, "regime-not-reached")), *rows]  # fmt: skip
    weights = np.array([memory.n for memory in known], float)
    value = float(np.average([memory.fraction for memory in known], weights=weights))
    halves = np.array([(memory.high - memory.low) / 2 for memory in known])
    half = math.sqrt(float(np.sum((weights * halves) ** 2))) / float(weights.sum())
    p = max(memory.p for memory in known)
    method = f"within {near:.3g} {um}, {len(known)} pair(s) of cycles, chance and registration removed; p up to {p:.3g}"
    return [row("memory_fraction", value, "1", value - half, value + half, n=int(weights.sum()), method=method,
                flags=scale.flags), *rows]  # fmt: skip


def _memory_row(
    row: partial[Measurement], memory: Memory, side: str, near: float, um: str, flags: tuple[str, ...]
) -> Measurement:  # fmt: skip
    if math.isnan(memory.fraction):
        return row("memory_fraction", math.nan, "1", side=side, n=memory.n, method="too few pits",
                   flags=(*flags, "regime-not-reached"))  # fmt: skip
    moved = ", ".join(f"{axis} {value:.3g}" for axis, value in zip("yx", memory.shift, strict=True))
    method = (
        f"{memory.hits} of {memory.n} pits within {near:.3g} {um} of one of the cycle before, {memory.chance:.2g} by "
        f"chance; p = {memory.p:.3g}; registered by {moved} {um}"
    )
    return row("memory_fraction", memory.fraction, "1", memory.low, memory.high, side=side, n=memory.n, method=method,
               flags=flags)  # fmt: skip
