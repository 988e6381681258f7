"""The first five minutes of a user, driven: ``xvfb-run -a -s "-screen 0 1500x950x24" python story.py [PART] OUT``.

Open the sample, draw, predict, correct, accept, get killed, reopen, save, train, run, measure, click; a picture of each
step and the seconds it took are left in OUT. PART is one of the functions named in `PARTS`; without it they all run, in
their order and each in a napari of its own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

FRAMES = (6, 12, 18)
CORRECTIONS = 4
BRUSH_PX = 5
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

    def picture(self, name: str, *, whole: bool = True) -> None:
        self.pause(0.3)
        if whole:
            self.viewer.reset_view()
        self.pause(0.7)
        self.viewer.screenshot(str(self.out / f"{name}.png"), canvas_only=False, flash=False)

    def widget(self, name: str):
        began = time.perf_counter()
        _, widget = self.viewer.window.add_plugin_dock_widget("operandoseg", name)
        self.note(f"open {name}", time.perf_counter() - began)
        return widget

    def open_image(self, name: str):
        from napari_plugin import readers, viewing

        return viewing.add_layers(self.viewer, readers.read(str(self.out / "samples" / name / "image.ome.tif")))


# --- the parts ------------------------------------------------------------------------------------------------------


def draw(stage: Stage) -> None:
    """Open the sample, draw, correct what is wrong, accept; then the power goes."""
    label = stage.widget("Label")
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
        label.layer.brush_size = BRUSH_PX
        for value, line in _first_strokes(truth[frame]):
            _draw_and_wait(stage, label, frame, line, value)
        for _ in range(CORRECTIONS):
            value, line = _correction(label.shown.data[frame], truth[frame])
            _draw_and_wait(stage, label, frame, line, value)
        if n == 1:
            label.choose(3)
            stage.picture("2_predicted")
        stage.note(
            f"pixels predicted rightly in frame {frame}", float((label.shown.data[frame] == truth[frame]).mean())
        )
        label.accept_frame()
        stage.until(lambda: not label.predictions.busy and label.line.isHidden())
        if n == 1:
            stage.picture("3_accepted")
    stage.pause(0.3)
    (stage.out / "left.npy").unlink(missing_ok=True)
    np.save(stage.out / "left.npy", label.session.labels)
    assert label.session.unsaved
    os.kill(os.getpid(), signal.SIGKILL)


def reopen(stage: Stage) -> None:
    """Go on where it was, fill the frames between, save, and ask what to label next."""
    from napari_plugin.samples import sample_image

    label = stage.widget("Label")
    label.open_files([sample_image("optical")])
    stage.until(lambda: label.session is not None)
    assert label.session.recovered
    assert np.array_equal(label.session.labels, np.load(stage.out / "left.npy"))
    stage.viewer.dims.set_current_step(0, FRAMES[1])
    stage.picture("4_reopened")
    stage.viewer.dims.set_current_step(0, FRAMES[1] + 2)
    label.interpolate()
    stage.until(lambda: not label.predictions.busy and label.line.isHidden())
    began = time.perf_counter()
    label.save()
    stage.until(lambda: label.session.unsaved == 0 and label.line.isHidden())
    stage.note("save and read back", time.perf_counter() - began)
    label.predict()
    stage.until(lambda: label.forest.forest is not None and not label.predictions.busy)
    label.suggest()
    stage.until(lambda: label.advice.text() != "" and label.line.isHidden())
    stage.seconds["advice"] = label.advice.text()
    stage.until(lambda: label.plane in label._complete and not label.predictions.busy)
    stage.picture("5_next")


def train(stage: Stage) -> None:
    """Fine-tune for a few steps; old and new model side by side."""
    stage.open_image("optical")
    widget = stage.widget("Train")
    widget.further = [
        "trainer.max_steps=12",
        "trainer.patience=0",
        "data.patch_px=128",
        "data.batch=4",
        "trainer.score_every=0",
        "data.workers=0",
    ]
    began = time.perf_counter()
    widget.train()
    stage.until(lambda: widget.preview.isVisible() or widget.process is None, 600)
    stage.until(lambda: len(widget.figure.axes[0].lines[0].get_xdata()) > 4 or widget.process is None, 600)
    stage.picture("6_training")
    stage.until(lambda: widget.process is None, 900)
    stage.until(lambda: widget.table.rowCount() > 0, 300)
    stage.note("train 12 steps and compare", time.perf_counter() - began)
    stage.picture("6_trained")


def run(stage: Stage) -> None:
    """Masks and numbers by the shipped model, with the cycler file of the sample."""
    stage.open_image("optical")
    widget = stage.widget("Run")
    widget.echem.edit.setText(str(stage.out / "samples" / "optical" / "cycler.csv"))
    widget.offset.setText("-37s")
    began = time.perf_counter()
    widget.run_layer()
    stage.until(lambda: "segment" in widget.line.text.text() or widget.job is None, 120)
    stage.pause(1.5)
    stage.picture("7_running")
    stage.until(lambda: widget.job is None, 900)
    stage.note("run 20 x 512 x 512", time.perf_counter() - began)
    assert not widget.results[0].error, widget.results[0].error
    stage.viewer.dims.set_current_step(0, 14)
    stage.picture("8_run")


def measure(stage: Stage) -> None:
    """A curve against the capacity; a click on a point, a row, an object."""
    from napari_plugin.viewing import camera_of

    stage.open_image("optical")
    widget = stage.widget("Measure")
    widget.open_result(stage.out / "samples" / "optical" / "results" / "image")
    widget.metric.setCurrentText("areal_density")
    widget.against.setCurrentText("capacity_mAh")
    stage.pause(0.5)
    _click_point(widget, 14)
    assert widget._frame() == 14
    sizes = widget._objects["equivalent_diameter_um"].to_numpy()
    from_middle = np.hypot(widget._objects["y_um"] - 73, widget._objects["x_um"] - 73).to_numpy()
    widget.centre_on_row(int(np.argmin(np.where(sizes > np.median(sizes), from_middle, np.inf))))
    widget.select_at((stage.viewer.dims.point[0], *camera_of(stage.viewer).center[-2:]))
    stage.picture("9_measure", whole=False)


def contacts(stage: Stage) -> None:
    """Contact angles of droplets in profile: the curve, and what was fitted."""
    from napari_plugin.run_job import make_job
    from napari_plugin.samples import sample_image

    labels = sample_image("tem").with_name("labels.ome.tif")
    job = make_job(
        "measure",
        [labels],
        analysis="tem-insitu",
        out=labels.parent / "results",
        image=labels.with_name("image.ome.tif"),
    )
    (result,) = job.execute()
    assert not result.error, result.error
    stage.open_image("tem")
    widget = stage.widget("Measure")
    widget.open_result(result.folder)
    widget.metric.setCurrentText("contact_angle")
    stage.pause(0.5)
    _click_point(widget, int(widget.plot.curves[0].frames[len(widget.plot.curves[0].frames) // 2]))
    widget.show_contacts()
    for layer in stage.viewer.layers:
        if layer.name.endswith((" events", " tracks")):
            layer.visible = False
    stage.picture("10_contacts")


PARTS = {part.__name__: part for part in (draw, reopen, train, run, measure, contacts)}


# --- what a person would do -----------------------------------------------------------------------------------------


def _draw_and_wait(stage: Stage, label, frame: int, line, value: int) -> None:
    """Draw a line as a brush does between pressing and releasing the button; wait for the answer."""
    label.choose(value)
    label._complete.pop(label.plane, None)
    (a, b), (c, d) = line
    began = time.perf_counter()
    with label.layer.block_history():
        for s in np.linspace(0, 1, 60):
            label.layer.paint((frame, a + (c - a) * s, b + (d - b) * s), value)
    stage.pause(0.05)
    if len(np.unique(label.session.labels[frame])) > 2:
        stage.until(lambda: label.plane in label._complete and not label.predictions.busy)
        stage.note("stroke to prediction, 512 x 512", time.perf_counter() - began)


def _first_strokes(truth: np.ndarray) -> list[tuple[int, list[tuple[float, float]]]]:
    """Along large and small grains, over bare ground, through the bubble."""
    grains, _ = ndimage.label(truth == 3)
    edge = np.unique(np.concatenate([grains[0], grains[-1], grains[:, 0], grains[:, -1]]))
    grains, n = ndimage.label(np.where(np.isin(grains, edge), 0, grains))
    by_size = 1 + np.argsort(-np.bincount(grains.ravel())[1:])
    found = [(3, _through(grains == by_size[k], 0.7)) for k in (0, 1, n // 3, n // 2, 2 * n // 3)]
    ground = ndimage.binary_erosion(truth == 2, iterations=4)
    rows = np.arange(len(truth))[:, np.newaxis]
    found += [(2, _through(ground & (rows == share * len(truth) // 4), 0.8)) for share in (1, 2, 3)]
    marks, n_marks = ndimage.label(ndimage.binary_erosion(truth == 10, iterations=2))
    if n_marks:
        found.append((10, _through(marks == 1 + np.argmax(np.bincount(marks.ravel())[1:]), 0.8)))
    return found


def _correction(found: np.ndarray, truth: np.ndarray) -> tuple[int, list[tuple[float, float]]]:
    """A stroke through the largest region that is predicted wrongly."""
    regions, _ = ndimage.label((found != truth) & (truth > 0))
    region = regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])
    value = int(np.bincount(truth[region]).argmax())
    return value, _through(region & (truth == value), 0.8)


def _through(mask: np.ndarray, share: float) -> list[tuple[float, float]]:
    """The ends of the longest run of a row within a mask, shortened to a share of it."""
    best = (0, 0, 0)
    for y in np.flatnonzero(mask.any(axis=1)):
        runs, _ = ndimage.label(mask[y])
        for (box,) in ndimage.find_objects(runs):
            if box.stop - box.start > best[2] - best[1]:
                best = (int(y), box.start, box.stop)
    y, first, stop = best
    cut = (stop - first) * (1 - share) / 2
    return [(y, first + cut), (y, stop - 1 - cut)]


def _click_point(widget, frame: int) -> None:
    from matplotlib.backend_bases import MouseEvent

    widget.plot.clicked(MouseEvent("button_press_event", widget.plot, *widget.plot.point(frame), 1))


def _truth(stage: Stage) -> np.ndarray:
    from seg.io import read_labels

    return np.asarray(read_labels(stage.out / "samples" / "optical" / "labels.ome.tif").stack.data)


def main(part: str, out: Path) -> None:
    if part:
        PARTS[part](Stage(out))
        os._exit(0)  # tearing down Qt's objects has taken minutes
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):  # strokes of an earlier run would be there already
        raise SystemExit(f"{out} is not empty; the story begins in an empty folder.")
    for name in PARTS:
        done = subprocess.run([sys.executable, __file__, name, str(out)])
        assert done.returncode == (-signal.SIGKILL if name == "draw" else 0), (name, done.returncode)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments[0] if len(arguments) > 1 else "", Path(arguments[-1]).resolve())
