"""A table as a source gives it, before anything is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


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
    broken : dict
        Lines of another number of fields than the table has, by row, each as it stands and what is
        wrong with it; in `columns` these rows are missing values.
    provenance : dict
        Producer, citation, licence, checksum and the like.
    """

    name: str
    file: str
    columns: dict[str, pa.Array]
    unreadable: dict[str, dict[int, str]] = field(default_factory=dict)
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
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
