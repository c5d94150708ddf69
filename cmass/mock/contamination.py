"""Contamination by more massive neighbours (paper, section 4.3 and eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cmass.cosmology import SPEED_OF_LIGHT_KM_S, Cosmology, line_of_sight_velocity_km_s
from cmass.errors import ParameterError

Array = NDArray[np.float64]


def phase_space_distance(
    x_mpc_h: ArrayLike,
    y_mpc_h: ArrayLike,
    v_km_s: ArrayLike,
    log10_m200c: ArrayLike,
    log10_m200c_own: ArrayLike,
    z: float,
    cosmology: Cosmology,
) -> Array:
    """Distance between two haloes in units of their mean R200c and V200c (eq. 6).

    Parameters
    ----------
    x_mpc_h, y_mpc_h : (N,)
        Proper separations in the plane of the sky, h⁻¹ Mpc.
    v_km_s : (N,)
        Difference of line-of-sight velocity, km/s.
    log10_m200c : (N,)
        log10 M200c of the neighbours, h⁻¹ M☉.
    log10_m200c_own : float or (N,)
        The same for the halo itself.
    z : float
        Redshift.
    cosmology : Cosmology
    """
    m, own = (10 ** np.asarray(m, float) for m in (log10_m200c, log10_m200c_own))
    r = 0.5 * (cosmology.r200c_mpc_h(m, z) + cosmology.r200c_mpc_h(own, z))
    v = 0.5 * (cosmology.v200c_km_s(m, z) + cosmology.v200c_km_s(own, z))
    x, y, dv = (np.asarray(a, float) for a in (x_mpc_h, y_mpc_h, v_km_s))
    return np.sqrt((x / r) ** 2 + (y / r) ** 2 + (dv / v) ** 2)


@dataclass(frozen=True)
class Heavier:
    """More massive neighbours in one window; NaN where there is none.

    Attributes
    ----------
    mass_ratio, distance : float
        Of the most massive of them: mass over the halo's, and eq. 6.
    nearest : float
        Of the nearest of them: eq. 6.
    """

    mass_ratio: float
    distance: float
    nearest: float


def heavier_neighbours(
    x_mpc_h: Array,
    y_mpc_h: Array,
    v_km_s: Array,
    log10_m200c: Array,
    log10_m200c_own: float,
    z: float,
    cosmology: Cosmology,
    radius_mpc_h: float,
    v_max_km_s: float,
) -> Heavier:
    """The most massive and the nearest of the neighbours in the window that outweigh the halo.

    Only neighbours more massive than the halo, nearer than `radius_mpc_h` in the plane
    of the sky and `v_max_km_s` in velocity count.
    """
    inside = (
        (log10_m200c > log10_m200c_own)
        & (x_mpc_h**2 + y_mpc_h**2 < radius_mpc_h**2)
        & (np.abs(v_km_s) < v_max_km_s)
    )
    if not inside.any():
        return Heavier(np.nan, np.nan, np.nan)
    masses = log10_m200c[inside]
    distance = phase_space_distance(
        x_mpc_h[inside], y_mpc_h[inside], v_km_s[inside], masses, log10_m200c_own, z, cosmology
    )
    worst = np.argmax(masses)
    return Heavier(
        float(10 ** (masses[worst] - log10_m200c_own)), float(distance[worst]),
        float(distance.min()),
    )  # fmt: skip


@dataclass(frozen=True)
class Contaminants:
    """More massive neighbours in W windows.

    Attributes
    ----------
    count : (W,)
        Neighbours in the window that are more massive than its halo.
    mass_ratio, distance : (W,)
        Of the most massive of them: mass over the halo's, and eq. 6; NaN where there is none.
    """

    count: NDArray[np.int64]
    mass_ratio: Array
    distance: Array


def box_contaminants(
    position_mpc_h: Array,
    velocity_km_s: Array,
    log10_m200c: Array,
    halo: NDArray[np.integer],
    direction: Array,
    distance_mpc_h: Array,
    z: float,
    box_size_mpc_h: float,
    reach_mpc_h: float,
    radius_mpc_h: float,
    v_max_km_s: float,
    cosmology: Cosmology,
    pairs_at_once: int = 2_000_000,
) -> Contaminants:
    """The same for all windows on the haloes of a periodic box at once.

    Each window is looked at as the observer does: from its own distance, along its own
    direction, redshifts relative to its halo, which is taken for the adopted centre.

    Parameters
    ----------
    position_mpc_h, velocity_km_s : (N, 3)
        All haloes that may contaminate: comoving positions in the box, peculiar velocities.
    log10_m200c : (N,)
    halo : (W,)
        Row of each window's halo.
    direction : (W, 3)
        Unit vectors from the observer to the halo.
    distance_mpc_h : (W,)
        Comoving distances of the observer.
    z : float
        Redshift of the snapshot, for radii and velocities of haloes.
    box_size_mpc_h : float
        Side of the periodic box.
    reach_mpc_h : float
        Neighbours are sought in a ball of this comoving radius; at most half the box. It has
        to hold the window in depth: (``v_max_km_s`` + peculiar velocities) / H.
    radius_mpc_h, v_max_km_s : float
        The window: projected proper radius and largest |v|.
    cosmology : Cosmology
    pairs_at_once : int
        Bounds the memory.
    """
    if 2 * reach_mpc_h > box_size_mpc_h:
        raise ParameterError(
            f"neighbours within {reach_mpc_h:g} Mpc/h overlap their own images in a box of "
            f"{box_size_mpc_h:g} Mpc/h: choose a smaller mock.environment.radius_mpc_h"
        )
    n = len(halo)
    found = Contaminants(np.zeros(n, np.int64), np.full(n, np.nan), np.full(n, np.nan))
    if n == 0:
        return found
    heavy = np.flatnonzero(log10_m200c > log10_m200c[halo].min())
    if len(heavy) == 0:
        return found
    tree = cKDTree(np.mod(position_mpc_h[heavy], box_size_mpc_h), boxsize=box_size_mpc_h)
    order = np.argsort(halo, kind="stable")
    centres, first, lines = np.unique(halo[order], return_index=True, return_counts=True)
    wrapped = np.mod(position_mpc_h[centres], box_size_mpc_h)
    n_near = tree.query_ball_point(wrapped, reach_mpc_h, return_length=True)
    upto = np.cumsum(n_near * lines)
    start = 0
    while start < len(centres):
        before = upto[start - 1] if start else 0
        stop = max(int(np.searchsorted(upto, before + pairs_at_once, "right")), start + 1)
        near = tree.query_ball_point(wrapped[start:stop], reach_mpc_h, return_sorted=False)
        neighbour = heavy[np.concatenate([np.asarray(rows, np.int64) for rows in near])]
        own = np.repeat(centres[start:stop], n_near[start:stop])
        group = np.repeat(np.arange(start, stop), n_near[start:stop])
        more = log10_m200c[neighbour] > log10_m200c[own]
        neighbour, group = neighbour[more], group[more]
        # One pair of haloes is seen along every sight line on the first of them.
        window = order[_ranges(first[group], lines[group])]
        neighbour = np.repeat(neighbour, lines[group])
        offset = position_mpc_h[neighbour] - position_mpc_h[halo[window]]
        offset -= box_size_mpc_h * np.rint(offset / box_size_mpc_h)
        velocity = velocity_km_s[neighbour] - velocity_km_s[halo[window]]
        radius, dv = _seen_from(
            offset, velocity, direction[window], distance_mpc_h[window], radius_mpc_h, cosmology
        )
        inside = (radius < radius_mpc_h) & (np.abs(dv) < v_max_km_s)
        _note_worst(
            found, window[inside], neighbour[inside], radius[inside], dv[inside], log10_m200c,
            halo, z, cosmology,
        )  # fmt: skip
        start = stop
    return found


def _ranges(start: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Concatenate ``arange(start, start + length)`` of all rows."""
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(start - (ends - length), length) + np.arange(total)


def _seen_from(
    offset: Array, velocity: Array, direction: Array, distance: Array, radius_max: float,
    cosmology: Cosmology,
) -> tuple[Array, Array]:  # fmt: skip
    """Projected proper radius and line-of-sight velocity (P,) of points next to haloes.

    The velocity is worked out for points within `radius_max` and NaN for the others.
    """
    ahead = np.einsum("ij,ij->i", offset, direction)
    depth = distance + ahead
    across2 = np.maximum(np.einsum("ij,ij->i", offset, offset) - ahead**2, 0.0)
    z_own = cosmology.redshift(distance)
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.sqrt(across2) / np.where(depth > 0, depth, np.nan) * distance / (1 + z_own)
    dv = np.full(len(radius), np.nan)
    near = np.flatnonzero(radius < radius_max)
    r = np.sqrt(depth[near] ** 2 + across2[near])
    sight = distance[near, None] * direction[near] + offset[near]
    along = np.einsum("ij,ij->i", velocity[near], sight) / r
    z = (1 + cosmology.redshift(r)) * (1 + along / SPEED_OF_LIGHT_KM_S) - 1
    dv[near] = line_of_sight_velocity_km_s(z, z_own[near])
    return radius, dv


def _note_worst(
    found: Contaminants, window: NDArray[np.int64], neighbour: NDArray[np.int64], radius: Array,
    dv: Array, log10_m200c: Array, halo: NDArray[np.integer], z: float, cosmology: Cosmology,
) -> None:  # fmt: skip
    """Enter pairs that are inside into `found`: how many, and the most massive of each window."""
    rank = np.lexsort((-log10_m200c[neighbour], window))
    windows, first, count = np.unique(window[rank], return_index=True, return_counts=True)
    worst = rank[first]
    own, other = log10_m200c[halo[windows]], log10_m200c[neighbour[worst]]
    found.count[windows] = count
    found.mass_ratio[windows] = 10 ** (other - own)
    found.distance[windows] = phase_space_distance(
        radius[worst], np.zeros(len(worst)), dv[worst], other, own, z, cosmology
    )
