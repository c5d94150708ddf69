"""SDSS spectroscopic galaxies: a mirror's Parquet file, and SkyServer's CSV answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from cmass.columns import TABLES
from cmass.errors import InputError
from cmass.ingest.footprint import Footprint
from cmass.ingest.source_table import SourceTable, numbers
from cmass.limits import check_parquet

CITATION = (
    "Abdurro'uf, Accetta K., Aerts C., et al. 2022, ApJS 259, 35 (SDSS DR17); "
    "York D. G., et al. 2000, AJ 120, 1579"
)
#: programname of plates beyond the main survey on Stripe 82.
_STRIPE82_PROGRAMME = "southern"
#: The equatorial stripe of the southern cap, deg: right ascensions from and to, largest |dec|.
STRIPE82_DEG = (308.0, 60.0, 1.30)
#: Most that a mirror's galaxies may take in memory, bytes: those of SDSS take 0.3 GB with all columns.
_MIRROR_MAX_BYTES = 8_000_000_000
_CSV_NAMES = ("galaxy_id", "ra", "dec", "z", "z_err", "r_mag", "programname")
_DIGITS = re.compile(r"[0-9]{1,40}")
_INT64_MAX = np.iinfo(np.int64).max


def read_mirror(path: Path) -> SourceTable:
    """Read a mirror's Parquet file; `galaxy_id` is the row's number in the file, from 0.

    Columns ra, dec, z are needed; z_err, r_mag, in_legacy, s82 are missing values where
    the file lacks them. The file's other columns stay in the file.

    Raises
    ------
    InputError
        The file is missing, damaged, empty, or lacks a column.
    """
    names = TABLES["raw_galaxies"].names[1:]
    try:
        parquet = pq.ParquetFile(path, memory_map=True)
        check_parquet(parquet, path, _MIRROR_MAX_BYTES)
        there = [n for n in names if n in parquet.schema_arrow.names]
        lacking = [n for n in ("ra", "dec", "z") if n not in there]
        if lacking:
            raise InputError(
                "the galaxy table lacks columns", file=path, column=", ".join(lacking),
                remedy=f"Found {', '.join(parquet.schema_arrow.names)}",
            )  # fmt: skip
        table = parquet.read(columns=there)
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except InputError:
        raise
    except Exception as error:  # of Arrow, of the disk, or of the words in a damaged schema
        raise InputError(
            f"not a readable Parquet file: {error}", file=path,
            remedy="It may be cut short; copy it to the mirror again",
        ) from error  # fmt: skip
    if not table.num_rows:
        raise InputError("the galaxy table has no rows", file=path)
    columns: dict[str, pa.Array] = {"galaxy_id": pa.array(np.arange(table.num_rows))}
    for column in TABLES["raw_galaxies"].columns[1:]:
        kind = column.arrow_field().type
        if column.name not in there:
            columns[column.name] = pa.nulls(table.num_rows, kind)
            continue
        values = table[column.name].combine_chunks()
        try:
            columns[column.name] = values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"expected type {kind}, found {values.type}: {error}", file=path,
                column=column.name,
            ) from error  # fmt: skip
    return SourceTable("raw_galaxies", str(path), columns)


def condition(ra_from: float, ra_to: float, z_max: float) -> str:
    """SQL condition of one chunk: `ra_from` ≤ ra < `ra_to` (deg), 0 < z ≤ `z_max`."""
    return (
        f"s.class = 'GALAXY' AND s.zWarning = 0 AND s.z > 0 AND s.z <= {z_max!r} "
        f"AND s.ra >= {ra_from!r} AND s.ra < {ra_to!r}"
    )


def count_query(where: str) -> str:
    """SQL that counts the rows of a chunk."""
    return f"SELECT COUNT(*) AS n FROM SpecObj AS s WHERE {where}"


def data_query(where: str) -> str:
    """SQL that asks for the rows of a chunk.

    r is the Petrosian magnitude, corrected for extinction; missing where photometry
    failed. SpecObj holds each object once (sciencePrimary).
    """
    return (
        "SELECT s.specObjID AS galaxy_id, s.ra, s.dec, s.z, s.zErr AS z_err, "
        "CASE WHEN p.petroMag_r BETWEEN 0 AND 40 THEN p.petroMag_r - p.extinction_r END AS r_mag, "
        "s.programname FROM SpecObj AS s LEFT JOIN PhotoObjAll AS p ON p.objID = s.bestObjID "
        f"WHERE {where} ORDER BY s.specObjID"
    )


def read_csv(path: Path) -> pa.Table:
    """Read one CSV answer of SkyServer as text columns.

    The first line may be ``#Table1``; then come the names, then the rows.

    Raises
    ------
    InputError
        No table in the file, a line of the wrong length, or the last line has no end.
    """
    data = path.read_bytes()
    if data.startswith(b"#"):
        data = data.partition(b"\n")[2]
    if not data.endswith(b"\n"):
        raise InputError("the last line has no end: the answer is cut short", file=path)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not a CSV answer of SkyServer: {error}", file=path) from error
    names = [name.strip().strip('"') for name in data.partition(b"\n")[0].decode().split(",")]
    types = dict.fromkeys(names, pa.string())
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise InputError(f"not a CSV answer of SkyServer: {error}", file=path) from error
    # A column whose name we read otherwise has types guessed, and 19 digits do not survive that.
    guessed = [f.name for f in table.schema if not pa.types.is_string(f.type)]
    if guessed:
        raise InputError(
            "not a CSV answer of SkyServer: names are not read", file=path, column=guessed[0]
        )
    return table


def read_chunk(path: Path) -> pa.Table:
    """Read the rows of one chunk, with the columns of `data_query`."""
    table = read_csv(path)
    lacking = [name for name in _CSV_NAMES if name not in table.column_names]
    if lacking:
        raise InputError(
            "the answer lacks columns", file=path, column=", ".join(lacking),
            remedy=f"Found {', '.join(table.column_names)[:200]}",
        )  # fmt: skip
    return table.select(_CSV_NAMES)


def read_count(path: Path) -> int:
    """Read the answer to `count_query`."""
    table = read_csv(path)
    if table.num_rows != 1 or "n" not in table.column_names:
        raise InputError("expected one number named n", file=path)
    text = table["n"][0].as_py().strip()
    if not _DIGITS.fullmatch(text):
        raise InputError("expected a count", file=path, value=text)
    return int(text)


def assemble(chunks: Iterator[pa.Table], footprint: Footprint, source: str) -> SourceTable:
    """Join the chunks of SkyServer to one table.

    `galaxy_id` is specObjID. `in_legacy` says whether the footprint holds the galaxy;
    `s82` whether its plate belongs to the southern programme or it lies in the
    equatorial stripe of the southern cap, which that programme made deeper.

    Raises
    ------
    InputError
        An identifier does not fit 64 bits with sign.
    """
    table = pa.concat_tables(chunks)
    columns: dict[str, pa.Array] = {}
    unreadable: dict[str, dict[int, str]] = {}
    columns["galaxy_id"], bad = _identifiers(table["galaxy_id"], source)
    if bad:
        unreadable["galaxy_id"] = bad
    for name in ("ra", "dec", "z", "z_err", "r_mag"):
        columns[name], bad = numbers(table[name])
        if bad:
            unreadable[name] = bad
    ra = pc.fill_null(columns["ra"], np.nan).to_numpy(zero_copy_only=False)
    dec = pc.fill_null(columns["dec"], np.nan).to_numpy(zero_copy_only=False)
    known = np.isfinite(ra) & np.isfinite(dec)
    inside = np.zeros(len(ra), bool)
    inside[known] = footprint.contains(ra[known], dec[known])
    first, last, dec_max = STRIPE82_DEG
    stripe = ((ra >= first) | (ra <= last)) & (np.abs(dec) <= dec_max)
    programme = pc.utf8_lower(pc.utf8_trim_whitespace(table["programname"].combine_chunks()))
    southern = pc.equal(programme, _STRIPE82_PROGRAMME).to_numpy(zero_copy_only=False)
    columns["in_legacy"] = pa.array(inside, mask=~known)
    columns["s82"] = pa.array(stripe | southern, mask=~known)
    return SourceTable("raw_galaxies", source, columns, unreadable)


def _identifiers(texts: pa.ChunkedArray, source: str) -> tuple[pa.Array, dict[int, str]]:
    """specObjID as int64, exactly: a float would round its 19 digits."""
    try:
        return pc.utf8_trim_whitespace(texts.combine_chunks()).cast(pa.int64()), {}
    except pa.ArrowInvalid:
        pass  # one does not fit or is no integer: find out which
    values: list[int | None] = []
    unreadable = {}
    for row, text in enumerate(texts.to_pylist()):
        digits = (text or "").strip()
        if not _DIGITS.fullmatch(digits):
            values.append(None)
            unreadable[row] = digits
            continue
        if int(digits) > _INT64_MAX:
            raise InputError(
                "specObjID does not fit 64 bits with sign", file=source, column="galaxy_id",
                row=row, value=digits,
                remedy="This data release numbers its spectra beyond 2^63; use another "
                "(ingest.network.skyserver_url)",
            )  # fmt: skip
        values.append(int(digits))
    return pa.array(values, pa.int64()), unreadable
