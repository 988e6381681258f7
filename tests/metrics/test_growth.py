import math

import numpy as np
import pandas as pd
import pytest

from seg.errors import UsageError
from seg.metrics.cover import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.growth import local_current_density, measure_series, robust_slope
from seg.metrics.table import Measurement, Scale, to_table


def table_of(values, times=None, *, metric="covered_area", unit="um2", half=0.0, flags=(), class_name="deposit"):
    rows = []
    for i, value in enumerate(values):
        flag = flags[i] if flags else ()
        time_s = None if times is None else times[i]
        rows.append(
            Measurement(metric, value, unit, value - half, value + half, class_name, i, time_s, n=10, flags=flag)
        )
    return to_table(rows)


def series_rows(rows, metric="area_rate"):
    return [row for row in rows if row.metric == metric and row.frame is None]


def frame_rows(rows, metric="area_rate"):
    return [row for row in rows if row.metric == metric and row.frame is not None]


def test_one_nm_per_s_is_0742_ma_per_cm2():
    # zF/V_m = 96485 / 13.00 C/cm3; 1 nm/s = 1e-7 cm/s.
    assert local_current_density(1e-3) == pytest.approx(0.7422, abs=1e-4)


def test_linear_growth_has_its_slope_at_any_spacing_of_times():
    times = [0.0, 1.0, 3.0, 4.5, 9.0, 10.0]
    rows = measure_series(table_of([5 + 2.5 * t for t in times], times))
    (whole,) = series_rows(rows)
    assert (whole.value, whole.low, whole.high, whole.unit) == (
        pytest.approx(2.5), pytest.approx(2.5), pytest.approx(2.5), "um2/s",
    )  # fmt: skip
    assert (whole.n, whole.class_name, whole.flags) == (6, "deposit", ())
    steps = frame_rows(rows)
    assert [row.value for row in steps] == pytest.approx([2.5] * 5)
    assert [(row.frame, row.time_s) for row in steps] == list(enumerate(times))[1:]


def test_rate_knows_what_outlines_can_be_off():
    """Eight discs of radius sqrt(r0^2 + c t): bounds at r +- 0.5 have slopes that differ by the change of 2 pi r."""
    times = np.arange(10.0)
    radius = np.sqrt(100 + 20 * times)
    areas = [np.pi * (radius + off) ** 2 for off in (0.0, -0.5, 0.5)]
    table = table_of(areas[0], times)
    table["low"], table["high"] = areas[1:]
    (whole,) = series_rows(measure_series(table))
    assert whole.value == pytest.approx(20 * np.pi)
    # The rate of the bounds is not constant; its robust slope lies within 5 % of the mean one.
    spread = np.pi * (radius[-1] - radius[0]) / 9
    assert (whole.value - whole.low, whole.high - whole.value) == pytest.approx((spread, spread), rel=0.05)


def test_slope_resists_a_bad_frame_and_covers(rng):
    times = np.arange(30.0)
    hits = 0
    for _ in range(200):
        values = 100 + 4 * times + rng.normal(0, 3, 30)
        slope, low, high = robust_slope(times, values)
        hits += low <= 4 <= high
    assert 0.91 <= hits / 200 <= 0.99  # 95 %, standard error 1.5 %
    values[7] = 1000
    assert robust_slope(times, values)[0] == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("n", [4, 9, 40])
def test_slope_and_interval_are_those_of_scipy_with_ties_and_in_any_order(rng, n):
    stats = pytest.importorskip("scipy.stats")
    for _ in range(20):
        times, values = rng.integers(0, 2 * n, n).astype(float), rng.integers(0, 6, n).astype(float)
        expected = stats.theilslopes(values, times, alpha=0.95)
        assert robust_slope(times, values) == (expected.slope, expected.low_slope, expected.high_slope)
    values[0] = math.nan
    assert all(math.isnan(end) for end in robust_slope(times, values))


def test_long_series_is_thinned_and_stays_right(rng):
    times = np.arange(12_000.0)
    slope, low, high = robust_slope(times, 0.5 * times + rng.normal(0, 50, 12_000))
    # Standard error of the slope: 50 sqrt(12 / 12000^3) = 1.3e-4.
    assert slope == pytest.approx(0.5, abs=5e-4)
    assert low < 0.5 < high


@pytest.mark.parametrize("n", [2, 3])
def test_short_series_has_a_slope_without_interval(n):
    (whole,) = series_rows(measure_series(table_of([1.0, 3.0, 5.0][:n], [0.0, 1.0, 2.0][:n])))
    assert whole.value == pytest.approx(2)
    assert np.isnan([whole.low, whole.high]).all()


def test_single_frame_is_nan_and_flagged():
    rows = measure_series(table_of([3.0], [0.0]))
    assert [(row.metric, row.flags, row.frame) for row in rows] == [("area_rate", ("single-frame",), None)]
    assert math.isnan(rows[0].value)


def test_unknown_times_give_rates_per_frame():
    rows = measure_series(table_of([1.0, 2.0, 3.0, 4.0]))
    assert {(row.unit, row.flags) for row in rows} == {("um2/frame", ("uncalibrated",))}
    assert series_rows(rows)[0].value == pytest.approx(1)
    assert frame_rows(rows)[0].time_s is None


def test_uncalibrated_pixels_stay_uncalibrated():
    flags = [("uncalibrated",)] * 3
    (whole,) = series_rows(measure_series(table_of([1.0, 2.0, 3.0], [0.0, 2.0, 4.0], unit="px2", flags=flags)))
    assert (whole.value, whole.unit, whole.flags) == (pytest.approx(0.5), "px2/s", ("uncalibrated",))


def test_frames_without_a_number_or_under_an_artefact_are_left_out():
    flags = [(), (), ("artifact-frame",), (), ()]
    rows = measure_series(table_of([0.0, 1.0, 90.0, math.nan, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0], flags=flags))
    (whole,) = series_rows(rows)
    assert (whole.value, whole.n) == (pytest.approx(1), 3)
    assert "2 frame(s) left out" in whole.method
    assert [(row.frame, row.value) for row in frame_rows(rows)] == [(1, 1.0), (4, 1.0)]


def test_two_frames_at_one_time_have_no_rate():
    rows = measure_series(table_of([0.0, 1.0, 2.0], [0.0, 0.0, 1.0]))
    assert [row.frame for row in frame_rows(rows)] == [2]
    (whole,) = series_rows(measure_series(table_of([0.0, 1.0], [5.0, 5.0])))
    assert math.isnan(whole.value)


def test_change_under_the_doubt_of_the_boundary_is_flagged():
    steps = frame_rows(measure_series(table_of([10.0, 10.5, 20.0], [0.0, 1.0, 2.0], half=1.0)))
    assert [row.flags for row in steps] == [("few-pixels",), ()]
    # Both ends contribute in quadrature.
    assert (steps[1].low, steps[1].high) == pytest.approx((9.5 - math.sqrt(2), 9.5 + math.sqrt(2)))


def test_classes_are_kept_apart():
    table = pd.concat([table_of([0.0, 1.0], [0.0, 1.0]), table_of([0.0, 3.0], [0.0, 1.0], class_name="void")])
    assert {row.class_name: row.value for row in series_rows(measure_series(table))} == {"deposit": 1, "void": 3}


def test_radius_gives_velocity_and_current_of_metal_only():
    times = [0.0, 10.0, 20.0, 30.0]
    area = table_of([1.0, 2.0, 3.0, 4.0], times)
    size = table_of([2.0, 2.2, 2.4, 2.6], times, metric="mean_equivalent_diameter", unit="um", half=0.1)
    rows = measure_series(pd.concat([area, size]))
    (velocity,) = series_rows(rows, "radial_velocity")
    assert (velocity.value, velocity.unit) == (pytest.approx(0.01), "um/s")
    (current,) = series_rows(rows, "local_current_density")
    assert (current.value, current.unit) == (pytest.approx(7.422, abs=1e-3), "mA/cm2")
    assert len(frame_rows(rows, "local_current_density")) == 3
    voids = size.assign(**{"class": "void"})
    names = {row.metric for row in measure_series(pd.concat([area, voids]))}
    assert names == {"area_rate", "radial_velocity"}
    untimed = measure_series(pd.concat([area, size]).assign(time_s=math.nan))
    assert {row.metric for row in untimed} == {"area_rate", "radial_velocity"}


def test_table_read_back_from_csv_gives_the_same(tmp_path):
    table = table_of([1.0, 2.0, 4.0], [0.0, 1.0, 2.0], class_name="")
    table.to_csv(tmp_path / "metrics.csv", index=False)
    assert to_table(measure_series(pd.read_csv(tmp_path / "metrics.csv"))).equals(to_table(measure_series(table)))


def test_without_cover_it_says_what_to_add():
    with pytest.raises(UsageError, match="needs the rows of 'cover'"):
        measure_series(to_table([]))


@pytest.mark.parametrize("speed_um_s", [0.7])
def test_growing_disc_end_to_end(schema, speed_um_s):
    """d sqrt(A / pi) / dt of a disc that grows at a constant rate, from masks: 2 %."""
    scale, rows = Scale((0.5, 0.25)), []
    y, x = np.mgrid[:120, :240] * np.reshape(scale.spacing, (2, 1, 1))
    times = np.arange(8.0) * 2
    for i, t in enumerate(times):
        mask = (y - 29.8) ** 2 + (x - 30.1) ** 2 <= (8 + speed_um_s * t) ** 2
        labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
        rows += measure_frame(Frame(labels, schema, scale, i, float(t)), classes=["deposit"])
    (rate,) = series_rows(measure_series(to_table(rows)))
    # The median of all pairwise slopes of pi r^2 is near the slope at the middle of the series.
    middle = 8 + speed_um_s * times.mean()
    assert rate.value == pytest.approx(2 * math.pi * middle * speed_um_s, rel=0.03)
    assert rate.low < rate.value < rate.high


def test_volume_of_a_series_of_volumes(schema):
    scale, rows = Scale((1.0, 0.5, 0.2)), []
    for i in range(4):
        labels = np.full((20, 10, 12), schema.index("electrolyte"), np.uint8)
        labels[: 4 + 2 * i] = schema.index("deposit")
        rows += measure_frame(Frame(labels, schema, scale, i, 60.0 * i), classes=["deposit"])
    (rate,) = series_rows(measure_series(to_table(rows)), "volume_rate")
    assert (rate.value, rate.unit) == (pytest.approx(2 * 120 * 0.1 / 60), "um3/s")
