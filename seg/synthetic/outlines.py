"""Outlines of single objects as polygons, vertices (n, 2) in (y, x) px: blobs, facets, caps, tree branches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def blob(
    rng: np.random.Generator,
    center: tuple[float, float],
    radius_px: float,
    *,
    waviness: float = 0.12,
    aspect: float = 1.0,
) -> np.ndarray:
    """Star-shaped outline: a circle with random harmonics 2..7 whose amplitude falls off as 1/k."""
    n = int(np.clip(8 + 2.5 * radius_px, 12, 160))
    phi = np.linspace(0, 2 * math.pi, n, endpoint=False)
    r = np.ones(n)
    for k in range(2, 8):
        r += waviness * rng.normal() * np.cos(k * phi + rng.uniform(0, 2 * math.pi)) / k
    r = radius_px * np.clip(r, 0.35, 1.8)
    turn = rng.uniform(0, math.pi)
    y, x = r * np.sin(phi) / math.sqrt(aspect), r * np.cos(phi) * math.sqrt(aspect)
    return np.column_stack(
        [center[0] + y * math.cos(turn) + x * math.sin(turn), center[1] - y * math.sin(turn) + x * math.cos(turn)]
    )


def faceted(
    rng: np.random.Generator, center: tuple[float, float], radius_px: float, *, sides: int, rounding: float = 0.2
) -> np.ndarray:
    """Polygon with `sides` edges and rounded corners (a superposition of polygon and circle)."""
    n = max(48, 12 * sides)
    phi = np.linspace(0, 2 * math.pi, n, endpoint=False)
    turn = rng.uniform(0, 2 * math.pi)
    normals = turn + 2 * math.pi * np.arange(sides) / sides + rng.normal(0, 0.12, sides)
    reach = radius_px * np.exp(rng.normal(0, 0.12, sides))
    cosines = np.cos(phi[:, None] - normals[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = np.where(cosines > 1e-3, reach[None, :] / cosines, np.inf)
    r = hits.min(axis=1)
    r = (1 - rounding) * np.minimum(r, 1.8 * radius_px) + rounding * radius_px
    return np.column_stack([center[0] + r * np.sin(phi), center[1] + r * np.cos(phi)])


def cap_on_line(base_mid: tuple[float, float], along: float, base_px: float, angle_deg: float) -> np.ndarray:
    """Circular cap standing on a line.

    Parameters
    ----------
    base_mid : (float, float)
        Middle of the base, (y, x).
    along : float
        Direction of the base line in radians; the cap rises to its left seen along it with y pointing down,
        that is upwards in the image for 0.
    base_px : float
        Width of the base.
    angle_deg : float
        Contact angle through the cap.
    """
    theta = math.radians(angle_deg)
    radius = base_px / 2 / max(math.sin(theta), 1e-3)
    phi = np.linspace(-theta, theta, 96)
    u = radius * np.sin(phi)  # along the base
    v = radius * (np.cos(phi) - math.cos(theta))  # above the base
    return on_frame(base_mid, along, u, v)


def on_frame(origin: tuple[float, float], along: float, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Points given along (u) and above (v) a base line, in image coordinates (y, x)."""
    c, s = math.cos(along), math.sin(along)
    return np.column_stack([origin[0] + u * s - v * c, origin[1] + u * c + v * s])


@dataclass(frozen=True)
class Branches:
    """Tapered straight pieces of a tree.

    Parameters
    ----------
    start, end : ndarray (n, 2)
        (y, x) px.
    width_start, width_end : ndarray (n,)
        Diameter at both ends, px.
    order : ndarray (n,) of int
        0 for the trunk, 1 for its side branches, and so on.
    """

    start: np.ndarray
    end: np.ndarray
    width_start: np.ndarray
    width_end: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    @classmethod
    def joined(cls, parts: list[Branches]) -> Branches:
        """All pieces of several trees."""
        return cls(
            *(
                np.concatenate([getattr(p, f) for p in parts])
                for f in ("start", "end", "width_start", "width_end", "order")
            )
        )


def _from_rows(rows: list[tuple[float, float, float, float, float, float, int]]) -> Branches:
    table = np.asarray(rows, float).reshape(-1, 7)
    return Branches(table[:, :2], table[:, 2:4], table[:, 4], table[:, 5], table[:, 6].astype(int))


def tree(
    rng: np.random.Generator,
    root: tuple[float, float],
    direction: float,
    *,
    length_px: float,
    width_px: float,
    side_angle_deg: float = 55.0,
    side_ratio: float = 0.45,
    spacing_px: float = 6.0,
    orders: int = 2,
    bend: float = 0.05,
    max_pieces: int = 1500,
) -> Branches:
    """Dendrite with side branches in ordered pairs (fern) or, with strong `bend`, a bush.

    Parameters
    ----------
    rng : numpy Generator
    root : (float, float)
        (y, x) px.
    direction : float
        Growth direction, radians from +x towards -y (up).
    length_px, width_px : float
        Trunk length and diameter at its root.
    side_angle_deg : float
        Angle of side branches to their parent.
    side_ratio : float
        Length of side branches relative to what is left of the parent.
    spacing_px : float
        Distance between side branches.
    orders : int
        Generations of side branches.
    bend : float
        Random turn per piece, radians.
    max_pieces : int
    """
    rows: list[tuple[float, float, float, float, float, float, int]] = []
    side = math.radians(side_angle_deg)
    todo = [(root[0], root[1], direction, length_px, width_px, 0)]
    while todo and len(rows) < max_pieces:
        y, x, heading, length, width, order = todo.pop(0)
        n = max(1, round(length / spacing_px))
        step = length / n
        for k in range(n):
            heading += rng.normal(0, bend)
            w0, w1 = width * (1 - 0.75 * k / n), width * (1 - 0.75 * (k + 1) / n)
            y1, x1 = y - step * math.sin(heading), x + step * math.cos(heading)
            rows.append((y, x, y1, x1, w0, w1, order))
            y, x = y1, x1
            left = length - (k + 1) * step
            # Young side branches near the tip are short, old ones are shaded by their neighbours.
            reach = side_ratio * min(left + step, 1.6 * (k + 1) * step + 2 * step) * rng.uniform(0.45, 1.15)
            if order < orders and reach > 1.2 * max(width, 1.0):
                for sign in (-1, 1):
                    if rng.uniform() < 0.85:
                        todo.append(
                            (y, x, heading + sign * side * rng.uniform(0.8, 1.2), reach, 0.65 * w1 + 0.3, order + 1)
                        )
    return _from_rows(rows)


def crown(
    rng: np.random.Generator,
    root: tuple[float, float],
    direction: float,
    *,
    length_px: float,
    width_px: float,
    spread_deg: float = 60.0,
    splits: int = 5,
    max_pieces: int = 1500,
) -> Branches:
    """Tip-splitting tree (dense branching, DLA-like): each piece ends in two or three children."""
    rows: list[tuple[float, float, float, float, float, float, int]] = []
    todo = [(root[0], root[1], direction, length_px * (1 - 0.72) / (1 - 0.72**splits), width_px, 0)]
    while todo and len(rows) < max_pieces:
        y, x, heading, length, width, order = todo.pop(0)
        pieces = max(2, int(length / 6))
        for k in range(pieces):
            heading += rng.normal(0, 0.12)
            y1, x1 = y - length / pieces * math.sin(heading), x + length / pieces * math.cos(heading)
            rows.append((y, x, y1, x1, width * (1 - 0.2 * k / pieces), width * (1 - 0.2 * (k + 1) / pieces), order))
            y, x = y1, x1
        if order < splits:
            children = 3 if rng.uniform() < 0.25 else 2
            fan = math.radians(spread_deg) * 0.85**order
            for turn in np.linspace(-0.5, 0.5, children):
                # Children lean back towards the growth direction: screening favours what points outwards.
                lean = 0.2 * math.sin(direction - heading)
                todo.append((y, x, heading + fan * turn + lean + rng.normal(0, 0.12), length * rng.uniform(0.55, 0.9),
                             0.82 * width, order + 1))  # fmt: skip
    return _from_rows(rows)


def needle(
    rng: np.random.Generator,
    root: tuple[float, float],
    direction: float,
    *,
    length_px: float,
    width_px: float,
    kinks: int,
) -> Branches:
    """Whisker of constant width with a number of sharp kinks."""
    cuts = np.sort(rng.uniform(0.15, 0.95, kinks))
    ends = np.concatenate([[0.0], cuts, [1.0]]) * length_px
    rows = []
    y, x = root
    for a, b in zip(ends, ends[1:], strict=False):
        y1, x1 = y - (b - a) * math.sin(direction), x + (b - a) * math.cos(direction)
        rows.append((y, x, y1, x1, width_px, width_px, 0))
        y, x = y1, x1
        direction += rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
    return _from_rows(rows)
