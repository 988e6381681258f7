"""Filtered intensities of a frame at several scales, by which a pixel classifier tells classes apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from seg.errors import DataError
from seg.preprocess import require_finite

# Scales of the filters, in pixels of the finest axis. Volumes stop earlier: the halo of a tile grows with the cube.
DEFAULT_SIGMAS = {2: (1.0, 2.0, 4.0, 8.0), 3: (1.0, 2.0, 4.0)}
_TRUNCATE = 3.0


def feature_names(ndim: int, sigmas: Sequence[float] | None = None) -> tuple[str, ...]:
    """Names of the rows of `features`."""
    names = ["intensity"]
    for sigma in sigmas_of(ndim, sigmas):
        kinds = ["gaussian", "gradient_magnitude", "laplacian", "local_std"]
        kinds += [f"hessian_eigenvalue_{n}" for n in range(ndim)]
        kinds += [f"structure_tensor_eigenvalue_{n}" for n in range(ndim)]
        names += [f"{kind}_{sigma:g}" for kind in kinds]
    return tuple(names)


def features(
    image: np.ndarray, *, spacing: Sequence[float], sigmas: Sequence[float] | None = None, workers: int = 2
) -> np.ndarray:
    """Filtered intensities that tell classes apart, computed once per frame and kept by the caller.

    Parameters
    ----------
    image : ndarray, shape ([Z,] Y, X)
        Grey values on the scale of the series (`seg.preprocess.SeriesNormalisation`), so that a forest fitted on one
        frame holds for the others.
    spacing : sequence of float
        Pixel size in axis order, any unit: only ratios matter. ``(1, 1)`` where it is unknown.
    sigmas : sequence of float or None
        Scales in pixels of the finest axis; None takes `DEFAULT_SIGMAS`.
    workers : int
        Threads, one scale each.

    Returns
    -------
    ndarray of float32, shape (F, [Z,] Y, X)
        Rows as `feature_names`: the intensity, and per scale the Gaussian, the gradient magnitude, the Laplacian, the
        local standard deviation, and the eigenvalues of the Hessian and of the structure tensor, smallest first.

    Notes
    -----
    Gaussians end at three sigma; derivatives are central differences of the Gaussian, so they hold on axes that are
    coarser than the scale. The image is mirrored at its border.
    """
    sigmas = sigmas_of(image.ndim, sigmas)
    step = _steps(spacing, image.ndim)
    grey = require_finite(np.asarray(image), "The image").astype(np.float32, copy=False)
    per_sigma = 4 + 2 * image.ndim
    found = np.empty((1 + per_sigma * len(sigmas), *grey.shape), np.float32)
    found[0] = grey
    parts = [found[1 + n * per_sigma :][:per_sigma] for n in range(len(sigmas))]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        # coarse scales take longest: they start first
        jobs = [pool.submit(_scale, grey, sigma, step, out) for sigma, out in zip(sigmas, parts, strict=True)][::-1]
        for job in jobs:
            job.result()
    return found


def _scale(grey: np.ndarray, sigma: float, step: tuple[float, ...], out: np.ndarray) -> None:
    """Fill `out` with the features of one scale."""
    widths = [sigma / h for h in step]
    ndim = grey.ndim

    def smooth(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, widths, truncate=_TRUNCATE, mode="reflect")

    blurred = smooth(grey)
    slopes = [_difference(blurred, (-0.5, 0.0, 0.5), axis, h) for axis, h in enumerate(step)]
    hessian = {}
    for i, j in itertools.combinations_with_replacement(range(ndim), 2):
        if i == j:
            hessian[i, j] = _difference(blurred, (1.0, -2.0, 1.0), i, step[i] ** 2)
        else:
            hessian[i, j] = _difference(slopes[i], (-0.5, 0.0, 0.5), j, step[j])
    tensor = {pair: smooth(slopes[pair[0]] * slopes[pair[1]]) for pair in hessian}
    out[0] = blurred
    np.sqrt(sum(slope**2 for slope in slopes), out=out[1])
    out[2] = sum(hessian[i, i] for i in range(ndim))
    np.sqrt(np.maximum(smooth(grey * grey) - blurred * blurred, 0), out=out[3])
    out[4 : 4 + ndim] = _eigenvalues(hessian, ndim)
    out[4 + ndim :] = _eigenvalues(tensor, ndim)


def _difference(values: np.ndarray, weights: Sequence[float], axis: int, divisor: float) -> np.ndarray:
    return ndimage.correlate1d(values, np.array(weights) / divisor, axis=axis, mode="reflect")


def _eigenvalues(matrix: dict[tuple[int, int], np.ndarray], ndim: int) -> list[np.ndarray]:
    """Eigenvalues, ascending, of the symmetric matrices whose upper triangle is given, in closed form."""
    if ndim == 2:
        mean = (matrix[0, 0] + matrix[1, 1]) / 2
        radius = np.hypot((matrix[0, 0] - matrix[1, 1]) / 2, matrix[0, 1])
        return [mean - radius, mean + radius]
    # Smith, O. K. (1961). Eigenvalues of a symmetric 3 x 3 matrix. Commun. ACM 4, 168.
    mean = (matrix[0, 0] + matrix[1, 1] + matrix[2, 2]) / 3
    a, b, c = (matrix[i, i] - mean for i in range(3))
    d, e, f = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    spread = np.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    cube = 2 * spread**3
    ratio = np.divide(determinant, cube, out=np.zeros_like(cube), where=cube > 0)
    angle = np.arccos(np.clip(ratio, -1, 1)) / 3
    largest = mean + 2 * spread * np.cos(angle)
    smallest = mean + 2 * spread * np.cos(angle + np.float32(2 * math.pi / 3))
    return [smallest, 3 * mean - largest - smallest, largest]


def sigmas_of(ndim: int, sigmas: Sequence[float] | None) -> tuple[float, ...]:
    """The scales asked for, or `DEFAULT_SIGMAS`."""
    if ndim not in DEFAULT_SIGMAS:
        raise DataError(f"The forest works on images (Y, X) and volumes (Z, Y, X), not on {ndim} dimensions.")
    chosen = DEFAULT_SIGMAS[ndim] if sigmas is None else tuple(float(s) for s in sigmas)
    if not chosen or not all(math.isfinite(s) and s > 0 for s in chosen):
        raise ValueError(f"sigmas is {sigmas!r}; expected one or more positive numbers of pixels.")
    return chosen


def _steps(spacing: Sequence[float], ndim: int) -> tuple[float, ...]:
    """Pixel size along each axis in units of the finest."""
    if len(spacing) != ndim or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ValueError(f"spacing is {spacing!r}; expected {ndim} positive pixel sizes, in axis order.")
    return tuple(s / min(spacing) for s in spacing)


def reach_px(sigmas: Sequence[float], spacing: Sequence[float], ndim: int) -> tuple[int, ...]:
    """How far a feature sees along each axis, two Gaussians and two differences."""
    return tuple(2 * int(_TRUNCATE * max(sigmas) / h + 0.5) + 2 for h in _steps(spacing, ndim))
