"""Labelled images on disk: found, read, normalised, split by specimen, all checked before the first step."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import numpy as np

from seg.errors import DataError, NothingMatchedError, SegError, UsageError
from seg.io import open_stack
from seg.labels import LabelSchema
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, to_grey
from seg.progress import Progress, silent
from seg.stack import Stack
from training.config import DataConfig, SourceConfig
from training.label_codes import ClassMap, LabelCodes, make_codes, parse_class_map, value_table

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One plane in memory.

    Parameters
    ----------
    source, name, specimen : str
    image : ndarray of float16, shape (Y, X)
        Normalised: 0 and 1 are the low and high percentile of the image.
    codes : ndarray of uint8, shape (Y, X)
        See `training.label_codes`.
    held_out : bool
        Scored, never trained on.
    """

    source: str
    name: str
    specimen: str
    image: np.ndarray
    codes: np.ndarray
    held_out: bool


@dataclass(frozen=True)
class ImagePair:
    """An image file, its label file, and the specimen it shows."""

    image: Path
    labels: Path
    specimen: str


def find_pairs(name: str, source: SourceConfig, root: str | Path) -> list[ImagePair]:
    """Image and label files of one source; errors name every image that does not fit."""
    key = f"data.sources.{name}"
    pattern = str(rooted(root, source.images))
    found = sorted(Path(p) for p in glob(pattern, recursive=True))
    found = [p for p in found if p.stem not in source.exclude]
    if not found:
        raise NothingMatchedError(
            f"{key}.images: nothing matches {pattern}. Set data.root or OPERANDOSEG_DATA, or leave this data set out."
        )
    try:
        expression = re.compile(source.specimen)
    except re.error as error:
        raise UsageError(f"{key}.specimen: {source.specimen!r} is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise UsageError(f"{key}.specimen: {source.specimen!r} needs one group (...): the name of the specimen.")
    if "*" not in Path(source.labels).name:
        raise UsageError(f"{key}.labels: {source.labels!r} needs a * where the name of the image goes.")
    pairs, problems = [], []
    for path in found:
        labels = rooted(root, source.labels.replace("*", _stem(path)))
        match = expression.search(path.stem)
        if match is None or not match.group(1):
            problems.append(f"{path.name}: no specimen in the name by {source.specimen!r}")
        elif not labels.is_file():
            problems.append(f"{path.name}: no label file {labels}")
        else:
            pairs.append(ImagePair(path, labels, match.group(1)))
    if problems:
        raise DataError(_listed(f"{key}: {len(problems)} image(s) cannot be used", problems))
    return pairs


def rooted(root: str | Path, path: str) -> Path:
    """A path of a source: absolute, from the working directory where it starts with ``./``, else from the root."""
    return Path(path) if path.startswith("./") else Path(root) / path


def _stem(path: Path) -> str:
    return path.name.removesuffix(".tif").removesuffix(".ome") if path.name.endswith(".ome.tif") else path.stem


def held_out_specimens(name: str, source: SourceConfig, specimens: list[str], seed: int) -> set[str]:
    """Specimens kept for scoring: those listed, or a share of them drawn with `seed`."""
    key = f"data.sources.{name}"
    known = sorted(set(specimens))
    unknown = sorted(set(source.held_out) - set(known))
    if unknown:
        raise UsageError(f"{key}.held_out: no specimen {', '.join(unknown)}; there are {', '.join(known)}.")
    if source.held_out and source.held_out_share:
        raise UsageError(f"{key}: give held_out or held_out_share, not both.")
    if not 0 <= source.held_out_share < 1:
        raise UsageError(f"{key}.held_out_share={source.held_out_share}; expected at least 0 and less than 1.")
    chosen = set(source.held_out)
    if source.held_out_share:
        n = max(1, round(source.held_out_share * len(known)))
        rng = np.random.default_rng([seed, *name.encode()])
        chosen = set(rng.permutation(known)[:n].tolist())
    if chosen >= set(known):
        raise DataError(
            f"{key}: all {len(known)} specimen(s) are held out, nothing is left to train on. "
            "With one specimen, set held_out=[] and score on another one later."
        )
    return chosen


def load_sources(
    config: DataConfig,
    exact: Iterable[int],
    schema: LabelSchema,
    *,
    progress: Progress = silent,
) -> tuple[list[LabelledImage], LabelCodes]:
    """Read every source into memory; a DataError lists all files that cannot be used, with the reason for each.

    Parameters
    ----------
    config : DataConfig
    exact : iterable of int
        Label values that come from elsewhere (synthetic images).

    Returns
    -------
    images : list of LabelledImage
    codes : LabelCodes
        The classes some training image holds; a class that only held-out images hold is left unlabelled there.
    """
    sources = {name: source for name, source in config.sources.items() if source.weight > 0}
    maps = {name: parse_class_map(s.classes, schema, where=f"data.sources.{name}") for name, s in sources.items()}
    planned = []
    for name, source in sources.items():
        modality(source.modality)
        for class_name in source.foreground:
            schema.index(class_name)
        pairs = find_pairs(name, source, config.root)
        held_out = held_out_specimens(name, source, [p.specimen for p in pairs], config.seed)
        planned += [(name, source, pair, pair.specimen in held_out) for pair in pairs]
    read, problems = [], []
    for name, source, pair, is_held_out in progress(planned, total=len(planned), desc="reading"):
        try:
            for plane, (image, values) in enumerate(_planes(pair, source)):
                _check_values(values, pair.labels, maps[name])
                part = pair.image.stem if plane == 0 else f"{pair.image.stem}[{plane}]"
                read.append(LabelledImage(name, part, pair.specimen, image, values, is_held_out))
        except SegError as error:
            problems.append(f"{name}/{pair.image.name}: {error}")
    if problems:
        raise DataError(_listed(f"{len(problems)} labelled image(s) cannot be used", problems))
    trained = {n: {int(v) for i in read if i.source == n and not i.held_out for v in np.unique(i.codes)} for n in maps}
    codes = make_codes([{v: m[v] for v in trained[n]} for n, m in maps.items()], exact, schema)
    _warn_untrained(read, maps, codes, schema)
    tables = {name: value_table(class_map, codes, schema) for name, class_map in maps.items()}
    images = [replace(i, codes=tables[i.source][i.codes].astype(np.uint8)) for i in read]
    for name in maps:
        _check_labelled(name, [i for i in images if i.source == name])
    return images, codes


def _planes(pair: ImagePair, source: SourceConfig) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Normalised image and label values, plane by plane."""
    stack, labels = open_stack(pair.image), open_stack(pair.labels)
    normalisation = SeriesNormalisation.fit(stack, modality(source.modality).normalisation_percentiles)
    if stack.n_frames != labels.n_frames:
        raise DataError(f"the image has {stack.n_frames} frame(s), its labels {labels.n_frames}.")
    for t in range(stack.n_frames):
        image = normalisation.apply(_grey_frame(stack, t)).astype(np.float16)
        values = _label_frame(labels, t, pair.labels)
        if image.shape != values.shape:
            raise DataError(f"the image is {image.shape}, its labels {values.shape}; they must cover the same pixels.")
        yield from zip(image.reshape(-1, *image.shape[-2:]), values.reshape(-1, *values.shape[-2:]), strict=True)


def _grey_frame(stack: Stack, t: int) -> np.ndarray:
    frame = stack.frame(t)
    return to_grey(frame) if "c" in stack.axes else frame


def _label_frame(labels: Stack, t: int, path: Path) -> np.ndarray:
    frame = labels.frame(t)
    if "c" in labels.axes:  # an RGB copy of a label image: usable when the channels agree
        if not np.array_equal(frame.min(axis=0), frame.max(axis=0)):
            raise DataError(f"{path.name} is a colour image; expected integer label values.")
        frame = frame[0]
    if not np.issubdtype(frame.dtype, np.integer):
        raise DataError(f"{path.name} has type {frame.dtype}; expected integer label values.")
    return frame


def _check_values(values: np.ndarray, path: Path, class_map: ClassMap) -> None:
    unknown = sorted(set(np.unique(values).tolist()) - set(class_map))
    if unknown:
        shown = ", ".join(str(v) for v in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        expected = ", ".join(f"{v}: {'|'.join(n) or 'unlabelled'}" for v, n in class_map.items())
        raise DataError(f"{path.name} holds label value(s) {shown}; its classes are {{{expected}}}.")


def _warn_untrained(
    read: list[LabelledImage], maps: dict[str, ClassMap], codes: LabelCodes, schema: LabelSchema
) -> None:
    for name, class_map in maps.items():
        held_out = {int(v) for i in read if i.source == name and i.held_out for v in np.unique(i.codes)}
        meant = {class_map[v] for v in held_out if class_map[v]}
        lost = ", ".join(sorted("|".join(names) for names in meant if not codes.code_of(names, schema)))
        if lost:
            logger.warning("%s: %s occurs in held-out images only; it is neither learnt nor scored.", name, lost)


def _check_labelled(name: str, images: list[LabelledImage]) -> None:
    trained = [i for i in images if not i.held_out]
    if not any(i.codes.any() for i in trained):
        raise DataError(f"data.sources.{name}: no pixel of the {len(trained)} training image(s) is labelled.")
    logger.info(
        "%s: %d image(s) of %d specimen(s) to train, %d of %d held out",
        name,
        len(trained),
        len({i.specimen for i in trained}),
        len(images) - len(trained),
        len({i.specimen for i in images if i.held_out}),
    )


def _listed(head: str, problems: list[str]) -> str:
    shown = "\n".join(f"  {p}" for p in problems[:20])
    more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
    return f"{head}:\n{shown}{more}"


def read_about(path: Path | None) -> dict[str, str]:
    """The ``key : value`` lines of a SOURCE.txt; empty without one."""
    if path is None:
        return {}
    if not path.is_file():
        raise DataError(f"There is no file {path}; the card of the model names data and licences from it.")
    pairs = (line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
