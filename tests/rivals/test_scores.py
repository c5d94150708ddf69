"""Numbers of the table of rivals, on toy predictions whose scatter, ratio and coverage are planted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from cmass.evaluate import metrics
from cmass.params import Params
from cmass.rivals.scores import (
    costs_table,
    estimators_by_scatter,
    n_seeds,
    over_seeds,
    score,
    score_rows,
    scores_table,
)
from cmass.tables import make_table

PARAMS = Params()
LIMIT = PARAMS.rivals.massive_log10_m200c
N_HALOES = 300


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    """The error of a fit needs sixty of them; here four do, its own test has more."""
    monkeypatch.setattr(metrics, "BOOTSTRAP_ROUNDS_FIT", 4)


def predictions(epsilon, below=None, seed=3, name="toy") -> pa.Table:
    """Table `rival_predictions` of two windows a halo with these residuals."""
    rng = np.random.default_rng(seed)
    n = len(epsilon)
    true = np.repeat(rng.uniform(13.5, 15.1, n // 2), 2)
    point = true - epsilon
    return make_table("rival_predictions", {
        "estimator": [name] * n, "seed": [1] * n, "cluster_id": [f"w{i:04d}" for i in range(n)],
        "halo_id": np.arange(n) // 2, "log10_m200c_true": true, "log10_m200c": point,
        "log10_m200c_p16": point - 0.2, "log10_m200c_p50": point, "log10_m200c_p84": point + 0.2,
        "probability_below_true": rng.random(n) if below is None else below,
        "crps": rng.gamma(2.0, 0.05, n), "log_score": rng.normal(0.3, 1.0, n),
        "width_68": rng.uniform(0.2, 0.6, n),
    })  # fmt: skip


def planted(seed=1, n=2 * N_HALOES):
    """Residuals of scatter 0.2 about 0.05; both windows of a halo err alike."""
    rng = np.random.default_rng(seed)
    return np.repeat(0.05 + 0.2 * rng.standard_normal(n // 2), 2)


def rows_of(table, reference=None, members=None):
    members = np.full(table.num_rows, 50) if members is None else members
    return {r["metric"]: r for r in score_rows(table, members, reference, PARAMS)}


def test_values_are_those_of_pandas():
    """Windows without a mass or a posterior are counted and touch no number but their own."""
    rng = np.random.default_rng(2)
    n = 2 * N_HALOES
    epsilon, below = planted() + 0.1 * rng.standard_normal(n), rng.beta(2, 1, n)
    epsilon[:20], below[10:50] = np.nan, np.nan
    table = predictions(epsilon, below)
    frame = table.to_pandas()
    for column in ("crps", "log_score", "width_68"):
        frame.loc[frame.probability_below_true.isna(), column] = np.nan
    table = table.from_pandas(frame, schema=table.schema, preserve_index=False)
    found = rows_of(table)
    e = frame.log10_m200c_true - frame.log10_m200c
    q = e.quantile([norm.cdf(-1), norm.cdf(1)]).to_numpy()
    inside = frame.probability_below_true.dropna().between(norm.cdf(-1), norm.cdf(1))
    u = np.abs(2 * frame.probability_below_true.dropna() - 1)
    curve = [(u <= level).mean() - level for level in np.arange(1, 40) / 40]
    expected = {
        "fitted": 1, "n_clusters": n, "n_without": 50, "epsilon_mean": e.mean(),
        "epsilon_scatter": e.std(), "epsilon_scatter_robust": (q[1] - q[0]) / 2,
        "epsilon_scatter_massive": e[frame.log10_m200c_true > LIMIT].std(),
        "coverage_68": inside.mean(), "coverage_error": np.abs(curve).max(),
        "crps": frame.crps.mean(), "log_score": frame.log_score.mean(),
        "width_68": frame.width_68.mean(),
    }  # fmt: skip
    assert expected["epsilon_mean"] > 0.02  # masses too low: positive
    for metric, value in expected.items():
        assert found[metric]["value"] == pytest.approx(value, rel=1e-9), metric
    assert "scatter_ratio" not in found


def test_errors_know_that_windows_of_a_halo_are_alike():
    """Sigma/sqrt(n) and sigma/sqrt(2n) of the haloes; as many independent windows would have 0.7 of it."""
    found = rows_of(predictions(planted()))
    for metric, error in (
        ("epsilon_mean", 0.2 / np.sqrt(N_HALOES)), ("epsilon_scatter", 0.2 / np.sqrt(2 * N_HALOES)),
    ):  # fmt: skip
        # 300 resamples give an error to 4 %, the sample's own spread 4 %
        assert found[metric]["error"] == pytest.approx(error, rel=0.2), metric
    assert [found[m]["unit"] for m in ("epsilon_mean", "log_score", "coverage_68")] == [
        "dex", "nat", "",
    ]  # fmt: skip


def test_scatter_of_massive_clusters_is_theirs():
    table = predictions(planted())
    true = table["log10_m200c_true"].to_numpy()
    quiet = predictions(planted() * np.where(true > LIMIT, 0.5, 1.0))
    found = rows_of(quiet)
    # 150 haloes: 0.1/sqrt(300) = 0.006
    assert found["epsilon_scatter_massive"]["value"] == pytest.approx(0.1, abs=0.024)
    assert found["epsilon_scatter"]["value"] > 1.2 * found["epsilon_scatter_massive"]["value"]


def test_scatter_that_falls_with_richness_is_told_apart(monkeypatch):
    monkeypatch.setattr(metrics, "BOOTSTRAP_ROUNDS_FIT", 15)
    rng = np.random.default_rng(4)
    n = 2000
    members = np.exp(rng.uniform(np.log(5), np.log(400), n)).round().astype(int)
    epsilon = np.sqrt(0.06**2 * 100 / members + 0.1**2) * rng.standard_normal(n)
    found = rows_of(predictions(epsilon), members=members)
    for metric, value in (("sigma_n", 0.06), ("sigma_0", 0.1)):
        # 2000 residuals: 0.1/sqrt(4000) = 0.0016, twice that for two parameters that share them
        assert found[metric]["value"] == pytest.approx(value, abs=0.012), metric
        assert 0.0008 < found[metric]["error"] < 0.006, metric


def test_coverage_by_chance_is_kolmogorovs_of_the_haloes():
    """Two windows with one transform are one: 1.358/sqrt(n) of the haloes, not of the windows."""
    u = np.repeat(np.random.default_rng(5).random(N_HALOES), 2)
    by_chance = rows_of(predictions(planted(), u))["coverage_error_chance"]["value"]
    limit = 1.358 / np.sqrt(N_HALOES)
    # 39 levels miss up to 0.4 of a step of 0.025; the 95 % quantile of 300 draws has an error of 4 %
    assert limit - 0.012 < by_chance < 1.12 * limit
    narrow = norm.cdf(norm.ppf(u) / 0.7)
    found = rows_of(predictions(planted(), narrow))
    assert found["coverage_error"]["value"] > 2 * found["coverage_error_chance"]["value"]
    assert found["coverage_68"]["value"] == pytest.approx(2 * norm.cdf(0.7) - 1, abs=0.11)


def test_ratio_is_of_the_windows_that_both_have():
    """Half of the reference's residuals: one half, without an error, for the same haloes are drawn."""
    epsilon = planted()
    epsilon[:100] = np.nan
    table = predictions(epsilon)
    true = table["log10_m200c_true"].to_numpy()
    reference = true - 2 * np.where(np.isfinite(epsilon), epsilon, 0.0)
    reference[-100:] = np.nan
    found = rows_of(table, reference)
    for metric in ("scatter_ratio", "scatter_robust_ratio"):
        assert found[metric]["value"] == pytest.approx(0.5, rel=1e-9), metric
        assert found[metric]["error"] == pytest.approx(0.0, abs=1e-9), metric
    noisy = reference + 0.2 * np.random.default_rng(6).standard_normal(true.size)
    found = rows_of(table, noisy)
    both = np.isfinite(epsilon) & np.isfinite(noisy)
    expected = epsilon[both].std(ddof=1) / (true - noisy)[both].std(ddof=1)
    assert found["scatter_ratio"]["value"] == pytest.approx(expected, rel=1e-9)
    # Outliers of the reference raise its standard deviation, hardly its quantiles.
    noisy[200:212] += 5
    far = rows_of(table, noisy)
    assert far["scatter_ratio"]["value"] < 0.7 * found["scatter_ratio"]["value"]
    assert far["scatter_robust_ratio"]["value"] > 0.9 * found["scatter_robust_ratio"]["value"]


def test_an_estimator_without_any_mass_has_no_numbers():
    nothing = np.full(40, np.nan)
    found = rows_of(predictions(nothing, nothing))
    assert found["n_without"]["value"] == 40
    for metric in ("epsilon_mean", "epsilon_scatter", "coverage_68"):
        assert found[metric]["value"] is None and found[metric]["error"] is None
    assert "coverage_error_chance" not in found


def unit(name, table, number=1, **card):
    return SimpleNamespace(
        name=name, number=number, predictions=lambda: table, card=lambda: {"note": "", **card}
    )


def test_the_reference_is_matched_by_cluster():
    """Another order of windows changes nothing; what is not fitted has one row."""
    epsilon = planted(n=200)
    plain, own = predictions(2 * epsilon, name="dispersion"), predictions(epsilon)
    members = dict.fromkeys(own["cluster_id"].to_pylist(), 50)
    order = np.random.default_rng(7).permutation(200)
    units = [unit("dispersion", plain), unit("toy", own.take(pa.array(order))),
             unit("flow", None)]  # fmt: skip
    table = scores_table(units, {"flow": "no flowjax"}, members, PARAMS)
    (value,), (error,) = score(table, "toy", "scatter_ratio")
    assert (value, error) == pytest.approx((0.5, 0.0), abs=1e-9)
    assert score(table, "dispersion", "scatter_ratio")[0].tolist() == [1.0]
    assert score(table, "flow", "fitted")[0].tolist() == [0.0]
    assert score(table, "flow", "epsilon_scatter")[0].size == 0
    assert estimators_by_scatter(table) == ["toy", "dispersion"]
    without = scores_table(units, {"flow": "", "dispersion": "broken"}, members, PARAMS)
    assert score(without, "toy", "scatter_ratio")[0].size == 0
    costs = costs_table(units, {"flow": "no flowjax"}).to_pylist()
    assert [row["fitted"] for row in costs] == [True, True, False]
    assert costs[2]["note"] == "no flowjax"


def seeds_table(**values):
    """Table `rival_scores` of the scatter of estimators by seed, in mixed order."""
    rows = [(name, k, v) for name, all_ in values.items() for k, v in enumerate(all_, 1)][::-1]
    names, numbers, found = zip(*rows, strict=True)
    n = len(rows)
    return make_table("rival_scores", {
        "estimator": names, "seed": numbers, "metric": ["epsilon_scatter"] * n, "value": found,
        "error": [0.01] * n, "unit": ["dex"] * n,
    })  # fmt: skip


def test_seeds_of_an_estimator_and_their_mean():
    table = seeds_table(poor=[0.09, 0.35], good=[0.2, 0.15, 0.1], none=[None])
    assert score(table, "good", "epsilon_scatter")[0].tolist() == [0.2, 0.15, 0.1]
    # 0.15 and 0.22 are the means; neither its best seed nor its first is what an estimator is worth.
    assert over_seeds(*score(table, "good", "epsilon_scatter"))[0] == pytest.approx(0.15)
    assert estimators_by_scatter(table) == ["good", "poor"]
    assert [n_seeds(table, name) for name in ("poor", "good", "none")] == [2, 3, 1]


def test_error_over_seeds_is_that_of_the_mean_and_never_below_the_windows():
    """Seeds that scatter by s: s/sqrt(n) beside the windows' error, which does not fall with n."""
    rng = np.random.default_rng(8)
    for n in (2, 5, 50):
        values = 0.2 + 0.03 * rng.standard_normal(n)
        mean, error = over_seeds(values, np.full(n, 0.01))
        spread = np.sqrt(((values - values.mean()) ** 2).sum() / (n - 1))
        assert mean == pytest.approx(values.mean())
        assert error == pytest.approx(np.sqrt(0.01**2 + spread**2 / n))
    # Four alike: the windows alone. One seed says nothing of seeds.
    assert over_seeds(np.full(4, 0.2), np.full(4, 0.01)) == pytest.approx((0.2, 0.01))
    assert over_seeds(np.array([0.2]), np.array([np.nan])) == (0.2, None)
    # A seed that was not judged is none: the other two decide, with their own windows.
    some = over_seeds(np.array([0.2, np.nan, 0.24]), np.array([0.01, 9.0, 0.03]))
    assert some == pytest.approx((0.22, np.hypot(0.02, 0.02)))
