"""kill -9 in the middle of steps of the real pipeline: the next run ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cmass.headline import HEADLINES, headline_numbers
from cmass.publish import sql
from cmass.publish.release import check_sums
from cmass.tables import file_digest
from cmass.workspace import Workspace

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

#: Step and what shows that it is at work: a file that grows, relative to the data folder.
KILLS = {
    "mock": "smoke/mock.partial/clusters/*.parquet",
    "voxelize": "smoke/voxels.partial/*/*.parquet",
    "train": "smoke/model.partial/checkpoint-*.npz",
    "publish": "release/.staging/*.parquet",
}


def command(data: Path) -> list[str]:
    return [sys.executable, "-m", "cmass.cli", "run", "--profile", "smoke", "--data", str(data)]


def products(data: Path) -> dict[str, str]:
    """Checksums of every Parquet file, and of the weights.

    Not of the release's provenance: it names the commit, which may move during the test. Nor of how
    long the rivals took.
    """
    times = ("costs.parquet", "rival_costs.parquet")
    files = [*data.glob("smoke/**/*.parquet"), *data.glob("smoke/**/*.h5")]
    released = [p for p in data.glob("release/latest/*.parquet") if p.stem != "provenance"]
    return {
        str(p.relative_to(data)): file_digest(p) for p in [*files, *released] if p.name not in times
    }


def check_latest(data: Path) -> None:
    """What readers see is a whole release, if there is any."""
    latest = data / "release" / "latest"
    if latest.is_symlink() or latest.exists():
        check_sums(latest)
        assert sql.query(latest, "SELECT count(*) AS n FROM masses")["n"][0].as_py() > 0


def kill_when(data: Path, pattern: str) -> None:
    """Start a run and kill it as soon as a file of `pattern` is there."""
    with open(data.parent / "log", "w") as log:
        process = subprocess.Popen(
            command(data), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=log,
            stdout=log,
        )  # fmt: skip
        while not list(data.glob(pattern)):
            assert process.poll() is None, (data.parent / "log").read_text()[-3000:]
            check_latest(data)
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()


def finish(data: Path) -> None:
    done = subprocess.run(
        command(data), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_killed_in_every_long_step_ends_like_one_that_was_not(tmp_path):
    whole = tmp_path / "whole" / "data"
    whole.parent.mkdir()
    finish(whole)
    numbers = headline_numbers(Workspace(whole, "smoke", "embedded"))
    assert [n.metric for n in numbers] == list(HEADLINES)  # each is a number that a step computes
    killed = tmp_path / "killed" / "data"
    killed.mkdir(parents=True)
    for pattern in KILLS.values():
        kill_when(killed, pattern)
        check_latest(killed)
    finish(killed)
    assert products(killed) == products(whole)
    check_latest(killed)
    left = [p for p in killed.rglob("*") if p.name.endswith((".tmp", ".partial", ".old"))]
    assert left == []


def test_a_kill_during_publish_leaves_the_older_release_in_force(tmp_path):
    data = tmp_path / "data"
    finish(data)
    older = (data / "release" / "latest").resolve()
    file = tmp_path / "p.yaml"
    text = (ROOT / "params.yaml").read_text()
    file.write_text(text.replace("title: cmass galaxy", "title: other galaxy"))
    process = subprocess.Popen(
        [*command(data), "--params", str(file)], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(data.glob("release/.staging/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert (data / "release" / "latest").resolve() == older
    check_latest(data)
    finish(data)
    check_latest(data)
