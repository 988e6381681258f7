"""Pixel classifier for instant feedback while labelling: extremely randomised trees on filtered intensities."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seg.errors import DataError, LabelError, ModelError
from seg.io.results import atomic_path
from seg.labels import UNLABELLED, LabelSchema
from seg.pixel_features import feature_names, features, reach_px, sigmas_of

if TYPE_CHECKING:
    from seg.extra_tree import ExtraTree

__all__ = [
    "Forest",
    "ForestPrediction",
    "feature_names",
    "features",
    "fit_forest",
    "fit_pixels",
    "load_forest",
    "predict_forest",
    "predict_image",
    "save_forest",
    "warm_up",
]

FORMAT_VERSION = 1
N_TREES = 32
DEPTH = 8
# So many labelled pixels at most go into a fit: it then takes 0.1 s, and strokes hold more pixels than information.
MAX_PIXELS = 8000
_CHUNK_PX = 1 << 16
_TILE_PX = 3_000_000


@dataclass(frozen=True)
class Forest:
    """A fitted classifier: trees as complete binary trees of one depth, flat arrays that need no pickle.

    Parameters
    ----------
    schema : LabelSchema
    class_indices : tuple of int
        Label values the forest tells apart, ascending; the order of probabilities.
    sigmas : tuple of float
        Scales of the features it was fitted on.
    ndim : int
        2 or 3.
    split : ndarray of int32, shape (T, 2**D - 1)
        Feature each node looks at; the children of node n are 2n+1 and 2n+2.
    threshold : ndarray of float32, same shape
        A pixel goes right where the feature is larger. Infinite below a leaf that was reached early.
    leaf : ndarray of float32, shape (T, K, 2**D)
        Class probabilities of the leaves.
    """

    schema: LabelSchema
    class_indices: tuple[int, ...]
    sigmas: tuple[float, ...]
    ndim: int
    split: np.ndarray
    threshold: np.ndarray
    leaf: np.ndarray

    @property
    def depth(self) -> int:
        """Comparisons per tree and pixel."""
        return int(self.leaf.shape[2]).bit_length() - 1


@dataclass(frozen=True)
class ForestPrediction:
    """What a forest says: label values, uint8, shape ([Z,] Y, X), and probabilities, float32, shape (K, [Z,] Y, X)."""

    labels: np.ndarray
    probabilities: np.ndarray


# --- fit and predict ------------------------------------------------------------------------------------------------


def fit_forest(
    frames: Sequence[np.ndarray], strokes: Sequence[np.ndarray], schema: LabelSchema, *,
    sigmas: Sequence[float] | None = None, max_pixels: int = MAX_PIXELS, n_trees: int = N_TREES, depth: int = DEPTH,
    balance: float = 1.0, seed: int = 0,
) -> Forest:  # fmt: skip
    """Fit to sparse labels of one or more frames.

    Parameters
    ----------
    frames : sequence of ndarray of float32, shape (F, [Z,] Y, X)
        `features` of the frames that hold strokes.
    strokes : sequence of ndarray of int, shape ([Z,] Y, X)
        Label values of `schema`; 0 is ignored.
    schema : LabelSchema
    sigmas : sequence of float or None
        As given to `features`.
    max_pixels : int
        Of more labelled pixels, as many are drawn at random, the same number of each class as far as they go.
    n_trees, depth : int
    balance : float
        As of `fit_pixels`.
    seed : int
        The same strokes give the same forest.

    Returns
    -------
    Forest
    """
    if not frames or len(frames) != len(strokes):
        raise ValueError(f"{len(frames)} frame(s) of features and {len(strokes)} of strokes; expected one of each.")
    ndim = frames[0].ndim - 1
    n_features = len(feature_names(ndim, sigmas))
    values, where = [], []
    for n, (planes, drawn) in enumerate(zip(frames, strokes, strict=True)):
        if planes.shape != (n_features, *drawn.shape):
            raise DataError(
                f"Features of frame {n} have shape {planes.shape} and its strokes {drawn.shape}; "
                f"expected {n_features} features on the grid of the strokes."
            )
        schema.check(drawn, where=f"Strokes of frame {n}")
        place = np.flatnonzero(drawn)
        values.append(drawn.ravel()[place])
        where.append(place)
    label = np.concatenate(values)
    classes = np.unique(label)
    if len(classes) < 2:
        names = ", ".join(schema.class_name(int(k)) for k in classes) or "none"
        raise LabelError(f"A forest needs strokes of at least two classes; these hold {names}.")
    keep = _drawn_evenly(label, classes, max_pixels, np.random.default_rng(seed))
    frame = np.repeat(np.arange(len(frames)), [len(place) for place in where])[keep]
    pixel = np.concatenate(where)[keep]
    table = np.empty((len(keep), n_features), np.float32)
    for n, planes in enumerate(frames):
        mine = frame == n
        table[mine] = planes.reshape(n_features, -1)[:, pixel[mine]].T
    return fit_pixels(
        table, label[keep], schema, ndim=ndim, sigmas=sigmas, n_trees=n_trees, depth=depth, balance=balance, seed=seed
    )


def fit_pixels(
    table: np.ndarray, label: np.ndarray, schema: LabelSchema, *, ndim: int = 2, sigmas: Sequence[float] | None = None,
    n_trees: int = N_TREES, depth: int = DEPTH, balance: float = 1.0, seed: int = 0, workers: int = 2,
) -> Forest:  # fmt: skip
    """Fit to the features and label values of single pixels, gathered from any number of frames.

    Parameters
    ----------
    table : ndarray of float32, shape (N, F)
    label : ndarray of int, shape (N,)
        Two values or more of `schema`, none 0.
    balance : float
        A pixel weighs the share of its class to the power of minus this. 1: classes weigh the same however much of each
        was drawn; 0: pixels do.
    workers : int
        Threads; the forest does not depend on them.
    """
    from seg.extra_tree import grow_tree

    weight = ((len(label) / np.bincount(label)[label]) ** balance).astype(np.float64)
    classes, codes = np.unique(label, return_inverse=True)
    table = np.ascontiguousarray(table, np.float32)
    rng = np.random.RandomState(seed)  # as in scikit-learn, whose forest this is
    seeds = [int(rng.randint(np.iinfo(np.int32).max)) for _ in range(n_trees)]

    def grow(seed: int) -> ExtraTree:
        return grow_tree(table, codes, weight, n_classes=len(classes), depth=depth, seed=seed)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        grown = list(pool.map(grow, seeds))
    reached = max(1, *(tree.depth for tree in grown))
    trees = [_complete(tree, reached) for tree in grown]
    split, threshold, leaf = (np.stack(arrays) for arrays in zip(*trees, strict=True))
    known = tuple(int(k) for k in classes)
    return Forest(schema, known, sigmas_of(ndim, sigmas), ndim, split, threshold, leaf)


def _drawn_evenly(label: np.ndarray, classes: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending places of at most `limit` pixels; rare classes first, what they leave goes to the others."""
    if len(label) <= limit:
        return np.arange(len(label))
    counts = {int(k): int((label == k).sum()) for k in classes}
    chosen, left = [], limit
    for done, k in enumerate(sorted(counts, key=lambda k: counts[k])):
        share = min(counts[k], max(left // (len(counts) - done), 1))
        chosen.append(rng.choice(np.flatnonzero(label == k), share, replace=False))
        left -= share
    return np.sort(np.concatenate(chosen))


def _complete(tree: ExtraTree, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tree as a complete binary tree: a leaf above the last level repeats itself below."""
    n_nodes = 2**depth - 1
    node_of = np.zeros(2 * n_nodes + 1, np.int64)
    left, right = tree.left, tree.right
    for level in range(depth):
        first, after = 2**level - 1, 2 ** (level + 1) - 1
        nodes = node_of[first:after]
        node_of[2 * first + 1 : 2 * after + 1 : 2] = np.where(left[nodes] < 0, nodes, left[nodes])
        node_of[2 * first + 2 : 2 * after + 1 : 2] = np.where(left[nodes] < 0, nodes, right[nodes])
    inner = node_of[:n_nodes]
    asks = left[inner] >= 0
    split = np.where(asks, tree.feature[inner], 0).astype(np.int32)
    # Rounded down, so that float32 features go the way they went when it was grown, which compares in float64.
    exact = tree.threshold[inner]
    value = exact.astype(np.float32)
    value = np.where(value <= exact, value, np.nextafter(value, np.float32(-np.inf)))
    threshold = np.where(asks, value, np.float32(np.inf)).astype(np.float32)
    counts = tree.value[node_of[n_nodes:]]  # (2**D, K)
    leaf = (counts / counts.sum(axis=1, keepdims=True)).T
    return split, threshold, np.ascontiguousarray(leaf, np.float32)


def predict_forest(forest: Forest, frame: np.ndarray, *, workers: int = 2) -> ForestPrediction:
    """Label values and probabilities of a frame whose features are at hand.

    Parameters
    ----------
    forest : Forest
    frame : ndarray of float32, shape (F, [Z,] Y, X)
        Its `features`, with the sigmas of the forest.
    workers : int
        Threads. The first call of an installation compiles for some seconds; see `warm_up`.

    Returns
    -------
    ForestPrediction
    """
    n_features = len(feature_names(forest.ndim, forest.sigmas))
    if frame.ndim != forest.ndim + 1 or frame.shape[0] != n_features:
        raise DataError(
            f"The features have shape {frame.shape}; this forest needs {n_features} of {forest.ndim} dimensions."
        )
    shape = frame.shape[1:]
    flat = np.ascontiguousarray(frame, np.float32).reshape(n_features, -1)
    n_px = flat.shape[1]
    probabilities = np.empty((len(forest.class_indices), n_px), np.float32)
    labels = np.empty(n_px, np.uint8)
    values, split = np.array(forest.class_indices, np.uint8), forest.split.astype(np.uint32)
    kernel = _kernel()

    def run(start: int) -> None:
        stop = min(start + _CHUNK_PX, n_px)
        kernel(flat, start, stop, split, forest.threshold, forest.leaf, forest.depth, values, probabilities, labels)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        list(pool.map(run, range(0, n_px, _CHUNK_PX)))
    return ForestPrediction(labels.reshape(shape), probabilities.reshape(-1, *shape))


def predict_image(
    forest: Forest, image: np.ndarray, *, spacing: Sequence[float], workers: int = 2, tile_px: int = _TILE_PX
) -> ForestPrediction:
    """Label values and probabilities of an image or volume of any size, tile by tile.

    Parameters
    ----------
    forest : Forest
    image : ndarray, shape ([Z,] Y, X)
        As for `features`.
    spacing : sequence of float
    workers : int
    tile_px : int
        Pixels of a tile with its margin, at most where the margin allows: features are held for so many.

    Returns
    -------
    ForestPrediction
        The same as without tiles: each carries a margin of all that its features see.
    """
    if image.ndim != forest.ndim:
        raise DataError(f"The image has shape {image.shape}; this forest needs {forest.ndim} dimensions.")
    labels = np.empty(image.shape, np.uint8)
    probabilities = np.empty((len(forest.class_indices), *image.shape), np.float32)
    for inner, outer in _tiles(image.shape, reach_px(forest.sigmas, spacing, image.ndim), tile_px):
        part = features(image[outer], spacing=spacing, sigmas=forest.sigmas, workers=workers)
        found = predict_forest(forest, part, workers=workers)
        own = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        labels[inner] = found.labels[own]
        probabilities[(slice(None), *inner)] = found.probabilities[(slice(None), *own)]
    return ForestPrediction(labels, probabilities)


def _tiles(
    shape: tuple[int, ...], reach: tuple[int, ...], tile_px: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Yield disjoint boxes that cover `shape`, and each with its margin."""
    sizes = list(shape)
    while math.prod(min(s + 2 * r, n) for s, r, n in zip(sizes, reach, shape, strict=True)) > tile_px:
        # Halve the longest side in units of its margin; below half a margin tiles cost more than they save.
        longest = max(range(len(sizes)), key=lambda a: sizes[a] / reach[a])
        if sizes[longest] <= max(reach[longest] // 2, 1):
            break
        sizes[longest] = math.ceil(sizes[longest] / 2)
    for corner in itertools.product(*(range(0, n, s) for n, s in zip(shape, sizes, strict=True))):
        inner = tuple(slice(c, min(c + s, n)) for c, s, n in zip(corner, sizes, shape, strict=True))
        yield (
            inner,
            tuple(slice(max(i.start - r, 0), min(i.stop + r, n)) for i, r, n in zip(inner, reach, shape, strict=True)),
        )


def warm_up() -> None:
    """Load and compile what the first fit and prediction need, so that the first stroke does not wait for it."""
    rng = np.random.default_rng(0)
    frame = features(rng.random((16, 16), np.float32), spacing=(1.0, 1.0))
    strokes = rng.integers(1, 3, (16, 16))
    schema = LabelSchema.from_dict({"name": "two", "classes": [{"index": 1, "name": "a"}, {"index": 2, "name": "b"}]})
    predict_forest(fit_forest([frame], [strokes], schema, n_trees=1), frame)


_compiled: list[object] = []


def _kernel() -> object:
    """The traversal, compiled on first use and kept on disk where a folder for it can be written."""
    if not _compiled:
        from seg.extra_tree import nogil_jit

        _compiled.append(nogil_jit(_traverse))
    return _compiled[0]


def _traverse(flat, start, stop, split, threshold, leaf, depth, values, probabilities, labels):
    """Fill `probabilities` and `labels` for the pixels from `start` to `stop`.

    Level by level for blocks of pixels, so that the compiler makes vector operations of it: three times faster than
    pixel by pixel. The block's features are copied first, because rows a power of two apart share cache lines. The
    first three levels ask all of their seven questions of neighbouring pixels, which costs less than to gather the one
    that is needed. All indices are unsigned: the compiler would look for negative ones, half of the time in all.
    """
    block = 256
    n_features = flat.shape[0]
    n_trees, n_classes, n_leaves = leaf.shape
    rows = np.zeros((n_features, block), np.float32)
    local = rows.ravel()
    total = np.empty((n_classes, block), np.float32)
    node = np.empty(block, np.uint32)
    one, two = np.uint32(1), np.uint32(2)
    for first in range(start, stop, block):
        n = min(block, stop - first)
        for f in range(n_features):
            for i in range(n):
                rows[f, i] = flat[f, first + i]
        total[:] = 0
        for t in range(n_trees):
            rule, limit = split[t], threshold[t]
            done = 0
            node[:] = 0
            if depth >= 3:
                done = 3
                x0, x1, x2, x3 = rows[rule[0]], rows[rule[1]], rows[rule[2]], rows[rule[3]]
                x4, x5, x6 = rows[rule[4]], rows[rule[5]], rows[rule[6]]
                for i in range(block):
                    top = np.uint32(x0[i] > limit[0])
                    left, right = np.uint32(x1[i] > limit[1]), np.uint32(x2[i] > limit[2])
                    second = left ^ (top & (left ^ right))  # right where top, else left
                    a, b = np.uint32(x3[i] > limit[3]), np.uint32(x4[i] > limit[4])
                    c, d = np.uint32(x5[i] > limit[5]), np.uint32(x6[i] > limit[6])
                    left, right = a ^ (second & (a ^ b)), c ^ (second & (c ^ d))
                    third = left ^ (top & (left ^ right))
                    node[i] = np.uint32(7) + (top << two) + (second << one) + third
            for _ in range(depth - done):
                for i in range(block):
                    m = node[i]
                    node[i] = two * m + one + np.uint32(local[rule[m] * np.uint32(block) + np.uint32(i)] > limit[m])
            for k in range(n_classes):
                shares = leaf[t, k]
                for i in range(block):
                    total[k, i] += shares[node[i] - np.uint32(n_leaves - 1)]
        for i in range(n):
            best = 0
            for k in range(n_classes):
                probabilities[k, first + i] = total[k, i] / n_trees
                if total[k, i] > total[best, i]:
                    best = k
            labels[first + i] = values[best]


# --- on disk --------------------------------------------------------------------------------------------------------


def save_forest(forest: Forest, path: Path | str) -> Path:
    """Write a forest as one ``.safetensors`` file: arrays, and their meaning as JSON in its header."""
    from safetensors.numpy import save_file

    about = {
        "format_version": FORMAT_VERSION, "schema": forest.schema.to_dict(), "class_indices": forest.class_indices,
        "sigmas": forest.sigmas, "ndim": forest.ndim,
    }  # fmt: skip
    arrays = {name: np.ascontiguousarray(getattr(forest, name)) for name in ("split", "threshold", "leaf")}
    with atomic_path(path) as part:
        save_file(arrays, part, metadata={"operandoseg_forest": json.dumps(about)})
    return Path(path)


def load_forest(path: Path | str) -> Forest:
    """Read a forest; ModelError where the file is not one or does not hold together."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ModelError(f"There is no forest at {path}.")
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})["operandoseg_forest"])
            arrays = {name: file.get_tensor(name) for name in ("split", "threshold", "leaf")}
        if about["format_version"] != FORMAT_VERSION:
            raise ModelError(f"{path} has format {about['format_version']}; this version reads {FORMAT_VERSION}.")
        schema = LabelSchema.from_dict(about["schema"], where=str(path))
        forest = Forest(
            schema, tuple(about["class_indices"]), tuple(about["sigmas"]), int(about["ndim"]),
            arrays["split"].astype(np.int32), arrays["threshold"].astype(np.float32),
            arrays["leaf"].astype(np.float32),
        )  # fmt: skip
        n_features = len(feature_names(forest.ndim, forest.sigmas))
    except (SafetensorError, KeyError, TypeError, ValueError, DataError) as error:
        raise ModelError(f"{path} is not a forest of this software ({error}); fit it again.") from error
    nodes, leaves = forest.split.shape[-1], forest.leaf.shape[-1]
    fits = (
        forest.split.ndim == 2
        and forest.split.shape == forest.threshold.shape
        and forest.leaf.shape == (len(forest.split), len(forest.class_indices), nodes + 1)
        and leaves == 2**forest.depth
        and ((forest.split >= 0) & (forest.split < n_features)).all()
        and UNLABELLED not in forest.class_indices
    )
    # The traversal reads memory at these numbers unchecked.
    if not fits:
        raise ModelError(f"{path} holds trees that do not fit together; fit the forest again.")
    return forest
