"""Balls on planes, voids in metal, shells around cores, and trees."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import ndimage

from seg.accuracy.faults import FAULTS
from seg.accuracy.plan import place_apart
from seg.accuracy.trials import Trial, only
from seg.labels import load_schema
from seg.metrics import balance, contact_angle, dendrite, layers, sei, voids
from seg.metrics import dead as dead_metal
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.table import Scale, to_table
from seg.synthetic import make_experiment
from seg.synthetic.cycler import UM_PER_MAH_CM2

VOXEL_UM = (0.6, 0.5, 0.5)
VOXEL = math.prod(VOXEL_UM) ** (1 / 3)


def _grid(shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Physical coordinates of the centres of the pixels, from the corner of the first, to be broadcast."""
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def ball_on_plane(rng: np.random.Generator, fault: str) -> list[Trial]:
    """A ball of 11 to 15 voxels that meets a plane, tilted by up to 8 degrees, at 50 to 130 degrees."""
    angle, radius = rng.uniform(50, 130), rng.uniform(11, 15) * VOXEL
    theta = math.radians(angle)
    normal = np.array([1.0, *rng.uniform(-0.1, 0.1, 2)])
    normal /= np.linalg.norm(normal)
    height, side = radius * (1 - math.cos(theta)), 2 * radius + 10
    shape = tuple(int(n / s) for n, s in zip((height + 7, side, side), VOXEL_UM, strict=True))
    z, y, x = _grid(shape, VOXEL_UM)
    foot = np.array([3.5, side / 2, side / 2]) + rng.uniform(-0.5, 0.5, 3) * VOXEL_UM
    up = (z - foot[0]) * normal[0] + (y - foot[1]) * normal[1] + (x - foot[2]) * normal[2]
    center = foot - radius * math.cos(theta) * normal
    inside = radius - np.sqrt((z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2)
    substrate, ball = FAULTS[fault](rng)(-up / VOXEL), FAULTS[fault](rng)(inside / VOXEL)
    labels = np.where(substrate, 2, np.where(ball, 3, 1)).astype(np.uint8)
    ids, n = ndimage.label(labels == 3)
    largest = int(np.argmax(np.bincount(ids.ravel())[1:])) + 1 if n else 0
    frame = Frame(labels, load_schema("lithium"), Scale(VOXEL_UM), instances=np.where(ids == largest, 1, 0))
    rows = contact_angle.measure_frame(frame)
    return [Trial.of(only(rows, "contact_angle", object_id=1, side="mean"), angle, "contact_angle (volume)")]


def voided(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Metal under a separator, with four voids inside and four at the interface, whole balls and parts of balls."""
    shape = (40, 80, 80)
    size = np.asarray(shape) * VOXEL_UM
    z, y, x = _grid(shape, VOXEL_UM)
    level = 0.62 * size[0] + rng.uniform(-0.5, 0.5) * VOXEL_UM[0]
    tilt = np.tan(np.radians(rng.uniform(-2, 2, 2)))
    below = level + tilt[0] * (y - size[1] / 2) + tilt[1] * (x - size[2] / 2) - z
    radii = rng.uniform(3.0, 4.2, 8)
    spots = place_apart(rng, radii, np.full(2, 5.0), size[1:] - 5.0, gap=1.5)
    hollow = np.full(shape, -1e3)
    volume = open_area = 0.0
    deepest = math.nan
    slope = math.sqrt(1 + tilt[0] ** 2 + tilt[1] ** 2)
    for k, ((cy, cx), radius) in enumerate(zip(spots, radii, strict=True)):
        surface = level + tilt[0] * (cy - size[1] / 2) + tilt[1] * (cx - size[2] / 2)
        # Depth of the centre below the interface, along its normal: a part of a ball for every other void.
        # The first one is buried deepest, by which it is known again.
        depth = rng.uniform(0.15, 0.6) * radius if k % 2 else radius + rng.uniform(1.0, 1.8) + (1.4 if k == 0 else 0.0)
        cz = surface - depth * slope
        hollow = np.maximum(hollow, radius - np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2))
        deepest = depth - radius if k == 0 else deepest
        cap = radius - depth if depth < radius else 0.0  # height of the part that would be in the separator
        volume += 4 / 3 * math.pi * radius**3 - math.pi * cap**2 * (3 * radius - cap) / 3
        open_area += math.pi * (radius**2 - depth**2) / slope if depth < radius else 0.0
    void, metal = FAULTS[fault](rng)(hollow / VOXEL), FAULTS[fault](rng)(below / VOXEL)
    labels = np.where(~metal, 9, np.where(void, 7, 3)).astype(np.uint8)
    rows = voids.measure_frame(Frame(labels, load_schema("lithium"), Scale(VOXEL_UM)))
    slab = level * size[1] * size[2]
    truths = {
        "void_fraction": volume / slab, "void_volume": volume, "contact_loss_fraction": open_area / (size[1] * size[2])
    }  # fmt: skip
    found = [Trial.of(only(rows, name), truth) for name, truth in truths.items()]
    away = [r for r in rows if r.metric == "void_distance_to_interface" and r.object_id and r.value > 0]
    if away:
        row = max(away, key=lambda r: r.value)
        size = only(rows, "void_diameter", object_id=row.object_id)
        found += [Trial.of(row, deepest), Trial.of(size, 2 * radii[0])]
    return found


def shelled(rng: np.random.Generator, fault: str) -> list[Trial]:
    """A disc of metal of 30 to 45 px with a shell of 5 to 14 px, even or wavy."""
    spacing = (0.00042, 0.0004)
    pixel = math.sqrt(math.prod(spacing))
    core, thickness = rng.uniform(30, 45) * pixel, rng.uniform(5, 14) * pixel
    shape = (140, 150)
    y, x = _grid(shape, spacing)
    cy, cx = np.asarray(shape) * spacing / 2 + rng.uniform(-1, 1, 2) * pixel
    away, turn = np.hypot(y - cy, x - cx), np.arctan2(y - cy, x - cx)
    wavy = rng.choice([0.0, 0.2])
    wave = wavy * thickness * np.cos(5 * turn + rng.uniform(0, 6.3))
    inner, outer = (
        FAULTS[fault](rng)((core - away) / pixel),
        FAULTS[fault](rng)((core + thickness + wave - away) / pixel),
    )
    labels = np.where(inner, 3, np.where(outer, 8, 1)).astype(np.uint8)
    rows = sei.measure_frame(Frame(labels, load_schema("lithium"), Scale(spacing)))
    spread = 0.2 * thickness / math.sqrt(2) if wavy else 0.0
    return [
        Trial.of(only(rows, "sei_thickness_mean"), thickness),
        # Of faces that wander, the spread of the thickness is larger: nothing in a mask tells which of it is real.
        *([Trial.of(only(rows, "sei_thickness_sd"), spread)] if wavy and fault != "rough" else []),
        Trial.of(only(rows, "core_to_sei_ratio"), 2 * core / thickness), Trial.of(only(rows, "sei_coverage"), 1.0),
    ]  # fmt: skip


def rough_layer(rng: np.random.Generator, fault: str) -> list[Trial]:
    """A layer of 14 voxels on a foil, whose free face wanders by 1 to 3 voxels, correlated over 5."""
    shape = (40, 72, 80)
    z = (np.arange(shape[0]) + 0.5)[:, None, None] * VOXEL_UM[0]
    foil = 7.0 + rng.uniform(-0.5, 0.5) * VOXEL_UM[0]
    course = ndimage.gaussian_filter(rng.standard_normal(shape[1:]), 5.0, mode="wrap")
    sd = rng.uniform(1, 3) * VOXEL_UM[0]
    # White noise that a Gaussian of 5 px has smoothed has this standard deviation.
    height = 14 * VOXEL_UM[0] + course * 2 * math.sqrt(math.pi) * 5.0 * sd
    # Distance from a leaning face, not along z.
    slope = np.sqrt(1 + sum((g / s) ** 2 for g, s in zip(np.gradient(height), VOXEL_UM[1:], strict=True)))
    below, metal = (
        FAULTS[fault](rng)((foil - z) / VOXEL + 0 * course),
        FAULTS[fault](rng)((foil + height - z) / slope / VOXEL),
    )
    labels = np.where(below, 2, np.where(metal, 3, 1)).astype(np.uint8)
    rows = layers.measure_frame(Frame(labels, load_schema("lithium"), Scale(VOXEL_UM)))
    return [
        Trial.of(only(rows, "layer_thickness"), float(height.mean())), Trial.of(only(rows, "roughness_sq"), sd),
        Trial.of(only(rows, "roughness_sa"), sd * math.sqrt(2 / math.pi)),
    ]  # fmt: skip


def plated_and_stripped(rng: np.random.Generator, fault: str) -> list[Trial]:
    """A bare foil, a layer of 20 voxels with pores of 6 to 10 voxels in it, and the 3 to 6 that stripping leaves."""
    shape = (36, 76, 80)
    size = np.asarray(shape) * VOXEL_UM
    z, y, x = _grid(shape, VOXEL_UM)
    foil, ratio = 4.0 + rng.uniform(-0.5, 0.5) * VOXEL_UM[0], rng.uniform(0.6, 1.0)
    full, left = 20 * VOXEL_UM[0], rng.uniform(3, 6) * VOXEL_UM[0]
    radii = rng.uniform(3.0, 5.0, 14) * VOXEL
    spots = place_apart(rng, radii, radii.max() + np.full(2, 1.0), size[1:] - radii.max() - 1.0, gap=1.2)
    inside, empty = np.full(shape, -1e3), 0.0
    for (cy, cx), radius in zip(spots, radii, strict=True):
        cz = foil + rng.uniform(left + radius + 0.8, full - radius - 0.4)
        inside = np.maximum(inside, radius - np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2))
        empty += 4 / 3 * math.pi * radius**3
    area = float(size[1] * size[2])
    metal_of, rows = FAULTS[fault](rng), []
    ground = metal_of((foil - z) / VOXEL + 0 * inside)
    for frame, height in enumerate((0.0, full, left)):
        metal = metal_of(np.minimum(foil + height - z, -inside) / VOXEL) & (height > 0)
        labels = np.where(ground, 2, np.where(metal, 3, 1)).astype(np.uint8)
        one = Frame(labels, load_schema("lithium"), Scale(VOXEL_UM), frame, 600.0 * frame)
        rows += balance.measure_frame(one) + (layers.measure_frame(one) if frame == 1 else [])
    plated = full - empty / area
    charge = np.array([0.0, 1.0, 0.5]) * plated / (UM_PER_MAH_CM2 * ratio)
    current = pd.DataFrame(
        {"frame": range(3), "half_cycle": ["rest", "plating", "stripping"], "cycle": 1,
         "areal_capacity_mAh_per_cm2": charge}
    )  # fmt: skip
    rows += balance.measure_whole(History(to_table(rows), Scale(VOXEL_UM), electrochem=current))
    truths = {
        "porosity": (1 - plated / full, 1), "imaged_porosity": (1 - plated / full, 1),
        "deposit_volume": (plated * area, 1),
        "volume_charge_ratio": (ratio, None), "imaging_efficiency": (1 - left / plated, None),
    }  # fmt: skip
    return [Trial.of(only(rows, name, frame=frame), truth) for name, (truth, frame) in truths.items()]


def cut_off(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Columns on a collector, and balls above them that touch nothing."""
    shape = (44, 84, 90)
    size = np.asarray(shape) * VOXEL_UM
    z, y, x = _grid(shape, VOXEL_UM)
    floor = 4.0 + rng.uniform(-0.5, 0.5) * VOXEL_UM[0]
    radii = np.concatenate([rng.uniform(2.5, 4.0, 5), rng.uniform(1.8, 3.0, 4)])
    spots = place_apart(rng, radii, np.full(2, 5.0), size[1:] - 5.0, gap=1.6)
    level, dead, live = np.full(shape, -1e3), 0.0, 0.0
    for k, ((cy, cx), radius) in enumerate(zip(spots, radii, strict=True)):
        aside = np.sqrt((y - cy) ** 2 + (x - cx) ** 2)
        if k < 5:
            top = floor + rng.uniform(6, 14)
            level = np.maximum(level, np.minimum(radius - aside, top - z))
            live += math.pi * radius**2 * (top - floor)
        else:
            cz = rng.uniform(floor + radius + 2, size[0] - radius - 2)
            level = np.maximum(level, radius - np.sqrt(aside**2 + (z - cz) ** 2))
            dead += 4 / 3 * math.pi * radius**3
    collector, metal = FAULTS[fault](rng)((floor - z) / VOXEL + 0 * level), FAULTS[fault](rng)(level / VOXEL)
    labels = np.where(collector, 2, np.where(metal, 3, 1)).astype(np.uint8)
    rows = dead_metal.measure_frame(Frame(labels, load_schema("lithium"), Scale(VOXEL_UM)))
    truths = {"dead_fraction": dead / (dead + live), "dead_volume": dead}
    return [Trial.of(only(rows, name), truth) for name, truth in truths.items()]


def ramified(rng: np.random.Generator, fault: str) -> list[Trial]:
    """Two combs, trunks with side branches, drawn three times finer than they are measured."""
    fine = 3
    shape, pixel = (264, 300), (0.105, 0.100)
    made = make_experiment(
        "dendrite", int(rng.integers(2**31)), shape_px=tuple(n * fine for n in shape), n_frames=1, n_trees=2,
        pixel_um=tuple(p / fine for p in pixel), width_um=float(rng.uniform(0.5, 0.9)),
        orders=1, resolved_px=fine, burnt_in=False,
    )  # fmt: skip
    labels = np.asarray(made.labels.frame(0))
    inside = labels == 4
    signed = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    middle = (slice(fine // 2, None, fine),) * 2
    level = (signed - 0.5 * np.sign(signed))[middle] / fine
    tree = FAULTS[fault](rng)(level)
    tree = np.isin(ids := ndimage.label(tree, np.ones((3, 3)))[0], _at_least(ids, 40)) & tree
    coarse = np.where(labels[middle] == 4, 1, labels[middle])
    coarse = np.where(tree & (coarse != 2), 4, coarse).astype(np.uint8)
    rows = dendrite.measure_frame(Frame(coarse, load_schema("lithium"), Scale(pixel)))
    return [
        Trial.of(only(rows, name, side=""), made.truth_value(name, frame=0))
        for name in ("skeleton_length", "branch_width", "dendrite_height", "tip_count", "branch_point_count")
    ]


def _at_least(ids: np.ndarray, pixels: int) -> np.ndarray:
    """Regions that are more than specks of a noisy mask."""
    sizes = np.bincount(ids.ravel())
    sizes[0] = 0
    return np.flatnonzero(sizes >= pixels)
