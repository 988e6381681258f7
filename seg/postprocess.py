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
belong together. 2-D, 3-D, whole arrays and volumes in slabs are one path: regions are joined across slabs
(`seg.blocks`), and no mask depends on how it is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from seg.blocks import PIECE_VOXELS, RegionFinder, Slab, neighbourhood, slabs
from seg.cleanup import N_VALUES, ClassLimits, CleanUp, Rules, make_rules
from seg.labels import LabelSchema

__all__ = ["Changed", "ClassLimits", "CleanUp", "Rules", "clean_labels", "clean_slabs", "make_rules"]

# Looked at together: about 40 bytes each are taken for a while.
SLAB_VOXELS = 4_000_000

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
    ids: np.ndarray | None = None
    for slab in cuts:
        labels, sure = read(slab.read)
        seen = [other(slab.read) for other in neighbours] if rules.min_frames > 1 else []
        ids = None  # those of the slab before go before these are made
        ids = census.add(slab, labels, sure, seen)
    new, gone = census.decide()
    if changed is not None:
        changed.regions += gone
    for slab, numbering in zip(cuts, census.numbering, strict=True):
        if len(cuts) > 1:
            labels = read(slab.read)[0]
            clean = _relabelled(labels, numbering, new)[slab.inner]
        else:
            clean = new[ids]
        if changed is not None:
            changed.add(labels[slab.inner], clean)
        yield slab.owned, clean


def _relabelled(labels: np.ndarray, numbering: Sequence[tuple[int, int, int]], new: np.ndarray) -> np.ndarray:
    """Labels with the new value of each region; regions are found again, as `_Census.add` did, where some changed."""
    clean = labels.copy()
    for value, first, count in numbering:
        targets = new[first : first + count + 1].copy()
        targets[0] = value
        if (targets != value).any():
            mask = labels == value
            found, _ = ndimage.label(mask, neighbourhood(labels.ndim, corners=True))
            np.copyto(clean, targets[found], where=mask)
    return clean


class _Census:
    """Sizes, certainty and neighbours of all regions of a frame that is seen slab by slab.

    Regions of all classes are numbered together as they are found (provisional ids); 0 stands for no label.
    """

    def __init__(self, shape: tuple[int, ...], rules: Rules) -> None:
        self.shape, self.rules = shape, rules
        self.finders: dict[int, RegionFinder] = {}
        self.places: dict[int, list[np.ndarray]] = {}  # provisional ids here of those of each finder
        self.numbering: list[list[tuple[int, int, int]]] = []  # per slab: class, what is added to its ids, how many
        self.count = 0
        self.flags: list[np.ndarray] = []  # bool (n, 3): sure somewhere, at the border, seen before or after
        self.pairs: list[np.ndarray] = []  # (region, neighbour, faces between them)
        self.union = RegionFinder(shape, corners=True)
        self.unions: list[np.ndarray] = []  # id in `union` of each region, 0 for other classes
        self.compares = False

    def add(self, slab: Slab, labels: np.ndarray, sure: np.ndarray | None, seen: Sequence[np.ndarray]) -> np.ndarray:
        """Take the next slab; gives the provisional ids in it."""
        rules = self.rules
        # A class that was seen once is looked for in every slab after: its regions are joined from slab to slab.
        values = sorted({v for v in np.unique(labels).tolist() if v} | self.finders.keys())
        group_ids, group_before = self.union.add(_any_of(labels, rules.together), slab)
        met = np.zeros(labels.shape, bool)
        for other in seen:
            met |= _any_of(other, rules.together)
            self.compares = True
        ids, numbering = np.zeros(labels.shape, np.int32), []
        first = self.count
        classes, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for value in values:
            if value not in self.finders:
                self.finders[value], self.places[value] = RegionFinder(self.shape, corners=True), []
            mask = labels == value
            found, before = self.finders[value].add(mask, slab)
            n = self.finders[value].count - before
            numbering.append((value, self.count, n))
            np.add(found, self.count - first, out=ids, where=mask)
            self.places[value].append(np.arange(self.count + 1, self.count + n + 1))
            self.count += n
            classes.append(np.full(n, value))
            sizes.append(sum(np.bincount(piece, minlength=n + 1) for piece in _pieces(found))[1:])
            del found  # before the next are made
        self.numbering.append(numbering)
        kind, size = np.concatenate(classes), np.concatenate(sizes)
        flags = np.zeros((len(kind) + 1, 3), bool)
        of = np.zeros(len(kind) + 1, np.int64)
        if sure is None:
            flags[:, 0] = True
        else:
            for piece, certain in zip(_pieces(ids), _pieces(sure), strict=True):
                flags[piece[certain], 0] = True
            flags[1:, 0] |= rules.peak[kind] == 0
        if seen:
            for piece, there in zip(_pieces(ids), _pieces(met), strict=True):
                flags[piece[there], 2] = True
        for piece, together in zip(_pieces(ids), _pieces(group_ids), strict=True):
            inside = together > 0
            of[piece[inside]] = together[inside] + group_before
        self.unions.append(of[1:])
        for axis in range(ids.ndim):
            ends = [0] * (axis > 0 or slab.read.start == 0) + [-1] * (axis > 0 or slab.read.stop == self.shape[0])
            flags[ids.take(ends, axis=axis), 1] = True
        flags = flags[1:]
        self.flags.append(flags)
        # Sizes only grow and certainty only comes as slabs are joined: what has both already will stay.
        safe = (size >= rules.least_px[kind]) & flags[:, 0]
        if seen:
            safe &= flags[:, 2]
        candidates = np.concatenate([[False], ~safe])[ids]
        np.add(ids, first, out=ids, where=ids > 0)
        self._touch(slab, ids, candidates)
        return ids

    def _touch(self, slab: Slab, ids: np.ndarray, candidates: np.ndarray) -> None:
        """Count the faces that candidates share with other regions; each voxel is asked in the slab that owns it."""
        place = np.nonzero(candidates[slab.inner])
        if not len(place[0]):
            return
        place = (place[0] + slab.inner.start, *place[1:])
        own = ids[place]
        for axis in range(ids.ndim):
            for step in (-1, 1):
                there = place[axis] + step
                inside = (there >= 0) & (there < ids.shape[axis])
                theirs = ids[tuple((there if a == axis else place[a])[inside] for a in range(ids.ndim))]
                mine = own[inside]
                differ = (mine != theirs) & (theirs > 0)
                both = mine[differ].astype(np.int64) * 2**32 + theirs[differ]
                pairs, faces = np.unique(both, return_counts=True)
                self.pairs.append(np.column_stack([pairs // 2**32, pairs % 2**32, faces]))

    def decide(self) -> tuple[np.ndarray, np.ndarray]:
        """New label value of each provisional id (entry 0: unlabelled), and how many regions of each value went."""
        rules = self.rules
        region_of = np.zeros(self.count + 1, np.int64)  # regions of all classes, joined across slabs, from 0
        kinds, sizes, total = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for value, finder in self.finders.items():
            joined = finder.regions()
            region_of[np.concatenate(self.places[value])] = joined.of_provisional[1:] - 1 + total
            kinds.append(np.full(joined.count, value))
            sizes.append(joined.sizes[1:])
            total += joined.count
        kind, size = np.concatenate(kinds), np.concatenate(sizes)
        flags = np.concatenate([*self.flags, np.zeros((0, 3), bool)])
        sure, border, met = (_any(region_of[1:][flags[:, column]], total) for column in range(3))
        inside = np.isin(kind, rules.together)
        # Rule 1: the regions of the classes together. Each other region is a body of its own.
        unions = self.union.regions()
        of_union = np.concatenate([*self.unions, np.zeros(0, np.int64)])
        body = np.arange(total)
        body[region_of[1:][of_union > 0]] = total + unions.of_provisional[of_union[of_union > 0]]
        n_bodies = total + unions.count + 1
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


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array in flat pieces: what converts ids to 64 bits does it for one at a time."""
    flat = array.reshape(-1)
    return (flat[start : start + PIECE_VOXELS] for start in range(0, flat.size, PIECE_VOXELS))


def _any(which: np.ndarray, n: int) -> np.ndarray:
    """Which of 0..n-1 are among `which`; bool, shape (n,)."""
    found = np.zeros(n, bool)
    found[which] = True
    return found


def _any_of(labels: np.ndarray, values: Sequence[int]) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    for value in values:  # a few comparisons cost less than a look-up
        found |= labels == value
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
