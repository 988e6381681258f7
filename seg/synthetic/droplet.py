"""Profile view of metal droplets on a flat, tilted or fibre support in the electron microscope.

The scene. A droplet's profile is a circle that meets the support at the contact angle; above a transition size it
turns, more and more, into a polygon with rounded corners. Plating adds profile area at a constant rate at a constant
angle. Stripping takes it away: at constant angle, with a pinned base (the angle falls), or pinned until the receding
angle is reached and at that angle from then on. Droplets keep apart, or fuse where they meet while metal is plated.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.stack import Calibration
from seg.synthetic.area import union_area
from seg.synthetic.burnt_in import scale_bar
from seg.synthetic.caps import Cap, Support, base_angle, cap_area, pinned_angle, radius_of
from seg.synthetic.coalescence import Fusion, Phase, coalesce
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Tem
from seg.synthetic.looks import Look, Material, View
from seg.synthetic.recording import box_around, layered, pixel_centers, record
from seg.synthetic.surfaces import cap_volume

REGIMES = ("constant-angle", "pinned", "mixed")
_LINES = 32_768  # a level support is an edge along the scan lines
SUPPORTS = ("flat", "tilted", "fibre")
_REACH = 1.5  # of a faceted outline, in radii; see `Cap.reach`
LOOK = Look(
    {
        1: Material(0.74, "smooth", 2.0, 0.008),
        2: Material(0.50, "fractal", 8.0, 0.035),
        3: Material(0.36, "smooth", 2.5, 0.018),
    }
)


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (256, 320),
    n_frames: int = 12,
    dial: float = 0.4,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.00105, 0.00100),
    frame_interval_s: float = 1.0,
    support: str = "flat",
    tilt_deg: float = 4.0,
    fibre_radius_um: float = 0.22,
    n_droplets: int = 2,
    instantaneous_fraction: float | None = None,
    rate_constant_per_s: float = 0.0,
    rate_spread: float = 0.12,
    coalescence: bool = False,
    plating_share: float = 0.6,
    area_rate_um2_s: float = 0.001,
    plating_angle_deg: float = 78.0,
    receding_angle_deg: float = 30.0,
    regime: str = "mixed",
    facet_diameter_um: float | None = None,
    facet_count: int = 5,
    inverted: bool = False,
    burnt_in: bool = True,
) -> Experiment:
    """In situ TEM of droplets that are plated and stripped, in profile.

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
    support : str
        ``"flat"``, ``"tilted"`` or ``"fibre"`` (seen along its axis).
    tilt_deg, fibre_radius_um : float
        Of a tilted support; of a fibre.
    n_droplets : int
        Sites, at one distance from each other on average.
    instantaneous_fraction : float, optional
        Share of the sites that nucleate at once; default: all do, within the first 8 % of the plating.
    rate_constant_per_s : float
        At which the other sites nucleate.
    rate_spread : float
        Standard deviation of the logarithm of the rates of single droplets.
    coalescence : bool
        Droplets that meet become one, of the sum of their volumes (`seg.synthetic.coalescence`). Else all of them
        grow more slowly, so that none meet.
    plating_share : float
        Share of the frames in which metal is plated; then it is stripped.
    area_rate_um2_s : float
        Rate of profile area of an average droplet on plating.
    plating_angle_deg, receding_angle_deg : float
    regime : str
        Of stripping: ``"constant-angle"``, ``"pinned"`` or ``"mixed"`` (pinned down to the receding angle).
    facet_diameter_um : float, optional
        Equivalent diameter of the profile at which half of the transition to facets is done; default: never.
    facet_count : int
    inverted : bool
        Metal bright instead of dark.
    burnt_in : bool
        A scale bar.
    """
    if support not in SUPPORTS:
        raise UsageError(f"There is no support {support!r}; there are {', '.join(SUPPORTS)}.")
    if regime not in REGIMES:
        raise UsageError(f"There is no stripping regime {regime!r}; there are {', '.join(REGIMES)}.")
    if coalescence and support == "fibre":
        raise UsageError("Droplets fuse on a flat or tilted support only; leave coalescence off for a fibre.")
    share = instantaneous_fraction
    if share is not None and (not 0 <= share <= 1 or (share < 1 and rate_constant_per_s <= 0)):
        raise UsageError(
            f"Sites nucleate at once with the share {share:g} and at the rate {rate_constant_per_s:g} 1/s; give a "
            "share of 0 to 1, and a rate above 0 unless it is 1."
        )
    parameters = {k: v for k, v in locals().items() if k not in ("seed", "share")}
    scene = _Scene(seed, parameters)
    look = _look(inverted).seen(seed, texture_only=texture_only, variety=variety)
    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, tuple(float(t) for t in scene.times), "file")
    bar = scale_bar(shape_px, pixel_um[1], unit_nm=True)
    images, labels, instances = record(
        scene.view,
        (n_frames, *shape_px),
        calibration,
        seed=seed,
        look=look,
        name=f"droplet-{seed}",
        instrument=Tem(shape_px, seed, dial, pixel_nm=pixel_um[1] * 1000, defocus_um=1.5),
        retouch=None if texture_only else scene.thickness_contrast(-1 if inverted else 1),
        burnt_in=(lambda frame: bar) if burnt_in else None,
    )
    lead_s, turn = 5.0 + seed % 5, scene.turn_s
    steps = [Step(turn, 12.0)] if turn > 0 else []
    if scene.times[-1] > turn:
        steps.append(Step(float(scene.times[-1] - turn), -12.0))
    cycler = run_programme(np.random.default_rng([seed, 5]), steps, lead_s=lead_s, area_cm2=1e-6)
    return Experiment(
        name=f"droplet-{seed}",
        family="droplet",
        seed=seed,
        modality="cryoem",
        images=images,
        labels=labels,
        instances=instances,
        schema=load_schema("lithium"),
        truth=scene.truth(bar if burnt_in else None),
        cycler=cycler,
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )


def _look(inverted: bool) -> Look:
    if not inverted:
        return LOOK
    flipped = {k: Material(1.05 - m.level, m.texture, m.length_px, m.amplitude) for k, m in LOOK.materials.items()}
    return Look(flipped)


class _Scene:
    """Droplets over time."""

    def __init__(self, seed: int, parameters: dict) -> None:
        p = self.p = parameters
        self.shape, self.pixel = p["shape_px"], p["pixel_um"]
        self.field = (self.shape[0] * self.pixel[0], self.shape[1] * self.pixel[1])
        n = p["n_frames"]
        self.times = np.arange(n) * p["frame_interval_s"]
        self.turn_s = float(self.times[-1]) * p["plating_share"]
        rng = np.random.default_rng([seed, 1])
        height, width = self.field
        # Off the pixel grid: a surface on pixel faces would flatter every estimator.
        level = 0.72 * height + rng.uniform(0, 1) * self.pixel[0]
        if p["support"] == "fibre":
            self.support = Support((level - 0.12 * height, width / 2), 0.0, p["fibre_radius_um"])
        else:
            tilt = math.radians(p["tilt_deg"]) if p["support"] == "tilted" else 0.0
            self.support = Support((level, width / 2), tilt)
        k = p["n_droplets"]
        span = min(width, 1.5 * self.support.radius_um)
        slots = (np.arange(k) + 0.5) / k - 0.5
        self.along = slots * span + rng.uniform(-0.06, 0.06, k) * span / k
        self.rates = p["area_rate_um2_s"] * np.exp(rng.normal(0, p["rate_spread"], k))
        self.births = np.sort(rng.uniform(0, 0.08 * max(self.turn_s, 1e-9), k))
        if p["instantaneous_fraction"] is not None:
            self._nucleate(np.random.default_rng([seed, 4]), span)
        # Neighbours must not touch, or all in one must fit the field: slower growth for all.
        largest, grown = (0.36 * span, self.rates.sum()) if p["coalescence"] else (0.36 * span / k, self.rates.max())
        peak = grown * max(self.turn_s, 1e-9)
        radius = radius_of(peak, math.radians(p["plating_angle_deg"]), self.support.radius_um)
        if radius > largest:
            self.rates *= (largest / radius) ** 2
        self.facet_normals = [
            tuple(
                np.sort(
                    rng.uniform(0, 2 * math.pi / p["facet_count"])
                    + rng.normal(0, 0.12, p["facet_count"])
                    + 2 * math.pi * np.arange(p["facet_count"]) / p["facet_count"]
                ).tolist()
            )
            for _ in range(k)
        ]

        self.lives: dict[int, list[Phase]] = {i + 1: [self._alone(i)] for i in range(k)}
        self.fusions: list[Fusion] = []
        if p["coalescence"]:
            self.lives, self.fusions = coalesce(
                self.births, self.along, self.rates, angle=math.radians(p["plating_angle_deg"]), until_s=self.turn_s
            )

    def _nucleate(self, rng: np.random.Generator, span: float) -> None:
        """Births by a law, on sites further off their mean distance; what the current turns before is never born."""
        k, share = self.p["n_droplets"], self.p["instantaneous_fraction"]
        self.along += rng.uniform(-0.25, 0.25, k) * span / k
        at_once = rng.uniform(size=k) < share
        later = rng.exponential(1 / self.p["rate_constant_per_s"], k) if share < 1 else np.full(k, math.inf)
        self.births = np.where(at_once, 0.0, later)
        self.births[self.births >= self.turn_s] = math.inf

    def _alone(self, k: int) -> Phase:
        return Phase(float(self.births[k]), math.inf, float(self.along[k]), 0.0, float(self.rates[k]))

    def caps(self, frame: int) -> dict[int, Cap]:
        """Droplets of a frame, by object id."""
        found = {}
        for k in self.lives:
            cap = self.cap(k, float(self.times[frame]))
            if cap is not None:
                found[k] = cap
        return found

    def cap(self, k: int, time_s: float) -> Cap | None:
        """Droplet of an object id at a time; None before its birth, after its fusion, and below four pixels."""
        p, rf = self.p, self.support.radius_um
        plating, receding = math.radians(p["plating_angle_deg"]), math.radians(p["receding_angle_deg"])
        phase = next((q for q in self.lives[k] if q.from_s <= min(time_s, self.turn_s) < q.until_s), None)
        if phase is None:
            return None
        peak = phase.area(self.turn_s)
        if time_s <= self.turn_s:
            area, angle = phase.area(time_s), plating
        else:
            left = max(float(self.times[-1]) - self.turn_s, 1e-12)
            # A fifth is left at the end: an object too small to measure is no use as truth.
            area, angle = peak * (1 - 0.8 * (time_s - self.turn_s) / left), plating
            if p["regime"] != "constant-angle" and area < peak:
                base = base_angle(radius_of(peak, plating, rf), plating, rf)
                pinned = pinned_angle(area, base, plating, rf)
                angle = max(pinned, receding) if p["regime"] == "mixed" else pinned
        if area <= 4 * self.pixel[0] * self.pixel[1]:
            return None
        facets = 0.0
        if p["facet_diameter_um"] is not None:
            diameter = 2 * math.sqrt(area / math.pi)
            facets = 1 / (1 + math.exp(-12 * (diameter / p["facet_diameter_um"] - 1)))
            facets = facets if facets > 0.02 else 0.0
        cap = Cap(self.support, phase.along_um, radius_of(area, angle, rf), angle, facets, self.facet_normals[k - 1])
        if facets and not self._emerges(cap):
            return None  # the facets of a flat droplet lie around a centre deep in the support
        return cap

    def view(self, frame: int) -> View:
        """View of a frame."""
        y, x = pixel_centers(self.shape, self.pixel)
        above = self.support.height(y, x)
        # Each in a box of its own: hundreds of droplets in a wide field would take as many fields.
        near = {}
        merged = np.full(self.shape, -1e9)
        for k, cap in self.caps(frame).items():
            box = box_around(*cap.center(), _REACH * cap.radius_um, self.shape, self.pixel)
            distance = cap.distance(y[box[0]], x[:, box[1]])
            merged[box] = np.maximum(merged[box], distance)
            near[k] = (box, distance, cap.radius_um)
        view = layered(self.shape, 1, [(3, merged), (2, -above)], self.pixel)
        ids = np.zeros(self.shape, np.uint16)
        thickness = np.zeros(self.shape)
        for k, (box, distance, radius) in near.items():
            ids[box][(distance > 0) & (view.labels[box] == 3)] = k
            inside = np.clip(distance, 0, radius)
            thickness[box] = np.maximum(thickness[box], np.sqrt(inside * (2 * radius - inside)) / radius)
        return View(view.labels, view.coverage, ids, thickness)

    @staticmethod
    def thickness_contrast(sign: int):  # noqa: ANN205 - a closure with the signature `record` wants
        """Less contrast where the beam passes through less metal."""

        def retouch(image: np.ndarray, view: View, frame: int) -> np.ndarray:
            return image + sign * 0.26 * view.coverage[3] * (1 - view.height) if 3 in view.coverage else image

        return retouch

    def truth(self, text: np.ndarray | None) -> list[Measurement]:
        """Rows for every frame and droplet, and for the series."""
        rows: list[Measurement] = []
        support = self.support.outline(self.field)
        ground = union_area([support], self.field, lines=_LINES)
        field = self.field[0] * self.field[1]
        hidden = 0.0 if text is None else float(text.sum()) * self.pixel[0] * self.pixel[1]
        before = math.nan
        for f, time_s in enumerate(self.times):
            caps = self.caps(f)

            def row(metric: str, value: float, unit: str, f: int = f, t: float = float(time_s), **more: object) -> None:
                rows.append(Measurement(metric, float(value), unit, class_name="deposit", frame=f, time_s=t, **more))  # type: ignore[arg-type]

            total = (
                union_area([cap.outline() for cap in caps.values()] + [support], self.field, lines=_LINES) - ground
                if caps
                else 0.0
            )
            row("object_count", len(caps), "1", n=len(caps), method="droplets above 4 px")
            row(
                "areal_density",
                len(caps) / (field - hidden) * UM2_PER_CM2,
                "1/cm2",
                n=len(caps),
                method="droplets per valid area",
            )
            row("covered_area", total, "um2", method="outlines less support, scan lines")
            row("covered_fraction", total / (field - hidden), "1", method="outlines less support, scan lines")
            if f:
                row(
                    "area_rate",
                    (total - before) / (time_s - self.times[f - 1]),
                    "um2/s",
                    method="difference to the frame before",
                )
            before = total
            diameters = []
            for k, cap in caps.items():
                if cap.facets or self._cut(cap):
                    own = union_area([cap.outline(), support], self.field, lines=_LINES) - ground
                else:
                    own = cap_area(cap.radius_um, cap.angle, self.support.radius_um)
                diameters.append(2 * math.sqrt(own / math.pi))
                if self.support.flat and not cap.facets:
                    volume = cap_volume(cap.radius_um * math.sin(cap.angle), cap.angle)
                    row("volume", volume, "um3", object_id=k, method="part of a sphere")
                flags = ("faceted-contact",) if cap.facets else ()
                shape = cap.truth()
                row("area", own, "um2", object_id=k, method="outline less support")
                row("equivalent_diameter", diameters[-1], "um", object_id=k, method="outline less support")
                for side in ("left", "right"):
                    row(
                        "contact_angle",
                        shape[side],
                        "deg",
                        object_id=k,
                        side=side,
                        method="tangents of the outlines",
                        flags=flags,
                    )
                row(
                    "contact_angle",
                    (shape["left"] + shape["right"]) / 2,
                    "deg",
                    object_id=k,
                    side="mean",
                    method="tangents of the outlines",
                    flags=flags,
                )
                row("base_width", shape["base_width"], "um", object_id=k, method="chord between contact points")
                row("cap_height", shape["cap_height"], "um", object_id=k, method="greatest distance from the support")
            if caps:
                row("mean_equivalent_diameter", np.mean(diameters), "um", n=len(caps), method="mean over droplets")
        rows += self._law()
        if self.p["coalescence"]:
            n = len(self.fusions)
            rows.append(Measurement("merge_count", n, "1", class_name="deposit", n=n, method="fusions of droplets"))
        rows.append(Measurement("stripping_regime", 1.0, "1", class_name="deposit", method=self.p["regime"]))
        if self.p["facet_diameter_um"] is not None:
            rows.append(
                Measurement(
                    "facet_transition_diameter",
                    self.p["facet_diameter_um"],
                    "um",
                    class_name="deposit",
                    method="parameter: half of the transition",
                )
            )
            rows.append(
                Measurement(
                    "facet_count", self.p["facet_count"], "1", class_name="deposit", method="of the full polygon"
                )
            )
        return rows

    def _emerges(self, cap: Cap) -> bool:
        """Whether the top of a droplet stands a pixel or more above its support."""
        return cap.center_height_um + float(cap.reach(np.array(0.0))) >= max(self.pixel)

    def _cut(self, cap: Cap) -> bool:
        """Whether the frame cuts a droplet."""
        points = cap.outline(360)
        above = points[self.support.height(points[:, 0], points[:, 1]) > 0]
        return bool(((above <= 0) | (above >= self.field)).any())

    def _law(self) -> list[Measurement]:
        """Births to date, and the law they follow, where there is one."""
        share, rate = self.p["instantaneous_fraction"], self.p["rate_constant_per_s"]
        if share is None:
            return []
        field = self.field[0] * self.field[1] / UM2_PER_CM2
        law = "instantaneous" if share == 1 else "saturating" if share == 0 else "mixed"
        rows = [
            Measurement("nucleation_mode", 1.0, "1", class_name="deposit", method=law),
            Measurement("instantaneous_fraction", share, "1", class_name="deposit", method="parameter"),
        ]
        if share < 1:
            rows.append(Measurement("nucleation_rate_constant", rate, "1/s", class_name="deposit", method="parameter"))
        for f, time_s in enumerate(self.times):
            n = int((self.births <= time_s).sum())
            rows.append(
                Measurement(
                    "nucleation_density", n / field, "1/cm2", class_name="deposit", frame=f, time_s=float(time_s), n=n,
                    method="sites born to date",
                )
            )  # fmt: skip
        return rows

    def lineage(self) -> pd.DataFrame:
        """One row per droplet; its place is that of its birth."""
        points = np.array([self.support.frame(float(a))[0] for a in self.along]).reshape(-1, 2)
        n = len(points)
        table = pd.DataFrame({"object_id": np.arange(1, n + 1), "birth_s": self.births})
        table["death_s"], table["merged_into"] = math.nan, pd.array([pd.NA] * n, dtype="Int64")
        for fusion in self.fusions:
            table.loc[fusion.gone - 1, ["death_s", "merged_into"]] = [fusion.time_s, fusion.kept]
        table["y_um"], table["x_um"] = points.T
        return table
