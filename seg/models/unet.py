"""The residual U-Net, 2-D and 3-D from one definition."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
NORMS = ("batch", "group")


class ConvNorm(nn.Sequential):
    """A convolution that keeps the grid, and its normalisation."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, kernel: int, norm: str) -> None:
        conv = CONV[dims](in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        if norm == "batch":
            normalise: nn.Module = BATCH_NORM[dims](out_channels)
        else:
            normalise = nn.GroupNorm(math.gcd(8, out_channels), out_channels)
        super().__init__(conv, normalise)

    def fold(self) -> None:
        """Put a batch normalisation in evaluation mode into the weights of its convolution."""
        if isinstance(self[1], nn.BatchNorm2d | nn.BatchNorm3d):
            self[0] = fuse_conv_bn_eval(self[0], self[1])
            self[1] = nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions beside a straight path."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, norm: str) -> None:
        super().__init__()
        self.first = ConvNorm(dims, in_channels, out_channels, kernel=3, norm=norm)
        self.second = ConvNorm(dims, out_channels, out_channels, kernel=3, norm=norm)
        same = in_channels == out_channels
        self.straight = nn.Identity() if same else ConvNorm(dims, in_channels, out_channels, kernel=1, norm=norm)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, [Z,] Y, X) to (B, C_out, [Z,] Y, X)."""
        y = self.second(self.activation(self.first(x)))
        y += self.straight(x)
        return self.activation(y)


class UNet(nn.Module):
    """Residual U-Net whose decoder adds the encoder's features instead of concatenating them.

    Level ``l`` has ``width * (l + 1)`` channels: the finest levels, where thin dendrites and shells live, get most of
    the arithmetic, and half of what doubling and concatenation cost is saved.

    Parameters
    ----------
    in_channels : int
    n_classes : int
        Output channels; which label value each one stands for is written in the model's specification.
    dims : {2, 3}
    width : int
        Channels of the finest level.
    depth : int
        How often the grid is halved.
    blocks : int
        Residual blocks per level, in the encoder and in the decoder.
    norm : {"batch", "group"}
        Batch normalisation uses fixed statistics at evaluation, so that a pixel depends on its surroundings only:
        tiles join exactly, and it folds into the convolutions. Group normalisation takes its statistics over the
        whole tile: such a network is **not** tile-invariant (`tile_invariant` is False) and overlapping tiles must be
        blended. Choose it for batches too small for batch statistics.
    deep_supervision : bool
        In training, also return logits of the coarser decoder levels.
    dropout : float
        Probability of dropping a channel at the coarsest level.
    scales : sequence of int
        At evaluation, class probabilities are averaged over the image shrunk by each of these powers of two: an object
        larger than those of the training images looks like them in one of the copies.
    stem_px : {1, 2, 4}
        Pixels along each axis that make one point of the finest grid: they are its input channels, and it gives logits
        for each of them. With 2 a step of a 2-D network costs a third, for masks as fine: see docs/peers.md.

    Attributes
    ----------
    tile_multiple : int
        Sizes and origins of tiles must be multiples of it, else the pooling grids of two tiles do not coincide.
    halo_px : int
        Exact radius of the receptive field: no input pixel farther away (along any axis) reaches an output pixel.
    values_per_px : int
        About how many values per input pixel are alive at the peak of a forward pass without gradients.

    References
    ----------
    Ronneberger et al., "U-Net", MICCAI 2015; Lee et al., "Superhuman accuracy on the SNEMI3D connectomics challenge",
    arXiv:1706.00120 (residual blocks, features joined by summation).
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        n_classes: int,
        dims: int = 2,
        width: int = 24,
        depth: int = 4,
        blocks: int = 1,
        norm: str = "batch",
        deep_supervision: bool = False,
        dropout: float = 0.0,
        scales: Sequence[int] = (1,),
        stem_px: int = 1,
    ) -> None:
        super().__init__()
        if dims not in CONV:
            raise ValueError(f"dims is {dims!r}; a U-Net has 2 or 3 dimensions.")
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}; choose one of {', '.join(NORMS)}.")
        for name, value, least, most in (
            ("in_channels", in_channels, 1, 64), ("n_classes", n_classes, 2, 255), ("width", width, 1, 1024),
            ("depth", depth, 0, 8), ("blocks", blocks, 1, 16),
        ):  # fmt: skip
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}; expected a whole number from {least} to {most}.")
        if not scales or any(s not in (1, 2, 4, 8) for s in scales) or len(set(scales)) < len(scales):
            raise ValueError(f"scales is {list(scales)}; expected different ones of 1, 2, 4, 8.")
        if stem_px not in (1, 2, 4):
            raise ValueError(f"stem_px is {stem_px!r}; choose 1, 2 or 4.")
        self.scales, self.stem_px = tuple(scales), stem_px
        self.in_channels, self.n_classes, self.dims = in_channels, n_classes, dims
        self.depth, self.blocks = depth, blocks
        self.deep_supervision = deep_supervision
        self.tile_invariant = norm == "batch"
        channels = [width * (level + 1) for level in range(depth + 1)]
        in_stem = stem_px**dims

        def level(c_in: int, c_out: int) -> nn.Sequential:
            inputs = [c_in] + [c_out] * (blocks - 1)
            return nn.Sequential(*(ResidualBlock(dims, c, c_out, norm=norm) for c in inputs))

        self.pool = POOL[dims](2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.dropout = DROPOUT[dims](dropout) if dropout else nn.Identity()
        self.encoder = nn.ModuleList(
            level(a, b) for a, b in zip([in_channels * in_stem, *channels], channels, strict=False)
        )
        self.reduce = nn.ModuleList(
            ConvNorm(dims, channels[n + 1], channels[n], kernel=1, norm=norm) for n in range(depth)
        )
        self.decoder = nn.ModuleList(level(channels[n], channels[n]) for n in range(depth))
        self.head = CONV[dims](channels[0], n_classes * in_stem, 1)  # all pixels of a point, class by class
        coarse = channels[1:depth] if deep_supervision else []
        self.coarse_heads = nn.ModuleList(CONV[dims](c, n_classes, 1) for c in coarse)
        for module in self.modules():
            # Values that nobody will see, on the meta device, would load 170 MiB of torch's compiler.
            if isinstance(module, CONV[dims]) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if stem_px > 1 and not self.head.weight.is_meta:
            # The pixels of a point start alike: few labels say the same of all of them, where each alone would see few.
            with torch.no_grad():
                rows = self.head.weight.unflatten(0, (n_classes, in_stem))
                rows[:] = rows[:, :1].clone()

    @property
    def tile_multiple(self) -> int:
        """Sizes and origins of tiles must be multiples of it."""
        return 2**self.depth * self.stem_px * max(self.scales)

    @property
    def halo_px(self) -> int:
        """Exact radius of the receptive field in px, the largest over the positions on the pooling grid."""
        reach = 0
        for position in range(self.tile_multiple):
            for scale in self.scales:
                # Linear interpolation reads the two shrunk pixels whose centres lie around that of the position.
                first = math.floor((position + 0.5) / scale - 0.5)
                low, high = self._reach(first)[0], self._reach(first + (scale > 1))[1]
                reach = max(reach, position - low * scale, high * scale + scale - 1 - position)
        return reach

    def _reach(self, position: int) -> tuple[int, int]:
        """First and last input pixel that the logits at `position` depend on."""
        grow = 2 * self.blocks  # two 3-wide convolutions per block, one px each to either side
        low = high = position // self.stem_px
        for _ in range(self.depth):  # decoder, from fine to coarse
            low, high = (low - grow) // 2, (high + grow) // 2
        low, high = low - grow, high + grow  # coarsest level
        for _ in range(self.depth):  # encoder, from coarse to fine: one px pools two
            low, high = 2 * low - grow, 2 * high + 1 + grow
        return low * self.stem_px, high * self.stem_px + self.stem_px - 1

    @property
    def values_per_px(self) -> int:
        """About how many values per input pixel are alive at the peak of a forward pass without gradients."""
        features = -(-6 * self.head.in_channels // self.stem_px**self.dims)
        return features + 3 * self.n_classes + (4 * self.n_classes if len(self.scales) > 1 else 0)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X).

        Spatial sizes must be multiples of `tile_multiple`. In training only the image as it is, not its shrunk copies;
        with deep supervision a list of logits, the finest first, each level half the size of the one before (the second
        is half the finest grid).
        """
        self._check_shape(x.shape)
        return self._at_one_scale(x) if self.training else over_scales(self._at_one_scale, x, self.scales)

    def _at_one_scale(self, x: Tensor) -> Tensor | list[Tensor]:
        skips = []
        x = packed(x, self.stem_px)  # up to the head Z, Y and X count points of the finest grid
        for n, block in enumerate(self.encoder):
            x = block(self.pool(x) if n else x)  # (B, (n + 1) W, [Z / 2^n,] Y / 2^n, X / 2^n)
            if n < self.depth:
                skips.append(x)
        x = self.dropout(x)
        coarse = []
        for n in reversed(range(self.depth)):
            skip = skips.pop()
            x = self.up(self.reduce[n](x))  # (B, (n + 1) W, [Z / 2^n,] Y / 2^n, X / 2^n)
            x += skip
            del skip  # at the finest level it is as large as all that follows
            x = self.decoder[n](x)
            if n and self.training and self.deep_supervision:
                coarse.append(self.coarse_heads[n - 1](x))  # (B, K, [Z / 2^n,] Y / 2^n, X / 2^n)
        logits = unpacked(self.head(x), self.stem_px)  # (B, K, [Z,] Y, X)
        return [logits, *reversed(coarse)] if coarse else logits

    def _check_shape(self, shape: Sequence[int]) -> None:
        if len(shape) != self.dims + 2 or shape[1] != self.in_channels:
            axes = "(B, C, Z, Y, X)" if self.dims == 3 else "(B, C, Y, X)"
            raise ValueError(
                f"The network got an input of shape {tuple(shape)}; expected {axes} with C={self.in_channels}."
            )
        if any(size % self.tile_multiple for size in shape[2:]):
            raise ValueError(
                f"The network got an input of shape {tuple(shape)}; "
                f"the spatial sizes must be multiples of {self.tile_multiple}."
            )

    def fold(self) -> "UNet":
        """Fold every batch normalisation into its convolution, in place; for evaluation only. Returns self."""
        self.eval()
        for module in self.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return self


def packed(x: Tensor, stem_px: int) -> Tensor:
    """Pixels as channels of the grid of a network: (B, C, [Z,] Y, X) to (B, C s^dims, [Z / s,] Y / s, X / s)."""
    if stem_px == 1:
        return x
    dims = x.ndim - 2
    for axis in range(2, 2 + 2 * dims, 2):
        x = x.unflatten(axis, (-1, stem_px))  # (B, C, [Z', z,] Y', y, X', x)
    inside, cells = range(3, 3 + 2 * dims, 2), range(2, 2 + 2 * dims, 2)
    return x.permute(0, 1, *inside, *cells).flatten(1, 1 + dims).contiguous(memory_format=LAYOUT[dims])


def unpacked(x: Tensor, stem_px: int) -> Tensor:
    """The way back from `packed`: (B, K s^dims, [Z,] Y, X) to (B, K, [Z s,] Y s, X s)."""
    if stem_px == 1:
        return x
    dims = x.ndim - 2
    x = x.unflatten(1, (-1, *(stem_px,) * dims))  # (B, K, [z,] y, x, [Z',] Y', X')
    pairs = [axis for n in range(dims) for axis in (2 + dims + n, 2 + n)]
    x = x.permute(0, 1, *pairs)  # (B, K, [Z', z,] Y', y, X', x)
    for axis in range(2, 2 + dims):
        x = x.flatten(axis, axis + 1)
    return x


def over_scales(logits_of: Callable[[Tensor], Tensor], x: Tensor, scales: Sequence[int]) -> Tensor:
    """Logarithms of the class probabilities of `logits_of`, averaged over `x` shrunk by each of `scales`.

    A softmax gives the mean probabilities back. With one scale, which must then be 1, the logits as they are.

    Parameters
    ----------
    logits_of : callable
        (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X).
    x : Tensor, shape (B, C, [Z,] Y, X)
    scales : sequence of int
        Each divides every spatial size.

    Returns
    -------
    Tensor of float32, shape (B, K, [Z,] Y, X)
    """
    if tuple(scales) == (1,):
        return logits_of(x)
    flat = x.ndim == 4
    shrink, mode = (functional.avg_pool2d, "bilinear") if flat else (functional.avg_pool3d, "trilinear")
    total: Tensor | None = None
    for scale in scales:
        share = logits_of(shrink(x, scale) if scale > 1 else x).float().softmax(dim=1)
        if scale > 1:
            share = functional.interpolate(share, scale_factor=float(scale), mode=mode)
        total = share if total is None else total + share
    assert total is not None
    return (total / len(scales)).clamp_min(torch.finfo(torch.float32).tiny).log()
