"""What a metric sees of a whole series: the rows of its frames, its objects and tracks, the current."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from seg.metrics.table import Scale
from seg.tracking import Tracking


@dataclass(frozen=True)
class HalfCycle:
    """Consecutive frames under current of one direction.

    Parameters
    ----------
    kind : str
        ``plating``, ``stripping`` or ``rest``.
    cycle : int
    frames : ndarray of int
        Without the last frame of the half-cycle before, although growth starts from there.
    """

    kind: str
    cycle: int
    frames: np.ndarray


@dataclass(frozen=True)
class History:
    """A measured series.

    Parameters
    ----------
    table : DataFrame
        Rows so far (`seg.metrics.table.to_table`), of all frames and of the groups measured before.
    scale : Scale
    objects : DataFrame
        One row per object and frame.
    tracking : Tracking or None
        Where the analysis follows objects.
    electrochem : DataFrame or None
        One row per frame, as from `seg.electrochem.align_to_frames`.
    object_classes : tuple of str
    signals : DataFrame or None
        Grey values at the sites of newborn objects (`seg.metrics.site_signals`), where births are to be dated by them.
    """

    table: pd.DataFrame
    scale: Scale
    objects: pd.DataFrame = field(default_factory=pd.DataFrame)
    tracking: Tracking | None = None
    electrochem: pd.DataFrame | None = None
    object_classes: tuple[str, ...] = ()
    signals: pd.DataFrame | None = None

    def half_cycles(self) -> Iterator[HalfCycle]:
        """Half-cycles in the order of time; nothing where the current is not known."""
        if self.electrochem is None:
            return
        table = self.electrochem[self.electrochem["half_cycle"].fillna("") != ""]
        if table.empty:
            return
        changes = (table["half_cycle"] != table["half_cycle"].shift()) | (table["cycle"] != table["cycle"].shift())
        changes |= table["frame"].diff() != 1
        for _, part in table.groupby(changes.fillna(True).cumsum()):
            yield HalfCycle(
                str(part["half_cycle"].iloc[0]), int(part["cycle"].fillna(1).iloc[0]), part["frame"].to_numpy(int)
            )  # fmt: skip

    @property
    def conditions(self) -> dict[str, float]:
        """What the cycler says of the experiment, by the name that options of metrics have; empty without area.

        ``current_density_mA_per_cm2``: mean magnitude while plating. ``areal_capacity_mAh_per_cm2``: largest charge
        plated on end.
        """
        found = {}
        if self.electrochem is not None and "current_density_mA_per_cm2" in self.electrochem:
            density = self.electrochem["current_density_mA_per_cm2"][self.electrochem["half_cycle"] == "plating"]
            if density.notna().any():
                found["current_density_mA_per_cm2"] = float(density.abs().mean())
            charge = self.electrochem["areal_capacity_mAh_per_cm2"].dropna().to_numpy(float)
            rise = charge - np.minimum.accumulate(charge)
            if len(rise) and rise.max() > 0:
                found["areal_capacity_mAh_per_cm2"] = float(rise.max())
        return found

    @property
    def kinds(self) -> dict[int, str]:
        """Plating, stripping or rest of each frame where it is known."""
        if self.electrochem is None:
            return {}
        names = self.electrochem["half_cycle"].fillna("")
        return {int(f): str(name) for f, name in zip(self.electrochem["frame"], names, strict=True) if name}
