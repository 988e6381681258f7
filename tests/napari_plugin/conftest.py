"""napari on Xvfb or any display with OpenGL; tests of widgets are skipped, with the reason, where there is none."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest


@cache
def missing_display() -> str:
    """Why no window can be opened here, or nothing. Asked in a process of its own: Qt aborts where it fails."""
    for module in ("napari", "qtpy"):
        try:
            __import__(module)
        except ImportError as error:
            return f"{module} is not installed ({error})"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display; run the tests under xvfb-run"
    code = "from qtpy.QtWidgets import QApplication; a = QApplication([]); print(a.primaryScreen() is not None)"
    try:
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return "Qt does not answer on this display"
    return "" if asked.stdout.strip() == "True" else f"Qt cannot open a window: {asked.stderr.strip()[-200:]}"


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    """A display, Xvfb where there is none of its own; the test is skipped where neither is to be had."""
    server = None
    headless = sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if headless and shutil.which("Xvfb"):
        read, write = os.pipe()
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"],
            pass_fds=[write], stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write)
        number = os.read(read, 16).decode().strip()
        os.close(read)
        os.environ["DISPLAY"] = f":{number}"
    try:
        reason = missing_display()
        if reason:
            pytest.skip(f"GUI tests need napari, Qt and a display: {reason}")
        yield os.environ.get("DISPLAY", "")
    finally:
        if server is not None:
            server.terminate()
            server.wait(10)
            os.environ.pop("DISPLAY", None)


@pytest.fixture
def viewer(display: str) -> Iterator[Any]:
    """A napari viewer without a shown window, closed at the end."""
    import napari

    made = napari.Viewer(show=False)
    yield made
    made.close()
