"""The readers, and opening a file with the one that knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from seg.errors import DataError
from seg.io import hdf5, images, mrc, npy, omezarr, tiff, video
from seg.io.content import has_suffix, head, looks_like_text
from seg.io.reading import Given
from seg.stack import Stack

# Asked in this order. A format is a module with NAME, SUFFIXES, can_open(path) and read(path, given) -> Stack.
READERS: tuple[ModuleType, ...] = (tiff, omezarr, hdf5, npy, video, mrc, images)


def open_stack(
    path: Path | str,
    *,
    axes: str | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    frame_interval_s: float | None = None,
    dataset: str | None = None,
    pixel_size_rel_sd: float | None = None,
) -> Stack:
    """Open an image, a series or a volume; the format is told by the content.

    Parameters
    ----------
    path : Path or str
        A file, an OME-Zarr folder, or a folder of images (one time series).
    axes : str or None
        One letter of ``tczyx`` per stored dimension; overrides sidecar and file. ``c`` may be left out where the file
        marks its colour channels.
    pixel_size_um : mapping or None
        µm for each of ``z``, ``y``, ``x``; overrides sidecar and file axis by axis.
    frame_interval_s : float or None
        Time between frames; overrides frame times of sidecar and file.
    dataset : str or None
        Data set inside an HDF5 file, resolution level of an OME-Zarr, number of the image in a TIFF with several.
    pixel_size_rel_sd : float or None
        Standard deviation of the pixel size as a share of it; overrides the sidecar.

    Returns
    -------
    Stack
        In memory when it is small, else lazy.
    """
    return open_given(path, Given(axes, pixel_size_um, frame_interval_s, dataset, pixel_size_rel_sd=pixel_size_rel_sd))


def named(path: Path | str) -> Path:
    """The path with the name of what it is: that of ``.`` and ``..`` is looked up, as names and sidecars go by it."""
    path = Path(path)
    return path.resolve() if path.name in ("", "..") else path


def open_given(path: Path | str, given: Given) -> Stack:
    """`open_stack` with its options in one value."""
    path = named(path)
    return reader_of(path).read(path, given)


def reader_of(path: Path) -> ModuleType:
    """The reader that knows the content of `path`; DataError says why there is none."""
    for reader in READERS:
        if reader.can_open(path):
            return reader
    raise _unknown(path)


def known_suffix(path: Path) -> bool:
    """Whether the name of `path` ends like one of the formats."""
    return any(has_suffix(path, reader.SUFFIXES) for reader in READERS)


def _unknown(path: Path) -> DataError:
    name = path.name
    try:
        if path.is_dir():
            return DataError(f"The folder {name!r} holds neither images nor an OME-Zarr.")
        if not path.exists():
            return DataError(f"There is no file {path}.")
        if path.stat().st_size == 0:
            return DataError(f"{name!r} is empty (0 bytes); copy or export it again.")
        with path.open("rb"):
            pass
    except OSError as error:
        return DataError(f"{path} may not be read: {error.strerror or error}.")
    data = head(path, 512)
    looks = "text" if looks_like_text(data) else "something else"
    for reader in READERS:
        if has_suffix(path, reader.SUFFIXES):
            return DataError(
                f"{name!r} has the ending of {reader.NAME} files but its content is {looks}; "
                "it was renamed or damaged, export it again."
            )
    known = " ".join(suffix for reader in READERS for suffix in reader.SUFFIXES[:4])
    return DataError(f"{name!r} is of a format that is not known (its content is {looks}); expected one of {known}.")
