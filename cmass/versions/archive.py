"""Keep a release with everything that it was made of."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.pipeline import what_changed, workspace_lock
from cmass.promotion.bundle import link_files
from cmass.publish.release import SUMS, check_sums, complete_releases, version_folder
from cmass.tables import file_digest, read_json
from cmass.versions import tags
from cmass.versions.store import Store
from cmass.workspace import Workspace

log = logging.getLogger(__name__)

#: Folder of the store, below the data folder.
FOLDER = "archive"
#: What an archived version holds.
RAW, CHAMPION, RELEASE, PARAMETERS = "raw", "champion", "release", "params.yaml"


def archive(data: Path, version: str = "latest") -> str:
    """Archive a release, push it where a remote is named, and tag its commit.

    Parameters
    ----------
    data : Path
        The data folder.
    version : str
        A release in it.

    Returns
    -------
    str
        The version.

    Raises
    ------
    WorkspaceError
        The release is not whole, its inputs are no longer those in the workspace, or its code was
        not committed: then nobody could make it again.
    """
    release = version_folder(data / "release", version)
    check_sums(release)
    facts = read_json(release / "provenance.json")
    root = tags.clone()
    _check_code(facts, release)
    store = Store(data / FOLDER)
    store.open()
    if tags.read(root, release.name) is None:
        params = Params.model_validate(facts["parameters"])
        workspace = Workspace(data, params.profile, facts["release"]["survey"])
        with workspace_lock(workspace):  # from the check of its inputs until they are copied
            message = _take_in(store, workspace, params, release, facts)
        tags.write(root, release.name, facts["software"]["git_commit"], message)
        log.info("archived %s, tag %s%s", release.name, tags.PREFIX, release.name)
    else:
        log.info("%s is archived already", release.name)
    remote = store.remote()
    if remote is None:
        log.warning(
            "archive: no remote is named (CMASS_REMOTE, or `dvc remote add` in %s): %s lies on this "
            "machine only", store.folder, release.name,
        )  # fmt: skip
    else:
        for name in store.push():
            log.info("archive: %s is at %s", name, remote)
    return release.name


def is_kept(data: Path, version: str = "latest") -> bool:
    """Whether a release is archived, and at the remote where one is named."""
    release = version_folder(data / "release", version)
    try:
        tagged = tags.read(tags.clone(), release.name) is not None
    except WorkspaceError:  # no clone
        return False
    store = Store(data / FOLDER)
    store.open()
    return tagged and store.is_pushed(release.name)


def obstacle(data: Path, version: str = "latest") -> str | None:
    """Why a release cannot be archived, whatever its inputs; None where it can."""
    release = version_folder(data / "release", version)
    try:
        tags.clone()
        _check_code(read_json(release / "provenance.json"), release)
    except WorkspaceError as error:
        return str(error)
    return None


def _check_code(facts: dict[str, Any], release: Path) -> None:
    state = facts["software"].get("git_state", "unknown")
    if state != "clean":
        raise WorkspaceError(
            f"{release} was made with code or parameters that are not committed ({state}): it could "
            "not be made again. Commit them and run publish again"
        )


def _take_in(
    store: Store, workspace: Workspace, params: Params, release: Path, facts: dict[str, Any]
) -> str:
    """Lay out the version and give it to the store; returns the tag's message."""
    _check_inputs(workspace, params, release)
    home = store.folder / release.name
    shutil.rmtree(home, ignore_errors=True)
    link_files(workspace.raw, home / RAW)
    link_files(workspace.champion, home / CHAMPION)
    # It serves one figure, and is larger than all the rest.
    shutil.rmtree(home / CHAMPION / "mock" / "galaxies", ignore_errors=True)
    link_files(release, home / RELEASE)
    (home / PARAMETERS).write_text(yaml.safe_dump(facts["parameters"]), encoding="utf-8")
    digest = file_digest(home)
    pointer = store.put(release.name)
    return json.dumps({"version": release.name, "sha256": digest, "pointer": pointer}, indent=1)


def _check_inputs(workspace: Workspace, params: Params, release: Path) -> None:
    """Raise unless raw and champion are those that `release` was made of."""
    receipt = read_json(workspace.receipt) if workspace.receipt.exists() else {}
    if receipt.get("version") != release.name:
        raise WorkspaceError(
            f"{workspace.home} holds what {receipt.get('version', 'no release')} was made of, not "
            f"{release.name}: archive a release right after it was published"
        )
    for name in ("select", "infer", "publish"):
        if (changed := what_changed(name, workspace, params)) is not None:
            raise WorkspaceError(
                f"products are not those of {release} ({name}: {changed}): run `cmass run`, then archive"
            )


def archived(data: Path, version: str) -> dict[str, str]:
    """What the tag of a version says: ``version``, ``sha256`` and ``pointer``.

    Raises
    ------
    WorkspaceError
        There is no such version.
    """
    root = tags.clone()
    message = tags.read(root, version)
    if message is None:
        known = ", ".join(tags.versions(root)) or "none"
        raise WorkspaceError(
            f"{version} is not archived here (tags {tags.PREFIX}*: {known}). `cmass archive` keeps the "
            "latest release; `git fetch --tags` brings tags that another clone has made"
        )
    said: dict[str, str] = json.loads(message)
    return said


def listed(data: Path) -> list[dict[str, str]]:
    """One row a version, released or archived, oldest first, for people to read."""
    folders = complete_releases(data / "release") if (data / "release").is_dir() else []
    latest = data / "release" / "latest"
    try:
        known = tags.versions(tags.clone())
    except WorkspaceError:  # no clone: nothing can be archived
        known = []
    rows = []
    for folder in folders:
        facts = read_json(folder / "provenance.json")
        model = facts.get("registry", {})
        rows.append(
            {
                "version": folder.name,
                "latest": "yes" if latest.resolve() == folder.resolve() else "",
                "made of": f"{facts['release']['profile']}/{facts['release']['survey']}",
                "model": f"{model['name']} version {model['version']}" if model else "",
                "commit": facts["software"].get("git_commit", "")[:10],
                "archived": "yes" if folder.name in known else "",
            }
        )
    gone = [version for version in known if version not in {f.name for f in folders}]
    empty = dict.fromkeys(("latest", "made of", "model", "commit"), "")
    return [{"version": v, **empty, "archived": "yes"} for v in gone] + rows


def parquet_sums(folder: Path) -> dict[str, str]:
    """Checksums of the Parquet files of a release, by name, as its SHA256SUMS has them."""
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("  ", 1) for line in lines)
    return {name: digest for digest, name in pairs if name.endswith(".parquet")}
