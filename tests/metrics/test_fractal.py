"""Sets of known dimension, lines and discs; nothing where there is no decade of sizes or no one slope."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg.metrics.fractal import box_dimension, mass_radius_dimension

VICSEK = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
CARPET = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
GASKET = np.array([[1, 0], [1, 1]])


def grown(block, times):
    """The set that replaces every pixel by the block, again and again."""
    whole = np.ones((1,) * block.ndim, bool)
    for _ in range(times):
        whole = np.kron(whole, block).astype(bool)
    return whole


@pytest.mark.parametrize(
    ("block", "times", "true"),
    [
        (VICSEK, 6, math.log(5) / math.log(3)),
        (np.rot90(VICSEK) | np.eye(3, dtype=int), 6, math.log(7) / math.log(3)),
        (CARPET, 6, math.log(8) / math.log(3)),
        (GASKET, 9, math.log(3) / math.log(2)),
    ],
)
@pytest.mark.parametrize("pixel", [1.0, 0.35])
def test_boxes_on_sets_of_known_dimension(rng, block, times, true, pixel):
    found = box_dimension(grown(block, times), spacing=(pixel, pixel), rng=rng)
    # Target 0.07 from 500 px on.
    assert found.value == pytest.approx(true, abs=0.07)
    assert found.low <= true <= found.high
    assert found.decades >= 1
    assert found.smallest == pytest.approx(4 * pixel)


def test_boxes_are_square_in_space_not_on_the_grid(rng):
    # Every second row of the carpet, at twice the distance: the same set, seen through oblong pixels.
    carpet = grown(CARPET, 6)
    square = box_dimension(carpet, spacing=(0.2, 0.2), width=0.4, rng=rng)
    oblong = box_dimension(carpet[::2], spacing=(0.4, 0.2), rng=rng)
    assert oblong.smallest == 1.6
    assert oblong.value == pytest.approx(square.value, abs=0.05)


def test_mass_about_the_seed(rng):
    y, x = np.mgrid[:700, :900].astype(float)
    spacing, seed = (0.5, 0.4), np.array([350.0, 450.0])
    away = np.hypot((y - 350) * 0.5, (x - 450) * 0.4)
    disc = mass_radius_dimension(away < 170, spacing=spacing, seed=seed, width=2.0)
    assert disc.value == pytest.approx(2, abs=0.02)  # pixels on the circle
    half = mass_radius_dimension((away < 170) & (y <= 350), spacing=spacing, seed=seed, width=2.0)
    assert half.value == pytest.approx(2, abs=0.03)  # a wall does not change it
    bars = (np.abs(y - 350) * 0.5 < 1) & (away < 170)
    assert mass_radius_dimension(bars, spacing=spacing, seed=seed, width=2.0).value == pytest.approx(1, abs=0.02)
    vicsek = mass_radius_dimension(grown(VICSEK, 6), spacing=(1, 1), seed=np.full(2, 364.0), width=1.0)
    assert vicsek.value == pytest.approx(math.log(5) / math.log(3), abs=0.07)


def test_no_number_without_a_decade_of_sizes(rng):
    found = box_dimension(grown(GASKET, 8), spacing=(1, 1), rng=rng)  # 4 px to 256 / 8 px
    assert math.isnan(found.value)
    assert found.reason == "less than a decade of sizes"
    assert found.decades == pytest.approx(math.log10(8))
    # Thick branches use up the range.
    assert math.isnan(box_dimension(grown(GASKET, 9), spacing=(1, 1), width=4.0, rng=rng).value)
    assert math.isnan(mass_radius_dimension(grown(GASKET, 9), spacing=(1, 1), seed=np.zeros(2), width=10.0).value)
    assert box_dimension(np.zeros((9, 9), bool), spacing=(1, 1), rng=rng).decades == 0


def test_no_number_where_the_slope_changes_along_the_range(rng):
    # A square frame of solid blocks: a plane up to their size, a line of blocks beyond.
    y, x = np.mgrid[:800, :800]
    blocks = ((y % 40 < 20) & (x % 40 < 20)) & ((y < 40) | (x < 40))
    found = box_dimension(blocks, spacing=(1, 1), rng=rng)
    assert math.isnan(found.value)
    assert "not fractal at this range" in found.reason
    assert found.slope_sd > 0.1
    empty_core = mass_radius_dimension(~blocks & (np.hypot(y - 400, x - 400) > 50), spacing=(1, 1),
                                       seed=np.full(2, 400.0), width=2.0)  # fmt: skip
    assert empty_core.reason == "nothing within the smallest radius"


@pytest.mark.parametrize("width_um", [0.2, 0.4])
def test_the_width_of_a_curve_is_not_taken_for_its_dimension(width_um):
    """Koch's curve, turned, drawn with lines of 2 and 4 px: the target of 0.07 (0.08 and 0.14 without the width)."""
    spacing, shape = np.array([0.12, 0.1]), (700, 1000)
    curve = np.array([0 + 0j, 1 + 0j])
    for _ in range(6):
        start, step = curve[:-1, None], np.diff(curve)[:, None] / 3
        curve = np.append((start + step * [0, 1, 1 + np.exp(1j * math.pi / 3), 2]).ravel(), curve[-1])
    curve = 4 + 22j + 88 * curve * np.exp(0.31j)
    line = np.ones(shape, bool)
    line[tuple(np.rint(np.stack([curve.imag, curve.real]) / spacing[:, None]).astype(int))] = False
    drawn = ndimage.distance_transform_edt(line, sampling=spacing) <= width_um / 2
    found = box_dimension(drawn, spacing=spacing, width=width_um, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(math.log(4) / math.log(3), abs=0.07)
    assert found.low < math.log(4) / math.log(3) < found.high
