"""MRC, REC and ST of electron microscopy."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from pathlib import Path
from typing import Any

from seg.errors import DataError
from seg.io.content import has_suffix, head
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Calibration, Stack

logger = logging.getLogger(__name__)

SUFFIXES = (".mrc", ".rec", ".st", ".mrcs", ".map", ".ali")
NAME = "MRC"


def can_open(path: Path) -> bool:
    """Whether the file has the MRC mark at byte 208; files of before 2000 lack it, they are known by their name."""
    data = head(path, 1024)
    if data[208:211] == b"MAP":
        return True
    if len(data) < 1024 or not has_suffix(path, SUFFIXES):
        return False
    modes = (struct.unpack_from(order + "i", data, 12)[0] for order in "<>")
    return any(mode in (0, 1, 2, 3, 4, 6, 12) for mode in modes)


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open an MRC file.

    Returns
    -------
    Stack
        A volume (space group other than 0, a cell as deep as the data, or the name ``.rec``) has axes zyx. An image
        stack is ambiguous: a movie or a tilt series. The voxel size in Å becomes µm where it is positive and was
        really set: exactly 1 Å along all axes is what programs write when they do not know it, and is ignored.
    """

    def load() -> Stack:
        return assemble(path, _open(path), given)

    return guarded(path, load)


def _open(path: Path) -> Raw:
    import mrcfile

    size = path.stat().st_size
    extended = head(path, 1024)[92:96]
    if all(not 0 <= struct.unpack(order + "i", extended)[0] <= size for order in "<>"):
        raise DataError(f"{path.name!r} declares an extended header longer than the file; it is damaged or cut off.")
    # permissive: many programs write a wrong machine stamp, and the pixels are fine
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mrc = mrcfile.mmap(path, mode="r", permissive=True)
    problems = [str(warning.message) for warning in caught]
    if mrc.data is None:
        mrc.close()
        raise DataError(f"{path.name!r} is damaged or cut off ({(problems or ['no pixels'])[0]}); copy it again.")
    for problem in problems:
        logger.warning("%s: %s", path.name, problem)
    data, header = mrc.data, mrc.header
    axes = "yx"
    if data.ndim == 3:
        volume = int(header.ispg) != 0 or int(header.mz) == data.shape[0] > 1 or has_suffix(path, (".rec",))
        axes = "zyx" if volume else "?yx"
    elif data.ndim == 4:
        axes = "?zyx"
    return Raw(data, axes, _calibration(header), close=mrc.close)


def _calibration(header: Any) -> Calibration:
    # the size is the cell divided by the sampling, Å
    sizes = {}
    for axis in "zyx":
        cell, count = float(header.cella[axis]), int(header[f"m{axis}"])
        size = cell / count if count > 0 else 0.0
        if math.isfinite(size) and size > 0:
            sizes[axis] = size
    if all(abs(size - 1.0) < 1e-6 for size in sizes.values()):
        return Calibration()
    return Calibration({axis: size * 1e-4 for axis, size in sizes.items()}, None, "file")
