import math

import numpy as np
import pytest
from scipy import ndimage

from seg.errors import UsageError
from seg.synthetic import make_experiment
from seg.synthetic.area import polygon_area
from seg.synthetic.dead import Column

PIXEL = 0.42 * 0.40


def make(**options):
    return make_experiment("dead", 1, **{"shape_px": (220, 280), "n_frames": 12, **options})


def test_outline_of_a_column_has_the_integral_of_its_width():
    column = Column(10.0, 30.0, 3.0, 20.0, 0.4, 0.01, 2.0)
    s = (np.arange(200_000) + 0.5) / 200_000 * 30
    area = 2 * column.sides(s, 30.0)[1].mean() * 30
    assert polygon_area(column.outline(50.0, 30.0)) == pytest.approx(area, rel=2e-4)


def test_areas_agree_with_the_pixels():
    made = make()
    for frame in range(12):
        labels = made.labels.frame(frame)
        live, dead = (labels == 3).sum() * PIXEL, (labels == 5).sum() * PIXEL
        # feet on a level line, tops on a level front: up to half a pixel of some 50 px width
        assert live + dead == pytest.approx(made.truth_value("covered_area", frame=frame), rel=0.02)
        assert dead / (live + dead) == pytest.approx(made.truth_value("dead_fraction", frame=frame), abs=0.01)


def test_the_front_comes_down_and_columns_come_off():
    made = make(n_cycles=1, detached_share=0.5, n_columns=8)
    fraction = [made.truth_value("dead_fraction", frame=f) for f in range(12)]
    assert fraction[:6] == [0] * 6
    assert all(b > a for a, b in zip(fraction[5:], fraction[6:], strict=False))
    height = [made.truth_value("darkening_front_height", frame=f) for f in range(6, 12)]
    speed = np.diff(height) / 30.0
    assert speed == pytest.approx([made.truth_value("front_velocity")] * 5, rel=1e-9)
    assert made.truth_value("detachment_count", frame=11) == made.truth_value("detachment_count") == 4
    labels = made.labels.frame(11)
    floating = ndimage.label(np.isin(labels, (3, 5)))[0]
    standing = np.unique(floating[:-1][(labels[1:] == 2) & (floating[:-1] > 0)])
    assert floating.max() - len(standing) == 4  # each of them has a gap below


def test_interphase_thickens_by_cycle():
    made = make(n_cycles=3)
    thickness = [made.truth_value("compact_interphase_thickness", frame=f) for f in (0, 4, 8)]
    assert thickness == [0, 5, 10]
    labels = made.labels.frame(8)
    column = ((labels == 8) | (labels == 1))[:, 2]
    band = np.isin(labels, 8).any(axis=1).sum() * 0.42
    assert band == pytest.approx(10, abs=0.42)
    assert column.any()
    surface = np.flatnonzero((labels == 2).any(axis=1))[0]
    rows = slice(surface - math.floor(10 / 0.42), surface)
    pores = (labels[rows] == 1).mean()
    assert pores == pytest.approx(made.truth_value("porosity", frame=8), abs=0.03)
    assert made.truth_value("porosity", frame=8) == pytest.approx(0.25, abs=0.03)


def test_too_few_frames_are_refused():
    with pytest.raises(UsageError, match="frames"):
        make(n_frames=3)
