"""Great Expectations suites, made from the column dictionary.

Tables of few rows are checked row by row. Of large ones Arrow first takes what the dictionary speaks
of (missing and non-finite values, least and largest value, repeated keys), batch by batch: every row
counts, and memory stays that of one batch. Counts and statistics are tables of numbers with limits.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cmass.columns import TABLES, Column, TableSchema
from cmass.errors import InputError

#: Tables of more rows are condensed to one row a batch.
ROWS_AT_ONCE = 50_000
#: Rows of a batch.
BATCH = 1 << 17
_FLOAT_MAX = sys.float_info.max
#: Standard deviations that chance is granted: one number in a thousand is farther.
CHANCE_SIGMA = 3.3
#: pandas types that hold each Arrow type with missing values, and their names for it.
_PANDAS = {
    "string": "str", "bool": "bool", "int8": "int8", "int16": "int16", "int32": "int32",
    "int64": "int64", "float32": "float32", "float64": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """A number with the range that it is expected in, both ends included.

    Attributes
    ----------
    name : str
        Name of the number, unique in its check.
    value : float or None
        None: the number could not be had, which meets no limit.
    minimum, maximum : float, optional
    """

    name: str
    value: float | None
    minimum: float | None = None
    maximum: float | None = None


def part_limit(name: str, part: float | None, n: int, largest: float) -> Limit:
    """Limit of a part of `n` things: `largest`, and what chance makes of so few."""
    chance = CHANCE_SIGMA * math.sqrt(largest * (1 - largest) / n) if n else 0.0
    return Limit(name, part, 0, round(min(1.0, largest + chance), 4))


@dataclass(frozen=True)
class Check:
    """A pandas frame and what is expected of it.

    Attributes
    ----------
    name : str
        Name of the table.
    rows : int
        Rows of the table itself.
    frame : pandas.DataFrame
    expectations : list
    numbers : bool
        Its columns are single numbers.
    """

    name: str
    rows: int
    frame: Any
    expectations: list[Any]
    numbers: bool = False


def table_check(name: str, table: pa.Table, *, empty: bool = False) -> Check:
    """Check of all rows of a table of the column dictionary.

    Parameters
    ----------
    name : str
        Name of the table in `cmass.columns.TABLES`.
    table : pa.Table
    empty : bool
        It may have no row.
    """
    schema = TABLES[name]
    kept = [c for c in schema.columns if c.type in _PANDAS and c.name in table.column_names]
    return Check(name, table.num_rows, _frame(table, kept), _by_rows(schema, table, empty))


def files_check(name: str, files: Sequence[Path], *, empty: bool = False) -> Check:
    """Check of a table in one or several Parquet files: of its rows, or of batches if it is large.

    Raises
    ------
    InputError
        A file is damaged.
    """
    parts = []
    for file in files:
        try:
            parts.append(pq.ParquetFile(file, memory_map=True))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"not a readable Parquet file: {error}", file=file) from error
    if sum(part.metadata.num_rows for part in parts) > ROWS_AT_ONCE:
        return _condensed_check(name, files, parts)
    try:
        return table_check(name, pa.concat_tables(p.read() for p in parts), empty=empty)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable Parquet file: {error}", file=files[0]) from error


def limits_check(name: str, limits: Sequence[Limit]) -> Check:
    """Check of numbers against their limits."""
    import great_expectations.expectations as gxe
    import pandas as pd

    frame = pd.DataFrame({one.name: [one.value] for one in limits}, dtype="float64")
    made: list[Any] = []
    for one in limits:
        if one.value is None or one.value != one.value:  # a missing value is between all limits
            made.append(gxe.ExpectColumnValuesToNotBeNull(column=one.name))
        else:
            made.append(_between(one.name, one.minimum, one.maximum))
    return Check(name, len(limits), frame, made, numbers=True)


def validate(checks: Sequence[Check]) -> dict[str, Any]:
    """Run checks by Great Expectations.

    Returns
    -------
    dict
        ``success`` and ``tables``: for each its ``rows``, ``success`` and a list of
        ``expectations`` (type, column, limits, success, what was found). The same tables give
        the same dict.
    """
    gx, source = _great_expectations()
    results: dict[str, Any] = {}
    for check in checks:
        asset = source.add_dataframe_asset(check.name)
        whole = asset.add_batch_definition_whole_dataframe(check.name)
        batch = whole.get_batch({"dataframe": check.frame})
        # Handed over together: added one by one, each is compared with all before.
        outcome = batch.validate(
            gx.ExpectationSuite(name=check.name, expectations=check.expectations)
        )
        source.delete_asset(check.name)
        rows = [_plain(result) for result in outcome.results]
        if check.numbers:
            for row in rows:
                row["found"] = f"{check.frame[row['column']][0]:.6g}"
        rows.sort(key=lambda row: (row["column"], row["expectation"]))
        results[check.name] = {
            "rows": check.rows, "success": bool(outcome.success), "expectations": rows,
        }  # fmt: skip
    return {"success": all(r["success"] for r in results.values()), "tables": results}


@lru_cache(maxsize=1)
def _great_expectations() -> tuple[Any, Any]:
    """The library and a source of frames: made once, as it takes seconds."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    # It reports every internal step at level info, and says so when it is imported; this module of
    # its sets a level of its own.
    for name in ("great_expectations", "great_expectations.data_context.types.base"):
        logging.getLogger(name).setLevel(logging.WARNING)
    context: Any = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    return gx, context.data_sources.add_pandas("cmass")


def broken(results: Mapping[str, Any]) -> list[str]:
    """Every expectation of `validate` that was not met, in words."""
    return [
        f"table {name}, {row['column'] or 'as a whole'}: "
        f"{row['expectation'].replace('_', ' ')}{_limits_words(row['limits'])}; {row['found']}"
        for name, table in results["tables"].items()
        for row in table["expectations"]
        if not row["success"]
    ]


def _limits_words(limits: Mapping[str, Any]) -> str:
    words = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in limits.items())
    return f" ({words})" if words else ""


def _frame(table: pa.Table, columns: Sequence[Column]) -> Any:
    """pandas frame whose types keep missing integers and booleans apart from values."""
    import pandas as pd

    types = {
        pa.bool_(): pd.BooleanDtype(), pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(),
    }  # fmt: skip
    return table.select([c.name for c in columns]).to_pandas(types_mapper=types.get)


def _by_rows(schema: TableSchema, table: pa.Table, empty: bool) -> list[Any]:
    """Expectations of the rows of a table; lists and maps are left to the readers of Parquet."""
    import great_expectations.expectations as gxe

    plain = [c for c in schema.columns if c.type in _PANDAS]
    made: list[Any] = [
        gxe.ExpectTableColumnsToMatchSet(column_set=[c.name for c in plain], exact_match=True),
        gxe.ExpectTableRowCountToBeBetween(min_value=0 if empty else 1),
    ]
    for column in plain:
        if column.name not in table.column_names:
            continue  # named by the first expectation
        made.append(
            gxe.ExpectColumnValuesToBeOfType(column=column.name, type_=_PANDAS[column.type])
        )
        if not column.nullable:
            made.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
        if pa.types.is_string(table[column.name].type) or table[column.name].type == pa.bool_():
            continue
        low, high = column.minimum, column.maximum
        if column.type.startswith("float"):  # infinity is no number
            low, high = -_FLOAT_MAX if low is None else low, _FLOAT_MAX if high is None else high
        if low is not None or high is not None:
            made.append(_between(column.name, low, high, column.open_minimum, column.open_maximum))
    if len(schema.key) == 1:
        made.append(gxe.ExpectColumnValuesToBeUnique(column=schema.key[0]))
    elif schema.key:
        made.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=list(schema.key)))
    return made


def _between(
    name: str,
    low: float | None,
    high: float | None,
    open_low: bool = False,
    open_high: bool = False,
) -> Any:
    import great_expectations.expectations as gxe

    limits: dict[str, Any] = {}
    if low is not None:
        limits |= {"min_value": low, "strict_min": open_low}
    if high is not None:
        limits |= {"max_value": high, "strict_max": open_high}
    return gxe.ExpectColumnValuesToBeBetween(column=name, **limits)


# ----------------------------------------------------------------------------------- large tables


def _condensed_check(name: str, files: Sequence[Path], parts: Sequence[pq.ParquetFile]) -> Check:
    """Check of a large table: one row a batch."""
    import great_expectations.expectations as gxe
    import pandas as pd

    schema = TABLES[name]
    plain = [c for c in schema.columns if c.type in _PANDAS]
    rows = []
    bad: set[str] = set()
    for file, part in zip(files, parts, strict=True):
        there = part.schema_arrow
        wrong = [
            c.name for c in plain
            if c.name not in there.names or there.field(c.name).type != c.arrow_field().type
        ]  # fmt: skip
        bad |= set(wrong)
        base = {"file": file.name, "missing_or_of_another_type": ", ".join(wrong)}
        good = [c for c in plain if c.name not in wrong]
        try:
            for batch in part.iter_batches(BATCH, columns=[c.name for c in good]):
                rows.append(base | {"rows": batch.num_rows} | dict(_condensed(batch, good)))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"not a readable Parquet file: {error}", file=file) from error
    made: list[Any] = [
        gxe.ExpectColumnValuesToBeInSet(column="missing_or_of_another_type", value_set=[""]),
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
    ]
    plain = [c for c in plain if c.name not in bad]
    for column in plain:
        if not column.nullable:
            made.append(_between(f"{column.name}.missing", 0, 0))
        if column.type == "string" or column.type == "bool":
            continue
        if column.type.startswith("float"):
            made.append(_between(f"{column.name}.not_finite", 0, 0))
        if column.minimum is not None:
            made.append(_between(f"{column.name}.least", column.minimum, None, column.open_minimum))
        if column.maximum is not None:
            made.append(
                _between(f"{column.name}.largest", None, column.maximum, False, column.open_maximum)
            )
    if schema.key and bad.isdisjoint(schema.key):
        rows[0]["repeated_keys"] = _repeated_keys(parts, schema.key)
        made.append(_between("repeated_keys", 0, 0))
    total = sum(row["rows"] for row in rows)
    return Check(name, total, pd.DataFrame(rows), made)


def _condensed(batch: pa.RecordBatch, columns: Sequence[Column]) -> Iterator[tuple[str, float]]:
    for column in columns:
        values = batch.column(column.name)
        yield f"{column.name}.missing", values.null_count
        if column.type == "string" or column.type == "bool":
            continue
        if column.type.startswith("float"):
            finite = pc.is_finite(values)
            good = pc.sum(pc.fill_null(finite, True)).as_py() or 0
            yield f"{column.name}.not_finite", batch.num_rows - good
            values = values.filter(pc.fill_null(finite, False))
        ends = pc.min_max(values).as_py()  # None where the batch has no value: within all limits
        yield f"{column.name}.least", np.nan if ends["min"] is None else ends["min"]
        yield f"{column.name}.largest", np.nan if ends["max"] is None else ends["max"]


def _repeated_keys(parts: Sequence[pq.ParquetFile], key: Sequence[str]) -> int:
    """Rows whose key another row has; keys alone are held in memory."""
    keys = pa.concat_tables(part.read(columns=list(key)) for part in parts)
    return keys.num_rows - keys.group_by(list(key)).aggregate([]).num_rows


def _plain(result: Any) -> dict[str, Any]:
    """One result without what changes from run to run."""
    config = result.expectation_config
    kwargs = {k: v for k, v in config.kwargs.items() if k != "batch_id"}
    column = kwargs.pop("column", "") or ", ".join(kwargs.pop("column_list", []))
    kwargs.pop("column_set", None)
    limits = {k: v for k, v in sorted(kwargs.items()) if v is not False and _says_more(v)}
    found = result.result or {}
    if "unexpected_count" in found:
        words = f"{found['unexpected_count']} of {found['element_count']} rows break it"
        examples = [str(value) for value in found.get("partial_unexpected_list", [])[:3]]
        words += f": {', '.join(examples)}" if examples else ""
    elif "observed_value" in found:
        words = f"found {found['observed_value']}"
    else:
        info = getattr(result, "exception_info", None) or {}
        words = str(info.get("exception_message") or "no result")
    return {
        "expectation": config.type,
        "column": column,
        "limits": limits,
        "success": bool(result.success),
        "found": words,
    }


def _says_more(value: Any) -> bool:
    """Whether a limit says more than that a number is finite."""
    return not (isinstance(value, float) and abs(value) == _FLOAT_MAX)
