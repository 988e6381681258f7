"""One ramified object: its pruned skeleton turned into lengths, tips, forks, angles, widths and dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from seg.metrics.dendrite_front import border_of_frame
from seg.metrics.fractal import Dimension, box_dimension, mass_radius_dimension
from seg.metrics.interface import outline_roughness
from seg.metrics.skeleton import (
    TIP_SHARE,
    Graph,
    half_width_at,
    half_widths_along,
    prune,
    shortest_paths,
    skeleton_graph,
)
from seg.metrics.skeleton_branches import branch_angles, weighted_quantiles, widths_along

# Thinning ends that far before the end of a branch, beyond the half width of its round tip.
END_PX = 1.0
# Area in units of width squared that branches share at a junction (measured at forks of 60-90 degrees).
JUNCTION_OVERLAP = 0.35
# A skeleton ends up to its half width plus this before a surface that its branch reaches.
REACH_PX = 3.0
# Outlines are smoothed before thinning by this, or this share of the width: branches of 2 px and gaps of 2 px stay.
OUTLINE_PX = 1.0
OUTLINE_SHARE = 1 / 8
# Pixels that smoothing changes, for each pixel of the outline: what is digitised exactly loses the corners of its
# forks, up to 0.025; masks of networks 0.05 to 0.2. Below the first nothing is smoothed, from the second on fully.
SMOOTH_OUTLINE, ROUGH_OUTLINE = 0.025, 0.05
# Outlines that are digitised exactly read as rough as this, in px (`outline_roughness`).
SMOOTH_PX = 0.2


@dataclass(frozen=True)
class Dendrite:
    """What the skeleton of one object says; lengths in the unit of the spacing.

    ``tip_range`` and ``branch_range`` hold the counts for half and double the spur limit, for the outline as given, and
    for branches that touch. ``roots`` and ``cut`` count the ends at a root surface and at the frame border, which are
    not tips. ``unsmoothed_length`` is the skeleton length of the outline as given (`skeleton_length` where nothing
    was smoothed), ``roughness`` the standard deviation of that outline. ``certain_path`` is the longest path over no
    neck that a rough outline may have made (`_certain_path`). ``tortuosity`` is path over chord, averaged over tips,
    from the nearest root (without a root: of the longest path); NaN where there is no path. ``angles`` are those
    between daughters at the junctions (degrees); ``widths`` the width at every step along the branches and the length
    each stands for; ``seed_known`` says that `mass_radius` was taken about a root, not the centre of
    mass.
    """

    skeleton_length: float
    longest_path: float
    certain_path: float
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
    angles: tuple[float, ...]
    widths: tuple[np.ndarray, np.ndarray]
    box: Dimension
    mass_radius: Dimension
    seed_known: bool
    unsmoothed_length: float
    roughness: float

    def width_quantiles(self, *shares: float) -> list[float]:
        """Widths that these shares of the length of the branches stay below."""
        return weighted_quantiles(*self.widths, shares)


def analyse_dendrite(
    mask: np.ndarray,
    *,
    spacing: Sequence[float],
    root: np.ndarray | None = None,
    border: np.ndarray | None = None,
    outline_px: float = OUTLINE_PX,
) -> Dendrite:
    """Skeleton measures of one object.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
        The object. Holes of up to 3 px along each axis are filled first, and its outline is smoothed.
    spacing : sequence of float
        Pixel size along each axis.
    root : ndarray of bool, shape of `mask`, optional
        Pixels of the object that touch what it grew from. Of the skeleton ends near one patch of them, the nearest
        is the root.
    border : ndarray of bool, shape of `mask`, optional
        Pixels of the object at the frame border: ends there are cut.
    outline_px : float
        How far the outline is smoothed, at most; 0: not at all.

    Notes
    -----
    A rough outline grows a spur at every bump, and lengths with them: the skeleton is that of the mask after a Gaussian
    of `outline_px`, or an eighth of the width where that is less, cut at one half. Necks that this would cut are kept.
    On predicted masks of silver dendrites it takes half of what roughness adds to lengths, tips and widths (tables in
    ``docs/accuracy.md``). Outlines that are digitised exactly stay as they are: only those are smoothed of which that
    changes more than a pixel in forty. Branches and gaps of 2 px (twice `outline_px`) stay, of 1 px go.
    Spurs up to the half width at their junction plus 2 px are pruned, shortest first. Every path is smoothed (Gaussian
    of 2 px, ends fixed) and gains 1 px at a tip, which thinning takes away, or the way to the surface at a root or a
    cut. The width w solves ``A = L w + (n pi / 8 - 0.35 m) w**2`` with n round tips and the area shared at m junctions
    (3-D: ``V = pi w**2 L / 4 + n pi w**3 / 12``). Fractal dimensions are those of the mask as given.

    A tree has one root and no loop: every loop and every further root is a place where branches touch, which may hide a
    tip and make a junction. The ranges of both counts allow for that.
    """
    given, filled = mask, _fill_small_holes(mask)
    size = float(filled.sum()) * math.prod(spacing)
    mask = _fill_small_holes(_smooth_outline(filled, outline_px))
    ndim, pixel = mask.ndim, math.prod(spacing) ** (1 / mask.ndim)
    # No background outside of the array: a branch cut by the frame keeps its half width up to there.
    half_width = ndimage.distance_transform_edt(mask, sampling=spacing)
    whole = skeleton_graph(mask, spacing=spacing)
    graph, *variants = (prune(whole, half_width, factor=f) for f in (1.0, 0.5, 2.0))
    tips, roots, cuts = _ends(graph, half_width, root, border)
    n_tips = [len(tips)] + [len(_ends(g, half_width, root, border)[0]) for g in variants]
    n_branches = [len(g.junctions) for g in (graph, *variants)]
    unsmoothed = None
    if np.count_nonzero(mask != filled):
        rough_half_width = ndimage.distance_transform_edt(filled, sampling=spacing)
        rough = prune(skeleton_graph(filled, spacing=spacing), rough_half_width)
        rough_tips = len(_ends(rough, rough_half_width, root, border)[0])
        n_tips.append(rough_tips)
        n_branches.append(len(rough.junctions))
        unsmoothed = sum(rough.lengths().values()) + rough_tips * END_PX * pixel

    lengths = graph.lengths()
    core_length = sum(lengths.values())
    for tip in tips:
        (edge,) = graph.at_node[tip]
        lengths[edge] += END_PX * pixel
    longest, ends = _longest(graph, lengths)
    roughness = outline_roughness(filled, spacing)
    n_parts = ndimage.label(mask, structure=np.ones((3,) * ndim))[1]
    loops = max(len(graph.edges) - len(graph.nodes) + n_parts, 0)
    touching = loops + max(len(roots) - 1, 0)
    width = _width(size, core_length, len(tips), n_branches[0], ndim)
    seed = np.mean([graph.nodes[r] for r in roots], axis=0) if roots else np.argwhere(given).mean(axis=0)
    return Dendrite(
        skeleton_length=sum(lengths.values()),
        longest_path=longest,
        certain_path=longest
        if roughness <= SMOOTH_PX * pixel
        else _certain_path(graph, lengths, half_width, roughness),
        tip_count=n_tips[0],
        tip_range=(min(n_tips), max(n_tips) + touching),
        branch_point_count=n_branches[0],
        branch_range=(max(min(n_branches) - touching, 0), max(n_branches)),
        branch_width=width,
        tortuosity=_tortuosity(graph, tips, roots, ends),
        roots=len(roots),
        cut=len(cuts),
        loops=loops,
        covered=graph.covered,
        angles=tuple(branch_angles(graph, half_width, roots)),
        widths=widths_along(graph, half_width, mean_width=width),
        box=box_dimension(given, spacing=spacing, width=width, rng=np.random.default_rng(0)),
        mass_radius=mass_radius_dimension(given, spacing=spacing, seed=seed, width=width),
        seed_known=bool(roots),
        unsmoothed_length=sum(lengths.values()) if unsmoothed is None else unsmoothed,
        roughness=roughness,
    )


def _smooth_outline(mask: np.ndarray, most_px: float = OUTLINE_PX) -> np.ndarray:
    """Take away bumps and dents of the outline that are smaller than so much or so; necks stay."""
    depth = ndimage.distance_transform_edt(mask)[mask]
    # On average a pixel of a bar lies a quarter of its width deep, one of a tube a sixth.
    sigma = min(most_px, OUTLINE_SHARE * 4 * float(depth.mean())) if len(depth) else 0.0
    smooth = _blurred(mask, sigma)
    outline = np.count_nonzero(mask & ~ndimage.binary_erosion(mask, border_value=1))
    changed = np.count_nonzero(smooth != mask) / max(outline, 1)
    if changed <= SMOOTH_OUTLINE:
        return mask
    if changed < ROUGH_OUTLINE:
        smooth = _blurred(mask, sigma * (changed - SMOOTH_OUTLINE) / (ROUGH_OUTLINE - SMOOTH_OUTLINE))
    around = np.ones((3,) * mask.ndim)
    parts, n_parts = ndimage.label(smooth, around)
    if n_parts == 0:
        return mask
    if n_parts > 1:
        lost, _ = ndimage.label(mask & ~smooth, around)
        for piece, box in enumerate(ndimage.find_objects(lost), start=1):
            near = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
            ends = np.unique(parts[near][ndimage.binary_dilation(lost[near] == piece, around)])
            if np.count_nonzero(ends) > 1:
                smooth[near] |= lost[near] == piece
    return smooth


def _blurred(mask: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest") > 0.5)


def _fill_small_holes(mask: np.ndarray) -> np.ndarray:
    """Fill enclosed gaps of up to 3 px along each axis: below what an image resolves, they would become loops."""
    gaps, _ = ndimage.label(~mask)
    sizes = np.bincount(gaps.ravel())
    small = sizes <= 3**mask.ndim
    outside = np.unique(gaps[border_of_frame(mask.shape)])
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
    reach = float(np.median(half_widths_along(half_width, path)))
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


def _certain_path(graph: Graph, lengths: dict[int, float], half_width: np.ndarray, roughness: float) -> float:
    """Longest path that passes no neck whose two sides, each wandering by `roughness`, may meet (95 %)."""
    pixel = math.prod(graph.spacing) ** (1 / len(graph.spacing))
    # Twice the distance map, from centre to centre, is as wide as a neck of an even number of pixels, or a pixel wider.
    doubtful = (1.96 * math.sqrt(2) * roughness + 0.5 * pixel) / 2
    leaves, nodes, edges, known = set(graph.leaves), dict(graph.nodes), {}, {}
    for edge, (start, end, path) in graph.edges.items():
        widths = half_widths_along(half_width, path)
        whole = widths > doubtful
        # Every tip is narrow.
        full = np.flatnonzero(widths >= TIP_SHARE * np.median(widths))
        whole[: full[0] if start in leaves else 0] = True
        whole[full[-1] + 1 if end in leaves else len(path) :] = True
        steps = np.linalg.norm(np.diff(path * np.asarray(graph.spacing), axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        runs = np.flatnonzero(np.diff(whole, prepend=False, append=False)).reshape(-1, 2)
        for first, stop in runs.tolist():
            a = start if first == 0 else len(nodes) + max(graph.nodes) + 1
            nodes.setdefault(a, path[first])
            b = end if stop == len(path) else len(nodes) + max(graph.nodes) + 1
            nodes.setdefault(b, path[stop - 1])
            share = (along[stop - 1] - along[first]) / along[-1] if along[-1] > 0 else 1.0
            edges[len(edges)] = (a, b, path[first:stop])
            known[len(known)] = lengths[edge] * share
    return _longest(Graph(nodes, edges, graph.spacing), known)[0]


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
