"""Random 2-D scenes for training: geometry and labels only, drawn fast and as varied as the field's pictures are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from seg.synthetic import outlines
from seg.synthetic.texture import grains, smooth_noise

ELECTROLYTE, SUBSTRATE, DEPOSIT, DENDRITE, DEAD, PIT, VOID, SEI, SEPARATOR, ARTIFACT = range(1, 11)


@dataclass
class Sketch:
    """A scene while it is drawn: class indices, and marks that imaging may or may not make visible.

    Parameters
    ----------
    labels : ndarray of uint8, shape (Y, X)
    marks : dict of str to ndarray
        ``edges``: object outlines that a real image shows as bright or dark lines.
    thin : bool
        Objects are too thin to show a texture.
    hollow : bool
        Objects are pits, which only their shading tells from islands.
    """

    labels: np.ndarray
    marks: dict[str, np.ndarray] = field(default_factory=dict)
    thin: bool = False
    hollow: bool = False

    @classmethod
    def blank(cls, size_px: int, value: int) -> Sketch:
        """Scene of one class."""
        return cls(np.full((size_px, size_px), value, np.uint8))

    def paint(self, polygons: list[np.ndarray], value: int, *, only: tuple[int, ...] | None = None) -> np.ndarray:
        """Fill polygons (vertices (y, x)) with a class, optionally only over the classes `only`; returns the mask."""
        mask = filled(polygons, self.labels.shape)
        if only is not None:
            mask &= np.isin(self.labels, only)
        self.labels[mask] = value
        return mask

    def paint_branches(
        self, pieces: outlines.Branches, value: int, *, only: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Draw tapered branches with a class; returns the mask."""
        mask = drawn(pieces, self.labels.shape)
        if only is not None:
            mask &= np.isin(self.labels, only)
        self.labels[mask] = value
        return mask


def filled(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Mask of the inside of polygons."""
    canvas = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    for vertices in polygons:
        draw.polygon([(x, y) for y, x in vertices], fill=1)
    return np.asarray(canvas) > 0


def drawn(pieces: outlines.Branches, shape: tuple[int, int]) -> np.ndarray:
    """Mask of tapered branches with round joints."""
    canvas = Image.new("L", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    for (y0, x0), (y1, x1), w0, w1 in zip(pieces.start, pieces.end, pieces.width_start, pieces.width_end, strict=True):
        width = 0.5 * (w0 + w1)
        draw.line((x0, y0, x1, y1), fill=1, width=max(1, round(width)))
        if width > 2:
            r = w1 / 2
            draw.ellipse((x1 - r, y1 - r, x1 + r, y1 + r), fill=1)
    return np.asarray(canvas) > 0


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(math.log(low), math.log(high))))


def _edge_profile(rng: np.random.Generator, n: int, level: float, tilt: float, rough_px: float) -> np.ndarray:
    """Height (y) of an uneven horizontal edge, one value per column."""
    x = np.arange(n)
    wave = smooth_noise(rng, (4, n), (4.0, _log_uniform(rng, 4, n / 3)))[2]
    return level + tilt * (x - n / 2) + rough_px * wave


def _below(profile: np.ndarray, n: int) -> np.ndarray:
    return np.arange(n)[:, None] >= profile[None, :]


def _island(rng: np.random.Generator, center: tuple[float, float], radius: float, style: str) -> np.ndarray:
    if style == "faceted":
        return outlines.faceted(rng, center, radius, sides=int(rng.integers(3, 9)), rounding=rng.uniform(0, 0.5))
    waviness = {"round": 0.02, "wavy": 0.12, "ragged": 0.35}[style]
    return outlines.blob(
        rng, center, radius, waviness=waviness, aspect=_log_uniform(rng, 1, 1.8 if style != "round" else 1.15)
    )


def plan_islands(rng: np.random.Generator, n: int) -> Sketch:
    """Plan view of nuclei, islands or a nearly closed film on a substrate."""
    sketch = Sketch.blank(n, SUBSTRATE)
    radius = _log_uniform(rng, 0.012 * n + 1, 0.14 * n)
    cover = rng.uniform(0.03, 0.55) if rng.uniform() < 0.85 else rng.uniform(0.55, 0.95)
    count = int(np.clip(cover * n * n / (math.pi * radius**2), 1, 220))
    centers = rng.uniform(-0.05 * n, 1.05 * n, (count, 2))
    if rng.uniform() < 0.3:  # decorated grain boundaries or scratches
        edge = grains(rng, (n, n), _log_uniform(rng, n / 8, n / 2))[1]
        on = np.argwhere(edge)
        centers = np.where(rng.uniform(size=(count, 1)) < 0.7, on[rng.integers(0, len(on), count)], centers)
    styles = ["round", "wavy", "ragged", "faceted"]
    style = styles[rng.integers(4)]
    spread = rng.uniform(0.05, 0.6)
    merging = rng.uniform() < 0.5
    edges = np.zeros((n, n), bool)
    for center in centers:
        own = style if rng.uniform() < 0.9 else styles[rng.integers(4)]
        mask_polygon = _island(rng, tuple(center), max(1.5, radius * math.exp(rng.normal(0, spread))), own)
        if not merging and radius > 6:
            mask = filled([mask_polygon], (n, n))
            edges |= mask & ~ndimage.binary_erosion(mask) & (sketch.labels == DEPOSIT)
            sketch.labels[mask] = DEPOSIT
        else:
            sketch.paint([mask_polygon], DEPOSIT)
    if rng.uniform() < 0.15:
        _sprinkle_stars(rng, sketch)
    sketch.marks["edges"] = edges
    return sketch


def _sprinkle_stars(rng: np.random.Generator, sketch: Sketch) -> None:
    n = sketch.labels.shape[0]
    for _ in range(rng.integers(1, 6)):
        root = tuple(rng.uniform(0, n, 2))
        turn = rng.uniform(0, 2 * math.pi)
        arms = int(rng.integers(3, 8))
        length = rng.uniform(0.05, 0.25) * n
        parts = [
            outlines.tree(
                rng,
                root,
                turn + 2 * math.pi * k / arms,
                length_px=length * rng.uniform(0.6, 1.2),
                width_px=_log_uniform(rng, 2, 6),
                spacing_px=rng.uniform(4, 9),
                orders=int(rng.integers(0, 3)),
                side_angle_deg=rng.uniform(40, 70),
                max_pieces=250,
            )
            for k in range(arms)
        ]
        sketch.paint_branches(outlines.Branches.joined(parts), DENDRITE)


def plan_pits(rng: np.random.Generator, n: int) -> Sketch:
    """Plan view of stripping pits in metal, with re-plated deposits that like the rims."""
    sketch = Sketch.blank(n, SUBSTRATE)
    sketch.hollow = True
    radius = _log_uniform(rng, 0.02 * n + 2, 0.16 * n)
    count = int(np.clip(rng.uniform(0.03, 0.4) * n * n / (math.pi * radius**2), 1, 80))
    style = ["round", "wavy", "faceted", "faceted"][rng.integers(4)]
    rims = []
    for center in rng.uniform(0, n, (count, 2)):
        own = max(2.0, radius * math.exp(rng.normal(0, 0.35)))
        polygon = _island(rng, tuple(center), own, style)
        sketch.paint([polygon], PIT)
        rims.append(polygon)
    if rng.uniform() < 0.6:
        for _ in range(rng.integers(2, 60)):
            ring = rims[rng.integers(len(rims))]
            place = ring[rng.integers(len(ring))] if rng.uniform() < 0.7 else rng.uniform(0, n, 2)
            sketch.paint(
                [_island(rng, tuple(place + rng.normal(0, 2, 2)), _log_uniform(rng, 1.8, 0.035 * n + 3), "wavy")],
                DEPOSIT,
            )
    return sketch


def profile_droplets(rng: np.random.Generator, n: int) -> Sketch:
    """Profile view of caps, facetted particles or blobs on a flat, tilted, rough or fibre substrate."""
    sketch = Sketch.blank(n, ELECTROLYTE)
    base = _log_uniform(rng, 0.06 * n, 0.45 * n)
    angle = rng.uniform(20, 155)
    polygons: list[np.ndarray] = []
    if rng.uniform() < 0.4:  # a fibre crossing the field, or its limb
        radius = _log_uniform(rng, 0.15 * n, 1.2 * n)
        along = rng.uniform(0, 2 * math.pi)
        y0, x0 = n / 2 + radius * math.sin(along), n / 2 + radius * math.cos(along)
        gap = rng.uniform(-0.15, 0.35) * n
        y0, x0 = y0 + gap * math.sin(along), x0 + gap * math.cos(along)
        sketch.paint([_circle(y0, x0, radius)], SUBSTRATE)
        reach = min(math.pi, 0.8 * n / radius)
        for _ in range(rng.integers(1, 9)):
            phi = along + math.pi + rng.uniform(-reach, reach)
            own = base * math.exp(rng.normal(0, 0.4))
            polygons.append(
                _on_surface(
                    rng, (y0 + radius * math.sin(phi), x0 + radius * math.cos(phi)), phi + math.pi / 2, own, angle
                )
            )
    else:
        tilt = rng.normal(0, 0.12) if rng.uniform() < 0.6 else 0.0
        level = rng.uniform(0.5, 0.92) * n
        rough = _log_uniform(rng, 0.3, 5) if rng.uniform() < 0.4 else 0.0
        profile = _edge_profile(rng, n, level, tilt, rough)
        sketch.labels[_below(profile, n)] = SUBSTRATE
        for _ in range(rng.integers(1, 9)):
            x = rng.uniform(0, n)
            y = level + tilt * (x - n / 2)
            polygons.append(_on_surface(rng, (y, x), math.atan(tilt), base * math.exp(rng.normal(0, 0.4)), angle))
    sketch.paint(polygons, DEPOSIT, only=(ELECTROLYTE,))
    if rng.uniform() < 0.15:
        _shell(rng, sketch, (DEPOSIT,), rng.uniform(1.5, 7))
    return _turned(rng, sketch, 0.35)


def _on_surface(
    rng: np.random.Generator, point: tuple[float, float], along: float, base: float, angle: float
) -> np.ndarray:
    kind = rng.uniform()
    if kind < 0.65:
        return outlines.cap_on_line(point, along, base, float(np.clip(angle + rng.normal(0, 12), 12, 168)))
    radius = base / 2
    lift = rng.uniform(-0.3, 0.9) * radius
    center = (point[0] - lift * math.cos(along), point[1] + lift * math.sin(along))
    return _island(rng, center, radius, "faceted" if kind < 0.88 else "wavy")


def _circle(y: float, x: float, radius: float) -> np.ndarray:
    phi = np.linspace(0, 2 * math.pi, 256, endpoint=False)
    return np.column_stack([y + radius * np.sin(phi), x + radius * np.cos(phi)])


def side_dendrites(rng: np.random.Generator, n: int) -> Sketch:
    """Side view (or electrode edge seen from above) of needles, ferns, bushes and crowns over a layer of grains."""
    sketch = Sketch.blank(n, ELECTROLYTE)
    level = rng.uniform(0.55, 1.02) * n
    tilt = rng.normal(0, 0.05)
    sketch.labels[_below(_edge_profile(rng, n, level, tilt, rng.uniform(0, 2)), n)] = SUBSTRATE
    height = _log_uniform(rng, 0.12, 0.9) * level
    count = int(np.clip(rng.uniform(0.3, 3.0) * n / (0.5 * height + 8), 1, 18))
    kind = ["fern", "fern", "bush", "crown", "crown", "needle"][rng.integers(6)]
    width = _log_uniform(rng, 1.5, 7)
    dense = _log_uniform(rng, 0.7, 3.0)  # gap between side branches, in branch widths
    parts = []
    for x in rng.uniform(-0.05 * n, 1.05 * n, count):
        root = (level + tilt * (x - n / 2) + 1, x)
        heading = math.pi / 2 + rng.normal(0, 0.25)
        own = height * math.exp(rng.normal(0, 0.35))
        parts.append(_dendrite(rng, kind if rng.uniform() < 0.85 else "fern", root, heading, own, width, dense))
    mask = drawn(outlines.Branches.joined(parts), (n, n))
    sketch.thin = True
    if kind in ("fern", "bush") and rng.uniform() < 0.5:
        # Grain-covered branches: leaflets thicken what the skeleton drew, and gaps below a few px do not resolve.
        knots = smooth_noise(rng, (n, n), _log_uniform(rng, 1.5, 4)) > rng.uniform(-0.3, 0.9)
        mask |= ndimage.binary_dilation(mask, iterations=int(rng.integers(1, 3))) & knots
        mask = ndimage.binary_closing(np.pad(mask, 4), iterations=int(rng.integers(1, 4)))[4:-4, 4:-4]
    sketch.labels[mask & (sketch.labels == ELECTROLYTE)] = DENDRITE
    if rng.uniform() < 0.2:  # the part beyond a cut has lost its path to the electrode
        _cut_off(rng, sketch, level)
    if rng.uniform() < 0.6:
        _grain_layer(rng, sketch, level, tilt, DEPOSIT)
    return _turned(rng, sketch, 0.3)


def _dendrite(
    rng: np.random.Generator,
    kind: str,
    root: tuple[float, float],
    heading: float,
    length: float,
    width: float,
    dense: float,
) -> outlines.Branches:
    if kind == "needle":
        return outlines.needle(
            rng, root, heading + rng.normal(0, 0.4), length_px=length, width_px=width, kinks=int(rng.integers(0, 4))
        )
    if kind == "crown":
        return outlines.crown(
            rng,
            root,
            heading,
            length_px=length,
            width_px=width,
            spread_deg=rng.uniform(35, 75),
            splits=int(rng.integers(3, 7)),
            max_pieces=700,
        )
    bend = 0.05 if kind == "fern" else 0.3
    return outlines.tree(
        rng,
        root,
        heading,
        length_px=length,
        width_px=width,
        side_angle_deg=rng.uniform(35, 70),
        side_ratio=rng.uniform(0.3, 0.7),
        spacing_px=max(3.0, dense * width + 1.5),
        orders=int(rng.integers(1, 4)),
        bend=bend,
        max_pieces=600,
    )


def _cut_off(rng: np.random.Generator, sketch: Sketch, level: float) -> None:
    n = sketch.labels.shape[0]
    cut = _edge_profile(rng, n, level * rng.uniform(0.5, 0.92), rng.normal(0, 0.1), rng.uniform(0, 6))
    gap = rng.uniform(2, 6)
    y = np.arange(n)[:, None]
    metal = sketch.labels == DENDRITE
    sketch.labels[metal & (np.abs(y - cut[None]) < gap / 2)] = ELECTROLYTE
    sketch.labels[metal & (y <= cut[None] - gap / 2)] = DEAD


def _grain_layer(rng: np.random.Generator, sketch: Sketch, level: float, tilt: float, value: int) -> None:
    n = sketch.labels.shape[0]
    size = _log_uniform(rng, 1.5, 0.03 * n + 2)
    xs = rng.uniform(0, n, int(np.clip(rng.uniform(0.3, 2.5) * n / size, 3, 220)))
    grains_ = [
        outlines.blob(
            rng,
            (level + tilt * (x - n / 2) - rng.uniform(-0.5, 1.5) * size, x),
            size * math.exp(rng.normal(0, 0.4)),
            waviness=0.2,
        )
        for x in xs
    ]
    sketch.paint(grains_, value, only=(ELECTROLYTE,))


def cell_slice(rng: np.random.Generator, n: int) -> Sketch:
    """Slice of a solid-state cell: collector, metal with interface voids, separator with cracks and filaments."""
    sketch = Sketch.blank(n, SEPARATOR)
    tilt = rng.normal(0, 0.03)
    rough = _log_uniform(rng, 0.3, 6)
    top = _edge_profile(rng, n, rng.uniform(0.2, 0.7) * n, tilt, rough)
    metal = _below(top, n)
    sketch.labels[metal] = DEPOSIT
    bottom = float(top.mean()) + rng.uniform(0.12, 0.5) * n
    sketch.labels[_below(_edge_profile(rng, n, bottom, tilt, rng.uniform(0, 2)), n)] = SUBSTRATE
    if rng.uniform() < 0.4:  # metal on the other side as well, or pores of a cathode
        other = _edge_profile(rng, n, float(top.mean()) - rng.uniform(0.15, 0.6) * n, tilt, rough)
        sketch.labels[~_below(other, n)] = DEPOSIT if rng.uniform() < 0.6 else ELECTROLYTE
    polygons = []
    if rng.uniform() < 0.85:
        size = _log_uniform(rng, 0.02 * n, 0.15 * n)
        for x in rng.uniform(0, n, rng.integers(1, 14)):
            y = float(top[int(min(max(x, 0), n - 1))])
            # caps hang from the interface into the metal
            polygons.append(
                outlines.cap_on_line(
                    (y, x), math.atan(tilt) + math.pi, size * math.exp(rng.normal(0, 0.5)), rng.uniform(25, 120)
                )
            )
    sketch.paint(polygons, VOID, only=(DEPOSIT,))
    if rng.uniform() < 0.3:
        inside = [
            _island(rng, (rng.uniform(top.mean(), bottom), rng.uniform(0, n)), _log_uniform(rng, 1.5, 0.04 * n), "wavy")
            for _ in range(rng.integers(1, 12))
        ]
        sketch.paint(inside, VOID, only=(DEPOSIT,))
    if rng.uniform() < 0.45:
        parts = [
            outlines.crown(
                rng,
                (float(top[int(x)]) + 2, x),
                math.pi / 2 + rng.normal(0, 0.3),
                length_px=rng.uniform(0.08, 0.5) * n,
                width_px=_log_uniform(rng, 1.5, 6),
                splits=int(rng.integers(1, 5)),
                max_pieces=200,
            )
            for x in rng.uniform(0, n - 1, rng.integers(1, 5))
        ]
        sketch.paint_branches(outlines.Branches.joined(parts), DENDRITE, only=(SEPARATOR,))
    if rng.uniform() < 0.4:
        parts = [
            outlines.needle(
                rng,
                tuple(rng.uniform(0, n, 2)),
                rng.uniform(0, 2 * math.pi),
                length_px=rng.uniform(0.1, 0.5) * n,
                width_px=_log_uniform(rng, 1, 3),
                kinks=int(rng.integers(1, 6)),
            )
            for _ in range(rng.integers(1, 4))
        ]
        sketch.paint_branches(outlines.Branches.joined(parts), VOID, only=(SEPARATOR,))
    if rng.uniform() < 0.25:
        dead = [
            _island(rng, tuple(rng.uniform(0, n, 2)), _log_uniform(rng, 2, 0.05 * n), "ragged")
            for _ in range(rng.integers(1, 8))
        ]
        sketch.paint(dead, DEAD, only=(SEPARATOR,))
    return _turned(rng, sketch, 0.5)


def core_shell(rng: np.random.Generator, n: int) -> Sketch:
    """Metal cores and whiskers under an SEI shell, in frozen electrolyte or vacuum."""
    sketch = Sketch.blank(n, ELECTROLYTE)
    if rng.uniform() < 0.3:
        sketch.labels[
            _below(_edge_profile(rng, n, rng.uniform(0.7, 1) * n, rng.normal(0, 0.1), rng.uniform(0, 3)), n)
        ] = SUBSTRATE
    value = DEPOSIT
    if rng.uniform() < 0.55:
        radius = _log_uniform(rng, 0.05 * n, 0.3 * n)
        cores = [
            _island(
                rng,
                tuple(rng.uniform(0, n, 2)),
                radius * math.exp(rng.normal(0, 0.3)),
                ["round", "wavy", "faceted"][rng.integers(3)],
            )
            for _ in range(rng.integers(1, 6))
        ]
        sketch.paint(cores, DEPOSIT)
    else:
        value = DENDRITE
        parts = [
            outlines.needle(
                rng,
                tuple(rng.uniform(0, n, 2)),
                rng.uniform(0, 2 * math.pi),
                length_px=rng.uniform(0.4, 1.4) * n,
                width_px=_log_uniform(rng, 0.03 * n, 0.18 * n),
                kinks=int(rng.integers(0, 4)),
            )
            for _ in range(rng.integers(1, 3))
        ]
        sketch.paint_branches(outlines.Branches.joined(parts), DENDRITE)
    _shell(rng, sketch, (value,), _log_uniform(rng, 2, 0.09 * n))
    if rng.uniform() < 0.2:  # frozen contamination
        ice = [
            _island(rng, tuple(rng.uniform(0, n, 2)), _log_uniform(rng, 3, 0.08 * n), "round")
            for _ in range(rng.integers(1, 8))
        ]
        sketch.paint(ice, ARTIFACT)
    return sketch


def _shell(rng: np.random.Generator, sketch: Sketch, around: tuple[int, ...], thickness_px: float) -> None:
    n = sketch.labels.shape[0]
    distance = ndimage.distance_transform_edt(~np.isin(sketch.labels, around)).astype(np.float32)
    local = thickness_px * (1 + rng.uniform(0, 0.45) * smooth_noise(rng, (n, n), _log_uniform(rng, 3, 40)))
    sketch.labels[(distance > 0) & (distance <= local) & (sketch.labels == ELECTROLYTE)] = SEI


def _turned(rng: np.random.Generator, sketch: Sketch, probability: float) -> Sketch:
    """Scene in another orientation of the square, with the given probability; else upright or mirrored."""
    turns = int(rng.integers(1, 4)) if rng.uniform() < probability else 0
    mirrored = rng.uniform() < 0.5

    def turn(array: np.ndarray) -> np.ndarray:
        array = np.rot90(array, turns)
        return np.ascontiguousarray(array[:, ::-1] if mirrored else array)

    return replace(sketch, labels=turn(sketch.labels), marks={name: turn(mark) for name, mark in sketch.marks.items()})


# Which scenes each kind of instrument sees, with weights.
SCENES: dict[str, dict[Callable[[np.random.Generator, int], Sketch], float]] = {
    "optical": {plan_islands: 4, profile_droplets: 2, side_dendrites: 2, plan_pits: 1},
    "sem": {side_dendrites: 5, plan_islands: 3, plan_pits: 1},
    "cryoem": {core_shell: 3, profile_droplets: 3, plan_islands: 2, side_dendrites: 1},
    "xct": {cell_slice: 1},
}
