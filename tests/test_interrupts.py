"""Ctrl-C that a callback, a destructor or a library loses ends the work all the same, and only once."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from contextlib import suppress

import pytest

from cmass import interrupts, pipeline
from cmass.pipeline import Step
from cmass.progress import track
from cmass.workspace import Workspace


@pytest.fixture(autouse=True)
def _interruptible():
    """Ctrl-C as in a terminal: what was started in the background has it switched off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def in_a_callback_of_the_collector() -> None:
    def callback(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(callback)
        press()

    gc.callbacks.append(callback)
    gc.collect()


def in_a_destructor() -> None:
    class Pressing:
        def __del__(self) -> None:
            press()

    Pressing()


def in_a_library() -> None:
    with suppress(BaseException):
        press()


LOST = [in_a_callback_of_the_collector, in_a_destructor, in_a_library]


@pytest.mark.parametrize("lose", LOST[:2])
def test_what_was_dropped_is_raised_again_in_work_that_asks_nobody(lose, capfd):
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        lose()
        time.sleep(20)
    assert time.monotonic() - start < 10
    assert "Exception ignored" not in capfd.readouterr().err


@pytest.mark.parametrize("lose", LOST)
def test_loops_that_show_progress_end(lose):
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        for item in track(range(1000), "work"):
            done.append(item)
            if item == 3:
                lose()
            time.sleep(0.01)
    assert done[:4] == [0, 1, 2, 3]
    assert len(done) < 50


def test_no_other_step_begins(tmp_path, monkeypatch):
    from cmass.params import Params

    workspace, ran = Workspace(tmp_path, "smoke", "embedded"), []
    steps = tuple(
        Step(name, f"{name}:run", "", (), lambda w: (), lambda w: (w.mock,)) for name in "ab"
    )

    def run(self: Step, workspace: Workspace, params: Params) -> None:
        ran.append(self.name)
        workspace.mock.mkdir(parents=True, exist_ok=True)
        in_a_library()

    monkeypatch.setattr(pipeline, "STEPS", steps)
    monkeypatch.setattr(Step, "run", run)
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        pipeline.run_all(workspace, Params())
    assert ran == ["a"]
    pipeline.run_all(workspace, Params())
    assert ran == ["a", "b"]  # what had ended counts


def test_an_error_that_a_library_makes_of_it_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        in_a_library()
        raise RuntimeError("Query interrupted")
    with pytest.raises(RuntimeError, match="own"), interrupts.noted():
        raise RuntimeError("its own")


def test_a_signal_sent_twice_is_one_and_a_later_one_another(monkeypatch):
    cleared = []
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        try:
            press()
        finally:
            press()  # `timeout` signals its child, and the group
            cleared.append("once")
            monkeypatch.setattr(interrupts, "_ONE_PRESS_S", 0.0)
            with pytest.raises(KeyboardInterrupt):
                press()
            cleared.append("again")
    assert cleared == ["once", "again"]


def test_all_is_as_it_was_afterwards():
    hook, term = sys.unraisablehook, signal.getsignal(signal.SIGTERM)
    alarm, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with pytest.raises(KeyboardInterrupt), interrupts.noted():
        in_a_destructor()
        time.sleep(20)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is term
    assert signal.getsignal(signal.SIGALRM) is alarm
    assert sys.unraisablehook is hook
    assert signal.getitimer(signal.ITIMER_REAL) == pytest.approx(timer, abs=30)
    interrupts.check()


def test_a_background_job_goes_on_ignoring_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.noted():
        press()
        interrupts.check()
