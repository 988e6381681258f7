"""A foil that is the same in every experiment: grains, and sites that open one after the other as current rises.

Sites are a Poisson process in place and threshold. At a site density D, those with a threshold below D are open: they
are Poisson with density D, and every site that is open at a lower density is open at a higher one, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

TILE_UM = 100.0
_MIDDLE = 2**20  # tiles left of and above the origin have negative numbers, seeds must not


def _tiles(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[int, int]]:
    first, last = np.floor(low / TILE_UM).astype(int), np.floor(high / TILE_UM).astype(int)
    for ty in range(first[0], last[0] + 1):
        for tx in range(first[1], last[1] + 1):
            yield ty, tx


def _within(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return ((points[:, :2] >= low) & (points[:, :2] < high)).all(axis=1)


def grain_seeds(foil: int, low: np.ndarray, high: np.ndarray, grain_um: float) -> np.ndarray:
    """Seeds of Voronoi grains (y, x), µm, in and around a region; the same whatever the region."""
    margin = 3 * grain_um
    found = []
    for ty, tx in _tiles(low - margin, high + margin):
        rng = np.random.default_rng([foil, 71, ty + _MIDDLE, tx + _MIDDLE])
        count = rng.poisson((TILE_UM / grain_um) ** 2)
        found.append((np.array([ty, tx]) + rng.uniform(size=(count, 2))) * TILE_UM)
    return np.concatenate(found)


def open_sites(
    foil: int,
    low: np.ndarray,
    high: np.ndarray,
    density_um2: float,
    step_um2: float,
    weight: Callable[[np.ndarray], np.ndarray],
    most: float,
) -> np.ndarray:
    """Sites (y, x) of a region that are open at a density.

    Parameters
    ----------
    foil : int
        Which foil.
    low, high : ndarray, shape (2,)
        Corners (y, x) of the region, µm.
    density_um2, step_um2 : float
        Density of open sites per µm2 where `weight` is 1, and the unit of thresholds, in which the process is drawn.
    weight : callable
        Points (n, 2) -> how much denser sites are there, 1 on average.
    most : float
        The largest weight.
    """
    places, share = [np.empty((0, 2))], density_um2 / step_um2
    for ty, tx in _tiles(low, high):
        for layer in range(math.ceil(share)):
            rng = np.random.default_rng([foil, 72, ty + _MIDDLE, tx + _MIDDLE, layer])
            count = rng.poisson(step_um2 * most * TILE_UM**2)
            points = (np.array([ty, tx]) + rng.uniform(size=(count, 2))) * TILE_UM
            mark, chance = layer + rng.uniform(size=count), rng.uniform(size=count)
            keep = (mark <= share) & _within(points, low, high)
            keep[keep] = chance[keep] * most < weight(points[keep])
            places.append(points[keep])
    return np.concatenate(places)
