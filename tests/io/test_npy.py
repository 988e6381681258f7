"""NPY: bare arrays."""

import numpy as np
import pytest

from seg.errors import DataError
from seg.io import open_stack


def test_two_dimensions_are_an_image_and_more_are_ambiguous(tmp_path):
    data = np.arange(60.0).reshape(3, 4, 5)
    np.save(tmp_path / "a.npy", data[0])
    assert open_stack(tmp_path / "a.npy").axes == "yx"
    np.save(tmp_path / "b.npy", np.asfortranarray(data))
    with pytest.raises(DataError, match="time or depth"):
        open_stack(tmp_path / "b.npy")
    np.testing.assert_array_equal(open_stack(tmp_path / "b.npy", axes="zyx").data, data)
    np.testing.assert_array_equal(open_stack(tmp_path / "b.npy", axes="yxt").data, np.moveaxis(data, -1, 0))


def test_colour_last_is_read_when_named(tmp_path):
    data = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    np.save(tmp_path / "a.npy", data)
    stack = open_stack(tmp_path / "a.npy", axes="yxc")
    assert stack.axes == "cyx"
    np.testing.assert_array_equal(stack.data, np.moveaxis(data, -1, 0))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([[{}]], object), "cannot be read"),
        (np.zeros((2, 2), complex), "complex"),
        (np.zeros((2, 2), [("a", "f4")]), "values of type"),
        (np.zeros(5), "axes"),
        (np.zeros((0, 5)), "no pixels|cannot be read"),
        (np.float64(3), "axes|no pixels|cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_and_nothing_is_unpickled(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=says):
        open_stack(tmp_path / "a.npy")
