"""One page over all inputs of a run: headline numbers side by side, what failed, and what only all of them tell."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from seg.batch import RunResult
from seg.io.results import atomic_path
from seg.metrics.names import text_result
from seg.metrics.table import Measurement
from seg.study import density_against_current

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}: {{ rows|length }} inputs</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1b1f24 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { border-bottom: 1px solid #d5dae0; padding: .3rem .7rem }
th { text-align: left; vertical-align: bottom } th small, td small { display: block; font-weight: normal }
.wide { overflow-x: auto } td.number { text-align: right; font-variant-numeric: tabular-nums } small { color: #5b6570 }
img { max-width: 100% }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ rows|length }} inputs, {{ failed|length }} failed. Numbers are those of the whole series, or of its last frame;
brackets bound a 95 % interval; an empty cell was not reported.</p>
<div class="wide"><table><thead><tr><th>input</th>
{% for name, of, unit in columns %}<th>{{ name }}<small>{{ of }}</small><small>{{ unit }}</small></th>{% endfor %}
</tr></thead><tbody>
{% for row in rows %}<tr><td>
{% if row.link %}<a href="{{ row.link }}">{{ row.name }}</a>{% else %}{{ row.name }}{% endif %}</td>
{% for cell in row.cells %}
<td class="number">{{ cell.value }}<small>{{ cell.interval }}</small><small>{{ cell.flags }}</small></td>
{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% if slope %}<h2>Density against current density</h2>
<p>Slope of log density against log current density: {{ slope }}.</p>{% endif %}
{% if figure %}<img alt="Density of objects against current density, one point per input" src="{{ figure }}">{% endif %}
{% if failed %}<h2>Failed</h2><table><tbody>
{% for item in failed %}<tr><td>{{ item.source }}</td><td>{{ item.error }}</td></tr>{% endfor %}
</tbody></table>{% endif %}
<p><small>From summary.csv and failures.csv beside this page.</small></p>
</body></html>
"""


def write_study_page(results: Sequence[RunResult], title: str, path: Path) -> Path:
    """Write the page; names and messages come from files of others and are escaped.

    Parameters
    ----------
    results : sequence of RunResult
    title : str
        Of the analysis.
    path : Path
        Of the HTML file.
    """
    from jinja2 import Environment, StrictUndefined

    done = [result for result in results if not result.error]
    columns = list(dict.fromkeys(key for result in done for key in _cells(result)))
    rows = [
        {
            "name": result.folder.name,
            "link": f"{quote(result.folder.name)}/report.html" if (result.folder / "report.html").exists() else "",
            "cells": [_cells(result).get(key, {"value": "", "interval": "", "flags": ""}) for key in columns],
        }
        for result in results
    ]
    slope = density_against_current([result.folder for result in done])
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(_PAGE).render(
        title=title, columns=columns, rows=rows, failed=[r for r in results if r.error],
        slope=_text(slope) if slope is not None else "", figure=_figure(done),
    )  # fmt: skip
    with atomic_path(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _cells(result: RunResult) -> dict[tuple[str, str, str], dict[str, str]]:
    """Headline numbers by metric, class and side, and unit (empty for pure numbers)."""
    found = {}
    for row in result.headline.to_dict("records"):
        of = ", ".join(str(row[key]) for key in ("class", "side") if isinstance(row[key], str) and row[key])
        value, low, high = (float(row[key]) if pd.notna(row[key]) else math.nan for key in ("value", "low", "high"))
        unit = str(row["unit"])
        word = None if math.isnan(value) else text_result(str(row["metric"]), str(row.get("method") or ""))
        interval = "" if math.isnan(low) or math.isnan(value) else f"[{low:.4g}, {high:.4g}]"
        if word is not None:  # the number says how sure the word is
            interval = f"{'p' if row['metric'] == 'spatial_class' else 'probability'} {value:.2g}"
        found[str(row["metric"]).replace("_", " "), of, "" if unit == "1" else unit] = {
            "value": "" if math.isnan(value) else f"{value:.4g}" if word is None else word,
            "interval": interval,
            "flags": str(row["flags"] or "").replace(";", ", "),
        }
    return found


def _text(slope: Measurement) -> str:
    if math.isnan(slope.value):
        return f"not reported ({slope.method})"
    if math.isnan(slope.low):
        return f"{slope.value:.3g}, of two inputs, which give no interval"
    return f"{slope.value:.3g} [{slope.low:.3g}, {slope.high:.3g}]"


def _figure(results: Sequence[RunResult]) -> str:
    """Density of the last frame against current density, as a data URL; empty for fewer than two points."""
    points = []
    for result in results:
        headline: list[dict[str, Any]] = result.headline.to_dict("records")
        density = next((r for r in headline if r["metric"] in ("areal_density", "nucleation_density")), None)
        current = _current_density(result.folder)
        if density is not None and current and pd.notna(density["value"]) and density["unit"] == "1/cm2":
            points.append((current, density))
    if len(points) < 2:
        return ""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for current, density in points:
        value, low, high = (float(density[key]) for key in ("value", "low", "high"))
        bars = None if math.isnan(low) else [[value - low], [high - value]]
        axes.errorbar(current, value, bars, fmt="o", color="#0072b2", capsize=3)
    axes.set(xscale="log", yscale="log" if all(d["value"] > 0 for _, d in points) else "linear")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":  # powers of ten beside their parts overlap within a decade
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="current density (mA/cm2)", ylabel="density (1/cm2)")
    picture = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(picture, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(picture.getvalue()).decode("ascii")


def _current_density(folder: Path) -> float | None:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return float((record.get("electrochem") or {}).get("current_density_mA_per_cm2") or 0) or None
    except (OSError, ValueError, TypeError):
        return None
