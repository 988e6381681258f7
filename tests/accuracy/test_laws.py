"""Laws of nucleation from births alone: verdicts, and intervals where the onset or the law is in doubt."""

import numpy as np
import pytest

from seg.accuracy.laws import as_markdown, draw, study
from seg.metrics.nucleation_laws import Births, compare_laws


def test_laws_are_found_and_intervals_hold():
    table = study(n=10, seed=3, sites=(100,), frames=(40,))
    known = table[table["onset"] == "known"].set_index("law")
    # 90 % of 200 such experiments are right, so that of ten two wrong or withheld ones are no surprise.
    assert (known["right"] >= 8).all()
    assert table["wrong"].sum() <= 4  # 2 % of 200
    held = [tuple(map(int, text.split(" of "))) for text in (*table["rate_held"], *table["share_held"]) if text]
    assert sum(h for h, _ in held) >= 0.88 * sum(n for _, n in held)
    assert as_markdown(table).count("\n") == 2 + len(table)


@pytest.mark.parametrize("law", ["instantaneous", "progressive", "saturating", "mixed"])
def test_an_experiment_has_the_births_of_its_law(law):
    made = draw(np.random.default_rng(1), law, sites=20_000, frames=12, onset="known")
    at_once = made.series.births[1] / made.series.births.sum()
    first = 1 - np.exp(-made.rate_per_s)
    expected = {
        "instantaneous": 1,
        "progressive": 1 / 11,
        "saturating": first,
        "mixed": first + made.share * (1 - first),
    }
    # Of 20 000 sites; those that are born after the last frame (e^-2 of them at most) raise the share by as much.
    assert at_once == pytest.approx(expected[law], rel=0.16, abs=0.01)
    assert made.series.births[0] == 0


def test_parameters_are_read_from_the_wider_of_two_laws_that_cannot_be_told_apart():
    # 42 sites, four in ten at once and the others at 8/s, as in the worked experiment: no verdict, and the rate of the
    # narrower law leaves the truth out.
    rate, edges = 8.0, 0.05 * np.arange(17)
    expected = 42 * 0.6 * -np.diff(np.exp(-rate * edges))
    expected[0] += 42 * 0.4
    births = Births(edges, np.rint(expected).astype(int), np.ones(16))
    verdict = compare_laws(births)
    assert verdict.widest.law == "mixed"
    found = verdict.rate_constant_per_s
    assert found.low <= rate <= found.high
    assert verdict.fits["saturating"].rate_constant_per_s.low > rate


def test_the_interval_of_a_rate_holds_any_onset_within_its_doubt():
    # Sites that nucleate at 0.5/s from the middle of the first interval on.
    times = np.arange(13.0)
    edges = np.maximum(times - 0.5, 0)
    counts = np.rint(400 * -np.diff(np.exp(-0.5 * edges))).astype(int)
    verdict = compare_laws(Births(times, counts, np.ones(12), 1.0))
    assert verdict.widest.law != "progressive"
    sure, doubtful = verdict.fits["saturating"].rate_constant_per_s, verdict.rate_constant_per_s
    assert sure.high < 0.5  # the onset is wrong, and the rate with it
    assert doubtful.low < 0.5 < doubtful.high
    assert doubtful.value == pytest.approx(0.5, rel=0.03)  # rounding of the counts
