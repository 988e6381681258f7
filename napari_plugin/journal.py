"""The journal of a labelling session: every edit on disk at once, so that a killed program loses nothing."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_plugin.edits import Edit
from seg.io.results import atomic_path


class Journal:
    """A file that grows by one line per edit.

    The first line says what the edits apply to; each line carries its own checksum. A line that was cut off by a crash
    is ignored, and so is what follows it.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, about: Mapping[str, Any], entries: Iterable[Mapping[str, Any]] = ()) -> None:
        """Begin anew; `about` is what `read` gives back first, `entries` are kept of an earlier journal."""
        with atomic_path(self.path) as part:
            part.write_text("".join(map(_line, [{"about": dict(about)}, *entries])), encoding="utf-8")

    def add(self, edit: Edit, shape: tuple[int, ...], **said: Any) -> None:
        """Append an edit of an array of `shape`; on return it is on the disk."""
        runs = _runs(np.ravel_multi_index(edit.indices, shape), edit.values)
        packed = base64.b64encode(zlib.compress(runs.tobytes(), 1)).decode()
        entry = {"kind": edit.kind, "model": edit.model, "n": edit.n_pixels, **said, "runs": packed}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """What the edits apply to (None: there is no usable journal), and the entries in order."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return None, []
        entries = list(_sound(lines))
        if not entries or "about" not in entries[0]:
            return None, []
        return entries[0]["about"], entries[1:]


def edit_of(entry: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype) -> Edit:
    """The edit of one entry."""
    runs = np.frombuffer(zlib.decompress(base64.b64decode(entry["runs"])), np.int64).reshape(-1, 3)
    flat = np.concatenate([np.arange(start, start + n) for start, n, _ in runs]) if len(runs) else np.zeros(0, int)
    values = np.repeat(runs[:, 2], runs[:, 1]).astype(dtype)
    return Edit(entry["kind"], np.unravel_index(flat, shape), values, entry["model"])


def _runs(flat: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows (start, length, value): neighbouring pixels of equal value make one."""
    order = np.argsort(flat, kind="stable")
    flat, values = flat[order], np.broadcast_to(values, flat.shape)[order]
    if not len(flat):
        return np.zeros((0, 3), np.int64)
    starts = np.flatnonzero(np.r_[True, (np.diff(flat) != 1) | (np.diff(values.astype(np.int64)) != 0)])
    lengths = np.diff(np.r_[starts, len(flat)])
    return np.stack([flat[starts], lengths, values[starts].astype(np.int64)], axis=1).astype(np.int64)


def _line(entry: Mapping[str, Any]) -> str:
    text = json.dumps(entry, sort_keys=True)
    return json.dumps({"crc": zlib.crc32(text.encode()), "entry": text}) + "\n"


def _sound(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            outer = json.loads(line)
            if outer["crc"] != zlib.crc32(outer["entry"].encode()):
                return
            yield json.loads(outer["entry"])
        except (ValueError, KeyError, TypeError):
            return
