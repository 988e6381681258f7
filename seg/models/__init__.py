"""Networks and models on disk. ``ARCHITECTURES`` maps the name a model file gives to a builder; torch loads with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def _unet(**arguments: Any) -> nn.Module:
    from seg.models.unet import UNet

    return UNet(**arguments)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"unet": _unet}
