import json
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from seg.electrochem import align_to_frames, read_cycler
from seg.errors import UsageError
from seg.io import open_stack, read_labels
from seg.metrics.names import metric_unit
from seg.metrics.table import COLUMNS
from seg.synthetic import FAMILIES, SAMPLES, make_experiment, make_sample, write_experiment
from seg.synthetic.experiment import LazyArray

SMALL = {
    "sei": {"shape_px": (200, 210), "n_particles": 2, "core_radius_um": 0.010, "thickness_um": 0.004},
    "interface": {"shape_px": (48, 72, 64), "void_radius_um": 2.6, "n_filaments": 1, "filament_width_um": 2.0},
}
TINY = {"shape_px": (160, 176)}


def small(family, seed=4, **options):
    return make_experiment(family, seed, **{**SMALL.get(family, TINY), **options})


@cache
def shared(family):
    """One experiment of the family for all tests that only look at it."""
    return small(family)


class TestLazyArray:
    def test_indexing_is_numpys(self):
        whole = np.arange(5 * 3 * 4).reshape(5, 3, 4)
        made = []
        lazy = LazyArray(whole.shape, whole.dtype, lambda i: made.append(i) or whole[i])
        for key in (
            0,
            -1,
            slice(1, 4),
            slice(None),
            ...,
            (2, 1),
            (slice(None), 0),
            (2, slice(None), 3),
            [0, 3],
            slice(3, 3),
        ):
            np.testing.assert_array_equal(lazy[key], whole[key])
        np.testing.assert_array_equal(np.asarray(lazy), whole)

    def test_makes_only_what_is_asked_for_and_keeps_the_last(self):
        made = []
        lazy = LazyArray((5, 2), "uint8", lambda i: made.append(i) or np.full(2, i))
        assert lazy[3][0] == 3
        assert lazy[3][1] == 3
        assert made == [3]
        with pytest.raises(IndexError, match="index 5"):
            lazy[5]
        with pytest.raises(ValueError, match="read-only"):
            lazy[3][0] = 1


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_is_the_same_for_the_same_seed_only(self, family):
        one, again, other = shared(family), small(family), small(family, seed=5)
        frame = one.images.n_frames // 2
        np.testing.assert_array_equal(one.images.frame(frame), again.images.frame(frame))
        np.testing.assert_array_equal(one.labels.frame(frame), again.labels.frame(frame))
        pd.testing.assert_frame_equal(one.truth_table(), again.truth_table())
        assert (one.images.frame(frame) != other.images.frame(frame)).any()

    def test_frames_do_not_depend_on_the_order_they_are_made_in(self, family):
        forward, backward = shared(family), small(family)
        last = forward.images.shape[0] - 1 if not isinstance(forward.images.data, np.ndarray) else 0
        if last == 0:
            pytest.skip("a single image")
        first = [np.array(forward.images.data[i]) for i in (0, last)]
        second = [np.array(backward.images.data[i]) for i in (last, 0)]
        np.testing.assert_array_equal(first[0], second[1])
        np.testing.assert_array_equal(first[1], second[0])

    def test_labels_fit_the_schema_and_the_instances(self, family):
        made = shared(family)
        frame = made.images.n_frames - 1
        labels = made.labels.frame(frame)
        made.schema.check(labels)
        assert labels.min() > 0  # every pixel is labelled
        assert made.images.shape == made.labels.shape
        if made.instances is not None:
            ids = made.instances.frame(frame)
            assert set(np.unique(ids)) - {0} <= set(made.lineage["object_id"])
            assert ids.max() > 0

    def test_truth_uses_names_and_units_of_the_contract(self, family):
        made = shared(family)
        assert tuple(made.truth_table().columns) == COLUMNS
        assert {m.metric: m.unit for m in made.truth} == {m.metric: metric_unit(m.metric) for m in made.truth}
        assert np.isfinite([m.value for m in made.truth]).all()
        assert all(m.method for m in made.truth)

    def test_pixels_are_not_square_and_the_clock_has_an_offset(self, family):
        made = shared(family)
        sizes = list(made.images.calibration.pixel_size_um.values())
        assert len(set(sizes)) == len(sizes)
        if made.cycler is not None:
            assert made.clock_offset_s != 0
            assert list(made.cycler) == ["time_s", "voltage_V", "current_mA", "capacity_mAh"]

    def test_written_files_read_back(self, family, tmp_path):
        made = shared(family)
        write_experiment(made, tmp_path)
        image, labels = open_stack(tmp_path / "image.ome.tif"), read_labels(tmp_path / "labels.ome.tif")
        last = made.images.n_frames - 1
        np.testing.assert_array_equal(image.frame(last), made.images.frame(last))
        np.testing.assert_array_equal(labels.stack.frame(last), made.labels.frame(last))
        assert image.axes == made.images.axes
        assert dict(image.calibration.pixel_size_um) == pytest.approx(dict(made.images.calibration.pixel_size_um))
        assert image.frame_times_s == made.images.frame_times_s
        truth = pd.read_csv(tmp_path / "truth.csv")
        np.testing.assert_allclose(truth["value"], made.truth_table()["value"], rtol=1e-9)
        about = json.loads((tmp_path / "experiment.json").read_text(encoding="utf-8"))
        assert (about["family"], about["seed"]) == (family, 4)
        if made.cycler is not None and made.images.frame_times_s is not None:
            cycler = read_cycler(tmp_path / "cycler.csv")
            joined = align_to_frames(cycler, image.frame_times_s, offset_s=about["clock_offset_s"])
            assert joined["capacity_mAh"].notna().all()
            # the images start when the first step does
            assert abs(joined["capacity_mAh"].iloc[0]) < 0.01 * cycler["capacity_mAh"].abs().max()

    def test_texture_only_changes_pixels_not_truth(self, family):
        plain, textured = shared(family), small(family, texture_only=True)
        frame = plain.images.n_frames - 1
        np.testing.assert_array_equal(plain.labels.frame(frame), textured.labels.frame(frame))
        assert plain.truth == textured.truth
        assert (plain.images.frame(frame) != textured.images.frame(frame)).mean() > 0.5

    def test_dial_changes_pixels_not_truth(self, family):
        weak, strong = small(family, dial=0.0), small(family, dial=1.0)
        frame = weak.images.n_frames - 1
        np.testing.assert_array_equal(weak.labels.frame(frame), strong.labels.frame(frame))
        assert weak.truth == strong.truth
        assert (weak.images.frame(frame) != strong.images.frame(frame)).mean() > 0.5


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UsageError, match="'nucleation'"):
        make_experiment("nucleaton", 0)
    with pytest.raises(UsageError, match="'optical'"):
        make_sample("optica")
    with pytest.raises(UsageError, match="seed"):
        make_experiment("sei", -1)


def test_samples_name_families():
    assert {family for family, _, _ in SAMPLES.values()} <= set(FAMILIES)


def test_truth_value_wants_one_row():
    made = small("sei")
    assert made.truth_value("sei_coverage", frame=0) == 1
    with pytest.raises(KeyError, match="0 true values"):
        made.truth_value("sei_coverage", frame=7)
    doubled = replace(made, truth=made.truth * 2)
    with pytest.raises(KeyError, match="2 true values"):
        doubled.truth_value("sei_coverage", frame=0)
