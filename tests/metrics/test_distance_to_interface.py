"""Distance of voids to a plane interface: to a tenth of a voxel, but for what a mask along the grid cannot tell."""

import math

import numpy as np
import pytest

from seg.metrics.frame import Frame
from seg.metrics.interface import lowest_height
from seg.metrics.table import Scale
from seg.metrics.voids import measure_frame

SHAPE, SPACING = (30, 42, 29), np.array([0.5, 0.4, 0.6])


def errors(schema, rng, tilt, n=24):
    """Error of the distance of a ball over a plane, in voxels along its normal."""
    grid = np.stack(np.meshgrid(*(np.arange(k) * s for k, s in zip(SHAPE, SPACING, strict=True)), indexing="ij"), -1)
    found = []
    for _ in range(n):
        azimuth = rng.uniform(0, 2 * math.pi)
        normal = np.array([math.cos(tilt), *(math.sin(tilt) * np.array([math.cos(azimuth), math.sin(azimuth)]))])
        radius, gap = rng.uniform(1.9, 3.0), rng.uniform(1.2, 3.0)
        foot = np.array([rng.uniform(3.5, 4.0), *rng.uniform(8.0, 8.6, 2)])
        labels = np.full(SHAPE, schema.index("deposit"), np.uint8)
        labels[(grid - foot) @ normal < 0] = schema.index("separator")
        labels[np.linalg.norm(grid - foot - (gap + radius) * normal, axis=-1) < radius] = schema.index("void")
        rows = measure_frame(Frame(labels, schema, Scale(tuple(SPACING))))
        value = next(r.value for r in rows if r.metric == "void_distance_to_interface" and r.object_id == 1)
        found.append((value - gap) / np.linalg.norm(normal * SPACING))
    return np.array(found)


def test_a_tilted_plane(schema, rng):
    off = errors(schema, rng, 0.3)
    # Target: 0.25 voxel. Means of 24 are good to 0.02.
    assert abs(off.mean()) < 0.1
    assert off.std() < 0.15


def test_a_plane_along_the_grid(schema, rng):
    off = errors(schema, rng, 0.0)
    # Its place within a voxel is not in the mask: uniform over one voxel, sd 0.289; of 24 good to 15 % (8 % for a
    # uniform law). The nearest points alone read 0.36 to 0.41.
    assert abs(off.mean()) < 0.15
    assert off.std() < 12**-0.5 * 1.15


def test_the_lowest_point_of_a_paraboloid_and_of_what_is_none(rng):
    place = rng.uniform(-2, 2, (400, 2)) + [0.3, -0.2]
    height = 1.5 + 0.2 * (place[:, 0] - 0.3) ** 2 + 0.1 * (place[:, 1] + 0.2) ** 2 + rng.normal(0, 0.05, 400)
    up = np.array([1.0, 0.0, 0.0])
    surface = np.column_stack([height, place])
    # The noise of some 100 points averages out; the lowest of them lies up to 0.1 too low.
    assert lowest_height(surface, up, within=1.5) == pytest.approx(1.5, abs=0.03)
    assert height.min() < 1.48
    # A face along the plane bends neither way, and three points are no patch.
    flat = np.column_stack([np.full(400, 1.5), place])
    assert lowest_height(flat, up, within=1.5) == pytest.approx(1.5, abs=1e-9)
    assert lowest_height(surface[:3], up, within=1.5) == height[:3].min()
