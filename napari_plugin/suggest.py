"""Which frame to label next, and when to stop: by doubt, by novelty, and by the effect on the number wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_plugin.forest_predictor import ForestPredictor
from napari_plugin.prediction import Plane, Planes
from seg.analysis import AnalysisConfig
from seg.errors import SegError, UsageError
from seg.labels import LabelSchema
from seg.measure import measure_frames
from seg.metrics import METRICS
from seg.progress import Progress, silent
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

# Where doubt of the model is below this share of the interval that the number has anyway, labelling more cannot narrow
# it by more than 1 - 1 / sqrt(1 + 0.5^2) = 11 %.
STOP_SHARE = 0.5
CANDIDATES = 12


@dataclass(frozen=True)
class ListedImage:
    """Another image of the list that is being labelled.

    Parameters
    ----------
    number : int
        Its place in the list.
    name : str
    labelled : bool
    open : callable
        Gives its planes.
    """

    number: int
    name: str
    labelled: bool
    open: Callable[[], Planes]


@dataclass(frozen=True)
class Candidate:
    """One plane that could be labelled next.

    Parameters
    ----------
    plane : tuple of int
    disagreement : float
        Mean over pixels of the Jensen-Shannon divergence between parts of the forest, 0 (agree) to 1.
    novelty : float
        Distance of its features from those of the nearest labelled plane, in units of the median such distance.
    value, interval : float
        The chosen metric on the plane and half the width of its 95 % interval.
    doubt : float
        Half the width of the 95 % range of the metric over the parts of the forest.
    score : float
        Mean of the three, each as a share of the largest among the candidates.
    image : ListedImage or None
        Where it is a plane of; None: of the image at hand.
    """

    plane: Plane
    disagreement: float
    novelty: float
    value: float
    interval: float
    doubt: float
    score: float = 0.0
    image: ListedImage | None = None

    @property
    def effect(self) -> float:
        """Doubt of the model relative to the interval; NaN where the metric is not defined."""
        if self.interval > 0:
            return self.doubt / self.interval
        return 0.0 if self.doubt == 0 else math.nan  # all parts of the forest see an empty frame

    @property
    def widening(self) -> float:
        """Share by which the doubt widens the interval."""
        return math.hypot(1, self.effect) - 1


@dataclass(frozen=True)
class Advice:
    """Candidates, best first; whether to stop; and one sentence."""

    candidates: tuple[Candidate, ...]
    stop: bool
    text: str


def metrics_of_frames(config: AnalysisConfig) -> list[str]:
    """Metrics of an analysis that a single frame gives, for the user to choose from."""
    groups = [METRICS[name] for name in config.metrics]
    return sorted({metric for group in groups if group.measure_frame is not None for metric in group.metrics})


def advise(
    predictor: ForestPredictor,
    labelled: Sequence[Plane],
    config: AnalysisConfig,
    metric: str,
    *,
    listed: Sequence[ListedImage] = (),
    candidates: int = CANDIDATES,
    progress: Progress = silent,
) -> Advice:
    """Rank planes that are not labelled yet: of the image at hand, and of the list once none is left there.

    Parameters
    ----------
    predictor : ForestPredictor
        Fitted to the labels so far.
    labelled : sequence of Plane
    config : AnalysisConfig
        Says how objects are counted and with which options the metric is measured.
    metric : str
        One of `metrics_of_frames`.
    listed : sequence of ListedImage
        The other images of the list.
    candidates : int
        Planes looked at, spread evenly over those without labels.
    progress : Progress
    """
    if predictor.forest is None:
        raise UsageError("Draw strokes of at least two classes first; the suggestion is made from their forest.")
    stack = predictor.planes.stack
    shape = [stack.size(axis) for axis in predictor.planes.axes]
    done = set(labelled)
    open_planes = [p for p in np.ndindex(*shape) if p not in done]
    only = _only(config, metric)
    known = [_descriptor(predictor, plane) for plane in labelled]
    found, described = [], []
    if open_planes:
        picks = _spread(open_planes, candidates)
        for plane in progress(picks, total=len(picks), desc="looking at frames"):
            found.append(_candidate(predictor, plane, only, metric))
            described.append(_descriptor(predictor, plane))
    else:
        picks = _spread([one for one in listed if not one.labelled], candidates)
        seen = _spread([one for one in listed if one.labelled], candidates) if picks else []
        for image in progress([*seen, *picks], total=len(seen) + len(picks), desc="looking at images"):
            for other, plane in _middle_plane(predictor, image):
                if image.labelled:
                    known.append(_descriptor(other, plane))
                else:
                    found.append(replace(_candidate(other, plane, only, metric), image=image))
                    described.append(_descriptor(other, plane))
    if not found:
        return Advice((), True, "Every frame is labelled.")
    distances = _novelty(np.array(described), np.array(known))
    found = [replace(c, novelty=d) for c, d in zip(found, distances, strict=True)]
    shares = [_shares([getattr(c, name) for c in found]) for name in ("disagreement", "novelty", "effect")]
    scored = [replace(c, score=float(np.mean(s))) for c, s in zip(found, np.transpose(shares), strict=True)]
    best = tuple(sorted(scored, key=lambda c: -c.score))
    return _advice(best, metric)


def _advice(best: tuple[Candidate, ...], metric: str) -> Advice:
    effects = np.array([c.effect for c in best])
    if np.isfinite(effects).all() and effects.max() < STOP_SHARE:
        gain = 1 - 1 / math.hypot(1, float(effects.max()))
        return Advice(
            best, True, f"Enough: more labels would narrow the interval of {metric} by {max(gain, 0.01):.0%} at most."
        )
    first = best[0]
    reasons = {
        "disagreement": "the model disagrees with itself",
        "novelty": "it looks unlike the labelled frames",
        "effect": f"doubt of the model widens the interval of {metric} by {first.widening:.0%}",
    }
    # What it has the largest share of is the reason.
    shares = {name: _shares([getattr(c, name) for c in best])[0] for name in reasons}
    largest = max(shares, key=lambda name: float(shares[name]))
    reason = reasons[largest] if shares[largest] > 0 else "nothing tells the frames apart"
    where = f"frame {', '.join(map(str, first.plane)) or 'this one'}" if first.image is None else first.image.name
    return Advice(best, False, f"Label {where} next: {reason}.")


def _spread(items: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` items, evenly over all: those near the ends are as likely to be new as those in the middle."""
    picks = sorted({round(i) for i in np.linspace(0, len(items) - 1, min(limit, len(items)))})
    return [items[i] for i in picks]


def _middle_plane(predictor: ForestPredictor, image: ListedImage) -> Iterator[tuple[ForestPredictor, Plane]]:
    """The same forest on an image of the list, and its middle plane; nothing where the forest does not fit it.

    An image that cannot be read is passed over: the list says why as soon as it is opened.
    """
    try:
        other = predictor.on(image.open())
        plane = tuple(other.planes.stack.size(axis) // 2 for axis in other.planes.axes)
        if other.deep == predictor.deep:
            other.planes.grey(plane)
            yield other, plane
    except (SegError, OSError):
        return


def _candidate(predictor: ForestPredictor, plane: Plane, config: AnalysisConfig, metric: str) -> Candidate:
    """How far the parts of the forest disagree on a plane, and what that does to the metric."""
    members = predictor.members(plane)
    together = predictor.predict(plane).labels
    value, interval = _measured(together, predictor, plane, config, metric)
    values = [_measured(labels, predictor, plane, config, metric)[0] for labels, _ in members]
    # Parts of a forest scatter sqrt(MEMBERS) times as much as the whole.
    doubt = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Candidate(plane, _disagreement([p for _, p in members]), math.nan, value, interval, doubt)


def _only(config: AnalysisConfig, metric: str) -> AnalysisConfig:
    """The analysis with nothing but the group that gives the metric frame by frame."""
    for name, options in config.metrics.items():
        if metric in METRICS[name].metrics and METRICS[name].measure_frame is not None:
            return replace(config, metrics={name: options})
    known = ", ".join(metrics_of_frames(config))
    raise UsageError(f"Analysis {config.name!r} does not give {metric!r} for single frames; it gives {known}.")


def _measured(
    labels: np.ndarray, predictor: ForestPredictor, plane: Plane, config: AnalysisConfig, metric: str
) -> tuple[float, float]:
    """The metric of one plane and half its interval; a mean over objects where it is one of objects."""
    schema: LabelSchema = predictor.schema
    calibration = Calibration(predictor.planes.stack.calibration.pixel_size_um, None, "file")
    flat = Calibration({a: s for a, s in calibration.pixel_size_um.items() if a in "yx"}, None, "file")
    one = Segmentation(Stack(labels, "yx", flat, f"frame {plane}"), schema)
    (result,) = measure_frames(one, config)
    rows = [m for m in result.measurements if m.metric == metric and m.side in ("", "mean")]
    whole = [m for m in rows if m.object_id is None] or rows
    values = np.array([m.value for m in whole if math.isfinite(m.value)])
    if not len(values):
        return math.nan, math.nan
    halves = np.array([(m.high - m.low) / 2 for m in whole if math.isfinite(m.value)])
    return float(values.mean()), float(np.sqrt(np.mean(halves**2) / len(halves)))


def _disagreement(probabilities: Sequence[np.ndarray]) -> float:
    """Mean Jensen-Shannon divergence of class probabilities (K, Y, X), between 0 and 1."""
    together = _entropy(np.mean(probabilities, axis=0))
    alone = np.mean([_entropy(p) for p in probabilities], axis=0)
    largest = math.log(min(len(probabilities), len(probabilities[0])))
    return max(0.0, float(np.mean(together - alone)) / largest)


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0))


def _descriptor(predictor: ForestPredictor, plane: Plane) -> np.ndarray:
    """Mean and spread of every feature over a plane."""
    height, width = predictor.planes.size
    step = max(1, math.isqrt(height * width // 20_000))
    values = predictor.sampled(plane, (slice(0, height), slice(0, width)), step)
    sample = values.reshape(len(values), -1)
    return np.concatenate([sample.mean(axis=1), sample.std(axis=1)])


def _novelty(described: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distance of each row to the nearest known one, features scaled by their spread, in units of the median."""
    if not len(known):
        return np.ones(len(described))
    spread = np.concatenate([described, known]).std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    apart = np.linalg.norm((described[:, np.newaxis] - known) / scale, axis=2).min(axis=1)
    middle = float(np.median(apart))
    return apart / middle if middle > 0 else np.ones(len(described))


def _shares(values: Sequence[float]) -> np.ndarray:
    """Values as shares of the largest; what is not defined counts as 0."""
    filled = np.nan_to_num(np.array(values, float), nan=0.0, posinf=0.0)
    largest = filled.max(initial=0.0)
    return filled / largest if largest > 0 else filled
