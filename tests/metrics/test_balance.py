"""Metal against charge: layers plated and stripped by a known charge, dense and porous, dead and at rest."""

import math

import numpy as np
import pandas as pd
import pytest

from seg.errors import UsageError
from seg.metrics.balance import measure_frame, measure_whole
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.table import Scale, to_table
from seg.synthetic import make_experiment

# Voxels of 0.25 um along z; a field of 20 x 24 um.
SPACING = (0.25, 0.5, 0.6)
SHAPE = (120, 40, 40)
UM_PER_MAH = 4.849  # dense lithium, um per mAh/cm2
METAL = "deposit+dendrite+dead_lithium"


def frame_of(schema, labels, index=0, spacing=SPACING, **kwargs):
    return Frame(np.asarray(labels, np.uint8), schema, Scale(spacing, **kwargs), index, 600.0 * index)


def plated(thickness_um, *, porosity=0.0, dead_um=0.0, foil_um=0.0, rng=None):
    """Metal of that amount per base on a substrate: layers of a full voxel, holes for the porosity."""
    labels = np.ones(SHAPE, np.uint8)
    labels[-8:] = 2
    rows = round((foil_um + thickness_um / (1 - porosity)) / SPACING[0])
    labels[SHAPE[0] - 8 - rows : SHAPE[0] - 8] = 3
    labels[SHAPE[0] - 8 - rows : SHAPE[0] - 8 - rows + round(dead_um / SPACING[0])] = 5
    if porosity:
        # Top and bottom layers stay whole: porosity is what is empty between them.
        inner = labels[SHAPE[0] - 7 - rows : SHAPE[0] - 9]
        holes = np.argsort(rng.random(inner.size))[: round(porosity * rows * inner[0].size)]
        flat = inner.reshape(-1).copy()
        flat[holes] = 1
        labels[SHAPE[0] - 7 - rows : SHAPE[0] - 9] = flat.reshape(inner.shape)
    return labels


def cycler(charges, kinds, cycles):
    """One row per frame: charge that has been plated (mAh/cm2), half-cycle, cycle."""
    n = len(charges)
    return pd.DataFrame(
        {
            "frame": np.arange(n), "time_s": 600.0 * np.arange(n), "half_cycle": kinds,
            "cycle": pd.array(cycles, dtype="Int64"), "areal_capacity_mAh_per_cm2": charges,
            "current_density_mA_per_cm2": 1.0,
        }
    )  # fmt: skip


def series(schema, volumes):
    rows = [row for i, labels in enumerate(volumes) for row in measure_frame(frame_of(schema, labels, i))]
    return to_table(rows)


def whole_of(table, electrochem=None, **options):
    return measure_whole(History(table, Scale(SPACING), electrochem=electrochem), **options)


def of_series(rows):
    return {m.metric: m for m in rows if m.frame is None}


def test_volume_thickness_and_porosity(schema, rng):
    rows = {m.metric: m for m in measure_frame(frame_of(schema, plated(12, porosity=0.2, rng=rng)))}
    assert rows["mean_thickness"].value == pytest.approx(12, rel=1e-3)
    assert rows["deposit_volume"].value == pytest.approx(12 * 20 * 24, rel=1e-3)
    assert (rows["deposit_volume"].unit, rows["deposit_volume"].class_name) == ("um3", METAL)
    assert rows["imaged_porosity"].value == pytest.approx(0.2, abs=1e-3)
    for row in rows.values():
        assert row.low < row.value < row.high


def test_plated_by_a_charge_on_a_foil_that_was_there(schema):
    # 0 to 4 mAh/cm2 on 5 um of foil: what counts is the change.
    charges = [0.0, 1.0, 2.0, 3.0, 4.0]
    table = series(schema, [plated(UM_PER_MAH * q, foil_um=5) for q in charges])
    rows = whole_of(table, cycler(charges, ["plating"] * 5, [1] * 5))
    at = {m.frame: m for m in rows if m.metric == "volume_charge_ratio"}
    assert sorted(at, key=str) == [1, 2, 3, 4, None]
    for q in (1, 2, 3, 4):
        # Thickness in voxels of 0.25 um.
        assert at[q].value == pytest.approx(1, abs=0.13 / (UM_PER_MAH * q))
        assert at[q].low < 1 < at[q].high
    assert at[None].value == at[4].value
    expected = {m.frame: m.value for m in rows if m.metric == "expected_volume"}
    assert expected[3] == pytest.approx(3 * UM_PER_MAH * 20 * 24, rel=1e-3)


def test_a_short_first_step_is_left_out(schema):
    charges = [0.0, 0.1, 4.0]
    table = series(schema, [plated(UM_PER_MAH * q) for q in charges])
    rows = whole_of(table, cycler(charges, ["plating"] * 3, [1] * 3))
    assert [m.frame for m in rows if m.metric == "volume_charge_ratio"] == [2, None]


def test_one_image_after_a_known_charge(schema, rng):
    # 14.6 um at 3 mAh/cm2: dense and with a fifth of pores the amount per base is that.
    for porosity in (0.0, 0.2):
        table = series(schema, [plated(14.55, porosity=porosity, rng=rng)])
        found = of_series(whole_of(table, areal_capacity_mAh_per_cm2=3.0))
        assert found["volume_charge_ratio"].value == pytest.approx(1, abs=0.01)
        assert found["expected_volume"].value == pytest.approx(14.55 * 20 * 24, rel=0.001)
    without = of_series(whole_of(table))["volume_charge_ratio"]
    assert (math.isnan(without.value), without.flags) == (True, ("no-current",))
    pixels = to_table(measure_frame(frame_of(schema, plated(5), calibrated=False)))
    (refused,) = measure_whole(History(pixels, Scale(SPACING, calibrated=False)), areal_capacity_mAh_per_cm2=3.0)
    assert (math.isnan(refused.value), refused.flags) == (True, ("uncalibrated",))


def test_efficiency_of_cycles_with_dead_metal_left(schema):
    # Plate 10 um, strip all but 2, twice; what stays is labelled dead and still counts as metal.
    amounts = [(0, 0), (5, 0), (10, 0), (6, 0), (2, 2), (7, 2), (12, 2), (8, 2), (4, 4)]
    kinds = ["rest", *["plating"] * 2, *["stripping"] * 2, *["plating"] * 2, *["stripping"] * 2]
    table = series(schema, [plated(t, dead_um=d) for t, d in amounts])
    charges = np.array([0, 1, 2, 1, 0, 1, 2, 1, 0.0])
    rows = [m for m in whole_of(table, cycler(charges, kinds, [1] * 5 + [2] * 4)) if m.metric == "imaging_efficiency"]
    assert [(m.frame, m.value) for m in rows] == [
        (4, pytest.approx(0.8)), (8, pytest.approx(0.8)), (None, pytest.approx(0.8)),
    ]  # fmt: skip
    assert rows[0].low < 0.8 < rows[0].high
    assert rows[2].n == 2
    assert [m.flags for m in rows] == [(), (), ()]
    # Without a frame before the plating, the first frame of it stands in, and says so.
    late = table[table["frame"] > 0]
    first = next(
        m for m in whole_of(late, cycler(charges, kinds, [1] * 5 + [2] * 4)) if m.metric == "imaging_efficiency"
    )
    assert first.flags == ("extrapolated",)


def test_loss_at_rest(schema):
    # A voxel layer of 0.25 um every ten minutes is 1.5 um/h on 20 x 24 um.
    table = series(schema, [plated(10 - 0.25 * k) for k in range(6)])
    rests = cycler([0.0] * 6, ["rest"] * 6, [1] * 6)
    for rows in (whole_of(table, rests), whole_of(table, at_rest=True)):
        (rate,) = (m for m in rows if m.metric == "rest_shrinkage_rate")
        assert rate.value == pytest.approx(1.5 * 20 * 24)
        assert (rate.unit, rate.n) == ("um3/h", 6)
        assert rate.low <= rate.value <= rate.high
    assert not [m for m in whole_of(table) if m.metric == "rest_shrinkage_rate"]


def test_profile_needs_its_axis_and_plan_view_says_nothing(schema):
    labels = plated(8)[:, :, 0]
    frame = frame_of(schema, labels, spacing=SPACING[:2])
    (unknown,) = measure_frame(frame)
    assert (math.isnan(unknown.value), unknown.flags) == (True, ("ambiguous",))
    assert measure_whole(History(to_table([unknown]), frame.scale), areal_capacity_mAh_per_cm2=2.0) == []
    rows = {m.metric: m for m in measure_frame(frame, thickness_axis="y")}
    assert "deposit_volume" not in rows
    assert rows["mean_thickness"].value == pytest.approx(8)
    ratio = of_series(measure_whole(History(to_table(rows.values()), frame.scale), areal_capacity_mAh_per_cm2=2.0))
    assert ratio["volume_charge_ratio"].value == pytest.approx(8 / (2 * UM_PER_MAH), rel=1e-3)
    assert "expected_volume" not in ratio
    with pytest.raises(UsageError, match="thickness_axis 'z'"):
        measure_frame(frame, thickness_axis="z")


def test_no_metal_has_no_porosity(schema):
    rows = {m.metric: m for m in measure_frame(frame_of(schema, plated(0)))}
    assert (rows["deposit_volume"].value, rows["mean_thickness"].value) == (0, 0)
    assert (math.isnan(rows["imaged_porosity"].value), rows["imaged_porosity"].flags) == (True, ("ambiguous",))


def test_particles_of_the_twin_shrink_at_rest():
    # Galvanic corrosion and hollowing of isolated metal: 2 to 12 % over the series, less far from the collector.
    twin = make_experiment(
        "interface", 6, n_frames=4, shape_px=(72, 80, 88), dead_share=0.06, hollowing=0.12, shrinkage=0.10,
        contact_loss=0.0, n_filaments=0,
    )  # fmt: skip
    scale, rows = Scale.of(twin.labels), []
    for index in range(4):
        frame = Frame(twin.labels.frame(index), twin.schema, scale, index, 1800.0 * index)
        rows += measure_frame(frame, metal_classes=["dead_lithium"])
    table = to_table(rows)
    found = measure_whole(History(table, scale), metal_classes=["dead_lithium"], at_rest=True)
    (rate,) = (m for m in found if m.metric == "rest_shrinkage_rate")
    truth = [twin.truth_value("dead_volume", frame=f) for f in range(4)]
    hours = 0.5 * np.arange(4)
    assert rate.value == pytest.approx(-np.polyfit(hours, truth, 1)[0], rel=0.15)
    volumes = table[table["metric"] == "deposit_volume"]["value"].to_numpy()
    assert volumes == pytest.approx(np.array(truth), rel=0.01)
