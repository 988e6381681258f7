"""OME-XML: pixel size, frame times and our own annotation, read from the metadata of an OME-TIFF."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from seg.errors import DataError
from seg.io.calibration import evenly, s_per, um_per
from seg.stack import Calibration

logger = logging.getLogger(__name__)

# Namespace of the MapAnnotation that carries what OME has no place for: exact times, label classes, provenance.
NAMESPACE = "operandoseg"


def read_ome(xml: str, image: int, name: str) -> tuple[Calibration, dict[str, Any]]:
    """Calibration of one image of an OME-XML document, and our own annotation where there is one.

    Parameters
    ----------
    xml : str
    image : int
        Position of the image in the document.
    name : str
        What messages call the file.

    Returns
    -------
    calibration : Calibration
        Sizes with a unit that is not understood (``pixel``, ``reference frame``) are left out. Frame times are the
        DeltaT of the first plane of each time point, where all have one and they differ; else multiples of
        TimeIncrement; else None.
    annotation : dict
        The decoded entries of the ``operandoseg`` MapAnnotation; empty for foreign files.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise DataError(f"{name!r} has damaged OME metadata ({error}); export it again.") from error
    pixels = [p for p in root.iterfind("{*}Image/{*}Pixels")]
    if image >= len(pixels):
        return Calibration(), {}
    here = pixels[image]
    sizes = {}
    for axis in "zyx":
        size = _positive(here.get(f"PhysicalSize{axis.upper()}"))
        factor = um_per(here.get(f"PhysicalSize{axis.upper()}Unit", "µm"))
        if size is not None and factor is not None:
            sizes[axis] = size * factor
    annotation = _annotation(root)
    return Calibration(sizes, _times(here, name), "file"), annotation


def _times(pixels: ElementTree.Element, name: str) -> tuple[float, ...] | None:
    try:
        n_frames = int(pixels.get("SizeT", "1"))
    except ValueError:
        return None
    first: dict[int, tuple[tuple[int, int], float]] = {}
    for plane in pixels.iterfind("{*}Plane"):
        factor = s_per(plane.get("DeltaTUnit", "s"))
        try:
            t, z, c = (int(plane.get(f"The{axis}", "0")) for axis in "TZC")
            delta = float(plane.get("DeltaT", "nan"))
        except ValueError:
            continue
        if factor is not None and math.isfinite(delta) and ((z, c) < first[t][0] if t in first else True):
            first[t] = ((z, c), delta * factor)
    times = tuple(first[t][1] for t in range(n_frames) if t in first)
    if len(times) == n_frames and (n_frames == 1 or times[0] != times[-1]):
        if all(b >= a for a, b in zip(times, times[1:], strict=False)):
            return times
        logger.warning("%s: the plane times (DeltaT) go backwards; they are not used", name)
    increment = _positive(pixels.get("TimeIncrement"))
    factor = s_per(pixels.get("TimeIncrementUnit", "s"))
    if increment is None or factor is None or n_frames < 2:
        return None
    return evenly(n_frames, increment * factor)


def _annotation(root: ElementTree.Element) -> dict[str, Any]:
    for element in root.iterfind("{*}StructuredAnnotations/{*}MapAnnotation"):
        if element.get("Namespace") != NAMESPACE:
            continue
        found: dict[str, Any] = {}
        for entry in element.iterfind("{*}Value/{*}M"):
            try:
                found[entry.get("K", "")] = json.loads(entry.text or "null")
            except ValueError:
                continue  # the class list for human readers is plain text
        return found
    return {}


def _positive(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def own_calibration(annotation: Mapping[str, Any], calibration: Calibration) -> Calibration:
    """`calibration` with what only our annotation says: exact frame times, and how well the pixel size is known."""
    times, doubt = annotation.get("frame_times_s"), annotation.get("pixel_size_rel_sd")
    if isinstance(times, list):
        calibration = replace(calibration, frame_times_s=tuple(float(t) for t in times))
    if isinstance(doubt, (int, float)) and calibration.pixel_size_um:
        calibration = replace(calibration, pixel_size_rel_sd=float(doubt))
    return calibration
