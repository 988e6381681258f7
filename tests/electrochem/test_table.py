"""Text exports as the instruments write them, cut to a few lines; currents and charges are chosen, so all is known."""

import logging

import numpy as np
import pandas as pd
import pytest

from seg.electrochem import HALF_CYCLES, read_cycler
from seg.electrochem.table import COLUMNS
from seg.errors import DataError


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


MPT = """EC-Lab ASCII FILE
Nb header lines : 8

Galvanostatic Cycling with Potential Limitation

Electrode surface area : 0,785 cm²
Comments : 1 mA, plating then stripping
mode\tox/red\terror\tcontrol changes\ttime/s\tcontrol/V/mA\tEwe/V\t<I>/mA\t(Q-Qo)/mA.h\
\thalf cycle\tcycle number\tI Range\t
3\t0\t0\t0\t0,000000E+000\t0\t1,50E+000\t0,0E+000\t0,0E+000\t0\t0,0E+000\t41\t
1\t0\t0\t1\t3,600000E+002\t-1\t-5,00E-002\t-1,0E+000\t0,0E+000\t0\t0,0E+000\t41\t
1\t0\t0\t0\t7,200000E+002\t-1\t-4,00E-002\t-1,0E+000\t-1,0E-001\t0\t0,0E+000\t41\t
1\t1\t0\t1\t1,080000E+003\t1\t5,00E-002\t1,0E+000\t-2,0E-001\t1\t1,0E+000\t41\t
1\t1\t0\t0\t1,440000E+003\t1\t6,00E-002\t1,0E+000\t-1,0E-001\t1\t1,0E+000\t41\t
"""


def test_biologic_mpt_with_decimal_commas(tmp_path):
    table = read_cycler(write(tmp_path, "cell.mpt", MPT, "latin-1"))
    assert tuple(table.columns) == COLUMNS
    assert table["time_s"].tolist() == [0, 360, 720, 1080, 1440]
    assert table["voltage_V"].tolist() == [1.5, -0.05, -0.04, 0.05, 0.06]
    assert table["current_mA"].tolist() == [0, -1, -1, 1, 1]
    np.testing.assert_allclose(table["capacity_mAh"], [0, 0, 0.1, 0.2, 0.1], atol=1e-12)
    assert table["half_cycle"].tolist() == ["rest", "plating", "plating", "stripping", "stripping"]
    assert table["cycle"].tolist() == [0, 0, 0, 1, 1]


def test_mpt_with_decimal_points_gives_the_same_table(tmp_path):
    a = read_cycler(write(tmp_path, "comma.mpt", MPT, "latin-1"))
    b = read_cycler(write(tmp_path, "point.mpt", MPT.replace(",", "."), "latin-1"))
    pd.testing.assert_frame_equal(a, b)


def test_open_circuit_file_has_no_current_and_no_half_cycle(tmp_path):
    table = read_cycler(write(tmp_path, "ocv.mpt", "mode\terror\ttime/s\tEwe/V\n3\t0\t0.0\t2.9\n3\t0\t1.0\t2.8\n"))
    assert table["voltage_V"].tolist() == [2.9, 2.8]
    assert table[["current_mA", "capacity_mAh"]].isna().all(axis=None)
    assert table["half_cycle"].tolist() == ["", ""]


def test_plain_csv_integrates_the_current(tmp_path):
    path = write(
        tmp_path, "cell.csv", "time_s,voltage_V,current_mA\n0,-0.1,-2\n1800,-0.1,-2\n3600,-0.1,0\n7200,0.0,0\n"
    )
    table = read_cycler(path)
    # trapezoid: 2 mA for half an hour, then half of that as the current falls to zero
    np.testing.assert_allclose(table["capacity_mAh"], [0, 1.0, 1.5, 1.5], rtol=1e-12)
    assert table["half_cycle"].tolist() == ["plating", "plating", "rest", "rest"]


def test_the_table_it_returns_reads_back_as_itself(tmp_path):
    first = read_cycler(write(tmp_path, "cell.mpt", MPT, "latin-1"))
    first.to_csv(tmp_path / "again.csv", index=False)
    pd.testing.assert_frame_equal(read_cycler(tmp_path / "again.csv"), first)


def test_plating_may_be_the_positive_current(tmp_path):
    path = write(tmp_path, "cell.csv", "time_s;voltage_V;current_mA\n0;4,1;1,5\n3600;4,2;1,5\n7200;3,9;-1,5\n")
    table = read_cycler(path, plating_current="positive")
    assert table["half_cycle"].tolist() == ["plating", "plating", "stripping"]
    np.testing.assert_allclose(table["capacity_mAh"], [0, 1.5, 1.5], rtol=1e-12)  # +1.5 mAh, then a sign change: 0 net


NEWARE = """DataPoint,Cycle Index,Step Index,Step Type,Time,Total Time,Current(μA),Voltage(V),Capacity(mAh),Date
1,1,1,Rest,00:00:00,00:00:00,0,1.2,0,2026-01-05 10:00:00
2,1,2,CC DChg,00:00:00,00:01:00,-500,-0.05,0,2026-01-05 10:01:00
3,1,2,CC DChg,00:12:00,00:13:00,-500,-0.05,0.1,2026-01-05 10:13:00
4,1,3,CC Chg,00:00:00,00:13:00,500,0.05,0,2026-01-05 10:13:00
5,1,3,CC Chg,00:06:00,1-00:19:00,500,0.05,0.05,2026-01-06 10:19:00
"""


def test_neware_records_with_a_counter_that_restarts(tmp_path):
    table = read_cycler(write(tmp_path, "neware.csv", NEWARE))
    assert table["time_s"].tolist() == [0, 60, 780, 780, 86400 + 19 * 60]
    assert table["current_mA"].tolist() == [0, -0.5, -0.5, 0.5, 0.5]
    np.testing.assert_allclose(table["capacity_mAh"], [0, 0, 0.1, 0.1, 0.05], atol=1e-12)


def test_neware_layered_export_skips_the_summaries(tmp_path):
    text = (
        "Cycle ID,Cap_Chg(mAh),Cap_DChg(mAh)\n,Step ID,Step Name,Step Time(h:min:s.ms)\n"
        ",,Record ID,Time(h:min:s.ms),Voltage(V),Current(mA),Realtime\n"
        "4,0.1,0.1\n,1,CC_DChg,0:00:10.000\n"
        ",,1,0:00:00.000,-0.05,-1,2026-01-05 10:00:00\n,,2,0:00:10.000,-0.06,-1,2026-01-05 10:00:10\n"
        ",2,CC_Chg,0:00:05.000\n,,1,0:00:00.000,0.05,1,2026-01-05 10:00:11\n"
        ",,2,0:00:05.000,0.06,1,2026-01-05 10:00:16\n"
    )
    table = read_cycler(write(tmp_path, "layered.csv", text))
    assert table["time_s"].tolist() == [0, 10, 11, 16]
    assert table["voltage_V"].tolist() == [-0.05, -0.06, 0.05, 0.06]
    assert table["cycle"].tolist() == [4, 4, 4, 4]


def test_arbin_amperes_and_two_counters_reset_each_cycle(tmp_path):
    text = (
        "Data_Point,Date_Time,Test_Time(s),Step_Time(s),Step_Index,Cycle_Index,Current(A),Voltage(V),"
        "Charge_Capacity(Ah),Discharge_Capacity(Ah)\n"
        "1,01/05/2026 10:00:00,0.0,0.0,1,1,-0.001,-0.05,0,0\n2,01/05/2026 11:00:00,3600,3600,1,1,-0.001,-0.05,0,0.001\n"
        "3,01/05/2026 11:30:00,5400,1800,2,1,0.001,0.05,0.0005,0.001\n"
        "4,01/05/2026 12:00:00,7200,1800,1,2,-0.001,-0.05,0,0.0005\n"
    )
    table = read_cycler(write(tmp_path, "arbin.csv", text))
    assert table["current_mA"].tolist() == [-1, -1, 1, -1]
    assert table["cycle"].tolist() == [1, 1, 1, 2]
    np.testing.assert_allclose(table["capacity_mAh"], [0, 1.0, 0.5, 1.0], rtol=1e-12)


def test_gamry_dta_takes_the_curve_not_the_open_circuit_table(tmp_path):
    text = (
        "EXPLAIN\nTAG\tCHRONOP\nOCVCURVE\tTABLE\t2\n\tPt\tT\tVf\tVm\tAch\n"
        "\t#\ts\tV vs. Ref.\tV\tV\n\t0\t0.5\t0.30\t0.30\t0\n"
        "CURVE\tTABLE\t3\n\tPt\tT\tVf\tIm\tVu\n\t#\ts\tV vs. Ref.\tA\tV\n"
        "\t0\t1\t-0.1\t-2.0E-3\t0\n\t1\t2\t-0.2\t-2.0E-3\t0\n\t2\t3\t-0.3\t-2.0E-3\t0\nEXPERIMENTABORTED\tTOGGLE\tF\n"
    )
    table = read_cycler(write(tmp_path, "gamry.DTA", text))
    assert table["time_s"].tolist() == [1, 2, 3]
    assert table["voltage_V"].tolist() == [-0.1, -0.2, -0.3]
    np.testing.assert_allclose(table["current_mA"], -2.0, rtol=1e-12)


def test_maccor_magnitudes_take_their_sign_from_the_state(tmp_path):
    text = (
        "Today's Date\t01/05/2026\tDate of Test:\t01/04/2026\tFilename:\tcell\n"
        "Rec#\tCyc#\tStep\tTest (Sec)\tStep (Sec)\tAmp-hr\tWatt-hr\tAmps\tVolts\tState\tES\tDPt Time\n"
        "1\t0\t1\t0.00\t0.00\t0.0\t0.0\t0.0\t1.20\tR\t0\t01/04/2026 10:00:00\n"
        '2\t0\t2\t"1,000.00"\t0.00\t0.0\t0.0\t0.002\t-0.05\tD\t1\t01/04/2026 10:16:40\n'
        '3\t0\t2\t"2,800.00"\t1800.00\t0.001\t0.0\t0.002\t-0.05\tD\t1\t01/04/2026 10:46:40\n'
        '4\t0\t3\t"3,700.00"\t900.00\t0.0005\t0.0\t0.002\t0.05\tC\t1\t01/04/2026 11:01:40\n'
    )
    table = read_cycler(write(tmp_path, "maccor.txt", text))
    assert table["time_s"].tolist() == [0, 1000, 2800, 3700]
    assert table["half_cycle"].tolist() == ["rest", "plating", "plating", "stripping"]
    np.testing.assert_allclose(table["capacity_mAh"], [0, 0, 1.0, 0.5], atol=1e-12)


def test_step_times_are_joined_and_it_says_so(tmp_path, caplog):
    text = "Step Index,Step Time(s),Voltage(V),Current(mA)\n1,0,0,-1\n1,10,0,-1\n2,0,0,1\n2,5,0,1\n"
    with caplog.at_level(logging.WARNING):
        table = read_cycler(write(tmp_path, "steps.csv", text))
    assert table["time_s"].tolist() == [0, 10, 10, 15]
    assert "within steps only" in caplog.text


def test_half_cycles_are_the_three_words_of_the_contract():
    assert HALF_CYCLES == ("plating", "stripping", "rest")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.csv", b"this,is,not\na,cycler,file\n", "no row that names a time"),
        ("density.csv", b"time_s,current density (mA/cm2)\n0,1\n1,1\n", "no row that names a time"),
        ("one.csv", b"time_s,voltage_V,current_mA\n0,1,2\n", "1 record"),
        ("empty.csv", b"time_s,voltage_V,current_mA\n", "0 record"),
        ("back.csv", b"time_s,voltage_V,current_mA\n5,1,2\n3,1,2\n9,1,2\n", "time goes backwards after record 1"),
        ("words.csv", b"time_s,voltage_V\n0,1\n1,1\na,1\nb,1\nc,1\n", "not readable"),
        ("quote.csv", b'time_s,voltage_V,current_mA\n0,1,2\n1,"1,2\n2,1,2\n', "quote.csv is damaged below its header"),
        ("cell.mpr", b"BIO-LOGIC MODULAR FILE\x1a", "Export it from EC-Lab as text"),
        ("binary.csv", b"\x00\x01\x02\x03" * 50, "not a text file"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_cycler(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no cycler file .*absent\.csv"):
        read_cycler(tmp_path / "absent.csv")


def test_cycles_are_counted_where_the_file_does_not(tmp_path):
    currents = [0, -1, -1, 0, 1, 0, -1, 0, -1, 1, -1]
    lines = [f"{10 * k},{-0.05 * (c < 0)},{c}" for k, c in enumerate(currents)]
    table = read_cycler(write(tmp_path, "plain.csv", "\n".join(["time_s,voltage_V,current_mA", *lines])))
    # The rest before a current belongs to the cycle before it; a rest between two platings begins none.
    assert table["cycle"].tolist() == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    rest = read_cycler(write(tmp_path, "rest.csv", "time_s,voltage_V,current_mA\n0,0.1,0\n10,0.1,0\n"))
    assert rest["cycle"].tolist() == [1, 1]
