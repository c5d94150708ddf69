"""The registry: DVC's own hashes, versions and their tags, the alias."""

from __future__ import annotations

import os
import subprocess
import sys

import mlflow
import pytest
import yaml

from cmass import registry
from cmass.errors import WorkspaceError
from cmass.networks import cnn3d
from cmass.networks.training import State
from cmass.params import Params, VoxelParams
from cmass.workspace import Workspace


def test_hash_of_a_folder_is_dvcs(tmp_path):
    folder = tmp_path / "voxels"
    (folder / "inner").mkdir(parents=True)
    for name in ("b.bin", "a.bin", "inner/c.bin", "inner-1.bin"):
        (folder / name).write_bytes(name.encode() * 1000)

    def dvc(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True,
            capture_output=True,
        )  # fmt: skip

    dvc("init", "--no-scm")
    dvc("add", "voxels")
    recorded = yaml.safe_load((tmp_path / "voxels.dvc").read_text())["outs"][0]["md5"]
    assert registry.dvc_hash(folder) == recorded


SUMMARY = {
    "validation_rms_dex": 0.2, "data_sha256": "d", "weights_sha256": "w", "seed": 1, "n_train": 9,
    "n_validation": 1,
}  # fmt: skip


def register(root, profile: str = "smoke", **changes) -> tuple[Workspace, dict]:
    workspace = Workspace(root, profile, "embedded")
    for which in ("train", "validation"):
        (workspace.voxels / which).mkdir(parents=True, exist_ok=True)
    params = Params(profile=profile, voxels=VoxelParams(n=12))
    state = State(2, [0.2, 0.1], [0.3, 0.2], [1e-3, 1e-4])
    entry = registry.register(workspace, params, cnn3d.build(12), SUMMARY | changes, state)
    return workspace, entry


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Two trainings, the first of them once more, and one of another profile."""
    root = tmp_path_factory.mktemp("registry")
    trainings = [("smoke", "w"), ("smoke", "other"), ("smoke", "w"), ("standard", "w")]
    made = [register(root, profile, weights_sha256=weights) for profile, weights in trainings]
    return made[0][0], [entry for _, entry in made]


def test_every_training_is_a_version_of_its_profiles_model(registered):
    _, entries = registered
    named = [(e["name"], e["version"]) for e in entries]
    smoke, standard = "cmass-cnn3d-smoke", "cmass-cnn3d-standard"
    assert named == [(smoke, "1"), (smoke, "2"), (smoke, "1"), (standard, "1")]
    assert entries[2]["run_id"] == entries[0]["run_id"]


def test_a_version_knows_its_data_code_and_environment(registered):
    workspace, entries = registered
    known = registry.Registry(workspace)
    tags = known.version("1").tags
    assert tags["weights.sha256"] == "w"
    assert tags["data.dvc_train"].endswith(".dir")
    assert {"code.commit", "code.state", "device", "seed"} <= set(tags)
    client = mlflow.MlflowClient(known.uri)
    run = client.get_run(entries[0]["run_id"])
    assert run.data.metrics["validation_rms_dex"] == 0.2
    names = {item.path for item in client.list_artifacts(entries[0]["run_id"])}
    assert {"environment.json", "loss.png"} <= names


def test_registering_gives_nobody_the_alias(registered):
    workspace, _ = registered
    assert registry.Registry(workspace).champion() is None


def test_the_alias_moves_by_hand_only(registered):
    workspace, _ = registered
    known = registry.Registry(workspace)
    for number in ("2", "1"):
        known.crown(number)
        champion = known.champion()
        assert champion is not None and champion.number == number
        assert [v.number for v in known.versions() if v.aliases] == [number]


def test_a_version_that_is_not_there_is_named(registered):
    workspace, _ = registered
    with pytest.raises(WorkspaceError, match=r"no version 7 of cmass-cnn3d-smoke \(it has: 1, 2\)"):
        registry.Registry(workspace).version("7")


def test_folders_go_to_the_registry_and_come_back(registered, tmp_path):
    workspace, _ = registered
    known = registry.Registry(workspace)
    (tmp_path / "there" / "inner").mkdir(parents=True)
    (tmp_path / "there" / "inner" / "a.txt").write_text("words")
    known.upload(known.version("1"), tmp_path / "there", "bundle-1")
    back = known.download(known.version("1"), "bundle-1", tmp_path / "back")
    assert (back / "inner" / "a.txt").read_text() == "words"


def test_two_workspaces_of_one_process_have_a_store_each(registered, tmp_path):
    before = dict(os.environ)
    workspace, entry = register(tmp_path)
    assert entry["version"] == "1"
    assert entry["tracking_uri"] == f"sqlite:///{workspace.mlflow / 'mlflow.db'}"
    assert dict(os.environ) == before


def test_a_server_that_is_away_is_named_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(WorkspaceError, match=r"127\.0\.0\.1:9 .*Nothing is lost"):
        registry.Registry(Workspace(tmp_path, "smoke", "embedded")).champion()


def test_a_store_whose_making_was_killed_is_made_again(tmp_path):
    """Between two of MLflow's migrations, as kill -9 does: no exception, no clean-up."""
    code = """
import os, sys
from pathlib import Path
import mlflow.store.db.utils as db
from sqlalchemy import event
from sqlalchemy.engine import Engine
from cmass.registry import Registry
from cmass.workspace import Workspace

@event.listens_for(Engine, "before_cursor_execute")
def count(connection, cursor, statement, *rest):
    if "registered_models" in statement and "CREATE TABLE" in statement:
        os._exit(9)

Registry(Workspace(Path(sys.argv[1]), "smoke", "embedded")).crown("1")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    workspace = Workspace(tmp_path, "smoke", "embedded")
    with pytest.raises(WorkspaceError, match="cmass-cnn3d-smoke"):
        registry.Registry(workspace).crown("1")
    assert registry.Registry(workspace).versions() == []
    assert {p.name for p in workspace.mlflow.iterdir()} <= {"mlflow.db", "mlflow.lock"}


def test_who_only_asks_makes_no_store(tmp_path):
    known = registry.Registry(Workspace(tmp_path, "smoke", "embedded"))
    assert (known.versions(), known.names(), known.champion()) == ([], [], None)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_away_is_told_within_a_minute():
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_HTTP_REQUEST_TIMEOUT,
    )

    tries, factor = MLFLOW_HTTP_REQUEST_MAX_RETRIES.get(), MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get()
    assert sum(factor * 2**n for n in range(tries)) < 60
    assert (tries + 1) * MLFLOW_HTTP_REQUEST_TIMEOUT.get() < 180
