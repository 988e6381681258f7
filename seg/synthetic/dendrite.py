"""Dendrites from the side or from above: needles, columns, ferns, tip-splitting crowns, fractals, and moss.

The scene. A dendrite is a tree of bent branches of constant width (`seg.synthetic.branches`), or of the bonds of a
diffusion-limited aggregate (`seg.synthetic.aggregation`). A trunk's tip moves at a constant velocity; a side branch
starts when the tip has passed and grows at a share of that velocity. A branch ends where it would come closer to
another one than a set gap, so branches never touch, and length, tips and branch points are those of the parameters.
Before a set time only moss grows (the moss-to-dendrite transition).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import Measurement
from seg.stack import Calibration
from seg.synthetic.aggregation import grow_aggregate
from seg.synthetic.area import circle, mask_rectangles, rectangle, ribbon, union_area
from seg.synthetic.branches import Branch, Habit, grow_branches, grow_rods, length_of, rod_aspect_ratio
from seg.synthetic.burnt_in import scale_bar, time_stamp
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Optical, Sem
from seg.synthetic.looks import Look, Material, View
from seg.synthetic.recording import box_around, layered, pixel_centers, record

KINDS = ("needle", "columnar", "fern", "crown", "fractal", "moss", "rod")
SEEN_FROM = ("side", "above")
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
# Modality -> the foil under dendrites that are seen from above.
FOIL = {"sem": Material(0.30, "rolled", 1.5, 0.018), "optical": Material(0.62, "rolled", 1.2, 0.02)}


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (320, 480),
    n_frames: int = 8,
    dial: float = 0.3,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.105, 0.100),
    frame_interval_s: float = 20.0,
    modality: str = "sem",
    kind: str = "fern",
    seen_from: str = "side",
    n_trees: int = 4,
    width_um: float = 0.75,
    height_share: float = 0.8,
    orders: int = 2,
    side_angle_deg: float = 58.0,
    duty: float = 1.0,
    pulse_s: float = 5.0,
    moss_um: float = 0.0,
    moss_until: float = 0.0,
    resolved_px: float = 1.0,
    burnt_in: bool = True,
) -> Experiment:
    """Dendrites in the electron or the light microscope.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    variety : float
        How far grey levels and textures stray from the usual ones, 0..1 (`seg.synthetic.looks.Look.seen`).
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    modality : str
        ``"sem"`` or ``"optical"`` (a capillary cell).
    kind : str
        ``"needle"`` (one kink in most), ``"columnar"``, ``"fern"``, ``"crown"`` (tips that split), ``"fractal"``
        (diffusion-limited aggregation), ``"moss"`` (nothing but moss) or ``"rod"`` (balls that become
        rods, from above).
    seen_from : str
        ``"side"``: on an electrode, as in a capillary cell; ``"above"``: on a foil, several arms from each root.
    n_trees : int
    width_um : float
        Diameter of trunks; side branches are thinner by a fifth per generation.
    height_share : float
        Length of the longest trunk at the end, as a share of the height above the electrode (from above: of half
        of the shorter side of the field).
    orders : int
        Generations of side branches.
    side_angle_deg : float
    duty, pulse_s : float
        Share of the time in which current flows, and the period in which it is switched; 1 = always. While it does,
        tips move as fast as under a steady current.
    moss_um : float
        Height of the moss layer at the end of its growth; 0 = none, or a quarter of the height where only moss grows.
    moss_until : float
        Share of the time during which only moss grows; dendrites start then.
    resolved_px : float
        Gaps between branches, and stubs that count as branches, are those of a mask whose pixels are so many times
        larger: for twins that are measured on a coarser grid than they are drawn on.
    burnt_in : bool
        Scale bar and time.
    """
    if kind not in KINDS:
        raise UsageError(f"There is no kind of dendrite {kind!r}; there are {', '.join(KINDS)}.")
    if seen_from not in SEEN_FROM:
        raise UsageError(f"Dendrites are seen from {' or '.join(map(repr, SEEN_FROM))}, not from {seen_from!r}.")
    if kind == "rod" and seen_from != "above":
        raise UsageError("Rods are drawn from above only; set seen_from to 'above'.")
    if not 0 < duty <= 1 or pulse_s <= 0:
        raise UsageError(f"A duty of {duty:g} at {pulse_s:g} s is no pulse; give a share above 0 up to 1 and a period.")
    if seen_from == "above" and (kind == "moss" or moss_um > 0):
        raise UsageError("Moss is drawn from the side only; leave seen_from at 'side' or moss_um at 0.")
    if resolved_px < 1:
        raise UsageError(f"Masks of pixels {resolved_px:g} times as large resolve no more; give 1 or more.")
    if modality not in SEEN_BY:
        raise UsageError(f"Dendrites are seen in {' or '.join(map(repr, SEEN_BY))}, not in {modality!r}.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = _Scene(seed, parameters)
    look, instrument_of = SEEN_BY[modality]
    if seen_from == "above":
        look = replace(look, materials={**look.materials, 2: FOIL[modality]})
    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, tuple(float(t) for t in scene.times), "file")
    images, labels, instances = record(
        scene.view,
        (n_frames, *shape_px),
        calibration,
        seed=seed,
        look=look.seen(seed, texture_only=texture_only, variety=variety),
        name=f"dendrite-{seed}",
        instrument=instrument_of(shape_px, seed, dial),
        burnt_in=scene.text if burnt_in else None,
    )
    lead_s = 60.0 + seed % 11
    end = float(scene.times[-1]) or 1.0
    steps = [Step(end, 5.0)]
    if duty < 1:
        steps = [
            Step(share * pulse_s, j)
            for _ in range(math.ceil(end / pulse_s))
            for share, j in ((duty, 5.0), (1 - duty, 0.0))
        ]
    cycler = run_programme(np.random.default_rng([seed, 5]), steps, lead_s=lead_s)
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
        self.from_above = p["seen_from"] == "above"
        full_um = p["height_share"] * (min(self.field) / 2 if self.from_above else self.surface_um)
        end = float(self.times[-1])
        self.start_s = p["moss_until"] * end
        self.velocity = full_um / max(end - self.start_s, 1e-9)
        if end == 0:
            self.start_s, self.velocity = -1.0, full_um
        self.habit = Habit(
            p["kind"],
            self.field,
            tuple(side * p["resolved_px"] for side in self.pixel),
            math.inf if self.from_above else self.surface_um,
            0 if p["kind"] == "moss" else p["n_trees"],
            p["orders"],
            p["width_um"],
            full_um,
            p["side_angle_deg"],
        )
        grow = {"fractal": grow_aggregate, "rod": grow_rods}.get(p["kind"], grow_branches)
        self.branches = grow(rng, self.habit)
        self.moss_um = p["moss_um"] or (0.25 * self.surface_um if p["kind"] == "moss" else 0.0)
        self.moss = self._moss(rng)

    def grown_um(self, frame: int) -> float:
        """How far the longest trunk has come."""
        return self._on_s(max(0.0, float(self.times[frame]) - self.start_s)) * self.velocity

    def _on_s(self, time_s: float) -> float:
        """Time out of `time_s` in which current flows."""
        duty, period = self.p["duty"], self.p["pulse_s"]
        if duty == 1:
            return time_s
        whole = math.floor(time_s / period)
        return whole * duty * period + min(time_s - whole * period, duty * period)

    def _moss(self, rng: np.random.Generator) -> np.ndarray:
        """Grains of the moss: height above the electrode, position, radius (µm) when grown."""
        top, width = self.moss_um, self.field[1]
        if top <= 0:
            return np.empty((0, 3))
        foot = int(2.4 * width / top) + 2  # half discs on the electrode that carry the others
        n = foot + int(14 * width / top)
        radius = top * np.concatenate([rng.uniform(0.3, 0.6, foot), rng.uniform(0.10, 0.26, n - foot)])
        height = np.concatenate([np.zeros(foot), rng.uniform(0.1, 1, n - foot) * (top - radius[foot:])])
        return np.column_stack([height, rng.uniform(0, width, n), radius])

    def moss_share(self, frame: int) -> float:
        """Size of the moss in units of its final one."""
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
        for cy, cx, radius in self._grains(frame):
            box = box_around(cy, cx, radius, self.shape, self.pixel)
            moss[box] = np.maximum(moss[box], radius - np.hypot(y[box[0]] - cy, x[:, box[1]] - cx))
        metal = np.maximum(inside, moss)
        if self.from_above:
            view = layered(self.shape, 2, [(4, inside)], self.pixel)
        else:
            layers = [(3, moss)] if len(self.moss) else []
            view = layered(self.shape, 1, [*layers, (4, inside), (2, (y - self.surface_um) + 0 * x)], self.pixel)
        height = np.sqrt(np.clip(metal, 0, None) * 2 * self.p["width_um"]) / float(np.mean(self.pixel)) * 0.5
        ids[view.labels != 4] = 0
        return View(view.labels, view.coverage, ids, np.where((y < self.surface_um) | self.from_above, height, 0))

    def _grains(self, frame: int) -> np.ndarray:
        """Grains of the moss in a frame: y, x, radius."""
        share = self.moss_share(frame)
        if share <= 0:
            return np.empty((0, 3))
        height, x, radius = self.moss.T
        return np.column_stack([self.surface_um - share * height, x, share * radius])

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
            stands_out = length > parent_half + 3 * max(self.habit.pixel_um) or (self.p["kind"] == "rod" and length > 0)
            if stands_out and (branch.parent < 0 or branch.parent in found):
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
            rows += self._cover(f, float(time_s))
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
        if len(self.times) > 1 and self.branches and self.p["kind"] not in ("fractal", "rod"):
            rows.append(
                Measurement(
                    "tip_velocity",
                    self.velocity * self.p["duty"],
                    "um/s",
                    class_name="dendrite",
                    method="of the longest trunk, along itself; mean over pulses",
                )
            )
        if self.start_s > 0 and self.branches:
            rows.append(Measurement("onset_time", self.start_s, "s", class_name="dendrite", method="dendrites start"))
        return rows

    def _rows(
        self, f: int, time_s: float, tree: int | None, which: list[int], counted: dict[int, float]
    ) -> list[Measurement]:
        grown = self.grown_um(f)
        tips, forks = self._ends(which)
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
        ]
        if not self.from_above:
            rows.append(row("dendrite_height", height, "um", "highest point above the electrode"))
        if self.p["kind"] == "rod" and which:
            ratios = [rod_aspect_ratio(counted[k], self.branches[k].width_um) for k in which]
            rows.append(row("aspect_ratio", np.median(ratios), "1", "closed form of a rod with round ends; median"))
        if which:
            rows.append(row("branch_width", area / length, "um", f"length-weighted mean; {stub}"))
        return rows

    def _ends(self, which: list[int]) -> tuple[int, int]:
        """Tips and forks of the branches of the given indices."""
        leaving: dict[tuple, int] = {}  # (branch, place) -> branches that leave it there
        for k in which:
            branch = self.branches[k]
            if branch.parent in which:
                place = (branch.parent, *np.round(branch.points[0], 9))
                leaving[place] = leaving.get(place, 0) + 1
        tips = forks = 0
        for k in which:
            root, tip = ((k, *np.round(self.branches[k].points[end], 9)) for end in (0, -1))
            # A branch that only goes on makes no fork; at an end of its parent it takes two to make one.
            forks += sum(1 for place, n in leaving.items() if place[0] == k and (n > 1 or place not in (root, tip)))
            tips += tip not in leaving
            # Seen from above, the root of a tree with one arm is an end, too.
            tips += self.from_above and self.branches[k].parent < 0 and root not in leaving
        return tips, forks

    def _cover(self, f: int, time_s: float) -> list[Measurement]:
        """Area of dendrites and of the moss between them, without what the text hides."""
        grown, lines = self.grown_um(f), self.shape[0] * math.ceil(4096 / self.shape[0])
        hidden = mask_rectangles(self.text(f), self.pixel) if self.p["burnt_in"] else []
        if not self.from_above:
            hidden.append(rectangle(self.surface_um, -1.0, self.field[0] + 1.0, self.field[1] + 1.0))
        trees = [piece for branch in self.branches for piece in ribbon(branch.visible(grown), branch.width_um)]
        blind = union_area(hidden, self.field, lines=lines)
        dendrites = union_area(trees + hidden, self.field, lines=lines)
        how = {"class_name": "dendrite", "frame": f, "time_s": time_s, "method": "union of outlines, scan lines"}
        rows = [Measurement("covered_area", dendrites - blind, "um2", **how)]  # type: ignore[arg-type]
        if len(self.moss):
            grains = [circle(*grain) for grain in self._grains(f)]
            moss = union_area(grains + trees + hidden, self.field, lines=lines) - dendrites
            rows.append(Measurement("covered_area", moss, "um2", **{**how, "class_name": "deposit"}))  # type: ignore[arg-type]
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
