"""Which object of one frame is which of the next: overlap after removing the drift, with splits and merges.

Notes
-----
The overlaps of a pair of frames are counted in one pass over the runs of their objects, and only groups of objects
that overlap each other are solved as assignment problems. laptrack's ``OverLapTrack`` solves the same problem with a
Python call per pair of objects, which for 300 objects in each of 1000 frames means 90 million calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from seg.runs import Runs

_DENSE_PAIRS = 4_000_000
_COARSE_PX = {2: 256, 3: 64}


@dataclass(frozen=True)
class Objects:
    """The objects of one frame that are tracked.

    Parameters
    ----------
    runs : Runs
        Of their pixels; the value is which object, 0..n-1.
    lookup : ndarray of int
        Object id of the frame to 0..n-1; -1 for objects that are not tracked.
    instances : ndarray of int, shape ([Z,] Y, X)
    sizes_px : ndarray of float, shape (n,)
    centres_px : ndarray of float, shape (n, D)
    cut : ndarray of bool, shape (n,)
        The frame, or a region without valid labels, cuts them.
    """

    runs: Runs
    lookup: np.ndarray
    instances: np.ndarray
    sizes_px: np.ndarray
    centres_px: np.ndarray
    cut: np.ndarray

    @classmethod
    def of(
        cls, instances: np.ndarray, ids: np.ndarray, centres_px: np.ndarray, cut: np.ndarray, runs: Runs | None = None
    ) -> Objects:
        """Find the pixels of the objects `ids`; the rest of the frame is left out. `runs` are those of `instances`."""
        runs = Runs.of(instances) if runs is None else runs
        lookup = np.full(int(max(runs.value.max(initial=0), ids.max(initial=0))) + 1, -1)
        lookup[ids] = np.arange(len(ids))
        tracked = runs.with_values(lookup[runs.value])
        if (tracked.value < 0).any():
            tracked = tracked.select(tracked.value >= 0)
        sizes = np.bincount(tracked.value, weights=tracked.length, minlength=len(ids))
        return cls(tracked, lookup, instances, sizes, centres_px, cut)

    @property
    def n(self) -> int:
        """How many objects."""
        return len(self.sizes_px)

    def at(self, flat: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
        """Object at each pixel of another frame moved by `shift_px`; -1 for none and outside."""
        shape = self.instances.shape
        if not shift_px.any():
            return np.asarray(self.lookup[self.instances.ravel()[flat]])
        inside = np.ones(len(flat), bool)
        for axis, step in enumerate(shift_px):
            position = (flat // math.prod(shape[axis + 1 :])) % shape[axis] + step
            inside &= (position >= 0) & (position < shape[axis])
        found = np.full(len(flat), -1)
        moved = flat[inside] + int(np.dot(shift_px, [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]))
        found[inside] = self.lookup[self.instances.ravel()[moved]]
        return found


@dataclass(frozen=True)
class Overlaps:
    """Pairs of objects that share pixels: `before` and `after` index the two frames, `pixels` counts."""

    before: np.ndarray
    after: np.ndarray
    pixels: np.ndarray

    @classmethod
    def between(cls, before: Objects, after: Objects, shift_px: np.ndarray) -> Overlaps:
        """Count once over the runs of `before`, moved by `shift_px`."""
        offset = tuple(int(step) for step in shift_px)
        here, there = before.runs.pairs(after.runs, offset)
        pixels = before.runs.shared_px(after.runs, here, there, offset[-1])
        first, second = before.runs.value[here], after.runs.value[there]
        if before.n * after.n <= _DENSE_PAIRS:
            counts = np.bincount(first * after.n + second, weights=pixels, minlength=before.n * after.n)
            pairs = np.flatnonzero(counts)
            return cls(pairs // max(after.n, 1), pairs % max(after.n, 1), counts[pairs])
        from scipy.sparse import coo_array

        table = coo_array((pixels.astype(float), (first, second)), shape=(before.n, after.n)).tocsr().tocoo()
        return cls(table.coords[0], table.coords[1], table.data)

    def select(self, chosen: np.ndarray) -> Overlaps:
        """Keep some of the pairs."""
        return Overlaps(self.before[chosen], self.after[chosen], self.pixels[chosen])


def find_drift(before: Objects, after: Objects) -> tuple[np.ndarray, np.ndarray, Overlaps]:
    """How far the sample has moved between two frames.

    Returns
    -------
    drift_px : ndarray of float, shape (D,)
        Median displacement of the objects that are clearly the same in both frames; without any, the shift that
        makes the masks overlap most. Between frames without objects it is not known, and taken to be zero.
    shift_px : ndarray of int, shape (D,)
        The same in whole pixels.
    overlaps : Overlaps
        At that shift.

    Notes
    -----
    Objects that grow move their centres in random directions, the sample moves all of them alike: the median keeps
    the sample's part. The motion of a single object is taken for that of the sample. In profile, where all deposits
    grow away from the same substrate, growth and drift cannot be told apart this way.
    """
    ndim = before.instances.ndim
    shift = np.zeros(ndim, int)
    overlaps = Overlaps.between(before, after, shift)
    if not before.n or not after.n:
        return np.zeros(ndim), shift, overlaps
    smaller = min(before.sizes_px.sum(), after.sizes_px.sum())
    if overlaps.pixels.sum() < 0.8 * smaller:
        far = _coarse_shift(before, after)
        there = Overlaps.between(before, after, far)
        # Where two droplets fuse half-way between them, a shift brings one of them onto the product: that is no drift.
        agreed = there.pixels.sum() >= 0.7 * smaller or len(_clear_displacements(before, after, there)) >= 3
        if agreed and there.pixels.sum() > overlaps.pixels.sum():
            shift, overlaps = far, there
    drift = shift.astype(float)
    for _ in range(2):
        moved = _clear_displacements(before, after, overlaps)
        if not len(moved):
            break
        drift = np.median(moved, axis=0)
        nearest = np.rint(drift).astype(int)
        if (nearest == shift).all():
            break
        shift, overlaps = nearest, Overlaps.between(before, after, nearest)
    return drift, shift, overlaps


def _clear_displacements(before: Objects, after: Objects, overlaps: Overlaps) -> np.ndarray:
    """Displacements of whole objects that share half of the larger one with a partner of the other frame."""
    larger = np.maximum(before.sizes_px[overlaps.before], after.sizes_px[overlaps.after])
    clear = overlaps.pixels > 0.5 * larger
    clear &= ~before.cut[overlaps.before] & ~after.cut[overlaps.after]
    pairs = overlaps.select(clear)
    return np.asarray(after.centres_px[pairs.after] - before.centres_px[pairs.before])


def _coarse_shift(before: Objects, after: Objects) -> np.ndarray:
    """Shift at which the masks of both frames overlap most, to the size of a coarse pixel."""
    from scipy import fft

    shape = before.instances.shape
    factor = math.ceil(max(shape) / _COARSE_PX[len(shape)])
    coarse = tuple(math.ceil(n / factor) for n in shape)
    padded = tuple(fft.next_fast_len(2 * n, real=True) for n in coarse)
    spectra = []
    for objects in (before, after):
        where = np.unravel_index(objects.runs.flat, shape)
        cell = np.ravel_multi_index(tuple(w // factor for w in where), coarse)
        filled = np.bincount(cell, minlength=math.prod(coarse)).reshape(coarse).astype(np.float32)
        spectra.append(fft.rfftn(filled, padded))
    common = fft.irfftn(np.conj(spectra[0]) * spectra[1], padded)
    steps = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in padded), indexing="ij", sparse=True)
    distance = sum(step**2 for step in steps)
    # A growing object covers its former self at many shifts: take the nearest of those that are as good.
    best = np.argmin(np.where(common >= 0.999 * common.max(), distance, np.inf))
    peak = np.unravel_index(best, padded)
    return np.array([round(float(step.ravel()[i])) * factor for step, i in zip(steps, peak, strict=True)])


def assign(before: Objects, after: Objects, overlaps: Overlaps, *, min_overlap: float) -> np.ndarray:
    """Links between two frames from their overlaps, shape (L, 2).

    Objects overlap that share at least the part `min_overlap` of the smaller one. Within each group that hangs
    together, one-to-one partners are those with the largest sum of overlap over union; who is left over on one side
    joins the object it shares most pixels with, which makes a merge or a split.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    smaller = np.minimum(before.sizes_px[overlaps.before], after.sizes_px[overlaps.after])
    overlaps = overlaps.select(overlaps.pixels >= min_overlap * smaller)
    i, j, pixels = overlaps.before, overlaps.after, overlaps.pixels
    if not len(i):
        return np.zeros((0, 2), int)
    n = before.n + after.n
    group = connected_components(coo_array((np.ones(len(i)), (i, before.n + j)), shape=(n, n)), directed=False)[1][i]
    members = np.bincount(group)
    alone = members[group] == 1
    links = [np.stack([i[alone], j[alone]], axis=1)]
    rest = np.flatnonzero(~alone)
    rest = rest[np.argsort(group[rest], kind="stable")]
    union = before.sizes_px[i] + after.sizes_px[j] - pixels
    for pairs in np.split(rest, np.flatnonzero(np.diff(group[rest])) + 1) if len(rest) else []:
        rows, row = np.unique(i[pairs], return_inverse=True)
        columns, column = np.unique(j[pairs], return_inverse=True)
        gain, shared = np.zeros((2, len(rows), len(columns)))
        gain[row, column], shared[row, column] = pixels[pairs] / union[pairs], pixels[pairs]
        chosen = [(r, c) for r, c in zip(*linear_sum_assignment(gain, maximize=True), strict=True) if gain[r, c] > 0]
        taken_rows, taken_columns = {r for r, _ in chosen}, {c for _, c in chosen}
        chosen += [(r, int(shared[r].argmax())) for r in range(len(rows)) if r not in taken_rows]
        chosen += [(int(shared[:, c].argmax()), c) for c in range(len(columns)) if c not in taken_columns]
        links.append(np.array([(rows[r], columns[c]) for r, c in chosen], int))
    return np.concatenate(links)


def match_moved(
    positions: np.ndarray, sizes: np.ndarray, new_positions: np.ndarray, new_sizes: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """Partners among objects that do not overlap: nearest in sum, no further than `reach`, size within a factor of 2.

    Parameters
    ----------
    positions, new_positions : ndarray of float, shape (n, D) and (m, D)
    sizes, new_sizes : ndarray of float, shape (n,) and (m,)
    reach : ndarray of float, shape (n,)

    Returns
    -------
    ndarray of int, shape (L, 2)
    """
    if not len(positions) or not len(new_positions):
        return np.zeros((0, 2), int)
    from scipy.optimize import linear_sum_assignment

    apart = np.linalg.norm(positions[:, None] - new_positions[None], axis=2)
    ratio = new_sizes[None] / sizes[:, None]
    possible = (apart <= reach[:, None]) & (ratio >= 0.5) & (ratio <= 2)
    never = 1e6 * (1 + float(apart.max()))
    rows, columns = linear_sum_assignment(np.where(possible, apart, never))
    found = possible[rows, columns]
    return np.stack([rows[found], columns[found]], axis=1)


def contacts(
    many: Objects, one: Objects, unlinked: np.ndarray, linked: np.ndarray, *, shift_px: np.ndarray, reach_px: int
) -> list[tuple[int, int]]:
    """Parts of one frame that joined into (or came out of) objects of the other without sharing enough pixels.

    Parameters
    ----------
    many, one : Objects
        The frame with the parts, and the one with the whole.
    unlinked : ndarray of int
        Objects of `many` that have no partner.
    linked : ndarray of int, shape (L, 2)
        Links that exist, (of `many`, of `one`).
    shift_px : ndarray of int
        From `many` to `one`.
    reach_px : int

    Returns
    -------
    list of (int, int)
        Further links. A part belongs to a whole within `reach_px` of it whose volume, less that of its partners,
        accounts for at least half of its parts. A whole without any partner needs two parts.
    """
    power = 1.5 if many.instances.ndim == 2 else 1.0  # a droplet seen from above has the volume of its radius cubed
    volumes = many.sizes_px**power
    spare = one.sizes_px**power
    np.subtract.at(spare, linked[:, 1], volumes[linked[:, 0]])
    has_partner = np.isin(np.arange(one.n), linked[:, 1])
    parts: dict[int, list[int]] = {}
    for part in unlinked if one.n else ():
        if many.cut[part]:
            continue
        near = _within(many.runs.select(many.runs.value == part), one, shift_px, reach_px)
        if len(near):
            parts.setdefault(int(near[np.argmax(spare[near])]), []).append(int(part))
    return [
        (part, whole)
        for whole, members in parts.items()
        if spare[whole] >= 0.5 * volumes[members].sum() and (has_partner[whole] or len(members) > 1)
        for part in members
    ]


def _within(runs: Runs, objects: Objects, shift_px: np.ndarray, reach_px: int) -> np.ndarray:
    """Objects within `reach_px` of the pixels of some runs moved by `shift_px`."""
    found = []
    for step in product(range(-reach_px, reach_px + 1), repeat=len(shift_px) - 1):
        left = reach_px**2 - sum(s**2 for s in step)
        if left >= 0:
            offset = tuple(int(s) for s in np.add(shift_px, (*step, 0)))
            found.append(objects.runs.value[runs.pairs(objects.runs, offset, reach_px=math.isqrt(left))[1]])
    return np.unique(np.concatenate(found))
