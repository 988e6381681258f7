"""Planes to labels: strip by strip from top to bottom where the network allows it, else in bands of tiles.

Strips compute no pixel twice and hold little, see `seg.models.streamed`. Stretches of one value are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from seg.bands import label_bands
from seg.preprocess import SeriesNormalisation
from seg.runner import Runner, is_out_of_memory
from seg.tiling import Strips, reflected

if TYPE_CHECKING:
    from torch import Tensor

# Rows that are asked together whether they and their surroundings are of one value.
EMPTY_ROWS = 512


def label_planes(
    planes: np.ndarray, runner: Runner, normalisation: SeriesNormalisation
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Labels and confidence of planes that are computed together.

    Parameters
    ----------
    planes : ndarray, shape (N, Y, X)
        Raw intensities.
    runner : Runner
        Of a 2-D network.
    normalisation : SeriesNormalisation

    Returns
    -------
    labels : ndarray of uint8, shape (N, Y, X)
    confidence : ndarray of float16, shape (N, Y, X)
    """
    shape = planes.shape[1:]
    labels, confidence = np.empty(planes.shape, np.uint8), np.empty(planes.shape, np.float16)
    if runner.strips(shape) is None:
        tiles = runner.tiles(shape)
        for low, high, *band in label_bands(
            lambda rows: planes[:, rows], len(planes), tiles, runner, normalisation
        ):  # fmt: skip
            labels[:, low:high], confidence[:, low:high] = band
        return labels, confidence
    for n, plane in enumerate(planes):
        done = False
        while not done:
            strips = runner.strips(shape)
            assert strips is not None
            done = _label_plane(plane, labels[n], confidence[n], strips, runner, normalisation)
            if not done and not runner.narrower_strips(strips):
                raise MemoryError
    return labels, confidence


def _label_plane(
    plane: np.ndarray, labels: np.ndarray, confidence: np.ndarray, strips: Strips, runner: Runner,
    normalisation: SeriesNormalisation,
) -> bool:  # fmt: skip
    """Fill in labels and confidence; False where the memory does not suffice."""
    try:
        for place, start in enumerate(strips.columns.starts):
            columns = reflected(start, start + strips.columns.tile_px, strips.columns.length_px)
            kept, inner = slice(*strips.columns.kept[place]), strips.columns.inner(place)
            for rows, decided in _decided(plane[:, columns], strips, runner, normalisation, inner):
                labels[rows, kept], confidence[rows, kept] = decided
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _decided(
    column: np.ndarray, strips: Strips, runner: Runner, normalisation: SeriesNormalisation, inner: slice
) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:  # fmt: skip
    """Rows of a column with halo, and the labels and confidence of what it keeps of them."""
    for own, seen, empty in _stretches(column, strips):
        window = column[seen]

        def logits(window: np.ndarray = window) -> Iterator[tuple[slice, Tensor]]:
            return _logits(window, strips, runner, normalisation)

        if empty:
            key = (window.shape, window.flat[0].item(), inner.start, inner.stop)
            labels, sure = runner.remembered(key, lambda logits=logits: _whole(logits(), inner, runner))
            rows = slice(own.start - seen.start, own.stop - seen.start)
            yield own, (labels[rows], sure[rows])
            continue
        for rows, found in logits():
            low, high = max(rows.start + seen.start, own.start), min(rows.stop + seen.start, own.stop)
            if low < high:
                first = low - seen.start - rows.start
                yield slice(low, high), runner.decide(found[:, first : first + high - low, inner])()


def _whole(
    logits: Iterable[tuple[slice, Tensor]], inner: slice, runner: Runner
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Labels and confidence of all rows of a window."""
    labels, sure = zip(*(runner.decide(found[:, :, inner])() for _, found in logits), strict=True)
    return np.concatenate(labels), np.concatenate(sure)


def _stretches(column: np.ndarray, strips: Strips) -> Iterator[tuple[slice, slice, bool]]:
    """Rows, the same with what they depend on, and whether all of that is one value."""
    low, high = column.min(axis=1), column.max(axis=1)
    busy = 0
    for start in range(0, strips.length_px, EMPTY_ROWS):
        own = slice(start, min(start + EMPTY_ROWS, strips.length_px))
        seen = _with_halo(own, strips)
        if low[seen].min() == high[seen].max():
            if busy < start:
                yield slice(busy, start), _with_halo(slice(busy, start), strips), False
            yield own, seen, True
            busy = own.stop
    if busy < strips.length_px:
        yield slice(busy, strips.length_px), _with_halo(slice(busy, strips.length_px), strips), False


def _with_halo(rows: slice, strips: Strips) -> slice:
    return slice(max(rows.start - strips.halo_px, 0), min(rows.stop + strips.halo_px, strips.length_px))


def _logits(
    window: np.ndarray, strips: Strips, runner: Runner, normalisation: SeriesNormalisation
) -> Iterator[tuple[slice, Tensor]]:  # fmt: skip
    """Rows of a window and their logits (K, n, X), in order; the window is mirrored at its end."""
    multiple = runner.network.tile_multiple
    length = -(-len(window) // multiple) * multiple
    stream, done = runner.stream(), 0
    for start in range(0, length, strips.rows_px):
        stop = min(start + strips.rows_px, length)
        rows = normalisation.apply(window[reflected(start, stop, len(window))])
        for found in runner.push(stream, rows, last=stop == length):
            yield slice(done, done + found.shape[1]), found
            done += found.shape[1]
