"""Spherical caps: the contact angle that a volume and a projected radius imply, and the work of adhesion."""

from __future__ import annotations

import math

import numpy as np


def cap_volume(angle_deg: np.ndarray | float, projected_radius: np.ndarray | float) -> np.ndarray:
    """Volume of a cap seen from above with the given radius: that of the base up to 90 degrees, of the ball beyond.

    Parameters
    ----------
    angle_deg, projected_radius : float or ndarray
        Contact angle through the deposit; radius of the projected area.
    """
    theta = np.radians(angle_deg)
    cosine = np.cos(theta)
    ball = np.asarray(projected_radius, float) / np.where(cosine > 0, np.sin(theta), 1.0)
    return np.asarray(math.pi * ball**3 * (2 - 3 * cosine + cosine**3) / 3)


def cap_angle(volume: np.ndarray | float, projected_radius: np.ndarray | float) -> np.ndarray:
    """Contact angle of a spherical cap from its volume and its radius in top view.

    Parameters
    ----------
    volume, projected_radius : float or ndarray
        In consistent units, such as um3 and um; the radius is ``sqrt(area / pi)`` of the projected area.

    Returns
    -------
    ndarray of float
        Degrees through the deposit; NaN where no cap has that volume (more than a whole ball, negative, no radius).

    Notes
    -----
    Up to 90 degrees the projection is the base, ``V = pi a^3 x (3 + x^2) / 6`` with ``x = tan(angle / 2)``; beyond, it
    is the ball, ``V = pi R^3 (2 - 3 c + c^3) / 3`` with ``c = cos(angle)``. Both cubics have closed solutions. A thin
    cap has ``d angle / angle = dV / V - 1.5 dA / A``; as ``dV / d angle`` goes with ``sin^3``, angles above 160 degrees
    mean little.
    """
    volume, radius = np.broadcast_arrays(np.asarray(volume, float), np.asarray(projected_radius, float))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(radius > 0, volume / (math.pi * radius**3), math.nan)
        flat = 2 * np.arctan(2 * np.sinh(np.arcsinh(3 * ratio) / 3))
        turned = 2 * math.pi - np.arccos(np.clip((3 * ratio - 2) / 2, -1, 1))
        steep = np.arccos(np.clip(2 * np.cos(turned / 3), -1, 1))
    angle = np.degrees(np.where(ratio <= 2 / 3, flat, steep))
    # Rounding may carry a whole ball a little over its own volume.
    return np.asarray(np.where((ratio >= 0) & (ratio <= 4 / 3 * (1 + 1e-9)), angle, math.nan))


def adhesion_work(angle_deg: float, surface_energy_j_per_m2: float) -> float:
    """Work of adhesion per area of contact by Young and Dupre, ``W = gamma (1 + cos angle)``, J/m2.

    Parameters
    ----------
    angle_deg : float
        Contact angle through the deposit.
    surface_energy_j_per_m2 : float
        Of the deposit against the electrolyte.
    """
    return surface_energy_j_per_m2 * (1 + math.cos(math.radians(angle_deg)))
