"""Stages of a pipeline beside each other: read the next part and write the last one while this one is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T], count: int = 1) -> Iterator[T]:
    """The same items, made by a thread of their own up to `count` of them early.

    What the thread raises comes out here, in its place. When the caller stops early the thread stops after the item it
    is making.
    """
    waiting: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(max(count, 1))
    stopped = threading.Event()

    def put(item: object, error: BaseException | None = None) -> None:
        while not stopped.is_set():
            try:
                waiting.put((item, error), timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
                del item  # else one more is kept alive while the next is made
        except BaseException as error:
            put(_END, error)
        else:
            put(_END)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item  # type: ignore[misc]
            del item
    finally:
        stopped.set()
        thread.join()


class Behind(Generic[T]):
    """Calls `work` for each item in a thread of its own; at most `count` items wait.

    A context: leaving it waits for the last item. What `work` raises comes out of the next `put`, or on leaving.
    """

    def __init__(self, work: Callable[[T], object], count: int = 1) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._waiting: queue.Queue[object] = queue.Queue(max(count, 1))
        self._thread = threading.Thread(target=self._run, name="behind", daemon=True)

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(_END)
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, item: T) -> None:
        """Hand over one item; waits while too many are waiting already."""
        self._raise()
        self._waiting.put(item)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not _END:
            if self._error is None:
                try:
                    self._work(item)  # type: ignore[arg-type]
                except BaseException as error:
                    self._error = error
            del item
