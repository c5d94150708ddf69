"""Where a survey comes from: network, mirror folder or the embedded simulator.

Three routes behind one interface; the rest of ingest does not know which it is.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cmass.errors import InputError, SourceError
from cmass.ingest import galweight, sdss, xray
from cmass.ingest.footprint import Footprint, MangleFile, read_mangle
from cmass.ingest.http import DamagedError, Download, Downloader
from cmass.ingest.source_table import SourceTable
from cmass.params import Params
from cmass.progress import track
from cmass.tables import file_digest
from cmass.workspace import Workspace

_log = logging.getLogger(__name__)
#: A chunk of SkyServer is not cut narrower than this, deg.
_CHUNK_MIN_DEG = 1e-3

_CLUSTERS = {
    "producer": "M. H. Abdullah et al.; CDS VizieR J/ApJS/246/2",
    "citation": galweight.CITATION,
    "licence": "free use in a scientific context with citation (VizieR rules of usage)",
}
_GALAXIES = {
    "producer": "Sloan Digital Sky Survey",
    "citation": sdss.CITATION,
    "licence": "public domain with acknowledgement (SDSS data release policy)",
}
_FOOTPRINT = {
    "producer": "Sloan Digital Sky Survey, tiling window of the Legacy survey (DR8)",
    "citation": "Blanton M. R., et al. 2005, AJ 129, 2562 (window); Aihara H., et al. 2011, "
    "ApJS 193, 29 (SDSS DR8)",
    "licence": "public domain with acknowledgement (SDSS data release policy)",
}
_XRAY = {
    "producer": "T. Sadibekova et al.; CDS VizieR J/A+A/688/A187",
    "citation": xray.CITATION,
    "licence": "free use in a scientific context with citation (VizieR rules of usage)",
}
_EMBEDDED = {
    "producer": "cmass, the embedded simulator (cmass/mock)",
    "citation": "the CITATION.cff of cmass",
    "licence": "BSD-3-Clause",
}


class Source(Protocol):
    """One route to the tables of a survey, each as the source has it."""

    route: str

    def footprint(self) -> SourceTable:
        """Table raw_footprint."""
        ...

    def clusters(self) -> SourceTable:
        """Table raw_clusters."""
        ...

    def galaxies(self) -> SourceTable:
        """Table raw_galaxies."""
        ...

    def truth(self) -> SourceTable | None:
        """Table survey_truth, for a survey whose truth is known."""
        ...

    def xray(self) -> SourceTable | None:
        """Table xray_clusters, where the source has X-ray clusters to compare with."""
        ...


def choose_source(workspace: Workspace, params: Params) -> Source:
    """Route of a run: embedded, or for sdss the mirror where one is given, else the network."""
    if params.survey == "embedded":
        return EmbeddedSource(params)
    if params.mirror is not None:
        return MirrorSource(Path(params.mirror))
    return NetworkSource(workspace.downloads, params)


class EmbeddedSource:
    """The survey that the simulator makes, with known truth.

    Parameters
    ----------
    params : Params
    """

    route = "embedded"

    def __init__(self, params: Params) -> None:
        self._params = params
        self._tables: dict[str, pa.Table] | None = None

    def _table(self, name: str) -> SourceTable:
        if self._tables is None:
            from cmass.mock.survey import make_survey

            self._tables = make_survey(self._params)
        table = self._tables[name]
        columns = {column: table[column].combine_chunks() for column in table.column_names}
        provenance = dict(_EMBEDDED, seed=self._params.seed)
        return SourceTable(name, "the embedded survey", columns, provenance=provenance)

    def footprint(self) -> SourceTable:
        """The survey's rectangle on the sky."""
        return self._table("raw_footprint")

    def clusters(self) -> SourceTable:
        """What a finder like GalWeight reports."""
        return self._table("raw_clusters")

    def galaxies(self) -> SourceTable:
        """What a spectroscopic survey sees."""
        return self._table("raw_galaxies")

    def truth(self) -> SourceTable:
        """The masses that the simulator gave the clusters."""
        return self._table("survey_truth")

    def xray(self) -> None:
        """The simulator has no gas."""
        return None


class MirrorSource:
    """A folder with the files of the catalogues.

    ``galwcat19/galwcls.*`` (.dat, .tsv, .vot, .xml, .fits), one ``sdss/*.parquet`` and one
    ``sdss/*.ply`` or ``.ply.gz``; if wanted, MCXC-II as ``reference/mcxc2*`` (.csv, .tsv, .vot,
    .xml, .fits).

    Parameters
    ----------
    folder : Path
    """

    route = "mirror"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                "no such mirror folder", file=folder, remedy="Check --mirror and `mirror` in params"
            )
        self.folder = folder

    def _find(self, what: str, *patterns: str) -> Path:
        found = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        if len(found) != 1:
            names = ", ".join(str(path.relative_to(self.folder)) for path in found)
            raise InputError(
                f"the mirror has {'several files' if found else 'no file'} with {what}"
                + (f": {names}" if names else ""),
                file=self.folder, remedy=f"Expected one of {', '.join(patterns)}",
            )  # fmt: skip
        return found[0]

    def _provenance(self, path: Path, words: dict[str, str]) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        return dict(words, file=name, source_sha256=file_digest(path))

    def footprint(self) -> SourceTable:
        """The window in mangle format."""
        path = self._find("the survey's window", "sdss/*.ply", "sdss/*.ply.gz")
        return _footprint_table(path, str(path), self._provenance(path, _FOOTPRINT))

    def clusters(self) -> SourceTable:
        """GalWCat19 in any of its formats."""
        suffixes = ("dat", "tsv", "vot", "votable", "xml", "fits", "fit")
        path = self._find("GalWCat19", *(f"galwcat19/galwcls.{s}" for s in suffixes))
        table = galweight.read(path)
        table.provenance = self._provenance(path, _CLUSTERS)
        return table

    def galaxies(self) -> SourceTable:
        """SDSS galaxies in one Parquet file."""
        path = self._find("SDSS galaxies", "sdss/*.parquet")
        table = sdss.read_mirror(path)
        table.provenance = self._provenance(path, _GALAXIES)
        table.provenance["galaxy_id"] = "number of the row in the file, from 0"
        return table

    def truth(self) -> None:
        """Nobody knows."""
        return None

    def xray(self) -> SourceTable | None:
        """MCXC-II in any of its formats; None where the mirror has none."""
        patterns = [f"reference/mcxc2*.{s}" for s in xray.SUFFIXES]
        if not any(path for pattern in patterns for path in self.folder.glob(pattern)):
            _log.warning(
                "the mirror %s has no MCXC-II (%s): masses will not be compared with X-ray masses",
                self.folder, patterns[0],
            )  # fmt: skip
            return None
        path = self._find("MCXC-II", *patterns)
        table = xray.read(path)
        table.provenance = self._provenance(path, _XRAY)
        return table


class RowLimitError(Exception):
    """SkyServer holds back rows of a chunk: it must be asked for in smaller parts."""


class NetworkSource:
    """VizieR, SkyServer and the SDSS archive over HTTP.

    Parameters
    ----------
    folder : Path
        Where downloads are kept; what is intact there is not fetched again.
    params : Params
    downloader : Downloader, optional
        By default one for `folder` with the settings of `params`.
    """

    route = "network"

    def __init__(
        self, folder: Path, params: Params, downloader: Downloader | None = None
    ) -> None:  # fmt: skip
        self._params = params
        self._settings = params.ingest.network
        self._http = downloader or Downloader(folder, self._settings)
        self._window: Footprint | None = None

    def footprint(self) -> SourceTable:
        """The window in mangle format, from the SDSS archive."""

        def check(path: Path) -> None:
            with _damage_is_passing():
                read_mangle(path)

        got = self._http.fetch(self._settings.footprint_url, {}, check)
        return _footprint_table(got.path, got.url, _retrieved(_FOOTPRINT, [got]))

    def clusters(self) -> SourceTable:
        """GalWCat19 from VizieR."""
        query = {"-source": galweight.VIZIER_TABLE, "-out": "**", "-out.max": "unlimited"}

        def check(path: Path) -> None:
            with _damage_is_passing():
                _require_whole(galweight.read_tsv(path))

        got = self._http.fetch(self._settings.vizier_url, query, check)
        table = galweight.read_tsv(got.path)
        table.file, table.provenance = got.url, _retrieved(_CLUSTERS, [got])
        return table

    def galaxies(self) -> SourceTable:
        """SDSS galaxies from SkyServer, in chunks of right ascension."""
        if self._window is None:
            table = self.footprint()
            columns = [table.columns[c].to_numpy() for c in ("cap_x", "cap_y", "cap_z", "cap_cm")]
            self._window = Footprint(table.columns["polygon_id"].to_numpy(), np.stack(columns, 1))
        width = self._settings.ra_chunk_deg
        edges = [*np.arange(0.0, 360.0, width).tolist(), 360.0]
        ranges = list(pairwise(edges))
        downloads: list[Download] = []
        for ra_from, ra_to in track(ranges, "SkyServer"):
            downloads += self._chunks(ra_from, ra_to)
        if not downloads:
            raise SourceError(
                f"{self._settings.skyserver_url} has no galaxy at all: check ingest.z_max"
            )
        tables = (sdss.read_chunk(got.path) for got in downloads)
        table = sdss.assemble(tables, self._window, self._settings.skyserver_url)
        table.provenance = _retrieved(_GALAXIES, downloads)
        table.provenance["galaxy_id"] = "specObjID"
        return table

    def _chunks(self, ra_from: float, ra_to: float) -> Iterator[Download]:
        """Download all rows with ra in [ra_from, ra_to) deg, in as many parts as needed."""
        where = sdss.condition(ra_from, ra_to, self._params.ingest.z_max)
        try:
            count = self._count(where)
            if count > self._settings.row_limit:
                raise RowLimitError(f"{count} rows, limit {self._settings.row_limit}")
            if count:
                yield self._rows(where, count)
        except RowLimitError as error:
            middle = 0.5 * (ra_from + ra_to)
            if ra_to - ra_from < 2 * _CHUNK_MIN_DEG:
                raise SourceError(
                    f"{self._settings.skyserver_url}: {error}, even between ra {ra_from} and "
                    f"{ra_to}"
                ) from error
            _log.info("SkyServer: ra %g to %g in two parts (%s)", ra_from, ra_to, error)
            yield from self._chunks(ra_from, middle)
            yield from self._chunks(middle, ra_to)

    def _count(self, where: str) -> int:
        def check(path: Path) -> None:
            with _damage_is_passing():
                sdss.read_count(path)

        query = {"cmd": sdss.count_query(where), "format": "csv"}
        return sdss.read_count(self._http.fetch(self._settings.skyserver_url, query, check).path)

    def _rows(self, where: str, count: int) -> Download:
        seen: list[int] = []

        def check(path: Path) -> None:
            with _damage_is_passing():
                rows = sdss.read_chunk(path).num_rows
            if rows == count:
                return
            # A broken transfer ends anywhere; a row limit that nobody told us of ends at the
            # same row twice.
            if rows in seen:
                raise RowLimitError(f"{rows} rows of {count} come, again and again")
            seen.append(rows)
            raise DamagedError(f"{rows} rows of {count} arrived")

        query = {"cmd": sdss.data_query(where), "format": "csv"}
        return self._http.fetch(self._settings.skyserver_url, query, check)

    def truth(self) -> None:
        """Nobody knows."""
        return None

    def xray(self) -> SourceTable:
        """MCXC-II from VizieR."""
        query = {"-source": xray.VIZIER_TABLE, "-out": "**", "-out.max": "unlimited"}

        def check(path: Path) -> None:
            with _damage_is_passing():
                _require_whole(xray.read_tsv(path))

        got = self._http.fetch(self._settings.vizier_url, query, check)
        table = xray.read_tsv(got.path)
        table.file, table.provenance = got.url, _retrieved(_XRAY, [got])
        return table


class _damage_is_passing:
    """Turn the error of a parser into one that another try may cure.

    A missing column is no accident of the transfer: that error passes through.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, InputError) and error.column is None:
            raise DamagedError(str(error)) from error


def _require_whole(table: SourceTable) -> None:
    """Raise `InputError` for a line with fields too few or too many: another try may bring it whole."""
    for row, (line, words) in table.broken.items():
        raise InputError(words, file=table.file, row=row, value=line[:60])


def _footprint_table(path: Path, name: str, provenance: dict[str, Any]) -> SourceTable:
    mangle: MangleFile = read_mangle(path)
    if mangle.area_deg2 is not None:
        provenance["area_deg2_stated"] = round(mangle.area_deg2, 3)
    columns = {column: pa.array(values) for column, values in mangle.columns.items()}
    return SourceTable("raw_footprint", name, columns, provenance=provenance)


def _retrieved(words: dict[str, str], downloads: list[Download]) -> dict[str, Any]:
    """Provenance of downloads: one checksum for all bodies in their order."""
    together = hashlib.sha256("".join(got.sha256 for got in downloads).encode()).hexdigest()
    digest = downloads[0].sha256 if len(downloads) == 1 else together
    url = downloads[0].url if len(downloads) == 1 else downloads[0].url.partition("?")[0]
    return dict(
        words, url=url, requests=len(downloads), source_sha256=digest,
        retrieved=max(got.retrieved for got in downloads),
    )  # fmt: skip
