"""Predicts what is on show in a thread; the newest request wins, and parts are shown as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from qtpy.QtCore import QObject, QTimer, Signal

from napari_plugin.forest_predictor import ForestPredictor
from napari_plugin.prediction import Plane, Prediction
from napari_plugin.work import Work
from seg.errors import LabelError

SHOW_EVERY_S = 0.15  # parts are gathered for so long: drawing a frame costs the main thread about a tenth of it
REST_MS = 200  # a frame is looked at for so long before its features are computed in advance


@dataclass(frozen=True)
class Request:
    """What to predict: a function of the work that yields parts, and the plane they are of."""

    plane: Plane
    parts: Callable[[Work], Iterator[Prediction]]


class LivePrediction(QObject):
    """One prediction at a time.

    Signals
    -------
    arrived : (list of Prediction,)
    failed : (str,)
    rested : ()
        Nothing is asked for any more.
    """

    arrived = Signal(object)
    failed = Signal(str)
    rested = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._work: Work | None = None
        self._next: Request | None = None
        self._now: Request | None = None
        self._preparing = False
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._prepare: Callable[[], None] | None = None
        self._rest.timeout.connect(self._prepare_now)

    @property
    def busy(self) -> bool:
        """Whether a prediction is going on or waits."""
        return (self._work is not None and not self._preparing) or self._next is not None

    def ask(self, request: Request) -> None:
        """Predict; what is going on ends at its next part, what waits is forgotten."""
        self._rest.stop()
        self._next = request
        if self._work is None:
            self._begin()
        else:
            self._work.supersede()

    def prepare(self, forest: ForestPredictor, plane: Plane) -> None:
        """Compute the features of a plane when nothing else is to be done and it stays on show."""
        self._prepare = partial(self._compute_features, forest, plane)
        if self._preparing and self._work is not None:
            self._work.supersede()  # for a plane that is no longer on show
        self._rest.start()

    def stop(self) -> None:
        """Forget what waits and end what is going on, before the layers go."""
        self._next = self._now = self._prepare = None
        self._rest.stop()
        if self._work is not None:
            self._work.supersede()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        request, self._next, self._preparing = self._next, None, False
        assert request is not None
        self._now = request
        work = Work(lambda w: _run(w, request), self)
        work.partial.connect(self._pass_on)
        work.failed.connect(self.failed)
        self._start(work)

    def _pass_on(self, found: tuple[Request, list[Prediction]]) -> None:
        if found[0] is self._now:  # else the image was changed meanwhile
            self.arrived.emit(found[1])

    def _start(self, work: Work) -> None:
        work.ended.connect(self._ended)
        self._work = work
        work.start()

    def _ended(self) -> None:
        self._work, self._preparing = None, False
        if self._next is not None:
            self._begin()
        else:
            self.rested.emit()
            if self._prepare is not None:  # what was to be prepared meanwhile
                self._rest.start()

    def _prepare_now(self) -> None:
        if self._prepare is not None and self._work is None:
            prepare, self._prepare = self._prepare, None
            prepare()

    def _compute_features(self, forest: ForestPredictor, plane: Plane) -> None:
        def compute(work: Work) -> None:
            for _ in forest.prepare(plane):
                if work.stopping:
                    return

        if not forest.ready(plane):
            self._preparing = True
            work = Work(compute, self)
            work.failed.connect(self.failed)
            self._start(work)


def forest_parts(
    forest: ForestPredictor, strokes: dict, plane: Plane, view: tuple[slice, slice] | None, *, quiet: bool, whole: bool
) -> Request:
    """Fit to the strokes and predict; `quiet`: with strokes of too few classes nothing happens."""

    def parts(_: Work) -> Iterator[Prediction]:
        try:
            yield from forest.update_in_parts(strokes, plane, view, whole=whole)
        except LabelError:
            if not quiet:
                raise

    return Request(plane, parts)


def _run(work: Work, request: Request) -> None:
    waiting: list[Prediction] = []
    shown = -float("inf")
    for part in request.parts(work):
        if work.stopping:
            return
        waiting.append(part)
        if part.complete or time.monotonic() - shown > SHOW_EVERY_S:
            work.partial.emit((request, waiting))
            waiting, shown = [], time.monotonic()
    if waiting:
        work.partial.emit((request, waiting))
