"""The error of the pixel size in every number: one factor common to all of them, to the power of the length in it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

_Z95 = 1.959964
_LENGTH = re.compile(r"(?:um|cm|nm)(\d?)")

# Numbers whose unit does not tell how the pixel size enters.
_OWN_POWER = {
    # From conditions that the user states, not from the image.
    "chazalviel_current": 0, "critical_radius": 0, "faraday_thickness": 0, "nucleation_barrier": 0, "adhesion_work": 0,
    # What the charge deposits on the field: an area. Imaged over expected volume keeps one length,
    "expected_volume": 2, "volume_charge_ratio": 1,
    # and so does a volume over the charge through the field.
    "void_rate_per_charge": 1,
}  # fmt: skip
# Logarithms of lengths: the error adds.
_LOGARITHMS = ("size_lognormal_mu",)
_CURRENT, _FARADAY = "local_current_density", "Faraday's law"


def pixel_size_power(metric: str, unit: str, method: str = "") -> int:
    """Power of the pixel size in a number.

    Parameters
    ----------
    metric, unit, method : str
        As in the table of results.

    Returns
    -------
    int
        1 for a length or a velocity, 2 for an area, 3 for a volume, -2 for a density per area; 0 for angles, counts,
        shares and times, for numbers in pixels, and for what the image does not enter.
    """
    if metric in _OWN_POWER:
        return _OWN_POWER[metric]
    if metric == _CURRENT:  # a velocity of the metal by Faraday's law, or the cycler's current over a share of area
        return int(method.startswith(_FARADAY))
    over, _, under = unit.partition("/")
    return _lengths(over) - _lengths(under)


def _lengths(unit: str) -> int:
    return sum(int(power or 1) for power in _LENGTH.findall(unit))


def with_pixel_size_error(table: pd.DataFrame, rel_sd: float) -> pd.DataFrame:
    """Widen the intervals of a table of results by the error of the pixel size, added in quadrature.

    Parameters
    ----------
    table : DataFrame
        As `seg.metrics.table.to_table` makes it.
    rel_sd : float
        Standard deviation of the pixel size as a share of it, by one factor common to all axes.

    Returns
    -------
    DataFrame
        The same values. Rows without an interval get none: that of the pixel size alone would be taken for the whole.

    Notes
    -----
    The number goes with the factor to the power p of `pixel_size_power`; its ends are those of the log-normal factor,
    ``exp(+-1.96 p sd)``. Bounds of a quantity that cannot be negative stay so. The error is the same in all rows of an
    input: it cancels in comparisons within it, which these intervals do not know.
    """
    if rel_sd <= 0 or table.empty:
        return table
    # The powers of the few kinds of rows there are, given to the many rows.
    by_law = table["method"].str.startswith(_FARADAY)
    kinds, of_kind = pd.MultiIndex.from_arrays([table["metric"], table["unit"], by_law]).factorize()
    power = np.array([pixel_size_power(metric, unit, _FARADAY * law) for metric, unit, law in of_kind])[kinds]
    value, low, high = (table[name].to_numpy(float) for name in ("value", "low", "high"))
    ends = np.sort(value * np.exp(np.array([[-1.0], [1.0]]) * _Z95 * rel_sd * power), axis=0)
    logarithm = table["metric"].isin(_LOGARITHMS).to_numpy()
    ends[:, logarithm] = value[logarithm] + np.array([[-_Z95], [_Z95]]) * rel_sd
    # An end on the wrong side of the value has no width; an infinite one stays.
    below = np.hypot(np.maximum(value - low, 0), value - ends[0])
    above = np.hypot(np.maximum(high - value, 0), ends[1] - value)
    wider_low = np.where((low >= 0) & ~logarithm, np.maximum(value - below, 0), value - below)
    wider_high = np.where((high <= 0) & ~logarithm, np.minimum(value + above, 0), value + above)
    touched = ((power != 0) | logarithm) & np.isfinite(value)
    return table.assign(
        low=np.where(touched & ~np.isnan(low), wider_low, low),
        high=np.where(touched & ~np.isnan(high), wider_high, high),
    )
