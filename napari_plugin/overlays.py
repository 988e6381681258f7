"""What a metric saw, drawn over the image: baselines, fitted curves and tangents of contact angles; skeletons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import ndimage

from napari_plugin import layers
from napari_plugin.layers import LayerData
from seg.metrics.baseline import Substrate, fit_substrate
from seg.metrics.contact_geometry import contact_points
from seg.metrics.curves import Circle, Line, fit_circle, fit_ellipse
from seg.metrics.frame import Frame
from seg.metrics.interface import CrackPoints, crack_points
from seg.metrics.table import Scale
from seg.segmentation import Segmentation
from seg.stack import Stack

COLORS = {"baseline": "#f0e442", "curve": "#56b4e9", "tangent": "#d55e00"}


@dataclass(frozen=True)
class Stroke:
    """One line of an overlay: points (N, 2) in pixels, what it is, the object it belongs to, and a text."""

    points: np.ndarray
    kind: str
    object_id: int
    text: str = ""


def contact_strokes(
    segmentation: Segmentation, instances: np.ndarray, metrics: pd.DataFrame, frame: int, *,
    deposits: Sequence[str] = ("deposit",), substrates: Sequence[str] = ("substrate",),
) -> list[Stroke]:  # fmt: skip
    """Baseline, fitted curve and tangents of every accepted contact angle of a frame in profile.

    Parameters
    ----------
    segmentation : Segmentation
    instances : ndarray of int, shape (Y, X)
        Object ids of the frame, as in ``instances.ome.tif``.
    metrics : DataFrame
        ``metrics.csv``: which objects have an angle, of how many degrees, and by which curve.
    frame : int

    Notes
    -----
    Tangents stand at the measured angles. The curve is the one that `method` names, fitted to the outline of the mask;
    where the metric found the outline in the image it can lie beside it by a fraction of a pixel.
    """
    stack, schema = segmentation.stack, segmentation.schema
    spacing = Scale.of(stack).spacing
    labels = stack.frame(frame)
    deposit, substrate = schema.mask(labels, deposits), schema.mask(labels, substrates)
    # As the metric has it: burnt-in text and other artifacts are no surface of the substrate.
    valid = Frame(labels, schema, Scale.of(stack), frame, None).valid
    surface = crack_points(substrate, valid & ~substrate, spacing)
    rows = metrics[(metrics["metric"] == "contact_angle") & (metrics["frame"] == frame) & metrics["object_id"].notna()]
    strokes: list[Stroke] = []
    for object_id, part in rows[rows["value"].notna()].groupby("object_id"):
        angles = part.set_index("side")["value"].to_dict()
        if not {"left", "right", "mean"} <= set(angles):
            continue
        mask = ndimage.binary_fill_holes((instances == object_id) & deposit)
        contact = crack_points(substrate, mask, spacing)
        base = fit_substrate(surface, contact, spacing) if len(contact) else None
        if base is None:
            continue
        outline = crack_points(mask, valid & ~(mask | deposit | substrate), spacing)
        found = _fitted(outline, base, str(part["method"].iloc[0]), spacing)
        ends = contact_points(found, base.curve) if found is not None else None
        if found is not None and ends is not None:
            strokes += _strokes_of(int(object_id), found, base.curve, ends, angles, spacing)
    return [replace(s, points=_inside(s.points, labels.shape)) if s.kind == "baseline" else s for s in strokes]


def _inside(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The points within the image, in their order."""
    return points[((points >= -0.5) & (points <= np.asarray(shape) - 0.5)).all(axis=1)]


def _fitted(outline: CrackPoints, base: Substrate, method: str, spacing: Sequence[float]):
    above = base.curve.signed_distance(outline.position)
    free = outline[above > 1.6 * min(spacing)]
    if len(free) < 8:
        return None
    fit = (fit_ellipse if method.startswith("ellipse") else fit_circle)(free, spacing)
    return None if fit is None else fit.curve


def _strokes_of(object_id, curve, base, ends, angles, spacing) -> list[Stroke]:
    """The lines of one deposit; all geometry in physical units, then in pixels."""
    scale = np.asarray(spacing)
    width = float(np.linalg.norm(ends[1] - ends[0]))
    arc = curve.points(np.linspace(0, 2 * math.pi, 361))
    arc = _longest_run(arc, base.signed_distance(arc) >= -1e-9)
    found = [
        Stroke(_baseline(base, ends, 0.4 * width) / scale, "baseline", object_id),
        Stroke(arc / scale, "curve", object_id),
    ]
    for side, end, sign in (("left", ends[0], 1), ("right", ends[1], -1)):
        normal = base.normal(end)
        right = np.array([normal[1], -normal[0]])
        angle = math.radians(angles[side])
        direction = sign * math.cos(angle) * right + math.sin(angle) * normal
        tangent = np.array([end, end + 0.45 * width * direction])
        found.append(Stroke(tangent / scale, "tangent", object_id, f"{angles[side]:.1f}°"))
    return found


def _baseline(base: Line | Circle, ends: np.ndarray, margin: float) -> np.ndarray:
    """The substrate from a margin before one contact to a margin behind the other."""
    along = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
    stretch = np.linspace(0, 1, 41)[:, np.newaxis]
    straight = (ends[0] - margin * along) * (1 - stretch) + (ends[1] + margin * along) * stretch
    # One step of Newton's method per point brings the chord onto a round substrate.
    for _ in range(4):
        straight = straight - base.signed_distance(straight)[:, np.newaxis] * base.normal(straight)
    return straight


def _longest_run(points: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The longest unbroken stretch of a closed curve (its first point is its last)."""
    points, keep = points[:-1], keep[:-1]
    if keep.all():
        return np.concatenate([points, points[:1]])
    start = int(np.flatnonzero(~keep)[0])
    points, keep = np.roll(points, -start, axis=0), np.roll(keep, -start)
    runs, n = ndimage.label(keep)
    longest = 1 + int(np.argmax(np.bincount(runs.ravel(), minlength=n + 1)[1:]))
    return points[runs == longest]


def contact_layer(
    strokes: Sequence[Stroke], stack: Stack, frame: int, *, name: str = "contact angles"
) -> LayerData | None:
    """The strokes of one frame as paths; None without any."""
    if not strokes:
        return None
    return _paths(strokes, stack, frame, name, [COLORS[s.kind] for s in strokes])


def skeleton_layer(
    segmentation: Segmentation, frame: int, classes: Sequence[str], *, name: str = "skeleton"
) -> LayerData | None:
    """Skeleton of some classes in one frame as paths, one per branch; None where there is nothing."""
    from seg.metrics.skeleton import skeleton_graph

    stack, schema = segmentation.stack, segmentation.schema
    mask = schema.mask(stack.frame(frame), [c for c in classes if c in schema.names])
    regions, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    strokes = []
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        graph = skeleton_graph(regions[box] == number, spacing=Scale.of(stack).spacing)
        corner = np.array([side.start for side in box])
        strokes += [Stroke(path + corner, "branch", number) for _, _, path in graph.edges.values() if len(path) > 1]
    if not strokes:
        return None
    return _paths(strokes, stack, frame, name, ["#f0e442"] * len(strokes))


def _paths(strokes: Sequence[Stroke], stack: Stack, frame: int, name: str, colors: list[str]) -> LayerData:
    shapes = [
        np.column_stack([np.full(len(s.points), frame), s.points]) if "t" in stack.axes else s.points for s in strokes
    ]
    thin = max(stack.spatial_shape[-2:]) / 220
    given = {
        "name": name, "shape_type": "path", "edge_color": colors, "face_color": "transparent",
        "edge_width": max(0.6, thin),
        "features": {"kind": [s.kind for s in strokes], "object_id": [s.object_id for s in strokes],
                     "text": [s.text for s in strokes]},
        "text": {"string": "{text}", "size": 13, "color": "white", "anchor": "upper_left"}, "opacity": 1.0,
        "metadata": layers.metadata_of(stack), **layers.geometry(stack),
    }  # fmt: skip
    return shapes, given, "shapes"
