"""Key frames with the masks drawn over them, and the scale bar that belongs to them."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np

from seg.errors import DataError
from seg.labels import UNLABELLED, LabelSchema
from seg.report.saved import KeyFrame, Saved

_FILL, _UNLABELLED_GREY = 0.38, 150
# Small pictures are enlarged by whole pixels up to about this width, so that single pixels stay square.
_AT_LEAST_PX = 420
_GROUND = ("electrolyte", "substrate", "separator")


@dataclass(frozen=True)
class ScaleBar:
    """Length of the bar as a share of the picture's width, and its text."""

    percent: float
    label: str


@dataclass(frozen=True)
class Picture:
    """One key frame as data URIs: the masks over the image, and the image (None where the run had none)."""

    key: KeyFrame
    masks: str
    image: str | None
    width: int
    height: int
    classes: tuple[int, ...]


def scale_bar(saved: Saved) -> ScaleBar:
    """Choose a round length of about a fifth of the width; in pixels where the pixel size along x is unknown."""
    size_um = saved.pixel_size_um.get("x")
    width = saved.size("x")
    if size_um is None:
        length = round_length(width / 5)
        return ScaleBar(100 * length / width, f"{length:g}\u00a0px")
    extent_um = width * size_um
    length_um = round_length(extent_um / 5)
    if length_um < 1:
        text = f"{length_um * 1000:g}\u00a0nm"
    elif length_um >= 1000:
        text = f"{length_um / 1000:g}\u00a0mm"
    else:
        text = f"{length_um:g}\u00a0µm"
    return ScaleBar(100 * length_um / extent_um, text)


def round_length(length: float) -> float:
    """Find the 1, 2 or 5 times a power of ten nearest below (or at) a length."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power


def read_pictures(saved: Saved) -> tuple[list[tuple[KeyFrame, np.ndarray, np.ndarray | None]], list[str]]:
    """Labels and image of every key frame, and a sentence for each that cannot be used."""
    found, problems = [], []
    for key in saved.key_frames:
        try:
            labels = _read(key.labels)
            image = _read(key.image) if key.image else None
            if image is not None and image.shape != labels.shape:
                raise DataError(f"its image has {image.shape} pixels but its labels {labels.shape}")
            found.append((key, labels, image))
        except (OSError, DataError) as error:
            problems.append(f"The picture of frame {key.frame} is left out: {error}.")
    return found, problems


def _read(path: object) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:  # type: ignore[arg-type]
        pixels = np.asarray(picture)
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise DataError(f"{path} is not an 8-bit picture with one channel")
    return pixels


def background_class(frames: list[tuple[KeyFrame, np.ndarray, np.ndarray | None]], schema: LabelSchema) -> int:
    """Find the class that is left without tint, so that the others stand out.

    The one that fills most of the key frames, of those that objects lie on or in where there are any: metal that covers
    half of an electrode is still what is looked for.
    """
    counts = sum((np.bincount(labels.ravel(), minlength=256) for _, labels, _ in frames), np.zeros(256, int))
    counts[UNLABELLED] = 0
    ground = [c.index for c in schema.classes if c.name in _GROUND and counts[c.index]]
    return int(max(ground, key=lambda index: counts[index]) if ground else counts.argmax())


def draw(
    frame: tuple[KeyFrame, np.ndarray, np.ndarray | None], schema: LabelSchema, saved: Saved, *, plain_class: int,
    max_side_px: int, quality: int,
) -> Picture:  # fmt: skip
    """One key frame at the size of the page, pixels made square where the input's are not."""
    from PIL import Image

    key, labels, image = frame
    height, width = _display_size(labels.shape, saved.pixel_size_um, max_side_px)
    shrink = (
        Image.Resampling.LANCZOS if height < labels.shape[0] or width < labels.shape[1] else Image.Resampling.NEAREST
    )
    labels = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    grey = (
        np.asarray(Image.fromarray(image).resize((width, height), shrink))
        if image is not None
        else np.full((height, width), 255, np.uint8)
    )
    masks = paint(grey, labels, schema, plain_class=plain_class, fill=_FILL if image is not None else 0.8)
    return Picture(
        key, _data_uri(masks, quality), _data_uri(grey, quality) if image is not None else None, width, height,
        tuple(int(value) for value in np.unique(labels)),
    )  # fmt: skip


def _display_size(shape: tuple[int, ...], size_um: dict[str, float], max_side_px: int) -> tuple[int, int]:
    height, width = float(shape[0]), float(shape[1])
    if {"y", "x"} <= set(size_um):
        ratio = size_um["y"] / size_um["x"]
        height, width = (height * ratio, width) if ratio >= 1 else (height, width / ratio)
    longest = max(height, width)
    if longest > max_side_px:
        scale = max_side_px / longest
    else:
        scale = max(1, min(max_side_px, _AT_LEAST_PX) // math.ceil(longest))
    return max(1, round(height * scale)), max(1, round(width * scale))


def paint(grey: np.ndarray, labels: np.ndarray, schema: LabelSchema, *, plain_class: int, fill: float) -> np.ndarray:
    """Colour an image by class: a tint and a full outline; unlabelled pixels are hatched.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
    """
    painted = np.repeat(grey[..., None].astype(float), 3, axis=-1)
    for label_class in schema.classes:
        mask = labels == label_class.index
        if label_class.index == plain_class or not mask.any():
            continue
        colour = np.array(label_class.rgb, float)
        painted[mask] = (1 - fill) * painted[mask] + fill * colour
        painted[_outline(mask)] = colour
    y, x = np.nonzero(labels == UNLABELLED)
    hatched = (y + x) % 8 == 0
    painted[y[hatched], x[hatched]] = _UNLABELLED_GREY
    return np.clip(painted + 0.5, 0, 255).astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of `mask` with a neighbour outside it; the border of the picture is not outside."""
    inside = mask.copy()
    inside[1:] &= mask[:-1]
    inside[:-1] &= mask[1:]
    inside[:, 1:] &= mask[:, :-1]
    inside[:, :-1] &= mask[:, 1:]
    return mask & ~inside


def _data_uri(pixels: np.ndarray, quality: int) -> str:
    """JPEG, or PNG where that is smaller (flat masks)."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    options = {"JPEG": {"quality": quality, "subsampling": 0, "optimize": True}, "PNG": {}}
    encoded = []
    for kind, settings in options.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **settings)
        encoded.append((len(buffer.getvalue()), kind.lower(), buffer.getvalue()))
    _, kind, data = min(encoded)
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
