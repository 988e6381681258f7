"""What single branches of a skeleton look like: the angles at which they part, and their width along themselves."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from seg.metrics.interface import smooth_path
from seg.metrics.skeleton import SMOOTHING_PX, Graph, half_width_at, half_widths_along, shortest_paths

# Directions are those of the path from 5 to 20 px off the node, further off where the junction is wider.
NEAR_PX, FAR_PX = 5.0, 20.0
# A shorter piece of that stretch has no direction.
LEAST_PX = 4.0
# The distance map jumps by half a pixel from one step of a path to the next; widths are averaged over this many.
GRID_NOISE_STEPS = 3.0
# What the distance map is off by, and no more.
MOST_SHIFT_PX = 1.5
# 95 % of a single angle between straight branches of 4 to 12 px width, drawn in any direction.
ANGLE_ERROR_DEG = 3.0


def branch_angles(graph: Graph, half_width: np.ndarray, roots: list[int]) -> list[float]:
    """Angle between the two daughters at every junction of three, in degrees.

    Parameters
    ----------
    graph : Graph
        Pruned.
    half_width : ndarray of float, shape ([Z,] Y, X)
        Physical distance of each pixel of the mask to its outside.
    roots : list of int
        Nodes where the object begins. The daughters are the two paths that lead away from the nearest root. Without a
        root they are the pair with the smallest angle: the one between a side branch and the trunk that goes on.

    Notes
    -----
    Junctions of four and more paths are left out: in a projection they are crossings. So are those where a path is too
    short to have a direction outside of the junction. Directions are first principal axes of the smoothed path.
    """
    lengths = graph.lengths()
    to_root: dict[int, float] = {}
    for root in roots:
        for node, distance in shortest_paths(graph, lengths, root).items():
            to_root[node] = min(distance, to_root.get(node, math.inf))
    found = []
    for node in graph.junctions:
        ends = [edge for edge in graph.at_node[node] if graph.edges[edge][0] != graph.edges[edge][1]]
        if graph.degree(node) != 3 or len(ends) != 3:
            continue
        directions = [_direction(graph, edge, node, half_width_at(half_width, graph.nodes[node])) for edge in ends]
        if any(way is None for way in directions):
            continue
        ways = np.array(directions)
        angles = np.degrees(np.arccos(np.clip(ways @ ways.T, -1, 1)))[[1, 0, 0], [2, 2, 1]]  # opposite of each path
        if node in to_root:
            across = [graph.edges[e][1] if graph.edges[e][0] == node else graph.edges[e][0] for e in ends]
            parent = int(np.argmin([to_root[other] + lengths[e] for other, e in zip(across, ends, strict=True)]))
            found.append(float(angles[parent]))
        else:
            found.append(float(angles.min()))
    return found


def _direction(graph: Graph, edge: int, node: int, junction: float) -> np.ndarray | None:
    """Unit vector of a path away from a node of the given half width; None where the path is too short."""
    start, _, path = graph.edges[edge]
    path = path if start == node else path[::-1]
    pixel = math.prod(graph.spacing) ** (1 / len(graph.spacing))
    scale = np.asarray(graph.spacing)
    smooth = (smooth_path(path, sigma=SMOOTHING_PX, shrink_free=False) if len(path) > 2 else path) * scale
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(smooth, axis=0), axis=1))])
    near = max(NEAR_PX * pixel, 1.5 * junction)
    inside = (along >= near) & (along <= near + (FAR_PX - NEAR_PX) * pixel)
    if inside.sum() < 2 or np.ptp(along[inside]) < LEAST_PX * pixel:
        return None
    piece = smooth[inside]
    axis = np.linalg.svd(piece - piece.mean(axis=0), full_matrices=False)[2][0]
    return np.asarray(axis if axis @ (piece[-1] - piece[0]) > 0 else -axis)


def widths_along(graph: Graph, half_width: np.ndarray, *, mean_width: float) -> tuple[np.ndarray, np.ndarray]:
    """Width of the branches at every step along their centre lines, and the length that each value stands for.

    Parameters
    ----------
    graph : Graph
        Pruned.
    half_width : ndarray of float, shape ([Z,] Y, X)
    mean_width : float
        Width of the whole object from its size and length.

    Notes
    -----
    Twice the distance map reads 0.4 px too wide in the plane and 0.45 px too narrow in a volume, because it runs from
    centre to centre of pixels that lie beside the true axis. The error is nearly the same all along a branch, so the
    whole curve is shifted until its mean (in a volume: that of its square) is the one of `mean_width`, which has no
    such error; by 1.5 px at most: where they differ by more, the object is no set of branches but a mesh or a blot, and
    the distance map says its width. Steps within the half width of a junction, where the distance map is not that of
    one branch, are left out.
    """
    scale, ndim = np.asarray(graph.spacing), len(graph.spacing)
    values, weights, junctions = [], [], set(graph.junctions)
    for start, end, path in graph.edges.values():
        steps = np.linalg.norm(np.diff(path * scale, axis=0), axis=1)
        if not len(steps):
            continue
        along = np.concatenate([[0.0], np.cumsum(steps)])
        weight = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
        clear = np.ones(len(path), bool)
        for node, from_node in ((start, along), (end, along[-1] - along)):
            if node in junctions:
                clear &= from_node >= half_width_at(half_width, graph.nodes[node])
        if clear.any():
            double = 2 * half_widths_along(half_width, path)
            values.append(ndimage.gaussian_filter1d(double, GRID_NOISE_STEPS, mode="nearest")[clear])
            weights.append(weight[clear])
    if not values or not mean_width > 0:
        return np.zeros(0), np.zeros(0)
    widths, lengths = np.concatenate(values), np.concatenate(weights)
    power = ndim - 1
    shift = mean_width - float(np.average(widths, weights=lengths))
    for _ in range(20 if power > 1 else 0):  # Newton's steps; in the plane the first guess is the answer
        moved = np.maximum(widths + shift, 0)
        miss = float(np.average(moved**power, weights=lengths)) - mean_width**power
        slope = power * float(np.average(moved ** (power - 1), weights=lengths))
        shift -= miss / slope if slope > 0 else 0.0
    pixel = math.prod(graph.spacing) ** (1 / ndim)
    shift = min(max(shift, -MOST_SHIFT_PX * pixel), MOST_SHIFT_PX * pixel)
    return np.maximum(widths + shift, 0), lengths


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """Quantiles of values that stand for different lengths; NaN where there are none."""
    if not len(values):
        return [math.nan] * len(shares)
    order = np.argsort(values)
    below = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    return [float(np.interp(share, below, values[order])) for share in shares]
