"""Profile view: caps on lines and fibres."""

from __future__ import annotations

import math

import numpy as np

from seg.accuracy.faults import FAULTS
from seg.accuracy.trials import Trial, only
from seg.labels import load_schema
from seg.metrics.contact_angle import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.table import Scale

SPACING_NM = (1.05, 1.0)


def cap_on(rng: np.random.Generator, fault: str, *, fibre: bool) -> list[Trial]:
    """One cap of 40 to 140 degrees and a radius of 18 to 50 px, on a line within 15 degrees of level or on a fibre."""
    spacing = tuple(s * 1e-3 for s in SPACING_NM)
    pixel = math.sqrt(math.prod(spacing))
    angle, radius = rng.uniform(40, 140), rng.uniform(18, 50) * pixel
    theta, turn = math.radians(angle), 0.0 if fibre else math.radians(rng.uniform(-15, 15))
    fibre_radius = radius * rng.uniform(1, 3)
    height = radius * (1 - math.cos(theta)) + 45 * pixel
    depth = 35 * pixel
    width = 3 * radius + 80 * pixel + (1.2 * fibre_radius if fibre else 0.0)
    shape = int((height + depth) / spacing[0]), int(width / spacing[1])
    y, x = (i * s for i, s in zip(np.mgrid[: shape[0], : shape[1]], spacing, strict=True))
    foot = np.array([height, width / 2]) + rng.uniform(-0.5, 0.5, 2) * spacing
    along = (x - foot[1]) * math.cos(turn) - (y - foot[0]) * math.sin(turn)
    up = -(x - foot[1]) * math.sin(turn) - (y - foot[0]) * math.cos(turn)
    if fibre:
        # Two circles that cross at the contact angle.
        apart = math.sqrt(radius**2 + fibre_radius**2 - 2 * radius * fibre_radius * math.cos(theta))
        below = fibre_radius - np.hypot(along, up + fibre_radius)
        inside = radius - np.hypot(along, up + fibre_radius - apart)
        # The chord between the contact points, from the sine rule.
        half_base = radius * fibre_radius * math.sin(theta) / apart
        top = radius + apart - fibre_radius
    else:
        below = -up
        inside = radius - np.hypot(along, up + radius * math.cos(theta))
        half_base, top = radius * math.sin(theta), radius * (1 - math.cos(theta))
    substrate, drop = FAULTS[fault](rng)(below / pixel), FAULTS[fault](rng)(inside / pixel)
    labels = np.where(substrate, 2, np.where(drop, 3, 1)).astype(np.uint8)
    rows = measure_frame(Frame(labels, load_schema("lithium"), Scale(spacing)))
    sizes = np.bincount([r.object_id for r in rows if r.object_id is not None] or [0], minlength=2)
    one = int(np.argmax(sizes))  # specks of a noisy mask are objects too, refused as such
    if one == 0:
        return []
    found = [Trial.of(only(rows, "contact_angle", object_id=one, side=s), angle, f"contact_angle ({s})")
             for s in ("left", "right", "mean")]  # fmt: skip
    for name, truth in (("base_width", 2 * half_base), ("cap_height", top)):
        given = [r for r in rows if r.metric == name and r.object_id == one]
        found += [Trial.of(row, truth) for row in given if not math.isnan(found[0].value)]
    return found


def on_line(rng: np.random.Generator, fault: str) -> list[Trial]:
    """`cap_on` a line."""
    return cap_on(rng, fault, fibre=False)


def on_fibre(rng: np.random.Generator, fault: str) -> list[Trial]:
    """`cap_on` a fibre."""
    return cap_on(rng, fault, fibre=True)
