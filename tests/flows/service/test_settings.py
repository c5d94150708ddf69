"""Ports, secrets and what the supervisor is told; no server is started here."""

from __future__ import annotations

import configparser
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cmass.errors import WorkspaceError
from flows.service import postgres, probe, processes, service, supervise
from flows.service.settings import (
    HOST,
    SECRETS,
    ServiceSettings,
    own_secrets,
    taken_ports,
    worker_environment,
)

NAMES = ["postgres", "s3", "prefect", "mlflow", "dask-scheduler", "dask-workers", "worker"]


@pytest.fixture
def settings(tmp_path) -> ServiceSettings:
    return ServiceSettings(home=tmp_path / "service", data=tmp_path / "data")


@pytest.fixture
def every_program(monkeypatch):
    """Where PostgreSQL or SeaweedFS are not installed, their paths do not matter here."""
    monkeypatch.setattr(processes, "postgres_tool", lambda name: f"/pg/{name}")
    monkeypatch.setattr(processes, "_script", lambda name: f"/bin/{name}")


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CMASS_SERVICE_PREFECT_PORT", "4300")
    assert ServiceSettings().prefect_api == "http://127.0.0.1:4300/api"


def test_two_servers_do_not_share_a_port():
    with pytest.raises(ValidationError, match="listen on port 4200"):
        ServiceSettings(mlflow_port=4200)
    # SeaweedFS' parts talk 10000 above their ports
    with pytest.raises(ValidationError, match="listen on port 18333"):
        ServiceSettings(mlflow_port=18333)


def test_settings_of_the_running_service_win(settings, monkeypatch):
    settings.home.mkdir(parents=True)
    settings.model_copy(update={"mlflow_port": 5055}).keep()
    monkeypatch.setenv("CMASS_SERVICE_MLFLOW_PORT", "5066")
    assert ServiceSettings.of_running(settings.home).mlflow_port == 5055


def test_a_port_that_is_taken_is_named_with_the_way_out(settings):
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        busy = settings.model_copy(update={"dask_port": port})
        assert taken_ports(busy)["dask_port"] == port
        with pytest.raises(WorkspaceError, match=rf"{port} \(dask_port\)"):
            service._prepare(busy)
    assert "dask_port" not in taken_ports(busy)


def test_secrets_are_made_once_and_for_the_owner(settings):
    first = own_secrets(settings)
    assert set(first) == set(SECRETS)
    assert len(set(first.values())) == 3
    assert own_secrets(settings) == first
    assert settings.secrets_file.stat().st_mode & 0o777 == 0o600


def test_secrets_that_others_can_read_are_refused(settings):
    own_secrets(settings)
    settings.secrets_file.chmod(0o644)
    with pytest.raises(WorkspaceError, match="chmod 600"):
        own_secrets(settings)


def test_secrets_that_were_lost_are_not_made_anew(settings):
    own_secrets(settings)
    lines = settings.secrets_file.read_text().splitlines()[1:]
    settings.secrets_file.write_text("\n".join(lines))
    with pytest.raises(WorkspaceError, match="lacks PGPASSWORD"):
        own_secrets(settings)


def test_the_worker_gets_no_password_of_the_database(settings):
    given = worker_environment(settings)
    password = own_secrets(settings)["PGPASSWORD"]
    assert password not in given.values()
    assert given["MLFLOW_TRACKING_URI"] == settings.mlflow_url
    assert given["CMASS_REMOTE"] == "s3://cmass/dvc"


def test_programs_bind_to_this_machine_and_show_no_secret(settings, every_program):
    secrets = own_secrets(settings)
    found = processes.programs(settings)
    assert [one.name for one in found] == NAMES
    assert [one.stage for one in found] == sorted(one.stage for one in found)
    for one in found:
        words = " ".join(one.command)
        assert "0.0.0.0" not in words
        for name, value in secrets.items():
            assert value not in words, name
            assert value not in repr(one), name


def test_the_supervisor_is_told_no_secret(settings, every_program):
    text = supervise.configuration(settings)
    assert not [n for n, value in own_secrets(settings).items() if value in text]
    told = configparser.ConfigParser(interpolation=None)
    told.read_string(text)
    for name in NAMES:
        section = told[f"program:{name}"]
        assert section["command"] == f"{sys.executable} -m flows.service run {name}"
        assert section["autorestart"] == "true"
        assert section["stdout_logfile_maxbytes"] == "5MB"


def test_a_deep_folder_gets_a_socket_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(supervise.tempfile, "tempdir", None)
    near = ServiceSettings(home=Path("/s"))
    assert supervise.socket_path(near) == Path("/s/supervisor.sock")
    far = ServiceSettings(home=tmp_path / ("x" * 60) / ("y" * 60))
    path = supervise.socket_path(far)
    assert path.parent == tmp_path / f"cmass-{os.geteuid()}"
    assert path == supervise.socket_path(far)


def test_postgres_does_not_run_as_root(settings, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    user = postgres.owner(settings)
    assert user is not None and user.pw_uid != 0
    unknown = settings.model_copy(update={"postgres_user": "no-such-user"})
    with pytest.raises(WorkspaceError, match="CMASS_SERVICE_POSTGRES_USER"):
        postgres.owner(unknown)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres.owner(settings) is None


def test_a_folder_that_postgres_cannot_enter_is_named(tmp_path):
    closed = tmp_path / "closed"
    (closed / "postgres").mkdir(parents=True)
    closed.chmod(0o700)
    other = pwd.getpwnam("nobody")
    with pytest.raises(WorkspaceError, match="cannot enter"):
        postgres._check_reachable(closed / "postgres", other)


def test_a_cluster_of_another_version_is_refused(settings, monkeypatch, tmp_path):
    fake = tmp_path / "postgres"
    fake.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.2'\n")
    fake.chmod(0o755)
    monkeypatch.setattr(postgres, "postgres_tool", lambda name: str(fake))
    settings.postgres.mkdir(parents=True)
    (settings.postgres / "PG_VERSION").write_text("15\n")
    with pytest.raises(WorkspaceError, match="made by PostgreSQL 15, and 17"):
        postgres.initialise(settings)
    (settings.postgres / "PG_VERSION").write_text("17\n")
    postgres.initialise(settings)


def test_without_postgres_the_message_says_what_to_install(settings, monkeypatch):
    monkeypatch.setattr(processes.shutil, "which", lambda name: None)
    monkeypatch.setattr(processes.Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(WorkspaceError, match="apt-get install postgresql"):
        postgres.install()


def test_probe():
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        assert probe.well(f"tcp://{HOST}:{port}") == ""
    assert "refused" in probe.well(f"tcp://{HOST}:{port}")
    assert "refused" in probe.well(f"http://{HOST}:{port}/health")


def test_nothing_runs(settings, every_program):
    assert service.look(settings) == []
    assert not service.stop(settings)


def test_what_a_killed_service_left_is_ended(settings):
    def sleeper(home: Path) -> subprocess.Popen:
        marked = os.environ | {processes.MARK: str(home)}
        return subprocess.Popen(["sleep", "60"], env=marked)

    ours, other = sleeper(settings.home.resolve()), sleeper(settings.home.parent / "other")
    try:
        supervise.end_leftovers(settings)
        ours.wait(timeout=10)  # or TimeoutExpired: it would have slept a minute
        assert other.poll() is None
    finally:
        for one in (ours, other):
            one.kill()
            one.wait()
