"""What a run saved, read back: the only source of a report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg.errors import DataError
from seg.labels import LabelSchema
from seg.metrics.table import COLUMNS
from seg.modality import MODALITIES, Modality

_KEY_FRAME = re.compile(r"^frame_(\d+)(?:_z(\d+))?_labels\.png$")


@dataclass(frozen=True)
class KeyFrame:
    """Pictures of one frame, or of one slice of a volume: 8-bit labels, and the grey image where there is one."""

    frame: int
    z: int | None
    labels: Path
    image: Path | None


@dataclass
class Saved:
    """A result folder in memory.

    Parameters
    ----------
    folder : Path
    run : mapping
        ``run.json``.
    metrics : DataFrame
        ``metrics.csv``; text columns hold ``""`` where nothing was written.
    objects, electrochem : DataFrame
        ``objects.csv`` and ``electrochem.csv``; empty where the run made none.
    key_frames : list of KeyFrame
    schema : LabelSchema
    """

    folder: Path
    run: Mapping[str, Any]
    metrics: pd.DataFrame
    objects: pd.DataFrame
    electrochem: pd.DataFrame
    key_frames: list[KeyFrame]
    schema: LabelSchema
    problems: list[str] = field(default_factory=list)

    @property
    def input(self) -> Mapping[str, Any]:
        """The input as ``run.json`` describes it."""
        return self.run.get("input") or {}

    @property
    def analysis(self) -> Mapping[str, Any]:
        """The analysis as ``run.json`` describes it."""
        return self.run.get("analysis") or {}

    @property
    def modality(self) -> Modality:
        """The modality; one this version does not know is spoken of by its name and in µm."""
        name = str(self.analysis.get("modality", "unknown"))
        return MODALITIES.get(name, Modality(name, name))

    @property
    def pixel_size_um(self) -> dict[str, float]:
        """Pixel size by axis; empty: uncalibrated."""
        return {axis: float(size) for axis, size in (self.input.get("pixel_size_um") or {}).items()}

    @property
    def frame_times_s(self) -> np.ndarray | None:
        """Time of each frame, or None."""
        times = self.input.get("frame_times_s")
        return np.asarray(times, float) if times else None

    def size(self, axis: str) -> int:
        """Length of the input along `axis`; 1 where it does not have it."""
        axes, shape = str(self.input.get("axes", "")), self.input.get("shape") or ()
        return int(shape[axes.index(axis)]) if axis in axes and len(shape) == len(axes) else 1


def read_saved(folder: Path) -> Saved:
    """Read a result folder; DataError says what is missing or damaged."""
    if not folder.is_dir():
        raise DataError(f"There is no result folder {folder}.")
    run = _run(folder / "run.json")
    metrics = _table(folder / "metrics.csv", needed=COLUMNS)
    for column in ("metric", "unit", "class", "side", "method", "flags"):
        metrics[column] = metrics[column].astype("object").where(metrics[column].notna(), "").astype(str)
    for column in ("value", "low", "high", "time_s", "frame", "object_id", "n"):
        metrics[column] = pd.to_numeric(metrics[column], errors="coerce").astype(float)
    objects, electrochem = (
        _table(path) if (path := folder / name).exists() else pd.DataFrame()
        for name in ("objects.csv", "electrochem.csv")
    )
    schema = LabelSchema.from_dict(run.get("schema") or {}, where=f"the schema in {folder / 'run.json'}")
    return Saved(folder, run, metrics, objects, electrochem, _key_frames(folder / "keyframes"), schema)


def _run(path: Path) -> Mapping[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} holds no run.json; expected the result folder of `operandoseg run` or `measure`."
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); run the analysis again.") from error
    if not isinstance(run, dict):
        raise DataError(f"{path} holds a {type(run).__name__}, expected keys and values; run the analysis again.")
    return run


def _table(path: Path, *, needed: tuple[str, ...] = ()) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, low_memory=False)
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} holds no {path.name}; run the analysis again.") from error
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not a readable table ({error}); run the analysis again.") from error
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; run the analysis again.")
    return table


def _key_frames(folder: Path) -> list[KeyFrame]:
    found = []
    for labels in sorted(folder.glob("*_labels.png")) if folder.is_dir() else []:
        match = _KEY_FRAME.match(labels.name)
        if match:
            image = labels.with_name(labels.name.replace("_labels.png", "_image.png"))
            z = int(match[2]) if match[2] else None
            found.append(KeyFrame(int(match[1]), z, labels, image if image.exists() else None))
    return found
