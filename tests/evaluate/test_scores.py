"""Scores of binned posteriors, held to analytic formulae and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import norm

from cmass.evaluate import scores
from tests.toys import EDGES, SIGMA, normal_posteriors, toy


def fine(centre, sigma):
    """A normal on bins of 0.002 dex, far from their ends."""
    edges = np.linspace(centre - 10 * sigma, centre + 10 * sigma, 10001)
    return np.diff(ndtr((edges - centre) / sigma))[None, :], edges


@pytest.mark.parametrize("truth", [14.0, 14.1, 13.2, 15.9])
def test_crps_of_a_normal(truth):
    p, edges = fine(14.0, 0.2)
    w = (truth - 14.0) / 0.2
    # Gneiting & Raftery 2007, eq. 5.
    expected = 0.2 * (w * (2 * ndtr(w) - 1) + 2 * norm.pdf(w) - 1 / np.sqrt(np.pi))
    # Bins of 0.0004 dex: the rule is exact for steps and off by (width/sigma)² for a normal.
    assert scores.crps(p, edges, [truth])[0] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_bins=st.integers(1, 12))
def test_crps_of_any_steps_is_the_integral(seed, n_bins):
    """Against Gauss-Legendre on each piece of the integrand, and E|X-y| - E|X-X'|/2 by pairs."""
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.uniform(0, 3, n_bins + 1))
    p = rng.dirichlet(np.ones(n_bins))
    truth = rng.uniform(-1, 4)
    cdf = np.concatenate([[0], np.cumsum(p)])
    breaks = np.unique(np.concatenate([edges, [truth]]))
    nodes, weights = np.polynomial.legendre.leggauss(3)  # exact for squares of lines
    half, middle = 0.5 * np.diff(breaks)[:, None], 0.5 * (breaks[1:] + breaks[:-1])[:, None]
    x = middle + half * nodes
    steps = np.interp(x, edges, cdf, left=0, right=1) - (x >= truth)
    expected = (steps**2 * weights * half).sum()
    assert scores.crps(p[None, :], edges, [truth])[0] == pytest.approx(expected, abs=1e-12)


def test_crps_is_the_energy_form_by_draws():
    rng = np.random.default_rng(1)
    p = normal_posteriors([14.1], 0.2)
    cdf = np.concatenate([[0], np.cumsum(p[0])])
    a, b = np.interp(rng.random((2, 400_000)), cdf, EDGES)
    expected = np.abs(a - 14.4).mean() - 0.5 * np.abs(a - b).mean()
    # 400 000 draws of deviation 0.2: 0.0003 each.
    assert scores.crps(p, EDGES, [14.4])[0] == pytest.approx(expected, abs=0.0015)


def test_a_sure_posterior_scores_its_distance():
    p = np.zeros((1, 128))
    p[0, 64] = 1.0
    width = EDGES[1] - EDGES[0]
    centre = 0.5 * (EDGES[64] + EDGES[65])
    # A bin has its own width: |x - y| - width/6, which is E|X - X'|/2.
    assert scores.crps(p, EDGES, [centre + 0.3])[0] == pytest.approx(0.3 - width / 6)


def test_log_score_of_a_normal_and_its_floor():
    p, edges = fine(14.0, 0.2)
    found = scores.log_score(np.repeat(p, 3, axis=0), edges, [14.0, 14.2, 30.0])
    expected = norm.logpdf([14.0, 14.2], 14.0, 0.2)
    np.testing.assert_allclose(found[:2], expected, atol=0.005)
    assert found[2] == np.log(scores.LOG_SCORE_FLOOR)
    empty = np.array([[0.0, 1.0]])
    assert scores.log_score(empty, np.array([0.0, 1.0, 2.0]), [0.5], 1e-3)[0] == np.log(1e-3)


def test_last_edge_belongs_to_the_last_bin():
    p = np.array([[0.25, 0.75]])
    edges = np.array([0.0, 1.0, 3.0])
    assert scores.log_score(p, edges, [3.0])[0] == pytest.approx(np.log(0.375))
    assert scores.log_score(p, edges, [0.0])[0] == pytest.approx(np.log(0.25))
    # Beyond the bins there is nothing, however full the outermost are.
    found = scores.log_score(np.repeat(p, 2, axis=0), edges, [-0.01, 3.01])
    np.testing.assert_array_equal(found, np.log(scores.LOG_SCORE_FLOOR))
    # An edge between bins belongs to the upper one, as where bins are numbered.
    assert scores.log_score(p, edges, [1.0])[0] == pytest.approx(np.log(0.375))


def test_width_and_entropy_of_a_normal():
    p, edges = fine(14.0, 0.2)
    assert scores.width_68(p, edges)[0] == pytest.approx(0.4, abs=1e-5)
    assert scores.entropy(p, edges)[0] == pytest.approx(norm.entropy(14.0, 0.2), abs=1e-4)
    uniform = np.full((1, 128), 1 / 128)
    assert scores.entropy(uniform, EDGES)[0] == pytest.approx(np.log(EDGES[-1] - EDGES[0]))


@pytest.mark.parametrize(
    "kwargs", [{"width": 0.7}, {"width": 1.4}, {"bias": 0.5}, {"width": lambda z: 0.5 + z}]
)
def test_wrong_posteriors_score_worse_than_right_ones(kwargs):
    """Both scores are proper: the exact posterior is best, by more than the noise of the difference."""
    right, wrong = toy(), toy(**kwargs)
    np.testing.assert_array_equal(right.truth, wrong.truth)
    for score, sign in ((scores.crps, 1), (scores.log_score, -1)):
        loss = sign * (
            score(wrong.probabilities, EDGES, wrong.truth)
            - score(right.probabilities, EDGES, right.truth)
        )
        # Pairs of windows of one halo at most double the variance.
        assert loss.mean() > 3 * np.sqrt(2) * loss.std() / np.sqrt(loss.size)


def test_effective_number_is_kishs():
    """Alike weights count all, whatever their unit; one that outweighs the rest counts alone."""
    assert scores.effective_number(np.full(7, 0.3)) == pytest.approx(7)
    assert scores.effective_number([2.0, 2.0, 0.0, 0.0]) == pytest.approx(2)
    assert scores.effective_number([10.0] + 9 * [1.0]) == pytest.approx(19**2 / 109)
    assert scores.effective_number([1e9, 1.0, 1.0]) == pytest.approx(1, abs=1e-6)
    assert scores.effective_number(np.zeros(4)) == 0
    # The variance of a weighted mean of unit normals is one over it: 4000 draws, to 2.2 %.
    w = np.random.default_rng(2).exponential(size=50)
    draws = np.random.default_rng(3).standard_normal((4000, 50)) @ w / w.sum()
    assert 1 / draws.var() == pytest.approx(scores.effective_number(w), rel=0.09)


def test_rows_without_a_posterior_have_no_score():
    p = np.vstack([normal_posteriors([14.2], SIGMA), np.full((1, 128), np.nan)])
    for found in (
        scores.crps(p, EDGES, [14.2, 14.2]), scores.log_score(p, EDGES, [14.2, 14.2]),
        scores.width_68(p, EDGES), scores.entropy(p, EDGES),
    ):  # fmt: skip
        assert np.isfinite(found).tolist() == [True, False]
