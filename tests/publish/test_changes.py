"""What changed between two releases: the right clusters, numbers and words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cmass.cli import app
from cmass.errors import InputError, WorkspaceError
from cmass.params import Params
from cmass.publish import changes, run
from cmass.publish.release import version_folder
from cmass.tables import check_table, make_table, read_table, write_table
from cmass.versions.archive import parquet_sums
from tests.contracts.test_drift import release

FACTS = {"release": {"version": "then"}, "parameters": {"a": 1}, "sources": {}, "model": {}}
AFTER = {"release": {"version": "now"}, "parameters": {"a": 2}, "sources": {}, "model": {}}


def _masses(**columns: object) -> pa.Table:
    """Ten clusters of the drift tests with errors of 0.1 below and 0.2 above."""
    table = release(n=10)["masses"]
    values = dict(zip(table.column_names, table.columns, strict=True))
    values |= {"sigma_minus": [0.1] * 10, "sigma_plus": [0.2] * 10, **columns}
    return make_table("masses", values)


def _compare(last: pa.Table, now: pa.Table) -> changes.Changes:
    found = changes.between(last, now, FACTS, AFTER, "then", "now")
    check_table(found.table, changes.TABLES["changes"])
    return found


def _shifted(shift: dict[int, float]) -> pa.Table:
    p50 = np.array(_masses()["log10_m200c_p50"].to_pylist())
    for row, value in shift.items():
        p50[row] += value
    return _masses(log10_m200c_p50=p50)


def test_the_same_tables_differ_in_nothing() -> None:
    found = _compare(_masses(), _masses())
    assert found.table.num_rows == 0
    assert found.numbers["unchanged"] == found.numbers["compared"] == 10
    assert set(found.numbers["kinds"].values()) == {0}


def test_a_change_counts_in_errors_of_its_side() -> None:
    # 0.15 is 1.5 sigma down and 0.75 sigma up
    found = _compare(_masses(), _shifted({1: -0.15, 2: 0.15, 3: 0.5, 4: -0.099}))
    rows = found.table.to_pylist()
    assert [r["cluster_id"] for r in rows] == ["C-0003", "C-0001"]  # the largest first
    assert [r["mass_change_sigma"] for r in rows] == pytest.approx([2.5, -1.5])
    assert [r["mass_change_dex"] for r in rows] == pytest.approx([0.5, -0.15])
    assert rows[0]["log10_m200c_now"] - rows[0]["log10_m200c_last"] == pytest.approx(0.5)
    assert found.numbers["kinds"]["changed"] == 2
    assert found.numbers["unchanged"] == 6
    text = found.markdown()
    assert "| C-0003 |" in text
    assert "| changed by more than 1σ of the earlier release | 2 |" in text
    assert "- parameters: a" in text


def test_clusters_come_go_and_move() -> None:
    masses = _masses()
    gone = masses.slice(1)
    ids = masses["cluster_id"].to_pylist()
    new = _masses(cluster_id=["new", *ids[1:]])
    assert _compare(masses, gone).numbers["kinds"]["lost"] == 1
    assert _compare(gone, masses).numbers["kinds"]["added"] == 1
    both = _compare(masses, new).table.to_pylist()
    assert [(r["cluster_id"], r["change"]) for r in both] == [("new", "added"), (ids[0], "lost")]
    assert both[0]["log10_m200c_last"] is None
    assert both[1]["log10_m200c_now"] is None
    assert both[0]["flag_now"] == 0
    assert both[0]["flag_last"] is None
    dec = np.array(masses["dec"].to_pylist())
    dec[4] += 1 if dec[4] < 50 else -1
    (moved,) = _compare(masses, _masses(dec=dec)).table.to_pylist()
    assert (moved["cluster_id"], moved["change"]) == (ids[4], "moved")
    assert moved["mass_change_dex"] is None


def test_masses_are_gained_and_lost_and_errors_may_be_missing() -> None:
    masses = _masses()
    none = np.array(masses["log10_m200c_p50"].to_pylist())
    none[2] = np.nan
    without = _masses(log10_m200c=none, log10_m200c_p50=none)
    assert _compare(masses, without).numbers["kinds"]["mass_lost"] == 1
    assert _compare(without, masses).numbers["kinds"]["mass_gained"] == 1
    # without an error of its own, the median error counts
    sigma = [None, *[0.1] * 9]
    last = _masses(sigma_minus=sigma, sigma_plus=sigma, log10_m200c_p50=[None, *none.tolist()[1:]])
    changed = _compare(last, _shifted({0: 0.11})).table.to_pylist()
    assert ("C-0000", "changed") in {(r["cluster_id"], r["change"]) for r in changed}
    assert _compare(last, _shifted({0: 0.09})).numbers["kinds"]["changed"] == 0
    alone = _masses(sigma_minus=[None] * 10, sigma_plus=[None] * 10)
    assert _compare(alone, _shifted({0: 3.0})).numbers["kinds"]["changed"] == 0


def test_two_rows_of_a_cluster_are_refused() -> None:
    masses = _masses()
    twice = pa.concat_tables([masses, masses.slice(0, 1)])
    with pytest.raises(InputError, match="the later release has a cluster twice"):
        changes.between(masses, twice, FACTS, AFTER, "then", "now")


@pytest.fixture
def two(make_workspace, params: Params):
    """A workspace with two releases: one cluster less, one with another mass."""
    workspace = make_workspace(n_clusters=6)
    run(workspace, params)
    first = version_folder(workspace.releases, "latest")
    path = workspace.masses / "masses.parquet"
    masses = read_table(path, "masses")
    columns = dict(zip(masses.column_names, masses.columns, strict=True))
    for name in ("log10_m200c_p16", "log10_m200c_p50", "log10_m200c_p84"):
        values = columns[name].to_pylist()
        values[3] += 0.2  # of an error of 0.15
        columns[name] = values
    write_table(path, make_table("masses", columns), "masses")
    run(workspace, params)
    return workspace, first, version_folder(workspace.releases, "latest")


def test_a_release_says_what_changed_since_the_last(two) -> None:
    workspace, first, second = two
    assert "nothing to compare them with" in (first / "changes.md").read_text()
    assert read_table(first / "changes.parquet", "changes").num_rows == 0
    text = (second / "changes.md").read_text()
    assert f"Compared with {first.name}" in text
    assert "| changed by more than 1σ of the earlier release | 1 |" in text
    (row,) = read_table(second / "changes.parquet", "changes").to_pylist()
    assert (row["cluster_id"], row["change"]) == ("Test-0003", "changed")
    assert row["mass_change_dex"] == pytest.approx(0.2)
    # made again alone a release has no predecessor: a rebuild does not compare this file
    assert "changes.parquet" not in parquet_sums(second)
    assert "masses.parquet" in parquet_sums(second)

    call = CliRunner().invoke
    data = ["--data", str(workspace.root)]
    told = call(app, ["diff", first.name, *data])
    assert told.exit_code == 0
    assert told.stdout == text
    rows = call(app, ["diff", str(first), str(second), "--format", "json"])
    assert json.loads(rows.stdout)[0]["cluster_id"] == "Test-0003"
    back = call(app, ["diff", str(second), str(first), "--format", "csv"])
    assert "Test-0003,changed," in back.stdout.replace('"', "")
    unknown = call(app, ["diff", "2020.01.01-00000000", *data])
    assert unknown.exit_code == 5
    assert "`cmass releases` lists" in unknown.output


def test_a_release_of_before_the_formats_is_compared(two, tmp_path: Path) -> None:
    _, first, second = two
    old = tmp_path / first.name
    old.mkdir()
    for name in ("masses.parquet", "provenance.json"):
        shutil.copyfile(first / name, old / name)
    assert changes.between_folders(old, second).numbers["kinds"]["changed"] == 1
    (old / "provenance.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="no provenance of a release"):
        changes.between_folders(old, second)
