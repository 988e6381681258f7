"""Where two regions of a mask meet, to a fraction of a pixel: crack points and ordered, smoothed outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

# Position of a mask edge inside its pixel is uniform over one pixel.
DIGITISATION_PX = 12**-0.5
# An outline is that of its own course after smoothing by so many vertices (0.8 px each).
COURSE_VERTICES = 10.0
# The walls of grains bend more.
WALL_VERTICES = 6.0
# Shorter outlines have no course of their own, and so many slices of a volume say how rough it is.
SHORTEST_OUTLINE, WALL_SLICES = 60, 32
# What slices of smooth branches in a volume read.
SMOOTH_BRANCH_PX = 0.53


@dataclass(frozen=True)
class CrackPoints:
    """Mid-points between unlike face neighbours; unbiased positions of a smooth boundary.

    Parameters
    ----------
    position : ndarray of float, shape (N, ndim)
        Physical coordinates (index times spacing).
    direction : ndarray of float, shape (N, ndim)
        Unit step along one axis, from the inner to the outer region.
    grain_px : float
        Standard error of the position that all points of a level boundary share.
    """

    position: np.ndarray
    direction: np.ndarray
    grain_px: float = DIGITISATION_PX

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, keep: np.ndarray) -> CrackPoints:
        return CrackPoints(self.position[keep], self.direction[keep], self.grain_px)


def crack_points(
    inside: np.ndarray, outside: np.ndarray, spacing: Sequence[float], *, origin: Sequence[int] | None = None
) -> CrackPoints:
    """Mid-points of the faces between two regions.

    Parameters
    ----------
    inside, outside : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float
        Pixel size along each axis.
    origin : sequence of int, optional
        Index of the first pixel, where the arrays were cut out of a larger frame.
    """
    ndim = inside.ndim
    positions, directions = [], []
    for axis in range(ndim):
        lower = [slice(None)] * ndim
        upper = [slice(None)] * ndim
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        for first, second, sign in ((inside, outside, 1.0), (outside, inside, -1.0)):
            at = np.argwhere(first[tuple(lower)] & second[tuple(upper)]).astype(float)
            at[:, axis] += 0.5
            step = np.zeros_like(at)
            step[:, axis] = sign
            positions.append(at)
            directions.append(step)
    position = np.concatenate(positions)
    if origin is not None:
        position += np.asarray(origin, float)
    return CrackPoints(position * np.asarray(spacing, float), np.concatenate(directions))


def lowest_height(surface: np.ndarray, normal: np.ndarray, *, within: float) -> float:
    """Height of the lowest point of a smooth surface over the plane through 0, from many points around it.

    Parameters
    ----------
    surface : ndarray of float, shape (N, ndim)
        Points of the surface of a body that lies above.
    normal : ndarray of float, shape (ndim,)
        Unit normal of the plane, upwards.
    within : float
        Half width of the patch around the lowest of the points that is taken for a paraboloid.

    Notes
    -----
    The lowest of many points that are each off by a fraction of a pixel lies too low, and jumps with the grid; the
    vertex of the paraboloid through them does neither. Where they make no paraboloid with a lowest point inside of the
    patch (an edge, a face along the plane, too few points), it is the height of the lowest point.
    """
    heights, ndim = surface @ normal, surface.shape[1]
    lowest = int(heights.argmin())
    across = np.linalg.svd(normal[None])[2][1:]
    place = (surface - surface[lowest]) @ across.T / within
    near = (np.sum(place**2, axis=1) < 1) & (heights < heights[lowest] + within)
    upper = np.triu_indices(ndim - 1)
    if np.count_nonzero(near) < 3 * (ndim + len(upper[0])):
        return float(heights[lowest])
    place = place[near]
    terms = np.concatenate([np.ones((len(place), 1)), place, place[:, upper[0]] * place[:, upper[1]]], axis=1)
    fit = np.linalg.lstsq(terms, heights[near], rcond=None)[0]
    slope, bend = fit[1:ndim], np.zeros((ndim - 1, ndim - 1))
    np.add.at(bend, upper, fit[ndim:])
    bend = bend + bend.T
    if np.linalg.eigvalsh(bend).min() <= 0:
        return float(heights[lowest])
    vertex = -np.linalg.solve(bend, slope)
    return float(fit[0] + slope @ vertex / 2) if np.linalg.norm(vertex) < 1 else float(heights[lowest])


def pixel_along(normal: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Size of a pixel along unit vectors; shape (..., ndim) gives (...)."""
    return np.sqrt(np.sum((np.asarray(normal) * np.asarray(spacing, float)) ** 2, axis=-1))


@dataclass(frozen=True)
class Outline:
    """One ordered boundary of a 2-D mask.

    Parameters
    ----------
    position : ndarray of float, shape (N, 2)
        Physical coordinates (y, x) after smoothing; the last vertex of a closed outline is not repeated.
    normal : ndarray of float, shape (N, 2)
        Outward unit normals.
    weight : ndarray of float, shape (N,)
        Arc length that each vertex stands for.
    inner, outer : ndarray of int, shape (N, 2)
        The pixels on either side of each vertex.
    closed : bool
        False where the frame cuts the outline.
    """

    position: np.ndarray
    normal: np.ndarray
    weight: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    closed: bool


def outlines(mask: np.ndarray, spacing: Sequence[float], *, sigma: float = 3.0) -> list[Outline]:
    """Ordered outlines of a 2-D mask through its crack points, smoothed along themselves.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        Diagonal neighbours count as connected.
    spacing : sequence of float
        Pixel size (y, x).
    sigma : float
        Smoothing along the outline in vertices (about 0.8 px each).

    Notes
    -----
    The kernel is ``2 G - G * G``: a Gaussian alone pulls a curve of radius R inwards by ``sigma**2 / 2R``, which is
    0.2 px at R = 20 px; the second term cancels that to fourth order.
    """
    scale = np.asarray(spacing, float)
    found: list[Outline] = []
    if min(mask.shape) < 2:  # no line runs between the pixels of a single row
        return found
    for vertices in find_contours(mask.astype(np.uint8), 0.5, fully_connected="high"):
        closed = bool(np.all(vertices[0] == vertices[-1]))
        if closed:
            vertices = vertices[:-1]
        if len(vertices) < 3:
            continue
        low, high = np.floor(vertices).astype(int), np.ceil(vertices).astype(int)
        low_inside = mask[tuple(low.T)][:, None]
        smooth = smooth_path(vertices, sigma=sigma, closed=closed) * scale
        tangent = _along(smooth, closed)
        length = np.hypot(tangent[:, 0], tangent[:, 1])
        tangent = tangent / np.where(length > 0, length, 1)[:, None]
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        step = (np.where(low_inside, high, low) - np.where(low_inside, low, high)) * scale
        if np.sum(normal * step) < 0:
            normal = -normal
        found.append(
            Outline(
                smooth, normal, length, np.where(low_inside, low, high), np.where(low_inside, high, low), closed=closed
            )
        )
    return found


def outline_roughness(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Standard deviation of an outline about its own course, in units of the spacing.

    Parameters
    ----------
    mask : ndarray of bool, shape ([Z,] Y, X)
        One object.
    spacing : sequence of float

    Notes
    -----
    Distance of the crack points, along the normal, from the outline smoothed over 8 px to either side, without what
    the digitisation of a smooth outline has (0.29 px, in quadrature). A median, so that tips and forks, which smoothing
    moves, do not count. Outlines that wander by 0.7 px read 0.68 px where that is correlated over 1 px, 0.56 px over
    2 px and 0.4 px over 4 px: longer waves cannot be told from the shape. Smooth ones read 0.15 to 0.2 px. 0 where no
    outline is long enough.

    Of a volume slices along all three axes are looked at, and of those the outlines that run along branches. Smoothing
    shrinks what bends (smooth branches of 9 px read 2 px): the distance is taken from its own mean over that stretch,
    and what smooth branches of 5 to 12 px still read so (0.53 px) is taken off. They read 0 to 0.3 px then, those that
    wander by 0.7 px over 2 px 0.4 to 0.7 px.
    """
    if mask.ndim == 3:
        return _roughness_of_volume(mask, spacing)
    scale = np.asarray(spacing, float)
    outlines = find_contours(np.pad(mask, 1).astype(np.uint8), 0.5, fully_connected="high") if mask.any() else ()
    courses = (vertices[:-1] for vertices in outlines)
    left = [_off_course(c, COURSE_VERTICES, scale, closed=True) for c in courses if len(c) >= SHORTEST_OUTLINE]
    return _wander(left, DIGITISATION_PX * math.sqrt(math.prod(scale)))


def _roughness_of_volume(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """`outline_roughness` of an object in 3-D, from some slices along each axis."""
    left = []
    for axis in range(3):
        planes, scale = np.moveaxis(mask, axis, 0), np.delete(np.asarray(spacing, float), axis)
        for index in np.unique(np.linspace(0, len(planes) - 1, WALL_SLICES).round().astype(int)):
            plane = np.pad(planes[index], 1).astype(np.uint8)
            for vertices in find_contours(plane, 0.5, fully_connected="high") if plane.any() else ():
                if len(vertices) > SHORTEST_OUTLINE:
                    off = _off_course(vertices[:-1], COURSE_VERTICES, scale, closed=True)
                    left.append(off - ndimage.gaussian_filter1d(off, COURSE_VERTICES, mode="wrap"))
    pixel = math.prod(spacing) ** (1 / 3)
    return _wander(left, SMOOTH_BRANCH_PX * pixel)


def wall_roughness_px(phase: np.ndarray, spacing: Sequence[float]) -> float:
    """`outline_roughness` of the walls inside of a frame, in pixels, from some slices of a volume.

    Parameters
    ----------
    phase : ndarray of bool, shape ([Z,] Y, X)
        What the frame cuts is no wall.
    spacing : sequence of float

    Notes
    -----
    The course is an outline smoothed over 5 px: grains of 7 px radius, digitised exactly, read 0.01 px (0.9 px where it
    is smoothed over 8 px). Walls that wander by 0.7 px, correlated over 2 px, read 0.4 px.
    """
    scale = np.asarray(spacing, float)[-2:]
    planes, left = phase.reshape(-1, *phase.shape[-2:]), []
    for index in np.unique(np.linspace(0, len(planes) - 1, WALL_SLICES).round().astype(int)):
        if min(planes.shape[1:]) < 2:
            break
        for vertices in find_contours(planes[index].astype(np.uint8), 0.5, fully_connected="high"):
            closed = bool(np.all(vertices[0] == vertices[-1]))
            course = vertices[:-1] if closed else vertices
            if len(course) >= SHORTEST_OUTLINE:
                left.append(_off_course(course, WALL_VERTICES, scale, closed=closed))
    pixel = math.sqrt(math.prod(scale))
    return _wander(left, DIGITISATION_PX * pixel) / pixel


def _off_course(course: np.ndarray, sigma: float, scale: np.ndarray, *, closed: bool) -> np.ndarray:
    """Distance of the vertices of an outline, along the normal, from itself after smoothing."""
    smooth = smooth_path(course, sigma=sigma, closed=closed) * scale
    tangent = _along(smooth, closed=closed)
    length = np.hypot(*tangent.T)
    off = course * scale - smooth
    return np.asarray((off[:, 1] * tangent[:, 0] - off[:, 0] * tangent[:, 1]) / np.where(length > 0, length, 1))


def _wander(left: list[np.ndarray], floor: float) -> float:
    """Standard deviation of distances from a course, less what smooth ones have; 0 without any."""
    if not left:
        return 0.0
    # The median of the absolute value of a normal variable is 0.674 of its standard deviation.
    wander = float(np.median(np.abs(np.concatenate(left)))) / 0.674
    return math.sqrt(max(wander**2 - floor**2, 0.0))


def smooth_path(path: np.ndarray, *, sigma: float, closed: bool = False, shrink_free: bool = True) -> np.ndarray:
    """Smooth an ordered path of shape (N, ndim) along itself; the ends of an open path stay where they are."""
    if closed:
        blur = ndimage.gaussian_filter1d(path, sigma, axis=0, mode="wrap")
        return 2 * blur - ndimage.gaussian_filter1d(blur, sigma, axis=0, mode="wrap") if shrink_free else blur
    # Point reflection at both ends keeps them fixed.
    pad = min(len(path) - 1, int(np.ceil(8 * sigma)))
    padded = np.concatenate([2 * path[0] - path[pad:0:-1], path, 2 * path[-1] - path[-2 : -pad - 2 : -1]])
    blur = ndimage.gaussian_filter1d(padded, sigma, axis=0, mode="nearest")
    if shrink_free:
        blur = 2 * blur - ndimage.gaussian_filter1d(blur, sigma, axis=0, mode="nearest")
    smooth = blur[pad : pad + len(path)]
    # A path shorter than the kernel has too little to reflect.
    smooth[0], smooth[-1] = path[0], path[-1]
    return smooth


def _along(path: np.ndarray, closed: bool) -> np.ndarray:
    """Central differences along a path, half a step at the ends of an open one."""
    if closed:
        return (np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)) / 2
    tangent = np.empty_like(path)
    tangent[1:-1] = (path[2:] - path[:-2]) / 2
    tangent[0], tangent[-1] = (path[1] - path[0]) / 2, (path[-1] - path[-2]) / 2
    return tangent
