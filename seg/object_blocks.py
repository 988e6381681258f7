"""The objects of a volume that does not fit in memory: their ids in a file, their sums added up slab by slab."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seg.blocks import WHOLE_BYTES_PER_VOXEL, label_on_disk, slabs
from seg.errors import DataError
from seg.memory import memory_left_bytes
from seg.objects import ObjectPixels, may_have_necks, pixel_length
from seg.runs import Runs
from seg.splitting import split_component

if TYPE_CHECKING:  # annotations only: metrics is a layer above this one
    from seg.metrics.table import Scale


@dataclass(frozen=True)
class BlockPixels(ObjectPixels):
    """Sums over the pixels of all objects, without the pixels themselves.

    All sums are those of whole numbers in 64 bits: they do not depend on how the volume was cut.
    """

    instances: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.int32))

    @classmethod
    def of(cls, instances: np.ndarray) -> BlockPixels:
        """Read an array of object ids once, slab by slab."""
        ndim, n = instances.ndim, 0
        sums = np.zeros((0, 1 + ndim + ndim * ndim), np.int64)
        lower, upper = np.zeros((2, 0, ndim), np.int64)
        for slab in slabs(instances.shape, halo=0):
            runs = Runs.of(np.asarray(instances[slab.owned]))
            more = int(runs.value.max(initial=0)) + 1 - n
            if more > 0:
                n += more
                sums = np.pad(sums, ((0, more), (0, 0)))
                lower = np.pad(lower, ((0, more), (0, 0)), constant_values=np.iinfo(np.int64).max)
                upper = np.pad(upper, ((0, more), (0, 0)))
            _add_runs(runs, slab.owned.start, sums, lower, upper)
        lower[sums[:, 0] == 0] = 0
        counts = sums[:, 0].copy()
        first, second = sums[:, 1 : 1 + ndim], sums[:, 1 + ndim :].reshape(-1, ndim, ndim)
        # About the corner of each box, in whole numbers, before anything is rounded.
        near = first - counts[:, None] * lower
        cross = first[:, :, None] * lower[:, None, :]
        product = counts[:, None, None] * lower[:, :, None] * lower[:, None, :]
        around = second - cross - cross.transpose(0, 2, 1) + product
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = near / counts[:, None]
            covariances = around / counts[:, None, None] - mean[:, :, None] * mean[:, None, :] + np.eye(ndim) / 12
            centroids = first / counts[:, None]
        nothing = np.zeros(0, np.int64)
        return cls(
            Runs(instances.shape, nothing, nothing, nothing), counts, centroids, covariances, lower, upper, instances
        )

    @property
    def flat(self) -> np.ndarray:
        """Not kept: there are too many."""
        raise TypeError("The pixels of a volume that does not fit in memory are not listed; use values_of.")

    @property
    def ids(self) -> np.ndarray:  # type: ignore[override]
        """Not kept, as `flat`."""
        return self.flat

    def values_of(self, array: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Object id and value of each pixel of an object, slab by slab."""
        for slab in slabs(self.shape, halo=0):
            ids = np.asarray(self.instances[slab.owned])
            inside = ids > 0
            yield ids[inside], np.asarray(array[slab.owned])[inside]


def _add_runs(runs: Runs, start: int, sums: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    """Add what the runs of a slab hold to the sums: pixels, coordinates, products of coordinates."""
    if not len(runs):
        return
    ndim = lower.shape[1]
    length = runs.length.astype(np.int64)
    at = [runs.position(axis).astype(np.int64) + (start if axis == 0 else 0) for axis in range(ndim)]
    # Of a run along the last axis: the sum of its positions there, and of their squares.
    along = length * at[-1] + length * (length - 1) // 2
    squares = at[-1] * (2 * along - length * at[-1]) + (length - 1) * length * (2 * length - 1) // 6
    columns = [length, *(a * length for a in at[:-1]), along]
    for i in range(ndim):
        for j in range(ndim):
            if i == j == ndim - 1:
                columns.append(squares)
            elif ndim - 1 in (i, j):
                columns.append(at[min(i, j)] * along)
            else:
                columns.append(at[i] * at[j] * length)
    order = np.argsort(runs.value, kind="stable")
    present, first = np.unique(runs.value[order], return_index=True)
    for column, values in enumerate(columns):
        sums[present, column] += np.add.reduceat(values[order], first)
    for axis, position in enumerate(at):
        end = position + (length if axis == ndim - 1 else 1)
        lower[present, axis] = np.minimum(lower[present, axis], np.minimum.reduceat(position[order], first))
        upper[present, axis] = np.maximum(upper[present, axis], np.maximum.reduceat(end[order], first))


def label_objects_on_disk(
    read: Callable[[slice], np.ndarray],
    shape: Sequence[int],
    folder: Path,
    *,
    scale: Scale,
    split_touching: bool = True,
    min_diameter_px: float = 0.0,
) -> np.memmap:
    """What `seg.objects.label_objects` gives, in a file.

    Parameters
    ----------
    read : callable
        Slices along the first axis -> mask of the objects there; asked once for every slab.
    shape : sequence of int
    folder : Path
        Where the array is put.
    scale, split_touching, min_diameter_px
        As in `label_objects`.

    Raises
    ------
    DataError
        Where a region that has to be looked at for necks is itself larger than memory.
    """
    instances, regions = label_on_disk(read, shape, folder)
    if not split_touching or regions.count == 0:
        return instances
    pixels = BlockPixels.of(instances)
    suspect = may_have_necks(pixels) & (pixels.diameters_px > min_diameter_px)
    added = n = regions.count
    for index in np.flatnonzero(suspect):
        box = regions.box(int(index))
        _check_box(box, int(index))
        parts = split_component(
            np.asarray(instances[box] == index), spacing=scale.spacing,
            min_diameter=min_diameter_px * pixel_length(scale.spacing),
        )  # fmt: skip
        n_parts = int(parts.max())
        if n_parts > 1:
            region = instances[box]
            region[parts > 1] = parts[parts > 1] + (added - 1)
            added += n_parts - 1
    if added > n:
        _sort_on_disk(instances, added)
    return instances


def _check_box(box: tuple[slice, ...], region: int) -> None:
    sides = [s.stop - s.start for s in box]
    needed, left = WHOLE_BYTES_PER_VOXEL * math.prod(sides), memory_left_bytes()
    if left is not None and needed > left:
        size = " x ".join(str(n) for n in sides)
        raise DataError(
            f"Region {region} spans {size} voxels; looking for necks in it needs {needed / 1e9:.2g} GB and "
            f"{left / 1e9:.2g} GB are left. Set objects.split_touching: false in the analysis, or crop the volume."
        )


def _sort_on_disk(instances: np.ndarray, n: int) -> None:
    """Number the objects in the order of their first pixels."""
    first = np.full(n + 1, np.iinfo(np.int64).max)
    plane = math.prod(instances.shape[1:])
    for slab in slabs(instances.shape, halo=0):
        flat = np.asarray(instances[slab.owned]).ravel()
        at = np.flatnonzero(flat)
        ids, where = np.unique(flat[at], return_index=True)
        first[ids] = np.minimum(first[ids], at[where] + slab.owned.start * plane)
    new = np.zeros(n + 1, np.int32)
    new[np.argsort(first[1:], kind="stable") + 1] = np.arange(1, n + 1)
    for slab in slabs(instances.shape, halo=0):
        instances[slab.owned] = new[instances[slab.owned]]
