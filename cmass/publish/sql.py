"""The door to a released catalogue: SQL that can read the release and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.csv

from cmass.errors import CmassError, WorkspaceError
from cmass.tables import read_json

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DATABASE = "cmass.duckdb"

# No file but the database, no network, no extensions, no look into the variables of the
# Python program around the query, no spilling into the release's folder; and no way to
# take any of this back.
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "lock_configuration": "true",
}
_ALLOWED = {"SELECT", "EXPLAIN", "MULTI"}  # MULTI is how DuckDB parses PIVOT


class SqlError(CmassError):
    """A statement that is not allowed, or that the database does not understand."""

    exit_code = 2


def is_smoke(release: Path) -> bool:
    """Whether a release is of profile smoke, whose masses are not for science."""
    file = release / "provenance.json"
    return file.is_file() and read_json(file)["release"]["profile"] == "smoke"


def connect(database: Path) -> DuckDBPyConnection:
    """Open a released database for reading, with everything else locked.

    Parameters
    ----------
    database : Path
        The ``cmass.duckdb`` of a release.

    Raises
    ------
    WorkspaceError
        There is no such file, or it is damaged.
    """
    import duckdb

    if not database.is_file():
        raise WorkspaceError(
            f"{database} does not exist: there is no release yet. Make one with `cmass run`"
        )
    try:
        return duckdb.connect(str(database), read_only=True, config=_LOCKED)
    except duckdb.Error as error:
        raise WorkspaceError(
            f"{database} cannot be opened ({_first_line(error)}). It may be damaged; "
            "`cmass publish` makes the release again"
        ) from error


def query(release: Path, statement: str) -> pa.Table:
    """Answer one SQL statement from a release.

    Parameters
    ----------
    release : Path
        Folder of a release, ``data/release/latest`` for the newest.
    statement : str
        One SELECT (or FROM, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT, EXPLAIN).

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    SqlError
        The statement would do more than read the catalogue, or is wrong SQL.
    WorkspaceError
        There is no release, or its database is damaged.
    """
    import duckdb

    with connect(release / DATABASE) as connection:
        try:
            statements = connection.extract_statements(statement)
            if len(statements) != 1:
                raise SqlError(
                    "there is no SQL statement in this text"
                    if not statements
                    else f"found {len(statements)} statements: give one at a time"
                )
            kind = statements[0].type.name
            if kind not in _ALLOWED:
                raise SqlError(
                    f"{kind.replace('_', ' ')} is refused: this door only reads the released "
                    "catalogue. Use SELECT; write results to a file with "
                    '`cmass sql --format csv "SELECT …" > file.csv`'
                )
            cursor = connection.cursor()
            relation = cursor.sql(statement)
            if relation is None:  # EXPLAIN and the like give rows without being a relation
                result = cursor.execute(statement)
                names = [d[0] for d in result.description or []]
                rows = result.fetchall()
                columns = [[str(row[i]) for row in rows] for i in range(len(names))]
                return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], names)
            return relation.to_arrow_table()
        except duckdb.PermissionException as error:
            raise SqlError(
                f"refused: {_first_line(error)}. Files, the network and extensions are closed to "
                "`cmass sql`; it reads the released tables only (try SHOW TABLES)"
            ) from error
        except duckdb.Error as error:
            raise SqlError(str(error).strip()) from error


def render(table: pa.Table, format: Literal["csv", "json"]) -> str:
    """Text of a query's answer as CSV (with a header) or JSON (a list of objects)."""
    if format == "json":
        return json.dumps(table.to_pylist(), default=str, ensure_ascii=False, indent=1) + "\n"
    columns = [
        pa.array(
            [None if v is None else json.dumps(v, default=str) for v in c.to_pylist()], pa.string()
        )
        if pa.types.is_nested(c.type)
        else c
        for c in table.columns
    ]
    flat = pa.Table.from_arrays(columns, names=table.column_names)
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(flat, sink, pyarrow.csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue().to_pybytes().decode()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].removeprefix("Permission Error: ")
