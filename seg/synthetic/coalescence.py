"""Droplets that grow on one line and fuse when they touch: the volume stays, the moment and the parents are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from seg.synthetic.caps import cap_area, radius_of


@dataclass(frozen=True)
class Phase:
    """A droplet between two events: where it sits, and its profile area ``area_um2 + rate * (time - from_s)``."""

    from_s: float
    until_s: float
    along_um: float
    area_um2: float
    rate_um2_s: float

    def area(self, time_s: float) -> float:
        """Profile area, µm2."""
        return self.area_um2 + self.rate_um2_s * (time_s - self.from_s)


@dataclass(frozen=True)
class Fusion:
    """Droplet `gone` became part of droplet `kept`, the larger one."""

    time_s: float
    kept: int
    gone: int


def coalesce(
    births_s: np.ndarray, along_um: np.ndarray, rates_um2_s: np.ndarray, *, angle: float, until_s: float
) -> tuple[dict[int, list[Phase]], list[Fusion]]:
    """Phases of every droplet (by its number from 1) on a straight support, and the fusions in order of time.

    Parameters
    ----------
    births_s, along_um, rates_um2_s : ndarray, shape (n,)
        When a droplet is born, where, and how fast its profile area grows.
    angle : float
        Contact angle, radians; all droplets have it while they grow.
    until_s : float
        When growth ends.

    Notes
    -----
    Droplets are parts of spheres. Two that touch are one at once (fusion takes nanoseconds, frames milliseconds): its
    volume is the sum, its place the centre of that volume, so the smaller moves further; its profile area grows at the
    sum of both rates. A profile area is not conserved, as it goes with the square of the radius.
    """
    starts = zip(births_s, along_um, rates_um2_s, strict=True)
    live = {k: Phase(float(b), math.inf, float(x), 0.0, float(v)) for k, (b, x, v) in enumerate(starts, 1)}
    lives: dict[int, list[Phase]] = {k: [] for k in live}
    fusions: list[Fusion] = []

    def reach(phase: Phase, time_s: float) -> float:
        area = phase.area(time_s)
        radius = radius_of(area, angle) if area > 0 else 0.0
        return radius * (math.sin(angle) if angle < math.pi / 2 else 1.0)

    def meeting(a: Phase, b: Phase) -> float:
        start = max(a.from_s, b.from_s)
        gap = abs(a.along_um - b.along_um)
        if start >= until_s or reach(a, until_s) + reach(b, until_s) < gap:
            return math.inf
        if reach(a, start) + reach(b, start) >= gap:
            return start
        return float(brentq(lambda t: reach(a, t) + reach(b, t) - gap, start, until_s, xtol=1e-12))

    while len(live) > 1:
        row = sorted(live, key=lambda k: live[k].along_um)
        time_s, left, right = min((meeting(live[a], live[b]), a, b) for a, b in zip(row[:-1], row[1:], strict=True))
        if math.isinf(time_s):
            break
        radii = {k: radius_of(max(live[k].area(time_s), 1e-30), angle) for k in (left, right)}
        kept, gone = sorted((left, right), key=lambda k: -radii[k])
        total = radii[kept] ** 3 + radii[gone] ** 3
        middle = sum(radii[k] ** 3 * live[k].along_um for k in (kept, gone)) / total
        rate = live[kept].rate_um2_s + live[gone].rate_um2_s
        for k in (kept, gone):
            old = live.pop(k)
            lives[k].append(Phase(old.from_s, time_s, old.along_um, old.area_um2, old.rate_um2_s))
        live[kept] = Phase(time_s, math.inf, middle, cap_area(total ** (1 / 3), angle), rate)
        fusions.append(Fusion(time_s, kept, gone))
    for k, phase in live.items():
        lives[k].append(phase)
    return lives, fusions
