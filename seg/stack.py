"""A stack is an image series or volume whose axes, pixel size and frame times are known or known to be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.errors import CalibrationError, DataError

if TYPE_CHECKING:
    import xarray

AXES = "tczyx"
SPATIAL_AXES = "zyx"
# A pixel size known worse than this is not known: its error is no longer a small one.
MAX_PIXEL_SIZE_REL_SD = 0.5


@dataclass(frozen=True)
class Calibration:
    """Pixel size and frame times, and where they were found.

    Parameters
    ----------
    pixel_size_um : mapping of str to float
        Pixel size in µm of each spatial axis that is known, keys among ``"z", "y", "x"``. Empty: uncalibrated,
        which is a state of its own and never the same as 1 µm.
    frame_times_s : tuple of float or None
        Time of each frame in seconds, non-decreasing; None when unknown.
    source : str
        Where the values come from: ``"file"``, ``"sidecar"``, ``"options"``, ``"none"``.
    pixel_size_rel_sd : float or None
        Standard deviation of the pixel size as a share of it, by a factor common to all axes; None: not known.
    """

    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    frame_times_s: tuple[float, ...] | None = None
    source: str = "none"
    pixel_size_rel_sd: float | None = None

    def __post_init__(self) -> None:
        doubt = self.pixel_size_rel_sd
        if doubt is not None and not 0 <= doubt <= MAX_PIXEL_SIZE_REL_SD:
            raise CalibrationError(
                f"The relative standard deviation of the pixel size is {doubt!r}; expected a share from 0 to "
                f"{MAX_PIXEL_SIZE_REL_SD:g}, such as 0.02 for 2 %."
            )
        for axis, size in self.pixel_size_um.items():
            if axis not in SPATIAL_AXES or len(axis) != 1:
                raise CalibrationError(f"Pixel size given for axis {axis!r}; only z, y and x have one.")
            if not (math.isfinite(size) and size > 0):
                raise CalibrationError(f"Pixel size of axis {axis!r} is {size!r}; expected a positive number of µm.")
        times = self.frame_times_s
        if times is not None:
            if not all(math.isfinite(t) for t in times):
                raise CalibrationError(
                    "Frame times hold NaN or infinity; give a finite time in seconds for each frame."
                )
            if any(b < a for a, b in zip(times, times[1:], strict=False)):
                raise CalibrationError("Frame times go backwards; sort the frames or correct the times.")

    def spacing_um(self, spatial_axes: str) -> tuple[float, ...] | None:
        """Pixel size in the order of `spatial_axes`, or None where any of them is unknown."""
        if not all(axis in self.pixel_size_um for axis in spatial_axes):
            return None
        return tuple(float(self.pixel_size_um[axis]) for axis in spatial_axes)

    def updated(self, other: Calibration) -> Calibration:
        """These values with those of `other` put over them, axis by axis."""
        doubt = other.pixel_size_rel_sd
        if not other.pixel_size_um:  # another pixel size has an uncertainty of its own, or none that is known
            doubt = self.pixel_size_rel_sd if doubt is None else doubt
            if other.frame_times_s is None:
                return replace(self, pixel_size_rel_sd=doubt) if doubt != self.pixel_size_rel_sd else self
        return Calibration(
            {**self.pixel_size_um, **other.pixel_size_um},
            other.frame_times_s if other.frame_times_s is not None else self.frame_times_s,
            other.source,
            doubt,
        )


@dataclass(frozen=True)
class Stack:
    """An image series or volume with named axes.

    Parameters
    ----------
    data : array-like with ``shape``, ``dtype`` and numpy indexing
        numpy array, memory map, zarr array or any lazy equivalent.
    axes : str
        A subset of ``"tczyx"`` in that order, one letter per dimension, with at least ``y`` and ``x``.
    calibration : Calibration
    name : str
        What messages and tables call it.
    source : Path or None
        The file or folder it was read from.
    metadata : mapping
        Whatever else the file said (instrument, notes); never needed for a number.
    """

    data: Any
    axes: str
    calibration: Calibration = field(default_factory=Calibration)
    name: str = "stack"
    source: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = "".join(axis for axis in AXES if axis in self.axes)
        if self.axes != expected or not self.axes.endswith("yx"):
            raise DataError(
                f"{self.name!r} has axes {self.axes!r}; expected some of t c z y x in that order, ending in yx."
            )
        if len(self.data.shape) != len(self.axes):
            raise DataError(
                f"{self.name!r} has {len(self.data.shape)} dimensions {tuple(self.data.shape)} "
                f"but axes {self.axes!r}; name one letter of tczyx per dimension with --axes."
            )
        if any(size == 0 for size in self.data.shape):
            raise DataError(f"{self.name!r} is empty: its shape is {tuple(self.data.shape)}.")
        times = self.calibration.frame_times_s
        if times is not None and len(times) != self.n_frames:
            raise CalibrationError(
                f"{self.name!r} has {self.n_frames} frame(s) but {len(times)} frame time(s); give one time per frame."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the data, in axis order."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def dtype(self) -> np.dtype:
        """Data type of the pixels."""
        return np.dtype(self.data.dtype)

    def size(self, axis: str) -> int:
        """Length along `axis`; 1 where the stack does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def n_frames(self) -> int:
        """Number of time points; 1 for a single image or volume."""
        return self.size("t")

    @property
    def spatial_axes(self) -> str:
        """``"yx"`` or ``"zyx"``."""
        return "zyx" if "z" in self.axes else "yx"

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape along the spatial axes."""
        return tuple(self.size(axis) for axis in self.spatial_axes)

    @property
    def spacing_um(self) -> tuple[float, ...] | None:
        """Pixel size in µm in the order of `spatial_axes`; None: uncalibrated."""
        return self.calibration.spacing_um(self.spatial_axes)

    @property
    def frame_times_s(self) -> tuple[float, ...] | None:
        """Time of each frame in seconds, or None."""
        return self.calibration.frame_times_s

    def frame(self, index: int) -> np.ndarray:
        """One time point as an array in memory, shape ([C,] [Z,] Y, X)."""
        if not 0 <= index < self.n_frames:
            raise IndexError(f"{self.name!r} has {self.n_frames} frame(s); frame {index} does not exist.")
        return np.asarray(self.data[index] if "t" in self.axes else self.data[...])

    def with_calibration(self, calibration: Calibration) -> Stack:
        """The same pixels under another calibration."""
        return replace(self, calibration=calibration)

    def to_xarray(self) -> xarray.DataArray:
        """The stack as an ``xarray.DataArray`` with coordinates in µm and s where they are known."""
        try:
            import xarray
        except ImportError as error:
            raise ImportError("Stack.to_xarray needs xarray: pip install xarray") from error
        coords: dict[str, Any] = {}
        for axis in self.spatial_axes:
            if axis in self.calibration.pixel_size_um:
                values = np.arange(self.size(axis)) * self.calibration.pixel_size_um[axis]
                coords[axis] = (axis, values, {"units": "um"})
        if self.frame_times_s is not None and "t" in self.axes:
            coords["t"] = ("t", np.asarray(self.frame_times_s), {"units": "s"})
        return xarray.DataArray(self.data, dims=tuple(self.axes), coords=coords, name=self.name)
