import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from seg.metrics.distances import distance_to


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.7), (2.0, 0.3), (1.5, 0.4, 0.7)])
@pytest.mark.parametrize("density", [0.2, 0.001])
def test_distances_are_those_of_the_transform(spacing, density):
    rng = np.random.default_rng(0)
    shape = (70, 90) if len(spacing) == 2 else (20, 30, 40)
    mask = rng.random(shape) < density
    mask[-1, -1] = True
    at = tuple(rng.integers(0, n, 300) for n in shape)
    exact = distance_transform_edt(~mask, sampling=spacing)[at]
    assert distance_to(mask, at, spacing=spacing) == pytest.approx(exact, abs=1e-9)
    near = distance_to(mask, at, spacing=spacing, within=3.0)
    assert near == pytest.approx(np.where(exact <= 3.0, exact, np.inf), abs=1e-9)


def test_an_empty_mask_is_infinitely_far():
    assert distance_to(np.zeros((4, 5), bool), (np.array([1]), np.array([2])), spacing=(1, 1)).tolist() == [np.inf]
