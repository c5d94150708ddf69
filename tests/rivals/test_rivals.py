"""The step rivals: units that are resumed, tables that other tables confirm, gaps that are said."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest

from cmass import estimators, rivals
from cmass.estimators.dispersion import Dispersion
from cmass.estimators.windows import mock_windows
from cmass.evaluate import metrics
from cmass.posterior import JointDensity, quantiles
from cmass.rivals import units
from cmass.rivals.scores import score_rows
from cmass.tables import read_json, read_table, to_numpy
from cmass.workspace import Workspace

pytestmark = pytest.mark.xdist_group("tensorflow")


def _values(workspace: Workspace) -> dict[tuple[str, str], float]:
    table = read_table(workspace.rivals / "scores.parquet", "rival_scores")
    return {(r["estimator"], r["metric"]): r["value"] for r in table.to_pylist()}


def _only(params, *names, **rivals_changes):
    changed = params.rivals.model_copy(update={"estimators": names, **rivals_changes})
    return params.model_copy(update={"rivals": changed})


@pytest.fixture
def copied(tiny_run, tmp_path):
    """The finished run, to be spoilt."""
    workspace, params = tiny_run
    shutil.copytree(workspace.root, tmp_path / "data")
    return replace(workspace, root=tmp_path / "data"), params


# -------------------------------------------------------------------------------------- tables


def test_every_estimator_says_something_of_the_same_windows(tiny_run):
    workspace, params = tiny_run
    table = read_table(workspace.rivals / "predictions.parquet", "rival_predictions")
    (evaluation,) = mock_windows(workspace, "evaluation")
    for name in params.rivals.estimators:
        own = table.filter([e == name for e in table["estimator"].to_pylist()])
        assert own["cluster_id"].to_pylist() == evaluation.cluster_id
        low, middle, high = to_numpy(own, "log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84")
        known = np.isfinite(low)
        assert known.mean() > 0.8
        assert ((low < middle) & (middle < high))[known].all()


def test_the_runs_network_and_sigma_m_say_what_the_step_evaluate_says(tiny_run):
    workspace, _ = tiny_run
    judged = read_table(workspace.evaluation / "predictions.parquet", "predictions")
    table = read_table(workspace.rivals / "predictions.parquet", "rival_predictions")
    for name, column in (("cnn3d", "log10_m200c"), ("dispersion", "log10_m200c_dispersion")):
        own = table.filter([e == name for e in table["estimator"].to_pylist()])
        estimate = dict(
            zip(own["cluster_id"].to_pylist(), own["log10_m200c"].to_pylist(), strict=True)
        )
        found = [estimate[i] for i in judged["cluster_id"].to_pylist()]
        # The one route reads voxels from disk, the other makes them: the same float16.
        np.testing.assert_allclose(
            np.array(found, float), to_numpy(judged, column)[0], rtol=0, atol=1e-6
        )
    card = read_json(workspace.rivals / "cnn3d-1" / "unit.json")
    assert card["training_seconds"] is None  # nothing was trained again
    assert card["seconds_per_1000"] > 0 and card["n_parameters"] > 1000
    calibration = read_table(workspace.evaluation / "calibration.parquet", "calibration")
    rows = {(r["metric"], r["bin"]): r["value"] for r in calibration.to_pylist()}
    values = _values(workspace)
    assert values["cnn3d", "epsilon_scatter"] == pytest.approx(rows["epsilon_scatter", "all"])
    assert values["cnn3d", "sigma_0"] == pytest.approx(rows["sigma_0", "cnn3d"], abs=1e-4)
    assert values["cnn3d", "scatter_ratio"] == pytest.approx(
        rows["scatter_ratio_to_dispersion", "all"]
    )


def test_scores_of_a_perfect_and_a_poor_estimator_are_what_they_must_be(tiny_run):
    workspace, params = tiny_run
    table = read_table(workspace.rivals / "predictions.parquet", "rival_predictions")
    own = table.filter([e == "dispersion" for e in table["estimator"].to_pylist()])
    (estimate,) = to_numpy(own, "log10_m200c")
    members = np.full(own.num_rows, 50)
    rows = {r["metric"]: r for r in score_rows(own, members, estimate, params)}
    assert rows["scatter_ratio"]["value"] == 1 and rows["scatter_ratio"]["error"] == 0
    (true,) = to_numpy(own, "log10_m200c_true")
    e = metrics.residual(true, estimate)
    known = np.isfinite(e)
    assert rows["epsilon_scatter"]["value"] == pytest.approx(e[known].std(ddof=1))
    massive = known & (true > 14.3)
    assert rows["epsilon_scatter_massive"]["value"] == pytest.approx(e[massive].std(ddof=1))
    assert rows["n_without"]["value"] == np.isnan(to_numpy(own, "probability_below_true")[0]).sum()
    # Kolmogorov's limit for the largest deviation of a distribution of n independent values is
    # 1.358 / sqrt(n), on 39 levels a little less; windows of one halo are worth fewer.
    below, halo = to_numpy(own, "probability_below_true", "halo_id")
    known = np.isfinite(below)
    by_chance = rows["coverage_error_chance"]["value"]
    assert by_chance > 0.85 * 1.358 / np.sqrt(known.sum())
    assert by_chance < 1.1 * 1.358 / np.sqrt(len(np.unique(halo[known])))
    # Twice the residuals of the reference: twice the scatter.
    twice = {r["metric"]: r for r in score_rows(own, members, true - 0.5 * e, params)}
    assert twice["scatter_ratio"]["value"] == pytest.approx(2)


def test_infer_applies_them_to_the_survey(tiny_run):
    workspace, params = tiny_run
    table = read_table(workspace.masses / "rivals.parquet", "rival_masses")
    masses = read_table(workspace.masses / "masses.parquet", "masses")
    assert table.num_rows == masses.num_rows * len(params.rivals.estimators)
    for name, column in (("cnn3d", "log10_m200c"), ("dispersion", "log10_m200c_dispersion")):
        own = table.filter([e == name for e in table["estimator"].to_pylist()])
        assert own["cluster_id"].to_pylist() == masses["cluster_id"].to_pylist()
        np.testing.assert_allclose(
            to_numpy(own, "log10_m200c")[0], to_numpy(masses, column)[0], rtol=0, atol=1e-6
        )
    # Its posterior is the plain one, as every rival's; the published one is recalibrated.
    pairs = read_table(workspace.posterior / "predictions.parquet", "predictions")
    density = JointDensity(
        *to_numpy(pairs, "log10_m200c", "log10_m200c_true"), params.posterior.plain_bandwidth
    )
    edges = density.edges(params.posterior.n_bins)
    median = quantiles(density.posterior(to_numpy(masses, "log10_m200c")[0], edges), edges, [0.5])
    own = table.filter([e == "cnn3d" for e in table["estimator"].to_pylist()])
    np.testing.assert_allclose(to_numpy(own, "log10_m200c_p50")[0], median[:, 0], atol=1e-6)


# --------------------------------------------------------------------------------------- units


def test_what_is_made_is_not_made_again_and_what_is_not_wanted_goes(copied, monkeypatch):
    workspace, params = copied
    before = read_json(workspace.rivals / "richness-1" / "unit.json")
    monkeypatch.setattr(Dispersion, "fit", None)  # would fail if it were fitted
    rivals.run(workspace, _only(params, "dispersion", "richness"))
    assert read_json(workspace.rivals / "richness-1" / "unit.json") == before
    assert sorted(p.name for p in workspace.rivals.iterdir() if p.is_dir()) == [
        "dispersion-1", "richness-1",
    ]  # fmt: skip


def test_other_parameters_or_code_make_it_again(copied, monkeypatch):
    workspace, params = copied
    (unit,) = units.plan(workspace, _only(params, "dispersion"))
    assert unit.is_made()
    other = _only(params, "dispersion")
    clip = params.evaluate.model_copy(update={"clip_sigma": 3.0})
    assert not units.plan(workspace, other.model_copy(update={"evaluate": clip}))[0].is_made()
    monkeypatch.setattr(Dispersion, "sources", ("voxels.py",))
    assert not units.plan(workspace, other)[0].is_made()


def test_a_unit_goes_on_after_the_fit(copied, monkeypatch):
    """A kill while the evaluation set is judged does not cost the fit."""
    workspace, params = copied
    chosen = _only(params, "richness", massive_log10_m200c=14.2)
    judge, fits = units.predict, []
    monkeypatch.setattr(units, "predict", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        rivals.run(workspace, chosen)
    monkeypatch.setattr(units, "predict", judge)
    from cmass.estimators.richness import Richness

    fit = Richness.fit
    monkeypatch.setattr(Richness, "fit", lambda *a: fits.append(1) or fit(*a))
    rivals.run(workspace, chosen)
    assert not fits
    assert not list(workspace.rivals.glob("*.partial"))


def test_a_time_limit_that_was_reached_is_in_the_table(copied, monkeypatch):
    workspace, params = copied
    monkeypatch.setattr(Dispersion, "out_of_time", True)
    rivals.run(workspace, _only(params, "dispersion", massive_log10_m200c=14.2))  # anew
    (row,) = read_table(workspace.rivals / "costs.parquet", "rival_costs").to_pylist()
    assert row["fitted"] and "seconds_max" in row["note"]


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_a_package_that_is_not_there_is_said_and_leaves_a_row(copied, monkeypatch, caplog, how):
    workspace, params = copied
    extra = "no_such_package_anywhere" if how == "missing" else "json"
    monkeypatch.setattr(Dispersion, "extra", extra)
    if how == "broken":
        monkeypatch.setattr(
            Dispersion, "fit", lambda *a: (_ for _ in ()).throw(ImportError("half installed"))
        )
    other = params.rivals.model_copy(update={"massive_log10_m200c": 14.2})
    with caplog.at_level("WARNING", "cmass"):
        rivals.run(workspace, _only(params.model_copy(update={"rivals": other}),
                                    "dispersion", "richness", massive_log10_m200c=14.2))  # fmt: skip
    assert extra in caplog.text
    values = _values(workspace)
    assert values["dispersion", "fitted"] == 0 and values["richness", "fitted"] == 1
    assert ("richness", "scatter_ratio") not in values  # nothing to compare with
    costs = read_table(workspace.rivals / "costs.parquet", "rival_costs").to_pylist()
    (row,) = [r for r in costs if r["estimator"] == "dispersion"]
    assert not row["fitted"] and extra in row["note"]


def test_a_broken_import_of_our_own_is_no_gap(copied, monkeypatch):
    workspace, params = copied
    monkeypatch.setattr(Dispersion, "fit", lambda *a: (_ for _ in ()).throw(ImportError("ours")))
    with pytest.raises(ImportError, match="ours"):
        rivals.run(workspace, _only(params, "dispersion", massive_log10_m200c=14.2))


# ----------------------------------------------------------------------------------- discovery

_ADDED = """
    from typing import ClassVar
    import numpy as np
    from cmass.estimators import PointEstimator

    class Constant(PointEstimator):
        name: ClassVar[str] = "added"
        title: ClassVar[str] = "added"
        reads: ClassVar[str] = "the number of galaxies"
        seeded: ClassVar[bool] = False

        def fit_point(self, sets, work):
            pass

        def point(self, windows):
            return 13 + windows.n_galaxies / 200

        n_parameters = 0

        def save_point(self, folder):
            pass

        def load_point(self, folder):
            pass
"""


def test_adding_an_estimator_is_adding_a_file(copied, tmp_path, monkeypatch):
    workspace, params = copied
    (tmp_path / "added.py").write_text(textwrap.dedent(_ADDED))
    monkeypatch.setattr(estimators, "__path__", [*estimators.__path__, str(tmp_path)])
    assert {"added", "cnn3d", "cnn2d", "cnn1d", "dispersion", "richness", "caustic", "flow",
            "deepsets"} <= set(estimators.estimators())  # fmt: skip
    try:
        rivals.run(workspace, _only(params, "dispersion", "added"))
    finally:
        sys.modules.pop("cmass.estimators.added", None)
    assert _values(workspace)["added", "epsilon_scatter"] < 0.4  # the prior's: 0.4
