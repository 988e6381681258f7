"""Strokes of other images decide whether training from a model helped."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from seg.models.bundle import load_bundle
from training.learning_curve import with_labels
from training.loop import build_network, prepare, train
from training.second_image import hardly_labelled, keep_some_back, named_rightly

CPU = {"device": torch.device("cpu"), "precision": "fp32"}


@pytest.fixture
def strokes(film_config):
    """Films of which none is held out, with one stroke per class on each."""
    data = prepare(film_config("data.sources.mine.held_out=[]"))
    return replace(data, images=with_labels(data.images, len(data.images), seed=0))


def test_a_third_of_the_images_is_kept_and_every_class_stays(strokes):
    images, kept = keep_some_back(strokes.images, seed=0)
    assert len(kept) == round(len(strokes.images) / 3)
    assert {i.name for i in images} | {i.name for i in kept} == {i.name for i in strokes.images}
    assert len(images) + len(kept) == len(strokes.images)
    two = strokes.images[:2]
    images, kept = keep_some_back(two, seed=0)
    assert (len(images), len(kept)) == (1, 1)
    # what only one image shows is not kept from training
    alone = [replace(two[0], codes=np.where(two[0].codes == 2, 0, two[0].codes)), two[1]]
    images, kept = keep_some_back(alone, seed=0)
    assert [i.name for i in kept] == [two[0].name]


def test_below_a_hundredth_hardly_anything_is_labelled(strokes):
    """What is held out does not count, nor do images without labels; nothing labelled is not little labelled."""
    codes = np.zeros((50, 40), np.uint8)
    images = [replace(strokes.images[0], codes=codes.copy(), held_out=False) for _ in range(2)]
    images.append(replace(images[0], codes=np.ones_like(codes), held_out=True))
    assert not hardly_labelled(images)
    assert not hardly_labelled(images[2:])
    images[0].codes.ravel()[:19] = 1
    assert hardly_labelled(images)
    images[0].codes.ravel()[:20] = 1  # 1 % of the one image that holds labels
    assert not hardly_labelled(images)


def test_nothing_is_kept_where_it_is_not_needed_or_cannot_be(strokes, film_config, caplog):
    held_out = [replace(strokes.images[0], held_out=True), *strokes.images[1:]]
    assert keep_some_back(held_out, seed=0) == (held_out, [])
    dense = prepare(film_config("data.sources.mine.held_out=[]")).images
    assert keep_some_back(dense, seed=0) == (dense, [])
    assert not caplog.text
    assert keep_some_back(strokes.images[:1], seed=0) == (strokes.images[:1], [])
    assert "Draw on a second image" in caplog.text


def test_every_label_counts_the_same(film_config, strokes):
    """Class 0 everywhere: all of one label of two, however many pixels each has."""
    network = build_network(film_config(), strokes.codes).eval()
    network.head.weight.data.zero_()
    network.head.bias.data.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(network.stem_px**2))
    images = [replace(i, codes=np.where(np.arange(i.codes.shape[1]) < 9, i.codes, 0)) for i in strokes.images]
    assert len(set(np.bincount(np.concatenate([i.codes.ravel() for i in images]))[1:])) == 2  # not as many of each
    assert named_rightly(network, images, strokes.codes, **CPU) == 0.5
    assert np.isnan(named_rightly(network, [], strokes.codes, **CPU))


@pytest.mark.parametrize(("rate", "is_start"), [(3.0, True), (0.01, False)])
def test_the_start_is_shipped_where_strokes_elsewhere_say_so(film_config, strokes, start, caplog, rate, is_start):
    """A learning rate of 3 ruins a network that knows the classes. Outputs exchanged, there is much to gain."""
    if not is_start:
        codes = [replace(i, codes=np.array([0, 2, 1], np.uint8)[i.codes]) for i in strokes.images]
        strokes = replace(strokes, images=codes)
    caplog.set_level(logging.INFO)
    config = film_config(
        f"model.init={start}", "data.sources.mine.held_out=[]", "loss.anchor=1", "trainer.max_steps=24",
        "trainer.score_every=8", "trainer.patience=4", f"optimizer.lr={rate}", "optimizer.ema_decay=0.1",
    )  # fmt: skip
    result = train(config, strokes, quiet=True)
    before, after = (load_bundle(m).network.state_dict() for m in (start, result.model_dir))
    assert all(torch.equal(before[key], after[key]) for key in before) == is_start
    assert ("it is shipped as it was" in caplog.text) == is_start
    assert "are kept from training, to tell whether it helps" in caplog.text
