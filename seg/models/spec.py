"""What a model says of itself: architecture, classes, pixels, normalisation, training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from seg import __version__
from seg.errors import LabelError, ModelError
from seg.labels import UNLABELLED, LabelSchema

FORMAT_VERSION = 1
MAX_LABEL_VALUE = 255  # masks are uint8


@dataclass(frozen=True)
class ModelSpec:
    """What a model is, what its outputs mean and where it may be used; the content of ``model.json``.

    Parameters
    ----------
    name : str
    architecture : str
        A key of ``seg.models.ARCHITECTURES``.
    arguments : mapping
        Arguments of the architecture, with ``n_classes``. A network with ``norm="group"`` is not tile-invariant:
        its result depends on how an image is cut.
    schema : mapping
        ``LabelSchema.to_dict()`` of the labels it was trained on.
    class_indices : tuple of int
        Output channel k stands for label value ``class_indices[k]``; 0 (unlabelled) is never among them.
    dims : int
        2 or 3. A 2-D model is applied to volumes slice by slice.
    modalities : tuple of str
        Modalities it was trained for.
    pixel_size_um, pixel_size_range_um : float, (float, float) or None
        Pixel size it was trained at, and the range it was tested on, µm; None when the training images state none.
    normalisation : mapping
        ``percentiles``: of the whole series, which map to 0 and 1.
    temperature : float
        Its logits are divided by it before they become probabilities, so that these are right as often as they say;
        fitted to images held out from training (`seg.reliability`).
    licence : str
    slices : str
        ``across``: a 2-D network that knows slices of volumes across the layers of a cell only; volumes with layers
        along z are turned for it (`seg.turning`). Empty: it takes planes as they are.
    views : tuple of str
        How its objects were seen (``plan``, ``profile``, ``section``, ``volume``); empty: in any way.
    training : mapping
        Data, split, settings and scores, as plain data.
    format_version : int
    code_version : str
        Version of this package that wrote the model.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any]
    schema: Mapping[str, Any]
    class_indices: tuple[int, ...]
    dims: int = 2
    modalities: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    pixel_size_range_um: tuple[float, float] | None = None
    normalisation: Mapping[str, Any] = field(default_factory=lambda: {"percentiles": [0.5, 99.5]})
    temperature: float = 1.0
    licence: str = "unspecified"
    slices: str = ""
    views: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    code_version: str = __version__

    def __post_init__(self) -> None:
        for name in ("class_indices", "modalities", "pixel_size_range_um", "views"):  # JSON knows lists only
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.format_version != FORMAT_VERSION:
            raise ModelError(
                f"Model {self.name!r} has format version {self.format_version!r}; this version of operandoseg "
                f"({__version__}) reads {FORMAT_VERSION}. Export it again, or install the version that wrote it "
                f"({self.code_version})."
            )
        if self.slices not in ("", "across"):
            raise ModelError(f"Model {self.name!r} knows slices {self.slices!r}; expected 'across' or nothing.")
        if not self.class_indices or len(set(self.class_indices)) != len(self.class_indices):
            raise ModelError(f"Model {self.name!r} predicts classes {self.class_indices}; expected different indices.")
        if UNLABELLED in self.class_indices:
            raise ModelError(f"Model {self.name!r} predicts class 0, which always means unlabelled.")
        if max(self.class_indices) > MAX_LABEL_VALUE:
            raise ModelError(
                f"Model {self.name!r} predicts label value {max(self.class_indices)}; "
                f"masks hold at most {MAX_LABEL_VALUE}."
            )
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < float("inf")):
            raise ModelError(f"Model {self.name!r} has the temperature {self.temperature!r}; expected more than 0.")
        if self.arguments.get("n_classes") != len(self.class_indices):
            raise ModelError(
                f"Model {self.name!r} has {self.arguments.get('n_classes')!r} output channels (n_classes) "
                f"but {len(self.class_indices)} class indices."
            )
        try:
            for index in self.class_indices:
                self.label_schema.class_name(index)
            low, high = self.percentiles
        except LabelError as error:
            raise ModelError(f"Model {self.name!r}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"Model {self.name!r} states no normalisation percentiles (low, high).") from error
        if not 0 <= low < high <= 100:
            raise ModelError(f"Model {self.name!r} has normalisation percentiles {low}, {high}; expected 0..100.")

    @property
    def label_schema(self) -> LabelSchema:
        """The schema as an object."""
        return LabelSchema.from_dict(self.schema, where=f"schema of model {self.name!r}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the predicted classes, in the order of the output channels."""
        schema = self.label_schema
        return tuple(schema.class_name(index) for index in self.class_indices)

    @property
    def percentiles(self) -> tuple[float, float]:
        """Percentiles of the series that map to 0 and 1."""
        low, high = self.normalisation["percentiles"]
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "model.json") -> ModelSpec:
        """The inverse of `to_dict`; ModelError names keys that are missing or unknown."""
        if data.get("format_version", FORMAT_VERSION) == FORMAT_VERSION:  # else the version says more than the keys
            names = {f.name for f in fields(cls)}
            unknown = sorted(set(data) - names)
            if unknown:
                near = get_close_matches(unknown[0], names, n=1)
                raise ModelError(f"{where} has the unknown key {unknown[0]!r}" + (f"; {near[0]!r}?" if near else "."))
        try:
            return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})
        except (TypeError, AttributeError, LabelError) as error:
            raise ModelError(f"{where} is not a model specification: {error}.") from error
