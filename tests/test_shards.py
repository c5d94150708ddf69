"""Shards: resumed after a break, the same from any number of workers, whole or not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cmass import seeds
from cmass.errors import MachineError
from cmass.machines import Pool
from cmass.params import Params
from cmass.shards import (
    Shard,
    _await,
    _made,
    _make_aside,
    digest_of,
    run_shards,
    staged_folder,
)
from cmass.tables import atomic_path, file_digest

ROOT = Path(__file__).parents[1]


def make(folder: Path, shard: Shard) -> None:
    """Write random numbers that belong to the shard, and count the call."""
    seed, note = shard.arguments
    values = seeds.generator(seed, "test", shard.number).normal(size=1000)
    for name in shard.outputs:
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(values.tobytes())
    with open(note, "a") as stream:
        stream.write(f"{shard.number}\n")


def fail_at_three(folder: Path, shard: Shard) -> None:
    if shard.number == 3:
        raise ValueError("shard 3 is bad")
    make(folder, shard)


def shards(note: Path, seed: int = 1, n: int = 6) -> list[Shard]:
    return [Shard(i, (f"a/{i:03d}.bin", f"b/{i:03d}.bin"), (seed, note)) for i in range(n)]


def calls(folder: Path) -> list[int]:
    path = folder.parent / "calls"
    return sorted(int(x) for x in path.read_text().split()) if path.exists() else []


def work(folder: Path, function=make, *, seed=1, digest="d", workers=1) -> None:
    note = folder.parent / "calls"
    run_shards(
        function, shards(note, seed), folder, digest=digest, params=Params(workers=workers),
        description="work",
    )  # fmt: skip


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


def test_what_outlives_its_run_finds_no_place(tmp_path):
    """Another run, with other parameters, begins at the same path while a shard is made."""
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "digest").write_text("d")
    shard = shards(tmp_path / "calls")[0]
    with pytest.raises(FileNotFoundError, match=r"a/000\.bin"):
        _make_aside(start_another_run, tmp_path / "out.partial", "d", shard)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"out.partial/digest", "calls"}
    assert (tmp_path / "out.partial" / "digest").read_text() == "another"


def start_another_run(folder: Path, shard: Shard) -> None:
    make(folder, shard)
    partial = folder.parents[1] / "out.partial"
    shutil.rmtree(partial)
    for name in ("a", "b"):
        (partial / name).mkdir(parents=True)
    (partial / "digest").write_text("another")


def test_a_shard_of_another_run_is_not_begun(tmp_path):
    with staged_folder(tmp_path / "out", "this") as partial:
        with pytest.raises(MachineError, match="belongs to another run"):
            _make_aside(make, partial, "other", shards(tmp_path / "calls")[0])
        assert calls(tmp_path / "out") == []


def test_a_folder_that_is_not_seen_is_named(tmp_path):
    with pytest.raises(MachineError, match=r"cannot read .*out\.partial.*mount at the same path"):
        _make_aside(make, tmp_path / "out.partial", "d", shards(tmp_path / "calls")[0])


def test_files_that_come_late_are_waited_for_and_missing_ones_named(tmp_path):
    threading.Timer(0.5, (tmp_path / "late").touch).start()
    _await(tmp_path, ["late"], 60)
    with pytest.raises(MachineError, match="1 files .* are not in .*never"):
        _await(tmp_path, ["late", "never"], 0)


def test_no_more_shards_are_handed_out_than_keep_the_pool_busy(tmp_path):
    class Counting(ThreadPoolExecutor):
        handed_out, done, most = 0, 0, 0

        def submit(self, function, /, *arguments):
            self.handed_out += 1
            self.most = max(self.most, self.handed_out - self.done)
            return super().submit(function, *arguments)

    with Counting(3) as executor:
        for _ in _made(Pool(executor, lambda: 3), lambda shard: None, shards(tmp_path, n=50)):
            executor.done += 1
    assert executor.done == executor.handed_out == 50
    assert executor.most <= 6


def test_digest_tells_values_apart():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1, 2) != digest_of(2, 1)
    assert digest_of("1") != digest_of(1)


_PARENT = """
import sys, time
from pathlib import Path
from cmass.params import Params
from cmass.shards import Shard, run_shards
from tests.test_shards import linger
if __name__ == "__main__":
    out = Path(sys.argv[1])
    run_shards(linger, [Shard(i, (f"{i}",), (out.parent / "pids",)) for i in range(8)], out,
               digest="d", params=Params(workers=2), description="x")
"""


def linger(folder: Path, shard: Shard) -> None:
    (note,) = shard.arguments
    with open(note, "a") as stream:
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
