"""What users do to a labelling widget that it must survive; on napari's model of a viewer, which needs no OpenGL."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_plugin import layers
from napari_plugin.labelling import labels_path, open_session
from seg.errors import DataError, UsageError
from seg.io import open_stack, read_labels, write_image
from seg.labels import load_schema
from seg.stack import Calibration, Stack

SHAPE = (3, 64, 80)
CALIBRATION = Calibration({"y": 0.6, "x": 0.4}, (3.0, 5.5, 8.0), "file")


@pytest.fixture
def viewer():
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def label(viewer):
    yield (widget := made(viewer))
    widget.predictions.stop()
    until(lambda: widget.predictions._work is None)


def made(viewer):
    from napari_plugin.label_widget import LabelWidget

    return LabelWidget(viewer)


def pixels(dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(4)
    truth = np.zeros(SHAPE, bool)
    truth[:, 10:40, 20:50] = True
    top = np.iinfo(dtype).max / 255
    return (top * (np.where(truth, 180.0, 60.0) + rng.normal(0, 8, SHAPE)).clip(0, 255)).astype(dtype)


def image_file(folder: Path, data: np.ndarray, axes="tyx", calibration=CALIBRATION, name="movie") -> Path:
    path = folder / f"{name}.ome.tif"
    write_image(path, data if axes[0] == "t" else data[np.newaxis], shape=data.shape, dtype=data.dtype, axes=axes,
                calibration=calibration)  # fmt: skip
    return path


def until(done, seconds=100.0) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "the widget did not get there"
        QApplication.processEvents()
        time.sleep(0.01)


def begin(widget, path: Path) -> None:
    widget.begin(open_session(path, load_schema()))
    if len(widget.session.axes) > 2:
        widget.viewer.dims.set_current_step(0, 0)  # napari begins in the middle


def draw(widget, lead=(0,)) -> None:
    """A stroke of each of two classes."""
    for n, (value, (y, x)) in enumerate(((3, (20, 30)), (2, (55, 10))), start=widget.session.unsaved + 1):
        widget.choose(value)
        widget.layer.paint((*lead, y, x), value)
        until(lambda n=n: widget.session.unsaved == n)


def predicted(widget) -> None:
    until(lambda: widget.plane in widget._complete and not widget.predictions.busy)


def test_sixteen_bits_in_a_folder_with_any_name_and_one_frame(label, tmp_path):
    folder = tmp_path / "Messung μm 電池 [1]"
    folder.mkdir()
    path = image_file(folder, pixels(np.uint16)[0], "yx", Calibration({"y": 0.6, "x": 0.4}, None, "file"), "Aufnahme ä")
    label.open_files([path])
    until(lambda: label.session is not None)
    draw(label, ())
    predicted(label)
    truth = np.zeros(SHAPE[1:], np.uint8)
    truth[10:40, 20:50] = 3
    assert ((label.shown.data == 3) == (truth == 3)).mean() > 0.95
    label.accept_frame()
    label.save()
    until(lambda: label.session.unsaved == 0 and label.line.isHidden())
    saved = read_labels(labels_path(path))
    assert np.array_equal(saved.stack.data, label.layer.data)
    assert saved.stack.calibration.pixel_size_um == {"y": 0.6, "x": 0.4}
    assert label.layer.mode == "paint"  # the tool in hand is there again


def test_image_without_units_stays_uncalibrated(label, tmp_path):
    begin(label, image_file(tmp_path, pixels(), calibration=Calibration({}, None, "none")))
    assert {str(u) for u in label.layer.units} == {"pixel"}
    draw(label)
    label.save()
    until(lambda: label.line.isHidden())
    assert dict(read_labels(labels_path(tmp_path / "movie.ome.tif")).stack.calibration.pixel_size_um) == {}


def test_third_axis_nobody_names_is_asked_for(label, viewer, monkeypatch):
    viewer.add_image(pixels(), name="pasted")
    monkeypatch.setattr("napari_plugin.qt.ask_axes", lambda *a, **k: None)
    with pytest.raises(DataError, match="time or depth"):
        label.label_selected()


def test_file_without_axes_opens_and_is_asked_about_once(label, viewer, tmp_path, monkeypatch):
    from napari_plugin import qt, readers, viewing
    from napari_plugin.unnamed_axes import remember_axes

    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, pixels(), photometric="minisblack", metadata=None)
    (path.parent / "pages.calibration.yaml").write_text("pixel_size_um: {y: 0.6, x: 0.4}\n")
    # Not by pytest.warns: filters of warnings belong to the process, and a forest that is being fitted sets them too.
    asked, said = [], []
    with monkeypatch.context() as patch:
        patch.setattr(readers.warnings, "warn", lambda text, *a, **k: said.append(text))
        found = readers.read(str(path))
    assert len(said) == 1
    assert "whether its 3 planes are time or depth" in said[0]

    def answer(name, file=None, *, length=None):
        asked.append((name, file, length))
        remember_axes(file, "tyx")
        return "tyx"

    monkeypatch.setattr(qt, "ask_axes", answer)
    viewing.add_layers(viewer, found)
    label.label_selected()
    assert label.session.axes == "tyx"
    assert label.session.stack.calibration.pixel_size_um == {"y": 0.6, "x": 0.4}
    label.label_selected()  # the layer knows now
    assert asked == [("pages", path, 3)]
    assert open_stack(path).axes == "tyx"  # and the command line
    assert open_stack(path).calibration.pixel_size_um == {"y": 0.6, "x": 0.4}


def test_depth_between_planes_counts_once_the_axis_is_named(label, viewer, tmp_path, monkeypatch):
    from napari_plugin import readers, viewing

    path = tmp_path / "cell.tif"
    tifffile.imwrite(path, pixels(), photometric="minisblack", metadata=None)
    (tmp_path / "cell.calibration.yaml").write_text("pixel_size_um: {z: 0.7, y: 0.6, x: 0.4}\n")
    monkeypatch.setattr("napari_plugin.qt.ask_axes", lambda *a, **k: "zyx")
    with monkeypatch.context() as patch:
        patch.setattr(readers.warnings, "warn", lambda *a, **k: None)  # told above
        viewing.add_layers(viewer, readers.read(str(path)))
    label.label_selected()
    assert label.session.stack.calibration.pixel_size_um == {"z": 0.7, "y": 0.6, "x": 0.4}
    assert label.layer.scale == pytest.approx((0.7, 0.6, 0.4))


def test_queue_asks_what_a_file_does_not_say(label, tmp_path, monkeypatch):
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels(), photometric="minisblack", metadata=None)
    asked = []
    monkeypatch.setattr("napari_plugin.qt.ask_axes", lambda *a, **k: asked.append(a) or "zyx")
    label.open_files([tmp_path])
    until(lambda: label.session is not None and label.line.isHidden())
    label.go_to(1)
    until(lambda: label.session.stack.name == "b.tif" and label.line.isHidden())
    assert label.session.axes == "zyx"
    assert asked == [("a.tif", tmp_path / "a.tif")]


def test_next_image_of_the_list_is_named_and_marked(label, tmp_path):
    for name, data in (("a", pixels()), ("b", pixels().transpose(0, 2, 1)), ("c", pixels())):
        flat = Calibration({"y": 0.6, "x": 0.4}, None, "file")
        image_file(tmp_path, np.ascontiguousarray(data[0]), axes="yx", calibration=flat, name=name)
    label.open_files([tmp_path / "*.tif"])
    until(lambda: label.session is not None and label.line.isHidden())
    draw(label, ())
    predicted(label)
    label.suggest()
    until(lambda: label.advice.text() != "" and label.line.isHidden())
    assert label.advice.text().startswith("Label b.ome.tif next: ")
    assert label.files.currentRow() == 1
    assert label.session.stack.name == "a.ome.tif"  # what is drawn on it is not saved unasked
    assert label.session.unsaved == 2


class Mouse:
    """Press, move and release as napari's canvas passes them on: to the viewer, then to the layer."""

    def __init__(self, viewer, layer):
        self.who, self.layer = (viewer, layer), layer

    def click(self, place, *, dragged_px=0):
        from napari.utils import interactions as to
        from wrapt import ObjectProxy

        seen = {"handled": False, "modifiers": [], "button": 1, "dims_displayed": [1, 2], "view_direction": None}
        position = tuple(self.layer.data_to_world(place))
        seen |= {"position": position, "up_direction": None, "is_dragging": True}
        press = SimpleNamespace(type="mouse_press", pos=np.array([50, 50]), **seen)
        move = SimpleNamespace(type="mouse_move", pos=np.array([50 + dragged_px, 50]), **seen)
        release = SimpleNamespace(type="mouse_release", pos=move.pos, **seen)
        kinds = ((to.mouse_press_callbacks, press), (to.mouse_move_callbacks, move))
        for call, event in (*kinds, (to.mouse_release_callbacks, release)):
            event = ObjectProxy(event)
            for one in self.who:
                call(one, event)


def test_click_with_a_tool_draws_nothing_and_a_drag_moves_the_image(label, viewer, tmp_path):
    begin(label, image_file(tmp_path, pixels()))
    draw(label)
    predicted(label)
    mouse, before = Mouse(viewer, label.layer), label.layer.data.copy()
    label.click_accept()
    mouse.click((0, 20, 42), dragged_px=30)
    assert np.array_equal(label.layer.data, before)
    assert label.layer.mode == "pan_zoom"
    mouse.click((0, 20, 42))
    until(lambda: not label.predictions.busy and label.session.unsaved == 3)
    assert label.layer.mode == "paint"
    until(lambda: not label._later.isActive())
    assert label.session.unsaved == 3  # two strokes and the region: no dab of the brush under the click
    label.layer.undo()
    assert np.array_equal(label.layer.data, before)


def test_labels_of_another_image_are_refused(label, tmp_path):
    path = image_file(tmp_path, pixels())
    begin(label, path)
    draw(label)
    label.save()
    until(lambda: label.line.isHidden())
    other = image_file(tmp_path, pixels()[:2], calibration=Calibration({"y": 0.6, "x": 0.4}, (3.0, 5.5), "file"))
    with pytest.raises(DataError, match="not of the same image"):
        open_session(other, load_schema())


def test_label_layer_deleted_while_it_predicts(label, viewer, tmp_path):
    path = image_file(tmp_path, pixels())
    begin(label, path)
    draw(label)
    strokes = label.layer.data.copy()
    viewer.layers.remove(label.layer)
    assert label.session is None
    with pytest.raises(UsageError, match="No image is being labelled"):
        label.accept_frame()
    until(lambda: label.predictions._work is None)
    assert np.array_equal(open_session(path, load_schema()).labels, strokes)


def test_layer_of_predictions_deleted_and_brought_back(label, viewer, tmp_path):
    begin(label, image_file(tmp_path, pixels()))
    draw(label)
    viewer.layers.remove(label.shown)
    assert not label.live.isChecked()
    with pytest.raises(UsageError, match="press Predict"):
        label.accept_frame()
    label.predict()
    predicted(label)
    assert (label.shown.data[0] == 3).any()
    assert viewer.layers.index(label.shown) < viewer.layers.index(label.layer)


def test_layers_may_be_renamed_and_others_added(label, viewer, tmp_path):
    begin(label, image_file(tmp_path, pixels()))
    label.layer.name, label.shown.name = "meine", "Vorhersage"
    viewer.add_image(np.zeros((4, 5, 6, 7)), name="four axes")
    assert viewer.dims.ndim == 4
    label.show_plane((2,))
    # its axis of 5 steps of 1 now lies beside ours of 3 steps of 2.5 s from 3 s on
    assert viewer.dims.point[1] == pytest.approx(8.0)
    assert label.frame == 2
    label.show_plane((0,))
    draw(label)
    predicted(label)
    label.accept_class()
    assert (label.layer.data[0] == 2).sum() > 1000


def test_empty_labels_predict_nothing_and_say_so(label, tmp_path, monkeypatch):
    from napari_plugin import qt

    said = []
    monkeypatch.setattr(qt, "show_error", said.append)
    label.predictions.failed.disconnect()
    label.predictions.failed.connect(said.append)
    begin(label, image_file(tmp_path, pixels()))
    label.predict()
    until(lambda: bool(said))
    assert "at least two classes" in said[0]
    assert label.save() is None
    until(lambda: label.line.isHidden())
    assert not read_labels(labels_path(tmp_path / "movie.ome.tif")).stack.data.any()


def test_frame_on_show_is_prepared_though_another_was_being(label, tmp_path, monkeypatch):
    begin(label, image_file(tmp_path, pixels()))
    compute = label.forest.prepare

    def slowly(plane):
        for n in compute(plane):
            time.sleep(0.6)  # longer than a frame has to rest before its turn comes
            yield n

    monkeypatch.setattr(label.forest, "prepare", slowly)
    until(lambda: label.predictions._work is not None)
    label.show_plane((2,))
    until(lambda: label.forest.ready((2,)), 20)


def test_full_disk_is_said_until_it_takes_the_strokes(label, tmp_path, monkeypatch):
    from napari_plugin import qt
    from napari_plugin.journal import Journal

    said = []
    monkeypatch.setattr(qt, "show_error", said.append)
    path = image_file(tmp_path, pixels())
    begin(label, path)
    with monkeypatch.context() as full:
        full.setattr(Journal, "start", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        label.layer.paint((0, 20, 30), 3)
        until(lambda: bool(said))
    assert "NOT on disk" in label.status.text()
    label.layer.paint((0, 55, 10), 2)
    until(lambda: label.session.unsaved > 0)
    assert "NOT on disk" not in label.status.text()
    assert np.array_equal(open_session(path, load_schema()).labels, label.layer.data)


def test_two_viewers_label_two_images(label, tmp_path):
    from napari.components import ViewerModel

    other = made(ViewerModel())
    begin(label, image_file(tmp_path, pixels(), name="a"))
    begin(other, image_file(tmp_path, 255 - pixels(), name="b"))
    draw(label)
    draw(other)
    predicted(label)
    predicted(other)
    label.accept_frame()
    assert label.layer.data[0].all()
    assert (other.layer.data[0] > 0).sum() < 500
    other.predictions.stop()


def test_split_goes_on_in_a_thread_and_can_be_undone(label, tmp_path):
    begin(label, image_file(tmp_path, pixels()))
    label.live.setChecked(False)
    y, x = np.mgrid[:64, :80]
    both = ((y - 32) * 0.6) ** 2 + ((x - 28) * 0.4) ** 2 < 25
    both |= ((y - 32) * 0.6) ** 2 + ((x - 50) * 0.4) ** 2 < 25
    label.layer.data_setitem((np.zeros(both.sum(), int), *np.nonzero(both)), 3)
    label.use_tool_at("split", (32, 28))
    until(lambda: label.line.isHidden())
    assert 0 < (both & (label.layer.data[0] == 0)).sum() < 60
    label.layer.undo()
    assert np.array_equal(label.layer.data[0] == 3, both)


def test_all_that_was_drawn_is_undone_though_work_was_done_in_threads_and_saved(label, tmp_path):
    begin(label, image_file(tmp_path, pixels()))
    label.live.setChecked(False)
    draw(label)
    blobs = [np.s_[0, 20:40, 10:30], np.s_[0, 28:32, 30:44], np.s_[0, 20:40, 44:64]]
    for blob in blobs:
        inside = np.zeros(SHAPE, bool)
        inside[blob] = True
        label.layer.data_setitem(np.nonzero(inside), 5)
    label.use_tool_at("split", (30, 20))
    until(lambda: label.line.isHidden())
    label.save()
    until(lambda: label.line.isHidden())
    drawn = label.layer.data.copy()
    for _ in range(6):  # the split, three blobs, two strokes
        label.layer.undo()
    assert not label.layer.data.any()
    for _ in range(6):
        label.layer.redo()
    assert np.array_equal(label.layer.data, drawn)


def test_nothing_is_drawn_or_undone_on_a_layer_that_is_locked(label, viewer, tmp_path):
    from napari_plugin import viewing

    begin(label, image_file(tmp_path, pixels()))
    draw(label)
    drawn = label.layer.data.copy()
    release = viewing.lock(viewer, label.layer)
    label.layer.mode = "erase"
    assert label.layer.mode == "pan_zoom"
    keys = {str(key): do for key, do in label.layer.keymap.items()}
    keys["Ctrl+Z"](label.layer)
    keys["Ctrl+Shift+Z"](label.layer)
    assert np.array_equal(label.layer.data, drawn)
    release()
    assert label.layer.mode == "paint"
    assert "Ctrl+Z" not in {str(key) for key in label.layer.keymap}
    label.layer.mode = "erase"
    assert label.layer.mode == "erase"


def test_stack_in_memory_is_shown_with_its_own_array():
    labels = np.zeros(SHAPE, np.uint8)
    stack = Stack(pixels(), "tyx", CALIBRATION, "film")
    predicted_layer, drawn = layers.labelling_layers(stack, labels, load_schema())
    assert drawn[0] is labels
    assert predicted_layer[0] is not labels
    assert drawn[1]["scale"] == pytest.approx((2.5, 0.6, 0.4))


def test_run_and_train_and_measure_open(viewer, tmp_path):
    from napari_plugin.measure_widget import MeasureWidget
    from napari_plugin.run_widget import RunWidget
    from napari_plugin.train_widget import TrainWidget

    with pytest.raises(UsageError, match="There is no image"):
        RunWidget(viewer).run_layer()
    with pytest.raises(UsageError, match="no saved labels"):
        TrainWidget(viewer).train()
    with pytest.raises(UsageError, match="No result is open"):
        MeasureWidget(viewer).show_contacts()


def test_preview_of_a_training_is_shown_as_it_is_renewed(viewer, tmp_path):
    from PIL import Image

    from napari_plugin.train_widget import TrainWidget

    widget = TrainWidget(viewer)
    path = tmp_path / "preview.png"
    assert not widget.preview.show_file(path)
    path.write_bytes(b"\x89PNG half a file")
    assert not widget.preview.show_file(path)
    Image.new("RGB", (30, 20), "red").save(path)
    assert widget.preview.show_file(path)
    assert not widget.preview.show_file(path)
    assert not widget.preview.isHidden()
