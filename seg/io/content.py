"""What a file is by its first bytes and its name; these never raise."""

from __future__ import annotations

from pathlib import Path


def head(path: Path, count: int = 64) -> bytes:
    """The first bytes of a file; empty for a folder or a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends in one of `suffixes`, in any case."""
    return path.name.lower().endswith(suffixes)


def looks_like_text(data: bytes) -> bool:
    """Whether `data` holds printable text only."""
    return bool(data) and all(byte in b"\t\n\r\f" or byte >= 0x20 for byte in data)
