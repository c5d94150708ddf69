"""champion: bring the model that the registry's alias names into the workspace."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.promotion import bundle
from cmass.promotion.tags import (
    BUNDLE,
    BY_HAND,
    REASONS,
    TAKEN_BACK,
    VERDICT,
    place_of,
    reasons_of,
)
from cmass.registry import Registry, Version
from cmass.secrets import address
from cmass.tables import file_digest, read_json, write_json
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Names the version in a champion's folder.
CARD = "champion.json"
_GALAXIES = "galaxies_sha256"


def outside(workspace: Workspace, params: Params) -> dict[str, Any]:
    """What the registry says now: version and bundle behind the alias."""
    version = Registry(workspace).champion()
    if version is None:
        return {}
    return {"version": version.number, "bundle": version.tags.get(BUNDLE)}


def run(workspace: Workspace, params: Params) -> None:
    """Lay out the champion below ``champion/``: from the workspace if it has it, else from the registry.

    Raises
    ------
    WorkspaceError
        There is no champion, its bundle is damaged, or it was made for other parameters.
    """
    registry = Registry(workspace)
    version = registry.champion()
    if version is None:
        raise WorkspaceError(_nobody(workspace, registry))
    bring(workspace, params, registry, version)
    _check_parameters(workspace, params, registry, version)
    log.info("champion: %s version %s", registry.name, version.number)


def bring(workspace: Workspace, params: Params, registry: Registry, version: Version) -> None:
    """Put the bundle of a version in ``champion/``, unless it lies there.

    Raises
    ------
    WorkspaceError
        There is no bundle, or it is damaged; what lay there before stays.
    """
    wanted = version.tags.get(BUNDLE)
    if wanted is None:
        raise WorkspaceError(
            f"{registry.name} version {version.number} is the champion, but was never judged: the "
            "registry has its weights and nothing else. Give the alias to another one with "
            "`cmass promote VERSION`"
        )
    card, there = _card(registry, version), workspace.champion / CARD
    if there.exists() and bundle.digest(workspace.champion) == wanted:
        known = read_json(there)
        have = _galaxies_digest(workspace.champion)
        card[_GALAXIES] = expected = known.get(_GALAXIES) or have
        if have != expected:
            _heal_galaxies(workspace, expected)
        if known != card:
            write_json(there, card)
        return
    staging = workspace.home / "champion.partial"
    try:
        _stage(workspace, params, registry, version, wanted, staging)
        write_json(staging / CARD, card | {_GALAXIES: _galaxies_digest(staging)})
        _put_in_place(staging, workspace.champion)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _galaxies_digest(folder: Path) -> str | None:
    """Digest of the galaxies of a champion's windows, which are no part of its bundle."""
    galaxies = folder / "mock" / "galaxies"
    return file_digest(galaxies) if galaxies.exists() else None


def _heal_galaxies(workspace: Workspace, expected: str | None) -> None:
    """Galaxies of the champion's windows that are damaged or gone, from the workspace if it has them."""
    place, source = workspace.champion / "mock" / "galaxies", workspace.mock / "galaxies"
    shutil.rmtree(place, ignore_errors=True)
    if source.exists() and file_digest(source) == expected:
        bundle.link_files(source, place)
        log.warning("champion: galaxies of its windows were damaged or gone: brought again")
        return
    log.warning(
        "champion: galaxies of its windows are damaged or gone, and %s holds no others of it: figures that "
        "show them are left out until `cmass mock` has made them again as they were", source,
    )  # fmt: skip


def _stage(
    workspace: Workspace, params: Params, registry: Registry, version: Version, wanted: str,
    staging: Path,
) -> None:  # fmt: skip
    if _is_complete(workspace) and bundle.stage(workspace, params, staging) == wanted:
        bundle.link_files(workspace.mock / "galaxies", staging / "mock" / "galaxies")
        return
    shutil.rmtree(staging, ignore_errors=True)
    inbox = staging.with_name(f"{staging.name}.inbox")
    shutil.rmtree(inbox, ignore_errors=True)
    try:
        registry.download(version, place_of(wanted), inbox).rename(staging)
    finally:
        shutil.rmtree(inbox, ignore_errors=True)
    if bundle.digest(staging) != wanted:
        raise registry.lost(version, "does not match its checksum")


def _is_complete(workspace: Workspace) -> bool:
    needed = (
        workspace.model / "registry.json", workspace.rivals, workspace.evaluation, workspace.oddity,
        workspace.posterior, workspace.population, workspace.split, workspace.mock / "galaxies",
    )  # fmt: skip
    return all(path.exists() for path in needed)


def _check_parameters(
    workspace: Workspace, params: Params, registry: Registry, version: Version
) -> None:
    """Raise where the champion was made for what this run does not ask for."""
    made_for = bundle.made_for(read_json(workspace.champion / bundle.SETTINGS))
    asked = bundle.made_for(params.model_dump(mode="json"))
    for section, values in asked.items():
        for name, value in values.items():
            if made_for[section].get(name) != value:
                raise WorkspaceError(
                    f"{registry.name} version {version.number}, the champion, was made with {section}."
                    f"{name} {made_for[section].get(name)}; the parameters say {value}. Set it back"
                    f", or train a model for it{_last_words(workspace)}"
                )


def _card(registry: Registry, version: Version) -> dict[str, Any]:
    tags = version.tags
    return {
        "name": registry.name,
        "version": version.number,
        "run_id": version.run_id,
        "bundle_sha256": tags[BUNDLE],
        "weights_sha256": tags.get("weights.sha256"),
        "code_commit": tags.get("code.commit", "unknown"),
        "verdict": tags.get(VERDICT, "by hand"),
        "reasons": tags.get(BY_HAND) or tags.get(REASONS, ""),
    }


def _put_in_place(staging: Path, target: Path) -> None:
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _nobody(workspace: Workspace, registry: Registry) -> str:
    return (
        f"{registry.name} has no champion at {address(registry.uri)}, so nothing can give masses"
        f"{_last_words(workspace)}. Train a better one, change the gates (section `judge` of "
        "params.yaml), or take one as it is with `cmass promote VERSION`"
    )


def _last_words(workspace: Workspace) -> str:
    if not workspace.decision.exists():
        return ""
    return f" ({reasons_of(read_json(workspace.decision))})"


def promote(workspace: Workspace, number: str, reason: str) -> Version | None:
    """Give the alias to a version by hand: a rollback, or a model taken as it is.

    The version that had it is marked, so that no later judgement gives it back by itself.

    Returns
    -------
    Version or None
        The version that had the alias.

    Raises
    ------
    WorkspaceError
        There is no such version, or it was never judged.
    """
    registry = Registry(workspace)
    version = registry.version(number)
    if BUNDLE not in version.tags:
        raise WorkspaceError(
            f"{registry.name} version {number} was never judged: there is nothing but its weights. "
            "Run `cmass judge` on its training first"
        )
    before = registry.champion()
    if before is not None and before.number == number:
        return before
    registry.tag(number, {BY_HAND: reason})
    registry.untag(number, TAKEN_BACK)
    if before is not None:
        registry.tag(before.number, {TAKEN_BACK: reason})
    registry.crown(number)
    return before
