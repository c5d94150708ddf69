"""README.md of a release: how to open its files, and every column with what is in it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass.columns import TABLES
from cmass.publish import exports, summary


def render(template: str, **values: Any) -> str:
    """Markdown of one of this package's templates."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cmass.publish", "."), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def readme(tables: dict[str, pa.Table], facts: dict[str, Any]) -> str:
    """Markdown of the release's README, from its tables and the column dictionary."""
    from cmass.publish.database import MACROS

    return render(
        "readme.md.jinja2",
        title=facts["parameters"]["publish"]["title"], release=facts["release"],
        registry=facts["registry"], macros=MACROS,
        tables={name: describe(name, table) for name, table in tables.items()},
        flags=summary.flag_counts(tables["masses"]),
        files={kind: exports.tables_of(kind, tables) for kind in exports.TABLES_OF},
        left_out={
            kind: [n for n in names if n not in exports.tables_of(kind, tables)]
            for kind, names in exports.TABLES_OF.items()
        },
    )  # fmt: skip


def describe(name: str, table: pa.Table) -> dict[str, Any]:
    """What is said of a table of a release: description, rows, key, and each column with its range."""
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
        "description": schema.description, "rows": table.num_rows, "key": list(schema.key),
        "columns": columns,
    }  # fmt: skip


def _short(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
