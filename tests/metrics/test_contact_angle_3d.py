"""Contact angles in volumes that are no ball on a plane: along the contact line."""

import math
import re

import numpy as np
import pytest

from seg.metrics.contact_angle import measure_frame
from seg.metrics.frame import Frame
from seg.metrics.table import Scale


def angle_row(rng, schema, shape, spacing, deposit, substrate, *, tilt=0.0):
    """Mean angle of a deposit given by functions of (up, y, x) in voxels about a foot at a random place in a voxel."""
    up, y, x = (
        (i - n / 2 * (k > 0) - 9 * (k == 0) + o) * s
        for k, (i, n, o, s) in enumerate(zip(np.indices(shape), shape, rng.uniform(-0.5, 0.5, 3), spacing, strict=True))
    )
    up, y = up * math.cos(tilt) - y * math.sin(tilt), y * math.cos(tilt) + up * math.sin(tilt)
    labels = np.where(substrate(up, y, x), 2, np.where(deposit(up, y, x), 3, 1)).astype(np.uint8)
    rows = measure_frame(Frame(labels, schema, Scale(spacing)))
    (row,) = [m for m in rows if m.metric == "contact_angle" and m.object_id]
    return row


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize(("wide", "tall"), [(24, 16), (16, 24)])
def test_ellipsoid_on_a_plane(rng, schema, spacing, wide, tall):
    centre = 0.3 * tall
    half = wide * math.sqrt(1 - 0.3**2)
    truth = math.degrees(math.atan2(half / wide**2, -centre / tall**2))
    shape = tuple(int(n / s) for n, s in zip((1.3 * tall + 26, 2 * wide + 14, 2 * wide + 14), spacing, strict=True))
    for tilt in (0.0, 0.15):
        row = angle_row(
            rng, schema, shape, spacing,
            lambda up, y, x: ((up - centre) / tall) ** 2 + (y**2 + x**2) / wide**2 < 1,
            lambda up, y, x: up < 0,
            tilt=tilt,
        )  # fmt: skip
        assert row.low < truth < row.high
        assert row.method.startswith("quadrics on plane")
    # Target for the local mean: 4 degrees. Where the substrate is level, half a voxel of baseline alone is up to that.
    assert row.value == pytest.approx(truth, abs=4)


def test_ball_on_a_fibre_has_no_single_angle(rng, schema):
    radius, fibre, axial = 20.0, 40.0, math.radians(60)
    row = angle_row(
        rng, schema, (26, 60, 60), (1.0, 1.0, 1.0),
        lambda up, y, x: (up + radius * math.cos(axial)) ** 2 + y**2 + x**2 < radius**2,
        lambda up, y, x: (up + fibre) ** 2 + y**2 < fibre**2,
    )  # fmt: skip
    # By integration along the line, mean 53.7 and standard deviation 4.7 degrees (radius ratio 2).
    assert row.value == pytest.approx(53.7, abs=1.5)
    spread = float(re.search(r"sd ([0-9.]+)", row.method).group(1))
    assert spread == pytest.approx(4.7, abs=1.0)
    assert row.low < 53.7 < row.high


def test_refusals_along_the_line(rng, schema):
    row = angle_row(
        rng, schema, (24, 40, 40), (1.0, 1.0, 1.0),
        lambda up, y, x: (up < 2.4) & (y**2 + x**2 < 100),
        lambda up, y, x: up < 0,
    )  # fmt: skip
    assert math.isnan(row.value)
    assert row.flags == ("few-pixels",)
