"""Drawn deposits of every kind, in profile, from above and in volumes; twins; what stays undecided."""

import math

import numpy as np
import pytest

from seg.metrics.frame import Frame
from seg.metrics.morphology import KINDS, measure_frame
from seg.metrics.morphology_scores import decide, soft
from seg.metrics.names import text_result
from seg.metrics.table import Scale
from seg.objects import label_objects
from seg.synthetic import make_experiment

SPACING = (0.25, 0.2)
BASE = 40.0  # height of the substrate from the top, um


def grid(shape=(200, 400), spacing=SPACING):
    return np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")


def profile(schema, inside, *, shape=(200, 400), spacing=SPACING, name="deposit"):
    """What `inside` marks (height above the substrate, place along it) on a substrate."""
    y, x = grid(shape, spacing)
    labels = np.where(y >= BASE, schema.index("substrate"), schema.index("electrolyte")).astype(np.uint8)
    labels[(y < BASE) & inside(BASE - y, x)] = schema.index(name)
    return Frame(labels, schema, Scale(spacing))


def stroke(h, x, ends, width):
    """Pixels within half a width of a polyline."""
    away = np.full(h.shape, np.inf)
    for (a, b), (c, d) in zip(ends, ends[1:], strict=False):
        share = np.clip(((h - a) * (c - a) + (x - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2), 0, 1)
        away = np.minimum(away, np.hypot(h - a - share * (c - a), x - b - share * (d - b)))
    return away <= width / 2


def tree(h, x, foot, length, turn, width, left):
    """A trunk that splits again and again."""
    end = (foot[0] + length * math.cos(turn), foot[1] + length * math.sin(turn))
    mask = stroke(h, x, [foot, end], width)
    if left:
        for sign in (1, -1):
            mask |= tree(h, x, end, 0.75 * length, turn + sign * 0.6, width, left - 1)
    return mask


def words(rows, *, least=0):
    """Word of every object, in order; with a probability of at least so much."""
    return [text_result("morphology_class", row.method) for row in rows if row.object_id and row.value >= least]


def whole(rows):
    (row,) = [row for row in rows if row.object_id is None and not row.side]
    return text_result("morphology_class", row.method), row


def cap(angle_deg, width):
    """A circular cap with this contact angle and the greatest width, on the substrate."""
    radius = width / 2 if angle_deg >= 90 else width / 2 / math.sin(math.radians(angle_deg))
    return lambda h, x: np.hypot(h + radius * math.cos(math.radians(angle_deg)), x - 40) <= radius


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("hemispherical", cap(90, 20)),
        ("hemispherical", cap(120, 20)),
        ("flattened", cap(40, 30)),
        ("flattened", cap(55, 24)),
        ("columnar", lambda h, x: (np.abs(x - 40) <= 4) & (h <= 20)),
        ("columnar", lambda h, x: (np.abs(x - 40 - 0.2 * h) <= 3) & (h <= 26)),
        ("needle", lambda h, x: (np.abs(x - 40) <= 0.8) & (h <= 30)),
        ("needle", lambda h, x: stroke(h, x, [(-1, 30), (16, 36), (30, 55)], 1.6)),
        ("film", lambda h, x: h <= 4),
        ("film", lambda h, x: (h <= 5) & (np.abs(x - 40) <= 30)),
        ("mossy", lambda h, x: h <= 5 + 2 * np.sin(x / 1.3) + 1.5 * np.sin(x / 0.7)),
        ("fractal", lambda h, x: tree(h, x, (-1, 40), 9, 0.0, 1.2, 4)),
    ],
)
def test_profile_of_every_kind(schema, kind, inside):
    rows = measure_frame(profile(schema, inside))
    assert words(rows, least=0.5) == [kind]
    assert whole(rows)[0] == kind
    shares = {row.side: row.value for row in rows if row.side}
    assert set(shares) == set(KINDS)
    assert max(shares, key=shares.get) == kind
    assert sum(shares.values()) <= 1


def test_moss_of_grains_against_a_smooth_film(schema, rng):
    y, x = grid()
    layer = y > BASE - 3
    for _ in range(70):
        height, place, radius = rng.uniform(1, 5), rng.uniform(0, 80), rng.uniform(0.8, 2.2)
        layer |= np.hypot(y - BASE + height, x - place) <= radius
    labels = np.where(y >= BASE, 2, np.where(layer, 3, 1)).astype(np.uint8)
    rows = measure_frame(Frame(labels, schema, Scale(SPACING)))
    assert whole(rows)[0] == "mossy"


@pytest.mark.parametrize(("angle", "word"), [(30, "needle"), (80, "needle")])
def test_plan_view(schema, angle, word):
    y, x = grid()
    turn = math.radians(angle)
    labels = np.full(y.shape, schema.index("substrate"), np.uint8)

    def lay(cy, cx, length, width):
        along = (x - cx) * math.cos(turn) - (y - cy) * math.sin(turn)
        across = (x - cx) * math.sin(turn) + (y - cy) * math.cos(turn)
        return np.hypot(np.maximum(np.abs(along) - (length - width) / 2, 0), across) <= width / 2

    labels[lay(20, 15, 9, 3)] = schema.index("deposit")
    labels[lay(20, 45, 18, 1.2)] = schema.index("deposit")
    labels[np.hypot(y - 25, x - 68) <= 6] = schema.index("deposit")
    rows = measure_frame(Frame(labels, schema, Scale(SPACING)))
    assert sorted(words(rows, least=0.5)) == ["hemispherical", word, "rod"]
    # The height of a disc is not seen.
    (disc,) = [row for row in rows if row.object_id and row.method.startswith("hemispherical")]
    assert disc.flags == ("ambiguous",)
    assert disc.value < 0.65


def test_touching_islands_are_told_apart_and_trees_are_not(schema):
    y, x = grid()
    islands = (np.hypot(y - 20, x - 20) < 6) | (np.hypot(y - 20, x - 31) < 6)
    star = np.zeros(y.shape, bool)
    for k in range(5):
        end = (24 + 14 * math.sin(k * 1.257), 58 + 14 * math.cos(k * 1.257))
        star |= stroke(y, x, [(24, 58), end], 2.0)
    labels = np.where(islands | star, 3, 2).astype(np.uint8)
    instances = label_objects(labels == 3, scale=Scale(SPACING))
    found = words(measure_frame(Frame(labels, schema, Scale(SPACING), instances=instances)))
    assert found.count("hemispherical") == 2
    assert len(found) == 3


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("hemispherical", lambda h, y, x: np.hypot(np.hypot(y - 12, x - 12), h) <= 8),
        ("flattened", lambda h, y, x: np.hypot(np.hypot(y - 12, x - 12), h + 9) <= 12),
        ("columnar", lambda h, y, x: (np.hypot(y - 12, x - 12) <= 3) & (h <= 14)),
        ("needle", lambda h, y, x: (np.hypot(y - 12, x - 12 - 0.2 * h) <= 0.9) & (h <= 18)),
        ("film", lambda h, y, x: (h <= 2.5) & (y > -1) & (x > -1)),
    ],
)
def test_volume_of_every_kind(schema, kind, inside):
    spacing = (0.4, 0.4, 0.35)
    z, y, x = np.meshgrid(*(np.arange(n) * s for n, s in zip((60, 60, 68), spacing, strict=True)), indexing="ij")
    labels = np.where(z >= 20, schema.index("substrate"), schema.index("electrolyte")).astype(np.uint8)
    labels[(z < 20) & inside(20 - z, y, x)] = schema.index("deposit")
    assert words(measure_frame(Frame(labels, schema, Scale(spacing)))) == [kind]


@pytest.mark.parametrize(
    ("kind", "word", "options"),
    [
        ("needle", "needle", {}),
        ("columnar", "columnar", {"width_um": 4.0, "height_share": 0.5}),
        ("fern", "fractal", {}),
        ("moss", "mossy", {}),
        ("fern", "fractal", {"seen_from": "above"}),
        ("rod", "rod", {"seen_from": "above", "width_um": 2.0, "height_share": 0.3}),
    ],
)
def test_twins(kind, word, options):
    right = total = 0
    for seed in (11, 12):
        made = make_experiment("dendrite", seed, kind=kind, shape_px=(256, 384), n_frames=2, **options)
        frame = Frame(made.labels.frame(1), made.schema, Scale(made.labels.spacing_um))
        rows = measure_frame(frame)
        # Loose grains beside the moss are no moss.
        of = [word] if kind == "moss" else words(rows)
        right, total = right + of.count(word), total + len(of)
        assert whole(rows)[0] == word
    # Target 95 % of all deposits; here some 8 of a kind, so at most one may be open or wrong.
    assert right >= total - 1


def test_two_kinds_alike_or_none_is_undecided(schema):
    assert decide({"a": 0.9, "b": 0.1}) == ("a", pytest.approx(0.9 / 1.1))
    assert decide({"a": 0.6, "b": 0.6}) == ("undecided", pytest.approx(0.6 / 1.3))
    assert decide({"a": 0.05, "b": 0.01})[0] == "undecided"
    assert soft(2.0, 2.0, 1.3) == 0.5
    assert soft(2.6, 2.0, 1.3) == pytest.approx(1 / (1 + math.exp(-1)))
    assert soft(2.6, 2.0, 1 / 1.3) == pytest.approx(1 - soft(2.6, 2.0, 1.3))
    assert (soft(0.0, 1.0, 2.0), soft(0.0, 1.0, 0.5), soft(math.nan, 1.0, 2.0)) == (0.0, 1.0, 0.5)
    # Between a cap and a half disc.
    rows = measure_frame(profile(schema, cap(67, 24)))
    assert words(rows) == ["undecided"]
    assert [row.flags for row in rows if row.object_id] == [("ambiguous",)]


def test_cut_small_and_missing(schema):
    cut = measure_frame(profile(schema, lambda h, x: np.hypot(h, x) <= 12))
    assert [row.flags for row in cut if row.object_id] == [("touches-border",)]
    # The shape of what the frame cuts is not known, so it has no share.
    assert math.isnan(whole(cut)[1].value)
    assert whole(cut)[1].flags == ("regime-not-reached",)
    empty = measure_frame(profile(schema, lambda h, x: h < 0))
    assert len(empty) == 1
    assert math.isnan(empty[0].value)
    with pytest.raises(ValueError, match="expected one of auto, profile, plan"):
        measure_frame(profile(schema, cap(90, 20)), view="side")


def test_pixel_size_does_not_matter(schema):
    for inside in (cap(90, 20), lambda h, x: (np.abs(x - 40) <= 0.8) & (h <= 30)):
        frame = profile(schema, inside)
        small = measure_frame(frame)
        large = measure_frame(Frame(frame.labels, schema, Scale((2.5, 2.0), calibrated=False)))
        assert [row.value for row in large] == pytest.approx([row.value for row in small])
