"""The forest: trees that answer as scikit-learn's do, tiles that leave no seam."""

import numpy as np
import pytest
from scipy import ndimage

from seg import forest as module
from seg.errors import DataError, LabelError, ModelError
from seg.extra_tree import grow_tree
from seg.forest import (
    features,
    fit_forest,
    fit_pixels,
    load_forest,
    predict_forest,
    predict_image,
    save_forest,
)
from seg.labels import load_schema
from seg.pixel_features import reach_px

SCHEMA = load_schema()
SPACING = (0.75, 0.5)


def grain(shape, seed, spread):
    """Noise of mean 0.5 and the same variance at any `spread`: only its grain size differs."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), spread)
    return (0.5 + 0.15 * noise / noise.std()).astype(np.float32)


def two_grains(seed):
    """Coarse grain left, fine grain right, under one grey level; truth 1 and 3."""
    shape = (96, 160)
    truth = np.where(np.arange(160) < 80, 1, 3) * np.ones(shape, int)
    return np.where(truth == 1, grain(shape, seed, 3.0), grain(shape, seed + 1, 0.7)), truth


def strokes_on(truth):
    """Two lines, 0.6 % of the pixels."""
    drawn = np.zeros_like(truth)
    drawn[48, 20:65] = truth[48, 20:65]
    drawn[30, 95:140] = truth[30, 95:140]
    return drawn


def fitted(seed=0):
    image, truth = two_grains(seed)
    planes = features(image, spacing=SPACING)
    return fit_forest([planes], [strokes_on(truth)], SCHEMA), planes


def test_strokes_on_one_frame_tell_grains_apart_on_another():
    model, _ = fitted()
    image, truth = two_grains(50)
    labels = predict_image(model, image, spacing=SPACING).labels
    # both sides have the same histogram, so a threshold is right for half of the pixels
    assert (labels == truth).mean() > 0.93


def test_the_trees_answer_as_those_of_scikit_learn():
    from sklearn.ensemble import ExtraTreesClassifier

    image, truth = two_grains(4)
    planes = features(image, spacing=SPACING)
    drawn = strokes_on(truth)
    drawn[60, 30:34] = 4
    model = fit_forest([planes], [drawn], SCHEMA, n_trees=7, depth=5, seed=3)
    there = drawn > 0
    label = drawn[there]
    weight = len(label) / np.bincount(label)[label]
    rival = ExtraTreesClassifier(7, max_depth=5, random_state=3).fit(planes[:, there].T, label, sample_weight=weight)
    found = predict_forest(model, planes)
    expected = rival.predict_proba(planes.reshape(len(planes), -1).T).T.reshape(3, *image.shape)
    assert np.abs(found.probabilities - expected).max() < 1e-6
    assert (found.labels == np.array([1, 3, 4])[found.probabilities.argmax(0)]).all()


def test_the_same_strokes_give_the_same_answer_on_any_number_of_threads():
    model, planes = fitted()
    again, _ = fitted()
    one, three = predict_forest(model, planes, workers=1), predict_forest(again, planes, workers=3)
    assert (one.probabilities == three.probabilities).all()
    assert (one.labels == three.labels).all()
    assert one.probabilities.sum(0) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "spacing", "tile_px"), [((150, 190), SPACING, 18_000), ((24, 60, 75), (1.0, 0.4, 0.5), 50_000)]
)
def test_tiles_leave_no_seam(shape, spacing, tile_px):
    image = grain(shape, 7, 1.0)
    drawn = np.where(image > 0.6, 1, np.where(image < 0.45, 2, 0))
    sigmas = (1.0, 2.0)
    model = fit_forest([features(image, spacing=spacing, sigmas=sigmas)], [drawn], SCHEMA, sigmas=sigmas)
    tiles = list(module._tiles(shape, reach_px(sigmas, spacing, len(shape)), tile_px))
    assert len(tiles) >= 4
    assert all(np.prod([s.stop - s.start for s in outer]) <= tile_px for _, outer in tiles)
    whole = predict_image(model, image, spacing=spacing)
    cut = predict_image(model, image, spacing=spacing, tile_px=tile_px)
    assert (whole.probabilities == cut.probabilities).all()
    assert (whole.labels == cut.labels).all()


def test_more_pixels_than_the_limit_are_drawn_evenly():
    label = np.repeat([1, 2, 5], [10_000, 30, 10_000])
    kept = label[module._drawn_evenly(label, np.unique(label), 1000, np.random.default_rng(0))]
    assert np.bincount(kept)[[1, 2, 5]].tolist() == [485, 30, 485]


def test_a_saved_forest_answers_the_same(tmp_path):
    model, planes = fitted()
    back = load_forest(save_forest(model, tmp_path / "strokes.safetensors"))
    assert (back.schema, back.class_indices, back.sigmas, back.ndim) == (SCHEMA, (1, 3), (1.0, 2.0, 4.0, 8.0), 2)
    assert (predict_forest(back, planes).probabilities == predict_forest(model, planes).probabilities).all()


def test_a_file_that_would_send_the_traversal_astray_is_refused(tmp_path):
    model, _ = fitted()
    model.split[0, 0] = 999
    path = save_forest(model, tmp_path / "bad.safetensors")
    with pytest.raises(ModelError, match="do not fit together"):
        load_forest(path)
    path.write_bytes(b"no forest at all")
    with pytest.raises(ModelError, match="not a forest"):
        load_forest(path)
    with pytest.raises(ModelError, match="no forest at"):
        load_forest(tmp_path / "missing.safetensors")


def test_what_cannot_be_fitted_is_said():
    image, truth = two_grains(0)
    planes = features(image, spacing=SPACING)
    with pytest.raises(LabelError, match="at least two classes; these hold electrolyte"):
        fit_forest([planes], [np.where(truth == 1, 1, 0)], SCHEMA)
    with pytest.raises(LabelError, match="these hold none"):
        fit_forest([planes], [np.zeros_like(truth)], SCHEMA)
    with pytest.raises(LabelError, match="99"):
        fit_forest([planes], [np.where(truth == 1, 1, 99)], SCHEMA)
    with pytest.raises(DataError, match="on the grid of the strokes"):
        fit_forest([planes], [truth[:, :-1]], SCHEMA)
    model, _ = fitted()
    with pytest.raises(DataError, match="33 of 2 dimensions"):
        predict_forest(model, planes[:5])


def test_fitting_does_not_touch_the_filters_of_warnings(rng, monkeypatch):
    """They belong to the process: what one thread resets, another takes for what it has to restore."""
    import warnings

    table, label = rng.random((300, 33), np.float32), rng.integers(1, 3, 300)
    fit_pixels(table, label, SCHEMA)
    touched = []
    for name in ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"):
        monkeypatch.setattr(warnings, name, lambda *a, name=name, **k: touched.append(name))
    fit_pixels(table, label, SCHEMA, seed=1)
    assert touched == []


@pytest.mark.parametrize("scale", [1.0, 1e-6])  # differences below 1e-7 are none
def test_a_tree_is_that_of_scikit_learn_to_the_last_bit(rng, scale):
    from sklearn.tree import ExtraTreeClassifier

    table = rng.random((900, 20), np.float32)
    table[:, :8] = np.round(4 * table[:, :8])  # values that come again
    table[:, 8] = 0.5
    codes = rng.integers(0, 4, 900)
    table[:, 9] += 0.2 * codes
    table[:, 12:] *= np.float32(scale)
    weight = (1.0 / np.bincount(codes)[codes]) ** 0.5
    tree = grow_tree(table, codes, weight, n_classes=4, depth=3, seed=11)
    rival = ExtraTreeClassifier(max_depth=3, max_features="sqrt", random_state=11)
    rival.fit(table, codes, sample_weight=weight)
    inner = tree.left >= 0
    assert tree.depth == 3
    assert np.array_equal(tree.left, rival.tree_.children_left)
    assert np.array_equal(tree.right, rival.tree_.children_right)
    assert np.array_equal(tree.feature[inner], rival.tree_.feature[inner])
    assert np.array_equal(tree.threshold[inner], rival.tree_.threshold[inner])
    assert tree.value == pytest.approx(rival.tree_.value[:, 0], rel=1e-12)
