"""Threads that nobody asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

#: Variable of the environment that OpenBLAS reads when it is loaded.
OPENBLAS = "OPENBLAS_NUM_THREADS"


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own; looking for them takes as long as a cluster."""
    # Each brings a BLAS, and what is not loaded cannot be told.
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


class _Limits:
    """One thread for BLAS while anybody wants it: the first to come limits, the last to go undoes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = self._with_children = 0
        self._before: str | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """One thread in this process."""
        with self._lock:
            if not self._inside:
                self._limiter = _libraries().limit(limits=1, user_api="blas")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._limiter.restore_original_limits()

    @contextmanager
    def held_with_children(self) -> Iterator[None]:
        """One thread here and in processes that are started meanwhile, if nobody wants more."""
        with self._lock:
            wanted = os.environ.get(OPENBLAS, "1") == "1"
            if wanted:
                _libraries()  # loaded while the variable is set, they would keep its number
                if not self._with_children:
                    self._before = os.environ.get(OPENBLAS)
                self._with_children += 1
                os.environ[OPENBLAS] = "1"
        if not wanted:
            yield
            return
        try:
            with self.held():
                yield
        finally:
            with self._lock:
                self._with_children -= 1
                if not self._with_children and self._before is None:
                    del os.environ[OPENBLAS]


_limits = _Limits()


def one_blas_thread() -> AbstractContextManager[None]:
    """Keep BLAS to one thread, in this process and those that it starts meanwhile.

    Its products here are small, and after each its threads wait for the next one, spinning: beside
    other work on the same cores, thousands of small products took twelve times as long. Where
    ``OPENBLAS_NUM_THREADS`` is another number, nothing changes.
    """
    return _limits.held_with_children()


def products_in_one_thread() -> AbstractContextManager[None]:
    """Keep BLAS to one thread in this process, whatever the environment says."""
    return _limits.held()
