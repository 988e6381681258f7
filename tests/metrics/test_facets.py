"""Facets of drawn polygons with round corners, of circles, and of droplets on a substrate."""

import math

import numpy as np
import pytest

from seg.metrics.facets import find_facets, measure_frame
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.objects import label_objects


def polygon(n, radius, corner, turn, centre, shape, spacing=(1.0, 1.0)):
    """A regular polygon of circumradius `radius` whose corners are rounded by `corner`; n = 0 is a circle."""
    y, x = (i * s for i, s in zip(np.mgrid[: shape[0], : shape[1]], spacing, strict=True))
    if n == 0:
        return np.hypot(y - centre[0], x - centre[1]) < radius
    # The inner polygon, grown by the radius of the corners.
    reach = (radius * math.cos(math.pi / n) - corner) / math.cos(math.pi / n)
    angle = turn + 2 * math.pi * np.arange(n) / n
    ends = np.stack([centre[0] + reach * np.sin(angle), centre[1] + reach * np.cos(angle)], axis=1)
    inside, distance = np.ones(y.shape, bool), np.full(y.shape, np.inf)
    for one, two in zip(ends, np.roll(ends, -1, axis=0), strict=True):
        length = np.hypot(*(two - one))
        t = (two - one) / length
        inside &= (y - one[0]) * t[1] - (x - one[1]) * t[0] > 0
        along = np.clip((y - one[0]) * t[0] + (x - one[1]) * t[1], 0, length)
        distance = np.minimum(distance, np.hypot(y - one[0] - along * t[0], x - one[1] - along * t[1]))
    inside = inside if inside.any() else np.zeros_like(inside)
    return inside | (distance <= corner)


def side_of(n, radius, corner):
    return 2 * (radius * math.cos(math.pi / n) - corner) * math.tan(math.pi / n)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.3, 1.0)])
@pytest.mark.parametrize("n", [3, 4, 6, 8])
def test_facets_of_polygons_above_the_limit_are_exact(rng, n, spacing):
    pixel = max(spacing)
    checked = 0
    for radius_px in (16, 24, 40, 60):
        for corner in (0.0, 0.15, 0.3):
            radius, size = radius_px * pixel, int(2.6 * radius_px * pixel) + 8
            side = side_of(n, radius, corner * radius)
            # The limit of resolution: 1.5 times the run of a circle, and 5 % to spare.
            if side < 1.05 * 1.5 * math.sqrt(5.6 * radius * pixel):
                continue
            centre = (size / 2 + rng.uniform(-0.5, 0.5, 2)) * spacing
            mask = polygon(n, radius, corner * radius, rng.uniform(0, 6.28), centre, (size, size), spacing)
            found = find_facets(mask, spacing=spacing)
            truth = n * side / (n * side + 2 * math.pi * corner * radius)
            assert (found.count, found.corners) == (n, n)
            assert found.fraction == pytest.approx(truth, abs=0.17)
            checked += 1
    assert checked >= 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 1.0)])
def test_circles_have_none(rng, spacing):
    for radius in (20, 28, 50, 80):
        size = 3 * radius + 12
        centre = (np.array([size / 2, size]) + rng.uniform(-0.5, 0.5, 2)) * spacing
        mask = polygon(0, radius * math.sqrt(math.prod(spacing)), 0, 0, centre, (size, 2 * size), spacing)
        found = find_facets(mask, spacing=spacing)
        assert (found.count, found.fraction, found.corners) == (0, 0, 0)


def test_interval_of_the_fraction_holds_the_truth(rng):
    held, total = 0, 0
    for _ in range(60):
        n, radius, corner = int(rng.integers(3, 7)), rng.uniform(25, 60), rng.uniform(0, 0.3)
        size = int(2.3 * radius) + 10
        centre = size / 2 + rng.uniform(-0.5, 0.5, 2)
        side = side_of(n, radius, corner * radius)
        if side < 1.5 * math.sqrt(5.6 * radius):
            continue
        mask = polygon(n, radius, corner * radius, rng.uniform(0, 6), centre, (size, size))
        found = find_facets(mask, spacing=(1, 1))
        truth = n * side / (n * side + 2 * math.pi * corner * radius)
        held += abs(found.fraction - truth) <= found.fraction_error
        total += 1
    assert held / total >= 0.9
    assert total > 40


def test_small_outlines_say_nothing():
    small = polygon(0, 9, 0, 0, (15, 15), (30, 30))
    assert find_facets(small, spacing=(1, 1)).flags == ("few-pixels",)
    assert math.isnan(find_facets(small, spacing=(1, 1)).count)
    # Sides of a square are resolved at a size at which those of a hexagon are not.
    assert find_facets(polygon(4, 10, 0, 0.3, (15, 15), (30, 30)), spacing=(1, 1)).count == 4
    assert math.isnan(find_facets(np.zeros((5, 5), bool), spacing=(1, 1)).fraction)


def test_base_on_a_substrate_is_no_facet(schema):
    y, x = np.mgrid[:120, :260].astype(float)
    droplet = (np.hypot(y - 90.4, x - 70) < 40) & (y <= 90)
    house = (np.abs(x - 190) < 40) & (y <= 90) & (y > 50 + 0.7 * np.abs(x - 190))
    labels = np.where(y > 90, 2, np.where(droplet | house, 3, 1)).astype(np.uint8)
    scale = Scale((0.5, 0.5))
    frame = Frame(labels, schema, scale, instances=label_objects(labels == 3, scale=scale), object_classes=("deposit",))
    rows = measure_frame(frame)
    counts = {row.object_id: row.value for row in rows if row.metric == "facet_count"}
    fraction = {row.object_id: row.value for row in rows if row.metric == "facet_fraction"}
    by_side = sorted(counts, key=lambda k: float(np.mean(x[frame.instances == k])))
    # Two slopes of the roof; its walls are 12 px high, under the limit.
    assert [counts[k] for k in by_side] == [0, 2]
    assert fraction[by_side[0]] == 0
    # 2 x 48.8 px of roof, 2 x 12 px of wall.
    assert fraction[by_side[1]] == pytest.approx(97.7 / 121.7, abs=0.1)


def test_rows_state_diameter_flags_and_cut_objects(schema):
    y, x = np.mgrid[:90, :120]
    mask = (np.hypot(y - 45, x - 50) < 25) | (np.hypot(y - 45, x - 119) < 25)
    labels = np.where(mask, 3, 1).astype(np.uint8)
    scale = Scale((2.0, 1.0), calibrated=False)
    instances = label_objects(mask, scale=scale)
    rows = measure_frame(Frame(labels, schema, scale, instances=instances, min_diameter_px=3.0))
    of = {(row.metric, row.flags): row for row in rows}
    cut = of["facet_count", ("uncalibrated", "touches-border")]
    assert math.isnan(cut.value)
    whole = [row for row in rows if row.metric == "equivalent_diameter" and row.object_id != cut.object_id]
    assert whole[0].unit == "px"
    assert whole[0].value == pytest.approx(50 * math.sqrt(2), rel=0.01)
