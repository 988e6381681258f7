"""From the file to the written mask: ours, MONAI (as people run it, or our network), nnU-Net, a loop by hand.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_PX=2048 pytest tests/benchmarks/test_rivals_benchmark.py -s      # two frames of 2048 x 2048
    OPERANDOSEG_BENCHMARK_VOLUME_PX=512 pytest ...                          # a volume of 512^3 with a 3-D network
    OPERANDOSEG_BENCHMARK_NETWORK=small OPERANDOSEG_BENCHMARK_VOLUME_PX=512 pytest ...   # for memory, in minutes

nnU-Net takes part where ``nnunetv2`` is installed. Each contender is a process of its own, so that none profits from
what another one loaded, and its peak of memory is its own. Compare processor seconds on a machine that others use too.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile

SIZE_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_PX", "128"))
VOLUME_PX = int(os.environ.get("OPERANDOSEG_BENCHMARK_VOLUME_PX", "32"))
FULL = {2: "OPERANDOSEG_BENCHMARK_PX" in os.environ, 3: "OPERANDOSEG_BENCHMARK_VOLUME_PX" in os.environ}
# Each process loads torch, which takes longer than the tiny sizes themselves.
CONTENDERS = ("ours", "monai-fast", "monai", "hand") if any(FULL.values()) else ("ours", "monai-fast")
if any(FULL.values()) and find_spec("nnunetv2"):
    CONTENDERS = (*CONTENDERS, "nnunet")
THREADS = os.environ.get("OMP_NUM_THREADS", "1")

pytestmark = [pytest.mark.timeout(7200), pytest.mark.slow]


def frames() -> np.ndarray:
    """Two frames of smooth blobs and noise, a little different from each other."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    blobs = ndimage.zoom(ndimage.gaussian_filter(rng.random((SIZE_PX // 4,) * 2), 3), 4, order=1)
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    both = [np.roll(blobs, 17 * t, 0) * 50000 + rng.normal(0, 1500, blobs.shape) for t in range(2)]
    return np.clip(both, 0, 65535).astype(np.uint16)


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60000, (VOLUME_PX,) * 3).astype(np.uint16)


def model(folder: Path, dims: int, full: bool) -> Path:
    """The architecture of the shipped model with random weights; a small one unless figures are wanted."""
    import torch

    from seg.labels import load_schema
    from seg.models.bundle import ModelSpec, save_bundle
    from seg.models.unet import UNet

    torch.manual_seed(0)
    sizes = {"width": 24, "depth": 4} if dims == 2 else {"width": 16, "depth": 2}
    arguments = {"n_classes": 5, "dims": dims, **(sizes if full else {"width": 8, "depth": 1})}
    network = UNet(**arguments)
    for _ in range(5):
        network(torch.rand(2, 1, *(32,) * dims))
    spec = ModelSpec(
        "random", "unet", arguments, load_schema().to_dict(), (1, 2, 3, 4, 10), dims=dims, modalities=("optical",)
    )
    return save_bundle(folder / "model", network, spec, "# Random", seed=1)


def contend(contender: str, image: Path, folder: Path, out: Path) -> dict[str, float]:
    script = Path(__file__).with_name("rivals.py")
    result = subprocess.run(
        [sys.executable, str(script), contender, str(image), str(folder), str(out)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": THREADS},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def mask(contender: str, out: Path) -> np.ndarray:
    if contender != "ours":
        return tifffile.imread(out.with_suffix(".tif"))
    from seg.io import read_labels
    from seg.masks import labels_of

    return np.asarray(read_labels(labels_of(out / "image")).stack.data[...])


@pytest.mark.parametrize("dims", [dims for dims in (2, 3) if FULL[dims] or (dims == 2 and not any(FULL.values()))])
def test_rivals(dims, tmp_path, capsys):
    pytest.importorskip("monai.inferers", exc_type=ImportError)
    data = frames() if dims == 2 else volume()
    full = max(data.shape) >= 256
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, data, imagej=True, metadata={"axes": "TYX" if dims == 2 else "ZYX"})
    folder = model(tmp_path, dims, full and os.environ.get("OPERANDOSEG_BENCHMARK_NETWORK") != "small")
    found, masks = {}, {}
    for contender in CONTENDERS:
        out = tmp_path / contender
        found[contender] = contend(contender, image, folder, out)
        masks[contender] = mask(contender, out).reshape(data.shape)
    with capsys.disabled():
        sys.stdout.write(f"\n{' x '.join(map(str, data.shape))} px, {THREADS} thread(s)\n" + table(found, data.size))
    # The tiles of MONAI have no true context at their borders, and random weights make near ties of many pixels.
    least = 0.97 if full else 0.8
    for contender in CONTENDERS[1:]:
        assert (masks["ours"] == masks[contender]).mean() > least, contender


def table(found: dict[str, dict[str, float]], pixels: int) -> str:
    lines = ["contender      s    CPU s  Mpx/CPU s  peak MiB  beyond start MiB"]
    for name, f in found.items():
        rate = pixels / 1e6 / f["cpu_seconds"]
        beyond = f["peak_mib"] - f["before_mib"]
        lines.append(
            f"{name:10s} {f['seconds']:6.1f} {f['cpu_seconds']:8.2f} {rate:10.2f} {f['peak_mib']:9.0f} {beyond:17.0f}"
        )
    return "\n".join(lines) + "\n"
