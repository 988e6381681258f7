"""Voids of known size and contact: balls, caps on an interface, sections, borders, units."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from seg.metrics.contact_loss import contact_loss
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.mesh import interface_area, sphericity
from seg.metrics.table import Scale, to_table
from seg.metrics.voids import measure_frame, measure_whole, scan_voids
from seg.synthetic import make_experiment

VOXELS = [(0.5, 0.5, 0.5), (1.0, 0.5, 0.8)]


def grid(shape, spacing, offset=0.0):
    """Voxel centres of a box of physical `shape`."""
    return np.moveaxis(np.indices([round(s / p) for s, p in zip(shape, spacing, strict=True)]), 0, -1) * np.asarray(
        spacing
    ) + np.asarray(offset)


def frame_of(schema, separator, void, spacing, **kwargs):
    labels = np.where(separator, 9, np.where(void, 7, 3)).astype(np.uint8)
    return Frame(labels, schema, Scale(spacing, **kwargs))


def table(measured, object_id=None, side=""):
    return {m.metric: m for m in measured if m.object_id == object_id and m.side == side}


def caps(rng, spacing, n=8):
    """Separator below z = 10, caps of balls on it, and a ball in the metal; also lost area, volume and count."""
    points = grid((30, 48, 48), spacing, np.asarray(spacing) / 2)
    separator = points[..., 0] < 10
    void = np.linalg.norm(points - [22, 24, 24], axis=-1) < 4
    lost, volume, placed = 0.0, 4 / 3 * math.pi * 64, []
    while len(placed) < n:
        radius = rng.uniform(2.5, 4.5)
        centre, lift = rng.uniform(6, 42, 2), rng.uniform(-0.4, 0.5) * radius
        if any(np.hypot(*(centre - c)) < radius + r + 1.5 for c, r in placed):
            continue
        placed.append((centre, radius))
        void |= (np.linalg.norm(points - [10 + lift, *centre], axis=-1) < radius) & ~separator
        lost += math.pi * (radius**2 - lift**2)
        height = radius + lift
        volume += math.pi * height**2 * (3 * radius - height) / 3
    return separator, void, lost, volume, n + 1


@pytest.mark.parametrize("spacing", VOXELS)
def test_caps_on_an_interface(rng, schema, spacing):
    separator, void, lost, volume, count = caps(rng, spacing)
    found = measure_frame(frame_of(schema, separator, void, spacing))
    whole = table(found)
    assert whole["contact_loss_fraction"].value == pytest.approx(lost / 48**2, abs=0.01)
    assert whole["contact_loss_fraction"].low < lost / 48**2 < whole["contact_loss_fraction"].high
    assert whole["void_count"].value == count
    # Voxel volumes: 1 % for the sum.
    assert whole["void_volume"].value == pytest.approx(volume, rel=0.01)
    assert whole["void_fraction"].value == pytest.approx(volume / (20 * 48**2), rel=0.01)
    assert whole["interface_area"].value == pytest.approx(48**2, rel=0.005)
    assert sum(m.metric == "void_volume" and m.object_id is not None for m in found) == count


@pytest.mark.parametrize("spacing", VOXELS)
@pytest.mark.parametrize("half_axes", [(4.0, 4.0, 4.0), (7.0, 4.5, 2.5)])
def test_size_and_sphericity_of_one_void(rng, schema, spacing, half_axes):
    points = grid((24, 20, 20), spacing, rng.uniform(-0.25, 0.25, 3))
    void = np.sum(((points - [12, 10, 10]) / half_axes) ** 2, axis=-1) < 1
    volume = 4 / 3 * math.pi * math.prod(half_axes)
    # Knud Thomsen's formula for the surface of an ellipsoid is within 1.1 %.
    a, b, c = (h**1.6075 for h in half_axes)
    surface = 4 * math.pi * ((a * b + a * c + b * c) / 3) ** (1 / 1.6075)
    one = table(measure_frame(frame_of(schema, np.zeros_like(void), void, spacing)), 1)
    assert one["void_volume"].value == pytest.approx(volume, rel=0.02)
    assert one["void_diameter"].value == pytest.approx((6 * volume / math.pi) ** (1 / 3), rel=0.01)
    assert one["void_sphericity"].value == pytest.approx(
        math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface, abs=0.05
    )


def test_thin_gap_is_not_extrapolated():
    # A delamination two voxels high with straight walls: the first layer is the contact that is lost.
    separator = np.zeros((20, 30, 30), bool)
    separator[:8] = True
    void = np.zeros_like(separator)
    void[8:10, 5:25, 5:20] = True
    found = contact_loss(separator, ~separator & ~void, void, spacing=(2.0, 1.0, 0.5))
    assert found.fraction == pytest.approx(20 * 15 / 900)
    assert found.total == pytest.approx(900 * 0.5)
    assert found.axis == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_both_sides_and_any_axis_of_a_separator(axis):
    separator = np.zeros((24, 24, 24), bool)
    separator[8:16] = True
    void = np.zeros_like(separator)
    void[16:21, 4:16, 6:12] = True
    void[1:8, 2:8, 2:8] = True
    lost = (12 * 6 + 6 * 6) / (2 * 24 * 24)
    turned, hollow = np.moveaxis(separator, 0, axis), np.moveaxis(void, 0, axis)
    found = contact_loss(turned, ~turned & ~hollow, hollow, spacing=(1.0, 1.0, 1.0), max_voxels=5 * 24 * 24)
    # Vertical walls: the parabola through equal areas is that area.
    assert found.fraction == pytest.approx(lost)
    assert found.axis == axis


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 0.8), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize(("tilt", "wave"), [(0, 0), (30, 0), (10, 3)])
def test_interface_area_of_a_wavy_tilted_surface(spacing, tilt, wave):
    points = grid((60, 80, 80), spacing)
    slope = math.tan(math.radians(tilt))
    separator = points[..., 0] < 30.3 + slope * (points[..., 1] - 40) + wave * np.sin(2 * math.pi * points[..., 2] / 25)
    size = [n * s for n, s in zip(separator.shape, spacing, strict=True)]
    x = np.linspace(0, size[2], 20001) - spacing[2] / 2
    steep = wave * 2 * math.pi / 25 * np.cos(2 * math.pi * x / 25)
    truth = np.trapezoid(np.sqrt(1 + slope**2 + steep**2), x) * size[1]
    assert interface_area(separator, ~separator, spacing=spacing) == pytest.approx(truth, rel=0.035)


def test_voids_at_the_border_and_tiny_ones_are_flagged(schema):
    void = np.zeros((30, 30, 30), bool)
    void[:6, 3:9, 3:9] = True
    void[15:21, 15:21, 15:21] = True
    void[26, 26, 26] = True
    found = measure_frame(frame_of(schema, np.zeros_like(void), void, (1.0, 1.0, 1.0)))
    flags = {m.object_id: m.flags for m in found if m.metric == "void_volume"}
    assert flags == {1: ("touches-border",), 2: (), 3: ("below-detection-limit",), None: ()}
    whole = table(found)
    assert (whole["void_count"].value, whole["void_count"].low) == (3, 2)
    assert whole["void_count"].flags == ("below-detection-limit", "touches-border")
    # The mean is that of the one void which is whole and big enough.
    assert whole["void_diameter"].value == pytest.approx((6 * 216 / math.pi) ** (1 / 3))
    assert whole["void_diameter"].n == 1
    assert "contact_loss_fraction" not in whole


def test_mean_diameter_corrects_for_voids_that_the_border_cuts(rng, schema):
    # Equal numbers of small and big discs; big ones are cut more often, so that the plain mean is 4 % low.
    void = np.zeros((1200, 1200), bool)
    y, x = np.mgrid[-60:61, -60:61]
    for centre, radius in zip(rng.uniform(-60, 1260, (260, 2)), np.tile([8, 45], 130), strict=True):
        c = np.rint(centre).astype(int)
        top, left = np.maximum(c - 60, 0), np.maximum(c - 60, 0)
        window = void[top[0] : c[0] + 61, left[1] : c[1] + 61]
        disc = np.hypot(y, x) < radius
        cut = disc[top[0] - c[0] + 60 :, left[1] - c[1] + 60 :][: window.shape[0], : window.shape[1]]
        near = void[max(c[0] - 62, 0) : c[0] + 63, max(c[1] - 62, 0) : c[1] + 63]
        if window.size and not near.any():
            window |= cut
    whole = table(measure_frame(frame_of(schema, np.zeros_like(void), void, (1.0, 1.0))))["void_diameter"]
    ids = ndimage.label(void, np.ones((3, 3)))[0]
    sizes = np.bincount(ids.ravel())[1:]
    cut_ids = np.unique(np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]]))
    inside = np.setdiff1d(np.arange(1, len(sizes) + 1), cut_ids)
    assert whole.n == len(inside)
    # Big ones are weighted up by the inverse chance to be whole.
    assert whole.value > np.mean(2 * np.sqrt(sizes[inside - 1] / math.pi))


def test_section_gives_areas_and_says_so(schema):
    y, x = np.mgrid[:100, :200].astype(float)
    separator = y < 20
    void = (np.hypot((y - 60) * 0.5, (x - 60) * 0.2) < 6) | ((np.abs(x - 150) < 20) & (y >= 20) & (y < 40))
    found = measure_frame(frame_of(schema, separator, void & ~separator, (0.5, 0.2)))
    whole = table(found)
    area = math.pi * 36 + 39 * 20 * 0.1
    assert whole["void_fraction"].value == pytest.approx(area / (80 * 200 * 0.1), rel=0.01)
    assert whole["void_fraction"].method.startswith("2-D section")
    assert whole["contact_loss_fraction"].value == pytest.approx(39 / 200, abs=0.005)
    diameters = sorted(m.value for m in found if m.metric == "void_diameter" and m.object_id)
    assert diameters == pytest.approx([2 * math.sqrt(78 / math.pi), 12], rel=0.01)
    assert not {"void_volume", "void_sphericity", "interface_area"} & set(whole)


def test_corner_neighbours_are_one_void(schema):
    void = np.zeros((12, 12, 12), bool)
    void[2:5, 2:5, 2:5] = void[5:8, 5:8, 5:8] = True
    found = measure_frame(frame_of(schema, np.zeros_like(void), void, (1.0, 1.0, 1.0)))
    assert table(found)["void_count"].value == 1


def scene(rng, spacing):
    """Caps on an interface that rises and falls by 4 um, so that every slab meets separator, metal and void."""
    separator, void, *_ = caps(rng, spacing)
    shift = np.rint(4 * np.sin(np.arange(void.shape[1]) / 9) / spacing[0]).astype(int)
    for row, by in enumerate(shift):
        separator[:, row], void[:, row] = (np.roll(m[:, row], by, axis=0) for m in (separator, void))
    return separator, void & ~separator


def test_slabs_change_no_number(rng, schema, monkeypatch):
    separator, void = scene(rng, (1.0, 0.5, 0.8))
    frame = frame_of(schema, separator, void, (1.0, 0.5, 0.8))
    whole = measure_frame(frame)
    for slices in (1, 2, 7):
        monkeypatch.setattr("seg.blocks.SLAB_VOXELS", slices * void[0].size)
        assert measure_frame(frame) == whole
    # The mesh is made a few slices at a time too: the same triangles, summed in another order.
    area = table(whole)["interface_area"].value
    monkeypatch.setattr("seg.metrics.mesh.CHUNK_VOXELS", 3 * void[0].size)
    assert table(measure_frame(frame))["interface_area"].value == pytest.approx(area, rel=1e-6)


def test_a_volume_on_disk_needs_only_slices_in_memory(rng, schema, tmp_path, monkeypatch):
    separator, void = scene(rng, (1.0, 0.5, 0.8))
    frame = frame_of(schema, separator, void, (1.0, 0.5, 0.8))
    path = tmp_path / "labels.npy"
    np.save(path, frame.labels)
    most = []

    class Watched:
        """The memory map, and how many voxels were asked for at once."""

        def __init__(self, data):
            self.data, self.shape = data, data.shape

        def __len__(self):
            return len(self.data)

        def __getitem__(self, key):
            part = self.data[key]
            most.append(part.size)
            return part

    monkeypatch.setattr("seg.blocks.SLAB_VOXELS", 4 * void[0].size)
    monkeypatch.setattr("seg.metrics.mesh.CHUNK_VOXELS", 2 * void[0].size)
    expected = measure_frame(frame)
    lazy = Frame(Watched(np.load(path, mmap_mode="r")), schema, frame.scale)
    assert measure_frame(lazy) == expected
    # Four slices with four on each side; the mesh: two with 6 to 8 on each side.
    assert max(most) <= 19 * void[0].size < 0.7 * void.size


@pytest.mark.parametrize("spacing", VOXELS)
def test_distance_from_the_interface(rng, schema, spacing):
    errors = []
    for _ in range(12):
        points = grid((30, 24, 24), spacing, rng.uniform(0, 1, 3) * spacing)
        tilt = rng.uniform(-0.1, 0.1, 2)
        depth = points[..., 0] - 8 - (points[..., 1:] - 12) @ tilt
        away, radius = rng.uniform(1.5, 8), rng.uniform(2.5, 4.5)
        height = 8 + (away + radius) * math.hypot(1, *tilt)
        void = np.linalg.norm(points - [height, 12, 12], axis=-1) < radius
        found = table(measure_frame(frame_of(schema, depth < 0, void, spacing)), 1)["void_distance_to_interface"]
        assert found.low < away < found.high
        errors.append(found.value - away)
    # Target: a quarter of a voxel. Over 60 draws the bias is 0.01 and the spread 0.23 to 0.29 voxels along z.
    assert np.mean(errors) == pytest.approx(0, abs=0.25 * spacing[0])
    assert np.std(errors) < 0.4 * spacing[0]


def test_a_rough_void_may_be_farther_from_the_interface_than_its_nearest_bump(rng, schema):
    # Both outlines wander by 0.7 px, correlated over 2 px; the high end then has 1.5 standard deviations more.
    points = grid((30, 24, 24), (1.0, 1.0, 1.0), np.full(3, 0.4))
    depth, ball = points[..., 0] - 8, 5 - np.linalg.norm(points - [18, 12, 12], axis=-1)
    gap = {}
    for sd in (0.0, 0.7):
        below, void = (level + sd * noise / noise.std() for level, noise in
                       zip((depth, ball), ndimage.gaussian_filter(rng.standard_normal((2, *depth.shape)), (0, 2, 2, 2)),
                           strict=True))  # fmt: skip
        found = measure_frame(frame_of(schema, below < 0, (void > 0) & (below > 0), (1.0, 1.0, 1.0)))
        rows = [m for m in found if m.metric == "void_distance_to_interface" and m.object_id]
        row = max(rows, key=lambda m: m.value)
        blur = 5 * (np.cbrt(1 + 3 * 1.5**2 / 5**2) - 1)
        gap[sd] = (row.high - row.value) - (row.value - row.low - blur)
    assert gap[0.0] == pytest.approx(0, abs=0.1)
    assert gap[0.7] == pytest.approx(1.5 * 0.7, abs=0.6)


def test_contact_and_bulk_voids_are_told_apart(rng, schema):
    separator, void, *_ = caps(rng, (1.0, 0.5, 0.8))
    found = measure_frame(frame_of(schema, separator, void, (1.0, 0.5, 0.8)))
    assert (table(found, side="contact")["void_count"].value, table(found, side="bulk")["void_count"].value) == (8, 1)
    at = [m.value for m in found if m.metric == "void_distance_to_interface" and m.object_id]
    # Eight caps on the interface; the ball's lowest point is 8 um above it, known to a voxel of 1 um along z.
    assert sorted(at)[:8] == [0] * 8
    assert sorted(at)[8] == pytest.approx(8, abs=0.6)


def test_ratio_of_the_interface_leaves_filaments_aside(schema):
    points = grid((30, 40, 40), (1.0, 0.5, 0.8))
    slope = math.tan(math.radians(20))
    separator = points[..., 0] < 15 + slope * (points[..., 1] - 20)
    rod = np.hypot(points[..., 1] - 20, points[..., 2] - 20) < 2
    labels = np.where(rod & (points[..., 0] > 4), 4, np.where(separator, 9, 3)).astype(np.uint8)
    whole = measure_frame(Frame(labels, schema, Scale((1.0, 0.5, 0.8))))
    found = table(whole)
    plane = 40 * 40
    tube = 2 * math.pi * 2 * 11
    assert found["interface_area_ratio"].value == pytest.approx(1 / math.cos(math.radians(20)), rel=0.03)
    assert found["interface_area"].value == pytest.approx(plane / math.cos(math.radians(20)) + tube, rel=0.03)
    assert table(whole, side="projected")["interface_area"].value == pytest.approx(plane, rel=0.01)


def electrochem(n, capacity):
    """Frames of stripping at 0.5 mA/cm2."""
    return pd.DataFrame(
        {
            "frame": np.arange(n), "time_s": np.arange(n) * 3600.0, "half_cycle": "stripping",
            "cycle": pd.array([1] * n, dtype="Int64"), "current_mA": 0.25, "capacity_mAh": 0.5 * np.asarray(capacity),
            "current_density_mA_per_cm2": 0.5, "areal_capacity_mAh_per_cm2": capacity,
        }
    )  # fmt: skip


def test_growth_per_charge_and_local_current(schema):
    # Every 0.1 mAh/cm2 strips a box of 4 x 20 x 10 um more under the separator of 40 x 40 um.
    spacing, rows = (1.0, 0.5, 0.8), []
    for frame in range(5):
        separator = np.zeros((30, 80, 50), bool)
        separator[:10] = True
        void = np.zeros_like(separator)
        void[10:14, 5 : 5 + 8 * frame, 5:30] = True
        labels = np.where(separator, 9, np.where(void, 7, 3)).astype(np.uint8)
        rows += measure_frame(Frame(labels, schema, Scale(spacing), frame, frame * 3600.0))
    history = History(to_table(rows), Scale(spacing), electrochem=electrochem(5, -0.1 * np.arange(5)))
    found = measure_whole(history)
    (rate,) = (m for m in found if m.metric == "void_rate_per_charge")
    per_step_um3, per_step_mAh = 4 * 4 * 20, 0.1 * 40 * 40 * 1e-8
    assert rate.value == pytest.approx(per_step_um3 / per_step_mAh)
    assert (rate.unit, rate.side, rate.n) == ("um3/mAh", "stripping", 5)
    local = {m.frame: m for m in found if m.metric == "local_current_density"}
    assert local[4].value == pytest.approx(0.5 / (1 - 16 * 20 / 1600), rel=0.01)
    assert local[4].low < local[4].value < local[4].high
    (without,) = measure_whole(History(to_table(rows), Scale(spacing)))
    assert math.isnan(without.value)
    assert without.flags == ("no-current",)


def test_one_pass_counts_what_the_whole_array_says(rng, schema):
    separator, void = scene(rng, (1.0, 0.5, 0.8))
    frame = frame_of(schema, separator, void, (1.0, 0.5, 0.8))
    scan = scan_voids(frame, max_voxels=3 * void[0].size)
    assert scan.n_separator == separator.sum()
    assert scan.n_metal == (~separator & ~void).sum()
    assert scan.faces == tuple(np.count_nonzero(np.diff(void, axis=a)) for a in range(3))


def test_nothing_one_voxel_and_uncalibrated(schema):
    empty = np.zeros((12, 12, 12), bool)
    found = table(measure_frame(frame_of(schema, empty, empty, (1.0, 1.0, 1.0), calibrated=False)))
    assert (found["void_fraction"].value, found["void_count"].value, found["void_volume"].value) == (0, 0, 0)
    assert math.isnan(found["void_diameter"].value)
    assert (found["void_volume"].unit, found["void_volume"].flags) == ("px3", ("uncalibrated",))
    nothing = Frame(np.ones((8, 8, 8), np.uint8), schema, Scale((1.0, 1.0, 1.0)))
    assert math.isnan(table(measure_frame(nothing))["void_fraction"].value)
    one = empty.copy()
    one[5, 5, 5] = True
    assert math.isnan(sphericity(one, spacing=(1.0, 1.0, 1.0)))
    alone = Frame(np.where(one, 9, 1).astype(np.uint8), schema, Scale((1.0, 1.0, 1.0)))
    lost = table(measure_frame(alone))["contact_loss_fraction"]
    assert math.isnan(lost.value)
    assert lost.flags == ("ambiguous",)


@pytest.mark.parametrize(
    ("seed", "options"),
    [(0, {}), (1, {"waviness_um": 1.2}), (2, {"tilt_deg": 5.0}), (3, {"void_angle_deg": 110.0})],
)
def test_tomography_twin(seed, options):
    # Bias and spread over five seeds each: loss -0.003 to 0.000 +- 0.002; volume 0 to +2 % +- 0.6 to 1.8 % (the flatter
    # the interface, the more it shares one place within the voxels); area -1.6 to -1.1 % +- 0.1 %.
    twin = make_experiment("interface", seed, shape_px=(72, 80, 88), **options)
    whole = table(measure_frame(Frame(twin.labels.frame(0), twin.schema, Scale.of(twin.labels))))
    assert whole["contact_loss_fraction"].value == pytest.approx(
        twin.truth_value("contact_loss_fraction", frame=0), abs=0.01
    )
    assert whole["void_count"].value == twin.truth_value("void_count", frame=0)
    assert whole["void_volume"].value == pytest.approx(twin.truth_value("void_volume", frame=0), rel=0.06)
    assert whole["interface_area_ratio"].value == pytest.approx(
        twin.truth_value("interface_area_ratio", frame=0), rel=0.03
    )
    for metric in ("void_volume", "void_fraction", "contact_loss_fraction", "interface_area"):
        row = whole[metric]
        assert row.low < twin.truth_value(metric, frame=0) < row.high


def test_rim_of_the_contact_does_not_take_patches_for_discs():
    # A patch of 8 x 60 px has a rim of 136 px, a disc of its area 78 px; steps of a level rim are pi / 4 of themselves.
    z, y, x = np.mgrid[:20, :40, :90]
    separator, void = z < 8, (z >= 8) & (z < 13) & (y >= 16) & (y < 24) & (x >= 15) & (x < 75)
    metal = ~separator & ~void
    whole = contact_loss(separator, metal, void, spacing=(0.6, 0.5, 0.5))
    assert whole.edge == pytest.approx(136 * 0.5 * math.pi / 4)
    thin = contact_loss(separator, metal, void, spacing=(0.6, 0.5, 0.5), max_voxels=2 * 40 * 90)
    assert thin.edge == whole.edge
    turned = (np.ascontiguousarray(np.moveaxis(m, 0, 1)) for m in (separator, metal, void))
    # Pairs across the cuts between slabs are counted once.
    assert contact_loss(*turned, spacing=(0.5, 0.6, 0.5), max_voxels=3 * 20 * 90).edge == pytest.approx(whole.edge)
    section = contact_loss(separator[:, 20], metal[:, 20], void[:, 20], spacing=(0.6, 0.5))
    assert section.edge == 2
    # Where the separator ends a pixel higher in every second column no face has a neighbour; a void still has two ends.
    y, x = np.mgrid[:20, :40]
    solid = y >= 10 + x % 2
    hole = (np.abs(x - 20) < 4) & (y >= 6) & ~solid
    assert contact_loss(solid, ~solid & ~hole, hole, spacing=(0.6, 0.5)).edge == 2


@pytest.mark.parametrize("ndim", [2, 3])
def test_high_ends_allow_for_what_blur_takes(schema, ndim):
    # Balls (discs) of 9 px at six places on the grid, blurred by 1.4 px and cut at one half: they lose 4 pi R s^2
    # (pi s^2) on average, to first order in (s / R)^2 = 0.02; whole pixels add a spread of a tenth (a third).
    lost = []
    for place in np.arange(6) * 0.17:
        away = 9 - np.sqrt(((np.indices((32,) * ndim) - 15.7 - place) ** 2).sum(axis=0))
        seen = ndimage.gaussian_filter(np.clip(away + 0.5, 0, 1), 1.4) > 0.5
        lost.append(np.count_nonzero(away > 0) - np.count_nonzero(seen))
    expected = {2: math.pi, 3: 4 * math.pi * 9}[ndim] * 1.4**2
    assert np.mean(lost) == pytest.approx(expected, rel=0.1 if ndim == 3 else 0.3)
    rows = measure_frame(Frame(np.where(seen, 7, 3).astype(np.uint8), schema, Scale((0.5,) * ndim)))
    fraction = next(r for r in rows if r.metric == "void_fraction" and r.object_id is None)
    assert fraction.high - fraction.value > fraction.value - fraction.low + 0.9 * expected / seen.size
