"""Rows of a periodic box by cell: written once, read around any point."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cmass.mock.boxes.sorting import SortedRuns, merge
from cmass.tables import atomic_path

Rows = NDArray[np.void]

#: Width of a cell, h⁻¹ Mpc: about the radius of what is read around a halo.
CELL_MPC_H = 40.0
#: Cells with few rows share a row group of at least so many: one takes a millisecond to read.
_GROUP_ROWS = 4096


class Grid:
    """A periodic grid of cubic cells, numbered along z, then y, then x.

    Parameters
    ----------
    box_size_mpc_h : float
    """

    def __init__(self, box_size_mpc_h: float) -> None:
        self.box = box_size_mpc_h
        self.n = max(int(box_size_mpc_h // CELL_MPC_H), 1)
        self.width = box_size_mpc_h / self.n

    def cell_of(self, position: NDArray[np.floating]) -> NDArray[np.int64]:
        """Cell (N,) of positions (N, 3)."""
        place = np.floor(np.asarray(position, float) / self.width).astype(np.int64) % self.n
        return (place[:, 0] * self.n + place[:, 1]) * self.n + place[:, 2]

    def cells_near(self, centre: NDArray[np.floating], radius: float) -> NDArray[np.int64]:
        """Cells, each once, that a ball around `centre` (3,) may touch."""
        axes = []
        for c in np.asarray(centre, float):
            low, high = np.floor((c - radius) / self.width), np.floor((c + radius) / self.width)
            axes.append(np.unique(np.arange(low, high + 1).astype(np.int64) % self.n))
        x, y, z = np.meshgrid(*axes, indexing="ij")
        return ((x * self.n + y) * self.n + z).ravel()

    def walk(self, position: NDArray[np.floating]) -> NDArray[np.uint64]:
        """Place (N,) of positions on a Z-order curve: what is near on it is near in space."""
        place = np.floor(np.asarray(position, float) / self.width).astype(np.uint64) % np.uint64(
            self.n
        )
        code = np.zeros(len(place), np.uint64)
        for bit in range(20):
            for axis in range(3):
                set_bit = (place[:, axis] >> np.uint64(bit)) & np.uint64(1)
                code |= set_bit << np.uint64(3 * bit + axis)
        return code


def write_cells(runs: SortedRuns, folder: Path, rows_at_once: int) -> None:
    """Write rows sorted by cell as Parquet, cells whole in a row group, some groups a file.

    Files that a broken run has finished are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, (rows,) in enumerate(merge([runs], rows_at_once)):
        path = folder / f"part-{number:05d}.parquet"
        if path.exists() or not len(rows):
            continue
        schema = _schema(rows.dtype)
        with (
            atomic_path(path) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for group in _groups(rows):
                writer.write_table(_to_arrow(group, schema))


def _groups(rows: Rows) -> Iterator[Rows]:
    """Rows in groups that part no cell."""
    ends = np.append(np.flatnonzero(np.diff(rows["key"])) + 1, len(rows))
    start = 0
    while start < len(rows):
        place = min(int(np.searchsorted(ends, start + _GROUP_ROWS)), len(ends) - 1)
        stop = int(ends[place])
        yield rows[start:stop]
        start = stop


def _schema(dtype: np.dtype) -> pa.Schema:
    fields = []
    for name in dtype.names or ():
        kind = dtype[name]
        one = pa.from_numpy_dtype(kind.base)
        fields.append(pa.field(name, pa.list_(one, kind.shape[0]) if kind.shape else one))
    return pa.schema(fields)


def _to_arrow(rows: Rows, schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        values = np.ascontiguousarray(rows[field.name])
        if values.ndim == 2:
            flat = pa.array(values.ravel())
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        else:
            arrays.append(pa.array(values))
    return pa.Table.from_arrays(arrays, schema=schema)


def _from_arrow(table: pa.Table, dtype: np.dtype) -> Rows:
    rows = np.empty(table.num_rows, dtype)
    for name in dtype.names or ():
        column = table[name].combine_chunks()
        if dtype[name].shape:
            rows[name] = column.flatten().to_numpy().reshape(-1, dtype[name].shape[0])
        else:
            rows[name] = column.to_numpy(zero_copy_only=False)
    return rows


class CellStore:
    """Reads what `write_cells` wrote.

    Parameters
    ----------
    folder : Path
    dtype : numpy.dtype
    grid : Grid
    rows_kept : int
        Rows of cells that stay in memory; those used longest ago leave first.
    """

    def __init__(self, folder: Path, dtype: np.dtype, grid: Grid, rows_kept: int) -> None:
        self.dtype, self.grid, self._room = dtype, grid, rows_kept
        self._kept: OrderedDict[int, Rows] = OrderedDict()
        self._groups: list[tuple[pq.ParquetFile, int]] = []
        spans = []
        for path in sorted(folder.glob("part-*.parquet")):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                cells = file.metadata.row_group(group).column(0).statistics
                self._groups.append((file, group))
                spans.append((cells.min, cells.max))
        self._first, self._last = np.array(spans, np.int64).reshape(-1, 2).T

    def _group(self, number: int) -> Rows:
        """Rows of one row group, from memory if it was read lately."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        file, group = self._groups[number]
        rows = _from_arrow(file.read_row_group(group), self.dtype)
        self._kept[number] = rows
        self._room -= len(rows)
        while self._room < 0 and len(self._kept) > 1:
            self._room += len(self._kept.popitem(last=False)[1])
        return rows

    def read(self, cell: int) -> Rows:
        """All rows of one cell."""
        number = int(np.searchsorted(self._first, cell, "right")) - 1
        if number < 0 or cell > self._last[number]:
            return np.zeros(0, self.dtype)
        rows = self._group(number)
        start, stop = np.searchsorted(rows["key"], (cell, cell + 1))
        return rows[start:stop]

    def near(
        self, centre: NDArray[np.floating], radius_mpc_h: float
    ) -> tuple[Rows, NDArray[np.float64]]:
        """Rows within a radius of `centre` (3,), and their offsets (N, 3) from it, h⁻¹ Mpc."""
        centre = np.asarray(centre, float)
        found, offsets = [np.zeros(0, self.dtype)], [np.zeros((0, 3))]
        for cell in self.grid.cells_near(centre, radius_mpc_h):
            rows = self.read(int(cell))
            offset = rows["position"] - centre
            offset -= self.grid.box * np.rint(offset / self.grid.box)
            inside = (offset**2).sum(axis=1) < radius_mpc_h**2
            found.append(rows[inside])
            offsets.append(offset[inside])
        return np.concatenate(found), np.concatenate(offsets)

    def pieces(self) -> Iterator[Rows]:
        """All rows, one row group after the other."""
        for file, group in self._groups:
            yield _from_arrow(file.read_row_group(group), self.dtype)
