"""BLAS keeps to one thread, whenever it is loaded, and afterwards does as before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_THREADS = """
import os
{first}
from cmass.machines.threads import one_blas_thread

def threads():
    import numpy, scipy.linalg, threadpoolctl
    return {{p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}}

before = dict(os.environ)
with one_blas_thread():
    inside, children = threads(), os.environ["OPENBLAS_NUM_THREADS"]
print(inside, children, threads(), dict(os.environ) == before)
"""


@pytest.mark.parametrize("first", ["", "import numpy, scipy.linalg"])
@pytest.mark.parametrize(("asked", "found"), [(None, "{1} 1 {2} True"), ("2", "{2} 2 {2} True")])
def test_one_thread_unless_the_environment_says_otherwise(first, asked, found):
    if len(os.sched_getaffinity(0)) != 2:
        pytest.skip("written for two cores: BLAS has as many threads")
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if asked:
        environment["OPENBLAS_NUM_THREADS"] = asked
    done = subprocess.run(
        [sys.executable, "-c", _THREADS.format(first=first)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == found
