"""Start, stop and look at the service as a whole."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from cmass.errors import WorkspaceError
from flows.service import backup as backups
from flows.service import deployments, health, postgres, prepare, runs
from flows.service.processes import (
    DATABASE_USER,
    Program,
    database_environment,
    programs,
    python_path,
)
from flows.service.settings import (
    HOST,
    ROOT,
    ServiceSettings,
    own_secrets,
    taken_ports,
    worker_environment,
)
from flows.service.supervise import Supervisor, end_leftovers, wait_until_well

log = logging.getLogger(__name__)

#: In the service's folder while a backup is put back: the path of the backup.
_RESTORING = "restoring"


def start(settings: ServiceSettings, backup: Path | None = None) -> bool:
    """Start what does not run, wait until all is well, and register the deployments.

    Parameters
    ----------
    settings : ServiceSettings
    backup : Path, optional
        Backup that fills the databases and the bucket of a service that is made now
        (`flows.service.backup`).

    Returns
    -------
    bool
        False where everything ran already.

    Raises
    ------
    WorkspaceError
        A port is taken, a program is missing or does not get well; what was started stays, for
        its logs. With a backup there is a service already, or what was started was stopped again.
    InputError
        The backup cannot be used; nothing was started.
    """
    with _alone(settings):
        if backup is not None:
            _require_nothing(settings)
            backups.check(backup)
            (settings.home / _RESTORING).write_text(str(backup.resolve()))
        elif (settings.home / _RESTORING).exists():
            raise WorkspaceError(
                f"{settings.home} is half of a restored service: rm -rf {settings.home} and restore "
                f"it again from {(settings.home / _RESTORING).read_text()}"
            )
        supervisor = Supervisor(settings)
        there = supervisor.runs()
        if there:
            settings = ServiceSettings.of_running(settings.home)
            supervisor = Supervisor(settings)
            if all(s.well for s in look(settings)):
                return False
        else:
            _prepare(settings)
            supervisor.begin()
        try:
            _bring_up(supervisor, settings, fresh=not there, backup=backup)
        except BaseException:
            if backup is not None:  # half a service is nobody's
                supervisor.stop()
            raise
        (settings.home / _RESTORING).unlink(missing_ok=True)
        return True


def _bring_up(
    supervisor: Supervisor, settings: ServiceSettings, *, fresh: bool, backup: Path | None
) -> None:
    """Start the programs, stage by stage."""
    end = time.monotonic() + settings.start_timeout_s
    for stage, members in groupby(programs(settings), key=lambda p: p.stage):
        together = list(members)
        log.info("starting %s", ", ".join(p.name for p in together))
        for one in together:
            supervisor.start(one)
        wait_until_well(supervisor, together, end - time.monotonic())
        if stage == 0:
            _furnish(settings, backup)
        if stage == 1 and fresh:
            n_runs = runs.settle(settings)
            if n_runs:
                log.info("%d runs were cut off when the service ended", n_runs)
    register(settings)


def _require_nothing(settings: ServiceSettings) -> None:
    there = [p for p in (settings.postgres, settings.home / "s3") if p.exists()]
    if there or Supervisor(settings).runs():
        raise WorkspaceError(
            f"there is a service in {settings.home}, and a backup is put back into a new one: stop it "
            "and move that folder away, or CMASS_SERVICE_HOME=DIR"
        )


def _prepare(settings: ServiceSettings) -> None:
    end_leftovers(settings)
    runs.forget_leases(settings)
    if taken := taken_ports(settings):
        words = ", ".join(f"{port} ({name})" for name, port in taken.items())
        name = next(iter(taken)).split()[0]
        raise WorkspaceError(
            f"in use by another program on {HOST}: port {words}. Stop it, or choose another port: "
            f"CMASS_SERVICE_{name.upper()}=… make serve"
        )
    postgres.install()
    for folder in (settings.home, settings.logs, settings.home / "prefect", settings.home / "dask"):
        folder.mkdir(parents=True, exist_ok=True)
    (settings.home / "s3").mkdir(mode=0o700, exist_ok=True)
    own_secrets(settings)
    settings.keep()
    postgres.initialise(settings)
    _write_worker_environment(settings)


def _write_worker_environment(settings: ServiceSettings) -> None:
    """For shells and commands that want to work with the service: ``set -a; . worker.env``."""
    import shlex

    path = settings.home / "worker.env"
    temporary = path.with_suffix(".tmp")
    temporary.touch(mode=0o600)
    lines = (f"{n}={shlex.quote(v)}\n" for n, v in worker_environment(settings).items())
    temporary.write_text("".join(lines))
    temporary.replace(path)


def _furnish(settings: ServiceSettings, backup: Path | None) -> None:
    """Databases, MLflow's tables and the bucket, before the first server asks for them."""
    postgres.create_databases(settings)
    prepare.create_bucket(health.store(settings), settings.bucket)
    if backup is not None:
        log.info("putting back %s", backup)
        backups.put_back(settings, backup)
    address = f"postgresql+psycopg2://{DATABASE_USER}@{HOST}:{settings.postgres_port}/mlflow"
    prepare.upgrade_mlflow(address, database_environment(settings))


def register(settings: ServiceSettings) -> None:
    """Register the deployments of ``prefect.yaml`` and, if asked for, the alarm."""
    names = {"CMASS_HOME": str(ROOT), "CMASS_POOL": settings.pool, "PYTHONPATH": python_path()}
    deployments.register(worker_environment(settings) | names)


@dataclass(frozen=True)
class Look:
    """One program as it is now.

    Attributes
    ----------
    name, state : str
    pid : int
    memory_mb : float
        Resident, with all its children.
    seconds : int
        Since it was started.
    trouble : str
        Empty where it is well.
    """

    name: str
    state: str
    pid: int
    memory_mb: float
    seconds: int
    trouble: str

    @property
    def well(self) -> bool:
        """Whether it does its work."""
        return not self.trouble


def look(settings: ServiceSettings) -> list[Look]:
    """Every program of the running service; empty where none runs."""
    supervisor = Supervisor(settings)
    if not supervisor.runs():
        return []
    states = supervisor.states()
    found = []
    for one in programs(settings):
        state = states[one.name]
        trouble = state.word.lower() if state.word != "RUNNING" else _trouble(one)
        memory, seconds = (_memory_mb(state.pid), state.seconds) if state.pid else (0.0, 0)
        found.append(Look(one.name, state.word, state.pid, memory, seconds, trouble))
    return found


def _trouble(one: Program) -> str:
    try:
        one.well()
    except Exception as error:  # whatever a server can fail with is what is to be told
        return f"{type(error).__name__}: {error}"
    return ""


def _memory_mb(pid: int) -> float:
    import psutil

    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 1e6


def stop(settings: ServiceSettings) -> bool:
    """Stop everything; False where nothing ran. What it kept stays."""
    with _alone(settings):
        supervisor = Supervisor(settings)
        if not supervisor.runs():
            return False
        supervisor.stop()
        return True


@contextmanager
def _alone(settings: ServiceSettings) -> Iterator[None]:
    from filelock import FileLock, Timeout

    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise WorkspaceError(
            f"somebody else starts or stops the service in {settings.home} just now"
        ) from None
