"""Residuals, scatters and the bootstrap, held to analytic limits."""

import statistics

import numpy as np
import pytest
from scipy.special import ndtr

from cmass.evaluate.metrics import (
    Bootstrap,
    fit_richness_scatter,
    mass_bin_edges,
    residual,
    robust_scatter,
    scatter,
)


def test_residual_has_the_papers_sign():
    assert residual([14.5], [14.0])[0] == pytest.approx(0.5)  # underestimated: positive


def test_scatters_agree_on_normals_and_part_on_outliers():
    x = 0.16 * np.random.default_rng(1).standard_normal(20000)
    assert scatter(x) == pytest.approx(0.16, rel=0.02)
    assert robust_scatter(x) == pytest.approx(0.16, rel=0.03)
    x[:200] = 3.0
    assert scatter(x) > 0.3
    assert robust_scatter(x) == pytest.approx(0.16, rel=0.05)
    assert np.isnan(scatter([1.0]))
    assert np.isnan(robust_scatter([1.0]))


def test_scatters_are_about_the_middle_and_of_a_sample():
    """A bias is no scatter; few values are divided by n - 1; the tails are those of one sigma."""
    x = [5.1, 5.4, 5.2, 5.9]
    assert scatter(x) == pytest.approx(statistics.stdev(x))
    # Even values between 10 and 11: half of the inner 68.27 %, exactly.
    even = np.linspace(10, 11, 10001)
    assert robust_scatter(even) == pytest.approx((ndtr(1) - ndtr(-1)) / 2, rel=1e-9)


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


def test_bootstrap_draws_as_many_groups_as_there_are_and_each_alike():
    """A group's number in a resample is nearly Poisson's about one, the first's and the last's."""
    boot = Bootstrap(np.arange(50), np.random.default_rng(7), rounds=3000)
    counts = []

    def count(rows):
        counts.append([(rows == 0).sum(), (rows == 49).sum(), rows.size])
        return counts[-1]

    first, last, size = boot.errors(count)
    # 3000 counts of deviation 1: a mean to 0.018, a deviation to 2 %.
    np.testing.assert_allclose(np.mean(counts, axis=0), [1, 1, 50], atol=0.08)
    assert (first, last) == pytest.approx((0.99, 0.99), abs=0.1)
    assert size == 0


def test_bootstrap_error_is_the_deviation_of_what_the_resamples_say():
    """Of the rounds asked for, and of those that say anything."""
    x = np.random.default_rng(8).standard_normal(30)
    boot = Bootstrap(np.arange(30), np.random.default_rng(0), rounds=40)
    values = []

    def mean(rows):
        values.append(x[rows].mean() if (rows == 0).any() else np.nan)
        return values[-1]

    for rounds in (3, 40):
        values.clear()
        (error,) = boot.errors(mean, rounds=rounds)
        assert len(values) == rounds
        known = [v for v in values if np.isfinite(v)]
        assert len(known) > 1
        assert error == pytest.approx(statistics.stdev(known))
    assert sum(np.isnan(values)) > 5


def test_mass_bins_hold_all_masses():
    edges = mass_bin_edges([13.51, 15.09], 0.3)
    np.testing.assert_allclose(edges, np.arange(45, 52) * 0.3)
    np.testing.assert_allclose(mass_bin_edges([14.4, 14.4], 0.3), [14.4, 14.7])
