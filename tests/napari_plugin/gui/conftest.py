"""One napari viewer for all tests of widgets; they run in a process of their own, see ``test_widgets.py`` above."""

import os
import sys
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


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep how it ended for `pytest_unconfigure`."""
    session.config.gui_status = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process at once where it was started for these tests: tearing down Qt's objects has taken minutes."""
    if "OPERANDOSEG_GUI_TESTS" in os.environ and hasattr(config, "gui_status"):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.gui_status)
