"""Shards: resumed after a break, the same from any number of workers, whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cmass import seeds
from cmass.shards import Shard, digest_of, run_shards, staged_folder
from cmass.tables import atomic_path, file_digest

ROOT = Path(__file__).parents[1]


def make(folder: Path, shard: Shard) -> None:
    """Write random numbers that belong to the shard, and count the call."""
    (seed,) = shard.arguments
    values = seeds.generator(seed, "test", shard.number).normal(size=1000)
    for name in shard.outputs:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(values.tobytes())
    with open(folder.parent / "calls", "a") as stream:
        stream.write(f"{shard.number}\n")


def fail_at_three(folder: Path, shard: Shard) -> None:
    if shard.number == 3:
        raise ValueError("shard 3 is bad")
    make(folder, shard)


def shards(seed: int = 1, n: int = 6) -> list[Shard]:
    return [Shard(i, (f"a/{i:03d}.bin", f"b/{i:03d}.bin"), (seed,)) for i in range(n)]


def calls(folder: Path) -> list[int]:
    path = folder.parent / "calls"
    return sorted(int(x) for x in path.read_text().split()) if path.exists() else []


def work(folder: Path, function=make, *, seed=1, digest="d", workers=1) -> None:
    run_shards(function, shards(seed), folder, digest=digest, workers=workers, description="work")


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    for workers in (1, 2, 3):
        work(tmp_path / str(workers) / "out", workers=workers)
    digests = {file_digest(tmp_path / str(workers) / "out") for workers in (1, 2, 3)}
    assert len(digests) == 1


def test_a_broken_run_is_resumed(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="shard 3"):
        work(out, fail_at_three)
    assert not out.exists()
    assert calls(out) == [0, 1, 2]
    work(out)
    assert calls(out) == [0, 1, 2, 3, 4, 5]  # none twice
    assert sorted(p.name for p in out.iterdir()) == ["a", "b"]
    assert not list(tmp_path.glob("out.*"))


def test_a_shard_with_one_of_its_outputs_missing_is_made_again(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="shard 3"):
        work(out, fail_at_three)
    (tmp_path / "out.partial" / "b" / "001.bin").unlink()
    work(out)
    assert calls(out) == [0, 1, 1, 2, 3, 4, 5]


def test_shards_of_other_work_are_not_used(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="shard 3"):
        work(out, fail_at_three, seed=1, digest="one")
    work(out, seed=2, digest="two")
    work(tmp_path / "clean" / "out", seed=2, digest="two")
    assert file_digest(out) == file_digest(tmp_path / "clean" / "out")


def test_the_old_product_stays_until_the_new_one_is_whole(tmp_path):
    out = tmp_path / "out"
    work(out, seed=1, digest="one")
    before = file_digest(out)
    with pytest.raises(ValueError, match="shard 3"):
        work(out, fail_at_three, seed=2, digest="two")
    assert file_digest(out) == before
    work(out, seed=2, digest="two")
    assert file_digest(out) != before


def test_a_kill_between_the_moves_loses_no_work(tmp_path):
    """Each state that a kill can leave while the folder is put in place."""
    for state in ("old moved away", "new in place with mark"):
        out = tmp_path / state / "out"
        work(out, digest="d")
        before = file_digest(out)
        calls_before = calls(out)
        (out / "digest").write_text("d")
        if state == "old moved away":
            out.rename(out.with_name("out.partial"))
            out.with_name("out.old").mkdir()
        work(out, digest="d")
        assert file_digest(out) == before
        assert calls(out) == calls_before
        assert sorted(p.name for p in out.parent.iterdir()) == ["calls", "out"]


def test_staged_folder_leaves_partial_work_on_error(tmp_path):
    with pytest.raises(RuntimeError), staged_folder(tmp_path / "x", "d") as partial:
        (partial / "file").write_text("kept")
        raise RuntimeError
    with staged_folder(tmp_path / "x", "d") as partial:
        assert (partial / "file").read_text() == "kept"
    assert (tmp_path / "x" / "file").read_text() == "kept"


def test_digest_tells_values_apart():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1, 2) != digest_of(2, 1)
    assert digest_of("1") != digest_of(1)


_PARENT = """
import sys, time
from pathlib import Path
from cmass.shards import Shard, run_shards
from tests.test_shards import linger
if __name__ == "__main__":
    run_shards(linger, [Shard(i, (f"{i}",), ()) for i in range(8)], Path(sys.argv[1]),
               digest="d", workers=2, description="x")
"""


def linger(folder: Path, shard: Shard) -> None:
    with open(folder.parent / "pids", "a") as stream:
        stream.write(f"{os.getpid()}\n")
    time.sleep(60 if shard.number >= 2 else 0.01)
    (folder / shard.outputs[0]).write_text(str(np.float64(shard.number)))


def test_workers_die_with_a_killed_parent_and_the_next_run_goes_on(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    pids = tmp_path / "pids"
    _wait(lambda: pids.exists() and len(pids.read_text().split()) >= 4)
    workers = {int(p) for p in pids.read_text().split()}
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait(lambda: not any(_alive(pid) for pid in workers))
    assert sorted(p.name for p in (tmp_path / "out.partial").iterdir()) == ["0", "1", "digest"]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
