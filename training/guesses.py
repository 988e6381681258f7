"""Guesses of what unlabelled pixels are: a forest on filtered intensities and the network's own features.

The forest learns from the strokes in a second what the network would need hundreds of steps for, and the features of
the network let it tell textures apart that filters do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from seg.pixel_features import features
from training.label_codes import LabelCodes
from training.sources import LabelledImage

GUESSED = 128
"""Codes from here on are guesses: of code ``code - GUESSED``."""

_TILE_PX = {2: 512, 3: 64}
_MARGIN_PX = {2: 128, 3: 32}
"""Around a tile, so that features near its edge see what they would see in the whole image."""

_TILES = 24
"""Tiles that guesses are made for, those with most labels first: a minute on one core."""

_FIT_PX = 20_000
_CERTAIN = 0.5
_RAREST = 0.02
"""Share of the pixels that any class is credited with."""

_LEAST = 1e-3

Box = tuple[slice, ...]


def guess(
    start: nn.Module | None, known: Sequence[int], trusted: Sequence[float], images: Sequence[LabelledImage],
    codes: LabelCodes, *, device: torch.device, precision: str, seed: int = 0,
) -> list[LabelledImage]:  # fmt: skip
    """Fill unlabelled pixels near labels with guesses; images that are held out or hold no labels stay as they are.

    Parameters
    ----------
    start : nn.Module or None
        Whose features and probabilities the forest sees, besides filtered intensities; None: it sees these alone.
    known : sequence of int
        Outputs that it was trained on.
    trusted : sequence of float
        Of every output of the start. By as much its probability counts against that of the forest (a product of
        powers); a pixel stays unlabelled where no code gets more than half.
    images : sequence of LabelledImage
    codes : LabelCodes

    Returns
    -------
    list of LabelledImage
    """
    from sklearn.ensemble import ExtraTreesClassifier

    places = _tiles_to_guess(images)
    if not places:
        return list(images)
    described = []
    for i, inner, outer in places:
        described.append(_describe(start, images[i].image, inner, outer, device))
    rng = np.random.default_rng(seed)
    table, label = _labelled_pixels(
        [(images[i].codes[inner], d) for (i, inner, _), d in zip(places, described, strict=True)], rng
    )
    if len(np.unique(label)) < 2:
        return list(images)
    weight = len(label) / np.bincount(label)[label]
    forest = ExtraTreesClassifier(100, min_samples_leaf=3, random_state=seed).fit(table, label, sample_weight=weight)
    of_code = np.array([[k in codes.members(c) for k in range(codes.n_classes)] for c in forest.classes_], float)
    is_known = of_code[:, list(known)].any(axis=1)
    filled = {i: images[i].codes.copy() for i, _, _ in places}
    for (i, inner, _), description in zip(places, described, strict=True):
        found = forest.predict_proba(description.reshape(len(description), -1).T).astype(np.float32)  # (N, codes)
        said = np.zeros((len(found), codes.n_classes), np.float32)
        if start is not None:
            said = np.exp(description[-codes.n_classes :].reshape(codes.n_classes, -1).T)  # (N, K)
            # Strokes are as many of each class, pixels are not: half way (a root) to the shares that the start sees.
            share = (said @ of_code.T.astype(np.float32)).mean(axis=0)
            found *= np.sqrt(share + _RAREST)
            found /= found.sum(axis=1, keepdims=True)
        said[:, [k for k in range(codes.n_classes) if k not in known]] = 0
        believed = (said @ np.asarray(trusted, np.float32) / np.maximum(said.sum(axis=1), _LEAST))[:, None]
        by_start = said @ of_code.T.astype(np.float32)
        # Classes the start does not know keep the share the forest gives them.
        by_start *= found[:, is_known].sum(axis=1, keepdims=True) / np.maximum(
            by_start.sum(axis=1, keepdims=True), _LEAST
        )
        by_start[:, ~is_known] = found[:, ~is_known]
        both = np.maximum(found, _LEAST) ** (1 - believed) * np.maximum(by_start, _LEAST) ** believed
        both /= both.sum(axis=1, keepdims=True)
        best = forest.classes_[both.argmax(axis=1)].astype(np.uint8) + np.uint8(GUESSED)
        best[both.max(axis=1) <= _CERTAIN] = 0
        target = filled[i][inner]
        filled[i][inner] = np.where(target == 0, best.reshape(target.shape), target)
    return [replace(item, codes=filled[i]) if i in filled else item for i, item in enumerate(images)]


def _tiles_to_guess(images: Sequence[LabelledImage]) -> list[tuple[int, Box, Box]]:
    """Image, tile and tile with margin: those with most labels, none without labels or without unlabelled pixels."""
    ranked = []
    for i, item in enumerate(images):
        if item.held_out:
            continue
        for inner, outer in _tiles(item.codes.shape):
            n = int((item.codes[inner] > 0).sum())
            if 0 < n < item.codes[inner].size:
                ranked.append((-n, i, inner, outer))
    ranked.sort(key=lambda r: r[:2])
    return [(i, inner, outer) for _, i, inner, outer in ranked[:_TILES]]


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[Box, Box]]:
    side, margin = _TILE_PX[len(shape)], _MARGIN_PX[len(shape)]
    for corner in itertools.product(*(range(0, n, side) for n in shape)):
        inner = tuple(slice(c, min(c + side, n)) for c, n in zip(corner, shape, strict=True))
        yield (
            inner,
            tuple(slice(max(i.start - margin, 0), min(i.stop + margin, n)) for i, n in zip(inner, shape, strict=True)),
        )


@torch.no_grad()
def _describe(
    start: nn.Module | None, image: np.ndarray, inner: Box, outer: Box, device: torch.device
) -> np.ndarray:  # fmt: skip
    """Features (F, [Z,] Y, X) of a tile, float32: filters, what the head of the network sees, and its log shares."""
    part = image[outer].astype(np.float32)
    own = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    filtered = features(part, spacing=(1.0,) * part.ndim)
    if start is None:
        return filtered[(slice(None), *own)]
    multiple = start.tile_multiple
    padded = np.pad(part, [(0, -n % multiple) for n in part.shape], mode="symmetric")
    seen: list[torch.Tensor] = []
    hook = start.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    scales, start.scales = start.scales, (1,)
    try:
        logits = start.eval()(torch.from_numpy(padded)[None, None].to(device))
    finally:
        hook.remove()
        start.scales = scales
    inside = tuple(slice(0, n) for n in part.shape)
    own_grid = seen[0].float()
    if start.stem_px > 1:  # its finest grid is coarser than the pixels
        own_grid = functional.interpolate(own_grid, scale_factor=start.stem_px, mode="nearest")
    network = [own_grid, torch.log_softmax(logits.float(), dim=1)]
    rows = [
        filtered,
        *(t[0].float().cpu().numpy()[(slice(None), *inside)] for t in network),
    ]
    return np.concatenate([row[(slice(None), *own)] for row in rows])


def _labelled_pixels(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and codes (N,) of labelled pixels, at most so many in all."""
    tables, labels = [], []
    for part, description in parts:
        place = np.flatnonzero(part)
        place = rng.choice(place, min(len(place), max(1, _FIT_PX // len(parts))), replace=False)
        tables.append(description.reshape(len(description), -1)[:, place].T)
        labels.append(part.ravel()[place].astype(int))
    return np.concatenate(tables), np.concatenate(labels)
