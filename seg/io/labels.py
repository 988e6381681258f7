"""Label files: class indices with their meaning, written by us or made elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import LabelError, SegError
from seg.io.arrays import LazyArray
from seg.io.calibration import beside
from seg.io.reading import Given
from seg.io.registry import named, open_given
from seg.io.writing import annotation, create_zarr, write_array
from seg.labels import UNLABELLED, LabelSchema, load_schema
from seg.segmentation import Provenance, Segmentation
from seg.stack import Calibration, Stack

# Pixels whose values are counted together: counting takes eight bytes for each.
COUNTED_PX = 2**22


def write_labels(
    path: Path | str,
    frames: Iterable[np.ndarray],
    *,
    shape: tuple[int, ...],
    axes: str,
    calibration: Calibration,
    schema: LabelSchema,
    provenance: Provenance | None = None,
) -> None:
    """Write class indices with everything needed to read them back; one frame is in memory at a time.

    Parameters
    ----------
    path : Path or str
        ``NAME.ome.tif`` or ``NAME.ome.zarr``; changes only when all is written.
    frames : iterable of ndarray
        One per time point, each of shape ([Z,] Y, X); a single one when `axes` has no ``t``.
    shape, axes
        Of the whole stack, as in `Stack`, without ``c``.
    calibration : Calibration
        Pixel size in µm and frame times in s go into the OME metadata.
    schema : LabelSchema
        Values outside it raise `LabelError`. Names and colours are written; the pixels take the smallest unsigned
        type that holds its indices.
    provenance : Provenance or None
    """
    path = Path(path)
    if "c" in axes:
        raise LabelError(f"Labels have no channel axis, but the axes of {path.name!r} are {axes!r}.")
    dtype = _smallest(schema)
    extra = _about(schema, provenance)
    write_array(
        path, _checked(frames, schema, path.name, dtype), shape=shape, dtype=dtype, axes=axes, calibration=calibration,
        extra=extra, notes={f"class {c.index}": f"{c.name} {c.color}" for c in schema.classes},
        zarr_ome=_image_label(schema),
    )  # fmt: skip


def create_labels(
    path: Path,
    *,
    shape: tuple[int, ...],
    axes: str,
    calibration: Calibration,
    schema: LabelSchema,
    provenance: Provenance | None = None,
) -> None:
    """Make an OME-Zarr of labels whose pixels are still to be written, in any order and by several processes.

    Chunks hold one plane (of at most 1024 x 1024 px), so that whole planes can be written by different processes
    without a lock. Parameters as in `write_labels`.
    """
    create_zarr(
        path, shape, _smallest(schema), axes, calibration,
        annotation(_about(schema, provenance), axes, shape, calibration), _image_label(schema),
        path.name.rpartition(".part.")[2],  # what it will be called when it is finished
        {"t": 1, "z": 1, "y": 1024, "x": 1024},
    )  # fmt: skip


def _about(schema: LabelSchema, provenance: Provenance | None) -> dict[str, Any]:
    return {"schema": schema.to_dict(), "provenance": (provenance or Provenance()).to_dict()}


def _image_label(schema: LabelSchema) -> dict[str, Any]:
    classes = [{"label-value": c.index, "rgba": [*c.rgb, 255]} for c in schema.classes]
    properties = [{"label-value": c.index, "class": c.name} for c in schema.classes]
    return {"image-label": {"version": "0.5", "colors": classes, "properties": properties}}


def _checked(frames: Iterable[np.ndarray], schema: LabelSchema, name: str, dtype: np.dtype) -> Iterator[np.ndarray]:
    for index, frame in enumerate(frames):
        where = f"frame {index} for {name!r}"
        if not np.issubdtype(frame.dtype, np.integer):
            raise LabelError(f"{where} has type {frame.dtype}; expected integer class indices.")
        schema.check(_values(frame), where=where)
        yield frame.astype(dtype, copy=False)


def read_labels(
    path: Path | str,
    *,
    schema: LabelSchema | None = None,
    default_schema: LabelSchema | None = None,
    values: Mapping[int, str] | None = None,
    axes: str | None = None,
    pixel_size_um: Mapping[str, float] | None = None,
    frame_interval_s: float | None = None,
    pixel_size_rel_sd: float | None = None,
) -> Segmentation:
    """Read class indices, written by `write_labels` or made elsewhere.

    Parameters
    ----------
    path : Path or str
        Whatever `open_stack` opens, if it holds one integer per pixel: integer TIFF (2-D, ZYX, TYX, TZYX), PNG
        (palette indices are kept), OME-Zarr, NPY, HDF5, ...
    schema : LabelSchema or None
        Meaning of the values; overrides the sidecar, which overrides the file. A file that says nothing and has no
        sidecar is refused: what a value means is never guessed.
    default_schema : LabelSchema or None
        Meaning of the values of a file that says nothing and has no sidecar.
    values : mapping of int to str or None
        Value in the file to class name, as ``map`` of the sidecar, which it overrides.
    axes, pixel_size_um, frame_interval_s, pixel_size_rel_sd
        As in `open_stack`.

    Returns
    -------
    Segmentation
        In the smallest unsigned type that holds the schema. Values outside the schema raise `LabelError`, for a lazy
        stack when they are read.

    Notes
    -----
    The sidecar ``NAME.labels.json`` stands beside ``NAME.tif``::

        {"schema": "lithium",                              # a name, a file beside it, or {"name", "classes"}
         "map": {"0": "electrolyte", "255": "deposit"}}    # optional: value in the file -> class, or "unlabelled"

    With a map every value of the file must stand in it, except 0, which stays unlabelled unless it is mapped.
    """
    path = named(path)
    given = Given(axes, pixel_size_um, frame_interval_s, as_labels=True, pixel_size_rel_sd=pixel_size_rel_sd)
    stack = open_given(path, given)
    if "c" in stack.axes or stack.dtype.kind not in "iu":
        kind = "three colour channels" if "c" in stack.axes else f"{stack.dtype} values"
        raise LabelError(
            f"{path.name!r} holds {kind}; expected one integer class index per pixel. "
            "Export the label image itself, not its picture or its probabilities."
        )
    own = stack.metadata.get("operandoseg")
    own = own if isinstance(own, dict) else {}
    sidecar = _read_sidecar(path)
    if values is not None:
        sidecar = replace(sidecar, name="the label map given", names=dict(values))
    meaning = schema or sidecar.schema or _own_schema(own, path.name) or default_schema
    if meaning is None:
        raise LabelError(
            f"{path.name!r} does not say what its label values mean; pass --schema NAME or FILE "
            f"(such as lithium), or write {_plain_stem(path)}.labels.json beside it."
        )
    provenance = own.get("provenance")
    data = _give_meaning(stack, meaning, sidecar.mapping(meaning))
    return Segmentation(replace(stack, data=data), meaning, _provenance(provenance))


def parse_label_map(text: str) -> dict[int, str]:
    """``"0=electrolyte,255=deposit"`` as a mapping from value to class name; LabelError says what is wrong."""
    found: dict[int, str] = {}
    for part in text.split(","):
        value, equals, name = part.partition("=")
        if not equals or not value.strip().isdigit() or not name.strip():
            raise LabelError(
                f"The label map has {part.strip()!r}; expected value=class, such as 0=electrolyte,1=deposit."
            )
        found[int(value)] = name.strip()
    return found


@dataclass(frozen=True)
class _Sidecar:
    name: str = ""
    schema: LabelSchema | None = None
    names: Mapping[int, str] | None = None

    def mapping(self, schema: LabelSchema) -> dict[int, int] | None:
        """Value in the file to index of the schema."""
        if self.names is None:
            return None
        found = {UNLABELLED: UNLABELLED}
        for value, name in self.names.items():
            try:
                found[value] = UNLABELLED if name == "unlabelled" else schema.index(name)
            except SegError as error:
                raise LabelError(f"The map in {self.name}: {error}") from error
        return found


def _read_sidecar(path: Path) -> _Sidecar:
    file = beside(path, ".labels.json")
    if file is None:
        return _Sidecar()
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabelError(f"The sidecar {file.name} is not readable JSON ({error}).") from error
    if not isinstance(data, dict):
        raise LabelError(f'The sidecar {file.name} must hold {{"schema": ..., "map": ...}}.')
    for key in data:
        if key not in ("schema", "map"):
            near = get_close_matches(key, ("schema", "map"), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it can hold schema and map."
            raise LabelError(f"The sidecar {file.name} has an unknown key {key!r}; {hint}")
    names: dict[int, str] | None = None
    if data.get("map") is not None:
        try:
            names = {int(value): str(name) for value, name in data["map"].items()}
        except (AttributeError, ValueError) as error:
            raise LabelError(f'The map in {file.name} must be like {{"255": "deposit"}} ({error}).') from error
    return _Sidecar(file.name, _sidecar_schema(data.get("schema"), file), names)


def _sidecar_schema(value: Any, file: Path) -> LabelSchema | None:
    if value is None:
        return None
    if isinstance(value, dict):
        return LabelSchema.from_dict(value, where=f"the schema in {file.name}")
    try:
        local = file.with_name(str(value))
        return load_schema(local if local.is_file() else str(value))
    except SegError as error:
        raise LabelError(f"The schema in {file.name}: {error}") from error


def _own_schema(own: Mapping[str, Any], name: str) -> LabelSchema | None:
    stated = own.get("schema")
    return LabelSchema.from_dict(stated, where=f"the schema in {name!r}") if isinstance(stated, dict) else None


def _provenance(stated: Any) -> Provenance:
    known = {field.name for field in fields(Provenance)}
    return Provenance(**{k: v for k, v in stated.items() if k in known}) if isinstance(stated, dict) else Provenance()


def _give_meaning(stack: Stack, schema: LabelSchema, mapping: Mapping[int, int] | None) -> Any:
    """The data with values mapped, checked and in the smallest type; now, or when a lazy stack is read."""
    dtype = _smallest(schema)

    def meaning(labels: np.ndarray) -> np.ndarray:
        if mapping is not None:
            labels = _mapped(labels, mapping, stack.name)
        schema.check(labels, where=f"{stack.name!r}")
        return labels.astype(dtype, copy=False)

    return stack.data.mapped(meaning, dtype) if isinstance(stack.data, LazyArray) else meaning(stack.data)


def _mapped(labels: np.ndarray, mapping: Mapping[int, int], name: str) -> np.ndarray:
    unknown = sorted(set(_values(labels).tolist()) - set(mapping))
    if unknown:
        shown = ", ".join(map(str, unknown[:8]))
        raise LabelError(f"{name!r} holds the value(s) {shown}, which the map of its sidecar lacks; add them.")
    keys = np.array(sorted(mapping), dtype=np.int64)
    values = np.array([mapping[int(key)] for key in keys], dtype=np.int64)
    return values[np.searchsorted(keys, labels)]


def _values(labels: np.ndarray) -> np.ndarray:
    """The values that occur; for small types by counting, which is many times faster than sorting."""
    if labels.dtype.kind == "u" and labels.dtype.itemsize <= 2:
        there = np.zeros(2 ** (8 * labels.dtype.itemsize), bool)
        flat = labels.reshape(-1)
        for start in range(0, flat.size, COUNTED_PX):
            there[np.flatnonzero(np.bincount(flat[start : start + COUNTED_PX]))] = True
        return np.flatnonzero(there)
    return np.unique(labels)


def _smallest(schema: LabelSchema) -> np.dtype:
    return np.min_scalar_type(max((c.index for c in schema.classes), default=0))


def _plain_stem(path: Path) -> str:
    return path.name.split(".")[0]
