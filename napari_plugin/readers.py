"""npe2 readers and writers over `seg.io`, which keep pixel sizes, frame times and classes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_plugin import layers
from napari_plugin.layers import LayerData


def get_reader(path: str | list[str]) -> Callable[[Any], list[LayerData]] | None:
    """A reader where every path is of a format we know by its content, else None: napari asks the next plugin."""
    from seg.io.registry import READERS

    paths = [Path(p) for p in ([path] if isinstance(path, str | Path) else path)]
    if not paths or not all(any(reader.can_open(p) for reader in READERS) or _is_result(p) for p in paths):
        return None
    return read


def read(path: str | list[str]) -> list[LayerData]:
    """Layers of one or more files: label files in class colours, result folders whole, all else as images."""
    found: list[LayerData] = []
    for one in [path] if isinstance(path, str | Path) else path:
        found += _read_one(Path(one))
    return found


def _read_one(path: Path) -> list[LayerData]:
    from seg.errors import AxesError
    from seg.io import open_stack, read_labels

    if _is_result(path):
        return layers.result_layers(path)
    try:
        stack = open_stack(path)
    except AxesError:
        return [_unnamed(path)]
    own = stack.metadata.get("operandoseg")
    if isinstance(own, dict) and "schema" in own:
        return [layers.labels_layer(read_labels(path), name=_stem(path))]
    return [layers.image_layer(stack, name=_stem(path))]


def _unnamed(path: Path) -> LayerData:
    """A file that does not name its axes, shown all the same: napari's users expect that a file opens."""
    from napari_plugin.unnamed_axes import open_unnamed

    stack, axes = open_unnamed(path)
    if axes.startswith(layers.UNNAMED):
        text = f"{path.name} does not say whether its {stack.n_frames} planes are time or depth; "
        text += "Label, Run and Measure will ask."
    else:
        text = f"{path.name} does not name its first two axes; they are taken for time and depth."
    warnings.warn(text, UserWarning, stacklevel=2)
    return layers.unnamed_layer(stack, axes, name=_stem(path))


def _is_result(path: Path) -> bool:
    return path.is_dir() and (path / "labels.ome.tif").is_file() and (path / "run.json").is_file()


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem if path.is_file() else name


def write_image_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save an image layer as OME-TIFF or OME-Zarr with its pixel size and frame times."""
    from seg.io import write_image

    stack = layers.stack_of_layer(data, attributes)
    target = _target(path)
    write_image(
        target, (stack.frame(t) for t in range(stack.n_frames)), shape=stack.shape, dtype=stack.dtype, axes=stack.axes,
        calibration=stack.calibration,
    )  # fmt: skip
    return [str(target)]


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Save a labels layer with pixel size, frame times, class names and colours; object ids as an integer image.

    A layer carries a schema when it came from us; without one its values are object ids, which have no class.
    """
    from seg.io import write_labels
    from seg.labels import load_schema

    kept = dict(attributes.get("metadata") or {}).get(layers.KEY, {})
    if "schema" not in kept:
        return write_image_layer(path, np.asarray(data), attributes)
    found = layers.segmentation_of_layer(data, attributes, load_schema())
    stack, target = found.stack, _target(path)
    write_labels(
        target, (stack.frame(t) for t in range(stack.n_frames)), shape=stack.shape, axes=stack.axes,
        calibration=stack.calibration, schema=found.schema, provenance=_provenance(kept),
    )  # fmt: skip
    return [str(target)]


def _provenance(kept: dict[str, Any]) -> Any:
    from dataclasses import fields

    from seg.segmentation import Provenance

    stated = kept.get("provenance") or {}
    known = {field.name for field in fields(Provenance)}
    return Provenance(**{key: value for key, value in stated.items() if key in known})


def _target(path: str | Path) -> Path:
    """Our formats end in .ome.tif or .ome.zarr; a plain .tif is OME as well."""
    target = Path(path)
    return target if target.name.lower().endswith((".tif", ".tiff", ".zarr")) else Path(f"{target}.ome.tif")


def manifest_patterns() -> Sequence[str]:
    """File name patterns of every format of `seg.io`, for the manifest."""
    from seg.io.registry import READERS

    return sorted({f"*{suffix}" for reader in READERS for suffix in reader.SUFFIXES})
