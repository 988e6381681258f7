"""The connected bodies of metal in a frame, whole, with what each grows from and where the frame cuts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seg.metrics.dendrite_front import SIDES, Reference, border_of_frame, side_of_frame
from seg.metrics.frame import Frame

# From above a body borders on what it lies on nearly all around; in profile a film does so along half of its outline.
ALL_AROUND = 0.75


@dataclass(frozen=True)
class Body:
    """One connected region of metal.

    Parameters
    ----------
    object_id : int
    box : tuple of slice
        Where the arrays lie in the frame: around the body, with a margin of 1 px.
    mask : ndarray of bool, shape ([Z,] Y, X)
    root : ndarray of bool
        Its pixels that touch what it grew from.
    border : ndarray of bool
        Its pixels at the border of the frame, without those at a side that it grew from.
    """

    object_id: int
    box: tuple[slice, ...]
    mask: np.ndarray
    root: np.ndarray
    border: np.ndarray


def body_ids(frame: Frame, mask: np.ndarray, *, smallest_px: int) -> np.ndarray:
    """Number the connected regions (8 or 26 neighbours) of at least so many pixels.

    Instances are split where objects touch, which would cut branches: a region stays whole and takes the id of the
    instance that fills most of it.
    """
    regions, n_regions = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    regions[(np.bincount(regions.ravel()) < smallest_px)[regions]] = 0
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


def find_bodies(
    frame: Frame, ids: np.ndarray, *, reference: Reference | None, root_classes: Sequence[str], own: Sequence[str] = ()
) -> Iterator[Body]:
    """The bodies of a frame, one after the other.

    Parameters
    ----------
    frame : Frame
    ids : ndarray of int
        As from `body_ids`.
    reference : Reference or None
        Where it is a side of the frame, bodies grow from that side.
    root_classes : sequence of str
        What bodies grow from, the likeliest first: a body that touches one of them does not grow from the next. A
        needle that comes out of moss touches it all along its foot, but starts at the substrate. What lies on
        something that shows nearly all around, seen from above, has no root in sight.
    own : sequence of str
        Classes of the bodies, which are not their own roots.
    """
    grown_from = [frame.mask(c) for c in root_classes if c in frame.schema.names and c not in own]
    around = np.ones((3,) * ids.ndim)
    edge = border_of_frame(ids.shape)
    side = side_of_frame(ids.shape, reference.name) if reference is not None and reference.name in SIDES else None
    for object_id, found in enumerate(ndimage.find_objects(ids), start=1):
        if found is None:
            continue
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in found)
        mask = ids[box] == object_id
        border = mask & edge[box]
        root = np.zeros_like(mask)
        rim = np.count_nonzero(mask & ndimage.binary_dilation(~mask, around))
        for ground in grown_from:
            touching = mask & ndimage.binary_dilation(ground[box], around)
            if touching.any():
                root = touching if np.count_nonzero(touching) <= ALL_AROUND * rim else root
                break
        if side is not None:
            root, border = root | (mask & side[box]), border & ~side[box]
        yield Body(object_id, box, mask, root, border)
