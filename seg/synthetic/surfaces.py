"""The buried interface as a formula, and the ball-shaped voids that sit on it, with their exact volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interface:
    """Height z (µm) of the separator's lower face: a tilted plane and waves.

    ``level + slope . (position - pivot) + sum of amplitude * cos(2 pi (fy y + fx x) + phase)``. The tilt is as in life,
    and keeps the surface from lying on one fixed height within the voxels, where no counting of voxels averages out.
    """

    level_um: float
    slope: tuple[float, float] = (0.0, 0.0)
    pivot_um: tuple[float, float] = (0.0, 0.0)
    waves: tuple[tuple[float, float, float, float], ...] = ()  # amplitude, fy, fx, phase

    def height(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Height of the interface."""
        z = self.level_um + self.slope[0] * (y - self.pivot_um[0]) + self.slope[1] * (x - self.pivot_um[1])
        for amplitude, fy, fx, phase in self.waves:
            z = z + amplitude * np.cos(2 * math.pi * (fy * y + fx * x) + phase)
        return z

    def stretch(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Area of the interface per projected area."""
        gy, gx = self.gradient(y, x)
        return np.sqrt(1 + gy**2 + gx**2)

    def gradient(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slopes dz/dy and dz/dx."""
        flat = np.zeros(np.broadcast_shapes(np.shape(y), np.shape(x)))
        gy, gx = flat + self.slope[0], flat + self.slope[1]
        for amplitude, fy, fx, phase in self.waves:
            slope = -2 * math.pi * amplitude * np.sin(2 * math.pi * (fy * y + fx * x) + phase)
            gy, gx = gy + slope * fy, gx + slope * fx
        return gy, gx


@dataclass(frozen=True)
class Void:
    """Ball (µm) of which the part on the metal side is empty."""

    y: float
    x: float
    z: float
    radius: float

    def columns(self, interface: Interface, step: float) -> tuple[float, float]:
        """Volume, and projected contact area lost; exact along z, by the mid-point rule across."""
        n = max(40, math.ceil(2 * self.radius / step))
        edge = (np.arange(n) + 0.5) / n * 2 - 1
        y, x = self.y + self.radius * edge[:, None], self.x + self.radius * edge[None]
        half = np.sqrt(np.clip(self.radius**2 - (y - self.y) ** 2 - (x - self.x) ** 2, 0, None))
        surface = interface.height(y, x)
        depth = np.clip(self.z + half - np.maximum(surface, self.z - half), 0, None)
        cell = (2 * self.radius / n) ** 2
        return float(depth.sum()) * cell, float(np.sum((np.abs(surface - self.z) < half) & (half > 0))) * cell


def cap_volume(base_radius: float, angle: float) -> float:
    """Volume of a spherical cap on a plane with the given base radius and contact angle (radians)."""
    radius, c = base_radius / math.sin(angle), math.cos(angle)
    return math.pi * radius**3 * (2 - 3 * c + c**3) / 3
