"""Plots in the colours of the viewer: curves with their intervals, on which a click finds the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import Signal

from napari_plugin.curves import FRAME, TIME, Curve, Results
from seg.report.words import class_text, in_length_unit, metric_title, time_unit, unit_text

COLORS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00")
GROUND, INK, FAINT = "#262930", "#e6e6e6", "#7f8791"
AXIS_TITLES = {FRAME: "frame", "voltage_V": "voltage / V", "capacity_mAh": "capacity / mAh"}
DOUBTFUL = {"low-confidence", "artifact-frame"}


def dress(axes: Any, *, x: str, y: str) -> None:
    """Titles, and the colours of the viewer."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.set_facecolor(GROUND)
    axes.tick_params(colors=INK)
    axes.grid(color=FAINT, alpha=0.25)
    for side in axes.spines.values():
        side.set_color(FAINT)


class CurvePlot(FigureCanvasQTAgg):
    """A metric over the frames of a result.

    Signals
    -------
    frame_clicked : (int,)
        The frame of the point nearest to a click.
    """

    frame_clicked = Signal(int)

    def __init__(self) -> None:
        super().__init__(Figure(figsize=(4, 3), layout="constrained", facecolor=GROUND))
        self.setMinimumHeight(240)
        self.results: Results | None = None
        self.curves: list[Curve] = []
        self.axes: Any = None
        self._per_x = self._per_y = 1.0  # what is drawn times these is what the tables say
        self.mpl_connect("button_press_event", self.clicked)

    def show_metric(self, results: Results, metric: str, against: str, frame: int) -> None:
        """Draw a metric; `frame` gets a ring."""
        self.results, self.curves = results, results.curves(metric, against)
        times = results.frame_times_s
        self._per_x, time = time_unit(float(np.ptp(times)) if len(times) else 0.0) if against == TIME else (1.0, "")
        factor, unit = in_length_unit(self.curves[0].unit, results.length_unit)
        self._per_y = 1 / factor
        self.figure.clear()
        self.axes = axes = self.figure.add_subplot()
        for n, curve in enumerate(self.curves):
            self._draw_curve(curve, COLORS[n % len(COLORS)])
        unit = unit_text(unit)
        title = f"time / {time}" if against == TIME else AXIS_TITLES.get(against, against.replace("_", " "))
        dress(axes, x=title, y=metric_title(metric) + (f" / {unit}" if unit else ""))
        axes.ticklabel_format(axis="y", scilimits=(-3, 5), useMathText=True)
        axes.yaxis.get_offset_text().set_color(INK)
        if any(curve.label != metric for curve in self.curves):
            axes.legend(fontsize=8, labelcolor=INK, facecolor=GROUND, edgecolor=FAINT)
        (self._ring,) = axes.plot([], [], "o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
        self.mark(frame)

    def _draw_curve(self, curve: Curve, color: str) -> None:
        order = np.argsort(curve.frames)
        x, value = curve.x / self._per_x, curve.value / self._per_y
        low, high = curve.low / self._per_y, curve.high / self._per_y
        doubtful = np.array([bool(DOUBTFUL & set(flags.split(";"))) for flags in curve.flags])
        self.axes.fill_between(x[order], low[order], high[order], color=color, alpha=0.25, linewidth=0)
        self.axes.plot(x[order], value[order], "-", color=color, linewidth=1.4, label=class_text(curve.label))
        self.axes.plot(x[~doubtful], value[~doubtful], "o", color=color, markersize=4)
        self.axes.plot(x[doubtful], value[doubtful], "o", color=color, markersize=5, markerfacecolor="none")

    def mark(self, frame: int) -> None:
        """A ring around the points of a frame."""
        if not self.curves:
            return
        here = [(c.x[i] / self._per_x, c.value[i] / self._per_y) for c in self.curves for i in _at(c, frame)]
        self._ring.set_data([x for x, _ in here], [y for _, y in here])
        self.draw_idle()

    def point(self, frame: int) -> tuple[float, float]:
        """Where the point of a frame lies on the canvas, in its pixels from below left: where one would click."""
        self.draw()
        (i, *_), curve = _at(self.curves[0], frame), self.curves[0]
        x, y = self.axes.transData.transform((curve.x[i] / self._per_x, curve.value[i] / self._per_y))
        return float(x), float(y)

    def clicked(self, event: Any) -> None:
        """Say which frame a click (a `matplotlib.backend_bases.MouseEvent`) means, where it means one."""
        if event.inaxes is None or self.results is None or not self.curves:
            return
        (left, right), (bottom, top) = self.axes.get_xlim(), self.axes.get_ylim()
        frame = self.results.nearest_frame(
            self.curves, event.xdata * self._per_x, event.ydata * self._per_y,
            x_range=(right - left) * self._per_x, y_range=(top - bottom) * self._per_y,
        )  # fmt: skip
        if frame is not None:
            self.frame_clicked.emit(frame)


def _at(curve: Curve, frame: int) -> list[int]:
    return [int(i) for i in np.flatnonzero(curve.frames == frame)]
