"""Catalogues in the formats that VizieR serves: texts by column name, and their names.

Tab- and comma-separated text, VOTable and FITS. Case matters in VizieR's names: ``e_M500``
is the lower and ``E_M500`` the upper error.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmass.errors import InputError

#: Texts of one column, row by row.
Texts = Sequence[str]
ASTROPY_SUFFIXES = (".vot", ".votable", ".xml", ".fits", ".fit")


@dataclass(frozen=True)
class TextTable:
    """A catalogue as texts.

    Attributes
    ----------
    columns : dict
        Texts by column name, all of one length.
    broken : dict
        Lines of another number of fields, by row: the line and what is wrong with it. In `columns`
        these rows are blank.
    """

    columns: dict[str, Texts]
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)


def read_text(path: Path, remedy: str) -> str:
    """The text of a file; a missing, empty or binary one is an `InputError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not a text file: {error}", file=path, remedy=remedy) from error
    if not text.strip():
        raise InputError("the file is empty", file=path, remedy=remedy)
    return text


def tsv_columns(path: Path, remedy: str) -> TextTable:
    """Columns of VizieR's tab-separated text: comments, names, units, dashes, rows, ``#END#``.

    Raises
    ------
    InputError
        The file is missing, empty, cut short, or holds a refusal of the server.
    """
    lines = read_text(path, remedy).splitlines()
    for line in lines:
        if line.startswith(("#***", "#+++", "#INFO\tError", "#INFO\tQUERY_STATUS=ERROR")):
            raise InputError(f"VizieR says: {line.strip('#*+ ')}", file=path, remedy=remedy)
    if not any(line.startswith("#END#") for line in lines):
        raise InputError(
            "the file has no #END# line: it is cut short", file=path, row=len(lines) - 1,
            remedy=remedy,
        )  # fmt: skip
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    dashes = [i for i, row in enumerate(rows) if all(set(p.strip()) <= {"-"} for p in row)]
    if not dashes or dashes[0] not in (1, 2):
        raise InputError("no table with names and dashes in the file", file=path, remedy=remedy)
    names = [name.strip() for name in rows[0]]
    return by_name(path, names, rows[dashes[0] + 1 :], remedy)


def csv_columns(path: Path, remedy: str) -> TextTable:
    """Columns of comma-separated text with names in the first line.

    Raises
    ------
    InputError
        The file is missing, empty or cut short.
    """
    text = read_text(path, remedy)
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise InputError(f"not readable as CSV: {error}", file=path, remedy=remedy) from error
    names = [name.strip() for name in rows[0]]
    if not text.endswith("\n"):
        raise InputError(
            "the last line has no end: the file may be cut short", file=path, row=len(rows) - 2,
            remedy="Fetch it again, or add the newline if it is whole",
        )  # fmt: skip
    return by_name(path, names, [row for row in rows[1:] if row], remedy)


def astropy_columns(path: Path, remedy: str) -> TextTable:
    """Columns of a VOTable or FITS table, as the shortest texts that give the values back.

    Raises
    ------
    InputError
        The file is missing, empty or damaged.
    """
    from astropy.table import Table

    from cmass import limits

    fits = path.suffix.lower() in (".fits", ".fit")
    if not path.exists():
        raise InputError("no such file", file=path)
    limits.check_unpacked_size(path)
    if not fits:
        limits.check_votable(path)
    try:
        kwargs: dict[str, Any] = {"hdu": 1} if fits else {"table_id": 0}
        table = Table.read(path, format="fits" if fits else "votable", **kwargs)
    except MemoryError:
        raise
    except Exception as error:  # every reader has errors of its own
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"not readable: {reason}", file=path, remedy=remedy) from error
    if not len(table):
        raise InputError("the table has no rows", file=path, remedy=remedy)
    columns: dict[str, Texts] = {}
    for name in table.colnames:
        column = table[name]
        mask = np.ma.getmaskarray(np.ma.asarray(column))
        columns[name] = [
            "" if gone else _shortest(value) for value, gone in zip(column, mask, strict=True)
        ]
    return TextTable(columns)


def pick(
    path: Path, table: TextTable, names: Mapping[str, Sequence[str]],
    optional: Sequence[str] = (),
) -> TextTable:  # fmt: skip
    """For each of our columns the file's, under the first of its `names` that is there.

    Parameters
    ----------
    path : Path
        For the error.
    table : TextTable
    names : mapping
        What VizieR and others call each of our columns; the first is tried first.
    optional : sequence of str
        Columns of ours that may be missing: they get blanks.

    Raises
    ------
    InputError
        A column is missing.
    """
    columns = table.columns
    picked: dict[str, Texts] = {}
    missing = []
    for own, theirs in names.items():
        found = [name for name in theirs if name in columns]
        if found:
            picked[own] = columns[found[0]]
        elif own in optional:
            picked[own] = [""] * len(next(iter(columns.values())))
        else:
            missing.append(theirs[0])
    if missing:
        raise InputError(
            "the catalogue lacks columns", file=path, column=", ".join(missing),
            remedy=f"Found {', '.join(columns)}; ask VizieR for all columns (-out.all)",
        )  # fmt: skip
    return TextTable(picked, table.broken)


def by_name(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], remedy: str,
    separator: str = "\t",
) -> TextTable:  # fmt: skip
    """Columns of rows of fields. A row of another length is broken; most of them, and it is another table.

    Raises
    ------
    InputError
        There is no row, or over half of them have another number of fields than there are `names`.
    """
    if not rows:
        raise InputError("the table has no rows", file=path, remedy=remedy)
    wrong = [row for row, parts in enumerate(rows) if len(parts) != len(names)]
    words = {row: f"{len(rows[row])} fields instead of {len(names)}" for row in wrong}
    if 2 * len(wrong) > len(rows):
        raise InputError(
            words[wrong[0]], file=path, row=wrong[0], value=separator.join(rows[wrong[0]])[:60],
            remedy=remedy,
        )  # fmt: skip
    blank = [""] * len(names)
    whole = [blank if row in words else parts for row, parts in enumerate(rows)]
    broken = {row: (separator.join(rows[row]), words[row]) for row in wrong}
    return TextTable(dict(zip(names, zip(*whole, strict=True), strict=True)), broken)


def _shortest(value: Any) -> str:
    """Shortest text that gives `value` back in its own precision."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    return "" if text == "nan" else text
