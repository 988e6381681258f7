"""How far metal has come through a separator: penetration depth, and whether it connects both electrodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seg.metrics.dendrite_front import SIDES, opposite_side, side_of_frame
from seg.metrics.frame import Frame


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


def penetration_depth(metal: np.ndarray, electrode: np.ndarray, *, spacing: Sequence[float]) -> float:
    """Greatest distance metal reaches from the electrode it is connected with.

    Parameters
    ----------
    metal, electrode : ndarray of bool, shape ([Z,] Y, X)
    spacing : sequence of float

    Returns
    -------
    float
        From the face of the electrode to the outer face of the farthest pixel; 0 for no metal, NaN without electrode.
    """
    if not electrode.any():
        return math.nan
    bodies, _ = ndimage.label(metal | electrode, np.ones((3,) * metal.ndim))
    connected = np.isin(bodies, np.unique(bodies[electrode])) & metal & ~electrode
    if not connected.any():
        return 0.0
    # From centre to centre, which is also from face to face.
    return float(ndimage.distance_transform_edt(~electrode, sampling=spacing)[connected].max())


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
