"""``plan=auto``: look at the data, choose what they decide, and say why in a YAML file that can be edited."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg import __version__
from seg.errors import DataError, SegError, UsageError
from seg.io import open_stack
from seg.labels import load_schema
from seg.modality import modality
from seg.progress import Progress, silent
from training.config import TrainConfig, check_config, nearest_key
from training.label_codes import parse_class_map
from training.sources import all_pairs, listed

logger = logging.getLogger(__name__)

PLAN = "plan.yaml"
BATCH = {2: 8, 3: 2}
SMALL_PATCH_PX = 128  # below it a step costs little, and the network keeps the pixels' own grid
LARGEST_PATCH_PX = {2: 256, 3: 96}
MEMORY_SHARE = 0.5  # of what is free: the data, a second batch and the scores need the rest
BACKWARD_FACTOR = 2.0  # gradients and work space beside what a step keeps for them


@dataclass(frozen=True)
class ImageFacts:
    """What one labelled file says of itself.

    Parameters
    ----------
    shape : tuple of int
        ([Z,] Y, X)
    spacing_um : tuple of float or None
    labelled_px : Counter of str
        Labelled pixels by class; ``"a or b"`` where the label leaves it open.
    n_px : int
        Pixels of the frames that hold labels.
    labelled_planes : float
        Share of the planes of those frames that hold labels.
    modality : str
    """

    shape: tuple[int, ...]
    spacing_um: tuple[float, ...] | None
    labelled_px: Counter[str]
    n_px: int
    labelled_planes: float
    modality: str


@dataclass(frozen=True)
class Decision:
    """One planned value and the reason for it; `key` None is a remark."""

    key: str | None
    value: Any
    reason: str


def planned(
    config: TrainConfig, given: Collection[str], *, keep: bool, progress: Progress = silent
) -> tuple[TrainConfig, str]:
    """The configuration with its plan put in, and the text of the plan.

    Parameters
    ----------
    config : TrainConfig
        With ``plan`` "auto" or the path of a plan file.
    given : collection of str
        Keys the command line sets; they win over the plan.
    keep : bool
        Use the plan of an earlier run of this name where there is one, so that it can be continued.
    """
    path = config.run_dir / PLAN if config.plan == "auto" else Path(config.plan)
    if config.plan == "auto" and not (keep and path.is_file()):
        decisions = make_plan(config, survey(config, progress=progress), given)
        text = plan_text(config, decisions)
    else:
        if not path.is_file():
            raise UsageError(f"plan={config.plan}: there is no such file; expected none, auto or a plan file.")
        text = path.read_text(encoding="utf-8")
    return _with_values(config, text, given, where=str(path)), text


def _with_values(config: TrainConfig, text: str, given: Collection[str], *, where: str) -> TrainConfig:
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {str(error).splitlines()[0]}.") from error
    merged = OmegaConf.structured(config)
    for key, value in _flat(values):
        if not _is_given(key, given):
            try:
                OmegaConf.update(merged, key, value, merge=False)
            except OmegaConfBaseException as error:
                raise UsageError(f"{where}: {key}={value!r} cannot be set; {nearest_key(key)}") from error
    result = OmegaConf.to_object(merged)
    assert isinstance(result, TrainConfig)
    check_config(result, is_planned=True)
    return result


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in values.items():
        nested = isinstance(value, dict) and f"{prefix}{name}" != "loss.class_weights"
        pairs += _flat(value, f"{prefix}{name}.") if nested else [(f"{prefix}{name}", value)]
    return pairs


def _is_given(key: str, given: Collection[str]) -> bool:
    return key in given or (key.startswith("model.") and "model" in given)


# --- what the data say ----------------------------------------------------------------------------------------------


def survey(config: TrainConfig, *, progress: Progress = silent) -> list[ImageFacts]:
    """Shapes, pixel sizes and labelled pixels of every file; a DataError lists those that cannot be read."""
    schema = load_schema(config.data.schema)
    sources = {name: s for name, s in config.data.sources.items() if s.weight > 0}
    if not sources:
        raise UsageError("plan=auto plans from labelled images; choose some (data=folder), or set the values yourself.")
    planned, problems = all_pairs(config.data, progress=progress)
    facts = []
    for name, source, pair in progress(planned, total=len(planned), desc="planning"):
        names = parse_class_map(source.classes, schema, where=f"data.sources.{name}")
        try:
            size = None if source.pixel_size_um is None else dict.fromkeys("zyx", source.pixel_size_um)
            stack = open_stack(pair.image, axes=source.axes, pixel_size_um=size)
            labels = open_stack(pair.labels, axes=stack.axes.replace("c", ""))
            counts: Counter[str] = Counter()
            n_px, planes, labelled_planes = 0, 0, 0
            for t in range(labels.n_frames):
                values = labels.frame(t)
                found = dict(zip(*(a.tolist() for a in np.unique(values, return_counts=True)), strict=True))
                meant = {v: " or ".join(names[v]) for v in found if names.get(v)}
                if meant:
                    counts.update({meant[v]: found[v] for v in meant})
                    n_px += values.size
                    by_plane = np.isin(values, list(meant)).reshape(-1, *values.shape[-2:]).any(axis=(1, 2))
                    planes, labelled_planes = planes + by_plane.size, labelled_planes + int(by_plane.sum())
            axes = stack.spatial_axes
            shape = tuple(stack.size(axis) for axis in axes)
            spacing = stack.calibration.spacing_um(axes)
            facts.append(ImageFacts(shape, spacing, counts, n_px, labelled_planes / max(planes, 1), source.modality))
        except SegError as error:
            problems.append(f"{name}/{pair.image.name}: {error}")
    if problems:
        raise DataError(listed(f"{len(problems)} labelled image(s) cannot be used", problems))
    return facts


# --- what follows ---------------------------------------------------------------------------------------------------


def make_plan(config: TrainConfig, facts: Sequence[ImageFacts], given: Collection[str] = ()) -> list[Decision]:
    """Choose pixel size, dimensions, depth, patch, batch, loss and sampling; each with its reason."""
    decisions: list[Decision] = []

    def decide(key: str, value: Any, reason: str) -> Any:
        if _is_given(key, given) or (key.startswith("model.") and config.model.init is not None):
            group, _, name = key.partition(".")
            value = getattr(getattr(config, group), name)
            by = "given on the command line" if _is_given(key, given) else f"that of {config.model.init}"
            reason = f"{by} (the data alone would say: {reason})"
        decisions.append(Decision(key, value, reason))
        return value

    size_um, why = _pixel_size(facts)
    size_um = decide("data.pixel_size_um", size_um, why) or None
    dims = decide("model.dims", *_dims(facts))
    shapes = [_resampled_shape(f, size_um)[-dims:] for f in facts]
    sides = [min(shape[-2:]) for shape in shapes]
    thickness = min(shape[0] for shape in shapes) if dims == 3 else None
    room = min(LARGEST_PATCH_PX[dims], int(median(sides)))
    least = min(room, thickness) if thickness else room
    stem = decide("model.stem_px", *_stem(dims, room))
    depth = min(4 if dims == 2 else 3, max(1, int(math.log2(max(least, 2) / (8 * stem)))))
    depth = decide(
        "model.depth", depth, f"the coarsest grid still has 8 points or more across the {least} px of a patch"
    )
    if dims == 3:
        decide("model.width", 16, "a 3-D network of this width does about what a 2-D one of 24 does, and fits memory")
    multiple = 2**depth * stem
    patch = max(room // multiple, 1) * multiple
    patch = decide("data.patch_px", patch, f"the median image is {int(median(sides))} px at its shorter side; "
                   f"at most {LARGEST_PATCH_PX[dims]}, a multiple of {multiple}")  # fmt: skip
    patch_z = None
    if thickness is not None:
        patch_z = max(min(thickness, patch) // multiple, 1) * multiple
        patch_z = decide("data.patch_z_px", patch_z, f"the thinnest volume has {thickness} planes")
    decisions += _batch(config, dims, depth, stem, patch, patch_z, given)
    total, n_px = sum((f.labelled_px for f in facts), Counter()), sum(f.n_px for f in facts)
    share = sum(total.values()) / max(n_px, 1)
    by_class = ", ".join(f"{name} {n / sum(total.values()):.1%}" for name, n in total.most_common())
    decisions.append(Decision(None, None, f"{share:.2%} of the pixels of labelled frames are labelled: {by_class}"))
    if share < 0.01:
        decide("loss.dice", 0.0, "few pixels are labelled: Dice over them is noise, cross-entropy alone is not")
        decide("loss.class_weights", None, "strokes tell how much was clicked, not how much there is")
    else:
        decide("loss.class_weights", *_class_weights(total))
    held = {name: sum(1 for f in facts if f.labelled_px[name]) for name in total}
    rare = [name for name, n in held.items() if n < len(facts) / 3]
    if rare:
        decide("data.balance", "class", f"{', '.join(rare)}: in fewer than a third of the files")
    elif share < 0.01:
        decide("data.balance", "class", "patches must be aimed at the few labels")
    else:
        decide("data.balance", "image", "every class is in a third of the files or more")
    for name in sorted({f.modality for f in facts}):
        low, high = modality(name).normalisation_percentiles
        decisions.append(
            Decision(
                None,
                None,
                f"normalisation: percentiles {low:g} and {high:g} of each series become 0 and 1, "
                f"as for all {name} images, in training and in use",
            )  # fmt: skip
        )
    return decisions


def _pixel_size(facts: Sequence[ImageFacts]) -> tuple[float | None, str]:
    unknown = sum(f.spacing_um is None for f in facts)
    if unknown:
        return None, f"{unknown} of {len(facts)} files state no pixel size, so images are taken as they are"
    # One size per file; pixels that are oblong in the plane become square, in training and in use.
    sizes = [math.prod((f.spacing_um or (1.0,))[-2:]) ** 0.5 for f in facts]
    low, high = min(sizes), max(sizes)
    if high > 2 * low:
        return None, (f"pixels go from {low:g} to {high:g} um: too far apart for one size, so they stay as they are")
    if high <= 1.05 * low:
        size = float(f"{median(sizes):.4g}")
        return size, f"all images have pixels of about {size:g} um; images used later are brought to it"
    return float(f"{median(sizes):.4g}"), (
        f"the median; pixels go from {low:g} to {high:g} um, and images used later are brought to it too"
    )


def _resampled_shape(fact: ImageFacts, size_um: float | None) -> tuple[int, ...]:
    if size_um is None or fact.spacing_um is None:
        return fact.shape
    return tuple(round(n * s / size_um) for n, s in zip(fact.shape, fact.spacing_um, strict=True))


def _dims(facts: Sequence[ImageFacts]) -> tuple[int, str]:
    if any(len(f.shape) == 2 for f in facts):
        return 2, "there are single planes among the files"
    planes = min(f.shape[0] for f in facts)
    if planes < 16:
        return 2, f"the thinnest volume has {planes} planes, too few for a 3-D network"
    coarse = max((f.spacing_um[0] / min(f.spacing_um[1:]) for f in facts if f.spacing_um), default=1.0)
    if coarse > 3:
        return (
            2,
            f"planes are {coarse:.1f} times farther apart than pixels: what is seen in one hardly goes on in the next",
        )
    labelled = median(f.labelled_planes for f in facts)
    if labelled < 0.1:
        return (
            2,
            f"{labelled:.0%} of the planes hold labels: a 2-D network needs no more around them",
        )
    return 3, f"volumes of {planes} planes and more, labelled in {labelled:.0%} of them"


def _stem(dims: int, room: int) -> tuple[int, str]:
    if dims == 3:
        return 1, "tried on planes only"
    if room < SMALL_PATCH_PX:
        return 1, f"patches of {room} px are quick as they are"
    return 2, "a third of the time per step, so three times as many: better masks from the same minutes"


def _class_weights(total: Counter[str]) -> tuple[dict[str, float] | None, str]:
    shares = {name: n / sum(total.values()) for name, n in total.items() if " or " not in name}
    if len(shares) < 2 or max(shares.values()) < 10 * min(shares.values()):
        return None, "no class is ten times rarer than another"
    middle = median(shares.values())
    weights = {name: round(min(max(math.sqrt(middle / s), 0.5), 3.0), 2) for name, s in sorted(shares.items())}
    return weights, "square root of how much rarer a class is than the median one, 0.5 to 3"


def _batch(
    config: TrainConfig,
    dims: int,
    depth: int,
    stem: int,
    patch: int,
    patch_z: int | None,
    given: Collection[str],
) -> list[Decision]:
    """Patches per step, and the parts they are computed in, from what a step keeps in memory."""
    from seg.models.device import resolve_device

    device = resolve_device(config.trainer.device)
    per_px = bytes_per_pixel(config, dims, depth, stem)
    free = free_bytes(device.type)
    px = patch**2 * (patch_z or 1)
    fits = max(int(MEMORY_SHARE * free / (per_px * px)), 0)
    batch = BATCH[dims] * (2 if device.type == "cuda" and fits >= 2 * BATCH[dims] else 1)
    if _is_given("data.batch", given):
        batch = config.data.batch
    if fits == 0:
        raise UsageError(
            f"A patch of {patch} px needs {per_px * px / 2**30:.1f} GiB to train, but {free / 2**30:.1f} GiB are free "
            f"on {device.type}; set data.patch_px (and data.patch_z_px) smaller, or model.width."
        )
    parts = next(p for p in range(1, batch + 1) if batch % p == 0 and batch // p <= fits)
    need = f"{per_px * px / 2**20:.0f} MiB a patch, {free / 2**30:.1f} GiB free on {device.type}"
    decisions = [Decision("data.batch", batch, need)]
    if parts > 1 and not _is_given("trainer.accumulate", given):
        decisions.append(Decision("trainer.accumulate", parts, f"so that {batch // parts} at once fit"))
    return decisions


def bytes_per_pixel(config: TrainConfig, dims: int, depth: int, stem_px: int | None = None) -> float:
    """Memory that a training step keeps per pixel of a patch, measured on a small one, with room for gradients."""
    import torch

    from seg.models import ARCHITECTURES

    width = 16 if dims == 3 and config.model.width == type(config.model).width else config.model.width
    network = ARCHITECTURES[config.model.architecture](
        n_classes=8, dims=dims, depth=depth, width=width, blocks=config.model.blocks, norm=config.model.norm,
        deep_supervision=config.model.deep_supervision,
        stem_px=config.model.stem_px if stem_px is None else stem_px,
    )  # fmt: skip
    side = network.tile_multiple * 2
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network.train()(torch.zeros(1, 1, *(side,) * dims))
    saved = sum(size for pointer, size in kept.items() if pointer not in weights)
    return BACKWARD_FACTOR * saved / side**dims


def free_bytes(device: str) -> int:
    """Memory that is free on the device now."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return 8 * 2**30  # what a laptop has; other systems than Linux do not say without another package


def plan_text(config: TrainConfig, decisions: Sequence[Decision]) -> str:
    """YAML with a reason above every value; reading it back gives the values."""
    lines = [
        f"# Plan of {config.name}, made from the data by operandoseg-train {__version__}.",
        "# Edit it and train with plan=THIS_FILE, or override single values on the command line, which always wins.",
    ]
    valued = sorted((d for d in decisions if d.key), key=lambda d: str(d.key).partition(".")[0])
    groups = [str(d.key).partition(".")[0] for d in valued]
    starts = [0, *(n + 1 for n, (a, b) in enumerate(pairwise(groups)) if a != b), len(groups)]
    for low, high in pairwise(starts):
        lines.append(f"{groups[low]}:")
        for decision in valued[low:high]:
            value = yaml.safe_dump(decision.value, default_flow_style=True, width=10_000).strip().removesuffix("\n...")
            lines += [f"  # {decision.reason}", f"  {str(decision.key).partition('.')[2]}: {value}"]
    lines += [f"# {d.reason}" for d in decisions if not d.key]
    return "\n".join(lines) + "\n"
