"""Profile view of metal droplets on a flat, tilted or fibre support in the electron microscope.

The scene. A droplet's profile is a circle that meets the support at the contact angle; above a transition size it
turns, more and more, into a polygon with rounded corners. Plating adds profile area at a constant rate at a constant
angle. Stripping takes it away: at constant angle, with a pinned base (the angle falls), or pinned until the receding
angle is reached and at that angle from then on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.stack import Calibration
from seg.synthetic.area import union_area
from seg.synthetic.burnt_in import scale_bar
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment
from seg.synthetic.imaging import Look, Material, Tem, View
from seg.synthetic.recording import layered, pixel_centers, record

REGIMES = ("constant-angle", "pinned", "mixed")
_LINES = 32_768  # a level support is an edge along the scan lines
SUPPORTS = ("flat", "tilted", "fibre")
LOOK = Look(
    {
        1: Material(0.74, "smooth", 2.0, 0.008),
        2: Material(0.50, "fractal", 8.0, 0.035),
        3: Material(0.36, "smooth", 2.5, 0.018),
    }
)


@dataclass(frozen=True)
class Support:
    """What droplets sit on: a line or, with a finite radius, a circle (a fibre seen along its axis).

    ``origin`` is a point of the surface, µm; ``tilt`` turns the surface there (radians, positive: right side lower).
    Positions along the surface are arc lengths from the origin.
    """

    origin: tuple[float, float]
    tilt: float = 0.0
    radius_um: float = math.inf

    @property
    def flat(self) -> bool:
        """Whether it is a line."""
        return math.isinf(self.radius_um)

    def frame(self, along_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Point of the surface, unit tangent (to the right) and unit normal (outward) there; all (y, x)."""
        turn = self.tilt + (0.0 if self.flat else along_um / self.radius_um)
        tangent = np.array([math.sin(turn), math.cos(turn)])
        normal = np.array([-math.cos(turn), math.sin(turn)])
        if self.flat:
            return np.asarray(self.origin) + along_um * tangent, tangent, normal
        top = np.array([-math.cos(self.tilt), math.sin(self.tilt)])
        center = np.asarray(self.origin) - self.radius_um * top
        return center + self.radius_um * normal, tangent, normal

    def height(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Signed distance above the surface, µm."""
        point, _, normal = self.frame(0.0)
        if self.flat:
            return (y - point[0]) * normal[0] + (x - point[1]) * normal[1]
        center = point - self.radius_um * normal
        return np.hypot(y - center[0], x - center[1]) - self.radius_um

    def outline(self, field: tuple[float, float]) -> np.ndarray:
        """Polygon of its inside, as far as it matters for a field."""
        point, tangent, normal = self.frame(0.0)
        if self.flat:
            far = 4 * max(field)
            corners = [point - far * tangent, point + far * tangent]
            return np.array([*corners, corners[1] - far * normal, corners[0] - far * normal])
        angle = np.linspace(0, 2 * math.pi, 8192, endpoint=False)
        center = point - self.radius_um * normal
        return center + self.radius_um * np.column_stack([np.sin(angle), np.cos(angle)])


@dataclass(frozen=True)
class Cap:
    """Profile of one droplet: circle of `radius_um` that meets the support at `angle` (radians), part polygon.

    ``facets`` is the weight of the polygon (0: round); ``normals`` are the directions of its sides, radians from the
    outward normal of the support.
    """

    support: Support
    along_um: float
    radius_um: float
    angle: float
    facets: float = 0.0
    normals: tuple[float, ...] = ()

    @property
    def center_height_um(self) -> float:
        """Height of the circle's centre above the surface; negative below."""
        r, theta = self.radius_um, self.angle
        if self.support.flat:
            return -r * math.cos(theta)
        rf = self.support.radius_um
        return math.sqrt(r * r + rf * rf - 2 * r * rf * math.cos(theta)) - rf

    def reach(self, phi: np.ndarray) -> np.ndarray:
        """Distance of the outline from the centre in the direction `phi` from the outward normal, µm."""
        phi = np.asarray(phi, float)
        if self.facets == 0:
            return np.full(phi.shape, self.radius_um)
        cosine = np.cos(phi[..., None] - np.asarray(self.normals))
        side = np.where(cosine > 0.2, 0.88 / np.maximum(cosine, 0.2), 4.4)
        # A soft minimum rounds the corners; its exponent sets how sharp they are.
        polygon = np.sum(side**-24.0, axis=-1) ** (-1 / 24)
        return self.radius_um * (1 - self.facets + self.facets * np.minimum(polygon, 1.45))

    def center(self) -> np.ndarray:
        """(y, x) of the circle's centre, µm."""
        point, _, normal = self.support.frame(self.along_um)
        return point + self.center_height_um * normal

    def outline(self, vertices: int = 1440) -> np.ndarray:
        """Polygon of the whole outline, also where it is inside the support."""
        phi = np.linspace(-math.pi, math.pi, vertices, endpoint=False)
        return self._points(phi)

    def _points(self, phi: np.ndarray) -> np.ndarray:
        _, tangent, normal = self.support.frame(self.along_um)
        r = self.reach(phi)
        return self.center() + (r * np.cos(phi))[..., None] * normal + (r * np.sin(phi))[..., None] * tangent

    def distance(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Signed radial distance inside the outline, µm (positive inside)."""
        _, tangent, normal = self.support.frame(self.along_um)
        cy, cx = self.center()
        up = (y - cy) * normal[0] + (x - cx) * normal[1]
        right = (y - cy) * tangent[0] + (x - cx) * tangent[1]
        return self.reach(np.arctan2(right, up)) - np.hypot(up, right)

    def contacts(self) -> tuple[float, float]:
        """Directions (phi) of the left and right contact points."""

        def above(phi: float) -> float:
            y, x = self._points(np.array(phi))
            return float(self.support.height(y, x))

        sides = []
        for sign in (-1, 1):
            trial = sign * np.linspace(1e-3, math.pi, 721)
            points = self._points(trial)
            heights = self.support.height(points[:, 0], points[:, 1])
            below = np.flatnonzero(heights < 0)
            if not len(below):
                raise ValueError("the droplet does not reach its support")
            k = int(below[0])
            sides.append(float(brentq(above, trial[k - 1], trial[k], xtol=1e-13)))
        return sides[0], sides[1]

    def truth(self) -> dict[str, float]:
        """Contact angles (deg), base width and height (µm), from the outline itself."""
        left, right = self.contacts()
        ends = [self._points(np.array(phi)) for phi in (left, right)]
        angles = {}
        for side, phi, sign in (("left", left, 1), ("right", right, -1)):
            step = 1e-5
            along = self._points(np.array(phi + sign * step)) - self._points(np.array(phi - sign * step))
            away, lift = self._local(self._points(np.array(phi)), along)
            # The tangent leaves the contact point upwards; the angle is measured through the droplet.
            angles[side] = math.degrees(math.atan2(lift, sign * away))
        phi = np.linspace(left, right, 4001)
        points = self._points(phi)
        return {
            "left": angles["left"],
            "right": angles["right"],
            "base_width": float(np.linalg.norm(ends[1] - ends[0])),
            "cap_height": float(self.support.height(points[:, 0], points[:, 1]).max()),
        }

    def _local(self, point: np.ndarray, vector: np.ndarray) -> tuple[float, float]:
        """Components of a vector along the support's surface (to the right) and outward, at a point of the surface."""
        if self.support.flat:
            _, tangent, normal = self.support.frame(0.0)
        else:
            origin, _, up = self.support.frame(0.0)
            normal = point - (origin - self.support.radius_um * up)
            normal = normal / np.linalg.norm(normal)
            tangent = np.array([normal[1], -normal[0]])
        return float(vector @ tangent), float(vector @ normal)


def cap_area(radius: float, angle: float, support_radius: float = math.inf) -> float:
    """Area of a circle's part above a line, or outside of another circle, that it meets at `angle` (radians)."""
    if math.isinf(support_radius):
        return radius**2 * (angle - math.sin(angle) * math.cos(angle))
    r, rf = radius, support_radius
    d = math.sqrt(r * r + rf * rf - 2 * r * rf * math.cos(angle))
    half = math.acos(np.clip((d * d + r * r - rf * rf) / (2 * d * r), -1, 1))
    half_f = math.acos(np.clip((d * d + rf * rf - r * r) / (2 * d * rf), -1, 1))
    lens = r * r * (half - math.sin(half) * math.cos(half)) + rf * rf * (half_f - math.sin(half_f) * math.cos(half_f))
    return math.pi * r * r - lens


def radius_of(area: float, angle: float, support_radius: float = math.inf) -> float:
    """Radius of the circle whose cap has the given area; the cap is the small one beside a fibre, not around it."""
    flat = math.sqrt(area / cap_area(1.0, angle))
    if math.isinf(support_radius):
        return flat
    low = high = 0.2 * flat
    while cap_area(high, angle, support_radius) < area:
        low, high = high, 1.1 * high
        if high > 100 * (flat + support_radius):
            raise ValueError(f"no cap of area {area:g} meets the fibre at {math.degrees(angle):.1f} degrees")
    return float(brentq(lambda r: cap_area(r, angle, support_radius) - area, low, high, xtol=1e-14))


def base_angle(radius: float, angle: float, support_radius: float) -> float:
    """Half of the base as length (flat) or as angle at the fibre's centre."""
    if math.isinf(support_radius):
        return radius * math.sin(angle)
    d = math.sqrt(radius**2 + support_radius**2 - 2 * radius * support_radius * math.cos(angle))
    return math.acos(np.clip((d * d + support_radius**2 - radius**2) / (2 * d * support_radius), -1, 1))


def pinned_angle(area: float, base: float, highest: float, support_radius: float) -> float:
    """Contact angle of a cap of the given area on a base of the given half width (see `base_angle`)."""

    def excess(angle: float) -> float:
        return base_angle(radius_of(area, angle, support_radius), angle, support_radius) - base

    low = high = highest
    while excess(low) <= 0:  # a flatter cap of the same area has a wider base
        low, high = 0.97 * low, low
    return float(brentq(excess, low, high, xtol=1e-12)) if low < high else highest


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (256, 320),
    n_frames: int = 12,
    dial: float = 0.4,
    texture_only: bool = False,
    pixel_um: tuple[float, float] = (0.00105, 0.00100),
    frame_interval_s: float = 1.0,
    support: str = "flat",
    tilt_deg: float = 4.0,
    fibre_radius_um: float = 0.22,
    n_droplets: int = 2,
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
    pixel_um : (float, float)
        (y, x).
    frame_interval_s : float
    support : str
        ``"flat"``, ``"tilted"`` or ``"fibre"`` (seen along its axis).
    tilt_deg, fibre_radius_um : float
        Of a tilted support; of a fibre.
    n_droplets : int
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
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = _Scene(seed, parameters)
    look = _look(texture_only, inverted)
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


def _look(texture_only: bool, inverted: bool) -> Look:
    if texture_only:
        return LOOK.texture_only()
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
        self.rates = p["area_rate_um2_s"] * np.exp(rng.normal(0, 0.12, k))
        self.births = np.sort(rng.uniform(0, 0.08 * max(self.turn_s, 1e-9), k))
        largest = 0.36 * span / k
        peak = self.rates.max() * max(self.turn_s, 1e-9)
        radius = radius_of(peak, math.radians(p["plating_angle_deg"]), self.support.radius_um)
        if radius > largest:  # neighbours must not touch: slower growth for all
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

    def caps(self, frame: int) -> dict[int, Cap]:
        """Droplets of a frame, by object id."""
        found = {}
        for k in range(self.p["n_droplets"]):
            cap = self._cap(k, float(self.times[frame]))
            if cap is not None:
                found[k + 1] = cap
        return found

    def _cap(self, k: int, time_s: float) -> Cap | None:
        p, rf = self.p, self.support.radius_um
        plating, receding = math.radians(p["plating_angle_deg"]), math.radians(p["receding_angle_deg"])
        peak = self.rates[k] * (self.turn_s - self.births[k])
        if time_s <= self.turn_s:
            area, angle = self.rates[k] * (time_s - self.births[k]), plating
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
        return Cap(self.support, float(self.along[k]), radius_of(area, angle, rf), angle, facets, self.facet_normals[k])

    def view(self, frame: int) -> View:
        """View of a frame."""
        y, x = pixel_centers(self.shape, self.pixel)
        above = self.support.height(y, x)
        distances = {k: cap.distance(y, x) for k, cap in self.caps(frame).items()}
        merged = np.max(np.stack(list(distances.values())), axis=0) if distances else np.full(self.shape, -1e9)
        view = layered(self.shape, 1, [(3, merged), (2, -above)], self.pixel)
        ids = np.zeros(self.shape, np.uint16)
        thickness = np.zeros(self.shape)
        for k, distance in distances.items():
            ids[(distance > 0) & (view.labels == 3)] = k
            radius = self.caps(frame)[k].radius_um
            inside = np.clip(distance, 0, radius)
            thickness = np.maximum(thickness, np.sqrt(inside * (2 * radius - inside)) / radius)
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
                own = union_area([cap.outline(), support], self.field, lines=_LINES) - ground
                diameters.append(2 * math.sqrt(own / math.pi))
                flags = ("faceted-contact",) if cap.facets else ()
                shape = cap.truth()
                row("area", own, "um2", object_id=k, method="outline less support, scan lines")
                row("equivalent_diameter", diameters[-1], "um", object_id=k, method="outline less support, scan lines")
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

    def lineage(self) -> pd.DataFrame:
        """One row per droplet."""
        points = np.array([self.support.frame(float(a))[0] for a in self.along])
        return pd.DataFrame(
            {
                "object_id": np.arange(1, len(self.along) + 1),
                "birth_s": self.births,
                "death_s": math.nan,
                "merged_into": pd.array([pd.NA] * len(self.along), dtype="Int64"),
                "y_um": points[:, 0],
                "x_um": points[:, 1],
            }
        )
