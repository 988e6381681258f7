import numpy as np
import pytest
from scipy import ndimage

from seg import runs
from seg.metrics.front import moved
from seg.runs import Runs


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6), (3, 1), (0, 5)])
@pytest.mark.parametrize("block_px", [1, 2**17])
def test_runs_paint_the_array_they_were_found_in(shape, block_px, monkeypatch):
    monkeypatch.setattr(runs, "_BLOCK_PX", block_px)
    ids = np.random.default_rng(0).integers(0, 4, shape)
    found = Runs.of(ids)
    painted = np.zeros(ids.size, int)
    painted[found.flat] = np.repeat(found.value, found.length)
    assert (painted.reshape(shape) == ids).all()
    for axis in range(ids.ndim):
        assert (found.position(axis) == np.unravel_index(found.start, shape)[axis]).all()


@pytest.mark.parametrize("block_px", [1, 7, 2**17])
@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6), (0, 5)])
def test_values_are_counted_across_blocks(shape, block_px, monkeypatch):
    monkeypatch.setattr(runs, "_BLOCK_PX", block_px)
    labels = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8).repeat(3, axis=-1)
    expected = np.bincount(labels.ravel(), minlength=6)
    assert runs.value_counts(labels, 6).tolist() == expected.tolist()
    assert runs.value_counts(labels[..., ::2], 0).tolist() == np.bincount(labels[..., ::2].ravel()).tolist()


def test_a_run_ends_with_its_row():
    found = Runs.of(np.array([[0, 5, 5], [5, 5, 0]]))
    assert found.start.tolist() == [1, 3]
    assert found.length.tolist() == [2, 2]


@pytest.mark.parametrize("shape", [(40, 50), (12, 13, 14), (1, 5), (5, 1), (0, 5)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_components_are_those_of_scipy_in_the_same_order(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    found = Runs.of(mask)
    numbered = found.with_values(found.components()).painted()
    assert numbered.dtype == np.int32
    assert (numbered == ndimage.label(mask, np.ones((3,) * mask.ndim))[0]).all()


@pytest.mark.parametrize("shape", [(20, 31), (7, 8, 9)])
def test_pairs_share_the_pixels_that_two_masks_share_after_a_shift(shape):
    rng = np.random.default_rng(0)
    first, second = (rng.random(shape) < 0.4 for _ in range(2))
    runs, others = Runs.of(first), Runs.of(second)
    for offset in ((0,) * len(shape), (2, *(0,) * (len(shape) - 2), -3), (-1, *(1,) * (len(shape) - 1))):
        here, there = runs.pairs(others, offset)
        shared = runs.shared_px(others, here, there, offset[-1])
        assert (shared > 0).all()
        assert shared.sum() == np.count_nonzero(moved(first, np.array(offset)) & second)
