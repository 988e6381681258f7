"""The size at which droplets become faceted: coverage of the interval, tracks, hysteresis, a drawn series."""

import math

import numpy as np
import pandas as pd
import pytest

from seg.metrics import facets
from seg.metrics.facet_transition import measure_whole, transition_diameter
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.table import Measurement, Scale, to_table
from seg.objects import object_table
from seg.synthetic.droplet import make

UM = Scale((0.002, 0.001))


@pytest.mark.parametrize(("n", "steepness"), [(30, 6.0), (80, 12.0), (200, 4.0)])
def test_interval_holds_the_truth_as_often_as_it_says(rng, n, steepness):
    held, values, total = 0, [], 0
    for _ in range(120):
        diameter = np.exp(rng.normal(math.log(0.1), 0.5, n))
        faceted = rng.uniform(size=n) < 1 / (1 + np.exp(-steepness * np.log(diameter / 0.1)))
        value, low, high = transition_diameter(diameter, faceted)
        if math.isnan(value):
            continue
        total += 1
        values.append(value)
        held += (math.isnan(low) or low <= 0.1) and (math.isnan(high) or high >= 0.1)
    # 95 % nominal; 120 trials scatter by 2 %.
    assert 0.90 <= held / total <= 0.99
    assert np.mean(values) == pytest.approx(0.1, rel=0.03)


def test_separated_sizes_give_the_gap():
    diameter = np.array([1.0, 1.2, 1.5, 2.0, 3.0, 3.3, 4.0, 5.0])
    value, low, high = transition_diameter(diameter, diameter > 2.5)
    assert value == pytest.approx(math.sqrt(6), rel=0.02)
    assert low < 2.0 < 3.0 < high
    assert np.isnan(transition_diameter(diameter, diameter > 9)).all()
    assert np.isnan(transition_diameter(diameter, diameter > 0)).all()
    # Small ones faceted and large ones round is another law.
    assert np.isnan(transition_diameter(diameter, diameter < 2.5)).all()


def series(rng, *, n_tracks, plating_um=0.1, stripping_um=0.1, n_frames=30):
    """Rows and places of objects that grow and shrink; each has its own transition, within 6 %."""
    rows, objects = [], []
    for track in range(1, n_tracks + 1):
        own = math.exp(rng.normal(0, 0.06))
        ramp = np.concatenate([np.linspace(0.05, 0.2, n_frames // 2), np.linspace(0.2, 0.05, n_frames // 2)])
        ramp = ramp * math.exp(rng.normal(0, 0.1))
        for frame, diameter in enumerate(ramp):
            at = own * (plating_um if frame < n_frames // 2 else stripping_um)
            where = {"frame": frame, "object_id": track}
            rows.append(Measurement("equivalent_diameter", float(diameter), "um", **where))
            rows.append(Measurement("facet_fraction", 0.8 if diameter > at else 0.0, "1", **where))
            objects.append(
                {**where, "y_um": 0.0, "x_um": 1.0 * track, "area_um2": 1.0, "equivalent_diameter_um": diameter}
            )  # fmt: skip
    return History(to_table(rows), UM, pd.DataFrame(objects))


def test_tracks_count_once_and_cover(rng):
    held = 0
    for _ in range(60):
        row = measure_whole(series(rng, n_tracks=5))[0]
        held += row.low <= 0.1 <= row.high
    assert "5 tracks" in row.method
    assert held >= 54


def test_hysteresis_between_plating_and_stripping(rng):
    rows = {row.side: row for row in measure_whole(series(rng, n_tracks=6, plating_um=0.13, stripping_um=0.09))}
    assert rows["plating"].value == pytest.approx(0.13, rel=0.08)
    assert rows["stripping"].value == pytest.approx(0.09, rel=0.08)
    assert rows["stripping"].high < rows["plating"].low


def test_all_round_or_unresolved(rng):
    (row,) = measure_whole(series(rng, n_tracks=2, plating_um=9.0, stripping_um=9.0))
    assert math.isnan(row.value)
    assert row.flags == ("regime-not-reached",)
    (row,) = measure_whole(History(to_table([]), Scale((1.0, 1.0), calibrated=False)))
    assert (row.unit, row.flags) == ("px", ("uncalibrated", "regime-not-reached"))
    history = series(rng, n_tracks=1)
    values = history.table["value"].where((history.table["metric"] != "facet_fraction") | (history.table["value"] > 0))
    unresolved = History(history.table.assign(value=values), UM, history.objects)
    assert "regime-not-reached" in measure_whole(unresolved)[0].flags


def test_drawn_droplets(rng):
    experiment = make(
        1, facet_diameter_um=0.07, n_frames=16, plating_angle_deg=100, area_rate_um2_s=0.002, regime="constant-angle",
        burnt_in=False, dial=0.0,
    )  # fmt: skip
    scale, rows, objects = Scale.of(experiment.labels), [], []
    for index in range(experiment.labels.n_frames):
        frame = Frame(
            experiment.labels.frame(index), experiment.schema, scale, index, float(index), min_diameter_px=6.0,
            instances=experiment.instances.frame(index).astype(np.int32), object_classes=("deposit",),
        )  # fmt: skip
        rows += facets.measure_frame(frame)
        objects.append(object_table(frame))
    row = measure_whole(History(to_table(rows), scale, pd.concat(objects, ignore_index=True)))[0]
    # Half of the transition in the drawing is where the sides are just straight enough.
    assert row.value == pytest.approx(0.07, rel=0.05)
