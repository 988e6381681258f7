"""Contact angles of deposits seen in profile: the angle through the metal between its surface and the substrate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from seg.metrics.baseline import fit_substrate
from seg.metrics.cap import adhesion_work
from seg.metrics.contact_fit import measure_contact
from seg.metrics.contact_geometry import MIN_CAP_PX, Contact
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, CrackPoints, crack_points
from seg.metrics.table import Measurement


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


def measure_frame(
    frame: Frame,
    *,
    deposit_classes: Sequence[str] = ("deposit",),
    substrate_classes: Sequence[str] = ("substrate",),
    surface_energy_j_per_m2: float | None = None,
) -> list[Measurement]:
    """Contact angles, base width, cap height and baseline tilt of each deposit in profile, and their mean angle.

    Objects are the instances of the frame where given, else connected regions of `deposit_classes`. Left and right are
    as seen with the substrate below. Refused (NaN with a flag): cap below 4 px or base below 10 px (`few-pixels`; up to
    8 px of cap the angle is given and flagged), objects cut by the frame (`touches-border`), no straight or round
    substrate under the object (`no-credible-baseline`), a straight facet at the contact (`faceted-contact`), curves
    that do not meet where the mask does (`ambiguous`). In volumes the angle is that of a ball on a plane or ball, or
    the mean along the contact line with its spread in `method`. The frame row (no `object_id`) is the mean over the
    accepted objects; NaN without one.

    With `surface_energy_j_per_m2` (deposit against electrolyte) every mean angle has its ``adhesion_work``, by Young
    and Dupre; its interval is that of the angle.
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
    rows.append(_mean_row(frame, accepted, tuple(dict.fromkeys(refusals)), deposit_classes))
    if surface_energy_j_per_m2 is not None:
        angles = [row for row in rows if row.metric == "contact_angle" and row.side == "mean"]
        rows += [_adhesion(row, surface_energy_j_per_m2) for row in angles]
    return rows


def _adhesion(angle: Measurement, energy: float) -> Measurement:
    """Turn a contact angle into the work of adhesion; the lower angle gives the greater work."""
    return replace(
        angle, metric="adhesion_work", value=adhesion_work(angle.value, energy), unit="J/m2", side="",
        low=adhesion_work(angle.high, energy), high=adhesion_work(angle.low, energy),
        method=f"{energy:g} J/m2 (1 + cos angle), {angle.method}",
    )  # fmt: skip


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
    outline = crack_points(filled, free[near] & ~filled, spacing, origin=origin)
    return measure_contact(outline, base, contact, surface, spacing)


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
