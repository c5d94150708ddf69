"""Keep a release with everything that it was made of."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.pipeline import what_changed, workspace_lock
from cmass.promotion.bundle import link_files
from cmass.publish.changes import FILE as CHANGES
from cmass.publish.release import check_sums, complete_releases, listed_sums, version_folder
from cmass.tables import file_digest, read_json, write_json
from cmass.versions import tags
from cmass.versions.store import Store
from cmass.workspace import SITE, Workspace

log = logging.getLogger(__name__)

#: Folder of the store, below the data folder.
FOLDER = "archive"
#: What an archived version holds.
RAW, CHAMPION, RELEASE, PARAMETERS = "raw", "champion", "release", "params.yaml"
#: Releases that nobody wants archived by themselves.
_DECLINED = "declined.json"


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
    tagged = tags.read(root, release.name)
    if tagged is None:
        said = _take_in(store, release, facts)
        tags.write(root, release.name, facts["software"]["git_commit"], json.dumps(said, indent=1))
        log.info("archived %s, tag %s%s", release.name, tags.PREFIX, release.name)
    elif store.holds(release.name):
        log.info("%s is archived already", release.name)
    else:
        _bring_back(store, release, facts, json.loads(tagged))
        log.info("%s was archived elsewhere, and is here now", release.name)
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
    return tagged and store.holds(release.name) and store.is_pushed(release.name)


def obstacle(data: Path, version: str = "latest") -> str | None:
    """Why a release that is not archived cannot be; None where it can."""
    release = version_folder(data / "release", version)
    facts = read_json(release / "provenance.json")
    try:
        root = tags.clone()
        _check_code(facts, release)
        if tags.read(root, release.name) is None:
            _check_inputs(*_made_in(release, facts), release)
    except WorkspaceError as error:
        return str(error)
    return None


def decline(data: Path, version: str = "latest") -> None:
    """Remember that nobody wants a release archived by itself; `archive` may still be asked to."""
    file = data / FOLDER / _DECLINED
    name = version_folder(data / "release", version).name
    write_json(file, sorted({name, *_declined(data)}))


def is_declined(data: Path, version: str = "latest") -> bool:
    """Whether `decline` was told so of a release."""
    return version_folder(data / "release", version).name in _declined(data)


def _declined(data: Path) -> list[str]:
    file = data / FOLDER / _DECLINED
    return list(read_json(file)) if file.exists() else []


def _made_in(release: Path, facts: dict[str, Any]) -> tuple[Workspace, Params]:
    """The workspace that a release was made in, and its parameters."""
    params = Params.model_validate(facts["parameters"])
    return Workspace(release.parents[1], params.profile, facts["release"]["survey"]), params


def _check_code(facts: dict[str, Any], release: Path) -> None:
    state = facts["software"].get("git_state", "unknown")
    if state != "clean":
        raise WorkspaceError(
            f"{release} was made with code or parameters that are not committed ({state}): it could "
            "not be made again. Commit them and run publish again"
        )


def _take_in(
    store: Store, release: Path, facts: dict[str, Any], sha256: str | None = None
) -> dict[str, str]:
    """Lay out the version and give it to the store, if it has that digest; returns what its tag says."""
    workspace, params = _made_in(release, facts)
    home = store.folder / release.name
    with workspace_lock(workspace):  # from the check of its inputs until they are copied
        _check_inputs(workspace, params, release)
        shutil.rmtree(home, ignore_errors=True)
        link_files(workspace.raw, home / RAW)
        link_files(workspace.champion, home / CHAMPION)
        # It serves one figure, and is larger than all the rest.
        shutil.rmtree(home / CHAMPION / "mock" / "galaxies", ignore_errors=True)
        link_files(release, home / RELEASE)
        shutil.rmtree(home / RELEASE / SITE, ignore_errors=True)  # made of the rest
        (home / PARAMETERS).write_text(yaml.safe_dump(facts["parameters"]), encoding="utf-8")
        digest = file_digest(home)
        if sha256 not in (None, digest):
            shutil.rmtree(home)
            raise WorkspaceError(f"{workspace.home} holds something else by now")
        pointer = store.put(release.name)
    return {"version": release.name, "sha256": digest, "pointer": pointer}


def _bring_back(store: Store, release: Path, facts: dict[str, Any], said: dict[str, str]) -> None:
    """What the tag speaks of, from the remote, or else from the workspace if that has it still."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=store.folder) as folder:
        try:
            store.get(release.name, said["pointer"], said["sha256"], Path(folder) / "version")
        except WorkspaceError as lost:
            try:
                _take_in(store, release, facts, said["sha256"])
            except WorkspaceError as error:
                raise WorkspaceError(
                    f"{release.name} has a tag, but its archive is gone ({lost}), and it cannot be "
                    f"taken in again ({error})"
                ) from error


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
    store = Store(data / FOLDER)

    def state(version: str) -> str:
        if version not in known:
            return ""
        return "yes" if store.holds(version) else "tag only"

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
                "archived": state(folder.name),
            }
        )
    gone = [version for version in known if version not in {f.name for f in folders}]
    empty = dict.fromkeys(("latest", "made of", "model", "commit"), "")
    return [{"version": v, **empty, "archived": state(v)} for v in gone] + rows


def parquet_sums(folder: Path) -> dict[str, str]:
    """Checksums of the Parquet files of a release, by name, as its SHA256SUMS has them.

    What changed since the release before is left out: made again alone, a release has none before it.
    """
    return {
        name: digest for name, digest in listed_sums(folder).items()
        if name.endswith(".parquet") and name != CHANGES
    }  # fmt: skip
