"""The shape of every object in numbers that do not depend on its size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, crack_points, outlines
from seg.metrics.table import Measurement
from seg.objects import object_table

# Under this equivalent diameter the grid shapes the object as much as its outline does.
FEW_PIXELS_DIAMETER = 12.0
_METHODS = {
    "circularity": "4 pi area / perimeter^2, Crofton perimeter over four directions",
    "sphericity": "surface of the ball of equal volume over Crofton's over thirteen directions",
    "aspect_ratio": "axes of equal second moments",
    "orientation": "long axis of equal second moments, counter-clockwise from the x axis",
}


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
    margin = np.pad(mask, 2)
    if mask.ndim == 2:
        points = np.concatenate([o.position for o in outlines(margin, spacing, sigma=1.0)])
    else:
        points = _surface(mask, spacing)[0]
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
    if np.count_nonzero(mask) < 3:
        return math.nan
    if mask.ndim == 3:
        return _solidity_of_volume(mask, spacing)
    found = outlines(np.pad(mask, 4), spacing, sigma=2.0)
    inside = sum(_signed_area(o.position) for o in found)
    points = np.concatenate([o.position for o in found])
    try:
        hull = float(ConvexHull(points).volume)
    except QhullError:
        return math.nan
    return min(abs(inside) / hull, 1.0)


def _signed_area(path: np.ndarray) -> float:
    """Area inside a closed polygon, by the shoelace formula; holes run the other way round."""
    y, x = path[:, 0], path[:, 1]
    return 0.5 * float(np.sum(y * np.roll(x, -1) - np.roll(y, -1) * x))


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

    NaN under the detection limit. Objects that the frame cuts keep the shape of the part that is seen, flagged
    ``touches-border``; under 12 px of equivalent diameter the flag is ``few-pixels``. The interval of the Feret
    diameter is that of its two ends on the grid; circularity and sphericity are good to 2 % on smooth outlines.
    """
    if frame.instances is None:
        raise ValueError("The shape group needs frame.instances; call label_objects first.")
    scale, ndim = frame.scale, frame.labels.ndim
    table = object_table(frame, min_diameter_px=frame.min_diameter_px)
    boxes = ndimage.find_objects(frame.instances)
    pixel = scale.pixel ** (1 / ndim)
    edge = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    diameters_px = table[f"equivalent_diameter_{scale.unit('um')}"].to_numpy() / pixel
    names = {"circularity": "circularity", "aspect_ratio": "aspect_ratio", "orientation": "orientation_deg"}
    if ndim == 3:
        names = {"sphericity": "sphericity", "aspect_ratio": "aspect_ratio"}
    values = {name: table[column].to_numpy() for name, column in names.items()}
    rows: list[Measurement] = []
    for k, object_id in enumerate(table["object_id"].to_numpy()):
        below = bool(table["below_detection_limit"].iloc[k])
        flags = list(scale.flags)
        if table["touches_border"].iloc[k]:
            flags.append("touches-border")
        if diameters_px[k] < FEW_PIXELS_DIAMETER:
            flags.append("few-pixels")
        if below:
            flags.append("below-detection-limit")
        row = partial(
            Measurement, class_name=str(table["class"].iloc[k]), frame=frame.index, time_s=frame.time_s,
            object_id=int(object_id), flags=tuple(flags),
        )  # fmt: skip
        rows += [
            row(name, float(of[k]), "deg" if name == "orientation" else "1", method=_METHODS[name])
            for name, of in values.items()
        ]
        box = boxes[int(object_id) - 1]
        mask = frame.instances[box] == object_id
        solid = math.nan if below else solidity(mask, spacing=scale.spacing)
        feret = math.nan if below else feret_diameter(mask, spacing=scale.spacing)
        rows.append(row("solidity", solid, "1", method="over the convex hull, both of the smoothed outline"))
        rows.append(
            row(
                "feret_diameter", feret, scale.unit("um"), low=feret - edge, high=feret + edge,
                method="largest distance of two points of the outline; interval: ends +-0.5 px",
            )
        )  # fmt: skip
    return rows
