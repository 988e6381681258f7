"""A Python process beside napari that computes with torch; functions and results go through its pipes.

The pipes carry pickles. Only this process and the child that it started itself write to them; nothing that comes from a
file or a network is ever unpickled.

Not a thread: torch brings a compiler whose LLVM crashes beside that of Mesa's OpenGL drivers, which draw napari on many
Linux machines; memory of a GPU is given back only when a process ends; and a process can be stopped at any time.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from seg.errors import SegError
from seg.progress import Progress

Report = Callable[[str, int, int], None]


class EngineError(SegError):
    """The computing process ended without an answer."""


class Stopped(Exception):
    """The computing process was told to stop."""


class Engine:
    """Calls functions in a process of its own, one at a time; the process stays, with what it has loaded."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def call(self, function: Callable[..., Any], *args: Any, report: Report | None = None) -> Any:
        """Run ``function(*args, progress)`` there and give back its result.

        Parameters
        ----------
        function : callable
            Of a module, so that the process finds it by name; its last argument is a `seg.progress.Progress`.
        *args
            Plain data and arrays.
        report : callable or None
            Gets (what, done, total) in the calling thread.

        Raises
        ------
        SegError
            What the function raised as one, or that the process died.
        Stopped
            After `stop`.
        """
        with self._lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            self._stopped = False
            try:
                _send(process.stdin, (function.__module__, function.__name__, args))
                while True:
                    kind, *values = pickle.load(process.stdout)
                    if kind == "progress":
                        if report is not None:
                            report(*values)
                    elif kind == "returned":
                        return values[0]
                    else:
                        raise values[0]
            except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
                code = process.wait()
                self._process = None
                if self._stopped:
                    raise Stopped from error
                raise EngineError(
                    f"The computing process ended with code {code}; the terminal has the reason."
                ) from error

    def stop(self) -> None:
        """End the process; a call that is going on raises `Stopped`."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "napari_plugin.engine"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._process


ENGINE = Engine()


def _send(pipe: BinaryIO, message: Any) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until the other side closes its end."""

    def progress(iterable: Iterable[Any], *, total: int | None = None, desc: str = "") -> Iterator[Any]:
        count = total if total is not None else len(iterable) if hasattr(iterable, "__len__") else 0
        for done, item in enumerate(iterable):
            _send(answers, ("progress", desc, done, count))
            yield item
        _send(answers, ("progress", desc, count, count))

    while True:
        try:
            module, name, args = pickle.load(requests)
        except EOFError:
            return
        try:
            _send(answers, ("returned", getattr(importlib.import_module(module), name)(*args, progress)))
        except (SegError, OSError) as error:
            _send(answers, ("failed", error))
        except Exception as error:
            import traceback

            traceback.print_exc()
            _send(answers, ("failed", EngineError(f"{type(error).__name__}: {error} (a bug; the terminal has more)")))


def idle(progress: Progress) -> None:
    """Wait ten minutes, reporting ten times a second: what a stop is tested with."""
    for _ in progress(range(6000), desc="waiting"):
        time.sleep(0.1)


def main() -> None:
    """Serve on the pipes this process was started with; whatever else is printed goes to stderr."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
