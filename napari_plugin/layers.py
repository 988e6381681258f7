"""From stacks, segmentations and tables to napari's layer data tuples, and back; knows neither napari nor Qt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg.errors import DataError
from seg.labels import LabelSchema
from seg.preprocess import to_grey
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

# (data, keyword arguments, type), as napari's readers give them.
LayerData = tuple[Any, dict[str, Any], str]

KEY = "operandoseg"  # of what we keep in the metadata of a layer
UNNAMED = "?"  # label of an axis of which nobody has said whether it is time or depth
UM_PER_UNIT = {
    "micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "nm": 1e-3, "millimeter": 1e3,
    "mm": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4, "picometer": 1e-6,
}  # fmt: skip
S_PER_UNIT = {"second": 1.0, "s": 1.0, "millisecond": 1e-3, "ms": 1e-3, "minute": 60.0, "hour": 3600.0}
EVENT_COLORS = {
    "birth": "#009e73", "merge": "#e69f00", "split": "#cc79a7", "disappearance": "#d55e00",
}  # fmt: skip


def geometry(stack: Stack) -> dict[str, Any]:
    """Scale, translation, units and axis labels of a layer that shows `stack` without its channels.

    Axes without a size have scale 1 and the unit ``pixel``: uncalibrated stays visible as such. Frame times that are
    not evenly spaced cannot be a scale; they stay in the metadata of the layer.
    """
    scale, translate, units = [], [], []
    step, start = _even_times(stack.frame_times_s)
    for axis in stack.axes.replace("c", ""):
        size = step if axis == "t" else stack.calibration.pixel_size_um.get(axis)
        scale.append(1.0 if size is None else float(size))
        translate.append(start if axis == "t" and size is not None else 0.0)
        units.append("pixel" if size is None else "second" if axis == "t" else "micrometer")
    return {
        "scale": tuple(scale), "translate": tuple(translate), "units": tuple(units),
        "axis_labels": tuple(stack.axes.replace("c", "")),
    }  # fmt: skip


def _even_times(times: Sequence[float] | None) -> tuple[float | None, float]:
    """Interval and start where frames are evenly spaced to a millionth, else (None, 0)."""
    if times is None or len(times) < 2 or times[-1] <= times[0]:
        return None, 0.0
    interval = (times[-1] - times[0]) / (len(times) - 1)
    even = all(abs(t - times[0] - i * interval) <= 1e-6 * interval for i, t in enumerate(times))
    return (interval, float(times[0])) if even else (None, 0.0)


def metadata_of(stack: Stack) -> dict[str, Any]:
    """What scale and units cannot say: where the stack is from, and its calibration as it was read."""
    return {
        KEY: {
            "axes": stack.axes.replace("c", ""),
            "pixel_size_um": dict(stack.calibration.pixel_size_um),
            "frame_times_s": stack.frame_times_s,
            "calibration_source": stack.calibration.source,
            "source": None if stack.source is None else str(stack.source),
        }
    }


def image_layer(stack: Stack, *, name: str | None = None) -> LayerData:
    """An image; colour in memory stays colour, a lazy colour stack is shown in grey."""
    data, more = stack.data, {}
    if "c" in stack.axes:
        if isinstance(data, np.ndarray):
            data, more = np.moveaxis(data, stack.axes.index("c"), -1), {"rgb": True}
        else:
            data = GreyView(stack)
    if "rgb" not in more:
        more = {"contrast_limits": _contrast(data), "colormap": "gray"}
    metadata = metadata_of(stack)
    return data, {"name": name or stack.name, "metadata": metadata, **geometry(stack), **more}, "image"


def unnamed_layer(stack: Stack, axes: str, *, name: str | None = None) -> LayerData:
    """An image whose first axis was given a name for the while only: the layer shows `axes`, such as ``?yx``."""
    data, given, kind = image_layer(stack, name=name)
    del given["metadata"][KEY]["axes"]
    return data, {**given, "axis_labels": tuple(axes)}, kind


def _contrast(data: Any) -> tuple[float, float]:
    """0.2 and 99.8 % of three frames: one outlier must not make a movie black, and a lazy file is not read through."""
    n = data.shape[0]
    parts = [data] if data.ndim == 2 else [np.asarray(data[i]) for i in sorted({0, n // 2, n - 1})]
    values = np.concatenate([np.asarray(part).ravel()[:: max(1, part.size // 200_000) | 1] for part in parts])
    low, high = (float(v) for v in np.percentile(values, [0.2, 99.8]))
    return (low, high) if high > low else (low, low + 1)


class GreyView:
    """A lazy colour stack as a grey array: the channel axis is gone, colour is made grey on reading."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._channel = stack, stack.axes.index("c")
        self.shape = tuple(n for axis, n in zip(stack.axes, stack.shape, strict=True) if axis != "c")
        self.dtype, self.ndim = np.dtype(np.float32), len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        left = sum(isinstance(part, slice) for part in parts[: self._channel])
        values = np.asarray(self._stack.data[(*parts[: self._channel], slice(None), *parts[self._channel :])])
        values = np.moveaxis(values, left, 0)
        flat = values.reshape(values.shape[0], 1, -1)
        return to_grey(flat, "cyx").reshape(values.shape[1:]).astype(np.float32, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[...]
        return whole if dtype is None else whole.astype(dtype)


def class_colors(schema: LabelSchema) -> dict[int | None, str]:
    """Colour of every label value; unlabelled and unknown values are transparent."""
    return {None: "transparent", 0: "transparent", **{c.index: c.color for c in schema.classes}}


def labels_layer(segmentation: Segmentation, *, name: str | None = None, opacity: float = 0.55) -> LayerData:
    """Class indices in the colours of their schema; the names of the classes are in the features."""
    stack, schema = segmentation.stack, segmentation.schema
    metadata = metadata_of(stack)
    metadata[KEY] |= {"schema": schema.to_dict(), "provenance": segmentation.provenance.to_dict()}
    data = stack.data if isinstance(stack.data, np.ndarray) else stack.data[...]
    given = {
        "name": name or f"{stack.name} classes", "metadata": metadata, "opacity": opacity,
        "colormap": class_colors(schema), "features": class_features(schema), **geometry(stack),
    }  # fmt: skip
    return data, given, "labels"


def labelling_layers(stack: Stack, labels: np.ndarray, schema: LabelSchema) -> tuple[LayerData, LayerData]:
    """An empty layer for predictions, and the labels on top of it; `labels` is used as it is, not copied."""
    axes = stack.axes.replace("c", "")
    blank = Stack(np.zeros(labels.shape, np.uint8), axes, stack.calibration, stack.name, stack.source)
    drawn = Stack(labels, axes, stack.calibration, stack.name, stack.source)
    return (
        labels_layer(Segmentation(blank, schema), name="prediction", opacity=0.4),
        labels_layer(Segmentation(drawn, schema), name="labels", opacity=0.7),
    )


def class_features(schema: LabelSchema) -> pd.DataFrame:
    """One row per label value, for the status bar."""
    classes = sorted(schema.classes, key=lambda c: c.index)
    return pd.DataFrame(
        {"index": [0, *(c.index for c in classes)], "class": ["unlabelled", *(c.name for c in classes)]}
    )


def instances_layer(stack: Stack, objects: pd.DataFrame | None = None, *, name: str = "objects") -> LayerData:
    """Object ids; their measures, where one frame is all there is, are in the features."""
    data = stack.data if isinstance(stack.data, np.ndarray) else stack.data[...]
    given = {"name": name, "metadata": metadata_of(stack), "opacity": 0.4, "visible": False, **geometry(stack)}
    if objects is not None and "t" not in stack.axes:
        given["features"] = objects.rename(columns={"object_id": "index"})
    return data, given, "labels"


# --- tables ---------------------------------------------------------------------------------------------------------


def positions_px(table: pd.DataFrame, stack: Stack) -> np.ndarray:
    """Places of the rows of ``objects.csv``, ``tracks.csv`` or ``events.csv`` in array indices, shape (N, [t] ndim)."""
    columns = []
    for axis in stack.axes.replace("c", ""):
        if axis == "t":
            columns.append(table["frame"].to_numpy(float))
        elif f"{axis}_um" in table:
            columns.append(table[f"{axis}_um"].to_numpy(float) / stack.calibration.pixel_size_um[axis])
        else:
            columns.append(table[f"{axis}_px"].to_numpy(float))
    return np.column_stack(columns)


def tracks_layer(tracks: pd.DataFrame, stack: Stack, *, name: str = "tracks") -> LayerData | None:
    """Paths of the objects with their merges; None without one."""
    if tracks.empty:
        return None
    table = tracks.sort_values(["track_id", "frame"])
    data = np.column_stack([table["track_id"].to_numpy(float), positions_px(table, stack)])
    known = set(table["track_id"])
    graph = {}
    for track, parents in table.groupby("track_id")["parent_track_ids"].first().items():
        ids = [] if pd.isna(parents) or str(parents) == "" else [int(float(p)) for p in str(parents).split(";")]
        ids = [p for p in ids if p in known]
        if ids:
            graph[int(track)] = ids
    features = table[[c for c in table.columns if c.startswith("equivalent_diameter")]].reset_index(drop=True)
    length = max(2, stack.n_frames // 4)
    given = {
        "name": name, "graph": graph, "features": features, "tail_length": length, "tail_width": 3,
        "metadata": metadata_of(stack), **geometry(stack),
    }  # fmt: skip
    return data, given, "tracks"


def events_layer(events: pd.DataFrame, stack: Stack, *, name: str = "events") -> LayerData | None:
    """Births, merges, splits and disappearances as points in the frame where they happen; None without one."""
    if events.empty:
        return None
    kind = "event"
    placed = positions_px(events, stack)
    seen = np.isfinite(placed).all(axis=1)
    colors = [EVENT_COLORS.get(str(k), "#f0e442") for k in events.loc[seen, kind]]
    given = {
        "name": name, "features": events.loc[seen].reset_index(drop=True), "face_color": "transparent",
        "border_color": colors, "border_width": 0.12, "size": _mark_px(stack), "symbol": "ring", "opacity": 0.9,
        "text": {"string": f"{{{kind}}}", "size": 8, "color": "white", "anchor": "upper_left"},
        "metadata": metadata_of(stack), **geometry(stack),
    }  # fmt: skip
    return placed[seen], given, "points"


def marked_frames_layer(frames: Mapping[int, str], stack: Stack, *, name: str = "doubtful frames") -> LayerData | None:
    """A red border and the reason around every frame that should not be trusted; None where there is none."""
    if not frames or "t" not in stack.axes:
        return None
    height, width = stack.spatial_shape[-2:]
    corners = np.array([(0, 0), (0, width - 1), (height - 1, width - 1), (height - 1, 0)], float)
    depth = range(stack.size("z")) if "z" in stack.axes else [None]
    shapes = [
        np.column_stack([np.full(4, t), *([] if z is None else [np.full(4, z)]), corners])
        for t in frames
        for z in depth
    ]
    reasons = [reason for reason in frames.values() for _ in depth]
    given = {
        "name": name, "shape_type": "rectangle", "edge_color": "#d55e00", "face_color": "transparent",
        "edge_width": max(height, width) / 120, "features": {"reason": reasons},
        "text": {"string": "{reason}", "size": 10, "color": "#d55e00", "anchor": "upper_left"},
        "metadata": metadata_of(stack), **geometry(stack),
    }  # fmt: skip
    return shapes, given, "shapes"


def _mark_px(stack: Stack) -> float:
    return max(6.0, max(stack.spatial_shape[-2:]) / 40)


# --- a result folder ------------------------------------------------------------------------------------------------


def result_layers(folder: Path | str) -> list[LayerData]:
    """Everything a run left in its folder, as layers: classes, objects, tracks, events, doubtful frames."""
    import json

    from seg.io import open_stack, read_labels

    folder = Path(folder)
    if not (folder / "labels.ome.tif").is_file():
        raise DataError(f"{folder} holds no labels.ome.tif; choose the folder of one input of a run.")
    segmentation = read_labels(folder / "labels.ome.tif")
    stack = segmentation.stack
    name = folder.name
    found: list[LayerData | None] = [labels_layer(segmentation, name=f"{name} classes")]
    if (folder / "instances.ome.tif").is_file():
        objects = _table(folder / "objects.csv")
        found.append(instances_layer(open_stack(folder / "instances.ome.tif"), objects, name=f"{name} objects"))
    if (tracks := _table(folder / "tracks.csv")) is not None:
        found.append(tracks_layer(tracks, stack, name=f"{name} tracks"))
    if (events := _table(folder / "events.csv")) is not None:
        found.append(events_layer(events, stack, name=f"{name} events"))
    if (folder / "run.json").is_file():
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        doubtful = {int(d["frame"]): str(d["reason"]) for d in record.get("frames_doubtful", [])}
        doubtful |= artifact_frames(segmentation)
        found.append(marked_frames_layer(doubtful, stack, name=f"{name} doubtful frames"))
    return [layer for layer in found if layer is not None]


def artifact_frames(segmentation: Segmentation) -> dict[int, str]:
    """Frames of which artifacts cover more than half, by the rule of the measurements."""
    if "artifact" not in segmentation.schema.names:
        return {}
    value, stack = segmentation.schema.index("artifact"), segmentation.stack
    shares = {t: float(np.mean(stack.frame(t) == value)) for t in range(stack.n_frames)}
    return {t: f"artifacts cover {share:.0%}" for t, share in shares.items() if share > 0.5}


def _table(path: Path) -> pd.DataFrame | None:
    return pd.read_csv(path) if path.is_file() and path.stat().st_size > 1 else None


# --- and back -------------------------------------------------------------------------------------------------------


def stack_of_layer(data: Any, given: Mapping[str, Any], *, axes: str | None = None) -> Stack:
    """The stack a layer shows, with the calibration that its scale and units say.

    Parameters
    ----------
    data : array-like
        Of an image or labels layer.
    given : mapping
        ``name``, ``scale``, ``translate``, ``units``, ``axis_labels``, ``metadata``, ``rgb`` as in the layer's state.
    axes : str or None
        Axes without ``c`` where the layer does not name them.

    Raises
    ------
    DataError
        Where nobody says whether a third axis is time or depth.
    """
    name = str(given.get("name", "layer"))
    kept = dict(given.get("metadata") or {}).get(KEY, {})
    rgb = bool(given.get("rgb", False))
    ndim = data.ndim - rgb
    letters = axes or axes_of_layer(ndim, given)
    if letters is None:
        raise DataError(f"The layer {name!r} does not say whether its first axis is time or depth; choose it.")
    if len(letters) != ndim:
        raise DataError(f"The layer {name!r} has {ndim} dimensions, which the axes {letters!r} do not fit.")
    n_frames = data.shape[0] if letters[0] == "t" else 1
    calibration = _calibration(letters, given, kept, n_frames)
    if rgb:
        data = np.moveaxis(np.asarray(data)[..., :3], -1, len(letters) - len(letters.lstrip("t")))
        letters = ("t" if letters.startswith("t") else "") + "c" + letters.lstrip("t")
    source = kept.get("source")
    return Stack(data, letters, calibration, name, Path(source) if source else None)


def axes_of_layer(ndim: int, given: Mapping[str, Any]) -> str | None:
    """Axes a layer of `ndim` dimensions (colour apart) names itself; None where it does not."""
    kept = dict(given.get("metadata") or {}).get(KEY, {}).get("axes")
    stated = "".join(str(label).lower() for label in given.get("axis_labels") or ())
    if len(stated) == ndim and set(stated) <= set("tzyx") and stated.endswith("yx"):
        return stated
    if kept is not None and len(kept) == ndim:
        return kept
    return {2: "yx", 4: "tzyx"}.get(ndim)


def _calibration(axes: str, given: Mapping[str, Any], kept: Mapping[str, Any], n_frames: int) -> Calibration:
    """From scale and units, which the user sees and may have changed; frame times that are no scale: metadata."""
    units = [str(unit) for unit in given.get("units") or ["pixel"] * len(axes)]
    scale = [float(s) for s in np.atleast_1d(given.get("scale", [1.0] * len(axes)))][-len(axes) :]
    shift = [float(s) for s in np.atleast_1d(given.get("translate", [0.0] * len(axes)))][-len(axes) :]
    sizes, times = {}, None
    for axis, unit, size, start in zip(axes, units, scale, shift, strict=True):
        if axis != "t" and unit in UM_PER_UNIT:
            um = size * UM_PER_UNIT[unit]
            read = kept.get("pixel_size_um", {}).get(axis)
            # What was read comes back to the last digit, whatever the viewer made of it.
            sizes[axis] = read if read is not None and math.isclose(read, um, rel_tol=1e-9) else um
        elif axis == "t" and unit in S_PER_UNIT:
            times = tuple((start + i * size) * S_PER_UNIT[unit] for i in range(n_frames))
    read_times = kept.get("frame_times_s")
    if read_times is not None and len(read_times) == n_frames:
        same = times is None or np.allclose(times, read_times, rtol=1e-6, atol=1e-6)
        times = tuple(float(t) for t in read_times) if same else times
    return Calibration(sizes, times, str(kept.get("calibration_source", "file")) if sizes or times else "none")


def schema_of_layer(given: Mapping[str, Any], default: LabelSchema) -> LabelSchema:
    """The schema a labels layer carries, else `default`."""
    stated = dict(given.get("metadata") or {}).get(KEY, {}).get("schema")
    return default if stated is None else LabelSchema.from_dict(stated, where="the schema of the layer")


def segmentation_of_layer(
    data: Any, given: Mapping[str, Any], default: LabelSchema, *, axes: str | None = None
) -> Segmentation:
    """The segmentation a labels layer shows."""
    schema = schema_of_layer(given, default)
    stack = stack_of_layer(data, given, axes=axes)
    values = np.asarray(stack.data)
    schema.check(values, where=f"The layer {stack.name!r}")
    return Segmentation(replace(stack, data=values), schema)


def centre_of(row: Mapping[str, Any], stack: Stack) -> tuple[float, ...]:
    """World coordinates of the object in a row of ``objects.csv``, for the viewer to go to."""
    place = positions_px(pd.DataFrame([dict(row)]), stack)[0]
    shown = geometry(stack)
    return tuple(p * s + t for p, s, t in zip(place, shown["scale"], shown["translate"], strict=True))
