"""Made-up windows for the benchmarks: about as many galaxies, spread about as widely, as SDSS'."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HALF_WIDTH, V_MAX = 4.0, 2200.0


def cloud(random: np.random.Generator, n: int) -> Array:
    """A cluster, an infall region and a field: x, y (Mpc/h) and v (km/s), shape (n, 3)."""
    core = random.normal(0, [0.5, 0.5, 600], (n // 3, 3))
    infall = random.normal(0, [1.8, 1.8, 500], (n // 3, 3))
    edges = np.array([HALF_WIDTH, HALF_WIDTH, V_MAX])
    field = random.uniform(-1, 1, (n - 2 * (n // 3), 3)) * edges
    return np.clip(np.concatenate([core, infall, field]), -edges, edges)


def grids(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Densities as the network takes them: 50³ voxels, unit sum times a thousand."""
    from cmass.voxels import density_grid

    random = np.random.default_rng(seed)
    out = np.empty((count, 50, 50, 50), np.float32)
    for row in out:
        row[:] = density_grid(cloud(random, int(random.integers(40, 250)))) * 1000
    return out
