"""Studies beyond the paper: their numbers have independent references, their work is resumed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from cmass import cli, mock, posterior, study
from cmass.columns import TABLES
from cmass.errors import InputError, ParameterError
from cmass.estimators.windows import Windows
from cmass.evaluate.metrics import Bootstrap
from cmass.evaluate.scores import effective_number
from cmass.mass_function import mass_function
from cmass.mock.haloes import plan_haloes
from cmass.networks import training
from cmass.params import Params
from cmass.rivals.units import plan as plan_rivals
from cmass.study import (
    documents,
    ensemble,
    fibres,
    leak,
    learning,
    priors,
    scores,
    sensitivity,
    sightlines,
    units,
)
from cmass.tables import make_table, read_table, write_json
from cmass.workspace import Workspace
from tests import tiny
from tests.study.test_study import small_params

pytestmark = pytest.mark.xdist_group("tensorflow")

DOCS = Path(__file__).parents[2] / "docs" / "science.md"


def predictions(halo: np.ndarray, true: np.ndarray, point: np.ndarray, below=None):
    """Table `study_predictions`; the windows of a halo are numbered."""
    seen: dict[int, int] = {}
    ids = []
    for h in halo.tolist():
        seen[h] = seen.get(h, -1) + 1
        ids.append(f"mock-{h:06d}-{seen[h]:02d}")
    half = np.full(len(true), 0.5)
    return make_table("study_predictions", {
        "cluster_id": ids, "log10_m200c_true": true, "log10_m200c": point,
        "log10_m200c_p16": point - 0.2, "log10_m200c_p50": point, "log10_m200c_p84": point + 0.2,
        "probability_below_true": half if below is None else below,
    })  # fmt: skip


# -------------------------------------------------------------------------------------- scores


def test_scores_are_those_of_pandas_and_resample_haloes():
    rng = np.random.default_rng(1)
    halo = np.repeat(np.arange(200), 10)
    true = np.repeat(rng.uniform(13.5, 15, 200), 10)
    own = np.repeat(0.2 * rng.standard_normal(200), 10)  # all windows of a halo err alike
    table = predictions(halo, true, true - own, rng.random(2000))
    got = scores.scores(table, 3)
    assert scores.halo_ids(table["cluster_id"]).tolist() == halo.tolist()
    frame = table.to_pandas()
    e = frame.log10_m200c_true - frame.log10_m200c
    assert got["epsilon_mean"] == pytest.approx(e.mean(), abs=1e-12)
    assert got["epsilon_scatter"] == pytest.approx(e.std(), rel=1e-9)
    inside = frame.probability_below_true.between(norm.cdf(-1), norm.cdf(1)).mean()
    assert got["coverage_68"] == pytest.approx(inside)
    # 200 independent haloes: σ/√(2·200) = 0.05 σ; with 2000 windows it would be a third. The
    # bootstrap of 300 rounds knows it to 4 %, and the sample's kurtosis to 20 %
    assert got["epsilon_scatter_error"] == pytest.approx(0.05 * own.std(), rel=0.3)
    assert got["epsilon_mean_error"] == pytest.approx(own.std() / np.sqrt(200), rel=0.2)


def test_a_change_of_scatter_is_paired():
    """Common errors cancel: the error of the change is that of what is added."""
    rng = np.random.default_rng(2)
    n = 3000
    halo, true = np.arange(n), rng.uniform(13.5, 15, n)
    common, more = 0.2 * rng.standard_normal(n), 0.05 * rng.standard_normal(n)
    before = predictions(halo, true, true - common)
    after = predictions(halo, true, true - common - more).slice(100)  # some windows are lost
    change, error = scores.scatter_change(before, after, 1)
    a, b = common[100:], (common + more)[100:]
    assert change == pytest.approx(b.std(ddof=1) - a.std(ddof=1), abs=1e-12)
    unpaired = 0.2 / np.sqrt(2 * n) * np.sqrt(2)
    # Var(b² − a²) ≈ Var(2 common·more): error 0.2·0.05·2/(2·0.2·√n) = 0.05/√n
    assert error == pytest.approx(0.05 / np.sqrt(n), rel=0.25)
    assert error < 0.4 * unpaired


def test_mean_over_seeds_takes_the_larger_error():
    mean, error = documents.mean_and_error({1: 1.0, 2: 1.2}, {1: 0.3, 2: 0.4})
    assert mean == pytest.approx(1.1)
    assert error == pytest.approx(np.sqrt((0.09 + 0.16) / 2 / 2))  # windows
    mean, error = documents.mean_and_error({1: 1.0, 2: 3.0}, {1: 0.1, 2: 0.1})
    assert error == pytest.approx(1.0)  # seeds: std(1, 3)/√2
    assert np.isnan(documents.mean_and_error({1: np.nan}, {1: np.nan})[0])
    assert documents.value_cell(-0.01234, 0.002, sign=True) == "−0.012 ± 0.002"
    assert documents.value_cell(None) == "–"


# ------------------------------------------------------------------------------------ learning


def test_the_fit_finds_a_power_law_and_its_floor():
    n = np.array([250, 500, 1000, 2000, 4000, 8000])
    truth = (0.18, 0.10, 0.6)
    assert learning.fit_power_law(n, learning.power_law(n, *truth)) == pytest.approx(
        truth, rel=1e-3
    )
    # a pure power law has no floor
    floor, _, slope = learning.fit_power_law(n, 0.3 * (n / 1000) ** -0.25)
    assert floor == pytest.approx(0, abs=0.01)
    assert slope == pytest.approx(0.25, abs=0.01)


def test_parts_of_the_training_set_are_nested():
    halo = np.repeat(np.arange(50), 3)
    halo[:6] = -1
    small, large = units._part(halo, 20, 5), units._part(halo, 60, 5)
    assert small.sum() == 20
    assert large.sum() == 60
    assert (large | ~small).all()
    assert not large[:6].any()
    # whole haloes, but for the last
    _, counts = np.unique(halo[large], return_counts=True)
    assert (counts == 3).sum() >= 19
    assert (units._part(halo, 60, 6) != large).any()


# ---------------------------------------------------------------------------------------- leak


def test_large_haloes_fill_sets_and_are_in_one():
    halo = np.repeat(np.arange(30), np.arange(30) % 4 + 8)
    sizes = {"train": 80, "test": 50, "evaluation": 40}
    sets = units.deal_large_haloes(halo, sizes, 3)
    for name, size in sizes.items():
        assert size <= (sets == name).sum() < size + 11  # one halo more at most
    assert all(len(set(sets[halo == h])) == 1 for h in range(30))
    cut = units._cut(sets, sizes)
    assert {n: int((cut == n).sum()) for n in sizes} == sizes
    assert ((cut == sets) | (cut == "")).all()
    with pytest.raises(InputError, match="evaluation is short"):
        units.deal_large_haloes(halo, {**sizes, "evaluation": 300}, 3)


def test_haloes_of_all_masses_have_ten_sight_lines_at_least():
    params = Params()
    haloes = leak.everywhere(params).model_copy(update={"n_windows": 2000})
    changed = params.mock.model_copy(update={"haloes": haloes})
    plans = plan_haloes(params.model_copy(update={"mock": changed}))
    counts = [p.n_sight_lines for p in plans]
    assert 10 <= min(counts[:-1]) <= 11  # the last halo has what is left
    assert max(counts) == 25
    paper = leak.as_in_the_paper(params)
    assert (paper.sight_lines_max, paper.log10_m200c_many_sight_lines) == (25, 14.3)


# ------------------------------------------------------------------------------------ ensemble


def test_the_decomposition_finds_both_parts():
    """4 networks, 20 000 windows: shared errors of 0.2 dex, own ones of 0.1."""
    rng = np.random.default_rng(4)
    shared = 0.2 * rng.standard_normal(20_000)
    residuals = shared + 0.1 * rng.standard_normal((4, 20_000)) + [[0.3], [-0.1], [0.0], [0.2]]
    own, common = ensemble.decompose(residuals)
    assert own == pytest.approx(0.1, rel=0.02)  # 1/√(2·3·20000) = 0.3 %
    assert common == pytest.approx(0.2, rel=0.02)  # 1/√(2·20000) = 0.5 %
    halo = np.arange(20_000) // 2
    rows, spreads = ensemble.rows_of(residuals[:, :4000], halo[:4000], "study", 1)
    assert [r["n_networks"] for r in rows] == [1, 2, 3, 4]
    expected = np.sqrt(0.2**2 + 0.1**2 / np.arange(1, 5))
    assert [r["epsilon_scatter"] for r in rows] == pytest.approx(expected, rel=0.04)
    last = rows[-1]
    assert abs(last["network_scatter"] - 0.1) < 4 * last["network_scatter_error"] < 0.01
    assert abs(last["common_scatter"] - 0.2) < 4 * last["common_scatter_error"] < 0.03
    # spread that knows nothing of the error
    assert abs(last["spread_error_correlation"]) < 4 * last["spread_error_correlation_error"]
    assert sum(s["n_evaluation"] for s in spreads) == 4000


def test_a_spread_that_knows_the_error_is_seen():
    rng = np.random.default_rng(5)
    size = rng.uniform(0.05, 0.4, 3000)
    residuals = size * rng.standard_normal(3000) + size * rng.standard_normal((5, 3000))
    rows, spreads = ensemble.rows_of(residuals, np.arange(3000), "study", 1)
    assert rows[-1]["spread_error_correlation"] > 0.3
    scatter = [s["epsilon_scatter"] for s in spreads]
    assert scatter[-1] > 2 * scatter[0]


def test_networks_of_the_run_are_those_of_the_rivals(tiny_run, tmp_path):
    """The step's, and one of the study: a doubled, a half-made and a stale unit are not."""
    workspace, params = tiny_run
    shutil.copytree(workspace.root, tmp_path / "data")
    place = replace(workspace, root=tmp_path / "data")
    assert ensemble.networks_of_the_run(place, params) is None  # one network is no ensemble
    (own,) = (u for u in plan_rivals(place, params) if u.name == "cnn3d")
    only = params.model_copy(
        update={"rivals": params.rivals.model_copy(update={"estimators": ("cnn3d",)})}
    )
    (other,) = plan_rivals(place, only, (2,))
    for target, card in (
        (other.folder, {"identity": other.identity}),
        (place.study / "rivals" / "cnn3d-1", {"identity": own.identity}),
        (place.study / "rivals" / "cnn3d-3", {"identity": "of other parameters"}),
    ):
        shutil.copytree(own.folder, target)
        write_json(target / "unit.json", card)
    shutil.copytree(own.folder, place.study / "rivals" / "cnn3d-4")
    (place.study / "rivals" / "cnn3d-4" / "unit.json").unlink()
    found = ensemble.networks_of_the_run(place, params)
    assert found is not None
    assert len(found[0]) == 2  # seeds 1 and 2
    tables = ensemble.tables([], place, params)
    assert {r["source"] for r in tables["ensemble"].to_pylist()} == {"run"}
    assert "networks of the run's size" in ensemble.markdown(tables)


def test_a_study_of_the_runs_network_is_of_that_network_only(tiny_run, tmp_path):
    workspace, params = tiny_run
    shutil.copytree(workspace.root, tmp_path / "data")
    place, one = replace(workspace, root=tmp_path / "data"), study.open_study("priors")
    assert not study.is_current(one, place, params)
    study.run_study("priors", place, params)
    assert study.is_current(one, place, params)
    weights = place.model / "cnn3d.weights.h5"
    weights.write_bytes(weights.read_bytes() + b"another")
    assert not study.is_current(one, place, params)


# ---------------------------------------------------------------------------------- sight lines


@pytest.mark.parametrize("within", [0.15, 0.05])
def test_scatter_is_told_apart_by_sight_line_and_halo(within):
    """600 haloes of 20 windows, some lost: 0.12 dex by the halo, a trend with mass besides."""
    rng = np.random.default_rng(6)
    halo = np.repeat(np.arange(600), 20)
    mass = np.repeat(rng.uniform(13.5, 15.1, 600), 20)
    e = np.repeat(0.12 * rng.standard_normal(600), 20) + within * rng.standard_normal(12_000)
    e += 0.2 * (mass - 14.3) + 0.05
    kept = rng.random(12_000) < 0.9
    got = sightlines.components(e[kept], halo[kept], mass[kept])
    assert got.within == pytest.approx(within, rel=0.03)  # 1/√(2·10000) = 0.7 %
    assert got.between == pytest.approx(0.12, rel=0.1)  # 1/√(2·600) = 2.9 %
    fraction = within**2 / (within**2 + 0.12**2)
    assert got.within_fraction == pytest.approx(fraction, abs=0.06)


def test_no_scatter_by_the_halo_is_zero_and_single_windows_say_nothing():
    rng = np.random.default_rng(7)
    got = sightlines.components(rng.standard_normal(5000), np.arange(5000) // 50, np.zeros(5000))
    assert got.between < 0.1  # of 1: √(1/50/√(100)) is one sigma
    assert np.isnan(sightlines.components([1.0, 2, 3], [0, 1, 2], [14.0, 14, 14]).within)


def test_every_halo_has_all_sight_lines_and_is_new():
    params = small_params()
    params = params.model_copy(update={"study": Params().study})
    plans = plan_haloes(sightlines.simulator(params))
    assert {p.n_sight_lines for p in plans} == {25}
    assert len(plans) == 200
    assert sightlines.simulator(params).seed != params.seed


# --------------------------------------------------------------------------------------- fibres


def windows(*clouds, z=0.05) -> Windows:
    counts = [len(c) for c in clouds]
    n = len(clouds)
    return Windows(
        [f"mock-{i:06d}-00" for i in range(n)], np.concatenate(clouds).astype(float),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), np.full(n, z),
        np.full(n, 14.0), np.arange(n),
    )  # fmt: skip


def test_core_and_pairs_within_55_arcsec_are_dropped():
    """At z = 0.05 55 arcsec are 0.0388 Mpc/h by astropy with q0 = -0.55 (Ωm = 0.3)."""
    from astropy.cosmology import FlatLambdaCDM

    arcsec = FlatLambdaCDM(100, 0.3).kpc_proper_per_arcmin(0.05).value / 1000 / 60
    far = [
        [1.0, 1.0, 0],
        [1.0 + 54 * arcsec, 1.0, 900],
        [1.0, -1.0, 0],
        [1.0 + 56 * arcsec, -1.0, 5],
    ]
    own = windows(np.array([[54 * arcsec, 0, 10], [0, 56 * arcsec, 20], *far]), np.array(far))
    core = fibres.keep_core_out(own, 55.0, -0.55)
    assert core.tolist() == [False] + 9 * [True]
    kept = fibres.keep_one_of_pairs(own, 55.0, -0.55, 1)
    # the first two are 78 arcsec apart; of each pair 54 arcsec apart one is left
    assert kept[[0, 1, 4, 5, 8, 9]].all()
    assert kept[[2, 3]].sum() == kept[[6, 7]].sum() == 1
    left = fibres.only(own, kept)
    assert left.n_galaxies.tolist() == [5, 3]
    assert left.cloud(1)[-1].tolist() == own.cloud(1)[-1].tolist()


# --------------------------------------------------------------------------------------- priors


@pytest.fixture(scope="module")
def toy():
    """Masses 13-15, estimates with 0.3 dex of noise; exact posteriors for two populations."""
    rng = np.random.default_rng(8)
    edges = np.linspace(13, 15, 201)
    centres = 0.5 * (edges[1:] + edges[:-1])
    true = rng.uniform(13, 15, 6000)
    seen = true + 0.3 * rng.standard_normal(6000)
    likelihood = norm.pdf(seen[:, None], centres, 0.3)
    steep = 10 ** (-2 * (centres - 13))
    flat = likelihood / likelihood.sum(axis=1, keepdims=True)
    hmf = likelihood * steep
    return (
        true,
        edges,
        centres,
        flat,
        hmf / hmf.sum(axis=1, keepdims=True),
        10 ** (-2 * (true - 13)),
    )


def test_each_posterior_is_calibrated_on_its_own_population_only(toy):
    true, edges, centres, flat, hmf, weight = toy
    bootstrap = Bootstrap(np.arange(true.size), np.random.default_rng(9))
    everywhere = np.ones(true.size, bool)

    def judged(p, w):
        transform = posterior.cumulative_at(p, edges, true)
        return priors.numbers(transform, true - p @ centres, w, bootstrap, everywhere)

    even = np.ones(true.size)
    for p, w in ((flat, even), (hmf, weight)):
        got = judged(p, w)
        for name, level in (("coverage_68", 0.6827), ("coverage_95", 0.9545), ("bias", 0.0)):
            assert abs(got[name] - level) < 4 * got[f"{name}_error"]
    crossed = judged(flat, weight)
    assert crossed["bias"] < -10 * crossed["bias_error"]  # a flat prior overestimates steep masses
    assert abs(judged(hmf, even)["bias"]) > 0.1
    # ten windows of which one counts ten times: (1·10 + 9)²/(100 + 9)
    assert effective_number([10.0] + 9 * [1.0]) == pytest.approx(19**2 / 109)
    assert judged(hmf, weight)["n_effective"] == pytest.approx(
        weight.sum() ** 2 / (weight**2).sum()
    )


def test_bins_of_predicted_mass_are_unbiased(toy):
    """The tower rule: truth less the posterior's mean is zero on average at any predicted mass."""
    true, edges, centres, flat, _, _ = toy
    mean = flat @ centres
    bootstrap = Bootstrap(np.arange(true.size), np.random.default_rng(9))
    transform = posterior.cumulative_at(flat, edges, true)
    low = priors.numbers(transform, true - mean, np.ones(true.size), bootstrap, mean < 13.4)
    assert abs(low["bias"]) < 4 * low["bias_error"]
    assert low["n_evaluation"] == (mean < 13.4).sum()


def test_the_priors_of_a_run(tiny_run):
    workspace, params = tiny_run
    table = priors.STUDY.tables([], workspace, params)["priors"]
    rows = {(r["prior"], r["population"], r["bin"]): r for r in table.to_pylist()}
    for pair in (("flat", "flat"), ("mass function", "mass function"), ("flat", "mass function")):
        assert (*pair, "all") in rows
    flat = rows["flat", "flat", "all"]
    assert flat["n_effective"] == pytest.approx(flat["n_evaluation"])
    steep = rows["mass function", "mass function", "all"]
    assert steep["n_effective"] < 0.7 * steep["n_evaluation"]
    assert ("mass function", priors.universe(params), "all") in rows
    # The windows are flat in log mass, so each weighs as many haloes as there are of its mass;
    # the shape of the mass function hardly knows of the redshift, and 128 bins blur it little
    judged = read_table(workspace.evaluation / "predictions.parquet", "predictions").to_pandas()
    grid = read_table(workspace.posterior / "posterior_grid.parquet", "posterior_grid").to_pandas()
    true = judged.log10_m200c_true.to_numpy()
    low, high = grid.log10_m200c_low.min(), grid.log10_m200c_high.max()
    weight = mass_function(true[(true >= low) & (true <= high)], 0.05, params.cosmology)
    assert steep["n_effective"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum(), rel=0.1)
    calibration = read_table(
        workspace.evaluation / "calibration.parquet", "calibration"
    ).to_pylist()
    known = next(
        r["value"] for r in calibration if (r["metric"], r["bin"]) == ("coverage_68", "all")
    )
    # the step evaluate counts truths beyond the prior's edges too: 2 of 100 at most
    assert flat["coverage_68"] == pytest.approx(known, abs=0.03)
    assert "mass function" in priors.markdown({"priors": table})
    assert len(priors.draw({"priors": table}).axes) == 2


# ----------------------------------------------------------------------------- whole, in small


def tiny_params() -> Params:
    params = small_params()
    sizes = {
        "learning_sizes": (22, 26, 30, 36), "evaluation_large": 14, "ensemble_size": 2,
        "sight_line_haloes": 8, "sight_lines": 3, "fibre_windows": 10,
    }  # fmt: skip
    return params.model_copy(update={"study": params.study.model_copy(update=sizes)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with an embedded survey."""
    workspace = Workspace(tmp_path_factory.mktemp("beyond"), "smoke", "embedded")
    tiny.survey(workspace, tiny_params())
    return workspace


@pytest.mark.slow
def test_learning_curve(place, monkeypatch):
    params = tiny_params()
    result = study.run_study("learning", place, params, seeds=(1,))
    rows = result.table.to_pylist()
    assert [r["n_train"] for r in rows] == [22, 26, 30, 36]
    folder = place.study / "small"
    for row in rows:
        unit_folder = folder / f"learning_{row['n_train']}-1"
        split = read_table(unit_folder / "split" / "split.parquet", "split").to_pandas()
        counts = split["set"].value_counts()
        assert counts["train"] + counts["validation"] == row["n_train"]
        history = read_table(unit_folder / "model" / "history.parquet", "training_history")
        assert history.num_rows == row["epochs"]  # none stopped early here
        assert 0 < row["n_learned"] <= row["n_train"]
        own = read_table(unit_folder / "own.parquet", "study_predictions").to_pandas()
        assert row["epsilon_scatter"] == pytest.approx(
            (own.log10_m200c_true - own.log10_m200c).std(), rel=1e-9
        )
    judged = [set(split_of(folder / f"learning_{n}-1", "evaluation")) for n in (22, 36)]
    assert judged[0] == judged[1]
    trained = [set(split_of(folder / f"learning_{n}-1", "train")) for n in (22, 36)]
    assert trained[0] < trained[1]
    # as many steps for each: 36 windows once, 22 twice
    assert [r["epochs"] for r in rows] == [2, 2, 2, 1]
    assert not list((place.study / "mocks").glob("*"))  # shared mocks are gone
    assert not list(folder.rglob("shard-*"))
    assert result.picture.exists()
    assert result.picture.with_suffix(".pdf").exists()
    assert "Fit: scatter" in result.markdown
    assert [r["metric"] for r in result.tables["learning_fit"].to_pylist()][-1] == "at_17000"
    one = study.open_study("learning")
    assert set(result.tables) == set(one.products)
    assert study.is_current(one, place, params)
    other = params.model_copy(update={"train": params.train.model_copy(update={"beta_1": 0.8})})
    assert not study.is_current(one, place, other)  # the figure would be of other networks
    # nothing is made twice; a lost unit alone is made again, with mocks of its own
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("unit.json")}
    shutil.rmtree(folder / "learning_26-1")
    again = study.run_study("learning", place, params, seeds=(1,))
    after = {f: f.stat().st_mtime_ns for f in folder.rglob("unit.json")}
    assert {f.parent.name for f in after if after[f] != before[f]} == {"learning_26-1"}
    assert again.table.equals(result.table)


def split_of(folder: Path, name: str) -> list[str]:
    split = read_table(folder / "split" / "split.parquet", "split").to_pandas()
    return split.cluster_id[split["set"] == name].tolist()


def test_leak(place, monkeypatch):
    monkeypatch.setattr(leak, "_KINDS", {"many": leak._KINDS["many"]})
    params = tiny_params()
    # A test set of one halo would have no prior.
    params = params.model_copy(update={"study": params.study.model_copy(update={"test": 45})})
    result = study.run_study("leak", place, params, seeds=(1,))
    rows = {(r["split_by"], r["judged_on"]): r for r in result.table.to_pylist()}
    assert set(rows) == {(a, b) for a in ("window", "halo") for b in (leak.OWN, leak.FRESH)}
    folder = place.study / "small"
    shared = {}
    for way in ("window", "halo"):
        split = read_table(folder / f"leak_many_{way}-1" / "split" / "split.parquet", "split")
        frame = split.to_pandas()
        assert (frame["set"] == "evaluation").sum() <= 14
        of_set = {n: set(frame.halo_id[frame["set"] == n]) for n in ("train", "evaluation")}
        shared[way] = of_set["train"] & of_set["evaluation"]
    assert not shared["halo"]
    assert shared["window"]
    # both are judged on the same fresh windows, of another seed
    fresh = [read_table(folder / f"leak_many_{w}-1" / "fresh.parquet", "study_predictions")
             for w in ("window", "halo")]  # fmt: skip
    assert fresh[0]["cluster_id"].equals(fresh[1]["cluster_id"])
    assert not fresh[0]["log10_m200c"].equals(fresh[1]["log10_m200c"])
    one = next(r for r in leak.by_split(result.table) if r["split_by"] == "window")
    own, far = rows["window", leak.OWN], rows["window", leak.FRESH]
    assert one["leak"][0] == pytest.approx(far["epsilon_scatter"] - own["epsilon_scatter"])
    assert one["leak"][1] == pytest.approx(
        np.hypot(far["epsilon_scatter_error"], own["epsilon_scatter_error"])
    )
    assert result.markdown.count("\n") == 3


def test_sensitivity(place, monkeypatch):
    chosen = {n: sensitivity.VARIATIONS[n] for n in ("kappa_0.20", "window_1.6", "window_6")}
    monkeypatch.setattr(sensitivity, "VARIATIONS", chosen)
    result = study.run_study("sensitivity", place, tiny_params(), seeds=(1,))
    assert result.table.column_names == TABLES["sensitivity"].names
    rows = {r["variation"]: r for r in result.table.to_pylist()}
    assert list(rows) == ["everything", *chosen]
    usual, kappa = rows["everything"], rows["kappa_0.20"]
    assert kappa["scatter_change"] == pytest.approx(
        kappa["epsilon_scatter"] - usual["epsilon_scatter"], abs=1e-12
    )
    folder = place.study / "small"
    fixed = read_table(folder / "kappa_0.20-1" / "fixed.parquet", "study_predictions").to_pandas()
    base = read_table(folder / "everything-1" / "own.parquet", "study_predictions").to_pandas()
    assert fixed.cluster_id.tolist() == base.cluster_id.tolist()
    shift = fixed.log10_m200c - base.log10_m200c
    assert kappa["fixed_network_shift_mean"] == pytest.approx(shift.mean(), abs=1e-12)
    assert kappa["fixed_network_epsilon_mean"] == pytest.approx(
        (fixed.log10_m200c_true - fixed.log10_m200c).mean(), abs=1e-12
    )
    # networks of other windows cannot swap them; the survey has no wider ones
    assert rows["window_1.6"]["reference_epsilon_mean"] is None
    assert rows["window_6"]["survey_shift_median"] is None
    a, b = (read_table(folder / f"{n}-1" / "embedded.parquet", "masses").to_pandas()
            for n in ("window_1.6", "everything"))  # fmt: skip
    known = a.log10_m200c.notna() & b.log10_m200c.notna() & (a.cluster_id != "cl-002")  # z = 0.3
    assert rows["window_1.6"]["survey_shift_median"] == pytest.approx(
        (a.log10_m200c - b.log10_m200c)[known].median(), abs=1e-12
    )
    galaxies = read_table(place.selected / "galaxies.parquet", "galaxies").to_pandas()
    near = galaxies[(galaxies.x_proj.abs() <= 1.6) & (galaxies.y_proj.abs() <= 1.6)]
    counts = near.groupby("cluster_id").size()
    got = dict(zip(a.cluster_id, a.n_galaxies, strict=True))
    assert all(got[name] == n for name, n in counts.items())
    assert result.markdown.count("\n") == 1 + 4


def test_variations_say_what_they_are():
    base = Params()
    for one in sensitivity.VARIATIONS.values():
        varied = sensitivity.with_values(base, one.values)
        assert varied != base
        assert one.comparable == (varied.window.half_width_mpc_h == base.window.half_width_mpc_h)
        assert re.fullmatch(r"[a-z0-9_.]+", one.name)
    from astropy.cosmology import Planck18

    planck = sensitivity.VARIATIONS["planck_2018"].values
    assert planck["cosmology.h"] == pytest.approx(Planck18.h, abs=0.001)
    assert planck["cosmology.omega_m"] == pytest.approx(Planck18.Om0, abs=0.003)
    assert planck["cosmology.omega_b"] == pytest.approx(Planck18.Ob0, abs=0.001)


def test_the_simulated_surroundings_hold_the_widest_window():
    """±6 Mpc/h, seen half as far again, and ±2200 km/s of Hubble flow lie inside the sphere."""
    params = sensitivity.with_values(Params(), sensitivity.VARIATIONS["window_6"].values)
    across = 1.5 * np.sqrt(2) * params.window.half_width_mpc_h * 1.085  # comoving at z = 0.085
    along = params.window.v_max_km_s / 100 * 1.085
    assert np.hypot(across, along) < params.mock.environment.radius_mpc_h


def test_ensemble(place):
    result = study.run_study("ensemble", place, tiny_params(), seeds=(1,))
    folder = place.study / "small"
    one, two = (read_table(folder / f"ensemble_{i}-1" / "own.parquet", "study_predictions").to_pandas()
                for i in range(2))  # fmt: skip
    assert one.cluster_id.tolist() == two.cluster_id.tolist()
    assert (one.log10_m200c != two.log10_m200c).all()
    splits = [split_of(folder / f"ensemble_{i}-1", "train") for i in range(2)]
    assert splits[0] == splits[1]
    rows = result.table.to_pylist()
    mean = one.log10_m200c_true - 0.5 * (one.log10_m200c + two.log10_m200c)
    assert rows[1]["epsilon_scatter"] == pytest.approx(mean.std(), rel=1e-9)
    half = (one.log10_m200c - two.log10_m200c) / np.sqrt(2)
    assert rows[1]["network_scatter"] == pytest.approx(half.std(ddof=1), rel=0.1)  # ddof apart
    assert result.tables["ensemble_spread"].num_rows == 5


@pytest.fixture(scope="module")
def trained(tiny_workspace, tmp_path_factory):
    """Real mocks with a network of the run, and a survey."""
    source, params = tiny_workspace
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(source.root, root / "data")
    workspace = Workspace(root / "data", source.profile, "embedded")
    params = params.model_copy(update={"study": tiny_params().study, "workers": 1})
    training.run(workspace, params, register=False)
    posterior.run(workspace, params)
    tiny.survey(workspace, params)
    return workspace, params


def test_sight_lines(trained, monkeypatch):
    workspace, params = trained
    result = study.run_study("sightlines", workspace, params)
    everything = result.table.to_pylist()[0]
    assert everything["n_haloes"] == 8
    assert len(result.table) == 1  # bins of two haloes each say nothing
    file = workspace.study / "profile" / "sightlines" / "predictions.parquet"
    frame = read_table(file, "study_predictions").to_pandas()
    e = frame.log10_m200c_true - frame.log10_m200c
    halo = frame.cluster_id.str[5:11].astype(int)
    line = np.polyfit(frame.log10_m200c_true, e, 1)
    rest = e - np.polyval(line, frame.log10_m200c_true)
    pooled = np.sqrt((rest - rest.groupby(halo).transform("mean")).pow(2).sum() / (len(e) - 8))
    assert everything["within_scatter"] == pytest.approx(pooled, rel=1e-6)
    monkeypatch.setattr(mock, "run", None)  # nothing is simulated or weighed a second time
    again = study.run_study("sightlines", workspace, params)
    assert again.table.equals(result.table)
    assert result.markdown.count("\n") == result.table.num_rows + 1


def test_fibres(trained):
    workspace, params = trained
    result = study.run_study("fibres", workspace, params)
    rows = {(r["sample"], r["observed"], r["dropped"]): r for r in result.table.to_pylist()}
    assert len(rows) == 10
    mocks = "evaluation mocks"
    for observed in (fibres.WITH, fibres.WITHOUT):
        nothing = rows[mocks, observed, "nothing"]
        assert nothing["galaxies_lost"] == nothing["change_mean"] == nothing["change_scatter"] == 0
        assert rows[mocks, observed, "pairs"]["galaxies_lost"] > 0
    # a full drop of pairs takes more than plates that overlap, and most of it is taken already
    both = rows[mocks, "without, then with", "nothing"]
    without = rows[mocks, fibres.WITHOUT, "pairs"]
    assert 0 < both["galaxies_lost"] < without["galaxies_lost"]
    assert rows[mocks, fibres.WITH, "pairs"]["galaxies_lost"] < without["galaxies_lost"]
    assert rows["embedded", fibres.WITH, "core"]["epsilon_mean"] is None
    assert result.markdown.count("\n") == 1 + 9


# ------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("name", study.STUDIES)
def test_each_study_has_a_command_a_table_and_a_place(name):
    one = study.open_study(name)
    assert one.name == name
    assert name in TABLES
    assert (one.plan is None) != (one.work is None)
    text = CliRunner().invoke(cli.app, ["study", name, "--help"], terminal_width=200).output
    assert f"cmass study {name}" in text
    assert ("--seed" in text) == (one.plan is not None)
    assert set(cli._STUDIES) == set(study.STUDIES)


def test_an_unknown_study_is_a_wrong_parameter():
    with pytest.raises(ParameterError, match="no study 'salt'"):
        study.open_study("salt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("learning", "12 of 12 networks to train: about"),
        ("leak", "8 of 8 networks"),
        ("sensitivity", "to do  κ = 0.15, seed 1"),
        ("ensemble", "10 of 10 networks"),
        ("sightlines", "5000 windows to weigh"),
    ],
)
def test_dry_run_says_what_there_is_to_do(tmp_path, name, words):
    command = ["study", name, "--dry-run", "--data", str(tmp_path)]
    answer = CliRunner().invoke(cli.app, command, terminal_width=200)
    assert answer.exit_code == 0, answer.output
    assert words in answer.output
    assert not (tmp_path / "standard").exists()


def test_the_picture_lies_beside_the_document(tmp_path):
    picture = tmp_path / "a" / "leak.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    line = documents.put_picture(tmp_path / "docs" / "d.md", "leak", picture, "What it shows")
    assert line == "![What it shows](study_leak.png)"
    assert (tmp_path / "docs" / "study_leak.png").read_bytes() == b"png"


def test_units_of_a_study_are_new_when_their_base_is(tmp_path):
    workspace, params = Workspace(tmp_path, "smoke", "embedded"), tiny_params()
    units_of = sensitivity.STUDY.plan(workspace, params, (1,))
    other = params.model_copy(update={
        "mock": params.mock.model_copy(update={"snapshot_redshift": 0.05})
    })  # fmt: skip
    changed = sensitivity.STUDY.plan(workspace, other, (1,))
    assert all(a.digest() != b.digest() for a, b in zip(units_of, changed, strict=True))
    assert len({u.digest() for u in units_of}) == len(units_of)
    ensembles = ensemble.STUDY.plan(workspace, params, (1,))
    assert len({u.digest() for u in ensembles}) == 2
    assert len({frozenset(u.mock_digests()) for u in ensembles}) == 1
