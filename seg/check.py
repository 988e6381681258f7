"""Pre-flight: what would go wrong, or be doubtful, in a run on these inputs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seg.analysis import AnalysisConfig
from seg.batch import result_folders
from seg.errors import DataError, SegError, UsageError
from seg.io import open_stack, read_labels
from seg.labels import UNLABELLED, load_schema
from seg.manifest import Entry
from seg.masks import labels_of, rules_of, seen_by_network, writes_zarr
from seg.options import RunOptions
from seg.preprocess import SeriesNormalisation
from seg.stack import Stack
from seg.turning import in_pieces

SPECIMEN = r"^(.+?)[-_ .]*\d*$"
"""Specimen in the name of a file: all before its last number. The training command has the same default."""


@dataclass(frozen=True)
class Finding:
    """One observation about one input; `exit_code` is 0 for a remark and the error's code for a fault."""

    source: Path
    text: str
    exit_code: int = 0

    def __str__(self) -> str:
        kind = "ERROR" if self.exit_code else "ok   "
        return f"{kind} {self.source}: {self.text}"


def check_inputs(inputs: Sequence[Path], options: RunOptions, *, schema: str | None = None) -> list[Finding]:
    """Open every input and say what it is and what is doubtful about it; all faults at once.

    Parameters
    ----------
    inputs : sequence of Path
    options : RunOptions
    schema : str or None
        Treat the inputs as label files of this schema.

    Returns
    -------
    list of Finding
        At least one per input; frames that repeat in two inputs are reported (they would leak between a training
        and a test set).
    """
    findings: list[Finding] = []
    seen: dict[str, tuple[Path, int]] = {}
    for path in inputs:
        try:
            if schema is not None:
                findings.extend(_check_labels(path, options, schema))
                continue
            stack = open_stack(path, **options.reading)
            findings.append(Finding(path, _describe(stack)))
            findings.extend(_check_frames(path, stack, seen))
        except SegError as error:
            findings.append(Finding(path, str(error), error.exit_code))
    return findings


def plan_inputs(
    inputs: Sequence[Path | Entry], config: AnalysisConfig, out: Path, options: RunOptions
) -> list[Finding]:
    """What a run would do: each input, its result folder, what is there already, memory and minutes.

    Parameters
    ----------
    inputs : sequence of (Path or Entry)
    config : AnalysisConfig
    out : Path
        Nothing is written there.
    options : RunOptions
    """
    from seg.inference import InferenceSettings, check_fits, parts_of
    from seg.models.bundle import find_model, load_bundle
    from seg.plan import plan_segmentation
    from seg.precision import choose_precision
    from seg.runner import Runner

    model = find_model(config.model, modality=config.modality, view=config.view)
    bundle = load_bundle(model, schema=load_schema(config.schema))
    settings = InferenceSettings(**options.network, relabel=config.relabel_values)
    entries = [item if isinstance(item, Entry) else Entry(item) for item in inputs]
    folders = result_folders([entry.path for entry in entries], out, [entry.name for entry in entries])
    findings, seconds = [], 0.0
    for entry, folder in zip(entries, folders, strict=True):
        try:
            own = entry.options(options)
            stack = open_stack(entry.path, **own.reading)
            check_fits(stack, bundle)
            seen = seen_by_network(stack, bundle.spec, config)
            scale = SeriesNormalisation.fit(stack, bundle.spec.percentiles)
            chosen = choose_precision(in_pieces(seen), bundle, settings, scale)
            runner = Runner(bundle, replace(settings, precision=chosen.used))
            plan = plan_segmentation(
                seen, runner, parts_of(seen, runner), joined=not writes_zarr(stack, own),
                cleaned=rules_of(stack, config, own, cleans=True) is not None,
            )  # fmt: skip
            seconds += plan.seconds or 0.0
            there = " (has results)" if labels_of(folder).exists() else ""
            findings.append(Finding(entry.path, f"{_describe(stack)}; {plan}; to {folder}{there}"))
        except SegError as error:
            findings.append(Finding(entry.path, str(error), error.exit_code))
    text = f"{len(entries)} input(s), about {seconds / 60:.0f} min for the masks of all; nothing was written"
    findings.append(Finding(out, text))
    return findings


def check_pairs(
    images: Sequence[Path], labels: str, options: RunOptions, *, schema: str | None = None, specimen: str = SPECIMEN
) -> list[Finding]:
    """What would keep labelled images from being trained on; all faults at once.

    Parameters
    ----------
    images : sequence of Path
    labels : str
        Path of the label file of an image, ``*`` standing for the name of the image without its ending.
    options : RunOptions
        ``label_map`` gives the meaning of label values that are not those of the schema.
    schema : str or None
        None: that of the label file, else ``lithium``.
    specimen : str
        Regular expression whose one group is the specimen in the name of the image.
    """
    try:
        expression = re.compile(specimen)
    except re.error as error:
        raise UsageError(f"--specimen {specimen!r} is not a regular expression: {error}.") from error
    if expression.groups != 1 or "*" not in labels:
        raise UsageError("--specimen needs one group (...), and --labels a * where the name of the image goes.")
    findings, specimens, classes = [], set(), set()
    for path in images:
        try:
            stem = path.name.removesuffix(path.suffix).removesuffix(".ome")
            found = next((p for p in (Path(labels.replace("*", n)) for n in (stem, path.stem)) if p.exists()), None)
            if found is None:
                raise DataError(f"no label file {labels.replace('*', stem)}")
            match = expression.search(stem)
            if match is None or not match.group(1):
                raise DataError(f"no specimen in the name by {specimen!r}; pass --specimen REGEX")
            specimens.add(match.group(1))
            present = _check_pair(path, found, options, schema)
            classes |= set(present)
            findings.append(Finding(path, f"specimen {match.group(1)}, labels {', '.join(present)}"))
        except SegError as error:
            findings.append(Finding(path, str(error), 5))
    if len(classes) == 1:
        findings.append(Finding(Path(labels), f"only {classes.pop()} is labelled; a model needs two classes", 5))
    if len(specimens) == 1 and len(images) > 1:
        text = "all images are of one specimen: only a block of its series can be held out (held_out_block)"
        findings.append(Finding(Path(labels), text))
    return findings


def _check_pair(path: Path, labels: Path, options: RunOptions, schema: str | None) -> list[str]:
    """Names of the classes labelled; DataError where the two files do not belong together."""
    stack = open_stack(path, axes=options.axes, pixel_size_um=options.pixel_size_um, dataset=options.dataset)
    segmentation = read_labels(
        labels, schema=load_schema(schema) if schema else None, default_schema=load_schema("lithium"),
        values=options.label_map, axes=stack.axes.replace("c", ""),
    )  # fmt: skip
    shape = tuple(stack.size(axis) for axis in "tzyx")
    label_shape = tuple(segmentation.stack.size(axis) for axis in "tzyx")
    if shape != label_shape:
        raise DataError(f"the image is {stack.shape}, its labels {segmentation.stack.shape}; they must be alike.")
    found: set[int] = set()
    for index in range(stack.n_frames):
        stack.frame(index)  # a damaged frame is found now, not in the middle of a run
        found |= set(np.unique(segmentation.stack.frame(index)).tolist())
    if not found - {UNLABELLED}:
        raise DataError(f"no pixel of {labels.name} is labelled; label some, or leave the image out")
    return [segmentation.schema.class_name(value) for value in sorted(found - {UNLABELLED})]


def _describe(stack: Stack) -> str:
    spacing = stack.spacing_um
    size = "no pixel size (lengths will be in px)"
    if spacing is not None:
        doubt = stack.calibration.pixel_size_rel_sd
        known = "" if doubt is None else f", known to {100 * doubt:g} %"
        size = " x ".join(f"{s:g}" for s in spacing) + f" um ({stack.calibration.source}{known})"
    times = ""
    if stack.n_frames > 1:
        t = stack.frame_times_s
        times = ", no frame times (rates will be per frame)" if t is None else f", {t[0]:g} to {t[-1]:g} s"
    return f"{stack.axes} {'x'.join(map(str, stack.shape))} {stack.dtype}, {size}{times}"


def _check_frames(path: Path, stack: Stack, seen: dict[str, tuple[Path, int]]) -> list[Finding]:
    """Blank, non-finite and repeated frames."""
    findings = []
    for index in range(stack.n_frames):
        frame = stack.frame(index)
        if np.issubdtype(frame.dtype, np.floating) and not np.isfinite(frame).all():
            count = int(np.size(frame) - np.isfinite(frame).sum())
            findings.append(Finding(path, f"frame {index} holds {count} NaN or infinite pixel(s)", 5))
            continue
        if frame.min() == frame.max():
            findings.append(Finding(path, f"frame {index} is blank (all pixels are {frame.flat[0]})"))
            continue
        digest = hashlib.sha256(np.ascontiguousarray(frame)).hexdigest()
        if digest in seen:
            other, position = seen[digest]
            findings.append(Finding(path, f"frame {index} repeats frame {position} of {other}"))
        seen.setdefault(digest, (path, index))
    return findings


def _check_labels(path: Path, options: RunOptions, schema: str) -> list[Finding]:
    segmentation = read_labels(
        path, schema=load_schema(schema), axes=options.axes, pixel_size_um=options.pixel_size_um,
        frame_interval_s=options.frame_interval_s,
    )  # fmt: skip
    findings = [Finding(path, _describe(segmentation.stack))]
    counts: dict[int, int] = {}
    for index in range(segmentation.stack.n_frames):
        values, number = np.unique(segmentation.stack.frame(index), return_counts=True)
        for value, n in zip(values.tolist(), number.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + n
    total = sum(counts.values())
    shares = ", ".join(
        f"{segmentation.schema.class_name(v)} {100 * n / total:.2g} %" for v, n in sorted(counts.items())
    )
    findings.append(Finding(path, f"classes: {shares}"))
    return findings
