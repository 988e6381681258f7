"""A model on disk: a folder with weights, a specification, a card and a self-test. Nothing in it is unpickled."""

from __future__ import annotations

import copy
import hashlib
import json
import lzma
import math
import os
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seg.errors import ModelError
from seg.labels import LabelSchema
from seg.memory import is_short, require_memory_for_torch
from seg.models import ARCHITECTURES
from seg.models.device import resolve_device
from seg.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS, SPEC, CARD, SELFTEST = "weights.safetensors", "model.json", "card.md", "selftest.npz"
SHIPPED = Path(__file__).parent / "weights"
# Convolutions sum in another order on another machine: float32 logits then differ by about 1e-5 of the largest one.
# Wrong weights or a changed network differ by far more than this.
SELFTEST_TOLERANCE = 2e-3
MAX_SPEC_BYTES = 10 * 2**20
MAX_SELFTEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A loaded model.

    Parameters
    ----------
    spec : ModelSpec
    network : torch.nn.Module
        In evaluation mode, float32.
    path : Path
    weights_sha256 : str
        Of the weights file.
    card : str
        Markdown: data, licence, split, scores, limits.
    """

    spec: ModelSpec
    network: nn.Module
    path: Path
    weights_sha256: str
    card: str


def list_models() -> list[Path]:
    """Folders of the models that ship with the package."""
    return sorted(path.parent for path in SHIPPED.glob(f"*/{SPEC}"))


def find_model(
    name: str | Path, *, modality: str | None = None, pixel_size_um: float | None = None, view: str | None = None
) -> str | Path:
    """`name` itself, or for ``"auto"`` the shipped model for images of a modality and pixel size.

    Of those made for the modality: rather one trained on pixels of that size, or of any; then rather one made for the
    view of the analysis, before one for any, before one for another; then the most special one, for the fewest
    modalities; then the one trained closest to that size, before one trained on any. Images without a pixel size get a
    model that was trained on any, where there is one.
    """
    if str(name) != "auto":
        return name
    specs = {path: read_spec(path) for path in list_models()}
    fitting = [path for path, spec in specs.items() if modality is None or modality in spec.modalities]
    if not fitting:
        known = ", ".join(f"{s.name} ({', '.join(s.modalities)})" for s in specs.values()) or "none"
        raise ModelError(
            f"No shipped model is made for {modality!r} images (there are: {known}); pass --model NAME|DIR."
        )

    def rank(path: Path) -> tuple[bool, int, int, float, str]:
        spec = specs[path]
        trained_um = spec.pixel_size_um
        if pixel_size_um is None or trained_um is None:
            misfit, apart = trained_um is not None, math.inf
        else:
            low, high = spec.pixel_size_range_um or (trained_um / 2, trained_um * 2)
            misfit, apart = not low <= pixel_size_um <= high, abs(math.log(pixel_size_um / trained_um))
        seen = 1 if not spec.views or view is None else 0 if view in spec.views else 2
        return misfit, seen, len(spec.modalities), apart, path.name

    return min(fitting, key=rank)


def model_path(name_or_path: str | Path) -> Path:
    """Folder of a model given by path or by the name of a shipped one; ModelError names the nearest."""
    given = Path(name_or_path)
    if given.is_dir():
        return given
    known = {path.name: path for path in list_models()}
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    if given.exists():
        raise ModelError(f"{given} is a file; a model is the folder that holds {SPEC} and {WEIGHTS}.")
    near = get_close_matches(str(name_or_path), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped models: {', '.join(known) or 'none'}."
    raise ModelError(f"There is no model {str(name_or_path)!r}, neither a folder nor a shipped model; {hint}")


def read_spec(path: Path) -> ModelSpec:
    """The specification of the model in folder `path`; loads no torch."""
    data = _read_json(path)
    data.pop("weights_sha256", None)
    return ModelSpec.from_dict(data, where=str(path / SPEC))


def load_bundle(name_or_path: str | Path, *, device: str = "cpu", schema: LabelSchema | None = None) -> Bundle:
    """Load a model, check it against its self-test and against the classes that are asked for.

    Parameters
    ----------
    name_or_path : str or Path
        A folder, or the name of a shipped model.
    device : str
        ``cpu``, ``cuda``, ``cuda:N`` or ``auto``: where the network is left. The self-test runs on the CPU.
    schema : LabelSchema or None
        Every class of the model must exist in it under the same name and index.

    Raises
    ------
    ModelError
        When a file is missing or damaged, the format or the architecture unknown, the weights do not fit, the
        self-test fails or a class is missing.
    """
    if "torch" not in sys.modules:
        require_memory_for_torch()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    target = resolve_device(device)
    path = model_path(name_or_path)
    spec = read_spec(path)
    for name in (WEIGHTS, CARD, SELFTEST):
        if not (path / name).is_file():
            raise ModelError(f"Model {spec.name!r} is incomplete: {path / name} is missing. Export or copy it again.")
    if schema is not None:
        check_classes(spec, schema)
    sha256 = _sha256(path / WEIGHTS)
    if _read_json(path).get("weights_sha256", sha256) != sha256:
        raise ModelError(f"{path / WEIGHTS} is not the file that {SPEC} was written for; copy the model again.")
    try:
        weights = load_file(path / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path / WEIGHTS} is damaged ({error}); copy the model again.") from error
    network = _build(spec, weights)
    _check_selftest(network, path, spec.name)
    card = (path / CARD).read_text(encoding="utf-8", errors="replace")
    return Bundle(spec, network.to(target), path, sha256, card)


def check_classes(spec: ModelSpec, schema: LabelSchema) -> None:
    """ModelError unless `schema` has every class of the model under the same name and index."""
    for index, name in zip(spec.class_indices, spec.class_names, strict=True):
        known = {c.name: c.index for c in schema.classes}
        if known.get(name) != index:
            found = f"there it is {known[name]}" if name in known else "which does not have it"
            raise ModelError(
                f"Model {spec.name!r} predicts class {name!r} as label value {index} (its schema "
                f"{spec.label_schema.name!r}), which does not fit schema {schema.name!r}: {found}. "
                "Choose another model or the schema it was trained with."
            )


def save_bundle(
    path: str | Path, network: nn.Module, spec: ModelSpec, card: str, *, seed: int, half: bool = False
) -> Path:
    """Write a model folder beside `path` and rename it into place.

    Parameters
    ----------
    path : str or Path
        Folder to make; an older model there is replaced, anything else is refused.
    network : torch.nn.Module
        Left unchanged.
    spec : ModelSpec
    card : str
        Markdown.
    seed : int
        Of the image of the self-test.
    half : bool
        Store the weights of the convolutions rounded to float16: half the size, values changed by up to 0.05 %. The
        self-test is made with the rounded weights, and ``model.json`` says so under ``training``.

    Returns
    -------
    Path
    """
    import torch
    from safetensors.torch import save_file

    path = Path(path)
    network = copy.deepcopy(network).cpu().float().eval()
    weights = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    if half:
        # Kernels only: running variances can lie below the smallest float16.
        weights = {n: t.half() if t.ndim > 1 and t.is_floating_point() else t for n, t in weights.items()}
        spec = ModelSpec.from_dict({**spec.to_dict(), "training": {**spec.training, "weights_rounded_to": "float16"}})
    network = _build(spec, weights)  # what a reader will have: also proves that specification and weights fit
    image = _selftest_image(network, seed)
    with torch.inference_mode():
        logits = network(torch.from_numpy(image)).numpy()
    if not np.isfinite(logits).all():
        raise ModelError(
            f"Model {spec.name!r} gives NaN or infinity on its self-test image; its training has diverged."
        )
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        save_file(weights, part / WEIGHTS)
        np.savez_compressed(part / SELFTEST, image=image, logits=logits)
        (part / CARD).write_text(card, encoding="utf-8")
        data = {**spec.to_dict(), "weights_sha256": _sha256(part / WEIGHTS)}
        (part / SPEC).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        _put_in_place(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def export_bundle(bundle: Bundle, path: str | Path) -> Path:
    """Copy a model to the folder `path`, whole or not at all."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for name in (WEIGHTS, SPEC, CARD, SELFTEST):
            shutil.copyfile(bundle.path / name, part / name)
        _put_in_place(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def _build(spec: ModelSpec, weights: Mapping[str, Tensor]) -> nn.Module:
    """The network of `spec` with `weights`, float32, in evaluation mode."""
    import torch

    if spec.architecture not in ARCHITECTURES:
        near = get_close_matches(spec.architecture, ARCHITECTURES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ARCHITECTURES)}."
        raise ModelError(f"Model {spec.name!r} needs the architecture {spec.architecture!r}, which is unknown; {hint}")
    try:
        # On the meta device nothing is allocated, so that absurd arguments cannot exhaust the memory.
        with torch.device("meta"):
            network = ARCHITECTURES[spec.architecture](**spec.arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"Model {spec.name!r} has arguments its architecture does not take: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        raise ModelError(
            f"The weights of model {spec.name!r} do not fit its architecture: {_first_misfit(expected, found)}"
        )
    if network.dims != spec.dims:
        raise ModelError(f"Model {spec.name!r} says it has {spec.dims} dimensions, its network has {network.dims}.")
    network.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in weights.items()}, assign=True
    )
    return network.eval()


def _first_misfit(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shape, wanted = found.get(name, "none (missing)"), expected.get(name, "no such tensor")
            return f"{name} has shape {shape}, expected {wanted}."
    raise AssertionError("only called where they differ")


def _selftest_image(network: nn.Module, seed: int) -> np.ndarray:
    """Random patches at several scales, about 0..1, shape (1, C, [Z,] Y, X)."""
    rng = np.random.default_rng(seed)
    size = network.tile_multiple * (4 if network.dims == 2 else 2)
    image = np.zeros((network.in_channels, *(size,) * network.dims))
    for step in (1, 4, size // 2):
        cells = rng.random((network.in_channels, *(-(-size // max(step, 1)),) * network.dims))
        for axis in range(1, image.ndim):
            cells = np.repeat(cells, max(step, 1), axis=axis).take(range(size), axis=axis)
        image += cells / 3
    return image[np.newaxis].astype(np.float32)


# What zipfile lets through of the libraries that unpack.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def _check_selftest(network: nn.Module, path: Path, name: str) -> None:
    import torch

    file = path / SELFTEST
    try:
        with zipfile.ZipFile(file) as members:
            declared = sum(member.file_size for member in members.infolist())
        if declared > MAX_SELFTEST_BYTES:
            raise ModelError(f"{file} unpacks to {declared} bytes; a self-test has at most {MAX_SELFTEST_BYTES}.")
        with np.load(file, allow_pickle=False) as saved:
            image, expected = saved["image"], saved["logits"]
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, struct.error, *_DAMAGED) as error:
        raise ModelError(f"The self-test {file} cannot be read ({error}); copy the model again.") from error
    try:
        with torch.inference_mode():
            logits = network(torch.from_numpy(image.astype(np.float32))).numpy()
    except (ValueError, RuntimeError, TypeError) as error:
        if is_short(error):
            raise MemoryError("no room for a self-test image") from error
        raise ModelError(f"Model {name!r} cannot run its self-test image: {error}") from error
    if logits.shape != expected.shape:
        raise ModelError(f"Model {name!r} fails its self-test: output {logits.shape}, expected {expected.shape}.")
    difference = float(np.abs(logits - expected).max())
    allowed = SELFTEST_TOLERANCE * float(np.abs(expected).max())
    if not difference <= allowed:  # NaN fails too
        raise ModelError(
            f"Model {name!r} fails its self-test: its output differs by {difference:.3g} from the recorded one "
            f"(allowed {allowed:.3g}). Its weights or the network's code have changed; do not use it for measuring."
        )


def _read_json(path: Path) -> dict[str, Any]:
    file = path / SPEC
    if not file.is_file():
        raise ModelError(f"{path} is not a model: it has no {SPEC}.")
    if file.stat().st_size > MAX_SPEC_BYTES:
        raise ModelError(f"{file} has {file.stat().st_size} bytes; a model specification has a few thousand.")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ModelError(f"{file} holds no JSON object.")
    return data


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_in_place(part: Path, path: Path) -> None:
    """Rename the finished folder `part` to `path`; a model that is there makes way, anything else is refused."""
    for file in part.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    if path.exists() and not (path / SPEC).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise ModelError(f"{path} exists and is not a model; choose another folder for it.")
    old = part.with_name(part.name + "-old")
    if path.exists():
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)
