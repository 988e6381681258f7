"""A study over current densities: one experiment for each, in folders of their own, with a table over them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seg.errors import UsageError
from seg.synthetic import make_experiment, write_experiment

FAMILIES_WITH_CURRENT = ("nucleation", "pits")


def write_study(
    family: str,
    seed: int,
    currents_mA_cm2: Sequence[float],
    out_dir: Path | str,
    *,
    image_format: str = "tif",
    **options: Any,
) -> Path:
    """Write one experiment per current density into ``out_dir/NAME_mA_cm2``.

    Parameters
    ----------
    family : str
        ``"nucleation"`` or ``"pits"``; the density of their sites rises with a power of the current density.
    seed : int
        Of the first experiment; the next has the next one, so that sites are independent.
    currents_mA_cm2 : sequence of float
        All different and above 0.
    out_dir : Path or str
    image_format : str
        See `write_experiment`.
    **options
        Arguments of the family, the same for all.

    Returns
    -------
    Path
        The folder. Its ``study.csv`` has, per experiment, ``folder``, ``seed``, ``current_density_mA_cm2``, the
        expected density of sites ``site_density_per_cm2`` and the true ``density_current_slope``.
    """
    if family not in FAMILIES_WITH_CURRENT:
        raise UsageError(
            f"A study over current densities is drawn for {' and '.join(FAMILIES_WITH_CURRENT)}, not for {family!r}."
        )
    currents = [float(c) for c in currents_mA_cm2]
    if not currents or min(currents) <= 0 or len(set(currents)) < len(currents):
        raise UsageError(f"The current densities are {currents}; give different ones above 0.")
    out, rows = Path(out_dir), []
    for k, current in enumerate(currents):
        made = make_experiment(family, seed + k, current_density_mA_cm2=current, **options)
        folder = write_experiment(made, out / f"{current:g}_mA_cm2", image_format=image_format)
        power = float(made.parameters["density_exponent"])
        rows.append(
            {
                "folder": folder.name,
                "seed": seed + k,
                "current_density_mA_cm2": current,
                "site_density_per_cm2": made.parameters["density_per_cm2"] * current**power,
                "density_current_slope": power,
            }
        )
    text = pd.DataFrame(rows).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    (out / "study.csv").write_text(text, encoding="utf-8", newline="\n")
    return out
