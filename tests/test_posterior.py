"""Posteriors from the joint density, held to scipy's kernel density and to analytic limits."""

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gaussian_kde, norm

from cmass.columns import FLAGS
from cmass.errors import InputError
from cmass.params import CosmologyParams
from cmass.posterior import (
    TAIL,
    JointDensity,
    at_edge,
    cumulative_at,
    grid_edges,
    grid_table,
    joint_table,
    mass_function_prior,
    normalise,
    quantiles,
    reweight,
)


def pairs(n=400, seed=1, scatter=0.16):
    """Flat true masses, predictions that shrink to the middle as a network's do."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(13.5, 15.1, n)
    predicted = 14.3 + 0.85 * (true - 14.3) + scatter * rng.standard_normal(n)
    return predicted, true


@pytest.fixture(scope="module")
def density():
    return JointDensity(*pairs())


def test_slices_equal_scipy_integrated_over_bins(density):
    """Gauss-Legendre over each bin of scipy's density, at queries inside and at the rim."""
    predicted, true = pairs()
    kde = gaussian_kde(np.vstack([predicted, true]), 0.20)
    edges = density.edges(64)
    queries = np.concatenate([np.linspace(predicted.min(), predicted.max(), 17), [14.123]])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = 0.5 * np.diff(edges)
    m = 0.5 * (edges[1:] + edges[:-1])[:, None] + half[:, None] * nodes
    expected = np.array(
        [
            (kde(np.vstack([np.full(m.size, q), m.ravel()])).reshape(m.shape) * weights).sum(axis=1)
            * half
            for q in queries
        ]
    )
    found = density.slices(queries, edges)
    peak = expected.max()
    # Skipped kernels are below exp(-25) each; the rest is rounding.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * peak)
    posterior = density.posterior(queries, edges)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior, expected, rtol=0, atol=1e-6 * expected.max())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(3, 60),
    bandwidth=st.floats(0.05, 1.0),
    place=st.floats(0, 1),
)
def test_narrow_bins_follow_scipy_for_any_cloud(seed, n, bandwidth, place):
    rng = np.random.default_rng(seed)
    predicted, true = rng.standard_normal((2, n)) @ np.diag(rng.uniform(0.1, 2, n))
    found = JointDensity(predicted, true, bandwidth)
    kde = gaussian_kde(np.vstack([predicted, true]), bandwidth)
    edges = found.edges(4000)
    centres = 0.5 * (edges[1:] + edges[:-1])
    low, high = found.calibrated_range
    query = low + place * (high - low)
    expected = kde(np.vstack([np.full(centres.size, query), centres]))
    values = found.slices([query], edges)[0] / np.diff(edges)
    peak = kde(np.vstack([predicted, true])).max()
    # The mean over a bin of width w differs from its centre by w²/24 of the curvature,
    # at most w²/(24 s²) of the peak; s is the kernel's conditional width.
    width = edges[1] - edges[0]
    atol = peak * (1e-6 + (width / found._s) ** 2 / 24)
    np.testing.assert_allclose(values, expected, rtol=0, atol=atol)


def test_gap_between_pairs_keeps_a_posterior():
    """A query far (in kernel widths) from every pair still has the nearest ones' slice."""
    rng = np.random.default_rng(3)
    true = np.concatenate([rng.normal(13.6, 0.01, 200), rng.normal(15.0, 0.01, 200)])
    predicted = true + 0.01 * rng.standard_normal(400)
    density = JointDensity(predicted, true, 0.01)
    posterior = density.posterior([14.3], density.edges(32))
    assert posterior.sum() == pytest.approx(1.0, abs=1e-12)


def test_rows_sum_to_one_and_outside_is_never_clipped(density):
    low, high = density.calibrated_range
    posterior = density.posterior(
        [low, 14.3, high, low - 1e-9, high + 1e-9, np.nan], density.edges(64)
    )
    np.testing.assert_allclose(posterior[:3].sum(axis=1), 1.0, rtol=1e-12)
    assert np.isnan(posterior[3:]).all()
    flags = density.flags([low, high, low - 1e-9, high + 1e-9])
    below, above = FLAGS["below_calibrated_range"].value, FLAGS["above_calibrated_range"].value
    assert flags.tolist() == [0, 0, below, above]


def test_order_of_pairs_does_not_matter(density):
    predicted, true = pairs()
    shuffled = np.random.default_rng(0).permutation(predicted.size)
    other = JointDensity(predicted[shuffled], true[shuffled])
    edges = density.edges(32)
    np.testing.assert_allclose(
        other.posterior([14.0], edges), density.posterior([14.0], edges), rtol=1e-9, atol=1e-11
    )


def test_prior_is_the_marginal_of_the_density(density):
    _, true = pairs()
    edges = density.edges(40)
    kde = gaussian_kde(true, 0.20)  # the marginal of a Gaussian kernel keeps the factor
    expected = np.array(
        [kde.integrate_box_1d(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    )
    np.testing.assert_allclose(density.prior(edges), expected / expected.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ("predicted", "true", "words"),
    [
        ([1.0, 2.0], [1.0, 2.0], "at least 3"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "at least 3"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 4.0], "not finite"),
        ([14.0, 14.0, 14.0], [13.0, 14.0, 15.0], "one line"),
        ([13.0, 14.0, 15.0], [13.0, 14.0, 15.0], "one line"),
    ],
)
def test_pairs_without_a_density_are_named(predicted, true, words):
    with pytest.raises(InputError, match=words):
        JointDensity(predicted, true)


def test_quantiles_of_a_normal():
    edges = np.linspace(12, 16, 4001)
    p = np.diff(norm.cdf(edges, 14.2, 0.15))[None, :]
    levels = [TAIL, 0.5, 1 - TAIL]
    # Linear inside bins of 0.001 dex: exact to w²/8 of the slope, far below 1e-5.
    np.testing.assert_allclose(quantiles(p, edges, levels)[0], [14.05, 14.2, 14.35], atol=1e-5)


def test_quantiles_are_linear_inside_a_bin_and_skip_empty_ones():
    edges = np.array([0.0, 1.0, 2.0, 4.0])
    p = np.array([[0.5, 0.0, 0.5], [0.25, 0.25, 0.5], [np.nan] * 3])
    found = quantiles(p, edges, [0.25, 0.75])
    np.testing.assert_allclose(found[:2], [[0.5, 3.0], [1.0, 3.0]])
    assert np.isnan(found[2]).all()


def test_cumulative_inverts_quantiles(density):
    edges = density.edges(64)
    p = density.posterior(np.full(9, 14.1), edges)
    levels = np.linspace(0.05, 0.95, 9)
    values = quantiles(p[:1], edges, levels)[0]
    np.testing.assert_allclose(cumulative_at(p, edges, values), levels, atol=1e-12)
    assert cumulative_at(p[:2], edges, [0.0, 99.0]).tolist() == [0.0, pytest.approx(1.0)]


def test_reweighting_is_bayes_with_another_prior():
    """A normal likelihood under a power-law prior is a normal shifted by slope sigma²."""
    edges = np.linspace(12, 17, 2001)
    centres = 0.5 * (edges[1:] + edges[:-1])
    likelihood = np.diff(norm.cdf(edges, 14.5, 0.2))[None, :]
    flat, steep = np.ones(2000) / 2000, np.exp(-3.0 * centres)
    median = quantiles(reweight(likelihood, flat, steep), edges, [0.5])[0, 0]
    assert median == pytest.approx(14.5 - 3.0 * 0.2**2, abs=1e-4)
    np.testing.assert_allclose(reweight(likelihood, flat, flat), likelihood, rtol=1e-9)


def test_reweighting_leaves_empty_bins_empty():
    p = np.array([[0.0, 0.4, 0.6]])
    found = reweight(p, np.array([0.0, 0.5, 0.5]), np.array([0.9, 0.1, 0.0]))
    np.testing.assert_allclose(found, [[0.0, 1.0, 0.0]])
    assert np.isnan(reweight(p, np.array([1.0, 0.0, 0.0]), np.ones(3))).all()


def test_edge_flag_needs_a_tail_at_the_edge():
    edges = np.linspace(13.5, 15.1, 161)
    centres = [14.3, 13.55, 15.05]
    p = normalise(np.array([np.diff(norm.cdf(edges, c, 0.1)) for c in centres]))
    p = np.vstack([p, np.full(160, np.nan)])
    assert at_edge(p, edges, 0.09).tolist() == [False, True, True, False]


def test_edge_flag_is_set_from_one_sigmas_tail_on():
    """15 % and 17 % within 0.1 dex of either edge, on either side of 15.87 %."""
    edges = np.array([13.5, 13.6, 15.0, 15.1])
    p = np.array([[0.15, 0.85, 0.0], [0.17, 0.83, 0.0], [0.0, 0.85, 0.15], [0.0, 0.83, 0.17],
                  [0.12, 0.76, 0.12]])  # fmt: skip
    assert at_edge(p, edges, 0.1).tolist() == [False, True, False, True, False]
    # Half as near, half as much.
    assert not at_edge(p, edges, 0.05).any()


def test_mass_function_prior_counts_haloes_of_bins_of_any_width():
    pytest.importorskip("colossus")
    fine = np.linspace(13.5, 15.1, 161)
    narrow = mass_function_prior(fine, 0.05, CosmologyParams())
    wide = mass_function_prior(fine[[0, 2, 3, 7, 160]], 0.05, CosmologyParams())
    expected = [narrow[:2].sum(), narrow[2], narrow[3:7].sum()]
    # The middle of a bin for its mean: w²/24 of the curvature, (4.5 x 0.04)²/24 = 0.1 %.
    np.testing.assert_allclose(wide[:3] / wide[0], expected / expected[0], rtol=0.005)


def test_mass_function_prior_falls_as_tinker(density):
    pytest.importorskip("colossus")
    edges = density.edges(64)
    prior = mass_function_prior(edges, 0.05, CosmologyParams())
    assert prior.sum() == pytest.approx(1.0)
    assert (np.diff(prior) < 0).all()


def test_tables_hold_grid_and_joint(density):
    pytest.importorskip("colossus")
    grid = grid_table(density, 32, 0.05, CosmologyParams())
    np.testing.assert_allclose(grid_edges(grid), density.edges(32), rtol=1e-15)
    joint = joint_table(density)
    d, values = joint["log10_m200c"].to_numpy(), joint["density"].to_numpy()
    step = np.unique(d)[1] - np.unique(d)[0]
    # All but the kernels' tails beyond the grid (a few per cent at the flat edges).
    assert 0.9 < values.sum() * step**2 < 1.001


def _summed_over_pairs(density: JointDensity) -> JointDensity:
    """The same density without its waves."""
    other = copy.copy(density)
    other._waves = None
    return other


@pytest.mark.parametrize("bandwidth", [0.05, 0.2, 0.5])
def test_waves_are_the_sum_over_pairs(bandwidth):
    predicted, true = pairs()
    density = JointDensity(predicted, true, bandwidth)
    assert density._waves is not None
    summed, edges = _summed_over_pairs(density), density.edges(50)
    # Some queries lie beyond the pairs, where sums over pairs take over.
    queries = np.linspace(predicted.min() - 1.0, predicted.max() + 1.0, 60)
    expected = summed.slices(queries, edges)
    np.testing.assert_allclose(
        density.slices(queries, edges), expected, rtol=0, atol=1e-9 * expected.max()
    )
    random = np.random.default_rng(1)
    shift, scale = random.normal(0, 0.1, 60), random.uniform(0.5, 2.0, 60)
    np.testing.assert_allclose(
        density.conditional(queries, shift, scale, edges),
        summed.conditional(queries, shift, scale, edges), rtol=0, atol=1e-7,
    )  # fmt: skip
    masses, limits = random.uniform(13.0, 15.5, 60), (13.5, 15.1)
    for found, wanted in zip(
        density.conditional_at(queries, shift, scale, masses, limits),
        summed.conditional_at(queries, shift, scale, masses, limits), strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)


def test_kernels_too_narrow_for_few_waves_are_summed():
    predicted, true = pairs()
    assert JointDensity(predicted, true, 0.002)._waves is None


def test_an_estimate_has_the_same_posterior_alone_and_in_company(density):
    edges = density.edges(40)
    queries = np.linspace(*density.calibrated_range, 25)
    together = density.posterior(queries, edges)
    for query, row in zip(queries, together, strict=True):
        np.testing.assert_array_equal(density.posterior([query], edges)[0], row)
