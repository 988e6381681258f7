"""Contact angles along the contact line of a deposit in a volume, from the surfaces next to each point of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from seg.metrics.baseline import Baseline, Substrate
from seg.metrics.contact_geometry import DOUBTFUL_CAP_PX, MIN_BASE_PX, MIN_CAP_PX, Contact
from seg.metrics.curves import Circle, Line
from seg.metrics.interface import DIGITISATION_PX, CrackPoints
from seg.uncertainty import OUTLINE_OFFSET_PX

# Patches smaller than this read the grain of the voxels; larger ones, the curvature of the deposit.
PATCH_VOXELS, PATCH_SHARE = 8.0, 0.45
CLEARANCE_VOXELS = 1.0
CELL_VOXELS, MAX_PLACES = 2.0, 240
MIN_POINTS, MIN_PLACES = 24, 8
# What quadrics through voxels leave on ellipsoids of 14 to 24 voxels half axis, degrees.
SYSTEMATIC_DEG = 1.5


@dataclass(frozen=True)
class LineAngles:
    """Angles (degrees) at places along a contact line, one per about two voxels of it, and their positions."""

    angle: np.ndarray
    position: np.ndarray

    @property
    def summary(self) -> str:
        """Spread and range, for `method`."""
        return (
            f"{len(self.angle)} places along the contact line, sd {self.angle.std():.1f}, "
            f"{self.angle.min():.1f} to {self.angle.max():.1f} deg"
        )


def angles_along_line(
    outline: CrackPoints, contact: CrackPoints, surface: CrackPoints, spacing: Sequence[float], *,
    substrate: Baseline | None = None, ball: Circle | None = None,
) -> LineAngles:  # fmt: skip
    """Local contact angles of one deposit in a volume.

    Parameters
    ----------
    outline : CrackPoints
        From the deposit to the electrolyte.
    contact, surface : CrackPoints
        From the substrate to the deposit, and to everything else.
    spacing : sequence of float
    substrate : Line, Circle or None
        Plane or ball of the substrate; None takes its surface next to each place (a fibre in any direction).
    ball : Circle or None
        Ball that describes the deposit; None takes its surface next to each place.

    Notes
    -----
    A surface next to a place is a quadric through the boundary within eight voxels or 0.45 of the half width of the
    contact (the larger); that of the deposit leaves out what is within a voxel of the substrate. The angle is that
    of the normals, ``cos angle = n_deposit . n_substrate``, where both surfaces meet. Planes in place of quadrics
    would read 4 to 7 degrees too little.
    """
    voxel = math.prod(spacing) ** (1 / 3)
    reach = _reach(contact, voxel)
    clear = outline[cKDTree(surface.position).query(outline.position)[0] > CLEARANCE_VOXELS * voxel]
    above, ground = cKDTree(clear.position), cKDTree(surface.position)
    angles, positions = [], []
    for place in _places(outline, contact, voxel, spacing):
        deposit = ball or _quadric(clear[np.array(above.query_ball_point(place, reach), int)])
        base = substrate or _quadric(surface[np.array(ground.query_ball_point(place, reach), int)])
        if deposit is None or base is None:
            continue
        found = _meeting(deposit, base, place, reach)
        if found is not None:
            angles.append(found[0])
            positions.append(found[1])
    return LineAngles(np.array(angles), np.array(positions).reshape(-1, 3))


def _meeting(deposit: Surface, base: Surface, place: np.ndarray, reach: float) -> tuple[float, np.ndarray] | None:
    """Angle (degrees) at the point near a place where two surfaces meet, and the point; None where they do not."""
    point = place
    for _ in range(6):
        point = point - base.signed_distance(point[None])[0] * base.normal(point[None])[0]
        up, out = base.normal(point[None])[0], deposit.normal(point[None])[0]
        along = out - (out @ up) * up
        if along @ along < 1e-3:
            return None
        point = point - deposit.signed_distance(point[None])[0] / (along @ along) * along
        if np.linalg.norm(point - place) > reach:
            return None
    return math.degrees(math.acos(np.clip(float(out @ up), -1, 1))), point


def contact_along_line(
    outline: CrackPoints, contact: CrackPoints, surface: CrackPoints, spacing: Sequence[float], *,
    substrate: Substrate | None, ball: Circle | None, tilt: dict[str, float],
) -> Contact:  # fmt: skip
    """Mean contact angle along the contact line; its spread and range are in ``model``."""
    voxel = math.prod(spacing) ** (1 / 3)
    base = substrate.curve if substrate is not None else None
    line = angles_along_line(outline, contact, surface, spacing, substrate=base, ball=ball)
    width = float(np.ptp(contact.position, axis=0).max())
    height = _greatest_height(outline, contact, base)
    kept = {"base_width": width, "cap_height": height, **tilt}
    if width < MIN_BASE_PX * voxel or height < MIN_CAP_PX * voxel:
        return Contact(flags=("few-pixels",), **kept)
    if len(line.angle) < MIN_PLACES:
        return Contact(flags=("ambiguous",), model="too few places along the contact line", **kept)
    on = {Line: "plane", Circle: "ball"}.get(type(base), "the surface next to it")
    model = f"{'ball' if ball else 'quadrics'} on {on}: {line.summary}"
    # Patches overlap: independent are the places one patch width apart.
    independent = max(len(line.angle) * CELL_VOXELS * voxel / (2 * _reach(contact, voxel)), 1.0)
    # A baseline off by d turns the angle by d / (R sin angle); R is the radius of curvature across the line, about half
    # that of the contact on flat and on tall ellipsoids.
    shared = OUTLINE_OFFSET_PX * voxel
    offset = substrate.position_error if substrate is not None else math.hypot(DIGITISATION_PX * voxel, shared)
    error = math.hypot(
        float(line.angle.std()) / math.sqrt(independent),
        math.degrees(2 * offset / (width / 2)),
        0.5 if ball else SYSTEMATIC_DEG,
    )
    nothing = dict.fromkeys(("left", "right"), math.nan)
    angles, errors = {**nothing, "mean": float(line.angle.mean())}, {**nothing, "mean": error}
    flags = ("few-pixels",) if height < DOUBTFUL_CAP_PX * voxel else ()
    return Contact(angles, errors, model=model, flags=flags, **kept)


def _reach(contact: CrackPoints, voxel: float) -> float:
    return max(PATCH_VOXELS * voxel, PATCH_SHARE * float(np.ptp(contact.position, axis=0).max()) / 2)


def _places(outline: CrackPoints, contact: CrackPoints, voxel: float, spacing: Sequence[float]) -> np.ndarray:
    """Points of the contact line about two voxels apart: where the outline comes next to the contact."""
    gap, nearest = cKDTree(contact.position).query(outline.position)
    beside = gap <= 1.2 * max(spacing)
    points = (outline.position[beside] + contact.position[nearest[beside]]) / 2
    if len(points) == 0:
        return points
    _, cell = np.unique(np.floor(points / (CELL_VOXELS * voxel)), axis=0, return_inverse=True)
    counts = np.bincount(cell.ravel())
    means = np.stack([np.bincount(cell.ravel(), weights=points[:, i]) / counts for i in range(3)], axis=1)
    return means[:: max(1, math.ceil(len(means) / MAX_PLACES))]


def _greatest_height(outline: CrackPoints, contact: CrackPoints, substrate: Baseline | None) -> float:
    """Greatest height of a deposit above its substrate, or above the mean plane of a contact."""
    if substrate is not None:
        return float(substrate.signed_distance(outline.position).max())
    up = contact.direction.mean(axis=0)
    return float(((outline.position - contact.position.mean(axis=0)) @ (up / np.linalg.norm(up))).max())


@dataclass(frozen=True)
class _Quadric:
    """A graph ``w = f(u, v)`` of second order over the mean plane of a patch, ``w`` outwards."""

    centre: np.ndarray
    axes: np.ndarray
    coefficients: np.ndarray

    def _local(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre) @ self.axes.T

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points of shape (N, 3) outside of the surface, to first order."""
        u, v, w = self._local(points).T
        return (w - _terms(u, v) @ self.coefficients) / np.linalg.norm(self._gradient(u, v), axis=-1)

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Outward unit normals of the surface under or above points of shape (N, 3)."""
        u, v, _ = self._local(points).T
        gradient = self._gradient(u, v)
        return gradient / np.linalg.norm(gradient, axis=-1, keepdims=True) @ self.axes

    def _gradient(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        _, a, b, c, d, e = self.coefficients
        return np.stack([-(a + 2 * c * u + d * v), -(b + d * u + 2 * e * v), np.ones_like(u)], axis=-1)


Surface = Line | Circle | _Quadric


def _terms(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def _quadric(cracks: CrackPoints) -> _Quadric | None:
    """Least squares quadric over the mean plane of a patch; None where it has too few points."""
    if len(cracks) < MIN_POINTS:
        return None
    centre = cracks.position.mean(axis=0)
    axes = np.linalg.svd(cracks.position - centre, full_matrices=False)[2]
    if np.sum(cracks.direction @ axes[2]) < 0:
        axes = axes * np.array([[1.0], [1.0], [-1.0]])
    u, v, w = ((cracks.position - centre) @ axes.T).T
    return _Quadric(centre, axes, np.linalg.lstsq(_terms(u, v), w, rcond=None)[0])
