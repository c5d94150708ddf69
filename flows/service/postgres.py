"""PostgreSQL for Prefect and MLflow: a cluster of its own below the service's folder."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

from cmass.errors import WorkspaceError
from flows.service.processes import DATABASE_USER, DATABASES, postgres_tool
from flows.service.settings import HOST, ServiceSettings, own_secrets

log = logging.getLogger(__name__)


def owner(settings: ServiceSettings) -> pwd.struct_passwd | None:
    """The user that runs PostgreSQL, which refuses root; None where we are that user."""
    if os.geteuid() != 0:
        return None
    names = [settings.postgres_user] if settings.postgres_user else ["postgres", "nobody"]
    for name in names:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise WorkspaceError(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(names)}: name one in "
        "CMASS_SERVICE_POSTGRES_USER"
    )


def drop_rights(settings: ServiceSettings) -> None:
    """Become the user that runs PostgreSQL."""
    if (user := owner(settings)) is not None:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.environ["HOME"] = "/"


def install() -> None:
    """Install PostgreSQL from Debian where it is missing and we may.

    Raises
    ------
    WorkspaceError
        It is missing and cannot be installed from here.
    """
    try:
        postgres_tool("initdb")
        return
    except WorkspaceError:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
    log.warning("PostgreSQL is not installed: apt-get install postgresql")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", "postgresql"],
    ):
        done = subprocess.run(
            ["apt-get", *words], env=quiet, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise WorkspaceError(
                f"apt-get {' '.join(words)} failed: {(done.stderr or done.stdout).strip()[-400:]}"
            )
    postgres_tool("initdb")


def initialise(settings: ServiceSettings) -> None:
    """Make the cluster's files once: passwords by SCRAM, no way in without one."""
    if (settings.postgres / "PG_VERSION").exists():
        _check_version(settings.postgres)
        return
    if settings.postgres.is_mount() or (
        settings.postgres.is_dir() and any(settings.postgres.iterdir())
    ):
        raise WorkspaceError(
            f"{settings.postgres} is a mounted disk, or holds files of no PostgreSQL: take it away, or "
            "name another folder by CMASS_SERVICE_HOME"
        )
    user = owner(settings)
    # Under another name until it is whole: initdb writes PG_VERSION first.
    partial = settings.postgres.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    if user is not None:
        os.chown(partial, user.pw_uid, user.pw_gid)
        _check_reachable(partial.resolve(), user)
    password = settings.home / "postgres.password"  # initdb takes it from a file only
    password.touch(mode=0o600)
    try:
        password.write_text(own_secrets(settings)["PGPASSWORD"] + "\n")
        if user is not None:
            os.chown(password, user.pw_uid, user.pw_gid)
        done = subprocess.run(
            [postgres_tool("initdb"), "-D", str(partial.resolve()), "-U", DATABASE_USER,
             "--auth=scram-sha-256", f"--pwfile={password.resolve()}", "-E", "UTF8", "--locale=C"],
            capture_output=True, text=True, check=False, cwd="/",
            preexec_fn=lambda: drop_rights(settings),
        )  # fmt: skip
    finally:
        password.unlink()
    if done.returncode:
        shutil.rmtree(partial)
        raise WorkspaceError(f"initdb failed: {(done.stderr or done.stdout).strip()[-600:]}")
    partial.rename(settings.postgres)


def _check_version(folder: Path) -> None:
    made = (folder / "PG_VERSION").read_text().strip()
    words = subprocess.run(
        [postgres_tool("postgres"), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    here = next(w for w in words if w[0].isdigit()).split(".")[0]
    if made != here:
        raise WorkspaceError(
            f"{folder} was made by PostgreSQL {made}, and {here} is installed: pg_upgrade, or "
            f"apt-get install postgresql-{made}"
        )


def _check_reachable(folder: Path, user: pwd.struct_passwd) -> None:
    for parent in folder.parents:
        state = parent.stat()
        if not (state.st_mode & 0o001 or (state.st_uid == user.pw_uid and state.st_mode & 0o100)):
            raise WorkspaceError(
                f"PostgreSQL does not run as root, and the user {user.pw_name} cannot enter {parent}: "
                f"chmod o+x {parent}, or CMASS_SERVICE_HOME=DIR with a folder that all may enter"
            )


def create_databases(settings: ServiceSettings) -> None:
    """Make the databases of Prefect and MLflow where they are missing."""
    import psycopg2

    connection = psycopg2.connect(
        host=HOST, port=settings.postgres_port, user=DATABASE_USER, dbname="postgres",
        password=own_secrets(settings)["PGPASSWORD"],
    )  # fmt: skip
    with closing(connection), connection.cursor() as cursor:
        connection.autocommit = True
        for name in DATABASES:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{name}"')
