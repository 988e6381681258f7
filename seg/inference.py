"""The tiling engine: frames or slabs of a stack to label values, in memory that one slab bounds."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seg.errors import ModelError
from seg.preprocess import SeriesNormalisation, read_grey, require_finite, to_grey
from seg.progress import Progress, silent
from seg.runner import InferenceSettings, Runner
from seg.stack import Stack
from seg.tiling import AxisTiles, reflected

if TYPE_CHECKING:
    from torch import Tensor

    from seg.models.bundle import Bundle, ModelSpec

__all__ = ["InferenceSettings", "Slab", "predict_probabilities", "segment"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slab:
    """A finished part of the result.

    Parameters
    ----------
    frame : int
    z_start : int
        First plane; 0 for 2-D frames.
    labels : ndarray of uint8, shape (Y, X) or (Z, Y, X)
        Label values, never 0.
    confidence : ndarray of float16, same shape
        Probability of the class chosen.
    """

    frame: int
    z_start: int
    labels: np.ndarray
    confidence: np.ndarray


def segment(
    stack: Stack,
    bundle: Bundle,
    *,
    settings: InferenceSettings | None = None,
    normalisation: SeriesNormalisation | None = None,
    finished: Collection[tuple[int, int]] = (),
    progress: Progress = silent,
) -> Iterator[Slab]:
    """Label every pixel of a stack, part by part.

    Parameters
    ----------
    stack : Stack
        A lazy one is read part by part.
    bundle : Bundle
        A 2-D model is applied to volumes plane by plane.
    settings : InferenceSettings
    normalisation : SeriesNormalisation or None
        None fits it to the whole stack with the percentiles of the model.
    finished : collection of (int, int)
        ``(frame, z_start)`` of slabs that an earlier call yielded and need not come again. What is computed together
        does not change with it, so that a continued result is the same to the bit; some of these may come again.
    progress : Progress

    Yields
    ------
    Slab
        2-D stacks: one per frame. Volumes: some planes of one frame, in order. Peak memory does not grow with the
        number of frames or slabs.
    """
    settings = settings or InferenceSettings()
    if bundle.spec.dims == 3 and "z" not in stack.axes:
        raise ModelError(
            f"Model {bundle.spec.name!r} needs volumes, but {stack.name!r} has axes {stack.axes!r}; use a 2-D model."
        )
    _check_channels(bundle)
    _warn_of_pixel_size(stack, bundle.spec)
    runner = Runner(bundle, settings)
    if normalisation is None:
        normalisation = SeriesNormalisation.fit(stack, bundle.spec.percentiles)
    slabs = _slabs_of_volumes if bundle.spec.dims == 3 else _slabs_of_planes
    return slabs(stack, runner, normalisation, finished, progress)


def predict_probabilities(
    bundle: Bundle,
    image: np.ndarray,
    settings: InferenceSettings | None = None,
    *,
    normalisation: SeriesNormalisation | None = None,
) -> np.ndarray:
    """Class probabilities of one image that fits in memory.

    Parameters
    ----------
    bundle : Bundle
    image : ndarray, shape ([C,] Y, X), for 3-D models ([C,] Z, Y, X)
        Raw intensities; colour is made grey.
    settings : InferenceSettings
    normalisation : SeriesNormalisation or None
        That of the series the image belongs to; None fits it to the image alone. ``SeriesNormalisation(0, 1)`` takes
        the values as they are.

    Returns
    -------
    ndarray of float32, shape (K, [Z,] Y, X)
        In the order of ``bundle.spec.class_indices``; they add up to 1.
    """
    settings = settings or InferenceSettings()
    _check_channels(bundle)
    dims = bundle.spec.dims
    if image.ndim not in (dims, dims + 1):
        raise ModelError(
            f"Model {bundle.spec.name!r} has {dims} dimensions but the image has shape {image.shape}; "
            f"pass one image of {dims} dimensions, or {dims + 1} with the channels first."
        )
    grey = require_finite(to_grey(image, "czyx"[-image.ndim :] if dims == 3 else "cyx"[-image.ndim :]), "The image")
    if normalisation is None:
        axes = "zyx"[-dims:]
        normalisation = SeriesNormalisation.fit(Stack(grey, axes, name="the image"), bundle.spec.percentiles)
    runner = Runner(bundle, settings)
    tiles = runner.tiles(grey.shape)
    bands = _probability_bands(lambda rows: grey[np.newaxis, rows], 1, tiles, runner, normalisation)
    return np.concatenate([band.numpy()[0] for _, band in bands], axis=1)


# --- from a stack to slabs ------------------------------------------------------------------------------------------


def _slabs_of_planes(
    stack: Stack,
    runner: Runner,
    normalisation: SeriesNormalisation,
    finished: Collection[tuple[int, int]],
    progress: Progress,
) -> Iterator[Slab]:
    """2-D network: frames, or planes of volumes, as many at once as make a batch."""
    shape = stack.spatial_shape[-2:]
    tiles = runner.tiles(shape)
    at_once = max(runner.batch_px // (shape[0] * shape[1]), 1)
    volumes = "z" in stack.axes
    if volumes:
        depth = stack.size("z")
        parts = [
            (t, range(z, min(z + at_once, depth))) for t in range(stack.n_frames) for z in range(0, depth, at_once)
        ]
    else:
        parts = [(t, range(t, min(t + at_once, stack.n_frames))) for t in range(0, stack.n_frames, at_once)]
    for frame, members in progress(parts, total=len(parts), desc=f"segment {stack.name}"):
        if ((frame, members.start) in finished) if volumes else all((t, 0) in finished for t in members):
            continue
        if volumes:
            planes = read_grey(stack, frame, z=slice(members.start, members.stop))
        else:
            planes = np.stack([read_grey(stack, t) for t in members])
        labels = np.empty(planes.shape, np.uint8)
        confidence = np.empty(planes.shape, np.float16)
        read = _rows_of(planes)
        for low, high, *band in _label_bands(read, len(planes), tiles, runner, normalisation):
            labels[:, low:high], confidence[:, low:high] = band
        if volumes:
            yield Slab(frame, members.start, labels, confidence)
        else:
            for n, t in enumerate(members):
                yield Slab(t, 0, labels[n], confidence[n])


def _slabs_of_volumes(
    stack: Stack,
    runner: Runner,
    normalisation: SeriesNormalisation,
    finished: Collection[tuple[int, int]],
    progress: Progress,
) -> Iterator[Slab]:
    """3-D network: slabs along z, each read with its halo."""
    tiles = runner.tiles(stack.spatial_shape)

    def slabs() -> Iterator[Slab]:
        for frame in range(stack.n_frames):
            if all((frame, low) in finished for low, _ in tiles[0].kept):
                continue

            def read(planes: slice, frame: int = frame) -> np.ndarray:
                return read_grey(stack, frame, z=planes)[np.newaxis]

            for low, _, labels, confidence in _label_bands(read, 1, tiles, runner, normalisation):
                yield Slab(frame, low, labels[0], confidence[0])

    yield from progress(slabs(), total=stack.n_frames * len(tiles[0].starts), desc=f"segment {stack.name}")


def _rows_of(planes: np.ndarray) -> Callable[[slice], np.ndarray]:
    return lambda rows: planes[:, rows]


# --- from bands of tiles to labels ----------------------------------------------------------------------------------
# A band is all tiles with the same start along the first spatial axis (y of planes, z of volumes). `read` gives the
# raw values of a range along that axis, shape (N, n, ...): N images are computed together.


def _label_bands(
    read: Callable[[slice], np.ndarray],
    n: int,
    tiles: Sequence[AxisTiles],
    runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield (low, high, labels, confidence) of finished ranges along the first axis, in order."""
    if any(axis.blend for axis in tiles):
        for low, band in _probability_bands(read, n, tiles, runner, normalisation):
            yield low, low + band.shape[2], *runner.decide(band, channel_axis=1)
        return
    rest = tuple(axis.length_px for axis in tiles[1:])
    for index, (low, high) in enumerate(tiles[0].kept):
        labels = np.empty((n, high - low, *rest), np.uint8)
        confidence = np.empty(labels.shape, np.float16)
        for image, place, logits in _tile_logits(read, n, index, tiles, runner, normalisation):
            kept = (image, slice(None), *(slice(*axis.kept[p]) for axis, p in zip(tiles[1:], place, strict=True)))
            probabilities = logits.float().contiguous().softmax(0)
            labels[kept], confidence[kept] = runner.decide(probabilities, channel_axis=0)
        yield low, high, labels, confidence


def _probability_bands(
    read: Callable[[slice], np.ndarray],
    n: int,
    tiles: Sequence[AxisTiles],
    runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (low, probabilities (N, K, n, ...)) of finished ranges; what a later band adds to is carried over."""
    import torch

    rest = tuple(axis.length_px for axis in tiles[1:])
    first = tiles[0]
    carried = None
    for index, (low, high) in enumerate(first.kept):
        total = torch.zeros(n, runner.n_classes, high - low, *rest)
        if carried is not None:
            total[:, :, : carried.shape[2]] = carried
        for image, place, logits in _tile_logits(read, n, index, tiles, runner, normalisation):
            share = logits.float().contiguous().softmax(0).cpu()
            for axis_number, (axis, p) in enumerate(zip(tiles, (index, *place), strict=True)):
                weights = torch.from_numpy(axis.weights[p])
                share *= weights.reshape(-1, *(1,) * (len(tiles) - 1 - axis_number))
            kept = (slice(*axis.kept[p]) for axis, p in zip(tiles[1:], place, strict=True))
            total[(image, slice(None), slice(None), *kept)] += share
        finished = first.kept[index + 1][0] if index + 1 < len(first.starts) else high
        carried = total[:, :, finished - low :].clone()
        yield low, total[:, :, : finished - low]


def _tile_logits(
    read: Callable[[slice], np.ndarray],
    n: int,
    index: int,
    tiles: Sequence[AxisTiles],
    runner: Runner,
    normalisation: SeriesNormalisation,
) -> Iterator[tuple[int, tuple[int, ...], Tensor]]:
    """Yield (image, place along the other axes, logits (K, ...) of what the tile keeps) for all tiles of a band."""
    first, *others = tiles
    rows = _window(first, index)
    if isinstance(rows, slice):
        band = read(rows)
    else:  # mirrored at the end: read what is there, then mirror it in memory
        band = read(slice(int(rows.min()), int(rows.max()) + 1))[:, rows - rows.min()]
    places = itertools.product(*(range(len(axis.starts)) for axis in others))
    work = itertools.product(places, range(n))
    while items := list(itertools.islice(work, runner.tiles_at_once(tiles))):
        batch = np.stack([_cut(band[image], others, place) for place, image in items])
        logits = runner(normalisation.apply(batch)[:, np.newaxis])  # (B, K, ...)
        for (place, image), result in zip(items, logits, strict=True):
            where = zip(tiles, (index, *place), strict=True)
            yield image, place, result[(slice(None), *(axis.inner(p) for axis, p in where))]


def _window(axis: AxisTiles, index: int) -> slice | np.ndarray:
    start = axis.starts[index]
    return reflected(start, start + axis.tile_px, axis.length_px)


def _cut(band: np.ndarray, axes: Sequence[AxisTiles], place: Sequence[int]) -> np.ndarray:
    """One tile of a band, mirrored where it sticks out of the image."""
    for n, (axis, p) in enumerate(zip(axes, place, strict=True), start=1):
        band = band[(slice(None),) * n + (_window(axis, p),)]
    return band


def _check_channels(bundle: Bundle) -> None:
    if bundle.network.in_channels != 1:
        raise ModelError(
            f"Model {bundle.spec.name!r} takes {bundle.network.in_channels} channels; images are given to models as "
            "one grey channel. Train it with in_channels=1."
        )


def _warn_of_pixel_size(stack: Stack, spec: ModelSpec) -> None:
    size = stack.calibration.pixel_size_um.get("x")
    if size is not None and spec.pixel_size_range_um is not None:
        low, high = spec.pixel_size_range_um
        if not low <= size <= high:
            logger.warning(
                "%r has pixels of %g um; model %r was tested from %g to %g um.", stack.name, size, spec.name, low, high
            )
