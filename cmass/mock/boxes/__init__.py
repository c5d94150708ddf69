"""Simulation files as a source of haloes: ROCKSTAR haloes with SAG galaxies in a periodic box.

The files are sorted into cells on disk once (`sort`), and every halo is then served with what is
around it by reading the cells it needs. A box of 10⁸ galaxies never sits in memory.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cmass.errors import ParameterError
from cmass.mock.boxes.sort import sort_box
from cmass.mock.boxes.source import BoxSource
from cmass.params import Params
from cmass.shards import digest_of, source_digest
from cmass.workspace import Workspace

log = logging.getLogger(__name__)


def given_files(paths: tuple[str, ...], parameter: str) -> tuple[Path, ...]:
    """The paths of a parameter; raises where there are none or one is no file."""
    if not paths:
        raise ParameterError(f"{parameter}: mock.source needs files; give their paths there")
    for path in paths:
        if not Path(path).is_file():
            raise ParameterError(f"{parameter}: no file {path}")
    return tuple(Path(path) for path in paths)


def open_box(workspace: Workspace, params: Params) -> BoxSource:
    """The box of ``mock.files``, sorted into cells below ``boxes/`` unless it is already.

    Raises
    ------
    ParameterError
        A path is missing, or the surroundings of a halo do not fit into the box.
    InputError
        A file is not what it should be.
    """
    files, environment = params.mock.files, params.mock.environment
    paths = (
        *given_files(files.haloes, "mock.files.haloes"),
        *given_files(files.galaxies, "mock.files.galaxies"),
    )
    if 2 * environment.radius_mpc_h > files.box_size_mpc_h:
        raise ParameterError(
            f"mock.environment.radius_mpc_h {environment.radius_mpc_h:g} is more than half of "
            f"mock.files.box_size_mpc_h {files.box_size_mpc_h:g}: a halo would see itself again"
        )
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    identity = digest_of(
        states, files.model_dump(mode="json"), environment.log10_m200c_min,
        params.cosmology.omega_m, source_digest("mock/boxes"),
    )  # fmt: skip
    folder = workspace.boxes / identity[:16]
    sort_box(files, environment.log10_m200c_min, params.cosmology.omega_m, folder)
    return BoxSource(folder.resolve(), identity)
