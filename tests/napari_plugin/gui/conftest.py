"""One napari viewer for all tests of widgets; they run in a process of their own, see ``test_widgets.py`` above."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def only_viewer() -> Iterator[Any]:
    """One napari viewer for all tests, without a shown window: opening one takes seconds."""
    import napari

    made = napari.Viewer(show=False)
    yield made
    made.close()


@pytest.fixture(scope="session", autouse=True)
def application() -> Any:
    """Qt, for widgets without a viewer as well."""
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture
def viewer(only_viewer: Any) -> Iterator[Any]:
    """The viewer, empty before and after."""
    yield only_viewer
    only_viewer.window.remove_dock_widget("all")
    only_viewer.layers.clear()
