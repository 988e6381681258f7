"""Boundaries from grey values: a blurred disc, uneven light, noise, and contact angles with and without an image."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg.metrics.contact_angle import measure_frame
from seg.metrics.contour import refine_cracks
from seg.metrics.curves import fit_circle
from seg.metrics.frame import Frame
from seg.metrics.interface import crack_points
from seg.metrics.table import Scale

SPACING = (0.6, 0.5)


def disc_image(centre, radius, shape=(90, 100)):
    """Share of each pixel inside a disc (8 x 8 samples), blurred by a pixel as by an instrument."""
    y, x = (np.mgrid[: 8 * shape[0], : 8 * shape[1]] + 0.5) / 8 - 0.5
    inside = np.hypot((y - centre[0]) * SPACING[0], (x - centre[1]) * SPACING[1]) < radius
    coverage = inside.reshape(shape[0], 8, shape[1], 8).mean(axis=(1, 3))
    return coverage >= 0.5, ndimage.gaussian_filter(coverage, 1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_disc_is_found_to_a_tenth_of_a_pixel(rng, sign):
    centre, radius = 45 + rng.uniform(-0.5, 0.5, 2), 14.0
    mask, image = disc_image(centre, radius)
    # Light that falls off by a third of the contrast over the frame.
    image = 40 + sign * 100 * image + np.linspace(0, 33, 100)[None]
    image = image + rng.normal(0, 2, image.shape)
    cracks = crack_points(mask, ~mask, SPACING)
    refined = refine_cracks(cracks, mask, ~mask, image, SPACING)
    assert refined.share > 0.99
    away = np.linalg.norm(refined.cracks.position - centre * SPACING, axis=1) - radius
    before = np.linalg.norm(cracks.position - centre * SPACING, axis=1) - radius
    # Half of the 0.3 px of the grid at most, and no more than a tenth off on average.
    assert away.std() < 0.5 * before.std()
    assert abs(away.mean()) < 0.1 * min(SPACING)
    assert fit_circle(refined.cracks, SPACING).curve.radius == pytest.approx(radius, abs=0.05)


def test_a_mask_that_is_off_comes_back(rng):
    mask, image = disc_image((45.2, 50.3), 14.0)
    grown = ndimage.binary_dilation(mask, iterations=1)
    cracks = crack_points(grown, ~grown, SPACING)
    refined = refine_cracks(cracks, grown, ~grown, image + rng.normal(0, 0.02, image.shape), SPACING)
    assert refined.median_shift_px == pytest.approx(-0.8, abs=0.25)
    # A quarter of the pixel stays: the inner band reaches into the blurred edge.
    assert fit_circle(refined.cracks, SPACING).curve.radius == pytest.approx(14, abs=0.2)
    # Without the median shift the mask says where the outline is.
    assert fit_circle(refined.centred, SPACING).curve.radius == pytest.approx(
        fit_circle(cracks, SPACING).curve.radius, abs=0.15
    )


def test_no_contrast_is_not_credible(rng):
    mask, image = disc_image((45.2, 50.3), 14.0)
    cracks = crack_points(mask, ~mask, SPACING)
    assert refine_cracks(cracks, mask, ~mask, np.full(mask.shape, 7.0), SPACING).share == 0
    assert refine_cracks(cracks, mask, ~mask, rng.normal(0, 1, mask.shape), SPACING).share < 0.5
    assert refine_cracks(cracks[:0], mask, ~mask, image, SPACING).share == 0


def drop(rng, schema, *, angle=70.0, radius=40.0, rough_px=0.0):
    """A cap on a level substrate at a random fraction of a pixel: its mask (rough if asked for) and its image."""
    shape, level = (110, 160), 80 + rng.uniform(0, 1)
    y, x = (np.mgrid[: 4 * shape[0], : 4 * shape[1]] + 0.5) / 4 - 0.5
    below = y > level
    ball = np.hypot(y - level - radius * math.cos(math.radians(angle)), x - 80.3) < radius
    grey = np.where(below, 0.5, np.where(ball, 0.2, 1.0)).reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3))
    image = ndimage.gaussian_filter(grey, 1.0) + rng.normal(0, 0.02, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    grain = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    edge = radius + rough_px * grain / grain.std()
    deposit = np.hypot(y - level - radius * math.cos(math.radians(angle)), x - 80.3) < edge
    labels = np.where(y > level, 2, np.where(deposit, 3, 1)).astype(np.uint8)
    return labels, image


def mean_angle(labels, schema, image=None):
    rows = measure_frame(Frame(labels, schema, Scale((1.0, 1.0)), image=image))
    (row,) = [row for row in rows if row.metric == "contact_angle" and row.object_id and row.side == "mean"]
    return row


def test_image_halves_the_error_of_level_substrates(rng, schema):
    errors, halves, held = [], [], 0
    for _ in range(12):
        angle = rng.uniform(50, 120)
        labels, image = drop(rng, schema, angle=angle)
        plain, imaged = mean_angle(labels, schema), mean_angle(labels, schema, image)
        assert "contour of the mask" not in imaged.method
        assert "from the image" in imaged.method
        errors.append((plain.value - angle, imaged.value - angle))
        halves.append((plain.high - plain.low, imaged.high - imaged.low))
        held += imaged.low <= angle <= imaged.high
    of_mask, of_image = np.sqrt(np.mean(np.square(errors), axis=0))
    assert of_image < 0.6 * of_mask
    assert of_image < 0.3
    assert np.mean(halves, axis=0)[1] < 0.6 * np.mean(halves, axis=0)[0]
    assert held >= 11


def test_image_mends_a_rough_mask(rng, schema):
    errors = []
    for _ in range(6):
        labels, image = drop(rng, schema, rough_px=1.2)
        plain, imaged = mean_angle(labels, schema), mean_angle(labels, schema, image)
        errors.append((plain.value - 70, imaged.value - 70))
    of_mask, of_image = np.sqrt(np.nanmean(np.square(errors), axis=0))
    assert of_image < max(0.7 * of_mask, 0.5)
    assert not np.isnan([e[1] for e in errors]).any()


def test_image_without_contrast_changes_nothing(rng, schema):
    labels, _ = drop(rng, schema)
    plain = mean_angle(labels, schema)
    for image in (np.zeros(labels.shape), rng.normal(size=labels.shape), np.full(labels.shape, math.nan)):
        assert mean_angle(labels, schema, image).value == plain.value


def test_adhesion_work_follows_the_angle(rng, schema):
    labels, _ = drop(rng, schema, angle=60.0)
    frame = Frame(labels, schema, Scale((1.0, 1.0)))
    rows = [row for row in measure_frame(frame, surface_energy_j_per_m2=0.4) if row.metric == "adhesion_work"]
    assert [row.object_id for row in rows] == [1, None]
    for row in rows:
        assert row.value == pytest.approx(0.4 * 1.5, rel=0.02)
        assert row.low < 0.6 < row.high
        assert row.unit == "J/m2"
    assert [row for row in measure_frame(frame) if row.metric == "adhesion_work"] == []
