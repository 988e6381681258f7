"""What a run shows and writes while it goes: rows of CSV, a bar, and the wish to stop."""

from __future__ import annotations

import csv
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from seg.errors import InterruptedRunError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from training.config import TrainConfig


class Records:
    """A CSV file that grows row by row; rows of steps not reached by the checkpoint are dropped on opening.

    Parameters
    ----------
    keep_below : int
        Rows of earlier contents whose ``step`` is at most this stay; 0 starts the file anew.
    write : bool
        False in all processes but the first.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, keep_below: int, write: bool = True) -> None:
        self.path, self.columns, self.write = path, list(columns), write
        if not write:
            return
        kept: list[Mapping[str, Any]] = []
        if keep_below and path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= keep_below]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writeheader()
        self.append(kept)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows at the end; floats with six figures."""
        if not self.write:
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            for row in rows:
                writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


class Log:
    """What happens at each step: always as CSV, and where asked for in TensorBoard or MLflow too."""

    def __init__(self, csv_file: Records, trackers: Sequence[Tracker]) -> None:
        self.csv_file, self.trackers = csv_file, trackers

    def add(self, row: Mapping[str, Any]) -> None:
        """One row of steps.csv; ``step`` is its place in the curves."""
        self.csv_file.append([row])
        values = {f"train/{key}": float(value) for key, value in row.items() if key != "step"}
        for tracker in self.trackers:
            tracker.add(values, int(row["step"]))

    def add_scores(self, table: pd.DataFrame, step: int) -> None:
        """The IoU of every data set, class and method of a summary."""
        values = {f"{r['source']}/{r['class']}/{r['method']}_iou": float(r["iou"]) for _, r in table.iterrows()}
        for tracker in self.trackers:
            tracker.add(values, step)

    def close(self) -> None:
        """Flush and end what the trackers hold open."""
        for tracker in self.trackers:
            tracker.close()


class Tracker(Protocol):
    """Where curves go besides the CSV file."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Put a point on each named curve."""

    def close(self) -> None:
        """Flush."""


class TensorBoard:
    """Event files in ``RUN/tensorboard``."""

    def __init__(self, run_dir: Path, config: TrainConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run_dir / "tensorboard"))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Put a point on each named curve."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class MLflow:
    """A run of the experiment ``operandoseg`` at ``MLFLOW_TRACKING_URI``, by default a database beside the runs."""

    def __init__(self, run_dir: Path, config: TrainConfig) -> None:
        import mlflow

        if "MLFLOW_TRACKING_URI" not in os.environ:
            import alembic  # noqa: F401  both needed by the database, and not brought by mlflow-skinny
            import sqlalchemy  # noqa: F401

            mlflow.set_tracking_uri(f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}")
        mlflow.set_experiment("operandoseg")
        self.mlflow = mlflow
        earlier = mlflow.search_runs(filter_string=f"attributes.run_name = '{config.name}'", output_format="list")
        mlflow.start_run(run_id=earlier[0].info.run_id if earlier else None, run_name=config.name)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Put a point on each named curve."""
        self.mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


TRACKERS: dict[str, Callable[[Path, TrainConfig], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def open_log(run_dir: Path, config: TrainConfig, columns: Sequence[str], *, step: int, write: bool = True) -> Log:
    """The CSV file from `step` on, and the trackers of ``trainer.loggers``; UsageError names what to install."""
    trackers = []
    for name in config.trainer.loggers if write else ():
        try:
            trackers.append(TRACKERS[name](run_dir, config))
        except ImportError as error:
            raise UsageError(
                f"trainer.loggers={name} needs a package that is not there ({error}); "
                "pip install 'operandoseg[tracking]', or leave it out: steps.csv is always written."
            ) from error
    return Log(Records(run_dir / "steps.csv", columns, keep_below=step, write=write), trackers)


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
