"""Images with other pixels than a model was trained at: brought to its grid, and its masks brought back.

Planes and volumes are resampled whole, before they are cut into tiles, so that no result depends on the cutting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seg.bands import probability_bands
from seg.errors import ModelError
from seg.preprocess import SeriesNormalisation, resample, resampled_shape
from seg.runner import Runner
from seg.stack import Stack

if TYPE_CHECKING:
    from torch import Tensor

    from seg.models.spec import ModelSpec

LARGEST_ZOOM = 16.0
# Pixels of the input decided at once: their probabilities are all that is held on its grid.
DECIDED_PX = 2**20
_AS_IT_IS = SeriesNormalisation(0.0, 1.0)


@dataclass(frozen=True)
class PixelSizeFit:
    """How the pixels of a stack go with those of a model.

    Parameters
    ----------
    zoom : tuple of float or None
        Magnification of each axis of the network that gives the pixels it was trained at; None: nothing is resampled.
    flags : tuple of str
        ``uncalibrated``: the model states a pixel size, the image none. ``pixel-size-untested``: its pixels are outside
        the range the model was trained on.
    said : str
        The same in words; empty where there is nothing to say.
    """

    zoom: tuple[float, ...] | None = None
    flags: tuple[str, ...] = ()
    said: str = ""


def pixel_size_fit(stack: Stack, spec: ModelSpec) -> PixelSizeFit:
    """Compare the pixel size of a stack with that of a model.

    Parameters
    ----------
    stack : Stack
    spec : ModelSpec

    Raises
    ------
    ModelError
        Where the sizes are more than 16 times apart: then one of them is wrong, or the model of no use.
    """
    axes = "zyx"[-spec.dims :]
    sizes = stack.calibration.spacing_um(axes)
    if sizes is None:
        if spec.pixel_size_um is None:
            return PixelSizeFit()
        return PixelSizeFit(
            None, ("uncalibrated",),
            f"{stack.name!r} has no pixel size, so it is not resampled to the {spec.pixel_size_um:g} um that model "
            f"{spec.name!r} was trained at.",
        )  # fmt: skip
    shown = " x ".join(f"{size:g}" for size in dict.fromkeys(sizes))
    flags, words = (), []
    if spec.pixel_size_range_um is not None:
        low, high = spec.pixel_size_range_um
        if not all(low * 0.98 <= size <= high * 1.02 for size in sizes):
            flags = ("pixel-size-untested",)
            words.append(f"model {spec.name!r} was trained on pixels of {low:g} to {high:g} um")
    zoom = None
    if spec.pixel_size_um is not None:
        zoom = tuple(size / spec.pixel_size_um for size in sizes)
        if max(*zoom, *(1 / z for z in zoom)) > LARGEST_ZOOM:
            raise ModelError(
                f"{stack.name!r} has pixels of {shown} um and model {spec.name!r} was trained at "
                f"{spec.pixel_size_um:g} um, more than {LARGEST_ZOOM:g} times apart. Correct the pixel size "
                "(--pixel-size), or choose another model."
            )
        if all(abs(z - 1) < 0.02 for z in zoom):
            zoom = None
        else:
            words.insert(0, f"resampled to the {spec.pixel_size_um:g} um of model {spec.name!r}")
    said = f"{stack.name!r} has pixels of {shown} um: {'; '.join(words)}." if words else ""
    return PixelSizeFit(zoom, flags, said)


def grid_shape(stack: Stack, zoom: Sequence[float] | None, dims: int) -> tuple[int, ...]:
    """Shape of what a network of `dims` dimensions sees of a stack: a plane, or a volume."""
    shape = stack.spatial_shape[-dims:]
    return shape if zoom is None else resampled_shape(shape, zoom)


def regridded(
    images: np.ndarray, zoom: Sequence[float], runner: Runner, normalisation: SeriesNormalisation
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence on the grid of the images, from a network that sees them at another one.

    Parameters
    ----------
    images : ndarray, shape (N, [Z,] Y, X)
        Raw intensities of what is computed together.
    zoom : sequence of float
        Of every axis but the first.
    runner : Runner
    normalisation : SeriesNormalisation

    Returns
    -------
    labels : ndarray of uint8, shape of `images`
    confidence : ndarray of float16, shape of `images`

    Notes
    -----
    Intensities are normalised, then resampled as in training. Probabilities, not labels, come back: linearly between
    the pixel centres of the network's grid, so that outlines are not stepped where it is the coarser one.
    """
    import torch

    seen = np.stack([resample(normalisation.apply(image), zoom) for image in images])

    def read(rows: slice) -> np.ndarray:
        return seen[:, rows]

    tiles = runner.tiles(seen.shape[1:])
    bands = [band for _, band in probability_bands(read, len(seen), tiles, runner, _AS_IT_IS)]
    shares = torch.cat(bands, dim=2)  # (N, K, ...)
    del bands
    shape = images.shape[1:]
    labels, confidence = np.empty(images.shape, np.uint8), np.empty(images.shape, np.float16)
    step = max(DECIDED_PX // math.prod(shape[1:]), 1)
    for n in range(len(images)):
        for low in range(0, shape[0], step):
            rows = slice(low, min(low + step, shape[0]))
            part = _linear(shares[n], 1, np.arange(rows.start, rows.stop), shape[0])
            for axis, length in enumerate(shape[1:], start=2):
                part = _linear(part, axis, np.arange(length), length)
            labels[n, rows], confidence[n, rows] = runner.decide(part, normalised=True)()
    return labels, confidence


def _linear(values: Tensor, axis: int, wanted: np.ndarray, length: int) -> Tensor:
    """Values along `axis` at the centres of the pixels `wanted`, of `length` that cover the same extent."""
    import torch

    n = values.shape[axis]
    if n == length:
        return values.narrow(axis, int(wanted[0]), len(wanted))
    at = np.clip((wanted + 0.5) * (n / length) - 0.5, 0, n - 1)
    below = np.minimum(at.astype(np.int64), max(n - 2, 0))
    share = torch.from_numpy((at - below).astype(np.float32)).reshape(-1, *(1,) * (values.ndim - 1 - axis))
    low = values.index_select(axis, torch.from_numpy(below))
    high = values.index_select(axis, torch.from_numpy(np.minimum(below + 1, n - 1)))
    return torch.lerp(low, high, share)
