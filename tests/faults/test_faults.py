"""Each fault has its sentence and its exit code, leaves no half of a result, and the same command recovers."""

import errno
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from seg import masks, runner, slabs
from seg.cli import main
from seg.errors import InterruptedRunError, UsageError
from seg.io import arrays, read_labels, write_image
from seg.io.labels import create_labels
from seg.locking import only_run_in
from seg.pipeline import RunOptions, predict, run
from seg.slabs import SlabFolder, SlabStore
from seg.stack import Calibration
from seg.stages import is_done, mark_done

CPU = RunOptions(device="cpu")
SIZE_UM = {"z": 1.5, "y": 0.4, "x": 0.25}


def pixels(out: Path, name: str = "video") -> str:
    """Hash of the label file of a run, or of its chunks."""
    digest = hashlib.sha256()
    labels = masks.labels_of(out / name)
    for file in sorted(labels.rglob("*")) if labels.is_dir() else [labels]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def undisturbed(video, masks_only, tmp_path) -> str:
    (result,) = predict([video], masks_only, tmp_path / "calm", CPU)
    assert result.error == ""
    return pixels(tmp_path / "calm")


def full_after(monkeypatch, kind, count, code=errno.ENOSPC):
    """The disk is full from the `count`-th part on."""
    save, done = kind.save, []

    def limited(self, slab):
        if len(done) >= count:
            raise OSError(code, "No space left on device")
        done.append(slab)
        return save(self, slab)

    monkeypatch.setattr(kind, "save", limited)


def test_a_full_disk_stops_the_batch_and_the_same_command_continues(
    video, masks_only, tmp_path, undisturbed, monkeypatch
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        full_after(patch, SlabFolder, 2)
        with pytest.raises(InterruptedRunError, match="No space left .* the same command continues") as raised:
            predict([video, video.with_name("other.tif")], masks_only, out, CPU)
    assert raised.value.exit_code == 75
    assert not masks.labels_of(out / "video").exists()
    assert len(list(out.glob("video/.work/slabs-*/*.npz"))) == 2
    predict([video], masks_only, out, CPU)
    assert pixels(out) == undisturbed


def test_a_disk_that_fills_while_the_result_is_joined(video, masks_only, tmp_path, undisturbed, monkeypatch):
    out = tmp_path / "out"

    def half(path, frames, **about):
        next(iter(frames))
        Path(path).with_name(".half.part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(masks, "write_labels", half)
        with pytest.raises(InterruptedRunError):
            predict([video], masks_only, out, CPU)
    assert not masks.labels_of(out / "video").exists()
    predict([video], masks_only, out, CPU)
    assert pixels(out) == undisturbed


LIMITED = """
import resource, sys
from seg.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_limit_of_the_system_on_file_sizes_is_met_with_a_sentence(video, masks_only, tmp_path):
    out = tmp_path / "out"
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, "predict", str(video), "--model", masks_only.model, "--out", str(out), "-q"],
        capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert result.returncode == 75, result.stderr
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert not masks.labels_of(out / "video").exists()


def test_an_output_that_cannot_be_written_is_known_before_any_work(video, masks_only, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, says in ((Path("/proc/nothing/here"), "cannot be written"), (tmp_path / "file", "needs a folder")):
        assert main(["predict", str(video), "--model", masks_only.model, "--out", str(out), "-q"]) == 2
        assert says in capsys.readouterr().err


def test_a_result_folder_that_turns_read_only_stops_the_batch(video, masks_only, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def refuse(self, slab):
        raise PermissionError(errno.EACCES, "Permission denied", str(self.path / "part"))

    monkeypatch.setattr(SlabFolder, "save", refuse)
    with pytest.raises(UsageError, match="cannot be written .*choose another --out"):
        predict([video], masks_only, out, CPU)


def test_a_second_run_on_the_same_folder_is_refused(video, masks_only, tmp_path, capsys):
    out = tmp_path / "out"
    with only_run_in(out):
        assert main(["predict", str(video), "--model", masks_only.model, "--out", str(out), "-q"]) == 2
        said = capsys.readouterr().err
    assert "Another run is working in" in said
    assert "process " in said
    with only_run_in(out):  # free again
        pass


def test_an_input_that_changes_under_way_is_no_result(video, masks_only, tmp_path, undisturbed):
    content = video.read_bytes()

    def meddle(items, *, total=None, desc=""):
        for number, item in enumerate(items):
            if number == 2:
                video.write_bytes(content[:-1] + b"x")
            yield item

    out = tmp_path / "out"
    (result,) = predict([video], masks_only, out, CPU, progress=meddle)
    assert (result.exit_code, result.error_kind) == (5, "DataError")
    assert "changed while it was read" in result.error
    assert not masks.labels_of(out / "video").exists()
    assert not list((out / "video" / ".work").glob("slabs-*/*.npz"))
    video.write_bytes(content)
    predict([video], masks_only, out, CPU)
    assert pixels(out) == undisturbed


def test_nan_in_one_plane_is_named_and_the_planes_before_it_are_kept(volume, masks_only, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    monkeypatch.setattr(masks.SeriesNormalisation, "fit", classmethod(lambda cls, *a, **k: cls(0.0, 1.0)))
    volume[2, 100, 7] = np.nan
    path = tmp_path / "volume.npy"
    np.save(path, volume)
    (result,) = predict([path], masks_only, tmp_path / "out", RunOptions(device="cpu", axes="zyx"))
    assert result.exit_code == 5
    assert "1 NaN or infinite pixel(s)" in result.error
    assert not masks.labels_of(tmp_path / "out" / "volume").exists()
    assert len(list((tmp_path / "out" / "volume").glob(".work/slabs-*/*.npz"))) == 2


def test_a_corrupt_chunk_is_data_that_cannot_be_used(volume, masks_only, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0)
    path = tmp_path / "volume.ome.zarr"
    write_image(path, [volume], shape=volume.shape, dtype=volume.dtype, axes="zyx", calibration=Calibration(SIZE_UM))
    chunk = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100] + b"\0" * 50)
    assert main(["check", str(path)]) == 5
    (result,) = predict([path], masks_only, tmp_path / "out", CPU)
    assert result.exit_code == 5
    assert "volume.ome.zarr" in result.error
    assert not masks.labels_of(tmp_path / "out" / "volume").exists()


def test_a_damaged_part_of_an_earlier_run_is_made_again(video, masks_only, tmp_path, undisturbed, monkeypatch, caplog):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        full_after(patch, SlabFolder, 4)
        with pytest.raises(InterruptedRunError):
            predict([video], masks_only, out, CPU)
    first, second, third, *_ = sorted(out.glob("video/.work/slabs-*/*.npz"))
    first.write_bytes(first.read_bytes()[:1000])
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 0xFF
    second.write_bytes(data)
    with zipfile.ZipFile(third, "w") as archive:  # whole as an archive, and empty
        archive.writestr("other.npy", b"")
    predict([video], masks_only, out, CPU)
    assert caplog.text.count("is damaged; it is made again") == 3
    assert pixels(out) == undisturbed


# --- large results: planes written into an OME-Zarr -----------------------------------------------------------------


def test_large_masks_are_written_plane_by_plane_and_a_stop_leaves_them_the_same(
    video, masks_only, tmp_path, undisturbed, monkeypatch
):
    monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", 1000)
    (calm,) = predict([video], masks_only, tmp_path / "calm-zarr", CPU)
    assert calm.error == ""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        full_after(patch, SlabStore, 3)
        with pytest.raises(InterruptedRunError):
            predict([video], masks_only, out, CPU)
    assert not masks.labels_of(out / "video").exists()
    predict([video], masks_only, out, CPU)
    assert pixels(out) == pixels(tmp_path / "calm-zarr")
    found, expected = (read_labels(masks.labels_of(tmp_path / name / "video")) for name in ("out", "calm"))
    np.testing.assert_array_equal(found.stack.data[...], expected.stack.data[...])
    assert found.stack.frame_times_s == expected.stack.frame_times_s
    assert found.stack.spacing_um == (0.4, 0.25)


def test_a_plane_without_its_mark_counts_as_absent(tmp_path, schema, monkeypatch):
    store = SlabStore(tmp_path / "slabs", "zyx")
    store.path.mkdir()
    store.create(
        lambda part: create_labels(part, shape=(4, 8, 9), axes="zyx", calibration=Calibration(), schema=schema)
    )
    slab = type("Slab", (), {"frame": 0, "z_start": 2, "labels": np.full((2, 8, 9), 3, np.uint8)})
    slab.confidence = np.full((2, 8, 9), 0.5, np.float16)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slabs, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            store.save(slab)
    assert store.finished() == frozenset()
    store.save(slab)
    assert store.finished() == {(0, 2)}
    assert {value: sums.tolist() for value, sums in store.sums(1).items()} == {3: [[144, 72]]}
    (mark,) = (store.path / "done").glob("*.json")
    for damaged in ("", "[]", "{}", '{"3": 144}', '{"3": [144, NaN]}', '{"3": [144, 150]}'):
        mark.write_text(damaged)
        assert store.finished() == frozenset()
        assert not mark.exists()
        store.save(slab)


@pytest.mark.parametrize("damaged", ["", "[]", "7", '{"key": "k"}', '{"key": "k", "outputs": []}'])
def test_a_damaged_note_of_a_stage_counts_as_absent(damaged, tmp_path):
    (tmp_path / "labels").write_text("x")
    mark_done(tmp_path, "segment", "k", [tmp_path / "labels"])
    assert is_done(tmp_path, "segment", "k")
    (tmp_path / ".work" / "segment.json").write_text(damaged)
    assert not is_done(tmp_path, "segment", "k")


def test_killed_between_the_result_and_the_note_that_it_is_whole(video, masks_only, tmp_path, monkeypatch):
    """The planes have become the result, the marks are still there: they must not speak for an empty one."""
    monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", 1000)
    predict([video], masks_only, tmp_path / "calm-zarr", CPU)
    out = tmp_path / "out"

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(masks, "mark_done", killed)
        with pytest.raises(KeyboardInterrupt):
            predict([video], masks_only, out, CPU)
    assert list(out.glob("video/.work/slabs-*/done/*.json"))
    predict([video], masks_only, out, CPU)
    assert pixels(out) == pixels(tmp_path / "calm-zarr")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
    ],
    ids=["torch", "driver", "cudnn", "host", "onednn"],
)
def test_smaller_batches_and_tiles_are_told_in_the_log_and_in_the_record(
    error, masks_only, tmp_path, monkeypatch, caplog
):
    """Nine frames make a batch; not even one fits, but tiles of half its side do: the masks stay the same."""
    path = tmp_path / "small.npy"
    np.save(path, np.random.default_rng(3).integers(0, 255, (9, 160, 160)).astype(np.uint8))
    options = RunOptions(device="cpu", axes="tyx", frame_interval_s=2.0, pixel_size_um={"y": 0.4, "x": 0.25})
    (calm,) = predict([path], masks_only, tmp_path / "calm", options)
    compute = runner.Runner._compute

    def small(engine, images):
        if images.size > 160 * 100:
            raise error
        return compute(engine, images)

    monkeypatch.setattr(runner.Runner, "_compute", small)
    (result,) = run([path], masks_only, tmp_path / "out", options)
    assert (calm.error, result.error) == ("", "")
    warnings = json.loads((result.folder / "run.json").read_text())["warnings"]
    told = [text for text in warnings if "Out of memory on device cpu" in text]
    batches = [f"{n} tile(s) of 160 x 160 px at once." for n in (4, 2, 1)]
    assert [text.rpartition("with ")[2] for text in told] == [*batches, "tiles of half of 160 x 160 px."]
    assert all(text in caplog.text for text in told)
    found, expected = (read_labels(masks.labels_of(r.folder)).stack.data[...] for r in (result, calm))
    # Half tiles are exact but for rounding in half precision, and random weights make near ties of some pixels.
    assert (found == expected).mean() > 0.995


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("unable to mmap 3444416 bytes from file <weights.safetensors>: Cannot allocate memory (12)"),
    ],
)  # fmt: skip
def test_want_of_memory_is_one_failure_of_many(video, masks_only, tmp_path, monkeypatch, error):
    def greedy(*arguments, **options):
        raise error

    monkeypatch.setattr(masks, "parts_of", greedy)
    (result,) = predict([video], masks_only, tmp_path / "out", CPU)
    assert (result.error_kind, result.exit_code) == ("MemoryError", 1)
    assert "not enough memory" in result.error
