import math

import numpy as np
import pytest
from scipy import ndimage

from seg.errors import UsageError
from seg.synthetic import make_experiment
from seg.synthetic.area import union_area
from seg.synthetic.caps import Cap, Support, base_angle, cap_area, pinned_angle, radius_of
from seg.synthetic.droplet import _Scene
from seg.synthetic.surfaces import cap_volume
from seg.synthetic.twins import draw_twin


def make(**options):
    return make_experiment("droplet", 3, **{"shape_px": (180, 240), "n_frames": 6, **options})


@pytest.mark.parametrize("radius_um", [math.inf, 0.5, 0.12])
@pytest.mark.parametrize("angle_deg", [25.0, 90.0, 140.0])
def test_angles_of_a_circle_are_those_asked_for(radius_um, angle_deg):
    tilt = 0.1 if math.isinf(radius_um) else 0.0
    cap = Cap(Support((0.4, 0.5), tilt, radius_um), 0.03, 0.1, math.radians(angle_deg))
    truth = cap.truth()
    # finite difference over 2e-5 rad
    assert truth["left"] == pytest.approx(angle_deg, abs=1e-4)
    assert truth["right"] == pytest.approx(angle_deg, abs=1e-4)


@pytest.mark.parametrize("radius_um", [math.inf, 0.3])
def test_cap_area_is_that_of_the_outline(radius_um):
    support = Support((0.4, 0.5), 0.0, radius_um)
    cap = Cap(support, 0.0, 0.1, 1.2)
    field = (1.0, 1.0)
    inside = [support.outline(field)]
    drawn = union_area([cap.outline(), *inside], field, lines=32_768) - union_area(inside, field, lines=32_768)
    # a level support lies up to half a scan line off: 1.5e-5 * 0.19 of an area of 8.6e-3
    assert drawn == pytest.approx(cap_area(0.1, 1.2, radius_um), rel=4e-4)
    assert radius_of(cap_area(0.1, 1.2, radius_um), 1.2, radius_um) == pytest.approx(0.1, rel=1e-9)


def test_flat_cap_closed_forms():
    truth = Cap(Support((0.4, 0.5)), 0.0, 0.1, math.radians(60)).truth()
    assert truth["base_width"] == pytest.approx(2 * 0.1 * math.sin(math.radians(60)), rel=1e-9)
    assert truth["cap_height"] == pytest.approx(0.1 * (1 - 0.5), rel=1e-6)
    assert cap_area(1.0, math.pi / 2) == pytest.approx(math.pi / 2)


def test_pinned_base_stays():
    base = base_angle(0.1, 1.3, math.inf)
    angle = pinned_angle(0.4 * cap_area(0.1, 1.3), base, 1.3, math.inf)
    assert base_angle(radius_of(0.4 * cap_area(0.1, 1.3), angle), angle, math.inf) == pytest.approx(base, rel=1e-8)
    assert angle < 1.3


@pytest.mark.parametrize("support", ["flat", "tilted", "fibre"])
def test_area_agrees_with_the_pixels(support):
    made = make(support=support)
    for frame in (2, 3, 5):
        pixels = (made.labels.frame(frame) == 3).sum() * 0.00105 * 0.001
        # boundary of about 300 px, half of it along a straight support: up to 0.2 px of it
        assert pixels == pytest.approx(made.truth_value("covered_area", frame=frame), rel=0.03)


def test_rate_is_the_sum_of_the_droplets():
    made = make(n_frames=11, plating_share=0.6)
    area = [made.truth_value("covered_area", frame=f) for f in range(2, 7)]
    assert np.ptp(np.diff(area)) < 0.01 * np.mean(np.diff(area))  # constant once all are born
    rates = [made.truth_value("area_rate", frame=f) for f in range(3, 7)]
    assert rates == pytest.approx(np.diff(area), rel=1e-9)


@pytest.mark.parametrize(("regime", "angle_falls", "base_falls"), [
    ("constant-angle", False, True), ("pinned", True, False),
])  # fmt: skip
def test_stripping_regimes(regime, angle_falls, base_falls):
    made = make(n_frames=11, plating_share=0.5, regime=regime)
    angle = [made.truth_value("contact_angle", frame=f, object_id=1, side="mean") for f in (5, 10)]
    base = [made.truth_value("base_width", frame=f, object_id=1) for f in (5, 10)]
    assert (angle[1] < angle[0] - 20) == angle_falls
    assert (base[1] < 0.8 * base[0]) == base_falls
    assert angle_falls or angle[1] == pytest.approx(angle[0], abs=1e-3)
    assert base_falls or base[1] == pytest.approx(base[0], rel=1e-6)


def test_mixed_stripping_ends_at_the_receding_angle():
    made = make(n_frames=11, plating_share=0.5, regime="mixed", receding_angle_deg=42.0)
    assert made.truth_value("contact_angle", frame=10, object_id=1, side="mean") == pytest.approx(42.0, abs=1e-3)


def test_fusion_keeps_the_volume_and_its_moment_is_that_of_contact():
    made = make(n_droplets=6, coalescence=True, plating_share=0.8, n_frames=10, area_rate_um2_s=0.0007)
    s = _Scene(3, dict(made.parameters))
    assert s.fusions
    assert made.truth_value("merge_count") == len(s.fusions) == made.lineage["merged_into"].notna().sum()
    for fusion in s.fusions:
        angle = math.radians(78.0)
        before = [s.cap(k, fusion.time_s - 1e-9) for k in (fusion.kept, fusion.gone)]
        after = s.cap(fusion.kept, fusion.time_s + 1e-9)
        volumes = [cap_volume(c.radius_um * math.sin(angle), angle) for c in before]
        # the area grows by 1e-9 s on either side
        assert cap_volume(after.radius_um * math.sin(angle), angle) == pytest.approx(sum(volumes), rel=1e-6)
        gap = abs(before[0].along_um - before[1].along_um)
        assert sum(c.radius_um for c in before) * math.sin(angle) == pytest.approx(gap, rel=1e-6)
        middle = sum(v * c.along_um for v, c in zip(volumes, before, strict=True)) / sum(volumes)
        assert after.along_um == pytest.approx(middle, abs=1e-9)
        assert s.cap(fusion.gone, fusion.time_s + 1e-9) is None
    labels = made.labels.frame(7)
    assert made.truth_value("object_count", frame=7) == ndimage.label(labels == 3)[1]
    assert set(np.unique(made.instances.frame(7))) - {0} == set(s.caps(7))


def test_volume_is_that_of_a_part_of_a_sphere():
    """The profile, turned about its axis: integral of pi w^2 over the height, from the outline alone."""
    made = make(n_droplets=1, support="flat")
    cap = _Scene(3, dict(made.parameters)).caps(3)[1]
    outline = cap.outline(20_001)
    height = cap.support.height(outline[:, 0], outline[:, 1])
    right = outline[(outline[:, 1] >= cap.center()[1]) & (height >= 0)]
    order = np.argsort(right[:, 0])
    y, w = right[order, 0], right[order, 1] - cap.center()[1]
    numeric = math.pi * np.trapezoid(w**2, y)
    assert made.truth_value("volume", frame=3, object_id=1) == pytest.approx(numeric, rel=1e-3)


def test_facets_appear_with_size():
    made = make(facet_diameter_um=0.04, n_frames=6)
    rows = [m for m in made.truth if m.metric == "contact_angle" and m.side == "left" and m.object_id == 1]
    assert [bool(m.flags) for m in rows][-1] or any(m.flags == ("faceted-contact",) for m in rows)
    assert made.truth_value("facet_transition_diameter") == 0.04
    cap = Cap(Support((0.4, 0.5)), 0.0, 0.1, 1.4, 1.0, (0.1, 1.35, 2.6, 3.9, 5.1))
    truth = cap.truth()
    # the same angle from a fine polygon, which knows nothing of the polar form
    outline = cap.outline(200_000)
    above = Support((0.4, 0.5)).height(outline[:, 0], outline[:, 1]) > 0
    k = int(np.flatnonzero(above & ~np.roll(above, 1))[0])
    step = outline[k] - outline[k - 1]
    assert truth["left"] == pytest.approx(math.degrees(math.atan2(-step[0], step[1])), abs=0.05)


def test_unknown_words_are_refused():
    with pytest.raises(UsageError, match="support"):
        make(support="sphere")
    with pytest.raises(UsageError, match="regime"):
        make(regime="slow")
    with pytest.raises(UsageError, match="fibre"):
        make(support="fibre", coalescence=True)


def test_sites_nucleate_by_a_law():
    """Of 400 sites 150 are born at once, the others with the mean delay 1/rate (5 % of it by chance)."""
    options = {"n_droplets": 400, "instantaneous_fraction": 0.375, "rate_constant_per_s": 2.0, "plating_share": 1.0}
    scene = _Scene(5, _parameters(n_frames=21, frame_interval_s=0.5, shape_px=(60, 4000), **options))
    late = scene.births[scene.births > 0]
    assert len(late) == pytest.approx(250, abs=30)  # binomial, sd 9.7
    assert np.mean(late) == pytest.approx(0.5, rel=0.2)
    truth = {m.metric: m for m in scene._law() if m.frame is None}
    assert truth["nucleation_mode"].method == "mixed"
    to_date = [m.n for m in scene._law() if m.metric == "nucleation_density"]
    assert to_date[0] == 400 - len(late)
    assert to_date[-1] == 400


def _parameters(**options):
    return dict(make(n_frames=1, shape_px=(20, 30)).parameters) | options


def test_impossible_laws_and_sizes_are_refused():
    with pytest.raises(UsageError, match="rate above 0"):
        make(instantaneous_fraction=0.5)
    with pytest.raises(UsageError, match="give 2 values"):
        make(pixel_um="0.001,0.002")


def test_a_droplet_whose_facets_do_not_stand_above_the_support_is_no_droplet():
    # The centre of a flat round droplet lies deep in its support, where its facets would be. This one was drawn at
    # random, and had droplets of no area.
    made = draw_twin("droplet", 2)
    for frame in range(made.labels.n_frames):
        areas = [m.value for m in made.truth if m.metric == "area" and m.frame == frame]
        assert len(areas) == made.truth_value("object_count", frame=frame)
        assert bool(areas) == bool((made.labels.frame(frame) == 3).any())
        assert all(area > 0 for area in areas)
