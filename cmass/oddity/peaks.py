"""A second cluster in the window: the second peak of the smoothed phase-space density.

The density is a Gaussian kernel sum over the galaxies, narrow on the sky and wide in velocity:
were it narrow in velocity, poor cold groups would stand above rich hot clusters. So two clusters
on one sight line are one peak.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from cmass.estimators.richness import APERTURE_MPC_H, V_MAX_KM_S

Array = NDArray[np.float64]


@numba.njit(cache=True, nogil=True)
def _second_peaks(points, offsets, r, v, apart, r_centre, v_centre):  # pragma: no cover - compiled
    n = offsets.size - 1
    out = np.full((n, 3), np.nan)
    for c in range(n):
        q = points[offsets[c] : offsets[c + 1]]
        m = q.shape[0]
        if m == 0:
            continue
        density = np.zeros(m)
        top, first = 0.0, np.zeros(3)
        for i in range(m):
            for j in range(m):
                d = ((q[i, 0] - q[j, 0]) ** 2 + (q[i, 1] - q[j, 1]) ** 2) / r**2
                density[i] += np.exp(-0.5 * (d + ((q[i, 2] - q[j, 2]) / v) ** 2))
            # the centre itself, in case no galaxy is near it
            top += np.exp(-0.5 * ((q[i, 0] ** 2 + q[i, 1] ** 2) / r**2 + (q[i, 2] / v) ** 2))
        for i in range(m):
            inside = (q[i, 0] ** 2 + q[i, 1] ** 2) / r_centre**2 + (q[i, 2] / v_centre) ** 2 < 1
            if inside and density[i] > top:
                top, first = density[i], q[i].copy()
        out[c] = 0.0
        best = 0.0
        for i in range(m):
            d = ((q[i, 0] - first[0]) ** 2 + (q[i, 1] - first[1]) ** 2) / r**2
            if d + ((q[i, 2] - first[2]) / v) ** 2 < apart**2 or density[i] <= best:
                continue
            peak = True
            for j in range(m):
                if density[j] > density[i]:
                    d = ((q[i, 0] - q[j, 0]) ** 2 + (q[i, 1] - q[j, 1]) ** 2) / r**2
                    if d + ((q[i, 2] - q[j, 2]) / v) ** 2 < apart**2:
                        peak = False
                        break
            if peak:
                best = density[i]
                out[c, 0] = density[i] / top
                out[c, 1] = np.hypot(q[i, 0] - first[0], q[i, 1] - first[1])
                out[c, 2] = q[i, 2] - first[2]
    return out


def second_peaks(
    points: Array, offsets: NDArray[np.int64], *, radius_mpc_h: float, velocity_km_s: float,
    separation: float,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Height and place of the second peak of each window, as parts of the cluster's own.

    Parameters
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
    radius_mpc_h, velocity_km_s : float
        Standard deviations of the kernel.
    separation : float
        Peaks nearer than so many standard deviations are one.

    Returns
    -------
    height : ndarray, shape (n,)
        Density of the highest other peak over that of the cluster's own, which is the highest
        within 1 Mpc/h and 1000 km/s of the centre; 0 without another peak, NaN without
        galaxies.
    distance_mpc_h, velocity_km_s : ndarray, shape (n,)
        From the cluster's own peak to the other.
    """
    found = _second_peaks(
        np.ascontiguousarray(points, float), np.asarray(offsets, np.int64), float(radius_mpc_h),
        float(velocity_km_s), float(separation), APERTURE_MPC_H, V_MAX_KM_S,
    )  # fmt: skip
    return found[:, 0], found[:, 1], found[:, 2]
