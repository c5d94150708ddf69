"""Masses at other overdensities: M500c to M200c with an NFW profile."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.mass_function import with_current
from cmass.params import CosmologyParams

Array = NDArray[np.float64]

_HALVINGS = 60
#: The concentration hardly changes along the way from M500c to M200c; each turn gains 1.5 digits.
_TURNS = 12


def nfw_mass(x: ArrayLike) -> Array:
    """ln(1 + x) − x/(1 + x): mass inside x scale radii, in units of the NFW scale mass."""
    x = np.asarray(x, float)
    return np.log1p(x) - x / (1 + x)


def m200c_over_m500c(concentration: ArrayLike) -> Array:
    """M200c/M500c of an NFW halo.

    R500c/R200c = y solves m(c y)/m(c) = 2.5 y³ with m of `nfw_mass`: the mean density falls
    outwards, so there is one solution in (0, 1).

    Parameters
    ----------
    concentration : array_like
        c = R200c/r_s, any shape. The ratio falls from 6.25 (c → 0, density ∝ 1/r) to 1.

    Returns
    -------
    ndarray
    """
    c = np.asarray(concentration, float)
    low, high = np.zeros_like(c), np.ones_like(c)
    for _ in range(_HALVINGS):
        y = 0.5 * (low + high)
        denser = nfw_mass(c * y) > 2.5 * y**3 * nfw_mass(c)
        low, high = np.where(denser, y, low), np.where(denser, high, y)
    return 1 / (2.5 * high**3)


def concentration(
    log10_m200c: ArrayLike, z: float, cosmology: CosmologyParams, model: str
) -> Array:  # fmt: skip
    """c200c of haloes by a relation of colossus.

    Parameters
    ----------
    log10_m200c : array_like
        log10 of M200c in h⁻¹ M☉, any shape.
    z : float
    cosmology : CosmologyParams
    model : str
        Name of the relation in colossus, as ``diemer19``.
    """
    from colossus.halo import concentration as relation

    with_current(cosmology)
    mass = 10 ** np.asarray(log10_m200c, float)
    found = relation.concentration(mass.ravel(), "200c", z, model=model, range_warning=False)
    return np.asarray(found, float).reshape(mass.shape)


def log10_m200c_from_m500c(
    log10_m500c: ArrayLike, z: ArrayLike, cosmology: CosmologyParams, model: str,
    concentration_shift_dex: float = 0.0,
) -> Array:  # fmt: skip
    """log10 M200c of NFW haloes from their M500c, both in h⁻¹ M☉.

    The concentration is that of the M200c that is found.

    Parameters
    ----------
    log10_m500c : array_like, shape (n,)
    z : array_like, shape (n,)
    cosmology : CosmologyParams
    model : str
        Concentration-mass relation of colossus.
    concentration_shift_dex : float
        Added to log10 c: what its scatter does to the mass.

    Returns
    -------
    ndarray, shape (n,)
        NaN where the mass is missing.
    """
    m500, z = np.asarray(log10_m500c, float), np.asarray(z, float)
    out = np.full(m500.shape, np.nan)
    known = np.isfinite(m500)
    if not known.any():
        return out
    # The relation is smooth: a grid of masses at a few redshifts holds it to 1e-4.
    redshifts = np.unique(np.linspace(z[known].min(), z[known].max(), 4))
    grid = np.arange(m500[known].min() - 0.1, m500[known].max() + 1.0, 0.05)
    table = np.log10([concentration(grid, one, cosmology, model) for one in redshifts])
    start = m500[known]
    found = start + 0.16
    place = np.interp(z[known], redshifts, np.arange(redshifts.size))
    below = np.minimum(place.astype(int), max(redshifts.size - 2, 0))
    part = place - below
    for _ in range(_TURNS):
        first = _interpolate(found, grid, table, below)
        second = _interpolate(found, grid, table, np.minimum(below + 1, redshifts.size - 1))
        log10_c = (1 - part) * first + part * second + concentration_shift_dex
        found = start + np.log10(m200c_over_m500c(10**log10_c))
    out[known] = found
    return out


def _interpolate(x: Array, grid: Array, table: Array, row: NDArray[np.int64]) -> Array:
    """Values at `x` of the rows of `table` named by `row`."""
    place = np.clip((x - grid[0]) / (grid[1] - grid[0]), 0, grid.size - 1 - 1e-9)
    left = place.astype(int)
    part = place - left
    return (1 - part) * table[row, left] + part * table[row, left + 1]
