"""Windows of a survey and of the mocks in one form, weighed by one proxy.

A real cluster has no true mass, so both sides are sorted by a mass that is measured from
the window's galaxies in the same way, and radii are in units of the radius that belongs
to that mass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass.columns import FLAGS, NOT_CATALOGUED
from cmass.cosmology import from_params
from cmass.errors import InputError
from cmass.estimators.richness import count_near_centre
from cmass.evaluate.volume import comoving_volume, effective_area_deg2
from cmass.galweight_mass import virial_masses
from cmass.params import Params
from cmass.tables import points_by_cluster, read_table, to_numpy
from cmass.workspace import Workspace

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Halves of a survey by the number in `cluster_id`: one to calibrate, one to report.
HALVES = ("even", "odd")


@dataclass(frozen=True)
class Windows:
    """Windows of n clusters and their galaxies.

    Attributes
    ----------
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray of int64, shape (n + 1,)
        Where each cluster begins in `points`.
    z : ndarray, shape (n,)
        Redshift of the adopted centre.
    distance_mpc_h : ndarray, shape (n,)
        Comoving distance of that redshift.
    log10_m200 : ndarray, shape (n,)
        Proxy mass from the window's galaxies, log10 Msun/h.
    r200_mpc_h, v200_km_s : ndarray, shape (n,)
        Proper radius and circular velocity that belong to the proxy mass.
    weight : ndarray, shape (n,)
        Share of the window in every mean.
    group : ndarray of int64, shape (n,)
        Windows of one group (halo) are resampled together.
    number : ndarray of int64, shape (n,)
        The number in the cluster's identifier; halves are even and odd ones.
    density_h3_mpc3 : ndarray, shape (n,)
        Objects per comoving volume that the window stands for.
    n_left_out : int
        Windows without a proxy mass, which are not among the n.
    """

    points: Array
    offsets: Integers
    z: Array
    distance_mpc_h: Array
    log10_m200: Array
    r200_mpc_h: Array
    v200_km_s: Array
    weight: Array
    group: Integers
    number: Integers
    density_h3_mpc3: Array
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(self.z)

    @property
    def counts(self) -> Integers:
        """Galaxies in each window, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def richness(self) -> Integers:
        """Galaxies near the centre (`estimators.richness`), shape (n,)."""
        return count_near_centre(self.points, self.offsets)

    @property
    def cluster(self) -> Integers:
        """Row of the cluster of each point, shape (n_points,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def clouds(self) -> Iterator[Array]:
        """Galaxies (x, y, v) of each window, in turn."""
        return (self.points[a:b] for a, b in pairwise(self.offsets))

    def select(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Windows:
        """The windows in `rows`, in that order."""
        rows = np.arange(len(self))[rows]
        counts = self.counts[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        place = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        changed = {
            name: getattr(self, name)[rows]
            for name in (
                "z", "distance_mpc_h", "log10_m200", "r200_mpc_h", "v200_km_s", "weight", "group",
                "number", "density_h3_mpc3",
            )
        }  # fmt: skip
        return replace(self, points=self.points[place], offsets=offsets, **changed)

    def half(self, name: str) -> Windows:
        """The windows with an even or an odd number; each stands for twice as many objects."""
        half = self.select(self.number % 2 == HALVES.index(name))
        return replace(half, density_h3_mpc3=len(HALVES) * half.density_h3_mpc3)

    def with_weight(self, weight: Array) -> Windows:
        """The same windows with other weights."""
        return replace(self, weight=weight)


def proxy_masses(points: Array, offsets: Integers, z: Array, params: Params) -> Array:
    """log10 M200 (Msun/h) of windows as GalWeight would weigh them, shape (n,).

    It need not be right, only the same for real clusters and mocks. NaN where there are
    too few members.
    """
    cosmology = from_params(params.cosmology)
    return virial_masses(points, offsets, z, cosmology, params.galweight).log10_m200


Proxy = Callable[[Array, Integers, Array, Params], Array]


def make_windows(
    points: Array,
    offsets: Integers,
    z: Array,
    params: Params,
    *,
    weight: Array | None = None,
    group: Integers | None = None,
    number: Integers | None = None,
    density_h3_mpc3: Array | None = None,
    proxy: Proxy = proxy_masses,
) -> Windows:
    """Weigh windows by `proxy` and leave out those without a mass; see `Windows`."""
    n = len(z)
    cosmology = from_params(params.cosmology)
    log10_m = proxy(points, offsets, z, params)
    known = np.isfinite(log10_m)
    mass = 10 ** np.where(known, log10_m, 14.0)
    rows = np.arange(n)
    windows = Windows(
        points, np.asarray(offsets, np.int64), z, cosmology.comoving_distance_mpc_h(z), log10_m,
        cosmology.r200c_mpc_h(mass, z), cosmology.v200c_km_s(mass, z),
        np.ones(n) if weight is None else np.asarray(weight, float),
        rows if group is None else np.asarray(group, np.int64),
        rows if number is None else np.asarray(number, np.int64),
        np.zeros(n) if density_h3_mpc3 is None else np.asarray(density_h3_mpc3, float),
        int((~known).sum()),
    )  # fmt: skip
    return windows.select(known)


def survey_windows(workspace: Workspace, params: Params) -> Windows:
    """Windows of the selected clusters of a survey; those with a flag are left out."""
    clusters = read_table(
        workspace.selected / "clusters.parquet", "clusters", ["cluster_id", "z", "flag"]
    )
    area_deg2 = effective_area_deg2(workspace, params, clusters.num_rows)
    volume = comoving_volume(area_deg2, params.window.distance_max_mpc_h)
    clusters = _usable(clusters)
    galaxies = read_table(
        workspace.selected / "galaxies.parquet", "galaxies",
        ["cluster_id", "x_proj", "y_proj", "v_los"],
    )  # fmt: skip
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    (z,) = to_numpy(clusters, "z")
    return make_windows(
        points, offsets, z, params, number=cluster_numbers(clusters["cluster_id"]),
        density_h3_mpc3=np.full(len(z), 1 / volume),
    )  # fmt: skip


def mock_windows(
    folder: Path, params: Params, weights: Callable[[Array, Params], Array]
) -> Windows:
    """Windows of mocks in `folder` (clusters/ and galaxies/), weighted as the universe is.

    Parameters
    ----------
    folder : Path
    params : Params
    weights : callable
        ``weights(log10_m200c_true, params) -> (n,)``: what turns the sampling of the
        mocks into the halo mass function.
    """
    columns = ["cluster_id", "halo_id", "z", "log10_m200c_true", "flag"]
    clusters = _usable(read_table(folder / "clusters", "mock_clusters", columns))
    galaxies = read_table(
        folder / "galaxies", "mock_galaxies", ["cluster_id", "x_proj", "y_proj", "v_los"]
    )
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    z, true, halo = to_numpy(clusters, "z", "log10_m200c_true", "halo_id")
    density = weights(true, params)
    return make_windows(
        points, offsets, z, params, weight=density, group=halo, number=halo,
        density_h3_mpc3=density,
    )  # fmt: skip


def _usable(clusters: pa.Table) -> pa.Table:
    out = NOT_CATALOGUED | FLAGS["bad_input"].value
    return clusters.filter(pc.equal(pc.bit_wise_and(clusters["flag"], out), 0))


def cluster_numbers(cluster_id: pa.ChunkedArray) -> Integers:
    """The number at the end of each identifier, as in ``GalWCat19-0042``, shape (n,).

    Raises
    ------
    InputError
        An identifier ends without a number: there would be no halves.
    """
    found = pc.extract_regex(cluster_id, r"(?P<number>\d+)$")
    if found.null_count:
        row = pc.index(pc.is_null(found), True).as_py()
        raise InputError(
            "the identifier does not end with a number", column="cluster_id", row=row,
            value=cluster_id[row].as_py(), remedy="Even and odd numbers make the two halves",
        )  # fmt: skip
    return pc.cast(pc.struct_field(found, "number"), pa.int64()).to_numpy()
