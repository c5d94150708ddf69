"""Threads that nobody asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Variable of the environment that OpenBLAS reads when it is loaded.
OPENBLAS = "OPENBLAS_NUM_THREADS"


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread, in this process and those that it starts meanwhile.

    Its products here are small, and after each its threads wait for the next one, spinning: beside
    other work on the same cores, thousands of small products took twelve times as long. Where
    ``OPENBLAS_NUM_THREADS`` is set already, as the ``cmass`` command does, nothing changes.
    """
    if OPENBLAS in os.environ:
        yield
        return
    import numpy  # noqa: F401  # each brings a BLAS, and what is not loaded cannot be told
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    os.environ[OPENBLAS] = "1"
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        del os.environ[OPENBLAS]
