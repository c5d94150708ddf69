"""What is fuzzed: readers, and a whole file for each."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmass import formats
from cmass.contracts.quarantine import sift
from cmass.ingest import footprint, galweight, sdss, xray
from cmass.machines import dask_workers
from cmass.mock.boxes import authors, rockstar, sag
from cmass.mock.boxes.tally import Tally
from cmass.oddity import REFERENCE, SETTINGS
from cmass.params import Params, load_params
from cmass.pretrained import SHIPPED, WEIGHTS, load_bundle
from cmass.publish import release, sql
from cmass.tables import file_digest
from tests.mock.boxes import simulation
from tests.mock.boxes.test_authors import params_for, write_authors
from tests.surveys import (
    catalogue,
    csv_text,
    dat_text,
    galaxy_rows,
    tsv_text,
    window_text,
    xray_catalogue,
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes
    ----------
    name : str
    suffix : str
        Of the files that it gets.
    whole : callable
        Writes a file that is whole to a path.
    read : callable
        Reads a file: returns, or raises an error of cmass.
    zipped : bool
        Every other damage is done before compression.
    """

    name: str
    suffix: str
    whole: Callable[[Path], object]
    read: Callable[[Path], object]
    zipped: bool = False


def _table(path: Path) -> None:
    random = np.random.default_rng(1)
    import pyarrow as pa

    n = 12
    formats.write(path, pa.table({
        "cluster_id": [f"{i:04d}" for i in range(n)], "ra": random.uniform(0, 360, n),
        "dec": random.uniform(-90, 90, n), "z": random.uniform(0.01, 0.1, n),
        "note": [None if i % 3 else "ab\u00e9" for i in range(n)],
    }))  # fmt: skip


def _zipped_table(path: Path) -> None:
    plain = path.with_suffix("")
    _table(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def _astropy(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from astropy.table import Table

        rows = catalogue(6)
        Table(rows=rows, names=list(rows[0])).write(path, format=kind)

    return write


def _answer(path: Path) -> None:
    rows = galaxy_rows(30)
    lines = [",".join(map(str, row.values())) for row in rows]
    path.write_text("\n".join(["#Table1", ",".join(rows[0]), *lines]) + "\n")


def _mirror(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 40
    pq.write_table(pa.table({
        "ra": np.linspace(0, 359, n), "dec": np.linspace(-10, 60, n), "z": np.full(n, 0.07),
        "r_mag": np.full(n, 17.0, np.float32), "in_legacy": np.ones(n, bool),
    }), path)  # fmt: skip


def _catalogue(path: Path) -> object:
    return sift(galweight.read(path))


def _bundle_of(path: Path) -> Path:
    """A copy of the model that ships."""
    folder = path.with_suffix(".bundle")
    if not folder.exists():
        shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def _bundle(path: Path) -> object:
    """The model that ships, with another description."""
    folder = _bundle_of(path)
    shutil.copyfile(path, folder / "model.json")
    return load_bundle(folder).network


def _part_of_bundle(name: str) -> Callable[[Path], object]:
    """The model that ships, with another file whose checksum is right: a forger's."""

    def read(path: Path) -> object:
        folder = _bundle_of(path)
        shutil.copyfile(path, folder / name)
        description = json.loads((SHIPPED / "model.json").read_text())
        description["checksums"][name] = file_digest(path)
        (folder / "model.json").write_text(json.dumps(description))
        bundle = load_bundle(folder)
        return bundle.posterior(np.array([14.2]), np.array([60.0]), np.array([0.06]))

    return read


def _shipped(name: str) -> Callable[[Path], object]:
    return lambda path: shutil.copyfile(SHIPPED / name, path)


def _weights(path: Path) -> object:
    from cmass.networks import cnn3d

    return cnn3d.load(path, 50)


def _mcxc(text: Callable[[list[dict[str, Any]]], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(text(xray_catalogue(8)))


_SIMULATION = simulation.simulate(60, 400)
_BOX: Params = simulation.box_params((), ())


def _hlist(path: Path) -> object:
    return simulation.write_hlist(path, _SIMULATION)


def _packed_hlist(path: Path) -> None:
    plain = path.with_suffix("")
    _hlist(plain)
    pack = gzip.compress if path.suffix == ".gz" else bz2.compress
    path.write_bytes(pack(plain.read_bytes()))


def _haloes(path: Path) -> object:
    blocks = rockstar.read_haloes(path, None, _BOX.mock.files, _BOX.cosmology.omega_m, Tally())
    return [rows for rows, _ in blocks]


def _sag(path: Path) -> object:
    columns = simulation.galaxy_columns(_SIMULATION)
    write = simulation.write_hdf5 if path.suffix == ".h5" else simulation.write_csv
    return write(path, columns)


def _galaxies(path: Path) -> object:
    return [rows for rows, _ in sag.read_galaxies(path, None, _BOX.mock.files, Tally())]


def _authors(which: int) -> Callable[[Path], object]:
    def write(path: Path) -> object:
        files = write_authors(path.with_suffix(".files"))[-1]
        return shutil.copyfile(files[which], path)

    return write


def _author_windows(path: Path) -> object:
    return authors.read_clusters(path, params_for(path, path))


def _author_galaxies(path: Path) -> object:
    return list(authors.read_galaxies(path, 60, params_for(path, path)))


def _database(path: Path) -> None:
    """As the database of a release, in small."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS db (STORAGE_VERSION 'v1.4.0')")
        connection.execute("USE db")
        connection.execute(
            "CREATE TABLE masses AS SELECT 'c' || i AS cluster_id, 14 + i / 100 AS log10_m200c, "
            "[0.5, 0.25, i / 100] AS posterior FROM range(40) t(i)"
        )
        connection.execute("CREATE MACRO heavy(m) AS TABLE FROM masses WHERE log10_m200c > m")


def _ask(path: Path) -> object:
    folder = path.with_suffix(".release")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / sql.DATABASE)
    return [
        sql.query(folder, statement)
        for statement in ("SHOW TABLES", "FROM masses", "SELECT count(*) FROM heavy(14.1)")
    ]


def _facts(path: Path) -> object:
    return path.write_text(json.dumps({
        "release": {"profile": "standard", "survey": "embedded", "version": "2026.09.23-0123abcd",
                    "identity": "0" * 64, "created": "2026-09-23T01:02:03+00:00"},
        "software": {"cmass": "0.1.0"}, "parameters": {"seed": 1},
    }))  # fmt: skip


def _releases(path: Path) -> object:
    """A folder of releases whose only one says so of itself, by checksums that are right."""
    folder = path.with_suffix(".releases") / "2026.09.23-0123abcd"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / "provenance.json")
    (folder / release.SUMS).write_text(f"{file_digest(path)}  provenance.json\n")
    found = release.find_release(folder.parent, "0" * 64)
    return sql.is_smoke(folder), found


def _sums(path: Path) -> object:
    """A release with another list of checksums."""
    folder = path.with_suffix(".release")
    folder.mkdir(exist_ok=True)
    (folder / "a.parquet").write_bytes(b"a")
    (folder / "README.md").write_bytes(b"b")
    shutil.copyfile(path, folder / release.SUMS)
    release.check_sums(folder)
    return release.complete_releases(folder.parent)


def _write_sums(path: Path) -> object:
    files = {"README.md": b"b", "a.parquet": b"a"}
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return path.write_text("".join(lines))


_PARAMS = Path(__file__).parents[2] / "params.yaml"

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("table: CSV", ".csv", _table, formats.read),
        Reader("table: CSV, gzip", ".csv.gz", _zipped_table, formats.read, zipped=True),
        Reader("table: ECSV", ".ecsv", _table, formats.read),
        Reader("table: FITS", ".fits", _table, formats.read),
        Reader("table: VOTable", ".vot", _table, formats.read),
        Reader("table: Parquet", ".parquet", _table, formats.read),
        Reader("GalWCat19: .dat", ".dat", lambda p: p.write_text(dat_text(catalogue(6))), _catalogue),
        Reader("GalWCat19: .tsv", ".tsv", lambda p: p.write_text(tsv_text(catalogue(6))), _catalogue),
        Reader("GalWCat19: FITS", ".fits", _astropy("fits"), _catalogue),
        Reader("GalWCat19: VOTable", ".vot", _astropy("votable"), _catalogue),
        Reader("SDSS: CSV answer", ".csv", _answer, sdss.read_chunk),
        Reader("SDSS: mirror", ".parquet", _mirror, lambda p: sift(sdss.read_mirror(p))),
        Reader("footprint", ".ply", lambda p: p.write_text(window_text()), footprint.read_mangle),
        Reader("params.yaml", ".yaml", lambda p: shutil.copyfile(_PARAMS, p), load_params),
        Reader("model: description", ".json",
               lambda p: shutil.copyfile(SHIPPED / "model.json", p), _bundle),
        Reader("model: weights", ".weights.h5", lambda p: shutil.copyfile(SHIPPED / WEIGHTS, p),
               _weights),
        *(Reader(f"model: {name}", Path(name).suffix, _shipped(name), _part_of_bundle(name))
          for name in ("dispersion.json", "pairs.parquet", "posterior_grid.parquet", SETTINGS,
                       REFERENCE)),
        Reader("MCXC-II: CSV", ".csv", _mcxc(csv_text), lambda p: sift(xray.read(p))),
        Reader("MCXC-II: TSV", ".tsv", _mcxc(tsv_text), lambda p: sift(xray.read(p))),
        Reader("SDSS: count", ".csv", lambda p: p.write_text("#Table1\nn\n12345\n"),
               sdss.read_count),
        Reader("simulation: hlist", ".list", _hlist, _haloes),
        Reader("simulation: hlist, gzip", ".list.gz", _packed_hlist, _haloes, zipped=True),
        Reader("simulation: hlist, bzip2", ".list.bz2", _packed_hlist, _haloes),
        Reader("simulation: SAG, CSV", ".csv", _sag, _galaxies),
        Reader("simulation: SAG, HDF5", ".h5", _sag, _galaxies),
        Reader("authors: windows", ".txt", _authors(0), _author_windows),
        Reader("authors: galaxies", ".txt", _authors(1), _author_galaxies),
        Reader("release: database", ".duckdb", _database, _ask),
        Reader("release: provenance", ".json", _facts, _releases),
        Reader("release: checksums", ".sums", _write_sums, _sums),
        Reader("Dask scheduler's file", ".json",
               lambda p: p.write_text('{"type": "Scheduler", "address": "tcp://10.0.0.1:8786"}'),
               dask_workers.address_in),
    )
}  # fmt: skip
