"""Fixtures that several tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished run in small (see tests/tiny.py): workspace and parameters. Read only."""
    pytest.importorskip("tensorflow")
    from tests.tiny import finished_run

    return finished_run(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run, tmp_path_factory):
    """Folder of the bundle of the finished run. Read only."""
    from cmass.pretrained import make_bundle

    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(*tiny_run, folder, commit="0123abc")
    return folder


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory):
    """Mocks, split and voxels by the real steps, small: workspace and parameters.

    Products of later steps may be added below its folder; what is there stays as it is.
    """
    from cmass import mock, split, voxels
    from cmass.params import Params, SplitParams, TrainParams, VoxelParams
    from cmass.workspace import Workspace

    base = Params()
    haloes = base.mock.haloes.model_copy(update={"n_windows": 110})
    params = base.model_copy(
        update={
            "mock": base.mock.model_copy(update={"haloes": haloes, "haloes_per_shard": 25}),
            "split": SplitParams(train=70, test=25, evaluation=10),
            "voxels": VoxelParams(n=20, clusters_per_shard=16),
            "train": TrainParams(epochs=2, batch_size=16, learning_rate=1e-3),
        }
    )
    workspace = Workspace(tmp_path_factory.mktemp("simulated"), "standard", "embedded")
    for step in (mock, split, voxels):
        step.run(workspace, params)
    return workspace, params
