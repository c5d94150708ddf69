"""FITS: one file a table, the posterior as an array column with its grid in the second extension."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cmass import formats
from cmass.columns import TABLES
from cmass.publish.exports import TABLES_OF, reading, with_vo_units
from cmass.tables import atomic_path

TOLERANCE: dict[str, float] = {}


def write(
    folder: Path, files: Mapping[str, pa.Table], tables: Mapping[str, pa.Table],
    facts: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write ``<table>.fits`` of each table of `files`."""
    from astropy.io import fits

    release = facts["release"]
    for name in files:
        first = fits.PrimaryHDU()
        first.header["ORIGIN"] = ("cmass", "what made this file")
        first.header["RELEASE"] = (release["version"], "version of the release")
        first.header["DATE"] = (release["created"][:19], "UTC date of the release")
        first.header["SURVEY"] = (release["survey"], "survey that the clusters are of")
        first.header["PROFILE"] = (release["profile"], "size of the run; smoke is not for science")
        hdus = [first, *(_hdu(part, tables[part]) for part in (name, *TABLES_OF["fits"][name]))]
        with atomic_path(folder / f"{name}.fits") as temporary:
            fits.HDUList(hdus).writeto(temporary, overwrite=True)


def _hdu(name: str, table: pa.Table) -> Any:
    with warnings.catch_warnings():
        # A unit with h⁻¹ is none of the FITS standard's; it is written as it is.
        warnings.simplefilter("ignore")
        hdu = formats.fits_hdu(formats.to_astropy(with_vo_units(table, quoted=False)))
    hdu.name = name
    hdu.header.add_comment(TABLES[name].description)
    if "ra" in table.column_names:
        hdu.header["RADESYS"] = ("ICRS", "of ra and dec")
    return hdu


def read(folder: Path, name: str) -> Iterator[tuple[Path, dict[str, dict[str, Any]]]]:
    """The file of a table: columns by name, by table."""
    import numpy as np
    from astropy.io import fits

    file = folder / f"{name}.fits"
    with reading(file), fits.open(file) as hdus:
        found = {}
        for part in (name, *TABLES_OF["fits"][name]):
            data = hdus[part.upper()].data
            found[part] = {
                column: np.char.decode(data[column], "utf-8")
                if data[column].dtype.kind == "S"
                else np.asarray(data[column])
                for column in data.names
            }
        yield file, found
