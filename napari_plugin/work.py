"""Work in threads, with progress and cancel: the function, and the line of a widget that shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_plugin.engine import ENGINE, Stopped
from seg.errors import SegError


class Cancelled(BaseException):
    """The user stopped the work; no `Exception`, so that nothing takes it for a failed input."""


class Work(QObject):
    """A function in a thread, with progress for whoever shows it and a wish to stop that the function grants.

    Signals
    -------
    progressed : (str, int, int)
        What is done, items done, items in all (0: unknown).
    partial : (object,)
        What is finished before the rest; sent by the function.
    returned : (object,)
    failed : (str,)
        One sentence.
    cancelled, ended : ()
    """

    progressed = Signal(str, int, int)
    partial = Signal(object)
    returned = Signal(object)
    failed = Signal(str)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, function: Callable[[Work], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._stop = self._in_engine = False
        self._worker = create_worker(self._run, function, _start_thread=False)
        self._worker.returned.connect(self._finish)
        self._worker.errored.connect(self._fail)

    def start(self) -> Work:
        """Begin."""
        self._worker.start()
        return self

    @property
    def stopping(self) -> bool:
        """Whether somebody asked it to stop, or napari is closing."""
        return self._stop or bool(self._worker.abort_requested)

    def supersede(self) -> None:
        """Ask to stop between two items; what the computing process does is waited for, so that it stays warm."""
        self._stop = True

    def cancel(self) -> None:
        """Ask to stop; granted between two items, and at once by the computing process."""
        self._stop = True
        if self._in_engine:
            ENGINE.stop()

    def compute(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the computing process, with its progress; called in the thread."""
        if self._stop:
            raise Cancelled
        self._in_engine = True
        try:
            return ENGINE.call(function, *args, report=self.progressed.emit)
        except Stopped:
            raise Cancelled from None
        finally:
            self._in_engine = False

    def progress(self, iterable: Iterable[Any], *, total: int | None = None, desc: str = "") -> Iterator[Any]:
        """A `seg.progress.Progress`: called in the thread, seen in the main one."""
        count = total if total is not None else len(iterable) if hasattr(iterable, "__len__") else 0
        for done, item in enumerate(iterable):
            if self.stopping:
                raise Cancelled
            self.progressed.emit(desc, done, count)
            yield item
        self.progressed.emit(desc, count, count)

    def _run(self, function: Callable[[Work], Any]) -> tuple[str, Any]:
        try:
            return "returned", function(self)
        except Cancelled:
            return "cancelled", None
        except (SegError, OSError) as error:
            return "failed", str(error)

    def _finish(self, result: tuple[str, Any]) -> None:
        kind, value = result
        if kind == "cancelled":
            self.cancelled.emit()
        else:
            {"returned": self.returned, "failed": self.failed}[kind].emit(value)
        self.ended.emit()

    def _fail(self, error: BaseException) -> None:
        self.failed.emit(f"{type(error).__name__}: {error} (a bug; the terminal has the details)")
        self.ended.emit()


class ProgressLine(QWidget):
    """A bar with the remaining time and a button to cancel; hidden while nothing runs."""

    def __init__(self) -> None:
        super().__init__()
        self.bar, self.text, self.button = QProgressBar(), QLabel(), QPushButton("Cancel")
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.text.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.text, 1)
        line.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar)
        layout.addLayout(line)
        self._began: dict[str, tuple[float, int]] = {}
        self.of_all = ""  # said in front, of several inputs
        self.hide()

    def follow(self, work: Work) -> None:
        """Show the progress of `work` until it ends."""
        self._began.clear()
        self.of_all = ""
        self.bar.setRange(0, 0)
        self.text.setText("Starting ...")
        self.show()
        self.button.setEnabled(True)
        self.button.clicked.connect(work.cancel)
        self.button.clicked.connect(lambda: (self.button.setEnabled(False), self.text.setText("Stopping ...")))
        work.progressed.connect(self.set)
        work.ended.connect(self.hide)

    def set(self, what: str, done: int, total: int) -> None:
        """Items done, and the time to go at the pace so far."""
        now = time.monotonic()
        began, first = self._began.setdefault(what, (now, done))
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        pace = (now - began) / (done - first) if done > first else None
        left = "" if pace is None or not total else f", {duration((total - done) * pace)} left"
        self.text.setText(self.of_all + (f"{what}: {done} of {total}{left}" if total else what))


def duration(seconds: float) -> str:
    """Seconds as a person says it: ``8 s``, ``3 min``, ``1 h 20 min``."""
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
