"""Side view of columns that are plated and stripped: what darkens, what comes off, what stays from cycle to cycle.

The scene. Columns stand on an electrode, or on the porous interphase that earlier cycles left on it. While metal is
stripped, a front runs from the tops to the base; what it has passed is cut off from current and dead. Some columns come
off at the base at their own moment: then all of them is dead, and a gap opens below. After each cycle the interphase is
thicker by a set step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import Measurement
from seg.stack import Calibration
from seg.synthetic.area import circle, union_area
from seg.synthetic.burnt_in import scale_bar
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Optical
from seg.synthetic.looks import Look, Material, View
from seg.synthetic.recording import box_around, layered, pixel_centers, record

LOOK = Look(
    {
        1: Material(0.72, "smooth", 25.0, 0.012),
        2: Material(0.30, "rolled", 2.0, 0.02),
        3: Material(0.50, "moss", 4.0, 0.06),
        5: Material(0.22, "moss", 3.0, 0.05),
        8: Material(0.40, "fractal", 4.0, 0.05),
    },
    shading=0.05,
)


@dataclass(frozen=True)
class Column:
    """One column: foot position and full-grown size (µm), the waviness of its sides, and when it comes off."""

    x: float
    height_um: float
    half_width_um: float
    wave_um: float
    phase: float
    lean: float
    detach: float  # share of the stripping at which it comes off; above 1: never

    def sides(self, s: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
        """Middle and half width at the height `s` above the foot; the half width is 0 above the round top."""
        top = np.clip((height - s) / self.half_width_um, 0, 1)
        round_top = np.sqrt(top * (2 - top))
        width = self.half_width_um * (1 + 0.12 * np.sin(2 * math.pi * s / self.wave_um + self.phase)) * round_top
        middle = (
            self.x
            + self.lean * s
            + 0.25 * self.half_width_um * np.sin(2 * math.pi * s / (1.7 * self.wave_um) + self.phase)
        )
        return middle, np.where((s >= 0) & (s <= height), width, 0.0)

    def outline(self, foot_um: float, height: float, start: float = 0.0) -> np.ndarray:
        """Polygon (y, x) of the part from `start` above the foot to the top; the foot lies at y = `foot_um`."""
        share = np.linspace(0, 1, 600)
        s = start + (height - start) * (1 - (1 - share) ** 2)  # dense where the top bends
        middle, width = self.sides(s, height)
        left, right = np.column_stack([foot_um - s, middle - width]), np.column_stack([foot_um - s, middle + width])
        return np.vstack([left, right[::-1]])


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (240, 320),
    n_frames: int = 12,
    dial: float = 0.3,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.42, 0.40),
    frame_interval_s: float = 30.0,
    n_cycles: int = 2,
    n_columns: int = 8,
    column_height_um: float = 60.0,
    column_width_um: float = 7.0,
    front_share: float = 0.7,
    detached_share: float = 0.4,
    gap_um: float = 2.5,
    interphase_step_um: float = 5.0,
    interphase_porosity: float = 0.25,
    burnt_in: bool = True,
) -> Experiment:
    """Light microscopy of dead lithium, seen from the side.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
        Shared out evenly among the cycles; the first half of each plates, the second strips.
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level (as dead metal may keep the brightness of live metal).
    variety : float
        How far grey levels and textures stray from the usual ones, 0..1 (`seg.synthetic.looks.Look.seen`).
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    n_cycles, n_columns : int
    column_height_um, column_width_um : float
        Means of the full-grown columns.
    front_share : float
        How far down the tallest column the darkening front has come when stripping ends, as a share of its height.
    detached_share : float
        Share of the columns that come off at the base before stripping ends.
    gap_um : float
        Height of the gap under a column that has come off.
    interphase_step_um, interphase_porosity : float
        By how much the interphase is thicker after each cycle, and the share of pores in it.
    burnt_in : bool
        A scale bar.
    """
    if n_frames < 2 * n_cycles:
        raise UsageError(f"{n_cycles} cycles need at least {2 * n_cycles} frames, not {n_frames}.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = _Scene(seed, parameters)
    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, tuple(float(t) for t in scene.times), "file")
    bar = scale_bar(shape_px, pixel_um[1])
    images, labels, instances = record(
        scene.view,
        (n_frames, *shape_px),
        calibration,
        seed=seed,
        look=LOOK.seen(seed, texture_only=texture_only, variety=variety),
        instrument=Optical(shape_px, seed, dial),
        name=f"dead-{seed}",
        burnt_in=(lambda frame: bar) if burnt_in else None,
    )
    lead_s = 40.0 + seed % 7
    half = float(scene.times[-1]) / (2 * n_cycles)
    steps = [Step(half, sign * 3.0) for _ in range(n_cycles) for sign in (1, -1)]
    return Experiment(
        name=f"dead-{seed}",
        family="dead",
        seed=seed,
        modality="optical",
        images=images,
        labels=labels,
        instances=instances,
        schema=load_schema("lithium"),
        truth=scene.truth(),
        cycler=run_programme(np.random.default_rng([seed, 5]), steps, lead_s=lead_s),
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )


class _Scene:
    """Columns and interphase over the cycles."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.shape, self.pixel = p["shape_px"], p["pixel_um"]
        self.field = (self.shape[0] * self.pixel[0], self.shape[1] * self.pixel[1])
        n, cycles = p["n_frames"], p["n_cycles"]
        self.times = np.arange(n) * p["frame_interval_s"]
        self.cycle = np.minimum(np.arange(n) * cycles // n, cycles - 1)
        first = np.array([int(np.flatnonzero(self.cycle == c)[0]) for c in range(cycles)])
        length = np.array([int((self.cycle == c).sum()) for c in range(cycles)])
        self.step = np.arange(n) - first[self.cycle]
        self.plate_frames = np.maximum(1, length // 2)
        self.strip_frames = length - self.plate_frames
        self.surface_um = 0.88 * self.field[0] + np.random.default_rng([seed, 2]).uniform() * self.pixel[0]
        self.columns = [self._columns(np.random.default_rng([seed, 1, c]), c) for c in range(cycles)]
        self.pores = self._pores(np.random.default_rng([seed, 4]))

    def interphase_um(self, frame: int) -> float:
        """Thickness of the interphase."""
        return float(self.cycle[frame]) * self.p["interphase_step_um"]

    def _columns(self, rng: np.random.Generator, c: int) -> list[Column]:
        p = self.p
        slot = self.field[1] / p["n_columns"]
        width = min(p["column_width_um"] / 2, 0.27 * slot)
        tallest = self.surface_um - c * p["interphase_step_um"] - 4 * self.pixel[0]
        off = rng.permutation(p["n_columns"]) < round(p["detached_share"] * p["n_columns"])
        return [
            Column(
                (k + 0.5 + rng.uniform(-0.12, 0.12)) * slot,
                min(p["column_height_um"] * math.exp(rng.normal(0, 0.15)), tallest),
                width * math.exp(rng.normal(0, 0.1)),
                4.0 * p["column_width_um"] * rng.uniform(0.8, 1.3),
                rng.uniform(0, 2 * math.pi),
                rng.normal(0, 0.008),
                rng.uniform(0.25, 0.95) if off[k] else 2.0,
            )
            for k in range(p["n_columns"])
        ]

    def _pores(self, rng: np.random.Generator) -> np.ndarray:
        """Round pores of the interphase (height above the electrode, x, radius), apart, in layers of one cycle each."""
        p, found = self.p, []
        step = p["interphase_step_um"]
        if step < 4 * max(self.pixel):
            return np.empty((0, 3))
        for layer in range(p["n_cycles"] - 1):
            wanted, area = p["interphase_porosity"] * step * self.field[1], 0.0
            for _ in range(4000):
                if area >= wanted:
                    break
                radius = rng.uniform(0.10, 0.22) * step
                height, x = (
                    layer * step + rng.uniform(1.2 * radius, step - 1.2 * radius),
                    rng.uniform(-radius, self.field[1] + radius),
                )
                if all(math.hypot(height - h, x - b) > 1.15 * (radius + r) for h, b, r in found):
                    found.append((height, x, radius))
                    area += math.pi * radius**2
        return np.array(found).reshape(-1, 3)

    def state(self, frame: int) -> tuple[float, float]:
        """Share of the full height that is plated, and share of the stripping that is done."""
        c, step = int(self.cycle[frame]), int(self.step[frame])
        plated = min(1.0, (step + 1) / int(self.plate_frames[c]))
        stripped = max(0.0, (step + 1 - int(self.plate_frames[c])) / max(int(self.strip_frames[c]), 1))
        return plated, stripped

    def front_um(self, frame: int) -> float:
        """Height of the darkening front above the foot of the columns; infinite while nothing is stripped."""
        stripped = self.state(frame)[1]
        if stripped == 0:
            return math.inf
        tallest = max(c.height_um for c in self.columns[int(self.cycle[frame])])
        return tallest * (1 - self.p["front_share"] * stripped)

    def detached(self, frame: int) -> list[bool]:
        """Which columns have come off."""
        return [column.detach <= self.state(frame)[1] for column in self.columns[int(self.cycle[frame])]]

    def view(self, frame: int) -> View:
        """View of a frame."""
        y, x = pixel_centers(self.shape, self.pixel)
        foot = self.surface_um - self.interphase_um(frame)
        s = foot - y  # height above the foot, (Y, 1)
        plated, _ = self.state(frame)
        live, dead = np.full(self.shape, -1e9), np.full(self.shape, -1e9)
        ids = np.zeros(self.shape, np.uint16)
        front = self.front_um(frame)
        for k, (column, off) in enumerate(
            zip(self.columns[int(self.cycle[frame])], self.detached(frame), strict=True), 1
        ):
            middle, width = column.sides(s, plated * column.height_um)
            inside = np.where(width > 0, width - np.abs(x - middle), -1e9)
            if off:
                inside = np.minimum(inside, s - self.p["gap_um"])
            ids[inside > 0] = k
            dead = np.maximum(dead, inside if off else np.minimum(inside, s - front))
            live = np.maximum(live, inside if not off else -1e9)
        crust = np.broadcast_to(self.surface_um - y, self.shape)
        crust = np.minimum(crust, -s + 0 * x)
        for height, at, radius in self.pores:
            box = box_around(self.surface_um - height, at, radius, self.shape, self.pixel)
            away = np.hypot(self.surface_um - y[box[0]] - height, x[:, box[1]] - at)
            crust[box] = np.minimum(crust[box], away - radius)
        layers = [(3, live), (5, dead), (8, crust), (2, y - self.surface_um + 0 * x)]
        flat = layered(self.shape, 1, [(c, d) for c, d in layers if d.max() > -1], self.pixel)
        ids[~np.isin(flat.labels, (3, 5))] = 0
        metal = np.clip(np.maximum(live, dead), 0, None)
        height = np.sqrt(metal * self.p["column_width_um"]) / float(np.mean(self.pixel)) * 0.5
        return View(flat.labels, flat.coverage, ids, height)

    def truth(self) -> list[Measurement]:
        """Rows for every frame, and for the series."""
        rows: list[Measurement] = []
        width = self.field[1]
        for f in range(len(self.times)):
            foot, front, (plated, _) = self.surface_um - self.interphase_um(f), self.front_um(f), self.state(f)
            columns, off = self.columns[int(self.cycle[f])], self.detached(f)
            total = dead = 0.0
            for column, is_off in zip(columns, off, strict=True):
                height = plated * column.height_um
                start = self.p["gap_um"] if is_off else 0.0
                if height <= start:
                    continue
                own = union_area([column.outline(foot, height, start)], self.field, lines=16_384)
                total += own
                if is_off:
                    dead += own
                elif front < height:  # what lies above the front, as the upper part of the field
                    cut = union_area([column.outline(foot, height)], (foot - front, width), lines=16_384)
                    dead += cut

            def row(metric: str, value: float, unit: str, name: str, method: str, f: int = f, **more: object) -> None:
                rows.append(
                    Measurement(
                        metric,
                        float(value),
                        unit,
                        class_name=name,
                        frame=f,
                        time_s=float(self.times[f]),
                        method=method,
                        **more,  # type: ignore[arg-type]
                    )
                )

            if total:
                row("dead_fraction", dead / total, "1", "dead_lithium", "area of dead / all metal columns, scan lines")
            row("covered_area", total, "um2", "deposit+dead_lithium", "outlines, scan lines")
            if math.isfinite(front):
                row("darkening_front_height", front, "um", "dead_lithium", "above the foot of the columns")
            gone = sum(off)
            row("detachment_count", gone, "1", "dead_lithium", "columns that have come off in this cycle", n=gone)
            row("compact_interphase_thickness", self.interphase_um(f), "um", "sei", "parameter: cycles times step")
            if self.interphase_um(f) > 0 and len(self.pores):
                pores = [p for p in self.pores if p[0] < self.interphase_um(f)]
                empty = union_area([circle(self.surface_um - h, x, r) for h, x, r in pores], self.field, lines=16_384)
                row("porosity", empty / (self.interphase_um(f) * width), "1", "sei", "pores / interphase, scan lines")
        last = [int(np.flatnonzero(self.cycle == cycle)[-1]) for cycle in np.unique(self.cycle)]
        gone = sum(sum(self.detached(f)) for f in last)
        rows.append(
            Measurement(
                "detachment_count", float(gone), "1", class_name="dead_lithium", n=gone, method="all cycles together"
            )
        )
        half = self.times[1] - self.times[0] if len(self.times) > 1 else 1.0
        tallest = max(c.height_um for c in self.columns[0])
        speed = (
            tallest * self.p["front_share"] / (int(self.strip_frames[0]) * float(half)) if self.strip_frames[0] else 0.0
        )
        rows.append(
            Measurement(
                "front_velocity", -speed, "um/s", class_name="dead_lithium", method="darkening front, first cycle"
            )
        )
        return rows

    def lineage(self) -> pd.DataFrame:
        """One row per column and cycle."""
        rows = []
        for c, columns in enumerate(self.columns):
            frames = np.flatnonzero(self.cycle == c)
            start, half = float(self.times[frames[0]]), self.p["frame_interval_s"]
            strip = start + int(self.plate_frames[c]) * half
            for k, column in enumerate(columns, 1):
                off = strip + column.detach * int(self.strip_frames[c]) * half if column.detach <= 1 else math.nan
                rows.append((k, c + 1, start, off, self.surface_um - c * self.p["interphase_step_um"], column.x))
        return pd.DataFrame(rows, columns=["object_id", "cycle", "birth_s", "detached_s", "y_um", "x_um"])
