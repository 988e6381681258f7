"""Many inputs: each on its own, every failure listed, one summary over all."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from seg.errors import DataError, InterruptedRunError, SegError, UsageError
from seg.io.registry import named
from seg.io.results import write_table
from seg.locking import only_run_in
from seg.memory import is_short
from seg.metrics.table import to_table
from seg.slabs import DISK_FULL
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


def each_input(
    inputs: Sequence[Path], out: Path, one: Callable[[Path, Path], pd.DataFrame], *,
    names: Sequence[str | None] | None = None,
) -> list[RunResult]:  # fmt: skip
    """Apply `one` to every input; a failure is recorded and the next input goes on.

    Parameters
    ----------
    inputs : sequence of Path
    out : Path
        No other run may work in it at the same time.
    one : callable
        Gets an input and its result folder, gives the headline rows.
    names : sequence of (str or None) or None
        Names of the result folders; None: after the inputs.

    Raises
    ------
    InterruptedRunError
        When the disk is full: what is finished is kept.
    UsageError
        When `out` cannot be written, or another run works in it.
    """
    folders = result_folders(inputs, out, names)
    with only_run_in(out):
        results: list[RunResult] = []
        for path, folder in zip(inputs, folders, strict=True):
            started = time.monotonic()
            try:
                result = _result(path, folder, one)
            except InterruptedRunError:
                with contextlib.suppress(OSError):
                    _write_summary(results, out, complete=False)
                raise
            if result.error:
                logger.error("%s: %s", path, result.error)
            results.append(replace(result, seconds=time.monotonic() - started))
            try:
                _write_summary(results, out, complete=len(results) == len(inputs))
            except OSError as error:
                raise _ours(error, out) or error from error
        return results


def _result(path: Path, folder: Path, one: Callable[[Path, Path], pd.DataFrame]) -> RunResult:
    """Apply `one` and turn what it raises into a sentence; what concerns all inputs is raised."""
    try:
        return RunResult(path, folder, headline=one(path, folder))
    except InterruptedRunError:
        raise
    except SegError as error:
        return RunResult(path, folder, str(error), type(error).__name__, error.exit_code)
    except OSError as error:
        stop = _ours(error, folder)
        if stop is not None:
            raise stop from error
        return RunResult(path, folder, f"{error.strerror or error}: {error.filename or path}", "OSError", 1)
    except Exception as error:  # a bug of ours must not cost the other inputs
        if is_short(error):
            text = "There is not enough memory for this input; close other programs, or use a machine with more."
            return RunResult(path, folder, text, "MemoryError", 1)
        text = f"{type(error).__name__}: {error} (a bug)"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
            text = f"{type(error).__name__}: {error} (a bug; see {folder / 'traceback.txt'})"
        return RunResult(path, folder, text, "bug", 1)


def _ours(error: OSError, folder: Path) -> SegError | None:
    """The error to stop the batch with where it is our output that cannot be written, else None."""
    if error.errno in DISK_FULL:
        return InterruptedRunError(
            f"{folder} cannot take more ({error.strerror}); free some space: what is finished is kept, "
            "the same command continues."
        )
    written = error.filename is not None and folder in Path(str(error.filename)).parents
    if error.errno == errno.EROFS or (error.errno in (errno.EACCES, errno.EPERM) and written):
        return UsageError(f"{folder} cannot be written ({error.strerror}); choose another --out.")
    return None


def result_folders(inputs: Sequence[Path], out: Path, names: Sequence[str | None] | None = None) -> list[Path]:
    """One result folder per input, named after it; equal names get their parent's name in front."""
    given = names or [None] * len(inputs)
    stems = [name or _stem(path) for path, name in zip(inputs, given, strict=True)]
    folders = []
    for path, stem, name in zip(inputs, stems, given, strict=True):
        if stems.count(stem) > 1 and name is None:
            stem = f"{path.resolve().parent.name}_{named(path).name.replace('.', '_')}"
        folders.append(out / stem)
    if len(set(folders)) != len(folders):
        raise DataError("Two inputs would write to the same result folder; pass them in separate runs.")
    return folders


def _stem(path: Path) -> str:
    name = named(path).name
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
