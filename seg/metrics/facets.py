"""From droplet to crystal: straight runs of an outline, the corners between them, and their share of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from seg.metrics.contact_local import FACET_DEVIATION_PX
from seg.metrics.frame import Frame
from seg.metrics.interface import pixel_along, smooth_path
from seg.metrics.table import Measurement
from seg.metrics.tracing import Loops
from seg.objects import cut_objects, equivalent_diameter

# A circle of radius R keeps within the deviation d of a chord over sqrt(8 R d); a facet is half as long again.
RUN_FACTOR = 1.5
# Below this radius the side of a hexagon is shorter than such a run, 2 R sin(30 deg) = 1.5 sqrt(8 R d): finding no
# facet says nothing. Below the other no run is told from a step of the grid.
HEXAGON_RADIUS_PX, MIN_RADIUS_PX = RUN_FACTOR**2 * 8 * FACET_DEVIATION_PX, 5.0
# A run that is hardly longer than the limit may have neighbours just under it.
CLEAR_RUN = 1.15
# Neighbouring facets closer in direction than this are one side with a step.
MIN_CORNER_DEG = 12.0
METHOD = "runs within 0.7 px of a chord, longer than 1.5 times those of a circle"


@dataclass(frozen=True)
class Facets:
    """Straight parts of one outline; NaN where the outline cannot tell.

    ``fraction`` is the straight share of the free outline and ``fraction_error`` its greatest error.
    """

    count: float = math.nan
    fraction: float = math.nan
    fraction_error: float = math.nan
    corners: float = math.nan
    flags: tuple[str, ...] = ()


def find_facets(mask: np.ndarray, *, spacing: Sequence[float], free: np.ndarray | None = None) -> Facets:
    """Facets of the outline of one object.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        One object with a margin of at least one pixel; holes do not count.
    spacing : sequence of float
        Pixel size (y, x).
    free : ndarray of bool, shape (Y, X), optional
        Where the outline may lie next to: a base on a substrate is no facet. Default: everywhere outside.

    Notes
    -----
    A circle of radius R stays within ``d`` = 0.7 px of a chord over ``sqrt(8 R d)``; a run half as long again is a
    facet, which a circle never shows. Sides shorter than that are not resolved. Runs reach into the rounded corners
    by ``sqrt(2 r d)`` for a corner of radius r, so the share is high by up to 0.2 on polygons with round corners.
    An outline without facets under a radius of 12.6 px, where a hexagon is not resolved, gives NaN with the flag
    ``few-pixels``.
    """
    free = np.ones(mask.shape, bool) if free is None else free
    outlines = _free_outlines(mask.astype(np.int32), free)
    vertices, here = outlines.get(1, (np.zeros((0, 2)), np.zeros(0, bool)))
    return _facets_along(vertices * np.asarray(spacing, float), here, spacing)


def _facets_along(vertices: np.ndarray, here: np.ndarray, spacing: Sequence[float]) -> Facets:
    """Facets of a closed outline, of the longest stretch of it where `here` is True."""
    path, closed = _longest_stretch(vertices, here)
    # Deviations count in pixels across the run, so that runs along the fine axis of oblong pixels may stray furthest.
    pixel = max(spacing)
    radius = _radius(path) if len(path) >= 8 else math.nan
    if not radius >= MIN_RADIUS_PX * pixel:
        return Facets(flags=("few-pixels",))
    smooth = smooth_path(path, sigma=2.0, closed=closed)
    steps = np.linalg.norm(np.diff(smooth, axis=0, append=smooth[:1] if closed else smooth[-1:]), axis=1)
    shortest = RUN_FACTOR * math.sqrt(8 * radius * FACET_DEVIATION_PX * pixel)
    runs = _straight_runs(path, np.concatenate([[0.0], np.cumsum(steps)]), shortest, spacing, closed)
    if not runs and radius < HEXAGON_RADIUS_PX * pixel:
        return Facets(flags=("few-pixels",))
    length = float(steps.sum())
    fraction = min(sum(run.length for run in runs) / length, 1.0)
    # Each end may reach sqrt(2 r d) into a corner of radius r, here up to 0.3 of the radius of the object.
    error = 2 * len(runs) * math.sqrt(2 * 0.3 * radius * FACET_DEVIATION_PX * pixel) / length
    near_limit = any(run.length < CLEAR_RUN * shortest for run in runs)
    flags = ("few-pixels",) if near_limit else ()
    return Facets(float(len(runs)), fraction, error, float(_corners(runs, length, closed)), flags)


@dataclass(frozen=True)
class _Run:
    """A straight run: where it starts and ends along the outline, and its direction (radians)."""

    start: float
    end: float
    direction: float

    @property
    def length(self) -> float:
        return self.end - self.start


def _free_outlines(instances: np.ndarray, free: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Outer outline of each object: crack points (y, x) in pixels from its corner, and which have a free neighbour."""
    loops = Loops.of(instances)
    loops = loops.select(loops.areas() > 0)  # holes do not count
    vertices = loops.position
    low, high = np.floor(vertices).astype(int) + 1, np.ceil(vertices).astype(int) + 1
    inside_low = np.pad(instances, 1)[tuple(low.T)] == loops.owner[loops.of_vertex]
    here = np.pad(free, 1)[tuple(np.where(inside_low[:, None], high, low).T)]
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for owner, start, end in zip(loops.owner.tolist(), loops.start[:-1], loops.start[1:], strict=True):
        if owner not in found or end - start > len(found[owner][1]):
            own = vertices[start:end]
            # About its own corner: the same object gives the same number wherever it lies.
            found[owner] = own - np.floor(own.min(axis=0)), here[start:end]
    return found


def _longest_stretch(path: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, bool]:
    """Longest stretch of a closed path where `here` is True, and whether that is all of it."""
    if here.all():
        return path, len(path) > 0
    # Begin at a vertex that is not free, so that no stretch runs over the seam.
    shift = -int(np.argmin(here))
    path, here = np.roll(path, shift, axis=0), np.roll(here, shift)
    label, n = ndimage.label(here)
    if n == 0:
        return np.zeros((0, 2)), False
    return path[label == 1 + np.argmax(np.bincount(label)[1:])], False


def _radius(path: np.ndarray) -> float:
    """Radius of the circle of least algebraic distance through the points of an outline; infinite for a line."""
    local = path - path.mean(axis=0)
    solution, _, rank, _ = np.linalg.lstsq(
        np.column_stack([2 * local, np.ones(len(local))]), np.sum(local**2, axis=1), rcond=1e-10
    )
    if rank < 3:
        return math.inf
    return math.sqrt(max(float(solution[2] + np.sum(solution[:2] ** 2)), 0.0))


def _straight_runs(
    path: np.ndarray, along: np.ndarray, shortest: float, spacing: Sequence[float], closed: bool
) -> list[_Run]:
    """Longest straight runs that do not overlap, in order along the outline.

    `along` is the arc length at each vertex and, for closed outlines, at the end.
    """
    n = len(path)
    total = float(along[n]) if closed else float(along[n - 1])
    if closed:
        path, along = np.concatenate([path, path]), np.concatenate([along[:n], along[:n] + total])
    found = _windows(path, along, shortest, spacing, n)
    # The longest first; what overlaps it by more than a quarter is the same side.
    runs: list[_Run] = []
    for i, j in sorted(found, key=lambda run: along[run[0]] - along[run[1]]):
        start, end = float(along[i]), float(along[j])
        for other in runs:
            start, end = _without(start, end, other, total if closed else None)
        if end - start < max(shortest, 0.75 * (along[j] - along[i])):
            continue
        chord = path[j] - path[i]
        runs.append(_Run(start, end, math.atan2(chord[0], chord[1])))
    return sorted(runs, key=lambda run: run.start % total)


def _windows(
    path: np.ndarray, along: np.ndarray, shortest: float, spacing: Sequence[float], n: int
) -> list[tuple[int, int]]:
    """Vertices (first, last) of the longest straight run from each vertex from which one is long enough."""
    last = np.searchsorted(along[: len(path)], along[: len(path)] + shortest)
    starts = np.flatnonzero(last[:n] < len(path))
    if len(starts) == 0:
        return []
    width = int((last[starts] - starts).max()) + 1
    index = np.minimum(starts[:, None] + np.arange(width), last[starts][:, None])
    kept = starts[_deviation_px(path[index], spacing) <= FACET_DEVIATION_PX]
    runs = []
    for i in kept[:: max(width // 16, 1)]:
        # Longer runs by halving: a run that leaves its chord does so at every greater length.
        good, bad = int(last[i]), min(len(path), i + n)
        while bad - good > 1:
            middle = (good + bad) // 2
            if _deviation_px(path[None, i : middle + 1], spacing)[0] <= FACET_DEVIATION_PX:
                good = middle
            else:
                bad = middle
        runs.append((int(i), good))
    return runs


def _deviation_px(windows: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Greatest distance from the chord, in pixels across it, of windows of shape (N, K, 2)."""
    chord = windows[:, -1] - windows[:, 0]
    length = np.maximum(np.linalg.norm(chord, axis=1, keepdims=True), 1e-12)
    normal = np.stack([-chord[:, 1], chord[:, 0]], axis=1) / length
    away = np.einsum("nkd,nd->nk", windows - windows[:, :1], normal)
    return np.asarray(np.abs(away).max(axis=1) / pixel_along(normal, spacing))


def _without(start: float, end: float, taken: _Run, total: float | None) -> tuple[float, float]:
    """What is left of a stretch beside a run that is already taken, the longer side of it."""
    for shift in (0.0,) if total is None else (-total, 0.0, total):
        low, high = taken.start + shift, taken.end + shift
        if low < end and high > start:
            before, after = low - start, end - high
            start, end = (start, max(low, start)) if before >= after else (min(high, end), end)
    return start, end


def _corners(runs: Sequence[_Run], length: float, closed: bool) -> int:
    """Pairs of neighbouring facets with a turn between them and no curve longer than both."""
    pairs = list(zip(runs, runs[1:], strict=False))
    if closed and len(runs) > 2:
        pairs.append((runs[-1], runs[0]))
    corners = 0
    for one, two in pairs:
        gap = two.start - one.end
        gap -= length * round(gap / length)
        turn = abs((two.direction - one.direction + math.pi) % (2 * math.pi) - math.pi)
        corners += gap < one.length + two.length and math.degrees(turn) >= MIN_CORNER_DEG
    return corners


def measure_frame(frame: Frame, *, substrate_classes: Sequence[str] = ("substrate",)) -> list[Measurement]:
    """Facets, their share of the free outline and the corners of every object of a frame, with its diameter.

    Only the outline next to valid pixels that are neither substrate nor another object counts: the base of a droplet
    is no facet. NaN with ``few-pixels`` where the outline is too small to resolve a hexagon, with ``touches-border``
    where the frame cuts the object; values close to the limit are kept with ``few-pixels``. The interval of
    ``facet_fraction`` is that of runs whose ends reach into rounded corners, or stop as far before sharp ones. Volumes
    have no rows: facets are measured on outlines.
    """
    if frame.instances is None:
        raise ValueError("The facets group needs frame.instances; call label_objects first.")
    if frame.labels.ndim == 3:
        return []
    scale, spacing = frame.scale, frame.scale.spacing
    pixels = frame.pixels
    cut = cut_objects(frame, pixels)
    known = [name for name in substrate_classes if name in frame.schema.names]
    free = frame.valid & ~frame.mask(known) & (frame.instances == 0)
    diameters = equivalent_diameter(pixels.counts * scale.pixel, 2)
    outlines = _free_outlines(frame.instances, free)
    scaled = np.asarray(spacing, float)
    rows: list[Measurement] = []
    for object_id in np.flatnonzero(pixels.counts):
        if pixels.diameters_px[object_id] < frame.min_diameter_px:
            continue
        facets = Facets(flags=("touches-border",))
        if not cut[object_id]:
            vertices, here = outlines[int(object_id)]
            facets = _facets_along(vertices * scaled, here, spacing)
        rows += _rows(frame, int(object_id), float(diameters[object_id]), facets)
    return rows


def _rows(frame: Frame, object_id: int, diameter: float, facets: Facets) -> list[Measurement]:
    row = partial(
        Measurement, class_name="+".join(frame.object_classes), frame=frame.index, time_s=frame.time_s,
        object_id=object_id,
    )  # fmt: skip
    flags = (*frame.scale.flags, *facets.flags)
    low, high = facets.fraction - facets.fraction_error, facets.fraction + facets.fraction_error
    if math.isfinite(low):
        low, high = max(low, 0.0), min(high, 1.0)
    return [
        row("facet_count", facets.count, "1", method=METHOD, flags=flags),
        row("facet_fraction", facets.fraction, "1", low=low, high=high, method=METHOD, flags=flags),
        row("corner_count", facets.corners, "1", method="turns between neighbouring facets", flags=flags),
        row("equivalent_diameter", diameter, frame.scale.unit("um"), method="of the area", flags=frame.scale.flags),
    ]
