"""Tables that people hand in and take away: Parquet, CSV, ECSV, FITS, VOTable, by suffix.

Inside, a table is an Arrow table whose fields carry unit, UCD and description in their
metadata, as the column dictionary writes them.
"""

from __future__ import annotations

import codecs
import difflib
import io
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass import limits
from cmass.errors import InputError
from cmass.tables import atomic_path

if TYPE_CHECKING:
    from astropy.io.fits import BinTableHDU
    from astropy.table import Column, Table
    from pyarrow import csv

_log = logging.getLogger(__name__)

#: Suffixes by format; `.gz` may follow those of text and FITS when reading.
SUFFIXES = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ecsv": "ecsv", ".fits": "fits",
    ".fit": "fits", ".vot": "votable", ".votable": "votable", ".xml": "votable",
    ".tsv": "csv",
}  # fmt: skip

#: What may stand between the fields of a CSV file, and bytes that are looked at to find out.
_DELIMITERS, _CSV_START = (",", ";", "\t", "|"), 65536

_ASTROPY = {"ecsv": "ascii.ecsv", "fits": "fits", "votable": "votable"}


def plain(name: str) -> str:
    """A column's name without what people write differently: lower case, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def format_of(path: Path | str) -> str:
    """Format that a file's suffix names.

    Raises
    ------
    InputError
        The suffix is not known.
    """
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    kind = SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise InputError(
            "the suffix names no format that is known" if suffixes else "the name has no suffix that "
            "says the format", file=path,
            remedy=f"Use one of {' '.join(SUFFIXES)}; text in columns is .csv",
        )  # fmt: skip
    return kind


#: What files begin with, and how that is called; formats that are read by their own names.
_BEGINNINGS = {
    b"PAR1": "parquet", b"SIMPLE  =": "fits", b"# %ECSV": "ecsv", b"<?xml": "votable",
    b"<VOTABLE": "votable", b"<!DOCTYPE": "a web page", b"<html": "a web page", b"\x89HDF": "HDF5",
    b"PK\x03\x04": "a spreadsheet or zip file", b"%PDF": "PDF",
}  # fmt: skip


def _check_kind(path: Path, kind: str) -> None:
    """Raise where a file begins as one that its suffix does not say."""
    try:
        with pa.input_stream(path, compression="detect") as stream:
            start = stream.read(200).lstrip()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"not readable as {kind}: {error}", file=path) from error
    found = next((name for begin, name in _BEGINNINGS.items() if start.startswith(begin)), "")
    if not found and kind in ("parquet", "fits", "votable") and start.isascii():
        found = "csv"
    # The header of ECSV is comments, so that it may be read as CSV.
    if not found or found == kind or (found, kind) == ("ecsv", "csv"):
        return
    suffix = next((end for end, name in SUFFIXES.items() if name == found), None)
    raise InputError(
        f"not readable as {kind}: it is {'text' if found == 'csv' else found}", file=path,
        remedy=f"Rename it to {path.stem}{suffix}" if suffix else "Give a table in one of "
        f"{' '.join(SUFFIXES)}",
    )  # fmt: skip


def read(
    path: Path | str,
    columns: Mapping[str, str] | None = None,
    text: Sequence[str] = ("cluster_id",),
) -> pa.Table:
    """Read a table by its suffix.

    Parameters
    ----------
    path : path
    columns : mapping of str to str, optional
        Our name to the file's name of a column (``{"ra": "RAJ2000"}``).
    text : sequence of str
        Names, as `plain` has them, of columns that are text in CSV even if they look like numbers
        (identifiers keep their leading zeros).

    Returns
    -------
    pyarrow.Table
        Fields carry the file's unit, UCD and description in their metadata.

    Raises
    ------
    InputError
        No such file, an unknown suffix, a damaged file, or a column of `columns` that
        is not there.
    """
    path = Path(path)
    kind = format_of(path)
    if not path.is_file():
        close = difflib.get_close_matches(path.name, _names_beside(path), 1)
        raise InputError(
            "there is no such file", file=path,
            remedy=f"There is {path.with_name(close[0])}" if close else None,
        )  # fmt: skip
    if path.stat().st_size == 0:
        raise InputError("the file is empty", file=path)
    limits.check_unpacked_size(path)
    _check_kind(path, kind)
    if kind == "votable":
        limits.check_votable(path)
    try:
        if kind == "parquet":
            table = _read_parquet(path)
        elif kind == "csv":
            table = _read_csv(path, text)
        else:
            from astropy.table import Table

            with warnings.catch_warnings():
                # Files of others often break small rules of VOTable and FITS units.
                warnings.simplefilter("ignore")
                table = from_astropy(Table.read(path, format=_ASTROPY[kind]))
    except (MemoryError, InputError):
        raise
    except Exception as error:  # every reader has errors of its own
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"not readable as {kind}: {reason}", file=path,
            remedy="Is it complete, and does its suffix say what it is?",
        ) from error  # fmt: skip
    return rename(table, columns or {}, path)


def _names_beside(path: Path) -> list[str]:
    """Names of the files in the folder of `path`."""
    return [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as parquet:
        limits.check_parquet(parquet, path)
        texts = limits.text_columns(parquet.schema_arrow)
    with pq.ParquetFile(path, read_dictionary=texts) as parquet:
        return limits.spelled_out(limits.read_parquet(parquet, path), path)


def _read_csv(path: Path, text: Sequence[str]) -> pa.Table:
    """A CSV file, without lines of ``#`` wherever they stand."""
    from pyarrow import csv

    encoding = _csv_encoding(path)
    how, parse, names = _csv_dialect(path, encoding)
    refused: list[csv.InvalidRow] = []

    def judge(row: csv.InvalidRow) -> str:
        if row.text.lstrip().startswith("#"):
            return "skip"
        refused.append(row)
        return "error"

    parse.invalid_row_handler = judge
    # Names and texts as they stand in the file, with the blanks around them.
    wanted = {plain(name) for name in text}
    texts = [name for name in names if plain(name) in wanted]
    convert = csv.ConvertOptions(
        strings_can_be_null=True, column_types=dict.fromkeys(texts, pa.string())
    )
    try:
        table = csv.read_csv(path, how, parse, convert)
    except pa.ArrowInvalid as error:
        if not refused:
            raise
        row = refused[0]
        raise InputError(
            f"line {_line_of(path, row.text, encoding)} has {row.actual_columns} fields, the header "
            f"{row.expected_columns}", file=path, value=row.text[:80],
            remedy="Complete the line, take it out, or begin it with # if it is a comment",
        ) from error  # fmt: skip
    return _without_blanks(table)


def _csv_encoding(path: Path) -> str:
    """``utf-8``, or ``latin-1`` for a file that is not: any bytes are that."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with pa.input_stream(path, compression="detect") as stream:
            while block := stream.read(1 << 20):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        _log.warning("%s is not UTF-8 (%s): read as Latin-1", path, error.reason)
        return "latin-1"
    return "utf-8"


def _line_of(path: Path, text: str, encoding: str) -> int:
    """Number, from 1, of the first line of a file that reads so."""
    with pa.input_stream(path, compression="detect") as stream:
        lines = io.TextIOWrapper(stream, encoding, errors="replace")
        return next((n for n, line in enumerate(lines, 1) if line.rstrip("\r\n") == text), 0)


def _csv_dialect(path: Path, encoding: str) -> tuple[csv.ReadOptions, csv.ParseOptions, list[str]]:
    """How a CSV file is to be read: what comes before the header, what stands between fields, names.

    The delimiter is the one of comma, semicolon, tab and bar that the header has most of. Where the
    first line without ``#`` holds a number it is no header, and the line before it is
    (``numpy.savetxt`` writes it so).
    """
    from pyarrow import csv

    with pa.input_stream(path, compression="detect") as stream:
        raw = stream.read(_CSV_START).removeprefix(codecs.BOM_UTF8)
    start = raw.decode(encoding, "replace")
    lines = start.splitlines()
    above = next((i for i, line in enumerate(lines) if _is_told(line)), len(lines))
    first = lines[above] if above < len(lines) else ""
    delimiter = max(_DELIMITERS, key=first.count)
    # As the reader names columns: quotes are none behind a blank.
    fields = [f[1:-1] if f[:1] == f[-1:] == '"' else f for f in first.split(delimiter)]
    last = next((line for line in lines[:above][::-1] if line.strip()), "")
    names = [name.strip(' "') for name in last.lstrip("#").split(delimiter)]
    headed = len(names) == len(fields) and any(map(_is_number, fields))
    how = csv.ReadOptions(
        skip_rows=above, column_names=names if headed else None,
        encoding="utf8" if encoding == "utf-8" else encoding,
    )  # fmt: skip
    return how, csv.ParseOptions(delimiter=delimiter), names if headed else fields


def _is_told(line: str) -> bool:
    """A line of a CSV file that is neither empty nor a comment."""
    return bool(line.strip()) and not line.startswith("#")


def _without_blanks(table: pa.Table) -> pa.Table:
    """The table without the blanks around names and texts that people write for the eye."""
    columns = [
        pc.utf8_trim_whitespace(column) if pa.types.is_string(column.type) else column
        for column in table.columns
    ]
    names = [name.strip(' "') for name in table.column_names]
    return pa.Table.from_arrays(columns, names)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def rename(table: pa.Table, columns: Mapping[str, str], file: Path | str | None = None) -> pa.Table:
    """Give columns our names; a column of ours that is displaced is dropped.

    Raises
    ------
    InputError
        A column that is asked for is not there.
    """
    for ours, theirs in columns.items():
        if theirs == ours:
            continue
        if theirs not in table.column_names:
            raise InputError(
                f"there is no column {theirs!r} to be used as {ours}", file=file, column=theirs,
                remedy=f"The columns are {', '.join(table.column_names)}",
            )  # fmt: skip
        if ours in table.column_names:
            table = table.drop_columns([ours])
        table = table.rename_columns([ours if n == theirs else n for n in table.column_names])
    return table


def write(path: Path | str, table: pa.Table) -> None:
    """Write a table by the path's suffix, in one piece.

    Unit, UCD and description of each column go along where the format has room: all in
    Parquet and VOTable, unit and description in ECSV and FITS, none in CSV. A column of
    lists becomes an array column padded with NaN in FITS, VOTable and ECSV, and text of
    numbers separated by spaces in CSV.

    Raises
    ------
    InputError
        The suffix is not known.
    """
    path = Path(path)
    kind = format_of(path)
    if path.suffix.lower() == ".gz":
        raise InputError("compressed files are read, not written", file=path)
    with atomic_path(path) as temporary:
        if kind == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, temporary, compression="zstd")
        elif kind == "csv":
            from pyarrow import csv

            csv.write_csv(_flat(table), temporary)
        else:
            converted = to_astropy(table)
            with warnings.catch_warnings():
                # FITS and VOTable know no unit "Msun/h"; it is written as it is.
                warnings.simplefilter("ignore")
                if kind == "fits":
                    from astropy.io import fits

                    hdus = [fits.PrimaryHDU(), fits_hdu(converted)]
                    fits.HDUList(hdus).writeto(temporary, overwrite=True)
                else:
                    converted.write(temporary, format=_ASTROPY[kind], overwrite=True)


def _flat(table: pa.Table) -> pa.Table:
    """`table` with lists as text, for CSV."""
    for number, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = table.column(number).to_pylist()
            text = [None if x is None else " ".join(f"{v:.6g}" for v in x) for x in lists]
            table = table.set_column(number, field.name, pa.array(text, pa.string()))
    return table


def fits_hdu(table: Table) -> BinTableHDU:
    """Binary table of FITS, of a table by `to_astropy`: unit, UCD and description in its header."""
    from astropy.io import fits

    plain = table.copy(copy_data=False)
    for name in table.colnames:
        if table[name].dtype.kind == "U":
            # astropy writes ASCII alone; as UTF-8 bytes any name gets through.
            plain[name] = np.char.encode(np.ma.getdata(table[name]).astype(str), "utf-8")
    hdu = fits.table_to_hdu(plain)
    for number, name in enumerate(table.colnames, start=1):
        ucd = table[name].meta.get("ucd", "")
        hdu.header[f"TUCD{number}"] = (ucd, "UCD")
        if table[name].description:
            # astropy keeps descriptions out of FITS headers; TCOMM is what TOPCAT reads.
            hdu.header[f"TCOMM{number}"] = table[name].description
        unit = table[name].meta.get("unit", "")
        if unit:
            hdu.header[f"TUNIT{number}"] = unit
    hdu.header["LONGSTRN"] = ("OGIP 1.0", "long texts go on in CONTINUE")
    return hdu


def _metadata(field: pa.Field) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}


def to_astropy(table: pa.Table) -> Table:
    """Convert an Arrow table; missing values are masked, lists become padded arrays."""
    from astropy.table import MaskedColumn
    from astropy.table import Table as AstropyTable

    out = AstropyTable()
    for field, values in zip(table.schema, table.columns, strict=True):
        meta = _metadata(field)
        column: Column = MaskedColumn(
            **_masked(field, values), name=field.name, description=meta.get("description")
        )
        if unit := meta.get("unit"):
            column.unit = _unit(unit)
            column.meta["unit"] = unit
        if ucd := meta.get("ucd"):
            column.meta["ucd"] = ucd
        out[field.name] = column
    return out


def _unit(text: str) -> Any:
    """An astropy unit; units it does not know (Msun/h) keep their name."""
    from astropy import units

    return units.Unit(text, parse_strict="silent")


def _masked(field: pa.Field, values: pa.ChunkedArray) -> dict[str, Any]:
    """Data and mask of a MaskedColumn."""
    kind = field.type
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
        data = np.full((len(lengths), max(lengths.max(initial=0), 1)), np.nan, np.float32)
        data[np.arange(data.shape[1]) < lengths[:, None]] = pc.list_flatten(values).to_numpy()
        return {"data": data, "mask": np.isnan(data)}
    missing = values.is_null().to_numpy()
    if pa.types.is_floating(kind):
        data = values.to_numpy()
        return {"data": data, "mask": missing | np.isnan(data)}
    if pa.types.is_boolean(kind):
        return {"data": values.fill_null(False).to_numpy(), "mask": missing}
    if pa.types.is_integer(kind):
        return {"data": values.fill_null(0).to_numpy(), "mask": missing}
    text = [x if isinstance(x, str) else "" if x is None else str(x) for x in values.to_pylist()]
    return {"data": np.array(text, dtype=str), "mask": missing}


def from_astropy(table: Table) -> pa.Table:
    """Convert an astropy Table; masked values become missing, arrays become lists."""
    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        data = np.ma.getdata(np.ma.asarray(column))
        mask = np.ma.getmaskarray(np.ma.asarray(column))
        if data.ndim > 1:
            # Padding (NaN, masked) at the end of a row is not part of the list.
            good = ~(mask | ~np.isfinite(data)).reshape(len(data), -1)
            rows = [r[g].tolist() for r, g in zip(data.reshape(len(data), -1), good, strict=True)]
            array = pa.array(rows, pa.list_(pa.float32()))
        elif data.dtype.kind in "SUO":
            text = [None if x is None else _text(x) for x in data.tolist()]
            array = pa.array(text, pa.string(), mask=mask)
        else:
            native = data.astype(data.dtype.newbyteorder("="))
            array = pa.array(np.ascontiguousarray(native), mask=mask)
        meta = {
            "unit": str(getattr(column, "unit", None) or ""),
            "ucd": str(column.info.meta.get("ucd", "") if column.info.meta else ""),
            "description": str(column.info.description or ""),
        }
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=meta))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def as_arrow(table: Any) -> pa.Table:
    """Arrow table of an Arrow or astropy table.

    Raises
    ------
    InputError
        It is neither.
    """
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "colnames") and hasattr(table, "info"):
        return from_astropy(table)
    raise InputError(
        f"a table of type {type(table).__name__} is not known",
        remedy="Give an astropy Table or a pyarrow Table; cmass.formats.read reads files",
    )
