"""What label values mean: classes with names and colours, and the schema that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from seg.errors import LabelError, UsageError
from seg.resources import config_file

UNLABELLED = 0


@dataclass(frozen=True)
class LabelClass:
    """One class: its index in label files, its name, its colour (``#rrggbb``) and what it stands for."""

    index: int
    name: str
    color: str
    description: str = ""

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three bytes."""
        return int(self.color[1:3], 16), int(self.color[3:5], 16), int(self.color[5:7], 16)


@dataclass(frozen=True)
class LabelSchema:
    """The classes label files of one kind may hold; index 0 always means unlabelled or not predicted."""

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        indices = [c.index for c in self.classes]
        names = [c.name for c in self.classes]
        if UNLABELLED in indices or min(indices, default=1) < 0:
            raise LabelError(f"Schema {self.name!r} gives a class the index 0 or less; 0 always means unlabelled.")
        if len(set(indices)) != len(indices) or len(set(names)) != len(names):
            raise LabelError(f"Schema {self.name!r} uses an index or a name twice.")

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in the order of the schema, without ``unlabelled``."""
        return tuple(c.name for c in self.classes)

    def by_name(self, name: str) -> LabelClass:
        """The class called `name`; UsageError names the nearest when there is none."""
        for label_class in self.classes:
            if label_class.name == name:
                return label_class
        near = get_close_matches(name, self.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.names)}."
        raise UsageError(f"Schema {self.name!r} has no class {name!r}; {hint}")

    def index(self, name: str) -> int:
        """Label value of the class called `name`."""
        return self.by_name(name).index

    def class_name(self, index: int) -> str:
        """Name of the class with label value `index`; ``"unlabelled"`` for 0."""
        if index == UNLABELLED:
            return "unlabelled"
        for label_class in self.classes:
            if label_class.index == index:
                return label_class.name
        raise LabelError(f"Schema {self.name!r} has no class with index {index}.")

    def mask(self, labels: np.ndarray, names: str | Iterable[str]) -> np.ndarray:
        """Where `labels` holds any of the named classes; bool, shape of `labels`."""
        wanted = [names] if isinstance(names, str) else list(names)
        if not wanted:
            return np.zeros(labels.shape, bool)
        found = labels == self.index(wanted[0])
        for name in wanted[1:]:  # a few comparisons cost less than a look-up
            found |= labels == self.index(name)
        return np.asarray(found)

    def check(self, labels: np.ndarray, *, where: str = "labels") -> None:
        """Raise LabelError unless `labels` is an integer array of schema values or 0."""
        if not np.issubdtype(labels.dtype, np.integer):
            raise LabelError(f"{where} has type {labels.dtype}; expected integer class indices.")
        indices = {UNLABELLED, *(c.index for c in self.classes)}
        if len(indices) == max(indices) + 1 and labels.dtype.kind == "u" and labels.max(initial=0) <= max(indices):
            return  # nothing between 0 and the last class is unknown: no need to look at each value
        small = labels.dtype.kind == "u" and labels.dtype.itemsize <= 2  # counting beats sorting many times over
        found = np.flatnonzero(np.bincount(labels.ravel())) if small else np.unique(labels)
        unknown = sorted(set(found.tolist()) - {UNLABELLED} - {c.index for c in self.classes})
        if unknown:
            shown = ", ".join(str(v) for v in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            known = ", ".join(f"{c.index} {c.name}" for c in self.classes)
            raise LabelError(
                f"{where} holds label value(s) {shown} that schema {self.name!r} does not know ({known}). "
                "Pass --schema FILE, or map the values in the sidecar <name>.labels.json."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the YAML files and in ``<name>.labels.json``."""
        return {
            "name": self.name,
            "classes": [
                {"index": c.index, "name": c.name, "color": c.color, "description": c.description} for c in self.classes
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "schema") -> LabelSchema:
        """The inverse of `to_dict`; LabelError says what is missing."""
        try:
            items: Sequence[Mapping[str, Any]] = data["classes"]
            classes = tuple(
                LabelClass(
                    int(c["index"]), str(c["name"]), str(c.get("color", "#808080")), str(c.get("description", ""))
                )
                for c in items
            )
            return cls(str(data["name"]), classes)
        except (KeyError, TypeError, ValueError) as error:
            raise LabelError(
                f"{where} is not a label schema ({error}); expected a name and classes with index, name and color."
            ) from error


def load_schema(name_or_path: str | Path = "lithium") -> LabelSchema:
    """Read a schema by name (``configs/labels/NAME.yaml``) or from a YAML or JSON file."""
    path = config_file("labels", name_or_path)
    with path.open(encoding="utf-8") as file:
        return LabelSchema.from_dict(yaml.safe_load(file), where=str(path))
