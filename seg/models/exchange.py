"""A model for other programs: ONNX, torch.export, bioimage.io; each read back and compared before it is kept."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

from seg import __version__
from seg.errors import ModelError, UsageError
from seg.models.bundle import SELFTEST, SELFTEST_TOLERANCE, Bundle

logger = logging.getLogger(__name__)

OPSET = 18
ONNX, TORCH, RDF = "model.onnx", "model.pt2", "rdf.yaml"


def export_torch(bundle: Bundle, path: str | Path) -> Path:
    """Write ``model.pt2`` (torch.export, for ``torch.export.load``) to the folder `path`, checked for equality.

    Input: normalised intensities (B, 1, [Z,] Y, X), float32, any batch, spatial sizes that are multiples of the tile
    multiple. Output: logits (B, K, [Z,] Y, X).
    """
    import torch

    def write(folder: Path) -> None:
        program = _program(bundle)
        torch.export.save(program, folder / TORCH)
        read = torch.export.load(folder / TORCH).module()
        _compare(bundle, lambda image: read(torch.from_numpy(image)).detach().numpy(), "torch.export")

    return _write_folder(bundle, Path(path), write)


def export_onnx(bundle: Bundle, path: str | Path) -> Path:
    """Write ``model.onnx`` to the folder `path`, run it with ONNX Runtime and compare.

    Inputs and outputs as in `export_torch`; their names are ``image`` and ``logits``.
    """
    return _write_folder(bundle, Path(path), lambda folder: _write_onnx(bundle, folder))


def export_bioimageio(bundle: Bundle, path: str | Path) -> Path:
    """Write a bioimage.io model package (format 0.5, ONNX weights, test tensors, card) to the folder `path`.

    The description is validated with ``bioimageio.spec``, weights as in `export_onnx`.
    """
    _needed("bioimageio.spec")
    import torch

    def write(folder: Path) -> None:
        _write_onnx(bundle, folder)
        image = _large_enough(bundle)
        with torch.inference_mode():
            logits = copy.deepcopy(bundle.network).cpu()(torch.from_numpy(image)).numpy()
        np.save(folder / "test_input.npy", image)
        np.save(folder / "test_output.npy", logits)
        (folder / "README.md").write_text(bundle.card, encoding="utf-8")
        (folder / RDF).write_text(yaml.safe_dump(_description(bundle, folder), sort_keys=False), encoding="utf-8")
        _validate(folder / RDF)

    return _write_folder(bundle, Path(path), write)


FORMATS: dict[str, Callable[[Bundle, str | Path], Path]] = {
    "onnx": export_onnx,
    "torch": export_torch,
    "bioimageio": export_bioimageio,
}


def _program(bundle: Bundle):  # noqa: ANN202
    """The network as an exported program, batch and spatial sizes left open."""
    import torch

    network = copy.deepcopy(bundle.network).cpu().float().eval().requires_grad_(False)
    multiple = network.tile_multiple
    image = torch.from_numpy(_selftest(bundle)[0]).repeat(2, 1, *(1,) * network.dims)
    axes = "zyx"[-network.dims :]
    sizes = {n: multiple * torch.export.Dim(f"tiles_{axis}", min=1, max=4096) for n, axis in enumerate(axes, start=2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own private interfaces
        return torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch", min=1), **sizes},))


def _write_onnx(bundle: Bundle, folder: Path) -> None:
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _program(bundle), (), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=["logits"],
            verbose=False,
        )  # fmt: skip
        program.save(folder / ONNX, external_data=False)
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    _compare(bundle, lambda image: session.run(["logits"], {"image": image})[0], "ONNX")


def _compare(bundle: Bundle, run: Callable[[np.ndarray], np.ndarray], name: str) -> None:
    """ModelError unless `run` gives the logits of the network, on the self-test image and on one of another size."""
    import torch

    image, expected = _selftest(bundle)
    wide = np.concatenate([image, image[..., ::-1]], axis=-1)
    wide = np.concatenate([wide, 1 - wide, 0.5 * wide]).astype(np.float32)  # another batch, too
    with torch.inference_mode():
        expected_wide = copy.deepcopy(bundle.network).cpu()(torch.from_numpy(wide)).numpy()
    for given, wanted in ((image, expected), (wide, expected_wide)):
        found = run(given)
        difference, allowed = float(np.abs(found - wanted).max()), SELFTEST_TOLERANCE * float(np.abs(wanted).max())
        if not difference <= allowed:
            raise ModelError(
                f"{name} of model {bundle.spec.name!r} gives other values on {given.shape}: {difference:.3g} apart "
                f"(allowed {allowed:.3g}); it was not written."
            )
    logger.info("%s: equal to the network within %.1g of its largest logit", name, SELFTEST_TOLERANCE)


def _selftest(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    with np.load(bundle.path / SELFTEST, allow_pickle=False) as saved:
        return saved["image"].astype(np.float32), saved["logits"].astype(np.float32)


def _write_folder(bundle: Bundle, path: Path, write: Callable[[Path], None]) -> Path:
    """Make the files in a folder beside `path` and rename it into place, all or nothing."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UsageError(f"{path} exists and is not empty; choose another folder.")
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        write(part)
        if path.is_dir():
            path.rmdir()
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _needed(name: str):  # noqa: ANN202
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"This needs the package {name}: pip install 'operandoseg[export]'.") from error


# --- bioimage.io ----------------------------------------------------------------------------------------------------


def _least_px(bundle: Bundle) -> int:
    """Smallest side the format allows: two halos and something between them."""
    multiple = bundle.network.tile_multiple
    return -(-(2 * bundle.network.halo_px + 1) // multiple) * multiple


def _large_enough(bundle: Bundle) -> np.ndarray:
    """The image of the self-test, mirrored until it has the smallest side."""
    image = _selftest(bundle)[0]
    pad = [(0, 0), (0, 0), *((0, max(_least_px(bundle) - n, 0)) for n in image.shape[2:])]
    return np.pad(image, pad, mode="symmetric")


def _description(bundle: Bundle, folder: Path) -> dict:
    """The content of ``rdf.yaml``."""
    spec, network = bundle.spec, bundle.network
    low, high = spec.percentiles
    multiple = network.tile_multiple
    axes = "zyx"[-spec.dims :]
    unit = {} if spec.pixel_size_um is None else {"scale": spec.pixel_size_um, "unit": "micrometer"}
    space = [{"type": "space", "id": a, "size": {"min": _least_px(bundle), "step": multiple}, **unit} for a in axes]
    out_space = [
        {"type": "space", "id": a, "size": {"tensor_id": "image", "axis_id": a}, "halo": network.halo_px, **unit}
        for a in axes
    ]
    return {
        "type": "model",
        "format_version": "0.5.4",
        "name": spec.name,
        "description": f"Masks of {', '.join(spec.class_names)} in microscopy of metal-battery electrodes.",
        "authors": [{"name": "The OperandoSeg developers"}],
        "cite": [{"text": "OperandoSeg", "url": "https://bioimage.io"}],
        "license": "BSD-3-Clause",
        "documentation": "README.md",
        "tags": ["battery", "segmentation", "unet", *spec.modalities],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [
            {
                "id": "image",
                "description": f"one grey channel; percentiles {low:g} and {high:g} of the series become 0 and 1",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["grey"]}, *space],
                "data": {"type": "float32"},
                "test_tensor": _file(folder / "test_input.npy"),
            }
        ],
        "outputs": [
            {
                "id": "logits",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(spec.class_names)}, *out_space],
                "data": {"type": "float32"},
                "test_tensor": _file(folder / "test_output.npy"),
            }
        ],
        "weights": {"onnx": {**_file(folder / ONNX), "opset_version": OPSET}},
        "config": {
            "operandoseg": {
                "version": __version__,
                "weights_sha256": bundle.weights_sha256,
                "temperature": spec.temperature,  # probabilities are the softmax of logits divided by it
            }
        },
    }


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _validate(path: Path) -> None:
    from bioimageio.spec import load_description

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        description = load_description(path)
    summary = description.validation_summary
    if summary.status == "failed":
        errors = "; ".join(f"{'.'.join(map(str, e.loc))}: {e.msg}" for d in summary.details for e in d.errors)
        raise ModelError(f"bioimageio.spec finds the package invalid: {errors}")
