"""Going on where a run stopped: finding its checkpoint, restoring it, and what an extension does to the schedule."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import nn

from seg.errors import UsageError
from training.checkpoint import load_checkpoint
from training.config import TrainConfig, TrainerConfig
from training.label_codes import LabelCodes
from training.optim import WeightAverage, learning_rate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

logger = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"


@dataclass(frozen=True)
class Place:
    """Where a run stands when it starts or goes on.

    Parameters
    ----------
    step : int
    elapsed_s : float
    extended_at : int or None
        Step at which the run had once ended before it was given more.
    """

    step: int = 0
    elapsed_s: float = 0.0
    extended_at: int | None = None

    def learning_rate(self, done: float, config: TrainConfig) -> float:
        """Rate at the share `done` of the run, by the schedule that ``trainer.extend`` declares."""
        at_floor = self.extended_at is not None and config.trainer.extend == "floor"
        return learning_rate(1.0 if at_floor else done, config.optimizer)


def share_done(step: int, elapsed_s: float, trainer: TrainerConfig) -> float:
    """How much of the run is behind us, by steps or by time, whichever ends first."""
    by_steps = step / trainer.max_steps if trainer.max_steps else 0.0
    by_time = elapsed_s / (60 * trainer.max_minutes) if trainer.max_minutes else 0.0
    return min(1.0, max(by_steps, by_time))


def find_checkpoint(run_dir: Path, config: TrainConfig, codes: LabelCodes, fabric: Fabric) -> dict[str, Any] | None:
    """The last checkpoint where the configuration asks for it and there is one, of the same classes."""
    path = run_dir / CHECKPOINT
    if config.trainer.resume == "none" and fabric.is_global_zero:
        path.unlink(missing_ok=True)
    fabric.barrier()
    if config.trainer.resume == "must" and not path.is_file():
        raise UsageError(f"trainer.resume=must, but there is no checkpoint {path}.")
    if not path.is_file():
        return None
    state = load_checkpoint(path, config)
    if tuple(state.get("class_indices", codes.class_indices)) != codes.class_indices:
        raise UsageError(
            f"The run in {run_dir} was started with label values {state['class_indices']}, the labels now hold "
            f"{list(codes.class_indices)}. Choose another name=... and model.init={run_dir / 'model'}, or start anew "
            "with trainer.resume=none."
        )
    return state


def restore(
    state: dict[str, Any] | None,
    config: TrainConfig,
    network: nn.Module,
    average: WeightAverage,
    optimizer: torch.optim.Optimizer,
    fabric: Fabric,
) -> Place:
    """Put the run where its checkpoint left it."""
    if state is None:
        return Place()
    network.load_state_dict(state["network"])
    average.network.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    if "scaler" in state and scaler_state(fabric):
        fabric.strategy.precision.scaler.load_state_dict(state["scaler"])
    place = Place(state["step"], state["elapsed_s"], state.get("extended_at"))
    before = yaml.safe_load(state["config"])["trainer"]
    earlier = replace(config.trainer, max_steps=before["max_steps"], max_minutes=before["max_minutes"])
    done = share_done(place.step, place.elapsed_s, config.trainer)
    if share_done(place.step, place.elapsed_s, earlier) >= 1 and done < 1:
        place = replace(place, extended_at=place.step)
        logger.info(
            "the run had ended at step %d and is extended: the learning rate goes on from %.3g (trainer.extend=%s)",
            place.step, place.learning_rate(done, config), config.trainer.extend,
        )  # fmt: skip
    return place


def scaler_state(fabric: Fabric) -> dict[str, Any]:
    """State of the loss scaler, which half precision on a GPU has."""
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    return {} if scaler is None else {"scaler": scaler.state_dict()}
