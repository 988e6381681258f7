"""Boundaries to a fraction of a pixel: crack points of a mask moved to where the grey value is half-way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from seg.metrics.interface import CrackPoints

# Grey values of either side are taken between these distances from the boundary, averaged over some pixels along it.
BAND_PX, ALONG_PX = (0.8, 3.5), 5.0
BLUR_PX, REACH_PX, STEP_PX = 1.0, 2.5, 0.25
# A step in grey value counts where it is this many times the noise of the blurred image.
MIN_CONTRAST = 3.0
# How well the level of half-way is known: position of the boundary, pixels (standard error, common to all points).
LEVEL_ERROR_PX = 0.1


@dataclass(frozen=True)
class Refined:
    """Boundary points found in an image, the share of the crack points that have one, and their median shift.

    ``centred`` are the same points without that shift.
    """

    cracks: CrackPoints
    centred: CrackPoints
    share: float
    median_shift_px: float


def refine_cracks(
    cracks: CrackPoints, inside: np.ndarray, outside: np.ndarray, image: np.ndarray, spacing: Sequence[float], *,
    origin: Sequence[int] | None = None, level_error_px: float = LEVEL_ERROR_PX,
) -> Refined:  # fmt: skip
    """Move the crack points between two regions to the level half-way between the grey values of both sides.

    Parameters
    ----------
    cracks : CrackPoints
    inside, outside : ndarray of bool, shape ([Z,] Y, X)
    image : ndarray of float, shape ([Z,] Y, X)
    spacing : sequence of float
    origin : sequence of int, optional
        Index of the first pixel, where the arrays were cut out of a larger frame.
    level_error_px : float
        Standard error of the position that all points share.

    Notes
    -----
    The grey values of both sides are local: means over 0.8 to 3.5 px from the boundary, and over about 5 px along it,
    so that uneven light and thickness contrast hardly shift the level. The level is looked for within 2.5 px along the
    normal in the image blurred by one pixel; points without a credible step, or without a crossing, are left out.
    """
    scale = np.asarray(spacing, float)
    first = np.zeros(len(scale)) if origin is None else np.asarray(origin, float)
    at = cracks.position / scale - first
    smooth = ndimage.gaussian_filter(image.astype(np.float32), BLUR_PX)
    levels, spreads = [], []
    for side, other in ((inside, outside), (outside, inside)):
        level, spread = _side(image, side, other, at)
        levels.append(level)
        spreads.append(spread)
    with np.errstate(invalid="ignore"):
        # Blurring by a Gaussian of s pixels lowers independent noise by 2 s sqrt(pi).
        noise = np.hypot(*spreads) / np.sqrt(2) / (2 * BLUR_PX * np.sqrt(np.pi))
        contrast = levels[1] - levels[0]
        usual = np.sign(np.nanmedian(contrast)) if np.isfinite(contrast).any() else 0.0
        credible = (np.abs(contrast) > MIN_CONTRAST * noise) & (np.sign(contrast) == usual)
    normal = _normals(inside, at, cracks.direction)
    steps = np.arange(-REACH_PX, REACH_PX + STEP_PX / 2, STEP_PX)
    where = at[:, None] + steps[:, None] * normal[:, None]
    profile = ndimage.map_coordinates(smooth, np.moveaxis(where, -1, 0), order=1, mode="nearest")
    # Rising from inside to outside, zero at the level.
    profile = (profile - (levels[0] + levels[1])[:, None] / 2) * usual
    shift = _crossing(profile, steps)
    kept = credible & np.isfinite(shift)
    if not kept.any():
        return Refined(cracks[kept], cracks[kept], 0.0, np.nan)
    at, normal, shift, direction = at[kept], normal[kept], shift[kept], cracks.direction[kept]
    median = float(np.median(shift))
    found, centred = (
        CrackPoints((at + by[:, None] * normal + first) * scale, direction, grain_px=level_error_px)
        for by in (shift, shift - median)
    )
    return Refined(found, centred, float(kept.mean()), median)


def _side(
    image: np.ndarray, side: np.ndarray, other: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Local mean and standard deviation of the image on one side, at positions in pixels; NaN far from the side."""
    away = ndimage.distance_transform_edt(~other) - 0.5
    band = side & (away >= BAND_PX[0]) & (away <= BAND_PX[1])
    weight = band.astype(np.float32)
    grey = image.astype(np.float32) - np.float32(image[band].mean() if band.any() else 0.0)
    sums = [
        ndimage.map_coordinates(ndimage.gaussian_filter(values * weight, ALONG_PX), at.T, order=1, mode="nearest")
        for values in (np.ones_like(grey), grey, grey**2)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        enough = sums[0] > 1e-3
        mean = np.where(enough, sums[1] / sums[0], np.nan)
        spread = np.sqrt(np.maximum(np.where(enough, sums[2] / sums[0], np.nan) - mean**2, 0))
    return mean + (float(image[band].mean()) if band.any() else 0.0), spread


def _normals(inside: np.ndarray, at: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Unit vectors out of a region in pixel coordinates, from the blurred mask; the crack's own step where flat."""
    blurred = ndimage.gaussian_filter(inside.astype(np.float32), 2.0)
    gradient = np.stack(
        [ndimage.map_coordinates(-g, at.T, order=1, mode="nearest") for g in np.gradient(blurred)], axis=1
    )  # fmt: skip
    length = np.linalg.norm(gradient, axis=1, keepdims=True)
    return np.where(length > 1e-3, gradient / np.maximum(length, 1e-3), direction)


def _crossing(profile: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Place nearest to zero where each row of a profile rises through zero; NaN where it does not."""
    below, above = profile[:, :-1], profile[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        place = steps[:-1] + (steps[1] - steps[0]) * below / (below - above)
        place = np.where((below <= 0) & (above > 0), place, np.inf)
    nearest = np.argmin(np.abs(place), axis=1)
    found = place[np.arange(len(place)), nearest]
    return np.where(np.isfinite(found), found, np.nan)
