"""Training itself: it learns, it resumes to the same weights, it exports what it trained."""

import csv
import itertools
import os
import signal
import threading

import numpy as np
import pytest
import torch

from seg.errors import InterruptedRunError, UsageError
from seg.models.bundle import load_bundle
from training.checkpoint import changed_keys, load_checkpoint
from training.config import OptimizerConfig
from training.loop import CHECKPOINT, prepare, train
from training.optim import learning_rate


def losses(run_dir) -> list[float]:
    with (run_dir / "steps.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(run_dir) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / CHECKPOINT, weights_only=True)


def test_it_learns_a_film(film_config):
    """A film twice as bright as its ground, noise a sixth of the step: IoU near 1 on the specimen held out."""
    config = film_config("trainer.max_steps=40", "augment=light", "optimizer.lr=5e-3", "optimizer.ema_decay=0.9")
    result = train(config, prepare(config), quiet=True)
    seen = losses(result.run_dir)
    assert np.mean(seen[-5:]) < 0.5 * np.mean(seen[:5])
    scores = result.scores.set_index(["class", "method"])["iou"]
    assert scores["sei", "network"] > 0.9
    assert scores["foreground", "network"] == pytest.approx(scores["sei", "network"])
    assert scores["foreground", "otsu"] > 0.9
    card = (result.model_dir / "card.md").read_text()
    assert "held out: cellC" in card
    assert "licence and origin: not stated" in card


def test_one_step_lowers_the_loss_of_its_own_batch(film_config):
    config = film_config("augment=none", "data.sources.mine.zoom=[1,1]")
    data = prepare(config)
    from training.dataset import PatchDataset, make_loader
    from training.loop import build_network
    from training.losses import MaskedLoss
    from training.optim import make_optimizer

    torch.manual_seed(0)
    dataset = PatchDataset(data.images, None, config.data, config.augment)
    images, codes = next(iter(make_loader(dataset, batch=4, workers=0, start_step=0)))
    network, loss_of = build_network(config, data.codes), MaskedLoss(data.codes, config.loss)
    optimizer = make_optimizer(network, config.optimizer)
    before = loss_of(network(images), codes)
    before.backward()
    optimizer.step()
    assert loss_of(network(images), codes).item() < before.item()


def test_it_learns_four_tiles_by_heart(film_config, films, rng):
    """Labels of random blocks that follow from nothing in the image: only memory can get them right."""
    from PIL import Image

    for file in sorted((films / "labels").iterdir()):
        blocks = np.kron(rng.integers(0, 2, (9, 10)), np.ones((8, 8)))
        Image.fromarray(np.where(blocks > 0, 7, 3).astype(np.uint8)).save(file)
    config = film_config(
        "augment=none", "data.sources.mine.zoom=[1,1]", "data.sources.mine.held_out=[cellC,cellB]", "data.patch_px=64",
        "trainer.max_steps=150", "model.width=16", "optimizer.lr=5e-3",
    )  # fmt: skip
    result = train(config, prepare(config), quiet=True)
    assert np.mean(losses(result.run_dir)[-5:]) < 0.15


def test_resume_gives_the_same_weights(film_config, monkeypatch):
    """6 steps at once, and 6 steps interrupted by SIGTERM after the third: equal bit by bit."""
    whole = film_config("name=whole", "trainer.max_steps=6", "model.dropout=0.3", "trainer.precision=fp32")
    data = prepare(whole)
    train(whole, data, quiet=True)

    parts = film_config("name=parts", "trainer.max_steps=6", "model.dropout=0.3", "trainer.precision=fp32")
    import training.loop

    step, count = training.loop._step, 0

    def step_and_stop(*args, **kwargs):
        nonlocal count
        count += 1
        if count == 3:
            assert threading.current_thread() is threading.main_thread()
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args, **kwargs)

    monkeypatch.setattr(training.loop, "_step", step_and_stop)
    with pytest.raises(InterruptedRunError):
        train(parts, data, quiet=True)
    assert weights(parts.run_dir)["step"] == 3
    monkeypatch.setattr(training.loop, "_step", step)
    result = train(parts, data, quiet=True)
    assert result.steps == 6
    a, b = weights(whole.run_dir), weights(parts.run_dir)
    for part in ("network", "average"):
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    assert losses(whole.run_dir) == losses(parts.run_dir)


def test_resume_says_what_is_wrong(film_config):
    config = film_config("trainer.resume=must")
    data = prepare(config)
    with pytest.raises(UsageError, match="no checkpoint"):
        train(config, data, quiet=True)
    train(film_config(), data, quiet=True)
    with pytest.raises(UsageError, match=r"other values of optimizer\.lr"):
        train(film_config("optimizer.lr=0.5"), data, quiet=True)
    longer = train(film_config("trainer.max_steps=5"), data, quiet=True)
    assert longer.steps == 5
    path = config.run_dir / CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"trainer\.resume=none"):
        load_checkpoint(path, config)
    assert train(film_config("trainer.resume=none"), data, quiet=True).steps == 3


def test_the_bundle_gives_the_logits_of_the_run(film_config):
    config = film_config()
    data = prepare(config)
    result = train(config, data, quiet=True)
    bundle = load_bundle(result.model_dir, schema=data.schema)
    assert bundle.spec.class_indices == (1, 8)
    assert bundle.spec.modalities == ("optical",)
    assert bundle.spec.training["split"]["mine"] == {"train": ["cellA", "cellB"], "held_out": ["cellC"]}
    from training.loop import build_network

    network = build_network(config, data.codes).eval()
    network.load_state_dict(weights(config.run_dir)["average"])
    image = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        # the same arithmetic on the same weights; memory format may change the order of sums
        assert torch.allclose(bundle.network(image), network(image), atol=1e-5)


def test_a_budget_in_minutes_ends_the_schedule_with_the_time(film_config):
    config = film_config("trainer.max_steps=null", "trainer.max_minutes=0.02")
    result = train(config, prepare(config), quiet=True)
    assert 1.2 <= result.elapsed_s < 6  # 1.2 s and the step it ended in
    with (result.run_dir / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["progress"]) == 1.0
    for before, row in itertools.pairwise(rows):  # the rate of a step follows from the time gone before it
        expected = learning_rate(float(before["progress"]), config.optimizer)
        assert float(row["lr"]) == pytest.approx(expected, rel=1e-3)  # six figures in the file


def test_learning_rate_rises_then_falls_to_its_floor():
    config = OptimizerConfig(lr=1.0, warmup_share=0.1, final_lr_share=0.01)
    assert learning_rate(0.0, config) == pytest.approx(0.02)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(0.55, config) == pytest.approx(0.01 + 0.99 * 0.5)  # half way down the cosine
    assert learning_rate(1.0, config) == pytest.approx(0.01)


def test_changed_keys_are_dotted():
    assert changed_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c", "d"]


def test_keys_that_later_versions_added_do_not_count_as_changed(film_config):
    from dataclasses import asdict

    from training.checkpoint import with_defaults

    now = asdict(film_config())
    before = asdict(film_config())
    del before["optimizer"]["ema_decay"], before["data"]["sources"]["mine"]["zoom"], before["title"]
    assert sorted(changed_keys(before, now)) == ["data.sources.mine.zoom", "optimizer.ema_decay", "title"]
    assert changed_keys(with_defaults(before), now) == []
    del before["model"]["stem_px"]  # older runs are on the pixels' own grid, which is no longer the default
    assert changed_keys(with_defaults(before), now) == ["model.stem_px"]
    del before["loss"]["guesses"]  # which was not there, either
    assert changed_keys(with_defaults(before), now) == ["model.stem_px", "loss.guesses"]
