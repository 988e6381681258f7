"""What a metric sees of one frame or volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from seg.labels import UNLABELLED, LabelSchema
from seg.metrics.table import Scale
from seg.objects import ObjectPixels


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

    def mask(self, classes: str | Iterable[str]) -> np.ndarray:
        """Where any of the named classes is; bool, shape of `labels`."""
        return self.schema.mask(self.labels, classes)

    @cached_property
    def valid(self) -> np.ndarray:
        """Where the labels mean something: neither unlabelled nor artefact; bool, shape of `labels`."""
        valid = self.labels != UNLABELLED
        if "artifact" in self.schema.names:
            valid &= self.labels != self.schema.index("artifact")
        return valid

    @cached_property
    def pixels(self) -> ObjectPixels:
        """Sums over the pixels of each object of `instances`, which must be there."""
        if self.instances is None:
            raise ValueError("The frame has no instances; call label_objects first.")
        return ObjectPixels.of(self.instances)
