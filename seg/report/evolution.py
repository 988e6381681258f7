"""The figures that a paper would show of a series: sizes, nucleation, and area and contact angle over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from seg.metrics.history import History
from seg.metrics.nucleation import LawCurves, law_curves
from seg.metrics.table import Scale
from seg.report import figures
from seg.report.figures import INK, PALETTE, SIDE_COLOURS
from seg.report.saved import Saved
from seg.report.series import Axis, Series, bands_of
from seg.report.words import class_text, in_length_unit, number, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bands = Sequence[tuple[float, float, str]]
MAX_HISTOGRAMS, MIN_OBJECTS, MIN_SIZES = 5, 3, 10
_WIDE_IN = 7.4
_FAINT_LINE = "#9aa5b1"
_LAW_STYLES = {"instantaneous": (0, (1, 1.2)), "progressive": (0, (4, 1.5)), "saturating": "-.", "mixed": "-"}


def evolution(
    saved: Saved, metrics: pd.DataFrame, series: list[Series], axis: Axis, diameters: pd.DataFrame, unit: str
) -> list[dict[str, Any]]:
    """Figures of a series that its rows allow: title, picture, text that stands in for it, and caption.

    Parameters
    ----------
    saved : Saved
    metrics : DataFrame
        In the units of the report.
    series : list of Series
    axis : Axis
        Time.
    diameters : DataFrame
        ``frame`` and ``value``, one row per object, in `unit`.
    unit : str
    """
    if saved.size("t") < 3:
        return []
    bands = bands_of(saved, axis)
    found = [_area_and_angle(metrics, series, axis, bands), _sizes(metrics, diameters, unit, axis, bands)]
    return [figure for figure in (*found, _nucleation(saved, metrics, axis, bands)) if figure]


def object_diameters(saved: Saved, metrics: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """``frame`` and ``value`` of every object over the detection limit, and the unit of the values."""
    for column, unit in (("equivalent_diameter_um", "um"), ("equivalent_diameter_px", "px")):
        if column in saved.objects.columns and len(saved.objects):
            factor, unit = in_length_unit(unit, saved.modality.length_unit)
            objects = saved.objects
            frame = objects["frame"] if "frame" in objects.columns else pd.Series(0, index=objects.index)
            values = pd.to_numeric(objects[column], errors="coerce") * factor
            if "below_detection_limit" in objects.columns:
                values = values.where(~objects["below_detection_limit"].astype(bool))
            return pd.DataFrame({"frame": frame.fillna(0), "value": values}), unit
    rows = metrics[(metrics["metric"] == "equivalent_diameter") & metrics["object_id"].notna()]
    unit = str(rows["unit"].iloc[0]) if len(rows) else "um"
    return rows[["frame", "value"]].fillna({"frame": 0}).astype(float), unit


# --- area and contact angle -------------------------------------------------------------------------------------------


def _area_and_angle(
    metrics: pd.DataFrame, series: list[Series], axis: Axis, bands: Bands
) -> dict[str, Any] | None:  # fmt: skip
    angle = _one(series, "contact_angle", "mean")
    area = _one(series, "covered_area", "", None if angle is None else angle.class_name)
    if angle is None or area is None:
        return None
    power = figures.power_of(np.concatenate([area.values, area.low, area.high]))
    with figures.figure(3.4, width_in=4.9, top_in=0.3, nrows=2, sharex=True, gridspec_kw={"hspace": 0.12}) as (
        figure,
        (above, below),
    ):
        for panel in (above, below):
            figures.shade(panel, bands)
        figures.line(above, area, axis, 10.0**-power, PALETTE[0], "-", "area", 0)
        rates = [r for r in _whole(metrics, "area_rate") if r[0].class_name == area.class_name]
        for rate, _ in rates:
            _slope(above, area, axis, bands, rate, 10.0**-power)
        figures.line(below, angle, axis, 1.0, INK, "-", "mean", 0)
        kept = _whole(metrics, "contact_angle")
        for held, row in kept:
            if held.side == "receding":
                colour = SIDE_COLOURS["stripping"]
                below.axhline(held.value, color=colour, linewidth=1.0, linestyle="--", zorder=2)
                below.annotate(
                    f"receding {_text(row)}", (0.02, held.value), xycoords=("axes fraction", "data"), xytext=(0, 3),
                    textcoords="offset points", color=colour, fontsize=8.0,
                )  # fmt: skip
        figures.name_axes(above, axis, "area", area.unit, power)
        above.set_xlabel("")
        figures.name_axes(below, axis, "contact angle", angle.unit)
        _legend_of_bands(above, bands)
        uri = figures.data_uri(figure)
    said = [f"{held.side or 'whole series'} {_text(row)}" for held, row in rates]
    caption = "Projected area and contact angle with their 95 % intervals."
    caption += f" Area rate (Theil-Sen, thin lines): {'; '.join(said)}." if said else ""
    regime = metrics[(metrics["metric"] == "stripping_regime") & metrics["object_id"].isna()]
    if len(regime) and pd.notna(regime["value"].iloc[0]):
        caption += f" Stripping: {str(regime['method'].iloc[0]).split(':')[0]}."
    return {"title": "Area and contact angle", "uri": uri, "caption": caption, "alt": caption, "wide": False}


def _one(series: list[Series], metric: str, side: str, class_name: str | None = None) -> Series | None:
    """The first series of a metric and side over the frames, of a class where one is named and there is such."""
    found = [s for s in series if s.metric == metric and s.side == side and np.isfinite(s.values).sum() > 1]
    same = [s for s in found if class_name is None or class_text(s.class_name) == class_text(class_name)]
    return (same or found or [None])[0]


class _Held:
    """A number of the whole series, with names that the type checker can follow."""

    def __init__(self, row: pd.Series) -> None:
        self.value, self.side, self.class_name = float(row["value"]), str(row["side"]), str(row["class"])


def _whole(metrics: pd.DataFrame, metric: str) -> list[tuple[_Held, pd.Series]]:
    rows = metrics[
        (metrics["metric"] == metric) & metrics["frame"].isna() & metrics["object_id"].isna()
        & metrics["value"].notna()
    ]  # fmt: skip
    return [(_Held(row), row) for _, row in rows.iterrows()]


def _text(row: pd.Series) -> str:
    shown = number(float(row["value"]), float(row["low"]), float(row["high"]), str(row["unit"]))
    return " ".join(part for part in (shown.value, shown.interval, shown.tail.strip()) if part)


def _slope(panel: Axes, area: Series, axis: Axis, bands: Bands, rate: _Held, scale: float) -> None:
    """Draw a rate of the series as a line through the middle of the frames it was taken from."""
    x, y = axis.values[area.frames], area.values * scale
    inside = np.isfinite(x) & np.isfinite(y)
    if rate.side:
        inside &= np.any([(x >= a) & (x <= b) for a, b, name in bands if name == rate.side] or [x != x], axis=0)
    if inside.sum() < 2 or axis.seconds_per_unit is None:
        return
    x, y = x[inside], y[inside]
    slope = rate.value * scale * axis.seconds_per_unit
    middle = np.median(y - slope * x)
    ends = np.array([x.min(), x.max()])
    panel.plot(ends, middle + slope * ends, color=SIDE_COLOURS.get(rate.side, INK), linewidth=0.9, zorder=3)


def _legend_of_bands(panel: Axes, bands: Bands) -> None:
    for name in dict.fromkeys(name for _, _, name in bands):
        start, stop, _ = max((band for band in bands if band[2] == name), key=lambda band: band[1] - band[0])
        panel.annotate(
            name, ((start + stop) / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 4), ha="center",
            textcoords="offset points", fontsize=8.2, color="#52606d",
        )  # fmt: skip


# --- sizes ------------------------------------------------------------------------------------------------------------


def _sizes(
    metrics: pd.DataFrame, diameters: pd.DataFrame, unit: str, axis: Axis, bands: Bands
) -> dict[str, Any] | None:
    table = diameters[np.isfinite(diameters["value"])]
    sizes = {int(f): part["value"].to_numpy(float) for f, part in table.groupby("frame") if len(part) >= MIN_OBJECTS}
    if len(sizes) < 3 or max(map(len, sizes.values())) < MIN_SIZES:
        return None
    frames = sorted(sizes)
    n = min(MAX_HISTOGRAMS, len(frames))
    picked = [frames[round(i * (len(frames) - 1) / (n - 1))] for i in range(n)]
    limits = metrics.loc[metrics["metric"] == "detection_limit_diameter", "value"].dropna()
    limit = float(limits.iloc[0]) if len(limits) else None
    everything = np.concatenate(list(sizes.values()))
    # Freedman-Diaconis on the fullest frame, bounded: fewer bins say nothing, more are noise.
    fullest = max((sizes[f] for f in picked), key=len)
    bins = np.histogram_bin_edges(fullest, "fd", range=(float(everything.min()), float(everything.max())))
    edges = np.linspace(bins[0], bins[-1], int(np.clip(len(bins), 12, 31)))
    with figures.figure(0.62 * n, width_in=_WIDE_IN, top_in=0.2) as (figure, panel):
        panel.remove()
        grid = figure.add_gridspec(n, 2, width_ratios=(1, 1), hspace=0.12, wspace=0.26, **figures.margins(figure))
        rows = [figure.add_subplot(grid[i, 0]) for i in range(n)]
        for row, frame in zip(rows, picked, strict=True):
            values = sizes[frame]
            row.hist(values, bins=edges, color=PALETTE[0], alpha=0.8, edgecolor="white", linewidth=0.5)
            _law_of_sizes(row, metrics, frame, len(values), edges)
            row.sharex(rows[0])
            row.sharey(rows[0])
            row.text(
                0.985, 0.97, f"{_moment(axis, frame)}, n = {len(values)}", transform=row.transAxes, ha="right",
                va="top", fontsize=8.0, color=INK,
            )  # fmt: skip
            row.yaxis.get_major_locator().set_params(integer=True, nbins=3)
            row.tick_params(labelbottom=row is rows[-1])
            if limit is not None:
                row.axvline(limit, color="#5f6b76", linewidth=1.0, linestyle="--")
        # room above the bars for the text of the row
        rows[0].set_ylim(0, 1.5 * max(np.histogram(sizes[f], edges)[0].max() for f in picked))
        rows[-1].set_xlabel(figures.with_unit("equivalent diameter", unit))
        figures.name_rows(figure, "objects")
        _tracks_of_quantiles(figure.add_subplot(grid[:, 1]), sizes, metrics, unit, axis, bands, limit)
        uri = figures.data_uri(figure)
    first, last = sizes[picked[0]], sizes[picked[-1]]
    change = (
        f"median {plain(float(np.median(first)), unit)} at {_moment(axis, picked[0])}, "
        f"{plain(float(np.median(last)), unit)} at {_moment(axis, picked[-1])}"
    )
    caption = (
        f"Size of the objects over time: {change}. Left: histograms with the lognormal law that was fitted to each; "
        f"right: median, quartiles and 90 % of the objects{', dashed: detection limit' if limit else ''}."
    )
    return {"title": "Sizes over time", "uri": uri, "caption": caption, "alt": caption, "wide": True}


def _law_of_sizes(panel: Axes, metrics: pd.DataFrame, frame: int, n: int, edges: np.ndarray) -> None:
    """The lognormal law of one frame as expected counts per bin, where it is known in the unit of the bins."""
    at = metrics[(metrics["frame"] == frame) & metrics["object_id"].isna()]
    found = []
    for name in ("size_lognormal_mu", "size_lognormal_sigma"):
        values = at.loc[at["metric"] == name, "value"].dropna()
        if values.empty:
            return
        found.append(float(values.iloc[0]))
    # ln of a diameter depends on its unit: the rows say which was taken, the bins may be in another.
    method = at.loc[at["metric"] == "size_lognormal_mu", "method"].iloc[0]
    mean = at.loc[at["metric"] == "mean_equivalent_diameter", "unit"]
    if mean.empty:
        return
    factor = {("um", "nm"): 1e3}.get(("um" if "in um" in str(method) else "px", str(mean.iloc[0])), 1.0)
    mu, sigma = found[0] + math.log(factor), found[1]
    x = np.linspace(max(edges[0], 1e-6 * edges[-1]), edges[-1], 200)
    density = np.exp(-((np.log(x) - mu) ** 2) / (2 * sigma**2)) / (x * sigma * math.sqrt(2 * math.pi))
    panel.plot(x, n * density * (edges[1] - edges[0]), color=PALETTE[1], linewidth=1.2)


def _tracks_of_quantiles(
    panel: Axes, sizes: dict[int, np.ndarray], metrics: pd.DataFrame, unit: str, axis: Axis, bands: Bands,
    limit: float | None,
) -> None:  # fmt: skip
    figures.shade(panel, bands)
    frames = sorted(sizes)
    x = axis.values[frames]
    low, first, middle, third, high = np.array([np.quantile(sizes[f], [0.05, 0.25, 0.5, 0.75, 0.95]) for f in frames]).T
    panel.fill_between(x, low, high, color=PALETTE[0], alpha=0.14, linewidth=0, label="90 % of the objects")
    panel.fill_between(x, first, third, color=PALETTE[0], alpha=0.28, linewidth=0, label="quartiles")
    panel.plot(x, middle, color=PALETTE[0], linewidth=1.5, label="median")
    if limit is not None:
        panel.axhline(limit, color="#5f6b76", linewidth=1.0, linestyle="--")
    panel.set_xlabel(axis.label)
    panel.set_ylabel(figures.with_unit("equivalent diameter", unit))
    panel.set_ylim(0, 1.3 * max(high.max(), limit or 0.0))  # the legend is above the bands
    panel.margins(x=0.02)
    panel.legend(loc="upper left", borderaxespad=0.6)


def _moment(axis: Axis, frame: int) -> str:
    label = axis.label
    unit = label[label.find("(") + 1 : -1] if "(" in label else ""
    return f"{axis.values[frame]:.3g} {unit}" if unit else f"frame {frame}"


# --- nucleation -------------------------------------------------------------------------------------------------------


def _nucleation(saved: Saved, metrics: pd.DataFrame, axis: Axis, bands: Bands) -> dict[str, Any] | None:
    laws = _laws(saved)
    rows = metrics[(metrics["metric"] == "nucleation_density") & metrics["frame"].notna()]
    if laws is None or len(rows) < 3:
        return None
    x = axis.values[rows["frame"].to_numpy(int)]
    y, low, high = (rows[name].to_numpy(float) for name in ("value", "low", "high"))
    power = figures.power_of(np.concatenate([y, high]))
    scale = 10.0**-power
    clock = laws.clock / (axis.seconds_per_unit or 1.0)
    with figures.figure(2.5, width_in=4.9, top_in=0.48) as (figure, panel):
        figures.shade(panel, bands)
        panel.fill_between(x, low * scale, high * scale, color=PALETTE[0], alpha=0.16, linewidth=0)
        panel.plot(x, y * scale, "o", color=PALETTE[0], markersize=4, label="births to date", zorder=4)
        visible = metrics[(metrics["metric"] == "areal_density") & metrics["frame"].notna()].drop_duplicates("frame")
        if len(visible):
            panel.plot(
                axis.values[visible["frame"].to_numpy(int)], visible["value"].to_numpy(float) * scale, "s",
                markerfacecolor="white", markeredgecolor="#5f6b76", markersize=3.6, label="visible objects", zorder=3,
            )  # fmt: skip
        for law in sorted(laws.density, key=lambda name: name != laws.law):
            chosen = law == laws.law and not laws.refused
            panel.plot(
                clock, laws.density[law] * scale, color=PALETTE[1] if chosen else _FAINT_LINE,
                linewidth=1.8 if chosen else 1.1, linestyle="-" if chosen else _LAW_STYLES[law],
                label=f"{law} ({laws.weights[law]:.2f})", zorder=3.5 if chosen else 2,
            )  # fmt: skip
        figures.name_axes(panel, axis, "nuclei per area", str(rows["unit"].iloc[0]), power)
        panel.set_ylim(bottom=0)
        figure.legend(loc="upper left", bbox_to_anchor=(0.02, 0.98), ncols=3, columnspacing=0.8)
        uri = figures.data_uri(figure)
    verdict = (
        "no law can be told from the others" if laws.refused
        else f"the {laws.law} law is chosen, Akaike weight {laws.weights[laws.law]:.2f}"
    )  # fmt: skip
    final = number(float(y[-1]), float(low[-1]), float(high[-1]), str(rows["unit"].iloc[0]))
    caption = (
        f"Nucleation: births to date with their 95 % interval ({final} at the end), visible objects, and the laws "
        f"fitted to the births per frame with their Akaike weights; {verdict}."
    )
    return {"title": "Nucleation over time", "uri": uri, "caption": caption, "alt": caption, "wide": False}


def _laws(saved: Saved) -> LawCurves | None:
    """The laws fitted again to the saved rows, with the options of the run."""
    options = (saved.analysis.get("metrics") or {}).get("nucleation")
    if options is None or not {"object_count", "valid_area", "birth_count"} <= set(saved.metrics["metric"]):
        return None
    known = saved.electrochem if len(saved.electrochem) else None
    return law_curves(
        saved.metrics, onset_s=options.get("onset_s"), burst_s=options.get("burst_s"),
        half_cycles=History(saved.metrics, Scale((1.0,)), electrochem=known).half_cycles(),
    )  # fmt: skip
