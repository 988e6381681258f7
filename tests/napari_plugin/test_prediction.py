"""Forest, network and the choice of the next frame, on a texture that brightness does not tell apart."""

import numpy as np
import pytest

from napari_plugin.prediction import ForestPredictor, NetworkPredictor, Planes, strokes_of
from napari_plugin.suggest import _shares, advise, metrics_of_frames
from seg.analysis import load_analysis
from seg.errors import LabelError, UsageError
from seg.stack import Calibration, Stack

SIZES = {"y": 0.6, "x": 0.4}


def film(axes="tyx", frames=5, shape=(96, 120), growth=4):
    """Left half smooth, right half grainy, and a bright square that grows by `growth` rows; and the true classes."""
    rng = np.random.default_rng(2)
    images, truth = [], []
    for n in range(frames):
        image = rng.normal(100, 3, shape)
        labels = np.ones(shape, np.uint8)
        image[:, 60:] += rng.normal(0, 25, (shape[0], 60))
        labels[:, 60:] = 2
        image[10 : 22 + growth * n, 10:30] += 90
        labels[10 : 22 + growth * n, 10:30] = 3
        images.append(image.clip(0, 255).astype(np.uint8))
        truth.append(labels)
    data, labels = np.stack(images), np.stack(truth)
    if axes == "yx":
        data, labels = data[0], labels[0]
    calibration = Calibration(SIZES, tuple(2.5 * n for n in range(frames)) if "t" in axes else None, "file")
    return Stack(data, axes, calibration, "film"), labels


def strokes(truth: np.ndarray) -> np.ndarray:
    drawn = np.zeros_like(truth)
    for box in np.s_[70:75, 5:40], np.s_[70:75, 70:100], np.s_[12:18, 12:25]:
        drawn[box] = truth[box]
    return drawn


@pytest.fixture(scope="module")
def fitted(schema):
    stack, truth = film()
    predictor = ForestPredictor(Planes(stack), schema)
    predictor.update({(0,): strokes(truth[0])}, (0,))
    return predictor, stack, truth


def test_strokes_on_one_frame_predict_the_others(fitted):
    predictor, _, truth = fitted
    for frame in (0, 3):
        found = predictor.predict((frame,))
        assert found.labels.shape == truth[frame].shape
        # Wrong along the borders of the classes: 4 px (half the widest filter) on either side of 96 + 2 x 32 px.
        assert (found.labels == truth[frame]).mean() > 1 - 8 * 160 / truth[frame].size - 0.05
        assert 1 / 3 <= found.confidence.min() <= found.confidence.max() <= 1
    assert found.model == "forest"


def test_same_strokes_give_the_same_prediction(fitted, schema):
    predictor, stack, truth = fitted
    other = ForestPredictor(Planes(stack), schema)
    again = other.update({(0,): strokes(truth[0])}, (0,))
    assert np.array_equal(again.labels, predictor.predict((0,)).labels)


def test_new_strokes_count_and_old_features_are_kept(schema):
    stack, truth = film()
    predictor = ForestPredictor(Planes(stack), schema)
    drawn = strokes(truth[0])
    drawn[drawn == 3] = 0
    first = predictor.update({(0,): drawn}, (0,))
    assert 3 not in first.labels
    before = predictor.features((0,))
    assert 3 in predictor.update({(0,): strokes(truth[0])}, (0,)).labels
    assert predictor.features((0,)) is before


def test_cache_of_features_is_bounded(schema):
    stack, _ = film()
    one = ForestPredictor(Planes(stack), schema).features((0,)).nbytes
    predictor = ForestPredictor(Planes(stack), schema, cache_bytes=2 * one)
    for frame in range(5):
        predictor.features((frame,))
    assert len(predictor._features) == 2


def test_one_class_is_not_enough(schema):
    stack, truth = film("yx")
    drawn = np.where(truth == 1, strokes(truth), 0)
    predictor = ForestPredictor(Planes(stack), schema)
    with pytest.raises(LabelError, match="at least two classes"):
        predictor.update({(): drawn}, ())
    with pytest.raises(LabelError, match="at least two classes"):
        predictor.update({}, ())


def test_planes_of_a_series_of_volumes_are_found():
    labels = np.zeros((3, 4, 6, 8), np.uint8)
    labels[2, 1, 3, 3] = 5
    assert list(strokes_of(labels, "tzyx", [0, 2])) == [(2, 1)]
    assert list(strokes_of(labels[2], "zyx", [1])) == [(1,)]
    stack = Stack(np.arange(3 * 4 * 6 * 8, dtype=np.uint16).reshape(3, 4, 6, 8), "tzyx")
    assert np.array_equal(Planes(stack).raw((2, 1)), stack.data[2, 1])


def test_network_gives_what_the_engine_gives(schema):
    from seg.inference import segment
    from seg.models.bundle import load_bundle

    stack, _ = film(frames=2, shape=(64, 64 + 56))
    planes = Planes(stack)
    found = NetworkPredictor(planes, schema, "generalist-2d", call=lambda f, *a: f(*a)).predict((1,))
    bundle = load_bundle("generalist-2d", schema=schema)
    whole = list(segment(stack, bundle, normalisation=planes.normalisation))
    assert np.array_equal(found.labels, whole[1].labels)
    assert found.model.startswith("generalist-2d ")


def test_frame_unlike_the_labelled_one_is_suggested(schema):
    stack, truth = film(frames=6, growth=0)
    data = stack.data.copy()
    data[4] = 255 - data[4]  # as if the illumination had been reversed
    stack = Stack(data, stack.axes, stack.calibration, stack.name)
    predictor = ForestPredictor(Planes(stack), schema)
    predictor.update({(0,): strokes(truth[0])}, (0,))
    config = load_analysis("optical-plan")
    advice = advise(predictor, [(0,)], config, "covered_fraction")
    assert advice.candidates[0].plane == (4,)
    assert not advice.stop
    assert "frame 4" in advice.text
    assert len(advice.candidates) == 5


def test_suggestion_stops_when_doubt_is_small_beside_the_interval(schema):
    stack, truth = film(frames=3)
    predictor = ForestPredictor(Planes(stack), schema)
    predictor.update({(n,): truth[n] for n in (0, 2)}, (0,))
    advice = advise(predictor, [(0,), (2,)], load_analysis("optical-plan"), "areal_density")
    # One object: its Poisson interval is hundreds of per cent wide, and all parts of the forest see one object.
    assert advice.stop, advice
    assert "areal_density" in advice.text
    assert advise(predictor, [(0,), (1,), (2,)], load_analysis("optical-plan"), "areal_density").stop


def test_metric_that_single_frames_do_not_give_is_named(fitted):
    predictor, *_ = fitted
    config = load_analysis("optical-plan")
    assert "covered_fraction" in metrics_of_frames(config)
    with pytest.raises(UsageError, match="does not give 'nucleation_rate'"):
        advise(predictor, [(0,)], config, "nucleation_rate")


def test_what_is_not_defined_counts_as_nothing():
    assert _shares([3.0, 1.5, np.nan]).tolist() == [1.0, 0.5, 0.0]
    assert _shares([np.nan, np.nan]).tolist() == [0.0, 0.0]
