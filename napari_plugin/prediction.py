"""Predictions while labelling: a forest fitted to the strokes so far, or a trained network; one plane at a time."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import LabelError, ModelError
from seg.labels import UNLABELLED, LabelSchema
from seg.metrics.table import Scale
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, read_grey
from seg.progress import Progress, silent
from seg.stack import Calibration, Stack

# Index of a plane along the axes in front of y and x: (), (t,), (z,) or (t, z).
Plane = tuple[int, ...]

CACHE_BYTES = 1 << 30  # features of the planes looked at last; 120 MB for one of 1024 x 1024
PLANES_IN_FIT = 12
PIXELS_PER_PLANE = 8000
MEMBERS = 4  # parts of a forest whose disagreement is asked for


@dataclass(frozen=True)
class Prediction:
    """Classes of one plane: labels uint8 and confidence float32, both (Y, X); who made them, in how many seconds."""

    plane: Plane
    labels: np.ndarray
    confidence: np.ndarray
    model: str
    seconds: float


class Planes:
    """The planes of a stack in grey, on one intensity scale for the whole series.

    Parameters
    ----------
    stack : Stack
    modality_name : str
        Says which percentiles become 0 and 1.
    """

    def __init__(self, stack: Stack, *, modality_name: str = "optical") -> None:
        self.stack = stack
        self.axes = stack.axes.replace("c", "")[:-2]
        self._percentiles = modality(modality_name).normalisation_percentiles
        self._normalisation: SeriesNormalisation | None = None
        self.spacing = Scale.of(stack).spacing[-2:]

    @property
    def normalisation(self) -> SeriesNormalisation:
        """That of the series; fitted when first asked for."""
        if self._normalisation is None:
            self._normalisation = SeriesNormalisation.fit(self.stack, self._percentiles)
        return self._normalisation

    def raw(self, plane: Plane) -> np.ndarray:
        """Grey values as recorded, shape (Y, X)."""
        where = dict(zip(self.axes, plane, strict=True))
        return read_grey(self.stack, where.get("t", 0), z=where.get("z"))

    def grey(self, plane: Plane) -> np.ndarray:
        """Normalised grey values, float32, shape (Y, X)."""
        return self.normalisation.apply(self.raw(plane))


class ForestPredictor:
    """Fits a forest to strokes and predicts planes; features of a plane are computed once.

    Parameters
    ----------
    planes : Planes
    schema : LabelSchema
    cache_bytes : int
    """

    name = "forest"

    def __init__(self, planes: Planes, schema: LabelSchema, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.planes, self.schema = planes, schema
        self.forest: Any = None
        self._cache_bytes = cache_bytes
        self._features: OrderedDict[Plane, np.ndarray] = OrderedDict()
        # Of planes with strokes only the labelled pixels are kept: (strokes they are of, features (F, 1, N), values).
        self._drawn: dict[Plane, tuple[bytes, np.ndarray, np.ndarray]] = {}

    def features(self, plane: Plane) -> np.ndarray:
        """Features of a plane, float32, shape (F, Y, X)."""
        from seg.forest import features

        if plane in self._features:
            self._features.move_to_end(plane)
            return self._features[plane]
        found = features(self.planes.grey(plane), spacing=self.planes.spacing)
        self._features[plane] = found
        while len(self._features) > 1 and sum(f.nbytes for f in self._features.values()) > self._cache_bytes:
            self._features.popitem(last=False)
        return found

    def fit(self, strokes: Mapping[Plane, np.ndarray], near: Plane) -> Any:
        """Fit to the labels of the planes nearest to `near`; LabelError with fewer than two classes."""
        from seg.forest import fit_forest

        drawn = sorted((p for p, s in strokes.items() if s.any()), key=lambda p: (_distance(p, near), p))
        if not drawn:
            raise LabelError("A forest needs strokes of at least two classes; there are none.")
        chosen = [self._labelled(plane, strokes[plane]) for plane in drawn[:PLANES_IN_FIT]]
        self.forest = fit_forest([values for values, _ in chosen], [labels for _, labels in chosen], self.schema)
        return self.forest

    def _labelled(self, plane: Plane, strokes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import hashlib

        mark = hashlib.blake2b(np.ascontiguousarray(strokes), digest_size=16).digest()
        known = self._drawn.get(plane)
        if known is None or known[0] != mark:
            places = np.flatnonzero(strokes)
            if len(places) > PIXELS_PER_PLANE:
                places = np.sort(_even_choice(strokes.ravel()[places], places, PIXELS_PER_PLANE))
            planes = self.features(plane)
            values = planes.reshape(len(planes), -1)[:, places][:, np.newaxis]
            known = (mark, values, strokes.ravel()[places][np.newaxis])
            self._drawn[plane] = known
        return known[1], known[2]

    def predict(self, plane: Plane) -> Prediction:
        """Classes of a plane by the forest fitted last."""
        from seg.forest import predict_forest

        began = time.perf_counter()
        found = predict_forest(self.forest, self.features(plane))
        return Prediction(plane, found.labels, found.probabilities.max(axis=0), self.name, time.perf_counter() - began)

    def update(self, strokes: Mapping[Plane, np.ndarray], plane: Plane) -> Prediction:
        """Fit to the strokes and predict a plane: what happens after every stroke."""
        began = time.perf_counter()
        self.fit(strokes, plane)
        found = self.predict(plane)
        return replace(found, seconds=time.perf_counter() - began)

    def members(self, plane: Plane) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and probabilities (K, Y, X) of a plane by each of `MEMBERS` disjoint parts of the forest."""
        from seg.forest import predict_forest

        forest = self.forest
        parts = [
            replace(forest, split=forest.split[n::MEMBERS], threshold=forest.threshold[n::MEMBERS],
                    leaf=forest.leaf[n::MEMBERS])
            for n in range(MEMBERS)
        ]  # fmt: skip
        found = [predict_forest(part, self.features(plane)) for part in parts]
        return [(f.labels, f.probabilities) for f in found]


class NetworkPredictor:
    """Predicts planes with a trained model, by the engine of the command line in a process of its own.

    Parameters
    ----------
    planes : Planes
    schema : LabelSchema
        Classes the model predicts must be in it.
    model : str or Path
        Name or folder; ``auto`` takes the shipped one for the modality.
    modality_name : str
    call : callable
        ``call(function, *args)`` runs `predict_plane` somewhere: `napari_plugin.engine.Engine.call`.
    """

    def __init__(
        self, planes: Planes, schema: LabelSchema, model: str | Path = "auto", *, modality_name: str = "optical",
        call: Callable[..., Any],
    ) -> None:  # fmt: skip
        self.planes, self.schema, self.model, self.modality_name, self._call = (
            planes,
            schema,
            model,
            modality_name,
            call,
        )

    def predict(self, plane: Plane) -> Prediction:
        """Classes of a plane."""
        began = time.perf_counter()
        sizes = {a: s for a, s in self.planes.stack.calibration.pixel_size_um.items() if a in "yx"}
        labels, confidence, name = self._call(
            predict_plane, self.planes.raw(plane), self.planes.stack.name, sizes, self.planes.normalisation,
            self.schema.to_dict(), self.model, self.modality_name,
        )  # fmt: skip
        return Prediction(plane, labels, confidence.astype(np.float32), name, time.perf_counter() - began)


def predict_plane(
    raw: np.ndarray, name: str, pixel_size_um: dict[str, float], normalisation: SeriesNormalisation,
    schema: dict[str, Any], model: str | Path, modality_name: str, progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """Labels and confidence of one plane by a model, and what the log calls the model."""
    from seg.inference import segment

    bundle = _bundle(str(model), modality_name, json.dumps(schema))
    if bundle.spec.dims != 2:
        raise ModelError(f"Model {bundle.spec.name!r} works on whole volumes; use the Run widget and open its result.")
    stack = Stack(raw, "yx", Calibration(pixel_size_um, None, "file"), name)
    (slab,) = segment(stack, bundle, normalisation=normalisation, progress=progress)
    return slab.labels, slab.confidence, f"{bundle.spec.name} {bundle.weights_sha256[:12]}"


@lru_cache(maxsize=2)
def _bundle(model: str, modality_name: str, schema: str) -> Any:
    from seg.models.bundle import find_model, load_bundle

    return load_bundle(
        find_model(model, modality=modality_name), schema=LabelSchema.from_dict(json.loads(schema), where="the schema")
    )


def strokes_of(labels: np.ndarray, axes: str, frames: list[int]) -> dict[Plane, np.ndarray]:
    """The labelled planes of the given frames of a label array."""
    found: dict[Plane, np.ndarray] = {}
    if axes == "yx":
        return {(): labels} if labels.any() else {}
    for frame in frames:
        if len(axes) == 3:
            found[(frame,)] = labels[frame]
        else:
            found |= {(frame, z): plane for z, plane in enumerate(labels[frame]) if (plane != UNLABELLED).any()}
    return found


def _distance(plane: Plane, other: Plane) -> int:
    return sum(abs(a - b) for a, b in zip(plane, other, strict=True))


def _even_choice(values: np.ndarray, places: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` places, classes as evenly as they allow."""
    rng = np.random.default_rng(0)
    classes, counts = np.unique(values, return_counts=True)
    chosen, left = [], limit
    for done, n in enumerate(np.argsort(counts)):
        share = min(int(counts[n]), left // (len(classes) - done))
        chosen.append(rng.choice(places[values == classes[n]], share, replace=False))
        left -= share
    return np.concatenate(chosen)
