"""Windows of mocks as estimators read them."""

from __future__ import annotations

import numpy as np
import pytest

from cmass.errors import InputError, ParameterError
from cmass.estimators import estimator
from cmass.estimators.windows import Windows, mock_windows
from cmass.tables import read_table
from cmass.workspace import Workspace


def _windows() -> Windows:
    points = np.arange(18.0).reshape(6, 3)
    offsets = np.array([0, 2, 2, 6])
    return Windows(["a", "b", "c"], points, offsets, np.array([0.1, 0.2, 0.3]),
                   np.array([14.0, 14.5, np.nan]), np.array([1, 2, -1]))  # fmt: skip


def test_rows_are_taken_with_their_galaxies():
    taken = _windows().take(np.array([2, 1, 0, 2]))
    assert taken.cluster_id == ["c", "b", "a", "c"]
    assert taken.n_galaxies.tolist() == [4, 0, 2, 4]
    np.testing.assert_array_equal(taken.cloud(0), _windows().cloud(2))
    np.testing.assert_array_equal(taken.cloud(2), _windows().cloud(0))
    np.testing.assert_array_equal(taken.cloud(3), _windows().cloud(2))
    np.testing.assert_array_equal(taken.halo_id, [-1, 2, 1, -1])


def test_sets_of_a_run_share_no_halo_and_keep_their_galaxies(tiny_run):
    workspace, _ = tiny_run
    test, evaluation = mock_windows(workspace, "test", "evaluation")
    assert not set(test.halo_id.tolist()) & set(evaluation.halo_id.tolist())
    counts = read_table(workspace.mock / "clusters", "mock_clusters", ["cluster_id", "n_galaxies"])
    known = dict(zip(*(counts[c].to_pylist() for c in counts.column_names), strict=True))
    assert [known[i] for i in evaluation.cluster_id] == evaluation.n_galaxies.tolist()


def test_an_empty_set_is_named(tiny_run):
    workspace: Workspace = tiny_run[0]
    with pytest.raises(InputError, match="nonsense"):
        mock_windows(workspace, "nonsense")


def test_an_unknown_estimator_is_named():
    with pytest.raises(ParameterError, match="astrology"):
        estimator("astrology")
