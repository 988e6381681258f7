"""What masks get wrong at an outline: nothing, its place, its course, or what blur and noise make of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from seg.uncertainty import OUTLINE_OFFSET_PX

Fault = Callable[[np.ndarray], np.ndarray]

ROUGH_SD_PX, ROUGH_LENGTH_PX = 0.7, 2.0
BLUR_PX, NOISE_SD, LEVEL_SD = 1.5, 0.25, 0.05


def _exact(rng: np.random.Generator) -> Fault:
    return lambda level: level > 0


def _offset(rng: np.random.Generator) -> Fault:
    offset_px = rng.normal(0, OUTLINE_OFFSET_PX)
    return lambda level: level + offset_px > 0


def _rough(rng: np.random.Generator) -> Fault:
    return lambda level: level + ROUGH_SD_PX * _field(level.shape, ROUGH_LENGTH_PX, rng) > 0


def _blurred(rng: np.random.Generator) -> Fault:
    threshold = 0.5 + rng.normal(0, LEVEL_SD)

    def threshold_image(level: np.ndarray) -> np.ndarray:
        seen = np.clip(level + 0.5, 0, 1) + NOISE_SD * rng.standard_normal(level.shape)
        return np.asarray(gaussian_filter(seen, BLUR_PX) > threshold)

    return threshold_image


FAULTS: dict[str, Callable[[np.random.Generator], Fault]] = {
    "exact": _exact,
    "offset": _offset,
    "rough": _rough,
    "blurred": _blurred,
}
"""Name -> a fault drawn once for a twin. A fault turns the signed distance to an outline (px, positive inside, at the
centres of the pixels) into a mask; what is common to all frames of a twin, such as an offset, is drawn with it.

``exact``
    A pixel is inside where its centre is.
``offset``
    The outline is moved out or in by one distance all along, standard deviation 0.25 px: what intervals allow for.
``rough``
    It wanders by 0.7 px (standard deviation), correlated over 2 px.
``blurred``
    An image of contrast 1 and noise 0.25, blurred by 1.5 px, is cut at a level that is 0.05 off (standard deviation).
"""


def _field(shape: tuple[int, ...], length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth Gaussian noise of unit variance."""
    field = gaussian_filter(rng.standard_normal(shape), length_px, mode="wrap")
    # White noise loses this factor of its standard deviation to a Gaussian of that width.
    return np.asarray(field * (2 * np.sqrt(np.pi) * length_px) ** (len(shape) / 2))
