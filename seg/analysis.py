"""What to do with an input: the analysis, read from ``configs/analysis/NAME.yaml`` or from the user's own copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from seg.cleanup import ClassLimits, CleanUp
from seg.errors import UsageError
from seg.labels import load_schema
from seg.metrics import METRICS, check_options, check_requirements
from seg.modality import modality
from seg.resources import config_file
from seg.stack import MAX_PIXEL_SIZE_REL_SD

# A spread over fewer says nothing.
MIN_MASK_SAMPLES = 4
VIEWS = ("plan", "profile", "section", "volume")


@dataclass(frozen=True)
class ObjectOptions:
    """Which classes are counted as objects, and how.

    Parameters
    ----------
    classes : tuple of str
        Classes whose connected regions are objects.
    split_touching : bool
        Separate objects that touch.
    min_diameter_px : float
        Detection limit: smaller objects are listed and flagged but not counted.
    """

    classes: tuple[str, ...] = ("deposit",)
    split_touching: bool = True
    min_diameter_px: float = 4.0


_CLASS_PAIRS = {"relabel": "{deposit: pit}", "fixed": "{substrate: deposit}"}
"""Keys of an analysis that map classes to classes, and an example of each."""


@dataclass(frozen=True)
class AnalysisConfig:
    """One analysis: which model, which classes, which metrics.

    Parameters
    ----------
    name, title, description : str
    modality : str
        A key of ``seg.modality.MODALITIES``.
    view : str
        ``plan``, ``profile``, ``section`` or ``volume``.
    model : str
        Name or folder of a model; ``auto`` takes the shipped one for the modality, the view and the pixel size.
    schema : str
        Name or file of the label schema.
    objects : ObjectOptions
    metrics : mapping of str to mapping
        Metric groups to compute and their options.
    headline : tuple of str
        Metrics shown first in the report and in the terminal.
    postprocess : CleanUp or None
        How predicted masks are cleaned; None: they stay as they are.
    relabel : mapping of str to str
        Classes that cannot occur in such images, and what is meant where a model finds them: ``{deposit: pit}``. The
        other class gets their probability before classes are decided.
    fixed : mapping of str to str
        Classes that stay as they are in the first frames of a recording, and what lies on them:
        ``{substrate: deposit}`` (`seg.fixed_classes`).
    mask_samples : int
        Masks drawn from the probabilities of each frame of a run and measured again (`seg.mask_samples`); 0: none.
    key_frames : int
        Frames shown as pictures in the report.
    min_confidence : float
        A frame whose mean class probability is lower is flagged ``low-confidence``.
    min_class_confidence : float
        So are the numbers of classes in a frame whose pixels have a lower mean probability: at 0.8 a fifth of them are
        expected to be something else.
    pixel_size_rel_sd : float or None
        Standard deviation of the pixel size, as a share of it, of inputs that come without one of their own.
    """

    name: str
    title: str
    description: str
    modality: str
    view: str
    metrics: Mapping[str, Mapping[str, Any]]
    headline: tuple[str, ...] = ()
    model: str = "auto"
    schema: str = "lithium"
    objects: ObjectOptions = field(default_factory=ObjectOptions)
    postprocess: CleanUp | None = field(default_factory=CleanUp)
    relabel: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    mask_samples: int = 0
    key_frames: int = 5
    min_confidence: float = 0.6
    min_class_confidence: float = 0.8
    pixel_size_rel_sd: float | None = None

    def __post_init__(self) -> None:
        modality(self.modality)
        if self.view not in VIEWS:
            raise UsageError(f"Analysis {self.name!r}: view {self.view!r} is not one of {', '.join(VIEWS)}.")
        schema = load_schema(self.schema)
        for name in self.objects.classes:
            schema.index(name)
        for name in self.postprocess.classes if self.postprocess else ():
            schema.index(name)
        for key, example in _CLASS_PAIRS.items():
            if not isinstance(getattr(self, key), Mapping):
                raise UsageError(
                    f"Analysis {self.name!r}: {key} is {getattr(self, key)!r}; expected classes such as {example}."
                )
            self._label_values(getattr(self, key))  # LabelError names the nearest class
        self._check_relabel()
        if not isinstance(self.mask_samples, int) or self.mask_samples < 0 or 0 < self.mask_samples < MIN_MASK_SAMPLES:
            raise UsageError(
                f"Analysis {self.name!r}: mask_samples is {self.mask_samples!r}; expected 0 or a number from "
                f"{MIN_MASK_SAMPLES}, such as 16."
            )
        for group, options in self.metrics.items():
            if group not in METRICS:
                raise UsageError(f"Analysis {self.name!r}: {_unknown('metric group', group, METRICS)}")
            check_options(group, options)
        check_requirements(self.metrics)
        known = [metric for group in METRICS.values() for metric in group.metrics]
        for metric in self.headline:
            if metric not in known:
                raise UsageError(f"Analysis {self.name!r}, headline: {_unknown('metric', metric, known)}")
        doubt = self.pixel_size_rel_sd
        if doubt is not None and not (isinstance(doubt, (int, float)) and 0 <= doubt <= MAX_PIXEL_SIZE_REL_SD):
            raise UsageError(
                f"Analysis {self.name!r}: pixel_size_rel_sd is {doubt!r}; expected a share from 0 to "
                f"{MAX_PIXEL_SIZE_REL_SD:g}, such as 0.02 for 2 %."
            )

    def _check_relabel(self) -> None:
        for old, new in self.relabel.items():
            if new in self.relabel or old in self.objects.classes:
                raise UsageError(
                    f"Analysis {self.name!r}: relabel sends {old!r} to {new!r}, but "
                    + (
                        f"{new!r} is itself relabelled."
                        if new in self.relabel
                        else f"{old!r} is measured as an object."
                    )
                )

    @property
    def relabel_values(self) -> tuple[tuple[int, int], ...]:
        """The pairs of `relabel` as label values."""
        return self._label_values(self.relabel)

    @property
    def fixed_values(self) -> tuple[tuple[int, int], ...]:
        """The pairs of `fixed` as label values."""
        return self._label_values(self.fixed)

    def _label_values(self, pairs: Mapping[str, str]) -> tuple[tuple[int, int], ...]:
        schema = load_schema(self.schema)
        return tuple((schema.index(one), schema.index(other)) for one, other in pairs.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the YAML files."""
        return asdict(self)


# What YAML may give for a field of each type, and its name. Fields of other types are checked where they are built.
_PLAIN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda v: isinstance(v, str), "text"),
    "bool": (lambda v: isinstance(v, bool), "true or false"),
    "int": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "float": (lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), "a number"),
    "tuple[str, ...]": (lambda v: isinstance(v, (list, tuple)) and all(isinstance(i, str) for i in v), "names"),
}


def _unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    known = list(known)
    if near := get_close_matches(str(name), known, n=1):
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = f"there are {', '.join(known)}." if len(known) <= 40 else f"none of the {len(known)} is near it."
    return f"there is no {kind} {name!r}; {hint}"


def _build(cls: type, data: Any, where: str) -> Any:
    """A dataclass from plain data; unknown and missing keys are errors that name what was meant."""
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: found {type(data).__name__}, expected keys and values.")
    known = {f.name: f for f in fields(cls)}
    for key in data:
        if key not in known:
            raise UsageError(f"{where}: {_unknown('key', key, known)}")
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [n for n in required if n not in data]
    if missing:
        raise UsageError(f"{where}: missing {', '.join(missing)}.")
    for key, value in data.items():
        fits, expected = _PLAIN.get(str(known[key].type), (None, ""))
        if fits is not None and not fits(value):
            raise UsageError(f"{where}: {key} is {value!r}; expected {expected}.")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}


def analysis_from_dict(data: Mapping[str, Any], *, where: str = "analysis") -> AnalysisConfig:
    """An AnalysisConfig from plain data; UsageError names the nearest known key."""
    values = _build(AnalysisConfig, data, where)
    if "objects" in values:
        values["objects"] = ObjectOptions(**_build(ObjectOptions, values["objects"], f"{where}, objects"))
    if "postprocess" in values:
        values["postprocess"] = _clean_up(values["postprocess"], f"{where}, postprocess")
    if not isinstance(values["metrics"], Mapping):
        raise UsageError(f"{where}: metrics must map group names to their options, such as `counting: {{}}`.")
    for group, options in values["metrics"].items():
        if not isinstance(options or {}, Mapping):
            raise UsageError(f"{where}: metrics, {group} is {options!r}; expected options such as `{group}: {{}}`.")
    values["metrics"] = {group: dict(options or {}) for group, options in values["metrics"].items()}
    return AnalysisConfig(**values)


def _clean_up(data: Any, where: str) -> CleanUp | None:
    """The section ``postprocess``: keys and values, or ``none``."""
    if data is None or data == "none":
        return None
    values = _build(CleanUp, data, where)
    classes = values.get("classes") or {}
    if not isinstance(classes, Mapping):
        raise UsageError(f"{where}: classes must map class names to limits, such as `void: {{min_diameter_px: 2}}`.")
    values["classes"] = {
        name: ClassLimits(**_build(ClassLimits, limits, f"{where}, {name}")) for name, limits in classes.items()
    }
    return CleanUp(**values)


def load_analysis(name_or_path: str | Path) -> AnalysisConfig:
    """Read an analysis by preset name or from a YAML file."""
    path = config_file("analysis", name_or_path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable YAML: {error}") from error
    return analysis_from_dict(data, where=str(path))
