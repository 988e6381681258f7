"""Stages of a run that can be skipped: each remembers what it was made from and what it wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seg.io.results import write_json

WORK = ".work"


def key_of(**parts: Any) -> str:
    """Hash of everything a stage depends on; equal keys mean equal results."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def work_dir(folder: Path) -> Path:
    """Where unfinished work of a result folder is kept."""
    path = folder / WORK
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_done(folder: Path, stage: str, key: str) -> bool:
    """Whether `stage` finished under the same key and its outputs are still as it left them."""
    try:
        record = json.loads((folder / WORK / f"{stage}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    outputs = record.get("outputs") if isinstance(record, dict) and record.get("key") == key else None
    return isinstance(outputs, dict) and all(_state(folder / name) == state for name, state in outputs.items())


def mark_done(folder: Path, stage: str, key: str, outputs: Iterable[Path]) -> None:
    """Record that `stage` finished, after its outputs are in place."""
    states = {path.relative_to(folder).as_posix(): _state(path) for path in outputs}
    write_json({"key": key, "outputs": states}, work_dir(folder) / f"{stage}.json")


def _state(path: Path) -> list[int] | None:
    """Size and time of change: enough to notice a file that was edited, replaced or removed."""
    try:
        if not path.is_dir():
            stat = path.stat()
            return [stat.st_size, stat.st_mtime_ns]
        states = [file.stat() for file in path.rglob("*")]
    except OSError:
        return None
    return [len(states), sum(state.st_size for state in states), max((s.st_mtime_ns for s in states), default=0)]
