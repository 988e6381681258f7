"""Sizes: unbiased means, the truncated law, and what is said when there is nothing to say."""

import math

import numpy as np
import pytest

from seg.metrics.frame import Frame
from seg.metrics.size import measure_frame, sampling_weights, truncated_lognormal
from seg.metrics.table import Scale
from seg.objects import label_objects

SCALE = Scale((0.5, 0.2))


def discs(shape, centres_radii, spacing=(1.0, 1.0)):
    y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    mask = np.zeros(shape, bool)
    for cy, cx, radius in centres_radii:
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    return mask


def frame_of(schema, mask, scale=SCALE, *, invalid=None, min_diameter_px=0.0):
    labels = np.where(mask, schema.index("deposit"), schema.index("electrolyte")).astype(np.uint8)
    if invalid is not None:
        labels[invalid] = schema.index("artifact")
    instances = label_objects(schema.mask(labels, "deposit"), scale=scale, split_touching=False)
    return Frame(
        labels, schema, scale, instances=instances, object_classes=("deposit",), min_diameter_px=min_diameter_px
    )


def rows_of(frame, **options):
    return {row.metric: row for row in measure_frame(frame, **options)}


# --- cut objects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("with_artefact", "tolerance"), [(False, 1e-12), (True, 0.02)])
def test_weights_make_up_for_every_position_that_is_cut(with_artefact, tolerance):
    """Exact expectation: over all positions of a box, the weights of the whole ones must sum to 1 for every size.

    With an artefact the share of positions is sampled (about 4000 of them) and interpolated: 2 %.
    """
    valid = np.ones((90, 130), bool)
    if with_artefact:
        valid[60:68, 20:70] = False
    sizes = [(5, 5), (9, 21), (17, 8), (25, 25)]
    where = {}
    for h, w in sizes:
        # A box is whole where it and one pixel around it are valid.
        blocked = np.pad(~valid, 0)
        sums = np.pad(blocked.cumsum(0).cumsum(1), [(1, 0), (1, 0)])
        y, x = np.mgrid[0 : 90 - h - 1, 0 : 130 - w - 1]
        inside = sums[y + h + 2, x + w + 2] - sums[y, x + w + 2] - sums[y + h + 2, x] + sums[y, x] == 0
        where[h, w] = int(inside.sum())
    extents = np.array(sizes)
    weights = sampling_weights(np.zeros_like(extents), extents, valid)
    assert weights * [where[s] for s in sizes] == pytest.approx(np.ones(4), rel=tolerance)
    plain = np.array([where[s] for s in sizes])
    assert plain.max() / plain.min() > 1.3  # what the mean of whole objects is wrong by, between 5 and 25 px


def test_mean_of_the_frame_uses_the_weights(schema):
    mask = discs((100, 100), [(30, 30, 10), (70, 30, 5), (70, 60, 5), (0, 60, 20)])
    row = rows_of(frame_of(schema, mask, Scale((1.0, 1.0))))["mean_equivalent_diameter"]
    large, small = 1 / (100 - 21 - 1) ** 2, 1 / (100 - 11 - 1) ** 2
    d_large, d_small = (2 * math.sqrt(n / math.pi) for n in (317, 81))  # pixels of digital discs of radius 10 and 5
    expected = (d_large * large + 2 * d_small * small) / (large + 2 * small)
    assert row.value == pytest.approx(expected)
    assert row.n == 3
    assert row.low < row.value < row.high
    assert row.flags == ("few-pixels",)  # the mean is under 16 px


def test_only_cut_objects_give_nan(schema):
    rows = rows_of(frame_of(schema, np.ones((20, 30), bool)))
    assert math.isnan(rows["mean_equivalent_diameter"].value)
    assert rows["mean_equivalent_diameter"].flags == ("touches-border",)
    nothing = rows_of(frame_of(schema, np.zeros((20, 30), bool)))["mean_equivalent_diameter"]
    assert (math.isnan(nothing.value), nothing.n, nothing.flags) == (True, 0, ())


def test_objects_next_to_artefacts_and_under_the_limit_are_left_out(schema):
    mask = discs((80, 120), [(40, 30, 12), (40, 80, 12)])
    mask[10, 10] = True
    rows = rows_of(frame_of(schema, mask, Scale((1.0, 1.0)), invalid=np.s_[30:50, 85:], min_diameter_px=4))
    row = rows["mean_equivalent_diameter"]
    assert row.n == 1
    assert row.value == pytest.approx(2 * math.sqrt(441 / math.pi))  # pixels of a digital disc of radius 12
    assert np.isnan([row.low, row.high]).all()


# --- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius_um", [4.0, 7.0])
def test_diameter_of_discs_on_anisotropic_pixels(schema, radius_um):
    mask = discs((120, 300), [(15, 15, radius_um), (40, 40, radius_um)], SCALE.spacing)
    row = rows_of(frame_of(schema, mask))["mean_equivalent_diameter"]
    # Target: 2 % from 8 px radius on; 4 um are 8 rows and 20 columns.
    assert row.value == pytest.approx(2 * radius_um, rel=0.02)
    assert row.unit == "um"


def test_scale_and_transposition(schema):
    mask = discs((90, 120), [(30, 30, 10), (60, 80, 14), (20, 90, 6)])
    one = rows_of(frame_of(schema, mask))["mean_equivalent_diameter"]
    double = rows_of(frame_of(schema, mask, Scale((1.0, 0.4))))["mean_equivalent_diameter"]
    turned = rows_of(frame_of(schema, mask.T, Scale((0.2, 0.5))))["mean_equivalent_diameter"]
    assert double.value == pytest.approx(2 * one.value)
    assert turned.value == pytest.approx(one.value)
    pixels = rows_of(frame_of(schema, mask, Scale((1.0, 1.0), calibrated=False)))["mean_equivalent_diameter"]
    assert (pixels.unit, pixels.flags[0]) == ("px", "uncalibrated")


# --- the lognormal law ----------------------------------------------------------------------------------------------


def test_truncated_law_is_found_where_the_plain_one_is_biased(rng):
    mu, sigma, limit = math.log(3.0), 0.5, 2.5
    sizes = rng.lognormal(mu, sigma, 8000)
    seen = sizes[sizes >= limit]  # a third is not seen
    (found, low, high), (width, low_width, high_width) = truncated_lognormal(seen, np.ones(len(seen)), limit)
    assert abs(np.log(seen).mean() - mu) > 0.15
    assert (low <= mu <= high, low_width <= sigma <= high_width) == (True, True)
    # Intervals as wide as this sample allows, not wider: about 3 standard errors of a truncated sample.
    assert (found, width) == pytest.approx((mu, sigma), abs=0.05)
    assert high - low < 0.12


def test_interval_of_the_law_covers(rng):
    hits = np.zeros(2)
    for _ in range(300):
        sizes = rng.lognormal(1.0, 0.4, 150)
        fits = truncated_lognormal(sizes[sizes >= 2.0], np.ones((sizes >= 2.0).sum()), 2.0)
        hits += [low <= truth <= high for (_, low, high), truth in zip(fits, (1.0, 0.4), strict=True)]
    assert (hits / 300 >= 0.91).all()  # 95 %, standard error 1.3 %
    assert (hits / 300 <= 0.99).all()


def test_law_needs_ten_objects_of_different_size(schema):
    few = rows_of(frame_of(schema, discs((90, 120), [(30, 30, 10), (60, 80, 14)])))["size_lognormal_mu"]
    assert math.isnan(few.value)
    assert few.flags[-1] == "ambiguous"
    equal = truncated_lognormal(np.full(20, 3.0), np.ones(20), 1.0)
    assert np.isnan(equal).all()


def test_law_of_a_frame(schema):
    centres = [(y, x) for y in range(20, 280, 40) for x in range(20, 380, 40)]
    radii = np.exp(np.random.default_rng(5).normal(math.log(8.0), 0.3, len(centres)))
    mask = discs((300, 400), [(*c, min(r, 17)) for c, r in zip(centres, radii, strict=True)])
    rows = rows_of(frame_of(schema, mask, Scale((0.5, 0.5)), min_diameter_px=4))
    # ln of the diameter in um: radius 8 px is a diameter of 8 um here. 63 objects: standard errors 0.04 and 0.03.
    assert rows["size_lognormal_mu"].value == pytest.approx(math.log(8.0), abs=0.1)
    assert rows["size_lognormal_sigma"].value == pytest.approx(0.3, abs=0.08)
    assert rows["size_lognormal_mu"].low < rows["size_lognormal_mu"].value < rows["size_lognormal_mu"].high


def test_same_seed_same_interval(schema):
    frame = frame_of(schema, discs((90, 120), [(30, 30, 10), (60, 80, 14), (20, 90, 6)]))
    one, two, other = (rows_of(frame, seed=seed)["mean_equivalent_diameter"] for seed in (1, 1, 2))
    assert (one.low, one.high) == (two.low, two.high)
    assert one.value == other.value


def test_needs_instances(schema):
    with pytest.raises(ValueError, match=r"frame\.instances"):
        measure_frame(Frame(np.ones((4, 4), np.uint8), schema, SCALE))
