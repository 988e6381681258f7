"""Labelled images on disk: found, read, normalised, split by specimen, all checked before the first step."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import numpy as np
from scipy import ndimage

from seg.errors import DataError, NothingMatchedError, SegError, UsageError
from seg.io import open_stack
from seg.io.images import natural_key
from seg.labels import LabelSchema
from seg.modality import modality
from seg.preprocess import SeriesNormalisation, require_finite, resample, to_grey
from seg.progress import Progress, silent
from seg.stack import Stack
from training.config import DataConfig, SourceConfig, TwinsConfig
from training.label_codes import ClassMap, LabelCodes, make_codes, parse_class_map, value_table
from training.splits import refuse_leaks, split

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One plane, or for 3-D networks one volume, in memory.

    Parameters
    ----------
    source, name, specimen : str
    image : ndarray of float16, shape ([Z,] Y, X)
        Normalised: 0 and 1 are the low and high percentile of the series.
    codes : ndarray of uint8, shape ([Z,] Y, X)
        See `training.label_codes`.
    held_out : bool
        Scored, never trained on.
    time, plane : int
        Place in the series of its specimen: frames count through its files in natural order, planes within a volume.
    """

    source: str
    name: str
    specimen: str
    image: np.ndarray
    codes: np.ndarray
    held_out: bool
    time: int = 0
    plane: int = 0


@dataclass(frozen=True)
class ImagePair:
    """An image file, its label file, and the specimen it shows."""

    image: Path
    labels: Path
    specimen: str


def find_pairs(name: str, source: SourceConfig, root: str | Path) -> tuple[list[ImagePair], list[str]]:
    """Image and label files of one source, and what is wrong with those that do not fit."""
    key = f"data.sources.{name}"
    pattern = str(rooted(root, source.images))
    found = sorted(Path(p) for p in glob(pattern, recursive=True))
    found = [p for p in found if _stem(p) not in source.exclude]
    if not found:
        raise _nothing_matches({name: source}, root)
    try:
        expression = re.compile(source.specimen)
    except re.error as error:
        raise UsageError(f"{key}.specimen: {source.specimen!r} is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise UsageError(f"{key}.specimen: {source.specimen!r} needs one group (...): the name of the specimen.")
    if "*" not in source.labels:
        raise UsageError(f"{key}.labels: {source.labels!r} needs a * where the name of the image goes.")
    pairs, problems = [], []
    above = _before_wildcards(Path(pattern))
    for path in found:
        below = path.relative_to(above)
        in_folder = source.labels.replace("**", below.parent.as_posix())
        candidates = [rooted(root, in_folder.replace("*", stem)) for stem in (_stem(path), path.stem)]
        labels = next((p for p in candidates if p.exists()), candidates[0])
        match = expression.search(f"/{below.as_posix()}" if "/" in source.specimen else _stem(path))
        if match is None or not match.group(1):
            problems.append(f"{name}/{path.name}: no specimen in the name by {source.specimen!r}")
        elif not labels.exists():
            problems.append(f"{name}/{path.name}: no label file {labels}")
        else:
            pairs.append(ImagePair(path, labels, match.group(1)))
    return pairs, problems


def all_pairs(
    config: DataConfig, *, progress: Progress = silent
) -> tuple[list[tuple[str, SourceConfig, ImagePair]], list[str]]:
    """Files of every source in use, twins drawn where they are not there yet; the faults of all as `find_pairs`."""
    sources = {name: source for name, source in config.sources.items() if source.weight > 0}
    absent = {n: s for n, s in sources.items() if not glob(str(rooted(config.root, s.images)), recursive=True)}
    to_draw = {n: folder for n, s in absent.items() if (folder := _folder_to_draw(s, config.root)) is not None}
    lost = {name: source for name, source in absent.items() if name not in to_draw}
    if lost:
        raise _nothing_matches(lost, config.root)
    for name, folder in to_draw.items():
        _draw(name, sources[name].drawn, folder, progress)
    planned, problems = [], []
    for name, source in sources.items():
        pairs, misfits = find_pairs(name, source, config.root)
        planned += [(name, source, pair) for pair in pairs]
        problems += misfits
    return planned, problems


def _nothing_matches(sources: dict[str, SourceConfig], root: str | Path) -> NothingMatchedError:
    """One sentence for all data sets whose images are not there."""
    patterns = ", ".join(str(rooted(root, source.images)) for source in sources.values())
    them = "this data set" if len(sources) == 1 else "these data sets"
    without = " ".join(f"data.sources.{name}.weight=0" for name in sources)
    return NothingMatchedError(
        f"data.sources.{', '.join(sources)}: nothing matches {patterns}. Set OPERANDOSEG_DATA or data.root (now "
        f"{Path(root).resolve()}) to the folder that holds the images, or leave {them} out with {without}."
    )


def _folder_to_draw(source: SourceConfig, root: str | Path) -> Path | None:
    """Folder that twins of this source are drawn into; None where it draws none, or something lies there."""
    images = _before_wildcards(rooted(root, source.images))
    draws = source.drawn.per_family > 0 and images.name == "images" and not images.parent.exists()
    return images.parent if draws else None


def _draw(name: str, twins: TwinsConfig, folder: Path, progress: Progress) -> None:
    """Draw into a folder beside, so that a stopped command leaves no half of a data set."""
    from seg.synthetic.twins import CORNERS, DRAWS, SEEN_BY, write_twins  # half a second that most runs do not need

    key = f"data.sources.{name}.drawn"
    if twins.modality not in (None, *SEEN_BY):
        raise UsageError(f"{key}.modality={twins.modality}; expected {', '.join(SEEN_BY)}.")
    for family in twins.families:
        if family not in (*DRAWS, *CORNERS):
            raise UsageError(f"{key}.families={family}; expected {', '.join([*DRAWS, *CORNERS])}.")
    logger.info("there are no twins in %s yet: they are drawn now, once", folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        write_twins(
            beside, per_family=twins.per_family, seed=twins.seed, modality=twins.modality, families=twins.families,
            progress=progress,
        )  # fmt: skip
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def rooted(root: str | Path, path: str) -> Path:
    """A path of a source: absolute, from the working directory where it starts with ``./``, else from the root."""
    return Path(path) if path.startswith("./") else Path(root) / path


def _before_wildcards(pattern: Path) -> Path:
    """The folder under which a glob pattern looks."""
    parts = pattern.parts[:-1]
    first = next((n for n, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    return Path(*parts[:first])


def _stem(path: Path) -> str:
    return path.name.removesuffix(".tif").removesuffix(".ome") if path.name.endswith(".ome.tif") else path.stem


def load_sources(
    config: DataConfig,
    exact: Iterable[int],
    schema: LabelSchema,
    *,
    dims: int = 2,
    progress: Progress = silent,
) -> tuple[list[LabelledImage], LabelCodes]:
    """Read every source into memory; a DataError lists all files that cannot be used, with the reason for each.

    Parameters
    ----------
    config : DataConfig
    exact : iterable of int
        Label values that come from elsewhere (synthetic images).
    dims : {2, 3}
        Whether planes or whole volumes are trained on.

    Returns
    -------
    images : list of LabelledImage
        Those that hold labels.
    codes : LabelCodes
        The classes some training image holds; a class that only held-out images hold is left unlabelled there.
    """
    sources = {name: source for name, source in config.sources.items() if source.weight > 0}
    maps = {name: parse_class_map(s.classes, schema, where=f"data.sources.{name}") for name, s in sources.items()}
    for source in sources.values():
        modality(source.modality)
        for class_name in source.foreground:
            schema.index(class_name)
    planned, problems = all_pairs(config, progress=progress)
    by_file: dict[tuple[str, Path], list[LabelledImage]] = {}
    times = Counter[tuple[str, str]]()
    in_time = sorted(planned, key=lambda item: natural_key(item[2].image))
    for name, source, pair in progress(in_time, total=len(planned), desc="reading"):
        series = (name, pair.specimen)
        try:
            found = _read_pair(name, source, pair, maps[name], config, dims=dims, first_time=times[series])
            times[series] = found[-1].time + 1
            by_file[name, pair.image] = [i for i in found if _is_labelled(i.codes, maps[name])]
            if not by_file[name, pair.image]:
                meant = ", ".join(str(v) for v, names in maps[name].items() if not names)
                raise DataError(
                    f"no pixel of {pair.labels.name} is labelled (all are {meant}); label some, or leave the image "
                    f"out with data.sources.{name}.exclude=[{_stem(pair.image)}]."
                )
        except SegError as error:
            problems.append(f"{name}/{pair.image.name}: {error}")
    if problems:
        raise DataError(listed(f"{len(problems)} labelled image(s) cannot be used", problems))
    read = split([i for name, _, pair in planned for i in by_file[name, pair.image]], config)
    trained = {n: {int(v) for i in read if i.source == n and not i.held_out for v in np.unique(i.codes)} for n in maps}
    codes = make_codes([{v: m[v] for v in trained[n]} for n, m in maps.items()], exact, schema)
    _warn_untrained(read, maps, codes, schema)
    tables = {name: value_table(class_map, codes, schema) for name, class_map in maps.items()}
    images = [replace(i, codes=tables[i.source][i.codes].astype(np.uint8)) for i in read]
    for name in maps:
        _check_labelled(name, [i for i in images if i.source == name])
    if config.leak_similarity is not None:
        refuse_leaks(images, config.leak_similarity)
    return images, codes


def _is_labelled(values: np.ndarray, class_map: ClassMap) -> bool:
    return any(class_map[v] for v in np.unique(values).tolist())


def _read_pair(
    name: str,
    source: SourceConfig,
    pair: ImagePair,
    class_map: ClassMap,
    config: DataConfig,
    *,
    dims: int,
    first_time: int,
) -> list[LabelledImage]:
    """All planes or volumes of one file, their label values not yet replaced by codes."""
    parts = []
    for t, plane, image, values in _planes(pair, source, config.pixel_size_um or None, dims):
        _check_values(values, pair.labels, class_map)
        part = f"{_stem(pair.image)}[{len(parts)}]" if parts else _stem(pair.image)
        parts.append(LabelledImage(name, part, pair.specimen, image, values, False, first_time + t, plane))
    return parts


def _planes(
    pair: ImagePair, source: SourceConfig, pixel_size_um: float | None, dims: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Frame number, plane number, normalised image and label values, plane by plane or volume by volume."""
    given = None if source.pixel_size_um is None else dict.fromkeys("zyx", source.pixel_size_um)
    stack = open_stack(pair.image, axes=source.axes, pixel_size_um=given)
    labels = _open_labels(pair.labels, stack)
    if dims == 3 and "z" not in stack.axes:
        raise DataError(
            f"a 3-D network needs volumes, but the axes are {stack.axes!r}; set data.sources.NAME.axes=zyx where the "
            "file does not say, or train a 2-D network."
        )
    zoom = _zoom(stack, pixel_size_um, dims)
    normalisation = SeriesNormalisation.fit(stack, modality(source.modality).normalisation_percentiles)
    if stack.n_frames != labels.n_frames:
        raise DataError(f"the image has {stack.n_frames} frame(s), its labels {labels.n_frames}.")
    for t in range(stack.n_frames):
        raw, values = _grey_frame(stack, t), _label_frame(labels, t, pair.labels)
        if raw.shape != values.shape:
            raise DataError(f"the image is {raw.shape}, its labels {values.shape}; they must cover the same pixels.")
        image = normalisation.apply(require_finite(raw, f"frame {t}")).astype(np.float16)
        if dims == 3:
            yield t, 0, *_resampled(image, values, zoom)
            continue
        planes = zip(image.reshape(-1, *image.shape[-2:]), values.reshape(-1, *values.shape[-2:]), strict=True)
        for plane, (image_2d, values_2d) in enumerate(planes):
            yield t, plane, *_resampled(image_2d, values_2d, zoom)


def _open_labels(path: Path, stack: Stack) -> Stack:
    """Label values; a file that says nothing of its axes has those of the image."""
    axes = stack.axes.replace("c", "")
    try:
        return open_stack(path, axes=axes)
    except SegError:
        return open_stack(path)  # another number of dimensions: what it says itself makes the better message


def _zoom(stack: Stack, pixel_size_um: float | None, dims: int) -> tuple[float, ...] | None:
    """Magnification of each axis that gives pixels of `pixel_size_um`; None leaves all as it is."""
    if pixel_size_um is None:
        return None
    axes = "zyx"[-dims:]
    spacing = stack.calibration.spacing_um(axes)
    if spacing is None:
        raise DataError(
            f"no pixel size is known along {axes}, so it cannot be resampled to data.pixel_size_um={pixel_size_um:g}; "
            "set data.sources.NAME.pixel_size_um, or data.pixel_size_um=0 to resample nothing."
        )
    zoom = tuple(size / pixel_size_um for size in spacing)
    return None if all(abs(z - 1) < 0.02 for z in zoom) else zoom


def _resampled(image: np.ndarray, values: np.ndarray, zoom: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    if zoom is None:
        return image, values
    fine = resample(image, zoom).astype(np.float16)
    exact = [new / old for new, old in zip(fine.shape, values.shape, strict=True)]
    return fine, ndimage.zoom(values, exact, order=0, grid_mode=True, mode="nearest")


def _grey_frame(stack: Stack, t: int) -> np.ndarray:
    frame = stack.frame(t)
    return to_grey(frame, stack.axes.replace("t", "")) if "c" in stack.axes else frame


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
        hint = " Add 0: null where 0 means unlabelled." if 0 in unknown else ""
        raise DataError(f"{path.name} holds label value(s) {shown}; its classes are {{{expected}}}.{hint}")


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


def listed(head: str, problems: Sequence[str]) -> str:
    """One problem per line under `head`, at most twenty."""
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
