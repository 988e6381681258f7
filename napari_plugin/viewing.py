"""Between the viewer and `layers`: what a layer says, which one is meant, adding, locking, what is on show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_plugin import layers, qt
from seg.errors import UsageError
from seg.io import open_stack
from seg.labels import load_schema
from seg.stack import Stack

if TYPE_CHECKING:
    import napari

NO_TOOL = "pan_zoom"
UNDO_KEYS = ("Control-Z", "Control-Shift-Z")


def layer_state(layer: Any) -> dict[str, Any]:
    """What `napari_plugin.layers.stack_of_layer` wants to know of a layer."""
    return {
        "name": layer.name, "scale": layer.scale, "translate": layer.translate, "units": layer.units,
        "axis_labels": layer.axis_labels, "metadata": layer.metadata, "rgb": getattr(layer, "rgb", False),
    }  # fmt: skip


def stack_of(layer: Any, *, axes: str | None = None) -> Stack:
    """The stack a layer shows; where it does not say whether its first axis is time or depth, the user is asked."""
    axes = axes or asked_axes(layer)  # first: the answer may change what the layer says
    return layers.stack_of_layer(layer.data, layer_state(layer), axes=axes)


def asked_axes(layer: Any) -> str | None:
    """Axes of a layer that does not name them, from the user, who is asked once; None: it does, or nobody knows."""
    state = layer_state(layer)
    ndim = layer.data.ndim - bool(state["rgb"])
    if layers.axes_of_layer(ndim, state) is not None:
        return None
    path = path_of(layer)
    axes = qt.ask_axes(layer.name, path, length=layer.data.shape[0]) if ndim == 3 else None
    if axes is not None:
        layer.axis_labels = tuple(axes)
        if path is not None and layer.scale[0] == 1 and str(layer.units[0]) == "pixel":
            # What the file says of this axis has a meaning only now.
            said = layers.geometry(open_stack(path, axes=axes))
            for name in ("scale", "translate", "units"):
                setattr(layer, name, (said[name][0], *getattr(layer, name)[1:]))
    return axes


def path_of(layer: Any) -> Path | None:
    """The file a layer was read from, where there is one."""
    kept = layer.metadata.get(layers.KEY, {}).get("source")
    path = kept or layer.source.path
    return Path(path) if path and Path(path).exists() else None


def selected_image(viewer: napari.Viewer) -> Any:
    """The image layer that is selected, else the first one."""
    images = [one for one in viewer.layers if type(one).__name__ == "Image"]
    if not images:
        raise UsageError("There is no image; open one with File > Open, or try File > Open Sample > OperandoSeg.")
    return next((one for one in images if one in viewer.layers.selection), images[0])


def view_of(viewer: napari.Viewer, layer: Any) -> tuple[slice, slice] | None:
    """Rows and columns of a layer that are on show; None where they are not to be told, as in three dimensions."""
    if viewer.dims.ndisplay != 2 or tuple(viewer.dims.order[-2:]) != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        return None
    (top, left), (bottom, right) = (corner[-2:] for corner in layer.corner_pixels)
    return slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)


def lock(viewer: napari.Viewer, layer: Any) -> Callable[[], None]:
    """Let nobody draw on a layer until the function given back is called, which also gives back the tool in hand.

    Not by `editable`: with that napari forgets what can be undone.
    """
    mode = layer.mode

    def stay(event: Any = None) -> None:
        if layer.mode != NO_TOOL:
            layer.mode = NO_TOOL

    stay()
    layer.events.mode.connect(stay, position="last")  # after the buttons of the viewer, which then show what holds
    for key in UNDO_KEYS:
        layer.bind_key(key, _nothing, overwrite=True)

    def release() -> None:
        layer.events.mode.disconnect(stay)
        for key in UNDO_KEYS:
            layer.bind_key(key, None)
        if layer in viewer.layers:
            layer.mode = mode

    return release


def _nothing(layer: Any) -> None:
    """What a key does to a layer that is locked."""


def add_layers(viewer: napari.Viewer, found: Iterable[layers.LayerData]) -> list[Any]:
    """Add layer data to the viewer."""
    from napari.layers import Layer

    made = []
    for data in found:
        layer = Layer.create(*data)
        viewer.add_layer(layer)
        made.append(layer)
    return made


@cache
def warm_up() -> None:
    """Have napari compile how it colours labels: two seconds that the first result would wait for; in a thread."""
    from napari.utils.colormaps import DirectLabelColormap

    DirectLabelColormap(color_dict=layers.class_colors(load_schema())).map(np.zeros((1, 1), np.uint8))


def name_axes(viewer: napari.Viewer, axes: str) -> None:
    """Say t, z, y, x on the sliders."""
    if viewer.dims.ndim == len(axes):
        viewer.dims.axis_labels = tuple(axes)


def camera_of(viewer: napari.Viewer) -> Any:
    """The camera; since napari 0.9 it belongs to the scene."""
    return getattr(viewer, "scene", viewer).camera
