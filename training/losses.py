"""The loss over labelled pixels: cross-entropy and soft Dice that know sets of classes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import nn
from torch.nn import functional

from training.config import LossConfig
from training.label_codes import LabelCodes


class MaskedLoss(nn.Module):
    """Cross-entropy plus soft Dice over labelled pixels; code 0 takes no part.

    Parameters
    ----------
    codes : LabelCodes
    config : LossConfig
    class_weights : sequence of float or None
        Weight of each network output in the cross-entropy.

    Notes
    -----
    Where a code stands for a set of classes, the probability of the set is the sum over its members: cross-entropy is
    its negative logarithm. Dice of a class leaves out pixels whose set holds that class among others, for there the
    truth of the class is unknown, and counts only classes present in the batch.
    """

    def __init__(self, codes: LabelCodes, config: LossConfig, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.n_classes = codes.n_classes
        self.sets = codes.sets
        self.config = config
        # (codes, K): 1 where the class is the truth, 0 where it is not, and whether that is known at all
        truth = torch.zeros(codes.n_codes, codes.n_classes)
        known = torch.zeros(codes.n_codes, codes.n_classes)
        for code in range(1, codes.n_codes):
            members = codes.members(code)
            known[code] = 1.0
            if len(members) == 1:
                truth[code, members[0]] = 1.0
            else:
                known[code, list(members)] = 0.0
        if class_weights is not None:  # a set weighs as much as its members on average
            of_codes = [0.0] + [fmean(class_weights[k] for k in codes.members(c)) for c in range(1, codes.n_codes)]
            self.register_buffer("code_weights", torch.tensor(of_codes))
        else:
            self.code_weights = None
        self.register_buffer("truth", truth)
        self.register_buffer("known", known)

    def forward(self, logits: torch.Tensor | list[torch.Tensor], codes: torch.Tensor) -> torch.Tensor:
        """Loss of logits (B, K, [Z,] Y, X), or of a list at halving resolutions, against codes (B, [Z,] Y, X)."""
        if isinstance(logits, torch.Tensor):
            return self._one(logits, codes)
        total, weights = torch.zeros((), device=codes.device), 0.0
        for level, output in enumerate(logits):
            weight = self.config.deep_supervision_decay**level
            step = codes.shape[-1] // output.shape[-1]
            coarse = codes[(slice(None), *(slice(None, None, step),) * (codes.ndim - 1))]
            total = total + weight * self._one(output, coarse)
            weights += weight
        return total / weights

    def _one(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        codes = codes.long()
        log_p = functional.log_softmax(logits.float(), dim=1)  # (B, K, [Z,] Y, X)
        loss = logits.new_zeros((), dtype=torch.float32)
        if self.config.cross_entropy:
            loss = loss + self.config.cross_entropy * self._cross_entropy(log_p, codes)
        if self.config.dice:
            loss = loss + self.config.dice * self._dice(log_p, codes)
        return loss

    def per_pixel(self, logits: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits (B, K, [Z,] Y, X) for every pixel (B, [Z,] Y, X); 0 where the code is 0."""
        codes = codes.long()
        return -self._log_p_of(functional.log_softmax(logits.float(), dim=1), codes) * (codes > 0)

    def _log_p_of(self, log_p: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        of_sets = [torch.logsumexp(log_p[:, list(members)], dim=1, keepdim=True) for members in self.sets]
        of_codes = torch.cat([log_p, *of_sets], dim=1)  # (B, codes - 1, [Z,] Y, X)
        return of_codes.gather(1, (codes - 1).clamp_min(0)[:, None])[:, 0]

    def _cross_entropy(self, log_p: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        labelled = codes > 0 if self.code_weights is None else self.code_weights[codes]
        picked = self._log_p_of(log_p, codes)
        n = labelled.sum().clamp_min(1 if self.code_weights is None else 1e-6)
        loss = -(picked * labelled).sum() / n
        if self.config.label_smoothing:
            uniform = -(log_p.mean(dim=1) * labelled).sum() / n
            loss = (1 - self.config.label_smoothing) * loss + self.config.label_smoothing * uniform
        return loss

    def _dice(self, log_p: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        truth = self.truth[codes].movedim(-1, 1)  # (B, K, [Z,] Y, X)
        known = self.known[codes].movedim(-1, 1)
        p = log_p.exp() * known
        pixels = (0, *range(2, p.ndim))
        overlap = (p * truth).sum(dim=pixels)
        sizes = p.sum(dim=pixels) + truth.sum(dim=pixels)
        present = truth.sum(dim=pixels) > 0
        if not present.any():
            return log_p.sum() * 0.0
        return (1 - 2 * overlap[present] / sizes[present]).mean()
