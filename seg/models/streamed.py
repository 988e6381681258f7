"""A fused U-Net from the top of an image to its bottom, strip by strip: every pixel is computed once.

Of volumes the strips are some planes, from the first to the last; what is said of rows holds for planes.

Tiles compute their halos again, a quarter more pixels on large frames and twice as many of volumes, and hold the values
of a whole tile. Here each level keeps the last rows that its next convolution needs and passes on what is finished, so
that no row is computed twice but two per strip and block, and what is alive is a strip and the rows by which coarse
levels lag behind. The values are those of the network on the whole image, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from seg.models.fused import FusedUNet
from seg.models.unet import LAYOUT, ResidualBlock, packed

# Rows before and behind that a residual block sees: two 3-wide convolutions.
REACH = 2


class Stream:
    """One image on its way through a network.

    Parameters
    ----------
    fused : FusedUNet
        Of one scale.
    """

    def __init__(self, fused: FusedUNet) -> None:
        self._fused, self._network = fused, fused.network
        self._encoder = [[_Stage(fused, block) for block in level] for level in self._network.encoder]
        self._decoder = [[_Stage(fused, block) for block in level] for level in self._network.decoder]
        self._skips: list[deque[Tensor]] = [deque() for _ in self._decoder]

    def push(self, rows: Tensor, *, last: bool) -> Iterator[Tensor]:
        """Take the next rows and give what is finished.

        Parameters
        ----------
        rows : Tensor, shape (1, C, y, X) or (1, C, z, Y, X)
            In the type of the network; its sizes are multiples of ``tile_multiple``.
        last : bool
            Whether the image ends here.

        Yields
        ------
        Tensor, shape (1, K, y', X) or (1, K, z', Y, X)
            The next logits; y' is about y, and all together lag behind until the last rows.
        """
        rows = packed(rows, self._network.stem_px)
        x: Tensor | None = rows
        for n, level in enumerate(self._encoder):
            if x is not None:
                _put_pooled(level[0], x, last) if n else level[0].room(x.shape, last).copy_(x)
            x = _taken(level, last)
            if n < len(self._decoder) and x is not None:
                self._skips[n].append(x)
        yield from self._decoded(len(self._decoder), x, rows.shape[2], last)

    def _decoded(self, level: int, x: Tensor | None, at_once: int, last: bool) -> Iterator[Tensor]:
        """Logits from rows of a coarse level; what comes at the end all together goes on in pieces."""
        if level == 0:
            if x is not None:
                yield self._fused.head(x)
            return
        n = level - 1
        pieces = [None] if x is None else x.split(max(at_once >> level, 1), 2)
        del x
        for number, piece in enumerate(pieces):
            ends = last and number == len(pieces) - 1
            if piece is not None:
                self._put_sum(n, self._fused.reduced(n, piece), ends)
            yield from self._decoded(n, _taken(self._decoder[n], ends), at_once, ends)

    def _put_sum(self, n: int, coarse: Tensor, last: bool) -> None:
        """Twice as many rows and columns of `coarse`, and the features of the encoder beside them, to decoder `n`."""
        up = self._network.up(coarse)
        room = self._decoder[n][0].room(up.shape, last)
        done = 0
        while done < up.shape[2]:
            skip = self._skips[n].popleft()
            count = min(skip.shape[2], up.shape[2] - done)
            if count < skip.shape[2]:
                self._skips[n].appendleft(skip[:, :, count:])
            piece = slice(done, done + count)
            torch.add(up[:, :, piece], skip[:, :, :count], out=room[:, :, piece])
            done += count


class _Stage:
    """One residual block and the rows that wait in front of it."""

    def __init__(self, fused: FusedUNet, block: ResidualBlock) -> None:
        self._fused, self._block, self._layout = fused, block, LAYOUT[fused.network.dims]
        self._waiting: Tensor | None = None  # the first REACH rows lie before those that are given out next
        self._first = True

    def room(self, shape: torch.Size, last: bool) -> Tensor:
        """Where the next rows, of `shape`, are to be written."""
        _, channels, count, *across = shape
        held = REACH if self._waiting is None else self._waiting.shape[2]
        rows = torch.empty(
            1, channels, held + count + REACH * last, *across, dtype=self._fused.dtype, memory_format=self._layout
        )
        rows[:, :, :held] = 0 if self._waiting is None else self._waiting
        if last:
            rows[:, :, -REACH:] = 0
        self._waiting = rows
        return rows[:, :, held : held + count]

    def take(self, last: bool) -> Tensor | None:
        """Rows that are finished, an even number of them for pooling: all but the last two, until the image ends."""
        rows = self._waiting
        count = 0 if rows is None else rows.shape[2] - 2 * REACH
        count -= 0 if last else count % 2
        if rows is None or count <= 0:
            return None
        first, self._first = self._first, False
        self._waiting = rows[:, :, count:].clone(memory_format=self._layout)  # the block overwrites its rows
        return self._fused.block_of_rows(self._block, rows[:, :, : count + 2 * REACH], first, last)


def _taken(level: list[_Stage], last: bool) -> Tensor | None:
    """What the blocks of a level have finished."""
    rows = level[0].take(last)
    for stage in level[1:]:
        if rows is not None:
            stage.room(rows.shape, last).copy_(rows)
        rows = stage.take(last)
    return rows


def _put_pooled(stage: _Stage, x: Tensor, last: bool) -> None:
    """The largest of each 2 x 2 (x 2) px: of rows first, which lie one behind the other in memory."""
    for axis in range(2, x.ndim - 1):
        before = (slice(None),) * axis
        x = torch.maximum(x[(*before, slice(0, None, 2))], x[(*before, slice(1, None, 2))])
    one, other = x[..., 0::2], x[..., 1::2]
    torch.maximum(one, other, out=stage.room(one.shape, last))
