"""The galaxies of the halo itself: central, satellites, subgroups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmass.mock import kinematics, luminosity
from cmass.mock.fields import Galaxies
from cmass.params import EnvironmentParams, GalaxyParams, MemberParams

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Halo:
    """A halo in the units its galaxies are drawn in.

    Attributes
    ----------
    log10_m200c : float
        log10 of M200c, h⁻¹ M☉.
    r200_mpc_h : float
        R200c, comoving h⁻¹ Mpc.
    v200_km_s : float
        Circular velocity at R200c, km/s.
    """

    log10_m200c: float
    r200_mpc_h: float
    v200_km_s: float


def mean_concentration(log10_m200c: ArrayLike, parameters: MemberParams) -> Array:
    """Mean concentration of dark matter, R200c over scale radius."""
    slope = parameters.concentration_slope
    return parameters.concentration_14 * 10 ** (slope * (np.asarray(log10_m200c, float) - 14.0))


def velocity_bias(log10_m200c: ArrayLike, parameters: MemberParams) -> Array:
    """Velocities of galaxies over the Jeans solution, which has σ ~ M^0.32 by itself.

    The relation for galaxies was measured above 10^13 h⁻¹ M☉ (Munari+2013) and is not extended below.
    """
    log10_m = np.maximum(np.asarray(log10_m200c, float), 13.0)
    return parameters.velocity_bias * 10 ** (parameters.velocity_slope * (log10_m - 14.5))


def infall_velocity(r: ArrayLike, environment: EnvironmentParams) -> Array:
    """Mean inward velocity at `r` (R200c), in units of V200c."""
    r = np.asarray(r, float)
    decline = np.exp(-r / environment.infall_scale_r200)
    amplitude = environment.infall_amplitude * environment.infall_v200
    return amplitude * r**environment.infall_slope * decline


def draw_members(
    halo: Halo,
    magnitude_max: float,
    galaxies: GalaxyParams,
    members: MemberParams,
    environment: EnvironmentParams,
    random: np.random.Generator,
) -> Galaxies:
    """Draw the central and the satellites of one halo.

    Parameters
    ----------
    halo : Halo
    magnitude_max : float
        Faintest absolute magnitude that is drawn.
    galaxies, members, environment : parameters
        The values of this halo, see `nuisance.draw`.
    random : numpy.random.Generator

    Returns
    -------
    Galaxies
        The central first, at rest at the origin.
    """
    mean = luminosity.mean_satellites(magnitude_max, halo.log10_m200c, galaxies)
    scatter = galaxies.richness_scatter_dex * np.log(10)
    # Log-normal with the mean kept, so that the scatter does not change the mean relation.
    mean = mean * np.exp(scatter * random.standard_normal() - 0.5 * scatter**2)
    n = int(random.poisson(mean))
    spread = members.concentration_scatter_dex * random.standard_normal()
    concentration = float(mean_concentration(halo.log10_m200c, members)) * 10**spread
    tracers = concentration * members.concentration_ratio

    leaders, follower_of = _subgroups(
        n, members.substructure_fraction, members.substructure_size, random
    )
    r = kinematics.nfw_radii(tracers, members.extent_r200, leaders, random)
    spherical = r[:, None] * kinematics.isotropic_directions(leaders, random)
    velocity = kinematics.jeans_velocities(
        spherical, concentration, tracers, members.anisotropy, random
    )
    scatter_in_velocity = np.exp(members.velocity_scatter * random.standard_normal())
    velocity *= velocity_bias(halo.log10_m200c, members) * scatter_in_velocity
    position = spherical @ _shape(members, random).T
    _beyond_r200(position, velocity, members, environment, random)

    size = members.substructure_radius_r200 / np.sqrt(3)
    position = np.concatenate(
        [
            position,
            position[follower_of] + size * random.standard_normal((len(follower_of), 3)),
        ]
    )
    jitter = members.substructure_dispersion_v200 * random.standard_normal((len(follower_of), 3))
    velocity = np.concatenate([velocity, velocity[follower_of] + jitter])

    hosts = np.full(n, halo.log10_m200c)
    magnitude = luminosity.draw_satellite_magnitudes(magnitude_max, hosts, galaxies, random)
    central = luminosity.draw_central_magnitudes(np.array([halo.log10_m200c]), galaxies, random)
    origin = np.zeros((1, 3))
    return Galaxies(
        np.concatenate([origin, position * halo.r200_mpc_h]),
        np.concatenate([origin, velocity * halo.v200_km_s]),
        np.concatenate([central, magnitude]),
        np.full(n + 1, halo.log10_m200c),
    )


def _subgroups(
    n: int, fraction: float, size: float, random: np.random.Generator
) -> tuple[int, NDArray[np.int64]]:
    """Split `n` satellites into leaders and followers.

    Returns the number of leaders and, for each follower, the leader it moves with.
    """
    grouped = int(random.binomial(n, fraction))
    groups = min(grouped, int(np.ceil(grouped / size)))
    followers = grouped - groups
    leaders = n - followers
    return leaders, random.integers(0, groups, followers) if followers else np.zeros(0, np.int64)


def _shape(members: MemberParams, random: np.random.Generator) -> Array:
    """Matrix that makes a sphere an ellipsoid of the same volume, randomly turned."""
    means = np.array([1.0, *members.axis_ratio_mean])
    axes = means + members.axis_ratio_scatter * np.array([0.0, *random.standard_normal(2)])
    axes = np.clip(axes, members.axis_ratio_min, 1.0)
    axes /= np.cbrt(axes.prod())
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    return turn @ np.diag(axes) @ turn.T


def _beyond_r200(
    position: Array,
    velocity: Array,
    members: MemberParams,
    environment: EnvironmentParams,
    random: np.random.Generator,
) -> None:
    """Give galaxies beyond R200c a mean motion inwards, or outwards after splashback."""
    r = np.linalg.norm(position, axis=1)
    outside = r > 1.0
    if not outside.any():
        return
    sign = np.where(random.random(outside.sum()) < members.outflow_fraction, 1.0, -1.0)
    radial = position[outside] / r[outside, None]
    mean = sign * infall_velocity(r[outside], environment)
    # The random part shrinks so that the kinetic energy stays that of the Jeans solution.
    random_part = velocity[outside]
    square = (random_part**2).sum(axis=1).mean()
    shrink = np.sqrt(max(1 - (mean**2).mean() / square, 0.25)) if square > 0 else 1.0
    velocity[outside] = shrink * random_part + mean[:, None] * radial
