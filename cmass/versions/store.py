"""The store of archived versions: a DVC project of its own in the data folder."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

import yaml

from cmass.errors import WorkspaceError
from cmass.tables import atomic_path, file_digest, read_json, write_json

log = logging.getLogger(__name__)

#: Names the remote (a folder, or s3://…) where nothing else is said.
REMOTE_VARIABLE = "CMASS_REMOTE"
_REMOTE = "store"
#: Remembers which folder was copied to which remote.
_PUSHED = "pushed.json"
_CORE = {"no_scm": "true", "analytics": "false", "check_update": "false"}


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
        self._dvc("add", name)
        shutil.rmtree(self.folder / name)
        return (self.folder / f"{name}.dvc").read_text(encoding="utf-8")

    def open(self) -> None:
        """Make the project, unless it is there, and take over the remote that the environment names."""
        settings = self._settings()
        settings["cache"] = {"type": "reflink,copy"}
        if url := os.environ.get(REMOTE_VARIABLE):
            settings["core"]["remote"] = _REMOTE
            remote = {"url": url}
            if url.startswith("s3://") and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
                remote["endpointurl"] = endpoint
            settings[f'remote "{_REMOTE}"'] = remote
        self._config.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._config) as temporary, open(temporary, "w") as stream:
            settings.write(stream)

    @property
    def _config(self) -> Path:
        return self.folder / ".dvc" / "config"

    def _settings(self) -> ConfigParser:
        settings = ConfigParser(interpolation=None)
        settings.read_dict({"core": _CORE})
        settings.read(self._config)
        return settings

    def remote(self) -> str | None:
        """Address of the remote; None where there is none."""
        settings = self._settings()
        name = settings.get("core", "remote", fallback=None)
        if name is None:
            return None
        # DVC itself quotes a remote's section.
        sections = (f'remote "{name}"', f"'remote \"{name}\"'")
        urls = (settings.get(section, "url", fallback=None) for section in sections)
        return next((url for url in urls if url), None)

    def push(self) -> list[str]:
        """Copy to the remote what it lacks of every folder; the names of those that were not known there.

        Raises
        ------
        WorkspaceError
            The remote cannot be written to, or neither side has all of a folder.
        """
        names = [p.stem for p in sorted(self.folder.glob("*.dvc")) if p.is_file()]
        new = [name for name in names if not self.is_pushed(name)]
        pointers = [f"{name}.dvc" for name in names]
        # All of them, every time: a remote may have lost what it had, and so may the cache.
        self._dvc("fetch", *pointers)
        self._dvc("push", *pointers)
        # DVC passes over what neither has, and over all of a folder whose list is missing.
        lacking = [n for n in names if not self._has_list(n)]
        lacking += json.loads(self._dvc("status", "--cloud", "--json") or "{}")
        if lacking:
            raise WorkspaceError(
                f"the remote {self.remote()} does not have all of {', '.join(sorted(lacking))}, nor has "
                f"{self.folder}: restore one of them from a backup"
            )
        write_json(self.folder / _PUSHED, dict.fromkeys(names, self.remote()))
        return new

    def _has_list(self, name: str) -> bool:
        """Whether the cache has the list of a folder's files."""
        pointer = yaml.safe_load((self.folder / f"{name}.dvc").read_text(encoding="utf-8"))
        digest = str(pointer["outs"][0]["md5"])
        return (self._cache / "files" / "md5" / digest[:2] / digest[2:]).is_file()

    def holds(self, name: str) -> bool:
        """Whether a folder was put in or brought back here."""
        return (self.folder / f"{name}.dvc").is_file()

    def is_pushed(self, name: str) -> bool:
        """Whether a folder was copied to the remote; there is nothing to do where there is no remote."""
        return self.remote() is None or self._pushed().get(name) == self.remote()

    def _pushed(self) -> dict[str, str | None]:
        """Remote that each folder was copied to."""
        file = self.folder / _PUSHED
        return dict(read_json(file)) if file.exists() else {}

    def get(self, name: str, pointer: str, sha256: str, target: Path) -> None:
        """Bring a folder back to `target`, from the cache or else from the remote.

        DVC takes a cache entry for what its name says; `sha256`, the digest of the whole folder,
        shows one that was damaged, and the remote's replaces it.

        Raises
        ------
        WorkspaceError
            Neither has it whole.
        """
        shutil.rmtree(target, ignore_errors=True)
        known = self.holds(name)
        try:
            self._get(name, pointer, sha256, target)
        except BaseException:
            if not known:  # what points nowhere would be pushed
                (self.folder / f"{name}.dvc").unlink(missing_ok=True)
            raise

    def _get(self, name: str, pointer: str, sha256: str, target: Path) -> None:
        if self._bring(name, pointer, target) and file_digest(target) == sha256:
            return
        shutil.rmtree(target, ignore_errors=True)
        if self.remote() is None:
            raise WorkspaceError(
                f"{self.folder} does not have {name} whole, and names no remote: restore it from a "
                f"backup, or set {REMOTE_VARIABLE}"
            )
        log.warning("archive: %s is not whole in %s: fetched from the remote", name, self.folder)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self.folder) as folder:
            elsewhere = Store(Path(folder))
            elsewhere._config.parent.mkdir()
            shutil.copyfile(self._config, elsewhere._config)
            elsewhere._pull(name, pointer, target)
            if file_digest(target) != sha256:
                shutil.rmtree(target)
                raise WorkspaceError(
                    f"what the remote {self.remote()} has of {name} does not match its checksum: "
                    "restore the remote from a backup"
                )
            shutil.rmtree(elsewhere.folder / name)
            for entry in sorted(p for p in elsewhere._cache.rglob("*") if p.is_file()):
                # DVC's entries are read-only: replaced, not written to.
                with atomic_path(self._cache / entry.relative_to(elsewhere._cache)) as temporary:
                    shutil.copyfile(entry, temporary)

    @property
    def _cache(self) -> Path:
        return self.folder / ".dvc" / "cache"

    def _bring(self, name: str, pointer: str, target: Path) -> bool:
        """Copy a folder of the local cache to `target`; False if the cache lacks it."""
        place = self.folder / name
        self._point(name, pointer)
        shutil.rmtree(place, ignore_errors=True)
        try:
            self._dvc("checkout", "--force", f"{name}.dvc", check=False)
            if place.exists():
                shutil.copytree(place, target)
            return place.exists()
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _pull(self, name: str, pointer: str, target: Path) -> None:
        self._point(name, pointer)
        self._dvc("pull", "--force", f"{name}.dvc")
        shutil.copytree(self.folder / name, target)

    def _point(self, name: str, pointer: str) -> None:
        (self.folder / f"{name}.dvc").write_text(pointer, encoding="utf-8")

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
            raise WorkspaceError(f"dvc {arguments[0]} in {self.folder} failed: {_reason(done)}")
        return done.stdout


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """What DVC says went wrong: its errors, without the invitation to its chat room after them."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    return "; ".join(errors or lines[-1:]) or "no message"
