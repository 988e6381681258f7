"""From a path to a Stack: which reader, which axes, which calibration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import AxesError, CalibrationError, DataError, SegError, UsageError
from seg.io import arrays
from seg.io.arrays import LazyArray, check_dtype, check_finite, check_size, damaged
from seg.io.calibration import evenly, read_sidecar
from seg.stack import AXES, SPATIAL_AXES, Calibration, Stack

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What the caller says about a file; it overrides the sidecar, which overrides the file.

    Parameters
    ----------
    axes : str or None
        One letter of ``tczyx`` per stored dimension; ``c`` may be left out where the file marks it.
    pixel_size_um : mapping or None
    frame_interval_s : float or None
    pixel_size_rel_sd : float or None
    dataset : str or None
        Data set inside an HDF5 file, resolution level of an OME-Zarr, or number of the image in a TIFF that holds
        several.
    as_labels : bool
        Keep the indices of palette images instead of their colours.
    """

    axes: str | None = None
    pixel_size_um: Mapping[str, float] | None = None
    frame_interval_s: float | None = None
    dataset: str | None = None
    as_labels: bool = False
    pixel_size_rel_sd: float | None = None


NOTHING = Given()


@dataclass
class Raw:
    """What a reader found, before axes and calibration are settled.

    Parameters
    ----------
    data : array-like
        In memory or lazy, dimensions as stored.
    axes : str
        One of ``t c z y x`` per dimension where the file states it, ``?`` where it does not.
    calibration : Calibration
        What the file states; sizes belong to the axes named in `axes`.
    metadata : dict
    keep : str
        Axes that stay although they have length 1.
    close : callable or None
        Closes the file; called once the pixels are in memory or no longer used.
    """

    data: Any
    axes: str
    calibration: Calibration = field(default_factory=Calibration)
    metadata: dict[str, Any] = field(default_factory=dict)
    keep: str = ""
    close: Callable[[], None] | None = None


def guarded(path: Path, read: Callable[[], Stack]) -> Stack:
    """Call `read`; whatever a library below raises becomes one sentence, and its warnings go to the log."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stack = read()
    except SegError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except PermissionError as error:
        raise DataError(f"{path} may not be read: permission denied.") from error
    except Exception as error:
        raise damaged(path.name, error) from error
    for text in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, (UserWarning, RuntimeWarning))):
        logger.warning("%s: %s", path.name, text)
    return stack


def assemble(path: Path, raw: Raw, given: Given) -> Stack:
    """Settle axes, calibration and type of what a reader found, and load it where it is small.

    Parameters
    ----------
    path : Path
    raw : Raw
    given : Given

    Returns
    -------
    Stack
        In memory up to `arrays.LAZY_ABOVE_BYTES`, else lazy. Three equal channels are dropped to one in memory; a
        lazy colour stack keeps its ``c`` axis, as that cannot be known without reading it all.
    """
    try:
        return _assemble(path, raw, given)
    except BaseException:
        if raw.close is not None:
            raw.close()
        raise


def _assemble(path: Path, raw: Raw, given: Given) -> Stack:
    name = path.name
    sidecar = read_sidecar(path)
    shape = tuple(int(n) for n in raw.data.shape)
    check_dtype(raw.data.dtype, name)
    check_size(shape, name)
    letters = _resolve_axes(name, shape, raw, given, sidecar.axes)
    order = [(letter, letters.index(letter)) for letter in AXES if letter in letters]
    order = [(letter, dim) for letter, dim in order if letter != "c" or shape[dim] != 1]
    axes = "".join(letter for letter, _ in order)
    data: Any = LazyArray(raw.data, [dim for _, dim in order], name=name)
    if "c" in axes:
        _check_channels(data.shape[axes.index("c")], name)
    in_memory = isinstance(raw.data, np.ndarray) and not isinstance(raw.data, np.memmap)
    if in_memory or data.nbytes <= arrays.LAZY_ABOVE_BYTES:
        data = data[...]
        check_finite(data, name)
        data, axes = _merge_equal_channels(data, axes)
        if raw.close is not None:
            raw.close()
    elif raw.close is not None:
        data.close_with(raw.close)
    n_frames = data.shape[axes.index("t")] if "t" in axes else None
    interval = given.frame_interval_s
    times = evenly(n_frames, interval) if interval is not None and n_frames is not None else None
    options = Calibration(dict(given.pixel_size_um or {}), times, "options", given.pixel_size_rel_sd)
    calibration = _calibration(name, raw, letters, n_frames or 1).updated(sidecar.calibration(n_frames))
    calibration = _spatial_only(calibration.updated(options), axes)
    missing = ", ".join(a for a in SPATIAL_AXES if a in axes and a not in calibration.pixel_size_um)
    if missing and (given.pixel_size_um or sidecar.pixel_size_um):
        raise CalibrationError(
            f"{name!r} has a pixel size, but not along {missing}; give all axes, such as "
            "--pixel-size z=1um,y=0.5um,x=0.5um."
        )
    if missing and calibration.pixel_size_um:
        logger.warning("%s: no pixel size along %s, so lengths are in px; --pixel-size completes it", name, missing)
    metadata = {**raw.metadata, **({"note": sidecar.note} if sidecar.note else {})}
    return Stack(data, axes, calibration, name, path, metadata)


def _check_channels(count: int, name: str) -> None:
    if count not in (1, 3):
        kind = " (RGBA or CMYK)" if count == 4 else ""
        raise DataError(
            f"{name!r} has {count} channels{kind}; expected 1 (grey) or 3 (RGB). "
            "Save it without the alpha channel, or the channel to analyse alone."
        )


def _merge_equal_channels(data: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    if "c" not in axes:
        return data, axes
    c = axes.index("c")
    channels = np.moveaxis(data, c, 0)
    if len(channels) == 1 or all(np.array_equal(channels[0], other) for other in channels[1:]):
        return np.ascontiguousarray(channels[0]), axes.replace("c", "")
    return data, axes


def _resolve_axes(name: str, shape: tuple[int, ...], raw: Raw, given: Given, sidecar_axes: str | None) -> str:
    """One letter per stored dimension, ``-`` for dimensions of length 1 that are dropped."""
    found = raw.axes
    stated = given.axes if given.axes is not None else sidecar_axes
    if stated is None:
        letters = "".join(
            "-" if size == 1 and a not in "yx" + raw.keep else a for a, size in zip(found, shape, strict=True)
        )
        if "?" in letters:
            raise _ambiguous(name, shape, letters)
        if letters.count("c") > 1 or not {"y", "x"} <= set(letters):
            raise AxesError(f"{name!r} has the axes {found!r} and shape {shape}; name its dimensions with --axes.")
        return letters
    stated = stated.strip().lower()
    if not stated or set(stated) - set(AXES) or len(set(stated)) != len(stated) or not {"y", "x"} <= set(stated):
        kind = UsageError if given.axes is not None else DataError
        raise kind(f"Axes {stated!r} are not understood; name one letter of t c z y x per dimension, y and x included.")
    channel = found.index("c") if found.count("c") == 1 else None
    names = stated.replace("c", "") if channel is not None else stated
    every = [i for i in range(len(shape)) if i != channel]
    choices = (
        every,
        [i for i in every if shape[i] != 1 or found[i] in names],
        [i for i in every if shape[i] != 1],
    )
    dims = next((choice for choice in choices if len(choice) == len(names)), every)
    if channel == 0 and len(dims) < len(names) == len(shape):
        # Three or four planes that the file calls colours, such as tifffile writes them of a short series.
        dims, channel = list(range(len(shape))), None
    if len(dims) != len(names):
        dimensions = "dimension" if len(shape) == 1 else "dimensions"
        raise AxesError(
            f"{name!r} has {len(shape)} {dimensions} {shape}, which the axes {stated!r} do not fit; "
            "name one letter of tczyx per dimension with --axes."
        )
    letters = ["-"] * len(shape)
    for dim, letter in zip(dims, names, strict=True):
        letters[dim] = letter
    if channel is not None and shape[channel] > 1:
        letters[channel] = "c"
    return "".join(letters)


def _ambiguous(name: str, shape: tuple[int, ...], letters: str) -> AxesError:
    unknown = letters.count("?")
    rest = letters.replace("-", "").replace("?", "").replace("c", "")
    sizes = ", ".join(str(n) for n, a in zip(shape, letters, strict=True) if a == "?")
    if rest == "yx" and unknown == 1:
        what = f"whether its axis of length {sizes} is time or depth"
        how = "--axes tyx for a time series or --axes zyx for a volume"
    elif rest == "yx" and unknown == 2:
        what, how = f"what its axes of length {sizes} are", "--axes tzyx for a series of volumes"
    else:
        what, how = f"what its axes of length {sizes} are", "--axes with one letter of tczyx per dimension"
    return AxesError(
        f"{name!r} has shape {shape} and does not say {what}; add {how} (or `axes:` in {name}.calibration.yaml)."
    )


def _calibration(name: str, raw: Raw, letters: str, n_frames: int) -> Calibration:
    """The file's calibration, moved with its dimensions where the user renamed them."""
    stated = raw.calibration
    sizes = {}
    for dim, letter in enumerate(letters):
        # A file may state a size along z and not say which axis that is; once the user names it, it is known.
        own = raw.axes[dim] if raw.axes[dim] != "?" or letter in raw.axes else letter
        if letter in SPATIAL_AXES and own in stated.pixel_size_um:
            sizes[letter] = stated.pixel_size_um[own]
    times = stated.frame_times_s
    if times is not None and len(times) != n_frames:
        logger.warning("%s: the file gives %d frame times for %d frames; not used", name, len(times), n_frames)
        times = None
    if not sizes and times is None:
        return Calibration()
    return Calibration(sizes, times, "file", stated.pixel_size_rel_sd)


def _spatial_only(calibration: Calibration, axes: str) -> Calibration:
    sizes = {a: float(s) for a, s in calibration.pixel_size_um.items() if a in axes}
    known = sizes or calibration.frame_times_s is not None
    return replace(calibration, pixel_size_um=sizes, source=calibration.source if known else "none")
