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

before = os.environ.get("OPENBLAS_NUM_THREADS")
with one_blas_thread():
    inside, children = threads(), os.environ["OPENBLAS_NUM_THREADS"]
print(inside, children, threads(), os.environ.get("OPENBLAS_NUM_THREADS") == before)
"""

_OVERLAPPING = """
import os, threading
import numpy, scipy.linalg, threadpoolctl
from cmass.machines.threads import one_blas_thread

def threads():
    return {p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}

first_in, second_in, first_out = (threading.Event() for _ in range(3))

def first():
    with one_blas_thread():
        first_in.set()
        second_in.wait()

before = threads()
other = threading.Thread(target=first)
other.start()
first_in.wait()
with one_blas_thread():
    second_in.set()
    other.join()
    print(threads(), os.environ["OPENBLAS_NUM_THREADS"])
print(threads() == before, "OPENBLAS_NUM_THREADS" in os.environ)
"""


def _said(script: str, threads: str | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if threads:
        environment["OPENBLAS_NUM_THREADS"] = threads
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("first", ["", "import numpy, scipy.linalg"])
def test_one_thread_and_afterwards_as_many_as_before(first):
    usual = len(os.sched_getaffinity(0))
    found = _said(_THREADS.format(first=first)).strip()
    assert found == f"{{1}} 1 {{{usual}}} True"


@pytest.mark.parametrize("first", ["", "import numpy, scipy.linalg"])
def test_who_sets_a_number_gets_it(first):
    number = min(2, len(os.sched_getaffinity(0)))
    found = _said(_THREADS.format(first=first), str(number)).strip()
    assert found == f"{{{number}}} {number} {{{number}}} True"


def test_of_two_that_overlap_the_last_one_undoes_it():
    assert _said(_OVERLAPPING).splitlines() == ["{1} 1", "True False"]
