"""Clean-up of predicted masks: regions too small or too doubtful to be objects become what surrounds them.

A network that is wrong in one pixel of a hundred has the area right and draws hundreds of specks and pinholes, which
are what counts, skeletons and tips are made of. The rules, in the words of `CleanUp`:

1. The classes that are counted together (deposit and dendrite of a plan view) are looked at together. A connected
   region of them goes where it is smaller than ``min_diameter_px`` (``min_diameter_um`` where the pixel size is known,
   if that is larger), where no pixel of it reaches ``min_peak_probability`` (hysteresis: an outline is drawn
   at the class boundary, but an object has to be certain somewhere), or where it is not seen in ``min_frames`` frames
   in a row.
2. A piece of one of these classes inside such a region is given to the others where it is too small.
3. A region of any other class goes where it is too small, or where it is enclosed by the classes of rule 1 and nowhere
   certain: a pinhole.

What goes takes the class that most of its border touches, of the regions that stay. Neighbours over edges and corners
belong together. 2-D, 3-D, whole arrays and volumes in slabs are one path: regions are joined across slabs,
and no mask depends on how it is cut. All is worked out on runs of pixels along rows (`seg.runs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from seg.blocks import Slab, slabs
from seg.cleanup import N_VALUES, ClassLimits, CleanUp, Rules, make_rules
from seg.labels import LabelSchema
from seg.runs import Runs

__all__ = ["Changed", "ClassLimits", "CleanUp", "Rules", "clean_labels", "clean_slabs", "make_rules"]

# Looked at together.
SLAB_VOXELS = 2**21

Read = Callable[[slice], tuple[np.ndarray, np.ndarray | None]]
"""Slices along the first axis -> labels (uint8), and where the class chosen reaches `Rules.peak` (bool), if known."""


@dataclass
class Changed:
    """What the clean-up did, summed over frames; arrays of int64, shape (256,), by label value.

    Parameters
    ----------
    before_px, lost_px, gained_px : ndarray
        Pixels of a class in the raw mask, those of them that went, and those that came.
    regions : ndarray
        Regions that went.
    """

    before_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    lost_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    gained_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    regions: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))

    def add(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """Count one piece."""
        other = raw != clean
        self.before_px += np.bincount(raw.ravel(), minlength=N_VALUES)
        self.lost_px += np.bincount(raw[other], minlength=N_VALUES)
        self.gained_px += np.bincount(clean[other], minlength=N_VALUES)

    def by_class(self, schema: LabelSchema) -> dict[str, dict[str, float]]:
        """What became of each class that was there or came, for ``run.json``."""
        found = {}
        for c in schema.classes:
            before, lost, gained = (int(a[c.index]) for a in (self.before_px, self.lost_px, self.gained_px))
            if before or gained:
                found[c.name] = {
                    "regions_removed": int(self.regions[c.index]), "pixels_before": before, "pixels_removed": lost,
                    "pixels_added": gained, "net_change": (gained - lost) / before if before else math.nan,
                }  # fmt: skip
        return found


def clean_labels(
    labels: np.ndarray,
    rules: Rules,
    confidence: np.ndarray | None = None,
    *,
    neighbours: Sequence[np.ndarray] = (),
    changed: Changed | None = None,
    max_voxels: int | None = None,
) -> np.ndarray:
    """Clean one frame that is in memory.

    Parameters
    ----------
    labels : ndarray of uint8, shape ([Z,] Y, X)
    rules : Rules
    confidence : ndarray or None, same shape
        Probability of the class chosen; or bool, whether it reaches ``rules.peak``. None: size decides alone.
    neighbours : sequence of ndarray
        Raw labels of the frame before and of that after, where ``rules.min_frames`` is 2; none: objects are not
        removed for being alone.
    changed : Changed or None
        Is added to.
    max_voxels : int or None
        Looked at together; the result does not depend on it.

    Returns
    -------
    ndarray of uint8, same shape
    """

    def read(where: slice) -> tuple[np.ndarray, np.ndarray | None]:
        return labels[where], None if confidence is None else rules.is_sure(labels[where], confidence[where])

    near = [lambda where, other=other: other[where] for other in neighbours]
    clean = np.empty(labels.shape, np.uint8)
    for where, part in clean_slabs(read, labels.shape, rules, neighbours=near, changed=changed, max_voxels=max_voxels):
        clean[where] = part
    return clean


def clean_slabs(
    read: Read, shape: Sequence[int], rules: Rules, *, neighbours: Sequence[Callable[[slice], np.ndarray]] = (),
    changed: Changed | None = None, max_voxels: int | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Clean one frame slab by slab; where there are several, everything is read twice.

    Parameters
    ----------
    read : callable
    shape : sequence of int
        Of the frame.
    rules : Rules
    neighbours : sequence of callable
        Raw labels of the frames before and after by slices.
    changed : Changed or None
        Is added to.
    max_voxels : int or None
        Of a slab, None: `SLAB_VOXELS`. The result does not depend on it.

    Yields
    ------
    (slice, ndarray of uint8)
        Slices along the first axis, and their labels.
    """
    shape = tuple(shape)
    cuts = list(slabs(shape, halo=1, max_voxels=SLAB_VOXELS if max_voxels is None else max_voxels))
    census = _Census(shape, rules)
    for slab in cuts:
        labels, sure = read(slab.read)
        seen = [other(slab.read) for other in neighbours] if rules.min_frames > 1 else []
        runs, region = census.add(slab, labels, sure, seen)
    new, gone = census.decide()
    if changed is not None:
        changed.regions += gone
    for slab, first, kind in zip(cuts, census.firsts, census.kinds, strict=True):
        if len(cuts) > 1:
            labels = read(slab.read)[0]
        clean = labels
        if (new[first + 1 : first + len(kind) + 1] != kind).any():
            if len(cuts) > 1:
                runs, region, _ = _regions(labels)
            clean = runs.with_values(new[first + region]).painted(np.uint8)
        if changed is not None:
            changed.add(labels[slab.inner], clean[slab.inner])
        yield slab.owned, clean[slab.inner]


def _regions(labels: np.ndarray) -> tuple[Runs, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Runs of labels, the number of the region of one value that each is in, and the pairs of runs that touch."""
    runs = Runs.of(labels)
    first, second = runs.touching()
    same = runs.value[first] == runs.value[second]
    return runs, runs.joined(first[same], second[same]), (first, second)


class _Census:
    """Sizes, certainty and neighbours of all regions of a frame that is seen slab by slab.

    Regions are numbered from 1 as they are found (provisional ids), in every slab anew; 0 stands for no label. Slabs
    overlap by the halo of two, where their runs are the same.
    """

    def __init__(self, shape: tuple[int, ...], rules: Rules) -> None:
        self.shape, self.rules = shape, rules
        self.count = self.n_unions = 0
        self.firsts: list[int] = []  # per slab: what is added to its numbers
        self.kinds: list[np.ndarray] = []  # label value of each region
        self.sizes: list[np.ndarray] = []  # pixels in the slab that owns them
        self.flags: list[np.ndarray] = []  # bool (n, 3): sure somewhere, at the border, seen before or after
        self.unions: list[np.ndarray] = []  # region of the classes together that each is in, 0 for other classes
        self.pairs: list[np.ndarray] = []  # (region, neighbour, faces between them)
        self.links: list[np.ndarray] = []  # (region, region) that are one, from slab to slab
        self.union_links: list[np.ndarray] = []
        self.last: tuple[np.ndarray, np.ndarray, Slab] | None = None
        self.compares = False

    def add(
        self, slab: Slab, labels: np.ndarray, sure: np.ndarray | None, seen: Sequence[np.ndarray]
    ) -> tuple[Runs, np.ndarray]:
        """Take the next slab; gives its runs and the numbers of their regions within the slab."""
        rules = self.rules
        runs, region, (one, other) = _regions(labels)
        n = int(region.max(initial=0))
        kind = np.zeros(n + 1, np.int64)
        kind[region] = runs.value
        inside = np.isin(runs.value, rules.together)
        both = inside[one] & inside[other]
        union = np.where(inside, runs.joined(one[both], other[both]), 0)
        plane = runs.position(0)
        owned = (plane >= slab.inner.start) & (plane < slab.inner.stop)
        flags = np.zeros((n + 1, 3), bool)
        flags[region[_touch_mask(runs, sure)] if sure is not None else slice(None), 0] = True
        flags[:, 0] |= rules.peak[kind] == 0
        flags[region[self._at_border(runs, slab)], 1] = True
        for before_or_after in seen:
            self.compares = True
            flags[region[_touch_mask(runs, np.isin(before_or_after, rules.together))], 2] = True
        of = np.zeros(n + 1, np.int64)
        of[region] = np.where(union > 0, union + self.n_unions, 0)
        sizes = np.bincount(region, runs.length * owned, n + 1).astype(np.int64)
        # Sizes only grow and certainty only comes as slabs are joined: what has both already will stay.
        safe = (np.bincount(region, runs.length, n + 1) >= rules.least_px[kind]) & flags[:, 0]
        if seen:
            safe &= flags[:, 2]
        self._count_faces(runs, region, owned, ~safe)
        self._link(slab, runs, region, union)
        for found, kept in ((self.kinds, kind), (self.sizes, sizes), (self.flags, flags), (self.unions, of)):
            found.append(kept[1:])
        self.firsts.append(self.count)
        self.count += n
        self.n_unions += int(union.max(initial=0))
        return runs, region

    def _at_border(self, runs: Runs, slab: Slab) -> np.ndarray:
        """Which runs touch the border of the frame."""
        found = np.zeros(len(runs), bool)
        for axis in range(len(self.shape) - 1):
            position = runs.position(axis) + (slab.read.start if axis == 0 else 0)
            found |= (position == 0) | (position == self.shape[axis] - 1)
        column = runs.start % self.shape[-1]
        return found | (column == 0) | (column + runs.length == self.shape[-1])

    def _count_faces(self, runs: Runs, region: np.ndarray, owned: np.ndarray, candidate: np.ndarray) -> None:
        """Count the faces that candidates share with other regions; each pixel is asked in the slab that owns it."""
        asks = candidate[region] & owned
        if not asks.any():
            return
        asking = runs.select(asks)
        mine, theirs, faces = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        own, n_axes = region[asks], len(self.shape)
        for axis in range(n_axes):
            for step in (-1, 1):
                offset = tuple(step if a == axis else 0 for a in range(n_axes))
                first, second = asking.pairs(runs, offset)
                shared = asking.shared_px(runs, first, second, offset[-1])
                differ = own[first] != region[second]
                mine.append(own[first[differ]])
                theirs.append(region[second[differ]])
                faces.append(shared[differ])
        pairs, at = np.unique(np.concatenate(mine) * 2**32 + np.concatenate(theirs), return_inverse=True)
        total = np.bincount(at, np.concatenate(faces), len(pairs)).astype(np.int64)
        self.pairs.append(np.column_stack([pairs // 2**32 + self.count, pairs % 2**32 + self.count, total]))

    def _link(self, slab: Slab, runs: Runs, region: np.ndarray, union: np.ndarray) -> None:
        """Note which regions of the last slab are those of this one: the planes of both hold the same runs."""
        per_plane = math.prod(self.shape[1:])
        region, union = region + self.count, np.where(union > 0, union + self.n_unions, 0)
        if self.last is not None:
            regions, unions, earlier = self.last
            shared = earlier.read.stop - slab.read.start
            head = slice(0, int(np.searchsorted(runs.start, shared * per_plane)))
            self.links.append(_distinct(regions, region[head]))
            self.union_links.append(_distinct(unions, union[head]))
        # The next slab reads the last planes again, which is one halo before its first and one behind.
        again = max(slab.owned.stop - slab.halo, 0) - slab.read.start
        tail = slice(int(np.searchsorted(runs.start, again * per_plane)), None)
        self.last = region[tail], union[tail], slab

    def decide(self) -> tuple[np.ndarray, np.ndarray]:
        """New label value of each provisional id (entry 0: unlabelled), and how many regions of each value went."""
        rules = self.rules
        region_of, total = _one_of(self.links, self.count)
        kind = np.zeros(total, np.int64)
        kind[region_of[1:]] = _all(self.kinds)
        size = np.bincount(region_of[1:], _all(self.sizes), total).astype(np.int64)
        flags = np.concatenate([*self.flags, np.zeros((0, 3), bool)])
        sure, border, met = (_any(region_of[1:][flags[:, column]], total) for column in range(3))
        inside = np.isin(kind, rules.together)
        # Rule 1: the regions of the classes together. Each other region is a body of its own.
        union_of, n_unions = _one_of(self.union_links, self.n_unions)
        of_union = _all(self.unions)
        body = np.arange(total)
        body[region_of[1:][of_union > 0]] = total + union_of[of_union[of_union > 0]]
        n_bodies = total + n_unions
        limit = min((rules.least_px[v] for v in rules.together), default=0.0)
        lost = (np.bincount(body, size, n_bodies) < limit) | ~_any(body[sure], n_bodies)
        if self.compares:
            lost |= ~_any(body[met], n_bodies)
        bad = inside & lost[body]
        # Rule 3: other classes.
        small = size < rules.least_px[kind]
        pairs = np.concatenate([*self.pairs, np.zeros((0, 3), np.int64)]).astype(np.int64)
        pairs[:, :2] = region_of[pairs[:, :2]]
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        open_to = _any(pairs[~inside[pairs[:, 1]], 0], total)
        enclosed = _any(pairs[:, 0], total) & ~inside & ~open_to & ~border
        bad |= ~inside & (small | (enclosed & ~sure))
        # Rule 2: pieces of one class in a region that stays.
        piece = inside & ~bad & small
        new = kind.copy()
        _resolve(new, piece, np.arange(total), pairs[body[pairs[:, 0]] == body[pairs[:, 1]]])
        _resolve(new, bad, body, pairs)
        gone = np.bincount(kind[new != kind], minlength=N_VALUES).astype(np.int64)
        target = np.zeros(self.count + 1, np.uint8)
        target[1:] = new[region_of[1:]] if total else 0
        return target, gone


def _touch_mask(runs: Runs, mask: np.ndarray) -> np.ndarray:
    """Which runs hold a pixel of a mask of the same shape."""
    if not len(runs):
        return np.zeros(0, bool)
    bounds = np.column_stack([runs.start, runs.start + runs.length]).ravel()
    return np.logical_or.reduceat(np.append(mask, False), bounds)[::2]


def _distinct(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pairs of ids that occur; int64, shape (n, 2)."""
    pairs = np.unique(one * 2**32 + other)
    return np.column_stack([pairs // 2**32, pairs % 2**32])


def _one_of(links: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, int]:
    """What each of 1..count is part of, from 0, once those of each pair are one; and how many there are. Entry 0: 0."""
    pairs = np.concatenate([*links, np.zeros((0, 2), np.int64)])
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count + 1, count + 1))
    n, member = connected_components(graph, directed=False)
    alone = member[0]  # nothing is linked to 0 but 0
    return np.where(member > alone, member - 1, member), n - 1


def _all(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([*parts, np.zeros(0, np.int64)])


def _any(which: np.ndarray, n: int) -> np.ndarray:
    """Which of 0..n-1 are among `which`; bool, shape (n,)."""
    found = np.zeros(n, bool)
    found[which] = True
    return found


def _resolve(new: np.ndarray, moving: np.ndarray, body: np.ndarray, pairs: np.ndarray) -> None:
    """Give regions that go the class most of their border touches, of those that stay or are settled; from outside in.

    Regions of one `body` go together. What touches nothing that stays keeps its class.
    """
    left = moving.copy()
    for _ in range(len(new)):
        use = pairs[left[pairs[:, 0]] & ~left[pairs[:, 1]] & (body[pairs[:, 0]] != body[pairs[:, 1]])]
        if not len(use):
            return
        bodies, row = np.unique(body[use[:, 0]], return_inverse=True)
        choices, vote = np.unique(row * N_VALUES + new[use[:, 1]], return_inverse=True)
        faces = np.bincount(vote, use[:, 2])
        # By body, then by votes from most to least; of equal votes the smaller label value.
        order = np.lexsort((choices, -faces, choices // N_VALUES))
        _, first = np.unique(choices[order] // N_VALUES, return_index=True)
        settled = left & np.isin(body, bodies)
        new[settled] = (choices[order][first] % N_VALUES)[np.searchsorted(bodies, body[settled])]
        left &= ~settled
