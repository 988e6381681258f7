"""From masks to tables: every metric group of an analysis, frame by frame, in memory or, if too large, on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from seg.analysis import AnalysisConfig
from seg.doubt import Doubts, doubted
from seg.electrochem import HALF_CYCLES
from seg.errors import UsageError
from seg.metrics import METRICS, apply
from seg.metrics.frame import Frame, refused
from seg.metrics.history import History
from seg.metrics.table import Measurement, Scale, to_table
from seg.objects import object_table
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.tracking import Tracker, TrackingSettings
from seg.volumes import read_frame, share_of_class, with_instances

TRACKING_GROUP = "events"


@dataclass(frozen=True)
class FrameResult:
    """What was measured on one frame: object ids on its grid, the rows of metrics and of objects."""

    frame: Frame
    instances: np.ndarray
    measurements: list[Measurement]
    objects: pd.DataFrame
    drift_px: np.ndarray


def make_tracker(config: AnalysisConfig, stack: Stack) -> Tracker | None:
    """A tracker for an analysis that follows objects, else None."""
    if TRACKING_GROUP not in config.metrics or stack.n_frames < 1:
        return None
    try:
        settings = TrackingSettings(**config.metrics[TRACKING_GROUP])
    except (TypeError, ValueError) as error:
        raise UsageError(f"Metric group {TRACKING_GROUP!r}: {error}") from error
    return Tracker(Scale.of(stack), settings)


def measure_frames(
    segmentation: Segmentation,
    config: AnalysisConfig,
    *,
    image: Stack | None = None,
    doubts: Doubts | None = None,
    tracker: Tracker | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> Iterator[FrameResult]:
    """Measure a segmentation frame by frame; two frames are in memory, or on disk where one does not fit.

    Parameters
    ----------
    segmentation : Segmentation
    config : AnalysisConfig
    image : Stack or None
        Grey values on the same grid, for metrics that can use them.
    doubts : Doubts or None
        Which rows get the flag ``low-confidence``.
    tracker : Tracker or None
        Gets every frame in memory; `Tracker.finish` is left to the caller.
    folder : Path or None
        Where volumes that do not fit in memory are put while they are measured, 7 to 11 bytes per voxel: the numbers
        are those of whole arrays, and metrics that need these are NaN with the flag ``regime-not-reached`` and the
        size in `method`. None: every frame is read into memory.
    progress : Progress

    Yields
    ------
    FrameResult
        One per time point.
    """
    stack, schema = segmentation.stack, segmentation.schema
    scale = Scale.of(stack)
    object_classes = tuple(name for name in config.objects.classes if name in schema.names)
    before: Frame | None = None
    drift_px = np.zeros(len(scale.spacing))
    for index in progress(range(stack.n_frames), total=stack.n_frames, desc=f"measure {stack.name}"):
        frame = read_frame(
            segmentation, index, image=image, object_classes=object_classes,
            min_diameter_px=config.objects.min_diameter_px, folder=folder,
        )  # fmt: skip
        frame = with_instances(frame, split_touching=config.objects.split_touching)
        instances = frame.instances
        assert instances is not None
        objects = object_table(frame, min_diameter_px=config.objects.min_diameter_px)
        moved_px = np.zeros(len(scale.spacing))
        if tracker is not None and frame.on_disk is None:
            runs = frame.pixels.runs
            tracker.add(
                instances, objects, frame=index, time_s=frame.time_s, runs=runs if len(runs) else None
            )  # fmt: skip
            # Whole pixels of the way since the first frame, so that rounding does not add up.
            moved_px = np.rint(tracker.drift_px) - np.rint(drift_px)
            drift_px = tracker.drift_px
        rows = _frame_rows(frame, before, moved_px.astype(int), config)
        if doubts is not None:
            rows = doubted(rows, lambda classes, index=index: bool(doubts.reason(index, classes)))
        if share_of_class(frame, "artifact") > 0.5:
            rows = [replace(row, flags=(*row.flags, "artifact-frame")) for row in rows]
        yield FrameResult(frame, instances, rows, objects, drift_px)
        before = frame.changed(image=None)


def _frame_rows(frame: Frame, before: Frame | None, moved_px: np.ndarray, config: AnalysisConfig) -> list[Measurement]:
    """The rows of one frame, alone and against the one before."""
    rows: list[Measurement] = []
    for group, options in config.metrics.items():
        hooks = METRICS[group]
        if frame.on_disk is not None and group == TRACKING_GROUP:
            rows += refused(hooks.metrics, frame)
        if frame.on_disk is not None and hooks.of_whole_frames:
            if hooks.measure_frame is not None or before is not None:
                rows += refused(hooks.of_whole_frames, frame)
            continue
        if hooks.measure_frame is not None:
            rows += apply(hooks.measure_frame, frame, options=options)
        if hooks.measure_pair is not None and before is not None:
            rows += apply(hooks.measure_pair, before, frame, options=options, shift_px=moved_px)
    return [_with_reason(row) for row in rows]


def _with_reason(row: Measurement) -> Measurement:
    """A number that cannot be given carries a flag; where its group gives none, there was nothing to measure."""
    if not math.isnan(row.value) or any(flag != "uncalibrated" for flag in row.flags):
        return row
    return replace(row, flags=(*row.flags, "regime-not-reached"))


def measure_over_time(history: History, config: AnalysisConfig) -> list[Measurement]:
    """The numbers that need more than one frame, from the tables of all frames.

    Options of a group that the user left open and the current of the cycler tells are filled in.
    """
    found: list[Measurement] = []
    table = history.table
    for name, group in METRICS.items():
        if name not in config.metrics:
            continue
        options = {**history.conditions, **config.metrics[name]}
        rows: list[Measurement] = []
        if group.measure_series is not None:
            rows += apply(group.measure_series, table, options=options)
        if group.measure_whole is not None:
            rows += apply(group.measure_whole, replace(history, table=table), options=options)
        if rows:
            rows = [_with_reason(row) for row in rows]
            found += rows
            table = pd.concat([table, to_table(rows)], ignore_index=True)
    return found


def headline_rows(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows that sum an input up: per metric the number of the whole series, else that of the last frame.

    Object-level metrics are given as the median over the objects of the last frame that has any.
    """
    found = []
    for name in names:
        rows = metrics[metrics["metric"] == name]
        rows = rows[rows["side"].isin(["", "mean", *HALF_CYCLES[:2]])]
        if rows.empty:
            continue
        # A row with an object and no frame is that of a track.
        whole = rows[rows["frame"].isna() & rows["object_id"].isna()]
        if len(whole):
            found.append(whole.drop_duplicates(["class", "side"]))
            continue
        valid = rows[rows["value"].notna()]
        last = (valid if len(valid) else rows)["frame"].max()
        rows = rows[rows["frame"] == last]
        of_frame = rows[rows["object_id"].isna()]
        if len(of_frame):  # a second method for the same number comes after the first
            found.append(of_frame.drop_duplicates(["class", "side"]))
        else:
            median = rows.iloc[[0]].copy()
            median[["value", "low", "high"]] = [rows["value"].median(), *rows["value"].quantile([0.025, 0.975])]
            median["object_id"], median["n"] = pd.NA, rows["value"].notna().sum()
            median["method"] = "median and 95 % range over the objects of the frame"
            median["flags"] = ";".join(sorted({f for v in rows["flags"] for f in v.split(";") if f}))
            found.append(median)
    return pd.concat(found, ignore_index=True) if found else metrics.iloc[:0]
