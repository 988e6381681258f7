"""Calibration of probabilities whose truth is drawn from known probabilities."""

import numpy as np
import pandas as pd
import pytest

from seg.reliability import (
    calibration_error,
    draw_reliability,
    fit_temperature,
    reliability,
    temper,
    top_choice,
)


def drawn(rng, n=40_000, spread=1.5):
    """True probabilities of three classes, and labels drawn from them."""
    logits = rng.normal(0, spread, (n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (rng.random((n, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return p, np.eye(3, dtype=bool)[label]


def error_of(p, allowed):
    return calibration_error(reliability(*top_choice(p, allowed)))


def test_the_error_is_the_mean_gap_between_stated_and_seen():
    # 0.9 stated of ten that are right six times, 0.6 of ten that are right five times
    confidence = np.repeat([0.9, 0.6], 10)
    correct = np.r_[np.arange(10) < 6, np.arange(10) < 5]
    table = reliability(confidence, correct, n_bins=10)
    assert table["accuracy"].tolist() == [0.5, 0.6]
    assert calibration_error(table) == pytest.approx((0.3 + 0.1) / 2)
    assert np.isnan(calibration_error(table.iloc[:0]))


def test_certainty_falls_into_the_last_bin():
    table = reliability(np.array([1.0, 0.0]), np.array([True, False]), n_bins=4)
    assert table[["low", "high"]].values.tolist() == [[0.0, 0.25], [0.75, 1.0]]


def test_true_probabilities_are_calibrated_and_keep_their_temperature(rng):
    p, allowed = drawn(rng)
    # 15 bins of thousands of draws: 1/sqrt(2700) = 0.02 each, much less on average
    assert error_of(p, allowed) < 0.01
    assert fit_temperature(p, allowed) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("temperature", [0.4, 2.5])
def test_a_wrong_temperature_is_found_and_undone(rng, temperature):
    p, allowed = drawn(rng)
    wrong = temper(p, temperature, axis=1)
    found = fit_temperature(wrong, allowed)
    assert found == pytest.approx(1 / temperature, rel=0.03)
    mended = temper(wrong, found, axis=1)
    assert error_of(wrong, allowed) > 0.08
    assert error_of(mended, allowed) < 0.01
    assert (mended.argmax(axis=1) == wrong.argmax(axis=1)).all()


def test_labels_that_leave_classes_open_calibrate_their_sum(rng):
    p, allowed = drawn(rng)
    # one of the first two, unknown which: as one class they are as calibrated as before
    joined = allowed.copy()
    joined[:, :2] |= allowed[:, :2].any(axis=1, keepdims=True)
    assert error_of(p, joined) < 0.01
    confidence, correct = top_choice(np.array([[0.4, 0.3, 0.3]]), np.array([[False, True, True]]))
    assert confidence == pytest.approx([0.6])
    assert correct.tolist() == [True]
    assert fit_temperature(temper(p, 2.0, axis=1), joined) == pytest.approx(0.5, rel=0.05)


def test_nothing_to_fit_leaves_the_temperature():
    assert fit_temperature(np.empty((0, 3)), np.empty((0, 3), bool)) == 1.0


def test_the_plot_is_a_picture(tmp_path):
    table = pd.DataFrame({"low": [0.5], "high": [1.0], "n": [3], "confidence": [0.8], "accuracy": [0.7]})
    path = draw_reliability({"network": table}, tmp_path / "plots" / "reliability.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
