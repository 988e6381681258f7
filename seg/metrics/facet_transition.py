"""The size at which droplets become faceted."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import log_expit

from seg.metrics.followed import followed_objects, half_cycles_of
from seg.metrics.history import History
from seg.metrics.table import Measurement

MIN_POINTS, MIN_TRACKS = 6, 3
# Steepness of the transition in ln(diameter): from e-fold in size (1) to half a per cent (200).
_STEEPNESS = np.geomspace(1.0, 200.0, 30)
_POSITIONS, _MAX_POINTS = 160, 1000
# Half the 95 % quantile of chi-squared with one degree of freedom.
_DROP = 1.9207


def transition_diameter(diameters: np.ndarray, faceted: np.ndarray) -> tuple[float, float, float]:
    """Diameter at which half of the objects are faceted, with its 95 % interval.

    Parameters
    ----------
    diameters : ndarray of float, shape (N,)
    faceted : ndarray of bool, shape (N,)

    Returns
    -------
    (float, float, float)
        Value, low, high; all NaN where there are no round or no faceted objects, or the larger ones are not the
        faceted ones. An end of the interval that lies outside of the diameters seen, by a third, is NaN.

    Notes
    -----
    Logistic law in ln(diameter), interval by profile likelihood: it stays right where a gap in size separates round
    from faceted objects, in which case the value is in the middle of the gap.
    """
    known = np.isfinite(diameters) & (diameters > 0)
    x, y = np.log(diameters[known]), np.asarray(faceted, bool)[known]
    nothing = (math.nan, math.nan, math.nan)
    if len(x) < MIN_POINTS or y.all() or not y.any() or x[y].mean() <= x[~y].mean():
        return nothing
    weight = 1.0
    if len(x) > _MAX_POINTS:  # every n-th in the order of size stands for n
        order = np.argsort(x, kind="stable")[:: math.ceil(len(x) / _MAX_POINTS)]
        weight = len(x) / len(order)
        x, y = x[order], y[order]
    ends = x.min() - math.log(4 / 3), x.max() + math.log(4 / 3)
    coarse = np.linspace(*ends, _POSITIONS)
    profile = _profile(coarse, x, y, weight)
    inside = np.flatnonzero(profile >= profile.max() - _DROP)
    # Once more, finely, where the interval is.
    position = np.linspace(coarse[max(inside[0] - 1, 0)], coarse[min(inside[-1] + 1, _POSITIONS - 1)], 2 * _POSITIONS)
    profile = _profile(position, x, y, weight)
    best = float(profile.max())
    # Where objects are separated by size every place in the gap is as good: take the middle.
    value = float(position[profile >= best - 1e-4].mean())
    inside = np.flatnonzero(profile >= best - _DROP)
    low = math.nan if position[inside[0]] <= ends[0] else math.exp(position[inside[0]])
    high = math.nan if position[inside[-1]] >= ends[1] else math.exp(position[inside[-1]])
    return math.exp(value), low, high


def _profile(position: np.ndarray, x: np.ndarray, y: np.ndarray, weight: float) -> np.ndarray:
    """Logarithm of the likelihood at each position of the transition, greatest over its steepness."""
    signed = np.where(y, 1.0, -1.0) * (x - position[:, None])
    return np.asarray(weight * np.max([log_expit(k * signed).sum(axis=1) for k in _STEEPNESS], axis=0))


def measure_whole(history: History, *, min_facet_fraction: float = 0.3) -> list[Measurement]:
    """Transition diameter over a population or a series, and for plating and stripping apart.

    Parameters
    ----------
    history : History
        With the rows of this group for every frame.
    min_facet_fraction : float
        From this straight share of its outline on an object is faceted.

    Returns
    -------
    list of Measurement
        ``facet_transition_diameter``. Where three or more tracks become faceted or round, it is the mean over their
        own transitions with Student's interval, for the frames of one track are not independent; else a logistic law
        over all objects and frames. Where both half-cycles show a transition, also with the side ``plating`` and
        ``stripping``. NaN with ``regime-not-reached`` where all objects are faceted or none is, and ``few-pixels``
        where objects as large as the lower end of the interval could not be resolved.
    """
    points = _points(history, min_facet_fraction)
    row = partial(Measurement, "facet_transition_diameter", unit=history.scale.unit("um"), class_name=_class(history))
    rows = [_transition(points, row, history, "")]
    sides = [_transition(points[points["side"] == side], row, history, side) for side in ("plating", "stripping")]
    if all(math.isfinite(side.value) for side in sides):
        rows += sides
    return rows


def _class(history: History) -> str:
    names = history.table.loc[history.table["metric"] == "facet_fraction", "class"]
    return str(names.iloc[0]) if len(names) else "+".join(history.object_classes)


def _points(history: History, min_facet_fraction: float) -> pd.DataFrame:
    """One row per object and frame: diameter, faceted (or unknown), track, plating or stripping."""
    table = history.table[history.table["object_id"].notna() & history.table["frame"].notna()]
    wide = {
        name: table.loc[table["metric"] == name, ["frame", "object_id", "value"]].astype(
            {"frame": int, "object_id": int}
        )
        for name in ("equivalent_diameter", "facet_fraction")
    }
    points = wide["equivalent_diameter"].merge(
        wide["facet_fraction"], on=["frame", "object_id"], suffixes=("", "_straight")
    )  # fmt: skip
    points = points.rename(columns={"value": "diameter", "value_straight": "fraction"})
    points = points.merge(followed_objects(history), on=["frame", "object_id"]).sort_values(["track_id", "frame"])
    points = points.reset_index(drop=True).assign(side="")
    points["faceted"] = points["fraction"] >= min_facet_fraction
    for _, part in points.groupby("track_id"):
        for kind, index in half_cycles_of(part["frame"].to_numpy(), part["diameter"].to_numpy(), history.kinds):
            points.loc[part.index[index[1:] if kind == "stripping" else index], "side"] = kind
    return points


def _transition(
    points: pd.DataFrame, row: partial[Measurement], history: History, side: str
) -> Measurement:  # fmt: skip
    known = points[points["fraction"].notna()]
    diameter, faceted = known["diameter"].to_numpy(float), known["faceted"].to_numpy(bool)
    flags = history.scale.flags
    own = _own_transitions(known)
    if len(own) >= MIN_TRACKS:
        from scipy.special import stdtrit

        logs, gaps = np.log(own).mean(axis=1), np.log(own[:, 1] / own[:, 0])
        # Tracks that change in the same frame are not equal: between two frames any size is as likely.
        spread = math.sqrt(max(float(logs.var(ddof=1)), float(np.mean(gaps**2)) / 12))
        half = float(stdtrit(len(own) - 1, 0.975)) * spread / math.sqrt(len(own))
        value, low, high = (math.exp(float(logs.mean()) + h) for h in (0.0, -half, half))
        method = f"geometric mean of the transitions of {len(own)} tracks, Student's interval"
    else:
        value, low, high = transition_diameter(diameter, faceted)
        method = f"logistic law over {len(known)} outlines of {known['track_id'].nunique()} objects, profile likelihood"
        if math.isnan(value):
            method = f"{int(faceted.sum())} of {len(known)} outlines are faceted"
            flags = (*flags, "regime-not-reached")
    unresolved = points.loc[points["fraction"].isna(), "diameter"]
    if math.isfinite(value) and len(unresolved) and unresolved.max() > (low if math.isfinite(low) else 0):
        flags = (*flags, "few-pixels")
    return row(value, low=low, high=high, side=side, n=len(known), method=method, flags=flags)


def _own_transitions(known: pd.DataFrame) -> np.ndarray:
    """Diameters between which each track that does so changes, shape (N, 2): the cut with the fewest mistakes."""
    found = []
    for _, part in known.groupby("track_id"):
        order = np.argsort(part["diameter"].to_numpy(float), kind="stable")
        diameter, faceted = part["diameter"].to_numpy(float)[order], part["faceted"].to_numpy(bool)[order]
        if len(order) < 4 or faceted.all() or not faceted.any():
            continue
        # Mistakes of a cut before element i: faceted ones below it and round ones above.
        mistakes = np.concatenate([[0], np.cumsum(faceted)]) + np.concatenate([np.cumsum(~faceted[::-1])[::-1], [0]])
        cut = np.flatnonzero(mistakes == mistakes.min())
        cut = cut[(cut > 0) & (cut < len(order))]
        if len(cut) and mistakes.min() <= 0.2 * len(order):
            i = int(cut[len(cut) // 2])
            found.append((diameter[i - 1], diameter[i]))
    return np.array(found).reshape(-1, 2)
