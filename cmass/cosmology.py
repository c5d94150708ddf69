"""Cosmology: distances, critical density, halo radii and velocities.

Lengths are h⁻¹ Mpc, masses h⁻¹ M☉, velocities km/s, throughout.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

if TYPE_CHECKING:
    from cmass.params import CosmologyParams

SPEED_OF_LIGHT_KM_S = 299_792.458
#: Newton's constant in (km/s)² Mpc M☉⁻¹ (CODATA 2018, IAU nominal solar mass parameter).
GRAVITY_MPC_KM2_S2_MSUN = 4.300917270e-9
#: Critical density today in h² M☉ Mpc⁻³: 3 (100 km/s/Mpc)² / (8 π G).
RHO_CRITICAL_0 = 3 * 100.0**2 / (8 * np.pi * GRAVITY_MPC_KM2_S2_MSUN)

Array = NDArray[np.float64]


class Cosmology:
    """Flat ΛCDM background in h-units (radiation neglected, z < 1).

    Parameters
    ----------
    omega_m : float
        Matter density parameter today.
    """

    _Z_MAX = 1.0

    def __init__(self, omega_m: float) -> None:
        self.omega_m = omega_m
        z = np.linspace(0.0, self._Z_MAX, 2001)
        # Simpson's rule on half steps: relative error below 1e-12 at these redshifts.
        middle = 0.5 * (z[1:] + z[:-1])
        steps = (1 / self.e(z[1:]) + 4 / self.e(middle) + 1 / self.e(z[:-1])) * np.diff(z) / 6
        d = SPEED_OF_LIGHT_KM_S / 100.0 * np.concatenate([[0.0], np.cumsum(steps)])
        self._distance = CubicSpline(z, d)
        self._redshift = CubicSpline(d, z)

    def e(self, z: ArrayLike) -> Array:
        """H(z)/H0."""
        return np.sqrt(self.omega_m * (1 + np.asarray(z, float)) ** 3 + 1 - self.omega_m)

    def comoving_distance_mpc_h(self, z: ArrayLike) -> Array:
        """Comoving distance in h⁻¹ Mpc, any shape."""
        return np.asarray(self._distance(z))

    def redshift(self, distance_mpc_h: ArrayLike) -> Array:
        """Cosmological redshift at a comoving distance in h⁻¹ Mpc."""
        return np.asarray(self._redshift(distance_mpc_h))

    def angular_distance_mpc_h(self, z: ArrayLike) -> Array:
        """Angular diameter distance in proper h⁻¹ Mpc per radian."""
        return self.comoving_distance_mpc_h(z) / (1 + np.asarray(z, float))

    def distance_modulus_h(self, distance_mpc_h: ArrayLike, z: ArrayLike) -> Array:
        """m − (M − 5 log10 h): 5 log10 of the luminosity distance in 10 h⁻¹ pc."""
        d = np.asarray(distance_mpc_h, float) * (1 + np.asarray(z, float))
        return 5 * np.log10(d) + 25

    def critical_density(self, z: ArrayLike) -> Array:
        """Critical density in h² M☉ per proper Mpc³."""
        return RHO_CRITICAL_0 * self.e(z) ** 2

    def r200c_mpc_h(self, m200c_msun_h: ArrayLike, z: ArrayLike) -> Array:
        """Proper radius of mean density 200 ρ_c(z), in h⁻¹ Mpc (paper, eq. 6)."""
        density = 200 * self.critical_density(z)
        return np.cbrt(3 * np.asarray(m200c_msun_h, float) / (4 * np.pi * density))

    def v200c_km_s(self, m200c_msun_h: ArrayLike, z: ArrayLike) -> Array:
        """Circular velocity at R200c in km/s (paper, eq. 6)."""
        m = np.asarray(m200c_msun_h, float)
        return np.sqrt(GRAVITY_MPC_KM2_S2_MSUN * m / self.r200c_mpc_h(m, z))


@lru_cache(maxsize=8)
def _cosmology(omega_m: float) -> Cosmology:
    return Cosmology(omega_m)


def from_params(parameters: CosmologyParams) -> Cosmology:
    """The background cosmology of a run (cached)."""
    return _cosmology(parameters.omega_m)


def q0_angular_distance_mpc_h(z: ArrayLike, q0: float) -> Array:
    """Angular diameter distance to second order in redshift, in proper h⁻¹ Mpc per radian.

    D_A = (c/H0) [z − (1 + q0) z²/2] / (1 + z), as the paper converts angles
    into lengths (section 5, q0 = −0.55).
    """
    z = np.asarray(z, float)
    return SPEED_OF_LIGHT_KM_S / 100.0 * (z - 0.5 * (1 + q0) * z**2) / (1 + z)


def line_of_sight_velocity_km_s(z_galaxy: ArrayLike, z_cluster: ArrayLike) -> Array:
    """v_los = c (z_gal − z_cl) / (1 + z_cl), km/s."""
    z_cluster = np.asarray(z_cluster, float)
    return SPEED_OF_LIGHT_KM_S * (np.asarray(z_galaxy, float) - z_cluster) / (1 + z_cluster)
