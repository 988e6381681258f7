"""What the page shows, as plain data for the template."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from seg.measure import headline_rows
from seg.metrics import METRIC_UNITS
from seg.metrics.names import text_result
from seg.report import figures
from seg.report.evolution import evolution, object_diameters
from seg.report.methods import extent_text, group_description, methods
from seg.report.saved import Saved
from seg.report.series import (
    OVER_OBJECTS,
    Axis,
    Series,
    absent_classes,
    axes_of,
    bands_of,
    electrochem_column,
    groups_of,
    half_cycles,
    in_report_units,
    of_classes_present,
    series_of,
)
from seg.report.words import (
    VIEW_WORDS,
    Number,
    class_text,
    count,
    duration,
    flag_list,
    flag_words,
    joined,
    metric_title,
    number,
    plain,
    time_unit,
    unit_text,
)

MAX_CARDS = 8
MAX_ROWS = 60
_TRACES = (("voltage_V", "Voltage", "V"), ("current_mA", "Current", "mA"), ("capacity_mAh", "Plated capacity", "mAh"))


def content(saved: Saved) -> dict[str, Any]:
    """Everything but the pictures of the key frames, for ``report.html.j2``."""
    everything = in_report_units(saved.metrics, saved.modality.length_unit)
    absent = absent_classes(everything)
    metrics = of_classes_present(everything, absent)
    series = series_of(metrics)
    axes = axes_of(saved)
    groups = _groups(saved, metrics, series, axes)
    cards = _cards(saved, metrics, series)
    diameters, unit = object_diameters(saved, metrics)
    over_time = evolution(saved, metrics, series, axes[0], diameters, unit)
    histograms_drawn = any(figure["title"] == "Sizes over time" for figure in over_time)
    return {
        "title": saved.analysis.get("title") or saved.analysis.get("name") or "Analysis",
        "name": saved.input.get("name", "input"),
        "description": saved.analysis.get("description", ""),
        "version": saved.run.get("operandoseg", ""),
        "created": saved.run.get("created", ""),
        "card": (saved.run.get("model") or {}).get("card", ""),
        "modality": saved.modality.title,
        "view": VIEW_WORDS.get(str(saved.analysis.get("view")), ""),
        "summary": _summary(saved, everything, absent),
        "cards": cards,
        "calibrated": bool(saved.pixel_size_um),
        "axes": axes,
        "has_bands": bool(bands_of(saved, axes[0])),
        "traces": _traces(saved, axes[0]),
        "groups": groups,
        "figures": over_time,
        "sizes": None if histograms_drawn else _sizes(saved, diameters, unit, metrics),
        "doubts": _doubts(saved, everything),
        "methods": methods(saved),
        "definitions": _definitions(saved, metrics),
        "provenance": _provenance(saved),
        "moments": {frame: moment(saved, frame) for frame in sorted({key.frame for key in saved.key_frames})},
    }


def moment(saved: Saved, frame: int) -> str:
    """Time, capacity and half-cycle of a frame, as far as they are known."""
    parts = [f"frame {frame}"] if saved.size("t") > 1 else []
    times = saved.frame_times_s
    if times is not None and saved.size("t") > 1 and frame < len(times):
        scale, unit = time_unit(float(times[-1] - times[0]) or 1.0)  # one unit for the whole series
        parts.append(f"{times[frame] / scale:.3g}\u00a0{unit}")
    capacity = electrochem_column(saved, "capacity_mAh")
    if capacity is not None and frame < len(capacity) and math.isfinite(capacity[frame]):
        parts.append(plain(float(capacity[frame]), "mAh"))
    names = half_cycles(saved)
    if frame < len(names) and names[frame]:
        parts.append(names[frame])
    return " · ".join(parts)


# --- summary --------------------------------------------------------------------------------------------------------


def _cards(saved: Saved, metrics: pd.DataFrame, series: list[Series]) -> list[dict[str, Any]]:
    """Headline numbers: those the analysis names, else the first of each group."""
    names = list(saved.analysis.get("headline") or ())
    if not names:
        names = [members[0] for members in groups_of(saved, metrics["metric"]).values()]
    cards = []
    for row in headline_rows(metrics, names).itertuples():
        shown, chance = _shown(row)
        flags = flag_list(row.flags)
        first = next(
            (s for s in series if (s.metric, s.class_name, s.side) == (row.metric, row[_CLASS], row.side)), None
        )
        when = [chance, _when(saved, row.frame, str(row.method))]
        note = _reason(flags) if not shown.reported else ", ".join(part for part in when if part)
        start = peak = None
        if shown.reported and not chance and first is not None and not pd.isna(row.frame) and len(first.frames) > 1:
            start = number(first.values[0], unit=first.unit)
            peak = _peak(first, row.frame)
        cards.append(
            {
                "title": metric_title(row.metric), "number": shown,
                "class": _of(str(row[_CLASS]), row.side if row.side != "mean" else ""),
                "note": note, "start": f"{start}, frame {first.frames[0]}" if start and start.reported else None,
                "peak": peak,
                "flags": [flag for flag in flags if flag != "uncalibrated"] if shown.reported else [],
            }
        )  # fmt: skip
    return cards[:MAX_CARDS]


def _peak(series: Series, frame: float) -> str | None:
    """The largest value and its frame, where it lies above the intervals of the first value and that of `frame`."""
    here = np.flatnonzero(series.frames == frame)
    if not here.size or np.isnan(series.values).all():  # the number is of another series, by another method
        return None
    at, ends = int(np.nanargmax(series.values)), [0, int(here[0])]
    bounds = np.fmax(series.values[ends], series.high[ends])
    if not series.values[at] > np.nanmax(bounds, initial=-np.inf):
        return None
    return f"{number(series.values[at], unit=series.unit)}, frame {series.frames[at]}"


def _shown(row: Any) -> tuple[Number, str]:
    """The result of a row, and the probability that goes with it where the result is a word."""
    shown = number(row.value, row.low, row.high, row.unit)
    word = text_result(row.metric, str(row.method)) if shown.reported else None
    if word is None:
        return shown, ""
    return Number(word), f"{'p' if row.metric == 'spatial_class' else 'probability'} {shown.bare}"


# itertuples renames the column "class" to its position; index 0 is the row label
_CLASS = 6


def _when(saved: Saved, frame: float, method: str) -> str:
    if math.isnan(frame):
        return "over the whole series" if saved.size("t") > 1 else ""
    over = "median over objects" if "over the objects" in method or method == OVER_OBJECTS else ""
    return ", ".join([part for part in (over, *moment(saved, int(frame)).split(" · ")[:2]) if part])


def _reason(flags: list[str]) -> str:
    reasons = [flag for flag in flags if flag != "uncalibrated"] or flags
    return " ".join(flag_words(flag) for flag in reasons) or "It is undefined for these masks."


def _summary(saved: Saved, metrics: pd.DataFrame, absent: list[str]) -> list[str]:
    """Sentences that say what was looked at and how much of it can be relied on."""
    times, doubtful = saved.frame_times_s, saved.run.get("frames_doubtful") or []
    span = ""
    if times is not None and times[-1] > times[0]:
        span = f" over {duration(float(times[-1] - times[0]))}"
    view = VIEW_WORDS.get(str(saved.analysis.get("view")), "")
    made = (
        "segmented by a trained model and measured"
        if saved.run.get("model")
        else "measured from masks given by the user"
    )
    extent, missing, n = extent_text(saved), int(metrics["value"].isna().sum()), saved.size("t")
    sentences = [
        f"{extent[:1].upper() + extent[1:]}{span}, {saved.modality.title}{' in ' + view if view else ''}, "
        f"{'was' if n == 1 else 'were'} {made}.",
        "No number was computed."
        if metrics.empty
        else f"{count(len(metrics), 'number')} {'was' if len(metrics) == 1 else 'were'} computed; "
        + (f"{missing} could not be trusted and {_is(missing)} not reported." if missing else "all are reported."),
    ]
    if doubtful:
        sentences.append(f"{count(len(doubtful), 'frame')} of {n} {_is(len(doubtful))} doubtful; see below.")
    if absent:
        sentences.append(f"The masks hold no {joined([class_text(name) for name in absent], 'or')}.")
    if not saved.pixel_size_um:
        sentences.append("The pixel size is unknown: lengths are in pixels.")
    return sentences


def _is(n: int) -> str:
    return "is" if n == 1 else "are"


# --- results --------------------------------------------------------------------------------------------------------


def _groups(saved: Saved, metrics: pd.DataFrame, series: list[Series], axes: list[Axis]) -> list[dict[str, Any]]:
    bands = {axis.key: bands_of(saved, axis) if axis.monotonic else [] for axis in axes}
    found = []
    for group, names in groups_of(saved, metrics["metric"]).items():
        members = [s for s in series if s.metric in names]
        rows = _rows(saved, metrics[metrics["metric"].isin(names)], members)
        flags = sorted({flag for row in rows for flag in row["flags"]})
        found.append(
            {
                "name": group, "title": metric_title(group) if group != "sei" else "SEI",
                "description": group_description(group),
                "panels": [p for name in names for p in _panels(saved, name, members, axes, bands)],
                "rows": rows, "series_table": saved.size("t") > 1,
                "by_frame": _by_frame(saved, members), "flags": [(flag, flag_words(flag)) for flag in flags],
            }
        )  # fmt: skip
    return found


def _panels(
    saved: Saved, name: str, members: list[Series], axes: list[Axis], bands: dict[str, list[tuple[float, float, str]]]
) -> list[dict[str, Any]]:
    """Draw the curves of one metric, one picture per axis; none where there is one frame or nothing to draw."""
    drawn = [s for s in members if s.metric == name and len(s.frames) > 1 and np.isfinite(s.values).sum() > 1]
    if not drawn or all(_is_constant(s) for s in drawn):
        return []
    # the largest, where there are more lines than can be told apart; in the order of the table
    left_out = len(drawn) - figures.MAX_SERIES
    largest = sorted(range(len(drawn)), key=lambda i: -float(np.nanmax(np.abs(drawn[i].values))))
    drawn = [drawn[i] for i in sorted(largest[: figures.MAX_SERIES])]
    pictures = []
    for axis in axes:
        if sum(int(np.isfinite(axis.values[s.frames] + s.values).sum()) for s in drawn) > 1:
            uri = figures.curves(metric_title(name), drawn, axis, bands[axis.key], saved.schema)
            pictures.append({"axis": axis.key, "uri": uri, "alt": _alt(name, drawn, axis)})
    notes = []
    if any(s.over_objects for s in drawn):
        notes.append(OVER_OBJECTS)
    if left_out > 0:
        notes.append(f"{left_out} smaller series not drawn")
    if any(len(s.frames) > figures.MAX_POINTS for s in drawn):
        notes.append(f"every {-(-max(len(s.frames) for s in drawn) // figures.MAX_POINTS)}th frame drawn")
    return [{"title": metric_title(name), "pictures": pictures, "note": "; ".join(notes)}]


def _is_constant(one: Series) -> bool:
    """Whether a series is one number for all frames without a width, which the table says better."""
    good = np.isfinite(one.values)
    bounds = np.concatenate([one.low[good], one.high[good]])
    known = np.concatenate([one.values[good], bounds[np.isfinite(bounds)]])
    return bool(np.ptp(known) <= 1e-9 * np.abs(known).max())


def _alt(name: str, drawn: list[Series], axis: Axis) -> str:
    texts = []
    for one in drawn:
        good = one.values[np.isfinite(one.values)]
        ends = f"from {number(good[0], unit=one.unit)} to {number(good[-1], unit=one.unit)}"
        texts.append(f"{one.label + ' ' if one.label else ''}{ends} ({len(good)} of {len(one.values)} frames reported)")
    return f"{metric_title(name)} against {axis.label}: {'; '.join(texts)}."


def _rows(saved: Saved, metrics: pd.DataFrame, members: list[Series]) -> list[dict[str, Any]]:
    """Rows of a group's table: numbers of the whole input first, then one row per series."""
    rows = []
    # A row with an object and no frame is that of a track; the median over the tracks stands for them.
    for row in metrics[metrics["frame"].isna() & metrics["object_id"].isna()].itertuples():
        flags = flag_list(row.flags)
        rows.append(
            _row(row.metric, str(row[_CLASS]), row.side, _shown(row)[0], flags)
            | {"when": "whole series" if saved.size("t") > 1 else "", "n": _n(row.n), "method": row.method}
        )
    for one in members:
        good = np.flatnonzero(np.isfinite(one.values))
        at = good[-1] if good.size else len(one.values) - 1
        shown = number(one.values[at], one.low[at], one.high[at], one.unit)
        ends = [number(f(one.values), unit=one.unit).bare for f in (np.nanmin, np.nanmax)] if good.size else None
        rows.append(
            _row(one.metric, one.class_name, one.side, shown, sorted({flag for flags in one.flags for flag in flags}))
            | {
                "when": moment(saved, int(one.frames[at])).split(" · ")[0] if len(one.frames) > 1 else "",
                "n": _n(one.n[at]), "method": one.method,
                "first": number(one.values[good[0]], unit=one.unit).bare if good.size else "–",
                "range": " to ".join(dict.fromkeys(ends)) if ends else "",
                "reported": f"{good.size} of {len(one.values)}",
            }
        )  # fmt: skip
    return rows


def _row(name: str, class_name: str, side: str, shown: Number, flags: list[str]) -> dict[str, Any]:
    return {"metric": metric_title(name), "name": name, "of": _of(class_name, side), "number": shown, "flags": flags}


def _of(class_name: str, side: str) -> str:
    return ", ".join(part for part in (class_text(class_name), side) if part)


def _n(n: float) -> str:
    return "" if math.isnan(n) else f"{int(n):,}".replace(",", "\u2009")


def _by_frame(saved: Saved, members: list[Series]) -> dict[str, Any] | None:
    """Every value of a group by frame, thinned to a readable number of rows."""
    n_frames = saved.size("t")
    members = [s for s in members if len(s.frames) > 1]
    if n_frames < 2 or not members:
        return None
    step = -(-n_frames // MAX_ROWS)
    frames = list(range(0, n_frames, step))
    columns = []
    for one in members:
        at = {int(frame): i for i, frame in enumerate(one.frames)}
        cells = []
        for frame in frames:
            i = at.get(frame)
            cells.append("" if i is None else str(number(one.values[i], one.low[i], one.high[i]))
                         .replace("not reported", "–"))  # fmt: skip
        unit = unit_text(one.unit)
        columns.append({"title": metric_title(one.metric), "of": one.label, "unit": unit, "cells": cells})
    times = saved.frame_times_s
    return {
        "frames": frames, "step": step, "columns": columns,
        "times": [f"{times[frame]:.6g}" for frame in frames] if times is not None else None,
    }  # fmt: skip


def _traces(saved: Saved, time: Axis) -> list[dict[str, str]]:
    """Voltage, current and capacity at the frames."""
    found = []
    for column, title, unit in _TRACES:
        values = electrochem_column(saved, column)
        if values is not None:
            uri = figures.trace(title, unit, values, time, bands_of(saved, time))
            low, high = np.nanmin(values), np.nanmax(values)
            alt = f"{title} at each frame against {time.label}, between {plain(low, unit)} and {plain(high, unit)}."
            found.append({"title": title, "uri": uri, "alt": alt})
    return found


def _sizes(saved: Saved, diameters: pd.DataFrame, unit: str, metrics: pd.DataFrame) -> dict[str, str] | None:
    """Histogram of object sizes at up to four frames, from objects.csv, else from the object rows of metrics.csv."""
    table = diameters[np.isfinite(diameters["value"])]
    if len(table) < 3:
        return None
    frames = [int(f) for f in sorted(table["frame"].unique())]
    if len(frames) > 4:
        frames = [frames[round(i * (len(frames) - 1) / 3)] for i in range(4)]
    samples = []
    for frame in frames:
        values = table.loc[table["frame"] == frame, "value"].to_numpy(float)
        samples.append((", ".join(moment(saved, frame).split(" · ")[:2]) or "all objects", values))
    limits = metrics.loc[metrics["metric"] == "detection_limit_diameter", "value"].dropna()
    limit = float(limits.iloc[0]) if len(limits) else None
    totals = ", ".join(f"{len(values)} at {label}" for label, values in samples)
    return {
        "title": "Object sizes", "uri": figures.histograms("Equivalent diameter", unit, samples, limit),
        "alt": f"Histograms of the equivalent diameter of objects: {totals}.",
    }  # fmt: skip


# --- doubts, definitions, provenance ----------------------------------------------------------------------------------


def _doubts(saved: Saved, metrics: pd.DataFrame) -> dict[str, Any]:
    flagged = Counter(flag for text in metrics["flags"] for flag in flag_list(text))
    missing = metrics[metrics["value"].isna()]
    unreported = []
    for name, rows in missing.groupby("metric", sort=False):
        total = int((metrics["metric"] == name).sum())
        reasons = Counter(flag for text in rows["flags"] for flag in flag_list(text) if flag != "uncalibrated")
        why = _reason([flag for flag, _ in reasons.most_common()])
        unreported.append({"metric": metric_title(str(name)), "share": f"{len(rows)} of {total}", "why": why})
    warnings = [str(text) for text in (saved.run.get("warnings") or [])] + saved.problems
    if metrics.empty:
        warnings.append("The run computed no number: its table of metrics is empty.")
    return {
        "warnings": warnings,
        "frames": saved.run.get("frames_doubtful") or [],
        "flags": [(flag, n, flag_words(flag)) for flag, n in flagged.most_common()],
        "unreported": unreported,
    }


def _definitions(saved: Saved, metrics: pd.DataFrame) -> list[dict[str, str]]:
    units = dict(zip(metrics["metric"], metrics["unit"], strict=True))
    found = []
    for names in groups_of(saved, metrics["metric"]).values():
        for name in names:
            text = METRIC_UNITS.get(name, ("", "No definition is stored in this version."))[1]
            found.append({"name": name, "title": metric_title(name), "unit": unit_text(units[name]), "text": text})
    return found


def _provenance(saved: Saved) -> list[tuple[str, list[tuple[str, str]]]]:
    run, given = saved.run, saved.input
    model = run.get("model") or {}
    shape = " × ".join(map(str, given.get("shape") or ()))
    sizes = ", ".join(f"{axis} {size:g}" for axis, size in saved.pixel_size_um.items())
    sections = [
        ("Run", [
            ("Software", f"OperandoSeg {run.get('operandoseg', '')}"), ("Made", run.get("created")),
            ("Command", run.get("command")), ("Device", run.get("device")),
        ]),
        ("Input", [
            ("Name", given.get("name")), ("Path", given.get("path")),
            ("Shape", f"{shape} ({given.get('axes', '')}), {given.get('dtype', '')}"),
            ("Fingerprint (SHA-256)", given.get("fingerprint")),
            ("Pixel size (µm)", sizes or "unknown"),
            ("Calibration from", given.get("calibration_source")),
            ("Relative standard deviation of the pixel size", given.get("pixel_size_rel_sd", "unknown")),
        ]),
        ("Model", [
            ("Name", model.get("name")), ("Weights (SHA-256)", model.get("weights_sha256")),
            *_flat(model.get("spec") or {}, skip=("name", "schema")),
        ] if model else [("Masks", "given by the user")]),
        ("Settings", [*_flat(run.get("settings") or {}), *_flat(run.get("normalisation") or {}, "normalisation ")]),
        ("Electrochemistry", _flat(run.get("electrochem") or {})),
        ("Seeds", _flat(run.get("seeds") or {})),
        ("Time taken (s)", _flat(run.get("timings_s") or {})),
        ("Versions", _flat(run.get("versions") or {})),
    ]  # fmt: skip
    kept = [(title, [(key, str(value)) for key, value in rows if value not in (None, "")]) for title, rows in sections]
    return [(title, rows) for title, rows in kept if rows]


def _flat(values: dict[str, Any], prefix: str = "", skip: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if key in skip:
            continue
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key} ")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            rows.append((f"{prefix}{key}".replace("_", " "), shown))
    return rows
