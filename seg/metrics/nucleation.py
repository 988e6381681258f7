"""Nucleation from births: density and rate over time, the law they follow and its parameters, slope over a study."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from seg.metrics.birth_dating import dated_births
from seg.metrics.birth_series import LEAST_BARE, BirthSeries, SinceOnset, birth_series, since_onset
from seg.metrics.history import HalfCycle, History
from seg.metrics.names import text_result
from seg.metrics.nucleation_laws import (
    MIN_BIRTHS,
    Estimate,
    Verdict,
    compare_laws,
    expected_births,
)
from seg.metrics.table import Measurement, rate_unit
from seg.uncertainty import poisson_interval

# Textbook: all at once, or at a constant rate. A finite number of sites at a finite rate is neither.
_TEXTBOOK = {
    "instantaneous": "instantaneous",
    "progressive": "progressive",
    "saturating": "intermediate",
    "mixed": "intermediate",
}
# The in situ TEM letter (Wang et al., ACS Energy Lett. 2023) names what the visible count does.
_LETTER = {
    "instantaneous": "instantaneous (fast rise, then decline by coalescence)",
    "progressive": "progressive, not yet saturated",
    "saturating": "progressive (gradual rise, then saturation)",
    "mixed": "mixed (burst at the start, then saturation)",
}


def measure_series(
    table: pd.DataFrame, *, onset_s: float | None = None, burst_s: float | None = None
) -> list[Measurement]:
    """Nucleation over a series, from the rows of its frames.

    Parameters
    ----------
    table : DataFrame
        Rows of all frames: ``birth_count`` (tracking), ``object_count``, ``valid_area`` and
        ``detection_limit_diameter`` (group `counting`); ``covered_fraction`` (group `cover`) where births on bare
        substrate only are to be accounted for.
    onset_s : float or None
        When nucleation could begin, on the clock of the frames. None: the frame before the first birth, which then
        only sets the clock and is not one of the births that the law is fitted to.
    burst_s : float or None
        Births this soon after onset count as simultaneous: nuclei that form together grow at different rates, and so
        pass the detection limit one after the other. None: 5 % of the time from onset to the last frame.

    Returns
    -------
    list of Measurement
        For every frame ``nucleation_density`` (births to date, with exact Poisson interval) and ``nucleation_rate``
        per bare area; for the series the rate, ``nucleation_mode`` and ``nucleation_mode_textbook`` (the law in
        `method`, its Akaike weight as value), ``nucleation_saturation_density``, ``nucleation_rate_constant`` and
        ``instantaneous_fraction``. The mode is NaN with the flag ``ambiguous`` for fewer than 20 births, for laws
        closer than 2 in AICc, and where the births leave room for a wider law in which a quarter of the sites
        nucleate at once or the rate falls to a quarter; parameters are those of the wider law then. A parameter that
        the data do not bound is NaN with ``regime-not-reached``. The interval of the instantaneous fraction holds for
        any onset within one frame, unless the onset is given and births are dated back to it.

    Notes
    -----
    A newborn that the frame cuts is not known to be born there. Births are counted where a newborn is seen whole,
    and divided by the area in which it would be: the valid area (taken as a square) less the detection limit on each
    side. Objects of the first frame are divided by the valid area. Rates and sites refer to bare substrate: a
    site that is covered before it nucleates is not lost from N0. Where the first frame already shows objects, onset
    is taken to be one interval earlier, and what is in it to be born since; the rows are flagged ``extrapolated``.
    """
    return _measure(birth_series(table), [], onset_s, burst_s)


def measure_whole(
    history: History, *, onset_s: float | None = None, burst_s: float | None = None, date_births: bool = False
) -> list[Measurement]:  # fmt: skip
    """Nucleation over a series; where the current is known, over each plating half-cycle for itself.

    Parameters
    ----------
    history : History
        As for `measure_series`, with half-cycles where they are known.
    onset_s, burst_s : float or None
        As for `measure_series`; a given onset is that of the first half-cycle that ends after it.
    date_births : bool
        Date births back to when their growth began (`seg.metrics.birth_dating.dated_births`), for recordings in which
        nuclei take some frames to reach the detection limit: by the grey values of their sites where there are images,
        else by their sizes. All rows are flagged ``extrapolated`` then, or ``low-confidence`` where neither tells.

    Returns
    -------
    list of Measurement
        Those of `measure_series`. With half-cycles the rate, the law and its parameters are those of the births while
        metal is plated (``side`` plating): what is already there when the current begins, and what is born under other
        currents, is not fitted. With several half-cycles of plating each has its rows, at its last frame, and those
        of the series are the rows of the first, which finds the substrate bare.
    """
    platings = [cycle for cycle in history.half_cycles() if cycle.kind == "plating"]
    series = birth_series(history.table)
    if date_births and history.tracking is not None and len(series.frames) > 1:
        pixel = history.scale.pixel ** (1 / len(history.scale.spacing))
        series = dated_births(series, history.tracking.tracks, platings, history.signals, pixel=pixel)
    return _measure(series, platings, onset_s, burst_s)


def _measure(
    series: BirthSeries, platings: Sequence[HalfCycle], onset_s: float | None, burst_s: float | None
) -> list[Measurement]:  # fmt: skip
    row = partial(Measurement, class_name=series.class_name)
    if len(series.frames) < 2:
        nothing = partial(row, value=math.nan, flags=(*series.flags, "single-frame"))
        return [nothing("nucleation_density", unit=series.per_area), nothing("nucleation_mode", unit="1")]
    parts = _parts(series, platings)
    onsets = _onsets([part for _, part in parts], onset_s)
    found = [
        _part_rows(part, text, onset, burst_s, row) for (text, part), onset in zip(parts, onsets, strict=True)
    ]  # fmt: skip
    rows = _density_rows(series, row) + found[0] + _rate_rows(series, row)
    if len(parts) > 1:
        for (_, part), of_part in zip(parts, found, strict=True):
            where = {"frame": int(part.frames[-1]), "time_s": part.time_s(-1)}
            rows += [replace(one, **where) for one in of_part]
    return rows


def _parts(series: BirthSeries, platings: Sequence[HalfCycle]) -> list[tuple[str, BirthSeries]]:
    """What laws are fitted to, and how it is called: the plating half-cycles, else the series (no name)."""
    parts = []
    for cycle in platings:
        inside = np.flatnonzero(np.isin(series.frames, cycle.frames))
        # Growth starts from the last frame before the current; what is there by then was not born of it.
        begin = max(int(inside[0]) - 1, 0) if len(inside) else 0
        if not len(inside) or inside[-1] == begin:
            continue
        part = series.between(begin, int(inside[-1]))
        if inside[0] > 0:
            part.births[0] = 0
        parts.append((f"plating of cycle {cycle.cycle}, frames {part.frames[0]} to {part.frames[-1]}", part))
    return parts or [("", series)]


def _onsets(parts: Sequence[BirthSeries], onset_s: float | None) -> list[float | None]:
    """Give a known onset to the part that it lies in (or before); the others find their own."""
    reached = [k for k, part in enumerate(parts) if onset_s is not None and part.clock[-1] > onset_s]
    given = reached[0] if reached else len(parts) - 1
    return [onset_s if k == given else None for k in range(len(parts))]


def _part_rows(
    part: BirthSeries, text: str, onset_s: float | None, burst_s: float | None, row: partial[Measurement]
) -> list[Measurement]:
    """Rate, law and parameters of a series or a half-cycle."""
    if text:
        row = partial(row, side="plating")
    text = "; ".join(filter(None, (text, part.dated)))
    rate = _mean_rate(part, row, text)
    since = since_onset(part, onset_s, burst_s)
    flags = part.flags
    if onset_s is None and part.births[0]:
        flags = (*flags, "extrapolated")
    if since is None:
        method = "; ".join(["too few births", *([text] if text else [])])
        nothing = partial(row, value=math.nan, unit="1", n=int(part.births.sum()), method=method)
        return [rate] + [
            nothing(name, flags=(*flags, "ambiguous")) for name in ("nucleation_mode", "nucleation_mode_textbook")
        ]
    if text:
        since = replace(since, how=f"{since.how}; {text}")
    return [rate, *_law_rows(part, since, flags, row)]


@dataclass(frozen=True)
class LawCurves:
    """The fitted laws as curves, to be drawn beside the births.

    Parameters
    ----------
    clock : ndarray of float, shape (K + 1,)
        On the clock of the frames.
    density : dict of str to ndarray of float, shape (K + 1,)
        Births to date per area, in `unit`, that each law expects.
    weights : dict of str to float
        Akaike weights.
    law : str
        The law chosen.
    refused : bool
        Whether no law can be told from the others.
    unit : str
    """

    clock: np.ndarray
    density: dict[str, np.ndarray]
    weights: dict[str, float]
    law: str
    refused: bool
    unit: str


def law_curves(
    table: pd.DataFrame, *, onset_s: float | None = None, burst_s: float | None = None,
    half_cycles: Iterable[HalfCycle] = (),
) -> LawCurves | None:  # fmt: skip
    """Fit the laws to the same rows as `measure_series`, for a figure; None for fewer than three births.

    With half-cycles the first one of plating, as in the rows of the series.
    """
    series = birth_series(table)
    dated = table[table["metric"] == "nucleation_density"].drop_duplicates("frame").set_index("frame")["n"].dropna()
    if set(series.frames) <= set(dated.index):  # births as the rows have them, dated back or not
        series = replace(series, births=np.diff(dated.loc[series.frames].to_numpy(int), prepend=0))
    series = _parts(series, [cycle for cycle in half_cycles if cycle.kind == "plating"])[0][1]
    since = since_onset(series, onset_s, burst_s) if len(series.frames) > 1 else None
    if since is None:
        return None
    verdict = compare_laws(since.births)
    per_window = series.factor / float(np.nanmean(series.birth_area))
    law, refused = verdict.law, verdict.refused
    said = table[(table["metric"] == "nucleation_mode") & table["frame"].isna()]
    if len(said):  # which also knows how well births were dated
        law = text_result("nucleation_mode", str(said["method"].iloc[0])) or law
        refused = bool(said["value"].isna().iloc[0])
    return LawCurves(
        since.births.edges_s + since.onset,
        {
            law: (expected_births(since.births, fit) + since.set_aside) * per_window
            for law, fit in verdict.fits.items()
        },
        verdict.weights, law, refused, series.per_area,
    )  # fmt: skip


def _density_rows(series: BirthSeries, row: partial[Measurement]) -> list[Measurement]:
    """Births to date per area, for every frame."""
    rows = []
    first, area = int(series.births[0]), float(np.nanmean(series.area))
    window = float(np.nanmean(series.birth_area))
    total = np.cumsum(series.births)
    method = "births to date, exact Poisson interval" + (f", {first} of them before the first frame" if first else "")
    method = "; ".join(filter(None, (method, series.dated)))
    for index, frame in enumerate(series.frames):
        n, seen = int(total[index]), int(total[index]) - first
        # One effective area for both kinds of births, so that the interval of their sum is a Poisson one.
        effective = n / (first / area + seen / window) if n and window > 0 else area
        values = [
            count / effective * series.factor if effective > 0 else math.nan for count in (n, *poisson_interval(n))
        ]
        rows.append(
            row(
                "nucleation_density", values[0], series.per_area, low=values[1], high=values[2], frame=int(frame),
                time_s=series.time_s(index), n=n, method=method, flags=series.flags,
            )
        )  # fmt: skip
    return rows


def _mean_rate(series: BirthSeries, row: partial[Measurement], text: str = "") -> Measurement:
    """Births per bare area and time after the first frame."""
    exposure = float(np.nansum(_exposure(series)))
    return _rate(series, row, int(series.births[1:].sum()), exposure, text)


def _rate_rows(series: BirthSeries, row: partial[Measurement]) -> list[Measurement]:
    """Births per bare area and time of every interval."""
    exposure, counts = _exposure(series), series.births[1:]
    return [
        _rate(
            series, partial(row, frame=int(series.frames[i + 1]), time_s=series.time_s(i + 1)), int(counts[i]),
            float(exposure[i]),
        )
        for i in range(len(counts))
    ]  # fmt: skip


def _exposure(series: BirthSeries) -> np.ndarray:
    """Bare area times duration of every interval; 0 where nothing is bare and nothing was born."""
    bare = (series.bare[1:] + series.bare[:-1]) / 2
    bare = np.where((bare <= LEAST_BARE) & (series.births[1:] == 0), 0.0, bare)
    return np.asarray(np.diff(series.clock) * bare * series.birth_area[1:])


def _rate(
    series: BirthSeries, row: partial[Measurement], count: int, bare_area_time: float, text: str = ""
) -> Measurement:  # fmt: skip
    value, low, high = (
        number / bare_area_time * series.factor if bare_area_time > 0 else math.nan
        for number in (count, *poisson_interval(count))
    )
    method = "; ".join(["births per bare area and time, exact Poisson interval", *([text] if text else [])])
    unit = rate_unit(series.per_area, timed=series.timed)
    return row("nucleation_rate", value, unit, low=low, high=high, n=count, method=method, flags=series.flags)


def _law_rows(
    series: BirthSeries, since: SinceOnset, flags: tuple[str, ...], row: partial[Measurement]
) -> list[Measurement]:
    births, conditions = since.births, since.how
    verdict = compare_laws(births)
    if since.blurred and verdict.law == "instantaneous":
        verdict = replace(verdict, refused=True, between=("instantaneous", "saturating"))
    fit = verdict.widest
    row = partial(row, n=births.n)
    rows = _mode_rows(verdict, births.n, conditions, flags, row)
    if verdict.refused:
        flags = (*flags, "ambiguous")
    row = partial(row, method=f"{fit.law} law, {conditions}, 95 % profile likelihood")
    window = float(np.nanmean(series.birth_area))

    def parameter(metric: str, found: Estimate, unit: str, factor: float = 1.0, extra: int = 0) -> Measurement:
        bounded = math.isfinite(found.value) and not (math.isnan(found.low) or math.isnan(found.high))
        reached = flags if bounded else (*flags, "regime-not-reached")
        # A maximum at the end of what was searched is no estimate.
        value = found.value if bounded else math.nan
        value, low, high = ((end + extra) * factor for end in (value, found.low, found.high))
        return row(metric, value, unit, low=low, high=high, flags=reached)

    per_window = series.factor / window if window else math.nan
    share = verdict.fits["mixed"].instantaneous_fraction
    if "instantaneous" in (verdict.law, *verdict.between) and math.isfinite(share.high):
        share = replace(share, high=1.0)
    if verdict.law == "progressive":  # no end of the sites in sight: a share of them has no meaning
        share = Estimate(math.nan)
    per_time = "1/s" if series.timed else "1/frame"
    return [
        *rows,
        parameter("nucleation_saturation_density", fit.sites, series.per_area, per_window, since.set_aside),
        parameter("nucleation_rate_constant", verdict.rate_constant_per_s, per_time),
        parameter("instantaneous_fraction", share, "1"),
    ]


def _mode_rows(
    verdict: Verdict, n: int, conditions: str, flags: tuple[str, ...], row: partial[Measurement]
) -> list[Measurement]:
    weights = ", ".join(f"{law} {weight:.2f}" for law, weight in verdict.weights.items())
    textbook: dict[str, float] = {}
    for law, weight in verdict.weights.items():
        textbook[_TEXTBOOK[law]] = textbook.get(_TEXTBOOK[law], 0.0) + weight
    refusal = ""
    if verdict.refused:
        flags = (*flags, "ambiguous")
        few = f"{n} of {MIN_BIRTHS} births"
        why = few if n < MIN_BIRTHS else f"undecided between {' and '.join(verdict.between)}"
        refusal = f"no verdict ({why}); nearest "
    said = (
        f"{refusal}{verdict.law}; in the letter's words {_LETTER[verdict.law]}; AICc weights: {weights}; {conditions}"
    )
    label = _TEXTBOOK[verdict.law]
    rest = ", ".join(f"{name} {weight:.2f}" for name, weight in textbook.items())
    value, of_textbook = verdict.weights[verdict.law], textbook[label]
    if verdict.refused:
        value = of_textbook = math.nan
    return [
        row("nucleation_mode", value, "1", method=said, flags=flags),
        row("nucleation_mode_textbook", of_textbook, "1", method=f"{refusal}{label}; weights: {rest}", flags=flags),
    ]


def density_current_slope(
    counts: Sequence[int] | np.ndarray,
    areas: Sequence[float] | np.ndarray,
    current_densities_mA_per_cm2: Sequence[float] | np.ndarray,
    *,
    class_name: str = "",
) -> Measurement:
    """Slope of log density against log current density over the fields of a study.

    Parameters
    ----------
    counts : sequence of int, shape (N,)
        Objects of each field of view.
    areas : sequence of float, shape (N,)
        Their valid areas, all in one unit.
    current_densities_mA_per_cm2 : sequence of float, shape (N,)
    class_name : str

    Returns
    -------
    Measurement
        ``density_current_slope``. NaN for fewer than two current densities or without objects, and without an
        interval for fewer than three fields.

    Notes
    -----
    Poisson regression, so that empty fields count and large ones weigh more. Where the fields scatter by more than
    Poisson numbers do (objects in clusters), the interval is widened by that much and taken from Student's law.
    """
    y = np.asarray(counts, float)
    current = np.abs(np.asarray(current_densities_mA_per_cm2, float))
    size = np.asarray(areas, float)
    row = partial(Measurement, "density_current_slope", unit="1", class_name=class_name, n=len(y))
    if not (len(y) == len(current) == len(size)):
        raise ValueError(
            f"Got {len(y)} counts, {len(size)} areas and {len(current)} current densities; give one per field."
        )
    if not (np.isfinite(current) & (current > 0) & (size > 0)).all():
        raise ValueError("Every field needs an area and a current density other than zero.")
    x = np.log(current)
    if len(np.unique(x)) < 2 or y.sum() == 0:
        why = "needs two current densities" if y.sum() else "no objects"
        return row(math.nan, method=why, flags=("regime-not-reached",))
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    beta = np.array([math.log(y.sum() / size.sum()), 0.0])
    for _ in range(100):
        expected = size * np.exp(design @ beta)
        information = design.T @ (expected[:, None] * design)
        step = np.linalg.solve(information, design.T @ (y - expected))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    expected = size * np.exp(design @ beta)
    error = math.sqrt(np.linalg.inv(design.T @ (expected[:, None] * design))[1, 1])
    freedom = len(y) - 2
    if freedom < 1:
        return row(float(beta[1]), method="Poisson regression of two fields")
    from scipy.special import chdtrc, stdtrit

    pearson = float(((y - expected) ** 2 / expected).sum())
    scattered = pearson / freedom > 1 and chdtrc(freedom, pearson) < 0.2
    width = float(stdtrit(freedom, 0.975)) * math.sqrt(pearson / freedom) if scattered else 1.959964
    method = f"Poisson regression, {len(np.unique(x))} current densities"
    if scattered:
        method += f", variance {pearson / freedom:.2g} times that of Poisson numbers"
    slope = float(beta[1])
    return row(slope, low=slope - width * error, high=slope + width * error, method=method)
