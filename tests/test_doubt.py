"""Numbers of what the network was unsure of are flagged, and no others."""

import json

import numpy as np
import pytest

from seg.doubt import Confidence, Doubts, doubted
from seg.metrics.table import Measurement

VALUES = {"substrate": 2, "deposit": 3, "dendrite": 4}


@pytest.fixture
def doubts():
    """Of three frames of 1000 px the second holds unsure metal; nothing is sure in the third, which has none."""
    sums = {
        2: np.array([[900, 890], [900, 890], [1000, 590]]),
        3: np.array([[60, 57], [60, 40], [0, 0]]),
        4: np.array([[40, 30], [40, 30], [0, 0]]),
    }
    data = json.loads(json.dumps(Confidence(sums).to_dict()))
    return Doubts(Confidence.from_dict(data), VALUES, min_confidence=0.6, min_class_confidence=0.8)


def test_classes_are_judged_together_and_by_their_own_pixels(doubts):
    assert doubts.confidence.mean(0) == pytest.approx(0.977)
    assert not doubts.reason(0, ["deposit", "dendrite"])  # 87 of 100
    assert doubts.reason(0, ["dendrite"]) == "mean class probability of dendrite 0.75 is below 0.80"
    assert doubts.reason(1, ["deposit", "dendrite"]).endswith("deposit, dendrite 0.70 is below 0.80")
    assert not doubts.reason(1, ["substrate"])
    assert not doubts.reason(1)


def test_a_frame_without_a_class_is_judged_as_a_whole(doubts):
    assert doubts.reason(2, ["deposit"]) == doubts.reason(2) == "mean class probability 0.59 is below 0.60"
    assert not Doubts(doubts.confidence, VALUES, 0.5, 0.8).reason(2, ["deposit"])


def test_numbers_over_time_are_doubted_where_most_frames_are(doubts):
    rows = [Measurement("area_rate", 1.0, "um2/s", class_name=name) for name in ("dendrite", "deposit", "substrate")]
    # Dendrites in all three frames, deposits in the second and the last, the substrate in the last.
    flags = [row.flags for row in doubted(rows, doubts.in_most_frames)]
    assert flags == [("low-confidence",), ("low-confidence",), ()]


def test_masks_without_probabilities_leave_no_doubt():
    none = Doubts(Confidence.from_dict({}), VALUES, 0.6, 0.8)
    assert not none.reason(0, ["deposit"])
    assert not none.in_most_frames(["deposit"])


def test_a_row_knows_its_classes():
    assert Measurement("covered_fraction", 0.1, "1", class_name="deposit+dendrite").classes == ("deposit", "dendrite")
    assert Measurement("valid_area", 1.0, "um2").classes == ()
