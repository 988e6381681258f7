"""Fronts of drawn shapes that move by known amounts."""

import math

import numpy as np
import pytest

from seg.crofton import shared_boundary
from seg.errors import UsageError
from seg.metrics.frame import Frame
from seg.metrics.front import Front, GrowthMap, measure_pair, moved
from seg.metrics.table import Scale

SCALE = Scale((0.5, 0.25))
STEP_S = 4.0


def scene(schema, index, *discs, shape=(160, 320), substrate_from=None, artifact=None, scale=SCALE, timed=True):
    """Discs (y, x, radius in um) of deposit in electrolyte."""
    labels = np.full(shape, schema.index("electrolyte"), np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cy, cx, r in discs:
        labels[np.hypot(y * scale.spacing[0] - cy, x * scale.spacing[1] - cx) <= r] = schema.index("deposit")
    if substrate_from is not None:
        labels[substrate_from:] = schema.index("substrate")
    if artifact is not None:
        labels[artifact] = schema.index("artifact")
    return Frame(labels, schema, scale, index, index * STEP_S if timed else None)


def value(rows, metric="front_velocity", side=""):
    (row,) = [row for row in rows if row.metric == metric and row.side == side]
    return row


@pytest.mark.parametrize("grown_um", [3.0, 1.0, 0.3, 0.1, -1.0])
def test_velocity_of_a_disc_is_that_of_its_radius(schema, grown_um):
    before, after = scene(schema, 0, (40.1, 40.03, 20)), scene(schema, 1, (40.1, 40.03, 20 + grown_um))
    row = value(measure_pair(before, after))
    # Crofton's formula is right to 0.5 %. The pixels in a disc of r px scatter by sqrt(0.68 r) (Kendall): in two
    # frames by 1.1 um2, which is 0.009 um of its outline.
    assert row.value == pytest.approx(grown_um / STEP_S, rel=0.01, abs=0.018 / STEP_S)
    assert row.low < grown_um / STEP_S < row.high
    assert (row.unit, row.frame, row.time_s, row.class_name) == ("um/s", 1, STEP_S, "deposit+dendrite")
    # Half a pixel in both frames is 0.25 um of 0.354 um pixels.
    assert row.flags == (("few-pixels",) if abs(grown_um) < 0.25 else ())


def test_velocity_is_a_current_density(schema):
    rows = measure_pair(scene(schema, 0, (40, 40, 20)), scene(schema, 1, (40, 40, 21)))
    current = value(rows, "local_current_density")
    # 1 nm/s of lithium is 0.742 mA/cm2.
    assert current.value == pytest.approx(value(rows).value * 742.2, rel=1e-3)
    assert current.unit == "mA/cm2"
    assert current.low < current.value < current.high


def test_new_and_vanished_objects_are_no_front(schema):
    before = scene(schema, 0, (30, 20, 10), (60, 70, 5))
    after = scene(schema, 1, (30, 20, 11), (20, 65, 6))
    assert value(measure_pair(before, after)).value == pytest.approx(1.0 / STEP_S, rel=0.02)
    nothing = value(measure_pair(scene(schema, 0), scene(schema, 1, (30, 20, 10))))
    assert math.isnan(nothing.value)
    assert nothing.flags == ("regime-not-reached",)


def test_merging_neighbours_do_not_break_it(schema):
    before, after = (scene(schema, i, (40, 25, 14 + i), (40, 54.2, 14 + i)) for i in (0, 1))
    # The gap of 1.2 um closes from both sides and a little of both fronts is lost: a few per cent.
    assert value(measure_pair(before, after)).value == pytest.approx(1.0 / STEP_S, rel=0.05)


def test_foot_on_the_substrate_is_no_front(schema):
    before, after = (scene(schema, i, (60, 40, 20 + 2 * i), substrate_from=120) for i in (0, 1))
    row = value(measure_pair(before, after, fixed_classes=["substrate"]))
    assert row.value == pytest.approx(2.0 / STEP_S, rel=0.02)
    # With the foot in it the front is longer by 2 / pi and the velocity smaller.
    assert value(measure_pair(before, after)).value == pytest.approx(2.0 / STEP_S * math.pi / (math.pi + 2), rel=0.03)


def test_artifact_takes_its_part_out_of_gain_and_front(schema):
    hidden = (slice(0, 160), slice(150, 200))
    before = scene(schema, 0, (40, 40, 20))
    after = scene(schema, 1, (40, 40, 21), artifact=hidden)
    assert value(measure_pair(before, after)).value == pytest.approx(1.0 / STEP_S, rel=0.03)


def test_regions_at_hand_change_nothing(schema, rng):
    masks = [rng.random((50, 60)) < share for share in (0.03, 0.05)]
    for mask in masks:
        mask[10:20, 10:30] = True
    frames = [Frame(np.where(mask, 3, 1).astype(np.uint8), schema, Scale((0.2, 0.3))) for mask in masks]
    known, nothing = np.ones((50, 60), bool), np.zeros((50, 60), bool)
    regions = tuple(frame.regions(("deposit", "dendrite")) for frame in frames)
    found = Front.between(*masks, known, nothing, regions=regions)
    expected = Front.between(*masks, known, nothing)
    for name in ("before", "after", "known", "free_before", "free_after"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert not found.after.all()
    assert found.after.sum() < masks[1].sum()  # a speck that nothing of the frame before touches is left out


def test_drift_is_removed_first(schema):
    before, after = scene(schema, 0, (40, 30, 15)), scene(schema, 1, (42, 31.5, 16))
    with_drift = measure_pair(before, after, shift_px=(4, 6), local_velocities=True, asymmetry_axis="x")
    assert value(with_drift).value == pytest.approx(1.0 / STEP_S, rel=0.02)
    assert value(with_drift, "growth_asymmetry").value == pytest.approx(0, abs=0.05)
    # Local velocities are quantised: to a pixel (0.5 um at most) over the interval.
    for side in ("slowest 5 %", "fastest 5 %"):
        assert value(with_drift, side=side).value == pytest.approx(1.0 / STEP_S, abs=0.5 / STEP_S)
    without = value(measure_pair(before, after, local_velocities=True), side="fastest 5 %").value
    assert without == pytest.approx((2.5 + 1) / STEP_S, abs=0.5 / STEP_S)


def test_signed_distances_are_the_way_of_the_front(schema):
    before, after = (scene(schema, i, (40, 40, 18 + 3 * i)) for i in (0, 1))
    masks = [frame.mask(["deposit"]) for frame in (before, after)]
    front = Front.between(*masks, before.valid, np.zeros_like(masks[0]))
    distances, lengths = front.displacements(SCALE.spacing)
    # Pixel centres to the nearest pixel centre: off by a fraction of a pixel of 0.25 to 0.5 um.
    assert np.average(distances, weights=lengths) == pytest.approx(3.0, abs=0.12)
    assert lengths.sum() == pytest.approx(2 * math.pi * 21, rel=0.02)


def test_asymmetry_of_one_sided_growth(schema):
    before = scene(schema, 0, (40, 40, 15))
    labels = before.labels.copy()
    labels[60:100, 215:240] = schema.index("deposit")  # right of the centre only
    after = Frame(labels, schema, SCALE, 1, STEP_S)
    assert value(measure_pair(before, after, asymmetry_axis="x"), "growth_asymmetry").value == 1.0
    assert value(measure_pair(after, Frame(before.labels, schema, SCALE, 2, 8.0), asymmetry_axis="x"),
                 "growth_asymmetry").value == 1.0  # fmt: skip
    with pytest.raises(UsageError, match="asymmetry_axis 'z'"):
        measure_pair(before, after, asymmetry_axis="z")


def test_still_front_has_no_asymmetry(schema):
    row = value(measure_pair(scene(schema, 0, (40, 40, 15)), scene(schema, 1, (40, 40, 15)), asymmetry_axis="x"),
                "growth_asymmetry")  # fmt: skip
    assert math.isnan(row.value)
    assert row.flags == ("ambiguous",)


def test_without_times_and_scale(schema):
    scale = Scale((1.0, 1.0), calibrated=False)
    before, after = (scene(schema, i, (80.2, 160.3, 40 + 2 * i), scale=scale, timed=False) for i in (0, 1))
    (row,) = measure_pair(before, after)
    assert (row.unit, row.flags) == ("px/frame", ("uncalibrated",))
    assert row.value == pytest.approx(2.0, abs=0.06)  # twice the scatter of the pixels in a disc
    assert measure_pair(scene(schema, 1, (40, 40, 9)), scene(schema, 1, (40, 40, 9))) == []  # no time between them


def test_volume_grows_by_its_surface(schema):
    scale = Scale((0.6, 0.4, 0.5))
    z, y, x = np.mgrid[:50, :70, :60]
    away = np.sqrt((0.6 * (z - 25)) ** 2 + (0.4 * (y - 35)) ** 2 + (0.5 * (x - 30)) ** 2)
    frames = [Frame(np.where(away <= r, 3, 1).astype(np.uint8), schema, scale, i, i * STEP_S)
              for i, r in enumerate((9.0, 10.0))]  # fmt: skip
    # Mean of the surfaces of both spheres instead of that between: 0.1 %; Crofton's formula: 1 %.
    assert value(measure_pair(*frames)).value == pytest.approx(1.0 / STEP_S, rel=0.015)


def test_shared_boundary_leaves_other_neighbours_out():
    y, x = np.mgrid[:200, :300]
    disc = np.hypot((y - 100) * 0.5, (x - 150) * 0.25) <= 30
    assert shared_boundary(disc, ~disc, spacing=(0.5, 0.25)) == pytest.approx(2 * math.pi * 30, rel=0.01)
    right = ~disc & (x >= 150)
    assert shared_boundary(disc, right, spacing=(0.5, 0.25)) == pytest.approx(math.pi * 30, rel=0.02)


def test_moving_a_mask():
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    assert np.argwhere(moved(mask, np.array([2, -1]))).tolist() == [[3, 1]]
    assert not moved(mask, np.array([9, 0])).any()
    assert moved(mask, np.array([0, 0])) is mask


def test_growth_map_tells_arrival_and_departure(schema):
    growth = GrowthMap((160, 320), ["deposit"])
    for i, r in enumerate((10, 15, 15, 5)):
        hidden = (slice(0, 160), slice(200, 320)) if i == 3 else None
        drift = np.array([2.0, 0.0]) * i
        growth.add(scene(schema, i, (40 + i, 50, r), artifact=hidden), drift)
    row = 80
    x_um = np.arange(320) * 0.25
    inside = np.abs(x_um - 50)
    assert set(growth.arrival[row][inside < 9.5]) == {0.0}
    assert set(growth.arrival[row][(inside > 10.5) & (inside < 14.5)]) == {4.0}
    assert np.isnan(growth.arrival[row][inside > 15.5]).all()
    left = (x_um > 36) & (x_um < 44)
    assert set(growth.departure[row][left]) == {12.0}
    assert np.isnan(growth.departure[row][200:]).all()  # hidden is not gone
