"""How instruments see a scene: grey levels and textures of materials, then optics, detector and their faults.

A scene gives `View`s (what is where). `Paint` turns a view into an ideal image with the looks of the materials.
An instrument (`Optical`, `Sem`, `Tem`, `Xct`) degrades it; its ``strength`` runs from 0 (hardly any fault) to 1 (as
bad as published images get).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from scipy import ndimage

from seg.synthetic.fields import FIELDS, correlated_noise


@dataclass(frozen=True)
class View:
    """What is where in one frame or slab.

    Parameters
    ----------
    labels : ndarray of uint8, shape ([Z,] Y, X)
        Class at the centre of each pixel.
    coverage : dict of int to ndarray of float, shape of `labels`
        Share of each pixel that a class covers; they sum to 1.
    instances : ndarray of int, shape of `labels`, or None
    height : ndarray of float, shape of `labels`, or None
        Height of metal above the ground, px; for shading only.
    """

    labels: np.ndarray
    coverage: Mapping[int, np.ndarray]
    instances: np.ndarray | None = None
    height: np.ndarray | None = None


@dataclass(frozen=True)
class Material:
    """Mean grey level of a class (0..1), and its texture: a name in `FIELDS`, a length in px, an sd in grey levels."""

    level: float
    texture: str = "smooth"
    length_px: float = 3.0
    amplitude: float = 0.03


@dataclass(frozen=True)
class Look:
    """Materials by class index, and how relief shows.

    Parameters
    ----------
    materials : mapping of int to Material
    shading : float
        Contrast of light from one side over `View.height`.
    rim : float
        Brightness added at the edge of raised metal (SEM: positive; bright-field light: negative).
    rim_px : float
    """

    materials: Mapping[int, Material]
    shading: float = 0.0
    rim: float = 0.0
    rim_px: float = 2.0

    def texture_only(self, amplitude: float = 0.12, level: float = 0.5) -> Look:
        """Look of the same scene with one mean level and spread for all classes; only the kind of texture differs."""
        materials = {index: Material(level, *TEXTURE_ONLY[index], amplitude) for index in self.materials}
        return Look(materials)


# Texture of each class where texture is all there is: symmetric fields (a skewed one moves its median off the mean),
# short lengths for objects (a small object must hold many grains, or its own mean gives it away).
TEXTURE_ONLY: dict[int, tuple[str, float]] = {
    1: ("smooth", 6.0), 2: ("rolled", 1.5), 3: ("smooth", 1.2), 4: ("smooth", 1.2), 5: ("fringes", 5.0),
    6: ("fringes", 4.0), 7: ("smooth", 2.5), 8: ("fringes", 4.0), 9: ("rolled", 2.5), 10: ("smooth", 6.0),
}  # fmt: skip


class Paint:
    """Materials laid over the scene once, so that a texture stays with its material from frame to frame.

    Parameters
    ----------
    look : Look
    shape : tuple of int
        Of the frames to come.
    rng : numpy Generator
    marks : mapping of int to ndarray, optional
        Grey levels added to single classes (grain boundaries, scratches).
    """

    def __init__(
        self,
        look: Look,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        *,
        marks: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        self.look = look
        self._fields = {
            index: m.level + m.amplitude * FIELDS[m.texture](rng, shape, m.length_px)
            for index, m in sorted(look.materials.items())
        }
        for index, mark in (marks or {}).items():
            self._fields[index] = self._fields[index] + mark

    def __call__(self, view: View) -> np.ndarray:
        """Ideal image of a view; float64, about 0..1."""
        image = np.zeros(view.labels.shape)
        for index, share in view.coverage.items():
            image += share * self._fields[index]
        look = self.look
        if view.height is not None and (look.shading or look.rim):
            raised = view.height > 0
            smooth = ndimage.gaussian_filter(view.height, 1.0)
            gy, gx = np.gradient(smooth)
            slope = np.hypot(gx, gy)
            # Lambert shading with light from the upper left, flattened where slopes are steep.
            image += look.shading * (gx + gy) / np.sqrt(2 + 2 * slope**2) * raised
            if look.rim:
                inside = ndimage.distance_transform_edt(np.pad(raised, 1, mode="edge"))[1:-1, 1:-1]
                image += look.rim * np.exp(-inside / look.rim_px) * raised
        return image


class SlicePaint:
    """Materials of a volume, made slice by slice: textures correlated in 3-D without a volume in memory.

    A slice of texture is the weighted sum of 2-D noises, each seeded by its own height; neighbouring slices share most
    of them.

    Parameters
    ----------
    look : Look
        The texture ``"rolled"`` is drawn out along x, every other one is isotropic noise of its length.
    shape : (int, int)
        Of a slice.
    seed : int
    """

    def __init__(self, look: Look, shape: tuple[int, int], seed: int) -> None:
        self.look, self.shape, self.seed = look, shape, seed
        self._noise = lru_cache(maxsize=256)(self._make_noise)

    def _make_noise(self, index: int, height: int) -> np.ndarray:
        material = self.look.materials[index]
        rng = np.random.default_rng([self.seed, 51, index, height + 10_000])
        stretch = 12.0 if material.texture == "rolled" else 1.0
        return correlated_noise(rng, self.shape, (material.length_px, stretch * material.length_px))

    def __call__(self, view: View, height: int) -> np.ndarray:
        """Ideal image of the slice at a height."""
        image = np.zeros(self.shape)
        for index, share in view.coverage.items():
            if not share.any():
                continue
            material = self.look.materials[index]
            reach = min(8, math.ceil(material.length_px))
            steps = np.arange(-reach, reach + 1)
            weights = np.exp(-((steps / max(0.7 * material.length_px, 0.5)) ** 2))
            weights /= math.sqrt(float(np.sum(weights**2)))
            texture = sum(w * self._noise(index, height + int(k)) for w, k in zip(weights, steps, strict=True))
            image += share * (material.level + material.amplitude * texture)
        return image


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
        return poisson_gauss(rng, image, 40_000 / (1 + 20 * s * s), 0.001 + 0.004 * s)


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
    Noise after filtered back-projection is fine-grained and slightly correlated. Rings: detector pixels with a wrong
    gain become circles about the axis, the same in neighbouring slices only in part (Muench et al., Opt. Express 17
    (2009) 8567). Streaks: bright lines tangent to dense parts. Phase fringes: edge enhancement -k Laplace of the object
    (Cloetens et al., J. Phys. D 29 (1996) 133). Beam hardening: a cup, lower in the middle (Brooks & Di Chiro, Phys.
    Med. Biol. 21 (1976) 390). Partial volume: the blur, and the coverage of the view itself.
    """

    shape: tuple[int, int]
    seed: int
    strength: float = 0.4

    def expose(self, image: np.ndarray, frame: int) -> np.ndarray:
        """Slice `frame` as reconstructed."""
        s = self.strength
        rng = np.random.default_rng([self.seed, 42, frame])
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
        return image + (0.012 + 0.06 * s) * noise

    def _rings(self, radius: np.ndarray, frame: int) -> np.ndarray:
        size = int(radius.max()) + 2
        steady = np.random.default_rng([self.seed, 45])
        gain = steady.standard_normal(size) * (steady.uniform(size=size) < 0.12)
        flicker = np.random.default_rng([self.seed, 46, frame]).standard_normal(size) * 0.15
        return 0.06 * (gain + flicker * (gain != 0))[radius.astype(int)]


INSTRUMENTS = {"optical": Optical, "sem": Sem, "cryoem": Tem, "xct": Xct}
