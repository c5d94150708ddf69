"""Supervisor (supervisord) with the service's programs: its configuration, and talking to it."""

from __future__ import annotations

import hashlib
import logging
import os
import pwd
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmass.errors import WorkspaceError
from flows.service.processes import MARK, Program, programs, python_path
from flows.service.settings import ROOT, ServiceSettings

log = logging.getLogger(__name__)

#: Longest path of a socket that the kernel takes, with room for supervisord's own suffix.
_SOCKET_MAX = 90
_LOG_BYTES, _LOG_COPIES = "5MB", 3


@dataclass(frozen=True)
class State:
    """What the supervisor says of a program."""

    name: str
    word: str
    pid: int
    seconds: int


def socket_path(settings: ServiceSettings) -> Path:
    """Where the supervisor listens: in the service's folder, or elsewhere if that path is too long."""
    path = settings.home.resolve() / "supervisor.sock"
    if len(str(path)) <= _SOCKET_MAX:
        return path
    short = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"cmass-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise WorkspaceError(
            f"{folder} belongs to somebody else: choose a shorter CMASS_SERVICE_HOME"
        )
    return folder / f"{short}.sock"


def configuration(settings: ServiceSettings) -> str:
    """The supervisor's configuration; holds no secret."""
    home = settings.home.resolve()
    user = pwd.getpwuid(os.geteuid()).pw_name
    lines = [
        "[unix_http_server]", f"file={socket_path(settings)}", "chmod=0700",
        "[supervisord]", f"logfile={settings.logs.resolve() / 'supervisord.log'}",
        f"logfile_maxbytes={_LOG_BYTES}", f"logfile_backups={_LOG_COPIES}",
        f"pidfile={home / 'supervisord.pid'}", f"childlogdir={settings.logs.resolve()}",
        f"directory={ROOT}", f"user={user}", "umask=022", "identifier=cmass",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]", f"serverurl=unix://{socket_path(settings)}",
    ]  # fmt: skip
    for one in programs(settings):
        lines += [
            f"[program:{one.name}]",
            f"command={shlex.quote(sys.executable)} -m flows.service run {one.name}",
            f'environment=PYTHONPATH="{python_path()}",CMASS_SERVICE_HOME="{home}"',
            "autostart=false", "autorestart=true", "startsecs=3", "startretries=5",
            f"priority={one.stage}", f"stopsignal={one.stop_signal}", "stopwaitsecs=40",
            "stopasgroup=true" if one.stop_signal == "TERM" else "stopasgroup=false",
            "killasgroup=true", "redirect_stderr=true",
            f"stdout_logfile={settings.logs.resolve() / one.name}.log",
            f"stdout_logfile_maxbytes={_LOG_BYTES}", f"stdout_logfile_backups={_LOG_COPIES}",
        ]  # fmt: skip
    return "\n".join(line.replace("%", "%%") for line in lines) + "\n"


class Supervisor:
    """The supervisor of a service.

    Parameters
    ----------
    settings : ServiceSettings
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings

    def _ask(self) -> Any:
        from xmlrpc.client import ServerProxy

        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{socket_path(self.settings)}")
        return ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def runs(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self._ask().getState()["statename"] == "RUNNING")
        except OSError:  # no socket, or nobody behind it
            return False

    def states(self) -> dict[str, State]:
        """What every program does."""
        return {
            p["name"]: State(p["name"], p["statename"], p["pid"], p["now"] - p["start"])
            for p in self._ask().getAllProcessInfo()
        }

    def begin(self) -> None:
        """Start it, without any program."""
        file = self.settings.home / "supervisord.conf"
        file.write_text(configuration(self.settings))
        file.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(file.resolve())],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise WorkspaceError(
                f"supervisord does not start: {(done.stderr or done.stdout)[-600:]}"
            )
        end = time.monotonic() + 20
        while not self.runs():
            if time.monotonic() > end:
                raise WorkspaceError(
                    f"supervisord does not answer: {self.settings.logs}/supervisord.log"
                )
            time.sleep(0.1)

    def start(self, one: Program) -> None:
        """Start a program unless it is there."""
        from xmlrpc.client import Fault

        try:
            self._ask().startProcess(one.name, False)
        except Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise WorkspaceError(
                    f"{one.name} cannot be started: {fault.faultString}"
                ) from fault

    def stop(self) -> None:
        """Stop the programs, the last stage first, then the supervisor itself."""
        from xmlrpc.client import Fault

        there = self.states()
        for one in sorted(programs(self.settings), key=lambda p: -p.stage):
            if one.name in there and there[one.name].pid:
                try:
                    self._ask().stopProcess(one.name, True)
                except Fault as fault:
                    if "NOT_RUNNING" not in fault.faultString:
                        raise
        pid = self._ask().getPID()
        self._ask().shutdown()
        end = time.monotonic() + 60
        while _lives(pid):
            if time.monotonic() > end:
                raise WorkspaceError(f"supervisord (process {pid}) does not end")
            time.sleep(0.1)

    def log_end(self, name: str, n_bytes: int = 1500) -> str:
        """The end of a program's log."""
        file = self.settings.logs / f"{name}.log"
        try:
            return file.read_bytes()[-n_bytes:].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return "(no log)"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end_leftovers(settings: ServiceSettings) -> None:
    """End what a supervisor left that was killed: children of its programs know nothing of its end."""
    import psutil

    home = str(settings.home.resolve())
    left = []
    # A process that has the number of an older one is told by psutil's memory to be gone, and left alone.
    psutil.process_iter.cache_clear()
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == home:
                left.append(process)
        except psutil.Error:  # it has gone, or is somebody else's
            continue
    for process in left:
        log.info("ending process %d, left by a service that was killed", process.pid)
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(left, timeout=20)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=10)


def wait_until_well(supervisor: Supervisor, waiting: list[Program], seconds: float) -> None:
    """Wait until all of `waiting` are well.

    Raises
    ------
    WorkspaceError
        One is not after so many seconds, or has given up; with its reason and the end of its log.
    """
    end = time.monotonic() + seconds
    for one in waiting:
        while True:
            try:
                one.well()
                break
            except (
                Exception
            ) as error:  # of sockets, HTTP, databases, Dask: any of them means not yet
                reason = error
            state = supervisor.states()[one.name].word
            if state == "FATAL" or time.monotonic() > end:
                raise WorkspaceError(
                    f"{one.name} is not well ({state}: {reason}); its log "
                    f"{supervisor.settings.logs / one.name}.log ends:\n{supervisor.log_end(one.name)}"
                ) from reason
            time.sleep(0.5)
