"""Laws of nucleation fitted to births: instantaneous, progressive, saturating, mixed.

Notes
-----
Fitted are the births per interval, each a Poisson number, not the visible count: that falls with every merge, and its
points are not independent (a least-squares fit of the cumulative curve picks the right law in one case of ten). With
``bare`` the share of the substrate that is still free, the expected births of an interval from s to e after onset are

==============  ==================================================  ==========
law             expected births                                     parameters
==============  ==================================================  ==========
instantaneous   N0 at onset                                         N0
progressive     a bare (e - s)                                      a
saturating      N0 bare [exp(-A s) - exp(-A e)]                     N0, A
mixed           Ni at onset + Np bare [exp(-A s) - exp(-A e)]       Ni, Np, A
==============  ==================================================  ==========

Instantaneous nucleation would exclude any later birth; up to 1 % of its births may come at any time, so that a
single mistake of the tracking does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LAWS = {"instantaneous": 1, "progressive": 1, "saturating": 2, "mixed": 3}
"""Law -> number of parameters."""

# What each law contains as a special case: as rivals of it they cannot be told apart by the data alone.
_CONTAINED = {
    "instantaneous": (),
    "progressive": (),
    "saturating": ("instantaneous", "progressive"),
    "mixed": ("instantaneous", "progressive", "saturating"),
}
MIN_BIRTHS = 20
MIN_DELTA = 2.0
_MATERIAL = 0.25
_STRAY = 0.01
_AT_ONCE = 3.0  # rate constant times first interval
_DROP = 1.920729  # of the log-likelihood at the ends of a 95 % profile interval, chi2(1) / 2
_GRID_RATES, _GRID_FRACTIONS, _GRID_NUMBERS = 160, 81, 241


@dataclass(frozen=True)
class Births:
    """Births in consecutive intervals.

    Parameters
    ----------
    edges_s : ndarray of float, shape (K + 1,)
        Times since onset; the first is 0.
    counts : ndarray of int, shape (K,)
    bare : ndarray of float, shape (K,)
        Share of the substrate that is free.
    onset_doubt_s : float
        By how much later than at 0 the onset may have been; less than the first interval.
    late_share : float
        Of the births at onset the share that is dated into the second interval by mistake.
    """

    edges_s: np.ndarray
    counts: np.ndarray
    bare: np.ndarray
    onset_doubt_s: float = 0.0
    late_share: float = 0.0

    def __post_init__(self) -> None:
        if len(self.edges_s) != len(self.counts) + 1 or len(self.bare) != len(self.counts) or not len(self.counts):
            raise ValueError(
                f"{len(self.counts)} intervals need as many bare shares and one more edge; got {len(self.bare)} and "
                f"{len(self.edges_s)}."
            )
        if not (np.diff(self.edges_s) > 0).all():
            raise ValueError("The edges of the intervals must ascend.")

    @property
    def n(self) -> int:
        """All births."""
        return int(self.counts.sum())

    def from_burst(self, burst_s: float) -> Births:
        """Join the first intervals into one of at least `burst_s`: what is born in it may have been born at once."""
        m = int(np.searchsorted(self.edges_s, burst_s * (1 - 1e-9)))
        m = min(max(m, 1), len(self.counts) - 1 or 1)
        lengths = np.diff(self.edges_s)[:m]
        bare = float((self.bare[:m] * lengths).sum() / lengths.sum())
        return Births(
            np.concatenate([[0.0], self.edges_s[m:]]),
            np.concatenate([[self.counts[:m].sum()], self.counts[m:]]),
            np.concatenate([[bare], self.bare[m:]]),
            self.onset_doubt_s,
            self.late_share,
        )

    @property
    def at_once(self) -> np.ndarray:
        """Shares of the births at onset that are dated into each interval; shape (K,)."""
        shares = np.zeros(len(self.counts))
        shares[:2] = np.array([1 - self.late_share, self.late_share])[: len(shares)]
        return shares / shares.sum()


@dataclass(frozen=True)
class Estimate:
    """A parameter with its 95 % profile-likelihood interval; an end that the data do not bound is NaN."""

    value: float
    low: float = math.nan
    high: float = math.nan


_UNKNOWN = Estimate(math.nan)


@dataclass(frozen=True)
class LawFit:
    """The most likely form of one law.

    Parameters
    ----------
    law : str
    log_likelihood, aicc : float
    sites : Estimate
        N0, or Ni + Np, as a number in the field of view.
    rate_constant_per_s : Estimate
        A.
    instantaneous_fraction : Estimate
        Ni / (Ni + Np).
    """

    law: str
    log_likelihood: float
    aicc: float
    sites: Estimate = _UNKNOWN
    rate_constant_per_s: Estimate = _UNKNOWN
    instantaneous_fraction: Estimate = _UNKNOWN


@dataclass(frozen=True)
class Verdict:
    """The laws compared.

    Parameters
    ----------
    fits : dict of str to LawFit
    weights : dict of str to float
        Akaike weights.
    law : str
        With the smallest AICc; a special case of that law that is not worse by 2 is preferred.
    delta : float
        By how much the AICc of the nearest rival is larger. A law that contains `law` as a special case is a rival
        only where its AICc is smaller: it is never larger by much more than 2 per parameter, whatever the data, as
        its extra parameters may explain nothing.
    refused : bool
        Too few births, or too close.
    rate_constant_per_s : Estimate
        Of `widest`, with an interval that holds any onset within its doubt.
    between : tuple of str
        Where laws cannot be told apart: `law` and the one that is as good, or that contains `law` and of which the
        data allow a form that differs in substance.
    """

    fits: dict[str, LawFit]
    weights: dict[str, float]
    law: str
    delta: float
    refused: bool
    rate_constant_per_s: Estimate
    between: tuple[str, ...] = ()

    @property
    def best(self) -> LawFit:
        """The fit of `law`."""
        return self.fits[self.law]

    @property
    def widest(self) -> LawFit:
        """The fit that parameters are read from: of two laws that cannot be told apart, the one with the other in it.

        Intervals of the narrower one would hold only if it were the right one.
        """
        return self.fits[_wider(self.law, self.between)]


def compare_laws(births: Births) -> Verdict:
    """Fit all laws and weigh them by AICc, the number of births being the size of the sample.

    Parameters
    ----------
    births : Births
        With at least one birth.
    """
    if births.n < 1:
        raise ValueError("Without births there is no law to fit.")
    fits = {law: fit_law(births, law) for law in LAWS}
    aicc = {law: fit.aicc for law, fit in fits.items()}
    least = min(aicc.values())
    relative = {law: math.exp(-0.5 * (value - least)) for law, value in aicc.items()}
    total = sum(relative.values())
    winner = min(aicc, key=lambda name: aicc[name])
    close = [name for name in (*_CONTAINED[winner], winner) if aicc[name] - least < MIN_DELTA]
    law = min(close, key=lambda name: (LAWS[name], aicc[name]))
    rivals = [
        name for name in LAWS
        if name != law and (law not in _CONTAINED[name] or aicc[name] < aicc[law])
    ]  # fmt: skip
    delta = min((aicc[name] - aicc[law] for name in rivals), default=math.inf)
    weights = {name: value / total for name, value in relative.items()}
    close = [name for name in rivals if aicc[name] - aicc[law] < MIN_DELTA]
    close += [name for name in LAWS if name not in close and _may_matter(births, fits, law, name)]
    between = (law, min(close, key=lambda name: aicc[name])) if close else ()
    widest = _wider(law, between)
    rate = fits[widest].rate_constant_per_s
    if births.onset_doubt_s > 0 and math.isfinite(rate.value):
        rate = _rate_of_any_onset(births, widest)
    return Verdict(fits, weights, law, delta, births.n < MIN_BIRTHS or bool(between), rate, between)


def _wider(law: str, between: tuple[str, ...]) -> str:
    """Of two laws that cannot be told apart the one that contains the other, if any does; else `law`."""
    other = between[1] if between else law
    return other if law in _CONTAINED[other] else law


def _may_matter(births: Births, fits: dict[str, LawFit], law: str, wider: str) -> bool:
    """Whether the data leave room for a form of a wider law that is another law in substance.

    A law that contains `law` is never much worse, so that its AICc does not tell. What tells is how far its extra
    parameter may go: a quarter of the sites born at once, or a rate that has fallen to a quarter by the last frame.
    """
    if (law, wider) == ("saturating", "mixed"):
        share = fits["mixed"].instantaneous_fraction
        return math.isnan(share.high) or share.high > _MATERIAL
    if (law, wider) == ("progressive", "saturating"):
        rate = fits["saturating"].rate_constant_per_s
        return math.isnan(rate.high) or math.exp(-rate.high * births.edges_s[-1]) < _MATERIAL
    return False


def fit_law(births: Births, law: str) -> LawFit:
    """Maximum likelihood of one law, with profile-likelihood intervals."""
    if law not in LAWS:
        raise ValueError(f"There is no law {law!r}; there are {', '.join(LAWS)}.")
    n, lengths = births.n, np.diff(births.edges_s)
    if law == "progressive":
        shape = births.bare * lengths
        return _finish(law, _poisson(births.counts, shape / shape.sum() * n), n)
    if law == "instantaneous":
        stray = min(_STRAY, 1 - births.counts[0] / n)
        shape = stray * lengths / lengths.sum() + (1 - stray) * births.at_once
        sites = _number_interval(n, np.array([0.0]), np.array([1.0]))
        return _finish(law, _poisson(births.counts, shape * n), n, sites, fraction=Estimate(1.0))
    fractions = np.zeros(1) if law == "saturating" else np.sin(np.linspace(0, math.pi / 2, _GRID_FRACTIONS)) ** 2
    # Faster than that is at once: the first interval cannot tell.
    rates = np.geomspace(0.02 / births.edges_s[-1], _AT_ONCE / lengths[0], 2 * _GRID_RATES)
    # Twice closer to where the likelihood is: a fixed grid would be too coarse for thousands of births.
    for _ in range(2):
        surface = _Surface.of(births, fractions, rates)
        top = surface.profile(axis=1)
        likely = np.flatnonzero(top > top.max() - 12)
        rates = np.geomspace(rates[max(likely[0] - 1, 0)], rates[min(likely[-1] + 1, len(rates) - 1)], _GRID_RATES)
        if len(fractions) > 1:
            side = surface.profile(axis=0)
            likely = np.flatnonzero(side > side.max() - 12)
            ends = fractions[max(likely[0] - 1, 0)], fractions[min(likely[-1] + 1, len(fractions) - 1)]
            angles = np.linspace(*np.arcsin(np.sqrt(ends)), _GRID_FRACTIONS)
            fractions = np.sin(angles) ** 2
    surface = _Surface.of(births, fractions, rates)
    best = np.unravel_index(int(np.argmax(surface.values)), surface.values.shape)
    sites = _number_interval(n, surface.shapes.ravel(), surface.totals.ravel(), at=float(n / surface.totals[best]))
    rate = _interval(rates, surface.profile(axis=1))
    fraction = Estimate(0.0)
    if law == "mixed":
        fraction = _share(surface, fractions, rates, births.onset_doubt_s)
    log_likelihood = float(surface.values[best]) - _log_factorials(births.counts)
    return _finish(law, log_likelihood, n, sites, rate, fraction)


def expected_births(births: Births, fit: LawFit) -> np.ndarray:
    """Births that a fitted law expects until each edge of the intervals; shape (K + 1,).

    Parameters
    ----------
    births : Births
        Those that were fitted.
    fit : LawFit
    """
    lengths = np.diff(births.edges_s)
    if fit.law == "instantaneous":
        return np.full(len(births.edges_s), float(births.n))
    if fit.law == "progressive":
        shape = births.bare * lengths
        return np.concatenate([[0.0], np.cumsum(shape) / shape.sum() * births.n])
    decay = np.exp(-fit.rate_constant_per_s.value * births.edges_s)
    later = np.concatenate([[0.0], np.cumsum(births.bare * -np.diff(decay))])
    share = fit.instantaneous_fraction.value
    return np.asarray(fit.sites.value * (share + (1 - share) * later))


@dataclass(frozen=True)
class _Surface:
    """Log-likelihood over instantaneous share (rows) and rate constant (columns), the number of sites profiled out.

    ``shapes`` is the part sum(y log shape), ``totals`` the expected births per site.
    """

    values: np.ndarray
    shapes: np.ndarray
    totals: np.ndarray

    @classmethod
    def of(cls, births: Births, fractions: np.ndarray, rates: np.ndarray) -> _Surface:
        decay = np.exp(-rates[:, None] * births.edges_s)
        later = births.bare * -np.diff(decay, axis=1)  # (rates, K): share of the sites born in each interval
        seen, share = births.counts > 0, fractions[:, None]
        # Only what is born at once makes the share matter for more than the number of births.
        burst = births.at_once > 0
        rest = seen & ~burst
        with np.errstate(divide="ignore"):
            shapes = (births.counts[rest] * np.log(later[:, rest])).sum(axis=1)
            n_rest = int(births.counts[rest].sum())
            shapes = shapes + (np.log1p(-share) * n_rest if n_rest else np.zeros_like(share))
            for index in np.flatnonzero(seen & burst):
                expected = share * births.at_once[index] + (1 - share) * later[:, index]
                shapes = shapes + births.counts[index] * np.log(expected)
        totals = share + (1 - share) * later.sum(axis=1)
        n = births.n
        return cls(shapes - n * np.log(totals) + n * math.log(n) - n, shapes, totals)

    def profile(self, *, axis: int) -> np.ndarray:
        """Largest likelihood for each rate (axis 1) or share (axis 0)."""
        return np.asarray(self.values.max(axis=1 - axis))


def _finish(
    law: str, log_likelihood: float, n: int, sites: Estimate = _UNKNOWN, rate: Estimate = _UNKNOWN,
    fraction: Estimate = _UNKNOWN,
) -> LawFit:  # fmt: skip
    k = LAWS[law]
    correction = 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf
    return LawFit(law, log_likelihood, 2 * k - 2 * log_likelihood + correction, sites, rate, fraction)


def _poisson(counts: np.ndarray, expected: np.ndarray) -> float:
    """Log-likelihood of Poisson numbers; an interval without bare substrate must be empty."""
    from scipy.special import xlogy

    return float((xlogy(counts, expected) - expected).sum()) - _log_factorials(counts)


def _log_factorials(counts: np.ndarray) -> float:
    return sum(math.lgamma(count + 1) for count in counts.tolist())


def _interval(grid: np.ndarray, profile: np.ndarray) -> Estimate:
    """Maximum of a profile and where it has fallen by `_DROP`; NaN for an end outside of the grid."""
    top = int(np.argmax(profile))
    level = profile[top] - _DROP
    below = np.flatnonzero(profile < level)
    left, right = below[below < top], below[below > top]
    low = high = math.nan
    if len(left):
        low = float(np.interp(level, profile[left[-1] : left[-1] + 2], grid[left[-1] : left[-1] + 2]))
    if len(right):
        i = right[0]
        high = float(np.interp(level, profile[[i, i - 1]], grid[[i, i - 1]]))
    return Estimate(float(grid[top]), low, high)


def _rate_of_any_onset(births: Births, law: str) -> Estimate:
    """Rate constant of a law, whenever the onset was; the value is that for the middle of its doubt.

    Notes
    -----
    A share born at once absorbs a later onset (`_share`); without one the first interval has too few births for the
    rate. The interval joins those of all onsets that are nearly as likely as the likeliest.
    """
    fits = []
    for share in (0.5, 0.0, 0.25, 0.75, 0.95):
        edges = np.maximum(births.edges_s - share * births.onset_doubt_s, 0.0)
        fits.append(fit_law(Births(edges, births.counts, births.bare, 0.0, births.late_share), law))
    best = max(fit.log_likelihood for fit in fits)
    likely = [fit.rate_constant_per_s for fit in fits if fit.log_likelihood >= best - _DROP]
    middle = fits[0] if fits[0].log_likelihood >= best - _DROP else max(fits, key=lambda fit: fit.log_likelihood)
    low, high = min(rate.low for rate in likely), max(rate.high for rate in likely)
    bounded = all(math.isfinite(rate.low) and math.isfinite(rate.high) for rate in likely)
    return Estimate(middle.rate_constant_per_s.value, low if bounded else math.nan, high if bounded else math.nan)


def _share(surface: _Surface, fractions: np.ndarray, rates: np.ndarray, doubt_s: float) -> Estimate:
    """The instantaneous share and its profile interval, whenever the onset was.

    Notes
    -----
    An onset that is later by d leaves the likelihood as it is if the sites that nucleate later are fewer by exp(-A d)
    and those born at once as many more: births at once are then ``1 - (1 - share) exp(-A d)`` of the sites. No data
    tell d where nothing is known between two frames, so the interval reaches from the share for d = 0 to that for the
    latest onset; the value is that for the middle.
    """
    top, best = int(np.argmax(surface.values)) % len(rates), surface.profile(axis=0)
    value = 1 - (1 - fractions[int(np.argmax(best))]) * math.exp(-rates[top] * doubt_s / 2)
    found = _interval(fractions, best)
    # The share is bounded by nature where its profile does not fall before 0 or 1.
    low = 0.0 if math.isnan(found.low) and fractions[0] < 1e-6 else found.low
    high = 1.0 if math.isnan(found.high) and fractions[-1] > 1 - 1e-6 else found.high
    if doubt_s > 0 and high < 1:
        # The largest share that is likely with each rate, then the largest of all of them at the latest onset.
        likely = surface.values >= surface.values.max() - _DROP
        last = len(fractions) - 1 - np.argmax(likely[::-1], axis=0)
        after = np.minimum(last + 1, len(fractions) - 1)  # the level lies between the last likely share and the next
        reach = np.where(likely.any(axis=0), 1 - (1 - fractions[after]) * np.exp(-rates * doubt_s), 0.0)
        high = max(high, float(reach.max()))
    return Estimate(float(value), low, high)


def _number_interval(n: int, shapes: np.ndarray, totals: np.ndarray, at: float | None = None) -> Estimate:
    """Profile interval of the number of sites over all other parameters, given on a grid."""
    kept = shapes - n * np.log(totals)
    near = kept > kept.max() - 6
    shapes, totals = shapes[near], totals[near]
    value = n / float(totals[np.argmax(kept[near])]) if at is None else at
    reach = 6 / math.sqrt(n)
    low, high = n / float(totals.max()) * math.exp(-reach), n / float(totals.min()) * math.exp(reach)
    numbers = np.geomspace(low, high, _GRID_NUMBERS)
    profile = np.array([np.max(shapes + n * math.log(number) - number * totals) for number in numbers])
    found = _interval(numbers, profile)
    return Estimate(value, found.low, found.high)
