"""What the clean-up of predicted masks is told: settings of an analysis, and the limits in pixels that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seg.errors import CalibrationError, UsageError
from seg.labels import LabelSchema

N_VALUES = 256  # label values are bytes


@dataclass(frozen=True)
class ClassLimits:
    """What `CleanUp` says, for one class; None: as for all."""

    min_diameter_px: float | None = None
    min_diameter_um: float | None = None
    min_peak_probability: float | None = None


@dataclass(frozen=True)
class CleanUp:
    """The section ``postprocess`` of an analysis; the rules stand at the head of `seg.postprocess`.

    Parameters
    ----------
    min_diameter_px : float or None
        Of a disc (ball) with as many pixels as a region needs. None: the detection limit of the objects.
    min_diameter_um : float or None
        The same as a length; where both are given and the pixel size is known the larger one counts.
    min_peak_probability : float
        0: no region goes for being doubtful. Not used where masks come without probabilities.
    min_frames : int
        2 removes objects that overlap none in the frame before nor after; 1 keeps them. What is seen in the first or
        the last frame stays.
    classes : mapping of str to ClassLimits
        Other limits for some classes.
    """

    min_diameter_px: float | None = None
    min_diameter_um: float | None = None
    min_peak_probability: float = 0.7
    min_frames: int = 1
    classes: Mapping[str, ClassLimits] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for limits in (self, *self.classes.values()):
            for name in ("min_diameter_px", "min_diameter_um"):
                value = getattr(limits, name)
                if value is not None and not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                    raise UsageError(f"postprocess: {name} is {value!r}; expected a diameter from 0.")
            peak = limits.min_peak_probability
            if peak is not None and not (isinstance(peak, (int, float)) and 0 <= peak <= 1):
                raise UsageError(f"postprocess: min_peak_probability is {peak!r}; expected a probability from 0 to 1.")
        if self.min_frames not in (1, 2):
            raise UsageError(f"postprocess: min_frames is {self.min_frames}; expected 1 or 2.")


@dataclass(frozen=True)
class Rules:
    """`CleanUp` in pixels, for one stack.

    Parameters
    ----------
    together : tuple of int
        Label values that are counted together.
    least_px : ndarray of float, shape (256,)
        Pixels that a region of each label value needs.
    peak : ndarray of float32, shape (256,)
        Probability that one pixel of it needs.
    min_frames : int
    """

    together: tuple[int, ...]
    least_px: np.ndarray
    peak: np.ndarray
    min_frames: int = 1

    def is_sure(self, labels: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Where the class chosen reaches the probability that its regions need; bool, shape of `labels`."""
        return confidence if confidence.dtype == bool else confidence >= self.peak[labels]

    def beside(self, frame: int, n_frames: int) -> list[int]:
        """The frames that an object must be seen in as well; the first and the last frame are not asked."""
        return [frame - 1, frame + 1] if self.min_frames > 1 and 0 < frame < n_frames - 1 else []

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the key of a stage."""
        return {
            "together": self.together, "least_px": self.least_px.tolist(), "peak": self.peak.tolist(),
            "min_frames": self.min_frames,
        }  # fmt: skip


def make_rules(
    settings: CleanUp, schema: LabelSchema, together: Sequence[str], *, ndim: int, min_diameter_px: float,
    spacing_um: Sequence[float] | None,
) -> Rules:  # fmt: skip
    """Turn the settings into limits in pixels.

    Parameters
    ----------
    settings : CleanUp
    schema : LabelSchema
    together : sequence of str
        Classes that are counted together.
    ndim : int
    min_diameter_px : float
        Where the settings name no diameter.
    spacing_um : sequence of float or None
        Pixel size along each axis; None: not known.

    Raises
    ------
    CalibrationError
        A limit is a length, no limit in pixels stands beside it, and there is no pixel size.
    UsageError
        A class is not in the schema.
    """
    for name in settings.classes:
        schema.index(name)
    least = np.zeros(N_VALUES)
    peak = np.zeros(N_VALUES, np.float32)
    for label_class in schema.classes:
        own = settings.classes.get(label_class.name, ClassLimits())
        lengths = [own.min_diameter_px, own.min_diameter_um]
        if lengths == [None, None]:
            lengths = [settings.min_diameter_px, settings.min_diameter_um]
        if lengths == [None, None]:
            lengths[0] = min_diameter_px
        in_px, in_um = lengths
        if in_um is not None and spacing_um is None and in_px is None:
            raise CalibrationError(
                f"postprocess: min_diameter_um is {in_um:g} but the input has no pixel size; pass --pixel-size, or "
                "say min_diameter_px."
            )
        sizes = [_ball(in_px or 0.0, ndim)]
        if in_um is not None and spacing_um is not None:
            sizes.append(_ball(in_um, ndim) / math.prod(spacing_um))
        least[label_class.index] = max(sizes)
        share = own.min_peak_probability
        peak[label_class.index] = settings.min_peak_probability if share is None else share
    return Rules(tuple(schema.index(n) for n in together if n in schema.names), least, peak, settings.min_frames)


def _ball(diameter: float, ndim: int) -> float:
    return float(math.pi * diameter**ndim / (4 if ndim == 2 else 6))
