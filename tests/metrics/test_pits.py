"""Drawn pits: count, opening, depth and volume from height maps and volumes, directions, rims."""

import math
from dataclasses import replace

import numpy as np
import pytest

from seg.errors import UsageError
from seg.metrics.frame import Frame
from seg.metrics.pits import measure_frame, sector_name, sector_radii, whole_pits
from seg.metrics.table import Scale


def one(rows, metric, side="", object_id=1):
    found = [r for r in rows if (r.metric, r.side, r.object_id) == (metric, side, object_id)]
    assert len(found) == 1, (metric, side, object_id)
    return found[0]


def plan(schema, spacing, pits, shape=(240, 300)):
    """Elliptical pits (y, x, half axis y, half axis x) in a substrate; lengths in units of the spacing."""
    y, x = (np.arange(n) * s for n, s in zip(shape, spacing, strict=True))
    labels = np.full(shape, schema.index("substrate"), np.uint8)
    for cy, cx, a, b in pits:
        labels[((y[:, None] - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1] = schema.index("pit")
    return Frame(labels, schema, Scale(spacing), min_diameter_px=4)


def test_number_size_and_border(schema):
    spacing = (0.5, 0.4)
    frame = plan(schema, spacing, [(30, 30, 10, 8), (80, 60, 6, 6), (60, 119.6, 9, 9), (0, 80, 7, 7)])
    rows = measure_frame(frame, sectors=0)
    # Two edges of the frame exclude: the pit at the top is out, that at the right counts.
    assert one(rows, "pit_count", object_id=None).value == 3
    density = one(rows, "pit_density", object_id=None)
    assert density.unit == "1/cm2"
    assert density.value == pytest.approx(3 / (240 * 0.5 * 300 * 0.4) * 1e8, rel=0.01)
    assert density.low < density.value < density.high
    sizes = {r.object_id: r for r in rows if r.metric == "pit_diameter" and r.object_id}
    whole = sorted(r.value for r in sizes.values() if "touches-border" not in r.flags)
    # 2 % on the area of pits of some 30 px.
    assert whole == pytest.approx([12, 2 * math.sqrt(80)], rel=0.01)
    assert sum("touches-border" in r.flags for r in sizes.values()) == 2
    assert all(r.low < r.value < r.high for r in sizes.values())
    mean = one(rows, "pit_diameter", object_id=None)
    assert mean.value == pytest.approx(np.mean(whole), rel=0.03)  # larger pits weigh a little more
    total = one(rows, "pit_opening_area", object_id=None)
    assert total.value == pytest.approx(math.pi * (80 + 36 + 81 / 2 + 49 / 2), rel=0.01)
    # Without depth data there is no depth.
    assert not any(r.metric in ("pit_depth", "pit_volume") for r in rows)


def test_direction_of_growth(schema):
    frame = plan(schema, (0.5, 0.4), [(60.2, 60.1, 10, 20)])
    radii = sector_radii(frame.mask("pit"), spacing=(0.5, 0.4), n_sectors=8)
    phi = np.linspace(-math.pi / 8, math.pi / 8, 2001)
    for k in range(8):
        turned = phi + k * math.pi / 4
        r2 = 1 / ((np.sin(turned) / 10) ** 2 + (np.cos(turned) / 20) ** 2)
        assert radii[k] == pytest.approx(math.sqrt(r2.mean()), abs=0.15)  # a third of a pixel
    rows = measure_frame(frame, sectors=4)
    assert one(rows, "pit_diameter", sector_name(0, 4)).value > 1.5 * one(rows, "pit_diameter", "towards 90 deg").value
    assert math.isnan(sector_radii(np.zeros((3, 3), bool), spacing=(1, 1), n_sectors=2)[0])
    with pytest.raises(UsageError, match="sectors"):
        measure_frame(frame, sectors=-1)


def test_depth_and_volume_of_a_height_map(schema, rng):
    spacing, tilt = (0.5, 0.4), (0.03, -0.02)
    frame = plan(schema, spacing, [(60, 60, 15, 15)])
    y, x = (np.arange(n) * s for n, s in zip(frame.labels.shape, spacing, strict=True))
    away = np.hypot(y[:, None] - 60, x - 60)
    depth = np.maximum(6 * (1 - (away / 15) ** 2), 0)  # a paraboloid: half of base times depth
    height = 20 + tilt[0] * y[:, None] + tilt[1] * x - depth + rng.normal(0, 0.05, away.shape)
    rows = measure_frame(replace(frame, image=height / 0.25), height_um_per_grey=0.25, sectors=0)
    found = one(rows, "pit_depth")
    assert found.value == pytest.approx(6, abs=0.1)  # two sd of the noise
    assert found.low < 6 < found.high
    assert (found.unit, one(rows, "pit_volume").unit) == ("um", "um3")
    volume = one(rows, "pit_volume")
    assert volume.value == pytest.approx(math.pi * 15**2 * 6 / 2, rel=0.025)
    assert volume.low < math.pi * 15**2 * 6 / 2 < volume.high
    ratio = one(rows, "aspect_ratio", "depth over diameter")
    assert ratio.value == pytest.approx(6 / 30, rel=0.03)
    # Without noise the deepest place still lies somewhere between the pixels.
    steep = np.where(away < 15, 6 * (1 - np.hypot(y[:, None] - 60.21, x - 59.83) / 15), 0)  # a cone
    exact = one(measure_frame(replace(frame, image=20 - steep), height_um_per_grey=1.0, sectors=0), "pit_depth")
    assert exact.low < exact.value < 6 < exact.high < 6.3
    # Nothing flat to measure from.
    bare = replace(frame, labels=np.where(frame.labels == 6, 6, 1).astype(np.uint8), image=height)
    none = one(measure_frame(bare, height_um_per_grey=1.0, sectors=0), "pit_depth")
    assert math.isnan(none.value)
    assert none.flags == ("no-credible-baseline",)


def volume(schema, spacing, inside, *, surface, up=1, shape=(60, 90, 100)):
    """Metal with a flat or tilted surface at z = surface(y, x), electrolyte above; `inside` (z under it, y, x)."""
    z, y, x = (np.arange(n) * s for n, s in zip(shape, spacing, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None]
    under = z - surface(y, x)  # depth counts along z
    labels = np.where(under > 0, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    labels[(under > 0) & inside(under, y, x)] = schema.index("pit")
    labels = labels if up == 1 else labels[::-1].copy()
    return Frame(labels, schema, Scale(spacing), min_diameter_px=4)


SHAPES = {
    # name: (inside, volume, opening, depth)
    "cone": (lambda d, y, x: np.hypot(y - 22.1, x - 20.1) <= 12 * (1 - d / 9), math.pi * 144 * 9 / 3, math.pi * 144, 9),
    "cap": (lambda d, y, x: np.hypot(y - 22.1, x - 20.1) ** 2 + (d + 5) ** 2 <= 13**2,
            math.pi * 8**2 * (13 - 8 / 3), math.pi * 144, 8),
    "box": (lambda d, y, x: (np.abs(y - 22.1) <= 10) & (np.abs(x - 20.1) <= 8) & (d <= 7), 320 * 7, 320, 7),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("up", [1, -1])
def test_volume_under_a_surface_at_any_fraction_of_a_voxel(schema, name, offset, up):
    inside, true, opening, depth = SHAPES[name]
    spacing = (0.5, 0.5, 0.4)
    # A tilt lets the plane be known to a fraction of a voxel.
    frame = volume(schema, spacing, inside, surface=lambda y, x: 9.8 + offset + y / 25 + x / 60, up=up)
    rows = measure_frame(frame)
    got = one(rows, "pit_volume")
    # Targets: volume 2.5 %, depth a voxel, opening 8 %.
    assert got.value == pytest.approx(true, rel=0.025)
    assert one(rows, "pit_depth").value == pytest.approx(depth, abs=0.5)
    assert one(rows, "pit_opening_area").value == pytest.approx(opening, rel=0.08)
    assert one(rows, "pit_count", object_id=None).value == 1
    assert got.low < got.value < got.high


def test_undercut_pit_is_flagged_and_opens_where_the_surface_is(schema):
    # A ball whose centre lies 6 under the surface: wider below than at the plane.
    frame = volume(schema, (0.5, 0.4, 0.4), lambda d, y, x: np.hypot(np.hypot(y - 18, x - 20), d - 6) <= 10,
                   surface=lambda y, x: 8.3 + y / 25 + x / 60)  # fmt: skip
    rows = measure_frame(frame)
    opening, found = one(rows, "pit_opening_area"), one(rows, "pit_volume")
    true = math.pi * (10**2 - 6**2)
    # By projection it would be pi 10^2, half as much again.
    assert opening.value == pytest.approx(true, rel=0.25)
    assert found.flags == ("ambiguous",)
    assert "undercut" in found.method
    assert found.value == pytest.approx(4 / 3 * math.pi * 1000 - math.pi * 4**2 * (10 - 4 / 3), rel=0.025)


def rims(schema, rng, share, n=90):
    """Three round pits and nuclei around them, `share` of them within 2 um of a rim."""
    spacing = (0.5, 0.4)
    frame = plan(schema, spacing, [(30, 30, 10, 10), (80, 40, 12, 12), (60, 90, 11, 11)], (220, 320))
    centres = [(30, 30, 10), (80, 40, 12), (60, 90, 11)]
    labels, placed = frame.labels.copy(), []
    y, x = (np.arange(m) * s for m, s in zip(labels.shape, spacing, strict=True))
    while len(placed) < n:
        if len(placed) < share * n:
            cy, cx, r = centres[rng.integers(3)]
            phi, away = rng.uniform(0, 2 * math.pi), r + rng.uniform(0.2, 1.8)
            spot = np.array([cy + away * math.sin(phi), cx + away * math.cos(phi)])
        else:
            spot = rng.uniform((2, 2), (107, 125))
            if min(math.hypot(spot[0] - cy, spot[1] - cx) - r for cy, cx, r in centres) < 2:
                continue
        if all(np.hypot(*(spot - other)) > 2.6 for other in placed):
            placed.append(spot)
            labels[np.hypot(y[:, None] - spot[0], x - spot[1]) <= 1.1] = schema.index("deposit")
    return replace(frame, labels=labels)


def test_nuclei_at_rims_and_between(schema, rng):
    area, near = 110 * 128 - math.pi * (100 + 144 + 121), sum(math.pi * ((r + 2) ** 2 - r**2) for r in (10, 12, 11))
    rich = measure_frame(rims(schema, rng, 0.3), band_um=2.0, sectors=0)
    found = one(rich, "rim_enrichment", object_id=None)
    # The margin at the border takes some free surface away.
    assert found.value == pytest.approx(0.3 / 0.7 * (area - near) / near, rel=0.12)
    assert found.low < found.value < found.high
    assert one(rich, "enrichment_p", "rim", object_id=None).value == pytest.approx(2 / 200)
    even = measure_frame(rims(schema, rng, near / area), band_um=2.0, sectors=0)
    assert one(even, "rim_enrichment", object_id=None).value == pytest.approx(1, abs=0.35)  # 9 nuclei: 1/sqrt(9)
    assert one(even, "enrichment_p", "rim", object_id=None).value > 0.05
    few = measure_frame(rims(schema, rng, 0.3, n=6), sectors=0)
    assert math.isnan(one(few, "rim_enrichment", object_id=None).value)
    assert one(few, "rim_enrichment", object_id=None).flags == ("low-confidence",)


def test_pits_are_completed_under_nuclei():
    instances = np.zeros((60, 60), int)
    y, x = np.mgrid[:60, :60]
    disc = np.hypot(y - 30, x - 30) < 18
    nucleus = np.hypot(y - 30, x - 48) < 5
    instances[disc & ~nucleus] = 1
    whole = whole_pits(instances, nucleus)
    assert np.count_nonzero(whole) == pytest.approx(np.count_nonzero(disc), rel=0.02)
    assert not np.any(whole & ~disc & ~nucleus)


def test_nothing_in_the_frame(schema):
    frame = plan(schema, (0.5, 0.4), [])
    rows = measure_frame(frame)
    assert one(rows, "pit_count", object_id=None).value == 0
    assert math.isnan(one(rows, "pit_diameter", object_id=None).value)
    assert not any(r.metric == "rim_enrichment" for r in rows)
    pixels = replace(plan(schema, (1.0, 1.0), [(30, 30, 8, 8)]), scale=Scale((1.0, 1.0), calibrated=False))
    found = one(measure_frame(pixels, sectors=0), "pit_diameter")
    assert (found.unit, found.flags) == ("px", ("uncalibrated",))
