"""What is held out: whole specimens, or blocks of a series with a gap; and whether the split leaks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from seg.errors import DataError, UsageError
from seg.labels import LabelSchema
from training.config import DataConfig, SourceConfig
from training.label_codes import LabelCodes

if TYPE_CHECKING:
    from training.sources import LabelledImage

logger = logging.getLogger(__name__)

FINGERPRINT_PX = 64
COARSE_PX = 6.0
"""Structure wider than this, of the side of a fingerprint, is taken out: it is what unlike images of a kind share."""


def split(images: Sequence[LabelledImage], config: DataConfig) -> list[LabelledImage]:
    """The images with `held_out` set; those in the gap beside a block are left out.

    A fold (``data.folds``) replaces what the sources say: their specimens are dealt in the order a permutation with
    ``data.seed`` gives; a source of one specimen is cut into blocks of its series.
    """
    result = []
    for name in dict.fromkeys(i.source for i in images):
        source = config.sources[name]
        mine = [i for i in images if i.source == name]
        specimens = sorted({i.specimen for i in mine})
        if config.folds is not None and len(specimens) > 1:
            rng = np.random.default_rng([config.seed, *name.encode()])
            held_out = set(rng.permutation(specimens)[config.fold :: config.folds].tolist())
            result += _by_specimen(mine, held_out)
        elif config.folds is not None:
            result += _by_block(name, mine, source.gap_frames, (config.fold / config.folds, 1 / config.folds))
        elif source.held_out_block:
            if source.held_out or source.held_out_share:
                raise UsageError(f"data.sources.{name}: give one of held_out, held_out_share and held_out_block.")
            if not 0 < source.held_out_block < 1:
                raise UsageError(f"data.sources.{name}.held_out_block={source.held_out_block}; expected 0 to 1.")
            for specimen in specimens:
                block = (1 - source.held_out_block, source.held_out_block)
                series = [i for i in mine if i.specimen == specimen]
                result += _by_block(f"{name}, {specimen}", series, source.gap_frames, block)
        else:
            result += _by_specimen(mine, held_out_specimens(name, source, specimens, config.seed))
    return result


def held_out_specimens(name: str, source: SourceConfig, specimens: Sequence[str], seed: int) -> set[str]:
    """Specimens kept for scoring: those listed, or a share of them drawn with `seed`."""
    key = f"data.sources.{name}"
    known = sorted(set(specimens))
    unknown = sorted(set(source.held_out) - set(known))
    if unknown:
        raise UsageError(f"{key}.held_out: no specimen {', '.join(unknown)}; there are {', '.join(known)}.")
    if source.held_out and source.held_out_share:
        raise UsageError(f"{key}: give held_out or held_out_share, not both.")
    if not 0 <= source.held_out_share < 1:
        raise UsageError(f"{key}.held_out_share={source.held_out_share}; expected at least 0 and less than 1.")
    chosen = set(source.held_out)
    if source.held_out_share:
        n = max(1, round(source.held_out_share * len(known)))
        rng = np.random.default_rng([seed, *name.encode()])
        chosen = set(rng.permutation(known)[:n].tolist())
    if chosen >= set(known):
        raise DataError(
            f"{key}: all {len(known)} specimen(s) are held out, nothing is left to train on. "
            f"With one specimen, hold out the end of its series ({key}.held_out_block=0.2), or nothing (held_out=[])."
        )
    return chosen


def _by_specimen(images: Sequence[LabelledImage], held_out: set[str]) -> Iterator[LabelledImage]:
    return (replace(i, held_out=i.specimen in held_out) for i in images)


def _by_block(name: str, images: Sequence[LabelledImage], gap: int, block: tuple[float, float]) -> list[LabelledImage]:
    """Hold out the share `block` (start, length) of the labelled frames, or planes of a single volume, of a series."""
    along_time = len({i.time for i in images}) > 1
    places = sorted({i.time if along_time else i.plane for i in images})
    first = round(block[0] * len(places))
    last = max(round((block[0] + block[1]) * len(places)), first + 1)
    inside = places[first:last]
    if not inside:
        raise DataError(f"{name}: {len(places)} labelled frame(s) cannot be cut into blocks; use fewer folds.")
    parts = []
    for image in images:
        place = image.time if along_time else image.plane
        if inside[0] <= place <= inside[-1]:
            parts.append(replace(image, held_out=True))
        elif place < inside[0] - gap or place > inside[-1] + gap:
            parts.append(image)
    if all(i.held_out for i in parts):
        raise DataError(
            f"{name}: with frames {inside[0]} to {inside[-1]} held out and a gap of {gap}, none of the {len(places)} "
            "labelled frames is left to train on. Label more of them, or set a smaller gap_frames."
        )
    return parts


# --- leaks ----------------------------------------------------------------------------------------------------------


def refuse_leaks(images: Sequence[LabelledImage], similarity: float) -> None:
    """DataError when an image that is trained on shows what a held-out one shows.

    Notes
    -----
    Images are averaged to 64 x 64 px, coarse structure and the means of rows and columns are subtracted, and the rest
    is correlated pixel by pixel: frames of one series a moment apart correlate near 1 as far as they show structure,
    different scenes near 0. Volumes are compared by their middle planes.
    """
    trained, held_out = ([i for i in images if i.held_out == kind] for kind in (False, True))
    if not trained or not held_out:
        return
    a, b = (np.stack([_fingerprint(i.image) for i in part]) for part in (trained, held_out))
    alike = a @ b.T  # (trained, held out)
    pairs = np.argwhere(alike > similarity)
    if len(pairs):
        worst = pairs[np.argsort(-alike[tuple(pairs.T)], kind="stable")]
        shown = "\n".join(
            f"  {trained[i].source}/{trained[i].name} (trained on) and {held_out[j].source}/{held_out[j].name} "
            f"(held out): correlation {alike[i, j]:.3f}"
            for i, j in worst[:10]
        )
        more = f"\n  ... and {len(worst) - 10} more" if len(worst) > 10 else ""
        raise DataError(
            f"{len(worst)} pair(s) of images across the split show nearly the same, so scores would be of memory:\n"
            f"{shown}{more}\n"
            "Give them one specimen (data.sources.NAME.specimen), leave one of them out (exclude), widen gap_frames, "
            "or, if they are truly independent, set data.leak_similarity=null."
        )


def _fingerprint(image: np.ndarray) -> np.ndarray:
    """Fine structure of an image as a unit vector; zeros for an image without any."""
    plane = image[len(image) // 2] if image.ndim == 3 else image
    values = plane.astype(np.float32)
    for axis in (0, 1):  # means of bands of rows, then of columns
        edges = np.linspace(0, values.shape[axis], min(FINGERPRINT_PX, values.shape[axis]) + 1).astype(int)
        values = np.add.reduceat(values, edges[:-1], axis=axis) / np.diff(edges).reshape(-1, *(1,) * (1 - axis))
    if values.shape != (FINGERPRINT_PX, FINGERPRINT_PX):
        values = ndimage.zoom(values, [FINGERPRINT_PX / n for n in values.shape], order=1)
    fine = values - ndimage.gaussian_filter(values, COARSE_PX)
    for axis in (0, 1):  # straight layers and edges lie alike in many cells
        fine -= fine.mean(axis=axis, keepdims=True)
    # Limited, so that a few bright pixels (a scale bar, a stamp) do not decide.
    spread = fine.std()
    fine = np.clip(fine, -3 * spread, 3 * spread).ravel()
    norm = np.linalg.norm(fine - fine.mean())
    return (fine - fine.mean()) / norm if norm > 1e-4 * fine.size**0.5 else np.zeros_like(fine)


# --- what each part holds -------------------------------------------------------------------------------------------


def presence(images: Sequence[LabelledImage], codes: LabelCodes, schema: LabelSchema) -> pd.DataFrame:
    """Labelled pixels, images and specimens of each class, per source, trained on and held out.

    Classes that labels leave open (one of several) count for none of them.
    """
    rows = []
    for name, held_out in itertools.product(dict.fromkeys(i.source for i in images), (False, True)):
        part = [i for i in images if i.source == name and i.held_out == held_out]
        counts = [np.bincount(i.codes.ravel(), minlength=codes.n_codes) for i in part]
        for k, index in enumerate(codes.class_indices):
            with_class = [i for i, count in zip(part, counts, strict=True) if count[k + 1]]
            rows.append(
                {
                    "source": name,
                    "part": "held_out" if held_out else "train",
                    "class": schema.class_name(index),
                    "labelled_px": int(sum(count[k + 1] for count in counts)),
                    "n_images": len(with_class),
                    "n_specimens": len({i.specimen for i in with_class}),
                }
            )
    return pd.DataFrame(rows, columns=["source", "part", "class", "labelled_px", "n_images", "n_specimens"])


def warn_of_absent_classes(table: pd.DataFrame) -> None:
    """Say which classes are trained but held out nowhere, so that no score will speak of them."""
    total = table.groupby(["class", "part"])["labelled_px"].sum().unstack(fill_value=0)
    if "held_out" not in total or not total["held_out"].any():
        return
    unscored = [name for name, row in total.iterrows() if row["train"] and not row["held_out"]]
    if unscored:
        logger.warning("%s: in no held-out image of this split, so it gets no score.", ", ".join(map(str, unscored)))
