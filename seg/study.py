"""Several inputs as one study: how the density of objects follows the current density."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from seg.metrics.nucleation import density_current_slope
from seg.metrics.table import Measurement, read_table

# What stands for the density of an input, the first that it has: births to date, else the objects of the last frame.
_DENSITIES = ("nucleation_density", "areal_density")


def density_against_current(folders: Sequence[Path]) -> Measurement | None:
    """Slope of log density against log current density over result folders.

    Parameters
    ----------
    folders : sequence of Path
        Those of one run. Folders without a mean plating current density (no cycler file, no electrode area) or
        without a density per cm2 are left out.

    Returns
    -------
    Measurement or None
        None for fewer than two folders, or where all have the same current density.
    """
    fields = [field for field in map(_field, folders) if field is not None]
    if len({round(current, 12) for _, _, current in fields}) < 2:
        return None
    counts, areas, currents = zip(*fields, strict=True)
    return density_current_slope(counts, areas, currents)


def _field(folder: Path) -> tuple[int, float, float] | None:
    """Objects of an input, the area they refer to in cm2, and its current density."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        table = read_table(folder / "metrics.csv")
    except (OSError, ValueError):
        return None
    current = (run.get("electrochem") or {}).get("current_density_mA_per_cm2")
    if not current or not math.isfinite(current):
        return None
    for metric in _DENSITIES:
        rows = table[(table["metric"] == metric) & table["frame"].notna() & (table["unit"] == "1/cm2")]
        rows = rows[rows["value"].notna() & rows["n"].notna()]  # not Miles' inversion, which counts nothing
        if rows.empty:
            continue
        last = rows.loc[rows["frame"].astype(int).idxmax()]
        # Of no objects the density says nothing of the area; the valid area is that of the same frame.
        area = float(last["n"]) / float(last["value"]) if last["value"] > 0 else _valid_area_cm2(table, last["frame"])
        if area and area > 0:
            return int(last["n"]), area, float(current)
    return None


def _valid_area_cm2(table: pd.DataFrame, frame: int) -> float | None:
    rows = table[(table["metric"] == "valid_area") & (table["frame"] == frame) & (table["unit"] == "um2")]
    return float(rows["value"].iloc[0]) / 1e8 if len(rows) else None
