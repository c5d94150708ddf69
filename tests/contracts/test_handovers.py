"""Each hand-over: whole tables pass, one broken on purpose is named; accounts; who may read what."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmass import ingest, pipeline
from cmass.contracts import handovers
from cmass.contracts.handovers import Account, _counted, check, examine, result_file
from cmass.contracts.suites import broken
from cmass.errors import ContractError, InputError
from cmass.params import load_params
from cmass.pipeline import Step, run_all, run_step
from cmass.tables import read_json
from cmass.workspace import Workspace
from tests.surveys import (
    REPOSITORY,
    catalogue,
    csv_text,
    dat_text,
    galaxy_rows,
    window_text,
    xray_catalogue,
)


@pytest.fixture
def copied(tiny_run, tmp_path):
    """The finished run in small, to be broken: workspace and parameters."""
    workspace, params = tiny_run
    shutil.copytree(workspace.home, tmp_path / "data" / workspace.profile)
    return Workspace(tmp_path / "data", workspace.profile, workspace.survey), params


@pytest.fixture
def mirrored(tmp_path):
    """Function that ingests small catalogues, two of whose rows are bad: workspace and parameters."""

    def make(bad: int = 2):
        folder = tmp_path / "mirror"
        for name in ("galwcat19", "sdss", "reference"):
            (folder / name).mkdir(parents=True)
        rows = catalogue()
        for number in range(bad):
            rows[3 + number]["RAJ2000"] = 361.0
        (folder / "galwcat19" / "galwcls.dat").write_text(dat_text(rows))
        (folder / "sdss" / "window.ply").write_text(window_text())
        (folder / "reference" / "mcxc2.csv").write_text(csv_text(xray_catalogue()))
        table = {name: [r[name] for r in galaxy_rows()] for name in ("ra", "dec", "z")}
        pq.write_table(pa.table(table), folder / "sdss" / "galaxies.parquet")
        params = load_params(REPOSITORY / "params.yaml", survey="sdss", mirror=str(folder))
        workspace = Workspace(tmp_path / "data", "standard", "sdss")
        return workspace, params

    return make


def change(path, **columns):
    """Put other values into columns of a Parquet file, whatever the dictionary says of them."""
    file = sorted(path.glob("*.parquet"))[0] if path.is_dir() else path
    table = pq.read_table(file)
    for name, alter in columns.items():
        values = table[name].to_pylist()
        alter(values)
        place = table.column_names.index(name)
        field = table.schema.field(name).with_nullable(True)
        table = table.set_column(place, field, pa.array(values, field.type))
    pq.write_table(table, file)


def put(row, value):
    def alter(values):
        values[row] = value

    return alter


def drop(path, row=0):
    """Remove one row of a Parquet file."""
    file = sorted(path.glob("*.parquet"))[0] if path.is_dir() else path
    table = pq.read_table(file)
    keep = np.ones(table.num_rows, bool)
    keep[row] = False
    pq.write_table(table.filter(pa.array(keep)), file)


@pytest.mark.parametrize("step", ["mock", "population", "split", "voxelize", "posterior", "infer"])
def test_a_whole_run_keeps_its_contracts(tiny_run, step):
    result = examine(step, *tiny_run)
    assert broken(result) == []
    assert result["success"] and all(a["balanced"] for a in result["accounts"])
    assert result == examine(step, *tiny_run)


#: Step, how a product of it is broken, words of the message.
DAMAGE = [
    ("mock", lambda w: change(w.mock / "clusters", log10_m200c_true=put(0, 25.0)),
     "table mock_clusters, log10_m200c_true: .*1 of 540 rows break it: 25.0"),
    ("mock", lambda w: change(w.mock / "clusters", cluster_id=put(0, "mock-000000-01")),
     "mock_clusters, cluster_id: expect column values to be unique"),
    ("mock", lambda w: change(w.mock / "galaxies", x_proj=put(0, float("nan"))),
     "mock_galaxies, x_proj.*(missing|null|finite)"),
    ("mock", lambda w: change(w.mock / "galaxies", v_los=put(0, 9000.0)), r"largest \|v_los\|.*9000"),
    ("mock", lambda w: drop(w.mock / "galaxies"), "galaxies: counted, listed: rows unaccounted for.*; 1$"),
    ("population", lambda w: change(w.population / "clusters", z=put(0, -0.1)), "mock_clusters, z: "),
    ("split", lambda w: change(w.split / "split.parquet", cluster_id=put(0, "mock-000000-00"),
                               set=put(0, "test")), "split, cluster_id|haloes in two sets"),
    ("split", lambda w: drop(w.mock / "clusters"), "of the mock, in sets: rows unaccounted for"),
    ("voxelize", lambda w: drop(w.voxels / "test"), "windows of test.*rows unaccounted for"),
    ("voxelize", lambda w: change(w.voxels / "train", cluster_id=put(0, "nobody")),
     "clusters that the split does not have in the set.*; 1$"),
    ("voxelize", lambda w: change(w.voxels / "train", voxels=put(0, bytes(2 * 26**3))),
     "least sum of a grid.*; 0$"),
    ("voxelize", lambda w: change(w.voxels / "train", voxels=put(3, b"\x00\x7e" * 26**3)),
     "voxels that are not finite, .*; 17576$"),
    ("voxelize", lambda w: change(w.voxels / "train", voxels=put(3, b"\x00\xbc" * 26**3)),
     "voxels below zero, .*; 17576$"),
    ("posterior", lambda w: change(w.posterior / "predictions.parquet", log10_m200c=put(0, 3.0)),
     "predictions, log10_m200c: .*break it: 3.0"),
    ("posterior", lambda w: change(w.posterior / "predictions.parquet", log10_m200c=put(slice(None), [14.2] * 200)),
     "scatter of point estimates"),
    ("posterior", lambda w: drop(w.posterior / "predictions.parquet"), "split, predicted: rows unaccounted"),
    ("posterior", lambda w: change(w.posterior / "posterior_grid.parquet", prior_flat=put(0, 0.9)),
     "sum of prior_flat"),
    ("infer", lambda w: drop(w.masses / "masses.parquet", 9), "with a row of masses: rows unaccounted for"),
    ("infer", lambda w: change(w.masses / "masses.parquet", log10_m200c_p16=put(9, 15.5)),
     "percentiles are out of order.*; 1$"),
    ("infer", lambda w: change(w.masses / "masses.parquet", log10_m200c=put(9, None)),
     "with a row, with a mass: rows unaccounted for"),
    ("infer", lambda w: change(w.masses / "masses.parquet", posterior=put(9, [0.5] * 24)),
     "largest error of a posterior's sum.*; 11$"),
    ("infer", lambda w: change(w.masses / "masses.parquet", flag=put(9, -1)), "masses, flag: "),
]  # fmt: skip


@pytest.mark.parametrize("step, damage, words", DAMAGE, ids=range(len(DAMAGE)))
def test_what_is_broken_is_named(copied, step, damage, words):
    workspace, params = copied
    damage(workspace)
    with pytest.raises(
        ContractError, match=f"(?ms)what {step} hands over breaks its contract.*{words}"
    ):
        check(step, workspace, params, made={}, read={})
    assert not read_json(result_file(workspace, step))["success"]


def test_raw_and_selected(mirrored):
    """Two bad rows: in quarantine, accounted for, in no other table."""
    workspace, params = mirrored()
    assert run_step("ingest", workspace, params)
    accounts = {a["item"]: a for a in read_json(result_file(workspace, "ingest"))["accounts"]}
    assert accounts["raw_clusters"] == {
        "item": "raw_clusters", "rows_in": 30, "rows_out": 28, "balanced": True,
        "set_aside": [{"reason": "ra must be < 360", "n": 2}],
    }  # fmt: skip
    assert set(accounts) == {"raw_clusters", "raw_galaxies", "raw_footprint", "xray_clusters"}

    # a row that leaves quarantine by another hand is missed
    drop(workspace.raw / "quarantine.parquet")
    result = examine("ingest", workspace, params)
    assert "raw_clusters: rows unaccounted for" in broken(result)[0]


def test_reasons_that_differ_in_their_numbers_are_one():
    reasons = ["ra must be < 360"] * 2 + [f"the same as in row {row}" for row in (3, 17)]
    assert _counted(reasons) == {"ra must be < 360": 2, "the same as in row 3 and the like": 2}


def test_selected_and_rejected_are_all_clusters(copied):
    workspace, params = copied
    ids = ["a"] * 32  # as many as selected and rejected together
    pq.write_table(pa.table({"cluster_id": ids}), workspace.raw / "clusters.parquet")
    wide = params.model_copy(
        update={"contracts": params.contracts.model_copy(update={"no_mass_max_fraction": 0.2})}
    )
    result = examine("select", workspace, wide)
    assert broken(result) == []
    assert result["accounts"][0]["set_aside"] == [
        {"reason": "near the footprint's rim", "n": 1}, {"reason": "too far", "n": 1},
    ]  # fmt: skip
    drop(workspace.selected / "rejected.parquet")
    assert "of raw, selected: rows unaccounted for" in broken(examine("select", workspace, wide))[0]
    change(workspace.selected / "galaxies.parquet", cluster_id=put(0, "nobody"))
    assert any(
        "clusters that are not selected" in w for w in broken(examine("select", workspace, wide))
    )


def test_too_many_bad_rows_end_the_run_and_name_the_remedy(mirrored):
    workspace, params = mirrored(bad=6)
    with pytest.raises(InputError, match=r"6 of 30 rows.*galwcls.dat.*contracts.quarantine"):
        run_step("ingest", workspace, params)
    assert not workspace.raw.exists()
    more = params.contracts.quarantine.model_copy(update={"max_rows": 6})
    contracts = params.contracts.model_copy(update={"quarantine": more})
    assert run_step("ingest", workspace, params.model_copy(update={"contracts": contracts}))


def test_our_own_survey_may_have_no_bad_row(tmp_path, monkeypatch):
    from cmass.mock import survey

    params = load_params(REPOSITORY / "params.yaml", "smoke")
    made = survey.make_survey(params)
    z = made["raw_galaxies"]["z"].to_pylist()
    z[5] = -1.0
    bad = made["raw_galaxies"].set_column(
        made["raw_galaxies"].column_names.index("z"), "z", pa.array(z)
    )
    monkeypatch.setattr(survey, "make_survey", lambda params: made | {"raw_galaxies": bad})
    with pytest.raises(InputError, match=r"1 of \d+ rows of table raw_galaxies are bad.*row 5"):
        ingest.run(Workspace(tmp_path, "smoke", "embedded"), params)


def test_accounts():
    assert Account("x", 10, 7, {"far": 2, "few": 1}).missing == 0
    assert Account("x", 10, 7, {"far": 2}).missing == 1
    assert Account("x", 10, 11).missing == -1


# ------------------------------------------------------------------------------- the pipeline


def test_a_result_is_kept_while_nothing_changes(copied, monkeypatch):
    workspace, params = copied
    made, read = {"a": "1"}, {"b": "2"}
    first = check("split", workspace, params, made=made, read=read)
    file = result_file(workspace, "split")
    before = file.read_bytes()
    calls = []
    real = handovers.examine
    monkeypatch.setattr(handovers, "examine", lambda *a: calls.append(a) or real(*a))
    assert check("split", workspace, params, made=made, read=read) == first
    assert check("split", workspace, params, made=made, read=None) == first  # inputs are gone
    assert calls == []
    stricter = params.contracts.model_copy(update={"blended_max_fraction": 0.1})
    for options in (
        {"made": {"a": "3"}},
        {"read": {"b": "3"}},
        {"params": params.model_copy(update={"contracts": stricter})},
    ):
        check(**({"step": "split", "workspace": workspace, "params": params, "made": made, "read": read}
                 | options))  # fmt: skip
    assert len(calls) == 3
    file.write_text("{")
    check("split", workspace, params, made=made, read=read)
    assert file.read_bytes() == before


def _copy(workspace, params):
    workspace.split.mkdir(parents=True, exist_ok=True)
    shutil.copy(workspace.root / "good.parquet", workspace.split / "split.parquet")


def _reader(workspace, params):
    (workspace.model).mkdir(exist_ok=True)
    (workspace.model / "model.txt").write_text(str(pq.read_table(workspace.split).num_rows))


@pytest.fixture
def two_steps(copied, monkeypatch):
    """A pipeline of two steps: one writes the split, the other reads it."""
    workspace, params = copied
    shutil.copy(workspace.split / "split.parquet", workspace.root / "good.parquet")
    here = __name__
    steps = (
        Step("split", f"{here}:_copy", "", (), lambda w: (w.mock,), lambda w: (w.split,), hands_over=True),
        Step("train", f"{here}:_reader", "", (), lambda w: (w.split,), lambda w: (w.model / "model.txt",)),
    )  # fmt: skip
    monkeypatch.setattr(pipeline, "STEPS", steps)
    return workspace, params


def test_a_step_that_breaks_its_contract_leaves_no_stamp_and_is_not_read(two_steps):
    workspace, params = two_steps
    drop(workspace.root / "good.parquet")
    change(workspace.root / "good.parquet", cluster_id=put(1, "nobody"))
    with pytest.raises(ContractError, match="split, cluster_id|rows unaccounted for"):
        run_all(workspace, params)
    assert not (workspace.home / ".stamps" / "split.json").exists()
    with pytest.raises(ContractError, match="No step reads it"):
        run_step("train", workspace, params)
    assert not (workspace.model / "model.txt").exists()


def test_a_table_that_another_hand_changed_is_not_read(two_steps):
    workspace, params = two_steps
    assert run_all(workspace, params) == ["split", "train"]
    assert run_all(workspace, params) == []
    change(workspace.split / "split.parquet", set=put(0, "test"))
    with pytest.raises(ContractError, match="haloes in two sets"):
        run_step("train", workspace, params)
    # the step itself makes it anew
    assert run_all(workspace, params) == ["split"]


def test_a_contract_that_is_lost_is_checked_again_and_nothing_is_made_again(two_steps):
    workspace, params = two_steps
    run_all(workspace, params)
    file = result_file(workspace, "split")
    before = file.read_bytes()
    file.unlink()
    assert run_all(workspace, params) == []
    assert file.read_bytes() == before


def test_every_hand_over_is_held_to_its_contract():
    from cmass.pipeline import STEPS as ALL

    assert {s.name for s in ALL if s.hands_over} == set(handovers.HANDOVERS)
    per_survey = {s.name for s in ALL if s.per_survey}
    workspace = Workspace(REPOSITORY / "data", "smoke", "embedded")
    for step in handovers.HANDOVERS:
        folder = workspace.home / workspace.survey if step in per_survey else workspace.home
        assert result_file(workspace, step).parent == folder / "contracts"


def test_a_shard_that_is_cut_short_is_named(tiny_workspace, tmp_path):
    """Before anything is read of it but its end."""
    source, params = tiny_workspace
    shutil.copytree(source.root, tmp_path / "data")
    workspace = Workspace(tmp_path / "data", source.profile, source.survey)
    file = min((workspace.voxels / "test").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"not a readable Parquet file.*{file.name}"):
        examine("voxelize", workspace, params)
