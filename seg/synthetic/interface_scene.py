"""A solid-state cell as formulas: interface, voids, filaments, isolated metal, cracks; and the truth that follows."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from seg.errors import UsageError
from seg.metrics.table import Measurement
from seg.synthetic.looks import View
from seg.synthetic.recording import box_around, layered
from seg.synthetic.surfaces import Interface, Void, cap_volume


class Scene:
    """Interface, voids, filaments, balls and cracks."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.shape, self.voxel = p["shape_px"], p["voxel_um"]
        self.size = tuple(n * d for n, d in zip(self.shape, self.voxel, strict=True))
        self.times = np.arange(p["n_frames"]) * p["frame_interval_s"]
        rng = np.random.default_rng([seed, 1])
        dz, _, width = self.size
        waves = ()
        if p["waviness_um"] > 0:
            # Whole periods fit the field sideways: the mean height is the level.
            waves = tuple(
                (p["waviness_um"] * a, fy / self.size[1], fx / width, rng.uniform(0, 2 * math.pi))
                for a, fy, fx in ((0.6, 1, 0), (0.5, 0, 1), (0.35, 2, 1))
            )
        way, slope = rng.uniform(0, 2 * math.pi), math.tan(math.radians(p["tilt_deg"]))
        self.interface = Interface(
            0.5 * dz, (slope * math.sin(way), slope * math.cos(way)), (self.size[1] / 2, width / 2), waves
        )
        self.thickness_um = 0.36 * dz  # of the metal; the collector has the tilt of the separator
        self.base = self._bases(rng)
        self.filaments = self._filaments(rng)
        self.balls = self._balls(rng)
        self.cracks = [
            (
                rng.uniform(0.12, 0.25) * self.interface.level_um,
                *(rng.uniform(0.2, 0.8, 2) * self.size[1:]),
                rng.uniform(0.1, 0.2) * width,
                rng.normal(0, 0.15),
                rng.normal(0, 0.15),
            )
            for _ in range(p["n_cracks"])
        ]

    def _bases(self, rng: np.random.Generator) -> np.ndarray:
        """Position and final base radius of the voids, apart from each other and from the border."""
        target = self.p["contact_loss"] * self.size[1] * self.size[2]
        deepest = 0.8 * self.thickness_um
        found: list[tuple[float, float, float]] = []
        covered, tries = 0.0, 0
        while covered < target and tries < 20_000:
            tries += 1
            radius = min(self.p["void_radius_um"] * math.exp(rng.normal(0, 0.3)), deepest)
            radius = (
                min(radius, math.sqrt((target - covered) / math.pi))
                if target - covered > 3.0 * self.voxel[2] ** 2
                else 0
            )
            if radius < 2.5 * max(self.voxel):  # the last one, too small to be a void: enlarge what is there
                break
            # Undercut voids are wider than their base.
            reach = self._widest(radius) + 2 * max(self.voxel)
            y, x = (
                rng.uniform(reach, np.asarray(self.size[1:]) - reach)
                if min(self.size[1:]) > 2 * reach
                else (math.nan,) * 2
            )
            if math.isnan(y):
                raise UsageError("the voids are larger than the field; make void_radius_um smaller or the field wider")
            if all(math.hypot(y - b, x - c) > self._widest(r) + reach for b, c, r in found):
                found.append((y, x, radius))
                covered += math.pi * radius**2
        if not found:
            return np.empty((0, 3))
        bases = np.array(found)
        if covered < target:  # what rejection or the smallest size left over goes to all of them
            bases[:, 2] *= min(math.sqrt(target / covered), 1.08)
        return bases

    def _widest(self, base_radius: float) -> float:
        angle = math.radians(self.p["void_angle_deg"])
        return base_radius / math.sin(angle) if angle > math.pi / 2 else base_radius

    def voids(self, frame: int) -> list[Void]:
        """Voids of a frame; they open while metal is stripped."""
        share = 1.0 if self.p["n_frames"] == 1 else 0.2 + 0.8 * frame / (self.p["n_frames"] - 1)
        angle, found = math.radians(self.p["void_angle_deg"]), []
        for y, x, radius in self.base:
            a = radius * math.sqrt(share)
            here = np.array(y), np.array(x)
            gy, gx = (float(g) for g in self.interface.gradient(*here))
            # Along the normal, the ball's centre lies above the surface for flat caps (angle below 90 degrees).
            rise = a / math.tan(angle) / math.sqrt(1 + gy**2 + gx**2)
            z = float(self.interface.height(*here)) - rise
            found.append(Void(y + rise * gy, x + rise * gx, z, a / math.sin(angle)))
        return found

    def _filaments(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Centre lines (z, y, x) from inside the metal into the separator."""
        p, found = self.p, []
        width = p["filament_width_um"]
        longest = p["filament_depth_share"] * self.interface.level_um
        taken: list[np.ndarray] = []
        for k in range(p["n_filaments"]):
            for _ in range(200):
                y, x = rng.uniform(4 * width, np.asarray(self.size[1:]) - 4 * width)
                clear_of_voids = all(math.hypot(y - b, x - c) > self._widest(r) + 2 * width for b, c, r in self.base)
                line = self._filament(rng, y, x, longest * (1 - 0.25 * k / max(p["n_filaments"], 1)))
                apart = all(np.linalg.norm(line[:, None] - other[None], axis=2).min() > 2.5 * width for other in taken)
                if clear_of_voids and apart:
                    taken.append(line)
                    found.append(line)
                    break
        return found

    def _filament(self, rng: np.random.Generator, y: float, x: float, height: float) -> np.ndarray:
        z0 = float(self.interface.height(np.array(y), np.array(x)))
        z = np.linspace(z0 + self.p["filament_width_um"], z0 - height + self.p["filament_width_um"] / 2, 24)
        sway = np.cumsum(rng.normal(0, 0.10, (24, 2)), axis=0) * (z[0] - z[1])
        line = np.column_stack([z, y + sway[:, 0] - sway[0, 0], x + sway[:, 1] - sway[0, 1]])
        line[:, 1:] = np.clip(
            line[:, 1:], self.p["filament_width_um"], np.asarray(self.size[1:]) - self.p["filament_width_um"]
        )
        return line

    def _balls(self, rng: np.random.Generator) -> np.ndarray:
        """Isolated metal in the separator: z, y, x, radius; their volume is the asked share of all metal."""
        share = self.p["dead_share"]
        live = self._metal_volume(self.p["n_frames"] - 1)
        wanted = share / (1 - share) * live
        if wanted <= 0:
            return np.empty((0, 4))
        count = int(np.clip(round(wanted / (4 / 3 * math.pi * (5 * max(self.voxel)) ** 3)), 1, 12))
        found: list[np.ndarray] = []
        radii = np.exp(rng.normal(0, 0.25, count))
        radii *= (wanted / (4 / 3 * math.pi * np.sum(radii**3))) ** (1 / 3)
        for radius in radii:
            for _ in range(2000):
                pad = radius + 2.5 * max(self.voxel)
                lowest = float(
                    self.interface.height(
                        np.array([0.0, self.size[1]])[:, None], np.array([0.0, self.size[2]])[None]
                    ).min()
                )
                top = lowest - 2 * self.p["waviness_um"] - pad
                if top <= pad or min(self.size[1:]) <= 2 * pad:
                    raise UsageError("the separator is too thin for so much isolated metal; make dead_share smaller")
                place = np.array([rng.uniform(pad, top), *rng.uniform(pad, np.asarray(self.size[1:]) - pad)])
                free = all(np.linalg.norm(place - b[:3]) > pad + b[3] for b in found)
                free &= all(
                    np.linalg.norm(line - place, axis=1).min() > pad + self.p["filament_width_um"]
                    for line in self.filaments
                )
                if free:
                    found.append(np.array([*place, radius]))
                    break
        balls = np.array(found)
        balls[:, 3] *= (wanted / (4 / 3 * math.pi * np.sum(balls[:, 3] ** 3))) ** (1 / 3)
        return balls

    def particles(self, frame: int) -> np.ndarray:
        """Isolated metal of a frame: z, y, x, outer radius, radius of the hollow."""
        p, n = self.p, self.p["n_frames"]
        share = 1.0 if n == 1 else frame / (n - 1)
        away = self.interface.height(self.balls[:, 1], self.balls[:, 2]) - self.balls[:, 0]
        reach = share * np.exp(-np.maximum(away, 0) / p["loss_length_um"])
        outer = self.balls[:, 3] * np.cbrt(1 - p["shrinkage"] * reach)
        return np.column_stack([self.balls[:, :3], outer, self.balls[:, 3] * np.cbrt(p["hollowing"] * reach)])

    # Pixels

    def view(self, frame: int, z: int) -> View:
        """View of one slice."""
        y, x = ((np.arange(n) + 0.5) * d for n, d in zip(self.shape[1:], self.voxel[1:], strict=True))
        y, x, height = y[:, None], x[None], (z + 0.5) * self.voxel[0]
        plane = tuple(self.shape[1:])
        stretch = self.interface.stretch(y, x)
        depth = (height - self.interface.height(y, x)) / stretch
        far = np.full(plane, -1e9)
        hollow, ids, rods, balls, gaps = far.copy(), np.zeros(plane, np.uint16), far.copy(), far.copy(), far.copy()
        cores = far.copy()
        for k, void in enumerate(self.voids(frame), start=1):
            box = self._box(void.y, void.x, void.radius)
            inside = void.radius - np.sqrt(
                (y[box[0]] - void.y) ** 2 + (x[:, box[1]] - void.x) ** 2 + (height - void.z) ** 2
            )
            inside = np.minimum(inside, depth[box])
            ids[box][inside > 0] = k
            hollow[box] = np.maximum(hollow[box], inside)
        for line in self.filaments:
            near = np.abs(line[:, 0] - height) < 3 * self.p["filament_width_um"]
            for a, b in zip(line[:-1][near[:-1]], line[1:][near[:-1]], strict=True):
                middle = (a + b) / 2
                box = self._box(middle[1], middle[2], self.p["filament_width_um"] + np.abs(b - a).max())
                rods[box] = np.maximum(rods[box], self._rod(height, y[box[0]], x[:, box[1]], a, b))
        for k, (bz, by, bx, radius, core) in enumerate(self.particles(frame), start=len(self.base) + 1):
            if abs(bz - height) < radius + 2 * self.voxel[0]:
                away = np.sqrt((y - by) ** 2 + (x - bx) ** 2 + (height - bz) ** 2)
                balls = np.maximum(balls, radius - away)
                if core > 0:
                    cores = np.maximum(cores, core - away)
                    ids[away < core] = k
        for cz, cy, cx, radius, ty, tx in self.cracks:
            flat = 0.7 * max(self.voxel) - np.abs(height - cz - ty * (y - cy) - tx * (x - cx))
            gaps = np.maximum(gaps, np.minimum(flat, radius - np.hypot(y - cy, x - cx)))
        back = self.interface.level_um + self.thickness_um + self.interface.slope[0] * (y - self.interface.pivot_um[0])
        collector = height - back - self.interface.slope[1] * (x - self.interface.pivot_um[1])
        layers = [(7, np.minimum(gaps, -depth)), (5, balls), (7, cores), (4, rods), (3, depth), (7, hollow)]
        layers.append((2, collector))
        view = layered(plane, 9, [(c, d) for c, d in layers if d.max() > -2 * max(self.voxel)], self.voxel)
        ids[view.labels != 7] = 0
        return View(view.labels, view.coverage, ids)

    def _rod(self, z: np.ndarray | float, y: np.ndarray, x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        along = b - a
        share = ((z - a[0]) * along[0] + (y - a[1]) * along[1] + (x - a[2]) * along[2]) / float(along @ along)
        share = np.clip(share, 0, 1)
        away = (
            (z - a[0] - share * along[0]) ** 2 + (y - a[1] - share * along[1]) ** 2 + (x - a[2] - share * along[2]) ** 2
        )
        return self.p["filament_width_um"] / 2 - np.sqrt(away)

    def _box(self, y: float, x: float, reach: float) -> tuple[slice, slice]:
        return box_around(y, x, reach, self.shape[1:], self.voxel[1:])

    # Truth

    @lru_cache(maxsize=64)  # noqa: B019 - a scene lives as long as its experiment
    def _void_sums(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Volume and lost contact area of each void."""
        sums = [void.columns(self.interface, min(self.voxel) / 6) for void in self.voids(frame)]
        return np.array([s[0] for s in sums]), np.array([s[1] for s in sums])

    @lru_cache(maxsize=1)  # noqa: B019
    def _filament_volumes(self) -> tuple[float, ...]:
        """Volume of each filament above the interface, at four points per voxel and axis."""
        found = []
        step = min(self.voxel) / 4
        for line in self.filaments:
            low, high = line.min(0) - self.p["filament_width_um"], line.max(0) + self.p["filament_width_um"]
            axes = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
            inside = 0
            for z in axes[0]:
                near = [
                    self._rod(z, axes[1][:, None], axes[2][None], a, b)
                    for a, b in zip(line[:-1], line[1:], strict=True)
                    if abs((a[0] + b[0]) / 2 - z) < 2 * self.p["filament_width_um"]
                ]
                if near:
                    above = z < self.interface.height(axes[1][:, None], axes[2][None])
                    inside += int(np.sum((np.max(near, axis=0) > 0) & above))
            found.append(inside * step**3)
        return tuple(found)

    def _metal_volume(self, frame: int) -> float:
        """Deposit and dendrite."""
        slab = self.thickness_um * self.size[1] * self.size[2]
        return slab - float(self._void_sums(frame)[0].sum()) + sum(self._filament_volumes())

    def truth(self) -> list[Measurement]:
        """Rows for every volume and void."""
        rows: list[Measurement] = []
        plane = self.size[1] * self.size[2]
        n = 400
        y, x = ((np.arange(n) + 0.5) / n * s for s in self.size[1:])
        area = float(self.interface.stretch(y[:, None], x[None]).mean()) * plane
        # A bent tube has the area of a straight one (Pappus); its round tip is half a ball, its foot is metal to metal.
        radius = self.p["filament_width_um"] / 2
        sides = sum(2 * math.pi * radius * self._free_length(line) + math.pi * radius**2 for line in self.filaments)
        for f, time_s in enumerate(self.times):
            volumes, lost = self._void_sums(f)
            metal = self._metal_volume(f)
            particles = self.particles(f)
            cores = 4 / 3 * math.pi * particles[:, 4] ** 3
            dead = float(4 / 3 * math.pi * np.sum(particles[:, 3] ** 3) - cores.sum())
            cracks = sum(math.pi * c[3] ** 2 * 1.4 * max(self.voxel) for c in self.cracks)
            time = float(time_s) if len(self.times) > 1 else None

            def row(
                metric: str,
                value: float,
                unit: str,
                class_name: str = "void",
                f: int = f,
                t: float | None = time,
                **more: object,
            ) -> None:
                rows.append(Measurement(metric, float(value), unit, class_name=class_name, frame=f, time_s=t, **more))  # type: ignore[arg-type]

            void = float(volumes.sum() + cores.sum()) + cracks
            hollow = int((cores > 0).sum())
            count = len(volumes) + hollow + len(self.cracks)
            row("void_fraction", void / (void + metal), "1", method="void / (void + metal) volume")
            row(
                "void_count",
                count,
                "1",
                n=count,
                method="voids, hollows and cracks",
            )
            row("void_volume", void, "um3", method="total; columns through the balls")
            diameters = np.cbrt(6 * volumes / math.pi)
            for k, (volume, diameter) in enumerate(zip(volumes, diameters, strict=True), start=1):
                row("void_volume", volume, "um3", object_id=k, method="columns through the ball")
                row("void_diameter", diameter, "um", object_id=k, method="ball of equal volume")
                if not self.interface.waves:
                    row("void_sphericity", self._sphericity(volume), "1", object_id=k, method="closed form")
            for k, core in enumerate(cores, start=len(diameters) + 1):
                if core > 0:
                    row("void_volume", core, "um3", object_id=k, method="hollow, closed form")
                    row("void_diameter", np.cbrt(6 * core / math.pi), "um", object_id=k, method="hollow, closed form")
                    row("void_sphericity", 1.0, "1", object_id=k, method="hollow, closed form")
            every = np.concatenate([diameters, np.cbrt(6 * cores[cores > 0] / math.pi)])
            if len(every) and not self.cracks:
                row("void_diameter", every.mean(), "um", n=len(every), method="mean over voids")
            row(
                "contact_loss_fraction",
                float(lost.sum()) / plane,
                "1",
                method="projected contact area under voids / interface",
            )
            row("interface_area", area + sides, "um2", "separator", method="integral over the waves, and the filaments")
            row("interface_area_ratio", area / plane, "1", "separator", method="without filaments, per projected area")
            row("volume", metal, "um3", "deposit+dendrite", method="slab less voids plus filaments")
            row("deposit_volume", metal, "um3", "deposit+dendrite", method="slab less voids plus filaments")
            row("dead_volume", dead, "um3", "dead_lithium", method="balls less their hollows")
            for k, (ball, core) in enumerate(zip(particles, cores, strict=True), start=len(self.base) + 1):
                own = 4 / 3 * math.pi * ball[3] ** 3 - core
                row("volume", own, "um3", "dead_lithium", object_id=k, method="ball less its hollow")
            row("dead_fraction", dead / (dead + metal), "1", "dead_lithium", method="faces; balls / all metal")
            if self.filaments:
                tops = [float(self.interface.height(line[-1, 1], line[-1, 2]) - line[-1, 0]) for line in self.filaments]
                row(
                    "penetration_depth",
                    max(tops) + self.p["filament_width_um"] / 2,
                    "um",
                    "dendrite",
                    method="along z, from the interface to the tip",
                )
                row("percolates", 0.0, "1", "dendrite", method="no filament crosses the separator")
        return rows

    def _free_length(self, line: np.ndarray) -> float:
        """Length of a filament's centre line inside the separator."""
        above = self.interface.height(line[:, 1], line[:, 2]) - line[:, 0]
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        low, high = np.minimum(above[:-1], above[1:]), np.maximum(above[:-1], above[1:])
        return float(np.sum(steps * np.clip(high / np.maximum(high - low, 1e-12), 0, 1) * (high > 0)))

    def _sphericity(self, volume: float) -> float:
        angle = math.radians(self.p["void_angle_deg"])
        base = float(brentq(lambda a: cap_volume(a, angle) - volume, 1e-6, 1e4))
        radius = base / math.sin(angle)
        surface = 2 * math.pi * radius**2 * (1 - math.cos(angle)) + math.pi * base**2
        return math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface

    def lineage(self) -> pd.DataFrame:
        """One row per void, then one per isolated piece of metal (its hollow has the same id)."""
        places = np.concatenate(
            [
                np.column_stack([[float(self.interface.height(b[0], b[1])) for b in self.base], self.base[:, :2]]),
                self.balls[:, :3],
            ]
        )
        n = len(places)
        return pd.DataFrame(
            {
                "object_id": np.arange(1, n + 1),
                "birth_s": 0.0,
                "death_s": math.nan,
                "merged_into": pd.array([pd.NA] * n, dtype="Int64"),
                "y_um": places[:, 1],
                "x_um": places[:, 2],
                "z_um": places[:, 0],
            }
        )
