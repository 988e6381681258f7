"""Pits that stripping leaves: number, size, depth and volume, growth by direction, and what later nuclei prefer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from seg.errors import UsageError
from seg.metrics import counting, size
from seg.metrics.enrichment import enrichment
from seg.metrics.frame import Frame
from seg.metrics.pits_depth import Depth, depths_from_heights, depths_from_volume
from seg.metrics.point_pattern import N_SIMULATIONS, Window
from seg.metrics.table import Measurement
from seg.objects import ObjectPixels, cut_objects, equivalent_diameter, label_objects
from seg.uncertainty import lost_to_blur_px, shifted_sizes

MIN_NUCLEI = 10
# What nuclei change that are taken for pits: small ones are as many as large ones, but cover little and are not
# followed for long, so that opening areas, rates and anisotropy stay.
COUNTED = ("pit_count", "pit_density", "pit_diameter", "memory_fraction")


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("pit",),
    nucleus_classes: Sequence[str] = ("deposit", "dendrite"),
    surface_classes: Sequence[str] = ("substrate", "deposit"),
    band_um: float | None = None,
    sectors: int = 8,
    height_um_per_grey: float | None = None,
    n_simulations: int = N_SIMULATIONS,
    seed: int = 0,
) -> list[Measurement]:
    """Pits of one frame, seen from above, or of one volume.

    Parameters
    ----------
    frame : Frame
        Where its objects are the pits their ids are kept, else pits are labelled here.
    classes : sequence of str
        What is a pit.
    nucleus_classes : sequence of str
        Metal whose preference for the rims is tested; none: no test.
    surface_classes : sequence of str
        The surface that pits lie in: depths count from the plane through it.
    band_um : float or None
        Width of the rim (px for uncalibrated frames); None: the mean diameter of the nuclei.
    sectors : int
        Directions in which the size of every pit is given, for rates by direction; 0: none.
    height_um_per_grey : float or None
        For height maps: the image is the height of the surface, in these units per grey level. It gives depths and
        volumes to a plan view.
    n_simulations, seed : int
        Random arrangements behind the p value of the enrichment.

    Returns
    -------
    list of Measurement
        Frame: ``pit_count`` and ``pit_density`` by the counting-frame rule with exact Poisson intervals,
        ``pit_opening_area`` (total), ``pit_diameter`` (mean, corrected for pits that the frame cuts), and with nuclei
        ``rim_enrichment`` and ``enrichment_p``. Each pit: ``pit_opening_area``, ``pit_diameter`` (with its `side`, in
        a sector: twice the radius of the circle with the same area there), and where depths are known ``pit_depth``,
        ``pit_volume`` and ``aspect_ratio`` (side ``depth over diameter``). Without depths there are no such rows.

    Notes
    -----
    In a volume the opening is measured at the plane of the surface, not by projection: undercut pits are wider
    below. The rim of a pit that nuclei hide in part is completed to its convex hull.
    """
    if sectors < 0 or n_simulations < N_SIMULATIONS:
        raise UsageError(f"pits: sectors must be 0 or more and n_simulations {N_SIMULATIONS} or more; got {sectors} "
                         f"and {n_simulations}.")  # fmt: skip
    pits = _with_pits(frame, classes)
    plan, depths = pits, {}
    if frame.labels.ndim == 3:
        depths = depths_from_volume(pits, surface_classes=surface_classes)
        plan = _seen_from_above(pits)
    elif height_um_per_grey is not None and frame.image is not None:
        depths = depths_from_heights(pits, frame.image * height_um_per_grey, surface_classes=surface_classes)
    rows = _counted(plan, classes)
    rows += _pits(plan, depths, classes, sectors if frame.labels.ndim == 2 else 0)
    if nucleus_classes and frame.labels.ndim == 2:
        rows += _rim(pits, classes, nucleus_classes, band_um, n_simulations, np.random.default_rng([seed, frame.index]))
    return rows


def _with_pits(frame: Frame, classes: Sequence[str]) -> Frame:
    """The frame with its pits as instances."""
    if frame.instances is not None and set(frame.object_classes) == set(classes):
        return frame
    known = [name for name in classes if name in frame.schema.names]
    instances = label_objects(frame.mask(known), scale=frame.scale, min_diameter_px=frame.min_diameter_px)
    return replace(frame, instances=instances, object_classes=tuple(classes))


def _seen_from_above(frame: Frame) -> Frame:
    """Projection along z; where pits lie over each other, the one with the higher id."""
    assert frame.instances is not None
    scale = replace(frame.scale, spacing=frame.scale.spacing[1:])
    labels = np.where(frame.valid.any(axis=0), frame.labels.max(axis=0), 0).astype(frame.labels.dtype)
    return replace(frame, labels=labels, scale=scale, instances=frame.instances.max(axis=0), image=None)


def _counted(frame: Frame, classes: Sequence[str]) -> list[Measurement]:
    """Number, density and mean diameter: the rows of counting and size by the names of pits."""
    names = {"object_count": "pit_count", "areal_density": "pit_density", "mean_equivalent_diameter": "pit_diameter"}
    found = [*counting.measure_frame(frame), *size.measure_frame(frame)]
    rows = [
        replace(row, metric=names[row.metric], class_name="+".join(classes)) for row in found if row.metric in names
    ]
    assert frame.instances is not None
    mask = frame.instances > 0
    unit, pixel = frame.scale.unit("um2"), frame.scale.pixel
    low, high = shifted_sizes(mask, frame.valid)
    n = len(np.unique(frame.instances[mask]))
    high += n * float(lost_to_blur_px(np.zeros(()), 2))
    total = Measurement(
        "pit_opening_area", float(mask.sum()) * pixel, unit, low * pixel, high * pixel, "+".join(classes), frame.index,
        frame.time_s, n=n, method="total as seen; interval: boundary +-0.5 px, blur",
        flags=frame.scale.flags,
    )  # fmt: skip
    return [*rows, total]


def _pits(frame: Frame, depths: dict[int, Depth], classes: Sequence[str], sectors: int) -> list[Measurement]:
    """The rows of every pit."""
    assert frame.instances is not None
    scale = frame.scale
    pixels = ObjectPixels.of(frame.instances)
    cut = cut_objects(frame, pixels)
    um, um2, um3 = (scale.unit(unit) for unit in ("um", "um2", "um3"))
    rows: list[Measurement] = []
    for pit in np.flatnonzero(pixels.counts):
        flags = (*scale.flags, *(("touches-border",) if cut[pit] else ()))
        if pixels.diameters_px[pit] < frame.min_diameter_px:
            flags = (*flags, "below-detection-limit")
        row = partial(Measurement, class_name="+".join(classes), frame=frame.index, time_s=frame.time_s,
                      object_id=int(pit))  # fmt: skip
        box = tuple(slice(max(a - 2, 0), b + 2) for a, b in zip(pixels.lower[pit], pixels.upper[pit], strict=True))
        mask = frame.instances[box] == pit
        areas = np.array([float(mask.sum()), *shifted_sizes(mask, frame.valid[box])]) * scale.pixel
        method = "as seen; interval: boundary +-0.5 px"
        deep = depths.get(int(pit))
        if deep is not None and math.isfinite(deep.opening):
            areas *= deep.opening / areas[0]
            method = "in the plane of the surface, from the areas under it; interval: boundary +-0.5 px"
        area, low, high = map(float, areas)
        diameters = [float(equivalent_diameter(np.array(a), 2)) for a in (area, low, high)]
        rows += [
            row("pit_opening_area", area, um2, low=low, high=high, method=method, flags=flags),
            row("pit_diameter", diameters[0], um, low=diameters[1], high=diameters[2],
                method=f"circle of the area of the opening, {method}", flags=flags),
        ]  # fmt: skip
        if sectors:
            rows += _sectors(mask, scale.spacing, sectors, partial(row, unit=um, flags=flags))
        if deep is not None:
            ratio = [value / diameters[0] for value in (deep.depth, deep.depth_low, deep.depth_high)]
            own = (*flags, *deep.flags)
            rows += [
                row("pit_depth", deep.depth, um, low=deep.depth_low, high=deep.depth_high, method=deep.method,
                    flags=own),
                row("pit_volume", deep.volume, um3, low=deep.volume_low, high=deep.volume_high, method=deep.method,
                    flags=own),
                row("aspect_ratio", ratio[0], "1", low=ratio[1], high=ratio[2], side="depth over diameter",
                    method="pit_depth over pit_diameter", flags=own),
            ]  # fmt: skip
    return rows


def sector_radii(mask: np.ndarray, *, spacing: Sequence[float], n_sectors: int) -> np.ndarray:
    """Radius in every direction from the centroid: that of the circle with the same area in the sector.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        One pit.
    spacing : sequence of float
    n_sectors : int
        The first is centred on the x axis; they go round counter-clockwise (towards falling y).

    Returns
    -------
    ndarray of float, shape (n_sectors,)

    Notes
    -----
    Pixels that the border between two sectors cuts are shared out by 25 points in each.
    """
    at = np.argwhere(mask).astype(float)
    if not len(at):
        return np.full(n_sectors, math.nan)
    centre = at.mean(axis=0)
    fine = (np.arange(5) - 2) / 5
    points = (at[:, None, None] + np.stack(np.meshgrid(fine, fine, indexing="ij"), axis=-1)[None]).reshape(-1, 2)
    y, x = ((points - centre) * np.asarray(spacing)).T
    turn = 2 * math.pi / n_sectors
    which = np.floor((np.arctan2(-y, x) + turn / 2) / turn).astype(int) % n_sectors
    areas = np.bincount(which, minlength=n_sectors) * math.prod(spacing) / 25
    return np.asarray(np.sqrt(2 * areas / turn))


def sector_name(k: int, n_sectors: int) -> str:
    """Word for a sector, by the direction of its middle."""
    return f"towards {360 * k / n_sectors:.4g} deg"


def _sectors(
    mask: np.ndarray, spacing: tuple[float, ...], n_sectors: int, row: partial[Measurement]
) -> list[Measurement]:
    radii = sector_radii(mask, spacing=spacing, n_sectors=n_sectors)
    method = f"twice the radius of the circle with the area of a sector of {360 / n_sectors:.4g} deg"
    return [row("pit_diameter", 2 * radius, side=sector_name(k, n_sectors), method=method)
            for k, radius in enumerate(radii)]  # fmt: skip


def whole_pits(instances: np.ndarray, fillers: np.ndarray) -> np.ndarray:
    """Pits with what metal on them hides: each is completed to its convex hull where `fillers` allow; bool."""
    from skimage.morphology import convex_hull_image

    whole = instances > 0
    for pit, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mine = instances[box] == pit
        if np.count_nonzero(mine) > 3 and min(mine.shape) > 1:
            whole[box] |= convex_hull_image(mine) & fillers[box]
    return whole


def _rim(
    frame: Frame, classes: Sequence[str], nucleus_classes: Sequence[str], band_um: float | None, n_simulations: int,
    rng: np.random.Generator,
) -> list[Measurement]:  # fmt: skip
    """Whether the nuclei of a frame prefer the rims of its pits; nothing where there are no nuclei or no pits."""
    assert frame.instances is not None
    metal = frame.mask([name for name in nucleus_classes if name in frame.schema.names])
    if not metal.any() or not frame.instances.any():
        return []
    spacing = frame.scale.spacing
    nuclei = label_objects(metal, scale=frame.scale, min_diameter_px=frame.min_diameter_px)
    pixels = ObjectPixels.of(nuclei)
    ids = np.flatnonzero((pixels.counts > 0) & (pixels.diameters_px >= frame.min_diameter_px))
    diameters = equivalent_diameter(pixels.counts[ids] * frame.scale.pixel, 2)
    points = pixels.centroids[ids] * np.asarray(spacing)
    margin = float(np.quantile(diameters, 0.9)) / 2 if len(diameters) else 0.0
    reference = whole_pits(frame.instances, metal)
    inner, origin = Window(frame.valid, spacing).inner(margin)
    accessible = np.zeros(reference.shape, bool)
    first = np.rint(origin / np.asarray(spacing)).astype(int)
    accessible[tuple(slice(f, f + n) for f, n in zip(first, inner.mask.shape, strict=True))] = inner.mask
    accessible &= ~reference
    row = partial(Measurement, unit="1", class_name="+".join(classes), frame=frame.index, time_s=frame.time_s)
    inside = Window(accessible, spacing).contains(points) if len(points) else np.zeros(0, bool)
    n = int(inside.sum())
    if n < MIN_NUCLEI:
        nothing = partial(row, value=math.nan, n=n, method=f"needs {MIN_NUCLEI} nuclei between the pits",
                          flags=(*frame.scale.flags, "low-confidence"))  # fmt: skip
        return [nothing("rim_enrichment"), nothing("enrichment_p", side="rim")]
    band = float(diameters[inside].mean()) if band_um is None else band_um
    found = enrichment(
        points[inside], reference, accessible, spacing=spacing, band=band, diameters=diameters[inside], rng=rng,
        n_simulations=n_simulations,
    )  # fmt: skip
    of = f"{found.n_near} of {found.n} nuclei within {band:.3g} {frame.scale.unit('um')} of a rim"
    if math.isnan(found.ratio):
        why = partial(row, value=math.nan, n=n, method="no free surface beside the rims, or nothing but rims",
                      flags=(*frame.scale.flags, "regime-not-reached"))  # fmt: skip
        return [why("rim_enrichment"), why("enrichment_p", side="rim")]
    return [
        row("rim_enrichment", found.ratio, low=found.low, high=found.high, n=n, flags=frame.scale.flags,
            method=f"{of}; p = {found.p:.3g} by {n_simulations} random arrangements of the same sizes"),
        row("enrichment_p", found.p, n=n, side="rim", flags=frame.scale.flags,
            method=f"two-sided, {n_simulations} random arrangements on the surface between the pits; {of}"),
    ]  # fmt: skip
