"""The substrate under a deposit: a line or a circle (plane or ball) through its surface, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seg.metrics.curves import Circle, Line, fit_circle, fit_line
from seg.metrics.interface import DIGITISATION_PX, CrackPoints, pixel_along
from seg.uncertainty import OUTLINE_OFFSET_PX

# A substrate may be this rough (root mean square), and this much of it near the deposit must follow the fit.
MAX_BASELINE_RMS_PX, MIN_BASELINE_SHARE = 1.0, 0.8

Baseline = Line | Circle


@dataclass(frozen=True)
class Substrate:
    """The fitted surface under a deposit, with the standard errors of its position and direction (radians).

    ``outline_error`` is how far a mask as a whole may be off, beyond what its pixels show; 0 where the surface was
    found in an image, whose grey level is part of ``offset_error``. ``n_points`` made it.
    """

    curve: Baseline
    rms_px: float
    offset_error: float
    tilt_error: float
    outline_error: float = 0.0
    n_points: int = 0

    @property
    def position_error(self) -> float:
        """Standard error of the position with all that is not known about it."""
        return math.hypot(self.offset_error, self.outline_error)

    @property
    def name(self) -> str:
        """What it is called in `method`."""
        return "line" if isinstance(self.curve, Line) else "circle"


def fit_substrate(surface: CrackPoints, contact: CrackPoints, spacing: Sequence[float]) -> Substrate | None:
    """Line or circle (plane or ball) through a substrate surface around a deposit; None where neither is credible.

    Parameters
    ----------
    surface : CrackPoints
        From the substrate to everything else.
    contact : CrackPoints
        From the substrate to the deposit.
    spacing : sequence of float

    Notes
    -----
    The fit starts from three half widths of the contact and widens by factors of two as long as four fifths of the
    surface that faces the same way follow it within 2 px: so it takes in a whole electrode or fibre, and stops at
    corners and bends. The circle is taken where its BIC is better by 10 and it departs from a line by a pixel;
    residuals of a digitised line are not independent, so that BIC alone would find circles of thousands of pixels.
    """
    pixel = math.prod(spacing) ** (1 / len(spacing))
    if len(contact) < 3:
        return None
    centre = contact.position.mean(axis=0)
    facing = contact.direction.mean(axis=0)
    if np.linalg.norm(facing) < 0.3:
        return None
    curve: Baseline = Line(centre, facing / np.linalg.norm(facing))
    half = max(float(np.ptp(contact.position, axis=0).max()) / 2, 5 * pixel)
    distance = np.linalg.norm(surface.position - centre, axis=1)
    best: tuple[Baseline, CrackPoints] | None = None
    radius = 3 * half
    while True:
        near = surface[distance <= radius]
        chosen = _choose(near, curve, radius, spacing)
        if chosen is None:
            break
        found, share = chosen
        if share < MIN_BASELINE_SHARE:
            break
        curve = found
        best = (curve, near[_inliers(near, curve, 2.0, spacing)])
        if radius >= distance.max():
            break
        radius *= 2
    if best is None:
        return None
    curve, used = best
    residual = curve.signed_distance(used.position) / pixel_along(curve.normal(used.position), spacing)
    rms = float(np.sqrt(np.mean(residual**2)))
    if rms > MAX_BASELINE_RMS_PX:
        return None
    # Every digital step of the surface samples its position once more; along an axis there is none.
    extent_px = np.ptp(used.position, axis=0) / np.asarray(spacing)
    steps = float(np.min(extent_px))
    across = float(np.mean(pixel_along(curve.normal(used.position), spacing)))
    # Points found in an image share the error of their grey level instead.
    shared = surface.grain_px if surface.grain_px < DIGITISATION_PX else max(DIGITISATION_PX, rms) / (1 + steps)
    offset_error = across * math.hypot(shared, 3 * rms / math.sqrt(len(used)))
    span = float(np.linalg.norm(np.ptp(used.position, axis=0)))
    outline_error = 0.0 if surface.grain_px < DIGITISATION_PX else OUTLINE_OFFSET_PX * across
    return Substrate(curve, rms, offset_error, math.sqrt(12) * offset_error / span, outline_error, len(used))


def _inliers(cracks: CrackPoints, curve: Baseline, tolerance_px: float, spacing: Sequence[float]) -> np.ndarray:
    """Cracks near a curve that face its outer side."""
    normal = curve.normal(cracks.position)
    close = np.abs(curve.signed_distance(cracks.position)) <= tolerance_px * pixel_along(normal, spacing)
    return close & (np.sum(normal * cracks.direction, axis=1) > 0.3)


def _choose(
    near: CrackPoints, start: Baseline, radius: float, spacing: Sequence[float]
) -> tuple[Baseline, float] | None:
    """Fit a line and a circle from a common start; return the better one and the share of the surface it explains."""
    pixel = math.prod(spacing) ** (1 / len(spacing))
    fitted: list[Baseline] = []
    for kind in (Line, Circle):
        curve: Baseline | None = start
        for tolerance_px in (max(0.3 * radius / pixel, 4.0), 4.0, 2.0, 2.0):
            keep = near[_inliers(near, curve, tolerance_px, spacing)]
            if len(keep) < len(spacing) + 3:
                curve = None
                break
            if kind is Line:
                curve = fit_line(keep)
            else:
                fit = fit_circle(keep, spacing)
                curve = fit.curve if fit is not None else None
            if curve is None:
                break
        if curve is not None:
            fitted.append(curve)
    if not fitted:
        return None
    # Both are judged on all cracks that face either of them; what a curve does not explain costs it 3 px.
    toward = [np.sum(c.normal(near.position) * near.direction, axis=1) > 0.3 for c in fitted]
    judged = near[np.any(toward, axis=0)]
    residuals = [
        np.minimum(np.abs(c.signed_distance(judged.position)) / pixel_along(c.normal(judged.position), spacing), 3.0)
        for c in fitted
    ]
    noise = max(0.3**2, min(float(np.mean(r**2)) for r in residuals))
    bic = [
        float(np.sum(r**2)) / noise + c.n_parameters * math.log(len(judged))
        for r, c in zip(residuals, fitted, strict=True)
    ]
    best = 0
    if len(fitted) == 2 and isinstance(fitted[1], Circle):
        span = float(np.linalg.norm(np.ptp(judged.position, axis=0)))
        sagitta = span**2 / (8 * fitted[1].radius)
        if len(spacing) == 2 and sagitta > pixel:
            # The edge of a rough mask wanders over some pixels: as many points say one thing.
            shared = _shared(judged, fitted[1], spacing)
            more = fitted[1].n_parameters - fitted[0].n_parameters
            gain = float(np.sum(residuals[0] ** 2) - np.sum(residuals[1] ** 2)) / noise / shared
            bic = [gain - more * math.log(max(len(judged) / shared, 2.0)), 0.0]
        if bic[0] - bic[1] > 10 and sagitta > pixel:
            best = 1
    facing = toward[best]
    share = np.count_nonzero(_inliers(near, fitted[best], 2.0, spacing)) / max(np.count_nonzero(facing), 1)
    return fitted[best], share


def _shared(judged: CrackPoints, curve: Baseline, spacing: Sequence[float]) -> float:
    """How many neighbouring points of a surface share one independent residual from a curve."""
    along = judged.position - judged.position.mean(axis=0)
    towards = np.linalg.svd(along, full_matrices=False)[2][0]
    residual = curve.signed_distance(judged.position) / pixel_along(curve.normal(judged.position), spacing)
    in_order = np.clip(residual, -3.0, 3.0)[np.argsort(along @ towards, kind="stable")]
    return correlated_points(in_order - in_order.mean(), n_parameters=curve.n_parameters)


def correlated_points(residual: np.ndarray, *, n_parameters: int) -> float:
    """How many neighbouring residuals of a fit share one independent one, from their autocorrelation."""
    n = len(residual)
    lags = np.correlate(residual, residual, "full")[n - 1 :]
    if lags[0] <= 0:
        return 1.0
    lags = lags / lags[0]
    turn = int(np.argmax(lags <= 0)) or n
    shared = max(1.0, 2 * float(lags[:turn].sum()) - 1)
    # The fit has taken up as many independent residuals as it has parameters.
    return shared * n / max(n - n_parameters * shared, shared)
