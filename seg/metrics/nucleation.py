"""Nucleation from births: density and rate over time, the law they follow and its parameters, slope over a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.metrics.nucleation_laws import (
    MIN_BIRTHS,
    MIN_DELTA,
    Births,
    Estimate,
    Verdict,
    compare_laws,
    expected_births,
)
from seg.metrics.table import UM2_PER_CM2, Measurement, rate_unit
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

_BURST_SHARE = 0.05
# A birth shows that there was some bare substrate, whatever the mask says.
_LEAST_BARE = 1e-6


@dataclass(frozen=True)
class BirthSeries:
    """Births over the frames of a series.

    Parameters
    ----------
    frames : ndarray of int, shape (T,)
    clock : ndarray of float, shape (T,)
        Seconds where every frame has a time, else frame numbers.
    timed : bool
        Which of the two.
    births : ndarray of int, shape (T,)
        New objects of each frame; of the first frame those already there.
    bare : ndarray of float, shape (T,)
        Share of the valid area that is free of deposit.
    area, birth_area : ndarray of float, shape (T,)
        Valid area, and its part in which a newborn object is seen whole.
    class_name : str
    flags : tuple of str
        Of all rows.
    calibrated : bool
    """

    frames: np.ndarray
    clock: np.ndarray
    timed: bool
    births: np.ndarray
    bare: np.ndarray
    area: np.ndarray
    birth_area: np.ndarray
    class_name: str
    flags: tuple[str, ...]
    calibrated: bool

    @property
    def per_area(self) -> str:
        """Unit of a density."""
        return "1/cm2" if self.calibrated else "1/px2"

    @property
    def factor(self) -> float:
        """From 1/um2 (1/px2) to the unit of a density."""
        return UM2_PER_CM2 if self.calibrated else 1.0

    def time_s(self, index: int) -> float | None:
        """Time of a frame, where known."""
        return float(self.clock[index]) if self.timed else None


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
        ``instantaneous_fraction``. The mode is NaN with the flag ``ambiguous`` for fewer than 20 births or laws closer
        than 2 in AICc; a parameter that the data do not bound is NaN with ``regime-not-reached``.

    Notes
    -----
    A newborn that the frame cuts is not known to be born there. Births are counted where a newborn is seen whole,
    and divided by the area in which it would be: the valid area (taken as a square) less the detection limit on each
    side. Objects of the first frame are divided by the valid area. Rates and sites refer to bare substrate: a
    site that is covered before it nucleates is not lost from N0. Where the first frame already shows objects, onset
    is taken to be one interval earlier, and what is in it to be born since; the rows are flagged ``extrapolated``.
    """
    series = _series(table)
    row = partial(Measurement, class_name=series.class_name)
    if len(series.frames) < 2:
        nothing = partial(row, value=math.nan, flags=(*series.flags, "single-frame"))
        return [nothing("nucleation_density", unit=series.per_area), nothing("nucleation_mode", unit="1")]
    rows = _density_rows(series, row) + _rate_rows(series, row)
    since = _since_onset(series, onset_s, burst_s)
    flags = series.flags
    if onset_s is None and series.births[0]:
        flags = (*flags, "extrapolated")
    if since is None:
        nothing = partial(row, value=math.nan, unit="1", n=int(series.births.sum()), method="too few births")
        names = ("nucleation_mode", "nucleation_mode_textbook")
        return rows + [nothing(name, flags=(*flags, "ambiguous")) for name in names]
    return rows + _law_rows(series, since, flags, row)


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


def law_curves(table: pd.DataFrame, *, onset_s: float | None = None, burst_s: float | None = None) -> LawCurves | None:
    """Fit the laws to the same rows as `measure_series`, for a figure; None for fewer than three births."""
    series = _series(table)
    since = _since_onset(series, onset_s, burst_s) if len(series.frames) > 1 else None
    if since is None:
        return None
    verdict = compare_laws(since.births)
    per_window = series.factor / float(np.nanmean(series.birth_area))
    return LawCurves(
        since.births.edges_s + since.onset,
        {
            law: (expected_births(since.births, fit) + since.set_aside) * per_window
            for law, fit in verdict.fits.items()
        },
        verdict.weights, verdict.law, verdict.refused, series.per_area,
    )  # fmt: skip


def _series(table: pd.DataFrame) -> BirthSeries:
    """Collect the rows of the frames; UsageError names the group that is missing."""
    of_frames = table[table["frame"].notna() & table["object_id"].isna()]

    def column(metric: str, class_name: str | None = None) -> pd.DataFrame:
        rows = of_frames[of_frames["metric"] == metric]
        if class_name is not None and (rows["class"] == class_name).any():
            rows = rows[rows["class"] == class_name]
        return rows.drop_duplicates("frame").set_index("frame").sort_index()

    counts, areas = column("object_count"), column("valid_area")
    if counts.empty or areas.empty:
        raise UsageError("Metric group 'nucleation' needs the rows of 'counting'; add `counting: {}` to metrics.")
    births = column("birth_count")
    if births.empty and len(counts) > 1:
        raise UsageError("Metric group 'nucleation' needs tracked objects; add `events: {}` to metrics.")
    class_name = str(counts["class"].iloc[0] or "")
    frames = counts.index.to_numpy(int)
    new = births["value"].reindex(frames).fillna(0).to_numpy(float, copy=True)
    new[0] = np.nan_to_num(counts["value"].iloc[0])
    covered = column("covered_fraction", class_name)
    bare = 1 - covered["value"].reindex(frames).interpolate().bfill().fillna(0).to_numpy(float)
    area = areas["value"].reindex(frames).to_numpy(float)
    limit = column("detection_limit_diameter")
    diameter = limit["value"].reindex(frames).ffill().bfill().to_numpy(float) if len(limit) else np.zeros(len(frames))
    times_s = counts["time_s"].to_numpy(float)
    timed = bool(np.isfinite(times_s).all() and (np.diff(times_s) > 0).all())
    calibrated = str(areas["unit"].iloc[0]) == "um2"
    return BirthSeries(
        frames, times_s if timed else frames.astype(float), timed, np.rint(new).astype(int),
        np.clip(bare, _LEAST_BARE, 1), area,
        np.maximum(np.sqrt(area) - diameter, 0) ** 2, class_name,
        () if calibrated and timed else ("uncalibrated",), calibrated,
    )  # fmt: skip


def _density_rows(series: BirthSeries, row: partial[Measurement]) -> list[Measurement]:
    """Births to date per area, for every frame."""
    rows = []
    first, area = int(series.births[0]), float(np.nanmean(series.area))
    window = float(np.nanmean(series.birth_area))
    total = np.cumsum(series.births)
    method = "births to date, exact Poisson interval" + (f", {first} of them before the first frame" if first else "")
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


def _rate_rows(series: BirthSeries, row: partial[Measurement]) -> list[Measurement]:
    """Births per bare area and time: of every interval, and of the whole series (the first row)."""
    unit = rate_unit(series.per_area, timed=series.timed)
    exposure = np.diff(series.clock) * (series.bare[1:] + series.bare[:-1]) / 2 * series.birth_area[1:]
    counts = series.births[1:]

    def rate(count: int, bare_area_time: float, **where: object) -> Measurement:
        values = [
            number / bare_area_time * series.factor if bare_area_time > 0 else math.nan
            for number in (count, *poisson_interval(count))
        ]
        return row(
            "nucleation_rate", values[0], unit, low=values[1], high=values[2], n=count,
            method="births per bare area and time, exact Poisson interval", flags=series.flags, **where,
        )  # fmt: skip

    whole = rate(int(counts.sum()), float(np.nansum(exposure)))
    return [whole] + [
        rate(int(counts[i]), float(exposure[i]), frame=int(series.frames[i + 1]), time_s=series.time_s(i + 1))
        for i in range(len(counts))
    ]


@dataclass(frozen=True)
class _SinceOnset:
    """Births per interval since onset, how that was found, and births that only set the clock."""

    births: Births
    how: str
    set_aside: int = 0
    onset: float = 0.0


def _since_onset(series: BirthSeries, onset_s: float | None, burst_s: float | None) -> _SinceOnset | None:
    """Births on the clock that starts at onset; None for fewer than three."""
    clock, counts, set_aside = series.clock, series.births, 0
    unit = " s" if series.timed else " frames"
    if onset_s is not None:
        if not series.timed:
            raise UsageError("nucleation: onset_s needs frame times; give the frame interval.")
        after = np.flatnonzero(clock > onset_s)
        if not len(after):
            raise UsageError(f"nucleation: onset_s = {onset_s:g} is not before the last frame ({clock[-1]:g} s).")
        first, onset, how = int(after[0]), float(onset_s), f"onset given, {onset_s:g} s"
        new = counts[first:].copy()
        new[0] += counts[:first].sum()
    elif counts[0]:
        first, onset = 0, float(clock[0] - (clock[1] - clock[0]))
        new, how = counts.copy(), "onset before the first frame, taken one interval earlier"
    else:
        born = np.flatnonzero(counts)
        if not len(born):
            return None
        first, onset, set_aside = int(born[0]), float(clock[born[0] - 1]), 1
        new = counts[first:].copy()
        new[0] -= set_aside
        how = f"onset with the first birth, {onset:.4g}{unit}"
    if new.sum() < 3:  # AICc of a single parameter takes three
        return None
    edges = np.concatenate([[0.0], clock[first:] - onset])
    before = series.bare[first - 1 : -1] if first else np.concatenate([[1.0], series.bare[:-1]])
    burst = _BURST_SHARE * edges[-1] if burst_s is None else burst_s
    births = Births(edges, new, (before + series.bare[first:]) / 2).from_burst(burst)
    return _SinceOnset(births, f"{how}, at once means within {births.edges_s[1]:.4g}{unit}", set_aside, onset)


def _law_rows(
    series: BirthSeries, since: _SinceOnset, flags: tuple[str, ...], row: partial[Measurement]
) -> list[Measurement]:
    births, conditions = since.births, since.how
    verdict = compare_laws(births)
    best = verdict.best
    row = partial(row, n=births.n)
    rows = _mode_rows(verdict, births.n, conditions, flags, row)
    if verdict.refused:
        flags = (*flags, "ambiguous")
    row = partial(row, method=f"{verdict.law} law, {conditions}, 95 % profile likelihood")
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
    if verdict.law == "progressive":  # no end of the sites in sight: a share of them has no meaning
        share = Estimate(math.nan)
    per_time = "1/s" if series.timed else "1/frame"
    return [
        *rows,
        parameter("nucleation_saturation_density", best.sites, series.per_area, per_window, since.set_aside),
        parameter("nucleation_rate_constant", best.rate_constant_per_s, per_time),
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
        refusal = f"no verdict ({n} of {MIN_BIRTHS} births)" if n < MIN_BIRTHS else f"no verdict (< {MIN_DELTA:g} AICc)"
        refusal += "; nearest "
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
    from scipy.special import stdtrit
    from scipy.stats import chi2

    pearson = float(((y - expected) ** 2 / expected).sum())
    scattered = pearson / freedom > 1 and chi2.sf(pearson, freedom) < 0.2
    width = float(stdtrit(freedom, 0.975)) * math.sqrt(pearson / freedom) if scattered else 1.959964
    method = f"Poisson regression, {len(np.unique(x))} current densities"
    if scattered:
        method += f", variance {pearson / freedom:.2g} times that of Poisson numbers"
    slope = float(beta[1])
    return row(slope, low=slope - width * error, high=slope + width * error, method=method)
