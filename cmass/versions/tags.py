"""Tags of released versions, in the git clone that holds the code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cmass
from cmass.errors import WorkspaceError

PREFIX = "release/"


def clone() -> Path:
    """Top folder of the clone that holds this code.

    Raises
    ------
    WorkspaceError
        The code is in no git clone, or git is not installed.
    """
    if shutil.which("git") is None:
        raise WorkspaceError("versions are git tags, and git is not installed: apt-get install git")
    folder = Path(cmass.__path__[0]).parent
    done = _run(folder, "rev-parse", "--show-toplevel", check=False)
    if done is None:
        raise WorkspaceError(
            f"{folder} is no git clone: versions are tags of the commit that made them. Install "
            "cmass from a clone (make setup) to archive or rebuild releases"
        )
    return Path(done)


def write(root: Path, version: str, commit: str, message: str) -> None:
    """Tag `commit` with a version; a tag that says the same already is left alone.

    Raises
    ------
    WorkspaceError
        The version has another tag.
    """
    name = PREFIX + version
    if read(root, version) == message.strip():
        return
    _run(
        root, "-c", "user.name=cmass", "-c", "user.email=cmass@localhost", "-c", "tag.gpgSign=false",
        "tag", "--annotate", "--cleanup=verbatim", "--message", message, name, commit,
    )  # fmt: skip


def read(root: Path, version: str) -> str | None:
    """Message of a version's tag; None where it has none."""
    name = f"refs/tags/{PREFIX}{version}"
    if _run(root, "rev-parse", "--verify", "--quiet", name, check=False) is None:
        return None
    return _run(root, "for-each-ref", "--format=%(contents)", name)


def versions(root: Path) -> list[str]:
    """Tagged versions, oldest first."""
    listed = _run(
        root, "for-each-ref", "--sort=creatordate", "--format=%(refname:strip=3)",
        f"refs/tags/{PREFIX}*",
    )  # fmt: skip
    return (listed or "").split()


@contextmanager
def checked_out(root: Path, version: str, folder: Path) -> Iterator[Path]:
    """The code of a version, in a work tree of its own at `folder`, gone afterwards."""
    _run(root, "worktree", "prune")
    _run(
        root, "worktree", "add", "--detach", "--quiet", str(folder), f"{PREFIX}{version}^{{commit}}"
    )
    try:
        yield folder
    finally:
        _run(root, "worktree", "remove", "--force", str(folder), check=False)


def _run(root: Path, *arguments: str, check: bool = True) -> str | None:
    """Output of git; None where it fails and `check` is off."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if check:
        raise WorkspaceError(f"git {arguments[0]} in {root} failed: {done.stderr.strip()}")
    return None
