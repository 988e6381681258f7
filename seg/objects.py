"""Objects: from a mask to object ids, and from object ids to one table row per object."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from seg.blocks import slabs
from seg.crofton import boundary_sizes
from seg.runs import Runs
from seg.splitting import split_component

if TYPE_CHECKING:  # annotations only: metrics is a layer above this one
    from seg.metrics.frame import Frame
    from seg.metrics.table import Scale

# A region this close to the ellipse (ellipsoid) of its own second moments has no neck and is not looked at further.
_ELLIPSE_LIKE = 0.985
# Fewer pixels than this per run, of the whole frame: regions are found pixel by pixel.
_PX_PER_RUN = 16


def label_objects(
    mask: np.ndarray,
    *,
    scale: Scale,
    split_touching: bool = True,
    min_diameter_px: float = 0.0,
) -> np.ndarray:
    """Give every object of a mask its own id.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
    scale : Scale
    split_touching : bool
        Cut regions at their necks (rule in `seg.splitting.split_component`); else an object is a connected region.
    min_diameter_px : float
        Detection limit: no part with a smaller inscribed disc is cut off. Small objects keep their ids; who counts
        leaves them out and says so.

    Returns
    -------
    ndarray of int32, shape of `mask`
        Ids 1..n in raster order of the regions; 0 = none.

    Notes
    -----
    Neighbours over edges and corners belong together (8 in 2-D, 26 in 3-D), whatever the pixel sizes.
    """
    return _labelled(mask, scale, split_touching, min_diameter_px, summed=split_touching)[0]


def label_and_sum(
    mask: np.ndarray, *, scale: Scale, split_touching: bool = True, min_diameter_px: float = 0.0
) -> tuple[np.ndarray, ObjectPixels | None, Runs]:
    """`label_objects`, sums over the pixels of the objects unless one of them was cut, and the connected regions."""
    return _labelled(mask, scale, split_touching, min_diameter_px, summed=True)


def _labelled(
    mask: np.ndarray, scale: Scale, split_touching: bool, min_diameter_px: float, *, summed: bool
) -> tuple[np.ndarray, ObjectPixels | None, Runs]:
    mask = np.asarray(mask, bool)
    runs = Runs.of(mask)
    if len(runs) * _PX_PER_RUN > mask.size:  # a mask of specks: the runs outweigh the pixels
        from scipy import ndimage

        instances = np.zeros(mask.shape, np.int32)
        ndimage.label(mask, np.ones((3,) * mask.ndim), output=instances)
        runs = Runs.of(instances) if summed else runs
    else:
        runs = runs.with_values(runs.components().astype(np.int32))
        instances = runs.painted()
    if not summed:
        return instances, None, runs
    pixels = ObjectPixels.summed(runs)
    if not split_touching or not len(runs):
        return instances, pixels, runs
    suspect = may_have_necks(pixels)
    suspect &= pixels.diameters_px > min_diameter_px
    min_diameter = min_diameter_px * pixel_length(scale.spacing)
    n = added = len(pixels.counts) - 1
    for index in np.flatnonzero(suspect):
        box = tuple(slice(a, b) for a, b in zip(pixels.lower[index], pixels.upper[index], strict=True))
        region = instances[box] == index
        parts = split_component(region, spacing=scale.spacing, min_diameter=min_diameter)
        n_parts = int(parts.max())
        instances[box][parts > 1] = parts[parts > 1] + (added - 1)
        added += n_parts - 1
    return (_in_raster_order(instances, added), None, runs) if added > n else (instances, pixels, runs)


def object_table(frame: Frame, *, min_diameter_px: float = 0.0) -> pd.DataFrame:
    """One row per object of ``frame.instances``, with the unit in each column name.

    Parameters
    ----------
    frame : Frame
    min_diameter_px : float
        Detection limit, as equivalent diameter.

    Returns
    -------
    DataFrame
        ``frame, time_s, object_id, class`` (the class of most of its pixels); ``z_um, y_um, x_um`` (centroid; the
        centre of the first pixel is 0); ``area_um2`` (2-D) or ``volume_um3``; ``equivalent_diameter_um``;
        ``perimeter_um`` and ``circularity`` (2-D) or ``surface_area_um2`` and ``sphericity``, by Crofton's formula;
        ``aspect_ratio``; ``orientation_deg`` (2-D); ``touches_border`` (cut by the frame or by a region that is not
        valid); ``below_detection_limit``; ``bbox_*_min_px`` and ``bbox_*_max_px`` (half-open); ``mean_intensity``
        where the frame has an image. Uncalibrated: ``px`` in place of ``um``. Shape is NaN under the detection limit.
    """
    instances, scale = frame.instances, frame.scale
    if instances is None:
        raise ValueError("object_table needs frame.instances; call label_objects first.")
    ndim, spacing = instances.ndim, np.asarray(scale.spacing)
    axes = "zyx"[-ndim:]
    length, size = scale.unit("um"), scale.unit("um2" if ndim == 2 else "um3")
    pixels = frame.pixels
    ids = np.flatnonzero(pixels.counts)
    sizes = pixels.counts[ids] * scale.pixel
    diameters = equivalent_diameter(sizes, ndim)
    below = pixels.diameters_px[ids] < min_diameter_px
    outlined = pixels.runs if len(pixels.runs) else instances
    boundary = boundary_sizes(outlined, len(pixels.counts) - 1, spacing=scale.spacing)[ids]
    centroids = pixels.centroids[ids] * spacing
    aspect, orientation = _axes_of(pixels.covariances[ids] * np.outer(spacing, spacing), below)

    table: dict[str, object] = {
        "frame": np.full(len(ids), frame.index),
        "time_s": np.full(len(ids), math.nan if frame.time_s is None else frame.time_s),
        "object_id": ids,
        "class": _majority_class(frame, pixels)[ids],
    }
    table |= {f"{axis}_{length}": centroids[:, i] for i, axis in enumerate(axes)}
    table |= {f"{'area' if ndim == 2 else 'volume'}_{size}": sizes, f"equivalent_diameter_{length}": diameters}
    shape = np.where(below, math.nan, boundary)
    if ndim == 2:
        table |= {f"perimeter_{length}": boundary, "circularity": 4 * math.pi * sizes / shape**2}
        table |= {"aspect_ratio": aspect, "orientation_deg": orientation}
    else:
        table |= {f"surface_area_{scale.unit('um2')}": boundary, "sphericity": math.pi * diameters**2 / shape}
        table |= {"aspect_ratio": aspect}
    table |= {"touches_border": cut_objects(frame, pixels)[ids], "below_detection_limit": below}
    for i, axis in enumerate(axes):
        table |= {f"bbox_{axis}_min_px": pixels.lower[ids, i], f"bbox_{axis}_max_px": pixels.upper[ids, i]}
    if frame.image is not None:
        total = np.zeros(len(pixels.counts))
        for of, values in pixels.values_of(frame.image):
            total += np.bincount(of, weights=values, minlength=len(total))
        table["mean_intensity"] = total[ids] / pixels.counts[ids]
    return pd.DataFrame(table)


def equivalent_diameter(sizes: np.ndarray, ndim: int) -> np.ndarray:
    """Diameter of the disc (2-D) or sphere (3-D) of the given area or volume."""
    return np.asarray(2 * np.sqrt(sizes / math.pi) if ndim == 2 else np.cbrt(6 * sizes / math.pi))


@dataclass(frozen=True)
class ObjectPixels:
    """The pixels of all objects and their sums; arrays of length n + 1 are indexed by object id (0 = none).

    Parameters
    ----------
    runs : Runs
        Of the frame's object ids.
    counts : ndarray of int, shape (n + 1,)
    centroids : ndarray of float, shape (n + 1, D)
        In pixels; NaN for ids that do not occur.
    covariances : ndarray of float, shape (n + 1, D, D)
        Second central moments over the area of the pixels (not their centres), in pixels.
    lower, upper : ndarray of int, shape (n + 1, D)
        Bounding box, half-open.
    """

    runs: Runs
    counts: np.ndarray
    centroids: np.ndarray
    covariances: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, instances: np.ndarray) -> ObjectPixels:
        """Sum up an array of object ids in a few passes over the runs of the objects."""
        return cls.summed(Runs.of(instances))

    @classmethod
    def summed(cls, runs: Runs) -> ObjectPixels:
        """Sum up the runs of objects; their values are the ids."""
        ndim = len(runs.shape)
        ids, length = runs.value, runs.length
        n = int(ids.max(initial=0))
        counts = np.bincount(ids, weights=length, minlength=n + 1).astype(np.int64)
        lower, upper = np.zeros((2, n + 1, ndim), np.int64)
        order = np.argsort(ids, kind="stable")
        present, first = np.unique(ids[order], return_index=True)
        centroids, covariances = np.empty((n + 1, ndim)), np.empty((n + 1, ndim, ndim))
        offsets = []
        with np.errstate(invalid="ignore"):
            for axis in range(ndim):
                position = runs.position(axis)
                along = axis == ndim - 1  # a run covers several positions of the last axis, one of the others
                lower[present, axis] = np.minimum.reduceat(position[order], first) if len(first) else 0
                end = position + (length if along else 1)
                upper[present, axis] = np.maximum.reduceat(end[order], first) if len(first) else 0
                middle = position + (length - 1) / 2 if along else position
                centroids[:, axis] = np.bincount(ids, weights=middle * length, minlength=n + 1) / counts
                offsets.append(middle - centroids[ids, axis])
            for i in range(ndim):
                for j in range(i, ndim):
                    # The spread of a run along itself, and 1/12 for that of a pixel along each axis.
                    within = (length**2 - 1) / 12 if i == j == ndim - 1 else 0.0
                    sums = np.bincount(ids, weights=(offsets[i] * offsets[j] + within) * length, minlength=n + 1)
                    covariances[:, i, j] = covariances[:, j, i] = sums / counts + (i == j) / 12
        return cls(runs, counts, centroids, covariances, lower, upper)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the frame."""
        return self.runs.shape

    @property
    def flat(self) -> np.ndarray:
        """Flat index of each pixel of an object, in raster order; shape (P,)."""
        return self.runs.flat

    @cached_property
    def ids(self) -> np.ndarray:
        """Object id of each pixel of an object; shape (P,)."""
        return np.repeat(self.runs.value, self.runs.length)

    def values_of(self, array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Object id and value of each pixel of an object, in one or several parts."""
        yield self.ids, array.ravel()[self.flat]

    @property
    def diameters_px(self) -> np.ndarray:
        """Equivalent diameters in pixels."""
        return equivalent_diameter(self.counts, len(self.shape))


def cut_objects(frame: Frame, pixels: ObjectPixels) -> np.ndarray:
    """Objects that the frame or a region without valid labels cuts; bool, indexed by object id."""
    cut = ((pixels.lower == 0) | (pixels.upper == np.asarray(pixels.shape))).any(axis=1)
    if frame.instances is not None and not frame.valid.all():
        for slab in slabs(pixels.shape):
            invalid = ~frame.valid[slab.read]
            for axis in range(invalid.ndim):
                for step in (-1, 1):
                    cut[touching(frame.instances[slab.read], invalid, axis, step)] = True
    cut[0] = False
    return np.asarray(cut)


def touching(instances: np.ndarray, region: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Ids of the objects that have a pixel of `region` next to them, `step` (-1 or 1) away along an axis."""
    near = [slice(None)] * instances.ndim
    far = [slice(None)] * instances.ndim
    near[axis], far[axis] = (slice(1, None), slice(None, -1)) if step < 0 else (slice(None, -1), slice(1, None))
    ids = np.unique(instances[tuple(near)][region[tuple(far)]])
    return ids[ids > 0]


def pixel_length(spacing: tuple[float, ...]) -> float:
    """Side of the square (cube) with the size of a pixel."""
    return float(math.prod(spacing) ** (1 / len(spacing)))


def may_have_necks(pixels: ObjectPixels) -> np.ndarray:
    """Regions that fall short of the ellipse (ellipsoid) of their own second moments; indexed by id."""
    ndim = len(pixels.shape)
    spread = np.sqrt(np.maximum(np.linalg.det(np.nan_to_num(pixels.covariances)), 0))
    ellipse = spread * (4 * math.pi if ndim == 2 else 4 / 3 * math.pi * 5**1.5)
    return np.asarray((pixels.counts < _ELLIPSE_LIKE * ellipse) & (pixels.counts > 0))


def _in_raster_order(instances: np.ndarray, n: int) -> np.ndarray:
    """Give the objects ids in the order of their first pixels."""
    flat = instances.ravel()
    where = np.flatnonzero(flat)
    first = np.full(n + 1, flat.size)
    np.minimum.at(first, flat[where], where)
    order = np.argsort(first[1:], kind="stable")
    new = np.zeros(n + 1, np.int32)
    new[order + 1] = np.arange(1, n + 1)
    return np.asarray(new[instances])


def _majority_class(frame: Frame, pixels: ObjectPixels) -> np.ndarray:
    """Name of the class of most pixels of each object; indexed by id."""
    n_classes = 1 + max(c.index for c in frame.schema.classes)
    n = len(pixels.counts)
    votes = np.zeros((n, n_classes), np.int64)
    present = frame.present(frame.object_classes)
    if len(present) == 1 and isinstance(frame.instances, np.ndarray) and frame.on_disk is None:
        index = frame.schema.index(present[0])
        parts = [slab.owned for slab in slabs(frame.labels.shape, halo=0, max_voxels=2**20)]
        of_class = frame.instances_are_of_classes  # no need to look at the pixels
        if of_class or not any(((frame.labels[p] != index) & (frame.instances[p] != 0)).any() for p in parts):
            # No need to look at each object.
            return np.where(np.arange(n) > 0, present[0], "").astype(object)
    for ids, labels in pixels.values_of(frame.labels):
        if len(labels) and labels.min() == labels.max():
            votes[:, int(labels[0])] += np.bincount(ids, minlength=n)
        else:
            found = np.bincount(ids * n_classes + labels.astype(np.int64), minlength=n * n_classes)
            votes += found.reshape(-1, n_classes)
    winners = votes.argmax(axis=1)
    names = np.array(["", *("" for _ in range(1, n_classes))], dtype=object)
    for label_class in frame.schema.classes:
        names[label_class.index] = label_class.name
    return np.asarray(names[winners])


def _axes_of(covariances: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Aspect ratio, and the direction of the long axis in degrees (2-D), NaN where `below`."""
    if not len(covariances):
        return np.zeros(0), np.zeros(0)
    values, vectors = np.linalg.eigh(covariances)
    aspect = np.sqrt(values[:, -1] / values[:, 0])
    # Image rows run downwards, angles upwards. An axis has no sign: fold into (-90, 90].
    angle = np.degrees(np.arctan2(-vectors[:, -2, -1], vectors[:, -1, -1]))
    folded = 90 - (90 - angle) % 180
    return np.where(below, math.nan, aspect), np.where(below, math.nan, folded)
