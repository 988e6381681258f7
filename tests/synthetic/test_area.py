import math

import numpy as np
import pytest

from seg.synthetic.area import polygon_area, rectangle, union_area


def disc(y, x, r, n=4000):
    phi = np.linspace(0, 2 * math.pi, n, endpoint=False)
    return np.column_stack([y + r * np.sin(phi), x + r * np.cos(phi)])


def lens(r, d):
    """Overlap of two equal discs at distance d."""
    return 2 * r**2 * math.acos(d / 2 / r) - d / 2 * math.sqrt(4 * r**2 - d**2)


def test_disc():
    # polygon of 4000 corners: 4e-7 too small; scan lines: below 1e-5
    assert union_area([disc(5.1, 4.3, 2.7)], (10, 9)) == pytest.approx(math.pi * 2.7**2, rel=2e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_overlap_counts_once_whatever_the_sense_of_rotation(turned):
    second = disc(5, 6, 2)[::-1] if turned else disc(5, 6, 2)
    expected = 2 * math.pi * 4 - lens(2, 2.0)
    assert union_area([disc(5, 4, 2), second], (10, 10)) == pytest.approx(expected, rel=2e-5)


def test_the_field_cuts():
    assert union_area([disc(0, 5, 2)], (10, 10)) == pytest.approx(math.pi * 2, rel=1e-4)
    assert union_area([disc(5, 0, 2)], (10, 10)) == pytest.approx(math.pi * 2, rel=1e-4)
    assert union_area([disc(-3, 5, 2)], (10, 10)) == 0
    assert union_area([], (10, 10)) == 0


def test_rectangles():
    # edges on no scan line: exact to one line of 4096
    both = [rectangle(1, 1, 3, 4), rectangle(2, 2, 5, 6)]
    assert union_area(both, (8, 8)) == pytest.approx(6 + 12 - 2, abs=8 / 4096 * 6)
    assert polygon_area(both[0]) == 6
