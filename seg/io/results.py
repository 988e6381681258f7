"""Writing results so that a crash leaves either the old file or the new one, never half of it."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import math
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_CSV_ROWS = 20_000  # that are held as Python values at a time


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A name beside `path` to write to; on success it takes the place of `path`, on failure it is removed.

    Works for files and for folders (``.ome.zarr``). What was written is flushed to the disk before the rename, and
    what a killed process left behind beside `path` is cleared away.

    Yields
    ------
    Path
        Hidden, in the same folder, with the same ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    part = path.with_name(f".{_mark()}{os.getpid()}-{secrets.token_hex(4)}.part.{path.name}")
    try:
        yield part
        _flush(part)
        _take_place(part, path)
        _flush_folder(path.parent)
    finally:
        remove(part)


def write_table(table: pd.DataFrame, path: Path | str) -> Path:
    """Save a table as CSV, whole or not at all."""
    path = Path(path)
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        if any(kind.kind in "fmM" and kind != np.float64 for kind in table.dtypes):  # written their own way
            table.to_csv(file, index=False, lineterminator="\n")
            return path
        # The same, byte for byte, in less than half of its time.
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        for first in range(0, len(table), _CSV_ROWS):
            rows = table.iloc[first : first + _CSV_ROWS]
            writer.writerows(zip(*(_cells(rows.iloc[:, k]) for k in range(rows.shape[1])), strict=True))
    return path


def _cells(column: pd.Series) -> list[Any]:
    """The values of a column as text or as plain Python ones, what is missing as empty text."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return _numbers(column.to_numpy())
    values, missing = column.to_numpy(object).tolist(), column.isna().to_numpy()
    return ["" if gone else value for value, gone in zip(values, missing, strict=True)] if missing.any() else values


def _numbers(values: np.ndarray) -> list[str]:
    """Numbers as text, NaN as empty text; those that come again and again (times, sizes in pixels) are worded once."""
    import pandas as pd

    bits = values.view(np.int64) if values.dtype == np.float64 else values  # 0.0 and -0.0 are two
    codes, found = pd.factorize(bits)
    texts = ["" if value != value else repr(value) for value in found.view(values.dtype).tolist()]
    return np.array(texts, object)[codes].tolist()


def write_json(data: Any, path: Path | str) -> Path:
    """Save plain data as JSON, whole or not at all; NaN becomes null, numpy values and paths become plain."""
    path = Path(path)
    text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as part:
        part.write_text(text + "\n", encoding="utf-8")
    return path


def plain(data: Any) -> Any:
    """`data` as JSON knows it: dataclasses become dicts, arrays lists, paths text, NaN and infinity None."""
    if is_dataclass(data) and not isinstance(data, type):
        return plain(asdict(data))
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [plain(value) for value in data]
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, np.generic):
        return plain(data.item())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if data is None or isinstance(data, (bool, int, str)):
        return data
    return str(data)


def _mark() -> str:
    """Start of the names this machine writes; process numbers mean nothing on another one."""
    host = "".join(c for c in socket.gethostname() if c.isalnum())[:16]
    return f"{host}-"


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that no longer run left beside `path`."""
    if os.name != "posix":  # elsewhere asking whether a process lives may end it
        return
    mark = _mark()
    for part in path.parent.glob(f".{mark}*.part.{glob.escape(path.name)}"):
        number = part.name[len(mark) + 1 :].partition("-")[0]
        if number.isdecimal() and int(number) != os.getpid() and not _alive(int(number)):
            remove(part)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _take_place(part: Path, path: Path) -> None:
    if not path.is_dir():
        part.replace(path)
        return
    # a folder cannot be replaced in one step: move the old one aside first
    old = part.with_name(part.name + ".old")
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    remove(old)


def _flush(part: Path) -> None:
    files = (p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
    for file in files:
        with file.open("rb+") as handle:
            os.fsync(handle.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
