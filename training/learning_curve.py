"""How few labels are enough: IoU on held-out specimens against labelled images, from scratch, from a model, by forest.

::

    python -m seg.synthetic.twins runs/curve --per-family 8 --seed 77 --modality sem
    python -m training.learning_curve --out runs/learning-curve --model auto data=folder data.root=. \\
        data.sources.mine.images='./runs/curve/images/*.ome.tif' \\
        data.sources.mine.labels='./runs/curve/labels/*.ome.tif' \\
        data.sources.mine.modality=sem data.sources.mine.held_out_share=0.25 \\
        "data.sources.mine.specimen='^([a-z]+-[0-9]+)'"

Each labelled image gets one short stroke per class; ``all`` stands for every training image labelled densely. From
scratch is the recipe of the overrides, from a model ``experiment=finetune`` on top of them; nothing is chosen by the
held-out images. Any data of `operandoseg-train` will do. A point that is finished is not computed again.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from seg.errors import UsageError
from seg.io.results import write_table
from seg.models.device import resolve_device, resolve_precision
from training.assessment import assess_network
from training.command import run_module
from training.config import TrainConfig, compose_config, to_train_config
from training.initial import load_initial_weights
from training.loop import TrainingData, build_network, prepare, train
from training.sources import LabelledImage

logger = logging.getLogger(__name__)

STROKE_PX = 40
_TITLES = {
    "scratch": "network from scratch", "model": "network from the shipped model", "forest": "forest on pixels",
    "otsu": "Otsu threshold",
}  # fmt: skip


def strokes(codes: np.ndarray, rng: np.random.Generator, *, length_px: int = STROKE_PX) -> np.ndarray:
    """One stroke per class on an image, as a person would draw: a straight line, 3 px wide, that stays in the class.

    Parameters
    ----------
    codes : ndarray of uint8, shape ([Z,] Y, X)
        Dense labels.
    rng : Generator
    length_px : int
        At most; it ends where the class does.

    Returns
    -------
    ndarray of uint8, shape of `codes`
        0 but for the strokes.
    """
    drawn = np.zeros_like(codes)
    for code in np.unique(codes[codes > 0]):
        mask = codes == code
        # People do not start at the edge: from one of the pixels deeper inside than half of them.
        depth = ndimage.distance_transform_edt(mask)
        inner = np.argwhere(depth >= np.median(depth[mask]))
        start = inner[rng.integers(len(inner))]
        angle = rng.uniform(0, 2 * np.pi)
        step = np.zeros(codes.ndim)
        step[-2:] = np.sin(angle), np.cos(angle)
        line = np.zeros(codes.shape, bool)
        for way in (1, -1):
            for k in range(length_px // 2):
                place = tuple(np.rint(start + way * k * step).astype(int))
                inside = all(0 <= p < n for p, n in zip(place, codes.shape, strict=True))
                if not (inside and mask[place]):
                    break
                line[place] = True
        wide = ndimage.binary_dilation(line, np.ones((1,) * (codes.ndim - 2) + (3, 3), bool))
        drawn[wide & mask] = code
    return drawn


def with_labels(images: Sequence[LabelledImage], n: int | None, *, seed: int) -> list[LabelledImage]:
    """The held-out images as they are, and `n` of the others with strokes only; None: all of them, densely labelled.

    More images hold those of fewer, with the same strokes; specimens take turns.
    """
    held_out = [item for item in images if item.held_out]
    trained = [item for item in images if not item.held_out]
    if n is None:
        return [*trained, *held_out]
    order = np.random.default_rng(seed).permutation(len(trained))
    turn: dict[str, int] = {}
    ranked = []
    for i in order:
        turn[trained[i].specimen] = turn.get(trained[i].specimen, 0) + 1
        ranked.append((turn[trained[i].specimen], len(ranked), i))
    chosen = [i for _, _, i in sorted(ranked)][:n]
    thinned = [
        replace(trained[i], codes=strokes(trained[i].codes, np.random.default_rng([seed, int(i)]))) for i in chosen
    ]
    return [*thinned, *held_out]


def learning_curve(
    config: TrainConfig, out: Path, *, budgets: Sequence[int | None], model: TrainConfig | None, steps: int
) -> pd.DataFrame:
    """Train at every budget, and write ``learning_curve.csv`` and ``learning_curve.png``.

    Parameters
    ----------
    config : TrainConfig
        Data, network and everything else of the runs from scratch; its name and length are not used.
    out : Path
    budgets : sequence of int or None
        Labelled images; None: all, densely.
    model : TrainConfig or None
        The same for runs from the model that it names, whose architecture the runs from scratch then have; that model
        is also scored as it is, at 0 images.
    steps : int
        Of every run.

    Returns
    -------
    DataFrame
        ``images``, ``dense``, ``labelled_px``, ``start``, ``class``, ``iou``, ``low``, ``high``, one row per class that
        the held-out images of the source hold; ``all`` is their mean, the same classes at every budget.
    """
    starts = {"scratch": config}
    if model is not None:
        starts = {"scratch": replace(config, model=replace(model.model, init=None)), "model": model}
    length = {"max_steps": steps, "max_minutes": None, "score_every": 0, "patience": 0}
    starts = {name: replace(start, trainer=replace(start.trainer, **length)) for name, start in starts.items()}
    data = prepare(starts["scratch"])
    if not any(item.held_out for item in data.images):
        raise UsageError("No specimen is held out, so there is nothing to score on: set held_out or held_out_share.")
    n_trained = sum(not item.held_out for item in data.images)
    rows = []
    if model is not None:
        rows += _rows(as_it_is(starts["model"], data, out / "model-0"), data, 0, False, 0, {"network": "model"})
    for n in budgets:
        if n is not None and n > n_trained:
            raise UsageError(f"{n} labelled images are asked for, but the data has {n_trained} to train on.")
        part = replace(data, images=with_labels(data.images, n, seed=config.data.seed))
        labelled_px = sum(int((item.codes > 0).sum()) for item in part.images if not item.held_out)
        for start, chosen in starts.items():
            name = f"{start}-{'all' if n is None else n}"
            folder = out / name / "assessment"
            if not (folder / "evaluation.csv").is_file():
                first = start == "scratch"  # the baselines are the same for all starts
                run = replace(chosen, name=name, runs=str(out), trainer=replace(chosen.trainer, baselines=first))
                train(run, part, quiet=True)
            names = {"network": start, "forest": "forest", "otsu": "otsu"}
            rows += _rows(
                pd.read_csv(folder / "evaluation.csv"), data, n_trained if n is None else n, n is None, labelled_px,
                names,
            )  # fmt: skip
        table = pd.DataFrame(rows)
        write_table(table, out / "learning_curve.csv")
        draw(table, out / "learning_curve.png")
        shown = table[table["class"] == "all"].pivot_table(index=["images", "dense"], columns="start", values="iou")
        logger.info("mean IoU on held-out specimens:\n%s", shown.round(3).to_string())
    return pd.DataFrame(rows)


def as_it_is(config: TrainConfig, data: TrainingData, folder: Path) -> pd.DataFrame:
    """Scores of the model before any label."""
    if not (folder / "evaluation.csv").is_file():
        network = build_network(config, data.codes)
        load_initial_weights(network, config, data.codes, data.schema)
        modalities = {name: source.modality for name, source in config.data.sources.items()}
        device = resolve_device(config.trainer.device)
        assess_network(
            network.eval().to(device), data.images, data.codes, data.schema, modalities, folder, device=device,
            precision=resolve_precision(config.trainer.precision, device), baselines=False,
        )  # fmt: skip
    return pd.read_csv(folder / "evaluation.csv")


def _rows(
    scores: pd.DataFrame, data: TrainingData, n: int, dense: bool, labelled_px: int, names: dict[str, str]
) -> list[dict]:
    mine = scores[(scores["metric"] == "iou") & scores["model"].isin(names)]
    rows = []
    for (source, model), part in mine.groupby(["source", "model"], sort=False):
        held = {int(c) for i in data.images if i.held_out and i.source == source for c in np.unique(i.codes) if c}
        asked = {
            "|".join(data.schema.class_name(data.codes.class_indices[k]) for k in data.codes.members(c)) for c in held
        }
        where = {"images": n, "dense": dense, "labelled_px": labelled_px, "start": names[model], "source": source}
        found = part.set_index("class")
        for name in sorted(asked):  # a class that no stroke shows at this budget is not found: 0
            value, low, high = (
                found.loc[name, ["value", "low", "high"]] if name in found.index else (0.0, np.nan, np.nan)
            )
            rows.append({**where, "class": name, "iou": value, "low": low, "high": high})
        mean = float(np.mean([row["iou"] for row in rows[-len(asked) :]]))
        rows.append({**where, "class": "all", "iou": mean, "low": np.nan, "high": np.nan})
    return rows


def draw(table: pd.DataFrame, path: Path) -> Path:
    """Save the figure: mean IoU over classes and sources against labelled images."""
    from matplotlib.figure import Figure

    mean = table[table["class"] == "all"].groupby(["start", "images", "dense"], sort=False)["iou"].mean().reset_index()
    places = sorted({(bool(d), int(n)) for n, d in zip(mean["images"], mean["dense"], strict=True)})
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for start, title in _TITLES.items():
        mine = mean[mean["start"] == start]
        if len(mine):
            x = [places.index((bool(d), int(n))) for n, d in zip(mine["images"], mine["dense"], strict=True)]
            order = np.argsort(x)
            axes.plot(np.array(x)[order], mine["iou"].to_numpy()[order], marker="o", label=title)
    axes.set_xticks(range(len(places)), [f"{n}, dense" if d else str(n) for d, n in places])
    axes.set(xlabel="labelled images (one stroke per class each)", ylabel="mean IoU on held-out specimens", ylim=(0, 1))
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def main(words: Sequence[str] | None = None) -> int:
    """The command of this module; see its docstring."""
    parser = argparse.ArgumentParser(prog="python -m training.learning_curve", description="IoU against labels.")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--model", help="name or folder of a model to start from, or auto")
    parser.add_argument("--budgets", default="1,3,10,all", help="labelled images (default: 1,3,10,all)")
    parser.add_argument("--steps", type=int, default=300, help="of every run (default: 300)")
    parser.add_argument("overrides", nargs="*", help="as for operandoseg-train: data=...")
    asked = parser.parse_args(words)
    try:
        budgets = [None if word == "all" else int(word) for word in asked.budgets.split(",")]
    except ValueError:
        raise UsageError(f"--budgets has {asked.budgets!r}; write numbers and all, such as 1,3,10,all.") from None
    words = ["name=curve", "trainer.max_steps=1", *asked.overrides]
    model = None
    if asked.model is not None:
        model = to_train_config(compose_config([*words, "experiment=finetune", f"model.init={asked.model}"]))
    learning_curve(
        to_train_config(compose_config(words)), asked.out, budgets=budgets, model=model, steps=asked.steps
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    run_module(main)
