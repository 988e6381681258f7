"""Voids in metal and at the metal / solid-electrolyte interface: how many, how big, and how much contact they cost.

A volume is read once, slab by slab (`seg.blocks`), so it may be larger than memory; voids are then cut out one by one
for their shape, and the few slices around the interface are read again for its area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from seg.blocks import RegionFinder, Regions, slabs, too_large
from seg.metrics.contact_loss import HALO, ContactCounter, ContactLoss
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.interface import DIGITISATION_PX, crack_points, lowest_height
from seg.metrics.mesh import half_level_mesh, interface_areas, sphericity
from seg.metrics.slopes import robust_slope
from seg.metrics.table import UM2_PER_CM2, Measurement
from seg.uncertainty import BLUR_PX, OUTLINE_OFFSET_PX, lost_to_blur_px

# A region in a larger box (a network through the whole volume) has no shape worth a mesh.
MAX_SHAPE_VOXELS = 64_000_000
# Balls, ellipsoids, lenses and half balls of 3 to 10 voxels radius are read within this (`mesh.sphericity`).
SPHERICITY_ERROR = 0.05
# Part of the interface, around the point nearest to a void, that is taken for a plane unless it is this far from one.
PLANE_PX = 7.0
PLANE_RMS_PX = 0.6
# Part of a void, around its point nearest to the interface, that is taken for a paraboloid; of its radius.
PATCH_SHARE = 0.6
# The most that one of about ten bumps stands out by, in standard deviations (mean of the largest of ten).
NEAREST_BUMP = 1.5
_EDGE = f"interval: mask edge +-0.5 px, and what a blur of {BLUR_PX:g} px takes from a ball"


@dataclass(frozen=True)
class VoidScan:
    """What one pass over a volume says about its voids.

    Parameters
    ----------
    voids : Regions
        Voxels that share a corner belong together (26 neighbours in 3-D, 8 in 2-D).
    n_metal, n_separator : int
        Voxels.
    faces : tuple of int
        Pairs of void and other voxels along each axis.
    contact : ContactLoss
    interface : ndarray of float, shape (N, ndim), or None
        Centres of the faces between separator and metal or void, in pixels; None where they are too many to keep.
    """

    voids: Regions
    n_metal: int
    n_separator: int
    faces: tuple[int, ...]
    contact: ContactLoss
    interface: np.ndarray | None


def scan_voids(
    frame: Frame,
    *,
    void_classes: Sequence[str] = ("void",),
    metal_classes: Sequence[str] = ("deposit", "dendrite"),
    separator_classes: Sequence[str] = ("separator",),
    max_voxels: int | None = None,
) -> VoidScan:
    """Read a volume once and count.

    Parameters
    ----------
    frame : Frame
        ``labels`` may be any array that gives slices along its first axis: in memory, memory map, zarr.
    max_voxels : int or None
        Of a slab (`seg.blocks.slabs`); the result does not depend on it.
    """
    shape, schema = frame.labels.shape, frame.schema
    finder, counter = RegionFinder(shape), ContactCounter(len(shape))
    n_metal = n_separator = 0
    faces = np.zeros(len(shape), np.int64)
    for slab in slabs(shape, halo=HALO, max_voxels=max_voxels):
        labels = np.asarray(frame.labels[slab.read])
        void, metal = schema.mask(labels, void_classes), schema.mask(labels, metal_classes)
        separator = schema.mask(labels, separator_classes)
        ids, _ = finder.add(void, slab)
        n_metal += int(np.count_nonzero(metal[slab.inner]))
        own_separator = int(np.count_nonzero(separator[slab.inner]))
        n_separator += own_separator
        if own_separator or separator.any():
            counter.add(separator, metal | void, ids, slab.inner, slab.read.start)
        else:
            counter.skip(int(ids.max(initial=0)))
        # Pairs along z: those of each owned slice with the slice before it.
        with_before = slice(max(slab.inner.start - 1, 0), slab.inner.stop)
        for axis in range(len(shape)):
            part = void[with_before if axis == 0 else slab.inner]
            faces[axis] += np.count_nonzero(np.diff(part, axis=axis))
    voids = finder.regions()
    return VoidScan(
        voids, n_metal, n_separator, tuple(int(n) for n in faces), counter.result(voids, frame.scale.spacing),
        counter.positions(),
    )  # fmt: skip


def measure_frame(
    frame: Frame,
    *,
    void_classes: Sequence[str] = ("void",),
    metal_classes: Sequence[str] = ("deposit", "dendrite"),
    separator_classes: Sequence[str] = ("separator",),
    filament_classes: Sequence[str] = ("dendrite",),
    min_size_px: int | None = None,
) -> list[Measurement]:
    """Void fraction, count, sizes, sphericity and distance to the interface, and the contact lost at the separator.

    Sizes are given per void (with `object_id`) and for the frame: the total volume, and mean diameter, sphericity and
    distance over voids that lie fully inside, weighted by the inverse chance of that (Miles-Lantuejoul). Voids below
    `min_size_px` (default 3 px along each axis) are counted and flagged. The distance is that between the nearest
    points of void and interface; 0 for a void at the separator. ``void_count`` is also given for voids in contact with
    the separator and for those in the bulk (`side`). In a 2-D section the fraction is one of areas, diameters are those
    of equal-area circles, and there are no volumes, sphericities or interface areas. The rows on contact and distance
    are missing where no separator is labelled. ``interface_area_ratio`` leaves filaments aside, which would add their
    sides to the area of the interface.
    """
    classes = {"void_classes": void_classes, "metal_classes": metal_classes, "separator_classes": separator_classes}
    scan = scan_voids(frame, **classes)
    ndim, regions = len(frame.labels.shape), scan.voids
    smallest = 3**ndim if min_size_px is None else min_size_px
    sizes, cut = regions.sizes[1:], regions.cut[1:]
    tiny = sizes < smallest
    rows = _Rows(frame, ";".join(void_classes))

    section = "" if ndim == 3 else "2-D section: "
    shift = _edge_shift(scan.faces, frame.scale.pixel)
    lost_px = float(lost_to_blur_px(sizes, ndim).sum())
    total_px = int(sizes.sum()) + scan.n_metal
    fraction = sizes.sum() / total_px if total_px else math.nan
    what = "volume" if ndim == 3 else "area"
    rows.add("void_fraction", fraction, "1", shift / (total_px * frame.scale.pixel) if total_px else math.nan,
             f"{section}void {what} / (void + metal) {what}; {_EDGE}", limit=1.0,
             above=lost_px / total_px if total_px else 0.0)  # fmt: skip
    neighbours = f"{section}{3**ndim - 1} neighbours"
    rows.add_count(sizes, tiny, cut, smallest, neighbours)
    touching = scan.contact.touching[1:]
    if scan.n_separator:
        for side, chosen in (("contact", touching), ("bulk", ~touching)):
            how = f"{neighbours}, {'at' if side == 'contact' else 'away from'} the separator"
            rows.add_count(sizes[chosen], tiny[chosen], cut[chosen], smallest, how, side=side)

    diameters, spheres, distances, bumps = _sizes(frame, rows, scan, tiny, void_classes)
    inside = ~cut & ~tiny
    extent = regions.high[1:] - regions.low[1:]
    weights = 1 / np.prod(np.asarray(regions.shape) - extent + 1, axis=1, dtype=float)
    mean_method = f"{section}mean over voids fully inside, Miles-Lantuejoul weights; interval: t"
    edges = f"{mean_method}, outlines off as a whole, blur"
    offset = 1.96 * OUTLINE_OFFSET_PX * frame.scale.pixel ** (1 / ndim)
    grown = np.where(sizes > 0, diameters * (np.power(1 + lost_to_blur_px(sizes, ndim) / sizes, 1 / ndim) - 1), 0.0)
    rows.add_mean("void_diameter", diameters, weights, inside, "um", edges, shared=2 * offset, above=grown)
    if ndim == 3:
        rows.add("void_volume", float(sizes.sum()) * frame.scale.pixel, "um3", shift, f"total of all voids; {_EDGE}",
                 n=regions.count, above=lost_px * frame.scale.pixel)  # fmt: skip
        rows.add_mean("void_sphericity", spheres, weights, inside, "1", f"{mean_method} and the error of the mesh",
                      shared=SPHERICITY_ERROR)  # fmt: skip
    if scan.n_separator:
        rows.add_mean("void_distance_to_interface", distances, weights, inside, "um", edges,
                      shared=math.sqrt(2) * offset, below=np.where(distances > 0, grown / 2, 0.0),
                      above=bumps)  # fmt: skip
        _contact_rows(frame, rows, scan, classes, [c for c in metal_classes if c not in filament_classes])
    return rows.rows


def measure_whole(history: History) -> list[Measurement]:
    """Local current where contact is lost, and how fast voids grow per charge; they need the cycler and the area.

    ``local_current_density`` of a frame is the current density over the share of the interface that still conducts.
    ``void_rate_per_charge`` is the slope of the void volume against the charge through the imaged part of the
    interface, per half-cycle; positive where voids grow, whatever the direction of the current.
    """
    table = history.table
    volumes = _frame_rows(table, "void_volume")
    loss = _frame_rows(table, "contact_loss_fraction")
    electrochem = history.electrochem
    if electrochem is None or "current_density_mA_per_cm2" not in electrochem:
        if len(volumes) < 2:
            return []
        return [
            Measurement(
                "void_rate_per_charge", math.nan, "um3/mAh", class_name="void", flags=("no-current",),
                method="needs a cycler file and the electrode area",
            )
        ]  # fmt: skip
    known = electrochem.set_index("frame")
    density, charge = known["current_density_mA_per_cm2"].abs(), known["areal_capacity_mAh_per_cm2"]
    rows = []
    for frame, row in loss.iterrows():
        if frame in density.index and density[frame] > 0 and row["value"] < 1:
            j = float(density[frame])
            rows.append(
                Measurement(
                    "local_current_density", j / (1 - row["value"]), "mA/cm2", j / (1 - row["low"]),
                    j / (1 - row["high"]) if row["high"] < 1 else math.inf, class_name="void", frame=int(frame),
                    time_s=float(row["time_s"]), method=f"{j:.4g} mA/cm2 over the contact that is left",
                )
            )  # fmt: skip
    areas = _frame_rows(table[table["side"] == "projected"], "interface_area", side="projected")
    if history.scale.calibrated and len(areas) and len(volumes) > 1:
        field_cm2 = float(areas["value"].median()) / UM2_PER_CM2
        rows += _growth_per_charge(history, volumes, charge * field_cm2, field_cm2)
    return rows


def _growth_per_charge(
    history: History, volumes: pd.DataFrame, charge_mAh: pd.Series, field_cm2: float
) -> list[Measurement]:
    """Slope of the void volume against charge, for every half-cycle with two frames."""
    rows = []
    for cycle in history.half_cycles():
        frames = [f for f in cycle.frames if f in volumes.index and math.isfinite(charge_mAh.get(f, math.nan))]
        passed = charge_mAh.reindex(frames).to_numpy(float)
        if cycle.kind == "rest" or len(frames) < 2 or np.ptp(passed) == 0:
            continue
        passed = np.abs(passed - passed[0])
        slope, low, high = robust_slope(passed, volumes["value"].reindex(frames).to_numpy(float))
        rows.append(
            Measurement(
                "void_rate_per_charge", slope, "um3/mAh", low, high, class_name="void", frame=int(frames[-1]),
                time_s=float(volumes["time_s"][frames[-1]]), side=cycle.kind, n=len(frames),
                method=f"Theil-Sen slope of void_volume against charge through {field_cm2 * UM2_PER_CM2:.4g} um2 of "
                f"interface: {cycle.kind} of cycle {cycle.cycle}",
            )
        )  # fmt: skip
    return rows


def _frame_rows(table: pd.DataFrame, metric: str, side: str = "") -> pd.DataFrame:
    """Rows of one metric for whole frames, by frame, those without a value left out."""
    rows = table[(table["metric"] == metric) & table["frame"].notna() & table["object_id"].isna()]
    rows = rows[(rows["side"] == side) & rows["value"].notna()]
    return rows.assign(frame=rows["frame"].astype(int)).drop_duplicates("frame").set_index("frame").sort_index()


class _Rows:
    """Rows of one frame, with what they share."""

    def __init__(self, frame: Frame, class_name: str) -> None:
        self.frame, self.class_name, self.rows = frame, class_name, []

    def add(
        self, metric: str, value: float, unit: str, error: float, method: str, *, object_id: int | None = None,
        n: int | None = None, flags: tuple[str, ...] = (), limit: float = math.inf, side: str = "",
        below: float = 0.0, above: float = 0.0,
    ) -> None:  # fmt: skip
        """Add a row; the interval is wider than the error by `below` and `above`, biases of unknown size."""
        scale = self.frame.scale
        self.rows.append(
            Measurement(
                metric,
                float(value),
                scale.unit(unit),
                low=float(max(value - error - below, 0.0)) if error == error else math.nan,
                high=float(min(value + error + above, limit)) if error == error else math.nan,
                class_name=self.class_name,
                frame=self.frame.index,
                time_s=self.frame.time_s,
                object_id=object_id,
                side=side,
                n=n,
                method=method,
                flags=scale.flags + flags,
            )  # fmt: skip
        )

    def add_count(
        self, sizes: np.ndarray, tiny: np.ndarray, cut: np.ndarray, smallest: int, method: str, side: str = ""
    ) -> None:
        scale, count, n_tiny = self.frame.scale, len(sizes), int(tiny.sum())
        flags = (("below-detection-limit",) if n_tiny else ()) + (("touches-border",) if cut.any() else ())
        self.rows.append(
            Measurement(
                "void_count",
                float(count),
                "1",
                low=float(count - n_tiny),
                high=float(count),
                class_name=self.class_name,
                frame=self.frame.index,
                time_s=self.frame.time_s,
                side=side,
                n=count,
                method=f"{method}; low: without the {n_tiny} below {smallest} px",
                flags=scale.flags + flags,
            )  # fmt: skip
        )

    def add_mean(
        self, metric: str, values: np.ndarray, weights: np.ndarray, keep: np.ndarray, unit: str, method: str,
        shared: float = 0.0, below: np.ndarray | None = None, above: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Add a weighted mean; `shared` is an error (95 %) that all values have in common, `below`, `above` biases."""
        from scipy.special import stdtrit

        keep = keep & np.isfinite(values)
        values, weights, n = values[keep], weights[keep], int(keep.sum())
        mean = float(np.average(values, weights=weights)) if n else math.nan
        error = math.nan
        if n > 1:
            share = weights / weights.sum()
            # Error of a weighted mean; the small-sample factor makes it the usual one at equal weights.
            error = float(stdtrit(n - 1, 0.975)) * math.sqrt(np.sum((share * (values - mean)) ** 2) * n / (n - 1))
            error = math.hypot(error, shared)
        less, more = (
            float(np.average(bias[keep], weights=weights)) if bias is not None and n else 0.0 for bias in (below, above)
        )
        self.add(metric, mean, unit, error, method, n=n, below=less, above=more)


def _sizes(
    frame: Frame, rows: _Rows, scan: VoidScan, tiny: np.ndarray, void_classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Diameter, volume, sphericity and distance of each void as rows; gives all but volumes, and bumps."""
    pixel, ndim, spacing, regions = frame.scale.pixel, len(frame.labels.shape), frame.scale.spacing, scan.voids
    cut, measure = regions.cut[1:], regions.sizes[1:] * pixel
    diameters = 2 * np.sqrt(measure / math.pi) if ndim == 2 else np.cbrt(6 * measure / math.pi)
    lost = lost_to_blur_px(regions.sizes[1:], ndim) * pixel
    grown = diameters * (np.power(1 + lost / measure, 1 / ndim) - 1)
    spheres, distances, bumps = np.full((3, regions.count), math.nan)
    tree = None
    if scan.interface is not None and len(scan.interface):
        tree = KDTree(scan.interface * np.asarray(spacing))
    # An edge that lies half a pixel off moves both ends of a diameter, and one end each of a distance.
    edge = 1.96 * 2 * DIGITISATION_PX * pixel ** (1 / ndim)
    for index in range(regions.count):
        object_id = index + 1
        flags = (("touches-border",) if cut[index] else ()) + (("below-detection-limit",) if tiny[index] else ())
        how = "circle of equal area in a 2-D section" if ndim == 2 else "ball of equal volume"
        rows.add("void_diameter", float(diameters[index]), "um", edge, f"{how}; {_EDGE}", object_id=object_id,
                 flags=flags, above=grown[index])  # fmt: skip
        alone = _alone(frame, regions, object_id, void_classes)
        if ndim == 3:
            if alone is not None:
                spheres[index] = sphericity(alone, spacing=spacing)
            shape_flags = flags + (("few-pixels",) if math.isnan(spheres[index]) and alone is not None else ())
            rows.add("void_volume", float(measure[index]), "um3", 3 * measure[index] * edge / diameters[index],
                     f"voxels; {_EDGE}", object_id=object_id, flags=flags, above=lost[index])  # fmt: skip
            how = "mesh, blur 0.3-0.6 px; interval: method error" if alone is not None else "not given: a network"
            rows.add("void_sphericity", spheres[index], "1", SPHERICITY_ERROR, how, object_id=object_id,
                     flags=shape_flags)  # fmt: skip
        if not scan.n_separator:
            continue
        touches, error = bool(scan.contact.touching[object_id]), math.nan
        if touches:
            distances[index] = bumps[index] = error = 0.0
        elif alone is not None and tree is not None:
            distances[index], error, bumps[index] = _distance(alone, regions.low[object_id], tree, spacing)
        how = "at the separator" if touches else f"nearest point to the plane of the interface there; {_EDGE}"
        rows.add("void_distance_to_interface", distances[index], "um", error, how, object_id=object_id, flags=flags,
                 below=0.0 if touches else grown[index] / 2, above=bumps[index])  # fmt: skip
    return diameters, spheres, distances, bumps


def _alone(frame: Frame, regions: Regions, region: int, void_classes: Sequence[str]) -> np.ndarray | None:
    """One void cut out of the volume; None where its box is too large to be."""
    box = regions.box(region)
    sides = [s.stop - s.start for s in box]
    if math.prod(sides) > MAX_SHAPE_VOXELS or too_large(sides):
        return None
    mask = frame.schema.mask(np.asarray(frame.labels[box]), void_classes)
    return regions.pick(region, mask, corners=True)


def _distance(
    void: np.ndarray, low: np.ndarray, interface: KDTree, spacing: Sequence[float]
) -> tuple[float, float, float]:  # fmt: skip
    """Distance between a void cut out at `low` and the points of an interface, how far it may be off, and too small.

    The first error has both signs (95 %), the second is what the nearest bump of a rough void stands out by.

    The nearest steps of two digital surfaces are 0.2 px too near each other where one is tilted: the void is its mesh
    after a blur of half a pixel, the interface the plane through its points around the nearest one. Where that plane
    lies along the grid, its place within a voxel is not in the mask: 1/sqrt(12) voxel (0.29) is the least error then.
    """
    padded, scale = np.pad(void, 3), np.asarray(spacing, float)
    surface = crack_points(padded, ~padded, spacing).position
    if void.ndim == 3:
        vertices = half_level_mesh(padded, spacing, sigma_px=0.5)[0]
        surface = vertices if len(vertices) else surface
    surface = surface + (low - 3) * scale
    distances, nearest = interface.query(surface)
    closest = int(distances.argmin())
    foot = interface.data[nearest[closest]]
    around = interface.data[interface.query_ball_point(foot, PLANE_PX * scale.max())]
    around = around[np.sum(((around - foot) / scale) ** 2, axis=1) < PLANE_PX**2]
    centre = around.mean(axis=0)
    _, spread, directions = np.linalg.svd(around - centre, full_matrices=False)
    normal = directions[-1] * np.sign((surface[closest] - centre) @ directions[-1] or 1.0)
    across = float(np.linalg.norm(normal * scale))
    error = 1.96 * math.sqrt(2) * DIGITISATION_PX * across
    rms = float(spread[-1]) / math.sqrt(len(around))
    # Where the interface wanders by more than its digitisation, so does the void.
    rough = math.sqrt(2 * max(rms**2 - (DIGITISATION_PX * across) ** 2, 0.0))
    error, bump = math.hypot(error, 1.96 * rough), NEAREST_BUMP * rough / math.sqrt(2)
    if len(around) < 3 * void.ndim or rms > PLANE_RMS_PX * across:
        return float(distances[closest]), error, bump
    size = np.count_nonzero(void) * float(np.prod(scale))
    radius = math.sqrt(size / math.pi) if void.ndim == 2 else (3 * size / (4 * math.pi)) ** (1 / 3)
    return max(lowest_height(surface - centre, normal, within=PATCH_SHARE * radius), 0.0), error, bump


def _contact_rows(
    frame: Frame, rows: _Rows, scan: VoidScan, classes: dict[str, Sequence[str]], wall_classes: Sequence[str]
) -> None:
    """Contact-loss fraction and, in 3-D, the area of the interface."""
    spacing, contact, ndim = frame.scale.spacing, scan.contact, len(frame.labels.shape)
    across = math.prod(spacing[: contact.axis] + spacing[contact.axis + 1 :]) ** (1 / (ndim - 1))
    error = 1.96 * DIGITISATION_PX * across * contact.edge / contact.total if contact.total > 0 else math.nan
    extrapolated = contact.lost != contact.first_layer
    along = "zyx"[-ndim:][contact.axis]
    rows.add("contact_loss_fraction", contact.fraction, "1", error,
             f"{'2-D section: ' if ndim == 2 else ''}projected along {along}, "
             f"{'layers 1-3 extrapolated to the surface' if extrapolated else 'first layer'}; "
             "interval: rim +-0.5 px, blur",
             flags=() if contact.total > 0 else ("ambiguous",), limit=1.0,
             above=_contact_lost_to_blur(contact, ndim, across))  # fmt: skip
    if ndim == 2:
        return
    whole = wall = flat = 0.0
    if scan.interface is None:
        rows_of_interface = (0, len(frame.labels))
    elif len(scan.interface):
        rows_of_interface = (int(scan.interface[:, 0].min()), int(scan.interface[:, 0].max()) + 2)
    if scan.interface is None or len(scan.interface):

        def read(start: int, stop: int) -> tuple[np.ndarray, ...]:
            labels, mask = np.asarray(frame.labels[start:stop]), frame.schema.mask
            void = mask(labels, classes["void_classes"])
            return (
                mask(labels, classes["separator_classes"]), void | mask(labels, classes["metal_classes"]),
                void | mask(labels, wall_classes),
            )  # fmt: skip

        whole, wall = interface_areas(read, frame.labels.shape, rows_of_interface, spacing=spacing)
        flat = contact.total
    what = "separator surface facing metal or void"
    rows.add("interface_area", whole, "um2", 0.03 * whole, f"{what}, mesh, blur 1 voxel; interval: method error 3 %")
    rows.add("interface_area", flat, "um2", 0.0, f"{what}, projected along {along}", side="projected")
    # No surface is less than its projection: what the mesh has lost is thinner than its blur.
    ratio = wall / flat if flat > 0 else math.nan
    rows.add("interface_area_ratio", ratio, "1", 0.03 * ratio,
             f"mesh without filaments, over the projection along {along}; interval: method error 3 %",
             flags=("ambiguous",) if not flat > 0 else ("few-pixels",) if ratio < 0.97 else ())  # fmt: skip


def _contact_lost_to_blur(contact: ContactLoss, ndim: int, across: float) -> float:
    """Share of the interface that patches under voids have lost at most to blur.

    A ball of radius R cut by a plane at any depth shows a disc that loses ``2 pi s**2`` as R loses ``s**2 / R``; a disc
    cut by a line, a chord of half length a that loses ``s**2 / a``.
    """
    if not contact.total > 0:
        return 0.0
    if ndim == 3:
        lost = 2 * math.pi * BLUR_PX**2 * np.count_nonzero(contact.touching) * across**2
    else:
        lost = BLUR_PX**2 * across**2 * contact.edge**2 / (2 * contact.first_layer) if contact.first_layer > 0 else 0.0
    return float(lost) / contact.total


def _edge_shift(faces: Sequence[int], pixel: float) -> float:
    """Change of area or volume (95 %) when the whole edge of a mask may lie half a pixel off."""
    # Faces times the pixel across them; a smooth surface is 2/3 (circle: pi/4) of its voxel faces.
    return 1.96 * OUTLINE_OFFSET_PX * sum(faces) * pixel * (2 / 3 if len(faces) == 3 else math.pi / 4)
