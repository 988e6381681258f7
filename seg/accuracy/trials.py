"""One comparison of a measured number and its interval with the truth, and what many of them say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from seg.metrics.table import Measurement

COLUMNS = (
    "metric", "scene", "masks", "unit", "n", "refused", "bias", "spread", "relative", "coverage", "coverage_low",
    "coverage_high", "half_width",
)  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What a metric gave for one twin. A refused number has the value NaN; one without interval, NaN bounds."""

    metric: str
    truth: float
    value: float
    low: float
    high: float
    unit: str

    @classmethod
    def of(cls, row: Measurement, truth: float, metric: str | None = None) -> Trial:
        """Compare a row with the truth."""
        return cls(metric or row.metric, truth, row.value, row.low, row.high, row.unit)


@dataclass(frozen=True)
class Scene:
    """A kind of twin.

    Parameters
    ----------
    name : str
    trials : callable
        ``(rng, fault name) -> list of Trial`` of one twin.
    twins : int
        How many of them a full run makes.
    faults : tuple of str
        Keys of `FAULTS` that make sense; ``none`` where no mask is drawn.
    """

    name: str
    trials: Callable[[np.random.Generator, str], list[Trial]]
    twins: int
    faults: tuple[str, ...]


def run_scene(scene: Scene, fault: str, *, twins: int, seed: int = 0) -> pd.DataFrame:
    """Measure `twins` twins of a scene and sum them up, one row per metric."""
    found: list[Trial] = []
    key = [seed, sum(map(ord, scene.name + fault))]
    for k in range(twins):
        found += scene.trials(np.random.default_rng([*key, k]), fault)
    return summarise(found, scene=scene.name, fault=fault)


def summarise(trials: Iterable[Trial], *, scene: str, fault: str) -> pd.DataFrame:
    """Bias, spread and coverage of each metric.

    Returns
    -------
    DataFrame
        ``n`` numbers were given and ``refused`` were not; ``bias`` and ``spread`` are the mean and the standard
        deviation of the errors, ``relative`` whether they are shares of the truth (of every unit but degrees and
        pure numbers); ``coverage`` is the share of the intervals that hold the truth, with its own exact 95 % interval
        (``coverage_low``, ``coverage_high``); ``half_width`` the median half width of the intervals, like bias.
    """
    table = pd.DataFrame([t.__dict__ for t in trials])
    rows = []
    for metric, part in table.groupby("metric", sort=False):
        given = part[part["value"].notna()]
        unit = str(part["unit"].iloc[0])
        relative = unit not in ("deg", "1")
        size = given["truth"].abs() if relative else 1.0
        error = (given["value"] - given["truth"]) / size
        bounded = given[given["low"].notna() & given["high"].notna()]
        slack = 1e-12 * bounded["truth"].abs()
        held = int(((bounded["low"] <= bounded["truth"] + slack) & (bounded["truth"] - slack <= bounded["high"])).sum())
        low, high = binomial_interval(held, len(bounded))
        half = ((bounded["high"] - bounded["low"]) / 2 / (bounded["truth"].abs() if relative else 1.0)).median()
        rows.append(
            (
                metric, scene, fault, unit, len(given), len(part) - len(given), error.mean(), error.std(ddof=1),
                relative, held / len(bounded) if len(bounded) else math.nan, low, high, half,
            )
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_markdown(table: pd.DataFrame) -> str:
    """Two tables to read: coverage by metric and kind of masks, and everything."""
    table = table.assign(name=[f"{m} ({s})" if s not in ("", None) else m
                               for m, s in zip(table["metric"], table["scene"], strict=True)])  # fmt: skip
    faults = list(dict.fromkeys(table["masks"]))
    lines = [
        "## Share of the 95 % intervals that hold the truth",
        "",
        f"| metric (twins) | {' | '.join(faults)} | twins |",
        f"|---|{'---|' * len(faults)}---|",
    ]
    for name, part in table.groupby("name", sort=False):
        if part["coverage"].isna().all():
            continue
        cells = []
        for fault in faults:
            row = part[part["masks"] == fault]
            cells.append("" if row.empty else _coverage(row.iloc[0]))
        lines.append(f"| {name} | {' | '.join(cells)} | {int((part['n'] + part['refused']).sum())} |")
    lines += [
        "",
        "## Errors",
        "",
        "| metric (twins) | masks | given | refused | bias | spread | median half width |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        unit = "%" if row.relative else "deg" if row.unit == "deg" else ""
        bias, spread, half = (
            "" if math.isnan(v) else f"{v * (100 if row.relative else 1):.2g}{' ' + unit if unit else ''}"
            for v in (row.bias, row.spread, row.half_width)
        )
        lines.append(f"| {row.name} | {row.masks} | {row.n} | {row.refused} | {bias} | {spread} | {half} |")
    return "\n".join(lines) + "\n"


def _coverage(row: pd.Series) -> str:
    if math.isnan(row["coverage"]):
        return ""
    return f"{100 * row['coverage']:.0f} % [{100 * row['coverage_low']:.0f}, {100 * row['coverage_high']:.0f}]"


def binomial_interval(count: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval (Clopper-Pearson) of a share."""
    if n == 0:
        return math.nan, math.nan
    from scipy.special import betaincinv

    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, 0.025))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 0.975))
    return low, high


def only(rows: Sequence[Measurement], metric: str, **where: object) -> Measurement:
    """The row of a metric, of the whole frame or series unless `where` says otherwise; its first method counts."""
    where = {"object_id": None, **where}
    found = [r for r in rows if r.metric == metric and all(getattr(r, k) == v for k, v in where.items())]
    if not found:
        raise LookupError(f"No row of {metric!r} with {where}.")
    return found[0]
