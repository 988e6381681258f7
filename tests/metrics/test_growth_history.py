"""Rates of half-cycles and tracks: discs whose radii follow a known programme."""

import math

import numpy as np
import pandas as pd
import pytest

from seg.metrics.frame import Frame
from seg.metrics.growth import measure_whole
from seg.metrics.history import History
from seg.metrics.table import Measurement, Scale, to_table
from seg.metrics.track_growth import _slower, blur_error
from seg.objects import label_objects, object_table
from seg.tracking import Tracker

SCALE = Scale((0.5, 0.25))
STEP_S = 3.0


def electrochem(kinds, cycles):
    return pd.DataFrame({"frame": range(len(kinds)), "half_cycle": kinds, "cycle": cycles})


def history(schema, circles, *, kinds=None, cycles=None, timed=True, scale=SCALE):
    """Follow discs (y, x, radius in um; None: not there) through frames."""
    tracker, tables, rows = Tracker(scale), [], []
    y, x = np.mgrid[:180, :360]
    for index, discs in enumerate(circles):
        labels = np.full(y.shape, schema.index("substrate"), np.uint8)
        for cy, cx, r in filter(None, discs):
            labels[np.hypot(y * scale.spacing[0] - cy, x * scale.spacing[1] - cx) <= r] = schema.index("deposit")
        time_s = index * STEP_S if timed else None
        frame = Frame(labels, schema, scale, index, time_s, object_classes=("deposit",))
        instances = label_objects(frame.mask(["deposit"]), scale=scale, split_touching=False)
        frame = Frame(labels, schema, scale, index, time_s, instances=instances, object_classes=("deposit",))
        table = object_table(frame)
        tracker.add(instances, table, frame=index, time_s=time_s)
        tables.append(table)
        area = float((instances > 0).sum()) * scale.pixel
        unit = scale.unit("um2")
        rows.append(Measurement("covered_area", area, unit, area, area, "deposit", index, time_s, flags=scale.flags))
    current = None if kinds is None else electrochem(kinds, cycles)
    return History(to_table(rows), scale, pd.concat(tables), tracker.finish(), current, ("deposit",))


def rows_of(rows, metric, *, side=None, of=None):
    chosen = [r for r in rows if r.metric == metric and (side is None or r.side == side)]
    if of == "series":
        return [r for r in chosen if r.frame is None and r.object_id is None]
    if of == "tracks":
        return [r for r in chosen if r.object_id is not None]
    return [r for r in chosen if r.frame is not None]


KINDS = [*["plating"] * 6, *["stripping"] * 5, *["plating"] * 6]
CYCLES = [*[1] * 11, *[2] * 6]
# Radius rises by 0.6 um a frame, falls by 0.5, rises by 0.7.
RADII = np.concatenate([5 + 0.6 * np.arange(6), 8 - 0.5 * np.arange(1, 6), 5.5 + 0.7 * np.arange(1, 7)])


@pytest.fixture(scope="module")
def cycled():
    from seg.labels import load_schema

    # 0.13 um off the grid: on it, the pixels of a disc scatter more.
    circles = [[(25.13, 30.07, r), (62.4, 30.2, 0.9 * r), (45.3, 66.1, r)] for r in RADII]
    return history(load_schema("lithium"), circles, kinds=KINDS, cycles=CYCLES)


def test_plating_and_stripping_have_rates_of_their_own(cycled):
    rows = measure_whole(cycled)
    (plating,) = rows_of(rows, "area_rate", side="plating", of="series")
    (stripping,) = rows_of(rows, "area_rate", side="stripping", of="series")
    assert rows_of(rows, "area_rate", side="", of="series") == []
    shape = math.pi * (1 + 0.9**2 + 1)
    expected = [
        np.polyfit(np.arange(n) * STEP_S, shape * radii**2, 1)[0]
        for n, radii in ((6, RADII[:6]), (5, RADII[6:11]), (6, RADII[11:]))
    ]
    # Median of the points' slopes instead of least squares on a parabola, and the pixels of three discs: 3 %.
    assert plating.value == pytest.approx((expected[0] + expected[2]) / 2, rel=0.03)
    assert plating.n == 2
    assert stripping.value == pytest.approx(expected[1], rel=0.03)
    assert "stripping of cycle 1, frames 6 to 10" in stripping.method
    each = [r for r in rows_of(rows, "area_rate", side="plating") if r.method.startswith("Theil-Sen")]
    assert [(r.frame, r.time_s) for r in each] == [(5, 15.0), (16, 48.0)]
    assert [r.value for r in each] == pytest.approx([expected[0], expected[2]], rel=0.03)


def test_radius_of_tracks_by_half_cycle(cycled):
    rows = measure_whole(cycled)
    (plating,) = rows_of(rows, "radial_velocity", side="plating", of="series")
    (stripping,) = rows_of(rows, "radial_velocity", side="stripping", of="series")
    # Of equally long runs the first stands for a track: 0.6 um a frame; one object grows 0.9 times as fast.
    assert plating.value == pytest.approx(0.6 / STEP_S, rel=0.02)
    assert stripping.value == pytest.approx(-0.5 / STEP_S, rel=0.02)
    assert plating.n == stripping.n == 3
    tracks = rows_of(rows, "radial_velocity", side="plating", of="tracks")
    assert sorted(r.value * STEP_S for r in tracks) == pytest.approx([0.54, 0.6, 0.6], rel=0.03)
    assert len({r.object_id for r in tracks}) == 3
    steps = rows_of(rows, "radial_velocity")
    assert [r.frame for r in steps] == list(range(1, 17))
    mean = 0.5 * np.diff(RADII) * (1 + 0.9 + 1) / 1.5 / STEP_S
    # A frame's mean over three discs of 20 to 30 px radius: their areas scatter by 0.03 um of radius.
    assert [r.value for r in steps] == pytest.approx(mean, abs=0.03 / STEP_S)
    assert all(r.low < r.value < r.high for r in steps)


def test_without_half_cycles_there_is_one_rate(schema):
    circles = [[(25.1, 30.1, 5 + 0.5 * k), (60.1, 60.1, 6 + 0.5 * k)] for k in range(6)]
    rows = measure_whole(history(schema, circles))
    (whole,) = rows_of(rows, "area_rate", of="series")
    assert (whole.side, whole.unit) == ("", "um2/s")
    (velocity,) = rows_of(rows, "radial_velocity", of="series")
    assert velocity.value == pytest.approx(0.5 / STEP_S, rel=0.02)
    # No front was measured, so the current is that of the radius.
    (current,) = rows_of(rows, "local_current_density", of="series")
    assert current.value == pytest.approx(0.5 / STEP_S * 742.2, rel=0.02)


def test_a_single_track_lends_the_series_its_interval(schema):
    alone = measure_whole(history(schema, [[(40, 40, 5 + 0.6 * k)] for k in range(6)]))
    (whole,), (track,) = (rows_of(alone, "radial_velocity", of=of) for of in ("series", "tracks"))
    assert (whole.value, whole.low, whole.high) == (track.value, track.low, track.high)
    assert whole.low <= 0.6 / STEP_S <= whole.high


def test_rates_do_not_run_across_a_merge(schema):
    apart = [[(45.1, 35.1, 8 + k), (45.1, 53.6, 7 + k)] for k in range(2)]
    circles = apart + [[(45.1, 43.1, 13.0 + 0.4 * k)] for k in range(2, 7)]
    rows = measure_whole(history(schema, circles), min_track_frames=2)
    tracks = rows_of(rows, "radial_velocity", of="tracks")
    # 1 um a frame before, 0.4 after; a slope over the merge would have read more than 1.
    assert sorted(r.value * STEP_S for r in tracks) == pytest.approx([0.4, 1.0, 1.0], rel=0.05)


def test_objects_that_the_frame_cuts_are_flagged_and_left_out(schema):
    circles = [[(25.1, 0.1, 5 + k), (60.1, 60.1, 6 + 0.5 * k)] for k in range(5)]
    rows = measure_whole(history(schema, circles))
    assert {r.flags for r in rows_of(rows, "radial_velocity", of="tracks")} == {(), ("touches-border",)}
    (whole,) = rows_of(rows, "radial_velocity", of="series")
    assert (whole.n, whole.value) == (1, pytest.approx(0.5 / STEP_S, rel=0.03))


def test_nothing_to_follow(schema):
    rows = measure_whole(history(schema, [[], [], []]))
    (whole,) = rows_of(rows, "radial_velocity", of="series")
    assert math.isnan(whole.value)
    assert whole.flags == ("regime-not-reached",)
    (single,) = rows_of(measure_whole(history(schema, [[(25, 30, 5)]])), "radial_velocity", of="series")
    assert single.flags == ("single-frame",)


def test_without_times_rates_are_per_frame(schema):
    circles = [[(25.1, 30.1, 5 + 0.5 * k)] for k in range(5)]
    rows = measure_whole(history(schema, circles, timed=False))
    (whole,) = rows_of(rows, "radial_velocity", of="series")
    assert (whole.unit, whole.flags) == ("um/frame", ("uncalibrated",))
    assert whole.value == pytest.approx(0.5, rel=0.03)
    assert rows_of(rows, "local_current_density") == []


@pytest.mark.parametrize(("ndim", "factor"), [(2, 1), (3, 2)])
def test_velocities_allow_for_what_blur_does_to_small_discs(ndim, factor):
    # Blurred by s and cut half-way, a disc shrinks by s^2 / 2R (a ball by twice that): of 6 and 12 px with s = 1.5 px
    # by 0.1875 and 0.09375 px.
    clock, radius = np.array([0.0, 4.0, 8.0]), np.array([6.0, 9.0, 12.0]) * 0.4
    assert blur_error(clock, radius, 0.4, ndim) == pytest.approx(factor * 0.09375 * 0.4 / 8)
    assert blur_error(clock, radius[::-1], 0.4, ndim) == pytest.approx(factor * 0.09375 * 0.4 / 8)
    assert blur_error(clock, np.full(3, 5.0), 0.4, ndim) == 0
    # It makes growth and shrinking fast, never slow: the end towards zero moves.
    assert _slower(1.0, 0.8, 1.2, 0.5) == pytest.approx((0.3, 1.2))
    assert _slower(-1.0, -1.2, -0.8, 0.5) == pytest.approx((-1.2, -0.3))
