"""Whole series from masks to tables: tracks, births, rates by half-cycle, the cycler's clock, several currents."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

from seg.analysis import analysis_from_dict, load_analysis
from seg.errors import UsageError
from seg.io import open_stack, write_labels
from seg.metrics.table import Measurement, read_table, to_table
from seg.pipeline import RunOptions, measure
from seg.study import density_against_current
from seg.study_page import write_study_page
from seg.synthetic import make_experiment

SERIES = {"counting": {}, "cover": {}, "events": {}, "nucleation": {}, "growth": {}}


def analysis(**metrics):
    metrics = {**SERIES, **metrics}
    return replace(load_analysis("optical-plan"), metrics=metrics, headline=("nucleation_mode", "area_rate"))


def label_file(experiment, folder):
    folder.mkdir(parents=True)
    labels, path = experiment.labels, folder / "labels.ome.tif"
    write_labels(
        path, (labels.frame(i) for i in range(labels.n_frames)), shape=labels.shape, axes=labels.axes,
        calibration=labels.calibration, schema=experiment.schema,
    )  # fmt: skip
    experiment.cycler.to_csv(folder / "cycler.csv", index=False)
    return path


def truth(experiment, metric, frame=None):
    return next(m.value for m in experiment.truth if m.metric == metric and m.frame == frame)


def whole(table, metric, side=""):
    rows = table[(table.metric == metric) & table.frame.isna() & table.object_id.isna() & (table.side == side)]
    assert len(rows) == 1, rows
    return rows.iloc[0]


@pytest.fixture(scope="module")
def nucleation(tmp_path_factory):
    experiment = make_experiment("nucleation", 7, shape_px=(384, 384), n_frames=20, spacing_um=14.0, bubble=False,
                                 burnt_in=False)  # fmt: skip
    folder = tmp_path_factory.mktemp("nucleation")
    path = label_file(experiment, folder / "in")
    options = RunOptions(
        echem=folder / "in" / "cycler.csv", echem_offset_s=experiment.clock_offset_s, electrode_area_cm2=1.0
    )
    theory = {"concentration_mol_per_L": 1.0, "diffusivity_cm2_per_s": 2.5e-6, "transference": 0.38, "gap_um": 500.0}
    (result,) = measure([path], analysis(theory=theory), folder / "out", options)
    assert result.error == ""
    return experiment, result.folder, read_table(result.folder / "metrics.csv")


def test_births_of_a_twin_are_counted(nucleation):
    experiment, folder, table = nucleation
    born = whole(table, "birth_count")
    n = truth(experiment, "birth_count")
    # Those that the frame cuts at birth are no births; some nuclei meet before they can be told apart.
    assert 0.8 * n <= born.value <= n + 2
    density = table[(table.metric == "nucleation_density") & (table.frame == 19)].iloc[0]
    assert density.low < truth(experiment, "nucleation_density", 19) < density.high
    events = pd.read_csv(folder / "events.csv")
    assert list(events.columns[:7]) == ["event", "frame", "time_s", "y_um", "x_um", "z_um", "track_ids"]
    assert (events.event == "birth").sum() == born.value
    tracks = pd.read_csv(folder / "tracks.csv")
    assert set(tracks.columns) >= {"track_id", "frame", "object_id", "y_um", "x_um", "origin", "fate"}
    # Both tables name objects that are in the instances.
    frame, objects = open_stack(folder / "instances.ome.tif").frame(15), tracks[tracks.frame == 15].object_id
    assert set(objects) <= set(np.unique(frame))


def test_law_of_a_twin_is_found(nucleation):
    experiment, _, table = nucleation
    assert whole(table, "nucleation_mode", "plating").method.startswith("mixed")
    sites = whole(table, "nucleation_saturation_density", "plating")
    assert sites.low < truth(experiment, "nucleation_saturation_density") < sites.high
    rate = whole(table, "nucleation_rate_constant", "plating")
    assert rate.low < truth(experiment, "nucleation_rate_constant") < rate.high


def test_rates_of_a_twin(nucleation):
    experiment, _, table = nucleation
    rates = table[(table.metric == "area_rate") & table.frame.notna() & table.object_id.isna()]
    expected = [truth(experiment, "area_rate", f) for f in rates.frame]
    # Areas of the masks are right to 0.1 %, their differences to a few per cent.
    assert rates.value.to_numpy() == pytest.approx(expected, rel=0.05)
    assert whole(table, "area_rate", "plating").value == pytest.approx(np.median(expected), rel=0.2)
    fronts = table[(table.metric == "front_velocity") & table.frame.notna() & table.value.notna()]
    radii = table[(table.metric == "radial_velocity") & table.frame.notna() & table.value.notna()]
    both = fronts.set_index("frame").value.to_frame("front").join(radii.set_index("frame").value, how="inner")
    # Where nuclei touch they have no front: their radii grow slower than the front moves, by about a third at the end.
    assert (both.front / both.value).between(0.95, 1.6).all()


def test_current_is_on_the_clock_and_in_theory(nucleation):
    _, folder, table = nucleation
    electrochem = pd.read_csv(folder / "electrochem.csv")
    assert electrochem.current_density_mA_per_cm2.iloc[5] == pytest.approx(-1.0)
    assert electrochem.areal_capacity_mAh_per_cm2.iloc[10] == pytest.approx(10 * 120 / 3600, rel=0.01)
    record = json.loads((folder / "run.json").read_text())["electrochem"]
    assert record["current_density_mA_per_cm2"] == pytest.approx(1.0)
    # 2 z F c D / ((1 - t+) L) = 2 * 96485 * 1e-3 * 2.5e-6 / (0.62 * 0.05) A/cm2.
    assert whole(table, "chazalviel_current").value == pytest.approx(15.56, rel=1e-3)
    assert whole(table, "sand_time")["flags"] == "regime-not-reached"
    # 4.849 um per mAh/cm2 of dense lithium, 19 intervals of 120 s at 1 mA/cm2.
    assert whole(table, "faraday_thickness").value == pytest.approx(4.849 * 19 * 120 / 3600, rel=0.01)


def test_growth_map_holds_the_time_of_arrival(nucleation):
    experiment, folder, _ = nucleation
    arrival = tifffile.imread(folder / "arrival.ome.tif")
    assert np.isnan(tifffile.imread(folder / "departure.ome.tif")).mean() > 0.98
    times = experiment.labels.frame_times_s
    for frame in (4, 12):
        deposit = experiment.labels.frame(frame) == experiment.schema.index("deposit")
        # Drift of a fraction of a pixel that the tracker reads may move the map by one.
        assert np.mean((arrival <= times[frame]) == deposit) > 0.98


def test_spatial_statistics_and_report_of_the_preset(nucleation, tmp_path):
    _, folder, _ = nucleation
    config = replace(load_analysis("optical-plan"), metrics={"spatial": {"every_frames": 3}, **SERIES})
    (result,) = measure([folder.parents[0] / "labels" / "labels.ome.tif"], config, tmp_path / "out", RunOptions())
    assert result.error == ""
    table = read_table(result.folder / "metrics.csv")
    spatial = table[table.metric == "spatial_class"]
    assert spatial.frame.tolist() == [0, 3, 6, 9, 12, 15, 18]
    ratio = table[(table.metric == "clark_evans_ratio") & (table.frame == 6)].iloc[0]
    # Sites keep 14 um from each other; at random their neighbours would be at 13 um on average. 25 objects are too few
    # for the envelope test to tell this from objects of their size, not for the ratio.
    assert ratio.low > 1.1
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "probability" in page
    assert ">mixed<" in page.replace('<span class="unit"></span>', "")


def test_plating_and_stripping_of_a_droplet_and_its_clock(tmp_path):
    experiment = make_experiment("droplet", 3)
    path = label_file(experiment, tmp_path / "in")
    options = RunOptions(echem=tmp_path / "in" / "cycler.csv", echem_clock="coverage")
    (result,) = measure([path], load_analysis("tem-insitu"), tmp_path / "out", options)
    assert result.error == ""
    record = json.loads((result.folder / "run.json").read_text())["electrochem"]
    # A tenth of the frame interval of 1 s is the least that an interval claims.
    assert record["offset_s"] == pytest.approx(experiment.clock_offset_s, abs=0.1)
    assert record["offset_low_s"] < experiment.clock_offset_s < record["offset_high_s"]
    table = read_table(result.folder / "metrics.csv")
    rates = [m for m in experiment.truth if m.metric == "area_rate" and m.frame is not None]
    for side, sign in (("plating", 1), ("stripping", -1)):
        expected = np.median([m.value for m in rates if m.value * sign > 0])
        assert whole(table, "area_rate", side).value == pytest.approx(expected, rel=0.03)
        assert whole(table, "front_velocity", side).value * sign > 0
    assert set(result.headline.side) >= {"plating", "stripping"}


def test_a_clock_that_cannot_be_found_is_an_error(nucleation, tmp_path):
    _, folder, _ = nucleation
    options = RunOptions(echem=folder.parents[1] / "in" / "cycler.csv", echem_clock="coverage")
    (result,) = measure([folder.parents[1] / "in" / "labels.ome.tif"], analysis(), tmp_path / "out", options)
    assert "--echem-offset" in result.error


def test_bad_tracking_option_is_a_usage_error(nucleation, tmp_path):
    _, folder, _ = nucleation
    with pytest.raises(UsageError, match="did you mean 'min_overlap'"):
        analysis_from_dict({**load_analysis("optical-plan").to_dict(), "metrics": {"events": {"min_overlp": 0.5}}})
    config = analysis(events={"min_overlap": 3.0})
    (result,) = measure([folder.parents[1] / "in" / "labels.ome.tif"], config, tmp_path / "out", RunOptions())
    assert "min_overlap in (0, 1]" in result.error


def test_a_single_frame_is_a_normal_result(tmp_path, schema):
    labels = np.full((64, 80), 2, np.uint8)
    labels[20:40, 20:45] = 3
    path = tmp_path / "one.ome.tif"
    write_labels(path, [labels], shape=labels.shape, axes="yx", calibration=open_stack_calibration(), schema=schema)
    (result,) = measure([path], analysis(), tmp_path / "out", RunOptions())
    assert result.error == ""
    table = read_table(result.folder / "metrics.csv")
    for metric in ("birth_count", "nucleation_mode", "area_rate", "radial_velocity"):
        assert "single-frame" in whole(table, metric)["flags"]
    assert not (result.folder / "arrival.ome.tif").exists()


def open_stack_calibration():
    from seg.stack import Calibration

    return Calibration({"y": 0.4, "x": 0.25})


def saved(folder, current, count, area_um2=2e6):
    folder.mkdir()
    record = {"electrochem": {"current_density_mA_per_cm2": current} if current else None}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [
        Measurement("areal_density", count / area_um2 * 1e8, "1/cm2", frame=4, n=count),
        Measurement("valid_area", area_um2, "um2", frame=4),
    ]
    to_table(rows).to_csv(folder / "metrics.csv", index=False)
    return folder


def test_density_follows_current_over_a_study(tmp_path, rng):
    folders = [
        saved(tmp_path / str(i), j, int(rng.poisson(400 * j**0.7)))
        for i, j in enumerate((0.2, 0.5, 1.0, 2.0, 5.0, 10.0))
    ]
    slope = density_against_current(folders)
    # About 5000 objects over a factor of 50 in current: the standard error is 0.015.
    assert slope.value == pytest.approx(0.7, abs=0.05)
    assert slope.low < 0.7 < slope.high
    bare = [saved(tmp_path / "none", None, 100), saved(tmp_path / "zero", 0.1, 0), tmp_path / "missing"]
    assert density_against_current([*folders, *bare]).n == 7  # an empty field counts, one without a current does not
    assert density_against_current(folders[:1]) is None


def test_summary_of_several_currents_has_the_slope(tmp_path):
    paths = []
    for j in (0.5, 2.0):
        experiment = make_experiment("nucleation", 5, n_frames=4, current_density_mA_cm2=j, shape_px=(192, 192))
        paths.append(label_file(experiment, tmp_path / f"j{j}"))
    # Each has a cycler of its own; here they are measured one by one into the same folder.
    from seg.batch import each_input
    from seg.pipeline import measure_one

    def one(path, folder):
        options = RunOptions(echem=path.parent / "cycler.csv", echem_offset_s=-35.0, electrode_area_cm2=1.0)
        return measure_one(path, folder, analysis(), options)

    results = each_input(paths, tmp_path / "out", one)
    assert [r.error for r in results] == ["", ""]
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    (row,) = summary[summary.metric == "density_current_slope"].itertuples()
    assert row.input == "all inputs"
    assert row.value > 0
    page = write_study_page(results, "Study", tmp_path / "study.html").read_text(encoding="utf-8")
    assert f": {row.value:.3g}, of two inputs, which give no interval." in page
    assert "[nan" not in page
    law = {"metric": "nucleation_mode", "value": 0.85, "unit": "1", "method": "progressive; plating of cycle 1"}
    table = results[0].headline
    table.loc[len(table)] = {**table.iloc[0].to_dict(), **law, "low": np.nan, "high": np.nan, "flags": ""}
    page = write_study_page(results, "Study", tmp_path / "study.html").read_text(encoding="utf-8")
    assert "progressive<small>probability 0.85</small>" in page  # the law by its name, not by how sure it is
