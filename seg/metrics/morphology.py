"""The morphology of deposits: hemispherical, columnar, needle, mossy, fractal, rod, flattened or film, or undecided.

Rules on features that can be looked at, each in the `method` of its row. They say what the words mean here; they were
set from the definitions, not fitted to a set of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from seg.metrics.dendrite_bodies import ALL_AROUND, Body, body_ids, find_bodies
from seg.metrics.dendrite_front import SIDES, Reference, find_reference, side_of_frame
from seg.metrics.dendrite_object import Dendrite, analyse_dendrite
from seg.metrics.frame import Frame
from seg.metrics.morphology_scores import UNDECIDED, decide, probabilities, soft
from seg.metrics.shape import solidity
from seg.metrics.table import Measurement
from seg.objects import ObjectPixels

KINDS = ("hemispherical", "columnar", "needle", "mossy", "fractal", "rod", "flattened", "film")
VIEWS = ("auto", "profile", "plan")
# Regions that instances split into pieces this solid are several deposits that touch.
SOLID_PIECES = 0.90


@dataclass(frozen=True)
class Features:
    """What the kinds are told apart by; all without a unit, NaN where they have no meaning.

    Parameters
    ----------
    rise : float
        Height over the width of the projection onto the substrate; in profile and in volumes.
    unevenness : float
        Spread over mean of the height of the columns: 0 for a film, 0.45 for a cap.
    elongation : float
        Long over short axis of the ellipse with the same second moments.
    slenderness : float
        Longest path along the skeleton over the width of the branches.
    forks : float
        Branch points.
    tips : float
        Free ends.
    solidity : float
        Share of the convex hull that is filled.
    spans : float
        1 where the frame cuts it at two opposite sides beside the way up, else 0.
    """

    rise: float
    unevenness: float
    elongation: float
    slenderness: float
    forks: float
    tips: float
    solidity: float
    spans: float


def measure_frame(
    frame: Frame,
    *,
    classes: Sequence[str] = ("deposit", "dendrite"),
    reference: str = "auto",
    reference_classes: Sequence[str] = ("substrate",),
    root_classes: Sequence[str] = ("substrate", "deposit"),
    view: str = "auto",
    min_object_px: int = 50,
) -> list[Measurement]:
    """Morphology of every deposit, and of the frame.

    Parameters
    ----------
    frame : Frame
        A deposit is a connected region of one class. Where instances split it into solid pieces, each piece is one.
    classes : sequence of str
    reference : str
        See the group `dendrite`.
    reference_classes, root_classes : sequence of str
        What heights start from; what branches start from, the likeliest first.
    view : str
        ``"profile"`` (heights are seen), ``"plan"`` (from above) or ``"auto"``: plan where deposits border on the
        substrate nearly all around, or nothing says where they stand.
    min_object_px : int
        Smaller deposits have no morphology.

    Returns
    -------
    list of Measurement
        ``morphology_class`` of every deposit: the word opens `method`, the value is its probability (the rules are in
        `morphology_scores`). Of the frame: the kind with the largest share of the metal, and one row per kind (`side`)
        with its share, where a deposit counts to each kind with its probability. Without deposits NaN.

    Notes
    -----
    From above the height of a round island is not seen: it is called hemispherical, flagged ``ambiguous``. Under a
    width of 4 px or where the frame cuts a deposit that does not span it, rows are flagged.
    """
    if view not in VIEWS:
        raise ValueError(f"view={view!r}; expected one of {', '.join(VIEWS)}.")
    known = [name for name in classes if name in frame.schema.names]
    metal = frame.mask(known)
    base = find_reference(frame, metal, reference, reference_classes)
    profile = view == "profile" or (view == "auto" and base is not None and not _from_above(frame, metal, base))
    rows: list[Measurement] = []
    sums, total = dict.fromkeys(KINDS, 0.0), 0.0
    row = partial(Measurement, "morphology_class", unit="1", frame=frame.index, time_s=frame.time_s)
    for name in known:
        for body in _deposits(frame, name, base, root_classes, min_object_px):
            found = analyse_dendrite(body.mask, spacing=frame.scale.spacing, root=body.root, border=body.border)
            # What stands on nothing has no height either.
            stands = profile and bool(body.root.any())
            features = deposit_features(body, found, frame, base if stands else None)
            weights = morphology_weights(features, profile=stands)
            word, probability = decide(weights)
            shares = probabilities(weights)
            cut = bool(body.border.any()) and not features.spans
            # A compact deposit that the frame cuts has another shape than it shows.
            if not (cut and features.solidity > SOLID_PIECES):
                size = float(np.count_nonzero(body.mask))
                total += size
                for kind, share in shares.items():
                    sums[kind] += size * share
            flags = ["touches-border"] if cut else []
            if word == UNDECIDED or (not stands and word == "hemispherical"):
                flags.append("ambiguous")
            if found.branch_width < 4 * frame.scale.pixel ** (1 / metal.ndim):
                flags.append("few-pixels")
            rows.append(row(probability, class_name=name, object_id=body.object_id, flags=tuple(flags),
                            method=_method(word, shares, features)))  # fmt: skip
    return rows + _frame_rows(sums, total, len(rows), partial(row, class_name=";".join(known)))


def _frame_rows(
    sums: dict[str, float], total: float, n: int, row: partial[Measurement]
) -> list[Measurement]:  # fmt: skip
    if not total:
        return [row(math.nan, n=0, method="no deposit", flags=("regime-not-reached",))]
    shares = {kind: value / total for kind, value in sums.items()}
    best = max(shares, key=lambda kind: shares[kind])
    word = best if shares[best] >= 0.5 else UNDECIDED
    mix = ", ".join(f"{kind} {share:.2f}" for kind, share in shares.items() if share >= 0.05)
    whole = row(shares[best], n=n, method=f"{word}; share of the metal: {mix}",
                flags=("ambiguous",) if word == UNDECIDED else ())  # fmt: skip
    return [whole, *(row(share, side=kind, n=n, method=f"{kind}; share of the metal, each deposit by its probability")
                     for kind, share in shares.items())]  # fmt: skip


def _method(word: str, shares: dict[str, float], features: Features) -> str:
    likely = ", ".join(f"{kind} {share:.2f}" for kind, share in sorted(shares.items(), key=lambda item: -item[1])
                       if share >= 0.05)  # fmt: skip
    seen = ", ".join(f"{name} {value:.3g}" for name, value in asdict(features).items() if math.isfinite(value))
    return f"{word}; {likely}; {seen}"


def _from_above(frame: Frame, metal: np.ndarray, base: Reference) -> bool:
    """Whether what lies around the metal is substrate nearly everywhere."""
    if base.name != "substrate":
        return False
    around = ndimage.binary_dilation(metal) & ~metal & frame.valid
    return bool(around.any()) and np.count_nonzero(base.height[around] == 0) > ALL_AROUND * np.count_nonzero(around)


def _deposits(
    frame: Frame, name: str, base: Reference | None, root_classes: Sequence[str], smallest_px: int
) -> Iterator[Body]:  # fmt: skip
    """Connected regions of one class, or the solid pieces of those that are several deposits."""
    # What another class hides of a deposit is no part of this one.
    ids = body_ids(frame, frame.mask(name), smallest_px=smallest_px)
    for body in find_bodies(frame, ids, reference=base, root_classes=root_classes, own=(name,)):
        pieces = np.zeros(0, int)
        if frame.instances is not None:
            inside = np.where(body.mask, frame.instances[body.box], 0)
            pieces = np.flatnonzero(np.bincount(inside[inside > 0].ravel()) >= smallest_px)
        if len(pieces) < 2:
            yield body
            continue
        parts = [replace(body, object_id=int(k), mask=inside == k, root=body.root & (inside == k),
                         border=body.border & (inside == k)) for k in pieces]  # fmt: skip
        sizes = [np.count_nonzero(part.mask) for part in parts]
        solid = np.average([solidity(part.mask, spacing=frame.scale.spacing) for part in parts], weights=sizes)
        yield from parts if solid >= SOLID_PIECES else [body]


def deposit_features(body: Body, found: Dendrite, frame: Frame, base: Reference | None) -> Features:
    """Features of one deposit; `base` is None where heights are not seen."""
    spacing = np.asarray(frame.scale.spacing)
    ids = np.zeros(body.mask.shape, np.int32)
    ids[body.mask] = 1
    covariance = ObjectPixels.of(ids).covariances[1] * np.outer(spacing, spacing)
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 1e-12))
    # Of a flake in a volume the two long axes are alike; a rod has one.
    elongation = float(axes[-1] / axes[-2])
    rise = unevenness = math.nan
    if base is not None:
        rise, unevenness = _relief(body, base, spacing)
    width = found.branch_width
    return Features(
        rise=rise,
        unevenness=unevenness,
        elongation=elongation,
        slenderness=found.longest_path / width,
        forks=float(found.branch_point_count),
        tips=float(found.tip_count),
        solidity=solidity(body.mask, spacing=frame.scale.spacing),
        spans=float(_spans(body, frame.labels.shape, base)),
    )


def _relief(body: Body, base: Reference, spacing: np.ndarray) -> tuple[float, float]:
    """Height over width of the projection, and how uneven the columns are."""
    height, column = base.height[body.box][body.mask], base.column[body.box][body.mask]
    # Above its own foot: a tree on moss is no higher for the moss.
    height = height - height.min() + math.prod(spacing) ** (1 / len(spacing))
    _, place = np.unique(column, return_inverse=True)
    top = np.zeros(place.max() + 1)
    np.maximum.at(top, place, height)
    # One column stands for a pixel across the way up, which is the axis along which metal lies over its foot.
    if base.name in SIDES:
        axis = SIDES[base.name][0] % len(spacing)
    else:
        feet = np.stack(np.unravel_index(column, base.height.shape), axis=1)
        at = np.argwhere(body.mask) + [s.start for s in body.box]
        axis = int(np.abs((at - feet) * spacing).mean(axis=0).argmax())
    cell = len(top) * math.prod(np.delete(spacing, axis))
    across = cell if len(spacing) == 2 else 2 * math.sqrt(cell / math.pi)
    return float(top.max()) / across, float(top.std() / top.mean())


def _spans(body: Body, shape: tuple[int, ...], base: Reference | None) -> bool:
    """Whether the frame cuts a body at two opposite sides that are not the way up."""
    if not body.border.any():
        return False
    up = SIDES[base.name][0] if base is not None and base.name in SIDES else None
    edge = {name: bool((body.mask & side_of_frame(shape, name)[body.box]).any()) for name, (axis, _) in SIDES.items()
            if -axis <= len(shape) and axis != up}  # fmt: skip
    pairs = (("top", "bottom"), ("left", "right"), ("front", "back"))
    return any(edge.get(a, False) and edge.get(b, False) for a, b in pairs)


def morphology_weights(f: Features, *, profile: bool) -> dict[str, float]:
    """How well every kind fits, 0 to 1.

    Notes
    -----
    - *film*: even (columns within a fifth of their mean), smooth, and much wider than high or spanning the frame.
    - *flattened*: a smooth island less than a third as high as wide; *hemispherical*: up to 0.8; *columnar*: higher,
      up to six widths. All solid (over nine tenths of the convex hull) and without forks.
    - *needle*: more than six widths long, one fork at most, upright or leaning. *rod*: solid, 1.7 to six times as long
      as wide, not upright.
    - *fractal*: two forks or more, less than half of its hull filled, tips far from each other.
    - *mossy*: fills half to nine tenths of its hull, with an uneven surface and many short ends.
    """
    lack = 1 - f.solidity
    solid, ragged = soft(lack, 0.10, 1 / 1.35), soft(lack, 0.10, 1.35)
    dense, open_ = soft(lack, 0.50, 1 / 1.2), soft(lack, 0.50, 1.2)
    # One fork may be two whiskers from one place.
    plain, forked = soft(f.forks, 1.7, 1 / 1.2), soft(f.forks, 1.7, 1.2)
    long_, short = soft(f.slenderness, 6.0, 1.25), soft(f.slenderness, 6.0, 1 / 1.25)
    weights = dict.fromkeys(KINDS, 0.0)
    weights["needle"] = long_ * plain * (1 - f.spans)
    weights["fractal"] = long_ * forked * open_ * soft(f.tips, 3.0, 1.3)
    if profile:
        even, uneven = soft(f.unevenness, 0.2, 1 / 1.2), soft(f.unevenness, 0.2, 1.2)
        smooth, rough = soft(lack, 0.12, 1 / 1.25), soft(f.unevenness, 0.1, 1.3)
        # What lies flat is no needle, however long.
        weights["needle"] *= soft(f.rise, 0.3, 1.3)
        wide = max(soft(f.rise, 0.25, 1 / 1.3), f.spans)
        island = 1 - f.spans
        weights["film"] = even * wide * smooth
        weights["flattened"] = solid * uneven * island * soft(f.rise, 0.33, 1 / 1.15)
        weights["hemispherical"] = solid * island * soft(f.rise, 0.33, 1.15) * soft(f.rise, 0.85, 1 / 1.12)
        weights["columnar"] = solid * island * plain * short * soft(f.rise, 0.85, 1.12)
        weights["mossy"] = ragged * dense * rough * soft(f.rise, 1.5, 1 / 1.3)
    else:
        weights["film"] = f.spans * dense * soft(f.slenderness, 8.0, 1 / 1.3)
        round_, stretched = soft(f.elongation, 1.7, 1 / 1.12), soft(f.elongation, 1.7, 1.12)
        weights["hemispherical"] = solid * round_ * (1 - f.spans)
        # The same disc from above; without its height they cannot be told apart.
        weights["columnar"] = weights["flattened"] = 0.3 * weights["hemispherical"]
        weights["rod"] = solid * stretched * short * plain * (1 - f.spans)
        weights["mossy"] = ragged * dense * (1 - f.spans) * soft(f.tips, 3.0, 1.3)
    return weights
