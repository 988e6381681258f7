"""Points near the outline of something, beyond chance: pit rims, grain boundaries, scratches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seg.metrics.point_pattern import N_SIMULATIONS, RandomArrangement, Window


@dataclass(frozen=True)
class Enrichment:
    """Density of points near a reference over that elsewhere.

    Parameters
    ----------
    ratio, low, high : float
        With its 95 % interval, for points that are independent of each other.
    p : float
        Two-sided, by simulation.
    n_near, n : int
        Points near the reference, and all.
    near_share : float
        Share of the accessible area that is near.
    """

    ratio: float
    low: float
    high: float
    p: float
    n_near: int
    n: int
    near_share: float


class Outline:
    """The outline of a reference region, for distances to it.

    Parameters
    ----------
    reference : ndarray of bool, shape (Y, X)
    spacing : tuple of float

    Notes
    -----
    The outline runs half-way between unlike pixels, its steps smoothed; distances from the mask itself would be too
    long by about half a pixel, to the corners of the steps too short by a third. Where the frame cuts the region
    there is no outline.
    """

    def __init__(self, reference: np.ndarray, spacing: tuple[float, ...]) -> None:
        from scipy.spatial import cKDTree
        from skimage.measure import find_contours

        parts = []
        for contour in find_contours(np.asarray(reference, float), 0.5):
            contour = _smooth(contour)
            start, end = contour[:-1, None], contour[1:, None]
            parts.append((start + np.linspace(0, 1, 4, endpoint=False)[:, None] * (end - start)).reshape(-1, 2))
        self.points = np.concatenate(parts) * np.asarray(spacing) if parts else np.zeros((0, 2))
        self._tree = cKDTree(self.points) if parts else None

    def distance(self, points: np.ndarray, *, up_to: float = math.inf) -> np.ndarray:
        """Distance of each point; infinite beyond `up_to` and without any outline."""
        if self._tree is None:
            return np.full(len(points), math.inf)
        return np.asarray(self._tree.query(points, distance_upper_bound=up_to)[0])


def _smooth(contour: np.ndarray) -> np.ndarray:
    """Average neighbouring vertices of a contour; moves it by 1/(2 R) px at a radius of R px."""
    from scipy.ndimage import uniform_filter1d

    if len(contour) < 12:
        return contour
    if (contour[0] != contour[-1]).any():
        return np.asarray(uniform_filter1d(contour, 5, axis=0, mode="nearest"))
    closed = uniform_filter1d(contour[:-1], 5, axis=0, mode="wrap")
    return np.concatenate([closed, closed[:1]])


def enrichment(
    points: np.ndarray,
    reference: np.ndarray,
    accessible: np.ndarray,
    *,
    spacing: tuple[float, ...],
    band: float,
    diameters: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    rng: np.random.Generator,
    n_simulations: int = N_SIMULATIONS,
) -> Enrichment:
    """Density within `band` of the outline of a region over the density elsewhere.

    Parameters
    ----------
    points : ndarray of float, shape (N, 2)
    reference : ndarray of bool, shape (Y, X)
        Pits, grain boundaries, scratches.
    accessible : ndarray of bool, shape (Y, X)
        Where a point could have been; leave the inside of the reference out if none could be there.
    spacing : tuple of float
    band : float
        Width of the band, to both sides of the outline, in the unit of `spacing`.
    diameters : ndarray of float, shape (N,), or None
        Sizes of the objects, which random ones would have too.
    candidates : ndarray of float, shape (M, 2), or None
        The sites that could have been used. Then chance means: any N of them (random labelling), the ratio is the
        share used near over the share used elsewhere, and `near_share` counts sites. None: anywhere accessible.
    rng : Generator
    n_simulations : int

    Returns
    -------
    Enrichment
        NaN where there are no points, or no accessible area on either side of the band's edge.
    """
    window = Window(np.asarray(accessible, bool), spacing)
    outline = Outline(reference, spacing)

    def count_near(pattern: np.ndarray) -> int:
        return int((outline.distance(pattern, up_to=band) <= band).sum())

    inside = window.contains(points)
    points = points[inside]
    n = len(points)
    if candidates is None:
        share = _near_share(outline, window, band)
        null = RandomArrangement.like(points, None if diameters is None else diameters[inside], window)
        patterns = null.simulate(n_simulations, rng)
    else:
        sites = candidates[window.contains(candidates)]
        if len(sites) < n:
            raise ValueError(f"There are {n} points but only {len(sites)} candidate sites in the accessible area.")
        share = count_near(sites) / len(sites) if len(sites) else math.nan
        patterns = (rng.permutation(sites)[:n] for _ in range(n_simulations))
    if n == 0 or not 0 < share < 1:
        return Enrichment(math.nan, math.nan, math.nan, math.nan, 0, n, share)
    near = count_near(points)
    simulated = np.array([count_near(pattern) for pattern in patterns])
    # Counts tie often; a tie counts with a random share, which keeps the level of the test exact.
    ties = int((simulated == near).sum())
    above = int((simulated > near).sum()) + int(rng.integers(0, ties + 1))
    p = 2 * min(above + 1, n_simulations + 1 - above) / (n_simulations + 1)
    low, high = _binomial_interval(near, n)
    ratio, low, high = (_density_ratio(part, share) for part in (near / n, low, high))
    return Enrichment(ratio, low, high, min(1.0, p), near, n, share)


def _near_share(outline: Outline, window: Window, band: float) -> float:
    """Share of the window within `band` of the outline; pixels at the edge of the band count by their part."""
    total = int(window.mask.sum())
    if not total:
        return math.nan
    pixel = math.sqrt(math.prod(window.spacing))
    centres = np.argwhere(window.mask) * np.asarray(window.spacing)
    distances = outline.distance(centres, up_to=band + pixel)
    return float(np.clip((band - distances) / pixel + 0.5, 0, 1).sum()) / total


def _density_ratio(part: float, share: float) -> float:
    return math.inf if part >= 1 else part / share * (1 - share) / (1 - part)


def _binomial_interval(count: int, n: int) -> tuple[float, float]:
    """Jeffreys' 95 % interval of a share; its coverage is nominal on average, where the exact one's is above."""
    from scipy.special import betaincinv

    low = 0.0 if count == 0 else float(betaincinv(count + 0.5, n - count + 0.5, 0.025))
    high = 1.0 if count == n else float(betaincinv(count + 0.5, n - count + 0.5, 0.975))
    return low, high
