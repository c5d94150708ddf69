"""VOTable: files with coordinate system and provenance, and the one inside each Parquet file.

Parquet carries a VOTable without data in its metadata (the VOParquet convention), so that astropy
reads units, UCDs and descriptions by ``Table.read(file, format="parquet.votable")``.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass import formats
from cmass.columns import TABLES
from cmass.publish.exports import TABLES_OF, reading, with_vo_units
from cmass.tables import atomic_path

if TYPE_CHECKING:
    from astropy.io.votable.tree import VOTableFile

TOLERANCE: dict[str, float] = {}
#: What the XML says of the program that wrote it: the bytes of Parquet shall not depend on it.
_MADE_BY = re.compile(rb"<!--.*?-->\s*", re.DOTALL)
#: Where rows stand in a VOTable, and what stands there in the one inside a Parquet file.
_DATA = re.compile(rb"<DATA>.*?</DATA>|<DATA */>|(?=</TABLE>)", re.DOTALL)
_WORDS = re.compile(rb"(?<=<DESCRIPTION)>(.*?)</DESCRIPTION>", re.DOTALL)
_PARQUET = b'<PARQUET type="Parquet-local-XML"/>'


def write(
    folder: Path, files: Mapping[str, pa.Table], tables: Mapping[str, pa.Table],
    facts: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write ``<table>.vot`` of each table of `files`."""
    for name in files:
        parts = {part: tables[part] for part in (name, *TABLES_OF["votable"][name])}
        document = _document(parts, origin(facts))
        for element in document.iter_tables():
            element.format = "binary2"
        with atomic_path(folder / f"{name}.vot") as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document.to_xml(str(temporary))


def origin(facts: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Where a table comes from, in the words of the IVOA note on data origin: name, value, meaning."""
    release = facts["release"]
    found = [
        ("publisher", "cmass", "What made the release"),
        ("resource_version", release["version"], "Version of the release"),
        ("publication_date", release["created"], "Date of the release"),
        ("rights", facts["parameters"]["publish"]["licence"],
         "Licence of what cmass made; sources have terms of their own, see LICENSE.md"),
        ("reference_url", "README.md", "Beside this file: what the release holds"),
        ("cites", "arXiv:2009.03340", "The method: Kodi Ramanah, Wojtak & Arendse 2021"),
        ("survey", release["survey"], "Survey that the clusters are of"),
        ("profile", release["profile"], "Size of the run; smoke is not for science"),
    ]  # fmt: skip
    for name, source in sources(facts).items():
        if "citation" in source:
            found.append(("is_derived_from", source["citation"], f"Source of {name}"))
    return found


def sources(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is known of each source table of a release, by name."""
    said = facts["sources"].get("products", facts["sources"])
    return {name: value for name, value in said.items() if isinstance(value, dict)}


def _document(tables: Mapping[str, pa.Table], infos: list[tuple[str, str, str]]) -> VOTableFile:
    from astropy.io.votable import tree

    document = tree.VOTableFile(version="1.4")
    resource = tree.Resource()
    document.resources.append(resource)
    if any("ra" in table.column_names for table in tables.values()):
        resource.coordinate_systems.append(tree.CooSys(ID="icrs", system="ICRS", epoch="J2000"))
    for number, (name, value, words) in enumerate(infos):
        info = tree.Info(ID=f"info{number}", name=name, value=value)
        info.content = words
        resource.infos.append(info)
    for name, table in tables.items():
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # dex and log are no units of VOTable; written as they are
            element = tree.TableElement.from_table(
                document, formats.to_astropy(with_vo_units(table))
            )
        element.ID = element.name = name
        element.description = TABLES[name].description
        for field in element.fields:
            if field.name in ("ra", "dec"):
                field.ref = "icrs"
        resource.tables.append(element)
    return document


def with_votable(name: str, table: pa.Table) -> pa.Table:
    """The table, with a VOTable of its columns in the metadata that Parquet keeps."""
    document = _document({name: table.slice(0, 0)}, [])
    metadata = dict(table.schema.metadata or {})
    for field in document.get_first_table().fields:
        values = table[field.name]
        if pa.types.is_list(values.type):
            field.arraysize = "*"
        elif pa.types.is_string(values.type):
            longest = str(pc.max(pc.utf8_length(values)).as_py() or 1)
            field.datatype, field.arraysize = "unicodeChar", longest
            # astropy's reader of Parquet would go through all rows for it.
            metadata[f"table::len::{field.name}".encode()] = longest.encode()
    with io.BytesIO() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document.to_xml(stream)
        xml = _MADE_BY.sub(b"", stream.getvalue())
    metadata[b"IVOA.VOTable-Parquet.version"] = b"1.0"
    # One line each: astropy would keep the breaks.
    xml = _WORDS.sub(lambda found: b">" + b" ".join(found[1].split()) + b"</DESCRIPTION>", xml)
    metadata[b"IVOA.VOTable-Parquet.content"] = _DATA.sub(_PARQUET, xml)
    return table.replace_schema_metadata(metadata)


def read(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """The file of a table: columns by name, by table."""
    from astropy.io import votable

    file = folder / f"{name}.vot"
    with reading(file), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = votable.parse(str(file))
        yield (
            file,
            {
                element.name: {
                    column: element.array[column] for column in element.array.dtype.names
                }
                for element in document.iter_tables()
            },
        )
