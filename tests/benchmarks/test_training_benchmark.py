"""A training step and the loader that feeds it, beside MONAI's U-Net on the same batches.

Tiny by default so that it cannot rot. For figures, on a CPU or on the GPU that is there::

    OPERANDOSEG_BENCHMARK_TRAINING=full pytest tests/benchmarks/test_training_benchmark.py \
        --benchmark-enable --benchmark-json=training.json

The extra info of the file holds samples per second, the arithmetic done per second and its share of what a large matrix
product reaches on the same device, and how long the step waits for one worker of the loader.
"""

import os
import time

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seg.labels import load_schema
from seg.models.unet import UNet
from training.config import AugmentConfig, DataConfig, LossConfig, ModelConfig, OptimizerConfig, SourceConfig
from training.dataset import PatchDataset, make_loader
from training.label_codes import LabelCodes
from training.loop import layout
from training.losses import MaskedLoss
from training.optim import make_optimizer
from training.sources import LabelledImage

FULL = os.environ.get("OPERANDOSEG_BENCHMARK_TRAINING") == "full"
PATCH_PX, BATCH, WIDTH, DEPTH, STEPS = (256, 8, 24, 4, 12) if FULL else (32, 2, 6, 2, 2)
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
PRECISION = torch.bfloat16 if CUDA else torch.float32
CODES = LabelCodes(tuple(c.index for c in load_schema().classes), ())

pytestmark = [
    pytest.mark.benchmark(group=f"training step, {BATCH} patches of {PATCH_PX}^2 px on {DEVICE.type}"),
    pytest.mark.timeout(1800 if FULL else 120),
]


def ours():
    return UNet(n_classes=CODES.n_classes, width=WIDTH, depth=DEPTH, stem_px=ModelConfig().stem_px)


def monai():
    """MONAI's residual U-Net with as many levels and the channels its tutorials give it: doubling, concatenated."""
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is the rival")
    return nets.UNet(
        spatial_dims=2, in_channels=1, out_channels=CODES.n_classes, num_res_units=2, norm="batch",
        channels=[WIDTH * 2**level for level in range(DEPTH + 1)], strides=[2] * DEPTH,
    )  # fmt: skip


class Step:
    """One update as the training loop makes it."""

    def __init__(self, network):
        self.network = network.to(DEVICE, memory_format=layout(2)).train()
        self.loss_of = MaskedLoss(CODES, LossConfig()).to(DEVICE)
        self.optimizer = make_optimizer(network, OptimizerConfig())

    def __call__(self, images, codes):
        images = images.to(DEVICE, memory_format=layout(2), non_blocking=True)
        with torch.autocast(DEVICE.type, PRECISION, enabled=CUDA):
            loss = self.loss_of(self.network(images), codes.to(DEVICE, non_blocking=True))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if CUDA:
            torch.cuda.synchronize()
        return loss.detach()


def dataset():
    """Images of 512 px (96 when tiny) with all classes in stripes of noise, under the full augmentation."""
    rng = np.random.default_rng(0)
    side = 512 if FULL else 96
    codes = (np.indices((side, side))[0] * CODES.n_classes // side + 1).astype(np.uint8)
    images = [
        LabelledImage("drawn", str(n), str(n), rng.random((side, side)).astype(np.float16), codes, False)
        for n in range(4)
    ]
    sources = {"drawn": SourceConfig("", "", modality="optical")}
    data = DataConfig(root="", sources=sources, patch_px=PATCH_PX, batch=BATCH)
    return PatchDataset(images, None, data, AugmentConfig())


def ceiling_flop_s():
    """Arithmetic per second of a large matrix product in the same precision."""
    side = (8192 if CUDA else 2048) if FULL else 128
    a = torch.rand(side, side, device=DEVICE, dtype=PRECISION)
    a @ a
    began = time.perf_counter()
    for _ in range(STEPS):
        a @ a
    if CUDA:
        torch.cuda.synchronize()
    return STEPS * 2 * side**3 / (time.perf_counter() - began)


@pytest.mark.parametrize("network", [ours, monai], ids=["ours", "monai"])
def test_step(benchmark, network):
    torch.manual_seed(0)
    step = Step(network())
    images = torch.rand(BATCH, 1, PATCH_PX, PATCH_PX)
    codes = torch.randint(1, CODES.n_codes, (BATCH, PATCH_PX, PATCH_PX), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        first = step(images, codes)
    benchmark.pedantic(step, args=(images, codes), rounds=STEPS)
    assert step(images, codes) < first  # the same batch again and again: it must learn it
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median
        flop_s = counter.get_total_flops() / seconds
        benchmark.extra_info |= {
            "samples_per_s": BATCH / seconds, "tflop_s": flop_s / 1e12, "share_of_matmul": flop_s / ceiling_flop_s(),
            "parameters": sum(p.numel() for p in step.network.parameters()),
        }  # fmt: skip


def test_loader(benchmark):
    """Batches of one worker process while the step runs: what counts is how long the step has to wait."""
    step = Step(ours())
    batches = iter(make_loader(dataset(), batch=BATCH, workers=1, start_step=0))
    step(*next(batches))
    waits = []

    def next_and_step():
        began = time.perf_counter()
        images, codes = next(batches)
        waits.append(time.perf_counter() - began)
        return step(images, codes)

    benchmark.pedantic(next_and_step, rounds=STEPS)
    assert len(waits) >= STEPS - 1
    batches._shutdown_workers()  # the fixture keeps the function, and with it the process
    drawn = dataset()
    began = time.perf_counter()
    for index in range(BATCH):
        image, codes = drawn[index]
    assert image.shape == (1, PATCH_PX, PATCH_PX)
    assert set(np.unique(codes)) <= set(range(CODES.n_codes))
    if benchmark.stats is not None:
        benchmark.extra_info |= {
            "wait_share": sum(waits) / benchmark.stats.stats.total,
            "draw_batch_s": time.perf_counter() - began,
        }
