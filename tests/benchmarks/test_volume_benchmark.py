"""Measuring volumes: one pass over slabs against scikit-image and scipy on the whole array, and our tortuosity.

Tiny by default so that it cannot rot. For figures, a twin of that many voxels along each axis and the real electrode::

    OPERANDOSEG_BENCHMARK_VOXELS=512 pytest tests/benchmarks/test_volume_benchmark.py --benchmark-enable

taufactor and porespy are rivals where they are installed. ``extra_info`` of each holds the CPU seconds and the peak of
memory above what was there before, of a child process that does the same once (Linux).
"""

import json
import math
import os
import sys
import time

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops_table

from seg.labels import load_schema
from seg.metrics import dead, voids
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.metrics.tortuosity import diffuse

VOXELS = int(os.environ.get("OPERANDOSEG_BENCHMARK_VOXELS", "48"))
FULL = VOXELS >= 256
SPACING = (0.6, 0.5, 0.5)
ROUNDS = 3 if FULL else 1

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def cell(n):
    """Separator over metal with balls of void, some of them at the interface, on a collector; the same every time."""
    rng = np.random.default_rng(3)
    labels = np.full((n, n, n), 9, np.uint8)
    labels[n // 3 :] = 3
    labels[-n // 10 :] = 2
    for _ in range(max(6, round(n**2 / 400))):
        radius = rng.uniform(3, 6)
        centre = (rng.uniform(n / 3 - 2, 0.8 * n), *rng.uniform(8, n - 8, 2))
        box = tuple(slice(int(c - 7), int(c + 8)) for c in centre)
        near = np.ix_(*(np.arange(b.start, b.stop) - c for b, c in zip(box, centre, strict=True)))
        away = sum(a**2 for a in near)
        part = labels[box]
        part[(away < radius**2) & (part == 3)] = 7
    return labels


@pytest.fixture(scope="module")
def frame():
    return Frame(cell(VOXELS), load_schema("lithium"), Scale(SPACING))


def run(benchmark, function, rounds=ROUNDS):
    result = benchmark.pedantic(function, rounds=rounds, warmup_rounds=0)
    benchmark.extra_info["megavoxels"] = VOXELS**3 / 1e6
    if FULL and sys.platform.startswith("linux"):
        benchmark.extra_info.update(spent_by_a_child(function))
    return result


def spent_by_a_child(function):
    """CPU seconds and peak of private memory of one call; the child shares the input with us and holds it already."""

    def status(key):
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            held, started = status("VmRSS"), time.process_time()
            function()
            spent = {"cpu_seconds": time.process_time() - started, "peak_mib": status("VmHWM") - held}
            os.write(writing, json.dumps(spent).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer) if answer else {}


sizes = pytest.mark.benchmark(group=f"number and sizes of voids, {VOXELS}^3 voxels")


@sizes
def test_regionprops(benchmark, frame):
    # The rival: whole arrays, no contact with the separator, no interface.
    def measure():
        ids = label(frame.labels == 7, connectivity=3)
        return regionprops_table(ids, spacing=SPACING, properties=("area", "bbox", "centroid"))["area"]

    found = run(benchmark, measure)
    assert found.sum() == pytest.approx(np.count_nonzero(frame.labels == 7) * math.prod(SPACING))


@sizes
def test_scipy(benchmark, frame):
    def measure():
        void = frame.labels == 7
        ids, n = ndimage.label(void, np.ones((3, 3, 3)))
        return np.bincount(ids.ravel(), minlength=n + 1)[1:], ndimage.find_objects(ids)

    counts, _ = run(benchmark, measure)
    assert counts.sum() == np.count_nonzero(frame.labels == 7)


@sizes
def test_one_pass_over_slabs(benchmark, frame):
    """Sizes, boxes, contact layers and metal in one pass."""
    scan = run(benchmark, lambda: voids.scan_voids(frame))
    assert scan.voids.sizes.sum() == np.count_nonzero(frame.labels == 7)
    assert scan.voids.count == ndimage.label(frame.labels == 7, np.ones((3, 3, 3)))[1]
    assert 0 < scan.contact.fraction < 1


paths = pytest.mark.benchmark(group=f"metal without a path to the collector, {VOXELS}^3 voxels")


@paths
def test_scikit_image_label(benchmark, frame):
    def measure():
        metal, collector = frame.labels == 3, frame.labels == 2
        ids = label(metal | collector, connectivity=1)
        path = np.unique(ids[collector])
        return np.count_nonzero(metal & ~np.isin(ids, path))

    assert run(benchmark, measure) >= 0


@paths
def test_isolation(benchmark, frame):
    """The same, with bodies that leave the frame told apart."""
    (found,) = run(benchmark, lambda: dead.isolation(frame, metal_classes=["deposit"]))
    assert found.metal == np.count_nonzero(frame.labels == 3)


def electrode(shared_data):
    """Pores of the real electrode; the middle of it in the tiny size."""
    import tifffile

    path = shared_data / "xct_nmc_electrode_segmented" / "nmc1cal_cbd_bridge.tif"
    if not path.is_file():
        pytest.skip("no electrode")
    pores = tifffile.imread(path) == 0
    return pores[:128, :128, :128] if FULL else pores[100:140, 100:140, 100:140]


tortuosity = pytest.mark.benchmark(group=f"tortuosity factor of a real electrode, {128 if FULL else 40}^3 voxels")


@tortuosity
def test_tortuosity(benchmark, shared_data):
    pores = electrode(shared_data)
    found = run(benchmark, lambda: diffuse(pores, spacing=(1.0, 1.0, 1.0)), rounds=1)
    benchmark.extra_info["tortuosity_factor"] = found.tortuosity_factor
    assert found.tortuosity_factor > 1


@tortuosity
def test_taufactor(benchmark, shared_data):
    taufactor = pytest.importorskip("taufactor")
    pores = electrode(shared_data)

    def solve():
        solver = taufactor.Solver(pores.astype(np.uint8), device="cpu")
        solver.solve(verbose=False)
        return float(np.ravel(np.asarray(solver.tau))[0])

    found = run(benchmark, solve, rounds=1)
    benchmark.extra_info["tortuosity_factor"] = found
    # Both solve the same equations on the same voxels.
    assert diffuse(pores, spacing=(1.0, 1.0, 1.0)).tortuosity_factor == pytest.approx(found, rel=0.01)


@tortuosity
def test_porespy(benchmark, shared_data):
    porespy = pytest.importorskip("porespy")
    pores = electrode(shared_data)
    found = run(benchmark, lambda: float(porespy.simulations.tortuosity_fd(pores, axis=0).tortuosity), rounds=1)
    assert diffuse(pores, spacing=(1.0, 1.0, 1.0)).tortuosity_factor == pytest.approx(found, rel=0.05)
