"""Connected regions of a frame that is seen slab by slab: surveyed one by one, counted together, decided at once.

A `Survey` knows one slab and no other, so that slabs can be surveyed in any order and by several processes; a `Census`
joins them in their order and says what each region becomes. The rules stand at the head of `seg.postprocess`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from seg.blocks import Slab
from seg.cleanup import N_VALUES, Rules
from seg.runs import Runs


@dataclass(frozen=True)
class Survey:
    """What one slab tells of its regions, which are numbered from 1; 0 stands for no label.

    Parameters
    ----------
    kinds : ndarray of int64, shape (n,)
        Label value of each region.
    sizes : ndarray of int64, shape (n,)
        Pixels in the part that the slab owns.
    flags : ndarray of bool, shape (n, 3)
        Certain somewhere, at the border of the frame, seen in the frame before or after.
    unions : ndarray of int64, shape (n,)
        Region of the classes together that each is in, from 1; 0 for other classes.
    pairs : ndarray of int64, shape (p, 3)
        Region, neighbour, faces between them.
    head, tail : ndarray of int64, shape (r, 2)
        Region and union of the runs in the slices shared with the slab before and the one behind, in raster order.
    """

    kinds: np.ndarray
    sizes: np.ndarray
    flags: np.ndarray
    unions: np.ndarray
    pairs: np.ndarray
    head: np.ndarray
    tail: np.ndarray


def regions_of(labels: np.ndarray) -> tuple[Runs, np.ndarray]:
    """Runs of labels, and the number of the region of one value that each is in."""
    runs = Runs.of(labels)
    return runs, runs.joined(*runs.touching(lambda one, other: runs.value[one] == runs.value[other]))


def survey(
    slab: Slab, shape: Sequence[int], rules: Rules, labels: np.ndarray, sure: np.ndarray | None,
    seen: Sequence[np.ndarray] = (),
) -> tuple[Survey, Runs, np.ndarray]:  # fmt: skip
    """Look at one slab of a frame.

    Parameters
    ----------
    slab : Slab
        Its halo is 1.
    shape : sequence of int
        Of the frame.
    rules : Rules
    labels : ndarray of uint8
        The slab with its halo.
    sure : ndarray of bool or None, same shape
        Where the class chosen reaches ``rules.peak``; None: everywhere.
    seen : sequence of ndarray
        Raw labels of the same slab in the frames before and after.

    Returns
    -------
    Survey
    Runs
        Of the labels.
    ndarray of int
        Number of the region of each run.
    """
    runs = Runs.of(labels)
    inside = np.isin(runs.value, rules.together)
    one, other = runs.touching(lambda a, b: (runs.value[a] == runs.value[b]) | (inside[a] & inside[b]))
    same, both = runs.value[one] == runs.value[other], inside[one]
    region = runs.joined(one[same], other[same])
    both &= inside[other]
    union = np.where(inside, runs.joined(one[both], other[both]), 0)
    del one, other, same, both
    n = int(region.max(initial=0))
    kind = np.zeros(n + 1, np.int64)
    kind[region] = runs.value
    plane = runs.position(0)
    owned = (plane >= slab.inner.start) & (plane < slab.inner.stop)
    flags = np.zeros((n + 1, 3), bool)
    flags[region[_touch_mask(runs, sure)] if sure is not None else slice(None), 0] = True
    flags[:, 0] |= rules.peak[kind] == 0
    flags[region[_at_border(runs, slab, shape)], 1] = True
    for before_or_after in seen:
        flags[region[_touch_mask(runs, np.isin(before_or_after, rules.together))], 2] = True
    of = np.zeros(n + 1, np.int64)
    of[region] = union
    sizes = np.bincount(region, runs.length * owned, n + 1).astype(np.int64)
    # Sizes only grow and certainty only comes as slabs are joined: what has both already will stay.
    safe = (np.bincount(region, runs.length, n + 1) >= rules.least_px[kind]) & flags[:, 0]
    if seen:
        safe &= flags[:, 2]
    pairs = _faces(runs, region, ~safe[region] & owned)
    # The planes that two slabs share hold the same runs in both: one halo before their border and one behind.
    per_plane = math.prod(shape[1:])
    below = min(slab.owned.start + slab.halo, shape[0]) - slab.read.start if slab.owned.start else 0
    above = (max(slab.owned.stop - slab.halo, 0) if slab.owned.stop < shape[0] else shape[0]) - slab.read.start
    last, first = np.searchsorted(runs.start, (below * per_plane, above * per_plane))
    both_ids = np.column_stack([region, union])
    found = Survey(kind[1:], sizes[1:], flags[1:], of[1:], pairs, both_ids[:last].copy(), both_ids[first:].copy())
    return found, runs, region


def _at_border(runs: Runs, slab: Slab, shape: Sequence[int]) -> np.ndarray:
    """Which runs touch the border of the frame."""
    found = np.zeros(len(runs), bool)
    for axis in range(len(shape) - 1):
        position = runs.position(axis) + (slab.read.start if axis == 0 else 0)
        found |= (position == 0) | (position == shape[axis] - 1)
    column = runs.start % shape[-1]
    return found | (column == 0) | (column + runs.length == shape[-1])


def _faces(runs: Runs, region: np.ndarray, asks: np.ndarray) -> np.ndarray:
    """Faces that the runs which ask share with other regions, as (region, neighbour, faces); int64, shape (p, 3)."""
    if not asks.any():
        return np.zeros((0, 3), np.int64)
    asking, own, n_axes = runs.select(asks), region[asks], len(runs.shape)
    count, index = int(region.max()) + 1, np.int32 if len(runs) < 2**31 else np.int64
    total = csr_array((count, count), dtype=np.int32)
    for axis in range(n_axes):  # summed one by one: where a value follows another in every pixel these are many
        for step in (-1, 1):
            offset = tuple(step if a == axis else 0 for a in range(n_axes))
            first, second = asking.pairs(runs, offset)
            first, second = (of[own[first] != region[second]] for of in (first, second))
            shared = asking.shared_px(runs, first, second, offset[-1])
            pairs = (own[first].astype(index), region[second].astype(index))
            total = total + coo_array((shared.astype(np.int32), pairs), shape=(count, count)).tocsr()
    total.sort_indices()
    found = total.tocoo()
    return np.column_stack([found.row, found.col, found.data]).astype(np.int64)


class Census:
    """All regions of a frame, from the surveys of its slabs in their order.

    Regions get provisional ids from 1, in every slab anew; 0 stands for no label.

    Parameters
    ----------
    rules : Rules
    compares : bool
        Whether objects must be seen in the frame before or after.
    """

    def __init__(self, rules: Rules, *, compares: bool = False) -> None:
        self.rules, self.compares = rules, compares
        self.count = self.n_unions = 0
        self.firsts: list[int] = []  # per slab: what is added to its numbers
        self.kinds: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []
        self.flags: list[np.ndarray] = []
        self.unions: list[np.ndarray] = []
        self.pairs: list[np.ndarray] = []
        self.links: list[np.ndarray] = []  # (region, region) that are one, from slab to slab
        self.union_links: list[np.ndarray] = []
        self.last: np.ndarray | None = None

    def take(self, found: Survey) -> None:
        """Take the survey of the next slab."""
        head, tail = (ids + (self.count, self.n_unions) * (ids > 0) for ids in (found.head, found.tail))
        if self.last is not None:
            self.links.append(_distinct(self.last[:, 0], head[:, 0]))
            self.union_links.append(_distinct(self.last[:, 1], head[:, 1]))
        self.last = tail
        first, first_union = self.count, self.n_unions
        self.firsts.append(first)
        self.count += len(found.kinds)
        self.n_unions += int(found.unions.max(initial=0))
        # As small as they may be: planes of noise have a region in every fourth pixel, and a pair in every one.
        index = np.int32 if self.count < 2**31 else np.int64
        self.kinds.append(found.kinds.astype(np.uint8))
        self.sizes.append(found.sizes)
        self.flags.append(found.flags)
        self.unions.append(np.where(found.unions > 0, found.unions + first_union, 0).astype(index))
        self.pairs.append((found.pairs + (first, first, 0)).astype(index))

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
        pairs = np.concatenate([*self.pairs, np.zeros((0, 3), np.int32)])
        self.pairs = []
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

    def becomes(self, number: int, target: np.ndarray) -> np.ndarray | None:
        """New label value of each region of slab `number` (entry 0: unlabelled); None: it stays as it is."""
        first, kind = self.firsts[number], self.kinds[number]
        own = target[first : first + len(kind) + 1].copy()
        own[0] = 0
        return own if (own[1:] != kind).any() else None


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
