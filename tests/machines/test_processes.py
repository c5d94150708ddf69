"""Processes on this machine: Ctrl-C at any moment ends them all, soon, and keeps what they made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cmass.shards import Shard

ROOT = Path(__file__).parents[2]

#: An interrupted command ends in a few seconds; on a busy machine it may take longer to leave.
SOON_S = 60.0

#: A command whose only step takes minutes on two workers.
_COMMAND = """
import sys
from cmass import cli, pipeline
from cmass.machines import processes
from cmass.shards import Shard, run_shards
from tests.machines.test_processes import make
def step(workspace, params):
    shards = [Shard(i, (f"{i}",), (SECONDS,)) for i in range(2000)]
    params = params.model_copy(update={"workers": 2})
    print("working", flush=True)
    run_shards(make, shards, workspace.mock, digest="d", params=params, description="x")
if __name__ == "__main__":
    processes.PATIENCE_S = LIMIT
    pipeline.STEPS = (
        pipeline.Step("mock", "__main__:step", "", (), lambda w: (), lambda w: (w.mock,)),
    )
    sys.argv = ["cmass", "mock", "--profile", "smoke", "--data", sys.argv[1]]
    cli.main()
"""


def make(folder: Path, shard: Shard) -> None:
    """Write in two pieces, with a pause between them."""
    (seconds,) = shard.arguments
    with open(folder / shard.outputs[0], "w") as stream:
        stream.write("half, ")
        stream.flush()
        time.sleep(seconds)
        stream.write("whole")


class Command:
    """The command, alone in a process group as a shell would start it."""

    def __init__(self, folder: Path, seconds: float, patience_s: float) -> None:
        script = folder / "command.py"
        text = _COMMAND.replace("SECONDS", str(seconds)).replace("LIMIT", str(patience_s))
        script.write_text(text)
        self.folder, self.made = folder, folder / "smoke" / "mock.partial"
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "working\n"

    def await_files(self, pattern: str) -> None:
        """Wait until it has written such a file."""
        until = time.monotonic() + SOON_S
        while not list(self.folder.glob(pattern)):
            assert self.process.poll() is None and time.monotonic() < until
            time.sleep(0.02)

    def interrupt_twice(self) -> None:
        """As `timeout` does: the process, and then the group that it is in."""
        self.process.send_signal(signal.SIGINT)
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> list[str]:
        """What it had made; it ended in time, and so did every process that it started."""
        _, errors = self.process.communicate(timeout=SOON_S)
        until = time.monotonic() + 20.0  # Python's resource tracker goes just after its parent
        while left := alive_in_group(self.process.pid):
            assert time.monotonic() < until, left
            time.sleep(0.02)
        assert self.process.returncode == 130, errors
        assert "error: interrupted" in errors
        assert "Traceback" not in errors
        made = [p.read_text() for p in self.made.glob("[0-9]*")]
        assert set(made) <= {"half, whole"}
        assert not self.made.with_suffix(".scratch").exists()
        return made


def alive_in_group(group: int) -> list[str]:
    """Command lines of its processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            state, _, its_group = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


@contextmanager
def command(folder: Path, seconds: float, patience_s: float = 5.0) -> Iterator[Command]:
    started = Command(folder, seconds, patience_s)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            os.killpg(started.process.pid, signal.SIGKILL)
            started.process.wait()


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.3, 0.6, 1.0])
def test_ctrl_c_sent_twice_ends_all_while_workers_start(tmp_path, after_s):
    with command(tmp_path, 0.05) as running:
        time.sleep(after_s)
        running.interrupt_twice()
        running.end()


def test_a_polite_kill_of_all_is_an_interrupt_and_no_lack_of_memory(tmp_path):
    with command(tmp_path, 0.05) as running:
        running.await_files("smoke/mock.partial/[0-9]*")
        os.killpg(running.process.pid, signal.SIGTERM)
        assert running.end()


def test_a_second_ctrl_c_does_not_wait_for_shards_at_work(tmp_path):
    with command(tmp_path, 600.0, patience_s=600.0) as running:
        running.await_files("smoke/mock.scratch/*/*")
        running.interrupt_twice()
        time.sleep(1.0)
        assert running.process.poll() is None
        running.interrupt_twice()
        running.end()


def test_shards_at_work_are_not_waited_for_without_end(tmp_path):
    with command(tmp_path, 600.0) as running:
        running.await_files("smoke/mock.scratch/*/*")
        running.interrupt_twice()
        running.end()
