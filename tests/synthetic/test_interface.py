import math

import numpy as np
import pytest
from scipy import ndimage

from seg.errors import UsageError
from seg.synthetic import make_experiment
from seg.synthetic.surfaces import Interface, Void, cap_volume

VOXEL = (0.60, 0.55, 0.50)


def make(seed=2, **options):
    return make_experiment("interface", seed, **{"shape_px": (72, 96, 100), **options})


def test_columns_give_the_closed_form_of_a_cap():
    """A tilted plane cuts a cap of the same volume; its base, seen along z, shrinks with the cosine of the tilt."""
    for slope in (0.0, 0.2):
        angle, base = math.radians(65), 3.0
        rise = base / math.tan(angle) / math.hypot(1, slope)
        void = Void(10 + rise * slope, 10, 20 - rise, base / math.sin(angle))
        plane = Interface(20.0, (slope, 0.0), (10.0, 10.0))
        volume, lost = void.columns(plane, 0.02)
        assert volume == pytest.approx(cap_volume(base, angle), rel=2e-3)
        assert lost == pytest.approx(math.pi * base**2 / math.hypot(1, slope), rel=3e-3)
    assert cap_volume(2.0, math.pi / 2) == pytest.approx(2 / 3 * math.pi * 8)


def test_area_of_a_wave():
    wave = Interface(0.0, waves=((0.5, 0.0, 0.1, 0.3),))
    x = (np.arange(4000) + 0.5) / 4000 * 10
    numeric = np.sqrt(1 + (0.5 * 2 * math.pi * 0.1 * np.sin(2 * math.pi * 0.1 * x + 0.3)) ** 2).mean()
    assert wave.stretch(np.zeros(1), x).mean() == pytest.approx(numeric, rel=1e-12)


def test_truth_agrees_with_the_voxels():
    made = make()
    labels, voxel = made.labels.frame(0), math.prod(VOXEL)
    void, metal = (labels == 7).sum(), np.isin(labels, (3, 4)).sum()
    # voids a few voxels high under a slightly tilted plane: some percent
    assert void * voxel == pytest.approx(made.truth_value("void_volume", frame=0), rel=0.06)
    assert metal * voxel == pytest.approx(made.truth_value("volume", frame=0), rel=0.002)
    assert (labels == 5).sum() * voxel == pytest.approx(made.truth_value("dead_volume", frame=0), rel=0.02)
    assert ndimage.label(labels == 7, np.ones((3, 3, 3)))[1] == made.truth_value("void_count", frame=0)
    assert made.truth_value("dead_fraction", frame=0) == pytest.approx(0.02, rel=1e-6)


def test_contact_loss_is_what_was_asked_for():
    made = make(contact_loss=0.12)
    assert made.truth_value("contact_loss_fraction", frame=0) == pytest.approx(0.12, abs=0.01)
    none = make(contact_loss=0.0)
    assert none.truth_value("contact_loss_fraction", frame=0) == 0
    assert none.truth_value("void_count", frame=0) == 0


def test_isolated_metal_touches_no_other_metal():
    labels = make(dead_share=0.03).labels.frame(0)
    near = ndimage.binary_dilation(labels == 5, np.ones((3, 3, 3)))
    assert not (near & np.isin(labels, (3, 4))).any()
    live = ndimage.label(np.isin(labels, (3, 4)))[1]
    assert live == 1  # filaments hang on the metal


def test_voids_open_over_time():
    made = make(shape_px=(56, 72, 70), n_frames=3, n_filaments=1, void_radius_um=3.0)
    assert made.images.axes == "tzyx"
    loss = [made.truth_value("contact_loss_fraction", frame=f) for f in range(3)]
    assert loss[0] == pytest.approx(0.2 * loss[2], rel=0.02)
    assert loss[1] == pytest.approx(0.6 * loss[2], rel=0.02)


def test_flat_void_sphericity_is_one_for_no_wall():
    """A half ball: 2^(2/3) 3^... over its surface 3 pi r^2; value from V = 2/3 pi r^3 directly."""
    made = make(void_angle_deg=90.0)
    row = next(m for m in made.truth if m.metric == "void_sphericity")
    expected = math.pi ** (1 / 3) * (6 * 2 / 3 * math.pi) ** (2 / 3) / (3 * math.pi)
    assert row.value == pytest.approx(expected, rel=1e-6)


def test_slices_are_made_alone():
    made = make()
    one = np.array(made.images.data[40])
    np.testing.assert_array_equal(made.images.frame(0)[40], one)


def test_isolated_metal_hollows_and_shrinks_near_the_metal_first():
    options = {"n_frames": 3, "hollowing": 0.3, "shrinkage": 0.2, "loss_length_um": 12.0, "dead_share": 0.04}
    made = make(shape_px=(72, 80, 84), contact_loss=0.0, n_filaments=1, **options)
    labels, voxel = [made.labels.frame(f) for f in range(3)], math.prod(VOXEL)
    for f in (0, 1, 2):
        # balls of 10 voxels and hollows of 5 across: some percent of the smaller
        assert (labels[f] == 5).sum() * voxel == pytest.approx(made.truth_value("dead_volume", frame=f), rel=0.03)
        assert (labels[f] == 7).sum() * voxel == pytest.approx(
            made.truth_value("void_volume", frame=f), rel=0.12, abs=20 * voxel
        )
    assert made.truth_value("void_count", frame=0) == 0
    assert made.truth_value("void_count", frame=2) == len(made.lineage)
    lineage, depth = made.lineage.set_index("object_id"), 0.5 * 72 * 0.60
    for k in lineage.index:
        before, after = (made.truth_value("volume", frame=f, object_id=k) for f in (0, 2))
        # the tilt of 1.5 degrees moves the interface by 0.5 um at most: 5 % of the loss
        expected = 0.5 * math.exp(-(depth - lineage.loc[k, "z_um"]) / 12.0)
        assert 1 - after / before == pytest.approx(expected, rel=0.06)
    with pytest.raises(UsageError, match="less than 1"):
        make(hollowing=0.7, shrinkage=0.4)
