"""Caps in profile: circles, or circles turning into polygons, that meet a line or a fibre at a contact angle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq


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
