"""What the inside of an interphase looks like: where lattice fringes run, and whether they lie in a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve

# Window of the oriented filters (Gaussian), and how many directions they look along.
WINDOW_PX, DIRECTIONS = 2.0, 12
# Fringes closer than this cannot be told from noise.
MIN_PERIOD_PX = 2.5
# Geometric mean of the strength in the bright class over that in the dark one, when the strengths are split in two: 1.5
# to 1.75 where the shell is amorphous throughout, whatever the noise; more where there are fringes.
AMORPHOUS_CONTRAST, CRYSTALLINE_CONTRAST = 1.76, 1.85
# An amorphous shell is believed where fringes this strong, as a share of the contrast between core and shell, would
# have been seen; above it noise may hide them.
MAX_HIDDEN = 0.15
MIN_PIXELS = 400
# Variance of the crystalline share over the depth, in units of the largest possible: noise below, a layer above.
LAYERED_INDEX = 0.10
DEPTH_BINS = 4


@dataclass(frozen=True)
class Texture:
    """Crystalline parts of a shell.

    Parameters
    ----------
    fraction, low, high : float
        Share of the shell with fringes; NaN where noise may hide or feign them.
    contrast : float
        How much stronger fringes are than the rest.
    crystalline : ndarray of bool
        Where; shape of the image.
    layering : float
        0: the share is the same at every depth; 1: all or nothing.
    """

    fraction: float
    low: float
    high: float
    contrast: float
    crystalline: np.ndarray
    layering: float


def fringe_strength(image: np.ndarray, mask: np.ndarray, *, periods_px: Sequence[float]) -> np.ndarray:
    """Amplitude of the strongest fringes around each pixel of a mask; 0 outside.

    Parameters
    ----------
    image : ndarray of float, shape (Y, X)
    mask : ndarray of bool, shape (Y, X)
        Only what lies inside is looked at, so that the edges of a shell are no fringes.
    periods_px : sequence of float
    """
    weight = ndimage.gaussian_filter(mask.astype(float), 2 * WINDOW_PX)
    level = ndimage.gaussian_filter(np.where(mask, image, 0.0), 2 * WINDOW_PX) / np.maximum(weight, 1e-6)
    detail = np.where(mask, image - level, 0.0)
    reach = math.ceil(3 * WINDOW_PX)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    window = np.exp(-(y**2 + x**2) / (2 * WINDOW_PX**2))
    window /= window.sum()
    # Near an edge the window holds fewer pixels, and less noise to add up.
    power = np.sqrt(np.maximum(fftconvolve(mask.astype(float), window**2, mode="same"), 1e-9))
    strongest = np.zeros(image.shape)
    for period in periods_px:
        for turn in np.arange(DIRECTIONS) * math.pi / DIRECTIONS:
            wave = window * np.exp(2j * math.pi / period * (y * math.sin(turn) + x * math.cos(turn)))
            strongest = np.maximum(strongest, np.abs(fftconvolve(detail, wave, mode="same")) / power)
    return np.where(mask, strongest, 0.0)


def shell_texture(
    image: np.ndarray, shell: np.ndarray, core: np.ndarray, *, periods_px: Sequence[float]
) -> Texture | None:
    """Find the crystalline parts of a shell by their lattice fringes.

    Parameters
    ----------
    image : ndarray of float, shape (Y, X)
    shell, core : ndarray of bool, shape (Y, X)
    periods_px : sequence of float
        Distances of the fringes to look for.

    Returns
    -------
    Texture or None
        None where the shell has too few pixels, or no period can be resolved.

    Notes
    -----
    The strength of the fringes around each pixel is split in two classes (Otsu). Noise alone gives two classes whose
    means differ by a factor of 1.5 to 1.75: below that the shell is amorphous if noise is low enough to have shown
    fringes of 15 % of the contrast between core and shell, else nothing can be said; the upper bound is the share that
    the split would have given. The layering index is the variance of the crystalline share over
    the depth in the shell, over the ``p (1 - p)`` of a layer with sharp borders.
    """
    from skimage.filters import threshold_otsu

    periods = [p for p in periods_px if p >= MIN_PERIOD_PX]
    if np.count_nonzero(shell) < MIN_PIXELS or not periods or not core.any():
        return None
    strength = fringe_strength(image, shell, periods_px=periods)
    inside = strength[shell]
    if inside.max() <= 0:
        return Texture(0.0, 0.0, 0.0, 1.0, np.zeros(shell.shape, bool), math.nan)
    logs = np.log(np.maximum(inside, inside[inside > 0].min()))
    upper = logs > threshold_otsu(logs)
    contrast = float(np.exp(logs[upper].mean() - logs[~upper].mean()))
    level = threshold_otsu(inside)
    crystalline = strength > level
    share = float(np.mean(inside > level))
    if contrast < CRYSTALLINE_CONTRAST:
        hidden = 2 * np.median(inside) / _response() / max(abs(image[core].mean() - image[shell].mean()), 1e-12)
        believed = contrast < AMORPHOUS_CONTRAST and hidden < MAX_HIDDEN
        return Texture(0.0 if believed else math.nan, 0.0, share, contrast, np.zeros(shell.shape, bool), math.nan)
    # Where the level between both classes lies is known to a fifth of their distance (grains of a few pixels).
    dark, bright = inside[inside <= level].mean(), inside[inside > level].mean()
    low, high = (float(np.mean(inside > level + s * 0.2 * (bright - dark))) for s in (1, -1))
    return Texture(share, low, high, contrast, crystalline, layering(crystalline, shell, core))


def _response() -> float:
    """Strength that fringes of amplitude 1 give."""
    reach = math.ceil(3 * WINDOW_PX)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    window = np.exp(-(y**2 + x**2) / (2 * WINDOW_PX**2))
    return float(0.5 * window.sum() / np.sqrt((window**2).sum()))


def layering(crystalline: np.ndarray, shell: np.ndarray, core: np.ndarray) -> float:
    """Variance of the crystalline share over the depth in the shell, over that of a sharp layer."""
    depth = shell_depth(shell, core)[shell]
    bins = np.clip((depth * DEPTH_BINS).astype(int), 0, DEPTH_BINS - 1)
    counts = np.bincount(bins, minlength=DEPTH_BINS).astype(float)
    here = np.bincount(bins, crystalline[shell], DEPTH_BINS)
    mean = here.sum() / counts.sum()
    if mean in (0.0, 1.0):
        return math.nan
    shares = here[counts > 0] / counts[counts > 0]
    variance = float(np.average((shares - mean) ** 2, weights=counts[counts > 0]))
    return variance / (mean * (1 - mean))


def shell_depth(shell: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Depth in a shell from 0 at the core to 1 at the outer face."""
    inner, outer = ndimage.distance_transform_edt(~core), ndimage.distance_transform_edt(shell | core)
    return inner / np.maximum(inner + outer, 1e-9)


def texture_name(found: Texture, shell: np.ndarray, core: np.ndarray, *, rng: np.random.Generator) -> tuple[str, float]:
    """Amorphous, mosaic or layered, and how probable that is: the share of resampled shells that are judged the same.

    Patches of the shell (squares about two thicknesses wide) are what is resampled.
    """
    if found.fraction == 0:
        # How far below the limit the contrast lies, over the spread of it among amorphous shells.
        return "amorphous", float(np.clip(0.5 + (AMORPHOUS_CONTRAST - found.contrast) / 0.2, 0.5, 0.99))
    name = "layered" if found.layering > LAYERED_INDEX else "mosaic"
    edge = max(8, round(4 * float(ndimage.distance_transform_edt(shell).max())))
    at = np.nonzero(shell)
    patch = np.ravel_multi_index([i // edge for i in at], [-(-n // edge) for n in shell.shape])
    _, patch = np.unique(patch, return_inverse=True)
    bins = np.clip((shell_depth(shell, core)[at] * DEPTH_BINS).astype(int), 0, DEPTH_BINS - 1)
    n = int(patch.max()) + 1
    counts, here = (
        np.bincount(patch * DEPTH_BINS + bins, w, n * DEPTH_BINS).reshape(n, DEPTH_BINS)
        for w in (None, found.crystalline[at].astype(float))
    )
    draws = rng.integers(0, n, (400, n))
    total, bright = counts[draws].sum(axis=1).astype(float), here[draws].sum(axis=1)
    mean = bright.sum(axis=1) / total.sum(axis=1)
    shares = bright / np.maximum(total, 1)
    variance = np.sum(total * (shares - mean[:, None]) ** 2, axis=1) / total.sum(axis=1)
    index = variance / np.maximum(mean * (1 - mean), 1e-9)
    same = np.mean((index > LAYERED_INDEX) == (name == "layered"))
    return name, float(same)


def contrast_to_noise(image: np.ndarray, shell: np.ndarray, outside: np.ndarray) -> float:
    """Difference of grey level between a shell and what lies against it, over the noise of both after a blur of 2 px.

    Parameters
    ----------
    image : ndarray of float, shape (Y, X)
    shell, outside : ndarray of bool, shape (Y, X)
        Of `outside` the ring within 12 px of the shell is used; 2 px on either side of the boundary are left out.

    Returns
    -------
    float
        NaN where either has fewer than 50 pixels left.
    """
    ring = outside & ndimage.binary_dilation(shell, iterations=12)
    levels = []
    for mask in (ndimage.binary_erosion(shell, iterations=2), ring & ~ndimage.binary_dilation(shell, iterations=2)):
        if np.count_nonzero(mask) < 50:
            return math.nan
        weight = ndimage.gaussian_filter(mask.astype(float), 2.0)
        smooth = ndimage.gaussian_filter(np.where(mask, image, 0.0), 2.0) / np.maximum(weight, 1e-6)
        levels.append((float(image[mask].mean()), float(smooth[mask].std())))
    (one, noise), (other, other_noise) = levels
    return abs(one - other) / max(math.hypot(noise, other_noise) / math.sqrt(2), 1e-12)
