"""Frames to measure: in memory where they fit, else on disk, read once and slab by slab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from seg.blocks import filled_on_disk, too_large
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.object_blocks import label_objects_on_disk
from seg.objects import label_and_sum
from seg.preprocess import read_grey
from seg.segmentation import Segmentation
from seg.stack import Stack


def read_frame(
    segmentation: Segmentation,
    index: int,
    *,
    image: Stack | None = None,
    object_classes: Sequence[str] = (),
    min_diameter_px: float = 0.0,
    folder: Path | None = None,
) -> Frame:
    """One time point, checked, without its objects.

    Parameters
    ----------
    segmentation : Segmentation
    index : int
    image : Stack or None
        Grey values on the same grid.
    object_classes, min_diameter_px
        As in `Frame`.
    folder : Path or None
        Where a volume that does not fit in memory is put; None: every frame is read into memory.
    """
    stack, schema = segmentation.stack, segmentation.schema
    shape, where = stack.spatial_shape, f"{stack.name!r}, frame {index}"
    times = stack.frame_times_s
    large = folder is not None and too_large(shape)

    def read(rows: slice) -> np.ndarray:
        labels = planes(stack, index, rows)
        schema.check(labels, where=where)
        return labels

    def grey(rows: slice) -> np.ndarray:
        assert image is not None
        return read_grey(image, index, z=rows).astype(np.float32)

    shown = None
    if large:
        assert folder is not None
        labels: np.ndarray = filled_on_disk(read, shape, stack.dtype, folder)
        if image is not None:
            shown = filled_on_disk(grey, shape, np.float32, folder)
    else:
        labels = stack.frame(index)
        schema.check(labels, where=where)
        if image is not None:
            shown = read_grey(image, index).astype(np.float32)
    return Frame(
        labels, schema, Scale.of(stack), index, None if times is None else times[index], shown,
        object_classes=tuple(object_classes), min_diameter_px=min_diameter_px, on_disk=folder if large else None,
    )  # fmt: skip


def with_instances(frame: Frame, *, split_touching: bool) -> Frame:
    """The same frame with the ids of its objects."""
    rule = {"scale": frame.scale, "split_touching": split_touching, "min_diameter_px": frame.min_diameter_px}
    names = frame.object_classes
    if frame.on_disk is not None:
        shape = frame.labels.shape
        instances = label_objects_on_disk(lambda rows: frame.mask(names, rows), shape, frame.on_disk, **rule)
        return replace(frame, instances=instances)
    return frame.with_objects(*label_and_sum(frame.kept_mask(names), **rule), split_touching=split_touching)


def planes(stack: Stack, index: int, rows: slice) -> np.ndarray:
    """Some slices, along the first spatial axis, of one frame of a stack without channels."""
    return np.asarray(stack.data[(index, rows)] if "t" in stack.axes else stack.data[rows])


def share_of_class(frame: Frame, name: str) -> float:
    """Share of the frame that a class covers; 0 where the schema does not have it."""
    if name not in frame.schema.names:
        return 0.0
    return float(frame.class_sizes[frame.schema.index(name)] / frame.labels.size)
