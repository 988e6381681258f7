"""A shell around a core in a 2-D section or projection: thickness, cover, and the roughness of both its faces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from seg.metrics.interface import Outline, outlines, pixel_along, smooth_path

# Spread that a uniform shell still shows after smoothing both outlines: 0.11-0.13 px, 0.2 px at 2.3:1 pixels.
PIXELATION_SD_PX = 0.13
# Roughness that a smooth boundary shows (discs and whiskers of 10 to 60 px, also on 2.3:1 pixels).
ROUGHNESS_FLOOR_PX = 0.10
# Smoothing rounds the corner where a shell ends; that many vertices (about 5 px) next to an end are left out.
END_VERTICES = 6
# Wavelength in mean thicknesses up to which deviations of a boundary are roughness and not form.
CUTOFF_THICKNESSES = 8.0
# A Gaussian of this share of a wavelength passes half of the amplitude of the wave: `smooth_path` passes 2 g - g^2 of
# it, so that g = 1 - 1 / sqrt(2) is what halves it.
FORM_SIGMA = math.sqrt(-2 * math.log(1 - 0.5**0.5)) / (2 * math.pi)
# Medial-axis values of a pixel distance map are this much too wide.
DISTANCE_MAP_EXCESS_PX = 0.38


@dataclass(frozen=True)
class Shell:
    """Thickness along one or several shells, and which parts of the free core boundary they cover.

    Parameters
    ----------
    thickness, weight, pixel : ndarray, shape (N,)
        At N points of the outer boundary: distance to the core, arc length the point stands for, size of a pixel
        across the shell.
    at : ndarray of int, shape (N, 2)
        The shell pixel at each point.
    core_weight, core_covered : ndarray, shape (M,)
        At M points of the free core boundary: arc length, and whether at least one pixel of shell lies on it.
    core_at : ndarray of int, shape (M, 2)
        The core pixel at each point.
    deviation, core_deviation : ndarray, shape (N,), (M,)
        Distance of both boundaries from their form: themselves, smoothed. NaN near the end of a broken shell, where
        that smoothing turns the corner to the core.
    """

    thickness: np.ndarray
    weight: np.ndarray
    pixel: np.ndarray
    at: np.ndarray
    core_weight: np.ndarray
    core_covered: np.ndarray
    core_at: np.ndarray
    deviation: np.ndarray
    core_deviation: np.ndarray

    def part(self, points: np.ndarray, core_points: np.ndarray) -> Shell:
        """Keep some of the points only (masks of shape (N,) and (M,))."""
        return Shell(
            self.thickness[points], self.weight[points], self.pixel[points], self.at[points],
            self.core_weight[core_points], self.core_covered[core_points], self.core_at[core_points],
            self.deviation[points], self.core_deviation[core_points],
        )  # fmt: skip

    def roughness(self, *, inner: bool) -> float:
        """Root mean square deviation of a boundary from its form, less what pixels alone cause; NaN without it.

        Of the inner boundary what lies under the shell is looked at.
        """
        values, weights = self.deviation, self.weight
        if inner:
            values, weights = self.core_deviation[self.core_covered], self.core_weight[self.core_covered]
        known = np.isfinite(values)
        values, weights = values[known], weights[known]
        # Less of it than the shell is thick says nothing.
        if not self.length > 0 or weights.sum() <= self.mean:
            return math.nan
        mean = np.average(values, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights)
        return math.sqrt(max(variance - (ROUGHNESS_FLOOR_PX * self.mean_pixel) ** 2, 0.0))

    @property
    def length(self) -> float:
        """Length of outer boundary that was measured."""
        return float(self.weight.sum())

    @property
    def mean(self) -> float:
        """Arc-length weighted mean thickness; NaN without a boundary."""
        return float(np.average(self.thickness, weights=self.weight)) if self.length > 0 else math.nan

    @property
    def mean_pixel(self) -> float:
        """Mean size of a pixel across the shell; NaN without a boundary."""
        return float(np.average(self.pixel, weights=self.weight)) if self.length > 0 else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the thickness, less what pixels alone would cause (in quadrature)."""
        if self.length <= 0:
            return math.nan
        variance = np.average((self.thickness - self.mean) ** 2, weights=self.weight)
        return math.sqrt(max(variance - (PIXELATION_SD_PX * self.mean_pixel) ** 2, 0.0))

    @property
    def coverage(self) -> float:
        """Share of the free core boundary under at least one pixel of shell; NaN without a core."""
        whole = self.core_weight.sum()
        return float(self.core_weight[self.core_covered].sum() / whole) if whole > 0 else math.nan


def measure_shell(
    shell: np.ndarray,
    core: np.ndarray,
    *,
    spacing: Sequence[float],
    ignore: np.ndarray | None = None,
    roughness_cutoff: float | None = None,
) -> Shell:
    """Thickness of a shell around a core in a 2-D section or projection.

    Parameters
    ----------
    shell, core : ndarray of bool, shape (Y, X)
    spacing : sequence of float
        Pixel size (y, x).
    ignore : ndarray of bool, shape (Y, X), optional
        What a boundary may touch without being a free surface: supports, artefacts, unlabelled pixels.
    roughness_cutoff : float or None
        Wavelength up to which deviations of a boundary are roughness; None: 8 mean thicknesses. Never more than the
        width of the object, whose form would be taken for roughness.

    Notes
    -----
    Both boundaries pass through the crack points and are smoothed along themselves; between raw pixel outlines the
    nearest distance is 0.18 px too small, because it always finds the nearest corner. Left out: points whose
    nearest core is where the frame cuts it (it may lie beyond) and end faces of a broken shell (nearest core more than
    60 degrees off the normal) with the 5 px next to them. Coverage looks one pixel along
    the outward normal of the core. Roughness is the deviation along the normal from the boundary smoothed by a Gaussian
    that halves waves of the cut-off length (ISO 16610-21), with a kernel that does not shrink circles.
    """
    scale = np.asarray(spacing, float)
    last = (np.asarray(shell.shape) - 0.5) * scale
    blocked = np.zeros(shell.shape, bool) if ignore is None else ignore
    core_outlines = outlines(core, spacing)
    columns: list[list[np.ndarray]] = [[np.empty(0)] for _ in range(3)] + [[np.empty((0, 2), int)], [np.empty(0)]]
    core_columns: list[list[np.ndarray]] = [
        [np.empty(0)], [np.empty(0, bool)], [np.empty((0, 2), int)], [np.empty(0)],
    ]  # fmt: skip
    outer: list[tuple[Outline, np.ndarray, np.ndarray]] = []

    if core_outlines:
        samples = [_dense(o, 0.2 * scale.min()) for o in core_outlines]
        inner = np.concatenate(samples)
        # The first and last pixel of an outline that the frame cuts: the nearest core may lie beyond them.
        cut = np.concatenate(
            [np.minimum(np.arange(len(p)), np.arange(len(p))[::-1]) < (0 if o.closed else 5)
             for o, p in zip(core_outlines, samples, strict=True)]
        )  # fmt: skip
        tree = KDTree(inner)
        for o in outlines(shell | core, spacing):
            distance, nearest = tree.query(o.position)
            cosine = np.sum((o.position - inner[nearest]) * o.normal, axis=1) / np.where(distance > 0, distance, 1)
            face = shell[tuple(o.inner.T)] & ~blocked[tuple(o.outer.T)] & (cosine > 0.5)
            mode = "wrap" if o.closed else "nearest"
            whole = ndimage.minimum_filter1d(face.astype(np.uint8), 2 * END_VERTICES + 1, mode=mode) > 0
            outer.append((o, distance, whole & ~cut[nearest]))
    cutoff = math.nan if roughness_cutoff is None else roughness_cutoff
    if roughness_cutoff is None and any(keep.any() for _, _, keep in outer):
        values, weights = (np.concatenate([a[k] for a, k in pairs]) for pairs in (
            [(d, k) for _, d, k in outer], [(o.weight, k) for o, _, k in outer]))  # fmt: skip
        cutoff = CUTOFF_THICKNESSES * float(np.average(values, weights=weights))
    widths, core_widths = (_widths(mask, spacing) for mask in (shell | core, core))
    for o, distance, keep in outer:
        waves = min(cutoff, float(widths[tuple(o.inner[0])]))
        turned = _near(o, _long_runs(~shell[tuple(o.inner.T)], o.closed), 2 * FORM_SIGMA * waves)
        deviation = np.where(turned, math.nan, _deviation(o, waves))
        found = (distance, o.weight, pixel_along(o.normal, spacing), o.inner, deviation)
        for column, value in zip(columns, found, strict=True):
            column.append(value[keep])

    solid = (shell | core).astype(np.float32)
    for o in core_outlines:
        ahead = o.position + o.normal * pixel_along(o.normal, spacing)[:, None]
        keep = ~blocked[tuple(o.outer.T)] & np.all((ahead >= -scale / 2) & (ahead <= last), axis=1)
        covered = ndimage.map_coordinates(solid, (ahead / scale).T, order=1, mode="nearest") >= 0.5
        deviation = _deviation(o, min(cutoff, float(core_widths[tuple(o.inner[0])])))
        for column, value in zip(core_columns, (o.weight, covered, o.inner, deviation), strict=True):
            column.append(value[keep])
    thickness, weight, pixel, at, away = (np.concatenate(c) for c in columns)
    core_weight, core_covered, core_at, core_away = (np.concatenate(c) for c in core_columns)
    return Shell(thickness, weight, pixel, at, core_weight, core_covered, core_at, away, core_away)


def thickness_map(shell: np.ndarray, core: np.ndarray, *, spacing: Sequence[float]) -> np.ndarray:
    """Thickness of the shell at every pixel of it: that of the nearest point of its outer boundary.

    Parameters
    ----------
    shell, core : ndarray of bool, shape (Y, X)
    spacing : sequence of float

    Returns
    -------
    ndarray of float32, shape (Y, X)
        NaN outside of the shell, and where it could not be measured (`measure_shell`).
    """
    found = measure_shell(shell, core, spacing=spacing)
    result = np.full(shell.shape, np.nan, np.float32)
    if found.length > 0 and shell.any():
        pixels = np.argwhere(shell)
        nearest = KDTree(found.at * np.asarray(spacing, float)).query(pixels * np.asarray(spacing, float))[1]
        result[shell] = found.thickness[nearest]
    return result


def medial_thickness(shell: np.ndarray, core: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Mean width of a shell along its medial axis: a second estimate, of another quantity where the shell is rough.

    Twice the distance to the nearest edge; within 1 % on even shells. On shells whose thickness varies by a fifth it is
    5 to 16 % more than the distance from face to face.
    """
    from skimage.morphology import skeletonize

    # Neither the frame nor the core is background: the shell's own faces are.
    axis = skeletonize(shell)
    if not axis.any() or not core.any():
        return math.nan
    distance = ndimage.distance_transform_edt(np.pad(shell, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1]
    return float(2 * distance[axis].mean())


def _widths(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Diameter of the largest circle in the region that each pixel belongs to; 0 outside."""
    regions, n = ndimage.label(mask, structure=np.ones((3, 3)))
    if n == 0:
        return np.zeros(mask.shape)
    radius = ndimage.maximum(ndimage.distance_transform_edt(mask, sampling=spacing), regions, np.arange(1, n + 1))
    return np.concatenate([[0.0], 2 * np.asarray(radius)])[regions]


def _long_runs(marked: np.ndarray, closed: bool) -> np.ndarray:
    """The runs of marked vertices that are more than a pinhole."""
    size, mode = 2 * END_VERTICES + 1, "wrap" if closed else "nearest"
    eroded = ndimage.minimum_filter1d(marked.astype(np.uint8), size, mode=mode)
    return np.asarray(ndimage.maximum_filter1d(eroded, size, mode=mode) > 0)


def _near(outline: Outline, there: np.ndarray, reach: float) -> np.ndarray:
    """Which vertices lie less than `reach` along the outline from marked ones."""
    if not there.any() or not math.isfinite(reach):
        return np.zeros(len(there), bool)
    whole = float(outline.weight.sum())
    along = np.cumsum(outline.weight) - outline.weight / 2
    marked = along[there]
    marked = np.concatenate([marked - whole, marked, marked + whole]) if outline.closed else marked
    return np.asarray(KDTree(marked[:, None]).query(along[:, None])[0] < reach)


def _deviation(outline: Outline, cutoff: float) -> np.ndarray:
    """Distance of each vertex along its normal from the outline smoothed up to a wavelength; shape (N,)."""
    length = float(outline.weight.sum())
    if not math.isfinite(cutoff) or length <= 0 or cutoff <= 0:
        return np.zeros(len(outline.weight))
    # Even steps along the outline, so that the width of the Gaussian is a length.
    n = max(16, len(outline.weight))
    closed = np.concatenate([outline.position, outline.position[:1]]) if outline.closed else outline.position
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    even = np.linspace(0, along[-1], n, endpoint=not outline.closed)
    path = np.stack([np.interp(even, along, closed[:, axis]) for axis in range(2)], axis=1)
    sigma = FORM_SIGMA * cutoff
    # A closed outline is its centre long before the Gaussian is as wide as it is long; that of a pore of a pixel, which
    # `outlines` has shrunk to a point, would take a kernel of millions of steps.
    steps = min(sigma / max(along[-1] / n, 1e-12), n if outline.closed else 50.0 * n)
    form = smooth_path(path, sigma=steps, closed=outline.closed)
    at = along[: len(outline.weight)]
    position = np.stack([np.interp(at, even, form[:, axis], period=along[-1] if outline.closed else None)
                         for axis in range(2)], axis=1)  # fmt: skip
    deviation = np.sum((outline.position - position) * outline.normal, axis=1)
    return np.asarray(deviation - np.average(deviation, weights=outline.weight))


def core_diameter(core: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Diameter of the largest circle inside a core: the width of a whisker, the diameter of a disc; NaN when empty."""
    if not core.any():
        return math.nan
    radius = ndimage.distance_transform_edt(core, sampling=spacing).max()
    return float(2 * radius - DISTANCE_MAP_EXCESS_PX * math.prod(spacing) ** (1 / core.ndim))


def _dense(outline: Outline, step: float) -> np.ndarray:
    """Points of an outline no further apart than about `step`."""
    path = np.concatenate([outline.position, outline.position[:1]]) if outline.closed else outline.position
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    samples = np.linspace(0, along[-1], max(2, int(along[-1] / step) + 1))
    return np.stack([np.interp(samples, along, path[:, axis]) for axis in range(2)], axis=1)
