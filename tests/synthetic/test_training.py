import time

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from seg.errors import UsageError
from seg.synthetic import training
from seg.synthetic.training import training_sample
from seg.synthetic.training_scenes import SCENES


@pytest.mark.parametrize("modality", [None, *SCENES])
def test_image_and_labels(modality, rng, schema):
    for size_px in (64, 101, 256):
        image, labels = training_sample(rng, size_px=size_px, modality=modality)
        assert image.shape == labels.shape == (size_px, size_px)
        assert (image.dtype, labels.dtype) == (np.float32, np.uint8)
        assert 0 <= image.min() < image.max() <= 1
        schema.check(labels)
        assert labels.min() > 0


def test_same_generator_same_sample():
    one, two = (training_sample(np.random.default_rng(7), size_px=96) for _ in range(2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_every_class_turns_up(rng):
    seen = set()
    for _ in range(150):
        seen |= set(np.unique(training_sample(rng, size_px=96)[1]).tolist())
    assert seen == set(range(1, 11))


def test_grey_level_alone_tells_no_class(rng):
    """Over many samples, metal is brighter as often as darker than the ground, within the bias towards usual looks."""
    brighter = []
    for _ in range(120):
        image, labels = training_sample(rng, size_px=96)
        metal = np.isin(labels, (3, 4))
        if 0.02 < metal.mean() < 0.9:
            brighter.append(image[metal].mean() > image[~metal].mean())
    assert 0.3 < np.mean(brighter) < 0.75


def test_some_samples_hold_texture_only(rng, monkeypatch):
    monkeypatch.setattr(training, "TEXTURE_ONLY_SHARE", 1.0)
    found = []
    for _ in range(40):
        image, labels = training_sample(rng, size_px=160, modality="cryoem")
        mine = np.isin(labels, (3, 4, 8))
        if 0.1 < mine.mean() < 0.9:
            smooth = ndimage.gaussian_filter(image, 1)
            above = smooth > threshold_otsu(smooth)
            found.append(above[mine].mean() - above[~mine].mean())
    # uneven light and thin scenes, which keep their grey levels, leave some; a threshold is blind on average
    assert np.median(np.abs(found)) < 0.3


def test_is_fast_enough_to_feed_training(rng):
    training_sample(rng)
    start = time.process_time()
    for _ in range(20):
        training_sample(rng)
    # about 25 ms on an idle core; the bound leaves room for a busy machine
    assert (time.process_time() - start) / 20 < 0.2


def test_bad_requests_are_refused(rng):
    with pytest.raises(UsageError, match="xray"):
        training_sample(rng, modality="xray")
    with pytest.raises(ValueError, match="48 px"):
        training_sample(rng, size_px=20)
