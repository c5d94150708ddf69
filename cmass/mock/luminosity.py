"""Luminosities: centrals and satellites of haloes, the field, and apparent magnitudes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass import mass_function as hmf
from cmass.cosmology import Cosmology
from cmass.params import CosmologyParams, GalaxyParams

Array = NDArray[np.float64]

#: Absolute magnitude of the Sun in SDSS r shifted to z = 0.1 (Blanton & Roweis 2007).
SUN_MAGNITUDE = 4.76
_LN_X = np.linspace(np.log(1e-5), np.log(5.0), 3000)


def magnitude_of(log10_luminosity: ArrayLike) -> Array:
    """Absolute magnitude, M − 5 log10 h, of log10 L in h⁻² L☉."""
    return SUN_MAGNITUDE - 2.5 * np.asarray(log10_luminosity, float)


def apparent_shift(z: ArrayLike, parameters: GalaxyParams) -> Array:
    """K-correction minus evolution, mag: r = M + distance modulus + this."""
    dz = np.asarray(z, float) - 0.1
    return parameters.k_constant + (parameters.k_slope - parameters.evolution) * dz


def faintest_magnitude(
    distance_mpc_h: float, cosmology: Cosmology, parameters: GalaxyParams
) -> float:
    """Absolute magnitude that reaches the flux limit at a comoving distance, h⁻¹ Mpc.

    Not fainter than ``magnitude_max``, where the luminosity function ends.
    """
    z = cosmology.redshift(distance_mpc_h)
    modulus = cosmology.distance_modulus_h(distance_mpc_h, z)
    limit = parameters.flux_limit_mag - modulus - apparent_shift(z, parameters)
    return min(float(limit), parameters.magnitude_max)


def central_log10_luminosity(log10_m200c: ArrayLike, parameters: GalaxyParams) -> Array:
    """Mean log10 L of centrals, h⁻² L☉.

    The double power law of Yang+2008 (in M180m) with its numbers fitted so that haloes hold the
    galaxies of Blanton+2003; beyond ``central_log10_m2`` the slope of clusters.
    """
    mass = np.asarray(log10_m200c, float)
    below = np.minimum(mass, parameters.central_log10_m2)
    ratio = 10 ** (below + parameters.mass_shift_dex - parameters.central_log10_m1)
    low, high = parameters.central_slope_low, parameters.central_slope_high
    return (
        parameters.central_log10_l0 + low * np.log10(ratio) - (low - high) * np.log10(1 + ratio)
        + parameters.central_slope_cluster * (mass - below)
    )  # fmt: skip


def satellite_log10_l_star(log10_m200c: ArrayLike, parameters: GalaxyParams) -> Array:
    """log10 L* of the satellites' luminosity function, h⁻² L☉."""
    offset = np.asarray(log10_m200c, float) - 14.0
    return parameters.satellite_log10_l_star + parameters.satellite_l_slope * offset


def satellite_norm(log10_m200c: ArrayLike, parameters: GalaxyParams) -> Array:
    """φ*_s of the satellites' luminosity function, per halo (Cacciato+2009)."""
    m14 = np.asarray(log10_m200c, float) - 14.0
    exponent = (
        parameters.satellite_log10_norm
        + parameters.satellite_norm_slope * m14
        + parameters.satellite_norm_curvature * m14**2
    )
    return parameters.satellite_amplitude * 10**exponent


@lru_cache(maxsize=8)
def _satellite_shape(alpha: float) -> Array:
    """Satellites brighter than x = L/L*_s per unit φ*_s, on the grid _LN_X (decreasing)."""
    x = np.exp(_LN_X)
    density = x ** (alpha + 1) * np.exp(-(x**2))
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(_LN_X)
    return np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])


def _ln_x(magnitude: ArrayLike, log10_m200c: ArrayLike, parameters: GalaxyParams) -> Array:
    log10_l_star = satellite_log10_l_star(log10_m200c, parameters)
    return np.log(10) * ((SUN_MAGNITUDE - np.asarray(magnitude, float)) / 2.5 - log10_l_star)


def mean_satellites(
    magnitude_max: float, log10_m200c: ArrayLike, parameters: GalaxyParams
) -> Array:
    """Mean number of satellites brighter than an absolute magnitude, per halo."""
    shape = _satellite_shape(parameters.satellite_alpha)
    brighter = np.interp(_ln_x(magnitude_max, log10_m200c, parameters), _LN_X, shape)
    return satellite_norm(log10_m200c, parameters) * brighter


def draw_satellite_magnitudes(
    magnitude_max: float,
    log10_m200c: Array,
    parameters: GalaxyParams,
    random: np.random.Generator,
) -> Array:
    """Absolute magnitudes of satellites brighter than `magnitude_max`.

    `log10_m200c` (N,) is the host's of each satellite.
    """
    shape = _satellite_shape(parameters.satellite_alpha)
    total = np.interp(_ln_x(magnitude_max, log10_m200c, parameters), _LN_X, shape)
    brighter = random.random(len(log10_m200c)) * total
    ln_x = np.interp(brighter, shape[::-1], _LN_X[::-1])
    log10_l_star = satellite_log10_l_star(log10_m200c, parameters)
    return magnitude_of(log10_l_star + ln_x / np.log(10))


def draw_central_magnitudes(
    log10_m200c: Array, parameters: GalaxyParams, random: np.random.Generator
) -> Array:
    """Absolute magnitudes of centrals, with log-normal scatter."""
    mean = central_log10_luminosity(log10_m200c, parameters)
    return magnitude_of(mean + parameters.central_scatter_dex * random.standard_normal(len(mean)))


def schechter(magnitude: ArrayLike, parameters: GalaxyParams) -> Array:
    """All galaxies: number density per magnitude, h³ Mpc⁻³ mag⁻¹ (Blanton+2003)."""
    x = 10 ** (-0.4 * (np.asarray(magnitude, float) - parameters.schechter_m_star))
    return (
        0.4 * np.log(10) * parameters.schechter_phi * x ** (parameters.schechter_alpha + 1)
        * np.exp(-x)
    )  # fmt: skip


#: Magnitude grid of the field's luminosity function.
FIELD_MAGNITUDES = np.linspace(-25.0, -12.0, 131)
_FIELD_MASS_STEP_DEX = 0.1


def galaxies_in_haloes(
    galaxies: GalaxyParams, cosmology: CosmologyParams, log10_m200c_min: float, z: float
) -> Array:
    """Luminosity function of the galaxies in haloes above a mass.

    Returns
    -------
    ndarray
        h³ Mpc⁻³ mag⁻¹ on `FIELD_MAGNITUDES`.
    """
    log10_m, density = hmf.mass_bins(log10_m200c_min, 15.5, _FIELD_MASS_STEP_DEX, z, cosmology)
    centre = magnitude_of(central_log10_luminosity(log10_m, galaxies))
    width = 2.5 * galaxies.central_scatter_dex
    m = FIELD_MAGNITUDES[:, None]
    centrals = np.exp(-0.5 * ((m - centre) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
    ln_x = _ln_x(m, log10_m, galaxies)
    x = np.exp(ln_x)
    per_ln = satellite_norm(log10_m, galaxies) * x ** (galaxies.satellite_alpha + 1)
    satellites = 0.4 * np.log(10) * per_ln * np.exp(-np.minimum(x**2, 700.0))
    return (centrals + satellites) @ density


@lru_cache(maxsize=4)
def field_luminosity_function(
    galaxies: GalaxyParams, cosmology: CosmologyParams, log10_m200c_min: float, z: float
) -> Array:
    """Galaxies outside resolved haloes: all (Schechter) less those inside, never negative.

    Returns
    -------
    ndarray
        h³ Mpc⁻³ mag⁻¹ on `FIELD_MAGNITUDES`.
    """
    inside = galaxies_in_haloes(galaxies, cosmology, log10_m200c_min, z)
    return np.maximum(schechter(FIELD_MAGNITUDES, galaxies) - inside, 0.0)


def field_density(function: Array, magnitude_max: float) -> float:
    """Number density of the field brighter than a magnitude, h³ Mpc⁻³."""
    return float(np.interp(magnitude_max, FIELD_MAGNITUDES, _cumulative(function)))


def draw_field_magnitudes(
    function: Array, magnitude_max: float, n: int, random: np.random.Generator
) -> Array:
    """Draw `n` absolute magnitudes of the field brighter than `magnitude_max`."""
    total = _cumulative(function)
    limit = np.interp(magnitude_max, FIELD_MAGNITUDES, total)
    return np.interp(random.random(n) * limit, total, FIELD_MAGNITUDES)


def _cumulative(function: Array) -> Array:
    steps = 0.5 * (function[1:] + function[:-1]) * np.diff(FIELD_MAGNITUDES)
    # A tiny slope keeps the sum invertible where the function is zero.
    return np.concatenate([[0.0], np.cumsum(steps)]) + 1e-15 * np.arange(len(function))
