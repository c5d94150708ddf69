"""Matching: the mocks get the survey's distribution, or the survey is told that they cannot."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from cmass.errors import InputError
from cmass.evaluate.realism.matching import distance_edges, match
from cmass.evaluate.realism.windows import cluster_numbers
from tests.evaluate.realism.test_statistics import windows_of


def test_weighted_mocks_have_the_survey_s_counts_in_every_bin():
    rng = np.random.default_rng(5)

    def draw(n, mean, weight=None):
        z = rng.uniform(0.02, 0.08, n)
        counts = np.ceil(mean * 10 ** (0.3 * rng.standard_normal(n))).astype(int)
        return windows_of([np.zeros((k, 3)) for k in counts], 14.2, z, weight=weight)

    real, mock = draw(400, 30), draw(3000, 20, rng.uniform(0.1, 3, 3000))
    edges = distance_edges(real.distance_mpc_h, 4)
    matched = match(real, mock, 0.2, edges)
    assert matched.mock.weight.sum() == pytest.approx(matched.real.weight.sum())
    for bin in np.unique(matched.bin_real):
        ours = matched.real.weight[matched.bin_real == bin].sum()
        assert matched.mock.weight[matched.bin_mock == bin].sum() == pytest.approx(ours)
    # inside a bin the mocks keep their own shares
    here = matched.bin_mock == np.bincount(matched.bin_mock).argmax()
    share = matched.mock.weight[here] / mock.weight[here]
    np.testing.assert_allclose(share, share[0])
    assert matched.n_effective < 3000
    assert (matched.real.weight == 0).sum() == matched.n_without_mocks
    # quartiles of distance: a quarter in each bin
    far = np.searchsorted(edges, real.distance_mpc_h, side="right") - 1
    assert np.bincount(far).tolist() == [100, 100, 100, 100]


def test_clusters_without_mocks_are_reported_and_do_not_count():
    def of(*counts):
        return windows_of([np.zeros((k, 3)) for k in counts])

    real, mock = of(11, 12, 80), of(11, 12, 12, 80, 80)
    matched = match(real, mock, 0.2, np.array([0, np.inf]))
    assert matched.n_without_mocks == 1  # two mocks are too few to stand for it
    assert matched.real.weight.tolist() == [1, 1, 0]
    np.testing.assert_allclose(matched.mock.weight, [2 / 3] * 3 + [0, 0])
    nowhere = match(real, of(40), 0.2, np.array([0, np.inf]))
    assert nowhere.n_without_mocks == 3
    assert nowhere.n_effective == 0


def test_numbers_come_from_the_end_of_the_identifier():
    ids = pa.chunked_array([["GalWCat19-0042", "emb-2-0007"]])
    assert cluster_numbers(ids).tolist() == [42, 7]
    with pytest.raises(InputError, match="does not end with a number"):
        cluster_numbers(pa.chunked_array([["Coma"]]))
