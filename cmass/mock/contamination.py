"""Contamination by more massive neighbours (paper, section 4.3 and eq. 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.cosmology import Cosmology

Array = NDArray[np.float64]


def phase_space_distance(
    x_mpc_h: ArrayLike,
    y_mpc_h: ArrayLike,
    v_km_s: ArrayLike,
    log10_m200c: ArrayLike,
    log10_m200c_own: float,
    z: float,
    cosmology: Cosmology,
) -> Array:
    """Distance between two haloes in units of their mean R200c and V200c (eq. 6).

    Parameters
    ----------
    x_mpc_h, y_mpc_h : (N,)
        Proper separations in the plane of the sky, h⁻¹ Mpc.
    v_km_s : (N,)
        Difference of line-of-sight velocity, km/s.
    log10_m200c : (N,)
        log10 M200c of the neighbours, h⁻¹ M☉.
    log10_m200c_own : float
        The same for the halo itself.
    z : float
        Redshift.
    cosmology : Cosmology
    """
    m, own = 10 ** np.asarray(log10_m200c, float), 10**log10_m200c_own
    r = 0.5 * (cosmology.r200c_mpc_h(m, z) + cosmology.r200c_mpc_h(own, z))
    v = 0.5 * (cosmology.v200c_km_s(m, z) + cosmology.v200c_km_s(own, z))
    x, y, dv = (np.asarray(a, float) for a in (x_mpc_h, y_mpc_h, v_km_s))
    return np.sqrt((x / r) ** 2 + (y / r) ** 2 + (dv / v) ** 2)


def worst_contaminant(
    x_mpc_h: Array,
    y_mpc_h: Array,
    v_km_s: Array,
    log10_m200c: Array,
    log10_m200c_own: float,
    z: float,
    cosmology: Cosmology,
    radius_mpc_h: float,
    v_max_km_s: float,
) -> tuple[float, float]:
    """Mass ratio of and distance to the most massive neighbour in the window.

    Only neighbours more massive than the halo, nearer than `radius_mpc_h` in the plane
    of the sky and `v_max_km_s` in velocity count; (NaN, NaN) where there is none.
    """
    inside = (
        (log10_m200c > log10_m200c_own)
        & (x_mpc_h**2 + y_mpc_h**2 < radius_mpc_h**2)
        & (np.abs(v_km_s) < v_max_km_s)
    )
    if not inside.any():
        return float("nan"), float("nan")
    worst = np.flatnonzero(inside)[np.argmax(log10_m200c[inside])]
    distance = phase_space_distance(
        x_mpc_h[worst], y_mpc_h[worst], v_km_s[worst], log10_m200c[worst], log10_m200c_own, z,
        cosmology,
    )  # fmt: skip
    return float(10 ** (log10_m200c[worst] - log10_m200c_own)), float(distance)
