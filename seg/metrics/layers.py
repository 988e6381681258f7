"""Layers: thickness, porosity, roughness of the free face, surface, tortuosity, and the compact interphase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from seg.crofton import shared_boundary
from seg.errors import UsageError
from seg.metrics.columns import Columns, axis_index, scan_columns, unresolved
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.interface import DIGITISATION_PX, wall_roughness_px
from seg.metrics.mesh import interface_areas
from seg.metrics.roughness import roughness
from seg.metrics.table import Measurement
from seg.metrics.tortuosity import diffuse
from seg.uncertainty import OUTLINE_OFFSET_PX

LAYER = ("deposit", "dendrite")
PORES = ("electrolyte", "void")
_POROSITY = "empty between the first and last pixel of its columns; interval: edge of the pores +-0.5 px, blur"
# Of the columns of a layer, this share may reach the end of the frame before its thickness is doubted.
MAX_CUT_SHARE = 0.05
# Of the frames of a cycle, this share may belong to another one before its interphase is refused.
MAX_STRAY = 0.25
# A layer that fewer of the columns hold is open: the current does not flow through what its own columns project to.
CLOSED_SHARE = 0.97
# `side` of the ratio that counts what such a layer leaves bare.
WITH_BASE = "with bare base"
# Blur of the mask before the mesh of the free face, and of that of the pores.
BLURS_PX = (1.0, 0.6)
# Errors of the two, and of Crofton's formula for lengths.
MESH_ERROR, PORE_ERROR, CROFTON_ERROR = 0.03, 0.05, 0.035
# By how much stairs of voxels lengthen paths, at most, per area of wall in a volume (pixels): around cylinders on a
# square grid of 48, 96 and 192 pixels the factor is 2.8, 1.3 and 0.7 % too large, which is 0.36 of that.
STAIRS = 0.45
# Standard deviation of a wall that wanders over 2 px, over what is seen of it (`wall_roughness_px`).
ROUGH_WALLS = 1.7


def measure_frame(
    frame: Frame,
    *,
    layer_classes: Sequence[str] = LAYER,
    pore_classes: Sequence[str] = PORES,
    base_classes: Sequence[str] = ("substrate",),
    interphase_classes: Sequence[str] = ("sei",),
    thickness_axis: str | None = None,
    tortuosity_axis: str | None = None,
    tortuosity_max_voxels: int = 2_000_000,
) -> list[Measurement]:
    """Measure a layer in a volume or a profile.

    Parameters
    ----------
    frame : Frame
    layer_classes : sequence of str
        The solid of the layer.
    pore_classes : sequence of str
        Pores of the layer: its free surface is that between both; diffusion runs through them.
    base_classes : sequence of str
        What the layer lies on; the free face is the other one.
    interphase_classes : sequence of str
        The compact interphase; its thickness is given where a base is in view.
    thickness_axis : str or None
        Across the layer: ``z``, ``y`` or ``x``; None: z in a volume, y in 2-D, which must be a profile.
    tortuosity_axis : str or None
        Axis along which ``tortuosity_factor`` is solved for; None: not at all, for it takes time.
    tortuosity_max_voxels : int
        Of the middle part of the frame that is solved; 2 million take half a minute and 1.5 GB.

    Returns
    -------
    list of Measurement
        ``layer_thickness``: mean over the columns that hold some of the layer, of the length from its first to its
        last pixel, pores included. ``porosity``: the share of that length which is not layer; flagged
        ``below-detection-limit`` where there are no pores, or none as wide as a mask can be trusted to show.
        ``roughness_sa`` and ``roughness_sq`` of the free face, and ``developed_area_ratio``, its area (all that faces
        something other than base and voids) over the projected area of the columns that hold it; of an open volume
        also, with the `side`
        "with bare base", that of the layer and of what is bare of its base over all columns. ``specific_surface``: area
        between solid and pores over the volume between the faces. ``compact_interphase_thickness``: median over its
        columns; 0 where a base but no interphase is in view. In 2-D roughness is that of a profile line, the ratio one
        of lengths, and the specific surface is that of an isotropic structure, ``4 / pi`` times length over area.
        Without a layer: NaN with ``ambiguous``.
    """
    shape = frame.labels.shape
    axis = axis_index(frame, thickness_axis, "layers")
    axis = 0 if axis is None else axis  # y, in 2-D
    layer = [n for n in layer_classes if n in frame.schema.names]
    row = partial(Measurement, class_name="+".join(layer), frame=frame.index, time_s=frame.time_s)
    columns = scan_columns(frame, layer, axis, base_classes=base_classes)
    rows = _thickness_rows(frame, columns, row)
    rows += _face_rows(frame, columns, layer, pore_classes, base_classes, row)
    interphase = [n for n in interphase_classes if n in frame.schema.names]
    if interphase:
        rows += _interphase_rows(frame, axis, interphase, base_classes)
    if tortuosity_axis is not None:
        if tortuosity_axis not in "zyx"[-len(shape) :]:
            raise UsageError(f"layers: tortuosity_axis {tortuosity_axis!r} is not an axis of this frame.")
        rows.append(_tortuosity_row(frame, pore_classes, tortuosity_axis, tortuosity_max_voxels))
    return rows


def measure_whole(history: History) -> list[Measurement]:
    """Compact interphase per cycle, and the current density on the area that the free face really has.

    ``compact_interphase_thickness`` with the cycle as `side` is the median over its frames; NaN with ``ambiguous``
    where a step parts more than a quarter of them from the others, as a clock that does not fit does.
    ``local_current_density`` is the current density over ``developed_area_ratio``. Of an open layer, whose ratio is
    that of the columns that hold it, it is over the area of the layer and of its bare base, flagged ``ambiguous`` (the
    high end is that on the layer alone), and NaN where no base is in view. Both need the cycler, the latter the
    electrode area.
    """
    electrochem, table = history.electrochem, history.table
    if electrochem is None:
        return []
    of_frame = table[table["frame"].notna() & table["value"].notna() & (table["side"] == "")]
    known = electrochem.set_index("frame")
    rows = []
    found = of_frame[of_frame["metric"] == "compact_interphase_thickness"]
    # Frames before or after the record have no cycle, which makes all of them numbers with a point.
    cycles = pd.to_numeric(known["cycle"].reindex(found["frame"].astype(int))).to_numpy(float, na_value=math.nan)
    for cycle in np.unique(cycles[np.isfinite(cycles)]):
        rows.append(_of_cycle(found[cycles == cycle], f"cycle {cycle:.0f}", history.scale.flags))
    if "current_density_mA_per_cm2" not in known:
        return rows
    ratios = table[(table["metric"] == "developed_area_ratio") & table["frame"].notna() & table["value"].notna()]
    # An open layer: on all that is there, where its base is in view.
    for _, ratio in ratios.sort_values("side").groupby("frame").tail(1).iterrows():
        j = abs(float(known["current_density_mA_per_cm2"].get(int(ratio["frame"]), math.nan)))
        if j > 0 and ratio["value"] > 0:
            opened = "ambiguous" in ratio["flags"].split(";") and ratio["side"] != WITH_BASE
            value, low, high = (math.nan if opened else j / ratio[key] for key in ("value", "high", "low"))
            rows.append(
                Measurement(
                    "local_current_density", value, "mA/cm2", low, high,
                    str(ratio["class"]), int(ratio["frame"]), float(ratio["time_s"]),
                    method=f"{j:.4g} mA/cm2 over developed_area_ratio"
                    + (f" {ratio['side']}; high: the layer alone" if ratio["side"] else "")
                    + (", which is of an open layer" * opened),
                    flags=("ambiguous",) * (opened or bool(ratio["side"])),
                )
            )  # fmt: skip
    return rows


def _of_cycle(part: pd.DataFrame, side: str, flags: tuple[str, ...]) -> Measurement:
    """Compact interphase of one cycle: the median over its frames, none where they belong to two thicknesses."""
    values = part["value"].to_numpy(float)
    last, value = part.iloc[-1], float(np.median(values))
    low, high = float(part["low"].median()), float(part["high"].median())
    method = "median over the frames of the cycle"
    # A step in time that parts the frames: some are not of the cycle that the clock gives them.
    for cut in range(1, len(values)):
        before, after = part.iloc[:cut], part.iloc[cut:]
        lower, upper = sorted((before, after), key=lambda one: one["value"].median())
        if min(len(before), len(after)) > MAX_STRAY * len(values) and lower["high"].max() < upper["low"].min():
            gap = upper["value"].min() - lower["value"].max()
            if gap > np.ptp(lower["value"]) + np.ptp(upper["value"]):
                value = low = high = math.nan
                flags = (*flags, "ambiguous")
                method = (
                    f"a step from {before['value'].median():.3g} to {after['value'].median():.3g} after frame "
                    f"{int(before['frame'].iloc[-1])}: does the clock of the cycler fit that of the images?"
                )
    return Measurement(
        "compact_interphase_thickness", value, str(last["unit"]), low, high, str(last["class"]), int(last["frame"]),
        float(last["time_s"]), side=side, n=len(part), method=method, flags=flags,
    )  # fmt: skip


def _thickness_rows(frame: Frame, columns: Columns, row: partial[Measurement]) -> list[Measurement]:
    extents, scale = columns.extents, frame.scale
    flags = (*scale.flags, *(() if len(extents) else ("ambiguous",)))
    # A layer that reaches the frame on its free side, or on both where there is no base, is thicker than what is seen.
    at_low, at_high = (columns.first == 0), (columns.last == columns.length - 1)
    cut = {1: at_high, -1: at_low, 0: at_low | at_high}[columns.outward] & columns.filled
    if len(extents) and np.count_nonzero(cut) > MAX_CUT_SHARE * len(extents):
        flags = (*flags, "touches-border")
    mean = float(extents.mean()) if len(extents) else math.nan
    edge = columns.edge_length
    along = "zyx"[-len(columns.spacing) :][columns.axis]
    thickness = row(
        "layer_thickness", mean, scale.unit("um"), max(mean - edge, 0.0), mean + edge, n=len(extents), flags=flags,
        method=f"mean over columns along {along}, pores included; interval: both faces +-0.5 px",
    )  # fmt: skip
    return [
        thickness,
        row("porosity", *_bounds(columns.porosity), n=len(extents), flags=flags + unresolved(columns),
            method=_POROSITY),
    ]  # fmt: skip


def _bounds(found: tuple[float, float, float]) -> tuple[float, str, float, float]:
    """Value, unit and bounds of a fraction, in the order of `Measurement`."""
    return found[0], "1", found[1], found[2]


def _face_rows(
    frame: Frame, columns: Columns, layer: Sequence[str], pore_classes: Sequence[str], base_classes: Sequence[str],
    row: partial[Measurement],
) -> list[Measurement]:  # fmt: skip
    """Roughness of the free face, its area over the projected one, and the surface per volume."""
    scale, schema, ndim = frame.scale, frame.schema, len(frame.labels.shape)
    flags, um = scale.flags, scale.unit("um")
    across = tuple(s for a, s in enumerate(columns.spacing) if a != columns.axis)
    free = columns.last if columns.outward >= 0 else columns.first
    heights = np.where(columns.filled, free * columns.step, np.nan)
    found = roughness(heights, spacing=across, height_step=columns.step)
    face_flags = flags if columns.outward else (*flags, "no-credible-baseline")
    small = ("few-pixels",) if found.sq < DIGITISATION_PX * columns.step else ()
    kind = "mean plane removed" if ndim == 3 else "profile, mean line removed"
    method = f"{kind}, pixelation removed in quadrature; interval: independent patches"
    rows = []
    for metric, value in (("roughness_sa", found.sa), ("roughness_sq", found.sq)):
        known = value if columns.outward else math.nan
        error = found.sq_error * (value / found.sq if found.sq > 0 else 1.0)
        rows.append(
            row(metric, known, um, max(known - error, 0.0), known + error, n=found.n, method=method,
                flags=face_flags + small)
        )  # fmt: skip
    pores, base = ([n for n in names if n in schema.names] for names in (pore_classes, base_classes))
    inner = [n for n in ("void",) if n in schema.names]

    def read(start: int, stop: int) -> tuple[np.ndarray, ...]:
        labels = np.asarray(frame.labels[start:stop])
        solid = schema.mask(labels, layer)
        outside = ~solid & ~schema.mask(labels, [*base, *inner, *_artifact(frame)]) & (labels != 0)
        return outside, solid, schema.mask(labels, base), schema.mask(labels, pores)

    bare = rounded = 0.0
    if not columns.pixels:
        outer = surface = math.nan
    elif ndim == 3:
        areas = partial(interface_areas, shape=frame.labels.shape, rows=_rows_of(columns), spacing=columns.spacing)

        # The surface of what lies outside: that of the layer alone would be rounded off where it meets its base.
        def from_outside(start: int, stop: int) -> tuple[np.ndarray, ...]:
            outside, solid, base, _ = read(start, stop)
            return outside, solid, base, solid

        def from_inside(start: int, stop: int) -> tuple[np.ndarray, ...]:
            return read(start, stop)[1::2]

        outer, bare, blunt = areas(from_outside, sigma_px=(BLURS_PX[0], BLURS_PX[0], math.sqrt(2) * BLURS_PX[0]))
        (surface,) = areas(from_inside, sigma_px=BLURS_PX[1:])
        rounded = max(outer - blunt, 0.0)
    else:
        outside, solid, _, hollow = read(0, frame.labels.shape[0])
        outer, surface = (shared_boundary(solid, m, spacing=columns.spacing) for m in (outside, hollow))
    error, pore_error = (MESH_ERROR, PORE_ERROR) if ndim == 3 else (CROFTON_ERROR, CROFTON_ERROR)
    how, pore_how = (f"mesh, blur {b:g} px" if ndim == 3 else "Crofton" for b in BLURS_PX)
    flat = len(columns.extents) * math.prod(across)
    # Blur takes from curved faces as its square, which twice the square shows; from edges as itself. The foot of an
    # open layer lies within a pixel.
    foot = 1.96 * DIGITISATION_PX * columns.step * _rim(columns.filled & columns.valid, columns.valid, across)
    low, value, high = (
        (outer + times * rounded) / flat if flat else math.nan for times in (-1, 1, 1 / (math.sqrt(2) - 1))
    )
    low, high = (
        (end * (1 + sign * error) + sign * foot / flat if flat else end) for end, sign in ((low, -1), (high, 1))
    )
    volume = float(columns.extents.sum()) * math.prod(across)
    specific = surface / volume * (1.0 if ndim == 3 else 4 / math.pi) if volume else math.nan
    none = () if columns.pixels else ("ambiguous",)
    share = len(columns.extents) / max(columns.n_valid, 1)
    opened, where = (("ambiguous",), f", over {100 * share:.0f} % of the columns") if share < CLOSED_SHARE else ((), "")
    section = "" if ndim == 3 else "2-D section, isotropic: 4/pi of length over area; "
    real = []
    # fmt: off
    if opened and bare and flat:
        all_of_it, shown = columns.n_valid * math.prod(across), bare / flat
        layer, both, most = (part * flat / all_of_it for part in (low, value + shown, high + shown * (1 + error)))
        real = [row("developed_area_ratio", both, "1", layer, most, n=columns.n_valid, side=WITH_BASE,
                    flags=(*flags, "ambiguous"),
                    method=f"{how}, the layer and what is bare of its base over all columns; low: the layer alone")]
    # fmt: on
    return [
        *rows,
        row(
            "developed_area_ratio",
            value,
            "1",
            low,
            high,
            n=len(columns.extents),
            flags=flags + opened,
            method=f"{how}, all that faces neither base nor voids{where}; interval: method error, rounded edges",
        ),
        *real,
        row(
            "specific_surface",
            specific,
            scale.unit("1/um"),
            specific * (1 - pore_error),
            specific * (1 + pore_error),
            n=columns.pixels,
            flags=flags + none + (() if ndim == 3 else ("extrapolated",)),
            method=f"{section}{pore_how}, solid to {'+'.join(pores)} over the volume between the faces; interval: "
            "method error",
        ),
    ]  # fmt: skip


def _rim(filled: np.ndarray, valid: np.ndarray, spacing: Sequence[float]) -> float:
    """Length (3-D) of the rim of what columns are filled, 4 / pi of which its steps are; in a section its ends."""
    steps = 0.0
    for axis in range(filled.ndim):
        inside = np.take(valid, range(1, valid.shape[axis]), axis) & np.take(valid, range(valid.shape[axis] - 1), axis)
        n = np.count_nonzero(np.diff(filled, axis=axis) & inside)
        steps += n * math.prod(s for a, s in enumerate(spacing) if a != axis)
    return steps * (math.pi / 4 if filled.ndim == 2 else 1.0)


def _interphase_rows(frame: Frame, axis: int, classes: Sequence[str], base_classes: Sequence[str]) -> list[Measurement]:
    """Thickness of the interphase on its base; nothing where no base is in view."""
    base = scan_columns(frame, base_classes, axis)
    if not base.pixels:
        return []
    columns = scan_columns(frame, classes, axis, base_classes=base_classes)
    extents, edge = columns.extents, columns.edge_length
    value = float(np.median(extents)) if len(extents) else 0.0
    share = len(extents) / max(int(np.count_nonzero(base.filled)), 1)
    row = partial(
        Measurement, class_name="+".join(classes), frame=frame.index, time_s=frame.time_s, n=len(extents),
        flags=frame.scale.flags,
    )  # fmt: skip
    rows = [
        row(
            "compact_interphase_thickness", value, frame.scale.unit("um"), max(value - edge, 0.0),
            value + edge if len(extents) else 0.0,
            method=f"median over its columns, {share:.2g} of those of the base; interval: both faces +-0.5 px",
        )
    ]  # fmt: skip
    if len(extents):
        flags = frame.scale.flags + unresolved(columns)
        rows.append(row("porosity", *_bounds(columns.porosity), method=_POROSITY, flags=flags))
    return rows


def _tortuosity_row(frame: Frame, pore_classes: Sequence[str], axis: str, max_voxels: int) -> Measurement:
    """Tortuosity factor of the pores in the middle of the frame."""
    shape, ndim = frame.labels.shape, len(frame.labels.shape)
    part = min(1.0, (max_voxels / math.prod(shape)) ** (1 / ndim))
    box = tuple(slice((n - max(int(n * part), 1)) // 2, (n + max(int(n * part), 1)) // 2) for n in shape)
    pores = [n for n in pore_classes if n in frame.schema.names]
    phase = frame.schema.mask(np.asarray(frame.labels[box]), pores)
    found = diffuse(phase, spacing=frame.scale.spacing, axis="zyx"[-ndim:].index(axis))
    value = found.tortuosity_factor
    seen = "whole frame" if part == 1 else f"middle {' x '.join(str(n) for n in phase.shape)} px"
    known = math.isfinite(value)
    # Stairs of voxels only lengthen paths. Walls that lie off change the share of pores, and with it the factor as its
    # root (Bruggeman); around balls and cylinders it is about that. Between the bumps of rough walls nothing moves, and
    # their pores count: diffusion is that of pores narrower by as much (power 1.5).
    edge = 1.96 * OUTLINE_OFFSET_PX * found.wall_per_volume / 2
    rough = wall_roughness_px(phase, frame.scale.spacing)
    still = 1.5 * ROUGH_WALLS * rough * found.wall_per_volume
    less, more = math.hypot(STAIRS * found.wall_per_volume, edge, still), math.hypot(edge, found.imbalance)
    return Measurement(
        "tortuosity_factor", value if known else math.nan, "1", max(value * (1 - less), 1.0) if known else math.nan,
        value * (1 + more) if known else math.nan, "+".join(pores), frame.index, frame.time_s,
        side=axis, n=phase.size,
        method=f"diffusion along {axis}, {seen}, {found.connected:.3g} of {found.fraction:.3g} connects both faces"
        f"{'' if known else ': none'}; interval: stairs of voxels lengthen paths, walls +-0.5 px"
        f"{f', rough by {rough:.2g} px' if rough > 0.1 else ''}",
        flags=(*(("ambiguous",) if ndim == 2 else ()), *(() if known else ("regime-not-reached",))),
    )  # fmt: skip


def _artifact(frame: Frame) -> list[str]:
    return [n for n in ("artifact",) if n in frame.schema.names]


def _rows_of(columns: Columns) -> tuple[int, int]:
    """First slice, and last plus one, that hold any of the layer."""
    if columns.axis == 0:
        return int(columns.first[columns.filled].min()), int(columns.last[columns.filled].max()) + 1
    hit = np.flatnonzero(columns.filled.any(axis=1))
    return int(hit[0]), int(hit[-1]) + 1
