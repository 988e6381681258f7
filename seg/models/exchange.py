"""A model for other programs: ONNX, torch.export, bioimage.io; each read back and compared before it is kept."""

from __future__ import annotations

import copy
import hashlib
import json
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
from seg.preprocess import CLIP

logger = logging.getLogger(__name__)

OPSET = 18
ONNX, TORCH, RDF = "model.onnx", "model.pt2", "rdf.yaml"
PROBABILITY_TOLERANCE = 1e-3
_EPS = 1e-6  # the default of bioimage.io where it divides by a range


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

    Inputs and outputs as in `export_torch`; their names are ``image`` and ``logits``. What is needed to use them stands
    in the metadata of the file: classes, percentiles, tile multiple, temperature, pixel size.
    """
    return _write_folder(bundle, Path(path), lambda folder: _write_onnx(bundle, folder))


def export_bioimageio(bundle: Bundle, path: str | Path) -> Path:
    """Write a bioimage.io model package (format 0.5, ONNX weights, test tensors, card) to the folder `path`.

    The package takes raw intensities and gives calibrated probabilities: percentiles and clipping of `seg.preprocess`
    are declared as preprocessing, for each image by itself where we take the whole series; temperature and softmax as
    postprocessing. It is validated with ``bioimageio.spec``, weights as in `export_onnx`.
    """
    _needed("bioimageio.spec")
    import torch

    def write(folder: Path) -> None:
        _write_onnx(bundle, folder)
        raw = np.round(_large_enough(bundle) * 40_000 + 2_000)  # as a 16-bit camera gives it
        low, high = np.percentile(raw, bundle.spec.percentiles)
        image = np.clip((raw - low) / (high - low + _EPS), *CLIP).astype(np.float32)
        with torch.inference_mode():
            logits = copy.deepcopy(bundle.network).cpu()(torch.from_numpy(image))
            probabilities = (logits / bundle.spec.temperature).softmax(dim=1).numpy()
        np.save(folder / "test_input.npy", raw.astype(np.float32))
        np.save(folder / "test_output.npy", probabilities)
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

    for name in ("onnxscript", "onnx_ir"):  # they tell of every node they fold
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _program(bundle), (), dynamo=True, opset_version=OPSET, input_names=["image"], output_names=["logits"],
            verbose=False,
        )  # fmt: skip
        program.model.metadata_props.update(_metadata(bundle))
        program.save(folder / ONNX, external_data=False)
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    _compare(bundle, lambda image: session.run(["logits"], {"image": image})[0], "ONNX")


def _metadata(bundle: Bundle) -> dict[str, str]:
    """What a user of the bare file must know, as JSON values."""
    spec = bundle.spec
    facts = {
        "name": spec.name, "classes": spec.class_names, "class_indices": spec.class_indices,
        "percentiles": spec.percentiles, "clip": CLIP, "tile_multiple": bundle.network.tile_multiple,
        "halo_px": bundle.network.halo_px, "temperature": spec.temperature, "pixel_size_um": spec.pixel_size_um,
        "weights_sha256": bundle.weights_sha256,
    }  # fmt: skip
    return {f"operandoseg.{name}": json.dumps(value) for name, value in facts.items()}


def _compare(bundle: Bundle, run: Callable[[np.ndarray], np.ndarray], name: str) -> None:
    """ModelError unless `run` gives the logits of the network, on the self-test image and on one of another size.

    And its probabilities: where those of several scales are averaged, the logits are logarithms that reach far down,
    and a share of the largest says little of the likely classes.
    """
    import torch

    image, expected = _selftest(bundle)
    wide = np.concatenate([image, image[..., ::-1]], axis=-1)
    wide = np.concatenate([wide, 1 - wide, 0.5 * wide]).astype(np.float32)  # another batch, too
    with torch.inference_mode():
        expected_wide = copy.deepcopy(bundle.network).cpu()(torch.from_numpy(wide)).numpy()
    for given, wanted in ((image, expected), (wide, expected_wide)):
        found = run(given)
        shares = [torch.from_numpy(np.array(logits)).softmax(1).numpy() for logits in (found, wanted)]
        for what, difference, allowed in (
            ("values", float(np.abs(found - wanted).max()), SELFTEST_TOLERANCE * float(np.abs(wanted).max())),
            ("probabilities", float(np.abs(shares[0] - shares[1]).max()), PROBABILITY_TOLERANCE),
        ):
            if not difference <= allowed:
                raise ModelError(
                    f"{name} of model {bundle.spec.name!r} gives other {what} on {given.shape}: {difference:.3g} apart "
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
    from bioimageio.spec.model.v0_5 import ModelDescr

    spec, network = bundle.spec, bundle.network
    low, high = spec.percentiles
    multiple = network.tile_multiple
    axes = "zyx"[-spec.dims :]
    # Of 24 bits, so that the format's check, a size times the scale over the scale, is exact.
    unit = {} if not spec.pixel_size_um else {"scale": float(np.float32(spec.pixel_size_um)), "unit": "micrometer"}
    space = [{"type": "space", "id": a, "size": {"min": _least_px(bundle), "step": multiple}, **unit} for a in axes]
    out_space = [
        {"type": "space", "id": a, "size": {"tensor_id": "image", "axis_id": a}, "halo": network.halo_px, **unit}
        for a in axes
    ]
    # The format refuses steps that change nothing.
    scaled = {"id": "scale_linear", "kwargs": {"gain": 1 / spec.temperature}}
    tempered = [scaled] if spec.temperature != 1 else []
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,  # by which it is validated
        "name": f"OperandoSeg {spec.name}",  # of five letters at least
        "description": f"Masks of {', '.join(spec.class_names)} in microscopy of metal-battery electrodes.",
        "authors": [{"name": "The OperandoSeg developers"}],
        "cite": [{"text": "OperandoSeg", "url": "https://bioimage.io"}],
        "license": "BSD-3-Clause",
        "documentation": _file(folder / "README.md"),
        "tags": ["battery", "segmentation", "unet", *spec.modalities],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [
            {
                "id": "image",
                "description": "one grey channel, raw intensities",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["grey"]}, *space],
                "data": {"type": "float32"},
                "preprocessing": [
                    {
                        "id": "scale_range",
                        "kwargs": {
                            "axes": ["channel", *axes],
                            "min_percentile": low,
                            "max_percentile": high,
                            "eps": _EPS,
                        },
                    },
                    {"id": "clip", "kwargs": {"min": CLIP[0], "max": CLIP[1]}},
                ],
                "test_tensor": _file(folder / "test_input.npy"),
            }
        ],
        "outputs": [
            {
                "id": "probabilities",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(spec.class_names)}, *out_space],
                "data": {"type": "float32"},
                "postprocessing": [*tempered, {"id": "softmax", "kwargs": {"axis": "channel"}}],
                "test_tensor": _file(folder / "test_output.npy"),
            }
        ],
        "weights": {"onnx": {**_file(folder / ONNX), "opset_version": OPSET}},
        "config": {
            "operandoseg": {
                "version": __version__,
                "weights_sha256": bundle.weights_sha256,
                "temperature": spec.temperature,
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
