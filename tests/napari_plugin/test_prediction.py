"""Forest, network and the choice of the next frame, on a texture that brightness does not tell apart."""

from dataclasses import replace

import numpy as np
import pytest

from napari_plugin import forest_predictor
from napari_plugin.forest_predictor import ForestPredictor
from napari_plugin.prediction import NetworkPredictor, Planes, strokes_of
from napari_plugin.suggest import Candidate, ListedImage, _advice, _shares, advise, metrics_of_frames
from seg.analysis import load_analysis
from seg.errors import DataError, LabelError, UsageError
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
    assert len(predictor._bands) == 2


def in_bands(schema, monkeypatch, **more):
    """A predictor that takes a frame of 96 x 120 in bands of 40 rows, parts of 20 rows and a preview of 900 pixels."""
    monkeypatch.setattr(forest_predictor, "PART_PX", 20 * 120)
    monkeypatch.setattr(forest_predictor, "PREVIEW_PX", 900)
    monkeypatch.setattr(forest_predictor, "VIEW_PX", 900)
    stack, truth = film()
    return ForestPredictor(Planes(stack), schema, band_px=40 * 120, **more), truth


def test_bands_change_nothing(fitted, schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch)
    whole, *_ = fitted
    assert predictor.n_bands == 3
    # The margin of a band is all that its features see; float32 sums differ in their last digits.
    assert np.allclose(predictor.features((0,)), whole.features((0,)), rtol=1e-5, atol=1e-5)
    drawn = {(0,): strokes(truth[0])}
    assert (predictor.update(drawn, (0,)).labels == whole.update(drawn, (0,)).labels).mean() > 0.999


def test_what_is_on_show_is_predicted_first_and_then_everything(schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch)
    drawn = {(0,): strokes(truth[0])}
    whole = predictor.update(drawn, (0,))  # the features are at hand from here on
    view = np.s_[30:90, 0:120]
    parts = list(predictor.update_in_parts(drawn, (0,), view))
    first = parts[0]
    assert first.box == view
    assert first.step == 3  # sqrt(60 * 120 / 900), rounded up
    assert np.array_equal(first.labels[::3, ::3], whole.labels[view][::3, ::3])
    assert np.array_equal(first.labels[0:3, 0:3], np.full((3, 3), first.labels[0, 0]))
    assert abs(parts[1].box[0].start - 60) <= 20  # the middle of what is on show
    assert [p.complete for p in parts] == [False] * (len(parts) - 1) + [True]
    together = np.zeros_like(whole.labels)
    for part in parts[1:]:
        assert part.step == 1
        together[part.box] = part.labels
    assert np.array_equal(together, whole.labels)


def test_view_of_most_of_a_frame_is_not_predicted_twice(schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch)
    monkeypatch.setattr("napari_plugin.forest_predictor.VIEW_PX", truth[0].size)
    height, width = truth[0].shape
    parts = list(predictor.update_in_parts({(0,): strokes(truth[0])}, (0,), np.s_[1 : height - 1, 2:width]))
    assert sum(part.labels.size for part in parts) == truth[0].size
    assert parts[-1].complete


def test_small_view_is_exact_at_once(schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch)
    drawn = {(0,): strokes(truth[0])}
    view = np.s_[70:96, 5:35]
    parts = list(predictor.update_in_parts(drawn, (0,), view, whole=False))
    assert parts[0].box == view
    assert not parts[-1].complete
    assert np.array_equal(parts[0].labels, predictor.update(drawn, (0,)).labels[view])


def test_same_strokes_are_fitted_once_and_new_ones_again(schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch)
    drawn = strokes(truth[0])
    first = predictor.fit({(0,): drawn}, (0,))
    assert predictor.fit({(0,): drawn.copy()}, (0,)) is first
    drawn[80:83, 5:40] = truth[0][80:83, 5:40]
    assert predictor.fit({(0,): drawn}, (0,)) is not first


def test_frame_beyond_the_memory_is_predicted_where_it_is_looked_at(schema, monkeypatch):
    predictor, truth = in_bands(schema, monkeypatch, cache_bytes=1_000_000)
    assert not predictor.fits  # 33 features of 96 x 120 pixels of 4 bytes: 1.5 MB
    assert list(predictor.prepare((0,))) == []
    list(predictor.update_in_parts({(0,): strokes(truth[0])}, (0,), np.s_[0:30, 0:30], whole=False))
    assert not predictor.ready((0,))


def balls(axes):
    """Balls of 3.2 um in noise larger than their contrast: planes around show what one alone does not."""
    rng = np.random.default_rng(5)
    z, y, x = np.mgrid[:14, :48, :60]
    truth = np.full(z.shape, 2, np.uint8)
    for cz, cy, cx in ((3, 12, 14), (3, 34, 42), (9, 30, 14), (9, 12, 42), (6, 24, 28)):
        truth[((z - cz) * 0.9) ** 2 + ((y - cy) * 0.6) ** 2 + ((x - cx) * 0.4) ** 2 < 3.2**2] = 3
    data = (np.where(truth == 3, 140.0, 90.0) + rng.normal(0, 70, truth.shape)).clip(0, 255).astype(np.uint8)
    if axes == "tzyx":
        data, truth = np.stack([data] * 2), np.stack([truth] * 2)
    return Stack(data, axes, Calibration({"z": 0.9, "y": 0.6, "x": 0.4}, None, "file"), "cell"), truth


@pytest.mark.parametrize("axes", ["zyx", "tzyx"])
def test_volumes_that_fit_are_told_apart_in_three_dimensions(schema, axes):
    stack, truth = balls(axes)
    lead = (1,) if axes == "tzyx" else ()
    drawn = {}
    for z in (3, 9):
        drawn[(*lead, z)] = np.zeros((48, 60), np.uint8)
        for rows in (slice(11, 14), slice(32, 35)):
            drawn[(*lead, z)][rows] = truth[(*lead, z)][rows]
    deep, flat = (ForestPredictor(Planes(stack), schema, cache_bytes=n) for n in (1 << 30, 1 << 20))
    assert deep.deep
    assert not flat.deep
    right = [(p.update(drawn, (*lead, 6)).labels == truth[(*lead, 6)]).mean() for p in (deep, flat)]
    # 8 % of the pixels are of balls. Noise falls with the root of the pixels a filter sees, and planes around double
    # them: in four trials 0.7 to 3.3 % fewer pixels were wrong.
    assert right[0] > right[1] + 0.005
    assert right[0] > 0.95
    assert len(deep.members((*lead, 6))) == 4
    parts = list(deep.update_in_parts(drawn, (*lead, 7), np.s_[0:10, 0:10]))
    assert parts[-1].complete
    assert parts[0].labels.shape == (10, 10)


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


def test_images_of_the_list_are_suggested_once_this_one_is_labelled(schema):
    stack, truth = film("yx")
    predictor = ForestPredictor(Planes(stack), schema)
    predictor.update({(): strokes(truth)}, ())
    opened = []

    def listed(number, name, *, labelled=False, data=stack.data):
        def planes():
            opened.append(name)
            if data is None:
                raise DataError("no image")
            return Planes(Stack(data, "yx", stack.calibration, name))

        return ListedImage(number, name, labelled, planes)

    unlike = np.ascontiguousarray(255 - stack.data.T)
    images = [listed(1, "alike"), listed(2, "unlike", data=unlike), listed(3, "broken", data=None)]
    images.append(listed(4, "labelled", labelled=True))
    config = load_analysis("optical-plan")
    advice = advise(predictor, [()], config, "covered_fraction", listed=images)
    assert sorted(c.image.name for c in advice.candidates) == ["alike", "unlike"]
    assert advice.candidates[0].image.number == 2
    assert advice.text.startswith("Label unlike next: ")
    assert set(opened) == {"alike", "unlike", "broken", "labelled"}
    # An image that is there already, labelled, is nothing new when it comes again.
    again = advise(
        predictor, [()], config, "covered_fraction", listed=[*images, listed(5, "seen", labelled=True, data=unlike)]
    )
    novelty = {c.image.name: c.novelty for c in again.candidates}
    assert novelty == {"alike": 1.0, "unlike": 1.0}
    done = advise(predictor, [()], config, "covered_fraction", listed=images[3:])
    assert (done.stop, done.text) == (True, "Every frame is labelled.")


def test_metric_that_single_frames_do_not_give_is_named(fitted):
    predictor, *_ = fitted
    config = load_analysis("optical-plan")
    assert "covered_fraction" in metrics_of_frames(config)
    with pytest.raises(UsageError, match="does not give 'nucleation_rate'"):
        advise(predictor, [(0,)], config, "nucleation_rate")


def test_empty_frame_without_doubt_is_no_reason_to_go_on(schema):
    sure = Candidate((1,), disagreement=0.0, novelty=0.0, value=0.4, interval=0.1, doubt=0.01)
    empty = Candidate((0,), disagreement=0.0, novelty=0.0, value=0.0, interval=0.0, doubt=0.0)
    assert empty.effect == 0
    assert _advice((sure, empty), "covered_fraction").stop
    # with a doubt of 0.1 the interval of 0.1 becomes sqrt(2) times as wide
    unsure = replace(sure, doubt=0.1)
    advice = _advice((unsure, empty), "covered_fraction")
    assert not advice.stop
    assert advice.text == "Label frame 1 next: doubt of the model widens the interval of covered_fraction by 41%."
    undefined = replace(sure, value=np.nan, interval=np.nan, doubt=np.nan)
    assert "nothing tells" in _advice((undefined,), "covered_fraction").text


def test_what_is_not_defined_counts_as_nothing():
    assert _shares([3.0, 1.5, np.nan]).tolist() == [1.0, 0.5, 0.0]
    assert _shares([np.nan, np.nan]).tolist() == [0.0, 0.0]
