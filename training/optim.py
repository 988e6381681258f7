"""Optimiser, schedule and the running average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from training.config import OptimizerConfig


def make_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW; normalisation parameters and biases do not decay."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99))


def learning_rate(progress: float, config: OptimizerConfig) -> float:
    """Linear warm-up, then a cosine down to ``final_lr_share``; `progress` runs from 0 to 1 over the run."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < config.warmup_share:
        return config.lr * (0.02 + 0.98 * progress / config.warmup_share)
    rest = (progress - config.warmup_share) / (1 - config.warmup_share)
    floor = config.final_lr_share
    return config.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest)))


class WeightAverage:
    """Exponential moving average of a network's weights and normalisation statistics.

    Notes
    -----
    The decay grows as (1 + n) / (10 + n) up to its value, so that a short run is not held back by its random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, n_updates: int) -> None:
        """Move towards `network` after its update number `n_updates`, counted from 0."""
        decay = min(self.decay, (1 + n_updates) / (10 + n_updates))
        for average, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if average.is_floating_point():
                average.lerp_(value.to(average.dtype), 1 - decay)
            else:
                average.copy_(value)
