"""Starting from a model that is already trained: its architecture, its weights, its classes under other labels."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from seg.errors import ModelError, UsageError
from seg.labels import LabelSchema
from seg.models.bundle import find_model, load_bundle, model_path, read_spec
from training.config import EARLIER_MODELS, ModelConfig, TrainConfig
from training.label_codes import LabelCodes

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

OWN = ("architecture", "init", "dropout", "scales")
"""Keys of the network that need not be those of the model it starts from."""


def adopt(config: TrainConfig) -> TrainConfig:
    """The configuration with what ``model.init`` decides: architecture, and pixel size where the model states one.

    UsageError when the configuration asks for another network than the model has.
    """
    if config.model.init is None:
        return config
    kinds = {s.modality for s in config.data.sources.values() if s.weight > 0}
    found = find_model(config.model.init, modality=kinds.pop() if len(kinds) == 1 else None)
    path = model_path(found)
    spec = read_spec(path)
    if spec.architecture == "ensemble":
        raise UsageError(f"model.init={spec.name} is an ensemble; start from one of the models it was joined from.")
    chosen = {"architecture": spec.architecture}
    by_default = ModelConfig()
    arguments = {**EARLIER_MODELS, **spec.arguments}
    for entry in fields(ModelConfig):
        if entry.name in OWN or entry.name not in arguments:
            continue
        asked, has = getattr(config.model, entry.name), arguments[entry.name]
        if asked not in (getattr(by_default, entry.name), has):
            raise UsageError(
                f"model.{entry.name}={asked}, but {spec.name!r}, which model.init starts from, has {has}. "
                f"Leave model.{entry.name} out, or train from scratch with model.init=null."
            )
        chosen[entry.name] = has
    name = config.model.init if config.model.init != "auto" else path.name
    pixel_size_um = config.data.pixel_size_um
    if pixel_size_um is None and spec.pixel_size_um is not None:
        logger.info("images are resampled to %g um, the pixel size of %s", spec.pixel_size_um, spec.name)
        pixel_size_um = spec.pixel_size_um
    return replace(
        config,
        model=replace(config.model, init=str(name), **chosen),
        data=replace(config.data, pixel_size_um=pixel_size_um),
    )


def made_for(config: TrainConfig) -> bool:
    """Whether the model started from is a specialist: made for the modality of the images, and no other."""
    kinds = {s.modality for s in config.data.sources.values() if s.weight > 0}
    return kinds == set(read_spec(model_path(config.model.init or "")).modalities) and len(kinds) == 1


def load_initial_weights(network: nn.Module, config: TrainConfig, codes: LabelCodes, schema: LabelSchema) -> list[int]:
    """Copy the weights of ``model.init`` into `network`; outputs of the head go by the names of their classes.

    A class the model does not know keeps its random start; one that is no longer asked for is dropped.

    Returns
    -------
    list of int
        The outputs whose classes the model knows.
    """
    import torch

    bundle = load_bundle(config.model.init or "")
    own = network.state_dict()
    weights = bundle.network.state_dict()
    names = [schema.class_name(index) for index in codes.class_indices]
    known = {name: k for k, name in enumerate(bundle.spec.class_names)}
    misfit = [key for key, value in own.items() if not key.startswith(("head.", "coarse_heads."))
              and (key not in weights or weights[key].shape != value.shape)]  # fmt: skip
    if misfit:
        raise ModelError(f"The weights of {bundle.spec.name!r} do not fit this network: {misfit[0]} differs.")
    with torch.no_grad():
        for key, value in own.items():
            if not key.startswith(("head.", "coarse_heads.")):
                value.copy_(weights[key])
            elif key in weights:
                new_rows, old_rows = value.unflatten(0, (len(names), -1)), weights[key].unflatten(0, (len(known), -1))
                for k, name in enumerate(names):  # a class has as many rows as a point of the grid has pixels
                    if name in known:
                        new_rows[k] = old_rows[known[name]]
    new = [name for name in names if name not in known]
    dropped = [name for name in known if name not in names]
    logger.info(
        "starting from %s: classes kept %s; new %s; dropped %s", bundle.spec.name,
        ", ".join(n for n in names if n in known) or "none", ", ".join(new) or "none", ", ".join(dropped) or "none",
    )  # fmt: skip
    if len(new) == len(names):
        logger.warning("%s knows none of the classes trained here; only its features are taken over.", bundle.spec.name)
    return [k for k, name in enumerate(names) if name in known]
