"""The comparison of a worked experiment with its truth, on tables made by hand."""

import math

import pytest

from seg.errors import UsageError
from seg.metrics.table import Measurement, to_table
from seg.worked import WORKED, as_markdown, compare, work


def frames(metric, values, *, half=math.nan, **where):
    return [
        Measurement(metric, value, "um2", value - half, value + half, frame=k, time_s=2.0 * k, **where)
        for k, value in enumerate(values)
    ]


def test_numbers_of_every_frame_have_mean_and_rms_error():
    truth = to_table(frames("covered_area", [1.0, 2.0, 3.0]))
    found = to_table(frames("covered_area", [1.1, 2.1, 2.7], half=0.2))
    (row,) = compare(truth, found, ["covered_area"]).itertuples()
    assert (row.side, row.n, row.held) == ("each frame", 3, 2)
    assert row.mean_error == pytest.approx(-0.1 / 3)
    assert row.rms_error == pytest.approx(math.sqrt(0.11 / 3))


def test_truth_of_objects_is_their_mean_and_rates_are_compared_by_half_cycle():
    truth = to_table(
        [
            *frames("contact_angle", [50.0, 50.0], object_id=1, side="mean"),
            *frames("contact_angle", [70.0, 60.0], object_id=2, side="mean"),
            *frames("area_rate", [2.0, 2.0, -3.0]),
        ]
    )
    found = to_table(
        [
            *frames("contact_angle", [61.0, 55.0], half=2, side="mean"),
            Measurement("area_rate", 2.1, "um2/s", 2.0, 2.2, side="plating"),
            Measurement("area_rate", -2.5, "um2/s", -2.6, -2.4, side="stripping"),
        ]
    )
    table = compare(truth, found, ["contact_angle", "area_rate"])
    assert table["mean_error"].tolist() == pytest.approx([0.5, 0.1, 0.5])
    assert table["held"].tolist() == [2, 1, 0]
    text = as_markdown(table.assign(twin="t", masks="true"))
    assert "| t | true | area_rate (plating) | 2 | 2.1 [2, 2.2] | 0.1, 0.1 um2/s | 1 of 1 |" in text


def test_words_are_compared_as_words():
    truth = to_table([Measurement("nucleation_mode", 1.0, "1", method="mixed")])
    found = to_table([Measurement("nucleation_mode", 0.9, "1", method="mixed; weights: mixed 0.9")])
    (row,) = compare(truth, found, ["nucleation_mode"]).itertuples()
    assert (row.truth, row.value) == ("mixed", "mixed")


def test_unknown_experiments_are_refused(tmp_path):
    with pytest.raises(UsageError, match="X01, X02, X03"):
        work("X99", tmp_path)
    assert set(WORKED) == {"X01", "X02", "X03"}
