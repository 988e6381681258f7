import math

import numpy as np
import pytest
from scipy import stats

from seg.uncertainty import (
    bootstrap_interval,
    boundary_shift,
    combine_intervals,
    overdispersed_interval,
    poisson_interval,
    shifted_sizes,
)


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904)])
def test_poisson_interval_has_the_tabulated_ends(count, low, high):
    # Garwood's table, four decimals.
    assert poisson_interval(count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("mean", [0.5, 3.0, 10.0, 100.0])
def test_poisson_interval_holds_the_mean_at_least_as_often_as_it_claims(mean):
    # Exact sum over all counts that matter, no sampling noise: never under 95 %; discreteness makes it up to 99 % at 3
    # counts and leaves 98 % at most from 10 on.
    counts = np.arange(int(mean + 12 * math.sqrt(mean) + 20))
    held = [low <= mean <= high for low, high in map(poisson_interval, counts)]
    coverage = stats.poisson.pmf(counts, mean)[held].sum()
    assert coverage >= 0.95 - 1e-9
    if mean >= 10:
        assert coverage <= 0.98


def test_poisson_interval_refuses_what_is_no_count():
    with pytest.raises(ValueError, match="count >= 0"):
        poisson_interval(-1)


def test_overdispersed_interval(rng):
    assert overdispersed_interval(12, 1.0) == poisson_interval(12)
    assert overdispersed_interval(0, 3.0)[0] == 0
    # Twice the variance: near a large count the half width is 1.96 sqrt(2 n), 1 % off by the skewness.
    low, high = overdispersed_interval(10_000, 2.0)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(20_000), rel=0.01)
    # Counts of variance 3 times their mean of 40 (gamma-Poisson): 1000 trials, standard error 0.7 %.
    counts = rng.poisson(rng.gamma(20, 2, 1000))
    held = [low <= 40 <= high for low, high in (overdispersed_interval(int(n), 3.0) for n in counts)]
    assert 0.93 <= np.mean(held) <= 0.98


@pytest.mark.parametrize("n", [8, 40])
def test_bootstrap_interval_of_a_mean_covers(n, rng):
    # 600 samples: standard error of the coverage 0.9 %. Lognormal sizes of CV 0.3 are mildly skewed.
    truth = math.exp(0.5 * 0.3**2)
    hits = 0
    for _ in range(600):
        low, high = bootstrap_interval(rng.lognormal(0, 0.3, n), rng=rng, n_resamples=400)
        hits += low <= truth <= high
    assert 0.92 <= hits / 600 <= 0.98


def test_bootstrap_keeps_columns_together_and_its_seed(rng):
    values = np.stack([np.arange(1.0, 30.0), 2 * np.arange(1.0, 30.0)], axis=1)
    ratio = bootstrap_interval(values, lambda v: v[..., 1].sum(axis=1) / v[..., 0].sum(axis=1), rng=rng)
    assert ratio == pytest.approx((2.0, 2.0))
    one, two = (bootstrap_interval(values[:, 0], rng=np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert np.isnan(bootstrap_interval(np.ones(1), rng=rng)).all()


def test_bootstrap_in_blocks_matches_the_interval_of_a_mean(rng):
    # 20 000 values times 1000 resamples do not fit one block. Standard error of the mean: 1/sqrt(20 000) = 0.0071.
    low, high = bootstrap_interval(rng.normal(0, 1, 20_000), rng=rng)
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.1)


def test_intervals_combine_in_quadrature():
    assert combine_intervals(10, (7, 13), (6, 14)) == pytest.approx((5, 15))
    assert combine_intervals(10, (7, 13), (math.nan, math.nan)) == (7, 13)
    assert np.isnan(combine_intervals(1.0, (math.nan, math.nan))).all()


def test_boundary_of_a_straight_edge_moves_by_the_shift():
    mask = np.zeros((20, 30), bool)
    mask[:, :12] = True
    for shift in (-1.5, -0.5, 0.0, 0.25, 0.5, 2.0):
        # 20 rows gain or lose exactly the shift; the frame's own edges do not move.
        assert boundary_shift(mask, shift).sum() == pytest.approx(20 * (12 + shift))


@pytest.mark.parametrize("radius_px", [6, 15, 30])
def test_boundary_shift_of_a_disc(radius_px):
    y, x = np.mgrid[-40:41, -40:41]
    mask = x**2 + y**2 <= radius_px**2
    low, high = shifted_sizes(mask)
    # Half a pixel of 2 pi r; slanted edges gain up to 17 % less than straight ones, 6 % on average over a disc.
    assert high - mask.sum() == pytest.approx(math.pi * radius_px, rel=0.12)
    assert mask.sum() - low == pytest.approx(math.pi * radius_px, rel=0.12)


def test_boundary_shift_counts_within_the_valid_area_and_in_3d():
    mask = np.zeros((9, 10, 11), bool)
    mask[3:6, 3:7, 3:8] = True
    valid = np.ones_like(mask)
    valid[:, :, 8:] = False
    low, high = shifted_sizes(mask, valid)
    assert low < 60 < high
    # Six faces of half a pixel, less the one behind the invalid region; edges add 4-17 % of a pixel each.
    faces = 2 * 4 * 5 + 2 * 3 * 5 + 3 * 4
    assert high - 60 == pytest.approx(faces / 2, abs=0.1 * (4 * 3 + 4 * 4 + 4 * 5))
    assert shifted_sizes(np.zeros((5, 5), bool)) == (0.0, 0.0)
    assert shifted_sizes(np.ones((5, 5), bool)) == (25.0, 25.0)


def test_boundary_shift_refuses_long_ways():
    with pytest.raises(ValueError, match="3 px at most"):
        boundary_shift(np.ones((4, 4), bool), 5)
