"""Half precision or float32: decided for each input, by comparing both on some crops of it.

Half precision moves the logits by some hundredths. That changes no class where the network is sure of one, and one
pixel in fifty of images that it does not know, which are near ties all over.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.bands import label_bands
from seg.models.device import PRECISIONS, resolve_device, resolve_precision
from seg.preprocess import SeriesNormalisation, read_grey
from seg.regrid import pixel_size_fit, regridded
from seg.runner import InferenceSettings, Runner
from seg.stack import Stack
from seg.strips import label_planes

if TYPE_CHECKING:
    from seg.models.bundle import Bundle

logger = logging.getLogger(__name__)

# Share of the pixels of a crop that half precision may give another class than float32.
LIMIT = 1e-3
# Crops, and their sides by the dimensions of the network: half a second of one core.
CROPS = 3
SIDE_PX = {2: 256, 3: 48}
# An input of fewer pixels than this many times all crops is computed in float32 sooner than compared.
WORTH_COMPARING = 2


@dataclass(frozen=True)
class Precision:
    """The arithmetic for one input, and why.

    Parameters
    ----------
    asked, used : str
        As ``InferenceSettings.precision``; `used` is never ``auto``.
    compared_px : int
        Pixels that were computed in both; 0 where nothing was compared.
    differ : float or None
        Largest share of the pixels of a crop whose class half precision changed.
    """

    asked: str
    used: str
    compared_px: int = 0
    differ: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether half precision is used although it changes more than it may."""
        return self.used != "fp32" and self.differ is not None and self.differ > LIMIT

    @property
    def said(self) -> str:
        """The same in words; empty where there is nothing to say."""
        if self.differ is None or self.differ <= LIMIT:
            return ""
        changes = (
            f"half precision changes the class of up to {100 * self.differ:.2g} % of the pixels "
            f"({self.compared_px} compared)"
        )
        if self.flagged:
            return f"As asked the network computed in {self.used}, but {changes}; --precision auto takes float32."
        return f"The network computed in float32, because {changes}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "said": self.said}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> Precision:
        """What `to_dict` gave; ValueError or KeyError where it cannot be that."""
        differ = saved["differ"]
        if saved["used"] not in PRECISIONS[1:] or not (differ is None or 0 <= float(differ) <= 1):
            raise ValueError(f"no precision: {saved}")
        return cls(str(saved["asked"]), saved["used"], int(saved["compared_px"]), differ and float(differ))


def choose_precision(
    stack: Stack, bundle: Bundle, settings: InferenceSettings, normalisation: SeriesNormalisation
) -> Precision:
    """The arithmetic for a stack; the same stack, model, settings and kind of machine give the same.

    Parameters
    ----------
    stack : Stack
        As the network sees it.
    bundle : Bundle
    settings : InferenceSettings
        ``auto``: half precision where it is faster, unless it changes more than 0.1 % of the pixels of a crop. Half
        precision that is asked for by name is used, and compared all the same.
    normalisation : SeriesNormalisation
    """
    asked, dims = settings.precision, bundle.spec.dims
    half = resolve_precision(asked, resolve_device(settings.device))
    if half == "fp32":
        return Precision(asked, half)
    if asked == "auto" and math.prod((stack.n_frames, *stack.spatial_shape)) <= (
        WORTH_COMPARING * CROPS * SIDE_PX[dims] ** dims
    ):
        return Precision(asked, "fp32")
    found: list[list[np.ndarray]] = []
    crops = crops_of(stack, dims)
    logger.info("%s: %d crops are computed twice, to see whether half precision changes them", stack.name, len(crops))
    for precision in ("fp32", half):  # one after the other: the network is made ready for one of them
        runner = Runner(bundle, replace(settings, precision=precision), aloud=False)
        found.append([_labels(crop, stack, runner, normalisation) for crop in crops])
    shares = [float((one != other).mean()) for one, other in zip(*found, strict=True)]
    differ = max(shares)
    used = "fp32" if asked == "auto" and differ > LIMIT else half
    return Precision(asked, used, sum(crop.size for crop in crops), differ)


def crops_of(stack: Stack, dims: int) -> list[np.ndarray]:
    """Raw values of crops on a diagonal: of the first, the middle and the last frame, or plane of a volume.

    Parameters
    ----------
    stack : Stack
    dims : int
        Of the network.

    Returns
    -------
    list of ndarray, shape ([Z,] Y, X)
    """
    depth = stack.size("z") if "z" in stack.axes else 1
    places = list(itertools.product(range(stack.n_frames), range(depth if dims == 2 else 1)))
    crops = []
    for n, index in enumerate(_spread(len(places), CROPS)):
        frame, z = places[index]
        share = (n + 0.5) / CROPS
        *planes, rows, columns = (_window(length, SIDE_PX[dims], share) for length in stack.spatial_shape[-dims:])
        read = read_grey(stack, frame, z=planes[0] if planes else z if "z" in stack.axes else None, rows=rows)
        crops.append(np.array(read[..., columns]))  # a copy: the frame may go
    return crops


def _spread(length: int, count: int) -> Sequence[int]:
    """`count` numbers below `length` from the first to the last; some repeat where there are fewer."""
    return [round(n * (length - 1) / (count - 1)) for n in range(count)]


def _window(length: int, side: int, share: float) -> slice:
    """`side` pixels (or all) of an axis, `share` of the way along it."""
    start = round(max(length - side, 0) * share)
    return slice(start, min(start + side, length))


def _labels(crop: np.ndarray, stack: Stack, runner: Runner, normalisation: SeriesNormalisation) -> np.ndarray:
    """Labels of one crop, computed as those of the stack are."""
    images, zoom = crop[np.newaxis], pixel_size_fit(stack, runner.spec).zoom
    if zoom is not None:
        return regridded(images, zoom, runner, normalisation)[0]
    if runner.network.dims == 2:
        return label_planes(images, runner, normalisation)[0]
    bands = label_bands(lambda planes: images[:, planes], 1, runner.tiles(crop.shape), runner, normalisation)
    return np.concatenate([labels for _, _, labels, _ in bands], axis=1)
