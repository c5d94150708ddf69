"""The store of archived versions: a DVC project of its own in the data folder."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cmass.errors import WorkspaceError

log = logging.getLogger(__name__)

#: Names the remote (a folder, or s3://…) where nothing else is said.
REMOTE_VARIABLE = "CMASS_REMOTE"
_REMOTE = "store"


class Store:
    """Folders by name, in DVC's content-addressed cache.

    Files are copied, never hard-linked: what befalls a file of the workspace does not befall the
    archive.

    Parameters
    ----------
    folder : Path
        The DVC project; made at the first `put`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str) -> str:
        """Take in the folder `name` below the project; returns what points at it.

        The folder itself goes; `get` brings it back.
        """
        self._dvc("add", "--quiet", name)
        shutil.rmtree(self.folder / name)
        return (self.folder / f"{name}.dvc").read_text(encoding="utf-8")

    def open(self) -> None:
        """Make the project, unless it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / ".dvc" / "config").exists():
            return
        self._dvc("init", "--no-scm", "--quiet", "--force")
        for key, value in (
            ("core.analytics", "false"), ("core.check_update", "false"),
            ("cache.type", "reflink,copy"),
        ):  # fmt: skip
            self._dvc("config", key, value)

    def remote(self) -> str | None:
        """Address of the remote, without what a URL may hide; None where there is none."""
        url = os.environ.get(REMOTE_VARIABLE)
        if url:
            self._dvc("remote", "add", "--quiet", "--force", "--default", _REMOTE, url)
            endpoint = os.environ.get("AWS_ENDPOINT_URL")
            if url.startswith("s3://") and endpoint:
                self._dvc("remote", "modify", _REMOTE, "endpointurl", endpoint)
        listed = self._dvc("remote", "list").split()
        return listed[1] if len(listed) > 1 else None

    def push(self, name: str) -> None:
        """Copy a folder to the remote."""
        self._dvc("push", "--quiet", f"{name}.dvc")

    def get(self, name: str, pointer: str, target: Path) -> None:
        """Bring a folder back to `target`, from the cache or else from the remote.

        Raises
        ------
        WorkspaceError
            Neither has it whole.
        """
        (self.folder / f"{name}.dvc").write_text(pointer, encoding="utf-8")
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        try:
            self._dvc("checkout", "--quiet", "--force", f"{name}.dvc", check=False)
            if not place.exists():
                self._dvc("pull", "--quiet", "--force", f"{name}.dvc")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(place, target)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def forget(self, name: str) -> None:
        """Drop a folder from the local cache, so that the next `get` asks the remote."""
        (self.folder / f"{name}.dvc").unlink(missing_ok=True)
        self._dvc("gc", "--workspace", "--force", "--quiet", check=False)

    def _dvc(self, *arguments: str, check: bool = True) -> str:
        if importlib.util.find_spec("dvc") is None:
            raise WorkspaceError(
                "archives are kept by DVC, which is not installed: pip install 'cmass[orchestration]'"
            )
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.folder, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise WorkspaceError(
                f"dvc {arguments[0]} in {self.folder} failed: {words[-1] if words else 'no message'}"
            )
        return done.stdout
