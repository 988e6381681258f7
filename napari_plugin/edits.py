"""Edits of label images as (indices, values), so that whoever holds the array can apply and undo them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from seg.errors import UsageError
from seg.labels import UNLABELLED
from seg.splitting import split_component


@dataclass(frozen=True)
class Edit:
    """New values for some pixels.

    Parameters
    ----------
    kind : str
        What was done, as the log calls it: ``stroke``, ``fill holes``, ...
    indices : tuple of ndarray of int, each shape (N,)
        One array per axis of the label array.
    values : ndarray of uint8 or wider, shape (N,)
    model : str
        Model or forest whose prediction the values are; empty for work by hand.
    """

    kind: str
    indices: tuple[np.ndarray, ...]
    values: np.ndarray
    model: str = ""

    @property
    def n_pixels(self) -> int:
        """Number of pixels that change."""
        return len(self.values)

    def at(self, leading: int | None) -> Edit:
        """The same edit of one frame as an edit of the whole array; None where the array is that frame."""
        if leading is None:
            return self
        return replace(self, indices=(np.full(self.n_pixels, leading, dtype=np.intp), *self.indices))


def changes(kind: str, before: np.ndarray, after: np.ndarray, *, model: str = "") -> Edit:
    """What turns one label image into another of the same shape."""
    indices = np.nonzero(before != after)
    return Edit(kind, indices, after[indices], model)


def joined(edits: Sequence[Edit]) -> Edit:
    """Several edits of one kind on different pixels as one, so that they are undone together."""
    first = edits[0]
    axes = range(len(first.indices))
    indices = tuple(np.concatenate([edit.indices[axis] for edit in edits]) for axis in axes)
    return Edit(first.kind, indices, np.concatenate([edit.values for edit in edits]), first.model)


# --- taking over a prediction ---------------------------------------------------------------------------------------


def accept(
    labels: np.ndarray,
    prediction: np.ndarray,
    *,
    model: str,
    classes: Collection[int] | None = None,
    where: np.ndarray | None = None,
    overwrite: bool = False,
) -> Edit:
    """Take over predicted classes as labels.

    Parameters
    ----------
    labels, prediction : ndarray of int, shape ([Z,] Y, X)
        Predicted 0 (not predicted) is never taken.
    model : str
        Goes into the log.
    classes : collection of int or None
        Label values to take; None: all.
    where : ndarray of bool or None
        Part of the frame to take.
    overwrite : bool
        Replace what is labelled; else hand-made labels stay.
    """
    taken = prediction != UNLABELLED
    if classes is not None:
        taken &= np.isin(prediction, list(classes))
    if where is not None:
        taken &= where
    if not overwrite:
        taken &= labels == UNLABELLED
    return changes("accept", labels, np.where(taken, prediction, labels).astype(labels.dtype), model=model)


def region_at(labels: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """Connected region (over edges and corners) of the class at `seed`; bool, empty where nothing is labelled there."""
    value = labels[tuple(seed)]
    if value == UNLABELLED:
        return np.zeros(labels.shape, bool)
    regions, _ = ndimage.label(labels == value, _full(labels.ndim))
    return np.asarray(regions == regions[tuple(seed)])


# --- proof-reading --------------------------------------------------------------------------------------------------


def fill_holes(labels: np.ndarray, value: int, *, max_px: int | None = None) -> Edit:
    """Give holes enclosed by one class that class.

    Parameters
    ----------
    labels : ndarray of int, shape ([Z,] Y, X)
    value : int
        The class.
    max_px : int or None
        Largest hole, in pixels; None: any. Holes are connected over edges; one that reaches the border is none.
    """

    def filled(part: np.ndarray) -> np.ndarray:
        mask = part == value
        holes = ndimage.binary_fill_holes(mask) & ~mask
        if max_px is not None:
            regions, n = ndimage.label(holes)
            sizes = np.bincount(regions.ravel(), minlength=n + 1)
            holes &= (sizes <= max_px)[regions]
        return np.where(holes, value, part)

    return changes("fill holes", labels, _by_labelled_planes(labels, filled))


def remove_specks(labels: np.ndarray, value: int, *, max_px: int, spacing: Sequence[float]) -> Edit:
    """Give regions of one class of at most `max_px` pixels the label of what is nearest around them."""
    mask = labels == value
    regions, n = ndimage.label(mask, _full(labels.ndim))
    sizes = np.bincount(regions.ravel(), minlength=n + 1)
    specks = mask & (sizes <= max_px)[regions]
    return changes("remove specks", labels, np.where(specks, surroundings(labels, specks, spacing), labels))


def smooth(labels: np.ndarray, value: int, *, sigma_px: float, spacing: Sequence[float]) -> Edit:
    """Smooth the outline of one class.

    Parameters
    ----------
    labels : ndarray of int, shape ([Z,] Y, X)
    value : int
    sigma_px : float
        Of a Gaussian, in pixels of the finest axis; the same physical length along all axes.
    spacing : sequence of float

    Notes
    -----
    The smoothed mask is cut at one half. Pixels it gains must be labelled (strokes do not flow into what nobody has
    looked at), pixels it loses get what is nearest around the class.
    """

    def smoothed(part: np.ndarray) -> np.ndarray:
        sizes = spacing[-part.ndim :]
        mask = part == value
        sigma = [sigma_px * min(sizes) / size for size in sizes]
        kept = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest") > 0.5
        gained = kept & ~mask & (part != UNLABELLED)
        return np.where(gained, value, np.where(mask & ~kept, surroundings(part, mask, sizes), part))

    return changes("smooth", labels, _by_labelled_planes(labels, smoothed))


def _by_labelled_planes(labels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Labels after `change` of an image, or of each run of planes of a volume that hold labels.

    A plane between two without labels is changed as an image: that nobody has drawn beside it does not mean that there
    is nothing. As a volume it would be smoothed away, and none of its holes would be closed.
    """
    if labels.ndim == 2:
        return change(labels).astype(labels.dtype)
    after = labels.copy()
    runs, _ = ndimage.label(labels.any(axis=(1, 2)))
    for (run,) in ndimage.find_objects(runs):
        where = run.start if run.stop - run.start == 1 else run
        after[where] = change(labels[where])
    return after


def split(labels: np.ndarray, seed: Sequence[int], *, spacing: Sequence[float], min_diameter_px: float = 2.0) -> Edit:
    """Cut the region at `seed` at its necks, by the rule that counts touching objects; the cut is one pixel wide.

    Raises
    ------
    UsageError
        Where nothing is labelled at `seed`, or the region has no neck.
    """
    region = region_at(labels, seed)
    if not region.any():
        raise UsageError("There is no label under the cursor; point at the region to split.")
    box = ndimage.find_objects(region.astype(np.uint8))[0]
    # What is drawn in one plane of a volume has its necks in that plane.
    flat = 0 if labels.ndim == 3 and box[0].stop - box[0].start == 1 else ...
    sizes = tuple(spacing[1:] if flat == 0 else spacing)
    pixel = float(np.prod(sizes) ** (1 / len(sizes)))
    parts = split_component(region[box][flat], spacing=sizes, min_diameter=min_diameter_px * pixel)
    parts = parts.reshape(region[box].shape)
    if parts.max() < 2:
        raise UsageError("This region has no neck to cut at; erase a line through it with the brush instead.")
    cut = np.zeros(labels.shape, bool)
    # The pixels of the later part that touch an earlier one, over corners too: what remains is apart.
    lowest = ndimage.minimum_filter(np.where(parts > 0, parts, parts.max() + 1), footprint=_full(labels.ndim))
    cut[box] = region[box] & (lowest < parts)
    return changes("split", labels, np.where(cut, surroundings(labels, region, spacing), labels))


def merge(labels: np.ndarray, seed: Sequence[int], other: Sequence[int], *, spacing: Sequence[float]) -> Edit:
    """Join two regions of one class by filling the gap between them.

    Raises
    ------
    UsageError
        Where the seeds are not on two regions of one class.
    """
    first, second = region_at(labels, seed), region_at(labels, other)
    value = labels[tuple(seed)]
    if not first.any() or value != labels[tuple(other)] or first[tuple(other)]:
        raise UsageError("Merging needs two separate regions of the same class; point at one, then at the other.")
    to_first = ndimage.distance_transform_edt(~first, sampling=spacing)
    to_second = ndimage.distance_transform_edt(~second, sampling=spacing)
    # Pixels from which both are no further than the gap and a pixel: the lens between the nearest sides.
    reach = float((to_first[second]).min()) + max(spacing)
    bridge = to_first + to_second <= reach
    bridge &= ~(first | second)
    return changes("merge", labels, np.where(bridge, value, labels).astype(labels.dtype))


def surroundings(labels: np.ndarray, region: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The nearest label outside a region, for every pixel; unlabelled where there is nothing else."""
    if region.all():
        return np.zeros_like(labels)
    nearest = ndimage.distance_transform_edt(
        region, sampling=tuple(spacing), return_distances=False, return_indices=True
    )
    return np.asarray(labels[tuple(nearest)])


# --- over time ------------------------------------------------------------------------------------------------------


def between(before: np.ndarray, after: np.ndarray, share: float, *, spacing: Sequence[float]) -> np.ndarray:
    """Labels between two key frames.

    Parameters
    ----------
    before, after : ndarray of int, shape ([Z,] Y, X)
    share : float
        0 gives `before`, 1 gives `after`.
    spacing : sequence of float

    Returns
    -------
    ndarray, type of `before`
        Every class and the unlabelled rest have a signed distance to their outline in both frames; a pixel goes to the
        class whose distances, mixed by `share`, reach deepest. An outline thus moves evenly from one place to the
        other, and an object that only one frame has grows from, or shrinks to, its middle.
    """
    best = np.full(before.shape, -np.inf)
    found = np.zeros_like(before)
    for value in np.union1d(np.unique(before), np.unique(after)):
        depth = (1 - share) * _depth(before == value, spacing) + share * _depth(after == value, spacing)
        deeper = depth > best
        best[deeper], found[deeper] = depth[deeper], value
    return found


def _depth(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance to the outline, positive inside; where there is none, the extent of the frame."""
    if mask.all() or not mask.any():
        extent = float(np.linalg.norm(np.multiply(mask.shape, spacing)))
        return np.full(mask.shape, extent if mask.any() else -extent)
    # Pixel centres lie half a pixel from an outline that runs between pixels.
    half = min(spacing) / 2
    inside = ndimage.distance_transform_edt(mask, sampling=tuple(spacing))
    outside = ndimage.distance_transform_edt(~mask, sampling=tuple(spacing))
    return np.asarray(np.where(mask, inside - half, half - outside))


def _full(ndim: int) -> np.ndarray:
    return np.ones((3,) * ndim, bool)
