"""Bands of tiles to labels: what is computed, blended and decided at once, one band in memory.

A band is all tiles with the same start along the first spatial axis (y of planes, z of volumes). `read` gives the raw
values of a range along that axis, shape (N, n, ...): N images are computed together.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.overlap import ahead
from seg.preprocess import SeriesNormalisation
from seg.runner import Runner
from seg.tiling import AxisTiles, reflected

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[slice], np.ndarray]


def label_bands(
    read: Read, n: int, tiles: Sequence[AxisTiles], runner: Runner, normalisation: SeriesNormalisation,
    wanted: range | None = None,
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:  # fmt: skip
    """Yield (low, high, labels, confidence) of finished ranges along the first axis, in order.

    Parameters
    ----------
    read : callable
    n : int
        Images computed together.
    tiles : sequence of AxisTiles
    runner : Runner
    normalisation : SeriesNormalisation
    wanted : range or None
        Numbers of the bands to yield; None: all. The values do not change with it, to the bit.
    """
    wanted = range(len(tiles[0].starts)) if wanted is None else wanted
    if any(axis.blend for axis in tiles):
        for low, band in probability_bands(read, n, tiles, runner, normalisation, wanted):
            decided = [runner.decide(image, normalised=True)() for image in band]
            labels, confidence = (np.stack(part) for part in zip(*decided, strict=True))
            yield low, low + band.shape[2], labels, confidence
        return
    rest = tuple(axis.length_px for axis in tiles[1:])
    for index, band in _read_ahead(read, tiles[0], wanted):
        low, high = tiles[0].kept[index]
        labels = np.empty((n, high - low, *rest), np.uint8)
        confidence = np.empty(labels.shape, np.float16)
        under_way: deque[tuple[Any, Callable[[], tuple[np.ndarray, np.ndarray]]]] = deque()

        def fetch(under_way: deque = under_way, labels: np.ndarray = labels, sure: np.ndarray = confidence) -> None:
            kept, decided = under_way.popleft()
            labels[kept], sure[kept] = decided()

        for image, place, logits in _tile_logits(band, n, index, tiles, runner, normalisation):
            kept = (image, slice(None), *(slice(*axis.kept[p]) for axis, p in zip(tiles[1:], place, strict=True)))
            under_way.append((kept, runner.decide(logits)))
            while len(under_way) > runner.tiles_in_flight:
                fetch()
        while under_way:
            fetch()
        yield low, high, labels, confidence


def probability_bands(
    read: Read, n: int, tiles: Sequence[AxisTiles], runner: Runner, normalisation: SeriesNormalisation,
    wanted: range | None = None,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Yield (low, probabilities (N, K, n, ...)) of finished ranges; what a later band adds to is carried over."""
    import torch

    rest = tuple(axis.length_px for axis in tiles[1:])
    first = tiles[0]
    wanted = range(len(first.starts)) if wanted is None else wanted
    # Earlier bands that reach into the first one wanted are computed again, in the same order of sums.
    start = next(
        i for i in range(wanted.start + 1) if i == wanted.start or first.kept[i][1] > first.kept[wanted.start][0]
    )
    carried = None
    for index, band in _read_ahead(read, first, range(start, wanted.stop)):
        low, high = first.kept[index]
        total = torch.zeros(n, runner.n_classes, high - low, *rest)
        if carried is not None:
            total[:, :, : carried.shape[2]] = carried
        for image, place, logits in _tile_logits(band, n, index, tiles, runner, normalisation):
            share = runner.probabilities(logits.contiguous()).cpu()
            for axis_number, (axis, p) in enumerate(zip(tiles, (index, *place), strict=True)):
                weights = torch.from_numpy(axis.weights[p])
                share *= weights.reshape(-1, *(1,) * (len(tiles) - 1 - axis_number))
            kept = (slice(*axis.kept[p]) for axis, p in zip(tiles[1:], place, strict=True))
            total[(image, slice(None), slice(None), *kept)] += share
        finished = first.kept[index + 1][0] if index + 1 < len(first.starts) else high
        carried = total[:, :, finished - low :].clone()
        if index >= wanted.start:
            yield low, total[:, :, : finished - low]


def _read_ahead(read: Read, first: AxisTiles, wanted: range) -> Iterator[tuple[int, np.ndarray]]:
    """(number, raw values) of bands; the next one is read while one is computed."""

    def bands() -> Iterator[tuple[int, np.ndarray]]:
        for index in wanted:
            rows = _window(first, index)
            if isinstance(rows, slice):
                yield index, read(rows)
            else:  # mirrored at the end: read what is there, then mirror it in memory
                yield index, read(slice(int(rows.min()), int(rows.max()) + 1))[:, rows - rows.min()]

    return ahead(bands()) if len(wanted) > 1 else bands()


def _tile_logits(
    band: np.ndarray, n: int, index: int, tiles: Sequence[AxisTiles], runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[int, tuple[int, ...], Tensor]]:  # fmt: skip
    """Yield (image, place along the other axes, logits (K, ...) of what the tile keeps) for all tiles of a band."""
    others = tiles[1:]

    def inner(logits: Tensor, place: tuple[int, ...]) -> Tensor:
        return logits[(slice(None), *(axis.inner(p) for axis, p in zip(tiles, (index, *place), strict=True)))]

    places = itertools.product(*(range(len(axis.starts)) for axis in others))
    work = itertools.product(places, range(n))
    items: list[tuple[int, tuple[int, ...], np.ndarray]] = []
    for place, image in work:
        tile = normalisation.apply(_cut(band[image], others, place))
        if tile.min() == tile.max():
            # Empty: the network gives the same for every such tile, so it is asked once.
            yield image, place, inner(runner.of_constant(tile), place)
            continue
        items.append((image, place, tile))
        if len(items) == runner.tiles_at_once(tiles):
            yield from _batch(items, inner, runner)
            items = []
    if items:
        yield from _batch(items, inner, runner)


def _batch(
    items: Sequence[tuple[int, tuple[int, ...], np.ndarray]], inner: Callable, runner: Runner
) -> Iterator[tuple[int, tuple[int, ...], Tensor]]:
    logits = runner(np.stack([tile for _, _, tile in items])[:, np.newaxis])  # (B, K, ...)
    for (image, place, _), result in zip(items, logits, strict=True):
        yield image, place, inner(result, place)


def _window(axis: AxisTiles, index: int) -> slice | np.ndarray:
    start = axis.starts[index]
    return reflected(start, start + axis.tile_px, axis.length_px)


def _cut(band: np.ndarray, axes: Sequence[AxisTiles], place: Sequence[int]) -> np.ndarray:
    """One tile of a band, mirrored where it sticks out of the image."""
    for n, (axis, p) in enumerate(zip(axes, place, strict=True), start=1):
        band = band[(slice(None),) * n + (_window(axis, p),)]
    return band
