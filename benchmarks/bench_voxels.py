"""Density grids: `cmass.voxels.density_grid` against scipy's gaussian_kde, on one core.

python -m benchmarks.bench_voxels            # 30, 100 and 300 galaxies, and how the cost grows
python -m benchmarks.bench_voxels --small    # 100 galaxies, in seconds
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks import paired
from benchmarks.clouds import HALF_WIDTH, V_MAX, cloud
from benchmarks.paired import Agreement, Measurement, Result
from cmass.voxels import density_grid

TARGET, FLOOR, AGREEMENT = 200.0, 60.0, 1e-6
KAPPA = 0.175


def reference(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """scipy's density on the same grid, unit sum."""
    from scipy.stats import gaussian_kde

    axis, v = np.linspace(-HALF_WIDTH, HALF_WIDTH, 50), np.linspace(-V_MAX, V_MAX, 50)
    grid = np.array(np.meshgrid(axis, axis, v, indexing="ij")).reshape(3, -1)
    density = gaussian_kde(points.T, KAPPA).evaluate(grid).reshape(50, 50, 50)
    return density / density.sum()


def agreement(n_clouds: int) -> Agreement:
    """Largest difference over random clouds of 10 to 120 galaxies."""
    random = np.random.default_rng(0)
    worst = 0.0
    for _ in range(n_clouds):
        points = cloud(random, int(random.integers(10, 120)))
        exact = reference(points)
        worst = max(worst, float(np.abs(density_grid(points) - exact).max() / exact.max()))
    return Agreement("densities, of the peak,", worst, AGREEMENT)


def results(small: bool) -> list[Result]:
    """One comparison for each number of galaxies, and numbers alone."""
    random = np.random.default_rng(1)
    close = [agreement(3 if small else 100)]
    found: list[Result] = []
    for n in (100,) if small else (30, 100, 300):
        points = cloud(random, n)
        calls = max(30, 10_000 // n)
        pairs = paired.paired(
            partial(reference, points), paired.repeated(partial(density_grid, points), calls),
            pairs=5 if small else 9, clock="cpu", own_calls=calls,
        )  # fmt: skip
        comparison = pairs.comparison(
            f"density grid, {n} galaxies", "scipy gaussian_kde", "50³ voxels, 1 core",
            agreements=close if n == 100 else [], target=TARGET if n == 100 else None, floor=FLOOR,
        )  # fmt: skip
        found.append(comparison)
    return found if small else found + growth(random)


def growth(random: np.random.Generator) -> list[Result]:
    """How the cost grows with galaxies and with voxels, and what no sum can be quicker than."""
    found: list[Result] = []

    def add(what: str, seconds: float) -> None:
        found.append(Measurement("density grid", what, 1e3 * seconds, "ms"))

    for n in (10, 30, 100, 300, 1000):
        points = cloud(random, n)
        time = paired.least_seconds(partial(density_grid, points), "cpu", calls=20)
        add(f"{n} galaxies, 50³ voxels", time)
    points = cloud(random, 100)
    for voxels in (25, 50, 75, 100):
        time = paired.least_seconds(partial(density_grid, points, n=voxels), "cpu", calls=20)
        add(f"100 galaxies, {voxels}³ voxels", time)
    fill = paired.least_seconds(lambda: np.full((50, 50, 50), 0.5, np.float32), "cpu", calls=200)
    add("writing 50³ numbers (0.5 MB) and no more", fill)
    return found


if __name__ == "__main__":
    sys.exit(paired.main(results, n_cores=1))
