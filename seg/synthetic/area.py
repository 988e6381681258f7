"""Exact areas of unions of polygons inside a field, by integration along scan lines: independent of any pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def union_area(polygons: Sequence[np.ndarray], field: tuple[float, float], *, lines: int = 4096) -> float:
    """Area of the union of simple polygons inside the rectangle [0, height] x [0, width].

    Parameters
    ----------
    polygons : sequence of ndarray, shape (n, 2)
        Vertices (y, x); either sense of rotation.
    field : (float, float)
        Height and width.
    lines : int
        Scan lines. Along a line the length is exact; across lines the mid-point rule errs by about
        ``lines**-1.5`` of the height per round outline (below 1e-5 of the field at the default), and by up to half a
        line times its length for an edge along the lines.

    Returns
    -------
    float
        In the units of the vertices, squared.
    """
    if not polygons:
        return 0.0
    height, width = field
    start, end = _edges(polygons)
    step = height / lines
    # Scan line k lies at (k + 1/2) step; an edge crosses those between its ends.
    low, high = np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0])
    first = np.clip(np.ceil(low / step - 0.5), 0, lines).astype(np.int64)
    last = np.clip(np.ceil(high / step - 0.5), 0, lines).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(start)), count)
    line = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = ((line + 0.5) * step - start[edge, 0]) / (end[edge, 0] - start[edge, 0])
    x = np.clip(start[edge, 1] + share * (end[edge, 1] - start[edge, 1]), 0, width)
    sign = np.where(end[edge, 0] > start[edge, 0], 1, -1)
    order = np.lexsort((x, line))
    line, x, winding = line[order], x[order], np.cumsum(sign[order])  # every line's signs sum to 0
    inside = (winding[:-1] != 0) & (line[:-1] == line[1:])
    return float(np.sum(np.diff(x)[inside]) * step)


def _edges(polygons: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Edges of all polygons, each turned to the same sense of rotation, so that overlaps add up."""
    starts, ends = [], []
    for vertices in polygons:
        following = np.roll(vertices, -1, axis=0)
        twice = np.sum(vertices[:, 1] * following[:, 0] - following[:, 1] * vertices[:, 0])
        a, b = (vertices, following) if twice >= 0 else (following, vertices)
        keep = a[:, 0] != b[:, 0]
        starts.append(a[keep])
        ends.append(b[keep])
    return np.concatenate(starts), np.concatenate(ends)


def polygon_area(vertices: np.ndarray) -> float:
    """Area of one simple polygon (shoelace formula)."""
    following = np.roll(vertices, -1, axis=0)
    return abs(float(np.sum(vertices[:, 1] * following[:, 0] - following[:, 1] * vertices[:, 0]))) / 2


def rectangle(top: float, left: float, bottom: float, right: float) -> np.ndarray:
    """Vertices (y, x) of an upright rectangle."""
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], float)


def mask_rectangles(mask: np.ndarray, pixel_um: Sequence[float]) -> list[np.ndarray]:
    """Polygons (y, x) in µm of the runs of true pixels along the rows of a mask, shape (Y, X)."""
    found = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        found += [rectangle(y, a, y + 1, b) * np.asarray(pixel_um) for a, b in edges.reshape(-1, 2)]
    return found


def circle(y: float, x: float, radius: float, vertices: int = 128) -> np.ndarray:
    """Polygon (y, x) with the area of the circle."""
    angle = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
    r = radius * math.sqrt(2 * math.pi / vertices / math.sin(2 * math.pi / vertices))
    return np.column_stack([y + r * np.sin(angle), x + r * np.cos(angle)])


def ribbon(line: np.ndarray, width: float) -> list[np.ndarray]:
    """Polygons whose union is everything within half of `width` of a polyline (y, x)."""
    if len(line) < 2:
        return []
    line = line[np.concatenate([[True], (np.abs(np.diff(line, axis=0)) > 1e-12).any(axis=1)])]
    along = np.diff(line, axis=0)
    across = np.column_stack([-along[:, 1], along[:, 0]]) / np.hypot(*along.T)[:, None] * width / 2
    straight = [np.array([a + n, b + n, b - n, a - n]) for a, b, n in zip(line[:-1], line[1:], across, strict=True)]
    return straight + [circle(y, x, width / 2, 64) for y, x in line]
