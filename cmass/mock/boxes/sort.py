"""Sort the haloes and galaxies of a simulation into cells, with every galaxy's host.

Three passes, none of which holds more than some rows: read and sort by halo; give each galaxy
its host's mass, and sort by cell; write the cells. A broken run goes on after its last whole piece.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmass.errors import InputError
from cmass.mock.boxes.cells import Grid, write_cells
from cmass.mock.boxes.rockstar import HALO, check_masses, read_haloes
from cmass.mock.boxes.sag import GALAXY, check_magnitudes, read_galaxies
from cmass.mock.boxes.sorting import SortedRuns, merge
from cmass.mock.boxes.tally import Tally
from cmass.mock.boxes.text import Place
from cmass.params import FilesParams
from cmass.tables import read_json, write_json

log = logging.getLogger(__name__)

Rows = NDArray[np.void]

#: One distinct halo in its cell, with the number of galaxies that name it as their host.
CELL_HALO = np.dtype(
    [
        ("key", "i8"), ("id", "i8"), ("position", "f4", 3), ("velocity", "f4", 3),
        ("log10_m200c", "f4"), ("n_galaxies", "i4"),
    ]
)  # fmt: skip
#: One galaxy in its cell.
CELL_GALAXY = np.dtype(
    [
        ("key", "i8"), ("position", "f4", 3), ("velocity", "f4", 3), ("magnitude", "f4"),
        ("host_log10_m200c", "f4"),
    ]
)  # fmt: skip

_DONE = "box.json"
#: A central farther than this from its halo (comoving Mpc/h) is astray, and this part of them may be.
_STRAY_MPC_H, _STRAYS_MAX = 0.5, 0.1


def sort_box(files: FilesParams, log10_m200c_min: float, omega_m: float, folder: Path) -> None:
    """Write ``haloes/`` and ``galaxies/`` by cell, and ``box.json`` when they are whole.

    Parameters
    ----------
    files : FilesParams
    log10_m200c_min : float
        Distinct haloes above are kept and name the mass of their galaxies' host.
    omega_m : float
        What headers must agree with.
    folder : Path

    Raises
    ------
    InputError
        A file is not what it should be: format, columns, units, box, snapshot; or haloes and
        galaxies do not belong together.
    """
    if (folder / _DONE).exists():
        return
    work, size = folder / "work", files.rows_in_memory
    haloes = SortedRuns(work / "haloes-by-id", HALO)
    galaxies = SortedRuns(work / "galaxies-by-host", GALAXY)
    halo_tally = _read_all(
        haloes, files.haloes, "haloes", size,
        lambda path, place, tally: read_haloes(path, place, files, omega_m, tally),
    )  # fmt: skip
    halo_tally.check_whole("haloes", files.haloes, files.box_size_mpc_h)
    check_masses(halo_tally, files.haloes)
    galaxy_tally = _read_all(
        galaxies, files.galaxies, "galaxies", size,
        lambda path, place, tally: read_galaxies(path, place, files, tally),
    )  # fmt: skip
    galaxy_tally.check_whole("galaxies", files.galaxies, files.box_size_mpc_h)
    check_magnitudes(galaxy_tally, files.galaxies)
    halo_cells = SortedRuns(work / "haloes-by-cell", CELL_HALO)
    galaxy_cells = SortedRuns(work / "galaxies-by-cell", CELL_GALAXY)
    links = _link(haloes, galaxies, halo_cells, galaxy_cells, files, log10_m200c_min)
    write_cells(halo_cells, folder / "haloes", size)
    write_cells(galaxy_cells, folder / "galaxies", size)
    remarks = [r for t in (halo_tally, galaxy_tally, links) for r in t.remarks()]
    done = {
        "haloes": halo_tally.rows, "galaxies": galaxy_tally.rows,
        "remarks": [vars(r) for r in remarks],
    }  # fmt: skip
    write_json(folder / _DONE, done)
    shutil.rmtree(work)


def sorted_box(folder: Path) -> dict:
    """What `sort_box` said at its end: counts, remarks."""
    return read_json(folder / _DONE)


Reader = Callable[[Path, Place | None, Tally], Iterator[tuple[Rows, Place]]]


def _read_all(
    runs: SortedRuns, paths: tuple[str, ...], what: str, rows_at_once: int, read: Reader
) -> Tally:
    """Read files into runs sorted by key; go on after the last run that is there."""
    state = runs.last_state() or {"file": 0, "place": None, "tally": {}, "done": False}
    tally = Tally(**state["tally"])
    if state["done"]:
        return tally
    number, held, n = len(runs), [np.zeros(0, runs.dtype)], 0

    def flush(file: int, place: Place | None, done: bool) -> None:
        nonlocal number, held, n
        at = [place.row, place.position] if place else None
        said = {"file": file, "place": at, "tally": tally.as_json(), "done": done}
        rows, held = np.concatenate(held), []
        runs.add(number, rows, said)
        log.info("mock: %d %s read", tally.rows, what)
        number, held, n = number + 1, [np.zeros(0, runs.dtype)], 0

    for file in range(state["file"], len(paths)):
        place = Place(*state["place"]) if file == state["file"] and state["place"] else None
        for rows, end in read(Path(paths[file]), place, tally):
            held.append(rows)
            n += len(rows)
            if n >= rows_at_once:
                flush(file, end, False)
    flush(len(paths), None, True)
    return tally


def _link(
    haloes: SortedRuns, galaxies: SortedRuns, halo_cells: SortedRuns, galaxy_cells: SortedRuns,
    files: FilesParams, log10_m200c_min: float,
) -> Tally:  # fmt: skip
    """Join galaxies to their hosts, range of ids by range of ids; sort both by cell."""
    grid = Grid(files.box_size_mpc_h)
    tally = Tally(**(galaxy_cells.last_state() or {"tally": {}})["tally"])
    have = len(galaxy_cells)
    for number, (h, g) in enumerate(merge([haloes, galaxies], files.rows_in_memory)):
        if number < have:
            continue
        _check_unique(h, files.haloes)
        place = np.searchsorted(h["key"], g["key"])
        known = np.zeros(len(g), bool)
        inside = place < len(h)
        known[inside] = h["key"][place[inside]] == g["key"][inside]
        host = place[known]
        tally.rows += int(known.sum())
        _note_hosts(tally, g, known, h[host])
        _note_strays(tally, g[known], h[host], files.box_size_mpc_h)
        mass = np.full(len(g), np.nan)
        mass[known] = h["log10_m200c"][host]
        resolved = h["log10_m200c"] >= log10_m200c_min
        kept = np.zeros(int(resolved.sum()), CELL_HALO)
        for name in ("id", "position", "velocity", "log10_m200c"):
            kept[name] = h[name][resolved]
        kept["key"] = grid.cell_of(kept["position"])
        kept["n_galaxies"] = np.bincount(host, minlength=len(h))[resolved]
        out = np.zeros(len(g), CELL_GALAXY)
        for name in ("position", "velocity", "magnitude"):
            out[name] = g[name]
        out["key"] = grid.cell_of(out["position"])
        out["host_log10_m200c"] = np.where(mass >= log10_m200c_min, mass, np.nan)
        halo_cells.add(number, kept, {})
        galaxy_cells.add(number, out, {"tally": tally.as_json()})
    if not tally.rows:
        raise InputError(
            "no galaxy has its host among the haloes", file=", ".join(files.galaxies),
            column="MainHaloID", remedy="Give haloes and galaxies of the same snapshot, with "
            "mock.files.columns host=... if the host's id has another name",
        )  # fmt: skip
    if tally.strays > _STRAYS_MAX * tally.centrals:
        raise InputError(
            f"{tally.strays} of {tally.centrals} central galaxies do not lie at their haloes: "
            f"{tally.stray}", file=", ".join(files.galaxies), column="X, Y, Z",
            remedy="Positions of both must be comoving Mpc/h, of the same snapshot",
        )  # fmt: skip
    return tally


def _check_unique(haloes: Rows, paths: tuple[str, ...]) -> None:
    twice = np.flatnonzero(np.diff(haloes["key"]) == 0)
    if len(twice):
        raise InputError(
            "a halo appears twice", file=", ".join(paths), column="id",
            value=int(haloes["id"][twice[0]]), remedy="Give every file once, of one snapshot",
        )  # fmt: skip


def _note_strays(tally: Tally, galaxies: Rows, hosts: Rows, box_mpc_h: float) -> None:
    """Count centrals (of distinct haloes) that lie farther from their halo than any finder errs."""
    central = galaxies["central"] & hosts["distinct"]
    galaxies, hosts = galaxies[central], hosts[central]
    offset = galaxies["position"].astype(float) - hosts["position"]
    offset -= box_mpc_h * np.rint(offset / box_mpc_h)
    astray = np.linalg.norm(offset, axis=1) > _STRAY_MPC_H
    tally.centrals += len(galaxies)
    tally.strays += int(astray.sum())
    if astray.any() and not tally.stray:
        first = int(np.argmax(astray))
        tally.stray = (
            f"that of halo {hosts['id'][first]} at {np.round(galaxies['position'][first], 3)}, "
            f"the halo at {np.round(hosts['position'][first], 3)}"
        )


def _note_hosts(tally: Tally, galaxies: Rows, known: NDArray[np.bool_], hosts: Rows) -> None:
    """Count galaxies without a host in the files, and those whose host is a subhalo."""
    lost = galaxies[~known]
    if len(lost):
        tally.note(
            "galaxy", "host halo is not in the files; kept without host", len(lost),
            f"MainHaloID {lost['key'][0]}",
        )  # fmt: skip
    sub = hosts[~hosts["distinct"]]
    if len(sub):
        tally.note(
            "galaxy", "host halo is a subhalo; kept without host", len(sub),
            f"MainHaloID {sub['id'][0]}",
        )  # fmt: skip
