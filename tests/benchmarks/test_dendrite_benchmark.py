"""Skeleton and fractal measures beside skan, PoreSpy and a plain box count, on the same masks in one run.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_DENDRITE_PX=2048 pytest tests/benchmarks/test_dendrite_benchmark.py --benchmark-enable

The extra info of the file has the error of every length and dimension in per cent or absolute. PoreSpy takes part
where it is installed.
"""

import math
import os

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from seg.metrics.dendrite import analyse_dendrite, measure_frame
from seg.metrics.fractal import box_dimension
from seg.metrics.frame import Frame
from seg.metrics.table import Scale
from seg.synthetic import make_experiment

SIZE_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_DENDRITE_PX", "320"))
FULL = SIZE_PX > 512
VOLUME_PX = 160 if FULL else 72
PIXEL_UM = (0.10, 0.10)
TIMES = 7 if FULL else 6
pytestmark = pytest.mark.timeout(1800 if FULL else 240)


@pytest.fixture(scope="module")
def ferns():
    """Dendrites in profile on a substrate: frame, and the true length, tips and branch points."""
    made = make_experiment("dendrite", 7, kind="fern", shape_px=(SIZE_PX, SIZE_PX), n_frames=2, pixel_um=PIXEL_UM,
                           n_trees=max(2, SIZE_PX // 200), burnt_in=False)  # fmt: skip
    frame = Frame(made.labels.frame(1), made.schema, Scale(PIXEL_UM))
    truth = {name: made.truth_value(name, frame=1) for name in ("skeleton_length", "tip_count", "branch_point_count")}
    return frame, truth


@pytest.fixture(scope="module")
def rods():
    """Bent tubes of even width in a volume, which thinning alone may lose: mask and true length (px)."""
    n = VOLUME_PX
    points = np.moveaxis(np.indices((n, n, n)), 0, -1).astype(float)
    base = np.array([0.14 * n, 0.5 * n, 0.5 * n]).round()
    legs = [((0, 0, 0), (0.7 * n, 0, 0)), ((0.3 * n, 0, 0), (0.55 * n, 0.3 * n, 0.1 * n)),
            ((0.45 * n, 0, 0), (0.6 * n, -0.25 * n, 0.15 * n))]  # fmt: skip
    mask, length = np.zeros((n, n, n), bool), 0.0
    for a, b in legs:
        a, b = base + a, base + b
        share = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)[..., None]
        mask |= np.sum((points - a - share * (b - a)) ** 2, axis=-1) <= 9.0
        length += float(np.linalg.norm(b - a))
    return mask, length


def skan_length(mask, spacing):
    """Length of all branches as a script with skan gives it."""
    from skan import Skeleton

    skeleton = skeletonize(mask)
    if not skeleton.any():
        return 0.0
    return float(Skeleton(skeleton, spacing=spacing).path_lengths().sum())


def timed(benchmark, function, **extra):
    found = benchmark.pedantic(function, rounds=3 if FULL else 1, warmup_rounds=1)
    benchmark.extra_info |= {name: round(error(found), 4) for name, error in extra.items()}
    return found


@pytest.mark.benchmark(group=f"skeletons of a frame of {SIZE_PX}^2 px")
class TestFrame:
    def test_ours(self, benchmark, ferns):
        frame, truth = ferns

        def ours():
            return {row.metric: row.value for row in measure_frame(frame, front_classes=())
                    if row.object_id is None and not row.side}  # fmt: skip

        def length_error(found):
            return 100 * (found["skeleton_length"] / truth["skeleton_length"] - 1)

        found = timed(benchmark, ours, length_error_percent=length_error)
        assert abs(length_error(found)) < 3.5
        assert found["tip_count"] == pytest.approx(truth["tip_count"], abs=2)

    def test_skan(self, benchmark, ferns):
        frame, truth = ferns
        mask = frame.mask("dendrite")
        found = timed(benchmark, lambda: skan_length(mask, PIXEL_UM),
                      length_error_percent=lambda length: 100 * (length / truth["skeleton_length"] - 1))  # fmt: skip
        assert found > 0


@pytest.mark.benchmark(group=f"skeleton of a volume of {VOLUME_PX}^3 px")
class TestVolume:
    def test_ours(self, benchmark, rods):
        mask, length = rods
        found = timed(benchmark, lambda: analyse_dendrite(mask, spacing=(1.0, 1.0, 1.0)).skeleton_length,
                      length_error_percent=lambda got: 100 * (got / length - 1))  # fmt: skip
        assert found == pytest.approx(length, rel=0.045)

    def test_skan(self, benchmark, rods):
        mask, length = rods
        found = timed(benchmark, lambda: skan_length(mask, (1.0, 1.0, 1.0)),
                      length_error_percent=lambda got: 100 * (got / length - 1))  # fmt: skip
        assert found >= 0


@pytest.fixture(scope="module")
def vicsek():
    """Vicsek's set, of dimension log 5 / log 3, in a frame with a margin as objects have one."""
    block, whole = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), np.ones((1, 1), int)
    for _ in range(TIMES):
        whole = np.kron(whole, block)
    return np.pad(whole.astype(bool), 11), math.log(5) / math.log(3)


def plain_boxes(mask):
    """What most scripts do: boxes of 2, 4, 8 ... pixels from the corner, one straight line through all of them."""
    sizes = 2 ** np.arange(1, int(math.log2(min(mask.shape))))
    counts = []
    for size in sizes:
        padded = np.pad(mask, [(0, -n % size) for n in mask.shape])
        counts.append(np.count_nonzero(ndimage.maximum_filter(padded, size, origin=-(size // 2))[::size, ::size]))
    return -float(np.polyfit(np.log(sizes), np.log(counts), 1)[0])


@pytest.mark.benchmark(group=f"box dimension of a set of {3**TIMES}^2 px")
class TestDimension:
    def test_ours(self, benchmark, vicsek):
        mask, true = vicsek
        found = timed(benchmark, lambda: box_dimension(mask, spacing=(1, 1), rng=np.random.default_rng(0)),
                      error=lambda got: got.value - true)  # fmt: skip
        assert found.value == pytest.approx(true, abs=0.07)
        assert found.low <= true <= found.high

    def test_plain_boxes(self, benchmark, vicsek):
        mask, true = vicsek
        found = timed(benchmark, lambda: plain_boxes(mask), error=lambda got: got - true)
        assert 1 < found < 2

    def test_porespy(self, benchmark, vicsek):
        metrics = pytest.importorskip("porespy.metrics", exc_type=ImportError)
        mask, true = vicsek
        # Its result is the list of local slopes; people take their mean.
        found = timed(benchmark, lambda: float(np.mean(metrics.boxcount(mask).slope)), error=lambda got: got - true)
        assert found > 0
