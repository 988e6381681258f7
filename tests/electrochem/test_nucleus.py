"""Nucleus, cap and coverage formulas against reference values, derivatives and simulation."""

import math

import numpy as np
import pytest

from seg.electrochem import nucleus


@pytest.mark.parametrize(
    ("angle_deg", "expected"),
    [
        (30, (0.01286, 0.13397, 0.25)),
        (60, (0.15625, 0.5, 0.75)),
        (90, (0.5, 1.0, 1.0)),
        (120, (0.84375, 1.5, 0.75)),
    ],
)
def test_cap_factors(angle_deg, expected):
    factors = nucleus.cap_factors(angle_deg)
    assert [factors.volume, factors.free, factors.base] == pytest.approx(expected, abs=6e-6)
    radius = 3.0
    height, width = radius * (1 - math.cos(math.radians(angle_deg))), 2 * radius * math.sin(math.radians(angle_deg))
    assert nucleus.cap_angle_deg(height, width) == pytest.approx(angle_deg)


def test_critical_radius_reference_values():
    found = nucleus.critical_radius_nm([-0.010, -0.100], surface_energy_J_per_m2=0.5)
    assert found == pytest.approx([13.5, 1.35], rel=3e-3)
    assert nucleus.critical_radius_nm(0.01, surface_energy_J_per_m2=0.5) == math.inf
    # A bias of 5 V taken for the overpotential: smaller than an atom, the reason not to insert it.
    assert nucleus.critical_radius_nm(-5.0, surface_energy_J_per_m2=0.5) < 0.03


@pytest.mark.parametrize("angle_deg", [30, 60, 90, 120, 150])
def test_with_youngs_law_the_radius_does_not_depend_on_the_angle(angle_deg):
    radius = nucleus.critical_radius_nm(-0.02, surface_energy_J_per_m2=0.5, contact_angle_deg=angle_deg)
    assert radius == pytest.approx(nucleus.critical_radius_nm(-0.02, surface_energy_J_per_m2=0.5))


@pytest.mark.parametrize(("angle_deg", "low", "high"), [(90, 1.25, 1.5), (60, 2.2, 2.8), (30, 7.6, 10.0)])
def test_without_the_replaced_interface_the_radius_is_too_large(angle_deg, low, high):
    """The printed equation taken literally, for contact energies of half and all of the surface energy."""
    ratios = nucleus.critical_radius_nm(
        -0.02, surface_energy_J_per_m2=0.5, contact_angle_deg=angle_deg, base_energy_J_per_m2=[0.25, 0.5]
    ) / nucleus.critical_radius_nm(-0.02, surface_energy_J_per_m2=0.5)
    assert ratios == pytest.approx([low, high], rel=0.03)


def test_the_barrier_is_the_top_of_the_free_energy():
    case = {"overpotential_V": -0.02, "surface_energy_J_per_m2": 0.5, "contact_angle_deg": 60.0, "stress_Pa": 2e7}
    radius = nucleus.critical_radius_nm(**case)
    around = nucleus.cap_free_energy_J(radius * np.array([0.999, 1.0, 1.001]), **case)
    assert np.argmax(around) == 1
    assert around[1] == pytest.approx(nucleus.nucleation_barrier_J(**case))
    assert nucleus.nucleation_barrier_J(0.1, surface_energy_J_per_m2=0.5) == math.inf


def test_driving_energy_and_supersaturation_are_positive_on_plating():
    assert nucleus.driving_energy_J_per_m3(-0.1) == pytest.approx(9648.5 / 12.996e-6, rel=1e-4)
    assert nucleus.supersaturation_J_per_mol(-0.1) == pytest.approx(9648.5, abs=0.1)


def test_area_factors_of_droplet_and_facet():
    assert nucleus.cap_area_factor(60.0) == pytest.approx(4.1675, abs=1e-4)
    assert pytest.approx(4.7622, abs=1e-4) == nucleus.HALF_CUBE_AREA_FACTOR
    assert nucleus.cap_area_factor(60.0) / nucleus.HALF_CUBE_AREA_FACTOR == pytest.approx(0.875, abs=5e-4)


def test_melting_of_small_particles():
    found = nucleus.melting_temperature_K([100, 10, 5], surface_energy_J_per_m2=0.4)
    assert found == pytest.approx([438, 321, 227], abs=0.6)


def test_adhesion_and_merging():
    assert nucleus.adhesion_work_J_per_m2(0.5, [0, 90, 180]) == pytest.approx([1.0, 0.5, 0.0])
    assert nucleus.merged_radius([3, 4, 5]) == pytest.approx(6)  # 27 + 64 + 125 = 216


def test_coalescing_count_solves_its_equation():
    time_s = np.linspace(0, 40, 4001)
    count = nucleus.coalescing_count(time_s, 5.0, 0.01)
    rate = np.gradient(count, time_s)
    assert rate[1:-1] == pytest.approx((5.0 - 0.005 * count**2)[1:-1], abs=1e-4)


def test_coverage_limits_and_simulation(rng):
    common = {"radial_velocity_um_per_s": 0.4, "site_density_per_um2": 0.02}
    time_s = np.array([1.0, 4.0, 9.0])
    at_once = nucleus.covered_fraction_by_growth(time_s, **common)
    assert at_once == pytest.approx(1 - np.exp(-math.pi * 0.16 * 0.02 * time_s**2))
    slow = nucleus.covered_fraction_by_growth(time_s, rate_constant_per_s=1e-5, **common)
    assert slow == pytest.approx(1 - np.exp(-math.pi * 0.16 * 0.02e-5 * time_s**3 / 3), rel=1e-4)
    # Random sites on a torus with exponential delays: share of test points inside of any disc at 4 s.
    size, rate = 200.0, 0.5
    sites = rng.uniform(0, size, (rng.poisson(0.02 * size**2), 2))
    radius = 0.4 * np.maximum(0, 4.0 - rng.exponential(1 / rate, len(sites)))
    points = rng.uniform(0, size, (4000, 2))
    away = np.abs(points[:, None] - sites[None])
    away = np.minimum(away, size - away)
    covered = ((away**2).sum(axis=2) < radius**2).any(axis=1).mean()
    expected = nucleus.covered_fraction_by_growth(4.0, rate_constant_per_s=rate, **common)
    assert covered == pytest.approx(expected, abs=0.02)  # three standard errors of 4000 points, and of the sites


def test_reduced_transients_peak_at_one():
    for law in ("instantaneous", "progressive"):
        reduced = nucleus.reduced_transient(np.linspace(0.05, 4, 4000), law)
        assert reduced.max() == pytest.approx(1, abs=1e-3)
        assert np.linspace(0.05, 4, 4000)[np.argmax(reduced)] == pytest.approx(1, abs=5e-3)
