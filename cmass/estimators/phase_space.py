"""What rivals read of a window beside the galaxies themselves: counts, and who is near whom."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from cmass.estimators.windows import Windows
from cmass.params import WindowParams

Array = NDArray[np.float64]

#: Edges of the counts in projected radius (proper Mpc/h) and |v| (km/s), finer where members are;
#: the window's own edge is the last one.
_RADII_MPC_H = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.8, 4.0)
_SPEEDS_KM_S = (150.0, 300.0, 500.0, 700.0, 1000.0, 1300.0, 1700.0)
#: Cylinders in which a galaxy's neighbours are counted: radius (proper Mpc/h), half depth (km/s).
CYLINDERS = ((0.3, 400.0), (0.7, 700.0), (1.5, 1000.0))


def lattice(window: WindowParams) -> tuple[Array, Array]:
    """Radii (proper Mpc/h) and speeds (km/s) within which galaxies of a window are counted."""
    radii = [*(r for r in _RADII_MPC_H if r < window.half_width_mpc_h), window.half_width_mpc_h]
    speeds = [*(v for v in _SPEEDS_KM_S if v < window.v_max_km_s), window.v_max_km_s]
    return np.array(radii), np.array(speeds)


def cumulative_counts(windows: Windows, window: WindowParams) -> Array:
    """Galaxies inside each radius and below each speed of `lattice`, about the centre.

    Returns
    -------
    ndarray, shape (n, n_radii, n_speeds)
    """
    radii_mpc_h, speeds_km_s = lattice(window)
    radius = np.hypot(windows.points[:, 0], windows.points[:, 1])
    speed = np.abs(windows.points[:, 2])
    i, j = np.searchsorted(radii_mpc_h, radius), np.searchsorted(speeds_km_s, speed)
    shape = (len(windows), radii_mpc_h.size + 1, speeds_km_s.size + 1)
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
