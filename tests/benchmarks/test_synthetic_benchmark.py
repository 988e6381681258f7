"""Time and memory to draw 100 frames of 1024 x 1024 of every family in the plane, and a volume of 512^3.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_SYNTHETIC=full pytest tests/benchmarks/test_synthetic_benchmark.py \
        --benchmark-enable --benchmark-json=drawing.json

Every case runs in a process of its own; its times and its peak of resident memory are the extra info of the file.
"""

import json
import os
import subprocess
import sys

import pytest

from seg.synthetic import FAMILIES

FULL = os.environ.get("OPERANDOSEG_BENCHMARK_SYNTHETIC") == "full"
FRAMES, SIZE_PX, VOLUME_PX = (100, 1024, 512) if FULL else (4, 160, 64)
DRAW = """
import json, sys, time
from seg.synthetic import make_experiment
family, options = sys.argv[1], {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[2]).items()}
start = time.perf_counter()
made = make_experiment(family, 1, **options)
scene_s = time.perf_counter() - start
pixels = 0
for k in range(made.images.shape[0]):
    pixels += made.images.data[k].size
    made.labels.data[k], made.instances.data[k]
# Not ru_maxrss: it starts from what the parent held when it made this process.
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
print(json.dumps({"scene_s": scene_s, "all_s": time.perf_counter() - start, "peak_mb": peak, "pixels": pixels}))
"""

pytestmark = [
    pytest.mark.benchmark(group=f"draw {FRAMES} frames of {SIZE_PX}^2 px, or a volume of {VOLUME_PX}^3"),
    pytest.mark.timeout(3600 if FULL else 120),
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc"),
]


@pytest.mark.parametrize("family", FAMILIES if FULL else ["nucleation", "interface"])
def test_drawing(benchmark, family):
    options = (
        {"shape_px": [VOLUME_PX] * 3} if family == "interface" else {"shape_px": [SIZE_PX] * 2, "n_frames": FRAMES}
    )
    if family == "interface" and not FULL:
        options |= {"void_radius_um": 2.6, "filament_width_um": 2.0, "n_filaments": 1}
    command = [sys.executable, "-c", DRAW, family, json.dumps(options)]

    def draw():
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    found = benchmark.pedantic(draw, rounds=1)
    benchmark.extra_info |= found
    assert found["pixels"] == (VOLUME_PX**3 if family == "interface" else FRAMES * SIZE_PX**2)
    # bounded: well under the images, labels and instances of a whole volume or series (4 bytes a pixel) at full size
    assert found["peak_mb"] < (1000 if FULL else 400)
