"""How far synthetic images are from real ones of the same kind: grey levels, noise spectrum, local texture.

Measured (grey / slope / fine): SEM 0.05 / 0.06 / 0.05, optical 0.19 / 1.9 / 0.15 (the real one is a dithered GIF, flat
in its spectrum), XCT 0.12 / 1.7 / 0.06 (the real one shows particles, not layers). The bounds hold that state.
"""

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wasserstein_distance
from skimage import io

from seg.synthetic import make_experiment

# Largest distances: grey levels (of 0..1), slope of the power spectrum, log10 of fine over total contrast.
BOUNDS = {"grey": 0.25, "slope": 2.2, "fine": 0.3}


def grey(image):
    """Image as floats, 1 % and 99 % percentile at 0 and 1."""
    image = np.asarray(image, float)
    image = image.mean(-1) if image.ndim == 3 else image
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / (high - low), 0, 1)


def spectrum_slope(image):
    """Slope of log power against log frequency, 0.03 to 0.35 cycles/px."""
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])[None]
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    ky, kx = np.fft.fftfreq(image.shape[0]), np.fft.fftfreq(image.shape[1])
    k = np.hypot(ky[:, None], kx[None])
    edges = np.geomspace(0.03, 0.35, 13)
    means = [power[(k >= a) & (k < b)].mean() for a, b in zip(edges, edges[1:], strict=False)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(means), 1)[0]


def fine_share(image):
    """log10 of the contrast within 3 px over all contrast."""
    return np.log10((image - ndimage.gaussian_filter(image, 3)).std() / image.std())


def distances(synthetic, real):
    a, b = grey(synthetic), grey(real)
    return {
        "grey": wasserstein_distance(a.ravel()[::7], b.ravel()[::7]),
        "slope": abs(spectrum_slope(a) - spectrum_slope(b)),
        "fine": abs(fine_share(a) - fine_share(b)),
    }


CASES = {
    "sem": (
        lambda: make_experiment("dendrite", 5, shape_px=(384, 512), n_frames=2, n_trees=5).images.frame(1)[:-30],
        lambda root: io.imread(root / "sem_dendrites" / "images" / "2e-9_100s_019.jpg")[::2, ::2],
    ),
    "optical": (
        lambda: make_experiment("nucleation", 12, shape_px=(303, 288), n_frames=8, burnt_in=False).images.frame(4),
        lambda root: io.imread(root / "optical_growth_series" / "frames.tif")[6][30:260],
    ),
    "xct": (
        lambda: make_experiment("interface", 11, shape_px=(96, 128, 128)).images.data[...][:, 64],
        lambda root: io.imread(root / "xct_nmc_grey_slice" / "NMC_90wt_2000bar_115.tif")[:256, :256],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_twins_lie_near_real_images(name, shared_data, record_property):
    synthetic, real = CASES[name]
    found = distances(synthetic(), real(shared_data))
    for key, value in found.items():
        record_property(key, round(float(value), 3))
    assert {key: value for key, value in found.items() if value > BOUNDS[key]} == {}
