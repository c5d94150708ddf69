"""MCXC-II, X-ray clusters with masses (Sadibekova+2024, VizieR J/A+A/688/A187).

Read from a mirror (CSV, VizieR's tab-separated text, VOTable, FITS) and from VizieR.
The catalogue's cosmology is flat with H0 = 70 km/s/Mpc and Omega_m = 0.3; its M500 is in
10^14 Msun. Here masses carry h⁻¹, which takes H0 out of them: M500 comes from L500 by a
relation calibrated on hydrostatic masses, L ∝ h⁻² and M ∝ h⁻¹, so that M h depends on what
was observed alone (`H70` times the catalogue's mass).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmass.errors import InputError
from cmass.ingest import vizier
from cmass.ingest.source_table import SourceTable, numbers

#: Clusters in the catalogue as published.
N_CLUSTERS = 2221
VIZIER_TABLE = "J/A+A/688/A187/mcxcii"
CITATION = (
    "Sadibekova T., Arnaud M., Pratt G. W., Tarrío P., Melin J.-B. 2024, A&A 688, A187 (MCXC-II)"
)
#: The catalogue's H0 / (100 km/s/Mpc) and Omega_m.
H70 = 0.7
OMEGA_M = 0.3
_REMEDY = "The file may be cut short or another table; fetch it again from VizieR J/A+A/688/A187"
_1E14 = 1e14
_1E44 = 1e44

#: What VizieR calls the columns; e_ is the lower and E_ the upper error.
_VIZIER: dict[str, tuple[str, ...]] = {
    "xray_name": ("MCXC", "Name"),
    "xray_other_name": ("OName", "AName"),
    "xray_catalogue": ("Cat", "Catalogue"),
    "ra": ("RAJ2000", "RAdeg", "_RAJ2000", "RA_ICRS"),
    "dec": ("DEJ2000", "DEdeg", "_DEJ2000", "DE_ICRS"),
    "z": ("z",),
    "m500_h70_msun": ("M500",),
    "m500_h70_err_lower_msun": ("e_M500",),
    "m500_h70_err_upper_msun": ("E_M500",),
    "l500_h70_erg_s": ("L500",),
    "r500_h70_mpc": ("R500",),
}
_OPTIONAL = ("xray_other_name", "xray_catalogue")
_TEXTS = ("xray_name", "xray_other_name", "xray_catalogue")
_FACTORS = {
    "m500_h70_msun": _1E14,
    "m500_h70_err_lower_msun": _1E14,
    "m500_h70_err_upper_msun": _1E14,
    "l500_h70_erg_s": _1E44,
}
SUFFIXES = ("csv", "tsv", "vot", "votable", "xml", "fits", "fit")


def read_tsv(path: Path) -> SourceTable:
    """Read VizieR's tab-separated text."""
    return _assemble(path, vizier.pick(path, vizier.tsv_columns(path, _REMEDY), _VIZIER, _OPTIONAL))


def read(path: Path) -> SourceTable:
    """Read the catalogue by the file's suffix.

    Raises
    ------
    InputError
        The file is missing, empty, cut short, or lacks a column.
    """
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return read_tsv(path)
    if suffix == ".csv":
        columns = vizier.csv_columns(path, _REMEDY)
    elif suffix in vizier.ASTROPY_SUFFIXES:
        columns = vizier.astropy_columns(path, _REMEDY)
    else:
        raise InputError(
            "no reader for this suffix", file=path,
            remedy=f"MCXC-II is read from .{', .'.join(SUFFIXES)}",
        )  # fmt: skip
    return _assemble(path, vizier.pick(path, columns, _VIZIER, _OPTIONAL))


def _assemble(path: Path, table: vizier.TextTable) -> SourceTable:
    columns: dict[str, pa.Array] = {}
    unreadable: dict[str, dict[int, str]] = {}
    for name, values in table.columns.items():
        trimmed = pc.utf8_trim_whitespace(pa.array(values, pa.string()))
        if name in _TEXTS:
            columns[name] = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
            continue
        columns[name], bad = numbers(trimmed)
        if name in _FACTORS:
            columns[name] = pc.multiply(columns[name], _FACTORS[name])
        if bad:
            unreadable[name] = bad
    mass, lower, upper = (
        columns[f"m500_h70_{what}msun"].to_numpy(zero_copy_only=False)
        for what in ("", "err_lower_", "err_upper_")
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        made = {
            "log10_m500c_xray": np.log10(H70 * np.where(mass > 0, mass, np.nan)),
            # An error as large as the mass has no lower end in the logarithm.
            "log10_m500c_xray_err_lower": -np.log10(
                np.where(lower < mass, 1 - lower / mass, np.nan)
            ),
            "log10_m500c_xray_err_upper": np.log10(1 + upper / mass),
        }
    columns |= {name: pa.array(values, from_pandas=True) for name, values in made.items()}
    return SourceTable("xray_clusters", str(path), columns, unreadable, table.broken)
