"""ROCKSTAR haloes: the ``hlist`` tables that consistent-trees writes, one a snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError
from cmass.mock.boxes.tally import Tally, check_positions, check_velocities
from cmass.mock.boxes.text import Block, Place, find_columns, header_lines, text_blocks
from cmass.params import FilesParams

#: Our names and the columns of hlist. pid is the least massive host, -1 for distinct haloes.
COLUMNS = {
    "id": ("id",), "pid": ("pid", "upid"), "scale": ("scale",), "m200c": ("M200c",),
    "x": ("x",), "y": ("y",), "z": ("z",), "vx": ("vx",), "vy": ("vy",), "vz": ("vz",),
}  # fmt: skip
_POSITION, _VELOCITY = ("x", "y", "z"), ("vx", "vy", "vz")

#: One halo as it is kept: id; position, h⁻¹ Mpc; velocity, km/s; log10 M200c of distinct haloes,
#: NaN of subhaloes and where it is not defined.
HALO = np.dtype(
    [
        ("key", "i8"), ("id", "i8"), ("position", "f4", 3), ("velocity", "f4", 3),
        ("log10_m200c", "f4"), ("distinct", "?"),
    ]
)  # fmt: skip

#: What the header must say where it speaks of units: lines that speak, and the unit they name.
_UNITS = (
    (re.compile(r"(units:\s*masses|m200b.*m2500c|^mvir:)", re.I), "msun/h", "masses"),
    (re.compile(r"(units:\s*positions|^x/y/z:)", re.I), "mpc/h", "positions"),
    (re.compile(r"(units:\s*velocities|^vx/vy/vz:)", re.I), "km/s", "velocities"),
)
#: A halo lighter (log10) than this is no cluster, and none is heavier: units must be wrong.
_HEAVIEST = (12.0, 16.5)


def read_header(path: Path, files: FilesParams, omega_m: float) -> tuple[list[str], Place]:
    """Column names of an hlist and where its rows begin.

    The names come from the first line (``#scale(0) id(1) ...``; later columns may lack a number).
    What the other lines say of units, box and cosmology must be what we expect.

    Raises
    ------
    InputError
    """
    lines, end = header_lines(path)
    if not lines or not re.match(r"#\s*scale(\(0\))?\s+id", lines[0], re.I):
        raise InputError(
            "not an hlist table: its first line does not name columns", file=path,
            remedy="It must begin with '#scale(0) id(1) ...', as consistent-trees writes it",
        )  # fmt: skip
    names = []
    for place, word in enumerate(lines[0].lstrip("# ").split()):
        numbered = re.fullmatch(r"(.+)\((\d+)\)", word)
        # "b_to_a(500c)" has no number; "x(17)" has
        names.append(numbered[1] if numbered else word)
        if numbered and int(numbered[2]) != place:
            raise InputError(
                f"the header numbers column {numbered[1]} {numbered[2]}, but it is column {place}",
                file=path, remedy="Columns were cut out: number them anew in the first line",
            )  # fmt: skip
    for line in lines[1:]:
        _check_line(line.lstrip("# "), path, files, omega_m)
    return names, Place(0, end)


def _check_line(line: str, path: Path, files: FilesParams, omega_m: float) -> None:
    for speaks, unit, what in _UNITS:
        if speaks.search(line) and unit not in line.lower().replace(" ", ""):
            raise InputError(
                f"{what} must be in {unit.replace('msun', 'Msun').replace('mpc', 'Mpc')}; the "
                "header says otherwise", file=path, value=line,
            )  # fmt: skip
    for pattern, expected, name in (
        (r"box size\s*[=:]\s*([\d.]+)\s*Mpc\s*/\s*h", files.box_size_mpc_h,
         "mock.files.box_size_mpc_h"),
        (r"Omega_M\s*=\s*([\d.]+)", omega_m, "cosmology.omega_m"),
    ):  # fmt: skip
        match = re.search(pattern, line, re.I)
        if match and not abs(_number(match[1]) / expected - 1) <= 1e-3:
            raise InputError(
                f"the header says {match[0]!r}, {name} is {expected:g}", file=path,
                remedy=f"Set {name} to what the simulation has",
            )  # fmt: skip


def _number(text: str) -> float:
    """NaN for digits and points that are no number: nothing agrees with that."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def read_haloes(
    path: Path, place: Place | None, files: FilesParams, omega_m: float, tally: Tally
) -> Iterator[tuple[NDArray[np.void], Place]]:
    """Haloes of an hlist, block by block, checked.

    Parameters
    ----------
    path : Path
    place : Place, optional
        Where to go on; the first row by default.
    files : FilesParams
    omega_m : float
        Matter density that the header must agree with, if it names one.
    tally : Tally
        Counts rows that are set aside.

    Yields
    ------
    haloes : structured ndarray of `HALO`
    end : Place

    Raises
    ------
    InputError
        A column is missing, a unit is not what it should be, or a value is impossible.
    """
    names, first = read_header(path, files, omega_m)
    remedy = "hlist tables of MDPL2 have it; M200c is the mass definition of this project"
    wanted = find_columns(path, names, COLUMNS, remedy)
    for block in text_blocks(path, names, wanted, r"\s+", place or first):
        yield _haloes(block, path, files, tally), block.end


def _haloes(block: Block, path: Path, files: FilesParams, tally: Tally) -> NDArray[np.void]:
    columns, row = block.columns, block.first_row
    n = len(columns["id"])
    position = np.stack([columns[c] for c in _POSITION], axis=1).astype(float)
    velocity = np.stack([columns[c] for c in _VELOCITY], axis=1).astype(float)
    check_positions(position, _POSITION, files.box_size_mpc_h, path, row)
    check_velocities(velocity, _VELOCITY, path, row)
    ids = whole_numbers(columns["id"], "id", path, row)
    _check_scale(columns["scale"], files.scale_factor, path, row)
    mass = columns["m200c"].astype(float)
    bad = ~(mass >= 0)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            "no mass", file=path, column="M200c", row=row + i, value=float(mass[i]),
            remedy="The line may be cut short",
        )  # fmt: skip
    distinct = columns["pid"] == -1
    undefined = distinct & (mass == 0)
    tally.note_rows("halo", "M200c is zero: not defined by ROCKSTAR", undefined, path, row)
    tally.measure(position, velocity)
    haloes = np.zeros(n, HALO)
    haloes["key"] = haloes["id"] = ids
    haloes["position"] = np.mod(position, files.box_size_mpc_h)
    haloes["velocity"] = velocity
    with np.errstate(divide="ignore"):
        log10_m = np.log10(mass)
    haloes["log10_m200c"] = np.where(distinct & (mass > 0), log10_m, np.nan)
    haloes["distinct"] = distinct
    if distinct.any():
        tally.heaviest = max(tally.heaviest, float(log10_m[distinct].max()))
    return haloes


def whole_numbers(values: NDArray, column: str, path: Path, row: int) -> NDArray[np.int64]:
    """Identifiers as integers; raises where one is missing, broken or negative."""
    if values.dtype.kind in "iu":
        bad = values < 0
    else:
        with np.errstate(invalid="ignore"):
            bad = ~((values >= 0) & (values == np.floor(values)) & (values < 2.0**53))
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            "not an identifier", file=path, column=column, row=row + i, value=values[i].item()
        )
    return values.astype(np.int64)


def _check_scale(scale: NDArray, expected: float, path: Path, row: int) -> None:
    bad = ~(np.abs(scale.astype(float) - expected) < 5e-4)
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"a halo of another snapshot: mock.files.scale_factor is {expected:g}", file=path,
            column="scale", row=row + i, value=float(scale[i]),
            remedy="Set mock.files.scale_factor to the snapshot's, and give files of one snapshot",
        )  # fmt: skip


def check_masses(tally: Tally, paths: tuple[str, ...]) -> None:
    """Raise `InputError` where the most massive halo cannot be in h⁻¹ M☉."""
    if not _HEAVIEST[0] < tally.heaviest < _HEAVIEST[1]:
        raise InputError(
            f"the most massive distinct halo has M200c = {10**tally.heaviest:.4g}",
            file=", ".join(paths), column="M200c",
            remedy="Masses must be in Msun/h: not logarithms, not in units of 10^10 Msun/h",
        )  # fmt: skip
