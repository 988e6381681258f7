"""Shells of known thickness around drawn cores: bias, spread, coverage, borders, units."""

import math

import numpy as np
import pytest

from seg.metrics.frame import Frame
from seg.metrics.sei import measure_frame, measure_shell
from seg.metrics.table import Scale

ANISOTROPIC = (1.6, 0.7)


def ring(rng, radius, thickness, spacing, *, waves=0.0, gaps=()):
    """Core and shell masks around a centre at a random fraction of a pixel; lengths in units of the spacing.

    `waves` modulates the thickness by that standard deviation; `gaps` are (angle, width) without shell, radians.
    Returns the masks, and mean and sd of the distance from the outer to the inner boundary per outer arc length.
    """
    outer = radius + thickness * (1 + 2 * waves)
    shape = [int(2 * outer / s) + 16 for s in spacing]
    centre = np.array(shape) / 2 * spacing + rng.uniform(-1, 1, 2)
    y, x = (i * s for i, s in zip(np.indices(shape), spacing, strict=True))
    r, phi = np.hypot(y - centre[0], x - centre[1]), np.arctan2(y - centre[0], x - centre[1])

    def reach(angle):
        return radius + thickness * (1 + waves * math.sqrt(2) * np.cos(3 * angle + 0.4))

    core, shell = r < radius, (r >= radius) & (r < reach(phi))
    for angle, width in gaps:
        shell &= np.abs((phi - angle + math.pi) % (2 * math.pi) - math.pi) > width / 2
    turn = np.linspace(0, 2 * math.pi, 20001)
    arc = np.hypot(reach(turn), np.gradient(reach(turn), turn))
    t = reach(turn) - radius
    mean = np.average(t, weights=arc)
    return shell, core, mean, math.sqrt(np.average((t - mean) ** 2, weights=arc))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), ANISOTROPIC])
@pytest.mark.parametrize(("radius", "thickness"), [(15, 3.0), (20, 8.0), (60, 9.0)])
@pytest.mark.parametrize("waves", [0.0, 0.2])
def test_mean_and_spread_meet_the_target(rng, spacing, radius, thickness, waves):
    pixel = math.sqrt(math.prod(spacing))
    for _ in range(4):
        shell, core, mean, sd = ring(rng, radius, thickness, spacing, waves=waves)
        found = measure_shell(shell, core, spacing=spacing)
        # Target of the mean: 0.12 px or 2 %; of the spread: 0.35 px.
        assert found.mean == pytest.approx(mean, abs=max(0.12 * pixel, 0.02 * mean))
        assert found.sd == pytest.approx(sd, abs=0.35 * pixel)
        # The thinnest part of the thinnest shell is 1.3 px.
        assert found.coverage == pytest.approx(1, abs=0.012)


def test_no_bias_over_many_positions(rng):
    errors = [measure_shell(*ring(rng, 20, 5, (1.0, 1.0))[:2], spacing=(1.0, 1.0)).mean - 5 for _ in range(30)]
    # Raw outlines read 0.18 px too little; the mean of 30 discs is known to about 0.004 px.
    assert np.mean(errors) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("angle", [0.0, 2.0, 17.0, 40.0])
def test_flat_shell(rng, angle):
    y, x = np.mgrid[:120, :160].astype(float)
    turn = math.radians(angle)
    depth = (y - 60 - rng.uniform(0, 1)) * math.cos(turn) - (x - 80) * math.sin(turn)
    found = measure_shell((depth < 0) & (depth >= -7.3), depth >= 0, spacing=(1.0, 1.0))
    # Along an axis both faces sit on the pixel grid: up to a pixel, inside the +-0.8 px that the interval states.
    assert found.mean == pytest.approx(7.3, abs=1.0 if angle == 0 else 0.12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), ANISOTROPIC])
def test_gaps_lower_coverage_and_not_thickness(rng, spacing):
    widths = [0.2, 0.35, 0.5]
    gaps = [(k * 2.1 + 0.3, w) for k, w in enumerate(widths)]
    shell, core, *_ = ring(rng, 60, 8, spacing, gaps=gaps)
    found = measure_shell(shell, core, spacing=spacing)
    assert found.coverage == pytest.approx(1 - sum(widths) / (2 * math.pi), abs=0.012)
    assert found.mean == pytest.approx(8, abs=0.16)
    assert found.sd == pytest.approx(0, abs=0.35 * math.sqrt(math.prod(spacing)))


def test_frame_edge_hides_neither_thickness_nor_coverage():
    # A whisker that crosses the frame, its shell leaving through the right edge at a slant.
    y, x = np.mgrid[:90, :140].astype(float)
    across = np.abs((y - 45) - 0.3 * (x - 70)) / math.hypot(1, 0.3)
    found = measure_shell((across >= 12) & (across < 18), across < 12, spacing=(1.0, 1.0))
    assert found.mean == pytest.approx(6, abs=0.12)
    assert found.coverage == 1


def frame_of(schema, shell, core, spacing, **kwargs):
    labels = np.where(core, 3, np.where(shell, 8, 1)).astype(np.uint8)
    return Frame(labels, schema, Scale(spacing, **kwargs))


def table(measured, object_id=None):
    return {m.metric: m for m in measured if m.object_id == object_id}


def test_rows_of_a_frame(rng, schema):
    shell, core, *_ = ring(rng, 40, 6, (0.002, 0.002) * np.array(500))
    found = measure_frame(frame_of(schema, shell, core, (0.002, 0.002)))
    # One object: its rows and those of the frame agree.
    one, whole = table(found, 1), table(found)
    assert one["sei_thickness_mean"].value == whole["sei_thickness_mean"].value == pytest.approx(0.012, abs=0.00024)
    assert one["sei_thickness_mean"].low < 0.012 < one["sei_thickness_mean"].high
    assert whole["sei_thickness_mean"].unit == "um"
    assert whole["sei_coverage"].value == 1
    # Diameter 80 px over 6 px; the inscribed circle is known to a pixel.
    assert whole["core_to_sei_ratio"].value == pytest.approx(80 / 6, rel=0.02)
    assert whole["sei_thickness_cv"].value < 0.03
    assert whole["sei_thickness_mean"].n == 1


def test_doubling_the_pixel_doubles_the_thickness_only(rng, schema):
    shell, core, *_ = ring(rng, 30, 6, ANISOTROPIC, waves=0.15)
    small = table(measure_frame(frame_of(schema, shell, core, ANISOTROPIC)))
    large = table(measure_frame(frame_of(schema, shell, core, tuple(2 * s for s in ANISOTROPIC))))
    for metric, factor in (("sei_thickness_mean", 2), ("sei_thickness_sd", 2), ("sei_coverage", 1)):
        assert large[metric].value == pytest.approx(factor * small[metric].value)
    assert large["core_to_sei_ratio"].value == pytest.approx(small["core_to_sei_ratio"].value)


def test_support_is_no_free_surface(schema):
    y, x = np.mgrid[:120, :160].astype(float)
    r = np.hypot(y - 90, x - 80)
    labels = np.where(y >= 90, 2, np.where(r < 40, 3, np.where(r < 48, 8, 1))).astype(np.uint8)
    whole = table(measure_frame(Frame(labels, schema, Scale((1.0, 1.0)))))
    # The base of the half disc lies on the substrate: it is neither uncovered core nor thin shell.
    assert whole["sei_coverage"].value == pytest.approx(1, abs=0.012)
    assert whole["sei_thickness_mean"].value == pytest.approx(8, abs=0.16)


def test_two_objects_and_one_bare_core(schema):
    y, x = np.mgrid[:120, :300].astype(float)
    r1, r2, r3 = (np.hypot(y - 60, x - c) for c in (60, 160, 250))
    core = (r1 < 30) | (r2 < 20) | (r3 < 20)
    shell = ((r1 < 34) | (r2 < 28)) & ~core
    found = measure_frame(frame_of(schema, shell, core, (1.0, 1.0)))
    assert [table(found, i)["sei_thickness_mean"].value for i in (1, 2)] == pytest.approx([4, 8], abs=0.16)
    whole = table(found)
    assert whole["sei_thickness_mean"].n == 2
    assert whole["sei_thickness_mean"].value == pytest.approx((4 * 34 + 8 * 28) / 62, abs=0.16)
    # The bare core counts in the coverage of the frame.
    assert whole["sei_coverage"].value == pytest.approx(50 / 70, abs=0.012)


def test_nothing_one_pixel_and_uncalibrated(schema):
    empty = np.zeros((20, 30), bool)
    none = table(measure_frame(frame_of(schema, empty, empty, (1.0, 1.0), calibrated=False)))
    assert all(math.isnan(m.value) for m in none.values())
    assert none["sei_thickness_mean"].unit == "px"
    assert none["sei_thickness_mean"].flags == ("uncalibrated",)
    bare = empty.copy()
    bare[5:12, 5:12] = True
    without = table(measure_frame(frame_of(schema, empty, bare, (1.0, 1.0))))
    assert without["sei_coverage"].value == 0
    assert math.isnan(without["sei_thickness_mean"].value)
    pixel = empty.copy()
    pixel[4, 5] = True
    thin = table(measure_frame(frame_of(schema, pixel, bare, (1.0, 1.0))))
    assert all(math.isnan(m.value) or m.value >= 0 for m in thin.values())


def test_thin_shell_has_no_coefficient_of_variation(rng, schema):
    shell, core, *_ = ring(rng, 30, 3, (1.0, 1.0))
    whole = table(measure_frame(frame_of(schema, shell, core, (1.0, 1.0))))
    assert math.isnan(whole["sei_thickness_cv"].value)
    assert whole["sei_thickness_cv"].flags == ("few-pixels",)
    assert whole["sei_thickness_mean"].value == pytest.approx(3, abs=0.12)


def test_volume_is_measured_section_by_section(rng, schema):
    shell, core, *_ = ring(rng, 20, 6, (1.0, 1.0))
    frame = frame_of(schema, np.stack([shell] * 3), np.stack([core] * 3), (4.0, 1.0, 1.0))
    whole = table(measure_frame(frame))
    assert whole["sei_thickness_mean"].value == pytest.approx(6, abs=0.12)
    assert whole["sei_thickness_mean"].method.startswith("in plane")
