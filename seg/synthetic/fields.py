"""Random surfaces of experiments in double precision, so that one seed gives the same 8-bit image on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree


def correlated_noise(rng: np.random.Generator, shape: Sequence[int], length_px: float | Sequence[float]) -> np.ndarray:
    """Gaussian noise with a Gaussian correlation of the given length, mean 0 and sd 1, in any number of dimensions.

    Parameters
    ----------
    rng : numpy Generator
    shape : sequence of int
    length_px : float or sequence of float
        Correlation length in px, one value or one per axis; below about 1: white noise along that axis.
    """
    lengths = np.broadcast_to(np.asarray(length_px, float), (len(shape),))
    # Long correlations are drawn on a coarse grid, where they are 3 px long, and interpolated with cubic splines.
    steps = np.maximum(lengths / 3, 1.0)
    coarse = tuple(math.ceil(n / s) + 6 if s > 1 else n for n, s in zip(shape, steps, strict=True))
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), lengths / steps / 2)
    for axis, (n, s) in enumerate(zip(shape, steps, strict=True)):
        if s > 1:
            noise = _stretched(noise, axis, n, s)
    return standardised(noise)


def _stretched(noise: np.ndarray, axis: int, size: int, step: float) -> np.ndarray:
    """`noise` interpolated along one axis to `size` samples `step` apart."""
    from scipy.interpolate import CubicSpline

    knots = np.arange(noise.shape[axis])
    return CubicSpline(knots, noise, axis=axis)(2.5 + np.arange(size) / step)


def standardised(field: np.ndarray) -> np.ndarray:
    """`field` shifted and scaled to mean 0 and sd 1."""
    return (field - field.mean()) / max(float(field.std()), 1e-12)


def fractal(rng: np.random.Generator, shape: Sequence[int], longest_px: float, roughness: float = 0.6) -> np.ndarray:
    """Octaves of noise from `longest_px` down, each weaker by `roughness`; sd 1."""
    total, length, weight = np.zeros(shape), longest_px, 1.0
    while length >= 1:
        total += weight * correlated_noise(rng, shape, length)
        length, weight = length / 2.5, weight * roughness
    return standardised(total)


def moss(rng: np.random.Generator, shape: Sequence[int], length_px: float) -> np.ndarray:
    """Packed rounded grains with dark gaps (mossy or granular metal); sd 1."""
    ridged = -np.abs(correlated_noise(rng, shape, length_px))
    return standardised(ridged + 0.35 * correlated_noise(rng, shape, max(length_px / 3, 1.0)))


def rolled(rng: np.random.Generator, shape: Sequence[int], length_px: float) -> np.ndarray:
    """Lines of rolling along the last axis, with fine roughness; sd 1."""
    marks = correlated_noise(rng, shape, (*[length_px] * (len(shape) - 1), 40 * length_px))
    return standardised(marks + 0.5 * correlated_noise(rng, shape, 1.5 * length_px))


def mosaic(rng: np.random.Generator, shape: Sequence[int], size_px: float) -> np.ndarray:
    """Voronoi grains of random level (polycrystal); sd 1."""
    count = max(3, round(math.prod(n / size_px + 2 for n in shape)))
    low = np.full(len(shape), -size_px)
    seeds = rng.uniform(low, np.asarray(shape) + size_px, (count, len(shape)))
    levels = rng.standard_normal(count)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, len(shape))
    return standardised(levels[KDTree(seeds).query(grid)[1]].reshape(tuple(shape)))


def fringes(rng: np.random.Generator, shape: Sequence[int], period_px: float) -> np.ndarray:
    """Parallel lines of a lattice or of growth steps in the last two axes, slightly bent; sd about 1."""
    angle = rng.uniform(0, math.pi)
    y, x = np.mgrid[: shape[-2], : shape[-1]].astype(float)
    bend = correlated_noise(rng, shape[-2:], 10 * period_px)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period_px + bend
    return np.broadcast_to(math.sqrt(2) * np.sin(phase), tuple(shape)).copy()


FIELDS: dict[str, Callable[[np.random.Generator, Sequence[int], float], np.ndarray]] = {
    "smooth": correlated_noise,
    "fractal": fractal,
    "moss": moss,
    "rolled": rolled,
    "mosaic": mosaic,
    "fringes": fringes,
}
