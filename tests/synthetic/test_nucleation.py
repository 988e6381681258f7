import math

import numpy as np
import pytest

from seg.errors import UsageError
from seg.metrics.nucleation_laws import Births, compare_laws
from seg.synthetic import make_experiment
from seg.synthetic.cycler import UM_PER_MAH_CM2
from seg.synthetic.nucleation_scene import Scene
from seg.synthetic.nuclei import FIRST_RADIUS_UM


def make(seed=3, **options):
    return make_experiment("nucleation", seed, **{"shape_px": (220, 240), "n_frames": 6, **options})


def scene(seed=3, **options):
    made = make(seed, **options)
    return Scene(seed, dict(made.parameters), np.asarray(made.images.frame_times_s))


def test_cover_agrees_with_the_pixels():
    made = make(frame_interval_s=300.0)
    for frame in range(1, 6):
        labels = made.labels.frame(frame)
        pixels = (labels == 3).sum() / (labels != 10).sum()
        # pixel centres: error of a boundary of length B px is about sqrt(B) / 6 px
        assert pixels == pytest.approx(made.truth_value("covered_fraction", frame=frame), abs=6e-4)
        valid = (labels != 10).sum() * 0.42 * 0.40
        assert valid == pytest.approx(made.truth_value("valid_area", frame=frame), rel=5e-4)


def test_shifted_frames_keep_truth_and_pixels_together():
    made = make(jitter_px=4, frame_interval_s=300.0)
    still = make(frame_interval_s=300.0)
    assert (made.labels.frame(4) != still.labels.frame(4)).any()
    labels = made.labels.frame(4)
    assert (labels == 3).sum() / (labels != 10).sum() == pytest.approx(
        made.truth_value("covered_fraction", frame=4), abs=6e-4
    )


def test_domes_take_up_the_charge():
    """Dome volumes 2/3 pi R^3 sum to the charge by Faraday's law, once nuclei are large enough to take it."""
    s = scene(n_frames=8, frame_interval_s=400.0, mode="instantaneous")
    plane = float(np.prod(s.padded[1] - s.padded[0]))

    def volume(time_s):
        growth = np.interp(time_s, s.clock, s.growth_of_time)
        alive = s.nuclei.birth_s <= time_s
        return 2 / 3 * math.pi * float(np.sum(s.nuclei.radius(growth)[alive] ** 3))

    grown = volume(2800.0) - volume(1400.0)
    # explicit Euler with 600 steps: 0.3 % over this span
    assert grown == pytest.approx(UM_PER_MAH_CM2 * 1.0 * 1400 / 3600 * plane, rel=5e-3)


def test_outline_has_the_area_of_its_radius():
    s = scene()
    growth = s.growth[-1]
    for index in range(5):
        outline = s.nuclei.outline(index, growth)
        following = np.roll(outline, -1, axis=0)
        area = abs(np.sum(outline[:, 1] * following[:, 0] - following[:, 1] * outline[:, 0])) / 2
        assert area == pytest.approx(math.pi * s.nuclei.radius(growth)[index] ** 2, rel=1e-4)
    assert s.nuclei.radius(s.nuclei.birth_growth).tolist() == pytest.approx([FIRST_RADIUS_UM] * len(s.nuclei))


def test_number_rises_with_current_as_asked():
    """Site density is k j^p: over four seeds the ratio at 1 and 4 mA/cm2 is 4^0.7 within three standard errors."""
    counts = {}
    for current in (1.0, 4.0):
        counts[current] = sum(
            make(seed, current_density_mA_cm2=current, mode="instantaneous", n_frames=2, frame_interval_s=60.0,
                 boundary_enrichment=1.0, bubble=False, burnt_in=False).truth_value("birth_count")
            for seed in range(4)
        )  # fmt: skip
    error = math.sqrt(1 / counts[1.0] + 1 / counts[4.0])
    assert math.log(counts[4.0] / counts[1.0]) == pytest.approx(0.7 * math.log(4), abs=3 * error)


def test_births_follow_the_mode():
    instant = scene(mode="instantaneous", n_frames=4, frame_interval_s=400.0)
    assert instant.nuclei.birth_s.max() <= 0.02 * instant.times[-1]
    slow = scene(mode="progressive", n_frames=4, frame_interval_s=60.0, rate_constant_per_s=2e-3, density_per_cm2=2e6)
    n = len(slow.nuclei)  # born within 180 s
    early = float((slow.nuclei.birth_s <= 90).mean())
    # births of an exponential law, cut at 180 s; few sites are lost to growth so early
    expected = (1 - math.exp(-0.18)) / (1 - math.exp(-0.36))
    assert n > 40
    assert early == pytest.approx(expected, abs=3 * math.sqrt(0.25 / n) + 0.03)


def test_births_on_bare_foil_follow_the_rate_constant():
    """Sites that are covered are lost, so births per bare area fall as exp(-A t): A and no burst, by an own fit."""
    rates, shares = [], []
    for seed in range(4):
        made = make(seed, mode="progressive", density_per_cm2=9e5, n_frames=12, bubble=False, burnt_in=False)
        assert next(m for m in made.truth if m.metric == "nucleation_mode").method == "saturating"
        times = np.array(made.images.frame_times_s)
        births = np.histogram(made.lineage.loc[made.lineage["in_field"], "birth_s"], times)[0]
        cover = np.array([made.truth_value("covered_fraction", frame=f) for f in range(12)])
        fits = compare_laws(Births(times, births, 1 - (cover[1:] + cover[:-1]) / 2)).fits
        rates.append(fits["saturating"].rate_constant_per_s.value)
        shares.append(fits["mixed"].instantaneous_fraction.value)
    # some 80 births each: 15 % of A, over four
    assert np.mean(rates) == pytest.approx(2.5e-3, rel=3 * 0.15 / 2)
    assert np.mean(shares) < 0.1
    slow = make(mode="progressive", rate_constant_per_s=1e-4)
    assert next(m for m in slow.truth if m.metric == "nucleation_mode").method == "progressive"


def test_boundaries_are_decorated():
    s = scene(boundary_enrichment=6.0, density_per_cm2=8e5, mode="instantaneous", n_frames=2)
    near = s.to_boundary(s.grain_seeds, s.nuclei.position) < 3.0
    rng = np.random.default_rng(0)
    share = (s.to_boundary(s.grain_seeds, rng.uniform(*s.padded, (20_000, 2))) < 3.0).mean()
    ratio = near.mean() / share / ((1 - near.mean()) / (1 - share))
    assert ratio == pytest.approx(6.0, rel=3 * math.sqrt(1 / near.sum() + 1 / (~near).sum()))


def test_spacing_is_kept():
    s = scene(spacing_um=15.0)
    position = s.nuclei.position
    gaps = np.linalg.norm(position[:, None] - position[None], axis=2) + 1e9 * np.eye(len(position))
    assert gaps.min() >= 15.0
    with pytest.raises(UsageError, match="do not fit"):
        make(spacing_um=60.0)


def test_merged_objects_are_counted_once():
    options = {"frame_interval_s": 500.0, "density_per_cm2": 3e5, "bubble": False, "burnt_in": False}
    kept, merged = make(coalescence="impinge", **options), make(coalescence="merge", **options)
    assert merged.truth_value("object_count", frame=5) < kept.truth_value("object_count", frame=5)
    assert merged.truth_value("covered_fraction", frame=5) == kept.truth_value("covered_fraction", frame=5)
    assert len(np.unique(merged.instances.frame(5))) < len(np.unique(kept.instances.frame(5)))
    assert merged.lineage["merged_into"].notna().sum() > 0


def test_unknown_words_are_refused():
    with pytest.raises(UsageError, match="mode"):
        make(mode="sudden")
    with pytest.raises(UsageError, match="coalescence"):
        make(coalescence="bounce")


def test_a_foil_opens_more_of_the_same_sites_as_current_rises():
    """Barriers: sites open at a low current are open at a higher one; their number rises as asked (3 SE)."""
    options = {"foil": 9, "mode": "instantaneous", "density_per_cm2": 4e5, "n_frames": 2, "frame_interval_s": 1.0,
               "shape_px": (300, 300)}  # fmt: skip
    found = {}
    for seed, current in enumerate((0.3, 1.0, 1.0, 4.0)):
        lineage = make(seed, current_density_mA_cm2=current, **options).lineage
        found[seed] = {tuple(p) for p in lineage.loc[lineage["in_field"], ["y_um", "x_um"]].to_numpy()}
    low, one, again, high = found.values()
    assert one == again
    assert low < one < high
    assert math.log(len(high) / len(low)) == pytest.approx(
        0.7 * math.log(4 / 0.3), abs=3 * math.sqrt(1 / len(low) + 1 / len(high))
    )
    expected = 4e5 * 1e-8 * 300 * 0.42 * 300 * 0.40
    assert len(one) == pytest.approx(expected, abs=3.5 * math.sqrt(expected))
    with pytest.raises(UsageError, match="spacing_um"):
        make(foil=1, spacing_um=3.0)


def test_a_foil_is_decorated_at_its_grain_boundaries():
    s = scene(foil=4, boundary_enrichment=6.0, density_per_cm2=8e5, mode="instantaneous", n_frames=2)
    near = s.to_boundary(s.grain_seeds, s.nuclei.position) < 3.0
    trial = np.random.default_rng(0).uniform(*s.padded, (20_000, 2))
    share = (s.to_boundary(s.grain_seeds, trial) < 3.0).mean()
    ratio = near.mean() / share / ((1 - near.mean()) / (1 - share))
    assert ratio == pytest.approx(6.0, rel=3 * math.sqrt(1 / near.sum() + 1 / (~near).sum()))
