"""Grey values and the intensity scale of a series."""

import logging

import numpy as np
import pytest

from seg.errors import DataError
from seg.preprocess import SAMPLED_VALUES, SeriesNormalisation, read_grey, require_finite, to_grey
from seg.stack import Stack


def test_luminance_of_colour():
    frame = np.zeros((3, 2, 3), np.uint8)
    frame[0, 0, 0], frame[1, 0, 1], frame[2, 0, 2], frame[:, 1] = 255, 255, 255, 255
    expected = [[0.299 * 255, 0.587 * 255, 0.114 * 255], [255, 255, 255]]  # Rec. 601
    np.testing.assert_allclose(to_grey(frame), expected, rtol=1e-6)  # float32


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((4, 5), None, (4, 5)),
        ((1, 4, 5), None, (4, 5)),
        ((3, 4, 5), None, (4, 5)),
        ((3, 4, 5), "zyx", (3, 4, 5)),
        ((7, 4, 5), None, (7, 4, 5)),
        ((1, 4, 5), "zyx", (1, 4, 5)),
        ((3, 6, 4, 5), None, (6, 4, 5)),
        ((1, 6, 4, 5), "czyx", (6, 4, 5)),
    ],
)
def test_grey_shapes(shape, axes, expected, rng):
    assert to_grey(rng.random(shape), axes).shape == expected


@pytest.mark.parametrize(("shape", "axes"), [((4, 8, 8), "cyx"), ((2, 5, 8, 8), None), ((8,), None), ((3, 8, 8), "yx")])
def test_channels_that_mean_nothing_are_refused(shape, axes):
    with pytest.raises(DataError, match=r"channels; expected 1|cannot have axes"):
        to_grey(np.zeros(shape), axes)


def test_percentiles_of_the_whole_series():
    ramp = np.linspace(100, 1100, 64 * 50).reshape(64, 50)
    stack = Stack(np.stack([ramp, ramp + 2000]), "tyx")
    scale = SeriesNormalisation.fit(stack, (10, 90))
    expected = np.percentile(stack.data, (10, 90))
    np.testing.assert_allclose((scale.low, scale.high), expected, rtol=1e-9)  # small enough to be taken whole
    np.testing.assert_allclose(scale.apply(np.array(expected)), [0, 1], atol=1e-6)


def test_the_sample_is_bounded_deterministic_and_good(rng, monkeypatch):
    monkeypatch.setattr("seg.preprocess.SAMPLED_VALUES", 20_000)
    stack = Stack(rng.normal(500, 40, (40, 97, 103)).astype(np.float32), "tyx")
    first = SeriesNormalisation.fit(stack, (5, 95))
    assert first == SeriesNormalisation.fit(stack, (5, 95))
    # Normal quantiles; the standard error of the 5 % quantile of 20 000 draws is sqrt(p q / n) / pdf = 0.6 counts
    np.testing.assert_allclose((first.low, first.high), (500 - 1.645 * 40, 500 + 1.645 * 40), atol=2.5)
    assert SAMPLED_VALUES > 1_000_000


def test_a_volume_is_sampled_plane_by_plane():
    class Lazy:
        shape, dtype = (200, 300, 400), np.dtype(np.uint16)
        read = 0

        def __getitem__(self, index):
            assert isinstance(index[0], int)
            self.read += 1
            return np.full((300, 400), index[0], np.uint16)

    lazy = Lazy()
    scale = SeriesNormalisation.fit(Stack(lazy, "zyx"), (0, 100))
    assert (scale.low, scale.high) == (0, 199)  # the first and the last plane are among them
    assert lazy.read <= 64


def test_values_outside_are_clipped_and_inside_are_linear():
    scale = SeriesNormalisation(100, 300)
    values = scale.apply(np.array([[-9000, 0, 100, 150, 300, 380, 60000]], np.int32))
    np.testing.assert_allclose(values, [[-0.5, -0.5, 0, 0.25, 1, 1.4, 1.5]], atol=1e-6)
    assert values.dtype == np.float32


def test_small_differences_on_a_large_offset_survive():
    values = 1e9 + np.arange(5.0)  # float32 steps are 64 there
    scale = SeriesNormalisation.fit(Stack(values[None], "yx"), (0, 100))
    np.testing.assert_allclose(scale.apply(values), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_blank_series_becomes_zero_and_says_so(dtype, caplog):
    stack = Stack(np.full((3, 8, 9), 7, dtype), "tyx", name="dark")
    scale = SeriesNormalisation.fit(stack)
    assert "'dark' is constant" in caplog.text
    assert np.array_equal(scale.apply(stack.frame(0)), np.zeros((8, 9), np.float32))


def test_few_bright_pixels_on_a_constant_ground_are_kept(caplog):
    frame = np.zeros((100, 100), np.uint8)
    frame[50, 50:54] = 200  # less than the upper 0.5 %
    with caplog.at_level(logging.WARNING):
        scale = SeriesNormalisation.fit(Stack(frame, "yx"))
    assert (scale.low, scale.high) == (0, 200)
    assert "normalised by the extremes" in caplog.text


def test_nan_is_refused_by_name():
    frame = np.ones((2, 8, 8), np.float32)
    frame[1, 3, 3:5] = [np.nan, np.inf]
    with pytest.raises(DataError, match=r"Frame 1 of 'bad' holds 2 NaN or infinite value\(s\) of 64"):
        SeriesNormalisation.fit(Stack(frame, "tyx", name="bad"))
    assert require_finite(np.zeros(3, np.uint8), "x").shape == (3,)


def test_percentiles_are_checked():
    with pytest.raises(ValueError, match="expected 0 <= low < high <= 100"):
        SeriesNormalisation.fit(Stack(np.zeros((4, 4)), "yx"), (90, 10))


@pytest.mark.parametrize("axes", ["yx", "zyx", "tzyx", "tcyx", "czyx", "tczyx"])
def test_read_grey_reads_parts(axes, rng):
    sizes = {"t": 2, "c": 3, "z": 4, "y": 6, "x": 5}
    data = rng.random([sizes[axis] for axis in axes])
    stack = Stack(data, axes)
    frame = stack.n_frames - 1
    whole = to_grey(stack.frame(frame), axes.replace("t", ""))
    np.testing.assert_allclose(read_grey(stack, frame), whole, rtol=1e-6)
    np.testing.assert_allclose(read_grey(stack, frame, rows=slice(2, 5)), whole[..., 2:5, :], rtol=1e-6)
    if "z" in axes:
        np.testing.assert_allclose(read_grey(stack, frame, z=3), whole[3], rtol=1e-6)
        np.testing.assert_allclose(read_grey(stack, frame, z=slice(1, 3)), whole[1:3], rtol=1e-6)
