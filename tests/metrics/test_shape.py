"""Shape numbers of drawn objects against their closed forms, on pixels that are not square."""

import math

import numpy as np
import pytest

from seg.metrics.frame import Frame
from seg.metrics.shape import feret_diameter, measure_frame, solidity
from seg.metrics.table import Scale
from seg.objects import label_objects


def measured(mask, schema, spacing=(1.0, 1.0), **options):
    """Rows of an image of deposits, by metric, of its first object."""
    scale = Scale(spacing, **options)
    labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    instances = label_objects(mask, scale=scale, split_touching=False)
    frame = Frame(labels, schema, scale, instances=instances, object_classes=("deposit",), min_diameter_px=4.0)
    return {row.metric: row for row in measure_frame(frame) if row.object_id == 1}


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.6, 0.4)])
def test_turned_ellipse(schema, spacing):
    y, x = (i * s for i, s in zip(np.mgrid[:130, :190], spacing, strict=True))
    a, b, turn = 40 * spacing[0] ** 0.5 * spacing[1] ** 0.5, 20 * math.sqrt(math.prod(spacing)), math.radians(25)
    up, right = y[65, 0] - y + 0.2 * spacing[0], x - x[0, 95]
    along, away = right * math.cos(turn) + up * math.sin(turn), up * math.cos(turn) - right * math.sin(turn)
    rows = measured((along / a) ** 2 + (away / b) ** 2 < 1, schema, spacing)
    # Ramanujan's perimeter, right to 1e-5.
    # Four directions are right to 1 % on square pixels, to 2.5 % on oblong ones.
    perimeter = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
    assert rows["circularity"].value == pytest.approx(
        4 * math.pi**2 * a * b / perimeter**2, rel=0.02 if spacing[0] == spacing[1] else 0.05
    )
    assert rows["aspect_ratio"].value == pytest.approx(2, rel=0.01)
    assert rows["orientation"].value == pytest.approx(25, abs=0.5)
    assert rows["solidity"].value == pytest.approx(1, abs=0.005)
    assert rows["feret_diameter"].low < 2 * a < rows["feret_diameter"].high
    assert rows["feret_diameter"].unit == "um"
    assert all(row.flags == () for row in rows.values())


@pytest.mark.parametrize("radius", [5, 8, 15, 30])
def test_disc_is_solid_and_as_wide_as_it_is(rng, radius):
    y, x = np.mgrid[: 2 * radius + 7, : 2 * radius + 7]
    for _ in range(5):
        centre = radius + 3 + rng.uniform(-0.5, 0.5, 2)
        disc = np.hypot(y - centre[0], x - centre[1]) < radius
        assert solidity(disc, spacing=(1, 1)) > 0.995
        # Both ends of the longest chord are grid steps, half a pixel each.
        assert feret_diameter(disc, spacing=(1, 1)) == pytest.approx(2 * radius, abs=0.8)


def test_notch_and_hole_lower_solidity():
    notched = np.ones((40, 40), bool)
    notched[:20, 20:] = False
    # 1200 of a hull of 1400; corners are rounded by 2 px of smoothing.
    assert solidity(notched, spacing=(1, 1)) == pytest.approx(6 / 7, abs=0.012)
    assert solidity(notched, spacing=(2.0, 0.5)) == pytest.approx(6 / 7, abs=0.012)
    assert feret_diameter(notched, spacing=(1, 1)) == pytest.approx(40 * math.sqrt(2), abs=1.5)
    y, x = np.mgrid[:70, :70]
    radius = np.hypot(y - 35, x - 35)
    assert solidity((radius < 30) & (radius > 15), spacing=(1, 1)) == pytest.approx(0.75, abs=0.005)


def test_volume(schema):
    z, y, x = (i * s for i, s in zip(np.indices((24, 44, 44)), (2.0, 1.0, 1.0), strict=True))
    ball = np.sqrt((z - 23.3) ** 2 + (y - 21.6) ** 2 + (x - 22.2) ** 2) < 15
    rows = measured(ball, schema, (2.0, 1.0, 1.0))
    assert set(rows) == {"sphericity", "aspect_ratio", "solidity", "feret_diameter"}
    # Targets of the surface by Crofton's formula.
    assert rows["sphericity"].value == pytest.approx(1, abs=0.02)
    assert rows["sphericity"].low < 1 < rows["sphericity"].high + 0.002
    assert rows["aspect_ratio"].value == pytest.approx(1, abs=0.02)
    assert rows["solidity"].value > 0.985
    assert rows["feret_diameter"].value == pytest.approx(30, abs=1.0)


def test_flags(schema):
    y, x = np.mgrid[:60, :60]
    cut = measured(np.hypot(y - 30, x - 3) < 15, schema)
    assert cut["circularity"].flags == ("touches-border",)
    small = measured(np.hypot(y - 30, x - 30) < 4.2, schema, calibrated=False)
    assert small["solidity"].flags == ("uncalibrated", "few-pixels")
    assert small["feret_diameter"].unit == "px"
    pixel = measured((y == 30) & (x == 30), schema)
    assert all(math.isnan(row.value) for row in pixel.values())
    assert "below-detection-limit" in pixel["circularity"].flags
    assert math.isnan(feret_diameter(np.zeros((4, 5), bool), spacing=(1, 1)))
    assert feret_diameter(np.ones((1, 1), bool), spacing=(1, 1)) == pytest.approx(1, abs=0.6)


def test_the_frame_has_the_median_of_its_whole_objects(schema):
    spacing, y = (0.6, 0.4), np.mgrid[:260, :500][0] * 0.6
    x = np.mgrid[:260, :500][1] * 0.4
    ratios = [1.0, 1.4, 1.8, 2.2, 2.6, 3.0, 3.4]
    mask = np.zeros(y.shape, bool)
    for k, ratio in enumerate(ratios):
        mask |= ((y - 60) / 12 / ratio**0.5) ** 2 + ((x - 27 - 24 * k) / 12 * ratio**0.5) ** 2 < 1
    mask |= np.hypot(y - 140, x) < 12  # cut by the frame: not among them
    labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    instances = label_objects(mask, scale=Scale(spacing), split_touching=False)
    frame = Frame(labels, schema, Scale(spacing), instances=instances, object_classes=("deposit",), min_diameter_px=4.0)
    rows = {row.metric: row for row in measure_frame(frame) if row.object_id is None}
    assert set(rows) == {"circularity", "aspect_ratio", "solidity", "feret_diameter"}
    ratio = rows["aspect_ratio"]
    # Tall ones are cut more often, and so weigh more: an eighth of the way to the next.
    assert (ratio.value, ratio.n, ratio.flags) == (pytest.approx(2.25, abs=0.03), 7, ())
    # Of seven units the smallest and the largest bound the median in 98.4 of 100 cases.
    assert (ratio.low, ratio.high) == pytest.approx((1.0, 3.4), rel=0.01)
    # Diameter along y of the fourth: 24 times the root of its ratio.
    assert rows["feret_diameter"].value == pytest.approx(24 * 2.25**0.5, rel=0.02)
    assert rows["feret_diameter"].unit == "um"
    empty = Frame(np.ones_like(labels), schema, Scale(spacing), instances=np.zeros_like(instances),
                  object_classes=("deposit",), min_diameter_px=4.0)  # fmt: skip
    assert all(math.isnan(row.value) and math.isnan(row.low) for row in measure_frame(empty))
