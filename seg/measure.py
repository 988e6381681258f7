"""From masks to tables: every metric group of an analysis, frame by frame, one frame in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from seg.analysis import AnalysisConfig
from seg.metrics import METRICS
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement, Scale
from seg.objects import label_objects, object_table
from seg.preprocess import to_grey
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Stack


@dataclass(frozen=True)
class FrameResult:
    """What was measured on one frame: object ids on its grid, the rows of metrics and of objects."""

    instances: np.ndarray
    measurements: list[Measurement]
    objects: pd.DataFrame


def measure_frames(
    segmentation: Segmentation,
    config: AnalysisConfig,
    *,
    image: Stack | None = None,
    doubtful: Collection[int] = (),
    progress: Progress = silent,
) -> Iterator[FrameResult]:
    """Measure a segmentation frame by frame.

    Parameters
    ----------
    segmentation : Segmentation
    config : AnalysisConfig
    image : Stack or None
        Grey values on the same grid, for metrics that can use them.
    doubtful : collection of int
        Frames whose rows get the flag ``low-confidence``.
    progress : Progress

    Yields
    ------
    FrameResult
        One per time point.
    """
    stack, schema = segmentation.stack, segmentation.schema
    scale = Scale.of(stack)
    times = stack.frame_times_s
    object_classes = [name for name in config.objects.classes if name in schema.names]
    for index in progress(range(stack.n_frames), total=stack.n_frames, desc=f"measure {stack.name}"):
        labels = stack.frame(index)
        schema.check(labels, where=f"{stack.name!r}, frame {index}")
        frame = Frame(
            labels,
            schema,
            scale,
            index,
            None if times is None else times[index],
            image=None
            if image is None
            else to_grey(image.frame(index), image.axes.replace("t", "")).astype(np.float32),
        )
        instances = label_objects(
            frame.mask(object_classes),
            scale=scale,
            split_touching=config.objects.split_touching,
            min_diameter_px=config.objects.min_diameter_px,
        )
        frame = replace(
            frame,
            instances=instances,
            object_classes=tuple(object_classes),
            min_diameter_px=config.objects.min_diameter_px,
        )
        rows = [
            row
            for group, options in config.metrics.items()
            if (measure := METRICS[group].measure_frame) is not None
            for row in measure(frame, **options)
        ]
        if index in doubtful:
            rows = [replace(row, flags=(*row.flags, "low-confidence")) for row in rows]
        if "artifact" in schema.names and np.mean(labels == schema.index("artifact")) > 0.5:
            rows = [replace(row, flags=(*row.flags, "artifact-frame")) for row in rows]
        objects = object_table(frame, min_diameter_px=config.objects.min_diameter_px)
        yield FrameResult(instances, rows, objects)


def measure_over_time(table: pd.DataFrame, config: AnalysisConfig) -> list[Measurement]:
    """The numbers that need more than one frame (rates), from the table of all frames."""
    return [
        row
        for group, options in config.metrics.items()
        if (measure := METRICS[group].measure_series) is not None
        for row in measure(table, **options)
    ]


def headline_rows(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows that sum an input up: per metric the number of the whole series, else that of the last frame.

    Object-level metrics are given as the median over the objects of the last frame that has any.
    """
    found = []
    for name in names:
        rows = metrics[metrics["metric"] == name]
        rows = rows[rows["side"].isin(["", "mean"])]
        if rows.empty:
            continue
        whole = rows[rows["frame"].isna()]
        if len(whole):
            found.append(whole)
            continue
        valid = rows[rows["value"].notna()]
        last = (valid if len(valid) else rows)["frame"].max()
        rows = rows[rows["frame"] == last]
        of_frame = rows[rows["object_id"].isna()]
        if len(of_frame):
            found.append(of_frame)
        else:
            median = rows.iloc[[0]].copy()
            median[["value", "low", "high"]] = [rows["value"].median(), *rows["value"].quantile([0.025, 0.975])]
            median["object_id"], median["n"] = pd.NA, rows["value"].notna().sum()
            median["method"] = "median and 95 % range over the objects of the frame"
            median["flags"] = ";".join(sorted({f for v in rows["flags"] for f in v.split(";") if f}))
            found.append(median)
    return pd.concat(found, ignore_index=True) if found else metrics.iloc[:0]
