"""TIFF, BigTIFF, OME-TIFF and ImageJ hyperstacks."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import DataError
from seg.io import arrays
from seg.io.calibration import evenly, resolution_um, s_per, um_per
from seg.io.content import head
from seg.io.ome import own_calibration, read_ome
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Calibration, Stack

logger = logging.getLogger(__name__)

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk")
NAME = "TIFF"
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# tifffile reports lost data in its log and goes on with fewer or blank pages; these messages are about lost data.
_LOST = re.compile(
    r"invalid page offset|invalid offset to|corrupted tag list|circular reference|zeroed|series is missing|"
    r"shaped series|incompletely written|index out of range|failed to read|expected \d+ segments|contains no pages|"
    r"missing required tags|missing data|failed to reshape|missing ByteCounts|invalid SubIFDs|OME series raised"
)


def can_open(path: Path) -> bool:
    """Whether the file starts like a TIFF."""
    return head(path, 4) in _MAGIC


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open a TIFF.

    Parameters
    ----------
    path : Path
    given : Given
        ``dataset`` is the number of the image in a file that holds several.

    Returns
    -------
    Stack
        Axes from OME-XML, ImageJ or tifffile's own metadata. Pages without any (or with ImageJ's bare ``images``) are
        ambiguous: time or depth. Pixel size from OME ``PhysicalSize``, from ImageJ's unit, resolution and spacing, or
        from the tags of FEI and Zeiss electron microscopes; from the resolution tags alone only where their unit is cm
        or inch and the size is at most 10 µm, because 72 dpi is about printing. Frame times from OME ``DeltaT`` or
        ``TimeIncrement`` or ImageJ's ``finterval``.
    """

    def load() -> Stack:
        return assemble(path, open_raw(path, given), given)

    return guarded(path, load)


def open_raw(path: Path, given: Given) -> Raw:
    """What the file holds, before its axes are settled."""
    import tifffile

    name = path.name
    # opened here, because tifffile leaves its file open when the header makes it give up
    file = path.open("rb")
    try:
        with lost_data(name):
            tif = tifffile.TiffFile(file)
            if not len(tif.pages):
                raise DataError(f"{name!r} is a TIFF without pages; it is damaged or cut off, export it again.")
            all_series = tif.series
            if tif.is_ome and (not all_series or all_series[0].kind in ("generic", "uniform", "shaped")):
                raise DataError(f"{name!r} has damaged OME metadata or is cut off; export it again.")
            number = _which(name, all_series, given.dataset)
            series = all_series[number]
            shape = tuple(int(n) for n in series.get_shape(False))
            arrays.check_size(shape, name)
            if series.dtype is None:
                raise DataError(f"{name!r} has a pixel type that is not supported; save it as 8 or 16-bit or float.")
            _check_complete(tif, series, name)
            calibration, annotation = _calibration(tif, number, series, name)
            data = _data(path, series, shape)
    except BaseException:
        file.close()
        raise
    axes = _axes(series)
    raw = Raw(data, axes, calibration, {"operandoseg": annotation} if annotation else {}, close=file.close)
    own = str(annotation.get("axes", ""))
    sizes = dict(zip(axes, shape, strict=True))
    if own and annotation.get("shape") == [sizes.get(axis, 1) for axis in own]:
        raw.keep = own
        raw.calibration = own_calibration(annotation, calibration)
    return raw


def _which(name: str, all_series: list[Any], dataset: str | None) -> int:
    """Number of the image to read in a file that holds several."""
    if dataset is None and len(all_series) == 1:
        return 0
    listed = "; ".join(f"{i}: {'x'.join(map(str, s.shape))}" for i, s in enumerate(all_series[:8]))
    if dataset is None:
        raise DataError(
            f"{name!r} holds {len(all_series)} images of different kinds ({listed}); choose one with --dataset NUMBER."
        )
    if not dataset.isdecimal() or int(dataset) >= len(all_series):
        raise DataError(f"{name!r} has no image {dataset!r}; it holds {listed}.")
    return int(dataset)


def _axes(series: Any) -> str:
    """Axes of a series in our letters; ``?`` where tifffile made the letter up."""
    axes = series.get_axes(False)
    known = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x", "S": "c"}
    shape = series.get_shape(False)
    letters = [known.get(letter, "?") for letter in axes]
    if "C" in axes and "S" in axes:
        # OME states both; the one of length 1 is a formality
        letters = ["?" if a in "CS" and n == 1 else k for k, a, n in zip(letters, axes, shape, strict=True)]
    return "".join(letters)


def _data(path: Path, series: Any, shape: tuple[int, ...]) -> Any:
    """The pixels: in memory when small, mapped when stored in one piece, else through tifffile's zarr store."""
    if math.prod(shape) * series.dtype.itemsize <= arrays.LAZY_ABOVE_BYTES:
        return series.asarray().reshape(shape)
    if series.dataoffset is not None:
        dtype = series.dtype.newbyteorder(series.parent.byteorder)
        return np.memmap(path, dtype, "r", offset=series.dataoffset, shape=shape)
    import zarr

    return _Guarded(zarr.open_array(series.aszarr(level=0, squeeze=False), mode="r"), path.name)


class _Guarded:
    """A zarr view of a TIFF that refuses pages tifffile could not read whole."""

    def __init__(self, array: Any, name: str) -> None:
        self._array, self._name, self.shape, self.dtype = array, name, array.shape, array.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        with lost_data(self._name):
            return np.asarray(self._array[key])


def _check_complete(tif: Any, series: Any, name: str) -> None:
    """Raise DataError where pixels lie beyond the end of the file: tifffile would give blank or short pages."""
    size = tif.filehandle.size
    expected = math.prod(series.get_shape(False)) * series.dtype.itemsize
    short = series.dataoffset is not None and series.dataoffset + expected > size
    for page in series.pages:
        if short:
            break
        if page is None:
            raise DataError(f"{name!r} lacks some of its pages; it is damaged or cut off, export it again.")
        pairs = zip(page.dataoffsets, page.databytecounts, strict=False)
        short = any(offset + count > size for offset, count in pairs)
    if short:
        raise DataError(f"{name!r} ends before its last pixel ({size} bytes); it is cut off, copy it again.")


@contextlib.contextmanager
def lost_data(name: str) -> Iterator[None]:
    """Turn tifffile's log messages about lost data into a DataError and its other messages into debug lines."""
    lost: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        message = record.getMessage()
        if record.levelno >= logging.WARNING and _LOST.search(message):
            lost.append(message)
        logger.debug("%s: %s", name, message)
        return False

    theirs = logging.getLogger("tifffile")
    theirs.addFilter(collect)
    try:
        yield
    finally:
        theirs.removeFilter(collect)
    if lost:
        raise DataError(f"{name!r} is damaged or cut off ({_reason(lost[0])}); copy or export it again.")


def _reason(message: str) -> str:
    """A log message of tifffile without the object it starts with."""
    return re.sub(r"<[^<>]*>\s*", "", message).strip()[:120]


# --- calibration ----------------------------------------------------------------------------------------------------


def _calibration(tif: Any, number: int, series: Any, name: str) -> tuple[Calibration, dict[str, Any]]:
    if tif.is_ome and tif.ome_metadata:
        return read_ome(tif.ome_metadata, number, name)
    page = series.keyframe
    if tif.is_imagej and tif.imagej_metadata:
        return _imagej(tif.imagej_metadata, page, series), {}
    stated = _sem(tif)
    if stated:
        return Calibration(stated, None, "file"), {}
    unit = {2: 25400.0, 3: 10000.0}.get(int(page.resolutionunit or 1))
    sizes = {}
    if unit is not None:
        for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
            size = resolution_um(_ratio(page, tag), unit)
            if size is not None:
                sizes[axis] = size
    return Calibration(sizes if len(sizes) == 2 else {}, None, "file"), {}


def _sem(tif: Any) -> dict[str, float]:
    """Pixel size in the private tags of scanning electron microscopes (FEI / Thermo Fisher and Zeiss)."""
    scan = (tif.fei_metadata or {}).get("Scan")
    if isinstance(scan, dict):
        sizes = {"y": _float(scan.get("PixelHeight")) * 1e6, "x": _float(scan.get("PixelWidth")) * 1e6}
        return sizes if min(sizes.values()) > 0 else {}
    entry = (tif.sem_metadata or {}).get("ap_image_pixel_size") or (tif.sem_metadata or {}).get("ap_pixel_size")
    if isinstance(entry, tuple) and len(entry) == 3:
        size = _float(entry[1]) * (um_per(str(entry[2])) or 0.0)
        return {"y": size, "x": size} if size > 0 else {}
    return {}


def _imagej(metadata: dict[str, Any], page: Any, series: Any) -> Calibration:
    """ImageJ: resolution is pixels per `unit`, `spacing` the slice distance, `finterval` the frame interval."""
    sizes = {}
    unit = str(metadata.get("unit", ""))
    for axis, tag in (("y", "YResolution"), ("x", "XResolution")):
        factor = um_per(str(metadata.get(f"{axis}unit", unit)))
        per_unit = _ratio(page, tag)
        if factor is not None and per_unit > 0:
            sizes[axis] = factor / per_unit
    factor = um_per(str(metadata.get("zunit", unit)))
    spacing = _float(metadata.get("spacing"))
    if factor is not None and spacing != 0:
        sizes["z"] = abs(spacing) * factor  # ImageJ writes a negative spacing for stacks recorded top down
    interval = _float(metadata.get("finterval")) * (s_per(str(metadata.get("tunit", "s"))) or 0.0)
    n_frames = dict(zip(series.get_axes(False), series.get_shape(False), strict=True)).get("T", 1)
    return Calibration(sizes, evenly(int(n_frames), interval) if interval > 0 and n_frames > 1 else None, "file")


def _ratio(page: Any, tag: str) -> float:
    value = page.tags.valueof(tag)
    if not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return 0.0
    return float(value[0]) / float(value[1])


def _float(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0
