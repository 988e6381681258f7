"""Progress as a plain callable: core loops take one, only the shells know tqdm or napari."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable and reports how far it has come; ``tqdm.tqdm`` fits as it is."""

    def __call__(self, iterable: Iterable[T], *, total: int | None = None, desc: str = "") -> Iterable[T]:
        """Yield what `iterable` holds."""
        ...


def silent(iterable: Iterable[T], *, total: int | None = None, desc: str = "") -> Iterator[T]:
    """Progress that says nothing: the default everywhere in the engine."""
    return iter(iterable)
