"""Filaments in a separator, forked trees, and diffusion around grains."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from seg.accuracy.bodies import VOXEL, VOXEL_UM
from seg.accuracy.faults import FAULTS
from seg.accuracy.plan import PIXEL, PIXEL_UM
from seg.accuracy.trials import Trial, only
from seg.labels import load_schema
from seg.metrics import dendrite, filament, layers
from seg.metrics.frame import Frame
from seg.metrics.table import Scale


def penetrating(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Two bent filaments of 5 to 8 voxels in a separator between two electrodes; in half of the twins one shorts it."""
    shape = (52, 48, 48)
    size = np.asarray(shape) * VOXEL_UM
    coordinates = _centres(shape, VOXEL_UM)
    near, far = 3.0 + rng.uniform(-0.5, 0.5, 2) * VOXEL_UM[0]
    gap = size[0] - near - far
    radius, shorted = rng.uniform(2.5, 4.0) * VOXEL, rng.uniform() < 0.5
    level, deepest = np.full(shape, -1e3), 0.0
    for k, middle in enumerate((0.3, 0.7)):
        # The first may reach through; what does not stops 4 voxels before the other electrode at least.
        through = k == 0 and shorted
        depth = gap + 2 if through else rng.uniform(0.3, 0.75) * gap
        spot = np.array([near - 2 * radius, middle * size[1], rng.uniform(0.35, 0.65) * size[2]])
        heights = np.linspace(0, depth - radius + 2 * radius, 4)
        line = [spot + np.array([h, *(rng.normal(0, 0.5, 2) if h else (0, 0))]) for h in heights]
        level = np.maximum(level, _tube(coordinates, line, radius))
        deepest = max(deepest, gap if through else max(p[0] for p in line) + radius - near)
    first, last = (
        FAULTS[fault](rng)(d / VOXEL + 0 * level)
        for d in (near - coordinates[0], coordinates[0] - (size[0] - far))
    )  # fmt: skip
    metal = FAULTS[fault](rng)(level / VOXEL)
    labels = np.where(first | last, 3, np.where(metal, 4, 9)).astype(np.uint8)
    rows = filament.measure_frame(Frame(labels, load_schema("lithium"), Scale(VOXEL_UM)))
    found = [Trial.of(only(rows, "percolates"), float(shorted))]
    return found if shorted else [Trial.of(only(rows, "penetration_depth"), deepest), *found]


def forked(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Two forks of 6 to 10 px width on a substrate: a trunk, and two branches that part at 45 to 100 degrees."""
    shape = (260, 300)
    size = np.asarray(shape) * PIXEL_UM
    coordinates = _centres(shape, PIXEL_UM)
    floor = size[0] - 12 * PIXEL + rng.uniform(-0.5, 0.5) * PIXEL_UM[0]
    radius, angle = rng.uniform(3, 5) * PIXEL, rng.uniform(45, 100)
    trunk, branch = rng.uniform(60, 90) * PIXEL, rng.uniform(60, 90) * PIXEL
    level = np.full(shape, -1e3)
    for middle in (0.27, 0.73):
        lean = math.radians(rng.uniform(-8, 8))
        foot = np.array([floor + 2 * radius, middle * size[1]])
        fork = foot + (trunk + 2 * radius) * np.array([-math.cos(lean), math.sin(lean)])
        level = np.maximum(level, _tube(coordinates, [foot, fork], radius))
        for side in (-1, 1):
            turn = lean + side * math.radians(angle / 2)
            tip = fork + branch * np.array([-math.cos(turn), math.sin(turn)])
            level = np.maximum(level, _tube(coordinates, [fork, tip], radius))
    ground, metal = (FAULTS[fault](rng)(d / PIXEL + 0 * level) for d in (coordinates[0] - floor, level))
    labels = np.where(ground, 2, np.where(metal, 4, 1)).astype(np.uint8)
    rows = dendrite.measure_frame(Frame(labels, load_schema("lithium"), Scale(PIXEL_UM)), front_classes=())
    # From the foot along the trunk and a branch to its end, whose round cap lies beyond the centre of its tip.
    out = branch + radius
    chord = math.sqrt(trunk**2 + out**2 + 2 * trunk * out * math.cos(math.radians(angle / 2)))
    truths = {"branch_angle": angle, "tortuosity": (trunk + out) / chord}
    return [Trial.of(only(rows, name, side=""), truth) for name, truth in truths.items()]


def around_grains(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Pores around insulating balls on a cubic grid, of 15 to 40 % of it: Rayleigh's series gives the factor."""
    side = int(rng.integers(20, 29))
    shape = (side, round(side * 1.2), round(side * 1.2))
    size = np.asarray(shape) * VOXEL_UM
    edge = float(size[0])
    share = rng.uniform(0.15, 0.40)
    radius = edge * (3 * share / (4 * math.pi)) ** (1 / 3)
    z, y, x = _centres(shape, VOXEL_UM)
    away = np.sqrt((z - size[0] / 2) ** 2 + (y - size[1] / 2) ** 2 + (x - size[2] / 2) ** 2)
    ball = FAULTS[fault](rng)((radius - away) / VOXEL)
    labels = np.where(ball, 3, 1).astype(np.uint8)
    rows = layers.measure_frame(Frame(labels, load_schema("lithium"), Scale(VOXEL_UM)), tortuosity_axis="z")
    diffusivity = 1 - 3 * share / (2 + share - 0.3914 * share ** (10 / 3))
    # The cell is the cube only as far as whole voxels allow.
    assert abs(size[1] / edge - 1) < 0.03
    return [Trial.of(only(rows, "tortuosity_factor", side="z"), (1 - share) / diffusivity)]


def _centres(shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[np.ndarray]:
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _tube(coordinates: list[np.ndarray], line: list[np.ndarray], radius: float) -> np.ndarray:
    """Signed distance to the surface of a tube about a line with round ends, positive inside."""
    away: np.ndarray = np.array(np.inf)
    for a, b in pairwise(line):
        along = b - a
        share = sum((c - p) * d for c, p, d in zip(coordinates, a, along, strict=True)) / float(along @ along)
        share = np.clip(share, 0, 1)
        parts = (c - p - share * d for c, p, d in zip(coordinates, a, along, strict=True))
        away = np.minimum(away, np.sqrt(sum(q**2 for q in parts)))
    return np.asarray(radius - away)
