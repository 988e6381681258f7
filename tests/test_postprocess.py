"""The clean-up of predicted masks: each rule by hand, and that no mask depends on how it is cut."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from seg.analysis import analysis_from_dict, load_analysis
from seg.errors import CalibrationError, UsageError
from seg.io import read_labels, write_labels
from seg.pipeline import RunOptions, measure
from seg.plan import cleaning_bytes
from seg.postprocess import Changed, ClassLimits, CleanUp, clean_labels, clean_slabs, make_rules
from seg.stack import Calibration

ELECTROLYTE, SUBSTRATE, DEPOSIT, DENDRITE, VOID = 1, 2, 3, 4, 7


def rules(schema, *, ndim=2, spacing_um=None, **settings):
    return make_rules(
        CleanUp(**settings), schema, ("deposit", "dendrite"), ndim=ndim, min_diameter_px=4, spacing_um=spacing_um
    )


@pytest.fixture
def frame() -> tuple[np.ndarray, np.ndarray]:
    """A deposit of 20 x 20 px with a pinhole and a piece of dendrite, a small sure one, a large doubtful one."""
    labels = np.full((60, 80), SUBSTRATE, np.uint8)
    labels[5:25, 5:25] = DEPOSIT
    labels[10:12, 10:12] = ELECTROLYTE  # pinhole
    labels[20:22, 23:25] = DENDRITE  # at the outline: four faces to the deposit, four to the substrate
    labels[40:43, 10:13] = DEPOSIT  # 9 px, less than a disc of 4 px (12.6)
    labels[40:50, 40:50] = DEPOSIT  # nowhere certain
    labels[5:9, 60:64] = DENDRITE  # 16 px, certain in one
    labels[50:60, 70:80] = ELECTROLYTE
    confidence = np.full(labels.shape, 0.95, np.float16)
    confidence[40:50, 40:50] = 0.6
    confidence[5:9, 60:64] = 0.6
    confidence[6, 61] = 0.9
    return labels, confidence


def test_specks_and_pinholes_go_and_certain_objects_stay(schema, frame):
    labels, confidence = frame
    changed = Changed()
    clean = clean_labels(labels, rules(schema), confidence, changed=changed)
    expected = labels.copy()
    expected[10:12, 10:12] = DEPOSIT
    expected[20:22, 23:25] = DEPOSIT
    expected[40:43, 10:13] = SUBSTRATE
    expected[40:50, 40:50] = SUBSTRATE
    np.testing.assert_array_equal(clean, expected)
    said = changed.by_class(schema)
    assert said["deposit"]["regions_removed"] == 2
    assert said["deposit"]["pixels_removed"] == 109
    assert said["deposit"]["pixels_added"] == 8
    assert said["deposit"]["net_change"] == pytest.approx(-101 / (labels == DEPOSIT).sum())


def test_without_probabilities_size_decides_alone(schema, frame):
    labels, _ = frame
    clean = clean_labels(labels, rules(schema))
    assert (clean[40:50, 40:50] == DEPOSIT).all()
    assert (clean[40:43, 10:13] == SUBSTRATE).all()


def test_a_class_can_have_limits_of_its_own(schema, frame):
    labels, confidence = frame
    labels[12:15, 55:58] = VOID  # 9 px
    limits = {"void": ClassLimits(min_diameter_px=3)}
    assert (clean_labels(labels, rules(schema, classes=limits), confidence)[12:15, 55:58] == VOID).all()
    assert (clean_labels(labels, rules(schema), confidence)[12:15, 55:58] == SUBSTRATE).all()


def test_a_length_counts_where_the_pixel_size_is_known(schema, frame):
    labels, confidence = frame
    # Pixels of 0.5 x 2 um: the 16 px of the certain dendrite are 16 um2, a disc of 4.51 um.
    stays = rules(schema, min_diameter_um=4.4, spacing_um=(0.5, 2.0))
    goes = rules(schema, min_diameter_um=4.6, spacing_um=(0.5, 2.0))
    assert (clean_labels(labels, stays, confidence)[5:9, 60:64] == DENDRITE).all()
    assert (clean_labels(labels, goes, confidence)[5:9, 60:64] == SUBSTRATE).all()
    with pytest.raises(CalibrationError, match="--pixel-size"):
        rules(schema, min_diameter_um=4.4)
    assert rules(schema, min_diameter_um=4.4, min_diameter_px=2).least_px[DEPOSIT] == pytest.approx(np.pi)


def test_a_speck_with_a_hole_in_it_goes_whole(schema):
    labels = np.full((30, 30), ELECTROLYTE, np.uint8)
    labels[10:13, 10:13] = DEPOSIT
    labels[11, 11] = SUBSTRATE
    assert (clean_labels(labels, rules(schema)) == ELECTROLYTE).all()


def test_an_object_of_small_pieces_stays(schema):
    """Twelve pixels of deposit and twelve of dendrite are an object of 24."""
    labels = np.full((30, 30), ELECTROLYTE, np.uint8)
    labels[10:13, 10:14] = DEPOSIT
    labels[13:16, 10:14] = DENDRITE
    np.testing.assert_array_equal(clean_labels(labels, rules(schema)) > 2, labels > 2)


def test_nothing_changes_in_a_frame_without_anything_certain(schema, rng):
    labels = np.full((20, 20), SUBSTRATE, np.uint8)
    np.testing.assert_array_equal(clean_labels(labels, rules(schema), np.zeros((20, 20))), labels)
    empty = np.zeros((20, 20), np.uint8)
    np.testing.assert_array_equal(clean_labels(empty, rules(schema)), empty)


@pytest.mark.parametrize("shape", [(61, 47), (23, 31, 37)])
def test_slabs_give_what_the_whole_gives(schema, rng, shape):
    """Regions of nine classes in a random field, most of which cross several borders of slabs."""
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 1.2) for _ in range(9)])
    fields[0] += 0.1
    labels = (fields.argmax(axis=0) + 1).astype(np.uint8)
    confidence = rng.random(shape).astype(np.float16)
    near = [np.roll(labels, 3, axis=0), np.roll(labels, 5, axis=1)]
    given = rules(schema, ndim=len(shape), min_frames=2, min_peak_probability=0.97)
    whole, parts = Changed(), Changed()
    expected = clean_labels(labels, given, confidence, neighbours=near, changed=whole)
    assert 0.02 < (expected != labels).mean() < 0.7
    for voxels in (1, labels.size // 3):
        parts = Changed()
        clean = clean_labels(labels, given, confidence, neighbours=near, changed=parts, max_voxels=voxels)
        np.testing.assert_array_equal(clean, expected)
        for name in ("before_px", "lost_px", "gained_px", "regions"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("values", "shape", "voxels"),
    [
        ((1, 3, 4), (8, 128, 128), 2 * 128**2), ((1, 2, 3, 4, 10), (8, 128, 128), 2 * 128**2),
        ((1, 2, 3, 4, 10), (400, 300), 10**4), (tuple(range(1, 11)), (400, 300), 10**6),
    ],
)  # fmt: skip
def test_masks_of_noise_take_no_more_memory_than_is_planned(schema, rng, values, shape, voxels):
    """In noise a value follows another in nearly every voxel, and each has neighbours all around."""
    labels, sure = rng.choice(np.array(values, np.uint8), shape), rng.random(shape) < 0.5
    given = rules(schema, ndim=len(shape), min_diameter_px=5)

    def clean() -> None:
        for _ in clean_slabs(lambda where: (labels[where], sure[where]), shape, given, max_voxels=voxels):
            pass

    clean()  # loads what is loaded once
    tracemalloc.start()
    clean()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < cleaning_bytes(shape, max_voxels=voxels)


def test_what_is_seen_in_one_frame_only_can_go(schema):
    alone = np.full((40, 40), SUBSTRATE, np.uint8)
    alone[5:15, 5:15] = DEPOSIT
    both = alone.copy()
    both[25:35, 25:35] = DEPOSIT
    clean = clean_labels(both, rules(schema, min_frames=2), neighbours=[alone, alone])
    np.testing.assert_array_equal(clean, alone)
    np.testing.assert_array_equal(clean_labels(both, rules(schema, min_frames=2)), both)


def test_the_section_of_an_analysis_is_checked():
    data = replace(load_analysis("sem")).to_dict()
    assert analysis_from_dict(data | {"postprocess": "none"}).postprocess is None
    given = {"min_peak_probability": 0.9, "classes": {"void": {"min_diameter_px": 2}}}
    built = analysis_from_dict(data | {"postprocess": given}).postprocess
    assert built == CleanUp(min_peak_probability=0.9, classes={"void": ClassLimits(min_diameter_px=2)})
    for section, near in (
        ({"min_diametr_px": 3}, "min_diameter_px"),
        ({"classes": {"viod": {}}}, "void"),
        ({"classes": {"void": {"min_peak": 1}}}, "min_peak_probability"),
        ({"min_peak_probability": 70}, "from 0 to 1"),
        ({"min_frames": 3}, "1 or 2"),
        ({"min_diameter_px": "large"}, "min_diameter_px"),
    ):
        with pytest.raises(UsageError, match=near):
            analysis_from_dict(data | {"postprocess": section})


def test_masks_made_elsewhere_stay_unless_asked(tmp_path, schema, frame):
    labels, _ = frame
    path = tmp_path / "masks.ome.tif"
    write_labels(
        path, labels[None], shape=(1, 60, 80), axes="tyx", calibration=Calibration({"y": 0.5, "x": 2.0}), schema=schema
    )
    for name, options, holes in (("plain", RunOptions(), True), ("clean", RunOptions(postprocess="analysis"), False)):
        (result,) = measure([path], load_analysis("sem"), tmp_path / name, options)
        assert not result.error
        kept = read_labels(result.folder / "labels.ome.tif").stack.frame(0)
        assert (kept[10, 10] == ELECTROLYTE) == holes
        assert (kept[41, 11] == DEPOSIT) == holes
