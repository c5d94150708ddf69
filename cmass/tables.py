"""Tables on disk: typed Parquet, written whole or not at all, checked on reading."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmass.columns import TABLES, TableSchema
from cmass.errors import InputError, WorkspaceError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it there when the block ends well.

    Raises
    ------
    WorkspaceError
        The disk is full; what was at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(path: Path) -> WorkspaceError:
    """The error of a write to `path` that found no space."""
    return WorkspaceError(
        f"no space left on the disk of {path.parent}; what was there is unchanged. "
        "Free some space and run the same command again: it goes on where it stopped"
    )


def make_table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """Arrow table `name` of the column dictionary from arrays by column name.

    Columns are cast to their declared types; a missing or unknown column is an error.
    """
    schema = TABLES[name]
    if set(columns) != set(schema.names):
        missing = sorted(set(schema.names) - set(columns))
        unknown = sorted(set(columns) - set(schema.names))
        raise InputError(f"table {name}: missing columns {missing}, unknown columns {unknown}")
    arrow = schema.arrow_schema()
    arrays = []
    for field in arrow:
        values = columns[field.name]
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if isinstance(values, pa.Array):
            arrays.append(values.cast(field.type))
            continue
        values = np.ma.getdata(values) if np.ma.isMaskedArray(values) else values
        nan_is_null = field.nullable and pa.types.is_floating(field.type)
        arrays.append(pa.array(values, type=field.type, from_pandas=nan_is_null))
    return pa.Table.from_arrays(arrays, schema=arrow)


def check_table(table: pa.Table, schema: TableSchema, file: Path | str | None = None) -> None:
    """Raise `InputError` at the first column, type, value or key that breaks `schema`.

    Row numbers in errors count from 0.
    """
    missing = [n for n in schema.names if n not in table.column_names]
    if missing:
        raise InputError(
            f"table {schema.name} lacks a column", file=file, column=", ".join(missing),
            remedy=f"Its columns are {', '.join(schema.names)}",
        )  # fmt: skip
    for column in schema.columns:
        values = table[column.name]
        expected = column.arrow_field().type
        if values.type != expected:
            raise InputError(
                f"expected type {expected}, found {values.type}", file=file, column=column.name
            )
        if not column.nullable and values.null_count:
            row = pc.index(pc.is_null(values), True).as_py()
            raise InputError("missing value", file=file, column=column.name, row=row)
        _check_range(values, column, file)
    if schema.key and table.num_rows:
        counts = (
            table.select(list(schema.key)).group_by(list(schema.key)).aggregate([([], "count_all")])
        )
        if counts.num_rows != table.num_rows:
            twice = counts.filter(pc.greater(counts["count_all"], 1)).slice(0, 1).to_pylist()[0]
            raise InputError(
                f"table {schema.name}: the key appears {twice.pop('count_all')} times", file=file,
                column=", ".join(schema.key), value=twice, remedy="Keys must be unique",
            )  # fmt: skip


def _check_range(values: pa.ChunkedArray, column: Any, file: Path | str | None) -> None:
    numeric = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    if not numeric:
        return
    bad = []
    if pa.types.is_floating(values.type):
        bad.append((pc.invert(pc.is_finite(values)), "is not finite"))
    if column.minimum is not None:
        compare, sign = (pc.less_equal, ">") if column.open_minimum else (pc.less, ">=")
        bad.append((compare(values, column.minimum), f"must be {sign} {column.minimum:g}"))
    if column.maximum is not None:
        compare, sign = (pc.greater_equal, "<") if column.open_maximum else (pc.greater, "<=")
        bad.append((compare(values, column.maximum), f"must be {sign} {column.maximum:g}"))
    for mask, words in bad:
        row = pc.index(mask, True).as_py()
        if row >= 0:
            raise InputError(
                f"{column.name} {words}", file=file, column=column.name, row=row,
                value=values[row].as_py(),
            )  # fmt: skip


def write_table(path: Path, table: pa.Table, name: str, *, small: bool = False) -> None:
    """Check `table` against table `name` and write it to `path` in one piece.

    The bytes depend on the content alone: same table, same file.

    Parameters
    ----------
    path : Path
    table : pyarrow.Table
    name : str
        Table of the column dictionary.
    small : bool
        Take time to make the file small. Numbers are stored byte by byte: of those that float32
        holds, float64 columns take little more than float32 ones.
    """
    check_table(table, TABLES[name], path)
    options: dict[str, Any] = {}
    if small:
        numbers = [f.name for f in table.schema if pa.types.is_floating(f.type)]
        others = [f.name for f in table.schema if pa.types.is_string(f.type)]
        options = {
            "use_byte_stream_split": numbers,
            "use_dictionary": others,
            "compression_level": 19,
        }
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=1 << 17, **options)


def table_files(path: Path) -> list[Path]:
    """The Parquet file, or the shards in a folder, in name order.

    Raises
    ------
    WorkspaceError
        There is none.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise WorkspaceError(f"{path} does not exist: run the step that makes it first")
    return files


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Work on a Parquet file; what Arrow cannot read of it becomes an `InputError` with its name."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"not a readable Parquet file: {error}", file=file,
            remedy="It may be cut short; delete it and run the step again",
        ) from error  # fmt: skip


def count_rows(path: Path) -> int:
    """Rows of a Parquet file, or of the shards in a folder.

    Raises
    ------
    InputError
        A file is damaged.
    WorkspaceError
        There is none.
    """
    n = 0
    for file in table_files(path):
        with readable(file):
            n += pq.read_metadata(file).num_rows
    return n


def read_table(path: Path, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read table `name` from a Parquet file or a folder of shards (in name order).

    Raises
    ------
    InputError
        The file is damaged, or does not hold that table.
    WorkspaceError
        There is no such file.
    """
    schema = TABLES[name]
    wanted = schema.names if columns is None else columns
    parts = []
    for file in table_files(path):
        with readable(file):
            parquet = pq.ParquetFile(file, memory_map=True)
            lacking = [n for n in wanted if n not in parquet.schema_arrow.names]
            if lacking:
                raise InputError(
                    f"table {name} lacks a column", file=file, column=", ".join(lacking)
                )
            parts.append(parquet.read(columns=wanted))
    table = pa.concat_tables(parts)
    return table.select(wanted)


def to_numpy(table: pa.Table, *columns: str) -> tuple[np.ndarray, ...]:
    """Columns as NumPy arrays; missing floats become NaN."""
    return tuple(table[c].to_numpy(zero_copy_only=False) for c in columns)


def rows_by_cluster(
    galaxies: pa.Table, cluster_ids: pa.ChunkedArray | pa.Array | list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows of each cluster's galaxies, one cluster after the other.

    Parameters
    ----------
    galaxies : pyarrow.Table
        Column cluster_id, in any order of rows; galaxies of clusters that are not asked for are
        left out.
    cluster_ids : array of text, length n
        Clusters asked for, each once.

    Returns
    -------
    rows : ndarray of int64, shape (n_rows,)
        Within a cluster in the order of the table.
    offsets : ndarray of int64, shape (n + 1,)
        Rows of cluster i are ``rows[offsets[i]:offsets[i + 1]]``.
    """
    wanted = pa.array(cluster_ids, pa.string()) if isinstance(cluster_ids, list) else cluster_ids
    if isinstance(wanted, pa.ChunkedArray):
        wanted = wanted.combine_chunks()
    place = pc.index_in(galaxies["cluster_id"], value_set=wanted)
    number = pc.fill_null(place, -1).to_numpy()
    order = np.argsort(number, kind="stable")
    order = order[np.searchsorted(number[order], 0) :]
    counts = np.bincount(number[order], minlength=len(wanted))
    return order, np.concatenate([[0], np.cumsum(counts)])


def points_by_cluster(
    galaxies: pa.Table, cluster_ids: pa.ChunkedArray | pa.Array | list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Phase-space points of each cluster, one cluster after the other.

    Parameters
    ----------
    galaxies : pyarrow.Table
        Columns cluster_id, x_proj, y_proj, v_los; otherwise as for `rows_by_cluster`.
    cluster_ids : array of text, length n

    Returns
    -------
    points : ndarray, shape (n_points, 3)
        x, y (Mpc/h) and v (km/s).
    offsets : ndarray of int64, shape (n + 1,)
        Points of cluster i are ``points[offsets[i]:offsets[i + 1]]``.
    """
    order, offsets = rows_by_cluster(galaxies, cluster_ids)
    points = np.column_stack([c[order] for c in to_numpy(galaxies, "x_proj", "y_proj", "v_los")])
    return points.astype(float, copy=False), offsets


def file_digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a folder."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON in one piece."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or broken one is a `WorkspaceError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} does not exist: run the step that makes it first") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, or brackets without end
        raise WorkspaceError(
            f"{path} is damaged ({error}); delete it and run the step again"
        ) from error
