"""OME-Zarr of both versions, written the way other programs do."""

import json

import numpy as np
import pytest
import zarr

from seg.errors import DataError
from seg.io import open_stack

DATA = np.arange(2 * 3 * 8 * 10, dtype=np.uint16).reshape(2, 3, 8, 10)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_units_and_times(tmp_path, make, version):
    path = make.zarr(tmp_path / "a.ome.zarr", DATA, "tzyx", version=version, sizes=make.sizes, interval_s=2.5)
    stack = open_stack(path)
    assert (stack.axes, stack.calibration.source) == ("tzyx", "file")
    np.testing.assert_array_equal(stack.data, DATA)
    assert stack.calibration.pixel_size_um == make.sizes
    assert stack.frame_times_s == (0.0, 2.5)


def test_a_scale_without_unit_says_nothing(tmp_path, make):
    assert open_stack(make.zarr(tmp_path / "a.zarr", DATA, "tzyx")).calibration.source == "none"


def test_both_levels_of_transforms_multiply(tmp_path, make):
    more = {"coordinateTransformations": [{"type": "scale", "scale": [0.1, 1.0, 2.0, 4.0]}]}
    path = make.zarr(tmp_path / "a.zarr", DATA, "tzyx", sizes=make.sizes, interval_s=10.0, **more)
    stack = open_stack(path)
    assert stack.calibration.pixel_size_um == {"z": 1.25, "y": 1.0, "x": 4 / 3}
    assert stack.frame_times_s == (0.0, 1.0)


def test_units_other_than_micrometres(tmp_path, make):
    path = make.zarr(tmp_path / "a.zarr", DATA, "tzyx", sizes=make.sizes)
    meta = json.loads((path / "zarr.json").read_text())
    for axis in meta["attributes"]["ome"]["multiscales"][0]["axes"][1:]:
        axis["unit"] = "nanometer"
    (path / "zarr.json").write_text(json.dumps(meta))
    sizes = open_stack(path).calibration.pixel_size_um
    assert sizes == pytest.approx({a: s * 1e-3 for a, s in make.sizes.items()}, rel=1e-12)


def test_five_dimensions_with_single_ones_and_channels(tmp_path, make):
    path = make.zarr(tmp_path / "a.zarr", DATA[:, None, :1], "tczyx")
    assert open_stack(path).axes == "tyx"
    with pytest.raises(DataError, match="has 4 channels"):
        open_stack(make.zarr(tmp_path / "b.zarr", np.zeros((4, 8, 10), np.uint8), "cyx"))


def test_a_level_can_be_chosen_and_a_missing_one_is_named(tmp_path, make):
    path = make.zarr(tmp_path / "a.zarr", DATA, "tzyx")
    assert open_stack(path, dataset="0").shape == DATA.shape
    with pytest.raises(DataError, match="no resolution level '7'; it has 0"):
        open_stack(path, dataset="7")
    (path / "0").rename(path / "gone")
    with pytest.raises(DataError, match="lacks its array '0'"):
        open_stack(path)


def test_images_in_folders_of_a_store(tmp_path, make):
    store = tmp_path / "a.zarr"
    zarr.create_group(str(store))
    make.zarr(store / "0", DATA, "tzyx")
    assert open_stack(store).shape == DATA.shape
    make.zarr(store / "1", DATA[:1], "tzyx")
    with pytest.raises(DataError, match="holds the images 0, 1: pass a.zarr/0"):
        open_stack(store)
    assert open_stack(store / "1").axes == "zyx"
    zarr.create_group(str(tmp_path / "empty.zarr"))
    with pytest.raises(DataError, match="without multiscales"):
        open_stack(tmp_path / "empty.zarr")


def test_plain_arrays(tmp_path):
    zarr.create_array(str(tmp_path / "named.zarr"), data=DATA[0], dimension_names=("z", "y", "x"))
    assert open_stack(tmp_path / "named.zarr").axes == "zyx"
    zarr.create_array(str(tmp_path / "plain.zarr"), data=DATA[0])
    with pytest.raises(DataError, match="time or depth"):
        open_stack(tmp_path / "plain.zarr")
    assert open_stack(tmp_path / "plain.zarr", axes="zyx").shape == (3, 8, 10)


def test_version_3_names_its_axes_by_text(tmp_path, make):
    path = make.zarr(tmp_path / "a.zarr", DATA, "tzyx", version="0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["axes"] = ["t", "z", "y", "x"]
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert open_stack(path).axes == "tzyx"


def test_a_short_chunk_is_an_error(tmp_path, make):
    path = make.zarr(tmp_path / "a.zarr", DATA, "tzyx")
    chunk = next(p for p in (path / "0").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(DataError, match="damaged or cut off"):
        open_stack(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(DataError, match="damaged or cut off"):
        open_stack(path)
