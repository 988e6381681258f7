"""How often a call was begun and never ended: which call it is that ends its workers.

Dask blames the death of a worker on all that was sent to it, also on what had not begun. Here each call leaves an empty
file when it begins and takes it away however Python ends it; the files of killed processes stay.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class EndsWorkersError(Exception):
    """A call is not begun again: it never ended as often as is allowed."""


@dataclass(frozen=True)
class Attempts:
    """The beginnings of numbered calls, in one run.

    Parameters
    ----------
    folder : Path
        Under a path that all machines know.
    allowed : int
        How often a call may begin without ending.
    token : str
        Of this run: earlier runs may have been killed with all their workers.
    """

    folder: Path
    allowed: int
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def run(self, number: int, call: Callable[..., T], *arguments: Any) -> T:
        """The result of a call; raises `EndsWorkersError` instead where it has ended its workers too often."""
        if self.unfinished(number) >= self.allowed:
            raise EndsWorkersError
        note = self.folder / f".begun-{self.token}-{number}-{uuid.uuid4().hex}"
        note.touch()
        try:
            return call(*arguments)
        finally:
            note.unlink(missing_ok=True)

    def unfinished(self, number: int) -> int:
        """How often a call has begun and neither returned nor raised."""
        return len(list(self.folder.glob(f".begun-{self.token}-{number}-*")))

    def forget(self) -> None:
        """Delete the notes."""
        for note in self.folder.glob(f".begun-{self.token}-*"):
            note.unlink(missing_ok=True)
