"""The theory group: rows only where their inputs are known, and Sand's time only where the cell reaches it."""

import math

import pytest

from seg.errors import UsageError
from seg.metrics.table import Measurement, to_table
from seg.metrics.theory import measure_series

ELECTROLYTE = {"concentration_mol_per_L": 1.0, "diffusivity_cm2_per_s": 2.56e-6, "transference": 0.53}


def values(rows):
    return {row.metric: row for row in rows}


def test_nothing_known_gives_no_rows():
    assert measure_series(to_table([])) == []


def test_sand_time_against_the_observed_onset():
    table = to_table([Measurement("onset_time", 1000.0, "s", low=900.0, high=1100.0)])
    rows = values(measure_series(table, current_density_mA_per_cm2=11.0, gap_um=1000.0, **ELECTROLYTE))
    assert rows["sand_time"].value == pytest.approx(84734 / 121, rel=1e-3)
    assert rows["sand_time_ratio"].value == pytest.approx(1000 / (84734 / 121), rel=1e-3)
    assert rows["sand_time_ratio"].low == pytest.approx(0.9 * rows["sand_time_ratio"].value)
    assert rows["chazalviel_current"].value == pytest.approx(10.5, abs=0.02)


def test_a_thin_cell_never_reaches_sands_time():
    rows = values(measure_series(to_table([]), current_density_mA_per_cm2=10.0, gap_um=25.0, **ELECTROLYTE))
    assert math.isnan(rows["sand_time"].value)
    assert rows["sand_time"].flags == ("regime-not-reached",)
    assert values(measure_series(to_table([]), current_density_mA_per_cm2=10.0, **ELECTROLYTE))["sand_time"].flags == (
        "low-confidence",
    )


def test_nucleus_and_film():
    rows = values(
        measure_series(to_table([]), overpotential_V=-0.1, surface_energy_J_per_m2=0.5, areal_capacity_mAh_per_cm2=3.0)
    )
    assert rows["critical_radius"].value == pytest.approx(1.35, abs=0.005)
    assert rows["faraday_thickness"].value == pytest.approx(14.55, abs=0.01)
    assert rows["nucleation_barrier"].value == pytest.approx(4 / 3 * math.pi * 0.5 * 1.347e-9**2, rel=2e-3)
    bias = values(measure_series(to_table([]), overpotential_V=-5.0, surface_energy_J_per_m2=0.5))
    assert bias["critical_radius"].flags == ("extrapolated",)
    none = values(measure_series(to_table([]), overpotential_V=0.1, surface_energy_J_per_m2=0.5))
    assert math.isnan(none["critical_radius"].value)


def test_half_an_electrolyte_is_refused():
    with pytest.raises(UsageError, match="transference"):
        measure_series(to_table([]), concentration_mol_per_L=1.0)
    with pytest.raises(UsageError, match="transference"):
        measure_series(to_table([]), **{**ELECTROLYTE, "transference": 1.2})


def test_no_ratio_below_the_limit_and_doubt_where_onset_does_not_count_from_the_current():
    onset = Measurement("onset_time", 1000.0, "s", low=900.0, high=1100.0, method="on the clock of the series; seen")
    below = values(measure_series(to_table([onset]), current_density_mA_per_cm2=10.0, gap_um=25.0, **ELECTROLYTE))
    assert math.isnan(below["sand_time_ratio"].value)
    assert below["sand_time_ratio"].flags == ("regime-not-reached",)
    above = values(measure_series(to_table([onset]), current_density_mA_per_cm2=11.0, gap_um=1000.0, **ELECTROLYTE))
    assert above["sand_time_ratio"].value == pytest.approx(1000 / (84734 / 121), rel=1e-3)
    assert above["sand_time_ratio"].flags == ("low-confidence",)
    assert above["sand_time"].flags == ()
