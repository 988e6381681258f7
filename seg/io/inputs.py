"""What a user named: files, globs and folders as a list of inputs, and the fingerprint of each."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from seg.errors import DataError, NothingMatchedError
from seg.io import images, omezarr
from seg.io.images import natural_key
from seg.io.registry import READERS, known_suffix, named

logger = logging.getLogger(__name__)

# Above this a fingerprint reads samples instead of every byte: hashing 100 GB would take longer than measuring it.
FULL_HASH_BYTES = 512 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 2**20


def find_inputs(patterns: Sequence[Path | str]) -> list[Path]:
    """The inputs that files, globs and folders name, each once, in the order given.

    Parameters
    ----------
    patterns : sequence of Path or str
        A glob may hold ``**`` for any depth. A folder of single images is *one* time series and an OME-Zarr folder
        one file; any other folder stands for the readable files in it. Hidden files, sidecars and files of unknown
        formats are skipped, except those named one by one: opening them will say what is wrong.

    Returns
    -------
    list of Path
        Not empty: `NothingMatchedError` when nothing matched.
    """
    found: dict[Path, None] = {}
    missing: list[str] = []
    for pattern in patterns:
        path = named(Path(pattern).expanduser())
        if path.is_dir():
            matches = list(_in_folder(path))
        elif path.exists() or not has_magic(str(pattern)):
            matches = [path] if path.exists() else []
        else:
            matches = list(_in_glob(str(path)))
        if not matches:
            missing.append(str(pattern))
        found.update(dict.fromkeys(matches))
        if not matches and not has_magic(str(pattern)) and not path.exists():
            found[path] = None  # a batch lists it as failed
    if not any(path.exists() for path in found):
        raise NothingMatchedError(f"Nothing matched {', '.join(str(p) for p in patterns) or 'an empty list'}.")
    for pattern in missing:
        logger.warning("nothing matched %s", pattern)
    return list(found)


def _in_folder(folder: Path) -> Iterator[Path]:
    if omezarr.can_open(folder):
        yield folder
        return
    pictures = images.folder_images(folder)
    if pictures and images.count_pages(pictures[0]) <= 1:
        yield folder
        return
    for path in sorted(folder.iterdir(), key=natural_key):
        if _is_input(path):
            yield path


def _in_glob(pattern: str) -> Iterator[Path]:
    stores: set[Path] = set()
    for match in sorted((Path(m) for m in glob(pattern, recursive=True)), key=lambda p: (len(p.parts), *_key(p))):
        if stores.intersection(match.parents):
            continue  # a chunk inside a zarr store
        if match.is_dir():
            if omezarr.can_open(match):
                stores.add(match)
                yield match
            elif "**" not in pattern:  # `**` lists the files of the folder as well
                yield from _in_folder(match)
        elif _is_input(match):
            yield match


def _key(path: Path) -> tuple[list[tuple[int, int, str]], ...]:
    return tuple(natural_key(Path(part)) for part in path.parts)


def _is_input(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return omezarr.can_open(path)
    return known_suffix(path) or any(reader.can_open(path) for reader in READERS)


def fingerprint(path: Path | str) -> str:
    """Hash that tells whether an input is still the same.

    Parameters
    ----------
    path : Path or str
        A file, or a folder: then the relative names and contents of all its files.

    Returns
    -------
    str
        ``sha256:...`` over all content up to 512 MiB. ``sampled-sha256:...`` above: names, sizes and times of change
        of all files, and 64 pieces of 1 MiB spread evenly over the content; an edit that keeps size and time of change
        and misses the pieces would go unnoticed.
    """
    path = Path(path)
    try:
        return _fingerprint(path)
    except OSError as error:
        raise DataError(f"{path} may not be read: {error.strerror or error}.") from error


def _fingerprint(path: Path) -> str:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    names = [file.relative_to(path).as_posix() if path.is_dir() else "" for file in files]
    total = sum(state.st_size for state in states)
    digest = hashlib.sha256()
    if total <= FULL_HASH_BYTES:
        for file, name, state in zip(files, names, states, strict=True):
            digest.update(f"{name}\0{state.st_size}\0".encode())
            with file.open("rb") as handle:
                while piece := handle.read(_SAMPLE_BYTES):
                    digest.update(piece)
        return f"sha256:{digest.hexdigest()}"
    for name, state in zip(names, states, strict=True):
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    wanted = [i * (total - _SAMPLE_BYTES) // (_SAMPLES - 1) for i in range(_SAMPLES)]
    start = 0
    for file, state in zip(files, states, strict=True):
        inside = [at - start for at in wanted if start <= at < start + state.st_size]
        if inside:
            with file.open("rb") as handle:
                for at in inside:
                    handle.seek(at)
                    digest.update(handle.read(_SAMPLE_BYTES))
        start += state.st_size
    return f"sampled-sha256:{digest.hexdigest()}"
