"""Processes on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from multiprocessing import current_process, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any

#: Seconds that work at hand has to end after Ctrl-C, and a process after SIGTERM and SIGKILL.
PATIENCE_S = 5.0
_TERMINATED_S = 2.0
_KILLED_S = 5.0


@contextmanager
def local_executor(workers: int) -> Iterator[Executor]:
    """Processes on this machine; work not begun is cancelled when the block ends early.

    Work at hand is waited for, after Ctrl-C for `PATIENCE_S`; then, or at another Ctrl-C, the
    processes are ended. Nothing writes once the caller has left.
    """
    executor = _Processes(workers)
    early, patient = True, False
    try:
        yield executor
        early, patient = False, True
    except Exception:
        patient = True
        raise
    finally:
        executor.close(early=early, patient=patient)


# --------------------------------------------------------------------------------- what runs here


class _Processes(Executor):
    """A pool whose processes are started and awaited by a thread of its own.

    KeyboardInterrupt is raised in the main thread, wherever it stands: there it would leave processes
    that the pool has started and does not know of, or cut the wait for their end short.
    """

    def __init__(self, workers: int) -> None:
        self._context = _Context()
        # One place a worker: whether it is at work; and the last: whether no work may begin.
        self._board = self._context.RawArray("b", workers + 1)
        self._pool = ProcessPoolExecutor(
            workers, self._context, initializer=_settle_worker, initargs=(self._board,)
        )
        self._keeper = ThreadPoolExecutor(1, "workers", initializer=_block_ctrl_c)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = self._keeper.submit(self._pool.submit, _call, function, *args, **kwargs)
        return call.result()

    def close(self, *, early: bool, patient: bool) -> None:
        """Begin no other work if `early`, and return when all processes have ended.

        If not `patient`, after a time they are made to; and Ctrl-C goes on to the next, harder way.
        """
        if early:
            self._board[-1] = 1
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        closing = self._keeper.submit(self._pool.shutdown, cancel_futures=early)
        self._keeper.shutdown(wait=False)

        def listen(_: list[Future[None]]) -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        ways: list[Callable[[list[Future[None]]], Any]]
        ways = [listen, *([wait] if patient else []), self._finish, self._terminate, self._kill]
        interrupt: KeyboardInterrupt | None = None
        for way in ways:
            try:
                way([closing])
                if closing.done():
                    break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _finish(self, closing: list[Future[None]]) -> None:
        self._board[-1] = 1
        end = time.monotonic() + PATIENCE_S
        while any(self._board[:-1]) and time.monotonic() < end:
            if wait(closing, 0.05).done:
                return

    def _terminate(self, closing: list[Future[None]]) -> None:
        for worker in self._context.workers:
            if worker.is_alive():
                worker.terminate()
        wait(closing, _TERMINATED_S)

    def _kill(self, closing: list[Future[None]]) -> None:
        for worker in self._context.workers:
            if worker.is_alive():
                worker.kill()
        wait(closing, _KILLED_S)


class _Context(SpawnContext):
    """Starts processes, numbers and keeps them; none outlives this one, or starts others."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        worker = SpawnProcess(*args, **kwargs)
        worker.name, worker.daemon = str(len(self.workers)), True
        self.workers.append(worker)
        return worker


def _block_ctrl_c() -> None:
    # Processes inherit it: they are born deaf to the Ctrl-C that a terminal sends to all.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


# -------------------------------------------------------------------------------- what runs there

#: Of the pool that this process works for.
_board: Any = None


def _settle_worker(board: Any) -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone (it may be killed)."""
    global _board
    _board = board
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run by a worker for each piece of work."""
    place = int(current_process().name)
    _board[place] = 1
    try:
        if _board[-1]:
            raise CancelledError
        return function(*args, **kwargs)
    finally:
        _board[place] = 0
