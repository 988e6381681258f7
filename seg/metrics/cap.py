"""Spherical caps: the contact angle that a volume and a projected radius imply, and the work of adhesion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.ndimage import find_objects

from seg.metrics.columns import axis_index
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement
from seg.uncertainty import OUTLINE_OFFSET_PX, combine_intervals

# A lower cap is not resolved; a steeper one is no cap that volume and area tell, as dV / d angle goes with sin^3.
MIN_HEIGHT_PX = 4
MAX_ANGLE_DEG = 160.0
# A cap seen from above is round: long over short axis of its projection, of equal second moments.
MAX_ELONGATION = 1.25
_Z95 = 1.959964
# The plane of the base is known to a voxel: an even error of half a voxel either way.
_BASE_SD_PX = 1 / math.sqrt(12)


def measure_frame(
    frame: Frame, *, base_classes: Sequence[str] = ("substrate",), thickness_axis: str | None = None
) -> list[Measurement]:
    """Contact angle of every deposit of a volume, from its volume and its area in top view, taken as a spherical cap.

    Parameters
    ----------
    frame : Frame
    base_classes : sequence of str
        What deposits sit on.
    thickness_axis : str or None
        Direction of the view: ``z``, ``y`` or ``x``; None: z.

    Returns
    -------
    list of Measurement
        ``contact_angle`` with the side ``cap``, one row per object. NaN where the frame cuts the object
        (``touches-border``), where it is less than 4 voxels high (``few-pixels``), stands on no base
        (``no-credible-baseline``), or where it is no cap: its projection is not round, its volume more than that of a
        ball, or the angle above 160 degrees (``ambiguous``). One row without value in 2-D, which shows no volume.

    Notes
    -----
    For deposits too small or rough for a fit of their surface. The area is that at the plane of the base where the
    lowest layer is the widest: the layers of a ball are a quadratic function of the height, which is extrapolated by
    half a voxel. The interval holds an error of the outline as a whole and one of the plane of the base; that the body
    is a cap is taken for granted.
    """
    row = partial(
        Measurement, "contact_angle", unit="deg", side="cap", class_name="+".join(frame.object_classes),
        frame=frame.index, time_s=frame.time_s,
    )  # fmt: skip
    if len(frame.labels.shape) != 3 or frame.instances is None:
        return [row(math.nan, method="a top view alone shows no volume", flags=("regime-not-reached",))]
    axis = axis_index(frame, thickness_axis, "cap") or 0
    instances = np.moveaxis(frame.instances, axis, 0)
    base = np.moveaxis(frame.mask([name for name in base_classes if name in frame.schema.names]), axis, 0)
    spacing = np.array([frame.scale.spacing[axis], *(s for k, s in enumerate(frame.scale.spacing) if k != axis)])
    rows = []
    for number, box in enumerate(find_objects(instances), start=1):
        if box is not None:
            rows.append(replace(_cap_row(instances, base, number, box, spacing, row), object_id=number))
    return rows


def _cap_row(
    instances: np.ndarray, base: np.ndarray, number: int, box: tuple[slice, ...], spacing: np.ndarray,
    row: partial[Measurement],
) -> Measurement:  # fmt: skip
    inside = instances[box] == number
    n = int(inside.sum())
    row = partial(row, n=n, method="cap with the volume and the top-view area of the object")
    if any(s.start == 0 or s.stop == size for s, size in zip(box, instances.shape, strict=True)):
        return row(math.nan, flags=("touches-border",))
    if len(inside) < MIN_HEIGHT_PX:
        return row(math.nan, flags=("few-pixels",))
    # How much of the base lies against the first and against the last layer.
    at_first = np.count_nonzero(inside[0] & base[box[0].start - 1][box[1:]])
    at_last = np.count_nonzero(inside[-1] & base[box[0].stop][box[1:]])
    if not at_first and not at_last:
        return row(math.nan, flags=("no-credible-baseline",))
    layers = inside if at_first >= at_last else inside[::-1]
    seen = layers.any(axis=0)
    if _elongation(seen, spacing[1:]) > MAX_ELONGATION:
        return row(math.nan, flags=("ambiguous",))
    pixel = float(spacing[1] * spacing[2])
    areas = layers.sum(axis=(1, 2)) * pixel
    area = float(seen.sum()) * pixel
    if areas[0] == areas.max():
        heights = (np.arange(len(areas)) + 0.5) * spacing[0]
        area = max(area, float(np.polynomial.Polynomial.fit(heights, areas, 2)(0.0)))
    volume = float(n * np.prod(spacing))
    radius = math.sqrt(area / math.pi)
    angle = float(cap_angle(volume, radius))
    if not angle <= MAX_ANGLE_DEG:
        return row(math.nan, flags=("ambiguous",))
    outline = _Z95 * OUTLINE_OFFSET_PX * float(np.prod(spacing)) ** (1 / 3)
    plane = _Z95 * _BASE_SD_PX * float(spacing[0])
    free = _free_area(angle, radius)
    # A larger outline adds a shell to the free surface; a lower base a slice under the cap, of nearly its own area.
    moved = [
        (cap_angle(volume + sign * outline * free, radius + sign * outline), cap_angle(volume + sign * plane * areas[0],
                                                                                      radius))
        for sign in (-1, 1)
    ]  # fmt: skip
    parts = [tuple(sorted(float(v) for v in ends)) for ends in zip(*moved, strict=True)]
    low, high = combine_intervals(angle, *((lo, hi) for lo, hi in parts))
    return row(angle, low=max(low, 0.0), high=min(high, 180.0))


def _free_area(angle_deg: float, projected_radius: float) -> float:
    """Area of the curved surface of a cap."""
    cosine = math.cos(math.radians(angle_deg))
    ball = projected_radius / math.sqrt(1 - cosine**2) if cosine > 0 else projected_radius
    return 2 * math.pi * ball**2 * (1 - cosine)


def _elongation(seen: np.ndarray, spacing: np.ndarray) -> float:
    """Long over short axis of the ellipse with the second moments of a projection."""
    points = np.argwhere(seen) * spacing
    spread = np.linalg.eigvalsh(np.cov(points.T) + np.diag(spacing**2) / 12)
    return math.sqrt(spread[1] / spread[0])


def cap_volume(angle_deg: np.ndarray | float, projected_radius: np.ndarray | float) -> np.ndarray:
    """Volume of a cap seen from above with the given radius: that of the base up to 90 degrees, of the ball beyond.

    Parameters
    ----------
    angle_deg, projected_radius : float or ndarray
        Contact angle through the deposit; radius of the projected area.
    """
    theta = np.radians(angle_deg)
    cosine = np.cos(theta)
    ball = np.asarray(projected_radius, float) / np.where(cosine > 0, np.sin(theta), 1.0)
    return np.asarray(math.pi * ball**3 * (2 - 3 * cosine + cosine**3) / 3)


def cap_angle(volume: np.ndarray | float, projected_radius: np.ndarray | float) -> np.ndarray:
    """Contact angle of a spherical cap from its volume and its radius in top view.

    Parameters
    ----------
    volume, projected_radius : float or ndarray
        In consistent units, such as um3 and um; the radius is ``sqrt(area / pi)`` of the projected area.

    Returns
    -------
    ndarray of float
        Degrees through the deposit; NaN where no cap has that volume (more than a whole ball, negative, no radius).

    Notes
    -----
    Up to 90 degrees the projection is the base, ``V = pi a^3 x (3 + x^2) / 6`` with ``x = tan(angle / 2)``; beyond, it
    is the ball, ``V = pi R^3 (2 - 3 c + c^3) / 3`` with ``c = cos(angle)``. Both cubics have closed solutions. A thin
    cap has ``d angle / angle = dV / V - 1.5 dA / A``; as ``dV / d angle`` goes with ``sin^3``, angles above 160 degrees
    mean little.
    """
    volume, radius = np.broadcast_arrays(np.asarray(volume, float), np.asarray(projected_radius, float))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(radius > 0, volume / (math.pi * radius**3), math.nan)
        flat = 2 * np.arctan(2 * np.sinh(np.arcsinh(3 * ratio) / 3))
        turned = 2 * math.pi - np.arccos(np.clip((3 * ratio - 2) / 2, -1, 1))
        steep = np.arccos(np.clip(2 * np.cos(turned / 3), -1, 1))
    angle = np.degrees(np.where(ratio <= 2 / 3, flat, steep))
    # Rounding may carry a whole ball a little over its own volume.
    return np.asarray(np.where((ratio >= 0) & (ratio <= 4 / 3 * (1 + 1e-9)), angle, math.nan))


def adhesion_work(angle_deg: float, surface_energy_j_per_m2: float) -> float:
    """Work of adhesion per area of contact by Young and Dupre, ``W = gamma (1 + cos angle)``, J/m2.

    Parameters
    ----------
    angle_deg : float
        Contact angle through the deposit.
    surface_energy_j_per_m2 : float
        Of the deposit against the electrolyte.
    """
    return surface_energy_j_per_m2 * (1 + math.cos(math.radians(angle_deg)))
