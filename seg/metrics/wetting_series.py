"""Contact angle against time: how droplets shrink, and the angles at which they advance and recede."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from seg.metrics.contact_local import correlated_points
from seg.metrics.followed import followed_objects, half_cycles_of
from seg.metrics.history import History
from seg.metrics.slopes import robust_slope
from seg.metrics.table import Measurement, rate_unit

REGIMES = ("constant-angle", "mixed", "pinned")
# The angle accounts for less than this share of the loss at constant angle, and for all but this where pinned.
MARGIN = 0.15
MIN_FRAMES, MIN_LOSS = 4, 0.3
DRAWS = 4000


@dataclass(frozen=True)
class Wetting:
    """Contact of one object over time; angles in degrees, errors are standard errors."""

    frames: np.ndarray
    clock: np.ndarray
    size: np.ndarray
    angle: np.ndarray
    angle_error: np.ndarray
    base: np.ndarray
    base_error: np.ndarray
    faceted: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> Wetting:
        return Wetting(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.frames)


def angle_share(part: Wetting, *, rng: np.random.Generator) -> np.ndarray:
    """Share of the loss of area that the falling angle accounts for, the rest being the receding base.

    Parameters
    ----------
    part : Wetting
        One object while it shrinks, from its largest frame on.
    rng : Generator

    Returns
    -------
    ndarray of float, shape (4000,)
        Draws from the errors of angle and base: 0 where the angle is constant, 1 where the base is pinned.

    Notes
    -----
    A cap in profile has the area ``b^2 f(angle)``, ``f = (angle - sin angle cos angle) / (4 sin^2 angle)``; the share
    is the change of ``ln f`` over that of ``ln(b^2 f)`` between the first and the last quarter of the frames. Most of
    an error is that of an outline that is off as a whole, which the frames share; what they do not share shows in how
    they scatter about each other.
    """
    angle = np.radians(np.clip(_drawn(part.angle, part.angle_error, rng), 1, 179))
    base = np.maximum(_drawn(part.base, part.base_error, rng), 1e-3 * part.base)
    shape = np.log((angle - np.sin(angle) * np.cos(angle)) / np.sin(angle) ** 2)
    width = 2 * np.log(base)
    k = max(1, len(part) // 4)
    fall = shape[:, :k].mean(axis=1) - shape[:, -k:].mean(axis=1)
    return np.asarray(fall / (fall + width[:, :k].mean(axis=1) - width[:, -k:].mean(axis=1)))


def _drawn(values: np.ndarray, error: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of a series, shape (4000, N), with an error that is partly shared by its frames."""
    # Second differences of independent scatter have six times its variance.
    scatter = float(np.sqrt(np.mean(np.diff(values, 2) ** 2) / 6)) if len(values) > 2 else math.inf
    own = np.minimum(scatter, error)
    shared = np.sqrt(error**2 - own**2)
    return np.asarray(values + own * rng.normal(size=(DRAWS, len(values))) + shared * rng.normal(size=(DRAWS, 1)))


def regime_of(share: np.ndarray) -> tuple[str, float]:
    """Most probable regime of draws of the angle's share, and its probability."""
    constant, pinned = float(np.mean(share < MARGIN)), float(np.mean(share > 1 - MARGIN))
    chances = {"constant-angle": constant, "mixed": 1 - constant - pinned, "pinned": pinned}
    best = max(chances, key=lambda name: chances[name])
    return best, chances[best]


def measure_whole(history: History, *, seed: int = 0) -> list[Measurement]:
    """Stripping regime, advancing and receding angle of every track and of all of them.

    Parameters
    ----------
    history : History
        With the rows of this group for every frame. Objects are followed by its tracks, else by nearness.
    seed : int
        Of the draws from the errors.

    Returns
    -------
    list of Measurement
        ``stripping_regime`` for each object that loses a third of its area in four or more measured frames: the
        regime and its evidence (slopes of angle and base, share of the loss) in ``method``, its probability as value;
        of all objects (no ``object_id``) from the mean share. ``contact_angle`` with the side ``advancing`` (mean
        while plating) and ``receding`` (mean while the base recedes on stripping) for objects that show both, and
        their mean; frames flagged ``faceted-contact`` are in neither. No rows where nothing was stripped;
        `object_id` is the track.
    """
    rng = np.random.default_rng([seed, 11])
    row = partial(Measurement, class_name=_class_of(history.table))
    regimes: list[Measurement] = []
    shares: list[np.ndarray] = []
    hysteresis: dict[str, list[tuple[float, float]]] = {"advancing": [], "receding": []}
    angles: list[Measurement] = []
    timed = _timed(history.table)
    flags = history.scale.flags if timed else tuple(dict.fromkeys((*history.scale.flags, "uncalibrated")))
    for track, wetting in _followed(history, timed=timed):
        cycles = half_cycles_of(wetting.frames, wetting.size, history.kinds)
        stripped = [wetting[index] for kind, index in cycles if kind == "stripping"]
        stripped = [part for part in stripped if len(part) >= MIN_FRAMES and _loss(part) >= MIN_LOSS]
        for part in stripped:
            share = angle_share(part, rng=rng)
            shares.append(share)
            name, chance = regime_of(share)
            how = f"{name}: {_evidence(part, share, history, timed=timed)}"
            regimes.append(row("stripping_regime", chance, "1", object_id=track, n=len(part), method=how, flags=flags))
        plated = [wetting[index[1:]] for kind, index in cycles if kind == "plating"]
        found = {"advancing": _mean_angle(plated), "receding": _mean_angle([_receding(part) for part in stripped])}
        if all(found.values()):
            for side, pair in found.items():
                assert pair is not None
                hysteresis[side].append(pair)
                how = "mean while plating" if side == "advancing" else "mean while the base recedes on stripping"
                angles.append(_angle_row(row, side, *pair, object_id=track, method=how, flags=history.scale.flags))
    if shares:
        mean = np.mean(shares, axis=0)
        name, chance = regime_of(mean)
        how = f"{name}: {_share_text(mean)}, mean of {len(shares)} stripping(s)"
        regimes.append(row("stripping_regime", chance, "1", n=len(shares), method=how, flags=flags))
    for side, pairs in hysteresis.items():
        if pairs:
            values, errors = (np.array(column) for column in zip(*pairs, strict=True))
            spread = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
            error = math.hypot(float(errors.mean()), spread)
            how = f"mean of {len(values)} object(s) that were plated and stripped"
            mean_angle = float(values.mean())
            angles.append(
                _angle_row(row, side, mean_angle, error, method=how, n=len(values), flags=history.scale.flags)
            )
    return [*regimes, *angles]


def _angle_row(
    row: partial[Measurement], side: str, value: float, error: float, **more: object
) -> Measurement:  # fmt: skip
    low, high = max(value - 1.96 * error, 0.0), min(value + 1.96 * error, 180.0)
    return row("contact_angle", value, "deg", low=low, high=high, side=side, **more)


def _class_of(table: pd.DataFrame) -> str:
    names = table.loc[table["metric"] == "contact_angle", "class"]
    return str(names.iloc[0]) if len(names) else ""


def _timed(table: pd.DataFrame) -> bool:
    rows = table[(table["metric"] == "contact_angle") & table["frame"].notna()]
    return bool(len(rows) and rows["time_s"].notna().all())


def _followed(history: History, *, timed: bool) -> Iterator[tuple[int, Wetting]]:
    """Every track with the frames in which its angle and base are known."""
    table = history.table[history.table["object_id"].notna() & history.table["frame"].notna()]
    sided = table[table["side"].isin(["", "mean"]) & table["metric"].isin(["contact_angle", "base_width"])]
    if sided.empty:
        return
    sided = sided.assign(error=(sided["high"] - sided["low"]) / (2 * 1.96))
    sided = sided.assign(frame=sided["frame"].astype(int), object_id=sided["object_id"].astype(int))
    angle, base = (
        sided.loc[sided["metric"] == name, ["frame", "object_id", "time_s", "value", "error", "flags"]]
        for name in ("contact_angle", "base_width")
    )
    joined = angle.merge(base, on=["frame", "object_id"], suffixes=("", "_base")).dropna(subset=["value", "value_base"])
    joined = joined.merge(followed_objects(history), on=["frame", "object_id"])
    for track, part in joined.groupby("track_id"):
        part = part.sort_values("frame")
        b, theta = part["value_base"].to_numpy(float), np.radians(part["value"].to_numpy(float))
        cap = b**2 * (theta - np.sin(theta) * np.cos(theta)) / (4 * np.sin(theta) ** 2)
        size = part["size"].to_numpy(float)
        frames = part["frame"].to_numpy(int)
        yield (
            int(track),
            Wetting(
                frames,
                part["time_s"].to_numpy(float) if timed else frames.astype(float),
                np.where(np.isfinite(size), size, cap),
                part["value"].to_numpy(float),
                part["error"].fillna(0.0).to_numpy(float),
                b,
                part["error_base"].fillna(0.0).to_numpy(float),
                part["flags"].str.contains("faceted-contact", regex=False).to_numpy(bool),
            ),
        )


def _loss(part: Wetting) -> float:
    return 1 - float(part.size[-1] / part.size[0])


def _receding(part: Wetting) -> Wetting:
    """Frames of a stripping in which the base has left its first place."""
    return part[part.base < 0.92 * part.base[0]]


def _mean_angle(parts: list[Wetting]) -> tuple[float, float] | None:
    """Mean angle and its standard error (scatter, and what the frames share); None without frames.

    Frames in which facets bend the outline at the contact are left out: theirs is no angle of wetting. An angle that
    drifts has fewer independent values than frames.
    """
    parts = [part[~part.faceted] for part in parts]
    angles = np.concatenate([part.angle for part in parts]) if parts else np.zeros(0)
    if len(angles) == 0:
        return None
    shared = float(np.mean(np.concatenate([part.angle_error for part in parts])))
    n = len(angles)
    together = min(correlated_points(angles - angles.mean(), n_parameters=1), n) if n > 2 else 1.0
    scatter = float(angles.std(ddof=1)) * math.sqrt(together / n) if n > 1 else 0.0
    return float(angles.mean()), math.hypot(shared, scatter)


def _evidence(part: Wetting, share: np.ndarray, history: History, *, timed: bool) -> str:
    slopes = []
    for name, unit, values in (
        ("angle", "deg", part.angle), ("base", history.scale.unit("um"), part.base),
    ):  # fmt: skip
        slope, low, high = robust_slope(part.clock, values)
        slopes.append(f"{name} {slope:.3g} [{low:.3g}, {high:.3g}] {rate_unit(unit, timed=timed)}")
    first, last = int(part.frames[0]), int(part.frames[-1])
    return f"{', '.join(slopes)}, {_share_text(share)}, frames {first} to {last}"


def _share_text(share: np.ndarray) -> str:
    low, middle, high = np.quantile(share, [0.025, 0.5, 0.975])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}] of the loss by the angle"
