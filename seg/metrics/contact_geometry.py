"""What the contact of a deposit with its substrate is made of: angles, contact points, gates, standard errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from seg.metrics.baseline import Baseline, Substrate
from seg.metrics.curves import Circle, Ellipse, Line
from seg.metrics.interface import CrackPoints, pixel_along

MIN_CAP_PX, DOUBTFUL_CAP_PX, MIN_BASE_PX = 4.0, 8.0, 10.0

Curve = Circle | Ellipse


@dataclass(frozen=True)
class Contact:
    """Contact of one deposit; angles in degrees through the deposit, lengths in the unit of the spacing.

    ``angles`` and ``errors`` (standard errors) hold left, right and mean, as seen with the substrate below; in volumes
    only the mean is known. NaN where refused; ``flags`` say why. ``rms_px`` is what the curve of the deposit leaves.
    ``base_error`` and ``height_error`` are standard errors where a curve was fitted, without the pixels at the ends.
    """

    angles: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("left", "right", "mean"), math.nan))
    errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("left", "right", "mean"), math.nan))
    base_width: float = math.nan
    cap_height: float = math.nan
    baseline_tilt: float = math.nan
    tilt_error: float = math.nan
    base_error: float = math.nan
    height_error: float = math.nan
    rms_px: float = math.nan
    model: str = ""
    flags: tuple[str, ...] = ()


def gated(
    angles: dict[str, float], errors: dict[str, float], base_width: float, height: float, model: str,
    substrate: Substrate, contact: CrackPoints, spacing: Sequence[float], tilt: dict[str, float],
) -> Contact:  # fmt: skip
    """Refuse angles of deposits that are too small, and those whose fit misses the contact seen in the mask."""
    pixel = math.prod(spacing) ** (1 / len(spacing))
    height_px = height / across(substrate.curve, contact, spacing)
    seen = float(np.linalg.norm(np.ptp(contact.position, axis=0)))
    kept = {"base_width": base_width, "cap_height": height, "model": model, **tilt}
    if height_px < MIN_CAP_PX or base_width < MIN_BASE_PX * pixel:
        return Contact(flags=("few-pixels",), **kept)
    if len(spacing) == 2 and abs(base_width - seen) > max(6 * pixel, 0.3 * seen):
        return Contact(flags=("ambiguous",), **kept)
    flags = ("few-pixels",) if height_px < DOUBTFUL_CAP_PX else ()
    return Contact(angles, errors, flags=flags, **kept)


def propagate(
    evaluate: Callable[[np.ndarray], np.ndarray | None], values: np.ndarray, covariance: np.ndarray, curve: Curve
) -> tuple[dict[str, float], dict[str, float], np.ndarray] | None:
    """Angles and their standard errors by central differences over one standard error (2 % of the curve at most).

    `evaluate` gives the angles left and right, then any lengths; or the one angle of a ball. The errors of the lengths
    come last.
    """
    centre = evaluate(values)
    if centre is None:
        return None
    size = curve.radius if isinstance(curve, Circle) else math.sqrt(curve.half_axes[0] * curve.half_axes[1])
    largest = np.full(len(values), 0.02 * size)
    largest[-1] = 0.02
    if isinstance(curve, Ellipse):
        largest[2:5] = 0.02
    steps = np.minimum(np.sqrt(np.diag(covariance)), largest) + 1e-9 * size
    jacobian = np.zeros((len(centre), len(values)))
    for i, step in enumerate(steps):
        shift = step * np.eye(len(values))[i]
        up, down = evaluate(values + shift), evaluate(values - shift)
        if up is None or down is None:
            return None
        jacobian[:, i] = (up - down) / (2 * step)
    spread = jacobian @ covariance @ jacobian.T
    if len(centre) == 1:
        angles = {"mean": float(centre[0])}
        return angles, {"mean": math.sqrt(max(spread[0, 0], 0.0))}, np.zeros(0)
    mean = np.array([0.5, 0.5])
    angles = {"left": float(centre[0]), "right": float(centre[1]), "mean": float(centre[:2].mean())}
    of_mean = mean @ spread[:2, :2] @ mean
    errors = [math.sqrt(max(float(v), 0.0)) for v in (spread[0, 0], spread[1, 1], of_mean)]
    lengths = np.sqrt(np.maximum(np.diag(spread)[2:], 0.0))
    return angles, dict(zip(("left", "right", "mean"), errors, strict=True)), lengths


def contact_angles(curve: Curve, base: Baseline) -> np.ndarray | None:
    """Angles (degrees) where a drop meets its substrate: left and right in 2-D, the one angle of a ball in 3-D."""
    if isinstance(curve, Circle) and len(curve.centre) == 3:
        if isinstance(base, Line):
            cosine = -float(base.signed_distance(curve.centre)) / curve.radius
        else:
            d2 = float(np.sum((curve.centre - base.centre) ** 2))
            cosine = base.side * (curve.radius**2 + base.radius**2 - d2) / (2 * curve.radius * base.radius)
        return np.array([math.degrees(math.acos(cosine))]) if abs(cosine) <= 1 else None
    ends = contact_points(curve, base)
    if ends is None:
        return None
    cosine = np.sum(curve.normal(ends) * base.normal(ends), axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def contact_points(curve: Curve, base: Baseline) -> np.ndarray | None:
    """Left and right contact points, shape (2, 2): the ends of the arc that reaches highest above the substrate."""
    angle = np.linspace(0, 2 * math.pi, 1441)
    above = base.signed_distance(curve.points(angle))
    top = int(np.argmax(above[:-1]))
    if above[top] <= 0 or np.all(above > 0):
        return None
    order = np.roll(np.arange(1440), -top)
    ends = []
    for walk in (order, order[::-1]):
        step = int(np.argmax(above[walk] <= 0))
        last, first = walk[step - 1], walk[step]
        ends.append(_root(curve, base, angle[last], angle[first]))
    normal = base.normal(np.mean(ends, axis=0))
    right = np.array([normal[1], -normal[0]])
    ends.sort(key=lambda p: float(p @ right))
    return np.array(ends)


def _root(curve: Curve, base: Baseline, inside: float, outside: float) -> np.ndarray:
    """Point of a curve on the substrate between two parameter angles, by the secant method."""
    # Neighbours across the seam differ by a full turn.
    outside += round((inside - outside) / (2 * math.pi)) * 2 * math.pi
    for _ in range(6):
        a, b = (float(base.signed_distance(curve.points(np.array(t)))) for t in (inside, outside))
        if a == b:
            break
        inside, outside = outside, inside + (outside - inside) * a / (a - b)
    return curve.points(np.array(outside))


def across(base: Baseline, contact: CrackPoints, spacing: Sequence[float]) -> float:
    """Size of a pixel across the substrate at the contact."""
    return float(np.mean(pixel_along(base.normal(contact.position), spacing)))


def rightwards(base: Baseline, contact: CrackPoints) -> np.ndarray:
    """Find the unit vector to the right along the substrate at the contact, as seen with the substrate below."""
    normal = base.normal(contact.position.mean(axis=0))
    return np.array([normal[1], -normal[0]])


def tilt_of(base: Baseline, contact: CrackPoints) -> float:
    """Angle of the substrate with the x axis, or in 3-D with the plane of y and x; degrees."""
    normal = base.normal(contact.position.mean(axis=0))
    if len(normal) == 3:
        return math.degrees(math.acos(min(abs(float(normal[0])), 1.0)))
    right = rightwards(base, contact)
    # Counter-clockwise on the screen is positive; a substrate above is the same line.
    tilt = math.degrees(math.atan2(-right[0], right[1]))
    return (tilt + 90) % 180 - 90
