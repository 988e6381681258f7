"""The report of one experiment: a single HTML page made from what a run saved, and from that only."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

from seg.io.results import atomic_path
from seg.labels import UNLABELLED
from seg.report.content import content
from seg.report.pictures import background_class, draw, read_pictures, scale_bar
from seg.report.saved import Saved, read_saved

__all__ = ["write_report"]

logger = logging.getLogger(__name__)

MAX_BYTES = 5_000_000
# Longest side and JPEG quality of the pictures; the next pair is tried while the page is too large to send by mail.
_PICTURE_SIZES = ((800, 88), (640, 84), (520, 78), (420, 70), (320, 60))


def write_report(result_dir: Path) -> Path:
    """Make ``report.html`` in a result folder.

    The page holds its pictures, curves and styles itself, needs no network and no script, and is the same for the same
    results.

    Parameters
    ----------
    result_dir : Path
        A folder that `operandoseg run` or `measure` made: ``run.json`` and ``metrics.csv``, and where the run made them
        ``objects.csv``, ``electrochem.csv`` and ``keyframes/``.

    Returns
    -------
    Path
        The report. DataError says what is missing or damaged.
    """
    result_dir = Path(result_dir)
    saved = read_saved(result_dir)
    frames, problems = read_pictures(saved)
    saved.problems += problems
    page = content(saved)
    html = ""
    for max_side_px, quality in _PICTURE_SIZES:
        html = _render(page, _pictures(saved, frames, page["moments"], max_side_px, quality))
        if len(html.encode()) < MAX_BYTES:
            break
    else:
        logger.warning("%s: the report has %.1f MB", result_dir.name, len(html.encode()) / 1e6)
    target = result_dir / "report.html"
    with atomic_path(target) as part:
        part.write_text(html, encoding="utf-8", newline="\n")
    return target


def _pictures(
    saved: Saved, frames: list[Any], moments: dict[int, str], max_side_px: int, quality: int
) -> dict[str, Any]:
    """Draw the key frames at one size, their scale bar and their legend."""
    if not frames:
        return {}
    # where there is no image to be seen through it, the background gets its colour too
    seen_through = any(image is not None for _, _, image in frames)
    background = background_class(frames, saved.schema) if seen_through else UNLABELLED
    pictures = [
        draw(frame, saved.schema, saved, plain_class=background, max_side_px=max_side_px, quality=quality)
        for frame in frames
    ]
    present = {value for picture in pictures for value in picture.classes}
    legend = [c for c in saved.schema.classes if c.index in present]
    shown = []
    for picture in pictures:
        z = "" if picture.key.z is None else f"slice z = {picture.key.z}"
        names = ", ".join(c.name.replace("_", " ") for c in legend if c.index in picture.classes)
        caption = " · ".join(part for part in (moments.get(picture.key.frame, ""), z) if part)
        shown.append({"picture": picture, "caption": caption, "classes": names})
    return {
        "shown": shown, "bar": scale_bar(saved), "legend": legend, "background": background, "unlabelled": 0 in present,
        "has_images": any(picture.image for picture in pictures),
        "wide": pictures[0].width > 1.6 * pictures[0].height,
    }  # fmt: skip


def _render(page: dict[str, Any], pictures: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("seg.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = files("seg.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(**page, pictures=pictures, css=css)
