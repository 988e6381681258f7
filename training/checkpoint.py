"""Where a run stands, on disk: written beside and renamed, read back without unpickling code."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf

from seg.errors import UsageError
from training.config import EARLIER_LOSS, EARLIER_MODELS, TrainConfig

FORMAT = 1
FREE_TO_CHANGE = (
    "title",
    "remarks",
    "model.scales",  # used at evaluation only
    "runs",
    "plan",
    "data.root",
    "data.workers",
    "trainer.max_steps",
    "trainer.max_minutes",
    "trainer.device",
    "trainer.devices",
    "trainer.accumulate",
    "trainer.threads",
    "trainer.score_every",
    "trainer.save_every",
    "trainer.log_every",
    "trainer.resume",
    "trainer.extend",
    "trainer.loggers",
)
"""Keys that may differ between a run and its continuation. More steps or minutes before the run has ended stretch its
schedule; what they do to a run that had ended is declared by ``trainer.extend``."""
FREE_OF_SOURCES = ("about", "foreground", "real", "drawn")
"""Keys of a source that only scores and cards use, or that say how its files once came about."""


def save_checkpoint(path: Path, state: dict[str, Any], config: TrainConfig) -> None:
    """Write `state` (tensors and plain values) and the configuration to `path`, all or nothing."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, "config": yaml.safe_dump(asdict(config)), **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path, config: TrainConfig) -> dict[str, Any]:
    """Read a checkpoint of the same run; UsageError lists the settings that changed since."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before, fmt = with_defaults(yaml.safe_load(state["config"])), state["format"]
    except Exception as error:  # torch, zip and pickle each have their own ways to say that a file is damaged
        raise UsageError(
            f"{path} is not a checkpoint that can be continued ({str(error).splitlines()[0]}). "
            "Start anew with trainer.resume=none."
        ) from error
    if fmt != FORMAT:
        raise UsageError(f"{path} has checkpoint format {fmt}, this version writes {FORMAT}. Use trainer.resume=none.")
    changed = sorted(
        key for key in set(changed_keys(before, asdict(config))) - set(FREE_TO_CHANGE)
        if not (key.startswith("data.sources.") and key.split(".")[3:4] in [[free] for free in FREE_OF_SOURCES])
    )  # fmt: skip
    if changed:
        raise UsageError(
            f"The run in {path.parent} was started with other values of {', '.join(changed)}. "
            "Give them again, choose another name=..., or start anew with trainer.resume=none."
        )
    return state


def with_defaults(before: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with the defaults of keys that later versions added."""
    earlier = {"model": EARLIER_MODELS, "loss": EARLIER_LOSS}
    before = {**before, **{part: {**keys, **before.get(part, {})} for part, keys in earlier.items()}}
    filled = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(TrainConfig), before))
    assert isinstance(filled, dict)
    return filled


def changed_keys(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two nested mappings differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            key
            for name in {**before, **after}
            for key in changed_keys(before.get(name), after.get(name), f"{prefix}.{name}" if prefix else str(name))
        ]
    return [] if before == after else [prefix]
