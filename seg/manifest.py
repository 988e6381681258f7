"""Manifests: a table of inputs, each with options of its own, as CSV or YAML.

CSV, one row per input, empty cells for what holds for all::

    input,pixel_size,frame_interval,electrode_area_cm2,name
    cell_a/video.tif,0.5um,2s,0.785,a
    cell_b/video.tif,0.25um,,0.785,b

YAML, the same as a list::

    - {input: cell_a/video.tif, pixel_size: 0.5um, name: a}
    - {input: 'cell_b/*.tif', pixel_size: 0.25um}

A manifest may come from somebody else: its paths are relative to it (or to ``--data-root``) and may not lead out
of there, and a name is the name of one folder.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from seg.errors import NothingMatchedError, UsageError
from seg.io import find_inputs, parse_duration_s, parse_pixel_size, parse_rel_sd
from seg.options import RunOptions

MAX_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Entry:
    """One input and what is said about it alone.

    Parameters
    ----------
    path : Path
    given : mapping
        Fields of `RunOptions` that replace those of the run.
    name : str or None
        Name of the result folder; None: after the input.
    """

    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    def options(self, common: RunOptions) -> RunOptions:
        """The options of the run with those of this input."""
        return replace(common, **self.given)


def read_manifest(path: Path, *, root: Path | None = None) -> list[Entry]:
    """The inputs of a manifest, patterns expanded, in its order.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.yaml`` or ``.yml``.
    root : Path or None
        Folder that its paths are relative to and must stay in; None: that of the manifest.

    Raises
    ------
    UsageError
        Says the row and what is wrong with it.
    """
    root = (root or path.parent).resolve()
    entries: list[Entry] = []
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path.name}, input {number}"
        entries += _entries(row, where, root)
    if not entries:
        raise NothingMatchedError(f"{path} lists no inputs.")
    return entries


def _rows(path: Path) -> list[Mapping[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES >> 20} MiB; that is no manifest.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a manifest: {error}.") from error
    if path.suffix.lower() == ".csv":
        try:
            reader = csv.DictReader(text.splitlines(), strict=True)
            rows: Any = [{k: v for k, v in row.items() if v not in (None, "")} for row in reader]
        except csv.Error as error:
            raise UsageError(f"{path} is not readable CSV: {error}.") from error
    elif path.suffix.lower() in (".yaml", ".yml"):
        _refuse_aliases(text, path)
        try:
            rows = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise UsageError(f"{path} is not readable YAML: {error}") from error
    else:
        raise UsageError(f"{path} is no manifest; it ends in .csv, .yaml or .yml.")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} must be a list of inputs, such as `- {{input: a.tif, pixel_size: 0.5um}}`.")
    return rows


def _refuse_aliases(text: str, path: Path) -> None:
    """A few lines of YAML with references to references unfold to more than any memory; a manifest needs none."""
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{path} holds a YAML alias (*{event.anchor}); write the values out.")
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{path} is not readable YAML: {error}") from error


def _entries(row: Mapping[Any, Any], where: str, root: Path) -> list[Entry]:
    for key in row:
        if key not in _COLUMNS and key not in ("input", "name"):
            near = get_close_matches(str(key), ["input", "name", *_COLUMNS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are input, name, {', '.join(_COLUMNS)}."
            raise UsageError(f"{where} has the unknown column {key!r}; {hint}")
    if not row.get("input"):
        raise UsageError(f"{where} names no input.")
    given: dict[str, Any] = {}
    for key, value in row.items():
        if key in _COLUMNS:
            name, convert = _COLUMNS[key]
            try:
                given[name] = inside(str(value), root, where) if convert is Path else convert(str(value))
            except ValueError as error:
                raise UsageError(f"{where}: {key} is {value!r}; expected a number.") from error
    if "echem_offset_s" in given:
        given["echem_clock"] = "offset"
    pattern = inside(str(row["input"]), root, where)
    name = None if row.get("name") is None else folder_name(str(row["name"]), where)
    try:
        paths = find_inputs([pattern])
    except NothingMatchedError:
        paths = [pattern]  # the batch lists it as failed
    for path in paths:
        if not path.resolve().is_relative_to(root):
            raise UsageError(f"{where}: {path} is a link that leads out of {root}.")
    if name is not None and len(paths) > 1:
        raise UsageError(f"{where}: {row['input']!r} names {len(paths)} inputs, so the name {name!r} cannot be theirs.")
    return [Entry(path, given, name) for path in paths]


def inside(text: str, root: Path, where: str) -> Path:
    """The path `text` under `root`; UsageError where it leads out of there."""
    parts = PurePosixPath(text).parts + PureWindowsPath(text).parts
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or text.startswith(("/", "\\", "~"))
    if absolute or ".." in parts or "\0" in text or not (root / text).resolve().is_relative_to(root):
        raise UsageError(
            f"{where}: {text!r} leads out of {root}; paths in a manifest are relative. Pass --data-root DIR where the "
            "images lie elsewhere."
        )
    return root / text


def folder_name(text: str, where: str) -> str:
    """`text` where it can be the name of one visible folder anywhere."""
    if not text.strip() or text.startswith(".") or set(text) & set('/\\:*?"<>|\0') or not text.isprintable():
        raise UsageError(f"{where}: {text!r} cannot be the name of a folder.")
    return text


# Column to field of RunOptions and how its text is read.
_COLUMNS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "axes": ("axes", str),
    "pixel_size": ("pixel_size_um", parse_pixel_size),
    "pixel_size_sd": ("pixel_size_rel_sd", parse_rel_sd),
    "frame_interval": ("frame_interval_s", parse_duration_s),
    "dataset": ("dataset", str),
    "echem": ("echem", Path),
    "echem_offset": ("echem_offset_s", parse_duration_s),
    "echem_drift": ("echem_drift_s_per_h", parse_duration_s),
    "electrode_area_cm2": ("electrode_area_cm2", float),
}
