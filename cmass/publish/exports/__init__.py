"""The formats of a release beside Parquet and DuckDB, all made from the column dictionary.

`write` makes them from the release's tables, `verify` reads each of them back and compares.
Text of fixed width and XML cost minutes and gigabytes for millions of rows: what is larger than a
format's limit is left out of it, and the release's README says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import VO_UNITS
from cmass.errors import WorkspaceError

#: Most rows of a table by format.
ROWS_MAX = {"fits": 500_000, "votable": 50_000, "cds": 10_000}
#: Tables by format, and those that are written into the same file.
TABLES_OF: dict[str, dict[str, tuple[str, ...]]] = {
    "fits": {"masses": ("posterior_grid",), "clusters": (), "galaxies": ()},
    "votable": {"masses": ("posterior_grid",), "clusters": ()},
    "cds": {"masses": (), "clusters": ()},
}
#: Layout of a release, in its provenance: 1 (or none) had none of these formats.
LAYOUT = 2


def tables_of(kind: str, tables: Mapping[str, pa.Table]) -> list[str]:
    """Tables that a format has files of: those that are not too large for it."""
    return [name for name in TABLES_OF[kind] if tables[name].num_rows <= ROWS_MAX[kind]]


def write(folder: Path, tables: Mapping[str, pa.Table], facts: Mapping[str, Any]) -> None:
    """Write FITS, VOTable and CDS files of a release."""
    from cmass.publish.exports import cds, fits, votable

    for kind, module in (("fits", fits), ("votable", votable), ("cds", cds)):
        module.write(folder, {n: tables[n] for n in tables_of(kind, tables)}, tables, facts)


def verify(folder: Path, tables: Mapping[str, pa.Table], facts: Mapping[str, Any]) -> None:
    """Read every format of a release back, and the footprint.

    Raises
    ------
    WorkspaceError
        A file is missing, cannot be read, or does not say what the release's tables say.
    """
    from cmass.publish.exports import cds, fits, footprint, votable

    for kind, module in (("fits", fits), ("votable", votable), ("cds", cds)):
        for name in tables_of(kind, tables):
            for file, other in module.read(folder, name):
                for part, found in other.items():
                    compare(file, found, tables[part], part, module.TOLERANCE)
    footprint.verify(folder, tables["clusters"], facts)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Read a file of a release back; whatever a reader stumbles over becomes a `WorkspaceError`."""
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise WorkspaceError(f"{file} does not read back ({error}). Run publish again") from error


def compare(
    file: Path, found: Mapping[str, Any], table: pa.Table, name: str, tolerance: Mapping[str, float]
) -> None:
    """Raise `WorkspaceError` unless columns that were read from a file are those of a table.

    Parameters
    ----------
    file : Path
    found : mapping
        Columns by name, as NumPy arrays; masked where values are missing.
    table : pyarrow.Table
    name : str
        The table's name.
    tolerance : mapping
        Largest difference by unit of the column; exact where none is named.
    """
    for column, values in found.items():
        field = table.schema.field(column)
        if len(values) != table.num_rows:
            raise WorkspaceError(
                f"{file}: {len(values)} rows, and table {name} has {table.num_rows}. Run publish again"
            )
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        if not _same(values, table[column], tolerance.get(unit, tolerance.get("*", 0.0))):
            raise WorkspaceError(
                f"{file}: column {column} does not read as in table {name}. Run publish again"
            )


def _same(values: Any, expected: pa.ChunkedArray, tolerance: float) -> bool:
    """Whether an array from a file holds what an Arrow column holds."""
    kind = expected.type
    if pa.types.is_string(kind):
        text = pc.fill_null(expected, "").to_numpy(zero_copy_only=False).astype(str)
        return bool((np.ma.filled(values, "").astype(str) == text).all())
    if pa.types.is_list(kind):
        flat: np.ndarray = np.ma.filled(values, np.nan).ravel()
        return bool(np.array_equal(flat[np.isfinite(flat)], pc.list_flatten(expected).to_numpy()))
    if pa.types.is_floating(kind):
        here: np.ndarray = np.ma.filled(np.ma.asarray(values, float), np.nan)
        return bool(np.allclose(here, expected.to_numpy(), rtol=0, atol=tolerance, equal_nan=True))
    missing = np.ma.getmaskarray(np.ma.asarray(values))
    whole = np.ma.getdata(values)
    if (missing != expected.is_null().to_numpy()).any():
        return False
    there = pc.fill_null(expected, 0).to_numpy()
    return bool((whole[~missing] == there[~missing]).all())


def with_vo_units(table: pa.Table, *, quoted: bool = True) -> pa.Table:
    """The table with units as readers of the VO understand them; quotes are VOTable's alone."""
    schema = table.schema
    for number, field in enumerate(schema):
        metadata = dict(field.metadata or {})
        if (unit := VO_UNITS.get(metadata.get(b"unit", b"").decode())) is not None:
            metadata[b"unit"] = (unit if quoted else unit.replace("'", "")).encode()
            schema = schema.set(number, field.with_metadata(metadata))
    return table.cast(schema)
