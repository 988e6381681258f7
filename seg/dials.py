"""What faults of the instrument do to numbers: twins at several dials, measured from true and from predicted masks.

``python -m seg.dials --out DIR`` draws the same few small twins of each scene at the dials 0, 0.5 and 1 (0: hardly any
blur, noise and drift; 1: as bad as published), segments them with the model of the preset, and writes ``dials.csv``
and ``dials.md``: the error of every number from the true masks, and from those of the model at each dial.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from seg.analysis import AnalysisConfig, load_analysis
from seg.errors import SegError
from seg.io import open_stack, read_labels
from seg.io.results import write_table
from seg.masks import labels_of
from seg.metrics.names import text_result
from seg.metrics.table import read_table
from seg.options import RunOptions
from seg.pipeline import predict
from seg.synthetic import make_experiment, write_experiment
from seg.tabulate import write_tables

logger = logging.getLogger(__name__)

DIALS = (0.0, 0.5, 1.0)
# Errors of these are differences; all others are shares of the truth.
PLAIN = (
    "void_fraction", "contact_loss_fraction", "dead_fraction", "covered_fraction", "sei_coverage",
    "crystalline_fraction", "porosity", "memory_fraction", "interface_area_ratio", "percolates",
)  # fmt: skip
COLUMNS = ("scene", "metric", "masks", "dial", "n", "refused", "bias", "spread", "relative", "unit")


@dataclass(frozen=True)
class Scene:
    """A kind of twin, and the numbers that are compared with its truth.

    Parameters
    ----------
    family : str
        Of `seg.synthetic.make_experiment`.
    options : mapping
        Of the family.
    preset : str
        Analysis.
    metrics : tuple of str
        Numbers of the last frame, or else of the whole series.
    groups : tuple of str
        Metric groups of the preset that are measured.
    changes : mapping of str to mapping
        Options of groups, where they differ from the preset.
    word : str
        The ``morphology_class`` of these twins, if they are to be recognised.
    """

    family: str
    options: Mapping[str, Any]
    preset: str
    metrics: tuple[str, ...]
    groups: tuple[str, ...]
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    word: str = ""


_TREE = ("skeleton_length", "tip_count", "branch_point_count", "branch_width", "dendrite_height", "tip_velocity")
_SMALL = {"shape_px": (256, 384), "n_frames": 4, "burnt_in": False}


def _kind(word: str, kind: str, **options: Any) -> Scene:
    drawn = {"kind": kind, **_SMALL, "n_frames": 2, **options}
    return Scene("dendrite", drawn, "sem", ("morphology_class",), ("morphology",), {}, word)


SCENES: dict[str, Scene] = {
    "dendrites, side view (optical)": Scene(
        "dendrite", {**_SMALL, "modality": "optical", "orders": 1}, "optical-profile", _TREE, ("dendrite",),
    ),
    "dendrites, side view (SEM)": Scene("dendrite", {**_SMALL, "orders": 1}, "sem", _TREE, ("dendrite",)),
    "needles (SEM)": _kind("needle", "needle"),
    "columns (SEM)": _kind("columnar", "columnar", width_um=4.0, height_share=0.5),
    "ferns (SEM)": _kind("fractal", "fern"),
    "moss (SEM)": _kind("mossy", "moss"),
    "pits (optical)": Scene(
        "pits", {"n_frames": 12, "burnt_in": False}, "optical-pits",
        ("pit_count", "pit_density", "pit_diameter", "pit_opening_area", "pit_rate_major", "pit_rate_minor",
         "pit_anisotropy", "rim_enrichment", "memory_fraction"),
        ("pits", "events"), {"pits": {"band_um": 2.0}},  # as wide as the twin's
    ),
    "dead metal (optical)": Scene(
        "dead", {"n_frames": 8, "burnt_in": False}, "optical-profile",
        ("dead_fraction", "darkening_front_height", "detachment_count", "compact_interphase_thickness", "porosity"),
        ("dead", "layers", "cover"), {"cover": {"pore_classes": ["electrolyte"]}},
    ),
    "SEI (cryo-EM)": Scene(
        "sei", {"burnt_in": False}, "cryoem-sei",
        ("sei_thickness_mean", "sei_thickness_sd", "sei_coverage", "core_to_sei_ratio"),
        ("sei",),
    ),
    "cell with voids (X-ray CT)": Scene(
        "interface", {"shape_px": (80, 96, 96)}, "xct-cell",
        ("void_fraction", "void_count", "void_diameter", "contact_loss_fraction", "interface_area",
         "penetration_depth", "dead_fraction", "deposit_volume"),
        ("voids", "filaments", "dead", "cover", "balance"),
    ),
}  # fmt: skip


def study(
    name: str, out: Path, *, twins: int = 4, dials: Sequence[float] = DIALS, seed: int = 0, model: str | None = None
) -> pd.DataFrame:
    """Draw, segment and measure the twins of one scene.

    Parameters
    ----------
    name : str
        A key of `SCENES`.
    out : Path
        Gets a folder per twin and dial.
    twins : int
    dials : sequence of float
    seed : int
        Of the first twin.
    model : str or None
        Name or folder; None: that of the preset.

    Returns
    -------
    DataFrame
        One row per metric, masks (``true`` or ``model``) and dial: mean (``bias``) and standard deviation (``spread``)
        of the errors, as shares of the truth where ``relative``; ``n`` twins gave a number and ``refused`` did not.
        A ``morphology_class`` has the share of the twins that were recognised as ``bias``.
    """
    scene = SCENES[name]
    preset = load_analysis(scene.preset)
    groups = {group: {**preset.metrics.get(group, {}), **scene.changes.get(group, {})} for group in scene.groups}
    config = replace(preset, metrics=groups, **({} if model is None else {"model": model}))
    found: list[dict[str, Any]] = []
    for dial in dials:
        made = [make_experiment(scene.family, seed + k, dial=dial, **scene.options) for k in range(twins)]
        folders = [write_experiment(one, out / f"dial_{dial:g}" / f"twin_{k}") for k, one in enumerate(made)]
        images = [folder / "image.ome.tif" for folder in folders]
        results = predict(images, config, out / f"dial_{dial:g}" / "masks", RunOptions())
        masks = {"model": [labels_of(result.folder) for result in results]}
        if dial == dials[0]:  # the true masks are the same at every dial
            masks["true"] = [folder / "labels.ome.tif" for folder in folders]
        for kind, paths in masks.items():
            for folder, path in zip(folders, paths, strict=True):
                measured = _measured(path, folder, config, folder / kind)
                truth = read_table(folder / "truth.csv")
                found += [{"masks": kind, "dial": dial, **row} for row in compare(measured, truth, scene)]
        logger.info("%s, dial %g", name, dial)
    return summarise(found, scene=name)


def _measured(labels: Path, twin: Path, config: AnalysisConfig, out: Path) -> pd.DataFrame:
    segmentation, image = read_labels(labels), open_stack(twin / "image.ome.tif")
    # Times and pixel size of the twin hold for both masks.
    stack = replace(segmentation.stack, calibration=image.calibration)
    out.mkdir(parents=True, exist_ok=True)
    write_tables(replace(segmentation, stack=stack), image, out, config, source=labels)
    return read_table(out / "metrics.csv")


def compare(measured: pd.DataFrame, truth: pd.DataFrame, scene: Scene) -> list[dict[str, Any]]:
    """The error of every number of a scene, at the last frame that has a true one or over the series."""
    rows = []
    for metric in scene.metrics:
        mine = _whole(measured, metric)
        if metric == "morphology_class":
            last = mine[mine["frame"] == mine["frame"].max()]
            words = [text_result(metric, method) for method in last["method"]]
            rows.append({"metric": metric, "error": float(words == [scene.word]), "relative": False, "unit": "1"})
            continue
        true = _whole(truth, metric)
        true = true[true["frame"].isna() | (true["frame"] == true["frame"].max())].iloc[-1]
        mine = mine[mine["frame"].isna() if pd.isna(true["frame"]) else mine["frame"] == true["frame"]]
        of_class = mine[mine["class"] == true["class"]]
        value = float((of_class if len(of_class) else mine)["value"].iloc[0]) if len(mine) else math.nan
        relative = metric not in PLAIN
        error = (value - true["value"]) / (abs(true["value"]) if relative else 1.0)
        rows.append({"metric": metric, "error": error, "relative": relative, "unit": true["unit"]})
    return rows


def _whole(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Rows of a metric that are of a whole frame or series."""
    return table[(table["metric"] == metric) & table["object_id"].isna() & table["side"].fillna("").eq("")]


def summarise(found: Sequence[Mapping[str, Any]], *, scene: str) -> pd.DataFrame:
    """Mean and spread of the errors of each metric, for each kind of masks and dial."""
    rows = []
    for (metric, masks, dial), part in pd.DataFrame(found).groupby(["metric", "masks", "dial"], sort=False):
        given = part["error"][np.isfinite(part["error"])]
        spread = given.std(ddof=1) if len(given) > 1 else math.nan
        rows.append(
            (scene, metric, masks, dial, len(given), len(part) - len(given), given.mean(), spread,
             bool(part["relative"].iloc[0]), part["unit"].iloc[0])
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_markdown(table: pd.DataFrame) -> str:
    """One line per scene and metric: the error from the true masks, and from the model's at each dial.

    Mean, its 95 % interval (Student's t) and the standard deviation over the twins.
    """
    dials = sorted(table["dial"].unique())
    lines = [
        f"| metric | true masks | {' | '.join(f'model, dial {dial:g}' for dial in dials)} |",
        f"|---|---|{'---|' * len(dials)}",
    ]
    for scene, part in table.groupby("scene", sort=False):
        lines.append(f"| **{scene}** | |{' |' * len(dials)}")
        for metric, rows in part.groupby("metric", sort=False):
            cells = [_cell(rows[rows["masks"] == "true"])]
            cells += [_cell(rows[(rows["masks"] == "model") & (rows["dial"] == dial)]) for dial in dials]
            lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    row = rows.iloc[0]
    if row["metric"] == "morphology_class":
        return f"{round(row['bias'] * row['n'])} of {row['n']}"
    if not row["n"]:
        return "refused"
    size, unit = (100, " %") if row["relative"] else (1, "")
    refused = f" ({row['refused']} refused)" if row["refused"] else ""
    bias, spread = size * row["bias"], size * row["spread"]
    if math.isnan(spread):
        return f"{_signed(bias)}{unit}{refused}"
    error = float(stats.t.ppf(0.975, row["n"] - 1)) * spread / math.sqrt(row["n"])
    interval = f" [{_signed(bias - error)}, {_signed(bias + error)}]" if error else ""
    return f"{_signed(bias)}{interval} +- {_short(spread)}{unit}{refused}"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_short(abs(value))}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.2g}"


def main() -> int:
    """Run the scenes, or those named."""
    parser = argparse.ArgumentParser(prog="python -m seg.dials", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--twins", type=int, default=4, metavar="N", help="of each scene (default: 4)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: that of the preset")
    parser.add_argument("--scenes", nargs="+", choices=list(SCENES), default=list(SCENES), metavar="NAME")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    tables = []
    try:
        for number, name in enumerate(args.scenes):
            tables.append(study(name, args.out / f"{number:02d}", twins=args.twins, seed=args.seed, model=args.model))
            table = pd.concat(tables, ignore_index=True)
            write_table(table, args.out / "dials.csv")
            (args.out / "dials.md").write_text(as_markdown(table), encoding="utf-8")
    except SegError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
