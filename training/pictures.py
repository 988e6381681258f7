"""Pictures of where the network is most wrong: image, labels and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import nn

from seg.labels import LabelSchema
from training.apply import predict
from training.label_codes import LabelCodes
from training.sources import LabelledImage

TILE_PX = 192
N_TILES = 6
HEAD_PX = 50  # two lines of text above each row
UNKNOWN = (64, 64, 64)


def draw_worst(
    path: Path,
    network: nn.Module,
    images: Sequence[LabelledImage],
    codes: LabelCodes,
    schema: LabelSchema,
    *,
    device: torch.device,
    precision: str,
) -> list[tuple[str, float]]:
    """Write the tiles of held-out images with the largest share of wrong labelled pixels, the worst first.

    One row per image: image, labels (grey where unlabelled or left open), prediction. Of volumes the worst plane is
    shown, and small images are enlarged by a whole number. Nothing is written where no image is held out.

    Returns
    -------
    list of (str, float)
        Name of the image and share of the labelled pixels of its tile that are wrong.
    """
    found = []
    for item in (i for i in images if i.held_out and i.codes.any()):
        output = predict(network, item.image, device=device, precision=precision)
        allowed = np.zeros((codes.n_codes, codes.n_classes), bool)
        for code in range(codes.n_codes):
            allowed[code, list(codes.members(code))] = True
        wrong = (item.codes > 0) & ~allowed[item.codes, output]
        share, where = _worst_tile(wrong, item.codes > 0)
        found.append((share, f"{item.source}/{item.name}", item.image[where], item.codes[where], output[where]))
    found.sort(key=lambda row: -row[0])
    found = found[:N_TILES]
    if not found:
        path.unlink(missing_ok=True)
        return []
    colours = np.array([UNKNOWN] + [_rgb(schema, i) for i in codes.class_indices], np.uint8)
    zooms = [max(1, TILE_PX // max(tile.shape)) for *_, tile in found]  # of small images
    high = max(zoom * tile.shape[0] for zoom, (*_, tile) in zip(zooms, found, strict=True))
    sheet = Image.new("RGB", (3 * TILE_PX + 20, len(found) * (high + HEAD_PX)), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(17), ImageFont.load_default(14)
    for row, (share, name, image, truth, output) in enumerate(found):
        top, zoom = row * (high + HEAD_PX), zooms[row]
        said = f": {share:.0%} of the labelled pixels wrong"
        while draw.textlength(name + said, large) > sheet.width - 8 and len(name) > 8:
            name = "…" + name[2:]  # the end tells images apart
        draw.text((4, top + 4), name + said, "black", large)
        for column, caption in enumerate(("image", "labels", "prediction")):
            draw.text((column * (TILE_PX + 10) + 4, top + 27), caption, "black", small)
        grey = (np.clip(image.astype(np.float32), 0, 1) * 255).astype(np.uint8)
        known = np.where(truth <= codes.n_classes, truth, 0)
        for column, picture in enumerate((np.stack([grey] * 3, -1), colours[known], colours[output + 1])):
            larger = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
            sheet.paste(Image.fromarray(larger), (column * (TILE_PX + 10), top + HEAD_PX - 4))
    sheet.save(path)
    return [(name, share) for share, name, *_ in found]


def _worst_tile(wrong: np.ndarray, labelled: np.ndarray) -> tuple[float, tuple]:
    """Share of wrong pixels and place of the tile (or of the tile of the plane) that holds most of them."""
    plane: tuple = ()
    if wrong.ndim == 3:
        plane = (int(wrong.sum(axis=(1, 2)).argmax()),)
        wrong, labelled = wrong[plane], labelled[plane]
    density = wrong.astype(np.float32)
    for axis in (0, 1):
        density = ndimage.uniform_filter1d(density, min(TILE_PX, wrong.shape[axis]), axis=axis, mode="constant")
    centre = np.unravel_index(int(density.argmax()), density.shape)
    box = tuple(
        slice(low := int(min(max(at - TILE_PX // 2, 0), max(size - TILE_PX, 0))), low + TILE_PX)
        for at, size in zip(centre, wrong.shape, strict=True)
    )
    return float(wrong[box].sum() / max(labelled[box].sum(), 1)), (*plane, *box)


def _rgb(schema: LabelSchema, index: int) -> tuple[int, int, int]:
    return next(c.rgb for c in schema.classes if c.index == index)
