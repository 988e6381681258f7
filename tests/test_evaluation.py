"""Scores against masks whose overlap is known by construction, on anisotropic pixels throughout."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile

from seg.analysis import ObjectOptions, load_analysis
from seg.cli import _tolerance
from seg.errors import CalibrationError, DataError, LabelError, UsageError
from seg.evaluation import (
    Evaluation,
    Tally,
    compare_labels,
    evaluate_files,
    metric_errors,
    otsu_labels,
    summarise_errors,
)
from seg.io import write_labels
from seg.labels import LabelClass, LabelSchema, load_schema
from seg.metrics.table import COLUMNS, Measurement, Scale, to_table
from seg.stack import Calibration

TWO = LabelSchema("two", (LabelClass(1, "ground", "#000000"), LabelClass(2, "metal", "#ffffff")))
LITHIUM = load_schema()  # 1 electrolyte, 2 substrate
SCALE = Scale((0.5, 0.2))


def squares(shape, *boxes):
    """Label 1 everywhere and label 2 in the given slices."""
    labels = np.ones(shape, np.uint8)
    for box in boxes:
        labels[box] = 2
    return labels


def score(table, metric, name="metal"):
    row = table[(table["metric"] == metric) & (table["class"] == name)]
    assert len(row) == 1
    return row.iloc[0]


TRUTH = squares((40, 50), np.s_[10:20, 10:30])
SHIFTED = squares((40, 50), np.s_[10:20, 15:35])


def test_overlap_scores_are_the_ratios_of_areas():
    table = compare_labels(SHIFTED, TRUTH, TWO, SCALE)
    # 10 x 20 px shifted by 5: 150 shared, 50 on either side alone
    assert score(table, "dice").value == pytest.approx(150 / 200)
    assert score(table, "iou").value == pytest.approx(150 / 250)
    assert score(table, "panoptic_quality").value == pytest.approx(150 / 250)  # one match, IoU 0.6
    assert score(table, "object_f1").value == 1.0
    assert score(table, "iou", "ground").value == pytest.approx((2000 - 250) / (2000 - 150))


def test_perfect_masks_score_one_and_distance_zero():
    table = compare_labels(TRUTH, TRUTH, TWO, SCALE)
    for metric in ("dice", "iou", "boundary_f1", "object_f1", "panoptic_quality"):
        assert score(table, metric).value == 1.0
        assert score(table, metric, "all").value == 1.0
    assert score(table, "hd95").value == 0.0
    assert tuple(table.columns) == COLUMNS


@pytest.mark.parametrize(("axis", "spacing"), [(0, 0.5), (1, 0.2)])
def test_hd95_of_a_shifted_bar_is_the_shift_in_micrometres(axis, spacing):
    # lines across the frame, 6 px apart: every edge pixel lies 6 px from the other's edge
    def line(start):
        labels = np.ones((60, 60), np.uint8)
        index = [slice(None), slice(None)]
        index[axis] = start
        labels[tuple(index)] = 2
        return labels

    table = compare_labels(line(26), line(20), TWO, SCALE)
    assert score(table, "hd95").value == pytest.approx(6 * spacing)
    assert score(table, "hd95").unit == "um"


def test_boundary_tolerance_is_counted_in_the_smaller_pixel_side():
    lines = [np.ones((30, 30), np.uint8) for _ in range(2)]
    lines[0][:, 10] = 2
    lines[1][:, 12] = 2  # two pixels of 0.2 um apart
    for tolerance_px, expected in [(1.0, 0.0), (1.9, 0.0), (2.0, 1.0)]:
        table = compare_labels(lines[1], lines[0], TWO, SCALE, tolerance_px=tolerance_px)
        assert score(table, "boundary_f1").value == expected


def test_a_tolerance_in_micrometres_needs_calibrated_pixels():
    lines = [np.ones((30, 30), np.uint8) for _ in range(2)]
    lines[0][:, 10] = 2
    lines[1][:, 12] = 2  # 0.4 um apart
    for tolerance_um, expected in [(0.39, 0.0), (0.4, 1.0)]:
        evaluation = Evaluation(TWO, SCALE, tolerance_um=tolerance_um)
        evaluation.add(*lines)
        row = score(evaluation.table(), "boundary_f1")
        assert row.value == expected
        assert f"edges within {tolerance_um} um" in row.method
    with pytest.raises(CalibrationError, match="have no pixel size"):
        Evaluation(TWO, Scale((1.0, 1.0), calibrated=False), tolerance_um=0.5)


def test_tolerances_of_the_command_line_need_a_unit():
    assert [_tolerance(text) for text in ("2px", "0.5 um", "250nm")] == [(2.0, "px"), (0.5, "um"), (0.25, "um")]
    for text in ("3", "-1px", "nanpx", "px", "2 inches"):
        with pytest.raises(UsageError, match="write a length"):
            _tolerance(text)


def test_boundary_f1_is_the_harmonic_mean_of_both_shares():
    truth = squares((30, 60), np.s_[5:6, 0:40])
    prediction = squares((30, 60), np.s_[5:6, 0:50])  # 50 edge pixels, 41 of them within a pixel of the 40 of the truth
    p, r = 41 / 50, 1.0
    # the pixel of 0.2 um along x is the tolerance
    assert score(compare_labels(prediction, truth, TWO, SCALE), "boundary_f1").value == pytest.approx(
        2 * p * r / (p + r)
    )


def test_unlabelled_truth_is_ignored_and_makes_no_edge():
    truth = TRUTH.copy()
    truth[:, 20:] = 0
    table = compare_labels(SHIFTED, truth, TWO, SCALE)
    # left of column 20: truth 10:20, prediction 15:20
    assert score(table, "iou").value == pytest.approx(50 / 100)
    perfect = compare_labels(TRUTH, truth, TWO, SCALE)
    assert score(perfect, "boundary_f1").value == 1.0
    assert score(perfect, "hd95").value == 0.0


def test_a_pixel_not_predicted_is_wrong():
    prediction = TRUTH.copy()
    prediction[10:15, 10:30] = 0
    assert score(compare_labels(prediction, TRUTH, TWO, SCALE), "iou").value == pytest.approx(0.5)


def test_objects_merged_split_and_missed():
    truth = squares((40, 60), np.s_[5:15, 5:15], np.s_[5:15, 20:30], np.s_[25:35, 5:15])
    prediction = squares((40, 60), np.s_[5:15, 5:14], np.s_[5:15, 20:30], np.s_[25:35, 40:50])
    table = compare_labels(prediction, truth, TWO, SCALE)
    # two matched (IoU 0.9 and 1), one missed, one extra
    assert score(table, "object_f1").value == pytest.approx(2 / 3)
    assert score(table, "panoptic_quality").value == pytest.approx(1.9 / 3)


def test_a_class_on_neither_side_is_undefined_and_left_out_of_the_mean():
    empty = np.ones((20, 20), np.uint8)
    table = compare_labels(empty, empty, TWO, SCALE)
    row = score(table, "dice")
    assert np.isnan(row.value)
    assert row.n == 0
    assert "1 frame(s) without this class" in row.method
    assert score(table, "dice", "all").value == 1.0


def test_a_class_on_one_side_only_scores_zero_and_has_no_distance():
    empty = np.ones_like(TRUTH)
    for prediction, truth in [(empty, TRUTH), (TRUTH, empty)]:
        table = compare_labels(prediction, truth, TWO, SCALE)
        for metric in ("dice", "iou", "boundary_f1", "object_f1", "panoptic_quality"):
            assert score(table, metric).value == 0.0
        assert np.isnan(score(table, "hd95").value)
        assert "only one side" in score(table, "hd95").method


def test_counts_add_up_over_frames():
    evaluation = Evaluation(TWO, SCALE)
    frames = [(SHIFTED, TRUTH), (TRUTH, TRUTH), (np.ones_like(TRUTH), np.ones_like(TRUTH))]
    for prediction, truth in frames:
        evaluation.add(prediction, truth)
    table = evaluation.table()
    assert score(table, "dice").value == pytest.approx(2 * 350 / (2 * 350 + 100))
    assert score(table, "dice").n == 2
    whole = compare_labels(*(np.concatenate([f[i] for f in frames]) for i in (0, 1)), TWO, SCALE)
    assert score(whole, "iou").value == pytest.approx(score(table, "iou").value)
    assert evaluation.confusion.loc["metal", "metal"] == 350
    assert evaluation.confusion.to_numpy().sum() == 3 * TRUTH.size


def test_intervals_come_with_three_specimens_and_hold_the_value(rng):
    evaluation = Evaluation(TWO, SCALE)
    for shift in rng.integers(0, 8, 12):
        evaluation.add(squares((40, 50), np.s_[10:20, 10 + shift : 30 + shift]), TRUTH)
    row = score(evaluation.table(), "dice")
    assert 0 < row.low < row.value < row.high < 1
    single = score(compare_labels(SHIFTED, TRUTH, TWO, SCALE), "dice")
    assert np.isnan([single.low, single.high]).all()
    assert "1 specimen: too few for an interval" in single.method


def test_intervals_resample_specimens_not_images():
    # three specimens, of which one is predicted badly: twenty images of each say no more about a fourth one
    shifts = {"a": 0, "b": 1, "c": 8}

    def interval(images_each):
        evaluation = Evaluation(TWO, SCALE)
        for specimen, shift in shifts.items():
            for _ in range(images_each):
                evaluation.add(squares((40, 50), np.s_[10:20, 10 + shift : 30 + shift]), TRUTH, specimen=specimen)
        row = score(evaluation.table(), "dice")
        return row.low, row.high

    assert interval(20) == pytest.approx(interval(1))
    # of three units the widened interval reaches from the worst to the best: Dice of a shift by s is 1 - s/20
    assert interval(1) == pytest.approx((0.6, 1.0))


def test_a_mask_that_is_unknown_in_an_image_does_not_count_there():
    tally = Tally(["metal", "salt"], SCALE)
    metal, known = TRUTH == 2, np.ones(TRUTH.shape, bool)
    tally.add_masks({"metal": (metal, metal, known), "salt": (~metal, metal, known)})
    tally.add_masks({"metal": (~metal, metal, known)})
    assert score(tally.table(), "iou", "salt").n == 1
    assert score(tally.table(), "iou", "metal").value == pytest.approx(200 / (200 + 2000))
    assert tally.images()[["image", "class"]].values.tolist() == [["0", "metal"], ["0", "salt"], ["1", "metal"]]


def test_volumes_and_axis_permutation(rng):
    truth = squares((12, 20, 24), np.s_[3:8, 5:12, 4:20])
    prediction = squares((12, 20, 24), np.s_[4:9, 5:13, 6:20])
    spacing = (1.0, 0.4, 0.25)
    a = compare_labels(prediction, truth, TWO, Scale(spacing))
    order = (2, 0, 1)
    b = compare_labels(
        prediction.transpose(order), truth.transpose(order), TWO, Scale(tuple(spacing[i] for i in order))
    )
    np.testing.assert_allclose(a["value"], b["value"], rtol=1e-9)
    assert score(a, "iou").value == pytest.approx((4 * 7 * 14) / (5 * 7 * 16 + 5 * 8 * 14 - 4 * 7 * 14))


def test_doubling_the_pixel_size_doubles_the_distance_alone():
    a = compare_labels(SHIFTED, TRUTH, TWO, Scale((0.5, 0.2)))
    b = compare_labels(SHIFTED, TRUTH, TWO, Scale((1.0, 0.4)))
    distance = a["metric"] == "hd95"
    np.testing.assert_allclose(b.loc[distance, "value"], 2 * a.loc[distance, "value"])
    pd.testing.assert_series_equal(a.loc[~distance, "value"], b.loc[~distance, "value"])


def test_uncalibrated_distances_are_in_pixels_with_a_flag():
    row = score(compare_labels(SHIFTED, TRUTH, TWO, Scale((1.0, 1.0), calibrated=False)), "hd95")
    assert (row.unit, row["flags"]) == ("px", "uncalibrated")


def test_bad_arrays_are_refused():
    evaluation = Evaluation(TWO, SCALE)
    with pytest.raises(DataError, match="same grid"):
        evaluation.add(TRUTH[:-1], TRUTH)
    with pytest.raises(LabelError, match="prediction holds label value"):
        evaluation.add(TRUTH + 5, TRUTH)
    with pytest.raises(DataError, match="2 dimensions but the scale 3"):
        Evaluation(TWO, Scale((1.0, 1.0, 1.0))).add(TRUTH, TRUTH)
    with pytest.raises(DataError, match="No frame"):
        evaluation.table()
    with pytest.raises(ValueError, match="tolerance_px"):
        Evaluation(TWO, SCALE, tolerance_px=-1)


def save(path, frames, pixel_size_um, schema=TWO):
    frames = np.asarray(frames, np.uint8)
    write_labels(
        path, iter(frames), shape=frames.shape, axes="tyx", schema=schema,
        calibration=Calibration(pixel_size_um, source="options"),
    )  # fmt: skip
    return path


def test_files_are_compared_frame_by_frame(tmp_path):
    size = {"y": 0.5, "x": 0.2}
    truth = save(tmp_path / "truth.ome.tif", [TRUTH, TRUTH], size)
    prediction = save(tmp_path / "prediction.ome.tif", [SHIFTED, TRUTH], size)
    table = evaluate_files(prediction, truth, tmp_path / "out").scores
    assert score(table, "dice").value == pytest.approx(350 / 400)
    saved = pd.read_csv(tmp_path / "out" / "evaluation.csv")
    np.testing.assert_allclose(saved["value"], table["value"])
    confusion = pd.read_csv(tmp_path / "out" / "confusion.csv", index_col="truth")
    assert confusion.loc["metal", "ground"] == 50


def test_files_that_do_not_fit_are_refused(tmp_path):
    truth = save(tmp_path / "truth.ome.tif", [TRUTH, TRUTH], {"y": 0.5, "x": 0.2})
    with pytest.raises(DataError, match="same grid"):
        evaluate_files(save(tmp_path / "a.ome.tif", [TRUTH] * 3, {"y": 0.5, "x": 0.2}), truth, tmp_path / "out")
    with pytest.raises(CalibrationError, match="--pixel-size"):
        evaluate_files(save(tmp_path / "b.ome.tif", [TRUTH] * 2, {"y": 0.5, "x": 0.5}), truth, tmp_path / "out")


def folders(tmp_path, frames):
    size = {"y": 0.5, "x": 0.2}
    for side in ("truth", "prediction"):
        (tmp_path / side).mkdir()
    for name, (prediction, truth) in frames.items():
        save(tmp_path / "truth" / f"{name}.ome.tif", [truth], size)
        (tmp_path / "prediction" / name).mkdir()  # as `operandoseg predict` leaves them
        save(tmp_path / "prediction" / name / "labels.ome.tif", [prediction], size)
    return tmp_path / "prediction", tmp_path / "truth"


def test_folders_are_compared_by_name_with_a_specimen_per_name(tmp_path):
    frames = {f"cell{k}_{n}": (SHIFTED if k == 2 else TRUTH, TRUTH) for k in range(3) for n in range(2)}
    prediction, truth = folders(tmp_path, frames)
    found = evaluate_files(prediction, truth, tmp_path / "out", specimen=r"^(cell\d)_")
    assert score(found.scores, "dice").value == pytest.approx((4 * 200 + 2 * 150) / 1200)
    assert score(found.scores, "dice").low == pytest.approx(0.75)  # one of three specimens
    assert sorted(set(found.images["specimen"])) == ["cell0", "cell1", "cell2"]
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "0.917" in page
    assert "0.75 to 1" in page
    (tmp_path / "prediction" / "cell1_0" / "labels.ome.tif").unlink()
    with pytest.raises(DataError, match=r"no prediction for 1 of the 6 truth file\(s\): cell1_0"):
        evaluate_files(prediction, truth, tmp_path / "out")
    with pytest.raises(UsageError, match="one group"):
        evaluate_files(truth, truth, tmp_path / "out", specimen="cell")
    with pytest.raises(UsageError, match="two folders"):
        evaluate_files(prediction, truth / "cell0_0.ome.tif", tmp_path / "out")


def test_masks_made_elsewhere_say_by_a_map_what_their_values_mean(tmp_path):
    size = {"y": 0.5, "x": 0.2}
    prediction = save(tmp_path / "prediction.ome.tif", [SHIFTED], size, LITHIUM)
    tifffile.imwrite(tmp_path / "mask.tif", np.where(TRUTH == 2, 255, 0).astype(np.uint8))
    found = evaluate_files(
        prediction, tmp_path / "mask.tif", tmp_path / "out", truth_map={0: "electrolyte", 255: "substrate"}
    )
    assert score(found.scores, "iou", "substrate").value == pytest.approx(150 / 250)
    assert score(found.scores, "iou", "electrolyte").n == 1


def test_what_a_mask_error_does_to_the_numbers(tmp_path):
    # metal 10 x 20 px of 0.5 x 0.2 um is 20 um2; in the prediction it is 10 x 24 px, and one frame has lost it
    larger = squares((40, 50), np.s_[10:20, 10:34])
    lost = np.ones_like(TRUTH)
    size = {"y": 0.5, "x": 0.2}
    truth = save(tmp_path / "truth.ome.tif", [TRUTH, TRUTH], size, LITHIUM)
    prediction = save(tmp_path / "prediction.ome.tif", [larger, lost], size, LITHIUM)
    config = replace(
        load_analysis("optical-plan"), objects=ObjectOptions(("substrate",)),
        metrics={"cover": {"classes": ["substrate"]}, "size": {}},
    )  # fmt: skip
    found = evaluate_files(prediction, truth, tmp_path / "out", analysis=config)
    area = found.errors[(found.errors["metric"] == "covered_area") & (found.errors["level"] == "frame")]
    assert area["truth"].tolist() == pytest.approx([20.0, 20.0])
    assert area["prediction"].tolist() == pytest.approx([24.0, 0.0])
    assert area["relative_error"].tolist() == pytest.approx([0.2, -1.0])
    summary = pd.read_csv(tmp_path / "out" / "metric_summary.csv")
    row = summary[(summary["metric"] == "covered_area") & (summary["level"] == "frame")].iloc[0]
    assert row[["n", "truth", "prediction", "bias", "relative_bias"]].tolist() == pytest.approx([2, 20, 12, -8, -0.4])
    assert row["rms_error"] == pytest.approx(np.sqrt((4**2 + 20**2) / 2))
    assert row["median_relative_error"] == pytest.approx(0.6)


def test_objects_are_compared_by_their_median_and_intervals_by_what_they_hold():
    def numbers(angles, density, interval):
        rows = [Measurement("contact_angle", a, "deg", frame=0, object_id=k) for k, a in enumerate(angles)]
        return to_table([*rows, Measurement("areal_density", density, "1/cm2", *interval)])

    truth = numbers([60.0, 70.0, 110.0], 1000.0, (900.0, 1100.0))
    off, near = numbers([80.0, 90.0], 1200.0, (1050.0, 1350.0)), numbers([], 990.0, (890.0, 1090.0))
    errors = metric_errors(off, truth)
    angle = errors[errors["metric"] == "contact_angle"].iloc[0]
    assert (angle["level"], angle["truth"], angle["prediction"]) == ("objects", 70.0, 85.0)
    assert angle["relative_error"] == pytest.approx(15 / 70)
    both = pd.concat([errors, metric_errors(near, truth)])
    summary = summarise_errors(both).set_index("metric")
    # one of two may be chance; two of two that miss are not (0.05 squared)
    assert summary.loc["areal_density", ["truth_in_interval", "n_intervals", "flags"]].tolist() == [0.5, 2, ""]
    twice = summarise_errors(pd.concat([errors, errors])).set_index("metric")
    assert twice.loc["areal_density", ["n_intervals", "flags"]].tolist() == [2, "low-confidence"]
    assert twice.loc["contact_angle", ["n_intervals", "flags"]].tolist() == [0, ""]  # medians of objects have none
    assert summary.loc["areal_density", ["bias", "n"]].tolist() == [95.0, 2]
    # no object, no angle: absent on one side is counted, not averaged
    assert summary.loc["contact_angle", ["n", "only_in_truth"]].tolist() == [1, 1]


def test_unlabelled_truth_is_measured_on_neither_side(tmp_path):
    half = TRUTH.copy()
    half[:, 20:] = 0
    size = {"y": 0.5, "x": 0.2}
    truth = save(tmp_path / "truth.ome.tif", [half], size, LITHIUM)
    prediction = save(tmp_path / "prediction.ome.tif", [TRUTH], size, LITHIUM)
    config = replace(
        load_analysis("optical-plan"), objects=ObjectOptions(("substrate",)),
        metrics={"cover": {"classes": ["substrate"]}},
    )  # fmt: skip
    found = evaluate_files(prediction, truth, tmp_path / "out", analysis=config)
    area = found.errors[found.errors["metric"] == "covered_area"].iloc[0]
    assert (area["truth"], area["prediction"]) == pytest.approx((10.0, 10.0))


def test_otsu_finds_a_bright_and_a_dark_disc(rng):
    y, x = np.mgrid[:80, :80]
    disc = (y - 40) ** 2 + (x - 35) ** 2 < 20**2
    image = np.where(disc, 180.0, 90.0) + rng.normal(0, 15, disc.shape)
    for bright in (True, False):
        labels = otsu_labels(image if bright else 255 - image, 1.5, foreground=3, background=1, bright=bright)
        assert set(np.unique(labels)) == {1, 3}
        overlap = (labels == 3) & disc
        assert overlap.sum() / ((labels == 3) | disc).sum() > 0.97  # 3 sigma of noise after smoothing over 28 px


def test_otsu_of_a_flat_image_is_background():
    assert (otsu_labels(np.full((9, 9), 7), 1.0) == 1).all()
