"""Tip velocity and onset from rows with known lines, and from twins."""

import math

import numpy as np
import pandas as pd
import pytest

from seg.metrics.dendrite import measure_frame
from seg.metrics.dendrite_series import measure_whole
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.table import Measurement, Scale, to_table
from seg.metrics.theory import measure_series as theory
from seg.synthetic import make_experiment

SCALE = Scale((0.5, 0.4))


def history(heights, times, *, paths=None, name="dendrite", more=(), electrochem=None):
    rows = list(more)
    for frame, (height, time_s) in enumerate(zip(heights, times, strict=True)):
        path = height if paths is None else paths[frame]
        row = {"dendrite_height": height or math.nan, "skeleton_length": path, "longest_path": path}
        for metric, value in row.items():
            rows.append(Measurement(metric, value, "um", class_name=name, frame=frame, time_s=time_s))
    return History(to_table(rows), SCALE, electrochem=electrochem)


def cycler(frames, kinds, cycles):
    return pd.DataFrame({"frame": frames, "half_cycle": kinds, "cycle": cycles, "current_density_mA_per_cm2": 1.0,
                         "areal_capacity_mAh_per_cm2": 0.0})  # fmt: skip


def values(rows, side=""):
    return {row.metric: row for row in rows if row.side == side and row.frame is None}


def test_a_line_of_heights():
    times = np.arange(10) * 30.0
    heights = [0.0] * 4 + [0.2 * (t - 100) for t in times[4:]]
    found = values(measure_whole(history(heights, times)))
    assert found["tip_velocity"].value == pytest.approx(0.2)
    assert found["tip_velocity"].unit == "um/s"
    onset = found["onset_time"]
    # Last frame without at 90 s, first with one at 120 s; the line starts at 100 s.
    assert (onset.low, onset.value, onset.high) == pytest.approx((90, 100, 120))
    assert "on the clock of the series" in onset.method


@pytest.mark.parametrize(("n_doubtful", "flags"), [(3, ()), (4, ("low-confidence",))])
def test_a_velocity_is_as_doubtful_as_most_of_its_heights(n_doubtful, flags):
    rows = [
        Measurement("dendrite_height", 3.0 + frame, "um", class_name="dendrite", frame=frame, time_s=20.0 * frame,
                    flags=("low-confidence",) if frame < n_doubtful else ())
        for frame in range(6)
    ]  # fmt: skip
    found = values(measure_whole(History(to_table(rows), SCALE)))["tip_velocity"]
    assert found.value == pytest.approx(0.05)
    assert found.flags == flags


def test_each_half_cycle_of_plating_has_a_velocity_and_onset_counts_from_plating():
    times = np.arange(16) * 10.0
    kinds = ["rest"] * 2 + ["plating"] * 5 + ["stripping"] * 4 + ["plating"] * 5
    heights = [0, 0, 0, 1, 2, 3, 4, 3, 2, 1, 1, 3, 5, 7, 9, 11.0]
    seen = history(heights, times, electrochem=cycler(range(16), kinds, [1] * 11 + [2] * 5))
    rows = measure_whole(seen)
    whole = values(rows, "plating")["tip_velocity"]
    assert whole.value == pytest.approx((0.1 + 0.2) / 2)
    assert [row.value for row in rows if row.metric == "tip_velocity" and row.frame is not None] == [
        pytest.approx(0.1), pytest.approx(0.2),
    ]  # fmt: skip
    onset = values(rows)["onset_time"]
    # Plating began at 10 s, the last frame of the rest; the path has no length at 20 s.
    assert (onset.low, onset.value, onset.high) == pytest.approx((10, 10, 20))
    assert "since plating of cycle 1 began at 10 s" in onset.method
    # Sand's time is compared with exactly this row.
    conditions = {"concentration_mol_per_L": 1.0, "diffusivity_cm2_per_s": 2.56e-6, "transference": 0.53}
    ratio = theory(to_table(rows), current_density_mA_per_cm2=11.0, gap_um=1000.0, **conditions)
    of = {row.metric: row.value for row in ratio}
    assert of["sand_time_ratio"] == pytest.approx(10 / of["sand_time"])


def test_what_is_gone_in_the_next_frame_is_no_onset():
    times = np.arange(8) * 10.0
    found = values(measure_whole(history([0, 0, 3, 0, 0, 1, 2, 3.0], times)))
    assert (found["onset_time"].low, found["onset_time"].high) == (40, 50)


def test_onset_that_was_not_seen_is_no_number():
    times = np.arange(5) * 10.0
    early = values(measure_whole(history([1, 2, 3, 4, 5.0], times)))["onset_time"]
    assert math.isnan(early.value)
    assert early.high == 0
    assert early.flags == ("ambiguous",)
    never = values(measure_whole(history([0.0] * 5, times)))
    assert math.isnan(never["onset_time"].value)
    assert never["onset_time"].low == 40
    assert never["onset_time"].flags == ("regime-not-reached",)
    assert math.isnan(never["tip_velocity"].value)
    untimed = values(measure_whole(history([0, 0, 1, 2, 3.0], [None] * 5)))
    assert untimed["tip_velocity"].unit == "um/frame"
    assert untimed["tip_velocity"].value == 1
    assert untimed["onset_time"].flags == ("uncalibrated",)
    assert "in frame 2" in untimed["onset_time"].method
    assert "onset_time" not in values(measure_whole(history([1.0], [0.0])))


def test_moss_and_dendrites_of_one_class_are_told_apart_by_their_morphology():
    times = np.arange(6) * 10.0
    shares = [0, 0, 0, 0.2, 0.5, 0.7]
    more = [Measurement("morphology_class", share, "1", frame=f, time_s=times[f], side=side, method=side)
            for f, value in enumerate(shares) for side, share in (("needle", 0.01), ("fractal", value))]  # fmt: skip
    seen = history([1, 2, 3, 4, 5, 6.0], times, name="deposit;dendrite", more=more)
    onset = values(measure_whole(seen))["onset_time"]
    assert (onset.low, onset.value, onset.high) == (20, 25, 30)
    assert "5% of the metal" in onset.method
    # Without morphology nothing can tell.
    assert "onset_time" not in values(measure_whole(history([1, 2.0], [0, 10.0], name="deposit;dendrite")))


def twin(seed, **options):
    made = make_experiment("dendrite", seed, shape_px=(240, 260), n_trees=2, frame_interval_s=10.0, **options)
    scale, rows = Scale(made.labels.spacing_um), []
    for frame in range(made.labels.n_frames):
        time_s = made.labels.frame_times_s[frame]
        rows += measure_frame(Frame(made.labels.frame(frame), made.schema, scale, frame, time_s), height_bands=0)
    return made, values(measure_whole(History(to_table(rows), scale)))


@pytest.mark.parametrize("kind", ["columnar", "fern"])
def test_onset_in_moss_and_velocity_of_twins(kind):
    made, found = twin(3, kind=kind, n_frames=11, moss_um=3.0, moss_until=0.43)
    # Straight trunks: as fast upwards as along themselves, but for their lean.
    assert found["tip_velocity"].value == pytest.approx(made.truth_value("tip_velocity"), rel=0.05)
    true = made.truth_value("onset_time")
    assert found["onset_time"].low <= true <= found["onset_time"].high
    # Ferns branch, so their longest path is bent away from a line; half a frame.
    assert found["onset_time"].value == pytest.approx(true, abs=5.0)
