"""The U-Net with each convolution, its sum and its activation in one pass over memory: for networks on a CPU.

On a CPU the U-Net is limited by memory, not by arithmetic: an activation of its own costs half of a convolution. oneDNN
computes ``relu(conv(x) + y)`` in one pass; torch has these calls for its compiler, and they work without it. The values
are those of the network up to the rounding of the intermediate results, of which there are fewer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from seg.models.unet import LAYOUT, ResidualBlock, UNet, over_scales, packed, unpacked

logger = logging.getLogger(__name__)

# Largest difference of logits to the network itself that is taken for rounding, as share of the largest logit.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def fused_forward(network: nn.Module) -> FusedUNet | None:
    """The forward pass of a folded U-Net on the CPU in fewer passes over memory; None where it is not to be had.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, its norms folded (`UNet.fold`), in channels-last layout. Its weights are shared.

    Returns
    -------
    FusedUNet or None
        From (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X) with contiguous classes. None for another network, for one
        whose norms do not fold, and where torch lacks the calls or they give other values.
    """
    if not isinstance(network, UNet) or not network.tile_invariant or not torch.backends.mkldnn.is_available():
        return None
    try:
        # Held here: a private interface that may go or change, so each network is compared before it is used.
        operations = (torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise_.binary)
    except AttributeError:
        logger.info("this torch has no fused convolutions; the network runs as it is")
        return None
    fused = FusedUNet(network, *operations)
    return fused if _agrees(network, fused) else None


def _agrees(network: UNet, fused: Callable[[Tensor], Tensor]) -> bool:
    weight = network.head.weight
    size = 2 * network.tile_multiple
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, network.in_channels, *(size,) * network.dims, generator=generator).to(weight.dtype)
    image = image.to(memory_format=_layout(network))
    with torch.inference_mode():
        expected = network(image).float()  # what fails here is no matter of fusing
        try:
            found = fused(image).float()
        except RuntimeError as error:  # what torch and oneDNN raise for a kernel that this CPU or build lacks
            reason = str(error).split("\n")[0]
            logger.warning("Fused convolutions do not run here (%s); the network runs as it is, slower.", reason)
            return False
    difference = float((expected - found).abs().max())
    if not difference <= TOLERANCE[weight.dtype] * max(float(expected.abs().max()), 1e-6):
        logger.warning("Fused convolutions differ from the network by %.2g; it runs as it is, slower.", difference)
        return False
    return True


def _layout(network: UNet) -> torch.memory_format:
    return LAYOUT[network.dims]


class FusedUNet:
    """The forward pass of a U-Net; made by `fused_forward`."""

    def __init__(self, network: UNet, convolve: Callable, add_into: Callable) -> None:
        self.network, self._convolve, self._add_into = network, convolve, add_into

    @property
    def values_per_px(self) -> int:
        """How much memory a forward pass takes at its peak, in values per input pixel: measured."""
        network = self.network
        features = -(-6 * network.head.in_channels // network.stem_px**network.dims)
        return features + (5 if len(network.scales) > 1 else 1) * network.n_classes * (1 + (network.stem_px > 1))

    @property
    def streams(self) -> bool:
        """Whether `seg.models.streamed` can take images through it."""
        return tuple(self.network.scales) == (1,)

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return self.network.head.weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X); `x` is left as it is."""
        return over_scales(self._at_one_scale, x, self.network.scales)

    def _at_one_scale(self, x: Tensor) -> Tensor:
        network = self.network
        # A copy of one channel: with one channel a layout is ambiguous, and the next calls choose theirs by it.
        x = packed(x, network.stem_px) if network.stem_px > 1 else x.clone(memory_format=_layout(network))
        skips: list[Tensor] = []
        for n, level in enumerate(network.encoder):
            x = self._level(level, network.pool(x) if n else x)
            if n < network.depth:
                skips.append(x)
        for n in reversed(range(network.depth)):
            x = network.up(self._conv(network.reduce[n][0], x))  # (B, (n + 1) W, [Z / 2^n,] Y / 2^n, X / 2^n)
            x += skips.pop()
            x = self._level(network.decoder[n], x)
        return self.head(x)

    def head(self, x: Tensor) -> Tensor:
        """The 1-wide convolution at the end as one product: classes come out contiguous, as softmax wants them."""
        head = self.network.head
        weight = head.weight.flatten(1)  # (K, W)
        logits = x.new_empty(len(x), len(weight), *x.shape[2:])
        for image, out in zip(x, logits, strict=True):
            pixels = image.movedim(0, -1).reshape(-1, image.shape[0])  # (Z * Y * X, W): no copy in channels-last layout
            torch.addmm(head.bias[:, None], weight, pixels.t(), out=out.view(len(weight), -1))
        return unpacked(logits, self.network.stem_px)

    def reduced(self, level: int, x: Tensor) -> Tensor:
        """The channels of a coarser level as those of decoder `level`."""
        return self._conv(self.network.reduce[level][0], x)

    def block_of_rows(self, block: ResidualBlock, x: Tensor, first: bool, last: bool) -> Tensor:
        """A residual block of rows (planes) with two more on both sides, which it uses up; `x` is overwritten.

        Parameters
        ----------
        block : ResidualBlock
        x : Tensor, shape (1, C, y + 4, X) or (1, C, z + 4, Y, X)
        first, last : bool
            Whether the image begins or ends here: beyond it the values between the convolutions are 0.
        """
        one, two = block.first[0], block.second[0]
        across = [0, *one.padding[1:]]
        if x.shape[1] == 1:
            x = x.clone(memory_format=_layout(self.network))  # as in `_at_one_scale`
        y = self._convolve(x, one.weight, one.bias, across, one.stride, one.dilation, 1, "relu", [], "")
        if first:
            y[:, :, 0] = 0
        if last:
            y[:, :, -1] = 0
        inner = x[:, :, 2:-2]
        straight = inner if isinstance(block.straight, nn.Identity) else self._conv(block.straight[0], inner)
        return self._add_into(
            straight, y, two.weight, two.bias, across, two.stride, two.dilation, 1, "add", 1.0, "relu", [], ""
        )

    def _level(self, level: nn.Sequential, x: Tensor) -> Tensor:
        for block in level:
            x = self._block(block, x)
        return x

    def _block(self, block: ResidualBlock, x: Tensor) -> Tensor:
        """A residual block; where its straight path is `x` itself, the result takes the place of `x`."""
        y = self._conv(block.first[0], x, "relu")
        straight = x if isinstance(block.straight, nn.Identity) else self._conv(block.straight[0], x)
        conv = block.second[0]
        return self._add_into(
            straight, y, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, "add", 1.0, "relu", [], ""
        )

    def _conv(self, conv: nn.Module, x: Tensor, activation: str = "none") -> Tensor:
        return self._convolve(
            x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, 1, activation, [], ""
        )
