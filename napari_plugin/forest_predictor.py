"""A forest fitted to the strokes so far: fast enough to follow every stroke, the part on show first."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from napari_plugin.prediction import Box, Plane, Planes, Prediction, nearest_planes
from seg.errors import LabelError
from seg.labels import LabelSchema
from seg.pixel_features import DEFAULT_SIGMAS

CACHE_BYTES = 1 << 30  # features of the planes looked at last; 140 MB for one of 1024 x 1024
BAND_PX = 1 << 20  # features are computed for so many pixels at a time
PART_PX = 1 << 20  # predicted at a time: 0.11 s on two cores
VIEW_PX = 1 << 20  # a view of more pixels is predicted coarsely first: of so many pixels
PREVIEW_PX = 1 << 18
PIXELS_PER_PLANE = 8000
# Between equal classes, where a few pixels of a rare one put a rim of it around everything, and equal pixels. With six
# corrections a frame on the samples this gave a mean IoU of 0.84, 0.77, 0.77, 0.74 (optical, TEM, SEM, cryo-EM; equal
# classes: 0.75, 0.78, 0.80, 0.74), and on the optical one with a stroke on the bubble 0.98 of the pixels for 0.93.
BALANCE = 0.5
MEMBERS = 4  # parts of a forest whose disagreement is asked for


class ForestPredictor:
    """Fits a forest to strokes and predicts planes; features are computed once, by bands of rows.

    Planes of a volume whose features can be kept (`deep`) are told apart by three-dimensional features, which see the
    planes around; those of larger volumes plane by plane. On a twin of a solid-state cell, 80 x 112 x 112 with strokes
    on three planes, that gave a mean IoU of 0.49 and 0.55 against 0.47 and 0.48 (two sets of strokes).

    Parameters
    ----------
    planes : Planes
    schema : LabelSchema
    cache_bytes : int
        Features are kept up to here, those looked at last; `fits` says whether a plane is within it.
    n_trees, depth, max_pixels : int
        Of the forest.
    band_px : int
        Pixels whose features are computed at a time.
    """

    name = "forest"

    def __init__(
        self, planes: Planes, schema: LabelSchema, *, cache_bytes: int = CACHE_BYTES, n_trees: int | None = None,
        depth: int | None = None, max_pixels: int = PIXELS_PER_PLANE, band_px: int = BAND_PX,
    ) -> None:  # fmt: skip
        self.planes, self.schema = planes, schema
        self.forest: Any = None
        self.max_pixels = max_pixels
        self._sizes = {k: v for k, v in (("n_trees", n_trees), ("depth", depth)) if v is not None}
        self._cache_bytes = cache_bytes
        # Half, so that the volumes of two times can be kept.
        self.deep = "z" in planes.axes and self._feature_bytes(3, planes.volume_px) <= cache_bytes // 2
        self._volumes: OrderedDict[Plane, np.ndarray] = OrderedDict()
        self._rows = planes.size[0] if self.deep else max(1, min(planes.size[0], round(band_px / planes.size[1])))
        self._bands: OrderedDict[tuple[Plane, int], np.ndarray] = OrderedDict()
        # Of planes with strokes only the labelled pixels are kept: (strokes they are of, features (F, 1, N), values).
        self._drawn: dict[Plane, tuple[bytes, np.ndarray, np.ndarray]] = {}
        self._fitted: tuple[tuple[Plane, bytes], ...] = ()
        # One thread may look for the next frame while another predicts the one on show.
        self._lock = threading.RLock()

    def on(self, planes: Planes) -> ForestPredictor:
        """The same forest for another image."""
        other = ForestPredictor(planes, self.schema, cache_bytes=self._cache_bytes, max_pixels=self.max_pixels)
        other.forest = self.forest
        return other

    @property
    def n_bands(self) -> int:
        """Bands of rows a plane is computed in."""
        return -(-self.planes.size[0] // self._rows)

    @staticmethod
    def _feature_bytes(ndim: int, n_px: int) -> int:
        from seg.forest import feature_names

        return 4 * len(feature_names(ndim)) * n_px

    @property
    def fits(self) -> bool:
        """Whether the features of a whole plane can be kept."""
        return self.deep or self._feature_bytes(2, math.prod(self.planes.size)) <= self._cache_bytes

    def ready(self, plane: Plane) -> bool:
        """Whether the features of the plane are at hand."""
        if self.deep:
            return plane[:-1] in self._volumes
        return all((plane, n) in self._bands for n in range(self.n_bands))

    def prepare(self, plane: Plane) -> Iterator[int]:
        """Compute the features of a plane before they are needed, as far as they can be kept; yields after each."""
        for n in range(self.n_bands if self.fits else 0):
            self.band(plane, n)
            yield n

    def band(self, plane: Plane, number: int) -> np.ndarray:
        """Features of a band of rows, float32, shape (F, rows, X): the same as of the whole plane."""
        from seg.forest import features
        from seg.pixel_features import reach_px

        key = (plane, number)
        if self.deep:
            return self._volume(plane[:-1])[:, plane[-1]]
        with self._lock:
            if key in self._bands:
                self._bands.move_to_end(key)
                return self._bands[key]
            first, last = number * self._rows, min((number + 1) * self._rows, self.planes.size[0])
            margin = reach_px(DEFAULT_SIGMAS[2], self.planes.spacing, 2)[0]
            top, bottom = max(first - margin, 0), min(last + margin, self.planes.size[0])
            found = features(self.planes.grey(plane)[top:bottom], spacing=self.planes.spacing)
            found = np.ascontiguousarray(found[:, first - top : last - top])
            self._bands[key] = found
            while len(self._bands) > 1 and sum(f.nbytes for f in self._bands.values()) > self._cache_bytes:
                self._bands.popitem(last=False)
            return found

    def _volume(self, leading: Plane) -> np.ndarray:
        """Features of a volume, float32, shape (F, Z, Y, X)."""
        from seg.forest import features

        with self._lock:
            if leading not in self._volumes:
                volume = self.planes.volume(leading)
                self._volumes[leading] = features(volume, spacing=self.planes.volume_spacing)
                while len(self._volumes) > 2:
                    self._volumes.popitem(last=False)
            self._volumes.move_to_end(leading)
            return self._volumes[leading]

    def features(self, plane: Plane) -> np.ndarray:
        """Features of a plane, float32, shape (F, Y, X)."""
        parts = [self.band(plane, n) for n in range(self.n_bands)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def sampled(self, plane: Plane, box: Box, step: int = 1) -> np.ndarray:
        """Features of every `step`-th pixel of a box, shape (F, rows, columns)."""
        wanted = np.arange(box[0].start, box[0].stop, step)
        parts = []
        for n in np.unique(wanted // self._rows).tolist():
            rows = wanted[wanted // self._rows == n] - n * self._rows
            parts.append(self.band(plane, n)[:, rows[0] : rows[-1] + 1 : step, box[1].start : box[1].stop : step])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    # --- fit and predict --------------------------------------------------------------------------------------------

    def fit(self, strokes: Mapping[Plane, np.ndarray], near: Plane) -> Any:
        """Fit to the labels of the planes nearest to `near`; LabelError with fewer than two classes.

        The same strokes as before give the forest that is there.
        """
        from seg.forest import fit_forest

        drawn = nearest_planes([p for p, s in strokes.items() if s.any()], near)
        if not drawn:
            raise LabelError("A forest needs strokes of at least two classes; there are none.")
        chosen = [(plane, *self._labelled(plane, strokes[plane])) for plane in drawn]
        fitted = tuple((plane, mark) for plane, mark, _, _ in chosen)
        if self.forest is None or fitted != self._fitted:
            values, labels = [v for _, _, v, _ in chosen], [k for _, _, _, k in chosen]
            self.forest = fit_forest(
                values, labels, self.schema, max_pixels=self.max_pixels, balance=BALANCE, **self._sizes
            )
            self._fitted = fitted
        return self.forest

    def _labelled(self, plane: Plane, strokes: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
        """Features and values of the labelled pixels of a plane; of many, as many of each class as there are."""
        import hashlib

        mark = hashlib.blake2b(np.ascontiguousarray(strokes), digest_size=16).digest()
        known = self._drawn.get(plane)
        if known is None or known[0] != mark:
            places = np.flatnonzero(strokes)
            if len(places) > self.max_pixels:
                places = np.sort(_even_choice(strokes.ravel()[places], places, self.max_pixels))
            bands = places // (self._rows * self.planes.size[1])
            values = [self._pixels(plane, n, places[bands == n]) for n in np.unique(bands).tolist()]
            lead = (1,) * (2 if self.deep else 1)
            drawn = strokes.ravel()[places].reshape(*lead, -1)
            known = (mark, np.concatenate(values, axis=1).reshape(-1, *drawn.shape), drawn)
            self._drawn[plane] = known
        return known

    def _pixels(self, plane: Plane, number: int, places: np.ndarray) -> np.ndarray:
        band = self.band(plane, number)
        return band.reshape(len(band), -1)[:, places - number * self._rows * self.planes.size[1]]

    def predict(self, plane: Plane) -> Prediction:
        """Classes of a plane by the forest fitted last."""
        began = time.perf_counter()
        parts = [self._part(plane, box, 1, began) for box in self._strips(_whole(self.planes.size))]
        labels, confidence = (np.concatenate([getattr(p, k) for p in parts]) for k in ("labels", "confidence"))
        return Prediction(plane, labels, confidence, self.name, time.perf_counter() - began)

    def update(self, strokes: Mapping[Plane, np.ndarray], plane: Plane) -> Prediction:
        """Fit to the strokes and predict a plane."""
        began = time.perf_counter()
        self.fit(strokes, plane)
        found = self.predict(plane)
        return replace(found, seconds=time.perf_counter() - began)

    def update_in_parts(
        self, strokes: Mapping[Plane, np.ndarray], plane: Plane, view: Box | None = None, *, whole: bool = True
    ) -> Iterator[Prediction]:
        """Fit to the strokes and predict a plane, what is on show first: what happens after every stroke.

        Parameters
        ----------
        strokes : mapping of Plane to ndarray
        plane : Plane
        view : Box or None
            Rows and columns on show; None: all.
        whole : bool
            Predict also what is not on show.

        Yields
        ------
        Prediction
            A large view comes first as every n-th pixel (`step`), then exactly, strip by strip from its middle; the
            last one is `complete` where the whole plane was asked for.
        """
        began = time.perf_counter()
        self.fit(strokes, plane)
        everything = _whole(self.planes.size)
        view = everything if view is None else _within(view, self.planes.size)
        seen = _n_px(view)
        if seen > VIEW_PX and self.ready(plane):
            yield self._part(plane, view, math.ceil(math.sqrt(seen / PREVIEW_PX)), began)
        elif seen <= VIEW_PX and 2 * seen <= _n_px(everything):  # else the strips, which predict it again, are as soon
            yield self._part(plane, view, 1, began)
        middle = (view[0].start + view[0].stop) / 2
        strips = self._strips(everything if whole else view)
        strips.sort(key=lambda box: abs((box[0].start + box[0].stop) / 2 - middle))
        for n, box in enumerate(strips, start=1):
            yield replace(self._part(plane, box, 1, began), complete=whole and n == len(strips))

    def _strips(self, box: Box) -> list[Box]:
        """A box as strips of at most `PART_PX` that end where a band ends: a new stroke waits for no more than one."""
        rows = max(1, PART_PX // max(1, box[1].stop - box[1].start))
        edges = {box[0].start, box[0].stop}
        for start in range(0, self.planes.size[0], self._rows):
            edges |= set(range(start, min(start + self._rows, self.planes.size[0]), rows))
        cuts = sorted(e for e in edges if box[0].start <= e <= box[0].stop)
        return [(slice(a, b), box[1]) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]

    def _part(self, plane: Plane, box: Box, step: int, began: float) -> Prediction:
        from seg.forest import predict_forest

        found = predict_forest(self.forest, self._as_frame(self.sampled(plane, box, step)))
        size = found.labels.shape[-2:]
        labels, confidence = found.labels.reshape(size), found.probabilities.max(axis=0).reshape(size)
        if step > 1:
            size = tuple(s.stop - s.start for s in box)
            labels, confidence = (_enlarged(a, step, size) for a in (labels, confidence))
        seconds = time.perf_counter() - began
        return Prediction(plane, labels, confidence, self.name, seconds, box, step, complete=False)

    def members(self, plane: Plane) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and probabilities (K, Y, X) of a plane by each of `MEMBERS` disjoint parts of the forest."""
        from seg.forest import predict_forest

        forest = self.forest
        parts = [
            replace(forest, split=forest.split[n::MEMBERS], threshold=forest.threshold[n::MEMBERS],
                    leaf=forest.leaf[n::MEMBERS])
            for n in range(MEMBERS)
        ]  # fmt: skip
        values = self._as_frame(self.features(plane))
        found = [predict_forest(part, values) for part in parts]
        size = values.shape[-2:]
        return [(f.labels.reshape(size), f.probabilities.reshape(-1, *size)) for f in found]

    def _as_frame(self, values: np.ndarray) -> np.ndarray:
        """Features (F, Y, X) as the forest takes them: of a volume of one plane, where it knows volumes."""
        return values[:, np.newaxis] if self.deep else values


def _whole(size: tuple[int, int]) -> Box:
    return slice(0, size[0]), slice(0, size[1])


def _within(box: Box, size: tuple[int, int]) -> Box:
    """A box cut to the plane; where nothing of it is in the plane, the whole."""
    cut = tuple(slice(max(0, s.start), min(n, s.stop)) for s, n in zip(box, size, strict=True))
    return (cut[0], cut[1]) if all(s.stop > s.start for s in cut) else _whole(size)


def _n_px(box: Box) -> int:
    return math.prod(s.stop - s.start for s in box)


def _enlarged(values: np.ndarray, step: int, size: tuple[int, ...]) -> np.ndarray:
    """Every pixel as a square of `step`, cut to `size`."""
    return np.repeat(np.repeat(values, step, axis=0), step, axis=1)[: size[0], : size[1]]


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
