"""Nuclei seen from above: outlines of fixed shape whose radius follows a common growth coordinate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FIRST_RADIUS_UM = 0.25  # of a nucleus at birth; smaller ones are below any light microscope


@dataclass(frozen=True)
class Nuclei:
    """Nuclei as parameters; lengths in µm, positions from the corner of the field.

    Parameters
    ----------
    position : ndarray (N, 2)
    birth_s, birth_growth : ndarray (N,)
        Time of birth, and G at that time.
    activity : ndarray (N,)
    harmonics : ndarray (N, K) of complex
        Amplitudes of the outline's harmonics 2, 3, ...; the mean radius makes the area that of the circle.
    """

    position: np.ndarray
    birth_s: np.ndarray
    birth_growth: np.ndarray
    activity: np.ndarray
    harmonics: np.ndarray

    def __len__(self) -> int:
        return len(self.birth_s)

    def shape_factor(self, index: int, angle: np.ndarray) -> np.ndarray:
        """Radius of the outline in units of the equivalent radius."""
        factor = np.full(np.shape(angle), math.sqrt(1 - 0.5 * float(np.sum(np.abs(self.harmonics[index]) ** 2))))
        for k, amplitude in enumerate(self.harmonics[index], start=2):
            factor += abs(amplitude) * np.cos(k * angle + np.angle(amplitude))
        return factor

    def radius(self, growth: float | np.ndarray, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Equivalent radius at G."""
        return FIRST_RADIUS_UM + self.activity[which] * (growth - self.birth_growth[which])

    def outline(self, index: int, growth: float, vertices: int = 256) -> np.ndarray:
        """Polygon (y, x) whose area is that of the smooth outline."""
        angle = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
        chord = math.sqrt(2 * math.pi / vertices / math.sin(2 * math.pi / vertices))
        r = self.radius(growth)[index] * self.shape_factor(index, angle) * chord
        return self.position[index] + np.column_stack([r * np.sin(angle), r * np.cos(angle)])
