"""How much of the frame the classes cover, and how much of them there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from seg.blocks import slabs
from seg.errors import UsageError
from seg.labels import UNLABELLED
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement
from seg.uncertainty import shifted_counts, shifted_sizes, sizes_of

_BOUNDARY = "boundary ±0.5 px"


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("deposit", "dendrite"),
    pore_classes: Sequence[str] = (),
    thickness_axis: str | None = None,
) -> list[Measurement]:
    """Covered area and fraction, share of every class, mean thickness, volume and porosity of one frame.

    Parameters
    ----------
    frame : Frame
    classes : sequence of str
        Classes that cover, taken together.
    pore_classes : sequence of str
        Classes that are pores of the solid made of `classes`; none: no ``porosity``.
    thickness_axis : str or None
        Axis along which the layer grows: ``z``, ``y`` or ``x``. None: ``z`` in a volume, and no ``mean_thickness`` in
        2-D, where it has a meaning only in profile.

    Returns
    -------
    list of Measurement
        In 2-D ``covered_area`` counts pixels; in a volume ``covered_area`` and ``covered_fraction`` are those of the
        projection along the thickness axis, and ``volume`` is given. Pixels that are unlabelled or artefact are in
        no numerator and no denominator. Fractions are NaN without any valid pixel, mean thickness too.

    Notes
    -----
    The bounds are the values after the outline has moved in and out by half a pixel: what the mask can be wrong by
    without anybody noticing. They say nothing about how well the frame stands for the sample.
    """
    labels, scale, schema = frame.labels, frame.scale, frame.schema
    axes = "zyx"[-labels.ndim :]
    axis = thickness_axis or ("z" if labels.ndim == 3 else None)
    if axis is not None and axis not in axes:
        raise UsageError(f"cover: thickness_axis {axis!r} is not an axis of this frame ({', '.join(axes)}).")
    along = axes.index(axis) if axis is not None else None
    # Of what covers, of the pores and of every class: one pass over a volume for all.
    shown = [c for c in schema.classes if c.name != "artifact" and c.index != UNLABELLED]
    found = _counted(frame, classes, pore_classes, [c.name for c in shown], along)
    n_valid, sizes = found.n_valid, found.of_classes
    flags = (*scale.flags, *(() if n_valid else ("artifact-frame",)))
    row = partial(Measurement, frame=frame.index, time_s=frame.time_s, flags=flags)
    of_classes = partial(row, class_name="+".join(classes))

    if along is not None:
        seen, covered = found.seen, found.covered
    if labels.ndim == 3:
        assert axis is not None
        assert along is not None
        base, n_base = math.prod(scale.spacing) / scale.spacing[along], int(np.count_nonzero(seen))
        areas = (float(np.count_nonzero(covered)), *shifted_sizes(covered, seen))
        method = f"projected along {axis}, {_BOUNDARY}"
    else:
        base, n_base, areas, method = scale.pixel, n_valid, sizes, _BOUNDARY

    rows = [
        _scaled(of_classes, "covered_area", areas, base, scale.unit("um2"), n=int(areas[0]), method=method),
        _scaled(of_classes, "covered_fraction", areas, _inverse(n_base), "1", n=n_base, method=method),
    ]
    if labels.ndim == 3:
        rows.append(
            _scaled(of_classes, "volume", sizes, scale.pixel, scale.unit("um3"), n=int(sizes[0]), method=_BOUNDARY)
        )  # fmt: skip
    if axis is not None:
        # Columns without any valid pixel are no base; in a column with some, the layer is what was seen of it.
        assert along is not None
        columns = int(np.count_nonzero(seen))
        per_column = scale.spacing[along] * _inverse(columns)
        method = f"per base across {axis}, {_BOUNDARY}"
        rows.append(
            _scaled(of_classes, "mean_thickness", sizes, per_column, scale.unit("um"), n=columns, method=method)
        )
    if pore_classes:
        rows.append(_porosity(frame, found.n_solid_or_pores, found.of_pores, pore_classes, of_classes))
    for label_class, one in zip(shown, found.of_each, strict=True):
        rows.append(
            _scaled(
                partial(row, class_name=label_class.name), "class_fraction", one, _inverse(n_valid), "1",
                n=n_valid, method=_BOUNDARY,
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class _Counted:
    """What one pass over a frame counts: pixels, and sizes with those after the outline moved in and out.

    ``seen`` and ``covered`` are the projections of what is valid and of what covers, where there is an axis.
    """

    n_valid: int
    n_solid_or_pores: int
    of_classes: tuple[float, float, float]
    of_pores: tuple[float, float, float]
    of_each: list[tuple[float, float, float]]
    seen: np.ndarray
    covered: np.ndarray


def _counted(
    frame: Frame, classes: Sequence[str], pore_classes: Sequence[str], each: Sequence[str], along: int | None
) -> _Counted:
    """Read a frame once, slab by slab, and count."""
    shape, schema = frame.labels.shape, frame.schema
    alone = [name for name in each if [name] != list(classes)]
    groups = [list(classes), list(pore_classes), *([name] for name in alone)]
    counts: list[Any] = [0] * len(groups)
    nothing = np.zeros_like(shifted_counts(np.zeros((1,) * len(shape), bool)))
    # Groups that hold the same classes of this frame are the same mask; of two that share a frame between them, one
    # is what the other is not.
    held = [frozenset(frame.present(names)) for names in groups]
    full = frozenset(frame.present(each)) if frame.n_valid == frame.labels.size else None
    n_valid = n_both = 0
    projected = tuple(n for axis, n in enumerate(shape) if axis != along) if along is not None else ()
    seen, covered = np.zeros((2, *projected), bool)
    for slab in slabs(shape, halo=2):
        labels = np.asarray(frame.labels[slab.read])
        valid = np.asarray(frame.valid[slab.read]).copy()
        valid[: slab.inner.start] = valid[slab.inner.stop :] = False
        n_valid += int(np.count_nonzero(valid))
        solid = schema.mask(labels, held[0])
        known = {frozenset(): nothing}
        for k, names in enumerate(held):
            if names not in known:
                known[names] = shifted_counts(solid if k == 0 else schema.mask(labels, names), valid)
                if full is not None:
                    known.setdefault(full - names, _of_the_rest(known[names], np.count_nonzero(valid)))
            counts[k] = counts[k] + known[names]
        if pore_classes:
            n_both += int(np.count_nonzero((solid | schema.mask(labels, held[1]))[slab.inner]))
        if along is not None:
            rows: Any = Ellipsis if along == 0 else slab.owned
            seen[rows] |= valid[slab.inner].any(axis=along)
            covered[rows] |= solid[slab.inner].any(axis=along)
    sizes = [(float(c[0]), *sizes_of(c, len(shape))) for c in counts]
    of_name = dict(zip(alone, sizes[2:], strict=True))
    return _Counted(n_valid, n_both, sizes[0], sizes[1], [of_name.get(name, sizes[0]) for name in each], seen, covered)


def _of_the_rest(counts: np.ndarray, n: int) -> np.ndarray:
    """`shifted_counts` of what a mask leaves of `n` pixels: what it loses the rest gains."""
    lost, won = np.split(counts[1:], 2)
    return np.concatenate([[n - counts[0]], won, lost])


def _porosity(
    frame: Frame, whole: int, found: tuple[float, float, float], pore_classes: Sequence[str], row: partial[Measurement]
) -> Measurement:
    """Pores over pores and solid; the bounds move the outline of the pores."""
    method = f"{'+'.join(pore_classes)} in {'+'.join(pore_classes)}+solid, {_BOUNDARY}"
    if not whole:  # neither pores nor solid
        return row("porosity", math.nan, "1", n=0, method=method, flags=(*frame.scale.flags, "ambiguous"))
    return _scaled(row, "porosity", found, _inverse(whole), "1", n=whole, method=method)


def _scaled(
    row: partial[Measurement], metric: str, sizes: tuple[float, float, float], factor: float, unit: str, *,
    n: int, method: str,
) -> Measurement:  # fmt: skip
    """Make a row from a size in pixels and its bounds; fractions stay within 0 and 1."""
    value, low, high = (size * factor for size in sizes)
    if unit == "1":
        high = min(high, 1.0)
    return row(metric, value, unit, low=low, high=high, n=n, method=method)


def _inverse(n: int) -> float:
    return 1 / n if n else math.nan
