"""Trees of bent branches that never touch: needles, columns, ferns and crowns, from an electrode or on a surface."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Branch:
    """A bent branch.

    Parameters
    ----------
    points : ndarray (n, 2)
        Centre line (y, x), µm, from the parent's centre line (trunk: from the surface) to the tip.
    width_um : float
    start_um : float
        How far the trunk's tip has come when the branch starts.
    speed : float
        Its velocity in units of the trunk's.
    parent : int
        Index of its parent; -1 for a trunk.
    tree : int
        Id of the dendrite.
    """

    points: np.ndarray
    width_um: float
    start_um: float
    speed: float
    parent: int
    tree: int

    @property
    def full_length_um(self) -> float:
        """Length of the centre line when grown out."""
        return length_of(self.points)

    def visible(self, grown_um: float) -> np.ndarray:
        """Centre line as far as it has grown when the trunk's tip has come `grown_um`; empty before its start."""
        length = (grown_um - self.start_um) * self.speed
        if length <= 0:
            return np.empty((0, 2))
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.points, axis=0).T))])
        if length >= along[-1]:
            return self.points
        keep = along < length
        end = [np.interp(length, along, self.points[:, axis]) for axis in range(2)]
        return np.vstack([self.points[keep], end])


def length_of(line: np.ndarray) -> float:
    """Length of a polyline."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum()) if len(line) > 1 else 0.0


def distance_to_segments(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Distances of points (P, 2) to segments (S, 2); shape (P, S)."""
    along = ends - starts
    away = points[:, None] - starts[None]
    share = np.clip((away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30), 0, 1)
    return np.linalg.norm(away - share[..., None] * along, axis=-1)


@dataclass(frozen=True)
class Habit:
    """How trees grow, and where.

    Parameters
    ----------
    kind : str
        ``"needle"``, ``"columnar"``, ``"fern"`` or ``"crown"``.
    field_um, pixel_um : (float, float)
        (y, x).
    surface_um : float
        Height y of the electrode that trunks stand on; infinite where the trees lie on a surface seen from above and
        several arms leave each root.
    n_trees, orders : int
    width_um, full_um, side_angle_deg : float
        Diameter of trunks, length of the longest one, direction of side branches.
    """

    kind: str
    field_um: tuple[float, float]
    pixel_um: tuple[float, float]
    surface_um: float
    n_trees: int
    orders: int
    width_um: float
    full_um: float
    side_angle_deg: float

    @property
    def from_above(self) -> bool:
        """Whether the trees lie on a surface seen from above."""
        return math.isinf(self.surface_um)

    @property
    def gap_um(self) -> float:
        """Clear space between branches, so that a mask can resolve them."""
        return 4.5 * max(self.pixel_um)

    @property
    def trunk_um(self) -> float:
        """Length of the longest trunk; the height of a crown comes from its splits."""
        return (0.38 if self.kind == "crown" else 1.0) * self.full_um

    def roots(self, rng: np.random.Generator) -> np.ndarray:
        """Where the trees start (y, x): side by side on the electrode, or well apart on the surface."""
        n, (height, width) = self.n_trees, self.field_um
        if not self.from_above:
            x = (np.arange(n) + 0.5 + rng.uniform(-0.16, 0.16, n)) / max(n, 1) * width
            return np.column_stack([np.full(n, self.surface_um), x])
        found: list[np.ndarray] = []
        apart = 0.75 * math.sqrt(height * width / max(n, 1))
        while len(found) < n:
            place = rng.uniform(0.12, 0.88, 2) * self.field_um
            if all(np.hypot(*(place - other)) > apart for other in found):
                found.append(place)
            else:
                apart *= 0.98
        return np.array(found).reshape(-1, 2)


def grow_branches(rng: np.random.Generator, habit: Habit) -> list[Branch]:
    """Branches of all trees; what starts first is laid first, and what comes later has to give way."""
    n = habit.n_trees
    roots = habit.roots(rng)
    heads = rng.permutation(np.linspace(1.0, 0.8 if habit.kind == "columnar" else 0.55, n)) if n > 1 else np.ones(1)
    lean = 0.03 if habit.kind == "columnar" else 0.10
    todo: list[tuple[float, int, tuple]] = []
    for k in range(n):
        turn = rng.uniform(0, 2 * math.pi) if habit.from_above else math.pi / 2 + rng.normal(0, lean)
        trunk = (tuple(roots[k]), turn, habit.trunk_um * heads[k], 0, float(heads[k]), -1, k + 1)
        heapq.heappush(todo, (0.0, k, trunk))
    laid: list[Branch] = []
    serial = n
    while todo and len(laid) < 400:
        start, _, (point, heading, length, order, speed, parent, tree) = heapq.heappop(todo)
        width = habit.width_um * 0.8**order
        line = _line(rng, habit, np.asarray(point, float), heading, length, width, laid, parent)
        # A stub shorter than this would not stand out of its parent.
        if length_of(line) < 1.5 * width + 5 * max(habit.pixel_um):
            continue
        laid.append(Branch(line, width, start, speed, parent, tree))
        me = len(laid) - 1
        following = _children(rng, habit, laid[me], order, tree, me)
        if parent < 0 and habit.from_above:
            following = _arms(rng, habit, laid[me], heading, tree, me) + following
        for child in following:
            serial += 1
            heapq.heappush(todo, (child[0], serial, child[1]))
    return laid


def _line(
    rng: np.random.Generator,
    habit: Habit,
    point: np.ndarray,
    heading: float,
    length: float,
    width: float,
    laid: list[Branch],
    parent: int,
) -> np.ndarray:
    """Centre line up to where it would leave the field or come too close to another branch."""
    pixel = max(habit.pixel_um)
    step = max(2.0 * width, 4 * pixel)
    n = max(1, math.ceil(length / step))
    bend = {"needle": 0.0, "columnar": 0.02}.get(habit.kind, 0.07)
    kink = habit.kind == "needle" and rng.uniform() < 0.6
    kink_at = int(rng.integers(1, n)) if kink and n > 2 else -1
    others = [b for k, b in enumerate(laid) if k != parent]
    # Branches that leave one point together part in their first step.
    first_apart = [b for b in others if np.any(b.points[0] != point)]
    bodies = [_segments(first_apart), _segments(others)]
    line = [point]
    margin = width / 2 + 2 * pixel
    lowest = habit.field_um[0] - margin if habit.from_above else habit.surface_um - 1.2 * width
    for k in range(n):
        heading += rng.normal(0, bend)
        if k == kink_at:
            heading += rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
        tip = line[-1] + step * np.array([-math.sin(heading), math.cos(heading)])
        if not (margin < tip[0] < lowest and margin < tip[1] < habit.field_um[1] - margin):
            break
        starts, ends, reach = bodies[min(k, 1)]
        if len(starts):
            probe = np.linspace(line[-1], tip, 5)[1:]
            clear = distance_to_segments(probe, starts, ends) - reach - width / 2
            if clear.min() < habit.gap_um:
                break
        if parent >= 0 and k > 0:  # not back to its own parent either
            mother = laid[parent]
            away = distance_to_segments(tip[None], mother.points[:-1], mother.points[1:])
            if (away - mother.width_um / 2 - width / 2).min() < habit.gap_um:
                break
        line.append(tip)
    return np.array(line)


def _segments(branches: list[Branch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and half widths of all pieces of all branches."""
    if not branches:
        return np.empty((0, 2)), np.empty((0, 2)), np.empty(0)
    starts = np.concatenate([b.points[:-1] for b in branches])
    ends = np.concatenate([b.points[1:] for b in branches])
    return starts, ends, np.concatenate([np.full(len(b.points) - 1, b.width_um / 2) for b in branches])


def _arms(rng: np.random.Generator, habit: Habit, trunk: Branch, heading: float, tree: int, me: int) -> list[tuple]:
    """The other arms of a tree that lies on a surface: they start with the first one, at its root."""
    count = 3 if habit.kind in ("needle", "columnar") else int(rng.integers(4, 7))
    root, found = tuple(trunk.points[0]), []
    for k in range(1, count):
        turn = heading + 2 * math.pi * k / count + rng.normal(0, 0.08)
        length = habit.trunk_um * trunk.speed * rng.uniform(0.7, 1.0)
        found.append((0.0, (root, turn, length, 0, trunk.speed, me, tree)))
    return found


def _children(rng: np.random.Generator, habit: Habit, branch: Branch, order: int, tree: int, me: int) -> list[tuple]:
    """Side branches to come: start, and the arguments they are laid with."""
    if order >= habit.orders or habit.kind in ("needle", "columnar"):
        return []
    length, found = branch.full_length_um, []
    side = math.radians(habit.side_angle_deg)
    if habit.kind == "crown":
        last = branch.points[-1] - branch.points[-2]
        turn = math.atan2(-last[0], last[1])
        begin = branch.start_um + length / branch.speed
        for sign in (-1, 1):
            aside = turn + sign * 0.6 * side * rng.uniform(0.8, 1.2)
            child = (tuple(branch.points[-1]), aside, 0.75 * length * rng.uniform(0.7, 1.1))
            found.append((begin, (*child, order + 1, branch.speed, me, tree)))
        return found
    spacing = 2.2 * (habit.width_um * 0.8 ** (order + 1) + habit.gap_um)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(branch.points, axis=0).T))])
    at = spacing * rng.uniform(0.8, 1.2)
    sign = rng.choice([-1, 1])
    while at < length - spacing:
        point = tuple(float(np.interp(at, along, branch.points[:, axis])) for axis in range(2))
        piece = min(int(np.searchsorted(along, at)), len(along) - 1)
        way = branch.points[piece] - branch.points[piece - 1]
        turn = math.atan2(-way[0], way[1]) + sign * side * rng.uniform(0.85, 1.15)
        begin = branch.start_um + at / branch.speed + 0.6 * spacing
        reach = 0.62 * (length - at) + spacing
        found.append((begin, (point, turn, reach, order + 1, 0.6 * branch.speed, me, tree)))
        sign = -sign
        at += spacing * rng.uniform(0.55, 0.8)
    return found


def grow_rods(rng: np.random.Generator, habit: Habit) -> list[Branch]:
    """Separate particles, seen from above, that start as balls and become rods."""
    laid: list[Branch] = []
    pixel = max(habit.pixel_um)
    for k in range(40 * habit.n_trees):
        if len(laid) == habit.n_trees:
            break
        width = habit.width_um * math.exp(rng.normal(0, 0.12)) * 0.995 ** (k - len(laid))
        length, turn = habit.full_um * rng.uniform(0.5, 1.0), rng.uniform(0, 2 * math.pi)
        start = rng.uniform(0, 1, 2) * habit.field_um
        ends = np.array([start, start + length * np.array([math.sin(turn), math.cos(turn)])])
        margin = width / 2 + 2 * pixel
        if (ends < margin).any() or (ends > np.asarray(habit.field_um) - margin).any():
            continue
        probe = np.linspace(*ends, 2 + math.ceil(length / width))
        starts, stops, reach = _segments(laid)
        # The other's axis may come close between two probes: half of their distance, a quarter of a width, is enough.
        free = distance_to_segments(probe, starts, stops) - reach - 0.75 * width
        if free.size and free.min() < habit.gap_um:
            continue
        # A ball at the start: a rod of hardly any length.
        laid.append(Branch(ends, width, -1e-6 * habit.full_um, length / habit.full_um, -1, len(laid) + 1))
    return laid


def rod_aspect_ratio(length_um: float, width_um: float) -> float:
    """Long over short axis of the ellipse with the second moments of a rod with round ends.

    Parameters
    ----------
    length_um, width_um : float
        Of the straight part; diameter of the ends.
    """
    r, half = width_um / 2, length_um / 2
    # Rectangle, and two half discs whose centroid lies 4 r / (3 pi) outside of its ends.
    across = 2 * half * (2 * r) ** 3 / 12 + math.pi * r**4 / 4
    out = 4 * r / (3 * math.pi)
    own = math.pi * r**4 / 4 - math.pi * r**2 * out**2  # of both half discs about their own centroids
    along = 2 * r * (2 * half) ** 3 / 12 + own + math.pi * r**2 * (half + out) ** 2
    return math.sqrt(along / across)
