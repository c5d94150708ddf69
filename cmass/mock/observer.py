"""The observer: what a flux-limited redshift survey sees of a halo along a sight line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, Cosmology
from cmass.mock import luminosity
from cmass.mock.contamination import worst_contaminant
from cmass.mock.fields import INFALLING, INTERLOPER, MEMBER, HaloField
from cmass.mock.sightlines import plane_of_sky
from cmass.params import MockParams, WindowParams

Array = NDArray[np.float64]


@dataclass
class Cone:
    """Galaxies seen around one halo, N rows, before any window is cut.

    Attributes
    ----------
    z_cluster : float
        Redshift of the adopted centre.
    tan_x, tan_y : (N,)
        Gnomonic offsets from the adopted centre (tangents of angles).
    distance_mpc_h : (N,)
        True comoving distances from the observer, h⁻¹ Mpc.
    z : (N,)
        Observed redshifts.
    r_mag : (N,)
        Apparent r.
    galaxy_class : (N,)
    host_log10_m200c : (N,)
    inside_r200 : int
        Members inside the sphere of R200c, of those seen.
    contaminant : tuple of float
        Mass ratio and distance of the worst neighbour (paper, eq. 6).
    """

    z_cluster: float
    tan_x: Array
    tan_y: Array
    distance_mpc_h: Array
    z: Array
    r_mag: Array
    galaxy_class: NDArray[np.int8]
    host_log10_m200c: Array
    inside_r200: int
    contaminant: tuple[float, float]


def _project(
    position: Array, velocity: Array, direction: Array, distance_mpc_h: float,
    cosmology: Cosmology,
) -> tuple[Array, Array, Array, Array, Array]:  # fmt: skip
    """Depth along the sight line, tangents, distance and observed redshift of points."""
    e1, e2 = plane_of_sky(direction)
    depth = distance_mpc_h + position @ direction
    across1, across2 = position @ e1, position @ e2
    distance = np.sqrt(depth**2 + across1**2 + across2**2)
    safe = np.where(depth > 0, depth, np.nan)
    along = (
        velocity @ direction * depth + velocity @ e1 * across1 + velocity @ e2 * across2
    ) / np.maximum(distance, 1e-9)
    z = (1 + cosmology.redshift(distance)) * (1 + along / SPEED_OF_LIGHT_KM_S) - 1
    return depth, across1 / safe, across2 / safe, distance, z


def observe(
    field: HaloField,
    direction: Array,
    distance_mpc_h: float,
    mock: MockParams,
    window: WindowParams,
    cosmology: Cosmology,
    random: np.random.Generator,
) -> Cone:
    """Look at a halo along `direction` from a comoving distance.

    Every galaxy has its own distance, magnitude and redshift, so that near cones are
    cones. The adopted centre is off the true one by the halo's ``offcentre_mpc_h`` per
    axis and by ``centre_velocity_v200`` in velocity.

    Parameters
    ----------
    field : HaloField
    direction : (3,)
        Unit vector from the observer to the halo.
    distance_mpc_h : float
        Comoving distance, h⁻¹ Mpc.
    mock, window : parameters
    cosmology : Cosmology
    random : numpy.random.Generator
        Draws the observer's own errors: centre, redshifts, completeness.
    """
    z_true = float(cosmology.redshift(distance_mpc_h))
    r200 = float(cosmology.r200c_mpc_h(10**field.log10_m200c, field.redshift))
    v200 = float(cosmology.v200c_km_s(10**field.log10_m200c, field.redshift))
    angular_distance = distance_mpc_h / (1 + z_true)
    shift = field.nuisance["offcentre_mpc_h"] * random.standard_normal(2) / angular_distance
    centre_velocity = mock.observer.centre_velocity_v200 * v200 * random.standard_normal()
    z_cluster = (1 + z_true) * (1 + centre_velocity / SPEED_OF_LIGHT_KM_S) - 1

    galaxies = field.galaxies
    depth, tan_x, tan_y, distance, z = _project(
        galaxies.position_mpc_h, galaxies.velocity_km_s, direction, distance_mpc_h, cosmology
    )
    positive = np.maximum(distance, 1.0)
    z_cosmological = cosmology.redshift(positive)
    r_mag = (
        galaxies.magnitude
        + cosmology.distance_modulus_h(positive, z_cosmological)
        + luminosity.apparent_shift(z_cosmological, mock.galaxies)
    )
    seen = (depth > 1.0) & (r_mag < mock.galaxies.flux_limit_mag)
    seen &= random.random(len(seen)) < mock.galaxies.completeness
    z = z + mock.observer.redshift_error_km_s / SPEED_OF_LIGHT_KM_S * random.standard_normal(len(z))

    radius = np.linalg.norm(galaxies.position_mpc_h, axis=1) / (1 + field.redshift) / r200
    kind = np.where(radius <= mock.environment.turnaround_r200, INFALLING, INTERLOPER)
    kind = np.where(radius <= 1.0, MEMBER, kind).astype(np.int8)

    near = field.neighbours
    _, near_x, near_y, _, near_z = _project(
        near.position_mpc_h, near.velocity_km_s, direction, distance_mpc_h, cosmology
    )
    contaminant = worst_contaminant(
        (near_x - shift[0]) * angular_distance,
        (near_y - shift[1]) * angular_distance,
        SPEED_OF_LIGHT_KM_S * (near_z - z_cluster) / (1 + z_cluster),
        near.log10_m200c,
        field.log10_m200c,
        field.redshift,
        cosmology,
        window.half_width_mpc_h,
        window.v_max_km_s,
    )
    return Cone(
        z_cluster, tan_x[seen] - shift[0], tan_y[seen] - shift[1], distance[seen], z[seen],
        r_mag[seen], kind[seen], galaxies.host_log10_m200c[seen], int((seen & (kind == MEMBER)).sum()),
        contaminant,
    )  # fmt: skip
