"""``python -m napari_plugin INPUT...``: napari on the labelling widget; what ``operandoseg label`` starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Open napari with the Label widget, on the first of the inputs that has no labels yet."""
    inputs = list(sys.argv[1:] if argv is None else argv)
    try:
        import napari
        from qtpy import QtWidgets  # noqa: F401 -- tells whether a Qt library is there
    except ImportError as error:
        return _without_napari(error)
    viewer = napari.Viewer(title="OperandoSeg")
    _, widget = viewer.window.add_plugin_dock_widget("operandoseg", "Label")
    if inputs:
        from napari_plugin.qt import told

        told(widget.open_files)(inputs)
    napari.run()
    return 0


def _without_napari(error: ImportError) -> int:
    text = f"operandoseg label needs napari and a Qt library ({error}): "
    text += "pip install 'operandoseg[napari]' 'PySide6!=6.12.0'\n"
    sys.stderr.write(text)
    return 2


if __name__ == "__main__":
    sys.exit(main())
