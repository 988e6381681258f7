"""Features of pixels against values known by formula, on anisotropic pixels."""

import numpy as np
import pytest

from seg import pixel_features as module
from seg.errors import DataError
from seg.pixel_features import feature_names, features

SPACING = (0.75, 0.5)


def named(image, spacing, name, sigmas=None):
    return features(image, spacing=spacing, sigmas=sigmas)[feature_names(image.ndim, sigmas).index(name)]


def test_a_slope_is_the_same_along_a_coarse_axis_and_a_fine_one():
    # 0.02 per unit of the finest axis along y; the pixel of y is 1.5 such units. A linear ramp has no curvature.
    y = np.arange(80)[:, None] * 1.5 * np.ones((1, 90))
    inside = (slice(40, 41), slice(40, 50))
    ramp = (0.02 * y).astype(np.float32)
    assert named(ramp, SPACING, "gradient_magnitude_2")[inside] == pytest.approx(0.02, rel=1e-4)
    assert named(ramp, SPACING, "laplacian_2")[inside] == pytest.approx(0.0, abs=1e-5)
    # the same in the larger eigenvalue of the structure tensor, squared; nothing across the slope
    assert named(ramp, SPACING, "structure_tensor_eigenvalue_1_2")[inside] == pytest.approx(4e-4, rel=1e-3)
    assert named(ramp, SPACING, "structure_tensor_eigenvalue_0_2")[inside] == pytest.approx(0.0, abs=1e-7)


def test_a_paraboloid_has_its_curvatures_as_hessian_eigenvalues():
    z, y, x = np.ogrid[:40, :50, :60]
    # second derivatives 0.006, 0.002 and -0.004 per square unit of the finest axis; z has pixels of 2 units, y of 1.5
    values = 0.003 * (2 * z - 40) ** 2 + 0.001 * (1.5 * y - 37) ** 2 - 0.002 * (x - 30) ** 2
    planes = features(values.astype(np.float32), spacing=(1.0, 0.75, 0.5), sigmas=(2.0,))
    names = feature_names(3, (2.0,))
    middle = (20, 25, 30)
    found = [planes[names.index(f"hessian_eigenvalue_{n}_2")][middle] for n in range(3)]
    # float32 of values near 1 over steps of 1: 1e-5 of rounding
    assert found == pytest.approx([-0.004, 0.002, 0.006], abs=2e-5)
    assert planes[names.index("laplacian_2")][middle] == pytest.approx(0.004, abs=3e-5)


def test_eigenvalues_in_closed_form_are_those_of_lapack():
    half = np.random.default_rng(1).normal(size=(500, 3, 3))
    matrix = (half + half.transpose(0, 2, 1)) / 2
    matrix[0], matrix[1] = np.eye(3), 0  # threefold eigenvalues, where the formula divides by zero
    upper = {(i, j): matrix[:, i, j] for i in range(3) for j in range(i, 3)}
    assert np.transpose(module._eigenvalues(upper, 3)) == pytest.approx(np.linalg.eigvalsh(matrix), abs=1e-6)


def test_local_std_of_noise_is_its_standard_deviation():
    noise = np.random.default_rng(2).normal(0.5, 0.1, (200, 200)).astype(np.float32)
    # a Gaussian window of 8 px holds about 4 pi 64 = 800 independent pixels: 2.5 % each, less on average
    assert named(noise, (1, 1), "local_std_8").mean() == pytest.approx(0.1, rel=0.02)


def test_transposing_axes_and_spacing_together_transposes_the_features():
    image = np.random.default_rng(3).random((40, 60), np.float32)
    turned = features(image.T.copy(), spacing=SPACING[::-1])
    assert np.abs(features(image, spacing=SPACING) - turned.transpose(0, 2, 1)).max() < 1e-5


def test_images_that_cannot_be_filtered_are_refused():
    image = np.zeros((8, 8))
    image[3, 3] = np.nan
    with pytest.raises(DataError, match="1 NaN"):
        features(image, spacing=SPACING)
    with pytest.raises(ValueError, match="2 positive pixel sizes"):
        features(np.zeros((8, 8)), spacing=(1.0, 0.0))
    with pytest.raises(DataError, match="not on 1 dimensions"):
        features(np.zeros(8), spacing=(1.0,))
    with pytest.raises(ValueError, match="positive numbers of pixels"):
        features(np.zeros((8, 8)), spacing=(1.0, 1.0), sigmas=(0.0,))
