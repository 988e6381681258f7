"""``python -m napari_plugin INPUT...``: napari on the labelling widget; what ``operandoseg label`` starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import napari

ROOM_PX = (1400, 900)


def main(argv: Sequence[str] | None = None) -> int:
    """Open napari with the Label widget, on the first of the inputs that has no labels yet."""
    parser = argparse.ArgumentParser(prog="python -m napari_plugin")
    parser.add_argument("inputs", nargs="*")
    parser.add_argument("--axes")
    given = parser.parse_args(argv)
    try:
        import napari
        from qtpy import QtWidgets  # noqa: F401 -- tells whether a Qt library is there
    except ImportError as error:
        return _without_napari(error)
    viewer = napari.Viewer(title="OperandoSeg")
    _make_room(viewer)
    _, widget = viewer.window.add_plugin_dock_widget("operandoseg", "Label")
    if given.axes:
        widget.choose_axes(given.axes)
    if given.inputs:
        from napari_plugin.qt import told

        told(widget.open_files)(given.inputs)
    napari.run()
    return 0


def _make_room(viewer: napari.Viewer) -> None:
    """Enlarge a window that would leave no place for the image between napari's lists and the widget."""
    from qtpy.QtWidgets import QApplication

    screen = QApplication.primaryScreen().availableSize()
    _, _, width, height = viewer.window.geometry()
    wanted = min(screen.width(), max(width, ROOM_PX[0])), min(screen.height(), max(height, ROOM_PX[1]))
    viewer.window.resize(*wanted)


def _without_napari(error: ImportError) -> int:
    text = f"operandoseg label needs napari and a Qt library ({error}): "
    text += "pip install 'operandoseg[napari]' 'PySide6!=6.12.0'\n"
    sys.stderr.write(text)
    return 2


if __name__ == "__main__":
    sys.exit(main())
