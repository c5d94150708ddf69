"""The observer: what a flux-limited redshift survey sees of a halo along a sight line.

Which galaxies get a redshift (flux limit, completeness, fibre collisions), and where a cluster
finder puts the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, Cosmology
from cmass.mock import luminosity
from cmass.mock.contamination import Heavier, heavier_neighbours
from cmass.mock.fields import INFALLING, INTERLOPER, MEMBER, HaloField
from cmass.mock.sightlines import plane_of_sky
from cmass.params import MockParams, WindowParams

Array = NDArray[np.float64]

#: Half width of what is observed over that of the window.
_REACH = 1.5


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
    heavier : Heavier
        More massive neighbours (paper, eq. 6), as seen from the adopted centre.
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
    heavier: Heavier


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


def completeness(r_mag: Array, mock: MockParams) -> Array:
    """Chance (N,) that a galaxy of apparent magnitude r has a redshift, fibre collisions apart."""
    galaxies = mock.galaxies
    bright = np.maximum(15.0 - r_mag, 0.0)
    return np.maximum(galaxies.completeness - galaxies.completeness_slope_per_mag * bright, 0.0)


def fibre_collisions(
    x_arcsec: Array, y_arcsec: Array, least_arcsec: float, recovered: float,
    random: np.random.Generator,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which galaxies get a fibre, as in the SDSS: no two nearer than `least_arcsec` on one plate.

    In random order, a galaxy nearer than that to one that has a fibre gets none, unless another
    plate recovers it.

    Parameters
    ----------
    x_arcsec, y_arcsec : (N,)
        Offsets on the sky, arcsec.
    least_arcsec : float
        SDSS: 55.
    recovered : float
        Part of the losers that overlapping plates observe.
    random : numpy.random.Generator

    Returns
    -------
    ndarray of bool, (N,)
    """
    kept = np.ones(len(x_arcsec), bool)
    saved = random.random(len(kept)) < recovered
    rank = random.permutation(len(kept))
    if len(kept) < 2:
        return kept
    pairs = cKDTree(np.stack([x_arcsec, y_arcsec], axis=1)).query_pairs(
        least_arcsec, output_type="ndarray"
    )
    first = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    second = pairs.sum(axis=1) - first
    for one in np.argsort(rank[first], kind="stable"):
        if kept[first[one]] and not saved[second[one]]:
            kept[second[one]] = False
    return kept


#: Steps of the finder's walk to the density peak, and the step (kernels) at which it ends.
_WALK_STEPS = 50
_WALK_END = 1e-3


def density_peak(points: Array, kernel: tuple[float, float], start: Array) -> Array:
    """Peak of the density of galaxies in phase space that is uphill from `start` (mean shift).

    Parameters
    ----------
    points : (N, 3)
        x, y (proper Mpc/h) and v (km/s).
    kernel : tuple of float
        Width of the Gaussian kernel on the sky (Mpc/h) and in velocity (km/s).
    start : (3,)

    Returns
    -------
    ndarray, (3,)
        `start` where no galaxy is within five kernels.
    """
    scale = np.array([kernel[0], kernel[0], kernel[1]])
    scaled, at = points / scale, start / scale
    for _ in range(_WALK_STEPS):
        square = ((scaled - at) ** 2).sum(axis=1)
        near = square < 25.0
        if not near.any():
            break
        weight = np.exp(-0.5 * square[near])
        new = weight @ scaled[near] / weight.sum()
        moved = float(np.abs(new - at).max())
        at = new
        if moved < _WALK_END:
            break
    return at * scale


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
    cones. The adopted centre is the density peak that a finder sees near the true one, with the
    error of ``offcentre_mpc_h`` per axis and ``centre_velocity_v200`` in velocity.

    Parameters
    ----------
    field : HaloField
    direction : (3,)
        Unit vector from the observer to the halo.
    distance_mpc_h : float
        Comoving distance, h⁻¹ Mpc.
    mock, window : parameters
        `mock` holds the values of this halo, see `nuisance.draw`.
    cosmology : Cosmology
    random : numpy.random.Generator
        Draws the observer's own errors: centre, redshifts, fibres.
    """
    z_true = float(cosmology.redshift(distance_mpc_h))
    r200 = float(cosmology.r200c_mpc_h(10**field.log10_m200c, field.redshift))
    v200 = float(cosmology.v200c_km_s(10**field.log10_m200c, field.redshift))
    angular_distance = distance_mpc_h / (1 + z_true)
    off_sky = mock.observer.offcentre_mpc_h * random.standard_normal(2)
    off_velocity = mock.observer.centre_velocity_v200 * v200 * random.standard_normal()

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
    seen &= random.random(len(seen)) < completeness(r_mag, mock)
    z = z + mock.observer.redshift_error_km_s / SPEED_OF_LIGHT_KM_S * random.standard_normal(len(z))
    x, y = tan_x * angular_distance, tan_y * angular_distance
    v = SPEED_OF_LIGHT_KM_S * (z - z_true) / (1 + z_true)
    # Wider than the window by more than any centre moves: what is farther out is never used.
    reach = _REACH * window.half_width_mpc_h
    seen &= (np.abs(x) < reach) & (np.abs(y) < reach)
    if mock.observer.fibre_collision_arcsec:
        arcsec = np.degrees(1.0) * 3600
        rows = np.flatnonzero(seen)
        seen[rows] = fibre_collisions(
            tan_x[rows] * arcsec, tan_y[rows] * arcsec, mock.observer.fibre_collision_arcsec,
            mock.observer.fibre_collision_recovered, random,
        )  # fmt: skip
    centre = np.zeros(3)
    if mock.observer.centre_kernel_mpc_h:
        kernel = (mock.observer.centre_kernel_mpc_h, mock.observer.centre_kernel_km_s)
        centre = density_peak(np.stack([x[seen], y[seen], v[seen]], axis=1), kernel, centre)
    shift = (centre[:2] + off_sky) / angular_distance
    z_cluster = (1 + z_true) * (1 + (centre[2] + off_velocity) / SPEED_OF_LIGHT_KM_S) - 1

    radius = np.linalg.norm(galaxies.position_mpc_h, axis=1) / (1 + field.redshift) / r200
    kind = np.where(radius <= mock.environment.turnaround_r200, INFALLING, INTERLOPER)
    kind = np.where(radius <= 1.0, MEMBER, kind).astype(np.int8)

    near = field.neighbours
    _, near_x, near_y, _, near_z = _project(
        near.position_mpc_h, near.velocity_km_s, direction, distance_mpc_h, cosmology
    )
    heavier = heavier_neighbours(
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
        heavier,
    )  # fmt: skip
