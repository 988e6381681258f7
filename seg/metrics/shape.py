"""The shape of every object in numbers that do not depend on its size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from seg.blocks import too_large
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, crack_points
from seg.metrics.size import whole_objects
from seg.metrics.table import Measurement
from seg.metrics.tracing import Loops
from seg.objects import object_table
from seg.uncertainty import weighted_median

# Under this equivalent diameter the grid shapes the object as much as its outline does.
FEW_PIXELS_DIAMETER = 12.0
_METHODS = {
    "circularity": "4 pi area / perimeter^2, Crofton perimeter over four directions",
    "sphericity": "surface of the ball of equal volume over Crofton's over thirteen directions; interval: method error",
    "aspect_ratio": "axes of equal second moments",
    "orientation": "long axis of equal second moments, counter-clockwise from the x axis",
    "solidity": "over the convex hull, both of the smoothed outline",
    "feret_diameter": "largest distance of two points of the outline; interval: ends +-0.5 px",
}
# Crofton's area is up to 9 % too small for boxes that follow the grid, and within 2 % for smooth bodies.
_METHOD_ERRORS = {"sphericity": (-0.10, 0.02)}


def feret_diameter(mask: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Largest distance between two points of the outline (surface) of an object; NaN for an empty mask.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float

    Notes
    -----
    In 2-D the crack points are smoothed along the outline by one vertex. The maximum picks the outermost steps of the
    grid and so reads 0.7 px too much on a disc without that; with it 0.4 to 0.6 px, and as much too little on a square.
    In 3-D the surface is that of the mask blurred by one voxel.
    """
    if not mask.any():
        return math.nan
    if mask.ndim == 2:
        return float(_of_outlines(mask.astype(np.int32), np.array([0, np.count_nonzero(mask)]), spacing)[1][1])
    return _largest_distance(_surface(mask, spacing)[0])


def _largest_distance(points: np.ndarray) -> float:
    try:
        points = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line or plane
        points = np.unique(points, axis=0)
    # The two farthest points among some hundred vertices of the hull, in blocks that fit in memory.
    blocks = np.array_split(points, 1 + len(points) // 256)
    return math.sqrt(max(float(np.sum((block[:, None] - points) ** 2, axis=-1).max()) for block in blocks))


def solidity(mask: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Area (volume) over that of the convex hull; holes count as missing. NaN under three pixels.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
        One object.
    spacing : sequence of float

    Notes
    -----
    Both are taken from the same smooth outline (surface): the hull of a stepped one lies outside of every step, which
    reads 0.96 on a disc of 10 px radius.
    """
    n_pixels = np.count_nonzero(mask)
    if n_pixels < 3:
        return math.nan
    if mask.ndim == 3:
        return _solidity_of_volume(mask, spacing)
    return float(_of_outlines(mask.astype(np.int32), np.array([0, n_pixels]), spacing)[0][1])


def _of_outlines(
    instances: np.ndarray, counts: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Solidity and Feret diameter of every object of a plane; indexed by id, as `counts` (pixels) is."""
    n = len(counts)
    loops, spacing = Loops.of(instances), (float(spacing[0]), float(spacing[1]))
    outer = loops.areas() > 0
    smooth = loops.smoothed(2.0, spacing=spacing)
    finer = loops.select(outer).smoothed(1.0, spacing=spacing)
    owner = finer.owner
    inside = np.bincount(loops.owner, weights=smooth.areas(), minlength=n)
    hull, feret = np.full((2, n), math.nan)
    hull[owner] = smooth.select(outer).hulls().areas()
    feret[owner] = finer.hulls().diameters()
    for index in np.flatnonzero(np.bincount(owner, minlength=n) > 1):  # in several parts: one hull around them all
        hull[index] = ConvexHull(smooth.select(smooth.owner == index).position).volume
        feret[index] = _largest_distance(finer.select(owner == index).position)
    hull[(counts < 3) | (hull <= 0)] = math.nan
    return np.minimum(np.abs(inside) / hull, 1.0), feret


def _surface(mask: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of the surface of a volume blurred by one voxel; bare crack points where that is gone."""
    from skimage.measure import marching_cubes

    margin = np.pad(mask, 4)
    smooth = ndimage.gaussian_filter(margin.astype(np.float32), 1.0)
    if smooth.max() <= 0.5:
        return crack_points(margin, ~margin, spacing).position, np.zeros((0, 3), int)
    vertices, faces, _, _ = marching_cubes(smooth, 0.5, spacing=tuple(spacing))
    return vertices.astype(float), faces


def _solidity_of_volume(mask: np.ndarray, spacing: Sequence[float]) -> float:
    vertices, faces = _surface(mask, spacing)
    if len(faces) == 0:
        return math.nan
    corners = vertices[faces]
    inside = float(np.sum(np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])))) / 6
    return min(abs(inside) / float(ConvexHull(vertices).volume), 1.0)


def measure_frame(frame: Frame) -> list[Measurement]:
    """Circularity (2-D) or sphericity (3-D), solidity, aspect ratio, orientation (2-D) and Feret diameter per object.

    All but the orientation have a row of the frame too, without `object_id`: the median over the objects that nothing
    cuts, with the weights of `seg.metrics.size.sampling_weights` and the interval of order statistics; NaN without
    such objects.

    Rows of objects are NaN under the detection limit. Objects that the frame cuts keep the shape of the part that is
    seen, flagged ``touches-border``; under 12 px of equivalent diameter the flag is ``few-pixels``. The interval of the
    Feret diameter is that of its two ends on the grid, that of the sphericity the error of Crofton's area (9 % too
    small for boxes along the grid); circularity and sphericity are good to 2 % on smooth outlines.
    """
    if frame.instances is None:
        raise ValueError("The shape group needs frame.instances; call label_objects first.")
    scale, ndim = frame.scale, frame.labels.ndim
    table = object_table(frame, min_diameter_px=frame.min_diameter_px)
    pixel = scale.pixel ** (1 / ndim)
    edge = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    diameters_px = table[f"equivalent_diameter_{scale.unit('um')}"].to_numpy() / pixel
    names = {"circularity": "circularity", "aspect_ratio": "aspect_ratio", "orientation": "orientation_deg"}
    if ndim == 3:
        names = {"sphericity": "sphericity", "aspect_ratio": "aspect_ratio"}
    values = {name: table[column].to_numpy() for name, column in names.items()}
    below_limit = table["below_detection_limit"].to_numpy(bool)
    values["solidity"], values["feret_diameter"] = (
        np.where(below_limit, math.nan, of) for of in _of_hulls(frame, table["object_id"].to_numpy(int))
    )
    columns = table["touches_border"].to_numpy(bool), diameters_px < FEW_PIXELS_DIAMETER, below_limit
    rows = _median_rows(frame, table["object_id"].to_numpy(int), values, diameters_px, edge)
    for k, (object_id, class_name) in enumerate(zip(table["object_id"], table["class"], strict=True)):
        reasons = (
            flag
            for flag, holds in zip(("touches-border", "few-pixels", "below-detection-limit"), columns, strict=True)
            if holds[k]
        )
        row = partial(
            Measurement, class_name=str(class_name), frame=frame.index, time_s=frame.time_s, object_id=int(object_id),
            flags=(*scale.flags, *reasons),
        )  # fmt: skip
        for name, of in values.items():
            value = float(of[k])
            if name == "feret_diameter":
                rows.append(
                    row(name, value, scale.unit("um"), low=value - edge, high=value + edge, method=_METHODS[name])
                )
            else:
                low, high = (value * (1 + e) for e in _METHOD_ERRORS.get(name, (math.nan, math.nan)))
                rows.append(
                    row(name, value, "deg" if name == "orientation" else "1", low=low, high=high, method=_METHODS[name])
                )
    return rows


def _median_rows(
    frame: Frame, ids: np.ndarray, values: Mapping[str, np.ndarray], diameters_px: np.ndarray, edge: float
) -> list[Measurement]:
    """Rows of the frame: medians over whole objects."""
    scale = frame.scale
    whole, weights, cut = whole_objects(frame)
    at = np.searchsorted(ids, whole)
    few = len(whole) and float(np.median(diameters_px[at])) < FEW_PIXELS_DIAMETER
    reasons = ("touches-border",) * bool(cut and not len(whole)) + ("few-pixels",) * bool(few)
    rows = []
    for name, of in values.items():
        if name == "orientation":  # directions have no median
            continue
        known = np.isfinite(of[at])
        value, low, high = weighted_median(of[at][known], weights[known])
        less, more = (value * e for e in _METHOD_ERRORS.get(name, (0.0, 0.0)))
        if name == "feret_diameter":
            less, more = -edge, edge
        rows.append(
            Measurement(
                name, value, scale.unit("um") if name == "feret_diameter" else "1", low + less, high + more,
                "+".join(frame.object_classes), frame.index, frame.time_s, n=int(known.sum()),
                method="median over whole objects, Miles-Lantuejoul weights; interval: order statistics",
                flags=(*scale.flags, *reasons),
            )
        )  # fmt: skip
    return rows


def _of_hulls(frame: Frame, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solidity and Feret diameter of the given objects."""
    instances, spacing = frame.instances, frame.scale.spacing
    assert instances is not None
    if instances.ndim == 2:
        solid, feret = _of_outlines(instances, frame.pixels.counts, spacing)
        return solid[ids], feret[ids]
    found = np.empty((2, len(ids)))
    for k, index in enumerate(ids):
        lower, upper = frame.pixels.lower[index], frame.pixels.upper[index]
        if too_large(upper - lower):  # a network through most of a volume that does not fit in memory
            found[:, k] = math.nan
            continue
        mask = instances[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))] == index
        found[:, k] = solidity(mask, spacing=spacing), feret_diameter(mask, spacing=spacing)
    return found[0], found[1]
