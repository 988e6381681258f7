"""Whether stated probabilities come true: reliability, calibration error, and the temperature that mends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

N_BINS = 15
_FLOOR = 1e-20  # smallest probability whose logarithm is taken


def reliability(confidence: np.ndarray, correct: np.ndarray, *, n_bins: int = N_BINS) -> pd.DataFrame:
    """How often predictions of each confidence are right.

    Parameters
    ----------
    confidence : ndarray of float, shape (N,)
        Probability stated for the class chosen.
    correct : ndarray of bool, shape (N,)
    n_bins : int
        Bins of equal width over 0 to 1.

    Returns
    -------
    DataFrame
        One row per bin that holds any: ``low``, ``high``, ``n``, ``confidence`` (mean) and ``accuracy`` (share right).
    """
    place = np.minimum((np.asarray(confidence) * n_bins).astype(int), n_bins - 1)
    n = np.bincount(place, minlength=n_bins)
    held = n > 0
    edges = np.linspace(0, 1, n_bins + 1)
    stated = np.bincount(place, confidence, minlength=n_bins)[held] / n[held]
    right = np.bincount(place, np.asarray(correct, float), minlength=n_bins)[held] / n[held]
    return pd.DataFrame(
        {"low": edges[:-1][held], "high": edges[1:][held], "n": n[held], "confidence": stated, "accuracy": right}
    )


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: mean distance of accuracy from confidence, weighted by pixels; NaN for none.

    Parameters
    ----------
    table : DataFrame
        As from `reliability`.

    References
    ----------
    Guo, C. et al. (2017). On calibration of modern neural networks. ICML.
    """
    total = table["n"].sum()
    if not total:
        return float("nan")
    return float((table["n"] * (table["confidence"] - table["accuracy"]).abs()).sum() / total)


def temper(probabilities: np.ndarray, temperature: float, *, axis: int = 0) -> np.ndarray:
    """Probabilities under another temperature: softmax of the logits divided by it.

    Above 1 they become less sure, below 1 surer; the most probable class stays the same.
    """
    powered = np.maximum(probabilities, _FLOOR) ** (1 / temperature)
    return powered / powered.sum(axis=axis, keepdims=True)


def fit_temperature(probabilities: np.ndarray, allowed: np.ndarray) -> float:
    """Temperature under which the labels are most likely.

    Parameters
    ----------
    probabilities : ndarray of float, shape (N, K)
        Of pixels that were not trained on.
    allowed : ndarray of bool, shape (N, K)
        The classes the label of each pixel leaves open: one for an exact label.

    Returns
    -------
    float
        Between 0.05 and 20; 1 where there is no pixel.

    Notes
    -----
    Minimises the negative log-likelihood, one parameter (Guo et al. 2017). Masks do not change with it.
    """
    if not len(probabilities):
        return 1.0
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(probabilities.astype(np.float64), _FLOOR))

    def cost(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        shares = np.exp(scaled)
        likely = (shares * allowed).sum(axis=1) / shares.sum(axis=1)
        return float(-np.log(np.maximum(likely, _FLOOR)).mean())

    found = minimize_scalar(cost, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def top_choice(probabilities: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness of the most probable class of each pixel.

    Classes that any of the labels leaves open together count as one in all pixels, with the sum of their probabilities:
    what is chosen must not depend on the label.

    Parameters
    ----------
    probabilities, allowed : ndarray, shape (N, K)
        As for `fit_temperature`.

    Returns
    -------
    confidence : ndarray of float, shape (N,)
    correct : ndarray of bool, shape (N,)
    """
    together = (allowed.T.astype(np.float32) @ allowed.astype(np.float32)) > 0  # (K, K), seen in one label
    n, group = connected_components(together | np.eye(len(together), dtype=bool), directed=False)
    member = np.eye(n)[group]  # (K, G)
    joined = probabilities @ member
    chosen = joined.argmax(axis=1)
    truth = (allowed @ member).argmax(axis=1)
    return np.clip(joined.max(axis=1), 0, 1), chosen == truth


def draw_reliability(tables: dict[str, pd.DataFrame], path: Path) -> Path:
    """Save the reliability plot as a picture: accuracy against confidence, one line per entry of `tables`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--", label="right as often as stated")
    for name, table in tables.items():
        label = f"{name}: ECE {calibration_error(table):.3f}"
        size = 8 + 60 * np.sqrt(table["n"] / max(table["n"].max(), 1))
        line = axes.plot(table["confidence"], table["accuracy"], lw=1.5, label=label)[0]
        axes.scatter(table["confidence"], table["accuracy"], s=size, color=line.get_color())
    axes.set(xlabel="probability stated", ylabel="share of pixels that are right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
