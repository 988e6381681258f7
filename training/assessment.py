"""The closing scores of a model: whole held-out images against simple baselines, its probabilities, its numbers.

``python -m training.assessment --model NAME|DIR --out DIR <overrides>`` does the same for a finished model on the
data of the overrides, such as ``data=[sem_dendrites]``; ``--texture-only N`` adds twins whose classes differ by
texture alone, and ``--into-card TEXT`` puts what was found into the model's card (TEXT says on what data) and
calibrates its probabilities.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from seg.analysis import AnalysisConfig, load_analysis
from seg.errors import UsageError
from seg.evaluation import Tally, metric_errors, summarise_errors
from seg.io.results import write_json, write_table
from seg.labels import LabelSchema
from seg.measure import measure_frames
from seg.metrics.table import Scale, to_table
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, read_grey
from seg.reliability import calibration_error, draw_reliability, fit_temperature, reliability, temper, top_choice
from seg.segmentation import Segmentation
from seg.stack import Stack
from seg.synthetic import make_experiment
from training import apply
from training.baselines import BASELINES
from training.command import run_module
from training.export import put_into_card
from training.label_codes import LabelCodes
from training.sources import LabelledImage

logger = logging.getLogger(__name__)

NETWORK = "network"
_SAMPLED_PX = 20_000  # of each image, for the probabilities
_SCORED = 40  # images of a source
_MEASURED = 8  # images of a source whose numbers are compared
_FRAME_GROUPS = ("counting", "size", "cover", "sei")  # of an analysis, those that need no series
_TEXTURE_FAMILIES = ("nucleation", "dendrite", "pits", "dead")

ANALYSES = {"optical": "optical-plan", "xct": "xct-cell", "cryoem": "cryoem-sei", "sem": "sem"}
"""Shipped analysis by which the numbers of each modality are compared."""

Probabilities = Callable[[np.ndarray], np.ndarray]
"""Normalised image ([Z,] Y, X) -> probabilities (K, [Z,] Y, X) in the order of the codes' outputs."""


@dataclass(frozen=True)
class Assessment:
    """What was found.

    Parameters
    ----------
    scores : DataFrame
        Columns of ``metrics.csv`` after ``source`` and ``image_method``: one row per source, method, class and score.
    temperature : float
        Fitted to all held-out images; 1 where there are none.
    calibration : DataFrame
        Per source the calibration error as the network states its probabilities (``ece``), and under a temperature
        fitted to the other specimens (``ece_tempered``).
    errors : DataFrame
        Per source, method and metric what the mask error does to it, flagged ``low-confidence`` where its intervals
        hold the truth too seldom.
    """

    scores: pd.DataFrame
    temperature: float
    calibration: pd.DataFrame
    errors: pd.DataFrame


def assess(
    probabilities: Probabilities, images: Sequence[LabelledImage], codes: LabelCodes, schema: LabelSchema,
    modalities: dict[str, str], out: Path, *, seed: int = 0, baselines: bool = True,
) -> Assessment:  # fmt: skip
    """Score the held-out images and write the tables to `out`.

    Parameters
    ----------
    probabilities : callable
        The network.
    images : sequence of LabelledImage
        Baselines are fitted to those that are not held out.
    codes : LabelCodes
    schema : LabelSchema
    modalities : dict of str to str
        Of each source.
    out : Path
        Gets ``evaluation.csv``, ``images.csv``, ``calibration.csv``, ``reliability.csv``, ``reliability.png``,
        ``metric_summary.csv`` and ``temperature.json``.
    seed : int
    baselines : bool
        Whether to fit and score `BASELINES` too.
    """
    tables, per_image, errors, stated, fitted = [], [], [], [], {}
    for source in dict.fromkeys(item.source for item in images):
        mine = [item for item in images if item.source == source]
        held_out, trained = [i for i in mine if i.held_out], [i for i in mine if not i.held_out]
        if not held_out:
            continue
        if len(held_out) > _SCORED:
            logger.info("%s: %d of %d held-out images are assessed, spread evenly", source, _SCORED, len(held_out))
            held_out = _spread(held_out, _SCORED)
        questions = _questions(mine, codes, schema)
        predictors = {}
        if baselines and len({int(c) for item in trained for c in np.unique(item.codes) if c}) >= 2:
            predictors = {name: fit(trained, seed) for name, fit in BASELINES.items()}
        tallies = {
            name: Tally(list(questions), Scale((1.0,) * held_out[0].image.ndim, calibrated=False))
            for name in (NETWORK, *predictors)
        }
        rng = np.random.default_rng(seed)
        measured = {id(item) for item in _spread(held_out, _MEASURED)}
        rows: dict[str, list[pd.DataFrame]] = {name: [] for name in tallies}
        for item in held_out:
            shares = probabilities(item.image)
            stated.append((source, item.specimen, *_sample(shares, item.codes, codes, rng)))
            found = {NETWORK: shares.argmax(axis=0).astype(np.uint8) + 1}
            found |= {name: predict(item.image) for name, predict in predictors.items()}
            for name, output in found.items():
                tallies[name].add_masks(
                    dict(_masks(output, item.codes, questions, codes)), image=item.name, specimen=item.specimen
                )
                if id(item) in measured:
                    rows[name].append(_numbers(output, item.codes, codes, schema, _analysis(modalities[source])))
        for name, tally in tallies.items():
            tables.append(_labelled(tally.table(), source, name))
            per_image.append(_labelled(tally.images(), source, name))
            errors.append(_labelled(summarise_errors(pd.concat(rows[name], ignore_index=True)), source, name))
    fitted["temperature"], calibration, curves = _calibrate(stated)
    joined = [pd.concat(parts, ignore_index=True) if parts else pd.DataFrame() for parts in (tables, per_image, errors)]
    for table, name in zip(
        (*joined, calibration), ("evaluation", "images", "metric_summary", "calibration"), strict=True
    ):
        write_table(table, out / f"{name}.csv")
    if curves:
        parts = [table.assign(source=source) for source, table in curves.items()]
        write_table(pd.concat(parts, ignore_index=True), out / "reliability.csv")
        draw_reliability(curves, out / "reliability.png")
    write_json(fitted, out / "temperature.json")
    _warn_of_numbers(joined[2])
    return Assessment(joined[0], fitted["temperature"], calibration, joined[2])


def _warn_of_numbers(errors: pd.DataFrame) -> None:
    """Say of which numbers the network's masks are not good enough for the intervals that come with them."""
    if errors.empty:  # nothing is held out
        return
    doubted = errors[(errors["model"] == NETWORK) & (errors["flags"] != "")]
    for source, part in doubted.groupby("source", sort=False):
        held = [
            f"{r['metric']} of {r['class']} {r['truth_in_interval'] * r['n_intervals']:.0f} of {r['n_intervals']}"
            for _, r in part.iterrows()
        ]
        logger.warning(
            "%s: errors of the masks move numbers further than their intervals say; so few of these hold the truth: %s",
            source, ", ".join(held),
        )  # fmt: skip


def _labelled(table: pd.DataFrame, source: str, name: str) -> pd.DataFrame:
    table = table.copy()
    table.insert(0, "source", source)
    table.insert(1, "model", name)
    return table


def _spread(items: Sequence[LabelledImage], n: int) -> list[LabelledImage]:
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int))]


# --- masks ----------------------------------------------------------------------------------------------------------


def _questions(images: Sequence[LabelledImage], codes: LabelCodes, schema: LabelSchema) -> dict[str, set[int]]:
    """What the labels of a source can be asked: its classes and sets of classes, by name, as network outputs."""
    held = sorted({int(code) for item in images for code in np.unique(item.codes) if code})
    names = {code: "|".join(schema.class_name(codes.class_indices[k]) for k in codes.members(code)) for code in held}
    return {names[code]: set(codes.members(code)) for code in held}


def _masks(
    output: np.ndarray, truth: np.ndarray, questions: dict[str, set[int]], codes: LabelCodes
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Per question the mask predicted, the true one, and where the labels answer it."""
    members = [set(codes.members(code)) for code in range(codes.n_codes)]
    for name, wanted in questions.items():
        inside = np.array([bool(m) and m <= wanted for m in members])
        outside = np.array([bool(m) and not m & wanted for m in members])
        yield name, (inside[output], inside[truth], (inside | outside)[truth])


# --- numbers --------------------------------------------------------------------------------------------------------


def _analysis(modality_name: str) -> AnalysisConfig:
    """The shipped analysis of a modality, with the groups that a single image answers."""
    preset = load_analysis(ANALYSES[modality_name])
    return replace(preset, metrics={k: v for k, v in preset.metrics.items() if k in _FRAME_GROUPS})


def _numbers(
    output: np.ndarray, truth: np.ndarray, codes: LabelCodes, schema: LabelSchema, analysis: AnalysisConfig
) -> pd.DataFrame:
    """What the error of one mask does to the numbers of one image, in pixels.

    Classes that the labels do not tell apart are measured as the first of them that the analysis counts as an object.
    """
    value = np.zeros(codes.n_codes, np.uint8)
    for code in range(1, codes.n_codes):
        names = [schema.class_name(codes.class_indices[k]) for k in codes.members(code)]
        value[code] = schema.index(next((n for n in names if n in analysis.objects.classes), names[0]))
    for code in np.unique(truth):  # a class predicted within a set counts as the set does
        for k in codes.members(int(code)) if len(codes.members(int(code))) > 1 else ():
            value[k + 1] = value[code]
    tables = []
    for mask in (np.where(truth == 0, 0, output), truth):
        stack = Stack(value[mask], "zyx"[-mask.ndim :], name="held-out image")
        result = next(iter(measure_frames(Segmentation(stack, schema), analysis)))
        tables.append(to_table(result.measurements))
    return metric_errors(*tables)


# --- probabilities --------------------------------------------------------------------------------------------------


def _sample(
    shares: np.ndarray, truth: np.ndarray, codes: LabelCodes, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) of labelled pixels drawn at random, and the classes (N, K) their labels leave open."""
    open_to = np.zeros((codes.n_codes, codes.n_classes), bool)
    for code in range(1, codes.n_codes):
        open_to[code, list(codes.members(code))] = True
    place = np.flatnonzero(truth)
    place = rng.choice(place, min(_SAMPLED_PX, len(place)), replace=False)
    return shares.reshape(len(shares), -1)[:, place].T, open_to[truth.ravel()[place]]


def _calibrate(
    stated: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
) -> tuple[float, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Temperature of all, calibration errors per source, and reliability per source before and after."""
    if not stated:
        return 1.0, pd.DataFrame(columns=["source", "pixels", "ece", "ece_tempered", "specimens"]), {}
    temperature = fit_temperature(np.concatenate([s[2] for s in stated]), np.concatenate([s[3] for s in stated]))
    specimens = list(dict.fromkeys((source, specimen) for source, specimen, *_ in stated))
    # Each specimen under the temperature of the others, so that the error told is that of a new one.
    by_others = {}
    for left_out in specimens:
        rest = [s for s in stated if s[:2] != left_out]
        by_others[left_out] = (
            fit_temperature(np.concatenate([s[2] for s in rest]), np.concatenate([s[3] for s in rest])) if rest else 1.0
        )
    rows, curves = [], {}
    for source in dict.fromkeys(s[0] for s in stated):
        mine = [s for s in stated if s[0] == source]
        allowed = np.concatenate([s[3] for s in mine])
        plain = reliability(*top_choice(np.concatenate([s[2] for s in mine]), allowed))
        tempered = np.concatenate([temper(s[2], by_others[s[:2]], axis=1) for s in mine])
        mended = reliability(*top_choice(tempered, allowed))
        curves[source] = plain
        if len(specimens) > 1:  # else nothing was left to fit a temperature to, and the curve would be the same
            curves[f"{source}, tempered"] = mended
        rows.append(
            {
                "source": source, "pixels": len(allowed), "ece": calibration_error(plain),
                "ece_tempered": calibration_error(mended) if len(specimens) > 1 else np.nan,
                "specimens": len({s[1] for s in mine}),
            }
        )  # fmt: skip
    return temperature, pd.DataFrame(rows), curves


# --- for finished models --------------------------------------------------------------------------------------------


def texture_twins(n: int, codes: LabelCodes, schema: LabelSchema) -> list[LabelledImage]:
    """Twins whose classes have one mean grey value, two thirds to train baselines on and a third held out."""
    table = np.zeros(256, np.uint8)
    for k, index in enumerate(codes.class_indices):
        table[index] = k + 1
    found = []
    for family in _TEXTURE_FAMILIES:
        for seed in range(n):
            twin = make_experiment(family, 9000 + seed, texture_only=True, shape_px=(256, 288), n_frames=5)
            normalisation = SeriesNormalisation.fit(twin.images, modality("optical").normalisation_percentiles)
            t = twin.images.n_frames - 1
            found.append(
                LabelledImage(
                    "texture_only", f"{family}-{seed}", f"{family}-{seed}",
                    normalisation.apply(read_grey(twin.images, t)).astype(np.float16), table[twin.labels.frame(t)],
                    held_out=seed % 3 == 2,
                )
            )  # fmt: skip
    return found


def assess_network(
    network: nn.Module, images: Sequence[LabelledImage], codes: LabelCodes, schema: LabelSchema,
    modalities: dict[str, str], out: Path, *, device: torch.device, precision: str, seed: int = 0,
    baselines: bool = True,
) -> Assessment:  # fmt: skip
    """`assess` for a network in training."""

    def probabilities(image: np.ndarray) -> np.ndarray:
        return apply.probabilities(network, image, device=device, precision=precision)

    return assess(probabilities, images, codes, schema, modalities, out, seed=seed, baselines=baselines)


def main(words: Sequence[str] | None = None) -> int:
    """The command of this module; see its docstring."""
    from seg.models.bundle import load_bundle
    from training.config import compose_config, to_train_config
    from training.sources import load_sources

    parser = argparse.ArgumentParser(prog="python -m training.assessment", description=__doc__)
    parser.add_argument("--model", required=True, help="name or folder of a finished model")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument(
        "--texture-only", type=int, default=0, metavar="N", help="twins of each of four families, 3 or more"
    )
    parser.add_argument("--into-card", metavar="TEXT", help="update the model; TEXT names the data in its card")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="as for operandoseg-train: data=[...] data.root=...")
    asked = parser.parse_args(words)
    if 0 < asked.texture_only < 3:
        raise UsageError(
            f"--texture-only {asked.texture_only}; expected 3 or more: every third twin is scored, baselines learn "
            "from the others."
        )
    bundle = load_bundle(asked.model)
    config = to_train_config(
        compose_config(["name=assessment", "trainer.max_steps=1", *asked.overrides, *(
            [] if asked.overrides else ["data.synthetic.weight=1"]
        )])
    )  # fmt: skip
    schema = bundle.spec.label_schema
    images, codes = load_sources(config.data, bundle.spec.class_indices, schema) if config.data.sources else ([], None)
    if codes is None:
        codes = LabelCodes(bundle.spec.class_indices, ())
    if codes.class_indices != bundle.spec.class_indices:
        raise UsageError(f"The data label classes that {bundle.spec.name!r} does not predict.")
    images = [*images, *texture_twins(asked.texture_only, codes, schema)]
    modalities = {name: source.modality for name, source in config.data.sources.items()} | {"texture_only": "optical"}
    device = torch.device(asked.device)
    found = assess_network(
        bundle.network, images, codes, schema, modalities, asked.out, device=device, precision="auto"
    )  # fmt: skip
    if asked.into_card:
        put_into_card(bundle.path, found, asked.into_card)
    shown = found.scores[found.scores["metric"].isin(["iou", "boundary_f1", "panoptic_quality"])]
    shown = shown.pivot_table(index=["source", "class", "model"], columns="metric", values="value", sort=False)
    logging.getLogger().info("\n%s\n%s", shown.round(3).to_string(), found.calibration.round(4).to_string(index=False))
    return 0


if __name__ == "__main__":
    run_module(main)
