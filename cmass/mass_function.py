"""Halo abundance and bias, in M200c, from colossus."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.params import CosmologyParams

Array = NDArray[np.float64]


@lru_cache(maxsize=4)
def _colossus(parameters: CosmologyParams):
    from colossus.cosmology import cosmology

    return cosmology.Cosmology(
        name="cmass", flat=True, H0=100 * parameters.h, Om0=parameters.omega_m,
        Ob0=parameters.omega_b, sigma8=parameters.sigma8, ns=parameters.ns, relspecies=False,
        persistence="",
    )  # fmt: skip


def with_current(parameters: CosmologyParams) -> None:
    """Make this cosmology the one that colossus works in."""
    from colossus.cosmology import cosmology

    cosmology.setCurrent(_colossus(parameters))


def mass_function(log10_m200c: ArrayLike, z: float, parameters: CosmologyParams) -> Array:
    """Comoving number density of haloes per dex of M200c (Tinker+2008).

    Parameters
    ----------
    log10_m200c : array_like
        log10 of M200c in h⁻¹ M☉, any shape.
    z : float
        Redshift.
    parameters : CosmologyParams

    Returns
    -------
    ndarray
        dn/dlog10 M in h³ Mpc⁻³ dex⁻¹, shape of `log10_m200c`.
    """
    from colossus.lss import mass_function as lss

    with_current(parameters)
    m = 10 ** np.asarray(log10_m200c, float)
    per_ln = lss.massFunction(m, z, mdef="200c", model="tinker08", q_in="M", q_out="dndlnM")
    return np.asarray(per_ln) * np.log(10)


@lru_cache(maxsize=8)
def mass_bins(
    log10_m200c_min: float, log10_m200c_max: float, step_dex: float, z: float,
    parameters: CosmologyParams,
) -> tuple[Array, Array]:  # fmt: skip
    """Haloes by mass: log10 M200c in the middle of each bin, and their density, h³ Mpc⁻³."""
    log10_m = np.arange(log10_m200c_min + step_dex / 2, log10_m200c_max, step_dex)
    return log10_m, mass_function(log10_m, z, parameters) * step_dex


def halo_bias(log10_m200c: ArrayLike, z: float, parameters: CosmologyParams) -> Array:
    """Linear bias of haloes of M200c (Tinker+2010), shape of `log10_m200c`."""
    from colossus.lss import bias

    with_current(parameters)
    m = 10 ** np.asarray(log10_m200c, float)
    return np.asarray(bias.haloBias(m, z, mdef="200c", model="tinker10"))


def matter_power(k_h_mpc: ArrayLike, z: float, parameters: CosmologyParams) -> Array:
    """Linear power spectrum of matter (Eisenstein & Hu 1998).

    Parameters
    ----------
    k_h_mpc : array_like
        Comoving wave numbers, h/Mpc, any shape.
    z : float
        Redshift.
    parameters : CosmologyParams

    Returns
    -------
    ndarray
        h⁻³ Mpc³, shape of `k_h_mpc`.
    """
    k = np.asarray(k_h_mpc, float)
    power = _colossus(parameters).matterPowerSpectrum(k.ravel(), z, model="eisenstein98")
    return np.asarray(power).reshape(k.shape)
