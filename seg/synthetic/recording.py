"""From views to stacks: labels, instances and images of a scene, frame by frame, made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from seg.stack import Calibration, Stack
from seg.synthetic.experiment import LazyArray
from seg.synthetic.imaging import Instrument, to_uint8
from seg.synthetic.looks import Look, Paint, View

ARTIFACT = 10


def pixel_centers(shape: tuple[int, int], pixel_um: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of pixel centres in µm from the corner of the field, shapes (Y, 1) and (1, X)."""
    y, x = ((np.arange(n) + 0.5) * d for n, d in zip(shape, pixel_um, strict=True))
    return y[:, None], x[None]


def box_around(
    y: float, x: float, reach_um: float, shape: tuple[int, int], pixel_um: tuple[float, float]
) -> tuple[slice, slice]:
    """Pixels within `reach_um` of a point, and two more on each side, as far as they lie in the frame."""
    slices = []
    for at, n, d in zip((y, x), shape, pixel_um, strict=True):
        pad = reach_um + 2 * max(pixel_um)
        slices.append(slice(min(max(int((at - pad) / d), 0), n), min(max(int((at + pad) / d) + 2, 0), n)))
    return slices[0], slices[1]


def share_inside(distance_um: np.ndarray, pixel_um: tuple[float, ...]) -> np.ndarray:
    """Share of each pixel inside a boundary, from the signed distance of its centre (positive inside)."""
    return np.clip(distance_um / float(np.prod(pixel_um)) ** (1 / len(pixel_um)) + 0.5, 0.0, 1.0)


def layered(
    shape: tuple[int, int], ground: int, layers: list[tuple[int, np.ndarray]], pixel_um: tuple[float, float]
) -> View:
    """View of classes laid over each other.

    Parameters
    ----------
    shape : (int, int)
    ground : int
        Class where nothing else is.
    layers : list of (int, ndarray)
        Class and signed distance (µm, positive inside), later ones on top.
    pixel_um : (float, float)
    """
    labels = np.full(shape, ground, np.uint8)
    coverage = {ground: np.ones(shape)}
    for index, distance in layers:
        share = share_inside(distance, pixel_um)
        labels[distance > 0] = index
        for other in coverage:
            coverage[other] = coverage[other] * (1 - share)
        coverage[index] = coverage.get(index, 0) + share
    return View(labels, coverage)


def record(
    view: Callable[[int], View],
    size: tuple[int, int, int],
    calibration: Calibration,
    *,
    seed: int,
    look: Look,
    instrument: Instrument,
    name: str,
    retouch: Callable[[np.ndarray, View, int], np.ndarray] | None = None,
    burnt_in: Callable[[int], np.ndarray] | None = None,
    marks: Mapping[int, np.ndarray] | None = None,
    has_instances: bool = True,
) -> tuple[Stack, Stack, Stack | None]:
    """Images, labels and instances of a scene as lazy stacks.

    Parameters
    ----------
    view : callable
        Frame number -> what is where.
    size : (int, int, int)
        Frames, height, width; one frame gives a single image without a time axis.
    calibration : Calibration
    seed : int
    look : Look
    instrument : Instrument
    name : str
    retouch : callable, optional
        (ideal image, view, frame) -> ideal image with what this scene adds (thickness contrast, a lens).
    burnt_in : callable, optional
        Frame number -> mask of burnt-in pixels; they are labelled ``artifact``.
    marks : mapping, optional
        See `Paint`.
    has_instances : bool
    """
    seen = lru_cache(maxsize=1)(view)
    paint = lru_cache(maxsize=1)(lambda: Paint(look, size[1:], np.random.default_rng([seed, 3]), marks=marks))

    def image(frame: int) -> np.ndarray:
        now = seen(frame)
        ideal = paint()(now)
        if retouch is not None:
            ideal = retouch(ideal, now, frame)
        recorded = instrument.expose(ideal, frame)
        if burnt_in is not None:
            recorded[burnt_in(frame)] = 1.0
        return to_uint8(recorded)

    def labels(frame: int) -> np.ndarray:
        found = seen(frame).labels
        return found if burnt_in is None else np.where(burnt_in(frame), np.uint8(ARTIFACT), found)

    def instances(frame: int) -> np.ndarray:
        found = seen(frame).instances
        assert found is not None
        return found if burnt_in is None else np.where(burnt_in(frame), 0, found)

    def stack(dtype: str, make: Callable[[int], np.ndarray], suffix: str) -> Stack:
        if size[0] == 1:  # a single image has no time axis
            still = Calibration(calibration.pixel_size_um, None, calibration.source)
            return Stack(make(0).astype(dtype), "yx", still, name + suffix)
        return Stack(LazyArray(size, dtype, make), "tyx", calibration, name + suffix)

    return (
        stack("uint8", image, ""),
        stack("uint8", labels, " labels"),
        stack("uint16", instances, " instances") if has_instances else None,
    )
