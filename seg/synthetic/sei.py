"""Cryo-EM of metal under an interphase shell: round cores and kinked whiskers in frozen electrolyte.

The scene. A core is a disc; the outer boundary of its shell lies at ``radius + t(phi)`` with a thickness that is
uniform, wavy or random in angle, so the distance from any outer point to the core is t itself. A gap leaves a sector of
the core bare. A whisker is a kinked rod; its shell is everything closer than t. Inside the shell, crystallites show
fringes: all through it (mosaic) or in its inner half (layered).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import Measurement
from seg.stack import Calibration
from seg.synthetic.burnt_in import scale_bar
from seg.synthetic.experiment import Experiment
from seg.synthetic.fields import fringes
from seg.synthetic.imaging import Tem
from seg.synthetic.looks import Look, Material, View
from seg.synthetic.recording import pixel_centers, record, share_inside

SHELLS = ("uniform", "wavy", "random")
INTERIORS = ("amorphous", "mosaic", "layered")
_ANGLES = 20_000


@dataclass(frozen=True)
class Particle:
    """A round core and its shell, µm.

    ``waves`` are (order, amplitude, phase) of the thickness; between the angles of ``gap`` there is no shell.
    """

    y: float
    x: float
    radius_um: float
    thickness_um: float
    waves: tuple[tuple[int, float, float], ...] = ()
    gap: tuple[float, float] = (0.0, 0.0)

    def thickness(self, phi: np.ndarray) -> np.ndarray:
        """Shell thickness in a direction, the gap left aside."""
        t = np.full(np.shape(phi), self.thickness_um)
        for order, amplitude, phase in self.waves:
            t = t + amplitude * np.cos(order * phi + phase)
        return t

    def in_gap(self, phi: np.ndarray) -> np.ndarray:
        """Where the core is bare."""
        return np.mod(phi - self.gap[0], 2 * math.pi) < self.gap[1] - self.gap[0]

    @property
    def reach_um(self) -> float:
        """Radius of the circle around it all."""
        return self.radius_um + self.thickness_um + sum(abs(a) for _, a, _ in self.waves)

    def distances(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed distances inside of core and of core plus shell, and depth in the shell (0 inner to 1 outer face)."""
        away, phi = np.hypot(y - self.y, x - self.x), np.arctan2(y - self.y, x - self.x)
        t = self.thickness(phi)
        outer = self.radius_um + np.where(self.in_gap(phi), 0.0, t) - away
        return self.radius_um - away, outer, (away - self.radius_um) / t

    def profile(self) -> tuple[np.ndarray, np.ndarray]:
        """Thickness along the outer boundary and the arc length each value stands for."""
        phi = (np.arange(_ANGLES) + 0.5) / _ANGLES * 2 * math.pi
        keep = ~self.in_gap(phi)
        t = self.thickness(phi)
        slope = np.zeros_like(phi)
        for order, amplitude, phase in self.waves:
            slope -= order * amplitude * np.sin(order * phi + phase)
        arc = np.hypot(self.radius_um + t, slope) * 2 * math.pi / _ANGLES
        return t[keep], arc[keep]

    @property
    def coverage(self) -> float:
        """Share of the core's perimeter under shell."""
        return 1 - (self.gap[1] - self.gap[0]) / (2 * math.pi)


@dataclass(frozen=True)
class Whisker:
    """A kinked rod (points (y, x), µm) and its even shell."""

    points: np.ndarray
    radius_um: float
    thickness_um: float

    def distances(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As for `Particle`."""
        away = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf)
        for a, b in zip(self.points[:-1], self.points[1:], strict=True):
            along = b - a
            share = np.clip(((y - a[0]) * along[0] + (x - a[1]) * along[1]) / float(along @ along), 0, 1)
            away = np.minimum(away, np.hypot(y - a[0] - share * along[0], x - a[1] - share * along[1]))
        outer = self.radius_um + self.thickness_um - away
        return self.radius_um - away, outer, (away - self.radius_um) / self.thickness_um

    def boundary_length(self) -> float:
        """Length of the outer boundary; kinks cost on one side what they give on the other, but for rounding."""
        r = self.radius_um + self.thickness_um
        along = np.diff(self.points, axis=0)
        turns = np.abs(np.diff(np.unwrap(np.arctan2(along[:, 0], along[:, 1]))))
        return float(2 * np.hypot(*along.T).sum() + 2 * math.pi * r + np.sum(r * turns - 2 * r * np.tan(turns / 2)))


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (320, 320),
    n_frames: int = 1,
    dial: float = 0.35,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.00042, 0.00040),
    frame_interval_s: float = 0.5,
    n_particles: int = 3,
    core_radius_um: float = 0.017,
    thickness_um: float = 0.006,
    shell: str = "wavy",
    relative_sd: float = 0.15,
    gap_deg: float = 0.0,
    interior: str = "mosaic",
    crystalline_share: float = 0.35,
    n_whiskers: int = 1,
    whisker_radius_um: float = 0.008,
    n_kinks: int = 1,
    electrolyte_contrast: float = 0.13,
    damage_frames: float = 0.0,
    burnt_in: bool = True,
) -> Experiment:
    """Cryo-EM of interphase shells on lithium.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
        More than one: exposures of the same place.
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    variety : float
        How far grey levels and textures stray from the usual ones, 0..1 (`seg.synthetic.looks.Look.seen`).
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    n_particles : int
    core_radius_um, thickness_um : float
        Means over the particles.
    shell : str
        ``"uniform"``, ``"wavy"`` (one sine) or ``"random"`` (many harmonics).
    relative_sd : float
        Standard deviation of the thickness over its mean, for shells that are not uniform.
    gap_deg : float
        Sector of each core without shell.
    interior : str
        ``"amorphous"``, ``"mosaic"`` or ``"layered"`` (crystallites in the inner half only).
    crystalline_share : float
        Share of the shell's area in crystallites.
    n_whiskers : int
    whisker_radius_um : float
    n_kinks : int
    electrolyte_contrast : float
        Grey level of the frozen electrolyte above that of the shell.
    damage_frames : float
        Frames until the beam has halved fine contrast; 0 = none.
    burnt_in : bool
        A scale bar.
    """
    if shell not in SHELLS:
        raise UsageError(f"There is no shell {shell!r}; there are {', '.join(SHELLS)}.")
    if interior not in INTERIORS:
        raise UsageError(f"There is no shell interior {interior!r}; there are {', '.join(INTERIORS)}.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = _Scene(seed, parameters)
    sei = 0.42
    look = Look(
        {
            1: Material(sei + electrolyte_contrast, "fractal", 6.0, 0.02),
            3: Material(0.70, "smooth", 8.0, 0.012),
            4: Material(0.70, "smooth", 8.0, 0.012),
            8: Material(sei, "smooth", 2.0, 0.03),
        }
    )
    times = tuple(float(t) for t in np.arange(n_frames) * frame_interval_s)
    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, times, "file")
    bar = scale_bar(shape_px, pixel_um[1], unit_nm=True)
    images, labels, instances = record(
        scene.view,
        (n_frames, *shape_px),
        calibration,
        seed=seed,
        look=look.seen(seed, texture_only=texture_only, variety=variety),
        instrument=Tem(
            shape_px, seed, dial, pixel_nm=pixel_um[1] * 1000, defocus_um=0.5, frames_of_damage=damage_frames
        ),
        name=f"sei-{seed}",
        retouch=None if texture_only else scene.crystals,
        burnt_in=(lambda frame: bar) if burnt_in else None,
    )
    return Experiment(
        name=f"sei-{seed}",
        family="sei",
        seed=seed,
        modality="cryoem",
        images=images,
        labels=labels,
        instances=instances,
        schema=load_schema("lithium"),
        truth=scene.truth(n_frames, times),
        lineage=scene.lineage(),
        parameters=parameters,
    )


class _Scene:
    """Particles and whiskers, and where their shells are crystalline."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.seed, self.shape, self.pixel = seed, p["shape_px"], p["pixel_um"]
        self.field = (self.shape[0] * self.pixel[0], self.shape[1] * self.pixel[1])
        rng = np.random.default_rng([seed, 1])
        self.whiskers = [self._whisker(rng, k) for k in range(p["n_whiskers"])]
        self.particles: list[Particle] = []
        for _ in range(p["n_particles"]):
            self._place(rng)
        self.grain_um = max(0.0022, 5.0 * max(self.pixel))
        n = max(4, round(float(np.prod(np.asarray(self.field) / self.grain_um + 2))))
        self.grain_seeds = rng.uniform(-self.grain_um, np.asarray(self.field) + self.grain_um, (n, 2))
        self.grain_level = rng.uniform(size=n)

    def _whisker(self, rng: np.random.Generator, k: int) -> Whisker:
        p, (height, width) = self.p, self.field
        margin = p["whisker_radius_um"] + p["thickness_um"] + 6 * max(self.pixel)
        pieces = p["n_kinks"] + 1
        # In the upper part of the field, from left to right, so that particles find their place below.
        y = margin + (0.12 + 0.2 * k) * height + rng.uniform(0, 0.05) * height
        x = np.linspace(margin + 0.03 * width, width - margin - 0.03 * width, pieces + 1)
        rise = 0.10 * height * np.where(np.arange(pieces + 1) % 2, 1.0, 0.0) * rng.uniform(0.6, 1.0)
        return Whisker(
            np.column_stack([y + rise, x]), p["whisker_radius_um"], p["thickness_um"] * math.exp(rng.normal(0, 0.1))
        )

    def _place(self, rng: np.random.Generator) -> None:
        p = self.p
        scale = 1.0
        for _ in range(4000):
            scale *= 0.9995
            radius, t = (
                p["core_radius_um"] * math.exp(rng.normal(0, 0.15)) * scale,
                p["thickness_um"] * math.exp(rng.normal(0, 0.1)),
            )
            spread = p["relative_sd"] * t
            waves: tuple[tuple[int, float, float], ...] = ()
            if p["shell"] == "wavy":
                waves = ((int(rng.integers(3, 8)), math.sqrt(2) * spread, float(rng.uniform(0, 2 * math.pi))),)
            elif p["shell"] == "random":
                k = np.arange(2, 14)
                amplitude = rng.normal(size=len(k)) / k**0.7
                amplitude *= math.sqrt(2) * spread / math.sqrt(float(np.sum(amplitude**2)))
                waves = tuple(
                    (int(a), float(b), float(c))
                    for a, b, c in zip(k, amplitude, rng.uniform(0, 2 * math.pi, len(k)), strict=True)
                )
            start, gap = rng.uniform(0, 2 * math.pi), math.radians(p["gap_deg"])
            particle = Particle(0, 0, radius, t, waves, (start, start + gap))
            pad = particle.reach_um + 6 * max(self.pixel)
            if min(self.field) <= 2 * pad:
                continue
            y, x = rng.uniform(pad, np.asarray(self.field) - pad)
            if y > 0.88 * self.field[0] - particle.reach_um:  # room for the scale bar
                continue
            here = Particle(float(y), float(x), radius, t, waves, particle.gap)
            apart = all(math.hypot(y - o.y, x - o.x) > pad + o.reach_um for o in self.particles)
            clear = all(w.distances(np.array([[y]]), np.array([[x]]))[1].max() < -pad for w in self.whiskers)
            if apart and clear:
                self.particles.append(here)
                return
        raise UsageError("the particles do not fit; make core_radius_um or n_particles smaller, or the field larger")

    @property
    def objects(self) -> list[tuple[int, Particle | Whisker]]:
        """Class and shape of every object."""
        return [(3, particle) for particle in self.particles] + [(4, whisker) for whisker in self.whiskers]

    def view(self, frame: int) -> View:
        """View of a frame; `height` carries the depth in the shell."""
        y, x = pixel_centers(self.shape, self.pixel)
        labels, ids = np.ones(self.shape, np.uint8), np.zeros(self.shape, np.uint16)
        coverage = {index: np.zeros(self.shape) for index in (1, 3, 4, 8)}
        depth_map = np.zeros(self.shape)
        for k, (index, shape) in enumerate(self.objects, start=1):
            core, outer, depth = shape.distances(y, x)
            labels[outer > 0], ids[outer > 0] = 8, k
            labels[core > 0] = index
            solid = share_inside(core, self.pixel)
            coverage[index] = np.maximum(coverage[index], solid)
            coverage[8] = np.maximum(coverage[8], np.clip(share_inside(outer, self.pixel) - solid, 0, 1))
            depth_map = np.where(outer > 0, depth, depth_map)
        coverage[1] = np.clip(1 - coverage[3] - coverage[4] - coverage[8], 0, 1)
        return View(labels, coverage, ids, depth_map)

    def crystalline(self, y: np.ndarray, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Where shell would be crystalline; bool."""
        interior, share = self.p["interior"], self.p["crystalline_share"]
        if interior == "amorphous":
            return np.zeros(depth.shape, bool)
        points = np.stack(np.broadcast_arrays(y, x), -1).reshape(-1, 2)
        level = self.grain_level[KDTree(self.grain_seeds).query(points)[1]].reshape(depth.shape)
        return (level < share) if interior == "mosaic" else (level < 2 * share) & (depth < 0.5)

    def crystals(self, image: np.ndarray, view: View, frame: int) -> np.ndarray:
        """Fringes and some darkness where the shell is crystalline."""
        y, x = pixel_centers(self.shape, self.pixel)
        where = self.crystalline(y, x, view.height)
        period = max(0.00028 / max(self.pixel), 3.6)
        lines = fringes(np.random.default_rng([self.seed, 6]), self.shape, period)
        return image + view.coverage[8] * where * (0.09 * lines - 0.08)

    def _true_crystalline(self) -> float:
        """Share of the shell's area that is crystalline, at three points per pixel and axis."""
        step = np.asarray(self.pixel) / 3
        y, x = ((np.arange(3 * n) + 0.5) * d for n, d in zip(self.shape, step, strict=True))
        y, x = y[:, None], x[None]
        shell = crystal = 0
        for _, shape in self.objects:
            core, outer, depth = shape.distances(y, x)
            at = np.nonzero((outer > 0) & (core <= 0))
            shell += len(at[0])
            crystal += int(self.crystalline(y[at[0], 0], x[0, at[1]], depth[at]).sum())
        return crystal / shell if shell else math.nan

    def truth(self, n_frames: int, times: tuple[float, ...]) -> list[Measurement]:
        """Rows for every frame and object."""
        rows: list[Measurement] = []
        crystal = self._true_crystalline()
        for f in range(n_frames):
            time_s = times[f] if n_frames > 1 else None
            profiles, diameters, covered, perimeter = [], [], 0.0, 0.0
            for k, (_, shape) in enumerate(self.objects, start=1):
                if isinstance(shape, Particle):
                    t, arc = shape.profile()
                    coverage, around = shape.coverage, 2 * math.pi * shape.radius_um
                else:
                    length = shape.boundary_length()
                    t, arc, coverage = np.array([shape.thickness_um]), np.array([length]), 1.0
                    around = length - 2 * math.pi * shape.thickness_um
                profiles.append((t, arc))
                diameters.append((2 * shape.radius_um, float(arc.sum())))
                covered, perimeter = covered + coverage * around, perimeter + around
                rows += _rows(f, time_s, k, t, arc, coverage, 2 * shape.radius_um)
            if profiles:
                t, arc = (np.concatenate([q[i] for q in profiles]) for i in (0, 1))
                size, weight = np.array(diameters).T
                rows += _rows(f, time_s, None, t, arc, covered / perimeter, float(np.average(size, weights=weight)))
                rows.append(
                    Measurement(
                        "crystalline_fraction",
                        crystal,
                        "1",
                        class_name="sei",
                        frame=f,
                        time_s=time_s,
                        method="share of the shell's area",
                    )
                )
                rows.append(
                    Measurement(
                        "sei_texture", 1.0, "1", class_name="sei", frame=f, time_s=time_s, method=self.p["interior"]
                    )
                )
        return rows

    def lineage(self) -> pd.DataFrame:
        """One row per object."""
        centers = [(s.y, s.x) if isinstance(s, Particle) else tuple(s.points.mean(0)) for _, s in self.objects]
        n = len(centers)
        return pd.DataFrame(
            {
                "object_id": np.arange(1, n + 1),
                "birth_s": math.nan,
                "death_s": math.nan,
                "merged_into": pd.array([pd.NA] * n, dtype="Int64"),
                "y_um": [c[0] for c in centers],
                "x_um": [c[1] for c in centers],
            }
        )


def _rows(
    frame: int,
    time_s: float | None,
    object_id: int | None,
    t: np.ndarray,
    arc: np.ndarray,
    coverage: float,
    diameter: float,
) -> list[Measurement]:
    mean = float(np.average(t, weights=arc))
    sd = math.sqrt(max(float(np.average((t - mean) ** 2, weights=arc)), 0.0))
    how = "outer boundary to core, arc-length weighted"
    values = [
        ("sei_thickness_mean", mean, "um", how),
        ("sei_thickness_sd", sd, "um", how),
        ("sei_thickness_cv", sd / mean, "1", how),
        ("sei_coverage", coverage, "1", "share of the core boundary under shell"),
        ("core_to_sei_ratio", diameter / mean, "1", "core diameter over mean thickness"),
    ]
    return [
        Measurement(
            name, float(value), unit, class_name="sei", frame=frame, time_s=time_s, object_id=object_id, method=method
        )
        for name, value, unit, method in values
    ]
