"""What a metric sees of one frame or volume."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from seg.blocks import filled_on_disk, whole_bytes
from seg.labels import UNLABELLED, LabelSchema
from seg.memory import memory_left_bytes
from seg.metrics.names import metric_unit
from seg.metrics.table import Measurement, Scale
from seg.object_blocks import BlockPixels
from seg.objects import ObjectPixels
from seg.runs import Runs, value_counts

_FEW_TOUCH = 0.01  # of all objects: odd ones; of discs at random on a tenth of the area one in eleven is cut


@dataclass(frozen=True)
class Frame:
    """One time point, ready to be measured.

    Parameters
    ----------
    labels : ndarray of int, shape ([Z,] Y, X)
        Class indices of `schema`; 0 is unlabelled.
    schema : LabelSchema
    scale : Scale
        Pixel size in the order of the axes of `labels`.
    index : int
        Frame number in its series.
    time_s : float or None
        Its time, where known.
    image : ndarray of float, shape of `labels`, or None
        Grey values, where the image is at hand (sub-pixel contours, texture).
    instances : ndarray of int, shape of `labels`, or None
        Object ids of the classes that the analysis counts, 0 = none.
    object_classes : tuple of str
        Those classes.
    min_diameter_px : float
        Detection limit: objects with a smaller equivalent diameter are listed but not counted.
    on_disk : Path or None
        A folder for arrays of the size of `labels`, where these do not fit in memory: all of them are memory maps
        then, of files in it, and only what works slab by slab can be measured. None: all in memory.
    """

    labels: np.ndarray
    schema: LabelSchema
    scale: Scale
    index: int = 0
    time_s: float | None = None
    image: np.ndarray | None = None
    instances: np.ndarray | None = None
    object_classes: tuple[str, ...] = ()
    min_diameter_px: float = 0.0
    on_disk: Path | None = None

    def with_objects(
        self, instances: np.ndarray, pixels: ObjectPixels | None, regions: Runs, *, split_touching: bool = False
    ) -> Frame:
        """The same frame with ids of all objects of its classes, the connected regions, and sums where none was cut."""
        new = self.changed(instances=instances)
        new.__dict__["instances_are_of_classes"] = True
        if split_touching:
            n = 0 if pixels is not None else int(instances.max())
            new.__dict__["objects_lie_apart"] = n - int(regions.value.max(initial=0)) <= _FEW_TOUCH * n
        if pixels is not None:
            new.__dict__["pixels"] = pixels
        new._regions[frozenset(self.present(self.object_classes))] = regions
        return new

    def changed(self, **changes: Any) -> Frame:
        """The same labels with other instances or image; what was worked out of the labels is kept."""
        new = replace(self, **changes)
        for name in ("class_sizes", "valid", "_regions", "_masks"):
            if name in self.__dict__:
                new.__dict__[name] = self.__dict__[name]
        return new

    @cached_property
    def class_sizes(self) -> np.ndarray:
        """Pixels of each class, by class index (0: unlabelled); shape (largest index of the schema + 1,) or more."""
        return value_counts(self.labels, 1 + max(c.index for c in self.schema.classes))

    def present(self, classes: str | Iterable[str]) -> list[str]:
        """Those of the named classes that occur."""
        names = [classes] if isinstance(classes, str) else list(classes)
        return [name for name, index in zip(names, map(self.schema.index, names), strict=True)
                if self.class_sizes[index]]  # fmt: skip

    def mask(self, classes: str | Iterable[str], rows: slice = slice(None)) -> np.ndarray:
        """Where any of the named classes is, in all slices along the first axis or in some; bool."""
        return self.schema.mask(self.labels[rows], self.present(classes))

    def kept_mask(self, classes: str | Iterable[str]) -> np.ndarray:
        """`mask` for reading only; that of a plane is kept, as a series asks for it with this frame and the next."""
        if self.labels.ndim > 2:
            return self.mask(classes)
        key = frozenset(self.present(classes))
        if key not in self._masks:
            mask = self.mask(key)
            mask.flags.writeable = False
            self._masks[key] = mask
        return self._masks[key]

    def regions(self, classes: str | Iterable[str]) -> Runs:
        """Runs of the mask of the named classes; their values number its connected regions (8 or 26 neighbours)."""
        key = frozenset(self.present(classes))
        if key not in self._regions:
            runs = Runs.of(self.kept_mask(key))
            self._regions[key] = runs.with_values(runs.components())
        return self._regions[key]

    @cached_property
    def _regions(self) -> dict[frozenset[str], Runs]:
        return {}

    @cached_property
    def _masks(self) -> dict[frozenset[str], np.ndarray]:
        return {}

    @cached_property
    def valid(self) -> np.ndarray:
        """Where the labels mean something: neither unlabelled nor artefact; bool, shape of `labels`."""
        if self.on_disk is not None:
            return filled_on_disk(self._valid, self.labels.shape, bool, self.on_disk)
        if self.n_valid == self.labels.size:
            return np.ones(self.labels.shape, bool)
        return self._valid(slice(None))

    @property
    def n_valid(self) -> int:
        """Pixels that are neither unlabelled nor artefact."""
        invalid = [UNLABELLED, *(self.schema.index(name) for name in ("artifact",) if name in self.schema.names)]
        return int(self.labels.size - self.class_sizes[invalid].sum())

    def _valid(self, rows: slice) -> np.ndarray:
        labels = self.labels[rows]
        valid: np.ndarray = labels != UNLABELLED
        if "artifact" in self.schema.names:
            valid &= labels != self.schema.index("artifact")
        return valid

    @cached_property
    def objects_lie_apart(self) -> bool:
        """Whether objects that touch were looked for and next to none were found."""
        return False

    @cached_property
    def instances_are_of_classes(self) -> bool:
        """Whether `instances` are known to lie in `object_classes`, as they were found there."""
        return False

    @cached_property
    def pixels(self) -> ObjectPixels:
        """Sums over the pixels of each object of `instances`, which must be there."""
        if self.instances is None:
            raise ValueError("The frame has no instances; call label_objects first.")
        return (ObjectPixels if self.on_disk is None else BlockPixels).of(self.instances)


def refused(metrics: Sequence[str], frame: Frame) -> list[Measurement]:
    """Rows for metrics that need a frame in memory which does not fit."""
    scale = frame.scale
    return [
        Measurement(
            name, math.nan, scale.unit(metric_unit(name)), frame=frame.index, time_s=frame.time_s,
            class_name="+".join(frame.object_classes), method=too_large_for(frame.labels.shape),
            flags=(*scale.flags, "regime-not-reached"),
        )
        for name in metrics
    ]  # fmt: skip


def too_large_for(shape: Sequence[int]) -> str:
    """Why a number of a volume is not given."""
    left = memory_left_bytes()
    size, needed = " x ".join(str(n) for n in shape), whole_bytes(shape) / 1e9
    known = "" if left is None else f", {left / 1e9:.2g} GB are left"
    return (
        f"not measured: {size} voxels need about {needed:.2g} GB of memory in one piece{known}; crop or bin the volume"
    )
