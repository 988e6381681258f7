"""Plan view of stripping pits over cycles: they open, take facets, and new metal prefers their rims.

The scene. In every cycle pits open at their sites while metal is stripped. A pit's outline is an ellipse whose
semi-axes grow at two rates, and turns from round to a polygon with the size it has reached. While metal is plated,
nuclei grow on the surface around the pits, denser by a set factor within a set distance of a rim. Then the surface is
smooth again; each site is used again in the next cycle with a set probability, off by a small random shift, or lies
anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.stack import Calibration
from seg.synthetic.area import circle, mask_rectangles, union_area
from seg.synthetic.burnt_in import scale_bar
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Optical
from seg.synthetic.looks import Look, Material, View
from seg.synthetic.recording import box_around, layered, pixel_centers, record

LOOK = Look(
    {
        2: Material(0.60, "fractal", 10.0, 0.03),
        3: Material(0.44, "moss", 3.0, 0.05),
        6: Material(0.36, "fractal", 4.0, 0.035),
    },
    shading=0.10,
)


@dataclass(frozen=True)
class Pit:
    """One pit: centre (µm), semi-axes per unit of growth, direction of the major axis, and its facets.

    ``facets`` weighs the polygon with sides facing ``normals`` (radians from the major axis).
    """

    site: int
    y: float
    x: float
    major_um: float
    minor_um: float
    turn: float
    facets: float
    normals: tuple[float, ...]

    def reach(self, phi: np.ndarray) -> np.ndarray:
        """Distance of the rim in the direction `phi` from the major axis, before it is squeezed to the minor one."""
        if not self.facets:
            return np.ones(np.shape(phi))
        cosine = np.cos(np.asarray(phi)[..., None] - np.asarray(self.normals))
        side = np.where(cosine > 0.2, 0.9 / np.maximum(cosine, 0.2), 4.5)
        polygon = np.minimum(np.sum(side**-20.0, axis=-1) ** (-1 / 20), 1.4)
        return 1 - self.facets + self.facets * polygon

    def outline(self, vertices: int = 720) -> np.ndarray:
        """Polygon (y, x), µm."""
        phi = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
        r = self.reach(phi)
        along, across = self.major_um * r * np.cos(phi), self.minor_um * r * np.sin(phi)
        c, s = math.cos(self.turn), math.sin(self.turn)
        return np.column_stack([self.y + along * s + across * c, self.x + along * c - across * s])

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Signed distance inside the rim along the ray from the centre, µm (positive inside)."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        along, across = (y - self.y) * s + (x - self.x) * c, (y - self.y) * c - (x - self.x) * s
        u, v = along / self.major_um, across / self.minor_um
        level = np.hypot(u, v) / self.reach(np.arctan2(v, u))
        away = np.hypot(along, across)
        return np.where(away > 0, away * (1 / np.maximum(level, 1e-9) - 1), self.minor_um)

    @property
    def half_axes_um(self) -> tuple[float, float]:
        """Half axes of the ellipse with the area and the second moments of the outline; facets change them."""
        phi = np.linspace(0, 2 * math.pi, 4_000, endpoint=False)
        u, v = np.cos(phi), np.sin(phi)
        r = self.reach(phi)
        # Moments of the squeezed circle, in sectors: the area goes with r^2, first moments with r^3, second with r^4.
        area = np.mean(r**2) / 2
        first = np.array([np.mean(r**3 * u), np.mean(r**3 * v)]) / (3 * area)
        second = np.array([[np.mean(r**4 * a * b) for b in (u, v)] for a in (u, v)]) / (4 * area)
        squeeze = np.diag([self.major_um, self.minor_um])
        short, long = np.linalg.eigvalsh(squeeze @ (second - np.outer(first, first)) @ squeeze)
        aspect = (long / short) ** 0.25
        radius = math.sqrt(self.area_um2 / math.pi)
        return radius * aspect, radius / aspect

    @property
    def area_um2(self) -> float:
        """Area of the opening; exact for the smooth outline to 1e-6."""
        phi = np.linspace(0, 2 * math.pi, 4_000, endpoint=False)
        return float(np.mean(self.reach(phi) ** 2)) * math.pi * self.major_um * self.minor_um


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (256, 288),
    n_frames: int = 12,
    dial: float = 0.3,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.42, 0.40),
    frame_interval_s: float = 60.0,
    n_cycles: int = 2,
    current_density_mA_cm2: float = 2.0,
    density_per_cm2: float = 1.1e5,
    density_exponent: float = 0.5,
    rate_major_um_s: float | None = None,
    anisotropy: float = 1.35,
    facet_diameter_um: float = 9.0,
    facet_count: int = 6,
    rim_enrichment: float = 5.0,
    rim_width_um: float = 2.0,
    nuclei_per_cm2: float = 4.0e5,
    nucleus_radius_um: float = 1.5,
    memory: float = 0.6,
    memory_shift_um: float = 0.6,
    jitter_px: int = 0,
    burnt_in: bool = True,
) -> Experiment:
    """Light microscopy of stripping pits and of what is plated after them, seen from above.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
        Shared out evenly among the cycles; the first half of each strips, the second plates.
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    variety : float
        How far grey levels and textures stray from the usual ones, 0..1 (`seg.synthetic.looks.Look.seen`).
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    n_cycles : int
    current_density_mA_cm2 : float
    density_per_cm2, density_exponent : float
        Pits at 1 mA/cm2, and the power with which their density rises with the current density.
    rate_major_um_s, anisotropy : float
        Growth of the major semi-axis (default: 0.03, or less so that it ends at 5.4 um at most), and its ratio to that
        of the minor one.
    facet_diameter_um, facet_count : float, int
        Diameter at which half of the transition to facets is done.
    rim_enrichment, rim_width_um : float
        How much denser nuclei are within this distance of a rim than elsewhere on the surface.
    nuclei_per_cm2, nucleus_radius_um : float
        Density away from rims; final radius.
    memory, memory_shift_um : float
        Probability that a site is used again, and the standard deviation of its shift along each axis.
    jitter_px : int
        Largest shift of all frames of a cycle, along each axis (registration between cycles).
    burnt_in : bool
        A scale bar.
    """
    if n_frames < 2 * n_cycles:
        raise UsageError(f"{n_cycles} cycles need at least {2 * n_cycles} frames, not {n_frames}.")
    if rate_major_um_s is None:
        rate_major_um_s = min(0.030, 5.4 / (frame_interval_s * max(1, n_frames // n_cycles // 2)))
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
        name=f"pits-{seed}",
        retouch=None if texture_only else _shade,
        burnt_in=(lambda frame: bar) if burnt_in else None,
    )
    lead_s = 45.0 + seed % 9
    half = float(scene.times[-1]) / (2 * n_cycles)
    steps = [Step(half, sign * current_density_mA_cm2) for _ in range(n_cycles) for sign in (-1, 1)]
    return Experiment(
        name=f"pits-{seed}",
        family="pits",
        seed=seed,
        modality="optical",
        images=images,
        labels=labels,
        instances=instances,
        schema=load_schema("lithium"),
        truth=scene.truth(bar if burnt_in else None),
        cycler=run_programme(np.random.default_rng([seed, 5]), steps, lead_s=lead_s),
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )


def _shade(image: np.ndarray, view: View, frame: int) -> np.ndarray:
    """Hollows: dark with depth, the wall away from the light bright, a thin bright rim."""
    pit = view.coverage[6]
    depth = ndimage.gaussian_filter(np.clip(view.depth, 0, None), 1.0)
    gy, gx = np.gradient(depth)
    rim = np.clip(ndimage.gaussian_filter(pit, 1.2) - pit, 0, None)
    return image - pit * (0.10 * (1 - np.exp(-depth / 4)) + 0.09 * (gx + gy)) + 0.22 * rim


@dataclass(frozen=True)
class _DeepView(View):
    """A view with the depth of the pits (px)."""

    depth: np.ndarray | None = None


class _Scene:
    """Sites, pits and nuclei over the cycles."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.shape, self.pixel = p["shape_px"], p["pixel_um"]
        self.field = (self.shape[0] * self.pixel[0], self.shape[1] * self.pixel[1])
        n, cycles = p["n_frames"], p["n_cycles"]
        self.times = np.arange(n) * p["frame_interval_s"]
        self.cycle = np.minimum(np.arange(n) * cycles // n, cycles - 1)
        first = np.array([int(np.flatnonzero(self.cycle == c)[0]) for c in range(cycles)])
        length = np.array([int((self.cycle == c).sum()) for c in range(cycles)])
        self.step = np.arange(n) - first[self.cycle]  # frame within its cycle
        self.strip_frames = np.maximum(1, length // 2)
        self.plate_frames = length - self.strip_frames
        rng = np.random.default_rng([seed, 1])
        j = p["jitter_px"]
        shifts = rng.integers(-j, j + 1, (cycles, 2)) if j else np.zeros((cycles, 2), int)
        shifts[0] = 0
        self.shift_um = shifts * np.asarray(self.pixel)
        self.sites, self.inherited = self._sites(rng, cycles)
        self.turns = rng.uniform(0, math.pi)
        self.spread = np.exp(np.random.default_rng([seed, 2]).normal(0, 0.15, max(len(s) for s in self.sites)))
        normals = np.random.default_rng([seed, 4])
        base = 2 * math.pi * np.arange(p["facet_count"]) / p["facet_count"]
        self.normals = tuple((base + normals.normal(0, 0.06, p["facet_count"])).tolist())
        self.nuclei = [self._nuclei(rng, c) for c in range(cycles)]

    @property
    def largest_um(self) -> float:
        """Major semi-axis of an average pit when stripping ends."""
        return self.p["rate_major_um_s"] * self.p["frame_interval_s"] * int(self.strip_frames.min())

    def _sites(self, rng: np.random.Generator, cycles: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Positions per cycle (µm, also outside the field), apart; and which site of the cycle before each repeats."""
        p = self.p
        reach = 1.9 * self.largest_um
        low, high = np.full(2, -reach), np.asarray(self.field) + reach
        density = p["density_per_cm2"] * p["current_density_mA_cm2"] ** p["density_exponent"] / UM2_PER_CM2
        wanted = max(1, rng.poisson(density * float(np.prod(high - low))))
        spacing = 2.0 * 1.35 * self.largest_um
        if wanted * spacing**2 > 0.55 * float(np.prod(high - low)):
            raise UsageError("The pits would run into each other; make density_per_cm2 or rate_major_um_s smaller.")
        positions, origin = [], []
        for c in range(cycles):
            placed, source = np.empty((0, 2)), []
            if c:
                for k, old in enumerate(positions[c - 1]):
                    again = old + rng.normal(0, p["memory_shift_um"], 2)
                    if rng.uniform() < p["memory"] and _apart(placed, again, spacing):
                        placed, source = np.vstack([placed, again]), [*source, k]
            for _ in range(200 * wanted):
                if len(placed) >= wanted:
                    break
                trial = rng.uniform(low, high)
                if _apart(placed, trial, spacing):
                    placed, source = np.vstack([placed, trial]), [*source, -1]
            positions.append(placed)
            origin.append(np.asarray(source))
        return positions, origin

    def pits(self, frame: int) -> list[Pit]:
        """Pits of a frame, in the coordinates of the frame."""
        p, c = self.p, int(self.cycle[frame])
        open_s = min(int(self.step[frame]), int(self.strip_frames[c])) * p["frame_interval_s"]
        if open_s <= 0:
            return []
        found = []
        for k, (y, x) in enumerate(self.sites[c] + self.shift_um[c]):
            major = p["rate_major_um_s"] * open_s * self.spread[k]
            found.append(self._pit(k, y, x, major))
        return found

    def _pit(self, site: int, y: float, x: float, major_um: float) -> Pit:
        """A pit of that size, with the facets that go with it."""
        share = 1 / (1 + math.exp(-8 * (2 * major_um / self.p["facet_diameter_um"] - 1)))
        share = share if share > 0.02 else 0.0
        return Pit(site, y, x, major_um, major_um / self.p["anisotropy"], self.turns, share, self.normals)

    def _nuclei(self, rng: np.random.Generator, c: int) -> np.ndarray:
        """Nuclei of a cycle (y, x, final radius), in the coordinates of the scene."""
        p = self.p
        end = int(np.flatnonzero(self.cycle == c)[-1])
        pits = self.pits(end)
        pad = 2 * p["nucleus_radius_um"]
        low, high = np.full(2, -pad), np.asarray(self.field) + pad
        enrichment = max(p["rim_enrichment"], 1.0)
        count = rng.poisson(p["nuclei_per_cm2"] / UM2_PER_CM2 * enrichment * float(np.prod(high - low)))
        points = rng.uniform(low, high, (count, 2)) + self.shift_um[c]
        from_rim = np.full(count, np.inf)
        for pit in pits:
            outline = pit.outline(2000)  # so dense that the nearest corner is as near as the rim
            near = np.hypot(points[:, 0] - pit.y, points[:, 1] - pit.x) < 1.6 * pit.major_um + 2 * p["rim_width_um"]
            if near.any():
                gap = KDTree(outline).query(points[near])[0]
                inside = pit.distance(points[near, 0], points[near, 1]) > 0
                from_rim[near] = np.minimum(from_rim[near], np.where(inside, -1.0, gap))
        weight = (
            np.where(from_rim < 0, 0.0, np.where(from_rim <= p["rim_width_um"], p["rim_enrichment"], 1.0)) / enrichment
        )
        points = points[rng.uniform(size=count) < weight] - self.shift_um[c]
        return np.column_stack([points, p["nucleus_radius_um"] * np.exp(rng.normal(0, 0.15, len(points)))])

    def discs(self, frame: int) -> np.ndarray:
        """Nuclei of a frame (y, x, radius), in its coordinates; empty while metal is stripped."""
        c = int(self.cycle[frame])
        plated = int(self.step[frame]) - int(self.strip_frames[c])
        if plated < 0:
            return np.empty((0, 3))
        share = ((plated + 1) / max(int(self.plate_frames[c]), 1)) ** (1 / 3)
        return np.column_stack([self.nuclei[c][:, :2] + self.shift_um[c], self.nuclei[c][:, 2] * share])

    def view(self, frame: int) -> View:
        """View of a frame."""
        y, x = pixel_centers(self.shape, self.pixel)
        hollow, raised = np.full(self.shape, -1e9), np.full(self.shape, -1e9)
        ids = np.zeros(self.shape, np.uint16)
        for pit in self.pits(frame):
            box = box_around(pit.y, pit.x, 1.5 * pit.major_um, self.shape, self.pixel)
            inside = pit.distance(y[box[0]], x[:, box[1]])
            hollow[box] = np.maximum(hollow[box], inside)
            ids[box][inside > 0] = pit.site + 1
        for cy, cx, radius in self.discs(frame):
            box = box_around(cy, cx, radius, self.shape, self.pixel)
            raised[box] = np.maximum(raised[box], radius - np.hypot(y[box[0]] - cy, x[:, box[1]] - cx))
        flat = layered(self.shape, 2, [(6, hollow), (3, raised)], self.pixel)
        ids[flat.labels != 6] = 0
        size = float(np.mean(self.pixel))
        height = np.sqrt(np.clip(raised, 0, None) * self.p["nucleus_radius_um"]) / size
        return _DeepView(flat.labels, flat.coverage, ids, height, np.clip(hollow, 0, None) / size)

    # Truth

    def truth(self, text: np.ndarray | None) -> list[Measurement]:
        """Rows for every frame, and for the series."""
        rows: list[Measurement] = []
        hidden = np.zeros(self.shape, bool) if text is None else text
        valid = (hidden.size - int(hidden.sum())) * self.pixel[0] * self.pixel[1]
        bar = mask_rectangles(hidden, self.pixel)
        lines = self.shape[0] * math.ceil(4096 / self.shape[0])
        blind = union_area(bar, self.field, lines=lines)
        for f in range(len(self.times)):
            pits, discs = self.pits(f), self.discs(f)
            home = [p for p in pits if self._at_home(p.y, p.x, hidden)]
            outlines = [p.outline() for p in pits]
            circles = [circle(*disc) for disc in discs]
            metal = union_area(circles + bar, self.field, lines=lines) - blind
            opening = union_area(outlines + circles + bar, self.field, lines=lines) - blind - metal

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

            n = len(home)
            row("pit_count", n, "1", "pit", "pits whose centre lies in the valid area", n=n)
            row("pit_density", n / valid * UM2_PER_CM2, "1/cm2", "pit", "pits whose centre lies in the valid area", n=n)
            row("pit_opening_area", opening, "um2", "pit", "total; outlines less deposits and artefacts, scan lines")
            diameters = []
            for pit in home:
                area = pit.area_um2
                diameter = 2 * math.sqrt(area / math.pi)
                diameters.append(diameter)
                row("pit_opening_area", area, "um2", "pit", "outline", object_id=pit.site + 1)
                row("pit_diameter", diameter, "um", "pit", "circle of equal area", object_id=pit.site + 1)
            if home:
                mean = np.mean(diameters)
                row("pit_diameter", mean, "um", "pit", "mean over pits whose centre lies in the valid area", n=n)
            row("valid_area", valid, "um2", "", "field less artefacts")
            row("covered_area", metal, "um2", "deposit", "union of discs less artefacts, scan lines")
            row("covered_fraction", metal / valid, "1", "deposit", "union of discs less artefacts, scan lines")
            seen = sum(self._at_home(y, x, hidden) for y, x, _ in discs)
            row("object_count", seen, "1", "deposit", "nuclei whose centre lies in the valid area", n=seen)
        p = self.p
        major, minor = self._axis_rates()
        how = "slope of the half axis of equal second moments, an average pit"
        series = [
            ("pit_rate_major", major, "um/s", how),
            ("pit_rate_minor", minor, "um/s", how),
            ("pit_anisotropy", major / minor, "1", "ratio of both"),
            ("rim_enrichment", p["rim_enrichment"], "1", f"parameter: within {p['rim_width_um']:g} um of a rim"),
            ("density_current_slope", p["density_exponent"], "1", "parameter"),
        ]
        if p["n_cycles"] > 1:
            series.append(("memory_fraction", p["memory"], "1", "parameter"))
        return rows + [Measurement(m, float(v), u, class_name="pit", method=how) for m, v, u, how in series]

    def _axis_rates(self) -> tuple[float, float]:
        """How fast the half axes of an average pit grow while metal is stripped; facets slow them."""
        p = self.p
        clock = np.arange(1, int(self.strip_frames[0]) + 1) * p["frame_interval_s"]
        axes = np.array([
            self._pit(0, 0.0, 0.0, p["rate_major_um_s"] * open_s).half_axes_um for open_s in clock
        ])  # fmt: skip
        if len(clock) < 2:
            return p["rate_major_um_s"], p["rate_major_um_s"] / p["anisotropy"]
        early, late = np.triu_indices(len(clock), 1)
        slopes = (axes[late] - axes[early]) / (clock[late] - clock[early])[:, None]
        major, minor = np.median(slopes, axis=0)
        return float(major), float(minor)

    def _at_home(self, y: float, x: float, hidden: np.ndarray) -> bool:
        if not (0 <= y < self.field[0] and 0 <= x < self.field[1]):
            return False
        return not hidden[int(y / self.pixel[0]), int(x / self.pixel[1])]

    def lineage(self) -> pd.DataFrame:
        """One row per pit and cycle; ``repeats`` is the pit of the cycle before at the same site."""
        rows = []
        half = self.p["frame_interval_s"]
        for c, (places, source) in enumerate(zip(self.sites, self.inherited, strict=True)):
            start = float(self.times[np.flatnonzero(self.cycle == c)[0]])
            end = float(self.times[np.flatnonzero(self.cycle == c)[-1]]) + half
            for k, ((y, x), old) in enumerate(zip(places, source, strict=True)):
                rows.append((k + 1, c + 1, start, end, int(old) + 1 if old >= 0 else pd.NA, y, x))
        table = pd.DataFrame(rows, columns=["object_id", "cycle", "birth_s", "death_s", "repeats", "y_um", "x_um"])
        return table.astype({"repeats": "Int64"})


def _apart(placed: np.ndarray, point: np.ndarray, spacing: float) -> bool:
    return not len(placed) or float(np.min(np.hypot(*(placed - point).T))) >= spacing
