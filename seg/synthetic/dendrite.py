"""Side view of dendrites that grow from an electrode: needles, ferns, tip-splitting crowns, over a layer of moss.

The scene. A dendrite is a tree of bent branches of constant width. Its trunk's tip moves at a constant velocity; a side
branch starts when the tip has passed and grows at a share of that velocity. A branch ends where it would come closer to
another one than a set gap, so branches never touch, and length, tips and branch points are those of the parameters.
Before a set time only moss grows (the moss-to-dendrite transition).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import Measurement
from seg.stack import Calibration
from seg.synthetic.burnt_in import scale_bar, time_stamp
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Look, Material, Optical, Sem, View
from seg.synthetic.recording import layered, pixel_centers, record

KINDS = ("needle", "fern", "crown")
SEM_LOOK = Look(
    {
        1: Material(0.34, "fractal", 12.0, 0.012),
        2: Material(0.55, "fractal", 6.0, 0.02),
        3: Material(0.62, "moss", 4.0, 0.07),
        4: Material(0.46, "moss", 3.0, 0.05),
    },
    shading=0.10,
    rim=0.34,
    rim_px=1.5,
)
OPTICAL_LOOK = Look(
    {
        1: Material(0.66, "smooth", 20.0, 0.012),
        2: Material(0.22, "rolled", 2.0, 0.02),
        3: Material(0.34, "moss", 4.0, 0.05),
        4: Material(0.26, "moss", 3.0, 0.05),
    },
    shading=0.05,
)

# Modality -> how the scene looks in it, and the instrument.
SEEN_BY = {"sem": (SEM_LOOK, Sem), "optical": (OPTICAL_LOOK, Optical)}


@dataclass(frozen=True)
class Branch:
    """A bent branch.

    Parameters
    ----------
    points : ndarray (n, 2)
        Centre line (y, x), µm, from the parent's centre line (trunk: from the surface) to the tip.
    width_um : float
    start_um : float
        How far the trunk's tip has come when the branch starts.
    speed : float
        Its velocity in units of the trunk's.
    parent : int
        Index of its parent; -1 for a trunk.
    tree : int
        Id of the dendrite.
    """

    points: np.ndarray
    width_um: float
    start_um: float
    speed: float
    parent: int
    tree: int

    @property
    def full_length_um(self) -> float:
        """Length of the centre line when grown out."""
        return float(np.hypot(*np.diff(self.points, axis=0).T).sum())

    def visible(self, grown_um: float) -> np.ndarray:
        """Centre line as far as it has grown when the trunk's tip has come `grown_um`; empty before its start."""
        length = (grown_um - self.start_um) * self.speed
        if length <= 0:
            return np.empty((0, 2))
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(self.points, axis=0).T))])
        if length >= along[-1]:
            return self.points
        keep = along < length
        end = [np.interp(length, along, self.points[:, axis]) for axis in range(2)]
        return np.vstack([self.points[keep], end])


def length_of(line: np.ndarray) -> float:
    """Length of a polyline."""
    return float(np.hypot(*np.diff(line, axis=0).T).sum()) if len(line) > 1 else 0.0


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (320, 480),
    n_frames: int = 8,
    dial: float = 0.3,
    texture_only: bool = False,
    pixel_um: tuple[float, float] = (0.105, 0.100),
    frame_interval_s: float = 20.0,
    modality: str = "sem",
    kind: str = "fern",
    n_trees: int = 4,
    width_um: float = 0.75,
    height_share: float = 0.8,
    orders: int = 2,
    side_angle_deg: float = 58.0,
    moss_um: float = 0.0,
    moss_until: float = 0.0,
    burnt_in: bool = True,
) -> Experiment:
    """Dendrites seen from the side, in the electron or the light microscope.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    modality : str
        ``"sem"`` or ``"optical"`` (a capillary cell).
    kind : str
        ``"needle"``, ``"fern"`` or ``"crown"``.
    n_trees : int
    width_um : float
        Diameter of trunks; side branches are thinner by a fifth per generation.
    height_share : float
        Length of the longest trunk at the end, as a share of the height above the electrode.
    orders : int
        Generations of side branches.
    side_angle_deg : float
    moss_um : float
        Height of the moss layer at the end of its growth; 0 = none.
    moss_until : float
        Share of the time during which only moss grows; dendrites start then.
    burnt_in : bool
        Scale bar and time.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no kind of dendrite {kind!r}; there are {', '.join(KINDS)}.")
    if modality not in SEEN_BY:
        raise UsageError(f"Dendrites are seen in {' or '.join(map(repr, SEEN_BY))}, not in {modality!r}.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = _Scene(seed, parameters)
    look, instrument_of = SEEN_BY[modality]
    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, tuple(float(t) for t in scene.times), "file")
    images, labels, instances = record(
        scene.view,
        (n_frames, *shape_px),
        calibration,
        seed=seed,
        look=look.texture_only() if texture_only else look,
        name=f"dendrite-{seed}",
        instrument=instrument_of(shape_px, seed, dial),
        burnt_in=scene.text if burnt_in else None,
    )
    lead_s = 60.0 + seed % 11
    cycler = run_programme(np.random.default_rng([seed, 5]), [Step(float(scene.times[-1]) or 1.0, 5.0)], lead_s=lead_s)
    return Experiment(
        name=f"dendrite-{seed}",
        family="dendrite",
        seed=seed,
        modality=modality,
        images=images,
        labels=labels,
        instances=instances,
        schema=load_schema("lithium"),
        truth=scene.truth(),
        cycler=cycler,
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )


class _Scene:
    """Branches of all dendrites, and the moss."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.shape, self.pixel = p["shape_px"], p["pixel_um"]
        self.field = (self.shape[0] * self.pixel[0], self.shape[1] * self.pixel[1])
        self.times = np.arange(p["n_frames"]) * p["frame_interval_s"]
        rng = np.random.default_rng([seed, 1])
        self.surface_um = 0.86 * self.field[0] + rng.uniform() * self.pixel[0]
        self.gap_um = 4.5 * max(self.pixel)  # clear space between branches, so that a mask can resolve them
        end = float(self.times[-1])
        self.start_s = p["moss_until"] * end
        self.velocity = p["height_share"] * self.surface_um / max(end - self.start_s, 1e-9)
        if end == 0:
            self.start_s, self.velocity = -1.0, p["height_share"] * self.surface_um
        self.branches = self._grow(rng)
        self.moss = self._moss(rng)

    def grown_um(self, frame: int) -> float:
        """How far the longest trunk has come."""
        return max(0.0, (float(self.times[frame]) - self.start_s) * self.velocity)

    def _grow(self, rng: np.random.Generator) -> list[Branch]:
        p = self.p
        n, width = p["n_trees"], self.field[1]
        full = p["height_share"] * self.surface_um
        roots = (np.arange(n) + 0.5 + rng.uniform(-0.16, 0.16, n)) / n * width
        heads = rng.permutation(np.linspace(1.0, 0.55, n)) if n > 1 else np.ones(1)
        # Branches that start first are laid first: what comes later has to give way.
        todo: list[tuple[float, int, tuple]] = []
        for k in range(n):
            turn = math.pi / 2 + rng.normal(0, 0.10)
            heapq.heappush(
                todo, (0.0, k, ((self.surface_um, roots[k]), turn, full * heads[k], 0, float(heads[k]), -1, k + 1))
            )
        laid: list[Branch] = []
        serial = n
        while todo and len(laid) < 400:
            start, _, (point, heading, length, order, speed, parent, tree) = heapq.heappop(todo)
            branch_width = p["width_um"] * 0.8**order
            line = self._line(rng, point, heading, length, branch_width, laid, parent)
            # A stub shorter than this would not stand out of its parent.
            if length_of(line) < 1.5 * branch_width + 5 * max(self.pixel):
                continue
            laid.append(Branch(line, branch_width, start, speed, parent, tree))
            me = len(laid) - 1
            for child in self._children(rng, laid[me], order, heading, tree, me):
                serial += 1
                heapq.heappush(todo, (child[0], serial, child[1]))
        return laid

    def _line(
        self,
        rng: np.random.Generator,
        point: tuple[float, float],
        heading: float,
        length: float,
        width: float,
        laid: list[Branch],
        parent: int,
    ) -> np.ndarray:
        """Centre line up to where it would leave the field or come too close to another branch."""
        step = max(2.0 * width, 4 * max(self.pixel))
        n = max(1, math.ceil(length / step))
        bend = 0.0 if self.p["kind"] == "needle" else 0.07
        kink = self.p["kind"] == "needle" and rng.uniform() < 0.6
        kink_at = int(rng.integers(1, n)) if kink and n > 2 else -1
        others = [b for k, b in enumerate(laid) if k != parent]
        starts = np.concatenate([b.points[:-1] for b in others]) if others else np.empty((0, 2))
        ends = np.concatenate([b.points[1:] for b in others]) if others else np.empty((0, 2))
        reach = np.concatenate([np.full(len(b.points) - 1, b.width_um / 2) for b in others]) if others else np.empty(0)
        line = [np.asarray(point, float)]
        margin = width / 2 + 2 * max(self.pixel)
        for k in range(n):
            heading += rng.normal(0, bend)
            if k == kink_at:
                heading += rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
            tip = line[-1] + step * np.array([-math.sin(heading), math.cos(heading)])
            if not (margin < tip[0] < self.surface_um - 1.2 * width and margin < tip[1] < self.field[1] - margin):
                break
            if len(starts):
                probe = np.linspace(line[-1], tip, 5)[1:]
                clear = _distance(probe, starts, ends) - reach - width / 2
                if clear.min() < self.gap_um:
                    break
            if parent >= 0 and k > 0:  # not back to its own parent either
                mother = laid[parent]
                clear = _distance(tip[None], mother.points[:-1], mother.points[1:]) - mother.width_um / 2 - width / 2
                if clear.min() < self.gap_um:
                    break
            line.append(tip)
        return np.array(line)

    def _children(
        self, rng: np.random.Generator, branch: Branch, order: int, heading: float, tree: int, me: int
    ) -> list[tuple]:
        p = self.p
        if order >= p["orders"] or p["kind"] == "needle":
            return []
        length, found = branch.full_length_um, []
        side = math.radians(p["side_angle_deg"])
        child_width = p["width_um"] * 0.8 ** (order + 1)
        if p["kind"] == "crown":
            tip = branch.points[-1]
            last = branch.points[-1] - branch.points[-2]
            turn = math.atan2(-last[0], last[1])
            for sign in (-1, 1):
                begin = branch.start_um + length / branch.speed
                found.append(
                    (
                        begin,
                        (
                            tuple(tip),
                            turn + sign * 0.6 * side * rng.uniform(0.8, 1.2),
                            0.75 * length * rng.uniform(0.7, 1.1),
                            order + 1,
                            branch.speed,
                            me,
                            tree,
                        ),
                    )
                )
            return found
        spacing = 2.2 * (child_width + self.gap_um)
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(branch.points, axis=0).T))])
        at = spacing * rng.uniform(0.8, 1.2)
        sign = rng.choice([-1, 1])
        while at < length - spacing:
            point = tuple(float(np.interp(at, along, branch.points[:, axis])) for axis in range(2))
            piece = min(int(np.searchsorted(along, at)), len(along) - 1)
            way = branch.points[piece] - branch.points[piece - 1]
            turn = math.atan2(-way[0], way[1]) + sign * side * rng.uniform(0.85, 1.15)
            begin = branch.start_um + at / branch.speed + 0.6 * spacing
            found.append(
                (begin, (point, turn, 0.62 * (length - at) + spacing, order + 1, 0.6 * branch.speed, me, tree))
            )
            sign = -sign
            at += spacing * rng.uniform(0.55, 0.8)
        return found

    def _moss(self, rng: np.random.Generator) -> np.ndarray:
        """Humps of the moss: position, final radius (µm)."""
        if self.p["moss_um"] <= 0:
            return np.empty((0, 2))
        n = int(2.4 * self.field[1] / self.p["moss_um"]) + 2
        return np.column_stack([rng.uniform(0, self.field[1], n), self.p["moss_um"] * rng.uniform(0.55, 1.0, n)])

    def moss_share(self, frame: int) -> float:
        """Radius of the humps in units of their final one."""
        if not len(self.moss):
            return 0.0
        until = self.start_s if self.start_s > 0 else float(self.times[-1])
        return min(1.0, max(0.0, float(self.times[frame]) / until) ** 0.5) if until > 0 else 1.0

    def text(self, frame: int) -> np.ndarray:
        """Burnt-in pixels."""
        return scale_bar(self.shape, self.pixel[1]) | time_stamp(self.shape, float(self.times[frame]))

    def view(self, frame: int) -> View:
        """View of a frame."""
        y, x = pixel_centers(self.shape, self.pixel)
        inside = np.full(self.shape, -1e9)
        ids = np.zeros(self.shape, np.uint16)
        for branch in self.branches:
            line = branch.visible(self.grown_um(frame))
            for a, b in zip(line[:-1], line[1:], strict=True):
                self._lay(inside, ids, y, x, a, b, branch)
        moss = np.full(self.shape, -1e9)
        for center, radius in self.moss:
            r = radius * self.moss_share(frame)
            if r > 0:
                moss = np.maximum(moss, r - np.hypot(y - self.surface_um, x - center))
        layers = [(3, moss)] if len(self.moss) else []
        view = layered(self.shape, 1, [*layers, (4, inside), (2, (y - self.surface_um) + 0 * x)], self.pixel)
        metal = np.maximum(inside, moss)
        height = np.sqrt(np.clip(metal, 0, None) * 2 * self.p["width_um"]) / float(np.mean(self.pixel)) * 0.5
        ids[view.labels != 4] = 0
        return View(view.labels, view.coverage, ids, np.where(y < self.surface_um, height, 0))

    def _lay(
        self,
        inside: np.ndarray,
        ids: np.ndarray,
        y: np.ndarray,
        x: np.ndarray,
        a: np.ndarray,
        b: np.ndarray,
        branch: Branch,
    ) -> None:
        pad = branch.width_um / 2 + 2 * max(self.pixel)
        low = np.floor((np.minimum(a, b) - pad) / self.pixel).astype(int)
        high = np.ceil((np.maximum(a, b) + pad) / self.pixel).astype(int)
        box = tuple(slice(max(a, 0), max(min(b, n), 0)) for a, b, n in zip(low, high, self.shape, strict=True))
        yy, xx = y[box[0]], x[:, box[1]]
        along = b - a
        share = np.clip(((yy - a[0]) * along[0] + (xx - a[1]) * along[1]) / float(along @ along), 0, 1)
        depth = branch.width_um / 2 - np.hypot(yy - a[0] - share * along[0], xx - a[1] - share * along[1])
        better = depth > inside[box]
        inside[box][better] = depth[better]
        ids[box][better & (depth > 0)] = branch.tree

    # Truth

    def counted(self, frame: int) -> dict[int, float]:
        """Visible length of the branches that stand out of their parent, by index."""
        grown, found = self.grown_um(frame), {}
        for k, branch in enumerate(self.branches):
            length = length_of(branch.visible(grown))
            parent_half = self.branches[branch.parent].width_um / 2 if branch.parent >= 0 else 0.0
            if length > parent_half + 3 * max(self.pixel) and (branch.parent < 0 or branch.parent in found):
                found[k] = length
        return found

    def truth(self) -> list[Measurement]:
        """Rows for every frame, and for every dendrite in it."""
        rows: list[Measurement] = []
        for f, time_s in enumerate(self.times):
            counted = self.counted(f)
            trees = sorted({self.branches[k].tree for k in counted})
            groups: list[tuple[int | None, list[int]]] = [
                (t, [k for k in counted if self.branches[k].tree == t]) for t in trees
            ]
            groups.append((None, list(counted)))
            for tree, which in groups:
                rows += self._rows(f, float(time_s), tree, which, counted)
            rows.append(
                Measurement(
                    "object_count",
                    len(trees),
                    "1",
                    class_name="dendrite",
                    frame=f,
                    time_s=float(time_s),
                    n=len(trees),
                    method="dendrites",
                )
            )
        if len(self.times) > 1:
            rows.append(
                Measurement(
                    "tip_velocity",
                    self.velocity,
                    "um/s",
                    class_name="dendrite",
                    method="of the longest trunk, along itself",
                )
            )
        if self.start_s > 0:
            rows.append(Measurement("onset_time", self.start_s, "s", class_name="dendrite", method="dendrites start"))
        return rows

    def _rows(
        self, f: int, time_s: float, tree: int | None, which: list[int], counted: dict[int, float]
    ) -> list[Measurement]:
        grown = self.grown_um(f)
        children = {k: [c for c in which if self.branches[c].parent == k] for k in which}
        tips = 0
        forks = 0
        for k in which:
            # Two branches that start at one tip make one fork, and that tip is none.
            at_tip = [c for c in children[k] if np.allclose(self.branches[c].points[0], self.branches[k].points[-1])]
            tips += 0 if at_tip else 1
            forks += len(children[k]) - len(at_tip) + (1 if len(at_tip) > 1 else 0)
        length = sum(counted[k] for k in which)
        area = sum(counted[k] * self.branches[k].width_um for k in which)
        height = max(
            (
                self.surface_um - self.branches[k].visible(grown)[:, 0].min() + self.branches[k].width_um / 2
                for k in which
            ),
            default=0.0,
        )

        def row(metric: str, value: float, unit: str, method: str) -> Measurement:
            return Measurement(
                metric, float(value), unit, class_name="dendrite", frame=f, time_s=time_s, object_id=tree, method=method
            )

        stub = "branches that stand out of their parent by 3 px"
        rows = [
            row("skeleton_length", length, "um", f"centre lines; {stub}"),
            row("tip_count", tips, "1", stub),
            row("branch_point_count", forks, "1", stub),
            row("dendrite_height", height, "um", "highest point above the electrode"),
        ]
        if which:
            rows.append(row("branch_width", area / length, "um", f"length-weighted mean; {stub}"))
        return rows

    def lineage(self) -> pd.DataFrame:
        """One row per dendrite."""
        trunks = [b for b in self.branches if b.parent < 0]
        return pd.DataFrame(
            {
                "object_id": [b.tree for b in trunks],
                "birth_s": self.start_s if self.start_s > 0 else 0.0,
                "death_s": math.nan,
                "merged_into": pd.array([pd.NA] * len(trunks), dtype="Int64"),
                "y_um": [b.points[0, 0] for b in trunks],
                "x_um": [b.points[0, 1] for b in trunks],
            }
        )


def _distance(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Distances of points (P, 2) to segments (S, 2); shape (P, S)."""
    along = ends - starts
    away = points[:, None] - starts[None]
    share = np.clip((away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30), 0, 1)
    return np.linalg.norm(away - share[..., None] * along, axis=-1)
