"""Back the service up while it works, and make it again from a backup.

A backup is a folder: what PostgreSQL holds (`pg_dump`), the objects of the bucket, and a manifest with
the SHA-256 of every file. The databases come first, so that whatever they speak of is among the objects.
Secrets are not in it: a restored service has its own.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError
from packaging.version import Version

from cmass.errors import InputError, WorkspaceError
from cmass.progress import track
from cmass.software import git_state
from cmass.tables import file_digest, read_json, write_json
from flows.service import health
from flows.service.processes import (
    DATABASE_USER,
    DATABASES,
    database_environment,
    postgres_tool,
)
from flows.service.settings import HOST, ServiceSettings

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_OBJECTS = "objects"
#: Packages whose tables are in the databases: older ones cannot read what newer ones wrote.
_OWNERS = ("prefect", "mlflow")


def make(settings: ServiceSettings, folder: Path) -> dict[str, Any]:
    """Write a backup of the running service into `folder`, which must not be there yet.

    Returns
    -------
    dict
        The manifest: ``made_at``, ``software``, ``bucket`` and ``sha256`` by file.

    Raises
    ------
    WorkspaceError
        The folder exists, the disk is full, or a server does not give what it holds; nothing is left
        at `folder` then.
    """
    if folder.exists():
        raise WorkspaceError(f"{folder} exists: a backup goes into a folder of its own")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True, mode=0o700)
        for name in DATABASES:
            _postgres(settings, "pg_dump", "--format=custom", f"--file={partial / name}.dump", name)
        store = health.store(settings)
        for key in track(list(_keys(settings)), "objects"):
            file = _object_file(partial, key)
            file.parent.mkdir(parents=True, exist_ok=True)
            store.download_file(settings.bucket, key, str(file))
        found = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "software": {name: version(name) for name in _OWNERS} | git_state(),
            "bucket": settings.bucket,
            "sha256": {p.relative_to(partial).as_posix(): file_digest(p) for p in _files(partial)},
        }
        write_json(partial / MANIFEST, found)
        partial.rename(folder)
    except (OSError, BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise WorkspaceError(f"no backup at {folder}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def check(folder: Path) -> dict[str, Any]:
    """The manifest of a backup whose files are as they were written.

    Raises
    ------
    InputError
        It is no backup; a file is missing, damaged or not in the manifest; or a newer Prefect or MLflow
        than the one that is installed made it.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is no backup: it has no {MANIFEST}")
    found: dict[str, Any] = read_json(folder / MANIFEST)
    there = {p.relative_to(folder).as_posix() for p in _files(folder)} - {MANIFEST}
    if odd := sorted(there ^ found["sha256"].keys()):
        where = "is not in its manifest" if odd[0] in there else "is missing"
        raise InputError(f"{folder / odd[0]} {where}: take another backup")
    for name, digest in track(found["sha256"].items(), "checking", total=len(there)):
        if file_digest(folder / name) != digest:
            raise InputError(
                f"{folder / name} is damaged (its SHA-256 differs): take another backup"
            )
    for name in _OWNERS:
        if Version(found["software"][name]) > Version(version(name)):
            raise InputError(
                f"{folder} was made with {name} {found['software'][name]}, and {version(name)} is "
                f"installed, which cannot read its tables: check out "
                f"{found['software'].get('git_commit', 'the version of that day')} and make setup"
            )
    return found


def put_back(settings: ServiceSettings, folder: Path) -> None:
    """Fill empty databases and an empty bucket with what a backup holds.

    Raises
    ------
    WorkspaceError
        PostgreSQL does not take it.
    """
    for name in DATABASES:
        _postgres(settings, "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={name}",
                  str(folder / f"{name}.dump"))  # fmt: skip
    objects = folder / _OBJECTS
    store = health.store(settings)
    try:
        for file in track(list(_files(objects)), "objects"):
            store.upload_file(str(file), settings.bucket, file.relative_to(objects).as_posix())
    except (OSError, BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise WorkspaceError(f"the store does not take {folder}: {error}") from error


def _postgres(settings: ServiceSettings, tool: str, *words: str) -> None:
    done = subprocess.run(
        [postgres_tool(tool), f"--host={HOST}", f"--port={settings.postgres_port}",
         f"--username={DATABASE_USER}", "--no-password", *words],
        env=os.environ | database_environment(settings), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise WorkspaceError(f"{tool} {words[-1]} failed: {done.stderr.strip()[-600:]}")


def _keys(settings: ServiceSettings) -> Iterator[str]:
    """Names of the bucket's objects; folders, which the store lists too, are none."""
    pages = health.store(settings).get_paginator("list_objects_v2").paginate(Bucket=settings.bucket)
    for page in pages:
        yield from (o["Key"] for o in page.get("Contents", []) if not o["Key"].endswith("/"))


def _object_file(folder: Path, key: str) -> Path:
    file = (folder / _OBJECTS / key).resolve()
    if not file.is_relative_to((folder / _OBJECTS).resolve()):
        raise WorkspaceError(
            f"the bucket has an object {key!r}, which would leave the backup's folder"
        )
    return file


def _files(folder: Path) -> Iterator[Path]:
    return (p for p in sorted(folder.rglob("*")) if p.is_file())
