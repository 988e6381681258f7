"""OME-Zarr 0.4 and 0.5 (and plain zarr arrays); the metadata are read here, the chunks by ``zarr``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import DataError
from seg.io.calibration import s_per, um_per
from seg.io.ome import own_calibration
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Calibration, Stack

SUFFIXES = (".zarr",)
NAME = "OME-Zarr"
_MARKS = ("zarr.json", ".zgroup", ".zarray")
_LETTERS = {"t": "t", "time": "t", "c": "c", "channel": "c", "z": "z", "y": "y", "x": "x"}


def can_open(path: Path) -> bool:
    """Whether the folder is a zarr group or array."""
    try:
        return any((path / mark).is_file() for mark in _MARKS)
    except OSError:
        return False


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open an OME-Zarr image, or a folder inside one that holds an image.

    Parameters
    ----------
    path : Path
    given : Given
        ``dataset`` is the resolution level (``"0"``, the finest, by default).

    Returns
    -------
    Stack
        Axes and units from ``multiscales``; a scale without a unit says nothing and is left out. A plain array
        without ``dimension_names`` is ambiguous beyond two dimensions.
    """
    return guarded(path, lambda: assemble(path, _open(path, given.dataset), given))


def _open(path: Path, level: str | None) -> Raw:
    import zarr

    item = zarr.open(str(path), mode="r")
    if isinstance(item, zarr.Array):
        names = getattr(item.metadata, "dimension_names", None) or ()
        letters = [_LETTERS.get(str(n).lower(), "?") for n in names] or ["?"] * item.ndim
        return Raw(item, _with_image_axes("".join(letters)))
    attributes = dict(item.attrs)
    metadata = attributes.get("ome", attributes)
    multiscales = metadata.get("multiscales") if isinstance(metadata, dict) else None
    if not multiscales:
        images = sorted(name for name, group in item.groups() if _is_image(group))
        if len(images) == 1:  # bioformats2raw puts the only image into the folder 0
            return _open(path / images[0], level)
        listed = f"; it holds the images {', '.join(images)}: pass {path.name}/{images[0]}" if images else ""
        raise DataError(f"{path.name!r} is a zarr group without multiscales metadata{listed}.")
    return _image(path, item, multiscales[0], attributes, level)


def _is_image(group: Any) -> bool:
    attributes = dict(group.attrs)
    metadata = attributes.get("ome", attributes)
    return isinstance(metadata, dict) and bool(metadata.get("multiscales"))


def _image(
    path: Path, group: Any, multiscale: Mapping[str, Any], attributes: Mapping[str, Any], level: str | None
) -> Raw:
    import zarr

    datasets = {str(d["path"]): d for d in multiscale["datasets"]}
    chosen = level if level is not None else next(iter(datasets))
    if chosen not in datasets:
        raise DataError(f"{path.name!r} has no resolution level {chosen!r}; it has {', '.join(datasets)}.")
    array = group.get(chosen)
    if not isinstance(array, zarr.Array):
        raise DataError(f"{path.name!r} lacks its array {chosen!r}; it is incomplete, copy it again.")
    axes = multiscale.get("axes")
    if axes is None:  # versions 0.1 and 0.2 knew five dimensions only
        axes = list("tczyx") if array.ndim == 5 else [""] * array.ndim
    names = [str(a.get("name", "")) if isinstance(a, dict) else str(a) for a in axes]
    units = [str(a.get("unit") or "") if isinstance(a, dict) else "" for a in axes]
    if len(names) != array.ndim:
        raise DataError(f"{path.name!r} names {len(names)} axes but its array has {array.ndim} dimensions.")
    letters = "".join(_LETTERS.get(name.lower(), "?") for name in names)
    calibration = _calibration(multiscale, datasets[chosen], letters, units, array.shape)
    own = attributes.get("operandoseg")
    raw = Raw(array, letters, calibration, {"operandoseg": dict(own)} if isinstance(own, dict) else {})
    if isinstance(own, dict) and own.get("shape") == list(array.shape):
        raw.keep, raw.calibration = letters, own_calibration(own, calibration)
    return raw


def _calibration(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], letters: str, units: list[str], shape: tuple[int, ...]
) -> Calibration:
    scale, shift = np.ones(len(letters)), np.zeros(len(letters))
    for where in (dataset, multiscale):
        for transform in where.get("coordinateTransformations") or []:
            for kind, target in (("scale", scale), ("translation", shift)):
                values = transform.get(kind)
                if transform.get("type") != kind or not isinstance(values, list) or len(values) != len(letters):
                    continue
                if kind == "scale":
                    shift *= np.asarray(values, float)
                    target *= np.asarray(values, float)
                else:
                    target += np.asarray(values, float)
    sizes: dict[str, float] = {}
    times = None
    for letter, unit, step, start, n in zip(letters, units, scale.tolist(), shift.tolist(), shape, strict=True):
        if not (math.isfinite(step) and step > 0):
            continue
        um, s = um_per(unit), s_per(unit)
        if letter in ("z", "y", "x") and um is not None:
            sizes[letter] = step * um
        elif letter == "t" and s is not None:
            times = tuple((start + i * step) * s for i in range(n))
    return Calibration(sizes, times, "file")


def _with_image_axes(letters: str) -> str:
    """Unknown last axes of an array are y and x."""
    return letters[:-2] + "yx" if letters.endswith("??") and not {"y", "x"} & set(letters) else letters
