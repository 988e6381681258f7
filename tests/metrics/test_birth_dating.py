"""Births dated back by growth: nuclei whose size is known at every time, seen from the detection limit on."""

import numpy as np
import pandas as pd
import pytest

from seg.metrics.birth_dating import dated_births
from seg.metrics.birth_series import birth_series
from seg.metrics.history import HalfCycle, History
from seg.metrics.nucleation import law_curves, measure_whole
from seg.metrics.table import Measurement, Scale, to_table
from seg.tracking import Tracking

STEP_S, N_FRAMES, LIMIT_UM = 0.5, 24, 1.0


def grown(born, rates, power, *, noise=0.0, rng=None):
    """Tracks of nuclei with diameter^power = rate (t - born), from the first frame over the detection limit on."""
    rows = []
    for number, (start, rate) in enumerate(zip(born, rates, strict=True), start=1):
        times = np.arange(N_FRAMES) * STEP_S
        diameters = np.maximum(rate * (times - start), 0) ** (1 / power)
        if noise:
            diameters = diameters * np.exp(rng.normal(0, noise, N_FRAMES))
        for frame in np.flatnonzero(diameters > LIMIT_UM):
            rows.append((number, frame, times[frame], diameters[frame], "birth"))
    return pd.DataFrame(rows, columns=["track_id", "frame", "time_s", "equivalent_diameter_um", "origin"])


def rows_of(tracks):
    first = tracks.groupby("track_id")["frame"].min()
    counts = np.bincount(first, minlength=N_FRAMES)
    rows = []
    for frame in range(N_FRAMES):
        where = {"frame": frame, "time_s": frame * STEP_S, "class_name": "deposit"}
        rows.append(Measurement("object_count", float(counts[: frame + 1].sum()), "1", **where))
        rows.append(Measurement("valid_area", 1e4, "um2", frame=frame, time_s=where["time_s"]))
        if frame:
            rows.append(Measurement("birth_count", float(counts[frame]), "1", **where))
    return to_table(rows)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_births_go_back_to_the_interval_they_fell_in(rng, power):
    born = rng.uniform(0.05, 6, 60)
    tracks = grown(born, rng.uniform(0.5, 2, 60), power)
    seen = birth_series(rows_of(tracks))
    dated = dated_births(seen, tracks)
    truth = np.bincount(np.searchsorted(seen.clock, born), minlength=N_FRAMES)
    assert dated.births.sum() == seen.births.sum() == 60
    assert np.abs(seen.births - truth).sum() > 20  # what it is for: one to four frames late
    # Without noise the line through four frames is exact, but for nuclei of which less than four are seen.
    assert np.abs(dated.births - truth).sum() <= 2
    assert f"({ {1: 'diameter', 2: 'area', 3: 'volume'}[power] } in proportion to time)" in dated.dated
    assert dated.flags == ("extrapolated",)


def test_births_stay_as_seen_where_growth_says_nothing(rng):
    noisy = grown(rng.uniform(0.05, 6, 60), np.full(60, 1.0), 2, noise=0.4, rng=rng)
    few = grown([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], 2)
    for tracks in (noisy, few, few.iloc[:0]):
        seen = birth_series(rows_of(tracks))
        dated = dated_births(seen, tracks)
        assert dated.births.tolist() == seen.births.tolist()
        assert dated.flags == ("low-confidence",)
        assert dated.dated.startswith("births as first seen")


def test_no_birth_leaves_its_half_cycle():
    tracks = grown(np.full(8, 3.2), np.full(8, 0.4), 2)
    seen = birth_series(rows_of(tracks))
    (first,) = np.flatnonzero(seen.births)
    assert np.flatnonzero(dated_births(seen, tracks).births).tolist() == [7]  # 3.2 s lies before the frame at 3.5 s
    plating = HalfCycle("plating", 1, np.arange(first - 2, N_FRAMES))
    assert np.flatnonzero(dated_births(seen, tracks, [plating]).births).tolist() == [first - 2]


def test_a_burst_seen_over_three_frames_is_one(rng):
    """Sixty nuclei born at once that grow at different rates; only when dated back do they say so."""
    tracks = grown(np.full(60, 0.1), rng.uniform(0.9, 2.4, 60), 2)
    table = rows_of(tracks)
    tracking = Tracking(tracks, pd.DataFrame(), 0, tuple(range(N_FRAMES)), tuple(np.arange(N_FRAMES) * STEP_S))
    history = History(table, Scale((0.1, 0.1)), tracking=tracking, object_classes=("deposit",))
    plain, dated = (
        {row.metric: row for row in measure_whole(history, onset_s=0.0, date_births=on) if row.frame is None}
        for on in (False, True)
    )
    assert dated["nucleation_mode"].method.startswith("instantaneous")
    assert not plain["nucleation_mode"].method.startswith("instantaneous")
    assert dated["instantaneous_fraction"].value == pytest.approx(1)
    assert "extrapolated" in dated["nucleation_mode"].flags
    assert "births dated back by growth (area" in dated["nucleation_mode"].method
    # The figure of a report draws the laws of the births that the rows hold.
    rows = to_table(measure_whole(history, onset_s=0.0, date_births=True))
    curves = law_curves(pd.concat([table, rows], ignore_index=True), onset_s=0.0)
    assert curves.law == "instantaneous"
    assert law_curves(table, onset_s=0.0).law != "instantaneous"
