"""The forward model of the comparison with GalWeight, on toys with known answers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, norm

from cmass.evaluate.comparison import Comparison, halves
from cmass.evaluate.forward import (
    Ratios,
    Weighed,
    kolmogorov_smirnov,
    observed_errors,
    predict,
    predicted_errors,
    selection,
    shape_of,
    weighted_quantiles,
)
from cmass.params import InferParams

#: Slope of the toy's mass function: dn/dlog M ~ exp(-B log M), and its scatters, dex.
B, VIRIAL, NETWORK, RATIO = 4.0, 0.20, 0.15, 0.10
HOW = InferParams(bootstrap_rounds=30)


def toy(rng, n, flat=True):
    """Haloes with an exponential mass function; virial and network masses are truth + noise."""
    if flat:
        true = rng.uniform(12.5, 15.5, n)
        number = np.exp(-B * (true - 14.0))
    else:
        true = 12.5 + rng.exponential(1 / B, n)
        number = np.ones(n)
    p50 = true + NETWORK * rng.standard_normal(n)
    return Weighed(
        virial=true + VIRIAL * rng.standard_normal(n), richness=np.full(n, 20.0),
        distance_mpc_h=rng.uniform(50, 250, n),
        p16=p50 - NETWORK, p50=p50, p84=p50 + NETWORK, count=number,
    )  # fmt: skip


def catalogue(rng, n=3000, low=13.6, high=14.6):
    """A survey of clusters above a virial mass, and its masses with GalWeight's own scatter."""
    everyone = toy(rng, 3_000_000, flat=False)
    chosen = np.flatnonzero((everyone.virial > low) & (everyone.virial < high))[:n]
    assert chosen.size == n
    survey = everyone.rows(chosen)
    reference = survey.virial + 0.02 + RATIO * rng.standard_normal(n)
    return survey, reference, np.full(n, 0.14)


def test_forward_model_gives_the_eddington_bias():
    """At fixed measured mass the mean true mass lies B sigma² below it (Eddington 1913).

    For an exponential mass function that holds at every mass, so it holds for any selection
    on the measured mass: mean offset -B sigma² less GalWeight's own mean ratio, scatter of all
    three in quadrature.
    """
    rng = np.random.default_rng(1)
    survey, reference, error = catalogue(rng)
    population = toy(rng, 60_000)
    one = predict(population, survey, Ratios.of(survey.virial, reference, error), HOW)
    found = shape_of(one.offset, one.pull, one.weight)
    mean, scatter = -B * VIRIAL**2 - 0.02, np.sqrt(VIRIAL**2 + NETWORK**2 + RATIO**2)
    # 60 000 windows, of which some 8000 are selected, and 3000 ratios: 0.005 dex.
    assert found["offset_mean"] == pytest.approx(mean, abs=0.012)
    assert found["offset_median"] == pytest.approx(mean, abs=0.015)
    assert found["scatter"] == pytest.approx(scatter, rel=0.03)
    assert found["pull_std"] == pytest.approx(scatter / np.hypot(NETWORK, 0.14), rel=0.03)
    for name, level in (("offset_p16", -1), ("offset_p84", 1), ("offset_p97_5", 2)):
        assert found[name] == pytest.approx(mean + level * scatter, abs=0.02 * abs(level) + 0.01)
    assert one.weight.sum() == pytest.approx(3000, rel=1e-9)  # every cluster has its mocks
    assert one.n_unmatched == 0


def test_prediction_and_observation_of_one_universe_agree():
    """The survey that the toy universe shows is what the forward model says of it."""
    rng = np.random.default_rng(2)
    survey, reference, error = catalogue(rng, n=800)
    comparison = Comparison(survey, reference, error, np.arange(800), toy(rng, 40_000), HOW)
    for half in ("all", "even", "odd"):
        offset, pulls = comparison.observed(half)
        assert offset.size == (800 if half == "all" else 400)
        one = comparison.prediction(half)
        seen, said = shape_of(offset, pulls), shape_of(one.offset, one.pull, one.weight)
        errors = observed_errors(offset, pulls, 100, rng)
        for name in ("offset_mean", "scatter", "pull_mean", "pull_std"):
            assert abs(seen[name] - said[name]) < 4 * errors[name], (half, name)
        assert kolmogorov_smirnov(offset, one.offset, one.weight, rng)[1] > 0.001
    # A network that is 0.1 dex too high is told from a right one.
    high = replace(survey, **{p: getattr(survey, p) + 0.1 for p in ("p16", "p50", "p84")})
    wrong = Comparison(high, reference, error, np.arange(800), comparison.population, HOW)
    offset, _ = wrong.observed("all")
    one = wrong.prediction("all")
    assert kolmogorov_smirnov(offset, one.offset, one.weight, rng)[1] < 0.001


def test_network_masses_of_the_survey_do_not_enter_the_prediction():
    rng = np.random.default_rng(3)
    survey, reference, error = catalogue(rng, n=300)
    population = toy(rng, 5000)
    nothing = np.full(300, np.nan)
    blind = replace(survey, p16=nothing, p50=nothing, p84=nothing)
    number = np.arange(300)
    a = Comparison(survey, reference, error, number, population, HOW).prediction("odd")
    b = Comparison(blind, reference, error, number, population, HOW).prediction("odd")
    np.testing.assert_array_equal(a.offset, b.offset)
    np.testing.assert_array_equal(a.weight, b.weight)


def test_ratios_come_from_even_clusters_only():
    rng = np.random.default_rng(4)
    survey, reference, error = catalogue(rng, n=300)
    number = np.arange(300)
    reference[number % 2 == 1] += 1.0
    comparison = Comparison(survey, reference, error, number, toy(rng, 5000), HOW)
    assert np.abs(comparison.ratios.ratio).max() < 0.6
    assert comparison.ratios.virial.size == 150


def test_selection_is_the_ratio_of_counts():
    how = InferParams(match_bin_dex=0.5, match_distance_bins=2)
    blank = np.zeros(4)
    population = Weighed(
        np.array([14.1, 14.2, 14.6, 13.1]), np.full(4, 9.0), np.array([50.0, 240.0, 240.0, 50.0]), blank, blank,
        blank, np.array([2.0, 5.0, 4.0, 100.0]),
    )  # fmt: skip
    three = np.zeros(5)
    survey = Weighed(
        np.array([14.3, 14.4, 14.45, 14.7, 14.8]), np.full(5, 9.0), np.array([60.0, 200.0, 210.0, 60.0, 220.0]),
        three, three, three, np.ones(5),
    )  # fmt: skip
    completeness, unmatched, by_mass = selection(population, survey, how)
    # Median distance 200: near clusters are those at 60; the near one at 14.7 has no mock.
    np.testing.assert_allclose(completeness, [1 / 2, 2 / 5, 1 / 4, 0.0])
    assert unmatched == 1
    np.testing.assert_allclose(by_mass, [(14.0, 14.5, 3 / 7), (14.5, 15.0, 2 / 4)])


def test_ratios_of_like_clusters():
    ratios = Ratios.of(
        np.array([14.0, 13.0, np.nan, 15.0]), np.array([14.1, 13.3, 14.0, 14.9]), np.full(4, 0.1)
    )
    np.testing.assert_allclose(ratios.virial, [13, 14, 15])
    ratio, _ = ratios.near(np.array([12.0, 14.1, 16.0]), 1)
    np.testing.assert_allclose(ratio[:, 0], [0.3, -0.1, -0.1], atol=1e-12)
    ratio, error = ratios.near(np.array([14.0]), 10)
    assert ratio.shape == error.shape == (1, 3)


def test_nothing_to_compare_gives_nothing():
    rng = np.random.default_rng(5)
    population = toy(rng, 100)
    none = Weighed(*(np.empty(0) for _ in range(7)))
    one = predict(population, none, Ratios.of(*(np.empty(0) for _ in range(3))), HOW)
    assert one.offset.size == 0
    assert shape_of(one.offset, one.pull, one.weight) == {}


def test_errors_of_a_prediction_shrink_with_the_samples():
    rng = np.random.default_rng(6)
    survey, reference, error = catalogue(rng, n=1600)
    ratios = Ratios.of(survey.virial, reference, error)
    small = np.arange(100)
    few = Ratios.of(survey.virial[small], reference[small], error[small])
    large = predicted_errors(toy(rng, 20_000), survey, ratios, HOW, rng)
    rough = predicted_errors(toy(rng, 1200), survey.rows(small), few, HOW, rng)
    assert 0 < large["offset_mean"] < 0.5 * rough["offset_mean"]


def test_weighted_quantiles_are_those_of_repeated_values():
    x = np.array([3.0, 1.0, 2.0])
    many = np.repeat(x, [1000, 3000, 6000])
    levels = [0.1, 0.35, 0.5, 0.95]
    found = weighted_quantiles(many, np.ones(many.size), levels)
    np.testing.assert_allclose(found, np.quantile(many, levels), atol=1e-9)
    # Linear between midpoints: 0.6 lies on the value that holds 30 to 90 %.
    assert weighted_quantiles(x, np.array([1.0, 3.0, 6.0]), [0.6])[0] == 2.0


def test_kolmogorov_smirnov_against_scipy():
    rng = np.random.default_rng(7)
    values = rng.normal(0.1, 1.0, 300)
    grid = np.linspace(-6, 6, 20001)
    distance, chance = kolmogorov_smirnov(values, grid, norm.pdf(grid), rng)
    expected = kstest(values, "norm")
    assert distance == pytest.approx(expected.statistic, abs=1e-3)  # steps of the grid
    assert chance == pytest.approx(expected.pvalue, abs=0.04)  # 2000 rounds


def test_halves():
    masks = halves(np.array([3, 4, 5]))
    assert masks["even"].tolist() == [False, True, False]
    assert (masks["even"] ^ masks["odd"]).all()
    assert masks["all"].all()


def test_selection_fits_virial_mass_and_richness_in_turn():
    """A finder that sees rich clusters only: its margins come out, poor windows do not count."""
    rng = np.random.default_rng(8)
    how = InferParams(match_bin_dex=0.5, match_distance_bins=1, match_richness_bin_dex=0.5)
    n = 4000
    virial, richness = rng.uniform(14, 15, n), 10 ** rng.uniform(0.5, 2, n)
    blank = np.zeros(n)
    population = Weighed(virial, richness, np.full(n, 100.0), blank, blank, blank, np.ones(n))
    found = (richness > 10) & (rng.random(n) < np.where(virial > 14.5, 0.8, 0.3))
    completeness, unmatched, _ = selection(population, population.rows(found), how)
    assert unmatched == 0
    assert completeness[richness < 9.9].max() == 0
    for inside in (virial > 14.5, virial <= 14.5, richness > 10**1.5):
        assert completeness[inside].sum() == pytest.approx(found[inside].sum(), rel=1e-3)
