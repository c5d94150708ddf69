"""Two-sample tests: silent on equal samples, loud on different ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from cmass.evaluate.realism import features
from cmass.evaluate.realism.matching import match
from cmass.evaluate.realism.windows import survey_windows
from tests.evaluate.realism.test_statistics import windows_of


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def test_area_under_curve_is_that_of_mann_and_whitney(rng):
    score, positive = rng.integers(0, 30, 200).astype(float), rng.random(200) < 0.4
    expected = mannwhitneyu(score[positive], score[~positive]).statistic
    expected /= positive.sum() * (~positive).sum()
    assert features.area_under_curve(score, positive) == pytest.approx(expected)


def test_equal_samples_pass_and_p_is_fair(rng):
    tests = [
        features.two_sample(rng.normal(size=(60, 6)), rng.normal(size=(60, 6)), 60, rng)
        for _ in range(40)
    ]
    # p is uniform: of 40, 2 lie below 0.05; more than 7 do once in 300 times
    assert sum(t.auc_p < 0.05 for t in tests) <= 7
    assert sum(t.energy_p < 0.05 for t in tests) <= 7
    assert np.mean([t.auc for t in tests]) == pytest.approx(0.5, abs=0.03)


def test_distances_are_those_of_scipy(rng):
    a, b = rng.normal(size=(30, 3)), rng.normal(size=(30, 3)) + 0.5
    test = features.two_sample(a, b, 20, rng)
    x = features.whiten(np.vstack([a, b]), 20)
    a, b = x[:30], x[30:]
    within = (cdist(a, a).sum() + cdist(b, b).sum()) / (2 * 30 * 29)
    assert test.distance_within == pytest.approx(within)
    assert test.distance_across == pytest.approx(cdist(a, b).mean())


def test_a_shift_and_a_change_of_shape_are_found(rng):
    a = rng.normal(size=(150, 4))
    shifted = features.two_sample(a, rng.normal(size=(150, 4)) + np.array([0.7, 0, 0, 0]), 100, rng)
    assert shifted.auc > 0.6
    assert shifted.auc_p < 0.02
    assert shifted.energy_p < 0.02
    # same means: a linear classifier is blind to it, the energy distance is not
    wider = features.two_sample(a, 1.8 * rng.normal(size=(150, 4)), 100, rng)
    assert wider.energy_p < 0.02


def test_matched_rows_are_balanced_in_every_bin(rng):
    n = 300

    def clouds(k, mean):
        return [np.zeros((m + 1, 3)) for m in rng.poisson(mean, k)]

    real = windows_of(clouds(n, 20))
    weight = rng.uniform(0, 1, 2 * n)
    mock = windows_of(clouds(2 * n, 15), weight=weight)
    matched = match(real, mock, 0.2, np.array([0, np.inf]))
    ours, theirs = features.matched_rows(matched, rng)
    assert len(set(ours)) == len(ours) == len(set(theirs)) == len(theirs)
    np.testing.assert_array_equal(
        np.sort(matched.bin_real[ours]), np.sort(matched.bin_mock[theirs])
    )  # fmt: skip
    assert matched.real.weight[ours].all()
    assert matched.mock.weight[theirs].all()


def test_features_are_those_of_the_first_dense_layer(tiny_run):
    """The estimate follows from them by the two layers behind."""
    from cmass.infer import Sample, point_estimates
    from cmass.networks import cnn3d, prediction
    from cmass.pretrained import from_workspace

    workspace, params = tiny_run
    network = cnn3d.load(workspace.model / "cnn3d.weights.h5", params.voxels.n)
    windows = survey_windows(workspace, params).select(np.arange(6))
    found = prediction.predict_clouds(
        network, windows.clouds(), params.window, params.voxels, features=True
    )[:, 1:]
    assert found.shape == (6, 128)
    x = found
    assert not network.rectified
    weights = network.get_weights()
    for kernel, bias in (weights[-4:-2], weights[-2:]):
        x = x @ kernel.astype(float) + bias
    n = len(windows)
    sample = Sample(
        ["a"] * n, np.zeros(n), np.zeros(n), windows.z, np.zeros(n, np.int32), windows.points,
        windows.offsets,
    )  # fmt: skip
    expected = point_estimates(
        sample, from_workspace(workspace, params), np.zeros(n, np.int32), progress=False
    )
    # float32 sums in the network
    np.testing.assert_allclose(x[:, 0], expected, atol=1e-3)
