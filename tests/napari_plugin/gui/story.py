"""The first five minutes of a user, driven: ``xvfb-run -a -s "-screen 0 1500x950x24" python story.py OUT``.

Open the sample, draw, predict, accept, get killed, reopen, save, train, run, measure, click; a picture of each step and
the seconds it took are left in OUT.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

FRAMES = (6, 12, 18)
SIZE = (1500, 950)


class Stage:
    """A viewer, a folder for pictures, and a clock."""

    def __init__(self, out: Path) -> None:
        os.environ["OPERANDOSEG_SAMPLES"] = str(out / "samples")
        self.out, self.seconds = out, {}
        self.file = out / "seconds.json"
        if self.file.exists():
            self.seconds = json.loads(self.file.read_text())
        import napari

        self.viewer = napari.Viewer(title="OperandoSeg")
        self.viewer.window.resize(*SIZE)
        self.pause(0.5)

    def pause(self, seconds: float) -> None:
        self.until(lambda: False, seconds, must=False)

    def until(self, done, seconds: float = 300, *, must: bool = True) -> float:
        from qtpy.QtWidgets import QApplication

        began = time.perf_counter()
        while not done():
            QApplication.processEvents()
            time.sleep(0.002)
            if time.perf_counter() - began > seconds:
                if must:
                    raise TimeoutError(f"not done after {seconds} s")
                break
        return time.perf_counter() - began

    def note(self, name: str, seconds: float) -> None:
        self.seconds[name] = round(seconds, 3)
        self.file.write_text(json.dumps(self.seconds, indent=1))

    def picture(self, name: str) -> None:
        self.pause(0.7)
        self.viewer.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)

    def widget(self, name: str):
        return self.viewer.window.add_plugin_dock_widget("operandoseg", name)


def stroke(layer, frame: int, points, value: int) -> None:
    """What a brush does between pressing and releasing the button."""
    with layer.block_history():
        for (a, b), (c, d) in zip(points[:-1], points[1:], strict=True):
            for s in np.linspace(0, 1, 25):
                layer.paint((frame, a + (c - a) * s, b + (d - b) * s), value)


def draw(stage: Stage, label) -> None:
    """Open the sample, draw three strokes, accept; then the power goes."""
    began = time.perf_counter()
    stage.viewer.open_sample("operandoseg", "optical")
    stage.note("open sample (drawn on the spot the first time)", time.perf_counter() - began)
    stage.until(lambda: not label._warming._worker.is_running, 120)
    stage.picture("1_sample")
    label.label_selected()
    truth = _truth(stage)
    for n, frame in enumerate(FRAMES):
        stage.viewer.dims.set_current_step(0, frame)
        stage.pause(0.3)
        label.layer.brush_size = 5
        for value, line in _lines(truth[frame]):
            label.choose(value)
            before = label.prediction
            began = time.perf_counter()
            stroke(label.layer, frame, line, value)
            if label.forest.forest is not None:
                stage.until(lambda before=before: label.prediction is not before)
                stage.note("stroke to prediction, 512 x 512", time.perf_counter() - began)
        stage.until(lambda: not label.predictions.busy and label.line.isHidden())
        if n == 1:
            label.choose(3)
            stage.picture("2_predicted")
        label.accept_frame()
        stage.until(lambda: not label.predictions.busy and label.line.isHidden())
        if n == 1:
            stage.picture("3_accepted")
    (stage.out / "left.npy").unlink(missing_ok=True)
    np.save(stage.out / "left.npy", label.session.labels)
    assert label.session.unsaved
    os.kill(os.getpid(), signal.SIGKILL)


def go_on(stage: Stage, label) -> None:
    """Reopen where it was, save, train, run, measure, click."""
    from napari_plugin.samples import sample_image

    label.open_files([sample_image("optical")])
    stage.until(lambda: label.session is not None)
    assert label.session.recovered
    assert np.array_equal(label.session.labels, np.load(stage.out / "left.npy"))
    stage.viewer.dims.set_current_step(0, FRAMES[1])
    stage.picture("4_reopened")
    label.interpolate()
    stage.until(lambda: not label.predictions.busy and label.line.isHidden())
    began = time.perf_counter()
    label.save()
    stage.until(lambda: label.session.unsaved == 0 and label.line.isHidden())
    stage.note("save and read back", time.perf_counter() - began)
    label.suggest()
    stage.until(lambda: label.advice.text() != "" and label.line.isHidden())
    stage.seconds["advice"] = label.advice.text()
    stage.picture("5_next")
    _close(stage, label)

    dock, train = stage.widget("Train")
    train.further = [
        "trainer.max_steps=8",
        "trainer.patience=0",
        "data.patch_px=128",
        "data.batch=4",
        "trainer.score_every=0",
        "data.workers=0",
    ]
    began = time.perf_counter()
    train.train()
    stage.until(lambda: train.preview.isVisible() or train.process is None, 600)
    stage.picture("6_training")
    stage.until(lambda: train.process is None, 900)
    stage.until(lambda: train.table.rowCount() > 0, 300)
    stage.note("train 8 steps and compare", time.perf_counter() - began)
    stage.picture("6_trained")
    _close(stage, train, dock)

    for layer in [one for one in stage.viewer.layers if one.name != "image.ome.tif"]:
        stage.viewer.layers.remove(layer)
    dock, run = stage.widget("Run")
    run.echem.edit.setText(str(stage.out / "samples" / "optical" / "cycler.csv"))
    run.offset.setText("-37s")
    began = time.perf_counter()
    run.run_layer()
    stage.until(lambda: "segment" in run.line.text.text() or run.job is None, 120)
    stage.picture("7_running")
    stage.until(lambda: run.job is None, 900)
    stage.note("run 20 x 512 x 512", time.perf_counter() - began)
    stage.viewer.dims.set_current_step(0, 14)
    stage.picture("8_run")
    folder = run.results[0].folder
    assert not run.results[0].error, run.results[0].error
    _close(stage, run, dock)

    _, measure = stage.widget("Measure")
    measure.open_result(folder)
    measure.metric.setCurrentText("areal_density")
    measure.against.setCurrentText("capacity_mAh")
    from matplotlib.backend_bases import MouseEvent

    stage.pause(0.5)
    curve = measure._curves[0]
    x, y = measure._axes.transData.transform((curve.x[14], curve.value[14]))
    measure._plot_clicked(MouseEvent("button_press_event", measure.canvas, x, y, 1))
    assert measure._frame() == 14
    sizes = measure._objects["equivalent_diameter_um"].to_numpy()
    row = int(np.argsort(sizes)[len(sizes) * 3 // 4])
    measure.centre_on_row(row)
    stage.viewer.camera.zoom *= 1.0
    measure.select_at((stage.viewer.dims.point[0], *stage.viewer.camera.center[-2:]))
    stage.picture("9_measure")


def _truth(stage: Stage) -> np.ndarray:
    from seg.io import read_labels

    return np.asarray(read_labels(stage.out / "samples" / "optical" / "labels.ome.tif").stack.data)


def _lines(truth: np.ndarray) -> list[tuple[int, list[tuple[int, int]]]]:
    """Strokes a person would draw: one inside each class, and ground close to outlines, where a forest errs."""
    from scipy import ndimage

    found = []
    for value in (3, 2, 10):
        places = np.argwhere(_inner(truth == value))
        if len(places):
            y, x = (int(n) for n in places[len(places) // 2])
            found.append((value, [(y, x - 6), (y, x + 6)]))
    grains, n_grains = ndimage.label(truth == 3)
    tops = [np.argwhere(grains == n + 1)[0] for n in range(n_grains)]  # the first in reading order is the uppermost
    free = [(int(y), int(x)) for y, x in tops if y > 12 and (truth[y - 11 : y - 3, max(x - 9, 0) : x + 10] == 2).all()]
    return found + [(2, [(y - 7, x - 5), (y - 7, x + 5)]) for y, x in free[:4]]


def _inner(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    inner = ndimage.binary_erosion(mask, iterations=8)
    return inner if inner.any() else mask


def _close(stage: Stage, widget, dock=None) -> None:
    stage.viewer.window.remove_dock_widget(dock if dock is not None else widget)


def main(part: str, out: Path) -> None:
    if part == "all":
        out.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, __file__, "draw", str(out)])
        assert done.returncode == -signal.SIGKILL, done.returncode
        subprocess.run([sys.executable, __file__, "go_on", str(out)], check=True)
        return
    stage = Stage(out)
    began = time.perf_counter()
    _, label = stage.widget("Label")
    stage.note("activate plugin and open Label", time.perf_counter() - began)
    {"draw": draw, "go_on": go_on}[part](stage, label)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if len(arguments) > 1 else "all", Path(arguments[-1]).resolve())
