"""One small valid file per way of storing the same image series."""

from types import SimpleNamespace

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from seg.stack import Calibration

SIZES = {"z": 1.25, "y": 0.5, "x": 1 / 3}  # different on all axes: a swap shows


def series(shape=(5, 40, 48), seed=1):
    """A series with flat and rough parts, so that compression and truncation both matter."""
    data = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    data[..., : shape[-2] // 2, :] = 7
    return data


def write_video(path, frames, *, codec="ffv1", pixel_format="gray", rate=10):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        for frame in frames:
            rgb = frame if frame.ndim == 3 else np.stack([frame] * 3, -1)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            for packet in stream.encode(picture.reformat(format=pixel_format)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_zarr(path, data, axes, *, version="0.5", sizes=None, interval_s=None, **more):
    """OME-Zarr as other programs write it."""
    sizes = {**(sizes or {}), **({"t": interval_s} if interval_s else {})}
    described = [
        {
            "name": a,
            "type": "time" if a == "t" else "channel" if a == "c" else "space",
            **({"unit": "second" if a == "t" else "micrometer"} if a in sizes else {}),
        }
        for a in axes
    ]
    transforms = [{"type": "scale", "scale": [float(sizes.get(a, 1)) for a in axes]}]
    multiscales = [{"axes": described, "datasets": [{"path": "0", "coordinateTransformations": transforms}], **more}]
    if version == "0.4":
        attributes = {"multiscales": [{**multiscales[0], "version": "0.4"}]}
    else:
        attributes = {"ome": {"version": version, "multiscales": multiscales}}
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    array = group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(1,) * (data.ndim - 2) + data.shape[-2:])
    array[...] = data
    return path


def _tiff(**options):
    return lambda path, data: tifffile.imwrite(path, data, **options)


def _gif(path, data):
    Image.fromarray(data[0]).save(path, save_all=True, append_images=[Image.fromarray(f) for f in data[1:]])


def _mrc(path, data):
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.int16))
        file.set_volume()
        file.voxel_size = (1e4 * SIZES["x"], 1e4 * SIZES["y"], 1e4 * SIZES["z"])


def _hdf5(path, data):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data", data=data, compression="gzip", chunks=(1, *data.shape[1:]))


def _folder(path, data):
    path.mkdir()
    for i, frame in enumerate(data):
        Image.fromarray(frame).save(path / f"frame{i + 8}.png")  # 8, 9, 10: natural order matters


# name of the file -> (writer, axes that must be given)
WAYS = {
    "shaped.tif": (_tiff(metadata={"axes": "TYX"}), None),
    "deflate.tif": (_tiff(metadata={"axes": "TYX"}, compression="zlib"), None),
    "pages.tif": (_tiff(metadata=None), "tyx"),
    "lzw.tif": (_tiff(metadata=None, compression="lzw"), "tyx"),
    "bigtiff.tif": (_tiff(metadata={"axes": "TYX"}, bigtiff=True), None),
    "bigendian.tif": (_tiff(metadata={"axes": "TYX"}, byteorder=">"), None),
    "imagej.tif": (_tiff(imagej=True, metadata={"axes": "TYX"}), None),
    "tiled.ome.tif": (_tiff(ome=True, metadata={"axes": "TYX"}, compression="zlib", tile=(16, 16)), None),
    "series.gif": (_gif, None),
    "series.npy": (lambda path, data: np.save(path, data), "tyx"),
    "volume.mrc": (_mrc, "tyx"),
    "series.h5": (_hdf5, "tyx"),
    "series.avi": (write_video, None),
    "folder": (_folder, None),
    "new.ome.zarr": (lambda path, data: write_zarr(path, data, "tyx"), None),
    "old.ome.zarr": (lambda path, data: write_zarr(path, data, "tyx", version="0.4"), None),
}


def make_calibration(axes, n_frames=1, *, irregular=True):
    times = tuple(0.5 + 0.1 * i ** (1.3 if irregular else 1) for i in range(n_frames))
    return Calibration({a: size for a, size in SIZES.items() if a in axes}, times, "file")


@pytest.fixture
def make():
    """The functions above, for tests that need files of their own."""
    return SimpleNamespace(
        series=series, video=write_video, zarr=write_zarr, calibration=make_calibration, sizes=SIZES, ways=WAYS
    )


def pytest_generate_tests(metafunc):
    """Run tests that take `way` once per way of storing the series: (file name, writer, axes to give)."""
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", [(name, *how) for name, how in WAYS.items()], ids=list(WAYS))
