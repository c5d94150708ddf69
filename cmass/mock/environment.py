"""What surrounds a halo: neighbouring haloes with galaxies of their own, and the field.

The surroundings have two parts. The *background* is what any sphere of the universe holds: haloes
and field galaxies that follow the large-scale structure (see `structure`). The *excess* is what
clusters around the halo, with density b_halo b_neighbour ξ(r) above the mean, part of it in
filaments that end in the halo. Neither part enters the halo itself (exclusion).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmass import mass_function as hmf
from cmass.cosmology import Cosmology
from cmass.mock import kinematics, luminosity
from cmass.mock.fields import Galaxies, Haloes
from cmass.mock.members import Halo, infall_velocity, mean_concentration, velocity_bias
from cmass.mock.structure import Structure, draw_structure
from cmass.params import CosmologyParams, EnvironmentParams, GalaxyParams, MemberParams

Array = NDArray[np.float64]

_MASS_STEP_DEX = 0.05


@lru_cache(maxsize=4)
def _abundance(
    log10_m200c_min: float, cosmology: CosmologyParams, z: float
) -> tuple[Array, Array, Array]:
    """Mass bins: log10 M200c at the centre, comoving density (h³ Mpc⁻³), bias."""
    log10_m, density = hmf.mass_bins(log10_m200c_min, 15.4, _MASS_STEP_DEX, z, cosmology)
    return log10_m, density, hmf.halo_bias(log10_m, z, cosmology)


@dataclass(frozen=True)
class Surroundings:
    """The stage on which neighbours and field of one halo are drawn.

    Attributes
    ----------
    halo : Halo
    z : float
        Redshift of the snapshot.
    environment : EnvironmentParams
        The values of this halo, see `nuisance.draw`.
    cosmology_parameters : CosmologyParams
    cosmology : Cosmology
    structure : Structure
    filaments : (k, 3)
        Unit vectors towards the filaments that end in the halo.
    """

    halo: Halo
    z: float
    environment: EnvironmentParams
    cosmology_parameters: CosmologyParams
    cosmology: Cosmology
    structure: Structure
    filaments: Array

    def abundance(self) -> tuple[Array, Array, Array]:
        """Mass bins of haloes: log10 M200c, comoving density (h³ Mpc⁻³), bias."""
        return _abundance(self.environment.log10_m200c_min, self.cosmology_parameters, self.z)

    def excess_integral(self, inner_mpc_h: Array | float) -> Array:
        """∫ ξ dV from `inner_mpc_h` to the end of the correlation, Mpc³ h⁻³."""
        e = self.environment
        power = 3 - e.correlation_slope
        amplitude = 4 * np.pi * e.correlation_length_mpc_h**e.correlation_slope / power
        outer = e.correlation_max_mpc_h**power
        return amplitude * np.maximum(outer - np.asarray(inner_mpc_h, float) ** power, 0)

    def draw_excess(self, inner_mpc_h: Array, random: np.random.Generator) -> Array:
        """Positions (N, 3) with density ξ(r) beyond `inner_mpc_h` (N,), Mpc/h, some in filaments."""
        e = self.environment
        power = 3 - e.correlation_slope
        inner, outer = inner_mpc_h**power, e.correlation_max_mpc_h**power
        r = (inner + random.random(len(inner)) * (outer - inner)) ** (1 / power)
        direction = kinematics.isotropic_directions(len(r), random)
        if len(self.filaments):
            along = random.random(len(r)) < e.filament_fraction
            axis = self.filaments[random.integers(0, len(self.filaments), along.sum())]
            off_axis = e.filament_width_mpc_h * random.standard_normal(axis.shape)
            beside = r[along, None] * axis + off_axis
            direction[along] = beside / np.linalg.norm(beside, axis=1, keepdims=True)
        return r[:, None] * direction

    def own_bias(self) -> float:
        """Bias of the halo times the drawn ``neighbour_bias``."""
        log10_m, _, bias = self.abundance()
        own = float(np.interp(self.halo.log10_m200c, log10_m, bias))
        return self.environment.neighbour_bias * own


def draw_surroundings(
    halo: Halo, environment: EnvironmentParams, cosmology_parameters: CosmologyParams,
    cosmology: Cosmology, z: float, random: np.random.Generator,
) -> Surroundings:  # fmt: skip
    """Draw large-scale structure and filaments around `halo`."""
    structure = draw_structure(environment, cosmology_parameters, cosmology, z, random)
    filaments = kinematics.isotropic_directions(int(random.poisson(environment.filaments)), random)
    return Surroundings(halo, z, environment, cosmology_parameters, cosmology, structure, filaments)


def draw_neighbours(around: Surroundings, random: np.random.Generator) -> Haloes:
    """Draw the haloes around a halo, out to ``environment.radius_mpc_h``.

    Background haloes follow the structure; the excess follows b_c b_h ξ(r) times
    ``neighbour_bias``. No neighbour's centre lies within R200c + ``exclusion_r200`` R200c
    of its own.
    """
    log10_m, density, bias = around.abundance()
    halo, environment = around.halo, around.environment
    r_neighbour = around.cosmology.r200c_mpc_h(10**log10_m, around.z) * (1 + around.z)
    exclusion = halo.r200_mpc_h + environment.exclusion_r200 * r_neighbour
    excess = around.own_bias() * bias * density * around.excess_integral(exclusion)
    bins = np.repeat(np.arange(len(log10_m)), random.poisson(excess))
    clustered = around.draw_excess(exclusion[bins], random)
    background_bins, background = around.structure.draw_positions(density, bias, random)
    outside = np.linalg.norm(background, axis=1) > exclusion[background_bins]

    bins = np.concatenate([bins, background_bins[outside]])
    position = np.concatenate([clustered, background[outside]])
    masses = log10_m[bins] + _MASS_STEP_DEX * (random.random(len(bins)) - 0.5)
    return Haloes(position, bulk_velocities(position, around, random), masses)


def bulk_velocities(position: Array, around: Surroundings, random: np.random.Generator) -> Array:
    """Peculiar velocities (N, 3), km/s, at `position` (N, 3).

    Mean infall towards the halo, the coherent flow of the structure, and a random part that
    grows towards the halo.
    """
    halo, environment = around.halo, around.environment
    r_mpc_h = np.linalg.norm(position, axis=1)
    r = np.maximum(r_mpc_h / halo.r200_mpc_h, 1.0)
    amplitude = environment.infall_amplitude
    mean = infall_velocity(r, environment)
    near = amplitude * environment.dispersion_v200 * halo.v200_km_s / np.sqrt(r)
    dispersion = np.sqrt(environment.dispersion_km_s**2 + near**2)
    radial = position / np.maximum(r_mpc_h, 1e-9)[:, None]
    noise = random.standard_normal(position.shape)
    streaming = around.structure.flow_km_s(position)
    return streaming + dispersion[:, None] * noise - (halo.v200_km_s * mean)[:, None] * radial


def draw_neighbour_galaxies(
    neighbours: Haloes,
    magnitude_max: float,
    z: float,
    galaxies: GalaxyParams,
    members: MemberParams,
    cosmology: Cosmology,
    random: np.random.Generator,
) -> Galaxies:
    """Draw centrals and NFW satellites of all neighbours, brighter than `magnitude_max`."""
    log10_m = neighbours.log10_m200c
    central = luminosity.draw_central_magnitudes(log10_m, galaxies, random)
    mean = luminosity.mean_satellites(magnitude_max, log10_m, galaxies)
    scatter = galaxies.richness_scatter_dex * np.log(10)
    mean = mean * np.exp(scatter * random.standard_normal(len(mean)) - 0.5 * scatter**2)
    host = np.repeat(np.arange(len(neighbours)), random.poisson(mean))
    log10_m_host = log10_m[host]
    magnitude = luminosity.draw_satellite_magnitudes(magnitude_max, log10_m_host, galaxies, random)

    m_host = 10**log10_m
    r200 = cosmology.r200c_mpc_h(m_host, z) * (1 + z)
    v200 = cosmology.v200c_km_s(m_host, z)
    c = mean_concentration(log10_m_host, members) * members.concentration_ratio
    r = kinematics.nfw_radii(c, members.extent_r200, None, random)
    offset = (r * r200[host])[:, None] * kinematics.isotropic_directions(len(r), random)
    # The Jeans solution depends little on concentration: one curve, that of 10^13, serves all.
    typical = float(mean_concentration(13.0, members))
    sigma = kinematics.radial_dispersion(
        r, typical, typical * members.concentration_ratio, anisotropy=False
    )
    spread = velocity_bias(log10_m_host, members) * sigma * v200[host]
    noise = spread[:, None] * random.standard_normal(offset.shape)

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
    around: Surroundings,
    magnitude_max: float,
    galaxies: GalaxyParams,
    extent_r200: float,
    random: np.random.Generator,
) -> Galaxies:
    """Draw galaxies outside resolved haloes: they follow the structure, plus the excess.

    None lies inside ``extent_r200`` R200c of the halo, whose own galaxies are `members`.
    """
    environment = around.environment
    function = luminosity.field_luminosity_function(
        galaxies, around.cosmology_parameters, environment.log10_m200c_min, around.z
    )
    density = environment.field_density * luminosity.field_density(function, magnitude_max)
    _, background = around.structure.draw_positions(
        np.array([density]), np.array([environment.field_bias]), random
    )
    inner = extent_r200 * around.halo.r200_mpc_h
    background = background[np.linalg.norm(background, axis=1) > inner]
    amplitude = around.own_bias() * environment.field_bias
    n_excess = int(random.poisson(density * amplitude * float(around.excess_integral(inner))))
    position = np.concatenate([background, around.draw_excess(np.full(n_excess, inner), random)])
    return Galaxies(
        position,
        bulk_velocities(position, around, random),
        luminosity.draw_field_magnitudes(function, magnitude_max, len(position), random),
        np.full(len(position), np.nan),
    )
