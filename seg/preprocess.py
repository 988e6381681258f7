"""From raw frames to what a network sees: one grey channel, one intensity scale for the whole series."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seg.errors import DataError
from seg.progress import Progress, silent
from seg.stack import Stack

logger = logging.getLogger(__name__)

LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601, red green blue
SAMPLED_FRAMES = 16
SAMPLED_PLANES = 64
SAMPLED_VALUES = 2_000_000
CLIP = (-0.5, 1.5)


def to_grey(frame: np.ndarray, axes: str | None = None) -> np.ndarray:
    """One channel of a frame: the luminance of colour, the only channel of grey.

    Parameters
    ----------
    frame : ndarray, shape ([C,] [Z,] Y, X)
    axes : str or None
        Axes of `frame`, such as ``"cyx"`` or ``"zyx"``. Without it four dimensions are read as C Z Y X, and three as
        C Y X where the first one has length 1 or 3, else as Z Y X; pass it wherever volumes may be that thin.

    Returns
    -------
    ndarray, shape ([Z,] Y, X)
        Float32 for colour; else the given values, not copied.

    Notes
    -----
    Luminance after Rec. ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    """
    if axes is None:
        axes = {2: "yx", 3: "cyx" if frame.shape[0] in (1, 3) else "zyx", 4: "czyx"}.get(frame.ndim, "")
    if len(axes) != frame.ndim or axes not in ("yx", "zyx", "cyx", "czyx"):
        raise DataError(f"A frame of shape {frame.shape} cannot have axes {axes!r}; expected ([c,] [z,] y, x).")
    if "c" not in axes:
        return frame
    if frame.shape[0] == 1:
        return frame[0]
    if frame.shape[0] != len(LUMINANCE):
        raise DataError(
            f"A frame has {frame.shape[0]} channels; expected 1 (grey) or 3 (red, green, blue). "
            "Choose one channel, or drop the transparency, before opening it."
        )
    grey = np.zeros(frame.shape[1:], np.float32)
    for weight, channel in zip(LUMINANCE, frame, strict=True):
        grey += np.float32(weight) * channel.astype(np.float32, copy=False)
    return grey


def require_finite(values: np.ndarray, where: str) -> np.ndarray:
    """Return `values`; DataError when any of them is NaN or infinite. `where` names them in the message."""
    if np.issubdtype(values.dtype, np.floating):
        bad = values.size - int(np.isfinite(values).sum())
        if bad:
            raise DataError(
                f"{where} holds {bad} NaN or infinite value(s) of {values.size}; replace them, or crop them away."
            )
    return values


@dataclass(frozen=True)
class SeriesNormalisation:
    """The linear map from raw intensity to 0..1 that all frames of a series share.

    One map for the series keeps growth of bright area from being normalised away frame by frame.

    Parameters
    ----------
    low, high : float
        Raw values that become 0 and 1. Equal ones mark a constant series, which becomes 0 everywhere.
    """

    low: float
    high: float

    @classmethod
    def fit(
        cls, stack: Stack, percentiles: Sequence[float] = (0.5, 99.5), *, progress: Progress = silent
    ) -> SeriesNormalisation:
        """Percentiles of a bounded sample spread over the whole series; the same stack gives the same numbers.

        Parameters
        ----------
        stack : Stack
        percentiles : (float, float)
            Between 0 and 100.
        progress : Progress

        Notes
        -----
        At most 16 frames, and of volumes at most 64 planes in all, evenly spread with the first and the last among
        them, and of those every n-th pixel so that some 2 million values remain: for independent pixels the rank of
        the 99.5th percentile is then known to 0.005 percentage points.
        """
        low, high = percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles are {low}, {high}; expected 0 <= low < high <= 100.")
        frames = _spread(stack.n_frames, SAMPLED_FRAMES)
        planes = _spread(stack.size("z"), max(SAMPLED_PLANES // len(frames), 1)) if "z" in stack.axes else [None]
        values_per_plane = max(SAMPLED_VALUES // (len(frames) * len(planes)), 1)
        sample = []
        for frame in progress(frames, total=len(frames), desc=f"intensity of {stack.name}"):
            for z in planes:
                plane = read_grey(stack, frame, z=z)
                # An odd stride, coprime to most widths, so that the sample does not follow columns.
                stride = max(plane.size // values_per_plane, 1) | 1
                sample.append(plane.ravel()[::stride].astype(np.float64))
        lower, upper = (float(v) for v in np.percentile(np.concatenate(sample), (low, high)))
        if lower == upper:
            # Few bright pixels on a constant ground: the percentiles meet though the series is not constant.
            lower, upper = min(float(s.min()) for s in sample), max(float(s.max()) for s in sample)
            if lower < upper:
                logger.warning(
                    "%r: percentiles %g and %g are equal; normalised by the extremes.", stack.name, low, high
                )
        if lower == upper:
            logger.warning("%r is constant: all sampled values are %g, so every frame is blank.", stack.name, lower)
        return cls(lower, upper)

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Float32 of the shape of `frame`: 0..1 between `low` and `high`, clipped to -0.5..1.5."""
        span = self.high - self.low
        if span == 0:
            return np.zeros(frame.shape, np.float32)
        # In float64 where float32 could not tell neighbouring raw values apart (32-bit integers, doubles).
        scaled = np.subtract(frame, self.low, dtype=np.result_type(frame.dtype, np.float32))
        scaled /= span
        return np.clip(scaled, *CLIP, out=scaled).astype(np.float32, copy=False)


def resampled_shape(shape: Sequence[int], zoom: Sequence[float]) -> tuple[int, ...]:
    """Shape after `resample`: at least one pixel along every axis."""
    return tuple(max(round(n * z), 1) for n, z in zip(shape, zoom, strict=True))


def resample(image: np.ndarray, zoom: Sequence[float]) -> np.ndarray:
    """An image with more or fewer pixels over the same extent, linearly between pixel centres.

    Parameters
    ----------
    image : ndarray, shape ([Z,] Y, X)
    zoom : sequence of float
        Magnification of each axis.

    Returns
    -------
    ndarray of float32, shape `resampled_shape`

    Notes
    -----
    Where an axis shrinks, a Gaussian of half of ``1 / zoom - 1`` px comes first: what is finer than the new pixels
    would fold back as structure.
    """
    from scipy import ndimage  # a tenth of a second that reading and measuring need not wait for

    smooth = image.astype(np.float32)
    if min(zoom) < 1:
        smooth = ndimage.gaussian_filter(smooth, [0.5 * max(1 / z - 1, 0) for z in zoom])
    shape = resampled_shape(image.shape, zoom)
    exact = [new / old for new, old in zip(shape, image.shape, strict=True)]
    return ndimage.zoom(smooth, exact, order=1, grid_mode=True, mode="nearest")


def read_grey(stack: Stack, frame: int, *, z: int | slice | None = None, rows: slice = slice(None)) -> np.ndarray:
    """One channel of a part of a frame, checked for NaN: only that part is read from a lazy stack.

    Parameters
    ----------
    stack : Stack
    frame : int
    z : int, slice or None
        Plane or planes of a volume; None takes all.
    rows : slice
        Part of the y axis.

    Returns
    -------
    ndarray, shape ([Z,] Y, X)
        In the type of the file, or float32 where it is in colour.
    """
    wanted = {"t": frame, "z": slice(None) if z is None else z, "y": rows}
    index = tuple(wanted.get(axis, slice(None)) for axis in stack.axes)
    axes = "".join(axis for axis in stack.axes if not isinstance(wanted.get(axis), int))
    part = np.asarray(stack.data[index])
    return require_finite(to_grey(part, axes), f"Frame {frame} of {stack.name!r}")


def _spread(length: int, count: int) -> list[int]:
    """At most `count` indices over 0..length-1, evenly spread, ends included."""
    return sorted({int(i) for i in np.linspace(0, length - 1, min(count, length)).round()})
