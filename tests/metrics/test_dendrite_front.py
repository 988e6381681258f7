"""The front over steps and tips of known height, and how full each height is; in the plane and in volumes."""

import math

import numpy as np
import pytest

from seg.metrics.dendrite import measure_frame
from seg.metrics.dendrite_front import find_reference, measure_front
from seg.metrics.frame import Frame
from seg.metrics.table import Scale


def steps(schema, ndim, spacing, *, artifact=False):
    """A layer 10 px high over the left half, a needle 40 px high on it, on a substrate; a flake floats above."""
    shape = (80, 100) if ndim == 2 else (80, 12, 100)
    labels = np.full(shape, schema.index("electrolyte"), np.uint8)
    labels[60:] = schema.index("substrate")
    labels[50:60, ..., :50] = schema.index("deposit")
    labels[20:60, ..., 20:24] = schema.index("dendrite")
    labels[5:8, ..., 70:90] = schema.index("deposit")
    if artifact:
        labels[:60, ..., 60:] = schema.index("artifact")
    return Frame(labels, schema, Scale(spacing))


def front(frame, reference="auto", bands=0, **options):
    metal = frame.mask(("deposit", "dendrite"))
    base = find_reference(frame, metal, reference, ("substrate",))
    return measure_front(frame, base, classes=("deposit", "dendrite"), height_bands=bands, **options)


def by_side(rows, metric):
    return {row.side: row for row in rows if row.metric == metric}


@pytest.mark.parametrize(("ndim", "spacing"), [(2, (0.5, 0.3)), (3, (0.5, 0.4, 0.3))])
def test_front_of_steps(schema, ndim, spacing):
    found = by_side(front(steps(schema, ndim, spacing)), "front_height")
    # 46 columns of 10 px, 4 of 40 px, 50 bare ones; what floats is no front.
    assert found["mean"].value == pytest.approx((46 * 10 + 4 * 40) / 100 * 0.5)
    assert found["highest"].value == pytest.approx(40 * 0.5)
    assert found["30 %"].value == 0
    assert found["mean"].unit == "um"
    assert found["mean"].low < found["mean"].value < found["mean"].high
    # Columns that an artefact hides say nothing.
    hidden = by_side(front(steps(schema, ndim, spacing, artifact=True)), "front_height")
    assert hidden["mean"].value == pytest.approx((46 * 10 + 4 * 40) / 60 * 0.5)
    assert hidden["30 %"].value == pytest.approx(10 * 0.5)


@pytest.mark.parametrize("side", ["top", "left"])
def test_front_from_a_side_of_the_frame(schema, side):
    labels = np.full((60, 80), schema.index("electrolyte"), np.uint8)
    along = labels if side == "top" else labels.T
    along[:8] = schema.index("deposit")
    along[:31, 10:14] = schema.index("dendrite")
    frame = Frame(labels, schema, Scale((0.2, 0.5)))
    found = by_side(front(frame, side), "front_height")
    step, width = (0.2, 80) if side == "top" else (0.5, 60)
    assert found["highest"].value == pytest.approx(31 * step)
    assert found["mean"].value == pytest.approx((8 * (width - 4) + 31 * 4) / width * step)


def test_share_of_each_height(schema):
    frame = steps(schema, 2, (0.5, 0.3))
    found = by_side(front(frame, bands=6), "covered_fraction")
    # Six layers of 10 px over 100 columns.
    assert list(found) == [f"height {a:.3g} to {a + 5:.3g} um" for a in range(0, 30, 5)]
    shares = [row.value for row in found.values()]
    assert shares == pytest.approx([0.5, 0.04, 0.04, 0.04, 0.0, 60 / 1000])
    assert sum(row.value * row.n for row in found.values()) == np.count_nonzero(frame.mask(("deposit", "dendrite")))


def test_no_reference_no_front(schema):
    labels = np.full((40, 60), schema.index("electrolyte"), np.uint8)
    labels[10:20, 10:20] = schema.index("dendrite")
    rows = front(Frame(labels, schema, Scale((1.0, 1.0), calibrated=False)), bands=5)
    assert len(rows) == 1
    assert math.isnan(rows[0].value)
    assert rows[0].flags == ("uncalibrated", "no-credible-baseline")


def test_rows_of_the_group_and_frames_without_metal(schema):
    frame = steps(schema, 2, (0.5, 0.3))
    rows = measure_frame(frame, height_bands=4)
    assert {"mean", "30 %", "highest"} <= set(by_side(rows, "front_height"))
    assert len(by_side(rows, "covered_fraction")) == 4
    assert not any(row.metric in ("front_height", "covered_fraction") for row in measure_frame(frame, front_classes=()))
    bare = Frame(np.where(frame.labels == 2, 2, 1).astype(np.uint8), schema, frame.scale)
    found = by_side(measure_frame(bare), "front_height")
    assert [row.value for row in found.values()] == [0, 0, 0]
    covered = Frame(np.full((9, 9), schema.index("substrate"), np.uint8), schema, frame.scale)
    assert by_side(measure_frame(covered), "front_height")["mean"].flags == ("no-credible-baseline",)
