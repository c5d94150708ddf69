"""The authors' own text files: windows that were observed already (Kodi Ramanah+2020).

``clusters_M200c_SAG_v3.0_4Mpch`` has one line a window: id, log10 M200c, comoving distance, position
of the halo (x, y, z), line of sight (x, y, z), scale factor. ``galaxies_XYvZ_SAG_v3.0_4Mpch`` has one
line a galaxy: number of its window from 1, x, y, v. They become the mock tables as they are; what
they do not hold (magnitudes, members, hosts) is missing. With hlist tables of their snapshots, eq. 6
is worked out too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cmass import cosmology as background
from cmass.columns import FLAGS
from cmass.errors import InputError, ParameterError
from cmass.mock.boxes.rockstar import HALO, read_haloes, read_header
from cmass.mock.boxes.sorting import SortedRuns, merge
from cmass.mock.boxes.tally import Tally
from cmass.mock.boxes.text import Place, header_lines, text_blocks
from cmass.mock.contamination import box_contaminants
from cmass.mock.sources import Remark
from cmass.params import Params
from cmass.shards import digest_of, source_digest, staged_folder
from cmass.tables import make_table, write_table
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

Array = NDArray[np.float64]

_CLUSTER = ["id", "log10_m200c", "distance", "x", "y", "z", "los_x", "los_y", "los_z", "scale"]
_GALAXY = ["cluster", "x", "y", "v"]
#: One galaxy of a window, by the number of its window.
WINDOW_GALAXY = np.dtype([("key", "i8"), ("x", "f8"), ("y", "f8"), ("v", "f8")])
#: Positions in the clusters file are rounded to 0.001 h⁻¹ Mpc, masses to 0.001 dex.
_SAME_MPC_H, _SAME_DEX = 2e-3, 2e-3
#: Rounding at the edges of the window.
_SLACK = 1.001


def _read(path: Path, names: list[str]) -> Iterator[tuple[dict[str, Array], int]]:
    """Columns of a headerless text file as numbers, block by block, with their first row."""
    _, start = header_lines(path)
    wanted = {name: name for name in names}
    for block in text_blocks(path, names, wanted, r"\s+", Place(0, start)):
        for name, values in block.columns.items():
            bad = ~np.isfinite(values.astype(float))
            if bad.any():
                raise InputError(
                    "missing value", file=path, column=name,
                    row=block.first_row + int(np.argmax(bad)),
                    remedy=f"Every line has {len(names)} values: {', '.join(names)}",
                )  # fmt: skip
        yield block.columns, block.first_row


def _within(
    values: Array, low: float, high: float, path: Path, column: str, row: int, remedy: str
) -> None:
    bad = ~((values >= low) & (values <= high))
    if bad.any():
        i = int(np.argmax(bad))
        raise InputError(
            f"must be from {low:g} to {high:g}", file=path, column=column, row=row + i,
            value=float(values[i]), remedy=remedy,
        )  # fmt: skip


def read_clusters(path: Path, params: Params) -> dict[str, Array]:
    """Columns of the clusters file, checked.

    Raises
    ------
    InputError
        A value is missing or cannot be in the units that the file should have.
    """
    parts = []
    box, farthest = params.mock.files.box_size_mpc_h, params.window.distance_max_mpc_h
    for columns, row in _read(path, _CLUSTER):
        for name, low, high, remedy in (
            ("log10_m200c", 10.0, 16.5, "The second column is log10 M200c, Msun/h"),
            ("distance", 1.0, _SLACK * farthest,
             "Distances are comoving Mpc/h, at most window.distance_max_mpc_h"),
            ("x", 0.0, box, "Positions are comoving Mpc/h; see mock.files.box_size_mpc_h"),
            ("y", 0.0, box, "Positions are comoving Mpc/h; see mock.files.box_size_mpc_h"),
            ("z", 0.0, box, "Positions are comoving Mpc/h; see mock.files.box_size_mpc_h"),
            ("scale", 0.5, 1.0, "The last column is the scale factor of the snapshot"),
        ):  # fmt: skip
            _within(columns[name].astype(float), low, high, path, name, row, remedy)
        parts.append(columns)
    if not parts:
        raise InputError("no cluster in the file", file=path)
    return {name: np.concatenate([p[name] for p in parts]).astype(float) for name in _CLUSTER}


def read_galaxies(path: Path, n_clusters: int, params: Params) -> Iterator[NDArray[np.void]]:
    """Rows of the galaxies file as `WINDOW_GALAXY`, block by block, checked.

    Parameters
    ----------
    path : Path
    n_clusters : int
        Lines of the clusters file.
    params : Params

    Raises
    ------
    InputError
        A value is missing, outside the window, or names no cluster.
    """
    window = params.window
    wide, fast = _SLACK * window.half_width_mpc_h, _SLACK * window.v_max_km_s
    for columns, row in _read(path, _GALAXY):
        remedy = f"It is the line of the clusters file, from 1 to {n_clusters}"
        _within(columns["cluster"], 1, n_clusters, path, "cluster", row, remedy)
        remedy = "x and y are proper Mpc/h, inside window.half_width_mpc_h"
        _within(columns["x"], -wide, wide, path, "x", row, remedy)
        _within(columns["y"], -wide, wide, path, "y", row, remedy)
        remedy = "v is in km/s, inside window.v_max_km_s"
        _within(columns["v"], -fast, fast, path, "v", row, remedy)
        rows = np.zeros(len(columns["x"]), WINDOW_GALAXY)
        rows["key"] = columns["cluster"].astype(np.int64) - 1
        for name in ("x", "y", "v"):
            rows[name] = columns[name]
        yield rows


def _sort_galaxies(path: Path, n_clusters: int, runs: SortedRuns, params: Params) -> None:
    """Read the galaxies into runs sorted by window."""
    held: list[NDArray[np.void]] = []
    for rows in read_galaxies(path, n_clusters, params):
        held.append(rows)
        if sum(map(len, held)) >= params.mock.files.rows_in_memory:
            runs.add(len(runs), np.concatenate(held), {})
            held = []
    if held:
        runs.add(len(runs), np.concatenate(held), {})


def _contaminants(
    clusters: dict[str, Array], paths: tuple[Path, ...], params: Params, remarks: list[Remark]
) -> tuple[Array, Array]:
    """Mass ratio and distance of eq. 6 (W,), from the hlist table of each snapshot."""
    files, cosmology = params.mock.files, background.from_params(params.cosmology)
    n = len(clusters["scale"])
    ratio, distance = np.full(n, np.nan), np.full(n, np.nan)
    matched = np.zeros(n, bool)
    lightest = clusters["log10_m200c"].min() - _SAME_DEX
    for path in paths:
        scale = _scale_of(path, params)
        rows = np.flatnonzero(np.abs(clusters["scale"] - scale) < 5e-4)
        at = files.model_copy(update={"scale_factor": scale})
        parts = [np.zeros(0, HALO)]
        for haloes, _ in read_haloes(path, None, at, params.cosmology.omega_m, Tally()):
            parts.append(haloes[haloes["log10_m200c"] >= lightest])
        haloes = np.concatenate(parts)
        if not len(haloes) or not len(rows):
            continue
        place = np.stack([clusters[c][rows] for c in "xyz"], axis=1) % files.box_size_mpc_h
        tree = cKDTree(haloes["position"] % files.box_size_mpc_h, boxsize=files.box_size_mpc_h)
        away, own = tree.query(place, distance_upper_bound=_SAME_MPC_H * np.sqrt(3))
        found = np.isfinite(away)
        own = np.where(found, own, 0)
        difference = haloes["log10_m200c"][own] - clusters["log10_m200c"][rows]
        found &= np.abs(difference) < _SAME_DEX
        rows, own = rows[found], own[found]
        matched[rows] = True
        sight = np.stack([clusters[f"los_{c}"][rows] for c in "xyz"], axis=1)
        length = np.linalg.norm(sight, axis=1, keepdims=True)
        along_z = np.array([0.0, 0.0, 1.0])  # the authors' own choice where no direction is given
        sight = np.where(length > 0, sight / np.where(length > 0, length, 1), along_z)
        worst = box_contaminants(
            haloes["position"].astype(float), haloes["velocity"].astype(float),
            haloes["log10_m200c"].astype(float), own, sight, clusters["distance"][rows],
            1 / scale - 1, files.box_size_mpc_h, params.mock.environment.radius_mpc_h,
            params.window.half_width_mpc_h, params.window.v_max_km_s, cosmology,
        )  # fmt: skip
        ratio[rows], distance[rows] = worst.mass_ratio, worst.distance
    if not matched.all():
        first = int(np.argmin(matched))
        remarks.append(
            Remark("window", "its halo is in no hlist table: contamination unknown",
                   int((~matched).sum()), f"line {first + 1} of the clusters file")
        )  # fmt: skip
    return ratio, distance


def _scale_of(path: Path, params: Params) -> float:
    """Scale factor of the first halo of an hlist table."""
    names, start = read_header(path, params.mock.files, params.cosmology.omega_m)
    column = next((n for n in names if n.lower() == "scale"), names[0])
    for block in text_blocks(path, names, {"scale": column}, r"\s+", start, block_bytes=1 << 16):
        if len(block.columns["scale"]):
            return float(block.columns["scale"][0])
    raise InputError("no halo in the file", file=path)


def run(workspace: Workspace, params: Params) -> None:
    """Make the mock catalogue of the authors' files: ``mock/clusters`` and ``mock/galaxies``.

    Raises
    ------
    ParameterError
        A path is missing.
    InputError
        A file is not what it should be.
    """
    from cmass.mock import SECTIONS, write_remarks
    from cmass.mock.boxes import given_files

    files = params.mock.files
    if files.clusters is None:
        raise ParameterError("mock.files.clusters: mock.source authors needs the clusters file")
    (cluster_file,) = given_files((files.clusters,), "mock.files.clusters")
    galaxy_files = given_files(files.galaxies, "mock.files.galaxies")
    halo_files = given_files(files.haloes, "mock.files.haloes") if files.haloes else ()
    paths = (cluster_file, *galaxy_files, *halo_files)
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    values = params.model_dump(mode="json")
    digest = digest_of({s: values[s] for s in SECTIONS}, states, source_digest("mock"))
    remarks: list[Remark] = []
    clusters = read_clusters(cluster_file, params)
    n = len(clusters["scale"])
    if halo_files:
        contaminants = _contaminants(clusters, halo_files, params, remarks)
    else:
        contaminants = np.full(n, np.nan), np.full(n, np.nan)
        remarks.append(
            Remark("window", "no hlist table given: contamination unknown", n, cluster_file.name)
        )
    with staged_folder(workspace.mock, digest) as partial:
        work = partial / "work"
        runs = SortedRuns(work, WINDOW_GALAXY)
        # What a broken run read is read again: it does not say how far it came.
        runs.clear()
        for path in galaxy_files:
            _sort_galaxies(path, n, runs, params)
        counts = _write_shards(runs, clusters, contaminants, partial, params)
        for file in work.iterdir():
            file.unlink()
        work.rmdir()
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        remarks.append(
            Remark("window", "has no galaxy: flagged", len(empty),
                   f"line {empty[0] + 1} of the clusters file")
        )  # fmt: skip
    write_remarks(workspace, remarks)
    log.info("mock: %d windows of the authors' files, %d galaxies", n, counts.sum())


def _write_shards(
    runs: SortedRuns, clusters: dict[str, Array], contaminants: tuple[Array, Array], folder: Path,
    params: Params,
) -> NDArray[np.int64]:  # fmt: skip
    """Write both tables, some windows a shard; return the galaxies of each window."""
    n = len(clusters["scale"])
    place = np.stack([clusters[c] for c in ("x", "y", "z", "scale")], axis=1)
    _, halo = np.unique(place, axis=0, return_inverse=True)
    halo = halo.ravel()
    order = np.argsort(halo, kind="stable")
    first = np.searchsorted(halo[order], halo[order])
    sight_line = np.empty(n, np.int64)
    sight_line[order] = np.arange(n) - first
    counts = np.zeros(n, np.int64)
    pieces = merge([runs], params.mock.files.rows_in_memory)
    start, ahead = 0, next(pieces, None)
    number = 0
    while ahead is not None:
        (galaxies,), ahead = ahead, next(pieces, None)
        # The last piece also has the windows without galaxies at the end.
        stop = n if ahead is None else int(galaxies["key"].max(initial=start - 1)) + 1
        rows = np.arange(start, stop)
        counts[rows] = np.bincount(galaxies["key"] - start, minlength=len(rows))
        _write_shard(
            number, rows, galaxies, clusters, contaminants, halo, sight_line, counts, folder, params
        )
        start, number = stop, number + 1
    return counts


def _write_shard(
    number: int, rows: NDArray[np.int64], galaxies: NDArray[np.void], clusters: dict[str, Array],
    contaminants: tuple[Array, Array], halo: NDArray[np.int64], sight_line: NDArray[np.int64],
    counts: NDArray[np.int64], folder: Path, params: Params,
) -> None:  # fmt: skip
    cosmology = background.from_params(params.cosmology)
    mass = 10 ** clusters["log10_m200c"][rows]
    z_snapshot = 1 / clusters["scale"][rows] - 1
    ids = np.array([f"authors-{row + 1:06d}" for row in rows])
    few = counts[rows] < params.window.n_galaxies_min
    missing = [None] * len(rows)
    cluster_table = make_table(
        "mock_clusters",
        {
            "cluster_id": ids,
            "halo_id": halo[rows],
            "sight_line": sight_line[rows],
            "z": cosmology.redshift(clusters["distance"][rows]),
            "distance_mpc_h": clusters["distance"][rows],
            "log10_m200c_true": clusters["log10_m200c"][rows],
            "r200c_mpc_h": cosmology.r200c_mpc_h(mass, z_snapshot),
            "v200c_km_s": cosmology.v200c_km_s(mass, z_snapshot),
            "n_galaxies": counts[rows],
            "n_members": missing,
            "contaminant_mass_ratio": contaminants[0][rows],
            "contaminant_distance": contaminants[1][rows],
            "nuisance": missing,
            "flag": np.where(few, FLAGS["too_few_galaxies"].value, 0),
        },
    )
    unknown = [None] * len(galaxies)
    galaxy_table = make_table(
        "mock_galaxies",
        {
            "cluster_id": ids[galaxies["key"] - rows[0]] if len(rows) else [],
            "x_proj": galaxies["x"],
            "y_proj": galaxies["y"],
            "v_los": galaxies["v"],
            "r_mag": unknown,
            "galaxy_class": unknown,
            "host_log10_m200c": unknown,
        },
    )
    name = f"shard-{number:05d}.parquet"
    write_table(folder / "clusters" / name, cluster_table, "mock_clusters")
    write_table(folder / "galaxies" / name, galaxy_table, "mock_galaxies")
