"""Many inputs: each on its own, every failure listed, one summary over all."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from seg.errors import DataError, SegError
from seg.io.results import write_table
from seg.metrics.table import to_table
from seg.study import density_against_current

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What became of one input: its folder, or the reason it failed."""

    source: Path
    folder: Path
    error: str = ""
    error_kind: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    headline: pd.DataFrame = field(default_factory=pd.DataFrame)


def each_input(inputs: Sequence[Path], out: Path, one: Callable[[Path, Path], pd.DataFrame]) -> list[RunResult]:
    """Apply `one` to every input; a failure is recorded and the next input goes on."""
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for path, folder in zip(inputs, _folders(inputs, out), strict=True):
        started = time.monotonic()
        try:
            headline = one(path, folder)
            result = RunResult(path, folder, headline=headline)
        except SegError as error:
            result = RunResult(path, folder, str(error), type(error).__name__, error.exit_code)
        except MemoryError:
            result = RunResult(path, folder, "There is not enough memory for this input.", "MemoryError", 1)
        except OSError as error:
            result = RunResult(path, folder, f"{error.strerror or error}: {error.filename or path}", "OSError", 1)
        except Exception as error:  # a bug of ours must not cost the other inputs
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
            message = f"{type(error).__name__}: {error} (a bug; see {folder / 'traceback.txt'})"
            result = RunResult(path, folder, message, "bug", 1)
        if result.error:
            logger.error("%s: %s", path, result.error)
        results.append(replace(result, seconds=time.monotonic() - started))
        _write_summary(results, out, complete=len(results) == len(inputs))
    return results


def _folders(inputs: Sequence[Path], out: Path) -> list[Path]:
    """One result folder per input, named after it; equal names get their parent's name in front."""
    names = [_stem(path) for path in inputs]
    folders = []
    for path, name in zip(inputs, names, strict=True):
        if names.count(name) > 1:
            name = f"{path.resolve().parent.name}_{path.name.replace('.', '_')}"
        folders.append(out / name)
    if len(set(folders)) != len(folders):
        raise DataError("Two inputs would write to the same result folder; pass them in separate runs.")
    return folders


def _stem(path: Path) -> str:
    name = path.name or path.resolve().name
    for suffix in (".ome.tif", ".ome.tiff", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem if path.is_file() else name


def _write_summary(results: Sequence[RunResult], out: Path, *, complete: bool) -> None:
    """``summary.csv`` (headline numbers of all inputs, and what only all of them tell) and ``failures.csv``."""
    tables = [
        r.headline.assign(input=str(r.source), folder=r.folder.name) for r in results if not r.error and len(r.headline)
    ]
    columns = [
        "input", "folder", "metric", "value", "low", "high", "unit", "class", "frame", "time_s", "side", "method",
        "flags",
    ]  # fmt: skip
    slope = density_against_current([r.folder for r in results if not r.error]) if complete else None
    if slope is not None:
        tables.append(to_table([slope]).assign(input="all inputs", folder=""))
    summary = pd.concat(tables)[columns] if tables else pd.DataFrame(columns=columns)
    write_table(summary, out / "summary.csv")
    failures = pd.DataFrame(
        [(str(r.source), r.error_kind, r.error) for r in results if r.error], columns=["input", "kind", "reason"]
    )
    write_table(failures, out / "failures.csv")
