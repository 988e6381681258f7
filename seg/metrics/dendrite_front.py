"""Height above what metal grows from: the reference surface, the growth front over it, how full each height is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.table import Measurement
from seg.uncertainty import OUTLINE_OFFSET_PX

SIDES = {"top": (-2, 0), "bottom": (-2, -1), "left": (-1, 0), "right": (-1, -1), "front": (-3, 0), "back": (-3, -1)}
# The columns under a few tips do not move this quantile; those tips pull the median up by some per cent.
ROBUST_SHARE = 0.30


@dataclass(frozen=True)
class Reference:
    """The surface that heights are measured from.

    Parameters
    ----------
    name : str
        ``"substrate"``, a side of the frame, or nothing where there is none.
    height : ndarray of float, shape ([Z,] Y, X)
        Distance of the outer face of each pixel from the surface; 0 in the reference itself.
    column : ndarray of int, shape ([Z,] Y, X)
        The place of the surface that each pixel is nearest to: its column.
    """

    name: str
    height: np.ndarray
    column: np.ndarray


def side_of_frame(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Mark the outermost layer of pixels at one side of the frame."""
    axis, end = SIDES[name]
    layer = np.zeros(shape, bool)
    np.moveaxis(layer, axis, 0)[end] = True
    return layer


def opposite_side(name: str) -> str:
    """Name the side of the frame across from a side."""
    axis, end = SIDES[name]
    return next(side for side, (other, far) in SIDES.items() if other == axis and far != end)


def border_of_frame(shape: tuple[int, ...]) -> np.ndarray:
    """Mark the outermost pixels of the frame on all sides."""
    layer = np.ones(shape, bool)
    layer[(slice(1, -1),) * len(shape)] = False
    return layer


def find_reference(
    frame: Frame, mask: np.ndarray, reference: str, reference_classes: Sequence[str]
) -> Reference | None:  # fmt: skip
    """The surface under some metal; None where nothing says where it is.

    Parameters
    ----------
    frame : Frame
    mask : ndarray of bool
        The metal.
    reference : str
        ``"substrate"`` (the pixels of `reference_classes`), a side of the frame (``"top"``, ``"bottom"``, ``"left"``,
        ``"right"``; ``"front"``, ``"back"`` along z), or ``"auto"``: the substrate where one is labelled, else the
        side that holds more than two thirds of the metal at the border, if the opposite side holds none.
    reference_classes : sequence of str
    """
    sides = [s for s, (axis, _) in SIDES.items() if -axis <= mask.ndim]
    if reference not in ("auto", "substrate", *sides):
        raise ValueError(f"reference={reference!r}; expected 'auto', 'substrate' or a side: {', '.join(sides)}.")
    if reference in sides:
        return _from_side(frame, reference)
    base = frame.mask([c for c in reference_classes if c in frame.schema.names])
    if base.any():
        # From centre to centre, which is also from the upper face of the base to the upper face of the pixel.
        height, nearest = ndimage.distance_transform_edt(~base, sampling=frame.scale.spacing, return_indices=True)
        return Reference("substrate", height, np.ravel_multi_index(tuple(nearest), base.shape))
    if reference == "auto":
        touched = {s: int((mask & side_of_frame(mask.shape, s)).sum()) for s in sides}
        best = max(touched, key=lambda s: touched[s])
        # Metal cut by two opposite sides of the view says nothing about where it grew from.
        if touched[best] > 2 / 3 * sum(touched.values()) and not touched[opposite_side(best)]:
            return _from_side(frame, best)
    return None


def _from_side(frame: Frame, name: str) -> Reference:
    shape, (axis, end) = frame.labels.shape, SIDES[name]
    axis %= len(shape)
    steps = np.arange(1, shape[axis] + 1, dtype=float) * frame.scale.spacing[axis]
    along = [1] * len(shape)
    along[axis] = -1
    height = np.broadcast_to((steps if end == 0 else steps[::-1]).reshape(along), shape)
    across = tuple(1 if a == axis else n for a, n in enumerate(shape))
    return Reference(name, height, np.broadcast_to(np.arange(math.prod(across)).reshape(across), shape))


def measure_front(
    frame: Frame, reference: Reference | None, *, classes: Sequence[str], height_bands: int
) -> list[Measurement]:
    """Height of the growth front of a frame, and the share of every height that metal fills.

    Parameters
    ----------
    frame : Frame
    reference : Reference or None
    classes : sequence of str
        The metal, moss and dendrites together.
    height_bands : int
        Layers of equal thickness between the reference and the farthest valid pixel; 0: none.

    Returns
    -------
    list of Measurement
        ``front_height``: over the columns of the reference surface, the height of the highest metal that is connected
        to the reference (the whole width of the frame counts, columns without metal as 0): ``side`` is ``mean``,
        ``30 %`` (which a few tips do not pull up) or ``highest``. ``covered_fraction`` with the layer in ``side``.
        NaN with ``no-credible-baseline`` where there is no reference.
    """
    known = [name for name in classes if name in frame.schema.names]
    metal = frame.mask(known)
    row = partial(Measurement, class_name=";".join(known), frame=frame.index, time_s=frame.time_s)
    um = frame.scale.unit("um")
    if reference is None:
        missing = (*frame.scale.flags, "no-credible-baseline")
        return [row("front_height", math.nan, um, side="mean", method="no reference", flags=missing)]
    free = frame.valid & (reference.height > 0)
    # Numbered columns: those in which the frame shows anything.
    columns, place = np.unique(reference.column[free], return_inverse=True)
    regions, _ = ndimage.label(metal, structure=np.ones((3,) * metal.ndim))
    if reference.name == "substrate":
        grown_from = ndimage.binary_dilation(reference.height == 0, np.ones((3,) * metal.ndim))
    else:
        grown_from = side_of_frame(metal.shape, reference.name)
    rooted = np.zeros(regions.max() + 1, bool)
    rooted[np.unique(regions[grown_from])] = True
    rooted[0] = False
    top = np.zeros(len(columns))
    np.maximum.at(top, place, np.where(rooted[regions[free]], reference.height[free], 0.0))
    pixel = frame.scale.pixel ** (1 / metal.ndim)
    # A side of the frame is where it is; a substrate has an outline of its own.
    n_faces = 1 if reference.name in SIDES else 2
    edge = 1.96 * pixel * math.sqrt(n_faces) * math.hypot(DIGITISATION_PX, OUTLINE_OFFSET_PX)
    method = f"connected metal over {reference.name}, {{}} of the columns; interval: mask edges"
    flags = (*frame.scale.flags, *(() if len(columns) else ("no-credible-baseline",)))
    sides: dict[str, float] = {"mean": math.nan}
    if len(top):
        sides = {"mean": float(top.mean()), "30 %": float(np.quantile(top, ROBUST_SHARE)), "highest": float(top.max())}
    rows = [
        # Where there is no metal at all nothing can be off at its edge.
        row("front_height", value, um, low=max(value - edge, 0.0), high=value + edge if value else value, side=side,
            n=len(columns), method=method.format(side), flags=flags)
        for side, value in sides.items()
    ]  # fmt: skip
    return rows + _bands(frame, reference, metal, free, height_bands, row)


def _bands(
    frame: Frame, reference: Reference, metal: np.ndarray, free: np.ndarray, n_bands: int, row: partial[Measurement]
) -> list[Measurement]:
    """Share of the valid pixels of each layer that is metal."""
    if not n_bands or not free.any():
        return []
    # Layers that do not depend on the metal, so that those of all frames of a series are the same.
    edges = np.linspace(0, float(reference.height[free].max()), n_bands + 1)
    # A pixel counts where its middle lies.
    middle = reference.height[free] - 0.5 * frame.scale.pixel ** (1 / metal.ndim)
    layer = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, n_bands - 1)
    there = np.bincount(layer, minlength=n_bands)
    filled = np.bincount(layer, weights=metal[free], minlength=n_bands)
    um = frame.scale.unit("um")
    return [
        row("covered_fraction", filled[k] / there[k] if there[k] else math.nan, "1", n=int(there[k]),
            side=f"height {edges[k]:.3g} to {edges[k + 1]:.3g} {um}",
            method=f"metal in the valid pixels of that distance from {reference.name}", flags=frame.scale.flags)
        for k in range(n_bands)
    ]  # fmt: skip
