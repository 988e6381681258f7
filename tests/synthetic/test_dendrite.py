import math

import numpy as np
import pytest
from scipy import ndimage

from seg.errors import UsageError
from seg.metrics.dendrite import analyse_dendrite
from seg.synthetic import make_experiment
from seg.synthetic.aggregation import grow_aggregate
from seg.synthetic.branches import Branch, Habit, distance_to_segments, length_of, rod_aspect_ratio
from seg.synthetic.dendrite import _Scene


def make(seed=5, **options):
    return make_experiment("dendrite", seed, **{"shape_px": (300, 340), "n_frames": 4, "n_trees": 3, **options})


def scene(seed=5, **options):
    made = make(seed, **options)
    return _Scene(seed, dict(made.parameters))


def test_a_branch_grows_along_itself():
    branch = Branch(np.array([[0.0, 0.0], [0.0, 3.0], [4.0, 3.0]]), 1.0, start_um=2.0, speed=0.5, parent=-1, tree=1)
    assert branch.full_length_um == 7.0
    assert len(branch.visible(2.0)) == 0
    assert length_of(branch.visible(10.0)) == pytest.approx(4.0)
    np.testing.assert_allclose(branch.visible(10.0)[-1], [1.0, 3.0])
    assert length_of(branch.visible(1e3)) == 7.0


@pytest.mark.parametrize("kind", ["needle", "fern", "crown"])
def test_branches_never_touch(kind):
    s = scene(kind=kind)
    for a, first in enumerate(s.branches):
        for b, second in enumerate(s.branches[:a]):
            if b == first.parent or first.parent == second.parent:
                continue
            gap = distance_to_segments(first.points, second.points[:-1], second.points[1:]).min()
            # children of `second`'s parent start on it; all others keep the gap
            if second.parent == a or first.tree != second.tree or first.parent != b:
                assert gap - first.width_um / 2 - second.width_um / 2 > 0.8 * s.habit.gap_um


def test_area_is_length_times_width():
    made = make(kind="needle")
    length, width = made.truth_value("skeleton_length", frame=3), made.truth_value("branch_width", frame=3)
    trees = made.truth_value("object_count", frame=3)
    drawn = (made.labels.frame(3) == 4).sum() * 0.105 * 0.100
    # half a disc at each tip; the foot inside the electrode is hidden
    assert drawn == pytest.approx(length * width + trees * math.pi * width**2 / 8, rel=0.02)


def test_height_agrees_with_the_pixels():
    made = make()
    labels = made.labels.frame(3)
    rows = np.flatnonzero((labels == 4).any(axis=1))
    surface = np.flatnonzero((labels == 2).any(axis=1))[0]
    assert (surface - rows[0]) * 0.105 == pytest.approx(made.truth_value("dendrite_height", frame=3), abs=0.105)


@pytest.mark.parametrize("kind", ["fern", "crown"])
def test_tips_and_length_agree_with_an_independent_skeleton(kind):
    made = make(kind=kind, n_trees=2, shape_px=(260, 240), n_frames=4)
    labels = made.labels.frame(3)
    metal, electrode = labels == 4, labels == 2
    root = metal & ndimage.binary_dilation(electrode)
    found = analyse_dendrite(metal, spacing=(0.105, 0.100), root=root)
    # skeleton metrics: length 3.5 %, tips exact but for stubs near the spur limit
    assert found.skeleton_length == pytest.approx(made.truth_value("skeleton_length", frame=3), rel=0.04)
    assert found.tip_count == pytest.approx(made.truth_value("tip_count", frame=3), abs=2)


def test_moss_comes_first():
    made = make(moss_um=2.0, moss_until=0.5, n_frames=5)
    assert made.truth_value("onset_time") == 40.0
    early, late = made.labels.frame(1), made.labels.frame(4)
    assert (early == 3).sum() > 0
    assert (early == 4).sum() == 0
    assert (late == 4).sum() > 0
    assert made.truth_value("tip_count", frame=1) == 0


def test_unknown_words_are_refused():
    with pytest.raises(UsageError, match="kind"):
        make(kind="cactus")
    with pytest.raises(UsageError, match="xct"):
        make(modality="xct")
    with pytest.raises(UsageError, match="below"):
        make(seen_from="below")
    with pytest.raises(UsageError, match="from above only"):
        make(kind="rod")
    with pytest.raises(UsageError, match="pulse"):
        make(duty=0.0)
    with pytest.raises(UsageError, match="from the side only"):
        make(seen_from="above", moss_um=2.0)


@pytest.mark.parametrize(("kind", "seen_from"), [
    ("needle", "above"), ("columnar", "side"), ("fern", "above"), ("crown", "above"), ("fractal", "side"),
    ("fractal", "above"), ("moss", "side"),
])  # fmt: skip
def test_cover_agrees_with_the_pixels(kind, seen_from):
    made = make(2, kind=kind, seen_from=seen_from, n_trees=6 if kind == "columnar" else 3)
    labels, seen = made.labels.frame(3), 0
    for value, name in ((4, "dendrite"), (3, "deposit")):
        rows = [m for m in made.truth if (m.metric, m.class_name, m.frame) == ("covered_area", name, 3)]
        for row in rows:
            seen += 1
            # pixel centres of a boundary of B px scatter by about sqrt(B) / 6: 10 px of some 3000
            assert (labels == value).sum() * 0.105 * 0.100 == pytest.approx(row.value, rel=0.01)
    assert seen == 1 + (kind == "moss")


def test_moss_to_dendrite_keeps_both_areas():
    made = make(moss_um=3.0, moss_until=0.3, modality="optical")
    labels = made.labels.frame(3)
    for value, name in ((4, "dendrite"), (3, "deposit")):
        true = next(m for m in made.truth if (m.metric, m.class_name, m.frame) == ("covered_area", name, 3)).value
        assert (labels == value).sum() * 0.105 * 0.100 == pytest.approx(true, rel=0.015)


def test_a_tree_has_one_tip_more_than_forks_for_each_branch_that_leaves_them():
    """On the electrode tips = trees + sum over forks of (branches that leave - 1): with two each, trees + forks."""
    made = make(kind="fern", n_trees=3)
    assert made.truth_value("tip_count", frame=3) == 3 + made.truth_value("branch_point_count", frame=3)


def test_fractal_dimension_is_that_of_diffusion_limited_aggregation():
    """Mass within r of the seed grows as r^1.71 in the plane (Witten & Sander); one cluster scatters by about 0.1."""
    habit = Habit("fractal", (400.0, 400.0), (0.1, 0.1), math.inf, 1, 0, 1.0, 120.0, 0.0)
    slopes = []
    for seed in range(2):
        branches = grow_aggregate(np.random.default_rng(seed), habit)
        points = np.array([b.points[1] for b in branches])
        root = branches[0].points[0]
        away = np.sort(np.hypot(*(points - root).T))
        radii = np.geomspace(6, 0.6 * away[-1], 12)
        slopes.append(np.polyfit(np.log(radii), np.log(np.searchsorted(away, radii)), 1)[0])
        # a tree: every bond hangs on one that was there before
        assert all(b.parent < i for i, b in enumerate(branches))
    assert np.mean(slopes) == pytest.approx(1.71, abs=0.12)


def test_fractals_agree_with_an_independent_skeleton():
    made = make(kind="fractal")
    labels = made.labels.frame(3)
    root = (labels == 4) & ndimage.binary_dilation(labels == 2)
    found = analyse_dendrite(labels == 4, spacing=(0.105, 0.100), root=root)
    assert found.skeleton_length == pytest.approx(made.truth_value("skeleton_length", frame=3), rel=0.05)
    assert found.tip_count == pytest.approx(made.truth_value("tip_count", frame=3), abs=2)


def test_balls_become_rods():
    made = make(kind="rod", seen_from="above", n_trees=9, width_um=1.6, height_share=0.45, n_frames=4)
    ratios = [made.truth_value("aspect_ratio", frame=f) for f in range(4)]
    assert ratios[0] == pytest.approx(1, abs=1e-3)
    assert all(b > a + 0.3 for a, b in zip(ratios, ratios[1:], strict=False))
    # moments of the drawn objects, physical units: some 150 to 700 px each
    ids = made.instances.frame(3)
    for k in range(1, 10):
        y, x = np.nonzero(ids == k)
        spread = np.linalg.eigvalsh(np.cov(np.array([y * 0.105, x * 0.100])))
        true = made.truth_value("aspect_ratio", frame=3, object_id=k)
        assert math.sqrt(spread[1] / spread[0]) == pytest.approx(true, rel=0.05)
    assert made.truth_value("object_count", frame=0) == len(np.unique(made.instances.frame(0))) - 1 == 9


def test_a_rod_without_length_is_a_ball_and_a_long_one_a_line():
    assert rod_aspect_ratio(0.0, 2.0) == pytest.approx(1)
    # long: rectangle, whose ratio is that of its sides, longer by a bit for its round ends
    assert rod_aspect_ratio(200.0, 2.0) == pytest.approx(100, rel=0.02)


def test_pulses_grow_for_their_share_of_the_time():
    steady, pulsed = make(kind="needle"), make(kind="needle", duty=0.5, pulse_s=10.0)
    for metric in ("skeleton_length", "dendrite_height"):  # whole periods: half of the time of growth
        grown = steady.truth_value(metric, frame=1)
        assert pulsed.truth_value(metric, frame=2) == pytest.approx(grown, rel=1e-9)
        assert pulsed.truth_value(metric, frame=1) < grown
    assert pulsed.truth_value("tip_velocity") == steady.truth_value("tip_velocity") / 2
    charge = [made.cycler["capacity_mAh"].iloc[-1] for made in (steady, pulsed)]
    assert charge[1] == pytest.approx(charge[0] / 2, rel=1e-6)
