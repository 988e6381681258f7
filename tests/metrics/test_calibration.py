"""The error of the pixel size: powers against what a wrong pixel size really does to every number, and coverage."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from seg.analysis import AnalysisConfig, load_analysis
from seg.cli import main
from seg.errors import UsageError
from seg.io import open_stack, parse_rel_sd, read_labels, write_labels
from seg.measure import make_tracker, measure_frames, measure_over_time
from seg.metrics.calibration import pixel_size_power, with_pixel_size_error
from seg.metrics.history import History
from seg.metrics.names import METRIC_UNITS
from seg.metrics.table import Measurement, Scale, read_table, to_table
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack
from seg.uncertainty import poisson_interval

SIZE_UM = {"z": 0.7, "y": 0.4, "x": 0.25}
Z95 = 1.959964


def growing_discs() -> np.ndarray:
    """Labels of six discs on substrate, one born after the other, shape (T, Y, X); round in um, not in pixels."""
    y, x = np.mgrid[:96, :150]
    labels = np.full((4, 96, 150), 2, np.uint8)
    for t in range(4):
        for k, (cy, cx) in enumerate(((24, 24), (24, 75), (24, 124), (70, 30), (70, 80), (66, 128))):
            labels[t][np.hypot((y - cy) * 0.4, (x - cx) * 0.25) < 1.2 + 0.45 * (t - k % 3)] = 3
    return labels


def voids_in_metal() -> np.ndarray:
    """Labels of a volume: electrolyte, separator, metal with two voids at it; shape (1, Z, Y, X)."""
    z, y, x = (i * s for i, s in zip(np.mgrid[:28, :40, :48], SIZE_UM.values(), strict=True))
    labels = np.full(z.shape, 1, np.uint8)
    labels[z > 8] = 9
    labels[z > 12] = 3
    for at in ((13, 6, 4), (16, 9, 9)):
        labels[np.sqrt((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2) < 2.2] = 7
    return labels[np.newaxis]


PLAN = ("counting", "size", "cover", "shape", "events", "growth", "nucleation")
VOLUME = ("counting", "size", "cover", "shape", "voids", "dead", "layers")


@pytest.mark.parametrize(("labels", "axes", "groups"), [
    (growing_discs(), "tyx", PLAN), (voids_in_metal(), "tzyx", VOLUME),
])  # fmt: skip
def test_a_wrong_pixel_size_moves_every_number_by_its_power(labels, axes, groups, schema):
    """All numbers of an analysis, measured at a pixel size and at one 3 % larger."""
    config = AnalysisConfig("all", "all", "", "optical", "plan", {group: {} for group in groups})
    tables = []
    for factor in (1.0, 1.03):
        sizes = {axis: SIZE_UM[axis] * factor for axis in axes[1:]}
        stack = Stack(labels, axes, Calibration(sizes, tuple(2.0 * t for t in range(len(labels)))))
        tracker = make_tracker(config, stack)
        frames = list(measure_frames(Segmentation(stack, schema), config, tracker=tracker))
        table = to_table([row for frame in frames for row in frame.measurements])
        history = History(
            table, Scale.of(stack), pd.concat([frame.objects for frame in frames]),
            None if tracker is None else tracker.finish(), object_classes=("deposit",),
        )  # fmt: skip
        tables.append(pd.concat([table, to_table(measure_over_time(history, config))], ignore_index=True))
    one, other = tables
    assert len(one) == len(other) > 30
    checked = 0
    for a, b in zip(one.itertuples(), other.itertuples(), strict=True):
        assert (a.metric, a.unit) == (b.metric, b.unit)
        if not (math.isfinite(a.value) and math.isfinite(b.value)) or a.value == 0:
            continue
        if a.metric == "size_lognormal_mu":
            assert b.value - a.value == pytest.approx(math.log(1.03), abs=1e-6)
            continue
        power = pixel_size_power(a.metric, a.unit, a.method)
        # Rounding decides ties of the fits: 1e-3 of a number, where the smallest power moves it by 3e-2.
        assert b.value / a.value == pytest.approx(1.03**power, rel=1e-3), (a.metric, a.side)
        checked += power != 0
    assert checked >= 8


@pytest.mark.parametrize(("metric", "unit", "method", "power"), [
    ("equivalent_diameter", "um", "", 1), ("area", "um2", "", 2), ("void_volume", "um3", "", 3),
    ("areal_density", "1/cm2", "", -2), ("nucleation_rate", "1/cm2/s", "", -2), ("volume_density", "1/um3", "", -3),
    ("specific_surface", "1/um", "", -1), ("front_velocity", "um/s", "", 1), ("volume_rate", "um3/s", "", 3),
    ("contact_angle", "deg", "", 0), ("nucleation_rate_constant", "1/s", "", 0), ("area", "px2", "", 0),
    ("local_current_density", "mA/cm2", "Faraday's law on front_velocity (whole)", 1),
    ("local_current_density", "mA/cm2", "5 mA/cm2 over the contact that is left", 0),
    ("void_rate_per_charge", "um3/mAh", "", 1), ("volume_charge_ratio", "1", "", 1), ("sand_time", "s", "", 0),
])  # fmt: skip
def test_powers(metric, unit, method, power):
    assert pixel_size_power(metric, unit, method) == power


def test_the_power_of_every_metric_with_a_current_or_an_energy_is_said():
    """Their units hold a length that is not one of the image, so the unit must not decide."""
    for metric, (unit, _) in METRIC_UNITS.items():
        if any(part in unit for part in ("A/cm2", "J", "nm")):
            assert pixel_size_power(metric, unit) == 0, metric


def test_errors_add_in_quadrature_on_the_side_they_are_on():
    rows = [
        Measurement("area", 10.0, "um2", 9.7, 10.4), Measurement("contact_angle", 60.0, "deg", 58.0, 62.0),
        Measurement("area_rate", -2.0, "um2/s", -2.0, -2.0), Measurement("areal_density", 3.0, "1/cm2", 0.0, 9.0),
        Measurement("perimeter", 4.0, "um"), Measurement("size_lognormal_mu", -0.5, "1", -0.6, -0.4),
    ]  # fmt: skip
    table = with_pixel_size_error(to_table(rows), 0.05)
    grow, shrink = math.expm1(2 * Z95 * 0.05), -math.expm1(-2 * Z95 * 0.05)
    assert table["value"].tolist() == [row.value for row in rows]
    assert table.loc[0, "high"] == pytest.approx(10 + math.hypot(0.4, 10 * grow))
    assert table.loc[0, "low"] == pytest.approx(10 - math.hypot(0.3, 10 * shrink))
    assert table.loc[1, ["low", "high"]].tolist() == [58.0, 62.0]
    assert table.loc[2, ["low", "high"]].tolist() == pytest.approx([-2 * (1 + grow), -2 * (1 - shrink)])
    assert table.loc[3, "low"] == 0.0  # a density is never negative
    assert table.loc[4, ["low", "high"]].isna().all()  # an interval of the pixel size alone would claim too much
    assert table.loc[5, "high"] == pytest.approx(-0.5 + math.hypot(0.1, Z95 * 0.05))
    pd.testing.assert_frame_equal(with_pixel_size_error(to_table(rows), 0.0), to_table(rows))


def test_widened_densities_hold_the_truth_as_often_as_they_claim():
    """Poisson counts on a field whose pixel size is off by 6 % (standard deviation): 2000 fields of 40 objects."""
    rng = np.random.default_rng(5)
    n = rng.poisson(40, 2000)
    area = 0.5 * np.exp(2 * 0.06 * rng.normal(size=len(n)))  # measured; the true area is 0.5
    bounds = [poisson_interval(int(count)) for count in n]
    rows = [
        Measurement("areal_density", count / a, "1/cm2", low / a, high / a)
        for count, a, (low, high) in zip(n, area, bounds, strict=True)
    ]
    shares = [
        float(((t["low"] <= 80) & (t["high"] >= 80)).mean())
        for t in (to_table(rows), with_pixel_size_error(to_table(rows), 0.06))
    ]
    assert shares[0] < 0.92  # counting alone: the error of the area, 12 %, is nearly as large as that of the count
    assert 0.94 < shares[1] < 0.98


def test_the_pixel_size_error_of_the_command_line_sidecar_and_analysis_reaches_table_and_report(tmp_path, schema):
    labels = growing_discs()[-1:]
    path = tmp_path / "discs.ome.tif"
    sizes = {"y": 0.4, "x": 0.25}
    write_labels(path, labels, shape=labels.shape, axes="tyx", calibration=Calibration(sizes), schema=schema)
    widths, said = {}, {}

    def run(name: str, *arguments: str, analysis: str = "short") -> None:
        out = tmp_path / name
        assert (
            main(
                ["measure", str(path), "--analysis", str(tmp_path / f"{analysis}.yaml"), "--out", str(out), *arguments]
            )
            == 0
        )
        row = read_table(next(out.rglob("metrics.csv"))).query("metric == 'mean_equivalent_diameter'").iloc[0]
        widths[name] = float((row["high"] - row["low"]) / 2 / row["value"])
        said[name] = json.loads(next(out.rglob("run.json")).read_text())["input"]["pixel_size_rel_sd"]

    # A few groups do; the report of all takes longer than the rest of this file.
    short = {**json.loads(json.dumps(load_analysis("sem").to_dict())), "metrics": {"counting": {}, "size": {}}}
    for name, doubt in (("short", None), ("known", 0.08)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**short, "pixel_size_rel_sd": doubt}))
    run("unknown")
    (tmp_path / "discs.calibration.yaml").write_text("pixel_size_rel_sd: 0.08\n")
    run("over the sidecar", "--pixel-size-sd", "4%")
    (tmp_path / "discs.calibration.yaml").unlink()
    run("analysis", analysis="known")
    assert said == {"unknown": None, "over the sidecar": 0.04, "analysis": 0.08}
    plain = widths["unknown"]
    # Two-sided ends of the factor differ by 1 % of its width at 8 %; the bootstrap is seeded.
    assert widths["over the sidecar"] == pytest.approx(math.hypot(plain, Z95 * 0.04), rel=0.02)
    assert widths["analysis"] == pytest.approx(math.hypot(plain, Z95 * 0.08), rel=0.02)
    text = next((tmp_path / "over the sidecar").rglob("report.html")).read_text(encoding="utf-8")
    assert "Its standard deviation, 4" in text
    assert "intervals hold no error of the pixel size" in next((tmp_path / "unknown").rglob("report.html")).read_text(
        encoding="utf-8"
    )


def test_another_pixel_size_has_another_error():
    stated = Calibration({"y": 0.4, "x": 0.25}, None, "sidecar", 0.03)
    assert stated.updated(Calibration({"y": 0.5, "x": 0.3}, None, "options")).pixel_size_rel_sd is None
    assert stated.updated(Calibration({}, (0.0, 1.0), "options")).pixel_size_rel_sd == 0.03
    assert stated.updated(Calibration({}, None, "options", 0.01)) == Calibration(
        {"y": 0.4, "x": 0.25}, None, "sidecar", 0.01
    )


def test_our_files_keep_it(tmp_path, schema):
    labels = growing_discs()
    path = tmp_path / "discs.ome.tif"
    known = Calibration({"y": 0.4, "x": 0.25}, (0.0, 1.0, 2.0, 3.5), "file", 0.03)
    write_labels(path, labels, shape=labels.shape, axes="tyx", calibration=known, schema=schema)
    assert read_labels(path).stack.calibration == known
    assert open_stack(path, pixel_size_rel_sd=0.01).calibration.pixel_size_rel_sd == 0.01


@pytest.mark.parametrize("text", ["2", "-1%", "two", "60%", "nan", ""])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="write it as 2% or 0.02"):
        parse_rel_sd(text)


def test_pixels_have_no_error_of_their_size():
    assert Scale((1.0, 1.0), calibrated=False).unit("um2") == "px2"
    assert pixel_size_power("area", "px2") == 0
