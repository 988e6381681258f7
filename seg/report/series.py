"""The table of a run as series over its frames, in the units of the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.metrics import METRICS
from seg.report.saved import Saved
from seg.report.words import class_text, flag_list, in_length_unit, side_text, time_unit

ELECTRON_MAH = 1.602176634e-19 / 3.6  # charge of one electron
OVER_OBJECTS = "median and 95 % range over objects"


@dataclass(frozen=True)
class Series:
    """One quantity of one class and side over the frames.

    Parameters
    ----------
    metric, class_name, side, unit : str
    method : str
        That of the last frame with a value.
    frames : ndarray of int
        Frames that have a row, ascending.
    values, low, high, n : ndarray of float
        NaN where not reported.
    flags : tuple of tuple of str
        Per frame.
    over_objects : bool
        The table has rows per object only: value is their median, low and high hold 95 % of them.
    """

    metric: str
    class_name: str
    side: str
    method: str
    unit: str
    frames: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    flags: tuple[tuple[str, ...], ...]
    over_objects: bool = False

    @property
    def label(self) -> str:
        """What tells it from other series of the same metric."""
        return ", ".join(part for part in (class_text(self.class_name), side_text(self.side)) if part)


def in_report_units(metrics: pd.DataFrame, length_unit: str) -> pd.DataFrame:
    """Convert the table to lengths in the unit of the modality."""
    metrics = metrics.copy()
    converted = {unit: in_length_unit(unit, length_unit) for unit in metrics["unit"].unique()}
    factors = metrics["unit"].map({unit: factor for unit, (factor, _) in converted.items()})
    for column in ("value", "low", "high"):
        metrics[column] = metrics[column] * factors
    metrics["unit"] = metrics["unit"].map({unit: text for unit, (_, text) in converted.items()})
    return metrics


def series_of(metrics: pd.DataFrame) -> list[Series]:
    """All series of the table, in the order of its rows; rows of the whole input are left out."""
    timed = metrics[metrics["frame"].notna()]
    of_frames = timed[timed["object_id"].isna()]
    of_objects = timed[timed["object_id"].notna() & ~timed["metric"].isin(of_frames["metric"])]
    found = []
    key = ["metric", "class", "side"]
    for names, rows in of_frames.groupby(key, sort=False):
        # several methods for the same number of the same frame are series of their own; a method that notes what
        # it did in each frame cannot tell them apart, their order can
        order = rows.groupby("frame").cumcount()
        split = rows["method"] if rows["method"].nunique() == order.max() + 1 else order
        for _, part in rows.groupby(split, sort=False):
            found.append(_series(names, part.drop_duplicates("frame").sort_values("frame"), over_objects=False))
    for names, rows in of_objects.groupby(key, sort=False):
        found.append(_series(names, _medians(rows), over_objects=True))
    order = {name: i for i, name in enumerate(metrics["metric"].unique())}
    return sorted(found, key=lambda s: order[s.metric])


def _medians(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per frame: median over the objects and the range that holds 95 % of them."""
    summary = []
    for frame, part in rows.groupby("frame"):
        values = part["value"].dropna()
        low, high = values.quantile([0.025, 0.975]) if len(values) > 1 else (np.nan, np.nan)
        flags = sorted({flag for text in part["flags"] for flag in flag_list(text)})
        if len(values):  # single objects that failed do not make the median doubtful
            flags = [flag for flag in flags if flag == "uncalibrated"]
        summary.append(
            {
                **part.iloc[0].to_dict(), "frame": frame, "value": values.median() if len(values) else np.nan,
                "low": low, "high": high, "n": len(values), "flags": ";".join(flags), "method": OVER_OBJECTS,
            }
        )  # fmt: skip
    return pd.DataFrame(summary)


def _series(names: tuple[str, str, str], rows: pd.DataFrame, *, over_objects: bool) -> Series:
    reported = np.flatnonzero(rows["value"].notna())
    return Series(
        *names,
        method=str(rows["method"].iloc[reported[-1] if reported.size else -1]),
        unit=str(rows["unit"].iloc[0]),
        frames=rows["frame"].to_numpy(int),
        values=rows["value"].to_numpy(float),
        low=rows["low"].to_numpy(float),
        high=rows["high"].to_numpy(float),
        n=rows["n"].to_numpy(float),
        flags=tuple(tuple(flag_list(text)) for text in rows["flags"]),
        over_objects=over_objects,
    )


def absent_classes(metrics: pd.DataFrame) -> list[str]:
    """Classes of the schema that no frame holds a pixel of, as far as the table has the share of each class."""
    shares = metrics[(metrics["metric"] == "class_fraction") & metrics["object_id"].isna()]
    largest = shares.groupby("class", sort=False)["value"].max()
    return [str(name) for name, share in largest.items() if share == 0]


def of_classes_present(metrics: pd.DataFrame, absent: Sequence[str]) -> pd.DataFrame:
    """Leave out rows whose classes are all absent, which say 0 or nothing.

    Where a metric has no other rows it keeps them: that an electrode holds no deposits at all is a result.
    """
    if not absent:
        return metrics
    said = metrics["class"].map(lambda text: bool(text) and set(re.split(r"[+;]", text)) <= set(absent))
    only = said.groupby(metrics["metric"]).transform("all")
    return metrics[~said | only]


def groups_of(saved: Saved, metrics: Iterable[str]) -> dict[str, list[str]]:
    """Metric groups in the order of the analysis, each with those of its metrics that occur; the rest under "other"."""
    left = list(dict.fromkeys(metrics))
    found: dict[str, list[str]] = {}
    asked = list(saved.analysis.get("metrics") or {})
    for group in [*asked, *(name for name in METRICS if name not in asked)]:
        known = METRICS[group].metrics if group in METRICS else ()
        members = [name for name in known if name in left]
        if members:
            found[group] = members
            left = [name for name in left if name not in members]
    if left:
        found["other"] = left
    return found


# --- what the curves are drawn against --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """Values of one horizontal axis at each frame; ``key`` is ``time``, ``capacity`` or ``voltage``.

    ``seconds_per_unit`` is known of a time axis with times.
    """

    key: str
    label: str
    values: np.ndarray
    monotonic: bool = True
    seconds_per_unit: float | None = None


def axes_of(saved: Saved) -> list[Axis]:
    """Time (frame number where unknown), then capacity and voltage where the cycler's record covers the frames."""
    n_frames = saved.size("t")
    times = saved.frame_times_s
    if times is None:
        found = [Axis("time", "frame", np.arange(n_frames, dtype=float))]
    else:
        scale, unit = time_unit(float(times[-1] - times[0]) or 1.0)
        found = [Axis("time", f"time ({unit})", times / scale, seconds_per_unit=scale)]
    capacity = electrochem_column(saved, "capacity_mAh")
    if capacity is not None:
        area = (saved.run.get("electrochem") or {}).get("area_cm2")
        capacity, unit = (capacity / float(area), "mAh/cm²") if area else (capacity, "mAh")
        if np.nanmax(np.abs(capacity)) < 0.1:
            capacity, unit = capacity * 1e3, unit.replace("mAh", "µAh")
        found.append(Axis("capacity", f"plated capacity ({unit})", capacity, monotonic=False))
    voltage = electrochem_column(saved, "voltage_V")
    if voltage is not None:
        found.append(Axis("voltage", "voltage (V)", voltage, monotonic=False))
    return found


def electrochem_column(saved: Saved, column: str) -> np.ndarray | None:
    """Look up a column of ``electrochem.csv`` at each frame; None where it holds fewer than two values.

    A capacity that never reaches one electron is the rounding of a sum, and None as well.
    """
    table = saved.electrochem
    if column not in table.columns or "frame" not in table.columns:
        return None
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    at_frames = np.full(saved.size("t"), np.nan)
    frames = table["frame"].to_numpy(int)
    inside = (frames >= 0) & (frames < len(at_frames))
    at_frames[frames[inside]] = values[inside]
    if column == "capacity_mAh" and np.nanmax(np.abs(at_frames), initial=0.0) < ELECTRON_MAH:
        return None
    return at_frames if np.isfinite(at_frames).sum() > 1 else None


def half_cycles(saved: Saved) -> list[str]:
    """Plating, stripping, rest or ``""`` at each frame."""
    found = [""] * saved.size("t")
    if {"half_cycle", "frame"} <= set(saved.electrochem.columns):
        for frame, name in zip(saved.electrochem["frame"], saved.electrochem["half_cycle"], strict=True):
            if 0 <= int(frame) < len(found) and isinstance(name, str):
                found[int(frame)] = name
    return found


def bands_of(saved: Saved, axis: Axis) -> list[tuple[float, float, str]]:
    """Stretches of plating and stripping along a time axis, from half-way to half-way between frames."""
    names, x = half_cycles(saved), axis.values
    if len(x) < 2 or not any(names):
        return []
    edges = np.concatenate([[x[0]], (x[1:] + x[:-1]) / 2, [x[-1]]])
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    stops = [*starts[1:], len(names)]
    return [
        (float(edges[a]), float(edges[b]), names[a])
        for a, b in zip(starts, stops, strict=True)
        if names[a] in ("plating", "stripping")
    ]
