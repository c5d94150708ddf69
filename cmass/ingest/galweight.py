"""GalWCat19, the GalWeight cluster catalogue (Abdullah+2020, VizieR J/ApJS/246/2).

Read as published in ``galwcls.dat``, and as VizieR serves it: tab-separated text, VOTable
and FITS. All carry h⁻¹ in masses and lengths, and M = (Δ/2) H(z)² r³/G.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from cmass.columns import GALWEIGHT_OVERDENSITIES, TABLES
from cmass.errors import InputError
from cmass.ingest import vizier
from cmass.ingest.source_table import SourceTable, numbers

#: Clusters in the catalogue as published.
N_CLUSTERS = 1800
#: Numbers of clusters are below this.
_NUMBERS = 1_000_000
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
    if suffix == ".tsv":
        return read_tsv(path)
    if suffix in vizier.ASTROPY_SUFFIXES:
        columns = vizier.astropy_columns(path, _REMEDY)
        return _assemble(path, vizier.pick(path, columns, _VIZIER))
    raise InputError(
        "no reader for this suffix", file=path,
        remedy="GalWCat19 is read from .dat, .tsv, .vot, .xml and .fits",
    )  # fmt: skip


def read_dat(path: Path) -> SourceTable:
    """Read ``galwcls.dat``: 39 fields separated by ``|``, blanks are missing."""
    text = vizier.read_text(path, _REMEDY)
    lines = text.splitlines()
    if not text.endswith("\n"):
        raise InputError(
            "the last line has no end: the file may be cut short", file=path, row=len(lines) - 1,
            value=lines[-1][-40:], remedy="Fetch it again, or add the newline if it is whole",
        )  # fmt: skip
    fields = [line.split("|") for line in lines]
    return _assemble(path, vizier.by_name(path, _ORDER, fields, _REMEDY, "|"))


def read_tsv(path: Path) -> SourceTable:
    """Read VizieR's tab-separated text."""
    return _assemble(path, vizier.pick(path, vizier.tsv_columns(path, _REMEDY), _VIZIER))


def _assemble(path: Path, table: vizier.TextTable) -> SourceTable:
    columns, unreadable = {}, {}
    for name in _ORDER:
        values, bad = numbers(pa.array(table.columns[name], pa.string()))
        columns[name] = values
        if bad:
            unreadable[name] = bad
    columns["cluster_id"] = pa.array(
        [
            f"GalWCat19-{int(number):04d}" if _is_number(number) else None
            for number in columns["cluster_id"].to_pylist()
        ],
        pa.string(),
    )
    return SourceTable("raw_clusters", str(path), columns, unreadable, table.broken)


def _is_number(number: float | None) -> bool:
    """Whether a cluster can have that number in the catalogue."""
    return number is not None and 0 <= number < _NUMBERS and number == int(number)
