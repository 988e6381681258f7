"""Where the labels of an image and their journal are kept."""

from __future__ import annotations

import os
from pathlib import Path

from seg.errors import DataError


def labels_path(image: Path) -> Path:
    """Where the labels of an image are kept: the place that ``data.sources.*.labels=labels/*.ome.tif`` names."""
    image = image if image.name not in ("", "..") else image.resolve()  # "." names a folder as well
    stem = image.name.removesuffix(".ome.tif") if image.name.endswith(".ome.tif") else image.stem
    return image.parent / "labels" / f"{stem}.ome.tif"


def journal_path(path: Path) -> Path:
    """The journal of a label file."""
    return path.with_name(f".{path.name.removesuffix('.ome.tif')}.journal")


def check_place(path: Path) -> None:
    """Refuse a place that cannot be written before a stroke is drawn that could not be kept."""
    folder = next(one for one in path.absolute().parents if one.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise DataError(
            f"Labels would be kept as {path}, but {folder} may not be written; copy the image to a folder of your own."
        )
