"""The door to a released catalogue: SQL that can read the release and nothing else."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.csv

from cmass.errors import CmassError, WorkspaceError
from cmass.tables import file_digest, read_json

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DATABASE = "cmass.duckdb"
_NAME = re.compile(r"[a-z][a-z0-9_]*")

# No file but the database, no network, no extensions, no look into the variables of the
# Python program around the query, no spilling into the release's folder; and no way to
# take any of this back.
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "memory_limit": "2GB",
    "lock_configuration": "true",
}
#: Seconds that a statement may take, and bytes that its answer may have.
SECONDS, ANSWER_MAX_BYTES = 300.0, 1_000_000_000
#: Seconds that an interrupted statement gets to end.
_GRACE_S = 10.0
#: Bytes that tables of the user's own may have together.
OWN_MAX_BYTES = 1_000_000_000
#: Releases up to so many bytes are checked as a whole before they are asked, of others the database.
_CHECKED_MAX_BYTES = 300_000_000
_ALLOWED = {"SELECT", "EXPLAIN", "MULTI"}  # MULTI is how DuckDB parses PIVOT


class SqlError(CmassError):
    """A statement that is not allowed, or that the database does not understand."""

    exit_code = 2


def is_smoke(release: Path) -> bool:
    """Whether a release is of profile smoke, whose masses are not for science."""
    file = release / "provenance.json"
    if not file.is_file():
        return False
    try:
        return bool(read_json(file)["release"]["profile"] == "smoke")
    except (KeyError, TypeError) as error:
        raise WorkspaceError(f"{file} is no provenance of a release: {error!r}") from error


def find_release(data: Path, release: Path | None = None) -> Path:
    """Folder of a release: the one given, or the version of that name, or the latest in the data folder.

    Raises
    ------
    WorkspaceError
        There is none; the message lists those there are.
    """
    folder = release or data / "release" / "latest"
    if release is not None and not release.is_dir():
        folder = data / "release" / release
    if folder.is_dir():
        return folder
    there = sorted(p.name for p in (data / "release").glob("*") if (p / DATABASE).is_file())
    known = [name for name in there if name != "latest"]
    if known:
        raise WorkspaceError(
            f"there is no release {release or 'latest'} in {data}: it has {', '.join(known)}"
        )
    where = f"{data} holds no release" if data.is_dir() else f"there is no data folder {data}"
    raise WorkspaceError(
        f"{where}: `cmass run` makes a release; --data names the folder that has one, --release the release"
    )


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
            f"{database} does not exist: no release is there. `cmass run` makes one, and `cmass releases` "
            "lists those of a data folder"
        )
    try:
        return duckdb.connect(str(database), read_only=True, config=_LOCKED)
    except duckdb.Error as error:
        raise WorkspaceError(
            f"{database} cannot be opened ({_first_line(error)}). It may be damaged; "
            "`cmass publish` makes the release again"
        ) from error


def check(release: Path) -> str | None:
    """Say whether a release is what was published, before it is asked.

    Returns
    -------
    str or None
        What is wrong beside the database, from which answers come, in words for a warning.

    Raises
    ------
    WorkspaceError
        The database is not the one that was released.
    """
    from cmass.publish.release import SUMS, check_sums, listed_sums

    database = release / DATABASE
    if not database.is_file():
        return None  # `connect` says so
    try:
        listed = listed_sums(release)
    except WorkspaceError as error:
        return f"{error}; nobody can tell whether {database} is as it was released"
    if listed.get(DATABASE) != file_digest(database):
        raise WorkspaceError(
            f"{database} does not match its checksum in {SUMS}: it was changed or damaged after it was "
            "released. Move the release away; `cmass publish` makes it again"
        )
    if sum(p.stat().st_size for p in release.rglob("*") if p.is_file()) > _CHECKED_MAX_BYTES:
        return None
    try:
        check_sums(release)
    except WorkspaceError as error:
        return f"{error}; the database is intact, and the answer comes from it"
    return None


def own_tables(options: Iterable[str]) -> dict[str, pa.Table]:
    """Tables of the user's own, by name, from ``name=file`` in any format that `formats` reads.

    Raises
    ------
    SqlError
        No such form, a name that is none or is taken, or too much.
    InputError
        A file is not there or not readable.
    """
    from cmass import formats

    tables: dict[str, pa.Table] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not equals or not file:
            raise SqlError(
                f"--with {option}: give a name and a file, as in --with mine=clusters.csv"
            )
        if not _NAME.fullmatch(name):
            raise SqlError(
                f"--with {option}: {name!r} is no name for a table; use small letters, digits and _"
            )
        if name in tables:
            raise SqlError(f"--with {option}: {name} is named twice")
        tables[name] = formats.read(file)
    return tables


def query(
    release: Path, statement: str, seconds: float = SECONDS,
    tables: Mapping[str, pa.Table] | None = None,
) -> pa.Table:  # fmt: skip
    """Answer one SQL statement from a release.

    Parameters
    ----------
    release : Path
        Folder of a release, ``data/release/latest`` for the newest.
    statement : str
        One SELECT (or FROM, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE, PIVOT, EXPLAIN).
    seconds : float
        A statement that takes longer is stopped.
    tables : mapping of str to pyarrow.Table, optional
        Tables of the user's own, by the name that the statement calls them; copied into memory
        before the statement is looked at, which can read no more than without them.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    SqlError
        The statement would do more than read the catalogue, is wrong SQL, or takes too much time
        or memory.
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
            _take_in(cursor, tables or {})
            return _in_time(cursor, statement, seconds)
        except duckdb.InterruptException as error:
            raise SqlError(
                f"stopped: the statement takes more than {seconds:g} s. Ask for less, or read the "
                "release's Parquet files with a DuckDB of your own"
            ) from error
        except duckdb.OutOfMemoryException as error:
            raise SqlError(
                f"stopped: the statement takes more than {_LOCKED['memory_limit']} of memory. Ask for "
                "less, or read the release's Parquet files with a DuckDB of your own"
            ) from error
        except duckdb.PermissionException as error:
            raise SqlError(
                f"refused: {_first_line(error)}. Files, the network and extensions are closed to "
                "`cmass sql`; it reads the released tables only (try SHOW TABLES)"
            ) from error
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            raise SqlError(f"{str(error).strip()}\n{_names_hint(str(error))}") from error
        except duckdb.Error as error:
            raise SqlError(str(error).strip()) from error


def _take_in(cursor: DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    """Copy tables into memory, as temporary tables that this cursor alone sees."""
    taken = {
        name for (name,) in cursor.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    }
    if sum(table.nbytes for table in tables.values()) > OWN_MAX_BYTES:
        raise SqlError(
            f"your own tables have more than {OWN_MAX_BYTES / 1e9:g} GB: leave out columns or rows, or "
            "read the release's Parquet files with a DuckDB of your own"
        )
    for name, table in tables.items():
        if name in taken:
            raise SqlError(f"{name} is a table of the release: give yours another name")
        seen: dict[str, str] = {}
        for column in table.column_names:
            if (other := seen.setdefault(column.lower(), column)) is not column:
                raise SqlError(
                    f"{name} has the columns {other!r} and {column!r}, which are one in SQL: rename one"
                )
        cursor.register("_own", table)
        cursor.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM _own')
        cursor.unregister("_own")


def _names_hint(words: str) -> str:
    """Where the names are that a statement may use."""
    if words.startswith("Catalog Error"):
        return "SHOW TABLES lists the tables"
    return "DESCRIBE masses lists the columns of a table; text stands in 'single quotes'"


def _answer(cursor: DuckDBPyConnection, statement: str) -> pa.Table:
    """Rows of a statement, as long as they are not too many."""
    relation = cursor.sql(statement)
    if relation is None:  # EXPLAIN and the like give rows without being a relation
        result = cursor.execute(statement)
        names = [d[0] for d in result.description or []]
        rows = result.fetchall()
        columns = [[str(row[i]) for row in rows] for i in range(len(names))]
        return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], names)
    batches, size = [], 0
    with relation.to_arrow_reader() as reader:
        for batch in reader:
            batches.append(batch)
            size += batch.nbytes
            if size > ANSWER_MAX_BYTES:
                raise SqlError(
                    f"the answer is larger than {ANSWER_MAX_BYTES / 1e9:g} GB: add LIMIT or WHERE"
                )
        return pa.Table.from_batches(batches, reader.schema)


def _in_time(cursor: DuckDBPyConnection, statement: str, seconds: float) -> pa.Table:
    """`_answer`, stopped when the time is over or somebody presses Ctrl-C.

    DuckDB heeds no signal while it works, so that it works in a thread, and the one that gets
    signals waits.
    """
    given: list[pa.Table | BaseException] = []

    def work() -> None:
        try:
            given.append(_answer(cursor, statement))
        except BaseException as error:  # raised again where it is waited for
            given.append(error)

    thread = threading.Thread(target=work, name="cmass-sql", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    except KeyboardInterrupt:
        cursor.interrupt()
        thread.join(_GRACE_S)
        raise
    if thread.is_alive():
        cursor.interrupt()
        thread.join()
    (result,) = given
    if isinstance(result, BaseException):
        raise result
    return result


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
