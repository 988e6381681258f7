"""Intervals hold the truth about as often as they say, on a part of the twins of ``python -m seg.accuracy``."""

import math

import numpy as np
import pandas as pd
import pytest

from seg.accuracy import FAULTS, SCENES, as_markdown, run, run_scene
from seg.accuracy.plan import place_apart
from seg.accuracy.trials import Trial, binomial_interval, summarise

# Scene, masks, twins. 95 % nominal; of 50 independent intervals fewer than 43 (86 %) hold in one run of a hundred, and
# at a true share of 85 % in half of them. Metrics of one twin are not independent, so each is judged alone.
CASES = [
    ("discs", "offset", 50), ("discs in families", "exact", 60), ("points at random", "exact", 200),
    ("study of five currents", "exact", 200), ("cap on a line", "offset", 50), ("cap on a fibre", "rough", 50),
    ("core and shell", "rough", 60),
]  # fmt: skip


@pytest.mark.parametrize(("scene", "fault", "twins"), CASES)
def test_intervals_hold_the_truth(scene, fault, twins):
    found = run_scene(SCENES[scene], fault, twins=twins, seed=1).set_index("metric")
    share = found["coverage"]
    assert (found["n"] >= 0.95 * twins).all(), found["refused"]
    assert (share >= 0.86).all(), share


def test_discs_that_leave_no_room_for_the_last_are_placed_anew():
    for seed in (1, 2, 7):  # the first discs of the last two leave no room for all eight
        radii = np.random.default_rng(seed).uniform(3.0, 4.2, 8)
        low, high = np.full(2, 5.0), np.full(2, 29.0)
        spots = place_apart(np.random.default_rng(seed), radii, low, high, gap=1.5)
        apart = np.hypot(*(spots[:, None] - spots).transpose(2, 0, 1)) - radii[:, None] - radii
        assert apart[~np.eye(8, dtype=bool)].min() > 1.5
    with pytest.raises(ValueError, match="do not fit"):
        place_apart(np.random.default_rng(0), np.full(3, 20.0), low, high, gap=1.5)


def test_the_summary_counts_what_holds():
    trials = [Trial("area_rate", 10.0, v, v - 1, v + 1, "um2/s") for v in (9.5, 10.5, 12.0)]
    trials.append(Trial("area_rate", 10.0, math.nan, math.nan, math.nan, "um2/s"))
    (row,) = summarise(trials, scene="s", fault="exact").itertuples()
    assert (row.n, row.refused, row.relative) == (3, 1, True)
    assert row.bias == pytest.approx((9.5 + 10.5 + 12) / 30 - 1)
    assert row.coverage == pytest.approx(2 / 3)
    assert row.half_width == pytest.approx(0.1)
    assert (row.coverage_low, row.coverage_high) == binomial_interval(2, 3)
    # Clopper and Pearson for 2 of 3, tabulated.
    assert binomial_interval(2, 3) == pytest.approx((0.0943, 0.9916), abs=1e-4)


def test_the_table_is_made_again_by_the_same_seed():
    first, second = (pd.concat(run(share=0.02, seed=5, names=("core and shell", "points at random"))) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    text = as_markdown(first)
    assert text.count("| sei_thickness_mean (core and shell) |") == 1 + len(FAULTS)
    assert "clark_evans_ratio (points at random) | " in text
