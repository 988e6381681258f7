"""Births dated back by growth: nuclei whose size is known at every time, seen from the detection limit on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seg.metrics.birth_dating import dated_births
from seg.metrics.birth_series import BirthSeries, birth_series, since_onset
from seg.metrics.history import HalfCycle, History
from seg.metrics.nucleation import _law_rows as law_rows
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


def test_outlines_that_may_be_off_by_half_a_pixel_leave_the_dates_open_by_what_that_does(rng):
    """Diameters that are all one pixel too small date births late by what is allowed for, and none is as wide open."""
    born = rng.uniform(0.05, 6, 60)
    tracks = grown(born, np.full(60, 4.0), 2)
    seen = birth_series(rows_of(tracks))
    exact = dated_births(seen, tracks)
    assert (exact.early_s, exact.late_s, exact.scatter_s) == (0, 0, 0)
    small = tracks.assign(equivalent_diameter_um=tracks["equivalent_diameter_um"] - 0.2)
    doubted = dated_births(birth_series(rows_of(small)), small, pixel=0.2)
    # Of nuclei seen at a diameter of 1 to 1.7 um, growing by 4 um2/s, 0.2 um is 0.1 to 0.2 s.
    assert 0.05 < doubted.late_s < 0.25
    assert 0.05 < doubted.early_s < 0.25
    late = np.cumsum(exact.births) - np.cumsum(doubted.births)
    assert 0 <= late.mean() * STEP_S / 60 * len(late) <= 2 * doubted.late_s


def test_an_onset_in_doubt_widens_the_share_and_births_seen_late_are_never_called_at_once():
    counts = np.array([0, 30, 12, 8, 5, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    one = np.ones(17)
    series = BirthSeries(np.arange(17), np.arange(17) * STEP_S, True, counts, one, one, one, "deposit", (), True,
                         dated_back=True)  # fmt: skip
    shares = []
    for early, late in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1)):
        doubted = replace(series, early_s=early, late_s=late)
        rows = {row.metric: row for row in rows_of_laws(doubted)}
        shares.append(rows["instantaneous_fraction"])
    assert all(share.high >= shares[0].high for share in shares)
    assert shares[3].high > shares[1].high
    burst = replace(series, births=np.array([0, 1, 15, 14, 9, 3, *[0] * 11]), dated_back=False, late_s=2.5)
    mode = rows_of_laws(burst)[0]
    assert np.isnan(mode.value)
    assert "undecided between instantaneous and saturating" in mode.method
    assert rows_of_laws(burst, burst_s=3.0)[0].method.startswith("instantaneous")  # who says so himself


def rows_of_laws(series, **options):
    since = since_onset(series, 0.0, options.get("burst_s"))
    return [row for row in law_rows(series, since, (), Measurement) if row.frame is None]


def test_a_birth_at_onset_that_is_dated_a_frame_late_leaves_the_burst_a_burst():
    counts = np.array([0, 116, 3, *[0] * 14])
    one = np.ones(17)
    series = BirthSeries(np.arange(17), np.arange(17) * STEP_S, True, counts, one, one, one, "deposit", (), True,
                         dated_back=True)  # fmt: skip
    assert not rows_of_laws(series)[0].method.startswith("instantaneous")
    scattered = rows_of_laws(replace(series, scatter_s=0.12))
    assert scattered[0].method.startswith("instantaneous")
    assert scattered[0].value > 0.5
