"""Large text tables, read in blocks of lines from any place in the file."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError

#: Bytes of one block: a few tens of thousands of hlist lines.
BLOCK_BYTES = 1 << 24
#: Most bytes of one line, and of all comment lines at the top: those of hlist tables are below 10 KB.
LINE_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where reading goes on.

    Attributes
    ----------
    row : int
        Row of data, from 0.
    position : int
        Byte in a text file; row in an HDF5 file.
    """

    row: int
    position: int


@dataclass
class Block:
    """Some rows of a table: columns by the name we use, and where the next ones begin."""

    columns: dict[str, NDArray]
    first_row: int
    end: Place


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz or .bz2."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path)  # type: ignore[return-value]
        return bz2.open(path) if path.suffix == ".bz2" else open(path, "rb")
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except OSError as error:
        raise InputError(f"not readable: {error.strerror}", file=path) from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of gzip, bzip2 and the disk as `InputError`."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"not readable: {error}", file=path, remedy="The file may be cut short or damaged"
        ) from error


def long_line(path: Path, row: int | None = None) -> InputError:
    """The error of a line without end."""
    return InputError(
        f"a line is longer than {LINE_MAX_BYTES} bytes", file=path, row=row,
        remedy="The file may be damaged, or no text table",
    )  # fmt: skip


def header_lines(path: Path, comment: str = "#") -> tuple[list[str], int]:
    """The comment lines at the top of a file and the byte after them."""
    lines, end = [], 0
    with open_bytes(path) as stream, readable(path):
        while raw := stream.readline(LINE_MAX_BYTES):
            if end + len(raw) > LINE_MAX_BYTES:
                raise long_line(path)
            line = raw.decode("utf-8", errors="replace")
            if line.strip() and not line.lstrip().startswith(comment):
                break
            lines.append(line.strip())
            end += len(raw)
    return [line for line in lines if line], end


def text_blocks(
    path: Path,
    names: list[str],
    wanted: dict[str, str],
    separator: str,
    start: Place,
    block_bytes: int | None = None,
) -> Iterator[Block]:
    """Read columns of a text table, block by block.

    Parameters
    ----------
    path : Path
        Text, or text packed by gzip or bzip2.
    names : list of str
        Every column of the file, in order.
    wanted : dict of str to str
        Our names of the columns to read, and the file's.
    separator : str
        ``","``, or ``r"\\s+"`` for blanks.
    start : Place
    block_bytes : int, optional
        `BLOCK_BYTES` by default.

    Raises
    ------
    InputError
        A value is no number, or a line has too few or too many values; with row and column.
    """
    with open_bytes(path) as stream:
        with readable(path):
            stream.seek(start.position)
        place, rest = start, b""
        while True:
            with readable(path):
                data = stream.read(block_bytes or BLOCK_BYTES)
            block = rest + data
            cut = len(block) if not data else block.rfind(b"\n") + 1
            rest = block[cut:]
            if len(rest) > LINE_MAX_BYTES:
                raise long_line(path, place.row)
            if cut:
                columns = _parse(path, block[:cut], names, wanted, separator, place.row)
                n = len(next(iter(columns.values())))
                end = Place(place.row + n, place.position + cut)
                yield Block(columns, place.row, end)
                place = end
            if not data:
                return


def _parse(
    path: Path, block: bytes, names: list[str], wanted: dict[str, str], separator: str, row: int
) -> dict[str, NDArray]:
    """Columns of one block of whole lines."""
    import pandas as pd

    if not block.strip():
        return {name: np.empty(0) for name in wanted}
    places = [names.index(column) for column in wanted.values()]
    try:
        # The last column is read too: it is missing where a line is too short.
        frame = pd.read_csv(
            io.BytesIO(block), sep=separator, header=None, names=list(range(len(names))),
            usecols=sorted({*places, len(names) - 1}), engine="c", index_col=False,
            low_memory=False, on_bad_lines="error",
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        raise InputError(
            f"a line does not have {len(names)} values: {error}", file=path,
            row=f"{row} or later", remedy="The file may be cut short or damaged",
        ) from error  # fmt: skip
    for place in (*places, len(names) - 1):
        values = frame[place]
        if values.dtype == object or values.dtype.kind not in "iuf":
            numbers = pd.to_numeric(values, errors="coerce")
            bad = np.flatnonzero(numbers.isna() & values.notna())
            if len(bad) and place in places:
                raise InputError(
                    "not a number", file=path, column=names[place], row=row + int(bad[0]),
                    value=values.iloc[int(bad[0])],
                    remedy="Mend or leave out that line (the first row of data is row 0)",
                )  # fmt: skip
            frame[place] = numbers
    return {name: frame[place].to_numpy() for name, place in zip(wanted, places, strict=True)}


def find_columns(
    path: Path, names: list[str], aliases: dict[str, tuple[str, ...]], remedy: str
) -> dict[str, str]:
    """The file's column for each of our names: the first alias that it has, in any case.

    Raises
    ------
    InputError
        There is none; the message lists what was looked for and what is there.
    """
    there = {name.lower(): name for name in reversed(names)}
    found = {}
    for ours, words in aliases.items():
        match = next((there[w.lower()] for w in words if w.lower() in there), None)
        if match is None:
            raise InputError(
                f"no column {' or '.join(words)}; it has {', '.join(names[:80])}", file=path,
                column=ours, remedy=remedy,
            )  # fmt: skip
        found[ours] = match
    return found
