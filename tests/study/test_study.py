"""Studies: whole in small, resumed, and with numbers that can be had another way."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cmass import cli, mock, posterior, study
from cmass.columns import TABLES
from cmass.errors import InputError, ParameterError, WorkspaceError
from cmass.evaluate.forward import pull
from cmass.mock.haloes import plan_haloes
from cmass.mock.ingredients import EVERYTHING, INGREDIENTS
from cmass.networks import cnn3d, prediction
from cmass.params import Params
from cmass.study import documents, numbers, units
from cmass.tables import read_json, read_table, write_table
from cmass.voxels import density_grid
from cmass.workspace import Workspace
from tests import tiny

pytestmark = pytest.mark.xdist_group("tensorflow")

ONLY = ["uniform_field", "substructure"]
SEEDS = (1, 2)


def small_params() -> Params:
    """60 windows, 10³ voxels, one epoch."""
    params = tiny.tiny_params()
    sizes = {"train": 36, "test": 14, "evaluation": 10, "voxels_n": 10, "epochs": 1}
    return params.model_copy(update={"study": params.study.model_copy(update=sizes)})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study of two ingredients and two seeds, with an embedded survey. Read only."""
    params = small_params()
    workspace = Workspace(tmp_path_factory.mktemp("study"), "smoke", "embedded")
    tiny.survey(workspace, params)
    result = study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    return workspace, params, result


@pytest.fixture
def copied(done, tmp_path):
    """The same, to be spoilt."""
    workspace, params, result = done
    shutil.copytree(workspace.root, tmp_path / "data")
    return Workspace(tmp_path / "data", "smoke", "embedded"), params, result


def unit(workspace: Workspace, params: Params, name: str, seed: int = 1) -> units.Unit:
    return units.plan_unit(name, seed, workspace, params, full=False)


# ------------------------------------------------------------------------------------- results


def test_table_has_a_row_for_each_ingredient_and_seed(done):
    workspace, params, result = done
    table = result.table
    assert table.column_names == TABLES["ingredients"].names
    rows = {(r["ingredient"], r["seed"]): r for r in table.to_pylist()}
    names = [EVERYTHING, *ONLY, numbers.ANOTHER_SEED]
    pairs = {(numbers.ANOTHER_SEED, SEEDS[0])}  # two seeds are one pair
    assert set(rows) == {(n, s) for n in names[:-1] for s in SEEDS} | pairs
    for name in ONLY:
        row = rows[name, 1]
        split = read_table(unit(workspace, params, name).folder / "split/split.parquet", "split")
        # of ten windows dealt to the set, those that stand for a cluster
        assert 8 <= row["n_evaluation"] == split["set"].to_pylist().count("evaluation") <= 10
        assert row["survey_shift_scatter"] > 0
        assert row["fixed_network_shift_scatter"] > 0
        assert row["reference_epsilon_scatter"] > 0
    for row in rows.values():  # nobody asked to look
        assert row["galweight_offset_median"] is None
    everything = rows[EVERYTHING, 1]
    assert everything["reference_epsilon_mean"] == everything["epsilon_mean"]
    assert everything["survey_shift_median"] is None
    # two of 30 clusters have no density, see tiny.survey
    assert everything["n_survey"] == 28
    assert rows[numbers.ANOTHER_SEED, SEEDS[0]]["survey_shift_median"] != 0


def test_the_numbers_are_those_of_the_predictions(done):
    workspace, params, result = done
    row = next(r for r in result.table.to_pylist()
               if (r["ingredient"], r["seed"]) == ("substructure", 2))  # fmt: skip
    one, full = (unit(workspace, params, n, 2) for n in ("substructure", EVERYTHING))
    own, reference = one.predictions("own").to_pandas(), one.predictions("reference").to_pandas()
    for table, prefix in ((own, "epsilon"), (reference, "reference_epsilon")):
        e = table.log10_m200c_true - table.log10_m200c
        assert row[f"{prefix}_mean"] == pytest.approx(e.mean(), abs=1e-12)
        assert row[f"{prefix}_scatter"] == pytest.approx(e.std(), rel=1e-9)
    before = full.predictions("own").to_pandas().set_index("cluster_id").log10_m200c
    after = one.predictions("fixed").to_pandas().set_index("cluster_id").log10_m200c
    shift = (after - before).dropna()
    assert len(shift) == 10
    assert row["fixed_network_shift_mean"] == pytest.approx(shift.mean(), abs=1e-12)
    assert row["fixed_network_shift_scatter"] == pytest.approx(shift.std(), rel=1e-9)
    a, b = (read_table(u.folder / "embedded.parquet", "masses").to_pandas() for u in (one, full))
    shift = (a.log10_m200c - b.log10_m200c).dropna()
    assert row["survey_shift_median"] == pytest.approx(shift.median(), abs=1e-12)
    assert row["survey_shift_scatter"] == pytest.approx(shift.std(), rel=1e-9)


def test_each_table_holds_the_windows_and_the_network_it_says(done):
    """Simulated again, one halo at a time, and predicted with the weights on disk."""
    workspace, params, _ = done
    one, full = (unit(workspace, params, n) for n in ("uniform_field", EVERYTHING))
    networks = {u.name: cnn3d.load(u.folder / "model" / "cnn3d.weights.h5", 10)
                for u in (one, full)}  # fmt: skip
    for owner, table, windows, network in (
        (one, "own", one, one), (one, "reference", full, one), (one, "fixed", one, full),
        (full, "own", full, full),
    ):  # fmt: skip
        rows = owner.predictions(table).slice(0, 3).to_pylist()
        plans = {p.halo_id: p for p in plan_haloes(windows.params)}
        for row in rows:
            halo, sight_line = re.fullmatch(r"mock-(\d+)-(\d+)", row["cluster_id"]).groups()
            plan = plans[int(halo)]
            _, galaxies = mock.observe_halo(plan, windows.params)
            seen = galaxies[int(sight_line)]
            points = np.column_stack([seen["x_proj"], seen["y_proj"], seen["v_los"]])
            grid = density_grid(points, n=10) * np.float32(windows.params.voxels.scale)
            expected = prediction.predict_grids(networks[network.name], grid[None])[0, 0]
            # float32 sums in another batch; points were stored as float64
            assert row["log10_m200c"] == pytest.approx(expected, abs=1e-4)
            assert row["log10_m200c_true"] == plan.log10_m200c


def test_no_halo_trains_one_simulator_and_judges_another(done):
    workspace, params, _ = done
    sets = {}
    for name in (EVERYTHING, *ONLY):
        file = unit(workspace, params, name).folder / "split" / "split.parquet"
        split = read_table(file, "split").to_pandas()
        sets[name] = dict(zip(split.halo_id, split["set"], strict=True))
    for name in ONLY:
        common = sets[name].keys() & sets[EVERYTHING].keys()
        assert len(common) > 30
        assert all(sets[name][h] == sets[EVERYTHING][h] for h in common)


def test_nothing_is_registered_and_little_is_kept(done):
    workspace, params, _ = done
    assert not workspace.mlflow.exists()
    one, full = (unit(workspace, params, n).folder for n in ("substructure", EVERYTHING))
    assert not (one / "mock").exists()
    assert not list(one.rglob("shard-*"))
    assert [p.parent.name for p in full.rglob("shard-*")] == ["evaluation"]


# -------------------------------------------------------------------------------------- resume


def made(workspace: Workspace) -> dict[str, int]:
    """When each unit was put in place."""
    return {f.parent.name: f.stat().st_mtime_ns for f in workspace.study.rglob("unit.json")}


def test_a_lost_unit_is_made_again_and_no_other(copied):
    workspace, params, first = copied
    before = made(workspace)
    assert len(before) == 6
    lost = unit(workspace, params, "substructure", 2)
    shutil.rmtree(lost.folder)
    again = study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    after = made(workspace)
    assert {n for n in after if after[n] != before[n]} == {"substructure-2"}
    assert again.table.equals(first.table)
    assert again.markdown == first.markdown


def test_a_broken_unit_goes_on_where_it_stopped(copied, monkeypatch):
    workspace, params, first = copied
    lost = unit(workspace, params, "substructure", 2)
    shutil.rmtree(lost.folder)
    with monkeypatch.context() as broken:
        broken.setattr(posterior, "run", _stop)
        with pytest.raises(KeyboardInterrupt):
            study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    assert not lost.folder.exists()
    assert not lost.is_made()
    monkeypatch.setattr(mock, "run", _stop)  # mocks and network are there already
    monkeypatch.setattr("cmass.networks.training.run", _stop)
    again = study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    assert again.table.equals(first.table)


def test_a_unit_broken_while_tidying_is_only_put_in_place(copied, monkeypatch):
    workspace, params, first = copied
    lost = unit(workspace, params, "substructure", 2)
    shutil.rmtree(lost.folder)
    with monkeypatch.context() as broken:
        broken.setattr(units, "_tidy", _stop)
        with pytest.raises(KeyboardInterrupt):
            study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    shutil.rmtree(lost.folder.with_name(lost.folder.name + ".partial") / "mock")
    monkeypatch.setattr(mock, "run", _stop)
    again = study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS)
    assert again.table.equals(first.table)


def _stop(*_args, **_more):
    raise KeyboardInterrupt


def test_other_parameters_make_other_units(done):
    workspace, params, _ = done
    assert unit(workspace, params, "substructure").is_made()
    other = params.model_copy(update={"study": params.study.model_copy(update={"epochs": 2})})
    assert not unit(workspace, other, "substructure").is_made()


def test_all_units_that_are_there_enter_the_table(copied):
    workspace, params, first = copied
    fewer = study.run_ingredients(workspace, params, only=ONLY[:1], seeds=SEEDS)
    assert fewer.table.equals(first.table)


# ------------------------------------------------------------------------------ survey and look


def test_without_a_survey_its_columns_are_empty(copied, caplog):
    workspace, params, first = copied
    shutil.rmtree(workspace.selected)
    table = study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS).table
    assert "cmass select --survey embedded" in caplog.text
    assert table["survey_shift_median"].null_count == table.num_rows == first.table.num_rows - 1
    with pytest.raises(WorkspaceError, match="cmass select"):
        study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS, compare_galweight=True)


def test_other_windows_of_the_survey_get_other_masses(copied):
    workspace, params, _ = copied
    one = unit(workspace, params, "substructure")
    before = units.survey_masses(one, units.read_survey(workspace))
    file = workspace.selected / "galaxies.parquet"
    galaxies = read_table(file, "galaxies")
    write_table(file, galaxies.filter(galaxies["x_proj"].to_numpy() > -2), "galaxies")
    after = units.survey_masses(one, units.read_survey(workspace))
    assert not after.equals(before)


def test_a_look_at_galweight_gives_the_offsets_and_is_counted(copied):
    workspace, params, _ = copied
    study.run_ingredients(workspace, params, only=ONLY, seeds=SEEDS, compare_galweight=True)
    assert not (workspace.study / "looks.json").exists()  # an embedded survey hides nothing
    real = Workspace(workspace.root, "smoke", "sdss")
    shutil.copytree(workspace.selected, real.selected)
    real_params = params.model_copy(update={"survey": "sdss"})
    for looks in (1, 2):
        table = study.run_ingredients(
            real, real_params, only=ONLY, seeds=SEEDS, compare_galweight=True
        ).table
        assert len(read_json(real.study / "looks.json")) == looks
    row = next(r for r in table.to_pylist() if (r["ingredient"], r["seed"]) == (EVERYTHING, 1))
    one = unit(real, real_params, EVERYTHING)
    masses = read_table(one.folder / "sdss.parquet", "masses").to_pandas()
    clusters = read_table(real.selected / "clusters.parquet", "clusters").to_pandas()
    offset = (masses.log10_m200c_p50 - clusters.log10_m200_galweight).dropna()
    assert row["galweight_offset_median"] == pytest.approx(offset.median(), abs=1e-12)
    assert row["galweight_scatter"] == pytest.approx(offset.std(), rel=1e-9)
    pulls = pull(
        masses.log10_m200c_p16, masses.log10_m200c_p50, masses.log10_m200c_p84,
        clusters.log10_m200_galweight, clusters.log10_m200_galweight_err,
    )  # fmt: skip
    assert row["galweight_pull_std"] == pytest.approx(np.nanstd(pulls, ddof=1), rel=1e-9)


# ------------------------------------------------------------------------------------ nuisance


def test_nuisance_judges_each_network_on_each_kind(copied, monkeypatch):
    workspace, params, _ = copied
    before = made(workspace)
    result = study.run_nuisance(workspace, params, seeds=SEEDS)
    after = made(workspace)
    # the full simulator's networks serve both studies
    assert {n for n in after if after[n] != before.get(n)} == {
        f"{study.NUISANCE}-{s}" for s in SEEDS
    }
    rows = {(r["trained_on"], r["evaluated_on"], r["seed"]): r for r in result.table.to_pylist()}
    drawn, fixed = study.KINDS.values()
    assert set(rows) == {
        (a, b, s) for a in (drawn, fixed) for b in (drawn, fixed, "embedded") for s in SEEDS
    }
    one = unit(workspace, params, study.NUISANCE)
    table = one.predictions("reference").to_pandas()
    row = rows[fixed, drawn, 1]
    e = table.log10_m200c_true - table.log10_m200c
    assert row["epsilon_mean"] == pytest.approx(e.mean(), abs=1e-12)
    inside = table.probability_below_true.dropna().between(0.158655, 0.841345)
    assert row["coverage_68"] == pytest.approx(inside.mean())
    width = (table.log10_m200c_p84 - table.log10_m200c_p16).dropna() / 2
    assert row["half_width_median"] == pytest.approx(width.median())
    mine = unit(workspace, params, EVERYTHING).predictions("own").to_pandas()
    shift = table.set_index("cluster_id").log10_m200c - mine.set_index("cluster_id").log10_m200c
    assert row["shift_median"] == pytest.approx(shift.median(), abs=1e-12)
    assert rows[drawn, fixed, 1]["shift_median"] is None
    assert result.markdown.count("\n") == 1 + 6


def test_full_size_is_the_profiles_own(tmp_path):
    params = small_params()
    workspace = Workspace(tmp_path, "smoke", "embedded")
    small, full = (
        units.plan_unit(study.NUISANCE, 7, workspace, params, full=f) for f in (False, True)
    )
    assert (small.params.voxels.n, full.params.voxels.n) == (10, params.voxels.n)
    assert full.params.split == params.split
    assert full.params.mock.haloes == params.mock.haloes
    assert full.params.mock != params.mock
    assert full.params.seed == small.params.seed == 7
    assert full.folder != small.folder


# ----------------------------------------------------------------------------------- documents


def test_markdown_has_a_line_for_each_ingredient(done):
    _, _, result = done
    lines = result.markdown.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "nothing", "nothing, another seed", "uniform field", "substructure",
    ]  # fmt: skip
    assert {line.count("|") for line in lines} == {10}
    assert "GalWeight" not in result.markdown
    scatter = [r["epsilon_scatter"] for r in result.table.to_pylist()
               if r["ingredient"] == EVERYTHING]  # fmt: skip
    spread = abs(scatter[0] - scatter[1]) / 2
    assert lines[2].split("|")[3].strip() == f"{np.mean(scatter):.3f} ± {spread:.3f}"
    one_seed = result.table.filter([s == 1 for s in result.table["seed"].to_pylist()])
    line = documents.ingredients_markdown(one_seed, "embedded").splitlines()[2]
    assert line.split("|")[3].strip() == f"{scatter[0]:.3f}"  # one value has no range


def test_results_stand_between_their_markers(tmp_path):
    document = tmp_path / "d.md"
    document.write_text("a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n")
    for _ in range(2):
        documents.put_between_markers(document, "x", "| new |")
        assert document.read_text() == "a\n<!-- begin x -->\n| new |\n<!-- end x -->\nb\n"
    with pytest.raises(InputError, match="lacks <!-- begin y -->"):
        documents.put_between_markers(document, "y", "")


def test_the_documentation_has_a_place_for_both_tables():
    text = (Path(__file__).parents[2] / "docs" / "mocks.md").read_text(encoding="utf-8")
    for name in ("study ingredients", "study nuisance"):
        assert text.count(f"<!-- begin {name} -->") == text.count(f"<!-- end {name} -->") == 1


# ------------------------------------------------------------------------------------- command


def call(*arguments: str):
    return CliRunner().invoke(cli.app, ["study", *arguments], terminal_width=200)


def test_dry_run_lists_the_work_and_does_none(tmp_path):
    answer = call("ingredients", "--dry-run", "--data", str(tmp_path), "--seed", "3",
                  "--only", "substructure")  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert "to do  everything, seed 3" in answer.output
    assert "to do  no substructure, seed 3" in answer.output
    assert "2 of 2 networks to train: about" in answer.output
    assert not (tmp_path / "standard").exists()


def test_all_ingredients_and_seeds_by_default(tmp_path):
    answer = call("ingredients", "--dry-run", "--data", str(tmp_path))
    n = 2 * (1 + len(INGREDIENTS))
    assert f"{n} of {n} networks" in answer.output


def test_an_unknown_ingredient_is_a_wrong_parameter(tmp_path):
    answer = call("ingredients", "--only", "salt", "--data", str(tmp_path))
    assert answer.exit_code == ParameterError.exit_code
    assert "no ingredient 'salt'" in answer.output


@pytest.mark.parametrize("name", ["ingredients", "nuisance"])
def test_commands_have_examples_and_options(name):
    text = call(name, "--help").output
    for words in (f"cmass study {name}", "--compare-galweight", "--seed", "--docs", "Exit codes"):
        assert words in text


def test_the_command_writes_the_table_into_a_document(copied, tmp_path, monkeypatch):
    workspace, params, result = copied
    monkeypatch.setattr(cli, "_resolve", lambda *_: (workspace, params))
    document = tmp_path / "d.md"
    document.write_text("<!-- begin study ingredients -->\n<!-- end study ingredients -->\n")
    answer = call("ingredients", "--seed", "1", "--seed", "2", "--only", ONLY[0], "--only", ONLY[1],
                  "--docs", str(document))  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert result.markdown in document.read_text()
    assert "0 of 6 networks to train" in answer.output


def test_the_estimate_follows_what_units_took(copied):
    workspace, params, _ = copied
    plan = study.plan(ONLY, (1, 2, 3), workspace, params)
    for one in plan[:6]:
        card = one.folder / "unit.json"
        card.write_text(json.dumps(read_json(card) | {"seconds": 100.0}))
    assert study.estimated_seconds(plan) == 300
    assert study.estimated_seconds(plan[:6]) == 0
    # windows and voxels of the standard profile at eight times the voxels cost more
    big = params.model_copy(update={"study": Params().study})
    fresh = [unit(workspace, big, EVERYTHING, 9)]
    assert study.estimated_seconds(fresh) > 20


@pytest.mark.parametrize(
    ("seconds", "words"), [(45, "45 s"), (130, "2 min"), (5 * 3600 + 240, "5 h 04 min")]
)
def test_times_in_words(seconds, words):
    assert study.in_words(seconds) == words


def test_a_study_needs_a_seed(tmp_path):
    with pytest.raises(ParameterError, match="one seed"):
        study.plan(ONLY, (), Workspace(tmp_path, "smoke", "embedded"), small_params())


def test_simulation_files_have_no_ingredients(tmp_path):
    params = small_params()
    files = params.model_copy(update={"mock": params.mock.model_copy(update={"source": "authors"})})
    with pytest.raises(ParameterError, match="mock.source is authors"):
        study.plan(ONLY, (1,), Workspace(tmp_path, "smoke", "embedded"), files)


def test_the_code_that_counts_is_the_simulators_and_the_networks(monkeypatch):
    caught = []
    monkeypatch.setattr(units, "source_digest", lambda *names: caught.extend(names) or "digest")
    units._code_digest.__wrapped__()
    assert {"mock/members.py", "mock/observer.py", "mock/__init__.py", "voxels.py"} <= set(caught)
    assert not {"mock/ingredients.py", "mock/boxes"} & set(caught)
