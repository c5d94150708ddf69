"""A schedule fires, the mirror changes, a second version follows, and then nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cmass.pipeline import RUNS
from flows.service.settings import ServiceSettings
from tests.service.mirror import embedded_archive, lose_a_cluster, served, write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

#: Seconds between two scheduled runs, and the longest wait for one.
_INTERVAL_S, _WAIT_S = 60, 1800


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """POST `body`, or GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_for(what: Callable[[], Any], words: str) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + _WAIT_S
    while not (found := what()):
        assert time.monotonic() < end, f"{words}: not within {_WAIT_S} s"
        time.sleep(2)
    return found


class Prefect:
    """The server, asked over HTTP for the runs on one data folder."""

    def __init__(self, settings: ServiceSettings, data: Path) -> None:
        self.api, self.data = settings.prefect_api, str(data)

    def runs(self, flow: str, *, begun: bool = True) -> list[dict[str, Any]]:
        """Runs of a flow on this data folder that have been started or not, the oldest first."""
        body = {
            "flows": {"name": {"any_": [flow]}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": 200,
        }
        return [
            r for r in ask(f"{self.api}/flow_runs/filter", body)
            if r["parameters"].get("data") == self.data and (r["state_type"] not in ("SCHEDULED", "PENDING")) == begun
        ]  # fmt: skip

    def count(self, flow: str) -> int:
        """How many runs there were, once none is left to begin or to end."""

        def quiet() -> bool:
            open_ones = [r for r in self.runs(flow) if r["state_type"] == "RUNNING"]
            return not open_ones and not self.runs(flow, begun=False)

        wait_for(quiet, f"the end of all runs of {flow}")
        return len(self.runs(flow))

    def ended(self, flow: str, number: int) -> dict[str, Any]:
        """The run of that number, from 1, when it has ended; it must have completed."""

        def found() -> dict[str, Any] | None:
            runs = self.runs(flow)
            states = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            there = len(runs) >= number and runs[number - 1]["state_type"] in states
            return runs[number - 1] if there else None

        run = wait_for(found, f"run {number} of {flow}")
        assert run["state_type"] == "COMPLETED", run["state"]
        return run

    def artifacts(self, run: dict[str, Any]) -> dict[str, Any]:
        """Content of the run's artifacts by key."""
        body = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        found = {}
        for one in ask(f"{self.api}/artifacts/filter", body):
            data = one["data"]
            table = one["type"] == "table" and isinstance(data, str)
            found[one["key"]] = json.loads(data) if table else data
        return found

    def table_id(self, run: dict[str, Any]) -> str:
        """Id of the artifact that says what ran."""
        body = {
            "artifacts": {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["cmass-steps"]}}
        }
        (one,) = ask(f"{self.api}/artifacts/filter", body)
        return one["id"]

    def steps(self, run: dict[str, Any]) -> dict[str, str]:
        """What the run's artifact says of each step: whether it ran."""
        return {row["step"]: row["ran"] for row in self.artifacts(run)["cmass-steps"]}


@contextmanager
def scheduled(settings: ServiceSettings, parameters: dict[str, Any]) -> Iterator[None]:
    """A second schedule of the nightly deployment, every few seconds, with `parameters`."""
    from prefect import get_client
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings({PREFECT_API_URL: settings.prefect_api}),
        get_client(sync_client=True) as client,
    ):
        nightly = client.read_deployment_by_name("cmass-ingest/nightly")
        body = [
            {
                "schedule": IntervalSchedule(
                    interval=timedelta(seconds=_INTERVAL_S)
                ).model_dump(mode="json"),
                "active": True, "parameters": parameters, "max_scheduled_runs": 1,
            }
        ]  # fmt: skip
        address = f"{settings.prefect_api}/deployments/{nightly.id}/schedules"
        (made,) = ask(address, body)  # type: ignore[arg-type]  # this one takes a list
        try:
            yield
        finally:
            client.delete_deployment_schedule(nightly.id, made["id"])


def versions(data: Path) -> list[str]:
    """Releases in the data folder."""
    return sorted(p.name for p in (data / "release").iterdir() if p.is_dir() and not p.is_symlink())


def test_nightly(service, folder):
    data = folder / "data"
    prefect = Prefect(service, data)
    archive = embedded_archive()
    told: dict[str, Any] = {}
    with served(archive):
        file = write_params(archive, folder / "params.yaml")
        parameters = {"profile": "smoke", "data": str(data), "params_file": str(file)}

        # 1: everything is new
        with scheduled(service, parameters):
            first = prefect.ended("cmass-ingest", 1)
        assert first["auto_scheduled"]
        assert prefect.steps(first) == dict.fromkeys(RUNS["ingest"], "yes")
        release = prefect.ended("cmass-release", 1)
        done = prefect.steps(release)
        assert {n for n, ran in done.items() if ran == "yes"} == set(done) - set(RUNS["ingest"])
        assert {"cmass-headline", "cmass-report", "cmass-progress"} <= set(
            prefect.artifacts(release)
        )
        (version,) = versions(data)
        n_ingest, n_release = prefect.count("cmass-ingest"), prefect.count("cmass-release")
        told["first"] = {
            "ingest": prefect.steps(first),
            "release": done,
            "versions": versions(data),
        }

        # 2: one file of the mirror is another
        lose_a_cluster(archive)
        with scheduled(service, parameters):
            second = prefect.ended("cmass-ingest", n_ingest + 1)
        assert prefect.steps(second) == dict.fromkeys(RUNS["ingest"], "yes")
        again = prefect.ended("cmass-release", n_release + 1)
        done = prefect.steps(again)
        masses = {"infer", "realism", "figures", "publish"}
        assert set(done) == set(RUNS["release"])
        assert {n for n, ran in done.items() if ran == "yes"} == masses
        assert len(versions(data)) == 2
        assert (data / "release" / "latest").resolve().name != version
        prefect.count("cmass-release")
        n_ingest = prefect.count("cmass-ingest")
        told["second"] = {"ingest": prefect.steps(second), "release": done,
                          "versions": versions(data)}  # fmt: skip

        # 3: nothing is
        with scheduled(service, parameters):
            third = prefect.ended("cmass-ingest", n_ingest + 1)
        assert prefect.steps(third) == dict.fromkeys(RUNS["ingest"], "no")
        releases = [prefect.steps(run) for run in prefect.runs("cmass-release")]
        assert len([steps for steps in releases if "yes" in steps.values()]) == 2
        assert len(versions(data)) == 2
        told["third"] = {"ingest": prefect.steps(third), "versions": versions(data)}

    (service.home / "test" / "nightly.json").write_text(json.dumps(told, indent=1))
    names = [m["name"] for m in models(service)]
    assert any(name.startswith("cmass-cnn3d") for name in names)
    assert logged_to_the_store(service)
    shots = service.home / "screenshots"
    ui = service.prefect_api.removesuffix("/api")
    screenshot(f"{ui}/runs/flow-run/{again['id']}", shots / "prefect-run.png")
    screenshot(f"{ui}/artifacts/artifact/{prefect.table_id(again)}", shots / "prefect-steps.png")
    screenshot(f"{ui}/deployments", shots / "prefect-deployments.png")
    screenshot(f"{service.mlflow_url}/#/models/{names[0]}", shots / "mlflow-model.png")


def models(settings: ServiceSettings) -> list[dict[str, Any]]:
    """Registered models."""
    url = f"{settings.mlflow_url}/api/2.0/mlflow/registered-models/search"
    return ask(url).get("registered_models", [])


def logged_to_the_store(settings: ServiceSettings) -> bool:
    """Whether models lie in the S3 store."""
    from flows.service.health import store

    return bool(
        store(settings).list_objects_v2(Bucket=settings.bucket, Prefix="mlflow/")["KeyCount"]
    )


def screenshot(url: str, file: Path) -> None:
    """A page as chromium draws it; nothing where there is no chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    home = file.parent / f".chromium-{os.getpid()}"
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}",
         "--window-size=1400,1300", "--virtual-time-budget=30000", f"--screenshot={file}", url],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    shutil.rmtree(home, ignore_errors=True)
    assert file.stat().st_size > 10_000
