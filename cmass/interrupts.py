"""Ctrl-C that is not lost.

Python raises KeyboardInterrupt wherever the main thread stands. In a callback of the garbage collector,
in a destructor or in what compiled code calls, it is printed and dropped; some libraries make another
error of it, or none. So it is noted as well as raised: what was dropped is raised again, and long
work asks for the note.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds within which signals are the same Ctrl-C: `timeout` sends it to its child and to the group.
_ONE_PRESS_S = 0.5
#: Seconds after which an interrupt that was dropped is raised again.
_AGAIN_S = 0.1

_asked = False
_raised_at = -float("inf")


@contextmanager
def noted() -> Iterator[None]:
    """In the block Ctrl-C and SIGTERM are noted, and end it with KeyboardInterrupt.

    A polite kill leaves like Ctrl-C: locks are released, half-written files removed. For the main
    thread alone. Ctrl-C stays without effect where it was: a shell's background jobs ignore it.
    """
    global _asked, _raised_at
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before: dict[signal.Signals, Any] = {}
    alarms: list[tuple[float, float]] = []
    hook = sys.unraisablehook

    def raise_again(dropped: Any) -> None:
        if threading.current_thread() is not threading.main_thread() or not issubclass(
            dropped.exc_type, KeyboardInterrupt
        ):
            hook(dropped)
            return
        global _raised_at
        _raised_at = -float("inf")
        # By an alarm, not a thread: no lock may be taken here, the main thread may hold it.
        before.setdefault(signal.SIGALRM, signal.signal(signal.SIGALRM, _interrupt))
        alarm = signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        if not alarms:
            alarms.append(alarm)

    _asked, _raised_at = False, -float("inf")
    try:
        sys.unraisablehook = raise_again
        for number in numbers:
            before[number] = signal.signal(number, _interrupt)
        with recognised():
            yield
    finally:
        sys.unraisablehook = hook
        if signal.SIGALRM in before:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before.pop(signal.SIGALRM))
        if alarms:
            signal.setitimer(signal.ITIMER_REAL, *alarms[0])
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _asked, _raised_at
    _asked = True
    now = time.monotonic()
    if now - _raised_at > _ONE_PRESS_S:
        _raised_at = now
        raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if one was asked for in the block of `noted` and has been lost."""
    global _raised_at
    if _asked:
        _raised_at = time.monotonic()
        raise KeyboardInterrupt


def checked(items: Iterable[T]) -> Iterator[T]:
    """Yield `items`, each after a `check`."""
    for item in items:
        check()
        yield item


@contextmanager
def recognised() -> Iterator[None]:
    """An error of the block is KeyboardInterrupt once that was asked for: a library renamed it."""
    try:
        yield
    except Exception as error:
        if _asked:
            raise KeyboardInterrupt from error
        raise
