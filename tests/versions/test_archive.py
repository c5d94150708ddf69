"""Releases that were archived elsewhere, before, or never, in a clone of their own under a real DVC."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cmass.errors import WorkspaceError
from cmass.params import Params
from cmass.tables import file_digest, read_json, write_json
from cmass.versions import archive, tags
from cmass.versions.store import Store
from cmass.workspace import Workspace
from tests.versions.test_tags import repository  # noqa: F401

VERSION = "2026.11.23-0a1b2c3d"


@pytest.fixture
def data(tmp_path, repository, monkeypatch) -> Path:  # noqa: F811
    """A data folder with a release that can be archived."""
    root, commit = repository
    monkeypatch.delenv("CMASS_REMOTE", raising=False)
    monkeypatch.setattr(tags, "clone", lambda: root)
    monkeypatch.setattr(archive, "_check_inputs", lambda workspace, params, release: None)
    folder = tmp_path / "data"
    params = Params(profile="smoke")
    workspace = Workspace(folder, "smoke", "embedded")
    for place in (workspace.raw, workspace.champion / "model"):
        place.mkdir(parents=True)
        (place / "a.bin").write_bytes(b"words")
    release = folder / "release" / VERSION
    release.mkdir(parents=True)
    facts = {
        "parameters": params.model_dump(mode="json"), "release": {"survey": "embedded"},
        "software": {"git_state": "clean", "git_commit": commit},
    }  # fmt: skip
    write_json(release / "provenance.json", facts)
    (release / "SHA256SUMS").write_text(
        f"{file_digest(release / 'provenance.json')}  provenance.json\n"
    )
    (folder / "release" / "latest").symlink_to(VERSION)
    return folder


@pytest.mark.slow
def test_what_was_archived_elsewhere_is_fetched_or_taken_in_again(data, tmp_path, monkeypatch):
    assert archive.obstacle(data) is None and not archive.is_kept(data)
    monkeypatch.setenv("CMASS_REMOTE", str(tmp_path / "remote"))
    assert archive.archive(data) == VERSION
    assert archive.is_kept(data)
    # another machine has tag and release alone
    shutil.rmtree(data / "archive")
    shutil.rmtree(data / "smoke")
    assert not archive.is_kept(data)
    archive.archive(data)
    assert archive.is_kept(data)
    # the remote is gone, and the workspace is not what it was
    shutil.rmtree(data / "archive")
    shutil.rmtree(tmp_path / "remote")
    raw = Workspace(data, "smoke", "embedded").raw
    raw.mkdir(parents=True)
    (raw / "a.bin").write_bytes(b"others")
    with pytest.raises(WorkspaceError, match="archive is gone"):
        archive.archive(data)
    assert not archive.is_kept(data)
    assert not list((data / "archive").glob("2*"))


def test_the_tag_outlives_an_archive_and_the_same_inputs_make_it_again(data):
    archive.archive(data)
    said = archive.archived(data, VERSION)
    shutil.rmtree(data / "archive")
    site = data / "release" / VERSION / "site"
    site.mkdir()
    (site / "index.html").write_text("made of the release: no part of what is kept")
    assert not archive.is_kept(data)
    archive.archive(data)
    assert archive.is_kept(data)
    assert archive.archived(data, VERSION) == said
    back = data.parent / "back"
    Store(data / "archive").get(VERSION, said["pointer"], said["sha256"], back)
    assert (back / "raw" / "a.bin").read_bytes() == b"words"
    assert not (back / "release" / "site").exists()


def test_what_nobody_wants_archived_is_remembered(data):
    assert not archive.is_declined(data)
    archive.decline(data)
    archive.decline(data)
    assert archive.is_declined(data)
    assert read_json(data / "archive" / "declined.json") == [VERSION]


def test_an_obstacle_is_told_before_anybody_tries(data, monkeypatch):
    def refuse(workspace, params, release):
        assert workspace.root == data and params.profile == "smoke" and release.name == VERSION
        raise WorkspaceError("parameters changed: contracts")

    monkeypatch.setattr(archive, "_check_inputs", refuse)
    assert archive.obstacle(data) == "parameters changed: contracts"
    file = data / "release" / VERSION / "provenance.json"
    facts = json.loads(file.read_text())
    write_json(file, facts | {"software": {"git_state": "dirty"}})
    assert "not committed (dirty)" in archive.obstacle(data)
