"""Caps: closed forms against themselves and against known bodies."""

import math

import numpy as np
import pytest

from seg.metrics.cap import adhesion_work, cap_angle, cap_volume


def test_known_bodies():
    # Hemisphere, ball, and a cap half as high as its base is wide: V = pi h (3 a^2 + h^2) / 6 with tan(angle/2) = h/a.
    assert cap_angle(2 / 3 * math.pi * 8, 2.0) == pytest.approx(90, abs=1e-9)
    assert cap_angle(4 / 3 * math.pi * 8, 2.0) == pytest.approx(180, abs=1e-3)
    assert cap_angle(math.pi * 0.5 * (3 + 0.25) / 6, 1.0) == pytest.approx(2 * math.degrees(math.atan(0.5)))
    assert cap_angle(0.0, 1.0) == 0


def test_inverse_over_all_angles_and_scales():
    angles = np.linspace(0.5, 179, 358)
    for radius in (0.01, 1.0, 300.0):
        np.testing.assert_allclose(cap_angle(cap_volume(angles, radius), radius), angles, atol=1e-6)


def test_thin_cap_error_propagation():
    volume = cap_volume(5.0, 1.0)
    # d angle / angle = dV / V - 1.5 dA / A, and A goes with the square of the radius.
    assert cap_angle(1.01 * volume, 1.0) / 5.0 == pytest.approx(1.01, abs=2e-4)
    assert cap_angle(volume, 1.01) / 5.0 == pytest.approx(1 - 0.03, abs=1e-3)


def test_digitised_caps_meet_the_target():
    # 12 px of projected radius, 75 degrees and more: within a degree (half-voxel sampling of volume and area).
    for angle in (75.0, 90.0, 120.0):
        z, y, x = np.mgrid[:50, :60, :60] + 0.5
        radius = 24.0
        centre = -radius * math.cos(math.radians(angle))
        ball = (z - centre) ** 2 + (y - 30.2) ** 2 + (x - 29.7) ** 2 < radius**2
        projected = math.sqrt(ball.any(axis=0).sum() / math.pi)
        assert cap_angle(ball.sum(), projected) == pytest.approx(angle, abs=1.0)


def test_impossible_caps_are_nan():
    assert np.isnan(cap_angle([4.5 * math.pi, -1.0, 1.0, math.nan], [1.0, 1.0, 0.0, 1.0])).all()


def test_adhesion_work():
    assert adhesion_work(0, 0.5) == 1.0
    assert adhesion_work(90, 0.5) == pytest.approx(0.5)
    assert adhesion_work(180, 0.5) == pytest.approx(0, abs=1e-15)
