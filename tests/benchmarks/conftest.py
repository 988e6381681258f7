"""The scenes that several benchmarks measure: discs that are born and grow, and balls in a volume."""

import os

import numpy as np
import pytest

from seg.io import write_labels
from seg.labels import load_schema
from seg.stack import Calibration

# Frames of the full size, 1024 x 1024 px with 300 objects; without it a few frames of a small one.
FRAMES = int(os.environ.get("OPERANDOSEG_BENCHMARK_FRAMES", "0"))
N_FRAMES, SIZE_PX, N_OBJECTS = (FRAMES, 1024, 300) if FRAMES else (4, 160, 9)


def growing_discs(*, n_frames=N_FRAMES, size_px=SIZE_PX, n_objects=N_OBJECTS, seed=0):
    """Yield label frames: four discs in five are there from the start, one is born later; none touches another."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(n_objects)))
    cell = size_px / across
    grid = np.stack(np.meshgrid(np.arange(across), np.arange(across), indexing="ij"), -1).reshape(-1, 2)[:n_objects]
    centre = (grid + 0.5 + rng.uniform(-0.1, 0.1, grid.shape)) * cell
    radius = rng.uniform(0.18, 0.35, n_objects) * cell
    born = np.where(rng.random(n_objects) < 0.8, 0, rng.integers(0, max(n_frames - 1, 1), n_objects))
    deposit, ground = (load_schema("lithium").index(name) for name in ("deposit", "electrolyte"))
    reach = int(cell / 2)
    for t in range(n_frames):
        frame = np.full((size_px, size_px), ground, np.uint8)
        for (y, x), r in zip(centre[born <= t], (radius * (0.4 + 0.6 * (t + 1) / n_frames))[born <= t], strict=True):
            rows, columns = (np.arange(max(0, int(c) - reach), min(size_px, int(c) + reach + 2)) for c in (y, x))
            disc = (rows[:, None] - y) ** 2 + (columns - x) ** 2 <= r**2
            frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][disc] = deposit
        yield frame


@pytest.fixture(scope="session")
def label_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("series") / "labels.ome.tif"
    write_labels(
        path, growing_discs(), shape=(N_FRAMES, SIZE_PX, SIZE_PX), axes="tyx", schema=load_schema("lithium"),
        calibration=Calibration({"y": 0.1, "x": 0.1}, tuple(2.0 * k for k in range(N_FRAMES)), "options"),
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def label_frames():
    return np.array(list(growing_discs()))
