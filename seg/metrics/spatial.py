"""Whether the objects of a frame are scattered at random, in clusters or evenly, and prefer the edge of something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from seg.errors import UsageError
from seg.metrics.enrichment import enrichment
from seg.metrics.frame import Frame
from seg.metrics.point_pattern import N_SIMULATIONS, Window, arrangement_test, clark_evans
from seg.metrics.table import Measurement
from seg.objects import equivalent_diameter

MIN_OBJECTS = 10
_LEVEL = 0.05


def measure_frame(
    frame: Frame,
    *,
    reference: Sequence[str] = (),
    band_um: float | None = None,
    n_simulations: int = N_SIMULATIONS,
    every_frames: int = 1,
    seed: int = 0,
) -> list[Measurement]:
    """Arrangement of the objects of a plan-view frame, and their enrichment at a reference.

    Parameters
    ----------
    frame : Frame
        With instances.
    reference : sequence of str
        Classes at whose outline enrichment is tested; none: no enrichment.
    band_um : float or None
        Width of the band to both sides of that outline (px for uncalibrated frames). None: the mean equivalent
        diameter of the objects.
    n_simulations : int
        Random arrangements to compare with; at least 199.
    every_frames : int
        Measure only frames whose number is a multiple of it: the simulations cost more than the other metrics.
    seed : int

    Returns
    -------
    list of Measurement
        ``clark_evans_ratio``, ``ripley_l_max_deviation``, ``spatial_class``; with a reference ``enrichment`` and
        ``enrichment_p``. NaN with the flag ``low-confidence`` for fewer than 10 objects.

    Notes
    -----
    Only objects whose centre lies further inside than the radius of (nine in ten of) the objects are used, in the
    window reduced by the same margin: no centre is displaced by the edge that cuts its object. Objects under the
    detection limit are left out. The Clark-Evans ratio compares with points; objects of finite size read a little
    above 1 without being ordered, which the test behind `spatial_class` takes into account.
    """
    if frame.instances is None:
        raise ValueError("The spatial group needs frame.instances; call label_objects first.")
    if frame.labels.ndim != 2:
        raise UsageError("Metric group 'spatial' is for plan-view images; leave it out of the analysis of volumes.")
    if n_simulations < N_SIMULATIONS or every_frames < 1:
        raise UsageError(
            f"spatial: n_simulations must be {N_SIMULATIONS} or more and every_frames 1 or more; got {n_simulations} "
            f"and {every_frames}."
        )
    if frame.index % every_frames:
        return []
    scale = frame.scale
    rng = np.random.default_rng([seed, frame.index])
    points, diameters, window, origin = _points(frame)
    n = len(points)
    few = n < MIN_OBJECTS
    flags = (*scale.flags, *(("low-confidence",) if few else ()))
    row = partial(
        Measurement, unit="1", class_name="+".join(frame.object_classes), frame=frame.index, time_s=frame.time_s, n=n
    )
    if few:
        nothing = partial(row, value=math.nan, flags=flags, method=f"needs {MIN_OBJECTS} objects inside of the margin")
        names = ("clark_evans_ratio", "ripley_l_max_deviation", "spatial_class")
        rows = [nothing(name) for name in names]
        return rows + [nothing(name) for name in ("enrichment", "enrichment_p") if reference]
    ratio, low, high = clark_evans(points, window, rng=rng)
    expected = "Donnelly's edge correction" if window.is_rectangle else "expectation simulated in the valid area"
    rows = [row("clark_evans_ratio", ratio, low=low, high=high, method=expected, flags=flags)]
    radii, _, test = arrangement_test(points, window, diameters=diameters, rng=rng, n_simulations=n_simulations)
    against = f"{n_simulations} random arrangements of the same sizes"
    reach = f"up to {radii[-1]:.3g} {scale.unit('um')}"
    rows.append(
        row(
            "ripley_l_max_deviation", test.deviation, flags=flags,
            method=f"translation correction, {reach}, half widths of the 95 % envelope of {against}",
        )
    )  # fmt: skip
    named = "random" if test.p > _LEVEL else "clustered" if test.deviation > 0 else "regular"
    rows.append(row("spatial_class", test.p, flags=flags, method=f"{named} (L function, {against})"))
    if reference:
        band = band_um if band_um is not None else float(diameters.mean())
        region = _without_objects(frame.mask(reference), frame.instances)
        rows += _enrichment_rows(
            row, points + origin, diameters, region, frame, window, origin,
            band=band, name="+".join(reference), rng=rng, n_simulations=n_simulations, flags=flags,
        )  # fmt: skip
    return rows


def _points(frame: Frame) -> tuple[np.ndarray, np.ndarray, Window, np.ndarray]:
    """Centres and diameters of the objects used, the reduced window and where its first pixel is in the frame."""
    pixels = frame.pixels
    spacing = frame.scale.spacing
    used = (pixels.counts > 0) & (pixels.diameters_px >= frame.min_diameter_px)
    used[:1] = False
    points = pixels.centroids[used] * np.asarray(spacing)
    diameters = equivalent_diameter(pixels.counts[used] * frame.scale.pixel, 2)
    margin = float(np.quantile(diameters, 0.9)) / 2 if len(diameters) else 0.0
    window, origin = Window(frame.valid, spacing).inner(margin)
    inside = window.contains(points - origin)
    return points[inside] - origin, diameters[inside], window, origin


def _without_objects(region: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Fill what objects inside of a region hide of it: gaps that hold nothing but objects."""
    from scipy import ndimage

    gaps, n = ndimage.label(~region)
    pixels = np.bincount(gaps.ravel(), minlength=n + 1)
    of_objects = np.bincount(gaps.ravel(), weights=(instances > 0).ravel(), minlength=n + 1)
    hidden = pixels == of_objects
    hidden[0] = True  # the region itself
    return np.asarray(hidden[gaps])


def _enrichment_rows(
    row: partial[Measurement],
    points: np.ndarray,
    diameters: np.ndarray,
    region: np.ndarray,
    frame: Frame,
    window: Window,
    origin: np.ndarray,
    *,
    band: float,
    name: str,
    rng: np.random.Generator,
    n_simulations: int,
    flags: tuple[str, ...],
) -> list[Measurement]:
    spacing = frame.scale.spacing
    accessible = np.zeros(region.shape, bool)
    first = np.rint(origin / np.asarray(spacing)).astype(int)
    accessible[tuple(slice(f, f + n) for f, n in zip(first, window.mask.shape, strict=True))] = window.mask
    found = enrichment(
        points, region, accessible, spacing=spacing, band=band, diameters=diameters, rng=rng,
        n_simulations=n_simulations,
    )  # fmt: skip
    method = f"within {band:.3g} {frame.scale.unit('um')} of the outline of {name}, {found.n_near} of {found.n} objects"
    if math.isnan(found.ratio):
        nothing = partial(row, value=math.nan, method=f"no {name} in the frame", flags=(*flags, "regime-not-reached"))
        return [nothing("enrichment"), nothing("enrichment_p")]
    return [
        row("enrichment", found.ratio, low=found.low, high=found.high, method=method, flags=flags),
        row("enrichment_p", found.p, method=f"{method}, {n_simulations} random arrangements", flags=flags),
    ]
