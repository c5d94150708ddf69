"""The calibration tables: toy posteriors before and after, in bins, under two priors."""

import dataclasses

import numpy as np
import pytest

from cmass.evaluate import Numbers, calibration, proof, scores
from cmass.params import Params
from cmass.posterior import normalise, reweight
from cmass.recalibration import mean_error
from tests.toys import EDGES, LOW, SIGMA, normal_posteriors, toy

PRIOR = np.full(EDGES.size - 1, 1 / (EDGES.size - 1))
#: A mass function that falls by a factor e⁴ per dex.
SLOPE = 4.0
STEEP = normalise(np.exp(-SLOPE * (EDGES[:-1] - LOW))[None, :])[0]


def windows(t, rng):
    """Windows of a toy; contamination falls with the true mass, richness says nothing."""
    n = t.truth.size
    odds = np.exp(1.5 - 2.0 * (t.truth - 14.3) + 0.5 * rng.standard_normal(n))
    weight = np.exp(-SLOPE * (t.truth - LOW))
    return proof.Windows(
        t.truth, t.truth + 0.2 * rng.standard_normal(n), np.floor(10 ** rng.uniform(1.5, 3, n)), 0.01 + 0.07 * t.z, 30 + 200 * t.z,
        odds / (1 + odds), t.halo, weight, EDGES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def judged():
    """Before: too narrow where z is small. After: right."""
    params = Params()
    right = toy(n_haloes=1200, seed=3)
    wrong = toy(n_haloes=1200, seed=3, width=lambda z: np.where(z < 0.25, 0.5, 1.0))
    w = windows(right, np.random.default_rng(0))
    p = wrong.probabilities.copy()
    p[:3] = np.nan  # these have no plain posterior
    return {
        proof.PLAIN: proof.Judged(w, p, params),
        proof.BANDWIDTH: proof.Judged(w, p, params),
        proof.RECALIBRATED: proof.Judged(w, right.probabilities, params),
    }


@pytest.fixture(scope="module")
def tables(judged):
    found = proof.tables(judged, dict.fromkeys(judged, (PRIOR, STEEP)))
    return {name: table.to_pandas() for name, table in found.items()}


def test_windows_without_a_posterior_are_left_out(judged):
    plain = judged[proof.PLAIN]
    assert plain.known.sum() == plain.transform.size == plain.windows.true.size == 2397
    assert plain.perfect.shape == (calibration.ROUNDS, 2397)


def test_bins_hold_all_windows_and_find_the_fault(tables):
    bins = tables["calibration_bins"]
    per = bins.groupby(["posterior_kind", "quantity"]).n.sum().unstack(0)
    assert (per[proof.RECALIBRATED] == 2400).all()
    assert (per[proof.PLAIN].dropna() == 2397).all()
    assert set(bins[bins.posterior_kind == proof.BANDWIDTH].quantity) == {"all"}
    assert (bins[bins.quantity != "all"].n >= 200).all()
    near = bins[bins.quantity == "distance"].sort_values("bin_low").groupby("posterior_kind")
    first, rest = near.head(1).set_index("posterior_kind"), near.tail(3)
    assert first.loc[proof.PLAIN, "coverage_error"] < -0.2  # 0.5 of the width
    assert first.loc[proof.PLAIN, "chance"] < 0.005
    assert first.loc[proof.RECALIBRATED, "chance"] > 0.01
    assert (rest.chance > 0.01).all()


def test_bins_of_the_truth_say_what_exact_posteriors_show(tables):
    """These posteriors are exact, so that what is seen lies inside the band in every bin."""
    bins = tables["calibration_bins"]
    own = bins[bins.posterior_kind == proof.RECALIBRATED]
    observable = own[own.quantity.isin(["all", "predicted mass", "distance"])]
    assert (observable.perfect_offset == 0).all()
    truth = own[own.quantity.isin(["true mass", "contamination"])]
    # Quarters of the prior are two sigma wide: edges and regression to the mean show a little.
    assert (truth.groupby("quantity").perfect_offset.max() > 0.005).all()
    assert (truth.groupby("quantity").perfect_offset.min() < -0.005).all()
    assert (truth.groupby("quantity").mean_transform.max() > 0.58).all()
    assert (truth.groupby("quantity").mean_transform.min() < 0.42).all()
    assert (truth.chance > 0.01).all()


def test_drawn_contamination_follows_the_drawn_truth(judged):
    """Its mean at given drawn mass is that of the windows themselves at that true mass."""
    one = judged[proof.RECALIBRATED]
    w = one.windows
    for low in (13.7, 14.2, 14.7):
        own = (w.true >= low) & (w.true < low + 0.1)
        drawn = (one.drawn >= low) & (one.drawn < low + 0.1)
        found = one.drawn_contamination[drawn].mean()
        # 150 windows of scatter 0.1: 0.01.
        assert found == pytest.approx(w.contamination[own].mean(), abs=0.035)


def test_scores_are_those_of_the_kernels(judged, tables):
    one, rows = judged[proof.RECALIBRATED], tables["calibration_scores"]
    flat = rows[(rows.prior == proof.FLAT) & (rows.population == proof.FLAT)]
    assert len(flat) == 3
    row = flat[flat.posterior_kind == proof.RECALIBRATED].iloc[0]
    values = scores.crps(one.probabilities, EDGES, one.windows.true)
    assert row.crps == pytest.approx(values.mean())
    assert row.crps_error == pytest.approx(mean_error(values, one.windows.halo)[1], rel=0.2)
    assert row.coverage_error == pytest.approx(one.curve.signed_error)
    assert row.width_68 == pytest.approx(scores.width_68(one.probabilities, EDGES).mean())
    assert row.pit_distance == pytest.approx(calibration.ks_distance(one.transform))
    chances = ["chance", "tarp_chance", "pit_chance", "pit_distance_chance", "sbc_chance"]
    assert (row[chances] > 0.01).all()
    wrong = flat[flat.posterior_kind == proof.PLAIN].iloc[0]
    assert wrong.pit_chance < 0.005
    assert wrong.sbc_chance < 0.005
    assert wrong.log_score < row.log_score
    assert wrong.crps > row.crps


def test_each_prior_is_right_for_its_own_population_only(tables):
    """Exact posteriors under exchanged priors: calibrated where the prior is the population's."""
    rows = tables["calibration_scores"]
    rows = rows[rows.posterior_kind == proof.RECALIBRATED].set_index(["prior", "population"])
    for prior in (proof.FLAT, proof.HMF):
        for population in (proof.FLAT, proof.HMF):
            row = rows.loc[prior, population]
            # A prior that falls by e⁴ per dex moves posteriors of 0.2 dex by 4 x 0.2² = 0.16.
            # 750 effective windows, most at the prior's lower edge, see it at the 3 % level.
            right = prior == population
            assert row.chance > 0.05 if right else row.chance < 0.04, (prior, population)
    assert rows.loc[proof.HMF, proof.HMF].n_effective < rows.loc[proof.HMF, proof.FLAT].n_effective
    assert rows.loc[proof.HMF, proof.FLAT].n_effective == pytest.approx(2400)
    assert rows.loc[proof.HMF, proof.HMF].crps < rows.loc[proof.FLAT, proof.HMF].crps


def test_weights_count_like_repeated_windows():
    """A window of weight two is a window that is there twice."""
    rng = np.random.default_rng(0)
    u, perfect = rng.random(300), rng.random((50, 300))
    weight = rng.integers(0, 4, 300)
    found = calibration.coverage_curve(u, perfect, 9, weights=weight.astype(float))
    rows = np.repeat(np.arange(300), weight)
    expected = calibration.coverage_curve(u[rows], perfect[:, rows], 9)
    np.testing.assert_allclose(found.coverage, expected.coverage)
    np.testing.assert_allclose(found.low, expected.low)
    assert found.perfect_error == pytest.approx(expected.perfect_error)
    half = np.arange(300) < 150
    chosen = calibration.coverage_curve(u, perfect, 9, half, weights=weight.astype(float))
    rows = rows[rows < 150]
    np.testing.assert_allclose(
        chosen.coverage, calibration.interval_coverage(u[rows], chosen.level)
    )


def test_curves_and_histograms_are_whole(judged, tables):
    curves, histograms = tables["calibration_curves"], tables["calibration_histograms"]
    counted = curves.groupby(["posterior_kind", "diagnostic", "quantity", "bin"]).size()
    assert (counted == judged[proof.PLAIN].levels).all()
    assert (curves.coverage_low <= curves.coverage_high).all()
    total = histograms.groupby(["posterior_kind", "diagnostic"]).n.sum()
    assert (total[proof.RECALIBRATED] == 2400).all()
    assert (histograms.n_low <= histograms.n_high).all()


def test_worst_bin_of_perfect_posteriors_is_worse_than_one_bin(judged):
    one = judged[proof.RECALIBRATED]
    value, by_chance = proof.worst_bin(one, "distance")
    _, masks, _ = one.bins("distance")
    errors = [calibration.coverage_error(one.transform[m]) for m in masks]
    assert value == pytest.approx(max(errors))
    single = calibration.coverage_curve(one.transform, one.perfect, where=masks[0])
    assert single.perfect_error_high < by_chance < 2 * single.perfect_error_high
    alone = calibration.perfect_errors(one.perfect, one.levels, [masks[0]])
    assert np.quantile(alone, 0.95) == pytest.approx(single.perfect_error_high)


def test_numbers_say_before_after_and_by_chance(judged):
    numbers = Numbers()
    proof.add_numbers(numbers, judged)
    rows = numbers.table().to_pandas().set_index(["metric", "bin"])
    assert rows.loc[("coverage_error_bin_max_plain", "distance"), "value"] > 0.2
    after = rows.loc[("coverage_error_bin_max", "distance"), "value"]
    assert after < 1.2 * rows.loc[("coverage_error_bin_max_perfect", "distance"), "value"]
    gain = rows.loc[("log_score_gain", "all")]
    assert gain.value > 3 * gain.error
    # Both posteriors of the same windows: those without a plain one have no gain.
    assert rows.loc[("crps", "all"), "value"] < rows.loc[("crps_plain", "all"), "value"]


def test_bins_without_truth_or_windows_are_left_out():
    params = Params()
    t = toy(n_haloes=60)
    w = dataclasses.replace(
        windows(t, np.random.default_rng(0)), contamination=np.full(t.truth.size, np.nan)
    )
    one = proof.Judged(w, t.probabilities, params)
    for quantity in proof.QUANTITIES:
        assert proof.worst_bin(one, quantity) is None
    nothing = proof.Judged(w, np.full_like(t.probabilities, np.nan), params)
    found = proof.tables({proof.RECALIBRATED: nothing}, {proof.RECALIBRATED: (PRIOR, STEEP)})
    assert all(table.num_rows == 0 for table in found.values())


def test_a_window_of_unknown_contamination_costs_only_itself(judged):
    right = judged[proof.RECALIBRATED]
    whole = np.sum(right.bins("contamination")[1], axis=0)
    assert (whole == 1).all()
    unknown = right.windows.contamination.copy()
    unknown[:7] = np.nan
    w = dataclasses.replace(right.windows, contamination=unknown)
    edges, masks, drawn = proof.Judged(w, right.probabilities, right.params).bins("contamination")
    assert edges.size > 2 and drawn is not None
    np.testing.assert_array_equal(np.sum(masks, axis=0), np.isfinite(unknown))
    np.testing.assert_array_equal(np.sum(drawn, axis=0)[5], np.isfinite(unknown))


def test_bins_before_and_after_are_the_same(tables):
    """Though three windows have no posterior before."""
    bins = tables["calibration_bins"]
    names = [set(map(tuple, bins.loc[bins.posterior_kind == kind, ["quantity", "bin"]].values))
             for kind in (proof.PLAIN, proof.RECALIBRATED)]  # fmt: skip
    assert names[0] == names[1] and len(names[0]) > 10


def test_reweighted_posteriors_are_exact_for_the_steep_population():
    """The toy's own prior exchanged: medians move down by the slope times sigma squared."""
    p = normal_posteriors(np.array([14.3]), SIGMA / 2)
    moved = reweight(p, PRIOR, STEEP)
    centres = 0.5 * (EDGES[1:] + EDGES[:-1])
    assert (moved @ centres)[0] == pytest.approx(14.3 - SLOPE * (SIGMA / 2) ** 2, abs=0.002)
