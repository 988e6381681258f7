"""Fractal trees by diffusion-limited aggregation, as branches whose lengths and forks are known.

Walkers come from far away and stick to the first particle they meet (T. A. Witten, L. M. Sander, Phys. Rev. Lett. 47
(1981) 1400). The radius of a particle is half of the step, so no two are closer than that step; with bonds thinner
than the step by a gap, bonds that are no neighbours never touch, and the drawn tree has the topology of the cluster.
"""

from __future__ import annotations

import math

import numpy as np

from seg.synthetic.branches import Branch, Habit

_WALKERS = 48
_MOST_PARTICLES = 1500


def grow_aggregate(rng: np.random.Generator, habit: Habit) -> list[Branch]:
    """Bonds of clusters that start at the roots of `habit` and grow until one reaches its length, in order.

    The particles arrive evenly over the growth, as charge does at a constant current.
    """
    # Bonds from one particle pass others at no less than sqrt(3)/2 steps.
    step = (habit.width_um + habit.gap_um) / (math.sqrt(3) / 2)
    points, parents, trees = _aggregate(rng, habit, step)
    made = [k for k in range(len(points)) if parents[k] >= 0]
    index = {k: i for i, k in enumerate(made)}
    share = 0.01 * habit.full_um  # of the growth that one bond takes
    branches: list[Branch] = []
    for i, k in enumerate(made):
        parent = index.get(parents[k], -1)
        start = habit.full_um * 0.99 * i / len(made)
        if parent >= 0:
            start = max(start, branches[parent].start_um + share)
        elif (
            habit.from_above and (first := next((j for j in range(i) if trees[made[j]] == trees[k]), None)) is not None
        ):
            # All but the first bond of a root hang on that one: `Branch.parent` names branches, not roots.
            parent = first
        line = np.array([points[parents[k]], points[k]])
        branches.append(Branch(line, habit.width_um, start, step / share, parent, trees[k]))
    return branches


def _aggregate(rng: np.random.Generator, habit: Habit, step: float) -> tuple[np.ndarray, list[int], list[int]]:
    """Positions, parents (-1: a root) and trees of the particles, in the order of their arrival."""
    roots = habit.roots(rng)
    points = np.full((_MOST_PARTICLES, 2), np.inf)
    parents, trees = [-1] * len(roots), list(range(1, len(roots) + 1))
    points[: len(roots)] = roots
    sticky = np.full(_MOST_PARTICLES, habit.from_above)
    sticky[len(roots) :] = True
    count = len(roots)
    if not habit.from_above:  # a trunk of one bond, so that a tree leaves the electrode at one place
        points[count : 2 * count] = roots - [step, 0]
        parents += list(range(count))
        trees += trees
        count *= 2
    if not count:
        return points[:0], [], []
    low = np.full(2, habit.width_um / 2 + 2 * max(habit.pixel_um))
    high = np.asarray(habit.field_um) - low
    if not habit.from_above:
        high[0] = habit.surface_um - step

    walkers = _launch(rng, habit, points[:count], _WALKERS)
    for _ in range(200 * _MOST_PARTICLES):
        away = np.linalg.norm(walkers[:, None] - points[None, :count], axis=2)
        nearest, distance = away.argmin(axis=1), away.min(axis=1)
        for w in np.flatnonzero(distance < 1.1 * step):
            k = int(nearest[w])
            place = points[k] + (walkers[w] - points[k]) * step / distance[w]
            others = np.delete(np.linalg.norm(points[:count] - place, axis=1), k)
            free = not len(others) or others.min() >= 0.999 * step
            if sticky[k] and free and (place > low).all() and (place < high).all():
                points[count] = place
                parents.append(k)
                trees.append(trees[k])
                count += 1
                grown = np.hypot(*(place - roots[trees[k] - 1])) if habit.from_above else habit.surface_um - place[0]
                if count == _MOST_PARTICLES or grown >= habit.full_um:
                    return points[:count], parents, trees
            walkers[w] = _launch(rng, habit, points[:count], 1)[0]
            distance[w] = 2 * step
        # Jumps as long as the way to the nearest particle is free do not change where a walker arrives.
        turn = rng.uniform(0, 2 * math.pi, len(walkers))
        jump = np.maximum(distance - step, 0.1 * step)[:, None]
        walkers = walkers + jump * np.column_stack([np.sin(turn), np.cos(turn)])
        walkers[:, 1] = _mirrored(walkers[:, 1], habit.field_um[1])
        if habit.from_above:
            walkers[:, 0] = _mirrored(walkers[:, 0], habit.field_um[0])
        else:
            walkers[:, 0] = np.minimum(walkers[:, 0], 2 * habit.surface_um - walkers[:, 0])
            lost = walkers[:, 0] < points[:count, 0].min() - 2 * habit.field_um[1]
            if lost.any():
                walkers[lost] = _launch(rng, habit, points[:count], int(lost.sum()))
    return points[:count], parents, trees


def _launch(rng: np.random.Generator, habit: Habit, points: np.ndarray, count: int) -> np.ndarray:
    """Walkers far from the clusters: above them all, or on the border of the field."""
    height, width = habit.field_um
    if not habit.from_above:
        top = points[:, 0].min() - 0.2 * width
        return np.column_stack([np.full(count, top), rng.uniform(0, width, count)])
    along = rng.uniform(0, 2 * (height + width), count)
    y = np.select([along < width, along < width + height, along < 2 * width + height],
                  [0.0, along - width, height], 2 * (width + height) - along)  # fmt: skip
    x = np.select([along < width, along < width + height, along < 2 * width + height],
                  [along, width, along - width - height], 0.0)  # fmt: skip
    return np.column_stack([y, x])


def _mirrored(values: np.ndarray, size: float) -> np.ndarray:
    """Positions reflected at 0 and at `size`."""
    folded = np.mod(values, 2 * size)
    return np.minimum(folded, 2 * size - folded)
