"""A network that knows slices across the layers of a cell is shown such slices, and nobody else needs to know."""

import errno
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from seg import masks, slabs, turning
from seg.analysis import AnalysisConfig
from seg.io import open_stack, read_labels, write_image
from seg.models.bundle import load_bundle, save_bundle
from seg.pipeline import RunOptions, predict
from seg.preprocess import read_grey
from seg.stack import Calibration
from seg.turning import thickness_axis, turned, turned_on_disk

SIZE_UM = {"z": 1.5, "y": 0.4, "x": 0.25}
TURNED_UM = {"y": 1.5, "z": 0.4, "x": 0.25}


@pytest.fixture(scope="module")
def models(tiny_model_of, tmp_path_factory):
    """The same network twice: one that takes planes as they are, one that knows slices across layers."""
    plain = tiny_model_of("xct")
    bundle = load_bundle(plain)
    spec = replace(bundle.spec, slices="across")
    across = save_bundle(tmp_path_factory.mktemp("across") / "tiny", bundle.network, spec, "# Tiny", seed=1)
    return plain, across


def cells(n_frames):
    """Blobs in all directions, of other sizes along each axis."""
    noise = np.random.default_rng(4).random((n_frames, 12, 40, 56))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 2, 3))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def write(path, data, size_um=SIZE_UM):
    axes = "tzyx"[-data.ndim :]
    about = {"shape": data.shape, "dtype": data.dtype, "axes": axes, "calibration": Calibration(pixel_size_um=size_um)}
    write_image(path, data if data.ndim == 4 else data[np.newaxis], **about)


def masks_of(path, model, out, **changes):
    config = AnalysisConfig("predict", "masks only", "", "xct", "volume", {}, model=str(model))
    (result,) = predict([path], replace(config, **changes), out, RunOptions(device="cpu"))
    assert not result.error, result.error
    return read_labels(masks.labels_of(result.folder)).stack


@pytest.mark.parametrize("cleaned", [True, False])
@pytest.mark.parametrize("n_frames", [1, 2])
def test_masks_are_those_of_the_turned_file_turned_back(models, tmp_path, n_frames, cleaned):
    plain, across = models
    data = cells(n_frames) if n_frames > 1 else cells(1)[0]
    write(tmp_path / "a.ome.tif", data)
    write(tmp_path / "b.ome.tif", np.ascontiguousarray(np.swapaxes(data, -3, -2)), TURNED_UM)
    changes = {} if cleaned else {"postprocess": None}
    found = masks_of(tmp_path / "a.ome.tif", across, tmp_path / "across", **changes)
    expected = masks_of(tmp_path / "b.ome.tif", plain, tmp_path / "plain", **changes)
    np.testing.assert_array_equal(found.data[...], np.swapaxes(expected.data[...], -3, -2))
    assert found.calibration.pixel_size_um == SIZE_UM
    as_they_are = masks_of(tmp_path / "a.ome.tif", plain, tmp_path / "planes", **changes)
    assert (found.data[...] != as_they_are.data[...]).mean() > 0.01


def test_planes_that_are_such_slices_stay(models, tmp_path):
    plain, across = models
    write(tmp_path / "a.ome.tif", cells(1)[0])
    metrics = {"layers": {"thickness_axis": "y"}}
    assert (thickness_axis(metrics), thickness_axis({"layers": {}})) == ("y", "z")
    found = masks_of(tmp_path / "a.ome.tif", across, tmp_path / "across", metrics=metrics)
    expected = masks_of(tmp_path / "a.ome.tif", plain, tmp_path / "plain", metrics=metrics)
    np.testing.assert_array_equal(found.data[...], expected.data[...])


@pytest.mark.parametrize("cleaned", [True, False])
@pytest.mark.parametrize("n_frames", [1, 2])
def test_what_is_too_large_to_be_held_is_turned_on_disk(models, tmp_path, monkeypatch, n_frames, cleaned):
    """A plane or two at a time, with the same masks; a run that was stopped goes on from the copy it made."""
    data = cells(n_frames) if n_frames > 1 else cells(1)[0]
    write(tmp_path / "a.ome.tif", data)
    changes = {} if cleaned else {"postprocess": None}
    expected = masks_of(tmp_path / "a.ome.tif", models[1], tmp_path / "held", **changes)
    monkeypatch.setattr(masks, "ZARR_FRAME_BYTES", 1000)
    monkeypatch.setattr(turning, "COPIED_BYTES", 5000)
    monkeypatch.setattr(slabs, "TURNED_VOXELS", 5000)
    with monkeypatch.context() as patch:
        patch.setattr(slabs.SlabStore, "take_turned", lambda *arguments: 1 // 0)
        with pytest.raises(AssertionError, match="by zero"):
            masks_of(tmp_path / "a.ome.tif", models[1], tmp_path / "disk", **changes)
        assert len(list((tmp_path / "disk").glob("a/.work/slabs-*/turned.npy"))) == 1
        patch.setattr(slabs.SlabStore, "save", lambda *arguments: 1 // 0)  # nothing is computed again
        with pytest.raises(AssertionError, match="by zero"):
            masks_of(tmp_path / "a.ome.tif", models[1], tmp_path / "disk", **changes)
    found = masks_of(tmp_path / "a.ome.tif", models[1], tmp_path / "disk", **changes)
    np.testing.assert_array_equal(found.data[...], expected.data[...])
    assert found.calibration.pixel_size_um == SIZE_UM
    assert not list((tmp_path / "disk").glob("a/.work/slabs-*"))


def test_a_disk_without_room_for_the_turned_copy_is_said(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", cells(1)[0])

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(turning.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        turned_on_disk(open_stack(tmp_path / "a.npy", axes="zyx", pixel_size_um=SIZE_UM), tmp_path / "turned.npy")
    assert not (tmp_path / "turned.npy").exists()


def test_a_turned_stack_reads_what_is_asked(tmp_path):
    data = cells(2)
    np.save(tmp_path / "a.npy", data)
    stack = turned(open_stack(tmp_path / "a.npy", axes="tzyx", pixel_size_um=SIZE_UM))
    assert (stack.shape, stack.spacing_um) == ((2, 40, 12, 56), (0.4, 1.5, 0.25))
    np.testing.assert_array_equal(stack.frame(1), data[1].swapaxes(0, 1))
    np.testing.assert_array_equal(stack.data[0, 3:5, :, 7], data[0, :, 3:5, 7].T)
    assert stack.data.held_bytes == 12 * 40 * 56


def test_pieces_of_a_turned_volume_are_read_without_holding_it(tmp_path):
    """A dry run decides the arithmetic by the planes that the network will see, and reads no frame whole for it."""
    for data, axes in ((cells(1)[0], "zyx"), (cells(3), "tzyx")):
        write(tmp_path / "a.ome.tif", data)
        whole = turned(open_stack(tmp_path / "a.ome.tif"))
        pieces = turning.in_pieces(turned(open_stack(tmp_path / "a.ome.tif")))
        for frame, z, rows in ((0, 7, slice(2, 9)), (len(data) - 1 if axes == "tzyx" else 0, slice(3, 5), slice(0, 4))):
            np.testing.assert_array_equal(
                read_grey(pieces, frame, z=z, rows=rows), read_grey(whole, frame, z=z, rows=rows)
            )
        assert turning.in_pieces(open_stack(tmp_path / "a.ome.tif")).data.shape == data.shape
