"""The labelling session without a display: frames, journal, crash, saving, log."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_plugin import edits
from napari_plugin.journal import Journal, edit_of
from napari_plugin.labelling import LabellingSession, accepted, journal_path, labels_path, open_session
from seg.errors import DataError, LabelError, UsageError
from seg.io import read_labels, write_image
from seg.stack import Calibration, Stack

SIZES = {"z": 0.7, "y": 0.6, "x": 0.4}


def make_stack(axes: str, shape: tuple[int, ...], times=None) -> Stack:
    rng = np.random.default_rng(3)
    calibration = Calibration({a: SIZES[a] for a in axes if a in SIZES}, times, "file")
    return Stack(rng.integers(0, 255, shape, dtype=np.uint8), axes, calibration, "film.ome.tif")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    stack = make_stack("tyx", (6, 40, 50), (3.0, 5.0, 7.0, 9.0, 11.0, 13.0))
    path = tmp_path / "film.ome.tif"
    write_image(path, stack.data, shape=stack.shape, dtype=stack.dtype, axes="tyx", calibration=stack.calibration)
    return path


def square(value=3, t=0, size=10, at=5):
    def make(labels: np.ndarray) -> edits.Edit:
        after = labels.copy()
        after[at : at + size, at : at + size] = value
        return edits.changes("stroke", labels, after)

    return t, make


def draw(session: LabellingSession, **kwargs) -> None:
    t, make = square(**kwargs)
    session.apply(session.edit_frame(t, make))


@pytest.mark.parametrize(
    ("axes", "shape"), [("yx", (20, 30)), ("tyx", (4, 20, 30)), ("zyx", (5, 20, 30)), ("tzyx", (3, 4, 20, 30)),
                        ("tcyx", (4, 3, 20, 30))],
)  # fmt: skip
def test_labels_survive_with_calibration_schema_and_log(axes, shape, schema, tmp_path):
    times = tuple(2.5 * t for t in range(shape[0])) if "t" in axes else None
    stack = make_stack(axes, shape, times)
    session = LabellingSession(stack, schema, tmp_path / "labels" / "film.ome.tif", user="ada")
    last = session.n_frames - 1
    where = (0,) * (len(session.frame_axes) - 2) + (slice(2, 9), slice(3, 12))
    after = session.frame(last).copy()
    after[where] = 4
    session.apply(edits.changes("stroke", session.frame(last), after).at(last if session.leading else None))
    saved = session.save()
    assert saved.n_labelled_px == 63
    found = read_labels(saved.path)
    assert found.stack.axes == axes.replace("c", "")
    assert np.array_equal(found.stack.data[...], session.labels)
    assert dict(found.stack.calibration.pixel_size_um) == {a: SIZES[a] for a in axes if a in SIZES}
    assert found.stack.frame_times_s == times
    assert found.schema.name == schema.name
    (entry,) = found.provenance.settings["log"]
    assert (entry["who"], entry["kind"], entry["frames"], entry["classes"]) == ("ada", "stroke", [last], ["dendrite"])
    assert not journal_path(saved.path).exists()


def test_killed_session_is_where_it_was(image, schema):
    session = open_session(image, schema, user="ada")
    draw(session, t=1)
    session.save()
    draw(session, t=2, value=4)
    draw(session, t=2, value=2, at=12)
    left = session.labels.copy()
    del session  # nothing is closed or saved
    again = open_session(image, schema, user="bob")
    assert again.recovered == 2
    assert again.unsaved == 2
    assert np.array_equal(again.labels, left)
    again.save()
    assert open_session(image, schema).recovered == 0
    log = read_labels(labels_path(image)).provenance.settings["log"]
    assert {entry["who"] for entry in log} == {"ada"}


def test_line_cut_off_by_a_crash_costs_only_that_line(image, schema):
    session = open_session(image, schema)
    draw(session, t=0)
    before = session.labels.copy()
    draw(session, t=1)
    path = journal_path(labels_path(image))
    path.write_bytes(path.read_bytes()[:-30])
    again = open_session(image, schema)
    assert np.array_equal(again.labels, before)
    draw(again, t=3)
    assert open_session(image, schema).recovered == 2


def test_damaged_line_stops_the_replay(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.start({"a": 1})
    for n in range(3):
        journal.add(edits.Edit("stroke", (np.array([n]), np.array([2])), np.array([3], np.uint8)), (5, 5))
    lines = journal.path.read_text().splitlines()
    lines[2] = lines[2].replace('"n\\": 1', '"n\\": 2')
    journal.path.write_text("\n".join(lines))
    about, entries = journal.read()
    assert about == {"a": 1}
    assert len(entries) == 1
    assert json.loads(lines[2])["crc"]


def test_journal_keeps_any_edit_exactly(tmp_path, rng):
    shape = (3, 17, 23)
    mask = rng.random(shape) < 0.3
    edit = edits.Edit("accept", np.nonzero(mask), rng.integers(0, 10, mask.sum()).astype(np.uint8), "forest")
    journal = Journal(tmp_path / "j")
    journal.start({})
    journal.add(edit, shape, who="ada")
    (entry,) = journal.read()[1]
    found, expected = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    back = edit_of(entry, shape, np.dtype(np.uint8))
    found[back.indices], expected[edit.indices] = back.values, edit.values
    assert np.array_equal(found, expected)
    assert (entry["model"], entry["n"], entry["who"]) == ("forest", mask.sum(), "ada")


def test_journal_of_other_labels_is_put_aside_not_played(image, schema, caplog):
    session = open_session(image, schema)
    draw(session, t=0)
    other = LabellingSession(session.stack, schema, labels_path(image).with_name("other.ome.tif"))
    draw(other, t=5)
    other.save()
    other.path.replace(labels_path(image))  # the label file changed behind the journal
    again = open_session(image, schema)
    assert again.recovered == 0
    assert again.labelled_frames() == [5]
    assert journal_path(labels_path(image)).with_name(".film.journal.other").exists()
    assert "another state" in caplog.text


def test_strokes_and_undo_made_elsewhere_are_noted(image, schema):
    session = open_session(image, schema)
    session.labels[2, 5:9, 5:9] = 3  # what a brush does
    assert session.note_changes([2]) == 16
    session.labels[2, 5:9, 5:9] = 0  # what undo does
    assert session.note_changes([2], kind="undo") == 16
    assert session.note_changes() == 0
    assert not open_session(image, schema).labels.any()


def test_failed_save_keeps_the_journal(image, schema, monkeypatch):
    session = open_session(image, schema)
    draw(session, t=0)
    monkeypatch.setattr("napari_plugin.labelling.write_labels", lambda path, frames, **k: path.write_bytes(b"") or 1)
    session.path.parent.mkdir(exist_ok=True)
    with pytest.raises(DataError):
        session.save()
    assert session.unsaved == 1
    assert journal_path(session.path).exists()


def test_labels_are_saved_though_the_image_is_gone(image, schema, caplog):
    session = open_session(image, schema)
    session.labels[1, 3:5, 4:9] = 3
    session.note_changes()
    image.unlink()
    session.save()
    assert "without its fingerprint" in caplog.text
    found = read_labels(session.path)
    assert np.array_equal(found.stack.data, session.labels)
    assert found.provenance.input_fingerprint == ""


def test_place_that_cannot_be_written_is_refused_before_a_stroke(image, schema):
    (image.parent / "labels").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="may not be written; copy the image"):
        open_session(image, schema)


def test_labels_of_the_folder_one_is_in_have_its_name(tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    monkeypatch.chdir(tmp_path / "frames")
    assert labels_path(Path()) == tmp_path / "labels" / "frames.ome.tif"


def test_save_that_writes_something_else_is_noticed(image, schema, monkeypatch):
    from seg.io import write_labels

    session = open_session(image, schema)
    draw(session, t=0)
    wrong = (np.zeros((40, 50), np.uint8) for _ in range(6))
    monkeypatch.setattr(
        "napari_plugin.labelling.write_labels", lambda path, frames, **k: write_labels(path, wrong, **k)
    )
    with pytest.raises(DataError, match="does not hold what was written"):
        session.save()
    assert journal_path(session.path).exists()


def test_labels_of_another_image_are_refused(image, schema):
    session = open_session(image, schema)
    draw(session, t=0)
    session.save()
    smaller = make_stack("tyx", (6, 40, 48), None)
    with pytest.raises(LabelError, match="not of the same image"):
        LabellingSession(smaller, schema, labels_path(image))


def test_frames_between_key_frames_follow_the_time(image, schema):
    session = open_session(image, schema)
    for t, size in ((0, 8), (4, 24)):
        after = np.full((40, 50), 1, np.uint8)
        low = 20 - size // 2
        after[low : low + size, low : low + size] = 3
        session.apply(edits.changes("stroke", session.frame(t), after).at(t))
    assert session.key_frames() == [0, 4]
    session.apply(session.interpolate(2))
    assert session.labelled_frames() == [0, 1, 2, 3, 4]
    assert session.key_frames() == [0, 4]
    # Half-way in time a square of 8 that became one of 24 has a side of 16; its corners are rounded.
    assert (session.frame(2)[20] == 3).sum() == (session.frame(2)[:, 20] == 3).sum() == 16
    with pytest.raises(UsageError, match="before and after"):
        session.interpolate(5)


def test_copy_goes_to_the_next_frame_and_spares_its_labels(image, schema):
    session = open_session(image, schema)
    draw(session, t=1)
    draw(session, t=2, value=4, at=8, size=4)
    session.apply(session.copy_to_next(1))
    assert (session.frame(2)[8:12, 8:12] == 4).all()
    assert (session.frame(2)[5:8, 5:15] == 3).all()
    with pytest.raises(UsageError, match="last frame"):
        session.copy_to_next(5)


def test_accepting_a_region_takes_that_region_only(image, schema):
    session = open_session(image, schema)
    prediction = np.full((40, 50), 1, np.uint8)
    prediction[3:8, 3:8] = prediction[20:30, 20:30] = 3
    edit = accepted(session, 3, prediction, model="forest", seed=(4, 4))
    assert session.apply(edit) == 25
    assert session.log[-1]["model"] == "forest"
    assert session.apply(accepted(session, 3, prediction, model="forest", classes=[3])) == 100
    assert session.apply(accepted(session, 3, prediction, model="forest")) == 40 * 50 - 125
    with pytest.raises(UsageError, match="Nothing is predicted"):
        accepted(session, 3, np.zeros((40, 50), np.uint8), model="forest", seed=(4, 4))


def test_value_that_is_no_class_is_refused(image, schema):
    session = open_session(image, schema)
    with pytest.raises(LabelError, match="does not know"):
        draw(session, t=0, value=77)
    assert not session.labels.any()


def test_labels_too_large_for_this_computer_are_refused_with_numbers(schema, tmp_path):
    class Huge:
        shape, dtype, ndim = (2**15, 2**15, 2**15), np.dtype(np.uint8), 3

    with pytest.raises(DataError, match="GiB"):
        LabellingSession(Stack(Huge(), "tyx"), schema, tmp_path / "l.ome.tif")


def test_training_reads_the_file_the_plugin_saves(image, schema):
    from training.config import DataConfig, SourceConfig
    from training.sources import load_sources

    session = open_session(image, schema)
    draw(session, t=1)
    draw(session, t=1, value=2, at=20)
    session.save()
    source = SourceConfig(images="*.ome.tif", labels="labels/*.ome.tif", modality="optical")
    images, *_ = load_sources(DataConfig(root=str(image.parent), sources={"mine": source}), [], schema)
    assert sum(int((item.codes > 0).sum()) for item in images) == np.count_nonzero(session.labels) == 200
