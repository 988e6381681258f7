"""A threshold after smoothing: the mask that needs no labels, which a model has to beat."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi


def otsu_labels(
    image: np.ndarray, sigma_px: float, *, foreground: int = 3, background: int = 1, bright: bool = True
) -> np.ndarray:
    """Threshold an image after Gaussian smoothing: the baseline a model has to beat.

    Parameters
    ----------
    image : ndarray, shape ([Z,] Y, X)
        Grey values.
    sigma_px : float
        Standard deviation of the smoothing.
    foreground, background : int
        Label values of the two sides.
    bright : bool
        The foreground is the brighter side.

    Returns
    -------
    ndarray of uint8, shape of `image`
        An image of one grey value is all background.
    """
    from skimage.filters import threshold_otsu

    smooth = ndi.gaussian_filter(np.asarray(image, np.float32), sigma_px)
    labels = np.full(smooth.shape, background, np.uint8)
    if smooth.min() < smooth.max():
        above = smooth > threshold_otsu(smooth)
        labels[above if bright else ~above] = foreground
    return labels
