"""Masks drawn from class probabilities: as often as these say, together with their neighbours, into the intervals."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from seg.analysis import load_analysis
from seg.mask_samples import MaskSampler, draw_labels, smooth_field, spread_about
from seg.measure import measure_frames
from seg.metrics.names import METRIC_UNITS, NO_INTERVAL
from seg.postprocess import CleanUp, make_rules
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

VALUES = (1, 3, 4)
SUBSTRATE, DEPOSIT, ARTEFACT = 2, 3, 10


@pytest.mark.parametrize("shape", [(150, 170), (24, 40, 50)])
def test_a_field_has_unit_variance_and_the_correlation_asked_for(shape):
    rng = np.random.default_rng(1)
    fields = np.stack([smooth_field(shape, 6.0, rng) for _ in range(30)])
    # 30 fields of at least 300 independent places: the variance is known to 2 %; interpolation takes some of it.
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert 0.8 < fields.var() < 1.05
    apart = {d: np.mean(fields[..., d:] * fields[..., :-d]) / fields.var() for d in (1, 6, 18)}
    assert apart[1] > 0.95
    assert apart[6] == pytest.approx(np.exp(-1 / 2), abs=0.12)  # a Gaussian: correlation exp(-d^2 / 2 L^2)
    assert abs(apart[18]) < 0.08


@pytest.mark.parametrize("common", [0.0, 0.5])
def test_each_class_is_drawn_as_often_as_its_probability_says(common):
    rng = np.random.default_rng(0)
    p = np.empty((3, 40, 50), np.float32)
    p[0], p[1] = 0.6, 0.3
    p[:, :, 25:] = np.array([0.0, 0.05, 0.95])[:, None, None]
    p[2, :, :25] = 0.1
    drawn = [draw_labels(p, VALUES, rng, correlation_px=2, common_share=common) for _ in range(400)]
    labels = np.stack(drawn)
    # 400 draws: a share that all pixels have in common is known to 2.5 % (one standard deviation) at worst.
    for k, value in enumerate(VALUES):
        assert (labels[:, :, :25] == value).mean() == pytest.approx(p[k, 0, 0], abs=0.06)
        assert (labels[:, :, 25:] == value).mean() == pytest.approx(p[k, 0, -1], abs=0.06)
    assert not (labels[:, :, 25:] == VALUES[0]).any()


def test_neighbours_err_together():
    """With independent pixels every one of 20 x 20 at p = 0.5 would be a region of its own."""
    p = np.full((2, 100, 100), 0.5, np.float32)
    labels = draw_labels(p, (1, 3), np.random.default_rng(3), correlation_px=8, common_share=0.0)
    assert ndimage.label(labels == 3)[1] < 40


@pytest.fixture
def disc(schema):
    """A disc of 12 px in pixels of 0.5 x 0.25 um whose outline is known to about 2 px, and its probabilities."""
    y, x = np.mgrid[:80, :100]
    inside = 1 / (1 + np.exp((np.hypot(y - 40, x - 50) - 12) / 1.0))
    probabilities = np.stack([1 - inside, inside]).astype(np.float32)
    labels = np.where(inside > 0.5, DEPOSIT, SUBSTRATE).astype(np.uint8)
    return probabilities, Stack(labels[None], "tyx", Calibration({"y": 0.5, "x": 0.25}), "disc")


def sampler(schema, probabilities, config, n=12):
    rules = make_rules(CleanUp(), schema, ("deposit", "dendrite"), ndim=2, min_diameter_px=4, spacing_um=None)
    return MaskSampler(lambda t: probabilities, (SUBSTRATE, DEPOSIT), n, rules, config)


def test_an_uncertain_outline_widens_the_interval_of_the_cover(schema, disc):
    probabilities, stack = disc
    config = replace(load_analysis("sem"), metrics={"counting": {}, "cover": {"classes": ["deposit"]}})
    (result,) = measure_frames(Segmentation(stack, schema), config)
    again = sampler(schema, probabilities, config).widen(result.frame, result.measurements, stack)
    assert [(r.metric, r.value) for r in again] == [(r.metric, r.value) for r in result.measurements]

    def of(rows):
        return next(r for r in rows if r.metric == "covered_fraction" and r.class_name == "deposit")

    before, after = of(result.measurements), of(again)
    assert after.low < before.low
    assert after.high > before.high
    assert after.method.endswith("12 masks drawn")
    # A disc of 12 px whose outline moves by the logistic's 1.8 px gains or loses a third of its area in 95 of 100.
    assert 0.02 < (after.high - after.low) / 2 / before.value < 0.7


def test_what_the_network_was_never_sure_of_can_still_be_there(schema, disc):
    """A deposit of probability 0.4 is cleaned away from the mask, not from what may be true: it is drawn in 40 %."""
    probabilities, stack = disc
    faint = np.where(probabilities[1] > 0.5, np.float32(0.4), np.float32(0.0))
    empty = replace(stack, data=np.full_like(stack.data, SUBSTRATE))
    config = replace(load_analysis("sem"), metrics={"cover": {"classes": ["deposit"]}})
    (result,) = measure_frames(Segmentation(empty, schema), config)
    one = sampler(schema, np.stack([1 - faint, faint]), config, n=30)
    (row,) = (r for r in one.widen(result.frame, result.measurements, empty)
              if r.metric == "covered_fraction" and r.class_name == "deposit")  # fmt: skip
    assert row.value == row.low == 0
    assert row.high > (faint > 0).mean()
    assert "low-confidence" in row.flags  # the probabilities expect 0.4 of a disc, the mask holds nothing


@pytest.mark.parametrize(("given", "is_contested"), [(0.9, False), (0.7, True)])
def test_a_number_is_doubted_where_the_probabilities_expect_a_fifth_less(schema, disc, given, is_contested):
    """A mask of the disc at probability 0.9 holds 1.1 times what is expected, at 0.7 it holds 1.4 times as much."""
    probabilities, stack = disc
    metal = np.where(probabilities[1] > 0.5, np.float32(given), np.float32(0.0))
    config = replace(load_analysis("sem"), metrics={"counting": {}, "cover": {"classes": ["deposit"]}, "dendrite": {}})
    (result,) = measure_frames(Segmentation(stack, schema), config)
    rows = sampler(schema, np.stack([1 - metal, metal]), config).widen(result.frame, result.measurements, stack)
    doubted = ("covered_fraction", "object_count", "front_height")
    flags = {r.metric: r.flags for r in rows if r.object_id is None and r.metric in (*doubted, "valid_area")}
    assert set(flags) == {*doubted, "valid_area"}
    assert {"low-confidence" in flags[name] for name in doubted} == {is_contested}
    assert "low-confidence" not in flags["valid_area"]


def test_each_side_of_an_interval_has_the_spread_of_the_draws_on_it():
    drawn = np.random.default_rng(0).normal(5.0, 2.0, 4000)
    assert spread_about(5.0, drawn) == pytest.approx((5 - 1.96 * 2, 5 + 1.96 * 2), abs=0.15)  # 4000 draws: 2 %
    # Two-piece normal with 1 below and 4 above its mode: a fifth of the draws lie below.
    skew = np.concatenate([-np.abs(drawn[:800] - 5) / 2, np.abs(drawn[800:] - 5) * 2])
    assert spread_about(0.0, skew) == pytest.approx((-1.96, 4 * 1.96), rel=0.06)
    assert spread_about(0.0, [0.0, 1.0, 2.0])[0] == 0.0


def test_what_estimates_nothing_gets_no_interval(schema, disc):
    """An artefact in half of the draws changes the area looked at, and the share of it that is covered."""
    metal, stack = disc
    bubble = np.zeros_like(metal[1])
    bubble[5:25, 5:35] = 0.5
    probabilities = np.stack([*(metal * (1 - bubble)), bubble])
    config = replace(load_analysis("sem"), metrics={"counting": {}, "cover": {"classes": ["deposit"]}})
    (result,) = measure_frames(Segmentation(stack, schema), config)
    one = MaskSampler(lambda t: probabilities, (SUBSTRATE, DEPOSIT, ARTEFACT), 12, None, config)
    areas = {
        r.value for rows in one._measured(result.frame, stack, probabilities) for r in rows if r.metric == "valid_area"
    }
    assert len(areas) > 2
    rows = one.widen(result.frame, result.measurements, stack)
    setting = [r for r in rows if r.metric in ("valid_area", "detection_limit_diameter")]
    assert len(setting) == 2
    assert all(np.isnan([r.low, r.high]).all() and "drawn" not in r.method for r in setting)
    assert any(r.metric == "covered_fraction" and "12 masks drawn" in r.method for r in rows)


def test_every_p_value_and_probability_is_known_to_have_no_interval():
    tests = {name for name, (_, text) in METRIC_UNITS.items() if text.startswith(("p value", "Probability"))}
    assert len(tests) > 4
    assert tests <= set(NO_INTERVAL) <= set(METRIC_UNITS)


def test_a_certain_mask_keeps_its_intervals(schema, disc):
    probabilities, stack = disc
    config = replace(load_analysis("sem"), metrics={"counting": {}, "cover": {"classes": ["deposit"]}})
    (result,) = measure_frames(Segmentation(stack, schema), config)
    metal = (probabilities[1] > 0.5).astype(np.float32)
    certain = sampler(schema, np.stack([1 - metal, metal]), config)
    for row, before in zip(certain.widen(result.frame, result.measurements, stack), result.measurements, strict=True):
        np.testing.assert_allclose((row.low, row.high), (before.low, before.high), rtol=1e-12)
