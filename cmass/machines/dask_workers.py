"""Workers of a Dask scheduler: many machines that share one file system.

A worker makes the same bytes as this machine only if it runs the same code with the same libraries,
and is of use only if it sees the same folder. All are asked before any work, and each checks itself
again before every piece of work: workers come and go.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmass.errors import MachineError
from cmass.machines import Pool
from cmass.machines.threads import one_blas_thread
from cmass.shards import source_digest

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

#: Libraries that decide the bytes of a shard.
LIBRARIES = ("numpy", "scipy", "numba", "llvmlite", "pyarrow", "astropy", "colossus")
#: Seconds to wait for a scheduler's file, and for the first worker: machines start one by one.
START_S = 300.0
#: Seconds to wait for the first worker of a scheduler that is named by its file, as batch systems do:
#: the workers may stand in a queue.
QUEUE_S = 24 * 3600.0
#: Seconds after which every machine sees what another has written (NFS remembers for up to 60).
DELAY_S = 90.0

#: Most of a scheduler's file that is read, and what an address looks like.
_FILE_MAX = 1 << 20
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/@]{1,300}")

_SAME_CODE = "Give all machines the same image, or the same clone and environment, and restart them"


# -------------------------------------------------------------------------------- what runs there


@dataclass(frozen=True)
class Software:
    """Code and libraries of a process.

    Attributes
    ----------
    code : str
        SHA-256 of the package's source code.
    versions : tuple of (str, str)
        Of Python and `LIBRARIES`.
    vectors : tuple of str
        Vector instructions that numpy uses: with others the last digits are others.
    """

    code: str
    versions: tuple[tuple[str, str], ...]
    vectors: tuple[str, ...]

    def differences(self, other: Software) -> list[str]:
        """What `other` has that makes it another software, in words; empty if it is the same."""
        mine = dict(self.versions)
        found = [
            f"{name} {theirs} instead of {mine.get(name)}"
            for name, theirs in other.versions
            if mine.get(name) != theirs
        ]
        if other.code != self.code:
            found.append("other code of cmass")
        return found


@lru_cache(maxsize=1)
def own_software() -> Software:
    """Of this process, as it was when first asked: what has been imported does not change."""
    import numpy as np

    versions = [("Python", platform.python_version())]
    for name in LIBRARIES:
        try:
            versions.append((name, version(name)))
        except PackageNotFoundError:
            versions.append((name, "(missing)"))
    vectors = np.show_config(mode="dicts")["SIMD Extensions"].get("found", ())  # type: ignore[index]
    return Software(source_digest("."), tuple(versions), tuple(vectors))


@dataclass(frozen=True)
class Report:
    """What a worker says of itself: its software, and what it reads in the file it was asked for."""

    software: Software
    mark: str | None


def report(mark: str) -> Report:
    """Run by every worker."""
    try:
        text = Path(mark).read_text()
    except OSError:
        text = None
    return Report(own_software(), text)


#: Calls that this worker runs, by client: a cancelled call runs on to its end.
_at_work: Counter[str] = Counter()
_counting = threading.Lock()


def at_work(client: str) -> int:
    """Run by every worker: how many calls of `client` it is running."""
    return _at_work[client]


def call(client: str, needed: Software, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run by a worker for each piece of work: ``function(*arguments)`` if the software is the same."""
    others = needed.differences(own_software())
    if others:
        raise MachineError(
            f"the worker on {socket.gethostname()} (process {os.getpid()}) has "
            f"{', '.join(others)}. {_SAME_CODE}"
        )
    with _counting:
        _at_work[client] += 1
    try:
        with one_blas_thread():
            return function(*arguments)
    finally:
        with _counting:
            _at_work[client] -= 1


# --------------------------------------------------------------------------------- what runs here


class _CheckedExecutor(Executor):
    """An executor on a Dask cluster whose calls go through `call`."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._executor = client.get_executor(pure=False)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if kwargs:
            raise TypeError("arguments by name are not handed on")
        return self._executor.submit(call, self._name, own_software(), function, *args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for all calls; with `cancel_futures` for those alone that have begun."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        if not cancel_futures:
            return
        told = False
        while wait and (
            running := sum(_answers(self._client.run(at_work, self._name, on_error="return")))
        ):
            if not told:
                log.warning("waiting for %d shards that are being made", running)
                told = True
            time.sleep(0.2)


def _answers(by_worker: dict[str, Any]) -> list[Any]:
    """Answers of workers; those that died or left while they were asked have none."""
    return [answer for answer in by_worker.values() if not isinstance(answer, Exception)]


@contextmanager
def dask_pool(where: str, mark: Path) -> Iterator[Pool]:
    """Workers of a Dask scheduler (see `cmass.machines.open_pool`).

    Parameters
    ----------
    where : str
        Address of the scheduler, or the file that ``dask scheduler --scheduler-file`` wrote.
    mark : Path
        File that every worker must be able to read.
    """
    address = where if "://" in where else _address_in(Path(where))
    client = _connect(address)
    name = uuid.uuid4().hex
    with client:
        executor = _CheckedExecutor(client, name)
        try:
            _check_workers(client, address, mark, START_S if "://" in where else QUEUE_S)
            yield Pool(executor, _Slots(client), DELAY_S)
        except BaseException as error:
            reason = _in_words(error, client, address)
            if client.status == "running":
                with suppress(OSError):  # the scheduler goes meanwhile: nobody left to wait for
                    executor.shutdown(cancel_futures=True)
            if reason is None:
                raise
            raise MachineError(reason) from error


def _in_words(error: BaseException, client: Client, address: str) -> str | None:
    """What happened to scheduler or workers; None if the error came from elsewhere."""
    from distributed.scheduler import KilledWorker

    goes_on = "Run the same command again: it goes on where it stopped"
    if isinstance(error, KilledWorker):
        return (
            f"{error.allowed_failures + 1} workers died over the same shard, the last one "
            f"{error.last_worker.address}, most often for lack of memory. Give each worker more, or "
            "start fewer on a machine; where machines are taken away on purpose, start the scheduler "
            f"with DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=100. {goes_on}"
        )
    if isinstance(error, CancelledError) or client.status != "running":
        if isinstance(error, KeyboardInterrupt | MachineError):
            return None
        return f"lost the Dask scheduler {address} in the middle of the work. {goes_on}"
    return None


class _Slots:
    """How many calls the cluster runs at once; says so when there is nobody left."""

    def __init__(self, client: Client) -> None:
        self._client, self._anybody = client, True

    def __call__(self) -> int:
        slots = sum(self._client.nthreads().values())
        if self._anybody and not slots:
            log.warning("no worker is left; waiting for one to join")
        self._anybody = slots > 0
        return slots


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise MachineError(
            f"scheduler is {address}, but {error.name} is not installed here: pip install --constraint constraints.txt '.[dask]'"
        ) from error
    try:
        return Client(address, set_as_default=False, name="cmass")
    except (OSError, TimeoutError, ValueError) as error:
        raise MachineError(
            f"no Dask scheduler answers at {address}: {error}. Start one with `dask scheduler`, correct "
            "`scheduler` in params.yaml, or set it to null to work on this machine alone"
        ) from error


def address_in(file: Path) -> str:
    """The address in the file that ``dask scheduler --scheduler-file`` wrote.

    Raises
    ------
    MachineError
        There is no such file, or it names no address.
    """
    try:
        with open(file, encoding="utf-8") as stream:
            address = json.loads(stream.read(_FILE_MAX))["address"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise MachineError(f"{file} names no Dask scheduler: {error}") from error
    if not (isinstance(address, str) and _ADDRESS.fullmatch(address)):
        raise MachineError(f"{file} names no Dask scheduler: address {address!r}"[:300])
    return address


def _address_in(file: Path) -> str:
    """The same; the scheduler may be about to write it."""
    end = time.monotonic() + START_S
    while True:
        try:
            return address_in(file)
        except MachineError as error:
            if time.monotonic() > end:
                raise MachineError(
                    f"{error}, after {START_S:.0f} s. Start one with "
                    f"`dask scheduler --scheduler-file {file}`, or correct `scheduler` in params.yaml"
                ) from error
        time.sleep(0.5)


def _check_workers(client: Client, address: str, mark: Path, patience_s: float) -> None:
    """Raise unless there are workers, all of the same software, and all see the same folder."""
    if not client.nthreads():
        log.info("waiting for workers to join %s, for %.0f s at most", address, patience_s)
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError as error:
        raise MachineError(
            f"no worker joined {address} within {patience_s:.0f} s. Start some with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    needed, text = own_software(), mark.read_text()
    end = time.monotonic() + DELAY_S
    while True:
        reports = client.run(report, str(mark), on_error="return")
        blind = [w for w, r in reports.items() if isinstance(r, Report) and r.mark != text]
        if not blind or time.monotonic() > end:
            break
        time.sleep(1.0)
    faults = _faults(reports, needed)
    if faults:
        raise MachineError(
            f"{len(faults)} of {len(reports)} workers are not like this machine:\n  "
            + "\n  ".join(faults[:10])
            + f"\n{_SAME_CODE}"
        )
    if blind:
        raise MachineError(
            f"{len(blind)} of {len(reports)} workers do not see {mark.parent}, the first is "
            f"{blind[0]}. Put the data folder (--data) on a file system that all machines mount at "
            "the same path"
        )
    other = [
        w
        for w, r in reports.items()
        if isinstance(r, Report) and r.software.vectors != needed.vectors
    ]
    if other:
        log.warning(
            "%d of %d workers have processors with other vector instructions than this machine, "
            "the first is %s: the last digits of what they make may differ (docs/operations.md)",
            len(other), len(reports), other[0],
        )  # fmt: skip


def _faults(reports: dict[str, Any], needed: Software) -> list[str]:
    """What is wrong with which worker."""
    found = []
    for worker, answer in reports.items():
        if isinstance(answer, Report):
            words = ", ".join(needed.differences(answer.software))
        elif isinstance(answer, OSError):
            words = ""  # it left while it was asked
        else:
            words = f"cannot run this cmass ({answer})"
        if words:
            found.append(f"{worker}: {words}")
    return found
