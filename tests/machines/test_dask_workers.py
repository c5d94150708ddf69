"""A real scheduler and real workers on this machine: same bytes as processes, whatever dies."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmass import cli, mock, split, voxels
from cmass.errors import MachineError
from cmass.params import Params, SplitParams, VoxelParams
from cmass.shards import Shard, run_shards
from cmass.tables import file_digest
from cmass.workspace import Workspace

pytest.importorskip("distributed")
from cmass.machines import dask_workers

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("dask")]


class Cluster:
    """A scheduler and its workers, each a process of its own; they run in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.scheduler = self._start(
            "dask_scheduler", "--port", "0", "--no-dashboard",
            DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1",
        )  # fmt: skip
        self.workers: list[subprocess.Popen[bytes]] = []

    def _start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", "--host", "127.0.0.1"]
        with open(self.folder / "log", "a") as log:
            return subprocess.Popen(
                [*command, "--scheduler-file", str(self.file), *arguments], cwd=self.folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, stdout=log, stderr=log,
            )  # fmt: skip

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """One more worker."""
        started = self._start(
            "dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", **environment
        )
        self.workers.append(started)
        return started

    def params(self, **changes) -> Params:
        return Params(scheduler=str(self.file), **changes)

    def ready(self, n: int) -> list[subprocess.Popen[bytes]]:
        """`n` workers that have joined, no more and no fewer."""
        from distributed import Client

        alive = [w for w in self.workers if w.poll() is None]
        for surplus in alive[n:]:
            kill(surplus)
        self.workers = alive[:n]
        while len(self.workers) < n:
            self.worker()
        with Client(scheduler_file=str(self.file), set_as_default=False) as client:
            wait(lambda: len(client.nthreads()) == n)
        return self.workers

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def wait(condition: Callable[[], object], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield started
    finally:
        started.close()


class Killer(threading.Thread):
    """Kills one worker in the middle of a shard, after the first shard and before the last."""

    def __init__(
        self, partial: Path, n_shards: int, workers: list[subprocess.Popen[bytes]]
    ) -> None:
        super().__init__()
        self.scratch, self.partial = partial.with_suffix(".scratch"), partial
        self.n_shards, self.workers = n_shards, workers
        self.killed: str | None = None

    def run(self) -> None:
        wait(self._kill_one)

    def _kill_one(self) -> bool:
        made = len(list(self.partial.rglob("*.parquet"))) if self.partial.exists() else 0
        if not made or not self.scratch.exists():
            return False
        for worker in self.workers:
            for own in self.scratch.glob(f"*-{worker.pid}-*"):
                worker.send_signal(signal.SIGSTOP)
                if own.exists() and len(list(self.partial.rglob("*.parquet"))) < self.n_shards:
                    self.killed = own.name
                    kill(worker)
                    return True
                worker.send_signal(signal.SIGCONT)
        return False


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        p.relative_to(folder).as_posix(): file_digest(p) for p in folder.rglob("*") if p.is_file()
    }


def test_mock_and_voxels_are_the_same_bytes_when_a_worker_is_killed_halfway(cluster, tmp_path):
    base = Params()
    haloes = base.mock.haloes.model_copy(update={"n_windows": 56})
    params = base.model_copy(
        update={
            "workers": 1,
            "mock": base.mock.model_copy(update={"haloes": haloes, "haloes_per_shard": 8}),
            "split": SplitParams(train=28, test=10, evaluation=10),
            "voxels": VoxelParams(n=100, clusters_per_shard=6),
        }
    )
    alone = Workspace(tmp_path / "alone", "standard", "embedded")
    many = Workspace(tmp_path / "many", "standard", "embedded")
    for step in (mock, split, voxels):
        step.run(alone, params)
    params = params.model_copy(update={"scheduler": str(cluster.file)})
    for step, folder in ((mock, many.mock), (voxels, many.voxels)):
        n = len(list((alone.home / folder.name).rglob("*.parquet")))
        killer = Killer(folder.with_name(f"{folder.name}.partial"), n, cluster.ready(2))
        killer.start()
        step.run(many, params)
        killer.join()
        assert killer.killed, "no worker was killed"
        split.run(many, params)
    assert digests(many.root) == digests(alone.root)
    assert len(digests(many.mock)) == 14
    assert not list(many.root.rglob("*.partial")) + list(many.root.rglob("*.scratch"))


# ------------------------------------------------------------------------- stopped in the middle


def slow(folder: Path, shard: Shard) -> None:
    """Note that it began, and write after a second."""
    (note,) = shard.arguments
    with open(note, "a") as stream:
        stream.write(f"{shard.number}\n")
    time.sleep(1.0)
    (folder / shard.outputs[0]).write_text(f"shard {shard.number}")


def suicide(folder: Path, shard: Shard) -> None:
    os._exit(1)


def work(params: Params, out: Path, function=slow, n: int = 8) -> None:
    shards = [Shard(i, (f"{i}.txt",), (out.parent / "began",)) for i in range(n)]
    run_shards(function, shards, out, digest="d", params=params, description="work")


def began(out: Path) -> list[str]:
    note = out.parent / "began"
    return note.read_text().split() if note.exists() else []


def when(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        wait(condition)
        action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: what was started in the background has it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_for_shards_at_work_and_begins_no_other(cluster, tmp_path):
    cluster.ready(2)
    out = tmp_path / "out"
    thread = when(lambda: len(began(out)) >= 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        work(cluster.params(), out)
    thread.join()
    first = began(out)
    made = {p.stem for p in (tmp_path / "out.partial").glob("*.txt")}
    assert set(first) == made  # whoever had begun has ended
    assert len(first) < 8
    time.sleep(2.0)
    assert began(out) == first  # and nobody begins later
    work(cluster.params(), out)
    assert sorted(began(out)) == [str(i) for i in range(8)]  # none twice
    assert sorted(p.name for p in tmp_path.iterdir()) == ["began", "out"]


def test_a_shard_that_kills_every_worker_is_named_as_such(cluster, tmp_path):
    cluster.ready(2)
    with pytest.raises(MachineError, match="2 workers died over the same shard.*lack of memory"):
        work(cluster.params(), tmp_path / "out", suicide, n=2)


def test_an_error_in_a_shard_arrives_as_it_is(cluster, tmp_path):
    cluster.ready(1)
    with pytest.raises(ZeroDivisionError):
        work(cluster.params(), tmp_path / "out", divide, n=2)


def test_shards_have_blas_in_one_thread(cluster, tmp_path):
    cluster.ready(1)
    work(cluster.params(), tmp_path / "out", say_threads, n=2)
    assert {file.read_text() for file in (tmp_path / "out").iterdir()} == {"{1}"}


def say_threads(folder: Path, shard: Shard) -> None:
    from threadpoolctl import threadpool_info

    found = {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
    (folder / shard.outputs[0]).write_text(str(found))


def divide(folder: Path, shard: Shard) -> None:
    raise ZeroDivisionError


@pytest.mark.slow
def test_workers_that_join_later_get_their_share(cluster, tmp_path, monkeypatch):
    cluster.ready(1)
    thread = when(lambda: began(tmp_path / "out"), cluster.worker)
    monkeypatch.setattr("cmass.shards._LOOK_S", 0.2)
    work(cluster.params(), tmp_path / "out", say_who, n=30)
    thread.join()
    assert len({p.read_text() for p in (tmp_path / "out").iterdir()}) == 2


def say_who(folder: Path, shard: Shard) -> None:
    slow(folder, shard)
    (folder / shard.outputs[0]).write_text(str(os.getpid()))


@pytest.mark.slow
def test_a_lost_scheduler_is_an_error_and_the_next_run_goes_on(tmp_path):
    import dask

    (tmp_path / "cluster").mkdir()
    short = Cluster(tmp_path / "cluster")
    out = tmp_path / "out"
    try:
        short.ready(1)
        thread = when(lambda: len(began(out)) >= 2, lambda: kill(short.scheduler))
        with (
            dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
            pytest.raises(MachineError, match="lost the Dask scheduler .*goes on where it stopped"),
        ):
            work(short.params(), out)
        thread.join()
    finally:
        short.close()
    assert (tmp_path / "out.partial" / "0.txt").exists()
    work(Params(workers=2), out)
    assert began(out).count("0") == 1
    assert len(list(out.iterdir())) == 8


# --------------------------------------------------------------------- refused before any work


def changed_code(folder: Path) -> None:
    shutil.copytree(ROOT / "cmass", folder / "cmass", ignore=shutil.ignore_patterns("__pycache__"))
    with open(folder / "cmass" / "half.py", "a") as stream:
        stream.write("# changed\n")


def no_code(folder: Path) -> None:
    (folder / "cmass").mkdir()
    (folder / "cmass" / "__init__.py").touch()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [(changed_code, "other code of cmass"), (no_code, "cannot run this cmass")],
)
def test_a_worker_with_other_code_is_refused_before_any_work(cluster, tmp_path, prepare, words):
    from distributed import Client

    cluster.ready(1)
    prepare(tmp_path)
    other = cluster.worker(PYTHONPATH=f"{tmp_path}:{ROOT}")
    with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
        wait(lambda: len(client.nthreads()) == 2)
    try:
        with pytest.raises(MachineError, match=rf"(?s)1 of 2 workers.*{words}.*same image"):
            work(cluster.params(), tmp_path / "out")
    finally:
        kill(other)
    assert began(tmp_path / "out") == []


def test_a_worker_that_does_not_see_the_folder_is_refused_before_any_work(
    cluster, tmp_path, monkeypatch
):
    cluster.ready(1)
    monkeypatch.setattr(dask_workers, "DELAY_S", 0.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digest").write_text("d")
    view = Path("/proc/self/cwd/digest")  # each process has another
    with (
        pytest.raises(MachineError, match=r"1 of 1 workers do not see .*mount at the same path"),
        dask_workers.dask_pool(str(cluster.file), view),
    ):
        raise AssertionError("work has begun")


@pytest.mark.slow
def test_a_worker_with_other_vector_instructions_is_told(cluster, tmp_path, caplog):
    """They change the last digits that numpy gives, not what is right."""
    found = dask_workers.own_software().vectors
    if not found:
        pytest.skip("numpy uses no vector instructions beyond its baseline here")
    cluster.ready(0)
    cluster.worker(NPY_DISABLE_CPU_FEATURES=" ".join(found))
    work(cluster.params(), tmp_path / "out", n=2)
    assert "1 of 1 workers have processors with other vector instructions" in caplog.text
    cluster.ready(0)
    cluster.ready(1)
    caplog.clear()
    work(cluster.params(), tmp_path / "same", n=2)
    assert caplog.text == ""


def test_a_worker_that_joins_later_with_other_software_does_no_work():
    own = dask_workers.own_software()
    others = {
        "numpy 9.9 instead": dataclasses.replace(own, versions=(("numpy", "9.9"),)),
        "other code of cmass": dataclasses.replace(own, code="0"),
    }
    assert dask_workers.call("me", own, max, 1, 2) == 2
    assert own.differences(others["numpy 9.9 instead"]) == [
        f"numpy 9.9 instead of {dict(own.versions)['numpy']}"
    ]
    with pytest.raises(MachineError, match=r"other code of cmass\. Give all machines"):
        dask_workers.call("me", others["other code of cmass"], max, 1, 2)
    assert dask_workers.at_work("me") == 0


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:9", "nowhere.json"])
def test_a_scheduler_out_of_reach_is_named_with_what_to_do(place, tmp_path, monkeypatch):
    import dask

    monkeypatch.setattr(dask_workers, "START_S", 0.5)
    text = (ROOT / "params.yaml").read_text()
    assert "\nscheduler: null" in text
    (tmp_path / "p.yaml").write_text(text.replace("\nscheduler: null", f"\nscheduler: {place}"))
    arguments = ["mock", "--params", "p.yaml", "--profile", "smoke", "--data", "data"]
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == MachineError.exit_code == 6
    said = done.output + (done.stderr if done.stderr_bytes else "")
    assert place in said
    assert "params.yaml" in said
    assert not (tmp_path / "data" / "smoke" / "mock").exists()


def test_no_worker_at_all_is_an_error(cluster, tmp_path, monkeypatch):
    cluster.ready(0)
    monkeypatch.setattr(dask_workers, "QUEUE_S", 0.5)
    with pytest.raises(MachineError, match="no worker joined tcp://.* within 0 s.*dask worker"):
        work(cluster.params(), tmp_path / "out")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"address": 5}',
        '{"address": "10.0.0.1"}',
        '{"address": "tcp://a b"}',
        "[" * 99_999,
    ],
)
def test_a_scheduler_file_that_names_no_address(tmp_path, text):
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    with pytest.raises(MachineError, match="names no Dask scheduler"):
        dask_workers.address_in(file)
    file.write_text('{"address": "tls://10.0.0.1:8786"}')
    assert dask_workers.address_in(file) == "tls://10.0.0.1:8786"
