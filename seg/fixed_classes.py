"""Classes that stay where they are in a recording: what a model finds of them elsewhere, later, is something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from seg.slabs import Frame

FIRST_FRAMES = 3
"""Where a fixed class is, is what most of so many first frames say."""
_SHARE_MOVED, _NEAR_PX, _THICK_PX = 0.5, 8, 5
# A band between the fixed class and what lies on it is as near to both, and they lie on opposite sides (cosine).
_BAND_PX, _OPPOSITE = 3, -0.75


def with_fixed_classes(
    read: Callable[[int], Frame], n_frames: int, fixed: Sequence[tuple[int, int]], counts: dict[int, int]
) -> Callable[[int], Frame]:
    """Frames in which fixed classes are where they were at first, and nowhere else.

    Parameters
    ----------
    read : callable
        Frame number -> labels, and where they are certain (passed on).
    n_frames : int
        Of a recording with fewer than twice `FIRST_FRAMES` nothing is changed.
    fixed : sequence of (int, int)
        Label values of a class that neither grows, shrinks nor moves, and of what lies on it.
    counts : dict of int to int
        Gets, for every frame that is asked for, however often, the pixels that changed; -1 where the class seems to
        have moved.

    Returns
    -------
    callable
        As `read`.

    Notes
    -----
    Metal that looks like its support is told from it by time alone: the support was there before. Where most of the
    first frames show neither, what of the fixed class is five pixels thick and hangs together with what lies on it
    becomes that; so does a band of three pixels between it and the fixed class as that was at first, where the network
    puts the edge too high. Other thin parts are edges that waver, and what stands alone is left to the network. Where
    most of the first frames show it, what lies on it becomes the class.
    A frame in which the class has gone beyond its first edge along more than half of that edge, with neither above it,
    is left as it is: the recording drifts, and has to be aligned first.
    """
    if not fixed or n_frames < 2 * FIRST_FRAMES:
        return read
    first = [read(index)[0] for index in range(FIRST_FRAMES)]
    places = []
    for value, other in fixed:
        there = sum((labels == value).astype(np.uint8) for labels in first) > FIRST_FRAMES / 2
        covered = sum((labels == other).astype(np.uint8) for labels in first) > FIRST_FRAMES / 2
        # The pixels next to its edge waver; those beyond say whether all of it has moved.
        beyond = ndimage.binary_dilation(there, iterations=4) & ~ndimage.binary_dilation(there, iterations=2)
        places.append((value, other, there, ~there & ~covered, beyond, _band(there)))

    def frame(index: int) -> Frame:
        labels, sure = read(index)
        changed = labels.copy()
        for value, other, there, elsewhere, beyond, band in places:
            outside = (labels == value) & elsewhere
            past, most = outside & beyond, _SHARE_MOVED * np.count_nonzero(beyond)
            if np.count_nonzero(past) > most:
                # Under metal the open is far away; next to a support that has moved it begins at once.
                solid = np.isin(labels, (value, other))
                if np.count_nonzero(past & (ndimage.distance_transform_edt(solid) <= _NEAR_PX)) > most:
                    counts[index] = -1
                    return labels, sure
            metal = labels == other
            changed[_on_metal(outside, metal) | _under_metal(outside, metal, band)] = other
            changed[(labels == other) & there] = value
        counts[index] = int(np.count_nonzero(changed != labels))
        return changed, sure

    return frame


def _on_metal(outside: np.ndarray, metal: np.ndarray) -> np.ndarray:
    """The thick parts of a region that hang together with metal, and what of the region is next to them."""
    thick = ndimage.binary_opening(outside, structure=np.ones((_THICK_PX,) * outside.ndim))
    # A flat edge of metal ends in a wedge thinner than that: it is taken along as far as it may reach.
    return np.asarray(ndimage.binary_dilation(_hanging(thick, metal), iterations=_NEAR_PX, mask=outside))


def _band(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels outside a region and near it, shape (ndim, N), and the ways from them to it as unit vectors."""
    if not there.any():
        return np.empty((there.ndim, 0), int), np.empty((there.ndim, 0))
    distance, nearest = ndimage.distance_transform_edt(~there, return_indices=True)
    at = np.stack(np.nonzero((distance <= _BAND_PX) & ~there))
    return at, (nearest[:, *at] - at) / distance[*at]


def _under_metal(outside: np.ndarray, metal: np.ndarray, band: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What of a region is a thin band with metal on one side and the fixed class on the other, and touches metal."""
    under, (at, below) = np.zeros_like(outside), band
    within = outside[*at]
    if not (within.any() and metal.any()):
        return under
    at, below = at[:, within], below[:, within]
    distance, nearest = ndimage.distance_transform_edt(~metal, return_indices=True)
    above = (nearest[:, *at] - at) / distance[*at]
    # Between two nuclei metal is beside, not above.
    under[*at] = (distance[*at] <= _BAND_PX) & ((above * below).sum(axis=0) < _OPPOSITE)
    return _hanging(under, metal)


def _hanging(region: np.ndarray, metal: np.ndarray) -> np.ndarray:
    """The parts of a region that hang together with metal."""
    parts, n = ndimage.label(region | metal)
    joined = np.zeros(n + 1, bool)
    joined[np.unique(parts[metal])] = True
    return np.asarray(region & joined[parts])
