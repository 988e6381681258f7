"""Latency a user feels: activation, opening, stroke to prediction, change of slice.

As tests, tiny sizes run without a viewer, so that none of it can rot. At full size, as a table and optionally as JSON:
``xvfb-run -a -s "-screen 0 1400x900x24" python tests/benchmarks/test_napari_latency.py [OUT.json]``.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_plugin.forest_predictor import ForestPredictor
from napari_plugin.labelling import LabellingSession
from napari_plugin.prediction import Planes
from seg.labels import load_schema
from seg.stack import Calibration, Stack

TYX, TZYX, STROKE = (4, 2048, 2048), (3, 32, 512, 512), (2, 1024, 1024)


def series(shape: tuple[int, ...]) -> Stack:
    """Bright grains on a dark ground, with noise; pixels 0.4 x 0.6 um."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    grains = (np.sin(y / 23) * np.sin(x / 31) > 0.2) * 90.0
    data = np.empty(shape, np.uint8)
    for index in np.ndindex(*shape[:-2]):
        data[index] = (60 + grains + rng.normal(0, 12, shape[-2:])).clip(0, 255)
    times = tuple(2.5 * t for t in range(shape[0]))
    return Stack(
        data, "tyx" if len(shape) == 3 else "tzyx", Calibration({"z": 0.7, "y": 0.6, "x": 0.4}, times), "grains"
    )


def strokes(shape: tuple[int, int]) -> np.ndarray:
    drawn = np.zeros(shape, np.uint8)
    drawn[20:26, 10:60] = 3
    drawn[40:46, 10:60] = 2
    return drawn


@pytest.mark.parametrize("size", [128])
def test_stroke_to_prediction(benchmark, size):
    predictor = ForestPredictor(Planes(series((2, size, size))), load_schema())
    drawn = strokes((size, size))
    predictor.update({(0,): drawn}, (0,))

    def one() -> None:
        drawn[60, 10:30] = 3 if drawn[60, 10] != 3 else 2  # a changed stroke: nothing is remembered
        predictor.update({(0,): drawn}, (0,))

    benchmark(one)


@pytest.mark.parametrize("size", [512])
def test_stroke_to_first_answer(benchmark, size):
    predictor = ForestPredictor(Planes(series((2, size, size))), load_schema())
    drawn = strokes((size, size))
    predictor.update({(0,): drawn}, (0,))

    def one() -> None:
        drawn[60, 10:30] = 3 if drawn[60, 10] != 3 else 2
        next(predictor.update_in_parts({(0,): drawn}, (0,), np.s_[0:100, 0:100]))

    benchmark(one)


def test_stroke_to_journal(benchmark, tmp_path):
    session = LabellingSession(series((2, 256, 256)), load_schema(), tmp_path / "l.ome.tif")

    def one() -> None:
        session.labels[0, 5:9, 5:50] = 3 if session.labels[0, 5, 5] != 3 else 2
        assert session.note_changes([0]) == 4 * 45

    benchmark(one)


class Clock:
    """Wall and CPU seconds (all threads) of what a user waits for, by name, as medians."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[float, float]]] = {}
        self.start()

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def note(self, name: str) -> None:
        self.found.setdefault(name, []).append(
            (time.perf_counter() - self._began[0], time.process_time() - self._began[1])
        )

    def medians(self) -> dict[str, dict[str, float]]:
        both = {name: np.median(np.array(times), axis=0) for name, times in self.found.items()}
        return {name: {"wall_s": round(float(w), 3), "cpu_s": round(float(c), 3)} for name, (w, c) in both.items()}


def measure_in_viewer(clock: Clock, save: Callable[[], None]) -> None:
    """What a user waits for, in a real viewer; kept after each size."""
    import napari
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    def until(done, limit: float = 300) -> None:
        end = time.perf_counter() + limit
        while not done() and time.perf_counter() < end:
            # Sleeps between events: asking again and again would be counted as CPU time of the plugin.
            QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)

    viewer = napari.Viewer()
    wake = QTimer()
    wake.start(5)
    clock.start()
    _, widget = viewer.window.add_plugin_dock_widget("operandoseg", "Label")
    clock.note("activate the plugin and open Label")
    until(lambda: not widget._warming._worker.is_running)
    folder = Path(tempfile.mkdtemp())
    for name, shape in (("1024 x 1024", STROKE), ("2048 x 2048", TYX), ("TZYX 512 x 512", TZYX)):
        session = LabellingSession(series(shape), load_schema(), folder / f"{shape[-1]}-{len(shape)}.ome.tif")
        clock.start()
        widget.begin(session)
        QApplication.processEvents()
        clock.note(f"{name}: open")
        plane = (0,) * (len(shape) - 2)
        viewer.dims.current_step = (*plane, 0, 0)
        clock.start()
        until(lambda plane=plane: widget.forest.ready(plane) and widget.predictions._work is None)
        clock.note(f"{name}: features in advance")
        for n in range(7):
            value, seen = (3, 2)[n % 2], []
            widget.predictions.arrived.connect(seen.append)
            clock.start()
            with widget.layer.block_history():
                for x in range(30, 80, 4):
                    widget.layer.paint((*plane, 60 + 12 * n, x), value)
            if n:  # one class is not enough for a forest
                until(lambda seen=seen: bool(seen))
                QApplication.processEvents()
                clock.note(f"{name}: stroke to first answer")
                until(lambda plane=plane: plane in widget._complete and not widget.predictions.busy)
                clock.note(f"{name}: stroke to complete prediction")
            widget.predictions.arrived.disconnect(seen.append)
        clock.start()
        widget.accept_frame()
        QApplication.processEvents()
        clock.note(f"{name}: accept a frame")
        widget.live.setChecked(False)
        for n in range(6):
            clock.start()
            viewer.dims.set_current_step(0, (n + 1) % shape[0])
            QApplication.processEvents()
            clock.note(f"{name}: change of frame, all layers")
        if len(shape) == 4:
            for n in range(6):
                clock.start()
                viewer.dims.set_current_step(1, (n + 1) % shape[1])
                QApplication.processEvents()
                clock.note(f"{name}: change of plane, all layers")
        widget.live.setChecked(True)
        widget._forget_layers()
        viewer.layers.clear()
        until(lambda: widget.predictions._work is None)
        save()
    shutil.rmtree(folder)
    viewer.close()


def main(out: Path | None) -> None:
    """Measure, print a table, and keep it as JSON where `out` says so."""
    clock = Clock()
    code = "import time, sys; b = time.perf_counter(); import napari_plugin.readers, napari_plugin.samples;"
    code += "sys.stdout.write(f'{time.perf_counter() - b} {time.process_time()}')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    clock.found["import the plugin"] = [(float(told[0]), float(told[1]))]

    def write() -> None:
        if out is not None:
            out.write_text(json.dumps(clock.medians(), indent=1), encoding="utf-8")

    measure_in_viewer(clock, write)
    sys.stdout.write("| what | wall s | CPU s |\n|---|---|---|\n")
    for name, found in clock.medians().items():
        sys.stdout.write(f"| {name} | {found['wall_s']:.2f} | {found['cpu_s']:.2f} |\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
