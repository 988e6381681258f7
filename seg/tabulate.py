"""The tables of one input: one pass over its frames, then what needs all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg.analysis import AnalysisConfig
from seg.doubt import Doubts, doubted
from seg.electrochem import CyclerFile, place_on_frames
from seg.io import fingerprint, open_stack, write_image
from seg.io.results import write_table
from seg.measure import FrameResult, make_tracker, measure_frames, measure_over_time
from seg.metrics.calibration import with_pixel_size_error
from seg.metrics.frame import Frame
from seg.metrics.front import GrowthMap
from seg.metrics.history import History
from seg.metrics.pits import COUNTED
from seg.metrics.site_signals import site_signals
from seg.metrics.table import Measurement, Scale, to_table
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.tracking import Tracking

TABLES = (
    "metrics.csv", "objects.csv", "tracks.csv", "events.csv", "electrochem.csv", "instances.ome.tif", "arrival.ome.tif",
    "departure.ome.tif",
)  # fmt: skip

# Rows kept as objects before they go into a table, which takes a quarter of the memory.
_ROWS_HELD = 20_000


@dataclass
class Tabulated:
    """What to say about the tables: warnings, and how the cycler was put on the frames (for ``run.json``)."""

    warnings: list[str] = field(default_factory=list)
    electrochem: dict[str, Any] | None = None


def write_tables(
    segmentation: Segmentation,
    image: Stack | None,
    folder: Path,
    config: AnalysisConfig,
    *,
    source: Path,
    cycler: CyclerFile | None = None,
    doubts: Doubts | None = None,
    widen: Callable[[Frame, list[Measurement]], list[Measurement]] | None = None,
    relabelled: Collection[str] = (),
    progress: Progress = silent,
) -> Tabulated:
    """Measure a segmentation and write everything but the report.

    Parameters
    ----------
    segmentation : Segmentation
    image : Stack or None
    folder : Path
        Gets those of `TABLES` that apply: ``tracks.csv`` and ``events.csv`` where the analysis has the group events,
        ``arrival.ome.tif`` and ``departure.ome.tif`` for 2-D series with the group growth: the time (frame number
        where times are unknown) at which each place was first covered and last uncovered, NaN for never.
    config : AnalysisConfig
    source : Path
        File of the images, or of the labels.
    cycler : CyclerFile or None
    doubts : Doubts or None
        Which rows get the flag ``low-confidence``: those of a frame, and those over time of what is doubtful in most.
    widen : callable or None
        Gives the rows of a frame with what else is uncertain in their intervals (`seg.mask_samples`).
    relabelled : collection of str
        Classes that hold what a model called another one: counts of pits among them are flagged ``ambiguous``.
    progress : Progress
    """
    stack = segmentation.stack
    said = Tabulated(_warnings(stack))
    tracker = make_tracker(config, stack)
    growth = _growth_map(stack, config)
    rows: list[Measurement] = []
    tables: list[pd.DataFrame] = []
    objects: list[pd.DataFrame] = []
    large: set[str] = set()  # what could not be measured because a frame does not fit in memory, and that it does not

    def instances() -> Iterator[np.ndarray]:
        results = measure_frames(
            segmentation, config, image=image, doubts=doubts, tracker=tracker, folder=folder,
            progress=progress,
        )  # fmt: skip
        for result in results:
            if result.frame.on_disk is not None:
                large.update(row.metric for row in result.measurements if row.method.startswith("not measured:"))
                large.add("")
            rows.extend(result.measurements if widen is None else widen(result.frame, result.measurements))
            if len(rows) > _ROWS_HELD:
                tables.append(to_table(rows))
                rows.clear()
            objects.append(result.objects)
            _add(growth, result)
            yield result.instances

    write_image(
        folder / "instances.ome.tif", instances(), shape=stack.shape, dtype=np.dtype(np.int32), axes=stack.axes,
        calibration=stack.calibration,
    )  # fmt: skip
    if large:
        missing = ", ".join(sorted(large - {""}))
        left_out = f"; without a value, as they need it whole: {missing}" if missing else ""
        said.warnings.append(f"The volume does not fit in memory and was measured slab by slab{left_out}.")
    table = pd.concat([*tables, to_table(rows)], ignore_index=True) if tables else to_table(rows)
    electrochem = None
    if cycler is not None:
        placed = place_on_frames(
            cycler, stack.frame_times_s, name=stack.name, image=source, coverage=coverage_of(table, stack.n_frames)
        )
        electrochem = placed.table
        write_table(electrochem, folder / "electrochem.csv")
        said.warnings += placed.warnings
        said.electrochem = {**placed.record, "fingerprint": fingerprint(cycler.path)}
    tracking = tracker.finish() if tracker is not None and not large else None
    history = History(
        table, Scale.of(stack), pd.concat(objects, ignore_index=True), tracking, electrochem,
        tuple(name for name in config.objects.classes if name in segmentation.schema.names),
        _signals(segmentation, image, folder, config, tracking),
    )  # fmt: skip
    if said.electrochem is not None:
        said.electrochem |= history.conditions
    over_time = measure_over_time(history, config)
    if doubts is not None:
        over_time = doubted(over_time, doubts.in_most_frames)
    table = pd.concat([table, to_table(over_time)], ignore_index=True)
    mixed = table["metric"].isin(COUNTED) & table["class"].isin(list(relabelled)) & table["value"].gt(0)
    table.loc[mixed, "flags"] = [f"{flags};ambiguous".lstrip(";") for flags in table.loc[mixed, "flags"].fillna("")]
    # Last of all: this error is the same in every row, where those before it are independent between frames.
    table = with_pixel_size_error(table, pixel_size_rel_sd(stack, config) or 0.0)
    write_table(table, folder / "metrics.csv")
    write_table(history.objects, folder / "objects.csv")
    if tracking is not None:
        write_table(tracking.tracks, folder / "tracks.csv")
        write_table(tracking.events, folder / "events.csv")
    if growth is not None and growth.changed:
        still = replace(stack.calibration, frame_times_s=None)
        for name, times in (("arrival", growth.arrival), ("departure", growth.departure)):
            write_image(
                folder / f"{name}.ome.tif", [times], shape=times.shape, dtype=times.dtype, axes="yx", calibration=still
            )
    return said


def _signals(
    segmentation: Segmentation, image: Stack | None, folder: Path, config: AnalysisConfig, tracking: Tracking | None
) -> pd.DataFrame | None:
    """Grey values at the sites of newborn objects, where births are to be dated and there is an image."""
    asked = bool(config.metrics.get("nucleation", {}).get("date_births"))
    if not asked or image is None or tracking is None or tracking.n_frames < 2:
        return None
    instances = open_stack(folder / "instances.ome.tif")
    return site_signals(image, instances.frame, tracking.tracks, scale=Scale.of(segmentation.stack))


def pixel_size_rel_sd(stack: Stack, config: AnalysisConfig) -> float | None:
    """What is known of the error of the pixel size: from the input, else from the analysis; None: nothing."""
    if stack.spacing_um is None:
        return None
    stated = stack.calibration.pixel_size_rel_sd
    return config.pixel_size_rel_sd if stated is None else stated


def coverage_of(table: pd.DataFrame, n_frames: int) -> np.ndarray | None:
    """Covered area (volume, in 3-D) of each frame; None where the analysis does not measure it."""
    for metric in ("volume", "covered_area"):
        rows = table[(table["metric"] == metric) & table["frame"].notna() & table["object_id"].isna()]
        if len(rows):
            rows = rows.drop_duplicates("frame").set_index("frame")["value"]
            return rows.reindex(range(n_frames)).to_numpy(float)
    return None


def _growth_map(stack: Stack, config: AnalysisConfig) -> GrowthMap | None:
    if "growth" not in config.metrics or stack.n_frames < 2 or stack.spatial_axes != "yx":
        return None
    return GrowthMap(stack.spatial_shape, config.metrics["growth"].get("classes", ("deposit", "dendrite")))


def _add(growth: GrowthMap | None, result: FrameResult) -> None:
    if growth is not None:
        growth.add(result.frame, result.drift_px)


def _warnings(stack: Stack) -> list[str]:
    warnings = []
    if stack.spacing_um is None:
        warnings.append("The input has no pixel size: lengths are in pixels and no areal density per cm2 is given.")
    if stack.n_frames > 1 and stack.frame_times_s is None:
        warnings.append("The input has no frame times: rates are per frame.")
    return warnings
