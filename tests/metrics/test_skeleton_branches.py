"""Angles of drawn forks and widths of drawn cones, turned at random, in the plane and in volumes."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg.metrics.dendrite import analyse_dendrite
from seg.metrics.skeleton import prune, skeleton_graph
from seg.metrics.skeleton_branches import widths_along


def cones(ends, spacing, shape, origin):
    """Mask of strokes ((start, width), (end, width)) whose width changes evenly along them."""
    points = np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing) + origin
    mask = np.zeros(shape, bool)
    for (a, wide), (b, narrow) in ends:
        along = np.asarray(b) - a
        share = np.clip((points - a) @ along / (along @ along), 0, 1)
        away = np.linalg.norm(points - a - share[..., None] * along, axis=-1)
        mask |= away <= (wide + share * (narrow - wide)) / 2
    return mask


def turned(rng, ndim):
    return np.linalg.qr(rng.normal(size=(ndim, ndim)))[0]


def fork(rng, ndim, angle_deg, *, width, spacing, stem=45.0, arm=45.0):
    """A stem and two arms; its mask, and the pixels at the foot of the stem."""
    half = math.radians(angle_deg / 2)
    up, side = np.eye(ndim)[0], np.eye(ndim)[1]
    turn = turned(rng, ndim)
    tips = [turn @ (stem * up + arm * (math.cos(half) * up + sign * math.sin(half) * side)) for sign in (1, -1)]
    node, foot = turn @ (stem * up), np.zeros(ndim)
    corners = np.array([foot, node, *tips])
    origin = corners.min(axis=0) - width
    shape = tuple(np.ceil((corners.max(axis=0) + width - origin) / spacing).astype(int) + 1)
    strokes = [((foot, width), (node, width)), *(((node, width), (tip, width)) for tip in tips)]
    mask = cones(strokes, spacing, shape, origin)
    place = np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing) + origin
    return mask, mask & (np.linalg.norm(place, axis=-1) < 0.6 * width)


@pytest.mark.parametrize(
    ("spacing", "width"), [((1.0, 0.7), 5.0), ((0.5, 0.5), 6.0), ((1.0, 0.8, 0.8), 5.0)]
)  # fmt: skip
def test_angle_between_daughters(rng, spacing, width):
    ndim, errors = len(spacing), []
    for angle in (50, 70, 100) if ndim == 3 else (45, 60, 80, 100, 120, 60):
        mask, foot = fork(rng, ndim, angle, width=width, spacing=spacing)
        found = analyse_dendrite(mask, spacing=spacing, root=foot)
        assert len(found.angles) == 1
        errors.append(found.angles[0] - angle)
    # Target 3 degrees; the skeleton leaves wide junctions at a slant.
    assert np.abs(errors).max() < 3
    assert abs(np.mean(errors)) < 1.5


def test_without_a_root_the_smallest_angle_is_that_of_a_side_branch(rng):
    trunk = [((np.array([10.0, 40.0]), 5.0), (np.array([130.0, 40.0]), 5.0))]
    way = 55 * np.array([math.cos(math.radians(50)), math.sin(math.radians(50))])
    branch = ((np.array([60.0, 40.0]), 5.0), (np.array([60.0, 40.0]) + way, 5.0))
    mask = cones([*trunk, branch], (1.0, 0.8), (145, 130), np.zeros(2))
    found = analyse_dendrite(mask, spacing=(1.0, 0.8))
    assert found.angles[0] == pytest.approx(50, abs=3)
    foot = np.zeros_like(mask)
    foot[8:12] = mask[8:12]
    assert analyse_dendrite(mask, spacing=(1.0, 0.8), root=foot).angles[0] == pytest.approx(50, abs=3)


def test_crossings_and_stubs_have_no_angle():
    cross = np.zeros((90, 90), bool)
    cross[42:47, 5:85] = True
    cross[5:85, 42:47] = True
    found = analyse_dendrite(cross, spacing=(1.0, 1.0))
    assert found.branch_point_count == 1
    assert found.angles == ()


@pytest.mark.parametrize(("spacing", "wide", "narrow"), [((0.6, 0.5), 12.0, 5.0), ((1.0, 0.9, 0.9), 14.0, 6.0)])
def test_width_along_a_cone(rng, spacing, wide, narrow):
    ndim, length = len(spacing), 90.0
    turn = turned(rng, ndim)
    end = turn @ (length * np.eye(ndim)[0])
    origin = np.minimum(end, 0) - wide
    shape = tuple(np.ceil((np.maximum(end, 0) + wide - origin) / spacing).astype(int) + 1)
    mask = cones([((np.zeros(ndim), wide), (end, narrow))], spacing, shape, origin)
    found = analyse_dendrite(mask, spacing=spacing)
    thin, middle, thick = found.width_quantiles(0.05, 0.5, 0.95)
    # The width runs evenly from one end to the other. The distance map is good to a pixel; half of one in the plane.
    slack = 0.5 * max(spacing) if ndim == 2 else max(spacing)
    assert thin == pytest.approx(narrow + 0.05 * (wide - narrow), abs=slack)
    assert middle == pytest.approx((wide + narrow) / 2, abs=slack)
    assert thick == pytest.approx(wide - 0.05 * (wide - narrow), abs=slack)
    # Bare twice the distance map is what the shift repairs.
    half = ndimage.distance_transform_edt(mask, sampling=spacing)
    graph = prune(skeleton_graph(mask, spacing=spacing), half)
    shifted, lengths = widths_along(graph, half, mean_width=found.branch_width)
    power = ndim - 1
    assert np.average(shifted**power, weights=lengths) ** (1 / power) == pytest.approx(found.branch_width, rel=1e-6)
    assert np.ptp(shifted) > 0.7 * (wide - narrow)


def test_no_widths_without_a_path():
    found = analyse_dendrite(np.ones((1, 1), bool), spacing=(1.0, 1.0))
    assert len(found.widths[0]) == 0
    assert math.isnan(found.width_quantiles(0.5)[0])


def test_a_mesh_keeps_the_widths_of_its_bars():
    # Squares of bars 5 px wide: their area over length with forks counted is no width.
    mask = np.zeros((120, 120), bool)
    for k in range(10, 110, 14):
        mask[k : k + 5, 10:109] = True
        mask[10:109, k : k + 5] = True
    found = analyse_dendrite(mask, spacing=(0.5, 0.5))
    low, middle, high = found.width_quantiles(0.05, 0.5, 0.95)
    assert low <= middle <= high
    assert middle == pytest.approx(2.5, abs=0.5)
    assert low > 1
