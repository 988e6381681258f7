"""Curves of a result folder: any metric against time, capacity or voltage, with its interval; no Qt."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from seg.electrochem import align_to_frames
from seg.errors import DataError, UsageError
from seg.metrics.names import text_result
from seg.metrics.table import read_table
from seg.modality import MODALITIES
from seg.report.words import class_text, flag_list, in_length_unit, metric_title, plain, side_text, unit_text

TIME, FRAME = "time_s", "frame"
# Columns of ``objects.csv`` that are listed, without their unit, and what they are called.
OBJECT_COLUMNS = {
    "object_id": "id", "class": "class", "area": "area", "volume": "volume", "equivalent_diameter": "diameter",
    "circularity": "circularity", "touches_border": "at border",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One line of the plot: a metric of one class and side over the frames.

    Parameters
    ----------
    label : str
    unit : str
    x, value, low, high : ndarray of float, shape (N,)
        NaN where a number is not reported; low and high NaN where it has no interval.
    frames : ndarray of int, shape (N,)
    flags : tuple of str
    """

    label: str
    unit: str
    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    frames: np.ndarray
    flags: tuple[str, ...]


class Results:
    """The tables of one result folder.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "metrics.csv").is_file():
            raise DataError(f"{self.folder} holds no metrics.csv; choose the folder of one input of a run.")
        self.metrics = read_table(self.folder / "metrics.csv")
        self.objects = self._read("objects.csv")
        self.electrochem = self._read("electrochem.csv")

    def _read(self, name: str) -> pd.DataFrame | None:
        path = self.folder / name
        return pd.read_csv(path) if path.is_file() and path.stat().st_size > 1 else None

    def _record(self, key: str) -> str:
        path = self.folder / "run.json"
        return str(json.loads(path.read_text(encoding="utf-8"))["analysis"].get(key, "")) if path.is_file() else ""

    @property
    def analysis(self) -> str:
        """Name of the analysis that made the result; empty where the folder does not say."""
        return self._record("name")

    @property
    def length_unit(self) -> str:
        """``um`` or ``nm``: what lengths of this modality are shown in; tables are in um."""
        known = MODALITIES.get(self._record("modality"))
        return known.length_unit if known else "um"

    @property
    def frame_times_s(self) -> pd.Series:
        """Time of each frame, by frame number; empty where times are unknown."""
        rows = self.metrics.dropna(subset=["frame", "time_s"])
        return rows.drop_duplicates("frame").set_index("frame")["time_s"].sort_index()

    def metric_names(self) -> list[str]:
        """Metrics with a number for more than one frame, those of the headline first."""
        of_frames = self.metrics[self.metrics["frame"].notna()]
        counts = of_frames.groupby("metric", sort=False)["frame"].nunique()
        return [str(name) for name, n in counts.items() if n > 1]

    def numbers(self) -> pd.DataFrame:
        """What is measured of the whole rather than of single objects: all there is to show of a single image."""
        return self.metrics[self.metrics["object_id"].isna()].reset_index(drop=True)

    def axes(self) -> list[str]:
        """What metrics can be drawn against."""
        found = [FRAME]
        if len(self.frame_times_s):
            found.insert(0, TIME)
        if self.electrochem is not None:
            columns = [c for c in self.electrochem.columns if c.startswith(("capacity", "voltage"))]
            found += [c for c in columns if self.electrochem[c].notna().any()]
        return found

    def curves(self, metric: str, against: str = TIME) -> list[Curve]:
        """The metric over the frames: one curve per class, side and method; of objects, their median.

        The band of a median is the middle half of the objects; its label says so.
        """
        rows = self.metrics[(self.metrics["metric"] == metric) & self.metrics["frame"].notna()]
        if rows.empty:
            raise UsageError(f"{self.folder.name} has no {metric} over time; it has {', '.join(self.metric_names())}.")
        whole = rows[rows["object_id"].isna()]
        found = []
        if len(whole):
            for (name, side), part in whole.groupby(["class", "side"], sort=False):
                # A second method for the same number comes after the first.
                part = part.drop_duplicates("frame").sort_values("frame")
                found.append(self._curve(part, metric, ", ".join(filter(None, (name, side))), against))
            return found
        for side, part in rows.groupby("side", sort=False):
            quantiles = part.groupby("frame")["value"].quantile([0.25, 0.5, 0.75]).unstack()
            first = part.drop_duplicates("frame").set_index("frame").loc[quantiles.index]
            table = first.assign(low=quantiles[0.25], value=quantiles[0.5], high=quantiles[0.75]).reset_index()
            label = ", ".join(filter(None, (side, "median and middle half of the objects")))
            found.append(self._curve(table, metric, label, against))
        return found

    def _curve(self, part: pd.DataFrame, metric: str, label: str, against: str) -> Curve:
        frames = part["frame"].to_numpy(int)
        return Curve(
            label or metric, str(part["unit"].iloc[0]), self._x(frames, against), part["value"].to_numpy(float),
            part["low"].to_numpy(float), part["high"].to_numpy(float), frames, tuple(part["flags"]),
        )  # fmt: skip

    def _x(self, frames: np.ndarray, against: str) -> np.ndarray:
        if against == FRAME:
            return frames.astype(float)
        if against == TIME:
            return self.frame_times_s.reindex(frames).to_numpy(float)
        if self.electrochem is None or against not in self.electrochem:
            raise UsageError(f"There is no {against} on the clock of the images; load a cycler file.")
        table = self.electrochem.set_index("frame") if "frame" in self.electrochem else self.electrochem
        return table[against].reindex(frames).to_numpy(float)

    def with_cycler(self, cycler: pd.DataFrame, offset_s: float, *, drift_s_per_h: float = 0.0) -> Results:
        """The same results with a cycler's table (`seg.electrochem.read_cycler`) on their clock.

        Frame time = cycler time + `offset_s`; frames outside of the record have no capacity and no voltage.
        """
        times = self.frame_times_s
        if times.empty:
            raise DataError(f"{self.folder.name} has no frame times; a cycler cannot be put on frames without them.")
        found = align_to_frames(cycler, [float(t) for t in times], offset_s=offset_s, drift_s_per_h=drift_s_per_h)
        other = copy(self)
        other.electrochem = found.assign(frame=times.index.to_numpy(int))
        return other

    def nearest_frame(self, curves: list[Curve], x: float, y: float, *, x_range: float, y_range: float) -> int | None:
        """The frame of the point nearest to a click, distances in shares of the axes; None far from any point."""
        best, frame = 0.05, None
        for curve in curves:
            with np.errstate(invalid="ignore"):
                apart = np.hypot((curve.x - x) / x_range, (curve.value - y) / y_range)
            if np.isfinite(apart).any() and np.nanmin(apart) < best:
                best, frame = float(np.nanmin(apart)), int(curve.frames[int(np.nanargmin(apart))])
        return frame

    def table(self, metric: str, against: str) -> pd.DataFrame:
        """What the plot shows, for export: one row per curve and frame."""
        parts = [
            pd.DataFrame({
                "metric": metric, "curve": c.label, "frame": c.frames, against: c.x, "value": c.value, "low": c.low,
                "high": c.high, "unit": c.unit, "flags": c.flags,
            })
            for c in self.curves(metric, against)
        ]  # fmt: skip
        return pd.concat(parts, ignore_index=True)


def number_texts(numbers: pd.DataFrame, length_unit: str) -> pd.DataFrame:
    """What is listed of `Results.numbers`: name, value with its unit, interval, and why there is no value."""
    found = []
    for row in numbers.rename(columns={"class": "class_name"}).itertuples(index=False):
        factor, unit = in_length_unit(str(row.unit), length_unit)
        side = side_text(str(row.side))
        told = None if side else text_result(row.metric, str(row.method))  # with a side: the share of that word
        reasons = ", ".join(flag for flag in flag_list(str(row.flags)) if flag != "uncalibrated")
        value = told or (plain(row.value * factor) if np.isfinite(row.value) else f"not reported: {reasons}")
        unit = "" if told or not np.isfinite(row.value) else unit_text(unit)
        ends = [plain(end * factor) for end in (row.low, row.high) if np.isfinite(end)]
        found.append({
            "number": ", ".join(filter(None, (metric_title(row.metric), side))), "value": f"{value} {unit}".strip(),
            "95 % interval": f"{ends[0]} to {ends[1]}" if len(ends) == 2 else "",
            "of": class_text(str(row.class_name)),
        })  # fmt: skip
    table = pd.DataFrame(found, columns=["number", "value", "95 % interval", "of"])
    several = table["number"].duplicated(keep=False)  # of one class each
    table.loc[several, "number"] += ", " + table.loc[several, "of"]
    return table


def object_texts(objects: pd.DataFrame, length_unit: str) -> pd.DataFrame:
    """What is listed of objects: the columns of `OBJECT_COLUMNS` that are there, named with their unit, as texts."""
    found = {}
    for column in objects.columns:
        name, _, unit = column.rpartition("_")
        if name not in OBJECT_COLUMNS or column in OBJECT_COLUMNS:
            name, unit = column, ""
        if name not in OBJECT_COLUMNS:
            continue
        factor, unit = in_length_unit(unit, length_unit)
        title = OBJECT_COLUMNS[name] + (f" / {unit_text(unit)}" if unit else "")
        found[title] = [_cell(value, factor) for value in objects[column]]
    return pd.DataFrame(found)


def _cell(value: object, factor: float) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return plain(value * factor) if isinstance(value, float) else str(value)
