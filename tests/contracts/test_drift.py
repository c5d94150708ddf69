"""Drift between releases: what stops, what is explained, what is accepted; the limits in numbers."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from cmass.columns import FLAGS
from cmass.contracts import drift
from cmass.contracts.drift import ACCEPTED, BEYOND, EXPLAINED, WITHIN
from cmass.errors import ParameterError
from cmass.params import DriftParams, Params, load_params
from cmass.tables import make_table

LIMITS = DriftParams()
NOTHING = {"parameters": [], "sources": [], "model": []}


def release(n=750, seed=1, shift=0.0, noise=0.0, richness=1.0, without=0, prefix="C"):
    """Tables `masses` and `clusters` of a release like that of SDSS: masses 14.15 ± 0.33."""
    rng = np.random.default_rng(seed)
    ra, dec, z = rng.uniform(120, 250, n), rng.uniform(0, 60, n), rng.uniform(0.02, 0.085, n)
    mass = rng.normal(14.15, 0.33, n)
    counts = (richness * 150 * 10 ** (0.6 * (mass - 14.15))).astype(int) + 4
    point = mass + shift + noise * np.random.default_rng(7).standard_normal(n)
    point[:without] = np.nan
    flag = np.where(np.isnan(point), FLAGS["too_few_galaxies"].value, 0)
    names = [f"{prefix}-{i:04d}" for i in range(n)]
    columns = {
        "cluster_id": names, "ra": ra, "dec": dec, "z": z, "n_galaxies": counts,
        "log10_m200c": point, "flag": flag,
        **dict.fromkeys(
            ("log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84", "log10_m200c_hmf_p16",
             "log10_m200c_hmf_p50", "log10_m200c_hmf_p84", "log10_m200c_dispersion"), point),
        **dict.fromkeys(("sigma_minus", "sigma_plus", "outlier_distance", "outlier_p",
                         "second_peak", "second_peak_p"), np.full(n, np.nan)),
        "posterior": [[] for _ in range(n)],
    }  # fmt: skip
    clusters = {
        "cluster_id": names, "ra": ra, "dec": dec, "z": z, "distance_mpc_h": 3000 * z,
        "n_galaxies": counts, "log10_m200_galweight": mass,
        "log10_m200_galweight_err": np.full(n, 0.1), "flag": flag,
    }  # fmt: skip
    return {"masses": make_table("masses", columns), "clusters": make_table("clusters", clusters)}


def verdicts(now, last, causes=NOTHING, limits=LIMITS, survey="sdss"):
    found = drift.figures(now, last, limits)
    return {f.name: f.verdict for f in drift.judge(found, survey, "2026.01.01-0", causes, limits)}


def beyond(found):
    return {name for name, verdict in found.items() if verdict == BEYOND}


@pytest.mark.parametrize("n, m", [(40, 50), (750, 760)])
def test_the_distance_is_that_of_kolmogorov_and_smirnov(n, m):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=n).round(1), rng.normal(0.3, 1, m).round(1)  # with ties
    assert drift.distance(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
    assert drift.distance([*a, np.nan], b) == drift.distance(a, b)
    assert np.isnan(drift.distance([], b))


def test_the_same_release_again_does_not_drift():
    found = drift.figures(release(), release(), LIMITS)
    assert {f.value for f in found} == {0.0}
    assert {f.name for f in found} == {
        "n_clusters", "ks_z", "ks_n_galaxies", "ks_log10_m200_galweight", "ks_log10_m200c", "no_mass",
        "flagged", "mass_shift", "mass_scatter",
    }  # fmt: skip


def test_chance_alone_stops_one_pair_of_releases_in_hundreds():
    """Other clusters of the same kind: four distances, each beyond its limit by chance once in 1000."""
    stopped = [
        beyond(verdicts(release(seed=k, prefix="A"), release(seed=k + 1000, prefix="B")))
        for k in range(150)
    ]
    # 4 x 0.001 x 150 = 0.6 expected; above 4 once in 3000 sessions
    assert sum(bool(names) for names in stopped) <= 4


def test_limits_in_numbers():
    """What 0.1 dex and 0.05 dex in the masses of 750 clusters of scatter 0.33 dex look like."""
    last = release()
    found = {f.name: f for f in drift.figures(release(shift=0.1), last, LIMITS)}
    # 2 Phi(0.05 / 0.33) - 1 = 0.120 for two normal distributions; of 750 clusters 0.02 more or less
    assert found["ks_log10_m200c"].value == pytest.approx(0.120, abs=0.02)
    assert found["ks_log10_m200c"].verdict == BEYOND
    found = {f.name: f for f in drift.figures(release(shift=0.045), last, LIMITS)}
    assert {f.verdict for f in found.values()} == {WITHIN}
    # a shift that the distribution hardly shows is plain where the same clusters are compared
    found = {f.name: f for f in drift.figures(release(shift=0.06), last, LIMITS)}
    assert found["ks_log10_m200c"].verdict == WITHIN
    assert (found["mass_shift"].value, found["mass_shift"].verdict) == (pytest.approx(0.06), BEYOND)


@pytest.mark.parametrize(
    "change, names",
    [
        ({"noise": 0.2}, {"mass_scatter"}),
        ({"noise": 0.1}, set()),  # two trainings of one network
        ({"richness": 1.3}, {"ks_n_galaxies"}),
        ({"without": 60}, {"no_mass", "flagged"}),
        ({"n": 650}, {"n_clusters"}),
        ({"n": 740}, set()),
    ],
)
def test_each_drift_is_named(change, names):
    whole = {k: v.slice(0, change["n"]) for k, v in release().items()} if "n" in change else None
    assert beyond(verdicts(whole or release(**change), release())) == names


def test_parameters_explain_the_sample_and_not_the_masses():
    causes = NOTHING | {"parameters": ["train.epochs", "window.distance_max_mpc_h"]}
    found = verdicts(release(n=600, shift=0.2), release(), causes)
    # the clusters are not the same, so that none is compared with itself
    assert found["n_clusters"] == found["ks_log10_m200c"] == EXPLAINED
    assert beyond(found) == set()
    some = {k: v.slice(0, 600) for k, v in release(shift=0.2).items()}
    assert beyond(verdicts(some, release(), causes)) == {"mass_shift"}
    # a mirror, the training: no reason for other clusters
    causes = NOTHING | {"parameters": ["train.epochs"], "sources": ["clusters"]}
    assert "n_clusters" in beyond(verdicts(some, release(), causes))
    # mock parameters make another sky for the embedded survey, not for SDSS
    causes = NOTHING | {"parameters": ["mock.galaxies.flux_limit_mag"]}
    rich = release(richness=1.3)
    assert verdicts(rich, release(), causes, survey="embedded")["ks_n_galaxies"] == EXPLAINED
    assert verdicts(rich, release(), causes, survey="sdss")["ks_n_galaxies"] == BEYOND


def test_acceptance_is_for_one_release_and_has_a_reason():
    other = {"accept_since": "2025.12.31-9", "accept_reason": "retrained with deeper mocks"}
    now = release(shift=0.2)
    assert beyond(verdicts(now, release(), limits=DriftParams(**other)))
    mine = DriftParams(**(other | {"accept_since": "2026.01.01-0"}))
    found = verdicts(now, release(), limits=mine)
    assert not beyond(found) and found["mass_shift"] == ACCEPTED
    with pytest.raises(ValueError, match="accept_since needs an accept_reason"):
        DriftParams(accept_since="2026.01.01-0")


def test_the_file_names_the_parameter(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("contracts: {drift: {accept_since: '2026.01.01-0', accept_reason: ok}}\n")
    with pytest.raises(ParameterError, match="contracts.drift: accept_since needs"):
        load_params(file)


def test_clusters_are_the_same_by_name_and_place():
    last = release()
    moved = {k: v.set_column(1, "ra", [[x + 1 for x in v["ra"].to_pylist()]])
             for k, v in release(shift=0.3).items()}  # fmt: skip
    assert drift.changes(moved["masses"], last["masses"]).size == 0
    assert drift.changes(release(shift=0.3)["masses"], last["masses"]) == pytest.approx(0.3)
    assert drift.changes(release(prefix="D")["masses"], last["masses"]).size == 0


def test_few_clusters_are_granted_chance():
    """Of 30 clusters no distance below 0.5 is a drift, and masses that scatter by 0.3 may shift by 0.2."""
    found = {f.name: f for f in drift.figures(release(30, noise=0.3), release(30), LIMITS)}
    assert found["ks_z"].limit == pytest.approx(1.95 * np.sqrt(2 / 30))
    assert 0.15 < found["mass_shift"].limit < 0.3
    assert found["mass_scatter"].verdict == BEYOND  # scatter itself is no matter of chance


def test_what_changed_behind_a_release():
    base = Params().model_dump(mode="json")
    other = Params.model_validate(
        {"train": {"epochs": 9}, "publish": {"keep": 2}, "workers": 7, "mirror": "x"}
    ).model_dump(mode="json")
    source = {"products": {"clusters": {"sha256": "a", "rows": 3}, "galaxies": {"sha256": "b"}}}
    then = {"products": {"clusters": {"sha256": "c", "rows": 3}, "galaxies": {"sha256": "b"}}}
    found = drift.differences(
        {"parameters": other, "sources": source, "model": {"weights_sha256": "1", "n": 1}},
        {"parameters": base, "sources": then, "model": {"weights_sha256": "2", "n": 2}},
    )
    assert found == {
        "parameters": ["train.epochs"], "sources": ["clusters"], "model": ["weights_sha256"],
    }  # fmt: skip
    figures = drift.judge(
        drift.figures(release(shift=0.2), release(), LIMITS), "sdss", "2026.01.01-0", found, LIMITS
    )
    words = drift.message(figures, "2026.01.01-0", found)
    for part in ("2026.01.01-0", "median change +0.200 dex", "the limit is 0.05 (contracts.drift.mass_shift",
                 "train.epochs", "sources: clusters", "accept_since: 2026.01.01-0"):  # fmt: skip
        assert part in words
