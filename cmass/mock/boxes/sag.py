"""SAG galaxies of MultiDark: CSV as CosmoSim serves them, or HDF5 as skiesanduniverses does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError
from cmass.limits import hdf5_attribute, hdf5_dataset
from cmass.mock.boxes.tally import Tally, check_positions, check_velocities
from cmass.mock.boxes.text import (
    LINE_MAX_BYTES,
    Block,
    Place,
    find_columns,
    header_lines,
    long_line,
    open_bytes,
    readable,
    text_blocks,
)  # fmt: skip
from cmass.params import FilesParams

#: Our names and the columns of the SAG tables (Knebe+2018), in any case. The host is the distinct
#: halo; HostHaloID would be the subhalo that an orphan last had.
COLUMNS = {
    "host": ("MainHaloID",), "type": ("GalaxyType",), "r": ("MagStarSDSSr",),
    "x": ("X",), "y": ("Y",), "z": ("Z",), "vx": ("Vx",), "vy": ("Vy",), "vz": ("Vz",),
}  # fmt: skip
_POSITION, _VELOCITY = ("x", "y", "z"), ("vx", "vy", "vz")
#: What the unit of an HDF5 column must hold, where it has one.
_UNITS = dict.fromkeys(_POSITION, "mpc") | dict.fromkeys(_VELOCITY, "km")
_HDF5_ROWS = 200_000
#: Nothing that deflate packs becomes more than a thousand times smaller.
_RATIO_MAX = 1100
_DARK = "no absolute r magnitude between -30 and 0"

#: One galaxy as it is kept: host halo; position, h⁻¹ Mpc; velocity, km/s; absolute r, M − 5 log10 h;
#: log10 M200c of the host, once it is known.
GALAXY = np.dtype(
    [
        ("key", "i8"), ("position", "f4", 3), ("velocity", "f4", 3), ("magnitude", "f4"),
        ("host_log10_m200c", "f4"), ("central", "?"),
    ]
)  # fmt: skip


def _aliases(files: FilesParams) -> dict[str, tuple[str, ...]]:
    aliases: dict[str, tuple[str, ...]] = dict(COLUMNS)
    for pair in files.columns:
        name, _, column = pair.partition("=")
        if name not in aliases:
            raise InputError(
                "mock.files.columns names no SAG column", column=name, value=pair,
                remedy=f"It knows {', '.join(aliases)}",
            )  # fmt: skip
        aliases[name] = (column,)
    return aliases


def read_galaxies(
    path: Path, place: Place | None, files: FilesParams, tally: Tally
) -> Iterator[tuple[NDArray[np.void], Place]]:
    """Galaxies of a SAG table, block by block, checked.

    Parameters
    ----------
    path : Path
        HDF5 where the file is, otherwise CSV with a header line.
    place : Place, optional
        Where to go on; the first row by default.
    files : FilesParams
    tally : Tally
        Counts rows that are set aside: galaxies without an r magnitude.

    Yields
    ------
    galaxies : structured ndarray of `GALAXY`
    end : Place
    """
    import h5py

    packed = path.exists() and h5py.is_hdf5(path)
    blocks = _hdf5_blocks(path, place, files) if packed else _csv_blocks(path, place, files)
    for block in blocks:
        yield _galaxies(block, path, files, tally), block.end


_REMEDY = "Name the file's column under mock.files.columns, as r=MyMagnitude"


def _csv_blocks(path: Path, place: Place | None, files: FilesParams) -> Iterator[Block]:
    _, after_comments = header_lines(path)
    with open_bytes(path) as stream, readable(path):
        stream.seek(after_comments)
        line = stream.readline(LINE_MAX_BYTES)
    if len(line) == LINE_MAX_BYTES:
        raise long_line(path)
    names = [name.strip().strip('"') for name in line.decode("utf-8", "replace").split(",")]
    wanted = find_columns(path, names, _aliases(files), _REMEDY)
    start = place or Place(0, after_comments + len(line))
    yield from text_blocks(path, names, wanted, ",", start)


def _hdf5_blocks(path: Path, place: Place | None, files: FilesParams) -> Iterator[Block]:
    import h5py

    with _damage_in_words(path), h5py.File(path) as file:
        _check_attributes(file, path, files)
        wanted = find_columns(path, list(file), _aliases(files), _REMEDY)
        columns = {ours: hdf5_dataset(file, name, path) for ours, name in wanted.items()}
        for ours, column in wanted.items():
            _check_unit(columns[ours], ours, column, path)
        n = _rows_of(columns, path)
    row = place.row if place else 0
    while row < n:
        end = min(row + _HDF5_ROWS, n)
        with _damage_in_words(path), h5py.File(path) as file:
            block = {ours: file[column][row:end] for ours, column in wanted.items()}
        yield Block(block, row, Place(end, end))
        row = end


@contextmanager
def _damage_in_words(path: Path) -> Iterator[None]:
    """Errors of HDF5, which come as several kinds, as `InputError`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"not readable as HDF5: {error}", file=path,
            remedy="The file may be cut short or damaged",
        ) from error  # fmt: skip


def _rows_of(columns: dict[str, Any], path: Path) -> int:
    """Rows of all columns, which must be lists of one length that are there, not announced alone."""
    lengths = {name: one.shape for name, one in columns.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        raise InputError(f"columns differ in length: {lengths}", file=path)
    (n,) = next(iter(lengths.values()))
    for name, one in columns.items():
        stored = one.id.get_storage_size()
        if n * one.dtype.itemsize > _RATIO_MAX * stored + _HDF5_ROWS * one.dtype.itemsize:
            raise InputError(
                f"announces {n} rows, and {stored} bytes are there", file=path, column=name,
                remedy="The file may be cut short or damaged",
            )  # fmt: skip
    return int(n)


def _words(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _check_unit(dataset: Any, ours: str, column: str, path: Path) -> None:
    name = next((name for name in dataset.attrs if name.lower() in ("unit", "units")), None)
    unit = "" if name is None else _words(hdf5_attribute(dataset, name, path))
    plain = unit.lower().replace(" ", "")
    wrong = plain not in ("", "-") and ours in _UNITS and _UNITS[ours] not in plain
    if ours in _POSITION and "mpc" in plain and "h" not in plain:
        wrong = True
    if wrong:
        raise InputError(
            f"unit {unit!r}", file=path, column=column,
            remedy="Positions must be comoving Mpc/h, velocities km/s",
        )  # fmt: skip


def _check_attributes(file: Any, path: Path, files: FilesParams) -> None:
    """Box size and redshift that the file names must be those of the parameters."""
    names = {name.lower().replace("_", ""): name for name in file.attrs}
    expected = {
        "boxsize": (files.box_size_mpc_h, 1e-3 * files.box_size_mpc_h, "mock.files.box_size_mpc_h"),
        "redshift": (1 / files.scale_factor - 1, 2e-3, "mock.files.scale_factor"),
    }
    for key, (value, tolerance, name) in expected.items():
        try:
            said = hdf5_attribute(file, names[key], path) if key in names else str(value)
            there = float(_words(np.ravel(said)[0]).split()[0])
        except (ValueError, IndexError):
            continue  # in words that we cannot read: what the columns hold decides
        if abs(there - value) > tolerance:
            raise InputError(
                f"the file says {key} {there:g}, {name} says {value:g}", file=path,
                remedy=f"Set {name} to what the simulation has",
            )  # fmt: skip


def check_magnitudes(tally: Tally, paths: tuple[str, ...]) -> None:
    """Raise `InputError` where most galaxies have no absolute magnitude: it is another one."""
    n, first = tally.reasons.get(f"galaxy: {_DARK}", (0, ""))
    if n > 0.5 * tally.rows:
        raise InputError(
            f"{n} of {tally.rows} galaxies have {_DARK} (first: {first})", file=", ".join(paths),
            column="MagStarSDSSr",
            remedy="Magnitudes must be absolute ones, M - 5 log10 h, not apparent ones",
        )  # fmt: skip


def _galaxies(block: Block, path: Path, files: FilesParams, tally: Tally) -> NDArray[np.void]:
    columns, row = block.columns, block.first_row
    position = np.stack([columns[c] for c in _POSITION], axis=1).astype(float)
    velocity = np.stack([columns[c] for c in _VELOCITY], axis=1).astype(float)
    check_positions(position, _POSITION, files.box_size_mpc_h, path, row)
    check_velocities(velocity, _VELOCITY, path, row)
    kind = columns["type"]
    bad = ~np.isin(kind, (0, 1, 2))
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            "galaxy type must be 0 (central), 1 (satellite) or 2 (orphan)", file=path,
            column="GalaxyType", row=row + i, value=kind[i].item(),
        )  # fmt: skip
    tally.measure(position, velocity)
    magnitude = columns["r"].astype(float)
    # SAG gives magnitudes of 0 or 99 to galaxies without stars in the band
    dark = ~((magnitude > -30) & (magnitude < 0))
    tally.note_rows("galaxy", _DARK, dark, path, row)
    host = columns["host"]
    if host.dtype.kind == "f":
        host = np.where(np.isfinite(host), host, -1)
    galaxies = np.zeros(len(kind), GALAXY)
    galaxies["key"] = host.astype(np.int64)
    galaxies["position"] = np.mod(position, files.box_size_mpc_h)
    galaxies["velocity"] = velocity
    galaxies["magnitude"] = magnitude + files.magnitude_offset_mag
    galaxies["host_log10_m200c"] = np.nan
    galaxies["central"] = kind == 0
    return galaxies[~dark]
