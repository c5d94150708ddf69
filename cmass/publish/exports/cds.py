"""The CDS: tables of fixed width with a byte-by-byte ReadMe, and each as one machine-readable table.

``cds/ReadMe`` with ``cds/*.dat`` is what the CDS takes in; ``*.mrt`` is the same with its description
on top, as the AAS journals print it. Posteriors are arrays and belong into no fixed width: they are in
Parquet, FITS and VOTable.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cmass import formats
from cmass.columns import TABLES
from cmass.publish.exports import reading
from cmass.publish.exports.votable import sources

FOLDER = "cds"
#: Decimals by unit: a thousandth of the smallest error that the quantity has.
_DECIMALS = {
    "deg": 6, "log10(Msun/h)": 5, "dex": 5, "Mpc/h": 5, "km/s": 3, "": 8,
}  # fmt: skip
TOLERANCE = {unit: 0.500001 * 10.0**-n for unit, n in _DECIMALS.items()}
#: Units as the CDS writes logarithms.
_UNITS = {"log10(Msun/h)": "[Msun/h]"}
_WIDTH, _RULE = 78, 80 * "-"


def write(
    folder: Path, files: Mapping[str, pa.Table], tables: Mapping[str, pa.Table],
    facts: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write ``cds/`` and ``<table>.mrt`` of each table of `files`."""
    if not files:
        return
    place = folder / FOLDER
    place.mkdir()
    maker = _maker(place, files, facts, ".dat")
    maker.writeCDSTables()
    readme = io.StringIO()
    maker.makeReadMe(readme)
    (place / "ReadMe").write_text(readme.getvalue(), encoding="utf-8")
    _maker(folder, files, facts, ".mrt").toMRT()
    for name in files:
        file = folder / f"{name}.mrt"
        text = file.read_text(encoding="utf-8")
        # Empty lines below the description, which STILTS does not take for a part of it.
        file.write_text(
            text.replace(f"\n\n{_RULE}\n\n{_RULE}\n", f"\n{_RULE}\n", 1), encoding="utf-8"
        )


def _maker(
    place: Path, files: Mapping[str, pa.Table], facts: Mapping[str, Any], suffix: str
) -> Any:
    import cdspyreadme

    release, title = facts["release"], facts["parameters"]["publish"]["title"]
    maker = cdspyreadme.CDSTablesMaker(outfolder=str(place))
    template = Path(__file__).with_name("cds_readme.template")
    cited = [s["citation"] for s in sources(facts).values() if "citation" in s]
    maker.setReadmeTemplate(
        str(template), {"references": _lines(cited), "version": release["version"]}
    )
    maker.title = f"{title}, release {release['version']}"
    maker.author = maker.authors = "cmass developers"
    maker.date = release["created"][:4]
    maker.keywords = "galaxy clusters; masses, galaxy; redshifts; surveys"
    maker.license = facts["parameters"]["publish"]["licence"]
    for name, table in files.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # units that astropy does not know
            plain = table.drop_columns([c for c in table.column_names if c == "posterior"])
            words = TABLES[name].description.removesuffix(", with its posterior")
            one = maker.addTable(formats.to_astropy(plain), f"{name}{suffix}", words)
            for column in one.get_column():
                _dress(column, plain)
    return maker


def _dress(column: Any, table: pa.Table) -> None:
    """Give a column of cdspyreadme its unit, and floats a format of our own."""
    metadata = table.schema.field(column.name).metadata or {}
    unit = metadata.get(b"unit", b"").decode()
    column.unit = _UNITS.get(unit, unit) or "---"
    values = table[column.name]
    if pa.types.is_floating(values.type):
        decimals = _DECIMALS[unit]
        ends = [value or 0.0 for value in pc.min_max(values).as_py().values()]
        digits = len(f"{max(abs(value) for value in ends):.{decimals}f}")
        column.set_format(f"F{digits + (min(ends) < 0)}.{decimals}")


def _lines(texts: list[str]) -> str:
    return "\n".join(
        textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ") for text in texts
    )


def read(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """The files of a table: columns by name, by table."""
    from astropy.table import Table

    place = folder / FOLDER
    for file, how in (
        (place / f"{name}.dat", {"format": "ascii.cds", "readme": str(place / "ReadMe")}),
        (folder / f"{name}.mrt", {"format": "ascii.mrt"}),
    ):
        with reading(file), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = Table.read(str(file), **how)
            yield file, {name: {column: table[column] for column in table.colnames}}
