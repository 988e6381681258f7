"""Pre-flight: what would go wrong, or be doubtful, in a run on these inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seg.errors import SegError
from seg.io import open_stack, read_labels
from seg.labels import load_schema
from seg.pipeline import RunOptions
from seg.stack import Stack


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
            stack = open_stack(
                path, axes=options.axes, pixel_size_um=options.pixel_size_um,
                frame_interval_s=options.frame_interval_s, dataset=options.dataset,
            )  # fmt: skip
            findings.append(Finding(path, _describe(stack)))
            findings.extend(_check_frames(path, stack, seen))
        except SegError as error:
            findings.append(Finding(path, str(error), error.exit_code))
    return findings


def _describe(stack: Stack) -> str:
    spacing = stack.spacing_um
    size = "no pixel size (lengths will be in px)"
    if spacing is not None:
        size = " x ".join(f"{s:g}" for s in spacing) + f" um ({stack.calibration.source})"
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
