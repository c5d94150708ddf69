"""A table as a source gives it, before anything is checked; and the sifting of bad rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import TABLES, Column
from cmass.errors import InputError
from cmass.tables import make_table

#: Bad rows are set aside up to this part of a table …
BAD_FRACTION_MAX = 0.01
#: … and in any case up to this many; more means that the file is wrong.
BAD_ROWS_MAX = 5


@dataclass
class SourceTable:
    """One table as read.

    Attributes
    ----------
    name : str
        Its table in the column dictionary.
    file : str
        Where it came from, for errors and provenance.
    columns : dict
        Arrow array by column name, one of each column of the table.
    unreadable : dict
        For each column the texts that are not numbers, by row.
    provenance : dict
        Producer, citation, licence, checksum and the like.
    """

    name: str
    file: str
    columns: dict[str, pa.Array]
    unreadable: dict[str, dict[int, str]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Rows of the source."""
        return len(next(iter(self.columns.values())))


def numbers(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, dict[int, str]]:
    """Numbers from texts: blanks and "null" become null, and so does what is not a number.

    Returns
    -------
    values : pa.Array of float64
    unreadable : dict
        The texts that are not numbers, by row.
    """
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.string()))
    blank = pc.is_in(trimmed, value_set=pa.array(["", "null", "NULL"]))
    trimmed = pc.if_else(blank, pa.scalar(None, pa.string()), trimmed)
    try:
        return trimmed.cast(pa.float64()), {}
    except pa.ArrowInvalid:
        pass  # some text is not a number: find out which
    values: list[float | None] = []
    unreadable = {}
    for row, text in enumerate(trimmed.to_pylist()):
        try:
            values.append(None if text is None else float(text))
        except ValueError:
            values.append(None)
            unreadable[row] = text
    return pa.array(values, pa.float64()), unreadable


def sift(source: SourceTable) -> tuple[pa.Table, pa.Table]:
    """Divide the rows of `source` into those that fit the column dictionary and those that do not.

    Returns
    -------
    good : pa.Table
        The table that the dictionary describes; rows in the order of the source.
    quarantine : pa.Table
        Table `quarantine`: each bad row with the first bad value and the reason.

    Raises
    ------
    InputError
        More than 1 % of the rows (and more than 5) are bad: not single slips, but the
        wrong file. For a footprint one is too many.
    """
    schema = TABLES[source.name]
    n = source.n_rows
    for column in schema.columns:
        values = source.columns[column.name]
        if column.nullable and pa.types.is_floating(values.type):
            # NaN is how FITS and pandas write a missing value.
            missing = pc.fill_null(pc.is_nan(values), False)
            source.columns[column.name] = pc.if_else(missing, None, values)
    reason: dict[int, tuple[str, str, str]] = {}  # row: column, value as text, words
    for column in schema.columns:
        values = source.columns[column.name]
        for row, text in source.unreadable.get(column.name, {}).items():
            reason.setdefault(row, (column.name, text, "not a number"))
        for words, mask in _faults(values, column):
            for index in np.flatnonzero(mask):
                value = values[int(index)].as_py()
                text = "" if value is None else str(value)
                reason.setdefault(int(index), (column.name, text, words))
    for row, first in _repeated(source, schema.key, reason).items():
        text = ", ".join(str(source.columns[k][row].as_py()) for k in schema.key)
        reason[row] = (", ".join(schema.key), text, f"the same as in row {first}: must be unique")
    # Without one of its caps a polygon grows: no row of a footprint can be spared.
    spared = 0 if source.name == "raw_footprint" else max(BAD_ROWS_MAX, BAD_FRACTION_MAX * n)
    if len(reason) > spared:
        row, (name, text, words) = min(reason.items())
        raise InputError(
            f"{len(reason)} of {n} rows of table {source.name} are bad; the first: {name} {words}",
            file=source.file, column=name, row=row, value=text or None,
            remedy="That means a wrong or damaged file: check it and its units",
        )  # fmt: skip
    bad = sorted(reason)
    keep = np.ones(n, bool)
    keep[bad] = False
    kept = {name: values.filter(pa.array(keep)) for name, values in source.columns.items()}
    records = [_record(source, row) for row in bad]
    quarantine = make_table(
        "quarantine",
        {
            "item": [source.name] * len(bad),
            "row_number": bad,
            "column_name": [reason[row][0] for row in bad],
            "value_text": [reason[row][1] for row in bad],
            "reason": [f"{reason[row][0]} {reason[row][2]}" for row in bad],
            "record": records,
        },
    )
    return make_table(source.name, kept), quarantine


def _faults(values: pa.Array, column: Column) -> list[tuple[str, np.ndarray]]:
    """What `column` forbids, each with a mask of the rows that have it."""
    faults = []
    if not column.nullable:
        faults.append(("missing", values.is_null().to_numpy(zero_copy_only=False)))
    kind = column.arrow_field().type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return faults
    # Integers stay integers: identifiers of 19 digits do not fit a float.
    x = pc.fill_null(values, 1).to_numpy(zero_copy_only=False)
    there = values.is_valid().to_numpy(zero_copy_only=False)
    if x.dtype.kind == "f":
        faults.append(("not finite", there & ~np.isfinite(x)))
        if pa.types.is_integer(kind):
            whole = np.isfinite(x) & (x == np.round(x)) & (np.abs(x) < 2.0**53)
            faults.append(("not a whole number", there & ~whole))
            if kind.bit_width < 64:
                fits = np.abs(x) < 2.0 ** (kind.bit_width - 1)
                faults.append(("too large", there & ~fits))
    if column.minimum is not None:
        low = x <= column.minimum if column.open_minimum else x < column.minimum
        sign = ">" if column.open_minimum else ">="
        faults.append((f"must be {sign} {column.minimum:g}", there & low))
    if column.maximum is not None:
        high = x >= column.maximum if column.open_maximum else x > column.maximum
        sign = "<" if column.open_maximum else "<="
        faults.append((f"must be {sign} {column.maximum:g}", there & high))
    return faults


def _repeated(
    source: SourceTable, key: Sequence[str], bad: Mapping[int, Any]
) -> dict[int, int]:  # fmt: skip
    """Rows whose key an earlier good row has, with that row."""
    if not key:
        return {}
    rows = np.setdiff1d(np.arange(source.n_rows), np.array(sorted(bad), np.int64))
    table = pa.table({k: source.columns[k].take(pa.array(rows)) for k in key})
    table = table.append_column("row", pa.array(rows))
    groups = table.group_by(list(key)).aggregate([("row", "min"), ("row", "count")])
    twice = groups.filter(pc.greater(groups["row_count"], 1))
    if not twice.num_rows:
        return {}
    joined = table.join(twice, keys=list(key), join_type="inner")
    pairs = zip(joined["row"].to_pylist(), joined["row_min"].to_pylist(), strict=True)
    return {row: first for row, first in sorted(pairs) if row != first}


def _record(source: SourceTable, row: int) -> str:
    values = {name: values[row].as_py() for name, values in source.columns.items()}
    values |= {name: texts[row] for name, texts in source.unreadable.items() if row in texts}
    return json.dumps(
        {
            k: v if v is None or isinstance(v, str | bool | int) else repr(v)
            for k, v in values.items()
        }
    )
