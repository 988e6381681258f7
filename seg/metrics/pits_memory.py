"""Whether pits open again where they were: registration of two point patterns, and reuse of sites beyond chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.spatial import cKDTree

from seg.metrics.point_pattern import N_SIMULATIONS, RandomArrangement, Window

MIN_PITS = 5


@dataclass(frozen=True)
class Memory:
    """Share of the sites of one cycle that are used again in the next, beyond chance.

    Parameters
    ----------
    fraction, low, high : float
        With its 95 % interval; NaN where there are too few pits.
    p : float
        One-sided, against pits of the same sizes at random, registered in the same way.
    hits, n : int
        Pits of the later cycle near one of the earlier, and all that were looked at.
    chance : float
        Share of hits that chance gives.
    shift : ndarray of float, shape (2,)
        How far the later pattern was moved to lie on the earlier.
    """

    fraction: float
    low: float
    high: float
    p: float
    hits: int
    n: int
    chance: float
    shift: np.ndarray


def find_shift(before: np.ndarray, after: np.ndarray, *, radius: float, max_shift: float) -> np.ndarray:
    """Shift of `after` onto `before` that brings most pairs within `radius` of each other.

    Parameters
    ----------
    before, after : ndarray of float, shape (N, 2) and (M, 2)
    radius, max_shift : float
        Zero as `max_shift`: the frames are registered already.

    Notes
    -----
    The candidates are the differences of all pairs up to `max_shift`; the one with the most others within `radius` is
    the answer, refined to their mean. The frames themselves need not be seen.
    """
    if max_shift <= 0 or not len(before) or not len(after):
        return np.zeros(2)
    differences = (before[:, None] - after[None]).reshape(-1, 2)
    differences = differences[np.linalg.norm(differences, axis=1) <= max_shift]
    if not len(differences):
        return np.zeros(2)
    tree = cKDTree(differences)
    near = tree.query_ball_point(differences, radius)
    shift = differences[int(np.argmax([len(found) for found in near]))]
    for _ in range(5):
        shift = differences[tree.query_ball_point(shift, radius)].mean(axis=0)
    return np.asarray(shift)


def site_memory(
    before: np.ndarray,
    after: np.ndarray,
    *,
    window: Window,
    radius: float,
    diameters: np.ndarray | None = None,
    max_shift: float = 0.0,
    rng: np.random.Generator,
    n_simulations: int = N_SIMULATIONS,
) -> Memory:
    """Share of sites used again.

    Parameters
    ----------
    before, after : ndarray of float, shape (N, 2) and (M, 2)
        Positions (y, x) in two cycles; the first pixel of the window is at (0, 0).
    window : Window
        Where pits were seen in both cycles.
    radius : float
        How near a pit is the same site: three times the scatter of a site (or more), far less than the distance
        between pits.
    diameters : ndarray of float, shape (M,), or None
        Sizes of the later pits, which random ones would have too.
    max_shift : float
        How far the frames of the two cycles may lie apart; the patterns are registered on each other first.
    rng : Generator
    n_simulations : int

    Notes
    -----
    With h the share of hits and c that of chance, the fraction is (h - c) / (1 - c). Chance is taken from random
    patterns that are registered like the observed one: the best shift finds some pairs in any two patterns. Pits that
    would lie nearer to the edge of the window than the radius are left out.
    """
    inner, origin = window.inner(radius)
    register = partial(_registered, before, inner=inner, origin=origin, radius=radius, max_shift=max_shift)
    after_inside, kept = register(after)
    hits, n = _hits(before, after_inside, radius), len(after_inside)
    if n < MIN_PITS or len(before) < MIN_PITS:
        return Memory(math.nan, math.nan, math.nan, math.nan, hits, n, math.nan, kept)
    null = RandomArrangement.like(after, diameters, window)
    shares = []
    for pattern in null.simulate(n_simulations, rng):
        moved, _ = register(pattern)
        shares.append(_hits(before, moved, radius) / len(moved) if len(moved) else 0.0)
    chance, share = float(np.mean(shares)), hits / n
    p = (1 + int(np.sum(np.array(shares) >= share))) / (n_simulations + 1)
    if chance >= 1:
        return Memory(math.nan, math.nan, math.nan, p, hits, n, chance, kept)
    low, high = _wilson(hits, n)
    fraction, low, high = ((value - chance) / (1 - chance) for value in (share, low, high))
    return Memory(fraction, low, high, p, hits, n, chance, kept)


def _registered(
    before: np.ndarray, after: np.ndarray, *, inner: Window, origin: np.ndarray, radius: float, max_shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """The later pattern on the earlier, without pits whose partner could lie outside of the window; the shift."""
    shift = find_shift(before, after, radius=radius, max_shift=max_shift)
    moved = after + shift
    return moved[inner.contains(moved - origin)] if len(moved) else moved, shift


def _hits(before: np.ndarray, after: np.ndarray, radius: float) -> int:
    if not len(before) or not len(after):
        return 0
    return int((cKDTree(before).query(after)[0] <= radius).sum())


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    centre, width = hits + z**2 / 2, z * math.sqrt(hits * (n - hits) / n + z**2 / 4)
    return (centre - width) / (n + z**2), (centre + width) / (n + z**2)
