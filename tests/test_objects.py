import math

import numpy as np
import pytest
from scipy.special import ellipe

from seg import crofton
from seg.crofton import boundary_sizes
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.objects import ObjectPixels, label_and_sum, label_objects, object_table
from seg.runs import Runs

ANISOTROPIC = Scale((0.5, 0.2))


def ellipsoid(shape, centre_um, radius_um, spacing):
    """Pixels whose centres lie within a physical radius of a physical point."""
    grids = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grids, centre_um, strict=True)) <= radius_um**2


def frame_of(mask, schema, scale, *, image=None, **options):
    labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    instances = label_objects(mask, scale=scale, **options)
    return Frame(labels, schema, scale, 3, 12.5, image=image, instances=instances)


# --- labelling ------------------------------------------------------------------------------------------------------


def test_neighbours_over_corners_belong_together():
    mask = np.eye(5, dtype=bool)
    assert label_objects(mask, scale=ANISOTROPIC).max() == 1
    assert label_objects(np.stack([mask, mask[::-1]]), scale=Scale((1, 0.5, 0.2))).max() == 1


def test_empty_full_and_one_pixel():
    empty = label_objects(np.zeros((7, 9), bool), scale=ANISOTROPIC)
    assert empty.dtype == np.int32
    assert empty.max() == 0
    assert (label_objects(np.ones((7, 9), bool), scale=ANISOTROPIC) == 1).all()
    one = np.zeros((7, 9), bool)
    one[3, 4] = True
    assert label_objects(one, scale=ANISOTROPIC).sum() == 1


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.5, 0.2), (0.1, 0.3)])
@pytest.mark.parametrize("angle_deg", [0, 25, 60])
def test_two_discs_that_touch_are_two(spacing, angle_deg):
    # Physical discs of 5 um whose centres are 1.7 radii apart, on pixels that need not be square.
    shift = 8.5 * np.array([math.sin(math.radians(angle_deg)), math.cos(math.radians(angle_deg))])
    shape = tuple(round(40 / s) for s in spacing)
    mask = ellipsoid(shape, (14, 14), 5, spacing) | ellipsoid(shape, 14 + shift, 5, spacing)
    instances = label_objects(mask, scale=Scale(spacing), min_diameter_px=4)
    assert instances.max() == 2
    sizes = np.bincount(instances.ravel())[1:]
    # The cut runs through the neck, give or take a row of pixels (5 um = 10 rows across: 4 % of a disc).
    assert sizes[0] == pytest.approx(sizes[1], rel=0.08)
    assert label_objects(mask, scale=Scale(spacing), split_touching=False).max() == 1


def test_discs_that_overlap_deeply_are_one():
    mask = ellipsoid((60, 60), (25, 25), 12, (1, 1)) | ellipsoid((60, 60), (25, 37), 12, (1, 1))
    assert label_objects(mask, scale=Scale((1.0, 1.0)), min_diameter_px=4).max() == 1


def test_two_balls_that_touch_are_two():
    spacing, shape = (0.5, 0.25, 0.2), (30, 60, 110)
    mask = ellipsoid(shape, (7, 7, 7), 4, spacing) | ellipsoid(shape, (7, 7, 14), 4, spacing)
    assert label_objects(mask, scale=Scale(spacing), min_diameter_px=4).max() == 2


@pytest.mark.parametrize("aspect", [1.5, 3, 8])
@pytest.mark.parametrize("angle_deg", [0, 20, 45])
def test_elongated_shapes_stay_whole(aspect, angle_deg):
    y, x = np.mgrid[-80:81, -80:81]
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    u, v = c * x + s * y, c * y - s * x
    for mask in ((u / aspect) ** 2 + v**2 <= 81, (abs(u) <= 9 * aspect) & (abs(v) <= 9)):
        assert label_objects(mask, scale=Scale((1.0, 1.0)), min_diameter_px=4).max() == 1


def test_branched_shapes_stay_whole():
    mask = np.zeros((120, 120), bool)
    mask[10:110, 57:62] = True
    for row, reach in ((30, 25), (50, 40), (75, 30)):
        mask[row : row + 5, 59 - reach : 60 + reach] = True
        mask[row - 12 : row, 59 - reach : 63 - reach] = True
    mask |= ellipsoid(mask.shape, (105, 59), 9, (1, 1))  # the thick foot alone would be a part of its own
    assert label_objects(mask, scale=Scale((1.0, 1.0)), min_diameter_px=4).max() == 1


def test_rough_discs_are_not_cut(rng):
    # Outline modulated by 10 % (rms) in modes 2 to 7, as a rough deposit; radius 20 px.
    y, x = np.mgrid[-40:41, -40:41]
    angle, modes = np.arctan2(y, x), np.arange(2, 8)[:, None, None]
    for _ in range(30):
        waves = rng.normal(size=modes.shape) * np.cos(modes * angle + rng.uniform(0, 6.3, modes.shape))
        mask = np.hypot(y, x) < 20 * (1 + 0.1 * waves.sum(axis=0) * math.sqrt(2 / 6))
        assert label_objects(mask, scale=Scale((1.0, 1.0)), min_diameter_px=4, split_touching=True).max() == 1


def test_ids_follow_the_raster():
    mask = np.zeros((30, 60), bool)
    for centre in (10, 24, 38):
        mask |= ellipsoid(mask.shape, (15, centre), 8, (1, 1))
    mask[2, 50] = True
    instances = label_objects(mask, scale=Scale((1.0, 1.0)), min_diameter_px=4)
    _, first = np.unique(instances[instances > 0], return_index=True)
    assert first.tolist() == sorted(first.tolist())
    assert instances.max() == 4


# --- table ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.4])  # regions found by runs, and pixel by pixel
@pytest.mark.parametrize("split_touching", [False, True])
def test_objects_and_their_sums_in_one_go_are_those_of_two(rng, share, split_touching):
    mask = rng.random((60, 70)) < share
    mask[5:25, 5:25] = mask[40:55, 30:60] = True
    expected = label_objects(mask, scale=Scale((0.2, 0.3)), split_touching=split_touching)
    instances, pixels, regions = label_and_sum(mask, scale=Scale((0.2, 0.3)), split_touching=split_touching)
    assert (instances == expected).all()
    connected = label_objects(mask, scale=Scale((0.2, 0.3)), split_touching=False)
    assert (regions.painted() == connected).all()
    if pixels is None:  # a region was cut, and what is left of it not summed
        assert split_touching
        return
    wanted = ObjectPixels.of(expected)
    for name in ("counts", "lower", "upper"):
        assert (getattr(pixels, name) == getattr(wanted, name)).all()
    np.testing.assert_array_equal(pixels.covariances[1:], wanted.covariances[1:])


def test_class_of_an_object_is_that_of_most_of_its_pixels(schema):
    labels = np.ones((20, 30), np.uint8)
    labels[2:8, 2:12], labels[12:18, 3:9] = 3, 4
    scale = Scale((0.4, 0.3))
    for classes, expected in ((("deposit", "dendrite"), ["deposit", "dendrite"]), (("deposit",), ["deposit"])):
        frame = Frame(labels, schema, scale, object_classes=classes)
        frame = frame.with_objects(*label_and_sum(frame.mask(classes), scale=scale))
        assert object_table(frame)["class"].tolist() == expected
    # Ids that were made elsewhere may hold more than the classes that are counted.
    ids = np.zeros(labels.shape, np.int32)
    ids[1:9, 1:28] = 1
    frame = Frame(labels, schema, scale, instances=ids, object_classes=("deposit",))
    assert object_table(frame)["class"].tolist() == ["electrolyte"]


def test_disc_on_anisotropic_pixels(schema):
    scale, radius = Scale((0.5, 0.2)), 12.0
    mask = ellipsoid((80, 200), (19.8, 21.07), radius, scale.spacing)
    row = object_table(frame_of(mask, schema, scale), min_diameter_px=4).iloc[0]
    # Gauss circle problem: area error of order (perimeter in px)^(1/3) px, under 0.3 % here.
    assert row["area_um2"] == pytest.approx(math.pi * radius**2, rel=3e-3)
    assert row["equivalent_diameter_um"] == pytest.approx(2 * radius, rel=2e-3)
    # Four directions with unequal angles: a few per cent; the isotropic case below is tighter.
    assert row["perimeter_um"] == pytest.approx(2 * math.pi * radius, rel=0.05)
    assert (row["y_um"], row["x_um"]) == pytest.approx((19.8, 21.07), abs=0.05)
    assert row["aspect_ratio"] == pytest.approx(1, abs=0.01)
    assert (row["frame"], row["time_s"], row["class"], row["object_id"]) == (3, 12.5, "deposit", 1)
    assert not row["touches_border"]
    assert not row["below_detection_limit"]


@pytest.mark.parametrize("radius_px", [8, 14, 30, 60])
def test_crofton_perimeter_of_a_disc(radius_px):
    mask = ellipsoid((140, 140), (69.6, 70.3), radius_px, (1, 1)).astype(np.int32)
    # Crofton with four directions: +-1.6 % on discs.
    assert boundary_sizes(mask, 1, spacing=(1, 1))[1] == pytest.approx(2 * math.pi * radius_px, rel=0.016)


@pytest.mark.parametrize("spacing", [(1.0, 0.5), (0.3, 1.0), (1.0, 0.25)])
@pytest.mark.parametrize("angle_deg", [0, 20, 45, 70])
def test_crofton_perimeter_of_an_ellipse_on_oblong_pixels(spacing, angle_deg):
    """Whichever way it lies: the four directions must stay spread evenly over the plane."""
    major, minor, angle = 20.0, 10.0, math.radians(angle_deg)
    y, x = (np.arange(-22, 22, side) + 0.3 * side for side in spacing)
    along = x[None] * math.cos(angle) + y[:, None] * math.sin(angle)
    across = y[:, None] * math.cos(angle) - x[None] * math.sin(angle)
    mask = ((along / major) ** 2 + (across / minor) ** 2 <= 1).astype(np.int32)
    perimeter = 4 * major * float(ellipe(1 - (minor / major) ** 2))
    # 10 coarse pixels across the short axis, and the error of a disc of that radius on square pixels.
    assert boundary_sizes(mask, 1, spacing=spacing)[1] == pytest.approx(perimeter, rel=0.016)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1.0, 0.5, 0.5)])
def test_crofton_surface_of_a_ball(spacing):
    shape = tuple(round(30 / s) for s in spacing)
    ball = ellipsoid(shape, (14.7, 15.1, 14.9), 12, spacing).astype(np.int32)
    assert boundary_sizes(ball, 1, spacing=spacing)[1] == pytest.approx(4 * math.pi * 144, rel=0.01)


@pytest.mark.parametrize("spacing", [(0.1, 0.3), (0.3, 0.1), (2.0, 1.0, 0.5)])
def test_crofton_counts_the_crossings_of_every_pair_of_pixels(spacing, monkeypatch):
    """Against a plain loop over the steps; part by part or from the runs gives the same."""
    monkeypatch.setattr(crofton, "_BLOCK_PX", 1)
    coarse = np.random.default_rng(0).integers(0, 3, (4, 5, 6)[: len(spacing)])
    ids = np.kron(coarse, np.ones((3,) * len(spacing), int))
    padded = np.pad(ids, 6)
    expected = np.zeros(3)
    for offset, weight in crofton._directions(spacing, far=True):
        there = np.roll(padded, [-o for o in offset], axis=tuple(range(len(offset))))
        for one in (1, 2):
            expected[one] += weight * np.count_nonzero((padded == one) != (there == one))
    assert boundary_sizes(ids, 2, spacing=spacing) == pytest.approx(expected, rel=1e-12)
    assert boundary_sizes(Runs.of(ids), 2, spacing=spacing) == pytest.approx(expected, rel=1e-12)


def test_ball_has_volume_and_sphericity(schema):
    scale = Scale((0.5, 0.25, 0.25))
    mask = ellipsoid((40, 80, 80), (9.9, 10.1, 10.0), 8, scale.spacing)
    row = object_table(frame_of(mask, schema, scale)).iloc[0]
    assert row["volume_um3"] == pytest.approx(4 / 3 * math.pi * 512, rel=5e-3)
    assert row["sphericity"] == pytest.approx(1, abs=0.03)
    assert row["aspect_ratio"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("angle_deg", [-60, 0, 35, 90])
def test_orientation_and_aspect_of_an_ellipse(schema, angle_deg):
    spacing = (0.4, 0.25)
    y, x = np.mgrid[:150, :240] * np.reshape(spacing, (2, 1, 1)) - 30
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    u, v = c * x - s * y, s * x + c * y  # angles run against the row direction
    row = object_table(frame_of((u / 20) ** 2 + (v / 8) ** 2 <= 1, schema, Scale(spacing))).iloc[0]
    assert row["aspect_ratio"] == pytest.approx(2.5, rel=0.01)
    assert row["orientation_deg"] == pytest.approx(angle_deg, abs=0.5)


def test_doubling_the_pixel_size(schema):
    mask = ellipsoid((60, 60), (25, 30), 15, (1, 0.7))
    one = object_table(frame_of(mask, schema, Scale((1, 0.7)))).iloc[0]
    two = object_table(frame_of(mask, schema, Scale((2, 1.4)))).iloc[0]
    for name in ("perimeter_um", "equivalent_diameter_um", "y_um", "x_um"):
        assert two[name] == pytest.approx(2 * one[name])
    assert two["area_um2"] == pytest.approx(4 * one["area_um2"])
    for name in ("circularity", "aspect_ratio", "orientation_deg"):
        assert two[name] == pytest.approx(one[name])


def test_transposing_axes_with_the_spacing_changes_no_size(schema):
    mask = np.zeros((50, 90), bool)
    mask[10:31, 20:60] = True
    mask[20:45, 50:58] = True
    one = object_table(frame_of(mask, schema, Scale((0.5, 0.2)))).iloc[0]
    two = object_table(frame_of(mask.T, schema, Scale((0.2, 0.5)))).iloc[0]
    for name in ("area_um2", "perimeter_um", "equivalent_diameter_um", "circularity", "aspect_ratio"):
        assert two[name] == pytest.approx(one[name])
    assert (two["x_um"], two["y_um"]) == pytest.approx((one["y_um"], one["x_um"]))


def test_borders_artefacts_and_the_detection_limit_are_marked(schema):
    labels = np.full((40, 60), schema.index("electrolyte"), np.uint8)
    labels[:8, 5:15] = schema.index("deposit")  # cut by the frame
    labels[20:30, 5:15] = schema.index("deposit")  # in the clear
    labels[20:30, 30:40] = schema.index("dendrite")  # next to burnt-in text
    labels[20:30, 40:44] = schema.index("artifact")
    labels[35, 50] = schema.index("deposit")  # one pixel
    mask = schema.mask(labels, ["deposit", "dendrite"])
    frame = Frame(labels, schema, ANISOTROPIC, instances=label_objects(mask, scale=ANISOTROPIC))
    table = object_table(frame, min_diameter_px=4)
    assert table["touches_border"].tolist() == [True, False, True, False]
    assert table["below_detection_limit"].tolist() == [False, False, False, True]
    assert table["class"].tolist() == ["deposit", "deposit", "dendrite", "deposit"]
    assert np.isnan(table["circularity"].iloc[3])
    assert np.isnan(table["time_s"]).all()
    assert table.loc[1, ["bbox_y_min_px", "bbox_y_max_px", "bbox_x_min_px", "bbox_x_max_px"]].tolist() == [
        20, 30, 5, 15,
    ]  # fmt: skip


def test_uncalibrated_columns_say_px_and_intensity_is_averaged(schema):
    mask = np.zeros((20, 20), bool)
    mask[4:8, 5:10] = True
    frame = frame_of(mask, schema, Scale((1.0, 1.0), calibrated=False), image=np.arange(400.0).reshape(20, 20))
    table = object_table(frame)
    assert {"y_px", "area_px2", "equivalent_diameter_px", "perimeter_px"} <= set(table.columns)
    assert [name for name in table.columns if "um" in name] == []
    assert table["mean_intensity"].iloc[0] == pytest.approx(5.5 * 20 + 7)


def test_empty_table_has_the_columns(schema):
    empty = object_table(frame_of(np.zeros((9, 9), bool), schema, ANISOTROPIC))
    full = object_table(frame_of(np.ones((9, 9), bool), schema, ANISOTROPIC))
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert full["area_um2"].iloc[0] == pytest.approx(8.1)
    assert full["touches_border"].all()


def test_table_needs_instances(schema):
    with pytest.raises(ValueError, match="label_objects first"):
        object_table(Frame(np.ones((4, 4), np.uint8), schema, ANISOTROPIC))
