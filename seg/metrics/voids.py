"""Voids in metal and at the metal / solid-electrolyte interface: how many, how big, and how much contact they cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.table import Measurement

# Below this a surface mesh says nothing about shape (a ball of radius 2 voxels).
MIN_SPHERICITY_VOXELS = 33


@dataclass(frozen=True)
class ContactLoss:
    """How much of the separator surface is covered by voids.

    Parameters
    ----------
    lost, total : float
        Projected area (3-D) or length (2-D) of the interface under voids, and of the whole interface.
    first_layer : float
        The same loss in the first layer of voxels, without extrapolation.
    edge : float
        Length of the rim of the lost patches (3-D), or their number of ends (2-D).
    axis : int
        The axis along which the interface was projected.
    """

    lost: float
    total: float
    first_layer: float
    edge: float
    axis: int

    @property
    def fraction(self) -> float:
        """Share of the interface that is lost; NaN without an interface."""
        return self.lost / self.total if self.total > 0 else math.nan


def label_voids(void: np.ndarray) -> tuple[np.ndarray, int]:
    """Label voids; voxels that share a corner belong together (26 neighbours in 3-D, 8 in 2-D)."""
    ids, count = ndimage.label(void, structure=np.ones((3,) * void.ndim))
    return ids, int(count)


def contact_loss(
    separator: np.ndarray, metal: np.ndarray, void_ids: np.ndarray, *, spacing: Sequence[float]
) -> ContactLoss:
    """Void-covered part of the interface between a separator and metal, as projected area.

    Parameters
    ----------
    separator, metal : ndarray of bool, shape ([Z,] Y, X)
    void_ids : ndarray of int, shape ([Z,] Y, X)
        Numbered voids, 0 = none.
    spacing : sequence of float

    Notes
    -----
    The interface is where a separator voxel is followed, along the axis the interface faces most, by metal or void;
    both sides of a separator count. Walls of a void lean, so its first layer (centred half a voxel above the surface)
    is 3-7 % too small: the area of each touching void in layers 1 to 3 is extrapolated as a parabola to the surface,
    ``(15 A1 - 10 A2 + 3 A3) / 8``. A void thinner than three layers, or that loses more than half of its area between
    the first two (a ragged gap rather than a wall), keeps A1.
    """
    target = metal | (void_ids > 0)
    axis, face = _main_axis(separator, target, spacing)
    n_voids = int(void_ids.max(initial=0))
    layers = np.zeros((3, n_voids + 1), np.int64)
    columns = 0
    for direction in (1, -1):
        sep = np.moveaxis(separator, axis, 0)[::direction]
        free = np.moveaxis(target, axis, 0)[::direction]
        ids = np.moveaxis(void_ids, axis, 0)[::direction]
        at = np.nonzero(sep[:-1] & free[1:])
        columns += len(at[0])
        for layer in range(3):
            height = at[0] + 1 + layer
            inside = height < len(ids)
            found = ids[(height[inside], *(index[inside] for index in at[1:]))]
            layers[layer] += np.bincount(found, minlength=n_voids + 1)
    first, second, third = layers[:, 1:].astype(float)
    parabola = (15 * first - 10 * second + 3 * third) / 8
    wall = (third > 0) & (second >= 0.5 * first) & (first > 0)
    surface = np.where(wall, np.maximum(parabola, 0), first)
    touched = first[first > 0]
    # Rim of round patches of that area; in a section each patch has two ends.
    rim = 2 * np.sqrt(math.pi * touched * face) if separator.ndim == 3 else np.full(len(touched), 2.0)
    edge = float(rim.sum())
    lost = min(float(surface.sum()), float(columns))
    return ContactLoss(lost * face, columns * face, float(first.sum()) * face, edge, axis)


def interface_area(separator: np.ndarray, target: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Area of the separator surface that faces `target`, from a mesh through a slightly blurred mask (3-D).

    Voxel faces over-read a tilted or wavy surface by up to half, a mesh through the raw mask by 8 %; after a blur of
    one voxel (physical, the same along every axis) the mesh is within 3 %.
    """
    box = ndimage.find_objects((separator & ndimage.binary_dilation(target)).astype(np.uint8))
    if not box or box[0] is None:
        return 0.0
    # Blur reaches four voxels; the surroundings of the interface are all that is needed.
    grown = tuple(slice(max(s.start - 6, 0), s.stop + 6) for s in box[0])
    # A mesh spans voxel centres; one more voxel around lets it reach the faces of the frame.
    solid, facing = np.pad(separator[grown], 1, mode="edge"), np.pad(target[grown], 1, mode="edge")
    vertices, faces = _surface(solid, spacing, sigma_px=1.0, mode="nearest")
    if len(faces) == 0:
        return 0.0
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    twice = np.linalg.norm(cross, axis=1)
    normal = cross / np.where(twice > 0, twice, 1)[:, None]
    centre = corners.mean(axis=1)
    scale = np.asarray(spacing, float)
    last = np.asarray(solid.shape) - 1
    inside = np.all((centre >= 0.5 * scale) & (centre <= (last - 0.5) * scale), axis=1)
    touches = np.zeros(len(faces), bool)
    for sign in (1.0, -1.0):
        at = np.clip(np.rint(centre / scale + sign * normal).astype(int), 0, last)
        touches |= facing[tuple(at.T)]
    return float(twice[inside & touches].sum() / 2)


def sphericity(mask: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Surface of a ball of equal volume over the surface of one 3-D object; NaN below 33 voxels.

    ``pi**(1/3) (6 V)**(2/3) / A`` with A from a mesh through the mask after a blur of 0.3 voxel for the smallest to 0.6
    for balls of 7 voxels radius and more: without it balls read 0.08 too low, with more of it rims are rounded away.
    Within 0.05 for balls, ellipsoids, lenses and half balls of 3 to 10 voxels radius, also at 2:1 voxels; flat caps and
    boxes, which have sharp edges all around, read 0.05 to 0.1 too high.
    """
    voxels = int(mask.sum())
    if voxels < MIN_SPHERICITY_VOXELS:
        return math.nan
    radius_px = (3 * voxels / (4 * math.pi)) ** (1 / 3)
    vertices, faces = _surface(np.pad(mask, 4), spacing, sigma_px=min(max(0.3, 0.09 * radius_px), 0.6), mode="constant")
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1).sum() / 2
    volume = voxels * math.prod(spacing)
    return float(math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area) if area > 0 else math.nan


def measure_frame(
    frame: Frame,
    *,
    void_classes: Sequence[str] = ("void",),
    metal_classes: Sequence[str] = ("deposit", "dendrite"),
    separator_classes: Sequence[str] = ("separator",),
    min_size_px: int | None = None,
) -> list[Measurement]:
    """Void fraction, count, sizes and sphericity, and the contact lost at the separator.

    Sizes are given per void (with `object_id`) and for the frame: the total volume, and mean diameter and sphericity
    over voids that lie fully inside, weighted by the inverse chance of that (Miles-Lantuejoul). Voids below
    `min_size_px` (default 3 px along each axis) are counted and flagged. In a 2-D section the fraction is one of
    areas, diameters are those of equal-area circles, and there are no volumes, sphericities or interface areas. The
    rows on contact are missing where no separator is labelled.
    """
    void, metal = frame.mask(void_classes), frame.mask(metal_classes)
    separator = frame.mask(separator_classes)
    spacing, ndim = frame.scale.spacing, frame.labels.ndim
    smallest = 3**ndim if min_size_px is None else min_size_px
    ids, count = label_voids(void)
    boxes = ndimage.find_objects(ids)
    sizes = np.bincount(ids.ravel(), minlength=count + 1)[1:]
    cut = np.array([any(s.start == 0 or s.stop == n for s, n in zip(b, ids.shape, strict=True)) for b in boxes], bool)
    tiny = sizes < smallest
    rows = _Rows(frame, ";".join(void_classes))

    section = "" if ndim == 3 else "2-D section: "
    shift = _edge_shift(void, spacing)
    total_px = int(sizes.sum()) + int(metal.sum())
    fraction = sizes.sum() / total_px if total_px else math.nan
    what = "volume" if ndim == 3 else "area"
    rows.add("void_fraction", fraction, "1", shift / (total_px * frame.scale.pixel) if total_px else math.nan,
             f"{section}void {what} / (void + metal) {what}; interval: mask edge +-0.5 px", limit=1.0)  # fmt: skip
    neighbours = f"{section}{3**ndim - 1} neighbours"
    rows.add_count(count, int(tiny.sum()), bool(cut.any()), smallest, neighbours)

    diameters, spheres = _sizes(frame, rows, ids, boxes, sizes, cut, tiny)
    inside = ~cut & ~tiny
    windows = [math.prod(n - (s.stop - s.start) + 1 for s, n in zip(b, ids.shape, strict=True)) for b in boxes]
    weights = np.array([1 / w for w in windows])
    mean_method = f"{section}mean over voids fully inside, Miles-Lantuejoul weights; interval: t"
    rows.add_mean("void_diameter", diameters, weights, inside, "um", mean_method)
    if ndim == 3:
        rows.add("void_volume", float(sizes.sum()) * frame.scale.pixel, "um3", shift,
                 "total of all voids; interval: mask edge +-0.5 px", n=count)  # fmt: skip
        rows.add_mean("void_sphericity", spheres, weights, inside, "1", mean_method)
    if separator.any():
        _contact_rows(frame, rows, separator, metal, ids)
    return rows.rows


class _Rows:
    """Rows of one frame, with what they share."""

    def __init__(self, frame: Frame, class_name: str) -> None:
        self.frame, self.class_name, self.rows = frame, class_name, []

    def add(
        self, metric: str, value: float, unit: str, error: float, method: str, *, object_id: int | None = None,
        n: int | None = None, flags: tuple[str, ...] = (), limit: float = math.inf,
    ) -> None:  # fmt: skip
        scale = self.frame.scale
        self.rows.append(
            Measurement(
                metric,
                float(value),
                scale.unit(unit),
                low=float(max(value - error, 0.0)) if error == error else math.nan,
                high=float(min(value + error, limit)) if error == error else math.nan,
                class_name=self.class_name,
                frame=self.frame.index,
                time_s=self.frame.time_s,
                object_id=object_id,
                n=n,
                method=method,
                flags=scale.flags + flags,
            )  # fmt: skip
        )

    def add_count(self, count: int, tiny: int, cut: bool, smallest: int, method: str) -> None:
        scale = self.frame.scale
        flags = (("below-detection-limit",) if tiny else ()) + (("touches-border",) if cut else ())
        self.rows.append(
            Measurement(
                "void_count",
                float(count),
                "1",
                low=float(count - tiny),
                high=float(count),
                class_name=self.class_name,
                frame=self.frame.index,
                time_s=self.frame.time_s,
                n=count,
                method=f"{method}; low: without the {tiny} below {smallest} px",
                flags=scale.flags + flags,
            )  # fmt: skip
        )

    def add_mean(
        self, metric: str, values: np.ndarray, weights: np.ndarray, keep: np.ndarray, unit: str, method: str
    ) -> None:
        from scipy.stats import t

        keep = keep & np.isfinite(values)
        values, weights, n = values[keep], weights[keep], int(keep.sum())
        mean = float(np.average(values, weights=weights)) if n else math.nan
        error = math.nan
        if n > 1:
            share = weights / weights.sum()
            # Error of a weighted mean; the small-sample factor makes it the usual one at equal weights.
            error = t.ppf(0.975, n - 1) * math.sqrt(np.sum((share * (values - mean)) ** 2) * n / (n - 1))
        self.add(metric, mean, unit, error, method, n=n)


def _sizes(
    frame: Frame, rows: _Rows, ids: np.ndarray, boxes: list[tuple[slice, ...]], sizes: np.ndarray, cut: np.ndarray,
    tiny: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Diameter, volume and sphericity of each void as rows; returns diameters and sphericities."""
    pixel, ndim = frame.scale.pixel, ids.ndim
    measure = sizes * pixel
    diameters = 2 * np.sqrt(measure / math.pi) if ndim == 2 else np.cbrt(6 * measure / math.pi)
    spheres = np.full(len(sizes), math.nan)
    # An edge that lies half a pixel off moves both ends of a diameter.
    edge = 1.96 * 2 * DIGITISATION_PX * pixel ** (1 / ndim)
    for index, box in enumerate(boxes):
        flags = (("touches-border",) if cut[index] else ()) + (("below-detection-limit",) if tiny[index] else ())
        how = "circle of equal area in a 2-D section" if ndim == 2 else "ball of equal volume"
        diameter = float(diameters[index])
        rows.add("void_diameter", diameter, "um", edge, f"{how}; interval: mask edge +-0.5 px", object_id=index + 1,
                 flags=flags)  # fmt: skip
        if ndim == 3:
            spheres[index] = sphericity(ids[box] == index + 1, spacing=frame.scale.spacing)
            shape_flags = flags + (("few-pixels",) if math.isnan(spheres[index]) else ())
            rows.add("void_volume", float(measure[index]), "um3", 3 * measure[index] * edge / diameter,
                     "voxels; interval: mask edge +-0.5 px", object_id=index + 1, flags=flags)  # fmt: skip
            rows.add("void_sphericity", spheres[index], "1", 0.05, "mesh, blur 0.3-0.6 px; interval: method error",
                     object_id=index + 1, flags=shape_flags)  # fmt: skip
    return diameters, spheres


def _contact_rows(frame: Frame, rows: _Rows, separator: np.ndarray, metal: np.ndarray, ids: np.ndarray) -> None:
    """Contact-loss fraction and, in 3-D, the area of the interface."""
    spacing = frame.scale.spacing
    contact = contact_loss(separator, metal, ids, spacing=spacing)
    across = math.prod(spacing[: contact.axis] + spacing[contact.axis + 1 :]) ** (1 / (ids.ndim - 1))
    error = 1.96 * DIGITISATION_PX * across * contact.edge / contact.total if contact.total > 0 else math.nan
    extrapolated = contact.lost != contact.first_layer
    rows.add("contact_loss_fraction", contact.fraction, "1", error,
             f"{'2-D section: ' if ids.ndim == 2 else ''}projected along {'zyx'[-ids.ndim:][contact.axis]}, "
             f"{'layers 1-3 extrapolated to the surface' if extrapolated else 'first layer'}; interval: rim +-0.5 px",
             flags=() if contact.total > 0 else ("ambiguous",), limit=1.0)  # fmt: skip
    if ids.ndim == 3:
        area = interface_area(separator, metal | (ids > 0), spacing=spacing)
        rows.add("interface_area", area, "um2", 0.03 * area,
                 "separator surface facing metal or void, mesh, blur 1 voxel; interval: method error 3 %")  # fmt: skip


def _main_axis(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> tuple[int, float]:
    """Axis with the largest area of faces between two regions, and the area of one such face."""
    areas, faces = [], []
    for axis in range(first.ndim):
        a, b = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
        n = np.count_nonzero(a[:-1] & b[1:]) + np.count_nonzero(b[:-1] & a[1:])
        faces.append(math.prod(s for i, s in enumerate(spacing) if i != axis))
        areas.append(n * faces[-1])
    axis = int(np.argmax(areas))
    return axis, faces[axis]


def _surface(
    mask: np.ndarray, spacing: Sequence[float], *, sigma_px: float, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Half-level mesh of a mask after a blur that is equal along all axes in physical units."""
    scale = np.asarray(spacing, float)
    sigma = sigma_px * math.prod(spacing) ** (1 / 3) / scale
    field = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode=mode)
    if min(field.shape) < 2 or not field.min() < 0.5 < field.max():
        return np.empty((0, 3)), np.empty((0, 3), int)
    vertices, faces, _, _ = marching_cubes(field, 0.5, spacing=tuple(scale))
    return vertices, faces


def _edge_shift(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Change of area or volume (95 %) when the whole edge of a mask may lie half a pixel off."""
    change = 0.0
    for axis in range(mask.ndim):
        faces = np.count_nonzero(np.diff(mask, axis=axis))
        change += faces * math.prod(spacing)
    # Faces times the pixel across them; a smooth surface is 2/3 (circle: pi/4) of its voxel faces.
    return 1.96 * DIGITISATION_PX * change * (2 / 3 if mask.ndim == 3 else math.pi / 4)
