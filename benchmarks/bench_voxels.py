"""Density grids: ours against scipy's, on the same clouds, in turn, on one core.

Prints the processor times, their ratio with its spread, and the largest difference from scipy over
200 random clouds. Leaves with an error below the floor of the ratio at 100 galaxies or
above 1e-5 of the peak.

    python benchmarks/bench_voxels.py            # all sizes, 200 clouds
    python benchmarks/bench_voxels.py --quick    # a check in seconds
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import numpy as np
from scipy.stats import gaussian_kde

from cmass.voxels import density_grid

#: The issue's target at 100 galaxies.
FLOOR_RATIO = 50.0
FLOOR_AGREEMENT = 1e-5

AXIS, V_AXIS = np.linspace(-4, 4, 50), np.linspace(-2200, 2200, 50)
GRID = np.array(np.meshgrid(AXIS, AXIS, V_AXIS, indexing="ij")).reshape(3, -1)


def cloud(random: np.random.Generator, n: int) -> np.ndarray:
    """A window like those of SDSS: a cluster, an infall region and a field."""
    core = random.normal(0, [0.5, 0.5, 600], (n // 3, 3))
    infall = random.normal(0, [1.8, 1.8, 500], (n // 3, 3))
    field = random.uniform(-1, 1, (n - 2 * (n // 3), 3)) * [4, 4, 2200]
    return np.clip(np.concatenate([core, infall, field]), [-4, -4, -2200], [4, 4, 2200])


def reference(points: np.ndarray) -> np.ndarray:
    """scipy's density on the same grid, unit sum."""
    density = gaussian_kde(points.T, 0.175).evaluate(GRID).reshape(50, 50, 50)
    return density / density.sum()


def seconds(function, points: np.ndarray, repeats: int) -> float:
    """Mean processor time of one call: on one core, and blind to what else the machine does."""
    start = time.process_time()
    for _ in range(repeats):
        function(points)
    return (time.process_time() - start) / repeats


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 clouds and 100 galaxies only")
    quick = parser.parse_args().quick
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random = np.random.default_rng(0)
    density_grid(cloud(random, 50))  # compile before the clock starts
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, 1 core"
    )

    n_clouds = 20 if quick else 200
    worst = 0.0
    for _ in range(n_clouds):
        points = cloud(random, int(random.integers(10, 120)))
        exact = reference(points)
        worst = max(worst, float(np.abs(density_grid(points) - exact).max() / exact.max()))
    print(
        f"agreement over {n_clouds} clouds: {worst:.1e} of the peak (at most {FLOOR_AGREEMENT:g})"
    )

    failed = worst > FLOOR_AGREEMENT
    print(f"{'galaxies':>8} {'scipy':>10} {'cmass':>10} {'ratio: median (min-max of pairs)':>36}")
    for n in (100,) if quick else (30, 100, 300):
        pairs = []
        for _ in range(5 if quick else 9):
            points = cloud(random, n)
            pairs.append((seconds(reference, points, 1), seconds(density_grid, points, 20)))
        slow, fast = np.array(pairs).T
        ratio = slow / fast
        print(
            f"{n:>8} {np.median(slow) * 1e3:>7.1f} ms {np.median(fast) * 1e3:>7.2f} ms "
            f"{np.median(ratio):>15.0f} ({ratio.min():.0f}-{ratio.max():.0f})"
        )
        if n == 100 and np.median(ratio) < FLOOR_RATIO:
            failed = True
            print(f"below the floor of {FLOOR_RATIO:.0f} at 100 galaxies", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
