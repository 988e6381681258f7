"""Depth, volume and opening of pits under the plane of the surface, from height maps and from volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, crack_points

# Layers under the surface from which the area of the opening is extrapolated. The first one is left out: a plane that
# is off by a tenth of a voxel takes a tenth of its voxels away or adds as many.
OPENING_LAYERS = slice(1, 5)
# Openings this much smaller than the widest layer below belong to undercut pits.
UNDERCUT = 1.10
MIN_SURFACE_PX = 20


@dataclass(frozen=True)
class Depth:
    """A pit under the surface; lengths in the unit of the spacing, NaN where unknown.

    Parameters
    ----------
    depth, depth_low, depth_high : float
        Greatest depth under the plane, at right angles to it.
    volume, volume_low, volume_high : float
    opening : float
        Area in the plane; NaN for height maps, where the outline is that of the mask.
    method : str
    flags : tuple of str
    """

    depth: float
    depth_low: float
    depth_high: float
    volume: float
    volume_low: float
    volume_high: float
    opening: float
    method: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plane:
    """Height = level + slopes . (y, x); `sd` is the spread of the surface about it, `n` the points behind it."""

    level: float
    slopes: np.ndarray
    sd: float
    n: int

    def at(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self.level + places @ self.slopes)

    @property
    def across(self) -> float:
        """Cosine of the tilt: turns heights into distances from the plane."""
        return 1 / math.sqrt(1 + float(self.slopes @ self.slopes))


def _fit_plane(places: np.ndarray, heights: np.ndarray) -> _Plane | None:
    """Plane through points of a surface, without those more than three robust deviations off."""
    keep = np.ones(len(heights), bool)
    for _ in range(4):
        if keep.sum() < MIN_SURFACE_PX:
            return None
        design = np.column_stack([np.ones(int(keep.sum())), places[keep]])
        solution = np.linalg.lstsq(design, heights[keep], rcond=None)[0]
        off = heights - solution[0] - places @ solution[1:]
        spread = 1.4826 * float(np.median(np.abs(off[keep])))
        keep = np.abs(off) <= max(3 * spread, 1e-9)
    return _Plane(float(solution[0]), solution[1:], float(off[keep].std()), int(keep.sum()))


def depths_from_heights(frame: Frame, height: np.ndarray, *, surface_classes: Sequence[str]) -> dict[int, Depth]:
    """Depth and volume of every pit of a plan view whose image is the height of the surface.

    Parameters
    ----------
    frame : Frame
        With the pits as instances.
    height : ndarray of float, shape (Y, X)
        In the unit of the spacing.
    surface_classes : sequence of str
        Where the surface lies that the plane is fitted to.

    Notes
    -----
    The greatest depth is that of the map after a median over 3 x 3 pixels: a single bad pixel is no depth. What a pit
    undercuts is not in a height map. The intervals are those of the plane, of a boundary off by half a pixel, and of a
    deepest place between pixels.
    """
    assert frame.instances is not None
    scale = np.asarray(frame.scale.spacing)
    known = [name for name in surface_classes if name in frame.schema.names]
    # Two pixels off every pit and every other class: rims are no part of the plane.
    surface = ndimage.binary_erosion(frame.mask(known) & frame.valid, np.ones((3, 3)), iterations=2, border_value=1)
    plane = _fit_plane(np.argwhere(surface) * scale, height[surface])
    found: dict[int, Depth] = {}
    for pit, box in enumerate(ndimage.find_objects(frame.instances), start=1):
        if box is None:
            continue
        if plane is None:
            found[pit] = _unknown("no surface to fit a plane to")
            continue
        wide = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in box)
        mask = frame.instances[wide] == pit
        places = (np.indices(mask.shape).reshape(2, -1).T + [s.start for s in wide]) * scale
        under = (plane.at(places).reshape(mask.shape) - height[wide]) * plane.across
        smooth = ndimage.median_filter(under, 3)
        depth = float(smooth[mask].max())
        volume = float(under[mask].sum()) * frame.scale.pixel / plane.across
        rim = float(np.abs(under[mask ^ ndimage.binary_erosion(mask)]).sum()) * frame.scale.pixel / 2
        off = 1.96 * plane.sd / math.sqrt(plane.n)
        area = float(mask.sum()) * frame.scale.pixel
        half = math.hypot(rim, off * area)
        # The deepest place lies between pixels, and the median takes from it: no more than the map falls over 2 px.
        deepest = np.unravel_index(int(np.where(mask, smooth, -math.inf).argmax()), mask.shape)
        step = depth - float(ndimage.minimum_filter(smooth, 5)[deepest])
        noise = math.hypot(1.96 * plane.sd, off, step)
        method = f"under the plane through the surface, which scatters by {plane.sd:.2g}; height map"
        found[pit] = Depth(depth, max(depth - noise, 0.0), depth + noise, volume, volume - half, volume + half,
                           math.nan, method)  # fmt: skip
    return found


def depths_from_volume(frame: Frame, *, surface_classes: Sequence[str]) -> dict[int, Depth]:
    """Depth, volume and opening of every pit of a volume, z across the surface.

    Parameters
    ----------
    frame : Frame
        With the pits as instances.
    surface_classes : sequence of str
        The metal around the pits.

    Notes
    -----
    The plane runs through the mid-points between metal and what is above it, to a fraction of a voxel: half a voxel
    more would cost a tenth of the volume of shallow pits. The volume is that of the voxels, plus or less what lies
    between their top faces and the plane in every open column. The opening is extrapolated to the plane from the
    areas of the second to fifth layer under it (linear in the root of the area, exact for cones and pyramids); it reads
    up to 25 % high on undercut pits, which are flagged ``ambiguous``.
    """
    assert frame.instances is not None
    spacing = np.asarray(frame.scale.spacing)
    known = [name for name in surface_classes if name in frame.schema.names]
    pits = frame.instances > 0
    found_surface = _surface_plane(frame, frame.mask(known), pits)
    found: dict[int, Depth] = {}
    for pit, box in enumerate(ndimage.find_objects(frame.instances), start=1):
        if box is None:
            continue
        if found_surface is None:
            found[pit] = _unknown("no flat surface around the pits")
            continue
        plane, up = found_surface
        at = np.argwhere(frame.instances[box] == pit) + [s.start for s in box]
        # Heights count along z into the electrolyte.
        height = up * at[:, 0] * spacing[0]
        under = plane.at(at[:, 1:] * spacing[1:]) - height  # of the middle of each voxel, along z
        cell, step = float(spacing[1] * spacing[2]), float(spacing[0])
        columns, place = np.unique(at[:, 1] * frame.labels.shape[2] + at[:, 2], return_inverse=True)
        top = np.full(len(columns), math.inf)
        np.minimum.at(top, place, under)
        # Columns whose highest voxel lies at the surface are open; what an overhang hides is not.
        open_columns = top < step
        gap = float(np.sum(top[open_columns] - step / 2)) * cell
        volume = len(at) * cell * step + gap
        depth = (float(under.max()) + step / 2) * plane.across
        layers = np.bincount(np.floor(np.maximum(under, 0) / step).astype(int), minlength=1) * cell / plane.across
        opening, undercut = _opening(layers)
        off = 1.96 * math.hypot(plane.sd / math.sqrt(plane.n), 0.05 * step)
        surface = float(np.count_nonzero(open_columns)) * cell
        bottom = 1.96 * DIGITISATION_PX * step * plane.across
        half = math.hypot(off * surface, 0.01 * volume)
        noise = math.hypot(bottom, off)
        method = (
            f"under the plane through the surface, which scatters by {plane.sd:.2g}"
            + (f"; undercut, {undercut:.2g} times as wide below" if undercut > UNDERCUT else "")
        )  # fmt: skip
        found[pit] = Depth(depth, max(depth - noise, 0.0), depth + noise, volume, volume - half, volume + half, opening,
                           method, ("ambiguous",) if undercut > UNDERCUT else ())  # fmt: skip
    return found


def _surface_plane(frame: Frame, metal: np.ndarray, pits: np.ndarray) -> tuple[_Plane, int] | None:
    """Plane of the free surface of the metal away from the pits, and the sense of z (1 or -1) that leads out."""
    spacing = frame.scale.spacing
    # A rim may be rounded: three pixels around each pit, over all of its depth, are left out.
    around = ndimage.binary_dilation(pits.any(axis=0), np.ones((3, 3)), iterations=3)
    outside = frame.valid & ~metal & ~pits
    cracks = crack_points(metal, outside, spacing)
    index = np.rint(cracks.position / np.asarray(spacing)).astype(int).clip(0, np.asarray(metal.shape) - 1)
    level = (cracks.direction[:, 0] != 0) & ~around[index[:, 1], index[:, 2]]
    if not level.any():
        return None
    up = 1 if cracks.direction[level, 0].sum() > 0 else -1
    level &= cracks.direction[:, 0] == up
    plane = _fit_plane(cracks.position[level][:, 1:], up * cracks.position[level][:, 0])
    return None if plane is None else (plane, up)


def _opening(layers: np.ndarray) -> tuple[float, float]:
    """Area at the plane from those of the layers under it, and the widest layer over it."""
    middle = np.arange(len(layers)) + 0.5
    chosen = OPENING_LAYERS if len(layers) > 2 else slice(0, 2)
    if len(layers[chosen]) < 2:
        return float(layers.max()), 1.0
    slope, root = np.polyfit(middle[chosen], np.sqrt(layers[chosen]), 1)
    # An opening is no smaller than half as wide as the first whole layer: steeper overhangs are not resolved.
    opening = max(float(root), math.sqrt(layers[chosen][0]) / 2) ** 2
    return opening, float(layers.max()) / opening


def _unknown(why: str) -> Depth:
    return Depth(*(math.nan,) * 7, why, ("no-credible-baseline",))
