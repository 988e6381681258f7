"""Networks and models on disk. ``ARCHITECTURES`` maps the name a model file gives to a builder; torch loads with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def _unet(**arguments: Any) -> nn.Module:
    from seg.models.unet import UNet

    return UNet(**arguments)


def _ensemble(**arguments: Any) -> nn.Module:
    from seg.models.ensemble import Ensemble

    return Ensemble(**arguments)


# Besides mapping (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X), a network tells the engine its dims, in_channels,
# tile_multiple, halo_px, tile_invariant and values_per_px, and folds its norms with fold(); see seg.models.unet.UNet.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"unet": _unet, "ensemble": _ensemble}
