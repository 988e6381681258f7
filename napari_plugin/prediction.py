"""Predictions while labelling, one plane at a time: what they are of, and those of a trained network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import ModelError
from seg.labels import UNLABELLED, LabelSchema
from seg.metrics.table import Scale
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, read_grey
from seg.progress import Progress, silent
from seg.stack import Calibration, Stack

# Index of a plane along the axes in front of y and x: (), (t,), (z,) or (t, z).
Plane = tuple[int, ...]

Box = tuple[slice, slice]  # rows and columns of a part of a plane

PLANES_IN_FIT = 12


@dataclass(frozen=True)
class Prediction:
    """Classes of one plane or of a part of it.

    Parameters
    ----------
    plane : Plane
    labels : ndarray of uint8, shape (Y, X)
    confidence : ndarray of float32, shape (Y, X)
        Probability of the class chosen.
    model : str
        Who made them.
    seconds : float
        Since they were asked for.
    box : Box or None
        Rows and columns they are of; None: the whole plane.
    step : int
        Every `step`-th pixel was computed along each axis, and stands for its square.
    complete : bool
        Nothing more of the plane will come.
    """

    plane: Plane
    labels: np.ndarray
    confidence: np.ndarray
    model: str
    seconds: float
    box: Box | None = None
    step: int = 1
    complete: bool = True


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
        spacing = Scale.of(stack).spacing
        self.spacing, self.volume_spacing = spacing[-2:], spacing[-3:]
        self.size = (stack.size("y"), stack.size("x"))
        self.volume_px = self.size[0] * self.size[1] * (stack.size("z") if "z" in stack.axes else 1)

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

    def volume(self, leading: Plane) -> np.ndarray:
        """Normalised grey values of a volume, float32, shape (Z, Y, X); `leading`: its time, where there is one."""
        return self.normalisation.apply(read_grey(self.stack, leading[0] if leading else 0))

    def grey(self, plane: Plane) -> np.ndarray:
        """Normalised grey values, float32, shape (Y, X)."""
        return self.normalisation.apply(self.raw(plane))


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


def strokes_of(labels: np.ndarray, axes: str, frames: Iterable[int]) -> dict[Plane, np.ndarray]:
    """The labelled planes of the given frames of a label array; views."""
    found: dict[Plane, np.ndarray] = {}
    if axes == "yx":
        return {(): labels} if labels.any() else {}
    for frame in frames:
        if len(axes) == 3:
            found[(frame,)] = labels[frame]
        else:
            found |= {(frame, z): plane for z, plane in enumerate(labels[frame]) if (plane != UNLABELLED).any()}
    return found


def strokes_near(labels: np.ndarray, axes: str, frames: Iterable[int], near: Plane) -> dict[Plane, np.ndarray]:
    """Copies of the labelled planes a forest for the plane `near` is fitted to, of the frames given."""
    found: dict[Plane, np.ndarray] = {}
    here = near[0] if near else 0
    for frame in sorted(frames, key=lambda f: abs(f - here)):
        if len(found) >= PLANES_IN_FIT:
            furthest = _distance(nearest_planes(found, near)[-1], near)
            if abs(frame - here) > furthest:
                break
        found |= {p: s for p, s in strokes_of(labels, axes, [frame]).items() if s.any()}
    return {plane: found[plane].copy() for plane in nearest_planes(found, near)}


def nearest_planes(planes: Iterable[Plane], near: Plane, limit: int = PLANES_IN_FIT) -> list[Plane]:
    """Those that a forest for the plane `near` is fitted to, nearest first."""
    return sorted(planes, key=lambda p: (_distance(p, near), p))[:limit]


def _distance(plane: Plane, other: Plane) -> int:
    return sum(abs(a - b) for a, b in zip(plane, other, strict=True))
