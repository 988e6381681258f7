"""The tiling engine: frames or slabs of a stack to label values, in memory that one slab bounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seg.bands import label_bands, probability_bands
from seg.errors import ModelError, SegError
from seg.overlap import ahead
from seg.precision import choose_precision
from seg.preprocess import SeriesNormalisation, read_grey, require_finite, to_grey
from seg.progress import Progress, silent
from seg.regrid import grid_shape, pixel_size_fit, regridded
from seg.runner import InferenceSettings, Runner
from seg.stack import Stack
from seg.strips import label_planes, label_volume

if TYPE_CHECKING:
    from seg.models.bundle import Bundle

__all__ = ["InferenceSettings", "Part", "Slab", "parts_of", "predict_probabilities", "segment"]

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


@dataclass(frozen=True)
class Part:
    """What is computed together, and can be computed without the other parts.

    Parameters
    ----------
    frame : int
        First frame.
    members : range
        Frames of a 2-D series, planes of a volume under a 2-D network; under a 3-D network planes where it takes
        strips, else the number of one band of tiles.
    places : tuple of (int, int)
        ``(frame, z_start)`` of the slabs it gives.
    planes : int
        Planes of Y x X pixels that it labels.
    """

    frame: int
    members: range
    places: tuple[tuple[int, int], ...]
    planes: int


def segment(
    stack: Stack,
    bundle: Bundle,
    *,
    settings: InferenceSettings | None = None,
    normalisation: SeriesNormalisation | None = None,
    finished: Collection[tuple[int, int]] = (),
    only: Collection[Part] | None = None,
    runner: Runner | None = None,
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
    only : collection of Part or None
        Those of `parts_of` to compute, for work shared between processes; None: all. A precision of ``auto`` is decided
        by the whole stack: decide it once (`seg.precision`) where several processes share a stack.
    runner : Runner or None
        One of `bundle` and `settings`, for what it can tell afterwards; None makes one.
    progress : Progress

    Yields
    ------
    Slab
        2-D stacks: one per frame. Volumes: some planes of one frame, in order. Peak memory does not grow with the
        number of frames or slabs.

    Notes
    -----
    Where model and stack both state a pixel size and these differ, the network sees the stack resampled to that of the
    model (`seg.regrid`); the slabs are on the grid of the stack all the same. A 3-D network then takes a frame whole.
    """
    settings = settings or InferenceSettings()
    check_fits(stack, bundle)
    fit = pixel_size_fit(stack, bundle.spec)
    if fit.said:
        (logger.warning if fit.flags else logger.info)("%s", fit.said)
    if normalisation is None:
        normalisation = SeriesNormalisation.fit(stack, bundle.spec.percentiles)
    runner = runner or Runner(bundle, _with_precision(settings, stack, bundle, normalisation))
    wanted = parts_of(stack, runner)
    if only is not None:
        # Bands of tiles are those of this device; frames and planes can be computed wherever they were put together.
        if bundle.spec.dims == 3 and not set(only) <= set(wanted):
            raise SegError(
                f"{stack.name!r} was divided for another device than {runner.device} here, which cuts other tiles; "
                "pass --device cpu, or start from a machine like the workers."
            )
        wanted = list(only)
    wanted = [part for part in wanted if not all(place in finished for place in part.places)]
    slabs = _slabs_of_volumes if bundle.spec.dims == 3 else _slabs_of_planes
    return slabs(stack, runner, normalisation, wanted, progress)


def parts_of(stack: Stack, runner: Runner) -> list[Part]:
    """What a stack is divided into; the same stack, model and settings give the same parts.

    Parameters
    ----------
    stack : Stack
    runner : Runner
    """
    zoom = pixel_size_fit(stack, runner.spec).zoom
    if runner.network.dims == 3 and zoom is not None:  # resampled whole
        depth = stack.size("z")
        return [Part(t, range(depth), ((t, 0),), depth) for t in range(stack.n_frames)]
    strips = runner.strips(stack.spatial_shape) if runner.network.dims == 3 else None
    if strips is not None:
        depth, thick = stack.size("z"), strips.part_px
        parts = [range(z, min(z + thick, depth)) for z in range(0, depth, thick)]
        places = [tuple(range(zs.start, zs.stop, strips.slab_px)) for zs in parts]
        return [
            Part(t, zs, tuple((t, z) for z in starts), len(zs))
            for t in range(stack.n_frames)
            for zs, starts in zip(parts, places, strict=True)
        ]
    if runner.network.dims == 3:
        kept = runner.tiles(stack.spatial_shape)[0].kept
        # A band that is blended ends where the next one starts.
        ends = [*(low for low, _ in kept[1:]), kept[-1][1]]
        return [
            Part(t, range(n, n + 1), ((t, low),), end - low)
            for t in range(stack.n_frames)
            for n, ((low, _), end) in enumerate(zip(kept, ends, strict=True))
        ]
    at_once = max(runner.batch_px // max(math.prod(grid_shape(stack, zoom, 2)), math.prod(stack.spatial_shape[-2:])), 1)
    if "z" in stack.axes:
        depth = stack.size("z")
        planes = [range(z, min(z + at_once, depth)) for z in range(0, depth, at_once)]
        return [Part(t, zs, ((t, zs.start),), len(zs)) for t in range(stack.n_frames) for zs in planes]
    frames = [range(t, min(t + at_once, stack.n_frames)) for t in range(0, stack.n_frames, at_once)]
    return [Part(ts.start, ts, tuple((t, 0) for t in ts), len(ts)) for ts in frames]


def check_fits(stack: Stack, bundle: Bundle) -> None:
    """ModelError unless the model can be applied to the stack."""
    if bundle.spec.dims == 3 and "z" not in stack.axes:
        raise ModelError(
            f"Model {bundle.spec.name!r} needs volumes, but {stack.name!r} has axes {stack.axes!r}; use a 2-D model."
        )
    _check_channels(bundle)


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
    seen = Stack(grey, "zyx"[-dims:], name="the image")
    runner = Runner(bundle, _with_precision(settings, seen, bundle, normalisation))
    tiles = runner.tiles(grey.shape)
    bands = probability_bands(lambda rows: grey[np.newaxis, rows], 1, tiles, runner, normalisation)
    return np.concatenate([band.numpy()[0] for _, band in bands], axis=1)


def _with_precision(
    settings: InferenceSettings, stack: Stack, bundle: Bundle, normalisation: SeriesNormalisation
) -> InferenceSettings:  # fmt: skip
    """The settings with the arithmetic that ``auto`` stands for here; what was decided elsewhere stays."""
    if settings.precision != "auto":
        return settings
    chosen = choose_precision(stack, bundle, settings, normalisation)
    if chosen.said:
        logger.info("%s: %s", stack.name, chosen.said)
    return replace(settings, precision=chosen.used)


# --- from a stack to slabs ------------------------------------------------------------------------------------------


def _slabs_of_planes(
    stack: Stack, runner: Runner, normalisation: SeriesNormalisation, parts: Sequence[Part], progress: Progress
) -> Iterator[Slab]:
    """2-D network: frames, or planes of volumes, as many at once as make a batch; the next ones are read meanwhile."""
    zoom = pixel_size_fit(stack, runner.spec).zoom
    volumes = "z" in stack.axes

    def read() -> Iterator[tuple[Part, np.ndarray]]:
        for part in parts:
            if volumes:
                yield part, read_grey(stack, part.frame, z=slice(part.members.start, part.members.stop))
            else:
                yield part, np.stack([read_grey(stack, t) for t in part.members])

    for part, planes in progress(ahead(read()), total=len(parts), desc=f"segment {stack.name}"):
        if zoom is not None:
            labels, confidence = regridded(planes, zoom, runner, normalisation)
        else:
            labels, confidence = label_planes(planes, runner, normalisation)
        if volumes:
            yield Slab(*part.places[0], labels, confidence)
        else:
            for n, place in enumerate(part.places):
                yield Slab(*place, labels[n], confidence[n])


def _slabs_of_volumes(
    stack: Stack, runner: Runner, normalisation: SeriesNormalisation, parts: Sequence[Part], progress: Progress
) -> Iterator[Slab]:
    """3-D network: slabs along z, on a CPU from the first plane to the last, else each read with its halo."""
    zoom, shape = pixel_size_fit(stack, runner.spec).zoom, stack.spatial_shape
    strips = None if zoom is not None else runner.strips(shape)
    tiles = () if zoom is not None or strips is not None else runner.tiles(shape)

    def slabs() -> Iterator[Slab]:
        if zoom is not None:
            for part in parts:
                labels, confidence = regridded(read_grey(stack, part.frame)[np.newaxis], zoom, runner, normalisation)
                yield Slab(part.frame, 0, labels[0], confidence[0])
            return
        for frame, members in _runs(parts):

            def read(planes: slice, frame: int = frame) -> np.ndarray:
                return read_grey(stack, frame, z=planes)

            if strips is not None:
                for low, labels, confidence in label_volume(read, shape, members, runner, normalisation):
                    yield Slab(frame, low, labels, confidence)
                continue
            found = label_bands(
                lambda planes, read=read: read(planes)[np.newaxis], 1, tiles, runner, normalisation, members
            )
            for low, _, labels, confidence in found:
                yield Slab(frame, low, labels[0], confidence[0])

    yield from progress(slabs(), total=sum(len(part.places) for part in parts), desc=f"segment {stack.name}")


def _runs(parts: Sequence[Part]) -> Iterator[tuple[int, range]]:
    """Parts of one frame that follow each other, as (frame, their members)."""
    start = 0
    for n, part in enumerate(parts):
        following = parts[n + 1] if n + 1 < len(parts) else None
        if following is None or (following.frame, following.members.start) != (part.frame, part.members.stop):
            yield part.frame, range(parts[start].members.start, part.members.stop)
            start = n + 1


def _check_channels(bundle: Bundle) -> None:
    if bundle.network.in_channels != 1:
        raise ModelError(
            f"Model {bundle.spec.name!r} takes {bundle.network.in_channels} channels; images are given to models as "
            "one grey channel. Train it with in_channels=1."
        )
