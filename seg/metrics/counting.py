"""How many objects there are, per area or volume, without the bias of the frame's edges.

Notes
-----
Counting rule. Counting every visible object reads too high, leaving out those that the frame cuts reads too low. An
object is counted unless the frame, or a region without valid labels, lies directly above its topmost row or directly
left of its leftmost column (in a volume also directly before its first plane). For the frame itself this is the
two-edge rule: objects that touch the top or left edge are left out, those that touch only the bottom or right edge
are counted. Around artefacts it excludes as much area as the artefact takes out of the valid area, and an object that
a scratch or a line of text cuts in two is counted once. As a whole row and column of pixels along those edges cannot
hold a first row or column of a counted object, densities refer to the valid pixels whose neighbours above and to the
left are valid too. The bias that is left for discs of radius r is about ``(1 - pi / 4) r^2 / area`` of the frame.

With a guard band at least as wide as the largest object the associated-point rule is exact: an object is counted
where its top-left-most pixel lies inside of the band.

Objects under the detection limit are not counted; the row that gives the count is flagged when there were any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from seg.blocks import slabs
from seg.errors import UsageError
from seg.metrics.frame import Frame
from seg.metrics.overlap import miles_density
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.objects import ObjectPixels
from seg.uncertainty import overdispersed_interval

MIN_FOR_EXCESS = 18  # objects: two in each of nine parts of the frame


@dataclass(frozen=True)
class Count:
    """Result of the counting rule.

    Parameters
    ----------
    counted : ndarray of bool, shape (n + 1,)
        By object id.
    below_limit : int
        Objects that only the detection limit left out.
    cut : int
        Objects that the rule left out because of an edge.
    reference_px : int
        Pixels of the valid area that the count refers to.
    rule : str
    """

    counted: np.ndarray
    below_limit: int
    cut: int
    reference_px: int
    rule: str

    @property
    def n(self) -> int:
        """Objects counted."""
        return int(self.counted.sum())


def count_objects(
    instances: np.ndarray,
    valid: np.ndarray,
    *,
    min_diameter_px: float = 0.0,
    guard_px: int = 0,
    pixels: ObjectPixels | None = None,
) -> Count:
    """Apply the counting rule of this module.

    Parameters
    ----------
    instances : ndarray of int, shape ([Z,] Y, X)
        Object ids, 0 = none.
    valid : ndarray of bool, shape of `instances`
    min_diameter_px : float
        Detection limit, as equivalent diameter.
    guard_px : int
        Width of the guard band on all sides; 0 = none, which takes the two-edge rule.
    pixels : ObjectPixels or None
        Those of `instances`, where they are at hand.

    Returns
    -------
    Count
    """
    pixels = pixels or ObjectPixels.of(instances)
    counted = pixels.counts > 0
    counted[0] = False
    if guard_px:
        inside = tuple(slice(guard_px, size - guard_px) for size in instances.shape)
        if any(size <= 2 * guard_px for size in instances.shape):
            raise UsageError(f"A guard band of {guard_px} px leaves nothing of a frame of {instances.shape} px.")
        at_home, seen = np.zeros((2, len(counted)), bool)
        reference_px = 0
        for slab in slabs(instances.shape, halo=0):
            window = np.zeros(instances[slab.owned].shape, bool)
            rows = slice(max(guard_px - slab.owned.start, 0),
                         max(instances.shape[0] - guard_px - slab.owned.start, 0))  # fmt: skip
            within = (rows, *inside[1:])
            window[within] = valid[slab.owned][within]
            reference_px += int(np.count_nonzero(window))
            # Pixels come in raster order: the first of each object is its associated point.
            ids, first = np.unique(instances[slab.owned], return_index=True)
            new = ~seen[ids]
            at_home[ids[new]] = window.ravel()[first[new]]
            seen[ids] = True
        counted &= at_home
        rule = f"associated point, guard band {guard_px} px"
    else:
        whole = bool(valid.all())
        # An axis of one pixel (a volume of one slice) has no edges to cut at.
        long = [axis for axis, size in enumerate(instances.shape) if size > 1]
        counted &= (pixels.lower[:, long] > 0).all(axis=1)
        if not whole:
            for axis in long:
                counted[_cut_before(instances, valid, axis, pixels)] = False
        reference_px, rule = 0, "two-edge rule"
        if whole:
            reference_px = math.prod(size - 1 if size > 1 else size for size in instances.shape)
        for slab in slabs(instances.shape) if not whole else ():
            seen = np.asarray(valid[slab.read])
            reference = seen.copy()
            for axis in long:
                ahead = np.moveaxis(reference, axis, 0)
                ahead[1:] &= np.moveaxis(seen, axis, 0)[:-1]
                if axis or slab.read.start == 0:
                    ahead[0] = False
            reference_px += int(np.count_nonzero(reference[slab.inner]))
    large = pixels.diameters_px >= min_diameter_px
    cut = int(np.count_nonzero(pixels.counts)) - int(counted.sum())
    return Count(counted & large, int((counted & ~large).sum()), cut, reference_px, rule)


def measure_frame(frame: Frame, *, guard_px: int = 0, overlap_from: float | None = None) -> list[Measurement]:
    """Count, density with exact Poisson interval, valid area and detection limit of one frame.

    Parameters
    ----------
    frame : Frame
        With instances.
    guard_px : int
        Width of the guard band; 0 takes the two-edge rule.
    overlap_from : float or None
        For domes seen from above that fell at random and lie over each other: where they cover this share of the
        valid area or more, a second row of ``areal_density`` by Miles' inversion; it and the rows of the count, which
        takes domes that overlap for one, are flagged ``overlapping``. Not where objects that touch were looked for
        and at most one in a hundred found: such objects keep apart.

    Returns
    -------
    list of Measurement
        ``object_count``; ``areal_density`` (2-D) or ``volume_density``; ``valid_area`` (of a volume: projected along
        z); ``detection_limit_diameter``. No objects is a count of 0 with an interval, flagged ``touches-border`` where
        the rule left out all there are; no valid area is NaN.
    """
    if frame.instances is None:
        raise ValueError("The counting group needs frame.instances; call label_objects first.")
    scale, valid, ndim = frame.scale, frame.valid, frame.labels.ndim
    count = count_objects(
        frame.instances, valid, min_diameter_px=frame.min_diameter_px, guard_px=guard_px, pixels=frame.pixels
    )
    row = partial(
        Measurement, class_name="+".join(frame.object_classes), frame=frame.index, time_s=frame.time_s
    )  # fmt: skip
    base = valid if guard_px == 0 else valid[(slice(guard_px, -guard_px),) * ndim]
    base_px = int(base.any(axis=0).sum()) if ndim == 3 else int(np.count_nonzero(base))
    area = base_px * math.prod(scale.spacing[-2:])
    rows = [
        row(
            "valid_area", area, scale.unit("um2"), n=base_px, flags=scale.flags,
            method="neither unlabelled nor artefact" + (", projected along z" if ndim == 3 else ""),
        ),
        row(
            "detection_limit_diameter", frame.min_diameter_px * scale.pixel ** (1 / ndim), scale.unit("um"),
            flags=scale.flags, method=f"equivalent diameter of {frame.min_diameter_px:g} px",
        ),
    ]  # fmt: skip

    if ndim == 2:
        density, unit = "areal_density", scale.unit("1/cm2")
    else:
        density, unit = "volume_density", scale.unit("1/um3")
    size = count.reference_px * scale.pixel / (UM2_PER_CM2 if unit == "1/cm2" else 1.0)
    if size == 0:
        flags = (*scale.flags, "artifact-frame")
        none = [row(name, math.nan, u, n=0, flags=flags) for name, u in (("object_count", "1"), (density, unit))]
        return none + rows
    excess, parts = variance_excess(count.counted, frame.pixels, valid)
    low, high = overdispersed_interval(count.n, excess, parts - 1)
    flags = (*scale.flags, *(("below-detection-limit",) if count.below_limit else ()))
    if count.n == 0 and count.cut:
        flags = (*flags, "touches-border")
    inverted = [] if overlap_from is None or ndim != 2 else _overlapping(frame, row, overlap_from)
    if inverted:
        flags = (*flags, "overlapping")
    method = f"{count.rule}, exact Poisson interval" + (
        f", {count.below_limit} under the detection limit left out" if count.below_limit else ""
    )
    if excess > 1:
        method += f", widened: variance {excess:.2g} times that of Poisson numbers between {parts} parts of the frame"
    counted = partial(row, n=count.n, method=method, flags=flags)
    return [
        counted("object_count", count.n, "1", low=low, high=high),
        counted(density, count.n / size, unit, low=low / size, high=high / size),
        *rows,
        *inverted,
    ]


def variance_excess(counted: np.ndarray, pixels: ObjectPixels, valid: np.ndarray) -> tuple[float, int]:
    """Variance of the counts of equal parts of the frame over that of Poisson numbers, and the number of parts.

    Parameters
    ----------
    counted : ndarray of bool, shape (n + 1,)
        Which objects count, by object id.
    pixels : ObjectPixels
    valid : ndarray of bool, shape ([Z,] Y, X)

    Returns
    -------
    (float, int)
        1 where the objects lie at random as far as a chi-squared test at the level of 0.2 can say, or are too few to
        say anything (under 18): objects in families, or denser on one side, have more.
    """
    from scipy.special import chdtrc

    n, ndim = int(counted.sum()), valid.ndim
    if n < MIN_FOR_EXCESS:
        return 1.0, 1
    least, most = (3, 6) if ndim == 2 else (2, 4)
    per_axis = int(np.clip((n / 4) ** (1 / ndim), least, most))
    if min(valid.shape) < per_axis:
        return 1.0, 1
    place, parts_px, whole = np.zeros(n, np.int64), np.ones((), np.int64), bool(valid.all())
    area = valid
    for axis, size in enumerate(valid.shape):
        edges = -(-np.arange(per_axis) * size // per_axis)
        if whole:  # the usual case needs no pass over the pixels
            parts_px = np.multiply.outer(parts_px, np.diff(edges, append=size))
        else:
            area = np.add.reduceat(area, edges, axis=axis, dtype=np.int64)
        place = place * per_axis + np.searchsorted(edges, pixels.lower[counted][:, axis], "right") - 1
    area = (parts_px if whole else area).ravel()
    seen = np.bincount(place, minlength=per_axis**ndim)
    kept = area > 0.25 * area.max()
    expected = area[kept] / area[kept].sum() * seen[kept].sum()
    parts = int(kept.sum())
    if parts < 4 or not seen[kept].any():
        return 1.0, 1
    pearson = float(((seen[kept] - expected) ** 2 / expected).sum())
    if chdtrc(parts - 1, pearson) >= 0.2:
        return 1.0, parts
    return max(pearson / (parts - 1), 1.0), parts


def _overlapping(frame: Frame, row: partial[Measurement], covered_from: float) -> list[Measurement]:
    """Density by Miles' inversion where the objects cover enough of the frame to hide each other."""
    scale, valid = frame.scale, frame.valid
    covered = sum(int(frame.class_sizes[frame.schema.index(name)]) for name in frame.object_classes)
    if frame.objects_lie_apart or not covered_from <= covered / max(frame.n_valid, 1) < 1:
        return []
    found = miles_density(frame.mask(frame.object_classes), valid, spacing=scale.spacing)  # type: ignore[arg-type]
    values = (scale.density_per_area(value, 1.0) for value in (found.value, found.low, found.high))
    value, low, high = values
    method = f"Miles' inversion, grains at random, {found.covered:.2g} of the area covered"
    flags = (*scale.flags, "overlapping")
    return [row("areal_density", value, scale.unit("1/cm2"), low=low, high=high, method=method, flags=flags)]


def _cut_before(instances: np.ndarray, valid: np.ndarray, axis: int, pixels: ObjectPixels) -> np.ndarray:
    """Ids of objects with an invalid pixel directly before their first row (column, plane) along an axis."""
    found = []
    for slab in slabs(instances.shape):
        ids = np.moveaxis(instances[slab.read], axis, 0)[1:]
        before = np.moveaxis(valid[slab.read], axis, 0)[:-1]
        at = np.nonzero((ids > 0) & ~before)
        here = ids[at]
        position = at[0] + 1 + (slab.read.start if axis == 0 else 0)
        found.append(here[position == pixels.lower[here, axis]])
    return np.unique(np.concatenate(found))
