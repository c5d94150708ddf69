"""The flows under a real server: states, artifact, retries, one at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_run_logger

from cmass import pipeline
from cmass.errors import SourceError, WorkspaceError
from cmass.pipeline import STEPS, Step
from cmass.tables import make_table, write_json, write_table
from cmass.workspace import Workspace

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"
CALLS: list[str] = []
SECRET = "open-" + "sesame"  # in two words: tracebacks show lines of this file


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """POST to the server's API, as any other program would."""
    request = urllib.request.Request(
        f"{api}/{path}", data=json.dumps(body or {}).encode(),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def newest_run(api: str, flow: str) -> dict[str, Any]:
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    return ask(api, "flow_runs/filter", body)[0]


def work(workspace: Workspace, params: Any) -> None:
    """A step: everything that the headline needs."""
    CALLS.append("work")
    rows = {
        "metric": ["epsilon_mean", "n_clusters"], "bin": ["all", "embedded"],
        "value": [0.012, 61.0], "error": [0.003, None], "paper_value": [0.04, None],
        "unit": ["dex", ""],
    }  # fmt: skip
    table = make_table("calibration", rows)
    for folder in (workspace.evaluation, workspace.champion / "evaluation"):
        write_table(folder / "calibration.parquet", table, "calibration")
    write_table(workspace.masses / "comparison.parquet", table, "calibration")
    write_json(workspace.receipt, {"version": "2026.01.01-abcdef01"})


def one(function=work) -> tuple[Step, ...]:
    return (
        Step("ingest", f"{__name__}:{function.__name__}", "", ("seed",), lambda w: (),
             lambda w: (w.evaluation, w.masses, w.receipt), per_survey=True),
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """A pipeline of one quick step in place of the real ones."""
    from flows import release

    CALLS.clear()
    monkeypatch.setattr(pipeline, "STEPS", one())
    monkeypatch.setitem(pipeline.RUNS, "release", ("ingest",))
    return release


def test_run_is_completed_with_its_artifact(prefect_api, small, tmp_path):
    data = tmp_path / "data"
    assert small.release(profile="smoke", data=data, params_file=PARAMS) == ["ingest"]
    run = newest_run(prefect_api, "cmass-release")
    assert run["state_type"] == "COMPLETED"
    assert run["parameters"]["profile"] == "smoke"
    tasks = ask(prefect_api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert [(t["name"], t["state_type"]) for t in tasks] == [("ingest", "COMPLETED")]
    artifacts = ask(
        prefect_api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    )
    text = next(a["data"] for a in artifacts if a["key"] == "cmass-headline")
    assert "release 2026.01.01-abcdef01" in text
    (row,) = json.loads(next(a["data"] for a in artifacts if a["key"] == "cmass-steps"))
    assert (row["step"], row["ran"], row["why"]) == ("ingest", "yes", "not made yet")
    assert row["seconds"] >= 0
    assert next(a["data"] for a in artifacts if a["key"] == "cmass-progress") == 100
    assert "| mocks: mean of log10(M_true/M_pred) | 0.012 dex | 0.003 | 0.040 |" in text
    assert "| survey: clusters in the catalogue | 61 |  |  |" in text
    # the second run finds everything up to date
    assert small.release(profile="smoke", data=data, params_file=PARAMS) == []
    assert CALLS == ["work"]


def leaking(workspace: Workspace, params: Any) -> None:
    """A step: a server's words hold a password."""
    get_run_logger().error(f"lost postgresql://cmass:{SECRET}@db.org:5432/mlflow")
    try:
        raise ConnectionError(f"no answer from https://me:{SECRET}@h/api?token={SECRET}")
    except ConnectionError as error:
        raise WorkspaceError(f"https://me:{SECRET}@h/api is away") from error


def test_no_password_reaches_the_server(prefect_api, small, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "STEPS", one(leaking))
    with pytest.raises(WorkspaceError, match=r"https://\*\*\*@h/api is away"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    run = newest_run(prefect_api, "cmass-release")
    tasks = ask(prefect_api, "task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    end, logs = time.monotonic() + 60, []
    query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
    while not any("Traceback" in one["message"] for one in logs):
        assert time.monotonic() < end, logs
        time.sleep(0.2)
        logs = ask(prefect_api, "logs/filter", query)
    everything = json.dumps([run, tasks, logs])
    assert "https://***@h/api is away" in run["state"]["message"]
    assert any("lost postgresql://***@db.org:5432/mlflow" in one["message"] for one in logs)
    assert SECRET not in everything


def test_a_step_that_takes_too_long_is_stopped(prefect_api, small, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "STEPS", one(endless))
    with pytest.raises(TimeoutError):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS, step_hours=2 / 3600)
    run = newest_run(prefect_api, "cmass-release")
    assert run["state_type"] == "FAILED"
    artifacts = ask(
        prefect_api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    )
    (row,) = json.loads(next(a["data"] for a in artifacts if a["key"] == "cmass-steps"))
    assert row["ran"] == "failed"


def endless(workspace: Workspace, params: Any) -> None:
    for _ in range(600):
        time.sleep(0.1)


def test_ingest_tells_when_a_release_would_run(prefect_api, small, tmp_path, monkeypatch):
    """Without a deployment nothing is started; the log and the return value say so."""
    from flows import ingest, steps

    monkeypatch.setitem(pipeline.RUNS, "ingest", ("ingest",))
    heard = []
    monkeypatch.setattr(
        ingest, "start_release", lambda *given: heard.append(steps.start_release(*given))
    )
    options = {"profile": "smoke", "survey": "embedded", "data": tmp_path, "params_file": PARAMS}
    assert ingest.ingest(**options) == ["ingest"]
    assert ingest.ingest(**options) == []
    (tmp_path / "smoke" / "embedded" / "masses" / "comparison.parquet").unlink()
    monkeypatch.setitem(pipeline.RUNS, "ingest", ())
    assert ingest.ingest(**options) == []
    assert heard[:2] == [None, None]
    assert heard[2].startswith("ingest: outputs missing or changed")


def test_a_release_that_could_not_be_archived_is_archived_later(
    prefect_api, small, tmp_path, monkeypatch
):
    from cmass.versions import archive
    from flows import steps

    latest = tmp_path / "release" / "2026.01.01-abcdef01"
    latest.mkdir(parents=True)
    (tmp_path / "release" / "latest").symlink_to(latest.name)
    kept: list[str] = []

    def away(root: Path) -> str:
        kept.append("tried")
        if len(kept) == 1:
            raise WorkspaceError("the store is away")
        return "archived"

    monkeypatch.setattr(archive, "is_kept", lambda root: len(kept) > 1)
    monkeypatch.setattr(archive, "obstacle", lambda root: None)
    monkeypatch.setattr(archive, "archive", away)
    options = {"profile": "smoke", "data": tmp_path, "params_file": PARAMS}
    with pytest.raises(WorkspaceError, match="the store is away"):
        small.release(**options)
    choices = steps.Choices("smoke", data=tmp_path, params_file=PARAMS, seed=5)
    heard: list[str | None] = []
    flow(lambda: heard.append(steps.start_release(choices)), name="asks")()
    assert heard == ["archive: the latest release is not kept"]  # and seed 5 makes nothing stale
    assert small.release(**options) == []
    assert kept == ["tried", "tried"]
    assert small.release(**options) == []
    assert kept == ["tried", "tried"]
    kept.clear()
    small.release(**options, archive=False)  # nobody wants this one
    small.release(**options)
    assert kept == []


def test_a_flow_chooses_its_steps_when_it_has_its_turn(prefect_api, small, tmp_path):
    from flows import steps

    (tmp_path / "smoke").mkdir()
    seen = []

    def names(workspace: Workspace, params: Any) -> tuple[str, ...]:
        with pytest.raises(WorkspaceError, match="in use"), pipeline.workspace_lock(workspace):
            pass
        seen.append("asked")
        return ("ingest",)

    choices = steps.Choices("smoke", data=tmp_path, params_file=PARAMS)
    done = flow(lambda: steps.run_steps(names, choices), name="chooses")()
    assert done.names == ["ingest"] and seen == ["asked"]


def refused(workspace: Workspace, params: Any) -> None:
    CALLS.append("refused")
    raise WorkspaceError("no")


def flaky(workspace: Workspace, params: Any) -> None:
    CALLS.append("flaky")
    if len(CALLS) < 3:
        raise SourceError("the server is away")
    work(workspace, params)


def test_a_source_that_is_away_is_tried_again(prefect_api, small, tmp_path, monkeypatch):
    from flows import steps

    monkeypatch.setattr(pipeline, "STEPS", one(flaky))
    monkeypatch.setattr(steps.run_one, "retry_delay_seconds", [0, 0, 0])
    assert small.release(profile="smoke", data=tmp_path, params_file=PARAMS) == ["ingest"]
    assert CALLS == ["flaky", "flaky", "flaky", "work"]


def test_other_errors_are_not_tried_again(prefect_api, small, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "STEPS", one(refused))
    with pytest.raises(WorkspaceError, match="no"):
        small.release(profile="smoke", data=tmp_path, params_file=PARAMS)
    assert CALLS == ["refused"]
    assert newest_run(prefect_api, "cmass-release")["state_type"] == "FAILED"


def test_parameters_are_validated(prefect_api, small, tmp_path):
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match="profile"):
        small.release(profile="huge", data=tmp_path)
    assert CALLS == []


_FLOW = """
import sys, time
from pathlib import Path
from cmass import pipeline
import tests.flows.test_flows as small
from flows import release
def slow(workspace, params):
    started = time.time()
    time.sleep(2)
    small.work(workspace, params)
    with open(workspace.root / "times", "a") as stream:
        stream.write(f"{started} {time.time()}\\n")
small.slow = slow
pipeline.STEPS = small.one(slow)
pipeline.RUNS["release"] = ("ingest",)
release.release(profile="smoke", data=Path(sys.argv[1]), params_file=Path("params.yaml"), force=True)
"""


def test_two_flows_take_turns(prefect_api, tmp_path):
    """Concurrency of one per data folder: the second waits, and neither fails."""
    flows = [
        subprocess.Popen(
            [sys.executable, "-c", _FLOW, str(tmp_path / "data")], cwd=ROOT, env=dict(os.environ),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in flows:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output[-3000:]
    lines = (tmp_path / "data" / "times").read_text().splitlines()
    (_, first_end), (second_start, _) = sorted(tuple(map(float, x.split())) for x in lines)
    assert first_end < second_start


def test_flows_that_begin_together_share_the_limit(prefect_api, monkeypatch):
    """Both find no limit and make one: the second is told that it exists."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.exceptions import ObjectNotFound

    from flows.steps import make_limit

    def nothing(self, name):
        raise ObjectNotFound(Exception("none yet"))

    monkeypatch.setattr(SyncPrefectClient, "read_global_concurrency_limit_by_name", nothing)
    make_limit("cmass-together")
    make_limit("cmass-together")
    found = ask(prefect_api, "v2/concurrency_limits/filter")
    assert [one["limit"] for one in found if one["name"] == "cmass-together"] == [1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_release_flow_from_nothing_to_a_release(prefect_api, tmp_path):
    from flows.release import release

    start = time.monotonic()
    ran = release(profile="smoke", data=tmp_path, params_file=PARAMS)
    print(f"release flow: {time.monotonic() - start:.0f} s")  # noqa: T201
    assert ran == [s.name for s in STEPS]
    run = newest_run(prefect_api, "cmass-release")
    assert run["state_type"] == "COMPLETED"
    artifacts = ask(
        prefect_api, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    )
    assert any(a["key"] == "cmass-headline" and "pull" in a["data"] for a in artifacts)
    assert (tmp_path / "release" / "latest" / "report.html").exists()
