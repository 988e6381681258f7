"""Training from the labels drawn here: what is held out, the command, how far it is, and old against new."""

from __future__ import annotations

import csv
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy import ndimage

from napari_plugin.labelling import labels_path, worked_on
from napari_plugin.prediction import Box
from seg.analysis import AnalysisConfig
from seg.errors import UsageError
from seg.io import open_stack, read_labels, write_labels
from seg.io.results import atomic_path
from seg.labels import LabelSchema
from seg.measure import measure_frames
from seg.preprocess import SeriesNormalisation, to_grey
from seg.progress import Progress, silent
from seg.report.words import unit_text
from seg.segmentation import Segmentation
from seg.stack import Calibration, Stack

HELD_OUT_SHARE = 0.2
FEWEST_IMAGES = (
    3  # with one labelled frame each, of which some are held out: two are needed to train on and to choose by
)


@dataclass(frozen=True)
class TrainingJob:
    """One training run: its command, its folder, and the frames kept for judging it.

    Parameters
    ----------
    arguments : tuple of str
        Of ``operandoseg train``.
    run_dir : Path
    held_out : dict of Path to tuple of int
        Image to the labelled frames that are not trained on.
    n_trained : int
        Labelled frames that are.
    """

    arguments: tuple[str, ...]
    run_dir: Path
    held_out: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    n_trained: int = 0

    @property
    def process(self) -> list[str]:
        """Program and arguments to start: this Python, so that the plugin's installation is the one that trains."""
        return [sys.executable, "-m", "seg", "train", *self.arguments]

    @property
    def command(self) -> str:
        """The same as a line for the terminal."""
        return shlex.join(["operandoseg", "train", *self.arguments])

    @property
    def model_dir(self) -> Path:
        """Where the finished model is."""
        return self.run_dir / "model"


@dataclass(frozen=True)
class TrainingState:
    """What ``steps.csv`` says: steps and losses so far, the share done, and seconds to go."""

    steps: np.ndarray
    losses: np.ndarray
    share: float
    remaining_s: float


def split_frames(labelled: Sequence[int], share: float = HELD_OUT_SHARE) -> tuple[list[int], list[int]]:
    """Frames to train on and frames to hold out: the last `share` of the labelled ones, at least one of two or more.

    A block at the end, because neighbours in time look alike; the labelled frame next to the block is left out of
    training as well where enough remain.
    """
    frames = sorted(labelled)
    if len(frames) < 2:
        return frames, []
    n = max(1, round(share * len(frames)))
    train, held = frames[:-n], frames[-n:]
    if len(train) > 2 and held[0] - train[-1] <= 1:
        train = train[:-1]
    return train, held


def images_held_out(single: Sequence[Path], share: float = HELD_OUT_SHARE) -> list[Path]:
    """Of images with one labelled frame each, the last `share` is held out whole, where there are enough of them."""
    return list(single[-max(1, round(share * len(single))) :]) if len(single) >= FEWEST_IMAGES else []


def labelled_beside(image: Path) -> list[Path]:
    """Images with saved labels in the folder of an image, that one among them where it has some."""
    from seg.io.registry import READERS

    beside = sorted(p for p in image.parent.iterdir() if labels_path(p).is_file() and not p.name.startswith("."))
    return [p for p in beside if p == image or any(reader.can_open(p) for reader in READERS)]


def prepare_job(
    images: Sequence[Path], *, name: str, runs: Path, modality_name: str, minutes: float | None, init: str | None,
    schema: str = "lithium", further: Sequence[str] = (),
) -> TrainingJob:  # fmt: skip
    """Write what a run needs and give its command.

    Parameters
    ----------
    images : sequence of Path
        Images whose labels (`napari_plugin.labelling.labels_path`) are trained on.
    name : str
        Of the run and the model.
    runs : Path
        Folder of runs.
    modality_name : str
    minutes : float or None
        None: what `further` says.
    init : str or None
        Model to start from, by the recipe ``experiment=finetune``; None: from scratch.
    schema : str
    further : sequence of str
        Overrides, put last.

    Notes
    -----
    Frames that are held out are blanked in a copy of the label file, which is what is trained on; files without held
    out frames are used as they are. Of three or more images with one labelled frame each some are held out whole.
    """
    labelled = [image for image in images if labels_path(image).is_file()]
    if not labelled:
        raise UsageError("None of the images has saved labels; label one and save it.")
    run_dir = Path(runs).resolve() / name
    sources, held_out, n_trained = {}, {}, 0
    found = {image: read_labels(labels_path(image)) for image in labelled}
    frames_of = {image: _labelled_frames(one.stack) for image, one in found.items()}
    whole = images_held_out([image for image, frames in frames_of.items() if len(frames) == 1])
    held_out |= {image: tuple(frames_of[image]) for image in whole}
    for number, image in enumerate(image for image in labelled if image not in whole):
        path, segmentation, labelled_frames = labels_path(image).resolve(), found[image], frames_of[image]
        # Models are judged on frames that somebody looked at; what is interpolated up to those is left out with them.
        keys = worked_on(segmentation.provenance.settings.get("log", []), labelled_frames)
        train, held = split_frames(keys)
        train = sorted({*train, *(f for f in labelled_frames if train and f <= train[-1])})
        if not train:
            continue
        n_trained += len(train)
        if held:
            held_out[image] = tuple(held)
            path = _blanked(segmentation, train, run_dir / "labels" / f"{number}" / path.name)
        # Glob characters in a path mean themselves.
        pattern = "".join(f"[{c}]" if c in "[*?" else c for c in str(image.resolve()))
        sources[f"image{number}"] = {
            "images": pattern, "labels": str(path.parent / "*.ome.tif"), "modality": modality_name,
        }  # fmt: skip
    if not sources:
        raise UsageError("The saved labels are empty; draw strokes of at least two classes and save them.")
    config_dir = run_dir / "config"
    with atomic_path(config_dir / "data" / "labelled.yaml") as part:
        text = "# Labels drawn in napari; frames that are held out are blank in the files under labels/.\n"
        part.write_text(text + yaml.safe_dump({"schema": schema, "sources": sources}), encoding="utf-8")
    arguments = ["--config-dir", str(config_dir), f"name={name}", "data=[labelled]", f"runs={Path(runs).resolve()}"]
    if init is not None:
        # The recipe for few labels, which keeps what the model knows; it has no use without one.
        arguments += ["experiment=finetune", f"model.init={init}"]
    if minutes is not None:
        arguments.append(f"trainer.max_minutes={minutes:g}")
    arguments += ["trainer.log_every=1", *further]
    return TrainingJob(tuple(arguments), run_dir, held_out, n_trained)


def _labelled_frames(stack: Stack) -> list[int]:
    """Frames (planes of a volume) that hold labels."""
    data = np.asarray(stack.data)
    if data.ndim == 2:
        return [0] if data.any() else []
    return [int(i) for i in np.flatnonzero(data.any(axis=tuple(range(1, data.ndim))))]


def _blanked(segmentation: Segmentation, keep: Sequence[int], path: Path) -> Path:
    stack = segmentation.stack
    data = np.array(stack.data)
    data[[i for i in range(len(data)) if i not in keep]] = 0
    frames = iter(data) if "t" in stack.axes else iter([data])
    write_labels(
        path, frames, shape=stack.shape, axes=stack.axes, calibration=stack.calibration, schema=segmentation.schema
    )
    return path


def read_state(run_dir: Path) -> TrainingState:
    """How far a run is; nothing yet is zero of everything."""
    steps, losses, share, elapsed = [], [], 0.0, 0.0
    path = run_dir / "steps.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                try:
                    step, loss, done, seconds = (row[k] for k in ("step", "loss", "progress", "elapsed_s"))
                    steps.append(int(step))
                    losses.append(float(loss))
                    share, elapsed = float(done), float(seconds)
                except (TypeError, ValueError):
                    break  # the last line is being written
    n = min(len(steps), len(losses))
    remaining = elapsed / share - elapsed if share > 0 else math.nan
    return TrainingState(np.array(steps[:n]), np.array(losses[:n]), share, remaining)


# --- old against new ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Masks of models on one held-out frame, and the table over all of them.

    Parameters
    ----------
    image : Path
    frame : int
    grey : ndarray of float32, shape ([Z,] Y, X)
        The image, normalised.
    truth : ndarray, shape ([Z,] Y, X)
        Labels; 0 where nothing is labelled.
    masks : dict of str to ndarray
        Model to its labels.
    """

    image: Path
    frame: int
    grey: np.ndarray
    truth: np.ndarray
    masks: dict[str, np.ndarray]


def compare_models(
    job: TrainingJob,
    models: dict[str, str | Path],
    config: AnalysisConfig,
    metric: str,
    modality_name: str,
    progress: Progress = silent,
) -> tuple[list[Comparison], pd.DataFrame]:
    """Models on the held-out frames: masks, and a table of scores and of the chosen metric.

    Parameters
    ----------
    job : TrainingJob
    models : dict of str to (str or Path)
        What the table calls it -> name or folder of the model.
    config : AnalysisConfig
    metric : str
        Metric of single frames.
    modality_name : str
    progress : Progress

    Returns
    -------
    list of Comparison
    DataFrame
        ``image, frame, quantity`` and one column per model: ``IoU CLASS`` over labelled pixels for every class the
        labels hold, and the metric with its unit, beside ``truth`` where the frame is labelled throughout.
    """
    from seg.inference import segment
    from seg.modality import modality
    from seg.models.bundle import find_model, load_bundle

    bundles = {name: load_bundle(find_model(where, modality=modality_name)) for name, where in models.items()}
    found, rows = [], []
    for image, frames in job.held_out.items():
        stack, labels = open_stack(image), read_labels(labels_path(image))
        normalisation = SeriesNormalisation.fit(stack, modality(modality_name).normalisation_percentiles)
        for frame in progress(frames, total=len(frames), desc="comparing"):
            truth = np.asarray(_one_frame(labels.stack, frame).data)
            one = _one_frame(stack, frame)
            masks = {}
            for name, bundle in bundles.items():
                slabs = list(segment(one, bundle, normalisation=normalisation))
                masks[name] = np.concatenate([s.labels for s in slabs]) if truth.ndim == 3 else slabs[0].labels
            grey = normalisation.apply(to_grey(one.data, one.axes))
            found.append(Comparison(image, frame, grey, truth, masks))
            rows += _scores(found[-1], labels, config, metric)
    return found, pd.DataFrame(rows)


def picture(grey: np.ndarray, labels: np.ndarray, schema: LabelSchema) -> np.ndarray:
    """Class colours over the image, uint8, shape (Y, X, 3); of a volume its middle plane."""
    if grey.ndim == 3:
        grey, labels = grey[len(grey) // 2], labels[len(labels) // 2]
    base = np.repeat(255 * np.clip(grey, 0, 1)[..., np.newaxis], 3, axis=2)
    for each in schema.classes:
        here = labels == each.index
        base[here] = 0.45 * base[here] + 0.55 * np.array(each.rgb)
    return base.astype(np.uint8)


def most_different(masks: Sequence[np.ndarray], share: float = 1 / 3) -> Box:
    """Rows and columns, `share` of each side, where two masks (of volumes: their middle planes) differ most."""
    first, second = (m[len(m) // 2] if m.ndim == 3 else m for m in masks)
    size = tuple(max(1, round(share * n)) for n in first.shape)
    filtered = ndimage.uniform_filter((first != second).astype(np.float32), size, mode="constant")
    # Where a box lies inside the frame its middle is half of it from every edge.
    starts = [slice(n // 2, n // 2 + whole - n + 1) for n, whole in zip(size, first.shape, strict=True)]
    inside = filtered[tuple(starts)]
    corner = np.unravel_index(int(inside.argmax()), inside.shape)
    return (slice(int(corner[0]), int(corner[0]) + size[0]), slice(int(corner[1]), int(corner[1]) + size[1]))


def _one_frame(stack: Stack, frame: int) -> Stack:
    """One frame of a series, or one plane of a volume, as a stack of its own."""
    axes = stack.axes
    leading = axes[0] if axes[0] in "tz" else ""
    sizes = {a: s for a, s in stack.calibration.pixel_size_um.items() if a in axes.removeprefix(leading)}
    data = np.asarray(stack.data[frame]) if leading else np.asarray(stack.data[...])
    return Stack(data, axes.removeprefix(leading), Calibration(sizes, None, "file"), f"{stack.name}, frame {frame}")


def _scores(item: Comparison, labels: Segmentation, config: AnalysisConfig, metric: str) -> list[dict[str, object]]:
    where = {"image": item.image.name, "frame": item.frame}
    known = item.truth > 0
    rows: list[dict[str, object]] = []
    for value in np.unique(item.truth[known]):
        row = {**where, "quantity": f"IoU {labels.schema.class_name(int(value))}"}
        for name, mask in item.masks.items():
            wanted, got = item.truth == value, (mask == value) & known
            row[name] = float((wanted & got).sum() / (wanted | got).sum())
        rows.append(row)
    flat = _one_frame(labels.stack, item.frame)
    numbers, unit = {}, ""
    for name, mask in {**item.masks, **({"truth": item.truth} if known.all() else {})}.items():
        one = Segmentation(Stack(mask, flat.axes, flat.calibration, flat.name), labels.schema)
        (result,) = measure_frames(one, config)
        matching = [m for m in result.measurements if m.metric == metric and m.side in ("", "mean")]
        whole = [m for m in matching if m.object_id is None] or matching
        values = [m.value for m in whole if math.isfinite(m.value)]
        numbers[name] = float(np.mean(values)) if values else math.nan
        unit = whole[0].unit if whole else unit
    unit = unit_text(unit)
    return [*rows, {**where, "quantity": f"{metric} / {unit}" if unit else metric, **numbers}]
