"""Everything that belongs to a trained model, as one folder that the registry keeps.

The network's weights alone give no masses: it takes the posteriors' pairs, what mocks look like,
the evidence that the release shows, and the mocks that the survey is compared with. Voxels and
the galaxies of training windows are left out: no step after the training reads them, save one figure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmass import pretrained
from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.shards import digest_of
from cmass.tables import file_digest, write_json
from cmass.workspace import Workspace

SETTINGS = pretrained.SETTINGS_FILE
_CONTENT = (
    "population", "split", "mock/clusters", "model", "posterior", "oddity", "evaluation", "rivals",
)  # fmt: skip
#: What its hand-overs were found to be goes with it, and does not make it another one.
_CONTRACTS = "contracts"
#: Which version the training became is no part of it.
_LEFT_OUT = {"model/registry.json"}


def made_for(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a model must share with a run to give its masses, of parameters as JSON has them."""
    sections = {name: dict(settings[name]) for name in ("window", "voxels", "cosmology")}
    sections["voxels"].pop("clusters_per_shard", None)  # how they lie on disk is no matter
    return sections


def stage(workspace: Workspace, params: Params, folder: Path) -> str:
    """Lay the latest training out in `folder`, by hard links; returns its digest.

    Raises
    ------
    WorkspaceError
        A product is missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name in _CONTENT:
        source = workspace.home / name
        if not source.exists():
            raise WorkspaceError(f"{source} is not there: run `cmass run` for all steps")
        link_files(source, folder / name)
    for name in _LEFT_OUT:
        (folder / name).unlink(missing_ok=True)
    link_files(workspace.contracts(per_survey=False), folder / _CONTRACTS)
    write_json(folder / SETTINGS, pretrained.settings_of(workspace, params))
    return digest(folder)


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of a bundle; what a champion has beside it does not count."""
    files = [folder / SETTINGS]
    for name in _CONTENT:
        files += sorted(p for p in (folder / name).rglob("*") if p.is_file())
    named = {p.relative_to(folder).as_posix(): p for p in files if p.is_file()}
    return digest_of({n: file_digest(p) for n, p in named.items() if n not in _LEFT_OUT})


def link_files(source: Path, target: Path) -> None:
    """Hard links in `target` of all files below `source`; copies where links cannot be had.

    Products are never changed in place, only replaced, so that a link keeps what it had.
    """
    for file in sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith(".")):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, place)
        except OSError:
            shutil.copy2(file, place)
