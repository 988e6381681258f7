"""Perimeter and surface area of labelled objects by Crofton's formula, all objects in one pass."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np

# Mean of |cos| between a line and the normal of the boundary, inverted: in the plane and in space.
_CROFTON = {2: math.pi / 2, 3: 2.0}
# Pixels looked at together, so that they stay in the cache.
_BLOCK_PX = 2**17


def boundary_sizes(instances: np.ndarray, n_objects: int, *, spacing: tuple[float, ...]) -> np.ndarray:
    """Perimeter (2-D) or surface area (3-D) of every object.

    Parameters
    ----------
    instances : ndarray of int, shape ([Z,] Y, X)
        Object ids 1..`n_objects`, 0 = none.
    n_objects : int
    spacing : tuple of float
        Pixel size along each axis; need not be equal.

    Returns
    -------
    ndarray of float, shape (n_objects + 1,)
        Indexed by object id, in the unit of `spacing` (squared in 3-D); where the frame cuts an object, the cut
        counts as boundary.

    Notes
    -----
    A boundary is crossed by a lattice of lines in 4 (13) directions; the mean number of crossings times the area per
    line is proportional to its size. Directions are weighted by their share of all directions (Voronoi cells on the
    circle or sphere), which keeps pixels that are not square or cubic right. Error on discs and spheres above 8 px
    radius: under 1 %; on polygons that follow the grid up to -3 % (-9 % for an aligned box in 3-D). The neighbours of
    oblong pixels nearly all lie along the long side; steps over several short sides take their place.
    """
    directions = _directions(spacing, far=True)
    margin = max(max(map(abs, offset)) for offset, _ in directions)
    shape = tuple(n + 2 * margin for n in instances.shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    # Slices looked at together stay in the cache; with many objects their sums must not outweigh the slices.
    thick = max(1, max(_BLOCK_PX, 16 * n_objects) // strides[0])
    crossings = np.zeros((len(directions), n_objects + 1))
    for first in range(0, shape[0], thick):
        last = min(first + thick, shape[0])
        # The margin is 0 on all sides: a step over the end of a row leads from margin to margin.
        block = np.zeros((last - first + margin + 1, *shape[1:]), instances.dtype)
        low, high = max(first - margin, 0), min(last + 1, instances.shape[0])
        inner = tuple(slice(margin, margin + n) for n in instances.shape[1:])
        block[(slice(low + margin - first, max(high, low) + margin - first), *inner)] = instances[low:high]
        flat, here = block.ravel(), block.ravel()[: (last - first) * strides[0]]
        for found, (offset, _) in zip(crossings, directions, strict=True):
            step = int(np.dot(offset, strides))
            differ = np.flatnonzero(here != flat[step : len(here) + step])
            found += np.bincount(here[differ], minlength=n_objects + 1)
            found += np.bincount(flat[differ + step], minlength=n_objects + 1)
    total = np.asarray([weight for _, weight in directions] @ crossings)
    total[0] = 0.0
    return total


@lru_cache(maxsize=64)
def _directions(spacing: tuple[float, ...], *, far: bool = False) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Half of the neighbour steps, and the boundary size that one crossing along each stands for.

    `far` takes the neighbours of oblong pixels once they are joined to be as square (cubic) as they can.
    """
    steps = [s for s in product((-1, 0, 1), repeat=len(spacing)) if any(s)]
    if far:
        joined = [round(max(spacing) / side) for side in spacing]
        further = [tuple(int(o) for o in np.multiply(s, joined)) for s in steps]
        steps = list(dict.fromkeys(tuple(o // math.gcd(*s) for o in s) for s in further))
    vectors = np.array(steps) * np.asarray(spacing)
    lengths = np.linalg.norm(vectors, axis=1)
    shares = _voronoi_shares(vectors / lengths[:, None])
    per_line = math.prod(spacing) / lengths  # area (length) of the cross-section of one line of the lattice
    # A step and its opposite are one direction with twice the share.
    weights = _CROFTON[len(spacing)] * 2 * shares * per_line
    return tuple((step, float(w)) for step, w in zip(steps, weights, strict=True) if step > (0,) * len(spacing))


def _voronoi_shares(directions: np.ndarray) -> np.ndarray:
    """Share of the circle or sphere that is nearest to each of the unit vectors."""
    if directions.shape[1] == 2:
        angles = np.arctan2(directions[:, 0], directions[:, 1])
        order = np.argsort(angles)
        gaps = np.diff(angles[order], append=angles[order[0]] + 2 * math.pi)
        shares = np.empty(len(angles))
        shares[order] = (gaps + np.roll(gaps, 1)) / (4 * math.pi)
        return shares
    from scipy.spatial import SphericalVoronoi

    areas = SphericalVoronoi(directions).calculate_areas()
    return np.asarray(areas / areas.sum())


def shared_boundary(first: np.ndarray, second: np.ndarray, *, spacing: tuple[float, ...]) -> float:
    """Length (2-D) or area (3-D) of the boundary between two masks, such as metal and electrolyte.

    Parameters
    ----------
    first, second : ndarray of bool, shape ([Z,] Y, X)
        Without common pixels; the end of the array is no boundary.
    spacing : tuple of float
    """
    total = 0.0
    for offset, weight in _directions(spacing):
        here = tuple(slice(max(0, -o), None if o <= 0 else -o) for o in offset)
        there = tuple(slice(max(0, o), None if o >= 0 else o) for o in offset)
        crossings = np.count_nonzero(first[here] & second[there]) + np.count_nonzero(second[here] & first[there])
        total += weight * crossings
    return total
