"""Random labelled images for training: every kind of scene, seen through every kind of bad microscope."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from seg.errors import UsageError
from seg.synthetic.texture import TEXTURES, dot_lattice, grains, scratches, smooth_noise, white_noise
from seg.synthetic.training_scenes import (
    ARTIFACT,
    DEAD,
    DENDRITE,
    DEPOSIT,
    ELECTROLYTE,
    PIT,
    SCENES,
    SEPARATOR,
    SUBSTRATE,
    VOID,
    Sketch,
)

TEXTURE_ONLY_SHARE = 0.12


@dataclass(frozen=True)
class Habits:
    """What images of one modality tend to show; numbers are the shares of samples that do.

    Parameters
    ----------
    sem_levels : float
        Grey levels in the usual order of secondary electrons.
    by_attenuation : bool
        Grey follows attenuation, never inverted, rather than height.
    surface : bool
        A surface is seen: patterns, scratches, bright edges. Else a section.
    darkest_edge : float
        Lower end of what an edge adds to the grey level.
    bubbles, glare, fringes, rings, lines, burnt_in : float
    """

    sem_levels: float = 0.0
    by_attenuation: bool = False
    surface: bool = True
    darkest_edge: float = 0.0
    bubbles: float = 0.0
    glare: float = 0.0
    fringes: float = 0.0
    rings: float = 0.0
    lines: float = 0.0
    burnt_in: float = 0.12


HABITS = {
    "optical": Habits(darkest_edge=-0.12, bubbles=0.2, glare=0.08, burnt_in=0.3),
    "sem": Habits(sem_levels=0.5, glare=0.08, lines=0.3, burnt_in=0.3),
    "cryoem": Habits(surface=False, fringes=0.5, lines=0.3),
    "xct": Habits(by_attenuation=True, surface=False, fringes=0.5, rings=0.6),
}


def training_sample(
    rng: np.random.Generator, *, size_px: int = 256, modality: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Random labelled image; grey level alone never tells a class.

    Parameters
    ----------
    rng : numpy Generator
    size_px : int
        Height and width, at least 48.
    modality : str, optional
        ``"optical"``, ``"sem"``, ``"cryoem"`` or ``"xct"``; default: any.

    Returns
    -------
    image : ndarray of float32, shape (size_px, size_px)
        0..1.
    labels : ndarray of uint8, same shape
        Indices of the schema ``lithium``; every pixel is labelled.

    Notes
    -----
    In a share `TEXTURE_ONLY_SHARE` of the samples all classes have one mean grey level and differ by texture alone.
    """
    if size_px < 48:
        raise ValueError(f"size_px is {size_px}; scenes need at least 48 px.")
    if modality is None:
        modality = str(rng.choice(["optical", "sem", "cryoem", "xct"], p=[0.32, 0.33, 0.2, 0.15]))
    if modality not in SCENES:
        raise UsageError(f"There are no training scenes for {modality!r}; there are {', '.join(SCENES)}.")
    scenes = list(SCENES[modality])
    weights = np.array([SCENES[modality][s] for s in scenes], float)
    sketch = scenes[rng.choice(len(scenes), p=weights / weights.sum())](rng, size_px)
    habits = HABITS[modality]
    image, signal = _lit(rng, sketch, habits)
    _obstruct(rng, image, sketch.labels, habits)
    image = _seen(rng, image, habits, signal)
    _burn_in(rng, image, sketch.labels, habits)
    if rng.uniform() < 0.15:
        image = _jpeg(rng, image)
    return np.clip(image, 0, 1).astype(np.float32), sketch.labels


def _lit(rng: np.random.Generator, sketch: Sketch, habits: Habits) -> tuple[np.ndarray, float]:
    """Grey levels, textures and relief of a scene before the instrument, and how strongly its classes differ."""
    labels = sketch.labels
    shape = labels.shape
    present = [int(v) for v in np.unique(labels)]
    texture_only = not sketch.thin and rng.uniform() < TEXTURE_ONLY_SHARE
    contrast = 0.0 if texture_only else rng.uniform(0.06, 0.2) if rng.uniform() < 0.3 else rng.uniform(0.2, 0.8)
    as_sem = habits.sem_levels > 0 and not texture_only and rng.uniform() < habits.sem_levels
    table = np.zeros(11, np.float32)
    table[present] = _sem_levels(rng, present) if as_sem else _levels(rng, present, contrast, sketch.hollow, habits)
    if DENDRITE in present and DEPOSIT in present and rng.uniform() < 0.5:  # one metal, told apart by its shape
        table[DENDRITE] = table[DEPOSIT]
    image = table[labels]
    strength = rng.uniform(0.08, 0.2) if texture_only else rng.uniform(0.005, 0.1) * (0.3 if as_sem else 1.0)
    lengths = np.exp(rng.permutation(np.linspace(math.log(1.0), math.log(12.0), max(2, len(present)))))
    names = rng.permutation(list(TEXTURES))
    for k, value in enumerate(present):
        own = strength * (1.0 if texture_only else rng.uniform(0.2, 1.5))
        field = TEXTURES[str(names[k % len(names)])](rng, shape, float(lengths[k]))
        where = labels == value
        if texture_only:  # same mean and same spread inside every class, whatever its shape
            inside = field[where]
            field = (field - inside.mean()) / max(float(inside.std()), 1e-6)
        image += np.where(where, own * field, 0)
    if not texture_only:
        metal = np.isin(labels, (DEPOSIT, DENDRITE, DEAD))
        image = _background_marks(rng, image, labels, habits)
        image = _relief(rng, image, metal, habits)
        if sketch.hollow:
            image = _hollows(rng, image, labels == PIT)
        edges = sketch.marks.get("edges")
        if edges is not None and edges.any():
            image += np.where(edges, rng.uniform(-0.25, 0.25), 0)
    return image.astype(np.float32), strength if texture_only else contrast


# Usual orders from dark to bright: by height where light or electrons come back, by attenuation for X-rays. Where
# nothing is hollow they come inverted as often (bright field).
_RANK_BY_HEIGHT = {PIT: 0, VOID: 0, DEPOSIT: 2, DENDRITE: 2, DEAD: 2}
_RANK_BY_ATTENUATION = {VOID: 0, DEPOSIT: 1, DENDRITE: 1, DEAD: 1, ELECTROLYTE: 2, SEPARATOR: 3, SUBSTRATE: 4}


def _levels(rng: np.random.Generator, present: list[int], contrast: float, hollow: bool, habits: Habits) -> np.ndarray:
    """One mean grey level per class: random order, spread over the contrast."""
    n = len(present)
    spread = np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1)
    spread = spread + rng.uniform(-0.25, 0.25, n) / max(n, 2)
    levels = rng.uniform(0.3, 0.7) + contrast * rng.permutation(spread)
    # Usual orders come up as often as random ones; pits are darker than their rims wherever light has to come back out.
    if n > 1 and (hollow or rng.uniform() < 0.5):
        ranks = _RANK_BY_ATTENUATION if habits.by_attenuation else _RANK_BY_HEIGHT
        rank = [ranks.get(v, 1) for v in present]
        sign = 1 if hollow or habits.by_attenuation else int(rng.choice([-1, 1]))
        levels = np.sort(levels)[::sign][np.argsort(np.argsort(rank, kind="stable"))]
    return levels


def _sem_levels(rng: np.random.Generator, present: list[int]) -> list[float]:
    """Secondary electrons: dark ground, brighter electrode, branches hardly above the ground but for their edges."""
    usual = {ELECTROLYTE: 0.35, SUBSTRATE: 0.52, DEPOSIT: 0.7, DENDRITE: 0.48, DEAD: 0.48, PIT: 0.2}
    if ELECTROLYTE not in present:
        usual[SUBSTRATE] = 0.35
    return [usual.get(v, 0.5) + rng.normal(0, 0.06) for v in present]


def _background_marks(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, habits: Habits) -> np.ndarray:
    """Patterns of the ground that are no objects: lattices, scratches, grain boundaries, gradients towards edges."""
    ground = np.isin(labels, (SUBSTRATE, ELECTROLYTE, SEPARATOR))
    amount = rng.uniform(0.03, 0.15) * rng.choice([-1, 1])
    kind = rng.uniform()
    if not habits.surface:  # no patterned or scratched surface in a section
        kind = 0.4 + 0.6 * kind
    if kind < 0.16:
        image = image + np.where(
            ground, amount * dot_lattice(rng, labels.shape, np.exp(rng.uniform(1.8, 3.6)), rng.uniform(0.2, 0.42)), 0
        )
    elif kind < 0.32:
        image = image + np.where(ground, amount * scratches(rng, labels.shape, int(rng.integers(3, 60))), 0)
    elif kind < 0.45:
        level, edge = grains(rng, labels.shape, float(np.exp(rng.uniform(2.5, 4.5))))
        image = image + np.where(ground, 0.5 * amount * level + amount * edge * rng.uniform(0, 1), 0)
    elif kind < 0.6:
        dust = smooth_noise(rng, labels.shape, rng.uniform(1, 4)) > rng.uniform(2.2, 3.2)
        image = image + np.where(ground & dust, amount * 2, 0)
    return image


def _relief(rng: np.random.Generator, image: np.ndarray, metal: np.ndarray, habits: Habits) -> np.ndarray:
    """Edge brightness and shading of metal that stands out of the plane."""
    if not metal.any() or metal.all():
        return image
    depth = ndimage.distance_transform_edt(metal).astype(np.float32)
    kind = rng.uniform()
    if habits.surface and kind < 0.55:  # secondary electrons leave edges; light is scattered there
        width = np.exp(rng.uniform(0, 1.8))
        edge = np.exp(-depth / width) * metal
        image = image + rng.uniform(habits.darkest_edge, 0.4) * edge
    if kind > 0.4:  # light from one side over domes
        height = np.sqrt(np.minimum(depth, np.exp(rng.uniform(1, 3.5))))
        height = ndimage.gaussian_filter(height, 1.0)
        gy, gx = np.gradient(height)
        angle = rng.uniform(0, 2 * math.pi)
        image = image + rng.uniform(0, 0.3) * (gx * math.cos(angle) + gy * math.sin(angle)) * metal
    if rng.uniform() < 0.25:  # shadow or glow on the ground beside metal
        outside = ndimage.distance_transform_edt(~metal).astype(np.float32)
        image = image + rng.uniform(-0.15, 0.12) * np.exp(-outside / np.exp(rng.uniform(0.5, 3))) * ~metal
    return image


def _hollows(rng: np.random.Generator, image: np.ndarray, pit: np.ndarray) -> np.ndarray:
    """Shade inside pits: darker with depth, lit on the far wall, a thin bright or dark rim."""
    if not pit.any():
        return image
    depth = ndimage.distance_transform_edt(pit).astype(np.float32)
    reach = np.exp(rng.uniform(0.7, 2.5))
    image = image - rng.uniform(0.05, 0.3) * (1 - np.exp(-depth / reach)) * pit
    gy, gx = np.gradient(ndimage.gaussian_filter(np.minimum(depth, 2 * reach), 1.0))
    angle = rng.uniform(0, 2 * math.pi)
    image = image - rng.uniform(0, 0.2) * (gx * math.cos(angle) + gy * math.sin(angle)) * pit
    rim = ndimage.binary_dilation(pit) & ~pit
    return image + rng.uniform(-0.05, 0.25) * rim


def _obstruct(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, habits: Habits) -> None:
    """Bubbles and glare that hide the scene; labelled ``artifact``."""
    n = labels.shape[0]
    y, x = np.mgrid[:n, :n].astype(np.float32)
    if habits.bubbles and rng.uniform() < habits.bubbles:
        for _ in range(rng.integers(1, 4)):
            cy, cx, r = rng.uniform(0, n), rng.uniform(0, n), np.exp(rng.uniform(math.log(0.03 * n), math.log(0.2 * n)))
            d = np.hypot(y - cy, x - cx) / r
            inside = d < 1
            image[inside] += (rng.uniform(-0.3, 0.3) + rng.uniform(-0.5, 0.5) * d[inside] ** 6).astype(np.float32)
            spot = np.hypot(y - cy + 0.4 * r, x - cx + 0.3 * r) < 0.15 * r
            image[spot] = rng.uniform(0.8, 1.2)
            labels[inside] = ARTIFACT
    if habits.glare and rng.uniform() < habits.glare:
        cy, cx, r = rng.uniform(0, n), rng.uniform(0, n), rng.uniform(0.05, 0.3) * n
        glow = 1.5 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))
        image += glow
        labels[glow > 0.75] = ARTIFACT
        np.minimum(image, 1.2, out=image)


def _seen(rng: np.random.Generator, image: np.ndarray, habits: Habits, signal: float) -> np.ndarray:
    """Image after the instrument: blur, uneven light, noise, stripes and rings, contrast and offset."""
    shape = image.shape
    sigma = float(np.exp(rng.uniform(math.log(0.45), math.log(2.0))))
    image = ndimage.gaussian_filter(image, sigma)
    if habits.fringes and rng.uniform() < habits.fringes:  # phase fringes
        image = image - rng.uniform(0.2, 2.0) * ndimage.gaussian_laplace(image, rng.uniform(0.8, 2.0))
    if rng.uniform() < 0.6:
        light = smooth_noise(rng, shape, shape[0] * rng.uniform(0.4, 1.2))
        image = (
            image * (1 + rng.uniform(0, 0.25) * light) if rng.uniform() < 0.5 else image + rng.uniform(0, 0.2) * light
        )
    if habits.rings and rng.uniform() < habits.rings:
        image = image + _rings(rng, shape)
    if habits.lines and rng.uniform() < habits.lines:  # line noise, curtains
        line = smooth_noise(rng, shape, (0.5, 400.0)) if rng.uniform() < 0.7 else smooth_noise(rng, shape, (200.0, 1.5))
        image = image + rng.uniform(0.005, 0.05) * line
    noise = min(float(np.exp(rng.uniform(math.log(0.004), math.log(0.12)))), 0.6 * signal)
    grain = white_noise(rng, shape)
    if rng.uniform() < 0.4:
        grain = 0.6 * grain + 0.8 * smooth_noise(rng, shape, rng.uniform(1, 2.5))
    image = image + noise * grain * np.sqrt(np.clip(image, 0.05, 1.5))
    return _stretched(rng, image)


def _stretched(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Grey levels brought near 0..1, with loose ends, sometimes inverted or bent."""
    sample = image.ravel()[::17]
    low, high = np.percentile(sample, [rng.uniform(0, 2), rng.uniform(98, 100)])
    image = (image - low) / max(float(high - low), 1e-6)
    gain, offset = rng.uniform(0.5, 1.0), 0.0
    offset = rng.uniform(0, 1 - gain)
    image = np.clip(image, 0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    if rng.uniform() < 0.25:
        image = 1 - image
    return (offset + gain * image).astype(np.float32)


def _rings(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Ring artefacts: noise that depends on the distance from a rotation axis only."""
    n = shape[0]
    cy, cx = rng.uniform(-0.5, 1.5, 2) * n
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    radius = np.hypot(y - cy, x - cx).astype(np.int32)
    profile = rng.standard_normal(int(radius.max()) + 1).astype(np.float32) * (
        rng.uniform(size=int(radius.max()) + 1) < 0.25
    )
    return (rng.uniform(0.005, 0.07) * profile[radius]).astype(np.float32)


def _burn_in(rng: np.random.Generator, image: np.ndarray, labels: np.ndarray, habits: Habits) -> None:
    """Time stamps, scale bars and data strips; labelled ``artifact``."""
    if rng.uniform() > habits.burnt_in:
        return
    n = labels.shape[0]
    canvas = Image.new("L", (n, n))
    draw = ImageDraw.Draw(canvas)
    height = max(8, int(rng.uniform(0.04, 0.1) * n))
    if rng.uniform() < 0.7:
        word = str(rng.choice(["{:.1f} s", "{:.0f} min", "t = {:.2f} s", "{:.0f}s", "HV {:.1f} kV", "{:.0f} mA cm-2"]))
        place = (rng.uniform(0.02, 0.5) * n, rng.choice([0.02, 0.88]) * n)
        draw.text(place, word.format(float(np.exp(rng.uniform(0, 5)))), fill=255, font=ImageFont.load_default(height))
    if rng.uniform() < 0.7:
        x, y = rng.uniform(0.05, 0.6) * n, rng.choice([rng.uniform(0.04, 0.1), rng.uniform(0.88, 0.95)]) * n
        draw.rectangle((x, y, x + rng.uniform(0.12, 0.35) * n, y + max(1, rng.uniform(0.006, 0.03) * n)), fill=255)
    ink = np.asarray(canvas, np.float32) / 255
    value = float(rng.choice([0.0, 1.0, 1.0]))
    if rng.uniform() < 0.15:  # data strip of the microscope
        rows = slice(n - int(1.4 * height), n)
        image[rows] = 1 - value
        labels[rows] = ARTIFACT
    image[:] = image * (1 - ink) + value * ink
    labels[ink > 0.35] = ARTIFACT


def _jpeg(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Lossy compression as in published videos."""
    buffer = io.BytesIO()
    Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=int(rng.integers(25, 90))
    )
    return np.asarray(Image.open(buffer), np.float32) / 255
