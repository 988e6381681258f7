"""How instruments see a scene: optics, detector and their faults, on the ideal image of `seg.synthetic.looks`.

An instrument (`Optical`, `Sem`, `Tem`, `Xct`) degrades an ideal image; its ``strength`` runs from 0 (hardly any fault)
to 1 (as bad as published images get). Faults that hide the scene (bubbles, text) or move it (jitter) change the truth,
so they belong to the scenes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from scipy import fft, ndimage

from seg.synthetic.fields import correlated_noise


class Instrument(Protocol):
    """Degrades an ideal image."""

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Image as recorded at a frame; float64, about 0..1."""
        ...


def to_uint8(image: np.ndarray) -> np.ndarray:
    """8-bit image; 0..1 maps to 0..255."""
    return np.clip(np.floor(image * 255 + 0.5), 0, 255).astype(np.uint8)


def poisson_gauss(rng: np.random.Generator, image: np.ndarray, electrons: float, read: float = 0.0) -> np.ndarray:
    """Shot noise of a detector that collects `electrons` at level 1, and read noise (in levels).

    The Poisson law is taken as a normal one of the same variance, as usual above some ten electrons (Foi et al.,
    IEEE Trans. Image Process. 17 (2008) 1737).
    """
    sd = np.sqrt(np.clip(image, 0, None) / electrons + read**2)
    return image + sd * rng.standard_normal(image.shape)


# Luminance table of ITU-T T.81, annex K.1.
_JPEG_TABLE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], float)  # fmt: skip


def jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    """Image as baseline JPEG leaves it: 8 x 8 cosine transforms, rounded to multiples of the standard's table.

    Parameters
    ----------
    image : ndarray, shape (Y, X)
        0..1 for black to white of 8 bits.
    quality : float
        1..100, scaling the table as the Independent JPEG Group's library does.

    Notes
    -----
    Computed here, so that it is the same whatever library for JPEG is installed.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = np.clip(np.floor(_JPEG_TABLE * scale + 0.5), 1, 255)
    height, width = image.shape
    padded = np.pad(np.clip(image, 0, 1) * 255 - 128, ((0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // 8, 8, -1, 8).swapaxes(1, 2)
    kept = np.round(fft.dctn(blocks, axes=(2, 3), norm="ortho") / table) * table
    decoded = fft.idctn(kept, axes=(2, 3), norm="ortho").swapaxes(1, 2).reshape(padded.shape)
    return (np.clip(decoded[:height, :width], -128, 127) + 128) / 255


@dataclass(frozen=True)
class Optical:
    """Light microscope.

    Parameters
    ----------
    shape : (int, int)
    seed : int
    strength : float

    Notes
    -----
    Point spread: a Gaussian, within 1 % of the Airy pattern's core (Zhang, Zerubia & Olivo-Marin, Appl. Opt. 46 (2007)
    1819), whose width also wanders with the focus. Uneven light: a smooth multiplicative field (Smith et al., Nat.
    Methods 12 (2015) 404) with a slow drift of the lamp. Glare: an additive veil from one side. Noise: Poisson-Gauss.
    JPEG (`jpeg`): quality 95 at 0.25, 72 at 1; none below 0.2, as good cameras store all they see.
    """

    shape: tuple[int, int]
    seed: int
    strength: float = 0.4
    _light: np.ndarray = field(init=False, repr=False, compare=False)
    _glare: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 11])
        y, x = (np.linspace(-1, 1, n) for n in self.shape)
        tilt = rng.uniform(0, 2 * math.pi)
        plane = y[:, None] * math.sin(tilt) + x[None] * math.cos(tilt)
        vignette = -(y[:, None] ** 2 + x[None] ** 2)
        light = 1 + self.strength * (0.16 * plane + 0.14 * vignette)
        light += 0.03 * self.strength * correlated_noise(rng, self.shape, max(self.shape) / 4)
        cy, cx = math.sin(tilt + 2.2) * 1.15, math.cos(tilt + 2.2) * 1.15
        glare = np.exp(-((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2) / 0.18)
        object.__setattr__(self, "_light", light)
        object.__setattr__(self, "_glare", glare)

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Image as recorded at a frame."""
        rng = np.random.default_rng([self.seed, 12, frame])
        s = self.strength
        image = ndimage.gaussian_filter(image, 0.5 + 0.9 * s + 0.4 * s * abs(rng.normal()))
        lamp = 1 + 0.06 * s * math.sin(0.35 * frame + self.seed % 7) + 0.01 * s * rng.normal()
        image = image * self._light * lamp + 0.25 * s * s * self._glare
        noisy = poisson_gauss(rng, image, 40_000 / (1 + 20 * s * s), 0.001 + 0.004 * s)
        return noisy if s < 0.2 else jpeg(noisy, 102.7 - 30.7 * s)


@dataclass(frozen=True)
class Sem:
    """Scanning electron microscope, secondary electrons.

    Parameters
    ----------
    shape : (int, int)
    seed : int
    strength : float

    Notes
    -----
    The bright edges come from the look (`Look.rim`): electrons escape more easily near edges (Seiler, J. Appl. Phys. 54
    (1983) R1). Here: probe size, brightness that drifts along the slow scan axis, line noise, charging tails along the
    fast axis after bright spots, and shot noise (Reimer, Scanning Electron Microscopy, 1998).
    """

    shape: tuple[int, int]
    seed: int
    strength: float = 0.4

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Image as recorded at a frame."""
        rng = np.random.default_rng([self.seed, 22, frame])
        s = self.strength
        image = ndimage.gaussian_filter(image, 0.5 + 0.8 * s)
        rows = correlated_noise(rng, (image.shape[0],), image.shape[0] / 5) * 0.03 * s
        rows = rows + 0.012 * s * rng.standard_normal(image.shape[0])
        bright = np.clip(image - 0.75, 0, None)
        tail = ndimage.uniform_filter1d(
            bright, max(3, image.shape[1] // 12), axis=1, origin=-(image.shape[1] // 24 - 1)
        )
        image = image + rows[:, None] - 0.8 * s * tail
        return poisson_gauss(rng, image, 1_500 / (1 + 8 * s), 0.004)


@dataclass(frozen=True)
class Tem:
    """Transmission electron microscope, in situ or cryo.

    Parameters
    ----------
    shape : (int, int)
    seed : int
    strength : float
    pixel_nm : float
        Sets where the zeros of the transfer function fall.
    defocus_um : float
    frames_of_damage : float
        Frames after which the beam has washed out half of the fine contrast; 0 = no damage.

    Notes
    -----
    Contrast transfer: part of the contrast passes through sin(pi lambda df k^2) of a 200 kV microscope with a Gaussian
    envelope (Wade, Ultramicroscopy 46 (1992) 145), which draws Fresnel fringes around particles. Dose noise: Poisson,
    with the detector's correlation. Ice: smooth thickness variation; charging: a slow gradient that wanders between
    frames; drift: motion blur. Beam damage: fine contrast decays exponentially with dose (Baker & Rubinstein, Methods
    Enzymol. 481 (2010) 371).
    """

    shape: tuple[int, int]
    seed: int
    strength: float = 0.4
    pixel_nm: float = 0.5
    defocus_um: float = 1.0
    frames_of_damage: float = 0.0
    _ice: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 31])
        object.__setattr__(self, "_ice", correlated_noise(rng, self.shape, max(self.shape) / 3))

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Image as recorded at a frame."""
        rng = np.random.default_rng([self.seed, 32, frame])
        s = self.strength
        mean = float(image.mean())
        passed = ndimage.fourier_gaussian(np.fft.fft2(image - mean), 0.5 + 0.5 * s)
        fine = np.fft.ifft2(passed).real
        phase = np.fft.ifft2(passed * self._transfer(image.shape)).real
        if self.frames_of_damage:
            left = 0.5 ** (frame / self.frames_of_damage)
            blurred = ndimage.gaussian_filter(fine, 2.5)
            fine = blurred + left * (fine - blurred)
        image = mean + fine - (0.15 + 0.35 * s) * phase
        drift = rng.normal(0, 1.5 * s)
        image = ndimage.gaussian_filter1d(image, 0.3 + abs(drift), axis=int(rng.integers(2)))
        y, x = (np.linspace(-1, 1, n) for n in image.shape)
        way = rng.uniform(0, 2 * math.pi)
        charge = y[:, None] * math.sin(way) + x[None] * math.cos(way)
        image = image + 0.06 * s * self._ice + 0.03 * s * charge
        noisy = poisson_gauss(rng, image, 900 / (1 + 14 * s), 0.004)
        return 0.75 * noisy + 0.25 * ndimage.gaussian_filter(noisy, 0.7)

    def _transfer(self, shape: tuple[int, ...]) -> np.ndarray:
        wavelength_nm = 0.00251  # 200 kV
        ky, kx = (np.fft.fftfreq(n, self.pixel_nm) for n in shape)
        k2 = ky[:, None] ** 2 + kx[None] ** 2
        envelope = np.exp(-k2 / (0.18 / self.pixel_nm) ** 2)
        return np.sin(np.pi * wavelength_nm * self.defocus_um * 1000 * k2) * envelope


@dataclass(frozen=True)
class Xct:
    """X-ray tomography: a slice of a reconstructed volume.

    Parameters
    ----------
    shape : (int, int)
        Of one slice (Y, X), the plane of rotation.
    seed : int
    strength : float

    Notes
    -----
    Contrast falls with the dial, as that of light phases does with harder rays. Noise: Poisson-Gauss in what the
    detector counts, so stronger where more is absorbed, and after filtered back-projection poor in long waves. Rings:
    detector pixels with a wrong gain become circles about the axis, the same in neighbouring slices only in part
    (Muench et al., Opt. Express 17 (2009) 8567). Streaks: bright lines tangent to dense parts. Phase fringes: edge
    enhancement -k Laplace of the object (Cloetens et al., J. Phys. D 29 (1996) 133). Beam hardening: a cup, lower in
    the middle (Brooks & Di Chiro, Phys. Med. Biol. 21 (1976) 390). Partial volume: the blur, and the coverage of the
    view itself.
    """

    shape: tuple[int, int]
    seed: int
    strength: float = 0.4

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Slice `frame` as reconstructed."""
        s = self.strength
        rng = np.random.default_rng([self.seed, 42, frame])
        image = 0.5 + (1 - 0.3 * s) * (image - 0.5)
        soft = ndimage.gaussian_filter(image, 0.5 + 0.6 * s)
        image = soft - (0.4 + 1.2 * s) * ndimage.laplace(soft)
        y, x = (np.arange(n) - (n - 1) / 2 for n in self.shape)
        axis_y, axis_x = np.random.default_rng([self.seed, 41]).uniform(-0.15, 0.15, 2) * self.shape
        radius = np.hypot(y[:, None] - axis_y, x[None] - axis_x)
        image = image + s * (self._rings(radius, frame) + 0.05 * ((radius / radius.max()) ** 2 - 0.4))
        if s > 0:
            way = np.random.default_rng([self.seed, 43]).uniform(0, math.pi)
            along = y[:, None] * math.cos(way) - x[None] * math.sin(way)
            bins = np.clip((along + max(self.shape)).astype(int), 0, 2 * max(self.shape))
            streak = np.random.default_rng([self.seed, 44, frame // 3]).standard_normal(2 * max(self.shape) + 1)
            image = image + 0.012 * s * ndimage.gaussian_filter1d(streak, 1.0)[bins]
        noise = rng.standard_normal(self.shape)
        noise = noise - 0.35 * ndimage.gaussian_filter(noise, 2.0)
        return image + (0.012 + 0.06 * s) * np.sqrt(0.5 + np.clip(image, 0, 1.5)) * noise

    def _rings(self, radius: np.ndarray, frame: int) -> np.ndarray:
        size = int(radius.max()) + 2
        steady = np.random.default_rng([self.seed, 45])
        gain = steady.standard_normal(size) * (steady.uniform(size=size) < 0.12)
        flicker = np.random.default_rng([self.seed, 46, frame]).standard_normal(size) * 0.15
        return 0.06 * (gain + flicker * (gain != 0))[radius.astype(int)]


INSTRUMENTS = {"optical": Optical, "sem": Sem, "cryoem": Tem, "xct": Xct}
