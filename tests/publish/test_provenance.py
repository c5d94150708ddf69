"""Provenance: complete in JSON, the same in every clone in Parquet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from cmass.params import Params
from cmass.publish.provenance import as_table, gather, git_state, package_versions
from cmass.tables import read_json, read_table, write_json
from cmass.workspace import Workspace


def test_statements_cover_sources_model_parameters_and_software(
    released: Workspace, params: Params
) -> None:
    table = read_table(released.releases / "latest" / "provenance.parquet", "provenance")
    facts = {(r["item"], r["property"]): r["text"] for r in table.to_pylist()}
    assert facts["sources", "clusters.licence"] == "CC0"
    assert facts["model", "n_weights"] == "123189"
    assert facts["parameters", "voxels.kappa"] == str(params.voxels.kappa)
    assert facts["parameters", "seed"] == str(params.seed)
    assert facts["software", "duckdb"] == duckdb.__version__
    assert facts["release", "survey"] == "embedded"


def test_what_differs_between_clones_stays_in_json(released: Workspace) -> None:
    latest = released.releases / "latest"
    facts = read_json(latest / "provenance.json")
    assert facts["sources"]["clusters"]["retrieved"] == "2026-11-22T08:00:00+00:00"
    assert "T" in facts["release"]["created"]
    table = read_table(latest / "provenance.parquet", "provenance")
    properties = set(table["property"].to_pylist())
    assert not {"clusters.retrieved", "created", "workers", "scheduler", "mirror"} & properties
    texts = " ".join(table["text"].to_pylist())
    assert str(released.root) not in texts


def test_the_order_of_parameters_is_no_matter(make_workspace, params: Params) -> None:
    facts = gather(make_workspace(n_clusters=3), params)
    turned = {item: dict(reversed(list(value.items()))) for item, value in facts.items()}
    assert as_table(turned).equals(as_table(facts))


def test_the_registry_is_left_to_json(make_workspace, params: Params) -> None:
    workspace = make_workspace(n_clusters=3)
    facts = gather(workspace, params) | {"registry": {"run_id": "abc"}}
    assert "registry" not in as_table(facts)["item"].to_pylist()


def test_the_release_names_its_model_and_what_that_was_made_with(make_workspace, params: Params):
    workspace = make_workspace(n_clusters=3)
    assert (
        gather(workspace, params)["registry"] == gather(workspace, params)["model_parameters"] == {}
    )
    write_json(workspace.champion / "champion.json", {"name": "cmass-cnn3d-smoke", "version": "3"})
    made_with = {"train": params.train.model_dump(mode="json") | {"epochs": 99},
                 "split": params.split.model_dump(mode="json")}  # fmt: skip
    write_json(workspace.champion / "settings.json", {"made_with": made_with})
    facts = gather(workspace, params)
    assert facts["registry"]["version"] == "3"
    assert set(facts["model_parameters"]) == {"train"}
    assert facts["model_parameters"]["train"]["epochs"] == 99


def test_versions_are_those_installed() -> None:
    versions = package_versions()
    assert versions["duckdb"] == duckdb.__version__
    assert versions["python"].count(".") == 2


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_is_the_one_git_names() -> None:
    root = Path(__file__).parents[2]
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        pytest.skip("not in a clone")
    state = git_state()
    assert len(state["git_commit"]) == 40
    assert state["git_state"] in ("clean", "dirty")
