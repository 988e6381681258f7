"""Theory of deposition as plain formulas: charge, kinetics, transport.

Every argument and result carries its unit in its name; all take numbers or arrays and broadcast. Overpotentials are
negative on plating and so are current densities; formulas whose result does not depend on the sign take either.

Notes
-----
The formulas are those of the papers this software reproduces, with their misprints repaired; where a repair changes
the result, the docstring says so. Interface energies of lithium are poorly known: critical radii and barriers are
orders of magnitude, not measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

FARADAY_C_PER_MOL = 96485.33212
GAS_CONSTANT_J_PER_MOL_K = 8.314462618
ROOM_TEMPERATURE_K = 298.15

Number = np.ndarray | np.float64


@dataclass(frozen=True)
class Metal:
    """A metal that is plated.

    Parameters
    ----------
    molar_mass_g_per_mol, density_g_per_cm3 : float
    charge_number : int
        Electrons per atom.
    melting_K : float
    fusion_enthalpy_kJ_per_mol : float
    """

    name: str
    molar_mass_g_per_mol: float
    density_g_per_cm3: float
    charge_number: int = 1
    melting_K: float = math.nan
    fusion_enthalpy_kJ_per_mol: float = math.nan

    @property
    def molar_volume_cm3(self) -> float:
        """Volume of a mole."""
        return self.molar_mass_g_per_mol / self.density_g_per_cm3

    @property
    def capacity_mAh_per_g(self) -> float:
        """Theoretical specific capacity."""
        return self.charge_number * FARADAY_C_PER_MOL / (3.6 * self.molar_mass_g_per_mol)

    @property
    def charge_C_per_m3(self) -> float:
        """Charge that deposits a cubic metre of dense metal."""
        return self.charge_number * FARADAY_C_PER_MOL / (self.molar_volume_cm3 * 1e-6)


LITHIUM = Metal("lithium", 6.94, 0.534, 1, 453.7, 3.0)


# Charge and volume ----------------------------------------------------------------------------------------------------


def faraday_volume_um3(charge_mAh: ArrayLike, metal: Metal = LITHIUM) -> Number:
    """Volume of dense metal that a charge deposits: V = Q V_m / (z F)."""
    return np.asarray(charge_mAh, float) * 3.6 / metal.charge_C_per_m3 * 1e18


def faraday_thickness_um(areal_capacity_mAh_per_cm2: ArrayLike, metal: Metal = LITHIUM) -> Number:
    """Thickness of the dense film that a charge per area deposits; 4.849 µm per mAh/cm2 of lithium."""
    return np.asarray(areal_capacity_mAh_per_cm2, float) * 3.6e4 / metal.charge_C_per_m3 * 1e6


def charge_of_volume_mAh(volume_um3: ArrayLike, metal: Metal = LITHIUM) -> Number:
    """Charge in a volume of dense metal; of a volume rate per hour, the current in mA (corrosion)."""
    return np.asarray(volume_um3, float) * 1e-18 * metal.charge_C_per_m3 / 3.6


def current_density_of_velocity_mA_per_cm2(velocity_um_per_s: ArrayLike, metal: Metal = LITHIUM) -> Number:
    """Convert the velocity of a metal surface to a current density, z F v / V_m; 1 nm/s of lithium is 0.742 mA/cm2."""
    return np.asarray(velocity_um_per_s, float) * 1e-6 * metal.charge_C_per_m3 * 0.1


def image_porosity(dense_thickness: ArrayLike, imaged_thickness: ArrayLike) -> Number:
    """Porosity of a deposit from its imaged thickness and the one that the charge accounts for: 1 - h_dense/h_image."""
    return 1 - np.asarray(dense_thickness, float) / np.asarray(imaged_thickness, float)


def local_current_density_mA_per_cm2(
    current_density_mA_per_cm2: ArrayLike, geometric_area: ArrayLike, active_area: ArrayLike
) -> Number:
    """Refer a current density to the area that really takes part: j A_geometric / A_active."""
    return np.asarray(current_density_mA_per_cm2, float) * np.asarray(geometric_area) / np.asarray(active_area)


def coulombic_efficiency(stripped_mAh: ArrayLike, plated_mAh: ArrayLike) -> Number:
    """Charge stripped over charge plated."""
    return np.asarray(stripped_mAh, float) / np.asarray(plated_mAh, float)


def reservoir_coulombic_efficiency(
    n_cycles: int, cycled_mAh: ArrayLike, reservoir_mAh: ArrayLike, stripped_mAh: ArrayLike
) -> Number:
    """Mean efficiency per cycle of the protocol that cycles part of a plated reservoir and strips all at the end.

    Parameters
    ----------
    n_cycles : int
    cycled_mAh, reservoir_mAh, stripped_mAh : array_like
        Charge cycled each time, charge plated at first, charge stripped at last.

    Notes
    -----
    (n Q_c + Q_s) / (n Q_c + Q_T).
    """
    cycled = n_cycles * np.asarray(cycled_mAh, float)
    return (cycled + stripped_mAh) / (cycled + reservoir_mAh)


def cycles_to_retention(coulombic_efficiency: ArrayLike, retention: float = 0.8) -> Number:
    """Cycles until the share `retention` of an inventory without excess is left: ln(retention) / ln(CE)."""
    return math.log(retention) / np.log(np.asarray(coulombic_efficiency, float))


def apparent_impedance_ohm_cm2(overpotential_V: ArrayLike, current_density_mA_per_cm2: ArrayLike) -> Number:
    """Overpotential over current density."""
    return np.asarray(overpotential_V, float) / (np.asarray(current_density_mA_per_cm2, float) * 1e-3)


def passed_charge_mAh(time_s: ArrayLike, current_mA: ArrayLike) -> float:
    """Charge under a current curve by the trapezoid rule (residual charge after the cell is opened)."""
    return float(np.trapezoid(np.asarray(current_mA, float), np.asarray(time_s, float)) / 3600)


def curve_similarity(first: ArrayLike, second: ArrayLike) -> float:
    """Cosine of the angle between two curves sampled at the same points; 1 for the same shape."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else math.nan


# Kinetics and transport -----------------------------------------------------------------------------------------------


def butler_volmer_mA_per_cm2(
    overpotential_V: ArrayLike,
    *,
    exchange_mA_per_cm2: ArrayLike,
    transfer_coefficient: ArrayLike = 0.5,
    surface_to_bulk: ArrayLike = 1.0,
    temperature_K: float = ROOM_TEMPERATURE_K,
) -> Number:
    """Butler-Volmer current density of the metal electrode, negative on plating.

    Notes
    -----
    j0 {exp[(1 - a) F eta / RT] - (c_surface / c_bulk) exp[-a F eta / RT]}: zero at zero overpotential, which the
    printed formula with concentrations is not (see `butler_volmer_from_rate_mA_per_cm2`).
    """
    reduced = np.asarray(overpotential_V, float) * FARADAY_C_PER_MOL / (GAS_CONSTANT_J_PER_MOL_K * temperature_K)
    alpha = np.asarray(transfer_coefficient, float)
    cathodic = np.asarray(surface_to_bulk, float) * np.exp(-alpha * reduced)
    return np.asarray(exchange_mA_per_cm2, float) * (np.exp((1 - alpha) * reduced) - cathodic)


def butler_volmer_from_rate_mA_per_cm2(
    potential_V: ArrayLike,
    *,
    rate_constant_cm_per_s: ArrayLike,
    metal_mol_per_L: ArrayLike,
    salt_mol_per_L: ArrayLike,
    transfer_coefficient: ArrayLike = 0.5,
    temperature_K: float = ROOM_TEMPERATURE_K,
) -> Number:
    """Butler-Volmer current density as F k0 {c_M exp[(1-a) F E/RT] - c_ion exp[-a F E/RT]}, E from the formal value."""
    reduced = np.asarray(potential_V, float) * FARADAY_C_PER_MOL / (GAS_CONSTANT_J_PER_MOL_K * temperature_K)
    alpha = np.asarray(transfer_coefficient, float)
    anodic = np.asarray(metal_mol_per_L, float) * np.exp((1 - alpha) * reduced)
    cathodic = np.asarray(salt_mol_per_L, float) * np.exp(-alpha * reduced)
    # mol/L x cm/s = 1e-3 mol/cm2/s, and A = 1e3 mA: the factors cancel.
    return FARADAY_C_PER_MOL * np.asarray(rate_constant_cm_per_s, float) * (anodic - cathodic)


def marcus_transfer_coefficient(potential_V: ArrayLike, reorganization_energy_eV: ArrayLike) -> Number:
    """Transfer coefficient at a potential against the formal one: 1/2 + (E - E0) / (2 lambda)."""
    return 0.5 + np.asarray(potential_V, float) / (2 * np.asarray(reorganization_energy_eV, float))


@dataclass(frozen=True)
class Electrolyte:
    """A binary electrolyte.

    Parameters
    ----------
    concentration_mol_per_L : float
    diffusivity_cm2_per_s : float
        Ambipolar diffusivity of the salt, not that of the cation.
    transference : float
        Of the cation.
    charge_number : int
    """

    concentration_mol_per_L: float
    diffusivity_cm2_per_s: float
    transference: float
    charge_number: int = 1

    def __post_init__(self) -> None:
        if not (self.concentration_mol_per_L > 0 and self.diffusivity_cm2_per_s > 0 and 0 <= self.transference < 1):
            raise ValueError(
                f"{self} is no binary electrolyte: concentration and diffusivity must be positive and the transference "
                "number of the cation in [0, 1)."
            )


def sand_time_s(current_density_mA_per_cm2: ArrayLike, electrolyte: Electrolyte) -> Number:
    """Time until the salt at the electrode is used up: pi D [z F c / (2 j (1 - t+))]^2; infinite at zero current.

    Notes
    -----
    For a semi-infinite electrolyte and j above the limiting current of the cell; `sand_time_valid` tells. j is the
    local current density: divide by the active area first where it differs from the geometric one.
    """
    charge_C_per_cm3 = electrolyte.charge_number * FARADAY_C_PER_MOL * electrolyte.concentration_mol_per_L * 1e-3
    current_A_per_cm2 = np.abs(np.asarray(current_density_mA_per_cm2, float)) * 1e-3
    with np.errstate(divide="ignore"):
        reach = charge_C_per_cm3 / (2 * current_A_per_cm2 * (1 - electrolyte.transference))
    return math.pi * electrolyte.diffusivity_cm2_per_s * reach**2


def sand_capacity_mAh_per_cm2(current_density_mA_per_cm2: ArrayLike, electrolyte: Electrolyte) -> Number:
    """Charge per area passed at Sand's time; falls as 1/j."""
    current = np.abs(np.asarray(current_density_mA_per_cm2, float))
    return current * sand_time_s(current, electrolyte) / 3600


def chazalviel_current_density_mA_per_cm2(electrolyte: Electrolyte, gap_um: ArrayLike) -> Number:
    """Limiting current density between electrodes at the given distance: 2 z F c D / ((1 - t+) L)."""
    charge_C_per_cm3 = electrolyte.charge_number * FARADAY_C_PER_MOL * electrolyte.concentration_mol_per_L * 1e-3
    gap_cm = np.asarray(gap_um, float) * 1e-4
    return 2e3 * charge_C_per_cm3 * electrolyte.diffusivity_cm2_per_s / ((1 - electrolyte.transference) * gap_cm)


def sand_time_valid(current_density_mA_per_cm2: ArrayLike, electrolyte: Electrolyte, gap_um: ArrayLike) -> np.ndarray:
    """Whether the cell reaches Sand's time: the current density is above the limiting one.

    Notes
    -----
    Above it the electrolyte is semi-infinite as well: tau < pi/16 L^2/D, short of L^2/(4 D).
    """
    current = np.abs(np.asarray(current_density_mA_per_cm2, float))
    return np.asarray(current > chazalviel_current_density_mA_per_cm2(electrolyte, gap_um))


def mass_transfer_coefficient_cm_per_s(
    radius_um: ArrayLike,
    diffusivity_cm2_per_s: float,
    *,
    shape: Literal["sphere", "disc", "needle"],
    time_s: float | None = None,
) -> Number:
    """Mass transfer to a nucleus as a microelectrode: sphere D/r, disc 4D/(pi r), needle 2D/(r ln(4 D t / r^2)).

    A needle needs `time_s` and is NaN before 4 D t = r^2; the printed formula has ln r, which depends on the unit.
    """
    radius_cm = np.asarray(radius_um, float) * 1e-4
    if shape == "sphere":
        return diffusivity_cm2_per_s / radius_cm
    if shape == "disc":
        return 4 * diffusivity_cm2_per_s / (math.pi * radius_cm)
    if time_s is None:
        raise ValueError("Mass transfer to a needle depends on the time since it started; give time_s.")
    reduced = 4 * diffusivity_cm2_per_s * time_s / radius_cm**2
    logarithm = np.log(np.where(reduced > 1, reduced, math.nan))
    return 2 * diffusivity_cm2_per_s / (radius_cm * logarithm)


# Signals over time ----------------------------------------------------------------------------------------------------


def diffusivity_um2_per_s(lag_s: ArrayLike, mean_square_displacement_um2: ArrayLike, dimensions: int = 2) -> float:
    """Diffusivity from mean square displacements: slope through the origin of MSD = 2 d D t."""
    lag = np.asarray(lag_s, float)
    return float(lag @ np.asarray(mean_square_displacement_um2, float) / (lag @ lag) / (2 * dimensions))


def activation_energy_kJ_per_mol(temperature_K: ArrayLike, values: ArrayLike) -> tuple[float, float]:
    """Arrhenius fit ln(value) = ln(prefactor) - E / (R T); gives E and the prefactor."""
    slope, intercept = np.polyfit(1 / np.asarray(temperature_K, float), np.log(np.asarray(values, float)), 1)
    return float(-slope * GAS_CONSTANT_J_PER_MOL_K / 1e3), float(math.exp(intercept))


def onset_index(values: ArrayLike, *, n_background: int, n_sigma: float = 3.0, n_frames: int = 3) -> int | None:
    """First frame from which a signal stays above its background for `n_frames` frames; None where it never does.

    Parameters
    ----------
    values : array_like, shape (N,)
    n_background : int
        Frames at the start that are background; the threshold is their mean and `n_sigma` standard deviations.
    n_sigma : float
    n_frames : int
    """
    signal = np.asarray(values, float)
    if not 2 <= n_background < len(signal):
        raise ValueError(f"onset_index needs 2 or more background frames and some after them; got {n_background} of "
                         f"{len(signal)}.")  # fmt: skip
    background = signal[:n_background]
    above = signal > background.mean() + n_sigma * background.std(ddof=1)
    above[:n_background] = False
    runs = (
        np.lib.stride_tricks.sliding_window_view(above, n_frames).all(axis=1) if len(above) >= n_frames else above[:0]
    )
    return int(np.argmax(runs)) if runs.any() else None
