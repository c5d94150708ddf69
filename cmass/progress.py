"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from cmass import interrupts

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items` while showing how far the work is and how long it will take.

    On a terminal a bar is drawn; elsewhere (a log file, CI, a Prefect worker) one
    line is written to standard error every 15 s at most.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C was pressed and lost on its way (see `cmass.interrupts`).
    """
    total = len(items) if total is None and isinstance(items, Sized) else total
    items = interrupts.checked(items)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, description, total=total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > 15 and total:
            last = now
            left = (now - start) / done * (total - done)
            print(f"{description}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
