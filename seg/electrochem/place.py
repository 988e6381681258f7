"""A cycler file put on the frames of an image series, as the user said or as the data tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from seg.electrochem.align import align_to_frames
from seg.electrochem.clock import find_clock_offset
from seg.electrochem.file_times import offset_from_files
from seg.electrochem.table import read_cycler
from seg.errors import DataError

CLOCKS = ("offset", "files", "coverage")


@dataclass(frozen=True)
class CyclerFile:
    """A cycler file and what is known of its clock.

    Parameters
    ----------
    path : Path
    clock : {"offset", "files", "coverage"}
        Where the offset comes from: `offset_s`, the dates in both files, or the correlation of coverage and current.
    offset_s : float or None
        What the image clock shows at the cycler's zero. None: taken to be 0, with a warning.
    drift_s_per_h : float
        How much the image clock gains.
    electrode_area_cm2 : float or None
    plating_current : {"negative", "positive"}
        Sign of the current that plates.
    """

    path: Path
    clock: Literal["offset", "files", "coverage"] = "offset"
    offset_s: float | None = None
    drift_s_per_h: float = 0.0
    electrode_area_cm2: float | None = None
    plating_current: Literal["negative", "positive"] = "negative"


@dataclass(frozen=True)
class Placed:
    """The cycler's quantities at each frame, how they got there (for ``run.json``) and what to warn of."""

    table: pd.DataFrame
    record: dict[str, Any]
    warnings: tuple[str, ...]


def place_on_frames(
    given: CyclerFile,
    frame_times_s: Sequence[float] | None,
    *,
    name: str,
    image: Path,
    coverage: Sequence[float] | None = None,
) -> Placed:
    """Read a cycler file and put it on the clock of the images.

    Parameters
    ----------
    given : CyclerFile
    frame_times_s : sequence of float or None
    name : str
        What messages call the series.
    image : Path
        Its file, for ``clock="files"``.
    coverage : sequence of float or None
        One value per frame, for ``clock="coverage"``.

    Raises
    ------
    DataError
        Without frame times, or where the offset that was asked for cannot be found.
    """
    if frame_times_s is None:
        raise DataError(
            f"{name!r} has no frame times, so {given.path.name} cannot be put on its clock; "
            "pass --frame-interval, such as 2s."
        )
    times = np.asarray(frame_times_s, float)
    cycler = read_cycler(given.path, plating_current=given.plating_current)
    record: dict[str, Any] = {"path": str(given.path), "clock": given.clock}
    warnings = []
    if given.clock == "coverage":
        if coverage is None:
            raise DataError(
                "To find the clock's offset from the coverage the analysis needs the group cover; add `cover: {}`."
            )
        drifting = cycler.assign(time_s=cycler["time_s"] * (1 + given.drift_s_per_h / 3600))
        found = find_clock_offset(times, coverage, drifting)
        offset_s = found.offset_s
        record |= {"offset_low_s": found.low_s, "offset_high_s": found.high_s, "offset_score": found.score,
                   "offset_chance": found.chance}  # fmt: skip
    elif given.clock == "files":
        offset_s = offset_from_files(image, given.path) + float(times[0])
    else:
        offset_s = 0.0 if given.offset_s is None else given.offset_s
        if given.offset_s is None:
            warnings.append(
                "No offset between the clocks was given: image time and cycler time are taken to start together."
            )
    table = align_to_frames(
        cycler, times, offset_s=offset_s, drift_s_per_h=given.drift_s_per_h,
        electrode_area_cm2=given.electrode_area_cm2,
    )  # fmt: skip
    outside = int(table["voltage_V"].isna().sum()) if cycler["voltage_V"].notna().any() else 0
    if outside == len(table):
        end = f"{cycler['time_s'].iloc[0] + offset_s:.4g} to {cycler['time_s'].iloc[-1] + offset_s:.4g} s"
        raise DataError(
            f"No frame of {name!r} ({times[0]:.4g} to {times[-1]:.4g} s) lies within {given.path.name} ({end} on the "
            "clock of the images); check the offset."
        )
    if outside:
        warnings.append(f"{outside} of {len(table)} frames lie outside of the cycler's record.")
    record |= {"offset_s": offset_s, "drift_s_per_h": given.drift_s_per_h, "area_cm2": given.electrode_area_cm2}
    return Placed(table, {k: _plain(v) for k, v in record.items()}, tuple(warnings))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
