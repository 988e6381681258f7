"""How far the growth front moved from one frame to the next: mean and local velocity, asymmetry, maps of growth.

Notes
-----
The mean normal velocity is the area (volume) gained less that lost, over the length (area) of the front and the time
(Crofton's formula). Motions far below a pixel are right on average this way. Local velocities are signed distances
from the new front to the old one; they are quantised to pixels.

New objects and objects that vanish are no motion of a front: they are left out of both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product

import numpy as np

from seg.bits import count_bits, packed
from seg.crofton import shared_boundary_of_bits
from seg.errors import UsageError
from seg.metrics.distances import distance_to
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement, Scale, rate_unit
from seg.runs import Runs

FARADAY_C_PER_MOL = 96485.33212
LITHIUM_MOLAR_VOLUME_CM3 = 13.00
CHARGE_NUMBER = 1
# Metal whose surface velocity is a current density.
_METAL = {"deposit", "dendrite", "dead_lithium"}

# 95 % of what a mask can be off at its outline: half a pixel in each of two frames, independently.
_DISPLACEMENT_PX = 0.5 * math.sqrt(2)


@dataclass(frozen=True)
class FrontMotion:
    """Change of a body between two frames.

    Parameters
    ----------
    gained, lost : float
        Area (2-D) or volume, in units of the pixel size.
    length : float
        Of the front (area, in 3-D), the mean of both frames.
    """

    gained: float
    lost: float
    length: float

    @property
    def displacement(self) -> float:
        """Mean way along the normal; NaN without a front."""
        return (self.gained - self.lost) / self.length if self.length > 0 else math.nan


@dataclass(frozen=True)
class Front:
    """The front of a body in two consecutive frames on one grid.

    Parameters
    ----------
    before, after : ndarray of bool, shape ([Z,] Y, X)
        The body, without what appears or vanishes.
    known : ndarray of bool
        Where both frames say something.
    old, new : ndarray of bool
        The body with what appears or vanishes.
    free : ndarray of bool
        Known, and without anything that stays in place.
    """

    before: np.ndarray
    after: np.ndarray
    known: np.ndarray
    old: np.ndarray
    new: np.ndarray
    free: np.ndarray

    @cached_property
    def free_before(self) -> np.ndarray:
        """What the front could move into."""
        return np.asarray(self.free > self.old)  # of truth values, > is "and not"

    @cached_property
    def free_after(self) -> np.ndarray:
        """What it can move into now."""
        return np.asarray(self.free > self.new)

    @classmethod
    def between(
        cls, before: np.ndarray, after: np.ndarray, known: np.ndarray, fixed: np.ndarray | None, *,
        regions: tuple[Runs, Runs] | None = None,
    ) -> Front:  # fmt: skip
        """Leave out regions of one frame that nothing of the other touches.

        `regions` are those of both masks where all is known and they are at hand (`Frame.regions`).
        """
        if regions is None:
            old, new = before & known, after & known
            found = Runs.of(old), Runs.of(new)
            old_regions, new_regions = (runs.with_values(runs.components()) for runs in found)
        else:
            old, new = before, after
            old_regions, new_regions = regions
        new_kept, old_kept = _touching(new_regions, new, old_regions), _touching(old_regions, old, new_regions)
        seen = known
        for whole, kept in ((new, new_kept), (old, old_kept)):
            if kept is not whole:  # the usual case: nothing appears and nothing vanishes
                seen = seen & (kept >= whole)
        return cls(old_kept, new_kept, seen, old, new, known if fixed is None else known > fixed)

    def motion(self, spacing: tuple[float, ...]) -> FrontMotion:
        """Gain, loss and length of the front."""
        pixel = math.prod(spacing)
        words: dict[int, np.ndarray] = {}  # usually these are three masks only
        before, after, known, old, new, free = (
            words[id(mask)] if id(mask) in words else words.setdefault(id(mask), packed(mask))
            for mask in (self.before, self.after, self.known, self.old, self.new, self.free)
        )
        gained = float(count_bits(after & ~before & known)) * pixel
        lost = float(count_bits(before & ~after & known)) * pixel
        lengths = [
            shared_boundary_of_bits(before, free & ~old, spacing=spacing),
            shared_boundary_of_bits(after, free & ~new, spacing=spacing),
        ]
        return FrontMotion(gained, lost, float(np.mean(lengths)))

    def displacements(self, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Signed distance of the new front from the old one, and the length that each value stands for.

        Returns
        -------
        distances : ndarray of float, shape (N,)
            Positive where the body has grown. One per pair of unlike neighbours.
        lengths : ndarray of float, shape (N,)
            They add up to the length of the front.

        Notes
        -----
        Distances run from centre to centre of pixels less half of one at either side, so a front that stays reads 0.
        Where the end of what is known is nearer than the old front, the distance is not known and left out.
        """
        if not self.before.any() or not self.free_before.any():
            return np.zeros(0), np.zeros(0)
        ends = []
        for axis in range(self.known.ndim):
            here = (slice(None),) * axis + (slice(None, -1),)
            there = (slice(None),) * axis + (slice(1, None),)
            unlike = (self.after[here] & self.free_after[there]) | (self.free_after[here] & self.after[there])
            first = np.nonzero(unlike)
            ends.append((first, _stepped(first, axis, 1)))
        # Distances are needed beside the new front only.
        needed = np.zeros(self.known.shape, bool)
        for pair in ends:
            for at in pair:
                needed[at] = True
        signed = self._signed_distance(_with_neighbours(needed), spacing)
        furthest = float(np.abs(signed[needed]).max(initial=0))
        seen = np.zeros(self.known.shape)
        seen[needed] = _distance_to_unknown(self.known, np.nonzero(needed), spacing, within=furthest)
        values, weights = [], []
        for axis, pair in enumerate(ends):
            distance = (signed[pair[0]] + signed[pair[1]]) / 2
            certain = np.abs(distance) <= np.minimum(seen[pair[0]], seen[pair[1]])
            share = sum(np.abs(_gradient(signed, at, spacing)[axis]) for at in pair) / 2
            values.append(distance[certain])
            weights.append((share * math.prod(spacing) / spacing[axis])[certain])
        return np.concatenate(values), np.concatenate(weights)

    def _signed_distance(self, where: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
        """Distance from the old front, positive outside; 0 where it is not asked for."""
        half = min(spacing) / 2
        signed = np.zeros(where.shape)
        # Inside, the way to the free side counts: the foot of a deposit on its substrate is no front.
        for side, aim, sign in ((self.before, self.free_before, -1), (~self.before, self.before, 1)):
            at = np.nonzero(where & side)
            signed[at] = sign * (distance_to(aim, at, spacing=spacing) - half)
        return signed


Place = tuple[np.ndarray, ...]


def _stepped(at: Place, axis: int, step: int) -> Place:
    """Pixels one step away along an axis."""
    return (*at[:axis], at[axis] + step, *at[axis + 1 :])


def _gradient(field: np.ndarray, at: Place, spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Direction of steepest ascent at some pixels, one array per axis; at the end of the array from one side."""
    slopes = []
    for axis, step in enumerate(spacing):
        low, high = np.maximum(at[axis] - 1, 0), np.minimum(at[axis] + 1, field.shape[axis] - 1)
        change = field[(*at[:axis], high, *at[axis + 1 :])] - field[(*at[:axis], low, *at[axis + 1 :])]
        slopes.append(change / ((high - low) * step))
    norm = np.sqrt(sum(slope**2 for slope in slopes)) + 1e-12
    return [slope / norm for slope in slopes]


def _distance_to_unknown(
    known: np.ndarray, at: Place, spacing: tuple[float, ...], *, within: float
) -> np.ndarray:  # fmt: skip
    """Distance of pixels from the nearest one of which nothing is known, as far as that matters.

    What lies outside of the frame is not known either.
    """
    ways = [np.minimum(a + 1, n - a) * step for a, n, step in zip(at, known.shape, spacing, strict=True)]
    outside = np.asarray(np.min(ways, axis=0), float)
    return outside if known.all() else np.minimum(outside, distance_to(~known, at, spacing=spacing, within=within))


def measure_pair(
    before: Frame,
    frame: Frame,
    *,
    shift_px: Sequence[int] = (),
    classes: Sequence[str] = ("deposit", "dendrite"),
    fixed_classes: Sequence[str] = (),
    asymmetry_axis: str | None = None,
    local_velocities: bool = False,
    molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3,
    charge_number: int = CHARGE_NUMBER,
) -> list[Measurement]:
    """Velocity of the front between two frames; rows belong to the later one.

    Parameters
    ----------
    before, frame : Frame
        The later one with a time where times are known.
    shift_px : sequence of int
        Drift of the sample from the first to the second, removed first.
    classes : sequence of str
        What grows.
    fixed_classes : sequence of str
        What the front cannot move into: the substrate, in profile.
    asymmetry_axis : str or None
        ``x`` or ``y``: growth to the two sides of each object along it.
    local_velocities : bool
        Also the 5 % and 95 % quantile of velocity along the front.
    molar_volume_cm3 : float
        Of the metal, per mol.
    charge_number : int
        Electrons per atom.

    Returns
    -------
    list of Measurement
        ``front_velocity`` (sides ``slowest 5 %`` and ``fastest 5 %`` for the quantiles); ``local_current_density`` for
        calibrated velocities of metal; ``growth_asymmetry``: growth towards larger coordinates less that towards
        smaller ones, over both, NaN with ``ambiguous`` where one side grows and the other shrinks. Without a front:
        NaN with ``regime-not-reached``. A motion smaller than half a pixel in each frame can cause is flagged
        ``few-pixels``.
    """
    interval = _interval(before, frame)
    if interval is None:
        return []
    scale, timed = frame.scale, frame.time_s is not None
    shift = np.asarray(shift_px if len(shift_px) else [0] * frame.labels.ndim, int)
    old_mask, known = moved(before.kept_mask(classes), shift), moved(before.valid, shift) & frame.valid
    fixed = None
    if before.present(fixed_classes) or frame.present(fixed_classes):
        fixed = moved(before.mask(fixed_classes), shift) | frame.mask(fixed_classes)
    regions = (before.regions(classes), frame.regions(classes)) if not shift.any() and known.all() else None
    front = Front.between(old_mask, frame.kept_mask(classes), known, fixed, regions=regions)
    row = partial(Measurement, class_name="+".join(classes), frame=frame.index, time_s=frame.time_s)
    unit = rate_unit(scale.unit("um"), timed=timed)
    flags = scale.flags if timed else ("uncalibrated",)
    motion = front.motion(scale.spacing)
    way, unsure = motion.displacement, _unsure(scale)
    if math.isnan(way):
        rows = [row("front_velocity", math.nan, unit, method="no front", flags=(*flags, "regime-not-reached"))]
    else:
        ends = ((way - unsure) / interval, (way + unsure) / interval)
        small = ("few-pixels",) if abs(way) < unsure else ()
        method = "gain less loss over Crofton length of the front, boundary ±0.5 px in each frame"
        rows = [row("front_velocity", way / interval, unit, *ends, method=method, flags=(*flags, *small))]
    if local_velocities:
        rows += _quantiles(front, scale, partial(row, unit=unit, flags=flags), interval)
    if unit == "um/s" and is_metal(rows[0].class_name):
        to_current = partial(as_current, molar_volume_cm3=molar_volume_cm3, charge_number=charge_number)
        rows += [to_current(velocity) for velocity in rows]
    if asymmetry_axis is not None:
        rows.append(_asymmetry(front, frame, asymmetry_axis, partial(row, unit="1", flags=scale.flags)))
    return rows


def local_current_density(
    velocity_um_per_s: float, *, molar_volume_cm3: float = LITHIUM_MOLAR_VOLUME_CM3, charge_number: int = CHARGE_NUMBER
) -> float:
    """Convert the velocity of a metal surface to a current density in mA/cm2, by Faraday's law.

    Notes
    -----
    j = z F v / V_m; 1 nm/s of lithium is 0.742 mA/cm2. It is the current of the metal volume: pores, SEI and side
    reactions are not in it.
    """
    cm_per_s = velocity_um_per_s * 1e-4
    return charge_number * FARADAY_C_PER_MOL * cm_per_s / molar_volume_cm3 * 1e3


def is_metal(class_name: str) -> bool:
    """Whether all classes of a row are metal."""
    return all(name in _METAL for name in class_name.split("+"))


def as_current(row: Measurement, *, molar_volume_cm3: float, charge_number: int) -> Measurement:
    """Turn a velocity into a current density; frame, interval and flags stay."""
    density = partial(local_current_density, molar_volume_cm3=molar_volume_cm3, charge_number=charge_number)
    return replace(
        row, metric="local_current_density", value=density(row.value), low=density(row.low), high=density(row.high),
        unit="mA/cm2", method=f"Faraday's law on {row.metric} ({row.method})",
    )  # fmt: skip


def moved(array: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """A mask moved by whole pixels; what comes in is False."""
    if not np.any(shift_px):
        return array
    result = np.zeros_like(array)
    if all(abs(int(s)) < n for s, n in zip(shift_px, array.shape, strict=True)):
        to = tuple(slice(max(0, int(s)), n + min(0, int(s))) for s, n in zip(shift_px, array.shape, strict=True))
        of = tuple(slice(max(0, -int(s)), n - max(0, int(s))) for s, n in zip(shift_px, array.shape, strict=True))
        result[to] = array[of]
    return result


class GrowthMap:
    """When each place was first covered and last uncovered, on the sample as it lay in the first frame.

    Parameters
    ----------
    shape : tuple of int
        (Y, X)
    classes : sequence of str
    """

    def __init__(self, shape: tuple[int, ...], classes: Sequence[str]) -> None:
        self.classes = classes
        self.arrival = np.full(shape, np.nan, np.float32)
        self.departure = np.full(shape, np.nan, np.float32)
        self._covered = np.zeros(shape, bool)  # at any time
        self._before: np.ndarray | None = None

    def add(self, frame: Frame, drift_px: np.ndarray) -> None:
        """Take the next frame, whose sample has moved by `drift_px` since the first."""
        shift = -np.rint(drift_px).astype(int)
        mask, valid = moved(frame.kept_mask(self.classes), shift), moved(frame.valid, shift)
        now = frame.index if frame.time_s is None else frame.time_s
        if not math.isfinite(now):
            return
        # By index: from frame to frame few places change.
        self.arrival.ravel()[np.flatnonzero(mask > self._covered)] = now
        self._covered |= mask
        if self._before is not None:
            gone = self._before > mask
            if frame.n_valid < frame.labels.size or shift.any():
                # What an artefact hides keeps its state.
                mask = mask | (self._before & ~valid)
                gone &= valid
            self.departure.ravel()[np.flatnonzero(gone)] = now
        self._before = mask

    @property
    def changed(self) -> bool:
        """Whether anything is in it."""
        return bool(np.isfinite(self.arrival).any())


def _interval(before: Frame, frame: Frame) -> float | None:
    """Time between two frames (1 where unknown); None where they have the same time."""
    if frame.time_s is None or before.time_s is None:
        return 1.0
    interval = frame.time_s - before.time_s
    return interval if interval > 0 else None


def _unsure(scale: Scale) -> float:
    return _DISPLACEMENT_PX * scale.pixel ** (1 / len(scale.spacing))


def _touching(regions: Runs, mask: np.ndarray, other: Runs) -> np.ndarray:
    """Connected regions of a mask that share a pixel with `other`, or lie right beside it."""
    of_run = regions.value
    kept = np.zeros(int(of_run.max(initial=0)) + 1, bool)
    for rows in product((0, -1, 1), repeat=len(regions.shape) - 1):
        # A small fast object may have left its old place, but not by more than itself.
        kept[of_run[regions.pairs(other, (*rows, 0), reach_px=1)[0]]] = True
        if kept[1:].all():
            return mask
    of_kept = regions.select(kept[of_run])
    return of_kept.with_values(np.ones(len(of_kept), bool)).painted(np.bool_)


def _with_neighbours(mask: np.ndarray) -> np.ndarray:
    """A mask and its neighbours over faces, edges and corners."""
    for axis in range(mask.ndim):
        grown = mask.copy()
        low, high = ((slice(None),) * axis + (part,) for part in (slice(None, -1), slice(1, None)))
        grown[low] |= mask[high]
        grown[high] |= mask[low]
        mask = grown
    return mask


def _quantiles(front: Front, scale: Scale, row: partial[Measurement], interval: float) -> list[Measurement]:
    distances, lengths = front.displacements(scale.spacing)
    if not len(distances):
        return []
    order = np.argsort(distances)
    share = (np.cumsum(lengths[order]) - lengths[order] / 2) / lengths.sum()
    method = "quantile along the front of the signed distance to the front before"
    return [
        row("front_velocity", float(np.interp(at, share, distances[order])) / interval, side=side, n=len(distances),
            method=method)
        for side, at in (("slowest 5 %", 0.05), ("fastest 5 %", 0.95))
    ]  # fmt: skip


def _asymmetry(front: Front, frame: Frame, axis: str, row: partial[Measurement]) -> Measurement:
    """Net growth to either side of each object's centre along an axis, summed over the objects."""
    from scipy import ndimage

    axes = "zyx"[-frame.labels.ndim :]
    if axis not in axes:
        raise UsageError(f"growth: asymmetry_axis {axis!r} is not an axis of this frame ({', '.join(axes)}).")
    along = axes.index(axis)
    bodies, n = ndimage.label(front.before | front.after, np.ones((3,) * frame.labels.ndim, bool))
    flat = np.flatnonzero(bodies)
    of = bodies.ravel()[flat]
    position = (flat // math.prod(bodies.shape[along + 1 :])) % bodies.shape[along]
    old, new = front.before.ravel()[flat], front.after.ravel()[flat]
    counts = np.bincount(of[old], minlength=n + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.bincount(of[old], weights=position[old], minlength=n + 1) / counts
    # A pixel on the centre counts half to each side.
    side = np.sign(np.round(position - centre[of], 6))
    change = new.astype(float) - old
    right = float(np.sum(change * (side > 0)) + np.sum(change * (side == 0)) / 2)
    left = float(np.sum(change * (side < 0)) + np.sum(change * (side == 0)) / 2)
    method = f"growth along {axis} beyond the centre of each object less that before it, over both"
    if right * left < 0 or right == left == 0:
        return row("growth_asymmetry", math.nan, method=method, n=n, flags=(*frame.scale.flags, "ambiguous"))
    return row("growth_asymmetry", (abs(right) - abs(left)) / (abs(right) + abs(left)), method=method, n=n)
