"""The table of results: one row per number, with its unit, its interval and the reasons to doubt it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from seg.stack import Stack

COLUMNS = (
    "metric", "value", "low", "high", "unit", "class", "frame", "time_s", "object_id", "side", "n", "method", "flags",
)  # fmt: skip

FLAGS = (
    "uncalibrated", "few-pixels", "below-detection-limit", "touches-border", "low-confidence", "no-credible-baseline",
    "faceted-contact", "overlapping", "no-current", "regime-not-reached", "single-frame", "artifact-frame",
    "ambiguous", "extrapolated",
)  # fmt: skip

# What a unit of calibrated data becomes where the pixel size (or the frame time) is unknown.
_IN_PIXELS = {
    "um": "px", "um2": "px2", "um3": "px3", "1/um": "1/px", "1/um3": "1/px3", "1/cm2": "1/px2",
}  # fmt: skip

UM2_PER_CM2 = 1e8


@dataclass(frozen=True)
class Measurement:
    """One number: a row of ``metrics.csv``.

    ``value`` is NaN where it cannot be trusted (the flags say why); ``low`` and ``high`` bound a 95 % interval and
    are NaN where none is known.
    """

    metric: str
    value: float
    unit: str
    low: float = math.nan
    high: float = math.nan
    class_name: str = ""
    frame: int | None = None
    time_s: float | None = None
    object_id: int | None = None
    side: str = ""
    n: int | None = None
    method: str = ""
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [flag for flag in self.flags if flag not in FLAGS]
        if unknown:
            raise ValueError(f"{self.metric}: flag(s) {unknown} are not in the contract; use one of {FLAGS}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the number is of."""
        return tuple(name for name in self.class_name.replace(";", "+").split("+") if name)

    def row(self) -> tuple[object, ...]:
        """The values in the order of `COLUMNS`."""
        return (
            self.metric, self.value, self.low, self.high, self.unit, self.class_name, self.frame, self.time_s,
            self.object_id, self.side, self.n, self.method, ";".join(dict.fromkeys(self.flags)),
        )  # fmt: skip


def to_table(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """The rows as a DataFrame with the columns of ``metrics.csv``."""
    table = pd.DataFrame([m.row() for m in measurements], columns=list(COLUMNS))
    return table.astype(
        {
            "value": float, "low": float, "high": float, "time_s": float,
            "frame": "Int64", "object_id": "Int64", "n": "Int64",
        }
    )  # fmt: skip


TEXT_COLUMNS = ("metric", "unit", "class", "side", "method", "flags")


def read_table(path: Path | str) -> pd.DataFrame:
    """Read ``metrics.csv`` as `to_table` made it: text that is absent is empty, not NaN."""
    table = pd.read_csv(path, dtype={**dict.fromkeys(TEXT_COLUMNS, str), "frame": "Int64", "object_id": "Int64"})
    return table.fillna(dict.fromkeys(TEXT_COLUMNS, ""))


@dataclass(frozen=True)
class Scale:
    """Pixel size for measuring, or the honest lack of it.

    Parameters
    ----------
    spacing : tuple of float
        Pixel size along each spatial axis, in axis order: µm when `calibrated`, else 1 px.
    calibrated : bool
    """

    spacing: tuple[float, ...]
    calibrated: bool = True

    @classmethod
    def of(cls, stack: Stack) -> Scale:
        """The scale of a stack; pixels where it is uncalibrated."""
        spacing = stack.spacing_um
        if spacing is None:
            return cls((1.0,) * len(stack.spatial_axes), calibrated=False)
        return cls(spacing)

    @property
    def pixel(self) -> float:
        """Area (2-D) or volume (3-D) of one pixel."""
        return math.prod(self.spacing)

    @property
    def flags(self) -> tuple[str, ...]:
        """``("uncalibrated",)`` or nothing."""
        return () if self.calibrated else ("uncalibrated",)

    def unit(self, unit: str) -> str:
        """`unit` where the scale is calibrated, else its pixel form (``um2`` becomes ``px2``)."""
        return unit if self.calibrated else _IN_PIXELS.get(unit, unit)

    def density_per_area(self, count: float, area: float) -> float:
        """Count per area: 1/cm2 where calibrated, else 1/px2; NaN for no area."""
        if area <= 0:
            return math.nan
        return count / area * (UM2_PER_CM2 if self.calibrated else 1.0)


def rate_unit(unit: str, *, timed: bool) -> str:
    """Unit of a rate of a quantity in `unit`: per second, or per frame where frame times are unknown."""
    return f"{unit}/s" if timed else f"{unit}/frame"
