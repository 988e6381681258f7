"""One input from pixels to masks, numbers and a report: the engine behind every door."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seg import __version__
from seg.analysis import AnalysisConfig
from seg.batch import RunResult, each_input, result_folders
from seg.blocks import slabs, too_large
from seg.doubt import Confidence, Doubts
from seg.errors import DataError
from seg.io import fingerprint, open_stack, read_labels, write_labels
from seg.io.labels import create_labels
from seg.io.results import atomic_path, remove, write_json
from seg.io.writing import write_planes
from seg.keyframes import save_key_frames
from seg.labels import load_schema
from seg.manifest import Entry
from seg.mask_samples import MaskSampler
from seg.masks import LABEL_FILES, cleaned_frames, labels_of, make_masks, rules_of, unseen_warnings
from seg.measure import headline_rows
from seg.metrics.table import read_table
from seg.options import RunOptions
from seg.postprocess import Changed
from seg.preprocess import SeriesNormalisation, read_grey
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.stages import is_done, key_of, mark_done, work_dir
from seg.study_page import write_study_page
from seg.tabulate import TABLES, Tabulated, pixel_size_rel_sd, write_tables
from seg.volumes import planes

logger = logging.getLogger(__name__)

# Share of the pixels of a class that the clean-up may add or remove without a warning; a class of less than a
# thousandth of all pixels is specks to begin with.
AREA_CHANGE_TOLD = 0.05
RESULTS = ("run.json", "report.html", *LABEL_FILES, *TABLES)


def run(
    inputs: Sequence[Path | Entry],
    config: AnalysisConfig,
    out: Path,
    options: RunOptions,
    *,
    progress: Progress = silent,
) -> list[RunResult]:
    """Segment, measure and report every input; a bad one is listed and the others go on.

    Parameters
    ----------
    inputs : sequence of (Path or Entry)
        Files, or folders that hold one series each; entries of a manifest have options of their own.
    config : AnalysisConfig
    out : Path
        One folder per input is made in it, and ``summary.csv`` and ``failures.csv``; for several inputs ``study.html``.
    options : RunOptions
    progress : Progress

    Returns
    -------
    list of RunResult
        In the order of `inputs`.
    """
    load = _model_loader(config, options)

    def one(path: Path, folder: Path, own: RunOptions) -> pd.DataFrame:
        return run_one(path, folder, config, own, load, progress)

    return _study(_each(inputs, out, options, one), config, out)


def measure(
    inputs: Sequence[Path | Entry],
    config: AnalysisConfig,
    out: Path,
    options: RunOptions,
    *,
    progress: Progress = silent,
) -> list[RunResult]:
    """Numbers and report from label files made elsewhere; torch is never loaded."""

    def one(path: Path, folder: Path, own: RunOptions) -> pd.DataFrame:
        return measure_one(path, folder, config, own, progress)

    return _study(_each(inputs, out, options, one), config, out)


def predict(
    inputs: Sequence[Path | Entry],
    config: AnalysisConfig,
    out: Path,
    options: RunOptions,
    *,
    progress: Progress = silent,
) -> list[RunResult]:
    """Masks only."""
    load = _model_loader(config, options)

    def one(path: Path, folder: Path, own: RunOptions) -> pd.DataFrame:
        make_masks(_open(path, own), path, folder, config, own, load, _forget_masks(folder), progress)
        return pd.DataFrame()

    return _each(inputs, out, options, one)


def _each(
    inputs: Sequence[Path | Entry], out: Path, options: RunOptions,
    one: Callable[[Path, Path, RunOptions], pd.DataFrame],
) -> list[RunResult]:  # fmt: skip
    entries = [item if isinstance(item, Entry) else Entry(item) for item in inputs]
    paths, names = [entry.path for entry in entries], [entry.name for entry in entries]
    own = dict(zip(result_folders(paths, out, names), (entry.options(options) for entry in entries), strict=True))
    return each_input(paths, out, lambda path, folder: one(path, folder, own[folder]), names=names)


def _study(results: list[RunResult], config: AnalysisConfig, out: Path) -> list[RunResult]:
    """Write the page over all inputs where there are several."""
    if len(results) > 1:
        write_study_page(results, config.title, out / "study.html")
    return results


def run_one(
    path: Path, folder: Path, config: AnalysisConfig, options: RunOptions, load_model: Callable[[Stack], Any],
    progress: Progress = silent,
) -> pd.DataFrame:  # fmt: skip
    """One input from pixels to report; returns the headline rows of its metrics."""
    started = time.monotonic()
    stack = _open(path, options)
    segmentation, made = make_masks(stack, path, folder, config, options, load_model, _forget_masks(folder), progress)
    # Masks made before do not know what is said of the pixel size now.
    known = replace(segmentation.stack.calibration, pixel_size_rel_sd=stack.calibration.pixel_size_rel_sd)
    segmentation = replace(segmentation, stack=segmentation.stack.with_calibration(known))
    timings = {"segment": time.monotonic() - started}
    sampler = _mask_sampler(stack, config, options, made, lambda: load_model(stack))
    return _measure(segmentation, stack, path, folder, config, options, made, timings, progress, sampler=sampler)


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
        pixel_size_rel_sd=options.pixel_size_rel_sd,
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
    labels_path = folder / LABEL_FILES[too_large(segmentation.stack.spatial_shape)]
    key = key_of(
        labels=fingerprint(path), axes=segmentation.stack.axes, calibration=segmentation.stack.calibration,
        schema=segmentation.schema, label_map=options.label_map, version=__version__,
    )  # fmt: skip
    rules = rules_of(segmentation.stack, config, options, cleans=False)
    key = key if rules is None else key_of(labels=key, postprocess=rules.to_dict())
    changed_path = folder / ".work" / "postprocess.json"
    if not is_done(folder, "labels", key):
        _forget_results(folder, "segment")
        if rules is None:
            write_segmentation(segmentation, labels_path)
            mark_done(folder, "labels", key, [labels_path])
        else:
            stack, changed = segmentation.stack, Changed()
            described = {
                "shape": stack.shape, "axes": stack.axes, "calibration": stack.calibration,
                "schema": segmentation.schema, "provenance": segmentation.provenance,
            }  # fmt: skip
            write_labels(labels_path, cleaned_frames(stack.frame, stack.n_frames, rules, changed), **described)
            work_dir(folder)
            write_json(changed.by_class(segmentation.schema), changed_path)
            mark_done(folder, "labels", key, [labels_path, changed_path])
    cleaned = None
    if rules is not None:
        cleaned = json.loads(changed_path.read_text(encoding="utf-8"))
        again = read_labels(labels_path, schema=segmentation.schema).stack
        own = replace(again, name=segmentation.stack.name, calibration=segmentation.stack.calibration)
        segmentation = replace(segmentation, stack=own)
    return _measure(segmentation, image, path, folder, config, options, {}, {}, progress, cleaned)


def write_segmentation(segmentation: Segmentation, path: Path) -> None:
    """Save a segmentation with everything needed to read it back: frame by frame, or slab by slab as OME-Zarr."""
    stack = segmentation.stack
    path.parent.mkdir(parents=True, exist_ok=True)
    described: dict[str, Any] = {
        "shape": stack.shape, "axes": stack.axes, "calibration": stack.calibration, "schema": segmentation.schema,
        "provenance": segmentation.provenance,
    }  # fmt: skip
    if path.suffix != ".zarr":
        write_labels(path, (stack.frame(t) for t in range(stack.n_frames)), **described)
        return
    with atomic_path(path) as part:
        create_labels(part, **described)
        for index in range(stack.n_frames):
            for slab in slabs(stack.spatial_shape, halo=0):
                write_planes(part, stack.axes, index, slab.owned.start, planes(stack, index, slab.owned))


# --- stages ---------------------------------------------------------------------------------------------------------


def _open(path: Path, options: RunOptions) -> Stack:
    return open_stack(path, **options.reading)


def _model_loader(config: AnalysisConfig, options: RunOptions) -> Callable[[Stack], Any]:
    """A function that gives the model for an input, each loaded once, when the first input needs it."""
    loaded: dict[str, Any] = {}

    def load(stack: Stack) -> Any:
        from seg.models.bundle import find_model, load_bundle

        pixel_size_um = stack.calibration.pixel_size_um.get("x")
        fitting = {"modality": config.modality, "view": config.view, "pixel_size_um": pixel_size_um}
        name = str(find_model(config.model, **fitting))
        if name not in loaded:
            loaded[name] = load_bundle(name, device=options.device, schema=load_schema(config.schema))
            size = "" if pixel_size_um is None else f" with pixels of {pixel_size_um:g} um"
            spec, why = loaded[name].spec, ""
            if str(config.model) == "auto":
                seen = f", {config.view} view" if config.view in spec.views else ""
                why = f", chosen for {config.modality} images{seen}{size}"
            logger.info("model %s (%s)%s", spec.name, loaded[name].weights_sha256[:12], why)
        return loaded[name]

    return load


def _measure(
    segmentation: Segmentation, image: Stack | None, path: Path, folder: Path, config: AnalysisConfig,
    options: RunOptions, made: dict[str, Any], timings: dict[str, float], progress: Progress,
    cleaned: dict[str, Any] | None = None, sampler: MaskSampler | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Objects, metrics, key frames, ``run.json`` and the report of one segmentation."""
    from seg.report import write_report

    stack = segmentation.stack
    labels_print = fingerprint(labels_of(folder) if made else path)
    known = stack.calibration
    key = key_of(
        labels=labels_print, image=fingerprint(options.image) if options.image else None, analysis=config.to_dict(),
        calibration=(dict(known.pixel_size_um), known.frame_times_s, known.pixel_size_rel_sd),
        schema=segmentation.schema.to_dict(),
        echem=fingerprint(options.echem) if options.echem else None, echem_options=options.cycler, version=__version__,
        postprocess=cleaned,
    )  # fmt: skip
    outputs = [folder / name for name in ("metrics.csv", "run.json", "report.html")]
    if not is_done(folder, "measure", key):
        _forget_results(folder, "measure")
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        values = {name: segmentation.schema.index(name) for name in segmentation.schema.names}
        confidence = Confidence.from_dict(made.get("certainty", {}))
        doubts = Doubts(confidence, values, config.min_confidence, config.min_class_confidence)
        said = write_tables(
            segmentation, image, folder, config, source=options.image or path, cycler=options.cycler,
            doubts=doubts, progress=progress,
            widen=None if sampler is None else lambda frame, rows: sampler.widen(frame, rows, stack),
            relabelled=set(config.relabel.values()) if made else (),
        )  # fmt: skip
        timings = {**timings, "measure": time.monotonic() - started}
        cleaned = made.get("postprocess") if made else cleaned
        said.warnings += _area_warnings(cleaned)
        said.warnings += unseen_warnings(segmentation, config, made.get("model"))
        if config.mask_samples and sampler is None and made:
            said.warnings.append("No masks were drawn from probabilities: that is done for images on the model's grid.")
        save_key_frames(segmentation, image, folder / "keyframes", config.key_frames)
        doubtful = [
            {"frame": frame, "reason": reason} for frame in range(stack.n_frames)
            if (reason := doubts.reason(frame, config.objects.classes))
        ]  # fmt: skip
        record = _record(segmentation, path, config, options, made, timings, doubtful, said)
        record["postprocess"] = cleaned
        write_json(record, folder / "run.json")
        write_report(folder)
        mark_done(folder, "measure", key, outputs)
    return headline_rows(read_table(folder / "metrics.csv"), config.headline)


def _forget_masks(folder: Path) -> Callable[[], None]:
    return lambda: _forget_results(folder, "segment")


def _forget_results(folder: Path, stage: str) -> None:
    """Remove what a stage is about to make again, so that old results are never taken for new ones."""
    keep = set(LABEL_FILES) if stage == "measure" else set()
    for name in RESULTS:
        if name not in keep:
            remove(folder / name)
    shutil.rmtree(folder / "keyframes", ignore_errors=True)


def _mask_sampler(
    stack: Stack, config: AnalysisConfig, options: RunOptions, made: dict[str, Any], load: Callable[[], Any]
) -> MaskSampler | None:
    """What draws masks from the probabilities of a run, where it is asked for; they are computed again per frame."""
    if not config.mask_samples or "z" in stack.axes or (made.get("pixel_size") or {}).get("zoom") is not None:
        return None

    def probabilities(frame: int) -> np.ndarray:
        from seg.inference import InferenceSettings, predict_probabilities

        given = SeriesNormalisation(**made["normalisation"])
        chosen = {**options.network, "precision": made["settings"]["precision"]}
        settings = InferenceSettings(**chosen, relabel=config.relabel_values)
        return predict_probabilities(load(), read_grey(stack, frame), settings, normalisation=given)

    values = tuple(made["model"]["spec"]["class_indices"])
    rules = rules_of(stack, config, options, cleans=True)
    return MaskSampler(probabilities, values, config.mask_samples, rules, config)


def _area_warnings(cleaned: dict[str, Any] | None) -> list[str]:
    """A sentence for every class whose area the clean-up changed by more than it may without a word."""
    total = sum(change["pixels_before"] for change in (cleaned or {}).values())
    return [
        f"Cleaning the masks changed the pixels of {name} by {100 * change['net_change']:+.0f} % "
        f"({change['regions_removed']} region(s) removed); --postprocess none leaves them as they are."
        for name, change in (cleaned or {}).items()
        if change["pixels_before"] > total / 1000 and abs(change["net_change"]) > AREA_CHANGE_TOLD
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
            "pixel_size_rel_sd": pixel_size_rel_sd(stack, config),
        },
        "analysis": config.to_dict(),
        "schema": segmentation.schema.to_dict(),
        "model": made.get("model"),
        "normalisation": made.get("normalisation"),
        "resampling": made.get("pixel_size"),
        "slices_turned": (made.get("slices") or {}).get("turned"),
        "settings": {**made.get("settings", {}), "image": str(options.image) if options.image else None},
        "precision": made.get("precision"),
        "device": options.device,
        "seeds": {"bootstrap": 0},
        "timings_s": {stage: round(seconds, 2) for stage, seconds in timings.items()},
        "versions": _versions(),
        "warnings": [*said.warnings, *made.get("backed_off", [])],
        "frames_doubtful": doubtful,
        "electrochem": said.electrochem,
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "scikit-image", "tifffile", "pandas", "torch")}
