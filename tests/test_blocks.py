"""Regions found slab by slab are those of the whole volume, to the voxel and in the same order."""

import math

import numpy as np
import pytest
from scipy import ndimage

from seg.blocks import RegionFinder, neighbourhood, slabs


def scan(mask, *, corners, halo, max_voxels):
    finder = RegionFinder(mask.shape, corners=corners)
    ids = np.zeros(mask.shape, np.int64)
    for slab in slabs(mask.shape, halo=halo, max_voxels=max_voxels):
        found, before = finder.add(mask[slab.read], slab)
        owned = found[slab.inner].astype(np.int64)
        ids[slab.owned] = np.where(owned > 0, owned + before, 0)
    regions = finder.regions()
    return regions, regions.of_provisional[ids]


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(("halo", "slices"), [(1, 1), (1, 3), (4, 2), (4, 7), (2, 100)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_slabs_give_the_labels_of_the_whole(rng, corners, halo, slices, share):
    # Blobs near the percolation threshold: regions that meet, part and meet again far from where they began.
    mask = ndimage.uniform_filter(rng.random((23, 19, 17)), 2) < np.quantile(rng.random(1000), share) * 0.3 + 0.34
    expected, count = ndimage.label(mask, structure=neighbourhood(3, corners=corners))
    regions, ids = scan(mask, corners=corners, halo=halo, max_voxels=slices * 19 * 17)
    assert regions.count == count
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(regions.sizes[1:], np.bincount(expected.ravel())[1:])
    for index, box in enumerate(ndimage.find_objects(expected), start=1):
        assert regions.box(index) == box
        np.testing.assert_array_equal(
            regions.pick(index, mask[box], corners=corners), expected[box] == index
        )  # fmt: skip


def test_a_snake_through_every_slab_is_one_region():
    mask = np.zeros((40, 12, 12), bool)
    mask[:, 2, 2] = mask[:, 2, 8] = mask[39, 2, 2:9] = True
    mask[:38, 8, 5] = True
    regions, _ = scan(mask, corners=False, halo=1, max_voxels=1)
    assert regions.sizes[1:].tolist() == [85, 38]
    assert regions.cut[1:].tolist() == [True, True]


def test_counts_per_provisional_id_add_up_per_region(rng):
    mask = rng.random((30, 20, 20)) < 0.25
    finder = RegionFinder(mask.shape)
    counted = []
    for slab in slabs(mask.shape, halo=2, max_voxels=4 * 400):
        ids, before = finder.add(mask[slab.read], slab)
        counted.append((before, np.bincount(ids[slab.inner].ravel())))
    per_provisional = np.zeros(finder.count + 1, np.int64)
    for before, counts in counted:
        per_provisional[before + 1 : before + len(counts)] += counts[1:]
    regions = finder.regions()
    np.testing.assert_array_equal(regions.total(per_provisional), regions.sizes)


def test_slabs_tile_the_volume_and_stop_at_its_ends():
    found = list(slabs((10, 5, 4), halo=2, max_voxels=60))
    assert [(s.owned.start, s.owned.stop) for s in found] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert [(s.read.start, s.read.stop) for s in found] == [(0, 5), (1, 8), (4, 10), (7, 10)]
    assert [(s.inner.start, s.inner.stop) for s in found] == [(0, 3), (2, 5), (2, 5), (2, 3)]
    # A slab has at least one slice, however large that is.
    assert sum(1 for _ in slabs((3, 1000, 1000), max_voxels=10)) == 3


def test_nothing_and_slabs_without_overlap(rng):
    regions, ids = scan(np.zeros((6, 5, 4), bool), corners=True, halo=1, max_voxels=20)
    assert (regions.count, ids.sum()) == (0, 0)
    finder = RegionFinder((6, 5, 4))
    first, second, *_ = slabs((6, 5, 4), halo=0, max_voxels=60)
    finder.add(np.ones((3, 5, 4), bool), first)
    with pytest.raises(ValueError, match="halo of 1 or more"):
        finder.add(np.ones((3, 5, 4), bool), second)


def test_two_dimensions_go_the_same_way(rng):
    mask = rng.random((64, 50)) < 0.5
    expected, count = ndimage.label(mask, structure=neighbourhood(2, corners=True))
    regions, ids = scan(mask, corners=True, halo=1, max_voxels=9 * 50)
    assert regions.count == count
    np.testing.assert_array_equal(ids, expected)
    assert regions.sizes.sum() == mask.sum()
    assert math.isclose(regions.sizes[1:].mean(), mask.sum() / count)
