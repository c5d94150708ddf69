"""NFW haloes: radii, and velocities from the Jeans equation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_LN_R = np.linspace(np.log(1e-3), np.log(30.0), 400)
_R = np.exp(_LN_R)


def nfw_mass(x: ArrayLike) -> Array:
    """ln(1 + x) − x/(1 + x): NFW mass inside x = r/r_s, up to a constant."""
    x = np.asarray(x, float)
    return np.log1p(x) - x / (1 + x)


def nfw_radii(
    concentration: ArrayLike, extent: float, n: int | None, random: np.random.Generator
) -> Array:
    """Radii of galaxies that follow an NFW profile, in units of R200c.

    Parameters
    ----------
    concentration : float or (N,)
        R200c over the scale radius, of each galaxy's halo.
    extent : float
        Outer edge, R200c.
    n : int, optional
        How many; by default one per `concentration`.
    random : numpy.random.Generator

    Returns
    -------
    ndarray, (N,)
    """
    c = np.asarray(concentration, float)
    mass = random.random(c.shape if n is None else n) * nfw_mass(c * extent)
    x = np.geomspace(1e-4, 200.0, 2000)
    return np.interp(mass, nfw_mass(x), x) / c


def isotropic_directions(n: int, random: np.random.Generator) -> Array:
    """Unit vectors (n, 3), uniform on the sphere."""
    vectors = random.standard_normal((n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def radial_dispersion(
    r: ArrayLike, concentration: float, concentration_galaxies: float, anisotropy: bool
) -> Array:
    """Radial velocity dispersion of tracers in an NFW halo, in units of V200c.

    Solves the spherical Jeans equation for tracers on an NFW profile of their own,
    with the anisotropy β(r) = r / (2 (r + r_a)) of Mamon & Łokas (2005) and
    r_a = r_−2 of the tracers.

    Parameters
    ----------
    r : array_like
        Radii, R200c.
    concentration, concentration_galaxies : float
        R200c over the scale radius, of mass and of tracers.
    anisotropy : bool
        False: β = 0.
    """
    x = concentration_galaxies * _R
    density = 1 / (x * (1 + x) ** 2)
    factor = _R + 1 / concentration_galaxies if anisotropy else np.ones_like(_R)
    force = nfw_mass(concentration * _R) / nfw_mass(concentration) / _R**2
    integrand = density * factor * force * _R
    steps = 0.5 * (integrand[1:] + integrand[:-1]) * np.diff(_LN_R)
    outward = np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
    variance = outward / (density * factor)
    return np.sqrt(np.interp(np.log(np.asarray(r, float)), _LN_R, variance))


def jeans_velocities(
    position: Array,
    concentration: float,
    concentration_galaxies: float,
    anisotropy: bool,
    random: np.random.Generator,
) -> Array:
    """Velocities (N, 3) in units of V200c of tracers at `position` (N, 3) in R200c."""
    r = np.linalg.norm(position, axis=1)
    sigma_r = radial_dispersion(r, concentration, concentration_galaxies, anisotropy)
    beta = 0.5 * r / (r + 1 / concentration_galaxies) if anisotropy else np.zeros_like(r)
    radial = position / np.maximum(r, 1e-12)[:, None]
    isotropic = random.standard_normal(position.shape)
    along = (isotropic * radial).sum(axis=1, keepdims=True) * radial
    stretch = np.sqrt(1 - beta)[:, None]
    return sigma_r[:, None] * (along + stretch * (isotropic - along))
