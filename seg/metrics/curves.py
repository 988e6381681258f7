"""Curves fitted to boundary points: lines, circles (planes, balls in 3-D) and ellipses, by geometric distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from seg.metrics.interface import CrackPoints, pixel_along


@dataclass(frozen=True)
class Line:
    """A line (a plane in 3-D) through `point` with the unit `normal` on its outer side."""

    point: np.ndarray
    normal_vector: np.ndarray
    n_parameters: int = 2

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points of shape (..., ndim), positive outside."""
        return (points - self.point) @ self.normal_vector

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normal at each point."""
        return np.broadcast_to(self.normal_vector, points.shape)

    def moved(self, offset: float, tilt: float, about: np.ndarray) -> Line:
        """Shift outwards by `offset` and, in 2-D, turn by `tilt` (radians) about the foot of a point."""
        normal = self.normal_vector
        if len(normal) == 2:
            normal = normal * math.cos(tilt) + np.array([-normal[1], normal[0]]) * math.sin(tilt)
        foot = about - self.signed_distance(about) * self.normal_vector
        return Line(foot + offset * self.normal_vector, normal)


@dataclass(frozen=True)
class Circle:
    """A circle (a ball in 3-D); `side` is 1 where outside of it is the outer side, -1 where inside is."""

    centre: np.ndarray
    radius: float
    side: int = 1

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        return len(self.centre) + 1

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points of shape (..., ndim), positive on the outer side."""
        return self.side * (np.linalg.norm(points - self.centre, axis=-1) - self.radius)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normal at each point."""
        away = points - self.centre
        return self.side * away / np.linalg.norm(away, axis=-1, keepdims=True)

    def moved(self, offset: float, tilt: float, about: np.ndarray) -> Circle:
        """Shift the boundary outwards by `offset`, turned by `tilt` (radians) about the foot of a point."""
        radius = self.radius + self.side * offset
        if len(self.centre) != 2 or tilt == 0:
            return replace(self, radius=radius)
        foot = about - self.signed_distance(about) * self.normal(about)
        away = self.centre - foot
        turned = away * math.cos(tilt) + np.array([-away[1], away[0]]) * math.sin(tilt)
        return replace(self, centre=foot + turned, radius=radius)

    def points(self, angle: np.ndarray) -> np.ndarray:
        """Points of a 2-D circle at parameter angles."""
        return self.centre + self.radius * np.stack([np.sin(angle), np.cos(angle)], axis=-1)

    @property
    def parameters(self) -> np.ndarray:
        """Centre and radius."""
        return np.append(self.centre, self.radius)

    def with_parameters(self, values: np.ndarray) -> Circle:
        """The same kind of curve with other parameters."""  # noqa: D401
        return Circle(values[:-1], float(values[-1]), self.side)

    def grown(self, by: float) -> Circle:
        """The same centre, all of the outline further out."""  # noqa: D401
        return replace(self, radius=max(self.radius + by, 1e-12))


@dataclass(frozen=True)
class Ellipse:
    """An ellipse in 2-D: centre (y, x), half axes, and the turn of the first from x towards y."""

    centre: np.ndarray
    half_axes: tuple[float, float]
    turn: float
    n_parameters: int = 5

    def _local(self, points: np.ndarray) -> np.ndarray:
        y, x = (points[..., i] - self.centre[i] for i in range(2))
        c, s = math.cos(self.turn), math.sin(self.turn)
        return np.stack([c * x + s * y, c * y - s * x], axis=-1)

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Sampson's first-order distance, positive outside; exact to 0.1 px within some pixels of the curve."""
        u = self._local(points)
        scaled = u / np.asarray(self.half_axes)
        slope = np.linalg.norm(scaled / np.asarray(self.half_axes), axis=-1)
        return (np.sum(scaled**2, axis=-1) - 1) / (2 * np.maximum(slope, 1e-12))

    def distance_slopes(self, points: np.ndarray) -> np.ndarray:
        """Derivatives of `signed_distance` by each of the `parameters`, shape (N, 5)."""
        (u, v), (a, b) = np.moveaxis(self._local(points), -1, 0), self.half_axes
        level, slope = (u / a) ** 2 + (v / b) ** 2 - 1, np.maximum(np.hypot(u / a**2, v / b**2), 1e-12)
        # d = level / (2 slope): by u and v, then by the logarithms of the half axes.
        fall = level / (2 * slope**3)
        by_u, by_v = u / a**2 / slope - fall * u / a**4, v / b**2 / slope - fall * v / b**4
        by_a, by_b = (-((w / k) ** 2) / slope + 2 * fall * (w / k**2) ** 2 for w, k in ((u, a), (v, b)))
        c, s = math.cos(self.turn), math.sin(self.turn)
        return np.stack([-s * by_u - c * by_v, s * by_v - c * by_u, by_a, by_b, v * by_u - u * by_v], axis=-1)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normal at each point of the curve."""
        u = self._local(points) / np.asarray(self.half_axes) ** 2
        c, s = math.cos(self.turn), math.sin(self.turn)
        normal = np.stack([s * u[..., 0] + c * u[..., 1], c * u[..., 0] - s * u[..., 1]], axis=-1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def points(self, angle: np.ndarray) -> np.ndarray:
        """Points at parameter angles."""
        u, v = self.half_axes[0] * np.cos(angle), self.half_axes[1] * np.sin(angle)
        c, s = math.cos(self.turn), math.sin(self.turn)
        return self.centre + np.stack([s * u + c * v, c * u - s * v], axis=-1)

    @property
    def parameters(self) -> np.ndarray:
        """Centre, logarithms of the half axes, turn."""
        return np.array([*self.centre, *np.log(self.half_axes), self.turn])

    def with_parameters(self, values: np.ndarray) -> Ellipse:
        """The same kind of curve with other parameters."""  # noqa: D401
        a, b = np.exp(np.clip(values[2:4], -50, 50))
        return Ellipse(np.asarray(values[:2], float), (float(a), float(b)), float(values[4]))

    def grown(self, by: float) -> Ellipse:
        """The same centre, all of the outline further out; an ellipse again, to first order."""  # noqa: D401
        a, b = (max(axis + by, 1e-12) for axis in self.half_axes)
        return replace(self, half_axes=(a, b))


# Points of an outline on which starts of a fit are tried.
_START_POINTS = 150


@dataclass(frozen=True)
class Fit:
    """A fitted curve with the root mean square of its residuals in pixels and the covariance of its parameters."""

    curve: Circle | Ellipse
    rms_px: float
    covariance: np.ndarray


def fit_line(cracks: CrackPoints) -> Line:
    """Total least squares line or plane, its normal on the outer side of the cracks."""
    centre = cracks.position.mean(axis=0)
    normal = np.linalg.svd(cracks.position - centre, full_matrices=False)[2][-1]
    if np.sum(cracks.direction @ normal) < 0:
        normal = -normal
    return Line(centre, normal, n_parameters=len(centre))


def fit_circle(cracks: CrackPoints, spacing: Sequence[float]) -> Fit | None:
    """Circle or ball of least geometric distance; None where the points lie on a line.

    Residuals are in pixels across the boundary, so that coarse axes count less.
    """
    points = cracks.position
    ndim = points.shape[1]
    if len(points) < ndim + 2:
        return None
    # Algebraic start (Kasa) around the mean, for conditioning.
    mean = points.mean(axis=0)
    local = points - mean
    solution, _, rank, _ = np.linalg.lstsq(
        np.column_stack([2 * local, np.ones(len(points))]), (local**2).sum(axis=1), rcond=1e-12
    )
    if rank < ndim + 1:
        return None
    radius = math.sqrt(max(solution[-1] + np.sum(solution[:-1] ** 2), 1e-12))
    start = Circle(solution[:-1] + mean, radius)
    side = 1 if np.sum(start.normal(points) * cracks.direction) > 0 else -1
    return _refine(replace(start, side=side), points, spacing)


def fit_ellipse(cracks: CrackPoints, spacing: Sequence[float], start: Circle) -> Fit | None:
    """Ellipse of least geometric distance, the best of several starts around a fitted circle.

    An algebraic ellipse collapses on arcs below 45 degrees of contact angle; the geometric one does not.
    """
    # Every start is tried on some of the points only: a long outline holds far more than the shape needs.
    some = cracks.position[:: max(1, len(cracks) // _START_POINTS)]
    best: Fit | None = None
    for stretch in (1.15, 1.6):
        for turn in (0.0, math.pi / 4, math.pi / 2, 3 * math.pi / 4):
            guess = Ellipse(start.centre, (start.radius * stretch, start.radius / stretch), turn)
            fit = _refine(guess, some, spacing, steps=15)
            if fit is not None and (best is None or fit.rms_px < best.rms_px):
                best = fit
    if best is None or not isinstance(best.curve, Ellipse):
        return None
    return _refine(best.curve, cracks.position, spacing)


def _refine(start: Circle | Ellipse, points: np.ndarray, spacing: Sequence[float], *, steps: int = 200) -> Fit | None:
    """Least squares of distances in pixels; None where it does not converge to a finite curve."""
    pixel = pixel_along(start.normal(points), spacing)
    n = start.n_parameters

    def residuals(values: np.ndarray) -> np.ndarray:
        return start.with_parameters(values).signed_distance(points) / pixel

    def slopes(values: np.ndarray) -> np.ndarray:
        curve = start.with_parameters(values)
        assert isinstance(curve, Ellipse)
        return curve.distance_slopes(points) / np.reshape(pixel, (-1, 1))

    jac = slopes if isinstance(start, Ellipse) else "2-point"
    try:
        result = least_squares(
            residuals, start.parameters, jac=jac, method="lm", x_scale=_scales(start), max_nfev=steps * n
        )
    except (ValueError, np.linalg.LinAlgError):
        return None
    if not np.all(np.isfinite(result.x)) or len(points) <= n:
        return None
    squares = float(np.sum(result.fun**2))
    covariance = squares / (len(points) - n) * np.linalg.pinv(result.jac.T @ result.jac)
    return Fit(start.with_parameters(result.x), math.sqrt(squares / len(points)), covariance)


def _scales(start: Circle | Ellipse) -> np.ndarray:
    """Typical step of each parameter."""
    if isinstance(start, Circle):
        return np.full(start.n_parameters, start.radius)
    size = math.sqrt(start.half_axes[0] * start.half_axes[1])
    return np.array([size, size, 1.0, 1.0, 1.0])
