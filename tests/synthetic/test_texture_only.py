"""Where classes differ by texture alone, a threshold must be blind; on the ordinary twins it must see."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from seg.synthetic import FAMILIES, make_experiment

# Every family at the size where objects hold enough grains of texture for their mean to settle.
OPTIONS = {"interface": {"shape_px": (64, 96, 96)}}


def informedness(image, labels):
    """Of each class with at least 1 % of the pixels: its share above the threshold less that of the rest.

    0 is chance for any share of the class (twice the balanced accuracy less 1), +-1 a perfect mask; a blur of 1 px
    comes first, as in the floors of threshold methods.
    """
    smooth = ndimage.gaussian_filter(image.astype(float), 1)
    valid = labels != 10
    above = smooth > threshold_otsu(smooth[valid])
    found = {}
    for value in np.unique(labels[valid]):
        mine = labels == value
        if mine.sum() >= 0.01 * valid.sum():
            found[int(value)] = above[mine].mean() - above[valid & ~mine].mean()
    return found


def scores(family, *, texture_only, seeds=(1, 2, 3)):
    """Mean over seeds of the largest |informedness|, and of each class with its sign."""
    largest, signed = [], {}
    for seed in seeds:
        made = make_experiment(family, seed, texture_only=texture_only, dial=0.25, **OPTIONS.get(family, {}))
        frame = made.images.n_frames * 6 // 10
        found = informedness(made.images.frame(frame), made.labels.frame(frame))
        largest.append(max(abs(v) for v in found.values()))
        for key, value in found.items():
            signed.setdefault(key, []).append(value)
    return float(np.mean(largest)), {key: float(np.mean(v)) for key, v in signed.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_otsu_is_blind_to_texture(family):
    largest, signed = scores(family, texture_only=True)
    # Single images scatter with the few grains of a small object; the sign must not be predictable.
    assert largest < 0.2
    assert max(abs(v) for v in signed.values()) < 0.12


@pytest.mark.parametrize("family", FAMILIES)
def test_otsu_sees_grey_levels(family):
    assert scores(family, texture_only=False, seeds=(1,))[0] > 0.5
