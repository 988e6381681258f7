"""Images to labels strip by strip from top to bottom, volumes plane by plane from the first to the last.

Strips compute no pixel twice and hold little, see `seg.models.streamed`. Stretches of one value are computed once.
Planes that are not to be had in strips are computed in bands of tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seg.bands import label_bands
from seg.overlap import ahead
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


def label_volume(
    read: Callable[[slice], np.ndarray], shape: Sequence[int], wanted: range, runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:  # fmt: skip
    """Yield (first plane, labels, confidence) of slabs of a volume, in order.

    Parameters
    ----------
    read : callable
        Raw intensities (n, Y, X) of some planes.
    shape : sequence of int
        Of the volume.
    wanted : range
        Planes to label, from the first of one slab to the last of another. The values do not change with it.
    runner : Runner
        Of a 3-D network; ``runner.strips(shape)`` is not None.
    normalisation : SeriesNormalisation
    """
    done = wanted.start
    while done < wanted.stop:
        strips = runner.strips(tuple(shape))
        assert strips is not None
        try:
            for labels, confidence in _slabs(read, shape, range(done, wanted.stop), strips, runner, normalisation):
                yield done, labels, confidence
                done += len(labels)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
        if not runner.narrower_strips(strips):
            raise MemoryError


def _slabs(
    read: Callable[[slice], np.ndarray], shape: Sequence[int], wanted: range, strips: Strips, runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Labels and confidence of the slabs of the planes that are wanted."""
    pieces = _decided_planes(read, shape, wanted, strips, runner, normalisation)
    for start in range(wanted.start, wanted.stop, strips.slab_px):
        size = (min(strips.slab_px, wanted.stop - start), *shape[1:])
        labels, confidence, done = np.empty(size, np.uint8), np.empty(size, np.float16), 0
        while done < len(labels):
            found, sure = next(pieces)
            count = min(len(found), len(labels) - done)
            labels[done : done + count], confidence[done : done + count] = found[:count], sure[:count]
            done += count
            if count < len(found):
                pieces = itertools.chain([(found[count:], sure[count:])], pieces)
        yield labels, confidence


def _decided_planes(
    read: Callable[[slice], np.ndarray], shape: Sequence[int], wanted: range, strips: Strips, runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Labels and confidence of the planes that are wanted, in pieces of any thickness."""
    known = _with_halo(slice(wanted.start, wanted.stop), strips)
    extremes = [
        [(plane.min(), plane.max()) for plane in read(slice(z, min(z + strips.rows_px, known.stop)))]
        for z in range(known.start, known.stop, strips.rows_px)
    ]
    low, high = np.array(list(itertools.chain(*extremes))).T
    for own, seen, empty in _stretches(low, high, slice(wanted.start, wanted.stop), strips, strips.part_px):

        def planes(seen: slice = seen) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
            return _labelled(read, seen, shape, strips, runner, normalisation)

        if not empty:
            for rows, labels, sure in planes():
                inside = slice(max(own.start - rows.start, 0), max(own.stop - rows.start, 0))
                if len(labels[inside]):
                    yield labels[inside], sure[inside]
            continue
        place = slice(own.start - seen.start, own.stop - seen.start)
        key = (shape, low[seen.start - known.start].item(), seen.stop - seen.start)
        labels, sure = runner.remembered(key, lambda planes=planes: _joined(planes()))
        yield labels[place], sure[place]


def _joined(
    pieces: Iterable[tuple[slice, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence of all pieces."""
    _, labels, sure = zip(*pieces, strict=True)
    return np.concatenate(labels), np.concatenate(sure)


def _labelled(
    read: Callable[[slice], np.ndarray], seen: slice, shape: Sequence[int], strips: Strips, runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:  # fmt: skip
    """Planes, their labels and confidence, in order, from a window of a volume that is mirrored at its end."""
    multiple = runner.network.tile_multiple
    length = seen.stop - seen.start
    padded = -(-length // multiple) * multiple

    def pieces() -> Iterator[tuple[np.ndarray, bool]]:
        for start in range(0, padded, strips.rows_px):
            stop = min(start + strips.rows_px, padded)
            rows = reflected(start, stop, length)
            first, last = (start, stop) if isinstance(rows, slice) else (int(rows.min()), int(rows.max()) + 1)
            found = read(slice(seen.start + first, seen.start + last))
            yield normalisation.apply(found if isinstance(rows, slice) else found[rows - first]), stop == padded

    places = list(itertools.product(*(range(len(axis.starts)) for axis in strips.columns)))
    streams, done = [runner.stream() for _ in places], seen.start
    for piece, last in ahead(pieces()):
        labels = confidence = np.empty(0)
        for stream, place in zip(streams, places, strict=True):
            column = piece
            for n, (axis, p) in enumerate(zip(strips.columns, place, strict=True), start=1):
                window = reflected(axis.starts[p], axis.starts[p] + axis.tile_px, axis.length_px)
                column = column[(slice(None),) * n + (window,)]
            kept = tuple(slice(*axis.kept[p]) for axis, p in zip(strips.columns, place, strict=True))
            inner = tuple(axis.inner(p) for axis, p in zip(strips.columns, place, strict=True))
            found = runner.push(stream, np.ascontiguousarray(column), last=last)
            if labels.ndim != 3:  # all columns finish the same planes at a time
                size = (sum(logits.shape[1] for logits in found), *shape[1:])
                labels, confidence = np.empty(size, np.uint8), np.empty(size, np.float16)
            at = 0
            for logits in found:
                rows = (slice(at, at + logits.shape[1]), *kept)
                labels[rows], confidence[rows] = runner.decide(logits[(slice(None), slice(None), *inner)])()
                at += logits.shape[1]
        yield slice(done, done + len(labels)), labels, confidence
        done += len(labels)


def _label_plane(
    plane: np.ndarray, labels: np.ndarray, confidence: np.ndarray, strips: Strips, runner: Runner,
    normalisation: SeriesNormalisation,
) -> bool:  # fmt: skip
    """Fill in labels and confidence; False where the memory does not suffice."""
    try:
        (axis,) = strips.columns
        for place, start in enumerate(axis.starts):
            columns = reflected(start, start + axis.tile_px, axis.length_px)
            kept, inner = slice(*axis.kept[place]), axis.inner(place)
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
    every = slice(0, strips.length_px)
    for own, seen, empty in _stretches(column.min(axis=1), column.max(axis=1), every, strips, EMPTY_ROWS):
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


def _stretches(
    low: np.ndarray, high: np.ndarray, wanted: slice, strips: Strips, size: int
) -> Iterator[tuple[slice, slice, bool]]:  # fmt: skip
    """Rows, the same with what they depend on, and whether all of that is one value.

    Parameters
    ----------
    low, high : ndarray
        Extremes of each of the rows that are wanted and of those that these depend on.
    wanted : slice
    strips : Strips
    size : int
        Rows that are asked together.
    """
    first = _with_halo(wanted, strips).start
    busy = wanted.start
    for start in range(wanted.start, wanted.stop, size):
        own = slice(start, min(start + size, wanted.stop))
        seen = _with_halo(own, strips)
        known = slice(seen.start - first, seen.stop - first)
        if low[known].min() == high[known].max():
            if busy < start:
                yield slice(busy, start), _with_halo(slice(busy, start), strips), False
            yield own, seen, True
            busy = own.stop
    if busy < wanted.stop:
        yield slice(busy, wanted.stop), _with_halo(slice(busy, wanted.stop), strips), False


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
