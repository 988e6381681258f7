"""MRC files of volumes and of image stacks."""

import mrcfile
import numpy as np
import pytest

from seg.errors import DataError
from seg.io import open_stack


def write(path, data, *, voxel_size=None, volume=True, **header):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        if data.ndim == 3:
            file.set_volume() if volume else file.set_image_stack()
        if voxel_size is not None:
            file.voxel_size = voxel_size
        for key, value in header.items():
            setattr(file.header, key, value)
    return path


VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.float32, np.float16])
def test_volume_with_anisotropic_voxels(tmp_path, dtype):
    path = write(tmp_path / "a.mrc", VOLUME.astype(dtype), voxel_size=(2.0, 3.0, 5.0))  # x, y, z in Å
    stack = open_stack(path)
    assert stack.axes == "zyx"
    np.testing.assert_array_equal(stack.data, VOLUME)
    # float32 in the header
    assert stack.calibration.pixel_size_um == pytest.approx({"z": 5e-4, "y": 3e-4, "x": 2e-4}, rel=1e-6)


@pytest.mark.parametrize("voxel_size", [None, 0.0, 1.0])
def test_a_voxel_size_that_was_never_set_is_none(tmp_path, voxel_size):
    assert open_stack(write(tmp_path / "a.mrc", VOLUME, voxel_size=voxel_size)).calibration.source == "none"


def test_an_image_stack_is_ambiguous_but_a_reconstruction_is_a_volume(tmp_path):
    stack = write(tmp_path / "tilts.st", VOLUME, volume=False)
    with pytest.raises(DataError, match="time or depth"):
        open_stack(stack)
    assert open_stack(stack, axes="tyx").axes == "tyx"
    assert open_stack(write(tmp_path / "a.rec", VOLUME, volume=False)).axes == "zyx"
    assert open_stack(write(tmp_path / "image.mrc", VOLUME[0])).axes == "yx"


def test_big_endian_and_missing_mark(tmp_path):
    path = write(tmp_path / "a.mrc", VOLUME)
    with mrcfile.open(path) as file:
        header, data = file.header.copy(), file.data
        big = header.astype(header.dtype.newbyteorder(">"))
        big["machst"] = [0x11, 0x11, 0, 0]
        (tmp_path / "big.mrc").write_bytes(big.tobytes() + data.astype(">i2").tobytes())
    np.testing.assert_array_equal(open_stack(tmp_path / "big.mrc").data, VOLUME)
    content = bytearray(path.read_bytes())
    content[208:212] = b"\0\0\0\0"
    (tmp_path / "old.mrc").write_bytes(content)
    np.testing.assert_array_equal(open_stack(tmp_path / "old.mrc", axes="zyx").data, VOLUME)


def test_complex_nan_and_damage(tmp_path):
    with pytest.raises(DataError, match="complex numbers"):
        open_stack(write(tmp_path / "a.mrc", VOLUME.astype(np.complex64)))
    path = write(tmp_path / "a.mrc", VOLUME.astype(np.float32))
    content = bytearray(path.read_bytes())
    content[1024 + 4 : 1024 + 8] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"1 NaN .* at index \(0, 0, 1\)"):
        open_stack(path)
    path = write(tmp_path / "a.mrc", VOLUME, nsymbt=0x40404040)
    with pytest.raises(DataError, match="extended header longer than the file"):
        open_stack(path)
    path = write(tmp_path / "a.mrc", VOLUME)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged or cut off"):
        open_stack(path)
