"""X-ray tomography of a solid-state cell: separator, metal with voids at the interface, filaments, isolated metal.

The scene. From the top (z = 0): solid electrolyte, metal, current collector. The interface is flat or a sum of waves.
Voids are spherical caps on the metal side of it; filaments are bent rods from the metal into the separator; isolated
metal are balls inside the separator, cracks thin discs. At rest, balls may hollow out (Kirkendall) and shrink
(galvanic corrosion), the faster the nearer they are to the collector. All are given by formulas, so a slice is made
alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from seg.errors import UsageError
from seg.labels import load_schema
from seg.stack import Calibration, Stack
from seg.synthetic.cycler import Step, run_programme
from seg.synthetic.experiment import Experiment, LazyArray
from seg.synthetic.imaging import Xct, to_uint8
from seg.synthetic.interface_scene import Scene
from seg.synthetic.looks import Look, Material, SlicePaint

LOOK = Look(
    {
        2: Material(0.92, "smooth", 1.5, 0.015),
        3: Material(0.33, "smooth", 2.5, 0.012),
        4: Material(0.33, "smooth", 2.5, 0.012),
        5: Material(0.33, "smooth", 2.5, 0.012),
        7: Material(0.14, "smooth", 2.0, 0.006),
        9: Material(0.70, "smooth", 1.6, 0.035),
    }
)
TEXTURE_ONLY = Look(
    {
        2: Material(0.5, "rolled", 1.0, 0.12),
        3: Material(0.5, "smooth", 5.0, 0.12),
        4: Material(0.5, "smooth", 5.0, 0.12),
        5: Material(0.5, "smooth", 5.0, 0.12),
        7: Material(0.5, "smooth", 2.2, 0.12),
        9: Material(0.5, "smooth", 1.0, 0.12),
    }
)


def make(
    seed: int,
    *,
    shape_px: tuple[int, int, int] = (96, 128, 128),
    n_frames: int = 1,
    dial: float = 0.35,
    texture_only: bool = False,
    voxel_um: tuple[float, float, float] = (0.60, 0.55, 0.50),
    frame_interval_s: float = 1800.0,
    contact_loss: float = 0.15,
    void_radius_um: float = 4.0,
    void_angle_deg: float = 70.0,
    tilt_deg: float = 1.5,
    waviness_um: float = 0.0,
    n_filaments: int = 3,
    filament_width_um: float = 2.4,
    filament_depth_share: float = 0.55,
    dead_share: float = 0.02,
    hollowing: float = 0.0,
    shrinkage: float = 0.0,
    loss_length_um: float = 10.0,
    n_cracks: int = 0,
) -> Experiment:
    """Volumes of the interface between lithium and a solid electrolyte.

    Parameters
    ----------
    seed : int
    shape_px : (int, int, int)
        (Z, Y, X).
    n_frames : int
        1 gives one volume (axes zyx). More give a series in which stripping opens the voids: the contact loss rises
        from a fifth of `contact_loss` to all of it.
    dial : float
        Strength of the instrument's faults, 0..1.
    texture_only : bool
        All classes get one mean grey level.
    voxel_um : (float, float, float)
        (z, y, x).
    frame_interval_s : float
    contact_loss : float
        Share of the projected interface under voids, at the end.
    void_radius_um : float
        Mean base radius of the voids at the end.
    void_angle_deg : float
        Contact angle of the voids with the separator, through the void.
    tilt_deg : float
        Of the interface and the collector against the slices.
    waviness_um : float
        Amplitude of the interface's waves; 0 = flat.
    n_filaments : int
    filament_width_um : float
    filament_depth_share : float
        How far the longest filament reaches into the separator, as a share of the separator's thickness.
    dead_share : float
        Isolated metal in units of all metal.
    hollowing, shrinkage : float
        Share of its volume that isolated metal on the interface would lose to a hollow inside, and from its outside,
        by the last frame; from frame to frame the losses rise evenly (a single frame shows all of them).
    loss_length_um : float
        Distance from the interface over which both losses fall to 1/e.
    n_cracks : int
        Flat cracks in the separator; labelled ``void``.
    """
    if min(hollowing, shrinkage) < 0 or hollowing + shrinkage >= 1:
        raise UsageError(f"The losses {hollowing:g} and {shrinkage:g} must be 0 or more, and less than 1 together.")
    parameters = {k: v for k, v in locals().items() if k != "seed"}
    scene = Scene(seed, parameters)
    look = TEXTURE_ONLY if texture_only else LOOK
    paint = lru_cache(maxsize=1)(lambda: SlicePaint(look, shape_px[1:], seed))
    instrument = Xct(shape_px[1:], seed, dial)
    seen = lru_cache(maxsize=1)(scene.view)

    def image(frame: int, z: int) -> np.ndarray:
        return to_uint8(instrument.expose(paint()(seen(frame, z), z), z + frame * shape_px[0]))

    def labels(frame: int, z: int) -> np.ndarray:
        return seen(frame, z).labels

    def instances(frame: int, z: int) -> np.ndarray:
        return seen(frame, z).instances

    times = tuple(float(t) for t in scene.times)
    calibration = Calibration(dict(zip("zyx", voxel_um, strict=True)), times if n_frames > 1 else None, "file")

    def stack(dtype: str, what, suffix: str) -> Stack:  # noqa: ANN001 - one of the three functions above
        name = f"interface-{seed}{suffix}"
        if n_frames == 1:
            return Stack(LazyArray(shape_px, dtype, lambda z: what(0, z)), "zyx", calibration, name)
        data = LazyArray((n_frames, *shape_px), dtype, lambda f: np.stack([what(f, z) for z in range(shape_px[0])]))
        return Stack(data, "tzyx", calibration, name)

    lead_s = 120.0 + seed % 13
    cycler = run_programme(
        np.random.default_rng([seed, 5]), [Step(max(times[-1], frame_interval_s), -0.5)], lead_s=lead_s, area_cm2=0.5
    )
    return Experiment(
        name=f"interface-{seed}",
        family="interface",
        seed=seed,
        modality="xct",
        images=stack("uint8", image, ""),
        labels=stack("uint8", labels, " labels"),
        instances=stack("uint16", instances, " instances"),
        schema=load_schema("lithium"),
        truth=scene.truth(),
        cycler=cycler,
        clock_offset_s=-lead_s,
        lineage=scene.lineage(),
        parameters=parameters,
    )
