"""How a layer lies along the columns of pixels across it: where it begins and ends, how much of it is solid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seg.blocks import slabs
from seg.errors import UsageError
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.uncertainty import lost_to_blur_px

# Pores whose mean chord is shorter than twice a blur of 1.5 px are lost in images.
RESOLVED_PX = 3.0


@dataclass(frozen=True)
class Columns:
    """A layer, column by column; arrays have the shape of the frame without `axis`.

    Parameters
    ----------
    first, last : ndarray of int64
        Index along the axis of its first and last pixel; -1 where it has none.
    count : ndarray of int64
        Its pixels.
    valid : ndarray of bool
        Columns with any pixel that means something.
    axis : int
        Along which the columns run.
    spacing : tuple of float
        Pixel size along each axis of the frame.
    length : int
        Pixels in a column.
    outward : int
        1 where the layer lies beyond its base along the axis, -1 where before it, 0 where there is no base.
    faces : tuple of int
        Pairs of layer and other pixels along each axis.
    """

    first: np.ndarray
    last: np.ndarray
    count: np.ndarray
    valid: np.ndarray
    axis: int
    spacing: tuple[float, ...]
    length: int
    outward: int
    faces: tuple[int, ...]

    @property
    def filled(self) -> np.ndarray:
        """Columns that hold some of the layer; bool."""
        return self.count > 0

    @property
    def n_valid(self) -> int:
        """Columns with any pixel that means something."""
        return int(np.count_nonzero(self.valid))

    @property
    def pixels(self) -> int:
        """Pixels of the layer."""
        return int(self.count.sum(dtype=np.int64))

    @property
    def step(self) -> float:
        """Pixel size along the columns."""
        return self.spacing[self.axis]

    @property
    def extents(self) -> np.ndarray:
        """Length from the first to the last pixel of the layer, both included, of the columns that hold any."""
        return (self.last - self.first + 1)[self.filled] * self.step

    @property
    def edge_pixels(self) -> float:
        """Pixels that may be wrong (95 %) because the whole outline lies up to half a pixel off."""
        return 1.96 * DIGITISATION_PX * sum(self.faces) * (2 / 3 if len(self.spacing) == 3 else math.pi / 4)

    @property
    def inner_surface_pixels(self) -> float:
        """Outline (surface) of what is empty between the first and the last pixel of the columns, in pixels."""
        outer = np.count_nonzero(self.first > 0) + np.count_nonzero(self.filled & (self.last < self.length - 1))
        inner = (self.faces[self.axis] - int(outer)) * len(self.spacing)
        return inner * (2 / 3 if len(self.spacing) == 3 else math.pi / 4)

    @property
    def porosity(self) -> tuple[float, float, float]:
        """What is empty between first and last pixel, over all of it, with its bounds (95 %); NaN without a layer.

        Pores may lie off by half a pixel all round, and have lost to blur what balls (discs) of their volume and
        surface would have (`seg.uncertainty.lost_to_blur_px`).
        """
        whole = int((self.last - self.first + 1)[self.filled].sum(dtype=np.int64))
        if not whole:
            return math.nan, math.nan, math.nan
        empty, surface = whole - self.pixels, self.inner_surface_pixels
        error, lost = 1.96 * DIGITISATION_PX * surface / whole, 0.0
        if empty > 0:
            ndim = len(self.spacing)
            size = math.pi / 6 * (6 * empty / surface) ** 3 if ndim == 3 else math.pi / 4 * (4 * empty / surface) ** 2
            lost = empty / size * float(lost_to_blur_px(np.array(size), ndim)) / whole
        value = empty / whole
        return value, max(value - error, 0.0), min(value + error + lost, 1.0)

    @property
    def pores_resolved(self) -> bool:
        """Whether there are pores, and their mean chord is `RESOLVED_PX` or longer: narrower ones a mask may lack."""
        whole = int((self.last - self.first + 1)[self.filled].sum(dtype=np.int64))
        times = 4 if len(self.spacing) == 3 else math.pi
        return whole > self.pixels and times * (whole - self.pixels) >= RESOLVED_PX * self.inner_surface_pixels

    @property
    def edge_length(self) -> float:
        """Error (95 %) of a length along the columns whose two ends lie up to half a pixel off."""
        return 1.96 * math.sqrt(2) * DIGITISATION_PX * self.step


def unresolved(columns: Columns) -> tuple[str, ...]:
    """The flag of a porosity whose pores a mask may lack; none where there is no layer."""
    return () if columns.pores_resolved or not columns.pixels else ("below-detection-limit",)


def axis_index(frame: Frame, name: str | None, group: str) -> int | None:
    """Index of the axis called `name`; None: that of z in a volume, and None in 2-D."""
    axes = "zyx"[-len(frame.labels.shape) :]
    if name is None:
        return 0 if axes == "zyx" else None
    if name not in axes:
        raise UsageError(
            f"{group}: thickness_axis {name!r} is not an axis of this frame ({', '.join(axes)}). Copy the analysis and "
            f"write the axis across the layers there, such as thickness_axis: {axes[0]}."
        )
    return axes.index(name)


def scan_columns(
    frame: Frame,
    classes: Sequence[str],
    axis: int,
    *,
    base_classes: Sequence[str] = ("substrate",),
    max_voxels: int | None = None,
) -> Columns:
    """Read a frame once, slab by slab, and say how a layer lies along its columns.

    Parameters
    ----------
    frame : Frame
        ``labels`` may be any array that gives slices along its first axis: in memory, memory map, zarr.
    classes : sequence of str
        The layer.
    axis : int
    base_classes : sequence of str
        What it lies on.
    max_voxels : int or None
        Of a slab; the result does not depend on it.
    """
    shape, schema = frame.labels.shape, frame.schema
    base_shape = tuple(n for a, n in enumerate(shape) if a != axis)
    first, last, count = (np.full(base_shape, v, np.int64) for v in (-1, -1, 0))
    valid = np.zeros(base_shape, bool)
    faces = np.zeros(len(shape), np.int64)
    profiles = np.zeros((2, shape[axis]), np.int64)
    index = np.arange(shape[axis])
    known, base_known = ([n for n in names if n in schema.names] for names in (classes, base_classes))
    artifact = schema.index("artifact") if "artifact" in schema.names else 0
    for slab in slabs(shape, halo=1, max_voxels=max_voxels):
        labels = np.asarray(frame.labels[slab.read])
        mask = schema.mask(labels, known)
        with_before = mask[max(slab.inner.start - 1, 0) : slab.inner.stop]
        faces[0] += np.count_nonzero(np.diff(with_before, axis=0))
        mask, labels = mask[slab.inner], labels[slab.inner]
        for a in range(1, len(shape)):
            faces[a] += np.count_nonzero(np.diff(mask, axis=a))
        others = tuple(a for a in range(len(shape)) if a != axis)
        # Along the first axis a slab is a piece of every column, along the others it holds whole columns.
        piece = slab.owned if axis == 0 else slice(None)
        rows = (Ellipsis,) if axis == 0 else (slab.owned,)
        for profile, part in zip(profiles, (mask, schema.mask(labels, base_known)), strict=True):
            profile[piece] += part.sum(axis=others, dtype=np.int64)
        some = mask.any(axis=axis)
        start = slab.owned.start if axis == 0 else 0
        low = start + mask.argmax(axis=axis)
        high = start + mask.shape[axis] - 1 - np.flip(mask, axis).argmax(axis=axis)
        first[rows] = np.where(some & (first[rows] < 0), low, first[rows])
        last[rows] = np.where(some, high, last[rows])
        count[rows] += mask.sum(axis=axis, dtype=np.int64)
        valid[rows] |= ((labels != 0) & (labels != artifact)).any(axis=axis)
    outward = 0
    if profiles.sum(axis=1).all():
        layer, base = profiles @ index / profiles.sum(axis=1)
        outward = int(np.sign(layer - base))
    return Columns(
        first, last, count, valid, axis, tuple(frame.scale.spacing), shape[axis], outward, tuple(faces.tolist())
    )
