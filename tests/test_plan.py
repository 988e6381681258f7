"""What is planned is kept: memory of long series and of volumes larger than the memory allowed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seg import plan
from seg.inference import InferenceSettings, parts_of
from seg.io.arrays import MAPPED_BYTES, LazyArray
from seg.plan import Plan, memory_limit_bytes, plan_segmentation, resident_bytes
from seg.runner import Runner
from seg.stack import Stack

sys.path.insert(0, str(Path(__file__).parent))
from test_inference import FLAT, SOLID

CPU = InferenceSettings(device="cpu")


class Unread:
    """A stack whose pixels nobody may ask for: planning is from sizes."""

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, np.dtype(dtype)


def planned(axes, shape, dtype="uint16", bundle=FLAT, settings=CPU, **options):
    stack, runner = Stack(Unread(shape, dtype), axes), Runner(bundle, settings)
    return plan_segmentation(stack, runner, parts_of(stack, runner), **options)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Plan(2_000_000_000, 3_100_000_000, 720.0), "needs 3.1 GB GPU, 2.0 GB RAM, about 12 min"),
        (Plan(2_000_000_000, 0, None), "needs 2.0 GB RAM, less than a minute"),
        (Plan(2_000_000_000, 0, 3 * 3600.0), "needs 2.0 GB RAM, about 3.0 h"),
    ],
)
def test_is_said_in_a_line(found, text):
    assert str(found) == text


def test_memory_does_not_follow_the_length_and_time_does(monkeypatch):
    monkeypatch.setattr(plan, "_seconds_per_px", lambda runner, longest: 1e-7)
    monkeypatch.setattr(plan, "resident_bytes", lambda: 0)
    # Both longer than what is read back whole.
    short, long = planned("tyx", (2000, 512, 512)), planned("tyx", (20_000, 512, 512))
    assert short.host_bytes == long.host_bytes
    # 512 is a multiple of the tile multiple of 4, and one tile takes a frame: 1e-7 s for each of its pixels.
    assert long.seconds == pytest.approx(20_000 * 512 * 512 * 1e-7)
    assert long.seconds == pytest.approx(10 * short.seconds)


def test_blending_and_joining_cost_memory(monkeypatch):
    monkeypatch.setattr(plan, "resident_bytes", lambda: 0)
    shape = (300, 400, 400)
    exact = planned("zyx", shape, bundle=SOLID, settings=InferenceSettings(tile_px=64, device="cpu"), joined=False)
    chosen = InferenceSettings(tile_px=64, overlap=0.25, device="cpu")
    blended = planned("zyx", shape, bundle=SOLID, settings=chosen, joined=False)
    # Sums of three classes in float32 over a band of 64 planes.
    assert blended.host_bytes - exact.host_bytes >= 4 * 3 * 64 * 400 * 400
    joined = planned("zyx", (3000, 400, 400), bundle=SOLID, settings=InferenceSettings(tile_px=64, device="cpu"))
    assert joined.host_bytes >= 3000 * 400 * 400


def test_pages_of_a_mapped_input_are_planned_for(tmp_path, monkeypatch):
    """All of them where a small input stays mapped, those between two times they are let go of where it is lazy."""
    monkeypatch.setattr(plan, "resident_bytes", lambda: 0)
    np.save(tmp_path / "a.npy", np.zeros((40, 128, 160), np.uint16))
    data = np.load(tmp_path / "a.npy", mmap_mode="r")
    needs = {}
    for kind, held in {
        "memory": np.array(data),
        "mapped": data[:],
        "lazy": LazyArray(data, (0, 1, 2), name="a"),
    }.items():
        stack, runner = Stack(held, "tyx"), Runner(FLAT, CPU)
        needs[kind] = plan_segmentation(stack, runner, parts_of(stack, runner)).host_bytes
    assert needs["mapped"] - needs["memory"] == 40 * 128 * 160 * 2
    assert needs["lazy"] - needs["memory"] == MAPPED_BYTES


def test_a_limit_of_the_shell_is_known(monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**8, 10**9))
    assert memory_limit_bytes() == 10**8
    assert 10**7 < resident_bytes() < 10**11


RUN = """
import json, resource, sys, threading
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_inference import make_bundle
from seg import masks, plan
from seg.analysis import AnalysisConfig
from seg.models.bundle import save_bundle, load_bundle
from seg.pipeline import RunOptions, predict

import torch
torch.set_num_threads(1)
folder, axes, limit_mib = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
bundle = make_bundle(width=4)
model = save_bundle(folder / "model", bundle.network, bundle.spec, "#", seed=1)
config = AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=str(model))
said = []
work_out = plan.plan_segmentation
plan.plan_segmentation = lambda *a, **k: said.append(work_out(*a, **k)) or said[-1]
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
# a first small run loads what is loaded once
np.save(folder / "small.npy", np.random.default_rng(0).integers(0, 255, (2, 64, 64)).astype(np.uint8))
predict([folder / "small.npy"], config, folder / "out", RunOptions(device="cpu", axes=axes))
if limit_mib:
    limit = status("VmData") + limit_mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
before, own, done = status("VmRSS"), status("RssAnon"), threading.Event()
peaks = [own]
def watch():
    while not done.wait(0.01):
        peaks.append(max(peaks.pop(), status("RssAnon")))
watcher = threading.Thread(target=watch)
watcher.start()
(result,) = predict([folder / "input.npy"], config, folder / "out", RunOptions(device="cpu", axes=axes))
done.set()
watcher.join()
assert not result.error, result.error
print(json.dumps({"planned": said[-1].host_bytes, "before": before, "taken": peaks[0] - own,
                  "peak": status("VmHWM")}))
"""


def run(folder: Path, axes: str, limit_mib: int = 0) -> dict[str, int]:
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(folder), axes, str(limit_mib)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def sparse(path: Path, shape: tuple[int, ...]) -> None:
    """A file of zeros that takes no disk, with a stripe of values in some planes."""
    data = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=shape)
    for n in np.linspace(0, shape[0] - 1, 8).astype(int):
        data[n, ::3, 5:50] = 1000 + n
    data.flush()


FULL = bool(os.environ.get("OPERANDOSEG_LARGE"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and counters of other systems differ")
def test_a_volume_larger_than_the_memory_allowed(tmp_path):
    """The file is mapped and 600 MiB (full: 8 GiB) long; 400 MiB may be taken beyond what the libraries hold."""
    sparse(tmp_path / "input.npy", (4096 if FULL else 300, 1024, 1024))
    found = run(tmp_path, "zyx", limit_mib=400)
    assert found["taken"] < 400 * 2**20
    # Mapped pages of the input count as resident too, although they give way: they are let go of as it is read.
    assert found["peak"] - found["before"] < 400 * 2**20
    assert found["peak"] < found["planned"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and counters of other systems differ")
def test_the_plan_of_a_long_series_is_kept(tmp_path):
    """300 (full: 5000) small frames."""
    sparse(tmp_path / "input.npy", (5000 if FULL else 300, 128, 160))
    found = run(tmp_path, "tyx")
    # The input is small enough to stay mapped as a whole, and the masks to be read back whole: both grow with it.
    assert found["peak"] < found["planned"] < 1.2 * found["peak"]


SHORT = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
from test_inference import make_bundle
from seg.memory import _status
from seg.preprocess import SeriesNormalisation
from seg.runner import InferenceSettings, Runner
from seg.strips import label_planes

torch.set_num_threads(1)
bundle, image = make_bundle(width=64, depth=1), np.random.default_rng(0).random((1, 100, 3000), dtype=np.float32)
shapes = {"strips": image, "tiles": image[:, :80]}
def masks(limit):
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    runners = {name: Runner(bundle, InferenceSettings(device="cpu", precision="fp32")) for name in shapes}
    found = {name: label_planes(shapes[name], runner, SeriesNormalisation(0, 1)) for name, runner in runners.items()}
    return found, {name: runner.backed_off for name, runner in runners.items()}
found, said = masks(_status(Path("/proc/self/status"))["VmData"] + 140 * 2**20)
expected, nothing = masks(resource.RLIM_INFINITY)
equal = {name: float((found[name][0] == expected[name][0]).mean()) for name in shapes}
print(json.dumps({"said": said, "nothing": nothing, "equal": equal}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of other systems differ")
def test_a_run_that_backs_off_is_saved():
    """The network wants 200 MiB of 140 that the shell leaves; what refused attempts had must come back."""
    command = [sys.executable, "-c", SHORT, str(Path(__file__).parent)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert "rows of 3000 px" in found["said"]["strips"][0]
    assert "tiles of half of 80 x 3000 px" in found["said"]["tiles"][0]
    assert found["nothing"] == {"strips": [], "tiles": []}
    # Narrower tiles may be summed by another kernel: near ties may differ.
    assert found["equal"]["strips"] == 1.0
    assert found["equal"]["tiles"] > 0.9995
