"""Contact between a solid electrolyte and metal: how much of the interface voids cover, counted slab by slab."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from seg.blocks import RegionFinder, Regions, slabs

# Layers above the surface that the area of a void is extrapolated from, and the halo that they need.
LAYERS = 3
HALO = LAYERS + 1
# Beyond so many faces their positions are no longer kept (a separator that is mostly surface).
MAX_FACES = 20_000_000
# Pixels whose neighbours are looked at in one go.
RIM_PIXELS = 2**16


@dataclass(frozen=True)
class ContactLoss:
    """How much of the separator surface is covered by voids.

    Parameters
    ----------
    lost, total : float
        Projected area (3-D) or length (2-D) of the interface under voids, and of the whole interface.
    first_layer : float
        The same loss in the first layer of voxels, without extrapolation.
    edge : float
        Length of the rim of the lost patches (3-D), or their number of ends (2-D).
    axis : int
        The axis along which the interface was projected.
    touching : ndarray of bool, shape (n + 1,)
        Which voids touch the separator.
    """

    lost: float
    total: float
    first_layer: float
    edge: float
    axis: int
    touching: np.ndarray

    @property
    def fraction(self) -> float:
        """Share of the interface that is lost; NaN without an interface."""
        return self.lost / self.total if self.total > 0 else math.nan


@dataclass
class ContactCounter:
    """Faces between a separator and what lies against it, and the voids in the first layers above them.

    Parameters
    ----------
    ndim : int
    """

    ndim: int
    columns: np.ndarray = field(init=False)
    faces: list[np.ndarray] = field(default_factory=list)
    # Pairs of neighbouring faces of which one is under a void: by the axis of the faces, and that of the pair.
    rim: np.ndarray = field(init=False)
    _n_faces: int = 0
    _layers: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = np.zeros(self.ndim, np.int64)
        self.rim = np.zeros((self.ndim, self.ndim), np.int64)

    def add(self, separator: np.ndarray, target: np.ndarray, void_ids: np.ndarray, inner: slice, start: int) -> None:
        """Count the faces of the separator voxels of one slab.

        Parameters
        ----------
        separator, target : ndarray of bool
            Slices with their halo; `target` is metal or void.
        void_ids : ndarray of int32
            Numbers of the voids on the same slices.
        inner : slice
            Those that are counted.
        start : int
            Where the first slice lies in the volume.
        """
        layers = np.zeros((int(void_ids.max(initial=0)) + 1, self.ndim, LAYERS), np.int64)
        for axis in range(self.ndim):
            last = separator.shape[axis] - 1
            for step in (1, -1):
                sep, free = _neighbours(separator, axis, step), _neighbours(target, axis, -step)
                if axis == 0:
                    # The slice of a face is that of its separator voxel.
                    first = inner.start - (1 if step < 0 else 0)
                    own = slice(max(first, 0), max(inner.stop - (1 if step < 0 else 0), 0))
                    first = own.start
                else:
                    own, first = inner, inner.start
                faces = sep & free if axis else sep[own] & free[own]
                hit = faces[own] if axis else faces
                at = list(np.unravel_index(np.flatnonzero(hit), hit.shape))
                at[0] = at[0] + first
                at[axis] = at[axis] + (1 if step < 0 else 0)
                self.columns[axis] += len(at[0])
                for layer in range(LAYERS):
                    height = at[axis] + step * (1 + layer)
                    inside = (height >= 0) & (height <= last)
                    place = tuple((height if a == axis else at[a])[inside] for a in range(self.ndim))
                    layers[:, axis, layer] += np.bincount(void_ids[place], minlength=len(layers))
                under_void = _neighbours(void_ids, axis, -step)
                if axis:
                    self._count_rim(faces, under_void, own, axis)
                else:
                    self._count_rim(faces, under_void[own], slice(0, len(faces)), axis)
                self._n_faces += len(at[0])
                if self._n_faces <= MAX_FACES:
                    doubled = np.stack(at, axis=1) * 2
                    doubled[:, axis] += step
                    doubled[:, 0] += 2 * start
                    self.faces.append(doubled.astype(np.int32))
        self._layers.append(layers[1:])

    def _count_rim(self, faces: np.ndarray, void_ids: np.ndarray, own: slice, axis: int) -> None:
        """Count the pairs of neighbours among the faces of some slices, and of the last of them with the next."""
        rows = np.flatnonzero(faces[own].any(axis=tuple(range(1, self.ndim)))) + own.start
        if not len(rows):
            return
        # A few slices at a time: what is held beside a slab stays small.
        thick = max(RIM_PIXELS // faces[0].size, 1)
        for start in range(int(rows[0]), int(rows[-1]) + 1, thick):
            stop = min(start + thick, int(rows[-1]) + 1)
            some = slice(start, min(stop + 1, len(faces)))
            kind = faces[some].view(np.uint8) << (void_ids[some] > 0)  # 0: no face, 1: a face, 2: one under a void
            for along in range(self.ndim):
                if along != axis:
                    here = kind if along == 0 else kind[: stop - start]
                    pairs = _neighbours(here, along, 1) * _neighbours(here, along, -1)
                    self.rim[axis, along] += np.count_nonzero(pairs == 2)

    def skip(self, n_voids: int) -> None:
        """Pass over a slab without separator, in which `n_voids` were numbered."""
        self._layers.append(np.zeros((n_voids, self.ndim, LAYERS), np.int64))

    def positions(self) -> np.ndarray | None:
        """Centres of all faces in pixels, shape (n, ndim); None where they are too many to keep."""
        if self._n_faces > MAX_FACES:
            return None
        faces = np.concatenate([*self.faces, np.empty((0, self.ndim), np.int32)])
        # One order, however the volume was cut: what is made from them does not depend on that even in its last digit.
        return faces[np.lexsort(faces.T)] / 2

    def result(self, regions: Regions, spacing: Sequence[float]) -> ContactLoss:
        """The loss, once all slabs have been added.

        Notes
        -----
        The interface is where a separator voxel is followed, along the axis the interface faces most, by metal or
        void; both sides of a separator count. Walls of a void lean, so its first layer (centred half a voxel above the
        surface) is 3-7 % too small: the area of each touching void in layers 1 to 3 is extrapolated as a parabola to
        the surface, ``(15 A1 - 10 A2 + 3 A3) / 8``. A void thinner than three layers, or that loses more than half of
        its area between the first two (a ragged gap rather than a wall), keeps A1.
        """
        across = [math.prod(s for i, s in enumerate(spacing) if i != a) for a in range(self.ndim)]
        axis = int(np.argmax(self.columns * across))
        face, columns = across[axis], int(self.columns[axis])
        counted = np.concatenate([np.zeros((1, self.ndim, LAYERS), np.int64), *self._layers])
        layers = regions.total(counted)
        first, second, third = layers[:, axis].astype(float).T
        parabola = (15 * first - 10 * second + 3 * third) / 8
        wall = (third > 0) & (second >= 0.5 * first) & (first > 0)
        surface = np.where(wall, np.maximum(parabola, 0), first)
        # Steps of a smooth curve are 4 / pi of its length; in a section every step is an end.
        steps = [self.rim[axis, a] * math.prod(spacing[b] for b in range(self.ndim) if b not in (a, axis))
                 for a in range(self.ndim) if a != axis]  # fmt: skip
        rim = sum(steps) * (math.pi / 4 if self.ndim == 3 else 1.0)
        lost, touching = min(float(surface.sum()), float(columns)), layers[:, :, 0].any(axis=1)
        if self.ndim == 2:  # faces of a jagged interface have no neighbours, so that no step between them is seen
            rim = max(rim, 2 * np.count_nonzero(touching))
        return ContactLoss(lost * face, columns * face, float(first.sum()) * face, float(rim), axis, touching)


def contact_loss(
    separator: np.ndarray,
    metal: np.ndarray,
    void: np.ndarray,
    *,
    spacing: Sequence[float],
    max_voxels: int | None = None,
) -> ContactLoss:
    """Void-covered part of the interface between a separator and metal, as projected area.

    Parameters
    ----------
    separator, metal, void : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float
    max_voxels : int or None
        Of a slab (`seg.blocks.slabs`); the result does not depend on it.
    """
    finder, counter = RegionFinder(void.shape), ContactCounter(void.ndim)
    for slab in slabs(void.shape, halo=HALO, max_voxels=max_voxels):
        hole = np.asarray(void[slab.read])
        ids, _ = finder.add(hole, slab)
        counter.add(
            np.asarray(separator[slab.read]), np.asarray(metal[slab.read]) | hole, ids, slab.inner, slab.read.start
        )
    return counter.result(finder.regions(), spacing)


def _neighbours(mask: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Drop the last (step 1) or first (step -1) layer along an axis: two such views are pairs of neighbours."""
    cut = [slice(None)] * mask.ndim
    cut[axis] = slice(None, -1) if step > 0 else slice(1, None)
    return mask[tuple(cut)]
