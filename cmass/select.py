"""select: clusters whose window the survey covers, and the galaxies in each window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cmass.cosmology import line_of_sight_velocity_km_s, q0_angular_distance_mpc_h
from cmass.errors import InputError
from cmass.params import CosmologyParams, WindowParams
from cmass.sky import unit_vectors

Array = NDArray[np.float64]
#: Pairs of cluster and galaxy worked on at once: bounds the memory at about 100 MB.
_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PhaseSpace:
    """Galaxies in the windows of clusters, one entry a (cluster, galaxy) pair.

    Sorted by cluster, then by galaxy.

    Attributes
    ----------
    cluster_index, galaxy_index : ndarray of int64, shape (n_pairs,)
        Rows of the arrays handed to `phase_space`.
    x_proj, y_proj : ndarray of float64, shape (n_pairs,)
        Proper offsets to the east and to the north, h⁻¹ Mpc.
    v_los : ndarray of float64, shape (n_pairs,)
        Line-of-sight velocity relative to the cluster, km/s.
    """

    cluster_index: NDArray[np.int64]
    galaxy_index: NDArray[np.int64]
    x_proj: Array
    y_proj: Array
    v_los: Array

    def counts(self, n_clusters: int) -> NDArray[np.int64]:
        """Galaxies in the window of each of `n_clusters` clusters."""
        return np.bincount(self.cluster_index, minlength=n_clusters).astype(np.int64)


def phase_space(
    ra_cl: ArrayLike,
    dec_cl: ArrayLike,
    z_cl: ArrayLike,
    ra_gal: ArrayLike,
    dec_gal: ArrayLike,
    z_gal: ArrayLike,
    window: WindowParams,
    cosmology: CosmologyParams,
) -> PhaseSpace:
    """Find the galaxies in each cluster's phase-space window, and where in it they are.

    The offset is the great-circle separation along its position angle at the
    cluster, times the angular diameter distance of the paper (second order in
    z, q0): exact at the poles and across RA 0. The window is the square
    |x|, |y| ≤ `half_width_mpc_h` and |v| ≤ `v_max_km_s`, edges included.

    Parameters
    ----------
    ra_cl, dec_cl : array_like, shape (n_clusters,)
        Cluster centres, deg.
    z_cl : array_like, shape (n_clusters,)
        Cluster redshifts, greater than zero.
    ra_gal, dec_gal : array_like, shape (n_galaxies,)
        Galaxies, deg.
    z_gal : array_like, shape (n_galaxies,)
        Galaxy redshifts.
    window : WindowParams
    cosmology : CosmologyParams
        Only its q0 is used.

    Returns
    -------
    PhaseSpace

    Raises
    ------
    InputError
        A coordinate is not finite, or a cluster's redshift gives no positive distance.
    """
    ra_cl, dec_cl, z_cl = _finite("cluster", ra=ra_cl, dec=dec_cl, z=z_cl)
    ra_gal, dec_gal, z_gal = _finite("galaxy", ra=ra_gal, dec=dec_gal, z=z_gal)
    scale = q0_angular_distance_mpc_h(z_cl, cosmology.q0)
    if (bad := np.flatnonzero(scale <= 0)).size:
        raise InputError(
            "a cluster's redshift gives no positive distance", column="z", row=int(bad[0]),
            value=float(z_cl[bad[0]]),
        )  # fmt: skip
    if not len(z_cl) or not len(z_gal):
        nothing, none = np.empty(0), np.empty(0, np.int64)
        return PhaseSpace(none, none, nothing, nothing, nothing)
    # Behind every window no galaxy can count: leave them out of the tree.
    reach = window.v_max_km_s * (1 + 1e-9)
    near = np.flatnonzero(line_of_sight_velocity_km_s(z_gal, z_cl.max()) <= reach)
    galaxies = unit_vectors(ra_gal[near], dec_gal[near])
    centres = unit_vectors(ra_cl, dec_cl)
    tree = cKDTree(galaxies)
    angle = np.minimum(np.sqrt(2) * window.half_width_mpc_h / scale, np.pi)
    chord = np.minimum(2 * np.sin(0.5 * angle) * (1 + 1e-9) + 1e-12, 2.0)
    sizes = np.asarray(tree.query_ball_point(centres, chord, return_length=True), np.int64)

    parts = []
    start = 0
    while start < len(z_cl):
        # As many clusters as keep the pairs within bounds, and at least one.
        ends = np.cumsum(sizes[start:])
        stop = start + max(1, int(np.searchsorted(ends, _PAIRS_AT_ONCE, side="right")))
        lists = tree.query_ball_point(centres[start:stop], chord[start:stop], return_sorted=True)
        galaxy = np.concatenate([np.asarray(found, np.int64) for found in lists])
        cluster = np.repeat(np.arange(start, stop), sizes[start:stop])
        v = line_of_sight_velocity_km_s(z_gal[near[galaxy]], z_cl[cluster])
        inside = np.abs(v) <= window.v_max_km_s
        cluster, galaxy, v = cluster[inside], galaxy[inside], v[inside]
        east, north = _offsets(ra_cl[cluster], dec_cl[cluster], galaxies[galaxy])
        x, y = east * scale[cluster], north * scale[cluster]
        inside = np.maximum(np.abs(x), np.abs(y)) <= window.half_width_mpc_h
        parts.append((cluster[inside], near[galaxy[inside]], x[inside], y[inside], v[inside]))
        start = stop
    return PhaseSpace(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _finite(kind: str, **columns: ArrayLike) -> list[Array]:
    arrays = [np.asarray(values, np.float64) for values in columns.values()]
    for name, values in zip(columns, arrays, strict=True):
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise InputError(
                f"a {kind}'s {name} is not finite", column=name, row=int(bad[0]),
                value=float(values[bad[0]]), remedy="Set such rows aside first",
            )  # fmt: skip
    return arrays


def _offsets(ra_deg: Array, dec_deg: Array, vectors: Array) -> tuple[Array, Array]:
    """Separation from (ra, dec) to unit `vectors` resolved to the east and north, rad."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    x, y, z = vectors.T
    east = -np.sin(ra) * x + np.cos(ra) * y
    north = -np.sin(dec) * (np.cos(ra) * x + np.sin(ra) * y) + np.cos(dec) * z
    along = np.cos(dec) * (np.cos(ra) * x + np.sin(ra) * y) + np.sin(dec) * z
    sine = np.hypot(east, north)
    # theta / sin(theta), which tends to 1 at the centre; the antipode has no direction.
    factor = np.ones_like(sine)
    np.divide(np.arctan2(sine, along), sine, out=factor, where=sine > 0)
    return east * factor, north * factor
