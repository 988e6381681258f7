"""Inference on one frame: our engine, a hand-written loop in float32, and MONAI's sliding window, in one run.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_PX=2048 pytest tests/benchmarks/test_inference_benchmark.py --benchmark-enable
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from seg.inference import InferenceSettings, segment
from seg.labels import load_schema
from seg.models.bundle import Bundle
from seg.models.spec import ModelSpec
from seg.models.unet import UNet
from seg.preprocess import SeriesNormalisation
from seg.stack import Stack

SIZE_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_PX", "256"))
FULL = SIZE_PX >= 1024
TILE_PX, OVERLAP_PX = (512, 64) if FULL else (128, 16)
ARGUMENTS = {"n_classes": 5, "width": 24, "depth": 4} if FULL else {"n_classes": 5, "width": 8, "depth": 2}
VALUES = (1, 2, 3, 4, 10)
SCALE = SeriesNormalisation(0, 60000)

# The rivals come first: our engine changes how glibc keeps memory, for the whole process and to everybody's profit.
pytestmark = [
    pytest.mark.benchmark(group=f"segment one frame of {SIZE_PX} x {SIZE_PX} px on the CPU"),
    pytest.mark.timeout(3600 if FULL else 120),
]


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    network = UNet(**ARGUMENTS)
    for _ in range(5):
        network(torch.rand(2, 1, 64, 64))
    spec = ModelSpec("random", "unet", ARGUMENTS, load_schema().to_dict(), VALUES)
    return Bundle(spec, network.eval(), Path("nowhere"), "0" * 64, "")


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(0).integers(0, 60000, (SIZE_PX, SIZE_PX), np.uint16)


def run(benchmark, function):
    labels = benchmark.pedantic(function, rounds=3 if FULL else 1, warmup_rounds=1 if FULL else 0)
    benchmark.extra_info["megapixels"] = SIZE_PX**2 / 1e6
    assert labels.shape == (SIZE_PX, SIZE_PX)
    assert set(np.unique(labels)) <= set(VALUES)
    return labels


def hand_loop(bundle, frame):
    """What most scripts do: tiles of fixed size, float32, the middle of each overlap from the later tile."""
    image = torch.from_numpy(SCALE.apply(frame))[None, None]
    logits = torch.zeros(1, len(VALUES), *frame.shape)
    starts = [min(s, SIZE_PX - TILE_PX) for s in range(0, SIZE_PX - OVERLAP_PX, TILE_PX - OVERLAP_PX)]
    margin = OVERLAP_PX // 2
    with torch.no_grad():
        for y in starts:
            for x in starts:
                top, left = (margin if y else 0), (margin if x else 0)
                result = bundle.network(image[..., y : y + TILE_PX, x : x + TILE_PX])
                logits[..., y + top : y + TILE_PX, x + left : x + TILE_PX] = result[..., top:, left:]
    return np.array(VALUES)[logits.argmax(1)[0].numpy()]


def test_a_hand_written_loop(benchmark, bundle, frame):
    run(benchmark, lambda: hand_loop(bundle, frame))


def test_monai(benchmark, bundle, frame):
    inferers = pytest.importorskip("monai.inferers", exc_type=ImportError)

    def monai():
        image = torch.from_numpy(SCALE.apply(frame))[None, None]
        with torch.no_grad():
            logits = inferers.sliding_window_inference(
                image, (TILE_PX, TILE_PX), 4, bundle.network, overlap=OVERLAP_PX / TILE_PX, mode="gaussian"
            )
        return np.array(VALUES)[logits.argmax(1)[0].numpy()]

    run(benchmark, monai)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_ours(benchmark, bundle, frame, precision):
    settings = InferenceSettings(device="cpu", precision=precision)

    def ours():
        return next(segment(Stack(frame, "yx"), bundle, settings=settings, normalisation=SCALE)).labels

    labels = run(benchmark, ours)
    if not FULL:
        # The loop's overlap is no halo, and on noise and random weights many pixels are near ties.
        assert (labels == hand_loop(bundle, frame)).mean() > 0.9
