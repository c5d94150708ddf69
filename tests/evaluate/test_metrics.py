"""Every diagnostic on toy posteriors that are right, too narrow, too wide or biased."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from cmass.evaluate.metrics import (
    Bootstrap,
    coverage_curve,
    fit_richness_scatter,
    interval_coverage,
    mass_bin_edges,
    residual,
    robust_scatter,
    scatter,
)

EDGES = np.linspace(12.5, 16.5, 801)
SIGMA = 0.15


def toy(width=1.0, bias=0.0, n=3000, seed=0):
    """Posteriors N(d + bias, width * SIGMA) where N(d, SIGMA) would be right."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(13.7, 14.9, n)
    d = truth + SIGMA * rng.standard_normal(n)
    cdf = norm.cdf(EDGES[None, :], (d + bias)[:, None], width * SIGMA)
    return np.diff(cdf, axis=1), truth


def curve(**kwargs):
    posteriors, truth = toy(**kwargs)
    return coverage_curve(posteriors, EDGES, truth, 39)


def test_residual_has_the_papers_sign():
    assert residual([14.5], [14.0])[0] == pytest.approx(0.5)  # underestimated: positive


def test_right_posteriors_cover_as_they_say():
    c = curve()
    assert c.n == 3000
    # Largest binomial deviation of 3000: a Kolmogorov statistic, 1.63/sqrt(n) at 1 %.
    assert c.largest_error < 1.63 / np.sqrt(3000)
    inside = (c.coverage >= c.low) & (c.coverage <= c.high)
    assert inside.mean() > 0.8


@pytest.mark.parametrize(("width", "sign"), [(0.6, -1), (1.6, 1)])
def test_wrong_widths_show_and_show_which(width, sign):
    c = curve(width=width)
    middle = np.argmin(np.abs(c.level - 0.5))
    expected = 2 * norm.cdf(width * norm.ppf(0.75)) - 1
    # Standard error of a fraction of 3000: 0.009.
    assert c.coverage[middle] == pytest.approx(expected, abs=0.03)
    assert np.sign(c.coverage[middle] - 0.5) == sign
    assert c.largest_error > 0.1
    assert ((c.coverage < c.low) | (c.coverage > c.high)).mean() > 0.8


def test_bias_lowers_coverage_like_narrowness_but_moves_the_transform():
    from cmass.posterior import cumulative_at

    means = {}
    for name, kwargs in {"right": {}, "narrow": {"width": 0.6}, "high": {"bias": SIGMA}}.items():
        posteriors, truth = toy(**kwargs)
        means[name] = cumulative_at(posteriors, EDGES, truth).mean()
    assert curve(bias=SIGMA).largest_error > 0.1
    assert means["right"] == pytest.approx(0.5, abs=0.02)
    assert means["narrow"] == pytest.approx(0.5, abs=0.03)
    # Phi(-1/sqrt(2)) for a bias of one sigma.
    assert means["high"] == pytest.approx(norm.cdf(-1 / np.sqrt(2)), abs=0.02)


def test_rows_without_a_posterior_do_not_count():
    posteriors, truth = toy(n=500)
    posteriors[::5] = np.nan
    c = coverage_curve(posteriors, EDGES, truth, 9)
    kept = np.arange(500) % 5 != 0
    same = coverage_curve(posteriors[kept], EDGES, truth[kept], 9)
    assert c.n == same.n == 400
    np.testing.assert_array_equal(c.coverage, same.coverage)


def test_truth_outside_the_grid_is_not_covered():
    posteriors, truth = toy(n=100)
    truth[:50] = 20.0
    c = coverage_curve(posteriors, EDGES, truth, 9)
    assert c.coverage[-1] <= 0.5


def test_band_is_binomial():
    c = curve(n=400)
    k = 19
    np.testing.assert_allclose(c.low[k], binom.ppf(0.025, 400, c.level[k]) / 400)
    assert c.low[k] < c.level[k] < c.high[k]


def test_no_posterior_at_all_is_not_a_crash():
    c = coverage_curve(np.full((3, 800), np.nan), EDGES, np.full(3, 14.0), 9)
    assert c.n == 0
    assert np.isnan(c.coverage).all()


def test_interval_coverage_of_known_ranks():
    assert interval_coverage([0.5, 0.3, 0.9, 0.01], [0.4, 0.85])[0] == pytest.approx(0.5)
    np.testing.assert_allclose(interval_coverage([0.5, 0.3, 0.9, 0.01], [0.85]), [0.75])


def test_scatters_agree_on_normals_and_part_on_outliers():
    x = 0.16 * np.random.default_rng(1).standard_normal(20000)
    assert scatter(x) == pytest.approx(0.16, rel=0.02)
    assert robust_scatter(x) == pytest.approx(0.16, rel=0.03)
    x[:200] = 3.0
    assert scatter(x) > 0.3
    assert robust_scatter(x) == pytest.approx(0.16, rel=0.05)
    assert np.isnan(scatter([1.0]))
    assert np.isnan(robust_scatter([1.0]))


def test_richness_scatter_is_recovered():
    rng = np.random.default_rng(2)
    n = np.exp(rng.uniform(np.log(5), np.log(400), 6000)).round()
    sigma = np.sqrt(0.04**2 * 100 / n + 0.08**2)
    m = rng.uniform(13.7, 14.9, n.size)
    e = 0.05 + 0.1 * (m - 14.3) + sigma * rng.standard_normal(n.size)
    n[:7] = 0  # no members: no statement, no crash
    sigma_n, sigma_0 = fit_richness_scatter(e, m, n)
    assert sigma_n == pytest.approx(0.04, abs=0.004)
    assert sigma_0 == pytest.approx(0.08, abs=0.004)


def test_richness_scatter_without_dependence_gives_no_sigma_n():
    rng = np.random.default_rng(3)
    n = rng.integers(10, 300, 4000)
    e = 0.1 * rng.standard_normal(n.size)
    sigma_n, sigma_0 = fit_richness_scatter(e, rng.uniform(13.7, 14.9, n.size), n)
    assert sigma_n < 0.02
    assert sigma_0 == pytest.approx(0.1, rel=0.05)
    assert np.isnan(fit_richness_scatter(e[:5], e[:5], n[:5])).all()


def test_bootstrap_of_rows_gives_the_standard_error():
    x = np.random.default_rng(4).standard_normal(900)
    boot = Bootstrap(np.arange(900), np.random.default_rng(0), rounds=500)
    # 1/sqrt(900); the error of a bootstrap error of 500 rounds is 3 %.
    assert boot.error(lambda r: x[r].mean()) == pytest.approx(1 / 30, rel=0.15)


def test_bootstrap_by_halo_knows_that_sight_lines_repeat():
    groups = np.repeat(np.arange(90), 10)
    x = np.random.default_rng(5).standard_normal(90)[groups]
    boot = Bootstrap(groups, np.random.default_rng(0), rounds=500)
    assert boot.error(lambda r: x[r].mean()) == pytest.approx(1 / np.sqrt(90), rel=0.2)


def test_bootstrap_of_a_subset_and_of_several_numbers():
    x = np.random.default_rng(6).standard_normal(1000)
    where = np.arange(1000) < 100
    boot = Bootstrap(np.arange(1000), np.random.default_rng(0))
    found = boot.errors(lambda r: (x[r].mean(), 2 * x[r].mean()), where)
    assert found[0] == pytest.approx(0.1, rel=0.3)
    assert found[1] == pytest.approx(2 * found[0])
    assert np.isnan(boot.error(lambda r: x[r].mean(), np.zeros(1000, bool)))


def test_mass_bins_hold_all_masses():
    edges = mass_bin_edges([13.51, 15.09], 0.3)
    np.testing.assert_allclose(edges, np.arange(45, 52) * 0.3)
    np.testing.assert_allclose(mass_bin_edges([14.4, 14.4], 0.3), [14.4, 14.7])
