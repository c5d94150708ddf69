"""ingest: the tables of a survey as their sources have them, typed, with provenance.

Rows that break the column dictionary go to ``quarantine.parquet``; everything else is
passed through untouched.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cmass.params import Params
    from cmass.workspace import Workspace

_log = logging.getLogger(__name__)
#: Largest difference between the footprint's area as stated and as measured.
_AREA_TOLERANCE = 0.01


def run(workspace: Workspace, params: Params) -> None:
    """Read the survey of `params` and write the tables of ``raw/``.

    Raises
    ------
    InputError
        A file is damaged, lacks a column, has wrong units or many bad rows.
    SourceError
        A server could not be read; what came whole is kept for the next run.
    """
    import pyarrow as pa

    from cmass import cosmology
    from cmass.contracts.quarantine import NO_BAD_ROW, sift
    from cmass.contracts.units import check_units, check_xray_units
    from cmass.ingest import galweight, xray
    from cmass.ingest.footprint import Footprint
    from cmass.ingest.sources import choose_source
    from cmass.tables import file_digest, write_json, write_table

    source = choose_source(workspace, params)
    _log.info("survey %s by the %s route", params.survey, source.route)
    files = {"raw_clusters": "clusters", "raw_galaxies": "galaxies", "raw_footprint": "footprint",
             "survey_truth": "truth", "xray_clusters": "xray"}  # fmt: skip
    published = {"raw_clusters": ("GalWCat19", galweight.N_CLUSTERS),
                 "xray_clusters": ("MCXC-II", xray.N_CLUSTERS)}  # fmt: skip
    given = [
        source.footprint(), source.clusters(), source.galaxies(), source.truth(), source.xray()
    ]  # fmt: skip
    # The embedded survey is of our own making: a bad row is no slip of a catalogue.
    limits = NO_BAD_ROW if source.route == "embedded" else params.contracts.quarantine
    tables: dict[str, pa.Table] = {}
    set_aside: list[pa.Table] = []
    provenance: dict[str, Any] = {}
    for one in given:
        if one is None:
            continue
        table, bad = sift(one, limits)
        if not table.num_rows:
            raise _empty(one.name, one.file)
        if one.n_rows != table.num_rows + bad.num_rows:
            raise _lost(one.name, one.n_rows, table.num_rows, bad.num_rows)
        for row in bad.to_pylist():
            _log.warning("%s row %d set aside: %s (value %r)", one.file, row["row_number"],
                         row["reason"], row["value_text"])  # fmt: skip
        _log.info("%s: %d rows, %d set aside", one.name, table.num_rows, bad.num_rows)
        tables[one.name] = table
        set_aside.append(bad)
        provenance[files[one.name]] = dict(
            one.provenance, route=source.route, rows_in_source=one.n_rows, rows=table.num_rows,
            rows_set_aside=bad.num_rows,
        )  # fmt: skip
        if one.name == "raw_clusters":
            background = cosmology.from_params(params.cosmology)
            check_units(table, background, params.cosmology.h, one.file)
        if one.name == "xray_clusters":
            check_xray_units(table, one.file)
        catalogue, n = published.get(one.name, ("", one.n_rows))
        if source.route != "embedded" and one.n_rows != n:
            _log.warning("%s holds %d clusters; %s as published has %d",
                         one.file, one.n_rows, catalogue, n)  # fmt: skip

    measured = Footprint.from_table(tables["raw_footprint"]).area_deg2()
    provenance["footprint"]["area_deg2_measured"] = round(measured, 3)
    stated = provenance["footprint"].get("area_deg2_stated")
    if stated is not None and abs(measured / stated - 1) > _AREA_TOLERANCE:
        _log.warning("the footprint measures %.1f deg2 and its file states %.1f", measured, stated)
    _log.info("footprint: %.1f deg2", measured)

    for name, file in files.items():
        if name not in tables:  # another source of the same survey may have had it
            (workspace.raw / f"{file}.parquet").unlink(missing_ok=True)
    (workspace.raw / "expectations.json").unlink(missing_ok=True)  # of an older version
    write_table(workspace.raw / "quarantine.parquet", pa.concat_tables(set_aside), "quarantine")
    for name, table in tables.items():
        path = workspace.raw / f"{files[name]}.parquet"
        write_table(path, table, name)
        provenance[files[name]]["sha256"] = file_digest(path)
    write_json(
        workspace.raw / "provenance.json",
        {"survey": params.survey, "route": source.route, "products": provenance},
    )


def refresh(workspace: Workspace, params: Params) -> list[str]:
    """Ask the servers again for what was downloaded; the step runs again where something changed.

    Only the network route has anything to ask: a mirror's files are the step's inputs, and the
    embedded survey has no source.

    Returns
    -------
    list of str
        URLs of which another body came.

    Raises
    ------
    SourceError
        A server could not be read; what is kept stays.
    """
    from cmass.ingest.http import Downloader

    network = params.ingest.network
    if params.survey != "sdss" or params.mirror is not None:
        return []
    changed = Downloader(workspace.downloads, network).refresh(
        (network.vizier_url, network.skyserver_url, network.footprint_url)
    )
    for url in changed:
        _log.info("changed at its source: %s", url)
    return changed


def _empty(name: str, file: str) -> Exception:
    from cmass.errors import InputError

    return InputError(f"table {name} has no good row", file=file)


def _lost(name: str, given: int, kept: int, aside: int) -> Exception:
    from cmass.errors import CmassError

    return CmassError(
        f"table {name}: {given} rows came, {kept} are kept and {aside} set aside; this is a fault "
        "of cmass, please report it"
    )
