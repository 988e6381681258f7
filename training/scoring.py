"""Scores on whole held-out images, against a threshold as the floor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import nn

from seg.labels import LabelSchema
from training import apply
from training.config import DataConfig
from training.label_codes import LabelCodes
from training.sources import LabelledImage
from training.synthetic import SyntheticPool

COLUMNS = [
    "step",
    "source",
    "image",
    "specimen",
    "method",
    "metric",
    "class",
    "truth_px",
    "intersection",
    "union",
    "value",
]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def score(
    network: nn.Module,
    images: Sequence[LabelledImage],
    synthetic: SyntheticPool | None,
    data: DataConfig,
    codes: LabelCodes,
    schema: LabelSchema,
    *,
    step: int,
    device: torch.device,
    precision: str,
) -> pd.DataFrame:
    """IoU per class and of the foreground for every held-out image, one row per number.

    Notes
    -----
    Only pixels whose truth is known for the class take part. An IoU is NaN where the class is neither there nor
    predicted. Foreground rows also come with ``method="otsu"``: a threshold after a Gaussian of 1 px, bright or dark
    objects by what fits the *training* images of the source better.
    """
    rows: list[dict[str, Any]] = []
    bright = {name: _bright_objects([i for i in images if i.source == name and not i.held_out], data, codes, schema)
              for name in {i.source for i in images}}  # fmt: skip
    for item in [i for i in images if i.held_out]:
        output = predict(network, item.image, device=device, precision=precision)
        where = {"step": step, "source": item.source, "image": item.name, "specimen": item.specimen}
        rows += [where | row for row in _class_rows(output, item.codes, codes, schema)]
        names = data.sources[item.source].foreground
        if names:
            truth, known = foreground(item.codes, names, codes, schema)
            wanted = [k for k, index in enumerate(codes.class_indices) if schema.class_name(index) in names]
            rows.append(where | _row("foreground", np.isin(output, wanted), truth, known))
            otsu = _otsu(item.image) == bright[item.source]
            rows.append(where | _row("foreground", otsu, truth, known, method="otsu"))
    for j in range(len(synthetic) if synthetic else 0):
        image, truth_codes = synthetic[j]
        output = predict(network, image, device=device, precision=precision)
        where = {"step": step, "source": "synthetic", "image": str(j), "specimen": str(j)}
        rows += [where | row for row in _class_rows(output, truth_codes, codes, schema)]
    return pd.DataFrame(rows, columns=COLUMNS)


@torch.no_grad()
def predict(network: nn.Module, image: np.ndarray, *, device: torch.device, precision: str) -> np.ndarray:
    """Network output of highest probability per pixel of a whole image, mirrored up to the tile multiple."""
    if image.ndim == 3:
        return apply.predict(network, image, device=device, precision=precision)
    height, width = image.shape
    multiple = network.tile_multiple
    pad_y, pad_x = -height % multiple, -width % multiple
    x = torch.from_numpy(np.pad(image.astype(np.float32), ((0, pad_y), (0, pad_x)), mode="symmetric"))
    x = x[None, None].to(device, memory_format=torch.channels_last)
    was_training = network.training
    network.eval()
    with torch.autocast(device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        logits = network(x)
    network.train(was_training)
    return logits[0, :, :height, :width].argmax(dim=0).cpu().numpy()


def foreground(
    label_codes: np.ndarray, names: Sequence[str], codes: LabelCodes, schema: LabelSchema
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the foreground, and of where the labels say whether a pixel is foreground."""
    wanted = {k for k, index in enumerate(codes.class_indices) if schema.class_name(index) in names}
    is_foreground = np.array([c > 0 and set(codes.members(c)) <= wanted for c in range(codes.n_codes)])
    is_other = np.array([c > 0 and not set(codes.members(c)) & wanted for c in range(codes.n_codes)])
    return is_foreground[label_codes], (is_foreground | is_other)[label_codes]


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores per source, class and method: pooled over all pixels, and the mean over images.

    ``iou`` is total intersection over total union; ``mean_iou`` averages the images whose labels hold the class, and
    ``n_images`` counts those. A class that the labels of a source hold nowhere has no row: where it is predicted all
    the same, it lowers the scores of the others.
    """
    columns = ["source", "class", "method", "iou", "mean_iou", "n_images", "n_specimens"]
    rows = []
    for (source, name, method), part in scores.groupby(["source", "class", "method"], sort=False):
        defined = part.loc[part["truth_px"] > 0, "value"]
        if defined.empty:
            continue
        rows.append(
            {
                "source": source,
                "class": name,
                "method": method,
                "iou": part["intersection"].sum() / part["union"].sum(),
                "mean_iou": defined.mean(),
                "n_images": len(defined),
                "n_specimens": part.loc[defined.index, "specimen"].nunique(),
            }
        )
    return pd.DataFrame(rows, columns=columns)


def _class_rows(
    output: np.ndarray, label_codes: np.ndarray, codes: LabelCodes, schema: LabelSchema
) -> Iterator[dict[str, Any]]:
    for k, index in enumerate(codes.class_indices):
        known = np.array([c > 0 and (c == k + 1 or k not in codes.members(c)) for c in range(codes.n_codes)])
        truth = label_codes == k + 1
        yield _row(schema.class_name(index), output == k, truth, known[label_codes])


def _row(
    name: str, mask: np.ndarray, truth: np.ndarray, known: np.ndarray, *, method: str = "network"
) -> dict[str, Any]:
    intersection = int((mask & truth & known).sum())
    union = int(((mask | truth) & known).sum())
    value = intersection / union if union else math.nan
    return {
        "method": method, "metric": "iou", "class": name, "truth_px": int((truth & known).sum()),
        "intersection": intersection, "union": union, "value": value,
    }  # fmt: skip


def _otsu(image: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1.0)
    return smooth > threshold_otsu(smooth)


def _bright_objects(trained: Sequence[LabelledImage], data: DataConfig, codes: LabelCodes, schema: LabelSchema) -> bool:
    """Whether objects are better found above the threshold than below it, on the training images."""
    scores = {True: 0.0, False: 0.0}
    for item in trained:
        names = data.sources[item.source].foreground
        truth, known = foreground(item.codes, names, codes, schema)
        above = _otsu(item.image)
        for bright in scores:
            value = _row("foreground", above == bright, truth, known)["value"]
            scores[bright] += 0.0 if math.isnan(value) else value
    return scores[True] >= scores[False]
