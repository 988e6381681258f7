"""A synthetic experiment: what the instrument recorded, and everything that is true about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg.errors import UsageError
from seg.labels import LabelSchema
from seg.metrics.table import Measurement, to_table
from seg.stack import Stack


class LazyArray:
    """An array whose items along the first axis are made when asked for; one stays in memory.

    Parameters
    ----------
    shape : tuple of int
    dtype : data-type
    make : callable
        Index along the first axis -> the item, an array of shape ``shape[1:]``.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, make: Callable[[int], np.ndarray]) -> None:
        self.shape, self.dtype, self._make = tuple(shape), np.dtype(dtype), make
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest] if rest else []
        if isinstance(first, (int, np.integer)):
            index = int(first) + (len(self) if first < 0 else 0)
            if not 0 <= index < len(self):
                raise IndexError(f"index {first} of an array of {len(self)} items")
            item = self._item(index)
            return item[tuple(rest)] if rest else item
        indices = range(len(self))[first] if isinstance(first, slice) else [int(i) for i in np.arange(len(self))[first]]
        if not len(indices):
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        return np.stack([self._item(i)[tuple(rest)] if rest else self._item(i) for i in indices])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)

    def _item(self, index: int) -> np.ndarray:
        if self._last is None or self._last[0] != index:
            item = np.asarray(self._make(index), self.dtype)
            item.setflags(write=False)
            self._last = (index, item)
        return self._last[1]


@dataclass(frozen=True)
class Experiment:
    """Images of a synthetic scene with its exact truth.

    Parameters
    ----------
    name, family : str
    seed : int
    modality : str
        A name of `seg.modality.MODALITIES`.
    images, labels : Stack
        What the instrument recorded and the class of each pixel (at its centre), on one grid; lazy along t or z.
    instances : Stack or None
        Object ids, stable over time; 0 = none.
    schema : LabelSchema
    truth : list of Measurement
        True values of metrics, from the parameters of the scene.
    cycler : DataFrame or None
        ``time_s``, ``voltage_V``, ``current_mA``, ``capacity_mAh`` on the cycler's own clock.
    clock_offset_s : float
        What the image clock shows at the cycler's zero: frame time = cycler time + offset.
    lineage : DataFrame or None
        One row per object: ``object_id``, ``birth_s``, ``death_s``, ``parents`` and where it sits.
    parameters : mapping
        Every argument the experiment was made with.
    """

    name: str
    family: str
    seed: int
    modality: str
    images: Stack
    labels: Stack
    schema: LabelSchema
    truth: list[Measurement]
    instances: Stack | None = None
    cycler: pd.DataFrame | None = None
    clock_offset_s: float = 0.0
    lineage: pd.DataFrame | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def truth_table(self) -> pd.DataFrame:
        """Truth with the columns of ``metrics.csv``."""
        return to_table(self.truth)

    def truth_value(self, metric: str, *, frame: int | None = None, **where: Any) -> float:
        """Look up the true value of a metric at a frame (None: of the whole series).

        `where` names further fields of `Measurement`; ``object_id`` and ``side`` are those of the whole frame unless
        given. KeyError unless there is just one such row.
        """
        where = {"object_id": None, "side": "", **where}
        rows = [
            m for m in self.truth
            if m.metric == metric and m.frame == frame and all(getattr(m, k) == v for k, v in where.items())
        ]  # fmt: skip
        if len(rows) != 1:
            raise KeyError(f"{self.name!r} has {len(rows)} true values of {metric!r} at frame {frame} with {where}.")
        return rows[0].value


FORMATS = {"tif": ".ome.tif", "zarr": ".ome.zarr"}


def write_experiment(experiment: Experiment, out_dir: Path | str, *, image_format: str = "tif") -> Path:
    """Write an experiment into a folder, one frame or volume in memory at a time.

    Parameters
    ----------
    experiment : Experiment
    out_dir : Path or str
        Made where it does not exist; files of the same names are replaced.
    image_format : str
        ``"tif"`` (OME-TIFF) or ``"zarr"`` (OME-Zarr).

    Returns
    -------
    Path
        The folder. It holds ``image.ome.tif`` (or ``.ome.zarr``), ``labels.ome.tif``, ``truth.csv``,
        ``experiment.json`` and, where the experiment has them, ``instances.ome.tif``, ``cycler.csv`` and
        ``lineage.csv``.
    """
    from seg.io import write_image, write_labels

    if image_format not in FORMATS:
        raise UsageError(f"There is no image format {image_format!r}; there are {', '.join(FORMATS)}.")
    folder, suffix = Path(out_dir), FORMATS[image_format]
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, instances = experiment.images, experiment.labels, experiment.instances
    write_image(folder / f"image{suffix}", _frames(images), shape=images.shape, dtype=images.dtype, axes=images.axes,
                calibration=images.calibration)  # fmt: skip
    write_labels(folder / f"labels{suffix}", _frames(labels), shape=labels.shape, axes=labels.axes,
                 calibration=labels.calibration, schema=experiment.schema)  # fmt: skip
    if instances is not None:
        write_image(folder / f"instances{suffix}", _frames(instances), shape=instances.shape, dtype=instances.dtype,
                    axes=instances.axes, calibration=instances.calibration)  # fmt: skip
    tables = {"truth": experiment.truth_table(), "cycler": experiment.cycler, "lineage": experiment.lineage}
    for name, table in tables.items():
        if table is not None:
            # Ten digits: the last ones of a double differ between processors.
            text = table.to_csv(index=False, float_format="%.10g", lineterminator="\n")
            (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="\n")
    text = json.dumps(describe(experiment), indent=2, ensure_ascii=False) + "\n"
    (folder / "experiment.json").write_text(text, encoding="utf-8", newline="\n")
    return folder


def _frames(stack: Stack) -> Iterator[np.ndarray]:
    return (stack.frame(index) for index in range(stack.n_frames))


def describe(experiment: Experiment) -> dict[str, Any]:
    """Content of ``experiment.json``: how the experiment was made and how its clocks relate."""
    stack = experiment.images
    return {
        "name": experiment.name,
        "family": experiment.family,
        "seed": experiment.seed,
        "modality": experiment.modality,
        "axes": stack.axes,
        "shape": list(stack.shape),
        "pixel_size_um": dict(stack.calibration.pixel_size_um),
        "frame_times_s": None if stack.frame_times_s is None else list(stack.frame_times_s),
        "clock_offset_s": experiment.clock_offset_s,
        "schema": experiment.schema.name,
        "parameters": {key: list(v) if isinstance(v, tuple) else v for key, v in experiment.parameters.items()},
    }
