"""Voxels from Parquet to batches, a few row groups in memory at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmass.errors import WorkspaceError


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


def shard_files(folder: Path) -> list[Path]:
    """Shards of one set, in order."""
    files = sorted(folder.glob("shard-*.parquet"))
    if not files:
        raise WorkspaceError(f"{folder} holds no voxels: run `cmass voxelize` first")
    return files


def read_voxels(file: Path, rows_at_once: int = 100) -> Iterator[tuple[list[str], NDArray[np.float64], NDArray[np.float16]]]:  # fmt: skip
    """Yield identifiers, true masses and grids (k, n, n, n) of a shard, k rows at a time."""
    parquet = pq.ParquetFile(file)
    for batch in parquet.iter_batches(rows_at_once):
        grids = batch.column("voxels").to_numpy_ndarray()
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


def batches(
    folder: Path,
    batch_size: int,
    random: np.random.Generator | None = None,
    *,
    augmented: bool = False,
    shards_in_memory: int = 2,
) -> Iterator[Batch]:
    """Yield the clusters of a folder, as many at a time as a step takes.

    Parameters
    ----------
    folder : Path
        Shards of one set.
    batch_size : int
        Clusters a batch; the last one may be smaller.
    random : numpy.random.Generator, optional
        Shuffles shards, and clusters within `shards_in_memory` shards; without it
        clusters come in the order of the files.
    augmented : bool
        Draw a symmetry for each cluster (see `turn`); needs `random`.
    shards_in_memory : int
        Shards shuffled together: what memory holds, whatever the size of the set.
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
    order = [files[i] for i in random.permutation(len(files))]
    rest_x: NDArray[np.float16] | None = None
    rest_y = np.zeros(0)
    for start in range(0, len(order), shards_in_memory):
        parts = [
            part for file in order[start : start + shards_in_memory] for part in read_voxels(file)
        ]
        x = np.concatenate(
            [p[2] for p in parts] if rest_x is None else [rest_x, *(p[2] for p in parts)]
        )
        y = np.concatenate([rest_y, *(p[1] for p in parts)])
        del parts
        shuffled = random.permutation(len(y))
        last = start + shards_in_memory >= len(order)
        full = len(y) if last else len(y) // batch_size * batch_size
        for first in range(0, full, batch_size):
            rows = shuffled[first : min(first + batch_size, full)]
            symmetries = random.integers(0, 16, len(rows)) if augmented else np.zeros(len(rows))
            yield Batch(x, rows, symmetries.astype(np.uint8), y[rows].astype(np.float32))
        rest_x, rest_y = x[shuffled[full:]], y[shuffled[full:]]


def prefetched(items: Iterator[Batch], depth: int = 3) -> Iterator[Batch]:
    """Yield `items` in order while a thread prepares the next `depth` of them."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Batch | BaseException | None) -> bool:
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
