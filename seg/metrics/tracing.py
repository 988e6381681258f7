"""Outlines of all objects of a frame at once: crack points in order, smoothed, and their convex hulls.

`seg.metrics.interface.outlines` does the same for one mask; three hundred calls of it per frame cost a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

# Segments of the outline in a square of four pixels, from side to side, by which of them are inside
# (1 upper left, 2 upper right, 4 lower left, 8 lower right). Diagonal neighbours are connected.
_TOP, _RIGHT, _BOTTOM, _LEFT = range(4)
_SEGMENTS: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((_TOP, _LEFT),), 2: ((_RIGHT, _TOP),), 3: ((_RIGHT, _LEFT),), 4: ((_LEFT, _BOTTOM),), 5: ((_TOP, _BOTTOM),),
    6: ((_LEFT, _TOP), (_RIGHT, _BOTTOM)), 7: ((_RIGHT, _BOTTOM),), 8: ((_BOTTOM, _RIGHT),),
    9: ((_TOP, _RIGHT), (_BOTTOM, _LEFT)), 10: ((_BOTTOM, _TOP),), 11: ((_BOTTOM, _LEFT),), 12: ((_LEFT, _RIGHT),),
    13: ((_TOP, _RIGHT),), 14: ((_LEFT, _TOP),),
}  # fmt: skip
_N_SEGMENTS = np.array([len(_SEGMENTS.get(case, ())) for case in range(16)])
_FROM, _TO = (
    np.array([[_SEGMENTS[case][k][end] if k < _N_SEGMENTS[case] else 0 for k in range(2)] for case in range(16)])
    for end in range(2)
)

_HULL_PASSES = 8


@dataclass(frozen=True)
class Loops:
    """Closed outlines, one after the other.

    Parameters
    ----------
    position : ndarray of float, shape (V, 2)
        Vertices (y, x); the first of a loop is not repeated at its end.
    start : ndarray of int, shape (L + 1,)
        Where each loop begins; the last element is V.
    owner : ndarray of int, shape (L,)
        Object id of each loop, ascending; loops of an object in raster order.
    """

    position: np.ndarray
    start: np.ndarray
    owner: np.ndarray

    @classmethod
    def of(cls, instances: np.ndarray) -> Loops:
        """Trace the outlines of all objects.

        Parameters
        ----------
        instances : ndarray of int, shape (Y, X)
            Object ids, 0 = none. Outside of the frame counts as outside of the object.

        Notes
        -----
        Vertices, order and first vertex are those of ``find_contours(instances == id, 0.5, fully_connected="high")``
        in scikit-image, with positions in pixels of `instances`.
        """
        padded = np.pad(instances, 1)
        width = padded.shape[1]
        begin, end, owner = _segments(padded)
        # Each vertex is the end of one segment and the beginning of the next: segments in the order of the vertices
        # where they begin, so that a vertex is the number of the segment that leaves it.
        order = np.argsort(begin, kind="stable")
        following = np.searchsorted(begin[order], end[order])
        arrival = np.empty(len(order), np.int64)  # in raster order, the segment that arrives at each vertex
        arrival[following] = order
        loop, rank = _walk(following, arrival)
        # Loops by object and by their first segment in raster order; vertices along each loop.
        n_loops = int(loop.max(initial=-1)) + 1
        first = np.full(n_loops, len(order))
        np.minimum.at(first, loop, order)
        owner_of = np.zeros(n_loops, owner.dtype)
        owner_of[loop] = owner[order]
        place = np.empty(n_loops, np.int64)
        place[np.lexsort((first, owner_of))] = np.arange(n_loops)
        along = np.lexsort((rank, place[loop]))
        crack = begin[order][along] // 2
        down, pixel = np.divmod(crack, padded.size)
        position = np.stack([pixel // width - 1 + 0.5 * down, pixel % width - 1 + 0.5 * (1 - down)], axis=1)
        sizes = np.bincount(place[loop], minlength=n_loops)
        return cls(position, np.concatenate([[0], np.cumsum(sizes)]), np.sort(owner_of))

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def sizes(self) -> np.ndarray:
        """Vertices of each loop."""
        return np.diff(self.start)

    @property
    def of_vertex(self) -> np.ndarray:
        """Loop of each vertex."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def select(self, which: np.ndarray) -> Loops:
        """Keep the loops for which `which`, shape (L,), is True."""
        sizes = self.sizes[which]
        return Loops(
            self.position[np.repeat(which, self.sizes)], np.concatenate([[0], np.cumsum(sizes)]), self.owner[which]
        )

    def smoothed(self, sigma: float, *, spacing: tuple[float, ...] = (1.0, 1.0)) -> Loops:
        """Smooth along each loop as `seg.metrics.interface.smooth_path` does, and scale."""
        margin = 2 * int(4 * sigma + 0.5)
        sizes = self.sizes + 2 * margin
        begin = np.cumsum(sizes) - sizes
        # Each loop with its own end before it and its own beginning after it.
        along = np.arange(int(sizes.sum())) - np.repeat(begin + margin, sizes)
        index = np.repeat(self.start[:-1], sizes) + along % np.repeat(self.sizes, sizes)
        blur = ndimage.gaussian_filter1d(self.position[index], sigma, axis=0)
        smooth = 2 * blur - ndimage.gaussian_filter1d(blur, sigma, axis=0)
        inner = np.arange(len(self.position)) + np.repeat(2 * margin * np.arange(len(self)) + margin, self.sizes)
        return Loops(smooth[inner] * np.asarray(spacing, float), self.start, self.owner)

    def areas(self) -> np.ndarray:
        """Signed area of each loop by the shoelace formula, shape (L,); holes are negative."""
        following = np.arange(1, len(self.position) + 1)
        following[self.start[1:] - 1] = self.start[:-1]
        # About the first vertex of each loop, so that nothing cancels far from the origin.
        y, x = (self.position - np.repeat(self.position[self.start[:-1]], self.sizes, axis=0)).T
        twice = y[following] * x - y * x[following]
        return np.bincount(self.of_vertex, weights=twice, minlength=len(self)) / 2

    def hulls(self) -> Loops:
        """Convex hull of each loop; its vertices run the way of the loop.

        Notes
        -----
        Where an outline turns the wrong way the vertex goes, which adds a triangle to what the outline goes around.
        When none is left and the outline turns round once, it is convex and holds all that it held before: it is the
        hull. What takes more than a few passes, or crossed itself on the way, is left to Qhull.
        """
        position, loop = self.position, self.of_vertex
        sign = np.where(self.areas() >= 0, 1.0, -1.0)
        for _ in range(_HULL_PASSES):
            wrong = sign[loop] * _turns(position, loop)[0] <= 0
            if not wrong.any():
                break
            # Neighbours do not go together: of a stretch of wrong turns every other one.
            index = np.arange(len(position))
            straight = np.maximum.accumulate(np.where(wrong, -1, index))
            goes = wrong & ((index - straight) % 2 == 1)
            begins, ends = _ends(loop)
            goes[ends] &= ~goes[begins]
            position, loop = position[~goes], loop[~goes]
        cross, dot = _turns(position, loop)
        turned = sign * np.bincount(loop, weights=np.arctan2(cross, dot), minlength=len(self)) / (2 * np.pi)
        doubtful = np.abs(turned - 1) > 0.01
        doubtful[loop[sign[loop] * cross <= 0]] = True
        start = np.concatenate([[0], np.cumsum(np.bincount(loop, minlength=len(self)))])
        found = Loops(position, start, self.owner)
        return found._replaced(np.flatnonzero(doubtful), self, sign) if doubtful.any() else found

    def _replaced(self, which: np.ndarray, whole: Loops, sign: np.ndarray) -> Loops:
        """Take the hulls of some loops from Qhull."""
        from scipy.spatial import ConvexHull, QhullError

        parts = np.split(self.position, self.start[1:-1])
        for k in which:
            points = whole.position[whole.start[k] : whole.start[k + 1]]
            try:  # counter-clockwise, as loops with a positive area are in (x, y)
                parts[k] = points[:, ::-1][ConvexHull(points[:, ::-1]).vertices][:: int(sign[k]), ::-1]
            except QhullError:  # all on one line
                parts[k] = points
        return Loops(np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts])]), self.owner)

    def diameters(self) -> np.ndarray:
        """Largest distance between two vertices of each loop, which must be convex; shape (L,).

        Notes
        -----
        The two lie on parallel lines that hold the loop between them; turned until one of them lies on an edge, the
        other still goes through the same vertex. So it is enough to look, for each edge, at the vertex furthest from
        it: where the direction of the edges has turned by half a turn.
        """
        loop = self.of_vertex
        after = _neighbours(loop)[1]
        angle = np.abs(np.arctan2(*_turns(self.position, loop)))
        angle[self.start[:-1]] = 0  # turned since the first edge of the loop
        turned = np.cumsum(angle)
        turned -= np.repeat(turned[self.start[:-1]], self.sizes)
        # Two rounds of each loop, so that half a turn further is always in it.
        key = np.concatenate([turned, turned + 2 * np.pi]) + 20.0 * np.concatenate([loop, loop])
        order = np.argsort(key, kind="stable")
        far = np.searchsorted(key[order], turned + np.pi + 20.0 * loop)
        vertex = np.concatenate([np.arange(len(loop))] * 2)[order]
        longest = np.zeros(len(self))
        for step in (-1, 0, 1):  # edges that are parallel but for rounding
            other = vertex[np.clip(far + step, 0, len(vertex) - 1)]
            same = loop[other] == loop
            for end in (np.arange(len(loop)), after):
                apart = np.linalg.norm(self.position[end] - self.position[other], axis=1)
                np.maximum.at(longest, loop[same], apart[same])
        return longest


def _segments(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces of outline in all squares of four pixels: beginning, end and object, in raster order.

    A vertex is a crack between two pixels and the side that is inside: ``2 * crack + side``, where the crack is the
    flat index of the first of the pixels, plus the number of pixels where the second lies below it.
    """
    width, size = padded.shape[1], padded.size
    flat = padded.ravel()
    differ = flat[:-1] != flat[1:]  # the margin is 0: nothing differs over the end of a row
    mixed = flat[: size - width - 1] != flat[width : size - 1]
    mixed |= differ[: size - width - 1]
    mixed |= differ[width:]
    square = np.flatnonzero(mixed)
    corners = flat[square[:, None] + np.array([0, 1, width, width + 1])]
    inside = corners[:, :, None] == corners[:, None, :]  # (M, whose, corner)
    # Each object once per square: where none of the corners before is of the same.
    first = (corners > 0) & ~np.stack([inside[:, k, :k].any(axis=1) for k in range(4)], axis=1)
    where, whose = np.nonzero(first)
    case = inside[where, whose] @ np.array([1, 2, 4, 8])
    double = _N_SEGMENTS[case] == 2
    repeated = np.repeat(np.arange(len(case)), _N_SEGMENTS[case])
    second = np.zeros(len(repeated), int)
    second[np.flatnonzero(double) + np.cumsum(double)[double]] = 1
    where, whose, case = where[repeated], whose[repeated], case[repeated]
    corner = square[where]

    def vertex(side: np.ndarray) -> np.ndarray:
        # The pixels on either side: top (ul, ur), right (ur, lr), bottom (ll, lr), left (ul, ll).
        pixel = corner + np.array([0, 1, width, 0])[side]
        below = np.array([0, size, 0, size])[side]
        second_inside = (case & np.array([2, 8, 8, 4])[side]) > 0
        return np.asarray(2 * (pixel + below) + second_inside)

    return vertex(_FROM[case, second]), vertex(_TO[case, second]), corners[where, whose]


def _walk(following: np.ndarray, arrival: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the loop of each vertex, and its place along it; a loop begins where its last segment arrives."""
    n = len(following)
    # Pointer jumping: after k rounds each vertex knows the 2^k vertices that follow it.
    latest, jump = arrival, following
    while True:
        later = np.maximum(latest, latest[jump])
        if (later == latest).all():
            break
        latest, jump = later, jump[jump]
    first = latest == arrival
    loop = np.zeros(n, np.int64)
    numbers = np.zeros(n, np.int64)
    numbers[arrival[first]] = np.arange(int(first.sum()))
    loop = numbers[latest]
    # Steps from each vertex to the beginning of its loop.
    steps, jump = np.where(first, 0, 1), np.where(first, np.arange(n), following)
    while True:
        further = steps + steps[jump]
        if (further == steps).all():
            break
        steps, jump = further, jump[jump]
    return loop, -steps % np.maximum(np.bincount(loop)[loop] if n else 1, 1)


def _turns(position: np.ndarray, loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cross product (positive to the left) and scalar product of the edges that meet at each vertex."""
    before, after = _neighbours(loop)
    here, ahead = position - position[before], position[after] - position
    cross = here[:, 1] * ahead[:, 0] - here[:, 0] * ahead[:, 1]
    return cross, here[:, 0] * ahead[:, 0] + here[:, 1] * ahead[:, 1]


def _neighbours(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices before and after each one along its loop."""
    index = np.arange(len(loop))
    before, after = index - 1, index + 1
    begins, ends = _ends(loop)
    before[begins], after[ends] = ends, begins
    return before, after


def _ends(loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last vertex of each loop."""
    ends = np.flatnonzero(np.append(loop[1:] != loop[:-1], True)[: len(loop)])
    return np.append(0, ends + 1)[: len(ends)], ends
