"""Scenes whose classes differ by texture alone: what do strokes in one image buy on the others of the experiment?

::

    python -m training.texture --out runs/texture --experiments 3 --models generalist-2d optical-2d

Every experiment is a twin in which all classes have one mean grey value. One stroke per class is drawn on the last
frame; two frames before it are scored: the models as they are, each after ``experiment=finetune`` on those strokes, and
a forest on pixels and a threshold fitted to the same strokes. An experiment that is finished is not computed again.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from seg.io.results import write_table
from seg.labels import LabelSchema, load_schema
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, read_grey
from seg.synthetic import make_experiment
from training.command import run_module
from training.config import compose_config, to_train_config
from training.label_codes import LabelCodes
from training.learning_curve import as_it_is, strokes
from training.loop import TrainingData, train
from training.sources import LabelledImage

logger = logging.getLogger(__name__)

FAMILIES = ("nucleation", "dendrite", "pits", "dead")
_FIRST_SEED = 9000
_SOURCE = "mine"


def texture_experiment(family: str, seed: int, schema: LabelSchema) -> TrainingData:
    """A texture-only twin of five frames: strokes on the last, the third and fourth held out with dense labels."""
    twin = make_experiment(family, seed, texture_only=True, shape_px=(256, 288), n_frames=5)
    normalisation = SeriesNormalisation.fit(twin.images, modality("optical").normalisation_percentiles)
    values = {t: twin.labels.frame(t) for t in (2, 3, 4)}
    classes = tuple(int(v) for v in np.unique(values[4]) if v)
    table = np.zeros(256, np.uint8)  # a class that the strokes do not show is neither learnt nor scored
    table[list(classes)] = np.arange(1, len(classes) + 1)
    images = []
    for t, labels in values.items():
        codes = table[labels]
        drawn = strokes(codes, np.random.default_rng(seed)) if t == 4 else codes
        grey = normalisation.apply(read_grey(twin.images, t)).astype(np.float16)
        images.append(LabelledImage(_SOURCE, f"frame{t}", f"{family}-{seed}", grey, drawn, held_out=t != 4, time=t))
    return TrainingData(schema, LabelCodes(classes, ()), images, None, None)


def compare(
    out: Path, *, models: Sequence[str], experiments: int, steps: int, words: Sequence[str] = ()
) -> pd.DataFrame:
    """Score everything on every experiment; writes ``texture.csv``.

    Returns
    -------
    DataFrame
        ``family``, ``seed``, ``method``, ``iou`` (mean over classes).
    """
    schema, rows = load_schema("lithium"), []
    given = [f"data.sources.{_SOURCE}.{key}=none/*" for key in ("images", "labels")]
    for family in FAMILIES:
        for seed in range(_FIRST_SEED, _FIRST_SEED + experiments):
            data = texture_experiment(family, seed, schema)
            for number, model in enumerate(models):
                config = to_train_config(compose_config([
                    f"name={family}-{seed}-{model}", f"runs={out}", "experiment=finetune", f"model.init={model}",
                    *given, f"data.sources.{_SOURCE}.modality=optical", f"trainer.max_steps={steps}",
                    "trainer.max_minutes=null", "trainer.score_every=0", "trainer.patience=0", *words,
                ]))  # fmt: skip
                found = {f"{model} as it is": as_it_is(config, data, out / f"{config.name}-start")}
                if not (config.run_dir / "assessment" / "evaluation.csv").is_file():
                    train(replace(config, trainer=replace(config.trainer, baselines=number == 0)), data, quiet=True)
                scores = pd.read_csv(config.run_dir / "assessment" / "evaluation.csv")
                for name, part in scores.groupby("model"):
                    found[f"{model} fine-tuned" if name == "network" else str(name)] = part
                for method, part in found.items():
                    iou = part[(part["metric"] == "iou") & (part["class"] == "all")]["value"]
                    rows.append({"family": family, "seed": seed, "method": method, "iou": float(iou.iloc[0])})
            table = pd.DataFrame(rows)
            write_table(table, out / "texture.csv")
    shown = table.pivot_table(index="method", columns="family", values="iou", sort=False)
    logger.info("mean IoU over classes:\n%s", shown.assign(mean=shown.mean(axis=1)).round(3).to_string())
    return table


def main(words: Sequence[str] | None = None) -> int:
    """The command of this module; see its docstring."""
    parser = argparse.ArgumentParser(prog="python -m training.texture", description="Classes of one grey value.")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--models", nargs="+", default=["generalist-2d"], help="names or folders")
    parser.add_argument("--experiments", type=int, default=3, help="of each of four families (default: 3)")
    parser.add_argument("--steps", type=int, default=200, help="of every run (default: 200)")
    parser.add_argument("--overrides", nargs="*", default=[], help="as for operandoseg-train")
    asked = parser.parse_args(words)
    compare(
        asked.out, models=asked.models, experiments=asked.experiments, steps=asked.steps, words=asked.overrides
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run_module(main)
