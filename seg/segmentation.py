"""A segmentation: class indices on the grid of the input, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from seg.errors import LabelError
from seg.labels import LabelSchema
from seg.stack import Stack


@dataclass(frozen=True)
class Provenance:
    """How a result was made: enough to make it again."""

    software: str = ""
    model: str = ""
    model_sha256: str = ""
    input_fingerprint: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Segmentation:
    """Class indices with their meaning and calibration.

    Parameters
    ----------
    stack : Stack
        Integer class indices; axes are those of the image without ``c``; 0 is unlabelled or not predicted.
    schema : LabelSchema
    provenance : Provenance
    """

    stack: Stack
    schema: LabelSchema
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if "c" in self.stack.axes or not np.issubdtype(self.stack.dtype, np.integer):
            raise LabelError(
                f"{self.stack.name!r} has axes {self.stack.axes!r} and type {self.stack.dtype}; "
                "a segmentation is an integer array without a channel axis."
            )
