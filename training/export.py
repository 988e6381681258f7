"""The finished run as a model bundle with a card that says what it is good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from torch import nn

from seg import __version__
from seg.errors import UsageError
from seg.io.results import atomic_path, write_json
from seg.modality import MODALITIES, modality
from seg.models.bundle import CARD, SPEC, save_bundle
from seg.models.join import MEMBERS_BELOW
from seg.models.spec import ModelSpec
from training.config import TrainConfig
from training.sources import read_about, rooted

if TYPE_CHECKING:
    from training.assessment import Assessment
    from training.loop import TrainingData

_SHOWN = {"iou": "IoU", "dice": "Dice", "boundary_f1": "boundary F1", "panoptic_quality": "PQ"}
_FAILURES = "## Known failures"
_LATER = "What follows was found after the training, on"


def export_bundle(
    path: Path,
    network: nn.Module,
    config: TrainConfig,
    data: TrainingData,
    scores: pd.DataFrame,
    *,
    assessment: Assessment,
    arguments: dict,
    steps: int,
    elapsed_s: float,
) -> Path:
    """Write weights, specification and card to `path`."""
    modalities = _modalities(config)
    split = split_of(data)
    percentiles = {modality(name).normalisation_percentiles for name in modalities}
    spec = ModelSpec(
        name=config.name,
        architecture=config.model.architecture,
        arguments=arguments,
        schema=data.schema.to_dict(),
        class_indices=data.codes.class_indices,
        dims=config.model.dims,
        modalities=modalities,
        pixel_size_um=config.data.pixel_size_um or None,
        pixel_size_range_um=_pixel_size_range(config),
        **({"normalisation": {"percentiles": list(*percentiles)}} if len(percentiles) == 1 else {}),
        temperature=round(assessment.temperature, 4),
        licence="BSD-3-Clause; data: see card.md",
        slices=config.data.slices,
        views=tuple(config.data.views),
        training={
            "steps": steps,
            "minutes": round(elapsed_s / 60, 2),
            "batch": config.data.batch,
            "patch_px": config.data.patch_px,
            "seed": config.data.seed,
            "split": split,
            "scores": [
                {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
                for row in scores.round(4).to_dict("records")
            ],
        },
    )
    card = make_card(config, data, scores, assessment, steps=steps, elapsed_s=elapsed_s)
    save_bundle(path, network, spec, card, seed=config.data.seed)
    return path


def _listed(specimens: list[str]) -> str:
    """Names as far as they are few; all of them stand in ``model.json``."""
    return (
        ", ".join(specimens) or "none"
        if len(specimens) <= 12
        else f"{len(specimens)}, {specimens[0]} to {specimens[-1]}"
    )


def split_of(data: TrainingData) -> dict[str, dict[str, list[str]]]:
    """Specimens trained on and held out, per source."""
    split: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(i.source for i in data.images):
        mine = [i for i in data.images if i.source == name]
        split[name] = {
            "train": sorted({i.specimen for i in mine if not i.held_out}),
            "held_out": sorted({i.specimen for i in mine if i.held_out}),
        }
    return split


def make_card(
    config: TrainConfig,
    data: TrainingData,
    scores: pd.DataFrame,
    assessment: Assessment,
    *,
    steps: int,
    elapsed_s: float,
) -> str:
    """The model card: use, classes, data with licences, split, scores, known failures."""
    names = [data.schema.class_name(i) for i in data.codes.class_indices]
    lines = [
        f"# {config.title or config.name}",
        "",
        f"{config.model.dims}-D {config.model.architecture}, width {config.model.width}, depth {config.model.depth}; "
        f"{steps} steps of {config.data.batch} patches of {config.data.patch_px} px in {elapsed_s / 60:.0f} min. "
        f"Trained by `operandoseg-train` {__version__}, configuration `{config.name}`, seed {config.data.seed}.",
        "",
        *([f"Started from `{Path(config.model.init).name}`.", ""] if config.model.init else []),
        "## Intended use",
        "",
        f"Masks of {', '.join(names)} in {', '.join(_modalities(config))} images{_about_views(config)}. "
        f"{_about_pixel_size(config)} Look at the masks before trusting "
        "numbers, and train on some labels of your own images when they differ from the data below.",
        "",
        "## Data",
        "",
    ]
    split = split_of(data)
    for name, part in split.items():
        about_path = config.data.sources[name].about
        about = read_about(rooted(config.data.root, about_path) if about_path else None)
        n_train = sum(1 for i in data.images if i.source == name and not i.held_out)
        n_out = sum(1 for i in data.images if i.source == name and i.held_out)
        lines += [
            f"- **{name}**: {n_train} image(s) trained on, {n_out} held out.",
            f"  - trained on specimens: {_listed(part['train'])}",
            f"  - held out: {_listed(part['held_out'])}",
        ]
        lines += [f"  - {key}: {about[key]}" for key in ("licence", "citation", "repository", "note") if key in about]
        if not about:
            lines.append("  - licence and origin: not stated")
    if data.synthetic is not None:
        drawn = config.data.synthetic
        share = drawn.weight / (drawn.weight + sum(s.weight for s in config.data.sources.values()))
        lines.append(
            f"- **synthetic**: {drawn.pool} scenes drawn by `seg.synthetic` (seed {config.data.seed}), "
            f"{share:.0%} of the samples; {drawn.held_out} scenes of other seeds held out."
        )
    lines += [
        "",
        "## Scores on held-out specimens",
        "",
        "Whole images. `iou` pools all pixels, `mean_iou` averages the images. `foreground` joins the classes the data "
        f"set calls objects; `otsu` is a threshold after a Gaussian of 1 px. {_choice(config)}",
        "",
        "| data set | class | method | iou | mean_iou | images | specimens |",
        "|---|---|---|---|---|---|---|",
    ]
    for _, r in scores.iterrows():
        values = [r["source"], r["class"], r["method"], f"{r['iou']:.3f}", f"{r['mean_iou']:.3f}"]
        lines.append("| " + " | ".join(map(str, [*values, r["n_images"], r["n_specimens"]])) + " |")
    lines += ["", *_assessed(assessment)]
    lines += ["", _FAILURES, "", *_failures(scores, split, names, config), ""]
    return "\n".join(lines)


def put_into_card(path: Path, found: Assessment, data: str) -> None:
    """Put `found` in the place of the closing scores in the card of a finished model, and its temperature.

    Parameters
    ----------
    path : Path
        Folder of the model; its weights stay as they are.
    found : Assessment
    data : str
        What it was assessed on.

    Raises
    ------
    UsageError
        Nothing was assessed, or the card is not one that a training wrote; both files are left as they are.
    """
    spec = json.loads((path / SPEC).read_text(encoding="utf-8")) | {"temperature": round(found.temperature, 4)}
    kept_below = MEMBERS_BELOW if spec["architecture"] == "ensemble" else _FAILURES
    before, heading, failures = (path / CARD).read_text(encoding="utf-8").partition(kept_below)
    if not heading or not len(found.scores):
        why = "no image was assessed" if heading else f"{path / CARD} has no part {kept_below.strip()!r}"
        raise UsageError(f"The card is left as it is: {why}.")
    kept = before.partition("\n### ")[0].partition(_LATER)[0].rstrip()
    with atomic_path(path / CARD) as part:
        text = "\n".join([kept, "", f"{_LATER} {data}.", "", *_assessed(found), "", heading])
        part.write_text(text + failures, encoding="utf-8")
    write_json(spec, path / SPEC)


def _choice(config: TrainConfig) -> str:
    """How the weights were chosen, and the recipe, where it says so."""
    remarks = f" {config.remarks.strip()}" if config.remarks else ""
    if config.trainer.patience:
        return (
            "The weights are the running average at the step where held-out images chose it: these scores are of a "
            f"validation set and too high for new specimens.{remarks}"
        )
    return f"The weights are the running average at the end of the run: held-out images did not choose them.{remarks}"


def _assessed(found: Assessment) -> list[str]:
    """Baselines beside the network, its probabilities, and what its errors do to numbers."""
    lines = []
    shown = found.scores[found.scores["metric"].isin(_SHOWN)] if len(found.scores) else found.scores
    if len(shown):
        lines += [
            "### Against simple baselines", "",
            "Whole held-out images, of more than 40 those evenly spread, pooled; in brackets the 95 % interval over "
            "specimens, from three on. Edges agree within 1 px. Classes the labels do not tell apart count as one.", "",
            "| data set | class | model | " + " | ".join(_SHOWN.values()) + " |",
            "|---|---|---|" + "---|" * len(_SHOWN),
        ]  # fmt: skip
        for (source, name, model), part in shown.groupby(["source", "class", "model"], sort=False):
            cells = [_cell(part[part["metric"] == metric]) for metric in _SHOWN]
            lines.append("| " + " | ".join([source, name.replace("|", " or "), model, *cells]) + " |")
        lines.append("")
    if len(found.calibration):
        lines += [
            "### Probabilities", "",
            f"Temperature {found.temperature:.3g}, fitted to the held-out images. Calibration error before, and after "
            "with a temperature fitted to the other specimens:", "",
            "| data set | before | after | specimens |", "|---|---|---|---|",
        ]  # fmt: skip
        for _, r in found.calibration.iterrows():
            after = "–" if r["ece_tempered"] != r["ece_tempered"] else f"{r['ece_tempered']:.3f}"
            lines.append(f"| {r['source']} | {r['ece']:.3f} | {after} | {r['specimens']} |")
        lines.append("")
    errors = found.errors
    if len(errors):
        errors = errors[(errors["model"] == "network") & (errors["truth"].abs() > 0) & errors["relative_bias"].notna()]
        lines += [
            "### What the mask error does to numbers", "",
            "Numbers of the predicted masks against those of the true ones, and how many of their 95 % intervals hold "
            "the truth. **Too few**: the error of the masks is larger than what these intervals state.", "",
            "| data set | metric | class | images | bias | typical error | truth in the interval |",
            "|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for _, r in errors.iterrows():
            values = [r["source"], r["metric"], r["class"].replace("|", " or "), str(r["n"])]
            values += [f"{100 * r['relative_bias']:+.0f} %", f"{100 * r['median_relative_error']:.0f} %", _held(r)]
            lines.append("| " + " | ".join(values) + " |")
    return lines


def _held(row: pd.Series) -> str:
    """How many of the intervals of a number hold the truth."""
    if not row["n_intervals"]:
        return "–"
    held = round(row["truth_in_interval"] * row["n_intervals"])
    return f"{held} of {row['n_intervals']}" + (", **too few**" if row["flags"] else "")


def _cell(row: pd.DataFrame) -> str:
    if row.empty or row["value"].isna().all():
        return "–"
    r = row.iloc[0]
    return f"{r['value']:.3f}" + ("" if pd.isna(r["low"]) else f" ({r['low']:.2f} to {r['high']:.2f})")


def _failures(
    scores: pd.DataFrame, split: dict[str, dict[str, list[str]]], classes: list[str], config: TrainConfig
) -> list[str]:
    """What the scores and the data say the model cannot be trusted with."""
    lines = []
    own = scores[scores["method"] == "network"]
    for _, r in own[own["iou"] < 0.5].iterrows():
        lines.append(f"- {r['class']} in {r['source']}: IoU {r['iou']:.2f}, too low to measure from without checking.")
    real = set(own.loc[own["source"].isin([n for n, s in config.data.sources.items() if s.real]), "class"])
    unchecked = [name for name in classes if name not in real]
    if unchecked:
        lines.append(f"- {', '.join(unchecked)}: never checked on a real image.")
    unscored = sorted(name for name, part in split.items() if not part["held_out"])
    if unscored:
        lines.append(f"- {', '.join(unscored)}: no specimen held out, so how it does on a new one is unknown.")
    return lines or ["- None seen on the held-out images; other instruments and materials were not tried."]


def _pixel_size_range(config: TrainConfig) -> tuple[float, float] | None:
    """Pixel sizes that random magnification made of the one trained at."""
    size = config.data.pixel_size_um or None
    zooms = [s.zoom for s in config.data.sources.values() if s.weight > 0]
    if size is None or not zooms:
        return None
    return size / max(high for _, high in zooms), size / min(low for low, _ in zooms)


def _about_views(config: TrainConfig) -> str:
    return f" ({' or '.join(config.data.views)} view)" if config.data.views else ""


def _about_pixel_size(config: TrainConfig) -> str:
    sizes = _pixel_size_range(config)
    if sizes is None:
        return "The pixel size was not used: magnification was varied at random instead."
    return (
        f"Trained at pixels of {config.data.pixel_size_um:g} um; random magnification covered {sizes[0]:.3g} to "
        f"{sizes[1]:.3g} um."
    )


def _modalities(config: TrainConfig) -> tuple[str, ...]:
    """Modalities the model has seen, real or drawn."""
    seen = {s.modality for s in config.data.sources.values() if s.weight > 0}
    if config.data.synthetic.weight > 0:
        seen |= set(config.data.synthetic.modalities or MODALITIES)
    return tuple(sorted(seen))
