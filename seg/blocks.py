"""Volumes larger than memory: read in slabs, regions joined across them by union-find, every sum in 64 bits."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from seg.memory import memory_left_bytes

# Voxels whose ids are counted, or used as indices, at a time: numpy converts them to 64 bits.
PIECE_VOXELS = 2**19
# Voxels of a slab, fewer where memory is short. Labels, masks and ids of one take up to this many bytes per voxel.
SLAB_VOXELS = 16_000_000
SLAB_BYTES_PER_VOXEL = 64
# What measuring a volume in one piece takes at its peak (ids, distances and a few masks), per voxel.
WHOLE_BYTES_PER_VOXEL = 32
# Up to here nobody asks how much memory is left.
_SMALL_VOXELS = 1_000_000


def whole_bytes(shape: Sequence[int]) -> int:
    """Memory that measuring a volume in one piece takes."""
    return WHOLE_BYTES_PER_VOXEL * math.prod(shape)


def too_large(shape: Sequence[int]) -> bool:
    """Whether a volume has to be measured in slabs; a plane never has to be."""
    if len(shape) < 3 or math.prod(shape) <= _SMALL_VOXELS:
        return False
    left = memory_left_bytes()
    return left is not None and whole_bytes(shape) > left


def on_disk(shape: Sequence[int], dtype: Any, folder: Path) -> np.memmap:
    """An array of zeros in a file without a name, which goes when the array goes; its pages are no memory taken.

    Raises OSError where the disk has no room for it: later, while a page is written, that would end the process.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(math.prod(shape) * np.dtype(dtype).itemsize, 1))
        return np.memmap(file, dtype, "w+", shape=tuple(shape))


def filled_on_disk(read: Callable[[slice], np.ndarray], shape: Sequence[int], dtype: Any, folder: Path) -> np.memmap:
    """The same, filled slab by slab with what `read` gives for some slices."""
    array = on_disk(shape, dtype, folder)
    for slab in slabs(shape, halo=0):
        array[slab.owned] = read(slab.owned)
    return array


@dataclass(frozen=True)
class Slab:
    """Consecutive slices along the first axis.

    Parameters
    ----------
    owned : slice
        The slices that are counted here; the slabs of a volume share none.
    read : slice
        The same with their neighbours on both sides, as far as the volume goes.
    halo : int
        How many neighbours on each side.
    """

    owned: slice
    read: slice
    halo: int

    @property
    def inner(self) -> slice:
        """Where `owned` lies in what was read."""
        return slice(self.owned.start - self.read.start, self.owned.stop - self.read.start)


def slabs(shape: Sequence[int], *, halo: int = 1, max_voxels: int | None = None) -> Iterator[Slab]:
    """Cut an array of any dimension along its first axis.

    Parameters
    ----------
    shape : sequence of int
    halo : int
        Slices to read beyond each side.
    max_voxels : int or None
        Of a slab without its halo, which has at least one slice. None: `SLAB_VOXELS`, or what memory is left for.
    """
    if max_voxels is None:
        # Planes are never measured from disk: asking for each of them how much memory is left would be in vain.
        left = memory_left_bytes() if len(shape) > 2 and math.prod(shape) > _SMALL_VOXELS else None
        max_voxels = SLAB_VOXELS if left is None else min(SLAB_VOXELS, left // (2 * SLAB_BYTES_PER_VOXEL))
    thick = max(1, max_voxels // max(math.prod(shape[1:]), 1))
    for start in range(0, shape[0], thick):
        stop = min(start + thick, shape[0])
        yield Slab(slice(start, stop), slice(max(start - halo, 0), min(stop + halo, shape[0])), halo)


@dataclass(frozen=True)
class Regions:
    """Connected regions of a whole volume, numbered 1..n in the order of their first voxel; row 0 is unused.

    Parameters
    ----------
    sizes : ndarray of int64, shape (n + 1,)
        Voxels.
    low, high : ndarray of int64, shape (n + 1, ndim)
        Bounding boxes, half-open.
    first : ndarray of int64, shape (n + 1,)
        Flat index of the first voxel of each.
    shape : tuple of int
        Of the volume.
    of_provisional : ndarray of int64
        Region of each id that `RegionFinder.add` gave out.
    """

    sizes: np.ndarray
    low: np.ndarray
    high: np.ndarray
    first: np.ndarray
    shape: tuple[int, ...]
    of_provisional: np.ndarray

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.sizes) - 1

    @property
    def cut(self) -> np.ndarray:
        """Which regions reach the border of the volume; bool, shape (n + 1,)."""
        cut = np.any((self.low == 0) | (self.high == np.asarray(self.shape)), axis=1)
        cut[0] = False
        return np.asarray(cut)

    def box(self, region: int) -> tuple[slice, ...]:
        """Bounding box of one region."""
        return tuple(slice(int(a), int(b)) for a, b in zip(self.low[region], self.high[region], strict=True))

    def pick(self, region: int, mask: np.ndarray, *, corners: bool) -> np.ndarray:
        """That region alone in `mask`, the mask of all regions cut out at `box`; bool."""
        ids, _ = ndimage.label(mask, structure=neighbourhood(mask.ndim, corners=corners))
        seed = np.unravel_index(int(self.first[region]), self.shape)
        return np.asarray(ids == ids[tuple(int(s) - int(a) for s, a in zip(seed, self.low[region], strict=True))])

    def total(self, per_provisional: np.ndarray) -> np.ndarray:
        """Add up what was counted for provisional ids, per region; shape (n + 1, ...)."""
        summed = np.zeros((self.count + 1, *per_provisional.shape[1:]), per_provisional.dtype)
        np.add.at(summed, self.of_provisional[: len(per_provisional)], per_provisional)
        summed[0] = 0
        return summed


def neighbourhood(ndim: int, *, corners: bool) -> np.ndarray:
    """Structuring element of face neighbours, or of all that share a face, an edge or a corner."""
    return ndimage.generate_binary_structure(ndim, ndim if corners else 1)


@dataclass
class RegionFinder:
    """Connected regions of a mask that is seen slab by slab, in order, with a halo of at least one slice.

    Every slab is labelled on its own, with its halo; where two slabs overlap, the two numbers of a voxel belong
    together, and the classes of that relation (union-find) are the regions of the volume. Only the ids of the overlap
    are kept from slab to slab.

    Parameters
    ----------
    shape : tuple of int
        Of the volume.
    corners : bool
        Whether voxels that share an edge or a corner belong together (26 neighbours in 3-D), or only those that share
        a face (6).
    """

    shape: tuple[int, ...]
    corners: bool = True
    count: int = 0
    _pairs: list[np.ndarray] = field(default_factory=list)
    _sizes: list[np.ndarray] = field(default_factory=list)
    _low: list[np.ndarray] = field(default_factory=list)
    _high: list[np.ndarray] = field(default_factory=list)
    _first: list[np.ndarray] = field(default_factory=list)
    _last: tuple[Slab, np.ndarray, int] | None = None

    def add(self, mask: np.ndarray, slab: Slab) -> tuple[np.ndarray, int]:
        """Label the next slab.

        Parameters
        ----------
        mask : ndarray of bool
            All slices of ``slab.read``.
        slab : Slab

        Returns
        -------
        ids : ndarray of int32, shape of `mask`
            0 = none; else `before` + id is a provisional number that is never given again.
        before : int
        """
        ids = np.zeros(mask.shape, np.int32)
        n = ndimage.label(mask, structure=neighbourhood(mask.ndim, corners=self.corners), output=ids)
        before, self.count = self.count, self.count + n
        if self._last is not None:
            earlier, tail, earlier_before = self._last
            shared = slice(slab.read.start, earlier.read.stop)
            if shared.stop <= slab.owned.start:
                raise ValueError("RegionFinder needs slabs that overlap; read them with a halo of 1 or more.")
            old, new = tail[-(shared.stop - shared.start) :], ids[: shared.stop - shared.start]
            self._pairs.append(_distinct_pairs(old, new) + np.array([earlier_before, before]))
        owned = ids[slab.inner]
        flat = owned.reshape(-1)
        # Counting and indexing convert ids to 64 bits: piece by piece, so that this is never done for all at once.
        pieces = [slice(start, start + PIECE_VOXELS) for start in range(0, flat.size, PIECE_VOXELS)]
        sizes = np.zeros(n + 1, np.int64)
        for piece in pieces:
            sizes += np.bincount(flat[piece], minlength=n + 1)
        self._sizes.append(sizes[1:])
        low, high = np.tile(np.iinfo(np.int64).max, (n, mask.ndim)), np.zeros((n, mask.ndim), np.int64)
        for index, box in enumerate(ndimage.find_objects(owned, max_label=n)):
            if box is not None:
                low[index], high[index] = [s.start for s in box], [s.stop for s in box]
        start = slab.owned.start
        low[:, 0], high[:, 0] = low[:, 0] + np.where(high[:, 0] > 0, start, 0), high[:, 0] + (high[:, 0] > 0) * start
        self._low.append(low)
        self._high.append(high)
        first = np.full(n + 1, np.iinfo(np.int64).max)
        # Later assignments win: in reverse order the first voxel of each does.
        for piece in reversed(pieces):
            at = np.flatnonzero(flat[piece])[::-1]
            first[flat[piece][at]] = at + piece.start + start * math.prod(self.shape[1:])
        self._first.append(first[1:])
        # The next slab reads these slices again.
        self._last = slab, ids[-2 * slab.halo :].copy(), before
        return ids, before

    def regions(self) -> Regions:
        """What was found, once all slabs have been added."""
        n = self.count
        pairs = np.concatenate([*self._pairs, np.zeros((0, 2), np.int64)])
        graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n + 1, n + 1))
        _, member = sparse.csgraph.connected_components(graph, directed=False)
        sizes = np.concatenate([*self._sizes, np.zeros(0, np.int64)])
        # Provisional ids rise in the order of first voxels; ids of a halo alone stand for no voxel of their own, but
        # then some other slab owns the region.
        _, smallest, inverse = np.unique(member[1:], return_index=True, return_inverse=True)
        rank = np.empty(len(smallest), np.int64)
        rank[np.argsort(smallest)] = np.arange(1, len(smallest) + 1)
        of_provisional = np.concatenate([[0], rank[inverse]]) if n else np.zeros(1, np.int64)
        count = len(smallest)
        total = np.zeros(count + 1, np.int64)
        np.add.at(total, of_provisional[1:], sizes)
        low = np.full((count + 1, len(self.shape)), np.iinfo(np.int64).max)
        high = np.zeros((count + 1, len(self.shape)), np.int64)
        first = np.full(count + 1, np.iinfo(np.int64).max)
        for target, parts, ufunc in ((low, self._low, np.minimum), (high, self._high, np.maximum),
                                     (first, self._first, np.minimum)):  # fmt: skip
            if n:
                ufunc.at(target, of_provisional[1:], np.concatenate(parts))
        low[0] = first[0] = 0
        return Regions(total, low, high, first, tuple(self.shape), of_provisional)


def _distinct_pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pairs of ids that two labellings give to the same voxels; int64, shape (n, 2)."""
    inside = first > 0
    # Along a run of equal pairs one is enough: that leaves little to sort.
    new = inside.copy()
    new[..., 1:] &= (first[..., 1:] != first[..., :-1]) | (second[..., 1:] != second[..., :-1])
    pairs = np.stack([first[new], second[new]], axis=1).astype(np.int64)
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def label_on_disk(
    read: Callable[[slice], np.ndarray], shape: Sequence[int], folder: Path, *, corners: bool = True
) -> tuple[np.memmap, Regions]:
    """Connected regions of a mask that does not fit in memory; what `ndimage.label` gives, number by number.

    Parameters
    ----------
    read : callable
        Slices along the first axis -> mask there; asked once for every slab, with a halo of one slice.
    shape : sequence of int
    folder : Path
        Where the array is put.
    corners : bool
        As in `RegionFinder`.

    Returns
    -------
    ids : memmap of int32
    regions : Regions
    """
    ids, finder = on_disk(shape, np.int32, folder), RegionFinder(tuple(shape), corners=corners)
    for slab in slabs(shape, halo=1):
        found, before = finder.add(read(slab.read), slab)
        own = found[slab.inner]
        np.add(own, before, out=own, where=own > 0)
        ids[slab.owned] = own
    regions = finder.regions()
    final = regions.of_provisional.astype(np.int32)
    for slab in slabs(shape, halo=0):
        ids[slab.owned] = final[ids[slab.owned]]
    return ids, regions
