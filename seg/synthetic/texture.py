"""Random fields and patterns that surfaces are made of: correlated noise, grains, lattices, scratches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

Shape = tuple[int, int]


def white_noise(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Uncorrelated normal noise, sd 1; float32."""
    return rng.standard_normal(shape, dtype=np.float32)


def smooth_noise(rng: np.random.Generator, shape: Shape, length_px: float | tuple[float, float]) -> np.ndarray:
    """Noise with the given correlation length, mean 0 and sd 1; float32.

    Long correlations are drawn on a coarse grid and interpolated (bicubic), so the cost does not grow with length.

    Parameters
    ----------
    rng : numpy Generator
    shape : (int, int)
    length_px : float or (float, float)
        Correlation length in px, one value or (y, x).
    """
    ly, lx = (length_px, length_px) if np.isscalar(length_px) else length_px
    sy, sx = max(1.0, ly / 2), max(1.0, lx / 2)
    coarse = (math.ceil(shape[0] / sy) + 4, math.ceil(shape[1] / sx) + 4)
    noise = ndimage.gaussian_filter(white_noise(rng, coarse), (0.35 * min(ly, 2), 0.35 * min(lx, 2)))
    if sy > 1 or sx > 1:
        box = (1.5, 1.5, 1.5 + shape[1] / sx, 1.5 + shape[0] / sy)
        noise = np.asarray(Image.fromarray(noise).resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box))
    noise = noise[: shape[0], : shape[1]]
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)


def fractal_noise(rng: np.random.Generator, shape: Shape, longest_px: float, roughness: float = 0.6) -> np.ndarray:
    """Sum of octaves from `longest_px` down, each weaker by `roughness`; mean 0, sd 1; float32."""
    total = np.zeros(shape, np.float32)
    length, weight = longest_px, 1.0
    while length >= 1.5:
        total += weight * smooth_noise(rng, shape, length)
        length, weight = length / 2.5, weight * roughness
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def grains(rng: np.random.Generator, shape: Shape, size_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi mosaic: one random level per grain (sd 1), and the boundaries between grains (bool)."""
    n = max(4, int(shape[0] * shape[1] / size_px**2))
    seeds = np.full(shape, True)
    ys, xs = rng.integers(0, shape[0], n), rng.integers(0, shape[1], n)
    seeds[ys, xs] = False
    iy, ix = ndimage.distance_transform_edt(seeds, return_distances=False, return_indices=True)
    level_of_pixel = rng.standard_normal(shape, dtype=np.float32)
    level = level_of_pixel[iy, ix]
    edge = np.zeros(shape, bool)
    edge[:-1] |= level[:-1] != level[1:]
    edge[:, :-1] |= level[:, :-1] != level[:, 1:]
    return level, edge


def stripes(rng: np.random.Generator, shape: Shape, period_px: float) -> np.ndarray:
    """Wavy parallel lines (rolling marks, growth steps, lattice fringes) in a random direction; sd about 1."""
    angle = rng.uniform(0, math.pi)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period_px)
    return np.sqrt(2) * np.sin(phase + 1.5 * smooth_noise(rng, shape, 8 * period_px)).astype(np.float32)


def dot_lattice(rng: np.random.Generator, shape: Shape, pitch_px: float, fill: float = 0.3) -> np.ndarray:
    """Hexagonal or square lattice of discs, as on patterned electrodes; 0..1, soft edges."""
    angle = rng.uniform(-0.15, 0.15)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    u = (x * math.cos(angle) + y * math.sin(angle)) / pitch_px + rng.uniform()
    v = (y * math.cos(angle) - x * math.sin(angle)) / pitch_px + rng.uniform()
    if rng.uniform() < 0.7:
        v = v / (math.sqrt(3) / 2)
        u = u + 0.5 * (np.floor(v) % 2)
        dv = (v - np.floor(v) - 0.5) * (math.sqrt(3) / 2)
    else:
        dv = v - np.floor(v) - 0.5
    d = np.hypot(u - np.floor(u) - 0.5, dv) * pitch_px
    return np.clip(fill * pitch_px - d + 0.5, 0, 1).astype(np.float32)


def scratches(rng: np.random.Generator, shape: Shape, count: int) -> np.ndarray:
    """Thin straight or slightly bent lines of either sign; float32, peak about 1."""
    from PIL import ImageDraw

    canvas = Image.new("F", (shape[1], shape[0]), 0.0)
    draw = ImageDraw.Draw(canvas)
    common = rng.uniform(0, math.pi)
    for _ in range(count):
        angle = common + rng.normal(0, 0.15 if rng.uniform() < 0.7 else 1.5)
        y, x, length = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0.1, 1.2) * max(shape)
        dy, dx = math.sin(angle) * length / 2, math.cos(angle) * length / 2
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=float(rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1)), width=1)
    return ndimage.gaussian_filter(np.asarray(canvas), float(rng.uniform(0.4, 0.9)))


def bumps(rng: np.random.Generator, shape: Shape, size_px: float) -> np.ndarray:
    """Round grains, closely packed, as lit by a detector (moss, granular metal); mean 0, sd 1."""
    noise = smooth_noise(rng, shape, size_px)
    rounded = 1 - np.abs(noise)  # ridged noise: rounded tops, sharp dark gaps
    return ((rounded - rounded.mean()) / max(float(rounded.std()), 1e-6)).astype(np.float32)


TEXTURES: dict[str, Callable[[np.random.Generator, Shape, float], np.ndarray]] = {
    "smooth": smooth_noise,
    "fractal": lambda rng, shape, length: fractal_noise(rng, shape, 4 * length, 0.7),
    "bumps": lambda rng, shape, length: bumps(rng, shape, 1.5 * length),
    "stripes": lambda rng, shape, length: stripes(rng, shape, 2.5 * length),
    "grains": lambda rng, shape, length: grains(rng, shape, 3 * length)[0],
    "flakes": lambda rng, shape, length: smooth_noise(
        rng, shape, (length, 5 * length) if rng.uniform() < 0.5 else (5 * length, length)
    ),
}
