import io

import numpy as np
import pytest
from PIL import Image

from seg.synthetic.fields import FIELDS, correlated_noise
from seg.synthetic.imaging import INSTRUMENTS, jpeg, poisson_gauss, to_uint8
from seg.synthetic.looks import Look, Material, Paint, View


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_mean_0_and_sd_1(name, rng):
    field = FIELDS[name](rng, (90, 110), 4.0)
    assert field.shape == (90, 110)
    assert field.dtype == np.float64
    # lines are no sample of a distribution: their mean depends on the phase
    assert field.mean() == pytest.approx(0, abs=0.05)
    assert field.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("length_px", [2.0, 6.0, 25.0])
def test_correlation_length(length_px, rng):
    """The correlation at a distance equal to the length is exp(-1): Gaussian of sd length / sqrt 2."""
    field = correlated_noise(rng, (400, 400), length_px)
    step = round(length_px)
    found = np.mean(field[:, step:] * field[:, :-step])
    assert found == pytest.approx(np.exp(-((step / length_px) ** 2)), abs=0.09)


def test_correlated_noise_in_three_dimensions(rng):
    field = correlated_noise(rng, (20, 30, 40), (1.0, 3.0, 9.0))
    assert field.shape == (20, 30, 40)
    along = [np.mean(np.diff(field, axis=axis) ** 2) for axis in range(3)]
    assert along[0] > along[1] > along[2]


def test_paint_mixes_by_coverage(rng):
    share = np.full((6, 7), 0.25)
    look = Look({1: Material(0.8, amplitude=0.0), 3: Material(0.2, amplitude=0.0)})
    view = View(np.ones((6, 7), np.uint8), {1: 1 - share, 3: share})
    np.testing.assert_allclose(Paint(look, (6, 7), rng)(view), 0.65)


def test_shot_noise_variance(rng):
    image = np.full((300, 300), 0.5)
    noisy = poisson_gauss(rng, image, electrons=400.0, read=0.01)
    # variance level / electrons + read^2, within 3 standard errors of a variance (sqrt(2 / n))
    assert noisy.var() == pytest.approx(0.5 / 400 + 1e-4, rel=3 * np.sqrt(2 / image.size))


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_higher_dial_is_further_from_the_truth(name, rng):
    image = 0.35 + 0.3 * (correlated_noise(rng, (96, 100), 12.0) > 0)
    errors = [
        np.std(INSTRUMENTS[name]((96, 100), 1, strength).expose(image, 0) - image) for strength in (0.0, 0.5, 1.0)
    ]
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_frames_differ_and_repeat(name):
    image = np.full((64, 70), 0.5)
    instrument = INSTRUMENTS[name]((64, 70), 3, 0.5)
    np.testing.assert_array_equal(instrument.expose(image, 4), INSTRUMENTS[name]((64, 70), 3, 0.5).expose(image, 4))
    assert (instrument.expose(image, 4) != instrument.expose(image, 5)).any()


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(to_uint8(np.array([-1.0, 0.0, 0.5, 1.0, 7.0])), [0, 0, 128, 255, 255])


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_is_that_of_a_jpeg_library(quality, rng):
    image = to_uint8(0.5 + 0.15 * correlated_noise(rng, (61, 75), 3.0))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), int)
    ours = to_uint8(jpeg(image / 255, quality)).astype(int)
    # The library's transforms are integers: off by a level here and there, and a coefficient between two multiples
    # may go either way, which changes its block. Its padding beyond the edge is its own.
    difference = np.abs(ours - decoded)[:56, :72]
    assert (difference > 1).mean() < 0.10
    assert difference.mean() < 0.25 * np.abs(decoded - image.astype(int)).mean()


def test_tomography_is_noisier_where_more_is_absorbed():
    """Variance proportional to 0.5 + level: 1.4 / 0.6 between levels 0.9 and 0.1 (contrast 0.91 at dial 0.3)."""
    flat = [np.full((200, 200), level) for level in (0.1, 0.9)]
    instrument = INSTRUMENTS["xct"]((200, 200), 1, 0.3)
    pairs = [instrument.expose(image, 4) - instrument.expose(image, 5) for image in flat]
    # ring flicker is in both
    ratio = pairs[1].var() / pairs[0].var()
    assert ratio == pytest.approx((0.5 + 0.864) / (0.5 + 0.136), rel=0.1)
