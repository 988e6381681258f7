import math

import numpy as np
import pytest

from seg.errors import UsageError
from seg.metrics.cover import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.table import Scale

SCALE = Scale((0.5, 0.2))


def frame_of(schema, shape=(40, 60), scale=SCALE, **regions):
    labels = np.full(shape, schema.index("electrolyte"), np.uint8)
    for name, where in regions.items():
        labels[where] = 0 if name == "unlabelled" else schema.index(name)
    return Frame(labels, schema, scale, 1, 3.0)


def rows_of(frame, **options):
    return {(row.metric, row.class_name): row for row in measure_frame(frame, **options)}


ALL = "deposit+dendrite"


def test_band_has_its_area_and_half_a_pixel_of_doubt(schema):
    rows = rows_of(frame_of(schema, deposit=np.s_[20:30]))
    area = rows["covered_area", ALL]
    # Two straight edges across 60 columns: +-0.5 px each is +-60 px of 0.1 um2.
    assert (area.value, area.low, area.high) == pytest.approx((60.0, 54.0, 66.0))
    assert (area.unit, area.n, area.method) == ("um2", 600, "boundary ±0.5 px")
    fraction = rows["covered_fraction", ALL]
    assert (fraction.value, fraction.low, fraction.high) == pytest.approx((0.25, 0.225, 0.275))
    assert (area.frame, area.time_s, area.flags) == (1, 3.0, ())


def test_disc_area_is_sub_pixel_right(schema):
    y, x = np.mgrid[:80, :200] * np.reshape(SCALE.spacing, (2, 1, 1))
    frame = frame_of(schema, (80, 200), deposit=(y - 19.9) ** 2 + (x - 20.03) ** 2 <= 12**2)
    area = rows_of(frame)["covered_area", ALL]
    # Gauss circle problem: under 0.3 % at this size; the bounds hold the truth.
    assert area.value == pytest.approx(math.pi * 144, rel=3e-3)
    assert area.low < math.pi * 144 < area.high


def test_classes_add_up_and_absent_ones_are_zero(schema):
    rows = rows_of(frame_of(schema, deposit=np.s_[:10], dendrite=np.s_[10:15], artifact=np.s_[35:]))
    shares = {name: row.value for (metric, name), row in rows.items() if metric == "class_fraction"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["deposit"] == pytest.approx(10 / 35)
    assert shares["void"] == 0
    assert "artifact" not in shares
    assert rows["covered_fraction", ALL].value == pytest.approx(15 / 35)


def test_bounds_are_those_of_each_mask_alone_whatever_else_is_there(schema, rng):
    """Where two classes share a frame the bounds of one are taken from the other's; with a third they are counted."""
    from seg.uncertainty import shifted_sizes

    for extra in (None, 5, 0):
        labels = np.where(rng.random((40, 50)) < 0.3, 3, 1).astype(np.uint8)
        if extra is not None:
            labels[10:20, 30:45] = extra
        rows = measure_frame(Frame(labels, schema, Scale((0.2, 0.3))))
        for index, name in ((1, "electrolyte"), (3, "deposit")):
            low, high = shifted_sizes(labels == index, labels > 0)
            row = next(r for r in rows if r.metric == "class_fraction" and r.class_name == name)
            n = np.count_nonzero(labels)
            assert (row.low, row.high) == pytest.approx((low / n, min(high / n, 1.0)), rel=1e-12)


def test_unlabelled_and_artefact_are_in_no_denominator(schema):
    rows = rows_of(frame_of(schema, deposit=np.s_[:10], artifact=np.s_[30:35], unlabelled=np.s_[35:]))
    row = rows["covered_fraction", ALL]
    assert (row.value, row.n) == (pytest.approx(1 / 3), 30 * 60)
    # The outline next to the invalid part may move into it, but nothing there is counted.
    full = rows_of(frame_of(schema, deposit=np.s_[:30], artifact=np.s_[30:]))["covered_fraction", ALL]
    assert (full.value, full.high) == (1, 1)


def test_empty_full_and_one_pixel(schema):
    empty = rows_of(frame_of(schema))["covered_area", ALL]
    assert (empty.value, empty.low, empty.high) == (0, 0, 0)
    full = rows_of(frame_of(schema, deposit=np.s_[:]))["covered_fraction", ALL]
    assert (full.value, full.low, full.high) == (1, 1, 1)
    one = rows_of(frame_of(schema, deposit=np.s_[5, 5]))["covered_area", ALL]
    # Moved out by half, the four neighbours count half each, the four over corners 1.5 - sqrt(2). Moved in by half,
    # half of the pixel stays.
    expected = [0.1, 0.05, 0.1 * (1 + 4 * 0.5 + 4 * (1.5 - math.sqrt(2)))]
    assert [one.value, one.low, one.high] == pytest.approx(expected)


def test_no_valid_pixel_is_nan_with_a_flag(schema):
    rows = rows_of(frame_of(schema, artifact=np.s_[:]))
    assert math.isnan(rows["covered_fraction", ALL].value)
    assert rows["covered_fraction", ALL].flags == ("artifact-frame",)


def test_uncalibrated_areas_are_pixels(schema):
    rows = rows_of(frame_of(schema, scale=Scale((1.0, 1.0), calibrated=False), deposit=np.s_[:4, :5]))
    area = rows["covered_area", ALL]
    assert (area.value, area.unit, area.flags) == (20, "px2", ("uncalibrated",))


def test_thickness_needs_an_axis_in_the_plane(schema):
    frame = frame_of(schema, deposit=np.s_[20:30])
    assert ("mean_thickness", ALL) not in rows_of(frame)
    row = rows_of(frame, thickness_axis="y")["mean_thickness", ALL]
    assert (row.value, row.low, row.high) == pytest.approx((5.0, 4.5, 5.5))
    with pytest.raises(UsageError, match="thickness_axis 'z'"):
        measure_frame(frame, thickness_axis="z")


def test_volume_is_projected_along_its_growth(schema):
    scale = Scale((1.0, 0.5, 0.2))
    frame = frame_of(schema, (20, 30, 40), scale, deposit=np.s_[10:15, :15], dendrite=np.s_[2:6, :15])
    rows = rows_of(frame)
    area, volume = rows["covered_area", ALL], rows["volume", ALL]
    assert area.value == pytest.approx(15 * 40 * 0.1)
    assert rows["covered_fraction", ALL].value == pytest.approx(0.5)
    assert (volume.value, volume.unit) == (pytest.approx(9 * 15 * 40 * 0.1), "um3")
    assert rows["mean_thickness", ALL].value == pytest.approx(9 * 15 / 30)
    sideways = rows_of(frame, thickness_axis="y")["covered_area", ALL]
    assert sideways.value == pytest.approx(9 * 40 * 1.0 * 0.2)


def test_porosity_only_where_pores_are_named(schema):
    frame = frame_of(schema, deposit=np.s_[:20], void=np.s_[5:10, :30])
    assert ("porosity", ALL) not in rows_of(frame)
    assert rows_of(frame, pore_classes=["void"])["porosity", ALL].value == pytest.approx(150 / 1200)
    nothing = rows_of(frame_of(schema), pore_classes=["void"])["porosity", ALL]
    assert (math.isnan(nothing.value), nothing.flags) == (True, ("ambiguous",))


def test_unknown_class_names_the_nearest(schema):
    with pytest.raises(UsageError, match="did you mean 'dendrite'"):
        measure_frame(frame_of(schema), classes=["dendrites"])


def test_scale_and_transposition(schema):
    where = np.s_[10:25, 7:44]
    one = rows_of(frame_of(schema, deposit=where))["covered_area", ALL]
    double = rows_of(frame_of(schema, scale=Scale((1.0, 0.4)), deposit=where))["covered_area", ALL]
    turned = rows_of(frame_of(schema, (60, 40), Scale((0.2, 0.5)), deposit=where[::-1]))["covered_area", ALL]
    for name in ("value", "low", "high"):
        assert getattr(double, name) == pytest.approx(4 * getattr(one, name))
        assert getattr(turned, name) == pytest.approx(getattr(one, name))
