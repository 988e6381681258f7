"""From features to words: soft thresholds, and a decision that may be open."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Weight of "none of these" against kinds that fit fully (1).
NONE_OF_THESE = 0.1
# Less certain than this is undecided.
LEAST_PROBABILITY = 0.5
UNDECIDED = "undecided"


def soft(value: float, threshold: float, spread: float) -> float:
    """How far a positive value is over a threshold: 1/2 at it, 0.73 a factor `spread` on, 0.95 three of them on.

    A `spread` below 1 turns the sense round. NaN tells nothing: 1/2.
    """
    if math.isnan(value):
        return 0.5
    if value <= 0:
        return 0.0 if spread > 1 else 1.0
    steps = math.log(value / threshold) / math.log(spread)
    return 1 / (1 + math.exp(-min(max(steps, -50.0), 50.0)))


def probabilities(weights: Mapping[str, float]) -> dict[str, float]:
    """Share of every kind; what is missing to 1 belongs to none of them."""
    total = sum(weights.values()) + NONE_OF_THESE
    return {name: weight / total for name, weight in weights.items()}


def decide(weights: Mapping[str, float]) -> tuple[str, float]:
    """The likeliest kind and its probability, or ``"undecided"`` and that of the likeliest.

    Parameters
    ----------
    weights : mapping of str to float
        How well each kind fits, 0 to 1: the product of soft thresholds on its features.

    Notes
    -----
    A probability is the share of a weight in the sum of all and of 0.1 for none of them. Under one half the answer is
    open: two kinds fit alike, or none does. The probabilities are those of the rules, not frequencies of being right.
    """
    shares = probabilities(weights)
    best = max(shares, key=lambda name: shares[name])
    return (best if shares[best] >= LEAST_PROBABILITY else UNDECIDED), shares[best]
