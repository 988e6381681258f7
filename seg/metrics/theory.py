"""What theory expects of the experiment, beside what was measured: Sand's time, critical radius, dense thickness."""

from __future__ import annotations

import math
from functools import partial

import pandas as pd

from seg.electrochem.nucleus import critical_radius_nm, nucleation_barrier_J
from seg.electrochem.theory import (
    LITHIUM,
    Electrolyte,
    chazalviel_current_density_mA_per_cm2,
    faraday_thickness_um,
    sand_time_s,
    sand_time_valid,
)
from seg.errors import UsageError
from seg.metrics.table import Measurement


def measure_series(
    table: pd.DataFrame,
    *,
    current_density_mA_per_cm2: float | None = None,
    concentration_mol_per_L: float | None = None,
    diffusivity_cm2_per_s: float | None = None,
    transference: float | None = None,
    gap_um: float | None = None,
    areal_capacity_mAh_per_cm2: float | None = None,
    overpotential_V: float | None = None,
    surface_energy_J_per_m2: float | None = None,
    contact_angle_deg: float = 180.0,
) -> list[Measurement]:
    """Give the numbers that the known conditions of the experiment allow; a quantity without its inputs has no row.

    Parameters
    ----------
    table : DataFrame
        Rows of the input; an ``onset_time`` in it is compared with Sand's time.
    current_density_mA_per_cm2 : float or None
        On the area that really takes part.
    concentration_mol_per_L, diffusivity_cm2_per_s, transference : float or None
        Of the electrolyte: ambipolar diffusivity, transference number of the cation.
    gap_um : float or None
        Distance between the electrodes.
    areal_capacity_mAh_per_cm2 : float or None
        Plated.
    overpotential_V : float or None
        Of nucleation, negative on plating; not the bias over the cell.
    surface_energy_J_per_m2 : float or None
        Of the metal against the electrolyte or the SEI.
    contact_angle_deg : float
        Through the deposit, for the barrier; 180 is a nucleus free of the substrate.

    Returns
    -------
    list of Measurement
        ``sand_time``, ``sand_time_ratio``, ``chazalviel_current``, ``faraday_thickness``, ``critical_radius``,
        ``nucleation_barrier``. Current density and capacity are taken from the cycler where its file and the
        electrode area are given; Sand's time without a current is NaN with the flag ``no-current``. Where the current
        density is not above Chazalviel's limit, Sand's time is never reached: NaN with ``regime-not-reached``. Without
        a gap that cannot be told: the value is flagged ``low-confidence``.
    """
    rows: list[Measurement] = []
    electrolyte = _electrolyte(concentration_mol_per_L, diffusivity_cm2_per_s, transference)
    if electrolyte is not None:
        if gap_um is not None:
            limit = float(chazalviel_current_density_mA_per_cm2(electrolyte, gap_um))
            rows.append(Measurement("chazalviel_current", limit, "mA/cm2", method=f"gap {gap_um:g} um"))
        if current_density_mA_per_cm2 is None:
            rows.append(
                Measurement(
                    "sand_time", math.nan, "s", flags=("no-current",),
                    method="needs the current density: give it, or a cycler file and the electrode area",
                )
            )  # fmt: skip
        else:
            rows += _sand(table, current_density_mA_per_cm2, electrolyte, gap_um)
    if areal_capacity_mAh_per_cm2 is not None:
        thickness = float(faraday_thickness_um(areal_capacity_mAh_per_cm2))
        rows.append(Measurement("faraday_thickness", thickness, "um", method=f"dense {LITHIUM.name}"))
    if overpotential_V is not None and surface_energy_J_per_m2 is not None:
        rows += _nucleus(overpotential_V, surface_energy_J_per_m2, contact_angle_deg)
    return rows


def _electrolyte(
    concentration_mol_per_L: float | None, diffusivity_cm2_per_s: float | None, transference: float | None
) -> Electrolyte | None:
    given = (concentration_mol_per_L, diffusivity_cm2_per_s, transference)
    if concentration_mol_per_L is None or diffusivity_cm2_per_s is None or transference is None:
        if any(value is not None for value in given):
            raise UsageError(
                "theory: an electrolyte needs concentration_mol_per_L, diffusivity_cm2_per_s and transference; "
                f"got {given}."
            )
        return None
    try:
        return Electrolyte(concentration_mol_per_L, diffusivity_cm2_per_s, transference)
    except ValueError as error:
        raise UsageError(f"theory: {error}") from error


def _sand(
    table: pd.DataFrame, current_density_mA_per_cm2: float, electrolyte: Electrolyte, gap_um: float | None
) -> list[Measurement]:
    time_s = float(sand_time_s(current_density_mA_per_cm2, electrolyte))
    flags: tuple[str, ...] = ("low-confidence",)
    method = "semi-infinite electrolyte; the gap is not known"
    if gap_um is not None:
        reached = bool(sand_time_valid(current_density_mA_per_cm2, electrolyte, gap_um))
        flags, method = ((), "above Chazalviel's limit") if reached else (("regime-not-reached",), "below the limit")
        time_s = time_s if reached else math.nan
    row = partial(Measurement, flags=flags, method=method)
    rows = [row("sand_time", time_s, "s")]
    onset = table[(table["metric"] == "onset_time") & table["frame"].isna() & table["value"].notna()]
    if len(onset) and math.isnan(time_s):
        rows.append(row("sand_time_ratio", math.nan, "1"))
    elif len(onset) and time_s > 0:
        first = onset.iloc[0]
        if "clock of the series" in str(first["method"]):  # Sand's time counts from when the current is switched on
            row = partial(row, flags=(*flags, "low-confidence"), method=f"{method}; onset {first['method']}")
        bounds = {"low": float(first["low"]) / time_s, "high": float(first["high"]) / time_s}
        rows.append(row("sand_time_ratio", float(first["value"]) / time_s, "1", **bounds))
    return rows


def _nucleus(overpotential_V: float, surface_energy_J_per_m2: float, contact_angle_deg: float) -> list[Measurement]:
    if overpotential_V >= 0:
        nothing = partial(Measurement, value=math.nan, flags=("regime-not-reached",), method="no driving overpotential")
        return [nothing("critical_radius", unit="nm"), nothing("nucleation_barrier", unit="J")]
    energy = {"surface_energy_J_per_m2": surface_energy_J_per_m2}
    radius = float(critical_radius_nm(overpotential_V, **energy))
    barrier = float(nucleation_barrier_J(overpotential_V, contact_angle_deg=contact_angle_deg, **energy))
    # Under the size of an atom the continuum formula means nothing.
    flags = ("extrapolated",) if radius < 0.2 else ()
    method = f"{overpotential_V:g} V, {surface_energy_J_per_m2:g} J/m2"
    return [
        Measurement("critical_radius", radius, "nm", method=method, flags=flags),
        Measurement("nucleation_barrier", barrier, "J", method=f"{method}, {contact_angle_deg:g} deg", flags=flags),
    ]
