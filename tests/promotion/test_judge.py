"""Judge and champion on small runs: promotion, refusal, rollback, and what stands in the registry."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from cmass import infer, registry
from cmass.contracts import handovers
from cmass.contracts.release import gather
from cmass.errors import WorkspaceError
from cmass.networks import cnn3d
from cmass.networks.training import State
from cmass.params import Params
from cmass.posterior import grid_edges
from cmass.promotion import champion, exam, judge
from cmass.promotion.tags import BUNDLE, SURVEY, place_of
from cmass.registry import Registry
from cmass.tables import (
    file_digest,
    make_table,
    read_json,
    read_table,
    to_numpy,
    write_json,
    write_table,
)
from cmass.workspace import Workspace

STATE = State(2, [0.2, 0.1], [0.3, 0.2], [1e-3, 1e-4])


@pytest.fixture
def made(tiny_run, tmp_path):
    """Function that makes a training in the one workspace: of so much better or worse scores."""
    source, params = tiny_run
    workspace = replace(source, root=tmp_path / "data")
    shutil.copytree(source.root, workspace.root)

    def make(factor: float) -> Workspace:
        """A network that differs in its last bias; its errors times `factor`."""
        file = workspace.model / "cnn3d.weights.h5"
        network = cnn3d.keras_model(cnn3d.load(source.model / file.name, params.voxels.n))
        weights, bias = network.layers[-1].get_weights()
        network.layers[-1].set_weights([weights, bias + np.float32(1e-3 * factor)])
        file.unlink()
        network.save_weights(file)
        summary = {
            "validation_rms_dex": 0.2, "data_sha256": "d", "weights_sha256": file_digest(file),
            "seed": 1, "n_train": 9, "n_validation": 1,
        }  # fmt: skip
        write_json(workspace.model / "model.json", summary)
        history = {
            "epoch": [1, 2],
            "loss": STATE.loss,
            "val_loss": STATE.val_loss,
            "learning_rate": STATE.learning_rate,
        }
        write_table(
            workspace.model / "history.parquet", make_table("training_history", history),
            "training_history",
        )  # fmt: skip
        for which in ("train", "validation"):
            (workspace.voxels / which).mkdir(parents=True, exist_ok=True)
        entry = registry.register(workspace, params, network, summary, STATE)
        write_json(workspace.model / "registry.json", entry)
        _move(source, workspace, factor)
        trial = workspace.seen_as("trial")
        for name in ("masses", "realism"):
            shutil.rmtree(trial.trial / name, ignore_errors=True)
            shutil.copytree(source.home / source.survey / name, trial.trial / name)
        return workspace

    return make, params


def _move(source: Workspace, workspace: Workspace, factor: float) -> None:
    """Estimates of the population with `factor` times their distance from the truth, and normal
    posteriors of that width."""
    name = "population.parquet"
    table = read_table(source.evaluation / name, "population_masses")
    grid = read_table(source.posterior / "posterior_grid.parquet", "posterior_grid")
    true, point = to_numpy(table, "log10_m200c_true", "log10_m200c")
    moved = true + factor * (point - true)
    below = norm.cdf(grid_edges(grid), np.nan_to_num(moved)[:, None], 0.2 * factor)
    posteriors = np.diff(below, axis=1)
    posteriors /= posteriors.sum(axis=1, keepdims=True)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    has = [bool(p) for p in table["posterior"].to_pylist()]
    lists = [list(p) if known else [] for p, known in zip(posteriors, has, strict=True)]
    columns |= {"log10_m200c": moved, "posterior": lists}
    write_table(
        workspace.evaluation / name, make_table("population_masses", columns), "population_masses"
    )


def decide(workspace: Workspace, params: Params) -> dict:
    judge.run(workspace, params)
    return read_json(workspace.decision)


def weights_in_force(workspace: Workspace) -> str:
    return file_digest(workspace.seen_as("champion").model / "cnn3d.weights.h5")


def test_another_registry_learns_of_the_training(made, monkeypatch, tmp_path):
    """First a run of the command line with a registry of its own, then a service with another."""
    make, params = made
    workspace = make(1.0)
    decide(workspace, params)
    here = judge.outside(workspace, params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/service.db")
    assert judge.outside(workspace, params) != here
    assert Registry(workspace).champion() is None
    assert decide(workspace, params)["verdict"] == "promoted"
    champion.run(workspace, params)
    (version,) = Registry(workspace).versions()
    assert version.tags["weights.sha256"] == weights_in_force(workspace)
    assert decide(workspace, params)["verdict"] == "confirmed"
    assert len(Registry(workspace).versions()) == 1


def test_artifacts_that_are_gone_are_told_as_such(made, tmp_path):
    make, params = made
    workspace = make(1.0)
    decide(workspace, params)
    version = Registry(workspace).version("1")
    place = place_of(version.tags[BUNDLE])
    (folder,) = workspace.mlflow.glob(f"artifacts/**/{place}")
    shutil.rmtree(folder)
    with pytest.raises(WorkspaceError, match="version 1 is gone: restore the registry's artifacts"):
        Registry(workspace).download(version, place, tmp_path / "inbox")


def test_mocks_near_to_another_sky_gain_nothing(made, monkeypatch):
    make, params = made
    workspace = make(1.0)
    decide(workspace, params)
    heard = []
    monkeypatch.setattr(
        judge, "gates_against", lambda exam, now, before, how: heard.append(before) or []
    )
    make(0.9)
    decide(workspace, params)
    Registry(workspace).tag("1", {SURVEY: "sdss"})
    make(0.8)
    champion.promote(workspace, "1", "for the test")
    decide(workspace, params)
    assert heard[0] is not None and heard[1] is None


def test_the_hand_overs_of_a_refused_training_are_not_the_champions(made):
    make, params = made
    workspace = make(1.0)
    file = handovers.result_file(workspace, "split")
    write_json(file, {"step": "split", "title": "Split", "success": True, "rows": 1})
    decide(workspace, params)
    champion.run(workspace, params)
    make(2.0)
    write_json(file, {"step": "split", "title": "Split", "success": False, "rows": 2})
    assert decide(workspace, params)["verdict"] == "refused"
    champion.run(workspace, params)
    seen = handovers.result_file(workspace.seen_as("champion"), "split")
    assert read_json(seen)["rows"] == 1
    release = {"step": "publish", "title": "Release", "drift": {}}
    titles = [one["title"] for one in gather(workspace.seen_as("champion"), release)["handovers"]]
    assert "Split" in titles
    shutil.rmtree(workspace.champion)  # and from the registry the same
    champion.run(workspace, params)
    assert read_json(seen)["rows"] == 1


def test_damaged_galaxies_of_a_champion_are_brought_again(made, caplog):
    """They are hard links of the training's: a dying disk damages both, and mock makes its own anew."""
    make, params = made
    workspace = make(1.0)
    decide(workspace, params)
    champion.run(workspace, params)
    source = sorted((workspace.mock / "galaxies").glob("*.parquet"))[0]
    link = workspace.champion / "mock" / "galaxies" / source.name
    whole = source.read_bytes()
    assert link.stat().st_ino == source.stat().st_ino
    with open(link, "rb+") as stream:
        stream.write(b"damaged")
    assert source.read_bytes() != whole
    champion.run(
        workspace, params
    )  # the training's are damaged as well: no figure is drawn of them
    assert not link.exists()
    assert "no others of it" in caplog.text
    source.unlink()
    source.write_bytes(whole)  # as the step mock does
    champion.run(workspace, params)
    assert link.read_bytes() == whole


def test_galaxies_of_an_older_card_are_taken_as_they_are(made, caplog):
    make, params = made
    workspace = make(1.0)
    decide(workspace, params)
    champion.run(workspace, params)
    card = workspace.champion / champion.CARD
    known = read_json(card)
    write_json(card, {k: v for k, v in known.items() if k != "galaxies_sha256"})
    make(2.0)  # the workspace has others by now
    champion.run(workspace, params)
    assert read_json(card) == known
    assert "damaged" not in caplog.text


def test_first_worse_better_and_back(made):
    make, params = made
    workspace = make(1.0)
    first = file_digest(workspace.model / "cnn3d.weights.h5")
    assert decide(workspace, params)["verdict"] == "promoted"
    champion.run(workspace, params)
    assert weights_in_force(workspace) == first
    assert decide(workspace, params)["verdict"] == "confirmed"

    make(2.0)
    worse = file_digest(workspace.model / "cnn3d.weights.h5")
    refused = decide(workspace, params)
    assert (refused["verdict"], refused["version"], refused["champion_before"]) == (
        "refused", "2", "1",
    )  # fmt: skip
    assert any("against the champion's" in reason for reason in refused["reasons"])
    champion.run(workspace, params)  # from the registry: the workspace has another one now
    assert weights_in_force(workspace) == first != worse
    card = read_json(workspace.champion / champion.CARD)
    assert (card["name"], card["version"]) == ("cmass-cnn3d-smoke", "1")

    make(0.5)
    better = file_digest(workspace.model / "cnn3d.weights.h5")
    assert decide(workspace, params)["verdict"] == "promoted"
    champion.run(workspace, params)
    assert weights_in_force(workspace) == better

    before = champion.promote(workspace, "1", "version 3 misses Coma")
    assert before is not None and before.number == "3"
    champion.run(workspace, params)
    assert weights_in_force(workspace) == first
    card = read_json(workspace.champion / champion.CARD)
    assert card["reasons"] == "version 3 misses Coma"

    again = decide(workspace, params)  # version 3 is in the workspace still
    assert again["verdict"] == "refused"
    assert again["reasons"] == ["it was taken back by hand: version 3 misses Coma"]
    rows = judge.summaries(workspace)
    assert [(r["version"], r["champion"], r["verdict"]) for r in rows] == [
        ("1", "yes", "confirmed"), ("2", "", "refused"), ("3", "", "refused"),
    ]  # fmt: skip
    champion.promote(workspace, "3", "Coma was a slip")
    assert decide(workspace, params)["verdict"] == "confirmed"


@pytest.mark.slow
def test_infer_gives_the_champions_masses_whatever_was_trained_since(made):
    make, params = made
    workspace = make(1.0)
    judge.run(workspace, params)
    champion.run(workspace, params)
    view = workspace.seen_as("champion")
    infer.run(view, params)
    masses = file_digest(view.masses / "masses.parquet")
    make(2.0)
    judge.run(workspace, params)
    champion.run(workspace, params)
    infer.run(view, params)
    assert file_digest(view.masses / "masses.parquet") == masses
    infer.run(workspace.seen_as("trial"), params)
    assert file_digest(workspace.trial / "masses" / "masses.parquet") != masses


def test_the_registry_has_scores_bundle_and_reasons(made):
    import mlflow

    make, params = made
    workspace = make(1.0)
    judge.run(workspace, params)
    known = Registry(workspace)
    version = known.version("1")
    assert version.tags["judge.verdict"] == "promoted"
    assert version.tags["judge.survey"] == "embedded"
    assert float(version.tags["judge.scatter_dex"]) > 0
    run = mlflow.MlflowClient(known.uri).get_run(version.run_id)
    assert run.data.metrics["judge.crps_dex"] == float(version.tags["judge.crps_dex"])
    folder = known.download(version, place_of(version.tags[BUNDLE]), workspace.root / "inbox")
    assert (folder / "settings.json").exists()
    assert not (folder / "mock" / "galaxies").exists()
    assert not (folder / "model" / "registry.json").exists()


def test_a_damaged_bundle_is_refused_and_the_old_champion_stays(made):
    make, params = made
    workspace = make(1.0)
    judge.run(workspace, params)
    champion.run(workspace, params)
    first = weights_in_force(workspace)
    make(0.5)
    judge.run(workspace, params)
    version = Registry(workspace).champion()
    assert version is not None
    make(0.7)  # the workspace can no longer help
    kept = next(
        (workspace.mlflow / "artifacts").rglob(f"{place_of(version.tags[BUNDLE])}/settings.json")
    )
    kept.write_text(kept.read_text().replace("2200", "2201"))
    with pytest.raises(WorkspaceError, match="version 2 does not match its checksum"):
        champion.run(workspace, params)
    assert weights_in_force(workspace) == first
    assert [p.name for p in workspace.home.iterdir() if "partial" in p.name] == []


def test_a_champion_for_other_parameters_is_named_with_both_values(made):
    make, params = made
    workspace = make(1.0)
    judge.run(workspace, params)
    voxels = params.voxels.model_copy(update={"kappa": 0.2})
    with pytest.raises(WorkspaceError, match=r"voxels\.kappa 0\.175; the parameters say 0\.2"):
        champion.run(workspace, params.model_copy(update={"voxels": voxels}))
    other_shards = params.voxels.model_copy(update={"clusters_per_shard": 7})
    champion.run(workspace, params.model_copy(update={"voxels": other_shards}))


def test_without_a_champion_the_message_says_who_was_refused_and_what_to_do(made):
    make, params = made
    workspace = make(1.0)
    strict = params.judge.model_copy(update={"scatter_max_dex": 0.001})
    judge.run(workspace, params.model_copy(update={"judge": strict}))
    with pytest.raises(
        WorkspaceError, match=r"no champion .*version 1 was refused: .*cmass promote"
    ):
        champion.run(workspace, params)
    champion.promote(workspace, "1", "good enough for a test")
    champion.run(workspace, params)
    assert (workspace.champion / champion.CARD).exists()


def test_a_version_that_was_never_judged_cannot_be_promoted(made):
    make, _ = made
    workspace = make(1.0)
    with pytest.raises(WorkspaceError, match="version 1 was never judged"):
        champion.promote(workspace, "1", "why not")


def test_a_champion_with_another_population_weighs_the_workspaces_windows(made):
    make, params = made
    workspace = make(1.0)
    judge.run(workspace, params)
    champion.run(workspace, params)
    same = exam.examine(workspace, params)
    assert same.crps_dex.difference == same.scatter_dex.difference == 0
    # the same windows, told by other bytes: the champion has to look at them itself
    shard = next((workspace.population / "clusters").glob("*.parquet"))
    table = read_table(shard, "mock_clusters")
    shard.unlink()
    write_table(shard, table.slice(0), "mock_clusters", small=True)
    assert file_digest(workspace.population) != file_digest(workspace.champion / "population")
    again = exam.examine(workspace, params)
    assert again.n == same.n > 50
    assert again.scatter_dex.difference == pytest.approx(0, abs=1e-6)


def test_weights_that_are_not_the_trainings_are_not_registered(made):
    make, params = made
    workspace = make(1.0)
    card = workspace.model / "model.json"
    write_json(card, read_json(card) | {"weights_sha256": "0" * 64})
    with pytest.raises(WorkspaceError, match=r"is not what was trained: .cmass train --force"):
        judge.run(workspace, params)
