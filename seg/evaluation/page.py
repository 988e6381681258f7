"""The scores as one HTML page that holds its styles itself."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import pandas as pd

from seg.evaluation.agreement import SCORES
from seg.io.results import atomic_path

TITLES = {
    "dice": "Dice", "iou": "IoU", "boundary_f1": "boundary F1", "hd95": "HD95", "object_f1": "object F1",
    "panoptic_quality": "panoptic quality",
}  # fmt: skip


def write_page(
    path: Path, *, scores: pd.DataFrame, images: pd.DataFrame, confusion: pd.DataFrame, errors: pd.DataFrame | None,
    title: str, analysis: str,
) -> Path:  # fmt: skip
    """Write ``evaluation.html``; `errors` is the summary of metric errors, or None."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("seg.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = {
        "title": title,
        "analysis": analysis,
        "css": files("seg.report").joinpath("report.css").read_text(encoding="utf-8"),
        "metrics": [f"{TITLES[m]}{_unit(scores, m)}" for m in SCORES],
        "classes": _class_rows(scores),
        "note": _note(scores),
        "confusion": _confusion(confusion),
        "errors": None if errors is None else [_error_row(row) for _, row in errors.iterrows() if _says_something(row)],
        "images": [
            (row["image"], row["specimen"], row["class"], *(_number(row[m]) for m in SCORES))
            for _, row in images.iterrows()
        ],
    }
    html = environment.get_template("page.html.j2").render(**page)
    with atomic_path(path) as part:
        part.write_text(html, encoding="utf-8", newline="\n")
    return path


def _unit(scores: pd.DataFrame, metric: str) -> str:
    unit = scores.loc[scores["metric"] == metric, "unit"].iloc[0]
    return "" if unit == "1" else f" ({unit.replace('um', 'µm')})"


def _note(scores: pd.DataFrame) -> str:
    """What the columns rest on, once: the tolerance of edges and what was resampled."""
    parts = [part for text in scores["method"] for part in text.split("; ")]
    told = dict.fromkeys(
        part for part in parts if part.startswith(("edges within", "interval over")) or "too few" in part
    )
    return "; ".join(told)


def _class_rows(scores: pd.DataFrame) -> list[dict]:
    """Per class the value and interval of each score; classes that never occur are listed apart, by n = 0."""
    rows = []
    for name in dict.fromkeys(scores["class"]):
        mine = scores[scores["class"] == name].set_index("metric")
        cells = []
        for metric in SCORES:
            if metric not in mine.index:
                cells.append(("–", ""))
                continue
            row = mine.loc[metric]
            interval = "" if math.isnan(row["low"]) else f"{_number(row['low'])} to {_number(row['high'])}"
            cells.append((_number(row["value"]), interval))
        rows.append({"name": name.replace("_", " "), "n": int(mine["n"].max()), "cells": cells})
    return rows


def _confusion(confusion: pd.DataFrame) -> dict | None:
    """Shares of the pixels of each true class, classes without any pixel left out."""
    rows = confusion[confusion.sum(axis=1) > 0]
    columns = [c for c in confusion.columns if confusion[c].sum() > 0 or c in rows.index]
    total = rows.sum(axis=1)
    return {
        "columns": [c.replace("_", " ") for c in columns],
        "rows": [
            (name.replace("_", " "), int(total[name]), [(rows.loc[name, c] / total[name], c == name) for c in columns])
            for name in rows.index
        ],
    }


def _says_something(row: pd.Series) -> bool:
    """Whether the number is ever other than zero: the share of a class that neither mask holds need not be shown."""
    return bool(row["truth"] or row["prediction"] or row["only_in_truth"] or row["only_in_prediction"])


def _error_row(row: pd.Series) -> dict:
    relative = row["relative_bias"]
    grade = (
        "" if math.isnan(relative) else "good" if abs(relative) < 0.05 else "fair" if abs(relative) < 0.2 else "poor"
    )
    inside = row["truth_in_interval"]
    return {
        "metric": " ".join(part for part in (row["metric"].replace("_", " "), row["side"]) if part),
        "class": row["class"].replace("_", " "),
        "level": row["level"], "unit": "" if row["unit"] == "1" else row["unit"].replace("um", "µm"), "n": row["n"],
        "truth": _number(row["truth"]), "prediction": _number(row["prediction"]),
        "relative_bias": _percent(relative), "median_relative_error": _percent(row["median_relative_error"]),
        "inside": "–" if math.isnan(inside) else f"{inside * row['n_intervals']:.0f} of {row['n_intervals']}",
        "grade": grade, "doubtful": "poor" if row["flags"] else "",
        "missing": int(row["only_in_truth"]), "extra": int(row["only_in_prediction"]),
    }  # fmt: skip


def _number(value: float) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:+.1f} %" if value else "0 %"
