"""Recalibration by the test set: repairs what is wrong, leaves what is right, on toys of known truth."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import beta, norm

from cmass import recalibration
from cmass.errors import InputError
from cmass.evaluate import calibration, scores
from cmass.params import PosteriorParams
from cmass.posterior import JointDensity, cumulative_at, normalise
from cmass.recalibration import (
    CORRECTIONS,
    Correction,
    Pairs,
    Posteriors,
    Recalibration,
    Search,
    TransformMap,
    choose,
    halo_folds,
    mean_error,
)

EDGES = np.linspace(13.5, 15.1, 129)


def survey(n_haloes=1500, seed=0, *, distance=0.0, widening=0.0):
    """Pairs whose estimate is biased with redshift and noisier in poor windows.

    Parameters
    ----------
    distance : float
        Bias of the estimate per dex of redshift.
    widening : float
        Change of the log of the noise per dex of galaxies.
    """
    rng = np.random.default_rng(seed)
    halo = np.repeat(np.arange(n_haloes), 2)
    true = rng.uniform(13.5, 15.1, n_haloes)[halo]
    z = 10 ** rng.uniform(-2, -1.1, halo.size)
    n = 10 ** rng.uniform(1.5, 3, halo.size)
    sigma = 0.2 * np.exp(widening * (np.log10(n) - 2.25))
    noise = (rng.standard_normal(n_haloes)[halo] + rng.standard_normal(halo.size)) / np.sqrt(2)
    predicted = true + sigma * noise + distance * (np.log10(z) + 1.55)
    return Pairs(predicted, true, n, z, halo)


def judged(model, pairs):
    p = model.posterior(pairs.predicted, pairs.n_galaxies, pairs.z, EDGES)
    known = np.isfinite(p).all(axis=1)
    return p[known], pairs.take(known)


def worst_bin(transform, pairs, values):
    """Largest coverage error and largest offset of the mean transform in four bins of `values`."""
    number = calibration.bin_number(values, calibration.quantile_bins(values, 4))
    parts = [transform[number == k] for k in range(4)]
    return (
        max(calibration.coverage_error(u) for u in parts),
        max(abs(u.mean() - 0.5) for u in parts),
    )


# ------------------------------------------------------------------------------ the density


def test_without_a_correction_it_is_the_joint_density():
    """A kernel density of (d, m - d) is that of (d, m): the map between them is linear."""
    pairs = survey(300)
    plain = JointDensity(pairs.predicted, pairs.true, 0.2)
    model = Posteriors(pairs, Recalibration(0.2))
    low, high = plain.calibrated_range
    at = np.append(np.linspace(low, high, 40), [low - 0.01, high + 0.01, np.nan])
    unknown = np.full(at.size, np.nan)
    found = model.posterior(at, unknown, unknown, EDGES)
    np.testing.assert_allclose(found, plain.posterior(at, EDGES), atol=1e-9)
    assert np.isnan(found[-3:]).all()
    np.testing.assert_allclose(model.prior(EDGES), plain.prior(EDGES))
    assert model.kernel_width_dex == plain.kernel_width_dex


def test_density_at_the_truth_is_that_of_narrow_bins():
    pairs = survey(400, distance=0.3, widening=-0.5)
    model = Posteriors(pairs, Recalibration(0.2, Correction.fit(pairs, (1, 1))))
    few = pairs.take(np.arange(60))
    edges = np.linspace(13.5, 15.1, 3201)
    p = model.posterior(few.predicted, few.n_galaxies, few.z, edges)
    known = np.isfinite(p).all(axis=1)
    density, transform = model.at_truth(few, (13.5, 15.1))
    expected = scores.log_score(p, edges, few.true)
    # Bins of 0.0005 dex, posteriors of 0.2 dex; kernels are cut at 6.5 sigma in bins.
    np.testing.assert_allclose(np.log(density[known]), expected[known], atol=0.01)
    np.testing.assert_allclose(
        transform[known], cumulative_at(p, edges, few.true)[known], atol=1e-4
    )
    outside = Pairs(*(np.array([x]) for x in (14.2, 15.2, 100.0, 0.05)), np.array([0]))
    assert model.at_truth(outside, (13.5, 15.1)) == (0.0, 1.0)


# --------------------------------------------------------------------------- the correction


def test_correction_finds_location_and_scale():
    """m = 14.3 + 0.7 x - 0.2 log z + normal(0.1 exp(0.8 log n)): both are in the family."""
    rng = np.random.default_rng(1)
    n = 6000
    d, galaxies, z = rng.normal(14.3, 0.3, n), 10 ** rng.uniform(1, 3, n), rng.uniform(0.01, 0.1, n)
    location = 14.3 + 0.7 * (d - 14.3) - 0.2 * np.log10(z)
    scale = 0.1 * np.exp(0.8 * (np.log10(galaxies) - 2))
    pairs = Pairs(d, location + scale * rng.standard_normal(n), galaxies, z, np.arange(n))
    found = Correction.fit(pairs, (1, 1))
    centre, width = found.apply(d, galaxies, z)
    # 6000 residuals of 0.1 dex and six parameters: 0.003 dex; a scale to 1/sqrt(2n) = 1 %.
    assert np.abs(centre - location).max() < 0.02
    np.testing.assert_allclose(width, scale, rtol=0.1)
    assert found.n_parameters == 8


def test_correction_is_the_maximum_of_its_likelihood():
    """Noisier windows count less: no step of any coefficient makes the pairs more likely."""
    pairs = survey(300, distance=0.3, widening=-0.8)
    found = Correction.fit(pairs, (1, 1))

    def log_likelihood(one):
        centre, width = one.apply(pairs.predicted, pairs.n_galaxies, pairs.z)
        return norm.logpdf(pairs.true, centre, width).sum()

    best = log_likelihood(found)
    for name in ("location", "log_scale"):
        for k in range(4):
            for step in (-0.003, 0.003):
                values = np.array(getattr(found, name))
                values[k] += step
                other = replace(found, **{name: tuple(values)})
                # 600 pairs of 0.2 dex: a step of 0.003 costs 600 (0.003/0.2)²/2 = 0.07.
                assert log_likelihood(other) < best, (name, k, step)


def test_correction_stays_at_the_rim_of_what_the_test_set_has():
    pairs = survey(200, distance=0.3)
    found = Correction.fit(pairs, (2, 1))
    at = np.array([14.3, 14.3])
    rim = found.apply(at, np.array([100.0, 100.0]), np.array([pairs.z.max(), 0.5]))
    assert rim[0][0] == rim[0][1]
    assert rim[1][0] == rim[1][1]


def test_correction_needs_more_pairs_than_parameters():
    with pytest.raises(InputError, match="cannot fit"):
        Correction.fit(survey(6), (2, 1))
    equal = survey(50)
    equal = Pairs(equal.predicted, equal.true, np.full(100, 30.0), equal.z, equal.groups)
    assert np.isfinite(Correction.fit(equal, (1, 1)).apply(*(x[:3] for x in (
        equal.predicted, equal.n_galaxies, equal.z)))).all()  # fmt: skip


# -------------------------------------------------------------------------------- the map


def test_map_undoes_a_wrong_width():
    """Transforms of posteriors too narrow by 0.7 become uniform; posteriors become wider."""
    rng = np.random.default_rng(2)
    u = ndtr(ndtri(rng.random(20000)) / 0.7)
    mapped = TransformMap.fit(u)
    assert mapped.a < 1
    assert mapped.b < 1
    v = beta.cdf(u, mapped.a, mapped.b)
    # A beta is not exactly the map of a normal's width, but nearly.
    assert calibration.coverage_error(u) > 0.1
    assert calibration.coverage_error(v) < 0.03
    p = normalise(np.diff(ndtr((EDGES[None, :] - 14.3) / 0.14), axis=1))
    wide = mapped.apply(p)
    assert wide.sum() == pytest.approx(1.0)
    assert scores.width_68(wide, EDGES)[0] == pytest.approx(0.4, rel=0.08)


def test_map_is_scipys_maximum_of_the_likelihood():
    for seed, shape in enumerate([(0.8, 0.8), (1.3, 0.9), (5.0, 2.0)]):
        u = np.random.default_rng(seed).beta(*shape, 500)
        a, b, _, _ = beta.fit(u, floc=0, fscale=1)
        found = TransformMap.fit(u)
        assert (found.a, found.b) == pytest.approx((a, b), rel=1e-3)
    few = TransformMap.fit(np.array([0.2, 0.4, 0.4, 1.0]))  # a transform of one is no crash
    assert np.isfinite([few.a, few.b]).all()


def test_map_of_uniform_transforms_changes_nothing():
    u = np.random.default_rng(3).random(20000)
    mapped = TransformMap.fit(u)
    assert mapped.a == pytest.approx(1.0, abs=0.05)
    assert mapped.b == pytest.approx(1.0, abs=0.05)
    p = normalise(np.diff(norm.cdf(EDGES, np.array([[14.0], [14.5]]), 0.2), axis=1))
    np.testing.assert_allclose(TransformMap(1.0, 1.0).apply(p), p, atol=1e-12)
    assert np.isnan(TransformMap(0.9, 0.9).apply(np.full((1, 4), np.nan))).all()


def test_posteriors_are_mapped():
    pairs, mapped = survey(200), TransformMap(0.7, 1.2)
    plain = Posteriors(pairs, Recalibration(0.2))
    model = Posteriors(pairs, Recalibration(0.2, None, mapped))
    given = (np.array([14.0, 14.6]), np.full(2, 100.0), np.full(2, 0.05), EDGES)
    expected = beta.cdf(np.cumsum(plain.posterior(*given), axis=1), 0.7, 1.2)
    np.testing.assert_allclose(np.cumsum(model.posterior(*given), axis=1), expected, atol=1e-9)


def test_map_adds_to_the_log_score_what_the_mapped_posterior_has():
    edges = np.linspace(13.5, 15.1, 1601)
    p = normalise(np.diff(norm.cdf(edges, np.array([[14.0], [14.5]]), 0.2), axis=1))
    truth, mapped = np.array([14.1, 14.2]), TransformMap(0.8, 1.1)
    u = cumulative_at(p, edges, truth)
    after = scores.log_score(mapped.apply(p), edges, truth)
    before = scores.log_score(p, edges, truth)
    # The density of a bin is its mean over 0.001 dex, the beta's is taken at the truth.
    np.testing.assert_allclose(after - before, mapped.log_density(u), atol=0.002)


# ------------------------------------------------------------------------------ the choice


def test_folds_are_made_of_haloes_and_even():
    groups = np.repeat(np.arange(500), np.random.default_rng(0).integers(1, 5, 500)) * 7
    fold = halo_folds(groups, 5, np.random.default_rng(1))
    for k in range(5):
        assert not set(groups[fold == k]) & set(groups[fold != k])
        assert np.unique(groups[fold == k]).size == 100


def test_out_of_fold_scores_know_nothing_of_their_own_halo():
    """Truths of one fold's haloes moved by a dex change no density that other folds are given."""
    pairs = survey(60, distance=0.2)
    fold = halo_folds(pairs.groups, 3, np.random.default_rng(1))
    kept = np.append(np.flatnonzero(fold == 0)[:6], pairs.true.argsort()[[0, -1]])
    moved_rows = (fold == 0) & ~np.isin(np.arange(fold.size), kept)
    moved = Pairs(pairs.predicted, np.where(moved_rows, 14.3, pairs.true), *(
        pairs.n_galaxies, pairs.z, pairs.groups))  # fmt: skip
    _, before = Search(pairs, fold, 2.0).out_of_fold(0.2, (1, 0))
    _, after = Search(moved, fold, 2.0).out_of_fold(0.2, (1, 0))
    same = (fold == 0) & ~moved_rows
    assert same.sum() >= 6 and moved_rows.sum() > 20
    np.testing.assert_array_equal(before[same], after[same])
    assert not np.allclose(before[fold == 1], after[fold == 1])


def test_map_of_a_fold_knows_nothing_of_its_own_transforms():
    rng = np.random.default_rng(6)
    fold = np.arange(300) % 3
    search = Search(survey(150), fold, 2.0)
    u = rng.beta(2, 2, 300)
    moved = np.where((fold == 0) & (np.arange(300) > 30), 0.02, u)
    same = (fold == 0) & (u == moved)
    before, after = (search.mapped(np.zeros(300), x) for x in (u, moved))
    assert same.sum() > 5
    np.testing.assert_array_equal(before[same], after[same])
    assert not np.allclose(before[fold == 1], after[fold == 1])


def test_a_gain_is_certain_beyond_so_many_standard_errors():
    """Gains of 1.9 and 2.1 standard errors of 150 haloes; a loss never is one."""
    pairs = survey(150)
    rest = np.random.default_rng(7).standard_normal(300)
    _, error = mean_error(rest - rest.mean(), pairs.groups)
    search, than = Search(pairs, np.arange(300) % 3, 2.0), np.zeros(300)
    for pull, certain in ((1.9, False), (2.1, True), (-5.0, False)):
        gain = rest - rest.mean() + pull * error
        assert search.add("stage", str(pull), 1, gain, than) == certain
        assert search.rows[-1]["log_score_gain"] == pytest.approx(pull * error)
        assert search.rows[-1]["log_score_gain_error"] == pytest.approx(error)


def test_one_truth_far_out_costs_the_floor_and_no_more():
    pairs = survey(60)
    pairs.predicted[0], pairs.true[0] = pairs.predicted.min() - 0.5, pairs.true.max()
    score, _ = Search(pairs, pairs.groups % 3, 2.0).out_of_fold(0.1, None)
    assert score[0] == np.log(1e-6)
    assert np.isfinite(score).all()


def test_corrections_need_twenty_pairs_for_each_parameter():
    """120 pairs: enough for the 4 + 1 parameters of the first correction, not for 4 + 4."""
    how = PosteriorParams(bandwidth=0.2)
    _, table = choose(survey(60), how, np.random.default_rng(0))
    tried = table.to_pandas().query("stage == 'correction'")
    assert tried.n_parameters.tolist() == [5]
    _, table = choose(survey(49), how, np.random.default_rng(0))
    assert table.num_rows > 0 and not (table.to_pandas().stage == "correction").any()


def test_error_of_a_mean_takes_groups_as_one():
    x = np.random.default_rng(4).standard_normal(500)
    mean, error = mean_error(x, np.arange(500))
    assert (mean, error) == pytest.approx((x.mean(), x.std() / np.sqrt(500)))
    doubled = mean_error(np.repeat(x, 2), np.repeat(np.arange(500), 2))
    assert doubled == pytest.approx((mean, error))


@pytest.fixture(scope="module")
def biased():
    """Test and evaluation set of a survey whose estimate does not know distance and richness."""
    kwargs = {"distance": 0.35, "widening": -0.6}
    test, judge = survey(1500, 0, **kwargs), survey(2000, 1, **kwargs)
    return test, judge, *choose(test, PosteriorParams(), np.random.default_rng(0))


def test_choice_repairs_bins_of_distance_and_richness(biased):
    test, judge, recalibration, _ = biased
    assert recalibration.correction is not None
    before, own = judged(Posteriors(test, Recalibration(0.2)), judge)
    after, _ = judged(Posteriors(test, recalibration), judge)
    u, v = (cumulative_at(p, EDGES, own.true) for p in (before, after))
    # In each quarter 1000 windows: a perfect posterior's curve strays by 0.045 at most (95 %),
    # its mean transform by 4 x 0.29/sqrt(500).
    assert worst_bin(u, own, own.z)[1] > 0.1
    assert worst_bin(u, own, own.n_galaxies)[0] > 0.08
    for values in (own.z, own.n_galaxies):
        coverage, middle = worst_bin(v, own, values)
        assert coverage < 0.06
        assert middle < 0.052
    assert calibration.coverage_error(v) < 0.03
    for score, sign in ((scores.log_score, 1), (scores.crps, -1)):
        gain = sign * (score(after, EDGES, own.true) - score(before, EDGES, own.true))
        assert gain.mean() > 3 * mean_error(gain, own.groups)[1]


def test_edges_of_the_prior_are_folded_where_the_truth_has_edges():
    """A flat prior ends at once: cut off, a kernel density is too low there, and coverage with it."""
    test, judge = survey(3000, 11), survey(3000, 12)
    recalibration, table = choose(test, PosteriorParams(), np.random.default_rng(0))
    assert recalibration.folded
    edges = table.to_pandas().query("stage == 'edges'").iloc[0]
    assert edges.log_score_gain > 2 * edges.log_score_gain_error
    limits = float(test.true.min()), float(test.true.max())
    inside = judge.take((judge.true > limits[0]) & (judge.true < limits[1]))
    near = (inside.true < limits[0] + 0.05) | (inside.true > limits[1] - 0.05)
    folded, cut = (
        Posteriors(test, replace(recalibration, folded=how)).at_truth(inside, limits)
        for how in (True, False)
    )
    assert np.log(folded[0][near]).mean() > np.log(cut[0][near]).mean() + 0.2
    # Of truths next to an edge as many as should lie in the last twentieth of their posterior.
    beyond = [((u < 0.025) | (u > 0.975)).mean() for _, u in (folded, cut)]
    assert abs(beyond[0] - 0.05) < 0.012
    assert beyond[1] > beyond[0] + 0.005


def test_folded_bins_are_the_folded_density():
    test = survey(800, 13)
    posteriors = Posteriors(test, Recalibration(0.2, folded=True))
    limits = float(test.true.min()), float(test.true.max())
    edges = np.linspace(*limits, 2001)
    few = test.take(np.arange(0, test.true.size, 37))
    bins = posteriors.posterior(few.predicted, few.n_galaxies, few.z, edges)
    np.testing.assert_allclose(bins.sum(axis=1), 1.0)
    density, cumulative = posteriors.at_truth(few, limits)
    middle = np.searchsorted(edges, few.true) - 1
    rows = np.arange(len(middle))
    np.testing.assert_allclose(
        bins[rows, middle] / np.diff(edges)[0], density, rtol=0.02, atol=1e-3
    )
    np.testing.assert_allclose(cumulative_at(bins, edges, few.true), cumulative, atol=2e-3)


def test_table_says_what_was_tried_and_why(biased):
    _, _, recalibration, table = biased
    rows = table.to_pandas()
    assert rows[rows.stage == "correction"].shape[0] == len(CORRECTIONS)
    assert rows[rows.chosen].groupby("stage").size().max() == 1
    chosen = rows[rows.chosen & (rows.stage == "correction")].iloc[0]
    assert chosen.log_score_gain > 2 * chosen.log_score_gain_error
    assert str(recalibration.correction.orders[0]) in chosen.candidate
    best = rows[rows.stage == "bandwidth after correction"]
    assert best.loc[best.chosen, "log_score"].iloc[0] == best.log_score.max()
    assert f"{recalibration.bandwidth:.2f}" in best.loc[best.chosen, "candidate"].iloc[0]
    assert (rows.n_parameters >= 0).all()


def test_choice_depends_on_nothing_but_its_seed(biased):
    test, _, recalibration, table = biased
    again, same = choose(test, PosteriorParams(), np.random.default_rng(0))
    assert again == recalibration
    assert same.equals(table)


def test_choice_leaves_a_right_posterior_right():
    """Estimates without any bias: what the choice adds costs no calibration and no score."""
    test, judge = survey(1500, 5), survey(1500, 6)
    recalibration, _ = choose(test, PosteriorParams(), np.random.default_rng(0))
    before, own = judged(Posteriors(test, Recalibration(0.2)), judge)
    after, _ = judged(Posteriors(test, recalibration), judge)
    loss = scores.log_score(before, EDGES, own.true) - scores.log_score(after, EDGES, own.true)
    assert loss.mean() < 0.005
    assert calibration.coverage_error(cumulative_at(after, EDGES, own.true)) < 0.035


def test_fixed_bandwidth_and_no_recalibration_are_the_papers_posterior():
    how = PosteriorParams(bandwidth=0.2, recalibration="none")
    found, table = choose(survey(100), how, np.random.default_rng(0))
    assert found == Recalibration(0.2)
    assert table.num_rows == 0
    found, table = choose(survey(200), PosteriorParams(recalibration="none"),
                          np.random.default_rng(0))  # fmt: skip
    assert found.correction is None
    assert found.transform_map is None
    assert table.num_rows > 5


def test_too_few_haloes_keep_the_plain_posterior():
    found, table = choose(survey(9), PosteriorParams(), np.random.default_rng(0))
    assert found == Recalibration(PosteriorParams().plain_bandwidth)
    assert table.num_rows == 0


def test_bandwidth_is_positive_or_auto():
    with pytest.raises(ValueError, match="positive, or auto"):
        PosteriorParams(bandwidth=0.0)
    with pytest.raises(ValueError, match="bandwidth"):
        PosteriorParams(bandwidth="wide")
    assert PosteriorParams(bandwidth=0.3).bandwidth == 0.3


def test_recalibration_survives_json(biased):
    recalibration = biased[2]
    full = Recalibration(0.3, recalibration.correction, TransformMap(0.9, 1.1))
    for one in (full, Recalibration(0.2), recalibration):
        assert Recalibration.from_json(json.loads(json.dumps(one.as_json()))) == one


# ------------------------------------------------------------------------- in the pipeline


def test_step_writes_what_it_chose_and_every_reader_uses_it(tiny_run, tiny_bundle):
    """The step's choice, made again from its own predictions, is what run and bundle apply."""
    from cmass import pretrained, seeds
    from cmass.recalibration import pairs_of
    from cmass.tables import read_json, read_table, to_numpy

    workspace, params = tiny_run
    pairs = pairs_of(read_table(workspace.posterior / "predictions.parquet", "predictions"))
    rng = seeds.generator(params.seed, "posterior-folds")
    expected, table = choose(pairs, params.posterior, rng)
    written = Recalibration.from_json(read_json(workspace.posterior / "recalibration.json"))
    assert written == expected
    assert table.num_rows > 10
    assert read_table(workspace.posterior / "recalibration.parquet", "recalibration").equals(table)
    run, shipped = pretrained.from_workspace(workspace, params), pretrained.load_bundle(tiny_bundle)
    masses = read_table(workspace.masses / "masses.parquet", "masses")
    point, n, z, p50 = to_numpy(masses, "log10_m200c", "n_galaxies", "z", "log10_m200c_p50")
    for bundle in (run, shipped):
        assert bundle.posteriors.recalibration == expected
        cumulative = np.cumsum(bundle.posterior(point, n, z), axis=1)
        known = np.isfinite(p50)
        below = cumulative_at(bundle.posterior(point, n, z), bundle.edges, p50)
        np.testing.assert_allclose(below[known], 0.5, atol=1e-9)
        np.testing.assert_allclose(cumulative[known, -1], 1.0)
    population = read_table(workspace.evaluation / "population.parquet", "population_masses")
    point, n, z, p50 = to_numpy(population, "log10_m200c", "n_galaxies", "z", "log10_m200c_p50")
    below = cumulative_at(run.posterior(point, n, z), run.edges, p50)
    np.testing.assert_allclose(below[np.isfinite(p50)], 0.5, atol=1e-9)


def test_a_model_without_recalibration_keeps_its_posterior():
    """The bundle that shipped before: its own bandwidth, no richness, no redshift."""
    from cmass.pretrained import SHIPPED, load_bundle
    from cmass.tables import read_json

    if "recalibration" in read_json(SHIPPED / "model.json")["settings"]:
        pytest.skip("the model that ships is recalibrated")
    bundle = load_bundle()
    at = np.linspace(13.6, 14.9, 30)
    unknown = np.full(at.size, np.nan)
    expected = bundle.density.posterior(at, bundle.edges)
    np.testing.assert_allclose(bundle.posterior(at, unknown, unknown), expected, atol=1e-9)


def test_pairs_keep_what_ships_and_no_more():
    """The same from table `predictions`, and from the smaller `test_pairs` made of them."""
    rng = np.random.default_rng(3)
    n = np.arange(20, 50, dtype=np.int32)
    made = recalibration.Pairs(
        *rng.uniform(13.5, 15, (2, 30)), n.astype(float), rng.uniform(0.01, 0.08, 30), np.arange(30)
    )
    first = recalibration.pairs_of(recalibration.pairs_table(made))
    again = recalibration.pairs_of(recalibration.pairs_table(first))
    order = np.argsort(made.predicted)
    for name in ("predicted", "true", "n_galaxies", "z"):
        values = getattr(first, name)
        np.testing.assert_array_equal(values, np.float32(getattr(made, name)[order]))
        np.testing.assert_array_equal(values, getattr(again, name))
