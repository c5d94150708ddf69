"""BLAS keeps to one thread, whenever it is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_THREADS = """
{first}
from cmass.machines.threads import one_blas_thread
one_blas_thread()
import numpy, scipy.linalg, threadpoolctl
print({{p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}})
"""


@pytest.mark.parametrize("first", ["", "import numpy, scipy.linalg"])
@pytest.mark.parametrize(("asked", "found"), [(None, "{1}"), ("2", "{2}")])
def test_one_thread_unless_the_environment_says_otherwise(first, asked, found):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("BLAS has no second thread on one core")
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if asked:
        environment["OPENBLAS_NUM_THREADS"] = asked
    done = subprocess.run(
        [sys.executable, "-c", _THREADS.format(first=first)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == found
