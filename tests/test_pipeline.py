"""The whole job on small inputs: same numbers twice, what is kept, what is made again, what a crash leaves behind."""

import hashlib
import html
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seg.analysis import load_analysis
from seg.io import read_labels, write_image, write_labels
from seg.pipeline import RunOptions, measure, run
from seg.stack import Calibration

SIZE_UM = {"y": 0.4, "x": 0.25}


@pytest.fixture(scope="session")
def tiny_model(tiny_model_of) -> Path:
    return tiny_model_of("optical")


def discs(n_frames: int = 4) -> np.ndarray:
    """Labels of five growing discs: deposit on substrate, shape (T, 96, 120)."""
    y, x = np.mgrid[:96, :120]
    labels = np.full((n_frames, 96, 120), 2, np.uint8)
    for t in range(n_frames):
        for cy, cx in ((24, 24), (24, 60), (24, 96), (70, 40), (70, 84)):
            # Round in µm, not in pixels.
            labels[t][np.hypot((y - cy) * 0.4, (x - cx) * 0.25) < 1.5 + 0.5 * t] = 3
    return labels


@pytest.fixture
def label_file(tmp_path, schema) -> Path:
    labels = discs()
    path = tmp_path / "in" / "discs.ome.tif"
    path.parent.mkdir()
    write_labels(
        path, labels, shape=labels.shape, axes="tyx", calibration=Calibration(SIZE_UM, (0.0, 2.0, 4.0, 6.0), "file"),
        schema=schema,
    )  # fmt: skip
    return path


@pytest.fixture
def video(tmp_path, rng) -> Path:
    frames = (discs() * 40 + rng.normal(0, 5, (4, 96, 120))).astype(np.uint8)
    path = tmp_path / "in" / "video.ome.tif"
    path.parent.mkdir(exist_ok=True)
    write_image(
        path, frames, shape=frames.shape, dtype=frames.dtype, axes="tyx",
        calibration=Calibration(SIZE_UM, (0.0, 2.0, 4.0, 6.0), "file"),
    )  # fmt: skip
    return path


def value(folder: Path, metric: str, frame: int | None = None) -> pd.Series:
    table = pd.read_csv(folder / "metrics.csv")
    rows = table[(table.metric == metric) & (table.frame.isna() if frame is None else table.frame == frame)]
    rows = rows[rows.object_id.isna()]  # not those of single tracks
    assert len(rows) == 1, rows
    return rows.iloc[0]


def content(folder: Path) -> dict[str, str]:
    """Hash of every result that must not depend on when or how often the job ran."""
    names = ["labels.ome.tif", "instances.ome.tif", "metrics.csv", "objects.csv"]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_measuring_known_discs_gives_their_numbers(label_file, tmp_path):
    (result,) = measure([label_file], load_analysis("optical-plan"), tmp_path / "out", RunOptions())
    assert result.error == ""
    folder = tmp_path / "out" / "discs"
    assert value(folder, "object_count", 3).value == 5
    # Five discs of 3 µm radius in 96 x 120 pixels of 0.1 µm2; digitisation leaves below 2 % at 7.5 px radius.
    area_um2 = 5 * np.pi * 3.0**2
    assert value(folder, "covered_area", 3).value == pytest.approx(area_um2, rel=0.02)
    assert value(folder, "covered_fraction", 3).value == pytest.approx(area_um2 / (96 * 120 * 0.1), rel=0.02)
    assert value(folder, "mean_equivalent_diameter", 3).value == pytest.approx(6.0, rel=0.02)
    # The radius grows by 0.25 µm/s.
    assert value(folder, "radial_velocity").value == pytest.approx(0.25, rel=0.05)
    assert value(folder, "radial_velocity").unit == "um/s"
    record = json.loads((folder / "run.json").read_text())
    assert record["input"]["pixel_size_um"] == SIZE_UM
    assert record["model"] is None
    assert (folder / "report.html").stat().st_size > 10_000


def test_uncalibrated_labels_are_measured_in_pixels_and_say_so(label_file, tmp_path, schema):
    labels = discs()
    path = tmp_path / "in" / "plain.ome.tif"
    write_labels(path, labels, shape=labels.shape, axes="tyx", calibration=Calibration(), schema=schema)
    measure([path], load_analysis("optical-plan"), tmp_path / "out", RunOptions())
    table = pd.read_csv(tmp_path / "out" / "plain" / "metrics.csv")
    assert not table.unit.str.contains("um|cm2", regex=True).any()
    assert table[table.metric == "areal_density"].unit.unique().tolist() == ["1/px2"]
    assert table[table.metric == "areal_density"]["flags"].str.contains("uncalibrated").all()


def test_a_zero_one_mask_needs_a_map_and_takes_it(tmp_path):
    import tifffile

    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, (discs()[3] == 3).astype(np.uint8) * 255, photometric="minisblack")
    config = load_analysis("optical-plan")
    (refused,) = measure([path], config, tmp_path / "a", RunOptions(axes="yx"))
    assert (refused.exit_code, refused.error_kind) == (5, "LabelError")
    assert "255" in refused.error
    (taken,) = measure(
        [path], config, tmp_path / "b", RunOptions(axes="yx", label_map={0: "substrate", 255: "deposit"})
    )
    assert taken.error == ""
    assert value(tmp_path / "b" / "mask", "object_count", 0).value == 5


def test_an_image_of_another_size_is_refused(label_file, video, tmp_path):
    single = tmp_path / "in" / "small.ome.tif"
    write_image(
        single, [np.zeros((8, 9), np.uint8)], shape=(8, 9), dtype=np.dtype(np.uint8), axes="yx",
        calibration=Calibration(),
    )  # fmt: skip
    (result,) = measure([label_file], load_analysis("optical-plan"), tmp_path / "out", RunOptions(image=single))
    assert result.exit_code == 5
    assert "same grid" in result.error


def test_run_makes_every_result_and_skips_what_is_done(video, tiny_model, tmp_path):
    config = replace(load_analysis("optical-plan"), model=str(tiny_model))
    out = tmp_path / "out"
    (first,) = run([video], config, out, RunOptions(device="cpu"))
    assert first.error == ""
    folder = out / "video"
    names = {p.name for p in folder.iterdir()}
    assert names >= {"labels.ome.tif", "instances.ome.tif", "metrics.csv", "objects.csv", "run.json", "report.html"}
    labels = read_labels(folder / "labels.ome.tif")
    assert labels.stack.shape == (4, 96, 120)
    assert labels.stack.spacing_um == (0.4, 0.25)
    assert labels.stack.frame_times_s == (0.0, 2.0, 4.0, 6.0)
    assert set(np.unique(labels.stack.data)) <= {2, 3, 4}
    times = {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}
    run([video], config, out, RunOptions(device="cpu"))
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()} == times

    # Another setting of the metrics measures again but does not segment again.
    changed = replace(config, metrics={**config.metrics, "cover": {"classes": ["deposit"]}})
    run([video], changed, out, RunOptions(device="cpu"))
    assert (folder / "labels.ome.tif").stat().st_mtime_ns == times[folder / "labels.ome.tif"]
    assert (folder / "metrics.csv").stat().st_mtime_ns != times[folder / "metrics.csv"]


def test_a_damaged_result_is_made_again(video, tiny_model, tmp_path):
    config = replace(load_analysis("optical-plan"), model=str(tiny_model))
    out = tmp_path / "out"
    run([video], config, out, RunOptions(device="cpu"))
    before = content(out / "video")
    (out / "video" / "metrics.csv").write_text("")
    (out / "video" / "labels.ome.tif").write_bytes(b"")
    run([video], config, out, RunOptions(device="cpu"))
    assert content(out / "video") == before


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from seg.analysis import load_analysis
from seg.pipeline import RunOptions, run
config = replace(load_analysis("optical-plan"), model=sys.argv[2])
run([Path(sys.argv[1])], config, Path(sys.argv[3]), RunOptions(device="cpu"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("marker", [".work/slabs-*/*.npz", "labels.ome.tif", "metrics.csv"])
def test_killed_at_any_stage_the_same_command_gives_the_same_result(video, tiny_model, tmp_path, marker):
    config = replace(load_analysis("optical-plan"), model=str(tiny_model))
    run([video], config, tmp_path / "calm", RunOptions(device="cpu"))
    out = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, "-c", KILLED, video, tiny_model, out], env={**os.environ})
    deadline = time.monotonic() + 120
    while not list((out / "video").glob(marker)) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    run([video], config, out, RunOptions(device="cpu"))
    assert content(out / "video") == content(tmp_path / "calm" / "video")


def test_one_bad_input_does_not_stop_the_others(label_file, tmp_path):
    bad = label_file.with_name("bad.tif")
    bad.write_text("this is not a TIFF")
    results = measure([bad, label_file], load_analysis("optical-plan"), tmp_path / "out", RunOptions())
    assert [bool(r.error) for r in results] == [True, False]
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert failures.input.tolist() == [str(bad)]
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert set(summary.input) == {str(label_file)}
    assert not (tmp_path / "out" / "bad").exists()


def test_inputs_of_the_same_name_get_folders_of_their_own(label_file, tmp_path):
    other = tmp_path / "other" / label_file.name
    other.parent.mkdir()
    other.write_bytes(label_file.read_bytes())
    results = measure([label_file, other], load_analysis("optical-plan"), tmp_path / "out", RunOptions())
    assert len({r.folder for r in results}) == 2
    assert all((r.folder / "metrics.csv").exists() for r in results)


def test_an_empty_mask_is_a_normal_result(tmp_path, schema):
    path = tmp_path / "empty.ome.tif"
    write_labels(
        path, [np.full((64, 80), 2, np.uint8)], shape=(64, 80), axes="yx", calibration=Calibration(SIZE_UM),
        schema=schema,
    )  # fmt: skip
    for preset in ("optical-plan", "optical-profile", "tem-insitu", "sem", "cryoem-sei"):
        (result,) = measure([path], load_analysis(preset), tmp_path / preset, RunOptions())
        assert result.error == "", preset
    assert value(tmp_path / "optical-plan" / "empty", "object_count", 0).value == 0
    assert value(tmp_path / "optical-plan" / "empty", "covered_fraction", 0).value == 0


def test_a_model_that_finds_none_of_the_objects_is_said_not_to_know_them(video, tiny_model, tmp_path):
    def warnings(preset: str) -> list[str]:
        config = replace(load_analysis(preset), model=str(tiny_model), relabel={})
        run([video], config, tmp_path / preset, RunOptions(device="cpu", postprocess="none"))
        return json.loads((tmp_path / preset / "video" / "run.json").read_text())["warnings"]

    # The network has substrate, deposit and dendrite and no pit at all.
    (said,) = (text for text in warnings("optical-pits") if "found no pit in any frame" in text)
    assert said in html.unescape((tmp_path / "optical-pits" / "video" / "report.html").read_text())
    assert value(tmp_path / "optical-pits" / "video", "pit_count", 3).value == 0
    assert not any("found no" in text for text in warnings("optical-plan"))


def test_a_volume_goes_through_every_volume_metric(tmp_path, schema):
    labels = np.full((20, 30, 40), 9, np.uint8)
    labels[:10] = 3
    labels[7:10, 10:20, 10:20] = 7
    path = tmp_path / "cell.ome.tif"
    size = {"z": 1.2, "y": 0.5, "x": 0.4}
    write_labels(path, [labels], shape=labels.shape, axes="zyx", calibration=Calibration(size), schema=schema)
    (result,) = measure([path], load_analysis("xct-cell"), tmp_path / "out", RunOptions())
    assert result.error == ""
    fraction = value(tmp_path / "out" / "cell", "void_fraction", 0).value
    assert fraction == pytest.approx(300 / 12000, rel=1e-6)
    # 100 of 1200 interface pixels are void; extrapolating to the plane may move it by a little.
    loss = value(tmp_path / "out" / "cell", "contact_loss_fraction", 0).value
    assert loss == pytest.approx(100 / 1200, abs=0.01)


def test_echem_is_put_on_the_clock_of_the_images(label_file, tmp_path):
    cycler = tmp_path / "cycler.csv"
    cycler.write_text(
        "time_s,voltage_V,current_mA\n" + "".join(f"{t},{-0.05 - 0.001 * t},-1.0\n" for t in range(-4, 12))
    )
    options = RunOptions(echem=cycler, echem_offset_s=1.0)
    (result,) = measure([label_file], load_analysis("optical-plan"), tmp_path / "out", options)
    assert result.error == ""
    table = pd.read_csv(tmp_path / "out" / "discs" / "electrochem.csv")
    # Frame time = cycler time + 1 s, so frame 1 at 2 s sees the cycler at 1 s.
    assert table.voltage_V.tolist() == pytest.approx([-0.05 - 0.001 * (t - 1) for t in (0, 2, 4, 6)])
