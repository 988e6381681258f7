"""Formulas against reference values worked out by hand or printed in the papers (SI values converted)."""

import math

import numpy as np
import pytest

from seg.electrochem import theory
from seg.electrochem.theory import LITHIUM, Electrolyte

# 1 mol/L, ambipolar 2.56e-10 m2/s, t+ = 0.53: the electrolyte of the reference values.
ELECTROLYTE = Electrolyte(1.0, 2.56e-6, 0.53)


def test_lithium_constants():
    assert LITHIUM.molar_volume_cm3 == pytest.approx(12.996, abs=1e-3)
    assert LITHIUM.capacity_mAh_per_g == pytest.approx(3862, abs=1)  # 3.86e3 printed


def test_faraday_thickness_volume_and_charge():
    assert theory.faraday_thickness_um(1.0) == pytest.approx(4.849, abs=1e-3)
    assert theory.faraday_thickness_um(3.0) == pytest.approx(14.6, abs=0.1)  # printed with one decimal
    assert theory.faraday_volume_um3(1e-9 / 3.6) == pytest.approx(0.1347, rel=1e-3)  # 1 nC
    assert theory.charge_of_volume_mAh(theory.faraday_volume_um3([0.1, 2.0])) == pytest.approx([0.1, 2.0])


def test_velocity_as_current_density_and_the_droplet_of_the_tem_letter():
    assert theory.current_density_of_velocity_mA_per_cm2(1e-3) == pytest.approx(0.742, abs=1e-3)
    # Half disc of 100 nm growing 5000 nm2/s: v = 5000 / (pi R) = 15.9 nm/s.
    velocity_um_per_s = 5000e-6 / (math.pi * 0.1)
    current_density = theory.current_density_of_velocity_mA_per_cm2(velocity_um_per_s)
    assert current_density == pytest.approx(11.8, abs=0.05)
    hemisphere_cm2 = 2 * math.pi * (0.1e-4) ** 2
    assert current_density * hemisphere_cm2 * 1e9 == pytest.approx(7.4, abs=0.05)  # pA


def test_efficiencies_and_porosity():
    assert theory.coulombic_efficiency(0.97, 1.0) == pytest.approx(0.97)
    assert theory.reservoir_coulombic_efficiency(10, 1.0, 5.0, 4.5) == pytest.approx(14.5 / 15)
    assert theory.cycles_to_retention(0.99) == pytest.approx(math.log(0.8) / math.log(0.99))
    assert theory.image_porosity(14.6, 20.0) == pytest.approx(0.27)
    assert theory.local_current_density_mA_per_cm2(1.0, 1.0, 0.25) == pytest.approx(4.0)


def test_impedance_and_residual_charge():
    assert theory.apparent_impedance_ohm_cm2(0.05, 0.5) == pytest.approx(100)
    time_s = np.linspace(0, 100, 20001)
    # The integral of exp(-t/5 s) is 5 s; the trapezoid error is dt^2/12 of it.
    assert theory.passed_charge_mAh(time_s, np.exp(-time_s / 5)) == pytest.approx(5 / 3600, rel=1e-5)
    assert theory.curve_similarity([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert math.isnan(theory.curve_similarity([0, 0], [1, 2]))


def test_butler_volmer_is_zero_at_rest_and_linear_near_it():
    assert theory.butler_volmer_mA_per_cm2(0.0, exchange_mA_per_cm2=2.0) == 0
    near = theory.butler_volmer_mA_per_cm2(-1e-5, exchange_mA_per_cm2=2.0)
    assert near == pytest.approx(-2.0 * 1e-5 / 0.025693, rel=1e-4)  # j0 F eta / RT at 25 C
    depleted = theory.butler_volmer_mA_per_cm2(-0.05, exchange_mA_per_cm2=2.0, surface_to_bulk=0.0)
    assert depleted > 0  # no salt left: nothing plates


def test_butler_volmer_from_the_rate_constant_agrees_at_its_equilibrium():
    equilibrium_V = 8.314462618 * 298.15 / 96485.33212 * math.log(1.0 / 4.0)
    rates = {"rate_constant_cm_per_s": 1e-6, "metal_mol_per_L": 4.0, "salt_mol_per_L": 1.0}
    assert theory.butler_volmer_from_rate_mA_per_cm2(equilibrium_V, **rates) == pytest.approx(0, abs=1e-12)
    exchange = 96485.33212 * 1e-6 * math.sqrt(4.0)  # F k0 c_M^(1/2) c_ion^(1/2); mol/L x cm/s = 1e-3 A/cm2/F
    expected = theory.butler_volmer_mA_per_cm2(-0.03, exchange_mA_per_cm2=exchange)
    assert theory.butler_volmer_from_rate_mA_per_cm2(equilibrium_V - 0.03, **rates) == pytest.approx(expected)


def test_marcus_transfer_coefficient():
    assert theory.marcus_transfer_coefficient([0.0, 0.1, -0.1], 0.5) == pytest.approx([0.5, 0.6, 0.4])


def test_sand_time_reference_values():
    assert theory.sand_time_s(1.0, ELECTROLYTE) == pytest.approx(84734, rel=1e-4)
    assert theory.sand_time_s(-10.0, ELECTROLYTE) == pytest.approx(847.3, rel=1e-4)
    assert theory.sand_time_s(5.0, Electrolyte(1.0, 2.5e-6, 0.38)) == pytest.approx(1902, rel=1e-3)
    assert theory.sand_time_s(0.0, ELECTROLYTE) == math.inf
    assert theory.sand_capacity_mAh_per_cm2(10.0, ELECTROLYTE) == pytest.approx(847.3 * 10 / 3600, rel=1e-4)


def test_sand_time_is_where_diffusion_empties_the_surface():
    """1-D finite volumes: the surface concentration reaches zero at the predicted time (grid error under 1 %)."""
    current_A, charge, diffusivity, c0 = 10e-3, 96485.33212, ELECTROLYTE.diffusivity_cm2_per_s, 1e-3
    tau = float(theory.sand_time_s(10.0, ELECTROLYTE))
    dx = math.sqrt(4 * diffusivity * tau) / 200
    dt = 0.4 * dx**2 / diffusivity
    c, time = np.full(1000, c0), 0.0
    loss = current_A * (1 - ELECTROLYTE.transference) / charge
    while c[0] - loss * dx / (2 * diffusivity) > 0:  # value at the face, half a cell before the first centre
        flux = np.concatenate([[-loss], -diffusivity * np.diff(c) / dx, [0.0]])
        c -= dt / dx * np.diff(flux)
        time += dt
    assert time == pytest.approx(tau, rel=0.01)


def test_chazalviel_current_and_the_validity_of_sands_time():
    assert theory.chazalviel_current_density_mA_per_cm2(ELECTROLYTE, 25.0) == pytest.approx(420.4, abs=0.1)
    assert theory.chazalviel_current_density_mA_per_cm2(ELECTROLYTE, 1000.0) == pytest.approx(10.5, abs=0.02)
    assert not theory.sand_time_valid(10.0, ELECTROLYTE, 25.0)
    assert theory.sand_time_valid([10.0, 11.0], ELECTROLYTE, 1000.0).tolist() == [False, True]


def test_electrolyte_refuses_nonsense():
    with pytest.raises(ValueError, match="transference"):
        Electrolyte(1.0, 2.5e-6, 1.0)


def test_mass_transfer_of_a_nucleus():
    radius_cm, diffusivity = 1e-5, 2e-6
    for shape, expected in (("sphere", diffusivity / radius_cm), ("disc", 4 * diffusivity / (math.pi * radius_cm))):
        found = theory.mass_transfer_coefficient_cm_per_s(0.1, diffusivity, shape=shape)
        assert found == pytest.approx(expected)
    needle = theory.mass_transfer_coefficient_cm_per_s(0.1, diffusivity, shape="needle", time_s=1.0)
    assert needle == pytest.approx(2 * diffusivity / (radius_cm * math.log(8e4)))
    early = theory.mass_transfer_coefficient_cm_per_s(0.1, diffusivity, shape="needle", time_s=1e-6)
    assert math.isnan(early)
    with pytest.raises(ValueError, match="time_s"):
        theory.mass_transfer_coefficient_cm_per_s(0.1, diffusivity, shape="needle")


def test_diffusivity_activation_energy_and_onset():
    assert theory.diffusivity_um2_per_s([1.0, 2.0], [0.8, 1.6], dimensions=2) == pytest.approx(0.2)
    temperature_K = np.array([290.0, 310.0, 340.0])
    energy, prefactor = theory.activation_energy_kJ_per_mol(
        temperature_K, 7.0 * np.exp(-30e3 / (8.314462618 * temperature_K))
    )
    assert (energy, prefactor) == (pytest.approx(30.0), pytest.approx(7.0))
    signal = [0, 1, 0, 1, 0, 9, 0, 5, 6, 7, 8]  # the single spike is not the onset
    assert theory.onset_index(signal, n_background=5) == 7
    assert theory.onset_index(signal[:7], n_background=5) is None
    with pytest.raises(ValueError, match="background"):
        theory.onset_index(signal, n_background=1)
