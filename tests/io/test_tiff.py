"""Axes, calibration and types of TIFF files as the programs of the field write them."""

import numpy as np
import pytest
import tifffile

from seg.errors import DataError, UsageError
from seg.io import arrays, open_stack


def write(path, data, **options):
    # tifffile takes 3 or 4 planes for colours unless told
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})
    return path


def volume(shape, dtype=np.uint8):
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i1", "<i2", ">i4", "<f4", ">f8", "<f2"])
def test_all_pixel_types_come_back_in_native_order(tmp_path, dtype):
    data = volume((20, 30), np.float64).astype(dtype)
    stack = open_stack(write(tmp_path / "a.tif", data, byteorder=">" if ">" in dtype else "<"))
    assert stack.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(stack.data, data)


def test_one_bit_images_become_numbers(tmp_path):
    data = volume((20, 30)) % 2 == 0
    stack = open_stack(write(tmp_path / "a.tif", data))
    assert stack.dtype == np.uint8
    np.testing.assert_array_equal(stack.data, data)


def test_complex_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'a.tif' holds complex numbers; expected integers or floats"):
        open_stack(write(tmp_path / "a.tif", np.ones((8, 8), np.complex64)))


def test_nan_is_counted_and_placed(tmp_path):
    data = np.ones((3, 8, 8), np.float32)
    data[1, 2, 3] = np.nan
    with pytest.raises(
        DataError, match=r"1 NaN or infinite pixel\(s\) of 192, the first at index \(1, 2, 3\)"
    ) as caught:
        open_stack(write(tmp_path / "a.tif", data, metadata={"axes": "TYX"}))
    assert caught.value.exit_code == 5


# --- axes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"metadata": None}, {}, {"metadata": {"axes": "QYX"}}, {"metadata": {"axes": "IYX"}}]
)
def test_an_unknown_third_axis_is_refused_with_the_remedy(tmp_path, options):
    path = write(tmp_path / "a.tif", volume((4, 20, 30)), **options)
    with pytest.raises(DataError, match="whether its axis of length 4 is time or depth") as caught:
        open_stack(path)
    assert "--axes tyx" in str(caught.value)
    assert "--axes zyx" in str(caught.value)
    assert open_stack(path, axes="zyx").axes == "zyx"
    assert open_stack(path, axes="TYX").axes == "tyx"


def test_two_unknown_axes_and_what_does_not_fit(tmp_path):
    path = write(tmp_path / "a.tif", volume((3, 4, 20, 30)))
    with pytest.raises(DataError, match="--axes tzyx"):
        open_stack(path)
    with pytest.raises(DataError, match=r"4 dimensions \(3, 4, 20, 30\), which the axes 'tyx' do not fit"):
        open_stack(path, axes="tyx")
    for wrong in ("tqyx", "ttyx", "tz", ""):
        with pytest.raises(UsageError, match="are not understood"):
            open_stack(path, axes=wrong)


def test_imagej_images_without_slices_are_ambiguous(tmp_path):
    path = write(
        tmp_path / "a.tif", volume((4, 20, 30)), metadata=None,
        description="ImageJ=1.54f\nimages=4\nunit=micron\n", resolution=(2.0, 4.0),
    )  # fmt: skip
    with pytest.raises(DataError, match="time or depth"):
        open_stack(path)


def test_given_axes_move_dimensions_into_order(tmp_path):
    data = volume((20, 30, 4))
    path = write(tmp_path / "a.tif", data, metadata={"axes": "YXZ"}, photometric="minisblack", planarconfig=None)
    stack = open_stack(path, axes="yxt")
    np.testing.assert_array_equal(stack.data, np.moveaxis(data, -1, 0))


def test_sizes_stay_with_their_dimension_when_axes_are_renamed(tmp_path):
    path = write(
        tmp_path / "a.ome.tif", volume((4, 20, 30)), ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeZ": 3.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25},
    )  # fmt: skip
    assert open_stack(path).calibration.pixel_size_um == {"z": 3.0, "y": 0.5, "x": 0.25}
    assert open_stack(path, axes="tyx").calibration.pixel_size_um == {"y": 0.5, "x": 0.25}
    assert open_stack(path, axes="zxy").calibration.pixel_size_um == {"z": 3.0, "x": 0.5, "y": 0.25}


def test_axes_of_length_one_are_dropped_unless_named(tmp_path):
    path = write(tmp_path / "a.tif", volume((1, 1, 20, 30)), metadata={"axes": "TZYX"})
    assert open_stack(path).axes == "yx"
    assert open_stack(path, axes="tyx").shape == (1, 20, 30)
    assert open_stack(path, axes="tzyx").shape == (1, 1, 20, 30)


# --- colour ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("lazy", [False, True])
def test_rgb_becomes_a_channel_axis_after_time(tmp_path, planar, lazy, monkeypatch):
    monkeypatch.setattr(arrays, "LAZY_ABOVE_BYTES", 0 if lazy else 2**20)
    data = volume((4, 20, 30, 3))
    stored = data if planar == "contig" else np.moveaxis(data, -1, 1)
    axes = "TYXS" if planar == "contig" else "TSYX"
    path = write(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, metadata={"axes": axes})
    for given in (None, "tyx", "tcyx"):
        stack = open_stack(path, axes=given)
        assert stack.axes == "tcyx"
        np.testing.assert_array_equal(stack.data, np.moveaxis(data, -1, 1))


def test_equal_channels_are_one(tmp_path):
    data = volume((20, 30))
    stack = open_stack(write(tmp_path / "a.tif", np.stack([data] * 3, -1), photometric="rgb"))
    assert stack.axes == "yx"
    np.testing.assert_array_equal(stack.data, data)


def test_four_channels_and_grey_with_alpha_are_refused(tmp_path):
    rgba = write(tmp_path / "a.tif", volume((20, 30, 4)), photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(DataError, match=r"'a.tif' has 4 channels \(RGBA or CMYK\); expected 1 \(grey\) or 3 \(RGB\)"):
        open_stack(rgba)
    grey = write(
        tmp_path / "b.tif", volume((20, 30, 2)), photometric="minisblack", planarconfig="contig",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    with pytest.raises(DataError, match="'b.tif' has 2 channels"):
        open_stack(grey)
    ome = write(tmp_path / "c.ome.tif", volume((4, 20, 30)), ome=True, metadata={"axes": "CYX"})
    with pytest.raises(DataError, match="'c.ome.tif' has 4 channels"):
        open_stack(ome)


# --- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "um"), [("µm", 1), ("nm", 1e-3), ("Å", 1e-4), ("mm", 1e3), ("cm", 1e4), ("pm", 1e-6), ("m", 1e6)]
)
def test_ome_sizes_of_any_unit_and_time_increment(tmp_path, unit, um):
    sizes = {"PhysicalSizeZ": 3.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
    units = {f"{key}Unit": unit for key in sizes}
    path = write(
        tmp_path / "a.ome.tif", volume((3, 4, 20, 30), np.uint16), ome=True,
        metadata={"axes": "TZYX", **sizes, **units, "TimeIncrement": 100.0, "TimeIncrementUnit": "ms"},
    )  # fmt: skip
    stack = open_stack(path)
    assert (stack.axes, stack.calibration.source) == ("tzyx", "file")
    assert stack.calibration.pixel_size_um == pytest.approx({"z": 3 * um, "y": 0.5 * um, "x": 0.25 * um}, rel=1e-12)
    assert stack.frame_times_s == pytest.approx((0, 0.1, 0.2), rel=1e-12)


def test_ome_plane_times_win_and_unknown_units_say_nothing(tmp_path):
    plane = {"DeltaT": [60.0, 0.5, 2.0, 9.0, 5.0, 9.0], "DeltaTUnit": ["s", "min"] + ["s"] * 4}
    path = write(
        tmp_path / "a.ome.tif", volume((3, 2, 20, 30)), ome=True,
        metadata={"axes": "TZYX", "PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "Plane": plane},
    )  # fmt: skip
    # the first plane of each time point: 60, 2, 5 s go backwards, so they are not used
    assert open_stack(path).calibration.source == "none"
    plane["DeltaT"][0] = 1.0
    path = write(tmp_path / "b.ome.tif", volume((3, 2, 20, 30)), ome=True, metadata={"axes": "TZYX", "Plane": plane})
    assert open_stack(path).frame_times_s == (1.0, 2.0, 5.0)


def test_plane_times_that_do_not_differ_are_no_times(tmp_path):
    path = write(
        tmp_path / "a.ome.tif", volume((3, 20, 30)), ome=True,
        metadata={"axes": "TYX", "Plane": {"DeltaT": [0.0] * 3}, "TimeIncrement": 2.0},
    )  # fmt: skip
    assert open_stack(path).frame_times_s == (0.0, 2.0, 4.0)


@pytest.mark.parametrize("unit", ["micron", "um", "nm", "\\u00B5m"])
def test_imagej_hyperstack(tmp_path, unit):
    path = write(
        tmp_path / "a.tif", volume((3, 4, 20, 30), np.uint16), imagej=True, resolution=(4.0, 2.0),
        metadata={"axes": "TZYX", "spacing": -1.5, "unit": unit, "finterval": 0.5},
    )  # fmt: skip
    stack = open_stack(path)
    assert stack.axes == "tzyx"
    um = 1e-3 if unit == "nm" else 1
    expected = {"z": 1.5 * um, "y": 0.5 * um, "x": 0.25 * um}
    assert stack.calibration.pixel_size_um == pytest.approx(expected, rel=1e-6)  # resolutions are fractions
    assert stack.frame_times_s == (0.0, 0.5, 1.0)


def test_imagej_channels_after_slices_are_put_in_order(tmp_path):
    data = volume((2, 4, 3, 20, 30))
    path = write(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TZCYX"})
    stack = open_stack(path)
    assert stack.axes == "tczyx"
    np.testing.assert_array_equal(stack.data, data.swapaxes(1, 2))


def test_imagej_pixels_are_uncalibrated(tmp_path):
    path = write(
        tmp_path / "a.tif", volume((3, 20, 30)), imagej=True, resolution=(72, 72),
        metadata={"axes": "TYX", "unit": "pixel", "finterval": 0},
    )  # fmt: skip
    assert open_stack(path).calibration.source == "none"


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((72, 72), "inch", None),
        ((300, 300), "inch", None),
        ((1200, 1200), "inch", None),
        ((118.11, 118.11), "centimeter", None),  # 300 dpi
        ((40000, 20000), "centimeter", {"y": 0.5, "x": 0.25}),
        ((50800, 25400), "inch", {"y": 1.0, "x": 0.5}),
        ((4, 2), "none", None),
    ],
)
def test_resolution_tags_count_only_at_the_scale_of_a_microscope(tmp_path, resolution, unit, expected):
    path = write(tmp_path / "a.tif", volume((20, 30)), resolution=resolution, resolutionunit=unit, metadata=None)
    calibration = open_stack(path).calibration
    if expected is None:
        assert (calibration.pixel_size_um, calibration.source) == ({}, "none")
    else:
        assert calibration.pixel_size_um == pytest.approx(expected, rel=1e-6)


def test_electron_microscopes_state_their_pixel_size(tmp_path):
    fei = "[User]\nDate=01/02/2026\n[Scan]\nPixelWidth=2.5e-09\nPixelHeight=5e-09\n"
    path = write(tmp_path / "fei.tif", volume((20, 30)), metadata=None, extratags=[(34682, "s", 0, fei, True)])
    assert open_stack(path).calibration.pixel_size_um == pytest.approx({"y": 0.005, "x": 0.0025})
    zeiss = "0\n0\nAP_IMAGE_PIXEL_SIZE\nImage Pixel Size = 5.582 nm\n"
    path = write(tmp_path / "zeiss.tif", volume((20, 30)), metadata=None, extratags=[(34118, "s", 0, zeiss, True)])
    assert open_stack(path).calibration.pixel_size_um == pytest.approx({"y": 0.005582, "x": 0.005582})


# --- several images, damage -----------------------------------------------------------------------------------------


def test_pages_of_several_sizes_are_listed_and_one_can_be_chosen(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(volume((20, 30)), metadata=None)
        tif.write(volume((11, 17)), metadata=None)
    with pytest.raises(DataError, match=r"holds 2 images of different kinds \(0: 20x30; 1: 11x17\).*--dataset"):
        open_stack(path)
    assert open_stack(path, dataset="1").shape == (11, 17)
    with pytest.raises(DataError, match="has no image '2'; it holds 0: 20x30"):
        open_stack(path, dataset="2")


def test_a_second_series_keeps_its_own_ome_metadata(tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(volume((20, 30)), metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 2.0})
        tif.write(volume((10, 15)), metadata={"axes": "YX", "PhysicalSizeX": 3.0, "PhysicalSizeY": 4.0})
    assert open_stack(path, dataset="1").calibration.pixel_size_um == {"y": 4.0, "x": 3.0}


def test_lost_pages_are_not_read_as_black(tmp_path):
    path = write(tmp_path / "a.ome.tif", volume((4, 20, 30)), ome=True, metadata={"axes": "TYX"}, compression="zlib")
    xml = tifffile.tiffcomment(path).replace('SizeT="4"', 'SizeT="6"').replace('PlaneCount="4"', 'PlaneCount="6"')
    tifffile.tiffcomment(path, xml.encode())
    with pytest.raises(DataError, match="damaged or cut off"):
        open_stack(path)


def test_a_volume_without_z_size_in_the_file_says_so(tmp_path, caplog):
    path = write(
        tmp_path / "a.ome.tif", volume((4, 20, 30)), ome=True,
        metadata={"axes": "ZYX", "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25},
    )  # fmt: skip
    assert open_stack(path).spacing_um is None
    assert "no pixel size along z" in caplog.text
    assert open_stack(path, pixel_size_um={"z": 2.0}).spacing_um == (2.0, 0.5, 0.25)
