"""Interphase shells on metal: thickness from the outer to the inner boundary, its spread, and how much it covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, Outline, outlines, pixel_along
from seg.metrics.table import Measurement, Scale

# Spread that a uniform shell still shows after smoothing both outlines: 0.11-0.13 px, 0.2 px at 2.3:1 pixels.
PIXELATION_SD_PX = 0.13
# Smoothing rounds the corner where a shell ends; that many vertices (about 5 px) next to an end are left out.
END_VERTICES = 6
MIN_CV_THICKNESS_PX = 5.0
MIN_THICKNESS_PX = 2.0
# Medial-axis values of a pixel distance map are this much too wide.
DISTANCE_MAP_EXCESS_PX = 0.38

METHOD = "outer to inner outline, arc-length weighted"


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
    """

    thickness: np.ndarray
    weight: np.ndarray
    pixel: np.ndarray
    at: np.ndarray
    core_weight: np.ndarray
    core_covered: np.ndarray
    core_at: np.ndarray

    def part(self, points: np.ndarray, core_points: np.ndarray) -> Shell:
        """Keep some of the points only (masks of shape (N,) and (M,))."""
        return Shell(
            self.thickness[points], self.weight[points], self.pixel[points], self.at[points],
            self.core_weight[core_points], self.core_covered[core_points], self.core_at[core_points],
        )  # fmt: skip

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
    shell: np.ndarray, core: np.ndarray, *, spacing: Sequence[float], ignore: np.ndarray | None = None
) -> Shell:
    """Thickness of a shell around a core in a 2-D section or projection.

    Parameters
    ----------
    shell, core : ndarray of bool, shape (Y, X)
    spacing : sequence of float
        Pixel size (y, x).
    ignore : ndarray of bool, shape (Y, X), optional
        What a boundary may touch without being a free surface: supports, artefacts, unlabelled pixels.

    Notes
    -----
    Both boundaries pass through the crack points and are smoothed along themselves; between raw pixel outlines the
    nearest distance is 0.18 px too small, because it always finds the nearest corner. Left out: points whose
    nearest core is where the frame cuts it (it may lie beyond) and end faces of a broken shell (nearest core more than
    60 degrees off the normal) with the 5 px next to them. Coverage looks one pixel along
    the outward normal of the core.
    """
    scale = np.asarray(spacing, float)
    last = (np.asarray(shell.shape) - 0.5) * scale
    blocked = np.zeros(shell.shape, bool) if ignore is None else ignore
    core_outlines = outlines(core, spacing)
    columns: list[list[np.ndarray]] = [[np.empty(0)] for _ in range(3)] + [[np.empty((0, 2), int)]]
    core_columns: list[list[np.ndarray]] = [[np.empty(0)], [np.empty(0, bool)], [np.empty((0, 2), int)]]

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
            keep = whole & ~cut[nearest]
            values = (distance, o.weight, pixel_along(o.normal, spacing), o.inner)
            for column, value in zip(columns, values, strict=True):
                column.append(value[keep])

    solid = (shell | core).astype(np.float32)
    for o in core_outlines:
        ahead = o.position + o.normal * pixel_along(o.normal, spacing)[:, None]
        keep = ~blocked[tuple(o.outer.T)] & np.all((ahead >= -scale / 2) & (ahead <= last), axis=1)
        covered = ndimage.map_coordinates(solid, (ahead / scale).T, order=1, mode="nearest") >= 0.5
        for column, value in zip(core_columns, (o.weight, covered, o.inner), strict=True):
            column.append(value[keep])
    return Shell(*(np.concatenate(c) for c in columns), *(np.concatenate(c) for c in core_columns))


def core_diameter(core: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Diameter of the largest circle inside a core: the width of a whisker, the diameter of a disc; NaN when empty."""
    if not core.any():
        return math.nan
    radius = ndimage.distance_transform_edt(core, sampling=spacing).max()
    return float(2 * radius - DISTANCE_MAP_EXCESS_PX * math.prod(spacing) ** (1 / core.ndim))


def measure_frame(
    frame: Frame,
    *,
    shell_classes: Sequence[str] = ("sei",),
    core_classes: Sequence[str] = ("deposit", "dendrite"),
    support_classes: Sequence[str] = ("substrate", "separator"),
) -> list[Measurement]:
    """Shell thickness, spread, coverage and core-to-shell ratio of each object and of the whole frame.

    Objects are connected regions of core and shell that hold both; `support_classes` may touch the core without being
    a free surface of it. Volumes are measured section by section (in plane) and pooled. Without a shell the thickness
    is NaN and the coverage 0; without a core all is NaN.
    """
    shell, core = frame.mask(shell_classes), frame.mask(core_classes)
    ignore = ~frame.valid | frame.mask([name for name in support_classes if name in frame.schema.names])
    if frame.labels.ndim == 3:
        sections = [
            measure_shell(s, c, spacing=frame.scale.spacing[1:], ignore=i)
            for s, c, i in zip(shell, core, ignore, strict=True)
        ]
        pooled = Shell(*(np.concatenate([getattr(s, f.name) for s in sections]) for f in fields(Shell)))
        diameter = core_diameter(core, spacing=frame.scale.spacing)
        return _rows(frame, pooled, diameter, method=f"in plane, section by section; {METHOD}")

    whole = measure_shell(shell, core, spacing=frame.scale.spacing, ignore=ignore)
    objects, _ = ndimage.label(shell | core, structure=np.ones((3, 3)))
    of_point, of_core_point = objects[tuple(whole.at.T)], objects[tuple(whole.core_at.T)]
    rows: list[Measurement] = []
    diameters, lengths = [], []
    for object_id, box in enumerate(ndimage.find_objects(objects), start=1):
        mine = objects[box] == object_id
        my_core = np.pad(mine & core[box], [_edge_pad(s, n) for s, n in zip(box, objects.shape, strict=True)])
        if not (my_core.any() and (mine & shell[box]).any()):
            continue
        part = whole.part(of_point == object_id, of_core_point == object_id)
        cut = any(s.start == 0 or s.stop == size for s, size in zip(box, objects.shape, strict=True))
        diameters.append(core_diameter(my_core, spacing=frame.scale.spacing))
        lengths.append(part.length)
        rows += _rows(frame, part, diameters[-1], object_id=object_id, cut=cut)
    diameter = float(np.average(diameters, weights=lengths)) if sum(lengths) > 0 else math.nan
    return rows + _rows(frame, whole, diameter, n=len(diameters))


def _edge_pad(box: slice, size: int) -> tuple[int, int]:
    """One background pixel on each side of a cut-out, but none where the frame cuts the object."""
    return int(box.start > 0), int(box.stop < size)


def _dense(outline: Outline, step: float) -> np.ndarray:
    """Points of an outline no further apart than about `step`."""
    path = np.concatenate([outline.position, outline.position[:1]]) if outline.closed else outline.position
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    samples = np.linspace(0, along[-1], max(2, int(along[-1] / step) + 1))
    return np.stack([np.interp(samples, along, path[:, axis]) for axis in range(2)], axis=1)


def _rows(
    frame: Frame,
    shell: Shell,
    diameter: float,
    *,
    object_id: int | None = None,
    n: int | None = None,
    cut: bool = False,
    method: str = METHOD,
) -> list[Measurement]:
    """Write the five metrics of one shell, or of all of them, as rows."""
    scale: Scale = frame.scale
    mean, sd, pixel = shell.mean, shell.sd, shell.mean_pixel
    cv = sd / mean if mean >= MIN_CV_THICKNESS_PX * pixel else math.nan
    thin = ("few-pixels",) if mean < MIN_THICKNESS_PX * pixel else ()
    thin_cv = ("few-pixels",) if mean < MIN_CV_THICKNESS_PX * pixel else ()
    common = scale.flags + (("touches-border",) if cut else ())

    # Either face of a mask may lie half a pixel off as a whole (uniform): this does not average out along the shell.
    mean_error = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    # Thickness is correlated over about its own value; the spread has the usual 1/sqrt(2n) error over such stretches.
    stretches = max(shell.length / max(mean, 4 * pixel), 2.0) if shell.length > 0 else math.nan
    sd_error = math.hypot(1.96 * sd / math.sqrt(2 * stretches), PIXELATION_SD_PX * pixel)
    core_points = shell.core_weight.sum() / pixel if shell.length > 0 else shell.core_weight.sum()
    coverage = shell.coverage
    # A gap has two ends, each known to half a pixel.
    covered = shell.core_covered
    ends = 2 + np.count_nonzero(np.diff(covered.astype(np.int8))) if len(covered) else 0
    coverage_error = 1.96 * DIGITISATION_PX * math.sqrt(ends) / core_points if core_points > 0 else math.nan
    ratio = diameter / mean if mean > 0 else math.nan
    ratio_error = ratio * mean_error / mean if mean > 0 else math.nan

    def row(metric: str, value: float, error: float, unit: str, how: str, flags: tuple[str, ...]) -> Measurement:
        value, error = float(value), float(error)
        high = value + error if metric != "sei_coverage" else min(value + error, 1.0)
        return Measurement(
            metric, value, unit, low=max(value - error, 0.0) if math.isfinite(value) else math.nan, high=high,
            class_name="sei", frame=frame.index, time_s=frame.time_s, object_id=object_id, n=n, method=how,
            flags=common + flags,
        )  # fmt: skip

    um = scale.unit("um")
    floor = f"{method}; pixelation floor {PIXELATION_SD_PX} px subtracted in quadrature"
    return [
        row("sei_thickness_mean", mean, mean_error, um, f"{method}; interval: each face +-0.5 px", thin),
        row("sei_thickness_sd", sd, sd_error, um, floor, thin),
        row("sei_thickness_cv", cv, sd_error / mean if mean > 0 else math.nan, "1", floor, thin_cv),
        row("sei_coverage", coverage, coverage_error, "1", "share of free core boundary with at least 1 px", ()),
        row("core_to_sei_ratio", ratio, ratio_error, "1", "largest inscribed circle of the core over mean thickness",
            thin),
    ]  # fmt: skip
