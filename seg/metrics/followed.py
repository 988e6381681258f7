"""Rows of single objects joined along their tracks, and where an object turns from growing to shrinking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from seg.metrics.history import History

# A turn is real where the size comes back by this share of its greatest change.
MIN_TURN = 0.15


def followed_objects(history: History) -> pd.DataFrame:
    """Which track every object of every frame belongs to: columns ``frame, object_id, track_id, size``.

    Tracks are those of the history; without them objects are joined to the nearest of the next frame, up to half the
    larger diameter away. Without places (no object table) the ids of the rows are taken for tracks. ``size`` is the
    area or volume, NaN where unknown.
    """
    objects = history.objects
    if objects.empty:
        rows = history.table[history.table["object_id"].notna() & history.table["frame"].notna()]
        found = rows[["frame", "object_id"]].drop_duplicates().astype(int)
        return found.assign(track_id=found["object_id"], size=math.nan)
    size = next(name for name in objects.columns if name.startswith(("area_", "volume_")))
    found = objects[["frame", "object_id", size]].rename(columns={size: "size"})
    if history.tracking is not None:
        tracks = history.tracking.tracks[["frame", "object_id", "track_id"]]
        return found.merge(tracks, on=["frame", "object_id"])
    unit = history.scale.unit("um")
    places = [f"{axis}_{unit}" for axis in "zyx"[-len(history.scale.spacing) :]]
    diameter = f"equivalent_diameter_{unit}"
    return found.assign(track_id=_nearest_tracks(objects, places, diameter))


def _nearest_tracks(objects: pd.DataFrame, places: Sequence[str], diameter: str) -> np.ndarray:
    """Track of each row: the nearest object of the frame before, where it is nearer than half a diameter."""
    tracks = np.zeros(len(objects), int)
    frames = objects["frame"].to_numpy(int)
    position, width = objects[list(places)].to_numpy(float), objects[diameter].to_numpy(float)
    before = np.zeros(0, int)
    n = 0
    for frame in np.unique(frames):
        here = np.flatnonzero(frames == frame)
        if len(before):
            distance = np.linalg.norm(position[before][:, None] - position[here][None], axis=-1)
            reach = np.maximum(width[before][:, None], width[here][None]) / 2
            one, two = linear_sum_assignment(np.where(distance <= reach, distance, 1e6 * (1 + reach)))
            near = distance[one, two] <= reach[one, two]
            tracks[here[two[near]]] = tracks[before[one[near]]]
        new = here[tracks[here] == 0]
        tracks[new] = n + 1 + np.arange(len(new))
        n += len(new)
        before = here
    return tracks


def half_cycles_of(
    frames: np.ndarray, size: np.ndarray, kinds: Mapping[int, str]
) -> list[tuple[str, np.ndarray]]:  # fmt: skip
    """Plating and stripping of one object: kind and the indices into `frames`, with the frame where it begins.

    Parameters
    ----------
    frames : ndarray of int, shape (N,)
        In order.
    size : ndarray of float, shape (N,)
        Area or anything that grows with it.
    kinds : mapping of int to str
        ``plating`` or ``stripping`` of each frame by the current; where it is empty the size decides, which turns
        where it comes back by 15 % of its range.
    """
    if kinds:
        known = np.array([kinds.get(int(f), "") for f in frames])
        starts = np.flatnonzero(np.concatenate([[True], known[1:] != known[:-1]]))
        ends = np.append(starts[1:], len(known))
        return [
            (str(known[a]), np.arange(max(a - 1, 0), b))
            for a, b in zip(starts, ends, strict=True)
            if known[a] in ("plating", "stripping")
        ]
    turns = _turns(size)
    return [
        ("plating" if size[b] > size[a] else "stripping", np.arange(a, b + 1))
        for a, b in zip(turns, turns[1:], strict=False)
    ]


def _turns(size: np.ndarray) -> list[int]:
    """First, last and turning points of a noisy series."""
    if len(size) < 2:
        return []
    least = MIN_TURN * float(np.ptp(size))
    turns, extreme, direction = [0], 0, 0
    for i in range(1, len(size)):
        if direction == 0:
            if abs(size[i] - size[0]) > least:
                direction, extreme = (1 if size[i] > size[0] else -1), i
        elif direction * (size[i] - size[extreme]) >= 0:
            extreme = i
        elif direction * (size[extreme] - size[i]) > least:
            turns.append(extreme)
            direction, extreme = -direction, i
    if direction and turns[-1] != extreme:
        turns.append(extreme)
    return turns
