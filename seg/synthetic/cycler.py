"""The cycler of a synthetic experiment: constant-current steps with a plausible voltage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Thickness of dense lithium per charge: V_m / F with 13.0 cm3/mol.
UM_PER_MAH_CM2 = 4.849


@dataclass(frozen=True)
class Step:
    """A step of a programme: current density (positive plates, negative strips, 0 rests) over a time."""

    duration_s: float
    current_density_mA_cm2: float


def run_programme(
    rng: np.random.Generator,
    steps: Sequence[Step],
    *,
    lead_s: float,
    area_cm2: float = 1.0,
    interval_s: float | None = None,
    nucleation_mV: float = 35.0,
    resistance_ohm_cm2: float = 14.0,
) -> pd.DataFrame:
    """Table of records of a half cell: a rest of `lead_s`, then constant-current steps.

    Parameters
    ----------
    rng : numpy Generator
    steps : sequence of Step
    lead_s : float
        Rest before the first step: the images start when it ends, so the clock offset is ``-lead_s``.
    area_cm2 : float
    interval_s : float, optional
        Time between records; default: 400 records over the programme.
    nucleation_mV : float
        Extra overpotential at the first moment of plating, gone after about a minute's worth of records.
    resistance_ohm_cm2 : float

    Returns
    -------
    DataFrame
        ``time_s``, ``voltage_V``, ``current_mA`` (plating negative), ``capacity_mAh`` (net charge plated).

    Notes
    -----
    Voltage against lithium: ohmic part, a nucleation dip that decays exponentially, and 0.3 mV of noise; the first
    rest sits at a mixed potential that decays.
    """
    ends = np.cumsum([lead_s, *(step.duration_s for step in steps)])
    interval = interval_s or float(ends[-1]) / 400
    time = np.arange(0, ends[-1] + interval / 2, interval)
    densities = np.array([0.0, *(step.current_density_mA_cm2 for step in steps)])
    which = np.minimum(np.searchsorted(ends, time, side="right"), len(steps))
    density = densities[which]
    since = time - np.concatenate([[0.0], ends])[which]
    charge = np.interp(
        time, np.concatenate([[0.0], ends]), np.concatenate([[0.0], np.cumsum(np.diff(ends, prepend=0) * densities)])
    )
    settle = max(4 * interval, 1e-9)
    voltage = -density * resistance_ohm_cm2 * 1e-3
    voltage -= np.sign(np.maximum(density, 0)) * nucleation_mV * 1e-3 * np.exp(-since / settle)
    voltage += np.where(which == 0, 0.4 * np.exp(-since / max(lead_s, 1e-9)), 0.0)
    voltage += rng.normal(0, 3e-4, len(time))
    return pd.DataFrame(
        {
            "time_s": np.round(time, 6),
            "voltage_V": np.round(voltage, 5),
            "current_mA": -density * area_cm2,
            "capacity_mAh": charge * area_cm2 / 3600,
        }
    )
