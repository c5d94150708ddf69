"""The registry: DVC's own hashes, and who becomes champion."""

from __future__ import annotations

import os
import subprocess
import sys

import mlflow
import pytest
import yaml

from cmass.networks import cnn3d, registry
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


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Versions registered by a smoke run, a standard run, and a smoke run again."""
    root = tmp_path_factory.mktemp("registry")
    model = cnn3d.build(12)
    summary = {"validation_rms_dex": 0.2, "data_sha256": "d", "weights_sha256": "w", "seed": 1}
    state = State(2, [0.2, 0.1], [0.3, 0.2], [1e-3, 1e-4])
    made = []
    for profile in ("smoke", "standard", "smoke"):
        workspace = Workspace(root, profile, "embedded")
        for which in ("train", "validation"):
            (workspace.voxels / which).mkdir(parents=True, exist_ok=True)
        params = Params(profile=profile, voxels=VoxelParams(n=12))
        made.append(registry.register(workspace, params, model, summary, state))
    return made


def test_a_smoke_run_never_displaces_a_real_model(registered):
    first, standard, last = registered
    assert (first["alias"], standard["alias"], last["alias"]) == ("champion", "champion", None)
    client = mlflow.MlflowClient(standard["tracking_uri"])
    champion = client.get_model_version_by_alias(cnn3d.NAME, "champion")
    assert str(champion.version) == standard["version"]
    assert champion.tags["profile"] == "standard"
    assert champion.tags["data.dvc_train"].endswith(".dir")


def test_two_workspaces_of_one_process_have_a_store_each(registered, tmp_path):
    before = dict(os.environ)
    workspace = Workspace(tmp_path, "smoke", "embedded")
    for which in ("train", "validation"):
        (workspace.voxels / which).mkdir(parents=True)
    summary = {"validation_rms_dex": 0.2, "data_sha256": "d", "weights_sha256": "w", "seed": 1}
    params = Params(profile="smoke", voxels=VoxelParams(n=12))
    state = State(1, [0.2], [0.3], [1e-3])
    version = registry.register(workspace, params, cnn3d.build(12), summary, state)
    assert (version["version"], version["alias"]) == ("1", "champion")
    assert version["tracking_uri"] == f"sqlite:///{workspace.mlflow / 'mlflow.db'}"
    assert dict(os.environ) == before
