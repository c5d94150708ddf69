"""select: clusters whose window the survey covers, and the galaxies in each window."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cmass import cosmology
from cmass.columns import FLAGS
from cmass.cosmology import line_of_sight_velocity_km_s, q0_angular_distance_mpc_h
from cmass.errors import CmassError, InputError
from cmass.params import CosmologyParams, WindowParams
from cmass.sky import unit_vectors
from cmass.tables import make_table, read_table, to_numpy, write_table

if TYPE_CHECKING:
    import pyarrow as pa

    from cmass.ingest.footprint import Footprint
    from cmass.params import Params
    from cmass.workspace import Workspace

_log = logging.getLogger(__name__)
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


def run(workspace: Workspace, params: Params) -> None:
    """Select the clusters of ``raw/`` and write ``selected/``.

    A cluster is kept where it is nearer than `window.distance_max_mpc_h` and at least
    `select.footprint_fraction_min` of the disc of its window lies inside the footprint and
    outside Stripe 82, if that is left out. The others are listed with the reason.

    Raises
    ------
    InputError
        No cluster is kept, or the clusters kept and rejected are not those that came.
    """
    from cmass.ingest.footprint import Footprint

    clusters = read_table(workspace.raw / "clusters.parquet", "raw_clusters")
    galaxies = read_table(workspace.raw / "galaxies.parquet", "raw_galaxies")
    footprint = Footprint.from_table(
        read_table(workspace.raw / "footprint.parquet", "raw_footprint")
    )
    ra, dec, z = to_numpy(clusters, "ra", "dec", "z")
    distance = cosmology.from_params(params.cosmology).comoving_distance_mpc_h(z)
    reasons = np.full(len(z), "", object)
    limit = params.window.distance_max_mpc_h
    for row in np.flatnonzero(distance >= limit):
        reasons[row] = f"comoving distance {distance[row]:.1f} Mpc/h, limit {limit:g}"

    near = np.flatnonzero(reasons == "")
    covered = np.ones(len(z))
    covered[near] = footprint_fraction(footprint, ra[near], dec[near], z[near], params)
    least = params.select.footprint_fraction_min
    for row, part in zip(near, covered[near], strict=True):
        if part < least:
            reasons[row] = f"{part:.1%} of the window inside the footprint, least {least:.0%}"

    left = np.flatnonzero(reasons == "")
    usable, stripe = usable_galaxies(galaxies, params.select.drop_stripe82)
    ra_gal, dec_gal, z_gal = to_numpy(galaxies, "ra", "dec", "z")

    def windows(rows: NDArray[np.int64], subset: NDArray[np.int64]) -> PhaseSpace:
        return phase_space(
            ra[rows], dec[rows], z[rows], ra_gal[subset], dec_gal[subset], z_gal[subset],
            params.window, params.cosmology,
        )  # fmt: skip

    # A window over Stripe 82 has a hole there: treat it as one that leaves the footprint.
    found = windows(left, usable)
    counts = found.counts(len(left))
    holes = windows(left, stripe).counts(len(left))
    share = holes / np.maximum(counts + holes, 1)
    for row, part in zip(left, share, strict=True):
        if part > 1 - least:
            reasons[row] = f"{part:.1%} of the window's galaxies from Stripe 82, which is left out"
    kept_here = np.flatnonzero(reasons[left] == "")
    kept = left[kept_here]
    if not len(kept):
        raise InputError(
            "no cluster is kept", file=workspace.raw / "clusters.parquet",
            remedy="selected/rejected.parquet of an earlier run or the sections window and select "
            "of params.yaml say why; does the footprint belong to the survey?",
        )  # fmt: skip

    counts = counts[kept_here]
    few = counts < params.window.n_galaxies_min
    mass, mass_err = _log_mass(clusters)
    selected = make_table(
        "clusters",
        {
            "cluster_id": clusters["cluster_id"].take(kept),
            "ra": ra[kept],
            "dec": dec[kept],
            "z": z[kept],
            "distance_mpc_h": distance[kept],
            "n_galaxies": counts,
            "log10_m200_galweight": mass[kept],
            "log10_m200_galweight_err": mass_err[kept],
            "flag": np.where(few, FLAGS["too_few_galaxies"].value, 0)
            + np.where(covered[kept] < 1, FLAGS["window_incomplete"].value, 0),
        },
    )
    gone = np.flatnonzero(reasons != "")
    rejected = make_table(
        "rejected_clusters",
        {
            "cluster_id": clusters["cluster_id"].take(gone),
            "ra": ra[gone],
            "dec": dec[gone],
            "z": z[gone],
            "distance_mpc_h": distance[gone],
            "reason": list(reasons[gone]),
        },
    )
    if selected.num_rows + rejected.num_rows != clusters.num_rows:
        raise CmassError(
            f"select: {clusters.num_rows} clusters came, {selected.num_rows} are kept and "
            f"{rejected.num_rows} rejected; this is a fault of cmass, please report it"
        )
    mine = np.isin(found.cluster_index, kept_here)
    pairs = make_table(
        "galaxies",
        {
            "cluster_id": clusters["cluster_id"].take(left[found.cluster_index[mine]]),
            "galaxy_id": galaxies["galaxy_id"].take(usable[found.galaxy_index[mine]]),
            "x_proj": found.x_proj[mine],
            "y_proj": found.y_proj[mine],
            "v_los": found.v_los[mine],
        },
    )
    if pairs.num_rows != counts.sum():
        raise CmassError(
            f"select: {pairs.num_rows} galaxies for {counts.sum()} counted; this is a fault of "
            "cmass, please report it"
        )
    write_table(workspace.selected / "rejected.parquet", rejected, "rejected_clusters")
    write_table(workspace.selected / "galaxies.parquet", pairs, "galaxies")
    write_table(workspace.selected / "clusters.parquet", selected, "clusters")
    far = int((distance >= limit).sum())
    _log.info(
        "%d clusters: %d too far, %d at the footprint's edge or in Stripe 82, %d kept "
        "(%d with too few galaxies); %d galaxies in their windows, median %g",
        clusters.num_rows, far, rejected.num_rows - far, selected.num_rows, int(few.sum()),
        pairs.num_rows, float(np.median(counts)),
    )  # fmt: skip


def footprint_fraction(
    footprint: Footprint, ra: ArrayLike, dec: ArrayLike, z: ArrayLike, params: Params
) -> Array:
    """Part of each cluster's disc of radius `window.half_width_mpc_h` inside the footprint.

    Parameters
    ----------
    footprint : Footprint
    ra, dec : array_like, shape (n,)
        Deg.
    z : array_like, shape (n,)
    params : Params

    Returns
    -------
    ndarray, shape (n,)
    """
    scale = q0_angular_distance_mpc_h(z, params.cosmology.q0)
    radius = np.minimum(params.window.half_width_mpc_h / scale, np.pi)
    return footprint.disc_fraction(ra, dec, radius, params.select.footprint_points)


def usable_galaxies(
    galaxies: pa.Table, drop_stripe82: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of table raw_galaxies that windows are made of, and those left out as Stripe 82.

    Galaxies known to lie outside the footprint are in neither; unknown counts as inside.
    """
    inside = galaxies["in_legacy"].fill_null(True).to_numpy()
    deeper = galaxies["s82"].fill_null(False).to_numpy()
    if not drop_stripe82:
        deeper = np.zeros_like(deeper)
    _log.info(
        "%d galaxies: %d outside the footprint, %d from Stripe 82 left out",
        len(inside), int((~inside).sum()), int((inside & deeper).sum()),
    )  # fmt: skip
    return np.flatnonzero(inside & ~deeper), np.flatnonzero(inside & deeper)


def _log_mass(clusters: pa.Table) -> tuple[Array, Array]:
    """log10 of the GalWeight M200 and its error in dex; NaN where there is none."""
    mass, error = to_numpy(clusters, "m200_msun_h", "m200_err_msun_h")
    known = mass > 0
    log_mass, log_error = np.full(len(mass), np.nan), np.full(len(mass), np.nan)
    log_mass[known] = np.log10(mass[known])
    log_error[known] = error[known] / (mass[known] * np.log(10))
    return log_mass, log_error
