"""Tortuosity factors with known values: free space, straight and slanted channels, obstacles in a square array."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg.metrics.frame import Frame
from seg.metrics.interface import wall_roughness_px
from seg.metrics.layers import measure_frame
from seg.metrics.table import Scale
from seg.metrics.tortuosity import diffuse


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_free_space_is_one(axis):
    found = diffuse(np.ones((7, 9, 11), bool), spacing=(1.0, 0.5, 0.8), axis=axis)
    assert found.tortuosity_factor == pytest.approx(1, rel=1e-6)
    assert (found.fraction, found.connected) == (1, 1)
    assert found.imbalance < 1e-3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.8)])
def test_plates_along_and_across(spacing):
    phase = np.zeros((12, 16, 10), bool)
    phase[:, ::4] = phase[:, 1::4] = True
    # Straight channels: nothing but the fraction counts. Across them nothing passes.
    assert diffuse(phase, spacing=spacing).tortuosity_factor == pytest.approx(1, rel=1e-6)
    across = diffuse(phase, spacing=spacing, axis=1)
    assert across.tortuosity_factor == math.inf
    assert (across.fraction, across.connected) == (0.5, 0)


def test_closed_pores_lower_the_fraction_that_counts():
    phase = np.zeros((12, 10, 10), bool)
    phase[:, :4] = True
    phase[4:8, 6:9, 3:6] = True
    found = diffuse(phase, spacing=(1.0, 0.5, 0.8))
    assert found.connected == pytest.approx(0.4)
    # All of the phase over the diffusivity of what conducts.
    assert found.tortuosity_factor == pytest.approx((0.4 + 36 / 1200) / 0.4, rel=1e-6)


def perrins(fraction):
    """Conductivity of a matrix around insulating cylinders in a square array (Perrins, McKenzie, McPhedran 1979)."""
    f4, f8 = fraction**4, fraction**8
    return 1 - 2 * fraction / (1 + fraction - 0.305827 * f4 / (1 - 1.402958 * f8) - 0.013362 * f8)


# What voxels add at 48 and 96 per cell was measured with other solvers too: +2.8 % and +1.3 %.
@pytest.mark.parametrize(("n", "excess"), [(48, 0.028), (96, 0.013)])
def test_cylinders_in_a_square_array(n, excess):
    y, x = (np.indices((n, n)) + 0.5) / n - 0.5
    phase = np.hypot(y, x) > math.sqrt(0.4 / math.pi)
    found = diffuse(phase, spacing=(1.0, 1.0))
    assert found.tortuosity_factor == pytest.approx(0.6 / perrins(0.4) * (1 + excess), rel=0.003)
    # What they add goes with the wall per volume.
    wall = 2 * math.sqrt(0.4 * math.pi) / (0.6 * n)
    assert found.wall_per_volume == pytest.approx(wall, rel=0.03)
    assert excess / wall == pytest.approx(0.36, abs=0.03)
    # The same array in space, along the third axis out of use, and with rows half as high.
    flat = diffuse(np.repeat(phase[:, None], 3, axis=1), spacing=(1.0, 0.7, 1.0))
    assert flat.tortuosity_factor == pytest.approx(found.tortuosity_factor, rel=1e-4)
    tall = diffuse(np.repeat(phase, 2, axis=0), spacing=(0.5, 1.0))
    assert tall.tortuosity_factor == pytest.approx(0.6 / perrins(0.4), rel=1.5 * excess)


@pytest.mark.parametrize("degrees", [0, 30, 45])
def test_a_slanted_channel(degrees):
    # Conductance falls with the cosine twice: the channel is narrower and longer than it looks from its end.
    n, slope = 240, math.tan(math.radians(degrees))
    z, y = np.indices((n, 290)) + 0.5
    phase = np.abs(y - 22 - z * slope) < 10
    found = diffuse(phase, spacing=(1.0, 1.0))
    # Stairs of voxels add 4 to 5 % on an oblique channel (known of such solvers); the ends take back 1 to 2 %.
    assert found.tortuosity_factor == pytest.approx((1 + slope**2) * (1.03 if slope else 1), rel=0.025)


def test_nothing_and_one_voxel():
    assert math.isnan(diffuse(np.zeros((4, 4, 4), bool), spacing=(1.0, 1.0, 1.0)).tortuosity_factor)
    assert diffuse(np.ones((1, 1), bool), spacing=(0.5, 2.0)).tortuosity_factor == pytest.approx(1)


def test_the_low_end_knows_rough_walls(rng, schema):
    # Pores around a ball of 11 voxels; walls that wander by 0.7 voxels, correlated over 2, read 0.4 voxels.
    spacing, shape = (0.6, 0.5, 0.5), (28, 34, 34)
    z, y, x = ((np.arange(n) + 0.5 - n / 2) * s / 0.53 for n, s in zip(shape, spacing, strict=True))
    level = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2) - 11
    wander = ndimage.gaussian_filter(rng.standard_normal(shape), 2.0)
    below = {}
    for sd in (0.0, 0.7):
        pores = level + sd * wander / wander.std() > 0
        rough = wall_roughness_px(pores, spacing)
        assert rough == pytest.approx(0.4 * sd / 0.7, abs=0.12)
        labels = np.where(pores, schema.index("electrolyte"), schema.index("deposit")).astype(np.uint8)
        rows = measure_frame(Frame(labels, schema, Scale(spacing)), tortuosity_axis="z")
        row = next(r for r in rows if r.metric == "tortuosity_factor")
        assert ("rough by" in row.method) == (sd > 0)
        below[sd] = 1 - row.low / row.value
    # Stairs, walls off by half a pixel, and pores narrower by the bumps (power 1.5, of which 1 / 1.7 is seen).
    wall = below[0.0] / math.hypot(0.45, 1.96 * 0.25 / 2)
    assert below[0.7] == pytest.approx(math.hypot(below[0.0], 1.5 * 1.7 * 0.4 * wall), rel=0.3)
    assert wall_roughness_px(np.ones((5, 5, 5), bool), spacing) == wall_roughness_px(np.ones((1, 5), bool), (1, 1)) == 0
