"""From the file to the written mask: ours, MONAI (as people run it, or our network), nnU-Net, a loop by hand.

Tiny by default so that it cannot rot. For figures::

    OPERANDOSEG_BENCHMARK_PX=2048 pytest tests/benchmarks/test_rivals_benchmark.py -s      # two frames of 2048 x 2048
    OPERANDOSEG_BENCHMARK_VOLUME_PX=512 pytest ...                          # a volume of 512^3 with a 3-D network
    OPERANDOSEG_BENCHMARK_NETWORK=small OPERANDOSEG_BENCHMARK_VOLUME_PX=512 pytest ...   # for memory, in minutes

nnU-Net takes part where ``nnunetv2`` is installed. Each contender is a process of its own, so that none profits from
what another one loaded, and its peak of memory is its own. Compare processor seconds on a machine that others use too.

Masks are compared with those of the float32 network on the whole frame. The network sees 107 px to each side; MONAI's
windows have no true context at their edges, which costs one pixel in fourteen there. Between these edges all agree.
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
if FULL[2]:
    CONTENDERS = (*CONTENDERS, "ours-auto", "whole")
if any(FULL.values()) and find_spec("nnunetv2"):
    CONTENDERS = (*CONTENDERS, "nnunet")
sys.path.insert(0, str(Path(__file__).parent))
from rivals import ROI_PX  # noqa: E402

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
    from seg.models.bundle import save_bundle
    from seg.models.spec import ModelSpec
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
    if not contender.startswith("ours"):
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
    # Random weights make near ties of many pixels, which rounding decides.
    least = 0.97 if full else 0.8
    seen = with_context(data.shape[-dims:], dims, reach_px(folder))
    for contender in CONTENDERS[1:]:
        # nnU-Net gives the edges of its tiles next to no weight: it must agree everywhere.
        where = ... if contender == "nnunet" else (..., seen)
        assert (masks["ours"][where] == masks[contender][where]).mean() > least, contender
    if "whole" in masks:
        right = {name: (found == masks["whole"]).mean() for name, found in masks.items() if name != "whole"}
        with capsys.disabled():
            sys.stdout.write("same class as the float32 network on the whole frame: ")
            sys.stdout.write(", ".join(f"{name} {share:.4f}" for name, share in right.items()) + "\n")
        assert right["ours"] > least
        # Of those in half precision none is nearer to it.
        assert right["ours"] >= right["monai-fast"]


def twin() -> np.ndarray:
    """Two frames of plan-view nucleation as the sample that ships shows it, on more of its foil."""
    from seg.synthetic import SAMPLES, make_experiment

    family, seed, options = SAMPLES["optical"]
    stack = make_experiment(family, seed, **{**options, "shape_px": (SIZE_PX, SIZE_PX)}).images
    return np.stack([stack.frame(t) for t in (stack.n_frames // 2, stack.n_frames - 1)])


@pytest.mark.skipif(not FULL[2], reason="a figure of full frames: set OPERANDOSEG_BENCHMARK_PX")
def test_a_trained_model_on_images_that_it_knows(tmp_path, capsys):
    """What people have: the arithmetic is what the product decides by itself."""
    pytest.importorskip("monai.inferers", exc_type=ImportError)
    from seg.models.bundle import model_path

    data, image, folder = twin(), tmp_path / "image.tif", Path(model_path("optical-2d"))
    tifffile.imwrite(image, data, imagej=True, metadata={"axes": "TYX"})
    found = {name: contend(name, image, folder, tmp_path / name) for name in ("ours-auto", "monai-fast", "monai")}
    made = json.loads((tmp_path / "ours-auto" / "image" / ".work" / "made.json").read_text(encoding="utf-8"))
    masks = {name: mask(name, tmp_path / name).reshape(data.shape) for name in found}
    seen = with_context(data.shape[-2:], 2, reach_px(folder))
    same = {name: float((masks["ours-auto"] == other)[..., seen].mean()) for name, other in masks.items()}
    with capsys.disabled():
        sys.stdout.write(f"\ntrained on such images, decided by itself: {made['precision']}\n")
        sys.stdout.write(table(found, data.size) + f"same class as ours between the edges of windows: {same}\n")
    assert min(same.values()) > 0.99


def reach_px(model: Path) -> int:
    from seg.models.bundle import load_bundle

    return load_bundle(model).network.halo_px


def with_context(shape: tuple[int, ...], dims: int, reach: int) -> np.ndarray:
    """Pixels whose surroundings lie in every window of MONAI's that covers them; bool, of `shape`."""
    whole = np.ones(shape, bool)
    for axis, length in enumerate(shape):
        roi = min(ROI_PX[dims], length)
        step = max(int(roi * 0.75), 1)
        place, inside = np.arange(length), np.ones(length, bool)
        for start in sorted({min(s, length - roi) for s in range(0, length - roi + step, step)}):
            stop = start + roi
            covered = (place >= start) & (place < stop)
            short = (place - start < reach) & (start > 0) | (stop - 1 - place < reach) & (stop < length)
            inside &= ~(covered & short)
        whole &= inside.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return whole


def test_pixels_with_context_are_those_between_the_edges_of_windows():
    """Windows of 512 px start every 384 px: where two overlap by 128 px, one of the edges is within 107 px."""
    between = with_context((2048, 600), 2, 107)
    assert between.mean() == pytest.approx((1 - 4 * 128 / 2048) * (1 - 2 * 107 / 600))
    assert with_context((128, 100), 2, 107).all()


def table(found: dict[str, dict[str, float]], pixels: int) -> str:
    lines = ["contender      s    CPU s  Mpx/CPU s  peak MiB  beyond start MiB"]
    for name, f in found.items():
        rate = pixels / 1e6 / f["cpu_seconds"]
        beyond = f["peak_mib"] - f["before_mib"]
        lines.append(
            f"{name:10s} {f['seconds']:6.1f} {f['cpu_seconds']:8.2f} {rate:10.2f} {f['peak_mib']:9.0f} {beyond:17.0f}"
        )
    return "\n".join(lines) + "\n"
