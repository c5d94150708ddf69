"""kill -9 of the service's programs in the middle of a release that a deployment started.

The service is one of its own: below the work folder, on ports that no other uses.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import psutil

from flows.service.service import look
from flows.service.settings import ServiceSettings
from tests.faults.stage import ROOT, Broken, Fault, Stage, products, require, step_names

#: Added to every port of the service.
_SHIFT = 12_000
_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
#: Longest time of a run, with the wait for one that was lost, and of a program to be well again, seconds.
_RUN_S, _WELL_S = 1500.0, 300.0
RELEASE, BACKFILL = "cmass-release/on-change", "cmass-backfill/one-step"


@dataclass
class Service:
    """The service, what it was given to do, and the stage that its runs work on."""

    settings: ServiceSettings
    stage: Stage
    lengths: dict[str, float] = field(default_factory=dict)

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST `body` to Prefect's API, or GET; it may be down for a while."""
        data = None if body is None else json.dumps(body).encode()
        end = time.monotonic() + _WELL_S
        while True:
            request = urllib.request.Request(
                f"{self.settings.prefect_api}/{path}",
                data=data,
                headers={"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except (OSError, urllib.error.URLError) as error:
                require(time.monotonic() < end, f"Prefect does not answer: {error}")
                time.sleep(1)

    def start(self, deployment: str, **parameters: Any) -> str:
        """Start a deployment on the stage's data folder; the run's id."""
        number = self.ask(f"deployments/name/{deployment}")["id"]
        given = {"profile": "smoke", "data": str(self.stage.data), **parameters}
        return str(self.ask(f"deployments/{number}/create_flow_run", {"parameters": given})["id"])

    def run(self, number: str) -> dict[str, Any]:
        """What Prefect says of a run."""
        found: dict[str, Any] = self.ask(f"flow_runs/{number}")
        return found

    def has_ended(self, number: str) -> bool:
        """Whether a run is over."""
        return self.run(number)["state_type"] in _ENDED

    def ended(self, number: str) -> dict[str, Any]:
        """A run when it has ended."""
        end = time.monotonic() + _RUN_S
        while (run := self.run(number))["state_type"] not in _ENDED:
            require(
                time.monotonic() < end,
                f"run {run['name']} is {run['state_name']} after {_RUN_S:.0f} s",
            )
            time.sleep(1)
        return run

    def at_work(self, number: str, step: str) -> None:
        """Wait until a run has a task of that name."""
        end = time.monotonic() + _RUN_S
        body = {"flow_runs": {"id": {"any_": [number]}}}
        while True:
            tasks = {t["name"]: t["state_type"] for t in self.ask("task_runs/filter", body)}
            if tasks.get(step, "PENDING") not in ("PENDING", "SCHEDULED"):
                return
            require(
                self.run(number)["state_type"] not in _ENDED,
                f"it ended before {step}: {self.run(number)['state']}",
            )
            require(time.monotonic() < end, f"{step} did not begin")
            time.sleep(0.3)

    def require_well(self, name: str = "", pid: int = 0) -> None:
        """Every program must be well again, the killed one with another process."""
        end = time.monotonic() + _WELL_S
        while True:
            found = {one.name: one for one in look(self.settings)}
            if (
                found
                and all(one.well for one in found.values())
                and (not name or found[name].pid != pid)
            ):
                return
            troubles = {one.name: one.trouble for one in found.values() if not one.well}
            require(time.monotonic() < end, f"not well again: {troubles}")
            time.sleep(1)


@cache
def service(stage: Stage) -> Service:
    """Start the service and make a release through it, whose products the tries begin with."""
    home = stage.root / "service"
    names = [n for n in ServiceSettings.model_fields if n.endswith("_port")]
    ports = {
        f"CMASS_SERVICE_{n.upper()}": str(ServiceSettings.model_fields[n].default + _SHIFT)
        for n in names
    }
    more = {
        "CMASS_SERVICE_HOME": str(home),
        "CMASS_SERVICE_START_TIMEOUT_S": "600",
        "PYTHONPATH": str(ROOT),
    }
    # An older registry would have a champion already, and the release below would make no mocks.
    shutil.rmtree(home, ignore_errors=True)
    words = [sys.executable, "-m", "flows.service"]
    environment = os.environ | ports | more
    stage.at_end.append(
        lambda: subprocess.run([*words, "stop"], env=environment, cwd=ROOT, check=True)
    )
    done = subprocess.run(
        [*words, "start"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    require(done.returncode == 0, f"the service does not start: {done.stderr[-2000:]}")
    inner = Stage(stage.root / "service-runs")
    made = Service(ServiceSettings.of_running(home), inner)
    inner.root.mkdir(exist_ok=True)
    inner.write_params(inner.params)
    shutil.rmtree(inner.data, ignore_errors=True)
    run = made.ended(made.start(RELEASE, params_file=str(inner.params), archive=False))
    require(run["state_type"] == "COMPLETED", f"the undisturbed release: {run['state']}")
    shutil.rmtree(inner.base, ignore_errors=True)
    shutil.copytree(inner.data, inner.base, symlinks=True)
    inner.know_base()
    return made


def _victim(made: Service, name: str, rng: random.Random) -> int:
    """The process to kill: of that program, or what `name` says of it."""
    program, _, which = name.partition(":")
    pid = next(one.pid for one in look(made.settings) if one.name == program)
    if not which:
        return pid
    children = psutil.Process(pid).children(recursive=True)
    found = [c.pid for c in children if which in " ".join(c.cmdline())]
    require(
        bool(found), f"{program} has no process with {which}: {[c.cmdline() for c in children]}"
    )
    return rng.choice(found)


#: Programs that can be killed, by the words of the table.
PROGRAMS = {
    "the process of a flow": "worker:prefect",
    "the Prefect worker": "worker",
    "the Prefect server": "prefect",
    "PostgreSQL": "postgres",
    "MLflow": "mlflow",
    "S3": "s3",
}
_AIMS = 6


def _kill(made: Service, name: str, rng: random.Random) -> int:
    """kill -9 of a program; the number of its process."""
    pid = _victim(made, name, rng)
    with suppress(ProcessLookupError):
        os.kill(pid, 9)
    return pid


def _after(made: Service, number: str, program: str, pid: int) -> str:
    """What became of the run; every program must be well again, and what is published whole."""
    began = time.monotonic()
    run = made.ended(number)
    made.require_well(program if ":" not in program else "", pid)
    made.stage.require_published()
    words = f"{run['state_type'].lower()} after {time.monotonic() - began:.0f} s"
    if run["state_type"] != "COMPLETED":
        require(bool(run["state"]["message"]), f"a run that {run['state_type']} says nothing")
        words += f" ({run['state']['message'][:160]})"
    return words


def _make_again(made: Service, step: str, params: str) -> None:
    """The next run of the step must end well."""
    again = made.ended(made.start(BACKFILL, name=step, params_file=params))
    require(again["state_type"] == "COMPLETED", f"{step}, made again: {again['state']}")


def _publish(made: Service, params: str) -> None:
    """The next release must end well, with the undisturbed products, and publish."""
    inner = made.stage
    again = made.ended(made.start(RELEASE, params_file=params, archive=False))
    require(again["state_type"] == "COMPLETED", f"the next run: {again['state']}")
    inner.require_published()
    require(inner.title().startswith("title 0."), "the new version was not published")
    now = products(inner.data)
    odd = [n for n in now.keys() | inner.products.keys() if now.get(n) != inner.products.get(n)]
    require(not odd, f"products differ: {sorted(odd)[:5]}")


def killed(title: str, name: str, deployment: str = RELEASE, step: str = "infer") -> Fault:
    """kill -9 of a program while a run is at work."""

    def attempt(stage: Stage, rng: random.Random) -> str:
        made = service(stage)
        inner = made.stage
        made.require_well()
        params = str(inner.titled(f"title {rng.random()}"))
        inner.reset(step, "figures", "publish")
        given: dict[str, Any] = {"params_file": params}
        given |= {"archive": False} if deployment == RELEASE else {"name": step}
        number = made.start(deployment, **given)
        made.at_work(number, step)
        time.sleep(moment := rng.uniform(0, 12.0))
        first = _after(made, number, name, _kill(made, name, rng))
        if deployment == BACKFILL:  # the champion's release asks for no step of its training
            _make_again(made, step, params)
        _publish(made, params)
        return f"{moment:.1f} s after {step} began: {first}; next run completed"

    return Fault(
        f"service: kill -9 of {title}", f"at a random moment of `{deployment}`, 0 to 12 s after {step} began",
        "started again; the run completes, or fails with its reason on its page; the next one publishes the same bytes",
        attempt,
    )  # fmt: skip


def in_any_step(stage: Stage, rng: random.Random) -> str:
    """Any program, while `BACKFILL` makes any step; made again, and a release follows."""
    made = service(stage)
    inner, title = made.stage, rng.choice(list(PROGRAMS))
    step = rng.choice(step_names())
    params = str(inner.titled(f"title {rng.random()}"))
    for _ in range(_AIMS):
        made.require_well()
        inner.reset(step)
        number = made.start(BACKFILL, name=step, params_file=params)
        made.at_work(number, step)
        begun, moment = time.monotonic(), rng.uniform(0, made.lengths.get(step, 4.0))
        while time.monotonic() < begun + moment and not made.has_ended(number):
            time.sleep(0.2)
        if made.has_ended(number):  # it was quicker than it had been
            made.lengths[step] = 0.7 * (time.monotonic() - begun)
            continue
        first = _after(made, number, PROGRAMS[title], _kill(made, PROGRAMS[title], rng))
        _make_again(made, step, params)
        _publish(made, params)
        return f"{title}, {moment:.1f} s after {step} began: {first}; made again, and published"
    raise Broken(f"{step} was over before {title} could be killed, {_AIMS} times")


FAULTS = [
    *(killed(title, name) for title, name in PROGRAMS.items()),
    killed("a Dask worker", "dask-workers:spawn", BACKFILL, "mock"),
    killed("the Dask scheduler", "dask-scheduler", BACKFILL, "mock"),
    Fault(
        "service: kill -9 in any step", f"of any of these programs, while `{BACKFILL}` makes any of the steps",
        "started again; the step completes, or fails with its reason on its page; made again, the next release has the same bytes",
        in_any_step,
    ),
]  # fmt: skip
