"""The training run: prepare, step, score, save, continue, export.

The loop is written on Lightning's Fabric rather than its Trainer: a step is a function of the seed and its number, so a
run that was killed continues bit by bit from its last checkpoint, and the schedule can follow a wall-clock budget.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import yaml
from lightning.fabric import Fabric
from torch import nn

from seg.errors import DataError, SegError, UsageError
from seg.labels import LabelSchema, load_schema
from seg.models import ARCHITECTURES
from seg.models.device import resolve_device, resolve_precision
from seg.progress import Progress, silent
from training.anchor import Anchor, between, freeze_statistics, make_anchor, without_guesses
from training.assessment import assess_network
from training.checkpoint import save_checkpoint
from training.config import TrainConfig, TrainerConfig
from training.dataset import Batches, PatchDataset, make_loader
from training.export import export_bundle
from training.guesses import GUESSED
from training.initial import load_initial_weights, made_for
from training.label_codes import LabelCodes
from training.losses import MaskedLoss
from training.optim import Best, WeightAverage, make_optimizer, quality
from training.pictures import draw_worst
from training.preview import Preview
from training.records import Records, StopRequest, bar, open_log
from training.resume import CHECKPOINT, find_checkpoint, restore, scaler_state, share_done
from training.scoring import COLUMNS, score, summary
from training.second_image import hardly_labelled, keep_some_back, named_rightly
from training.sources import LabelledImage, load_sources
from training.splits import presence, warn_of_absent_classes
from training.synthetic import SyntheticPool

logger = logging.getLogger(__name__)

STEP_COLUMNS = ["step", "elapsed_s", "progress", "loss", "lr", "grad_norm", "step_s", "wait_share"]


@dataclass
class TrainingData:
    """Everything a run learns from and is scored on."""

    schema: LabelSchema
    codes: LabelCodes
    images: list[LabelledImage]
    synthetic: SyntheticPool | None
    synthetic_held_out: SyntheticPool | None


@dataclass(frozen=True)
class RunResult:
    """What a finished run left behind."""

    run_dir: Path
    model_dir: Path
    scores: pd.DataFrame
    steps: int
    elapsed_s: float


def prepare(config: TrainConfig, *, progress: Progress = silent) -> TrainingData:
    """Read and check all data before the first step."""
    schema = load_schema(config.data.schema)
    drawn = config.data.synthetic
    exact = [schema.index(name) for name in drawn.classes] if drawn.weight > 0 else []
    if drawn.weight > 0 and not exact:
        raise UsageError("data.synthetic.classes is empty; data=[synthetic] has the list that fits the scenes.")
    images, codes = load_sources(config.data, exact, schema, dims=config.model.dims, progress=progress)
    if codes.n_classes < 2:
        only = ", ".join(schema.class_name(i) for i in codes.class_indices) or "nothing"
        raise DataError(f"The training labels hold {only}; a model needs at least two classes to tell apart.")

    warn_of_absent_classes(presence(images, codes, schema))

    def pool(stream: int, n: int) -> SyntheticPool | None:
        if drawn.weight <= 0 or n == 0:
            return None
        return SyntheticPool(drawn, codes, schema, seed=config.data.seed, stream=stream, n=n)

    return TrainingData(schema, codes, images, pool(0, drawn.pool), pool(1, drawn.held_out))


def build_network(config: TrainConfig, codes: LabelCodes) -> nn.Module:
    """The network of the configuration with one output per class."""
    arguments = network_arguments(config, codes)
    if config.model.architecture not in ARCHITECTURES:
        raise UsageError(
            f"model.architecture={config.model.architecture}; there are {', '.join(sorted(ARCHITECTURES))}."
        )
    try:
        return ARCHITECTURES[config.model.architecture](**arguments)
    except (ValueError, TypeError) as error:  # an ensemble is joined from finished models, not trained
        raise UsageError(f"model: {error}") from error


def network_arguments(config: TrainConfig, codes: LabelCodes) -> dict:
    """Arguments of the architecture's builder, as they go into the bundle."""
    chosen = {key: value for key, value in asdict(config.model).items() if key not in ("architecture", "init")}
    return {"in_channels": 1, "n_classes": codes.n_classes, **chosen}


def train(config: TrainConfig, data: TrainingData, *, progress: Progress = silent, quiet: bool = False) -> RunResult:
    """Run or continue the training of `config` and export the model.

    With several processes (``trainer.devices``) the first one writes; the others return its folders and no scores.

    Raises
    ------
    InterruptedRunError
        After SIGTERM, once the checkpoint is written. KeyboardInterrupt likewise after Ctrl-C.
    """
    fabric, precision = _make_fabric(config.trainer)
    run_dir = config.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.data.seed)
    network = build_network(config, data.codes)
    # On its device before the optimiser takes its parameters: what a checkpoint restores of it goes where they are.
    network = network.to(fabric.device, memory_format=layout(network.dims))
    for key in ("patch_px", "patch_z_px"):
        if (getattr(config.data, key) or 0) % network.tile_multiple:
            raise UsageError(f"data.{key}={getattr(config.data, key)} must be a multiple of {network.tile_multiple}.")
    checkpoint = find_checkpoint(run_dir, config, data.codes, fabric)
    anchor, seen, keep = None, data.images, 0.0
    kept: list[LabelledImage] = []
    if config.model.init is not None and config.loss.anchor and config.trainer.patience:
        seen, kept = keep_some_back(data.images, seed=config.data.seed)
    if config.model.init is not None and (checkpoint is None or config.loss.anchor):
        known = load_initial_weights(network, config, data.codes, data.schema)
        if config.loss.anchor and len(known) > 1:
            anchor, seen, keep = make_anchor(
                network, known, config.loss.anchor, seen, data.codes, device=fabric.device,
                precision=precision, seed=config.data.seed, made_for_these=made_for(config),
            )  # fmt: skip
    few = config.model.init is None and hardly_labelled(data.images)
    if few and config.loss.guesses and data.codes.n_codes <= GUESSED:
        anchor, seen, keep = make_anchor(
            network, [], config.loss.guesses, seen, data.codes, device=fabric.device, precision=precision,
            seed=config.data.seed,
        )  # fmt: skip
    optimizer = make_optimizer(network, config.optimizer)
    average = WeightAverage(network, config.optimizer.ema_decay)
    place = restore(checkpoint, config, network, average, optimizer, fabric)
    step, elapsed_s = place.step, place.elapsed_s
    is_scored = any(item.held_out for item in data.images) or bool(data.synthetic_held_out)
    best = Best(config.trainer.patience if is_scored or kept else 0, checkpoint)
    if fabric.is_global_zero:
        _write_run_files(run_dir, config)
        presence(data.images, data.codes, data.schema).to_csv(run_dir / "split.csv", index=False)
    average.network.to(fabric.device)
    loss_of = MaskedLoss(data.codes, config.loss, class_weights(config, data)).to(fabric.device)
    network, optimizer = fabric.setup(network, optimizer)
    dataset = PatchDataset(seen, data.synthetic, config.data, config.augment, data.codes.ground(data.schema))
    preview = Preview(
        run_dir / "preview.png", data.images, data.codes, data.schema, device=fabric.device, precision=precision
    )
    log = open_log(run_dir, config, STEP_COLUMNS, step=step, write=fabric.is_global_zero)
    scores_csv = Records(run_dir / "scores.csv", COLUMNS, keep_below=step, write=fabric.is_global_zero)

    def save() -> None:
        if fabric.is_global_zero:
            state = {
                "step": step,
                "elapsed_s": elapsed_s,
                "extended_at": place.extended_at,
                "class_indices": list(data.codes.class_indices),
                "network": network.state_dict(),
                "average": average.network.state_dict(),
                "optimizer": optimizer.state_dict(),
                **best.state_dict(),
                **scaler_state(fabric),
            }
            save_checkpoint(run_dir / CHECKPOINT, state, config)
        fabric.barrier()

    def shipped() -> nn.Module:
        return average.network if anchor is None else between(average.network, anchor.start, keep)

    def worth(table: pd.DataFrame) -> float:
        if not kept:
            return quality(table)
        return named_rightly(shipped(), kept, data.codes, device=fabric.device, precision=precision)

    def rate() -> pd.DataFrame:
        scores = score(
            shipped(), data.images, data.synthetic_held_out, config.data, data.codes, data.schema,
            step=step, device=fabric.device, precision=precision,
        )  # fmt: skip
        scores_csv.append(scores.to_dict("records"))
        return scores

    logger.info(
        "%s: %d classes, %.2f M parameters, %s, step %d%s",
        config.name, data.codes.n_classes, sum(p.numel() for p in network.parameters()) / 1e6,
        f"{fabric.device} {precision}", step, " (continued)" if step else "",
    )  # fmt: skip
    if config.model.init is not None and step == 0 and (is_scored or kept) and fabric.is_global_zero:
        table = summary(rate())  # what a run must improve on, and what it may fall back to
        if is_scored:
            _log_summary(table, step)
        best.update(worth(table), step, shipped())
        if kept:
            logger.info("strokes kept from training: %.0f %% named rightly before it", 100 * best.quality)
    done = share_done(step, elapsed_s, config.trainer)
    stopped_early = best.exhausted
    loader = make_loader(
        dataset, batch=config.data.batch, workers=config.data.workers, start_step=step,
        process=fabric.global_rank, n_processes=fabric.world_size, pinned=fabric.device.type == "cuda",
    )  # fmt: skip
    with (
        StopRequest() as stop,
        bar(done, quiet=quiet or not fabric.is_global_zero, desc=config.name) as show,
        Batches(loader) as batches,
    ):
        clock, recent = _clock_from(elapsed_s), _Recent()
        network.train()
        if config.optimizer.freeze_statistics:
            freeze_statistics(network)
        while done < 1 and not stopped_early:
            began = time.perf_counter()
            images, codes = next(batches)
            waited = time.perf_counter() - began
            lr = place.learning_rate(done, config)
            loss, norm = _step(network, optimizer, loss_of, anchor, fabric, images, codes, lr, config, seed=step)
            average.update(network, step)
            step += 1
            elapsed_s, stop_now = _agreed(fabric, clock(), stop.requested is not None)
            done = share_done(step, elapsed_s, config.trainer)
            recent.add(loss, time.perf_counter() - began, waited)
            if step % config.trainer.log_every == 0 or done >= 1:
                row = recent.take()
                if fabric.world_size > 1:
                    row["loss"] = float(fabric.all_reduce(torch.tensor(row["loss"]), reduce_op="mean"))
                if row["loss"] != row["loss"]:
                    raise SegError(f"The loss is not a number at step {step}; lower optimizer.lr.")
                log.add({"step": step, "elapsed_s": elapsed_s, "progress": done, "lr": lr,
                         "grad_norm": float(norm), **row})  # fmt: skip
                text = f"step {step} loss {row['loss']:.3f} {row['step_s']:.2f} s/step, loader {row['wait_share']:.0%}"
                show(done, text)
                if fabric.is_global_zero:
                    preview.draw(average.network, step)
            if stop_now:
                save()
                stop.raise_for(run_dir)
            if config.trainer.score_every and step % config.trainer.score_every == 0 and done < 1:
                if fabric.is_global_zero:
                    table = summary(rate())
                    if is_scored:
                        _log_summary(table, step)
                    log.add_scores(table, step)
                    best.update(worth(table), step, shipped())
                stopped_early = fabric.broadcast(best.exhausted)
                elapsed_s, _ = _agreed(fabric, clock(), False)
                if stopped_early:
                    save()
            if step % config.trainer.save_every == 0 or done >= 1:
                save()
    if not fabric.is_global_zero:
        return RunResult(run_dir, run_dir / "model", pd.DataFrame(), step, elapsed_s)
    scores = rate()
    final = shipped()
    if best.patience:
        best.update(worth(summary(scores)), step, final)
        if kept:
            logger.info("strokes kept from training: %.0f %% named rightly by step %d", 100 * best.quality, best.step)
        if best.step != step:
            logger.info("the weights of step %d scored best and are kept", best.step)
            if not best.step:
                logger.warning("Training made the model no better, so it is shipped as it was; draw more strokes.")
            final.load_state_dict(best.weights)
            scores = score(
                final, data.images, data.synthetic_held_out, config.data, data.codes, data.schema,
                step=best.step, device=fabric.device, precision=precision,
            )  # fmt: skip
    table = summary(scores)
    if config.model.init is not None:
        _warn_if_worse(scores_csv.path, table)
    table.to_csv(run_dir / "summary.csv", index=False)
    _log_summary(table, step)
    log.add_scores(table, step)
    log.close()
    draw_worst(
        run_dir / "worst_tiles.png", final, data.images, data.codes, data.schema, device=fabric.device,
        precision=precision,
    )  # fmt: skip
    found = assess_network(
        final, data.images, data.codes, data.schema,
        {name: source.modality for name, source in config.data.sources.items()}, run_dir / "assessment",
        device=fabric.device, precision=precision, seed=config.data.seed, baselines=config.trainer.baselines,
    )  # fmt: skip
    model_dir = export_bundle(
        run_dir / "model", final, config, data, table, assessment=found,
        arguments=network_arguments(config, data.codes), steps=best.step if best.patience else step,
        elapsed_s=elapsed_s,
    )  # fmt: skip
    return RunResult(run_dir, model_dir, table, step, elapsed_s)


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: MaskedLoss,
    anchor: Anchor | None,
    fabric: Fabric,
    images: torch.Tensor,
    codes: torch.Tensor,
    lr: float,
    config: TrainConfig,
    *,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update; what is random in it (dropout) depends on the seed and the number of the step alone."""
    torch.manual_seed(config.data.seed * 1_000_003 + seed)
    for group in optimizer.param_groups:
        group["lr"] = lr
    parts = list(zip(images.chunk(config.trainer.accumulate), codes.chunk(config.trainer.accumulate), strict=True))
    optimizer.zero_grad()
    losses = []
    for number, (image_part, code_part) in enumerate(parts, start=1):
        with fabric.no_backward_sync(network, enabled=number < len(parts)):
            image_part = image_part.to(fabric.device, memory_format=layout(images.ndim - 2), non_blocking=True)
            code_part = code_part.to(fabric.device, non_blocking=True)
            logits = network(image_part)
            loss = loss_of(logits, code_part if anchor is None else without_guesses(code_part))
            if anchor is not None:
                with fabric.autocast():
                    loss = loss + anchor(image_part, logits, code_part)
            loss = loss / len(parts)
            fabric.backward(loss)
            losses.append(loss.detach())
    norm = fabric.clip_gradients(network, optimizer, max_norm=config.optimizer.clip_norm, error_if_nonfinite=False)
    optimizer.step()
    return torch.stack(losses).sum(), norm


def class_weights(config: TrainConfig, data: TrainingData) -> list[float] | None:
    """Weight of each network output in the loss; None where all are 1."""
    given = config.loss.class_weights
    if not given:
        return None
    if not isinstance(given, dict) or not all(isinstance(v, int | float) and v > 0 for v in given.values()):
        raise UsageError(f"loss.class_weights={given}; expected {{class: number above 0, ...}}.")
    names = [data.schema.class_name(index) for index in data.codes.class_indices]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise UsageError(f"loss.class_weights: {', '.join(unknown)} is not trained here; there are {', '.join(names)}.")
    return [given.get(name, 1.0) for name in names]


def layout(dims: int) -> torch.memory_format:
    """Memory format in which convolutions of `dims` dimensions are fast."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def _clock_from(elapsed_s: float) -> Callable[[], float]:
    """Seconds of the run so far, earlier sessions included."""
    began = time.monotonic() - elapsed_s
    return lambda: time.monotonic() - began


class _Recent:
    """Means over the steps since the last row of the log."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.step_s, self.wait_s = 0.0, 0.0

    def add(self, loss: torch.Tensor, step_s: float, wait_s: float) -> None:
        self.losses.append(loss)
        self.step_s += step_s
        self.wait_s += wait_s

    def take(self) -> dict[str, float]:
        n = len(self.losses)
        row = {
            "loss": float(torch.stack(self.losses).mean()),
            "step_s": self.step_s / n,
            "wait_share": self.wait_s / self.step_s,
        }
        self.losses, self.step_s, self.wait_s = [], 0.0, 0.0
        return row


def _make_fabric(trainer: TrainerConfig) -> tuple[Fabric, str]:
    device = resolve_device(trainer.device)
    precision = resolve_precision(trainer.precision, device)
    if device.type == "cuda" and trainer.devices > torch.cuda.device_count():
        raise UsageError(
            f"trainer.devices={trainer.devices}, but there are {torch.cuda.device_count()} CUDA device(s)."
        )
    torch.set_num_threads(trainer.threads or max(1, (os.cpu_count() or 1) // trainer.devices))
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)  # it announces the precision, twice
    modes = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    strategy = "ddp" if trainer.devices > 1 else "auto"
    fabric = Fabric(accelerator=device.type, devices=trainer.devices, strategy=strategy, precision=modes[precision])
    fabric.launch()
    return fabric, precision


def _agreed(fabric: Fabric, elapsed_s: float, stop: bool) -> tuple[float, bool]:
    """Time gone and the wish to stop, the same in every process: schedules and ends must not drift apart."""
    if fabric.world_size == 1:
        return elapsed_s, stop
    both = fabric.all_reduce(torch.tensor([elapsed_s, float(stop)], dtype=torch.float64), reduce_op="max")
    return float(both[0]), bool(both[1])


def _write_run_files(run_dir: Path, config: TrainConfig) -> None:
    (run_dir / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
    shutil.rmtree(run_dir / "model", ignore_errors=True)  # a model beside a newer configuration would mislead


def _warn_if_worse(scores_csv: Path, table: pd.DataFrame) -> None:
    """Say so where the start scored better on the held-out images than what became of it."""
    if not scores_csv.is_file() or table.empty:
        return
    every = pd.read_csv(scores_csv)
    before, after = quality(summary(every[every["step"] == 0])), quality(table)
    if after < before:
        logger.warning(
            "The model scores worse on the held-out images than the one it started from (mean IoU %.3f, was %.3f). "
            "Label more, or images that differ more; trainer.patience=4 with trainer.score_every=50 keeps the best.",
            after, before,
        )  # fmt: skip
    else:
        logger.info("mean IoU on the held-out images: %.3f, before training %.3f", after, before)


def _log_summary(table: pd.DataFrame, step: int) -> None:
    if table.empty:
        logger.warning(
            "No image is held out, so nothing says how good the model is; hold some out with "
            "data.sources.NAME.held_out=[SPECIMEN], held_out_share or held_out_block."
        )
        return
    logger.info("step %d, held-out IoU pooled over pixels:", step)
    for (source, method), part in table.groupby(["source", "method"], sort=False):
        shown = "  ".join(f"{r['class']} {r['iou']:.3f}" for _, r in part.iterrows())
        logger.info("  %s (%s): %s", source, method, shown)
