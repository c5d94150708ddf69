"""Threads that nobody asked for."""

from __future__ import annotations

import os
import sys

_OPENBLAS = "OPENBLAS_NUM_THREADS"


def one_blas_thread() -> None:
    """Keep BLAS to one thread in this process and those that it starts.

    Its products here are small, and after each its threads wait for the next one, spinning: beside
    other work on the same cores, thousands of small products took twelve times as long. Who sets
    ``OPENBLAS_NUM_THREADS`` gets that number.
    """
    wanted = os.environ.setdefault(_OPENBLAS, "1")
    if "numpy" in sys.modules and wanted == "1":  # what is loaded reads its environment no more
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, user_api="blas")
