"""Scores of masks against truth, class by class, summed over the frames of a series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from seg.errors import CalibrationError, DataError
from seg.io import read_labels
from seg.io.results import write_table
from seg.labels import UNLABELLED, LabelSchema, load_schema
from seg.metrics.table import Measurement, Scale, to_table
from seg.progress import Progress, silent

# Frames to resample before an interval means anything; fewer give NaN.
_MIN_FRAMES = 5
_RESAMPLES = 1000

# What is counted per frame and class; every score is a ratio of sums of these.
_COUNTS = (
    "true_positive", "false_positive", "false_negative",
    "prediction_edge", "prediction_edge_near", "truth_edge", "truth_edge_near", "hd95_sum", "hd95_frames",
    "matched", "matched_iou", "extra", "missed", "absent", "one_sided",
)  # fmt: skip


class Evaluation:
    """Counts of agreement, frame by frame; the scores are made from their sums.

    Parameters
    ----------
    schema : LabelSchema
    scale : Scale
        Pixel size in axis order.
    tolerance_px : float
        How far apart two edges may be and still agree, in units of the smallest pixel side.

    Notes
    -----
    Pixels that are 0 (unlabelled) in the truth are ignored, and an edge against them is no edge. A pixel that is 0 in
    the prediction only is wrong.

    - ``dice`` = 2TP / (2TP + FP + FN), ``iou`` = TP / (TP + FP + FN), over the pixels of all frames.
    - ``boundary_f1``: harmonic mean of the shares of edge pixels of the prediction and of the truth that lie within the
      tolerance of the other's edge.
    - ``hd95``: the larger of the two directed 95 % edge distances, averaged over the frames where both hold the class.
      Digital edges make it read 0.24 to 0.41 px high.
    - ``object_f1`` = TP / (TP + FP/2 + FN/2) over connected objects (corners connect), matched where IoU > 0.5;
      ``panoptic_quality`` the same with the sum of IoU of the matches in place of TP.

    A class that neither holds is undefined there: such frames are left out and counted in ``method``; where it never
    occurs the score is NaN. Intervals resample frames, from five frames on. The rows of class ``all`` are the mean over
    the classes that have a score.
    """

    def __init__(self, schema: LabelSchema, scale: Scale, *, tolerance_px: float = 1.0) -> None:
        if not tolerance_px >= 0:
            raise ValueError(f"tolerance_px is {tolerance_px!r}; expected a number of pixels, 0 or more.")
        self.schema, self.scale, self.tolerance_px = schema, scale, tolerance_px
        self._frames: list[np.ndarray] = []
        self._indices = [UNLABELLED, *(c.index for c in schema.classes)]
        self._confusion = np.zeros((len(self._indices),) * 2, np.int64)

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count one frame; class indices of the schema, shape ([Z,] Y, X)."""
        if prediction.shape != truth.shape:
            raise DataError(
                f"The prediction has shape {prediction.shape} and the truth {truth.shape}; they must be the same grid."
            )
        if truth.ndim != len(self.scale.spacing):
            raise DataError(f"A frame has {truth.ndim} dimensions but the scale {len(self.scale.spacing)}.")
        self.schema.check(prediction, where="prediction")
        self.schema.check(truth, where="truth")
        valid = truth != UNLABELLED
        lookup = np.zeros(max(self._indices) + 1, np.int64)
        lookup[self._indices] = np.arange(len(self._indices))
        n = len(self._indices)
        pairs = lookup[truth[valid]] * n + lookup[prediction[valid]]
        confusion = np.bincount(pairs, minlength=n * n).reshape(n, n)
        self._confusion += confusion
        counts = np.zeros((len(self.schema.classes), len(_COUNTS)))
        for row, label_class in enumerate(self.schema.classes):
            k = row + 1
            tp, fp, fn = confusion[k, k], confusion[:, k].sum() - confusion[k, k], confusion[k].sum() - confusion[k, k]
            values = {"true_positive": tp, "false_positive": fp, "false_negative": fn}
            if tp + fp + fn == 0:
                values["absent"] = 1
            else:
                values |= self._shapes(prediction == label_class.index, truth == label_class.index, valid)
            counts[row] = [values.get(name, 0) for name in _COUNTS]
        self._frames.append(counts)

    def _shapes(self, prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> dict[str, float]:
        """Edge and object counts of one class in one frame; only the box around it is looked at."""
        prediction = prediction & valid
        box = ndi.find_objects((prediction | truth).astype(np.uint8))[0]
        # one pixel of rim, so that an edge at the side of the box is seen as one
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        prediction, truth, ignored = prediction[box], truth[box], ~valid[box]
        spacing = self.scale.spacing
        values = _match_objects(prediction, truth)
        edges = _edge(prediction, ignored), _edge(truth, ignored)
        values["prediction_edge"], values["truth_edge"] = (int(edge.sum()) for edge in edges)
        if not (edges[0].any() and edges[1].any()):
            values["one_sided"] = int(not (prediction.any() and truth.any()))
            return values
        limit = self.tolerance_px * min(spacing) * (1 + 1e-9)
        to_truth = ndi.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
        to_prediction = ndi.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]]
        values["prediction_edge_near"] = int((to_truth <= limit).sum())
        values["truth_edge_near"] = int((to_prediction <= limit).sum())
        values["hd95_sum"] = float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))
        values["hd95_frames"] = 1
        return values

    @property
    def confusion(self) -> pd.DataFrame:
        """Pixels by true class (rows) and predicted class (columns), unlabelled truth left out."""
        names = ["unlabelled", *self.schema.names]
        table = pd.DataFrame(self._confusion, index=pd.Index(names, name="truth"), columns=names)
        return table.iloc[1:]

    def table(self) -> pd.DataFrame:
        """Give the scores, one row per class and metric, with the columns of ``metrics.csv``."""
        if not self._frames:
            raise DataError("No frame was evaluated.")
        counts = np.stack(self._frames)  # (frame, class, count)
        n_frames = len(counts)
        # resampled frames as weights, so that sums over any resample are one matrix product
        weights = np.random.default_rng(0).multinomial(n_frames, np.full(n_frames, 1 / n_frames), size=_RESAMPLES)
        totals = counts.sum(axis=0)
        resampled = np.einsum("rf,fkc->rkc", weights, counts) if n_frames >= _MIN_FRAMES else None
        rows, flags = [], self.scale.flags
        for metric, score in _SCORES.items():
            unit = self.scale.unit("um") if metric == "hd95" else "1"
            values = score(_named(totals))
            spread = score(_named(resampled)) if resampled is not None else np.full((1, len(values)), np.nan)
            low, high = _interval(spread)
            for row, label_class in enumerate(self.schema.classes):
                absent, one_sided = int(totals[row, -2]), int(totals[row, -1])
                rows.append(
                    Measurement(
                        metric, float(values[row]), unit, float(low[row]), float(high[row]), label_class.name,
                        n=n_frames - absent, method=_method(metric, absent, one_sided),
                        flags=flags if metric == "hd95" else (),
                    )
                )  # fmt: skip
            scored = np.isfinite(values)
            if scored.any():
                low, high = _interval(_mean_of_scored(spread[:, scored]))
                rows.append(
                    Measurement(
                        metric, float(values[scored].mean()), unit, float(low), float(high), "all",
                        n=int(scored.sum()), method="mean over classes", flags=flags if metric == "hd95" else (),
                    )
                )  # fmt: skip
        return to_table(rows)


def _named(counts: np.ndarray) -> dict[str, np.ndarray]:
    return {name: counts[..., i].astype(float) for i, name in enumerate(_COUNTS)}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _boundary_f1(c: dict[str, np.ndarray]) -> np.ndarray:
    near = c["prediction_edge_near"] * c["truth_edge"] + c["truth_edge_near"] * c["prediction_edge"]
    # 2PR/(P+R) with P = near/edge of the prediction, R likewise of the truth, free of 0/0 when one side is empty
    both = 2 * c["prediction_edge_near"] * c["truth_edge_near"]
    score = _ratio(both, near)
    return np.where((near == 0) & (c["prediction_edge"] + c["truth_edge"] > 0), 0.0, score)


def _objects_half(c: dict[str, np.ndarray]) -> np.ndarray:
    return c["matched"] + 0.5 * (c["extra"] + c["missed"])


_SCORES = {
    "dice": lambda c: _ratio(
        2 * c["true_positive"], 2 * c["true_positive"] + c["false_positive"] + c["false_negative"]
    ),
    "iou": lambda c: _ratio(c["true_positive"], c["true_positive"] + c["false_positive"] + c["false_negative"]),
    "boundary_f1": _boundary_f1,
    "hd95": lambda c: _ratio(c["hd95_sum"], c["hd95_frames"]),
    "object_f1": lambda c: _ratio(c["matched"], _objects_half(c)),
    "panoptic_quality": lambda c: _ratio(c["matched_iou"], _objects_half(c)),
}


def _interval(spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval along the first axis; NaN where a resample has no score."""
    low, high = np.percentile(spread, [2.5, 97.5], axis=0)
    return low, high


def _mean_of_scored(spread: np.ndarray) -> np.ndarray:
    finite = np.isfinite(spread)
    return _ratio(np.where(finite, spread, 0.0).sum(axis=-1), finite.sum(axis=-1).astype(float))


def _method(metric: str, absent: int, one_sided: int) -> str:
    parts = []
    if absent:
        parts.append(f"{absent} frame(s) without this class left out")
    if one_sided and metric == "hd95":
        parts.append(f"{one_sided} frame(s) where only one side holds it left out")
    return "; ".join(parts)


def _edge(mask: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Find the pixels of `mask` with a face neighbour outside; the image border and ignored pixels are not outside."""
    return mask & ~ndi.binary_erosion(mask | ignored, border_value=1)


def _match_objects(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Objects of both sides, matched where they share more than half of their union."""
    corners = np.ones((3,) * truth.ndim, bool)
    found, n_found = ndi.label(prediction, corners)
    real, n_real = ndi.label(truth, corners)
    both = prediction & truth
    keys, shared = np.unique(real[both].astype(np.int64) * (n_found + 1) + found[both], return_counts=True)
    i, j = keys // (n_found + 1), keys % (n_found + 1)
    area_real, area_found = np.bincount(real.ravel()), np.bincount(found.ravel())
    iou = shared / (area_real[i] + area_found[j] - shared)
    # pairs above one half are unique, so no assignment has to be solved
    matched = iou > 0.5
    n = int(matched.sum())
    return {"matched": n, "matched_iou": float(iou[matched].sum()), "extra": n_found - n, "missed": n_real - n}


def compare_labels(
    prediction: np.ndarray, truth: np.ndarray, schema: LabelSchema, scale: Scale, *, tolerance_px: float = 1.0
) -> pd.DataFrame:
    """Scores of one frame or volume against truth; see `Evaluation` for the definitions.

    Parameters
    ----------
    prediction, truth : ndarray of int, shape ([Z,] Y, X)
        Class indices; 0 in `truth` is ignored.
    schema : LabelSchema
    scale : Scale
    tolerance_px : float
        Tolerance of ``boundary_f1``.

    Returns
    -------
    DataFrame
        ``dice``, ``iou``, ``boundary_f1``, ``hd95``, ``object_f1`` and ``panoptic_quality`` per class, with the columns
        of ``metrics.csv``.
    """
    evaluation = Evaluation(schema, scale, tolerance_px=tolerance_px)
    evaluation.add(prediction, truth)
    return evaluation.table()


def evaluate_files(
    prediction: Path, truth: Path, out: Path, *, schema: str | Path | None = None, axes: str | None = None,
    pixel_size_um: Mapping[str, float] | None = None, tolerance_px: float = 1.0, progress: Progress = silent,
) -> pd.DataFrame:  # fmt: skip
    """Compare two label files frame by frame and write the scores to `out`.

    The meaning of the labels is that of `schema`, else what the truth file says.

    Returns
    -------
    DataFrame
        As from `Evaluation.table`; also saved, see `write_evaluation`.
    """
    given = load_schema(schema) if schema is not None else None
    true = read_labels(truth, schema=given, axes=axes, pixel_size_um=pixel_size_um)
    made = read_labels(prediction, schema=given, axes=axes, pixel_size_um=pixel_size_um)
    if made.schema.names != true.schema.names:
        raise DataError(
            f"{prediction.name} has the classes {', '.join(made.schema.names)} and {truth.name} "
            f"{', '.join(true.schema.names)}; pass the schema that holds for both."
        )
    if (made.stack.n_frames, made.stack.spatial_shape) != (true.stack.n_frames, true.stack.spatial_shape):
        raise DataError(
            f"{prediction.name} has {made.stack.n_frames} frame(s) of {made.stack.spatial_shape} and {truth.name} "
            f"{true.stack.n_frames} of {true.stack.spatial_shape}; they must be the same grid."
        )
    sizes = made.stack.spacing_um, true.stack.spacing_um
    if sizes[0] is not None and sizes[1] is not None and not np.allclose(sizes[0], sizes[1], rtol=0.01):
        raise CalibrationError(
            f"{prediction.name} has pixels of {sizes[0]} µm and {truth.name} of {sizes[1]} µm; "
            "say which is right with --pixel-size."
        )
    scale = Scale.of(made.stack if sizes[0] is not None else true.stack)
    evaluation = Evaluation(true.schema, scale, tolerance_px=tolerance_px)
    for index in progress(range(true.stack.n_frames), total=true.stack.n_frames, desc="evaluate"):
        evaluation.add(made.stack.frame(index), true.stack.frame(index))
    return write_evaluation(evaluation, out)


def write_evaluation(evaluation: Evaluation, out: Path) -> pd.DataFrame:
    """Save ``evaluation.csv`` (scores) and ``confusion.csv`` (pixels by true and predicted class) in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    table = evaluation.table()
    write_table(table, out / "evaluation.csv")
    write_table(evaluation.confusion.reset_index(), out / "confusion.csv")
    return table


def otsu_labels(
    image: np.ndarray, sigma_px: float, *, foreground: int = 3, background: int = 1, bright: bool = True
) -> np.ndarray:
    """Threshold an image after Gaussian smoothing: the baseline a model has to beat.

    Parameters
    ----------
    image : ndarray, shape ([Z,] Y, X)
        Grey values.
    sigma_px : float
        Standard deviation of the smoothing.
    foreground, background : int
        Label values of the two sides.
    bright : bool
        The foreground is the brighter side.

    Returns
    -------
    ndarray of uint8, shape of `image`
        An image of one grey value is all background.
    """
    from skimage.filters import threshold_otsu

    smooth = ndi.gaussian_filter(np.asarray(image, np.float32), sigma_px)
    labels = np.full(smooth.shape, background, np.uint8)
    if smooth.min() < smooth.max():
        above = smooth > threshold_otsu(smooth)
        labels[above if bright else ~above] = foreground
    return labels
