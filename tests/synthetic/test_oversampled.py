"""Truth of every family against a rendering of the same scene on a finer grid, which no part of the truth looks at.

A region with a boundary of B fine pixels is off by about sqrt(B) / 6 of them at pixel centres (an edge along the grid:
up to half a pixel of its length); the bounds are for four points per pixel and axis (volumes: six along z and three
across). Measured: 1e-5 to 1.4e-3, the largest for nuclei of 15 px and for voids.
"""

import math
from importlib import import_module

import numpy as np
import pytest

from seg.synthetic import make_experiment
from seg.synthetic.interface_scene import Scene as Cell
from seg.synthetic.nucleation_scene import Scene as Foil

FINER = 4
# family: options, frame, class values -> (metric, class)
CASES = {
    "droplet": ({"shape_px": (120, 150), "n_frames": 5, "support": "tilted"}, 3, {(3,): ("covered_area", "deposit")}),
    "dendrite": ({"shape_px": (150, 170), "n_frames": 4, "n_trees": 2, "moss_um": 1.5}, 3,
                 {(4,): ("covered_area", "dendrite"), (3,): ("covered_area", "deposit")}),
    "pits": ({"shape_px": (150, 160), "n_frames": 8}, 3,
             {(6,): ("pit_opening_area", "pit"), (3,): ("covered_area", "deposit")}),
    "dead": ({"shape_px": (150, 170), "n_frames": 8}, 7,
             {(3, 5): ("covered_area", "deposit+dead_lithium")}),
}  # fmt: skip
BOUND = {"droplet": 2e-3, "dendrite": 3e-3, "pits": 3e-3, "dead": 3e-3}


@pytest.mark.parametrize("family", CASES)
def test_areas(family):
    options, frame, classes = CASES[family]
    made = make_experiment(family, 3, burnt_in=False, **options)
    scene = import_module(f"seg.synthetic.{family}")._Scene(3, dict(made.parameters))
    scene.shape = tuple(FINER * n for n in scene.shape)
    scene.pixel = tuple(d / FINER for d in scene.pixel)
    labels = scene.view(frame).labels
    for values, (metric, name) in classes.items():
        rows = [m for m in made.truth if (m.metric, m.class_name, m.frame, m.object_id) == (metric, name, frame, None)]
        drawn = np.isin(labels, values).sum() * math.prod(scene.pixel)
        assert drawn == pytest.approx(rows[0].value, rel=BOUND[family])


def test_nucleation():
    made = make_experiment("nucleation", 3, shape_px=(150, 160), n_frames=6, frame_interval_s=300.0, bubble=False,
                           burnt_in=False)  # fmt: skip
    scene = Foil(3, dict(made.parameters), np.asarray(made.images.frame_times_s))
    reached, _, _ = scene.arrival(np.zeros(2, int), np.array(scene.shape), FINER)
    for frame in (2, 5):
        drawn = (reached <= scene.growth[frame]).mean()
        assert drawn == pytest.approx(made.truth_value("covered_fraction", frame=frame), rel=2e-3)


def test_shells():
    made = make_experiment("sei", 3, shape_px=(240, 250), n_particles=2, n_whiskers=1, core_radius_um=0.012)
    scene = import_module("seg.synthetic.sei")._Scene(3, dict(made.parameters))
    scene.shape = tuple(FINER * n for n in scene.shape)
    scene.pixel = tuple(d / FINER for d in scene.pixel)
    view = scene.view(0)
    for k, (index, shape) in enumerate(scene.objects, start=1):
        shell = ((view.instances == k) & (view.labels == 8)).sum() * math.prod(scene.pixel)
        core = ((view.instances == k) & (view.labels == index)).sum() * math.prod(scene.pixel)
        t, arc = (
            shape.profile() if index == 3 else (np.array([shape.thickness_um]), np.array([shape.boundary_length()]))
        )
        mean = made.truth_value("sei_thickness_mean", frame=0, object_id=k)
        diameter = mean * made.truth_value("core_to_sei_ratio", frame=0, object_id=k)
        if index == 3:
            # integral of (2 r t + t^2) / 2 over the angle, by the shell's own thickness
            phi = (np.arange(4000) + 0.5) / 4000 * 2 * math.pi
            around = shape.thickness(phi)
            assert shell == pytest.approx(math.pi * np.mean(2 * shape.radius_um * around + around**2), rel=3e-3)
            assert core == pytest.approx(math.pi * diameter**2 / 4, rel=3e-3)
        else:
            # parallel curves: area between them is the mean of their lengths times the thickness
            inner = arc.sum() - 2 * math.pi * shape.thickness_um
            assert shell == pytest.approx(shape.thickness_um * (arc.sum() + inner) / 2, rel=0.01)
        assert np.average(t, weights=arc) == pytest.approx(mean, rel=1e-9)


def test_volumes():
    options = {"shape_px": (40, 56, 52), "void_radius_um": 3.0, "n_filaments": 1, "filament_width_um": 2.4,
               "hollowing": 0.3}  # fmt: skip
    made = make_experiment("interface", 3, **options)
    scene = Cell(3, dict(made.parameters))
    finer = (6, 3, 3)  # the interface lies almost along the slices
    scene.shape = tuple(k * n for k, n in zip(finer, scene.shape, strict=True))
    scene.voxel = tuple(d / k for k, d in zip(finer, scene.voxel, strict=True))
    counts = np.zeros(11)
    for z in range(scene.shape[0]):
        counts += np.bincount(scene.view(0, z).labels.ravel(), minlength=11)
    volume = counts * math.prod(scene.voxel)
    assert volume[7] == pytest.approx(made.truth_value("void_volume", frame=0), rel=0.01)
    assert volume[3] + volume[4] == pytest.approx(made.truth_value("volume", frame=0), rel=1e-3)
    assert volume[5] == pytest.approx(made.truth_value("dead_volume", frame=0), rel=0.01)
