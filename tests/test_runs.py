import numpy as np
import pytest

from seg import runs
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


def test_a_run_ends_with_its_row():
    found = Runs.of(np.array([[0, 5, 5], [5, 5, 0]]))
    assert found.start.tolist() == [1, 3]
    assert found.length.tolist() == [2, 2]
