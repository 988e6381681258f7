"""Metal in the image against charge in the cell: volume per charge, porosity, efficiency, losses at rest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from seg.electrochem.theory import faraday_thickness_um
from seg.metrics.columns import axis_index, scan_columns, unresolved
from seg.metrics.frame import Frame
from seg.metrics.history import History
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement
from seg.uncertainty import combine_intervals

METAL = ("deposit", "dendrite", "dead_lithium")
# A ratio to less than this share of the largest charge of the series says more about noise than about the deposit.
MIN_CHARGE_SHARE = 0.05
SECONDS_PER_HOUR = 3600.0


def measure_frame(
    frame: Frame,
    *,
    metal_classes: Sequence[str] = METAL,
    base_classes: Sequence[str] = ("substrate",),
    thickness_axis: str | None = None,
) -> list[Measurement]:
    """Volume of all metal, dead or alive, its amount per base, and the porosity of the layer it makes.

    Parameters
    ----------
    frame : Frame
    metal_classes : sequence of str
        All that the charge has deposited, dead metal with it.
    base_classes : sequence of str
    thickness_axis : str or None
        Across the layer: ``z``, ``y`` or ``x``. None: z in a volume; in 2-D nothing is known, for only a profile
        shows an amount: NaN with ``ambiguous``.

    Returns
    -------
    list of Measurement
        ``deposit_volume`` (3-D), ``mean_thickness`` (metal per base) and ``imaged_porosity``: what is not metal
        between the first and the last metal of each column. Without metal the porosity is NaN with ``ambiguous``.
    """
    axis = axis_index(frame, thickness_axis, "balance")
    scale, ndim = frame.scale, len(frame.labels.shape)
    row = partial(Measurement, class_name=_class_name(metal_classes), frame=frame.index, time_s=frame.time_s)
    if axis is None:
        why = "2-D: an amount of metal shows in a profile only, whose thickness_axis must be given"
        return [row("mean_thickness", math.nan, scale.unit("um"), flags=(*scale.flags, "ambiguous"), method=why)]
    columns = scan_columns(frame, metal_classes, axis, base_classes=base_classes)
    pixels, edge = columns.pixels, columns.edge_pixels
    ends = (max(pixels - edge, 0.0), pixels + edge)
    rows = []
    if ndim == 3:
        rows.append(
            row("deposit_volume", pixels * scale.pixel, scale.unit("um3"), *(e * scale.pixel for e in ends), n=pixels,
                flags=scale.flags, method="voxels; interval: mask edge +-0.5 px")
        )  # fmt: skip
    per_column = columns.step / columns.n_valid if columns.n_valid else math.nan
    rows.append(
        row("mean_thickness", pixels * per_column, scale.unit("um"), *(e * per_column for e in ends),
            n=columns.n_valid, flags=scale.flags,
            method=f"metal per base across {'zyx'[-ndim:][axis]}; interval: mask edge +-0.5 px")
    )  # fmt: skip
    porosity, low, high = columns.porosity
    rows.append(
        row("imaged_porosity", porosity, "1", low, high, n=len(columns.extents),
            flags=(*scale.flags, *(unresolved(columns) if pixels else ("ambiguous",))),
            method="empty between the first and last metal of each column; interval: edge of the pores +-0.5 px, blur")
    )  # fmt: skip
    return rows


@dataclass(frozen=True)
class Curve:
    """A number of each frame with its bounds; the index is the frame."""

    value: pd.Series
    low: pd.Series
    high: pd.Series
    time_s: pd.Series
    unit: str

    @classmethod
    def of(cls, table: pd.DataFrame, metric: str, class_name: str) -> Curve:
        """The rows of one metric and class for whole frames, those without a value left out."""
        rows = table[(table["metric"] == metric) & (table["class"] == class_name) & table["frame"].notna()]
        rows = rows[rows["object_id"].isna() & rows["value"].notna() & (rows["side"] == "")]
        rows = rows.assign(frame=rows["frame"].astype(int)).drop_duplicates("frame").set_index("frame").sort_index()
        unit = str(rows["unit"].iloc[0]) if len(rows) else ""
        return cls(rows["value"], rows["low"], rows["high"], rows["time_s"], unit)

    def change(self, start: int, end: int) -> tuple[float, float, float]:
        """Difference of two frames with its bounds; the errors of their outlines are taken to be independent."""
        value = float(self.value[end] - self.value[start])
        errors = ((self.low[start], self.high[start]), (self.low[end], self.high[end]))
        half = [((low - self.value[f]), (high - self.value[f])) for f, (low, high) in zip((start, end), errors,
                                                                                         strict=True)]  # fmt: skip
        low, high = combine_intervals(
            value, (value + half[1][0], value + half[1][1]), (value - half[0][1], value - half[0][0])
        )
        return value, low, high

    def time(self, frame: int) -> float | None:
        """Time of a frame; None where unknown."""
        time_s = float(self.time_s[frame])
        return time_s if math.isfinite(time_s) else None


def measure_whole(
    history: History,
    *,
    metal_classes: Sequence[str] = METAL,
    areal_capacity_mAh_per_cm2: float | None = None,
    at_rest: bool = False,
) -> list[Measurement]:
    """Compare the metal in the images with the charge, cycle by cycle.

    Parameters
    ----------
    history : History
    metal_classes : sequence of str
    areal_capacity_mAh_per_cm2 : float or None
        Plated in all, where there is no cycler file (an electrode imaged once, after plating).
    at_rest : bool
        No current flows in this series; for series without a cycler file.

    Returns
    -------
    list of Measurement
        ``expected_volume`` (3-D): what the charge since the first frame deposits, 4.85 um per mAh/cm2, on the area of
        the field; ``volume_charge_ratio``: imaged over expected change, by frame, and for the series at the largest
        charge. ``imaging_efficiency`` of each cycle: share of the volume gained in plating that is gone after
        stripping, and their median for the series. ``rest_shrinkage_rate`` of each rest: slope of the volume (3-D)
        against time; positive for a loss.

    Notes
    -----
    The field must stand for the electrode, and all metal in it must be seen. Without the area of the electrode no
    charge per area is known: NaN with ``no-current``.
    """
    name = _class_name(metal_classes)
    thickness = Curve.of(history.table, "mean_thickness", name)
    volume = Curve.of(history.table, "deposit_volume", name)
    if thickness.value.empty:
        return []
    row = partial(Measurement, class_name=name)
    rows = _against_charge(history, thickness, volume, areal_capacity_mAh_per_cm2, row)
    amount = volume if len(volume.value) else thickness
    rows += _efficiency(history, amount, row)
    rests = [(f"rest of cycle {c.cycle}", c.frames) for c in history.half_cycles() if c.kind == "rest"]
    if at_rest:
        rests = [("whole series", volume.value.index.to_numpy())]
    for what, frames in rests:
        rows += _shrinkage(volume, what, frames, row, history.scale.flags)
    return rows


def _against_charge(
    history: History, thickness: Curve, volume: Curve, capacity: float | None, row: partial[Measurement]
) -> list[Measurement]:
    """Expected volume and volume over charge."""
    if not history.scale.calibrated:
        return [row("volume_charge_ratio", math.nan, "1", flags=("uncalibrated",), method="needs a pixel size")]
    electrochem = history.electrochem
    area = None
    if len(volume.value) and volume.value.max() > 0:
        of = volume.value.idxmax()
        area = float(volume.value[of] / thickness.value[of])
    dense = "4.85 um per mAh/cm2"
    if electrochem is None or "areal_capacity_mAh_per_cm2" not in electrochem:
        if capacity is None:
            missing = "needs a cycler file with the electrode area, or areal_capacity_mAh_per_cm2"
            return [row("volume_charge_ratio", math.nan, "1", flags=("no-current",), method=missing)]
        last = int(thickness.value.index[-1])
        expected = float(faraday_thickness_um(capacity))
        found = [float(series[last]) / expected for series in (thickness.value, thickness.low, thickness.high)]
        rows = [
            row("volume_charge_ratio", found[0], "1", found[1], found[2], n=1,
                method=f"last frame over {capacity:g} mAh/cm2, {dense}")
        ]  # fmt: skip
        if area is not None:
            rows.append(row("expected_volume", expected * area, "um3", method=f"{dense} on {area:.4g} um2"))
        return rows
    charge = electrochem.set_index("frame")["areal_capacity_mAh_per_cm2"].dropna()
    frames = [int(f) for f in thickness.value.index if f in charge.index]
    if not frames:
        return [row("volume_charge_ratio", math.nan, "1", flags=("no-current",), method="no frame has a charge")]
    first = frames[0]
    passed = charge.reindex(frames) - charge[first]
    largest = float(passed.abs().max())
    rows = []
    for frame in frames[1:]:
        expected = float(faraday_thickness_um(passed[frame]))
        time_s = thickness.time(frame)
        since = f"since frame {first}, {dense}"
        if area is not None:
            rows.append(row("expected_volume", expected * area, "um3", frame=frame, time_s=time_s,
                            method=f"{since} on {area:.4g} um2"))  # fmt: skip
        if largest > 0 and abs(passed[frame]) >= MIN_CHARGE_SHARE * largest:
            bounds = [value / expected for value in thickness.change(first, frame)]
            rows.append(row("volume_charge_ratio", bounds[0], "1", min(bounds[1:]), max(bounds[1:]), frame=frame,
                            time_s=time_s, method=f"change {since}"))  # fmt: skip
    ratios = [m for m in rows if m.metric == "volume_charge_ratio"]
    if ratios:
        best = max(ratios, key=lambda m: abs(float(passed[m.frame])))
        rows.append(row("volume_charge_ratio", best.value, "1", best.low, best.high, n=len(ratios),
                        method=f"at the largest charge, frame {best.frame}: {best.method}"))  # fmt: skip
    else:
        rows.append(row("volume_charge_ratio", math.nan, "1", flags=("no-current",), method="no charge has passed"))
    return rows


def _efficiency(history: History, amount: Curve, row: partial[Measurement]) -> list[Measurement]:
    """Share of the plated amount that stripping removes, for every plating that stripping follows."""
    found: list[Measurement] = []
    cycles = [c for c in history.half_cycles() if c.kind != "rest"]
    for plating, stripping in zip(cycles[:-1], cycles[1:], strict=True):
        if (plating.kind, stripping.kind) != ("plating", "stripping"):
            continue
        # Growth starts from the last frame before the half-cycle, where there is one.
        before = [f for f in amount.value.index if f < plating.frames[0]]
        during = [f for f in plating.frames if f in amount.value.index]
        after = [f for f in stripping.frames if f in amount.value.index]
        if not during or not after:
            continue
        start = before[-1] if before else during[0]
        peak, end = max((*during, after[0]), key=lambda f: amount.value[f]), after[-1]
        gained = amount.change(int(start), int(peak))
        removed = amount.change(int(end), int(peak))
        if gained[0] <= 0:
            continue
        value = removed[0] / gained[0]
        # The error of the peak is shared, which makes that of the ratio about that of what is left.
        left = amount.change(int(start), int(end))
        half = [(left[2] - left[0]) / gained[0], (left[0] - left[1]) / gained[0]]
        found.append(
            row("imaging_efficiency", value, "1", value - half[0], value + half[1], frame=int(end),
                time_s=amount.time(int(end)), n=2,
                method=f"(peak - end) / (peak - start), frames {start}, {peak}, {end}: cycle {plating.cycle}",
                flags=() if before else ("extrapolated",))
        )  # fmt: skip
    if not found:
        return []
    values = np.array([m.value for m in found])
    middle = found[int(np.argsort(values)[len(values) // 2])]
    low, high = (middle.low, middle.high) if len(found) == 1 else (float(values.min()), float(values.max()))
    series = row("imaging_efficiency", float(np.median(values)), "1", low, high, n=len(found),
                 method=f"median over {len(found)} cycle(s); interval: {'outline' if len(found) == 1 else 'range'}",
                 flags=tuple(sorted({flag for m in found for flag in m.flags})))  # fmt: skip
    return [*found, series]


def _shrinkage(
    volume: Curve, what: str, frames: np.ndarray, row: partial[Measurement], flags: tuple[str, ...]
) -> list[Measurement]:
    """Loss of volume per hour over some frames at rest; nothing without two of them or without times."""
    inside = [int(f) for f in frames if f in volume.value.index]
    hours = volume.time_s.reindex(inside).to_numpy(float) / SECONDS_PER_HOUR
    if len(inside) < 2 or not np.isfinite(hours).all():
        return []
    slope, low, high = robust_slope(hours, volume.value.reindex(inside).to_numpy(float))
    return [
        row("rest_shrinkage_rate", -slope, f"{volume.unit}/h", -high, -low, frame=inside[-1],
            time_s=volume.time(inside[-1]), n=len(inside), method=f"Theil-Sen slope of deposit_volume: {what}",
            flags=flags)
    ]  # fmt: skip


def _class_name(classes: Sequence[str]) -> str:
    return "+".join(classes)
