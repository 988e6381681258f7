import math

import numpy as np
import pytest

from seg.errors import UsageError
from seg.synthetic import make_experiment
from seg.synthetic.sei import Particle, Whisker

PIXEL = 0.00042 * 0.00040


def make(**options):
    return make_experiment("sei", 2, **{"n_whiskers": 0, "burnt_in": False, **options})


def test_shell_area_closed_form():
    """Integral of ((r + t)^2 - r^2) / 2: pi (2 r t0 + t0^2 + a^2 / 2) for one wave of amplitude a."""
    particle = Particle(0, 0, 10.0, 3.0, ((5, 0.6, 0.1),))
    phi = (np.arange(20_000) + 0.5) / 20_000 * 2 * math.pi
    t = particle.thickness(phi)
    numeric = np.mean((2 * 10 * t + t**2) / 2) * 2 * math.pi
    assert numeric == pytest.approx(math.pi * (2 * 10 * 3 + 9 + 0.36 / 2), rel=1e-9)


def test_uniform_shell():
    made = make(shell="uniform")
    assert made.truth_value("sei_thickness_sd", frame=0, object_id=1) == pytest.approx(0, abs=1e-9)
    labels = made.labels.data
    areas = 0.0
    for row in (m for m in made.truth if m.metric == "sei_thickness_mean" and m.object_id is not None):
        ratio = made.truth_value("core_to_sei_ratio", frame=0, object_id=row.object_id)
        radius = ratio * row.value / 2
        areas += math.pi * ((radius + row.value) ** 2 - radius**2)
    assert (labels == 8).sum() * PIXEL == pytest.approx(areas, rel=0.006)


def test_spread_is_what_was_asked_for():
    for shell in ("wavy", "random"):
        made = make(shell=shell, relative_sd=0.12)
        # arc-length weights lift the spread a little above that of the angle
        assert made.truth_value("sei_thickness_cv", frame=0, object_id=1) == pytest.approx(0.12, rel=0.06)


def test_gap_lowers_the_coverage():
    made = make(gap_deg=72.0)
    assert made.truth_value("sei_coverage", frame=0) == pytest.approx(0.8)


def test_a_straight_whisker_has_the_boundary_of_a_stadium():
    whisker = Whisker(np.array([[5.0, 2.0], [5.0, 12.0]]), 1.0, 0.5)
    assert whisker.boundary_length() == pytest.approx(20 + 2 * math.pi * 1.5)
    y, x = np.mgrid[0:14:0.02, 0:14:0.02]
    core, outer, _ = whisker.distances(y, x)
    shell = ((outer > 0) & (core <= 0)).sum() * 0.02**2
    assert shell == pytest.approx(10 * 2 * 0.5 + math.pi * (1.5**2 - 1), rel=2e-3)


def test_crystalline_share():
    assert make(interior="amorphous").truth_value("crystalline_fraction", frame=0) == 0
    mosaic = make(interior="mosaic", crystalline_share=0.4, shell="uniform").truth_value(
        "crystalline_fraction", frame=0
    )
    assert mosaic == pytest.approx(0.4, abs=0.12)  # some hundred grains


def test_beam_damage_washes_out_frame_by_frame():
    made = make(n_frames=5, damage_frames=1.0, dial=0.0)
    sharp = [np.abs(np.diff(made.images.frame(f).astype(float), axis=1)).mean() for f in (0, 4)]
    assert sharp[1] < sharp[0]
    assert made.images.axes == "tyx"


def test_impossible_requests_are_refused():
    with pytest.raises(UsageError, match="shell"):
        make(shell="cubic")
    with pytest.raises(UsageError, match="interior"):
        make(interior="liquid")
    with pytest.raises(UsageError, match="do not fit"):
        make(n_particles=40)
