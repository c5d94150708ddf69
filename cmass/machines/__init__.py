"""Where shards are made: processes on this machine, or workers of a Dask scheduler on many.

Both stand behind `concurrent.futures.Executor`. Parameters choose (`workers`, `scheduler`), and no
product depends on the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cmass.machines.processes import local_executor

if TYPE_CHECKING:
    from cmass.params import Params


@dataclass(frozen=True)
class Pool:
    """Workers that are ready.

    Attributes
    ----------
    executor : Executor
    slots : callable
        How many calls run at once, now: workers come and go.
    delay_s : float
        Seconds within which this machine sees a file that a worker has written.
    """

    executor: Executor
    slots: Callable[[], int]
    delay_s: float = 0.0


@contextmanager
def open_pool(params: Params, mark: Path) -> Iterator[Pool]:
    """Workers as the parameters choose them; what has not begun is cancelled at an early end.

    What has begun is waited for, or ended if it takes long after Ctrl-C: nothing writes once the caller
    has left.

    Parameters
    ----------
    params : Params
    mark : Path
        A file in the folder that the workers will write to; its path is absolute.

    Raises
    ------
    MachineError
        The scheduler cannot be reached, or a worker cannot read `mark` or runs other code.
    """
    if params.scheduler is None:
        with local_executor(params.workers) as executor:
            yield Pool(executor, lambda: params.workers)
    else:
        from cmass.machines.dask_workers import dask_pool

        with dask_pool(params.scheduler, mark) as pool:
            yield pool
