"""Proof-reading tools on shapes whose answer is known, with pixels that are 0.4 wide and 0.6 high."""

import numpy as np
import pytest

from napari_plugin import edits
from seg.errors import UsageError

SPACING = (0.6, 0.4)


def applied(labels: np.ndarray, edit: edits.Edit) -> np.ndarray:
    after = labels.copy()
    after[edit.indices] = edit.values
    return after


def disc(shape, centre, radius, spacing=SPACING):
    grids = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grids, centre, spacing, strict=True)) <= radius**2


def test_hole_is_filled_and_a_bay_is_not():
    labels = np.full((20, 30), 1, np.uint8)
    labels[4:12, 4:14] = 3
    labels[6:8, 6:9] = 1  # hole of 6 pixels
    labels[4:6, 10:12] = 1  # bay, open to the outside
    after = applied(labels, edits.fill_holes(labels, 3))
    assert (after[6:8, 6:9] == 3).all()
    assert (after[4:6, 10:12] == 1).all()
    assert edits.fill_holes(labels, 3).n_pixels == 6
    assert edits.fill_holes(labels, 3, max_px=5).n_pixels == 0


def test_speck_takes_the_label_around_it():
    labels = np.full((20, 30), 1, np.uint8)
    labels[10:, :] = 2
    labels[3, 3:5] = 4  # speck of 2 px in class 1
    labels[15, 3:5] = 4  # and in class 2
    labels[2:9, 15:25] = 4  # 70 px: kept
    after = applied(labels, edits.remove_specks(labels, 4, max_px=2, spacing=SPACING))
    assert (after[3, 3:5] == 1).all()
    assert (after[15, 3:5] == 2).all()
    assert (after == 4).sum() == 70


def test_smoothing_keeps_the_area_of_a_disc_and_removes_a_spur():
    labels = np.full((60, 80), 1, np.uint8)
    mask = disc(labels.shape, (30, 40), 9.0)
    labels[mask] = 3
    labels[30, 60:78] = 3  # one pixel wide
    after = applied(labels, edits.smooth(labels, 3, sigma_px=2, spacing=SPACING))
    assert not (after[30, 66:] == 3).any()
    # A Gaussian of sigma moves the outline of a disc of radius R inwards by sigma^2 / 2R = 0.04: 1 % of the area.
    assert (after == 3).sum() == pytest.approx(mask.sum(), rel=0.02)


def test_smoothing_does_not_flow_into_what_is_not_labelled():
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 3
    labels[9:11, 5] = 0
    after = applied(labels, edits.smooth(labels, 3, sigma_px=2, spacing=SPACING))
    assert not ((labels == 0) & (after != 0)).any()


def test_split_cuts_two_touching_discs_in_the_middle_and_merge_joins_them_again():
    labels = np.full((50, 90), 1, np.uint8)
    labels[disc(labels.shape, (25, 30), 8.0) | disc(labels.shape, (25, 65), 8.0)] = 3
    assert edits.region_at(labels, (25, 30))[25, 65]
    cut = applied(labels, edits.split(labels, (25, 30), spacing=SPACING))
    first, second = edits.region_at(cut, (25, 30)), edits.region_at(cut, (25, 65))
    assert not first[25, 65]
    assert first.sum() == pytest.approx(second.sum(), rel=0.05)  # one of them loses the cut
    assert set(np.unique(cut)) == {1, 3}
    joined = applied(cut, edits.merge(cut, (25, 30), (25, 65), spacing=SPACING))
    assert edits.region_at(joined, (25, 30))[25, 65]


def test_what_cannot_be_split_or_merged_is_said():
    labels = np.full((30, 30), 1, np.uint8)
    labels[disc(labels.shape, (15, 15), 4.0)] = 3
    with pytest.raises(UsageError, match="no neck"):
        edits.split(labels, (15, 15), spacing=SPACING)
    with pytest.raises(UsageError, match="two separate regions"):
        edits.merge(labels, (15, 15), (15, 16), spacing=SPACING)
    with pytest.raises(UsageError, match="no label"):
        edits.split(np.zeros((5, 5), np.uint8), (2, 2), spacing=SPACING)


def test_disc_between_two_key_frames_has_the_radius_between():
    before, after = np.full((80, 120), 1, np.uint8), np.full((80, 120), 1, np.uint8)
    before[disc(before.shape, (40, 60), 6.0)] = 3
    after[disc(after.shape, (40, 60), 14.0)] = 3
    middle = edits.between(before, after, 0.25, spacing=SPACING)
    area = (middle == 3).sum() * SPACING[0] * SPACING[1]
    assert area == pytest.approx(np.pi * 8.0**2, rel=0.03)  # outline known to a quarter of a pixel, 0.12 of 8
    assert np.array_equal(edits.between(before, after, 0, spacing=SPACING), before)
    assert np.array_equal(edits.between(before, after, 1, spacing=SPACING), after)


def test_accept_keeps_what_was_drawn_by_hand():
    labels = np.zeros((6, 8), np.uint8)
    labels[0] = 2
    prediction = np.full((6, 8), 3, np.uint8)
    prediction[:, 5:] = 4
    prediction[5] = 0
    edit = edits.accept(labels, prediction, model="forest", classes=[3])
    after = applied(labels, edit)
    assert (after[0] == 2).all()
    assert (after[1:5, :5] == 3).all()
    assert (after[:, 5:][1:] == 0).all()
    assert edit.model == "forest"
    assert (applied(labels, edits.accept(labels, prediction, model="m", overwrite=True))[0, :5] == 3).all()


def test_volume_edit_is_the_same_code():
    labels = np.full((8, 12, 16), 1, np.uint8)
    labels[2:6, 3:9, 4:12] = 7
    labels[3:5, 5:7, 6:9] = 1
    assert (applied(labels, edits.fill_holes(labels, 7))[3:5, 5:7, 6:9] == 7).all()
    assert edits.remove_specks(labels, 7, max_px=4, spacing=(0.5, 0.6, 0.4)).n_pixels == 0


def test_plane_drawn_alone_in_a_volume_is_changed_as_an_image():
    plane = np.zeros((50, 90), np.uint8)
    plane[disc(plane.shape, (25, 30), 8.0) | disc(plane.shape, (25, 65), 8.0)] = 3
    plane[20:24, 28:34] = 0
    plane[25, 82:90] = 3  # a spur, one pixel wide
    volume = np.zeros((5, *plane.shape), np.uint8)
    volume[1], volume[3] = plane, plane[::-1]
    spacing = (2.5, *SPACING)
    for edit, same in (
        (edits.fill_holes(volume, 3), edits.fill_holes(plane, 3)),
        (edits.smooth(volume, 3, sigma_px=2, spacing=spacing), edits.smooth(plane, 3, sigma_px=2, spacing=SPACING)),
    ):
        assert same.n_pixels > 0
        assert np.array_equal(applied(volume, edit)[1], applied(plane, same))
    plane = applied(plane, edits.smooth(plane, 3, sigma_px=2, spacing=SPACING))
    plane = applied(plane, edits.fill_holes(plane, 3))
    one = np.zeros_like(volume)
    one[1] = plane
    cut = applied(one, edits.split(one, (1, 25, 30), spacing=spacing))
    assert np.array_equal(cut[1], applied(plane, edits.split(plane, (25, 30), spacing=SPACING)))
    joined = applied(cut, edits.merge(cut, (1, 25, 30), (1, 25, 65), spacing=spacing))
    assert edits.region_at(joined, (1, 25, 30))[1, 25, 65]
    assert not joined[[0, 2, 3, 4]].any()
