"""What is fuzzed: readers, and a whole file for each."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmass import formats
from cmass.contracts.quarantine import sift
from cmass.ingest import footprint, galweight, sdss
from cmass.params import load_params
from cmass.pretrained import SHIPPED, WEIGHTS, load_bundle
from tests.surveys import catalogue, dat_text, galaxy_rows, tsv_text, window_text


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


def _bundle(path: Path) -> object:
    """The model that ships, with another description."""
    folder = path.with_suffix(".bundle")
    if not folder.exists():
        shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copyfile(path, folder / "model.json")
    return load_bundle(folder)


def _weights(path: Path) -> object:
    from cmass.networks import cnn3d

    return cnn3d.load(path, 50)


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
    )
}  # fmt: skip
