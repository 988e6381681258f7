"""How often the law of nucleation is found, from births alone: ``python -m seg.accuracy.laws --out FILE``.

Experiments of each law are drawn as numbers of births per frame, without images: sites of a Poisson number, rates that
leave 2 to 6 e-folds until the last frame, and where the law is mixed a quarter to three fifths of the sites at once.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from seg.accuracy.trials import binomial_interval
from seg.metrics.birth_series import BirthSeries, since_onset
from seg.metrics.nucleation_laws import LAWS, Estimate, compare_laws

logger = logging.getLogger(__name__)

SITES, FRAMES = (50, 100, 300), (12, 40)
ONSETS = ("known", "with the first birth")
COLUMNS = ("onset", "frames", "sites", "law", "n", "right", "withheld", "wrong", "rate_held", "share_held")


@dataclass(frozen=True)
class Experiment:
    """Births of one drawn experiment over frames one second apart, the first of them without any."""

    law: str
    rate_per_s: float
    share: float
    series: BirthSeries


def draw(rng: np.random.Generator, law: str, *, sites: int, frames: int, onset: str) -> Experiment:
    """Draw an experiment; where its onset is not known it lies anywhere before the second frame."""
    end = float(frames - 1)
    rate = float(rng.uniform(2, 6)) / end
    share = {"instantaneous": 1.0, "mixed": float(rng.uniform(0.25, 0.6))}.get(law, 0.0)
    start = 0.0 if onset == "known" else float(rng.uniform(0, 1))
    n = int(rng.poisson(sites))
    later = rng.uniform(0, end - start, n) if law == "progressive" else rng.exponential(1 / rate, n)
    born = start + np.where(rng.uniform(size=n) < share, 1e-9, later)
    clock = np.arange(frames, dtype=float)
    counts = np.bincount(np.ceil(born[born <= end]).astype(int), minlength=frames)
    whole = np.ones(frames)
    series = BirthSeries(
        np.arange(frames), clock, True, counts, whole, whole, whole, "deposit", (), True, dated_back=onset == "known"
    )
    return Experiment(law, rate, share, series)


def study(*, n: int, seed: int = 0, sites: tuple[int, ...] = SITES, frames: tuple[int, ...] = FRAMES) -> pd.DataFrame:
    """Find the law of `n` experiments of each kind.

    Parameters
    ----------
    n, seed : int
    sites, frames : tuple of int

    Returns
    -------
    DataFrame
        One row per kind of onset, number of frames and of sites, and law: how many verdicts were ``right``,
        ``withheld`` and ``wrong``; and of the intervals of the rate constant and of the instantaneous share, where the
        law has them, the number that hold the truth, and of how many (``"190 of 200"``).
    """
    rows = []
    for onset in ONSETS:
        for count in frames:
            for size in sites:
                for number, law in enumerate(LAWS):
                    rng = np.random.default_rng([seed, ONSETS.index(onset), count, size, number])
                    made = [draw(rng, law, sites=size, frames=count, onset=onset) for _ in range(n)]
                    rows.append((onset, count, size, law, n, *_found(made, onset)))
        logger.info("onset %s", onset)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _found(experiments: list[Experiment], onset: str) -> tuple[int, int, int, str, str]:
    right = withheld = 0
    rates, shares = [], []
    for made in experiments:
        since = since_onset(made.series, 0.0 if onset == "known" else None, None)
        if since is None:
            withheld += 1
            continue
        verdict = compare_laws(since.births)
        withheld += verdict.refused
        right += not verdict.refused and verdict.law == made.law
        if made.law in ("saturating", "mixed"):
            rates.append(_holds(verdict.rate_constant_per_s, made.rate_per_s))
            shares.append(_holds(verdict.fits["mixed"].instantaneous_fraction, made.share))
    said = [
        f"{sum(h)} of {len(h)}" if h else "" for h in ([h for h in held if h is not None] for held in (rates, shares))
    ]
    return right, withheld, len(experiments) - right - withheld, said[0], said[1]


def _holds(estimate: Estimate, truth: float) -> bool | None:
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return None
    return estimate.low <= truth <= estimate.high


def as_markdown(table: pd.DataFrame) -> str:
    """The table as shares in per cent; intervals with the exact 95 % interval of their share."""
    lines = [
        "| onset | frames | sites | law | right | withheld | wrong | rate constant held | share born at once held |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        verdicts = " | ".join(f"{100 * value / row.n:.0f} %" for value in (row.right, row.withheld, row.wrong))
        held = " | ".join(_per_cent(text) for text in (row.rate_held, row.share_held))
        lines.append(f"| {row.onset} | {row.frames} | {row.sites} | {row.law} | {verdicts} | {held} |")
    return "\n".join(lines) + "\n"


def _per_cent(text: str) -> str:
    if not text:
        return ""
    held, n = (int(part) for part in text.split(" of "))
    low, high = binomial_interval(held, n)
    return f"{100 * held / n:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(prog="python -m seg.accuracy.laws", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a Markdown file")
    parser.add_argument("--n", type=int, default=200, metavar="N", help="experiments of each kind (default: 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args.out.write_text(as_markdown(study(n=args.n, seed=args.seed)), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
