"""Diagnostics of calibration tell right posteriors from wrong ones, each by its own test."""

from functools import cache

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binom, kstest

from cmass.evaluate import calibration as c
from cmass.evaluate.metrics import Bootstrap
from cmass.posterior import cumulative_at, quantiles
from tests.toys import EDGES, HIGH, LOW, SIGMA, normal_posteriors, toy

#: Wrong in one way each; the last is nearly right on average but not in two bins of z. References
#: on either side of the truth see a bias with either sign, so that TARP notices only a large one.
WRONG = {
    "narrow": {"width": 0.8},
    "wide": {"width": 1.25},
    "biased": {"bias": 0.6},
    "wrong in a bin": {"width": lambda z: np.where(z < 0.25, 0.6, np.where(z < 0.5, 1.6, 1.0))},
}
#: A right posterior is called wrong this rarely, a wrong one must be rarer by chance.
RIGHT, FAIL = 0.02, 0.005


@cache
def judged(name):
    """Toy, its transforms, and what a perfect posterior would give."""
    t = toy(**({} if name == "right" else WRONG[name]))
    u = cumulative_at(t.probabilities, EDGES, t.truth)
    return t, u, c.perfect_like(u, t.halo, np.random.default_rng(1))


def chances(name):
    """Chance of each diagnostic's statistic under a perfect posterior."""
    t, u, perfect = judged(name)
    rng = np.random.default_rng(2)
    histogram = c.flat_histogram(u, perfect)
    ranks = c.sbc_ranks(t.probabilities, EDGES, t.truth, 99, rng)
    by_rank = c.flat_histogram(
        c.rank_transform(ranks, 99, rng),
        c.rank_transform(c.perfect_ranks(perfect, 99, rng), 99, rng),
    )
    references = c.tarp_references(np.ones(EDGES.size - 1), EDGES, u.size, rng)
    f = c.tarp_transform(t.probabilities, EDGES, t.truth, references)
    tarp = c.tarp_curve(f, c.perfect_like(f, t.halo, rng))
    worst = 1.0
    edges = c.quantile_bins(t.z, 4)
    for k in range(4):
        curve = c.coverage_curve(u, perfect, where=c.bin_number(t.z, edges) == k)
        worst = min(worst, 4 * curve.chance)
    return {
        "coverage": c.coverage_curve(u, perfect).chance,
        "pit": histogram.chi2_chance,
        "pit distance": histogram.distance_chance,
        "sbc": by_rank.chi2_chance,
        "tarp": tarp.chance,
        "coverage in bins of z": worst,
    }


def test_right_posteriors_pass_every_diagnostic():
    for diagnostic, chance in chances("right").items():
        assert chance > RIGHT, diagnostic


# What cannot see a fault, and why: a width leaves the middle of the transform's distribution where
# it was, so that the distance sees less of it than chi2; too narrow and too wide cancel in a
# coverage curve of all clusters.
@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_posteriors_fail_every_diagnostic(name):
    blind = {"coverage", "tarp", "pit distance"} if name == "wrong in a bin" else set()
    for diagnostic, chance in chances(name).items():
        if diagnostic not in blind:
            assert chance < FAIL, diagnostic


def test_a_fault_of_one_bin_hides_in_the_whole_and_shows_in_the_bin():
    t, u, perfect = judged("wrong in a bin")
    assert c.coverage_curve(u, perfect).largest_error < 0.04
    number = c.bin_number(t.z, c.quantile_bins(t.z, 4))
    errors = [c.coverage_curve(u, perfect, where=number == k).signed_error for k in range(4)]
    assert errors[0] < -0.1
    assert errors[1] > 0.1
    assert max(abs(errors[2]), abs(errors[3])) < 0.05


# ------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(("width", "sign"), [(0.6, -1), (1.6, 1)])
def test_coverage_of_a_normal_of_wrong_width_is_the_analytic_one(width, sign):
    """In the middle of the prior, where its edges do not matter."""
    t = toy(width=width, n_haloes=6000, sight_lines=1)
    middle = np.abs(t.estimate - 14.3) < 0.2
    u = cumulative_at(t.probabilities[middle], EDGES, t.truth[middle])
    expected = 2 * ndtr(width * ndtri(0.75)) - 1
    # Standard error of a fraction of 1500: 0.013.
    assert c.interval_coverage(u, 0.5)[0] == pytest.approx(expected, abs=0.04)
    assert np.sign(c.interval_coverage(u, 0.5)[0] - 0.5) == sign


def test_interval_coverage_of_known_transforms():
    u = [0.5, 0.3, 0.9, 0.01]  # depths 0, 0.4, 0.8, 0.98
    np.testing.assert_allclose(c.interval_coverage(u, [0.45, 0.85]), [0.5, 0.75])
    # Levels 0.25, 0.5, 0.75: covered 1/4, 2/4, 2/4.
    assert c.coverage_error([*u, np.nan], 3) == pytest.approx(0.25)
    assert np.isnan(c.coverage_error([np.nan]))


def test_an_interval_holds_its_ends():
    """A truth at the very end of an interval lies in it: transforms and levels exact in binary."""
    u = np.array([0.25, 0.75, 0.5, 0.0])  # depths 0.5, 0.5, 0, 1
    np.testing.assert_array_equal(c.interval_coverage(u, [0.25, 0.5, 0.75]), [0.25, 0.75, 0.75])
    curve = c.coverage_curve(u, np.array([u, u[::-1]]), 3)
    np.testing.assert_array_equal(curve.coverage, [0.25, 0.75, 0.75])
    np.testing.assert_array_equal(c.tarp_curve(u, np.array([u, u]), 3).coverage, [0.5, 0.75, 1.0])


def test_curve_agrees_with_its_own_definition():
    _, u, perfect = judged("right")
    curve = c.coverage_curve(u, perfect, 9)
    np.testing.assert_allclose(curve.level, np.arange(1, 10) / 10)
    np.testing.assert_allclose(curve.coverage, c.interval_coverage(u, curve.level))
    assert curve.largest_error == pytest.approx(c.coverage_error(u, 9))
    assert curve.expected_error == pytest.approx(np.abs(curve.coverage - curve.level).mean())
    assert abs(curve.signed_error) == curve.largest_error
    assert curve.n == u.size


@pytest.mark.parametrize("by_truth", [False, True])
def test_band_and_chance_are_what_loops_say(by_truth):
    """One draw after the other; draws that leave a bin of the truth empty say nothing of it."""
    rng = np.random.default_rng(10)
    u, perfect = rng.random(80) ** 1.5, rng.random((60, 80))
    where = rng.random(80) < 0.4
    drawn = perfect > 0.5 if by_truth else np.broadcast_to(where, perfect.shape).copy()
    if by_truth:
        drawn[7] = False
    curve = c.coverage_curve(u, perfect, 9, where, drawn if by_truth else None)
    level = np.arange(1, 10) / 10
    draws = [
        c.interval_coverage(row[chosen], level)
        for row, chosen in zip(perfect, drawn, strict=True)
        if chosen.any()
    ]
    assert len(draws) == (59 if by_truth else 60)
    middle = np.mean(draws, axis=0) if by_truth else level
    errors = [np.abs(one - level).max() for one in draws]
    distances = [np.abs(one - middle).max() for one in draws]
    observed = np.abs(c.interval_coverage(u[where], level) - middle).max()
    assert curve.n == where.sum()
    np.testing.assert_allclose(curve.coverage, c.interval_coverage(u[where], level))
    np.testing.assert_allclose(curve.perfect, middle)
    np.testing.assert_allclose(curve.low, np.quantile(draws, 0.025, axis=0))
    np.testing.assert_allclose(curve.high, np.quantile(draws, 0.975, axis=0))
    assert curve.perfect_error == pytest.approx(np.median(errors))
    assert curve.perfect_error_high == pytest.approx(np.quantile(errors, 0.95))
    assert curve.band == pytest.approx(np.quantile(distances, 0.95))
    reached = sum(d >= observed for d in distances)
    assert curve.chance == pytest.approx((1 + reached) / (1 + len(draws)))


def test_worst_of_bins_is_what_loops_say():
    """Bins of the observer and of the drawn truth; a bin that a draw leaves empty does not count."""
    rng = np.random.default_rng(11)
    perfect, number = rng.random((30, 60)), rng.integers(0, 3, 60)
    drawn = [(perfect > 0.7), (perfect <= 0.7)]
    drawn[0][4] = False
    observed = [number == k for k in range(3)]
    for masks in (observed, drawn):
        expected = [
            max(
                c.coverage_error(row[mask if mask.ndim == 1 else mask[i]], 9)
                for mask in masks
                if (mask if mask.ndim == 1 else mask[i]).any()
            )
            for i, row in enumerate(perfect)
        ]
        np.testing.assert_allclose(c.perfect_errors(perfect, 9, masks), expected)


def test_chance_counts_ties_and_is_never_zero():
    assert c.chance(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5
    assert c.chance(9.0, [1.0, 2.0, 3.0, 4.0]) == 1 / 5
    assert c.chance(0.0, [1.0, 2.0, 3.0, 4.0]) == 1
    assert 0.1 + 0.2 > 0.3
    assert c.chance(0.1 + 0.2, [0.1, 0.2, 0.3, 0.3]) == 3 / 5
    assert c.chance(0.3 + 1e-6, [0.1, 0.2, 0.3, 0.3]) == 1 / 5


def test_truth_outside_the_bins_is_not_covered():
    p = normal_posteriors(np.full(100, 14.3), SIGMA)
    truth = np.where(np.arange(100) < 50, 20.0, 14.3)
    assert c.interval_coverage(cumulative_at(p, EDGES, truth), 0.999)[0] == 0.5


def test_no_cluster_is_not_a_crash():
    curve = c.coverage_curve(np.empty(0), np.empty((10, 0)), 9)
    assert curve.n == 0
    assert np.isnan(curve.coverage).all()
    assert np.isnan(curve.perfect_error)


# ---------------------------------------------------------------- what perfect would show


def test_band_of_independent_clusters_is_binomial_and_kolmogorov():
    rng = np.random.default_rng(0)
    perfect = c.perfect_transforms(np.arange(400), 0.0, rng, 4000)
    curve = c.coverage_curve(perfect[0], perfect, 39)
    # Quantiles of 4000 draws of steps of 1/400: to two steps.
    np.testing.assert_allclose(curve.low, binom.ppf(0.025, 400, curve.level) / 400, atol=0.005)
    np.testing.assert_allclose(curve.high, binom.ppf(0.975, 400, curve.level) / 400, atol=0.005)
    # Kolmogorov: 0.828 and 1.358 over sqrt(n); at 39 levels up to 0.4 of a level's step less.
    assert 0.828 / 20 - 0.01 < curve.perfect_error < 0.828 / 20
    assert 1.358 / 20 - 0.01 < curve.perfect_error_high < 1.358 / 20
    assert curve.band == curve.perfect_error_high


def test_transforms_of_perfect_posteriors_are_uniform_and_correlated_in_haloes():
    halo = np.repeat(np.arange(3000), 2)
    perfect = c.perfect_transforms(halo, 0.5, np.random.default_rng(3), 20)
    assert kstest(perfect[:, ::2].ravel(), "uniform").pvalue > 0.01
    z = ndtri(perfect)
    found = np.corrcoef(z[:, ::2].ravel(), z[:, 1::2].ravel())[0, 1]
    assert found == pytest.approx(0.5, abs=0.015)  # 60 000 pairs: error 0.003
    other = np.corrcoef(z[:, 1:-1:2].ravel(), z[:, 2::2].ravel())[0, 1]
    assert other == pytest.approx(0.0, abs=0.015)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_correlation_is_measured_whatever_bias_and_width(rho):
    rng = np.random.default_rng(4)
    halo = np.repeat(np.arange(4000), rng.integers(1, 4, 4000))
    u = c.perfect_transforms(halo, rho, rng, 1)[0]
    for distorted in (u, ndtr(0.7 + 1.4 * ndtri(u))):
        assert c.halo_correlation(distorted, halo) == pytest.approx(rho, abs=0.04)
    assert c.halo_correlation(u, np.arange(u.size)) == 0.0


def test_a_few_truths_outside_the_bins_do_not_hide_the_correlation():
    """Transforms of 0 and 1 count as the outermost of so many, not as infinitely far out."""
    rng = np.random.default_rng(12)
    halo = np.repeat(np.arange(4000), 2)
    u = c.perfect_transforms(halo, 0.5, rng, 1)[0]
    u[rng.permutation(u.size)[:80]] = rng.integers(0, 2, 80)
    # 1 % at 3.8 sigma add 0.15 to the variance and take 2 % from the covariance: 0.43.
    assert c.halo_correlation(u, halo) == pytest.approx(0.43, abs=0.05)


def test_band_agrees_with_resampling_haloes():
    """A halo bootstrap needs no copula; its error of the coverage must be the band's."""
    t = toy(sight_lines=3, shared=0.6)
    u = cumulative_at(t.probabilities, EDGES, t.truth)
    perfect = c.perfect_like(u, t.halo, np.random.default_rng(1))
    level = np.array([0.25, 0.5, 0.75])
    error = Bootstrap(t.halo, np.random.default_rng(2), 400).errors(
        lambda rows: c.interval_coverage(u[rows], level)
    )
    band = np.array([c.interval_coverage(row, level) for row in perfect]).std(axis=0, ddof=1)
    # 400 resamples give an error to 3.5 %, 1000 draws to 2 %.
    np.testing.assert_allclose(error, band, rtol=0.15)
    independent = np.sqrt(level * (1 - level) / u.size)
    assert (band > 1.1 * independent).all()


def test_chance_is_uniform_for_perfect_posteriors():
    """The probabilities that reports quote are honest: over 200 right toys they are uniform."""
    rng = np.random.default_rng(5)
    halo = np.repeat(np.arange(150), 2)
    found = []
    for draw in c.perfect_transforms(halo, 0.4, rng, 200):
        found.append(c.coverage_curve(draw, c.perfect_like(draw, halo, rng, 200)).chance)
    assert kstest(found, "uniform").pvalue > 0.01


# ------------------------------------------------------- bins, of the truth and of the rest


def test_exact_posteriors_are_off_in_bins_of_true_mass_and_only_there():
    """Edges of the prior and regression to the mean: no posterior can pass these bins."""
    t, u, _ = judged("right")
    perfect = c.perfect_like(u, t.halo, np.random.default_rng(1), 200)
    drawn = c.perfect_truths(t.probabilities, EDGES, perfect)
    p50 = quantiles(t.probabilities, EDGES, [0.5])[:, 0]
    edges = c.quantile_bins(t.truth, 10)
    for k in range(10):
        number = c.bin_number(t.truth, edges) == k
        of_drawn = c.bin_number(drawn, edges) == k
        curve = c.coverage_curve(u, perfect, where=number, perfect_where=of_drawn)
        if k in (0, 9):
            assert np.abs(curve.perfect - curve.level).max() > 0.1, k
            assert curve.largest_error > 0.1, k
        # What exact posteriors show there is what these exact posteriors do show.
        assert curve.chance > 0.01, k
        observed = c.coverage_curve(
            u, perfect, where=c.bin_number(p50, c.quantile_bins(p50, 10)) == k
        )
        assert observed.chance > 0.01, k


def test_wrong_posteriors_differ_from_exact_ones_in_bins_of_true_mass():
    t, u, _ = judged("narrow")
    perfect = c.perfect_like(u, t.halo, np.random.default_rng(1), 200)
    drawn = c.perfect_truths(t.probabilities, EDGES, perfect)
    edges = c.quantile_bins(t.truth, 5)
    chances = [
        c.coverage_curve(
            u, perfect, where=c.bin_number(t.truth, edges) == k,
            perfect_where=c.bin_number(drawn, edges) == k,
        ).chance
        for k in range(5)
    ]  # fmt: skip
    assert min(chances) < 0.01


def test_truths_drawn_from_posteriors_have_their_transforms():
    t, _, perfect = judged("right")
    drawn = c.perfect_truths(t.probabilities[:50], EDGES, perfect[:3, :50])
    for row, levels in zip(drawn, perfect, strict=False):
        back = cumulative_at(t.probabilities[:50], EDGES, row)
        np.testing.assert_allclose(back, levels[:50], atol=1e-9)


def test_quantile_bins_hold_like_numbers_and_enough():
    x = np.random.default_rng(0).standard_normal(1000)
    edges = c.quantile_bins(x, 4)
    assert np.bincount(c.bin_number(x, edges)).tolist() == [250] * 4
    assert c.quantile_bins(x, 8).size - 1 == 5  # 200 clusters a bin at least
    assert c.quantile_bins(x[:199], 4).size == 0
    tied = np.concatenate([np.linspace(0, 0.9, 100), np.ones(600), np.linspace(1.1, 2, 300)])
    assert c.quantile_bins(tied, 4, 50).size - 1 == 3
    assert c.quantile_bins(tied, 4, 200).size - 1 == 1  # a bin of the 100 would be too small
    assert c.quantile_bins(np.ones(500), 4).size - 1 == 1
    assert c.bin_number([-9.0, 9.0], edges).tolist() == [0, 3]
    # A value on an edge belongs to the bin above, on the last edge to the last bin.
    assert c.bin_number(edges, edges).tolist() == [0, 1, 2, 3, 3]


# --------------------------------------------------------------------- PIT, ranks and TARP


def test_distance_is_scipys():
    u = np.random.default_rng(6).random((3, 500)) ** 1.2
    expected = [kstest(row, "uniform").statistic for row in u]
    np.testing.assert_allclose(c.ks_distance(u), expected, rtol=1e-12)


def test_histogram_counts_and_knows_its_chances():
    rng = np.random.default_rng(7)
    perfect = rng.random((4000, 500))
    u = rng.random(500)
    h = c.flat_histogram(u, perfect, 10)
    np.testing.assert_array_equal(h.count, np.histogram(u, h.edges)[0])
    from scipy.stats import chisquare

    expected = chisquare(h.count)
    assert h.chi2 == pytest.approx(expected.statistic)
    # 4000 draws: a chance is known to 0.8 %.
    assert h.chi2_chance == pytest.approx(expected.pvalue, abs=0.03)
    assert h.distance_chance == pytest.approx(kstest(u, "uniform").pvalue, abs=0.04)
    np.testing.assert_allclose(h.low, binom.ppf(0.025, 500, 0.1), atol=1)
    np.testing.assert_allclose(h.high, binom.ppf(0.975, 500, 0.1), atol=1)


def test_histogram_keeps_truths_outside_the_bins():
    """Transforms of exactly 0 and 1 are in the outermost bins, of the clusters and of the draws."""
    u = np.array([0.0, 0.0, 0.3, 0.5, 1.0, 1.0, 1.0])
    h = c.flat_histogram(u, np.array([u, u, u]), 4)
    assert h.count.tolist() == [2, 1, 1, 3]
    np.testing.assert_allclose(h.low, h.count)
    np.testing.assert_allclose(h.high, h.count)
    assert h.chi2_chance == h.distance_chance == 1


def test_ranks_count_draws_below_the_truth():
    p = normal_posteriors(np.array([14.3, 14.3, 14.3]), 0.1)
    ranks = c.sbc_ranks(p, EDGES, [LOW, HIGH, 14.3], 400, np.random.default_rng(0))
    assert ranks[:2].tolist() == [0, 400]
    assert ranks[2] == pytest.approx(200, abs=40)  # four standard errors


def test_perfect_ranks_have_the_law_of_ranks():
    """Ranks of uniform transforms are uniform over 0 to the number of draws."""
    rng = np.random.default_rng(8)
    ranks = c.perfect_ranks(rng.random(40000), 9, rng)
    counts = np.bincount(ranks, minlength=10)
    assert np.abs(counts - 4000).max() < 4 * np.sqrt(4000)
    spread = c.rank_transform(ranks, 9, rng)
    assert (spread * 10).astype(int).tolist() == ranks.tolist()
    assert kstest(spread, "uniform").pvalue > 0.01  # ten steps would be off by 0.1


def test_tarp_transform_is_the_mass_nearer_to_the_reference():
    """By brute force: draws of the posterior nearer to the reference than the truth."""
    rng = np.random.default_rng(9)
    p = normal_posteriors(rng.uniform(13.6, 15.0, 40), 0.15)
    truth, references = rng.uniform(LOW, HIGH, (2, 40))
    draws = c.inverse_cumulative(p, EDGES, rng.random((20000, 40)))
    expected = (np.abs(draws - references) < np.abs(truth - references)).mean(axis=0)
    found = c.tarp_transform(p, EDGES, truth, references)
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(20000))


def test_tarp_with_the_reference_at_the_edge_is_the_transform():
    t, u, _ = judged("right")
    below = np.full(u.size, LOW - 1.0)
    np.testing.assert_allclose(c.tarp_transform(t.probabilities, EDGES, t.truth, below), u)


def test_tarp_curve_is_the_cumulative_of_the_transforms():
    """Not of central intervals: all at 0.3 are covered from 0.3 on."""
    f = np.array([0.3, 0.3, 0.3, 0.9])
    perfect = np.random.default_rng(13).random((50, 4))
    np.testing.assert_array_equal(c.tarp_curve(f, perfect, 4).coverage, [0, 0.75, 0.75, 0.75])


def test_references_follow_the_prior():
    prior = np.array([0.2, 0.0, 0.8])
    r = c.tarp_references(prior, np.array([0.0, 1.0, 2.0, 4.0]), 20000, np.random.default_rng(0))
    counts = np.histogram(r, [0, 1, 2, 3, 4])[0] / 20000
    np.testing.assert_allclose(counts, [0.2, 0.0, 0.4, 0.4], atol=0.015)


def test_posteriors_that_ignore_the_data_pass_coverage_and_tarp_but_not_sharpness():
    """Calibration alone proves little: the prior itself is calibrated."""
    from cmass.evaluate.scores import crps, width_68

    t, _, _ = judged("right")
    prior = np.full_like(t.probabilities, 1 / (EDGES.size - 1))
    u = cumulative_at(prior, EDGES, t.truth)
    own = c.perfect_like(u, t.halo, np.random.default_rng(1), 300)
    assert c.coverage_curve(u, own).chance > RIGHT
    assert width_68(prior, EDGES).mean() > 2 * width_68(t.probabilities, EDGES).mean()
    ours = crps(t.probabilities, EDGES, t.truth).mean()
    assert crps(prior, EDGES, t.truth).mean() > 2 * ours
