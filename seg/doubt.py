"""How sure a network was of its masks, and which of their numbers that makes doubtful."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from seg.metrics.table import Measurement


@dataclass(frozen=True)
class Confidence:
    """Pixels, and the sum of the probability of the class chosen in them, by frame and class.

    Parameters
    ----------
    sums : mapping of int to ndarray of float, shape (n_frames, 2)
        By label value, those that occur; none where masks come without probabilities.
    """

    sums: Mapping[int, np.ndarray]

    @property
    def n_frames(self) -> int:
        """Frames that are known of."""
        return max(map(len, self.sums.values()), default=0)

    def mean(self, frame: int, values: Collection[int] | None = None) -> float:
        """Mean probability of the class chosen where that is one of `values` (None: anywhere); 1 where none is."""
        found = [of_frames[frame] for value, of_frames in self.sums.items() if values is None or value in values]
        pixels, probability = np.sum(found, axis=0) if found else (0.0, 0.0)
        return float(probability / pixels) if pixels else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: two lists a class, as a list a frame would take five times the memory."""
        return {str(value): self.sums[value].T.tolist() for value in sorted(self.sums)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Confidence:
        """What `to_dict` gave."""
        return cls({int(value): np.array(lists).T for value, lists in data.items()})


@dataclass(frozen=True)
class Doubts:
    """Which numbers of predicted masks are flagged ``low-confidence``.

    Parameters
    ----------
    confidence : Confidence
    values : mapping of str to int
        Label values of the classes by name.
    min_confidence, min_class_confidence : float
        Least mean probability of a frame, and of the pixels of the classes that a number is of: where classes are as
        probable as the network says, the share of these pixels that are something else is what is missing to 1.
    """

    confidence: Confidence
    values: Mapping[str, int]
    min_confidence: float
    min_class_confidence: float

    def reason(self, frame: int, classes: Sequence[str] = ()) -> str:
        """Why the numbers of some classes in a frame are doubtful; empty where they are not."""
        if frame >= self.confidence.n_frames:
            return ""
        whole = self.confidence.mean(frame)
        if whole < self.min_confidence:
            return f"mean class probability {whole:.2f} is below {self.min_confidence:.2f}"
        values = [self.values[name] for name in classes if name in self.values]
        own = self.confidence.mean(frame, values) if values else 1.0
        if own < self.min_class_confidence:
            names = ", ".join(name.replace("_", " ") for name in classes)
            return f"mean class probability of {names} {own:.2f} is below {self.min_class_confidence:.2f}"
        return ""

    def in_most_frames(self, classes: Sequence[str]) -> bool:
        """Whether the numbers of some classes are doubtful in more than half of the frames."""
        frames = range(self.confidence.n_frames)
        return 2 * sum(bool(self.reason(frame, classes)) for frame in frames) > len(frames)


def doubted(rows: Sequence[Measurement], is_doubtful: Callable[[Sequence[str]], bool]) -> list[Measurement]:
    """The rows, those of doubtful classes flagged ``low-confidence``."""
    found = {classes for classes in {row.classes for row in rows} if is_doubtful(classes)}
    return [replace(row, flags=(*row.flags, "low-confidence")) if row.classes in found else row for row in rows]
