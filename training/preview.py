"""Pictures of what a network in training predicts, renewed while it trains, for whoever watches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from seg.io.results import atomic_path
from seg.labels import LabelSchema
from training.apply import predict
from training.label_codes import LabelCodes
from training.pictures import TILE_PX, UNKNOWN
from training.sources import LabelledImage

EVERY_S = 15.0
N_TILES = 3
HALF_DEPTH = 8  # planes on either side that a volume network sees around the plane shown


class Preview:
    """Tiles of a few images, held-out ones first; each is the one with the most of its image's labels.

    Parameters
    ----------
    path : Path
        A PNG: one row per tile with image, labels (grey where unlabelled) and prediction.
    images : sequence of LabelledImage
    codes : LabelCodes
    schema : LabelSchema
    device : torch.device
    precision : str
    every_s : float
        Seconds between two pictures: drawing one costs about as much as a step.
    """

    def __init__(
        self, path: Path, images: Sequence[LabelledImage], codes: LabelCodes, schema: LabelSchema, *,
        device: torch.device, precision: str, every_s: float = EVERY_S,
    ) -> None:  # fmt: skip
        self.path, self.codes, self.device, self.precision, self.every_s = path, codes, device, precision, every_s
        labelled = sorted((i for i in images if i.codes.any()), key=lambda i: not i.held_out)
        picks = np.unique(np.linspace(0, max(len(labelled) - 1, 0), N_TILES).round().astype(int))[: len(labelled)]
        self.tiles = [(labelled[n], _labelled_tile(labelled[n].codes)) for n in picks]
        rgb = {c.index: c.rgb for c in schema.classes}
        self._colours = np.array([UNKNOWN] + [rgb[index] for index in codes.class_indices], np.uint8)
        # Soon after the start, but not in runs of seconds.
        self._due = time.monotonic() + every_s / 5

    def draw(self, network: nn.Module, step: int) -> bool:
        """Renew the picture where it is time; returns whether it was. The network is left as it was found."""
        if not self.tiles or time.monotonic() < self._due:
            return False
        was_training = network.training
        rows = [self._row(network, item, where) for item, where in self.tiles]
        network.train(was_training)
        # The widget shrinks the sheet to its own width: the text shrinks with it.
        width = max(row.shape[1] for row in rows)
        text = f"step {step}:   image | labels | prediction"
        font = ImageFont.load_default(24.0)
        font = font.font_variant(size=min(24.0, max(6.0, 24.0 * (width - 8) / font.getlength(text))))
        top = round(1.5 * font.size)
        sheet = Image.new("RGB", (width, sum(row.shape[0] + 6 for row in rows) + top), "white")
        ImageDraw.Draw(sheet).text((4, top / 2), text, "black", font=font, anchor="lm")
        for row in rows:
            sheet.paste(Image.fromarray(row), (0, top))
            top += row.shape[0] + 6
        with atomic_path(self.path) as part:
            sheet.save(part, format="PNG")
        self._due = time.monotonic() + self.every_s
        return True

    def _row(self, network: nn.Module, item: LabelledImage, where: tuple) -> np.ndarray:
        """Image, labels and prediction of a tile side by side, uint8, shape (Y, X, 3)."""
        *plane, rows, columns = where
        if plane:
            low = max(plane[0] - HALF_DEPTH, 0)
            box = (slice(low, plane[0] + HALF_DEPTH + 1), rows, columns)
            output = predict(network, item.image[box], device=self.device, precision=self.precision)[plane[0] - low]
        else:
            output = predict(network, item.image[where], device=self.device, precision=self.precision)
        grey = (np.clip(item.image[where].astype(np.float32), 0, 1) * 255).astype(np.uint8)
        truth = item.codes[where]
        known = np.where(truth <= self.codes.n_classes, truth, 0)
        gap = np.full((len(grey), 8, 3), 255, np.uint8)
        return np.hstack([np.stack([grey] * 3, -1), gap, self._colours[known], gap, self._colours[output + 1]])


def _labelled_tile(codes: np.ndarray) -> tuple:
    """The tile (of a volume: of its plane with the most labels) whose labels say most: many, and of rare classes."""
    plane: tuple = ()
    if codes.ndim == 3:
        plane = (int((codes > 0).sum(axis=(1, 2)).argmax()),)
        codes = codes[plane]
    counts = np.bincount(codes.ravel())
    weight = 1 / np.maximum(counts, 1)
    weight[0] = 0
    worth = np.pad(np.cumsum(np.cumsum(weight[codes], axis=0), axis=1), ((1, 0), (1, 0)))
    height, width = (min(TILE_PX, n) for n in codes.shape)
    tops, lefts = (range(0, n - size + 1, 16) for n, size in zip(codes.shape, (height, width), strict=True))
    sums = {
        (y, x): worth[y + height, x + width] - worth[y, x + width] - worth[y + height, x] + worth[y, x]
        for y in tops
        for x in lefts
    }
    y, x = max(sums, key=lambda at: sums[at])
    return (*plane, slice(y, y + height), slice(x, x + width))
