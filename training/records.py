"""What a run shows and writes while it goes: rows of CSV, a bar, and the wish to stop."""

from __future__ import annotations

import csv
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seg.errors import InterruptedRunError


class Records:
    """A CSV file that grows row by row; rows of steps not reached by the checkpoint are dropped on opening.

    Parameters
    ----------
    keep_below : int
        Rows of earlier contents whose ``step`` is at most this stay; 0 starts the file anew.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, keep_below: int) -> None:
        self.path, self.columns = path, list(columns)
        kept: list[Mapping[str, Any]] = []
        if keep_below and path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= keep_below]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writeheader()
        self.append(kept)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows at the end; floats with six figures."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            for row in rows:
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


class StopRequest:
    """Turns SIGTERM and the first Ctrl-C into a wish that the loop grants after its step; a second stops at once."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.requested is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)

    def raise_for(self, run_dir: Path) -> None:
        """End the run the way the signal asks for."""
        if self.requested is signal.SIGINT:
            raise KeyboardInterrupt
        raise InterruptedRunError(f"asked to stop; {run_dir} is saved, the same command continues.")


@contextmanager
def bar(done: float, *, quiet: bool, desc: str) -> Iterator[Callable[[float, str], None]]:
    """A progress bar over the share of the run that is done, by steps or by time."""
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
    seldom = 0.2 if sys.stderr.isatty() else 15.0  # a log file wants a line now and then
    with tqdm(total=1.0, initial=done, desc=desc, disable=quiet, bar_format=layout, mininterval=seldom) as shown:

        def show(share: float, text: str) -> None:
            shown.set_postfix_str(text, refresh=False)
            shown.update(share - shown.n)

        yield show
