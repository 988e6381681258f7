"""What a scene shows: which class is where (`View`); grey levels and textures of its materials (`Look`, `Paint`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

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

    def seen(self, seed: int, *, texture_only: bool, variety: float) -> Look:
        """How the same materials look in another instrument, or with `texture_only`.

        Parameters
        ----------
        seed : int
        texture_only : bool
        variety : float
            0 changes nothing; at 1 levels stray by up to 0.14, lengths and amplitudes by a factor of 1.6 (one sd).
        """
        if texture_only or variety == 0:
            return self.texture_only() if texture_only else self
        rng = np.random.default_rng([seed, 6])
        materials = {
            index: Material(
                m.level + variety * rng.uniform(-0.14, 0.14),
                m.texture,
                m.length_px * math.exp(variety * rng.normal(0, 0.47)),
                m.amplitude * math.exp(variety * rng.normal(0, 0.47)),
            )
            for index, m in sorted(self.materials.items())
        }
        return replace(self, materials=materials)


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
        # What one slice needs; the next one shares all but one noise per material.
        needed = sum(2 * _reach(m) + 1 for m in look.materials.values())
        self._noise = lru_cache(maxsize=needed)(self._make_noise)

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
            reach = _reach(material)
            steps = np.arange(-reach, reach + 1)
            weights = np.exp(-((steps / max(0.7 * material.length_px, 0.5)) ** 2))
            weights /= math.sqrt(float(np.sum(weights**2)))
            texture = sum(w * self._noise(index, height + int(k)) for w, k in zip(weights, steps, strict=True))
            image += share * (material.level + material.amplitude * texture)
        return image


def _reach(material: Material) -> int:
    """Slices on either side that share noise with one."""
    return min(8, math.ceil(material.length_px))
