"""Contact angles from the boundary next to each contact, where no curve describes the whole outline."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from seg.metrics.baseline import Substrate, correlated_points
from seg.metrics.contact_geometry import Contact, gated, rightwards
from seg.metrics.curves import Circle, Ellipse, fit_line
from seg.metrics.interface import CrackPoints, pixel_along

# Greatest deviation of a straight facet.
FACET_DEVIATION_PX = 0.7
# Digitisation alone leaves about 0.3 px; beyond this a curve does not describe the boundary.
MAX_RMS_PX = 0.55


def local_contact(
    free: CrackPoints, substrate: Substrate, contact: CrackPoints, spacing: Sequence[float], radius: float,
    tilt: dict[str, float],
) -> Contact:  # fmt: skip
    """Angles from a parabola through the boundary near each contact; NaN with a flag at a facet."""
    pixel = math.prod(spacing) ** (1 / len(spacing))
    base = substrate.curve
    along = contact.position @ rightwards(base, contact)
    size = min(radius, float(np.linalg.norm(np.ptp(free.position, axis=0))) / 2)
    height = float(base.signed_distance(free.position).max())
    middle = (along.max() + along.min()) / 2
    angles, errors, ends = {}, {}, []
    for side, at in (("left", int(np.argmin(along))), ("right", int(np.argmax(along)))):
        foot = contact.position[at]
        beyond = free.position @ rightwards(base, contact) - middle
        mine = free[(beyond < 0) if side == "left" else (beyond > 0)]
        distance = np.linalg.norm(mine.position - foot, axis=1)
        facet = 1.5 * math.sqrt(8 * size * FACET_DEVIATION_PX * pixel)
        if _is_straight(mine[distance <= facet], facet, size, spacing):
            model = f"straight over {facet / pixel:.0f} px at the contact"
            return Contact(cap_height=height, flags=("faceted-contact",), model=model, **tilt)
        found = _parabola_angle(mine[distance <= max(0.5 * size, 12 * pixel)], foot, substrate, contact)
        if found is None:
            return Contact(cap_height=height, flags=("ambiguous",), model="no fit at the contact", **tilt)
        angles[side], errors[side], end = found
        ends.append(end)
    angles["mean"] = (angles["left"] + angles["right"]) / 2
    errors["mean"] = math.hypot(errors["left"], errors["right"]) / 2
    width = float(np.linalg.norm(ends[1] - ends[0]))
    model = f"parabola at each contact on {substrate.name}"
    return gated(angles, errors, width, height, model, substrate, contact, spacing, tilt)


def departure(
    free: CrackPoints, curve: Circle | Ellipse, end: np.ndarray, size: float, spacing: Sequence[float]
) -> tuple[float, float, bool]:
    """How the outline leaves a fitted curve at a contact point.

    Parameters
    ----------
    free : CrackPoints
        The free boundary, which the curve was fitted to.
    curve : Circle or Ellipse
    end : ndarray of float, shape (2,)
        The contact point of the curve.
    size : float
        Radius of the deposit.
    spacing : sequence of float

    Returns
    -------
    turn_deg, error_deg : float
        By how much the contact angle of the outline itself is larger, and its standard error; NaN with few points.
    straight : bool
        Whether the outline is a straight facet there.

    Notes
    -----
    A parabola through the residuals over half a radius; its slope at the contact turns the tangent. Neighbouring
    residuals repeat each other, so the error counts the independent ones.
    """
    pixel = math.prod(spacing) ** (1 / len(spacing))
    away = np.linalg.norm(free.position - end, axis=1)
    near = away <= max(0.5 * size, 12 * pixel)
    if np.count_nonzero(near) < 12:
        return math.nan, math.nan, False
    along, residual = away[near], curve.signed_distance(free.position[near])
    order = np.argsort(along)
    along, residual = along[order], residual[order]
    coefficients, covariance = np.polyfit(along, residual, 2, cov=True)
    shared = correlated_points(residual - np.polyval(coefficients, along), n_parameters=3)
    facet = 1.5 * math.sqrt(8 * size * FACET_DEVIATION_PX * pixel)
    straight = _is_straight(free[away <= facet], facet, size, spacing)
    return math.degrees(math.atan(coefficients[1])), math.degrees(math.sqrt(covariance[1, 1] * shared)), straight


def _is_straight(cracks: CrackPoints, length: float, radius: float, spacing: Sequence[float]) -> bool:
    """Whether boundary points span most of a length on a line, with under a third of the curvature of a circle."""
    if len(cracks) < 6 or np.linalg.norm(np.ptp(cracks.position, axis=0)) < 0.7 * length:
        return False
    line = fit_line(cracks)
    normal = line.normal_vector
    v = line.signed_distance(cracks.position)
    u = (cracks.position - line.point) @ np.array([normal[1], -normal[0]])
    rms_px = float(np.sqrt(np.mean(v**2)) / pixel_along(normal, spacing))
    return rms_px <= MAX_RMS_PX and 2 * abs(float(np.polyfit(u, v, 2)[0])) < 1 / (3 * radius)


def _parabola_angle(
    cracks: CrackPoints, foot: np.ndarray, substrate: Substrate, contact: CrackPoints
) -> tuple[float, float, np.ndarray] | None:
    """Angle, its standard error, and the point where a parabola through boundary points meets the substrate."""
    if len(cracks) < 6:
        return None
    line = fit_line(cracks)
    normal = line.normal_vector
    tangent = np.array([normal[1], -normal[0]])
    u, v = (cracks.position - line.point) @ tangent, (cracks.position - line.point) @ normal
    coefficients, covariance = np.polyfit(u, v, 2, cov=True)
    covariance = covariance * correlated_points((v - np.polyval(coefficients, u))[np.argsort(u)], n_parameters=3)
    # The contact may lie a little outside of the points, on the side of the foot.
    reach = 0.5 * float(np.ptp(u))
    grid = np.linspace(u.min() - reach, u.max() + reach, 801)

    def evaluate(values: np.ndarray) -> np.ndarray | None:
        base = substrate.curve.moved(values[-2], values[-1], contact.position.mean(axis=0))
        curve = line.point + grid[:, None] * tangent + np.polyval(values[:3], grid)[:, None] * normal
        above = base.signed_distance(curve)
        crossing = np.flatnonzero(above[:-1] * above[1:] <= 0)
        if len(crossing) == 0:
            return None
        near = crossing[np.argmin(np.linalg.norm(curve[crossing] - foot, axis=1))]
        at = grid[near] + (grid[near + 1] - grid[near]) * above[near] / (above[near] - above[near + 1])
        slope = np.polyval(np.polyder(values[:3]), at)
        outward = (normal - slope * tangent) / math.hypot(1, slope)
        point = line.point + at * tangent + np.polyval(values[:3], at) * normal
        cosine = float(outward @ base.normal(point))
        return np.array([math.degrees(math.acos(np.clip(cosine, -1, 1))), *point])

    values = np.append(coefficients, [0.0, 0.0])
    whole = np.zeros((5, 5))
    whole[:3, :3] = covariance
    whole[3, 3], whole[4, 4] = substrate.position_error**2, substrate.tilt_error**2
    centre = evaluate(values)
    if centre is None:
        return None
    gradient = np.zeros(5)
    for i, error in enumerate(np.sqrt(np.diag(whole))):
        moved = evaluate(values + error * np.eye(5)[i])
        gradient[i] = (moved[0] - centre[0]) / error if moved is not None and error > 0 else 0.0
    return float(centre[0]), math.sqrt(float(gradient @ whole @ gradient)), centre[1:]
