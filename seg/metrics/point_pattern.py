"""Arrangement of points in a window of any shape: neighbour distances, Ripley's L, envelope test.

Notes
-----
Objects have a size, so complete randomness means here: as many objects with the same diameters, placed one after the
other where they do not overlap. Points without a size are the special case of zero diameters.

Points are (y, x) in the unit of the pixel size; the centre of the first pixel of the window is (0, 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

N_SIMULATIONS = 199
_MAX_ROUNDS = 300
# Up to here all distances cost less than a tree.
_DENSE_PAIRS = 50_000


@dataclass(frozen=True)
class Window:
    """Where points could be.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
    spacing : tuple of float
        Pixel size along y and x.
    """

    mask: np.ndarray
    spacing: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2:
            raise ValueError(f"Arrangements are measured in a plane; this window has {self.mask.ndim} axes.")

    @cached_property
    def area(self) -> float:
        """Area of the mask."""
        return float(np.count_nonzero(self.mask)) * math.prod(self.spacing)

    @property
    def sides(self) -> tuple[float, float]:
        """Height and width of the frame of the mask."""
        height, width = (n * side for n, side in zip(self.mask.shape, self.spacing, strict=True))
        return height, width

    @cached_property
    def is_rectangle(self) -> bool:
        """Whether the mask is the whole frame."""
        return bool(self.mask.all())

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.flatnonzero(self.mask)

    @cached_property
    def _covariance(self) -> np.ndarray:
        """Area that the window shares with itself moved by (dy, dx) pixels; zero shift in the middle."""
        from scipy.signal import fftconvolve

        mask = self.mask.astype(float)
        shared = fftconvolve(mask, mask[::-1, ::-1]) * math.prod(self.spacing)
        return np.asarray(np.maximum(shared, math.prod(self.spacing)))

    def shared_area(self, shifts: np.ndarray) -> np.ndarray:
        """Area that the window shares with itself moved by each of `shifts`, shape (P, 2)."""
        if self.is_rectangle:
            height, width = self.sides
            return np.asarray((height - np.abs(shifts[:, 0])) * (width - np.abs(shifts[:, 1])))
        middle = np.array(self.mask.shape) - 1
        steps = np.rint(shifts / np.asarray(self.spacing)).astype(int) + middle
        return np.asarray(self._covariance[steps[:, 0], steps[:, 1]])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether each point lies in the mask; bool, shape (N,)."""
        pixel = np.rint(points / np.asarray(self.spacing)).astype(int)
        inside = ((pixel >= 0) & (pixel < self.mask.shape)).all(axis=1)
        pixel = np.clip(pixel, 0, np.array(self.mask.shape) - 1)
        return np.asarray(inside & self.mask[pixel[:, 0], pixel[:, 1]])

    def uniform(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` independent points, shape (n, 2)."""
        pixels = np.stack(np.unravel_index(rng.choice(self._pixels, n), self.mask.shape), axis=1)
        return np.asarray((pixels + rng.uniform(-0.5, 0.5, (n, 2))) * np.asarray(self.spacing))

    def inner(self, margin: float) -> tuple[Window, np.ndarray]:
        """Cut off what is nearer to an edge than `margin`; also gives the position of the first pixel that is left."""
        from scipy.ndimage import distance_transform_edt

        if not self.mask.any():
            return self, np.zeros(2)
        # Distances are to pixel centres: the edge itself is half a pixel nearer.
        distance = distance_transform_edt(np.pad(self.mask, 1), sampling=self.spacing)[1:-1, 1:-1]
        inner = distance - min(self.spacing) / 2 >= margin
        if not inner.any():
            return Window(inner[:1, :1], self.spacing), np.zeros(2)
        rows, columns = np.flatnonzero(inner.any(axis=1)), np.flatnonzero(inner.any(axis=0))
        box = inner[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Window(box, self.spacing), np.array([rows[0], columns[0]]) * np.asarray(self.spacing)


@dataclass(frozen=True)
class RandomArrangement:
    """Complete randomness of objects that cannot overlap.

    Parameters
    ----------
    window : Window
    diameters : ndarray of float, shape (N,)
        Zero: points.
    """

    window: Window
    diameters: np.ndarray = field(repr=False)

    @classmethod
    def like(cls, points: np.ndarray, diameters: np.ndarray | None, window: Window) -> RandomArrangement:
        """Give the arrangement with the sizes of the observed objects.

        Where observed objects are nearer than the discs of their sizes could be (they are no discs, or touch), all
        diameters are scaled down until none is.
        """
        n = len(points)
        if diameters is None or n < 2 or not np.any(diameters):
            return cls(window, np.zeros(n))
        from scipy.spatial import cKDTree

        diameters = np.asarray(diameters, float)
        pairs = cKDTree(points).query_pairs(float(diameters.max()), output_type="ndarray")
        contact = diameters[pairs].mean(axis=1)
        apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
        fits = min(1.0, float(np.min(apart / contact, initial=1.0)))
        return cls(window, diameters * fits)

    def simulate(self, n_simulations: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield point patterns, shape (N, 2)."""
        for _ in range(n_simulations):
            yield self._one(rng)

    def _one(self, rng: np.random.Generator) -> np.ndarray:
        n = len(self.diameters)
        points = self.window.uniform(n, rng)
        widest = float(self.diameters.max(initial=0))
        if widest == 0:
            return points
        # Who comes later in the (random) order gives way until nobody overlaps: sequential placement, but of all
        # objects at a time. After the first round only those that were placed again can overlap.
        diameters = rng.permutation(self.diameters)
        again = np.arange(n)
        for round_ in range(_MAX_ROUNDS):
            one, other = _overlapping(points, diameters, again)
            if not len(one):
                break
            again = np.unique(np.maximum(one, other))
            points[again] = self.window.uniform(len(again), rng)
            if round_ > _MAX_ROUNDS // 2:  # too crowded for random placement: let the last ones overlap a little
                diameters = diameters * 0.98
        return points


def _overlapping(points: np.ndarray, diameters: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of discs that overlap, one of each pair among the chosen ones."""
    if len(chosen) * len(points) > _DENSE_PAIRS:
        from scipy.spatial import cKDTree

        found = cKDTree(points).query_pairs(float(diameters.max()), output_type="ndarray")
        one, other = found[:, 0], found[:, 1]
    else:
        apart2 = (points[chosen, :1] - points[:, 0]) ** 2 + (points[chosen, 1:] - points[:, 1]) ** 2
        near = apart2 < ((diameters[chosen, None] + diameters) / 2) ** 2
        near[np.arange(len(chosen)), chosen] = False
        row, other = np.nonzero(near)
        return chosen[row], other
    overlap = np.linalg.norm(points[one] - points[other], axis=1) < (diameters[one] + diameters[other]) / 2
    return one[overlap], other[overlap]


def mean_neighbour_distance(points: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the distance to the nearest other point."""
    from scipy.spatial import cKDTree

    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    return float(nearest.mean()), float(nearest.std(ddof=1))


def clark_evans(points: np.ndarray, window: Window, *, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean nearest-neighbour distance over its expectation for random points, with its 95 % interval.

    Parameters
    ----------
    points : ndarray of float, shape (N, 2)
    window : Window
    rng : Generator

    Notes
    -----
    The expectation is Donnelly's in a rectangle, ``sqrt(A/N)/2 + (0.0514 + 0.041/sqrt(N)) P/N``, and the mean of 199
    simulations in any other window. Without either, random points read 1.055.

    References
    ----------
    Donnelly, K. (1978). Simulations to determine the variance and edge effect of total nearest neighbour distance.
    """
    from scipy.special import stdtrit

    n = len(points)
    mean, spread = mean_neighbour_distance(points)
    if window.is_rectangle:
        height, width = window.sides
        edge = (0.0514 + 0.041 / math.sqrt(n)) * 2 * (height + width) / n
        expected = 0.5 * math.sqrt(window.area / n) + edge
    else:
        simulated = (window.uniform(n, rng) for _ in range(N_SIMULATIONS))
        expected = float(np.mean([mean_neighbour_distance(pattern)[0] for pattern in simulated]))
    # Nearest neighbours are often mutual: 0.0703 A/N^2 in place of the 0.0683 of independent distances.
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n) * math.sqrt(0.0703 / 0.0683)
    return mean / expected, (mean - half) / expected, (mean + half) / expected


def ripley_l(points: np.ndarray, window: Window, radii: np.ndarray) -> np.ndarray:
    """Ripley's L(r) - r with translation edge correction; 0 for random points, positive for clusters.

    Parameters
    ----------
    points : ndarray of float, shape (N, 2)
    window : Window
    radii : ndarray of float, shape (R,)
        Ascending, positive.

    Notes
    -----
    K(r) = A^2 / (N (N - 1)) sum over ordered pairs with d <= r of 1 / |W and W moved by the pair's difference|;
    L = sqrt(K / pi).
    """
    from scipy.spatial import cKDTree

    n = len(points)
    pairs = cKDTree(points).query_pairs(float(radii[-1]), output_type="ndarray")
    shifts = points[pairs[:, 0]] - points[pairs[:, 1]]
    distances = np.hypot(shifts[:, 0], shifts[:, 1])
    weights = 2 / window.shared_area(shifts)
    per_radius = np.bincount(np.searchsorted(radii, distances), weights=weights, minlength=len(radii) + 1)
    k = window.area**2 / (n * (n - 1)) * np.cumsum(per_radius[: len(radii)])
    return np.asarray(np.sqrt(k / math.pi) - radii)


@dataclass(frozen=True)
class EnvelopeTest:
    """An observed curve against simulated ones, over all radii at once.

    Parameters
    ----------
    p : float
        Of the whole curve; exact.
    low, high : ndarray of float, shape (R,)
        95 % global envelope: a random arrangement leaves it anywhere in 5 % of the cases.
    centre : ndarray of float, shape (R,)
    deviation : float
        Largest departure from the centre in half widths of the envelope, positive above; beyond 1 is outside.
    """

    p: float
    low: np.ndarray
    high: np.ndarray
    centre: np.ndarray
    deviation: float


def envelope_test(observed: np.ndarray, simulated: np.ndarray, *, level: float = 0.95) -> EnvelopeTest:
    """Global rank envelope test with extreme rank lengths.

    Parameters
    ----------
    observed : ndarray of float, shape (R,)
    simulated : ndarray of float, shape (S, R)
    level : float

    References
    ----------
    Myllymäki, M. et al. (2017). Global envelope tests for spatial processes. J. R. Stat. Soc. B 79, 381.
    """
    curves = np.vstack([observed, simulated])
    n = len(curves)
    # Values that are equal share the mean of their ranks.
    sides = ([np.searchsorted(np.sort(at), at, side) for at in curves.T] for side in ("left", "right"))
    from_below = (np.add(*sides).T + 1) / 2
    ranks = np.sort(np.minimum(from_below, n + 1 - from_below), axis=1)
    # Curves in order of their smallest rank, ties by the next smallest, and so on; the first is the most extreme.
    order = np.lexsort(ranks.T[::-1])
    place = np.empty(n)
    place[order] = np.arange(n)
    tied = (ranks == ranks[0]).all(axis=1)
    p = float((place <= place[tied].max()).sum()) / n
    kept = curves[order[math.floor((1 - level) * n) :]]
    low, high, centre = kept.min(axis=0), kept.max(axis=0), np.asarray(simulated).mean(axis=0)
    off = observed - centre
    width = np.where(off >= 0, high - centre, centre - low)
    departures = np.divide(off, width, out=np.zeros_like(off), where=width > 1e-12 * np.abs(centre).max(initial=1e-300))
    deviation = float(departures[np.argmax(np.abs(departures))])
    return EnvelopeTest(p, low, high, centre, deviation)


def arrangement_test(
    points: np.ndarray,
    window: Window,
    *,
    diameters: np.ndarray | None = None,
    rng: np.random.Generator,
    n_simulations: int = N_SIMULATIONS,
    n_radii: int = 40,
) -> tuple[np.ndarray, np.ndarray, EnvelopeTest]:
    """Ripley's L against complete randomness of objects of these sizes in this window.

    Returns
    -------
    radii : ndarray of float, shape (R,)
        Up to a quarter of the shorter side.
    observed : ndarray of float, shape (R,)
        L(r) - r.
    test : EnvelopeTest
    """
    radii = np.linspace(0, min(window.sides) / 4, n_radii + 1)[1:]
    observed = ripley_l(points, window, radii)
    null = RandomArrangement.like(points, diameters, window)
    simulated = np.array([ripley_l(pattern, window, radii) for pattern in null.simulate(n_simulations, rng)])
    return radii, observed, envelope_test(observed, simulated)
