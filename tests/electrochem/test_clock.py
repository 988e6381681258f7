"""The offset between two clocks, found where it can be told and refused where it cannot."""

import sys
import types

import numpy as np
import pandas as pd
import pytest
import tifffile

from seg.electrochem import CyclerFile, align_to_frames, find_clock_offset, place_on_frames, read_cycler
from seg.electrochem.file_times import cycler_start, image_start, offset_from_files
from seg.errors import DataError
from seg.metrics.history import History
from seg.metrics.table import Scale, to_table

STEP_S = 7.0


HALF_CYCLES_S = (90.0, 60.0, 120.0, 80.0, 70.0, 130.0)


def cycled(rng, *, offset_s=-31.0, noise=0.005, n=60, half_cycles_s=HALF_CYCLES_S, lead_s=45.0):
    """A cycler that plates and strips in turns, and the coverage seen by images on another clock."""
    records = np.arange(0, 600.0, 1.3)
    which = np.searchsorted(lead_s + np.cumsum([0.0, *half_cycles_s]), records, side="right")
    current = np.select([which == 0, which % 2 == 1], [0.0, -2.0], 1.6)
    charge = np.concatenate([[0.0], np.cumsum(-(current[1:] + current[:-1]) / 2 * np.diff(records))]) / 3600
    cycler = pd.DataFrame({"time_s": records, "capacity_mAh": charge, "current_mA": current})
    times = np.arange(n) * STEP_S
    q = np.interp(times - offset_s, records, charge)
    # The same charge covers less and less; the outline is uncertain.
    covered = 3000 * q * (1 - 0.0005 * times) + 0.02 * times + rng.normal(0, noise * 3000 * np.ptp(q), n)
    return times, covered, cycler


@pytest.mark.parametrize("offset_s", [-31.0, 0.0, 60.0])
def test_offset_is_found_within_its_interval_and_a_third_of_a_frame(rng, offset_s):
    found = find_clock_offset(*cycled(rng, offset_s=offset_s))
    # The moment of each of six changes of the current shows in one interval between frames; noise is 8 % of a change.
    assert found.offset_s == pytest.approx(offset_s, abs=STEP_S / 3)
    assert found.high_s - found.low_s < 2 * STEP_S
    assert found.chance < 1e-4


def test_interval_holds_the_truth(rng):
    hits = 0
    for _ in range(20):
        found = find_clock_offset(*cycled(rng, noise=0.02))
        hits += found.low_s <= -31.0 <= found.high_s
    assert hits >= 17  # 95 %; three misses in 20 have a probability of 2 %


def test_constant_current_is_refused(rng):
    times = np.arange(20) * 10.0
    cycler = pd.DataFrame({"time_s": np.arange(0, 300.0), "capacity_mAh": np.arange(0, 300.0) / 3600})
    with pytest.raises(DataError, match="does not change"):
        find_clock_offset(times, times**0.7, cycler)


def test_coverage_that_does_not_follow_is_refused(rng):
    times, covered, cycler = cycled(rng)
    with pytest.raises(DataError, match="beyond chance"):
        find_clock_offset(times, rng.normal(size=len(times)), cycler)
    with pytest.raises(DataError, match="7 frames"):
        find_clock_offset(times[:5], covered[:5], cycler)


def test_periodic_current_is_matched_right_or_refused(rng):
    refused = 0
    for _ in range(8):
        # A shift by one of many equal cycles fits nearly as well; with this noise it sometimes fits as well.
        try:
            found = find_clock_offset(*cycled(rng, half_cycles_s=[21.0] * 30, noise=0.05))
        except DataError as error:
            refused += "fit the coverage alike" in str(error)
        else:
            assert found.offset_s == pytest.approx(-31.0, abs=STEP_S / 2)
    assert refused > 0


def test_drift_stretches_the_clock():
    cycler = pd.DataFrame({"time_s": [0.0, 7200.0], "voltage_V": [0.0, 1.0], "current_mA": [-1.0, -1.0],
                           "capacity_mAh": [0.0, 2.0], "cycle": [1, 1], "half_cycle": ["plating"] * 2})  # fmt: skip
    frames = align_to_frames(cycler, [10.0, 3616.0], offset_s=10.0, drift_s_per_h=6.0, electrode_area_cm2=0.5)
    # After an hour of the cycler the image clock shows an hour and 6 s more.
    assert frames["capacity_mAh"].tolist() == pytest.approx([0.0, 1.0])
    assert frames["areal_capacity_mAh_per_cm2"].tolist() == pytest.approx([0.0, 2.0])
    assert frames["current_density_mA_per_cm2"].tolist() == pytest.approx([-2.0, -2.0])


def test_bad_area_and_drift_are_named():
    cycler = pd.DataFrame({"time_s": [0.0]})
    with pytest.raises(DataError, match="electrode area is 0"):
        align_to_frames(cycler, [0.0], electrode_area_cm2=0.0)
    with pytest.raises(DataError, match="drift is nan"):
        align_to_frames(cycler, [0.0], drift_s_per_h=float("nan"))


def test_conditions_come_from_plating(rng):
    electrochem = pd.DataFrame(
        {"frame": range(6), "cycle": [1] * 6, "half_cycle": ["rest", *["plating"] * 2, *["stripping"] * 3],
         "current_density_mA_per_cm2": [0.0, -2.0, -2.2, 1.0, 1.0, 1.0],
         "areal_capacity_mAh_per_cm2": [0.0, 0.1, 0.4, 0.3, 0.2, 0.1]}
    )  # fmt: skip
    history = History(to_table([]), Scale((0.5, 0.4)), electrochem=electrochem)
    assert history.conditions == {
        "current_density_mA_per_cm2": pytest.approx(2.1), "areal_capacity_mAh_per_cm2": pytest.approx(0.4)
    }  # fmt: skip
    assert [(c.kind, c.frames.tolist()) for c in history.half_cycles()] == [
        ("rest", [0]), ("plating", [1, 2]), ("stripping", [3, 4, 5]),
    ]  # fmt: skip


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "cycler.csv"
    path.write_text("time_s,voltage_V,current_mA\n0,0.1,-1\n100,0.1,-1\n", encoding="utf-8")
    return path


def test_place_says_what_it_took_for_granted(csv):
    placed = place_on_frames(CyclerFile(csv, electrode_area_cm2=2.0), [0.0, 50.0, 150.0], name="v", image=csv)
    assert [text[:20] for text in placed.warnings] == ["No offset between th", "1 of 3 frames lie ou"]
    assert placed.record["offset_s"] == 0.0
    assert placed.table["current_density_mA_per_cm2"].tolist()[:2] == [-0.5, -0.5]
    full_cell = place_on_frames(CyclerFile(csv, offset_s=0.0, plating_current="positive"), [0.0], name="v", image=csv)
    assert full_cell.table["half_cycle"].tolist() == ["stripping"]
    assert full_cell.warnings == ()


def test_place_refuses_what_cannot_be(csv):
    with pytest.raises(DataError, match="No frame of 'v'"):
        place_on_frames(CyclerFile(csv, offset_s=1e6), [0.0, 50.0], name="v", image=csv)
    with pytest.raises(DataError, match="no frame times"):
        place_on_frames(CyclerFile(csv), None, name="v", image=csv)
    with pytest.raises(DataError, match="add `cover"):
        place_on_frames(CyclerFile(csv, clock="coverage"), [0.0, 50.0], name="v", image=csv)
    with pytest.raises(DataError, match="does not say when"):
        place_on_frames(CyclerFile(csv, clock="files"), [0.0, 50.0], name="v", image=csv)


def test_dates_in_files_give_the_offset(tmp_path):
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, np.zeros((4, 5), np.uint8), datetime="2023:04:16 11:06:30")
    biologic = tmp_path / "a.mpt"
    biologic.write_text("EC-Lab ASCII FILE\nAcquisition started on : 04/16/2023 11:05:00.500\n", encoding="latin-1")
    gamry = tmp_path / "a.dta"
    gamry.write_text("EXPLAIN\nDATE\tLABEL\t4/16/2023\tDate\nTIME\tLABEL\t11:07:00\tTime\n", encoding="latin-1")
    assert image_start(image).isoformat() == "2023-04-16T11:06:30"
    # The cycler started 89.5 s before the first image, so the image clock shows -89.5 s at its zero.
    assert offset_from_files(image, biologic) == pytest.approx(-89.5)
    assert offset_from_files(image, gamry) == pytest.approx(30.0)
    records = tmp_path / "a.csv"
    records.write_text("Date_Time,Current(mA)\n2023-04-16 11:06:00,1\n", encoding="utf-8")
    assert cycler_start(records).isoformat() == "2023-04-16T11:06:00"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        # As Arbin and Maccor write it; the first record is 10 s old.
        (
            "Test_Time(s),Date_Time,Current(A)\n10.5,03/14/2026 09:27:04.000,0\n20.5,03/14/2026 09:27:14.000,0\n",
            "utf-16",
        ),
        ("Test (Sec)\tAmps\tState\tDPt Time\n10.5\t0\tR\t03/14/2026 09:27:04 AM\n11\t0\tR\tsuspended\n", "latin-1"),
    ],
)
def test_dates_of_records_give_the_start_of_their_clock(tmp_path, text, encoding):
    path = tmp_path / "cell.txt"
    path.write_bytes(text.encode(encoding))
    assert cycler_start(path).isoformat() == "2026-03-14T09:26:53.500000"


def test_a_day_without_a_time_is_no_start(tmp_path):
    path = tmp_path / "cell.csv"
    path.write_text("DataPoint,Total Time,Current(mA),Date\n1,0:00:00,0,2026-03-14\n2,0:00:01,0,2026-03-14\n", "utf-8")
    assert cycler_start(path) is None


def test_neware_files_are_read_by_their_package(tmp_path, monkeypatch):
    path = tmp_path / "cell.ndax"
    path.write_bytes(b"PK")
    records = pd.DataFrame(
        {"Index": [1, 2, 3, 4], "Cycle": [1, 1, 1, 1], "Step": [1, 1, 2, 2],
         "Status": ["CC_DChg", "CC_DChg", "CC_Chg", "CC_Chg"], "Time": [0.0, 60.0, 0.0, 60.0],
         "Voltage": [0.1, 0.05, 0.2, 0.3], "Current(mA)": [-3.0, -3.0, 3.0, 3.0],
         "Charge_Capacity(mAh)": [0.0, 0.0, 0.0, 0.05], "Discharge_Capacity(mAh)": [0.0, 0.05, 0.05, 0.05],
         "Timestamp": pd.to_datetime(["2024-01-01 10:00:00", "2024-01-01 10:01:00", "2024-01-01 10:01:00",
                                      "2024-01-01 10:02:00"])}
    )  # fmt: skip
    module = types.SimpleNamespace(read=lambda file, log_level: records)
    monkeypatch.setitem(sys.modules, "NewareNDA", module)
    table = read_cycler(path)
    assert table["time_s"].tolist() == [0, 60, 60, 120]
    assert table["half_cycle"].tolist() == ["plating", "plating", "stripping", "stripping"]
    assert table["capacity_mAh"].tolist() == pytest.approx([0, 0.05, 0.05, 0.0])
    monkeypatch.setitem(sys.modules, "NewareNDA", None)
    with pytest.raises(DataError, match=r"pip install operandoseg\[echem\]"):
        read_cycler(path)
