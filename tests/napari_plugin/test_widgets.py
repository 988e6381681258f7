"""Tests of the widgets: in a viewer on Xvfb or any display with OpenGL, and on napari's model of one without.

They run in processes of their own: once Mesa has drawn, torch cannot be loaded beside it (see `napari_plugin.engine`),
and the other tests need torch. Xvfb is started where it is installed and there is no display. Without either, what
needs no OpenGL still runs, on Qt's offscreen platform.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

GUI = Path(__file__).parent / "gui"


@pytest.fixture
def display() -> Iterator[dict[str, str]]:
    """Environment with a display, Xvfb where there is none of its own; skipped, with the reason, without either."""
    environment = _environment()
    if sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        yield _usable(environment)
        return
    if shutil.which("Xvfb") is None:
        pytest.skip(
            "GUI tests need a display; install Xvfb (Debian: apt install xvfb libegl1 libgl1 libxcb-cursor0 ...)"
        )
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as told:
        number = told.readline().strip()  # the whole line: closed earlier, the pipe would kill the server
    try:
        yield _usable({**environment, "DISPLAY": f":{number}"})
    finally:
        server.terminate()
        server.wait(10)


def _usable(environment: dict[str, str]) -> dict[str, str]:
    """Skip where Qt cannot open a window; asked in a process, because Qt aborts where it fails."""
    code = "from qtpy.QtWidgets import QApplication; QApplication([])"
    asked = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"GUI tests need a display that Qt can use: {asked.stderr.strip()[-200:]}")
    return environment


def _environment() -> dict[str, str]:
    missing = [name for name in ("napari", "PySide6") if find_spec(name) is None]
    if missing:
        pytest.skip(f"GUI tests need {' and '.join(missing)}: pip install -e '.[test]'")
    return {**os.environ, "QT_API": "pyside6", "OPERANDOSEG_GUI_TESTS": "1"}


def _run(path: Path, environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "pytest", str(path), "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=GUI.parents[2])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.gui
@pytest.mark.timeout(1800)  # for all tests in there, each of which has a limit of its own
def test_widgets(display):
    _run(GUI / "widgets.py", display)


@pytest.mark.timeout(1800)
def test_widgets_without_a_display():
    environment = {k: v for k, v in _environment().items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    _run(GUI / "offscreen.py", _usable({**environment, "QT_QPA_PLATFORM": "offscreen"}))
