"""Temperature and stack pressure go with the current: from the cycler's file to every frame."""

import numpy as np
import pytest

from seg.electrochem import align_to_frames, read_cycler
from seg.electrochem.table import COLUMNS


@pytest.mark.parametrize(
    ("header", "temperature", "pressure"),
    [("Temperature/°C,pressure_kPa", 1.0, 1e-3), ("Cell Temperature(C),Stack pressure (bar)", 1.0, 0.1)],
)
def test_temperature_and_pressure_reach_the_frames(tmp_path, header, temperature, pressure):
    path = tmp_path / "cell.csv"
    rows = [f"{t},3.7,{-0.5},{25 + t / 100},{5000 - t}" for t in range(0, 1001, 100)]
    path.write_text(f"time/s,Ewe/V,current_mA,{header}\n" + "\n".join(rows), encoding="utf-8")
    cycler = read_cycler(path)
    assert list(cycler.columns) == [*COLUMNS, "temperature_C", "pressure_MPa"]
    frames = align_to_frames(cycler, [50.0, 250.0, 2000.0])
    assert frames["temperature_C"].to_numpy() == pytest.approx([25.5, 27.5, np.nan], nan_ok=True)
    assert frames["pressure_MPa"].to_numpy() / pressure == pytest.approx([4950, 4750, np.nan], nan_ok=True)


def test_without_them_the_table_is_as_it_was(tmp_path):
    path = tmp_path / "cell.csv"
    # A temperature without a unit may be in kelvin: it is not taken.
    path.write_text("time_s,voltage_V,current_mA,temperature\n0,3,1,25\n10,3,1,25\n", encoding="utf-8")
    cycler = read_cycler(path)
    assert list(cycler.columns) == list(COLUMNS)
    assert "temperature_C" not in align_to_frames(cycler, [5.0])
