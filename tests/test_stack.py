import numpy as np
import pytest

from seg.errors import CalibrationError, DataError
from seg.stack import Calibration, Stack

ANISOTROPIC = Calibration({"z": 1.5, "y": 0.4, "x": 0.25}, source="options")


def test_spacing_follows_the_order_of_the_axes():
    stack = Stack(np.zeros((2, 3, 4, 5)), "tzyx", Calibration({"x": 0.25, "z": 1.5, "y": 0.4}, (0.0, 2.5)))
    assert stack.spacing_um == (1.5, 0.4, 0.25)
    assert stack.spatial_shape == (3, 4, 5)
    assert stack.n_frames == 2
    assert stack.frame(1).shape == (3, 4, 5)


def test_a_stack_with_one_unknown_pixel_size_is_uncalibrated_not_1_um():
    stack = Stack(np.zeros((3, 4, 5)), "zyx", Calibration({"y": 0.4, "x": 0.25}))
    assert stack.spacing_um is None


@pytest.mark.parametrize("axes", ["xy", "ytx", "tyxc", "ty", "qyx"])
def test_axes_out_of_order_are_refused(axes):
    with pytest.raises(DataError, match="t c z y x"):
        Stack(np.zeros((2,) * len(axes)), axes)


def test_wrong_number_of_axes_names_the_remedy():
    with pytest.raises(DataError, match="--axes"):
        Stack(np.zeros((2, 3, 4)), "yx")


def test_an_empty_stack_is_refused():
    with pytest.raises(DataError, match="empty"):
        Stack(np.zeros((0, 3, 4)), "tyx")


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_pixel_sizes_are_refused(size):
    with pytest.raises(CalibrationError, match="positive"):
        Calibration({"y": size, "x": 0.5})


def test_frame_times_must_be_finite_ordered_and_one_per_frame():
    with pytest.raises(CalibrationError, match="NaN"):
        Calibration({}, (0.0, float("nan")))
    with pytest.raises(CalibrationError, match="backwards"):
        Calibration({}, (1.0, 0.5))
    with pytest.raises(CalibrationError, match=r"3 frame\(s\) but 2"):
        Stack(np.zeros((3, 4, 5)), "tyx", Calibration({}, (0.0, 1.0)))


def test_later_calibration_overrides_axis_by_axis():
    merged = ANISOTROPIC.updated(Calibration({"x": 0.3}, (0.0, 1.0), "sidecar"))
    assert merged.pixel_size_um == {"z": 1.5, "y": 0.4, "x": 0.3}
    assert merged.frame_times_s == (0.0, 1.0)
    assert merged.source == "sidecar"
    assert ANISOTROPIC.updated(Calibration()) is ANISOTROPIC


def test_a_frame_that_does_not_exist_is_an_error_not_the_last_one():
    with pytest.raises(IndexError, match="frame -1"):
        Stack(np.zeros((2, 4, 5)), "tyx").frame(-1)


def test_to_xarray_keeps_coordinates_in_um_and_s():
    stack = Stack(np.zeros((2, 4, 5)), "tyx", Calibration({"y": 0.4, "x": 0.25}, (0.0, 2.5)))
    array = stack.to_xarray()
    assert array.dims == ("t", "y", "x")
    np.testing.assert_allclose(array.x.values, np.arange(5) * 0.25)
    assert array.x.attrs["units"] == "um"
    np.testing.assert_allclose(array.t.values, [0.0, 2.5])
