"""Grey values at the site of a nucleus in the frames around its birth: they change before a mask can show it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.metrics.table import Scale
from seg.preprocess import read_grey
from seg.stack import Stack

BEFORE, AFTER = 32, 5
"""Frames of a site before its nucleus is first seen, and from then on."""
# The site reaches this share of the nucleus' radius beyond it, and at least so many pixels: masks that are too small,
# and blur, which differs from frame to frame and takes away from a site what its border cuts of an edge of the
# substrate. Around it lies a ring that says what light and thickness do there without the nucleus.
_MARGIN, _LEAST_MARGIN_PX, _GAP_PX, _RING_PX = 0.3, 6, 1, 6
_OTHERS_PX = 3
_LEAST_RING = 20


@dataclass(frozen=True)
class _Site:
    """Where a nucleus is once it has grown for some frames: a box of the frame, the site and the ring in it."""

    track: int
    first: int
    grown: int
    box: tuple[slice, ...]
    site: np.ndarray
    ring: np.ndarray


def site_signals(
    image: Stack, instances: Callable[[int], np.ndarray], tracks: pd.DataFrame, *, scale: Scale
) -> pd.DataFrame:
    """How the grey values at the site of every newborn change from before it is seen until it has grown.

    Parameters
    ----------
    image : Stack
        Grey values on the grid of the masks.
    instances : callable
        Object ids of a frame, shape ([Z,] Y, X).
    tracks : DataFrame
        As in `seg.tracking.Tracking`; its frames are positions in `image`.
    scale : Scale
        That of the tracks.

    Returns
    -------
    DataFrame
        ``track_id, frame, signal`` of every track that begins with a birth, for 32 frames before it is seen (as far as
        the recording goes back) and five from then on: the sum of the grey values over the site, less as many times
        the mean of the ring around it. Nothing for sites without a ring of their own.

    Notes
    -----
    The site is the nucleus in the last of those frames, widened by 0.3 of its radius, without what lies near other
    objects. A nucleus of a few pixels, or less than one, changes the sum by its area times its contrast, blurred or
    not; what the substrate looks like is in every frame alike. The drift of the sample is followed in whole pixels.
    """
    born = tracks[tracks["origin"] == "birth"]
    ends = born.groupby("track_id").head(AFTER).groupby("track_id")[["frame", "object_id"]].agg(["first", "last"])
    sites: list[_Site] = []
    for frame, group in ends.groupby(("frame", "last")):
        sites += _sites(instances(int(frame)), int(frame), group)
    moved = _drift_px(image, tracks, scale)
    rows: list[tuple[int, int, float]] = []
    for frame in range(image.n_frames):
        shown = [one for one in sites if one.first - BEFORE <= frame <= one.grown]
        if not shown:
            continue
        grey = read_grey(image, frame)
        for one in shown:
            shift = np.rint(moved[frame] - moved[one.grown]).astype(int)
            box = tuple(slice(side.start + by, side.stop + by) for side, by in zip(one.box, shift, strict=True))
            if any(side.start < 0 or side.stop > size for side, size in zip(box, grey.shape, strict=True)):
                continue
            seen = grey[box].astype(np.float64)
            value = seen[one.site].sum() - np.count_nonzero(one.site) * seen[one.ring].mean()
            rows.append((one.track, frame, float(value)))
    table = pd.DataFrame(rows, columns=["track_id", "frame", "signal"])
    return table.sort_values(["track_id", "frame"], ignore_index=True)


def _sites(instances: np.ndarray, frame: int, ends: pd.DataFrame) -> list[_Site]:
    """The sites of the tracks whose nuclei have grown by one frame."""
    from scipy import ndimage

    found = []
    boxes = ndimage.find_objects(instances)
    for track, row in ends.iterrows():
        value = int(row["object_id", "last"])
        own = boxes[value - 1]
        size = np.count_nonzero(instances[own] == value)
        radius = math.sqrt(size / math.pi) if instances.ndim == 2 else (0.75 * size / math.pi) ** (1 / 3)
        margin = max(_LEAST_MARGIN_PX, round(_MARGIN * radius))
        far = margin + _GAP_PX + _RING_PX
        box = tuple(
            slice(max(side.start - far, 0), min(side.stop + far, n))
            for side, n in zip(own, instances.shape, strict=True)
        )
        ids = instances[box]
        away = ndimage.distance_transform_edt(ids != value)
        free = np.ones(ids.shape, bool)
        others = (ids > 0) & (ids != value)
        if others.any():
            free = ndimage.distance_transform_edt(~others) > _OTHERS_PX
        site = (away <= margin) & (free | (ids == value))
        ring = (away > margin + _GAP_PX) & (away <= far) & free
        if np.count_nonzero(ring) >= _LEAST_RING:
            found.append(_Site(int(track), int(row["frame", "first"]), frame, box, site, ring))
    return found


def _drift_px(image: Stack, tracks: pd.DataFrame, scale: Scale) -> np.ndarray:
    """Way of the sample since the first frame, in pixels; that of the frame before where nothing was followed."""
    columns = [f"drift_{axis}_{scale.unit('um')}" for axis in image.spatial_axes]
    known = tracks.drop_duplicates("frame").set_index("frame")[columns].sort_index()
    way = known.reindex(range(image.n_frames)).ffill().fillna(0.0).to_numpy(float)
    return np.asarray(way / np.asarray(scale.spacing))
