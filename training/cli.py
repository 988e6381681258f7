"""``operandoseg-train``: Hydra overrides in, a run folder with a model bundle out."""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tqdm import tqdm

from seg.errors import SegError, UsageError
from seg.progress import silent
from seg.resources import config_names, configs_dir
from training.config import compose_config, to_train_config
from training.plan import PLAN, planned

GROUPS = ("experiment", "data", "model", "loss", "optimizer", "augment", "trainer", "debug")
# How images are cut and predicted on: said again for every size of image and every change of the weights.
_SAID_TOO_OFTEN = ("seg.runner", "seg.tiling")
EPILOG = """examples:
  operandoseg-train experiment=generalist trainer.max_minutes=10
  operandoseg-train name=mine data=[folder] data.sources.mine.images='frames/*.tif' ... trainer.max_minutes=30
  operandoseg-train --config-dir my_configs name=mine data=[my_cell,synthetic] trainer.max_steps=4000
  operandoseg-train plan=auto data=folder ...              choose patch, depth, batch from the data, with reasons
  operandoseg-train experiment=finetune data.root=. ...    start from the shipped model; few labels are enough
  operandoseg-train -m data.folds=5 data.fold=0,1,2,3,4 ...   cross-validation
  operandoseg-train -m experiment=generalist optimizer.lr=1e-3,3e-3      one run per value

exit codes: 0 ok, 2 configuration, 3 some runs of a sweep failed, 4 no image matched, 5 data or labels invalid,
75 interrupted and resumable, 130 Ctrl-C (the same command continues), 1 a bug"""


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or show the configuration; returns the exit code."""
    args = _parser().parse_intermixed_args(argv)  # options and overrides in any order
    quiet = args.quiet or not _is_first_process()
    shown = logging.StreamHandler(sys.stderr)
    shown.addFilter(lambda record: record.levelno > logging.INFO or record.name not in _SAID_TOO_OFTEN)
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s", handlers=[shown])
    try:
        if args.cfg == "job":
            config = compose_config(args.overrides, config_dir=args.config_dir)
            print(OmegaConf.to_yaml(config), end="")
            return 0
        if args.cfg == "plan":
            words = [*args.overrides, "plan=auto", "trainer.max_steps=1"]  # how long decides nothing here
            config = to_train_config(compose_config(words, config_dir=args.config_dir))
            print(planned(config, _given_keys(args.overrides), keep=False)[1], end="")
            return 0
        if args.multirun:
            return _sweep(args)
        return _train(args.overrides, args)
    except SegError as error:
        print(f"operandoseg-train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("operandoseg-train: stopped by Ctrl-C; the same command continues.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    groups = "\n".join(f"  {group:11s} {', '.join(config_names(group))}" for group in GROUPS)
    parser = argparse.ArgumentParser(
        prog="operandoseg-train",
        description="Train a U-Net on labelled images and drawn scenes, and export it as a model bundle.",
        epilog=f"configuration groups (in {configs_dir().name}/):\n{groups}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides; --cfg job shows all keys")
    parser.add_argument(
        "--cfg",
        "-c",
        choices=["job", "plan"],
        help="show the configuration, or what plan=auto would choose and why, and stop",
    )
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="folder of further YAML files (data/mine.yaml)")
    parser.add_argument("--multirun", "-m", action="store_true", help="one run per combination of a=1,2 values")
    parser.add_argument("--quiet", "-q", action="store_true", help="warnings and errors only")
    return parser


def _train(overrides: Sequence[str], args: argparse.Namespace) -> int:
    config = to_train_config(compose_config(overrides, config_dir=args.config_dir))
    # Threads that spin while they wait make a step five times slower when another program needs a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # torch and Lightning take seconds to load: a misspelt key is told before.
    from training.loop import CHECKPOINT, prepare, train

    progress = (
        silent
        if args.quiet or not _is_first_process()
        else partial(tqdm, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)
    )
    if config.plan != "none":
        keep = config.trainer.resume != "none" and (config.run_dir / CHECKPOINT).is_file()
        config, text = planned(config, _given_keys(overrides), keep=keep, progress=progress)
        config.run_dir.mkdir(parents=True, exist_ok=True)
        (config.run_dir / PLAN).write_text(text, encoding="utf-8")
        logging.getLogger(__name__).info("the plan and its reasons: %s", config.run_dir / PLAN)
    data = prepare(config, progress=progress)
    result = train(config, data, progress=progress, quiet=args.quiet)
    if not _is_first_process():
        return 0
    if not result.scores.empty:
        print(result.scores.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"{result.steps} steps in {result.elapsed_s / 60:.1f} min; model: {result.model_dir}")
    return 0


def _given_keys(overrides: Sequence[str]) -> set[str]:
    """Keys that the command line sets; a plan leaves them alone."""
    return {override.get_key_element().lstrip("+~") for override in _parsed(overrides)}


def _is_first_process() -> bool:
    """Whether this is the process the user started, not one that Fabric made for another device."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _sweep(args: argparse.Namespace) -> int:
    """Run every combination; those that fail are listed at the end, the others go on."""
    failed = []
    jobs = list(_combinations(args.overrides))
    for overrides in jobs:
        if compose_config(overrides, config_dir=args.config_dir)["trainer"]["devices"] > 1:
            raise UsageError("A sweep runs in one process; with trainer.devices above 1, start its runs one by one.")
    for number, overrides in enumerate(jobs):
        varied = [o for o in overrides if o not in args.overrides]
        suffix = f"sweep{number}"
        name = compose_config(overrides, config_dir=args.config_dir).get("name") if varied else None
        job = [*overrides, f"name={name}-{suffix}"] if varied else list(overrides)
        print(f"run {number + 1} of {len(jobs)}: {' '.join(varied)}", file=sys.stderr)
        try:
            _train(job, args)
        except SegError as error:
            if error.exit_code == 75:
                raise
            failed.append((varied, error))
    for varied, error in failed:
        print(f"failed: {' '.join(varied)}: {error}", file=sys.stderr)
    return 3 if failed else 0


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from error


def _combinations(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    parsed = _parsed(overrides)
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()] if o.is_sweep_override() else [given]
        for o, given in zip(parsed, overrides, strict=True)
    ]
    return list(itertools.product(*choices))
