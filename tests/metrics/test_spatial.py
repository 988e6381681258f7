"""Point patterns with known arrangement: level of the tests, bias of the ratios, power, and the rows of a frame."""

import math

import numpy as np
import pytest

from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics.enrichment import Outline, enrichment
from seg.metrics.frame import Frame
from seg.metrics.point_pattern import (
    RandomArrangement,
    Window,
    arrangement_test,
    clark_evans,
    envelope_test,
    ripley_l,
)
from seg.metrics.spatial import measure_frame
from seg.metrics.table import Scale

SPACING = (0.5, 0.4)
FULL = Window(np.ones((200, 300), bool), SPACING)  # 100 x 120 um


@pytest.fixture(scope="module")
def holed():
    mask = np.ones((200, 300), bool)
    yy, xx = np.mgrid[:200, :300]
    mask[(yy - 90) ** 2 + (xx - 120) ** 2 < 50**2] = False
    mask[:60, 220:] = False
    return Window(mask, SPACING)


def hard_core(n, diameter, window, rng):
    """Discs placed one by one where they do not overlap: slow, but by definition."""
    points = np.zeros((0, 2))
    while len(points) < n:
        point = window.uniform(1, rng)
        if (np.hypot(*(points - point).T) >= diameter).all():
            points = np.concatenate([points, point])
    return points


def test_clark_evans_is_one_for_random_points(rng):
    found = np.array([clark_evans(FULL.uniform(100, rng), FULL, rng=rng) for _ in range(300)])
    assert found[:, 0].mean() == pytest.approx(1, abs=0.01)
    covered = ((found[:, 1] <= 1) & (found[:, 2] >= 1)).mean()
    assert 0.91 <= covered <= 0.98


def test_clark_evans_in_a_window_with_holes(holed, rng):
    found = [clark_evans(holed.uniform(80, rng), holed, rng=rng)[0] for _ in range(60)]
    # The spread of one ratio is 0.52 / sqrt(80) = 0.06; the mean of 60 has an error of 0.008.
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_clark_evans_of_a_lattice():
    y, x = np.mgrid[2:100:4, 2:120:4].astype(float)
    lattice = np.stack([y.ravel(), x.ravel()], axis=1)
    ratio, *_ = clark_evans(lattice, FULL, rng=np.random.default_rng(0))
    # Square lattice: distance a against a/2; the edge correction of 750 points takes 3 % off.
    assert ratio == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("shape", ["rectangle", "holes"])
def test_ripleys_l_has_no_bias(shape, holed, rng):
    window = FULL if shape == "rectangle" else holed
    radii = np.array([2.0, 5.0, 10.0, 20.0])
    found = np.mean([ripley_l(window.uniform(150, rng), window, radii) for _ in range(60)], axis=0)
    # K / pi r2 is 1 +- 0.01 with translation correction; L - r is then within 0.5 % of r.
    assert np.abs(found / radii).max() < 0.02


def test_shared_area_of_a_mask_is_that_of_the_rectangle(rng):
    shifts = rng.uniform(-20, 20, (50, 2))
    general = Window(FULL.mask.copy(), SPACING)
    general.__dict__["is_rectangle"] = False
    # Shifts are rounded to whole pixels.
    assert general.shared_area(shifts) == pytest.approx(FULL.shared_area(shifts), rel=0.01)


@pytest.mark.parametrize(("shape", "diameter"), [("rectangle", 4.0), ("holes", 0.0)])
def test_level_of_the_envelope_test(shape, diameter, holed, rng):
    """A random arrangement is called random in all but 5 % of the cases; 60 trials, 3 standard errors above it."""
    window = FULL if shape == "rectangle" else holed
    n = 30
    rejected = 0
    for _ in range(60):
        points = hard_core(n, diameter, window, rng) if diameter else window.uniform(n, rng)
        diameters = np.full(n, diameter) if diameter else None
        rejected += arrangement_test(points, window, diameters=diameters, rng=rng, n_radii=20)[2].p <= 0.05
    assert rejected <= 8


def test_objects_of_finite_size_are_not_called_regular(rng):
    """Without the hard core in the null hypothesis they would be."""
    called = {"points": 0, "discs": 0}
    for _ in range(4):
        points = hard_core(120, 6.0, FULL, rng)
        called["points"] += arrangement_test(points, FULL, rng=rng)[2].p <= 0.05
        called["discs"] += arrangement_test(points, FULL, diameters=np.full(120, 6.0), rng=rng)[2].p <= 0.05
    assert called["points"] == 4
    assert called["discs"] <= 1


def test_clusters_and_lattices_are_recognised(holed, rng):
    for _ in range(5):
        parents = holed.uniform(12, rng)
        points = parents[rng.integers(0, 12, 400)] + rng.normal(0, 3, (400, 2))
        clustered = arrangement_test(points[holed.contains(points)][:80], holed, rng=rng)[2]
        assert clustered.p <= 0.05
        assert clustered.deviation > 1
        y, x = np.mgrid[5:100:10, 5:120:10].astype(float)
        lattice = np.stack([y.ravel(), x.ravel()], axis=1) + rng.normal(0, 1.5, (120, 2))
        regular = arrangement_test(lattice[holed.contains(lattice)], holed, rng=rng)[2]
        assert regular.p <= 0.05
        assert regular.deviation < -1


def test_envelope_test_by_hand():
    simulated = np.random.default_rng(0).normal(size=(199, 5))
    outside = envelope_test(np.full(5, 10.0), simulated)
    assert outside.p == pytest.approx(1 / 200)
    assert outside.deviation > 1
    assert envelope_test(np.zeros(5), simulated).p > 0.5
    same = envelope_test(np.zeros(5), np.zeros((199, 5)))
    assert same.p == 1
    assert same.deviation == 0


def test_random_arrangement_keeps_its_distances(holed, rng):
    diameters = rng.uniform(2, 6, 120)
    for points in RandomArrangement(holed, diameters).simulate(3, rng):
        assert holed.contains(points).all()
        apart = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(120, 1)]
        assert apart.min() >= 2
    crowded = RandomArrangement(Window(np.ones((40, 40), bool), (1.0, 1.0)), np.full(100, 6.0))
    assert len(next(crowded.simulate(1, rng))) == 100  # more than fit: comes to an end
    touching = RandomArrangement.like(np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 20.0]]), np.full(3, 6.0), FULL)
    assert touching.diameters == pytest.approx([3, 3, 3])


def test_inner_window_and_origin():
    window, origin = FULL.inner(5.0)
    assert window.is_rectangle
    # Centres of the pixels kept are 5 um or more from the edge: half a pixel and 10 rows, half a pixel and 12 columns.
    assert window.mask.shape == (200 - 20, 300 - 24)
    assert origin == pytest.approx([5.0, 4.8])
    assert not FULL.inner(80.0)[0].mask.any()
    with pytest.raises(ValueError, match="plane"):
        Window(np.ones((2, 2, 2), bool), (1.0, 1.0))


def disc_mask(centre, radius, shape=(200, 300)):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return ((yy * 0.5 - centre[0]) ** 2 + (xx * 0.4 - centre[1]) ** 2) <= radius**2


def test_distance_to_an_outline_is_sub_pixel():
    outline = Outline(disc_mask((50, 60), 20.0), SPACING)
    angles = np.linspace(0, 2 * math.pi, 200)
    for radius in (14.0, 24.0):
        ring = np.array([50, 60]) + radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        found = outline.distance(ring)
        assert found.mean() == pytest.approx(abs(radius - 20), abs=0.07)  # an eighth of a pixel
    assert np.isinf(Outline(np.zeros((5, 5), bool), SPACING).distance(np.zeros((1, 2)))).all()


def enriched(n, ratio, reference, band, rng):
    """Points that are `ratio` times as dense within `band` of the outline."""
    outline, points = Outline(reference, SPACING), []
    while len(points) < n:
        point = FULL.uniform(1, rng)
        near = outline.distance(point)[0] <= band
        if rng.uniform() < (1 if near else 1 / ratio):
            points.append(point[0])
    return np.array(points)


def test_enrichment_of_the_right_size_with_coverage(rng):
    pits = np.any([disc_mask(centre, 7) for centre in rng.uniform(10, 90, (8, 2))], axis=0)
    for ratio in (1, 5):
        found = [
            enrichment(enriched(150, ratio, pits, 2.0, rng), pits, FULL.mask, spacing=SPACING, band=2.0, rng=rng)
            for _ in range(30)
        ]
        assert np.median([f.ratio for f in found]) == pytest.approx(ratio, rel=0.12)
        assert sum(f.low <= ratio <= f.high for f in found) >= 26  # 28.5 expected of 30
        rejected = sum(f.p <= 0.05 for f in found)
        assert rejected <= 5 if ratio == 1 else rejected == 30


def test_enrichment_against_given_sites(rng):
    pits = disc_mask((50, 60), 20)
    sites = FULL.uniform(400, rng)
    near = Outline(pits, SPACING).distance(sites) <= 3
    used = np.concatenate([sites[near][:20], sites[~near][:30]])
    found = enrichment(used, pits, FULL.mask, spacing=SPACING, band=3.0, candidates=sites, rng=rng)
    assert found.near_share == pytest.approx(near.mean())
    assert found.ratio == pytest.approx(20 / near.sum() / (30 / (~near).sum()))
    assert found.p <= 0.05
    with pytest.raises(ValueError, match="candidate"):
        enrichment(sites, pits, FULL.mask, spacing=SPACING, band=3.0, candidates=sites[:5], rng=rng)


def frame_of(points, radius_px, *, shape=(200, 300), scale=None, pits=None):
    schema = load_schema("lithium")
    instances = np.zeros(shape, np.int32)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    for name, (y, x) in enumerate(points, start=1):
        instances[(yy - y) ** 2 + (xx - x) ** 2 <= radius_px**2] = name
    labels = np.full(shape, schema.index("substrate"), np.uint8)
    if pits is not None:
        labels[pits] = schema.index("pit")
    labels[instances > 0] = schema.index("deposit")
    return Frame(labels, schema, scale or Scale(SPACING), 3, 6.0, instances=instances, object_classes=("deposit",))


def test_rows_of_a_frame(rng):
    points = hard_core(90, 12, Window(np.ones((200, 300), bool), (1.0, 1.0)), rng)
    rows = {row.metric: row for row in measure_frame(frame_of(points, 3))}
    assert set(rows) == {"clark_evans_ratio", "ripley_l_max_deviation", "spatial_class"}
    ratio = rows["clark_evans_ratio"]
    assert ratio.low < ratio.value < ratio.high
    assert 0 < rows["spatial_class"].value <= 1
    assert rows["spatial_class"].n < 90  # those in the margin are left out
    assert (ratio.frame, ratio.time_s, ratio.class_name) == (3, 6.0, "deposit")
    again = {row.metric: row.value for row in measure_frame(frame_of(points, 3))}
    assert again["spatial_class"] == rows["spatial_class"].value
    assert measure_frame(frame_of(points, 3), every_frames=2) == []


def test_deposits_at_the_rims_of_pits(rng):
    pits = disc_mask((30, 30), 12) | disc_mask((70, 90), 15)
    points = enriched(60, 12, pits, 2.0, rng) / np.asarray(SPACING)
    rows = {row.metric: row for row in measure_frame(frame_of(points, 2, pits=pits), reference=["pit"], band_um=2.0)}
    assert rows["enrichment"].low > 2
    assert rows["enrichment_p"].value <= 0.05
    assert "within 2 um of the outline of pit" in rows["enrichment"].method
    none = {row.metric: row for row in measure_frame(frame_of(points, 2), reference=["pit"])}
    assert math.isnan(none["enrichment"].value)
    assert none["enrichment"].flags == ("regime-not-reached",)


def test_few_objects_no_objects_and_unknown_scale(rng):
    few = measure_frame(frame_of(np.array([[50, 50], [100, 200]]), 3), reference=["pit"])
    assert len(few) == 5
    assert {row.flags for row in few} == {("low-confidence",)}
    assert all(math.isnan(row.value) for row in few)
    assert all(math.isnan(row.value) for row in measure_frame(frame_of(np.zeros((0, 2)), 3)))
    whole = frame_of(np.array([[100.0, 150.0]]), 1000)
    assert all(math.isnan(row.value) for row in measure_frame(whole))
    points = hard_core(40, 12, Window(np.ones((200, 300), bool), (1.0, 1.0)), rng)
    rows = measure_frame(frame_of(points, 3, scale=Scale((1.0, 1.0), calibrated=False)))
    assert all("uncalibrated" in row.flags for row in rows)


def test_what_cannot_be_measured_is_refused():
    frame = frame_of(np.array([[50, 50]]), 3)
    with pytest.raises(UsageError, match="n_simulations"):
        measure_frame(frame, n_simulations=19)
    volume = Frame(np.ones((4, 5, 6), np.uint8), load_schema("lithium"), Scale((1.0, 1.0, 1.0)),
                   instances=np.zeros((4, 5, 6), np.int32))  # fmt: skip
    with pytest.raises(UsageError, match="plan-view"):
        measure_frame(volume)
