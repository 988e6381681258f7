"""How much of the frame the classes cover, and how much of them there is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from seg.errors import UsageError
from seg.labels import UNLABELLED
from seg.metrics.frame import Frame
from seg.metrics.table import Measurement
from seg.uncertainty import shifted_sizes

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
    valid = frame.valid
    mask = frame.mask(classes)
    n_valid = int(np.count_nonzero(valid))
    flags = (*scale.flags, *(() if n_valid else ("artifact-frame",)))
    row = partial(Measurement, frame=frame.index, time_s=frame.time_s, flags=flags)
    of_classes = partial(row, class_name="+".join(classes))

    size = float(np.count_nonzero(mask))
    sizes = (size, *shifted_sizes(mask, valid))
    if labels.ndim == 3:
        assert axis is not None
        along = axes.index(axis)
        seen, covered = valid.any(axis=along), mask.any(axis=along)
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
            _scaled(of_classes, "volume", sizes, scale.pixel, scale.unit("um3"), n=int(size), method=_BOUNDARY)
        )  # fmt: skip
    if axis is not None:
        # Columns without any valid pixel are no base; in a column with some, the layer is what was seen of it.
        columns = int(valid.any(axis=axes.index(axis)).sum())
        per_column = scale.spacing[axes.index(axis)] * _inverse(columns)
        method = f"per base across {axis}, {_BOUNDARY}"
        rows.append(
            _scaled(of_classes, "mean_thickness", sizes, per_column, scale.unit("um"), n=columns, method=method)
        )
    if pore_classes:
        rows.append(_porosity(frame, mask, valid, pore_classes, of_classes))
    for label_class in schema.classes:
        if label_class.name == "artifact" or label_class.index == UNLABELLED:
            continue
        one = labels == label_class.index
        found = (float(np.count_nonzero(one)), 0.0, 0.0)
        if found[0] == size and label_class.name in classes:  # the only class that covers
            found = sizes
        elif found[0]:
            found = (found[0], *shifted_sizes(one, valid))
        rows.append(
            _scaled(
                partial(row, class_name=label_class.name), "class_fraction", found, _inverse(n_valid), "1",
                n=n_valid, method=_BOUNDARY,
            )
        )  # fmt: skip
    return rows


def _porosity(
    frame: Frame, solid: np.ndarray, valid: np.ndarray, pore_classes: Sequence[str], row: partial[Measurement]
) -> Measurement:
    """Pores over pores and solid; the bounds move the outline of the pores."""
    pores = frame.mask(pore_classes)
    whole = int((pores | solid).sum())
    found = (float(pores.sum()), *shifted_sizes(pores, valid))
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
