"""Queue of images, training runs, curves and overlays, without a display."""

import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_plugin import edits, overlays
from napari_plugin.curves import FRAME, TIME, Results, number_texts, object_texts
from napari_plugin.files_queue import FAILED, LABELLED, NEW, STARTED, FilesQueue
from napari_plugin.labelling import open_session
from napari_plugin.run_job import make_job
from napari_plugin.training_job import (
    Comparison,
    _scores,
    labelled_beside,
    most_different,
    picture,
    prepare_job,
    read_state,
    split_frames,
)
from seg.analysis import load_analysis
from seg.errors import DataError, UsageError
from seg.io import read_labels, write_image, write_labels
from seg.labels import load_schema
from seg.metrics import contact_angle
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement, Scale, to_table
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

SIZES = {"y": 0.6, "x": 0.4}


def write_movie(path: Path, frames=6) -> Path:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 200, (frames, 24, 30), dtype=np.uint8)
    calibration = Calibration(SIZES, tuple(2.5 * t for t in range(frames)), "file")
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=calibration)
    return path


def draw(session, frame, value=3):
    after = session.frame(frame).copy()
    after[3:9, 3:9], after[12:20, 3:9] = value, 2
    session.apply(edits.changes("stroke", session.frame(frame), after).at(frame))


# --- queue ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c"):
        write_movie(tmp_path / f"{name}.ome.tif")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_queue_saves_before_it_moves_and_tells_the_status(folder, schema):
    queue = FilesQueue([folder], schema)
    assert [item.status for item in queue.items()] == [NEW, NEW, NEW]
    draw(queue.go_to(0), 1)
    assert queue.items()[0].status == STARTED
    assert queue.next_open() == 1
    queue.go_to(1)
    assert [item.status for item in queue.items()] == [LABELLED, NEW, NEW]
    assert read_labels(folder / "labels" / "a.ome.tif").stack.data[1].any()


def test_image_whose_labels_cannot_be_saved_is_not_left(folder, schema, monkeypatch):
    queue = FilesQueue([folder], schema)
    draw(queue.go_to(0), 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_plugin.labelling.write_labels", full)
    with pytest.raises(OSError, match="No space"):
        queue.go_to(1)
    assert queue.position == 0
    assert queue.session.unsaved == 1


def test_image_that_cannot_be_opened_is_marked_and_the_others_go_on(folder, schema):
    (folder / "b.ome.tif").write_bytes((folder / "b.ome.tif").read_bytes()[:400])
    queue = FilesQueue([folder / f"{n}.ome.tif" for n in "abc"], schema)
    queue.go_to(0)
    with pytest.raises(DataError):
        queue.go_to(1)
    assert queue.position == 0
    assert [item.status for item in queue.items()] == [NEW, FAILED, NEW]
    assert queue.items()[1].note
    assert queue.next_open() == 2


# --- training -------------------------------------------------------------------------------------------------------


def test_axes_that_a_file_does_not_say_are_those_chosen(tmp_path, schema):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(
        path, np.zeros((4, 20, 30), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None], photometric="minisblack"
    )
    queue = FilesQueue([path], schema)
    with pytest.raises(DataError, match="time or depth.* In this widget: choose `axes`"):
        queue.go_to(0)
    assert "choose `axes`" in queue.items()[0].note
    queue.axes = "tyx"
    assert queue.go_to(0).axes == "tyx"
    assert queue.items()[0].status == NEW


def test_last_labelled_frames_are_held_out_with_a_gap():
    assert split_frames([4]) == ([4], [])
    assert split_frames([7, 2]) == ([2], [7])
    assert split_frames([0, 10, 20, 30, 40]) == ([0, 10, 20, 30], [40])
    assert split_frames([0, 1, 2, 3, 4]) == ([0, 1, 2], [4])
    assert split_frames(range(0, 20, 2)) == ([0, 2, 4, 6, 8, 10, 12, 14], [16, 18])


def test_held_out_frames_are_blank_in_what_is_trained_on(folder, schema):
    session = open_session(folder / "a.ome.tif", schema)
    for frame in (0, 2, 5):
        draw(session, frame)
    session.save()
    job = prepare_job(
        [folder / "a.ome.tif", folder / "b.ome.tif"], name="mine", runs=folder / "runs", modality_name="optical",
        minutes=2, init="generalist-2d",
    )  # fmt: skip
    assert job.held_out == {folder / "a.ome.tif": (5,)}
    assert job.n_trained == 2
    trained = read_labels(folder / "runs" / "mine" / "labels" / "0" / "a.ome.tif")
    assert [bool(frame.any()) for frame in trained.stack.data] == [True, False, True, False, False, False]
    assert trained.stack.calibration.pixel_size_um == SIZES
    assert shlex.split(job.command)[:2] == ["operandoseg", "train"]
    assert shlex.split(job.command)[2:] == list(job.arguments) == job.process[4:]


def test_of_images_with_one_frame_the_last_ones_are_held_out_whole(tmp_path, schema):
    images = [tmp_path / f"{name}.ome.tif" for name in "abcd"]
    data = np.random.default_rng(1).integers(0, 200, (1, 24, 30), dtype=np.uint8)
    for image in images:
        write_image(image, data, shape=(24, 30), dtype=data.dtype, axes="yx", calibration=Calibration(SIZES, None))
        if image != images[1]:
            session = open_session(image, schema)
            after = np.zeros((24, 30), np.uint8)
            after[3:9, 3:9], after[12:20, 3:9] = 3, 2
            session.apply(edits.changes("stroke", session.labels, after))
            session.save()
    (tmp_path / "a.csv").write_text("no image, and called like one with labels")
    labelled = labelled_beside(images[1])
    assert labelled == [images[0], images[2], images[3]]
    job = prepare_job(labelled, name="mine", runs=tmp_path / "runs", modality_name="sem", minutes=1, init=None)
    assert job.held_out == {images[3]: (0,)}
    assert job.n_trained == 2
    said = (tmp_path / "runs" / "mine" / "config" / "data" / "labelled.yaml").read_text()
    assert "d.ome.tif" not in said
    assert "c.ome.tif" in said
    two = prepare_job(labelled[:2], name="two", runs=tmp_path / "runs", modality_name="sem", minutes=1, init=None)
    assert two.held_out == {}


def test_numbers_of_a_single_image_are_listed(tmp_path):
    labels = np.full((30, 40), 1, np.uint8)
    labels[5:15, 10:30] = 3
    image = Segmentation(Stack(labels, "yx", Calibration(SIZES, None), "one"), load_schema())
    write_labels(tmp_path / "one.ome.tif", [labels], shape=labels.shape, axes="yx", calibration=image.stack.calibration,
                 schema=image.schema)  # fmt: skip
    (result,) = make_job("measure", [tmp_path / "one.ome.tif"], analysis="sem", out=tmp_path / "out").execute()
    results = Results(result.folder)
    assert results.metric_names() == []
    listed = number_texts(results.numbers(), "um").set_index("number")
    # 10 x 20 pixels of 0.6 x 0.4 um; of 30 x 40 pixels
    assert listed.loc["Covered area", "value"] == "48 µm²"
    assert listed.loc["Covered fraction", "value"] == "0.167"
    assert " to " in listed.loc["Covered fraction", "95 % interval"]
    assert listed.loc["Size lognormal mu", "value"] == "not reported: few-pixels, ambiguous"
    # rows of one number are told apart by their names, and a class of shapes has a word, its share a number
    assert listed.index.is_unique
    assert listed.loc["Class fraction, deposit", "value"] == "0.167"
    word = listed.loc["Morphology class", "value"]
    assert float(listed.loc[f"Morphology class, {word}", "value"]) > 1 / 8  # the largest of eight shares


def test_models_are_judged_on_frames_somebody_worked_on(folder, schema):
    session = open_session(folder / "a.ome.tif", schema)
    for frame in (0, 3, 5):
        draw(session, frame)
    session.apply(session.interpolate(3))
    session.save()
    assert session.labelled_frames() == [0, 3, 4, 5]
    job = prepare_job([folder / "a.ome.tif"], name="mine", runs=folder / "runs", modality_name="optical", minutes=2,
                      init=None)  # fmt: skip
    assert job.held_out == {folder / "a.ome.tif": (5,)}
    trained = read_labels(folder / "runs" / "mine" / "labels" / "0" / "a.ome.tif")
    assert [bool(frame.any()) for frame in trained.stack.data] == [True, False, False, True, False, False]


def test_picture_shows_classes_over_the_image(schema):
    labels = np.array([[0, 3]], np.uint8)
    shown = picture(np.array([[0.5, 0.0]], np.float32), labels, schema)
    assert shown[0, 0].tolist() == [127, 127, 127]
    assert shown[0, 1].tolist() == [int(0.55 * c) for c in schema.by_name("deposit").rgb]


def test_pictures_are_cut_where_old_and_new_model_differ_most():
    old, new = np.ones((30, 60), np.uint8), np.ones((30, 60), np.uint8)
    new[22:28, 41:50] = 3
    new[2, 3] = 3
    rows, columns = most_different([old, new])
    assert (rows.stop - rows.start, columns.stop - columns.start) == (10, 20)
    assert (new[rows, columns] == 3).sum() == 6 * 9
    volumes = [np.stack([old, old, old]), np.stack([old, new, old])]
    assert most_different(volumes) == (rows, columns)
    assert most_different([old, old])[0].stop <= 30


@pytest.mark.parametrize("init", [None, "generalist-2d"])
def test_training_reads_the_job(folder, schema, init):
    from training.config import compose_config, to_train_config
    from training.sources import load_sources

    session = open_session(folder / "a.ome.tif", schema)
    for frame in (0, 2, 5):
        draw(session, frame)
    session.save()
    job = prepare_job([folder / "a.ome.tif"], name="mine", runs=folder / "runs", modality_name="optical", minutes=2,
                      init=init)  # fmt: skip
    _, config_dir, *words = job.arguments
    config = to_train_config(compose_config(words, config_dir=config_dir))
    assert config.run_dir == job.run_dir
    # from a model on, by the recipe for few labels; from scratch there is nothing to keep to
    assert config.loss.anchor == (0.0 if init is None else 1.0)
    assert config.trainer.max_minutes == 2
    images, *_ = load_sources(config.data, [], schema)
    assert sum(int((item.codes > 0).sum()) for item in images) == 2 * (36 + 48)


def test_without_labels_there_is_nothing_to_train_on(folder):
    with pytest.raises(UsageError, match="saved labels"):
        prepare_job([folder / "a.ome.tif"], name="m", runs=folder, modality_name="optical", minutes=1, init=None)


def test_state_of_a_run_survives_a_line_being_written(tmp_path):
    assert read_state(tmp_path).share == 0
    (tmp_path / "steps.csv").write_text(
        "step,elapsed_s,progress,loss,lr,grad_norm,step_s,wait_share\n1,10,0.1,2.5,1,1,1,0\n2,20,0.2,1.5,1,1,1,0\n3,3"
    )
    state = read_state(tmp_path)
    assert state.losses.tolist() == [2.5, 1.5]
    assert state.share == 0.2
    assert state.remaining_s == pytest.approx(80)


def test_scores_count_labelled_pixels_only(schema):
    truth = np.zeros((20, 30), np.uint8)
    truth[:10, :10], truth[10:, :10] = 3, 1
    mask = np.full((20, 30), 3, np.uint8)
    mask[10:, :5] = 1
    labels = Segmentation(Stack(truth, "yx", Calibration(SIZES), "a"), schema)
    config = load_analysis("optical-plan")
    config = replace(config, metrics={"cover": {"classes": ["deposit"]}})
    rows = _scores(Comparison(Path("a.tif"), 0, truth / 3, truth, {"new": mask}), labels, config, "covered_fraction")
    by_name = {row["quantity"]: row["new"] for row in rows}
    assert by_name["IoU deposit"] == pytest.approx(100 / 150)
    assert by_name["IoU electrolyte"] == pytest.approx(50 / 100)
    assert by_name["covered_fraction"] == pytest.approx(1 - 50 / 600)
    assert "truth" not in rows[-1]  # not labelled throughout


# --- curves ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    rows = [
        Measurement("covered_fraction", 0.1 * t, "1", 0.09 * t, 0.11 * t, "deposit", t, 2.5 * t) for t in range(5)
    ] + [
        Measurement("equivalent_diameter", float(t + n), "um", frame=t, time_s=2.5 * t, object_id=n)
        for t in range(5) for n in range(1, 6)
    ]  # fmt: skip
    to_table(rows).to_csv(tmp_path / "metrics.csv", index=False)
    return Results(tmp_path)


def test_curve_has_its_interval_and_unit(results):
    assert results.metric_names() == ["covered_fraction", "equivalent_diameter"]
    assert results.axes() == [TIME, FRAME]
    (curve,) = results.curves("covered_fraction")
    assert curve.x.tolist() == [0, 2.5, 5, 7.5, 10]
    assert curve.low == pytest.approx(0.09 * np.arange(5))
    assert curve.unit == "1"
    assert results.curves("covered_fraction", FRAME)[0].x.tolist() == [0, 1, 2, 3, 4]


def test_metric_of_objects_is_drawn_as_their_median(results):
    (curve,) = results.curves("equivalent_diameter")
    assert curve.value == pytest.approx(np.arange(5) + 3)
    assert curve.low == pytest.approx(np.arange(5) + 2)
    assert "median" in curve.label


def test_cycler_slides_on_the_clock_of_the_images(results):
    cycler = pd.DataFrame({
        "time_s": [0.0, 100.0], "voltage_V": [0.0, 1.0], "current_mA": [-1.0, -1.0], "capacity_mAh": [0.0, 10.0],
        "cycle": [1, 1], "half_cycle": ["plating", "plating"],
    })  # fmt: skip
    there = results.with_cycler(cycler, -10.0)
    assert "capacity_mAh" in there.axes()
    assert there.curves("covered_fraction", "capacity_mAh")[0].x == pytest.approx((2.5 * np.arange(5) + 10) / 10)
    later = results.with_cycler(cycler, 5.0).curves("covered_fraction", "voltage_V")[0].x
    assert np.isnan(later[:2]).all()  # before the cycler started
    assert later[2:] == pytest.approx([0.0, 0.025, 0.05])
    with pytest.raises(UsageError, match="load a cycler file"):
        results.curves("covered_fraction", "voltage_V")


def test_objects_are_listed_in_the_units_of_the_instrument():
    table = pd.DataFrame({
        "frame": [3], "object_id": [7], "class": ["deposit"], "y_um": [0.3], "area_um2": [0.002807],
        "equivalent_diameter_um": [0.05978], "circularity": [0.684], "touches_border": [True],
    })  # fmt: skip
    in_nm = object_texts(table, "nm")
    assert list(in_nm.columns) == ["id", "class", "area / nm²", "diameter / nm", "circularity", "at border"]
    assert in_nm.iloc[0].tolist() == ["7", "deposit", "2\u2009810", "59.8", "0.684", "yes"]
    assert object_texts(table, "um")["diameter / µm"][0] == "0.0598"
    uncalibrated = table.rename(columns={"area_um2": "area_px2"})
    assert object_texts(uncalibrated, "nm")["area / px²"][0] == "0.00281"


def test_click_finds_the_frame_of_the_nearest_point(results):
    curves = results.curves("covered_fraction")
    assert results.nearest_frame(curves, 5.1, 0.2, x_range=10, y_range=0.4) == 2
    assert results.nearest_frame(curves, 5.0, 0.4, x_range=10, y_range=0.4) is None


def test_exported_table_is_what_is_drawn(results):
    table = results.table("covered_fraction", TIME)
    assert table["value"].tolist() == pytest.approx([0.1 * t for t in range(5)])
    assert set(table.columns) >= {"curve", "frame", "time_s", "low", "high", "unit", "flags"}


# --- overlays -------------------------------------------------------------------------------------------------------


def test_tangents_stand_at_the_contact_points_of_a_cap(schema):
    # A cap of 70 degrees, radius 30 um, on a plane at y = 60 um; pixels 0.6 x 0.4 um.
    radius, angle, shape = 30.0, math.radians(70), (120, 240)
    y, x = np.mgrid[: shape[0], : shape[1]] * np.array([0.6, 0.4])[:, None, None]
    centre = (60.0 + radius * math.cos(angle), 48.0)
    labels = np.ones(shape, np.uint8)
    labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = 3
    labels[y > 60.0] = 2
    labels[108:112, 100:160] = schema.index("artifact")  # a scale bar burnt into the substrate
    stack = Stack(labels[np.newaxis], "tyx", Calibration(SIZES), "cap")
    instances = (labels == 3).astype(np.int32)
    frame = Frame(labels, schema, Scale.of(stack), 0, None, instances=instances)
    metrics = to_table(contact_angle.measure_frame(frame))
    strokes = overlays.contact_strokes(Segmentation(stack, schema), instances, metrics, 0)
    assert sorted(s.kind for s in strokes) == ["baseline", "curve", "tangent", "tangent"]
    tangents = [s for s in strokes if s.kind == "tangent"]
    half = radius * math.sin(angle)
    for stroke, sign in zip(tangents, (-1, 1), strict=True):
        start, end = stroke.points * np.array([0.6, 0.4])
        # The foot: where circle and plane meet, to a pixel (0.6 um; the plane lies between two rows of pixels).
        assert start == pytest.approx([60.0, centre[1] + sign * half], abs=0.7)
        lean = math.degrees(math.atan2(start[0] - end[0], sign * (start[1] - end[1])))
        assert lean == pytest.approx(70, abs=2)
        assert stroke.text == f"{metrics[metrics.side == ('left' if sign < 0 else 'right')].value.iloc[0]:.1f}°"
    (curve,) = (s for s in strokes if s.kind == "curve")
    distance = np.linalg.norm(curve.points * [0.6, 0.4] - centre, axis=1)
    assert distance == pytest.approx(radius, abs=0.4)
    shapes, given, kind = overlays.contact_layer(strokes, stack, 0)
    assert kind == "shapes"
    assert given["scale"] == (1.0, 0.6, 0.4)
    assert shapes[0].shape[1] == 3


def test_skeleton_of_a_bar_lies_on_its_middle(schema):
    labels = np.ones((40, 60), np.uint8)
    labels[18:23, 10:50] = schema.index("dendrite")
    segmentation = Segmentation(Stack(labels, "yx", Calibration(SIZES), "bar"), schema)
    shapes, given, _ = overlays.skeleton_layer(segmentation, 0, ["dendrite"])
    assert np.concatenate(shapes)[:, 0].mean() == pytest.approx(20, abs=0.5)
    assert given["scale"] == (0.6, 0.4)
    assert overlays.skeleton_layer(segmentation, 0, ["void"]) is None
