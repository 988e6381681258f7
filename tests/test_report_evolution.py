"""The figures over time: made from saved tables, left out where the tables do not hold them."""

import base64
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.metrics.table import Measurement, to_table
from seg.report.evolution import evolution, object_diameters
from seg.report.saved import read_saved
from seg.report.series import axes_of, in_report_units, series_of

_spec = importlib.util.spec_from_file_location("report_folder", Path(__file__).with_name("report_folder.py"))
report_folder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(report_folder)


@pytest.fixture
def folder(tmp_path):
    return report_folder.build(tmp_path / "made")


def add(folder, rows):
    """Append rows to the metrics of a folder."""
    table = pd.read_csv(folder / "metrics.csv")
    pd.concat([table, to_table(rows)], ignore_index=True).to_csv(folder / "metrics.csv", index=False)


def figures(folder):
    saved = read_saved(folder)
    metrics = in_report_units(saved.metrics, saved.modality.length_unit)
    made = evolution(saved, metrics, series_of(metrics), axes_of(saved)[0], *object_diameters(saved, metrics))
    return {figure["title"]: figure for figure in made}


def svg(figure):
    return base64.b64decode(figure["uri"].split(",")[1]).decode()


def test_sizes_and_their_quantiles(folder):
    figure = figures(folder)["Sizes over time"]
    assert figure["wide"]
    text = svg(figure)
    # Five histograms, the last of all 34 discs that the folder holds.
    assert text.count("n = ") == 5
    assert "n = 34" in text
    assert "median" in figure["caption"]
    assert "detection limit" in figure["caption"]


def test_area_and_angle_share_the_time_axis(folder):
    assert "Area and contact angle" not in figures(folder)  # no area yet
    times = json.loads((folder / "run.json").read_text())["input"]["frame_times_s"]
    rows = [
        Measurement("covered_area", 50 + 3 * t, "um2", 45 + 3 * t, 55 + 3 * t, "deposit", k, t)
        for k, t in enumerate(times)
    ]
    rows.append(Measurement("area_rate", 3.0, "um2/s", 2.9, 3.1, "deposit", side="plating"))
    rows.append(Measurement("contact_angle", 31.0, "deg", 29.0, 33.0, "deposit", side="receding"))
    rows.append(Measurement("stripping_regime", 0.9, "1", class_name="deposit", method="mixed: 0.5 of the loss"))
    add(folder, rows)
    figure = figures(folder)["Area and contact angle"]
    text = svg(figure)
    assert "receding" in text
    assert "plating" in text
    assert "plating 3.00 [2.90, 3.10]" in figure["caption"]
    assert figure["caption"].endswith("Stripping: mixed.")


def test_nucleation_with_its_laws(folder):
    """300 births of the saturating law with A = 0.005/s over 570 s; frames short against 1/A leave no burst open."""
    run = json.loads((folder / "run.json").read_text())
    run["analysis"]["metrics"]["nucleation"] = {"onset_s": 0.0}
    (folder / "run.json").write_text(json.dumps(run))
    times = np.array(run["input"]["frame_times_s"])
    total = np.rint(300 * (1 - np.exp(-0.005 * times))).astype(int)
    rows = []
    for k, t in enumerate(times):
        where = {"class_name": "deposit", "frame": k, "time_s": float(t)}
        density = total[k] * 1e4
        rows.append(Measurement("birth_count", int(total[k] - total[k - 1]) if k else 0, "1", **where))
        rows.append(Measurement("valid_area", 1e4, "um2", frame=k, time_s=float(t)))
        rows.append(Measurement("nucleation_density", density, "1/cm2", 0.9 * density, 1.1 * density, **where))
    table = pd.read_csv(folder / "metrics.csv")
    table.loc[table["metric"] == "object_count", "value"] = total.astype(float)
    table.to_csv(folder / "metrics.csv", index=False)
    add(folder, rows)
    figure = figures(folder)["Nucleation over time"]
    assert "the saturating law is chosen" in figure["caption"]
    text = svg(figure)
    for law in ("instantaneous", "progressive", "saturating", "mixed"):
        assert f"{law} (" in text
    again = svg(figures(folder)["Nucleation over time"])
    assert text == again


def test_a_single_frame_has_no_figure_over_time(tmp_path):
    assert figures(report_folder.build(tmp_path / "one", n_frames=1)) == {}


def test_numbers_that_are_missing_leave_gaps_not_errors(folder):
    table = pd.read_csv(folder / "metrics.csv")
    table.loc[table["metric"].isin(["contact_angle", "covered_fraction"]), ["value", "low", "high"]] = math.nan
    table.to_csv(folder / "metrics.csv", index=False)
    assert "Area and contact angle" not in figures(folder)
