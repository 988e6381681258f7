"""Latency a user feels: activation, opening, stroke to prediction, change of slice; see ``OPERANDOSEG_BENCHMARK_GUI``.

Without the variable tiny sizes run without a viewer, so that none of it can rot. With it, under a display:
``OPERANDOSEG_BENCHMARK_GUI=OUT.json xvfb-run -a python tests/benchmarks/test_napari_latency.py``.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_plugin.labelling import LabellingSession
from napari_plugin.prediction import ForestPredictor, Planes
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


def test_stroke_to_journal(benchmark, tmp_path):
    session = LabellingSession(series((2, 256, 256)), load_schema(), tmp_path / "l.ome.tif")

    def one() -> None:
        session.labels[0, 5:9, 5:50] = 3 if session.labels[0, 5, 5] != 3 else 2
        assert session.note_changes([0]) == 4 * 45

    benchmark(one)


def measure_in_viewer(found: dict[str, float], save: Callable[[], None]) -> None:
    """Seconds of everything a user waits for, in a real viewer; kept after each size."""
    import napari
    from qtpy.QtWidgets import QApplication

    def until(done, limit: float = 300) -> None:
        end = time.perf_counter() + limit
        while not done() and time.perf_counter() < end:
            QApplication.processEvents()
            time.sleep(0.001)

    viewer = napari.Viewer()
    began = time.perf_counter()
    _, widget = viewer.window.add_plugin_dock_widget("operandoseg", "Label")
    found["activate plugin and open Label"] = time.perf_counter() - began
    until(lambda: not widget._warming._worker.is_running)
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"operandoseg-latency-{os.getpid()}"
    for name, shape in (("1024 x 1024", STROKE), ("2048 x 2048", TYX), ("TZYX 512 x 512", TZYX)):
        stack = series(shape)
        session = LabellingSession(stack, load_schema(), folder / f"{shape[-1]}-{len(shape)}.ome.tif")
        began = time.perf_counter()
        widget.begin(session)
        QApplication.processEvents()
        found[f"open {name}"] = time.perf_counter() - began
        plane = (0,) * (len(shape) - 2)
        viewer.dims.current_step = (*plane, 0, 0)
        until(lambda: False, 0.5)
        times = []
        for n in range(5):
            value, before = (3, 2)[n % 2], widget.prediction
            began = time.perf_counter()
            with widget.layer.block_history():
                for x in range(30, 80, 4):
                    widget.layer.paint((*plane, 60 + 12 * n, x), value)
            until(lambda before=before, n=n: n == 0 or (widget.prediction is not before and widget._work is None))
            times.append(time.perf_counter() - began)
        found[f"first prediction (features) {name}"] = times[1]
        found[f"stroke to prediction {name}"] = float(np.median(times[2:]))
        widget.live.setChecked(False)
        times = []
        for n in range(4):
            began = time.perf_counter()
            viewer.dims.set_current_step(0, n % shape[0])
            QApplication.processEvents()
            times.append(time.perf_counter() - began)
        found[f"change of slice, all layers {name}"] = float(np.median(times[1:]))
        widget.live.setChecked(True)
        widget._forget_layers()
        viewer.layers.clear()
        save()


if __name__ == "__main__":
    code = "import time, sys; b = time.perf_counter(); import napari_plugin.readers, napari_plugin.samples;"
    code += "sys.stdout.write(str(time.perf_counter() - b))"
    import_s = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    report = {"import the plugin": import_s}

    def write() -> None:
        rounded = {name: round(seconds, 3) for name, seconds in report.items()}
        Path(os.environ["OPERANDOSEG_BENCHMARK_GUI"]).write_text(json.dumps(rounded, indent=1), encoding="utf-8")

    measure_in_viewer(report, write)
