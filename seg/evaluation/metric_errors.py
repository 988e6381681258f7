"""What the error of a mask does to each number measured from it: the same analysis on truth and on prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import bdtr

# A number of one series is told from another by these; several methods for one number by their order.
_KEY = ["metric", "class", "side", "unit", "which"]
COLUMNS = (
    "metric", "class", "side", "unit", "level", "frame", "time_s", "truth", "truth_low", "truth_high", "prediction",
    "prediction_low", "prediction_high", "error", "relative_error", "truth_in_interval",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "metric", "class", "side", "unit", "level", "n", "truth", "prediction", "bias", "relative_bias",
    "median_relative_error", "rms_error", "truth_in_interval", "n_intervals", "only_in_truth", "only_in_prediction",
    "flags",
)  # fmt: skip
# So few of n intervals of 95 % hold the truth less often than this by chance: none of 2, 3 of 5, 5 of 8, 34 of 40.
_CHANCE = 0.025


def metric_errors(prediction: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Put the numbers of two masks of the same images side by side.

    Parameters
    ----------
    prediction, truth : DataFrame
        ``metrics.csv`` of both, by the same analysis.

    Returns
    -------
    DataFrame
        One row per number that either has. ``level`` is ``series``, ``frame``, or ``objects``: objects of two masks
        need not be the same, so their median per frame is compared. ``error`` is prediction less truth,
        ``relative_error`` that over the absolute truth (NaN where the truth is 0), and ``truth_in_interval`` whether
        the interval of the prediction holds the true value (NaN where it has none). A number that one side cannot give
        is NaN there.
    """
    sides = {"truth": _numbers(truth), "prediction": _numbers(prediction)}
    keys = [*_KEY, "level", "frame"]
    table = sides["truth"].merge(sides["prediction"], on=keys, how="outer", suffixes=("_t", "_p"), sort=False)
    found = table[keys].copy()
    for side, mark in (("truth", "_t"), ("prediction", "_p")):
        found[side] = table[f"value{mark}"]
        found[f"{side}_low"], found[f"{side}_high"] = table[f"low{mark}"], table[f"high{mark}"]
    found["time_s"] = table["time_s_t"].fillna(table["time_s_p"])
    found["error"] = found["prediction"] - found["truth"]
    size = found["truth"].abs()
    found["relative_error"] = (found["error"] / size.where(size > 0)).astype(float)
    known = found[["prediction_low", "prediction_high", "truth"]].notna().all(axis=1)
    inside = (found["prediction_low"] <= found["truth"]) & (found["truth"] <= found["prediction_high"])
    found["truth_in_interval"] = inside.astype(float).where(known)
    return found[list(COLUMNS)]


def _numbers(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per number, those of objects as their median per frame."""
    table = metrics.copy()
    table["frame"] = table["frame"].astype("Int64")
    objects = table["object_id"].notna()
    of_objects = table[objects]
    grouped = of_objects.groupby(["metric", "class", "side", "unit", "frame"], dropna=False, sort=False)
    medians = grouped.agg(value=("value", "median"), time_s=("time_s", "first")).reset_index()
    medians["low"] = medians["high"] = np.nan
    medians["level"], medians["which"] = "objects", 0
    rest = table[~objects].copy()
    rest["level"] = np.where(rest["frame"].isna(), "series", "frame")
    rest["which"] = rest.groupby(["metric", "class", "side", "unit", "frame"], dropna=False).cumcount()
    columns = [*_KEY, "level", "frame", "time_s", "value", "low", "high"]
    parts = [part[columns] for part in (rest, medians) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else rest[columns]


def summarise_errors(errors: pd.DataFrame) -> pd.DataFrame:
    """One row per metric: what the masks do to it over all frames and images.

    Parameters
    ----------
    errors : DataFrame
        As from `metric_errors`; several of them put together may be given.

    Returns
    -------
    DataFrame
        ``n`` numbers that both masks give, and over them: the mean ``truth`` and ``prediction``, ``bias`` (mean error),
        ``relative_bias`` (bias over the mean absolute truth), ``median_relative_error`` (median of the absolute
        relative error), ``rms_error``, and ``truth_in_interval`` (share of the ``n_intervals`` intervals that hold the
        truth). ``only_in_truth`` and ``only_in_prediction`` count numbers that one mask alone gives. ``flags`` has
        ``low-confidence`` where fewer intervals hold the truth than 95 % intervals do by chance: the error of the
        masks is larger than what they state.
    """
    rows = []
    for key, part in errors.groupby(["metric", "class", "side", "unit", "level"], dropna=False, sort=False):
        both = part[part["error"].notna()]
        size = both["truth"].abs().mean()
        bias = both["error"].mean()
        inside = both["truth_in_interval"].dropna()
        missed = len(inside) > 0 and bdtr(inside.sum(), len(inside), 0.95) < _CHANCE
        rows.append(
            (
                *key, len(both), both["truth"].mean(), both["prediction"].mean(), bias,
                bias / size if len(both) and size > 0 else np.nan, both["relative_error"].abs().median(),
                float(np.sqrt((both["error"] ** 2).mean())) if len(both) else np.nan, inside.mean(), len(inside),
                int((part["truth"].notna() & part["prediction"].isna()).sum()),
                int((part["truth"].isna() & part["prediction"].notna()).sum()), "low-confidence" if missed else "",
            )
        )  # fmt: skip
    table = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    known = (table["n"] > 0) | (table["only_in_truth"] > 0) | (table["only_in_prediction"] > 0)
    return table[known].reset_index(drop=True)
