"""The headline numbers: chosen, in order, as text, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmass.errors import WorkspaceError
from cmass.headline import HEADLINES, headline_numbers, markdown, write_metrics
from cmass.tables import make_table, read_json, write_json, write_table
from cmass.workspace import Workspace


def numbers(*rows: tuple):
    names = ("metric", "bin", "value", "error", "paper_value", "unit")
    return make_table("calibration", {n: [r[i] for r in rows] for i, n in enumerate(names)})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path, "smoke", "embedded")
    of_mocks = numbers(
        ("n_clusters", "all", 80.0, None, None, ""),  # of the mocks: not the survey's number
        ("epsilon_scatter", "14.00-14.30", 0.9, None, None, "dex"),
        ("epsilon_scatter", "all", 0.1574, 0.0021, 0.16, "dex"),
        ("epsilon_mean", "all", -0.0004, 0.003, 0.04, "dex"),
        ("something_else", "all", 1.0, None, None, ""),
    )
    of_survey = numbers(
        ("n_clusters", "embedded", 61.0, None, None, ""),
        ("n_without_posterior", "embedded", 0.0, None, None, ""),
        ("pull_mean", "embedded", None, None, -0.02, ""),
    )
    write_table(workspace.evaluation / "calibration.parquet", of_mocks, "calibration")
    write_table(workspace.masses / "comparison.parquet", of_survey, "calibration")
    return workspace


def test_order_choice_and_cells(workspace):
    found = headline_numbers(workspace)
    names = [n.metric for n in found]
    assert names == [
        "epsilon_mean", "epsilon_scatter", "n_clusters", "n_without_posterior", "pull_mean",
    ]  # fmt: skip
    assert names == [n for n in HEADLINES if n in names]
    cells = {n.metric: n.cells()[1:] for n in found}
    assert cells["epsilon_scatter"] == ("0.157 dex", "0.002", "0.160")
    assert cells["epsilon_mean"] == ("-0.000 dex", "0.003", "0.040")
    assert cells["n_clusters"] == ("61", "", "")
    assert cells["n_without_posterior"] == ("0", "", "")
    assert cells["pull_mean"] == ("", "", "-0.020")


def test_markdown_is_a_table_with_the_version(workspace):
    write_json(workspace.receipt, {"version": "2026.01.01-abcdef01"})
    text = markdown(workspace)
    lines = text.splitlines()
    assert lines[0] == "## cmass smoke/embedded: release 2026.01.01-abcdef01"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 5
    assert {row.count("|") for row in rows} == {5}


def test_metrics_file_has_one_level_a_bin(workspace, tmp_path):
    path = tmp_path / "metrics.json"
    write_metrics(path, numbers(
        ("epsilon_mean", "all", 0.01, None, None, "dex"),
        ("epsilon_mean", "14.0-14.3", 0.02, None, None, "dex"),
        ("coverage_68", "all", None, None, None, ""),
    ))  # fmt: skip
    assert read_json(path) == {"all": {"epsilon_mean": 0.01}, "14.0-14.3": {"epsilon_mean": 0.02}}


def test_without_results_it_says_what_is_missing():
    with pytest.raises(WorkspaceError, match="calibration.parquet does not exist: run the step"):
        headline_numbers(Workspace(Path("/nowhere"), "smoke", "embedded"))
