"""Clocks that jump, between runs and while one is at work: libfaketime before the real command."""

from __future__ import annotations

import random
import time
from pathlib import Path

from cmass.publish.release import complete_releases
from tests.faults.kills import BEGUN
from tests.faults.stage import Broken, Fault, Stage, require, step_names

_DAY_S = 86_400


def library() -> Path:
    """libfaketime, whose clock follows a file."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Broken("libfaketime is not installed: apt-get install faketime")
    return found[0]


def environment(file: Path) -> dict[str, str]:
    """Environment of a command whose clock goes wrong by what `file` says; elapsed time stays true."""
    return {
        "LD_PRELOAD": str(library()), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


def _offset(rng: random.Random) -> int:
    days = rng.choice([-400, -1, -0.04, 0.04, 1, 400])
    return int(days * _DAY_S) + rng.randrange(-3600, 3600)


def between(stage: Stage, rng: random.Random) -> str:
    """Three publications, each by another clock: the last one is in force and the newest."""
    stage.reset()
    file, order = stage.root / "clock", [stage.version]
    offsets = [_offset(rng) for _ in range(3)]
    for offset in offsets:
        file.write_text(f"{offset:+d}")
        params = stage.titled(f"title {rng.random()}")
        run = stage.start("publish", params=params, real=True, environment=environment(file))
        require(
            run.wait() == 0,
            f"publish by a clock {offset} s off ended with {run.code()}: {run.text[-1500:]}",
        )
        order.append(stage.require_published())
        found = [p.name for p in complete_releases(stage.data / "release")]
        require(found == order, f"releases are in the order {found}, published in {order}")
    stage.heal(params=params)
    return f"clocks off by {', '.join(f'{o / _DAY_S:+.2f}' for o in offsets)} days"


def during(stage: Stage, rng: random.Random) -> str:
    """The clock jumps at a random moment of a step, twice."""
    name = rng.choice([n for n in step_names() if n not in ("split", "champion")])
    params = stage.titled(f"title {rng.random()}")
    stage.reset(name)
    file = stage.root / "clock"
    file.write_text("+0")
    run = stage.start("run", params=params, real=True, environment=environment(file))
    require(run.wait_for(rf" {name}: .*{BEGUN}"), f"{name} did not begin: {run.text[-1500:]}")
    offsets = []
    for _ in range(2):
        time.sleep(rng.uniform(0, max(1.0, 0.5 * stage.seconds.get(name, 2.0))))
        offsets.append(_offset(rng))
        file.write_text(f"{offsets[-1]:+d}")
    require(run.wait() == 0, f"the run ended with {run.code()}: {run.text[-1500:]}")
    stage.require_published()
    require(stage.title().startswith("title 0."), "the new version was not published")
    stage.heal(params=params)  # by the true clock again: everything is up to date
    return f"{name}: {', '.join(f'{o / _DAY_S:+.2f}' for o in offsets)} days"


FAULTS = [
    Fault("clock set between runs", "three publications by clocks that are up to 400 days off",
          "the last one is in force, and the newest to `publish.keep`", between),
    Fault("clock set during a run", "the clock jumps twice, up to 400 days, in a random step",
          "the run ends as ever, with the same bytes", during),
]  # fmt: skip
