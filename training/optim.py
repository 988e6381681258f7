"""Optimiser, schedule, the running average of the weights, and the best of them."""

from __future__ import annotations

import copy
import math
from typing import Any

import pandas as pd
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


class Best:
    """The weights that scored best, for runs that stop when scores no longer rise; nothing when `patience` is 0.

    Parameters
    ----------
    patience : int
        Scores in a row that may be no better before the run is `exhausted`.
    checkpoint : mapping or None
        What `state_dict` gave earlier, among other keys.
    """

    def __init__(self, patience: int, checkpoint: dict[str, Any] | None = None) -> None:
        self.patience = patience
        state = (checkpoint or {}).get("best") or {}
        self.quality: float = state.get("quality", -math.inf)
        self.step: int = state.get("step", 0)
        self.worse: int = state.get("worse", 0)
        self.weights: dict[str, torch.Tensor] = state.get("weights", {})

    @property
    def exhausted(self) -> bool:
        """Whether the run has had enough chances."""
        return self.patience > 0 and self.worse >= self.patience

    def update(self, quality: float, step: int, network: nn.Module) -> None:
        """Note the score of `network` at `step`; NaN counts as no better."""
        if not self.patience:
            return
        if quality > self.quality:
            self.quality, self.step, self.worse = quality, step, 0
            self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        else:
            self.worse += 1

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        if not self.patience:
            return {}
        return {"best": {"quality": self.quality, "step": self.step, "worse": self.worse, "weights": self.weights}}


def quality(table: pd.DataFrame) -> float:
    """Mean IoU of the network over data sets and classes of a summary; NaN when nothing is held out."""
    return float(table.loc[table["method"] == "network", "iou"].mean())
