"""Lazy arrays behave like the numpy arrays they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg.errors import DataError
from seg.io.arrays import MAX_PIXELS, LazyArray, check_dtype, check_finite, check_size, damaged

SOURCE = np.arange(3 * 1 * 4 * 5).reshape(3, 1, 4, 5).astype(">i2")


def index(size):
    slices = st.builds(
        slice,
        st.none() | st.integers(-size - 1, size + 1),
        st.none() | st.integers(-size - 1, size + 1),
        st.none() | st.integers(1, 3),
    )
    return slices | st.integers(-size, size - 1)


@given(st.data(), st.permutations([0, 2, 3]))
def test_indexing_equals_numpy_on_the_transposed_array(data, order):
    lazy = LazyArray(SOURCE, order, name="a")
    plain = SOURCE[:, 0].transpose([[0, 2, 3].index(d) for d in order]).astype(np.int16)
    assert lazy.shape == plain.shape
    key = tuple(data.draw(index(n)) for n in plain.shape[: data.draw(st.integers(0, 3))])
    if data.draw(st.booleans()):
        key = (*key, Ellipsis)
    got = lazy[key]
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, plain[key])


def test_new_axes_length_bytes_and_conversion():
    lazy = LazyArray(SOURCE[:, 0], [None, 0, 1, 2], name="a")
    assert (lazy.shape, lazy.ndim, len(lazy), lazy.nbytes) == ((1, 3, 4, 5), 4, 1, 120)
    np.testing.assert_array_equal(np.asarray(lazy), SOURCE[:, 0][None])
    assert np.asarray(lazy, np.float32).dtype == np.float32
    np.testing.assert_array_equal(lazy[0, ..., 2], SOURCE[:, 0, :, 2])


@pytest.mark.parametrize("key", [5, (0, 0, 0, 0), slice(None, None, -1), (..., ...)])
def test_wrong_indices_are_refused(key):
    with pytest.raises(IndexError):
        LazyArray(SOURCE, [0, 2, 3], name="a")[key]
    with pytest.raises(TypeError, match="integers, slices"):
        LazyArray(SOURCE, [0, 2, 3], name="a")[[0, 1]]


def test_bool_becomes_numbers_and_a_function_is_applied_to_what_is_read():
    lazy = LazyArray(np.array([[True, False]]), [0, 1], name="a")
    assert lazy.dtype == np.uint8
    doubled = lazy.mapped(lambda array: (array * 2).astype(np.uint16), np.dtype(np.uint16))
    assert doubled.dtype == np.uint16
    assert doubled[0].tolist() == [2, 0]


def test_a_failing_read_and_nan_are_data_errors():
    class Broken:
        shape, dtype = (2, 2), np.dtype(np.uint8)

        def __getitem__(self, key):
            raise RuntimeError("chunk 3 is short\nand more")

    with pytest.raises(DataError, match=r"'a' cannot be read \(chunk 3 is short\)"):
        LazyArray(Broken(), [0, 1], name="a")[0]
    values = np.array([[0.0, 1.0], [np.inf, np.nan]])
    lazy = LazyArray(values, [0, 1], name="a")
    np.testing.assert_array_equal(lazy[0], [0, 1])
    with pytest.raises(DataError, match="'a' holds 2 NaN or infinite"):
        lazy[1]


def test_closing_happens_when_the_array_is_dropped():
    closed = []
    lazy = LazyArray(SOURCE, [0, 2, 3], name="a")
    lazy.close_with(lambda: closed.append(True))
    mapped = lazy.mapped(lambda array: array, lazy.dtype)
    del lazy
    assert not closed
    assert mapped[0, 0, 0] == 0
    del mapped
    assert closed == [True]


def test_not_finite_says_how_many_and_where():
    array = np.zeros((2, 3, 4), np.float32)
    check_finite(array, "a.tif")
    check_finite(array.astype(int), "a.tif")
    array[1, 2, 0], array[1, 2, 3] = np.nan, -np.inf
    with pytest.raises(
        DataError, match=r"'a.tif' holds 2 NaN or infinite pixel\(s\) of 24, the first at index \(1, 2, 0"
    ):
        check_finite(array, "a.tif")


@pytest.mark.parametrize(("dtype", "says"), [(complex, "complex numbers"), ("U3", "<U3"), ("M8[s]", "datetime")])
def test_only_real_numbers_are_images(dtype, says):
    with pytest.raises(DataError, match=says):
        check_dtype(dtype, "a.npy")
    for good in (bool, np.int8, ">u2", np.float16, np.float64):
        check_dtype(good, "a.npy")


def test_impossible_sizes_are_refused():
    check_size((2**18, 2**17), "a.png")
    with pytest.raises(DataError, match="the header is damaged"):
        check_size((2, MAX_PIXELS), "a.png")
    with pytest.raises(DataError, match="the header is damaged"):
        check_size((4096, 4096), "a.png", file_bytes=1000)
    with pytest.raises(DataError, match="has no pixels: it declares a size of 0 x 5"):
        check_size((0, 5), "a.png")


def test_an_error_without_text_is_named():
    assert "(ZeroDivisionError)" in str(damaged("a.tif", ZeroDivisionError()))
