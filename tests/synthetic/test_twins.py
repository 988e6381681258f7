"""Random twins as training data: every family, exact labels, the same again from the same seed."""

import numpy as np
import pytest
from scipy import ndimage

from seg.io import open_stack, read_labels
from seg.synthetic import FAMILIES
from seg.synthetic.twins import DRAWS, SEEN_BY, draw_twin, write_twins


def test_every_family_is_drawn():
    assert set(DRAWS) == set(FAMILIES)


@pytest.mark.parametrize("family", ["nucleation", "sei"])
def test_a_twin_is_a_function_of_its_seed(family):
    first, again, other = (draw_twin(family, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.images.frame(0), again.images.frame(0))
    assert not np.array_equal(first.images.frame(0), other.images.frame(0))


def test_images_and_labels_lie_on_one_grid_and_volumes_are_cut_across_their_layers(tmp_path, monkeypatch):
    monkeypatch.setattr("seg.synthetic.twins.DRAWS", {"interface": DRAWS["interface"]})
    assert write_twins(tmp_path, per_family=1, seed=2) == 1
    image = open_stack(tmp_path / "images" / "interface-0000.ome.tif")
    labels = read_labels(tmp_path / "labels" / "interface-0000.ome.tif").stack
    assert image.axes == labels.axes == "tyx"
    assert image.shape == labels.shape == (6, 64, 96)
    assert image.spacing_um == pytest.approx((0.60, 0.50))
    # Metal below, separator above: every slice shows both.
    for t in range(6):
        assert {3, 9} <= set(np.unique(labels.frame(t)).tolist())


def test_a_modality_gets_the_families_it_shows(tmp_path, monkeypatch):
    assert set().union(*SEEN_BY.values()) == set(FAMILIES)
    assert draw_twin("dendrite", 1, "sem").modality == "sem"
    assert draw_twin("dendrite", 1, "optical").modality == "optical"
    monkeypatch.setitem(SEEN_BY, "xct", ())
    assert write_twins(tmp_path, per_family=3, seed=2, modality="xct") == 0
    assert "--seed 2 --modality xct" in (tmp_path / "SOURCE.txt").read_text()


@pytest.mark.parametrize("family", ["nucleation", "droplet", "dendrite", "pits", "sei", "dead"])
def test_variety_changes_how_a_scene_looks_and_not_what_is_where(family):
    usual, varied, same = (FAMILIES[family](4, shape_px=(256, 256), n_frames=4, variety=v) for v in (0.0, 1.0, 0.0))
    assert np.array_equal(usual.labels.frame(3), varied.labels.frame(3))
    before, after = usual.images.frame(3).astype(float), varied.images.frame(3).astype(float)
    # The noise is that of the seed in both, so what differs is the look: levels stray by up to 0.14 of the range.
    assert 0.01 * 255 < np.abs(before - after).mean() < 0.3 * 255
    assert np.array_equal(before, same.images.frame(3))


def test_pits_are_drawn_in_the_sizes_of_deposits_and_in_most_frames():
    # A network that has only seen small pits calls every larger one a deposit.
    largest_um, shown = [], []
    for seed in range(8):
        twin = draw_twin("pits", seed, "optical")
        masks = [twin.labels.frame(t) == 6 for t in range(twin.labels.n_frames)]
        regions, n = ndimage.label(max(masks, key=np.sum))
        area_um2 = np.prod(twin.images.spacing_um) * ndimage.sum_labels(regions > 0, regions, range(1, n + 1))
        largest_um.append(2 * np.sqrt(np.max(area_um2) / np.pi))
        shown.append(np.mean([mask.any() for mask in masks]))
    # Half axes end between 1.5 and 6.5 um, the minor one up to 1.8 times less, each pit 15 % more or less.
    assert min(largest_um) < 4 < 8 < max(largest_um)
    assert min(shown) == 0.75  # all but the first frame of each of two cycles of four
