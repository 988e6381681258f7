"""Pixel sizes and times as people and files write them: text with units, and the sidecar ``NAME.calibration.yaml``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from seg.errors import CalibrationError, DataError, UsageError
from seg.stack import MAX_PIXEL_SIZE_REL_SD, SPATIAL_AXES, Calibration

_UM = {
    "m": 1e6, "meter": 1e6, "metre": 1e6, "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4, "mm": 1e3,
    "millimeter": 1e3, "millimetre": 1e3, "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0, "nm": 1e-3,
    "nanometer": 1e-3, "nanometre": 1e-3, "a": 1e-4, "å": 1e-4, "angstrom": 1e-4, "ångström": 1e-4, "pm": 1e-6,
    "picometer": 1e-6, "picometre": 1e-6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
_S = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "us": 1e-6,
    "microsecond": 1e-6, "ns": 1e-9, "nanosecond": 1e-9, "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0,
    "hour": 3600.0, "d": 86400.0, "day": 86400.0,
}  # fmt: skip
_QUANTITY = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s.,=]*)\s*$")
# Resolution tags come from printing: 72 or 300 dots per inch is 353 or 85 um. Only what a microscope could have
# is believed; 10 um is a 2540 dpi scan.
_LARGEST_RESOLUTION_UM = 10.0


def um_per(unit: str) -> float | None:
    """Micrometres in one `unit` of length as files write it (``µm``, ``micron``, ``Å``, ...); None: not understood."""
    return _per(unit, _UM)


def s_per(unit: str) -> float | None:
    """Seconds in one `unit` of time; None: not understood."""
    return _per(unit, _S)


def _per(unit: str, known: Mapping[str, float]) -> float | None:
    # both mu signs, the escape ImageJ writes, and the Angstrom sign beside the letter
    text = unit.strip().replace("\\u00B5", "u").replace("µ", "u").replace("μ", "u").replace("\u212b", "å")
    for candidate in (text.lower(), text.lower().rstrip("s")):
        if candidate in known:
            return known[candidate]
    return None


def parse_pixel_size(text: str, spatial_axes: str | None = None) -> dict[str, float]:
    """Read a pixel size such as ``"z=1um,y=0.5um,x=0.5um"``, ``"0.5um"``, ``"250nm"`` or ``"2 Å"``.

    Parameters
    ----------
    text : str
        One size for all axes, or one per axis; every number needs its unit.
    spatial_axes : str or None
        The axes there are; default z, y and x.

    Returns
    -------
    dict of str to float
        µm per axis.
    """
    axes = spatial_axes or SPATIAL_AXES
    if "=" not in text:
        size = _quantity(text, _UM, "pixel size", "0.5um")
        return dict.fromkeys(axes, size)
    sizes: dict[str, float] = {}
    for part in text.split(","):
        axis, _, value = part.partition("=")
        axis = axis.strip().lower()
        if axis not in axes or len(axis) != 1:
            raise UsageError(f"Pixel size {text!r} names the axis {axis!r}; expected {', '.join(axes)}.")
        if axis in sizes:
            raise UsageError(f"Pixel size {text!r} names the axis {axis!r} twice.")
        sizes[axis] = _quantity(value, _UM, "pixel size", f"{axis}=0.5um")
    return sizes


def parse_duration_s(text: str) -> float:
    """Read a time such as ``"2s"``, ``"100ms"``, ``"1min"`` or ``"0.5h"``; seconds. The number needs its unit."""
    return _quantity(text, _S, "time", "2s", positive=False)


def parse_rel_sd(text: str) -> float:
    """Read a relative standard deviation such as ``"2%"`` or ``"0.02"``; a share.

    Raises
    ------
    UsageError
        For anything that is not a share from 0 to 0.5; a bare 2 may mean 2 % or 200 % and is refused.
    """
    stripped = text.strip()
    try:
        share = float(stripped.removesuffix("%")) / (100 if stripped.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= MAX_PIXEL_SIZE_REL_SD:
        raise UsageError(f"{text!r} is no relative standard deviation of a pixel size; write it as 2% or 0.02.")
    return share


def _quantity(text: str, units: Mapping[str, float], what: str, example: str, *, positive: bool = True) -> float:
    match = _QUANTITY.match(text)
    if match is None:
        raise UsageError(f"{text!r} is not a {what}; write a number and its unit, such as {example}.")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise UsageError(f"The {what} {text.strip()!r} has no unit; write it with one, such as {example}.")
    factor = _per(unit, units)
    if factor is None:
        raise UsageError(f"The unit {unit!r} of {text.strip()!r} is not known; write {what}s like {example}.")
    value = number * factor
    if not math.isfinite(value) or (positive and value <= 0):
        raise UsageError(f"The {what} {text.strip()!r} must be positive.")
    return value


def resolution_um(pixels_per_unit: float, unit_um: float) -> float | None:
    """Pixel size from a resolution tag, µm; None where it is about printing (72 dpi) rather than a microscope."""
    if not (math.isfinite(pixels_per_unit) and pixels_per_unit > 0):
        return None
    size = unit_um / pixels_per_unit
    return size if 0 < size <= _LARGEST_RESOLUTION_UM else None


def evenly(n_frames: int, interval_s: float, start_s: float = 0.0) -> tuple[float, ...]:
    """Times of `n_frames` frames `interval_s` apart."""
    if not (math.isfinite(interval_s) and interval_s > 0):
        raise CalibrationError(f"The frame interval is {interval_s!r} s; expected a positive number of seconds.")
    return tuple(start_s + i * interval_s for i in range(n_frames))


def beside(path: Path, ending: str) -> Path | None:
    """The sidecar of `path` with this ending: ``image.ome.tif.ENDING`` or ``image.ENDING``; None: there is none."""
    stem = path.name
    while (suffix := Path(stem).suffix) and suffix.lower() in _STRIPPED:
        stem = stem[: -len(suffix)]
    for name in dict.fromkeys((path.name, Path(path.name).stem, stem)):
        candidate = path.with_name(name + ending)
        if candidate.is_file():
            return candidate
    return None


_STRIPPED = {".ome", ".tif", ".tiff", ".zarr"}


@dataclass(frozen=True)
class Sidecar:
    """What ``NAME.calibration.yaml`` says; see `read_sidecar`."""

    axes: str | None = None
    pixel_size_um: Mapping[str, float] | None = None
    frame_interval_s: float | None = None
    frame_times_s: tuple[float, ...] | None = None
    note: str = ""
    pixel_size_rel_sd: float | None = None

    def calibration(self, n_frames: int | None) -> Calibration:
        """Turn the values into a `Calibration` of `n_frames` frames; None: there is no time axis to give times to."""
        times = self.frame_times_s
        if self.frame_interval_s is not None:
            times = None if n_frames is None else evenly(n_frames, self.frame_interval_s)
        return Calibration(self.pixel_size_um or {}, times, "sidecar", self.pixel_size_rel_sd)


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecar of the image or label file `path`; an empty `Sidecar` where there is none.

    The file stands beside the image and is called like it with ``.calibration.yaml`` for the ending (``a.tif`` has
    ``a.calibration.yaml`` or ``a.tif.calibration.yaml``; a folder ``series`` has ``series.calibration.yaml`` beside
    it). Keys, all optional::

        axes: tyx                            # one letter of tczyx per dimension, as stored
        pixel_size_um: {z: 1.0, y: 0.5, x: 0.5}   # or one number for all axes
        pixel_size_rel_sd: 0.02              # standard deviation of the pixel size as a share of it
        frame_interval_s: 2.0                # or frame_times_s: [0, 2, 5]
        note: free text
    """
    file = beside(path, ".calibration.yaml")
    if file is None:
        return Sidecar()
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"The sidecar {file.name} is not readable YAML ({reason}).") from error
    if not isinstance(data, dict):
        raise DataError(f"The sidecar {file.name} must hold keys and values such as `pixel_size_um: 0.5`.")
    known = list(Sidecar.__dataclass_fields__)
    for key in data:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it can hold {', '.join(known)}."
            raise DataError(f"The sidecar {file.name} has an unknown key {key!r}; {hint}")
    interval, times = data.get("frame_interval_s"), data.get("frame_times_s")
    if interval is not None and times is not None:
        raise DataError(f"The sidecar {file.name} gives frame_interval_s and frame_times_s; keep one of them.")
    if times is not None and not isinstance(times, list):
        raise DataError(f"frame_times_s in {file.name} must be a list of seconds, one per frame.")
    axes = data.get("axes")
    return Sidecar(
        axes=str(axes) if axes is not None else None,
        pixel_size_um=_sizes(data.get("pixel_size_um"), file),
        frame_interval_s=None if interval is None else _number(interval, "frame_interval_s", file),
        frame_times_s=None if times is None else tuple(_number(t, "frame_times_s", file) for t in times),
        note=str(data.get("note") or ""),
        pixel_size_rel_sd=_share(data.get("pixel_size_rel_sd"), file),
    )


def _sizes(value: Any, file: Path) -> dict[str, float] | None:
    if value is None:
        return None
    items = value.items() if isinstance(value, dict) else dict.fromkeys(SPATIAL_AXES, value).items()
    sizes = {}
    for axis, size in items:
        if str(axis) not in tuple(SPATIAL_AXES):
            raise DataError(f"pixel_size_um in {file.name} names the axis {axis!r}; expected z, y or x.")
        number = _number(size, "pixel_size_um", file)
        if number <= 0:
            raise DataError(f"pixel_size_um in {file.name} is {size!r} for {axis}; expected a positive number of µm.")
        sizes[str(axis)] = number
    return sizes


def _share(value: Any, file: Path) -> float | None:
    if value is None:
        return None
    number = _number(value, "pixel_size_rel_sd", file)
    if not 0 <= number <= MAX_PIXEL_SIZE_REL_SD:
        raise DataError(
            f"pixel_size_rel_sd in {file.name} is {value!r}; expected a share from 0 to {MAX_PIXEL_SIZE_REL_SD:g}, "
            "such as 0.02 for 2 %."
        )
    return number


def _number(value: Any, key: str, file: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{key} in {file.name} is {value!r}; expected a plain number, the unit is in the key.")
    return float(value)
