"""Tags of versions in a clone of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cmass.errors import WorkspaceError
from cmass.versions import tags

VERSION = "2026.11.23-0a1b2c3d"


@pytest.fixture
def repository(tmp_path) -> tuple[Path, str]:
    """A repository with two commits, and the first of them."""
    root = tmp_path / "repository"
    root.mkdir()

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgSign=false"]
        done = subprocess.run(
            ["git", "-C", str(root), *identity, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "--quiet")
    for text in ("first", "second"):
        (root / "code.py").write_text(text)
        git("add", ".")
        git("commit", "--quiet", "--message", text)
    return root, git("rev-parse", "HEAD~1")


def test_a_tag_keeps_its_message_and_names_its_commit(repository, tmp_path):
    root, first = repository
    message = '{\n "pointer": "outs:\\n- md5: 0"\n}'
    tags.write(root, VERSION, first, message)
    tags.write(root, VERSION, first, message)  # once more changes nothing
    assert tags.read(root, VERSION) == message
    assert tags.versions(root) == [VERSION]
    with tags.checked_out(root, VERSION, tmp_path / "code") as code:
        assert (code / "code.py").read_text() == "first"
    assert not (tmp_path / "code").exists()
    assert (root / "code.py").read_text() == "second"


def test_a_version_has_one_tag(repository):
    root, first = repository
    tags.write(root, VERSION, first, "one")
    with pytest.raises(WorkspaceError, match="already exists"):
        tags.write(root, VERSION, first, "another")
    assert tags.read(root, "2026.01.01-00000000") is None
