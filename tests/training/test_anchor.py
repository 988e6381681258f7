"""Fine-tuning keeps what the start knows: how far it is trusted, the anchor, guesses, frozen statistics, step 0."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from seg.errors import UsageError
from seg.models.bundle import load_bundle
from training.anchor import Anchor, between, judge, make_anchor, strokes_per_class, without_guesses
from training.guesses import GUESSED, guess
from training.initial import load_initial_weights
from training.label_codes import LabelCodes
from training.learning_curve import with_labels
from training.loop import build_network, prepare, train

CPU = {"device": torch.device("cpu"), "precision": "fp32"}


@pytest.fixture
def started(film_config, start):
    """A network that starts from the film model, its data with strokes only, and its configuration."""
    config = film_config(f"model.init={start}")
    data = prepare(config)
    data = replace(data, images=with_labels(data.images, 2, seed=0))
    network = build_network(config, data.codes)
    load_initial_weights(network, config, data.codes, data.schema)
    return network.eval(), data


def exchange_outputs(network):
    for values in (network.head.weight, network.head.bias):  # the rows of a class stay together
        values.data = values.data.unflatten(0, (2, -1)).flip(0).flatten(0, 1)


def test_trust_is_the_share_of_strokes_named_rightly(started):
    network, data = started
    trust = judge(network, data.images, data.codes, **CPU)
    assert trust.overall > 0.9  # trained on these films
    assert (trust.per_output > 0.9).all()
    exchange_outputs(network)  # every answer is wrong, which counts as no better than chance, not as less
    trust = judge(network, data.images, data.codes, **CPU)
    assert trust.overall == 0
    assert (trust.per_output == 0).all()


def test_trust_counts_labels_alike_and_sets_by_their_members(started):
    """A network that says class 0 everywhere: right on one of two labels, which is chance; on a set of both, right."""
    network, data = started
    network.head.weight.data.zero_()
    network.head.bias.data.copy_(torch.tensor([1.0, 0.0]).repeat_interleave(network.stem_px**2))
    trust = judge(network, data.images, data.codes, **CPU)
    assert trust.overall == 0
    assert trust.per_output.tolist() == [0, 0]  # one stroke of two bears it, however long they are; the other is unsaid
    codes = LabelCodes(data.codes.class_indices, ((0, 1),))
    item = next(i for i in data.images if not i.held_out)
    either = replace(item, codes=np.where(item.codes == 2, 3, item.codes).astype(np.uint8))
    trust = judge(network, [either], codes, **CPU)
    assert trust.overall == 1
    assert trust.per_output.tolist() == [1, 0]


def test_anchor_is_zero_at_the_start_and_leaves_labelled_pixels_and_new_classes_alone():
    start = torch.nn.Conv2d(1, 3, 1)
    three = LabelCodes((1, 2, 3), ())
    anchor = Anchor(start, [0, 1], [1, 1, 1], 0.5, three)
    images, codes = torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.uint8)
    codes[:, :4] = 1
    logits = start(images).detach()
    assert anchor(images, logits, codes).item() == pytest.approx(0, abs=1e-6)
    new = logits.clone()
    new[:, 2] += 3.0  # a class the start does not know
    assert anchor(images, new, codes).item() == pytest.approx(0, abs=1e-6)
    labelled = logits.clone()
    labelled[:, 0, :4] += 3.0
    assert anchor(images, labelled, codes).item() == pytest.approx(0, abs=1e-6)
    elsewhere = logits.clone()
    elsewhere[:, 0, 4:] += 3.0
    p, q = (x[:, :2, 4:].softmax(1).double() for x in (logits, elsewhere))
    divergence = (p * (p / q).log()).sum(1)  # (2, 4, 8)
    assert anchor(images, elsewhere, codes).item() == pytest.approx(0.5 * divergence.mean().item(), rel=1e-4)
    assert anchor(images, [elsewhere, elsewhere[..., ::2, ::2]], codes) == anchor(images, elsewhere, codes)
    # Trusted in what it calls class 0 only: a pixel counts by the share of that class.
    half = Anchor(start, [0, 1], [1, 0, 0], 0.5, three)
    wanted = 0.5 * (divergence * p[:, 0]).mean().item()
    assert half(images, elsewhere, codes).item() == pytest.approx(wanted, rel=1e-4)


def test_guesses_count_where_the_start_is_not_trusted():
    start, codes = torch.nn.Conv2d(1, 2, 1), torch.full((1, 4, 4), GUESSED + 2, dtype=torch.uint8)
    images, logits = torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    two = LabelCodes((1, 2), ())
    loss = Anchor(start, [0, 1], [0, 0], 1.0, two)(images, logits, codes)
    assert loss.item() == pytest.approx(np.log(2), rel=1e-5)  # cross-entropy of even shares
    codes[:, :2] = 0  # where there is no guess, nothing pulls; the mean is over all unlabelled pixels
    loss = Anchor(start, [0, 1], [0, 0], 1.0, two)(images, logits, codes)
    assert loss.item() == pytest.approx(np.log(2) / 2, rel=1e-5)
    assert without_guesses(torch.tensor([0, 2, GUESSED + 1])).tolist() == [0, 2, 0]


def test_guesses_fill_images_from_strokes_and_follow_a_trusted_start(started, film_config):
    network, data = started
    exchange_outputs(network)  # what it says is all wrong, and it is not believed
    guessed = guess(network, [0, 1], [0.0, 0.0], data.images, data.codes, **CPU)
    dense = {i.name: i.codes for i in prepare(film_config()).images}
    for before, after in zip(data.images, guessed, strict=True):
        assert (after.codes[before.codes > 0] == before.codes[before.codes > 0]).all()
        if before.held_out:
            assert after is before
            continue
        assert (before.codes > 0).mean() < 0.1
        assert (after.codes > 0).mean() > 0.9
        named = np.where(after.codes >= GUESSED, after.codes - GUESSED, after.codes)
        known = (dense[after.name] > 0) & (named > 0)
        assert (named == dense[after.name])[known].mean() > 0.9  # a bright film on a dark ground
    believed = guess(network, [0, 1], [1.0, 1.0], data.images, data.codes, **CPU)
    first = next(i for i in believed if not i.held_out)
    free = first.codes >= GUESSED
    assert (first.codes[free] - GUESSED == dense[first.name][free]).mean() < 0.1


def test_a_new_class_is_guessed_by_the_forest_alone(started):
    """The start knows one of two classes and is fully trusted in it: the other is found all the same."""
    network, data = started
    guessed = guess(network, [0], [1.0, 0.0], data.images, data.codes, **CPU)
    first = next(i for i in guessed if not i.held_out)
    assert 0.2 < (first.codes == GUESSED + 2).mean() < 0.8


def test_weights_between_the_end_and_the_start():
    end, start = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    end.weight.data.fill_(2.0)
    start.weight.data.fill_(4.0)
    assert between(end, start, 0.25).weight.item() == 2.5
    assert between(end, start, 0.0) is end
    assert end.weight.item() == 2.0


def test_a_specialist_is_not_given_up_for_one_stroke(started):
    """All is wrong by a stroke per class on each of two images: 2 / (2 + 2) of it stays, of another model nothing."""
    network, data = started
    exchange_outputs(network)
    trained = [item for item in data.images if not item.held_out]
    assert strokes_per_class(trained) == 2
    free = np.mean([(item.codes == 0).mean() for item in trained])
    anchors = {}
    for made in (True, False):
        anchors[made], _, keep = make_anchor(network, [0, 1], 1.0, data.images, data.codes, made_for_these=made, **CPU)
        assert keep == pytest.approx(made * 0.5 * free, rel=1e-6)
        assert anchors[made].trusted.tolist() == [made * 0.5] * 2


def test_little_is_kept_of_a_start_where_much_is_labelled(started, film_config):
    network, data = started
    *_, few = make_anchor(network, [0, 1], 1.0, data.images, data.codes, **CPU)
    dense = prepare(film_config())
    _, images, much = make_anchor(network, [0, 1], 1.0, dense.images, dense.codes, **CPU)
    assert few > 0.5  # trust ** 4 times the unlabelled share
    assert much < 0.02  # a corner of 6 x 6 px of 72 x 80 px is unlabelled
    assert [i.name for i in images] == [i.name for i in dense.images]


RECIPE = [
    "loss=ce",
    "loss.anchor=1",
    "optimizer.freeze_statistics=true",
    "trainer.precision=fp32",
]


def test_frozen_statistics_are_those_of_the_start_and_resume_is_exact(film_config, start, monkeypatch):
    """4 steps at once, and 4 stopped after the second: equal to the bit; the anchor is made again from the start."""
    from training import loop
    from training.resume import CHECKPOINT

    whole = film_config("name=whole", f"model.init={start}", "trainer.max_steps=4", "trainer.save_every=2", *RECIPE)
    data = prepare(whole)
    result = train(whole, data, quiet=True)
    before, after = (load_bundle(m).network.state_dict() for m in (start, result.model_dir))
    statistics = [key for key in before if key.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(before[key], after[key]) for key in statistics)
    assert not torch.equal(before["head.weight"], after["head.weight"])

    parts = replace(whole, name="parts")
    step, count = loop._step, 0

    def step_or_fail(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("the lights went out")
        return step(*args, **kwargs)

    monkeypatch.setattr(loop, "_step", step_or_fail)
    with pytest.raises(RuntimeError, match="lights"):
        train(parts, data, quiet=True)
    monkeypatch.setattr(loop, "_step", step)
    train(parts, data, quiet=True)
    a, b = (torch.load(c.run_dir / CHECKPOINT, weights_only=True)["network"] for c in (whole, parts))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_start_is_kept_where_training_only_spoils_it(film_config, start, caplog):
    """A learning rate of 3 ruins the network; the start scored best and is shipped. Without patience: a warning."""
    settings = [
        f"model.init={start}",
        "trainer.max_steps=4",
        "optimizer.lr=3",
        "optimizer.ema_decay=0.1",
    ]
    config = film_config("name=kept", *settings, "trainer.score_every=1", "trainer.patience=2")
    result = train(config, prepare(config), quiet=True)
    before, after = (load_bundle(m).network.state_dict() for m in (start, result.model_dir))
    assert all(torch.equal(before[key], after[key]) for key in before)
    config = film_config("name=spoilt", *settings)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(config, prepare(config), quiet=True)
    assert "scores worse on the held-out images than the one it started from" in caplog.text


def test_patience_without_held_out_images_runs_to_the_end(film_config, start):
    config = film_config(
        f"model.init={start}",
        "trainer.score_every=1",
        "trainer.patience=1",
        "data.sources.mine.held_out=[]",
    )
    assert train(config, prepare(config), quiet=True).steps == 3


def test_keeping_to_a_start_needs_one(film_config):
    with pytest.raises(UsageError, match=r"loss.anchor=1.*set model.init"):
        film_config("loss.anchor=1")
    with pytest.raises(UsageError, match=r"freeze_statistics=True.*set model.init"):
        film_config("optimizer.freeze_statistics=true")
