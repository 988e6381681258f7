"""Measuring volumes in one pass over slabs, beside scikit-image, scipy, PoreSpy and taufactor on the whole array.

Tiny by default so that it cannot rot. For figures, a twin of that many voxels along each axis and the real electrode::

    OPERANDOSEG_BENCHMARK_VOXELS=512 pytest tests/benchmarks/test_volume_benchmark.py --benchmark-enable

taufactor and PoreSpy are rivals where they are installed. ``extra_info`` of each holds the CPU seconds and the peak of
memory above what was there before, of a child process that does the same once (Linux). Every rival has to find the same
numbers, voxel by voxel; tortuosity factors within what their solvers stop at.
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
ROUNDS = 2 if FULL else 1

pytestmark = pytest.mark.timeout(3600 if FULL else 120)


def cell(n):
    """Separator with dead balls over metal with balls of void, on a collector; the same every time."""
    rng = np.random.default_rng(3)
    labels = np.full((n, n, n), 9, np.uint8)
    labels[n // 3 :] = 3
    labels[-n // 10 :] = 2
    for value, inside, low, high, count in ((7, 3, n / 3 - 2, 0.8 * n, n**2 / 400), (3, 9, 8, n / 3 - 9, n**2 / 1600)):
        for _ in range(max(6, round(count))):
            radius = rng.uniform(3, 6)
            centre = (rng.uniform(low, max(high, low)), *rng.uniform(8, n - 8, 2))
            box = tuple(slice(int(c - 7), int(c + 8)) for c in centre)
            near = np.ix_(*(np.arange(b.start, b.stop) - c for b, c in zip(box, centre, strict=True)))
            part = labels[box]
            part[(sum(a**2 for a in near) < radius**2) & (part == inside)] = value
    return labels


def electrode(shared_data):
    """Labels of the real electrode (0 pore, 1 active material, 2 binder); the middle of it in the tiny size."""
    import tifffile

    path = shared_data / "xct_nmc_electrode_segmented" / "nmc1cal_cbd_bridge.tif"
    if not path.is_file():
        pytest.skip("no electrode")
    labels = tifffile.imread(path)
    return labels if FULL else labels[100:140, 100:140, 100:140]


@pytest.fixture(scope="module", params=["twin", "electrode"])
def frame(request):
    if request.param == "twin":
        return Frame(cell(VOXELS), load_schema("lithium"), Scale(SPACING))
    labels = electrode(request.getfixturevalue("shared_data"))
    # Pores as voids and binder as separator; of the active material, what is connected with the first slice.
    values = np.array([7, 3, 9], np.uint8)[labels]
    values[0][labels[0] == 1] = 2
    return Frame(values, load_schema("lithium"), Scale(SPACING))


@pytest.fixture(scope="module")
def expected(frame):
    """Voxels of each region of void and the metal without a path to the collector, by scipy."""
    ids, _ = ndimage.label(frame.labels == 7, np.ones((3, 3, 3)))
    metal, collector = frame.labels == 3, frame.labels == 2
    bodies, n = ndimage.label(metal | collector)
    path = np.zeros(n + 1, bool)
    path[np.unique(bodies[collector])] = True
    return np.sort(np.bincount(ids.ravel())[1:]), int(np.count_nonzero(metal & ~path[bodies]))


def run(benchmark, function, rounds=ROUNDS, shape=(VOXELS,) * 3):
    benchmark.group += ", " + " x ".join(str(n) for n in shape)
    result = benchmark.pedantic(function, rounds=rounds, warmup_rounds=0)
    benchmark.extra_info["megavoxels"] = math.prod(shape) / 1e6
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


sizes = pytest.mark.benchmark(group="number and sizes of voids")


@sizes
def test_regionprops(benchmark, frame, expected):
    # The rival, and PoreSpy's too: whole arrays, no contact with the separator, no interface.
    def measure():
        ids = label(frame.labels == 7, connectivity=3)
        return regionprops_table(ids, properties=("area", "bbox", "centroid"))["area"]

    np.testing.assert_array_equal(np.sort(run(benchmark, measure, shape=frame.labels.shape)), expected[0])


@sizes
def test_scipy(benchmark, frame, expected):
    def measure():
        void = frame.labels == 7
        ids, n = ndimage.label(void, np.ones((3, 3, 3)))
        return np.bincount(ids.ravel(), minlength=n + 1)[1:], ndimage.find_objects(ids)

    counts, _ = run(benchmark, measure, shape=frame.labels.shape)
    np.testing.assert_array_equal(np.sort(counts), expected[0])


@sizes
def test_one_pass_over_slabs(benchmark, frame, expected):
    """Sizes, boxes, contact layers and metal in one pass."""
    scan = run(benchmark, lambda: voids.scan_voids(frame), shape=frame.labels.shape)
    np.testing.assert_array_equal(np.sort(scan.voids.sizes[1:]), expected[0])
    assert 0 < scan.contact.fraction < 1


paths = pytest.mark.benchmark(group="metal without a path to the collector")


@paths
def test_scikit_image_label(benchmark, frame, expected):
    def measure():
        metal, collector = frame.labels == 3, frame.labels == 2
        ids = label(metal | collector, connectivity=1)
        path = np.unique(ids[collector])
        return np.count_nonzero(metal & ~np.isin(ids, path))

    assert run(benchmark, measure, shape=frame.labels.shape) == expected[1]


@paths
def test_porespy_paths(benchmark, frame, expected):
    porespy = pytest.importorskip("porespy")

    def measure():
        metal, collector = frame.labels == 3, frame.labels == 2
        kept = porespy.filters.trim_disconnected_voxels(metal | collector, inlets=collector, conn="min")
        return np.count_nonzero(metal & ~kept)

    assert run(benchmark, measure, shape=frame.labels.shape) == expected[1]


@paths
def test_isolation(benchmark, frame, expected):
    """The same, with bodies that leave the frame told apart."""
    (found,) = run(benchmark, lambda: dead.isolation(frame, metal_classes=["deposit"]), shape=frame.labels.shape)
    assert found.metal == np.count_nonzero(frame.labels == 3)
    assert found.dead + found.indeterminate == expected[1]


SIDE = 128 if FULL else 40
tortuosity = pytest.mark.benchmark(group="tortuosity factor of the pores of a real electrode")


@pytest.fixture
def pores(shared_data):
    return electrode(shared_data)[:SIDE, :SIDE, :SIDE] == 0


@tortuosity
def test_tortuosity(benchmark, pores):
    found = run(benchmark, lambda: diffuse(pores, spacing=(1.0, 1.0, 1.0)), rounds=1, shape=pores.shape)
    benchmark.extra_info["tortuosity_factor"] = found.tortuosity_factor
    assert found.tortuosity_factor > 1


@tortuosity
def test_taufactor(benchmark, pores):
    taufactor = pytest.importorskip("taufactor")

    def solve():
        solver = taufactor.Solver(pores.astype(np.uint8), device="cpu")
        solver.solve(verbose=False)
        return float(np.ravel(np.asarray(solver.tau))[0])

    found = run(benchmark, solve, rounds=1, shape=pores.shape)
    benchmark.extra_info["tortuosity_factor"] = found
    # Both solve the same equations on the same voxels.
    assert diffuse(pores, spacing=(1.0, 1.0, 1.0)).tortuosity_factor == pytest.approx(found, rel=0.01)


@tortuosity
def test_porespy(benchmark, pores):
    porespy = pytest.importorskip("porespy")
    pytest.importorskip("openpnm")  # its solver

    def solve():
        return float(porespy.simulations.tortuosity_fd(pores, axis=0).tortuosity)

    found = run(benchmark, solve, rounds=1, shape=pores.shape)
    benchmark.extra_info["tortuosity_factor"] = found
    # Its boundary values sit in the middle of the first and the last voxels, not on the faces: one voxel of 40.
    assert diffuse(pores, spacing=(1.0, 1.0, 1.0)).tortuosity_factor == pytest.approx(found, rel=0.05)
