import math

import numpy as np
import pytest
from scipy.spatial import KDTree

from seg.errors import UsageError
from seg.synthetic import make_experiment
from seg.synthetic.area import polygon_area
from seg.synthetic.pits import Pit, _Scene

PIXEL = 0.42 * 0.40


def make(seed=1, **options):
    return make_experiment("pits", seed, **{"shape_px": (200, 220), "n_frames": 8, **options})


def scene(seed=1, **options):
    return _Scene(seed, dict(make(seed, **options).parameters))


@pytest.mark.parametrize("facets", [0.0, 0.7])
def test_area_of_an_outline(facets):
    normals = tuple(np.arange(6) * math.pi / 3)
    pit = Pit(0, 5.0, 6.0, 2.0, 1.4, 0.4, facets, normals)
    # 720 corners: 1e-5 too small
    assert pit.area_um2 == pytest.approx(polygon_area(pit.outline()), rel=5e-5)
    if not facets:
        assert pit.area_um2 == pytest.approx(math.pi * 2.0 * 1.4)


def test_openings_agree_with_the_pixels():
    made = make(rate_major_um_s=0.030)
    for frame in (1, 3, 6):
        labels = made.labels.frame(frame)
        assert (labels == 6).sum() * PIXEL == pytest.approx(
            made.truth_value("pit_opening_area", frame=frame), rel=0.015, abs=1.0
        )
        assert (labels == 3).sum() * PIXEL == pytest.approx(made.truth_value("covered_area", frame=frame), rel=0.03)


def test_semi_axes_grow_at_their_rates():
    s = scene(rate_major_um_s=0.030)
    first, second = s.pits(1), s.pits(2)
    for a, b, spread in zip(first, second, s.spread, strict=False):
        assert b.major_um - a.major_um == pytest.approx(0.030 * 60 * spread)
        assert b.minor_um - a.minor_um == pytest.approx(0.030 * 60 / 1.35 * spread)
    assert s.pits(0) == []


def test_nuclei_prefer_the_rims():
    """Density within the band over that elsewhere on the surface, over six fields: three standard errors."""
    near = away = area_near = area_away = 0.0
    for seed in range(6):
        s = scene(seed, n_cycles=1, n_frames=6)
        pits = s.pits(5)
        rng = np.random.default_rng(seed)
        trial = rng.uniform((0, 0), s.field, (2_500, 2))
        for points, is_trial in ((s.nuclei[0][:, :2], False), (trial, True)):
            inside_field = ((points >= 0) & (points < s.field)).all(axis=1)
            points = points[inside_field]
            gap = np.full(len(points), np.inf)
            for pit in pits:
                distance = KDTree(pit.outline(2000)).query(points)[0]
                gap = np.minimum(gap, np.where(pit.distance(*points.T) > 0, -1, distance))
            band, rest = ((gap >= 0) & (gap <= 2.0)).sum(), (gap > 2.0).sum()
            if is_trial:
                area_near, area_away = area_near + band, area_away + rest
            else:
                near, away = near + band, away + rest
    ratio = (near / area_near) / (away / area_away)
    assert ratio == pytest.approx(5.0, rel=3 * math.sqrt(1 / near + 1 / away + 1 / area_near))


def test_sites_are_remembered():
    lineage = make(n_cycles=4, n_frames=8, memory=0.7).lineage
    later = lineage[lineage["cycle"] > 1]
    share = later["repeats"].notna().mean()
    # a remembered site that would touch another is dropped: a few percent
    assert share == pytest.approx(0.7, abs=3 * math.sqrt(0.21 / len(later)) + 0.05)
    first = lineage[lineage["cycle"] == 1].set_index("object_id")
    again = lineage[(lineage["cycle"] == 2) & lineage["repeats"].notna()]
    shift = again["x_um"].to_numpy() - first.loc[again["repeats"].astype(int), "x_um"].to_numpy()
    assert np.abs(shift).max() < 5 * 0.6


def test_impossible_requests_are_refused():
    with pytest.raises(UsageError, match="at least 8 frames"):
        make(n_cycles=4, n_frames=6)
    with pytest.raises(UsageError, match="run into each other"):
        make(density_per_cm2=3e6)
