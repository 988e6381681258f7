"""One contender, one input, one process: from the file to the written mask, timed and with its peak of memory.

``python rivals.py CONTENDER IMAGE MODEL OUT`` prints JSON: ``seconds`` and ``cpu_seconds`` of reading, computing and
writing (not of imports and of loading the model), ``peak_mib`` of the process, ``before_mib`` of what it held before.

Contenders: ``monai``, the sliding window as people run it (its defaults, float32, the network as it was trained);
``monai-fast``, the same with our fastest form of the network; ``nnunet``, the sliding window of nnU-Net's predictor
(its defaults but no mirroring: half-overlapping tiles under a Gaussian, half-precision sums); ``hand``, a loop over
tiles in float32; ``ours``, in half precision as ``monai-fast``, without the clean-up of masks, which the others do not
have; ``ours-auto``, the same as people run it, which takes float32 for the near ties of random weights; ``whole``, the
float32 network on the whole image at once: what all of them stand for.
"""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROI_PX = {2: 512, 3: 96}


def main(contender: str, image: Path, model: Path, out: Path) -> dict[str, float]:
    import torch

    from seg.models.bundle import load_bundle

    bundle = load_bundle(model)
    if contender.startswith("ours"):
        job = ours(image, model, out, "auto" if contender == "ours-auto" else "bf16")
    else:
        network, dtype = bundle.network, torch.float32
        if contender == "monai-fast":
            from seg.models.device import resolve_precision
            from seg.runner import ready_network

            device = torch.device("cpu")
            ready = ready_network(network, device, resolve_precision("auto", device))
            network, dtype = ready.compute, ready.dtype
        values = bundle.spec.class_indices
        windows = {
            "hand": lambda: hand_window, "nnunet": lambda: nnunet_window(len(values)),
            "whole": lambda: lambda image, roi_px, network: network(image),
        }  # fmt: skip
        job = rival(image, bundle, network, dtype, windows.get(contender, monai_window)(), out)
    before, wall, cpu = peak_mib(), time.perf_counter(), time.process_time()
    job()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak_mib(), "before_mib": before}


def peak_mib() -> float:
    """Peak of this program; ``ru_maxrss`` would begin with what the process that started it held."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def ours(image, model, out, precision):
    from seg.analysis import AnalysisConfig
    from seg.pipeline import RunOptions, predict

    config = AnalysisConfig("predict", "masks only", "", "optical", "plan", {}, model=str(model))

    def job():
        (result,) = predict([image], config, out, RunOptions(device="cpu", precision=precision, postprocess="none"))
        assert not result.error, result.error

    return job


def rival(image, bundle, network, dtype, window, out):
    """What a careful script does: the file in memory, one percentile scale, frame by frame, a compressed TIFF."""
    import tifffile
    import torch

    values = np.array(bundle.spec.class_indices, np.uint8)
    dims = bundle.spec.dims

    def job():
        data = tifffile.imread(image)
        low, high = np.percentile(data.ravel()[:: max(data.size // 2_000_000, 1)], bundle.spec.percentiles)
        masks = []
        for frame in data if data.ndim > dims else data[np.newaxis]:
            scaled = ((frame.astype(np.float32) - low) / (high - low)).clip(-0.5, 1.5)
            with torch.no_grad():
                logits = window(torch.from_numpy(scaled)[None, None].to(dtype), ROI_PX[dims], network)
            masks.append(values[logits[0].argmax(0).numpy()])
        tifffile.imwrite(out.with_suffix(".tif"), np.stack(masks), compression="zlib")

    return job


def monai_window():
    from monai.inferers import sliding_window_inference

    def window(image, roi_px, network):
        roi = tuple(min(roi_px, n) for n in image.shape[2:])
        return sliding_window_inference(image, roi, 4, network)  # overlap 0.25, constant weights: its defaults

    return window


def nnunet_window(n_classes):
    """nnU-Net's own loop over tiles around a network that is not its own."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=n_classes)

    def window(image, roi_px, network):
        roi = [min(roi_px, n) for n in image.shape[2:]]
        predictor.network, predictor.configuration_manager = network, SimpleNamespace(patch_size=roi)
        flat = image.ndim == 4  # nnU-Net takes planes as volumes of one plane
        logits = predictor.predict_sliding_window_return_logits(image[0][:, None] if flat else image[0])
        return (logits[:, 0] if flat else logits)[None]

    return window


def hand_window(image, roi_px, network):
    """Tiles with a quarter of overlap, the later tile wins: what most scripts do."""
    import itertools

    import torch

    shape = image.shape[2:]
    step = roi_px - roi_px // 4
    starts = [sorted({min(s, max(n - roi_px, 0)) for s in range(0, n, step)}) for n in shape]
    total = None
    for place in itertools.product(*starts):
        cut = (..., *(slice(s, s + roi_px) for s in place))
        logits = network(image[cut])
        if total is None:
            total = torch.zeros(1, logits.shape[1], *shape)
        total[cut] = logits
    return total


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], *map(Path, sys.argv[2:5]))))
