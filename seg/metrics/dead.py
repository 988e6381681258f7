"""Dead lithium: metal without a path to the current collector, when bodies lose or find one, and the darkening front.

A volume is read slab by slab (`seg.blocks`), so it may be larger than memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import ndimage

from seg.blocks import RegionFinder, Slab, filled_on_disk, label_on_disk, neighbourhood, slabs
from seg.labels import LabelSchema
from seg.metrics.frame import Frame
from seg.metrics.front import moved
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.table import Measurement
from seg.uncertainty import bootstrap_interval, combine_intervals, lost_to_blur_px

METAL = ("deposit", "dendrite", "dead_lithium")
COLLECTOR = ("substrate",)
LABELLED = ("dead_lithium",)
LIVE, DEAD, INDETERMINATE = 1, 2, 3

# A layer of voxels that share faces with a body is that thick, on average over all directions of its surface.
LAYER_PX = 0.83


@dataclass(frozen=True)
class Isolation:
    """Metal by its path to the current collector, in voxels and bodies.

    ``indeterminate`` is metal without a path in the frame whose body leaves the frame: it may have one outside.
    ``collector`` is False where none is in view; then nothing can be said. ``lost_to_blur`` is what the dead bodies
    have lost at most if the image was blurred (`seg.uncertainty.lost_to_blur_px`).
    """

    live: int
    dead: int
    indeterminate: int
    bodies: int
    collector: bool
    lost_to_blur: float = 0.0

    @property
    def metal(self) -> int:
        """All metal."""
        return self.live + self.dead + self.indeterminate

    @property
    def fraction(self) -> float:
        """Dead over all metal; NaN without metal or collector."""
        return self.dead / self.metal if self.metal and self.collector else math.nan

    @property
    def highest(self) -> float:
        """The same if all that is indeterminate is dead."""
        return (self.dead + self.indeterminate) / self.metal if self.metal and self.collector else math.nan


@dataclass
class _Counter:
    """Regions of metal and collector under one rule, and how much of both each of them holds."""

    finder: RegionFinder
    grow_voxels: int
    parts: list[np.ndarray]

    def add(self, metal: np.ndarray, collector: np.ndarray, inside: slice, slab: Slab) -> None:
        metal, collector = _grown(metal, collector, self.grow_voxels)[inside], collector[inside]
        ids, _ = self.finder.add(metal | collector, slab)
        own, n = ids[slab.inner], int(ids.max(initial=0)) + 1
        counts = [np.bincount(own[mask[slab.inner]], minlength=n)[1:] for mask in (metal, collector)]
        self.parts.append(np.stack(counts, axis=1))

    def result(self) -> Isolation:
        regions = self.finder.regions()
        metal, collector = regions.total(np.concatenate([np.zeros((1, 2), np.int64), *self.parts])).T
        path, cut = collector > 0, regions.cut
        return Isolation(
            int(metal[path].sum()), int(metal[~path & ~cut].sum()), int(metal[~path & cut].sum()),
            int(np.count_nonzero((metal > 0) & ~path & ~cut)), bool(path.any()),
            float(lost_to_blur_px(metal[(metal > 0) & ~path & ~cut], len(regions.shape)).sum()),
        )  # fmt: skip


def isolation(
    frame: Frame,
    *,
    metal_classes: Sequence[str] = METAL,
    collector_classes: Sequence[str] = COLLECTOR,
    rules: Sequence[tuple[bool, int]] = ((False, 0),),
    max_voxels: int | None = None,
) -> list[Isolation]:
    """Find out which metal is connected to the current collector through metal; one pass over the volume.

    Parameters
    ----------
    frame : Frame
        ``labels`` may be any array that gives slices along its first axis: in memory, memory map, zarr.
    metal_classes, collector_classes : sequence of str
    rules : sequence of (bool, int)
        One result for each: whether voxels that share only an edge or a corner conduct; and 0, or 1 for metal that has
        gained a layer of voxels, or -1 for metal that has lost one (the collector stays).
    max_voxels : int or None
        Of a slab; the result does not depend on it.
    """
    shape = frame.labels.shape
    counters = [_Counter(RegionFinder(shape, corners=corners), grow, []) for corners, grow in rules]
    for slab in slabs(shape, halo=1, max_voxels=max_voxels):
        # One more slice on each side: what grows or shrinks looks at its neighbours.
        low, high = max(slab.read.start - 1, 0), min(slab.read.stop + 1, shape[0])
        labels = np.asarray(frame.labels[low:high])
        metal, collector = frame.schema.mask(labels, metal_classes), frame.schema.mask(labels, collector_classes)
        for counter in counters:
            counter.add(metal, collector, slice(slab.read.start - low, slab.read.stop - low), slab)
    return [counter.result() for counter in counters]


def isolation_map(
    metal: np.ndarray, collector: np.ndarray, *, corners: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """The same for arrays in memory, voxel by voxel (`isolation_on_disk` where they do not fit).

    Returns
    -------
    status : ndarray of uint8, shape of `metal`
        0 no metal, `LIVE`, `DEAD` or `INDETERMINATE`.
    bodies : ndarray of int32, shape of `metal`
        Numbers of the connected regions of metal and collector.
    n_bodies : int
    """
    bodies, n_bodies = ndimage.label(metal | collector, neighbourhood(metal.ndim, corners=corners))
    of_body = np.full(n_bodies + 1, DEAD, np.uint8)
    for axis in range(metal.ndim):
        for end in (0, -1):
            of_body[np.unique(np.take(bodies, end, axis=axis))] = INDETERMINATE
    of_body[np.unique(bodies[collector])] = LIVE
    return np.where(metal, of_body[bodies], 0).astype(np.uint8), bodies, n_bodies


def isolation_on_disk(
    frame: Frame, metal_classes: Sequence[str], collector_classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    """What `isolation_map` gives for paths through faces, in files; `frame` is one that lies on disk."""
    assert frame.on_disk is not None
    shape, both = frame.labels.shape, [*metal_classes, *collector_classes]
    bodies, regions = label_on_disk(lambda rows: frame.mask(both, rows), shape, frame.on_disk, corners=False)
    of_body = np.where(regions.cut, INDETERMINATE, DEAD).astype(np.uint8)
    for slab in slabs(shape, halo=0):
        of_body[np.unique(bodies[slab.owned][frame.mask(collector_classes, slab.owned)])] = LIVE
    status = filled_on_disk(
        lambda rows: np.where(frame.mask(metal_classes, rows), of_body[bodies[rows]], 0), shape, np.uint8,
        frame.on_disk,
    )  # fmt: skip
    return status, bodies, regions.count


def measure_frame(
    frame: Frame,
    *,
    metal_classes: Sequence[str] = METAL,
    collector_classes: Sequence[str] = COLLECTOR,
    labelled_classes: Sequence[str] = LABELLED,
) -> list[Measurement]:
    """Share and volume of metal without a path to the current collector, and the height of the darkening front.

    Parameters
    ----------
    frame : Frame
    metal_classes : sequence of str
        What conducts.
    collector_classes : sequence of str
        What a path must reach.
    labelled_classes : sequence of str
        Metal that the labels call dead already (darkened, in the light microscope).

    Returns
    -------
    list of Measurement
        ``dead_fraction`` with paths through faces and through corners too (``method``), ``dead_volume`` (3-D) and
        ``dead_fraction_sensitivity``, the range of the fraction when metal loses or gains a layer of voxels; no
        metal or no collector in view: NaN with ``ambiguous``. Where `labelled_classes` occur, ``dead_fraction`` by
        label comes first, and in 2-D the ``darkening_front_height``.

    Notes
    -----
    A body without a path that leaves the frame may have one outside: it is not counted as dead, the upper bound
    includes it, and the row is flagged ``touches-border``. In a 2-D view paths out of the plane are not seen: the
    fraction by connectivity is an upper bound and flagged ``ambiguous``.
    """
    schema, scale, ndim = frame.schema, frame.scale, len(frame.labels.shape)
    metal_classes, collector_classes = _known(schema, metal_classes), _known(schema, collector_classes)
    labelled_classes = _known(schema, labelled_classes)
    row = partial(Measurement, class_name="+".join(metal_classes), frame=frame.index, time_s=frame.time_s)
    rows = _labelled_rows(frame, metal_classes, labelled_classes, collector_classes)
    faces, full, less, more = isolation(
        frame, metal_classes=metal_classes, collector_classes=collector_classes,
        rules=((False, 0), (True, 0), (False, -1), (False, 1)),
    )  # fmt: skip
    known = faces.collector and faces.metal > 0
    flags = (
        *scale.flags, *(("touches-border",) if faces.indeterminate else ()),
        *(("ambiguous",) if ndim == 2 or not known else ()),
    )  # fmt: skip
    why = "" if known else "no metal; " if faces.collector else "no current collector in view; "
    view = "2-D view, upper bound; " if ndim == 2 else ""
    changed = [one.fraction for one in (faces, less, more) if math.isfinite(one.fraction)]
    for name, one in (("faces", faces), ("full", full)):
        share = one.indeterminate / one.metal if one.metal else 0.0
        # Small bodies lose more of themselves to blur than what stands on the collector.
        blurred = one.lost_to_blur / one.metal if one.metal else 0.0
        rows.append(
            row(
                "dead_fraction", one.fraction, "1", min([one.fraction, *changed], default=math.nan),
                min(max([one.highest, *changed], default=math.nan) + blurred, 1.0), n=one.bodies, flags=flags,
                method=f"{name}; {view}{why}{share:.3g} of the metal leaves the frame and is indeterminate; interval: "
                "mask edge +-1 px, blur, indeterminate metal",
            )
        )  # fmt: skip
    spread = max(changed) - min(changed) if known else math.nan
    rows.append(
        row("dead_fraction_sensitivity", spread, "1", method="faces; range when metal loses or gains 1 px", flags=flags)
    )
    if ndim == 3:
        pixel = scale.pixel if known else math.nan
        volume, thinner, thicker = (one.dead * pixel for one in (faces, less, more))
        # Half a voxel at the outline, as a share of what a layer of voxels does; a layer that joins bodies to the
        # collector, or parts them from it, does all of it.
        share = 0.5 / LAYER_PX
        lowest = min(volume - max(volume - thinner, 0.0) * share, thicker)
        highest = max(volume + max(thicker - volume, 0.0) * share, thinner)
        rows.append(
            row(
                "dead_volume", volume, scale.unit("um3"), min(volume, lowest),
                highest + (faces.lost_to_blur + faces.indeterminate) * pixel, n=faces.bodies, flags=flags,
                method=f"faces; {why}interval: mask edge +-0.5 px, blur, indeterminate metal",
            )
        )  # fmt: skip
    return rows


def measure_pair(
    before: Frame,
    frame: Frame,
    *,
    shift_px: Sequence[int] = (),
    metal_classes: Sequence[str] = METAL,
    collector_classes: Sequence[str] = COLLECTOR,
    min_body_px: int | None = None,
) -> list[Measurement]:
    """Bodies that have lost their path since the frame before, and dead metal that has found one.

    Parameters
    ----------
    before, frame : Frame
    shift_px : sequence of int
        Drift of the sample from the first to the second, removed first.
    metal_classes, collector_classes : sequence of str
    min_body_px : int or None
        Smaller bodies are left out; None: 3 px along each axis.

    Returns
    -------
    list of Measurement
        ``detachment_count``: dead bodies of which more than half was live metal before. ``reattached_volume`` (3-D):
        voxels that belonged to a dead body and are live metal now, give or take half a voxel at their outline; its
        upper bound adds those that leave the frame.
    """
    ndim, scale = frame.labels.ndim, frame.scale
    smallest = 3**ndim if min_body_px is None else min_body_px
    shift = np.asarray(shift_px if len(shift_px) else [0] * ndim, int)
    then, now = (_isolated(f, metal_classes, collector_classes) for f in (before, frame))
    (was, old_bodies, n_old), (status, bodies, n_bodies) = then, now
    row = partial(Measurement, class_name="+".join(metal_classes), frame=frame.index, time_s=frame.time_s)
    sizes, live_before = np.zeros((2, n_bodies + 1), np.int64)
    old_sizes = np.zeros(n_old + 1, np.int64)
    for slab in slabs(status.shape, halo=0):
        dead, here = status[slab.owned] == DEAD, bodies[slab.owned]
        sizes += np.bincount(here[dead], minlength=n_bodies + 1)
        live = _moved_slices(was, shift, slab.owned) == LIVE
        live_before += np.bincount(here[dead & live], minlength=n_bodies + 1)
        old_dead = was[slab.owned] == DEAD
        old_sizes += np.bincount(old_bodies[slab.owned][old_dead], minlength=n_old + 1)
    loose = int(np.count_nonzero((sizes >= smallest) & (live_before > sizes / 2)))
    flags = ("ambiguous",) if ndim == 2 else ()
    view = "2-D view, paths out of the plane are not seen; " if ndim == 2 else ""
    rows = [
        row(
            "detachment_count", float(loose), "1", n=loose, flags=flags,
            method=f"{view}dead bodies of {smallest} px or more of which over half was live in the frame before",
        )
    ]  # fmt: skip
    if ndim == 3:
        found = unsure = faces = 0
        for slab in slabs(status.shape, halo=0):
            seen, n_own = slice(slab.owned.start, slab.owned.stop + 1), slab.owned.stop - slab.owned.start
            here = np.asarray(status[seen])
            seen = slice(seen.start, seen.start + len(here))
            large = (_moved_slices(was, shift, seen) == DEAD) & (old_sizes >= smallest)[
                _moved_slices(old_bodies, shift, seen)
            ]
            joined, bare = large & (here == LIVE), here == 0
            found += int(np.count_nonzero(joined[:n_own]))
            unsure += int(np.count_nonzero((large & (here == INDETERMINATE))[:n_own]))
            faces += _faces(joined, bare, 0) + sum(_faces(joined[:n_own], bare[:n_own], axis) for axis in (1, 2))
        # A smooth outline shows a face and a half for each voxel of its area; it is off by half a voxel.
        edge = faces / 1.5 / 2
        rows.append(
            row(
                "reattached_volume", found * scale.pixel, scale.unit("um3"), max(found - edge, 0) * scale.pixel,
                (found + edge + unsure) * scale.pixel, n=found, flags=scale.flags,
                method="voxels dead in the frame before and live now; interval: edge +-0.5 px, indeterminate metal",
            )
        )  # fmt: skip
    return rows


def _isolated(
    frame: Frame, metal_classes: Sequence[str], collector_classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, int]:
    metal, collector = _known(frame.schema, metal_classes), _known(frame.schema, collector_classes)
    if frame.on_disk is not None:
        return isolation_on_disk(frame, metal, collector)
    return isolation_map(frame.mask(metal), frame.mask(collector))


def _faces(one: np.ndarray, other: np.ndarray, axis: int) -> int:
    """Faces between voxels of two masks that are neighbours along an axis."""
    one, other = np.moveaxis(one, axis, 0), np.moveaxis(other, axis, 0)
    return int(np.count_nonzero(one[:-1] & other[1:]) + np.count_nonzero(other[:-1] & one[1:]))


def _moved_slices(array: np.ndarray, shift: np.ndarray, rows: slice) -> np.ndarray:
    """Some slices of an array that has been moved by whole pixels; what comes in is 0."""
    first, last = (min(max(n - int(shift[0]), 0), len(array)) for n in (rows.start, rows.stop))
    there = np.asarray(array[first:last])
    if last - first < rows.stop - rows.start:
        missing = rows.stop - rows.start - (last - first)
        before = missing if int(shift[0]) > 0 else 0
        there = np.pad(there, [(before, missing - before), *[(0, 0)] * (array.ndim - 1)])
    return moved(there, np.array([0, *shift[1:]]))


def measure_series(table: pd.DataFrame) -> list[Measurement]:
    """Sums of ``detachment_count`` and ``reattached_volume`` over the series; nothing for a single frame."""
    rows = []
    for metric in ("detachment_count", "reattached_volume"):
        found = table[(table["metric"] == metric) & table["frame"].notna()]
        if len(found):
            flags = {flag for text in found["flags"].fillna("") for flag in str(text).split(";") if flag}
            rows.append(
                Measurement(
                    metric, float(found["value"].sum()), str(found["unit"].iloc[0]), n=len(found),
                    low=float(found["low"].sum(skipna=False)), high=float(found["high"].sum(skipna=False)),
                    class_name=str(found["class"].iloc[0]), method="sum over the series",
                    flags=tuple(sorted(flags & {"uncalibrated", "ambiguous", "low-confidence"})),
                )
            )  # fmt: skip
    return rows


def darkening_front(
    dead: np.ndarray, live: np.ndarray, base: np.ndarray, *, pixel_um: float, bodies: np.ndarray
) -> tuple[float, float, float, int]:
    """Height of the front above which metal is dead, over what the metal stands on, in a side view.

    Parameters
    ----------
    dead, live : ndarray of bool, shape (H, W)
        Metal on both sides of the front; rows run away from the base.
    base : ndarray of bool, shape (H, W)
        Collector, or what else the metal stands on.
    pixel_um : float
        Height of a row.
    bodies : ndarray of int, shape (H, W)
        Which body each pixel belongs to; bodies are the independent units.

    Returns
    -------
    value, low, high : float
        Median over the bodies of their median height, with its 95 % interval; NaN without a front.
    n : int
        Bodies with a front.
    """
    # The topmost row of base in each column of pixels; columns without any cannot be measured.
    rows = np.arange(len(base))[:, None]
    foot = np.where(base, rows, -1).max(axis=0)
    at, column = np.nonzero(live[:-1] & dead[1:])
    keep = foot[column] >= 0
    at, column = at[keep], column[keep]
    heights = (at - foot[column]) * pixel_um
    of_body = bodies[at, column]
    medians = np.array([np.median(heights[of_body == body]) for body in np.unique(of_body)])
    if not len(medians):
        return math.nan, math.nan, math.nan, 0
    value = float(np.median(medians))
    sampled = bootstrap_interval(medians, lambda v: np.median(v, axis=1), rng=np.random.default_rng(0))
    edge = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel_um
    low, high = combine_intervals(value, sampled, (value - edge, value + edge))
    return value, low, high, len(medians)


def _labelled_rows(
    frame: Frame, metal_classes: Sequence[str], labelled: Sequence[str], base_classes: Sequence[str]
) -> list[Measurement]:
    """Fraction by label, and the darkening front of a side view; nothing where no pixel is labelled dead."""
    n_dead = n_metal = faces = 0
    for slab in slabs(frame.labels.shape):
        # Pairs along the first axis: those of each slice with the slice before it.
        with_before = slice(max(slab.owned.start - 1, 0), slab.owned.stop)
        labels = np.asarray(frame.labels[with_before])
        dead = frame.schema.mask(labels, labelled)
        faces += int(np.count_nonzero(np.diff(dead, axis=0)))
        own = slice(slab.owned.start - with_before.start, None)
        n_dead += int(np.count_nonzero(dead[own]))
        n_metal += int(np.count_nonzero(frame.schema.mask(labels[own], metal_classes)))
        faces += sum(int(np.count_nonzero(np.diff(dead[own], axis=axis))) for axis in range(1, dead.ndim))
    if not n_dead:
        return []
    name = "+".join(labelled)
    row = partial(Measurement, class_name=name, frame=frame.index, time_s=frame.time_s)
    fraction = n_dead / n_metal
    error = 1.96 * DIGITISATION_PX * faces * (2 / 3 if len(frame.labels.shape) == 3 else math.pi / 4) / n_metal
    rows = [
        row(
            "dead_fraction", fraction, "1", max(fraction - error, 0.0), min(fraction + error, 1.0), n=n_dead,
            method=f"labelled; {name} over all metal; interval: mask edge +-0.5 px",
        )
    ]  # fmt: skip
    if len(frame.labels.shape) == 3:
        return rows
    dead, base = frame.mask(labelled), frame.mask(base_classes)
    live = frame.mask([c for c in metal_classes if c not in labelled])
    if not base.any() or not live.any():
        return rows
    # Along the axis on which collector and metal lie apart, in the direction from one to the other.
    apart = [np.mean(np.nonzero(live | dead)[axis]) - np.mean(np.nonzero(base)[axis]) for axis in range(2)]
    axis = int(np.argmax(np.abs(apart)))
    step = 1 if apart[axis] > 0 else -1
    upright = [np.moveaxis(mask, axis, 0)[::step] for mask in (dead, live, base)]
    bodies = ndimage.label(upright[0] | upright[1], neighbourhood(2, corners=True))[0]
    value, low, high, n = darkening_front(*upright, pixel_um=frame.scale.spacing[axis], bodies=bodies)
    rows.append(
        row(
            "darkening_front_height", value, frame.scale.unit("um"), low, high, n=n,
            flags=(*frame.scale.flags, *(() if n else ("regime-not-reached",))),
            method=f"live below, {name} above, over {'+'.join(base_classes)}; median over bodies",
        )
    )  # fmt: skip
    return rows


def _known(schema: LabelSchema, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in schema.names]


def _grown(metal: np.ndarray, collector: np.ndarray, by: int) -> np.ndarray:
    """Metal after it has gained or lost a layer of face neighbours; collector bounds it, the frame does not."""
    if by == 0:
        return metal
    cross = neighbourhood(metal.ndim, corners=False)
    if by > 0:
        return ndimage.binary_dilation(metal, cross) & ~collector
    return ndimage.binary_erosion(metal | collector, cross, border_value=1) & metal
