"""Each widget does its work in a real viewer once; what it does is tested without one elsewhere."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_plugin.labelling import labels_path, open_session
from seg.io import open_stack, read_labels, write_image, write_labels
from seg.labels import load_schema
from seg.stack import Calibration

CALIBRATION = Calibration({"y": 0.6, "x": 0.4}, (3.0, 5.5, 8.0, 10.5), "file")
SHAPE = (4, 48, 64)


def movie() -> tuple[np.ndarray, np.ndarray]:
    """A bright square that grows on a dark ground, and its classes."""
    rng = np.random.default_rng(4)
    labels = np.full(SHAPE, 2, np.uint8)
    for t in range(SHAPE[0]):
        labels[t, 10 : 20 + 4 * t, 20:40] = 3
    return (np.where(labels == 3, 180.0, 60.0) + rng.normal(0, 8, SHAPE)).clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "movie.ome.tif"
    data, _ = movie()
    write_image(path, data, shape=SHAPE, dtype=data.dtype, axes="tyx", calibration=CALIBRATION)
    return path


def until(done, seconds=60.0) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "the widget did not get there"
        QApplication.processEvents()
        time.sleep(0.005)


def open_widget(viewer, name):
    return viewer.window.add_plugin_dock_widget("operandoseg", name)[1]


def press(viewer, key: str, *, shift: bool = False) -> None:
    """A key on the canvas, as the keyboard sends it."""
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, getattr(Qt.Key, key), held)


def open_image(viewer, path):
    from napari_plugin import readers, viewing

    return viewing.add_layers(viewer, readers.read(str(path)))[0]


def test_label_from_stroke_to_saved_file(viewer, image):
    open_image(viewer, image)
    widget = open_widget(viewer, "Label")
    widget.label_selected()
    viewer.dims.set_current_step(0, 1)
    assert widget.layer.scale == pytest.approx((2.5, 0.6, 0.4))
    assert [str(u) for u in widget.layer.units] == ["second", "micrometer", "micrometer"]
    for n, (value, place) in enumerate(((3, (1, 15, 30)), (2, (1, 40, 10))), start=1):
        widget.choose(value)
        widget.layer.paint(place, value)
        until(lambda n=n: widget.session.unsaved == n)
    until(lambda: widget.prediction is not None and not widget.predictions.busy)
    _, truth = movie()
    assert (widget.shown.data[1] == truth[1]).mean() > 0.95
    strokes = widget.layer.data.copy()
    assert widget.session.unsaved == 2
    press(viewer, "Key_A", shift=True)
    assert (widget.layer.data[1] != 0).all()
    widget.layer.undo()
    until(lambda: widget.session.unsaved == 4)  # two strokes, the acceptance, and its undo
    assert np.array_equal(widget.layer.data, strokes)
    again = open_session(image, load_schema())  # what a second napari finds after this one was killed
    assert np.array_equal(again.labels, strokes)
    widget.layer.redo()
    until(lambda: widget.session.unsaved == 5)
    widget.save()
    until(lambda: widget.session.unsaved == 0 and widget.line.isHidden())
    saved = read_labels(labels_path(image))
    assert np.array_equal(saved.stack.data, widget.layer.data)
    assert saved.stack.calibration.pixel_size_um == {"y": 0.6, "x": 0.4}


def test_number_keys_choose_classes_and_clicks_find_pixels(viewer, image):
    open_image(viewer, image)
    widget = open_widget(viewer, "Label")
    widget.label_selected()
    viewer.dims.set_current_step(0, 0)
    press(viewer, "Key_4")
    assert widget.layer.selected_label == 4
    assert widget._class_buttons[4].isChecked()
    press(viewer, "Key_0")  # the tenth class
    assert widget.layer.selected_label == 10
    world = (3.0, 20 * 0.6, 30 * 0.4)
    assert widget._pixel(world) == (20, 30)
    widget.shown.data[0] = movie()[1][0]
    widget._complete[(0,)] = "forest"
    widget.use_tool_at("accept", (15, 30))
    assert (widget.layer.data[0] == 3).sum() == 10 * 20
    widget.copy_to_next()
    assert widget.frame == 1
    assert (widget.layer.data[1] == 3).sum() == 10 * 20


def test_labels_of_a_series_of_volumes(viewer, tmp_path):
    path = tmp_path / "cell.ome.tif"
    data = np.random.default_rng(0).integers(0, 200, (2, 3, 32, 40), dtype=np.uint8)
    calibration = Calibration({"z": 0.7, "y": 0.6, "x": 0.4}, (0.0, 60.0), "file")
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tzyx", calibration=calibration)
    widget = open_widget(viewer, "Label")
    widget.open_files([path])
    until(lambda: widget.session is not None)
    viewer.dims.set_current_step(0, 1)
    viewer.dims.set_current_step(1, 2)
    assert widget.plane == (1, 2)
    widget.layer.paint((1, 2, 10, 10), 3)
    widget.layer.paint((1, 2, 25, 10), 2)
    until(lambda: widget.prediction is not None and not widget.predictions.busy)
    assert widget.prediction.plane == (1, 2)
    assert not widget.shown.data[0].any()
    for axes, said in (("zyx", "zyx"), ("tzyx", "tzyx"), ("as", None)):
        widget.choose_axes(axes)
        assert widget._axes() == said
    # the next image may have fewer axes, and the one after it more again
    flat = tmp_path / "flat.ome.tif"
    write_image(flat, data[0, :1], shape=(32, 40), dtype=data.dtype, axes="yx", calibration=Calibration({}, None))
    widget.open_files([flat])
    until(lambda: widget.session is not None and widget.session.axes == "yx")
    assert widget.plane == ()
    widget.layer.paint((10, 10), 3)
    until(lambda: widget.session.unsaved == 1)
    widget.layer.brush_size = 500  # larger than the canvas
    widget.open_files([path])
    until(lambda: widget.session is not None and widget.session.axes == "tzyx")
    assert [layer.name for layer in viewer.layers] == ["cell.ome.tif", "prediction", "labels"]


def _software(*folders: Path) -> list[dict]:
    """What each run says of itself: code or weights that changed between two runs explain other masks."""
    return [json.loads((folder / "run.json").read_text()) for folder in folders]


@pytest.mark.timeout(900)  # two processes load torch: on a busy machine that alone has taken minutes
def test_run_gives_what_the_command_line_gives_bit_for_bit(viewer, image, tmp_path):
    open_image(viewer, image)
    widget = open_widget(viewer, "Run")
    widget.out.edit.setText(str(tmp_path / "gui"))
    widget.run_layer()
    until(lambda: widget.job is None, 600)
    (result,) = widget.results
    assert not result.error
    assert widget.table.item(0, 1).text() == "done"
    words = shlex.split(widget.shown_command.toPlainText().replace(str(tmp_path / "gui"), str(tmp_path / "cli")))
    assert words[0] == "operandoseg"
    subprocess.run([sys.executable, "-m", "seg", *words[1:], "-q"], check=True)
    again = tmp_path / "cli" / "movie"
    for name in ("metrics.csv", "objects.csv", "tracks.csv"):  # first as text: where they differ, the row is shown
        assert (result.folder / name).read_text() == (again / name).read_text(), name
    for name in ("labels.ome.tif", "instances.ome.tif"):
        (one, other) = (open_stack(folder / name).data[...] for folder in (result.folder, again))
        assert np.array_equal(one, other), (name, np.argwhere(one != other)[:5], _software(result.folder, again))
    for name in ("labels.ome.tif", "instances.ome.tif", "metrics.csv", "objects.csv", "tracks.csv"):
        assert (result.folder / name).read_bytes() == (again / name).read_bytes(), name
    names = {layer.name for layer in viewer.layers}
    assert {"movie classes", "movie objects"} <= names
    assert all(layer.scale[-2:] == pytest.approx((0.6, 0.4)) for layer in viewer.layers)


def test_measure_links_points_objects_and_rows(viewer, tmp_path):
    from napari_plugin.run_job import make_job

    _, labels = movie()
    path = tmp_path / "masks.ome.tif"
    write_labels(path, labels, shape=SHAPE, axes="tyx", calibration=CALIBRATION, schema=load_schema())
    (result,) = make_job("measure", [path], analysis="optical-plan", out=tmp_path / "out").execute()
    widget = open_widget(viewer, "Measure")
    widget.open_result(result.folder)
    widget.metric.setCurrentText("covered_fraction")
    (curve,) = widget.plot.curves
    assert curve.value == pytest.approx([(10 + 4 * t) * 20 / (48 * 64) for t in range(4)])
    from matplotlib.backend_bases import MouseEvent

    widget.plot.clicked(MouseEvent("button_press_event", widget.plot, *widget.plot.point(2), 1))
    assert viewer.dims.current_step[0] == 2
    assert widget.table.rowCount() == 1
    widget.centre_on_row(0)
    # rows 10..27 and columns 20..39: centres 18.5 and 29.5 px less one half
    assert viewer.camera.center[-2:] == pytest.approx((18.5 * 0.6, 29.5 * 0.4), rel=1e-6)
    widget.select_at((8.0, 15 * 0.6, 30 * 0.4))
    assert [i.row() for i in widget.table.selectionModel().selectedRows()] == [0]
    widget.select_at((8.0, 1.0, 1.0))
    assert not widget.table.selectionModel().selectedRows()
    widget.show_skeleton()
    until(lambda: "skeleton" in viewer.layers)
    cycler = tmp_path / "cycler.csv"
    cycler.write_text("time_s,voltage_V,current_mA,capacity_mAh\n0,0.1,-1,0\n100,0.5,-1,10\n")
    widget.load_cycler(cycler, -2.0)
    assert widget.against.currentText() == "capacity_mAh"
    assert widget.plot.curves[0].x == pytest.approx([0.5, 0.75, 1.0, 1.25])
    exported = widget.export(tmp_path / "curve.csv").read_text()
    assert exported.startswith("metric,curve,frame,capacity_mAh,value,low,high,unit,flags")


def test_train_shows_its_command_and_why_it_failed(viewer, image):
    session = open_session(image, load_schema())
    session.labels[:] = movie()[1]
    session.note_changes()
    session.save()
    open_image(viewer, image)
    widget = open_widget(viewer, "Train")
    widget.further = ["trainer.max_steps=1", "data.patch_px=33"]  # no multiple of what the network halves
    widget.train()
    until(lambda: widget.process is None, 240)
    assert widget.shown_command.toPlainText().startswith("operandoseg train --config-dir")
    assert "data.patch_px=33" in widget.status.text()
    assert widget.train_button.isEnabled()


def test_cancelled_work_leaves_no_process(viewer):
    from napari_plugin.engine import ENGINE, idle
    from napari_plugin.work import Work

    seen = []
    work = Work(lambda w: w.compute(idle))
    work.progressed.connect(lambda *a: seen.append(a))
    work.cancelled.connect(lambda: seen.append("cancelled"))
    work.ended.connect(lambda: seen.append("ended"))
    work.start()
    until(lambda: bool(seen), 60)
    process = ENGINE._process
    work.cancel()
    until(lambda: "ended" in seen)
    assert "cancelled" in seen
    assert process.poll() is not None


def test_torch_was_never_loaded_beside_the_viewer(viewer):
    assert "torch" not in sys.modules
