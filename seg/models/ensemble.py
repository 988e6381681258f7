"""Several networks as one: their probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks for the same classes, whose class probabilities are averaged.

    The output is the logarithm of the mean probability, of which a softmax gives the mean back: whatever takes one
    network takes an ensemble.

    Parameters
    ----------
    n_classes : int
    members : sequence of mapping
        ``{"architecture": NAME, **arguments}`` of each network, all with the same `dims` and channels.
    """

    def __init__(self, *, n_classes: int, members: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        from seg.models import ARCHITECTURES

        if len(members) < 2:
            raise ValueError(f"an ensemble of {len(members)}; expected two members or more.")
        built = []
        for member in members:
            arguments = dict(member)
            name = arguments.pop("architecture", None)
            if name == "ensemble" or name not in ARCHITECTURES:
                raise ValueError(f"an ensemble cannot have {name!r} as a member.")
            built.append(ARCHITECTURES[name](n_classes=n_classes, **arguments))
        self.members = nn.ModuleList(built)
        self.n_classes, self.dims, self.in_channels = n_classes, built[0].dims, built[0].in_channels
        if any((m.dims, m.in_channels) != (self.dims, self.in_channels) for m in built):
            raise ValueError("the members of an ensemble take different numbers of dimensions or channels.")
        self.tile_multiple = max(m.tile_multiple for m in built)  # powers of two
        self.halo_px = max(m.halo_px for m in built)
        self.tile_invariant = all(m.tile_invariant for m in built)

    @property
    def values_per_px(self) -> int:
        """About how many values per input pixel are alive at the peak of a forward pass without gradients."""
        return max(m.values_per_px for m in self.members) + 2 * self.n_classes

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, [Z,] Y, X) to logarithms of mean probabilities (B, K, [Z,] Y, X), in the type of the members."""
        total: Tensor | None = None
        for member in self.members:
            logits = member(x)
            share = logits.float().softmax(dim=1)
            total = share if total is None else total + share
        assert total is not None
        return (total / len(self.members)).clamp_min(torch.finfo(torch.float32).tiny).log().to(logits.dtype)

    def fold(self) -> Ensemble:
        """Fold the norms of every member, in place; for evaluation only. Returns self."""
        for member in self.members:
            member.fold()
        return self
