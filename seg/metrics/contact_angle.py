"""Contact angles of deposits seen in profile: the angle through the metal between its surface and the substrate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from seg.metrics.baseline import Baseline, Substrate, fit_substrate
from seg.metrics.curves import Circle, Ellipse, Fit, Line, fit_circle, fit_ellipse, fit_line
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, CrackPoints, crack_points, pixel_along
from seg.metrics.table import Measurement

# Boundary points nearer to the substrate than this mix three regions.
CLEARANCE_PX = 1.6
# Digitisation alone leaves about 0.3 px; beyond this a curve does not describe the boundary.
MAX_RMS_PX = 0.55
MAX_RMS_3D_PX = 0.8
# A circle below this needs no comparison with an ellipse; above, the ellipse must lower chi-squared by that much.
PLAIN_RMS_PX, ELLIPSE_GAIN = 0.3, 15.0
# A rough boundary still has a shape: residuals up to this are accepted where they average out over twelve stretches.
MAX_ROUGHNESS_PX, N_ARCS = 2.0, 12
MIN_CAP_PX, DOUBTFUL_CAP_PX, MIN_BASE_PX = 4.0, 8.0, 10.0
# Greatest deviation of a straight facet.
FACET_DEVIATION_PX = 0.7

Curve = Circle | Ellipse


@dataclass(frozen=True)
class Contact:
    """Contact of one deposit; angles in degrees through the deposit, lengths in the unit of the spacing.

    ``angles`` and ``errors`` (standard errors) hold left, right and mean, as seen with the substrate below; in volumes
    only the mean is known. NaN where refused; ``flags`` say why.
    """

    angles: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("left", "right", "mean"), math.nan))
    errors: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("left", "right", "mean"), math.nan))
    base_width: float = math.nan
    cap_height: float = math.nan
    baseline_tilt: float = math.nan
    tilt_error: float = math.nan
    model: str = ""
    flags: tuple[str, ...] = ()


def contact_angle(deposit: np.ndarray, substrate: np.ndarray, *, spacing: Sequence[float]) -> Contact:
    """Contact of one deposit; everything that is neither deposit nor substrate is electrolyte.

    Parameters
    ----------
    deposit, substrate : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float
        Pixel size along each axis.
    """
    boxes = ndimage.find_objects(deposit.astype(np.uint8))
    if not boxes:
        return Contact(flags=("no-credible-baseline",), model="no deposit")
    surface = crack_points(substrate, ~substrate, spacing)
    return _object_contact(deposit.astype(np.uint8), 1, boxes[0], substrate, ~(deposit | substrate), surface, spacing)


def measure_contact(
    outline: CrackPoints, substrate: Substrate, contact: CrackPoints, spacing: Sequence[float]
) -> Contact:
    """Contact angles from the free boundary of one deposit and the fitted substrate.

    Parameters
    ----------
    outline : CrackPoints
        From the deposit to the electrolyte (not to substrate, other deposits or the frame).
    substrate : Substrate
    contact : CrackPoints
        From the substrate to the deposit.
    spacing : sequence of float

    Notes
    -----
    Circle by geometric least squares; an ellipse where the circle leaves more than 0.55 px, or where the ellipse is
    clearly better (half of a flat ellipse passes for a wide arc); a rough boundary may leave up to 2 px that average
    out along it. Where neither fits, the boundary near each contact decides: a straight stretch of 1.5 times the run
    that a circle of that size would show is a facet, which has no contact angle in the sense of wetting (refused);
    anything else gets a parabola over half a radius.
    Standard errors join the covariance of the fit and the error of the baseline, which dominates on substrates along
    an axis: ``sigma = (1/sqrt(12) px) / (R sin(angle))``.
    """
    ndim = len(spacing)
    base = substrate.curve
    above_px = base.signed_distance(outline.position) / pixel_along(base.normal(outline.position), spacing)
    free = outline[above_px > CLEARANCE_PX]
    tilt = {"baseline_tilt": _tilt(base, contact), "tilt_error": math.degrees(substrate.tilt_error)}
    top_px = float(above_px.max(initial=0.0))
    if top_px < MIN_CAP_PX or len(free) < 8:
        return Contact(cap_height=top_px * _across(base, contact, spacing), flags=("few-pixels",), **tilt)

    circle = fit_circle(free, spacing)
    fit = _shape(free, circle, spacing)
    if fit is None:
        if ndim == 3:
            return Contact(flags=("ambiguous",), model="no ball", **tilt)
        return _local_contact(free, substrate, contact, spacing, circle.curve.radius if circle else math.inf, tilt)

    def evaluate(values: np.ndarray) -> np.ndarray | None:
        moved = base.moved(values[-2], values[-1], contact.position.mean(axis=0))
        return _angles(fit.curve.with_parameters(values[:-2]), moved)

    values = np.append(fit.curve.parameters, [0.0, 0.0])
    covariance = np.zeros((len(values), len(values)))
    covariance[:-2, :-2] = fit.covariance * _samples_per_degree_of_freedom(free, fit, spacing)
    covariance[-2, -2], covariance[-1, -1] = substrate.offset_error**2, substrate.tilt_error**2
    result = _propagate(evaluate, values, covariance, fit.curve)
    name = "ball" if ndim == 3 else type(fit.curve).__name__.lower()
    model = f"{name} on {substrate.name}, rms {fit.rms_px:.2f} px"
    ends = _meet(fit.curve, base) if ndim == 2 else None
    if result is None or (ndim == 2 and ends is None):
        return Contact(flags=("ambiguous",), model=f"{model}: they do not meet", **tilt)
    angles, errors = result
    if ndim == 2:
        base_width = float(np.linalg.norm(ends[1] - ends[0]))
        grid = fit.curve.points(np.linspace(0, 2 * math.pi, 721))
        height = float(base.signed_distance(grid).max())
    else:
        base_width = 2 * fit.curve.radius * math.sin(math.radians(angles["mean"]))
        height = fit.curve.radius + float(base.signed_distance(fit.curve.centre))
    return _gated(angles, errors, base_width, height, model, substrate, contact, spacing, tilt)


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
    if not round_enough:
        return ellipse
    # Half of a flat ellipse passes for an arc of a larger circle: let the residuals say whether two more axes help.
    noise = max(ellipse.rms_px, DIGITISATION_PX)
    samples = len(free) / _samples_per_degree_of_freedom(free, ellipse, spacing)
    gain = samples * (circle.rms_px**2 - ellipse.rms_px**2) / noise**2
    return ellipse if gain > ELLIPSE_GAIN else circle


def _arc_means(free: CrackPoints, fit: Fit, spacing: Sequence[float]) -> np.ndarray:
    """Mean residual (pixels) of each of twelve stretches of a 2-D boundary."""
    residual = fit.curve.signed_distance(free.position) / pixel_along(fit.curve.normal(free.position), spacing)
    away = free.position - fit.curve.centre
    top = away.mean(axis=0)
    angle = np.arctan2(away[:, 0] * top[1] - away[:, 1] * top[0], away @ top)
    order = np.argsort(angle)
    return np.array([residual[part].mean() for part in np.array_split(order, N_ARCS)])


def _describes(free: CrackPoints, fit: Fit, spacing: Sequence[float]) -> bool:
    """Whether what a curve leaves is the grain of the mask (pixels, roughness) and not another shape."""
    if len(spacing) == 3:
        return fit.rms_px <= MAX_RMS_3D_PX
    if fit.rms_px <= MAX_RMS_PX:
        return True
    if fit.rms_px > MAX_ROUGHNESS_PX or len(free) < 4 * N_ARCS:
        return False
    return float(np.sqrt(np.mean(_arc_means(free, fit, spacing) ** 2))) <= 0.7 * fit.rms_px


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
    means = _arc_means(free, fit, spacing)
    return max(repeated, len(free) / N_ARCS * float(np.mean(means**2)) / fit.rms_px**2, 1.0)


def _gated(
    angles: dict[str, float], errors: dict[str, float], base_width: float, height: float, model: str,
    substrate: Substrate, contact: CrackPoints, spacing: Sequence[float], tilt: dict[str, float],
) -> Contact:  # fmt: skip
    """Refuse angles of deposits that are too small, and those whose fit misses the contact seen in the mask."""
    pixel = math.prod(spacing) ** (1 / len(spacing))
    height_px = height / _across(substrate.curve, contact, spacing)
    seen = float(np.linalg.norm(np.ptp(contact.position, axis=0)))
    kept = {"base_width": base_width, "cap_height": height, "model": model, **tilt}
    if height_px < MIN_CAP_PX or base_width < MIN_BASE_PX * pixel:
        return Contact(flags=("few-pixels",), **kept)
    if len(spacing) == 2 and abs(base_width - seen) > max(6 * pixel, 0.3 * seen):
        return Contact(flags=("ambiguous",), **kept)
    flags = ("few-pixels",) if height_px < DOUBTFUL_CAP_PX else ()
    return Contact(angles, errors, flags=flags, **kept)


def _local_contact(
    free: CrackPoints, substrate: Substrate, contact: CrackPoints, spacing: Sequence[float], radius: float,
    tilt: dict[str, float],
) -> Contact:  # fmt: skip
    """Angles from a parabola through the boundary near each contact; NaN with a flag at a facet."""
    pixel = math.prod(spacing) ** (1 / len(spacing))
    base = substrate.curve
    along = contact.position @ _right(base, contact)
    size = min(radius, float(np.linalg.norm(np.ptp(free.position, axis=0))) / 2)
    height = float(base.signed_distance(free.position).max())
    middle = (along.max() + along.min()) / 2
    angles, errors, ends = {}, {}, []
    for side, at in (("left", int(np.argmin(along))), ("right", int(np.argmax(along)))):
        foot = contact.position[at]
        beyond = free.position @ _right(base, contact) - middle
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
    return _gated(angles, errors, width, height, model, substrate, contact, spacing, tilt)


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
    whole[3, 3], whole[4, 4] = substrate.offset_error**2, substrate.tilt_error**2
    centre = evaluate(values)
    if centre is None:
        return None
    gradient = np.zeros(5)
    for i, error in enumerate(np.sqrt(np.diag(whole))):
        moved = evaluate(values + error * np.eye(5)[i])
        gradient[i] = (moved[0] - centre[0]) / error if moved is not None and error > 0 else 0.0
    return float(centre[0]), math.sqrt(float(gradient @ whole @ gradient)), centre[1:]


def _propagate(
    evaluate: Callable[[np.ndarray], np.ndarray | None], values: np.ndarray, covariance: np.ndarray, curve: Curve
) -> tuple[dict[str, float], dict[str, float]] | None:
    """Angles and their standard errors by central differences over one standard error (2 % of the curve at most)."""
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
        return angles, {"mean": math.sqrt(max(spread[0, 0], 0.0))}
    mean = np.array([0.5, 0.5])
    angles = {"left": float(centre[0]), "right": float(centre[1]), "mean": float(centre.mean())}
    errors = [math.sqrt(max(float(v), 0.0)) for v in (spread[0, 0], spread[1, 1], mean @ spread @ mean)]
    return angles, dict(zip(("left", "right", "mean"), errors, strict=True))


def _angles(curve: Curve, base: Baseline) -> np.ndarray | None:
    """Angles (degrees) where a drop meets its substrate: left and right in 2-D, the one angle of a ball in 3-D."""
    if isinstance(curve, Circle) and len(curve.centre) == 3:
        if isinstance(base, Line):
            cosine = -float(base.signed_distance(curve.centre)) / curve.radius
        else:
            d2 = float(np.sum((curve.centre - base.centre) ** 2))
            cosine = base.side * (curve.radius**2 + base.radius**2 - d2) / (2 * curve.radius * base.radius)
        return np.array([math.degrees(math.acos(cosine))]) if abs(cosine) <= 1 else None
    ends = _meet(curve, base)
    if ends is None:
        return None
    cosine = np.sum(curve.normal(ends) * base.normal(ends), axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _meet(curve: Curve, base: Baseline) -> np.ndarray | None:
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


def _across(base: Baseline, contact: CrackPoints, spacing: Sequence[float]) -> float:
    """Size of a pixel across the substrate at the contact."""
    return float(np.mean(pixel_along(base.normal(contact.position), spacing)))


def _right(base: Baseline, contact: CrackPoints) -> np.ndarray:
    """Find the unit vector to the right along the substrate at the contact, as seen with the substrate below."""
    normal = base.normal(contact.position.mean(axis=0))
    return np.array([normal[1], -normal[0]])


def _tilt(base: Baseline, contact: CrackPoints) -> float:
    """Angle of the substrate with the x axis, or in 3-D with the plane of y and x; degrees."""
    normal = base.normal(contact.position.mean(axis=0))
    if len(normal) == 3:
        return math.degrees(math.acos(min(abs(float(normal[0])), 1.0)))
    right = _right(base, contact)
    # Counter-clockwise on the screen is positive; a substrate above is the same line.
    tilt = math.degrees(math.atan2(-right[0], right[1]))
    return (tilt + 90) % 180 - 90


def measure_frame(
    frame: Frame,
    *,
    deposit_classes: Sequence[str] = ("deposit",),
    substrate_classes: Sequence[str] = ("substrate",),
) -> list[Measurement]:
    """Contact angles, base width, cap height and baseline tilt of each deposit in profile, and their mean angle.

    Objects are the instances of the frame where given, else connected regions of `deposit_classes`. Left and right are
    as seen with the substrate below. Refused (NaN with a flag): cap below 4 px or base below 10 px (`few-pixels`; up to
    8 px of cap the angle is given and flagged), objects cut by the frame (`touches-border`), no straight or round
    substrate under the object (`no-credible-baseline`), a straight facet at the contact (`faceted-contact`), curves
    that do not meet where the mask does (`ambiguous`). In volumes a ball on a plane or ball is fitted. The frame row
    (no `object_id`) is the mean over the accepted objects; NaN without one.
    """
    spacing, ndim = frame.scale.spacing, frame.labels.ndim
    deposit, substrate, valid = frame.mask(deposit_classes), frame.mask(substrate_classes), frame.valid
    if frame.instances is not None:
        ids = np.where(deposit, frame.instances, 0).astype(np.int64)
    else:
        ids, _ = ndimage.label(deposit, structure=np.ones((3,) * ndim))
    surface = crack_points(substrate, valid & ~substrate, spacing)
    free = valid & ~deposit & ~substrate
    rows: list[Measurement] = []
    accepted: list[Contact] = []
    refusals: list[str] = []
    for object_id, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:
            continue
        contact = _object_contact(ids, object_id, box, substrate, free, surface, spacing)
        rows += _rows(frame, contact, deposit_classes, object_id)
        if math.isfinite(contact.angles["mean"]):
            accepted.append(contact)
        else:
            refusals += contact.flags
    return [*rows, _mean_row(frame, accepted, tuple(dict.fromkeys(refusals)), deposit_classes)]


def _object_contact(
    ids: np.ndarray, object_id: int, box: tuple[slice, ...], substrate: np.ndarray, free: np.ndarray,
    surface: CrackPoints, spacing: Sequence[float],
) -> Contact:  # fmt: skip
    """Contact of one object of a frame."""
    near = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    origin = [s.start for s in near]
    mask = ids[near] == object_id
    # Pin-holes in a mask are not part of its outline.
    filled = ndimage.binary_fill_holes(mask)
    contact = crack_points(substrate[near], mask, spacing, origin=origin)
    if len(contact) == 0:
        return Contact(flags=("no-credible-baseline",), model="touches no substrate")
    if any(s.start == 0 or s.stop == n for s, n in zip(box, ids.shape, strict=True)):
        return Contact(flags=("touches-border",), model="cut by the frame")
    if min(s.stop - s.start for s in box) < MIN_CAP_PX:
        return Contact(flags=("few-pixels",))
    base = fit_substrate(surface, contact, spacing)
    if base is None:
        return Contact(flags=("no-credible-baseline",), model="substrate is neither straight nor round here")
    outline = crack_points(filled, free[near] & ~filled, spacing, origin=origin)
    return measure_contact(outline, base, contact, spacing)


def _rows(frame: Frame, contact: Contact, classes: Sequence[str], object_id: int) -> list[Measurement]:
    """Write one contact as rows; without a baseline there are only the refused angles."""
    scale = frame.scale
    pixel = scale.pixel ** (1 / frame.labels.ndim)
    edge = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    method = f"{contact.model}; angle through the deposit" if contact.model else "angle through the deposit"

    def row(metric: str, value: float, error: float, unit: str, side: str = "", how: str = method) -> Measurement:
        lowest = -math.inf if metric == "baseline_tilt" else 0.0
        highest = 180.0 if metric == "contact_angle" else math.inf
        known = math.isfinite(value) and math.isfinite(error)
        return Measurement(
            metric, value, unit, low=max(value - error, lowest) if known else math.nan,
            high=min(value + error, highest) if known else math.nan, class_name=";".join(classes), frame=frame.index,
            time_s=frame.time_s, object_id=object_id, side=side, method=how, flags=scale.flags + contact.flags,
        )  # fmt: skip

    rows = [
        row("contact_angle", contact.angles[side], 1.96 * contact.errors[side], "deg", side)
        for side in (contact.angles if frame.labels.ndim == 2 else ("mean",))
    ]
    if math.isnan(contact.baseline_tilt):
        return rows
    um = scale.unit("um")
    return [
        *rows,
        row("base_width", contact.base_width, edge, um, how="distance of the contact points; interval: ends +-0.5 px"),
        row("cap_height", contact.cap_height, edge, um, how="above the fitted substrate; interval: ends +-0.5 px"),
        row("baseline_tilt", contact.baseline_tilt, 1.96 * contact.tilt_error, "deg",
            how="of the fitted substrate under the deposit, counter-clockwise from the x axis"),
    ]  # fmt: skip


def _mean_row(frame: Frame, accepted: list[Contact], refusals: tuple[str, ...], classes: Sequence[str]) -> Measurement:
    """Mean angle of a frame; its error joins the spread between objects and the baseline error they share."""
    values = np.array([c.angles["mean"] for c in accepted])
    mean = float(values.mean()) if len(values) else math.nan
    error = math.nan
    if len(values):
        shared = float(np.mean([c.errors["mean"] for c in accepted]))
        spread = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        error = 1.96 * math.hypot(shared, spread)
    doubtful = tuple(dict.fromkeys(flag for c in accepted for flag in c.flags))
    return Measurement(
        "contact_angle", mean, "deg", low=max(mean - error, 0.0) if len(values) else math.nan,
        high=min(mean + error, 180.0) if len(values) else math.nan, class_name=";".join(classes), frame=frame.index,
        time_s=frame.time_s, side="mean", n=len(values), method="mean over accepted objects",
        flags=frame.scale.flags + (doubtful if len(values) else refusals),
    )  # fmt: skip
