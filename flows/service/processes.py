"""The programs of the service: what each runs, with which environment, and how to see that it is well."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cmass.errors import WorkspaceError
from flows.service import health
from flows.service.settings import HOST, ROOT, ServiceSettings, own_secrets, worker_environment

DATABASES = ("prefect", "mlflow")
#: Owner of both databases.
DATABASE_USER = "cmass"
#: Where Prefect keeps whose turn it is: in files below its home.
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
#: Environment variable of every program and its children: the service's folder.
MARK = "CMASS_SERVICE_PROGRAM_OF"
_PR_SET_PDEATHSIG = 1  # of Linux' prctl


@dataclass(frozen=True)
class Program:
    """One process that the supervisor keeps alive.

    Attributes
    ----------
    name : str
    stage : int
        A stage starts when all programs of the stage before are well.
    command : tuple of str
        Holds no secret: command lines can be read by everyone on the machine.
    environment : mapping
        Beside the caller's own; may hold secrets.
    well : callable
        Raises with the reason where the program does not do its work.
    stop_signal : str
    """

    name: str
    stage: int
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    well: Callable[[], None]
    stop_signal: str = "TERM"


def postgres_tool(name: str) -> str:
    """Path of a program of PostgreSQL: on the path, or where Debian keeps it.

    Raises
    ------
    WorkspaceError
        It is not installed; the message says how to.
    """
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True
    )
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    if found := shutil.which(name):
        return found
    raise WorkspaceError(
        f"PostgreSQL's {name} is neither on the path nor below /usr/lib/postgresql: "
        "apt-get install postgresql"
    )


def database_environment(settings: ServiceSettings) -> dict[str, str]:
    """What lets libpq and asyncpg in."""
    return {"PGPASSWORD": own_secrets(settings)["PGPASSWORD"]}


def python_path() -> str:
    """``PYTHONPATH`` with which our own code is found, before what it was."""
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(ROOT), *(p for p in before if p and p != str(ROOT))])


def _python(module: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *words)


def programs(settings: ServiceSettings) -> list[Program]:
    """Every program of the service, in the order of their stages."""
    s = settings
    shared = worker_environment(s) | {"PYTHONPATH": python_path()}
    database = database_environment(s)
    address = f"{DATABASE_USER}@{HOST}:{s.postgres_port}"
    keys = {n: v for n, v in shared.items() if n.startswith("AWS_")}
    return [
        Program(
            "postgres", 0,
            (postgres_tool("postgres"), "-D", str(s.postgres.resolve()), "-p", str(s.postgres_port),
             "-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories=",
             "-c", "logging_collector=off"),
            {}, lambda: health.postgres(s, "postgres"), stop_signal="INT",
        ),
        Program(
            "s3", 0,
            (_script("weed"), "server", f"-dir={(s.home / 's3').resolve()}", f"-ip={HOST}",
             f"-ip.bind={HOST}", "-s3", f"-s3.port={s.s3_port}", "-s3.port.iceberg=0",
             "-s3.port.lance=0", f"-master.port={s.s3_master_port}",
             f"-volume.port={s.s3_volume_port}", f"-filer.port={s.s3_filer_port}",
             "-master.volumeSizeLimitMB=1024", "-volume.max=0", "-master.telemetry=false",
             # alone, it need not wait for others to vote or to take over
             "-master.electionTimeout=1s", "-volume.preStopSeconds=1"),
            keys, lambda: health.s3(s),
        ),
        Program(
            "prefect", 1,
            _python("prefect", "server", "start", "--host", HOST, "--port", str(s.prefect_port)),
            {
                "PREFECT_HOME": str(s.home / "prefect"),
                "PREFECT_API_URL": s.prefect_api,
                "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{address}/prefect",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
                # Kept in memory, as by default, turns would be lost with the server and never pass on.
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
                "DO_NOT_TRACK": "1",
                **database,
            },
            lambda: health.answers(f"{s.prefect_api}/health"),
        ),
        Program(
            "mlflow", 1,
            _python("mlflow", "server", "--host", HOST, "--port", str(s.mlflow_port), "--workers",
                    str(s.mlflow_workers), "--artifacts-destination", f"s3://{s.bucket}/mlflow"),
            {
                "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{address}/mlflow",
                "MLFLOW_S3_ENDPOINT_URL": s.s3_url,
                "MLFLOW_DISABLE_TELEMETRY": "true",
                # judges of language models: a gigabyte of memory and a minute at the start
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "DO_NOT_TRACK": "1",
                **database, **keys,
            },
            lambda: health.answers(f"{s.mlflow_url}/health"),
        ),
        Program(
            "dask-scheduler", 1,
            _python("dask", "scheduler", "--host", HOST, "--port", str(s.dask_port),
                    "--no-dashboard", "--dashboard-address", f"{HOST}:0"),
            {"PYTHONPATH": python_path()}, lambda: health.listens(s.dask_port),
        ),
        Program(
            "dask-workers", 2,
            _python("dask", "worker", s.scheduler, "--host", HOST, "--nworkers",
                    str(s.dask_workers), "--nthreads", "1", "--no-dashboard",
                    "--dashboard-address", f"{HOST}:0",
                    "--local-directory", str(s.home / "dask")),
            {"PYTHONPATH": python_path()}, lambda: health.dask(s),
        ),
        Program(
            "worker", 2,
            _python("prefect", "worker", "start", "--pool", s.pool, "--type", "process", "--name",
                    f"{s.pool}-worker", "--limit", "2", "--with-healthcheck",
                    "--install-policy", "never"),
            {
                **shared,
                "PREFECT_WORKER_WEBSERVER_HOST": HOST,
                "PREFECT_WORKER_WEBSERVER_PORT": str(s.worker_port),
            },
            lambda: health.answers(f"http://{HOST}:{s.worker_port}/health"),
        ),
    ]  # fmt: skip


def _script(name: str) -> str:
    """Path of a program that came with a package, beside this Python."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    if found := shutil.which(name):
        return found
    raise WorkspaceError(
        f"{name} is not installed here: pip install --constraint constraints.txt '.[service]'"
    )


def program(settings: ServiceSettings, name: str) -> Program:
    """The program called `name`."""
    return next(p for p in programs(settings) if p.name == name)


def become(settings: ServiceSettings, name: str) -> None:
    """Turn this process into the program called `name`; returns only where the supervisor has gone.

    The supervisor starts programs through this, so that no secret stands in its configuration.
    """
    from flows.service.postgres import drop_rights

    one = program(settings, name)
    number = signal.SIGINT if one.stop_signal == "INT" else signal.SIGTERM
    # Loaded before rights are dropped: another user may not be able to read this Python.
    libc = ctypes.CDLL(None)
    if one.name == "postgres":
        drop_rights(settings)
    if sys.platform == "linux":  # it ends with the supervisor, however that ends
        parent = os.getppid()
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            return
    marked = {MARK: str(settings.home.resolve())}
    os.execvpe(one.command[0], one.command, os.environ | dict(one.environment) | marked)
