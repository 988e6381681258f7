"""Smoke tests of the widgets, on Xvfb or any display with OpenGL.

They run in a process of their own: once Mesa has drawn, torch cannot be loaded beside it (see `napari_plugin.engine`),
and the other tests need torch.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

WIDGETS = Path(__file__).parent / "gui" / "widgets.py"


@pytest.fixture
def display() -> Iterator[dict[str, str]]:
    """Environment with a display, Xvfb where there is none of its own; skipped, with the reason, without either."""
    missing = [name for name in ("napari", "PySide6") if find_spec(name) is None]
    if missing:
        pytest.skip(f"GUI tests need {' and '.join(missing)}: pip install -e '.[test]'")
    environment = {**os.environ, "QT_API": "pyside6"}
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


@pytest.mark.gui
def test_widgets(display):
    words = [sys.executable, "-m", "pytest", str(WIDGETS), "-q", "-W", "ignore", "-p", "no:cacheprovider"]
    done = subprocess.run(words, env=display, capture_output=True, text=True, cwd=WIDGETS.parents[3])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
