"""What rivals read of a window beside the galaxies themselves: counts, and who is near whom."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from cmass.estimators.windows import Windows

Array = NDArray[np.float64]

#: Edges of the counts in projected radius (proper Mpc/h) and |v| (km/s): finer where members are.
RADII_MPC_H = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.8, 4.0)
SPEEDS_KM_S = (150.0, 300.0, 500.0, 700.0, 1000.0, 1300.0, 1700.0, 2200.0)
#: Cylinders in which a galaxy's neighbours are counted: radius (proper Mpc/h), half depth (km/s).
CYLINDERS = ((0.3, 400.0), (0.7, 700.0), (1.5, 1000.0))


def cumulative_counts(windows: Windows) -> Array:
    """Galaxies inside each radius and below each speed, about the centre.

    Returns
    -------
    ndarray, shape (n, len(RADII_MPC_H), len(SPEEDS_KM_S))
    """
    radius = np.hypot(windows.points[:, 0], windows.points[:, 1])
    speed = np.abs(windows.points[:, 2])
    i, j = np.searchsorted(RADII_MPC_H, radius), np.searchsorted(SPEEDS_KM_S, speed)
    shape = (len(windows), len(RADII_MPC_H) + 1, len(SPEEDS_KM_S) + 1)
    cluster = np.repeat(np.arange(len(windows)), windows.n_galaxies)
    cells = np.ravel_multi_index((cluster, i, j), shape)
    counts = np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
    return counts[:, :-1, :-1].cumsum(axis=1).cumsum(axis=2).astype(float)


def neighbours(windows: Windows) -> Array:
    """Other galaxies of the window within each of `CYLINDERS` about each galaxy.

    Returns
    -------
    ndarray, shape (n_points, len(CYLINDERS))
    """
    radius, depth = np.array(CYLINDERS).T
    return _neighbours(
        np.ascontiguousarray(windows.points, float), windows.offsets, radius**2, depth
    )


@numba.njit(cache=True, nogil=True)
def _neighbours(points, offsets, radius_squared, depth):  # pragma: no cover - compiled
    out = np.zeros((points.shape[0], depth.size))
    for c in range(offsets.size - 1):
        for i in range(offsets[c], offsets[c + 1]):
            for j in range(offsets[c], i):
                square = (points[i, 0] - points[j, 0]) ** 2 + (points[i, 1] - points[j, 1]) ** 2
                if square >= radius_squared[-1]:
                    continue
                apart = abs(points[i, 2] - points[j, 2])
                for k in range(depth.size):
                    if square < radius_squared[k] and apart < depth[k]:
                        out[i, k] += 1
                        out[j, k] += 1
    return out
