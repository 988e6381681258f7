"""The cycler on the image clock: a ramp of 2 mV/s and 1 mA, so each value at each frame is known."""

import numpy as np
import pandas as pd
import pytest

from seg.electrochem import align_to_frames
from seg.errors import DataError


@pytest.fixture
def cycler():
    time_s = np.array([0.0, 10.0, 20.0, 30.0])
    return pd.DataFrame(
        {
            "time_s": time_s, "voltage_V": 0.002 * time_s, "current_mA": [-1.0, -1.0, 1.0, 1.0],
            "capacity_mAh": time_s / 3600, "cycle": pd.array([1, 1, 2, 2], dtype="Int64"),
            "half_cycle": ["plating", "plating", "stripping", "stripping"],
        }
    )  # fmt: skip


def test_values_are_linear_between_records_and_labels_are_those_of_the_last_record(cycler):
    table = align_to_frames(cycler, [0.0, 5.0, 19.9, 20.0, 30.0])
    np.testing.assert_allclose(table["voltage_V"], [0.0, 0.010, 0.0398, 0.040, 0.060], atol=1e-12)
    np.testing.assert_allclose(table["current_mA"], [-1, -1, 0.98, 1, 1], atol=1e-12)
    assert table["half_cycle"].tolist() == ["plating", "plating", "plating", "stripping", "stripping"]
    assert table["cycle"].tolist() == [1, 1, 1, 2, 2]
    assert table["frame"].tolist() == [0, 1, 2, 3, 4]


def test_offset_is_image_time_at_the_cyclers_zero(cycler):
    table = align_to_frames(cycler, [0.0, 5.0], offset_s=-12.5)
    np.testing.assert_allclose(table["voltage_V"], [0.025, 0.035], atol=1e-12)
    assert table["time_s"].tolist() == [0.0, 5.0]


def test_nothing_is_extrapolated(cycler):
    table = align_to_frames(cycler, [-0.1, 0.0, 30.0, 30.1, np.nan])
    assert table["voltage_V"].isna().tolist() == [True, False, False, True, True]
    assert table["cycle"].isna().tolist() == [True, False, False, True, True]
    assert table["half_cycle"].tolist() == ["", "plating", "stripping", "", ""]


def test_shifting_both_clocks_changes_nothing(cycler):
    moved = cycler.assign(time_s=cycler["time_s"] + 1000.0)
    a = align_to_frames(cycler, [3.0, 17.0])
    b = align_to_frames(moved, [3.0, 17.0], offset_s=-1000.0)
    pd.testing.assert_frame_equal(a, b)


def test_a_quantity_the_file_lacks_stays_nan(cycler):
    assert align_to_frames(cycler.assign(current_mA=np.nan), [5.0])["current_mA"].isna().all()


@pytest.mark.parametrize(
    ("change", "offset_s", "message"),
    [
        (lambda t: t.iloc[::-1], 0.0, "non-decreasing"),
        (lambda t: t.iloc[:0], 0.0, "empty"),
        (lambda t: t, float("nan"), "offset"),
    ],
)
def test_unusable_tables_are_refused(cycler, change, offset_s, message):
    with pytest.raises(DataError, match=message):
        align_to_frames(change(cycler), [1.0], offset_s=offset_s)
