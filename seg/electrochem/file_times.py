"""When a recording started by the calendar, from what the files themselves say."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

from seg.electrochem.table import records_start
from seg.errors import DataError

_HEAD_BYTES = 65536
_BIOLOGIC = re.compile(r"Acquisition started on\s*:\s*(\S+ \S+)")
_GAMRY_DATE = re.compile(r"^DATE\t\w+\t(\S+)", re.M)
_GAMRY_TIME = re.compile(r"^TIME\t\w+\t(\S+)", re.M)
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?)")
_OME = re.compile(r"<(?:\w+:)?AcquisitionDate>\s*([^<\s]+)")


def offset_from_files(image: Path, cycler: Path) -> float:
    """Offset between the clocks from the dates in both files: start of the cycler less start of the images, in s.

    Raises
    ------
    DataError
        Where a file says no date and time.

    Notes
    -----
    Both computers' clocks are believed as they are, and time zones are not looked at: a difference of whole hours is
    one of them.
    """
    starts = image_start(image), cycler_start(cycler)
    for path, start in zip((image, cycler), starts, strict=True):
        if start is None:
            raise DataError(
                f"{path.name} does not say when it was started, so the clocks cannot be matched by the files' dates; "
                "give the offset with --echem-offset, such as 12s."
            )
    first, second = starts
    assert first is not None
    assert second is not None
    return (second - first).total_seconds()


def image_start(path: Path) -> datetime | None:
    """Date and time of the first frame: OME ``AcquisitionDate`` or the TIFF ``DateTime`` tag; None without."""
    import tifffile

    first = path if path.is_file() else min(path.glob("*.tif*"), default=None)
    if first is None or not first.name.lower().endswith((".tif", ".tiff")):
        return None
    with tifffile.TiffFile(first) as tif:
        found = _OME.search(tif.ome_metadata or "")
        if found:
            return _parsed(found[1])
        tag: Any = tif.pages[0].tags.get("DateTime")  # type: ignore[union-attr]
        return _parsed(re.sub(r"^(\d{4}):(\d\d):", r"\1-\2-", str(tag.value))) if tag is not None else None


def cycler_start(path: Path) -> datetime | None:
    """Date and time of the cycler's zero: EC-Lab's and Gamry's header, else its records, else the first date there."""
    with path.open("rb") as file:
        text = file.read(_HEAD_BYTES).decode("latin-1")
    biologic, date, time = _BIOLOGIC.search(text), _GAMRY_DATE.search(text), _GAMRY_TIME.search(text)
    if biologic:
        return _parsed(biologic[1])
    if date and time:
        return _parsed(f"{date[1]} {time[1]}")
    try:
        stated = records_start(path)
    except DataError:  # whoever wants the records says so
        stated = None
    if stated is not None:
        return _parsed(stated)
    found = _ISO.search(text)
    return _parsed(found[1]) if found else None


def _parsed(text: str) -> datetime | None:
    """Read a date, month first where it is not ISO, as the instruments write it."""
    import pandas as pd

    stamp = pd.to_datetime(text, errors="coerce")
    return None if pd.isna(stamp) else stamp.to_pydatetime().replace(tzinfo=None)
