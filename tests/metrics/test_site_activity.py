"""Repeated runs on a surface whose accessible share is known."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from seg.metrics.point_pattern import Window
from seg.metrics.site_activity import accessible_fraction, site_activity

SPACING = (0.5, 0.4)


@pytest.fixture(scope="module")
def barrier():
    """A Gaussian random field: what overpotential each place needs."""
    return gaussian_filter(np.random.default_rng(4).normal(size=(240, 260)), 15)


@pytest.fixture(scope="module")
def valid():
    valid = np.ones((240, 260), bool)
    valid[:60, :50] = False
    return valid


def test_the_accessible_fraction_rises_with_overpotential(barrier, valid, rng):
    for share in (0.1, 0.4, 0.8):
        open_sites = Window(valid & (barrier <= np.quantile(barrier[valid], share)), SPACING)
        found, covered = [], 0
        for _ in range(20):
            runs = [open_sites.uniform(rng.poisson(40), rng) for _ in range(6)]
            one = accessible_fraction(runs, valid, spacing=SPACING, radius=0.8)
            found.append(one.value)
            covered += one.low <= share <= one.high
        # Reading 1 / (pair correlation) within 0.8 um of patches 7 um wide: up to 12 % too high, plus sampling.
        assert np.median(found) == pytest.approx(share, rel=0.2)
        assert covered >= 16


def test_runs_without_births():
    valid = np.ones((20, 20), bool)
    nothing = accessible_fraction([np.zeros((0, 2)), np.ones((3, 2))], valid, spacing=(1.0, 1.0), radius=2.0)
    assert math.isnan(nothing.value)
    apart = accessible_fraction([np.array([[2.0, 2.0]]), np.array([[15.0, 15.0]])], valid, spacing=(1.0, 1.0), radius=1)
    assert math.isnan(apart.value)
    assert apart.high == 1


def test_activity_map(barrier, valid, rng):
    open_sites = Window(valid & (barrier <= np.quantile(barrier[valid], 0.3)), SPACING)
    runs = [open_sites.uniform(60, rng) for _ in range(8)]
    found = site_activity(runs, valid, spacing=SPACING, radius=1.5)
    assert (found.n_runs, found.n_births) == (8, 480)
    assert np.isnan(found.density[~valid]).all()
    # Smoothing with edge correction keeps the number of births, but for what crosses the edge either way.
    assert np.nansum(found.density) * 0.2 == pytest.approx(60, rel=0.05)
    assert np.nanmean(found.density[open_sites.mask]) > 4 * np.nanmean(found.density[valid & ~open_sites.mask])
    assert np.nanmedian(found.barrier_kT[open_sites.mask]) < 0
    assert 0 <= np.nanmin(found.probability) <= np.nanmax(found.probability) <= 1
    with pytest.raises(ValueError, match="run"):
        site_activity([], valid, spacing=SPACING, radius=1.5)
    with pytest.raises(ValueError, match="radius"):
        site_activity(runs, valid, spacing=SPACING, radius=0.0)
