"""Filaments of known depth and kind in a separator, short circuits, and the twin of a solid-state cell."""

import math

import numpy as np
import pytest

from seg.metrics.filament import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.names import text_result
from seg.metrics.percolation import find_passage, penetration, percolates
from seg.metrics.table import Scale
from seg.synthetic import make_experiment

SPACING = (0.5, 0.4)


def cell(schema, *, ndim=2, spacing=SPACING, flip=False, counter=False, draw=()):
    """Electrode at the bottom (y >= 80), separator above, perhaps an electrode at the top (y < 10); filaments."""
    shape = (100, 90) if ndim == 2 else (100, 24, 90)
    labels = np.full(shape, schema.index("separator"), np.uint8)
    labels[80:] = schema.index("deposit")
    if counter:
        labels[:10] = schema.index("substrate")
    for place in draw:
        labels[place] = schema.index("dendrite")
    labels = labels[::-1].copy() if flip else labels
    return Frame(labels, schema, Scale(spacing))


def box(top, bottom, left, right, ndim=2):
    return np.s_[top:bottom, left:right] if ndim == 2 else np.s_[top:bottom, 10:14, left:right]


def values(frame, **options):
    return {row.metric: row for row in measure_frame(frame, **options) if row.object_id is None}


@pytest.mark.parametrize(("ndim", "spacing"), [(2, SPACING), (3, (0.5, 0.3, 0.4))])
@pytest.mark.parametrize("flip", [False, True])
def test_depth_and_no_short(schema, ndim, spacing, flip):
    frame = cell(
        schema, ndim=ndim, spacing=spacing, flip=flip, draw=[box(40, 80, 20, 24, ndim), box(5, 12, 50, 60, ndim)]
    )
    found = values(frame)
    depth = found["penetration_depth"]
    # 40 rows; what floats in the separator has not come through it.
    assert depth.value == pytest.approx(40 * 0.5)
    assert depth.low < depth.value < depth.high
    assert "0.5 of the 40 um" in depth.method
    assert (found["percolates"].value, found["percolates"].low, found["percolates"].high) == (0, 0, 0)
    # A section may miss the way, a volume does not.
    assert found["percolates"].flags == (("ambiguous",) if ndim == 2 else ())


@pytest.mark.parametrize("counter", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_short_circuit(schema, ndim, counter):
    spacing = SPACING if ndim == 2 else (0.5, 0.3, 0.4)
    top = 10 if counter else 0
    shorted = cell(schema, ndim=ndim, spacing=spacing, counter=counter, draw=[box(top, 80, 20, 24, ndim)])
    found = values(shorted)
    assert (found["percolates"].value, found["percolates"].low, found["percolates"].flags) == (1, 1, ())
    assert found["penetration_depth"].value == pytest.approx((80 - top) * 0.5)
    gap = cell(schema, ndim=ndim, spacing=spacing, counter=counter, draw=[box(top + 2, 80, 20, 24, ndim)])
    assert values(gap)["percolates"].value == 0


def test_of_two_electrodes_it_grows_from_the_one_it_stands_on(schema):
    # Both of one class; the filament leaves the one at the bottom less of the separator.
    frame = cell(schema, draw=[np.s_[:10, :], box(30, 80, 20, 40)])
    labels = np.where(np.indices(frame.labels.shape)[0] < 10, schema.index("deposit"), frame.labels).astype(np.uint8)
    found = values(Frame(labels, schema, frame.scale))
    assert found["penetration_depth"].value == pytest.approx(50 * 0.5)
    assert "0.71 of the 35 um" in found["penetration_depth"].method


def test_corners_and_a_gap_of_a_pixel_are_in_the_interval(schema):
    corner = cell(schema, draw=[box(40, 80, 20, 24), box(0, 40, 24, 28)])
    found = values(corner)["percolates"]
    assert (found.low, found.value, found.high) == (0, 1, 1)
    gap = cell(schema, draw=[box(41, 80, 20, 24), box(0, 40, 20, 24)])
    found = values(gap)["percolates"]
    assert (found.low, found.value, found.high) == (0, 0, 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_interval_of_the_depth_knows_bumps_round_tips_and_gaps(schema, ndim):
    spacing = SPACING if ndim == 2 else (0.5, 0.3, 0.4)
    filament = box(40, 80, 40, 46, ndim)
    plain = values(cell(schema, ndim=ndim, spacing=spacing, draw=[filament]))["penetration_depth"]
    # Two ends, each digitised (0.29 px) and off by 0.25 px (standard deviations), along rows of 0.5 um.
    ends = 1.96 * math.sqrt(2) * math.hypot(12**-0.5, 0.25) * 0.5
    assert plain.value - plain.low == pytest.approx(ends)
    # Blur of 1.5 px takes s^2 / 2R (R = 2 to 3 px; s^2 / R of a tip in space) at most, and may have taken nothing.
    assert ends < plain.high - plain.value < ends + 2.25 / 2 * 0.5 * (ndim - 1)
    # The face at 80 becomes a sawtooth of 3 rows: the filament starts from a peak, 1.5 rows over the mean face.
    teeth = np.s_[78:80, 0::4] if ndim == 2 else np.s_[78:80, :, 0::4]
    frame = cell(schema, ndim=ndim, spacing=spacing, draw=[filament])
    labels = frame.labels.copy()
    labels[teeth] = schema.index("deposit")
    rough = values(Frame(labels, schema, frame.scale))["penetration_depth"]
    assert rough.high - rough.value > plain.high - plain.value + 0.25
    assert "electrode rough by" in rough.method
    # What a gap of 2 px cuts off may belong to it, beyond one of 4 px it does not.
    for gap, top in ((2, 20), (4, 40)):
        ahead = cell(schema, ndim=ndim, spacing=spacing, draw=[filament, box(20, 40 - gap, 40, 46, ndim)])
        found = values(ahead)["penetration_depth"]
        assert found.value == plain.value
        assert found.high == pytest.approx((40 - top) * 0.5 + plain.high)


def test_an_electrode_that_reaches_the_other_side_by_itself(schema):
    frame = cell(schema, draw=[box(40, 80, 20, 24)])
    labels = frame.labels.copy()
    labels[:, 70:] = schema.index("deposit")
    found = values(Frame(labels, schema, frame.scale))["percolates"]
    assert (found.value, found.flags) == (1, ("ambiguous",))
    assert "by itself" in found.method


def test_metal_in_a_hollow_of_the_electrode_has_no_sure_depth(schema):
    # Flush with the face at 80: what is farthest from the electrode is 4 columns (1.6 um) away from it, to the side.
    found = values(cell(schema, draw=[box(80, 95, 40, 47)]))["penetration_depth"]
    assert (found.value, found.flags) == (pytest.approx(4 * 0.4), ("ambiguous",))
    assert "beside" in found.method
    assert values(cell(schema, draw=[box(60, 95, 40, 47)]))["penetration_depth"].flags == ()


def test_metal_that_leaves_sideways_may_have_shorted_outside(schema):
    frame = cell(schema, ndim=3, spacing=(0.5, 0.3, 0.4), draw=[box(40, 80, 20, 24, 3), box(40, 44, 0, 24, 3)])
    assert values(frame)["percolates"].flags == ("touches-border",)


def test_left_to_right_and_missing_parts(schema):
    labels = cell(schema, draw=[box(30, 80, 20, 24)]).labels.T.copy()
    found = values(Frame(labels, schema, Scale((0.4, 0.5))))
    assert found["penetration_depth"].value == pytest.approx(50 * 0.5)
    bare = Frame(np.full((30, 30), schema.index("electrolyte"), np.uint8), schema, Scale((1, 1), calibrated=False))
    none = values(bare)
    assert all(math.isnan(row.value) for row in none.values())
    assert none["penetration_depth"].flags == ("uncalibrated", "no-credible-baseline")
    assert none["penetration_depth"].unit == "px"
    assert find_passage(bare, separator_classes=["separator"], electrode_classes=["deposit"]) is None
    assert values(cell(schema))["penetration_depth"].value == 0
    full = np.ones((3, 3), bool)
    assert math.isnan(penetration(full, ~full, grown=full, spacing=(1, 1)).depth)
    line = np.eye(4, dtype=bool)
    ends = np.zeros((2, 4, 4), bool)
    ends[0, 0, 0] = ends[1, 3, 3] = True
    assert percolates(line, *ends, full=True)
    assert not percolates(line, *ends, full=False)


def kinds(schema, mask):
    labels = np.full(mask.shape, schema.index("separator"), np.uint8)
    labels[mask] = schema.index("dendrite")
    labels[-20:] = schema.index("deposit")
    rows = measure_frame(Frame(labels, schema, Scale(SPACING)))
    return [text_result("morphology_class", row.method) for row in rows if row.object_id]


def stroke(shape, ends, width):
    y, x = (np.arange(n) * s for n, s in zip(shape, SPACING, strict=True))
    y, x = y[:, None], x[None]
    away = np.full(shape, np.inf)
    for (a, b), (c, d) in zip(ends, ends[1:], strict=False):
        share = np.clip(((y - a) * (c - a) + (x - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2), 0, 1)
        away = np.minimum(away, np.hypot(y - a - share * (c - a), x - b - share * (d - b)))
    return away <= width / 2


def test_kinds_of_filaments(schema):
    shape = (220, 300)  # the electrode is below 100 um
    straight = stroke(shape, [(101, 40), (20, 52)], 2.4)
    assert kinds(schema, straight) == ["straight"]
    trunk = stroke(shape, [(101, 60), (25, 60)], 2.4)
    for k in range(4):
        trunk |= stroke(shape, [(85 - 14 * k, 60), (70 - 14 * k, 60 + (-1) ** k * 18)], 2.2)
    assert kinds(schema, trunk) == ["branching"]
    # A crack that leaves the surface and turns back to it.
    angle = np.linspace(math.pi, 0, 40)
    bow = stroke(shape, [(101 - 18 * math.sin(a), 60 + 45 * math.cos(a)) for a in angle], 2.4)
    assert kinds(schema, bow) == ["spalling"]
    y, x = (np.arange(n) * s for n, s in zip(shape, SPACING, strict=True))
    cloud = ((y[:, None] - 101) / 30) ** 2 + ((x - 60) / 26) ** 2 <= 1
    assert kinds(schema, cloud) == ["diffuse"]


@pytest.mark.parametrize("seed", [4, 5])
def test_twin_of_a_solid_state_cell(seed):
    made = make_experiment("interface", seed, shape_px=(72, 80, 80), void_radius_um=3.0, filament_width_um=2.4)
    frame = Frame(made.labels.frame(0), made.schema, Scale(made.labels.spacing_um))
    rows = measure_frame(frame)
    found = {row.metric: row for row in rows if row.object_id is None}
    # Along z in the truth, to the nearest metal here: 1.5 degrees of tilt and a voxel.
    assert found["penetration_depth"].value == pytest.approx(made.truth_value("penetration_depth", frame=0), abs=0.6)
    assert found["percolates"].value == made.truth_value("percolates", frame=0) == 0
    words = [text_result("morphology_class", row.method) for row in rows if row.object_id]
    # Straight rods; the shortest are hardly longer than thrice their width.
    assert words.count("straight") >= 2
    assert set(words) <= {"straight", "undecided"}
