"""From top to bottom in strips: the same labels as the whole image at once, nothing computed in vain."""

from pathlib import Path

import numpy as np
import pytest
import torch

from seg import strips, tiling
from seg.labels import load_schema
from seg.models.bundle import Bundle, ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.runner import InferenceSettings, Runner
from seg.strips import label_planes

AS_IT_IS = SeriesNormalisation(0, 1)


def runner_of(precision="fp32", depth=2, blocks=1, stem_px=1, **settings) -> Runner:
    """One that takes even small images in strips."""
    torch.manual_seed(0)
    network = UNet(n_classes=3, width=6, depth=depth, blocks=blocks, stem_px=stem_px)
    torch.nn.init.kaiming_normal_(network.head.weight)  # as trained: the pixels of a point do not stay alike
    for _ in range(10):
        network(torch.rand(2, 1, 32, 32))
    described = ModelSpec("random", "unet", {"n_classes": 3}, load_schema().to_dict(), (1, 3, 4))
    bundle = Bundle(described, network.eval(), Path("nowhere"), "0" * 64, "")
    runner = Runner(bundle, InferenceSettings(device="cpu", precision=precision, **settings))
    runner.batch_px = 100
    return runner


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Strips of 16 rows (of a network of depth 2) and columns of at most 96 px."""
    monkeypatch.setattr(tiling, "STRIP_PX", 1)
    monkeypatch.setattr(tiling, "STRIP_COLUMNS", 96)
    tiling.choose_strips.cache_clear()
    yield
    tiling.choose_strips.cache_clear()


def whole(runner: Runner, image: np.ndarray) -> torch.Tensor:
    """Class probabilities of the image mirrored up to the tile multiple, in one piece."""
    multiple = runner.network.tile_multiple
    padded = np.pad(image, [(0, -n % multiple) for n in image.shape], mode="reflect")
    with torch.inference_mode():
        logits = runner.ready.compute(torch.from_numpy(padded)[None, None].to(runner.ready.dtype))[0]
    return logits.float().softmax(0)[:, : image.shape[0], : image.shape[1]]


@pytest.mark.parametrize(
    ("shape", "depth", "blocks", "stem_px", "precision"),
    [
        ((61, 90), 2, 1, 1, "fp32"), ((203, 70), 2, 1, 1, "fp32"), ((90, 260), 2, 1, 1, "fp32"),
        ((130, 75), 3, 2, 1, "fp32"), ((50, 40), 0, 1, 1, "fp32"), ((203, 170), 2, 1, 1, "bf16"),
        ((90, 190), 1, 1, 2, "fp32"),
    ],
)  # fmt: skip
def test_strips_give_what_the_whole_gives(shape, depth, blocks, stem_px, precision):
    """Three columns in the third and the last: they overlap by their halos and join without a seam."""
    runner = runner_of(precision, depth, blocks, stem_px)
    assert runner.strips(shape) is not None
    planes = np.random.default_rng(1).random((2, *shape), dtype=np.float32)
    labels, confidence = label_planes(planes, runner, AS_IT_IS)
    for n, image in enumerate(planes):
        sure, channel = whole(runner, image).max(0)
        # One network, one order of sums; columns of another width may be summed by another kernel.
        assert (labels[n] == np.array([1, 3, 4])[channel.numpy()]).mean() > 0.9995
        np.testing.assert_allclose(confidence[n], sure.numpy(), atol=2e-3 if precision == "fp32" else 0.03)


def test_what_is_said_of_tiles_is_obeyed():
    for settings in ({"tile_px": 64}, {"overlap": 0.25}, {"batch": 2}, {"halo_px": 8}, {"mirror": True}):
        assert runner_of(**settings).strips((203, 70)) is None
    assert runner_of().strips((9, 11)) is None  # many such make a batch


def test_stretches_of_one_value_are_computed_once_and_stay_exact(monkeypatch):
    runner = runner_of()
    monkeypatch.setattr(strips, "EMPTY_ROWS", 64)
    image = np.full((900, 70), 0.25, np.float32)
    image[400:420, 20:50] = np.random.default_rng(2).random((20, 30))
    pushed, push = [], runner.push
    monkeypatch.setattr(
        runner, "push", lambda stream, rows, last: pushed.append(len(rows)) or push(stream, rows, last=last)
    )
    labels, _ = label_planes(image[np.newaxis], runner, AS_IT_IS)
    expected = np.array([1, 3, 4])[whole(runner, image).argmax(0).numpy()]
    np.testing.assert_array_equal(labels[0], expected)
    # The upper border, what is between, what is busy with its halos, the lower border; the rest is known by then.
    assert sum(pushed) < 600


def test_want_of_memory_takes_fewer_rows_and_says_so(monkeypatch, caplog):
    runner, image = runner_of(), np.random.default_rng(3).random((1, 203, 70), dtype=np.float32)
    expected, _ = label_planes(image, runner, AS_IT_IS)
    push, most = runner.push, [8]

    def short(stream, rows, last):
        if len(rows) > most[0]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return push(stream, rows, last=last)

    monkeypatch.setattr(runner, "push", short)
    found, _ = label_planes(image, runner, AS_IT_IS)
    np.testing.assert_array_equal(found, expected)
    assert runner.backed_off == ["Out of memory on device cpu; going on with half of 16 rows of 72 px at once."]
    assert runner.backed_off[0] in caplog.text
    most[0] = 0
    with pytest.raises(MemoryError):
        label_planes(image, runner, AS_IT_IS)
    monkeypatch.setattr(runner, "push", lambda *a, **k: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        label_planes(image, runner, AS_IT_IS)
