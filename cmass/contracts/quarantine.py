"""Foreign rows that break the column dictionary: set aside one by one, with the reason.

No row is lost: those that came are those kept and those set aside. Few bad rows are slips of a
catalogue and end no run; many mean the wrong file, and are an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import TABLES, Column
from cmass.errors import InputError
from cmass.ingest.source_table import SourceTable
from cmass.params import QuarantineParams
from cmass.tables import make_table

#: Limits for tables of our own making: one bad row is a fault of cmass.
NO_BAD_ROW = QuarantineParams(max_fraction=0, max_rows=0)


def sift(
    source: SourceTable, limits: QuarantineParams | None = None
) -> tuple[pa.Table, pa.Table]:  # fmt: skip
    """Divide the rows of `source` into those that fit the column dictionary and those that do not.

    Parameters
    ----------
    source : SourceTable
    limits : QuarantineParams, optional
        How many rows may be bad; by default the values of the package.

    Returns
    -------
    good : pa.Table
        The table that the dictionary describes; rows in the order of the source.
    quarantine : pa.Table
        Table `quarantine`: each bad row with the first bad value and the reason.

    Raises
    ------
    InputError
        More than `limits.max_fraction` of the rows, and more than `limits.max_rows`, are bad: not
        single slips, but the wrong file. For a footprint one is too many.
    """
    limits = QuarantineParams() if limits is None else limits
    schema = TABLES[source.name]
    n = source.n_rows
    for column in schema.columns:
        values = source.columns[column.name]
        if column.nullable and pa.types.is_floating(values.type):
            # NaN is how FITS and pandas write a missing value.
            missing = pc.fill_null(pc.is_nan(values), False)
            source.columns[column.name] = pc.if_else(missing, None, values)
    # row: column, value as text, words
    reason = {row: ("", line, words) for row, (line, words) in source.broken.items()}
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
    spared = max(limits.max_rows, limits.max_fraction * n)
    if len(reason) > (0 if source.name == "raw_footprint" else spared):
        row, (name, text, words) = min(reason.items())
        raise InputError(
            f"{len(reason)} of {n} rows of table {source.name} are bad; the first: {name} {words}",
            file=source.file, column=name or None, row=row, value=text[:200] or None,
            remedy="That means a wrong or damaged file: check it and its units. Single rows are set "
            f"aside, up to {limits.max_fraction:.2%} of a table or {limits.max_rows} "
            "(contracts.quarantine in params.yaml)",
        )  # fmt: skip
    bad = sorted(reason)
    keep = np.ones(n, bool)
    keep[bad] = False
    kept = {name: values.filter(pa.array(keep)) for name, values in source.columns.items()}
    quarantine = make_table(
        "quarantine",
        {
            "item": [source.name] * len(bad),
            "row_number": bad,
            "key_text": [_key(source, schema.key, row) for row in bad],
            "column_name": [reason[row][0] for row in bad],
            "value_text": [reason[row][1] for row in bad],
            "reason": [f"{reason[row][0]} {reason[row][2]}".strip() for row in bad],
            "source_file": [_name(source.file)] * len(bad),
            "record": [_record(source, row) for row in bad],
        },
    )
    return make_table(source.name, kept), quarantine


def _name(file: str) -> str:
    """The address of a download, the name of a file: the folder of a mirror is another's."""
    return file if "://" in file else Path(file).name


def _key(source: SourceTable, key: Sequence[str], row: int) -> str:
    parts = [
        source.unreadable.get(name, {}).get(row) or source.columns[name][row].as_py()
        for name in key
    ]
    return ", ".join("" if part is None else str(part) for part in parts)


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
    if row in source.broken:
        return json.dumps({"line": source.broken[row][0]})
    values = {name: values[row].as_py() for name, values in source.columns.items()}
    values |= {name: texts[row] for name, texts in source.unreadable.items() if row in texts}
    return json.dumps(
        {
            k: v if v is None or isinstance(v, str | bool | int) else repr(v)
            for k, v in values.items()
        }
    )
