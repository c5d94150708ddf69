"""Windows of clusters as estimators read them: galaxies, redshift and, of mocks, the truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass.errors import InputError
from cmass.tables import points_by_cluster, read_table, to_numpy
from cmass.workspace import Workspace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Windows:
    """Phase-space windows of n clusters.

    Attributes
    ----------
    cluster_id : list of str
    points : ndarray, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray of int64, shape (n + 1,)
        Galaxies of cluster i are ``points[offsets[i]:offsets[i + 1]]``.
    z : ndarray, shape (n,)
        Redshift of the cluster.
    log10_m200c_true : ndarray, shape (n,)
        log10 M200c in h⁻¹ M☉; NaN where nobody knows.
    halo_id : ndarray of int64, shape (n,)
        Halo of each window: its windows are not independent. -1 for real clusters.
    """

    cluster_id: list[str]
    points: Array
    offsets: NDArray[np.int64]
    z: Array
    log10_m200c_true: Array
    halo_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cluster_id)

    @property
    def n_galaxies(self) -> NDArray[np.int64]:
        """Galaxies in each window, shape (n,)."""
        return np.diff(self.offsets)

    def cloud(self, i: int) -> Array:
        """Galaxies of cluster i, shape (k, 3)."""
        return self.points[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: NDArray[np.integer]) -> Windows:
        """The clusters of some rows, in their order."""
        rows = np.asarray(rows, np.int64)
        counts = self.n_galaxies[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Row of `points` of every galaxy: the cluster's first one, and counting on.
        first = np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return replace(
            self, cluster_id=[self.cluster_id[i] for i in rows],
            points=self.points[first + np.arange(offsets[-1])], offsets=offsets, z=self.z[rows],
            log10_m200c_true=self.log10_m200c_true[rows], halo_id=self.halo_id[rows],
        )  # fmt: skip


@dataclass(frozen=True)
class Sets:
    """The mocks that an estimator may see: what it learns from, and what calibrates it.

    Attributes
    ----------
    train, validation, test : Windows
        No halo is in two of them. The test set makes posteriors of point estimates, or
        recalibrates them.
    workspace : Workspace, optional
        The run whose windows they are, where the voxels of these windows and the run's own
        network lie; without it an estimator that wants voxels makes them.
    """

    train: Windows
    validation: Windows
    test: Windows
    workspace: Workspace | None = None


def mock_windows(workspace: Workspace, *sets: str) -> list[Windows]:
    """Windows of some sets of the mocks, one `Windows` a set, in the order of the catalogue.

    Parameters
    ----------
    workspace : Workspace
    *sets : str
        Names of `cmass.split.SETS`.
    """
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    columns = ["cluster_id", "halo_id", "z", "log10_m200c_true"]
    clusters = read_table(workspace.mock / "clusters", "mock_clusters", columns)
    place = pc.index_in(clusters["cluster_id"], value_set=split["cluster_id"].combine_chunks())
    clusters = clusters.append_column("set", split["set"].take(place))
    galaxies = read_table(
        workspace.mock / "galaxies", "mock_galaxies", ["cluster_id", "x_proj", "y_proj", "v_los"]
    )
    found = []
    for name in sets:
        own = clusters.filter(pc.fill_null(pc.equal(clusters["set"], name), False))
        if not own.num_rows:
            raise InputError(
                "no window is in this set", file=workspace.split / "split.parquet", column="set",
                value=name, remedy="Run `cmass split` again",
            )  # fmt: skip
        points, offsets = points_by_cluster(galaxies, own["cluster_id"])
        z, true, halo = to_numpy(own, "z", "log10_m200c_true", "halo_id")
        ids = own["cluster_id"].to_pylist()
        found.append(Windows(ids, points, offsets.astype(np.int64), z, true, halo))
    return found


def survey_windows(clusters: pa.Table, galaxies: pa.Table) -> Windows:
    """Windows of a survey's clusters, from its tables `clusters` and `galaxies`."""
    points, offsets = points_by_cluster(galaxies, clusters["cluster_id"])
    (z,) = to_numpy(clusters, "z")
    n = clusters.num_rows
    return Windows(
        clusters["cluster_id"].to_pylist(), points, offsets.astype(np.int64), z,
        np.full(n, np.nan), np.full(n, -1, np.int64),
    )  # fmt: skip
