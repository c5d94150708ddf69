"""The calibration tables: toy posteriors before and after, in bins, under two priors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from cmass.evaluate import Numbers, calibration, proof, scores
from cmass.mock.haloes import window_share
from cmass.params import Params
from cmass.posterior import JointDensity, normalise, reweight
from cmass.recalibration import Correction, Pairs, Posteriors, Recalibration, mean_error
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


def test_drawn_contamination_scatters_as_the_windows_do(judged):
    """At given true mass the logit has a scatter of 0.5; a regression alone would have none."""
    one = judged[proof.RECALIBRATED]
    near = np.abs(one.drawn - 14.3) < 0.05
    found = one.drawn_contamination[near]
    # Counts are whole galaxies, of 30 to 1000, but residuals are dealt as they are: 0.5, and the
    # slope of 2 per dex over 0.1 dex adds 0.06 in quadrature.
    assert np.log(found / (1 - found)).std() == pytest.approx(0.5, abs=0.05)


def test_drawn_contamination_follows_a_curved_law(judged):
    """Purest in the middle of the masses: a straight line in true mass would be flat there."""
    right = judged[proof.RECALIBRATED]
    true, n = right.windows.true, right.windows.n_galaxies
    logit = 4 * (true - 14.3) ** 2 - 2 + 0.2 * np.random.default_rng(1).standard_normal(n.size)
    w = dataclasses.replace(right.windows, contamination=1 / (1 + np.exp(-logit)))
    one = proof.Judged(w, right.probabilities, right.params)
    for middle in (13.6, 14.3, 15.0):
        near = np.abs(one.drawn - middle) < 0.05
        found = np.log(one.drawn_contamination[near] / (1 - one.drawn_contamination[near])).mean()
        # Half a galaxy of 30 moves an odds of 0.13 by 0.1.
        assert found == pytest.approx(4 * (middle - 14.3) ** 2 - 2, abs=0.2), middle


def test_rows_of_bins_are_of_their_windows_alone(judged, tables):
    """Each number of a bin, made again from the windows that the bin's edges hold."""
    bins, one = tables["calibration_bins"], judged[proof.RECALIBRATED]
    w, p = one.windows, one.probabilities
    own = bins[(bins.posterior_kind == proof.RECALIBRATED) & (bins.quantity == "distance")]
    crps, log_score = scores.crps(p, EDGES, w.true), scores.log_score(p, EDGES, w.true)
    width = scores.width_68(p, EDGES)
    assert len(own) == 4
    for row in own.itertuples():
        inside = (w.distance >= row.bin_low) & (w.distance < row.bin_high)
        if row.bin_high == own.bin_high.max():
            inside |= w.distance == row.bin_high
        assert row.n == inside.sum() == 600
        assert row.n_haloes == np.unique(w.halo[inside]).size < 600
        assert row.crps == pytest.approx(crps[inside].mean())
        assert row.log_score == pytest.approx(log_score[inside].mean())
        assert row.width_68 == pytest.approx(width[inside].mean())
        assert row.mean_transform == pytest.approx(one.transform[inside].mean())
        level = calibration.coverage_levels(one.levels)
        draws = [calibration.interval_coverage(u[inside], level) for u in one.perfect]
        errors = np.abs(draws - level).max(axis=1)
        off = calibration.interval_coverage(one.transform[inside], level) - level
        assert abs(row.coverage_error) == pytest.approx(np.abs(off).max())
        assert row.perfect_error == pytest.approx(np.median(errors))
        assert row.perfect_error_high == pytest.approx(np.quantile(errors, 0.95))
        assert row.perfect_band == pytest.approx(row.perfect_error_high)
        # Of 600 windows all distances are multiples of 1/600: rounding decides a few ties.
        beyond, reached = ((errors > np.abs(off).max() + d).sum() for d in (1e-12, -1e-12))
        n = 1 + calibration.ROUNDS
        assert (1 + beyond) / n <= row.chance <= (1 + reached) / n < (1 + beyond) / n + 0.1


def test_each_quantity_has_bins_of_its_own_values(judged):
    """What a bin is made of: by name, with the drawn truths and contaminations where they decide."""
    one = judged[proof.RECALIBRATED]
    w = one.windows
    values = {
        "predicted mass": (w.predicted, None), "distance": (w.distance, None),
        "galaxies in the window": (w.n_galaxies, None), "true mass": (w.true, one.drawn),
        "contamination": (w.contamination, one.drawn_contamination),
    }  # fmt: skip
    assert set(values) == set(proof.QUANTITIES)
    for quantity, (own, drawn) in values.items():
        edges, masks, of_drawn = one.bins(quantity)
        np.testing.assert_allclose(edges, np.quantile(own, np.linspace(0, 1, 5)))
        assert [m.sum() for m in masks] == pytest.approx([600] * 4, abs=15)  # galaxies are tied
        assert masks[1][np.argsort(own)[900]] and masks[3][np.argmax(own)]
        assert (of_drawn is None) == (drawn is None), quantity
        if drawn is not None:
            for k in (1, 2):  # outer bins hold what lies beyond as well
                expected = (drawn >= edges[k]) & (drawn < edges[k + 1])
                np.testing.assert_array_equal(of_drawn[k], expected)


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


def test_each_row_of_scores_is_of_its_own_diagnostic(judged, tables):
    """Posteriors too narrow in a bin: TARP, transforms and ranks have numbers that differ."""
    one, rows = judged[proof.PLAIN], tables["calibration_scores"]
    row = rows[(rows.posterior_kind == proof.PLAIN) & (rows.prior == proof.FLAT)
               & (rows.population == proof.FLAT)].iloc[0]  # fmt: skip
    curves, counts = tables["calibration_curves"], tables["calibration_histograms"]
    tarp = curves[(curves.posterior_kind == proof.PLAIN) & (curves.diagnostic == "tarp")]
    off = (tarp.coverage - tarp.level).to_numpy()
    assert row.tarp_error == pytest.approx(off[np.argmax(np.abs(off))])
    pit = counts[(counts.posterior_kind == proof.PLAIN) & (counts.diagnostic == "pit")]
    expected = np.histogram(one.transform, np.linspace(0, 1, len(pit) + 1))[0]
    np.testing.assert_array_equal(pit.n, expected)
    again = calibration.flat_histogram(one.transform, one.perfect, len(pit))
    assert row.pit_chance == again.chi2_chance
    assert row.pit_distance_chance == again.distance_chance != again.chi2_chance
    sbc = counts[(counts.posterior_kind == proof.PLAIN) & (counts.diagnostic == "sbc")]
    assert sbc.n.sum() == pit.n.sum() and (sbc.n.to_numpy() != expected).any()
    # Ranks among 99 draws are transforms, known to sqrt(0.25/99) at most: nearly the same counts.
    assert np.abs(sbc.n.to_numpy() - expected).max() < 0.25 * expected.max()


def test_weighted_scores_have_weighted_errors(judged, tables):
    """Mean and error under the mass function, by hand; both windows of a halo are drawn together."""
    one, rows = judged[proof.RECALIBRATED], tables["calibration_scores"]
    row = rows[(rows.posterior_kind == proof.RECALIBRATED) & (rows.prior == proof.FLAT)
               & (rows.population == proof.HMF)].iloc[0]  # fmt: skip
    w = one.windows
    values = scores.log_score(one.probabilities, EDGES, w.true)
    mean = (w.weight * values).sum() / w.weight.sum()
    assert row.log_score == pytest.approx(mean)
    assert row.n_effective == pytest.approx(w.weight.sum() ** 2 / (w.weight**2).sum())
    # Linearised: the halo's sum of w (x - mean), over all weight. 200 resamples: to 5 %.
    rest = np.bincount(w.halo, w.weight * (values - mean))
    expected = np.sqrt((rest**2).sum()) / w.weight.sum()
    assert row.log_score_error == pytest.approx(expected, rel=0.2)
    plain = mean_error(values, w.halo)[1]
    assert expected > 1.3 * plain


def test_errors_of_scores_know_that_windows_of_a_halo_are_alike():
    """Four windows a halo with one and the same posterior: twice the error of independent ones."""
    t = toy(n_haloes=150, sight_lines=1)
    rows = np.repeat(np.arange(150), 4)
    w = windows(t, np.random.default_rng(0)).take(rows)
    right = proof.Judged(w, t.probabilities[rows], Params())
    wrong = proof.Judged(w, toy(n_haloes=150, sight_lines=1, bias=0.7).probabilities[rows],
                         Params())  # fmt: skip
    found = proof.tables({proof.RECALIBRATED: right}, {proof.RECALIBRATED: (PRIOR, STEEP)})
    row = found["calibration_scores"].to_pylist()[0]
    crps = scores.crps(t.probabilities, EDGES, t.truth)
    alone = crps.std(ddof=1) / np.sqrt(150)
    # 200 resamples of 150 haloes: to 8 %.
    assert row["crps_error"] == pytest.approx(alone, rel=0.25)
    numbers = Numbers()
    proof.add_numbers(numbers, {proof.RECALIBRATED: right, proof.PLAIN: wrong})
    after = {r["metric"]: r for r in numbers.table().to_pylist()}
    assert after["crps"]["error"] == pytest.approx(alone, rel=0.01)
    other = scores.crps(wrong.probabilities[::4], EDGES, t.truth)
    assert after["crps_gain"]["value"] == pytest.approx((other - crps).mean()) and (
        after["crps_gain"]["value"] > 0
    )
    gain = (other - crps).std(ddof=1) / np.sqrt(150)
    assert after["crps_gain"]["error"] == pytest.approx(gain, rel=0.01)


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
    half = np.arange(300) >= 150
    chosen = calibration.coverage_curve(u, perfect, 9, half, weights=weight.astype(float))
    rows = rows[rows >= 150]
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


def test_numbers_are_of_the_posterior_they_name(judged):
    """Before and after by hand; what chance gives is that of the published posterior."""
    numbers = Numbers()
    proof.add_numbers(numbers, judged)
    found = {(r["metric"], r["bin"]): r["value"] for r in numbers.table().to_pylist()}
    after, before = judged[proof.RECALIBRATED], judged[proof.PLAIN]
    for name, one in (("", after), ("_plain", before)):
        width = scores.width_68(one.probabilities, EDGES).mean()
        assert found[f"width_68{name}", "all"] == pytest.approx(width)
        log_score = scores.log_score(one.probabilities, EDGES, one.windows.true).mean()
        assert found[f"log_score{name}", "all"] == pytest.approx(log_score)
        for quantity in proof.QUANTITIES:
            _, masks, _ = one.bins(quantity)
            worst = max(calibration.coverage_error(one.transform[m], one.levels) for m in masks)
            assert found[f"coverage_error_bin_max{name}", quantity] == pytest.approx(worst)
    assert found["width_68", "all"] > found["width_68_plain", "all"]
    curve = before.curve
    assert found["coverage_error_max_plain", "all"] == pytest.approx(curve.largest_error)
    assert found["coverage_error_max_plain", "all"] > 0.05
    errors = [calibration.coverage_error(u, after.levels) for u in after.perfect]
    assert found["coverage_error_max_perfect", "all"] == pytest.approx(np.quantile(errors, 0.95))
    assert found["coverage_error_max_chance", "all"] == after.curve.chance > 0.01
    assert before.curve.chance < 0.005


def test_worst_bin_of_the_truth_is_held_to_drawn_truths(judged):
    """Exact posteriors stay below what their own truths show, which is more than the diagonal's."""
    one = judged[proof.RECALIBRATED]
    _, masks, drawn = one.bins("true mass")
    _, by_chance = proof.worst_bin(one, "true mass")
    perfect = one.perfect[: len(one.drawn)]
    expected = [
        max(calibration.coverage_error(u[of[i]], one.levels) for of in drawn)
        for i, u in enumerate(perfect)
    ]
    assert by_chance == pytest.approx(np.quantile(expected, 0.95))
    as_observed = calibration.perfect_errors(perfect, one.levels, masks)
    assert by_chance != pytest.approx(np.quantile(as_observed, 0.95), rel=0.01)


def test_windows_times_their_weight_are_the_mass_function():
    """Fewer windows in the tails of what the simulator deals; none stands for what the prior lacks."""
    params = Params()
    haloes = params.mock.haloes.model_copy(update={"tail_dex": 0.4})
    params = params.model_copy(update={"mock": params.mock.model_copy(update={"haloes": haloes})})
    low, tail = haloes.log10_m200c_min, haloes.tail_dex
    edges = np.linspace(low - 0.5 * tail, 15.1, 801)
    centres = 0.5 * (edges[1:] + edges[:-1])
    hmf = np.exp(-SLOPE * (centres - low))
    bundle = SimpleNamespace(edges=edges, priors=(np.ones(800), hmf))
    assert window_share(np.array([low - 0.25 * tail]), haloes)[0] == pytest.approx(0.75)
    m = np.array([low - 0.25 * tail, low + 0.3, low + 1.0])
    weight = proof.abundance(m, bundle, params)
    np.testing.assert_allclose(weight * [0.75, 1, 1], np.exp(-SLOPE * (m - low)), rtol=1e-4)
    beyond = np.array([edges[0] - 0.01, edges[-1] + 0.01, low - 2 * tail])
    np.testing.assert_array_equal(proof.abundance(beyond, bundle, params), 0)


def test_the_three_posteriors_are_what_they_are_called():
    """The paper's, the same with the chosen bandwidth, and the published one; each with its prior."""
    t = toy(n_haloes=200)
    w = windows(t, np.random.default_rng(0))
    test = Pairs(w.predicted, w.true, w.n_galaxies, w.z, w.halo)
    published = Posteriors(test, Recalibration(0.4, Correction.fit(test, (1, 0)), folded=True))
    density = JointDensity(w.predicted, w.true, 0.2)
    bundle = SimpleNamespace(
        edges=EDGES, priors=(PRIOR, STEEP), density=density, posteriors=published,
        posterior=lambda d, n, z: published.posterior(d, n, z, EDGES),
    )  # fmt: skip
    found = proof.judge(w, bundle, test, Params())
    expected = {
        proof.PLAIN: density.posterior(w.predicted, EDGES),
        proof.BANDWIDTH: JointDensity(w.predicted, w.true, 0.4).posterior(w.predicted, EDGES),
        proof.RECALIBRATED: published.posterior(w.predicted, w.n_galaxies, w.z, EDGES),
    }
    for name, p in expected.items():
        np.testing.assert_allclose(found[name].probabilities, p, atol=1e-8, err_msg=name)
    priors = proof.priors_of(found, bundle)
    np.testing.assert_allclose(priors[proof.PLAIN][0], density.prior(EDGES))
    for name in (proof.BANDWIDTH, proof.RECALIBRATED):
        assert priors[name][0] is PRIOR
    assert all(prior[1] is STEEP for prior in priors.values())


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
