"""Measuring beside reading, scikit-image, cc3d and pointpats, on the same data in one run; who is absent is skipped.

Tiny by default so that it cannot rot. For figures (1000 frames of 1024 x 1024 px with 300 objects, volumes of 512^3)::

    OPERANDOSEG_BENCHMARK_FRAMES=1000 OPERANDOSEG_BENCHMARK_VOLUME_PX=512 \
        pytest tests/benchmarks/test_metrics_benchmark.py --benchmark-enable --benchmark-json=measuring.json

The extra info of the file has the time per frame, and for volumes the peak of resident memory. On a machine that is
shared add ``--benchmark-timer=time.process_time``.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from skimage.measure import label, regionprops_table

from seg.analysis import load_analysis
from seg.io import read_labels
from seg.labels import load_schema
from seg.metrics import facets, shape
from seg.metrics.frame import Frame
from seg.metrics.point_pattern import Window, arrangement_test, clark_evans, mean_neighbour_distance, ripley_l
from seg.metrics.table import Scale
from seg.objects import label_objects
from seg.tabulate import write_tables

FULL = "OPERANDOSEG_BENCHMARK_FRAMES" in os.environ
VOLUME_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_VOLUME_PX", "64"))
SPACING = (0.1, 0.1)
pytestmark = pytest.mark.timeout(7200 if FULL or VOLUME_PX > 128 else 120)

SQUARES: dict[int, float] = {}  # of the sizes of the objects of a volume, as the first contender found them
COMMON = ("counting", "size", "cover", "events", "nucleation", "growth")
PROPERTIES = ("label", "area", "bbox", "centroid", "perimeter_crofton", "axis_major_length", "axis_minor_length")


def per_frame(benchmark, function, n_frames):
    result = benchmark.pedantic(function, rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["ms_per_frame"] = 1e3 * benchmark.stats.stats.min / n_frames
    return result


@pytest.mark.benchmark(group="a series, whole")
class TestSeries:
    def test_reading(self, benchmark, label_file, label_frames):
        frames = per_frame(benchmark, lambda: tifffile.imread(label_file), len(label_frames))
        assert (frames == label_frames).all()

    def test_reading_16_bit_images(self, benchmark, label_frames, tmp_path):
        """The images of such a series, with the noise of a camera: what is read in a run from pixels to numbers."""
        rng = np.random.default_rng(0)
        path = tmp_path / "image.tif"
        with tifffile.TiffWriter(path) as writer:
            for frame in label_frames:
                noisy = (frame * 8000.0 + rng.normal(0, 500, frame.shape)).clip(0, 65535).astype(np.uint16)
                writer.write(noisy, compression="zlib", photometric="minisblack", contiguous=False)

        def read():  # opened once: looking up page 999 of a file anew costs as much as decoding it
            with tifffile.TiffFile(path) as tif:
                return [page.asarray() for page in tif.pages]

        images = per_frame(benchmark, read, len(label_frames))
        assert images[0].shape == label_frames[0].shape

    def test_regionprops_table(self, benchmark, label_frames):
        def measure():
            return [regionprops_table(label(frame == 3), properties=PROPERTIES) for frame in label_frames]

        tables = per_frame(benchmark, measure, len(label_frames))
        assert len(tables[-1]["label"]) == label(label_frames[-1] == 3).max()

    @pytest.mark.parametrize("groups", [COMMON[:3], COMMON], ids=["objects", "objects, tracks and rates"])
    def test_ours(self, benchmark, label_file, label_frames, tmp_path, groups):
        """Everything that `operandoseg measure` does but the report: reading, objects, metrics, tables on disk."""
        config = load_analysis("optical-plan")
        config = replace(config, metrics={name: config.metrics[name] for name in groups})
        benchmark.extra_info["groups"] = groups

        def measure():
            segmentation = read_labels(label_file, default_schema=load_schema("lithium"))
            write_tables(segmentation, None, tmp_path, config, source=label_file)

        per_frame(benchmark, measure, len(label_frames))
        lines = (tmp_path / "objects.csv").read_text().count("\n") - 1
        assert lines == sum(label(frame == 3).max() for frame in label_frames)


@pytest.fixture(scope="module")
def frame(label_frames):
    labels, scale = label_frames[-1], Scale(SPACING)
    found = Frame(labels, load_schema("lithium"), scale, object_classes=("deposit",), min_diameter_px=4)
    return replace(found, instances=label_objects(labels == 3, scale=scale, min_diameter_px=4))


@pytest.mark.benchmark(group="shape of every object of a frame")
class TestShape:
    def test_scikit_image(self, benchmark, frame):
        def measure():
            return regionprops_table(
                frame.instances, properties=("solidity", "feret_diameter_max"), spacing=SPACING
            )  # fmt: skip

        assert len(benchmark.pedantic(measure, rounds=1)["solidity"]) == frame.instances.max()

    def test_ours(self, benchmark, frame):
        rows = benchmark.pedantic(lambda: shape.measure_frame(replace(frame)), rounds=1)
        objects = [row for row in rows if row.metric == "solidity" and row.object_id is not None]
        assert len(objects) == frame.instances.max()

    def test_facets(self, benchmark, frame):
        rows = benchmark.pedantic(lambda: facets.measure_frame(replace(frame)), rounds=1)
        assert len([row for row in rows if row.metric == "facet_count"]) == frame.instances.max()


N_POINTS, SIDE, SIMULATIONS, FIELDS = 300, 100.0, 199 if FULL else 9, 40 if FULL else 4


@pytest.fixture(scope="module")
def fields():
    return np.random.default_rng(0).uniform(0, SIDE, (FIELDS, N_POINTS, 2))


@pytest.mark.benchmark(group="arrangement of 300 points, 199 simulations")
class TestArrangement:
    """Ripley's function at 20 radii with an envelope of random points; Clark and Evans' mean distance.

    The extra info has the mean of K(r) / (pi r^2) at the largest radius over random fields: 1 without bias.
    """

    @pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own libraries
    def test_pointpats(self, benchmark, fields):
        pointpats = pytest.importorskip("pointpats")
        radii = np.linspace(0, SIDE / 4, 21)

        def measure():
            found = pointpats.k_test(fields[0], support=radii, n_simulations=SIMULATIONS, n_jobs=1,
                                     keep_simulations=True)  # fmt: skip
            return pointpats.PointPattern(fields[0]).mean_nnd, found

        mean, found = benchmark.pedantic(measure, rounds=1)
        ratios = [pointpats.k(points, support=radii)[1][-1] / (np.pi * radii[-1] ** 2) for points in fields]
        benchmark.extra_info |= {"k_over_csr": float(np.mean(ratios))}
        assert mean == pytest.approx(mean_neighbour_distance(fields[0])[0], rel=1e-12)
        # Without edge correction it counts the same pairs: ours, of a window without edges, is theirs.
        pairs = np.linalg.norm(fields[0][:, None] - fields[0], axis=2) <= radii[-1]
        assert found.statistic[-1] == pytest.approx(SIDE**2 * (pairs.sum() - N_POINTS) / N_POINTS**2, rel=0.05)

    def test_ours(self, benchmark, fields):
        window = Window(np.ones((200, 200), bool), (SIDE / 200,) * 2)
        rng = np.random.default_rng(1)

        def measure():
            ratio, _, _ = clark_evans(fields[0], window, rng=rng)
            return ratio, arrangement_test(fields[0], window, rng=rng, n_simulations=SIMULATIONS, n_radii=20)

        _, (radii, _, _) = benchmark.pedantic(measure, rounds=1)
        ratios = [((ripley_l(points, window, radii) + radii)[-1] / radii[-1]) ** 2 for points in fields]
        benchmark.extra_info |= {"k_over_csr": float(np.mean(ratios))}
        # The standard error of the mean over the fields is about 0.02 / sqrt(fields).
        assert np.mean(ratios) == pytest.approx(1, abs=0.05)


# Each case in a process of its own, for the peak of its memory. Balls of 4 to 9 voxels on a jittered grid.
VOLUME = """
import json, sys, time
import numpy as np
who, n = sys.argv[1], int(sys.argv[2])
rng = np.random.default_rng(0)
mask = np.zeros((n, n, n), bool)
across = n // 24
for corner in np.ndindex(across, across, across):
    z, y, x = (np.array(corner) + 0.5) * n / across + rng.uniform(-2, 2, 3)
    at = [np.arange(max(0, int(c) - 10), min(n, int(c) + 11)) for c in (z, y, x)]
    ball = (at[0][:, None, None] - z) ** 2 + (at[1][:, None] - y) ** 2 + (at[2] - x) ** 2 <= rng.uniform(4, 9) ** 2
    mask[tuple(slice(a[0], a[-1] + 1) for a in at)] |= ball
if who == "ours":
    from seg.labels import load_schema
    from seg.metrics.frame import Frame
    from seg.metrics.table import Scale
    from seg.objects import label_objects, object_table
    schema, scale = load_schema("lithium"), Scale((0.5, 0.5, 0.5))
    labels = np.where(mask, np.uint8(schema.index("void")), np.uint8(schema.index("separator")))
elif who == "cc3d":
    import cc3d
else:
    from skimage.measure import label, regionprops_table
start, cpu = time.perf_counter(), time.process_time()
if who == "ours":
    instances = label_objects(mask, scale=scale, split_touching=False)
    table = object_table(Frame(labels, schema, scale, instances=instances, object_classes=("void",)))
    found, sizes = len(table), table["volume_um3"] / 0.5**3
elif who == "cc3d":
    statistics = cc3d.statistics(cc3d.connected_components(mask, connectivity=26))
    sizes = statistics["voxel_counts"][1:]
    found = len(sizes)
else:
    properties = ("label", "area", "bbox", "centroid", "axis_major_length", "axis_minor_length")
    sizes = regionprops_table(label(mask), properties=properties)["area"]
    found = len(sizes)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
print(json.dumps({"seconds": seconds, "cpu_s": cpu, "peak_mb": peak, "objects": found,
                  "squares": float((np.asarray(sizes, float) ** 2).sum())}))
"""


@pytest.mark.benchmark(group=f"objects of a volume of {VOLUME_PX}^3")
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("who", ["scikit-image", "cc3d", "ours"])
def test_volume(benchmark, who):
    """Ours also gives axes and surface of every object, scikit-image no surface, cc3d sizes, boxes and centroids only.

    The sums of the squares of the sizes have to agree between all.
    """
    if who == "cc3d":
        pytest.importorskip("cc3d")
    command = [sys.executable, "-c", VOLUME, who, str(VOLUME_PX)]
    done = benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True, text=True), rounds=1)
    benchmark.extra_info |= json.loads(done.stdout)
    assert benchmark.extra_info["objects"] == (VOLUME_PX // 24) ** 3
    assert SQUARES.setdefault(VOLUME_PX, benchmark.extra_info["squares"]) == benchmark.extra_info["squares"]
