"""Writing stacks as OME-TIFF or OME-Zarr 0.5, frame by frame."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from seg import __version__
from seg.errors import UsageError
from seg.io.ome import NAMESPACE
from seg.io.results import atomic_path, plain
from seg.memory import memory_left_bytes
from seg.stack import Calibration

# Classic TIFF addresses 4 GiB; metadata and tables need room beside the pixels.
_BIGTIFF_BYTES = 3.5e9
_TILE_PX = 512
_STRIP_PLANE_PX = 2048**2  # up to here a plane is one strip, which every TIFF reader knows; larger ones are tiled
_BUFFER_BYTES = 2**26  # planes that are compressed side by side, fewer where memory is short
_OME_DTYPES = ("int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64")
_ZARR_UNITS = {"t": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
_ZARR_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def write_image(
    path: Path | str,
    frames: Iterable[np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype: Any,
    axes: str,
    calibration: Calibration,
) -> None:
    """Write an image stack; one frame is in memory at a time, and `path` changes only when all is written.

    Parameters
    ----------
    path : Path or str
        ``NAME.ome.tif`` (or ``.tif``, also OME) or ``NAME.ome.zarr``.
    frames : iterable of ndarray
        One per time point, each of shape ([C,] [Z,] Y, X); a single one when `axes` has no ``t``.
    shape : tuple of int
        Shape of the whole stack.
    dtype : dtype
        One of the integer types up to 32 bits, float32 or float64; bool is written as uint8.
    axes : str
        Axes of the whole stack, as in `Stack`.
    calibration : Calibration
        Pixel size, and frame times with their unit.
    """
    dtype = np.dtype(dtype)
    write_array(path, frames, shape=shape, dtype=np.dtype(np.uint8) if dtype.kind == "b" else dtype, axes=axes,
                calibration=calibration)  # fmt: skip


def write_array(
    path: Path | str,
    frames: Iterable[np.ndarray],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype,
    axes: str,
    calibration: Calibration,
    extra: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
    zarr_ome: Mapping[str, Any] | None = None,
) -> None:
    """Write frames with our own annotation: `extra` as JSON, `notes` as text for other programs (TIFF), `zarr_ome` as
    further OME attributes (zarr).
    """  # noqa: D205
    path = Path(path)
    shape = tuple(int(n) for n in shape)
    if len(shape) != len(axes) or dtype.name not in _OME_DTYPES:
        raise ValueError(
            f"A stack of axes {axes!r}, shape {shape} and type {dtype} cannot be written; "
            f"expected one length per axis and one of {', '.join(_OME_DTYPES)}."
        )
    own = annotation(extra or {}, axes, shape, calibration)
    checked = _checked(frames, shape, dtype, axes)
    name = path.name.lower()
    if name.endswith((".tif", ".tiff")):
        with atomic_path(path) as part:
            _write_tiff(part, checked, shape, dtype, axes, calibration, own, notes or {})
            next(checked, None)  # notices a frame too many, which the TIFF writer does not ask for
    elif name.endswith(".zarr"):
        with atomic_path(path) as part:
            _write_zarr(part, checked, shape, dtype, axes, calibration, own, zarr_ome or {}, path.name)
    else:
        raise UsageError(f"{path.name!r} is no name for an image; end it in .ome.tif or .ome.zarr.")


def annotation(extra: Mapping[str, Any], axes: str, shape: tuple[int, ...], calibration: Calibration) -> dict[str, Any]:
    """What we write of ourselves into a file."""
    return plain({
        **extra, "axes": axes, "shape": shape,
        "frame_times_s": calibration.frame_times_s, "pixel_size_rel_sd": calibration.pixel_size_rel_sd,
        "software": f"operandoseg {__version__}",
    })  # fmt: skip


def _checked(frames: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, axes: str) -> Iterator[np.ndarray]:
    """The frames, each of the promised shape and type, and as many as promised."""
    expected = shape[1:] if axes.startswith("t") else shape
    n_frames = shape[0] if axes.startswith("t") else 1
    count = 0
    for frame in frames:
        count += 1
        if frame.shape != expected:
            raise ValueError(f"Frame {count - 1} has shape {frame.shape}, expected {expected}.")
        if count > n_frames:
            raise ValueError(f"More than the expected {n_frames} frame(s) were given.")
        if frame.dtype != dtype and not np.can_cast(frame.dtype, dtype, "same_kind"):
            if dtype.kind not in "iu" or frame.dtype.kind not in "iub":
                raise ValueError(f"Frame {count - 1} has type {frame.dtype}, expected {dtype}.")
            info = np.iinfo(dtype)
            if frame.size and (int(frame.min()) < info.min or int(frame.max()) > info.max):
                raise ValueError(f"Frame {count - 1} holds values outside the range of {dtype}.")
        yield np.ascontiguousarray(frame, dtype)
    if count != n_frames:
        raise ValueError(f"{count} frame(s) were given, expected {n_frames}.")


# --- OME-TIFF -------------------------------------------------------------------------------------------------------


def _write_tiff(
    path: Path, frames: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, axes: str,
    calibration: Calibration, own: Mapping[str, Any], notes: Mapping[str, str],
) -> None:  # fmt: skip
    import tifffile

    sizes = calibration.pixel_size_um
    metadata: dict[str, Any] = {"axes": axes.upper()}
    for axis, size in sizes.items():
        metadata[f"PhysicalSize{axis.upper()}"] = float(size)
        metadata[f"PhysicalSize{axis.upper()}Unit"] = "µm"
    times = calibration.frame_times_s
    if times is not None:
        planes_per_frame = math.prod(shape[1:-2]) if axes.startswith("t") else math.prod(shape[:-2])
        deltas = [float(t) for t in times for _ in range(planes_per_frame)]
        metadata["Plane"] = {"DeltaT": deltas, "DeltaTUnit": ["s"] * len(deltas)}
        if (interval := _even_interval(times)) is not None:
            metadata |= {"TimeIncrement": interval, "TimeIncrementUnit": "s"}
    metadata["MapAnnotation"] = {
        "Namespace": NAMESPACE, **notes, **{key: json.dumps(value) for key, value in own.items()},
    }  # fmt: skip
    # The same result is the same file, bit for bit: the identifier comes from what the file says of itself.
    stated = json.dumps([path.name.split(".")[0], shape, str(dtype), axes, metadata], sort_keys=True, default=str)
    metadata["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_URL, stated))
    tiled = shape[-2] * shape[-1] > _STRIP_PLANE_PX
    # Compressed here, so the order of the bytes is ours to keep: that of the file.
    dtype = dtype.newbyteorder("<")
    planes = (np.asarray(plane, dtype) for frame in frames for plane in frame.reshape(-1, *shape[-2:]))
    resolution = None
    if all(1e-5 < sizes.get(axis, 0) < 1e4 for axis in "yx"):
        resolution = (1e4 / sizes["x"], 1e4 / sizes["y"])
    left = memory_left_bytes()
    with tifffile.TiffWriter(
        path, byteorder="<", bigtiff=math.prod(shape) * dtype.itemsize > _BIGTIFF_BYTES, ome=True
    ) as tif:
        tif.write(
            _compressed(_tiles(planes) if tiled else planes, tiled), shape=shape, dtype=dtype, photometric="minisblack",
            compression="zlib", tile=(_TILE_PX, _TILE_PX) if tiled else None,
            rowsperstrip=None if tiled else shape[-2], metadata=metadata, resolution=resolution,
            resolutionunit="CENTIMETER" if resolution else None, software=f"operandoseg {__version__}",
            buffersize=_BUFFER_BYTES if left is None else min(_BUFFER_BYTES, max(left // 16, 2**20)),
        )  # fmt: skip


def _compressed(parts: Iterator[np.ndarray], tiled: bool) -> Iterator[bytes]:
    """Each part as a zlib stream, made in a thread while the next part is: zlib lets go of the interpreter.

    Level 2 of zlib-ng takes a fifth of the time of what TIFF writers do by default.
    """
    import imagecodecs

    encode = imagecodecs.zlibng_encode if imagecodecs.ZLIBNG.available else imagecodecs.zlib_encode
    with ThreadPoolExecutor(1) as beside:
        waiting = None
        for part in parts:  # copied: who makes them may use their memory again for the next one
            # A tile at the edge is stored whole.
            own = np.pad(part, [(0, _TILE_PX - n) for n in part.shape]) if tiled else np.array(part, order="C")
            made = beside.submit(encode, own, level=2)
            if waiting is not None:
                yield waiting.result()
            waiting = made
        if waiting is not None:
            yield waiting.result()


def _tiles(planes: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for plane in planes:
        for y in range(0, plane.shape[0], _TILE_PX):
            for x in range(0, plane.shape[1], _TILE_PX):
                yield plane[y : y + _TILE_PX, x : x + _TILE_PX]


def _even_interval(times: tuple[float, ...]) -> float | None:
    """Frame interval when the frames are evenly spaced to a millionth of it."""
    if len(times) < 2 or times[-1] <= times[0]:
        return None
    interval = (times[-1] - times[0]) / (len(times) - 1)
    even = all(abs(t - times[0] - i * interval) <= 1e-6 * interval for i, t in enumerate(times))
    return interval if even else None


# --- OME-Zarr -------------------------------------------------------------------------------------------------------


def _write_zarr(
    path: Path, frames: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, axes: str,
    calibration: Calibration, own: Mapping[str, Any], ome: Mapping[str, Any], name: str,
) -> None:  # fmt: skip
    largest = {"t": 1, "c": 1, "z": 16, "y": _TILE_PX, "x": _TILE_PX}
    array = create_zarr(path, shape, dtype, axes, calibration, own, ome, name, largest)
    for index, frame in enumerate(frames):
        array[index if axes.startswith("t") else ...] = frame


def create_zarr(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, axes: str, calibration: Calibration, own: Mapping[str, Any],
    ome: Mapping[str, Any], name: str, largest_chunk: Mapping[str, int],
) -> Any:  # fmt: skip
    """An OME-Zarr with all of its metadata and no pixels yet; gives its array."""
    import zarr

    described, scale, shift = [], [], []
    times = calibration.frame_times_s
    interval = _even_interval(times) if times is not None else None
    for axis in axes:
        step = interval if axis == "t" else calibration.pixel_size_um.get(axis)
        # no unit where the size is not known: a scale of 1 without a unit claims nothing
        unit = {"unit": _ZARR_UNITS[axis]} if step is not None else {}
        described.append({"name": axis, "type": _ZARR_TYPES[axis], **unit})
        scale.append(1.0 if step is None else float(step))
        shift.append(float(times[0]) if axis == "t" and times and interval is not None else 0.0)
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(shift):
        transforms.append({"type": "translation", "translation": shift})
    multiscale = {
        "name": name, "axes": described, "datasets": [{"path": "0", "coordinateTransformations": transforms}],
    }  # fmt: skip
    attributes = {"ome": {"version": "0.5", "multiscales": [multiscale], **ome}, "operandoseg": dict(own)}
    group = zarr.create_group(store=str(path), zarr_format=3, attributes=attributes)
    chunks = tuple(min(n, largest_chunk[axis]) for axis, n in zip(axes, shape, strict=True))
    return group.create_array(
        "0", shape=shape, dtype=dtype, chunks=chunks, dimension_names=list(axes), fill_value=0,
    )  # fmt: skip


def write_planes(path: Path, axes: str, frame: int, start: int, planes: np.ndarray) -> None:
    """Write slices along the first spatial axis of one frame into an OME-Zarr of `create_zarr`.

    Parameters
    ----------
    path : Path
    axes : str
        Of the array, without ``c``.
    frame : int
    start : int
        Where the first slice lies.
    planes : ndarray
    """
    import zarr

    rows = slice(start, start + len(planes))
    zarr.open_array(str(path / "0"), mode="r+")[(frame, rows) if "t" in axes else rows] = planes
