"""Filaments in separators and solid electrolytes: how deep they reach, whether they short the cell, of which kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from seg.metrics.dendrite_bodies import Body, body_ids, find_bodies
from seg.metrics.dendrite_front import SIDES
from seg.metrics.dendrite_object import Dendrite, analyse_dendrite
from seg.metrics.frame import Frame, refused
from seg.metrics.morphology_scores import decide, soft
from seg.metrics.percolation import Passage, Penetration, find_passage, lateral_border, penetration, percolates
from seg.metrics.table import Measurement
from seg.uncertainty import boundary_shift

if TYPE_CHECKING:
    from seg.metrics.percolation_blocks import BlockPassage

BESIDE = "the electrode lies beside it: in a hollow?; "
KINDS = ("straight", "branching", "spalling", "diffuse")


@dataclass(frozen=True)
class Filament:
    """What tells the kinds of filaments apart; all without a unit.

    Parameters
    ----------
    depth_share : float
        Extent across the separator over the larger of both extents: 1 for what goes straight in, small for what
        spreads along the interface.
    slenderness : float
        Longest path over width.
    forks : float
        Branch points per five widths of length.
    solidity : float
        Share of the box of the object that it fills.
    """

    depth_share: float
    slenderness: float
    forks: float
    solidity: float


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("dendrite",),
    electrode_classes: Sequence[str] = ("deposit", "substrate"),
    separator_classes: Sequence[str] = ("separator",),
    min_object_px: int = 25,
) -> list[Measurement]:
    """Penetration, percolation and the kind of every filament of a frame or volume.

    Parameters
    ----------
    frame : Frame
    classes : sequence of str
        Metal inside of the separator.
    electrode_classes : sequence of str
        What it grows from, and what is beyond the separator. Of two, it grows from the one that most of it stands on.
    separator_classes : sequence of str
    min_object_px : int
        Smaller pieces have no kind.

    Returns
    -------
    list of Measurement
        ``penetration_depth``: distance of the farthest connected metal from the electrode, ``ambiguous`` where the
        electrode lies beside it. ``percolates``: 1 where one body of metal reaches from the electrode to the other one,
        or to the side of the frame towards it; pixels that share corners are connected, ``low`` is the answer for
        shared faces, ``high`` the one after the outline has grown by one pixel. Where the electrode itself reaches that
        side it is flagged ``ambiguous``, as is a 0 of a section (the way may lie out of the plane); a 0 where metal
        leaves the frame sideways ``touches-border``. ``morphology_class`` of each filament. NaN with
        ``no-credible-baseline`` where no separator with an electrode is labelled.

    Notes
    -----
    Kinds: *straight* (slender, hardly a fork), *branching* (slender parts with forks), *spalling* (spreads along the
    interface rather than into the separator, as a crack that turns back to the surface), *diffuse* (compact, no
    slender part). The probability is explained at `seg.metrics.morphology_scores.decide`.
    """
    known = [name for name in classes if name in frame.schema.names]
    scale = frame.scale
    row = partial(Measurement, class_name=";".join(known), frame=frame.index, time_s=frame.time_s)
    if frame.on_disk is not None:
        return _on_disk(frame, known, electrode_classes, separator_classes, row)
    metal = frame.mask(known)
    passage = find_passage(
        frame, separator_classes=separator_classes, electrode_classes=electrode_classes, metal_classes=known
    )
    if passage is None:
        return _no_passage(frame, row)
    grown = boundary_shift(metal, 1.0) > 0.5
    depth = penetration(metal, passage.electrode, grown=grown, spacing=scale.spacing)
    rows = [_depth(frame, depth, passage, row), _percolation(frame, metal, grown, passage, row)]
    ids = body_ids(frame, metal, smallest_px=min_object_px)
    for body in find_bodies(frame, ids, reference=None, root_classes=electrode_classes, own=classes):
        rows.append(_kind(body, passage, scale.spacing, partial(row, object_id=body.object_id)))
    return rows


def _on_disk(
    frame: Frame, classes: Sequence[str], electrode_classes: Sequence[str], separator_classes: Sequence[str],
    row: partial[Measurement],
) -> list[Measurement]:  # fmt: skip
    """Depth and percolation of a volume that does not fit in memory; the kinds of filaments need it whole."""
    from seg.metrics.percolation_blocks import find_passage_on_disk, reach_on_disk

    passage = find_passage_on_disk(
        frame, separator_classes=separator_classes, electrode_classes=electrode_classes, metal_classes=classes
    )
    kinds = refused(["morphology_class"], frame)
    if passage is None:
        return _no_passage(frame, row) + kinds
    found = reach_on_disk(frame, passage, classes)
    answers = found.by_faces, found.by_corners, found.when_grown
    return [
        _depth(frame, found.depth, passage, row),
        _connects(frame, answers, found.leaves_sideways, found.electrode_reaches, passage.side, row),
        *kinds,
    ]


def _no_passage(frame: Frame, row: partial[Measurement]) -> list[Measurement]:
    nothing = partial(row, value=math.nan, method="no electrode on a separator",
                      flags=(*frame.scale.flags, "no-credible-baseline"))  # fmt: skip
    return [nothing("penetration_depth", unit=frame.scale.unit("um")), nothing("percolates", unit="1")]


def _depth(
    frame: Frame, found: Penetration, passage: Passage | BlockPassage, row: partial[Measurement]
) -> Measurement:  # fmt: skip
    scale, um, ndim = frame.scale, frame.scale.unit("um"), len(frame.labels.shape)
    low, high = found.interval()
    rough = f", electrode rough by {found.roughness / found.pixel:.2g} px" if found.roughness else ""
    # The electrode lies beside the deepest metal, not behind it: metal in a hollow of it reads its own radius.
    beside = bool(found.way) and abs(found.way[SIDES[passage.side][0] % ndim]) < 0.5
    return row(
        "penetration_depth", found.depth, um, low=low, high=high,
        method=f"farthest connected metal from the electrode, {found.depth / passage.thickness:.2g} of the "
               f"{passage.thickness:.3g} {um} of separator; {BESIDE * beside}"
               f"interval: both mask edges, a tip that blur makes shorter{rough}",
        flags=(*scale.flags, *(("ambiguous",) if beside else ())),
    )  # fmt: skip


def _percolation(
    frame: Frame, metal: np.ndarray, grown: np.ndarray, passage: Passage, row: partial[Measurement]
) -> Measurement:  # fmt: skip
    electrodes = passage.electrode | passage.counter
    ends = passage.electrode, passage.far
    by_faces, by_corners = (percolates(metal | electrodes, *ends, full=full) for full in (False, True))
    when_grown = percolates(grown | electrodes, *ends, full=True)
    sideways = bool((metal & lateral_border(metal.shape, passage.side)).any())
    reaches = bool((passage.electrode & passage.far).any())
    return _connects(frame, (by_faces, by_corners, when_grown), sideways, reaches, passage.side, row)


def _connects(
    frame: Frame, answers: tuple[bool, bool, bool], sideways: bool, reaches: bool, side: str, row: partial[Measurement]
) -> Measurement:
    by_faces, by_corners, grown = answers
    flags = (*frame.scale.flags, *(("ambiguous",) if reaches else ()))
    if not by_corners:
        if len(frame.labels.shape) == 2:
            flags = (*flags, "ambiguous")
        if sideways:
            flags = (*flags, "touches-border")
    method = f"to the {side} side, corners connect; low: faces only, high: outline grown by 1 px" + (
        "; the electrode reaches there by itself" if reaches else ""
    )
    return row("percolates", float(by_corners), "1", low=float(by_faces), high=float(grown), method=method,
               flags=flags)  # fmt: skip


def _kind(body: Body, passage: Passage, spacing: tuple[float, ...], row: partial[Measurement]) -> Measurement:
    found = analyse_dendrite(body.mask, spacing=spacing, root=body.root, border=body.border)
    features = filament_features(body.mask, found, side=passage.side, spacing=spacing)
    scores = filament_scores(features)
    name, probability = decide(scores)
    others = ", ".join(f"{kind} {value:.2f}" for kind, value in scores.items())
    method = (
        f"{name} (filament); {others}; depth share {features.depth_share:.2g}, slenderness {features.slenderness:.3g}, "
        f"forks {features.forks:.2g}, solidity {features.solidity:.2g}"
    )
    flags = ("touches-border",) if body.border.any() else ()
    return row("morphology_class", probability, "1", method=method,
               flags=flags + (("ambiguous",) if name == "undecided" else ()))  # fmt: skip


def filament_features(mask: np.ndarray, found: Dendrite, *, side: str, spacing: Sequence[float]) -> Filament:
    """Features of one filament; `side` is where the far electrode lies."""
    extent = (np.ptp(np.argwhere(mask), axis=0) + 1) * np.asarray(spacing)
    axis = SIDES[side][0] % mask.ndim
    sideways = float(np.delete(extent, axis).max())
    width = found.branch_width
    return Filament(
        depth_share=float(extent[axis]) / max(float(extent[axis]), sideways),
        slenderness=found.longest_path / width,
        forks=found.branch_point_count / max(found.skeleton_length / (5 * width), 1e-9),
        solidity=float(mask.sum()) * math.prod(spacing) / float(np.prod(extent)),
    )


def filament_scores(f: Filament) -> dict[str, float]:
    """Weight of every kind; see `measure_frame` for what they mean."""
    slender, compact = soft(f.slenderness, 3.0, 1.6), soft(f.slenderness, 3.0, 1 / 1.6)
    few, many = soft(f.forks, 0.12, 1 / 1.6), soft(f.forks, 0.12, 1.6)
    into, along = soft(f.depth_share, 0.45, 1.3), soft(f.depth_share, 0.45, 1 / 1.3)
    return {
        "straight": slender * few * into,
        "branching": slender * many * into,
        "spalling": slender * along,
        "diffuse": compact,
    }
