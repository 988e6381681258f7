"""One input from pixels to masks, numbers and a report: the engine behind every door."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from seg import __version__
from seg.analysis import AnalysisConfig
from seg.batch import RunResult, each_input
from seg.electrochem import CyclerFile
from seg.errors import DataError
from seg.io import fingerprint, open_stack, read_labels, write_labels
from seg.io.results import write_json
from seg.keyframes import save_key_frames
from seg.labels import load_schema
from seg.measure import headline_rows
from seg.metrics.table import read_table
from seg.modality import modality
from seg.progress import Progress, silent
from seg.segmentation import Provenance, Segmentation
from seg.slabs import open_slabs
from seg.stack import Stack
from seg.stages import is_done, key_of, mark_done, work_dir
from seg.tabulate import TABLES, Tabulated, write_tables

logger = logging.getLogger(__name__)

RESULTS = ("run.json", "report.html", "labels.ome.tif", *TABLES)


@dataclass(frozen=True)
class RunOptions:
    """What a user says about the inputs beyond the analysis.

    Parameters
    ----------
    axes : str or None
        Axes of the inputs where the files do not state them.
    pixel_size_um : mapping or None
    frame_interval_s : float or None
    dataset : str or None
        Data set inside an HDF5 file.
    schema : str or None
        Schema of label files made elsewhere; None: what they say, else the schema of the analysis.
    label_map : mapping of int to str or None
        Value in label files made elsewhere to class name.
    image : Path or None
        The image that belongs to a label file (`measure`).
    echem : Path or None
        Cycler file.
    echem_clock, echem_offset_s, echem_drift_s_per_h, electrode_area_cm2, plating_current
        How it is put on the frames, as in `seg.electrochem.CyclerFile`.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    command : str
        The command line, kept in ``run.json``.
    """

    axes: str | None = None
    pixel_size_um: Mapping[str, float] | None = None
    frame_interval_s: float | None = None
    dataset: str | None = None
    schema: str | None = None
    label_map: Mapping[int, str] | None = None
    image: Path | None = None
    echem: Path | None = None
    echem_clock: Literal["offset", "files", "coverage"] = "offset"
    echem_offset_s: float | None = None
    echem_drift_s_per_h: float = 0.0
    electrode_area_cm2: float | None = None
    plating_current: Literal["negative", "positive"] = "negative"
    device: str = "auto"
    command: str = ""

    @property
    def cycler(self) -> CyclerFile | None:
        """The cycler file with everything said about it."""
        if self.echem is None:
            return None
        return CyclerFile(
            self.echem, self.echem_clock, self.echem_offset_s, self.echem_drift_s_per_h, self.electrode_area_cm2,
            self.plating_current,
        )  # fmt: skip


def run(
    inputs: Sequence[Path], config: AnalysisConfig, out: Path, options: RunOptions, *, progress: Progress = silent
) -> list[RunResult]:
    """Segment, measure and report every input; a bad one is listed and the others go on.

    Parameters
    ----------
    inputs : sequence of Path
        Files, or folders that hold one series each.
    config : AnalysisConfig
    out : Path
        One folder per input is made in it, and ``summary.csv`` and ``failures.csv``.
    options : RunOptions
    progress : Progress

    Returns
    -------
    list of RunResult
        In the order of `inputs`.
    """
    load = _model_loader(config, options)
    return each_input(inputs, out, lambda path, folder: run_one(path, folder, config, options, load, progress))


def measure(
    inputs: Sequence[Path], config: AnalysisConfig, out: Path, options: RunOptions, *, progress: Progress = silent
) -> list[RunResult]:
    """Numbers and report from label files made elsewhere; torch is never loaded."""
    return each_input(inputs, out, lambda path, folder: measure_one(path, folder, config, options, progress))


def predict(
    inputs: Sequence[Path], config: AnalysisConfig, out: Path, options: RunOptions, *, progress: Progress = silent
) -> list[RunResult]:
    """Masks only."""
    load = _model_loader(config, options)

    def one(path: Path, folder: Path) -> pd.DataFrame:
        _segment(_open(path, options), path, folder, config, options, load, progress)
        return pd.DataFrame()

    return each_input(inputs, out, one)


def run_one(
    path: Path, folder: Path, config: AnalysisConfig, options: RunOptions, load_model: Callable[[], Any],
    progress: Progress = silent,
) -> pd.DataFrame:  # fmt: skip
    """One input from pixels to report; returns the headline rows of its metrics."""
    started = time.monotonic()
    stack = _open(path, options)
    segmentation, made = _segment(stack, path, folder, config, options, load_model, progress)
    timings = {"segment": time.monotonic() - started}
    return _measure(segmentation, stack, path, folder, config, options, made, timings, progress)


def measure_one(
    path: Path, folder: Path, config: AnalysisConfig, options: RunOptions, progress: Progress = silent
) -> pd.DataFrame:
    """One label file from masks to report; returns the headline rows of its metrics."""
    segmentation = read_labels(
        path,
        schema=load_schema(options.schema) if options.schema else None,
        default_schema=load_schema(config.schema),
        values=options.label_map,
        axes=options.axes,
        pixel_size_um=options.pixel_size_um,
        frame_interval_s=options.frame_interval_s,
    )
    image = _open(options.image, options) if options.image else None
    if image is not None and (image.n_frames, image.spatial_shape) != (
        segmentation.stack.n_frames,
        segmentation.stack.spatial_shape,
    ):
        raise DataError(
            f"{image.name!r} has {image.n_frames} frame(s) of {image.spatial_shape} but {segmentation.stack.name!r} "
            f"has {segmentation.stack.n_frames} of {segmentation.stack.spatial_shape}; they must be the same grid."
        )
    labels_path = folder / "labels.ome.tif"
    key = key_of(
        labels=fingerprint(path), axes=segmentation.stack.axes, calibration=segmentation.stack.calibration,
        schema=segmentation.schema, label_map=options.label_map, version=__version__,
    )  # fmt: skip
    if not is_done(folder, "labels", key):
        _forget_results(folder, "segment")
        write_segmentation(segmentation, labels_path)
        mark_done(folder, "labels", key, [labels_path])
    return _measure(segmentation, image, path, folder, config, options, {}, {}, progress)


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Save a segmentation frame by frame with everything needed to read it back."""
    stack = segmentation.stack
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labels(
        path, (stack.frame(t) for t in range(stack.n_frames)), shape=stack.shape, axes=stack.axes,
        calibration=stack.calibration, schema=segmentation.schema, provenance=segmentation.provenance,
    )  # fmt: skip


# --- stages ---------------------------------------------------------------------------------------------------------


def _open(path: Path, options: RunOptions) -> Stack:
    return open_stack(
        path,
        axes=options.axes,
        pixel_size_um=options.pixel_size_um,
        frame_interval_s=options.frame_interval_s,
        dataset=options.dataset,
    )


def _model_loader(config: AnalysisConfig, options: RunOptions) -> Callable[[], Any]:
    """A function that loads the model once, when the first input needs it."""
    loaded: list[Any] = []

    def load() -> Any:
        if not loaded:
            from seg.models.bundle import find_model, load_bundle

            name = find_model(config.model, modality=config.modality)
            loaded.append(load_bundle(name, device=options.device, schema=load_schema(config.schema)))
            logger.info("model %s (%s)", loaded[0].spec.name, loaded[0].weights_sha256[:12])
        return loaded[0]

    return load


def _segment(
    stack: Stack, path: Path, folder: Path, config: AnalysisConfig, options: RunOptions, load_model: Callable[[], Any],
    progress: Progress,
) -> tuple[Segmentation, dict[str, Any]]:  # fmt: skip
    """The masks of one input, from where an earlier run left off; and how they were made, for ``run.json``."""
    from seg.inference import InferenceSettings, segment
    from seg.preprocess import SeriesNormalisation

    bundle = load_model()
    settings = InferenceSettings(device=options.device)
    key = key_of(
        input=fingerprint(path), axes=stack.axes, shape=stack.shape, dataset=options.dataset,
        weights=bundle.weights_sha256, settings=settings, modality=config.modality, schema=config.schema,
        calibration=(dict(stack.calibration.pixel_size_um), stack.frame_times_s), version=__version__,
    )  # fmt: skip
    labels_path = folder / "labels.ome.tif"
    made_path = work_dir(folder) / "made.json"
    schema = load_schema(config.schema)
    if not is_done(folder, "segment", key):
        _forget_results(folder, "segment")
        slabs = open_slabs(work_dir(folder), key)
        normalisation = SeriesNormalisation.fit(stack, modality(config.modality).normalisation_percentiles)
        parts = segment(
            stack, bundle, settings=settings, normalisation=normalisation, finished=slabs.finished(), progress=progress
        )
        for part in parts:
            slabs.save(part)
        made = {
            "model": {
                "name": bundle.spec.name, "weights_sha256": bundle.weights_sha256, "spec": bundle.spec.to_dict(),
                "card": bundle.card,
            },
            "normalisation": {"low": normalisation.low, "high": normalisation.high},
            "confidence": slabs.confidence(stack.n_frames), "fingerprint": fingerprint(path),
            "settings": asdict(settings),
        }  # fmt: skip
        axes = stack.axes.replace("c", "")
        shape = tuple(stack.size(axis) for axis in axes)
        provenance = Provenance(
            software=f"operandoseg {__version__}", model=bundle.spec.name, model_sha256=bundle.weights_sha256,
            input_fingerprint=made["fingerprint"],
        )  # fmt: skip
        write_labels(
            labels_path, slabs.frames(stack.n_frames), shape=shape, axes=axes, calibration=stack.calibration,
            schema=schema, provenance=provenance,
        )  # fmt: skip
        write_json(made, made_path)
        mark_done(folder, "segment", key, [labels_path, made_path])
        slabs.remove()
    segmentation = read_labels(labels_path, schema=schema)
    named = replace(segmentation, stack=replace(segmentation.stack, name=stack.name))
    return named, json.loads(made_path.read_text(encoding="utf-8"))


def _measure(
    segmentation: Segmentation, image: Stack | None, path: Path, folder: Path, config: AnalysisConfig,
    options: RunOptions, made: dict[str, Any], timings: dict[str, float], progress: Progress,
) -> pd.DataFrame:  # fmt: skip
    """Objects, metrics, key frames, ``run.json`` and the report of one segmentation."""
    from seg.report import write_report

    stack = segmentation.stack
    labels_print = fingerprint(folder / "labels.ome.tif" if made else path)
    key = key_of(
        labels=labels_print, image=fingerprint(options.image) if options.image else None, analysis=config.to_dict(),
        calibration=(dict(stack.calibration.pixel_size_um), stack.frame_times_s), schema=segmentation.schema.to_dict(),
        echem=fingerprint(options.echem) if options.echem else None, echem_options=options.cycler, version=__version__,
    )  # fmt: skip
    outputs = [folder / name for name in ("metrics.csv", "run.json", "report.html")]
    if not is_done(folder, "measure", key):
        _forget_results(folder, "measure")
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        doubtful = _doubtful_frames(made.get("confidence", []), config.min_confidence)
        said = write_tables(
            segmentation, image, folder, config, source=options.image or path, cycler=options.cycler,
            doubtful={d["frame"] for d in doubtful}, progress=progress,
        )  # fmt: skip
        timings = {**timings, "measure": time.monotonic() - started}
        save_key_frames(segmentation, image, folder / "keyframes", config.key_frames)
        record = _record(segmentation, path, config, options, made, timings, doubtful, said)
        write_json(record, folder / "run.json")
        write_report(folder)
        mark_done(folder, "measure", key, outputs)
    return headline_rows(read_table(folder / "metrics.csv"), config.headline)


def _forget_results(folder: Path, stage: str) -> None:
    """Remove what a stage is about to make again, so that old results are never taken for new ones."""
    keep = {"labels.ome.tif"} if stage == "measure" else set()
    for name in RESULTS:
        if name not in keep:
            (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "keyframes", ignore_errors=True)


def _doubtful_frames(confidence: Sequence[float], minimum: float) -> list[dict[str, Any]]:
    return [
        {"frame": index, "reason": f"mean class probability {value:.2f} is below {minimum:.2f}"}
        for index, value in enumerate(confidence)
        if value < minimum
    ]


def _record(
    segmentation: Segmentation, path: Path, config: AnalysisConfig, options: RunOptions, made: dict[str, Any],
    timings: dict[str, float], doubtful: list[dict[str, Any]], said: Tabulated,
) -> dict[str, Any]:  # fmt: skip
    """Everything needed to do it again."""
    stack = segmentation.stack
    return {
        "operandoseg": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": options.command,
        "input": {
            "name": path.name,
            "path": str(path),
            "shape": stack.shape,
            "axes": stack.axes,
            "dtype": str(stack.dtype),
            "fingerprint": made.get("fingerprint") or fingerprint(path),
            "pixel_size_um": dict(stack.calibration.pixel_size_um),
            "frame_times_s": stack.frame_times_s,
            "calibration_source": stack.calibration.source,
        },
        "analysis": config.to_dict(),
        "schema": segmentation.schema.to_dict(),
        "model": made.get("model"),
        "normalisation": made.get("normalisation"),
        "settings": {**made.get("settings", {}), "image": str(options.image) if options.image else None},
        "device": options.device,
        "seeds": {"bootstrap": 0},
        "timings_s": {stage: round(seconds, 2) for stage, seconds in timings.items()},
        "versions": _versions(),
        "warnings": said.warnings,
        "frames_doubtful": doubtful,
        "electrochem": said.electrochem,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "scikit-image", "tifffile", "pandas", "torch")}
