"""What surrounds a halo: neighbouring haloes with galaxies of their own, and the field.

The surroundings have two parts. The *background* is what any sphere of the
universe holds on average: haloes and field galaxies, uniform. The *excess* is what
clusters around the halo, with density b_halo b_neighbour ξ(r) above the mean.
Neither part enters the halo itself (exclusion).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmass import mass_function as hmf
from cmass.cosmology import Cosmology
from cmass.mock import kinematics, luminosity
from cmass.mock.fields import Galaxies, Haloes
from cmass.mock.members import Halo, infall_velocity, mean_concentration
from cmass.params import CosmologyParams, EnvironmentParams, GalaxyParams, MemberParams

Array = NDArray[np.float64]

_MASS_STEP_DEX = 0.05


@lru_cache(maxsize=4)
def _abundance(
    environment: EnvironmentParams, cosmology: CosmologyParams, z: float
) -> tuple[Array, Array, Array]:
    """Mass bins: log10 M200c at the centre, comoving density (h³ Mpc⁻³), bias."""
    log10_m = np.arange(environment.log10_m200c_min + _MASS_STEP_DEX / 2, 15.4, _MASS_STEP_DEX)
    density = hmf.mass_function(log10_m, z, cosmology) * _MASS_STEP_DEX
    return log10_m, density, hmf.halo_bias(log10_m, z, cosmology)


def draw_neighbours(
    halo: Halo,
    environment: EnvironmentParams,
    cosmology_parameters: CosmologyParams,
    cosmology: Cosmology,
    z: float,
    nuisance: dict[str, float],
    random: np.random.Generator,
) -> Haloes:
    """Draw the haloes around `halo`, out to ``environment.radius_mpc_h``.

    Background haloes are uniform; the excess follows b_c b_h ξ(r) times the
    ``neighbour_bias`` drawn for this halo. No neighbour's centre lies within
    R200c + ``exclusion_r200`` R200c of its own.
    """
    log10_m, density, bias = _abundance(environment, cosmology_parameters, z)
    own_bias = float(np.interp(halo.log10_m200c, log10_m, bias))
    r_neighbour = cosmology.r200c_mpc_h(10**log10_m, z) * (1 + z)
    exclusion = halo.r200_mpc_h + environment.exclusion_r200 * r_neighbour
    power = 3 - environment.correlation_slope
    r_end = environment.correlation_max_mpc_h
    integral = (
        4 * np.pi * environment.correlation_length_mpc_h**environment.correlation_slope / power
    ) * np.maximum(r_end**power - exclusion**power, 0)
    excess = nuisance["neighbour_bias"] * own_bias * bias * density * integral
    n_excess = random.poisson(excess)
    n_background = random.poisson(density * 4 / 3 * np.pi * environment.radius_mpc_h**3)

    bins = np.repeat(np.arange(len(log10_m)), n_excess)
    u = random.random(len(bins))
    inner = exclusion[bins] ** power
    r_excess = (inner + u * (r_end**power - inner)) ** (1 / power)
    background_bins = np.repeat(np.arange(len(log10_m)), n_background)
    r_background = environment.radius_mpc_h * np.cbrt(random.random(len(background_bins)))
    keep = r_background > exclusion[background_bins]

    bins = np.concatenate([bins, background_bins[keep]])
    r = np.concatenate([r_excess, r_background[keep]])
    position = r[:, None] * kinematics.isotropic_directions(len(r), random)
    masses = log10_m[bins] + _MASS_STEP_DEX * (random.random(len(bins)) - 0.5)
    velocity = bulk_velocities(position, halo, environment, nuisance, random)
    return Haloes(position, velocity, masses)


def bulk_velocities(
    position: Array,
    halo: Halo,
    environment: EnvironmentParams,
    nuisance: dict[str, float],
    random: np.random.Generator,
) -> Array:
    """Peculiar velocities (N, 3) at `position` (N, 3): mean infall and dispersion."""
    r_mpc_h = np.linalg.norm(position, axis=1)
    r = np.maximum(r_mpc_h / halo.r200_mpc_h, 1.0)
    amplitude = nuisance["infall_amplitude"]
    mean = infall_velocity(
        r, amplitude, environment.infall_v200, environment.infall_slope,
        environment.infall_scale_r200,
    )  # fmt: skip
    near = amplitude * environment.dispersion_v200 * halo.v200_km_s / np.sqrt(r)
    dispersion = np.sqrt(environment.dispersion_km_s**2 + near**2)
    radial = position / np.maximum(r_mpc_h, 1e-9)[:, None]
    noise = random.standard_normal(position.shape)
    return dispersion[:, None] * noise - (halo.v200_km_s * mean)[:, None] * radial


def draw_neighbour_galaxies(
    neighbours: Haloes,
    magnitude_max: float,
    z: float,
    galaxies: GalaxyParams,
    members: MemberParams,
    dispersion_v200: float,
    cosmology: Cosmology,
    random: np.random.Generator,
) -> Galaxies:
    """Draw centrals and NFW satellites of all neighbours, brighter than `magnitude_max`."""
    log10_m = neighbours.log10_m200c
    central = luminosity.draw_central_magnitudes(log10_m, galaxies, random)
    counts = random.poisson(luminosity.mean_satellites(magnitude_max, log10_m, galaxies))
    host = np.repeat(np.arange(len(neighbours)), counts)
    log10_m_host = log10_m[host]
    magnitude = luminosity.draw_satellite_magnitudes(magnitude_max, log10_m_host, galaxies, random)

    m_host = 10**log10_m
    r200 = cosmology.r200c_mpc_h(m_host, z) * (1 + z)
    v200 = cosmology.v200c_km_s(m_host, z)
    middle_ratio = float(np.mean(members.concentration_ratio))
    c = mean_concentration(log10_m_host, members) * middle_ratio
    r = kinematics.nfw_radii(c, members.extent_r200, None, random) * r200[host]
    offset = r[:, None] * kinematics.isotropic_directions(len(r), random)
    sigma = dispersion_v200 * members.velocity_bias * v200[host]
    noise = sigma[:, None] * random.standard_normal(offset.shape)

    bright = central < magnitude_max
    return Galaxies(
        np.concatenate(
            [neighbours.position_mpc_h[bright], neighbours.position_mpc_h[host] + offset]
        ),
        np.concatenate([neighbours.velocity_km_s[bright], neighbours.velocity_km_s[host] + noise]),
        np.concatenate([central[bright], magnitude]),
        np.concatenate([log10_m[bright], log10_m_host]),
    )


def draw_field(
    halo: Halo,
    magnitude_max: float,
    z: float,
    environment: EnvironmentParams,
    galaxies: GalaxyParams,
    cosmology: CosmologyParams,
    nuisance: dict[str, float],
    extent_r200: float,
    random: np.random.Generator,
) -> Galaxies:
    """Draw galaxies outside resolved haloes: uniform, plus the excess around `halo`."""
    function = luminosity.field_luminosity_function(
        galaxies, cosmology, environment.log10_m200c_min, z
    )
    density = nuisance["field_density"] * luminosity.field_density(function, magnitude_max)
    n_background = random.poisson(density * 4 / 3 * np.pi * environment.radius_mpc_h**3)
    r_background = environment.radius_mpc_h * np.cbrt(random.random(n_background))
    inner_r = extent_r200 * halo.r200_mpc_h
    r_background = r_background[r_background > inner_r]

    log10_m, _, bias = _abundance(environment, cosmology, z)
    own_bias = float(np.interp(halo.log10_m200c, log10_m, bias))
    power = 3 - environment.correlation_slope
    inner, outer = inner_r**power, environment.correlation_max_mpc_h**power
    integral = (
        4 * np.pi * environment.correlation_length_mpc_h**environment.correlation_slope / power
    ) * max(outer - inner, 0)
    amplitude = nuisance["neighbour_bias"] * own_bias * environment.field_bias
    n_excess = random.poisson(density * amplitude * integral)
    r_excess = (inner + random.random(n_excess) * (outer - inner)) ** (1 / power)

    r = np.concatenate([r_background, r_excess])
    position = r[:, None] * kinematics.isotropic_directions(len(r), random)
    return Galaxies(
        position,
        bulk_velocities(position, halo, environment, nuisance, random),
        luminosity.draw_field_magnitudes(function, magnitude_max, len(r), random),
        np.full(len(r), np.nan),
    )
