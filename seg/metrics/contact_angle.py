"""Contact angles of deposits seen in profile: the angle through the metal between its surface and the substrate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from seg.metrics.baseline import fit_substrate
from seg.metrics.cap import adhesion_work
from seg.metrics.contact_fit import PLAIN_RMS_PX, measure_contact
from seg.metrics.contact_geometry import MIN_CAP_PX, Contact
from seg.metrics.contour import refine_cracks
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, CrackPoints, crack_points
from seg.metrics.table import Measurement
from seg.uncertainty import OUTLINE_OFFSET_PX

# An image counts where it shows this share of a boundary. Up to the given shift the outline of a mask, which is right
# on average, says where the boundary is and the image only smooths it: thickness contrast alone shifts a level by that.
MIN_SHARE, MAX_LEVEL_SHIFT_PX = 0.8, 0.5
MARGIN_PX = 8
# Noise that throws the points of a surface about by more than this also moves their mean along it.
MAX_IMAGE_RMS_PX = 0.45
# A rough mask knows less well where its outline is on average.
OUTLINE_ERROR_PX = 0.28


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

    With an image the substrate is where its grey value is half-way, if that is surer than the mask (mostly where it
    runs along the pixels); so is the outline where the mask leaves more than its pixels explain and the image less.
    `method` says which.

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
    image = _Image.of(frame.image, substrate, free, spacing)
    rows: list[Measurement] = []
    accepted: list[Contact] = []
    refusals: list[str] = []
    for object_id, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:
            continue
        contact = _object_contact(ids, object_id, box, substrate, free, surface, spacing, image)
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


@dataclass(frozen=True)
class _Image:
    """Grey values of a frame and the surface of the substrate found in them."""

    grey: np.ndarray
    surface: CrackPoints

    @classmethod
    def of(
        cls, image: np.ndarray | None, substrate: np.ndarray, free: np.ndarray, spacing: Sequence[float]
    ) -> _Image | None:
        """None without an image; a surface without points where it does not show."""
        if image is None or not np.isfinite(image).all():
            return None
        bare = crack_points(substrate, free, spacing)
        nothing = bare[np.zeros(len(bare), bool)]
        if len(bare) == 0:
            return cls(image, nothing)
        at = bare.position / np.asarray(spacing)
        low = np.maximum(np.floor(at.min(axis=0)).astype(int) - MARGIN_PX, 0)
        high = np.ceil(at.max(axis=0)).astype(int) + MARGIN_PX + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        found = refine_cracks(bare, substrate[box], free[box], image[box], spacing, origin=low)
        return cls(image, found.cracks if found.share >= MIN_SHARE else nothing)


def _object_contact(
    ids: np.ndarray, object_id: int, box: tuple[slice, ...], substrate: np.ndarray, free: np.ndarray,
    surface: CrackPoints, spacing: Sequence[float], image: _Image | None = None,
) -> Contact:  # fmt: skip
    """Contact of one object of a frame, from its image where that is the sharper of the two."""
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
    found = measure_contact(outline, base, contact, surface, spacing)
    if image is None or base is None:
        return found
    finer = fit_substrate(image.surface, contact, spacing) if len(image.surface) else None
    where = "contour of the mask"
    clear = finer is not None and finer.name == base.name and finer.rms_px <= MAX_IMAGE_RMS_PX
    if clear and finer.offset_error < base.offset_error:
        with_base = measure_contact(outline, finer, contact, surface, spacing)
        if not math.isnan(with_base.angles["mean"]):
            base, found, where = finer, with_base, "substrate from the image"
    wide = tuple(slice(max(s.start - MARGIN_PX, 0), s.stop + MARGIN_PX) for s in box)
    start = [s.start for s in wide]
    solid = ndimage.binary_fill_holes(ids[wide] == object_id)
    refined = refine_cracks(
        outline, solid, free[wide], image.grey[wide], spacing, origin=start, level_error_px=OUTLINE_ERROR_PX
    )
    rough = not found.rms_px <= PLAIN_RMS_PX  # or no curve was found at all
    if rough and refined.share >= MIN_SHARE:
        kept = refined.cracks if abs(refined.median_shift_px) > MAX_LEVEL_SHIFT_PX else refined.centred
        sharper = measure_contact(kept, base, contact, surface, spacing)
        lower = sharper.rms_px < found.rms_px or (math.isnan(found.rms_px) and math.isfinite(sharper.rms_px))
        if lower and not math.isnan(sharper.angles["mean"]):
            both = where.startswith("substrate")
            found, where = sharper, "substrate and outline from the image" if both else "outline from the image"
    return replace(found, model=f"{found.model}, {where}")


def _rows(frame: Frame, contact: Contact, classes: Sequence[str], object_id: int) -> list[Measurement]:
    """Write one contact as rows; without a baseline there are only the refused angles."""
    scale = frame.scale
    pixel = scale.pixel ** (1 / frame.labels.ndim)
    edge = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    # Of the curve where there is one, else of two outlines that are off as a whole.
    base_error, height_error = (
        1.96 * (error if math.isfinite(error) else math.sqrt(2) * OUTLINE_OFFSET_PX * pixel)
        for error in (contact.base_error, contact.height_error)
    )
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
        row("base_width", contact.base_width, math.hypot(edge, base_error), um,
            how="distance of the contact points; interval: fit, outlines +-0.5 px"),
        row("cap_height", contact.cap_height, math.hypot(edge, height_error), um,
            how="above the fitted substrate; interval: fit, outlines +-0.5 px"),
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
