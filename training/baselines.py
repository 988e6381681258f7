"""What needs no network: a threshold, a watershed and a forest on pixels, fitted to the same training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from seg.forest import features, fit_pixels, predict_image
from seg.labels import LabelClass, LabelSchema
from training.sources import LabelledImage

Predictor = Callable[[np.ndarray], np.ndarray]
"""Normalised image ([Z,] Y, X) -> codes of `training.label_codes`, same shape."""

_SIGMA_PX = 1.0
_IMAGES = 12  # of the training images, so many are looked at
_FOREST_PIXELS = 24_000


def fit_otsu(trained: Sequence[LabelledImage], seed: int) -> Predictor:
    """A threshold after a Gaussian of 1 px, image by image; either side gets the code that fits the training images."""
    return _two_sided(_above_otsu, trained, seed)


def fit_watershed(trained: Sequence[LabelledImage], seed: int) -> Predictor:
    """Watershed of the gradient from seeds well above and below the threshold; either side gets the code that fits."""
    return _two_sided(_above_watershed, trained, seed)


def fit_pixel_forest(trained: Sequence[LabelledImage], seed: int) -> Predictor:
    """`seg.forest` on pixels drawn evenly from the classes of each training image."""
    rng = np.random.default_rng(seed)
    images = _some(trained, rng)
    tables, labels = [], []
    for item in images:
        planes = features(item.image.astype(np.float32), spacing=(1.0,) * item.image.ndim)
        flat, codes = planes.reshape(len(planes), -1), item.codes.ravel()
        present = [code for code in np.unique(codes) if code]
        for code in present:
            place = np.flatnonzero(codes == code)
            n = min(len(place), _FOREST_PIXELS // (len(images) * len(present)))
            place = rng.choice(place, n, replace=False)
            tables.append(flat[:, place].T)
            labels.append(codes[place])
    label = np.concatenate(labels)
    schema = LabelSchema("codes", tuple(LabelClass(int(c), f"code {c}", "#808080") for c in np.unique(label)))
    forest = fit_pixels(np.concatenate(tables), label, schema, ndim=images[0].image.ndim, seed=seed)

    def predict(image: np.ndarray) -> np.ndarray:
        return predict_image(forest, image.astype(np.float32), spacing=(1.0,) * image.ndim).labels

    return predict


BASELINES: dict[str, Callable[[Sequence[LabelledImage], int], Predictor]] = {
    "otsu": fit_otsu,
    "watershed": fit_watershed,
    "forest": fit_pixel_forest,
}
"""Name -> function that fits to training images (at least one, two codes in them) with a seed."""


def _some(trained: Sequence[LabelledImage], rng: np.random.Generator) -> list[LabelledImage]:
    """As many labelled images as are looked at, from all specimens by turns."""
    labelled = [item for item in trained if item.codes.any()]
    order = [labelled[i] for i in rng.permutation(len(labelled))]
    turn: dict[str, int] = {}
    ranked = []
    for item in order:
        turn[item.specimen] = turn.get(item.specimen, 0) + 1
        ranked.append((turn[item.specimen], len(ranked), item))
    return [item for _, _, item in sorted(ranked, key=lambda r: r[:2])[:_IMAGES]]


def _two_sided(above: Predictor, trained: Sequence[LabelledImage], seed: int) -> Predictor:
    """Codes of the two sides that `above` tells apart: the two different ones with the largest sum of IoU."""
    images = _some(trained, np.random.default_rng(seed))
    n_codes = max(int(item.codes.max()) for item in images) + 1
    counts = np.zeros((2, n_codes))
    for item in images:
        counts += np.stack([np.bincount(item.codes[side], minlength=n_codes) for side in _sides(above(item.image))])
    counts[:, 0] = 0  # unlabelled
    total = counts.sum(axis=0)
    union = counts.sum(axis=1, keepdims=True) + total - counts
    iou = np.divide(counts, union, out=np.zeros_like(counts), where=union > 0)
    held = np.flatnonzero(total)
    below_code, above_code = max(
        ((low, high) for low in held for high in held if low != high),
        key=lambda pair: iou[0, pair[0]] + iou[1, pair[1]],
    )

    def predict(image: np.ndarray) -> np.ndarray:
        return np.where(above(image), above_code, below_code).astype(np.uint8)

    return predict


def _sides(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return ~mask, mask


def _smooth(image: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(image.astype(np.float32), _SIGMA_PX)


def _above_otsu(image: np.ndarray) -> np.ndarray:
    smooth = _smooth(image)
    if smooth.min() == smooth.max():
        return np.zeros(smooth.shape, bool)
    return smooth > threshold_otsu(smooth)


def _above_watershed(image: np.ndarray) -> np.ndarray:
    smooth = _smooth(image)
    above = _above_otsu(image)
    if not above.any():
        return above
    level = threshold_otsu(smooth)
    # Seeds: beyond half the way from the threshold to the mean of either side.
    low, high = (level + smooth[~above].mean()) / 2, (level + smooth[above].mean()) / 2
    seeds = np.where(smooth > high, 2, np.where(smooth < low, 1, 0))
    slope = ndimage.gaussian_gradient_magnitude(image.astype(np.float32), _SIGMA_PX)
    return watershed(slope, seeds) == 2
