"""Pits that grow along their axes while metal is stripped, seen from above."""

from __future__ import annotations

import math

import numpy as np

from seg.accuracy.faults import FAULTS
from seg.accuracy.plan import PIXEL, PIXEL_UM, measured_series, place_apart
from seg.accuracy.trials import Trial, only
from seg.metrics.table import UM2_PER_CM2
from seg.synthetic.area import union_area

_FAR = -1e3


def growing_pits(rng: np.random.Generator, fault: str) -> list[Trial]:
    """About 25 elliptic pits in any direction, of one ratio of growth; each twin has its own, over 6 frames.

    Density and mean diameter are those of the population, the opening area is that of the very frame.
    """
    shape, n_frames, dt_s = (240, 280), 6, 10.0
    field = np.asarray(shape) * PIXEL_UM
    major, ratio = rng.uniform(0.04, 0.07) * PIXEL, rng.uniform(1.2, 1.7)
    first, end = 4.0 * PIXEL, dt_s * (n_frames - 1)
    spread = np.exp(rng.normal(0, 0.12, 4000))
    longest = (first + major * end) * 1.35
    margin = longest + 2 * PIXEL
    density = 25 / float(np.prod(field))
    n = rng.poisson(density * np.prod(field + 2 * margin))
    growth, turn = spread[:n], rng.uniform(0, math.pi, n)
    centers = place_apart(
        rng, (first + major * end) * growth, np.full(2, -margin), field + margin, gap=2.5 * PIXEL
    )  # fmt: skip
    mask_of, masks = FAULTS[fault](rng), []
    for k in range(n_frames):
        a = (first + major * k * dt_s) * growth
        masks.append(mask_of(_ellipses(centers, a, a / ratio, turn, shape)))
    rows = measured_series(masks, dt_s, {"pits": {"sectors": 0}, "events": {}}, name="pit")
    a = (first + major * end) * growth
    outlines = [_outline(c, one, one / ratio, t) for c, one, t in zip(centers, a, turn, strict=True)]
    opening = union_area(outlines, (float(field[0]), float(field[1])))
    # Of the population, whose growth is lognormal: mean diameter, and the median of the rates, which is that of 1.
    mean = 2 * (first + major * end) * math.exp(0.12**2 / 2) / math.sqrt(ratio)
    last = n_frames - 1
    truths = {
        "pit_density": (density * UM2_PER_CM2, last), "pit_diameter": (mean, last), "pit_opening_area": (opening, last),
        "pit_rate_major": (major, None), "pit_rate_minor": (major / ratio, None), "pit_anisotropy": (ratio, None),
    }  # fmt: skip
    return [Trial.of(only(rows, name, frame=f, side=""), truth) for name, (truth, f) in truths.items()]


def _ellipses(
    centers: np.ndarray, a: np.ndarray, b: np.ndarray, turn: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:  # fmt: skip
    """Signed distance (px) to the nearest outline, to first order, as far as 8 px around each ellipse."""
    level = np.full(shape, _FAR)
    spacing = np.asarray(PIXEL_UM)
    for center, major, minor, angle in zip(centers, a, b, turn, strict=True):
        low = np.maximum(np.floor((center - major) / spacing).astype(int) - 8, 0)
        high = np.minimum(np.ceil((center + major) / spacing).astype(int) + 9, shape)
        if (low >= high).any():
            continue
        y, x = ((np.arange(p, q) + 0.5) * s for p, q, s in zip(low, high, spacing, strict=True))
        dy, dx = y[:, None] - center[0], x[None] - center[1]
        c, s = math.cos(angle), math.sin(angle)
        u, v = (dx * c + dy * s) / major, (dy * c - dx * s) / minor
        rho = np.hypot(u, v)
        # What is left to the outline, over how steeply the level rises there.
        steep = np.hypot(u / major, v / minor) / np.maximum(rho, 1e-9)
        here = (1 - rho) / np.maximum(steep, 1e-9) / PIXEL
        box = tuple(slice(p, q) for p, q in zip(low, high, strict=True))
        level[box] = np.maximum(level[box], here)
    return level


def _outline(center: np.ndarray, major: float, minor: float, angle: float) -> np.ndarray:
    phi = np.linspace(0, 2 * math.pi, 720, endpoint=False)
    along, across = major * np.cos(phi), minor * np.sin(phi)
    c, s = math.cos(angle), math.sin(angle)
    return np.column_stack([center[0] + along * s + across * c, center[1] + along * c - across * s])
