"""A volume on disk is measured under a memory limit that its labels in memory would break, with the same numbers."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from seg.metrics import balance, dead, layers, voids
from seg.metrics.frame import Frame
from seg.metrics.table import Scale

SHAPE, SPACING = (400, 96, 80), (0.5, 0.4, 0.6)

CHILD = """
import json, resource, sys
import numpy as np
from scipy import ndimage, sparse, spatial
from skimage.measure import marching_cubes
import seg.blocks, seg.metrics.mesh
from seg.labels import load_schema
from seg.metrics import balance, dead, layers, voids
from seg.metrics.frame import Frame
from seg.metrics.table import Scale

path, spacing, slab_voxels, extra = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
labels = np.load(path, mmap_mode="r")
frame = Frame(labels, load_schema("lithium"), Scale(tuple(spacing)))
seg.blocks.SLAB_VOXELS = seg.metrics.mesh.CHUNK_VOXELS = slab_voxels
# Warm up: modules that load late, tables that stay.
small = Frame(labels[120:150, :40, :40], frame.schema, frame.scale)
groups = (voids, dead, layers, balance)
for group in groups:
    group.measure_frame(small)
np.linalg.svd(np.random.default_rng(0).random((400, 3)) @ np.eye(3), full_matrices=False)
np.linalg.lstsq(np.random.default_rng(0).random((9000, 3)), np.ones(9000))
with open("/proc/self/status") as file:
    used = next(int(line.split()[1]) for line in file if line.startswith("VmData")) * 1024
# Memory of the process itself; the map of the file does not count, as it would not on a full machine.
resource.setrlimit(resource.RLIMIT_DATA, (used + extra, used + extra))
try:
    ndimage.label(labels == 3)
    whole = "fits"
except MemoryError:
    whole = "MemoryError"
rows = [[m.metric, m.object_id, m.side, m.method, m.value] for g in groups for m in g.measure_frame(frame)]
print(json.dumps({"whole": whole, "rows": rows}))
"""


def cell(shape=SHAPE):
    """Separator, metal with caps on its face and balls inside, dead balls in the separator, collector."""
    rng = np.random.default_rng(5)
    size = np.array(shape) * SPACING
    z, y, x = (np.arange(n) * s for n, s in zip(shape, SPACING, strict=True))
    labels = np.full(shape, 9, np.uint8)
    labels[z[:, None, None] >= 0.45 * size[0] + 2 * np.sin(y / 9)[:, None] + 0.02 * x] = 3
    labels[z >= 0.9 * size[0]] = 2
    for value, inside, low, high, n in ((7, 3, 0.43, 0.5, 10), (7, 3, 0.58, 0.82, 10), (5, 9, 0.08, 0.32, 8)):
        for _ in range(n):
            centre = (rng.uniform(low, high) * size[0], *rng.uniform(6, size[1:] - 6))
            box = tuple(slice(int((c - 5) / s), int((c + 5) / s)) for c, s in zip(centre, SPACING, strict=True))
            near = np.ix_(*(a[b] - c for a, b, c in zip((z, y, x), box, centre, strict=True)))
            ball = sum(a**2 for a in near) < rng.uniform(3, 4.5) ** 2
            part = labels[box]
            part[ball & (part == inside)] = value
    return labels


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on private memory is one of Linux")
def test_a_volume_larger_than_the_memory_limit(schema, tmp_path):
    labels = cell()
    path = tmp_path / "labels.npy"
    np.save(path, labels)
    frame = Frame(labels, schema, Scale(SPACING))
    expected = [
        [m.metric, m.object_id, m.side, m.method, m.value]
        for group in (voids, dead, layers, balance)
        for m in group.measure_frame(frame)
    ]
    # The numbers of the regions alone take 4 bytes a voxel, 12 MB, and a mask 3 more; slabs of two slices do with 8.
    limits = (json.dumps(SPACING), str(2 * labels[0].size), str(8 << 20))
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(path), *limits],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["whole"] == "MemoryError"
    assert [row[:4] for row in found["rows"]] == [row[:4] for row in expected]
    for (metric, *_, value), (*_, wanted) in zip(found["rows"], expected, strict=True):
        # Counts are equal; areas of meshes are summed over chunks of other sizes.
        exact = not metric.startswith(("interface", "developed", "specific"))
        assert value == pytest.approx(wanted, rel=0 if exact else 1e-6, abs=0, nan_ok=True), metric
