"""Experiments of the in situ TEM letter, drawn, measured and compared with their truth, one command each.

``python -m seg.worked X03 --out DIR`` draws the twin, measures it from its true masks and from its images through the
segmentation model, and writes both reports, ``comparison.csv`` and ``comparison.md``. ``X01`` is the histogram of
sizes over time, ``X02`` the nucleation mode, ``X03`` area and contact angle while metal is plated and stripped.

References
----------
Wang, X. et al. (2023). ACS Energy Lett.: lithium on carbon fibres under a bias, in the transmission electron
microscope.
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

from seg.analysis import load_analysis
from seg.errors import SegError, UsageError
from seg.io.results import write_table
from seg.metrics.growth import measure_series
from seg.metrics.names import text_result
from seg.metrics.table import read_table
from seg.pipeline import RunOptions, measure, run
from seg.synthetic import make_experiment, write_experiment

logger = logging.getLogger(__name__)

# Nuclei of tens of nm on a wide stretch of support, at 20 frames per second; the bias is switched on at frame 0.
_NUCLEI: dict[str, Any] = {
    "shape_px": (160, 1792), "pixel_um": (0.00165, 0.0016), "n_frames": 17, "frame_interval_s": 0.05,
    "support": "tilted", "tilt_deg": 0.8, "n_droplets": 42, "instantaneous_fraction": 0.4, "rate_constant_per_s": 8.0,
    "rate_spread": 0.35, "area_rate_um2_s": 0.0015, "coalescence": True, "plating_share": 1.0, "burnt_in": False,
}  # fmt: skip
# The same over three times the length: with 42 births a law that mixes two others is often left open.
_MANY = _NUCLEI | {"shape_px": (160, 5120), "n_droplets": 120}
# One droplet that gains 5000 nm2/s for 34 s, turns into facets at a few hundred nm, and is stripped to 30 degrees.
_DROPLET: dict[str, Any] = {
    "shape_px": (256, 576), "pixel_um": (0.00315, 0.003), "n_frames": 60, "n_droplets": 1, "area_rate_um2_s": 0.005,
    "rate_spread": 0.0, "plating_share": 0.58, "plating_angle_deg": 55.0, "receding_angle_deg": 30.0,
    "facet_diameter_um": 0.47, "facet_count": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Worked:
    """An experiment: its twins, and the numbers that are compared with the truth.

    Parameters
    ----------
    title : str
    twins : mapping of str to mapping
        Name -> options of the family ``droplet``.
    metrics : tuple of str
    options : mapping
        Of metric groups, where they differ from the preset ``tem-insitu``.
    without : tuple of str
        Groups of the preset that say nothing here; contact angles of hundreds of nuclei take minutes.
    seed : int
    early_s : float, optional
        The rate of area is also compared over the frames up to this time.
    known : mapping of str to str
        Side of the contact angle -> parameter of the twin that it should be.
    """

    title: str
    twins: Mapping[str, Mapping[str, Any]]
    metrics: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    without: tuple[str, ...] = ()
    seed: int = 3
    early_s: float | None = None
    known: Mapping[str, str] = field(default_factory=dict)


# The bias is on from frame 0; a nucleus reaches the detection limit one to two frames after its birth.
_BIAS_ON = {"nucleation": {"onset_s": 0.0, "date_births": True}}
WORKED: dict[str, Worked] = {
    "X01": Worked(
        "Size histogram of nuclei over time", {"nuclei": _NUCLEI},
        ("object_count", "mean_equivalent_diameter", "nucleation_density", "merge_count"), _BIAS_ON,
        ("wetting", "facets"), 1,
    ),
    "X02": Worked(
        "Nucleation mode",
        {
            "instantaneous": _MANY | {"instantaneous_fraction": 1.0},
            "mixed": _MANY,
            "saturating": _MANY | {"instantaneous_fraction": 0.0},
        },
        ("nucleation_mode", "instantaneous_fraction", "nucleation_rate_constant", "nucleation_density"), _BIAS_ON,
        ("wetting", "facets"), 1,
    ),
    "X03": Worked(
        "Area and contact angle against time", {"droplet": _DROPLET},
        ("covered_area", "contact_angle", "area_rate", "stripping_regime"), {}, early_s=15.0,
        known={"advancing": "plating_angle_deg", "receding": "receding_angle_deg"},
    ),
}  # fmt: skip


def work(name: str, out: Path, *, model: str | None = None, images: bool = True) -> pd.DataFrame:
    """Draw, measure and compare one experiment.

    Parameters
    ----------
    name : str
        A key of `WORKED`.
    out : Path
        Gets a folder per twin with its data and both sets of results, and the comparison.
    model : str, optional
        Name or folder; default: that of the analysis.
    images : bool
        Also measure from the images, through the model.

    Returns
    -------
    DataFrame
        See `compare`; with the columns ``twin`` and ``masks`` (``true`` or the name of the model).
    """
    if name not in WORKED:
        raise UsageError(f"There is no worked experiment {name!r}; there are {', '.join(WORKED)}.")
    worked, tables = WORKED[name], []
    preset = load_analysis("tem-insitu")
    groups = {
        group: {**options, **worked.options.get(group, {})}
        for group, options in preset.metrics.items()
        if group not in worked.without
    }
    config = replace(preset, metrics=groups, **({} if model is None else {"model": model}))
    for twin, options in worked.twins.items():
        made = make_experiment("droplet", worked.seed, **options)
        data = write_experiment(made, out / twin / "twin")
        given = RunOptions(
            echem=data / "cycler.csv", echem_offset_s=made.clock_offset_s, image=data / "image.ome.tif",
            command=f"python -m seg.worked {name}",
        )  # fmt: skip
        results = {"true": measure([data / "labels.ome.tif"], config, out / twin / "from_true_masks", given)}
        if images:
            results["model"] = run(
                [data / "image.ome.tif"], config, out / twin / "from_images", replace(given, image=None)
            )
        truth = made.truth_table()
        for masks, (result,) in results.items():
            if result.error:
                raise SegError(f"{twin}, {masks} masks: {result.error}")
            metrics = read_table(result.folder / "metrics.csv")
            found = compare(truth, metrics, worked.metrics)
            for side, parameter in worked.known.items():
                found = _against(found, "contact_angle", side, float(options[parameter]))
            if worked.early_s is not None:
                found = pd.concat([found, _early_rate(truth, metrics, worked.early_s)], ignore_index=True)
            found.insert(0, "masks", masks)
            found.insert(0, "twin", twin)
            tables.append(found)
    table = pd.concat(tables, ignore_index=True)
    write_table(table, out / "comparison.csv")
    (out / "comparison.md").write_text(as_markdown(table), encoding="utf-8", newline="\n")
    return table


COLUMNS = ("metric", "side", "unit", "truth", "value", "low", "high", "mean_error", "rms_error", "held", "n")


def compare(truth: pd.DataFrame, metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Compare rows of a result with those of the truth.

    Parameters
    ----------
    truth, metrics : DataFrame
        With the columns of ``metrics.csv``.
    names : sequence of str
        Metrics that both have.

    Returns
    -------
    DataFrame
        One row per metric and side. A number of the whole series has ``truth``, ``value``, ``low`` and ``high``
        (results that are words stand in `truth` and `value`). One of every frame has the mean and the root mean square
        of its errors over the `n` frames where both are known; ``held`` counts the intervals that hold the truth.
        Where the truth is known per object only, its mean over the objects of a frame is taken.
    """
    rows = []
    for name in names:
        true, measured = (table[table["metric"] == name] for table in (truth, metrics))
        measured = measured[measured["object_id"].isna()]
        whole_true = true[true["frame"].isna() & true["object_id"].isna()]
        whole = measured[measured["frame"].isna()]
        for _, row in whole.iterrows():
            reference = whole_true["value"].iloc[0] if len(whole_true) else _slope_of(truth, name, str(row["side"]))
            words = text_result(name, str(row["method"])), whole_true["method"].iloc[0] if len(whole_true) else None
            if words[0] is not None:
                given = words[0] if pd.notna(row["value"]) else "not reported"
                rows.append((name, row["side"], "", words[1], given, *[math.nan] * 5, 1))
                continue
            error = row["value"] - reference
            held = float(row["low"] <= reference <= row["high"]) if pd.notna(row["low"]) else math.nan
            rows.append(
                (name, row["side"], row["unit"], reference, row["value"], row["low"], row["high"], error, abs(error),
                 held, 1)
            )  # fmt: skip
        rows += _by_frame(name, true[true["frame"].notna()], measured[measured["frame"].notna()])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _by_frame(name: str, true: pd.DataFrame, measured: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Errors over the frames; the first method of each frame counts."""
    true = true[true["side"].isin(["", "mean"])]
    of_frames = true[true["object_id"].isna()] if true["object_id"].isna().any() else true
    reference = of_frames.groupby("frame")["value"].mean()
    measured = measured[measured["side"].isin(["", "mean"])].drop_duplicates("frame").set_index("frame")
    both = measured.join(reference.rename("truth"), how="inner").dropna(subset=["value", "truth"])
    if both.empty:
        return []
    error = (both["value"] - both["truth"]).to_numpy(float)
    bounded = both[both["low"].notna()]
    held = ((bounded["low"] <= bounded["truth"]) & (bounded["truth"] <= bounded["high"])).sum()
    return [
        (
            name, "each frame", both["unit"].iloc[0], math.nan, math.nan, math.nan, math.nan, error.mean(),
            float(np.sqrt(np.mean(error**2))), float(held) if len(bounded) else math.nan, len(both),
        )
    ]  # fmt: skip


def _against(table: pd.DataFrame, metric: str, side: str, truth: float) -> pd.DataFrame:
    """Fill in the truth of a number of the whole series that no row of the truth states."""
    at = (table["metric"] == metric) & (table["side"] == side)
    error = table.loc[at, "value"].astype(float) - truth
    held = (table.loc[at, "low"] <= truth) & (truth <= table.loc[at, "high"])
    table.loc[at, ["truth", "mean_error", "rms_error", "held"]] = np.column_stack(
        [np.full(len(error), truth), error, error.abs(), held.astype(float)]
    )
    return table


def _early_rate(truth: pd.DataFrame, metrics: pd.DataFrame, until_s: float) -> pd.DataFrame:
    """Rate of the covered area over the first frames, by the function that gives the rate of a series."""
    early = metrics[metrics["time_s"].le(until_s) & (metrics["metric"] == "covered_area")]
    (row,) = [row for row in measure_series(early) if row.metric == "area_rate" and row.frame is None]
    rates = truth[truth["time_s"].le(until_s) & (truth["metric"] == "area_rate") & (truth["value"] > 0)]["value"]
    reference = float(rates.median())
    error, held = row.value - reference, float(row.low <= reference <= row.high)
    return pd.DataFrame(
        [("area_rate", f"first {until_s:g} s", row.unit, reference, row.value, row.low, row.high, error, abs(error),
          held, 1)],
        columns=list(COLUMNS),
    )  # fmt: skip


def _slope_of(truth: pd.DataFrame, name: str, side: str) -> float:
    """Mean of the true rates from frame to frame while metal is plated (stripped); NaN for other metrics."""
    rates = truth[(truth["metric"] == name) & truth["frame"].notna() & truth["object_id"].isna()]["value"]
    chosen = rates[rates > 0] if side == "plating" else rates[rates < 0] if side == "stripping" else rates
    return float(chosen.median()) if len(chosen) else math.nan


def as_markdown(table: pd.DataFrame) -> str:
    """The comparison as a table to read."""
    lines = [
        "| twin | masks | metric | truth | value [95 %] | error (mean, rms) | intervals that hold |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        if isinstance(row.value, str):
            truth, value, error, held = str(row.truth), row.value, "", ""
        else:
            truth = _short(row.truth)
            value = "" if math.isnan(row.value) else f"{_short(row.value)} [{_short(row.low)}, {_short(row.high)}]"
            error = f"{_short(row.mean_error)}, {_short(row.rms_error)} {row.unit}"
            held = "" if math.isnan(row.held) else f"{row.held:.0f} of {row.n}"
        side = f" ({row.side})" if row.side else ""
        lines.append(f"| {row.twin} | {row.masks} | {row.metric}{side} | {truth} | {value} | {error} | {held} |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return "" if not isinstance(value, float) or math.isnan(value) else f"{value:.4g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worked experiment from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m seg.worked", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("name", choices=sorted(WORKED))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", metavar="NAME|DIR", help="default: that of the analysis")
    parser.add_argument("--masks-only", action="store_true", help="leave the images and the model out")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        table = work(args.name, args.out, model=args.model, images=not args.masks_only)
    except SegError as error:
        logger.error("%s", error)  # noqa: TRY400
        return error.exit_code
    sys.stdout.write(as_markdown(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
