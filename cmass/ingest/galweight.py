"""GalWCat19, the GalWeight cluster catalogue (Abdullah+2020, VizieR J/ApJS/246/2).

Read as published in ``galwcls.dat``, and as VizieR serves it: tab-separated text, VOTable
and FITS. All carry h⁻¹ in masses and lengths, and M = (Δ/2) H(z)² r³/G.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cmass.columns import GALWEIGHT_OVERDENSITIES, TABLES
from cmass.errors import InputError
from cmass.ingest.source_table import SourceTable, numbers

#: Clusters in the catalogue as published.
N_CLUSTERS = 1800
VIZIER_TABLE = "J/ApJS/246/2/galwcls"
CITATION = "Abdullah M. H., Wilson G., Klypin A., et al. 2020, ApJS 246, 2 (GalWCat19)"
_REMEDY = "The file may be cut short or another table; fetch it again from VizieR J/ApJS/246/2"

#: Columns of table raw_clusters in the order of ``galwcls.dat``.
_ORDER = TABLES["raw_clusters"].names
#: What VizieR calls the columns; the first name is tried first. Case matters: e_ is the
#: lower and E_ the upper error.
_VIZIER: dict[str, tuple[str, ...]] = {
    "cluster_id": ("ClID",),
    "ra": ("RAJ2000", "RAdeg", "_RAJ2000", "RA_ICRS"),
    "dec": ("DEJ2000", "DEdeg", "_DEJ2000", "DE_ICRS"),
    "z": ("z",),
    "cz_km_s": ("cz",),
    "catalogue_distance_mpc_h": ("Dist", "Dc", "DC", "Dcom", "dist", "D"),
    "nfw_rs_mpc_h": ("rs", "Rs"),
    "nfw_rs_err_mpc_h": ("e_rs", "e_Rs"),
    "nfw_ms_msun_h": ("Ms", "MS"),
    "nfw_ms_err_msun_h": ("e_Ms", "e_MS"),
    "nfw_concentration": ("c", "C", "conc"),
}
for _d in GALWEIGHT_OVERDENSITIES:
    # VizieR writes the turnaround overdensity with a point, FITS and astropy without.
    _ways = ("5.5", "5_5", "5p5", "55") if _d == "5p5" else (_d,)
    for _name, _stems in (
        (f"r{_d}_mpc_h", ("r", "R")),
        (f"n{_d}", ("N",)),
        (f"sigma{_d}_km_s", ("sig", "sigma")),
        (f"sigma{_d}_err_lower_km_s", ("e_sig", "e_sigma")),
        (f"sigma{_d}_err_upper_km_s", ("E_sig", "E_sigma")),
        (f"m{_d}_msun_h", ("M",)),
        (f"m{_d}_err_msun_h", ("e_M",)),
    ):
        _VIZIER[_name] = tuple(stem + way for stem in _stems for way in _ways)


def read(path: Path) -> SourceTable:
    """Read the catalogue by the file's suffix.

    ``.dat`` (pipe-separated, 39 columns, no header), ``.tsv`` (VizieR), ``.vot``, ``.xml``
    (VOTable), ``.fits``, ``.fit``.

    Raises
    ------
    InputError
        The file is missing, empty, cut short, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix == ".dat":
        return read_dat(path)
    if suffix in (".tsv", ".body"):
        return read_tsv(path)
    if suffix in (".vot", ".votable", ".xml", ".fits", ".fit"):
        return read_astropy(path)
    raise InputError(
        "no reader for this suffix", file=path,
        remedy="GalWCat19 is read from .dat, .tsv, .vot, .xml and .fits",
    )  # fmt: skip


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not a text file: {error}", file=path, remedy=_REMEDY) from error
    if not text.strip():
        raise InputError("the file is empty", file=path, remedy=_REMEDY)
    return text


def read_dat(path: Path) -> SourceTable:
    """Read ``galwcls.dat``: 39 fields separated by ``|``, blanks are missing."""
    text = _text(path)
    lines = text.splitlines()
    fields = [line.split("|") for line in lines]
    for row, parts in enumerate(fields):
        if len(parts) != len(_ORDER):
            raise InputError(
                f"{len(parts)} fields instead of {len(_ORDER)}", file=path, row=row,
                value=lines[row][:60], remedy=_REMEDY,
            )  # fmt: skip
    if not text.endswith("\n"):
        raise InputError(
            "the last line has no end: the file may be cut short", file=path, row=len(lines) - 1,
            value=lines[-1][-40:], remedy="Fetch it again, or add the newline if it is whole",
        )  # fmt: skip
    return _assemble(path, dict(zip(_ORDER, zip(*fields, strict=True), strict=True)))


def read_tsv(path: Path) -> SourceTable:
    """Read VizieR's tab-separated text: comments, names, units, dashes, rows, ``#END#``."""
    text = _text(path)
    lines = text.splitlines()
    for line in lines:
        if line.startswith(("#***", "#+++", "#INFO\tError", "#INFO\tQUERY_STATUS=ERROR")):
            raise InputError(f"VizieR says: {line.strip('#*+ ')}", file=path, remedy=_REMEDY)
    if not any(line.startswith("#END#") for line in lines):
        raise InputError(
            "the file has no #END# line: it is cut short", file=path, row=len(lines) - 1,
            remedy=_REMEDY,
        )  # fmt: skip
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    dashes = [i for i, row in enumerate(rows) if all(set(p.strip()) <= {"-"} for p in row)]
    if not dashes or dashes[0] not in (1, 2):
        raise InputError("no table with names and dashes in the file", file=path, remedy=_REMEDY)
    names, body = [name.strip() for name in rows[0]], rows[dashes[0] + 1 :]
    for row, parts in enumerate(body):
        if len(parts) != len(names):
            raise InputError(
                f"{len(parts)} fields instead of {len(names)}", file=path, row=row,
                value="\t".join(parts)[:60], remedy=_REMEDY,
            )  # fmt: skip
    if not body:
        raise InputError("the table has no rows", file=path, remedy=_REMEDY)
    columns = dict(zip(names, zip(*body, strict=True), strict=True))
    return _assemble(path, {own: columns[theirs] for own, theirs in _names(path, names).items()})


def read_astropy(path: Path) -> SourceTable:
    """Read a VOTable or FITS table under VizieR's column names."""
    from astropy.io.votable.exceptions import E19  # no VOTABLE element
    from astropy.table import Table

    fits = path.suffix.lower() in (".fits", ".fit")
    if not path.exists():
        raise InputError("no such file", file=path)
    try:
        kwargs: dict[str, Any] = {"hdu": 1} if fits else {"table_id": 0}
        table = Table.read(path, format="fits" if fits else "votable", **kwargs)
    except (OSError, ValueError, TypeError, IndexError, KeyError, E19) as error:
        raise InputError(f"not readable: {error}", file=path, remedy=_REMEDY) from error
    if not len(table):
        raise InputError("the table has no rows", file=path, remedy=_REMEDY)
    columns = {}
    for own, theirs in _names(path, table.colnames).items():
        column = table[theirs]
        mask = np.ma.getmaskarray(np.ma.asarray(column))
        texts = [
            "" if gone else _shortest(value) for value, gone in zip(column, mask, strict=True)
        ]  # fmt: skip
        columns[own] = texts
    return _assemble(path, columns)


def _shortest(value: Any) -> str:
    """Shortest text that gives `value` back in its own precision."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    return "" if text == "nan" else text


def _names(path: Path, found: list[str]) -> dict[str, str]:
    """For each of our columns the file's name for it."""
    names, missing = {}, []
    for own in _ORDER:
        fits = [name for name in _VIZIER[own] if name in found]
        if fits:
            names[own] = fits[0]
        else:
            missing.append(_VIZIER[own][0])
    if missing:
        raise InputError(
            "the catalogue lacks columns", file=path, column=", ".join(missing),
            remedy=f"Found {', '.join(found)}; ask VizieR for all columns (-out.all)",
        )  # fmt: skip
    return names


def _assemble(path: Path, texts: dict[str, Any]) -> SourceTable:
    columns, unreadable = {}, {}
    for name in _ORDER:
        values, bad = numbers(pa.array(texts[name], pa.string()))
        columns[name] = values
        if bad:
            unreadable[name] = bad
    columns["cluster_id"] = pa.array(
        [
            f"GalWCat19-{int(number):04d}" if number is not None and number == int(number) else None
            for number in columns["cluster_id"].to_pylist()
        ],
        pa.string(),
    )
    return SourceTable("raw_clusters", str(path), columns, unreadable)
