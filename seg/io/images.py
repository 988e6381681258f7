"""Single PNG, JPEG, GIF and BMP images, and folders of images as time series."""

from __future__ import annotations

import contextlib
import math
import re
import struct
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import DataError
from seg.io import tiff
from seg.io.arrays import check_size, damaged, native_dtype
from seg.io.calibration import resolution_um
from seg.io.content import has_suffix, head
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Calibration, Stack

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
NAME = "image"
IN_FOLDERS = (*SUFFIXES, ".tif", ".tiff")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
# Pillow's modes that hold one number or three colours per pixel; the rest has alpha, four inks or another colour space
_GREY = {"1", "L", "I;16", "I;16B", "I;16L", "I", "F"}
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


def can_open(path: Path) -> bool:
    """Whether the file starts like an image, or the folder holds images."""
    if head(path, 8).startswith(_MAGIC):
        return True
    try:
        return path.is_dir() and bool(folder_images(path))
    except OSError:
        return False


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open an image, an animated image or a folder of images.

    Returns
    -------
    Stack
        An image has axes yx (and c when it has colour); the frames of a GIF and the images of a folder, in natural
        order of their names, are time points (``--axes zyx`` makes them slices). Their times are unknown: those in a
        GIF are for play-back. The pixel size comes from the resolution of a PNG or JPEG only where it is at most
        10 µm.
    """
    return guarded(path, lambda: assemble(path, _folder(path, given) if path.is_dir() else _single(path, given), given))


def folder_images(folder: Path) -> list[Path]:
    """The image files of a folder in natural order; none for a zarr store."""
    if any((folder / mark).exists() for mark in _ZARR_MARKS):
        return []
    files = (p for p in folder.iterdir() if has_suffix(p, IN_FOLDERS) and not p.name.startswith(".") and p.is_file())
    return sorted(files, key=natural_key)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that puts frame 2 before frame 10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


def count_pages(path: Path) -> int:
    """Number of images in an image file; 0 when it cannot be told."""
    try:
        if tiff.can_open(path):
            import tifffile

            with tiff.lost_data(path.name), path.open("rb") as file, tifffile.TiffFile(file) as tif:
                series = tif.series[0]  # one page may hold a whole series, stored in one piece
                inside = [n for n, axis in zip(series.shape, series.axes, strict=True) if axis not in "YXSC"]
                return max(len(tif.pages), math.prod(inside)) if "C" not in series.axes else math.prod(inside)
        with _pillow(path) as image:
            return _n_frames(image)
    except Exception:
        return 0


# --- one file -------------------------------------------------------------------------------------------------------


def _single(path: Path, given: Given) -> Raw:
    with _pillow(path) as image:
        _check_header(path, image.size, image.mode)
        n_frames = _n_frames(image)
        calibration = _resolution(image)
        check_size((n_frames, *image.size), path.name)
        if image.format == "GIF":
            frames = _gif(path)
        else:
            frames = [_pixels(path, image, given, index) for index in range(n_frames)]
    if len(frames) == 1:
        return Raw(frames[0], "yxc"[: frames[0].ndim], calibration)
    data = np.stack(frames)
    return Raw(data, "tyxc"[: data.ndim], calibration)


@contextlib.contextmanager
def _pillow(path: Path) -> Iterator[Any]:
    """An open Pillow image, header read. Pillow's own limit of pixels refuses large mosaics; ours is in check_size."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=("PNG", "JPEG", "GIF", "BMP"))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _n_frames(image: Any) -> int:
    # a photo of a phone may hold a preview as a second image
    return int(getattr(image, "n_frames", 1)) if image.format in ("GIF", "PNG") else 1


def _check_header(path: Path, size: tuple[int, int], mode: str) -> None:
    check_size((size[1], size[0]), path.name, file_bytes=path.stat().st_size)
    if mode not in _GREY | {"P", "RGB"}:
        channels = {"LA": 2, "PA": 2, "La": 2}.get(mode, 4 if mode in {"RGBA", "CMYK", "RGBa", "RGBX"} else 3)
        raise DataError(
            f"{path.name!r} has {channels} channels ({mode}); expected 1 (grey) or 3 (RGB). "
            "Save it without the alpha channel, or the channel to analyse alone."
        )


def _pixels(path: Path, image: Any, given: Given, index: int = 0) -> np.ndarray:
    """Pixels of one frame, shape (Y, X) or (Y, X, 3)."""
    if index:
        image.seek(index)
    image.load()  # an animation settles its mode only now
    if image.mode == "P" and given.as_labels:
        return np.array(image)
    if image.mode == "RGB" and image.format == "PNG" and _is_16_bit(path):
        return _deep_png(path)
    if image.mode in _GREY:
        return np.array(image)
    return np.array(image.convert("RGB"))


def _gif(path: Path) -> list[np.ndarray]:
    """The frames of a GIF, each of shape (Y, X, 3).

    Not through Pillow, which (13.0) gives the first frame again for a second one with a palette of its own.
    """
    import imagecodecs

    content = path.read_bytes()
    # the decoder gives the frames it finds; a GIF that was cut off lacks the semicolon at its end
    if not content.rstrip(b"\0").endswith(b";"):
        raise DataError(f"{path.name!r} ends before its last frame; it is cut off, copy it again.")
    data = np.asarray(imagecodecs.gif_decode(content, asrgb=True))
    return list(data.reshape(-1, *data.shape[-3:]))


def _is_16_bit(path: Path) -> bool:
    return head(path, 25)[24:25] == b"\x10"


def _deep_png(path: Path) -> np.ndarray:
    """A 16-bit RGB PNG, which Pillow would cut to 8 bits."""
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def _resolution(image: Any) -> Calibration:
    dpi = image.info.get("dpi")
    if image.format not in {"PNG", "JPEG"} or not isinstance(dpi, tuple) or len(dpi) != 2:
        return Calibration()
    try:
        x, y = (resolution_um(float(value), 25400.0) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return Calibration()
    return Calibration({"y": y, "x": x}, None, "file") if x is not None and y is not None else Calibration()


# --- folders --------------------------------------------------------------------------------------------------------


class _Frames:
    """The images of a folder as one lazy array, shape (T, Y, X[, 3]); one image in memory at a time."""

    def __init__(self, files: list[Path], shape: tuple[int, ...], dtype: np.dtype, given: Given) -> None:
        self._files, self._given = files, given
        self.shape, self.dtype = (len(files), *shape), dtype

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        frames, *rest = key
        wanted = self._files[frames] if isinstance(frames, slice) else [self._files[frames]]
        part = [_load(path, self._given)[tuple(rest)] for path in wanted]
        if not part:
            return np.empty((0, *np.empty(self.shape[1:], np.uint8)[tuple(rest)].shape), self.dtype)
        return np.stack(part) if isinstance(frames, slice) else part[0]


def _folder(folder: Path, given: Given) -> Raw:
    files = folder_images(folder)
    headers = [_header(path, given) for path in files]
    kinds = Counter(headers)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [(p.name, h) for p, h in zip(files, headers, strict=True) if h != usual]
        listed = ", ".join(f"{name} ({_describe(h)})" for name, h in odd[:3])
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise DataError(
            f"The images in {folder.name!r} differ: most are {_describe(usual)}, but not {listed}{more}. A folder is "
            "one time series of equal images; move the odd ones away, or pass the files one by one (FOLDER/*)."
        )
    shape, dtype = headers[0]
    data = _Frames(files, shape, np.dtype(dtype), given)
    calibration = Calibration()
    if not tiff.can_open(files[0]):
        with _pillow(files[0]) as image:
            calibration = _resolution(image)
    return Raw(data, "tyxc"[: len(data.shape)], calibration)


def _describe(header: tuple[tuple[int, ...], str]) -> str:
    shape, dtype = header
    return f"{shape[0]} x {shape[1]}{' RGB' if len(shape) == 3 else ''} {dtype}"


def _header(path: Path, given: Given) -> tuple[tuple[int, ...], str]:
    """Shape and type of one image of a folder without reading its pixels, where the format allows."""
    if tiff.can_open(path):
        loaded = _load(path, given)
        return loaded.shape, str(loaded.dtype)
    try:
        with _pillow(path) as image:
            _check_header(path, image.size, image.mode)
            if _n_frames(image) > 1:
                raise _not_single(path)
            width, height = image.size
            grey = image.mode in _GREY or (image.mode == "P" and given.as_labels)
            grey = grey and image.format != "GIF"  # always decoded to colours
            deep = image.mode == "RGB" and image.format == "PNG" and _is_16_bit(path)
            dtype = {"1": "uint8", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "int32", "F": "float32"}
            return ((height, width) if grey else (height, width, 3)), "uint16" if deep else dtype.get(
                image.mode, "uint8"
            )
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise damaged(path.name, error) from error


def _load(path: Path, given: Given) -> np.ndarray:
    """One image of a folder, shape (Y, X) or (Y, X, 3)."""
    raw = tiff.open_raw(path, NOTHING) if tiff.can_open(path) else _single(path, given)
    sizes = [(axis, size) for axis, size in zip(raw.axes, raw.data.shape, strict=True) if size != 1 or axis in "yx"]
    letters = "".join(axis for axis, _ in sizes)
    try:
        if letters not in ("yx", "yxc", "cyx"):
            raise _not_single(path)
        data = np.asarray(raw.data[...]).reshape([size for _, size in sizes])
    finally:
        if raw.close is not None:
            raw.close()
    if letters == "cyx":
        data = np.moveaxis(data, 0, -1)
    return data.astype(native_dtype(data.dtype), copy=False)


def _not_single(path: Path) -> DataError:
    return DataError(
        f"{path.name!r} holds several images; a folder is one time series of single images. "
        "Pass the files one by one (FOLDER/*)."
    )
