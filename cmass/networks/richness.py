"""Richness: galaxies near a cluster's centre, the quantity that finders select on.

Counts of galaxies in a fixed aperture and velocity range, without a correction for the background or
for the flux limit: at one distance, more means a richer cluster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Aperture on the sky (proper Mpc/h) and in velocity (km/s): about R200c and 2 sigma of 10^14 Msun/h.
APERTURE_MPC_H, V_MAX_KM_S = 1.0, 1000.0


def count_near_centre(points: Array, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Galaxies within `APERTURE_MPC_H` and `V_MAX_KM_S` of the centre of each cluster.

    Parameters
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray, shape (n + 1,)
        Where each cluster begins in `points`.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    near = np.hypot(points[:, 0], points[:, 1]) < APERTURE_MPC_H
    near &= np.abs(points[:, 2]) < V_MAX_KM_S
    upto = np.concatenate([[0], np.cumsum(near)])
    return np.diff(upto[np.asarray(offsets, np.int64)])
