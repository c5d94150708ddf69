"""study rivals: several seeds on one run, and the table of means."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from cmass import cli, rivals
from cmass.errors import ParameterError, WorkspaceError
from cmass.estimators import estimators
from cmass.rivals.scores import n_seeds
from cmass.rivals.units import plan
from cmass.study import rivals as study
from cmass.tables import make_table, read_json, read_table, write_json

pytestmark = pytest.mark.xdist_group("tensorflow")


@pytest.fixture(scope="module")
def done(tiny_run, tmp_path_factory):
    """A finished study of two seeds of one small network, beside sigma-M and richness.

    The step itself leaves richness out.
    """
    workspace, params = tiny_run
    root = tmp_path_factory.mktemp("rivals") / "data"
    shutil.copytree(workspace.root, root)
    workspace = replace(workspace, root=root)
    training = params.rivals.training.model_copy(update={"epochs": 2})
    changed = {"estimators": ("dispersion", "cnn1d"), "training": training}
    params = params.model_copy(update={"rivals": params.rivals.model_copy(update=changed)})
    names = ("dispersion", "cnn1d", "richness")
    return workspace, params, study.run(workspace, params, seeds=(1, 2), names=names)


def test_seeds_of_the_step_lie_with_the_step_and_others_with_the_study(done):
    workspace, params, _ = done
    assert (workspace.rivals / "cnn1d-1" / "unit.json").exists()
    assert (workspace.rivals / "dispersion-1" / "unit.json").exists()
    assert (workspace.study / "rivals" / "cnn1d-2" / "unit.json").exists()
    assert (workspace.study / "rivals" / "richness-1" / "unit.json").exists()
    assert not study.to_do(plan(workspace, params, (1, 2)))
    first, second = plan(workspace, params, (1, 2))[1:]
    assert (first.seed, second.seed) == (params.seed, params.seed + 1)
    assert first.predictions()["log10_m200c"] != second.predictions()["log10_m200c"]


def test_a_mean_has_the_error_over_seeds_and_over_haloes(done):
    workspace, _, result = done
    scores = read_table(workspace.study / "rivals" / "scores.parquet", "rival_scores").to_pylist()
    two = [r for r in scores if (r["estimator"], r["metric"]) == ("cnn1d", "epsilon_scatter")]
    (row,) = [
        r for r in result.table.to_pylist()
        if (r["estimator"], r["metric"]) == ("cnn1d", "epsilon_scatter")
    ]  # fmt: skip
    a, b = (r["value"] for r in two)
    assert row["n_seeds"] == 2
    assert row["value"] == pytest.approx((a + b) / 2)
    assert row["seed_error"] == pytest.approx(abs(a - b) / 2)
    assert row["error"] == pytest.approx(np.mean([r["error"] for r in two]))
    (plain,) = [
        r for r in result.table.to_pylist()
        if (r["estimator"], r["metric"]) == ("dispersion", "scatter_ratio")
    ]  # fmt: skip
    assert plain["value"] == 1 and plain["seed_error"] is None


def test_the_command_fills_the_document_without_new_work(done, tmp_path, monkeypatch):
    workspace, params, result = done
    document = tmp_path / "science.md"
    document.write_text("a\n<!-- begin study rivals -->\nold\n<!-- end study rivals -->\nb\n")
    monkeypatch.setattr(cli, "_resolve", lambda *a: (workspace, params))
    names = [w for n in ("dispersion", "cnn1d", "richness") for w in ("--estimator", n)]
    options = ["study", "rivals", "--seed", "1", "--seed", "2", *names]
    listed = CliRunner().invoke(cli.app, [*options, "--dry-run"])
    assert "0 of 4 to fit" in listed.output and "cnn1d, seed 2: made" in listed.output
    asked = CliRunner().invoke(cli.app, [*options, "--docs", str(document)])
    assert asked.exit_code == 0, asked.output
    text = document.read_text()
    assert "old" not in text and result.markdown in text
    assert "| CNN 1D |" in text


def test_report_and_card_take_the_table_of_most_seeds_while_it_is_of_these_units(done, tmp_path):
    workspace, _, _ = done
    shutil.copytree(workspace.root, tmp_path / "data")
    place = replace(workspace, root=tmp_path / "data")
    assert rivals.tables_folder(place) == place.study / "rivals"
    scores = read_table(rivals.tables_folder(place) / "scores.parquet", "rival_scores")
    assert (n_seeds(scores, "cnn1d"), n_seeds(scores, "dispersion")) == (2, 1)
    card = place.rivals / "cnn1d-1" / "unit.json"
    write_json(card, read_json(card) | {"identity": "made again with other parameters"})
    assert rivals.tables_folder(place) == place.rivals


def test_a_gap_stands_in_the_words(done):
    table = make_table(
        "rival_study",
        {"estimator": ["flow", "richness"], "metric": ["fitted", "epsilon_scatter"],
         "n_seeds": [3, 3], "value": [0.0, 0.345], "seed_error": [None, 0.001],
         "error": [None, 0.004], "unit": ["", "dex"]},
    )  # fmt: skip
    words = study.markdown(
        table, {"flow": "Flow", "richness": "Richness"}, {"flow": "no flowjax"}, 14.3
    )
    assert "| Richness | – | 0.345 ± 0.004 (0.001) |" in words
    assert "Not fitted: Flow (no flowjax)." in words


def test_seeds_count_from_one(done):
    with pytest.raises(ParameterError, match="from 1"):
        study.study_seeds(done[1], (0, 1))
    assert study.study_seeds(done[1]) == (1, 2, 3)


def test_without_a_run_it_says_what_comes_first(tmp_path):
    done = CliRunner().invoke(cli.app, ["study", "rivals", "--dry-run", "--data", str(tmp_path)])
    assert done.exit_code == WorkspaceError.exit_code
    assert "clusters does not exist" in done.output and "`cmass run`" in done.output


def test_every_estimator_there_is_by_default(done):
    workspace, params, _ = done
    units = study.study_units(workspace, params, (1, 2))
    assert {u.kind.name for u in units} == set(estimators())
    (richness,) = [u for u in units if u.kind.name == "richness"]
    assert richness.folder == workspace.study / "rivals" / "richness-1"
