"""The servers: keys, restarts, what is kept, and who may read what."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from flows.service.service import look
from flows.service.settings import ROOT, worker_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_dvc_reaches_the_store(service, folder):
    """What the archive of releases will do: a remote in the bucket, named by the environment."""
    environment = os.environ | worker_environment(service)
    (folder / "file").write_text("bytes")

    def dvc(*words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    dvc("init", "--no-scm", "--quiet")
    dvc("config", "core.analytics", "false")
    dvc("remote", "add", "-d", "store", environment["CMASS_REMOTE"] + "/test")
    dvc("remote", "modify", "store", "endpointurl", environment["AWS_ENDPOINT_URL"])
    dvc("add", "--quiet", "file")
    dvc("push", "--quiet")
    (folder / "file").unlink()
    shutil.rmtree(folder / ".dvc" / "cache")
    dvc("pull", "--quiet")
    assert (folder / "file").read_text() == "bytes"


def test_no_secret_is_on_a_command_line_or_in_a_log(service):
    import psutil

    from flows.service.settings import own_secrets

    values = [v for n, v in own_secrets(service).items() if n != "AWS_ACCESS_KEY_ID"]
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:  # it has gone, or is not ours
            continue
    files = [p for p in (*service.logs.iterdir(), service.home / "supervisord.conf") if p.is_file()]
    texts = [*lines, *(p.read_text(errors="replace") for p in files)]
    assert len(texts) > 10
    assert not [t[:100] for t in texts for v in values if v in t]
    for name in ("secrets.env", "worker.env"):
        assert (service.home / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["s3", "mlflow", "postgres"])
def test_what_dies_is_started_again(service, name):
    """Killed without a chance to say goodbye; what depends on it gets well by itself."""
    before = {one.name: one for one in look(service)}[name]
    os.kill(before.pid, signal.SIGKILL)
    end = time.monotonic() + 300
    while True:
        now = {one.name: one for one in look(service)}
        if now[name].pid not in (0, before.pid) and all(one.well for one in now.values()):
            break
        assert time.monotonic() < end, {one.name: one.trouble for one in now.values()}
        time.sleep(1)


def start(service) -> str:
    """What `make serve` says."""
    words = [sys.executable, "-m", "flows.service", "start"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CMASS_SERVICE_HOME": str(service.home)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_supervisor_that_was_killed_leaves_nothing_in_the_way(service):
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    from flows.service.runs import REASON

    server = temporary_settings({PREFECT_API_URL: service.prefect_api})
    with server, get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("cmass-backfill/one-step")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"name": "split"}, state=Running()
        )
        os.kill(int((service.home / "supervisord.pid").read_text()), signal.SIGKILL)
        assert "The service runs, after" in start(service)
        assert all(one.well for one in look(service))
        state = client.read_flow_run(run.id).state
    assert (state.name, state.message) == ("Crashed", REASON)


def test_strangers_are_not_let_in(service):
    import boto3
    import psycopg2
    from botocore.exceptions import ClientError

    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(
            host="127.0.0.1", port=service.postgres_port, user="cmass", dbname="mlflow",
            password="wrong",
        )  # fmt: skip
    stranger = boto3.client(
        "s3", endpoint_url=service.s3_url, aws_access_key_id="someone",
        aws_secret_access_key="else", region_name="us-east-1",
    )  # fmt: skip
    with pytest.raises(ClientError, match="InvalidAccessKeyId|AccessDenied"):
        stranger.list_objects_v2(Bucket=service.bucket)


def test_every_program_listens_on_this_machine_only(service):
    import psutil

    found = 0
    for one in look(service):
        parent = psutil.Process(one.pid)
        for process in (parent, *parent.children(recursive=True)):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in ("127.0.0.1", "::1"), (one.name, connection)
                    found += 1
    assert found >= 8


def test_a_second_start_says_so(service):
    said = start(service)
    assert "runs already" in said
    assert service.mlflow_url in said
