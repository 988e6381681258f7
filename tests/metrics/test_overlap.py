"""Discs that fell at random and overlap: how many there are."""

import math

import numpy as np
import pytest

from seg.metrics.counting import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.overlap import miles_density
from seg.metrics.table import Scale
from seg.objects import label_objects
from seg.volumes import with_instances

SPACING = (0.5, 0.4)


def field(rng, covered, *, shape=(500, 600), radius_um=4.0):
    """Boolean model of discs of which `covered` of the plane is expected to be covered; mask, discs per um2."""
    size = np.asarray(shape) * SPACING
    density = -math.log(1 - covered) / (math.pi * radius_um**2)
    margin = 2 * radius_um
    n = rng.poisson(density * np.prod(size + 2 * margin))
    y, x = (np.arange(m) * s for m, s in zip(shape, SPACING, strict=True))
    mask = np.zeros(shape, bool)
    for cy, cx in rng.uniform(-margin, size + margin, (n, 2)):
        rows, columns = np.abs(y - cy) <= radius_um, np.abs(x - cx) <= radius_um
        mask[np.ix_(rows, columns)] |= (y[rows, None] - cy) ** 2 + (x[columns] - cx) ** 2 <= radius_um**2
    return mask, density


@pytest.mark.parametrize(("covered", "bias", "tolerance"), [(0.15, 0.0, 0.05), (0.4, -0.08, 0.06)])
def test_overlapping_discs_are_counted(rng, covered, bias, tolerance):
    errors, hits = [], 0
    for _ in range(20):
        mask, density = field(rng, covered)
        found = miles_density(mask, np.ones_like(mask), spacing=SPACING)
        errors.append(found.value / density - 1)
        hits += found.low <= density <= found.high
    # Bias on pixels as in the module; 60 000 um2 hold 190 (600) discs, the mean of 20 fields is good to 2 (1) %.
    assert np.mean(errors) == pytest.approx(bias, abs=tolerance)
    assert hits >= 17


def test_invalid_area_is_left_out(rng):
    mask, density = field(rng, 0.3)
    valid = np.ones_like(mask)
    valid[100:200, 50:500] = False
    with_hole = miles_density(mask | ~valid, valid, spacing=SPACING)
    whole = miles_density(mask, np.ones_like(mask), spacing=SPACING)
    # Four fifths of the same field.
    assert with_hole.value == pytest.approx(whole.value, rel=0.12)


@pytest.mark.parametrize("mask", [np.zeros((40, 50), bool), np.ones((40, 50), bool)])
def test_nothing_and_everything_have_no_number(mask):
    assert math.isnan(miles_density(mask, np.ones_like(mask), spacing=SPACING).value)
    assert math.isnan(miles_density(mask, np.zeros_like(mask), spacing=SPACING).value)


def test_second_density_where_much_is_covered(rng, schema):
    for covered, expected in ((0.05, 1), (0.35, 2)):
        mask, density = field(rng, covered)
        labels = np.where(mask, schema.index("deposit"), schema.index("substrate")).astype(np.uint8)
        scale = Scale(SPACING)
        instances = label_objects(mask, scale=scale, split_touching=False)
        frame = Frame(labels, schema, scale, 3, instances=instances, object_classes=("deposit",))
        rows = [r for r in measure_frame(frame, overlap_from=0.15) if r.metric == "areal_density"]
        assert len(rows) == expected
        assert rows[0].flags == (("overlapping",) if expected == 2 else ())
    counted, inverted = rows
    assert inverted.flags == ("overlapping",)
    assert inverted.unit == "1/cm2"
    assert inverted.low < density * 1e8 < inverted.high
    # Connected regions miss most of the discs at this cover.
    assert counted.value < 0.5 * density * 1e8


def test_objects_that_keep_apart_have_one_density(rng, schema):
    side = np.hypot(*np.mgrid[-20:20, -20:20])
    apart = np.tile(side < 14, (6, 7))  # covers 38 %, and nothing touches
    at_random, _ = field(rng, 0.15)
    for mask, expected in ((apart, [()]), (at_random, [("overlapping",)] * 2)):
        labels = np.where(mask, schema.index("deposit"), schema.index("substrate")).astype(np.uint8)
        frame = with_instances(Frame(labels, schema, Scale(SPACING), object_classes=("deposit",)), split_touching=True)
        rows = [r for r in measure_frame(frame, overlap_from=0.1) if r.metric == "areal_density"]
        assert [row.flags for row in rows] == expected
