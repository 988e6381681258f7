"""Follow objects through a series: tracks with lineage, and births, merges, splits and disappearances.

Notes
-----
An object keeps its track while it stays one object. A merge or a split ends the tracks of the parents and begins
those of the children: rates along a track never run across an event. Objects under the detection limit are not
followed, so a birth is the moment at which an object passes that limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from seg.errors import DataError
from seg.lineage import Event, Links, Nodes, Track, build_tracks, find_events, remove_flicker
from seg.linking import Objects, Overlaps, assign, contacts, find_drift, match_moved
from seg.progress import Progress, silent
from seg.runs import Runs

if TYPE_CHECKING:  # annotations only: metrics is a layer above this one
    from seg.metrics.table import Scale


@dataclass(frozen=True)
class TrackingSettings:
    """How objects are followed.

    Parameters
    ----------
    max_gap_frames : int
        Frames for which an object may be missing, joined with a neighbour or broken without an event.
    min_overlap : float
        Part of the smaller of two objects that both frames must share, drift removed, to belong together.
    min_frames : int
        An object without parents and children that is seen for fewer frames is noise.
    remove_drift : bool
        Follow the common motion of the objects. Switch it off in profile, where all deposits grow the same way.
    contact_px : int
        A vanished object is taken to have merged where a neighbour is this near and grows by its volume; likewise a
        new one to have split off.
    """

    max_gap_frames: int = 2
    min_overlap: float = 0.3
    min_frames: int = 2
    remove_drift: bool = True
    contact_px: int = 3

    def __post_init__(self) -> None:
        if self.max_gap_frames < 0 or self.min_frames < 1 or self.contact_px < 0 or not 0 < self.min_overlap <= 1:
            raise ValueError(
                f"{self}: max_gap_frames and contact_px must be 0 or more, min_frames 1 or more, min_overlap in (0, 1]."
            )


@dataclass(frozen=True)
class Tracking:
    """What became of the objects of a series.

    Parameters
    ----------
    tracks : DataFrame
        One row per object and frame: ``track_id, frame, time_s, object_id, y_um, x_um`` (``z_um``), ``drift_y_um,
        drift_x_um`` (of the sample since the first frame: subtract it for places on the sample),
        ``equivalent_diameter_um, parent_track_ids`` (joined by ``;``), ``origin`` and ``fate`` of the track.
    events : DataFrame
        ``event, frame, time_s, y_um, x_um, z_um, track_ids, count`` and drift as in `tracks`. ``track_ids`` is
        ``parents>children``, each joined by ``;``. ``frame`` is the first in which the event shows. Merges also have
        ``expected_diameter_um`` by conserved volume, ``merged_diameter_um`` three frames later, ``volume_ratio`` of
        the two, and ``contact_time_s``, extrapolated from the approach of two parents.
    n_frames : int
    n_first : int
        Objects already there in the first frame.
    frames : tuple of int
        Their numbers.
    times_s : tuple of float
        NaN where unknown.

    Notes
    -----
    ``px`` in place of ``um`` where the scale is unknown.
    """

    tracks: pd.DataFrame
    events: pd.DataFrame
    n_first: int
    frames: tuple[int, ...]
    times_s: tuple[float, ...]

    @property
    def n_frames(self) -> int:
        """Frames of the series."""
        return len(self.frames)


@dataclass
class _Lost:
    """Pixels of objects that were not found again, kept for as long as a gap may last."""

    step: int
    flat: np.ndarray
    nodes: np.ndarray
    sizes: np.ndarray
    drift_px: np.ndarray


@dataclass
class Tracker:
    """Follows objects frame by frame; holds two frames, and the pixels of lost objects.

    Parameters
    ----------
    scale : Scale
    settings : TrackingSettings
    """

    scale: Scale
    settings: TrackingSettings = field(default_factory=TrackingSettings)

    def __post_init__(self) -> None:
        self._parts: list[Nodes] = []
        self._edges: list[np.ndarray] = []
        self._contacts: dict[int, int] = {}
        self._lost: list[_Lost] = []
        self._frames: list[int] = []
        self._times_s: list[float] = []
        self._drift_px = np.zeros(len(self.scale.spacing))
        self._objects: Objects | None = None
        self._boxes: tuple[np.ndarray, np.ndarray] = (np.zeros((0, 0)), np.zeros((0, 0)))
        self._n_nodes = 0

    def add(
        self, instances: np.ndarray, objects: pd.DataFrame, *, frame: int | None = None, time_s: float | None = None,
        runs: Runs | None = None,
    ) -> None:  # fmt: skip
        """Take the next frame.

        Parameters
        ----------
        instances : ndarray of int, shape ([Z,] Y, X)
            Object ids, 0 = none. Not copied: do not change it before the next frame was added.
        objects : DataFrame
            Rows of this frame, as from `seg.objects.object_table`.
        frame : int or None
            Its number; None: one after the last.
        time_s : float or None
        runs : Runs or None
            Those of `instances`, where they are at hand.
        """
        spacing, axes = np.asarray(self.scale.spacing), "zyx"[-instances.ndim :]
        if len(spacing) != instances.ndim:
            raise DataError(f"The frame has {instances.ndim} axes, its scale {len(spacing)}.")
        if self._objects is not None and self._objects.instances.shape != instances.shape:
            raise DataError(f"A frame has shape {instances.shape}, the one before {self._objects.instances.shape}.")
        length = self.scale.unit("um")
        kept = objects[~objects["below_detection_limit"].to_numpy(bool)]
        ids = kept["object_id"].to_numpy(int)
        centres = np.stack([kept[f"{axis}_{length}"].to_numpy(float) for axis in axes], axis=1) / spacing
        found = Objects.of(instances, ids, centres, kept["touches_border"].to_numpy(bool), runs)
        if (found.sizes_px == 0).any():
            raise DataError("The table of objects names objects that the frame does not hold; was it made from it?")
        boxes = tuple(
            np.stack([kept[f"bbox_{axis}_{side}_px"].to_numpy(int) for axis in axes], axis=1) for side in ("min", "max")
        )
        step = len(self._frames)
        nodes = self._n_nodes + np.arange(found.n)
        entered = found.cut.copy()
        if self._objects is not None:
            entered |= self._link(found, nodes, boxes)
        self._frames.append((self._frames[-1] + 1 if self._frames else 0) if frame is None else frame)
        self._times_s.append(math.nan if time_s is None else float(time_s))
        drift = np.broadcast_to(self._drift_px * spacing, (found.n, len(spacing)))
        diameters = kept[f"equivalent_diameter_{length}"].to_numpy(float)
        part = Nodes(np.full(found.n, step), ids, centres * spacing, drift, diameters, entered, found.cut.copy())
        self._parts.append(part)
        self._objects, self._boxes, self._n_nodes = found, (boxes[0], boxes[1]), self._n_nodes + found.n

    def _link(self, after: Objects, nodes: np.ndarray, boxes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Link the frame before with this one; tells which of its objects the drift may have brought in."""
        before = self._objects
        assert before is not None
        old_nodes = self._n_nodes - before.n + np.arange(before.n)
        if self.settings.remove_drift:
            drift, shift, overlaps = find_drift(before, after)
        else:
            drift = shift = np.zeros(after.instances.ndim, int)
            overlaps = Overlaps.between(before, after, shift)
        self._drift_px = self._drift_px + drift
        links = assign(before, after, overlaps, min_overlap=self.settings.min_overlap)
        lost = np.setdiff1d(np.arange(before.n), links[:, 0])
        new = np.setdiff1d(np.arange(after.n), links[:, 1])
        ndim = after.instances.ndim
        # Further than its own size an object is not followed without overlap.
        reach = 2 * (before.sizes_px[lost] * (1 / math.pi if ndim == 2 else 0.75 / math.pi)) ** (1 / ndim)
        moved = match_moved(
            before.centres_px[lost] + drift, before.sizes_px[lost], after.centres_px[new], after.sizes_px[new], reach
        )
        links = np.concatenate([links, np.stack([lost[moved[:, 0]], new[moved[:, 1]]], axis=1)])
        lost, new = np.delete(lost, moved[:, 0]), np.delete(new, moved[:, 1])
        self._edges.append(np.stack([old_nodes[links[:, 0]], nodes[links[:, 1]]], axis=1))

        reach_px = self.settings.contact_px
        joined = contacts(before, after, lost, links, shift_px=shift, reach_px=reach_px)
        # Only until they come back: whoever is seen again at its old place had not merged.
        self._contacts |= {int(old_nodes[part]): int(nodes[whole]) for part, whole in joined}
        new = self._close_gaps(after, nodes, new)
        new = np.setdiff1d(new, [whole for _, whole in joined])
        broken = contacts(after, before, new, links[:, ::-1], shift_px=-shift, reach_px=reach_px)
        self._edges += [np.array([[old_nodes[whole], nodes[part]]]) for part, whole in broken]
        shape = np.asarray(after.instances.shape)
        out = ((self._boxes[0] + shift <= 0) | (self._boxes[1] + shift >= shape)).any(axis=1)
        self._parts[-1] = replace(self._parts[-1], left=self._parts[-1].left | out)
        if len(lost) and self.settings.max_gap_frames:
            gone = before.runs.select(np.isin(before.runs.value, lost))
            local = np.repeat(gone.value, gone.length)
            self._lost.append(
                _Lost(len(self._frames) - 1, gone.flat, old_nodes[local], before.sizes_px[local],
                      self._drift_px - drift)
            )  # fmt: skip
        back = (boxes[0] - shift <= 0) | (boxes[1] - shift >= shape)
        return np.asarray(back.any(axis=1))

    def _close_gaps(self, after: Objects, nodes: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Link objects that come back where they were lost; gives the new ones that are left."""
        step = len(self._frames)
        self._lost = [lost for lost in self._lost if step - lost.step <= self.settings.max_gap_frames + 1]
        free = np.zeros(after.n + 1, bool)
        free[new] = True  # the extra place is that of -1, no object
        for lost in reversed(self._lost):
            there = after.at(lost.flat, np.rint(self._drift_px - lost.drift_px).astype(int))
            hit = free[there]
            if not hit.any():
                continue
            key, counts = np.unique(lost.nodes[hit] * (after.n + 1) + there[hit], return_counts=True)
            for i in np.argsort(-counts, kind="stable"):
                node, local = int(key[i] // (after.n + 1)), int(key[i] % (after.n + 1))
                mine = lost.nodes == node
                smaller = min(lost.sizes[mine].min(initial=math.inf), after.sizes_px[local])
                if not free[local] or not mine.any() or counts[i] < self.settings.min_overlap * smaller:
                    continue
                self._edges.append(np.array([[node, nodes[local]]]))
                self._contacts.pop(node, None)
                free[local] = False
                lost.flat, lost.nodes, lost.sizes = lost.flat[~mine], lost.nodes[~mine], lost.sizes[~mine]
                there = there[~mine]
        return np.flatnonzero(free[:-1])

    @property
    def drift_px(self) -> np.ndarray:
        """How far the sample has moved from the first frame to the last one added, shape (D,)."""
        return self._drift_px.copy()

    def finish(self) -> Tracking:
        """Tracks and events of all frames added."""
        ndim = len(self.scale.spacing)
        nodes = _joined(self._parts, ndim)
        edges = [(a, b) for part in self._edges for a, b in part.tolist()] + list(self._contacts.items())
        links = Links(len(nodes.step), edges)
        remove_flicker(nodes, links, max_frames=self.settings.max_gap_frames)
        tracks, of_node = build_tracks(nodes, links, n_steps=len(self._frames), min_frames=self.settings.min_frames)
        times_s = np.array(self._times_s)
        events = find_events(nodes, tracks, times_s)
        n_first = int((nodes.step == 0).sum())
        return Tracking(
            self._track_table(nodes, tracks, of_node), self._event_table(nodes, events), n_first,
            tuple(self._frames), tuple(self._times_s),
        )  # fmt: skip

    def _track_table(self, nodes: Nodes, tracks: list[Track], of_node: np.ndarray) -> pd.DataFrame:
        order = np.lexsort((nodes.step, of_node))
        step, track = nodes.step[order], of_node[order]
        table: dict[str, object] = {
            "track_id": track + 1,
            "frame": np.array(self._frames, int)[step],
            "time_s": np.array(self._times_s)[step],
            "object_id": nodes.object_id[order],
        }
        table |= self._places(nodes.centre[order], nodes.drift[order])
        table[f"equivalent_diameter_{self.scale.unit('um')}"] = nodes.diameter[order]
        for name, values in (
            ("parent_track_ids", [_joined_ids(t.parents) for t in tracks]),
            ("origin", [t.origin for t in tracks]),
            ("fate", [t.fate for t in tracks]),
        ):
            table[name] = np.array(values, object)[track] if len(track) else np.array([], object)
        return pd.DataFrame(table)

    def _event_table(self, nodes: Nodes, events: list[Event]) -> pd.DataFrame:
        length, ndim = self.scale.unit("um"), len(self.scale.spacing)
        at = np.array([event.node for event in events], int)
        step = np.array([event.step for event in events], int)
        table: dict[str, object] = {
            "event": [event.kind for event in events],
            "frame": np.array(self._frames, int)[step],
            "time_s": np.array(self._times_s)[step],
        }
        places = self._places(nodes.centre[at], nodes.drift[at])
        if ndim == 2:
            places[f"z_{length}"] = np.full(len(events), math.nan)
        names = [f"{axis}_{length}" for axis in "yxz"]
        table |= {name: places[name] for name in names}
        table["track_ids"] = [f"{_joined_ids(event.parents)}>{_joined_ids(event.children)}" for event in events]
        table["count"] = np.array([event.count for event in events], int)
        table |= {name: values for name, values in places.items() if name not in names}
        table[f"equivalent_diameter_{length}"] = nodes.diameter[at]
        expected = np.array([event.expected_diameter for event in events], float)
        merged = np.array([event.merged_diameter for event in events], float)
        table |= {f"expected_diameter_{length}": expected, f"merged_diameter_{length}": merged}
        table["volume_ratio"] = (merged / expected) ** 3
        table["contact_time_s"] = np.array([event.contact_s for event in events], float)
        return pd.DataFrame(table)

    def _places(self, centres: np.ndarray, drifts: np.ndarray) -> dict[str, object]:
        length, axes = self.scale.unit("um"), "zyx"[-len(self.scale.spacing) :]
        columns: dict[str, object] = {f"{axis}_{length}": centres[:, i] for i, axis in enumerate(axes)}
        return columns | {f"drift_{axis}_{length}": drifts[:, i] for i, axis in enumerate(axes)}


def track_objects(
    frames: Iterable[np.ndarray],
    objects: pd.DataFrame,
    *,
    scale: Scale,
    frame_times_s: Sequence[float] | None = None,
    settings: TrackingSettings | None = None,
    progress: Progress = silent,
) -> Tracking:
    """Follow objects through a series.

    Parameters
    ----------
    frames : iterable of ndarray of int, shape ([Z,] Y, X)
        Object ids of frames 0, 1, ...; taken one at a time.
    objects : DataFrame
        Rows of all frames as from `seg.objects.object_table`; ``frame`` is the position in `frames`.
    scale : Scale
    frame_times_s : sequence of float or None
    settings : TrackingSettings or None
    progress : Progress

    Returns
    -------
    Tracking
    """
    tracker = Tracker(scale, settings or TrackingSettings())
    ordered = objects.sort_values("frame", kind="stable")
    numbers = ordered["frame"].to_numpy(int)
    for index, instances in enumerate(progress(frames, desc="track")):
        start, stop = np.searchsorted(numbers, [index, index + 1])
        time_s = None if frame_times_s is None else frame_times_s[index]
        tracker.add(instances, ordered.iloc[start:stop], frame=index, time_s=time_s)
    return tracker.finish()


def _joined(parts: list[Nodes], ndim: int) -> Nodes:
    if not parts:
        nothing, flags = np.zeros(0, int), np.zeros(0, bool)
        return Nodes(nothing, nothing, np.zeros((0, ndim)), np.zeros((0, ndim)), np.zeros(0), flags, flags)
    names = ("step", "object_id", "centre", "drift", "diameter", "entered", "left")
    return Nodes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _joined_ids(numbers: tuple[int, ...]) -> str:
    return ";".join(str(number + 1) for number in sorted(numbers))
