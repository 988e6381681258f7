import math

import numpy as np
import pytest

from seg.errors import UsageError
from seg.metrics.counting import count_objects, measure_frame
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.objects import label_objects
from seg.uncertainty import poisson_interval

SCALE = Scale((0.5, 0.2))


def disc(radius_px):
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    return x**2 + y**2 <= radius_px**2


def counts_over_all_positions(valid, shape, **options):
    """Number of positions of one object, inside and around the frame, at which the rule counts it."""
    pad = tuple(n + 1 for n in shape.shape)
    counted = reference = 0
    for y in range(valid.shape[0] + pad[0]):
        for x in range(valid.shape[1] + pad[1]):
            field = np.zeros((valid.shape[0] + 2 * pad[0], valid.shape[1] + 2 * pad[1]), bool)
            field[y : y + shape.shape[0], x : x + shape.shape[1]] = shape
            seen = field[pad[0] : -pad[0], pad[1] : -pad[1]] & valid
            if not seen.any():
                continue
            count = count_objects(label_objects(seen, scale=SCALE, split_touching=False), valid, **options)
            counted, reference = counted + count.n, count.reference_px
    return counted, reference


def invalid_region(kind, shape):
    valid = np.ones(shape, bool)
    valid[{
        "none": np.s_[:0], "scratch": np.s_[20:22], "bar": np.s_[-10:], "speck": np.s_[20:22, 30:32],
        "stroke": np.s_[14:26, 30:33],
    }[kind]] = False  # fmt: skip
    return valid


@pytest.mark.parametrize("kind", ["none", "scratch", "bar", "speck", "stroke"])
def test_two_edge_rule_is_unbiased_over_all_positions(kind):
    """An exact expectation: every position is as likely as any other, so the sum over them has no noise."""
    radius, valid = 5, invalid_region(kind, (40, 52))
    counted, reference = counts_over_all_positions(valid, disc(radius))
    # (1 - pi/4) r^2 for every corner at the foot of the frame or of a gap in it (two for discs on a pixel grid), and
    # the stroke's four corners: within 2 % of this small frame of 10 x 8 radii for all of them.
    assert counted / reference == pytest.approx(1, abs=0.02)
    if kind == "none":
        assert counted - reference == pytest.approx((1 - math.pi / 4) * radius**2, abs=radius)


def test_counting_all_or_whole_objects_would_be_wrong():
    """What the rule is there for: discs of a tenth of the frame read +30 % or -20 % without it."""
    valid, shape = np.ones((40, 52), bool), disc(5)
    visible = (40 + 2 * 5) * (52 + 2 * 5) / valid.size
    whole = (40 - 2 * 5) * (52 - 2 * 5) / valid.size
    counted, reference = counts_over_all_positions(valid, shape)
    assert visible > 1.3
    assert whole < 0.8
    assert abs(counted / reference - 1) < 0.01


def test_guard_band_is_exact_even_for_long_objects():
    valid, needle = np.ones((30, 44), bool), np.ones((2, 9), bool)
    counted, reference = counts_over_all_positions(valid, needle, guard_px=10)
    assert counted == reference == (30 - 20) * (44 - 20)


def test_object_cut_by_a_scratch_counts_once():
    seen = np.zeros((30, 40), bool)
    seen[8:20, 10:30] = True
    for scratch in (np.s_[13:15], np.s_[:, 18:20]):
        valid = np.ones_like(seen)
        valid[scratch] = False
        parts = label_objects(seen & valid, scale=SCALE, split_touching=False)
        assert parts.max() == 2
        assert count_objects(parts, valid).n == 1


def test_poisson_interval_of_the_density_covers(rng):
    """Density of points (small objects) under a Poisson process: 95 % of the intervals hold it, within 93-98 %."""
    shape, per_field, fields = (100, 140), 12.0, 600
    hits, density = 0, per_field / (99 * 139)
    for _ in range(fields):
        mask = np.zeros(shape, bool)
        n = rng.poisson(density * shape[0] * shape[1])
        mask[rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)] = True
        # Ids by position, not by contact: two neighbouring points are two objects.
        instances = np.zeros(shape, np.int32)
        instances[mask] = np.arange(1, mask.sum() + 1)
        count = count_objects(instances, np.ones(shape, bool))
        low, high = (end / count.reference_px for end in poisson_interval(count.n))
        hits += low <= density <= high
    assert 0.93 <= hits / fields <= 0.985  # 0.9 % standard error over 600 fields


def _frame(schema, mask, scale=SCALE, *, invalid=None, min_diameter_px=0.0):
    labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    if invalid is not None:
        labels[invalid] = schema.index("artifact")
    instances = label_objects(schema.mask(labels, "deposit"), scale=scale)
    return Frame(
        labels, schema, scale, 2, 4.0, instances=instances, object_classes=("deposit",), min_diameter_px=min_diameter_px
    )


def _rows(frame, **options):
    return {row.metric: row for row in measure_frame(frame, **options)}


def _squares(shape=(60, 90)):
    mask = np.zeros(shape, bool)
    for y, x in ((10, 10), (10, 40), (30, 70), (44, 20)):
        mask[y : y + 6, x : x + 6] = True
    return mask


def test_density_is_per_cm2_with_exact_poisson_ends(schema):
    rows = _rows(_frame(schema, _squares()))
    reference_cm2 = 59 * 89 * 0.1 / 1e8
    density = rows["areal_density"]
    assert density.unit == "1/cm2"
    assert density.value == pytest.approx(4 / reference_cm2)
    # Garwood for 4 counts: 1.0899 to 10.2416.
    assert (density.low * reference_cm2, density.high * reference_cm2) == pytest.approx((1.0899, 10.2416), abs=1e-4)
    assert (rows["object_count"].value, rows["object_count"].n, rows["object_count"].class_name) == (4, 4, "deposit")
    assert rows["valid_area"].value == pytest.approx(60 * 90 * 0.1)
    assert (density.frame, density.time_s, density.flags) == (2, 4.0, ())


@pytest.mark.parametrize("grouped", [True, False])
def test_objects_in_one_half_of_the_frame_widen_the_interval(schema, rng, grouped):
    mask = np.zeros((120, 240), bool)
    for _ in range(60):
        y, x = rng.integers(2, 118), rng.integers(2, 118 if grouped else 238)
        mask[y, x] = True
    row = _rows(_frame(schema, mask))["areal_density"]
    low, high = poisson_interval(row.n)
    wider = (row.high - row.low) / row.value / ((high - low) / row.n)
    if grouped:  # eight of sixteen parts are empty: their variance is the mean number again, 4, above Poisson's
        assert 1.8 < wider < 3.5
        assert "variance" in row.method
    else:
        assert wider < 1.6


def test_artefact_is_out_of_the_denominator(schema):
    rows = _rows(_frame(schema, _squares(), invalid=np.s_[-6:]))
    assert rows["valid_area"].value == pytest.approx(54 * 90 * 0.1)
    assert rows["areal_density"].value == pytest.approx(4 / (53 * 89 * 0.1 / 1e8))


def test_uncalibrated_is_never_per_cm2(schema):
    rows = _rows(_frame(schema, _squares(), Scale((1.0, 1.0), calibrated=False)))
    assert rows["areal_density"].unit == "1/px2"
    assert rows["areal_density"].value == pytest.approx(4 / (59 * 89))
    assert rows["areal_density"].flags == ("uncalibrated",)
    assert (rows["valid_area"].unit, rows["detection_limit_diameter"].unit) == ("px2", "px")


def test_small_objects_are_left_out_and_said_so(schema):
    mask = _squares()
    mask[50, 70] = True
    row = _rows(_frame(schema, mask, min_diameter_px=4))["object_count"]
    assert row.value == 4
    assert row.flags == ("below-detection-limit",)
    assert "1 under the detection limit" in row.method
    limit = _rows(_frame(schema, mask, min_diameter_px=4))["detection_limit_diameter"]
    assert limit.value == pytest.approx(4 * math.sqrt(0.5 * 0.2))


def test_empty_frame_counts_zero_with_an_interval(schema):
    row = _rows(_frame(schema, np.zeros((20, 30), bool)))["object_count"]
    assert (row.value, row.low) == (0, 0)
    assert row.high == pytest.approx(3.6889, abs=1e-4)
    assert row.flags == ()


def test_object_filling_the_frame_is_not_counted_and_flagged(schema):
    row = _rows(_frame(schema, np.ones((20, 30), bool)))["object_count"]
    assert row.value == 0
    assert row.flags == ("touches-border",)


def test_no_valid_area_is_nan(schema):
    rows = _rows(_frame(schema, _squares(), invalid=np.s_[:]))
    assert math.isnan(rows["object_count"].value)
    assert math.isnan(rows["areal_density"].value)
    assert rows["areal_density"].flags == ("artifact-frame",)
    assert rows["valid_area"].value == 0


def test_volume_gives_density_per_volume(schema):
    mask = np.zeros((20, 30, 40), bool)
    mask[5:9, 5:9, 5:9] = mask[5:9, 20:24, 30:34] = True
    rows = _rows(_frame(schema, mask, Scale((1.0, 0.5, 0.2))))
    assert rows["volume_density"].value == pytest.approx(2 / (19 * 29 * 39 * 0.1))
    assert rows["volume_density"].unit == "1/um3"
    assert "areal_density" not in rows
    assert rows["valid_area"].value == pytest.approx(30 * 40 * 0.1)


def test_volume_of_one_slice_counts_as_the_slice(schema):
    rows = _rows(_frame(schema, _squares()[None], Scale((1.0, 0.5, 0.2))))
    assert rows["object_count"].value == 4


def test_doubling_the_pixel_size_quarters_the_density(schema):
    one = _rows(_frame(schema, _squares()))["areal_density"]
    two = _rows(_frame(schema, _squares(), Scale((1.0, 0.4))))["areal_density"]
    assert two.value == pytest.approx(one.value / 4)


def test_guard_band_wider_than_the_frame_is_refused(schema):
    with pytest.raises(UsageError, match="leaves nothing"):
        measure_frame(_frame(schema, _squares()), guard_px=30)
    assert _rows(_frame(schema, _squares()), guard_px=8)["valid_area"].value == pytest.approx(44 * 74 * 0.1)


def test_needs_instances(schema):
    with pytest.raises(ValueError, match=r"frame\.instances"):
        measure_frame(Frame(np.ones((4, 4), np.uint8), schema, SCALE))
