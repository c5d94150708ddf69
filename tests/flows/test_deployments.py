"""prefect.yaml and the lists of steps: what the service runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from cmass.params import Params
from cmass.pipeline import RUNS, STEPS, release_steps
from cmass.workspace import Workspace
from flows.backfill import StepName
from flows.steps import RELEASE

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def flow_of(deployment: dict):
    file, _, name = deployment["entrypoint"].partition(":")
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    return getattr(module, name)


def test_runs_are_steps_of_the_pipeline_in_order():
    names = [s.name for s in STEPS]
    assert list(RUNS["first"]) == names
    for steps in RUNS.values():
        assert list(steps) == [n for n in names if n in steps]
    # a release after a retraining has run everything, and neither runs what the other does
    assert sorted([*RUNS["retrain"], *RUNS["release"]]) == sorted(names)


def test_a_release_trains_only_where_there_is_no_champion(tmp_path, monkeypatch):
    from cmass.promotion import champion

    workspace, params = Workspace(tmp_path, "smoke", "embedded"), Params(profile="smoke")
    monkeypatch.setattr(champion, "outside", lambda *_: {})
    assert release_steps(workspace, params) == RUNS["first"]
    monkeypatch.setattr(champion, "outside", lambda *_: {"version": "1"})
    assert release_steps(workspace, params) == RUNS["release"]
    assert "train" not in RUNS["release"]


def test_there_is_a_deployment_for_every_flow():
    found = {f"{flow_of(d).name}/{d['name']}" for d in DEPLOYMENTS}
    assert found == {
        "cmass-ingest/nightly", RELEASE, "cmass-retrain/weekly", "cmass-backfill/one-step",
    }  # fmt: skip


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_parameters_have_types_and_words(deployment):
    flow = flow_of(deployment)
    schema = flow.parameters.model_dump()
    assert deployment["enforce_parameter_schema"]
    for name, one in schema["properties"].items():
        assert "type" in one or "anyOf" in one or "allOf" in one or "$ref" in one, name
        assert one.get("description"), name
    # nothing chooses for params.yaml
    defaults = {n: p.get("default") for n, p in schema["properties"].items()}
    assert all(defaults[n] is None for n in ("profile", "survey", "data", "params_file"))


def test_the_night_and_the_week_are_scheduled():
    crons = {d["name"]: [s["cron"] for s in d.get("schedules", [])] for d in DEPLOYMENTS}
    assert crons == {
        "nightly": ["17 2 * * *"], "on-change": [], "weekly": ["37 3 * * 0"], "one-step": [],
    }  # fmt: skip


def test_backfill_offers_every_step():
    assert [s.value for s in StepName] == [s.name for s in STEPS]
