"""How far the numbers of a frame would be off had the network decided otherwise: masks drawn from its probabilities.

A mask is one answer of many that the class probabilities allow. `draw_labels` draws others, in which each pixel has
each class as often as its probability says, and neighbours err together. Each one stands for a truth: it is cleaned by
size, as objects are defined, but not by how sure the network is of it, and measured by the analysis. The spread of a
number over the draws, to each side for itself, is the uncertainty of its mask, and joins the rest of its interval in
quadrature (rule R5 of the definitions: u_label). As the intervals come with half a pixel of outline already, they count
that part twice: rather too wide than too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, special

from seg.analysis import MIN_MASK_SAMPLES, AnalysisConfig
from seg.measure import measure_frames
from seg.metrics.frame import Frame
from seg.metrics.names import NO_INTERVAL
from seg.metrics.table import Measurement
from seg.postprocess import Rules, clean_labels
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.uncertainty import combine_intervals

# Fitted to the residuals (truth minus probability, over its standard deviation) of the shipped models on 70 images of
# twins they were not trained on (optical, SEM, cryo-EM). These are correlated by 0.57 to 0.78 two pixels apart, 0.34 to
# 0.45 at 16, and still 0.2 to 0.5 at 32 to 96: a good part of the error is common to the frame. The amount of a class
# was off by a shift of its logits of 0.5 to 1.2 (standard deviation over frames); these draws have 1.4 in common.
CORRELATION_PX = 24.0
COMMON_SHARE = 0.6

GROUPS = ("counting", "size", "cover", "sei", "dendrite", "pits", "voids", "dead", "layers")
"""Groups measured again on every draw: those of single frames whose numbers are sums, counts and means."""

# A mask holds as much of the counted classes as the probabilities expect, or the network does not stand by it: of 127
# frames (twins that no model had seen, held-out micrographs) 46 were contested, and 40 of these masks were off by more
# than a fifth; of the other 81 masks 20 were. What is less than some ten pixels of a small frame contests nothing.
CONTESTED_RATIO = 0.2
CONTESTED_SHARE = 3e-4


SIGNED = ("size_lognormal_mu",)
"""Numbers of these groups that may lie below zero; the interval of no other one reaches below it."""


def smooth_field(shape: Sequence[int], correlation_px: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian random field with mean 0 and variance 1, correlated over `correlation_px`; float32.

    Drawn on a grid of half that distance and interpolated, so that it costs less than its array.
    """
    step = max(correlation_px / 2, 1.0)
    margin = 6  # coarse cells on each side, cut off where the filter lacks neighbours
    coarse = [int(np.ceil(n / step)) + 2 + 2 * margin for n in shape]
    sigma = correlation_px / step / np.sqrt(2)  # of the kernel: the field is correlated over sqrt(2) times as much
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse).astype(np.float32), sigma, mode="wrap")
    start = rng.random(len(shape)) + margin - 0.5
    where = [
        np.arange(n, dtype=np.float32) / np.float32(step) + np.float32(s) for n, s in zip(shape, start, strict=True)
    ]
    field = noise
    for axis, at in enumerate(where):  # linear, one axis after the other
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(field.ndim)]).astype(np.float32)
        field = field.take(low, axis=axis) * (1 - share) + field.take(low + 1, axis=axis) * share
    return np.asarray(field / noise.std())


def draw_labels(
    probabilities: np.ndarray,
    values: Sequence[int],
    rng: np.random.Generator,
    *,
    correlation_px: float = CORRELATION_PX,
    common_share: float = COMMON_SHARE,
) -> np.ndarray:
    """Draw one mask that the probabilities allow.

    Parameters
    ----------
    probabilities : ndarray, shape (K, [Z,] Y, X)
        Of the classes; adding up to 1.
    values : sequence of int
        Their label values.
    rng : Generator
    correlation_px : float
        Distance over which pixels are drawn together.
    common_share : float
        Share of the variance that all pixels have in common.

    Returns
    -------
    ndarray of uint8, shape ([Z,] Y, X)
        Each pixel has class k with probability ``probabilities[k]``.

    Notes
    -----
    The class with the largest ``log p + G`` is drawn, with G of Gumbel's distribution (the Gumbel-max trick): exact for
    each pixel. G is the transform of a smooth Gaussian field per class, which makes neighbours err together.

    References
    ----------
    Maddison, C. J., Tarlow, D., Minka, T. (2014). A* sampling. Advances in Neural Information Processing Systems 27.
    """
    shape = probabilities.shape[1:]
    best = np.full(shape, -np.inf, np.float32)
    labels = np.zeros(shape, np.uint8)
    for value, p in zip(values, probabilities, strict=True):
        gauss = np.float32(np.sqrt(1 - common_share)) * smooth_field(shape, correlation_px, rng)
        gauss += np.float32(np.sqrt(common_share) * rng.standard_normal())
        possible = p > 0
        uniform = np.clip(special.ndtr(gauss[possible]), 1e-7, 1 - 1e-7)
        score = np.full(shape, -np.inf, np.float32)
        score[possible] = np.log(p[possible]) - np.log(-np.log(uniform))
        wins = score > best
        np.copyto(best, score, where=wins)
        labels[wins] = value
    return labels


def spread_about(value: float, drawn: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval about a value that draws about it leave, each side with a spread of its own.

    Parameters
    ----------
    value : float
        The most probable one.
    drawn : sequence of float
        At least two.

    Returns
    -------
    low, high : float

    Notes
    -----
    Standard deviations below and above are those of a two-piece normal law with its mode at `value`, by maximum
    likelihood, times Student's t for as many draws. What is hardly seen can be much more, but not less than nothing.

    References
    ----------
    John, S. (1982). The three-parameter two-piece normal family of distributions and its fitting. Communications in
    Statistics - Theory and Methods 11, 879-885.
    """
    apart = np.asarray(drawn, float) - value
    below, above = (float((np.clip(side * apart, 0, None) ** 2).sum()) for side in (-1, 1))
    both = (np.cbrt(below) + np.cbrt(above)) / (len(apart) - 1)
    t = float(special.stdtrit(len(apart) - 1, 0.975))
    below, above = (t * float(np.sqrt(both * np.cbrt(side) ** 2)) for side in (below, above))
    return value - below, value + above


@dataclass(frozen=True)
class MaskSampler:
    """Draws masks of a frame, measures them and widens the intervals of its numbers.

    Parameters
    ----------
    probabilities : callable
        Frame number -> class probabilities (K, [Z,] Y, X).
    values : tuple of int
        Label values of the classes.
    n_samples : int
    rules : Rules or None
        As the masks of the run are cleaned.
    config : AnalysisConfig
    seed : int
    """

    probabilities: Callable[[int], np.ndarray]
    values: tuple[int, ...]
    n_samples: int
    rules: Rules | None
    config: AnalysisConfig
    seed: int = 0

    def widen(self, frame: Frame, rows: Sequence[Measurement], stack: Stack) -> list[Measurement]:
        """The rows of a frame, those of `GROUPS` with the spread over masks in their intervals.

        Parameters
        ----------
        frame : Frame
        rows : sequence of Measurement
        stack : Stack
            The series of labels the frame is of, for its calibration.

        Notes
        -----
        Numbers of single objects keep their intervals: objects of two masks need not be the same. So do metrics that
        estimate nothing (`NO_INTERVAL`). An interval ends at zero where its number cannot be less (all but `SIGNED`).
        A number that a draw cannot give is left out of its spread, and gets one from `MIN_MASK_SAMPLES` draws.

        Numbers of counted classes are flagged ``low-confidence`` where the mask holds a fifth more or less of them than
        the probabilities expect: what a network hardly sees lies outside what the draws allow.
        """
        shares = self.probabilities(frame.index)
        found: dict[tuple, list[float]] = {}
        for measured in self._measured(frame, stack, shares):
            for key, row in _keyed(measured):
                if np.isfinite(row.value):
                    found.setdefault(key, []).append(row.value)
        of_row = {id(row): key for key, row in _keyed(rows)}
        contested = {names for names in {row.classes for row in rows} if self._is_contested(frame, shares, names)}
        widened = []
        for row in rows:
            values = found.get(of_row.get(id(row), ()), [])
            if len(values) >= MIN_MASK_SAMPLES and np.isfinite(row.value) and len({row.value, *values}) > 1:
                drawn = spread_about(row.value, values)
                low, high = combine_intervals(row.value, (row.low, row.high), drawn)
                if min(row.value, *values) >= 0 and row.metric not in SIGNED:
                    low = max(low, 0.0)
                said = f"{len(values)} masks drawn"
                row = replace(row, low=low, high=high, method=f"{row.method}; {said}" if row.method else said)
            if values and row.classes in contested:
                row = replace(row, flags=tuple(dict.fromkeys((*row.flags, "low-confidence"))))
            widened.append(row)
        return widened

    def _is_contested(self, frame: Frame, shares: np.ndarray, names: Sequence[str]) -> bool:
        """Whether the mask and the probabilities differ in how much there is of counted classes."""
        if not names or not set(names) <= set(frame.object_classes):
            return False
        indices = [frame.schema.index(name) for name in names]
        held = float(np.isin(frame.labels, indices).mean())
        expected = float(shares[[value in indices for value in self.values]].sum(axis=0, dtype=np.float64).mean())
        return abs(expected - held) > max(CONTESTED_RATIO * max(expected, held), CONTESTED_SHARE)

    def _measured(self, frame: Frame, stack: Stack, shares: np.ndarray) -> Iterator[list[Measurement]]:
        groups = {name: options for name, options in self.config.metrics.items() if name in GROUPS}
        config = replace(self.config, metrics=groups)
        rng = np.random.default_rng([self.seed, frame.index])
        calibration = replace(stack.calibration, frame_times_s=None)
        for _ in range(self.n_samples):
            labels = draw_labels(shares, self.values, rng)
            if self.rules is not None:  # by size alone: what is real in this draw is so whether or not it was sure
                labels = clean_labels(labels, self.rules)
            one = Segmentation(Stack(labels, stack.spatial_axes, calibration, stack.name), frame.schema)
            (result,) = measure_frames(one, config, image=None)
            yield result.measurements


def _keyed(rows: Sequence[Measurement]) -> Iterator[tuple[tuple, Measurement]]:
    """Estimates of the whole frame with what tells them apart; several methods for one number by their order."""
    seen: dict[tuple, int] = {}
    for row in rows:
        if row.object_id is None and row.metric not in NO_INTERVAL:
            key = (row.metric, row.class_name, row.side, row.unit)
            seen[key] = seen.get(key, 0) + 1
            yield (*key, seen[key]), row
