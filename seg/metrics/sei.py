"""Interphase shells on metal: thickness from the outer to the inner boundary, roughness of both, cover, texture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

import numpy as np
from scipy import ndimage

from seg.metrics.frame import Frame
from seg.metrics.interface import DIGITISATION_PX
from seg.metrics.sei_texture import contrast_to_noise, shell_texture, texture_name
from seg.metrics.shell import (
    PIXELATION_SD_PX,
    ROUGHNESS_FLOOR_PX,
    Shell,
    core_diameter,
    measure_shell,
    medial_thickness,
)
from seg.metrics.table import Measurement, Scale

# Shell and electrolyte that differ by less than this many times their noise cannot be told apart at sight.
MIN_CONTRAST_TO_NOISE = 1.5
MIN_CV_THICKNESS_PX = 5.0
MIN_THICKNESS_PX = 2.0

METHOD = "outer to inner outline, arc-length weighted"


def measure_frame(
    frame: Frame,
    *,
    shell_classes: Sequence[str] = ("sei",),
    core_classes: Sequence[str] = ("deposit", "dendrite"),
    support_classes: Sequence[str] = ("substrate", "separator"),
    outside_classes: Sequence[str] = ("electrolyte",),
    roughness_cutoff_um: float | None = None,
    lattice_periods_um: Sequence[float] = (0.00020, 0.00023, 0.00027, 0.00031),
) -> list[Measurement]:
    """Shell thickness, spread, coverage, roughness, core-to-shell ratio and texture.

    Parameters
    ----------
    frame : Frame
        Texture, and the warning below, need its image.
    shell_classes, core_classes : sequence of str
    support_classes : sequence of str
        May touch the core without being a free surface of it.
    outside_classes : sequence of str
        What lies around the shell. Where the image hardly tells it from the shell (frozen electrolyte often has the
        shell's contrast), all rows on the shell are flagged ``ambiguous``.
    roughness_cutoff_um : float or None
        See `measure_shell`.
    lattice_periods_um : sequence of float
        Distances of lattice planes whose fringes make the shell crystalline; those under 2.5 px cannot be seen.

    Returns
    -------
    list of Measurement
        Per object (connected regions of core and shell that hold both; not in volumes) and for the frame. Volumes are
        measured section by section (in plane) and pooled. Without a shell the thickness is NaN and the coverage 0;
        without a core all is NaN. ``sei_thickness_mean`` by the medial axis stands beside that from outer to inner
        face (`side` ``medial``). ``crystalline_fraction`` and ``sei_texture`` are NaN with ``ambiguous`` where noise
        may hide or feign fringes, and with ``few-pixels`` where no lattice distance is resolved; missing without an
        image.
    """
    shell, core = frame.mask(shell_classes), frame.mask(core_classes)
    ignore = ~frame.valid | frame.mask([name for name in support_classes if name in frame.schema.names])
    options = {"spacing": frame.scale.spacing[-2:], "roughness_cutoff": roughness_cutoff_um}
    if frame.labels.ndim == 3:
        sections = [measure_shell(s, c, ignore=i, **options) for s, c, i in zip(shell, core, ignore, strict=True)]
        pooled = Shell(*(np.concatenate([getattr(s, f.name) for s in sections]) for f in fields(Shell)))
        diameter = core_diameter(core, spacing=frame.scale.spacing)
        return _rows(frame, pooled, diameter, method=f"in plane, section by section; {METHOD}")

    doubt: tuple[str, ...] = ()
    if frame.image is not None and shell.any():
        outside = frame.mask([name for name in outside_classes if name in frame.schema.names])
        contrast = contrast_to_noise(frame.image, shell, outside)
        doubt = ("ambiguous",) if contrast < MIN_CONTRAST_TO_NOISE else ()
    whole = measure_shell(shell, core, ignore=ignore, **options)
    objects, _ = ndimage.label(shell | core, structure=np.ones((3, 3)))
    of_point, of_core_point = objects[tuple(whole.at.T)], objects[tuple(whole.core_at.T)]
    rows: list[Measurement] = []
    diameters, lengths = [], []
    for object_id, box in enumerate(ndimage.find_objects(objects), start=1):
        mine = objects[box] == object_id
        my_core = np.pad(mine & core[box], [_edge_pad(s, n) for s, n in zip(box, objects.shape, strict=True)])
        if not (my_core.any() and (mine & shell[box]).any()):
            continue
        part = whole.part(of_point == object_id, of_core_point == object_id)
        cut = any(s.start == 0 or s.stop == size for s, size in zip(box, objects.shape, strict=True))
        diameters.append(core_diameter(my_core, spacing=frame.scale.spacing))
        lengths.append(part.length)
        rows += _rows(frame, part, diameters[-1], object_id=object_id, cut=cut, doubt=doubt)
    diameter = float(np.average(diameters, weights=lengths)) if sum(lengths) > 0 else math.nan
    rows += _rows(frame, whole, diameter, n=len(diameters), doubt=doubt)
    medial = medial_thickness(shell, core, spacing=frame.scale.spacing)
    error = 1.96 * math.sqrt(2) * DIGITISATION_PX * whole.mean_pixel
    rows.append(
        Measurement(
            "sei_thickness_mean", medial, frame.scale.unit("um"), max(medial - error, 0.0), medial + error, "sei",
            frame.index, frame.time_s, side="medial", n=len(diameters), flags=frame.scale.flags + doubt,
            method="width along the medial axis; interval: each face +-0.5 px",
        )
    )  # fmt: skip
    return rows if frame.image is None else rows + _texture_rows(frame, shell, core, lattice_periods_um)


def _texture_rows(frame: Frame, shell: np.ndarray, core: np.ndarray, periods_um: Sequence[float]) -> list[Measurement]:
    """Crystalline share and texture of a shell, from the image."""
    row = partial(Measurement, unit="1", class_name="sei", frame=frame.index, time_s=frame.time_s)
    if not frame.scale.calibrated:
        why = "lattice distances mean nothing without a pixel size"
        return [row("crystalline_fraction", math.nan, method=why, flags=("uncalibrated",))]
    pixel = math.prod(frame.scale.spacing) ** 0.5
    found = shell_texture(frame.image, shell, core, periods_px=[p / pixel for p in periods_um])
    if found is None:
        why = f"fringes of {min(periods_um) * 1e3:.3g} to {max(periods_um) * 1e3:.3g} nm need pixels 2.5 times smaller"
        return [row("crystalline_fraction", math.nan, method=why, flags=("few-pixels",))]
    method = f"lattice fringes, {found.contrast:.3g} times as strong as the rest; interval: level between both"
    if math.isnan(found.fraction):
        how = f"{method}; noise may hide or feign them"
        return [
            row("crystalline_fraction", math.nan, low=found.low, high=found.high, method=how, flags=("ambiguous",)),
            row("sei_texture", math.nan, method="undecided: noise may hide or feign fringes", flags=("ambiguous",)),
        ]
    name, probability = texture_name(found, shell, core, rng=np.random.default_rng(0))
    return [
        row("crystalline_fraction", found.fraction, low=found.low, high=found.high, method=method),
        row("sei_texture", probability, method=f"{name}; layering index {found.layering:.2g}; resampled patches"),
    ]


def _edge_pad(box: slice, size: int) -> tuple[int, int]:
    """One background pixel on each side of a cut-out, but none where the frame cuts the object."""
    return int(box.start > 0), int(box.stop < size)


def _rows(
    frame: Frame,
    shell: Shell,
    diameter: float,
    *,
    object_id: int | None = None,
    n: int | None = None,
    cut: bool = False,
    method: str = METHOD,
    doubt: tuple[str, ...] = (),
) -> list[Measurement]:
    """Write the metrics of one shell, or of all of them, as rows."""
    scale: Scale = frame.scale
    mean, sd, pixel = shell.mean, shell.sd, shell.mean_pixel
    cv = sd / mean if mean >= MIN_CV_THICKNESS_PX * pixel else math.nan
    thin = ("few-pixels",) if mean < MIN_THICKNESS_PX * pixel else ()
    thin_cv = ("few-pixels",) if mean < MIN_CV_THICKNESS_PX * pixel else ()
    common = scale.flags + (("touches-border",) if cut else ()) + doubt

    # Either face of a mask may lie half a pixel off as a whole (uniform): this does not average out along the shell.
    mean_error = 1.96 * math.sqrt(2) * DIGITISATION_PX * pixel
    # Thickness is correlated over about its own value; the spread has the usual 1/sqrt(2n) error over such stretches.
    stretches = max(shell.length / max(mean, 4 * pixel), 2.0) if shell.length > 0 else math.nan
    sd_error = math.hypot(1.96 * sd / math.sqrt(2 * stretches), PIXELATION_SD_PX * pixel)
    core_points = shell.core_weight.sum() / pixel if shell.length > 0 else shell.core_weight.sum()
    coverage = shell.coverage
    # A gap has two ends, each known to half a pixel.
    covered = shell.core_covered
    ends = 2 + np.count_nonzero(np.diff(covered.astype(np.int8))) if len(covered) else 0
    coverage_error = 1.96 * DIGITISATION_PX * math.sqrt(ends) / core_points if core_points > 0 else math.nan
    ratio = diameter / mean if mean > 0 else math.nan
    ratio_error = ratio * mean_error / mean if mean > 0 else math.nan

    def row(metric: str, value: float, error: float, unit: str, how: str, flags: tuple[str, ...]) -> Measurement:
        value, error = float(value), float(error)
        high = value + error if metric != "sei_coverage" else min(value + error, 1.0)
        return Measurement(
            metric, value, unit, low=max(value - error, 0.0) if math.isfinite(value) else math.nan, high=high,
            class_name="sei", frame=frame.index, time_s=frame.time_s, object_id=object_id, n=n, method=how,
            flags=common + flags,
        )  # fmt: skip

    # Roughness is correlated over a few thicknesses; the pixel floor is subtracted.
    rough = [shell.roughness(inner=inner) for inner in (True, False)]
    away = shell.weight[np.isfinite(shell.deviation)].sum()  # from the ends of a broken shell
    seen = [stretches, max(stretches * away / shell.length, 2.0) if shell.length > 0 else math.nan]
    rough_errors = [
        math.hypot(1.96 * r / math.sqrt(2 * s), ROUGHNESS_FLOOR_PX * pixel) for r, s in zip(rough, seen, strict=True)
    ]
    torn = ("ambiguous",) if math.isnan(rough[1]) and shell.length > 0 else ()
    um = scale.unit("um")
    how = "rms deviation from the smoothed boundary, up to 8 thicknesses or the width; pixelation removed"
    floor = f"{method}; pixelation floor {PIXELATION_SD_PX} px subtracted in quadrature"
    return [
        row("sei_thickness_mean", mean, mean_error, um, f"{method}; interval: each face +-0.5 px", thin),
        row("sei_thickness_sd", sd, sd_error, um, floor, thin),
        row("sei_thickness_cv", cv, sd_error / mean if mean > 0 else math.nan, "1", floor, thin_cv),
        row("sei_coverage", coverage, coverage_error, "1", "share of free core boundary with at least 1 px", ()),
        row("sei_roughness_inner", rough[0], rough_errors[0], um, f"under the shell, {how}", thin),
        row("sei_roughness_outer", rough[1], rough_errors[1], um, f"away from the ends of a broken shell, {how}",
            thin + torn),
        row("core_to_sei_ratio", ratio, ratio_error, "1", "largest inscribed circle of the core over mean thickness",
            thin),
    ]  # fmt: skip
