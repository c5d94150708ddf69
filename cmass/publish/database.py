"""The DuckDB file of a release: its tables, their comments, and macros.

The file is made last, from the release's Parquet files, because its bytes carry
timestamps and cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from cmass.columns import TABLES, Column
from cmass.errors import WorkspaceError
from cmass.tables import atomic_path, disk_full

#: Readers from DuckDB 1.4 on, the one for browsers among them, open this layout.
STORAGE_VERSION = "v1.4.0"

# Column names inside the macros start with an underscore or are qualified. DuckDB puts the
# caller's expression in place of a macro's parameter, so a plain `cluster_id` in the innermost
# query would be taken for the column of that query and every row would match.
_BINS = """
    SELECT _m.cluster_id AS _id, _g.bin_index AS _bin,
           _g.log10_m200c_low AS _low, _g.log10_m200c_high AS _high,
           _m.posterior[_g.bin_index + 1]::DOUBLE AS _p,
           list_sum(_m.posterior::DOUBLE[]) AS _total
    FROM masses AS _m, posterior_grid AS _g
    WHERE _m.posterior IS NOT NULL
"""

#: Macros by name: is it a table, its parameters, what it does, its body.
MACROS: dict[str, tuple[bool, str, str, str]] = {
    "cone": (
        True,
        "ra, dec, radius_deg",
        "Masses within radius_deg of a position (ra, dec; all in deg), nearest first, with "
        "separation_deg",
        """
        SELECT * FROM (
            SELECT _m.*, degrees(2 * asin(least(1, sqrt(
                sin(radians(_m.dec - dec) / 2) ** 2
                + cos(radians(_m.dec)) * cos(radians(dec)) * sin(radians(_m.ra - ra) / 2) ** 2
            )))) AS separation_deg
            FROM masses AS _m
        ) AS _near
        WHERE _near.separation_deg <= radius_deg ORDER BY _near.separation_deg
        """,
    ),
    "mass_quantile": (
        False,
        "cluster_id, q",
        "log10 M200c (Msun/h) below which the flat-prior posterior of a cluster holds the "
        "probability q; NULL without a posterior or for q outside 0 to 1",
        f"""(
        SELECT arg_min(
            _b._low
            + (_b._high - _b._low) * least(1, (q * _b._total - _b._sum + _b._p) / _b._p),
            _b._bin
        )
        FROM (
            SELECT *, sum(_a._p) OVER (PARTITION BY _a._id ORDER BY _a._bin) AS _sum
            FROM ({_BINS}) AS _a
        ) AS _b
        WHERE _b._id = cluster_id AND _b._p > 0 AND q BETWEEN 0 AND 1
          AND _b._sum >= q * _b._total * (1 - 1e-12)
        )""",
    ),
    "prob_above": (
        False,
        "cluster_id, log10_m",
        "Probability that log10 M200c (Msun/h) of a cluster is above log10_m, by its "
        "flat-prior posterior; NULL without a posterior",
        f"""(
        SELECT sum(_b._p * least(1, greatest(0, (_b._high - log10_m) / (_b._high - _b._low))))
               / any_value(_b._total)
        FROM ({_BINS}) AS _b
        WHERE _b._id = cluster_id
        )""",
    ),
}


def write_database(path: Path, parquet_files: Mapping[str, Path]) -> None:
    """Make the DuckDB file at `path`, in one piece, from Parquet files by table name.

    The posterior becomes a fixed-size array, NULL for a cluster without one.

    Parameters
    ----------
    path : Path
        The database file; replaced if there.
    parquet_files : mapping of str to Path
        Parquet file of each table; the names are tables of the column dictionary.
        ``masses`` and ``posterior_grid`` must be among them.

    Raises
    ------
    WorkspaceError
        The disk is full.
    """
    import duckdb

    n_bins = pq.ParquetFile(parquet_files["posterior_grid"]).metadata.num_rows
    with atomic_path(path) as temporary:
        temporary.unlink()  # DuckDB makes its file itself
        try:
            with duckdb.connect(config={"temp_directory": ""}) as connection:
                connection.execute(
                    f"ATTACH {_text(temporary)} AS target (STORAGE_VERSION '{STORAGE_VERSION}')"
                )
                connection.execute("USE target")
                for name, file in parquet_files.items():
                    _create(connection, name, file, n_bins)
                for name, macro in MACROS.items():
                    _create_macro(connection, name, *macro)
                connection.execute("USE memory")
                connection.execute("DETACH target")
        except duckdb.IOException as error:
            if "No space left" in str(error) or "disk is full" in str(error).lower():
                raise disk_full(path) from error
            raise WorkspaceError(f"{path} could not be written: {error}") from error


def column_comment(column: Column) -> str:
    """What the database says of a column: its description and unit."""
    text = column.description
    if column.name == "posterior":
        text = text.replace("empty where", "NULL where")
    return f"{text} [{column.unit}]" if column.unit else text


def _create(connection, name: str, file: Path, n_bins: int) -> None:
    schema = TABLES[name]
    columns = ", ".join(
        "CASE WHEN len(posterior) > 0 THEN posterior END::FLOAT[" + str(n_bins) + "] AS posterior"
        if c == "posterior" and n_bins > 0
        else c
        for c in (f'"{n}"' if n != "posterior" else n for n in schema.names)
    )
    connection.execute(
        f'CREATE TABLE "{name}" AS SELECT {columns} FROM read_parquet({_text(file)})'
    )
    connection.execute(f'COMMENT ON TABLE "{name}" IS {_text(schema.description)}')
    for column in schema.columns:
        comment = _text(column_comment(column))
        connection.execute(f'COMMENT ON COLUMN "{name}"."{column.name}" IS {comment}')


def _create_macro(
    connection, name: str, is_table: bool, parameters: str, comment: str, body: str
) -> None:
    kind = "TABLE" if is_table else ""
    connection.execute(f"CREATE MACRO {name}({parameters}) AS {kind} {body}")
    connection.execute(f"COMMENT ON MACRO {kind} {name} IS {_text(comment)}")


def _text(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
