"""Curves and histograms as small SVG pictures that travel inside the page."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.labels import LabelSchema
from seg.metrics.names import TEXT_METRICS
from seg.report.series import Axis, Series
from seg.report.words import class_text, power_text, side_text, unit_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito, the members that hold 3:1 against white; line styles tell the series apart without colour.
PALETTE = ("#0072b2", "#d55e00", "#00795a", "#b0578d", "#7a4b2a", "#333333")
STYLES = ("-", "--", "-.", ":", (0, (6, 1.5)), (0, (1, 1)))
SIDE_COLOURS = {
    "left": "#0072b2", "right": "#d55e00", "mean": "#333333", "plating": "#0072b2", "stripping": "#d55e00",
}  # fmt: skip
# Half-cycles: a faint ground and a strip along the top that names it.
BAND_COLOURS = {"plating": ("#f0f6fb", "#9cc4e4"), "stripping": ("#fdf4ec", "#f0b78c")}
INK, FAINT, GRID = "#1f2933", "#8a949e", "#e6e9ec"

MAX_POINTS = 400
MAX_SERIES = len(PALETTE)
MAX_LABEL = 36  # characters that fit beside a line in the legend of a panel
MIN_REL_SPAN = 0.002  # of an axis: what changes less is rounding, and its tick labels would be long
_WIDTH_IN, _LEFT_IN, _BOTTOM_IN = 3.7, 0.78, 0.46
_LETTER_IN = 0.07  # of a label, on average
_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8.8, "axes.labelsize": 8.8, "xtick.labelsize": 8.2,
    "ytick.labelsize": 8.2, "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK, "xtick.color": FAINT,
    "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID,
    "grid.linewidth": 0.7, "axes.axisbelow": True, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "xtick.major.size": 3, "ytick.major.size": 0, "svg.fonttype": "none", "svg.hashsalt": "operandoseg",
    "axes.formatter.limits": (-99, 99), "axes.formatter.useoffset": False, "axes.unicode_minus": True,
    "legend.frameon": False, "legend.fontsize": 8.2, "legend.handlelength": 1.8, "legend.borderaxespad": 0.0,
    "legend.columnspacing": 1.2, "legend.title_fontsize": 8.2,
    "axes.titlesize": 8.2, "axes.titlelocation": "left", "axes.titlecolor": "#52606d",
}  # fmt: skip


@contextmanager
def figure(
    plot_in: float, *, top_in: float = 0.27, width_in: float = _WIDTH_IN, **axes: Any
) -> Iterator[tuple[Figure, Any]]:
    """Make a figure whose panels are `plot_in` high in all, under `top_in` for a title or a legend.

    Margins are fixed, so that the small multiples of a row line up; laying each out anew costs most of the time of a
    report.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    height = top_in + plot_in + _BOTTOM_IN
    with rc_context(_STYLE):
        made = Figure(figsize=(width_in, height))
        panels = made.subplots(**axes)
        made.subplots_adjust(
            left=_LEFT_IN / width_in, right=1 - 0.12 / width_in, bottom=_BOTTOM_IN / height, top=1 - top_in / height
        )
        yield made, panels


def margins(made: Figure) -> dict[str, float]:
    """Margins of a figure, for a grid of panels of its own."""
    kept = made.subplotpars
    return {"left": kept.left, "right": kept.right, "bottom": kept.bottom, "top": kept.top}


def data_uri(made: Figure) -> str:
    """Write the figure as a data URI: equal figures give equal bytes, and text stays text in the reader's own font."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    made.patch.set_alpha(0)
    FigureCanvasSVG(made).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().replace("'DejaVu Sans'", _FONTS).replace("DejaVu Sans", _FONTS)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def contrasting(colour: str) -> str:
    """Darken a class colour until it holds 3:1 against white."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    while True:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        if 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3:
            return "#" + "".join(f"{round(float(c) * 255):02x}" for c in rgb)
        rgb = rgb * 0.94


def _colour(series: Series, index: int, schema: LabelSchema, several_classes: bool) -> str:
    if series.side in SIDE_COLOURS:
        return SIDE_COLOURS[series.side]
    if series.class_name in schema.names and several_classes:
        return contrasting(schema.by_name(series.class_name).color)
    return PALETTE[index % len(PALETTE)]


def curves(
    title: str, series: Sequence[Series], axis: Axis, bands: Sequence[tuple[float, float, str]], schema: LabelSchema
) -> str:
    """One metric against one axis, each series a line in its 95 % interval.

    Values that are flagged are hollow, frames without a value leave a gap and a tick at the foot of the panel.
    """
    drawn = series[:MAX_SERIES]
    classes = {s.class_name for s in drawn}
    # what all lines have in common stands once, above them
    common = class_text(drawn[0].class_name) if len(classes) == 1 else ""
    plain = ("chosen" if drawn[0].metric in TEXT_METRICS else "mean") if any(s.side for s in drawn) else ""
    labels = legend_labels([s.label if len(classes) > 1 else side_text(s.side) or plain or s.method for s in drawn])
    columns = max(1, min(len(labels), 42 // (max(map(len, labels)) + 6)))
    lines = -(-len(labels) // columns) + bool(common) if len(drawn) > 1 else 1
    everything = np.concatenate([v for s in drawn for v in (s.values, s.low, s.high)])
    power = power_of(everything)
    with figure(1.7, top_in=0.14 + 0.16 * lines) as (made, panel):
        shade(panel, bands)
        for index, (one, label) in enumerate(zip(drawn, labels, strict=True)):
            colour = _colour(one, index, schema, len(classes) > 1)
            line(panel, one, axis, 10.0**-power, colour, STYLES[index % len(STYLES)], label, index)
        name_axes(panel, axis, title, series[0].unit, power)
        if drawn[0].unit == "1" and all(not (s.values[np.isfinite(s.values)] % 1).any() for s in drawn):
            panel.yaxis.get_major_locator().set_params(integer=True)
        if len(drawn) > 1:
            corner = (_LEFT_IN / _WIDTH_IN, 1 - 0.06 / made.get_figheight())
            made.legend(
                loc="upper left", bbox_to_anchor=corner, ncols=columns, title=common or None,
                alignment="left", borderpad=0.0, labelspacing=0.25,
            )  # fmt: skip
        else:
            panel.set_title(drawn[0].label)
        return data_uri(made)


def legend_labels(labels: Sequence[str]) -> list[str]:
    """Shorten labels to what tells them apart: methods name conditions behind commas that fill a legend."""
    for separator in (";", ","):
        heads = [label.split(separator)[0] for label in labels]
        if len(set(heads)) == len(set(labels)) and max(map(len, labels)) > MAX_LABEL:
            labels = heads
    return [label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…" for label in labels]


def power_of(values: np.ndarray) -> int:
    """Power of ten to take out of the numbers of an axis, into its label; 0 where they are handy as they are."""
    largest = np.nanmax(np.abs(values), initial=0.0)
    power = int(np.floor(np.log10(largest))) if largest > 0 else 0
    return power if power >= 5 or power < -3 else 0


def line(
    panel: Axes, one: Series, axis: Axis, scale: float, colour: str, style: Any, label: str, index: int
) -> None:  # fmt: skip
    """Draw a series in its interval; gaps, flagged values and missing ones as `curves` says."""
    step = max(1, -(-len(one.frames) // MAX_POINTS))
    take = slice(None, None, step)
    x = axis.values[one.frames][take]
    y, low, high = (values[take] * scale for values in (one.values, one.low, one.high))
    doubtful = np.array([any(flag != "uncalibrated" for flag in flags) for flags in one.flags])[take]
    shown = np.isfinite(x) & np.isfinite(y)
    bounded = shown & np.isfinite(low) & np.isfinite(high)
    direction = np.sign(np.gradient(x)) if len(x) > 1 else np.zeros(len(x))
    for run in _runs(x):
        inside = bounded[run]
        panel.fill_between(x[run], low[run], high[run], where=inside, color=colour, alpha=0.18, linewidth=0, zorder=1.5)
    # an interval beside a frame without one has no width of its own: draw it as a bar
    alone = bounded & ~np.r_[False, bounded[:-1]] & ~np.r_[bounded[1:], False]
    if alone.any():
        panel.vlines(x[alone], low[alone], high[alone], color=colour, alpha=0.35, linewidth=1.2, zorder=1.5)
    panel.plot(np.where(shown, x, np.nan), y, color=colour, linestyle=style, linewidth=1.4, label=label, zorder=2.5)
    if len(x) <= 60:
        # along an axis that turns back, arrow heads tell the way
        marks = (
            [("o", shown)] if axis.monotonic else [(">", direction > 0), ("<", direction < 0), ("o", direction == 0)]
        )
        for marker, where in marks:
            at = shown & where
            size = 2.6 if marker == "o" else 3.4
            panel.plot(x[at], y[at], marker, color=colour, markersize=size, zorder=2.6)
    hollow = shown & doubtful
    panel.plot(
        x[hollow], y[hollow], "o", markersize=4.2, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.0,
        linestyle="none", zorder=3,
    )  # fmt: skip
    missing = np.isfinite(x) & ~np.isfinite(y)
    if axis.key == "time" and missing.any():
        # stacked a little, so that several series with gaps stay apart
        panel.plot(
            x[missing], np.full(missing.sum(), 0.012 + 0.035 * index), "|", color=colour, markersize=5,
            transform=panel.get_xaxis_transform(), clip_on=False, zorder=3,
        )  # fmt: skip


def _runs(x: np.ndarray) -> list[slice]:
    """Stretches over which `x` does not turn back; neighbours share the turning point."""
    known = np.flatnonzero(np.isfinite(x))
    steps = np.sign(np.diff(np.interp(np.arange(len(x)), known, x[known]))) if known.size else np.zeros(len(x))
    starts, way = [0], 0.0
    for i, step in enumerate(steps):
        if step and way and step != way:
            starts.append(i)
        way = step or way
    return [slice(a, b + 1) for a, b in zip(starts, [*starts[1:], len(x)], strict=True)]


def trace(title: str, unit: str, values: np.ndarray, axis: Axis, bands: Sequence[tuple[float, float, str]]) -> str:
    """One quantity of the cycler against time."""
    power = power_of(values)
    with figure(1.5, top_in=0.1) as (made, panel):
        shade(panel, bands)
        mark = "o" if len(values) <= 60 else None
        panel.plot(axis.values, values * 10.0**-power, color=INK, linewidth=1.3, marker=mark, markersize=2.4)
        name_axes(panel, axis, title, unit, power)
        return data_uri(made)


def histograms(title: str, unit: str, samples: Sequence[tuple[str, np.ndarray]], limit: float | None) -> str:
    """Draw counts of object sizes, one panel per sample on common bins; a line marks the detection limit."""
    everything = np.concatenate([values for _, values in samples])
    # Freedman-Diaconis on the fullest sample, bounded: fewer bins say nothing, more are noise
    fullest = max((values for _, values in samples), key=len)
    bins = np.histogram_bin_edges(fullest, "fd", range=(float(everything.min()), float(everything.max())))
    edges = np.linspace(bins[0], bins[-1], int(np.clip(len(bins), 9, 31)))
    n = len(samples)
    marked = limit is not None and limit < edges[-1]
    with figure(
        0.85 * n, top_in=0.45 if marked else 0.27, nrows=n, sharex=True, sharey=True, squeeze=False,
        gridspec_kw={"hspace": 0.42},
    ) as (made, panels):  # fmt: skip
        for panel, (label, values) in zip(panels[:, 0], samples, strict=True):
            panel.hist(values, bins=edges, color=PALETTE[0], alpha=0.85, edgecolor="white", linewidth=0.5)
            panel.set_title(f"{label}, n = {len(values)}", pad=4)
            panel.yaxis.get_major_locator().set_params(integer=True, nbins=3)
            if marked:
                dashed = panel.axvline(limit, color="#5f6b76", linewidth=1.0, linestyle="--")
        if marked:
            corner = (_LEFT_IN / _WIDTH_IN, 1 - 0.06 / made.get_figheight())
            made.legend([dashed], ["detection limit"], loc="upper left", bbox_to_anchor=corner, borderpad=0.0)
        panels[-1, 0].set_xlabel(with_unit(title, unit))
        name_rows(made, "objects")
        return data_uri(made)


def shade(panel: Axes, bands: Sequence[tuple[float, float, str]]) -> None:
    """Lay the half-cycles under a panel."""
    for start, stop, name in bands:
        ground, strip = BAND_COLOURS[name]
        panel.axvspan(start, stop, color=ground, linewidth=0, zorder=0.4)
        panel.axvspan(start, stop, ymin=0.975, color=strip, linewidth=0, zorder=0.5)


def name_axes(panel: Axes, axis: Axis, title: str, unit: str, power: int = 0) -> None:
    """Write what is drawn, with its unit and power of ten, beside both axes."""
    from matplotlib.transforms import blended_transform_factory

    panel.set_xlabel(axis.label)
    box, height = panel.get_position(), panel.figure.get_figheight()
    room_in = height * (box.height + 2 * min(box.y0, 1 - box.y1))  # the text may stand out above and below
    lines = textwrap.wrap(with_unit(title, unit, power), min(30, int(room_in / _LETTER_IN)))
    panel.set_ylabel("\n".join(lines), va="center")
    panel.yaxis.set_label_coords(
        (0.1 if len(lines) == 1 else 0.15) / panel.figure.get_figwidth(),
        0.5,
        transform=blended_transform_factory(panel.figure.transFigure, panel.transAxes),
    )
    panel.margins(x=0.03, y=0.12)
    panel.yaxis.get_major_locator().set_params(nbins=5)
    low, high = panel.get_ylim()
    lacking = MIN_REL_SPAN * max(abs(low), abs(high)) - (high - low)
    if lacking > 0:
        panel.set_ylim(low - lacking / 2, high + lacking / 2)
    # the same stretch in all panels, whichever frames have a value
    start, stop = np.nanmin(axis.values), np.nanmax(axis.values)
    if stop > start:
        panel.set_xlim(start - 0.03 * (stop - start), stop + 0.03 * (stop - start))
    if axis.label == "frame":
        panel.xaxis.get_major_locator().set_params(integer=True)
    longest = max(map(len, panel.xaxis.get_major_formatter().format_ticks(panel.get_xticks())))
    if longest > 5:
        panel.xaxis.get_major_locator().set_params(nbins=4)


def name_rows(made: Figure, text: str) -> None:
    """Write what is drawn upwards once, beside the middle of a column of panels."""
    kept = made.subplotpars
    made.text(
        (_LEFT_IN - 0.42) / made.get_figwidth(),
        (kept.bottom + kept.top) / 2,
        text,
        rotation=90,
        ha="center",
        va="center",
    )


def with_unit(title: str, unit: str, power: int = 0) -> str:
    """Name of a quantity with its unit in brackets."""
    text = "\u00a0".join(part for part in (power_text(power), unit_text(unit).replace(" ", "\u00a0")) if part)
    name = title[:1].lower() + title[1:] if not title[:2].isupper() else title
    return f"{name} ({text})" if text else name
