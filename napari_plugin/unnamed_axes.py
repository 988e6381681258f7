"""Images that do not say whether a dimension is time or depth: shown all the same, asked about when it matters."""

from __future__ import annotations

from pathlib import Path

from napari_plugin.layers import UNNAMED
from seg.errors import AxesError
from seg.io import open_stack
from seg.io.calibration import beside
from seg.io.results import atomic_path
from seg.stack import Stack

CHOICES = {"tyx": "Time series", "zyx": "Volume", "tzyx": "Series of volumes"}


def open_unnamed(path: Path) -> tuple[Stack, str]:
    """A stack whose first axis is called time for the while, and the axes as a layer shows them, such as ``?yx``.

    Raises
    ------
    AxesError
        Where more than the meaning of the first one or two dimensions is unknown.
    """
    try:
        return open_stack(path, axes="tyx"), f"{UNNAMED}yx"
    except AxesError:
        return open_stack(path, axes="tzyx"), "tzyx"


def question(name: str, length: int | None = None) -> str:
    """What to ask the user."""
    size = f" ({length} long)" if length else ""
    return f"{name} does not say what its first axis{size} is: images one after the other, or the planes of a volume?"


def sidecar_of(path: Path) -> Path:
    """Where the axes of an image are remembered: its sidecar, which need not exist."""
    return beside(path, ".calibration.yaml") or path.with_name(f"{path.name}.calibration.yaml")


def remember_axes(path: Path, axes: str) -> Path:
    """Write the axes into the sidecar of an image, which then holds for the command line too; the rest of it stays."""
    sidecar = sidecar_of(path)
    lines = sidecar.read_text(encoding="utf-8").splitlines() if sidecar.is_file() else []
    lines = [line for line in lines if not line.startswith("axes:")]
    with atomic_path(sidecar) as part:
        part.write_text("\n".join([f"axes: {axes}", *lines]) + "\n", encoding="utf-8")
    return sidecar
