"""Scores of masks against truth, class by class, summed over images, with intervals over specimens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from seg.errors import CalibrationError, DataError
from seg.evaluation.agreement import COUNTS, SCORES, count_agreement, named, ratio
from seg.labels import UNLABELLED, LabelSchema
from seg.metrics.table import Measurement, Scale, to_table
from seg.uncertainty import expanded_tail

# Independent units to resample before an interval means anything; fewer give NaN.
MIN_UNITS = 3
_RESAMPLES = 1000


class Tally:
    """Counts of agreement of named masks, image by image; the scores are made from their sums.

    Parameters
    ----------
    names : sequence of str
        What is scored: classes, or groups of classes.
    scale : Scale
        Pixel size in axis order.
    tolerance_px : float
        How far apart two edges may be and still agree, in units of the smallest pixel side.
    tolerance_um : float or None
        The same in µm, for calibrated images; given, it holds instead.
    resampled : str
        What the specimens are, for ``method``.

    Notes
    -----
    - ``dice`` = 2TP / (2TP + FP + FN), ``iou`` = TP / (TP + FP + FN), over the pixels of all images.
    - ``boundary_f1``: harmonic mean of the shares of edge pixels of the prediction and of the truth that lie within the
      tolerance of the other's edge.
    - ``hd95``: the larger of the two directed 95 % edge distances, averaged over the images where both hold the class.
      Digital edges make it read 0.24 to 0.41 px high.
    - ``object_f1`` = TP / (TP + FP/2 + FN/2) over connected objects (corners connect), matched where IoU > 0.5;
      ``panoptic_quality`` the same with the sum of IoU of the matches in place of TP.

    A class that neither holds is undefined there: such images are left out and counted in ``method``; where it never
    occurs the score is NaN. The rows of class ``all`` are the mean over the classes that have a score.

    Intervals resample specimens, all images of one together, from three specimens on that hold the class (percentiles
    widened as in `seg.uncertainty.bootstrap_interval`). Images of one specimen are alike: resampling them would claim
    too much.
    """

    def __init__(
        self,
        names: Sequence[str],
        scale: Scale,
        *,
        tolerance_px: float = 1.0,
        tolerance_um: float | None = None,
        resampled: str = "specimen",
    ) -> None:
        if not tolerance_px >= 0:
            raise ValueError(f"tolerance_px is {tolerance_px!r}; expected a number of pixels, 0 or more.")
        if tolerance_um is not None and not tolerance_um >= 0:
            raise ValueError(f"tolerance_um is {tolerance_um!r}; expected a length in µm, 0 or more.")
        if tolerance_um is not None and not scale.calibrated:
            raise CalibrationError(
                "The tolerance is given in µm, but the images have no pixel size; give it in px, or pass --pixel-size."
            )
        self.names, self.scale = tuple(names), scale
        self.tolerance_px, self.tolerance_um, self.resampled = tolerance_px, tolerance_um, resampled
        self._images: list[np.ndarray] = []
        self._labels: list[tuple[str, str]] = []

    def add_masks(
        self,
        masks: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
        *,
        image: str | None = None,
        specimen: str | None = None,
        scale: Scale | None = None,
    ) -> None:
        """Count one image.

        Parameters
        ----------
        masks : mapping of str to (prediction, truth, valid)
            Per name three masks of one shape; a name left out is unknown in this image.
        image, specimen : str or None
            What it is called and what it shows; None: a number, and a specimen of its own.
        scale : Scale or None
            Where its pixel size differs from that of the others.
        """
        spacing = (scale or self.scale).spacing
        tolerance = self.tolerance_px * min(spacing) if self.tolerance_um is None else self.tolerance_um
        counts = np.zeros((len(self.names), len(COUNTS)))
        counts[:, COUNTS.index("absent")] = 1
        for name, (prediction, truth, valid) in masks.items():
            counts[self.names.index(name)] = count_agreement(
                prediction, truth, valid, spacing=spacing, tolerance=tolerance
            )
        image = image if image is not None else str(len(self._images))
        self._images.append(counts)
        self._labels.append((image, specimen if specimen is not None else image))

    def table(self) -> pd.DataFrame:
        """Give the scores, one row per class and metric, with the columns of ``metrics.csv``."""
        if not self._images:
            raise DataError("No frame was evaluated.")
        counts = np.stack(self._images)  # (image, class, count)
        specimens = list(dict.fromkeys(specimen for _, specimen in self._labels))
        of_specimen = np.array([specimens.index(specimen) for _, specimen in self._labels])
        grouped = np.zeros((len(specimens), *counts.shape[1:]))
        np.add.at(grouped, of_specimen, counts)
        totals = counts.sum(axis=0)
        absent, one_sided = (totals[:, COUNTS.index(name)].astype(int) for name in ("absent", "one_sided"))
        pixels = [COUNTS.index(name) for name in ("true_positive", "false_positive", "false_negative")]
        units = (grouped[:, :, pixels].sum(axis=2) > 0).sum(axis=0)  # specimens that hold the class
        resampled = _resample(grouped)
        rows = []
        for metric, score in SCORES.items():
            unit = self.scale.unit("um") if metric == "hd95" else "1"
            flags = self.scale.flags if metric == "hd95" else ()
            values = score(named(totals))
            spread = score(named(resampled)) if resampled is not None else None
            for k, name in enumerate(self.names):
                low, high = _interval(None if spread is None else spread[:, k], int(units[k]))
                rows.append(
                    Measurement(
                        metric, float(values[k]), unit, low, high, name, n=len(counts) - int(absent[k]),
                        method=self._method(metric, int(absent[k]), int(one_sided[k]), int(units[k])), flags=flags,
                    )
                )  # fmt: skip
            scored = np.isfinite(values)
            if scored.any():
                together = None if spread is None else _mean_of_scored(spread[:, scored])
                low, high = _interval(together, len(specimens))
                rows.append(
                    Measurement(
                        metric, float(values[scored].mean()), unit, low, high, "all", n=int(scored.sum()),
                        method="mean over classes", flags=flags,
                    )
                )  # fmt: skip
        return to_table(rows)

    def images(self) -> pd.DataFrame:
        """Scores of every image, one row per image and class that either side holds."""
        rows = []
        for (image, specimen), counts in zip(self._labels, self._images, strict=True):
            values = {metric: score(named(counts)) for metric, score in SCORES.items()}
            for k, name in enumerate(self.names):
                if not counts[k, COUNTS.index("absent")]:
                    scores = {metric: float(value[k]) for metric, value in values.items()}
                    rows.append({"image": image, "specimen": specimen, "class": name, **scores})
        return pd.DataFrame(rows, columns=["image", "specimen", "class", *SCORES])

    def _method(self, metric: str, absent: int, one_sided: int, units: int) -> str:
        parts = []
        if metric == "boundary_f1":
            given = f"{self.tolerance_px:g} px" if self.tolerance_um is None else f"{self.tolerance_um:g} um"
            parts.append(f"edges within {given}")
        if absent:
            parts.append(f"{absent} frame(s) without this class left out")
        if one_sided and metric == "hd95":
            parts.append(f"{one_sided} frame(s) where only one side holds it left out")
        if 0 < units < MIN_UNITS:
            parts.append(f"{units} {self.resampled}: too few for an interval")
        elif units:
            parts.append(f"interval over {units} {self.resampled}")
        return "; ".join(parts)


class Evaluation(Tally):
    """Counts of agreement of label images; the scores are those of `Tally`.

    Parameters
    ----------
    schema : LabelSchema
    scale : Scale
    tolerance_px, tolerance_um : float
    resampled : str
        As for `Tally`.

    Notes
    -----
    Pixels that are 0 (unlabelled) in the truth are ignored, and an edge against them is no edge. A pixel that is 0 in
    the prediction only is wrong.
    """

    def __init__(
        self,
        schema: LabelSchema,
        scale: Scale,
        *,
        tolerance_px: float = 1.0,
        tolerance_um: float | None = None,
        resampled: str = "specimen",
    ) -> None:
        super().__init__(schema.names, scale, tolerance_px=tolerance_px, tolerance_um=tolerance_um, resampled=resampled)
        self.schema = schema
        self._indices = [UNLABELLED, *(c.index for c in schema.classes)]
        self._confusion = np.zeros((len(self._indices),) * 2, np.int64)

    def add(
        self,
        prediction: np.ndarray,
        truth: np.ndarray,
        *,
        image: str | None = None,
        specimen: str | None = None,
        scale: Scale | None = None,
    ) -> None:
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
        self._confusion += np.bincount(pairs, minlength=n * n).reshape(n, n)
        self.add_masks(
            {c.name: (prediction == c.index, truth == c.index, valid) for c in self.schema.classes},
            image=image,
            specimen=specimen,
            scale=scale,
        )

    @property
    def confusion(self) -> pd.DataFrame:
        """Pixels by true class (rows) and predicted class (columns), unlabelled truth left out."""
        names = ["unlabelled", *self.schema.names]
        table = pd.DataFrame(self._confusion, index=pd.Index(names, name="truth"), columns=names)
        return table.iloc[1:]


def compare_labels(
    prediction: np.ndarray, truth: np.ndarray, schema: LabelSchema, scale: Scale, *, tolerance_px: float = 1.0
) -> pd.DataFrame:
    """Scores of one frame or volume against truth; see `Tally` for the definitions.

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


def _resample(units: np.ndarray) -> np.ndarray | None:
    """Sums over resampled units, shape (resample, class, count); None for too few."""
    n = len(units)
    if n < MIN_UNITS:
        return None
    # resampled units as weights, so that sums over any resample are one matrix product
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return np.einsum("ru,ukc->rkc", weights, units)


def _interval(spread: np.ndarray | None, n_units: int) -> tuple[float, float]:
    """95 % interval of resampled scores; those where the class was not drawn are left out."""
    finite = spread[np.isfinite(spread)] if spread is not None else np.empty(0)
    if n_units < MIN_UNITS or not len(finite):
        return float("nan"), float("nan")
    tail = expanded_tail(n_units, 0.95)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _mean_of_scored(spread: np.ndarray) -> np.ndarray:
    finite = np.isfinite(spread)
    return ratio(np.where(finite, spread, 0.0).sum(axis=-1), finite.sum(axis=-1).astype(float))
