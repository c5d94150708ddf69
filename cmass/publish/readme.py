"""README.md of a release: how to read it, and every column with what is in it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import TABLES
from cmass.publish import summary


def readme(tables: dict[str, pa.Table], facts: dict[str, Any]) -> str:
    """Markdown of the release's README, from its tables and the column dictionary."""
    import jinja2

    from cmass.publish.database import MACROS

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish", "."), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("readme.md.jinja2").render(
        title=facts["parameters"]["publish"]["title"], release=facts["release"], registry=facts["registry"], macros=MACROS,
        tables={name: _describe(name, table) for name, table in tables.items()},
        flags=summary.flag_counts(tables["masses"]),
    )  # fmt: skip


def _describe(name: str, table: pa.Table) -> dict[str, Any]:
    schema = TABLES[name]
    columns = []
    for column in schema.columns:
        smallest = largest = ""
        values = table[column.name]
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            limits = pc.min_max(values).as_py()
            smallest, largest = (_short(limits[end]) for end in ("min", "max"))
        columns.append(
            {
                "name": column.name, "type": column.type, "unit": column.unit, "ucd": column.ucd,
                "description": column.description, "missing": values.null_count,
                "smallest": smallest, "largest": largest,
            }
        )  # fmt: skip
    return {
        "description": schema.description, "rows": table.num_rows, "key": schema.key,
        "columns": columns,
    }  # fmt: skip


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
