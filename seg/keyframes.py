"""Pictures of a few frames, saved by a run so that its report can be made again from the results alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seg.preprocess import SeriesNormalisation, read_grey
from seg.segmentation import Segmentation
from seg.stack import Stack


def save_key_frames(segmentation: Segmentation, image: Stack | None, folder: Path, count: int) -> None:
    """Pictures for the report: a few frames (or slices of a volume), image and labels as 8-bit PNG."""
    from PIL import Image

    stack = segmentation.stack
    shown = SeriesNormalisation.fit(image, (0.5, 99.5)) if image is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    n_frames, depth = stack.n_frames, stack.size("z")
    frames = _spread(n_frames, count) if n_frames > 1 else [0]
    slices = _inside(depth, min(3, count) if n_frames > 1 else count)
    for t in frames:
        for z in slices if "z" in stack.axes else [None]:
            name = f"frame_{t:05d}" + ("" if z is None else f"_z{z:04d}")
            at = (*((t,) if "t" in stack.axes else ()), *(() if z is None else (z,)))
            labels = np.asarray(stack.data[at] if at else stack.data[...])
            Image.fromarray(labels.astype(np.uint8)).save(folder / f"{name}_labels.png")
            if image is not None and shown is not None:
                plane = np.clip(shown.apply(read_grey(image, t, z=z)), 0, 1)
                Image.fromarray((plane * 255).astype(np.uint8)).save(folder / f"{name}_image.png")


def _spread(n: int, count: int) -> list[int]:
    """At most `count` indices spread evenly over range(n), ends included (the middle when only one fits)."""
    if n == 1 or count == 1:
        return [n // 2]
    return sorted({round(i * (n - 1) / (count - 1)) for i in range(count)})


def _inside(n: int, count: int) -> list[int]:
    """At most `count` indices spread over range(n), away from its ends: outer slices of a volume are often empty."""
    return sorted({int((i + 0.5) * n / count) for i in range(count)})
