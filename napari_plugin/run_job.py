"""What the Run and Measure widgets ask of the engine: the same calls, options and command lines as the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seg.analysis import AnalysisConfig, load_analysis
from seg.batch import RunResult
from seg.errors import UsageError
from seg.io import find_inputs, open_stack, parse_duration_s, write_image, write_labels
from seg.metrics.names import text_result
from seg.pipeline import RunOptions, measure, run
from seg.progress import Progress, silent
from seg.report.words import plain
from seg.segmentation import Segmentation
from seg.stack import Stack


@dataclass(frozen=True)
class Job:
    """Inputs, analysis and options of one call of the engine.

    Parameters
    ----------
    verb : str
        ``run`` (images) or ``measure`` (labels).
    inputs : tuple of Path
    analysis : str
        Preset or file.
    out : Path
    options : RunOptions
        Its ``command`` is the line that does the same in a terminal.
    model : str
        Empty: that of the analysis.
    """

    verb: str
    inputs: tuple[Path, ...]
    analysis: str
    out: Path
    options: RunOptions
    model: str = ""

    @property
    def config(self) -> AnalysisConfig:
        """The analysis with the model chosen."""
        config = load_analysis(self.analysis)
        return replace(config, model=self.model) if self.model else config

    @property
    def command(self) -> str:
        """The line for the terminal."""
        return self.options.command

    def execute(self, progress: Progress = silent) -> list[RunResult]:
        """Do it."""
        engine = run if self.verb == "run" else measure
        return engine(self.inputs, self.config, self.out, self.options, progress=progress)


def execute(job: Job, progress: Progress = silent) -> list[RunResult]:
    """`Job.execute` as a function, for the computing process."""
    return job.execute(progress)


def make_job(
    verb: str, patterns: Sequence[Path | str], *, analysis: str, out: Path, model: str = "", echem: Path | None = None,
    echem_offset: str = "", stack: Stack | None = None, image: Path | None = None, axes: str | None = None,
) -> Job:  # fmt: skip
    """The job and its command line.

    Parameters
    ----------
    verb : str
        ``run`` or ``measure``.
    patterns : sequence of Path or str
        Files, folders, globs.
    analysis, out, model
        As on the command line.
    echem, echem_offset
        Cycler file, and ``files``, ``coverage`` or a time such as ``12s``.
    stack : Stack or None
        The input as the viewer shows it: where its calibration is not that of the file, it is given as options.
    image : Path or None
        For ``measure``: the image the labels belong to.
    axes : str or None
        Of inputs that do not say.
    """
    inputs = find_inputs(patterns)
    words = ["operandoseg", verb, *map(str, patterns), "--analysis", analysis]
    options = RunOptions(image=image, echem=echem)
    if model and verb == "run":
        words += ["--model", model]
    if image is not None:
        words += ["--image", str(image)]
    if stack is not None and len(inputs) == 1:
        options, said = _as_shown(inputs[0], stack, options)
        words += said
    elif axes:
        options = replace(options, axes=axes)
        words += ["--axes", axes]
    if echem is not None:
        words += ["--echem", str(echem)]
        clock = echem_offset if echem_offset in ("files", "coverage") else "offset"
        offset_s = parse_duration_s(echem_offset) if echem_offset and clock == "offset" else None
        options = replace(options, echem_clock=clock, echem_offset_s=offset_s)
        words += [f"--echem-offset={echem_offset}"] if echem_offset else []
    words += ["--out", str(out)]
    options = replace(options, command=shlex.join(words))
    return Job(verb, tuple(inputs), analysis, Path(out), options, model)


def _as_shown(path: Path, shown: Stack, options: RunOptions) -> tuple[RunOptions, list[str]]:
    """Axes, pixel size and frame interval where the viewer says otherwise than the file."""
    axes = shown.axes.replace("c", "")
    words: list[str] = []
    try:
        read = open_stack(path)
        if read.axes.replace("c", "") != axes:
            raise UsageError("other axes")
    except (UsageError, ValueError):
        read = open_stack(path, axes=axes)
        options = replace(options, axes=axes)
        words += ["--axes", axes]
    sizes = dict(shown.calibration.pixel_size_um)
    known = read.calibration.pixel_size_um
    if sizes and not (sizes.keys() == known.keys() and np.allclose([sizes[a] for a in known], list(known.values()))):
        options = replace(options, pixel_size_um=sizes)
        words += ["--pixel-size", ",".join(f"{axis}={size!r}um" for axis, size in sizes.items())]
    times = shown.frame_times_s
    if (
        times is not None
        and len(times) > 1
        and (read.frame_times_s is None or not np.allclose(times, read.frame_times_s))
    ):
        interval = (times[-1] - times[0]) / (len(times) - 1)
        options = replace(options, frame_interval_s=interval)
        words += ["--frame-interval", f"{interval!r}s"]
    return options, words


def write_layer_image(stack: Stack, folder: Path) -> Path:
    """An image that is only in the viewer as a file, so that it can be run."""
    path = folder / f"{_file_name(stack.name)}.ome.tif"
    write_image(
        path, (stack.frame(t) for t in range(stack.n_frames)), shape=stack.shape, dtype=stack.dtype, axes=stack.axes,
        calibration=stack.calibration,
    )  # fmt: skip
    return path


def write_layer_labels(segmentation: Segmentation, folder: Path) -> Path:
    """Labels that are only in the viewer as a file, so that they can be measured."""
    stack = segmentation.stack
    path = folder / f"{_file_name(stack.name)}.ome.tif"
    write_labels(
        path, (stack.frame(t) for t in range(stack.n_frames)), shape=stack.shape, axes=stack.axes,
        calibration=stack.calibration, schema=segmentation.schema, provenance=segmentation.provenance,
    )  # fmt: skip
    return path


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text).strip("._") or "layer"


def result_text(result: RunResult) -> str:
    """What became of an input, in a few words."""
    if result.error:
        return result.error
    numbers: list[str] = []
    rows: Any = result.headline
    for row in rows.itertuples() if len(rows) else ():
        if row.value == row.value and len(numbers) < 2:
            found = text_result(row.metric, str(row.method)) or plain(row.value, row.unit)
            numbers.append(f"{row.metric.replace('_', ' ')} {found}")
    return ", ".join(numbers) or "done"
