"""Label files against truth files: one pair or two folders, scored frame by frame, measured by the same analysis."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from seg.analysis import AnalysisConfig
from seg.errors import CalibrationError, DataError, NothingMatchedError, UsageError
from seg.evaluation.metric_errors import metric_errors, summarise_errors
from seg.evaluation.page import write_page
from seg.evaluation.scores import Evaluation
from seg.io import read_labels
from seg.io.registry import known_suffix
from seg.io.results import write_table
from seg.labels import UNLABELLED, LabelSchema, load_schema
from seg.metrics.table import Scale, read_table
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.tabulate import write_tables

logger = logging.getLogger(__name__)

RESULT = "labels.ome.tif", "labels.ome.zarr"


@dataclass(frozen=True)
class Pair:
    """A label file, the truth it is compared with, and what both are called."""

    name: str
    prediction: Path
    truth: Path


@dataclass(frozen=True)
class FileScores:
    """What was found: see `evaluate_files`."""

    scores: pd.DataFrame
    images: pd.DataFrame
    errors: pd.DataFrame | None


def find_pairs(prediction: Path, truth: Path) -> list[Pair]:
    """The label files of two folders under one name, or the two files given.

    A file is known by its name without the ending, and a folder that `operandoseg run` or `predict` made by the name
    of the folder. Every truth needs its prediction; what is predicted beyond is left out with a warning.
    """
    if _is_file(prediction) and _is_file(truth):
        return [Pair(_called(truth), prediction, truth)]
    if _is_file(prediction) != _is_file(truth):
        raise UsageError(f"Give two label files or two folders of them, not {prediction} and {truth}.")
    made, true = _label_files(prediction), _label_files(truth)
    missing = sorted(true.keys() - made.keys())
    if missing:
        shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        raise DataError(
            f"{prediction} has no prediction for {len(missing)} of the {len(true)} truth file(s): {shown}. "
            f"It has {', '.join(sorted(made)[:8])}."
        )
    extra = sorted(made.keys() - true.keys())
    if extra:
        logger.warning("%d prediction(s) without a truth are left out: %s", len(extra), ", ".join(extra[:8]))
    return [Pair(name, made[name], true[name]) for name in sorted(true)]


def _is_file(path: Path) -> bool:
    if not path.exists():
        raise NothingMatchedError(f"There is no file or folder {path}.")
    return path.is_file() or (known_suffix(path) and not path.is_symlink())


def _label_files(folder: Path) -> dict[str, Path]:
    """Label files of a folder by name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        inside = [path / name for name in RESULT if path.is_dir() and (path / name).exists()]
        if inside:
            found[_stem(path)] = inside[0]
        elif known_suffix(path):
            if _stem(path) in found:
                raise DataError(f"{folder} holds two label files called {_stem(path)!r}; which one is meant?")
            found[_stem(path)] = path
    if not found:
        raise NothingMatchedError(f"{folder} holds no label files.")
    return found


def _stem(path: Path) -> str:
    return re.sub(r"(\.ome)?(\.[A-Za-z0-9]+)$", "", path.name) if known_suffix(path) else path.name


def _called(path: Path) -> str:
    """Name of a label file; the folder's where all files of its kind have the same."""
    return path.absolute().parent.name if path.name in RESULT else _stem(path)


def evaluate_files(
    prediction: Path, truth: Path, out: Path, *, schema: str | Path | None = None, axes: str | None = None,
    pixel_size_um: Mapping[str, float] | None = None, tolerance_px: float = 1.0, tolerance_um: float | None = None,
    analysis: AnalysisConfig | None = None, specimen: str | None = None,
    prediction_map: Mapping[int, str] | None = None, truth_map: Mapping[int, str] | None = None,
    progress: Progress = silent,
) -> FileScores:  # fmt: skip
    """Compare label files with truth and write the scores to `out`.

    Parameters
    ----------
    prediction, truth : Path
        Two label files, or two folders with the same names in them (`find_pairs`).
    out : Path
        Gets ``evaluation.csv`` (scores over all), ``images.csv`` (scores of each image), ``confusion.csv``,
        ``evaluation.html``; with `analysis` also ``metric_errors.csv``, ``metric_summary.csv``, and the tables measured
        from both under ``measured/``.
    schema : str or Path or None
        What the labels mean; None: what the truth file says.
    axes, pixel_size_um
        Of files that do not say so themselves.
    tolerance_px, tolerance_um : float
        See `seg.evaluation.scores.Tally`.
    analysis : AnalysisConfig or None
        Measure truth and prediction by it and compare the numbers. Where the truth is unlabelled the prediction is
        left out too, so that both are measured on the same ground.
    specimen : str or None
        Regular expression with one group that finds the specimen in the name of a file; None: every file of a folder is
        a specimen, and of a single pair every frame, which says nothing about other specimens.
    prediction_map, truth_map : mapping of int to str or None
        Value in the files to class name, for masks made elsewhere; the classes are those of `schema`, else ``lithium``.
    progress : Progress

    Returns
    -------
    FileScores
        ``errors`` is None without `analysis`.
    """
    pairs = find_pairs(Path(prediction), Path(truth))
    specimens = _specimens(pairs, specimen)
    evaluation: Evaluation | None = None
    errors = []
    for pair in pairs:
        made, true, scale = _read(pair, schema, axes, pixel_size_um, (prediction_map, truth_map))
        if evaluation is None:
            unit = "specimen" if len(pairs) > 1 or specimen else "frame of one series"
            evaluation = Evaluation(
                true.schema, scale, tolerance_px=tolerance_px, tolerance_um=tolerance_um, resampled=unit
            )
            first = pair.name
        _check_alike(evaluation, true.schema, scale, first, pair.name)
        n = true.stack.n_frames
        for index in progress(range(n), total=n, desc=f"evaluate {pair.name}"):
            evaluation.add(
                made.stack.frame(index), true.stack.frame(index),
                image=f"{pair.name}[{index}]" if n > 1 else pair.name, specimen=specimens[pair.name],
                scale=scale,
            )  # fmt: skip
        if analysis is not None:
            found = _measure_both(pair, made, true, analysis, out / "measured", progress)
            found.insert(0, "image", pair.name)
            errors.append(found)
    assert evaluation is not None
    together = pd.concat(errors, ignore_index=True) if errors else None
    return _write(evaluation, together, out, pairs, analysis)


def _specimens(pairs: Sequence[Pair], pattern: str | None) -> dict[str, str | None]:
    if pattern is None:
        return {pair.name: pair.name if len(pairs) > 1 else None for pair in pairs}
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise UsageError(f"{pattern!r} needs one group (...): the name of the specimen.")
    found: dict[str, str | None] = {}
    for pair in pairs:
        match = expression.search(pair.name)
        if match is None or not match.group(1):
            raise DataError(f"There is no specimen in the name {pair.name!r} by {pattern!r}.")
        found[pair.name] = match.group(1)
    return found


def _read(
    pair: Pair,
    schema: str | Path | None,
    axes: str | None,
    pixel_size_um: Mapping[str, float] | None,
    maps: tuple[Mapping[int, str] | None, Mapping[int, str] | None],
) -> tuple[Segmentation, Segmentation, Scale]:
    """Both label files, checked to be of one grid, one meaning and one pixel size."""
    given = load_schema(schema) if schema is not None else None
    made, true = (
        read_labels(
            path, schema=given, default_schema=load_schema() if values else None, values=values, axes=axes,
            pixel_size_um=pixel_size_um,
        )
        for path, values in zip((pair.prediction, pair.truth), maps, strict=True)
    )  # fmt: skip
    if made.schema.names != true.schema.names:
        raise DataError(
            f"{pair.prediction.name} has the classes {', '.join(made.schema.names)} and {pair.truth.name} "
            f"{', '.join(true.schema.names)}; pass the schema that holds for both."
        )
    if (made.stack.n_frames, made.stack.spatial_shape) != (true.stack.n_frames, true.stack.spatial_shape):
        raise DataError(
            f"{pair.prediction.name} has {made.stack.n_frames} frame(s) of {made.stack.spatial_shape} and "
            f"{pair.truth.name} {true.stack.n_frames} of {true.stack.spatial_shape}; they must be the same grid."
        )
    sizes = made.stack.spacing_um, true.stack.spacing_um
    if sizes[0] is not None and sizes[1] is not None and not np.allclose(sizes[0], sizes[1], rtol=0.01):
        raise CalibrationError(
            f"{pair.prediction.name} has pixels of {sizes[0]} µm and {pair.truth.name} of {sizes[1]} µm; "
            "say which is right with --pixel-size."
        )
    return made, true, Scale.of(made.stack if sizes[0] is not None else true.stack)


def _check_alike(evaluation: Evaluation, schema: LabelSchema, scale: Scale, first: str, name: str) -> None:
    """One table can hold only what is of one kind."""
    if schema.names != evaluation.schema.names:
        raise DataError(f"{name} and {first} have different classes; pass the schema that holds for both.")
    if scale.calibrated != evaluation.scale.calibrated or len(scale.spacing) != len(evaluation.scale.spacing):
        raise CalibrationError(
            f"{name} and {first} cannot share a table of distances: only one has a pixel size, or only one is a "
            "volume. Pass --pixel-size, or evaluate them apart."
        )


def _measure_both(
    pair: Pair, made: Segmentation, true: Segmentation, analysis: AnalysisConfig, out: Path, progress: Progress
) -> pd.DataFrame:
    """The numbers of both masks side by side."""
    # times and pixel size of the truth hold for both: the difference is to be that of the masks
    calibration = true.stack.calibration
    if true.stack.spacing_um is None:
        calibration = calibration.updated(made.stack.calibration)
    tables = []
    for side, segmentation in (
        ("truth", true),
        ("prediction", replace(made, stack=_masked(made.stack, true.stack))),
    ):
        stack = replace(segmentation.stack, calibration=calibration, name=pair.name)
        folder = out / pair.name / side
        folder.mkdir(parents=True, exist_ok=True)
        write_tables(replace(segmentation, stack=stack), None, folder, analysis, source=pair.truth, progress=progress)
        tables.append(read_table(folder / "metrics.csv"))
    return metric_errors(tables[1], tables[0])


class _Masked:
    """Frames of a prediction, read when asked for, unlabelled where the truth is."""

    def __init__(self, made: Stack, true: Stack) -> None:
        self.made, self.true = made, true
        self.shape, self.dtype = made.data.shape, made.dtype

    def __getitem__(self, key: int | object) -> np.ndarray:
        index = key if isinstance(key, int) else 0
        return np.where(self.true.frame(index) == UNLABELLED, 0, self.made.frame(index)).astype(self.dtype)


def _masked(made: Stack, true: Stack) -> Stack:
    return replace(made, data=_Masked(made, true))


def _write(
    evaluation: Evaluation, errors: pd.DataFrame | None, out: Path, pairs: Sequence[Pair],
    analysis: AnalysisConfig | None,
) -> FileScores:  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    scores, images = evaluation.table(), evaluation.images()
    write_table(scores, out / "evaluation.csv")
    write_table(images, out / "images.csv")
    write_table(evaluation.confusion.reset_index(), out / "confusion.csv")
    summary = None
    if errors is not None:
        summary = summarise_errors(errors)
        write_table(errors, out / "metric_errors.csv")
        write_table(summary, out / "metric_summary.csv")
    write_page(
        out / "evaluation.html", scores=scores, images=images, confusion=evaluation.confusion, errors=summary,
        title=f"{len(pairs)} pair(s) of label files" if len(pairs) > 1 else _called(pairs[0].prediction),
        analysis=analysis.title if analysis is not None else "",
    )  # fmt: skip
    return FileScores(scores, images, errors)
