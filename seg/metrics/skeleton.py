"""Centre lines of ramified objects as a graph of smoothed paths: pruned, with physical lengths, in 2-D and 3-D."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from seg.metrics.interface import smooth_path

SMOOTHING_PX = 2.0
# A spur is an end path no longer than the half width of the branch it leaves plus this.
SPUR_EXTRA_PX = 2.0
# The skeleton of a mask must come within this many greatest half widths of each of its pixels.
COVERAGE_RADII = 1.8
# A few pixels at tips may stay further away; more than this share of a mask is a lost branch.
LOST_SHARE = 0.01
# Along a branch with a round end the half width is nearly constant up to the centre of that end.
TIP_SHARE = 0.85


@dataclass
class Graph:
    """A skeleton: nodes with positions, and paths between them.

    Parameters
    ----------
    nodes : dict of int to ndarray, shape (ndim,)
        Position of each leaf, junction and loop start, in pixels.
    edges : dict of int to (int, int, ndarray of shape (N, ndim))
        Start node, end node and path in pixels, from one to the other.
    spacing : tuple of float
    covered : bool
        False where a part of the mask has no skeleton near it.
    long_ends : bool
        True where end paths run into the tips, beyond the centre of a round end.
    """

    nodes: dict[int, np.ndarray]
    edges: dict[int, tuple[int, int, np.ndarray]]
    spacing: tuple[float, ...]
    covered: bool = True
    long_ends: bool = False
    at_node: dict[int, set[int]] = field(init=False)
    # Path and length of each edge that was asked for: smoothing is most of the work.
    measured: dict[int, tuple[np.ndarray, float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.at_node = defaultdict(set)
        for key, (start, end, _) in self.edges.items():
            self.at_node[start].add(key)
            self.at_node[end].add(key)

    def degree(self, node: int) -> int:
        """Count the path ends at a node; a loop counts twice."""
        return sum(2 if self.edges[e][0] == self.edges[e][1] else 1 for e in self.at_node[node])

    @property
    def leaves(self) -> list[int]:
        """Nodes where one path ends."""
        return [n for n in self.nodes if self.degree(n) == 1]

    @property
    def junctions(self) -> list[int]:
        """Nodes where three or more paths meet."""
        return [n for n in self.nodes if self.degree(n) >= 3]

    def length(self, edge: int) -> float:
        """Physical length of a path after smoothing (Gaussian of 2 px, ends fixed)."""
        path = self.edges[edge][2]
        if len(path) < 2:
            return 0.0
        if edge in self.measured and self.measured[edge][0] is path:
            return self.measured[edge][1]
        smooth = smooth_path(path, sigma=SMOOTHING_PX, shrink_free=False) if len(path) > 2 else path
        steps = np.diff(smooth * np.asarray(self.spacing), axis=0)
        length = float(np.sqrt((steps**2).sum(axis=1)).sum())
        self.measured[edge] = path, length
        return length

    def lengths(self) -> dict[int, float]:
        """Length of every path."""
        return {edge: self.length(edge) for edge in self.edges}


def skeleton_graph(mask: np.ndarray, *, spacing: Sequence[float]) -> Graph:
    """Skeleton of one object as a graph, junction pixels merged, nothing pruned.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float
        Pixel size along each axis; lengths follow it, thinning works on the grid.

    Notes
    -----
    Thinning in scikit-image loses bars of even width along an axis in 3-D altogether. Each 3-D skeleton is therefore
    checked (no voxel further than 1.8 greatest half widths from it). Where it fails it is made again from the mask
    grown by one voxel to one side, which turns even widths into odd ones but also odd into even: every choice of axes
    is tried. Where branches of both parities defeat them all, thinning runs on a grid of half the pixel size from a
    mask grown likewise, where every width is odd; its ends are then taken back by `prune`, because there they run
    into the tips.
    """
    padded = np.pad(mask, 2)
    tolerated = LOST_SHARE * np.count_nonzero(padded)
    axes = (2, 1, 0) if mask.ndim == 3 else ()
    for chosen in (c for n in range(len(axes) + 1) for c in combinations(axes, n)):
        skeleton = skeletonize(_grown(padded, chosen))
        if mask.ndim == 2 or _missed(padded, skeleton, spacing) <= tolerated:
            nodes, edges = _trace(skeleton)
            # The middle of a mask grown to one side lies half a pixel further.
            offset = np.array([2.5 if axis in chosen else 2.0 for axis in range(mask.ndim)])
            return _moved(nodes, edges, spacing, offset=offset)
    fine = padded
    for axis in range(3):
        fine = fine.repeat(2, axis=axis)
    nodes, edges = _trace(skeletonize(_grown(fine, axes)))
    # Pixel i became 2i and 2i + 1; the middle of both, grown by one, is 2i + 1. Every second vertex: steps of a pixel.
    nodes = {n: (p - 1) / 2 for n, p in nodes.items()}
    edges = {e: (a, b, (np.concatenate([p[:-1:2], p[-1:]]) - 1) / 2) for e, (a, b, p) in edges.items()}
    drawn = np.zeros(padded.shape, bool)
    for path in [*(p[None] for p in nodes.values()), *(p for _, _, p in edges.values())]:
        drawn[tuple(np.rint(path).astype(int).T)] = True
    covered = _missed(padded, drawn, spacing) <= tolerated
    return _moved(nodes, edges, spacing, offset=np.full(3, 2.0), covered=covered, long_ends=True)


def prune(graph: Graph, half_width: np.ndarray, *, factor: float = 1.0) -> Graph:
    """Remove spurs, shortest first: end paths up to ``factor * (half width at their junction + 2 px)`` long.

    `half_width` is the physical distance of each pixel of the mask to its outside. A junction left with two paths is
    dissolved into one. The last path of an object is never removed. Junctions closer together than the half width
    of the branch there are one crossing, and become one node.
    """
    lengths = graph.lengths()
    nodes, edges = dict(graph.nodes), dict(graph.edges)
    pruned = Graph(nodes, edges, graph.spacing, graph.covered, graph.long_ends, measured=dict(graph.measured))
    pixel = math.prod(graph.spacing) ** (1 / len(graph.spacing))
    next_edge = max(edges, default=-1) + 1

    def reach(node: int) -> float:
        return half_width_at(half_width, nodes[node])

    queue = [(lengths[e], e) for e in edges]
    heapq.heapify(queue)
    while queue:
        length, edge = heapq.heappop(queue)
        if edge not in edges:
            continue
        start, end, _ = edges[edge]
        if pruned.degree(start) != 1:
            start, end = end, start
        if pruned.degree(start) != 1 or pruned.degree(end) < 3:
            continue
        if length > factor * (reach(end) + SPUR_EXTRA_PX * pixel):
            continue
        _drop(pruned, edge)
        del nodes[start]
        if pruned.degree(end) == 2 and len(pruned.at_node[end]) == 2:
            merged = _dissolve(pruned, end, next_edge)
            lengths[merged] = pruned.length(merged)
            heapq.heappush(queue, (lengths[merged], merged))
            next_edge += 1
    for edge in sorted(edges, key=lambda e: lengths[e]):
        if edge not in edges:
            continue
        start, end, _ = edges[edge]
        both = start != end and pruned.degree(start) >= 3 and pruned.degree(end) >= 3
        if both and lengths[edge] <= max(reach(start), reach(end)):
            _contract(pruned, edge)
    if pruned.long_ends:
        _take_back_ends(pruned, half_width)
    return pruned


def shortest_paths(graph: Graph, lengths: dict[int, float], start: int) -> dict[int, float]:
    """Distance along the graph from one node to every node it reaches (Dijkstra)."""
    reached: dict[int, float] = {}
    queue = [(0.0, start)]
    while queue:
        distance, node = heapq.heappop(queue)
        if node in reached:
            continue
        reached[node] = distance
        for edge in graph.at_node[node]:
            a, b, _ = graph.edges[edge]
            other = b if a == node else a
            if other not in reached:
                heapq.heappush(queue, (distance + lengths[edge], other))
    return reached


def half_width_at(half_width: np.ndarray, position: np.ndarray) -> float:
    """Largest half width at the pixels next to a position between pixels."""
    box = tuple(
        slice(min(max(math.floor(p), 0), n - 1), min(max(math.ceil(p), 0), n - 1) + 1)
        for p, n in zip(position.tolist(), half_width.shape, strict=True)
    )
    return float(half_width[box].max())


def half_widths_along(half_width: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Largest half width at the pixels next to each position of a path; (N, ndim) gives (N,)."""
    last = np.array(half_width.shape) - 1
    corners = [np.clip(round_to(path).astype(int), 0, last) for round_to in (np.floor, np.ceil)]
    found = [half_width[tuple(corners[which][:, axis] for axis, which in enumerate(choice))]
             for choice in product((0, 1), repeat=half_width.ndim)]  # fmt: skip
    return np.asarray(np.max(found, axis=0))


def _missed(mask: np.ndarray, skeleton: np.ndarray, spacing: Sequence[float]) -> int:
    """Pixels of a mask that no skeleton pixel is near."""
    if not skeleton.any():
        return int(mask.sum())
    radius = ndimage.distance_transform_edt(mask, sampling=spacing).max()
    far = ndimage.distance_transform_edt(~skeleton, sampling=spacing) > COVERAGE_RADII * radius
    return int(np.count_nonzero(far & mask))


def _grown(mask: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Grow a mask by one pixel towards higher indices of some axes."""
    grown = mask.copy()
    for axis in axes:
        grown |= np.roll(grown, 1, axis=axis)
    return grown


def _moved(
    nodes: dict[int, np.ndarray],
    edges: dict[int, tuple[int, int, np.ndarray]],
    spacing: Sequence[float],
    *,
    offset: np.ndarray,
    covered: bool = True,
    long_ends: bool = False,
) -> Graph:
    """Make a graph in the pixels of the mask from one of a padded or grown mask."""
    nodes = {n: p - offset for n, p in nodes.items()}
    edges = {e: (a, b, path - offset) for e, (a, b, path) in edges.items()}
    return Graph(nodes, edges, tuple(spacing), covered, long_ends)


def _take_back_ends(graph: Graph, half_width: np.ndarray) -> None:
    """Cut end paths back to where the half width starts to fall, as ordinary thinning does."""
    for leaf in graph.leaves:
        (edge,) = graph.at_node[leaf]
        start, end, path = graph.edges[edge]
        path = path[::-1] if end == leaf else path
        widths = half_widths_along(half_width, path)
        first = min(int(np.argmax(widths >= TIP_SHARE * np.median(widths))), max(len(path) - 2, 0))
        path = path[first:]
        graph.nodes[leaf] = path[0]
        graph.edges[edge] = (start, end, path[::-1] if end == leaf else path)


def _trace(skeleton: np.ndarray) -> tuple[dict[int, np.ndarray], dict[int, tuple[int, int, np.ndarray]]]:
    """Nodes and paths of a skeleton image; touching junction pixels become one node at their mean."""
    from skan import Skeleton

    at = np.argwhere(skeleton)
    if len(at) < 2:
        return {i: p.astype(float) for i, p in enumerate(at)}, {}
    # skan refuses a skeleton without a single path: isolated pixels only.
    ids, count = ndimage.label(skeleton, structure=np.ones((3,) * skeleton.ndim))
    sizes = np.bincount(ids.ravel())
    single = np.flatnonzero(sizes[1:] == 1) + 1
    nodes = {-int(i): np.argwhere(ids == i)[0].astype(float) for i in single}
    if len(single) == count:
        return nodes, {}
    traced = Skeleton(skeleton & ~np.isin(ids, single), keep_images=False)
    pixels = np.asarray(traced.coordinates)
    degree = np.asarray(traced.degrees)
    crowded = np.zeros(skeleton.shape, bool)
    crowded[tuple(pixels[degree > 2].astype(int).T)] = True
    clusters, n_clusters = ndimage.label(crowded, structure=np.ones((3,) * skeleton.ndim))
    for cluster, centre in enumerate(ndimage.center_of_mass(crowded, clusters, range(1, n_clusters + 1)), start=1):
        nodes[cluster] = np.asarray(centre, float)

    def node_of(pixel: int) -> int:
        cluster = int(clusters[tuple(pixels[pixel].astype(int))])
        node = cluster if cluster else n_clusters + 1 + pixel
        nodes.setdefault(node, pixels[pixel].astype(float))
        return node

    edges = {}
    for key in range(traced.n_paths):
        path_pixels = traced.path(key)
        start, end = node_of(int(path_pixels[0])), node_of(int(path_pixels[-1]))
        path = pixels[path_pixels].astype(float)
        if start == end and len(path) <= 4 and start <= n_clusters:
            continue
        path[0], path[-1] = nodes[start], nodes[end]
        edges[key] = (start, end, path)
    return nodes, edges


def _drop(graph: Graph, edge: int) -> None:
    start, end, _ = graph.edges.pop(edge)
    graph.at_node[start].discard(edge)
    graph.at_node[end].discard(edge)


def _add(graph: Graph, edge: int, start: int, end: int, path: np.ndarray) -> None:
    graph.edges[edge] = (start, end, path)
    graph.at_node[start].add(edge)
    graph.at_node[end].add(edge)


def _dissolve(graph: Graph, node: int, key: int) -> int:
    """Join the two paths at a node into the path `key`."""
    first, second = sorted(graph.at_node[node])
    a, b, one = graph.edges[first]
    c, d, two = graph.edges[second]
    if a == node:
        a, b, one = b, a, one[::-1]
    if d == node:
        c, d, two = d, c, two[::-1]
    _drop(graph, first)
    _drop(graph, second)
    del graph.nodes[node]
    _add(graph, key, a, d, np.concatenate([one, two[1:]]))
    return key


def _contract(graph: Graph, edge: int) -> None:
    """Merge the end of a path into its start; the other paths there are led to the merged node."""
    keep, gone, link = graph.edges[edge]
    _drop(graph, edge)
    middle = link[len(link) // 2]
    for node in (keep, gone):
        for other in list(graph.at_node[node]):
            a, b, path = graph.edges[other]
            path = path.copy()
            if a == node:
                a, path[0] = keep, middle
            if b == node:
                b, path[-1] = keep, middle
            _drop(graph, other)
            _add(graph, other, a, b, path)
    graph.nodes[keep] = middle
    del graph.nodes[gone]
