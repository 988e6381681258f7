"""Dendrites and filaments: length, tips, branch points, width, tortuosity and height, in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.skeleton import Graph, half_width_at, prune, shortest_paths, skeleton_graph
from seg.metrics.table import Measurement

SIDES = {"top": (-2, 0), "bottom": (-2, -1), "left": (-1, 0), "right": (-1, -1), "front": (-3, 0), "back": (-3, -1)}
# What smoothing and thinning leave in a length (bias and spread on drawn trees, see the tests).
LENGTH_ERROR = 0.02
# Thinning ends that far before the end of a branch, beyond the half width of its round tip.
END_PX = 1.0
# Area in units of width squared that branches share at a junction (measured at forks of 60-90 degrees).
JUNCTION_OVERLAP = 0.35
# A skeleton ends up to its half width plus this before a surface that its branch reaches.
REACH_PX = 3.0


@dataclass(frozen=True)
class Dendrite:
    """What the skeleton of one object says; lengths in the unit of the spacing.

    ``tip_range`` and ``branch_range`` hold the counts for half and double the spur limit. ``roots`` and ``cut`` count
    the ends at a root surface and at the frame border, which are not tips. ``tortuosity`` is path over chord, averaged
    over tips, from the nearest root (without a root: of the longest path); NaN where there is no path.
    """

    skeleton_length: float
    longest_path: float
    tip_count: int
    tip_range: tuple[int, int]
    branch_point_count: int
    branch_range: tuple[int, int]
    branch_width: float
    tortuosity: float
    roots: int
    cut: int
    loops: int
    covered: bool


def analyse_dendrite(
    mask: np.ndarray,
    *,
    spacing: Sequence[float],
    root: np.ndarray | None = None,
    border: np.ndarray | None = None,
) -> Dendrite:
    """Skeleton measures of one object.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
        The object. Holes of up to 3 px along each axis are filled first.
    spacing : sequence of float
        Pixel size along each axis.
    root : ndarray of bool, shape of `mask`, optional
        Pixels of the object that touch what it grew from. Of the skeleton ends near one patch of them, the nearest
        is the root.
    border : ndarray of bool, shape of `mask`, optional
        Pixels of the object at the frame border: ends there are cut.

    Notes
    -----
    Spurs up to the half width at their junction plus 2 px are pruned, shortest first. Every path is smoothed (Gaussian
    of 2 px, ends fixed) and gains 1 px at a tip, which thinning takes away, or the way to the surface at a root or a
    cut. The width w solves ``A = L w + (n pi / 8 - 0.35 m) w**2`` with n round tips and the area shared at m junctions
    (3-D: ``V = pi w**2 L / 4 + n pi w**3 / 12``).
    """
    mask = _fill_small_holes(mask)
    ndim, pixel = mask.ndim, math.prod(spacing) ** (1 / mask.ndim)
    # No background outside of the array: a branch cut by the frame keeps its half width up to there.
    half_width = ndimage.distance_transform_edt(mask, sampling=spacing)
    whole = skeleton_graph(mask, spacing=spacing)
    graph, *variants = (prune(whole, half_width, factor=f) for f in (1.0, 0.5, 2.0))
    tips, roots, cuts = _ends(graph, half_width, root, border)
    n_tips = [len(tips)] + [len(_ends(g, half_width, root, border)[0]) for g in variants]
    n_branches = [len(g.junctions) for g in (graph, *variants)]

    lengths = graph.lengths()
    core_length = sum(lengths.values())
    for tip in tips:
        (edge,) = graph.at_node[tip]
        lengths[edge] += END_PX * pixel
    longest, ends = _longest(graph, lengths)
    n_parts = ndimage.label(mask, structure=np.ones((3,) * ndim))[1]
    return Dendrite(
        skeleton_length=sum(lengths.values()),
        longest_path=longest,
        tip_count=n_tips[0],
        tip_range=(min(n_tips), max(n_tips)),
        branch_point_count=n_branches[0],
        branch_range=(min(n_branches), max(n_branches)),
        branch_width=_width(float(mask.sum()) * math.prod(spacing), core_length, len(tips), n_branches[0], ndim),
        tortuosity=_tortuosity(graph, tips, roots, ends),
        roots=len(roots),
        cut=len(cuts),
        loops=max(len(graph.edges) - len(graph.nodes) + n_parts, 0),
        covered=graph.covered,
    )


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("dendrite",),
    reference: str = "auto",
    root_classes: Sequence[str] = ("substrate", "deposit"),
    reference_classes: Sequence[str] = ("substrate",),
    min_object_px: int = 25,
) -> list[Measurement]:
    """Skeleton measures and height of each object (`object_id`) and of the frame.

    Parameters
    ----------
    frame : Frame
        Objects are connected regions (8 or 26 neighbours), whole: instances are split where they touch, which would
        cut branches. A region takes the id of the instance that fills most of it.
    classes : sequence of str
        What counts as dendrite.
    reference : str
        Where height starts: ``"substrate"`` (the pixels of `reference_classes`), a side of the frame (``"top"``,
        ``"bottom"``, ``"left"``, ``"right"``; ``"front"``, ``"back"`` along z), or ``"auto"``: the substrate where one
        is labelled, else the side that holds more than two thirds of the mask at the border, if the opposite side
        holds none.
    root_classes : sequence of str
        What a dendrite grows from; its end there is a root, not a tip.
    min_object_px : int
        Smaller objects are left out.

    Notes
    -----
    Frame rows: sums of lengths and counts, the greatest longest path and height, means of width and tortuosity weighted
    by length. Height is the distance of the outer face of the farthest pixel from the reference surface; NaN where
    there is no reference. Without an object lengths and counts are 0, the rest NaN.
    """
    mask = frame.mask(classes)
    ids = _object_ids(frame, mask, min_object_px)
    boxes = {i: b for i, b in enumerate(ndimage.find_objects(ids), start=1) if b is not None}
    base, name = _reference(frame, mask, reference, reference_classes)
    height = _heights(frame, ids, base, name)
    grown_from = frame.mask([c for c in root_classes if c in frame.schema.names and c not in classes])

    found: dict[int, Dendrite] = {}
    rows: list[Measurement] = []
    for object_id, box in boxes.items():
        cut_out = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        mine = ids[cut_out] == object_id
        border = mine & _border(frame.labels.shape)[cut_out]
        touching = mine & ndimage.binary_dilation(grown_from[cut_out], np.ones((3,) * mask.ndim))
        if name in SIDES:
            at_side = mine & _side(frame.labels.shape, name)[cut_out]
            touching, border = touching | at_side, border & ~at_side
        one = analyse_dendrite(mine, spacing=frame.scale.spacing, root=touching, border=border)
        found[object_id] = one
        rows += _rows(frame, [one], height.get(object_id, math.nan), name, classes, object_id=object_id,
                      touches=bool(border.any()))  # fmt: skip
    touches = bool((_border(ids.shape) & (ids > 0)).any())
    highest = max(height.values(), default=math.nan)
    return rows + _rows(frame, list(found.values()), highest, name, classes, touches=touches)


def _object_ids(frame: Frame, mask: np.ndarray, smallest: int) -> np.ndarray:
    """Ids of the connected regions of at least `smallest` pixels: that of the instance that fills most of each."""
    regions, n_regions = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    regions[(np.bincount(regions.ravel()) < smallest)[regions]] = 0
    if frame.instances is None:
        return regions
    inside = regions > 0
    pairs, counts = np.unique(
        np.stack([regions[inside], frame.instances[inside]]).astype(np.int64), axis=1, return_counts=True
    )
    ids = np.arange(n_regions + 1) + int(frame.instances.max(initial=0))
    ids[0] = 0
    for (region, instance), _ in sorted(zip(pairs.T.tolist(), counts.tolist(), strict=True), key=lambda p: p[1]):
        if instance:
            ids[region] = instance
    return ids[regions]


def _side(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Mark the outermost layer of pixels at one side of the frame."""
    axis, end = SIDES[name]
    layer = np.zeros(shape, bool)
    np.moveaxis(layer, axis, 0)[end] = True
    return layer


def _border(shape: tuple[int, ...]) -> np.ndarray:
    """Mark the outermost pixels of the frame on all sides."""
    layer = np.ones(shape, bool)
    layer[(slice(1, -1),) * len(shape)] = False
    return layer


def _reference(
    frame: Frame, mask: np.ndarray, reference: str, reference_classes: Sequence[str]
) -> tuple[np.ndarray | None, str]:
    """Find the reference pixels (None for a side or where there are none), and what to call them."""
    sides = [s for s, (axis, _) in SIDES.items() if -axis <= mask.ndim]
    if reference not in ("auto", "substrate", *sides):
        raise ValueError(f"reference={reference!r}; expected 'auto', 'substrate' or a side: {', '.join(sides)}.")
    if reference in sides:
        return None, reference
    base = frame.mask([c for c in reference_classes if c in frame.schema.names])
    if base.any():
        return base, "substrate"
    if reference == "auto":
        touched = {s: int((mask & _side(mask.shape, s)).sum()) for s in sides}
        best = max(touched, key=lambda s: touched[s])
        axis, end = SIDES[best]
        opposite = next(s for s in sides if SIDES[s][0] == axis and SIDES[s][1] != end)
        # Metal cut by two opposite sides of the view says nothing about where it grew from.
        if touched[best] > 2 / 3 * sum(touched.values()) and not touched[opposite]:
            return None, best
    return None, ""


def _heights(frame: Frame, ids: np.ndarray, base: np.ndarray | None, name: str) -> dict[int, float]:
    """Greatest distance of each object from the reference."""
    present = np.unique(ids[ids > 0])
    if not name or not len(present):
        return {}
    if base is not None:
        # From centre to centre, which is also from the upper face of the base to the upper face of the pixel.
        distance = ndimage.distance_transform_edt(~base, sampling=frame.scale.spacing)
    else:
        axis, end = SIDES[name]
        steps = np.arange(1, ids.shape[axis] + 1, dtype=float) * frame.scale.spacing[axis]
        shape = [1] * ids.ndim
        shape[axis] = -1
        distance = np.broadcast_to((steps if end == 0 else steps[::-1]).reshape(shape), ids.shape)
    return dict(zip(present.tolist(), map(float, ndimage.maximum(distance, ids, present)), strict=True))


def _fill_small_holes(mask: np.ndarray) -> np.ndarray:
    """Fill enclosed gaps of up to 3 px along each axis: below what an image resolves, they would become loops."""
    gaps, _ = ndimage.label(~mask)
    sizes = np.bincount(gaps.ravel())
    small = sizes <= 3**mask.ndim
    outside = np.unique(gaps[_border(mask.shape)])
    small[outside] = False
    small[0] = False
    return mask | small[gaps]


def _ends(
    graph: Graph, half_width: np.ndarray, root: np.ndarray | None, border: np.ndarray | None
) -> tuple[list[int], list[int], list[int]]:
    """Sort the leaves into tips, roots and cuts, and lead the paths of the latter two to the surface they reach."""
    scale = np.asarray(graph.spacing)
    pixel = math.prod(graph.spacing) ** (1 / len(graph.spacing))
    taken: list[list[int]] = [[], []]
    for where, ends in zip((root, border), taken, strict=True):
        if where is None or not where.any():
            continue
        patches, n_patches = ndimage.label(where, structure=np.ones((3,) * where.ndim))
        for patch in range(1, n_patches + 1):
            tree = KDTree(np.argwhere(patches == patch) * scale)
            free = [n for n in graph.leaves if n not in taken[0] and n not in taken[1]]
            near = []
            for leaf in free:
                distance = float(tree.query(graph.nodes[leaf] * scale)[0])
                if distance <= half_width_at(half_width, graph.nodes[leaf]) + REACH_PX * pixel:
                    near.append((distance, leaf))
            if near:
                leaf = min(near)[1]
                _lead_to(graph, leaf, tree, half_width)
                ends.append(leaf)
    roots, cuts = taken
    return [n for n in graph.leaves if n not in roots and n not in cuts], roots, cuts


def _lead_to(graph: Graph, leaf: int, surface: KDTree, half_width: np.ndarray) -> None:
    """Let the path of a leaf run straight to a surface over its last half width.

    Thinning bends a path into a corner of the flat end there, or stops short of it.
    """
    scale = np.asarray(graph.spacing)
    pixel = math.prod(graph.spacing) ** (1 / len(graph.spacing))
    (edge,) = graph.at_node[leaf]
    start, end, path = graph.edges[edge]
    backwards = end == leaf
    path = path[::-1] if backwards else path
    distance, nearest = surface.query(path * scale)
    # `surface` holds the outermost pixels of the object, whose outer faces are half a pixel further.
    reach = np.median([half_width_at(half_width, p) for p in path])
    inside = np.flatnonzero(distance + 0.5 * pixel >= reach)
    first = min(int(inside[0]) if len(inside) else len(path) - 1, len(path) - 2)
    origin = path[first] * scale
    foot = surface.data[nearest[first]]
    away = np.linalg.norm(foot - origin)
    foot = origin + (foot - origin) * (1 + 0.5 * pixel / away) if away > 0 else foot
    steps = max(int(np.linalg.norm(foot - origin) / pixel), 1)
    led = np.concatenate([np.linspace(foot, origin, steps, endpoint=False) / scale, path[first:]])
    graph.nodes[leaf] = led[0]
    graph.edges[edge] = (start, end, led[::-1] if backwards else led)


def _longest(graph: Graph, lengths: dict[int, float]) -> tuple[float, tuple[int, int] | None]:
    """Longest of the shortest paths between two nodes, and its ends; exact for trees, a lower bound with loops."""
    best, ends = 0.0, None
    seen: set[int] = set()
    for node in graph.nodes:
        if node in seen or not graph.at_node[node]:
            continue
        first = shortest_paths(graph, lengths, node)
        seen |= first.keys()
        start = max(first, key=lambda n: first[n])
        second = shortest_paths(graph, lengths, start)
        end = max(second, key=lambda n: second[n])
        if second[end] > best:
            best, ends = second[end], (start, end)
    return best, ends


def _tortuosity(
    graph: Graph, tips: list[int], roots: list[int], ends: tuple[int, int] | None
) -> float:  # fmt: skip
    """Path over chord, averaged over tips that a root reaches; of the longest path where there is no root."""
    lengths, scale = graph.lengths(), np.asarray(graph.spacing)
    starts = [(r, tips) for r in roots] or ([(ends[0], [ends[1]])] if ends else [])
    best: dict[int, tuple[float, float]] = {}
    for start, targets in starts:
        reach = shortest_paths(graph, lengths, start)
        for tip in targets:
            chord = float(np.linalg.norm((graph.nodes[tip] - graph.nodes[start]) * scale))
            if tip in reach and chord > 0 and reach[tip] < best.get(tip, (math.inf, 0.0))[0]:
                best[tip] = (reach[tip], chord)
    return float(np.mean([path / chord for path, chord in best.values()])) if best else math.nan


def _width(size: float, length: float, n_ends: int, n_branches: int, ndim: int) -> float:
    """Width of branches of the given total area or volume and length; NaN for nothing."""
    if size <= 0:
        return math.nan
    if length == 0:
        # No path at all: a disc or a ball, which is two round ends.
        n_ends, n_branches = 2, 0
    if ndim == 3:
        solutions = np.roots([n_ends * math.pi / 12, math.pi * length / 4, 0.0, -size])
        return float(max(solutions.real[np.abs(solutions.imag) <= 1e-9 * np.abs(solutions)]))
    bend = n_ends * math.pi / 8 - JUNCTION_OVERLAP * n_branches
    under_root = length**2 + 4 * bend * size
    if under_root < 0:
        # More overlap than branch: a mesh, where area over length is all there is.
        return size / length
    return 2 * size / (length + math.sqrt(under_root))


def _rows(
    frame: Frame, found: list[Dendrite], height: float, reference: str, classes: Sequence[str], *,
    object_id: int | None = None, touches: bool,
) -> list[Measurement]:  # fmt: skip
    """Write the metrics of one object, or of all objects of a frame, as rows."""
    scale = frame.scale
    pixel = scale.pixel ** (1 / frame.labels.ndim)
    edge = 1.96 * DIGITISATION_PX * pixel
    total = sum(d.skeleton_length for d in found)
    longest = max((d.longest_path for d in found), default=0.0)
    n_ends = sum(d.tip_count + d.roots + d.cut for d in found)
    width = _mean([d.branch_width for d in found], [d.skeleton_length for d in found])
    tortuosity = _mean([d.tortuosity for d in found], [d.skeleton_length for d in found])
    flags = scale.flags + (("touches-border",) if touches else ())
    flags += ("ambiguous",) if any(not d.covered for d in found) else ()
    thin = ("few-pixels",) if width < 4 * pixel else ()
    loops = sum(d.loops for d in found)
    skeleton = f"skeleton, spurs pruned, Gaussian 2 px; {loops} loop(s); interval: ends +-0.5 px, path 2 %"
    spurs = "interval: spur limit x0.5 to x2"
    um = scale.unit("um")

    def row(
        metric: str, value: float, low: float, high: float, unit: str, method: str, more: tuple[str, ...] = ()
    ) -> Measurement:
        return Measurement(
            metric, float(value), unit, low=float(low), high=float(high), class_name=";".join(classes),
            frame=frame.index, time_s=frame.time_s, object_id=object_id, n=None if object_id else len(found),
            method=method, flags=flags + more,
        )  # fmt: skip

    length_error = math.hypot(edge * math.sqrt(n_ends), LENGTH_ERROR * total)
    path_error = math.hypot(edge * math.sqrt(2 if found else 0), LENGTH_ERROR * longest)
    tips, branches = sum(d.tip_count for d in found), sum(d.branch_point_count for d in found)
    tip_low, tip_high = sum(d.tip_range[0] for d in found), sum(d.tip_range[1] for d in found)
    branch_low, branch_high = sum(d.branch_range[0] for d in found), sum(d.branch_range[1] for d in found)
    turning = "path over chord from the root, mean over tips; interval: path 2 %"
    rise = f"greatest distance from {reference or 'a reference that is missing'}; interval: mask edge +-0.5 px"
    no_height = () if reference else ("no-credible-baseline",)
    # np.maximum keeps NaN where there is no value.
    return [
        row("skeleton_length", total, max(total - length_error, 0), total + length_error, um, skeleton, thin),
        row("longest_path", longest, max(longest - path_error, 0), longest + path_error, um,
            f"longest shortest path; {skeleton}", thin),
        row("tip_count", tips, tip_low, tip_high, "1", f"ends but roots and border cuts; {spurs}", thin),
        row("branch_point_count", branches, branch_low, branch_high, "1", f"junctions; {spurs}", thin),
        row("branch_width", width, np.maximum(width - 2 * edge, 0), width + 2 * edge, um,
            "size over length with round ends; interval: mask edge +-0.5 px", thin),
        row("tortuosity", tortuosity, np.maximum(tortuosity * (1 - LENGTH_ERROR), 1), tortuosity * (1 + LENGTH_ERROR),
            "1", turning, thin),
        row("dendrite_height", height, np.maximum(height - edge, 0), height + edge, um, rise, no_height),
    ]  # fmt: skip


def _mean(values: list[float], weights: list[float]) -> float:
    """Weighted mean over the finite values, plain where no weight is left; NaN where there is no value."""
    kept = [(v, w) for v, w in zip(values, weights, strict=True) if math.isfinite(v)]
    if not kept:
        return math.nan
    found, share = np.array(kept).T
    return float(np.average(found, weights=share if share.sum() > 0 else None))
