"""How fast the foremost tip moves, and when the first dendrite shows: from the rows of all frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from seg.metrics.history import History
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement, rate_unit
from seg.uncertainty import bootstrap_interval

# Words of `morphology_class` that are dendrites, where moss and dendrites share a class of labels.
TIP_LED = ("needle", "fractal")
# From this share of the metal on they count as seen.
LEAST_SHARE = 0.05
# Frames after the first with a dendrite whose growth is followed back to nothing.
MOST_BACKWARDS = 5


def measure_whole(history: History) -> list[Measurement]:
    """Tip velocity over the series and its half-cycles of plating, and the time of the first dendrite.

    Parameters
    ----------
    history : History
        With the rows of the group `dendrite`, and of `morphology` where moss and dendrites share a class.

    Returns
    -------
    list of Measurement
        ``tip_velocity``: robust slope of ``dendrite_height`` over the frames with a dendrite; with a cycler file for
        each half-cycle of plating (at its last frame) and their median, ``side`` ``plating``. ``onset_time``: since
        plating began where a cycler file tells, else on the clock of the series. Its interval runs from the last
        frame without to the first with a dendrite; the value is where the longest path, followed back over the first
        frames, has no length. NaN where the first frame has one already (only ``high`` is known), where none shows
        (only ``low``), or where frames have no times.

    Notes
    -----
    A dendrite shows where its class has a skeleton; where the class of the group holds moss as well, where the
    morphology of at least 5 % of the metal is that of needles or fractals. It must still be there in the next frame.
    """
    heights = _rows(history.table, "dendrite_height")
    rows: list[Measurement] = []
    for name, part in heights.groupby("class"):
        row = partial(Measurement, class_name=str(name))
        rows += _velocities(part, history, row)
        onset = _onset(history, str(name), row)
        rows += [] if onset is None else [onset]
    return rows


def _rows(table: pd.DataFrame, metric: str, sides: Sequence[str] = ("",)) -> pd.DataFrame:
    """Rows of whole frames, in order; class and flags as text."""
    found = table[(table["metric"] == metric) & table["frame"].notna() & table["object_id"].isna()]
    text = {name: found[name].astype(object).where(found[name].notna(), "").astype(str) for name in
            ("class", "side", "flags")}  # fmt: skip
    found = found.assign(**text)
    return found[found["side"].isin(sides)].sort_values("frame")


def _clock(rows: pd.DataFrame) -> tuple[np.ndarray, bool]:
    times = rows["time_s"].to_numpy(float, na_value=math.nan)
    timed = bool(len(times)) and bool(np.isfinite(times).all())
    return (times if timed else rows["frame"].to_numpy(float)), timed


def _velocities(heights: pd.DataFrame, history: History, row: partial[Measurement]) -> list[Measurement]:
    """Slope of the height over the half-cycles of plating, or over all frames where the current is not known."""
    clock, timed = _clock(heights)
    flags = ("uncalibrated",) if not timed or heights["flags"].str.contains("uncalibrated").any() else ()
    values = heights["value"].to_numpy(float, na_value=math.nan)
    seen = np.isfinite(values) & ~heights["flags"].str.contains("artifact-frame").to_numpy()
    # What is doubtful in most of the heights is in their slope.
    flags += tuple(flag for flag in ("few-pixels", "low-confidence")
                   if seen.any() and heights["flags"][seen].str.contains(flag).mean() > 0.5)  # fmt: skip
    frames = heights["frame"].to_numpy(int)
    length = str(heights["unit"].iloc[0])
    row = partial(row, "tip_velocity", unit=rate_unit(length, timed=timed), flags=flags)
    method = "Theil-Sen slope of dendrite_height"
    cycles = []
    for cycle in history.half_cycles():
        here = seen & np.isin(frames, cycle.frames)
        if cycle.kind == "plating" and len(np.unique(clock[here])) > 1:
            slope, low, high = robust_slope(clock[here], values[here])
            last = np.flatnonzero(here)[-1]
            cycles.append(
                row(value=slope, low=low, high=high, n=int(here.sum()), side="plating", frame=int(frames[last]),
                    time_s=float(clock[last]) if timed else None, method=f"{method}: plating of cycle {cycle.cycle}")
            )  # fmt: skip
    if cycles:
        slopes = np.array([one.value for one in cycles])
        low, high = (cycles[0].low, cycles[0].high) if len(cycles) == 1 else bootstrap_interval(
            slopes, lambda v: np.median(v, axis=1), rng=np.random.default_rng(0)
        )  # fmt: skip
        whole = row(value=float(np.median(slopes)), low=low, high=high, n=len(cycles), side="plating",
                    method=f"{method}; median over {len(cycles)} half-cycle(s) of plating")  # fmt: skip
        return [whole, *cycles]
    slope, low, high = robust_slope(clock[seen], values[seen]) if seen.any() else (math.nan,) * 3
    if math.isnan(slope):
        why = ("single-frame",) if len(frames) < 2 else ("regime-not-reached",)
        return [row(value=math.nan, method="fewer than two frames with a height", flags=(*flags, *why))]
    return [row(value=slope, low=low, high=high, n=int(seen.sum()), method=method)]


def _onset(history: History, name: str, row: partial[Measurement]) -> Measurement | None:
    """When the first dendrite shows; None where there is one frame only, or nothing tells moss from dendrites."""
    frames, clock, shown, timed, how = _shown(history.table, name)
    if len(frames) < 2:
        return None
    row = partial(row, "onset_time", unit="s", n=len(frames))
    # What is gone in the next frame was a flaw of the mask.
    lasting = shown & np.append(shown[1:], True)
    if not lasting.any():
        low = clock[-1] if timed else math.nan
        return row(value=math.nan, low=low, method=f"none seen ({how})", flags=("regime-not-reached",))
    first = int(np.argmax(lasting))
    if not timed:
        method = f"in frame {frames[first]} ({how}); the times of the frames are not known"
        return row(value=math.nan, method=method, flags=("uncalibrated",))
    start, since = _plating_start(history, int(frames[first]), frames, clock)
    if first == 0:
        method = f"{since}; there in the first frame ({how})"
        return row(value=math.nan, high=float(clock[0]) - start, method=method, flags=("ambiguous",))
    before, after = float(clock[first - 1]), float(clock[first])
    # The paths of a class with moss in it do not begin with the dendrite.
    followed = None if _has_moss(name) else _followed_back(history.table, name, frames[first:], clock[first:])
    value = (before + after) / 2 if followed is None else min(followed, after)
    # A dendrite is too small to be seen at first: the line back may end before the last frame without one.
    value = max(value, float(clock[max(first - 2, 0)]))
    why = "middle of the interval" if followed is None else "longest path followed back to nothing"
    return row(value=value - start, low=min(before, value) - start, high=after - start,
               method=f"{since}; {why}; interval: last frame without, first with one ({how})")  # fmt: skip


def _shown(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool, str]:
    """Frames, their clock, whether a dendrite shows in each, whether the clock is time, and by what it shows."""
    if not _has_moss(name):
        rows = _rows(table, "skeleton_length")
        rows = rows[rows["class"] == name]
        shown, how = rows["value"].to_numpy(float) > 0, f"skeleton of {name}"
    else:
        shares = _rows(table, "morphology_class", TIP_LED).groupby("frame")["value"].sum()
        rows = _rows(table, "morphology_class", TIP_LED[:1])
        shown = shares.reindex(rows["frame"]).to_numpy(float) >= LEAST_SHARE
        how = f"{' or '.join(TIP_LED)}, {LEAST_SHARE:.0%} of the metal or more"
    clock, timed = _clock(rows)
    return rows["frame"].to_numpy(int), clock, shown, timed, how


def _has_moss(name: str) -> bool:
    return "deposit" in name.split(";")


def _followed_back(table: pd.DataFrame, name: str, frames: np.ndarray, clock: np.ndarray) -> float | None:
    """Time at which the line through the first lengths of the longest path is zero; None where it does not rise."""
    paths = _rows(table, "longest_path")
    lengths = paths[paths["class"] == name].set_index("frame")["value"].reindex(frames).to_numpy(float)
    lengths, times = lengths[:MOST_BACKWARDS], clock[:MOST_BACKWARDS]
    known = np.isfinite(lengths) & (lengths > 0)
    if known.sum() < 3:
        return None
    slope = robust_slope(times[known], lengths[known])[0]
    return float(np.median(times[known] - lengths[known] / slope)) if slope > 0 else None


def _plating_start(history: History, frame: int, frames: np.ndarray, clock: np.ndarray) -> tuple[float, str]:
    """Time at which the plating began in which a frame lies, and in words what times count from."""
    for cycle in history.half_cycles():
        if cycle.kind == "plating" and frame in cycle.frames:
            # Growth starts from the last frame of the half-cycle before.
            before = np.flatnonzero(frames < cycle.frames[0])
            start = float(clock[before[-1]] if len(before) else clock[np.flatnonzero(frames == cycle.frames[0])[0]])
            return start, f"since plating of cycle {cycle.cycle} began at {start:.4g} s"
    return 0.0, "on the clock of the series"
