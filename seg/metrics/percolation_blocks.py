"""Penetration and percolation in a volume that does not fit in memory, read slab by slab."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from seg.blocks import RegionFinder, label_on_disk, slabs
from seg.metrics.dendrite_front import SIDES, opposite_side
from seg.metrics.frame import Frame
from seg.metrics.percolation import Penetration, penetration_between
from seg.object_blocks import BlockPixels
from seg.uncertainty import boundary_shift

# Beyond so many voxels on the surface of an electrode their places are not kept.
MAX_SURFACE_VOXELS = 50_000_000


@dataclass(frozen=True)
class BlockPassage:
    """`seg.metrics.percolation.Passage`, with the electrodes as bodies of a labelled volume on disk.

    Parameters
    ----------
    bodies : ndarray of int32, shape (Z, Y, X)
        The connected bodies of electrode material.
    electrode : int
        The body that is the near electrode.
    beyond : ndarray of bool
        Which bodies are the far one, by number.
    side, thickness
        As in `Passage`.
    """

    bodies: np.ndarray
    electrode: int
    beyond: np.ndarray
    side: str
    thickness: float


@dataclass(frozen=True)
class Reach:
    """How far metal has come: see `seg.metrics.filament.measure_frame`."""

    depth: Penetration
    by_faces: bool
    by_corners: bool
    when_grown: bool
    leaves_sideways: bool
    electrode_reaches: bool


def find_passage_on_disk(
    frame: Frame, *, separator_classes: Sequence[str], electrode_classes: Sequence[str],
    metal_classes: Sequence[str] = (),
) -> BlockPassage | None:  # fmt: skip
    """`seg.metrics.percolation.find_passage` for a frame that lies on disk; two passes over it."""
    assert frame.on_disk is not None
    shape, ndim = frame.labels.shape, len(frame.labels.shape)
    separators, electrodes, inside = ([c for c in names if c in frame.schema.names]
                                      for names in (separator_classes, electrode_classes, metal_classes))  # fmt: skip
    inside = [c for c in inside if c not in electrodes]
    bodies, regions = label_on_disk(lambda rows: frame.mask(electrodes, rows), shape, frame.on_disk)
    n = regions.count
    touching, stood_on = np.zeros((2, n + 1), np.int64)
    extents = [np.zeros(shape[:a] + shape[a + 1 :], np.int64) for a in range(ndim)]
    count, sums = 0, np.zeros(ndim)
    for slab in slabs(shape):
        near = frame.mask(separators, slab.read)
        touching += np.bincount(
            bodies[slab.owned][ndimage.binary_dilation(near)[slab.inner]], minlength=n + 1
        )  # fmt: skip
        if inside:
            grown = ndimage.binary_dilation(frame.mask(inside, slab.read))[slab.inner]
            stood_on += np.bincount(bodies[slab.owned][grown], minlength=n + 1)
        own = near[slab.inner]
        count += int(np.count_nonzero(own))
        for axis in range(ndim):
            along = np.count_nonzero(own, axis=axis)
            extents[axis][... if axis == 0 else slab.owned] += along
            profile = own.sum(axis=tuple(a for a in range(ndim) if a != axis), dtype=np.int64)
            sums[axis] += float(profile @ (np.arange(len(profile)) + (slab.owned.start if axis == 0 else 0)))
    touching[0] = 0
    if not count or not touching.any():
        return None
    stood_on *= touching > 0
    electrode = int((stood_on if stood_on.any() else touching).argmax())
    centres = BlockPixels.of(bodies).centroids
    middle = sums / count
    way = (middle - centres[electrode]) * np.asarray(frame.scale.spacing)
    axis = int(np.abs(way).argmax())
    end = -1 if way[axis] > 0 else 0
    side = next(s for s, (k, which) in SIDES.items() if k % ndim == axis and which == end and -k <= ndim)
    beyond = (1 if end else -1) * (centres[:, axis] - middle[axis]) > 0
    beyond[[0, electrode]] = False
    extent = extents[axis]
    thickness = float(np.median(extent[extent > 0])) * frame.scale.spacing[axis]
    return BlockPassage(bodies, electrode, beyond, side, thickness)


def reach_on_disk(frame: Frame, passage: BlockPassage, classes: Sequence[str]) -> Reach:
    """Depth and percolation of the metal of some classes; two passes over the volume, one over its own bodies."""
    assert frame.on_disk is not None
    shape, ndim = frame.labels.shape, len(frame.labels.shape)
    finders = [RegionFinder(shape, corners=corners) for corners in (False, True, True)]
    ends: list[list[np.ndarray]] = [[], [], []]
    sideways = reaches = False
    for slab in slabs(shape):
        # One more slice on each side: what grows looks at its neighbours.
        low, high = max(slab.read.start - 1, 0), min(slab.read.stop + 1, shape[0])
        metal, bodies = frame.mask(classes, slice(low, high)), passage.bodies[low:high]
        near = bodies == passage.electrode
        far = passage.beyond[bodies]
        inside = slice(slab.read.start - low, slab.read.stop - low)
        grown = boundary_shift(metal, 1.0) > 0.5
        both = near | far
        target = (far | _side(bodies.shape, low, shape[0], passage.side))[inside]
        reaches |= bool((near[inside] & target).any())
        for finder, found, mask in zip(finders, ends, (metal, metal, grown), strict=True):
            body = (mask | both)[inside]
            ids, _ = finder.add(body, slab)
            own, n = ids[slab.inner], int(ids.max(initial=0)) + 1
            found.append(np.stack([
                np.bincount(own[where[slab.inner]], minlength=n)[1:] for where in (near[inside], target & body)
            ], axis=1))  # fmt: skip
        border = np.zeros(metal.shape, bool)
        for name, (axis, _) in SIDES.items():
            if -axis <= ndim and name not in (passage.side, opposite_side(passage.side)):
                border |= _side(metal.shape, low, shape[0], name)
        sideways |= bool((metal & border).any())
    answers = []
    for finder, parts in zip(finders, ends, strict=True):
        total = finder.regions().total(np.concatenate([np.zeros((1, 2), np.int64), *parts]))
        answers.append(bool((total > 0).all(axis=1).any()))
    return Reach(_depth(frame, passage, classes), *answers, leaves_sideways=sideways, electrode_reaches=reaches)


def _side(shape: tuple[int, ...], start: int, length: int, side: str) -> np.ndarray:
    """Mark a side of the frame in the slices from `start` on."""
    axis, end = SIDES[side]
    axis %= len(shape)
    layer = np.zeros(shape, bool)
    at = end if axis else (0 if end == 0 else length - 1) - start
    if axis or 0 <= at < shape[0]:
        layer[(slice(None),) * axis + (at,)] = True
    return layer


def _depth(frame: Frame, passage: BlockPassage, classes: Sequence[str]) -> Penetration:
    """`seg.metrics.percolation.penetration`; a depth of NaN where the electrode has too large a surface."""
    assert frame.on_disk is not None
    shape, spacing = frame.labels.shape, np.asarray(frame.scale.spacing)

    def body(rows: slice) -> np.ndarray:
        return np.asarray(frame.mask(classes, rows) | (passage.bodies[rows] == passage.electrode))

    def grown(rows: slice) -> np.ndarray:
        low = max(rows.start - 1, 0)
        metal = frame.mask(classes, slice(low, min(rows.stop + 1, shape[0])))
        near = passage.bodies[rows] == passage.electrode
        return np.asarray((boundary_shift(metal, 1.0) > 0.5)[rows.start - low :][: len(near)] | near)

    ids, regions = label_on_disk(body, shape, frame.on_disk)
    grown_ids, grown_regions = label_on_disk(grown, shape, frame.on_disk)
    connected, joined = (np.zeros(found.count + 1, bool) for found in (regions, grown_regions))
    surface, n = [np.zeros((0, len(shape)))], 0
    for slab in slabs(shape):
        electrode = passage.bodies[slab.read] == passage.electrode
        for reached, labelled in ((connected, ids), (joined, grown_ids)):
            reached[np.unique(labelled[slab.read][electrode])] = True
        # The voxel of a body nearest to a place outside has a face towards it.
        rim = (electrode & ~ndimage.binary_erosion(electrode, border_value=1))[slab.inner]
        found = np.argwhere(rim).astype(float)
        found[:, 0] += slab.owned.start
        surface.append(found * spacing)
        n += len(found)
        if n > MAX_SURFACE_VOXELS:
            return Penetration(math.nan)
    tree, farthest, over_gaps, tip = KDTree(np.concatenate(surface)), 0.0, 0.0, np.zeros(len(shape), int)
    for slab in slabs(shape, halo=0):
        metal_here = frame.mask(classes, slab.owned) & (passage.bodies[slab.owned] != passage.electrode)
        at = np.argwhere(metal_here & joined[grown_ids[slab.owned]])
        if not len(at):
            continue
        own = connected[ids[slab.owned]][tuple(at.T)]
        at[:, 0] += slab.owned.start
        distance = tree.query(at * spacing)[0]
        over_gaps = max(over_gaps, float(distance.max()))
        distance[~own] = 0.0
        # Equally far ones: the first, as of the whole volume.
        if distance.max() > farthest * (1 + 1e-9):
            farthest = float(distance.max())
            tip = at[int((distance >= farthest * (1 - 1e-9)).argmax())]
    if not farthest:
        return Penetration(0.0, over_gaps=over_gaps)
    places = np.round(tree.data[tree.query_ball_point(tip * spacing, farthest * (1 + 1e-9))] / spacing).astype(int)
    foot = places[np.lexsort(places.T[::-1])[0]]

    def metal(box: tuple[slice, ...]) -> np.ndarray:
        mask = connected[ids[box]] & (passage.bodies[box] != passage.electrode)
        return np.asarray(mask & frame.mask(classes, box[0])[(slice(None), *box[1:])])

    return penetration_between(
        tip, foot, farthest, over_gaps=over_gaps, spacing=frame.scale.spacing, shape=shape,
        electrode=lambda box: np.asarray(passage.bodies[box] == passage.electrode), connected=metal,
    )  # fmt: skip
