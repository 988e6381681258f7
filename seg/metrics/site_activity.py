"""Where nucleation prefers to happen: births of repeated runs on the same area as a map of activity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from seg.metrics.point_pattern import Window
from seg.uncertainty import poisson_interval


@dataclass(frozen=True)
class SiteActivity:
    """Activity of every place, from repeated runs.

    Parameters
    ----------
    density : ndarray of float, shape (Y, X)
        Births per area and run, smoothed; NaN outside of the valid area.
    probability : ndarray of float, shape (Y, X)
        Share of the runs with a birth within the radius.
    barrier_kT : ndarray of float, shape (Y, X)
        Barrier relative to that of the mean density, -ln(density / mean), in units of the thermal energy; infinite
        where nothing was born within reach.
    n_runs, n_births : int
    """

    density: np.ndarray
    probability: np.ndarray
    barrier_kT: np.ndarray
    n_runs: int
    n_births: int


def site_activity(
    births: Sequence[np.ndarray], valid: np.ndarray, *, spacing: tuple[float, float], radius: float
) -> SiteActivity:
    """Map how readily each place nucleates.

    Parameters
    ----------
    births : sequence of ndarray of float, shape (n, 2)
        One array of (y, x) per run, on the sample: drift within and between the runs removed.
    valid : ndarray of bool, shape (Y, X)
        Seen in every run.
    spacing : tuple of float
    radius : float
        Standard deviation of the smoothing, and reach of a birth, in the unit of `spacing`; several times the
        accuracy with which births are located.

    Notes
    -----
    The smoothing divides by its part that falls on the valid area, so edges do not read low. At one overpotential,
    density is proportional to exp(-barrier / kT), up to the share of sites that other deposits had covered.

    References
    ----------
    Diggle, P. (1985). A kernel method for smoothing point process data. Applied Statistics 34, 138.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    window = Window(np.asarray(valid, bool), spacing)
    if not len(births):
        raise ValueError("site_activity needs the births of at least one run.")
    if not window.mask.any() or radius <= 0:
        raise ValueError(f"site_activity needs a valid area and a positive radius; got radius {radius:g}.")
    total, hits, n_births = np.zeros(window.mask.shape), np.zeros(window.mask.shape), 0
    for run in births:
        inside = run[window.contains(run)] if len(run) else np.zeros((0, 2))
        n_births += len(inside)
        pixels = np.rint(inside / np.asarray(spacing)).astype(int)
        here = np.zeros(window.mask.shape)
        np.add.at(here, tuple(pixels.T), 1.0)
        total += here
        if len(inside):
            hits += distance_transform_edt(here == 0, sampling=spacing) <= radius
    sigma = [radius / side for side in spacing]
    weight = gaussian_filter(window.mask.astype(float), sigma, mode="constant")
    per_area = gaussian_filter(total, sigma, mode="constant") / math.prod(spacing) / len(births)
    outside = ~window.mask
    density = np.where(outside, math.nan, per_area / np.maximum(weight, 1e-12))
    with np.errstate(divide="ignore", invalid="ignore"):
        barrier = -np.log(density / np.nanmean(density))
    probability = np.where(outside, math.nan, hits / len(births))
    return SiteActivity(density, probability, barrier, len(births), n_births)


@dataclass(frozen=True)
class AccessibleFraction:
    """Share of the area on which nucleation can happen, with its 95 % interval.

    Parameters
    ----------
    value, low, high : float
    n_pairs : int
        Pairs of births of different runs within the radius of each other.
    """

    value: float
    low: float
    high: float
    n_pairs: int


def accessible_fraction(
    births: Sequence[np.ndarray], valid: np.ndarray, *, spacing: tuple[float, float], radius: float
) -> AccessibleFraction:
    """Share of the area that nucleates at all, from how often different runs use the same places.

    Parameters
    ----------
    births : sequence of ndarray of float, shape (n, 2)
        One array of (y, x) per run at one overpotential, on the sample.
    valid : ndarray of bool, shape (Y, X)
    spacing : tuple of float
    radius : float
        Much smaller than the patches, larger than the accuracy of the places.

    Returns
    -------
    AccessibleFraction
        NaN without a pair of runs that both have births; 1 at most. The upper end is 1 where no two births coincide.

    Notes
    -----
    If births fall evenly on a share f of the area, births of two runs are within r of each other 1/f times as often
    as by chance (cross K function with translation correction). For uneven activity f is the effective share,
    <density>^2 / <density^2>. Unlike the area around all births it does not grow with their number. The interval
    takes the coinciding pairs as Poisson numbers.
    """
    from scipy.spatial import cKDTree

    window = Window(np.asarray(valid, bool), spacing)
    runs = [run[window.contains(run)] if len(run) else np.zeros((0, 2)) for run in births]
    n_pairs, weighted, by_chance = 0, 0.0, 0.0
    for first, second in combinations(runs, 2):
        if not len(first) or not len(second):
            continue
        by_chance += len(first) * len(second) * math.pi * radius**2 / window.area
        near = cKDTree(first).query_ball_tree(cKDTree(second), radius)
        i = np.repeat(np.arange(len(first)), [len(found) for found in near])
        if not len(i):
            continue
        j = np.concatenate([np.asarray(found, int) for found in near])
        n_pairs += len(i)
        weighted += float((window.area / window.shared_area(first[i] - second[j])).sum())
    if by_chance == 0:
        return AccessibleFraction(math.nan, math.nan, math.nan, 0)
    low, high = poisson_interval(n_pairs)
    edge = weighted / n_pairs if n_pairs else 1.0
    ends = [min(1.0, by_chance / (count * edge)) if count else 1.0 for count in (n_pairs, high, low)]
    return AccessibleFraction(ends[0] if n_pairs else math.nan, ends[1], ends[2], n_pairs)
