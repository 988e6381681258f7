"""How far metal has come through a separator: penetration depth, and whether it connects both electrodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seg.metrics.dendrite_front import SIDES, opposite_side, side_of_frame
from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX, crack_points, pixel_along
from seg.uncertainty import BLUR_PX, OUTLINE_OFFSET_PX

# The face of an electrode is looked at so far around the foot of the deepest metal: bumps farther off come no nearer.
FACE_PX = 20.0
# A tip of a larger radius loses less than a fifth of a pixel to blur.
WIDEST_TIP_PX = 12


@dataclass(frozen=True)
class Passage:
    """A separator between two electrodes, of which the far one may lie outside of the frame.

    Parameters
    ----------
    electrode : ndarray of bool, shape ([Z,] Y, X)
        The near electrode, from which metal grows.
    counter : ndarray of bool
        The far electrode, as far as the frame shows it.
    side : str
        The side of the frame where the far electrode lies.
    thickness : float
        Of the separator, along the axis between the electrodes.
    """

    electrode: np.ndarray
    counter: np.ndarray
    side: str
    thickness: float

    @property
    def far(self) -> np.ndarray:
        """What counts as the other side: the far electrode, or the side of the frame towards it."""
        return self.counter | side_of_frame(self.electrode.shape, self.side)


def find_passage(
    frame: Frame, *, separator_classes: Sequence[str], electrode_classes: Sequence[str],
    metal_classes: Sequence[str] = (),
) -> Passage | None:  # fmt: skip
    """Where metal has to go; None without a separator and an electrode on it.

    Notes
    -----
    The near electrode is the body of `electrode_classes` that most pixels of `metal_classes` stand on; where none
    stands on any, that with the most pixels on the separator. The way leads along
    the axis of the frame on which their centres are farthest apart. Bodies of the same classes beyond the middle of
    the separator are the far electrode.
    """
    separator = frame.mask([c for c in separator_classes if c in frame.schema.names])
    metal = frame.mask([c for c in electrode_classes if c in frame.schema.names])
    if not separator.any() or not metal.any():
        return None
    bodies, n = ndimage.label(metal, np.ones((3,) * metal.ndim))
    touching = np.bincount(bodies[ndimage.binary_dilation(separator)], minlength=n + 1)
    touching[0] = 0
    if not touching.any():
        return None
    inside = frame.mask([c for c in metal_classes if c in frame.schema.names and c not in electrode_classes])
    stood_on = np.bincount(bodies[ndimage.binary_dilation(inside)], minlength=n + 1) * (touching > 0)
    electrode = bodies == int((stood_on if stood_on.any() else touching).argmax())
    centres = [np.array([c.mean() for c in np.nonzero(mask)]) for mask in (electrode, separator)]
    way = (centres[1] - centres[0]) * np.asarray(frame.scale.spacing)
    axis = int(np.abs(way).argmax())
    end = -1 if way[axis] > 0 else 0
    side = next(name for name, (k, which) in SIDES.items() if k % metal.ndim == axis and which == end
                and -k <= metal.ndim)  # fmt: skip
    others = ndimage.center_of_mass(metal, bodies, range(1, n + 1))
    sign = 1 if end else -1
    beyond = [k for k, centre in enumerate(others, start=1) if sign * (centre[axis] - centres[1][axis]) > 0]
    counter = np.isin(bodies, beyond) & ~electrode
    extent = np.count_nonzero(separator, axis=axis)
    thickness = float(np.median(extent[extent > 0])) * frame.scale.spacing[axis]
    return Passage(electrode, counter, side, thickness)


@dataclass(frozen=True)
class Penetration:
    """How deep metal has come, and what a mask tells of how sure that is; lengths in the unit of the spacing.

    Parameters
    ----------
    depth : float
        From the face of the electrode to the outer face of the farthest pixel; 0 for no metal, NaN without electrode.
    pixel : float
        Size of a pixel along the way.
    bump : float
        How far the electrode stands out, where the way begins, over its own mean face.
    roughness : float
        Standard deviation of that face, without what digitisation makes of a smooth one.
    tip_radius : float
        Of the ball that fits into the tip; NaN without one.
    over_gaps : float
        The depth with what gaps of two pixels cut off.
    ndim : int
    way : tuple of float
        Unit vector from the electrode to the tip; empty without one.
    """

    depth: float
    pixel: float = math.nan
    bump: float = 0.0
    roughness: float = 0.0
    tip_radius: float = math.nan
    over_gaps: float = 0.0
    ndim: int = 3
    way: tuple[float, ...] = ()

    def interval(self) -> tuple[float, float]:
        """Bounds of the depth: 0, 0 where nothing has come in.

        Notes
        -----
        Both ends are digitised and may be off (`OUTLINE_OFFSET_PX`), and a tip wanders as the electrode does. Two
        errors have a side. The nearest bump of a rough electrode stands out towards the tip; and blur takes
        ``s**2 / 2`` times the sum of its curvatures from a tip, with s up to `BLUR_PX`. What pieces in front of the tip
        reach is in the interval where the gaps are of 2 px at most.
        """
        if not self.depth > 0:
            return self.depth, max(self.depth, self.over_gaps)
        ends = 1.96 * math.sqrt(2) * math.hypot(DIGITISATION_PX, OUTLINE_OFFSET_PX) * self.pixel
        either = math.hypot(ends, 1.96 * self.roughness)
        radius = max(self.tip_radius, self.pixel)
        blur = (self.ndim - 1) / 2 * (BLUR_PX * self.pixel) ** 2 / radius
        # Either may be nothing, or all of it: half of it with the spread of a uniform law.
        half, spread = (self.bump + blur) / 2, 1.96 * math.hypot(self.bump, blur) * DIGITISATION_PX
        above = half + math.hypot(either, spread)
        return max(self.depth - either, 0.0), max(self.depth, self.over_gaps) + above


def penetration(
    metal: np.ndarray, electrode: np.ndarray, *, grown: np.ndarray, spacing: Sequence[float]
) -> Penetration:  # fmt: skip
    """Greatest distance metal reaches from the electrode it is connected with.

    Parameters
    ----------
    metal, electrode : ndarray of bool, shape ([Z,] Y, X)
    grown : ndarray of bool, same shape
        The metal after its outline has moved out by a pixel, which closes gaps of two.
    spacing : sequence of float
    """
    if not electrode.any():
        return Penetration(math.nan)
    # From centre to centre, which is also from face to face.
    distance = ndimage.distance_transform_edt(~electrode, sampling=spacing)
    outside = metal & ~electrode
    connected = outside & _joined(metal | electrode, electrode)
    over_gaps = float(distance[outside & _joined(grown | electrode, electrode)].max(initial=0.0))
    if not connected.any():
        return Penetration(0.0, over_gaps=over_gaps)
    distance[~connected] = 0.0
    depth = float(distance.max())
    tip = np.unravel_index(int((distance >= depth * (1 - 1e-9)).argmax()), distance.shape)
    box = tuple(
        slice(max(int(i - depth / s) - 1, 0), int(i + depth / s) + 2) for i, s in zip(tip, spacing, strict=True)
    )
    away = sum(
        ((np.arange(n)[part] - i) * s).reshape([-1 if a == axis else 1 for a in range(metal.ndim)]) ** 2
        for axis, (n, part, i, s) in enumerate(zip(metal.shape, box, tip, spacing, strict=True))
    )
    reached = np.argwhere(electrode[box] & (away <= (depth * (1 + 1e-9)) ** 2))[0] + [part.start for part in box]
    return penetration_between(
        np.asarray(tip), reached, depth, over_gaps=over_gaps, spacing=spacing,
        electrode=lambda part: electrode[part], connected=lambda part: connected[part], shape=metal.shape,
    )  # fmt: skip


def _joined(body: np.ndarray, start: np.ndarray) -> np.ndarray:
    """What of a body is connected with a start; pixels that share a corner are."""
    bodies, n = ndimage.label(body, np.ones((3,) * body.ndim))
    reached = np.zeros(n + 1, bool)
    reached[bodies[start & body]] = True
    reached[0] = False
    return np.asarray(reached[bodies])


def penetration_between(
    tip: np.ndarray, foot: np.ndarray, depth: float, *, over_gaps: float, spacing: Sequence[float],
    shape: tuple[int, ...], electrode: Callable[[tuple[slice, ...]], np.ndarray],
    connected: Callable[[tuple[slice, ...]], np.ndarray],
) -> Penetration:  # fmt: skip
    """Look at both ends of a way.

    Parameters
    ----------
    tip, foot : ndarray of int, shape (ndim,)
        The farthest pixel of the metal, and the first of the electrode that is nearest to it.
    depth, over_gaps : float
    spacing : sequence of float
    shape : tuple of int
    electrode, connected : callable
        Cut a box out of the mask of the electrode, and of the metal connected with it.
    """
    scale = np.asarray(spacing, float)
    way = (tip - foot) * scale / depth
    pixel = float(pixel_along(way, scale))
    bump, roughness = _face(foot, way, pixel, (electrode, connected), shape, scale)
    box = _around(tip, np.full(len(shape), WIDEST_TIP_PX), shape)
    within = ndimage.distance_transform_edt(np.pad(connected(box), 1, mode="edge"), sampling=scale)
    within = within[(slice(1, -1),) * len(shape)]
    steps = np.indices(within.shape).reshape(len(shape), -1).T + [part.start for part in box] - tip
    from_tip = np.sqrt(np.sum((steps * scale) ** 2, axis=1)) + pixel / 2
    # The middle of a ball is as far from its surface as from its end, half as far at worst where bumps add to both.
    room = within.ravel() - pixel / 2
    inside = room >= 0.5 * from_tip
    radius = float(room[inside].max(initial=pixel / 2))
    return Penetration(depth, pixel, bump, roughness, radius, over_gaps, len(shape), tuple(way.tolist()))


def _face(
    foot: np.ndarray, way: np.ndarray, pixel: float,
    masks: tuple[Callable[[tuple[slice, ...]], np.ndarray], Callable[[tuple[slice, ...]], np.ndarray]],
    shape: tuple[int, ...], scale: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """How far the foot stands out over the paraboloid through the face around it, and how rough that face is."""
    ndim = len(shape)
    box = _around(foot, np.full(ndim, math.ceil(FACE_PX)), shape)
    # Metal may come from deep inside of the electrode: what it grows through is no face.
    solid, metal = (mask(box) for mask in masks)
    points = crack_points(solid, ~(solid | metal), scale.tolist(), origin=[part.start for part in box])
    points = points[points.direction @ (way / scale) > 0.3 * np.abs(way / scale).max()]
    offset = points.position - foot * scale
    heights, across = offset @ way, offset @ np.linalg.svd(way[None])[2][1:].T
    # What lies far below the foot belongs to another face.
    near = (np.sum(across**2, axis=1) < (FACE_PX * pixel) ** 2) & (np.abs(heights) < FACE_PX / 2 * pixel)
    heights, across = heights[near], across[near] / (FACE_PX * pixel)
    upper = np.triu_indices(ndim - 1)
    terms = np.concatenate([np.ones((len(across), 1)), across, across[:, upper[0]] * across[:, upper[1]]], axis=1)
    if len(terms) < 3 * terms.shape[1]:
        return 0.0, 0.0
    fit = np.linalg.lstsq(terms, heights, rcond=None)[0]
    wander = float(np.mean((heights - terms @ fit) ** 2))
    return max(pixel / 2 - float(fit[0]), 0.0), math.sqrt(max(wander - (DIGITISATION_PX * pixel) ** 2, 0.0))


def _around(place: np.ndarray, reach: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(max(int(i - r), 0), min(int(i + r) + 1, n)) for i, r, n in zip(place, reach, shape, strict=True))


def percolates(metal: np.ndarray, start: np.ndarray, end: np.ndarray, *, full: bool) -> bool:
    """Whether one body of metal reaches from one place to another.

    Parameters
    ----------
    metal, start, end : ndarray of bool, shape ([Z,] Y, X)
    full : bool
        Pixels that share an edge or a corner are connected (8, 26); else those that share a face (4, 6).
    """
    structure = ndimage.generate_binary_structure(metal.ndim, metal.ndim if full else 1)
    bodies, _ = ndimage.label(metal, structure)
    both = np.intersect1d(bodies[start & metal], bodies[end & metal])
    return bool((both > 0).any())


def lateral_border(shape: tuple[int, ...], side: str) -> np.ndarray:
    """Mark the borders of the frame that lie beside the way from one electrode to the other."""
    layer = np.zeros(shape, bool)
    for name, (axis, _) in SIDES.items():
        if -axis <= len(shape) and name not in (side, opposite_side(side)):
            layer |= side_of_frame(shape, name)
    return layer
