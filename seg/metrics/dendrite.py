"""Dendrites and filaments of a frame: length, tips, forks, width, tortuosity, dimensions, height; in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from seg.errors import UsageError
from seg.metrics.dendrite_bodies import body_ids, find_bodies
from seg.metrics.dendrite_front import SIDES, border_of_frame, find_reference, measure_front
from seg.metrics.dendrite_object import OUTLINE_PX, SMOOTH_PX, Dendrite, analyse_dendrite
from seg.metrics.fractal import Dimension, box_dimension
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.skeleton_branches import ANGLE_ERROR_DEG, FAR_PX, NEAR_PX, weighted_quantiles
from seg.metrics.table import Measurement
from seg.uncertainty import OUTLINE_OFFSET_PX

__all__ = ["Dendrite", "analyse_dendrite", "measure_frame"]

# What thinning and pruning leave in a length: on drawn combs 1.6 % is missing with a spread of 1.2 %, on ferns up to
# 3.7 %. A ratio of lengths loses on both sides.
LENGTH_ERROR = 0.04
RATIO_ERROR = 0.02
# A skeleton that shrinks by more where the outline is smoothed measures the outline.
ROUGH_LENGTH = 0.15
# Between branches further apart than this a mask shows a gap; nearer, it may be a break.
GAP_PX = 3.0
WIDTH_SHARES = {"thinnest 5 %": 0.05, "thickest 5 %": 0.95}


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("dendrite",),
    reference: str = "auto",
    root_classes: Sequence[str] = ("substrate", "deposit"),
    reference_classes: Sequence[str] = ("substrate",),
    front_classes: Sequence[str] = ("deposit", "dendrite"),
    height_bands: int = 10,
    min_object_px: int = 25,
    outline_px: float = OUTLINE_PX,
) -> list[Measurement]:
    """Skeleton measures and height of each object (`object_id`) and of the frame, and the growth front.

    Parameters
    ----------
    frame : Frame
        Objects are connected regions (8 or 26 neighbours), whole: instances are split where they touch, which would
        cut branches. A region takes the id of the instance that fills most of it.
    classes : sequence of str
        What counts as dendrite.
    reference : str
        Where height starts: ``"substrate"`` (the pixels of `reference_classes`), a side of the frame (``"top"``,
        ``"bottom"``, ``"left"``, ``"right"``; ``"front"``, ``"back"`` along z), or ``"auto"``: the substrate where one
        is labelled, else the side that holds more than two thirds of the mask at the border, if the opposite side
        holds none.
    root_classes : sequence of str
        What a dendrite grows from, the likeliest first; its end there is a root, not a tip.
    front_classes : sequence of str
        Metal whose front is followed, moss and dendrites together; none: no front (plan views have none).
    height_bands : int
        Layers in which the share of metal is given; 0: none.
    min_object_px : int
        Smaller objects are left out.
    outline_px : float
        Outlines are smoothed by this before thinning, or by an eighth of the width of the object where that is less.
        More than 1 where outlines are rougher than a pixel or two; branches and gaps below twice this are lost.

    Notes
    -----
    Frame rows: sums of lengths and counts, the greatest longest path and height, means of width and tortuosity weighted
    by length, the mean angle over all junctions. ``branch_width`` has two more rows for the thinnest and the thickest
    20th of the length, from the distance map. Height is the distance of the outer face of the farthest pixel from the
    reference surface; NaN where there is no reference. Without an object lengths and counts are 0, the rest NaN.
    Fractal dimensions without a decade of sizes or without one slope along it are NaN with ``regime-not-reached``;
    about the centre of mass, for want of a root, that of mass and radius is flagged ``low-confidence``. The front: see
    `seg.metrics.dendrite_front.measure_front`.
    """
    if outline_px < 0:
        raise UsageError(f"dendrite: outline_px is {outline_px:g}; give 0 (as drawn) or more.")
    mask = frame.mask(classes)
    ids = body_ids(frame, mask, smallest_px=min_object_px)
    base = find_reference(frame, mask, reference, reference_classes)
    present = np.unique(ids[ids > 0])
    height: dict[int, float] = {}
    if base is not None and len(present):
        highest = ndimage.maximum(base.height, ids, present)
        height = dict(zip(present.tolist(), map(float, highest), strict=True))
    name = "" if base is None else base.name

    found: list[Dendrite] = []
    rows: list[Measurement] = []
    for body in find_bodies(frame, ids, reference=base, root_classes=root_classes, own=classes):
        one = analyse_dendrite(body.mask, spacing=frame.scale.spacing, root=body.root, border=body.border,
                              outline_px=outline_px)  # fmt: skip
        found.append(one)
        rows += _rows(frame, [one], one.box, height.get(body.object_id, math.nan), name, classes,
                      object_id=body.object_id, touches=bool(body.border.any()))  # fmt: skip
    touches = bool((border_of_frame(ids.shape) & (ids > 0)).any())
    width = _mean([d.branch_width for d in found], [d.skeleton_length for d in found])
    pixel = frame.scale.pixel ** (1 / ids.ndim)
    box = box_dimension(ids > 0, spacing=frame.scale.spacing, width=width, rng=np.random.default_rng(0))
    rows += _rows(frame, found, box, max(height.values(), default=math.nan), name, classes, touches=touches,
                  breaks=_breaks(ids, width / pixel) if len(found) > 1 else 0)  # fmt: skip
    if front_classes:
        rows += measure_front(frame, base, classes=front_classes, height_bands=height_bands)
    return rows


def _breaks(ids: np.ndarray, width_px: float) -> int:
    """Count objects that may be pieces of others: across gaps of 3 px, which no mask resolves, or of a branch width."""
    near = ndimage.distance_transform_edt(ids == 0) <= max(GAP_PX, width_px) / 2
    n_groups = ndimage.label(near, structure=np.ones((3,) * ids.ndim))[1]
    return len(np.unique(ids[ids > 0])) - n_groups


def _rows(
    frame: Frame, found: list[Dendrite], box: Dimension, height: float, reference: str, classes: Sequence[str], *,
    object_id: int | None = None, touches: bool, breaks: int = 0,
) -> list[Measurement]:  # fmt: skip
    """Write the metrics of one object, or of all objects of a frame, as rows; `breaks`: see `_breaks`."""
    scale = frame.scale
    pixel = scale.pixel ** (1 / frame.labels.ndim)
    edge = 1.96 * DIGITISATION_PX * pixel
    longest = max((d.longest_path for d in found), default=0.0)
    n_ends = sum(d.tip_count + d.roots + d.cut for d in found)
    width = _mean([d.branch_width for d in found], [d.skeleton_length for d in found])
    tortuosity = _mean([d.tortuosity for d in found], [d.skeleton_length for d in found])
    flags = scale.flags + (("touches-border",) if touches else ())
    flags += ("ambiguous",) if any(not d.covered for d in found) else ()
    thin = ("few-pixels",) if width < 4 * pixel else ()
    loops = sum(d.loops for d in found)
    total = sum(d.skeleton_length for d in found)
    # What smoothing the outline took away is about what roughness has left: smoothing takes a half of it.
    spurious = abs(sum(d.unsmoothed_length for d in found) - total)
    rough_share = spurious / total if total else float(spurious > 0)  # of a dot that smoothing made round: all
    # Trees joined by necks that the outline may have made are neither as long nor as few as they read.
    certain = min(max((d.certain_path for d in found), default=0.0), longest)
    if spurious > ROUGH_LENGTH * total or longest - certain > ROUGH_LENGTH * longest:
        thin += ("low-confidence",)
    skeleton = (
        f"skeleton, outline smoothed, spurs pruned, Gaussian 2 px; {loops} loop(s); interval: ends +-0.5 px, "
        f"path {LENGTH_ERROR:.0%}" + (f", rough outline {rough_share:.0%}" if spurious else "")
    )
    spurs = "interval: spur limit x0.5 to x2, branches that touch" + (", rough outline" if spurious else "")
    um = scale.unit("um")
    necks = f", {certain:.4g} {um} if necks as narrow as the outline is rough break" if certain < longest else ""

    def row(
        metric: str, value: float, low: float, high: float, unit: str, method: str, more: tuple[str, ...] = (), *,
        side: str = "", n: int | None = None if object_id else len(found),
    ) -> Measurement:  # fmt: skip
        return Measurement(
            metric, float(value), unit, low=float(low), high=float(high), class_name=";".join(classes),
            frame=frame.index, time_s=frame.time_s, object_id=object_id, side=side, n=n, method=method,
            flags=flags + more,
        )  # fmt: skip

    # Digitisation moves each end for itself, an outline that is off as a whole moves all of them alike.
    offset = 1.96 * OUTLINE_OFFSET_PX * pixel
    n_path = 2 if found else 0
    length_error = math.hypot(edge * math.sqrt(n_ends), offset * n_ends, LENGTH_ERROR * total, spurious)
    path_error = math.hypot(edge * math.sqrt(n_path), offset * n_path, LENGTH_ERROR * longest)
    widest = width * (1 + rough_share) + 2 * edge
    # A substrate is digitised as its tip is; the side of a frame is where it is. The farthest pixel of a rough outline
    # lies off by as much as any other.
    n_faces = 2 if reference not in SIDES else 1
    rough = max((d.roughness for d in found), default=0.0)
    top = math.hypot(edge * math.sqrt(n_faces), offset * math.sqrt(n_faces), 1.96 * rough)
    tips, branches = sum(d.tip_count for d in found), sum(d.branch_point_count for d in found)
    tip_low, tip_high = sum(d.tip_range[0] for d in found), sum(d.tip_range[1] for d in found)
    # A break in a branch makes two tips.
    tip_low = max(tip_low - 2 * breaks, 0)
    branch_low, branch_high = sum(d.branch_range[0] for d in found), sum(d.branch_range[1] for d in found)
    turning = f"path over chord from the root, mean over tips; interval: {RATIO_ERROR:.0%}"
    rise = f"greatest distance from {reference or 'a reference that is missing'}; interval: mask edges" + (
        f", rough by {rough / pixel:.2g} px" if rough else ""
    )
    no_height = () if reference else ("no-credible-baseline",)
    angles = np.array([angle for d in found for angle in d.angles])
    angle, angle_error = _mean_angle(angles, rough / pixel)
    apart = f"between daughters, mean over {len(angles)} junction(s) of three; interval: mask edge and sampling" + (
        f", rough by {rough / pixel:.2g} px" if rough / pixel > SMOOTH_PX else ""
    )
    along = (np.concatenate([d.widths[k] for d in found]) if found else np.zeros(0) for k in (0, 1))
    quantiles = weighted_quantiles(*along, tuple(WIDTH_SHARES.values()))
    local = "distance map along the centre lines, shifted to the mean width; interval: mask edge +-0.5 px"
    # np.maximum keeps NaN where there is no value.
    return [
        row("skeleton_length", total, max(total - length_error, 0), total + length_error, um, skeleton, thin),
        row("longest_path", longest, max(certain - path_error, 0), longest + path_error, um,
            f"longest shortest path{necks}; {skeleton}", thin),
        row("tip_count", tips, tip_low, tip_high, "1",
            f"ends but roots and border cuts; {spurs}" + (f", {breaks} gap(s) that may be breaks" if breaks else ""),
            thin),
        row("branch_point_count", branches, branch_low, branch_high, "1", f"junctions; {spurs}", thin),
        row("branch_angle", angle, angle - angle_error, angle + angle_error, "deg", apart, thin, n=len(angles)),
        row("branch_width", width, np.maximum(width - 2 * edge, 0), widest, um,
            "size over length with round ends; interval: mask edge +-0.5 px", thin),
        *(row("branch_width", value, np.maximum(value - 2 * edge, 0), value + 2 * edge, um, local, thin, side=side)
          for side, value in zip(WIDTH_SHARES, quantiles, strict=True) if math.isfinite(value)),
        row("tortuosity", tortuosity, np.maximum(tortuosity * (1 - RATIO_ERROR), 1), tortuosity * (1 + RATIO_ERROR),
            "1", turning, thin),
        row("dendrite_height", height, np.maximum(height - top, 0), height + top, um, rise, (*no_height, *thin)),
        _dimension("box_dimension", box, row, um, "boxes"),
        _mass_radius(found, row, um),
    ]  # fmt: skip


def _mean_angle(angles: np.ndarray, rough_px: float) -> tuple[float, float]:
    """Mean of the angles and half of its 95 % interval, from outlines that wander by `rough_px`.

    Two rough sides move the line between them by ``1 / sqrt(2)`` of that. A direction is the slope of 15 px of it, over
    which there are about four independent places, and an angle has two directions. Angles that differ show both what
    they are and how they were turned.
    """
    if not len(angles):
        return math.nan, math.nan
    sampling = 1.96 * float(angles.std(ddof=1)) if len(angles) > 1 else 0.0
    stretch = FAR_PX - NEAR_PX
    slope = math.sqrt(max(rough_px**2 - SMOOTH_PX**2, 0.0)) / math.sqrt(2) / (stretch / math.sqrt(12) * math.sqrt(4))
    turned = 1.96 * math.degrees(slope) * math.sqrt(2)
    return float(angles.mean()), math.hypot(ANGLE_ERROR_DEG, max(sampling, turned)) / math.sqrt(len(angles))


def _dimension(metric: str, found: Dimension, row: partial[Measurement], um: str, what: str) -> Measurement:
    """Write a dimension with its range, or the reason why there is none."""
    method = f"{what} of {found.smallest:.3g} to {found.largest:.3g} {um}"
    if math.isnan(found.value):
        return row(metric, math.nan, math.nan, math.nan, "1", f"{method}: {found.reason}", ("regime-not-reached",))
    method += f", {found.decades:.2g} decades; error of the fit {found.fit_error:.2g}, x3 and 0.05 in the interval"
    return row(metric, found.value, found.low, found.high, "1", method)


def _mass_radius(found: list[Dendrite], row: partial[Measurement], um: str) -> Measurement:
    """Write the exponent of one object, or its mean over those of a frame that have one."""
    known = [d for d in found if math.isfinite(d.mass_radius.value)]
    if not known:
        largest = max(found, key=lambda d: d.skeleton_length, default=None)
        nothing = largest.mass_radius if largest else Dimension(math.nan, math.nan, math.nan, 0, 0, reason="no object")
        return _dimension("mass_radius_dimension", nothing, row, um, "radii")
    weights = [d.skeleton_length for d in known]
    value, low, high = (
        _mean([getattr(d.mass_radius, end) for d in known], weights) for end in ("value", "low", "high")
    )
    best = max(known, key=lambda d: d.skeleton_length).mass_radius
    seeded = all(d.seed_known for d in known)
    method = (
        f"radii of {best.smallest:.3g} to {best.largest:.3g} {um} about the {'root' if seeded else 'centre of mass'}, "
        f"{best.decades:.2g} decades; error of the fit {best.fit_error:.2g}, x3 and 0.05 in the interval"
    )
    return row("mass_radius_dimension", value, low, high, "1", method, () if seeded else ("low-confidence",))


def _mean(values: list[float], weights: list[float]) -> float:
    """Weighted mean over the finite values, plain where no weight is left; NaN where there is no value."""
    kept = [(v, w) for v, w in zip(values, weights, strict=True) if math.isfinite(v)]
    if not kept:
        return math.nan
    found, share = np.array(kept).T
    return float(np.average(found, weights=share if share.sum() > 0 else None))
