"""kill -9 of a run in the middle of every step, of its workers, and two runs at once."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable

from tests.faults.stage import Broken, Command, Fault, Stage, refused, require, step_names

#: Tries to hit a step before it ends.
_AIMS = 6
BEGUN = "(not made yet|forced|changed|missing)"


def hit(stage: Stage, rng: random.Random, name: str, prepare: Callable[[], Command]) -> str:
    """Kill a run in the middle of step `name`, at a random moment of the time that it takes."""
    length = stage.seconds.get(name, 3.0)
    for _ in range(_AIMS):
        run = prepare()
        require(run.wait_for(rf" {name}: .*{BEGUN}"), f"{name} did not begin:\n{run.text[-2000:]}")
        begun, moment = time.monotonic(), rng.uniform(0, length)
        while time.monotonic() < begun + moment and run.code() is None:
            time.sleep(0.005)
        if run.code() is None and f" {name}: done in" not in run.text:
            run.kill()
            run.require_no_orphans()
            return f"killed {moment:.2f} s after it began"
        length = (time.monotonic() - begun) * 0.7  # too late: it was quicker than it had been
        stage.seconds[name] = length
        run.kill()
        run.require_no_orphans()
    raise Broken(f"{name} was over before it could be killed, {_AIMS} times")


def in_step(name: str) -> Fault:
    """kill -9 of the run in a step whose products are there or not."""

    def attempt(stage: Stage, rng: random.Random) -> str:
        there = rng.random() < 0.5
        params = stage.titled(f"title {rng.random()}") if name == "publish" else None

        def prepare() -> Command:
            stage.reset(name, keep_outputs=there)
            return stage.start("run", params=params)

        words = hit(stage, rng, name, prepare)
        stage.require_published()
        stage.heal(params=params)
        if params is not None:
            require(stage.title().startswith("title 0."), "the new version was not published")
        return f"{words}, its older products {'there' if there else 'gone'}"

    return Fault(
        f"kill -9 in {name}", "a run is killed at a random moment of the step",
        "older release untouched; no worker outlives the run; the next run ends with the same bytes",
        attempt,
    )  # fmt: skip


def first_training(stage: Stage, rng: random.Random) -> str:
    """Killed while it trains, makes MLflow's tables or registers its first version."""

    def prepare() -> Command:
        stage.reset("train", "judge", "champion")
        shutil.rmtree(stage.data / "mlflow")
        return stage.start("run")

    words = hit(stage, rng, "train", prepare)
    stage.require_published()
    stage.heal()
    return words


def worker(name: str) -> Fault:
    """kill -9 of one of the processes that make shards."""

    def attempt(stage: Stage, rng: random.Random) -> str:
        stage.reset(name)
        run = stage.start("run")
        require(run.wait_for(rf" {name}: {BEGUN}"), f"{name} did not begin")
        end = time.monotonic() + 60
        while not (pool := [p for p in run.children() if "spawn_main" in " ".join(p.cmdline())]):
            require(time.monotonic() < end and run.code() is None, "no worker process was seen")
        time.sleep(rng.uniform(0, 0.6 * stage.seconds.get(name, 3.0)))
        victim = rng.choice(pool)
        require(f" {name}: done in" not in run.text, "the step was over")
        victim.kill()
        words = refused(run, 5, rf"{name}: a worker process died.*goes on where it stopped")
        stage.require_published()
        stage.heal()
        return words[:120]

    return Fault(
        f"kill -9 of a worker of {name}", "one of the processes that make shards is killed",
        "exit code 5, the message says so; the next run goes on and ends with the same bytes",
        attempt,
    )  # fmt: skip


def at_once(stage: Stage, rng: random.Random) -> str:
    """Two runs that would both publish, begun within two seconds."""
    params = stage.titled(f"title {rng.random()}")
    stage.reset("figures", "publish")
    command = rng.choice(["run", "publish"])
    if command == "publish":
        stage.reset("publish")
    runs = [stage.start(command, params=params)]
    time.sleep(rng.choice([0.0, rng.uniform(0, 2)]))
    runs.append(stage.start(command, params=params))
    codes = sorted(run.wait() for run in runs)
    require(codes in ([0, 5], [0, 0]), f"exit codes {codes}: {runs[0].text} {runs[1].text}")
    second = [run for run in runs if run.code() == 5]
    for run in second:
        refused(run, 5, r"in use by another pipeline \(process \d+: .*wait for it to end")
    stage.require_published()
    require(stage.title().startswith("title 0."), "the new version was not published")
    versions = [p for p in (stage.data / "release").iterdir() if p.is_dir() and not p.is_symlink()]
    require(len(versions) == 2, f"{len(versions)} versions instead of two")
    stage.heal(params=params)
    return f"cmass {command} twice: exit codes {codes}"


FAULTS = [
    *(in_step(name) for name in step_names()),
    Fault(
        "kill -9 in the first training", "as above, with an empty registry: MLflow's tables, the first version",
        "older release untouched; the next run registers and ends with the same bytes", first_training,
    ),
    worker("mock"),
    worker("voxelize"),
    Fault(
        "two releases at once", "`cmass run` or `cmass publish` twice, up to 2 s apart",
        "one publishes; the other ends with code 5 and names the process that is at work", at_once,
    ),
]  # fmt: skip
