"""From links between objects of neighbouring frames to tracks with parents, and to the events between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EVENTS = ("birth", "merge", "split", "disappearance")
_RELAXED_FRAMES = 3
_APPROACH_FRAMES = 5


@dataclass(frozen=True)
class Nodes:
    """All tracked objects of all frames, in the order of the frames.

    Parameters
    ----------
    step : ndarray of int, shape (N,)
        Position of the frame in the series: 0, 1, ...
    object_id : ndarray of int, shape (N,)
    centre : ndarray of float, shape (N, D)
        In the frame.
    drift : ndarray of float, shape (N, D)
        Of the sample since the first frame, in the same unit.
    diameter : ndarray of float, shape (N,)
        Equivalent diameter.
    entered, left : ndarray of bool, shape (N,)
        The frame, its drift or a region without valid labels can account for the object not being seen before (after).
    """

    step: np.ndarray
    object_id: np.ndarray
    centre: np.ndarray
    drift: np.ndarray
    diameter: np.ndarray
    entered: np.ndarray
    left: np.ndarray

    @property
    def place(self) -> np.ndarray:
        """Position on the sample."""
        return np.asarray(self.centre - self.drift)


class Links:
    """The links between nodes, and which nodes belong to another one's track for a moment."""

    def __init__(self, n: int, edges: Sequence[tuple[int, int]]) -> None:
        self.after: list[list[int]] = [[] for _ in range(n)]
        self.before: list[list[int]] = [[] for _ in range(n)]
        self.host: dict[int, int] = {}
        for first, second in edges:
            self.after[first].append(second)
            self.before[second].append(first)

    def cut(self, first: int, second: int) -> None:
        """Take a link out."""
        self.after[first].remove(second)
        self.before[second].remove(first)

    def join(self, first: int, second: int) -> None:
        """Put a link in."""
        self.after[first].append(second)
        self.before[second].append(first)

    def run(self, node: int) -> list[int]:
        """Follow a node as long as it stays one object."""
        found = [node]
        while len(self.after[found[-1]]) == 1 and len(self.before[self.after[found[-1]][0]]) == 1:
            found.append(self.after[found[-1]][0])
        return found

    def short_run(self, node: int, limit: int) -> list[int]:
        """Like `run`, but stops one node beyond `limit`."""
        found = [node]
        while (
            len(found) <= limit and len(self.after[found[-1]]) == 1 and len(self.before[self.after[found[-1]][0]]) == 1
        ):
            found.append(self.after[found[-1]][0])
        return found


def remove_flicker(nodes: Nodes, links: Links, *, max_frames: int) -> None:
    """Undo merges that come apart, and splits that close, within `max_frames` frames.

    Neighbours that a mask joins for a moment, and objects that it breaks for a moment, are no events. The joined
    blob goes to the track of its largest part; the parts of a broken object share its track.
    """
    eventful = [i for i in range(len(nodes.step)) if len(links.before[i]) > 1 or len(links.after[i]) > 1]
    for node in eventful:
        if len(links.before[node]) > 1:
            _undo_merge(nodes, links, node, max_frames)
        if len(links.after[node]) > 1:
            _undo_split(links, node, max_frames)


def _undo_merge(nodes: Nodes, links: Links, merged: int, max_frames: int) -> None:
    blob = links.short_run(merged, max_frames)
    parents, children = list(links.before[merged]), list(links.after[blob[-1]])
    if len(blob) > max_frames or len(children) != len(parents):
        return
    if any(len(links.before[child]) > 1 for child in children):
        return
    from scipy.optimize import linear_sum_assignment

    apart = np.linalg.norm(nodes.place[parents][:, None] - nodes.place[children][None], axis=2)
    rows, columns = linear_sum_assignment(apart)
    growth = nodes.diameter[children][columns] / nodes.diameter[parents][rows]
    near = apart[rows, columns] <= 0.5 * nodes.diameter[parents][rows]
    if not (near & (growth > 0.7) & (growth < 1.4)).all():
        return
    for parent in parents:
        links.cut(parent, merged)
    for child in children:
        links.cut(blob[-1], child)
    for row, column in zip(rows, columns, strict=True):
        links.join(parents[row], children[column])
    for first, second in zip(blob[:-1], blob[1:], strict=True):
        links.cut(first, second)
    largest = parents[int(np.argmax(nodes.diameter[parents]))]
    links.host |= dict.fromkeys(blob, largest)


def _undo_split(links: Links, parent: int, max_frames: int) -> None:
    pieces = [links.short_run(child, max_frames) for child in links.after[parent]]
    if any(len(piece) > max_frames or len(links.after[piece[-1]]) != 1 for piece in pieces):
        return
    if any(len(links.before[piece[0]]) > 1 for piece in pieces):
        return
    closed = {links.after[piece[-1]][0] for piece in pieces}
    if len(closed) != 1 or len(links.before[next(iter(closed))]) != len(pieces):
        return
    for piece in pieces:
        path = [parent, *piece, *closed]
        for first, second in zip(path[:-1], path[1:], strict=True):
            links.cut(first, second)
    links.join(parent, *closed)
    links.host |= {node: parent for piece in pieces for node in piece}


@dataclass(frozen=True)
class Track:
    """One object from one event to the next.

    Parameters
    ----------
    nodes : list of int
        One per frame where it was seen on its own.
    parents, children : tuple of int
        Track numbers.
    origin : str
        ``birth``, ``merge``, ``split``, ``entered``, ``first-frame`` or ``unconfirmed``.
    fate : str
        ``disappearance``, ``merge``, ``split``, ``left``, ``last-frame`` or ``unconfirmed``.
    """

    nodes: list[int]
    parents: tuple[int, ...]
    children: tuple[int, ...]
    origin: str
    fate: str


def build_tracks(nodes: Nodes, links: Links, *, n_steps: int, min_frames: int) -> tuple[list[Track], np.ndarray]:
    """Cut the links at their events into tracks.

    Parameters
    ----------
    nodes : Nodes
    links : Links
    n_steps : int
        Frames of the series.
    min_frames : int
        An object without parents and children that is seen for a shorter time is not confirmed: it makes no events.
        Objects that the end of the series cuts short are confirmed.

    Returns
    -------
    tracks : list of Track
    of_node : ndarray of int, shape (N,)
        Number of the track of each node.
    """
    n = len(nodes.step)
    of_node = np.full(n, -1)
    runs = []
    for node in range(n):
        if node in links.host or of_node[node] >= 0:
            continue
        one_to_one = len(links.before[node]) == 1 and len(links.after[links.before[node][0]]) == 1
        if one_to_one:
            continue
        run = links.run(node)
        of_node[run] = len(runs)
        runs.append(run)
    for node, host in links.host.items():
        while host in links.host:
            host = links.host[host]
        of_node[node] = of_node[host]
    tracks = []
    for run in runs:
        first, last = run[0], run[-1]
        parents = tuple(int(of_node[i]) for i in links.before[first])
        children = tuple(int(of_node[i]) for i in links.after[last])
        origin, fate = _origin(nodes, links, first), _fate(nodes, links, last, n_steps)
        seen = nodes.step[last] - nodes.step[first] + 1
        if (origin, fate) == ("birth", "disappearance") and seen < min_frames:
            origin = fate = "unconfirmed"
        tracks.append(Track(run, parents, children, origin, fate))
    return tracks, of_node


def _origin(nodes: Nodes, links: Links, first: int) -> str:
    if links.before[first]:
        return "merge" if len(links.before[first]) > 1 else "split"
    if nodes.step[first] == 0:
        return "first-frame"
    return "entered" if nodes.entered[first] else "birth"


def _fate(nodes: Nodes, links: Links, last: int, n_steps: int) -> str:
    if links.after[last]:
        return "split" if len(links.after[last]) > 1 else "merge"
    if nodes.step[last] == n_steps - 1:
        return "last-frame"
    return "left" if nodes.left[last] else "disappearance"


@dataclass(frozen=True)
class Event:
    """A birth, merge, split or disappearance.

    Parameters
    ----------
    kind : str
    step : int
        Frame at which it is first seen.
    node : int
        The new object; for splits and disappearances the old one.
    parents, children : tuple of int
        Track numbers.
    count : int
        k parents of a merge, and k children of a split, count k - 1.
    expected_diameter, merged_diameter : float
        Of a merge: what conserved volume demands, ``(sum d^3)^(1/3)``, and what is there some frames later.
    contact_s : float
        Of a merge of two: when the gap between them closes, extrapolated from their approach.
    """

    kind: str
    step: int
    node: int
    parents: tuple[int, ...]
    children: tuple[int, ...]
    count: int = 1
    expected_diameter: float = math.nan
    merged_diameter: float = math.nan
    contact_s: float = math.nan


def find_events(nodes: Nodes, tracks: list[Track], times_s: np.ndarray) -> list[Event]:
    """Events between the tracks, in the order of time.

    Parameters
    ----------
    nodes : Nodes
    tracks : list of Track
    times_s : ndarray of float
        Time of each step; NaN where unknown.
    """
    events = []
    for number, track in enumerate(tracks):
        first, last = track.nodes[0], track.nodes[-1]
        if track.origin == "birth":
            events.append(Event("birth", int(nodes.step[first]), first, (), (number,)))
        elif track.origin == "merge":
            expected, merged = _volume_check(nodes, tracks, track)
            contact = _contact_time(nodes, [tracks[parent] for parent in track.parents], times_s)
            events.append(
                Event(
                    "merge", int(nodes.step[first]), first, track.parents, (number,), len(track.parents) - 1,
                    expected, merged, contact,
                )
            )  # fmt: skip
        if track.fate == "split":
            step = int(nodes.step[tracks[track.children[0]].nodes[0]])
            events.append(Event("split", step, last, (number,), track.children, len(track.children) - 1))
        elif track.fate == "disappearance":
            events.append(Event("disappearance", int(nodes.step[last]) + 1, last, (number,), ()))
    return sorted(events, key=lambda event: (event.step, EVENTS.index(event.kind)))


def _volume_check(nodes: Nodes, tracks: list[Track], track: Track) -> tuple[float, float]:
    diameters = np.array([nodes.diameter[tracks[parent].nodes[-1]] for parent in track.parents])
    # Just touching discs have the sum of the areas; only a droplet that had time to relax has that of the volumes.
    relaxed = track.nodes[min(_RELAXED_FRAMES, len(track.nodes) - 1)]
    return float(np.cbrt((diameters**3).sum())), float(nodes.diameter[relaxed])


def _contact_time(nodes: Nodes, parents: list[Track], times_s: np.ndarray) -> float:
    """When two discs touch; a mask bridges the last pixel of the gap and shows it too early."""
    if len(parents) != 2:
        return math.nan
    first, second = (np.array(parent.nodes[-_APPROACH_FRAMES:]) for parent in parents)
    both, i, j = np.intersect1d(nodes.step[first], nodes.step[second], return_indices=True)
    if len(both) < 3 or not np.isfinite(times_s[both]).all():
        return math.nan
    first, second = first[i], second[j]
    apart = np.linalg.norm(nodes.centre[first] - nodes.centre[second], axis=1)
    gap = apart - (nodes.diameter[first] + nodes.diameter[second]) / 2
    last, interval = times_s[both[-1]], times_s[both[-1]] - times_s[both[-2]]
    slope, intercept = np.polyfit(times_s[both] - last, gap, 1)
    closes = -intercept / slope if slope < 0 else math.nan
    return float(last + closes) if -interval <= closes <= 5 * interval else math.nan
