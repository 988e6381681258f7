"""Theory of the deposit itself: nucleus, spherical cap, coalescence, coverage, melting.

Arguments and results carry their units in their names, take numbers or arrays and broadcast; overpotentials are
negative on plating.

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

from seg.electrochem.theory import FARADAY_C_PER_MOL, LITHIUM, Metal, Number


@dataclass(frozen=True)
class CapFactors:
    """Shape factors of a spherical cap of radius of curvature R.

    ``volume``: V = 4/3 pi R^3 x this, also the factor by which the substrate lowers the barrier; ``free``: free
    surface 2 pi R^2 x this; ``base``: pi R^2 x this.
    """

    volume: Number
    free: Number
    base: Number


def cap_factors(contact_angle_deg: ArrayLike) -> CapFactors:
    """Shape factors of a cap with the given angle through the deposit."""
    angle = np.radians(np.asarray(contact_angle_deg, float))
    cosine = np.cos(angle)
    return CapFactors(0.5 - 0.75 * cosine + 0.25 * cosine**3, 1 - cosine, np.sin(angle) ** 2)


def cap_angle_deg(height: ArrayLike, base_width: ArrayLike) -> Number:
    """Angle of a cap from its height and base width, in the same unit: 2 atan(2 h / w)."""
    return np.degrees(2 * np.arctan2(2 * np.asarray(height, float), np.asarray(base_width, float)))


def driving_energy_J_per_m3(overpotential_V: ArrayLike, metal: Metal = LITHIUM) -> Number:
    """Energy released per volume deposited: -z F eta / V_m, positive on plating (eta < 0).

    Notes
    -----
    With the Faraday constant and the molar volume; the printed formula mixes molar volume and elementary charge.
    """
    return -metal.charge_C_per_m3 * np.asarray(overpotential_V, float)


def supersaturation_J_per_mol(overpotential_V: ArrayLike, charge_number: int = 1) -> Number:
    """Chemical potential over that of the bulk metal: -z F eta."""
    return -charge_number * FARADAY_C_PER_MOL * np.asarray(overpotential_V, float)


def cap_free_energy_J(
    radius_nm: ArrayLike,
    *,
    contact_angle_deg: ArrayLike,
    overpotential_V: ArrayLike,
    surface_energy_J_per_m2: ArrayLike,
    base_energy_J_per_m2: ArrayLike | None = None,
    stress_Pa: ArrayLike = 0.0,
    metal: Metal = LITHIUM,
) -> Number:
    """Free energy of a cap-shaped nucleus: -V dG_v + A_free g_s + A_base g_c + V stress.

    Parameters
    ----------
    radius_nm : array_like
        Radius of curvature.
    contact_angle_deg, overpotential_V : array_like
    surface_energy_J_per_m2 : array_like
        Deposit against SEI or electrolyte.
    base_energy_J_per_m2 : array_like or None
        Deposit against substrate, less the substrate against electrolyte that it replaces. None: what Young's law
        demands at this contact angle, ``-g_s cos(angle)``.
    stress_Pa : array_like
        Hydrostatic stress in the deposit.
    metal : Metal

    Notes
    -----
    The printed formula multiplies the stress with the molar volume, which is no energy of the nucleus, and leaves out
    the substrate interface that disappears; without it Young's law cannot be recovered.
    """
    factors, radius_m = cap_factors(contact_angle_deg), np.asarray(radius_nm, float) * 1e-9
    surface = np.asarray(surface_energy_J_per_m2, float)
    base = _base_energy(surface, base_energy_J_per_m2, contact_angle_deg)
    volume = 4 / 3 * math.pi * radius_m**3 * factors.volume
    free, contact = 2 * math.pi * radius_m**2 * factors.free, math.pi * radius_m**2 * factors.base
    driving = driving_energy_J_per_m3(overpotential_V, metal) - np.asarray(stress_Pa, float)
    return -volume * driving + free * surface + contact * base


def critical_radius_nm(
    overpotential_V: ArrayLike,
    *,
    surface_energy_J_per_m2: ArrayLike,
    contact_angle_deg: ArrayLike = 90.0,
    base_energy_J_per_m2: ArrayLike | None = None,
    stress_Pa: ArrayLike = 0.0,
    metal: Metal = LITHIUM,
) -> Number:
    """Radius of curvature at the top of the nucleation barrier; infinite where nothing drives deposition.

    Parameters
    ----------
    overpotential_V : array_like
        Of the interface itself: a bias over a whole cell is not it.
    surface_energy_J_per_m2, contact_angle_deg, base_energy_J_per_m2, stress_Pa, metal
        As in `cap_free_energy_J`.

    Notes
    -----
    (2 C2 g_s + C3 g_c) / (2 C1 dG_v), without the leading minus of the printed formula. With Young's law (no
    `base_energy_J_per_m2`) it is 2 g_s / dG_v whatever the contact angle.
    """
    surface = np.asarray(surface_energy_J_per_m2, float)
    factors = cap_factors(contact_angle_deg)
    base = _base_energy(surface, base_energy_J_per_m2, contact_angle_deg)
    driving = driving_energy_J_per_m3(overpotential_V, metal) - np.asarray(stress_Pa, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius_m = (2 * factors.free * surface + factors.base * base) / (2 * factors.volume * driving)
    return np.where(driving > 0, radius_m * 1e9, math.inf)[()]


def nucleation_barrier_J(
    overpotential_V: ArrayLike,
    *,
    surface_energy_J_per_m2: ArrayLike,
    contact_angle_deg: ArrayLike = 180.0,
    stress_Pa: ArrayLike = 0.0,
    metal: Metal = LITHIUM,
) -> Number:
    """Free energy of the critical nucleus, 16 pi g^3 / (3 dG_v^2) x f(angle); infinite where nothing drives it.

    180 degrees is a nucleus free of the substrate (f = 1).
    """
    driving = driving_energy_J_per_m3(overpotential_V, metal) - np.asarray(stress_Pa, float)
    surface = np.asarray(surface_energy_J_per_m2, float)
    with np.errstate(divide="ignore"):
        barrier = 16 * math.pi * surface**3 / (3 * driving**2) * cap_factors(contact_angle_deg).volume
    return np.where(driving > 0, barrier, math.inf)[()]


def adhesion_work_J_per_m2(surface_energy_J_per_m2: ArrayLike, contact_angle_deg: ArrayLike) -> Number:
    """Young-Dupre work of adhesion, g (1 + cos angle)."""
    return np.asarray(surface_energy_J_per_m2, float) * (1 + np.cos(np.radians(np.asarray(contact_angle_deg, float))))


def coalescing_count(time_s: ArrayLike, birth_rate_per_s: float, merge_rate_per_s: float) -> Number:
    """Visible nuclei under births at a constant rate and pairwise merging: dN/dt = J - b N^2 / 2, N(0) = 0."""
    plateau = math.sqrt(2 * birth_rate_per_s / merge_rate_per_s)
    return plateau * np.tanh(np.asarray(time_s, float) * birth_rate_per_s / plateau)


def covered_fraction_by_growth(
    time_s: ArrayLike,
    *,
    radial_velocity_um_per_s: float,
    site_density_per_um2: float,
    rate_constant_per_s: float = math.inf,
) -> Number:
    """Share of a plane covered by discs that grow at constant velocity from random sites (Avrami).

    Parameters
    ----------
    time_s : array_like
    radial_velocity_um_per_s, site_density_per_um2 : float
    rate_constant_per_s : float
        At which free sites nucleate. Infinite: all at once, S_ext = pi v^2 N t^2. Small: progressive, with its limit
        pi v^2 A N t^3 / 3.

    Notes
    -----
    S = 1 - exp(-S_ext), S_ext = pi v^2 N [t^2 - 2 t / A + 2 (1 - exp(-A t)) / A^2].
    """
    time = np.asarray(time_s, float)
    if math.isinf(rate_constant_per_s):
        squared = time**2
    else:
        done = rate_constant_per_s * time
        # The three terms cancel to A t^3 / 3 for small A t.
        series = time**2 * done / 3 * (1 - done / 4 + done**2 / 20)
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = time**2 - 2 * time / rate_constant_per_s - 2 * np.expm1(-done) / rate_constant_per_s**2
        squared = np.where(done < 1e-2, series, exact)
    return -np.expm1(-math.pi * radial_velocity_um_per_s**2 * site_density_per_um2 * squared)


def reduced_transient(reduced_time: ArrayLike, law: Literal["instantaneous", "progressive"]) -> Number:
    """(i/i_m)^2 against t/t_m of diffusion-controlled 3-D nucleation at constant potential (Scharifker-Hills).

    Does not apply at constant current through an interphase; there the births in the images decide.
    """
    t = np.asarray(reduced_time, float)
    if law == "instantaneous":
        return 1.9542 / t * np.expm1(-1.2564 * t) ** 2
    return 1.2254 / t * np.expm1(-2.3367 * t**2) ** 2


def melting_temperature_K(radius_nm: ArrayLike, *, surface_energy_J_per_m2: float, metal: Metal = LITHIUM) -> Number:
    """Melting temperature of a small particle (Gibbs-Thomson): T exp[-2 g V_m / (dH r)]."""
    length_m = 2 * surface_energy_J_per_m2 * metal.molar_volume_cm3 * 1e-6 / (metal.fusion_enthalpy_kJ_per_mol * 1e3)
    return metal.melting_K * np.exp(-length_m / (np.asarray(radius_nm, float) * 1e-9))


HALF_CUBE_AREA_FACTOR = 3 * 2 ** (2 / 3)
"""Free surface of a half cube (edge a, height a/2) over V^(2/3)."""


def cap_area_factor(contact_angle_deg: ArrayLike) -> Number:
    """Free surface of a cap over V^(2/3); 4.168 at 60 degrees (height R/2). The base is not in it."""
    factors = cap_factors(contact_angle_deg)
    return 2 * math.pi * factors.free / (4 / 3 * math.pi * factors.volume) ** (2 / 3)


def merged_radius(radii: ArrayLike) -> float:
    """Radius of the droplet that droplets of the given radii and equal contact angle become: (sum r^3)^(1/3)."""
    return float(np.cbrt(np.sum(np.asarray(radii, float) ** 3)))


def _base_energy(surface: Number, base: ArrayLike | None, contact_angle_deg: ArrayLike) -> Number:
    if base is not None:
        return np.asarray(base, float)
    return -surface * np.cos(np.radians(np.asarray(contact_angle_deg, float)))
