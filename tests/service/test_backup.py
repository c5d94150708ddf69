"""Backup of the service at work, and another service made of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.service import health
from flows.service.settings import ROOT, ServiceSettings, own_secrets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_SHIFT = 7_000


def command(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = os.environ | {"PYTHONPATH": str(ROOT), "CMASS_SERVICE_HOME": str(home)} | environment
    return subprocess.run(
        [sys.executable, "-m", "flows.service", *words],
        env=given, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def elsewhere(service) -> Iterator[tuple[Path, dict[str, str]]]:
    """A second service's folder and ports; it is stopped at the end."""
    home = Path(tempfile.mkdtemp(dir=service.home.resolve().parent, prefix="restored-"))
    home.chmod(0o755)  # PostgreSQL's user must get through
    names = [n for n in ServiceSettings.model_fields if n.endswith("_port")]
    ports = {f"CMASS_SERVICE_{n.upper()}": str(getattr(service, n) + _SHIFT) for n in names}
    yield home, ports
    stopped = command(home, "stop")
    assert stopped.returncode == 0, stopped.stderr
    shutil.rmtree(home)


def objects(settings: ServiceSettings) -> dict[str, tuple[int, str]]:
    """Size and MD5 of every object."""
    pages = health.store(settings).get_paginator("list_objects_v2").paginate(Bucket=settings.bucket)
    found = (one for page in pages for one in page.get("Contents", []))
    return {o["Key"]: (o["Size"], o["ETag"]) for o in found if not o["Key"].endswith("/")}


def ask_prefect(settings: ServiceSettings, *words: str) -> str:
    environment = os.environ | {
        "PREFECT_API_URL": settings.prefect_api, "PREFECT_HOME": str(settings.home / "prefect"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *words],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_restored_service_knows_what_the_first_one_knew(service, folder, elsewhere, monkeypatch):
    import mlflow

    name = folder.name  # of this try alone
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key, raising=False)
    registry = mlflow.MlflowClient(service.mlflow_url)
    run = registry.create_run(registry.create_experiment(name))
    registry.log_metric(run.info.run_id, "scatter_dex", 0.174)
    registry.log_text(run.info.run_id, "weights", "model/weights.txt")
    registry.create_registered_model(name)
    registry.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    registry.set_registered_model_alias(name, "champion", "1")
    ask_prefect(service, "variable", "set", name.replace("-", "_"), "kept")
    ask_prefect(service, "gcl", "create", name, "--limit", "1", "--active-slots", "1")

    backup = folder / "backup"
    made = command(service.home, "backup", str(backup))
    assert made.returncode == 0, made.stderr
    assert "files," in made.stdout
    again = command(service.home, "backup", str(backup))
    assert again.returncode == 5
    assert "exists: a backup goes into a folder of its own" in again.stderr
    secrets = own_secrets(service).values()
    assert not [p for p in backup.rglob("*") if p.is_file()
                and any(s.encode() in p.read_bytes() for s in secrets)]  # fmt: skip

    home, ports = elsewhere
    started = command(home, "restore", str(backup), **ports)
    assert started.returncode == 0, started.stderr
    restored = ServiceSettings.of_running(home)
    assert restored.mlflow_port == service.mlflow_port + _SHIFT
    assert objects(restored) == objects(service)
    there = mlflow.MlflowClient(restored.mlflow_url)
    version = there.get_model_version_by_alias(name, "champion")
    assert there.get_run(version.run_id).data.metrics == {"scatter_dex": 0.174}
    path = mlflow.artifacts.download_artifacts(
        run_id=version.run_id, artifact_path="model/weights.txt", dst_path=str(folder),
        tracking_uri=restored.mlflow_url,
    )  # fmt: skip
    assert Path(path).read_text() == "weights"
    assert "kept" in ask_prefect(restored, "variable", "get", name.replace("-", "_"))
    turn = json.loads(ask_prefect(restored, "gcl", "inspect", name, "--output", "json"))
    assert (turn["limit"], turn["active_slots"]) == (1, 0)  # of a run that is not here
    assert own_secrets(restored) != own_secrets(service)

    state = command(home, "status", "--json")
    assert state.returncode == 0
    assert all(one["well"] for one in json.loads(state.stdout))
    twice = command(home, "restore", str(backup), **ports)
    assert twice.returncode == 5
    assert "a backup is put back into a new one" in twice.stderr


def test_a_restore_that_was_broken_off_is_not_taken_for_a_service(service, tmp_path):
    (tmp_path / "restoring").write_text("/backups/monday")
    done = command(tmp_path, "start")
    assert done.returncode == 5
    assert "restore it again from /backups/monday" in done.stderr
