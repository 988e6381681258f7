"""Contact angles of one deposit from the curve that describes its whole free boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import stdtrit

from seg.metrics.baseline import Baseline, Substrate, correlated_points
from seg.metrics.contact_angle_3d import contact_along_line
from seg.metrics.contact_geometry import (
    MIN_CAP_PX,
    Contact,
    across,
    contact_angles,
    contact_points,
    gated,
    propagate,
    tilt_of,
)
from seg.metrics.contact_local import MAX_RMS_PX, departure, local_contact
from seg.metrics.curves import Circle, Ellipse, Fit, fit_circle, fit_ellipse
from seg.metrics.interface import DIGITISATION_PX, CrackPoints, pixel_along
from seg.uncertainty import OUTLINE_OFFSET_PX

# Boundary points nearer to the substrate than this mix three regions.
CLEARANCE_PX = 1.6
# In 3-D digitisation leaves 0.2 voxels; an ellipsoid that passes for a ball has an angle wrong by ten degrees.
MAX_RMS_3D_PX = 0.4
# A circle below this needs no comparison with an ellipse; above, the ellipse must lower chi-squared by that much.
PLAIN_RMS_PX, ELLIPSE_GAIN = 0.3, 15.0
# A rough boundary still has a shape: residuals up to this are accepted where they average out over twelve stretches.
MAX_ROUGHNESS_PX, N_ARCS = 2.0, 12
# An outline that leaves its curve at the contact by this much more or less says nothing about the angle.
MAX_UNSURE_DEG = 30.0


def measure_contact(
    outline: CrackPoints, substrate: Substrate | None, contact: CrackPoints, surface: CrackPoints,
    spacing: Sequence[float],
) -> Contact:  # fmt: skip
    """Contact angles from the free boundary of one deposit and the fitted substrate.

    Parameters
    ----------
    outline : CrackPoints
        From the deposit to the electrolyte (not to substrate, other deposits or the frame).
    substrate : Substrate or None
        None where no line or circle (plane or ball) is credible: refused in 2-D, taken next to each place in 3-D.
    contact, surface : CrackPoints
        From the substrate to the deposit, and to everything else.
    spacing : sequence of float

    Notes
    -----
    Circle by geometric least squares; an ellipse where the circle leaves more than 0.55 px, or where the ellipse is
    clearly better (half of a flat ellipse passes for a wide arc); a rough boundary may leave up to 2 px that average
    out along it. Where neither fits, the boundary near each contact decides: a straight stretch of 1.5 times the run
    that a circle of that size would show is a facet, which has no contact angle in the sense of wetting (refused);
    anything else that a circle describes within 2 px is turned from it as said below, and what no circle describes gets
    a parabola over half a radius. In volumes a ball on a plane or ball has one angle; where either
    does not describe its surface, the angle is the mean along the contact line.
    A curve that fits on the whole may still leave the outline at the contact, as when facets begin to form: where the
    residuals there slope by more than chance, the angle turns to the outline (flag ``faceted-contact``), and a straight
    facet is refused, and so is an angle that this leaves unsure by more than 30 degrees (``ambiguous``).
    Standard errors join the covariance of the fit and the error of the baseline, which dominates on substrates along
    an axis: ``sigma = (1/sqrt(12) px) / (R sin(angle))``.
    """
    ndim = len(spacing)
    if substrate is None:
        return _without_baseline(outline, contact, surface, spacing)
    base = substrate.curve
    above_px = base.signed_distance(outline.position) / pixel_along(base.normal(outline.position), spacing)
    free = outline[above_px > CLEARANCE_PX]
    tilt = {"baseline_tilt": tilt_of(base, contact), "tilt_error": math.degrees(substrate.tilt_error)}
    top_px = float(above_px.max(initial=0.0))
    if top_px < MIN_CAP_PX or len(free) < 8:
        return Contact(cap_height=top_px * across(base, contact, spacing), flags=("few-pixels",), **tilt)

    circle = fit_circle(free, spacing)
    fit = _shape(free, circle, spacing)
    loose = fit is None and ndim == 2 and circle is not None and circle.rms_px <= MAX_ROUGHNESS_PX
    if loose and circle is not None and circle.curve.side == 1:
        fit = circle  # the nearest drop; what the outline does beside it at the contact is looked at below
    if fit is None:
        if ndim == 3:
            return contact_along_line(outline, contact, surface, spacing, substrate=substrate, ball=None, tilt=tilt)
        return local_contact(free, substrate, contact, spacing, circle.curve.radius if circle else math.inf, tilt)

    def evaluate(values: np.ndarray) -> np.ndarray | None:
        moved = base.moved(values[-2], values[-1], contact.position.mean(axis=0))
        curve = fit.curve.with_parameters(values[:-3]).grown(values[-3])
        found = contact_angles(curve, moved)
        return found if found is None or ndim == 3 else np.append(found, _base_and_height(curve, moved))

    values = np.append(fit.curve.parameters, [0.0, 0.0, 0.0])
    covariance = np.zeros((len(values), len(values)))
    covariance[:-3, :-3] = fit.covariance * _samples_per_degree_of_freedom(free, fit, spacing)
    if ndim == 2 and substrate.outline_error > 0:
        # A short outline may look smooth by chance: the mask that drew the substrate's rough edge drew this one too.
        weight = substrate.n_points / (substrate.n_points + len(free))
        rougher = (substrate.rms_px / max(fit.rms_px, DIGITISATION_PX)) ** 2
        covariance[:-3, :-3] *= max(1.0, 1 + weight * (rougher - 1))
    # All of an outline may lie further in or out: by the grey level of an image, else by what masks are off.
    shared_px = free.grain_px if free.grain_px < DIGITISATION_PX else OUTLINE_OFFSET_PX
    covariance[-3, -3] = (shared_px * math.prod(spacing) ** (1 / ndim)) ** 2
    covariance[-2, -2], covariance[-1, -1] = substrate.position_error**2, substrate.tilt_error**2
    result = propagate(evaluate, values, covariance, fit.curve)
    name = "ball" if ndim == 3 else type(fit.curve).__name__.lower()
    model = f"{name} on {substrate.name}, rms {fit.rms_px:.2f} px"
    ends = contact_points(fit.curve, base) if ndim == 2 else None
    if result is None or (ndim == 2 and ends is None):
        if isinstance(fit.curve, Ellipse):  # a long way from any drop: see what it does at the contact
            return local_contact(free, substrate, contact, spacing, circle.curve.radius, tilt)
        return Contact(flags=("ambiguous",), model=f"{model}: they do not meet", **tilt)
    angles, errors, lengths = result
    if ndim == 2:
        base_width, height = _base_and_height(fit.curve, base)
    else:
        base_width = 2 * fit.curve.radius * math.sin(math.radians(angles["mean"]))
        height = fit.curve.radius + float(base.signed_distance(fit.curve.centre))
    doubtful: tuple[str, ...] = ()
    # A rough outline slopes everywhere; the error of its fit allows for that. A circle that describes its outline is
    # that of a drop, and a few steps of the pixels at the contact say nothing against it.
    if ends is not None and (loose or (isinstance(fit.curve, Ellipse) and fit.rms_px <= MAX_RMS_PX)):
        extent = float(np.linalg.norm(np.ptp(free.position, axis=0)))
        left = [departure(free, fit.curve, end, min(circle.curve.radius, extent / 2), spacing) for end in ends]
        trusted = [_trust(turn, error) for turn, error, _ in left]
        if any(straight and (loose or trust > 0) for (_, _, straight), trust in zip(left, trusted, strict=True)):
            model = f"{model}: straight at the contact"
            return Contact(cap_height=height, flags=("faceted-contact",), model=model, rms_px=fit.rms_px, **tilt)
        angles, errors = _turned(angles, errors, left, trusted)
        if 1.96 * errors["mean"] > MAX_UNSURE_DEG:
            model = f"{model}: known to {1.96 * errors['mean']:.0f} degrees only"
            return Contact(cap_height=height, flags=("ambiguous",), model=model, rms_px=fit.rms_px, **tilt)
        if max(trusted) > 0.5:
            doubtful, model = ("faceted-contact",), f"{model}, turned to the outline at the contact"
    found = gated(angles, errors, base_width, height, model, substrate, contact, spacing, tilt)
    if ndim == 2:
        found = replace(found, base_error=float(lengths[0]), height_error=float(lengths[1]))
    return replace(found, rms_px=fit.rms_px, flags=tuple(dict.fromkeys((*found.flags, *doubtful))))


def _trust(turn: float, error: float) -> float:
    """How much of a turn is more than chance: 0 within two standard errors, from there on rising to 1."""
    return max(0.0, 1 - (2 * error / turn) ** 2) if math.isfinite(turn) and turn else 0.0


def _turned(
    angles: dict[str, float], errors: dict[str, float], left: Sequence[tuple[float, float, bool]],
    trusted: Sequence[float],
) -> tuple[dict[str, float], dict[str, float]]:  # fmt: skip
    """Angles after the part of each turn that is trusted; what is not known of it widens the errors.

    Nothing makes a drop an ellipse: what its outline says beside one is part of the error even if it may be chance. The
    interval of a turned angle holds the angle of the curve as well.
    """
    turns, more = {}, {}
    for side, (turn, error, _), trust in zip(("left", "right"), left, trusted, strict=True):
        turns[side] = trust * turn if trust else 0.0
        unsure = math.sqrt(trust * error**2 + (1 - trust) * turn**2) if math.isfinite(turn) else 0.0
        more[side] = max(unsure, abs(turns[side]) / 1.96)
    turns["mean"], more["mean"] = sum(turns.values()) / 2, math.hypot(*more.values()) / 2
    return (
        {side: min(max(angle + turns[side], 0.0), 180.0) for side, angle in angles.items()},
        {side: math.hypot(error, more[side]) for side, error in errors.items()},
    )


def _base_and_height(curve: Circle | Ellipse, base: Baseline) -> tuple[float, float]:
    """Distance of the contact points, and greatest height above the substrate; NaN where they do not meet."""
    ends = contact_points(curve, base)
    width = math.nan if ends is None else float(np.linalg.norm(ends[1] - ends[0]))
    return width, float(base.signed_distance(curve.points(np.linspace(0, 2 * math.pi, 721))).max())


def _without_baseline(
    outline: CrackPoints, contact: CrackPoints, surface: CrackPoints, spacing: Sequence[float]
) -> Contact:
    """Contact on a substrate that is neither straight nor round: refused in 2-D, followed along the line in 3-D."""
    if len(spacing) == 2:
        return Contact(flags=("no-credible-baseline",), model="substrate is neither straight nor round here")
    voxel = math.prod(spacing) ** (1 / 3)
    clear = outline[cKDTree(surface.position).query(outline.position)[0] > CLEARANCE_PX * voxel]
    if len(clear) < 8:
        return Contact(flags=("few-pixels",))
    fit = fit_circle(clear, spacing)
    ball = fit.curve if fit is not None and fit.curve.side == 1 and _describes(clear, fit, spacing) else None
    return contact_along_line(outline, contact, surface, spacing, substrate=None, ball=ball, tilt={})


def _shape(free: CrackPoints, circle: Fit | None, spacing: Sequence[float]) -> Fit | None:
    """Choose the circle or the ellipse that describes a boundary; None where neither does."""
    if circle is None:
        return None
    round_enough = circle.curve.side == 1 and _describes(free, circle, spacing)
    if len(spacing) == 3 or (round_enough and circle.rms_px <= PLAIN_RMS_PX):
        return circle if round_enough else None
    ellipse = fit_ellipse(free, spacing, circle.curve)
    if ellipse is None or not _describes(free, ellipse, spacing):
        return circle if round_enough else None
    # Half of a flat ellipse passes for an arc of a larger circle, and the wiggles of a rough circle for an ellipse: let
    # the residuals say whether two more axes help. Where they do not, the circle has left nothing but grain either.
    noise = max(ellipse.rms_px, DIGITISATION_PX)
    samples = len(free) / _samples_per_degree_of_freedom(free, ellipse, spacing)
    gain = samples * (circle.rms_px**2 - ellipse.rms_px**2) / noise**2
    if gain > ELLIPSE_GAIN or circle.curve.side != 1 or circle.rms_px > MAX_ROUGHNESS_PX:
        return ellipse
    return circle


def _along(free: CrackPoints, fit: Fit, spacing: Sequence[float]) -> np.ndarray:
    """Residuals (pixels) of a 2-D boundary in the order of its points."""
    residual = fit.curve.signed_distance(free.position) / pixel_along(fit.curve.normal(free.position), spacing)
    away = free.position - fit.curve.centre
    top = away.mean(axis=0)
    angle = np.arctan2(away[:, 0] * top[1] - away[:, 1] * top[0], away @ top)
    return np.asarray(residual[np.argsort(angle)])


def _arc_means(residual: np.ndarray) -> np.ndarray:
    """Mean residual of each of twelve stretches."""
    return np.array([part.mean() for part in np.array_split(residual, N_ARCS)])


def _describes(free: CrackPoints, fit: Fit, spacing: Sequence[float]) -> bool:
    """Whether what a curve leaves is the grain of the mask (pixels, roughness) and not another shape."""
    if len(spacing) == 3:
        return fit.rms_px <= MAX_RMS_3D_PX
    if fit.rms_px <= MAX_RMS_PX:
        return True
    if fit.rms_px > MAX_ROUGHNESS_PX or len(free) < 4 * N_ARCS:
        return False
    return float(np.sqrt(np.mean(_arc_means(_along(free, fit, spacing)) ** 2))) <= 0.7 * fit.rms_px


def _samples_per_degree_of_freedom(free: CrackPoints, fit: Fit, spacing: Sequence[float]) -> float:
    """How many boundary points share one independent residual.

    Along a shallow boundary residuals repeat between digital steps, so that only the steps count; along a rough one
    they are as correlated as the means over stretches of it show.
    """
    ndim = len(spacing)
    crossed = np.count_nonzero(free.direction, axis=0)
    repeated = len(free) / max(ndim * int(crossed.min()), ndim)
    if ndim == 3 or len(free) < 4 * N_ARCS:
        return max(repeated, 1.0)
    # The curve has taken up as many of the stretches as it has parameters; that few are left is Student's factor.
    residual, n_parameters = _along(free, fit, spacing), fit.curve.n_parameters
    left = N_ARCS - n_parameters
    shared = _student(left) * float(np.sum(_arc_means(residual) ** 2)) / left / fit.rms_px**2
    # On a short boundary neighbouring stretches are no more independent than their points.
    together = correlated_points(residual, n_parameters=n_parameters)
    return max(repeated, len(free) / N_ARCS * shared, together * _student(max(len(free) / together, 1.0)), 1.0)


def _student(freedom: float) -> float:
    """By how much the variance of an estimate with few degrees of freedom has to count for more."""
    return (float(stdtrit(freedom, 0.975)) / 1.96) ** 2
