"""The training configuration: what may be set, its types and defaults; YAML files hold the differences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg.analysis import VIEWS
from seg.check import SPECIMEN
from seg.errors import UsageError
from seg.resources import config_names


@dataclass
class TwinsConfig:
    """Twins that ``seg.synthetic.twins`` draws where the folder of a source is not there yet."""

    per_family: int = 0  # 0: none are drawn
    seed: int = 0
    modality: str | None = None  # only the families that it shows
    families: list[str] = field(default_factory=list)  # only these


@dataclass
class SourceConfig:
    """One set of labelled images. Paths are relative to ``data.root``, or absolute, or from here: ``./``."""

    images: str = MISSING  # glob; every match is one image or stack
    labels: str = MISSING  # path with * for the name of the image without its ending, and ** for the folders it is in
    # value in the label file -> class name; null: unlabelled; a list: one of these, unknown which.
    # null: the values are those of the schema.
    classes: Any = None
    modality: str = MISSING
    axes: str | None = None  # such as zyx or tyx, where the files do not say
    pixel_size_um: float | None = None  # where the files do not say; the same along all axes
    # regular expression with one group: the specimen, from the name of the image without its ending, or, where the
    # expression holds a /, from its path below the last folder without * ("/cell3/frame_001.tif"); by default all of
    # the name before its last number
    specimen: str = SPECIMEN
    held_out: list[str] = field(default_factory=list)  # specimens never trained on
    held_out_share: float = 0.0  # or: this share of the specimens, drawn with data.seed
    held_out_block: float = 0.0  # or: this share of every series at its end, where there are too few specimens
    gap_frames: int = 5  # frames before (and after) such a block that are neither trained on nor scored
    foreground: list[str] = field(default_factory=list)  # classes that together are scored as foreground
    exclude: list[str] = field(default_factory=list)  # stems of images left out
    weight: float = 1.0  # share of the samples, relative to the other sources
    zoom: list[float] = field(default_factory=lambda: [0.5, 2.0])  # range of random magnification
    real: bool = True  # false: drawn by a program, so its scores say nothing of real images
    about: str | None = None  # text file with "licence : ...", "citation : ..." for the card
    drawn: TwinsConfig = field(default_factory=TwinsConfig)  # for images in FOLDER/images


@dataclass
class SyntheticConfig:
    """Images drawn by ``seg.synthetic`` while training; weight 0 leaves them out."""

    weight: float = 0.0
    size_px: int = 384
    pool: int = 512  # different images; each is seen many times under new augmentation
    held_out: int = 24  # images of other seeds, scored like a held-out data set
    zoom: list[float] = field(default_factory=lambda: [0.6, 1.6])
    modalities: list[str] = field(default_factory=list)  # empty: all
    classes: list[str] = field(default_factory=list)  # those the scenes hold


@dataclass
class DataConfig:
    """What is trained on and how patches are drawn from it."""

    root: str = MISSING
    schema: str = "lithium"
    sources: dict[str, SourceConfig] = field(default_factory=dict)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    patch_px: int = 256
    patch_z_px: int | None = None  # planes of a patch, for 3-D networks
    # all images are resampled to it; null: to that of model.init where it states one, else as they are; 0: as they are
    pixel_size_um: float | None = None
    slices: str = ""  # of volumes, for 2-D networks: across: slices across the layers of a cell are what it will know
    views: list[str] = field(default_factory=list)  # of the analyses that the model is for: [profile]; empty: of any
    batch: int = 8
    rare_share: float = 0.5  # share of patches centred on a class drawn at random, so that rare ones are seen
    balance: str = "image"  # where such a patch is looked for: image: in one drawn before; class: in those that hold it
    # cross-validation: the specimens of every source (blocks of its series where it has one specimen) are dealt into
    # so many folds, and number `fold` is held out instead of what the source says
    folds: int | None = None
    fold: int = 0
    # images trained on and held out whose fine structure correlates more than this are refused; null: not checked
    leak_similarity: float | None = 0.8
    workers: int = 1
    seed: int = 0


@dataclass
class ModelConfig:
    """The network; the names are those of the builder in ``seg.models.ARCHITECTURES``."""

    architecture: str = "unet"
    dims: int = 2
    width: int = 24
    depth: int = 4
    blocks: int = 1
    norm: str = "batch"
    deep_supervision: bool = False
    dropout: float = 0.0
    # at evaluation, averaged over the image shrunk by each: objects larger than in the training images are found too
    scales: list[int] = field(default_factory=lambda: [1])
    # pixels along each axis that make one point of the finest grid; 2: a third of the time per step (docs/peers.md)
    stem_px: int = 2
    init: str | None = None  # model to start from: NAME, folder, or auto; its architecture is taken over


EARLIER_MODELS = {"stem_px": 1}
"""What models and runs have whose files were written before the key existed."""
EARLIER_LOSS = {"guesses": 0.0}
"""The same for the loss of unfinished runs."""


@dataclass
class LossConfig:
    """Cross-entropy plus soft Dice over labelled pixels."""

    cross_entropy: float = 1.0
    dice: float = 1.0
    label_smoothing: float = 0.0
    deep_supervision_decay: float = 0.5  # weight of each coarser output relative to the finer one
    class_weights: Any = None  # class name -> weight in the cross-entropy; 1 for those not named
    # pull of unlabelled pixels towards what model.init says, as far as it names the labelled ones rightly, and a forest
    # for the rest; 0: none
    anchor: float = 0.0
    # from scratch, where less than a hundredth is labelled: weight of what a forest on the labels guesses elsewhere
    guesses: float = 1.0


@dataclass
class OptimizerConfig:
    """AdamW under a warm-up and a cosine that ends with the run."""

    lr: float = 2e-3
    final_lr_share: float = 0.01
    warmup_share: float = 0.05
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    freeze_statistics: bool = False  # batch normalisations keep the statistics of model.init


@dataclass
class AugmentConfig:
    """Probabilities and strengths; 0 switches a transform off."""

    flip: bool = True
    quarter_turns: bool = True
    rotate_deg: float = 15.0
    elastic_px: float = 6.0
    gamma: float = 0.4  # exponent within exp(+-gamma)
    contrast: float = 0.3
    brightness: float = 0.15
    invert: float = 0.15
    shading: float = 0.2
    blur_px: float = 1.5
    noise: float = 0.08
    percentile_jitter: float = 0.05
    ground_pattern: float = 0.0  # share of patches whose electrode or electrolyte gets a lattice, lines or a gradient
    probability: float = 0.5  # of each intensity transform


@dataclass
class TrainerConfig:
    """How long, on what, and what is written on the way."""

    max_steps: int | None = None
    max_minutes: float | None = None  # wall time of training; the schedule ends where this or max_steps does first
    device: str = "auto"  # auto | cpu | cuda
    precision: str = "auto"  # auto | fp32 | bf16 | fp16
    devices: int = 1  # processes that share each batch, one per GPU
    accumulate: int = 1  # parts in which a batch is computed, where the memory holds no whole one
    threads: int | None = None  # torch threads; null: all cores
    score_every: int = 500  # steps between scores of the held-out images; 0: only at the end
    save_every: int = 200  # steps between checkpoints
    log_every: int = 20
    resume: str = "auto"  # auto | none | must
    extend: str = "stretch"  # learning rate of a finished run that is given more steps: stretch (as if planned) | floor
    patience: int = 0  # stop after so many scores without a better one, and keep the best weights; 0: never
    baselines: bool = True  # at the end, a threshold, a watershed and a forest are scored beside the network
    loggers: list[str] = field(default_factory=list)  # tensorboard, mlflow


@dataclass
class TrainConfig:
    """Everything ``operandoseg-train`` can be told."""

    name: str = MISSING  # of the run and of the exported model
    title: str = ""
    remarks: str = ""  # for the card: what decided this recipe, and what users should know of it
    runs: str = "runs"
    plan: str = "none"  # none | auto: choose from the data what the command line leaves open | a plan file
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    @property
    def run_dir(self) -> Path:
        """Folder of this run: the same command finds it again."""
        return Path(self.runs) / self.name


def compose_config(overrides: Sequence[str], *, config_dir: str | Path | None = None) -> DictConfig:
    """Put the YAML files and `overrides` together; UsageError names the nearest key or file.

    Parameters
    ----------
    overrides : sequence of str
        In Hydra's grammar: ``experiment=generalist trainer.max_minutes=5``.
    config_dir : path or None
        Folder of further YAML files with the same groups (``data/mine.yaml``).
    """
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
    GlobalHydra.instance().clear()
    extra = [] if config_dir is None else [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"]
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UsageError(f"There is no folder {config_dir}.")
    try:
        with initialize_config_module("training.configs", version_base="1.3"):
            config = compose("train", overrides=[*overrides, *extra])
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error)) from error
    return config


def to_train_config(config: DictConfig) -> TrainConfig:
    """The composed configuration as plain dataclasses; UsageError lists what is still to be given."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UsageError(
            f"{len(missing)} value(s) must be given: {', '.join(missing)}. Example: operandoseg-train {missing[0]}=..."
        )
    _refuse_added_keys(config, TrainConfig)
    result = OmegaConf.to_object(config)
    assert isinstance(result, TrainConfig)
    if result.model.init is not None:
        from training.initial import adopt  # it needs the dataclasses of this module

        result = adopt(result)
    check_config(result)
    return result


def known_keys(config_class: type = TrainConfig, prefix: str = "") -> list[str]:
    """Every dotted key of the configuration; ``*`` stands for the name of a source."""
    hints = get_type_hints(config_class)
    keys = []
    for entry in fields(config_class):
        kind, name = hints[entry.name], f"{prefix}{entry.name}"
        keys.append(name)
        if is_dataclass(kind):
            keys += known_keys(kind, f"{name}.")
        elif is_dataclass(next(iter(get_args(kind)[1:]), None)):
            keys += known_keys(get_args(kind)[1], f"{name}.*.")
    return keys


def _refuse_added_keys(config: DictConfig, config_class: type, prefix: str = "") -> None:
    """Hydra's ``+key=value`` may add what no code reads; nothing is ignored in silence."""
    hints = get_type_hints(config_class)
    for name, value in config.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise UsageError(f"There is no key {key!r}; {nearest_key(key)}")
        kind = hints[str(name)]
        if is_dataclass(kind):
            _refuse_added_keys(value, kind, f"{key}.")
        elif is_dataclass(next(iter(get_args(kind)[1:]), None)):
            for entry in value:
                _refuse_added_keys(value[entry], get_args(kind)[1], f"{key}.{entry}.")


def _explain(error: Exception) -> str:
    """One or two sentences from a chain of Hydra and OmegaConf errors, with the nearest name."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__
    text = "\n".join(str(link) for link in chain)
    unreadable = [link for link in chain if isinstance(link, OverrideParseException)]
    if unreadable:
        reason = str(unreadable[0]).split("\n")[0]
        return f"Cannot read {unreadable[0].override!r} ({reason}); put special characters in quotes: a='{{b}}'."

    missing_file = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if missing_file:
        group, _, wanted = missing_file.group(1).rpartition("/")
        names = config_names(group) if group else []
        near = get_close_matches(wanted, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"{group} has {', '.join(names)}." if names else ""
        return f"There is no configuration file {missing_file.group(1)!r}; {hint}".rstrip("; ")

    key = re.search(r"full_key: (\S+)", text)
    if "not in" in text and key:
        return f"There is no key {key.group(1)!r}; {nearest_key(key.group(1))}"
    override = re.search(r"Could not override '([^']+)'", text)
    if override and ("not in struct" in text or "is not in" in text):
        return f"There is no key {override.group(1)!r}; {nearest_key(override.group(1))}"
    if key:
        reason = str(chain[-1]).split("\n")[0]
        return f"{key.group(1)}: {reason}"
    return str(chain[0]).split("\n")[0]


def nearest_key(key: str) -> str:
    """Half a sentence that names the key most like `key`."""
    keys = [k for k in known_keys() if "*" not in k]
    parts = key.split(".")
    if parts[:2] == ["data", "sources"] and len(parts) > 3:
        keys = known_keys(SourceConfig, f"data.sources.{parts[2]}.")
    near = get_close_matches(key, keys, n=1, cutoff=0.5)
    if not near:  # the right name under the wrong group, or without one
        ends = {k.split(".")[-1]: k for k in keys}
        near = [ends[n] for n in get_close_matches(parts[-1], ends, n=1)]
    return f"did you mean {near[0]!r}?" if near else "operandoseg-train --cfg job shows all keys."


def check_config(config: TrainConfig, *, is_planned: bool = False) -> None:
    """Values that the types alone do not rule out; what a plan will decide is left to a second look."""
    trainer, data = config.trainer, config.data
    if trainer.max_steps is None and trainer.max_minutes is None:
        raise UsageError("Say how long to train: trainer.max_steps=N or trainer.max_minutes=M.")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name):
        raise UsageError(f"name={config.name!r} is a folder name: letters, digits, '.', '_' and '-' only.")
    for key, value, allowed in (
        ("trainer.resume", trainer.resume, ("auto", "none", "must")),
        ("trainer.device", trainer.device, ("auto", "cpu", "cuda")),
        ("trainer.precision", trainer.precision, ("auto", "fp32", "bf16", "fp16")),
        ("trainer.extend", trainer.extend, ("stretch", "floor")),
        ("data.balance", data.balance, ("image", "class")),
        *(("trainer.loggers", name, ("tensorboard", "mlflow")) for name in trainer.loggers),
        *(("data.views", name, VIEWS) for name in data.views),
    ):
        if value not in allowed:
            near = get_close_matches(str(value), allowed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(allowed)}."
            raise UsageError(f"{key}={value}; {hint}")
    zooms = {f"data.sources.{name}.zoom": source.zoom for name, source in data.sources.items()}
    zooms["data.synthetic.zoom"] = data.synthetic.zoom
    positive = {
        "data.patch_px": data.patch_px,
        "data.batch": data.batch,
        "optimizer.lr": config.optimizer.lr,
        "trainer.save_every": trainer.save_every,
        "trainer.log_every": trainer.log_every,
        "trainer.max_steps": trainer.max_steps,
        "trainer.max_minutes": trainer.max_minutes,
        "trainer.devices": trainer.devices,
        "trainer.accumulate": trainer.accumulate,
        "data.patch_z_px": data.patch_z_px,
    }
    for key, number in positive.items():
        if number is not None and not number > 0:
            raise UsageError(f"{key}={number}; expected more than 0.")
    for key, zoom in zooms.items():
        if len(zoom) != 2 or not 0 < zoom[0] <= zoom[1]:
            raise UsageError(f"{key}={zoom}; expected [smallest, largest], both more than 0.")
    for key, value in (("loss.anchor", config.loss.anchor),
                       ("optimizer.freeze_statistics", config.optimizer.freeze_statistics)):  # fmt: skip
        if value and config.model.init is None:
            raise UsageError(f"{key}={value} keeps to the model that a run starts from; set model.init too.")
    for key in ("anchor", "guesses"):
        if getattr(config.loss, key) < 0:
            raise UsageError(f"loss.{key}={getattr(config.loss, key)}; expected 0 or more.")
    if (data.pixel_size_um or 0) < 0:
        raise UsageError(f"data.pixel_size_um={data.pixel_size_um}; expected more than 0, or 0 to resample nothing.")
    if trainer.patience and not trainer.score_every:
        raise UsageError("trainer.patience counts scores on the way; set trainer.score_every too.")
    if data.folds is not None and not (data.folds >= 2 and 0 <= data.fold < data.folds):
        raise UsageError(
            f"data.fold={data.fold} of data.folds={data.folds}; expected fold 0 to folds - 1 of 2 or more."
        )
    if data.batch % trainer.accumulate or data.batch // trainer.accumulate % trainer.devices:
        raise UsageError(
            f"data.batch={data.batch} cannot be shared by trainer.devices={trainer.devices} in "
            f"trainer.accumulate={trainer.accumulate} parts; make it a multiple of their product."
        )
    if config.model.dims not in (2, 3):
        raise UsageError(f"model.dims={config.model.dims}; expected 2 or 3.")
    if sum(s.weight for s in data.sources.values()) + data.synthetic.weight <= 0:
        raise UsageError("There is nothing to train on: choose data sets, for example data=[sem_dendrites,synthetic].")
    if config.plan != "none" and not is_planned:
        return
    if config.model.dims == 3 and data.patch_z_px is None:
        raise UsageError("A 3-D network needs data.patch_z_px, the planes of a patch; model=unet_3d sets one.")
    if config.model.dims == 2 and data.patch_z_px is not None:
        raise UsageError("data.patch_z_px is for 3-D networks (model=unet_3d).")
    if config.model.dims == 3 and data.synthetic.weight > 0:
        raise UsageError("data.synthetic draws planes; a 3-D network trains on volumes from files.")
