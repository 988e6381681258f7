"""Clean-up of predicted masks: regions too small or too doubtful to be objects become what surrounds them.

A network that is wrong in one pixel of a hundred has the area right and draws hundreds of specks and pinholes, which
are what counts, skeletons and tips are made of. The rules, in the words of `CleanUp`:

1. The classes that are counted together (deposit and dendrite of a plan view) are looked at together. A connected
   region of them goes where it is smaller than ``min_diameter_px`` (``min_diameter_um`` where the pixel size is known,
   if that is larger), where no pixel of it reaches ``min_peak_probability`` (hysteresis: an outline is drawn
   at the class boundary, but an object has to be certain somewhere), or where it is not seen in ``min_frames`` frames
   in a row.
2. A piece of one of these classes inside such a region is given to the others where it is too small.
3. A region of any other class goes where it is too small, or where it is enclosed by the classes of rule 1 and nowhere
   certain: a pinhole.

What goes takes the class that most of its border touches, of the regions that stay. Neighbours over edges and corners
belong together. 2-D, 3-D, whole arrays and volumes in slabs are one path: regions are joined across slabs,
and no mask depends on how it is cut. All is worked out on runs of pixels along rows (`seg.runs`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from seg.blocks import Slab, slabs
from seg.census import Census, regions_of, survey
from seg.cleanup import N_VALUES, ClassLimits, CleanUp, Rules, make_rules
from seg.labels import LabelSchema
from seg.runs import Runs

__all__ = ["Changed", "ClassLimits", "CleanUp", "Rules", "clean_frame_of", "clean_labels", "clean_slabs", "make_rules"]

# Looked at together: more are hardly faster, and each takes up to 300 bytes in masks of noise.
SLAB_VOXELS = 2**20

Read = Callable[[slice], tuple[np.ndarray, np.ndarray | None]]
"""Slices along the first axis -> labels (uint8), and where the class chosen reaches `Rules.peak` (bool), if known."""


@dataclass
class Changed:
    """What the clean-up did, summed over frames; arrays of int64, shape (256,), by label value.

    Parameters
    ----------
    before_px, lost_px, gained_px : ndarray
        Pixels of a class in the raw mask, those of them that went, and those that came.
    regions : ndarray
        Regions that went.
    """

    before_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    lost_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    gained_px: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))
    regions: np.ndarray = field(default_factory=lambda: np.zeros(N_VALUES, np.int64))

    def add(self, raw: np.ndarray, clean: np.ndarray) -> None:
        """Count one piece."""
        other = raw != clean
        self.before_px += np.bincount(raw.ravel(), minlength=N_VALUES)
        self.lost_px += np.bincount(raw[other], minlength=N_VALUES)
        self.gained_px += np.bincount(clean[other], minlength=N_VALUES)

    def join(self, other: Changed) -> None:
        """Count what was counted elsewhere."""
        for name in ("before_px", "lost_px", "gained_px", "regions"):
            total = getattr(self, name)
            total += getattr(other, name)

    def by_class(self, schema: LabelSchema) -> dict[str, dict[str, float]]:
        """What became of each class that was there or came, for ``run.json``."""
        found = {}
        for c in schema.classes:
            before, lost, gained = (int(a[c.index]) for a in (self.before_px, self.lost_px, self.gained_px))
            if before or gained:
                found[c.name] = {
                    "regions_removed": int(self.regions[c.index]), "pixels_before": before, "pixels_removed": lost,
                    "pixels_added": gained, "net_change": (gained - lost) / before if before else math.nan,
                }  # fmt: skip
        return found


def clean_labels(
    labels: np.ndarray,
    rules: Rules,
    confidence: np.ndarray | None = None,
    *,
    neighbours: Sequence[np.ndarray] = (),
    changed: Changed | None = None,
    max_voxels: int | None = None,
) -> np.ndarray:
    """Clean one frame that is in memory.

    Parameters
    ----------
    labels : ndarray of uint8, shape ([Z,] Y, X)
    rules : Rules
    confidence : ndarray or None, same shape
        Probability of the class chosen; or bool, whether it reaches ``rules.peak``. None: size decides alone.
    neighbours : sequence of ndarray
        Raw labels of the frame before and of that after, where ``rules.min_frames`` is 2; none: objects are not
        removed for being alone.
    changed : Changed or None
        Is added to.
    max_voxels : int or None
        Looked at together; the result does not depend on it.

    Returns
    -------
    ndarray of uint8, same shape
    """

    def read(where: slice) -> tuple[np.ndarray, np.ndarray | None]:
        return labels[where], None if confidence is None else rules.is_sure(labels[where], confidence[where])

    near = [lambda where, other=other: other[where] for other in neighbours]
    clean = np.empty(labels.shape, np.uint8)
    for where, part in clean_slabs(read, labels.shape, rules, neighbours=near, changed=changed, max_voxels=max_voxels):
        clean[where] = part
    return clean


def clean_slabs(
    read: Read, shape: Sequence[int], rules: Rules, *, neighbours: Sequence[Callable[[slice], np.ndarray]] = (),
    changed: Changed | None = None, max_voxels: int | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Clean one frame slab by slab; where there are several, everything is read twice.

    Parameters
    ----------
    read : callable
    shape : sequence of int
        Of the frame.
    rules : Rules
    neighbours : sequence of callable
        Raw labels of the frames before and after by slices.
    changed : Changed or None
        Is added to.
    max_voxels : int or None
        Of a slab, None: `SLAB_VOXELS`. The result does not depend on it.

    Yields
    ------
    (slice, ndarray of uint8)
        Slices along the first axis, and their labels.
    """
    shape = tuple(shape)
    cuts = cuts_of(shape, max_voxels)
    census = Census(rules, compares=bool(neighbours) and rules.min_frames > 1)
    for slab in cuts:
        labels, sure = read(slab.read)
        seen = [other(slab.read) for other in neighbours] if rules.min_frames > 1 else []
        found, runs, region = survey(slab, shape, rules, labels, sure, seen)
        census.take(found)
    target, gone = census.decide()
    if changed is not None:
        changed.regions += gone
    for number, slab in enumerate(cuts):
        if len(cuts) > 1:
            labels = read(slab.read)[0]
        known = (runs, region) if len(cuts) == 1 else None
        clean = repainted(labels, census.becomes(number, target), known)
        if changed is not None:
            changed.add(labels[slab.inner], clean[slab.inner])
        yield slab.owned, clean[slab.inner]


def clean_frame_of(
    read: Callable[[int, slice], tuple[np.ndarray, np.ndarray | None]], frame: int, shape: Sequence[int], rules: Rules,
    changed: Changed,
) -> Iterator[tuple[slice, np.ndarray]]:  # fmt: skip
    """Clean one frame of a series slab by slab.

    Parameters
    ----------
    read : callable
        Frame and slices along the first spatial axis -> as `Read`.
    frame : int
    shape : sequence of int
        Of the series: frames first.
    rules : Rules
    changed : Changed

    Yields
    ------
    (slice, ndarray of uint8)
        As `clean_slabs`.
    """
    near = [lambda where, other=other: read(other, where)[0] for other in rules.beside(frame, shape[0])]
    return clean_slabs(lambda where: read(frame, where), shape[1:], rules, neighbours=near, changed=changed)


def cuts_of(shape: Sequence[int], max_voxels: int | None = None) -> list[Slab]:
    """The slabs in which a frame is looked at."""
    return list(slabs(shape, halo=1, max_voxels=SLAB_VOXELS if max_voxels is None else max_voxels))


def repainted(
    labels: np.ndarray, becomes: np.ndarray | None, known: tuple[Runs, np.ndarray] | None = None
) -> np.ndarray:  # fmt: skip
    """Labels of one slab once its regions became what `Census.becomes` says; `known`: its runs and their regions."""
    if becomes is None:
        return labels
    runs, region = known if known is not None else regions_of(labels)
    return runs.with_values(becomes[region]).painted(np.uint8)
