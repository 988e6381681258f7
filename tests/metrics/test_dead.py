"""Dead lithium: bodies with and without a path to the collector, in slabs, over time, and the darkening front."""

import math

import numpy as np
import pytest

from seg.metrics.dead import darkening_front, isolation, measure_frame, measure_pair, measure_series
from seg.metrics.frame import Frame
from seg.metrics.table import Scale, to_table
from seg.synthetic import make_experiment

VOXEL = (1.0, 0.5, 0.8)


def frame_of(schema, labels, spacing=VOXEL, index=0, **kwargs):
    return Frame(labels.astype(np.uint8), schema, Scale(spacing, **kwargs), index)


def forest(shape=(24, 40, 40)):
    """Collector below, a column on it, one that hangs on a corner, a free body, and one that leaves the frame."""
    labels = np.ones(shape, int)
    labels[-4:] = 2
    labels[8:-4, 5:11, 5:11] = 3  # 12 x 6 x 6 voxels on the collector
    labels[4:8, 11:15, 5:11] = 3  # 4 x 4 x 6, shares an edge with it
    labels[6:12, 20:26, 20:26] = 3  # 6 x 6 x 6, free
    labels[6:10, 34:40, 20:24] = 4  # 4 x 6 x 4, leaves the frame sideways
    return labels


def table(rows):
    return {(m.metric, m.method.split(";")[0]): m for m in rows}


def test_bodies_by_their_path_to_the_collector(schema):
    rows = table(measure_frame(frame_of(schema, forest())))
    column, corner, free, leaving = 12 * 36, 4 * 24, 216, 96
    whole = column + corner + free + leaving
    faces, full = rows["dead_fraction", "faces"], rows["dead_fraction", "full"]
    assert faces.value == pytest.approx((corner + free) / whole)
    assert full.value == pytest.approx(free / whole)
    # What leaves the frame may be live outside: it is in the upper bound only.
    assert full.high >= (free + leaving) / whole
    assert faces.flags == full.flags == ("touches-border",)
    assert (faces.n, full.n) == (2, 1)
    volume = rows["dead_volume", "faces"]
    assert (volume.value, volume.unit) == (pytest.approx((corner + free) * 0.4), "um3")
    assert volume.low < volume.value < volume.high


@pytest.mark.parametrize("slices", [1, 3, 8])
def test_slabs_change_no_number(rng, schema, slices):
    # Porous metal near the percolation threshold: paths wind through many slabs.
    labels = np.where(rng.random((30, 30, 30)) < 0.33, 3, 1)
    labels[-1] = 2
    rules = ((False, 0), (True, 0), (False, -1), (False, 1))
    frame = frame_of(schema, labels)
    whole = isolation(frame, rules=rules)
    assert isolation(frame, rules=rules, max_voxels=slices * 900) == whole
    assert 0.05 < whole[0].fraction < 0.95


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_direction_is_special(schema, axis):
    turned = np.moveaxis(forest(), 0, axis)
    spacing = tuple(np.moveaxis(np.array(VOXEL), 0, 0)[[1, 2]])
    spacing = (*spacing[:axis], VOXEL[0], *spacing[axis:])
    one, other = (table(measure_frame(f)) for f in (frame_of(schema, forest()), frame_of(schema, turned, spacing)))
    for key in one:
        assert other[key].value == pytest.approx(one[key].value)


def test_one_voxel_of_neck_is_what_sensitivity_is_about(schema):
    labels = np.ones((20, 20, 20), int)
    labels[-4:] = 2
    labels[12:16, 4:12, 4:12] = 3  # 256 voxels on the collector
    labels[9:12, 7, 7] = 3  # a neck of one voxel
    labels[3:9, 4:12, 4:12] = 3  # 384 voxels on top of it
    rows = table(measure_frame(frame_of(schema, labels)))
    assert rows["dead_fraction", "faces"].value == 0
    # Without its outermost layer the neck is gone; what was 6 x 8 x 8 is 4 x 6 x 6, and 4 x 8 x 8 loses its sides and
    # top, not its base. Each keeps the voxel under the neck.
    without = (4 * 36 + 1) / (4 * 36 + 1 + 3 * 36 + 1)
    assert rows["dead_fraction_sensitivity", "faces"].value == pytest.approx(without)
    assert rows["dead_fraction", "faces"].high == pytest.approx(without)


def test_a_gap_of_one_voxel_closes_when_metal_grows(schema):
    labels = np.ones((20, 20, 20), int)
    labels[-4:] = 2
    labels[5:15, 5:12, 5:12] = 3
    rows = table(measure_frame(frame_of(schema, labels)))
    assert rows["dead_fraction", "faces"].value == 1
    assert rows["dead_fraction", "faces"].low == 0
    assert rows["dead_fraction_sensitivity", "faces"].value == 1


def test_no_collector_and_no_metal_are_ambiguous(schema):
    labels = forest()
    labels[labels == 2] = 1
    for without in (labels, np.ones((8, 8, 8), int)):
        rows = table(measure_frame(frame_of(schema, without, calibrated=False)))
        for key in (("dead_fraction", "faces"), ("dead_fraction_sensitivity", "faces"), ("dead_volume", "faces")):
            assert math.isnan(rows[key].value)
            assert {"ambiguous", "uncalibrated"} <= set(rows[key].flags)
        assert rows["dead_volume", "faces"].unit == "px3"


def test_a_section_says_that_it_is_an_upper_bound(schema):
    rows = table(measure_frame(frame_of(schema, forest()[:, :, 8], (1.0, 0.5))))
    assert rows["dead_fraction", "faces"].flags == ("ambiguous",)
    assert "upper bound" in rows["dead_fraction", "faces"].method
    assert ("dead_volume", "faces") not in rows


def test_bodies_come_off_and_find_their_way_back(schema):
    whole = forest()
    cut, back = whole.copy(), whole.copy()
    cut[13, 5:11, 5:11] = 1  # the column loses its foot: 5 x 36 voxels and the body on its edge hang free
    back[12:20, 22, 22] = 3  # a thread ties the free body to the collector
    tied, loose = frame_of(schema, back, index=1), frame_of(schema, cut, index=1)
    before = frame_of(schema, whole)
    (off, found) = measure_pair(before, loose)
    assert (off.metric, off.value, off.frame) == ("detachment_count", 1, 1)
    assert (found.metric, found.value) == ("reattached_volume", 0)
    off, found = measure_pair(before, tied)
    assert (off.value, found.value, found.unit) == (0, pytest.approx(216 * 0.4), "um3")
    # Half a voxel of its 215 bare faces, a face and a half to each voxel of a smooth outline.
    assert (found.low, found.high) == pytest.approx(((216 - 215 / 3) * 0.4, (216 + 215 / 3) * 0.4))
    sums = measure_series(to_table([*measure_pair(before, loose), *measure_pair(before, tied)]))
    assert {m.metric: m.value for m in sums} == {"detachment_count": 1, "reattached_volume": pytest.approx(216 * 0.4)}
    assert measure_series(to_table([])) == []


def test_drift_is_no_detachment(schema):
    # The free body would lie on the live column of the frame before, had the sample not moved by 15 px.
    moved = np.ones_like(forest())
    moved[-4:] = 2
    moved[:-4, :, 15:] = forest()[:-4, :, :-15]
    off, _ = measure_pair(frame_of(schema, forest()), frame_of(schema, moved, index=1), shift_px=(0, 0, 15))
    assert off.value == 0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("flip", [1, -1])
def test_front_height_in_any_side_view(schema, axis, flip):
    labels = np.ones((100, 80), int)
    labels[90:] = 2
    for k, top in enumerate((20, 30, 24)):
        labels[top:90, 10 + 25 * k : 20 + 25 * k] = 3
        labels[top : 50 + k, 10 + 25 * k : 20 + 25 * k] = 5
    turned = np.moveaxis(labels[::flip], 0, axis)
    spacing = (0.4, 0.7) if axis == 0 else (0.7, 0.4)
    rows = table(measure_frame(frame_of(schema, turned, spacing)))
    (front,) = (m for (metric, _), m in rows.items() if metric == "darkening_front_height")
    # Fronts 40, 39 and 38 px above the substrate.
    assert (front.value, front.n) == (pytest.approx(39 * 0.4), 3)
    assert front.low < 39 * 0.4 < front.high
    dead = rows["dead_fraction", "labelled"].value
    assert dead == pytest.approx((30 + 21 + 28) * 10 / ((70 + 60 + 66) * 10))


def test_without_a_front_there_is_no_height():
    dead, live, base = np.zeros((3, 20, 10), bool)
    live[5:18], base[18:] = True, True
    value, low, high, n = darkening_front(dead, live, base, pixel_um=0.5, bodies=live.astype(int))
    assert (math.isnan(value), math.isnan(low), math.isnan(high), n) == (True, True, True, 0)


@pytest.mark.parametrize("seed", [3, 8])
def test_side_view_twin(seed):
    twin = make_experiment("dead", seed)
    scale, before, errors = Scale.of(twin.labels), None, []
    for index in range(twin.labels.n_frames):
        frame = Frame(twin.labels.frame(index), twin.schema, scale, index)
        rows = table(measure_frame(frame, collector_classes=["substrate", "sei"]))
        truth = twin.truth_value("dead_fraction", frame=index)
        if truth > 0:
            found = rows["dead_fraction", "labelled"]
            # Waists of 7 px: half a percent of their area is a fiftieth of a pixel of their sides.
            assert found.value == pytest.approx(truth, abs=0.005)
            assert found.low < truth < found.high
            height = next(m for (metric, _), m in rows.items() if metric == "darkening_front_height")
            errors.append((height.value - twin.truth_value("darkening_front_height", frame=index)) / scale.spacing[0])
        if before is not None:
            (off,) = measure_pair(before, frame, collector_classes=["substrate", "sei"])
            old = twin.truth_value("detachment_count", frame=index - 1)
            # Counts of the twin start anew with each cycle.
            assert off.value == max(twin.truth_value("detachment_count", frame=index) - old, 0)
        before = frame
    # Both the front and the foot (which all frames of a twin share) are rounded to a row.
    assert np.abs(errors).max() < 1


def test_tomography_twin():
    twin = make_experiment("interface", 4, shape_px=(72, 80, 88))
    frame = Frame(twin.labels.frame(0), twin.schema, Scale.of(twin.labels))
    found = table(measure_frame(frame))["dead_fraction", "faces"]
    assert found.value == pytest.approx(twin.truth_value("dead_fraction", frame=0), abs=0.002)
    assert table(measure_frame(frame))["dead_volume", "faces"].value == pytest.approx(
        twin.truth_value("dead_volume", frame=0), rel=0.02
    )
