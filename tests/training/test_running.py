"""How a run goes on and ends: kill -9, parts of a batch, extension, early stopping, curves, pictures."""

import csv
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import training.loop
import training.records
from seg.errors import UsageError
from training.cli import main
from training.config import LossConfig
from training.label_codes import LabelCodes
from training.loop import CHECKPOINT, prepare, train
from training.losses import MaskedLoss
from training.optim import learning_rate


def rows(run_dir):
    with (run_dir / "steps.csv").open() as file:
        return list(csv.DictReader(file))


def state(run_dir):
    return torch.load(run_dir / CHECKPOINT, weights_only=True)


def _train_and_die(config, data, after):
    step, count = training.loop._step, 0

    def step_or_die(*args, **kwargs):
        nonlocal count
        count += 1
        if count > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)

    training.loop._step = step_or_die
    train(config, data, quiet=True)


def test_killed_runs_continue_bit_by_bit(film_config):
    """10 steps at once, and 10 steps killed (SIGKILL) in the seventh, with a checkpoint after every fifth."""
    settings = ["trainer.max_steps=10", "trainer.save_every=5", "model.dropout=0.3", "trainer.precision=fp32"]
    whole = film_config("name=whole", *settings)
    data = prepare(whole)
    train(whole, data, quiet=True)
    parts = film_config("name=parts", *settings)
    # Not forked: gradients computed in this process before could have left threads that the child would not have.
    child = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(parts, data, 6))
    child.start()
    child.join(100)
    assert child.exitcode == -signal.SIGKILL
    assert state(parts.run_dir)["step"] == 5
    assert len(rows(parts.run_dir)) == 6  # the sixth step was logged but is not in the checkpoint
    train(film_config("name=parts", *settings, "trainer.resume=must"), data, quiet=True)
    a, b = state(whole.run_dir), state(parts.run_dir)
    for part in ("network", "average"):
        assert all(torch.equal(a[part][key], b[part][key]) for key in a[part])
    assert [r["loss"] for r in rows(whole.run_dir)] == [r["loss"] for r in rows(parts.run_dir)]


def test_a_batch_in_parts_gives_the_same_losses(film_config):
    """Without batch statistics, and with equally many labelled pixels in each part, sums are all that differs."""
    settings = [
        "model.norm=group", "loss.dice=0", "data.sources.mine.classes={0:electrolyte,3:electrolyte,7:sei}",
        "trainer.precision=fp32",
    ]  # fmt: skip
    whole, parts = film_config("name=whole", *settings), film_config("name=parts", *settings, "trainer.accumulate=2")
    data = prepare(whole)
    for config in (whole, parts):
        train(config, data, quiet=True)
    a, b = ([float(r["loss"]) for r in rows(c.run_dir)] for c in (whole, parts))
    assert a == pytest.approx(b, rel=1e-3)  # three steps of float32; Adam divides small differences by small numbers
    assert a[0] == pytest.approx(b[0], rel=1e-5)


def _be_told_to_stop():
    from training.dataset import _quiet_worker

    _quiet_worker(0)
    os.kill(os.getpid(), signal.SIGTERM)
    left_s = signal.alarm(0)
    sys.exit(0 if 50 < left_s <= 60 else 1)


def test_a_worker_that_is_forgotten_ends_in_a_minute():
    """SIGTERM to the group is the business of the parent, but one that waits for its workers must not wait for ever."""
    child = multiprocessing.get_context("fork").Process(target=_be_told_to_stop)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.slow
def test_two_processes_train_as_one(film_words, tmp_path):
    """Without batch statistics, and with equal shares of labels, averaged gradients are those of the whole batch."""
    words = [
        *film_words, "model.norm=group", "loss.dice=0", "trainer.precision=fp32",
        "data.sources.mine.classes={0:electrolyte,3:electrolyte,7:sei}",
    ]  # fmt: skip
    assert main([*words, "name=one", "-q"]) == 0
    command = [sys.executable, "-m", "training", *words, "name=two", "trainer.devices=2", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.count("model: ") == 1
    one, two = (rows(tmp_path / "runs" / name) for name in ("one", "two"))
    assert [r["step"] for r in two] == ["1", "2", "3"]
    a, b = ([float(r["loss"]) for r in run] for run in (one, two))
    assert a == pytest.approx(b, rel=1e-3)  # float32 sums in another order, divided by small numbers in Adam
    assert a[0] == pytest.approx(b[0], rel=1e-5)


@pytest.mark.parametrize("extend", ["stretch", "floor"])
def test_an_extended_run_follows_the_schedule_it_declares(film_config, caplog, extend):
    caplog.set_level("INFO")
    first = film_config()
    data = prepare(first)
    train(first, data, quiet=True)
    longer = film_config("trainer.max_steps=6", f"trainer.extend={extend}")
    train(longer, data, quiet=True)
    rates = [float(r["lr"]) for r in rows(first.run_dir)][3:]
    config = first.optimizer
    expected = [learning_rate(n / 6, config) if extend == "stretch" else config.lr * 0.01 for n in (3, 4, 5)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert f"extended: the learning rate goes on from {expected[0]:.3g}" in caplog.text


def test_early_stopping_keeps_the_best_weights(film_config, monkeypatch):
    """Scores 0.2, 0.6, 0.5, 0.4: the fourth is the second in a row that is no better, so the run ends after step 4."""
    scores = iter([0.2, 0.6, 0.5, 0.4, 0.1])
    monkeypatch.setattr(training.loop, "quality", lambda table: next(scores))
    config = film_config("trainer.max_steps=20", "trainer.score_every=1", "trainer.patience=2", "trainer.save_every=2")
    result = train(config, prepare(config), quiet=True)
    assert result.steps == 4
    from seg.models.bundle import load_bundle

    saved = state(config.run_dir)
    assert saved["best"]["step"] == 2
    exported = load_bundle(result.model_dir)
    assert exported.spec.training["steps"] == 2
    assert all(torch.equal(saved["best"]["weights"][k], v) for k, v in exported.network.state_dict().items())
    assert not torch.equal(saved["average"]["head.weight"], exported.network.state_dict()["head.weight"])
    assert "held-out images chose" in (result.model_dir / "card.md").read_text()


def test_curves_go_to_every_tracker(film_config, monkeypatch):
    seen = []

    class Fake:
        def __init__(self, run_dir, config):
            pass

        def add(self, values, step):
            seen.append((step, values))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(training.records.TRACKERS, "tensorboard", Fake)
    config = film_config("trainer.loggers=[tensorboard]")
    train(config, prepare(config), quiet=True)
    assert seen[-1] == "closed"
    assert [step for step, _ in seen[:-1]] == [1, 2, 3, 3]
    assert seen[0][1]["train/loss"] == pytest.approx(float(rows(config.run_dir)[0]["loss"]), rel=1e-5)
    assert 0 <= seen[3][1]["mine/sei/network_iou"] <= 1


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_tracker_names_its_extra(film_config, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    config = film_config(f"trainer.loggers=[{name}]")
    with pytest.raises(UsageError, match=r"operandoseg\[tracking\]"):
        train(config, prepare(config), quiet=True)


def test_the_worst_tiles_are_drawn(film_config, monkeypatch, tmp_path):
    """The prediction is the truth but for a block of 20 x 30 px in one image: its share of what is labelled."""
    import training.pictures

    data = prepare(film_config())
    wrong, right = (i for i in data.images if i.held_out)

    def predict(network, image, *, device, precision):
        item = wrong if image is wrong.image else right
        output = np.maximum(item.codes.astype(int) - 1, 0)
        if item is wrong:
            output[30:50, 20:50] = 1 - output[30:50, 20:50]
        return output

    monkeypatch.setattr(training.pictures, "predict", predict)
    listed = training.pictures.draw_worst(
        tmp_path / "worst.png", None, data.images, data.codes, data.schema, device=None, precision="fp32"
    )
    labelled = 72 * 80 - 36
    assert listed == [(f"mine/{wrong.name}", pytest.approx(600 / labelled)), (f"mine/{right.name}", 0.0)]
    from PIL import Image

    picture = np.asarray(Image.open(tmp_path / "worst.png"))
    sei, electrolyte = data.schema.by_name("sei").rgb, data.schema.by_name("electrolyte").rgb
    assert picture.shape == (2 * (training.pictures.HEAD_PX + 2 * 72), 3 * 192 + 20, 3)  # 72 x 80 px, twice as large
    row = training.pictures.HEAD_PX - 4 + 2 * 40
    truth, output = picture[row, 202 + 2 * 35], picture[row, 404 + 2 * 35]
    assert {tuple(truth), tuple(output)} == {sei, electrolyte}


def test_class_weights_by_hand():
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]).T[None, :, None, :]  # (1, 3, 1, 2)
    codes = torch.tensor([[[1, 4]]])  # the first class, and one of the first two
    log_p = torch.log_softmax(logits, 1)[0, :, 0]
    losses = [-log_p[0, 0], -torch.logsumexp(log_p[:2, 1], 0)]
    weighted = MaskedLoss(LabelCodes((1, 2, 4), ((0, 1),)), LossConfig(dice=0.0), [3.0, 1.0, 1.0])
    expected = (3 * losses[0] + 2 * losses[1]) / 5  # a set weighs the mean of its members
    assert weighted(logits, codes).item() == pytest.approx(expected.item(), rel=1e-6)


def test_class_weights_name_trained_classes(film_config):
    config = film_config("loss.class_weights={sei: 2, void: 3}")
    with pytest.raises(UsageError, match="void is not trained here; there are electrolyte, sei"):
        train(config, prepare(config), quiet=True)
    config = film_config("loss.class_weights={sei: heavy}")
    with pytest.raises(UsageError, match="number above 0"):
        train(config, prepare(config), quiet=True)
    config = film_config("loss.class_weights={sei: 2}")
    assert training.loop.class_weights(config, prepare(config)) == [1.0, 2.0]


def test_a_run_does_not_go_on_with_other_classes(film_config, films):
    """Labels that have gained a class since: the outputs of the checkpoint mean something else."""
    from PIL import Image

    words = ["data.sources.mine.classes=null", "data.sources.mine.classes={0:null,3:electrolyte,7:sei,9:void}"]
    config = film_config(*words)
    train(config, prepare(config), quiet=True)
    labels = np.asarray(Image.open(films / "labels" / "cellA_0.png")).copy()
    labels[60:, :10] = 9
    Image.fromarray(labels).save(films / "labels" / "cellA_0.png")
    config = film_config(*words, "trainer.max_steps=5")
    with pytest.raises(UsageError, match=r"label values \[1, 8\], the labels now hold \[1, 7, 8\]"):
        train(config, prepare(config), quiet=True)
