"""Plan view of metal that nucleates and grows on a foil: N(t), growth by charge, impingement, coalescence.

The scene. Sites lie at random, more densely along grain boundaries. A share of them nucleates at once, the others
with a rate constant; a site that is covered first is lost. Every nucleus is a dome whose outline is a circle with
harmonics of fixed shape; its equivalent radius grows as ``dR = activity dG``, with the same G(t) for all, set by the
charge that the domes take up. In terms of G, a pixel is reached at an explicit moment; the nucleus that comes first
keeps it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.spatial import KDTree

from seg.errors import UsageError
from seg.labels import load_schema
from seg.stack import Calibration, Stack
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment, LazyArray
from seg.synthetic.imaging import Optical, to_uint8
from seg.synthetic.looks import Look, Material, Paint, View
from seg.synthetic.nucleation_scene import Scene
from seg.synthetic.nuclei import FIRST_RADIUS_UM

MODES = ("instantaneous", "progressive", "mixed")
LOOK = Look(
    {
        2: Material(0.60, "rolled", 1.2, 0.022),
        3: Material(0.34, "moss", 3.2, 0.055),
        10: Material(0.6, "smooth", 30, 0.01),
    },
    shading=0.10,
    rim=-0.09,
    rim_px=1.6,
)


def make(
    seed: int,
    *,
    shape_px: tuple[int, int] = (256, 256),
    n_frames: int = 12,
    dial: float = 0.4,
    texture_only: bool = False,
    variety: float = 0.0,
    pixel_um: tuple[float, float] = (0.42, 0.40),
    frame_interval_s: float = 120.0,
    current_density_mA_cm2: float = 1.0,
    density_per_cm2: float = 1.8e5,
    density_exponent: float = 0.7,
    mode: str = "mixed",
    instantaneous_fraction: float = 0.4,
    rate_constant_per_s: float = 2.5e-3,
    activity_spread: float = 0.18,
    grain_um: float = 55.0,
    boundary_enrichment: float = 3.0,
    boundary_width_um: float = 3.0,
    spacing_um: float = 0.0,
    foil: int | None = None,
    coalescence: str = "impinge",
    jitter_px: int = 0,
    bubble: bool = True,
    burnt_in: bool = True,
) -> Experiment:
    """Light microscopy of nucleation and growth, seen from above.

    Parameters
    ----------
    seed : int
    shape_px : (int, int)
    n_frames : int
        The first frame is taken at the moment the current starts.
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    variety : float
        How far grey levels and textures stray from the usual ones, 0..1 (`seg.synthetic.looks.Look.seen`).
    pixel_um : (float, float)
        (y, x).
    frame_interval_s, current_density_mA_cm2 : float
    density_per_cm2, density_exponent : float
        Site density at 1 mA/cm2, and the power with which it rises with the current density.
    mode : str
        ``"instantaneous"``, ``"progressive"`` (no burst; the births saturate once the rate constant times the time
        comes to about 1, and the truth calls that law so) or ``"mixed"``.
    instantaneous_fraction, rate_constant_per_s : float
        Share of sites that nucleate at once (mixed), and rate constant of the others.
    activity_spread : float
        Standard deviation of ln(activity).
    grain_um, boundary_enrichment, boundary_width_um : float
        Grain size of the foil, and how much denser sites lie within this distance of a boundary (1: not at all).
    spacing_um : float
        Sites are at least this far from each other (exclusion zones); 0: they lie as they fall.
    foil : int, optional
        Sites and grains are those of this foil whatever the seed (`seg.synthetic.foil`): a repetition finds the same
        sites again, and a higher current density opens more besides. Default: every seed is a foil of its own.
    coalescence : str
        ``"impinge"``: nuclei that meet keep their boundary; ``"merge"``: they become one object.
    jitter_px : int
        Largest shift of a frame, along each axis.
    bubble, burnt_in : bool
        A gas bubble in the later frames; scale bar and time.
    """
    if mode not in MODES:
        raise UsageError(f"There is no nucleation mode {mode!r}; there are {', '.join(MODES)}.")
    if coalescence not in ("impinge", "merge"):
        raise UsageError(f"There is no coalescence {coalescence!r}; there are impinge, merge.")
    if foil is not None and spacing_um > 0:
        raise UsageError("The sites of a foil lie as they fall; leave spacing_um at 0 or foil out.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    times = np.arange(n_frames) * frame_interval_s
    scene = Scene(seed, parameters, times)
    look = LOOK.seen(seed, texture_only=texture_only, variety=variety)
    recorder = _Recorder(scene, look, Optical(shape_px, seed, dial))

    calibration = Calibration({"y": pixel_um[0], "x": pixel_um[1]}, tuple(float(t) for t in times), "file")
    size = (n_frames, *shape_px)

    def stack(dtype: str, what: str) -> Stack:
        if n_frames == 1:
            still = Calibration(calibration.pixel_size_um, None, "file")
            return Stack(getattr(recorder, what)(0).astype(dtype), "yx", still, what)
        return Stack(LazyArray(size, dtype, lambda i: getattr(recorder, what)(i)), "tyx", calibration, f"{what}")

    lead_s = 30.0 + seed % 17
    cycler = run_programme(
        np.random.default_rng([seed, 5]), [Step(float(times[-1]) or 1.0, current_density_mA_cm2)], lead_s=lead_s
    )
    return Experiment(
        name=f"nucleation-{seed}",
        family="nucleation",
        seed=seed,
        modality="optical",
        images=stack("uint8", "image"),
        labels=stack("uint8", "labels"),
        instances=stack("uint16", "instances"),
        schema=load_schema("lithium"),
        truth=scene.truth(),
        cycler=cycler,
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )


class _Recorder:
    """Frames of the scene as labels, instances and images."""

    def __init__(self, scene: Scene, look: Look, instrument: Optical) -> None:
        self.scene, self.instrument = scene, instrument
        j = scene.p["jitter_px"]
        low, high = np.full(2, -j), np.asarray(scene.shape) + j
        self._maps = lru_cache(maxsize=1)(lambda: scene.arrival(low, high, 1))
        self._paint = lru_cache(maxsize=1)(lambda: self._make_paint(look, low, high))
        self._view = lru_cache(maxsize=1)(self._make_view)

    def _make_paint(self, look: Look, low: np.ndarray, high: np.ndarray) -> Paint:
        scene = self.scene
        shape = tuple((high - low).tolist())
        rng = np.random.default_rng([self.instrument.seed, 3])
        if len({m.level for m in look.materials.values()}) == 1:  # texture only: no marks that would give grains away
            return Paint(look, shape, rng)
        y, x = ((np.arange(n) + a + 0.5) * d for n, a, d in zip(shape, low, scene.pixel, strict=True))
        points = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
        grain = KDTree(scene.grain_seeds).query(points)[1].reshape(shape)
        line = np.exp(-((scene.to_boundary(scene.grain_seeds, points).reshape(shape) / (0.8 * scene.pixel.max())) ** 2))
        marks = 0.018 * rng.standard_normal(len(scene.grain_seeds))[grain] - 0.06 * line
        return Paint(look, shape, rng, marks={2: marks})

    def _make_view(self, frame: int) -> tuple[View, np.ndarray]:
        """View on the padded grid, and the artefacts of the frame."""
        scene = self.scene
        reached, owner, speed = self._maps()
        growth = scene.growth[frame]
        metal = reached <= growth
        share = np.clip((growth - reached) * speed / float(np.sqrt(np.prod(scene.pixel))) + 0.5, 0, 1)
        share[owner < 0] = 0
        share = np.where(metal, np.maximum(share, 0.5), np.minimum(share, 0.5) * (share > 0))
        n = len(scene.nuclei)
        if n and metal.any():
            mine = np.where(owner >= 0, owner, 0)
            radius = scene.nuclei.radius(growth)[mine]
            out = FIRST_RADIUS_UM + scene.nuclei.activity[mine] * (reached - scene.nuclei.birth_growth[mine])
            with np.errstate(invalid="ignore"):
                height = np.sqrt(np.clip(radius**2 - out**2, 0, None))
            height = np.where(metal, height / float(scene.pixel.mean()) * 0.6, 0)
        else:
            height = np.zeros(owner.shape)
        labels = np.where(metal, 3, 2).astype(np.uint8)
        # Where two nuclei meet, a groove.
        groove = np.zeros(owner.shape, bool)
        groove[:-1] |= owner[:-1] != owner[1:]
        groove[:, :-1] |= owner[:, :-1] != owner[:, 1:]
        height[groove & metal] = 0
        ids = np.where(metal, (scene.clusters(frame) + 1)[np.where(owner >= 0, owner, 0)] if n else 0, 0)
        view = View(labels, {2: 1 - share, 3: share}, ids, height)
        hidden = scene.text(frame)
        y, x = ((np.arange(k) + 0.5) * d for k, d in zip(scene.shape, scene.pixel, strict=True))
        cy, cx, r = scene.bubble_um[frame]
        away = np.hypot(y[:, None] - cy, x[None] - cx) / r if r > 0 else np.full(scene.shape, np.inf)
        return view, np.stack([hidden.astype(float), away])

    def _window(self, frame: int) -> tuple[slice, slice]:
        j = self.scene.p["jitter_px"]
        oy, ox = self.scene.shifts[frame] + j
        return slice(oy, oy + self.scene.shape[0]), slice(ox, ox + self.scene.shape[1])

    def labels(self, frame: int) -> np.ndarray:
        """Class indices."""
        view, (text, away) = self._view(frame)
        labels = view.labels[self._window(frame)].copy()
        labels[(text > 0) | (away < 1)] = 10
        return labels

    def instances(self, frame: int) -> np.ndarray:
        """Nucleus ids; artefacts have none."""
        view, (text, away) = self._view(frame)
        return np.where((text > 0) | (away < 1), 0, view.instances[self._window(frame)])

    def image(self, frame: int) -> np.ndarray:
        """8-bit image."""
        view, (text, away) = self._view(frame)
        ideal = self._paint()(view)[self._window(frame)]
        if np.isfinite(away).any():
            # A bubble is a lens: a dark ring where light leaves the objective, a bright middle, a spot of the lamp.
            ring = np.exp(-(((away - 0.93) / 0.09) ** 2))
            share = np.clip((1 - away) * self.scene.bubble_um[frame][2] / self.scene.pixel.mean() + 0.5, 0, 1)
            lens = 0.55 * ideal + 0.32 - 0.45 * ring + 0.5 * np.exp(-((away / 0.16) ** 2))
            ideal = ideal * (1 - share) + lens * share
        exposed = self.instrument.expose(ideal, frame)
        exposed[text > 0] = 1.0
        return to_uint8(exposed)
