"""What is written comes back, frame by frame and with its units."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as random_arrays

from seg.errors import DataError, UsageError
from seg.io import arrays, open_stack, write_image, writing
from seg.stack import Calibration

AXES = ("yx", "tyx", "zyx", "tzyx", "cyx", "tcyx", "czyx", "tczyx")
DTYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8", ">u2", ">f4")


@st.composite
def stacks(draw):
    """Any stack: axes, odd sizes, type, anisotropic pixel sizes, regular and irregular times, or no calibration."""
    axes = draw(st.sampled_from(AXES))
    shape = tuple(3 if a == "c" else draw(st.integers(1, 5 if a in "tz" else 19)) for a in axes)
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    elements = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    data = draw(random_arrays(dtype, shape, elements=elements))
    if "c" in axes:  # equal channels would come back as one
        data[(slice(None),) * axes.index("c") + (0,)] = 1
        data[(slice(None),) * axes.index("c") + (1,)] = 2
    known = draw(st.sampled_from(["".join(a for a in axes if a in "zyx"), "yx", ""]))
    sizes = {a: draw(st.floats(1e-4, 1e3)) for a in known}
    n = shape[0] if axes[0] == "t" else 1
    steps = draw(
        st.none() | st.lists(st.floats(0, 1e5), min_size=n, max_size=n) | st.floats(0.01, 100).map(lambda s: [s] * n)
    )
    times = None if steps is None else tuple(np.cumsum(steps).tolist())
    return data, axes, Calibration(sizes, times, "file" if sizes or times is not None else "none")


def frames(data, axes):
    return iter(data) if axes.startswith("t") else iter([data])


@pytest.mark.parametrize("ending", [".ome.tif", ".tif", ".ome.zarr"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=stacks())
def test_write_then_read_is_identity(tmp_path, ending, stack):
    data, axes, calibration = stack
    path = tmp_path / f"a{ending}"
    write_image(path, frames(data, axes), shape=data.shape, dtype=data.dtype, axes=axes, calibration=calibration)
    back = open_stack(path)
    assert (back.axes, back.shape, back.dtype) == (axes, data.shape, data.dtype.newbyteorder("="))
    np.testing.assert_array_equal(back.data, data)
    assert back.calibration == calibration


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_large_planes_are_tiled_and_lazy_reading_gives_the_same(tmp_path, monkeypatch, make, ending):
    monkeypatch.setattr(writing, "_STRIP_PLANE_PX", 600 * 700)
    data = make.series((3, 601, 1100))
    path = tmp_path / f"a{ending}"
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=make.calibration("tyx", 3))
    if ending == ".ome.tif":
        with tifffile.TiffFile(path) as tif:
            assert tif.pages[0].tile == (512, 512)
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 1000)
    stack = open_stack(path)
    assert not isinstance(stack.data, np.ndarray)
    np.testing.assert_array_equal(stack.frame(1), data[1])
    np.testing.assert_array_equal(stack.data[0:3:2, 500:, 1099], data[0:3:2, 500:, 1099])


def test_other_programs_find_axes_units_and_times(tmp_path, make):
    data = make.series((2, 3, 16, 20))
    calibration = make.calibration("tzyx", 2)
    write_image(tmp_path / "a.ome.tif", data, shape=data.shape, dtype=data.dtype, axes="tzyx", calibration=calibration)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert (tif.series[0].axes, tif.is_bigtiff) == ("TZYX", False)
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        assert tif.pages[0].resolutionunit == tifffile.RESUNIT.CENTIMETER
        x, y = (a / b for a, b in (tif.pages[0].tags[name].value for name in ("XResolution", "YResolution")))
    assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == [1.25, 0.5, 1 / 3]
    assert pixels["PhysicalSizeXUnit"] == "µm"
    assert [plane["DeltaT"] for plane in pixels["Plane"]] == [0.5] * 3 + [0.6] * 3
    assert (x, y) == (pytest.approx(30000), pytest.approx(20000))  # pixels per cm
    write_image(tmp_path / "a.ome.zarr", data, shape=data.shape, dtype=data.dtype, axes="tzyx", calibration=calibration)
    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")
    multiscale = group.attrs["ome"]["multiscales"][0]
    assert group.attrs["ome"]["version"] == "0.5"
    assert [(a["name"], a["type"], a["unit"]) for a in multiscale["axes"]] == [
        ("t", "time", "second"), ("z", "space", "micrometer"), ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]  # fmt: skip
    scale, translation = multiscale["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([0.1, 1.25, 0.5, 1 / 3], rel=1e-12)
    assert translation["translation"] == [0.5, 0, 0, 0]
    assert group["0"].metadata.dimension_names == ("t", "z", "y", "x")


def test_memory_is_that_of_some_frames_whatever_their_number(tmp_path):
    n, size = 40, 1024

    def generate():
        for i in range(n):
            yield np.full((size, size), i, np.uint8)

    for ending in (".ome.tif", ".ome.zarr"):
        options = {"shape": (n, size, size), "dtype": np.uint8, "axes": "tyx", "calibration": Calibration()}
        write_image(tmp_path / f"warm{ending}", [np.zeros((4, 4), np.uint8)], **{**options, "shape": (1, 4, 4)})
        tracemalloc.start()
        write_image(tmp_path / f"a{ending}", generate(), **options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 * size**2, f"{ending}: {peak / size**2:.0f} frames in memory"


def test_frames_may_share_one_array(tmp_path):
    shared = np.empty((400, 600), np.uint8)

    def frames():
        for value in range(12):
            shared[:] = np.arange(600) * value % 251  # what is compressed beside this is not touched by it
            yield shared

    write_image(
        tmp_path / "a.tif", frames(), shape=(12, 400, 600), dtype=shared.dtype, axes="tyx", calibration=Calibration()
    )
    read = tifffile.imread(tmp_path / "a.tif")
    assert [(frame == np.arange(600) * value % 251).all() for value, frame in enumerate(read)] == [True] * 12


def test_files_beyond_4_gb_become_bigtiff(tmp_path, monkeypatch, make):
    monkeypatch.setattr(writing, "_BIGTIFF_BYTES", 1000)
    data = make.series((2, 30, 40))
    write_image(tmp_path / "a.ome.tif", data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=Calibration())
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_bigtiff
    np.testing.assert_array_equal(open_stack(tmp_path / "a.ome.tif").data, data)


def test_bool_is_written_as_numbers(tmp_path):
    mask = np.eye(8, dtype=bool)
    write_image(tmp_path / "a.ome.tif", [mask], shape=(8, 8), dtype=bool, axes="yx", calibration=Calibration())
    assert open_stack(tmp_path / "a.ome.tif").dtype == np.uint8


@pytest.mark.parametrize(
    ("given_frames", "changes", "says"),
    [
        ([np.zeros((4, 5), np.uint8)], {}, r"1 frame\(s\) were given, expected 2"),
        ([np.zeros((4, 5), np.uint8)] * 3, {}, "More than the expected 2"),
        ([np.zeros((5, 4), np.uint8)] * 2, {}, r"Frame 0 has shape \(5, 4\), expected \(4, 5\)"),
        ([np.zeros((4, 5), np.float32)] * 2, {}, "has type float32, expected uint8"),
        ([np.full((4, 5), 300)] * 2, {}, "values outside the range of uint8"),
        ([np.zeros((4, 5), np.int64)] * 2, {"dtype": np.int64}, "type int64 cannot be written"),
        ([np.zeros((4, 5), np.uint8)] * 2, {"axes": "yx"}, "cannot be written"),
    ],
)
@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_frames_that_do_not_fit_leave_no_file(tmp_path, ending, given_frames, changes, says):
    options = {"shape": (2, 4, 5), "dtype": np.uint8, "axes": "tyx", "calibration": Calibration(), **changes}
    with pytest.raises(ValueError, match=says):
        write_image(tmp_path / f"a{ending}", given_frames, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(UsageError, match="end it in .ome.tif or .ome.zarr"):
        write_image(tmp_path / "a.png", [], shape=(4, 5), dtype=np.uint8, axes="yx", calibration=Calibration())


def test_a_file_changed_by_another_program_loses_its_claim(tmp_path, make):
    """Our annotation counts only as long as the shape is the one it was written for."""
    data = make.series((1, 16, 20))
    path = tmp_path / "a.ome.tif"
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=make.calibration("tyx"))
    assert open_stack(path).axes == "tyx"
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    tifffile.tiffcomment(path, xml.replace("[1, 16, 20]", "[1, 16, 21]").encode())
    stack = open_stack(path)
    assert (stack.axes, stack.spacing_um) == ("yx", (0.5, 1 / 3))
    broken = replace(make.calibration("tyx"), frame_times_s=None)
    write_image(path, data, shape=data.shape, dtype=data.dtype, axes="tyx", calibration=broken)
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    tifffile.tiffcomment(path, xml.replace("<Pixels ", "<Pixels < ").encode())
    with pytest.raises(DataError, match="damaged"):
        open_stack(path)
