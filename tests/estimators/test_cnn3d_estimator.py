"""CNN_3D as an estimator: trained on windows alone, or taken over from a run."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.estimators.windows import Sets, mock_windows
from tests.estimators.toy import toy_params, toy_sets, toy_windows

pytest.importorskip("tensorflow")

from cmass.estimators.cnn3d import CNN3D

pytestmark = pytest.mark.xdist_group("tensorflow")


def _small():
    base = toy_params()
    changes = {
        "voxels": base.voxels.model_copy(update={"n": 20, "clusters_per_shard": 50}),
        "train": base.train.model_copy(update={"epochs": 3, "batch_size": 20}),
    }
    return base.model_copy(update=changes)


def test_without_a_run_it_makes_voxels_and_learns(tmp_path):
    params = _small()
    one = CNN3D(params, seed=params.seed)
    one.fit(toy_sets(120), tmp_path)
    assert not one.taken_over
    assert [p.name for p in sorted((tmp_path / "voxels").iterdir())] == ["train", "validation"]
    windows = toy_windows(60, 5)
    error = windows.log10_m200c_true - one.point(windows)
    assert error.std() < 0.43  # the prior's
    (tmp_path / "saved").mkdir()
    one.save(tmp_path / "saved")
    again = CNN3D.load(tmp_path / "saved", params, params.seed)
    np.testing.assert_array_equal(again.point(windows), one.point(windows))


def test_the_runs_own_seed_takes_over_its_network_and_another_trains(
    tiny_run, tmp_path, monkeypatch
):
    workspace, params = tiny_run
    train, validation, test = mock_windows(workspace, "train", "validation", "test")
    sets = Sets(train, validation, test, workspace)
    own = CNN3D(params, params.seed)
    own.fit_point(sets, tmp_path)
    assert own.taken_over
    asked = {}

    from cmass.networks import cnn3d, training
    from cmass.networks.streaming import Files

    def fit(train, validation, checkpoint, params, seed, identity):
        asked.update(train=train, seed=seed)
        return cnn3d.build(params.voxels.n).get_weights(), training.State(1, [0.1], [0.1], [1e-3])

    monkeypatch.setattr(training, "fit", fit)
    other = CNN3D(params, params.seed + 1)
    other.fit_point(sets, tmp_path)
    assert not other.taken_over
    assert asked == {"train": Files(workspace.voxels / "train"), "seed": params.seed + 1}
