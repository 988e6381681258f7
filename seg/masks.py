"""The masks of one input: planned, computed here or on a cluster, from where an earlier run left off."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seg import __version__
from seg.analysis import AnalysisConfig
from seg.blocks import slabs as pieces_of
from seg.blocks import too_large, whole_bytes
from seg.doubt import Confidence
from seg.errors import DataError
from seg.fixed_classes import with_fixed_classes
from seg.inference import InferenceSettings, Part, check_fits, parts_of, segment
from seg.io import fingerprint, read_labels, write_labels
from seg.io.labels import create_labels
from seg.io.results import write_json
from seg.labels import load_schema
from seg.options import RunOptions
from seg.overlap import Behind
from seg.postprocess import Changed, Rules, clean_frame_of, clean_labels, make_rules
from seg.precision import Precision, choose_precision
from seg.preprocess import SeriesNormalisation
from seg.progress import Progress, silent
from seg.regrid import pixel_size_fit
from seg.segmentation import Provenance, Segmentation
from seg.slabs import SlabFolder, SlabStore, slab_path
from seg.stack import Stack
from seg.stages import is_done, key_of, mark_done, work_dir
from seg.turning import is_turned, thickness_axis, turn_frame, turned, turned_on_disk
from seg.volumes import planes

if TYPE_CHECKING:
    from seg.runner import Runner

logger = logging.getLogger(__name__)

LABEL_FILES = ("labels.ome.tif", "labels.ome.zarr")
# From here on planes are written into an OME-Zarr as they come: a frame is no longer joined in memory, nor the result
# written twice.
ZARR_FRAME_BYTES = 2**28
ZARR_BYTES = 2**32


def labels_of(folder: Path) -> Path:
    """The label file in a result folder."""
    return next((folder / name for name in LABEL_FILES if (folder / name).exists()), folder / LABEL_FILES[0])


def make_masks(
    stack: Stack, path: Path, folder: Path, config: AnalysisConfig, options: RunOptions,
    load_model: Callable[[Stack], Any], forget: Callable[[], None], progress: Progress = silent,
) -> tuple[Segmentation, dict[str, Any]]:  # fmt: skip
    """Segment one input.

    Parameters
    ----------
    stack : Stack
    path : Path
        The file it was opened from.
    folder : Path
        Gets the labels, and unfinished work.
    config : AnalysisConfig
    options : RunOptions
    load_model : callable
        Gives the `Bundle` for a stack.
    forget : callable
        Called before new masks are made, to remove results of old ones.
    progress : Progress

    Returns
    -------
    segmentation : Segmentation
    made : dict
        How they were made, for ``run.json``.
    """
    bundle = load_model(stack)
    check_fits(stack, bundle)
    settings = InferenceSettings(**options.network, relabel=config.relabel_values)
    before = fingerprint(path)
    schema = load_schema(config.schema)
    rules = rules_of(stack, config, options, cleans=True)
    in_zarr = writes_zarr(stack, options)
    if config.fixed and too_large(stack.spatial_shape):
        raise DataError(
            f"{stack.name!r} has volumes that do not fit in memory ({whole_bytes(stack.spatial_shape) / 1e9:.2g} GB), "
            "so that they cannot be held against the first ones: leave `fixed` out of the analysis, or crop or bin."
        )
    seen = seen_by_network(stack, bundle.spec, config)
    turn = seen is not stack
    key = key_of(
        input=before, axes=stack.axes, shape=stack.shape, dataset=options.dataset,
        weights=bundle.weights_sha256, model=bundle.spec.to_dict(), settings=settings, schema=config.schema,
        calibration=(dict(stack.calibration.pixel_size_um), stack.frame_times_s), version=__version__,
        postprocess=rules and rules.to_dict(), thickness=thickness_axis(config.metrics),
        **({"turned": True} if turn and in_zarr else {}), **({"fixed": config.fixed_values} if config.fixed else {}),
    )  # fmt: skip
    labels_path = folder / LABEL_FILES[in_zarr]
    made_path = folder / ".work" / "made.json"
    if not is_done(folder, "segment", key):
        forget()
        axes = stack.axes.replace("c", "")
        described = {
            "shape": tuple(stack.size(axis) for axis in axes), "axes": axes, "calibration": stack.calibration,
            "schema": schema,
            "provenance": Provenance(
                software=f"operandoseg {__version__}", model=bundle.spec.name, model_sha256=bundle.weights_sha256,
                input_fingerprint=before,
            ),
        }  # fmt: skip
        peaks = tuple(rules.peak.tolist()) if rules else None
        slabs: SlabFolder | SlabStore = SlabFolder(slab_path(work_dir(folder), key), peaks)
        filled, turned_file = slabs, None
        if in_zarr:
            filled = slabs = SlabStore(slabs.path, axes, peaks)
            if turn:
                filled, turned_file = SlabStore(slabs.path / "turned", axes, peaks), slabs.path / "turned.npy"
                filled.path.mkdir(exist_ok=True)
                seen = turned_on_disk(stack, turned_file)
            shape = tuple(seen.size(axis) for axis in axes)
            filled.create(lambda part: create_labels(part, **{**described, "shape": shape}))
        normalisation = SeriesNormalisation.fit(stack, bundle.spec.percentiles)
        precision, backed_off = _fill(
            filled, seen, path, bundle, settings, normalisation, options, progress, turned_file
        )
        if fingerprint(path) != before:
            slabs.remove()
            raise DataError(f"{path.name!r} changed while it was read; run again when nothing writes to it any more.")
        changed = Changed()
        fit = pixel_size_fit(seen, bundle.spec)
        made = {
            "model": {
                "name": bundle.spec.name, "weights_sha256": bundle.weights_sha256, "spec": bundle.spec.to_dict(),
                "card": bundle.card,
            },
            "normalisation": {"low": normalisation.low, "high": normalisation.high},
            "pixel_size": {"zoom": fit.zoom, "flags": fit.flags, "said": fit.said},
            "certainty": Confidence(filled.sums(stack.n_frames)).to_dict(), "fingerprint": before,
            "settings": asdict(replace(settings, precision=precision.used)), "precision": precision.to_dict(),
            "backed_off": backed_off + ([precision.said] if precision.flagged else []), "slices": {"turned": turn},
        }  # fmt: skip
        moved: dict[int, int] = {}
        if isinstance(slabs, SlabStore):
            if isinstance(filled, SlabStore) and filled is not slabs:
                slabs.create(lambda part: create_labels(part, **described))
                slabs.take_turned(filled, stack.n_frames)
            if config.fixed:
                slabs.hold(
                    lambda part: create_labels(part, **described),
                    lambda read: with_fixed_classes(read, stack.n_frames, config.fixed_values, moved), stack.n_frames,
                )  # fmt: skip
            if rules is not None:
                slabs.begin_clean(lambda part: create_labels(part, **described))
                _clean(slabs, stack, rules, changed, options, progress)
            slabs.finish(labels_path)
        else:
            read = with_fixed_classes(slabs.frame, stack.n_frames, config.fixed_values, moved)
            frames = slabs.frames(stack.n_frames)
            if config.fixed:
                frames = (read(index)[0] for index in range(stack.n_frames))
            if rules is not None:
                frames = cleaned_frames(read, stack.n_frames, rules, changed)
            if turn:
                frames = map(turn_frame, frames)
            write_labels(labels_path, frames, **described)
        made["postprocess"] = changed.by_class(schema) if rules is not None else None
        if moved:
            left = list(moved.values()).count(-1)
            made["fixed"] = {"changed_px": sum(moved.values()) + left, "frames_left_as_they_are": left}
        if -1 in moved.values():
            logger.warning(
                "%s: %d of %d frames show %s elsewhere than the first ones and are left as they are; align the "
                "recording first.", stack.name, left, stack.n_frames, ", ".join(config.fixed),
            )  # fmt: skip
        write_json(made, made_path)
        mark_done(folder, "segment", key, [labels_path, made_path])
        slabs.remove()
    segmentation = read_labels(labels_path, schema=schema)
    named = replace(segmentation, stack=replace(segmentation.stack, name=stack.name))
    return named, json.loads(made_path.read_text(encoding="utf-8"))


def seen_by_network(stack: Stack, spec: Any, config: AnalysisConfig) -> Stack:
    """The stack, turned where its planes are not the slices the network knows."""
    return turned(stack) if is_turned(stack, spec, thickness_axis(config.metrics)) else stack


def rules_of(stack: Stack, config: AnalysisConfig, options: RunOptions, *, cleans: bool) -> Rules | None:
    """How the masks of a stack are cleaned; `cleans`: whether they are where the user says nothing."""
    wanted = options.postprocess == "analysis" or (cleans and not options.postprocess)
    if config.postprocess is None or not wanted:
        return None
    return make_rules(
        config.postprocess, load_schema(config.schema), config.objects.classes, ndim=len(stack.spatial_shape),
        min_diameter_px=config.objects.min_diameter_px, spacing_um=stack.spacing_um,
    )  # fmt: skip


def cleaned_frames(
    read: Callable[[int], np.ndarray | tuple[np.ndarray, np.ndarray | None]], n_frames: int, rules: Rules,
    changed: Changed,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Clean frames one by one; `read` gives the labels of one, or these and where they are certain."""
    held: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}  # each is read once; where certain, as bits

    def frame(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        if index not in held:
            found = read(index)
            labels, sure = found if isinstance(found, tuple) else (found, None)
            held[index] = labels.astype(np.uint8, copy=False), None if sure is None else np.packbits(sure)
        return held[index]

    for index in range(n_frames):
        for old in [k for k in held if k < index - (rules.min_frames > 1)]:
            del held[old]
        near = [frame(other)[0] for other in rules.beside(index, n_frames)]
        labels, bits = frame(index)
        sure = None if bits is None else np.unpackbits(bits, count=labels.size).reshape(labels.shape).astype(bool)
        yield clean_labels(labels, rules, sure, neighbours=near, changed=changed)


def _clean(
    slabs: SlabStore, stack: Stack, rules: Rules, changed: Changed, options: RunOptions, progress: Progress
) -> None:  # fmt: skip
    """Clean what is in a store into the result, here or by the processes that computed it."""
    shape = (stack.n_frames, *stack.spatial_shape)
    if options.cluster is not None:
        from seg.cluster import clean

        clean(slabs.resolved(), stack.name, shape, rules, changed, options.cluster, progress=progress)
        return
    for frame in progress(range(stack.n_frames), total=stack.n_frames, desc=f"clean {stack.name}"):
        for where, labels in clean_frame_of(slabs.read, frame, shape, rules, changed):
            slabs.write_clean(frame, where, labels)


def unseen_warnings(segmentation: Segmentation, config: AnalysisConfig, model: Mapping[str, Any] | None) -> list[str]:
    """Sentences on classes that are relabelled, and where a model found none of the objects: it may not know them."""
    if model is None:
        return []
    said = [f"Where {model['name']} finds {old}, {new} is measured, a true {old} too (`relabel` of the analysis)."
            for old, new in config.relabel.items()]  # fmt: skip
    names = config.objects.classes
    if _shows(segmentation, [segmentation.schema.index(name) for name in names]):
        return said
    scores = [
        f"{row['class']} in {row['source']} {row['iou']:.2f}"
        for row in (model["spec"].get("training") or {}).get("scores", [])
        if row["class"] in names and row["method"] == "network" and row["iou"] is not None
    ]
    held_out = f" Its IoU on held-out images: {', '.join(scores)}." if scores else ""
    what = " or ".join(names)
    return said + [
        f"{model['name']} found no {what} in any frame, so these numbers are of an empty mask.{held_out} "
        f"Where the images do show {what}, label some of them and train on that."
    ]


def _shows(segmentation: Segmentation, indices: Sequence[int]) -> bool:
    """Whether a class is anywhere; read piece by piece, as far as the first that has it."""
    stack = segmentation.stack
    return any(
        np.isin(planes(stack, index, piece.owned), indices).any()
        for index in range(stack.n_frames)
        for piece in pieces_of(stack.spatial_shape, halo=0)
    )


def writes_zarr(stack: Stack, options: RunOptions) -> bool:
    """Whether the masks become an OME-Zarr: on clusters, and where they are large."""
    frame = math.prod(stack.spatial_shape)
    return options.cluster is not None or frame > ZARR_FRAME_BYTES or frame * stack.n_frames > ZARR_BYTES


def _fill(
    slabs: SlabFolder | SlabStore, stack: Stack, path: Path, bundle: Any, settings: InferenceSettings,
    normalisation: SeriesNormalisation, options: RunOptions, progress: Progress, turned_file: Path | None,
) -> tuple[Precision, list[str]]:  # fmt: skip
    """Compute and save all parts that are not there yet; writing goes on beside computing.

    `turned_file` is the copy that the stack is read from, where it is one of `turned_on_disk`.
    Gives the arithmetic, and a sentence for each time that memory did not suffice and smaller batches or tiles did.
    """
    from seg.plan import memory_limit_bytes, plan_segmentation
    from seg.runner import Runner

    if options.cluster is not None and isinstance(slabs, SlabStore):
        from seg.cluster import Task, compute, precision_of

        task = Task(
            path.resolve(), options.reading, bundle.path.resolve(), settings, normalisation, slabs.resolved(),
            turned_file and turned_file.resolve(),
        )  # fmt: skip
        where = options.cluster
        precision = _precision(slabs, stack, lambda: precision_of(task, where))
        # This process computes nothing: it needs to know the size of a value, and may not know fp16.
        half_or_not = "fp32" if precision.used == "fp32" else "bf16"
        _, left = _left(slabs, stack, Runner(bundle, replace(settings, precision=half_or_not), aloud=False))
        compute(replace(task, settings=replace(settings, precision=precision.used)), left, where, progress=progress)
        return precision, []
    precision = _precision(slabs, stack, lambda: choose_precision(stack, bundle, settings, normalisation))
    settings = replace(settings, precision=precision.used)
    runner = Runner(bundle, settings)
    finished, left = _left(slabs, stack, runner)
    joined, cleaned = isinstance(slabs, SlabFolder), slabs.peaks is not None
    plan = plan_segmentation(stack, runner, left, joined=joined, cleaned=cleaned)
    logger.info("%s %s", stack.name, plan)
    limit = memory_limit_bytes()
    if limit is not None and plan.host_bytes > limit:
        logger.warning(
            "%s needs %.1f GB of memory and %.1f GB are left: it may be stopped by the system.",
            stack.name, plan.host_bytes / 1e9, limit / 1e9,
        )  # fmt: skip
    with Behind(slabs.save) as behind:
        for part in segment(
            stack, bundle, settings=settings, normalisation=normalisation, finished=finished, runner=runner,
            progress=progress,
        ):  # fmt: skip
            behind.put(part)
    return precision, runner.backed_off


def _left(
    slabs: SlabFolder | SlabStore, stack: Stack, runner: Runner
) -> tuple[frozenset[tuple[int, int]], list[Part]]:  # fmt: skip
    """The places that are finished, and the parts that are still to be computed."""
    parts, file = parts_of(stack, runner), slabs.path / "parts.json"
    finished, division = slabs.finished(), key_of(places=[place for part in parts for place in part.places])
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != division:
        if finished:  # places may be those of other thicknesses
            logger.info("%s: what is finished was divided otherwise, on another machine; begun again", stack.name)
            slabs.forget()
            finished = frozenset()
        write_json(division, file)
    left = [part for part in parts if not all(place in finished for place in part.places)]
    if finished:
        logger.info("%s: %d part(s) are there from an earlier run, %d are left", stack.name, len(finished), len(left))
    return finished, left


def _precision(slabs: SlabFolder | SlabStore, stack: Stack, choose: Callable[[], Precision]) -> Precision:
    """The arithmetic of this run: what an earlier one with finished parts decided, perhaps elsewhere, else `choose`."""
    file = slabs.path / "precision.json"
    try:
        precision = Precision.from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged: the same input decides the same way
        precision = choose()
        write_json(precision.to_dict(), file)
    if said := precision.said:
        level = logging.WARNING if precision.flagged else logging.INFO
        logger.log(level, "%s: %s", stack.name, said[0].lower() + said[1:])
    return precision
