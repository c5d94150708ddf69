"""From mocks on disk to batches: voxels, a few shards in memory at a time, or lists of galaxies.

Both hand out the same clusters in the same order with the same symmetries.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmass.errors import WorkspaceError
from cmass.half import grids_from_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Clusters of one step, as rows of a pool of grids in memory.

    Attributes
    ----------
    pool : ndarray of float16, shape (m, n, n, n)
    rows : ndarray of int64, shape (k,)
    symmetries : ndarray of uint8, shape (k,)
        Of each cluster: see `turn`.
    masses : ndarray of float32, shape (k,)
        log10 M200c.
    """

    pool: NDArray[np.float16]
    rows: NDArray[np.int64]
    symmetries: NDArray[np.uint8]
    masses: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def turned(self) -> NDArray[np.float16]:
        """The grids themselves, shape (k, n, n, n)."""
        grids = self.pool[self.rows]
        return turn(grids, self.symmetries) if self.symmetries.any() else grids

    def grids(self) -> NDArray[np.float32]:
        """The grids as Keras takes them, shape (k, n, n, n, 1)."""
        return self.turned()[..., None].astype(np.float32)


@dataclass(frozen=True)
class ListBatch:
    """Clusters of one step as lists of galaxies, turned already.

    Attributes
    ----------
    points : ndarray of float32, shape (k, G, 3)
        x, y (Mpc/h) and v (km/s); 0 behind the galaxies of a cluster.
    counts : ndarray of int32, shape (k,)
        Galaxies of each cluster.
    masses : ndarray of float32, shape (k,)
        log10 M200c.
    """

    points: NDArray[np.float32]
    counts: NDArray[np.int32]
    masses: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.counts)


AnyBatch = Batch | ListBatch


class Source(Protocol):
    """Clusters that a network learns from, or is judged on."""

    def __len__(self) -> int:
        """Clusters."""
        ...

    def masses(self) -> NDArray[np.float64]:
        """True log10 M200c of all clusters, in order."""
        ...

    def batches(
        self,
        batch_size: int,
        random: np.random.Generator | None = None,
        *,
        augmented: bool = False,
    ) -> Iterator[AnyBatch]:
        """Yield all clusters once; with `random` in an order drawn by it (see `groups`)."""
        ...


@dataclass(frozen=True)
class Files:
    """The voxels of a folder of shards."""

    folder: Path

    def __len__(self) -> int:
        return count(self.folder)

    def masses(self) -> NDArray[np.float64]:
        return true_masses(self.folder)

    def batches(
        self,
        batch_size: int,
        random: np.random.Generator | None = None,
        *,
        augmented: bool = False,
    ) -> Iterator[Batch]:
        return batches(self.folder, batch_size, random, augmented=augmented)


def shard_files(folder: Path) -> list[Path]:
    """Shards of one set, in order."""
    files = sorted(folder.glob("shard-*.parquet"))
    if not files:
        raise WorkspaceError(f"{folder} holds no voxels: run `cmass voxelize` first")
    return files


def read_voxels(file: Path, rows_at_once: int = 100) -> Iterator[tuple[list[str], NDArray[np.float64], NDArray[np.float16]]]:  # fmt: skip
    """Yield identifiers, true masses and grids (k, n, n, n) of a shard, k rows at a time.

    Raises
    ------
    WorkspaceError
        An earlier version wrote the file.
    """
    parquet = pq.ParquetFile(file)
    kind = parquet.schema_arrow.field("voxels").type
    if not pa.types.is_fixed_size_binary(kind):
        raise WorkspaceError(
            f"{file} holds voxels as an earlier version wrote them ({kind}): run `cmass voxelize`"
        )
    for batch in parquet.iter_batches(rows_at_once):
        grids = grids_from_bytes(batch.column("voxels"))
        yield (
            batch.column("cluster_id").to_pylist(),
            batch.column("log10_m200c_true").to_numpy(),
            grids,
        )


def count(folder: Path) -> int:
    """Clusters in the shards of a folder."""
    return sum(pq.read_metadata(file).num_rows for file in shard_files(folder))


def true_masses(folder: Path) -> NDArray[np.float64]:
    """True log10 M200c of all clusters of a folder, in order."""
    parts = [pq.read_table(f, columns=["log10_m200c_true"]) for f in shard_files(folder)]
    return np.concatenate([p["log10_m200c_true"].to_numpy() for p in parts])


def turn(grids: NDArray[np.float16], symmetries: NDArray[np.integer]) -> NDArray[np.float16]:
    """Turn and reflect each grid (k, n, n, n).

    The eight symmetries of the square in (x, y) and v → −v leave the mass unchanged, sixteen in
    all: 1 swaps x and y, then 2, 4 and 8 reflect x, y and v.
    """
    out = np.empty_like(grids)
    for i, choice in enumerate(symmetries):
        grid = grids[i]
        if choice & 1:
            grid = grid.transpose(1, 0, 2)
        out[i] = grid[
            :: -1 if choice & 2 else 1, :: -1 if choice & 4 else 1, :: -1 if choice & 8 else 1
        ]
    return out


def turn_points(
    points: NDArray[np.float32], symmetries: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Turn and reflect lists of galaxies (k, G, 3), as `turn` does their grids."""
    swap, *signs = ((symmetries[:, None] >> bit) & 1 for bit in range(4))
    x, y, v = (points[..., j] for j in range(3))
    swapped = (np.where(swap, y, x), np.where(swap, x, y), v)
    turned = [np.where(sign, -values, values) for sign, values in zip(signs, swapped, strict=True)]
    return np.stack(turned, axis=-1)


@dataclass(frozen=True)
class Group:
    """Shards that are shuffled together, and the batches that they give.

    Attributes
    ----------
    shards : list of int
        Their clusters come behind those that the group before left.
    picks : list of (rows, symmetries)
        Of each batch.
    left : ndarray of int64
        Rows that wait for the next group.
    """

    shards: list[int]
    picks: list[tuple[NDArray[np.int64], NDArray[np.uint8]]]
    left: NDArray[np.int64]


def groups(
    sizes: Sequence[int],
    batch_size: int,
    random: np.random.Generator,
    *,
    augmented: bool,
    shards_in_memory: int = 2,
) -> Iterator[Group]:
    """Draw the order of an epoch.

    Parameters
    ----------
    sizes : sequence of int
        Clusters of each shard.
    batch_size : int
        Clusters in a batch; the last one may be smaller.
    random : numpy.random.Generator
        Shuffles shards, and clusters within `shards_in_memory` shards.
    augmented : bool
        Draw a symmetry for each cluster (see `turn`).
    shards_in_memory : int
        Shards shuffled together: what memory holds, whatever the size of the set.
    """
    order = random.permutation(len(sizes))
    waiting = 0
    for start in range(0, len(order), shards_in_memory):
        shards = [int(i) for i in order[start : start + shards_in_memory]]
        total = waiting + sum(sizes[i] for i in shards)
        shuffled = random.permutation(total)
        last = start + shards_in_memory >= len(order)
        full = total if last else total // batch_size * batch_size
        picks = []
        for first in range(0, full, batch_size):
            rows = shuffled[first : min(first + batch_size, full)]
            drawn = random.integers(0, 16, len(rows)) if augmented else np.zeros(len(rows))
            picks.append((rows, drawn.astype(np.uint8)))
        yield Group(shards, picks, shuffled[full:])
        waiting = total - full


def batches(
    folder: Path,
    batch_size: int,
    random: np.random.Generator | None = None,
    *,
    augmented: bool = False,
    shards_in_memory: int = 2,
) -> Iterator[Batch]:
    """Yield the clusters of a folder of voxels, as many at a time as a step takes.

    Parameters
    ----------
    folder : Path
        Shards of voxels.
    batch_size : int
        Clusters in a batch; the last one may be smaller.
    random : numpy.random.Generator, optional
        Draws the order (see `groups`); without it clusters come in the order of the files.
    augmented : bool
        Draw a symmetry for each cluster (see `turn`); needs `random`.
    shards_in_memory : int
        Shards shuffled together.
    """
    files = shard_files(folder)
    if random is None:
        pending_x: list[NDArray[np.float16]] = []
        pending_y: list[NDArray[np.float64]] = []
        for file in files:
            for _, masses, grids in read_voxels(file, batch_size):
                pending_x.append(grids)
                pending_y.append(masses)
                if sum(map(len, pending_y)) >= batch_size:
                    x, y = np.concatenate(pending_x), np.concatenate(pending_y)
                    yield _plain(x[:batch_size], y[:batch_size])
                    pending_x, pending_y = [x[batch_size:]], [y[batch_size:]]
        if pending_y and sum(map(len, pending_y)):
            yield _plain(np.concatenate(pending_x), np.concatenate(pending_y))
        return
    sizes = [pq.read_metadata(file).num_rows for file in files]
    rest_x: NDArray[np.float16] | None = None
    rest_y = np.zeros(0)
    for group in groups(
        sizes, batch_size, random, augmented=augmented, shards_in_memory=shards_in_memory
    ):
        parts = [part for i in group.shards for part in read_voxels(files[i])]
        x = np.concatenate(
            [p[2] for p in parts] if rest_x is None else [rest_x, *(p[2] for p in parts)]
        )
        y = np.concatenate([rest_y, *(p[1] for p in parts)])
        del parts
        for rows, symmetries in group.picks:
            yield Batch(x, rows, symmetries, y[rows].astype(np.float32))
        rest_x, rest_y = x[group.left], y[group.left]


def prefetched(items: Iterator[T], depth: int = 3) -> Iterator[T]:
    """Yield `items` in order while a thread prepares the next `depth` of them."""
    ready: queue.Queue[T | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(None)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _plain(grids: NDArray[np.float16], masses: NDArray[np.float64]) -> Batch:
    n = len(grids)
    return Batch(grids, np.arange(n), np.zeros(n, np.uint8), masses.astype(np.float32))
