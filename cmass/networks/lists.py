"""Lists of galaxies in memory, for grids that are made where the network runs.

A set of 17 000 clusters takes 50 MB as galaxies and 2.7 GB as voxels on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cmass.errors import InputError, VoxelError
from cmass.networks.streaming import ListBatch, groups, turn_points
from cmass.params import Params
from cmass.tables import points_by_cluster, read_table
from cmass.voxels import inverse_bandwidth
from cmass.workspace import Workspace

#: Shortest list: others are two or three times a power of two, so that few shapes are compiled.
SHORTEST = 32


@dataclass(frozen=True)
class Lists:
    """Galaxies of n clusters and their masses (a `cmass.networks.streaming.Source`).

    Attributes
    ----------
    points : ndarray of float32, shape (n_points, 3)
        x, y (proper Mpc/h) and v (km/s), one cluster after the other.
    offsets : ndarray of int64, shape (n + 1,)
        Galaxies of cluster i are ``points[offsets[i]:offsets[i + 1]]``.
    log10_m200c_true : ndarray, shape (n,)
    shard : int
        Clusters that would lie in one file of voxels: the order of an epoch is that of the files.
    """

    points: NDArray[np.float32]
    offsets: NDArray[np.int64]
    log10_m200c_true: NDArray[np.float64]
    shard: int

    @classmethod
    def checked(
        cls,
        points: NDArray[np.float64],
        offsets: NDArray[np.int64],
        log10_m200c_true: NDArray[np.float64],
        params: Params,
        ids: Sequence[str],
    ) -> Lists:
        """Lists of clusters that all have a density, from galaxies in double precision.

        Raises
        ------
        VoxelError
            A cluster has none, as `cmass.voxels.density_grid` says it; on a device nothing would.
        """
        for row, (first, last) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
            try:
                inverse_bandwidth(points[first:last], params.voxels.kappa)
            except VoxelError as error:
                raise VoxelError(
                    f"cluster {ids[row]} has no density: {error.message}",
                    column=error.column, value=error.value, remedy=error.remedy,
                ) from error  # fmt: skip
        shard = params.voxels.clusters_per_shard
        return cls(points.astype(np.float32), offsets, log10_m200c_true, shard)

    def __len__(self) -> int:
        return len(self.log10_m200c_true)

    def masses(self) -> NDArray[np.float64]:
        """True log10 M200c of all clusters, in order."""
        return self.log10_m200c_true

    def batches(
        self,
        batch_size: int,
        random: np.random.Generator | None = None,
        *,
        augmented: bool = False,
    ) -> Iterator[ListBatch]:
        """Yield all clusters once, as `cmass.networks.streaming.batches` yields their voxels."""
        n = len(self)
        if random is None:
            for first in range(0, n, batch_size):
                rows = np.arange(first, min(first + batch_size, n))
                yield self._batch(rows, np.zeros(len(rows), np.uint8))
            return
        shards = [np.arange(n)[first : first + self.shard] for first in range(0, n, self.shard)]
        waiting = np.zeros(0, np.int64)
        for group in groups([len(s) for s in shards], batch_size, random, augmented=augmented):
            pool = np.concatenate([waiting, *(shards[i] for i in group.shards)])
            for rows, symmetries in group.picks:
                yield self._batch(pool[rows], symmetries)
            waiting = pool[group.left]

    def _batch(self, rows: NDArray[np.int64], symmetries: NDArray[np.uint8]) -> ListBatch:
        counts = np.diff(self.offsets)[rows]
        places = np.arange(padded_length(int(counts.max())))
        there = places < counts[:, None]
        points = np.zeros((*there.shape, 3), np.float32)
        points[there] = self.points[(self.offsets[rows][:, None] + places)[there]]
        return ListBatch(
            turn_points(points, symmetries), counts.astype(np.int32),
            self.log10_m200c_true[rows].astype(np.float32),
        )  # fmt: skip


def padded_length(longest: int) -> int:
    """Length of the lists of a batch whose longest has so many galaxies: 32, 48, 64, 96, 128, …"""
    length = SHORTEST
    while length < longest:
        # From a power of two to one and a half of it, and on to the next.
        length = length * 3 // 2 if length & (length - 1) == 0 else length * 4 // 3
    return length


def mock_lists(workspace: Workspace, params: Params, which: str) -> Lists:
    """Galaxies of a set of the mocks, in the order of its voxels on disk.

    Parameters
    ----------
    workspace, params
    which : str
        Name of the set, of `cmass.split.SETS`.
    """
    split = read_table(workspace.split / "split.parquet", "split", ["cluster_id", "set"])
    columns = ["cluster_id", "x_proj", "y_proj", "v_los"]
    galaxies = read_table(workspace.mock / "galaxies", "mock_galaxies", columns)
    clusters = read_table(
        workspace.mock / "clusters", "mock_clusters", ["cluster_id", "log10_m200c_true"]
    )
    own = split.filter(pc.equal(split["set"], which))["cluster_id"].combine_chunks()
    names = galaxies["cluster_id"].combine_chunks().unique()
    names = names.filter(pc.is_in(names, value_set=own))
    if not len(names):
        raise InputError(
            "no window is in this set", file=workspace.split / "split.parquet", column="set",
            value=which, remedy="Run `cmass split` again",
        )  # fmt: skip
    points, offsets = points_by_cluster(galaxies, names)
    place = pc.index_in(names, value_set=clusters["cluster_id"].combine_chunks())
    true = clusters["log10_m200c_true"].take(place).to_numpy()
    return Lists.checked(points, offsets.astype(np.int64), true, params, names.to_pylist())
