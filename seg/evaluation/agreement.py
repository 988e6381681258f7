"""What two masks of one class agree on in one frame: pixels, edges and objects, as counts that add up over frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage as ndi

# Every score is a ratio of sums of these.
COUNTS = (
    "true_positive", "false_positive", "false_negative",
    "prediction_edge", "prediction_edge_near", "truth_edge", "truth_edge_near", "hd95_sum", "hd95_frames",
    "matched", "matched_iou", "extra", "missed", "absent", "one_sided",
)  # fmt: skip


def count_agreement(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray, *, spacing: tuple[float, ...], tolerance: float
) -> np.ndarray:
    """Compare two masks of one frame or volume.

    Parameters
    ----------
    prediction, truth, valid : ndarray of bool, shape ([Z,] Y, X)
        Only pixels of `valid` count, and an edge against the others is no edge.
    spacing : tuple of float
        Pixel size in axis order.
    tolerance : float
        How far apart two edges may be and still agree, in the unit of `spacing`.

    Returns
    -------
    ndarray of float, shape (len(COUNTS),)
        In the order of `COUNTS`.
    """
    prediction, truth = prediction & valid, truth & valid
    both = int(np.count_nonzero(prediction & truth))
    values: dict[str, float] = {
        "true_positive": both,
        "false_positive": int(np.count_nonzero(prediction)) - both,
        "false_negative": int(np.count_nonzero(truth)) - both,
    }
    if any(values.values()):
        values |= _shapes(prediction, truth, valid, spacing, tolerance)
    else:
        values["absent"] = 1
    return np.array([values.get(name, 0) for name in COUNTS], float)


def _shapes(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> dict[str, float]:
    """Edge and object counts; only the box around the class is looked at."""
    box = ndi.find_objects((prediction | truth).astype(np.uint8))[0]
    # one pixel of rim, so that an edge at the side of the box is seen as one
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in box)
    prediction, truth, ignored = prediction[box], truth[box], ~valid[box]
    values = _match_objects(prediction, truth)
    edges = _edge(prediction, ignored), _edge(truth, ignored)
    values["prediction_edge"], values["truth_edge"] = (int(edge.sum()) for edge in edges)
    if not (edges[0].any() and edges[1].any()):
        values["one_sided"] = int(not (prediction.any() and truth.any()))
        return values
    limit = tolerance * (1 + 1e-9)
    to_truth = ndi.distance_transform_edt(~edges[1], sampling=spacing)[edges[0]]
    to_prediction = ndi.distance_transform_edt(~edges[0], sampling=spacing)[edges[1]]
    values["prediction_edge_near"] = int((to_truth <= limit).sum())
    values["truth_edge_near"] = int((to_prediction <= limit).sum())
    values["hd95_sum"] = float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))
    values["hd95_frames"] = 1
    return values


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


# --- scores from sums of counts -------------------------------------------------------------------------------------


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient; NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _boundary_f1(c: dict[str, np.ndarray]) -> np.ndarray:
    near = c["prediction_edge_near"] * c["truth_edge"] + c["truth_edge_near"] * c["prediction_edge"]
    # 2PR/(P+R) with P = near/edge of the prediction, R likewise of the truth, free of 0/0 when one side is empty
    both = 2 * c["prediction_edge_near"] * c["truth_edge_near"]
    score = ratio(both, near)
    return np.where((near == 0) & (c["prediction_edge"] + c["truth_edge"] > 0), 0.0, score)


def _objects_half(c: dict[str, np.ndarray]) -> np.ndarray:
    return c["matched"] + 0.5 * (c["extra"] + c["missed"])


SCORES: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "dice": lambda c: ratio(2 * c["true_positive"], 2 * c["true_positive"] + c["false_positive"] + c["false_negative"]),
    "iou": lambda c: ratio(c["true_positive"], c["true_positive"] + c["false_positive"] + c["false_negative"]),
    "boundary_f1": _boundary_f1,
    "hd95": lambda c: ratio(c["hd95_sum"], c["hd95_frames"]),
    "object_f1": lambda c: ratio(c["matched"], _objects_half(c)),
    "panoptic_quality": lambda c: ratio(c["matched_iou"], _objects_half(c)),
}
"""Score -> function of named sums of `COUNTS`, any shape; NaN where it is undefined."""


def named(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts, shape (..., len(COUNTS)), by name."""
    return {name: counts[..., i].astype(float) for i, name in enumerate(COUNTS)}
