"""Equation 6 as the paper has it: a loop over windows and, in it, one over the haloes of the box.

The reference of `box_contaminants`, for its tests and for its benchmark. Each pair is projected by
cross and dot product in plain numbers; tests that are cheap come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, Cosmology
from cmass.mock.contamination import phase_space_distance

COSMOLOGY = Cosmology(0.307115)
#: Redshift of the snapshot; projected radius (Mpc/h) and velocity (km/s) where a window ends.
Z, RADIUS, V_MAX = 0.045, 4.0, 2200.0

Box = tuple[NDArray, NDArray, NDArray, NDArray, NDArray, NDArray]


def make_box(
    n: int, box: float, windows: int, seed: int = 3, speed: float = 300.0,
    masses: tuple[float, float] | None = None,
) -> Box:  # fmt: skip
    """Haloes in clumps, and windows on some of them.

    Parameters
    ----------
    n : int
        Haloes.
    box : float
        Side of the periodic box, Mpc/h.
    windows, seed : int
    speed : float
        Dispersion of the peculiar velocity in one direction, km/s.
    masses : (float, float), optional
        Windows are flat in log10 mass between these; by default on haloes at random.

    Returns
    -------
    tuple of ndarray
        Position, velocity, log10 mass of each halo; halo, direction, distance of each window.
    """
    random = np.random.default_rng(seed)
    centres = box * random.random((max(n // 30, 2), 3))
    clumped = centres[random.integers(0, len(centres), n)] + 5 * random.standard_normal((n, 3))
    position = np.where(random.random((n, 1)) < 0.7, clumped, box * random.random((n, 3))) % box
    velocity = speed * random.standard_normal((n, 3))
    mass = 13.5 + random.exponential(0.3, n)
    halo = random.integers(0, n, windows)
    direction = random.standard_normal((windows, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = random.uniform(60, 250, windows)
    if masses is not None:
        order = np.argsort(mass)
        rank = np.searchsorted(mass[order], random.uniform(*masses, windows))
        halo = order[np.minimum(rank, n - 1)]
    return position, velocity, mass, halo, direction, distance


def project(
    offset: Sequence[float], velocity: Sequence[float], direction: Sequence[float], distance: float
) -> tuple[float, float]:
    """Projected proper radius (Mpc/h) and velocity (km/s) of a neighbour, next to a halo.

    A neighbour behind the observer, or far outside any window, is infinitely far.

    Parameters
    ----------
    offset, velocity : sequence of float
        Comoving position (Mpc/h) and velocity (km/s) relative to the halo.
    direction : sequence of float
        Unit vector from the observer to the halo.
    distance : float
        Of the halo, comoving Mpc/h.
    """
    ux, uy, uz = direction
    x, y, z = ux * distance + offset[0], uy * distance + offset[1], uz * distance + offset[2]
    ahead = x * ux + y * uy + z * uz
    if ahead <= 0:
        return math.inf, math.nan
    across = math.hypot(y * uz - z * uy, z * ux - x * uz, x * uy - y * ux)
    comoving = across / ahead * distance
    if comoving >= 2 * RADIUS:  # no survey of ours is as deep as z = 1
        return math.inf, math.nan
    z_own = float(COSMOLOGY.redshift(distance))
    r = math.hypot(x, y, z)
    along = (velocity[0] * x + velocity[1] * y + velocity[2] * z) / r
    seen = (1 + float(COSMOLOGY.redshift(r))) * (1 + along / SPEED_OF_LIGHT_KM_S) - 1
    return comoving / (1 + z_own), SPEED_OF_LIGHT_KM_S * (seen - z_own) / (1 + z_own)


def double_loop(
    position: NDArray, velocity: NDArray, mass: NDArray, halo: NDArray, direction: NDArray,
    distance: NDArray, box: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Count, mass ratio and distance of every window, shape (3, W), one pair after the other.

    Takes what `make_box` returns, and the side of the box.
    """
    positions, velocities, masses = position.tolist(), velocity.tolist(), mass.tolist()
    half, rows = box / 2, []
    for own, sight, d in zip(halo.tolist(), direction.tolist(), distance.tolist(), strict=True):
        count, heaviest, best = 0, masses[own], (math.nan, math.nan)
        x0, y0, z0 = positions[own]
        u0, v0, w0 = velocities[own]
        for other, m in enumerate(masses):
            if m <= masses[own]:
                continue
            x, y, z = positions[other]
            x, y, z = x - x0, y - y0, z - z0
            x += box if x < -half else -box if x > half else 0.0
            y += box if y < -half else -box if y > half else 0.0
            z += box if z < -half else -box if z > half else 0.0
            u, v, w = velocities[other]
            radius, speed = project((x, y, z), (u - u0, v - v0, w - w0), sight, d)
            if radius >= RADIUS or abs(speed) >= V_MAX:
                continue
            count += 1
            if m > heaviest:
                heaviest = m
                away = phase_space_distance(radius, 0, speed, m, masses[own], Z, COSMOLOGY)
                best = (10 ** (m - masses[own]), float(away))
        rows.append((count, *best))
    return np.array(rows).T
