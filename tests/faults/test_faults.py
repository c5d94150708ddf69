"""The harness itself: every fault once, and that it can tell harm from none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import __main__ as harness
from tests.faults.catalogue import FAULTS
from tests.faults.stage import ROOT, Broken, Fault, Stage, step_names

LINE = {"fault": "kill -9 in mock", "seed": 1, "number": 0, "ok": True, "words": "", "seconds": 1.0}


def test_every_step_is_killed():
    assert {f"kill -9 in {name}" for name in step_names()} <= set(FAULTS)


def test_times_are_random_and_can_be_repeated():
    draws = [harness.chance(1, "a", n).random() for n in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]


def test_a_try_that_did_harm_is_told(tmp_path):
    def harm(stage, rng):
        raise Broken("the older release is gone")

    line = harness.attempt(Fault("x", "", "", harm), Stage(tmp_path), 1, 0)
    assert not line["ok"] and "the older release is gone" in line["words"]
    assert "**1 of 2 failed**" in harness.table([LINE, LINE | {"ok": False}])
    assert "failed" not in harness.table([LINE])


def test_the_table_is_written_between_its_marks(tmp_path, monkeypatch):
    results, docs = tmp_path / "r.jsonl", tmp_path / "d.md"
    results.write_text(json.dumps(LINE) + "\n")
    docs.write_text("before\n<!-- faults -->\nyesterday\n<!-- /faults -->\nafter\n")
    words = ["x", "kill -9 in mock", "--table", "--results", str(results), "--docs", str(docs)]
    monkeypatch.setattr("sys.argv", words)
    assert harness.main() == 0
    text = docs.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "yesterday" not in text
    assert "python -m tests.faults 'kill -9 in mock'" in text


def test_a_release_that_is_not_whole_is_seen(released, tmp_path):
    stage = Stage(tmp_path)
    shutil.copytree(released.root, stage.data, symlinks=True)
    stage.version = (stage.data / "release" / "latest").readlink().name
    folder = stage.data / "release" / stage.version
    stage.sums = (folder / "SHA256SUMS").read_text()
    assert stage.require_published() == stage.version
    (folder / "masses.parquet").write_bytes(b"half")
    with pytest.raises(Broken, match="not whole"):
        stage.require_published()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [n for n in FAULTS if not n.startswith("service")])
def test_fault(name, tmp_path_factory):
    """One try of each; `make faults` makes more, and tries the service."""
    if name.startswith("disk") and os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if name.startswith("clock") and not list(
        Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    ):
        pytest.skip("needs libfaketime: apt-get install faketime")
    work = tmp_path_factory.getbasetemp() / "faults"
    command = [sys.executable, "-m", "tests.faults", name, "--repeats", "1", "--work", str(work)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
